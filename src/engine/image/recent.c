/* recent.c - the images that were found last.  Engine process.
 *
 * A boot asks for its image while somebody waits: 150 us of SQL and JSON, for what hardly ever changes.
 * SQLite tells in 5 us whether anybody has written to the database since (PRAGMA data_version); what
 * this process writes itself, the time of the last use, is a reason to ask again, too.  A forked
 * child has a connection of its own and begins anew. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "engine/image/catalog_sql.h"
#include "engine/image/store_priv.h"

#define RECENT 16U

struct recent {
        char *account, *name;
        bool private; /* what image_find_private() gave */
        struct image image;
};

struct recents {
        pid_t pid;
        int64_t version;
        unsigned next; /* the place that is taken next */
        struct recent at[RECENT];
};

static void empty(struct recent *r)
{
        free(r->account);
        free(r->name);
        image_done(&r->image);
        *r = (struct recent){ .account = NULL };
}

struct recents *recents_free(struct recents *rs)
{
        for (size_t i = 0; rs && i < RECENT; i++)
                empty(&rs->at[i]);
        free(rs);
        return NULL;
}

/* Nothing of another process, nothing from before a change. */
static struct recents *valid(struct image_store *s, sqlite3 *db)
{
        int64_t version;

        if (sql_number(db, &version, NULL, "PRAGMA data_version", NULL, 0) < 0)
                return NULL;
        if (!s->recents)
                s->recents = calloc(1, sizeof *s->recents);
        if (s->recents && (s->recents->pid != getpid() || s->recents->version != version))
                for (size_t i = 0; i < RECENT; i++)
                        empty(&s->recents->at[i]);
        if (s->recents) {
                s->recents->pid = getpid();
                s->recents->version = version;
        }
        return s->recents;
}

static char *or_null(const char *s, bool *bad)
{
        char *copy = s ? strdup(s) : NULL;

        *bad |= s && !copy;
        return copy;
}

static char **list_or_null(char *const *v, bool *bad)
{
        char **copy = v ? strv_dup(v) : NULL;

        *bad |= v && !copy;
        return copy;
}

static int copy_image(const struct image *from, struct image *ret)
{
        bool bad = false;
        struct image i = *from;

        i.reference = or_null(from->reference, &bad);
        i.config = (struct image_config){ .entrypoint = list_or_null(from->config.entrypoint, &bad),
                                          .command = list_or_null(from->config.command, &bad),
                                          .env = list_or_null(from->config.env, &bad),
                                          .working_dir = or_null(from->config.working_dir, &bad),
                                          .user = or_null(from->config.user, &bad),
                                          .stop_signal = or_null(from->config.stop_signal, &bad) };
        i.meta_sha = or_null(from->meta_sha, &bad);
        i.devices = list_or_null(from->devices, &bad);
        i.use = or_null(from->use, &bad);
        i.account = or_null(from->account, &bad);
        i.quarantined = or_null(from->quarantined, &bad);
        if (bad) {
                image_done(&i);
                return -ENOMEM;
        }
        *ret = i;
        return 0;
}

bool recents_get(struct image_store *s, sqlite3 *db, const char *account, const char *name,
                 bool private, struct image *ret)
{
        struct recents *rs = valid(s, db);

        for (size_t i = 0; rs && i < RECENT; i++) {
                const struct recent *r = &rs->at[i];

                if (r->name && r->private == private && str_eq(r->name, name) &&
                    str_eq(r->account, account))
                        return copy_image(&r->image, ret) >= 0;
        }
        return false;
}

void recents_put(struct image_store *s, const char *account, const char *name, bool private,
                 const struct image *image)
{
        struct recents *rs = s->recents;
        struct recent r = { .account = strdup(account), .name = strdup(name), .private = private };

        if (!rs || rs->pid != getpid() || !r.account || !r.name ||
            copy_image(image, &r.image) < 0) {
                empty(&r);
                return;
        }
        empty(&rs->at[rs->next]);
        rs->at[rs->next] = r;
        rs->next = (rs->next + 1) % RECENT;
}

void recents_forget(struct image_store *s)
{
        for (size_t i = 0; s->recents && i < RECENT; i++)
                empty(&s->recents->at[i]);
}
