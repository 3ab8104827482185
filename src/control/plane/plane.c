/* plane.c - see plane.h: committing, telling the node, and looking things up.  Runs in
 * tensorone-api on the loop thread.
 *
 * What always holds: a cluster with `open` transactions is not told to the node; it is told by the
 * answer of the last one.  So the node never learns what a crash could take back. */
#include "control/plane/plane.h"

#include <errno.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/jsonx.h"
#include "base/log.h"
#include "base/proc.h"
#include "base/str.h"
#include "control/plane/plane_priv.h"

/* ---- committing ---- */

struct commit {
        struct plane *plane;
        char cluster[16];
        uint64_t forget; /* generation to forget; 0: none */
        bool client;     /* somebody waits for it */
};

static void on_commit(int r, void *arg)
{
        struct commit *k = arg;
        struct plane *p = k->plane;
        struct cluster *c = map_get(p->clusters, k->cluster);

        if (k->client)
                p->open--;
        if (c && c->open > 0)
                c->open--;
        if (r >= 0 && k->forget)
                node_forget(p->node, k->cluster, k->forget);
        if (r >= 0 && c && c->open == 0 && !k->forget)
                plane_push(p, c);
        free(k);
}

static void submit(struct plane *p, struct store_txn *t, const char *cluster, uint64_t forget)
{
        struct commit *k = calloc(1, sizeof *k);

        audit_into(p, t, cluster);
        p->open++;
        if (!k) { /* memory is short: the change is made, the node hears of it when it syncs */
                p->open--;
                store_submit(p->store, t, NULL, NULL);
                return;
        }
        *k = (struct commit){ .plane = p, .forget = forget, .client = true };
        (void) snprintf(k->cluster, sizeof k->cluster, "%s", cluster);
        store_submit(p->store, t, on_commit, k);
}

void plane_commit(struct plane *p, struct store_txn *t, struct cluster *c, const char *kind)
{
        event_add(p, t, c, kind);
        store_put(t, ST_CLUSTER, cluster_to_row(c));
        c->open++;
        submit(p, t, c->id, 0);
}

struct store_txn *plane_txn(struct plane *p)
{
        (void) p;
        return store_txn_new();
}

void plane_submit(struct plane *p, struct store_txn *t)
{
        submit(p, t, "", 0);
}

void plane_abandon(struct plane *p, struct store_txn *t)
{
        (void) store_txn_free(t);
        plane_on_failure(p, "out of memory in the middle of a change");
}

void plane_remove(struct plane *p, struct cluster *c)
{
        struct store_txn *t = store_txn_new();
        char id[16];
        uint64_t generation = c->generation;

        if (!t)
                return; /* the engine repeats its report */
        (void) snprintf(id, sizeof id, "%s", c->id);
        (void) status_change_set(c, "Removed", "host", clock_wall_us());
        event_add(p, t, c, "removed");
        ledger_release(p->ledger, id, true, t);
        accounts_del_cluster_key(p->accounts, t, id);
        store_del(t, ST_CLUSTER, json_pack("{s:s}", "id", id));
        (void) cluster_free(map_del(p->clusters, id));
        submit(p, t, id, generation);
        plane_tell(p, id, NULL);
}

void plane_fence(struct plane *p, store_done_fn *done, void *arg)
{
        if (p->open == 0)
                done(0, arg);
        else
                store_fence(p->store, done, arg);
}

/* ---- the node ---- */

void plane_push(struct plane *p, const struct cluster *c)
{
        AUTO(json_put) json_t *plan = NULL, *login = NULL, *secrets = NULL;

        if (!node_connected(p->node) || p->foreign)
                return;
        if (c->desired == DESIRED_TERMINATED) {
                node_tombstone(p->node, c->id, c->generation);
                return;
        }
        plan = c->plan ? plan_with_key(p, c) : NULL;
        if (c->wants_login && c->desired == DESIRED_RUNNING)
                login = registry_login(p, c);
        if (c->wants_secrets && c->desired == DESIRED_RUNNING)
                secrets = secrets_answer(p, c);
        if (plan)
                node_assign(p->node, c->id, c->generation, c->desired == DESIRED_RUNNING, plan,
                            login, secrets, ssh_keys_of(p, c));
        else
                log_error("cluster %s: no plan to send", c->id);
}

