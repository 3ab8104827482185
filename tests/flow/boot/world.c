/* world.c - see world.h.  Test process, root. */
#include "world.h"
#include "../net/each.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/conf.h"
#include "base/fd.h"
#include "base/proc.h"
#include "base/str.h"
#include "engine/claim/claim.h"
#include "engine/disk/disk.h"
#include "engine/image/base.h"

static int copy_file(const char *from, int dir, const char *to)
{
        AUTO(fd) int in = open(from, O_RDONLY | O_CLOEXEC);
        AUTO(fd) int out = openat(dir, to, O_WRONLY | O_CREAT | O_CLOEXEC, 0755);
        ssize_t n = 1;

        while (in >= 0 && out >= 0 && n > 0)
                n = copy_file_range(in, NULL, out, NULL, 1 << 20, 0);
        return in < 0 || out < 0 || n < 0 ? -errno : 0;
}

static int run(const char *command)
{
        int status = system(command); /* NOLINT: our own words */

        return status == 0 ? 0 : -EIO;
}

/* metas/1: an image with bin/{busybox,sleep,sh}, without packs. */
static int make_image(struct world *w, struct err *e)
{
        AUTO(fd) int bin = fd_mkdir_beneath(w->inst.data_fd, "tree/bin", 0755);
        AUTO(free) char *make = NULL, *sum = NULL;
        char *line = NULL;
        size_t n = 0;
        FILE *f;
        int r = bin < 0 ? bin : copy_file("/bin/busybox", bin, "busybox");

        if (r >= 0 &&
            (symlinkat("busybox", bin, "sleep") < 0 || symlinkat("busybox", bin, "sh") < 0))
                r = -errno;
        make = str_fmt("mkfs.erofs --quiet %s/images/metas/1 %s/tree", w->dir, w->dir);
        sum = str_fmt("sha256sum %s/images/metas/1", w->dir);
        if (r >= 0)
                r = make && sum ? run(make) : -ENOMEM;
        f = r < 0 ? NULL : popen(sum, "r");
        if (!f || getline(&line, &n, f) < 64)
                r = r < 0 ? r : -EIO;
        else
                (void) snprintf(w->meta_sha, sizeof w->meta_sha, "%.64s", line);
        if (f)
                (void) pclose(f);
        free(line);
        return r < 0 ? err_errno(e, r, "make an image") : 0;
}

static int open_instance(struct world *w, const char *libexec, struct err *e)
{
        struct instance *i = &w->inst;
        size_t n;
        const struct conf_option *options = instance_options(&n);
        char run[64];
        int r;

        (void) snprintf(w->dir, sizeof w->dir, "/var/tmp/hvmm-boot.XXXXXX");
        if (!mkdtemp(w->dir) || chmod(w->dir, 0711) < 0)
                return err_errno(e, -errno, "make %s", w->dir);
        i->data_fd = i->run_fd = i->lock_fd = -EBADF;
        r = conf_load(NULL, options, n, &i->conf, NULL, NULL, e);
        if (r >= 0)
                r = rand_id(i->id, sizeof i->id - 1);
        if (r < 0)
                return r;
        i->conf.cpu_overcommit = i->conf.memory_overcommit = i->conf.disk_overcommit = 100;
        i->conf.grace_us = 300000;
        i->data_dir = strdup(w->dir);
        i->libexec = strdup(libexec);
        i->data_fd = open(w->dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
        (void) mkdir("/run/hypervisor-vmm", 0755);
        (void) snprintf(run, sizeof run, "/run/hypervisor-vmm/%s", i->id);
        if (!i->data_dir || !i->libexec || i->data_fd < 0 || mkdir(run, 0711) < 0)
                return err_errno(e, -errno, "make %s", run);
        i->run_fd = open(run, O_PATH | O_DIRECTORY | O_CLOEXEC);
        return i->run_fd < 0 ? err_errno(e, -errno, "open %s", run) : 0;
}

int world_open(struct world *w, const char *libexec, struct err *e)
{
        struct host *h = &w->host;
        int r;

        *w = (struct world){ .host = { .inst = &w->inst } };
        h->disks = h->volumes = h->clusters = -EBADF;
        if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0)
                return err_errno(e, -errno, "make a private mount namespace");
        r = open_instance(w, libexec, e);
        if (r >= 0)
                r = claim_open(&w->inst, &h->claims, e);
        if (r >= 0)
                r = slice_host_open(w->inst.id, 0, &h->slices, e);
        if (r >= 0)
                r = net_host_open(&w->inst, h->claims, &h->net, e);
        if (r >= 0)
                r = image_store_open(&w->inst, &h->images, e);
        if (r >= 0)
                r = make_image(w, e);
        if (r >= 0)
                r = h->disks = instance_dir(&w->inst, "disks", e);
        if (r >= 0)
                r = h->volumes = instance_dir(&w->inst, "volumes", e);
        if (r >= 0)
                r = h->clusters = instance_dir(&w->inst, "clusters", e);
        return r >= 0 ? sandbox_prepare(e) : r;
}

