/* pool.c - see pool.h.  Engine process, loop thread.
 *
 * Theory of operation.  The pool wants `pool_networks` ready slots and, for each of the last few
 * disk sizes in use, `pool_disks` ready disks.  One filling operation runs at a time; it makes what
 * was missing when it began, and reports each finished thing with its descriptors.  A slot is
 * claimed by the engine before the operation starts, so a filler that dies leaves nothing that is
 * not known here: its unfinished slots are given back by the same walk that undoes a boot. */
#include "engine/pool/pool.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/jsonx.h"
#include "base/log.h"
#include "base/str.h"
#include "engine/boot/boot.h"
#include "engine/claim/claim.h"
#include "engine/disk/disk.h"
#include "engine/idmap.h"
#include "engine/instance.h"
#include "engine/op/op.h"
#include "engine/slice/slice.h"

#define MAX_SLOTS    256U
#define MAX_DISKS    64U
#define MAX_SIZES    4U
#define FILL_BATCH   16U
#define FILL_TIMEOUT (60 * US_PER_S)
#define RETRY_US     (5 * US_PER_S)
#define QUIET_US     (30 * US_PER_MS) /* filling waits for a pause: it costs what a boot costs */
#define NAME_PREFIX  "pool-"
#define LOW_PART     8U /* below this part it waits no longer */
#define GIB          (1ULL << 30)

enum entry_state { E_NONE, E_FILLING, E_READY, E_BROKEN };

struct slot_entry {
        enum entry_state state;
        struct pool_slot s;
};

struct disk_entry {
        enum entry_state state;
        uint32_t gib;
        struct pool_disk d;
};

struct pool {
        sd_event *loop;
        struct op_runner *runner;
        const struct host *host;
        uint64_t epoch, counter;
        struct slot_entry slots[MAX_SLOTS];
        struct disk_entry disks[MAX_DISKS];
        uint32_t sizes[MAX_SIZES]; /* most recent first */
        struct op *op;
        sd_event_source *kick_src, *quiet_src, *retry_src;
        bool started, closing;
};

static void kick(struct pool *p);

/* No descriptor yet; slot and claim stay. */
static void slot_init(struct pool_slot *s)
{
        s->userns = -EBADF;
        sandbox_shell_init(&s->shell);
}

static void slot_empty(struct slot_entry *s)
{
        s->s.userns = fd_close(s->s.userns);
        sandbox_shell_done(&s->s.shell);
        s->state = E_NONE;
}

/* Every descriptor of a slot, in the order in which they travel. */
#define SLOT_FDS (1 + SANDBOX_SHELL_FDS)
static int *slot_fd(struct pool_slot *s, size_t i)
{
        return i == 0 ? &s->userns : sandbox_shell_fd(&s->shell, i - 1);
}

/* Whole, also where the engine ran out of descriptors when it came, and alive. */
static bool slot_usable(struct pool_slot *s)
{
        for (size_t k = 0; k < SLOT_FDS; k++)
                if (*slot_fd(s, k) < 0)
                        return false;
        return sandbox_shell_ready(&s->shell);
}

static void disk_empty(struct pool *p, struct disk_entry *d)
{
        d->d.mnt = fd_close(d->d.mnt);
        if (d->state != E_NONE)
                (void) disk_remove(p->host->disks, d->d.name);
        d->state = E_NONE;
}

/* In the operation: one slot, ready for a cluster. */
static int make_slot(struct pool *p, struct frame_conn *out, size_t i, struct err *e)
{
        AUTO(json_put) json_t *msg = NULL;
        int fds[SLOT_FDS], r;
        struct pool_slot s;
        struct boot b;

        boot_init(&b, p->host);
        b.slot = p->slots[i].s.slot;
        r = boot_prepare(&b, e);
        if (r >= 0) {
                s.userns = fd_take(&b.userns);
                s.shell = b.shell;
                sandbox_shell_init(&b.shell);
                for (size_t k = 0; k < SLOT_FDS; k++)
                        fds[k] = *slot_fd(&s, k);
                msg = json_pack("{s:s, s:I, s:i, s:i}", "made", "slot", "i", (json_int_t) i,
                                "launcher", (int) s.shell.launcher, "first", (int) s.shell.first);
                r = msg ? op_report(out, msg, fds, SLOT_FDS) : err_set(e, -ENOMEM, "out of memory");
                /* the next shell must not hold this one's ends */
                (void) fd_close(s.userns);
                sandbox_shell_done(&s.shell);
        }
        boot_done(&b);
        return r;
}

