/* unit_image.c - a cluster and its image: waiting until it has come, and telling when it is found to be
 * damaged.  Engine process, loop thread.
 *
 * A damaged image is quarantined: nothing begins from it any more, and who wants it pulls it anew.  What
 * runs from it already goes on, because most of what it reads is in memory or whole; it says so in its
 * reason until it is booted again.  The store knows what is damaged; nothing of it is kept here across a
 * restart of the engine. */
#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "base/str.h"
#include "engine/fleet/unit.h"

/* Whose image, and its name: what follows the row's number in image.use. */
static const char *whose(const char *use)
{
        return use ? strchr(use, ' ') : NULL;
}

/* A private image is the account's that could open it once.  Who starts a new cluster has to be able to
 * now, with the credentials that it names; one that has run from it has shown that. */
int unit_find_image(struct unit *u, struct image *ret, struct err *e)
{
        struct image_store *s = u->fleet->spec.host->images;
        struct image found = { 0 };
        int r;

        if (str_empty(u->plan.registry_auth))
                return image_find(s, u->plan.account, u->plan.image, ret, e);
        r = image_find_private(s, u->plan.account, u->plan.image, &found, e);
        if (r < 0)
                return r;
        if (found.is_private && !str_eq(whose(u->row.image_digest), whose(found.use))) {
                image_done(&found);
                return err_set(e, -ENOENT, "the registry was not asked for %s yet", u->plan.image);
        }
        *ret = found;
        return 0;
}

/* A step of percent is reported at once, what else changes every second. */
static void unit_progress(void *arg, const struct image_progress *g)
{
        struct unit *u = arg;
        uint32_t pct = g->total_bytes ? (uint32_t) (g->done_bytes * 100 / g->total_bytes) : 0;
        uint64_t now = clock_mono_us();

        if (pct > 99)
                pct = 99;
        if (pct == u->progress_pct &&
            (now < u->pull_told_us + US_PER_S ||
             (g->done_bytes == u->pull.done_bytes && g->total_bytes == u->pull.total_bytes &&
              g->bytes_per_s == u->pull.bytes_per_s)))
                return;
        u->progress_pct = pct;
        u->pull = (struct image_progress){ NULL, g->done_bytes, g->total_bytes, g->bytes_per_s };
        u->pull_told_us = now;
        unit_report(u);
}

static void pull_over(struct unit *u)
{
        u->pull = (struct image_progress){ 0 };
}

static void fail(struct unit *u, const struct err *e)
{
        log_info("cluster %s: %s", u->row.cluster, e->msg);
        unit_event(u, CE_FAIL, "%s", e->msg);
        unit_settle(u);
}

static void unit_pulled(void *arg, int r, const struct image *image, const struct err *err)
{
        struct unit *u = arg;
        struct err e = { 0 };

        pull_over(u);
        if (u->fleet->closing || u->row.state != CS_PULLING)
                return;
        if (unit_retry(u, r, err)) {
                unit_settle(u);
                return;
        }
        if (r >= 0)
                r = unit_boot(u, image, &e);
        else if (r == -EACCES && str_empty(u->plan.registry_auth))
                (void) err_set(&e, r, "%s; if it is private, name registry credentials for it",
                               err->msg);
        else
                (void) err_copy(&e, err);
        if (r < 0)
                fail(u, &e);
}

static int pull_with(struct unit *u, const struct fleet_login *login, struct err *e)
{
        const struct image_credentials cred = { login ? login->username : NULL,
                                                login ? login->password : NULL, u->plan.account };

        return fleet_pull(u->fleet, u->plan.image, &cred, false, unit_progress, unit_pulled, u, e);
}

int unit_pull(struct unit *u, struct err *e)
{
        u->progress_pct = 0;
        pull_over(u);
        return u->wants_login ? 0 : pull_with(u, NULL, e); /* the report asks for them */
}

void unit_take_login(struct unit *u, const struct fleet_login *login)
{
        struct err e = { 0 };
        int r;

        if (!u->wants_login || u->row.state != CS_PULLING || !unit_wanted(u))
                return;
        u->wants_login = false;
        if (login->error)
                r = err_set(&e, -EACCES, "pull %s: %s", u->plan.image, login->error);
        else
                r = pull_with(u, login, &e);
        if (r < 0)
                fail(u, &e);
}

/* The unit no longer waits. */
void unit_pull_leave(struct unit *u)
{
        pull_over(u);
        (void) fleet_drop_requests(u->fleet, u);
}

void fleet_image_damaged(struct fleet *f, uint64_t image, const char *why)
{
        uint64_t id;

        for (struct unit *u = f->units; u; u = u->next) {
                if (u->damage || !u->row.image_digest || !(unit_holds(u) || u->op) ||
                    str_u64_prefix(u->row.image_digest, 10, &id) < 0 || id != image)
                        continue;
                log_warn("cluster %s runs from an image that is damaged, and goes on: %s",
                         u->row.cluster, why);
                u->damage = str_dup(why);
                unit_report(u);
        }
}

static void on_damaged(void *arg, uint64_t image, const char *name, const char *why)
{
        (void) name;
        fleet_image_damaged(arg, image, why);
}

void fleet_look_for_damage(struct fleet *f)
{
        struct err e = { 0 };

        if (image_each_damaged(f->spec.host->images, on_damaged, f, &e) < 0)
                log_warn("%s", e.msg);
}
