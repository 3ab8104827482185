/* gpuhost.c - see gpuhost.h.  Engine process, loop thread.
 *
 * Theory of operation.  Beside each GPU of the fleet lies a row of causes: what the driver said last,
 * whether a call about it hung, whether it is listed at all, what the journal remembers.  One function,
 * settle(), turns causes into states, and whatever has changed by it is told; everything else only
 * changes causes and calls it. */
#include "engine/gpu/gpuhost.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/jsonx.h"
#include "base/log.h"
#include "base/str.h"
#include "engine/gpu/gpuhost_priv.h"
#include "engine/journal/journal.h"
#include "model/gpu_telemetry.h"
#include "model/gpu_xid.h"

#define FAILURES_DOWN   3U               /* of vmm-gpu in a row: nobody watches the GPUs */
#define XID_BAD_US      (600 * US_PER_S) /* so long a fatal Xid keeps a GPU from being rented */
#define EVENTS_BURST    50.0             /* events that are passed on at once */
#define EVENTS_A_SECOND 5.0
#define NAMES_BURST                                                                                \
        (8.0 * GPU_MAX) /* of GPUs that were not there before: instances that are made anew */
#define NAMES_A_SECOND  1.0
#define LOWS_BURST      (4.0 * GPU_MAX) /* times that less memory was in use than ever */
#define LOWS_A_SECOND   1.0
#define FLEETS_BURST    30.0 /* a sound vmm-gpu has a new one every few seconds at most */
#define FLEETS_A_SECOND 2.0
#define TELEMETRY_US    (200 * US_PER_MS) /* it may come once in so long */

/* ---- telling ---- */

static void tell(struct gpuhost *g, const char *uuid, const char *kind, const uint64_t *code,
                 const char *text)
{
        AUTO(json_put)
        json_t *j =
                json_pack("{s:s, s:I, s:s, s:s, s:s}", "type", "event", "at_us",
                          (json_int_t) clock_wall_us(), "uuid", uuid, "kind", kind, "text", text);

        if (!j || (code && json_object_set_new(j, "code", json_integer((json_int_t) *code)) < 0))
                return;
        if (code)
                log_warn("GPU %s: %s %llu: %s", uuid, kind, (unsigned long long) *code, text);
        else
                log_warn("GPU %s: %s%s%s", uuid, kind, *text ? ": " : "", text);
        if (g->spec.event)
                g->spec.event(g->spec.arg, j);
}

/* ---- states ---- */

struct gpu_row *gpuhost_row(struct gpuhost *g, const char *uuid)
{
        const struct gpu *at = gpu_fleet_find(&g->fleet, uuid);

        return at ? &g->rows[at - g->fleet.gpus] : NULL;
}

/* What an instance reports concerns the whole GPU.  NULL: no fatal Xid lately. */
static const struct gpu_row *bad_xid(const struct gpuhost *g, size_t at)
{
        const struct gpu *gpu = &g->fleet.gpus[at];
        const char *whole = gpu->parent ? gpu->parent : gpu->uuid;
        uint64_t now = clock_wall_us();

        for (size_t i = 0; i < g->fleet.n; i++) {
                const struct gpu *other = &g->fleet.gpus[i];

                if (g->rows[i].bad_xid_us && now - g->rows[i].bad_xid_us < XID_BAD_US &&
                    str_eq(other->parent ? other->parent : other->uuid, whole))
                        return &g->rows[i];
        }
        return NULL;
}

static void note_xid(struct gpu_row *row)
{
        if (!gpu_xid_is_fatal(row->j.xid))
                return;
        row->bad_xid = row->j.xid;
        row->bad_xid_us = row->j.xid_us;
}

static const struct gpu_hang *hang_of(const struct gpuhost *g, const struct gpu *gpu)
{
        return gpuhost_hang(g, gpu->parent ? gpu->parent : gpu->uuid);
}