/* Another host behind the same socket would make every reservation wrong: refuse to mix them. */
static bool same_node(struct plane *p, const char *node)
{
        if (str_empty(p->node_id) || str_eq(p->node_id, node) || map_len(p->clusters) == 0)
                return true;
        log_error(
                "the engine calls itself %s, the clusters of this store are on %s; nothing is assigned",
                node, p->node_id);
        return false;
}

static void on_hello(void *arg, const char *node, const struct node_inventory *inv,
                     const json_t *raw)
{
        struct plane *p = arg;
        struct store_txn *t = store_txn_new();
        AUTO(free) char *text = jsonx_dump(raw);
        struct node_inventory copy = { 0 };

        (void) inv;
        p->foreign = !same_node(p, node);
        if (!t || !text || p->foreign || node_inventory_decode(raw, &copy, NULL) < 0) {
                (void) store_txn_free(t);
                return;
        }
        node_inventory_done(&p->inv); /* its facts too: those of now follow at once */
        p->inv = copy;
        p->have_inv = true;
        (void) snprintf(p->node_id, sizeof p->node_id, "%s", node);
        store_put(t, ST_SETTING, json_pack("{s:s, s:s}", "name", "node.id", "value", node));
        store_put(t, ST_SETTING, json_pack("{s:s, s:s}", "name", "node.inventory", "value", text));
        store_submit(p->store, t, NULL, NULL);
}

static void on_synced(void *arg)
{
        struct plane *p = arg;

        plane_tell_all_keys(p);
        for (struct map_entry *i = map_first(p->clusters); i; i = map_next(i)) {
                const struct cluster *c = map_value(i);

                if (c->open == 0)
                        plane_push(p, c);
        }
        p->synced(p->conf_arg);
}

static void on_facts(void *arg, struct node_facts *f)
{
        struct plane *p = arg;

        if (p->foreign)
                return;
        node_facts_done(&p->inv.facts);
        p->inv.facts = *f;
        *f = (struct node_facts){ 0 };
        if (p->inv.facts.disk_gib)
                p->inv.disk_gib = p->inv.facts.disk_gib;
        if (str_empty(p->inv.facts.disk_full)) {
                free(p->inv.facts.disk_full);
                p->inv.facts.disk_full = NULL;
        }
}

/* But for the states and what is written beside them. */
static bool same_hardware(const struct gpu_fleet *a, const struct gpu_fleet *b)
{
        if (a->n != b->n || a->n_partitions != b->n_partitions || a->n == 0)
                return false;
        for (size_t i = 0; i < a->n; i++) {
                const struct gpu *x = &a->gpus[i], *y = &b->gpus[i];

                if (!str_eq(x->uuid, y->uuid) || !str_eq(x->name, y->name) ||
                    !str_eq(x->mig_profile, y->mig_profile) || !str_eq(x->parent, y->parent) ||
                    x->mig_mode != y->mig_mode || x->numa_node != y->numa_node || x->gi != y->gi ||
                    x->ci != y->ci || x->memory_mib != y->memory_mib)
                        return false;
        }
        return memcmp(a->links, b->links, a->n * a->n * sizeof *a->links) == 0 &&
               memcmp(a->partitions, b->partitions, a->n_partitions * sizeof *a->partitions) == 0;
}

/* A slip of the pen would give GPUs away. */
static void complain_of_prices(const struct gpu_types *types, const struct node_gpus *g)
{
        for (size_t i = 0; types->n > 0 && i < g->n_prices; i++)
                if (!gpu_types_match(types, g->prices[i].type))
                        log_warn(
                                "[gpu \"%s\"]: the host has no GPU of that type; its price is not used",
                                g->prices[i].type);
}

int plane_set_gpus(struct plane *p, struct node_gpus *g)
{
        AUTO(gpu_chooser_free) struct gpu_chooser *chooser = NULL;
        struct gpu_types types = { 0 };

        if (!p->chooser || !same_hardware(&p->gpus.fleet, &g->fleet)) {
                if (gpu_types_init(&g->fleet, &types, NULL) < 0)
                        return -ENOMEM;
                if (gpu_chooser_new(&g->fleet, &types, &chooser, NULL) < 0) {
                        gpu_types_done(&types);
                        return -ENOMEM;
                }
                gpu_types_done(&p->gpu_types);
                (void) gpu_chooser_free(p->chooser);
                p->gpu_types = types;
                complain_of_prices(&types, g);
                p->chooser = TAKE(chooser);
        }
        node_gpus_done(&p->gpus);
        p->gpus = *g;
        *g = (struct node_gpus){ 0 };
        return 0;
}

