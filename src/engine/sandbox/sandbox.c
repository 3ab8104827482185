/* sandbox.c - see sandbox.h; the operation's part of starting a program in a shell.
 *
 * Always holds: when a start fails, launcher and first process are gone before it returns, also
 * when one of them was killed in the middle. */
#include "engine/sandbox/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/str.h"
#include "engine/sandbox/apparmor.h"
#include "engine/sandbox/sandbox_priv.h"

#define LAUNCHER       "vmm-launch"
#define MEMFD_EXEC     0x10U /* MFD_EXEC, which is younger than some C libraries */
#define NAME_MAX_MEMFD 200U  /* of a memfd's name, which is for people */

/* The one piece of state: written once at engine start, inherited by every fork from then on. */
static struct {
        struct filter *filter[SECURITY_PROFILE_COUNT]; /* the policy, compiled */
        struct cgroup_view view;
        enum overlay_way overlay;
        int programs[2]; /* vmm-launch, vmm-monitor; 0: not held */
} prepared;

int sandbox_prepare(struct err *e)
{
        AUTO(free) char *groups = NULL;
        int r;

        if (prepared.filter[SECURITY_STANDARD])
                return 0;
        r = fd_read_file(AT_FDCWD, "/proc/self/cgroup", 65536, &groups, NULL);
        if (r < 0)
                return err_errno(e, r, "read /proc/self/cgroup");
        cgroup_view_parse(groups, &prepared.view);
        prepared.overlay = overlay_probe();
        /* the one that is asked for above comes last: then all are there */
        for (int p = SECURITY_PROFILE_COUNT; r >= 0 && --p >= SECURITY_STANDARD;)
                r = filter_build(policy_rows, policy_n_rows, (enum security_profile) p,
                                 &prepared.filter[p], e);
        return r < 0 ? r : 0;
}

/* A copy of the program in memory that only the host's root may read or run.  What a tenant runs comes
 * out of it by execve, and the kernel resolves the interpreter of a script while /proc/self/exe still
 * is the launcher: "#!/proc/self/exe" would run, and open, the file on the host's disk. */
static int in_memory(int file, const char *path, off_t size, struct err *e)
{
        const size_t len = strlen(path);
        const char *name = len < NAME_MAX_MEMFD ? path : path + len - NAME_MAX_MEMFD;
        const unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
        const int seals = F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL;
        AUTO(fd) int fd = memfd_create(name, flags | MEMFD_EXEC);

        if (fd < 0 && errno == EINVAL) /* before 6.3, where every memfd may be executed */
                fd = memfd_create(name, flags);
        if (fd < 0)
                return err_errno(e, -errno, "memory file for %s", path);
        while (size > 0) {
                ssize_t n = sendfile(fd, file, NULL, (size_t) size);

                if (n <= 0)
                        return err_errno(e, n < 0 ? -errno : -EIO, "copy %s", path);
                size -= n;
        }
        if (fchmod(fd, S_IRUSR | S_IXUSR) < 0 || fcntl(fd, F_ADD_SEALS, seals) < 0)
                return err_errno(e, -errno, "seal %s", path);
        return fd_take(&fd);
}

static int open_program(const char *libexec, const char *name, struct err *e)
{
        AUTO(free) char *path = str_fmt("%s/%s", libexec, name);
        const bool copied = str_eq(name, LAUNCHER);
        AUTO(fd) int fd = path ? open(path, (copied ? O_RDONLY : O_PATH) | O_CLOEXEC) : -1;
        struct stat st;

        if (!path)
                return err_set(e, -ENOMEM, "out of memory");
        if (fd < 0 || fstat(fd, &st) < 0)
                return err_errno(e, -errno, "open %s", path);
        if (!S_ISREG(st.st_mode) || !(st.st_mode & S_IXOTH))
                return err_set(e, -EACCES, "%s cannot be executed by everybody", path);
        return copied ? in_memory(fd, path, st.st_size, e) : fd_take(&fd);
}

static const char *const program_names[] = { LAUNCHER, "vmm-monitor" };

