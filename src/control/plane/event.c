/* event.c - the journal for people: who did what to which cluster and why it ended, what happened to
 * a GPU.  tensorone-api.  A ring of EVENT_MAX rows in the store, each written together with what it
 * tells, and the same ring in memory.
 *
 * What always holds: from `event_next` backwards the times of the ring only fall. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/jsonx.h"
#include "base/str.h"
#include "control/plane/plane_priv.h"

#define EVENT_MAX 20000U
#define AGAIN_US  (60 * US_PER_S) /* a GPU's event that repeats within so long is one */

/* docs/gpu.md has those of GPUs. */
const char *const event_kinds[] = {
        "deployed",       "started",          "ready",
        "stopped",        "exited",           "edited",
        "updated",        "refused",          "moved",
        "idle",           "terminated",       "removed",
        "gpu.xid",        "gpu.throttle",     "gpu.ecc",
        "gpu.lost",       "gpu.hang",         "gpu.unhealthy",
        "gpu.healthy",    "gpu.quarantined",  "gpu.released",
        "gpu.handover",   "audit.change",     "audit.exec",
        "audit.key",      "security.seccomp", "security.apparmor",
        "security.oom",   "security.device",  "security.signal",
        "security.other",
};
const size_t event_kinds_n = NELEM(event_kinds);

/* One allocation: the view's texts lie behind it. */
struct event {
        struct event_view v;
        char text[];
};

static void copy_text(const char **field, char **at)
{
        size_t len = *field ? strlen(*field) + 1 : 0;

        if (!len)
                return;
        memcpy(*at, *field, len);
        *field = *at;
        *at += len;
}

/* In place of what was there. */
static int keep(struct plane *p, unsigned place, const struct event_view *v)
{
        const char *const texts[] = { v->account, v->cluster, v->kind, v->object, v->text };
        size_t len = 0;
        struct event *e;
        char *at;

        if (!p->events)
                p->events = calloc(EVENT_MAX, sizeof *p->events);
        for (size_t i = 0; i < NELEM(texts); i++)
                len += texts[i] ? strlen(texts[i]) + 1 : 0;
        e = p->events ? malloc(sizeof *e + len) : NULL;
        if (!e)
                return -ENOMEM;
        e->v = *v;
        at = e->text;
        copy_text(&e->v.account, &at);
        copy_text(&e->v.cluster, &at);
        copy_text(&e->v.kind, &at);
        copy_text(&e->v.object, &at);
        copy_text(&e->v.text, &at);
        free(p->events[place]);
        p->events[place] = e;
        return 0;
}

void events_free(struct plane *p)
{
        for (unsigned i = 0; p->events && i < EVENT_MAX; i++)
                free(p->events[i]);
        free(p->events);
        p->events = NULL;
        p->event_us = p->event_next = 0; /* what is loaded next says where the ring goes on */
}

int event_keep(struct plane *p, const json_t *row)
{
        const struct event_view v = {
                .at_us = (uint64_t) json_integer_value(json_object_get(row, "at_us")),
                .account = jsonx_str(row, "account"),
                .cluster = jsonx_str(row, "cluster"),
                .kind = jsonx_str(row, "kind"),
                .object = jsonx_str(row, "object"),
                .text = jsonx_str(row, "message"),
        };
        uint64_t id;

        if (str_u64(jsonx_str(row, "id"), 0, EVENT_MAX - 1, &id) < 0)
                return 0;
        if (v.at_us >= p->event_us) {
                p->event_us = v.at_us;
                p->event_next = (unsigned) (id + 1) % EVENT_MAX;
        }
        return keep(p, (unsigned) id, &v);
}

void event_write(struct plane *p, struct store_txn *t, const struct event_view *event)
{
        struct event_view v = *event;
        char id[16];

        v.at_us = p->event_us = listen_time(p);
        (void) snprintf(id, sizeof id, "%05u", p->event_next);
        (void) keep(p, p->event_next, &v); /* out of memory: it is on the disk alone */
        p->event_next = (p->event_next + 1) % EVENT_MAX;
        store_put(t, ST_EVENT,
                  json_pack("{s:s, s:I, s:s?, s:s?, s:s, s:s?, s:s?}", "id", id, "at_us",
                            (json_int_t) v.at_us, "account", v.account, "cluster", v.cluster,
                            "kind", v.kind, "object", v.object, "message", v.text));
        listen_news(p);
}

