/* audit.c - who did what, and what the hosts found: events that are kept for a time rather than in a
 * ring.  tensorone-api, loop thread.
 *
 * Theory of operation.  Rows lie in the table `audit` and in memory, in one list by time.  Each also
 * belongs to a trail: of one account the changes (with sessions), the uses of its keys, or what its
 * clusters did.  A trail holds at most TRAIL_MAX rows, and where all of them together are more than
 * AUDIT_MAX, the longest one gives its oldest row up.  So whoever makes many rows loses his own, of the
 * same sort, and nobody else's.
 *
 * The row of a change is written in the change's own transaction: a `struct audit` is entered around the
 * code that makes it, and the first transaction that is submitted meanwhile takes the row with it.  What
 * submits none (a refusal, a session) has a transaction to itself.
 *
 * What always holds: in the list times only rise; texts have no value of a secret, because no message
 * that a caller is answered with has one. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/jsonx.h"
#include "base/log.h"
#include "base/str.h"
#include "control/plane/plane_priv.h"

#define AUDIT_MAX     100000U
#define TRAIL_MAX     10000U
#define TEND_AT_ONCE  64U             /* rows given up with one that is written */
#define AGAIN_US      (60 * US_PER_S) /* the same refusal, the same find within so long is one */
#define AGAIN_ROWS    64U             /* ... and is looked for among so many */
#define REFUSED_MAX   60U             /* of an account told in that time, among as many */
#define HOLD_US       (60 * US_PER_S) /* after a failure of the store */
#define HOUR_US       (3600 * US_PER_S)
#define ADDRESSES_MAX 64U   /* of one key, told in one hour */
#define USES_MAX      8192U /* of all keys */

struct audit_row {
        struct audit_row *older, *newer; /* of all */
        struct audit_row *next;          /* the next newer one of its trail */
        struct audit_row *before;        /* the next older one of its trail */
        struct trail *trail;
        uint64_t seq;
        struct event_view v; /* its texts lie behind it */
        char text[];
};

struct trail {
        char *key;
        struct audit_row *oldest, *newest;
        size_t n;
};

struct audit_log {
        struct audit_row *oldest, *newest;
        size_t n;
        uint64_t seq, at_us;
        struct map *trails; /* key -> struct trail, owned */
        struct map *
                used; /* "KEY ADDRESS" and "KEY" of this hour -> how many addresses, as a pointer */
        uint64_t used_hour;
};

#define TEXTS(v)                                                                                   \
        {                                                                                          \
                &(v)->account, &(v)->cluster, &(v)->kind, &(v)->object, &(v)->text, &(v)->actor,   \
                        &(v)->operation, &(v)->outcome                                             \
        }

/* ---- the list ---- */

static struct audit_row *row_new(const struct event_view *v)
{
        struct event_view copy = *v;
        const char **texts[] = TEXTS(&copy);
        struct audit_row *r;
        size_t len = 0;
        char *at;

        for (size_t i = 0; i < NELEM(texts); i++)
                len += *texts[i] ? strlen(*texts[i]) + 1 : 0;
        r = calloc(1, sizeof *r + len);
        if (!r)
                return NULL;
        at = r->text;
        for (size_t i = 0; i < NELEM(texts); i++) {
                size_t n = *texts[i] ? strlen(*texts[i]) + 1 : 0;

                if (!n)
                        continue;
                memcpy(at, *texts[i], n);
                *texts[i] = at;
                at += n;
        }
        r->v = copy;
        return r;
}

/* "change", "key" or "security", and whose.  NULL: there is none, or with @make no memory for it. */
static struct trail *trail_of(struct audit_log *l, const struct event_view *v, bool make)
{
        const char *sort = str_after(v->kind, "security.") ? "security"
                           : str_eq(v->kind, "audit.key")  ? "key"
                                                           : "change";
        AUTO(free) char *key = str_fmt("%s %s", sort, v->account ? v->account : "");
        struct trail *t = key ? map_get(l->trails, key) : NULL;

        if (t || !key || !make)
                return t;
        t = calloc(1, sizeof *t);
        if (!t || map_set(l->trails, key, t) < 0) {
                free(t);
                return NULL;
        }
        t->key = TAKE(key);
        return t;
}