int sandbox_hold_programs(const char *libexec, struct err *e)
{
        for (size_t i = 0; i < NELEM(program_names); i++) {
                int fd = open_program(libexec, program_names[i], e);

                if (fd < 0)
                        return fd;
                prepared.programs[i] = fd;
        }
        return 0;
}

static int get_program(size_t i, const char *libexec, struct err *e)
{
        int fd;

        if (prepared.programs[i] == 0)
                return open_program(libexec, program_names[i], e);
        fd = fcntl(prepared.programs[i], F_DUPFD_CLOEXEC, 3);
        return fd < 0 ? err_errno(e, -errno, "%s", program_names[i]) : fd;
}

int launch_prepare(struct launch *l, struct err *e)
{
        int r = sandbox_prepare(e);

        l->view = &prepared.view;
        if (r >= 0)
                r = l->program = get_program(1, l->place->libexec, e);
        if (r >= 0)
                r = l->launcher = get_program(0, l->place->libexec, e);
        return r < 0 ? r : 0;
}

int sandbox_overlay(int lower_mnt, int data_mnt, int upper_mnt, struct err *e)
{
        return overlay_make(lower_mnt, data_mnt, upper_mnt, prepared.overlay, e);
}

/* What a start holds until it is over. */
struct start {
        const struct sandbox_spec *s;
        struct sandbox_shell *shell;
        int order[NOTE_FDS]; /* enum order_fd; binds are borrowed */
        int run[RUN_COUNT];  /* enum run_fd; the spec's are borrowed */
        bool ready;          /* execve comes next */
};

static void start_init(struct start *g, const struct sandbox_spec *s, struct sandbox_shell *shell)
{
        *g = (struct start){ .s = s, .shell = shell };
        for (size_t i = 0; i < NOTE_FDS; i++)
                g->order[i] = -EBADF;
        for (size_t i = 0; i < RUN_COUNT; i++)
                g->run[i] = -EBADF;
        g->order[ORDER_ROOT] = s->root_mnt;
        g->run[RUN_LISTEN] = s->listen_fd;
        g->run[RUN_STATUS] = s->status_fd;
        g->run[RUN_LOG0] = s->log_fd[0];
        g->run[RUN_LOG1] = s->log_fd[1];
}

static void start_done(struct start *g)
{
        (void) fd_close(g->order[ORDER_PROGRAM]);
        for (size_t i = 0; i < 3; i++) {
                (void) fd_close(g->order[ORDER_IN + i]);
                (void) fd_close(g->run[RUN_IN + i]);
        }
}

/* A cluster's first process has no stdin: nobody could ever write it, and a program that reads it
 * (a shell, python) would wait for ever. */
static int make_pipes(struct start *g, bool stdin_too, uint32_t id_base, struct err *e)
{
        for (int i = stdin_too ? 0 : 1; i < 3; i++) {
                int p[2], in = i == 0 ? 0 : 1; /* the program's end */

                if (pipe2(p, O_CLOEXEC) < 0)
                        return err_errno(e, -errno, "pipe");
                g->order[ORDER_IN + i] = p[in];
                g->run[RUN_IN + i] = p[1 - in];
                if (fchown(p[in], id_base, id_base) < 0)
                        return err_errno(e, -errno, "hand over the pipes");
        }
        return 0;
}

static int check_spec(const struct sandbox_spec *s, struct err *e)
{
        if (str_empty(s->cluster) || strlen(s->cluster) >= sizeof((struct note *) 0)->cluster ||
            !s->argv || !s->argv[0] || !s->env || s->n_binds > SANDBOX_BINDS_MAX ||
            s->profile == SECURITY_NONE || !policy_of(s->profile))
                return err_set(e, -EINVAL, "sandbox: incomplete order");
        return 0;
}

static int own_binds(struct start *g, struct err *e)
{
        size_t k = ORDER_BINDS;

        for (size_t i = 0; i < g->s->n_binds; i++) {
                if (g->s->binds[i].host)
                        continue;
                if (k == NOTE_FDS)
                        return err_set(e, -E2BIG, "sandbox: more than %u mounts of its own",
                                       NOTE_FDS - ORDER_BINDS);
                g->order[k++] = g->s->binds[i].mnt;
        }
        return 0;
}

