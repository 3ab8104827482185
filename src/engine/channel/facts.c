/* facts.c - see facts.h.  Engine process, loop thread.
 *
 * Claims are noticed when they change (inotify).  Free space has no event: it is looked at every
 * few seconds, with a gap between "full" and "has room again", so that it does not flutter. */
#include "engine/channel/facts.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/jsonx.h"
#include "base/log.h"
#include "base/str.h"
#include "engine/channel/channel_priv.h"
#include "engine/claim/claim.h"
#include "engine/gpu/gpuhost.h"
#include "engine/instance.h"
#include "model/limits.h"

#define LOOK_EVERY_US (2 * US_PER_S)
#define MAX_CPUS      8192U
#define SIZE_STEP_MIB 64U
#define MIB           (1ULL << 20)

struct facts {
        struct channel *channel;
        int watch_fd; /* -EBADF: no inotify; the timer looks */
        sd_event_source *watch_src, *timer_src;
        uint32_t cpus[MAX_CPUS];
        size_t n_cpus;
        uint64_t free_mib, disk_gib; /* when they were last counted */
        bool disk_full;
};

static json_t *cpus_json(const struct facts *f)
{
        json_t *list = json_array();

        for (size_t i = 0; list && i < f->n_cpus; i++) {
                char name[12];

                (void) snprintf(name, sizeof name, "%u", f->cpus[i]);
                if (json_array_append_new(list, json_string(name)) < 0)
                        return json_put(list);
        }
        return list;
}

static void send_facts(const struct facts *f)
{
        AUTO(json_put)
        json_t *j = json_pack("{s:s, s:I, s:o, s:s}", "type", "facts", "disk_gib",
                              (json_int_t) f->disk_gib, "cpus_elsewhere", cpus_json(f), "disk_full",
                              f->disk_full ? "Host disk full: less than " LIMIT_DISK_FLOOR_TEXT
                                             " are free for its data directory."
                                           : "");

        if (f->channel->welcome)
                channel_send(f->channel, j, NULL, 0);
}

static bool look_at_cpus(struct facts *f)
{
        uint32_t now[MAX_CPUS];
        struct err e = { 0 };
        int n = claim_cpus_elsewhere(f->channel->spec.host->claims, now, NELEM(now), &e);

        if (n < 0) {
                log_warn("%s", e.msg);
                return false;
        }
        if ((size_t) n == f->n_cpus && memcmp(now, f->cpus, (size_t) n * sizeof *now) == 0)
                return false;
        memcpy(f->cpus, now, (size_t) n * sizeof *now);
        f->n_cpus = (size_t) n;
        return true;
}

/* What the files of a directory take up on the disk. */
static uint64_t used_bytes(int at)
{
        int fd = openat(at, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        DIR *dir = fd < 0 ? NULL : fdopendir(fd);
        struct dirent *de;
        uint64_t sum = 0;

        if (!dir) {
                (void) fd_close(fd);
                return 0;
        }
        while ((de = readdir(dir)) != NULL) {
                struct stat st;

                if (fstatat(fd, de->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode))
                        sum += (uint64_t) st.st_blocks * 512;
        }
        (void) closedir(dir);
        return sum;
}

/* What may be sold: free now, or in the clusters' disks already.  Counted only when much has changed. */
static bool look_at_size(struct facts *f, uint64_t free_mib)
{
        const struct host *h = f->channel->spec.host;
        uint64_t moved = free_mib > f->free_mib ? free_mib - f->free_mib : f->free_mib - free_mib;
        uint64_t was = f->disk_gib;

        if (f->disk_gib && moved < SIZE_STEP_MIB)
                return false;
        f->free_mib = free_mib;
        f->disk_gib = (free_mib + (used_bytes(h->disks) + used_bytes(h->volumes)) / MIB) / 1024;
        return f->disk_gib != was;
}

static bool look_at_disk(struct facts *f)
{
        struct statvfs fs;
        uint64_t free_mib;
        bool full, resized;

        if (fstatvfs(f->channel->spec.host->inst->data_fd, &fs) < 0)
                return false;
        free_mib = fs.f_bavail * fs.f_frsize / MIB;
        resized = look_at_size(f, free_mib);
        instance_hold_room(f->channel->spec.host->inst);
        full = free_mib < (f->disk_full ? 2 * LIMIT_DISK_FLOOR_MIB : LIMIT_DISK_FLOOR_MIB);
        if (full == f->disk_full)
                return resized;
        if (full)
                log_warn("host disk full: %llu MiB are free, nothing new is started",
                         (unsigned long long) free_mib);
        else
                log_info("host disk: %llu MiB are free again", (unsigned long long) free_mib);
        f->disk_full = full;
        return true;
}

void facts_send(struct facts *f)
{
        (void) look_at_cpus(f);
        (void) look_at_disk(f);
        send_facts(f);
}

void facts_refresh(struct facts *f)
{
        bool changed = look_at_cpus(f);

        if (look_at_disk(f) || changed)
                send_facts(f);
}

static void look_at_gpus(const struct facts *f)
{
        if (f->channel->spec.host->gpuhost)
                gpuhost_claims_changed(f->channel->spec.host->gpuhost);
}

static int on_claims(sd_event_source *s, int fd, uint32_t revents, void *arg)
{
        struct facts *f = arg;

        (void) s;
        (void) revents;
        if (!claim_watch_read(fd))
                return 0;
        if (look_at_cpus(f))
                send_facts(f);
        look_at_gpus(f);
        return 0;
}

static int on_look(sd_event_source *s, uint64_t usec, void *arg)
{
        struct facts *f = arg;
        bool changed = f->watch_fd < 0 && look_at_cpus(f);

        (void) usec;
        if (f->watch_fd < 0)
                look_at_gpus(f);
        if (look_at_disk(f) || changed)
                send_facts(f);
        if (sd_event_source_set_time_relative(s, LOOK_EVERY_US) < 0)
                return -EIO;
        return sd_event_source_set_enabled(s, SD_EVENT_ONESHOT);
}

int facts_new(struct channel *c, struct facts **ret, struct err *e)
{
        AUTO(facts_free) struct facts *f = calloc(1, sizeof *f);
        struct err why = { 0 };
        int r;

        if (!f)
                return err_set(e, -ENOMEM, "out of memory");
        f->channel = c;
        f->watch_fd = claim_watch_open(c->spec.host->claims, &why);
        if (f->watch_fd < 0) /* others' containers may have used up root's inotify instances */
                log_warn("%s; CPUs of other hosts are looked at every %llu s", why.msg,
                         (unsigned long long) (LOOK_EVERY_US / US_PER_S));
        (void) look_at_cpus(f);
        (void) look_at_disk(f);
        r = sd_event_add_time_relative(c->spec.loop, &f->timer_src, CLOCK_MONOTONIC, LOOK_EVERY_US,
                                       100 * US_PER_MS, on_look, f);
        if (r >= 0 && f->watch_fd >= 0)
                r = sd_event_add_io(c->spec.loop, &f->watch_src, f->watch_fd, EPOLLIN, on_claims,
                                    f);
        if (r < 0)
                return err_errno(e, r, "watch the host");
        *ret = TAKE(f);
        return 0;
}

struct facts *facts_free(struct facts *f)
{
        if (!f)
                return NULL;
        sd_event_source_disable_unref(f->watch_src);
        sd_event_source_disable_unref(f->timer_src);
        (void) fd_close(f->watch_fd);
        free(f);
        return NULL;
}
