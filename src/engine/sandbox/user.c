/* user.c - who the program runs as, from the image's own /etc/passwd and /etc/group.  First
 * process, inside the sandbox: the files are the tenant's bytes, and a mistake here can hurt only
 * the cluster itself.  Lines that are not well-formed are passed over, as libc does. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/str.h"
#include "engine/sandbox/sandbox_priv.h"

#define DB_MAX     (1U << 20) /* bytes of passwd or group */
#define FIELDS_MAX 7

struct line {
        const char *f[FIELDS_MAX];
        size_t len[FIELDS_MAX];
        int n;
};

/* Cut one line into fields; returns where the next one begins, or NULL at the end. */
static const char *next_line(const char *p, struct line *l)
{
        const char *end = p + strcspn(p, "\n");

        l->n = 0;
        if (*p == '\0')
                return NULL;
        while (l->n < FIELDS_MAX) {
                size_t len = (size_t) (end - p);
                const char *colon = memchr(p, ':', len);

                l->f[l->n] = p;
                l->len[l->n++] = colon ? (size_t) (colon - p) : len;
                if (!colon)
                        break;
                p = colon + 1;
        }
        return *end ? end + 1 : end;
}

static bool is(const struct line *l, int i, const char *s, size_t len)
{
        return l->len[i] == len && memcmp(l->f[i], s, len) == 0;
}

static bool number(const char *s, size_t len, uint32_t *ret)
{
        char buf[8];
        uint64_t v = 0;

        if (len == 0 || len >= sizeof buf)
                return false;
        memcpy(buf, s, len);
        buf[len] = '\0';
        if (str_u64(buf, 0, SANDBOX_IDS - 1, &v) < 0)
                return false;
        *ret = (uint32_t) v;
        return true;
}

/* All digits: an id even when it is out of range, so that the message can say so. */
static bool digits(const char *s, size_t len)
{
        for (size_t i = 0; i < len; i++)
                if (s[i] < '0' || s[i] > '9')
                        return false;
        return len > 0;
}

/* The passwd line of a name, or else of a number; false when there is none. */
static bool find_user(const char *passwd, const char *s, size_t len, struct line *ret,
                      uint32_t *uid, uint32_t *gid)
{
        uint32_t want = 0;
        bool by_number = number(s, len, &want), found = false;
        struct line l;

        for (const char *p = passwd; p && (p = next_line(p, &l));) {
                uint32_t u, g;

                if (l.n < 7 || l.len[0] == 0 || !number(l.f[2], l.len[2], &u) ||
                    !number(l.f[3], l.len[3], &g))
                        continue;
                if (!is(&l, 0, s, len) && (found || !by_number || u != want))
                        continue;
                *ret = l;
                *uid = u;
                *gid = g;
                found = true;
                if (is(&l, 0, s, len))
                        break; /* a name goes before a number */
        }
        return found;
}

static int find_group(const char *group, const char *s, size_t len, uint32_t *gid, struct err *e)
{
        struct line l;

        for (const char *p = group; p && (p = next_line(p, &l));)
                if (l.n >= 3 && is(&l, 0, s, len) && number(l.f[2], l.len[2], gid))
                        return 0;
        if (number(s, len, gid))
                return 0;
        if (digits(s, len))
                return err_set(e, -ERANGE, "group %.*s: ids inside are 0 to %u", (int) len, s,
                               SANDBOX_IDS - 1);
        return err_set(e, -ENOENT, "group %.*s is not in the image's /etc/group", (int) len, s);
}

/* Is @name one of the comma-separated @members? */
static bool member(const char *members, size_t n, const char *name, size_t len)
{
        while (n >= len) {
                const char *comma = memchr(members, ',', n);
                size_t one = comma ? (size_t) (comma - members) : n;

                if (one == len && memcmp(members, name, len) == 0)
                        return true;
                if (!comma)
                        break;
                members += one + 1;
                n -= one + 1;
        }
        return false;
}

static int further_groups(const char *group, const char *name, size_t len, struct user *u,
                          struct err *e)
{
        struct line l;

