/* unit.c - one cluster: what is, what should be, and the next step between the two.
 * Engine process, loop thread. */
#include "engine/fleet/unit.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/fd.h"
#include "base/jsonx.h"
#include "base/log.h"
#include "base/str.h"

#define RETRY_US    (2 * US_PER_S)
#define MAX_RETRIES 5U

struct unit *unit_find(const struct fleet *f, const char *cluster)
{
        for (struct unit *u = f->units; u; u = u->next)
                if (str_eq(u->row.cluster, cluster))
                        return u;
        return NULL;
}

static int copy_row(const struct journal_row *from, struct journal_row *to)
{
        *to = *from;
        to->plan = str_dup(from->plan);
        to->image_digest = str_dup(from->image_digest);
        to->want_plan = str_dup(from->want_plan);
        to->gpus = str_dup(from->gpus);
        to->gpu_receipts = str_dup(from->gpu_receipts);
        to->ports = str_dup(from->ports);
        to->ssh_keys = str_dup(from->ssh_keys);
        return to->plan && (!from->want_plan || to->want_plan) && (!from->gpus || to->gpus) &&
                               (!from->ports || to->ports) && (!from->ssh_keys || to->ssh_keys)
                       ? 0
                       : -ENOMEM;
}

int unit_decode_plan(const char *text, struct plan *ret, struct err *e)
{
        AUTO(json_put) json_t *j = jsonx_parse(text, strlen(text), e);

        return j ? plan_decode(j, ret, e) : -EINVAL;
}

/* All that stopping and removing needs. */
static int bare_plan(struct unit *u, struct err *e)
{
        plan_done(&u->plan);
        u->plan =
                (struct plan){ .generation = u->row.generation, .cluster = strdup(u->row.cluster) };
        u->unreadable = true;
        return u->plan.cluster ? 0 : err_set(e, -ENOMEM, "out of memory");
}

int unit_new(struct fleet *f, const struct journal_row *row, bool lenient, struct unit **ret,
             struct err *e)
{
        struct unit *u = calloc(1, sizeof *u);
        struct unit **tail = &f->units;
        int r;

        if (!u)
                return err_set(e, -ENOMEM, "out of memory");
        u->fleet = f;
        u->monitor_pidfd = u->init_pidfd = -EBADF;
        r = copy_row(row, &u->row);
        if (r >= 0)
                r = unit_decode_plan(u->row.plan, &u->plan, e);
        if (r < 0 && r != -ENOMEM && lenient) {
                log_error("cluster %s: its plan cannot be read: %s", row->cluster, e->msg);
                r = bare_plan(u, e);
        }
        if (r < 0) {
                (void) unit_free(u);
                return r;
        }
        if (unit_read_want(u, e) < 0) /* it was readable when it came */
                log_error("cluster %s: its next plan: %s", row->cluster, e->msg);
        while (*tail)
                tail = &(*tail)->next;
        *tail = u;
        *ret = u;
        return 0;
}

struct unit *unit_free(struct unit *u)
{
        if (!u)
                return NULL;
        unit_unwatch(u);
        sd_event_source_disable_unref(u->timer_src);
        u->gpu_job = handover_cancel(u->gpu_job);
        unit_ready_forget(u);
        unit_secrets_forget(u);
        journal_row_done(&u->row);
        plan_done(&u->plan);
        (void) refused_free(u->refusals);
        free(u->damage);
        free(u->change.plan);
        free(u->change.refused);
        free(u->gpu_trouble);
        free(u);
        return NULL;
}

void unit_remove(struct unit *u)
{
        for (struct unit **p = &u->fleet->units; *p; p = &(*p)->next) {
                if (*p != u)
                        continue;
                *p = u->next;
                break;
        }
        (void) unit_free(u);
}

int unit_save(struct unit *u, bool durable)
{
        struct err e = { 0 };
        int r = journal_save(u->fleet->spec.journal, &u->row, durable, &e);

        if (r < 0)
                log_error("cluster %s: %s", u->row.cluster, e.msg);
        return r;
}

