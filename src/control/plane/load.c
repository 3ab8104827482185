/* load.c - everything from the store into memory: at the start, and again when the store took a
 * change back.  tensorone-api, loop thread; blocks while it reads. */
#include <errno.h>
#include <stdio.h>

#include "base/jsonx.h"
#include "base/log.h"
#include "base/str.h"
#include "control/plane/plane_priv.h"

/* Clusters while they are read: the table comes in order of ids, people want the oldest first. */
struct pile {
        struct cluster **c;
        size_t n, cap;
};

static int keep_cluster(void *arg, const json_t *row, struct err *e)
{
        struct pile *pile = arg;

        if (pile->n == pile->cap) {
                size_t cap = pile->cap ? pile->cap * 2 : 64;
                struct cluster **more = reallocarray(pile->c, cap, sizeof *more);

                if (!more)
                        return err_set(e, -ENOMEM, "out of memory");
                pile->c = more;
                pile->cap = cap;
        }
        pile->c[pile->n] = NULL;
        if (cluster_from_row(row, &pile->c[pile->n], e) < 0)
                return -EINVAL;
        pile->n++;
        return 0;
}

static int by_age(const void *a, const void *b)
{
        const struct cluster *x = *(struct cluster *const *) a, *y = *(struct cluster *const *) b;

        return x->created_us < y->created_us ? -1 : x->created_us > y->created_us;
}

static int load_clusters(struct plane *p, struct err *e)
{
        struct pile pile = { 0 };
        int r = store_load(p->store, ST_CLUSTER, keep_cluster, &pile, e);

        if (pile.n > 0)
                qsort(pile.c, pile.n, sizeof *pile.c, by_age);
        for (size_t i = 0; i < pile.n; i++) {
                if (r >= 0 && map_set(p->clusters, pile.c[i]->id, pile.c[i]) < 0)
                        r = err_set(e, -ENOMEM, "out of memory");
                if (r < 0)
                        (void) cluster_free(pile.c[i]);
        }
        free(pile.c);
        return r;
}

static int keep_template(void *arg, const json_t *row, struct err *e)
{
        struct plane *p = arg;
        AUTO(template_free) struct template *t = NULL;
        int r = template_from_row(row, &t, e);

        if (r >= 0)
                r = map_set(p->templates, t->id, t);
        if (r >= 0)
                t = NULL;
        return r;
}

static int keep_registry_auth(void *arg, const json_t *row, struct err *e)
{
        struct plane *p = arg;
        AUTO(registry_auth_free) struct registry_auth *a = NULL;
        int r = registry_auth_from_row(row, &a, e);

        if (r >= 0)
                r = map_set(p->registry_auths, a->id, a);
        if (r >= 0)
                a = NULL;
        return r;
}

static int keep_secret(void *arg, const json_t *row, struct err *e)
{
        struct plane *p = arg;
        AUTO(secret_free) struct secret *s = NULL;
        int r = secret_from_row(row, &s, e);

        if (r >= 0)
                r = map_set(p->secrets, s->id, s);
        if (r >= 0)
                s = NULL;
        return r;
}

static int keep_reservation(void *arg, const json_t *row, struct err *e)
{
        return ledger_add_row(((struct plane *) arg)->ledger, row, e);
}

/* The last word about the GPUs; what the engine says replaces it. */
static void keep_gpus(struct plane *p, const char *text)
{
        AUTO(json_put) json_t *j = jsonx_parse(text, strlen(text), NULL);
        struct node_gpus g = { 0 };
        struct err e = { 0 };

        if (!j || p->gpus.fleet.gpus)
                return; /* what is in memory is as new */
        if (node_gpus_decode(j, &g, &e) < 0 || plane_set_gpus(p, &g) < 0)
                log_warn("store: %s; waiting for the engine to name its GPUs", e.msg);
        node_gpus_done(&g);
}

static int keep_setting(void *arg, const json_t *row, struct err *e)
{
        struct plane *p = arg;
        const char *name = jsonx_str(row, "name"), *value = jsonx_str(row, "value");

        if (str_eq(name, "node.id") && value)
                (void) snprintf(p->node_id, sizeof p->node_id, "%s", value);
        if (str_eq(name, "node.inventory") && value && !p->have_inv) {
                AUTO(json_put) json_t *j = jsonx_parse(value, strlen(value), e);
                int r = j ? node_inventory_decode(j, &p->inv, e) : -EINVAL;

                if (r < 0)
                        return r;
                p->have_inv = true;
        }
        if (str_eq(name, "node.gpus") && value)
                keep_gpus(p, value);
        return 0;
}