static enum gpu_state state_of(const struct gpuhost *g, size_t at, char *why, size_t size)
{
        const struct gpu_row *r = &g->rows[at];
        const struct gpu_row *xid = bad_xid(g, at);
        const struct gpu_hang *hang = hang_of(g, &g->fleet.gpus[at]);
        const char *holder;

        why[0] = '\0';
        if (*r->j.quarantine) {
                (void) snprintf(why, size, "%s", r->j.quarantine);
                return GS_QUARANTINED;
        }
        if (hang) {
                (void) snprintf(why, size, "%s", hang->why);
                return GS_UNHEALTHY;
        }
        if (!r->listed && !r->left_out) {
                (void) snprintf(why, size, "the driver does not list it any more");
                return GS_LOST;
        }
        if (*g->down) {
                (void) snprintf(why, size, "%s", g->down);
                return GS_UNHEALTHY;
        }
        if (r->said == GS_OK && xid) {
                (void) snprintf(why, size, "Xid %u: %s", xid->bad_xid, gpu_xid_text(xid->bad_xid));
                return GS_UNHEALTHY;
        }
        (void) snprintf(why, size, "%s", r->said_why);
        if (r->said == GS_OK && r->elsewhere) {
                (void) snprintf(why, size, "a cluster of another engine on this machine has it");
                return GS_ELSEWHERE;
        }
        holder = r->said == GS_OK && g->spec.open_in
                         ? g->spec.open_in(g->spec.arg, g->fleet.gpus[at].uuid)
                         : NULL;
        if (holder) {
                (void) snprintf(
                        why, size,
                        "cluster %s may have it open after a change that failed; it is free "
                        "when that cluster is stopped",
                        holder);
                return GS_OPEN;
        }
        return r->said;
}

static const char *kind_of(enum gpu_state from, enum gpu_state to)
{
        static const char *const into[GS_STATE_COUNT] = {
                [GS_OK] = "healthy", [GS_UNHEALTHY] = "unhealthy",
                [GS_LOST] = "lost",  [GS_QUARANTINED] = "quarantined",
                [GS_ELSEWHERE] = "", [GS_OPEN] = ""
        };

        if (to == GS_OK && (from == GS_NONE || from == GS_ELSEWHERE || from == GS_OPEN))
                return ""; /* it was never ill */
        return from == GS_QUARANTINED ? "released" : into[to];
}

/* true: the state or its reason is another one now. */
static bool settle_one(struct gpuhost *g, size_t i)
{
        struct gpu *gpu = &g->fleet.gpus[i];
        enum gpu_state was = gpu->state, now;
        char why[512];

        now = state_of(g, i, why, sizeof why);
        if (now == was && str_eq(gpu->reason ? gpu->reason : "", why))
                return false;
        free(gpu->reason);
        gpu->reason = *why ? str_dup(why) : NULL;
        gpu->state = now;
        if (now == was)
                return true;
        if (hang_of(g, gpu) && now == GS_UNHEALTHY)
                tell(g, gpu->uuid, "hang", NULL, why);
        else if (*kind_of(was, now))
                tell(g, gpu->uuid, kind_of(was, now), NULL, why);
        return true;
}

void gpuhost_settle(struct gpuhost *g, bool changed)
{
        for (size_t i = 0; i < g->fleet.n; i++)
                changed = settle_one(g, i) || changed;
        if (changed && g->spec.changed)
                g->spec.changed(g->spec.arg);
}

/* ---- what vmm-gpu says ---- */

int gpuhost_send_open(struct gpuhost *g)
{
        AUTO(json_put) json_t *omit = json_array(), *msg = NULL;

        for (char **o = g->omit; o && *o; o++)
                (void) json_array_append_new(omit, json_string(*o));
        gpuhost_hang_omit(g, omit);
        msg = json_pack("{s:s, s:O}", "type", "open", "omit", omit);
        return msg ? gpu_child_send(g->child, msg) : -ENOMEM;
}

bool gpuhost_leaves_out(const struct gpuhost *g, const char *uuid)
{
        for (char **o = g->omit; o && *o; o++)
                if (str_eq(*o, uuid))
                        return true;
        return false;
}