void event_add(struct plane *p, struct store_txn *t, const struct cluster *c, const char *kind)
{
        /* of an end that nobody asked for, the reason; else who did it: a reason may be an old one */
        const char *why = str_eq(kind, "refused")  ? c->refused
                          : str_eq(kind, "exited") ? c->reason
                                                   : NULL;
        const struct event_view v = {
                .account = c->account,
                .cluster = c->id,
                .kind = kind,
                .object = c->id,
                .text = why ? why : c->status_change,
        };

        event_write(p, t, &v);
}

/* The @i-th newest, or NULL. */
static const struct event *newest(const struct plane *p, unsigned i)
{
        return p->events && i < EVENT_MAX
                       ? p->events[(p->event_next + EVENT_MAX - 1 - i) % EVENT_MAX]
                       : NULL;
}

uint64_t event_oldest_us(const struct plane *p)
{
        const struct event *e = newest(p, EVENT_MAX - 1);

        return e ? e->v.at_us : 0;
}

/* The driver says the same thing over and over while, say, a GPU is too warm. */
static bool is_repeated(const struct plane *p, const struct event_view *v)
{
        uint64_t now = clock_wall_us();
        const struct event *e;

        for (unsigned i = 0; (e = newest(p, i)) && e->v.at_us + AGAIN_US > now; i++)
                if (str_eq(e->v.object, v->object) && str_eq(e->v.kind, v->kind) &&
                    str_eq(e->v.text, v->text) && str_eq(e->v.cluster, v->cluster))
                        return true;
        return false;
}

void event_of_gpu(struct plane *p, const struct node_event *n)
{
        const struct cluster *c = n->cluster ? map_get(p->clusters, n->cluster) : NULL;
        AUTO(store_txn_free) struct store_txn *t = store_txn_new();
        AUTO(free) char *kind = str_fmt("gpu.%s", n->kind);
        AUTO(free)
        char *text = n->code ? str_fmt("%s (%llu)", n->text, (unsigned long long) n->code)
                             : str_dup(n->text);
        const struct event_view v = {
                .account = c ? c->account : NULL,
                .cluster = n->cluster,
                .kind = kind,
                .object = n->uuid,
                .text = text,
        };

        if (!t || !kind || !text || p->broken || is_repeated(p, &v))
                return;
        event_write(p, t, &v);
        plane_submit(p, TAKE(t)); /* who is shown it waits until it is on disk */
}

static bool may_see(const struct caller *who, const struct event_view *v)
{
        switch (who->right) {
        case KEY_ADMIN:
                return true;
        case KEY_CLUSTER:
                return str_eq(v->account, who->account) && str_eq(v->cluster, who->cluster);
        case KEY_READ:
        case KEY_WRITE:
                return str_eq(v->account, who->account);
        case KEY_NONE:
        case KEY_RIGHT_COUNT:
                break;
        }
        return false;
}

/* "gpu" is every kind that begins with "gpu.". */
static bool is_kind(const char *kind, const char *want)
{
        const char *rest = str_after(kind, want);

        return rest && (*rest == '\0' || *rest == '.');
}

/* Who did what is there for those who ask for it: most of it is told by other events, too. */
static bool is_wanted(const char *kind, const char *want)
{
        return want ? is_kind(kind, want) : !is_kind(kind, "audit");
}

int event_kind_check(const char *kind, struct err *e)
{
        AUTO(strbuf_done) struct strbuf known = { 0 };

        for (size_t i = 0; i < event_kinds_n; i++) {
                if (is_kind(event_kinds[i], kind))
                        return 0;
                strbuf_fmt(&known, "%s%s", i ? ", " : "", event_kinds[i]);
        }
        return err_set(
                e, -EINVAL,
                "kind: '%.40s' is none; the known ones: %s; gpu, audit or security for all of a sort",
                kind, known.s ? known.s : "");
}

int plane_events(const struct plane *p, const struct caller *who, const struct event_filter *f,
                 int (*fn)(void *arg, const struct event_view *v), void *arg)
{
        const struct audit_row *a = audit_newest(p);
        unsigned n = 0, i = 0;

        while (n < f->limit) {
                const struct event *e = newest(p, i);
                const struct event_view *kept = audit_view(p, a);
                const struct event_view *v =
                        !e || (kept && kept->at_us > e->v.at_us) ? kept : &e->v;
                int r;

                if (!v || v->at_us < f->since_us)
                        break;
                if (v == kept)
                        a = audit_older(a);
                else
                        i++;
                if (!may_see(who, v) || (f->until_us && v->at_us > f->until_us) ||
                    !is_wanted(v->kind, f->kind) ||
                    (f->cluster && !str_eq(v->cluster, f->cluster)) ||
                    (f->object && !str_eq(v->object, f->object)))
                        continue;
                r = fn(arg, v);
                if (r < 0)
                        return r;
                n++;
        }
        return 0;
}