static int append(struct audit_log *l, const struct event_view *v, uint64_t seq)
{
        struct audit_row *r = row_new(v);
        struct trail *t = r ? trail_of(l, v, true) : NULL;

        if (!t) {
                free(r);
                return -ENOMEM;
        }
        r->seq = seq;
        r->trail = t;
        r->older = l->newest;
        *(l->newest ? &l->newest->newer : &l->oldest) = r;
        l->newest = r;
        l->n++;
        r->before = t->newest;
        *(t->newest ? &t->newest->next : &t->oldest) = r;
        t->newest = r;
        t->n++;
        return 0;
}

static void row_id(uint64_t seq, char ret[static 24])
{
        (void) snprintf(ret, 24, "%020llu", (unsigned long long) seq);
}

/* The oldest row of a trail, from memory and with @txn from the disk. */
static void drop(struct audit_log *l, struct store_txn *txn, struct trail *t)
{
        struct audit_row *r = t->oldest;
        char id[24];

        row_id(r->seq, id);
        if (txn)
                store_del(txn, ST_AUDIT, json_pack("{s:s}", "id", id));
        *(r->older ? &r->older->newer : &l->oldest) = r->newer;
        *(r->newer ? &r->newer->older : &l->newest) = r->older;
        l->n--;
        t->oldest = r->next;
        *(r->next ? &r->next->before : &t->newest) = NULL;
        free(r);
        if (--t->n == 0) {
                (void) map_del(l->trails, t->key);
                free(t->key);
                free(t);
        }
}

static struct trail *longest(const struct audit_log *l)
{
        struct trail *found = NULL;

        for (struct map_entry *i = map_first(l->trails); i; i = map_next(i)) {
                struct trail *t = map_value(i);

                if (!found || t->n > found->n)
                        found = t;
        }
        return found;
}

/* What is too old or too much goes with what is written. */
static void tend(struct plane *p, struct store_txn *txn)
{
        struct audit_log *l = p->audit_log;
        uint64_t now = clock_wall_us();

        for (unsigned i = 0; i < TEND_AT_ONCE && l->oldest; i++) {
                struct trail *t = l->newest->trail;

                if (l->oldest->v.at_us + p->audit_keep_us < now)
                        drop(l, txn, l->oldest->trail);
                else if (t->n > TRAIL_MAX)
                        drop(l, txn, t);
                else if (l->n > AUDIT_MAX)
                        drop(l, txn, longest(l));
                else
                        break;
        }
}

int audit_init(struct plane *p)
{
        struct audit_log *l = calloc(1, sizeof *l);

        p->audit_log = l;
        if (!l)
                return -ENOMEM;
        l->trails = map_new();
        l->used = map_new();
        return l->trails && l->used ? 0 : -ENOMEM;
}

void audit_done(struct plane *p)
{
        struct audit_log *l = p->audit_log;

        while (l && l->oldest)
                drop(l, NULL, l->oldest->trail);
        if (l) {
                l->trails = map_free(l->trails);
                l->used = map_free(l->used);
        }
        free(l);
        p->audit_log = NULL;
}

int audit_keep(struct plane *p, const json_t *row)
{
        const struct event_view v = {
                .at_us = (uint64_t) json_integer_value(json_object_get(row, "at_us")),
                .account = jsonx_str(row, "account"),
                .cluster = jsonx_str(row, "cluster"),
                .kind = jsonx_str(row, "kind"),
                .object = jsonx_str(row, "object"),
                .text = jsonx_str(row, "message"),
                .actor = jsonx_str(row, "actor"),
                .operation = jsonx_str(row, "operation"),
                .outcome = jsonx_str(row, "outcome"),
        };
        struct audit_log *l = p->audit_log;
        uint64_t seq;

        if (str_u64(jsonx_str(row, "id"), 0, UINT64_MAX, &seq) < 0 || !v.kind)
                return 0;
        l->seq = seq;
        if (v.at_us > l->at_us)
                l->at_us = v.at_us;
        return append(l, &v, seq);
}

/* ---- writing ---- */

static void write_row(struct plane *p, struct store_txn *t, const struct event_view *row)
{
        struct audit_log *l = p->audit_log;
        struct event_view v = *row;
        char id[24];

        v.at_us = l->at_us = listen_time(p);
        row_id(++l->seq, id);
        (void) append(l, &v, l->seq); /* out of memory: it is on the disk alone */
        store_put(t, ST_AUDIT,
                  json_pack("{s:s, s:I, s:s?, s:s?, s:s, s:s?, s:s?, s:s?, s:s?, s:s?}", "id", id,
                            "at_us", (json_int_t) v.at_us, "account", v.account, "cluster",
                            v.cluster, "kind", v.kind, "object", v.object, "message", v.text,
                            "actor", v.actor, "operation", v.operation, "outcome", v.outcome));
        tend(p, t);
        listen_news(p);
}

