/* stage_session.c - the session stage: log files, attach socket, monitor and first process; and
 * the orderly stop of them.  Operation process. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/str.h"
#include "engine/boot/logdir.h"
#include "engine/boot/session.h"
#include "engine/boot/stage.h"
#include "engine/claim/claim.h"
#include "engine/instance.h"
#include "engine/op/listen.h"
#include "engine/sandbox/apparmor.h"
#include "engine/sshtree.h"
#include "model/limits.h"
#include "model/secret.h"
#include "model/sshdir.h"

#define MIB             (1ULL << 20)
#define MONITOR_WAIT_US (3 * US_PER_S) /* the monitor drains pipes and syncs the exit status */
#define TERM_AT_ONCE    64U            /* descriptors */

/* What a login shell of an image without a profile of its own reads. */
static const char read_profiles[] = "for f in /etc/profile.d/*.sh; do\n"
                                    "\t[ -r \"$f\" ] && . \"$f\"\n"
                                    "done\n"
                                    "unset f\n";

/* Whom an SSH server can let in where the image knows no users. */
static const char root_alone[] = "root:x:0:0:root:/root:/bin/sh\n";

/* The volume and what the gpu stage has opened, as the launcher takes them; strings and descriptors
 * are borrowed. */
struct host_files {
        struct sandbox_bind *binds;
        size_t n_binds;
        struct sandbox_bind *proc_driver; /* one of them, opened last; NULL: no GPU */
        struct sandbox_symlink *symlinks;
        struct sandbox_library *libraries;
        struct sandbox_device *devices;
        int ssh[2]; /* mounts of the SSH server, ours to close; -EBADF: none */
};

static void host_files_done_cleanup(struct host_files *h)
{
        free(h->binds);
        free(h->symlinks);
        free(h->libraries);
        free(h->devices);
        for (size_t i = 0; i < NELEM(h->ssh); i++)
                (void) fd_close(h->ssh[i]);
}

/* The SSH server, and what its scp and sftp are answered by. */
static int ssh_files(const struct boot *b, struct host_files *h, struct err *e)
{
        int r = b->plan.start_ssh ? sshtree_clone(b->host->ssh, &h->ssh[0], &h->ssh[1], e) : 0;

        if (h->ssh[0] >= 0)
                h->binds[h->n_binds++] = (struct sandbox_bind){ h->ssh[0], SSH_DIR, true };
        if (h->ssh[1] >= 0)
                h->binds[h->n_binds++] = (struct sandbox_bind){ h->ssh[1], SSH_SFTP, true };
        return r;
}

static int host_files(const struct boot *b, struct host_files *h, struct err *e)
{
        const struct gpu_binding *g = &b->gpu;

        h->binds = calloc(g->n_mounts + 4, sizeof *h->binds);
        h->symlinks = calloc(g->n_symlinks + 1, sizeof *h->symlinks);
        h->libraries = calloc(g->n_libraries + 1, sizeof *h->libraries);
        h->devices = calloc(g->n_devices + 1, sizeof *h->devices);
        if (!h->binds || !h->symlinks || !h->libraries || !h->devices)
                return err_set(e, -ENOMEM, "out of memory");
        if (b->plan.volume_gib > 0)
                h->binds[h->n_binds++] =
                        (struct sandbox_bind){ b->volume_mnt, b->plan.volume_path, false };
        if (b->n_gpus > 0) {
                h->proc_driver = &h->binds[h->n_binds++];
                *h->proc_driver = (struct sandbox_bind){ -EBADF, "/proc/driver", true };
        }
        for (size_t i = 0; i < g->n_mounts; i++)
                h->binds[h->n_binds++] =
                        (struct sandbox_bind){ g->mounts[i].mnt, g->mounts[i].target, true };
        for (size_t i = 0; i < g->n_symlinks; i++)
                h->symlinks[i] =
                        (struct sandbox_symlink){ g->symlinks[i].target, g->symlinks[i].link };
        for (size_t i = 0; i < g->n_libraries; i++)
                h->libraries[i] =
                        (struct sandbox_library){ g->libraries[i].name, g->libraries[i].path,
                                                  g->libraries[i].is_32 };
        for (size_t i = 0; i < g->n_devices; i++)
                h->devices[i] = (struct sandbox_device){ g->devices[i].name, g->devices[i].fd,
                                                         g->devices[i].mode };
        return ssh_files(b, h, e);
}

