/* imagecare.c - see imagecare.h.  Engine process, loop thread; the work is done in operations.
 *
 * A round of the scrub takes `scrub`: an operation reads some files at a rate that nobody notices, and
 * the next one begins after as much of that time as what was read is of the whole.  Where a round is, the
 * store remembers. */
#include "engine/imagecare.h"

#include <errno.h>
#include <linux/ioprio.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/jsonx.h"
#include "base/log.h"
#include "engine/fleet/fleet.h"
#include "engine/image/expire.h"
#include "engine/image/scrub.h"
#include "engine/instance.h"
#include "engine/op/op.h"

#define LOOK_US       (60 * US_PER_S)   /* how often free space is looked at */
#define AGE_US        (3600 * US_PER_S) /* how often the age of images is */
#define SCRUB_FAIL_US (600 * US_PER_S)
#define SCRUB_REST_US (US_PER_S)

struct imagecare {
        sd_event *loop;
        struct op_runner *runner;
        const struct host *host;
        struct fleet *fleet;
        sd_event_source *look_src, *scrub_src;
        uint64_t age_us;      /* when it is looked at next */
        uint64_t total, read; /* of the last scrub */
        unsigned low;         /* looks in a row that found too little space */
        struct op *op;
        bool closing;
};

static int arm(struct imagecare *c, sd_event_source **src, uint64_t in_us,
               sd_event_time_handler_t fn)
{
        int r;

        *src = sd_event_source_disable_unref(*src);
        r = sd_event_add_time_relative(c->loop, src, CLOCK_MONOTONIC, in_us, US_PER_S / 10, fn, c);
        if (r < 0)
                log_warn("image store: no timer");
        return r;
}

/* --- what leaves --- */

/* @most, but as often as images may grow too old. */
static uint64_t look_every(const struct imagecare *c, uint64_t most)
{
        uint64_t keep = c->host->inst->conf.image_keep_us;

        if (keep >= most || keep == 0)
                return most;
        return keep > US_PER_S ? keep : US_PER_S;
}

/* Once, when a look before this one has not helped. */
static void say_low(struct imagecare *c)
{
        if (!image_is_low(c->host->images)) {
                c->low = 0;
                return;
        }
        if (++c->low == 2)
                log_warn(
                        "less disk space is free than [images] floor asks for, and no image can go");
}

static int on_look(sd_event_source *s, uint64_t usec, void *arg)
{
        struct imagecare *c = arg;
        uint64_t now = clock_mono_us();

        (void) s;
        (void) usec;
        say_low(c);
        if (now >= c->age_us || image_is_low(c->host->images)) {
                c->age_us = now + look_every(c, AGE_US);
                fleet_images_expire(c->fleet, 0);
        }
        (void) arm(c, &c->look_src, look_every(c, LOOK_US), on_look);
        return 0;
}

/* --- what has changed --- */

/* In the operation. */
static void on_damaged(void *arg, uint64_t image, const char *name, const char *why)
{
        AUTO(json_put)
        json_t *j = json_pack("{s:I, s:s}", "image", (json_int_t) image, "why", why);

        (void) name;
        if (j)
                (void) op_report(arg, j, NULL, 0);
}

/* Behind everybody else who wants the disk or a CPU. */
static void be_idle(void)
{
        if (syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0,
                    IOPRIO_PRIO_VALUE(IOPRIO_CLASS_IDLE, 0)) < 0 ||
            setpriority(PRIO_PROCESS, 0, 19) < 0)
                log_debug("scrub: no low priority");
}

static int scrub_body(struct frame_conn *out, void *arg, struct err *e)
{
        const struct imagecare *c = arg;
        struct image_scrub x = { .fn = on_damaged, .arg = out };
        AUTO(image_store_close) struct image_store *store = NULL;
        AUTO(json_put) json_t *j = NULL;
        int r;

        image_scrub_due(&x, c->total, c->host->inst->conf.image_scrub_us);
        be_idle();
        r = image_store_open(c->host->inst, &store, e);
        if (r >= 0)
                r = image_scrub(store, &x, e);
        if (r < 0)
                return r;
        j = json_pack("{s:I, s:I}", "read", (json_int_t) x.read, "total", (json_int_t) x.total);
        return j ? op_report(out, j, NULL, 0) : err_set(e, -ENOMEM, "out of memory");
}

static void on_report(void *arg, const struct frame_msg *m)
{
        struct imagecare *c = arg;
        const char *why = jsonx_str(m->json, "why");

        if (why) {
                fleet_image_damaged(
                        c->fleet, (uint64_t) json_integer_value(json_object_get(m->json, "image")),
                        why);
                return;
        }
        c->read = (uint64_t) json_integer_value(json_object_get(m->json, "read"));
        c->total = (uint64_t) json_integer_value(json_object_get(m->json, "total"));
}

static int on_scrub(sd_event_source *s, uint64_t usec, void *arg);

/* How long until the next one: as the round's time is to what was read. */
static uint64_t rest_us(const struct imagecare *c)
{
        uint64_t period = c->host->inst->conf.image_scrub_us;
        double rest = (double) period;

        if (c->total == 0) /* an empty store, which may be filled any moment */
                return period < SCRUB_FAIL_US ? period : SCRUB_FAIL_US;
        if (c->total > c->read)
                rest *= (double) c->read / (double) c->total;
        return rest < (double) SCRUB_REST_US ? SCRUB_REST_US : (uint64_t) rest;
}

static void on_scrubbed(void *arg, int r, const struct err *err)
{
        struct imagecare *c = arg;

        c->op = NULL;
        if (c->closing)
                return;
        if (r < 0)
                log_warn("%s", err->msg);
        (void) arm(c, &c->scrub_src, r < 0 ? SCRUB_FAIL_US : rest_us(c), on_scrub);
}

static int on_scrub(sd_event_source *s, uint64_t usec, void *arg)
{
        struct imagecare *c = arg;
        const struct op_spec spec = { .name = "check the image store",
                                      .body = scrub_body,
                                      .body_arg = c,
                                      .report = on_report,
                                      .done = on_scrubbed,
                                      .arg = c };
        struct err e = { 0 };

        (void) s;
        (void) usec;
        c->read = 0;
        if (!c->op && op_start(c->runner, &spec, &c->op, &e) < 0)
                on_scrubbed(c, e.code, &e);
        return 0;
}

int imagecare_new(sd_event *loop, struct op_runner *runner, const struct host *host,
                  struct fleet *fleet, struct imagecare **ret, struct err *e)
{
        AUTO(imagecare_free) struct imagecare *c = calloc(1, sizeof *c);
        uint64_t period = host->inst->conf.image_scrub_us;
        int r;

        if (!c)
                return err_set(e, -ENOMEM, "out of memory");
        c->loop = loop;
        c->runner = runner;
        c->host = host;
        c->fleet = fleet;
        r = arm(c, &c->look_src, look_every(c, LOOK_US), on_look);
        if (r >= 0 && period)
                r = arm(c, &c->scrub_src, period < LOOK_US ? period : LOOK_US, on_scrub);
        if (r < 0)
                return err_errno(e, r, "timers of the image store");
        *ret = TAKE(c);
        return 0;
}

struct imagecare *imagecare_free(struct imagecare *c)
{
        if (!c)
                return NULL;
        c->closing = true;
        op_cancel(c->op);
        while (c->op && sd_event_run(c->loop, 100 * US_PER_MS) >= 0)
                ;
        sd_event_source_disable_unref(c->look_src);
        sd_event_source_disable_unref(c->scrub_src);
        free(c);
        return NULL;
}