uint64_t audit_newest_us(const struct plane *p)
{
        return p->audit_log ? p->audit_log->at_us : 0;
}

/* In a transaction of its own.  No client waits for it: when the store cannot be written to, a query is
 * still answered, and for a while nothing is tried that would have everything loaded again. */
static void write_alone(struct plane *p, const struct event_view *v)
{
        AUTO(store_txn_free) struct store_txn *t = store_txn_new();

        if (!t || p->broken || clock_mono_us() < p->audit_hold_us)
                return;
        write_row(p, t, v);
        store_submit(p->store, TAKE(t), NULL, NULL);
}

void audit_hold(struct plane *p)
{
        p->audit_hold_us = clock_mono_us() + HOLD_US;
        log_warn("for %llu s what is refused is not written down, nor who uses a key",
                 HOLD_US / US_PER_S);
}

static bool is_refused(const struct event_view *v)
{
        return str_eq(v->outcome, "refused");
}

/* Or one refusal more than is told; the last that is told says so.  A query may have any number of them. */
static bool is_repeated(struct plane *p, struct event_view *v)
{
        unsigned refused = 0;
        const struct trail *t = trail_of(p->audit_log, v, false);
        uint64_t now = clock_wall_us();
        const struct audit_row *r = t ? t->newest : NULL;

        for (unsigned i = 0; r && i < AGAIN_ROWS && r->v.at_us + AGAIN_US > now;
             i++, r = r->before) {
                if (str_eq(r->v.kind, v->kind) && str_eq(r->v.object, v->object) &&
                    str_eq(r->v.text, v->text) && str_eq(r->v.cluster, v->cluster) &&
                    str_eq(r->v.actor, v->actor) && str_eq(r->v.outcome, v->outcome))
                        return true;
                refused += is_refused(&r->v);
        }
        if (is_refused(v) && refused + 1 == REFUSED_MAX)
                v->text = "more is refused within this minute, which is not told";
        return is_refused(v) && refused >= REFUSED_MAX;
}

/* ---- one thing that a caller does ---- */

/* No more than fits, no half of a character, nothing that a terminal obeys. */
static void copy_word(char *to, size_t size, const char *from)
{
        size_t n = from ? strlen(from) : 0;

        if (n >= size)
                for (n = size - 1; n > 0 && ((unsigned char) from[n] & 0xc0) == 0x80; n--)
                        ;
        memcpy(to, from ? from : "", n);
        to[n] = '\0';
        str_tame(to, '?');
}

void audit_begin(struct audit *a, const struct caller *who, const char *kind, const char *operation,
                 const char *object)
{
        *a = (struct audit){ .kind = kind, .who = *who, .begun = true };
        copy_word(a->operation, sizeof a->operation, operation);
        copy_word(a->object, sizeof a->object, object);
        memcpy(a->account, who->account, sizeof a->account);
}

void audit_detail(struct audit *a, const char *text)
{
        copy_word(a->detail, sizeof a->detail, text);
}

void plane_audit_enter(struct plane *p, struct audit *a)
{
        p->audit = a->begun && !a->written ? a : NULL;
}

void plane_audit_leave(struct plane *p)
{
        p->audit = NULL;
}

void plane_audit_object(struct plane *p, const char *account, const char *object)
{
        if (!p->audit)
                return;
        copy_word(p->audit->object, sizeof p->audit->object, object);
        if (account)
                copy_word(p->audit->account, sizeof p->audit->account, account);
}

/* "k3x9 (ada)", or the id alone. */
static void actor_of(const struct plane *p, const struct caller *who, char *to, size_t size)
{
        const char *name = accounts_key_name(p->accounts, who->key);
        char word[64];

        copy_word(word, sizeof word, name);
        if (str_empty(word))
                (void) snprintf(to, size, "%s", who->key);
        else
                (void) snprintf(to, size, "%s (%s)", who->key, word);
}

