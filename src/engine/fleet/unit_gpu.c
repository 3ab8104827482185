/* unit_gpu.c - a cluster's GPUs, from the lease to the end of the checks after it.
 * Engine process, loop thread.
 *
 * row.gpus names what the cluster holds, with how each was before; it is written with the intent to boot
 * and emptied when the checks are over, and while it is not empty nothing of the cluster is reported as
 * released.  So a GPU is never lost between an undo and its check, and never sold before it. */
#include <errno.h>
#include <stdio.h>

#include "base/jsonx.h"
#include "base/log.h"
#include "base/str.h"
#include "engine/claim/claim.h"
#include "engine/fleet/unit.h"
#include "engine/gpu/gpuhost.h"
#include "model/gpu.h"
#include "model/gpu_xid.h"

#define RECEIPTS_MOST  64U
#define CHECK_AGAIN_US (1 * US_PER_S)

/* A new reference.  When the journal is damaged: the GPUs of the plan, of which it is then not known how
 * they were, so that none of them is passed. */
static json_t *held_of(const struct unit *u)
{
        json_t *held = u->row.gpus ? jsonx_parse(u->row.gpus, strlen(u->row.gpus), NULL) : NULL;

        if (json_is_object(held))
                return held;
        json_decref(held);
        held = json_object();
        if (!u->row.gpus)
                return held;
        log_error("cluster %s: what is written down of its GPUs cannot be read", u->row.cluster);
        for (char *const *id = u->plan.gpus; held && id && *id; id++)
                (void) json_object_set_new(held, *id, json_null());
        return held;
}

/* The text for the row: NULL for none. */
static int held_text(const json_t *held, char **ret, struct err *e)
{
        char *text = json_object_size(held) ? jsonx_dump(held) : NULL;

        if (!text && json_object_size(held))
                return err_set(e, -ENOMEM, "out of memory");
        *ret = text;
        return 0;
}

static int put_held(struct unit *u, const json_t *held, struct err *e)
{
        char *text;
        int r = held_text(held, &text, e);

        if (r < 0)
                return r;
        free(u->row.gpus);
        u->row.gpus = text;
        return 0;
}

int unit_gpus_begin(struct unit *u, char *const *uuids, struct err *e)
{
        AUTO(json_put) json_t *held = NULL;
        int r;

        if (!uuids || !*uuids)
                return 0;
        held = held_of(u);
        r = held ? handover_begin(u->fleet->spec.handover, uuids, held, e)
                 : err_set(e, -ENOMEM, "out of memory");
        if (r < 0)
                return r;
        if (!u->row.gpus) { /* a new lease: what was found after the last one has been told */
                free(u->row.gpu_receipts);
                u->row.gpu_receipts = NULL;
        }
        return put_held(u, held, e);
}

/* Receipts of one lease are kept together, the newest of a GPU that came and went several times. */
static int add_receipts(struct unit *u, const json_t *receipts)
{
        const char *before = u->row.gpu_receipts;
        AUTO(json_put) json_t *all = before ? jsonx_parse(before, strlen(before), NULL) : NULL;
        size_t i, k;
        json_t *one, *old;
        char *text;

        if (!all)
                all = json_array();
        json_array_foreach(receipts, i, one)
        {
                json_array_foreach(all, k, old)
                {
                        if (!str_eq(jsonx_str(old, "uuid"), jsonx_str(one, "uuid")))
                                continue;
                        (void) json_array_remove(all, k);
                        break;
                }
                if (json_array_append(all, one) < 0)
                        return -ENOMEM;
        }
        while (json_array_size(all) > RECEIPTS_MOST)
                (void) json_array_remove(all, 0);
        text = jsonx_dump(all);
        if (!text)
                return -ENOMEM;
        free(u->row.gpu_receipts);
        u->row.gpu_receipts = text;
        return 0;
}

/* The claims go last: from then on another engine may take the GPU.  All that the row does not name go,
 * those too that an engine which was killed here has left. */
void unit_gpus_let_go(struct unit *u)
{
        AUTO(json_put) json_t *held = held_of(u);
        AUTO(strv_free) char **uuids = NULL;
        struct err e = { 0 };
        const char *uuid;
        json_t *how;
        int r = held ? 0 : -ENOMEM;

        json_object_foreach(held, uuid, how)
        {
                if (r >= 0)
                        r = strv_push(&uuids, uuid);
        }
        if (r >= 0)
                r = claim_gpus_keep(u->fleet->spec.host->claims, u->row.cluster, uuids, &e);
        if (r < 0)
                log_error("cluster %s: claims of GPUs: %s", u->row.cluster,
                          *e.msg ? e.msg : "out of memory");
}