bool unit_wanted(const struct unit *u)
{
        return u->row.want_running && !u->row.want_gone &&
               (u->row.want_generation == u->row.generation || unit_same_start(u));
}

/* What is wrong: with itself, or else with what it was given.  @buf holds what has to be made. */
static const char *reason_of(const struct unit *u, char *buf, size_t size)
{
        if (*u->row.reason || u->row.state != CS_RUNNING)
                return u->row.reason;
        if (u->gpu_trouble)
                return u->gpu_trouble;
        if (!u->damage)
                return u->row.reason;
        (void) snprintf(
                buf, size,
                "it runs from an image that is damaged on this host (%.700s); pull or upload that again, then restart it",
                u->damage);
        return buf;
}

bool unit_is_released(const struct unit *u)
{
        return u->row.slot == 0 && !u->row.gpus && !u->row.ports &&
               !cluster_holds_resources(u->row.state);
}

/* That of a plan counts as an answer: resources that it gives up are free then. */
static uint64_t reported_generation(const struct unit *u)
{
        if (u->change.refused)
                return u->row.want_generation;
        return u->row.generation - (unit_gpus_open(u) && u->row.generation > 1);
}

void unit_report(struct unit *u)
{
        const struct journal_row *row = &u->row;
        char reason[1024], ip[48];

        unit_route(u);
        AUTO(json_put)
        json_t *j = json_pack(
                "{s:s, s:s, s:I, s:s, s:i, s:I, s:I, s:I, s:s, s:s?, s:b, s:b, s:b, s:b, s:s, s:s, s:s, s:s, s:b, s:I, s:I, s:i, s:I, s:I, s:o, s:{s:I, s:I, s:I}}",
                "type", "report", "cluster", row->cluster, "generation",
                (json_int_t) reported_generation(u), "state", cluster_state_name(row->state),
                "progress_pct", (int) u->progress_pct, "progress_bytes",
                (json_int_t) u->pull.done_bytes, "progress_total_bytes",
                (json_int_t) u->pull.total_bytes, "progress_bytes_per_s",
                (json_int_t) u->pull.bytes_per_s, "reason", reason_of(u, reason, sizeof reason),
                "refused", u->change.refused, "released", unit_is_released(u), "cpus_taken",
                u->cpus_taken && row->state == CS_BACKOFF, "credentials_wanted",
                u->wants_login && row->state == CS_PULLING, "secrets_wanted",
                u->wants_secrets && row->state == CS_ACCEPTED, "address", u->address, "address6",
                u->address6, "ports", row->ports ? row->ports : "", "public_ip",
                unit_public_ip(u, ip), "ready", row->ready, "started_us",
                (json_int_t) row->started_us, "boot_us", (json_int_t) u->boot_us, "exit_code",
                (int) row->exit_code, "restarts", (json_int_t) row->restarts, "oom_kills",
                (json_int_t) row->oom_kills, "security", unit_security(u), "usage", "cpu_us",
                (json_int_t) u->usage.cpu_us, "memory_bytes", (json_int_t) u->usage.memory_bytes,
                "pids", (json_int_t) u->usage.pids);

        unit_usage_report(u, j);
        unit_gpus_report(u, j);
        if (!j)
                log_error("cluster %s: cannot make a report", row->cluster);
        else if (u->fleet->spec.report)
                u->fleet->spec.report(u->fleet->spec.arg, j);
}

/* States whose loss would have to be guessed after a power cut.  Terminating is not among them: the
 * wish to be gone was made durable when it came, and undo may be repeated. */
static bool is_durable(enum cluster_state s)
{
        return s == CS_EXITED || s == CS_BACKOFF;
}

/* States that the boot operation passes within milliseconds and recovery treats alike. */
static bool is_transient(enum cluster_state s)
{
        return s == CS_BINDING || s == CS_STARTING;
}

/* Cutting to length may have cut a character in two, which JSON cannot carry. */
static void utf8_trim(char *s)
{
        size_t n = strlen(s), k = n;

        while (k > 0 && n - k < 4 && ((unsigned char) s[k - 1] & 0xc0) == 0x80)
                k--;
        if (k > 0 && ((unsigned char) s[k - 1] & 0xc0) == 0xc0) {
                unsigned char lead = (unsigned char) s[k - 1];
                size_t want = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;

                if (n - (k - 1) < want)
                        s[k - 1] = '\0';
        }
}