struct late {
        struct boot *b;
        const struct host_files *host;
};

/* Copying what the driver says of eight GPUs takes 0.3 ms: as long as the first process takes to make links
 * to its files. */
static int open_proc_driver(void *arg, struct err *e)
{
        const struct late *l = arg;
        struct boot *b = l->b;
        int r = 0;

        if (l->host->proc_driver) {
                r = gpu_bind_proc(b->host->gpu_driver, b->gpus, b->n_gpus, &b->gpu, e);
                l->host->proc_driver->mnt = b->gpu.proc_mnt;
        }
        return r;
}

/* What a GPU's spec says wins over user and image, who could otherwise ask for "all". */
static int gpu_env(const struct boot *b, char ***env, struct err *e)
{
        for (char **v = b->gpu.env; v && *v; v++) {
                const char *eq = strchr(*v, '=');
                AUTO(free) char *key = strndup(*v, (size_t) (eq - *v));

                if (!key || strv_env_set(env, key, eq + 1) < 0)
                        return err_set(e, -ENOMEM, "out of memory");
        }
        return 0;
}

/* That of the standard profile was loaded with the slot. */
static int take_label(const struct boot *b, char ret[static APPARMOR_NAME_MAX], struct err *e)
{
        enum security_profile p = SECURITY_NONE;
        int r = security_profile_parse("securityProfile", b->plan.security_profile, &p, e);

        if (r < 0 || !b->host->apparmor)
                return r;
        apparmor_name(b->slot, p, ret);
        return p == SECURITY_STANDARD ? 0 : apparmor_prepare(b->host->apparmor, b->slot, p, e);
}

/* Those of @all that have a name; returns how many. */
static size_t wanted_files(const struct sandbox_file *all, size_t n, struct sandbox_file *ret)
{
        size_t k = 0;

        for (size_t i = 0; i < n; i++)
                if (all[i].target)
                        ret[k++] = all[i];
        return k;
}

/* Whom its SSH server lets in: by the account's keys of now, or as the plan's own variables say. */
static char *authorized_keys(const struct boot *b, char *const *own)
{
        return b->ssh_keys ? session_account_keys(b->ssh_keys) : session_authorized_keys(own);
}

static int start(struct boot *b, const struct logdir *l, int listener, char *const *argv,
                 char *const *env, char *const *own, char *const *shell_env,
                 const struct host_files *host, struct err *e)
{
        const struct plan *p = &b->plan;
        struct late late = { b, host };
        AUTO(free)
        char *hosts = session_hosts(p->cluster, &b->lease);
        AUTO(free) char *profile = session_profile(shell_env);
        AUTO(str_wipe_free) char *secrets = session_secret_profile(shell_env, env);
        AUTO(free) char *hostname = str_fmt("%s\n", p->cluster);
        AUTO(str_wipe_free) char *ssh_keys = authorized_keys(b, own);
        const bool ssh = p->start_ssh && !str_empty(p->ssh_host_key);
        const struct sandbox_file all[] = {
                { "/etc/hosts", hosts, 0644, false },
                { "/etc/hostname", hostname, 0644, false },
                { "/etc/resolv.conf", b->lease.resolv_conf ? b->lease.resolv_conf : "", 0644,
                  false },
                { "/etc/profile.d/tensorone.sh", profile, 0644, false },
                { "/etc/profile", read_profiles, 0644, true },
                { str_empty(secrets) ? NULL : SESSION_SECRETS, secrets, 0600, false },
                { ssh ? SSH_HOST_KEY : NULL, p->ssh_host_key, 0600, false },
                { ssh ? "~/.ssh/authorized_keys" : NULL, ssh_keys, 0600, false },
                { ssh && b->ssh_keys ? SSH_KEYS : NULL, b->ssh_keys, 0600, false },
                { ssh ? "/etc/passwd" : NULL, root_alone, 0644, true },
        };
        struct sandbox_file files[NELEM(all)];
        size_t n_files = wanted_files(all, NELEM(all), files);
        char label[APPARMOR_NAME_MAX] = "";
        const struct sandbox_spec spec = {
                .cluster = p->cluster,
                .hostname = p->cluster,
                .root_mnt = b->root_mnt,
                .meanwhile = open_proc_driver,
                .meanwhile_arg = &late,
                .binds = host->binds,
                .n_binds = host->n_binds,
                .files = files,
                .n_files = n_files,
                .symlinks = host->symlinks,
                .n_symlinks = b->gpu.n_symlinks,
                .libraries = host->libraries,
                .n_libraries = b->gpu.n_libraries,
                .devices = host->devices,
                .n_devices = b->gpu.n_devices,
                .shm_bytes = (p->shm_mib ? p->shm_mib : p->memory_mib / 2) * MIB,
                .argv = argv,
                .argv_field =
                        p->command_set || p->entrypoint ? "dockerArgs" : "the image's command",
                .env = env,
                .cwd = b->image.config.working_dir,
                .user = b->image.config.user,
                .memory_bytes = p->memory_mib * MIB,
                .profile = plan_profile(p),
                .apparmor = label,
                .listen_fd = listener,
                .status_fd = l->status,
                .log_fd = { l->log[0], l->log[1] },
                .log_rate = (uint32_t) b->host->inst->conf.log_bytes,
        };
        int r;

        if (!hosts || !profile || !secrets || !hostname || !ssh_keys)
                return err_set(e, -ENOMEM, "out of memory");
        r = take_label(b, label, e);
        return r < 0 ? r : sandbox_start(&spec, claim_id_base(b->slot), &b->shell, &b->proc, e);
}