static char **uuids_of(const json_t *receipts)
{
        char **v = NULL;
        size_t i;
        json_t *one;

        json_array_foreach(receipts, i, one)
        {
                if (strv_push(&v, jsonx_str(one, "uuid")) < 0)
                        return strv_free(v);
        }
        return v;
}

static void clear_trouble(struct unit *u)
{
        free(u->gpu_trouble);
        u->gpu_trouble = NULL;
}

/* On disk first: what is not written there is still held, and all is checked once more. */
static int write_over(struct unit *u, const json_t *receipts, char *const *uuids)
{
        AUTO(json_put) json_t *held = held_of(u);
        char *before = u->row.gpus, *after = NULL;

        for (; held && uuids && *uuids; uuids++)
                (void) json_object_del(held, *uuids);
        if (!held || add_receipts(u, receipts) < 0 || held_text(held, &after, NULL) < 0)
                return -ENOMEM;
        u->row.gpus = after;
        if (unit_save(u, true) < 0) {
                u->row.gpus = before;
                free(after);
                return -EIO;
        }
        free(before);
        return 0;
}

static void on_handed_over(void *arg, const json_t *receipts)
{
        struct unit *u = arg;
        AUTO(strv_free) char **uuids = uuids_of(receipts);
        bool last = u->gpus_last;

        u->gpu_job = NULL;
        u->gpus_last = false;
        if (!uuids || write_over(u, receipts, uuids) < 0) {
                unit_timer(u, CHECK_AGAIN_US);
                return;
        }
        unit_gpus_let_go(u);
        clear_trouble(u);
        u->gpus_told = true;
        if (last && !u->row.gpus)
                unit_event(u, CE_RELEASED, NULL);
        else
                unit_report(u);
        unit_settle(u);
}

void unit_gpus_check(struct unit *u, char *const *uuids)
{
        AUTO(json_put) json_t *held = NULL;
        struct err e = { 0 };

        if (u->gpu_job || !u->row.gpus)
                return;
        held = held_of(u);
        if (handover_check(u->fleet->spec.handover, u->row.cluster, held, uuids, on_handed_over, u,
                           &u->gpu_job, &e) >= 0)
                return;
        log_error("cluster %s: its GPUs cannot be checked: %s; trying again", u->row.cluster,
                  e.msg);
        unit_timer(u, CHECK_AGAIN_US);
}

int unit_gpus_keep(struct unit *u, char *const *uuids)
{
        AUTO(json_put) json_t *held = held_of(u);

        for (; uuids && *uuids; uuids++) {
                json_t *how = json_object_get(held, *uuids);

                if (!json_is_object(how) || json_object_set_new(how, "open", json_true()) < 0)
                        return -ENOMEM;
        }
        return held ? put_held(u, held, NULL) : -ENOMEM;
}

bool unit_gpus_back(struct unit *u)
{
        if (!u->row.gpus) {
                unit_gpus_let_go(u);
                return true;
        }
        unit_gpus_check(u, NULL);
        return false;
}

void unit_gpus_report(struct unit *u, json_t *report)
{
        json_t *list;

        if (!report || !u->row.gpu_receipts || (!unit_is_released(u) && !u->gpus_told))
                return;
        u->gpus_told = false;
        list = jsonx_parse(u->row.gpu_receipts, strlen(u->row.gpu_receipts), NULL);
        if (list)
                (void) json_object_set_new(report, "gpu_receipts", list);
}

static bool holds(const struct unit *u, const char *uuid)
{
        AUTO(json_put) json_t *held = u->row.gpus ? held_of(u) : NULL;

        return held && uuid && json_object_get(held, uuid);
}

const char *fleet_gpu_holder(const struct fleet *f, const char *uuid)
{
        for (const struct unit *u = f->units; u; u = u->next)
                if (holds(u, uuid))
                        return u->row.cluster;
        return NULL;
}

/* Asked for each GPU each second: rows without the word are not parsed. */
static bool is_left_open(const struct unit *u, const char *uuid)
{
        AUTO(json_put) json_t *held = NULL;

        if (!u->row.gpus || !strstr(u->row.gpus, "\"open\""))
                return false;
        held = held_of(u);
        return json_is_true(json_object_get(json_object_get(held, uuid), "open")) &&
               !strv_has(u->plan.gpus, uuid);
}

