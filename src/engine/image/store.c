/* store.c - opening the store, mounting layers.  Engine and operation processes, root. */
#include "store_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <sched.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/jsonx.h"
#include "engine/idmap.h"
#include "engine/image/catalog_sql.h"

#ifndef OPEN_TREE_CLONE
#define OPEN_TREE_CLONE 1
#endif
#ifndef OPEN_TREE_CLOEXEC
#define OPEN_TREE_CLOEXEC O_CLOEXEC
#endif

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
        s->dir_fd = s->layers_fd = s->staging_fd = -EBADF;
        s->dir_fd = open_dir(inst->data_fd, "images", e);
        if (s->dir_fd < 0)
                return s->dir_fd;
        s->layers_fd = open_dir(s->dir_fd, "layers", e);
        if (s->layers_fd < 0)
                return s->layers_fd;
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
        if (s->db && s->db_pid == getpid())
                sql_close(s->db);
        (void) fd_close(s->dir_fd);
        (void) fd_close(s->layers_fd);
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
        (void) strv_free(i->layers);
        free(i->account);
        free(i->use);
        *i = (struct image){ 0 };
}

int image_layers_mount(struct image_store *s, int userns, struct err *e)
{
        AUTO(fd)
        int mnt = (int) syscall(SYS_open_tree, s->layers_fd, "",
                                AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
        int r;

        if (mnt < 0)
                return err_errno(e, -errno, "cloning the mount of images/layers");
        r = idmap_mount(mnt, userns, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NODEV, e);
        if (r < 0)
                return err_wrap(e, r, "images/layers");
        return fd_take(&mnt);
}