/* An image that makes a file of its own of PUBLIC_KEY finds the keys of now, not those of the plan. */
static int keys_env(const struct boot *b, char ***env, struct err *e)
{
        AUTO(free) char *keys = b->ssh_keys ? session_account_keys(b->ssh_keys) : NULL;
        size_t n = keys ? strlen(keys) : 0;

        if (!b->ssh_keys)
                return 0;
        if (n > 0)
                keys[n - 1] = '\0';
        return keys && strv_env_set(env, "PUBLIC_KEY", keys) >= 0
                       ? 0
                       : err_set(e, -ENOMEM, "out of memory");
}

int stage_session_run(struct boot *b, struct err *e)
{
        struct logdir l = { { -EBADF, -EBADF }, -EBADF };
        AUTO(fd) int listener = -EBADF;
        AUTO(strv_free) char **argv = NULL, **env = NULL, **shell_env = strv_dup(b->plan.env);
        AUTO(secrets_free) char **own = NULL;
        AUTO(host_files_done) struct host_files host = { .ssh = { -EBADF, -EBADF } };
        char name[64];
        int r = session_argv(&b->plan, &b->image.config, &argv, e);

        if (r >= 0)
                r = secret_expand(b->plan.env, b->secrets, SECRET_FAIL, &own, e);
        if (r >= 0)
                r = session_env(&b->plan, own, &b->image.config, &env, e);
        if (r >= 0)
                r = gpu_env(b, &env, e);
        if (r >= 0)
                r = gpu_env(b, &shell_env, e);
        if (r >= 0)
                r = keys_env(b, &env, e);
        if (r >= 0)
                r = keys_env(b, &shell_env, e);
        if (r >= 0)
                r = session_ports(&b->ports, b->public_ip, &env, e);
        if (r >= 0)
                r = session_ports(&b->ports, b->public_ip, &shell_env, e);
        if (r >= 0)
                r = host_files(b, &host, e);
        if (r >= 0)
                r = logdir_open(b->host->clusters, b->plan.cluster, &l, e);
        boot_socket_name(b->plan.cluster, b->attempt, name);
        if (r >= 0)
                r = listener = op_listen(b->host->inst->run_fd, name, e);
        if (r >= 0)
                r = start(b, &l, listener, argv, env, own, shell_env, &host, e);
        logdir_done(&l);
        return r;
}

/* 1 when the process has ended, 0 at the deadline. */
static int wait_pidfd(int pidfd, uint64_t deadline_us)
{
        for (;;) {
                struct pollfd p = { .fd = pidfd, .events = POLLIN };
                uint64_t now = clock_mono_us();
                int r;

                if (now >= deadline_us)
                        return 0;
                r = poll(&p, 1, (int) ((deadline_us - now) / 1000 + 1));
                if (r < 0 && errno != EINTR)
                        return -errno;
                if (r > 0)
                        return 1;
        }
}

/* Whether the process catches SIGTERM: a first process of a pid namespace never receives a signal
 * that it does not catch, so waiting for its answer would be waiting for nothing. */
