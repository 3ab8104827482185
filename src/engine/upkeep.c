/* upkeep.c - see upkeep.h.  Engine process, loop thread; the work itself is done in operations, one
 * at a time.
 *
 * A row of `chores` is due or not; whatever is due runs next.  A chore that fails is tried again
 * after a pause and never stops anything else. */
#include "engine/upkeep.h"

#include <errno.h>
#include <sys/epoll.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "engine/fleet/fetch_guard.h"
#include "engine/image/base.h"
#include "engine/net/net.h"
#include "engine/op/op.h"
#include "model/limits.h"

#define REAP_AFTER_US    (3 * US_PER_S)
#define RETRY_US         (10 * US_PER_S)
#define TIDY_AGAIN_US    (2 * US_PER_S)
#define CHORE_TIMEOUT_US (60 * US_PER_S)

enum chore {
        CHORE_NONE,
        CHORE_REPAIR,
        CHORE_COLLECT,
        CHORE_REAP,
        CHORE_TIDY,
        CHORE_UNMOUNT,
        CHORE_COUNT
};

struct upkeep {
        sd_event *loop;
        struct op_runner *runner;
        const struct host *host;
        upkeep_images_fn *images;
        void *images_arg;
        net_policy_fn *policies;
        void *policies_arg;
        bool due[CHORE_COUNT];
        enum chore running;
        struct op *op;
        int watch_fd;
        sd_event_source *watch_src, *timer_src;
        bool closing;
};

static void start_due(struct upkeep *u);

static int repair_body(struct frame_conn *out, void *arg, struct err *e)
{
        struct upkeep *u = arg;

        (void) out;
        return net_host_repair(u->host->net, u->policies, u->policies_arg, e);
}

static int reap_body(struct frame_conn *out, void *arg, struct err *e)
{
        struct upkeep *u = arg;

        (void) out;
        return net_reap(u->host->net, NULL, NULL, e);
}

/* In the operation: what the fleet knew when it was forked.  A boot that began since makes its mount
 * again. */
static int unmount_body(struct frame_conn *out, void *arg, struct err *e)
{
        struct upkeep *u = arg;
        AUTO(free) uint64_t *used = calloc(LIMIT_SLOTS, sizeof *used);

        (void) out;
        if (!used)
                return err_set(e, -ENOMEM, "out of memory");
        return image_base_tidy(u->host->images, used,
                               u->images ? u->images(u->images_arg, used, LIMIT_SLOTS) : 0, e);
}

static int tidy_body(struct frame_conn *out, void *arg, struct err *e)
{
        struct upkeep *u = arg;

        (void) out;
        return fetch_guard_tidy(u->host, false, e);
}

static int collect_body(struct frame_conn *out, void *arg, struct err *e)
{
        struct upkeep *u = arg;
        AUTO(image_store_close) struct image_store *store = NULL;
        /* a connection of our own: SQLite handles do not survive a fork */
        int r = image_store_open(u->host->inst, &store, e);

        (void) out;
        if (r >= 0) /* ends whoever may still be writing there */
                r = fetch_guard_tidy(u->host, false, e);
        return r < 0 ? r : image_recover(store, e);
}

static const struct {
        const char *name;
        op_body_fn *body;
} chores[CHORE_COUNT] = {
        [CHORE_REPAIR] = { "repair the firewall", repair_body },
        [CHORE_COLLECT] = { "collect left-over image files", collect_body },
        [CHORE_REAP] = { "reap links", reap_body },
        [CHORE_UNMOUNT] = { "unmount images", unmount_body },
        [CHORE_TIDY] = { "remove what fetchers left", tidy_body },
};

static int on_timer(sd_event_source *s, uint64_t usec, void *arg)
{
        struct upkeep *u = arg;

        (void) s;
        (void) usec;
        u->timer_src = sd_event_source_disable_unref(u->timer_src);
        start_due(u);
        return 0;
}