static void on_gpus(void *arg, struct node_gpus *g)
{
        struct plane *p = arg;
        AUTO(json_put) json_t *j = p->foreign ? NULL : node_gpus_encode(g);
        AUTO(free) char *text = j ? jsonx_dump(j) : NULL;
        struct store_txn *t = text ? store_txn_new() : NULL;

        if (!t || plane_set_gpus(p, g) < 0) {
                (void) store_txn_free(t);
                return; /* a foreign host; or memory is short, it is sent again on the next connection */
        }
        store_put(t, ST_SETTING, json_pack("{s:s, s:s}", "name", "node.gpus", "value", text));
        store_submit(p->store, t, NULL, NULL);
}

static void on_report(void *arg, const struct node_report *r)
{
        if (!((struct plane *) arg)->foreign)
                report_apply(arg, r);
}

static void on_inner(void *arg, int fd)
{
        struct plane *p = arg;

        p->inner(p->conf_arg, fd);
}

static void on_lost(void *arg)
{
        (void) arg; /* what we know stays true until the engine says otherwise */
}

static void on_telemetry(void *arg, struct gpu_telemetry *t, size_t n)
{
        telemetry_take(arg, t, n);
}

static void on_event(void *arg, const struct node_event *n)
{
        if (!((struct plane *) arg)->foreign)
                event_of_gpu(arg, n);
}

static void on_security(void *arg, const struct node_security *n)
{
        if (!((struct plane *) arg)->foreign)
                audit_of_node(arg, n);
}

static const struct node_ops node_ops = { .hello = on_hello,
                                          .facts = on_facts,
                                          .gpus = on_gpus,
                                          .telemetry = on_telemetry,
                                          .event = on_event,
                                          .security = on_security,
                                          .report = on_report,
                                          .synced = on_synced,
                                          .inner = on_inner,
                                          .lost = on_lost };

/* ---- alarms ---- */

static int on_alarm(sd_event_source *s, uint64_t usec, void *arg)
{
        struct plane *p = arg;
        uint64_t now = clock_wall_us();

        (void) s;
        (void) usec;
        for (struct map_entry *i = map_first(p->clusters); i && !p->broken; i = map_next(i)) {
                struct cluster *c = map_value(i);

                if (c->desired == DESIRED_TERMINATED)
                        continue;
                if (c->terminate_after_us && c->terminate_after_us <= now)
                        cluster_do_terminate(p, c, "terminateAfter");
                else if (c->stop_after_us && c->stop_after_us <= now)
                        cluster_do_stop(p, c, "Exited", "stopAfter");
        }
        plane_set_alarm(p);
        return 0;
}

void plane_set_alarm(struct plane *p)
{
        uint64_t next = 0;

        for (struct map_entry *i = map_first(p->clusters); i; i = map_next(i)) {
                const struct cluster *c = map_value(i);
                const uint64_t at[] = { c->stop_after_us, c->terminate_after_us };

                for (size_t k = 0; k < NELEM(at) && c->desired != DESIRED_TERMINATED; k++)
                        if (at[k] && (!next || at[k] < next))
                                next = at[k];
        }
        (void) sd_event_source_set_time(p->alarm, next);
        (void) sd_event_source_set_enabled(p->alarm, next ? SD_EVENT_ONESHOT : SD_EVENT_OFF);
}

/* ---- making and ending ---- */