void unit_event(struct unit *u, enum cluster_event ev, const char *reason_fmt, ...)
{
        struct err e = { 0 };
        va_list ap;

        if (cluster_step(&u->row.state, ev, &e) < 0) {
                log_error("cluster %s: %s", u->row.cluster, e.msg);
                return;
        }
        if (u->row.state != CS_ACCEPTED && u->row.state != CS_PULLING)
                unit_secrets_forget(u);
        if (ev == CE_RELEASED)
                unit_ports_end(u);
        if (u->row.state != CS_RUNNING)
                unit_ready_end(u);
        if (reason_fmt) {
                va_start(ap, reason_fmt);
                (void) vsnprintf(u->row.reason, sizeof u->row.reason, reason_fmt, ap);
                va_end(ap);
                utf8_trim(u->row.reason);
        }
        log_debug("cluster %s: %s -> %s%s%s", u->row.cluster, cluster_event_name(ev),
                  cluster_state_name(u->row.state), *u->row.reason ? ": " : "", u->row.reason);
        if (!is_transient(u->row.state))
                (void) unit_save(u, is_durable(u->row.state));
        unit_report(u);
}

int unit_adopt_want(struct unit *u, struct err *e)
{
        struct plan plan = { 0 };
        int r;

        if (u->row.want_plan) {
                r = unit_decode_plan(u->row.want_plan, &plan, e);
                if (r < 0)
                        return r;
                plan_done(&u->plan);
                u->plan = plan;
                u->unreadable = false;
                free(u->row.plan);
                u->row.plan = u->row.want_plan;
                u->row.want_plan = NULL;
        }
        unit_change_forget(u);
        u->want_boot = 0;
        u->row.generation = u->row.want_generation;
        u->row.restarts = 0; /* but not image_digest: what it has run from, it may run from again */
        u->row.reason[0] = '\0';
        u->cpus_taken = u->start_again = false;
        u->cpu_waits = 0;
        return 0;
}

/* Boot with the image that is here, or fetch it first. */
static void begin(struct unit *u)
{
        struct err e = { 0 };
        struct image image = { 0 };
        int r = u->unreadable ? err_set(&e, -EINVAL,
                                        "its plan cannot be read; give it a new one or remove it")
                              : unit_need_secrets(u, &e);

        if (r > 0)
                return; /* whoever brings them settles */
        if (r >= 0 && u->fleet->cluster_ops >= u->fleet->spec.host->inst->conf.parallel_ops) {
                u->queued = true;
                return;
        }
        if (r >= 0)
                r = unit_find_image(u, &image, &e);
        if (r == -ENOENT) {
                u->wants_login = !str_empty(u->plan.registry_auth);
                u->progress_pct = 0; /* not that of its last start */
                unit_event(u, CE_PULL, NULL);
                r = unit_pull(u, &e);
        } else if (r >= 0) {
                r = unit_boot(u, &image, &e);
        }
        image_done(&image);
        if (r < 0) {
                unit_event(u, CE_FAIL, "%s", e.msg);
                unit_settle(u);
        }
}

/* How long an orderly end takes is the tenant's to say, up to the grace.  So an account has no more of these
 * under way than there are places left for everybody else's starts and stops. */
static bool may_wait_for(const struct unit *u)
{
        uint32_t places = u->fleet->spec.host->inst->conf.parallel_ops, all = 0, mine = 0;

        for (const struct unit *x = u->fleet->units; x; x = x->next) {
                all += x->op_waits;
                mine += x->op_waits && str_eq(x->plan.account, u->plan.account);
        }
        return all < places && mine < places - all;
}