static int make_disk(struct pool *p, struct frame_conn *out, size_t i, struct err *e)
{
        struct disk_entry *d = &p->disks[i];
        AUTO(json_put) json_t *msg = json_pack("{s:s, s:I}", "made", "disk", "i", (json_int_t) i);
        int r = msg ? disk_make_fast(p->host->disks, d->d.name, d->gib * GIB, e) : -ENOMEM;

        if (r < 0)
                return r;
        d->d.mnt = disk_mount(p->host->disks, d->d.name, 0, e);
        if (d->d.mnt < 0)
                return d->d.mnt;
        /* the first inodes of a fresh file system take 0.2 ms; sandbox_overlay() finds them there */
        if (mkdirat(d->d.mnt, "upper", 0755) < 0 || mkdirat(d->d.mnt, "work", 0700) < 0)
                return err_errno(e, -errno, "directories of disk %s", d->d.name);
        r = op_report(out, msg, &d->d.mnt, 1);
        d->d.mnt = fd_close(d->d.mnt);
        return r;
}

/* The walk that undoes a boot, for a slot that had none. */
static int undo_slot(struct pool *p, const struct pool_slot *s, struct err *e)
{
        struct boot b;

        boot_init(&b, p->host);
        b.slot = s->slot;
        memcpy(b.claim, s->claim, sizeof b.claim);
        b.plan.cluster = b.claim; /* no such cluster, so no file of one */
        return boot_undo(&b, false, false, e);
}

/* Give back what a dead filler left. */
static int clean_slot(struct pool *p, struct frame_conn *out, size_t i, struct err *e)
{
        AUTO(json_put) json_t *msg = json_pack("{s:s, s:I}", "made", "clean", "i", (json_int_t) i);
        int r = msg ? undo_slot(p, &p->slots[i].s, e) : -ENOMEM;

        return r < 0 ? r : op_report(out, msg, NULL, 0);
}

static int fill_body(struct frame_conn *out, void *arg, struct err *e)
{
        struct pool *p = arg;
        int r = 0;

        for (size_t i = 0; r >= 0 && i < MAX_SLOTS; i++) {
                if (p->slots[i].state == E_FILLING)
                        r = make_slot(p, out, i, e);
                else if (p->slots[i].state == E_BROKEN)
                        r = clean_slot(p, out, i, e);
        }
        for (size_t i = 0; r >= 0 && i < MAX_DISKS; i++)
                if (p->disks[i].state == E_FILLING)
                        r = make_disk(p, out, i, e);
        return r;
}

/* Keep descriptor @k of a report for good. */
static int keep(const struct frame_msg *m, size_t k)
{
        return k < m->n_fds ? fcntl(m->fds[k], F_DUPFD_CLOEXEC, 3) : -EBADF;
}

static void on_made(void *arg, const struct frame_msg *m)
{
        struct pool *p = arg;
        const char *what = jsonx_str(m->json, "made");
        size_t i = (size_t) json_integer_value(json_object_get(m->json, "i"));

        if (str_eq(what, "slot") && i < MAX_SLOTS) {
                struct slot_entry *s = &p->slots[i];

                s->s.shell.launcher =
                        (pid_t) json_integer_value(json_object_get(m->json, "launcher"));
                s->s.shell.first = (pid_t) json_integer_value(json_object_get(m->json, "first"));
                for (size_t k = 0; k < SLOT_FDS; k++)
                        *slot_fd(&s->s, k) = keep(m, k);
                s->state = E_READY;
        } else if (str_eq(what, "disk") && i < MAX_DISKS) {
                p->disks[i].d.mnt = keep(m, 0);
                p->disks[i].state = E_READY;
        } else if (str_eq(what, "clean") && i < MAX_SLOTS) {
                slot_empty(&p->slots[i]);
        }
}

static int on_retry(sd_event_source *s, uint64_t usec, void *arg)
{
        struct pool *p = arg;

        (void) s;
        (void) usec;
        p->retry_src = sd_event_source_disable_unref(p->retry_src);
        kick(p);
        return 0;
}