const char *fleet_gpu_open_in(const struct fleet *f, const char *uuid)
{
        for (const struct unit *u = f->units; u; u = u->next)
                if (is_left_open(u, uuid))
                        return u->row.cluster;
        return NULL;
}

/* The tenant is told; what becomes of the cluster is up to it. */
static void tell_trouble(struct unit *u, const char *uuid, const char *what, bool passes)
{
        char *text = str_fmt("GPU %s: %.300s", uuid, what);

        if (str_eq(text, u->gpu_trouble)) {
                free(text);
                return;
        }
        clear_trouble(u);
        u->gpu_trouble = text;
        u->gpu_trouble_passes = passes;
        log_warn("cluster %s: %s", u->row.cluster, text ? text : what);
        unit_report(u);
}

/* What happens to a GPU happens to the instances that lie on it. */
static bool is_about(const struct unit *u, const char *uuid, const char *of)
{
        const struct gpuhost *host = u->fleet->spec.host->gpuhost;
        const struct gpu *g = host ? gpu_fleet_find(gpuhost_fleet(host), uuid) : NULL;

        return str_eq(uuid, of) || (g && str_eq(g->parent, of));
}

static void note_xid(struct unit *u, const char *of, uint64_t xid, const char *text)
{
        AUTO(json_put) json_t *held = held_of(u);
        const char *uuid, *mine = NULL;
        bool noted = false;
        json_t *before;
        void *next;
        char what[256];

        json_object_foreach_safe(held, next, uuid, before)
        {
                if (!is_about(u, uuid, of))
                        continue;
                mine = uuid;
                noted = handover_note(held, uuid, xid) || noted;
        }
        if (noted && (put_held(u, held, NULL) < 0 || unit_save(u, false) < 0))
                log_error("cluster %s: an Xid of its GPU was not written down", u->row.cluster);
        if (!mine || gpu_xid_is_program(xid) || u->gpu_trouble)
                return;
        (void) snprintf(what, sizeof what, "the driver reported Xid %llu%s%.200s",
                        (unsigned long long) xid, text ? ": " : "", text ? text : "");
        tell_trouble(u, mine, what, false);
}

void fleet_gpu_event(struct fleet *f, const json_t *event)
{
        json_int_t code = json_integer_value(json_object_get(event, "code"));
        const char *uuid = jsonx_str(event, "uuid");

        if (!uuid || !str_eq(jsonx_str(event, "kind"), "xid") || code <= 0)
                return;
        for (struct unit *u = f->units; u; u = u->next)
                if (u->row.gpus)
                        note_xid(u, uuid, (uint64_t) code, jsonx_str(event, "text"));
}

/* What is in quarantine while nobody looks at it is what a start has been given again. */
static bool is_trouble(const struct unit *u, const struct gpu *g)
{
        return !g || g->state == GS_LOST || g->state == GS_UNHEALTHY ||
               (g->state == GS_QUARANTINED && !u->gpu_job);
}

static void look_at_state(struct unit *u, const struct gpu_fleet *gpus)
{
        AUTO(json_put) json_t *held = held_of(u);
        const char *uuid;
        json_t *before;

        json_object_foreach(held, uuid, before)
        {
                const struct gpu *g = gpu_fleet_find(gpus, uuid);
                char what[320];

                if (gpus->n == 0 || !is_trouble(u, g))
                        continue;
                (void) snprintf(what, sizeof what, "%s%s%s",
                                gpu_state_names[g ? g->state : GS_LOST], g && g->reason ? ": " : "",
                                g && g->reason ? g->reason : "");
                tell_trouble(u, uuid, what, true);
                return;
        }
        if (!u->gpu_trouble || !u->gpu_trouble_passes)
                return;
        clear_trouble(u);
        unit_report(u);
}

void unit_gpus_look(struct unit *u)
{
        if (u->row.gpus && u->fleet->spec.host->gpuhost)
                look_at_state(u, gpuhost_fleet(u->fleet->spec.host->gpuhost));
}

void fleet_gpus_changed(struct fleet *f, const struct gpu_fleet *gpus)
{
        for (struct unit *u = f->units; u; u = u->next)
                if (u->row.gpus)
                        look_at_state(u, gpus);
}
