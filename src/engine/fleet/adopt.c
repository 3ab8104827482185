/* adopt.c - at start: the journal against the kernel.
 *
 *   journal says            kernel says               then
 *   running                 that monitor lives        adopt it: watch, nothing else changes
 *   running                 it has ended              as if it had ended just now
 *   accepted..starting      (whatever)                undo by name, then boot again
 *   backoff, stopping, ...  (whatever)                settle goes on where it was
 *   anything                the machine was rebooted  nothing is held; what should run, boots
 *   anything not running    its slot's claim is gone  the undo was complete: nothing is held
 * What is on the host under our names and in no row is swept: disks of no cluster, spare slots. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/str.h"
#include "engine/fleet/kept.h"
#include "engine/fleet/unit.h"

static int on_row(void *arg, const struct journal_row *row, struct err *e)
{
        struct fleet *f = arg;
        struct unit *u = NULL;

        return unit_new(f, row, true, &u, e);
}

static void holds_nothing(struct unit *u)
{
        u->row.slot = 0;
        u->row.claim[0] = '\0';
        u->row.monitor = u->row.init = (struct proc_id){ 0 };
        unit_net_end(u);
}

/* The monitor recorded in the row, if that very process still lives. */
static bool find_monitor(struct unit *u)
{
        u->monitor_pidfd = proc_open(&u->row.monitor);
        if (u->monitor_pidfd < 0)
                return false;
        u->init_pidfd = proc_open(&u->row.init);
        return true;
}

static void adopt(struct unit *u)
{
        struct err e = { 0 };

        switch (u->row.state) {
        case CS_RUNNING:
                unit_refused(u, true);
                if (find_monitor(u) && unit_watch(u, &e) >= 0) {
                        unit_read_label(u);
                        unit_net_adopt(u);
                        unit_ready_begin(u);
                        u->progress_pct = 100;
                        log_info("cluster %s: adopted, pid %d", u->row.cluster,
                                 (int) u->row.init.pid);
                } else if (journal_rebooted(u->fleet->spec.journal)) {
                        unit_event(u, CE_EXIT, "the host was restarted; starting again");
                        u->due_us = 0; /* no fault of the cluster's: not counted as one */
                } else {
                        unit_ended(u);
                        u->due_us = 0;
                }
                break;
        case CS_ACCEPTED:
        case CS_PULLING:
        case CS_BINDING:
        case CS_STARTING:
                unit_event(u, CE_RETRY, "%s", "");
                u->due_us = 0;
                break;
        case CS_STOPPING:
        case CS_TERMINATING:
                (void) find_monitor(u); /* a stop that was cut short still gives its grace */
                break;
        case CS_NONE:
        case CS_BACKOFF:
        case CS_EXITED:
        case CS_TERMINATED:
        case CS_STATE_COUNT:
                break;
        }
}

static int on_slot(void *arg, const char *kind, uint32_t number, const char *cluster,
                   uint64_t generation)
{
        struct fleet *f = arg;

        (void) generation;
        for (struct unit *u = f->units; u; u = u->next)
                if (str_eq(kind, "slot") && u->row.slot == number && str_eq(u->row.claim, cluster))
                        u->claimed = true;
        return 0;
}

static bool monitor_lives(const struct unit *u)
{
        AUTO(fd) int fd = proc_open(&u->row.monitor);

        return fd >= 0;
}

/* An undo gives the slot's claim back last of all, and then the row says so; when we were killed
 * in between, the slot may be somebody else's by now and must not be undone once more. */
static void drop_stale_slots(struct fleet *f)
{
        (void) claim_each(f->spec.host->claims, on_slot, f);
        for (struct unit *u = f->units; u; u = u->next)
                if (u->row.slot != 0 && !u->claimed && !monitor_lives(u))
                        holds_nothing(u);
}

/* Whether a disk file belongs to the boot that a row describes. */
static bool disk_wanted(const struct fleet *f, const char *file)
{
        char name[64];

        for (const struct unit *u = f->units; u; u = u->next) {
                boot_disk_name(u->row.cluster, u->row.attempt, name);
                if (u->row.slot != 0 && str_eq(name, file))
                        return true;
        }
        return str_eq(file, "masters"); /* formatted templates, see disk.h */
}

/* "c-<cluster>-<attempt>.sock" of a boot that is held, or not one of the operations' sockets. */
static bool socket_wanted(const struct fleet *f, const char *file)
{
        char name[64];

        if (str_after(file, "k-"))
                return kept_wanted(f, file);
        if (!str_after(file, "c-") && !str_after(file, "x-"))
                return true;
        for (const struct unit *u = f->units; u; u = u->next) {
                boot_socket_name(u->row.cluster, u->row.attempt, name);
                if (u->row.slot != 0 && str_eq(name, file))
                        return true;
        }
        return false;
}

