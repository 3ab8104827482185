/* logfile.c - see logfile.h.  Runs in tensorone-api; reads are from the page cache and bounded.
 *
 * What always holds: bytes are believed only when the header of their file was the same before
 * and after the read, so a file that takes its turn meanwhile is never mixed up. */
#include "control/rest/logfile.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "model/attach_codec.h"

#define HEADER_MAX 64U
#define TAIL_BLOCK (64U << 10)

/* One file as it is now. */
struct part {
        int fd;
        uint64_t first, end; /* absolute offsets */
        uint64_t header;     /* bytes of the header line */
        bool ok;
};

void log_files_init(struct log_files *l)
{
        l->fd[0] = l->fd[1] = -EBADF;
}

void log_files_done(struct log_files *l)
{
        l->fd[0] = fd_close(l->fd[0]);
        l->fd[1] = fd_close(l->fd[1]);
}

static struct part look(int fd)
{
        struct part p = { .fd = fd };
        char head[HEADER_MAX];
        struct stat st;
        ssize_t n = fd < 0 ? -1 : pread(fd, head, sizeof head, 0);
        int len = n > 0 ? attach_log_header_parse(head, (size_t) n, &p.first) : -EPROTO;

        if (len <= 0 || fstat(fd, &st) < 0 || st.st_size < len)
                return p;
        p.header = (uint64_t) len;
        p.end = p.first + (uint64_t) st.st_size - p.header;
        p.ok = true;
        return p;
}

/* The older part first; a part that is not ok comes first too. */
static void look_both(const struct log_files *l, struct part p[2])
{
        p[0] = look(l->fd[0]);
        p[1] = look(l->fd[1]);
        if (!p[1].ok || (p[0].ok && p[0].first > p[1].first)) {
                struct part t = p[0];

                p[0] = p[1];
                p[1] = t;
        }
        if (p[0].ok && p[0].end > p[1].first)
                p[0].end = p[1].first;
}

void log_files_range(const struct log_files *l, uint64_t *ret_start, uint64_t *ret_end)
{
        struct part p[2];

        look_both(l, p);
        *ret_start = p[0].ok ? p[0].first : p[1].ok ? p[1].first : 0;
        *ret_end = p[1].ok ? p[1].end : 0;
}

ssize_t log_files_read(const struct log_files *l, uint64_t *pos, char *buf, size_t max)
{
        for (int attempt = 0; attempt < 8; attempt++) {
                struct part p[2], *at, again;
                ssize_t n;

                look_both(l, p);
                if (!p[1].ok)
                        return 0;
                at = p[0].ok && *pos < p[1].first ? &p[0] : &p[1];
                if (*pos < at->first)
                        *pos = at->first;
                if (*pos >= at->end)
                        return 0;
                if (max > at->end - *pos)
                        max = (size_t) (at->end - *pos);
                n = pread(at->fd, buf, max, (off_t) (at->header + (*pos - at->first)));
                again = look(at->fd);
                if (n <= 0 || !again.ok || again.first != at->first)
                        continue; /* it took its turn under us */
                *pos += (uint64_t) n;
                return n;
        }
        return 0;
}

/* The walk of log_files_tail() from the newest record to the oldest. */
struct tail {
        const struct log_files *l;
        const struct log_filter *f;
        uint64_t left;   /* lines still to be found */
        uint64_t before; /* where the record that was seen last begins */
        bool begun;      /* a wanted record was seen */
};

/* The record from @off to t->before, @data of it when that is the whole of it.  True: it is the end
 * of the line before those that are wanted. */
