/* kept.c - see kept.h.  Engine process, loop thread. */
#include "engine/fleet/kept.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/proc.h"
#include "base/str.h"
#include "engine/op/listen.h"
#include "model/attach_codec.h"

struct kept {
        struct kept *next;
        struct fleet *fleet;
        char id[KEPT_ID_BYTES];
        int fd;
        sd_event_source *io;
};

static int run_dir(const struct fleet *f)
{
        return f->spec.host->inst->run_fd;
}

static void socket_of(const char *id, char ret[static 64])
{
        (void) snprintf(ret, 64, KEPT_SOCKET, id);
}

static struct kept **find(struct fleet *f, const char *id)
{
        struct kept **at = &f->kept;

        while (*at && !str_eq((*at)->id, id))
                at = &(*at)->next;
        return at;
}

static struct kept *kept_free(struct kept *k)
{
        k->io = sd_event_source_disable_unref(k->io);
        (void) fd_close(k->fd);
        free(k);
        return NULL;
}

void kept_drop(struct fleet *f, const char *id)
{
        struct kept **at = find(f, id), *k = *at;
        char name[64];

        if (!k)
                return;
        *at = k->next;
        socket_of(k->id, name);
        (void) unlinkat(run_dir(f), name, 0);
        (void) kept_free(k);
}

static bool is_of(const char *id, const char *cluster)
{
        const char *rest = str_after(id, cluster);

        return rest && *rest == '-' && !strchr(rest + 1, '-');
}

static struct kept *add(struct fleet *f, const char *id)
{
        struct kept *k = calloc(1, sizeof *k);

        if (!k)
                return NULL;
        k->fleet = f;
        k->fd = -EBADF;
        (void) snprintf(k->id, sizeof k->id, "%s", id);
        k->next = f->kept;
        f->kept = k;
        return k;
}

int kept_new(struct fleet *f, const char *cluster, const char **ret_id, struct err *e)
{
        char id[KEPT_ID_BYTES], hex[33];
        unsigned char secret[16];
        const struct kept *k;
        unsigned n = 0, all = 0;
        int r = rand_bytes(secret, sizeof secret);

        for (k = f->kept; k; k = k->next, all++)
                n += is_of(k->id, cluster);
        if (all >= KEPT_ALL)
                return err_set(e, -EBUSY, "this host keeps %u terminals; try again later", all);
        if (n >= KEPT_EACH)
                return err_set(e, -EBUSY,
                               "cluster %s has %u terminals that are kept; close one, or wait",
                               cluster, n);
        if (r < 0)
                return err_errno(e, r, "random numbers");
        hex_encode(secret, sizeof secret, hex);
        (void) snprintf(id, sizeof id, "%s-%s", cluster, hex);
        k = add(f, id);
        if (!k)
                return err_set(e, -ENOMEM, "out of memory");
        *ret_id = k->id;
        return 0;
}

/* What it tells mere observers is not needed; its end is. */
static int on_io(sd_event_source *src, int fd, uint32_t revents, void *arg)
{
        struct kept *k = arg;
        char buf[1024];
        ssize_t n = recv(fd, buf, sizeof buf, MSG_DONTWAIT);

        (void) src;
        (void) revents;
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
                kept_drop(k->fleet, k->id);
        return 0;
}

static int watch(struct kept *k)
{
        const struct attach_hello hello = { .version = ATTACH_VERSION };
        uint8_t buf[64];
        size_t n = attach_put_hello(buf, sizeof buf, &hello);
        char name[64];

        socket_of(k->id, name);
        k->fd = op_connect(run_dir(k->fleet), name, NULL);
        if (k->fd < 0)
                return k->fd;
        if (send(k->fd, buf, n, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t) n)
                return -EPIPE;
        return sd_event_add_io(k->fleet->spec.loop, &k->io, k->fd, EPOLLIN, on_io, k);
}

void kept_watch(struct fleet *f, const char *id)
{
        struct kept *k = *find(f, id);
        int r = k ? watch(k) : 0;

        if (r < 0) {
                log_debug("session %s: %s", id, strerror(-r));
                kept_drop(f, id);
        }
}

int kept_connect(struct fleet *f, const char *cluster, const char *id, int *ret_fd, struct err *e)
{
        const struct kept *k = id ? *find(f, id) : NULL;
        char name[64];
        int fd = -ENOENT;

        if (k && k->fd >= 0 && is_of(k->id, cluster)) {
                socket_of(k->id, name);
                fd = op_connect(run_dir(f), name, NULL);
        }
        if (fd < 0)
                return err_set(e, -ENOENT, "the session has ended");
        *ret_fd = fd;
        return 0;
}

/* "k-ID.sock" -> ID. */
static bool id_of(const char *file, char ret[static KEPT_ID_BYTES])
{
        const char *id = str_after(file, "k-"), *end = id ? strrchr(id, '.') : NULL;

        if (!end || !str_eq(end, ".sock") || (size_t) (end - id) >= KEPT_ID_BYTES)
                return false;
        (void) snprintf(ret, KEPT_ID_BYTES, "%.*s", (int) (end - id), id);
        return true;
}

void kept_adopt(struct fleet *f)
{
        int at = openat(run_dir(f), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        DIR *dir = at >= 0 ? fdopendir(at) : NULL;
        char id[KEPT_ID_BYTES];
        struct dirent *de;

        while (dir && (de = readdir(dir)) != NULL) {
                struct kept *k = id_of(de->d_name, id) ? add(f, id) : NULL;

                if (k && watch(k) < 0) { /* its name goes with the rest of what nobody wants */
                        f->kept = k->next;
                        (void) kept_free(k);
                }
        }
        if (dir)
                (void) closedir(dir);
        else
                (void) fd_close(at);
}

bool kept_wanted(const struct fleet *f, const char *file)
{
        char id[KEPT_ID_BYTES];

        if (!id_of(file, id))
                return false;
        for (const struct kept *k = f->kept; k; k = k->next)
                if (str_eq(k->id, id))
                        return true;
        return false;
}

void kept_free_all(struct fleet *f)
{
        while (f->kept) {
                struct kept *k = f->kept;

                f->kept = k->next;
                (void) kept_free(k);
        }
}
