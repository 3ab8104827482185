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

void out_error(const char *msg)
{
        AUTO(strbuf_done) struct strbuf b = { 0 };

        for (; *msg; msg++)
                strbuf_char(&b, (unsigned char) *msg < 0x20 || *msg == 0x7f ? ' ' : *msg);
        (void) fflush(stdout);
        (void) fprintf(stderr, "Error: %s\n", b.s ? b.s : "out of memory");
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
        for (char *p = copy; *p; p++)
                if ((unsigned char) *p < 0x20 || *p == 0x7f)
                        *p = '?';
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

const char *progress_text(size_t width, const char *phase, uint64_t done, uint64_t total,
                          bool bytes, char *buf)
{
        enum { BUF = 256, BAR_MIN = 10, BAR_MAX = 40 };
        char sizes[48] = "", pct[16] = "", a[16], b[16];
        size_t used, bar, fill;
        int n;

        width = width > BUF - 1 ? BUF - 1 : width;
        if (total > 0)
                (void) snprintf(pct, sizeof pct, " %3u%%",
                                (unsigned) (100.0 * (double) (done < total ? done : total) /
                                            (double) total));
        if (bytes && total > 0)
                (void) snprintf(sizes, sizeof sizes, " %s / %s", size_text(done, a),
                                size_text(total, b));
        else if (bytes && done > 0)
                (void) snprintf(sizes, sizeof sizes, " %s", size_text(done, a));

        n = snprintf(buf, BUF, "%s", phase);
        used = n > 0 && n < BUF ? (size_t) n : BUF - 1;
        /* a bar says more at a glance than the sizes do */
        if (used + strlen(pct) + strlen(sizes) + (total > 0 ? BAR_MIN + 3 : 0) > width)
                sizes[0] = '\0';
        bar = width - used;
        bar = bar > strlen(pct) + strlen(sizes) + 3 ? bar - strlen(pct) - strlen(sizes) - 3 : 0;
        if (total > 0 && bar >= BAR_MIN) {
                bar = bar > BAR_MAX ? BAR_MAX : bar;
                fill = (size_t) ((double) bar * (double) (done < total ? done : total) /
                                 (double) total);
                buf[used++] = ' ';
                buf[used++] = '[';
                for (size_t i = 0; i < bar; i++)
                        buf[used++] = i < fill ? '#' : '.';
                buf[used++] = ']';
                buf[used] = '\0';
        }
        (void) snprintf(buf + used, BUF - used, "%s%s", pct, sizes);
        if (strlen(buf) > width)
                buf[width] = '\0';
        return buf;
}

void progress_init(struct progress *p)
{
        *p = (struct progress){ .tty = isatty(STDERR_FILENO) };
}

static size_t terminal_width(void)
{
        struct winsize ws;

        return ioctl(STDERR_FILENO, TIOCGWINSZ, &ws) == 0 && ws.ws_col > 0 ? ws.ws_col : 80;
}

void progress_show(struct progress *p, const char *phase, uint64_t done, uint64_t total, bool bytes)
{
        uint64_t now = clock_mono_us();
        char buf[256];

        if (!p->tty || (p->shown && now - p->last_us < 100 * US_PER_MS))
                return;
        p->last_us = now;
        p->shown = true;
        /* the last column stays free: some terminals wrap when it is written */
        (void) fprintf(stderr, "\r%s\033[K",
                       progress_text(terminal_width() - 1, phase, done, total, bytes, buf));
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
