/* result.c - see result.h.  Runs in vmm-fetch.  Lines are written whole under a lock; a reader that
 * has gone is an error for the caller, except for progress, which nobody has to hear. */
#include "fetch/result.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/jsonx.h"
#include "base/str.h"

#define PROGRESS_US (100 * US_PER_MS)

struct result {
        int fd;
        pthread_mutex_t lock;
        uint64_t total, done, last_us;
        _Atomic uint64_t unpacked;
};

int result_new(int fd, uint64_t total_bytes, struct result **ret)
{
        struct result *r = calloc(1, sizeof *r);

        if (!r)
                return -ENOMEM;
        r->fd = fd;
        r->total = total_bytes;
        (void) pthread_mutex_init(&r->lock, NULL);
        *ret = r;
        return 0;
}

struct result *result_free(struct result *r)
{
        if (r)
                (void) pthread_mutex_destroy(&r->lock);
        free(r);
        return NULL;
}

static int write_line(struct result *r, const char *text, size_t len)
{
        int rc;

        (void) pthread_mutex_lock(&r->lock);
        rc = fd_write_full(r->fd, text, len);
        (void) pthread_mutex_unlock(&r->lock);
        return rc;
}

/* Steals @j. */
static int write_json(struct result *r, const char *type, json_t *j)
{
        AUTO(json_put) json_t *own = j;
        AUTO(str_wipe_free) char *text = NULL, *line = NULL;

        if (!own || json_object_set_new(own, "type", json_string(type)) < 0)
                return -ENOMEM;
        text = jsonx_dump(own);
        line = text ? str_fmt("%s\n", text) : NULL;
        return line ? write_line(r, line, strlen(line)) : -ENOMEM;
}

void result_unpacked(struct result *r, uint64_t bytes)
{
        atomic_store(&r->unpacked, bytes);
}

void result_progress(struct result *r, uint64_t done_bytes)
{
        uint64_t now = clock_mono_us();
        char line[160];
        int n;

        r->done = done_bytes;
        if (now - r->last_us < PROGRESS_US && (r->total == 0 || done_bytes < r->total))
                return;
        r->last_us = now;
        n = snprintf(line, sizeof line,
                     "{\"type\":\"progress\",\"done\":%llu,\"total\":%llu,\"unpacked\":%llu}\n",
                     (unsigned long long) done_bytes, (unsigned long long) r->total,
                     (unsigned long long) atomic_load(&r->unpacked));
        if (n > 0)
                (void) write_line(r, line, (size_t) n);
}

int result_image(struct result *r, const struct fetch_image *image)
{
        return write_json(r, "image", fetch_image_encode(image));
}

int result_done(struct result *r, uint64_t unpacked_bytes, uint64_t entries)
{
        return write_json(r, "done",
                          json_pack("{s:I,s:I}", "unpacked", (json_int_t) unpacked_bytes, "entries",
                                    (json_int_t) entries));
}

int result_error(struct result *r, const struct err *e)
{
        json_t *j = json_pack("{s:i,s:s}", "errno", -e->code, "message", e->msg);
        struct err plain = *e;

        if (j)
                return write_json(r, "error", j);
        for (char *c = plain.msg; *c; c++) /* it quotes a name that is no UTF-8 */
                if ((unsigned char) *c >= 0x80)
                        *c = '?';
        return write_json(r, "error",
                          json_pack("{s:i,s:s}", "errno", -plain.code, "message", plain.msg));
}
