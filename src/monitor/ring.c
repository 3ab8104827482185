/* ring.c - see ring.h.  Runs in vmm-monitor.
 *
 * Theory of operation: the active file is the one with the larger offset in its header.  Only whole
 * lines are ever counted in `size`; a write that stops half-way is cut back, so that a file always
 * ends with a newline, also after a crash (ring_open cuts).  The absolute offset of a line is the
 * header's offset plus its place in the file; a turn writes the present end into the new header.
 * If the machine dies between truncation and header, the truncated file is simply not valid and
 * the full one stays active until the next line turns again. */
#include "monitor/ring.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "model/attach_codec.h"

#define HEADER_MAX 32U
#define STAMP_LEN  30U /* "2026-11-22T14:54:47.123456789Z" */

static uint64_t file_end(const struct ring_file *f)
{
        return f->base + f->size;
}

/* pread() until @len bytes or the end of the file; -errno, or the count. #syscalls pread64 */
static ssize_t read_at(int fd, void *buf, size_t len, uint64_t off)
{
        size_t n = 0;

        while (n < len) {
                ssize_t r = pread(fd, (char *) buf + n, len - n, (off_t) (off + n));

                if (r < 0 && errno == EINTR)
                        continue;
                if (r < 0)
                        return -errno;
                if (r == 0)
                        break;
                n += (size_t) r;
        }
        return (ssize_t) n;
}

/* #syscalls pwrite64 */
static int write_at(int fd, const void *buf, size_t len, uint64_t off)
{
        size_t n = 0;

        while (n < len) {
                ssize_t r = pwrite(fd, (const char *) buf + n, len - n, (off_t) (off + n));

                if (r < 0 && errno == EINTR)
                        continue;
                if (r < 0)
                        return -errno;
                n += (size_t) r;
        }
        return 0;
}

/* ---- start --------------------------------------------------------------------------------- */

/* Where the last whole line of a file of @total bytes ends; @head when there is none. */
static int last_line_end(const struct ring_file *f, uint64_t total, uint64_t *ret)
{
        char buf[4096];
        uint64_t end = total;

        while (end > f->head) {
                uint64_t from = end - f->head > sizeof buf ? end - sizeof buf : f->head;
                ssize_t n = read_at(f->fd, buf, (size_t) (end - from), from);
                const char *nl;

                if (n < 0)
                        return (int) n;
                nl = memrchr(buf, '\n', (size_t) n);
                if (nl) {
                        *ret = from + (uint64_t) (nl - buf) + 1;
                        return 0;
                }
                end = from;
        }
        *ret = f->head;
        return 0;
}

static int file_open(struct ring_file *f, struct err *e)
{
        char head[HEADER_MAX];
        struct stat st;
        uint64_t end;
        ssize_t n;
        int h, x;

        if (fstat(f->fd, &st) < 0)
                return err_errno(e, -errno, "fstat");
        if (!S_ISREG(st.st_mode))
                return err_set(e, -EINVAL, "not a regular file");
        n = read_at(f->fd, head, sizeof head, 0);
        if (n < 0)
                return err_errno(e, (int) n, "read");
        h = attach_log_header_parse(head, (size_t) n, &f->base);
        if (h < 0)
                return 0; /* empty, or torn before its header: it will be truncated at its turn */
        f->head = (uint32_t) h;
        x = last_line_end(f, (uint64_t) st.st_size, &end);
        if (x < 0)
                return err_errno(e, x, "read");
        if (end < (uint64_t) st.st_size && ftruncate(f->fd, (off_t) end) < 0)
                return err_errno(e, -errno, "truncate");
        f->size = end - f->head;
        f->valid = true;
        return 0;
}

/* Make @i the active file, beginning at absolute offset @base.  #syscalls ftruncate */
static int file_start(struct ring *r, unsigned i, uint64_t base)
{
        struct ring_file *f = &r->file[i];
        char head[HEADER_MAX];
        int n = attach_log_header_format(head, sizeof head, base);
        int x;

        if (n < 0)
                return n;
        f->valid = false;
        f->size = 0;
        if (ftruncate(f->fd, 0) < 0)
                return -errno;
        x = write_at(f->fd, head, (size_t) n, 0);
        if (x < 0)
                return x;
        *f = (struct ring_file){ .fd = f->fd, .valid = true, .base = base, .head = (uint32_t) n };
        r->active = i;
        return 0;
}

int ring_open(struct ring *r, int fd0, int fd1, uint64_t half_bytes, struct err *e)
{
        const int fd[2] = { fd0, fd1 };
        int x;

        if (half_bytes < sizeof r->batch + HEADER_MAX)
                return err_set(e, -EINVAL, "log of %llu bytes", (unsigned long long) half_bytes);
        r->stamp_s = -1;
        r->half_bytes = half_bytes;
        for (unsigned i = 0; i < 2; i++) {
                r->file[i].fd = fd[i];
                x = file_open(&r->file[i], e);
                if (x < 0)
                        return err_wrap(e, x, "log.%u", i);
        }
        if (r->file[0].valid || r->file[1].valid) {
                r->active = !r->file[0].valid ||
                            (r->file[1].valid && r->file[1].base > r->file[0].base);
                return 0;
        }
        x = file_start(r, 0, 0);
        return x < 0 ? err_errno(e, x, "log.0: write the header") : 0;
}

