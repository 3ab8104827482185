/* journal.h - what the engine has begun, so that it can be finished or undone after any crash.
 *
 * One SQLite file, DIR/journal.db, written by the engine process alone.  One row per cluster: the
 * plan as it came, what is wanted, the state, and every name that this boot uses on the host.
 * Intent first: a row is saved before the operation it describes is forked.  Undo works from the
 * row alone.  Writes take 0.07 ms, or 0.4 ms when durable (survive power loss, not only kill -9). */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/proc.h"
#include "engine/instance.h"
#include "model/cluster.h"

struct journal;

int journal_open(const struct instance *inst, struct journal **ret, struct err *e);
struct journal *journal_close(struct journal *j);
DEFINE_AUTO(struct journal *, journal_close)

/* Keep room for it on the disk (base/dbspace.h); now and then.  Warns when there is none. */
void journal_tend(struct journal *j);

/* Grows by one with every journal_open(); goes into the node protocol's `epoch`. */
uint64_t journal_epoch(const struct journal *j);
/* The machine was booted since the journal was last open: nothing that it describes runs. */
bool journal_rebooted(const struct journal *j);

struct journal_row {
        char cluster[16];
        uint64_t generation; /* of `plan`, which is what runs or is being built or undone */
        char *plan;          /* JSON text, as it came */
        char *image_digest;  /* image.use of what it runs from, once resolved */
        enum cluster_state state;
        char reason[512];
        /* what the control plane wants; plan only when it differs from the one above */
        uint64_t want_generation;
        bool want_running, want_gone;
        char *want_plan;
        /* names of the present boot; slot 0: nothing is held */
        uint64_t attempt; /* grows with every boot of this cluster, for file names */
        uint32_t slot;
        uint32_t net_account; /* number of its account in this host's firewall, 0: none */
        char claim[32];       /* holder's name of the slot claim */
        char *ports; /* the host's that are its own, as model/published.h has them; NULL: none.  Kept from
                      * boot to boot of one generation, and until it holds nothing else */
        char *ssh_keys; /* of its account, lines as vmm-ssh has them; NULL: not ours to say */
        struct proc_id monitor, init; /* pid 0: none yet */
        uint64_t started_us;          /* wall clock */
        bool ready;                   /* all that it declares has answered since then */
        uint32_t restarts;            /* in a row, for the back-off */
        int32_t exit_code;            /* of the last run */
        uint64_t oom_kills;           /* of the last run */
        /* JSON text of engine/gpu/handover.h, NULL: none.  Like the slot, what `gpus` names is held
         * until it was checked, also when everything else of the boot is undone. */
        char *gpus;         /* GPUs that it was given, as they were then */
        char *gpu_receipts; /* what the last checks found */
};

void journal_row_done(struct journal_row *r);

/* Insert or replace.  @durable for rows that decide about volumes, leases and exits. */
int journal_save(struct journal *j, const struct journal_row *r, bool durable, struct err *e);
int journal_forget(struct journal *j, const char *cluster, struct err *e);

/* Every row, oldest first; the callback owns nothing and may not call the journal. */
typedef int journal_each_fn(void *arg, const struct journal_row *r, struct err *e);
int journal_each(struct journal *j, journal_each_fn *fn, void *arg, struct err *e);