static bool catches_term(pid_t pid)
{
        AUTO(free) char *text = NULL;
        char path[64];
        const char *p;
        uint64_t caught;

        (void) snprintf(path, sizeof path, "/proc/%d/status", (int) pid);
        if (fd_read_file(AT_FDCWD, path, 8192, &text, NULL) < 0)
                return false;
        p = strstr(text, "\nSigCgt:");
        return p && str_u64_prefix(p + 8, 16, &caught) >= 0 && caught & (1ULL << (SIGTERM - 1));
}

struct pids {
        pid_t at[1024];
        size_t n;
};

static void read_pids(struct boot *b, struct pids *ret)
{
        char name[32];
        int n;

        boot_slice_name(b->slot, name);
        n = slice_pids(b->host->slices, name, ret->at, NELEM(ret->at), NULL);
        ret->n = n < 0 ? 0 : (size_t) n < NELEM(ret->at) ? (size_t) n : NELEM(ret->at);
}

static bool has_pid(const struct pids *p, pid_t pid)
{
        for (size_t i = 0; i < p->n; i++)
                if (p->at[i] == pid)
                        return true;
        return false;
}

/* Our SSH server has nothing to bring to an end.  Whoever takes its name is not waited for either. */
static bool is_ssh_server(pid_t pid)
{
        AUTO(free) char *name = NULL;
        char path[64];

        (void) snprintf(path, sizeof path, "/proc/%d/comm", (int) pid);
        return fd_read_file(AT_FDCWD, path, 64, &name, NULL) >= 0 &&
               (str_eq(name, "vmm-ssh\n") || str_eq(name, SSH_LOADER "\n"));
}

/* TERM to @n of the cluster's processes; returns how many of them are worth waiting for.  A number may have
 * been given to somebody else's process before its pidfd was opened: then the group, read again, does not hold it. */
static int term_some(struct boot *b, const pid_t *pid, size_t n)
{
        int fd[TERM_AT_ONCE], sent = 0;
        bool ours[TERM_AT_ONCE];
        struct pids now;

        for (size_t i = 0; i < n; i++)
                fd[i] = pid[i] == b->proc.init ? -EBADF : (int) syscall(SYS_pidfd_open, pid[i], 0);
        for (size_t i = 0; i < n; i++) /* while it lives */
                ours[i] = fd[i] >= 0 && is_ssh_server(pid[i]);
        read_pids(b, &now);
        for (size_t i = 0; i < n; i++) {
                if (fd[i] >= 0 && has_pid(&now, pid[i]) &&
                    syscall(SYS_pidfd_send_signal, fd[i], SIGTERM, NULL, 0) == 0)
                        sent += !ours[i];
                (void) fd_close(fd[i]);
        }
        return sent;
}

/* TERM to everybody in the cluster but the first process; returns how many of them to wait for. */
static int term_others(struct boot *b)
{
        struct pids p;
        int sent = 0;

        read_pids(b, &p);
        for (size_t i = 0; i < p.n; i += TERM_AT_ONCE)
                sent += term_some(b, p.at + i, p.n - i < TERM_AT_ONCE ? p.n - i : TERM_AT_ONCE);
        return sent;
}

static void stop_gracefully(struct boot *b)
{
        uint64_t deadline = clock_mono_us() + b->host->inst->conf.grace_us;
        bool wait = catches_term(b->proc.init);

        if (wait)
                (void) syscall(SYS_pidfd_send_signal, b->proc.init_pidfd, SIGTERM, NULL, 0);
        else
                wait = term_others(b) > 0;
        if (wait && wait_pidfd(b->proc.init_pidfd, deadline) == 1)
                return;
        (void) syscall(SYS_pidfd_send_signal, b->proc.init_pidfd, SIGKILL, NULL, 0);
}

int stage_session_undo(struct boot *b, const struct undo_how *how, struct err *e)
{
        char name[64];

        if (b->proc.init_pidfd >= 0) {
                if (how->graceful)
                        stop_gracefully(b);
                else
                        (void) syscall(SYS_pidfd_send_signal, b->proc.init_pidfd, SIGKILL, NULL, 0);
        }
        if (b->proc.monitor_pidfd >= 0)
                (void) wait_pidfd(b->proc.monitor_pidfd, clock_mono_us() + MONITOR_WAIT_US);
        boot_socket_name(b->plan.cluster, b->attempt, name);
        if (unlinkat(b->host->inst->run_fd, name, 0) < 0 && errno != ENOENT)
                return err_errno(e, -errno, "remove %s", name);
        if (!how->volume)
                return 0;
        return logdir_remove(b->host->clusters, b->plan.cluster, e);
}
