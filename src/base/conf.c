/* conf.c - see conf.h.  inih does the lexing; the file is the operator's own, read once at start. */
#include "base/conf.h"

#include <errno.h>
#include <ini.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"

#define CONF_PRICE_MAX 1e6

struct reader {
        const struct conf_option *opt;
        size_t n;
        void *out;
        conf_labelled_fn *labelled;
        void *arg;
        FILE *file;
        int line, unread; /* negative errno of reading */
        struct err err;   /* the first one */
};

static int parse_bool(const char *v, bool *ret)
{
        static const char *const yes[] = { "yes", "true", "on", "1" };
        static const char *const no[] = { "no", "false", "off", "0" };

        for (size_t i = 0; i < NELEM(yes); i++) {
                if (str_eq(v, yes[i]) || str_eq(v, no[i])) {
                        *ret = str_eq(v, yes[i]);
                        return 0;
                }
        }
        return -EINVAL;
}

static int parse_factor(const char *v, double *ret)
{
        char *end = NULL;
        double d;

        errno = 0;
        d = strtod(v, &end);
        if (errno || end == v || *end || !(d >= 1.0 && d <= 1000.0))
                return -ERANGE;
        *ret = d;
        return 0;
}

/* In plain digits: what strtod() takes beside those is no price. */
static int parse_price(const char *v, double *ret)
{
        char *end = NULL;
        double d = strtod(v, &end);

        if (end == v || *end || strspn(v, "0123456789.") != strlen(v) || !(d <= CONF_PRICE_MAX))
                return -EINVAL;
        *ret = d;
        return 0;
}

static int set_u64(const struct conf_option *o, int r, uint64_t v, uint64_t *at)
{
        if (r < 0)
                return r;
        if (v < o->min || (o->max && v > o->max))
                return -ERANGE;
        *at = v;
        return 0;
}

static int set_option(const struct conf_option *o, const char *v, void *out)
{
        void *at = (char *) out + o->off;
        uint64_t n = 0;
        char *copy;
        int r;

        switch (o->kind) {
        case CONF_STR:
                copy = strdup(v);
                if (!copy)
                        return -ENOMEM;
                free(*(char **) at);
                *(char **) at = copy;
                return 0;
        case CONF_U32:
                r = str_u64(v, o->min, o->max ? o->max : UINT32_MAX, &n);
                if (r >= 0)
                        *(uint32_t *) at = (uint32_t) n;
                return r;
        case CONF_BOOL:
                return parse_bool(v, at);
        case CONF_DURATION:
                r = str_duration_us(v, &n);
                return set_u64(o, r, n, at);
        case CONF_BYTES:
                r = str_bytes(v, &n);
                return set_u64(o, r, n, at);
        case CONF_FACTOR:
                return parse_factor(v, at);
        case CONF_PRICE:
                return parse_price(v, at);
        }
        return -EINVAL;
}

const char *conf_kind_text(enum conf_kind kind)
{
        static const char *const want[] = {
                [CONF_STR] = "text",
                [CONF_U32] = "a whole number",
                [CONF_BOOL] = "yes or no",
                [CONF_DURATION] = "a time such as 500ms, 10s, 5m",
                [CONF_BYTES] = "a size such as 512M or 20G",
                [CONF_FACTOR] = "a factor from 1 to 1000",
                [CONF_PRICE] = "a number of dollars from 0 to 1000000, such as 1.19",
        };

        return want[kind];
}

static int explain(struct err *e, int r, const struct conf_option *o, const char *section,
                   const char *v)
{
        char limits[64] = "";

        if (r == -ERANGE && o->kind == CONF_U32)
                (void) snprintf(limits, sizeof limits, ", %llu to %llu",
                                (unsigned long long) o->min,
                                (unsigned long long) (o->max ? o->max : UINT32_MAX));
        return err_set(e, r, "[%s] %s = %s: must be %s%s%s", section, o->key, v,
                       conf_kind_text(o->kind), r == -ERANGE ? " within its limits" : "", limits);
}

int conf_set(const struct conf_option *opt, size_t n, const char *section, const char *key,
             const char *value, void *out, struct err *e)
{
        for (size_t i = 0; i < n; i++) {
                int r;

                if (!str_eq(opt[i].key, key))
                        continue;
                r = set_option(&opt[i], value, out);
                return r < 0 ? explain(e, r, &opt[i], section, value) : 0;
        }
        return err_set(e, -EINVAL, "[%s] %s: there is no such option", section, key);
}

