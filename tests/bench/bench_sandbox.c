/* bench_sandbox.c - how long the launcher takes, without the rest of a boot.  Root.
 *
 * usage: bench_sandbox TREE LIBEXEC UPPER RUNS [PROGRAM [PROFILE]]
 * TREE holds PROGRAM (default /bin/true); LIBEXEC a vmm-monitor; UPPER is a
 * directory for container disks, or "tmpfs".  Network namespace, sysfs and id map are prepared
 * outside the measured time, as the engine's pools do; in every second run the shell, too.
 * Prints one line per figure, microseconds. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/str.h"
#include "engine/idmap.h"
#include "engine/sandbox/sandbox.h"

#define ID_BASE 0x60000000U
#define DIE(...)                                                                                   \
        do {                                                                                       \
                (void) fprintf(stderr, __VA_ARGS__);                                               \
                (void) fputc('\n', stderr);                                                        \
                exit(2);                                                                           \
        } while (0)

static double now_us(void)
{
        struct timespec t;

        (void) clock_gettime(CLOCK_MONOTONIC, &t);
        return (double) t.tv_sec * 1e6 + (double) t.tv_nsec / 1e3;
}

static int by_value(const void *a, const void *b)
{
        double x = *(const double *) a, y = *(const double *) b;

        return (x > y) - (x < y);
}

static void print(const char *name, double *v, size_t n)
{
        qsort(v, n, sizeof *v, by_value);
        (void) printf("%-20s p50 %7.0f  p99 %7.0f  min %7.0f us\n", name, v[n / 2], v[n * 99 / 100],
                      v[0]);
}

static int idmapped(const char *path, int userns)
{
        struct err e;
        int fd = open_tree(AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);

        if (fd < 0 || idmap_mount(fd, userns, 0, &e) < 0)
                DIE("%s: %s", path, fd < 0 ? strerror(errno) : e.msg);
        return fd;
}

static int fresh(const char *type, unsigned attrs)
{
        int fs = fsopen(type, FSOPEN_CLOEXEC), fd;

        if (fs < 0 || fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
                DIE("%s: %s", type, strerror(errno));
        fd = fsmount(fs, FSMOUNT_CLOEXEC, attrs);
        if (fd < 0)
                DIE("%s: %s", type, strerror(errno));
        (void) close(fs);
        return fd;
}

static void prepare_net(struct sandbox_place *s)
{
        int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);

        if (home < 0 || unshare(CLONE_NEWNET) < 0)
                DIE("netns: %s", strerror(errno));
        s->netns = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
        s->sysfs_mnt = fresh("sysfs", MOUNT_ATTR_RDONLY);
        if (s->netns < 0 || setns(home, CLONE_NEWNET) < 0)
                DIE("netns: %s", strerror(errno));
        (void) close(home);
}

static int upper(const char *where, size_t i, int userns)
{
        struct err e;
        char path[256];
        int fd;

        if (strcmp(where, "tmpfs") == 0) {
                fd = fresh("tmpfs", 0);
                if (idmap_mount(fd, userns, 0, &e) < 0)
                        DIE("%s", e.msg);
                return fd;
        }
        (void) snprintf(path, sizeof path, "%s/%zu", where, i);
        if (mkdir(path, 0755) < 0 && errno != EEXIST)
                DIE("%s: %s", path, strerror(errno));
        return idmapped(path, userns);
}

int main(int argc, char **argv)
{
        size_t n = argc > 4 ? strtoul(argv[4], NULL, 10) : 0;
        double *overlay = calloc(n + 1, sizeof *overlay);
        double *start[2] = { calloc(n + 1, sizeof **start), calloc(n + 1, sizeof **start) };
        char *run[] = { argc > 5 ? argv[5] : (char[]){ "/bin/true" }, NULL };
        char *env[] = { (char[]){ "PATH=/bin" }, NULL };
        struct slice_enter none = { .v2_dir = -EBADF };
        const struct sandbox_file files[] = {
                { "/etc/hosts", "127.0.0.1 localhost\n", 0644, false },
                { "/etc/hostname", "box\n", 0644, false },
                { "/etc/resolv.conf", "nameserver 10.0.0.1\n", 0644, false }
        };
        enum security_profile profile;
        int userns, lower;
        struct err e;

        if (argc < 5 || n == 0 || !overlay || !start[0] || !start[1])
                DIE("usage: bench_sandbox TREE LIBEXEC UPPER RUNS [PROGRAM [PROFILE]]");
        if (security_profile_parse("PROFILE", argc > 6 ? argv[6] : NULL, &profile, &e) < 0)
                DIE("%s", e.msg);
        userns = idmap_userns(ID_BASE, &e);
        if (userns < 0 || sandbox_prepare(&e) < 0)
                DIE("%s", e.msg);
        lower = idmapped(argv[1], userns);
        for (size_t i = 0; i < n; i++) {
                struct sandbox_spec s = { .cluster = "bench",
                                          .hostname = "bench",
                                          .files = files,
                                          .n_files = NELEM(files),
                                          .shm_bytes = 1 << 20,
                                          .memory_bytes = 64 << 20,
                                          .profile = profile,
                                          .argv = run,
                                          .env = env,
                                          .listen_fd = -EBADF,
                                          .log_fd = { -EBADF, -EBADF } };
                struct sandbox_place place = { .id_base = ID_BASE,
                                               .monitor_uid = ID_BASE - 1,
                                               .libexec = argv[2],
                                               .slice = &none };
                struct sandbox_shell shell;
                struct sandbox_proc p;
                int up = upper(argv[3], i, userns);
                double t0, t1;

                prepare_net(&place);
                if (i % 2 == 1 && sandbox_shell_make(&place, &shell, &e) < 0)
                        DIE("%s", e.msg);
                s.status_fd = memfd_create("status", MFD_CLOEXEC);
                t0 = now_us();
                s.root_mnt = sandbox_overlay(lower, -EBADF, up, &e);
                if (s.root_mnt < 0)
                        DIE("%s", e.msg);
                t1 = now_us();
                if (i % 2 == 0 && sandbox_shell_make(&place, &shell, &e) < 0)
                        DIE("%s", e.msg);
                if (sandbox_start(&s, ID_BASE, &shell, &p, &e) < 0)
                        DIE("%s", e.msg);
                start[i % 2][i / 2] = now_us() - t1;
                overlay[i] = t1 - t0;
                (void) waitid(P_PIDFD, (id_t) p.monitor_pidfd, &(siginfo_t){ 0 }, WEXITED);
                sandbox_proc_done(&p);
                (void) close(s.root_mnt);
                (void) close(place.netns);
                (void) close(place.sysfs_mnt);
                (void) close(s.status_fd);
                (void) close(up);
                (void) usleep(2000); /* the kernel takes namespaces apart in the background */
        }
        print("sandbox.overlay", overlay, n);
        print("sandbox.start", start[0], n / 2);
        print("sandbox.start_pooled", start[1], n / 2);
        return 0;
}
