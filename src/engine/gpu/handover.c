/* handover.c - see handover.h.  Engine process, loop thread.
 *
 *   look --clean--> scrub (when wanted) --> look once more --clean--> over, ok
 *    |  \--wait--> look again, until the deadline --> over, quarantine
 *    \--bad, gone, no answer in time--> over, quarantine
 *
 * Each GPU of a job goes its own way; a look asks about all that wait for one in one message.  A job
 * is over when every GPU is, and a GPU is only over in quarantine when the journal has it. */
#include "engine/gpu/handover.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/jsonx.h"
#include "base/log.h"
#include "base/str.h"
#include "engine/gpu/gpuhost.h"
#include "engine/gpu/handover_judge.h"
#include "engine/gpu/scrub_op.h"
#include "engine/journal/journal_gpu.h"

#define DEADLINE_US (15 * US_PER_S)
#define LOOK_US     (200 * US_PER_MS)
#define AGAIN_US    (1 * US_PER_S) /* the journal cannot be written */

enum item_state { IS_NONE, IS_LOOK, IS_SCRUB, IS_LAST_LOOK, IS_QUARANTINE, IS_OVER };

struct item {
        struct handover_job *job;
        char uuid[72];
        enum item_state state;
        bool asked; /* the answer that is under way is about it, too */
        struct handover_before before;
        struct handover_finding finding;
        struct scrub_op *scrub_op;
        char scrub[128]; /* what it said, for the receipt; "": none */
};

struct handover_job {
        struct handover *h;
        char cluster[16];
        struct item *items;
        size_t n;
        uint64_t deadline_us; /* monotonic */
        sd_event_source *timer;
        handover_done_fn *done;
        void *arg;
        bool asked; /* an answer of gpuhost is under way */
        bool dead;  /* cancelled; freed when the answer comes */
};

struct handover {
        struct handover_spec spec;
};

int handover_new(const struct handover_spec *spec, struct handover **ret, struct err *e)
{
        struct handover *h = calloc(1, sizeof *h);

        if (!h)
                return err_set(e, -ENOMEM, "out of memory");
        h->spec = *spec;
        *ret = h;
        return 0;
}

struct handover *handover_free(struct handover *h)
{
        free(h);
        return NULL;
}

/* --- a lease begins ------------------------------------------------------------------------ */

static uint64_t telemetry(const json_t *msg, const char *uuid, const char *key)
{
        size_t i;
        json_t *row;

        json_array_foreach(json_object_get(msg, "gpus"), i, row)
        {
                const json_t *v = json_object_get(row, key);

                if (str_eq(jsonx_str(row, "uuid"), uuid) && json_is_integer(v) &&
                    json_integer_value(v) >= 0)
                        return (uint64_t) json_integer_value(v);
        }
        return GPU_UNKNOWN;
}

static int begin_one(struct handover *h, const char *uuid, json_t *held, struct err *e)
{
        const json_t *now = h->spec.gpuhost ? gpuhost_telemetry(h->spec.gpuhost) : NULL;
        struct handover_before b = { .began_us = clock_wall_us(),
                                     .memory_mib = GPU_UNKNOWN,
                                     .ecc_uncorrected = telemetry(now, uuid, "ecc_uncorrected"),
                                     .xid = telemetry(now, uuid, "xid") };
        struct journal_gpu first;
        int r = journal_gpu_get(h->spec.journal, uuid, &first, e);

        if (r < 0)
                return r;
        if (b.xid == GPU_UNKNOWN ||
            b.xid == 0) /* the driver may have been loaded anew since then */
                b.xid = r > 0 ? first.xid : 0;
        if (r > 0) {
                if (first.memory_mib != JOURNAL_GPU_UNKNOWN)
                        b.memory_mib = first.memory_mib;
                (void) snprintf(b.vbios, sizeof b.vbios, "%s", first.vbios);
                (void) snprintf(b.inforom, sizeof b.inforom, "%s", first.inforom);
        }
        if (json_object_set_new(held, uuid, handover_before_encode(&b)) < 0)
                return err_set(e, -ENOMEM, "out of memory");
        return 0;
}