static void recall_row(struct gpuhost *g, const struct gpu *gpu, struct gpu_row *row)
{
        gpuhost_recall(g, gpu, row);
        note_xid(row);
}

/* Rows move with their GPUs to the places of the new fleet. */
static void take_fleet(struct gpuhost *g, struct gpu_fleet *merged, const struct gpu_fleet *now)
{
        struct gpu_fleet was = g->fleet;
        struct gpu_row *rows = calloc(GPU_MAX, sizeof *rows);

        if (!rows) {
                log_error("out of memory");
                gpu_fleet_done(merged);
                return;
        }
        g->fleet = *merged;
        for (size_t i = 0; i < g->fleet.n; i++) {
                struct gpu *gpu = &g->fleet.gpus[i];
                const struct gpu *old = gpu_fleet_find(&was, gpu->uuid);
                struct gpu_row *row = &rows[i];

                if (old)
                        *row = g->rows[old - was.gpus];
                else
                        recall_row(g, gpu, row);
                row->listed = gpu_fleet_find(now, gpu->uuid) != NULL;
                row->left_out = gpuhost_leaves_out(g, gpu->uuid);
                if (row->listed) {
                        gpuhost_seen(g, gpu, row);
                        gpuhost_hang_over(g, gpu->uuid);
                        row->said = gpu->state;
                        (void) snprintf(row->said_why, sizeof row->said_why, "%s",
                                        gpu->reason ? gpu->reason : "");
                }
                /* settle() compares with what was told */
                gpu->state = old ? old->state : GS_NONE;
                free(gpu->reason);
                gpu->reason = old ? str_dup(old->reason) : NULL;
        }
        memcpy(g->rows, rows, sizeof g->rows);
        free(rows);
        gpu_fleet_done(&was);
}

/* So many at once, and so many each second. */
static bool may(struct gpu_allowance *a, double burst, double a_second)
{
        uint64_t now = clock_mono_us();

        a->credit = a->at_us ? a->credit + (double) (now - a->at_us) / (double) US_PER_S * a_second
                             : burst;
        a->at_us = now;
        if (a->credit > burst)
                a->credit = burst;
        if (a->credit < 1)
                return false;
        a->credit -= 1;
        return true;
}

/* Each new name is a row of the journal, for a month. */
static int allow_names(struct gpuhost *g, const struct gpu_fleet *now, struct err *e)
{
        for (size_t i = 0; i < now->n; i++)
                if (!gpu_fleet_find(&g->fleet, now->gpus[i].uuid) &&
                    !may(&g->names, NAMES_BURST, NAMES_A_SECOND))
                        return err_set(e, -EPROTO, "other GPUs all the time");
        return 0;
}

static int on_fleet(struct gpuhost *g, const json_t *msg, struct err *e)
{
        struct gpu_fleet now, merged;
        int r = may(&g->fleets, FLEETS_BURST, FLEETS_A_SECOND)
                        ? gpu_words_fleet(msg, &now, e)
                        : err_set(e, -EPROTO, "another fleet all the time");

        if (r < 0)
                return r;
        r = allow_names(g, &now, e);
        if (r < 0) {
                gpu_fleet_done(&now);
                return r;
        }
        now.simulated = g->spec.driver->kind == GD_SIMULATED;
        r = gpu_fleet_merge(&g->fleet, &now, &merged);
        if (r >= 0) {
                take_fleet(g, &merged, &now);
                g->down[0] = '\0';
                g->known = true;
                gpuhost_look_at_claims(g);
                gpuhost_settle(g, true);
        }
        gpu_fleet_done(&now);
        return r < 0 ? err_set(e, r, "fleet: out of memory") : 0;
}