/* ---- writing ------------------------------------------------------------------------------- */

/* Append whole lines to the active file, turning before it would grow beyond its half. */
static int append(struct ring *r, const char *lines, size_t len)
{
        struct ring_file *f = &r->file[r->active];
        int x;

        if (f->head + f->size + len > r->half_bytes) {
                x = file_start(r, !r->active, file_end(f));
                if (x < 0)
                        return x;
                f = &r->file[r->active];
        }
        x = write_at(f->fd, lines, len, f->head + f->size);
        if (x < 0) {
                /* Cut the torn part off.  When even that fails, the next line overwrites it. */
                if (ftruncate(f->fd, (off_t) (f->head + f->size)) < 0)
                        return x;
                return x;
        }
        f->size += len;
        return 0;
}

/* Civil date from days since 1970 (Howard Hinnant's algorithm): gmtime_r() would open files. */
static void date_from_days(int64_t days, int *ret_year, int *ret_month, int *ret_day)
{
        int64_t z = days + 719468, era = z / 146097, doe = z - era * 146097;
        int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
        int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100), mp = (5 * doy + 2) / 153;

        *ret_day = (int) (doy - (153 * mp + 2) / 5 + 1);
        *ret_month = (int) (mp < 10 ? mp + 3 : mp - 9);
        *ret_year = (int) (yoe + era * 400 + (*ret_month <= 2));
}

static void put_digits(char *p, uint64_t v, unsigned digits)
{
        for (unsigned i = digits; i > 0; i--, v /= 10)
                p[i - 1] = (char) ('0' + v % 10);
}

/* The date is worked out once per second, the fraction each time. */
static void stamp(struct ring *r, char *p, uint64_t now_ns)
{
        int64_t s = (int64_t) (now_ns / 1000000000U);

        if (s != r->stamp_s) {
                int64_t in_day = s % 86400;
                int year, month, day;

                date_from_days(s / 86400, &year, &month, &day);
                memcpy(r->stamp, "0000-00-00T00:00:00.", sizeof r->stamp);
                put_digits(r->stamp, (uint64_t) year, 4);
                put_digits(r->stamp + 5, (uint64_t) month, 2);
                put_digits(r->stamp + 8, (uint64_t) day, 2);
                put_digits(r->stamp + 11, (uint64_t) in_day / 3600, 2);
                put_digits(r->stamp + 14, (uint64_t) in_day / 60 % 60, 2);
                put_digits(r->stamp + 17, (uint64_t) in_day % 60, 2);
                r->stamp_s = s;
        }
        memcpy(p, r->stamp, sizeof r->stamp);
        put_digits(p + sizeof r->stamp, now_ns % 1000000000U, 9);
        p[STAMP_LEN - 1] = 'Z';
}

/* One line to @p, which has room for it; returns its length. */
static size_t format_line(struct ring *r, char *p, enum attach_channel stream, bool whole,
                          const char *text, size_t len, uint64_t now_ns)
{
        size_t n = STAMP_LEN;

        stamp(r, p, now_ns);
        memcpy(p + n, stream == ATTACH_STDOUT ? " stdout " : " stderr ", 8);
        n += 8;
        p[n++] = whole ? 'F' : 'P';
        p[n++] = ' ';
        memcpy(p + n, text, len);
        n += len;
        p[n++] = '\n';
        return n;
}

/* What was lost is said as soon as there is room again, as a line of its own. */
static int note_loss(struct ring *r, uint64_t now_ns)
{
        char text[128], line[256];
        int n = snprintf(text, sizeof text, "[log: %llu bytes lost: %s]",
                         (unsigned long long) r->lost, strerrordesc_np(r->lost_err));
        int x = append(r, line,
                       format_line(r, line, ATTACH_STDERR, true, text, (size_t) n, now_ns));

        if (x >= 0)
                r->lost = 0;
        return x;
}

static void flush(struct ring *r, uint64_t now_ns)
{
        int x = 0;

        if (r->batch_len == 0)
                return;
        if (r->lost > 0)
                x = note_loss(r, now_ns);
        if (x >= 0)
                x = append(r, r->batch, r->batch_len);
        if (x < 0) {
                r->lost += r->batch_len;
                r->lost_err = -x;
        }
        r->batch_len = 0;
}

static void put_line(struct ring *r, enum attach_channel stream, bool whole, const char *text,
                     size_t len, uint64_t now_ns)
{
        if (sizeof r->batch - r->batch_len < ATTACH_LOG_LINE)
                flush(r, now_ns);
        r->batch_len += format_line(r, r->batch + r->batch_len, stream, whole, text, len, now_ns);
        r->stream[stream - ATTACH_STDOUT].open = !whole;
}