int handover_begin(struct handover *h, char *const *uuids, json_t *held, struct err *e)
{
        int r = 0;

        for (; r >= 0 && uuids && *uuids; uuids++)
                if (!json_object_get(held, *uuids))
                        r = begin_one(h, *uuids, held, e);
        return r;
}

bool handover_note(json_t *held, const char *uuid, uint64_t xid)
{
        const json_t *mine = json_object_get(held, uuid);
        struct handover_before b, was;

        if (!mine || handover_before_decode(mine, &b, NULL) < 0)
                return false;
        was = b;
        handover_note_xid(&b, xid);
        return memcmp(b.xids, was.xids, sizeof b.xids) != 0 &&
               json_object_set_new(held, uuid, handover_before_encode(&b)) >= 0;
}

/* --- it ends -------------------------------------------------------------------------------- */

static struct handover_job *job_free(struct handover_job *job)
{
        if (!job)
                return NULL;
        sd_event_source_disable_unref(job->timer);
        free(job->items);
        free(job);
        return NULL;
}

struct handover_job *handover_cancel(struct handover_job *job)
{
        if (!job)
                return NULL;
        for (size_t i = 0; i < job->n; i++)
                job->items[i].scrub_op = scrub_op_cancel(job->items[i].scrub_op);
        job->timer = sd_event_source_disable_unref(job->timer);
        if (job->asked)
                job->dead = true;
        else
                (void) job_free(job);
        return NULL;
}

static void job_step(struct handover_job *job);

static int on_timer(sd_event_source *s, uint64_t usec, void *arg)
{
        struct handover_job *job = arg;

        (void) s;
        (void) usec;
        job->timer = sd_event_source_disable_unref(job->timer);
        job_step(job);
        return 0;
}

static void job_timer(struct handover_job *job, uint64_t delay_us)
{
        int r;

        if (job->timer)
                return;
        r = sd_event_add_time_relative(job->h->spec.loop, &job->timer, CLOCK_MONOTONIC, delay_us,
                                       10 * US_PER_MS, on_timer, job);
        if (r < 0) /* the next order about the cluster will not find it done, either */
                log_error("cluster %s: timer: %s", job->cluster, strerror(-r));
}