/* The host's files.  A note at least, even without any: /dev is complete. */
static int send_binds(const struct start *g, struct err *e)
{
        const struct sandbox_spec *s = g->s;
        int fds[NOTE_FDS], r;
        size_t i = 0;

        do {
                struct note n = { .type = NOTE_BINDS };
                size_t k = 0;

                for (; k < NOTE_FDS && i < s->n_binds; i++)
                        if (s->binds[i].host)
                                fds[k++] = s->binds[i].mnt;
                r = note_send(g->shell->report, &n, fds, k);
        } while (r >= 0 && i < s->n_binds);
        /* EPIPE: it has ended, and has said why */
        return r < 0 && r != -EPIPE ? err_errno(e, r, "mounts to the first process") : 0;
}

static int send_order(struct start *g, struct err *e)
{
        struct note n = { .type = NOTE_ORDER };
        int r = g->order[ORDER_PROGRAM] = program_write(g->s, prepared.filter[g->s->profile], e);

        if (r < 0)
                return r;
        r = own_binds(g, e);
        if (r < 0)
                return r;
        r = note_send(g->shell->report, &n, g->order, NOTE_FDS);
        if (r == -EPIPE)
                return err_set(e, -EOWNERDEAD, "the first process was killed");
        return r < 0 ? err_errno(e, r, "order to the first process") : 0;
}

/* The first process: 1 when its execve has happened. */
static int first_note(struct start *g, struct err *e)
{
        struct note n = { .type = NOTE_NONE };
        int fd = -EBADF, r = note_recv_one(g->shell->report, &n, &fd);

        if (r == -ECONNRESET) /* it ended before it took our order; what it said comes behind */
                r = note_recv_one(g->shell->report, &n, &fd);
        if (r < 0)
                return err_errno(e, r, "hear from the first process");
        if (r == 0)
                return g->ready ? 1 : err_set(e, -EOWNERDEAD, "the first process was killed");
        if (n.type == NOTE_PTY && fd >= 0 && g->s->tty && g->run[RUN_IN] < 0) {
                g->run[RUN_IN] = fd;
                return 0;
        }
        (void) fd_close(fd);
        if (n.type == NOTE_ERROR && n.err.code < 0)
                return err_copy(e, &n.err);
        if (n.type != NOTE_EXEC)
                return err_set(e, -EPROTO, "unexpected note from the first process");
        g->ready = true;
        return 0;
}

/* All that the launcher can say now is that it ends. */
static int launcher_note(struct start *g, struct err *e)
{
        struct note n = { .type = NOTE_NONE };
        int fd = -EBADF, r = note_recv_one(g->shell->up, &n, &fd);

        (void) fd_close(fd);
        if (r > 0 && n.type == NOTE_ERROR && n.err.code < 0)
                return err_copy(e, &n.err);
        return err_set(e, -EOWNERDEAD, "the launcher was killed");
}

static int await_exec(struct start *g, struct err *e)
{
        int r = 0;

        while (r == 0) {
                struct pollfd fds[] = { { .fd = g->shell->report, .events = POLLIN },
                                        { .fd = g->shell->up, .events = POLLIN } };

                if (poll(fds, NELEM(fds), -1) < 0) {
                        if (errno != EINTR)
                                return err_errno(e, -errno, "poll");
                        continue;
                }
                if (fds[0].revents)
                        r = first_note(g, e);
                else if (fds[1].revents)
                        r = launcher_note(g, e);
        }
        return r < 0 ? r : 0;
}

static int send_run(struct start *g, struct err *e)
{
        struct note n = { .type = NOTE_RUN,
                          .tty = g->s->tty,
                          .log_rate = g->s->log_rate,
                          .keep_s = g->s->keep_s };

        (void) snprintf(n.cluster, sizeof n.cluster, "%s", g->s->cluster);
        return note_send(g->shell->up, &n, g->run, RUN_COUNT) < 0
                       ? err_set(e, -EOWNERDEAD, "the launcher was killed")
                       : 0;
}