int plane_new(const struct plane_conf *conf, struct plane **ret, struct err *e)
{
        AUTO(plane_free) struct plane *p = calloc(1, sizeof *p);
        int r;

        if (!p)
                return err_set(e, -ENOMEM, "out of memory");
        p->loop = conf->loop;
        p->inner = conf->inner;
        p->synced = conf->synced;
        p->conf_arg = conf->arg;
        p->audit_keep_us = conf->audit_keep_us ? conf->audit_keep_us : AUDIT_KEEP_PRESET_US;
        p->cluster_domain = str_dup(conf->cluster_domain);
        if (conf->cluster_domain && !p->cluster_domain)
                return err_set(e, -ENOMEM, "out of memory");
        r = store_sqlite_open(conf->data_dir, conf->loop, &p->store, e);
        if (r >= 0)
                r = accounts_open(p->store, conf->data_dir, &p->accounts, e);
        if (r >= 0)
                r = sealer_new(conf->seal_fd, &p->sealer, e);
        if (r >= 0)
                r = plane_load(p, e);
        if (r < 0)
                return r;
        registry_auths_probe(p);
        secrets_probe(p);
        r = sd_event_add_time(conf->loop, &p->alarm, CLOCK_REALTIME, 0, US_PER_MS, on_alarm, p);
        if (r < 0)
                return err_errno(e, r, "timer");
        r = plane_repeat_init(p, e);
        if (r >= 0)
                r = listen_init(p, e);
        if (r < 0)
                return r;
        store_on_failure(p->store, plane_on_failure, p);
        plane_drop_orphans(p);
        plane_set_alarm(p);
        r = node_new(conf->loop, conf->node_path, &node_ops, p, &p->node, e);
        if (r < 0)
                return r;
        *ret = TAKE(p);
        return 0;
}

struct plane *plane_free(struct plane *p)
{
        if (!p)
                return NULL;
        p->store = store_close(p->store); /* its last answers look at memory and at the node */
        p->node = node_free(p->node);
        plane_unload(p);
        while (p->watches)
                (void) plane_watch_free(p->watches);
        p->alarm = sd_event_source_disable_unref(p->alarm);
        p->repeat = sd_event_source_disable_unref(p->repeat);
        p->news = sd_event_source_disable_unref(p->news);
        p->accounts = accounts_free(p->accounts);
        p->sealer = sealer_free(p->sealer);
        node_inventory_done(&p->inv);
        node_gpus_done(&p->gpus);
        gpu_types_done(&p->gpu_types);
        p->chooser = gpu_chooser_free(p->chooser);
        free(p->cluster_domain);
        free(p->telemetry);
        free(p);
        return NULL;
}

struct accounts *plane_accounts(const struct plane *p)
{
        return p->accounts;
}

struct node *plane_node(const struct plane *p)
{
        return p->node;
}

sd_event *plane_loop(const struct plane *p)
{
        return p->loop;
}

const char *plane_cluster_domain(const struct plane *p)
{
        return p->cluster_domain;
}

bool plane_healthy(const struct plane *p, const char **ret_why)
{
        *ret_why = p->broken                 ? "the store cannot be read"
                   : node_connected(p->node) ? NULL
                                             : "the engine is not connected";
        return !*ret_why;
}

int plane_set_gpu_type(const struct plane *p, struct cluster *c, char *const *gpus)
{
        const struct gpu_fleet *f = &p->gpus.fleet;
        const struct gpu *g = gpus && *gpus ? gpu_fleet_find(f, *gpus) : NULL;
        const struct gpu_type *t = g ? gpu_types_of(&p->gpu_types, (size_t) (g - f->gpus)) : NULL;

        return t ? text_set(&c->gpu_type, t->id) : 0;
}

struct ledger_host plane_ledger_host(const struct plane *p)
{
        return (struct ledger_host){ .inv = &p->inv,
                                     .gpus = &p->gpus.fleet,
                                     .gpu_types = &p->gpu_types,
                                     .chooser = p->chooser };
}

void plane_host(const struct plane *p, struct plane_host *ret)
{
        struct ledger_host h = plane_ledger_host(p);
        AUTO(free) bool *taken = NULL;
        struct place_node n;

        *ret = (struct plane_host){ .known = p->have_inv, .id = p->node_id };
        taken = p->have_inv ? calloc(strv_len(p->inv.cpus) + 1, sizeof *taken) : NULL;
        if (!taken) {
                ret->known = false;
                return;
        }
        ledger_taken(p->ledger, &h, NULL, taken, &n);
        ret->inv = &p->inv;
        ret->vcpu_total = (uint64_t) ((double) n.n_cpus * p->inv.cpu_overcommit);
        ret->vcpu_taken = n.vcpu_taken;
        ret->memory_mib = (uint64_t) ((double) n.memory_mib * p->inv.memory_overcommit);
        ret->memory_taken_mib = n.memory_taken_mib;
        ret->disk_gib = (uint64_t) ((double) n.disk_gib * p->inv.disk_overcommit);
        ret->disk_taken_gib = n.disk_taken_gib;
        ret->gpus = n.n_gpus;
        ret->gpus_taken = n.gpus_taken;
}