/* The least that was seen in use while nobody had it. */
static void note_idle_memory(struct gpuhost *g, const struct gpu_telemetry *t)
{
        struct gpu_row *row = gpuhost_row(g, t->uuid);
        uint64_t used = t->value[GM_MEMORY_USED_MIB];

        if (row->unread || t->value[GM_PROCESSES] != 0 || used == GPU_UNKNOWN ||
            used >= row->j.memory_mib ||
            (g->spec.is_leased && g->spec.is_leased(g->spec.arg, t->uuid)))
                return;
        if (!may(&g->lows, LOWS_BURST, LOWS_A_SECOND)) /* a write to the disk; it says it again */
                return;
        row->j.memory_mib = used;
        gpuhost_remember(g, &row->j);
}

/* Rows of GPUs that we know, each once, with our time on it. */
static json_t *telemetry_of(struct gpuhost *g, const json_t *rows, struct err *e)
{
        AUTO(json_put) json_t *list = json_array();
        bool seen[GPU_MAX] = { false };
        const json_t *one;
        size_t i;

        json_array_foreach(rows, i, one)
        {
                struct gpu_telemetry t;
                struct gpu_row *row;

                if (gpu_telemetry_decode(one, &t, e) < 0)
                        return NULL;
                row = gpuhost_row(g, t.uuid);
                if (!row || seen[row - g->rows])
                        continue;
                seen[row - g->rows] = true;
                note_idle_memory(g, &t);
                if (row->j.xid && (!t.value[GM_XID] || t.value[GM_XID] == GPU_UNKNOWN))
                        t.value[GM_XID] = row->j.xid; /* from before vmm-gpu was started anew */
                (void) json_array_append_new(list, gpu_telemetry_encode(&t));
        }
        return json_pack("{s:s, s:I, s:O}", "type", "telemetry", "at_us",
                         (json_int_t) clock_wall_us(), "gpus", list);
}

static int on_telemetry(struct gpuhost *g, const json_t *msg, struct err *e)
{
        uint64_t now = clock_mono_us();
        json_t *mine;

        if (g->telemetry && now - g->telemetry_us < TELEMETRY_US)
                return 0;
        g->telemetry_us = now;
        mine = telemetry_of(g, json_object_get(msg, "gpus"), e);
        if (!mine)
                return -EPROTO;
        g->failures = 0;
        gpuhost_forget_gone(g);
        json_decref(g->telemetry);
        g->telemetry = mine;
        if (g->fleet.n && g->spec.telemetry)
                g->spec.telemetry(g->spec.arg, mine);
        gpuhost_settle(g, false); /* some causes end with time */
        return 0;
}

static bool is_new_and_fatal(const struct gpu_row *row, const struct gpu_word_event *ev)
{
        return str_eq(ev->kind, "xid") && gpu_xid_is_fatal(ev->code) && row->bad_xid != ev->code;
}

/* However many errors a GPU reports, or vmm-gpu invents, only so many are passed on; a fatal one is not
 * lost in a flood of what programs do. */
static bool may_tell(struct gpuhost *g, const struct gpu_row *row, const struct gpu_word_event *ev)
{
        return (is_new_and_fatal(row, ev) && may(&g->fatals, EVENTS_BURST, EVENTS_A_SECOND)) ||
               may(&g->events, EVENTS_BURST, EVENTS_A_SECOND);
}

static int on_event(struct gpuhost *g, const json_t *msg, struct err *e)
{
        struct gpu_word_event ev;
        int r = gpu_words_event(msg, &ev, e);
        struct gpu_row *row = r < 0 ? NULL : gpuhost_row(g, ev.uuid);

        if (!row || !may_tell(g, row, &ev))
                return r;
        if (str_eq(ev.kind, "xid")) {
                row->j.xid = (uint32_t) ev.code;
                row->j.xid_us = clock_wall_us();
                note_xid(row);
                if (!row->unread)
                        gpuhost_remember(g, &row->j);
        }
        tell(g, ev.uuid, ev.kind, &ev.code, ev.text);
        gpuhost_settle(g, false);
        return 0;
}

static int on_checked(struct gpuhost *g, const json_t *msg, struct err *e)
{
        (void) e;
        gpuhost_checked(g, msg);
        return 0;
}