/* The kernel's own word: a profile that was unloaded by somebody since would confine nothing. */
static int check_label(const struct start *g, struct err *e)
{
        char label[APPARMOR_NAME_MAX];
        int r = str_empty(g->s->apparmor) ? -ESRCH : apparmor_label(g->shell->first, label);

        if (r == -ESRCH || (r >= 0 && str_eq(label, g->s->apparmor)))
                return 0; /* none wanted, or it has ended already */
        return err_set(e, -EPERM, "AppArmor profile %s does not confine it", g->s->apparmor);
}

static void hand_over(struct sandbox_shell *s, struct sandbox_proc *ret)
{
        *ret = (struct sandbox_proc){ .monitor = s->launcher,
                                      .init = s->first,
                                      .monitor_pidfd = fd_take(&s->launcher_pidfd),
                                      .init_pidfd = fd_take(&s->first_pidfd) };
}

/* The namespace was made for anybody. */
static int own_sysctls(const struct sandbox_spec *s, const struct sandbox_shell *shell,
                       struct err *e)
{
        const struct policy *p = policy_of(s->profile);

        return sysctls_apply(shell->first_pidfd, p->sysctls, p->n_sysctls, e);
}

/* @fresh: a cluster's first program, whose /dev is completed while it enters its root. */
static int start(const struct sandbox_spec *s, uint32_t id_base, bool fresh,
                 struct sandbox_shell *shell, struct sandbox_proc *ret, struct err *e)
{
        struct start g;
        int r = 0;

        start_init(&g, s, shell);
        if (r >= 0 && !s->tty)
                r = make_pipes(&g, !fresh, id_base, e);
        if (r >= 0)
                r = send_order(&g, e);
        if (r >= 0 && fresh)
                r = mounts_finish(s, id_base, shell->dev, shell->shm, e);
        if (r >= 0 && fresh)
                r = own_sysctls(s, shell, e);
        if (r >= 0 && s->meanwhile)
                r = s->meanwhile(s->meanwhile_arg, e);
        if (r >= 0)
                r = send_binds(&g, e);
        if (r >= 0)
                r = await_exec(&g, e);
        if (r >= 0)
                r = check_label(&g, e);
        if (r >= 0)
                r = send_run(&g, e);
        if (r >= 0)
                hand_over(shell, ret);
        else
                shell_kill(shell);
        start_done(&g);
        return r;
}

int sandbox_start(const struct sandbox_spec *s, uint32_t id_base, struct sandbox_shell *shell,
                  struct sandbox_proc *ret, struct err *e)
{
        int r = check_spec(s, e);

        if (r >= 0 && policy_of(s->profile)->n_memory > 0 && s->memory_bytes == 0)
                r = err_set(e, -EINVAL, "sandbox: incomplete order"); /* 0 would be no limit */
        if (r >= 0)
                r = sandbox_prepare(e);
        if (r < 0)
                shell_kill(shell);
        else
                r = start(s, id_base, true, shell, ret, e);
        sandbox_shell_done(shell);
        return r;
}

int sandbox_exec(const struct sandbox_spec *s, const struct sandbox_place *p, int init_pidfd,
                 struct sandbox_proc *ret, struct err *e)
{
        struct sandbox_shell shell;
        int r;

        if (init_pidfd < 0)
                return err_set(e, -EBADF, "sandbox: no first process to join");
        r = check_spec(s, e);
        if (r >= 0)
                r = shell_make(p, init_pidfd, &shell, e);
        if (r < 0)
                return r;
        r = start(s, p->id_base, false, &shell, ret, e);
        sandbox_shell_done(&shell);
        return r;
}

void sandbox_proc_done(struct sandbox_proc *p)
{
        p->monitor_pidfd = fd_close(p->monitor_pidfd);
        p->init_pidfd = fd_close(p->init_pidfd);
}
