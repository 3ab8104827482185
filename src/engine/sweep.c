/* sweep.c - see sweep.h.  Engine process, at start. */
#include "engine/sweep.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/str.h"
#include "engine/claim/claim.h"
#include "engine/edge_run.h"
#include "engine/instance.h"
#include "engine/net/net.h"
#include "engine/sandbox/apparmor.h"
#include "engine/slice/slice.h"

#define YOUNG_S 60 /* an instance that is just starting has a run directory and no claim yet */

static bool is_id(const char *name)
{
        return strlen(name) == sizeof(((struct instance *) 0)->id) - 1 &&
               strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789") == strlen(name);
}

static bool is_old(int root, const char *name)
{
        struct stat st;

        return fstatat(root, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode) &&
               st.st_mtim.tv_sec + YOUNG_S < time(NULL);
}

/* A group without processes; one with some is not dead, and says so. */
static int on_group(void *arg, const char *name)
{
        struct err e = { 0 };

        if (slice_remove(arg, name, &e) < 0)
                log_warn("%s", e.msg);
        return 0;
}

/* Its slots are free or somebody else's, whose profiles have the same names and are not touched. */
struct left {
        const struct host *host;
        int root;
        const char *id;
};

static int forget_profiles(void *arg, uint32_t slot, struct err *e)
{
        const struct left *l = arg;

        return apparmor_forget(l->host->apparmor, l->root, l->id, slot, e);
}

static int on_profile(void *arg, uint32_t slot)
{
        const struct left *l = arg;
        struct err e = { 0 };
        int r = claim_slot_while_free(l->host->claims, slot, forget_profiles, arg, &e);

        if (r < 0 && r != -EBUSY)
                log_warn("%s", e.msg);
        return 0;
}

static void sweep_one(const struct host *host, int root, const char *id)
{
        AUTO(slice_host_close) struct slice_host *slices = NULL;
        struct err e = { 0 };
        struct left left = { host, root, id };
        AUTO(fd) int run = openat(root, id, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        int r = net_remove_dead(host->net, id, &e);

        if (run >= 0)
                edge_run_end(run);
        if (r >= 0)
                (void) apparmor_left(root, id, on_profile, &left);
        if (r >= 0)
                r = slice_host_open(id, 0, &slices, &e);
        if (r >= 0)
                r = slice_each(slices, on_group, slices);
        if (r >= 0)
                r = slice_host_remove(slices, &e);
        if (r >= 0) {
                r = fd_rm_rf(root, id);
                (void) err_set(&e, r, "run directory: %s", strerror(-r));
        }
        if (r < 0)
                log_warn("what the dead instance %s left: %s", id, e.msg);
        else
                log_info("removed what the dead instance %s left", id);
}

void sweep_dead_instances(const struct host *host)
{
        AUTO(fd) int root = fd_open_beneath(host->inst->run_fd, ".", O_RDONLY | O_DIRECTORY, 0);
        AUTO(fd)
        int up = root < 0 ? -EBADF : openat(root, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        DIR *dir = up < 0 ? NULL : fdopendir(dup(up));
        struct dirent *de;

        while (dir && (de = readdir(dir)) != NULL)
                if (is_id(de->d_name) && !str_eq(de->d_name, host->inst->id) &&
                    is_old(up, de->d_name) && claim_instance_dead(host->claims, de->d_name))
                        sweep_one(host, up, de->d_name);
        if (dir)
                (void) closedir(dir);
}