static bool tail_record(struct tail *t, uint64_t off, const char *data, size_t len)
{
        struct attach_log_line line;
        char copy[ATTACH_LOG_LINE];
        uint64_t at = off;

        if (len < t->before - off) {
                len = t->before - off < sizeof copy ? (size_t) (t->before - off) : sizeof copy;
                if (log_files_read(t->l, &at, copy, len) != (ssize_t) len || at != off + len)
                        return true; /* overtaken: everything that is left */
                data = copy;
        }
        if (attach_log_line_parse(data, len, &line) > 0 && line.channel <= ATTACH_STDERR &&
            t->f->want[line.channel]) {
                if (line.whole && t->left == 0)
                        return true;
                if (line.whole || !t->begun) /* a part at the very end is a line of its own */
                        t->left--;
                t->begun = true;
        }
        t->before = off;
        return false;
}

uint64_t log_files_tail(const struct log_files *l, const struct log_filter *f, uint64_t lines)
{
        struct tail t = { .l = l, .f = f, .left = lines };
        uint64_t start, end, pos;
        char buf[TAIL_BLOCK];

        log_files_range(l, &start, &end);
        pos = t.before = end;
        while (pos > start && lines > 0) {
                uint64_t from = pos - start > sizeof buf ? pos - sizeof buf : start, at = from;
                ssize_t n = log_files_read(l, &at, buf, (size_t) (pos - from));

                if (n <= 0 || (uint64_t) n != at - from)
                        return start; /* overtaken while we looked: everything that is left */
                if (at < pos) { /* stopped at the border between the files: see the rest first */
                        uint64_t rest = at;

                        n = log_files_read(l, &rest, buf, (size_t) (pos - at));
                        from = at;
                        if (n <= 0 || rest != pos)
                                return start;
                }
                for (ssize_t i = n; i-- > 0;) {
                        uint64_t off = from + (uint64_t) i + 1; /* behind a line: the next begins */

                        if (buf[i] == '\n' && off < t.before &&
                            tail_record(&t, off, buf + i + 1, (size_t) (n - i - 1)))
                                return t.before;
                }
                pos = from;
        }
        if (lines > 0 && start < t.before && tail_record(&t, start, NULL, 0))
                return t.before;
        return lines == 0 ? end : start;
}

static void put_line(struct log_filter *f, const struct attach_log_line *line, const char *record,
                     size_t len, struct strbuf *out)
{
        size_t ch = line->channel;

        if (ch > ATTACH_STDERR || !f->want[ch])
                return;
        if (f->since[0] && line->stamp_len >= strlen(f->since) &&
            memcmp(line->stamp, f->since, strlen(f->since)) < 0)
                return;
        if (f->raw) {
                strbuf_add(out, record, len);
                return;
        }
        if (f->timestamps && !f->open[ch]) {
                strbuf_add(out, line->stamp, line->stamp_len);
                strbuf_char(out, ' ');
        }
        strbuf_add(out, line->text, line->text_len);
        if (line->whole)
                strbuf_char(out, '\n');
        f->open[ch] = !line->whole;
}

size_t log_filter_lines(struct log_filter *f, const char *data, size_t len, struct strbuf *out)
{
        size_t used = 0;

        while (used < len) {
                struct attach_log_line line;
                int n = attach_log_line_parse(data + used, len - used, &line);

                if (n == 0)
                        break;
                if (n < 0) { /* not a line of ours: skip it */
                        const char *nl = memchr(data + used, '\n', len - used);

                        if (!nl)
                                break;
                        used = (size_t) (nl - data) + 1;
                        continue;
                }
                put_line(f, &line, data + used, (size_t) n, out);
                used += (size_t) n;
        }
        return used;
}

int log_since(const char *text, char ret[static 32], struct err *e)
{
        uint64_t at, ago;

        if (str_empty(text))
                return 0;
        if (str_duration_us(text, &ago) >= 0)
                at = clock_wall_us() - (ago < clock_wall_us() ? ago : clock_wall_us());
        else if (clock_parse(text, &at) < 0)
                return err_set(
                        e, -EINVAL,
                        "since: '%.40s' must be a time such as 2030-01-31T12:00:00Z or a duration such as 10m",
                        text);
        clock_format(at, ret, 32);
        ret[strcspn(ret, "Z")] = '\0'; /* lines have nanoseconds: compare what both have */
        return 0;
}