/* The view borrows from @a, @actor and @text. */
static struct event_view view_of(struct plane *p, const struct audit *a, const char *outcome,
                                 const char *why, char *actor, size_t actor_size, char **text)
{
        const struct cluster *c = *a->object ? plane_find(p, &a->who, a->object) : NULL;

        actor_of(p, &a->who, actor, actor_size);
        *text = str_eq(a->kind, "audit.key")
                        ? str_fmt("key %s was used from %s, for the first time in this hour", actor,
                                  a->object)
                        : str_fmt("%s by key %s%s%s: %s%s%s", a->operation, actor,
                                  *a->detail ? ", " : "", a->detail, outcome,
                                  str_empty(why) ? "" : ": ", why ? why : "");
        return (struct event_view){
                .account = *a->account ? a->account : NULL,
                .cluster = *a->cluster ? a->cluster
                           : c         ? c->id
                                       : NULL,
                .kind = a->kind,
                .object = *a->object ? a->object : NULL,
                .text = *text,
                .actor = actor,
                .operation = a->operation,
                .outcome = outcome,
        };
}

void audit_into(struct plane *p, struct store_txn *t, const char *cluster)
{
        struct audit *a = p->audit;
        AUTO(free) char *text = NULL;
        struct event_view v;
        char actor[96];

        if (!a || a->written)
                return;
        if (*cluster) {
                copy_word(a->cluster, sizeof a->cluster, cluster);
                copy_word(a->object, sizeof a->object, cluster);
        }
        v = view_of(p, a, "done", NULL, actor, sizeof actor, &text);
        a->written = true;
        write_row(p, t, &v);
}

void plane_audit_end(struct plane *p, struct audit *a, const char *outcome, const char *why)
{
        AUTO(free) char *text = NULL;
        struct event_view v;
        char actor[96];

        if (!a->begun || a->written)
                return;
        a->written = true;
        v = view_of(p, a, outcome, why, actor, sizeof actor, &text);
        if (str_eq(outcome, "done") || !is_repeated(p, &v))
                write_alone(p, &v);
}

/* ---- uses of keys ---- */

/* Counted in the pointer itself. */
static size_t count_of(const struct map *m, const char *key)
{
        return (size_t) (uintptr_t) map_get(m, key);
}

void plane_key_used(struct plane *p, const struct caller *who, const char *address)
{
        struct audit_log *l = p->audit_log;
        uint64_t hour = clock_wall_us() / HOUR_US;
        struct audit a;
        char place[96];
        size_t n;

        (void) snprintf(place, sizeof place, "%s %s", who->key, address);
        if (l->used_hour == hour && map_get(l->used, place))
                return;
        if (l->used_hour != hour) {
                struct map *fresh = map_new();

                if (!fresh)
                        return;
                (void) map_free(l->used);
                l->used = fresh;
                l->used_hour = hour;
        }
        n = count_of(l->used, who->key);
        if (n > ADDRESSES_MAX || map_len(l->used) > USES_MAX || p->broken)
                return;
        if (map_set(l->used, who->key, (void *) (uintptr_t) (n + 1)) < 0 ||
            map_set(l->used, place, l) < 0)
                return;
        audit_begin(&a, who, "audit.key", "key",
                    n < ADDRESSES_MAX ? address : "more addresses, which are not told");
        (void) snprintf(a.cluster, sizeof a.cluster, "%s", who->cluster);
        plane_audit_end(p, &a, "done", NULL);
}

/* ---- what a host found ---- */

void audit_of_node(struct plane *p, const struct node_security *n)
{
        const struct cluster *c = map_get(p->clusters, n->cluster);
        AUTO(free) char *kind = str_fmt("security.%s", n->kind);
        struct event_view v = {
                .account = c ? c->account : NULL,
                .cluster = n->cluster,
                .kind = kind && event_kind_check(kind, NULL) >= 0 ? kind : "security.other",
                .object = n->cluster,
                .text = n->message,
        };

        if (kind && !is_repeated(p, &v))
                write_alone(p, &v);
}

/* ---- reading ---- */

const struct audit_row *audit_newest(const struct plane *p)
{
        return p->audit_log ? p->audit_log->newest : NULL;
}

const struct audit_row *audit_older(const struct audit_row *r)
{
        return r->older;
}

const struct event_view *audit_view(const struct plane *p, const struct audit_row *r)
{
        return r && r->v.at_us + p->audit_keep_us >= clock_wall_us() ? &r->v : NULL;
}