static void on_filled(void *arg, int r, const struct err *err)
{
        struct pool *p = arg;

        p->op = NULL;
        for (size_t i = 0; i < MAX_SLOTS; i++)
                if (p->slots[i].state == E_FILLING)
                        p->slots[i].state = E_BROKEN;
        for (size_t i = 0; i < MAX_DISKS; i++)
                if (p->disks[i].state == E_FILLING)
                        disk_empty(p, &p->disks[i]);
        if (p->closing)
                return;
        if (r >= 0) {
                kick(p);
                return;
        }
        log_warn("pool: %s", err->msg);
        if (!p->retry_src)
                (void) sd_event_add_time_relative(p->loop, &p->retry_src, CLOCK_MONOTONIC, RETRY_US,
                                                  US_PER_MS, on_retry, p);
}

/* Claim what is missing; returns how many things the operation has to do. */
static size_t plan_slots(struct pool *p)
{
        size_t want = p->host->inst->conf.pool_networks, have = 0, todo = 0;
        struct err e = { 0 };

        for (size_t i = 0; i < MAX_SLOTS; i++) {
                have += p->slots[i].state == E_READY;
                todo += p->slots[i].state == E_BROKEN;
        }
        for (size_t i = 0; i < MAX_SLOTS && have < want && todo < FILL_BATCH; i++) {
                struct slot_entry *s = &p->slots[i];

                if (s->state != E_NONE)
                        continue;
                (void) snprintf(s->s.claim, sizeof s->s.claim, NAME_PREFIX "%llu-%llu",
                                (unsigned long long) p->epoch, (unsigned long long) ++p->counter);
                if (claim_slot(p->host->claims, s->s.claim, 1, &s->s.slot, &e) < 0) {
                        log_warn("pool: %s", e.msg);
                        break;
                }
                s->state = E_FILLING;
                have++;
                todo++;
        }
        return todo;
}

static size_t count_disks(const struct pool *p, uint32_t gib)
{
        size_t n = 0;

        for (size_t i = 0; i < MAX_DISKS; i++)
                n += p->disks[i].state != E_NONE && p->disks[i].gib == gib;
        return n;
}

static size_t plan_disks(struct pool *p)
{
        size_t want = p->host->inst->conf.pool_disks, todo = 0;

        for (size_t k = 0; k < MAX_SIZES && p->sizes[k]; k++) {
                size_t have = count_disks(p, p->sizes[k]);

                for (size_t i = 0; i < MAX_DISKS && have < want && todo < FILL_BATCH; i++) {
                        struct disk_entry *d = &p->disks[i];

                        if (d->state != E_NONE)
                                continue;
                        d->gib = p->sizes[k];
                        (void) snprintf(d->d.name, sizeof d->d.name, NAME_PREFIX "%llu-%llu.img",
                                        (unsigned long long) p->epoch,
                                        (unsigned long long) ++p->counter);
                        d->state = E_FILLING;
                        have++;
                        todo++;
                }
        }
        return todo;
}

static int on_kick(sd_event_source *s, void *arg)
{
        struct pool *p = arg;
        struct err e = { 0 };
        const struct op_spec spec = { .name = "pool",
                                      .body = fill_body,
                                      .body_arg = p,
                                      .timeout_us = FILL_TIMEOUT,
                                      .report = on_made,
                                      .done = on_filled,
                                      .arg = p };
        size_t todo;

        (void) s;
        if (p->op || !p->started || p->closing || p->retry_src)
                return 0;
        todo = plan_slots(p);
        todo += plan_disks(p);
        if (todo == 0)
                return 0;
        if (op_start(p->runner, &spec, &p->op, &e) < 0)
                on_filled(p, e.code, &e);
        return 0;
}

static size_t ready_slots(const struct pool *p)
{
        size_t n = 0;

        for (size_t i = 0; i < MAX_SLOTS; i++)
                n += p->slots[i].state == E_READY;
        return n;
}

static int on_quiet(sd_event_source *s, uint64_t usec, void *arg)
{
        struct pool *p = arg;

        (void) s;
        (void) usec;
        return sd_event_source_set_enabled(p->kick_src, SD_EVENT_ONESHOT);
}

/* Fill later: at once when the pool is nearly empty, else after a pause in the demand, so that
 * filling does not take the CPU from the very boots that made it necessary. */