struct sweep {
        struct fleet *f;
        struct strbuf names; /* "<slot> <claim>\n" of what nobody owns */
};

static int on_claim(void *arg, const char *kind, uint32_t number, const char *cluster,
                    uint64_t generation)
{
        struct sweep *s = arg;

        (void) generation;
        for (const struct unit *u = s->f->units; u; u = u->next) {
                if (str_eq(kind, "slot") && u->row.slot == number)
                        return 0;
                if (!str_eq(kind, "slot") && str_eq(u->row.cluster, cluster) && u->row.slot != 0)
                        return 0;
                if (str_eq(kind, "gpu") && str_eq(u->row.cluster, cluster))
                        return 0; /* the row says which: unit_gpus_let_go() */
        }
        if (str_eq(kind, "port"))
                return 0; /* fleet_ports_adopt() */
        strbuf_fmt(&s->names, "%u %s\n", str_eq(kind, "slot") ? number : 0, cluster);
        return 0;
}

typedef bool wanted_fn(const struct fleet *f, const char *file);

static int sweep_files(struct fleet *f, int at, wanted_fn *wanted, struct err *e)
{
        int fd = openat(at, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
        struct dirent *de;

        if (!dir)
                return err_errno(e, -errno, "look for left-over files");
        while ((de = readdir(dir)) != NULL)
                if (de->d_name[0] != '.' && !wanted(f, de->d_name))
                        (void) unlinkat(at, de->d_name, 0);
        (void) closedir(dir);
        return 0;
}

/* Of a boot that never came as far as its row, or of a check that was over: not those that a row of the
 * same cluster still names. */
static void sweep_gpus(struct fleet *f, const char *cluster)
{
        const struct unit *u = unit_find(f, cluster);
        struct err e = { 0 };

        if ((!u || !u->row.gpus) &&
            claim_gpus_drop(f->spec.host->claims, cluster, UINT64_MAX, NULL, &e) < 0)
                log_warn("%s", e.msg);
}

/* Slots that a pool or a half-begun boot left: undo by name, as everything else. */
static void sweep_claims(struct fleet *f)
{
        struct sweep s = { .f = f };
        AUTO(free) char *list = NULL;
        char *save = NULL;

        (void) claim_each(f->spec.host->claims, on_claim, &s);
        list = strbuf_take(&s.names);
        for (char *line = list ? strtok_r(list, "\n", &save) : NULL; line;
             line = strtok_r(NULL, "\n", &save)) {
                char *space = strchr(line, ' ');
                struct err e = { 0 };
                struct boot b;
                uint64_t slot = 0;

                if (!space)
                        continue;
                *space = '\0';
                (void) str_u64(line, 0, UINT32_MAX, &slot);
                boot_init(&b, f->spec.host);
                b.slot = (uint32_t) slot;
                (void) snprintf(b.claim, sizeof b.claim, "%s", space + 1);
                b.plan.cluster = b.claim;
                if (slot == 0) {
                        (void) claim_release(f->spec.host->claims, b.claim, UINT64_MAX, &e);
                        sweep_gpus(f, b.claim);
                } else if (boot_undo(&b, false, false, &e) < 0)
                        log_warn("left-over slot %u: %s", b.slot, e.msg);
        }
}

/* Clusters of an engine that did not number accounts yet. */
static void number_accounts(struct fleet *f)
{
        for (struct unit *u = f->units; u; u = u->next)
                if (u->row.slot != 0 && u->row.net_account == 0) {
                        unit_net_begin(u);
                        (void) unit_save(u, false);
                }
}

int fleet_adopt(struct fleet *f, struct err *e)
{
        int r = journal_each(f->spec.journal, on_row, f, e);

        if (r < 0)
                return r;
        if (journal_rebooted(f->spec.journal))
                for (struct unit *u = f->units; u; u = u->next)
                        holds_nothing(u);
        drop_stale_slots(f);
        sweep_claims(f);
        fleet_ports_adopt(f, monitor_lives);
        for (struct unit *u = f->units; u; u = u->next)
                unit_gpus_let_go(u);
        number_accounts(f);
        kept_adopt(f);
        r = sweep_files(f, f->spec.host->disks, disk_wanted, e);
        if (r >= 0)
                r = sweep_files(f, f->spec.host->inst->run_fd, socket_wanted, e);
        if (r < 0)
                return r;
        for (struct unit *u = f->units; u; u = u->next)
                adopt(u);
        fleet_look_for_damage(f);
        return 0;
}
