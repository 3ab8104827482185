/* api_child.c - see api_child.h.  Engine process, loop thread.
 *
 * The API's directory DIR/control belongs to its uid.  It is shown to it below the run directory,
 * in the engine's private mount namespace, so that no directory above DIR has to be open to it. */
#include "engine/api_child.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/proc.h"
#include "base/str.h"
#include "engine/claim/claim.h"
#include "engine/jail.h"
#include "engine/op/restart.h"

#define PROGRAM    "tensorone-api"
#define RESTART_US US_PER_S
#define STOP_MS    5000

struct api_child {
        struct api_child_spec spec;
        pid_t pid;
        int pidfd, ready_fd;
        sd_event_source *exit_src, *ready_src;
        struct restart again;
};

/* DIR/control for the API's uid, and the place where it sees it. */
static int prepare_dir(const struct instance *inst, struct err *e)
{
        AUTO(fd) int dir = instance_dir(inst, "control", e);
        AUTO(fd) int at = -EBADF;
        AUTO(fd) int tree = -EBADF;

        if (dir < 0)
                return dir;
        if (fchownat(dir, "", CLAIM_API_UID, CLAIM_API_UID, AT_EMPTY_PATH) < 0)
                return err_errno(e, -errno, "give %s/control to the API", inst->data_dir);
        at = fd_mkdir_beneath(inst->run_fd, "control", 0711);
        if (at < 0)
                return err_errno(e, at, "make the run directory's control");
        tree = (int) syscall(SYS_open_tree, dir, "",
                             AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
        if (tree < 0 || syscall(SYS_move_mount, tree, "", at, "",
                                MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0)
                return err_errno(e, -errno, "mount %s/control for the API", inst->data_dir);
        return 0;
}

/* The key files are made by us, so that they are root's; the API writes into each once. */
static int open_key(const struct instance *inst, const char *name, struct err *e)
{
        int fd = openat(inst->data_fd, name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

        return fd < 0 ? err_errno(e, -errno, "open %s/%s", inst->data_dir, name) : fd;
}

/* All that the API sees of the host's files. */
static void enter_root(char *data, char *node)
{
        const struct jail_row rows[] = {
                { "/usr/lib", JAIL_READ }, /* the loader and libraries, and the links to them */
                { "/usr/lib64", JAIL_READ },
                { "/usr/local/lib", JAIL_READ },
                { "/lib", JAIL_READ },
                { "/lib64", JAIL_READ },
                { "/etc/ld.so.cache", JAIL_READ },
                { "/etc/ssl/openssl.cnf", JAIL_READ }, /* the host's choice of ciphers */
                { "/dev/urandom", JAIL_DEVICE },       /* SQLite's temporary names */
                { data, JAIL_WRITE },                  /* the store */
                { node, JAIL_WRITE },                  /* the engine; connecting is writing */
        };
        struct err e = { 0 };

        if (jail_enter(rows, NELEM(rows), &e) >= 0)
                return;
        log_error(PROGRAM ": %s", e.msg);
        _exit(126);
}

/* The child: drop to the API's uid, keep the five descriptors, run. */
__attribute__((noreturn)) static void child(const struct api_child_spec *s, pid_t engine, int prog,
                                            int key, int seal, int ready)
{
        char listen_arg[16], key_arg[16], seal_arg[16], ready_arg[16], keep_arg[32], data[64],
                node[64], journal[64];
        char *argv[] = { (char *) (uintptr_t) PROGRAM,
                         (char *) (uintptr_t) "--listen-fd",
                         listen_arg,
                         (char *) (uintptr_t) "--node",
                         node,
                         (char *) (uintptr_t) "--data-dir",
                         data,
                         (char *) (uintptr_t) "--admin-key-fd",
                         key_arg,
                         (char *) (uintptr_t) "--seal-key-fd",
                         seal_arg,
                         (char *) (uintptr_t) "--ready-fd",
                         ready_arg,
                         (char *) (uintptr_t) "--audit-keep",
                         keep_arg,
                         (char *) (uintptr_t) "--log-level",
                         s->inst->conf.log_level,
                         s->cluster_domain ? (char *) (uintptr_t) "--cluster-domain" : NULL,
                         (char *) (uintptr_t) s->cluster_domain,
                         NULL };
        const char *stream = getenv("JOURNAL_STREAM"); /* it writes into the same journal */
        char *env[] = { (char *) (uintptr_t) "PATH=/usr/bin:/bin",
                        (char *) (uintptr_t) "LANG=C.UTF-8", stream ? journal : NULL, NULL };
        sigset_t none;

        (void) sigemptyset(&none);
        (void) sigprocmask(SIG_SETMASK, &none, NULL);
        (void) setpriority(PRIO_PROCESS, 0, 0);
        (void) snprintf(listen_arg, sizeof listen_arg, "%d", s->listen_fd);
        (void) snprintf(key_arg, sizeof key_arg, "%d", key);
        (void) snprintf(seal_arg, sizeof seal_arg, "%d", seal);
        (void) snprintf(ready_arg, sizeof ready_arg, "%d", ready);
        (void) snprintf(keep_arg, sizeof keep_arg, "%llus",
                        (unsigned long long) (s->inst->conf.audit_keep_us / US_PER_S));
        (void) snprintf(data, sizeof data, "/run/hypervisor-vmm/%s/control", s->inst->id);
        (void) snprintf(node, sizeof node, "/run/hypervisor-vmm/%s/node.sock", s->inst->id);
        (void) snprintf(journal, sizeof journal, "JOURNAL_STREAM=%s", stream ? stream : "");
        enter_root(data, node);
        if (proc_drop(CLAIM_API_UID, engine) < 0)
                _exit(126);
        (void) fd_set_cloexec(s->listen_fd, false);
        (void) fd_set_cloexec(key, false);
        (void) fd_set_cloexec(seal, false);
        (void) fd_set_cloexec(ready, false);
        (void) syscall(SYS_execveat, prog, "", argv, env, AT_EMPTY_PATH);
        _exit(127);
}

static void unwatch(struct api_child *c)
{
        c->exit_src = sd_event_source_disable_unref(c->exit_src);
        c->ready_src = sd_event_source_disable_unref(c->ready_src);
        c->pidfd = fd_close(c->pidfd);
        c->ready_fd = fd_close(c->ready_fd);
}

static int on_exit_event(sd_event_source *s, int fd, uint32_t revents, void *arg)
{
        struct api_child *c = arg;
        char why[64];

        (void) s;
        (void) fd;
        (void) revents;
        if (!restart_ended(c->pidfd, why, sizeof why))
                return 0;
        log_error(PROGRAM " %s; starting it again", why);
        unwatch(c);
        restart_later(&c->again);
        return 0;
}

static int on_ready_event(sd_event_source *s, int fd, uint32_t revents, void *arg)
{
        struct api_child *c = arg;
        char byte;

        (void) s;
        (void) revents;
        if (read(fd, &byte, 1) == 1 && c->spec.on_ready)
                c->spec.on_ready(c->spec.arg);
        c->ready_src = sd_event_source_disable_unref(c->ready_src);
        c->ready_fd = fd_close(c->ready_fd);
        return 0;
}

static int spawn(struct api_child *c, struct err *e)
{
        AUTO(free) char *path = str_fmt("%s/" PROGRAM, c->spec.inst->libexec);
        AUTO(fd) int prog = path ? open(path, O_PATH | O_CLOEXEC) : -1;
        AUTO(fd) int key = open_key(c->spec.inst, "admin.key", e);
        AUTO(fd) int seal = key < 0 ? key : open_key(c->spec.inst, "seal.key", e);
        AUTO(fd) int ready = -EBADF;
        pid_t engine = getpid();
        int p[2], r;

        if (seal < 0)
                return seal;
        if (prog < 0)
                return err_errno(e, -errno, "%s", path ? path : PROGRAM);
        if (pipe2(p, O_CLOEXEC) < 0)
                return err_errno(e, -errno, "pipe");
        c->ready_fd = p[0];
        ready = p[1];
        c->pid = fork();
        if (c->pid < 0)
                return err_errno(e, -errno, "fork " PROGRAM);
        if (c->pid == 0)
                child(&c->spec, engine, prog, key, seal, ready);
        c->pidfd = (int) syscall(SYS_pidfd_open, c->pid, 0);
        r = c->pidfd < 0 ? -errno : 0;
        if (r >= 0)
                r = sd_event_add_io(c->spec.loop, &c->exit_src, c->pidfd, EPOLLIN, on_exit_event,
                                    c);
        if (r >= 0)
                r = sd_event_add_io(c->spec.loop, &c->ready_src, c->ready_fd, EPOLLIN,
                                    on_ready_event, c);
        if (r >= 0)
                return 0;
        (void) kill(c->pid, SIGKILL); /* not reaped yet, so the number is still its own */
        (void) waitpid(c->pid, NULL, 0);
        unwatch(c);
        return err_errno(e, r, "watch " PROGRAM);
}

static void on_restart(void *arg)
{
        struct api_child *c = arg;
        struct err e = { 0 };

        restart_begun(&c->again);
        if (spawn(c, &e) >= 0)
                return;
        log_error("%s", e.msg);
        unwatch(c);
        restart_later(&c->again);
}

int api_child_start(const struct api_child_spec *spec, struct api_child **ret, struct err *e)
{
        AUTO(api_child_stop) struct api_child *c = calloc(1, sizeof *c);
        int r;

        if (!c)
                return err_set(e, -ENOMEM, "out of memory");
        c->spec = *spec;
        c->pidfd = c->ready_fd = -EBADF;
        c->again = (struct restart){ .loop = spec->loop,
                                     .program = PROGRAM,
                                     .first_us = RESTART_US,
                                     .most_us = RESTART_US,
                                     .start = on_restart,
                                     .arg = c };
        r = prepare_dir(spec->inst, e);
        if (r >= 0)
                r = spawn(c, e);
        if (r < 0)
                return r;
        *ret = TAKE(c);
        return 0;
}

struct api_child *api_child_stop(struct api_child *c)
{
        char path[64];

        if (!c)
                return NULL;
        if (c->pidfd >= 0) {
                struct pollfd p = { .fd = c->pidfd, .events = POLLIN };

                (void) syscall(SYS_pidfd_send_signal, c->pidfd, SIGTERM, NULL, 0);
                if (poll(&p, 1, STOP_MS) <= 0)
                        (void) syscall(SYS_pidfd_send_signal, c->pidfd, SIGKILL, NULL, 0);
                (void) waitid(P_PIDFD, (id_t) c->pidfd, &(siginfo_t){ 0 }, WEXITED);
        }
        (void) snprintf(path, sizeof path, "/run/hypervisor-vmm/%s/control", c->spec.inst->id);
        (void) umount2(path, MNT_DETACH);
        sd_event_source_disable_unref(c->exit_src);
        sd_event_source_disable_unref(c->ready_src);
        restart_done(&c->again);
        (void) fd_close(c->pidfd);
        (void) fd_close(c->ready_fd);
        free(c);
        return NULL;
}
