/* gpuhost_check.c - questions to vmm-gpu that wait for an answer.  Engine process, loop thread.
 *
 * Each is answered once: by vmm-gpu, by its end, or by the clock. */
#include <errno.h>
#include <stdlib.h>

#include "base/jsonx.h"
#include "base/str.h"
#include "engine/gpu/gpuhost_priv.h"

#define TIMEOUT_US  (5 * US_PER_S)
#define TIMER_AFTER 20 /* priority in the loop: behind the answers */

static struct gpu_check *check_free(struct gpu_check *c)
{
        if (c) {
                sd_event_source_disable_unref(c->timer);
                (void) strv_free(c->uuids);
        }
        free(c);
        return NULL;
}

DEFINE_AUTO(struct gpu_check *, check_free)

static void unlink_check(struct gpu_check *c)
{
        struct gpu_check **p = &c->host->checks;

        while (*p != c)
                p = &(*p)->next;
        *p = c->next;
}

/* @gpus or @e; ends @c. */
static void answer(struct gpu_check *c, const json_t *gpus, const struct err *e)
{
        unlink_check(c);
        c->done(c->arg, gpus, e);
        (void) check_free(c);
}

static int on_timeout(sd_event_source *s, uint64_t usec, void *arg)
{
        struct err e = { 0 };

        (void) s;
        (void) usec;
        (void) err_set(&e, -ETIMEDOUT, "the driver has not answered for %llu s",
                       (unsigned long long) (TIMEOUT_US / US_PER_S));
        answer(arg, NULL, &e);
        return 0;
}

int gpuhost_check(struct gpuhost *g, char *const *uuids, gpuhost_check_fn *done, void *arg,
                  struct err *e)
{
        AUTO(check_free) struct gpu_check *c = calloc(1, sizeof *c);
        AUTO(json_put) json_t *msg = NULL, *list = json_array();
        int r;

        if (!c || !list)
                return err_set(e, -ENOMEM, "out of memory");
        if (!g->child)
                return err_set(e, -ENODEV, "%s", g->fleet.note ? g->fleet.note : "no GPUs");
        *c = (struct gpu_check){ .host = g, .req = ++g->last_req, .done = done, .arg = arg };
        c->uuids = strv_dup(uuids);
        for (char *const *u = uuids; u && *u; u++)
                if (json_array_append_new(list, json_string(*u)) < 0)
                        return err_set(e, -ENOMEM, "out of memory");
        msg = json_pack("{s:s, s:I, s:O}", "type", "check", "req", (json_int_t) c->req, "gpus",
                        list);
        if (!msg || (strv_len(uuids) && !c->uuids))
                return err_set(e, -ENOMEM, "out of memory");
        r = gpu_child_send(g->child, msg);
        if (r < 0)
                return err_set(e, r, "the driver cannot be asked: vmm-gpu is being started");
        r = sd_event_add_time_relative(g->spec.loop, &c->timer, CLOCK_MONOTONIC, TIMEOUT_US,
                                       10 * US_PER_MS, on_timeout, c);
        if (r >= 0)
                r = sd_event_source_set_priority(c->timer, TIMER_AFTER);
        if (r < 0)
                return err_errno(e, r, "check of GPUs");
        c->next = g->checks;
        g->checks = TAKE(c);
        return 0;
}

/* An Xid from before vmm-gpu was started anew is known here alone. */
static json_t *checked_row(struct gpuhost *g, const json_t *gpus, const char *uuid)
{
        const struct gpu_row *row = gpuhost_row(g, uuid);
        json_t *j = gpu_words_checked(gpus, uuid);

        if (j && row && row->j.xid && !json_integer_value(json_object_get(j, "xid")))
                (void) json_object_set_new(j, "xid", json_integer(row->j.xid));
        return j;
}

void gpuhost_checked(struct gpuhost *g, const json_t *msg)
{
        json_int_t req = json_integer_value(json_object_get(msg, "req"));
        const json_t *gpus = json_object_get(msg, "gpus");
        AUTO(json_put) json_t *rows = json_array();
        struct gpu_check *c = g->checks;

        while (c && c->req != (uint64_t) req)
                c = c->next;
        if (!c)
                return; /* too late */
        for (char **u = c->uuids; u && *u; u++)
                (void) json_array_append_new(rows, checked_row(g, gpus, *u));
        answer(c, rows, NULL);
}

void gpuhost_drop_checks(struct gpuhost *g, int code, const char *why)
{
        struct err e = { 0 };

        (void) err_set(&e, code, "%s", why);
        while (g->checks)
                answer(g->checks, NULL, &e);
}