int world_close(struct world *w, struct err *e)
{
        struct host *h = &w->host;
        size_t n;
        const struct conf_option *options = instance_options(&n);
        AUTO(fd) int tmp = open("/var/tmp", O_PATH | O_DIRECTORY | O_CLOEXEC);
        int r = h->net ? net_host_remove(h->net, e) : 0;

        if (r >= 0 && h->slices)
                r = slice_host_remove(h->slices, e);
        if (h->images && r >= 0)
                r = image_base_tidy(h->images, NULL, 0, e);
        if (w->inst.run_fd >= 0)
                (void) instance_remove_run(&w->inst);
        h->images = image_store_close(h->images);
        h->net = net_host_close(h->net);
        h->slices = slice_host_close(h->slices);
        h->claims = claim_close(h->claims);
        h->disks = fd_close(h->disks);
        h->volumes = fd_close(h->volumes);
        h->clusters = fd_close(h->clusters);
        w->inst.data_fd = fd_close(w->inst.data_fd);
        w->inst.run_fd = fd_close(w->inst.run_fd);
        conf_done(options, n, &w->inst.conf);
        free(w->inst.data_dir);
        free(w->inst.libexec);
        if (r >= 0 && tmp >= 0)
                r = fd_rm_rf(tmp, strrchr(w->dir, '/') + 1);
        return r;
}

/* --- the inventory --------------------------------------------------------------------------- */

static int on_claim(void *arg, const char *kind, uint32_t number, const char *cluster,
                    uint64_t generation)
{
        (void) generation;
        strbuf_fmt(arg, "%s %u of %s\n", kind, number, cluster);
        return 0;
}

static int on_slice(void *arg, const char *name)
{
        strbuf_fmt(arg, "group %s\n", name);
        return 0;
}

static int on_net(void *arg, const char *kind, const char *name, uint32_t slot)
{
        strbuf_fmt(arg, "%s %s %u\n", kind, name, slot);
        return 0;
}

/* Entries of a directory but hidden ones and those that @except names. */
static void list(struct strbuf *b, int at, const char *what, const char *except)
{
        int fd = openat(at, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        DIR *dir = fd < 0 ? NULL : fdopendir(fd);
        struct dirent *de;

        while (dir && (de = readdir(dir)) != NULL)
                if (de->d_name[0] != '.' && !str_eq(de->d_name, except))
                        strbuf_fmt(b, "%s %s\n", what, de->d_name);
        if (dir)
                (void) closedir(dir);
}

static void list_loops(struct strbuf *b, const char *dir)
{
        for (int i = 0; i < 4096; i++) {
                AUTO(free) char *backing = NULL;
                char path[64];

                (void) snprintf(path, sizeof path, "/sys/block/loop%d", i);
                if (access(path, F_OK) < 0)
                        break;
                (void) snprintf(path, sizeof path, "/sys/block/loop%d/loop/backing_file", i);
                if (fd_read_file(AT_FDCWD, path, 4096, &backing, NULL) >= 0 && strstr(backing, dir))
                        strbuf_fmt(b, "loop on %s", backing);
        }
}

static int compare(const void *a, const void *b)
{
        return strcmp(*(char *const *) a, *(char *const *) b);
}

static char *sorted(char *text)
{
        AUTO(free) char *copy = text;
        char *lines[512], *save = NULL;
        struct strbuf out = { 0 };
        size_t n = 0;

        for (char *l = strtok_r(copy, "\n", &save); l && n < NELEM(lines);
             l = strtok_r(NULL, "\n", &save))
                lines[n++] = l;
        qsort(lines, n, sizeof *lines, compare);
        for (size_t i = 0; i < n; i++)
                strbuf_fmt(&out, "%s\n", lines[i]);
        return n ? strbuf_take(&out) : strdup("");
}

char *world_held(struct world *w)
{
        struct strbuf b = { 0 };
        struct host *h = &w->host;

        strbuf_fmt(&b, "\n");
        (void) claim_each(h->claims, on_claim, &b);
        (void) slice_each(h->slices, on_slice, &b);
        (void) net_reap(h->net, NULL, NULL, NULL); /* links that wait for their end are no leak */
        (void) net_each(h->net, on_net, &b);
        list(&b, h->disks, "disk", "masters");
        list(&b, h->volumes, "volume", NULL);
        list(&b, h->clusters, "log", NULL);
        list(&b, w->inst.run_fd, "run file", "images"); /* places of base mounts */
        list_loops(&b, w->dir);
        return sorted(strbuf_take(&b));
}
