/* sink.c - see sink.h.  vmm-fetch and operation processes. */
#include "store/sink.h"

#include <errno.h>
#include <unistd.h>

#include "store/bytes.h"

#define GATHER_BYTES 65536U

struct sink {
        int fd, failed; /* failed: 0 or a negative errno */
        uint64_t at;    /* of the next byte that comes */
        size_t n;
        uint8_t buf[GATHER_BYTES];
};

int sink_new(int fd, struct sink **ret, struct err *e)
{
        struct sink *s = calloc(1, sizeof *s);

        if (!s)
                return err_set(e, -ENOMEM, "out of memory");
        s->fd = fd;
        *ret = s;
        return 0;
}

struct sink *sink_free(struct sink *s)
{
        free(s);
        return NULL;
}

static void drain(struct sink *s)
{
        uint64_t from = s->at - s->n;
        size_t done = 0;

        while (!s->failed && done < s->n) {
                ssize_t w = pwrite(s->fd, s->buf + done, s->n - done, (off_t) (from + done));

                if (w < 0 && errno != EINTR)
                        s->failed = -errno;
                else if (w == 0)
                        s->failed = -EIO;
                else if (w > 0)
                        done += (size_t) w;
        }
        s->n = 0;
}

/* @data NULL: zeros. */
static void add(struct sink *s, const uint8_t *data, uint64_t len)
{
        while (len > 0) {
                uint64_t room = sizeof s->buf - s->n;
                size_t part = (size_t) (len < room ? len : room);

                if (data)
                        memcpy(s->buf + s->n, data, part);
                else
                        memset(s->buf + s->n, 0, part);
                data = data ? data + part : NULL;
                s->n += part;
                s->at += part;
                len -= part;
                if (s->n == sizeof s->buf)
                        drain(s);
        }
}

void sink_put(struct sink *s, const void *data, size_t len)
{
        if (len > 0)
                add(s, data, len);
}

void sink_zero(struct sink *s, uint64_t len)
{
        add(s, NULL, len);
}

void sink_pad(struct sink *s, uint64_t align)
{
        add(s, NULL, round_up(s->at, align) - s->at);
}

uint64_t sink_at(const struct sink *s)
{
        return s->at;
}

int sink_flush(struct sink *s, struct err *e)
{
        drain(s);
        if (s->failed == -ENOSPC || s->failed == -EDQUOT)
                return err_set(e, s->failed, "no space is left on the host's image store");
        return s->failed ? err_errno(e, s->failed, "writing the image store") : 0;
}