/* A timer that runs already is soon enough. */
static void wake_in(struct upkeep *u, uint64_t delay_us)
{
        if (!u->timer_src && sd_event_add_time_relative(u->loop, &u->timer_src, CLOCK_MONOTONIC,
                                                        delay_us, 100 * US_PER_MS, on_timer, u) < 0)
                log_warn("upkeep: no timer");
}

static void on_done(void *arg, int r, const struct err *err)
{
        struct upkeep *u = arg;
        enum chore done = u->running;

        u->op = NULL;
        u->running = CHORE_NONE;
        if (u->closing)
                return;
        if (r < 0) {
                log_warn("%s: %s", chores[done].name, err->msg);
                u->due[done] = true;
                wake_in(u, RETRY_US);
                return;
        }
        start_due(u);
        if (done == CHORE_TIDY && r > 0) { /* at work, still dying, or another host's by now */
                u->due[CHORE_TIDY] = true;
                wake_in(u, TIDY_AGAIN_US);
        }
}

static void start_due(struct upkeep *u)
{
        struct op_spec spec = {
                .body_arg = u, .timeout_us = CHORE_TIMEOUT_US, .done = on_done, .arg = u
        };
        struct err e = { 0 };

        if (u->op || u->closing)
                return;
        for (int c = 1; c < CHORE_COUNT; c++) {
                if (!u->due[c])
                        continue;
                u->due[c] = false;
                u->running = (enum chore) c;
                spec.name = chores[c].name;
                spec.body = chores[c].body;
                if (op_start(u->runner, &spec, &u->op, &e) < 0)
                        on_done(u, e.code, &e);
                return;
        }
}

static int on_rules_changed(sd_event_source *s, int fd, uint32_t revents, void *arg)
{
        struct upkeep *u = arg;

        (void) s;
        (void) revents;
        if (net_watch_read(u->host->net, fd) != 1)
                return 0;
        log_warn("somebody changed our firewall table; making it again");
        u->due[CHORE_REPAIR] = true;
        start_due(u);
        return 0;
}

int upkeep_new(sd_event *loop, struct op_runner *runner, const struct host *host,
               struct upkeep **ret, struct err *e)
{
        AUTO(upkeep_free) struct upkeep *u = calloc(1, sizeof *u);
        int r;

        if (!u)
                return err_set(e, -ENOMEM, "out of memory");
        u->loop = loop;
        u->runner = runner;
        u->host = host;
        u->watch_fd = net_watch_open(host->net, e);
        if (u->watch_fd < 0)
                return u->watch_fd;
        r = sd_event_add_io(loop, &u->watch_src, u->watch_fd, EPOLLIN, on_rules_changed, u);
        if (r < 0)
                return err_errno(e, r, "watch the firewall");
        upkeep_released(u); /* links that an engine before us has not come to */
        *ret = TAKE(u);
        return 0;
}

struct upkeep *upkeep_free(struct upkeep *u)
{
        if (!u)
                return NULL;
        u->closing = true;
        op_cancel(u->op);
        while (u->op && sd_event_run(u->loop, 100 * US_PER_MS) >= 0)
                ;
        sd_event_source_disable_unref(u->watch_src);
        sd_event_source_disable_unref(u->timer_src);
        (void) fd_close(u->watch_fd);
        free(u);
        return NULL;
}

void upkeep_watch_images(struct upkeep *u, upkeep_images_fn *fn, void *arg)
{
        u->images = fn;
        u->images_arg = arg;
}

void upkeep_watch_policies(struct upkeep *u, net_policy_fn *fn, void *arg)
{
        u->policies = fn;
        u->policies_arg = arg;
        if (!fn)
                return;
        u->due[CHORE_REPAIR] = true;
        start_due(u);
}

void upkeep_released(void *upkeep)
{
        struct upkeep *u = upkeep;

        u->due[CHORE_REAP] = true;
        u->due[CHORE_UNMOUNT] = u->images != NULL;
        wake_in(u, REAP_AFTER_US);
}

void upkeep_image_died(void *upkeep)
{
        struct upkeep *u = upkeep;

        u->due[CHORE_COLLECT] = u->due[CHORE_TIDY] = true;
        start_due(u);
}