static int on_message(void *arg, const char *type, const json_t *msg, struct err *e)
{
        static const struct {
                const char *type;
                int (*fn)(struct gpuhost *g, const json_t *msg, struct err *e);
        } messages[] = { { "fleet", on_fleet },
                         { "telemetry", on_telemetry },
                         { "event", on_event },
                         { "checked", on_checked } };

        for (size_t i = 0; i < NELEM(messages); i++)
                if (str_eq(type, messages[i].type))
                        return messages[i].fn(arg, msg, e);
        return err_set(e, -EPROTO, "a message of type '%.20s'", type);
}

/* ---- its life ---- */

static void on_started(void *arg)
{
        struct gpuhost *g = arg;

        (void) gpuhost_send_open(g);
}

/* Without GPUs the note says why. */
static void put_note(struct gpuhost *g, const char *why)
{
        char *note = str_fmt("vmm-gpu: %s", why);

        if (!note)
                return;
        free(g->fleet.note);
        g->fleet.note = note;
}

static void on_ended(void *arg, const struct gpu_child_end *end)
{
        struct gpuhost *g = arg;
        bool became_known = !g->known;

        g->failures++;
        g->known = true;
        if (*end->gpu && (end->hung || g->failures >= FAILURES_DOWN)) {
                gpuhost_hang_blame(g, end);
                g->failures = 0;              /* the others are to be seen first */
        } else if (end->hung && *end->call) { /* the driver as a whole */
                (void) snprintf(g->down, sizeof g->down,
                                "a driver call (%s) has not come back for %llu s", end->call,
                                (unsigned long long) (GPU_SILENCE_US / US_PER_S));
        } else if (g->failures >= FAILURES_DOWN) {
                (void) snprintf(g->down, sizeof g->down, "nobody watches it: vmm-gpu %s", end->why);
        }
        gpuhost_drop_checks(g, -EPIPE, "vmm-gpu has ended before it answered");
        if (!g->fleet.n)
                put_note(g, *g->down ? g->down : end->why);
        gpuhost_settle(g, became_known);
}

int gpuhost_new(const struct gpuhost_spec *spec, struct gpuhost **ret, struct err *e)
{
        AUTO(gpuhost_free) struct gpuhost *g = calloc(1, sizeof *g);
        const struct gpu_driver *d = spec->driver;
        const struct gpu_child_spec child = { .loop = spec->loop,
                                              .host = spec->host,
                                              .driver = d,
                                              .started = on_started,
                                              .message = on_message,
                                              .ended = on_ended,
                                              .arg = g };
        int r = 0;

        if (!g)
                return err_set(e, -ENOMEM, "out of memory");
        g->spec = *spec;
        g->known = d->kind == GD_NONE;
        g->fleet.simulated = d->kind == GD_SIMULATED;
        g->fleet.note =
                str_dup(d->kind == GD_NONE ? (d->note ? d->note : "this host has no NVIDIA driver")
                                           : "the driver has not been asked yet");
        if (!g->fleet.note)
                return err_set(e, -ENOMEM, "out of memory");
        if (d->kind != GD_NONE)
                r = gpu_child_new(&child, &g->child, e);
        if (r < 0)
                return r;
        *ret = TAKE(g);
        return 0;
}

struct gpuhost *gpuhost_free(struct gpuhost *g)
{
        if (!g)
                return NULL;
        g->child = gpu_child_free(g->child);
        gpuhost_drop_checks(g, -ECANCELED, "the engine is stopping");
        sd_event_source_disable_unref(g->retry);
        gpu_fleet_done(&g->fleet);
        json_decref(g->telemetry);
        (void) strv_free(g->omit);
        free(g);
        return NULL;
}

const struct gpu_fleet *gpuhost_fleet(const struct gpuhost *g)
{
        return &g->fleet;
}

bool gpuhost_is_known(const struct gpuhost *g)
{
        return g->known;
}

const json_t *gpuhost_telemetry(const struct gpuhost *g)
{
        return g->telemetry;
}