static void kick(struct pool *p)
{
        bool low = ready_slots(p) * LOW_PART < p->host->inst->conf.pool_networks;

        if (low || !p->quiet_src) {
                (void) sd_event_source_set_enabled(p->kick_src, SD_EVENT_ONESHOT);
                return;
        }
        (void) sd_event_source_set_time_relative(p->quiet_src, QUIET_US);
        (void) sd_event_source_set_enabled(p->quiet_src, SD_EVENT_ONESHOT);
}

int pool_new(sd_event *loop, struct op_runner *runner, const struct host *host, uint64_t epoch,
             struct pool **ret, struct err *e)
{
        struct pool *p = calloc(1, sizeof *p);
        int r;

        if (!p)
                return err_set(e, -ENOMEM, "out of memory");
        p->loop = loop;
        p->runner = runner;
        p->host = host;
        p->epoch = epoch;
        for (size_t i = 0; i < MAX_SLOTS; i++)
                slot_init(&p->slots[i].s);
        for (size_t i = 0; i < MAX_DISKS; i++)
                p->disks[i].d.mnt = -EBADF;
        r = sd_event_add_defer(loop, &p->kick_src, on_kick, p);
        if (r >= 0)
                r = sd_event_source_set_priority(p->kick_src, SD_EVENT_PRIORITY_IDLE);
        if (r >= 0)
                r = sd_event_add_time_relative(loop, &p->quiet_src, CLOCK_MONOTONIC, QUIET_US,
                                               US_PER_MS, on_quiet, p);
        if (r < 0) {
                (void) pool_free(p);
                return err_errno(e, r, "pool");
        }
        *ret = p;
        return 0;
}

void pool_start(struct pool *p)
{
        p->started = true;
        kick(p);
}

/* Release in this process: only at shutdown, when nothing waits for the loop any more. */
static void give_back(struct pool *p, struct slot_entry *s)
{
        struct err e = { 0 };

        slot_empty(s);
        if (undo_slot(p, &s->s, &e) < 0)
                log_warn("pool: slot %u: %s", s->s.slot, e.msg);
}

struct pool *pool_free(struct pool *p)
{
        if (!p)
                return NULL;
        p->closing = true;
        op_cancel(p->op);
        while (p->op && sd_event_run(p->loop, 100 * US_PER_MS) >= 0)
                ;
        for (size_t i = 0; i < MAX_SLOTS; i++)
                if (p->slots[i].state != E_NONE)
                        give_back(p, &p->slots[i]);
        for (size_t i = 0; i < MAX_DISKS; i++)
                disk_empty(p, &p->disks[i]);
        sd_event_source_disable_unref(p->kick_src);
        sd_event_source_disable_unref(p->quiet_src);
        sd_event_source_disable_unref(p->retry_src);
        free(p);
        return NULL;
}

int pool_take_slot(struct pool *p, struct pool_slot *ret)
{
        kick(p);
        for (size_t i = 0; i < MAX_SLOTS; i++) {
                struct slot_entry *s = &p->slots[i];

                if (s->state != E_READY)
                        continue;
                if (!slot_usable(&s->s)) { /* killed: an operation clears it away */
                        slot_empty(s);
                        s->state = E_BROKEN;
                        continue;
                }
                *ret = s->s;
                slot_init(&s->s);
                s->state = E_NONE;
                return 0;
        }
        return -EAGAIN;
}

static void note_size(struct pool *p, uint32_t gib)
{
        size_t i = 0;

        while (i < MAX_SIZES - 1 && p->sizes[i] != gib)
                i++;
        memmove(&p->sizes[1], &p->sizes[0], i * sizeof p->sizes[0]);
        p->sizes[0] = gib;
        for (size_t k = 0; k < MAX_DISKS; k++) { /* a size that fell out of use */
                bool used = false;

                for (size_t n = 0; n < MAX_SIZES; n++)
                        used |= p->sizes[n] == p->disks[k].gib;
                if (!used && p->disks[k].state == E_READY)
                        disk_empty(p, &p->disks[k]);
        }
}

int pool_take_disk(struct pool *p, uint32_t gib, struct pool_disk *ret)
{
        note_size(p, gib);
        kick(p);
        for (size_t i = 0; i < MAX_DISKS; i++) {
                struct disk_entry *d = &p->disks[i];

                if (d->state != E_READY || d->gib != gib)
                        continue;
                *ret = d->d;
                d->d.mnt = -EBADF;
                d->state = E_NONE;
                return 0;
        }
        return -EAGAIN;
}
