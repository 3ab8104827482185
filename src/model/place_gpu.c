/* place_gpu.c - which GPUs a request gets: its wishes in their order, and why none of them can be had.
 * Pure; control plane. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/str.h"
#include "model/place_priv.h"

#define WISHES_MAX 64U

/* One of the alternatives. */
struct wish {
        char name[256]; /* "": any */
        uint64_t members;
        struct err why;
};

static uint32_t count(uint64_t set)
{
        return (uint32_t) __builtin_popcountll(set);
}

/* The next one of a list with commas between; false: there is none. */
static bool next_wish(const char **at, struct wish *ret)
{
        const char *s = *at;
        size_t n;

        while (*s == ' ' || *s == ',')
                s++;
        n = strcspn(s, ",");
        *at = s + n;
        while (n > 0 && s[n - 1] == ' ')
                n--;
        (void) snprintf(ret->name, sizeof ret->name, "%.*s", (int) (n < 255 ? n : 255), s);
        return n > 0;
}

static const char *name_of(const struct wish *w)
{
        return *w->name ? w->name : "GPU";
}

/* ", 2 out of order": those that nobody holds and nobody can have. */
static void say_broken(const struct place_node *n, uint64_t members, char *buf, size_t len)
{
        uint32_t broken = 0;

        for (size_t i = 0; i < n->gpus->n; i++)
                broken += members >> i & 1 && n->gpus->gpus[i].state != GS_OK;
        buf[0] = '\0';
        if (broken)
                (void) snprintf(buf, len, ", %u out of order", broken);
}

/* Why this wish cannot be had, without the field's name. */
static void refuse(const struct place_node *n, const struct place_want *w, struct wish *x,
                   const struct err *chooser)
{
        const uint64_t can = x->members & (n->gpus_free | w->gpu_keep);
        uint32_t all = count(x->members), idle = count(can & ~w->gpu_keep); /* its own are not */
        char broken[32];

        say_broken(n, x->members, broken, sizeof broken);
        if (!x->members)
                (void) err_set(&x->why, -ENOSPC, "not on this host");
        else if (w->gpu_count > all)
                (void) err_set(&x->why, -ENOSPC, "this host has %u, %u free%s", all, idle, broken);
        else if (count(can) >= w->gpu_count) /* of several types, or not a legal set */
                (void) err_copy(&x->why, chooser);
        else
                (void) err_set(&x->why, -ENOSPC, "%u of %u free%s", idle, all, broken);
}

static bool try_wish(const struct place_node *n, const struct place_want *w, struct wish *x,
                     struct place_choice *ret)
{
        struct gpu_choice got;
        struct err e = { 0 };
        uint64_t keep = w->gpu_keep, idle = n->gpus_free;

        x->members = gpu_types_match(n->gpu_types, x->name);
        if (count(keep) > w->gpu_count) { /* some of what it has */
                idle = keep;
                keep = 0;
        }
        if (gpu_choose(n->chooser, idle, x->members, keep, w->gpu_count, &got, &e) < 0) {
                refuse(n, w, x, &e);
                return false;
        }
        ret->gpus = got.set;
        ret->gpu_type = gpu_types_of(n->gpu_types, (size_t) __builtin_ctzll(got.set));
        return true;
}

static void say_known(const struct gpu_types *t, struct strbuf *b)
{
        for (size_t i = 0; i < t->n; i++)
                strbuf_fmt(b, "%s%s", i ? ", " : "", t->list[i].id);
}

static enum place_limit none_here(const struct place_node *n, const struct place_want *w,
                                  struct err *e)
{
        const char *note = n->gpus ? n->gpus->note : NULL;

        (void) err_set(
                e, -ENOSPC,
                "gpuCount: %u x %.200s wanted, this host has no GPU%s%s%s; gpuCount 0 would fit",
                w->gpu_count, str_empty(w->gpu_type) ? "GPU" : w->gpu_type, note ? " (" : "",
                note ? note : "", note ? ")" : "");
        return PLACE_GPU;
}

/* @why: what was the matter with each of @n_wishes. */
static enum place_limit say_none(const struct place_node *n, const struct place_want *w,
                                 const struct wish *first, size_t n_wishes, bool known,
                                 struct strbuf *why, struct err *e)
{
        AUTO(strbuf_done) struct strbuf types = { 0 };

        say_known(n->gpu_types, &types);
        if (!known)
                (void) err_set(e, -ENOSPC, "gpuTypeId: %.200s is not on this host; it has %s",
                               w->gpu_type, types.s ? types.s : "none");
        else if (n_wishes == 1)
                (void) err_set(e, -ENOSPC, "gpuCount: %u x %s wanted, %s", w->gpu_count,
                               name_of(first), first->why.msg);
        else
                (void) err_set(e, -ENOSPC, "gpuCount: %u wanted of %s", w->gpu_count,
                               why->s ? why->s : "");
        return PLACE_GPU;
}

enum place_limit place_choose_gpus(const struct place_node *n, const struct place_want *w,
                                   struct place_choice *ret, struct err *e)
{
        const char *at = w->gpu_type ? w->gpu_type : "";
        AUTO(strbuf_done) struct strbuf why = { 0 };
        struct wish first = { 0 }, x = { 0 };
        bool known = false;
        size_t tried = 0;

        if (w->gpu_count == 0)
                return PLACE_OK;
        if (w->gpu_count == count(w->gpu_keep) && n->gpu_types) { /* nothing to choose */
                ret->gpus = w->gpu_keep;
                ret->gpu_type = gpu_types_of(n->gpu_types, (size_t) __builtin_ctzll(ret->gpus));
                return PLACE_OK;
        }
        if (!n->gpus || n->gpus->n == 0 || !n->chooser)
                return none_here(n, w, e);
        while ((next_wish(&at, &x) || tried == 0) && tried < WISHES_MAX) {
                if (try_wish(n, w, &x, ret))
                        return PLACE_OK;
                known = known || x.members;
                strbuf_fmt(&why, "%s%s (%s)", tried ? ", " : "", name_of(&x), x.why.msg);
                if (tried++ == 0)
                        first = x;
        }
        return say_none(n, w, &first, tried, known, &why, e);
}
