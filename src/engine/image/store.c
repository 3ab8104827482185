/* store.c - opening the store.  Engine and operation processes, root. */
#include "store_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "engine/image/catalog_sql.h"

static int open_dir(int at, const char *name, struct err *e)
{
        int fd;

        if (mkdirat(at, name, 0700) < 0 && errno != EEXIST)
                return err_errno(e, -errno, "making images/%s", name);
        fd = fd_open_beneath(at, name, O_RDONLY | O_DIRECTORY, 0);
        return fd < 0 ? err_errno(e, fd, "opening images/%s", name) : fd;
}

int image_store_open(const struct instance *inst, struct image_store **ret, struct err *e)
{
        AUTO(image_store_close) struct image_store *s = calloc(1, sizeof *s);
        sqlite3 *db = NULL;

        if (!s)
                return err_set(e, -ENOMEM, "out of memory");
        s->inst = inst;
        s->dir_fd = s->layers_fd = s->metas_fd = s->objects_fd = s->staging_fd = -EBADF;
        s->dir_fd = open_dir(inst->data_fd, "images", e);
        if (s->dir_fd < 0)
                return s->dir_fd;
        s->layers_fd = open_dir(s->dir_fd, "layers", e);
        if (s->layers_fd < 0)
                return s->layers_fd;
        s->metas_fd = open_dir(s->dir_fd, "metas", e);
        if (s->metas_fd < 0)
                return s->metas_fd;
        s->objects_fd = open_dir(s->dir_fd, "objects", e);
        if (s->objects_fd < 0)
                return s->objects_fd;
        s->staging_fd = open_dir(s->dir_fd, "staging", e);
        if (s->staging_fd < 0)
                return s->staging_fd;
        int r = catalog_db(s, &db, e);

        if (r < 0)
                return r;
        *ret = TAKE(s);
        return 0;
}

void image_store_guard(struct image_store *s, const struct image_guard *g)
{
        s->guard = g;
}

struct image_store *image_store_close(struct image_store *s)
{
        if (!s)
                return NULL;
        s->recents = recents_free(s->recents);
        if (s->db && s->db_pid == getpid())
                sql_close(s->db);
        (void) fd_close(s->dir_fd);
        (void) fd_close(s->layers_fd);
        (void) fd_close(s->metas_fd);
        (void) fd_close(s->objects_fd);
        (void) fd_close(s->staging_fd);
        free(s);
        return NULL;
}

void image_done(struct image *i)
{
        free(i->reference);
        (void) strv_free(i->config.entrypoint);
        (void) strv_free(i->config.command);
        (void) strv_free(i->config.env);
        free(i->config.working_dir);
        free(i->config.user);
        free(i->config.stop_signal);
        free(i->meta_sha);
        free(i->quarantined);
        (void) strv_free(i->devices);
        free(i->account);
        free(i->use);
        *i = (struct image){ 0 };
}
