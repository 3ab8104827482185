/* claim_port.c - see claim.h: TCP ports of this machine, each lent to one cluster of all engines on it.
 * The engine process.  Always holds: no number has two holders, since a claim is a file that only one
 * can make. */
#include <assert.h>
#include <errno.h>

#include "base/fd.h"
#include "engine/claim/claim_priv.h"
#include "model/limits.h"

struct choice {
        struct claim_table *t;
        const struct claim_rec *rec;
        uint32_t first, last, next; /* all below `next` are taken, or not to be had */
        claim_port_taken_fn *taken;
        void *arg;
};

static bool is_free(const struct choice *c, uint32_t n)
{
        return c->t->cell[n].holder == 0;
}

/* 0: it is ours now; -EEXIST: it is not, and not for us. */
static int take(struct choice *c, uint32_t n)
{
        if (c->taken(c->arg, (uint16_t) n))
                return -EEXIST;
        return claim_table_take(c->t, n, c->rec, false);
}

/* The lowest that has rested. */
static int take_rested(struct choice *c, uint64_t now_us, uint32_t *ret)
{
        for (; c->next <= c->last; c->next++) {
                const struct claim_cell *cell = &c->t->cell[c->next];
                int r;

                if (!is_free(c, c->next) ||
                    (cell->released_us != 0 && cell->released_us + CLAIM_QUARANTINE_US > now_us))
                        continue;
                r = take(c, c->next);
                if (r == -EEXIST)
                        continue;
                if (r >= 0)
                        *ret = c->next++;
                return r;
        }
        return -ENOSPC;
}

/* The one that has rested longest: each that is not to be had after all is passed over. */
static int take_resting(struct choice *c, uint32_t *ret)
{
        uint64_t after_us = 0;
        uint32_t after = 0;

        for (;;) {
                const struct claim_cell *cell = c->t->cell;
                uint32_t best = 0;
                int r;

                for (uint32_t n = c->first; n <= c->last; n++) {
                        uint64_t us = cell[n].released_us;

                        if (is_free(c, n) && (us > after_us || (us == after_us && n > after)) &&
                            (best == 0 || us < cell[best].released_us))
                                best = n;
                }
                if (best == 0)
                        return -ENOSPC;
                after_us = cell[best].released_us;
                after = best;
                r = take(c, best);
                if (r == -EEXIST)
                        continue;
                if (r >= 0)
                        *ret = best;
                return r;
        }
}

/* 1: newly taken, 0: the cluster had it; *@port becomes 0 when somebody else has it. */
static int take_wanted(struct choice *c, uint16_t *port)
{
        struct claim_rec have;
        int r = *port < c->first || *port > c->last ? -ENOENT
                                                    : claim_table_take(c->t, *port, c->rec, false);

        if (r >= 0)
                return 1;
        if (r != -ENOENT && r != -EEXIST)
                return r;
        if (r == -ENOENT || claim_table_read(c->t, *port, &have) < 0 ||
            !claim_rec_same(&have, c->rec))
                *port = 0;
        return 0;
}

/* 1: newly taken */
static int take_any(struct choice *c, uint64_t now_us, uint16_t *port)
{
        uint32_t n = 0;
        int r = take_rested(c, now_us, &n);

        if (r == -ENOSPC)
                r = take_resting(c, &n);
        if (r < 0)
                return r;
        *port = (uint16_t) n;
        return 1;
}

int claim_ports(struct claim_host *h, const char *cluster, uint64_t generation, uint16_t first,
                uint16_t last, claim_port_taken_fn *taken, void *arg, uint16_t *ports, size_t n,
                struct err *e)
{
        uint16_t fresh[LIMIT_PORTS];
        struct claim_rec rec;
        struct choice c = { .t = &h->table[CLAIM_KIND_PORT],
                            .rec = &rec,
                            .first = first,
                            .last = last,
                            .next = first,
                            .taken = taken,
                            .arg = arg };
        AUTO(fd) int lock = -EBADF;
        size_t n_fresh = 0;
        int r = claim_rec_make(h, cluster, generation, &rec, e);

        if (r < 0)
                return r;
        if (n > NELEM(fresh))
                return err_set(e, -EINVAL, "%zu ports: at most %u", n, LIMIT_PORTS);
        lock = claim_lock(h, e);
        if (lock < 0)
                return lock;
        /* wishes first, or one of them might go to another port of the cluster's */
        for (size_t i = 0; r >= 0 && i < n; i++)
                if (ports[i] != 0 && (r = take_wanted(&c, &ports[i])) == 1)
                        fresh[n_fresh++] = ports[i];
        for (size_t i = 0; r >= 0 && i < n; i++)
                if (ports[i] == 0 && (r = take_any(&c, claim_now_us(), &ports[i])) == 1)
                        fresh[n_fresh++] = ports[i];
        if (r >= 0)
                return 0;
        while (n_fresh > 0)
                (void) claim_table_drop(c.t, fresh[--n_fresh], 0);
        return err_errno(e, r, "claim ports");
}

int claim_ports_keep(struct claim_host *c, const char *cluster, const uint16_t *ports, size_t n,
                     struct err *e)
{
        uint32_t kept[LIMIT_PORTS];

        assert(n <= NELEM(kept));
        for (size_t i = 0; i < n; i++)
                kept[i] = ports[i];
        return claim_keep(c, CLAIM_KIND_PORT, cluster, kept, n, e);
}
