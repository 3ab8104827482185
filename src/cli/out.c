/* out.c - see out.h and the output functions of cli.h.  Runs in tensoronecli.
 *
 * What comes from the API may hold a tenant's bytes: control characters never reach the terminal
 * from a table or a message. */
#include "cli/out.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/clock.h"
#include "cli/cli.h"

struct table {
        size_t n_cols, n_cells;
        char **cells; /* the headers are the first row */
        size_t *width;
};

int out_printf(struct err *e, const char *fmt, ...)
{
        va_list ap;
        int r;

        va_start(ap, fmt);
        r = vprintf(fmt, ap);
        va_end(ap);
        if (r >= 0)
                r = fflush(stdout);
        return r < 0 ? err_errno(e, errno ? -errno : -EIO, "standard output") : 0;
}

int out_json(const void *json, struct err *e)
{
        AUTO(free) char *text = json_dumps(json, JSON_INDENT(2));

        if (!text)
                return err_set(e, -ENOMEM, "out of memory");
        return out_printf(e, "%s\n", text);
}

static void say(const char *what, const char *msg)
{
        AUTO(free) char *copy = strdup(msg);

        if (copy)
                str_tame(copy, ' ');
        (void) fflush(stdout);
        (void) fprintf(stderr, "%s%s\n", what, copy ? copy : "out of memory");
}

void out_error(const char *msg)
{
        say("Error: ", msg);
}

void out_note(const char *msg)
{
        say("", msg);
}

size_t text_width(const char *s)
{
        size_t n = 0;

        for (; *s; s++)
                n += ((unsigned char) *s & 0xc0) != 0x80; /* not a continuation byte of UTF-8 */
        return n;
}

int table_new(const char *const *headers, size_t n, struct table **ret)
{
        AUTO(table_free) struct table *t = calloc(1, sizeof *t);

        if (!t)
                return -ENOMEM;
        t->n_cols = n;
        t->width = calloc(n, sizeof *t->width);
        if (!t->width)
                return -ENOMEM;
        for (size_t i = 0; i < n; i++)
                if (table_cell(t, headers[i]) < 0)
                        return -ENOMEM;
        *ret = TAKE(t);
        return 0;
}

struct table *table_free(struct table *t)
{
        if (!t)
                return NULL;
        for (size_t i = 0; i < t->n_cells; i++)
                free(t->cells[i]);
        free(t->cells);
        free(t->width);
        free(t);
        return NULL;
}

int table_cell(struct table *t, const char *text)
{
        char *copy = strdup(text ? text : "");
        char **grown = reallocarray(t->cells, t->n_cells + 1, sizeof *grown);
        size_t col = t->n_cells % t->n_cols, w;

        if (grown)
                t->cells = grown;
        if (!copy || !grown) {
                free(copy);
                return -ENOMEM;
        }
        str_tame(copy, '?');
        t->cells[t->n_cells++] = copy;
        w = text_width(copy);
        if (w > t->width[col])
                t->width[col] = w;
        return 0;
}

int table_text(const struct table *t, struct strbuf *out)
{
        for (size_t i = 0; i < t->n_cells; i++) {
                size_t col = i % t->n_cols, w = text_width(t->cells[i]);

                strbuf_str(out, t->cells[i]);
                for (; w < t->width[col]; w++)
                        strbuf_char(out, ' ');
                strbuf_str(out, col + 1 == t->n_cols ? "\t\n" : "\t");
        }
        return out->failed ? -ENOMEM : 0;
}

int table_print(const struct table *t, struct err *e)
{
        AUTO(strbuf_done) struct strbuf b = { 0 };

        if (table_text(t, &b) < 0)
                return err_set(e, -ENOMEM, "out of memory");
        return out_printf(e, "%s", b.s ? b.s : "");
}