        for (const char *p = group; p && (p = next_line(p, &l));) {
                uint32_t gid;

                if (l.n < 4 || !number(l.f[2], l.len[2], &gid) ||
                    !member(l.f[3], l.len[3], name, len))
                        continue;
                if (u->n_groups == USER_GROUPS_MAX)
                        return err_set(e, -E2BIG,
                                       "user %.*s is in more than %u groups; name one (USER:GROUP)",
                                       (int) len, name, USER_GROUPS_MAX);
                u->groups[u->n_groups++] = gid;
        }
        return 0;
}

int user_parse(const char *passwd, const char *group, const char *spec, struct user *ret,
               struct err *e)
{
        const char *who = str_empty(spec) ? "0" : spec, *colon = strchr(who, ':');
        size_t len = colon ? (size_t) (colon - who) : strlen(who);
        const char *group_name = colon && colon[1] ? colon + 1 : NULL;
        struct user u = { .home = "/" };
        struct line l = { .n = 0 };
        bool known;
        int r = 0;

        if (len == 0)
                return err_set(e, -EINVAL, "user '%s': no name", who);
        known = find_user(passwd, who, len, &l, &u.uid, &u.gid);
        if (!known && !number(who, len, &u.uid)) {
                if (digits(who, len))
                        return err_set(e, -ERANGE, "user %.*s: ids inside are 0 to %u", (int) len,
                                       who, SANDBOX_IDS - 1);
                return err_set(e, -ENOENT, "user %.*s is not in the image's /etc/passwd", (int) len,
                               who);
        }
        if (known && l.len[5] > 0 && l.len[5] < sizeof u.home && l.f[5][0] == '/')
                (void) snprintf(u.home, sizeof u.home, "%.*s", (int) l.len[5], l.f[5]);
        else if (u.uid == 0)
                (void) snprintf(u.home, sizeof u.home, "/root");
        if (group_name)
                r = find_group(group, group_name, strlen(group_name), &u.gid, e);
        else if (known)
                r = further_groups(group, l.f[0], l.len[0], &u, e);
        if (r < 0)
                return r;
        *ret = u;
        return 0;
}

/* NULL content when there is no such file, and also when what lies there is no use: a FIFO, a
 * device, a leased or a huge file.  Root inside can put any of them there, and must not lock the
 * owner out by it: ids and the default user need no file.  Nothing is waited for.  *@e then says
 * what is wrong with it, for a name that is looked up in vain. */
static int read_db(int root, const char *path, char **ret, struct err *e)
{
        AUTO(fd) int fd = fd_open_in_root(root, path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
        AUTO(free) char *text = NULL;
        struct stat st;
        ssize_t n;

        if (fd == -ENOENT || fd == -ENOTDIR)
                return 0;
        if (fd < 0 || fstat(fd, &st) < 0) {
                (void) err_errno(e, fd < 0 ? fd : -errno, "%s", path);
                return 0;
        }
        if (!S_ISREG(st.st_mode) || st.st_size > DB_MAX) {
                (void) err_set(e, -EINVAL, "%s: not a plain file of at most %u bytes", path,
                               DB_MAX);
                return 0;
        }
        text = malloc((size_t) st.st_size + 1);
        if (!text)
                return err_set(e, -ENOMEM, "%s: out of memory", path);
        n = fd_read_full(fd, text, (size_t) st.st_size);
        if (n < 0) {
                (void) err_errno(e, (int) n, "read %s", path);
                return 0;
        }
        text[n] = '\0';
        *ret = TAKE(text);
        return 0;
}

int user_resolve(int root, const char *spec, struct user *ret, struct err *e)
{
        AUTO(free) char *passwd = NULL, *group = NULL;
        struct err why = { 0 }, parse = { 0 };
        int r = read_db(root, "/etc/passwd", &passwd, &why);

        if (r >= 0)
                r = read_db(root, "/etc/group", &group, &why);
        if (r < 0)
                return err_copy(e, &why);
        r = user_parse(passwd, group, spec, ret, &parse);
        if (r == -ENOENT && why.code)
                return err_set(e, r, "%s (%s)", parse.msg, why.msg);
        return r < 0 ? err_copy(e, &parse) : r;
}