/* The waiting text as one line. */
static void put_waiting(struct ring *r, enum attach_channel stream, bool whole, uint64_t now_ns)
{
        struct ring_stream *s = &r->stream[stream - ATTACH_STDOUT];
        size_t len = s->len;

        s->len = 0;
        put_line(r, stream, whole, s->text, len, now_ns);
}

void ring_add(struct ring *r, enum attach_channel stream, const void *data, size_t len,
              uint64_t now_ns)
{
        struct ring_stream *s = &r->stream[stream - ATTACH_STDOUT];
        const char *p = data, *end = p + len;

        while (p < end) {
                const char *nl = memchr(p, '\n', (size_t) (end - p));
                size_t n = (size_t) ((nl ? nl : end) - p);

                if (s->len == 0 && nl && n <= sizeof s->text) {
                        put_line(r, stream, true, p, n, now_ns); /* the usual case: no copy */
                } else {
                        if (n > sizeof s->text - s->len) {
                                n = sizeof s->text - s->len;
                                nl = NULL;
                        }
                        memcpy(s->text + s->len, p, n);
                        s->len += n;
                        /* A full text waits for one more byte: it may be the newline. */
                        if (nl)
                                put_waiting(r, stream, true, now_ns);
                        else if (p + n < end)
                                put_waiting(r, stream, false, now_ns);
                }
                p += n + (nl ? 1 : 0);
        }
        flush(r, now_ns);
}

bool ring_waiting(const struct ring *r)
{
        return r->stream[0].len > 0 || r->stream[1].len > 0;
}

void ring_push(struct ring *r, uint64_t now_ns)
{
        for (enum attach_channel c = ATTACH_STDOUT; c <= ATTACH_STDERR; c++)
                if (r->stream[c - ATTACH_STDOUT].len > 0)
                        put_waiting(r, c, false, now_ns);
        flush(r, now_ns);
}

void ring_close(struct ring *r, enum attach_channel stream, uint64_t now_ns)
{
        struct ring_stream *s = &r->stream[stream - ATTACH_STDOUT];

        if (s->len > 0 || s->open)
                put_waiting(r, stream, true, now_ns);
        flush(r, now_ns);
}

/* ---- reading ------------------------------------------------------------------------------- */

uint64_t ring_start(const struct ring *r)
{
        const struct ring_file *old = &r->file[!r->active];

        return old->valid ? old->base : r->file[r->active].base;
}

uint64_t ring_end(const struct ring *r)
{
        return file_end(&r->file[r->active]);
}

/* The file that holds *@pos, which is moved over what is not kept; NULL at the end. */
static const struct ring_file *locate(const struct ring *r, uint64_t *pos)
{
        for (unsigned i = 0; i < 2; i++) {
                const struct ring_file *f = &r->file[i == 0 ? !r->active : r->active];

                if (!f->valid || *pos >= file_end(f))
                        continue;
                if (*pos < f->base)
                        *pos = f->base;
                if (*pos < file_end(f))
                        return f;
        }
        return NULL;
}

void ring_seek(const struct ring *r, uint64_t *pos)
{
        const struct ring_file *f = locate(r, pos);
        char buf[512];

        if (!f) {
                *pos = ring_end(r);
                return;
        }
        if (*pos == f->base)
                return;
        /* From the byte before: a line starts at *pos exactly when that is a newline. */
        for (uint64_t at = *pos - 1; at < file_end(f);) {
                size_t want =
                        file_end(f) - at < sizeof buf ? (size_t) (file_end(f) - at) : sizeof buf;
                ssize_t n = read_at(f->fd, buf, want, f->head + (at - f->base));
                const char *nl = n > 0 ? memchr(buf, '\n', (size_t) n) : NULL;

                if (nl) {
                        *pos = at + (uint64_t) (nl - buf) + 1;
                        return;
                }
                if (n <= 0)
                        break;
                at += (uint64_t) n;
        }
        *pos = file_end(f); /* unreadable: go on behind it */
}

size_t ring_read(const struct ring *r, uint64_t *pos, void *buf, size_t cap)
{
        const struct ring_file *f;

        while ((f = locate(r, pos))) {
                uint64_t left = file_end(f) - *pos;
                size_t want = left < cap ? (size_t) left : cap;
                ssize_t n = read_at(f->fd, buf, want, f->head + (*pos - f->base));
                const char *nl = n > 0 ? memrchr(buf, '\n', (size_t) n) : NULL;

                if (nl)
                        return (size_t) (nl - (const char *) buf) + 1;
                /* Unreadable, or spoilt by a crash so that no line ends here: go on behind it. */
                *pos = n > 0 ? *pos + (uint64_t) n : file_end(f);
        }
        *pos = ring_end(r);
        return 0;
}