/* "registry "127.0.0.1:5000"" -> name and label; NULL when the section carries none. */
static const char *split_label(char *section)
{
        char *quote = strchr(section, '"'), *end;

        if (!quote)
                return NULL;
        end = strrchr(quote + 1, '"');
        if (!end || end == quote)
                return NULL;
        *end = '\0';
        *quote = '\0';
        for (char *p = quote; p > section && (p[-1] == ' ' || p[-1] == '\t'); p--)
                p[-1] = '\0';
        return quote + 1;
}

/* inih: 1 = good, 0 = error */
static int on_key(void *user, const char *section, const char *key, const char *value)
{
        struct reader *rd = user;
        AUTO(free) char *name = strdup(section);
        const char *label = name ? split_label(name) : NULL;

        if (!name || rd->err.code)
                return 0;
        if (label && rd->labelled)
                return rd->labelled(rd->arg, name, label, key, value, &rd->err) >= 0;
        for (size_t i = 0; i < rd->n; i++) {
                const struct conf_option *o = &rd->opt[i];
                int r;

                if (!str_eq(o->section, section) || !str_eq(o->key, key))
                        continue;
                r = set_option(o, value, rd->out);
                if (r < 0)
                        (void) explain(&rd->err, r, o, section, value);
                return r >= 0;
        }
        (void) err_set(&rd->err, -EINVAL, "[%s] %s: there is no such option", section, key);
        return 0;
}

/* As fgets(), but for a byte that would end a text in the middle, and hide from inih what comes after it. */
static char *read_line(struct reader *rd, char *buf, int size)
{
        int n = 0, c = 0;

        while (n < size - 1 && c != '\n' && (c = fgetc(rd->file)) != EOF) {
                if (c == '\0' && !rd->err.code)
                        (void) err_set(&rd->err, -EINVAL, "a NUL byte: this is no text file");
                buf[n++] = (char) c;
        }
        buf[n] = '\0';
        if (ferror(rd->file)) { /* a directory opens, and does not read */
                rd->unread = errno ? -errno : -EIO;
                return NULL;
        }
        return n ? buf : NULL;
}

/* inih says nothing of a section without keys, so section lines are seen here, on their way to it. */
static char *on_line(char *buf, int size, void *user)
{
        struct reader *rd = user;
        AUTO(free) char *section = NULL;
        const char *label, *end;
        bool failed = rd->err.code < 0;

        if (!read_line(rd, buf, size))
                return NULL;
        rd->line++;
        if (!failed && rd->err.code < 0)
                return NULL; /* the end, at this line */
        end = strchr(buf, ']');
        if (*buf != '[' || !end || rd->err.code || !rd->labelled)
                return buf; /* an indented line goes on with the value before it */
        section = strndup(buf + 1, (size_t) (end - buf - 1));
        label = section ? split_label(section) : NULL;
        if (label && rd->labelled(rd->arg, section, label, NULL, NULL, &rd->err) < 0)
                return NULL; /* the end, at this line */
        return buf;
}

int conf_load(const char *path, const struct conf_option *opt, size_t n, void *out,
              conf_labelled_fn *labelled, void *arg, struct err *e)
{
        struct reader rd = { .opt = opt, .n = n, .out = out, .labelled = labelled, .arg = arg };
        int line;

        for (size_t i = 0; i < n; i++) {
                int r = set_option(&opt[i], opt[i].preset, out);

                if (r < 0)
                        return explain(e, r, &opt[i], opt[i].section, opt[i].preset);
        }
        if (!path)
                return 0;
        rd.file = fopen(path, "re");
        if (!rd.file)
                return err_errno(e, -errno ? -errno : -ENOENT, "configuration file %s", path);
        line = ini_parse_stream(on_line, &rd, on_key, &rd);
        (void) fclose(rd.file);
        if (rd.unread)
                return err_errno(e, rd.unread, "configuration file %s", path);
        if (rd.err.code)
                return err_copy(e, &rd.err)
                               ? err_wrap(e, rd.err.code, "%s:%d", path, line > 0 ? line : rd.line)
                               : 0;
        if (line > 0)
                return err_set(e, -EINVAL, "%s:%d: not 'key = value' and not '[section]'", path,
                               line);
        return 0;
}

void conf_done(const struct conf_option *opt, size_t n, void *out)
{
        for (size_t i = 0; i < n; i++) {
                char **at = (char **) ((char *) out + opt[i].off);

                if (opt[i].kind != CONF_STR)
                        continue;
                free(*at);
                *at = NULL;
        }
}