static void item_bad(struct item *it, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void item_bad(struct item *it, const char *fmt, ...)
{
        va_list ap;

        va_start(ap, fmt);
        (void) vsnprintf(it->finding.reason, sizeof it->finding.reason, fmt, ap);
        va_end(ap);
        it->finding.verdict = HV_BAD;
        it->state = IS_QUARANTINE;
}

/* Where gpuhost does not know the GPU (any more), the journal still remembers it for the day when it
 * comes back. */
static int remember(struct item *it, struct err *e)
{
        struct journal *j = it->job->h->spec.journal;
        struct journal_gpu row;
        int r = journal_gpu_get(j, it->uuid, &row, e);

        if (r < 0)
                return r;
        if (r == 0) {
                row = (struct journal_gpu){ .memory_mib = JOURNAL_GPU_UNKNOWN,
                                            .first_us = clock_wall_us() };
                (void) snprintf(row.uuid, sizeof row.uuid, "%s", it->uuid);
        }
        (void) snprintf(row.quarantine, sizeof row.quarantine, "%s", it->finding.reason);
        (void) snprintf(row.cluster, sizeof row.cluster, "%s", it->job->cluster);
        row.since_us = clock_wall_us();
        return journal_gpu_save(j, &row, e);
}

static void item_quarantine(struct item *it)
{
        struct gpuhost *g = it->job->h->spec.gpuhost;
        struct err e = { 0 };
        int r = g ? gpuhost_quarantine(g, it->uuid, it->finding.reason, it->job->cluster, &e)
                  : -ENOENT;

        if (r == -ENOENT)
                r = remember(it, &e);
        if (r < 0) { /* it stays the cluster's until that works */
                log_error("GPU %s: quarantine: %s; trying again", it->uuid, e.msg);
                return;
        }
        log_warn("GPU %s: in quarantine after cluster %s: %s", it->uuid, it->job->cluster,
                 it->finding.reason);
        it->state = IS_OVER;
}

static void on_scrubbed(void *arg, const struct scrub_result *res)
{
        struct item *it = arg;
        bool required = str_eq(it->job->h->spec.inst->conf.gpu_scrub, "require");

        it->scrub_op = NULL;
        (void) snprintf(it->scrub, sizeof it->scrub, "%s", res->text);
        if (res->r >= 0 || (res->r == -ENOENT && !required))
                it->state = IS_LAST_LOOK;
        else
                item_bad(it, "its memory could not be overwritten: %s", res->text);
        /* its context has just ended: the driver may take a moment */
        it->job->deadline_us = clock_mono_us() + DEADLINE_US;
        job_timer(it->job, 0);
}

static void item_clean(struct item *it)
{
        const struct handover_spec *s = &it->job->h->spec;
        struct err e = { 0 };

        if (it->state == IS_LAST_LOOK || str_eq(s->inst->conf.gpu_scrub, "off")) {
                it->state = IS_OVER;
                return;
        }
        if (scrub_op_start(s->runner, s->inst, s->driver, it->uuid, on_scrubbed, it, &it->scrub_op,
                           &e) < 0)
                item_bad(it, "its memory could not be overwritten: %s", e.msg);
        else
                it->state = IS_SCRUB;
}

static const json_t *row_of(const json_t *gpus, const char *uuid)
{
        size_t i;
        json_t *row;

        json_array_foreach(gpus, i, row)
        {
                if (str_eq(jsonx_str(row, "uuid"), uuid))
                        return row;
        }
        return NULL;
}

static bool waits_for_look(const struct item *it)
{
        return it->state == IS_LOOK || it->state == IS_LAST_LOOK;
}

/* One that came while nobody wrote it down with the cluster, or the same one as before the lease. */
static void note_last_xid(struct item *it)
{
        struct journal_gpu row;

        if (journal_gpu_get(it->job->h->spec.journal, it->uuid, &row, NULL) > 0 && row.xid &&
            row.xid_us >= it->before.began_us)
                handover_note_xid(&it->before, row.xid);
}

static void item_looked(struct item *it, const json_t *gpus)
{
        const json_t *row = row_of(gpus, it->uuid);
        const struct gpu *known;
        struct handover_now now = { .present = false };
        struct err e = { 0 };

        if (row && handover_now_decode(row, &now, &e) < 0) {
                item_bad(it, "it could not be checked: %s", e.msg);
                return;
        }
        note_last_xid(it);
        handover_judge(&it->before, &now, &it->finding);
        known = gpu_fleet_find(gpuhost_fleet(it->job->h->spec.gpuhost), it->uuid);
        if (!now.present && known && known->state == GS_UNHEALTHY && known->reason)
                item_bad(it, "%s", known->reason); /* left out because a call about it hung */
        else if (it->finding.verdict == HV_CLEAN)
                item_clean(it);
        else if (it->finding.verdict == HV_BAD || clock_mono_us() >= it->job->deadline_us)
                it->state = IS_QUARANTINE;
}

/* An answer that does not come is asked for again: vmm-gpu is replaced meanwhile, and leaves out the one
 * GPU about which it hung, so that the others are not judged by it. */
static void on_checked(void *arg, const json_t *gpus, const struct err *err)
{
        struct handover_job *job = arg;
        bool again = false;

        job->asked = false;
        if (job->dead) {
                (void) job_free(job);
                return;
        }
        for (size_t i = 0; i < job->n; i++) {
                struct item *it = &job->items[i];
                bool asked = it->asked;

                it->asked = false;
                if (!waits_for_look(it))
                        continue;
                if (gpus && asked)
                        item_looked(it, gpus);
                else if (!gpus && clock_mono_us() >= job->deadline_us)
                        item_bad(it, "it could not be checked: %s", err->msg);
                again = again || waits_for_look(it);
        }
        /* not from here: the one who calls is in the middle of something */
        job_timer(job, again ? LOOK_US : 0);
}

/* vmm-gpu has yet to say what there is. */
static bool too_early(const struct handover_job *job)
{
        const struct gpuhost *g = job->h->spec.gpuhost;

        return g && gpuhost_fleet(g)->n == 0 && clock_mono_us() < job->deadline_us;
}

static void job_look(struct handover_job *job)
{
        char *uuids[GPU_MAX + 1] = { NULL };
        struct err e = { 0 };
        size_t n = 0;
        int r = -ENODEV;

        if (job->asked)
                return;
        for (size_t i = 0; i < job->n; i++)
                if (waits_for_look(&job->items[i]))
                        uuids[n++] = job->items[i].uuid;
        if (n == 0)
                return;
        if (too_early(job)) {
                job_timer(job, LOOK_US);
                return;
        }
        for (size_t i = 0; i < job->n; i++)
                job->items[i].asked = waits_for_look(&job->items[i]);
        job->asked = true;
        if (job->h->spec.gpuhost)
                r = gpuhost_check(job->h->spec.gpuhost, uuids, on_checked, job, &e);
        else
                (void) err_set(&e, r, "this host has no GPU driver any more");
        if (r < 0)
                on_checked(job, NULL, &e);
}

static json_t *receipts_of(const struct handover_job *job)
{
        AUTO(json_put) json_t *list = json_array();
        uint64_t now = clock_wall_us();

        for (size_t i = 0; list && i < job->n; i++) {
                const struct item *it = &job->items[i];

                if (json_array_append_new(list, handover_receipt(it->uuid, now, &it->finding,
                                                                 *it->scrub ? it->scrub : NULL)) <
                    0)
                        return NULL;
        }
        return TAKE(list);
}

static void job_end(struct handover_job *job)
{
        AUTO(json_put) json_t *receipts = receipts_of(job);
        handover_done_fn *done = job->done;
        void *arg = job->arg;

        if (!receipts) { /* no memory: nothing is decided without a receipt */
                job_timer(job, AGAIN_US);
                return;
        }
        (void) job_free(job);
        done(arg, receipts);
}

/* Everything that can be done now; frees the job when it is over. */
static void job_step(struct handover_job *job)
{
        bool over = true, quarantine = false;

        for (size_t i = 0; i < job->n; i++) {
                struct item *it = &job->items[i];

                if (it->state == IS_QUARANTINE)
                        item_quarantine(it);
                over = over && it->state == IS_OVER;
                quarantine = quarantine || it->state == IS_QUARANTINE;
        }
        if (over && !job->asked) {
                job_end(job);
                return;
        }
        job_look(job);
        if (quarantine)
                job_timer(job, AGAIN_US);
}

static int job_fill(struct handover_job *job, const json_t *held, char *const *uuids, struct err *e)
{
        const char *uuid;
        json_t *before;

        job->items = calloc(json_object_size(held), sizeof *job->items);
        if (!job->items)
                return err_set(e, -ENOMEM, "out of memory");
        json_object_foreach((json_t *) (uintptr_t) held, uuid, before)
        {
                struct item *it = &job->items[job->n];
                bool named = !uuids;
                struct err why = { 0 };

                for (char *const *u = uuids; !named && *u; u++)
                        named = str_eq(*u, uuid);
                if (!named || job->n == GPU_MAX)
                        continue;
                *it = (struct item){ .job = job, .state = IS_LOOK };
                (void) snprintf(it->uuid, sizeof it->uuid, "%s", uuid);
                /* damaged: nothing to compare with is no reason to pass it */
                if (handover_before_decode(before, &it->before, &why) < 0)
                        item_bad(it, "how it was before the lease is not known: %s", why.msg);
                job->n++;
        }
        return job->n ? 0 : err_set(e, -ENOENT, "there is no GPU to check");
}

int handover_check(struct handover *h, const char *cluster, const json_t *held, char *const *uuids,
                   handover_done_fn *done, void *arg, struct handover_job **ret, struct err *e)
{
        struct handover_job *job = calloc(1, sizeof *job);
        int r;

        if (!job)
                return err_set(e, -ENOMEM, "out of memory");
        *job = (struct handover_job){
                .h = h, .done = done, .arg = arg, .deadline_us = clock_mono_us() + DEADLINE_US
        };
        (void) snprintf(job->cluster, sizeof job->cluster, "%s", cluster);
        r = job_fill(job, held, uuids, e);
        if (r >= 0) {
                job_timer(job, 0);
                if (!job->timer)
                        r = err_set(e, -ENOMEM, "timer");
        }
        if (r < 0) {
                (void) job_free(job);
                return r;
        }
        *ret = job;
        return 0;
}