const struct gpu_fleet *plane_gpus(const struct plane *p)
{
        return &p->gpus.fleet;
}

const struct gpu_types *plane_gpu_types(const struct plane *p)
{
        return &p->gpu_types;
}

const struct gpu_chooser *plane_gpu_chooser(const struct plane *p)
{
        return p->chooser;
}

const struct node_price *plane_gpu_price(const struct plane *p, const char *type)
{
        const struct gpu_type *t = gpu_types_find(&p->gpu_types, type);

        for (size_t i = 0; i < p->gpus.n_prices; i++)
                if (str_eq(p->gpus.prices[i].type, type))
                        return &p->gpus.prices[i];
        for (size_t i = 0; t && i < p->gpus.n_prices; i++)
                if (gpu_type_matches(t, p->gpus.prices[i].type))
                        return &p->gpus.prices[i];
        return NULL;
}

const char *plane_gpu_holder(const struct plane *p, const char *uuid)
{
        return ledger_holder(p->ledger, p->node_id, RK_GPU, uuid);
}

/* ---- looking up ---- */

static bool may_see(const struct caller *who, const struct cluster *c)
{
        if (c->desired == DESIRED_TERMINATED || who->right == KEY_NONE)
                return false;
        if (!str_eq(c->account, who->account))
                return false;
        return who->right != KEY_CLUSTER || str_eq(c->id, who->cluster);
}

struct cluster *plane_find(const struct plane *p, const struct caller *who, const char *id)
{
        struct cluster *c = map_get(p->clusters, id);

        return c && may_see(who, c) ? c : NULL;
}

const struct cluster *plane_cluster(const struct plane *p, const struct caller *who, const char *id)
{
        return plane_find(p, who, id);
}

int plane_clusters(const struct plane *p, const struct caller *who,
                   int (*fn)(void *arg, const struct cluster *c), void *arg)
{
        for (struct map_entry *i = map_first(p->clusters); i; i = map_next(i)) {
                const struct cluster *c = map_value(i);
                int r = may_see(who, c) ? fn(arg, c) : 0;

                if (r < 0)
                        return r;
        }
        return 0;
}

int plane_all_clusters(const struct plane *p, int (*fn)(void *arg, const struct cluster *c),
                       void *arg)
{
        for (struct map_entry *i = map_first(p->clusters); i; i = map_next(i)) {
                int r = fn(arg, map_value(i));

                if (r < 0)
                        return r;
        }
        return 0;
}

const char *cluster_status(const struct cluster *c)
{
        return c->desired == DESIRED_RUNNING   ? "RUNNING"
               : c->desired == DESIRED_STOPPED ? "EXITED"
                                               : "TERMINATED";
}

const char *cluster_phase(const struct cluster *c)
{
        return c->state == CS_RUNNING && c->ready ? "ready" : cluster_state_name(c->state);
}

bool cluster_runs(const struct cluster *c)
{
        return c->desired == DESIRED_RUNNING && cluster_has_runtime(c->state);
}

/* ---- watching ---- */

int plane_watch_new(struct plane *p, const char *id, void (*fn)(void *arg, const struct cluster *c),
                    void *arg, struct plane_watch **ret)
{
        struct plane_watch *w = calloc(1, sizeof *w);

        if (w)
                w->id = strdup(id);
        if (!w || !w->id) {
                free(w);
                return -ENOMEM;
        }
        w->plane = p;
        w->fn = fn;
        w->arg = arg;
        w->next = p->watches;
        if (w->next)
                w->next->prev = w;
        p->watches = w;
        *ret = w;
        return 0;
}

struct plane_watch *plane_watch_free(struct plane_watch *w)
{
        if (!w)
                return NULL;
        if (w->prev)
                w->prev->next = w->next;
        else
                w->plane->watches = w->next;
        if (w->next)
                w->next->prev = w->prev;
        free(w->id);
        free(w);
        return NULL;
}

void plane_tell(struct plane *p, const char *id, const struct cluster *c)
{
        for (struct plane_watch *w = p->watches, *next; w; w = next) {
                next = w->next;
                if (str_eq(w->id, id))
                        w->fn(w->arg, c);
        }
}