const char *size_text(uint64_t bytes, char *buf)
{
        static const char *const unit[] = { "B", "kB", "MB", "GB", "TB", "PB", "EB" };
        double v = (double) bytes;
        size_t i = 0;

        for (; v >= 999.95 && i + 1 < NELEM(unit); i++)
                v /= 1000;
        (void) snprintf(buf, 16, i == 0 ? "%.0f %s" : "%.1f %s", v, unit[i]);
        return buf;
}

/* "123 MiB", "1.2 GiB"; @buf holds 16 bytes and gets 7 characters at most. */
static const char *binary_text(uint64_t bytes, char *buf)
{
        static const char *const unit[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
        double v = (double) bytes;
        size_t i = 0;

        for (; v >= 999.5 && i + 1 < NELEM(unit); i++)
                v /= 1024;
        (void) snprintf(buf, 16, i > 0 && v < 9.95 ? "%.1f %s" : "%.0f %s", v, unit[i]);
        return buf;
}

/* "12s", "3m05s", "1h02m"; "" when nobody can tell, or it takes days. */
static const char *eta_text(const struct progress_state *s, char *buf)
{
        uint64_t left = s->total > s->done ? s->total - s->done : 0, t;

        *buf = '\0';
        if (left == 0 || s->per_s == 0)
                return buf;
        t = left / s->per_s + (left % s->per_s > 0);
        if (t < 60)
                (void) snprintf(buf, 16, "%us", (unsigned) t);
        else if (t < 3600)
                (void) snprintf(buf, 16, "%um%02us", (unsigned) (t / 60), (unsigned) (t % 60));
        else if (t < 100 * 3600)
                (void) snprintf(buf, 16, "%uh%02um", (unsigned) (t / 3600),
                                (unsigned) (t / 60 % 60));
        return buf;
}

/* What is said beside the bar, in this order.  Each has a width of its own that does not change while
 * its numbers do: else the bar would tremble. */
enum { PART_PHASE, PART_PERCENT, PART_SIZES, PART_RATE, PART_ETA, PART_COUNT };
struct part {
        char text[48];
        size_t room;
};

static unsigned percent(const struct progress_state *s)
{
        return (unsigned) (100.0 * (double) (s->done < s->total ? s->done : s->total) /
                           (double) s->total);
}

static void set_phase(struct part *p, const char *phase)
{
        (void) snprintf(p->text, sizeof p->text, "%s", phase);
        str_tame(p->text, '?');
        p->room = strlen(p->text);
}

static void make_parts(const struct progress_state *s, struct part p[static PART_COUNT])
{
        enum { SIZE_MAX_LEN = 7, ETA_MAX_LEN = 6 };
        char a[16], b[16];

        memset(p, 0, PART_COUNT * sizeof *p);
        set_phase(&p[PART_PHASE], s->phase);
        if (s->total > 0) {
                (void) snprintf(p[PART_PERCENT].text, sizeof p->text, " %3u%%", percent(s));
                p[PART_PERCENT].room = strlen(p[PART_PERCENT].text);
        }
        if (!s->bytes || (s->total == 0 && s->done == 0))
                return;
        if (s->total > 0) {
                (void) snprintf(p[PART_SIZES].text, sizeof p->text, " %s of %s",
                                binary_text(s->done, a), binary_text(s->total, b));
                p[PART_SIZES].room = strlen(" ") + SIZE_MAX_LEN + strlen(" of ") + strlen(b);
                if (*eta_text(s, a))
                        (void) snprintf(p[PART_ETA].text, sizeof p->text, " ETA %s", a);
                p[PART_ETA].room = strlen(" ETA ") + ETA_MAX_LEN;
        } else {
                (void) snprintf(p[PART_SIZES].text, sizeof p->text, " %s", binary_text(s->done, a));
                p[PART_SIZES].room = strlen(" ") + SIZE_MAX_LEN;
        }
        if (s->per_s > 0)
                (void) snprintf(p[PART_RATE].text, sizeof p->text, " %s/s",
                                binary_text(s->per_s, a));
        p[PART_RATE].room = strlen(" ") + SIZE_MAX_LEN + strlen("/s");
}

/* Into @out, which has room. */
static size_t draw_bar(const struct progress_state *s, size_t width, char *out)
{
        size_t fill =
                (size_t) ((double) width * (double) (s->done < s->total ? s->done : s->total) /
                          (double) s->total);
        size_t n = 0;

        out[n++] = ' ';
        out[n++] = '[';
        for (size_t i = 0; i < width; i++)
                out[n++] = i < fill ? '#' : '.';
        out[n++] = ']';
        out[n] = '\0';
        return n;
}

const char *progress_text(size_t width, const struct progress_state *s, char *buf)
{
        enum { BAR_MIN = 10, BAR_MAX = 40, BAR_FRAME = 3 };
        struct part part[PART_COUNT];
        size_t used = 0, bar = s->total > 0 ? BAR_MIN + BAR_FRAME : 0, n;

        width = width > PROGRESS_BYTES - 1 ? PROGRESS_BYTES - 1 : width;
        make_parts(s, part);
        for (size_t i = 0; i < PART_COUNT; i++) {
                /* a bar says more at a glance than the sizes do */
                if (i > PART_PERCENT && used + part[i].room + bar > width)
                        *part[i].text = '\0';
                else
                        used += part[i].room;
        }
        n = (size_t) snprintf(buf, PROGRESS_BYTES, "%s", part[PART_PHASE].text);
        if (bar > 0 && used + bar <= width) {
                bar = width - used - BAR_FRAME;
                n += draw_bar(s, bar < BAR_MAX ? bar : BAR_MAX, buf + n);
        }
        for (size_t i = PART_PERCENT; i < PART_COUNT; i++)
                n += (size_t) snprintf(buf + n, PROGRESS_BYTES - n, "%s", part[i].text);
        if (n > width)
                buf[width] = '\0';
        return buf;
}

const char *progress_line(const struct progress_state *s, char *buf)
{
        struct part part[PART_COUNT];
        size_t n = 0;

        make_parts(s, part);
        for (size_t i = 0; i < PART_COUNT; i++) {
                const char *text = part[i].text;

                if (i == PART_PERCENT && *text)
                        text += strspn(text + 1, " "); /* one blank is enough here */
                n += (size_t) snprintf(buf + n, PROGRESS_BYTES - n, "%s", text);
        }
        return buf;
}

void progress_init(struct progress *p)
{
        *p = (struct progress){ .tty = isatty(STDERR_FILENO), .last_us = clock_mono_us() };
}

static size_t terminal_width(void)
{
        struct winsize ws;

        return ioctl(STDERR_FILENO, TIOCGWINSZ, &ws) == 0 && ws.ws_col > 0 ? ws.ws_col : 80;
}

void progress_show(struct progress *p, const struct progress_state *s)
{
        uint64_t now = clock_mono_us(), every = p->tty ? 100 * US_PER_MS : PROGRESS_LINE_US;
        char buf[PROGRESS_BYTES];

        if ((p->shown || !p->tty) && now - p->last_us < every)
                return;
        p->last_us = now;
        if (!p->tty) {
                (void) fprintf(stderr, "%s\n", progress_line(s, buf));
                return;
        }
        /* the last column stays free: some terminals wrap when it is written */
        (void) progress_text(terminal_width() - 1, s, buf);
        if (p->shown && str_eq(buf, p->text))
                return;
        memcpy(p->text, buf, sizeof buf);
        p->shown = true;
        (void) fprintf(stderr, "\r%s\033[K", buf); /* over the old one, not after it is gone */
        (void) fflush(stderr);
}

void progress_clear(struct progress *p)
{
        if (!p->shown)
                return;
        p->shown = false;
        (void) fprintf(stderr, "\r\033[K");
        (void) fflush(stderr);
}