/* Everything of the present boot has to go; returns true when nothing is left. */
static bool emptied(struct unit *u, bool graceful, bool volume)
{
        struct err e = { 0 };

        if (!unit_holds(u) && !volume)
                return true;
        if (!unit_is_unrouted(u))
                return false;
        if (u->fleet->cluster_ops >= u->fleet->spec.host->inst->conf.parallel_ops ||
            (graceful && !may_wait_for(u))) {
                u->queued = true;
                return false;
        }
        if (unit_undo(u, graceful, volume, &e) < 0) {
                log_error("cluster %s: %s", u->row.cluster, e.msg);
                unit_timer(u, RETRY_US);
        }
        return false;
}

static void leave(struct unit *u)
{
        unit_event(u, u->row.want_gone ? CE_TERMINATE : CE_STOP, NULL);
        unit_settle(u);
}

/* In CS_EXITED: is there a newer order?  One that failed for good is wanted still, but has had its
 * chance: it starts again when it was told to stop in between, or with the next generation. */
static void resume(struct unit *u)
{
        struct err e = { 0 };
        bool start = u->row.want_running;

        if (u->row.want_generation <= u->row.generation && !(start && u->start_again))
                return;
        if (unit_adopt_want(u, &e) < 0) {
                log_error("cluster %s: %s", u->row.cluster, e.msg);
                (void) snprintf(u->row.reason, sizeof u->row.reason, "%s", e.msg);
                unit_report(u);
                return;
        }
        if (!start) {
                (void) unit_save(u, false);
                unit_report(u);
                return;
        }
        unit_event(u, CE_START, NULL);
        unit_settle(u);
}

static void back_off(struct unit *u)
{
        uint64_t now = clock_mono_us();

        if (!emptied(u, false, false))
                return;
        if (!unit_wanted(u)) {
                leave(u);
        } else if (now < u->due_us) {
                unit_timer(u, u->due_us - now);
        } else {
                unit_event(u, CE_START, NULL);
                unit_settle(u);
        }
}

bool unit_retry(struct unit *u, int r, const struct err *err)
{
        if (r != -EOWNERDEAD || u->retries >= MAX_RETRIES)
                return false;
        log_warn("cluster %s: %s; trying again", u->row.cluster, err->msg);
        u->retries++;
        u->due_us = 0;
        unit_event(u, CE_RETRY, "%s", err->msg);
        return true;
}

void unit_settle(struct unit *u)
{
        u->queued = false;
        if (u->fleet->closing)
                return;
        if (u->op) {
                if ((u->op_kind != UNIT_OP_UNDO && !unit_wanted(u)) ||
                    (u->op_kind == UNIT_OP_CHANGE && u->row.state != CS_RUNNING))
                        op_cancel(u->op); /* its callback settles again */
                return;
        }
        if (u->gpus_last)
                return; /* everything else is done; the check's end settles again */
        unit_catch_up(u);
        switch (u->row.state) {
        case CS_ACCEPTED:
                if (unit_wanted(u))
                        begin(u);
                else
                        leave(u);
                break;
        case CS_PULLING:
                if (!unit_wanted(u)) {
                        unit_pull_leave(u);
                        leave(u);
                }
                break;
        case CS_RUNNING:
                if (!unit_wanted(u))
                        leave(u);
                else
                        unit_change(u);
                break;
        case CS_BACKOFF:
                back_off(u);
                break;
        case CS_STOPPING:
                if (u->row.want_gone) {
                        leave(u);
                } else if (emptied(u, true, false) && unit_gpus_back(u)) {
                        unit_event(u, CE_RELEASED, NULL);
                        unit_settle(u);
                }
                break;
        case CS_EXITED:
                if (u->row.want_gone)
                        leave(u);
                else
                        resume(u);
                break;
        case CS_TERMINATING:
                (void) emptied(u, true, true);
                break;
        case CS_NONE:
        case CS_BINDING: /* only with an operation */
        case CS_STARTING:
        case CS_TERMINATED: /* waits to be forgotten */
        case CS_STATE_COUNT:
                break;
        }
}

void unit_settle_waiting(struct fleet *f)
{
        for (struct unit *u = f->units; u; u = u->next)
                if (u->queued && f->cluster_ops < f->spec.host->inst->conf.parallel_ops)
                        unit_settle(u);
}