static int keep_event(void *arg, const json_t *row, struct err *e)
{
        (void) e;
        return event_keep(arg, row);
}

static int keep_audit(void *arg, const json_t *row, struct err *e)
{
        (void) e;
        return audit_keep(arg, row);
}

static bool is_known(void *arg, const char *cluster)
{
        return map_get(((struct plane *) arg)->clusters, cluster) != NULL;
}

void plane_unload(struct plane *p)
{
        for (struct map_entry *i = p->clusters ? map_first(p->clusters) : NULL; i; i = map_next(i))
                (void) cluster_free(map_value(i));
        for (struct map_entry *i = p->templates ? map_first(p->templates) : NULL; i;
             i = map_next(i))
                (void) template_free(map_value(i));
        for (struct map_entry *i = p->registry_auths ? map_first(p->registry_auths) : NULL; i;
             i = map_next(i))
                (void) registry_auth_free(map_value(i));
        for (struct map_entry *i = p->secrets ? map_first(p->secrets) : NULL; i; i = map_next(i))
                (void) secret_free(map_value(i));
        p->clusters = map_free(p->clusters);
        p->templates = map_free(p->templates);
        p->registry_auths = map_free(p->registry_auths);
        p->secrets = map_free(p->secrets);
        p->ledger = ledger_free(p->ledger);
        events_free(p);
        audit_done(p);
}

int plane_load(struct plane *p, struct err *e)
{
        AUTO(map_free)
        struct map *clusters = map_new(), *templates = map_new(), *registry_auths = map_new(),
                   *secrets = map_new();
        AUTO(ledger_free) struct ledger *ledger = ledger_new();
        int r;

        if (!clusters || !templates || !registry_auths || !secrets || !ledger)
                return err_set(e, -ENOMEM, "out of memory"); /* what is there stays */
        plane_unload(p);
        p->clusters = TAKE(clusters);
        p->templates = TAKE(templates);
        p->registry_auths = TAKE(registry_auths);
        p->secrets = TAKE(secrets);
        p->ledger = TAKE(ledger);
        if (audit_init(p) < 0)
                return err_set(e, -ENOMEM, "out of memory");
        r = store_load(p->store, ST_SETTING, keep_setting, p, e);
        if (r >= 0)
                r = load_clusters(p, e);
        if (r >= 0)
                r = store_load(p->store, ST_TEMPLATE, keep_template, p, e);
        if (r >= 0)
                r = store_load(p->store, ST_REGISTRY_AUTH, keep_registry_auth, p, e);
        if (r >= 0)
                r = store_load(p->store, ST_SECRET, keep_secret, p, e);
        if (r >= 0)
                r = store_load(p->store, ST_RESERVATION, keep_reservation, p, e);
        if (r >= 0)
                r = store_load(p->store, ST_EVENT, keep_event, p, e);
        if (r >= 0)
                r = store_load(p->store, ST_AUDIT, keep_audit, p, e);
        if (r >= 0)
                r = templates_add_builtin(p);
        return r;
}

void plane_drop_orphans(struct plane *p)
{
        struct store_txn *t = store_txn_new();
        size_t n = t ? ledger_drop_orphans(p->ledger, is_known, p, t) : 0;

        if (n)
                log_warn("store: %zu reservations belong to no cluster; freed", n);
        if (n)
                store_submit(p->store, t, NULL, NULL);
        else
                (void) store_txn_free(t);
}

/* The store took something back: memory becomes what the disk says. */
void plane_on_failure(void *arg, const char *why)
{
        struct plane *p = arg;
        struct err e = { 0 };
        int r;

        log_error("%s; loading everything again", why);
        audit_hold(p);
        r = plane_load(p, &e);
        if (r >= 0)
                r = accounts_reload(p->accounts, &e);
        p->broken = r < 0;
        if (r < 0) {
                p->why = e;
                log_error("the store cannot be read: %s; nothing is changed until a restart",
                          e.msg);
        }
        plane_set_alarm(p);
        plane_tell_all_keys(p);
        for (struct plane_watch *w = p->watches, *next; w; w = next) {
                next = w->next;
                w->fn(w->arg, map_get(p->clusters, w->id));
        }
}

int plane_writable(const struct plane *p, struct err *e)
{
        return p->broken ? err_set(e, -EIO, "the store cannot be read: %s", p->why.msg) : 0;
}
