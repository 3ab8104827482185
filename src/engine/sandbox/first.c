/* first.c - the process that becomes the cluster's program: its first one, or one of an exec
 * session.  A fork of the launcher; it has left the host's namespaces and, from its first line on,
 * has no right outside its own.  It prepares what does not depend on the program, and waits.
 *
 * It is not dumpable, so that for an exec session, whose process the cluster sees from its first
 * instant, nothing in there can look into it or take its descriptors while it is still one of ours.
 * All of those are closed before a path of the cluster's is executed.  Any failure is told to the
 * operation as one sentence, and the process ends. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/magic.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <termios.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/str.h"
#include "engine/sandbox/sandbox_priv.h"

#define REPORT_FD 3 /* the only descriptor beside 0 to 2 at execve, and it closes there */

/* Become id 0 of the cluster: until now we were the host's root without rights. */
static int become_root(struct err *e)
{
        if (setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0 || setgroups(0, NULL) < 0)
                return err_errno(e, -errno, "become root of the cluster");
        if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
                return err_errno(e, -errno, "forbid core dumps");
        return 0;
}

static int enter_group(const struct launch *l, struct err *e)
{
        const struct slice_enter *s = l->place->slice;
        int r = s && s->v2_dir < 0 ? slice_enter_self(s) : 0; /* v2: clone3() put us there */

        return r < 0 ? err_errno(e, r, "enter the cluster's group") : 0;
}

/* A cluster's own: namespaces are ours already, but for the view on the group, which follows the
 * group. */
static int prepare_new(const struct launch *l, struct tree *t, struct err *e)
{
        int r;

        if (unshare(CLONE_NEWCGROUP) < 0)
                return err_errno(e, -errno, "cgroup namespace");
        r = become_root(e);
        return r < 0 ? r : mounts_prepare(l, t, e);
}

/* Exec session: we are in the cluster's pid namespace; join all its others. */
static int prepare_join(const struct launch *l, struct err *e)
{
        if (setns(l->join, CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC |
                                   CLONE_NEWUTS | CLONE_NEWCGROUP) < 0)
                return err_errno(e, -errno, "join the cluster");
        return become_root(e);
}

/* All that can be done before there is a program.  What is not needed any more is closed: a shell
 * may wait for hours. */
static int prepare(struct launch *l, struct tree *t, struct err *e)
{
        struct note n = { .type = NOTE_NONE };
        int fd = -EBADF, r = enter_group(l, e);

        if (r < 0)
                return r;
        l->label = confine_open_label(l->proc);
        l->proc = fd_close(l->proc);
        if (note_recv_one(l->report, &n, &fd) <= 0 || n.type != NOTE_GO)
                return err_set(e, -EPIPE, "the operation has ended");
        r = l->join < 0 ? prepare_new(l, t, e) : prepare_join(l, e);
        if (r >= 0)
                r = confine_bounding(policy_of(SECURITY_NONE), e);
        if (r >= 0) {
                int keep[] = { l->report, l->label, t->dev, t->proc, t->sys };

                r = fd_close_except(STDERR_FILENO + 1, keep, NELEM(keep));
                if (r < 0)
                        return err_errno(e, r, "close descriptors");
        }
        n.type = NOTE_READY;
        if (r >= 0 && note_send(l->report, &n, NULL, 0) < 0)
                r = err_set(e, -EPIPE, "the operation has ended");
        return r;
}

struct binds {
        const struct launch *l;
        struct program *p;
};

/* Wait for the host's files, and for what the operation had to do in /dev. */
static int take_binds(void *arg, struct err *e)
{
        const struct binds *b = arg;
        struct sandbox_bind *at = b->p->binds, *end = at + b->p->spec.n_binds;
        struct note n = { .type = NOTE_NONE };
        int fds[NOTE_FDS];

        do {
                int r = note_recv(b->l->report, &n, fds);

                if (r <= 0 || n.type != NOTE_BINDS)
                        return err_set(e, -EPIPE, "the operation has ended");
                for (size_t k = 0; k < NOTE_FDS && at < end; at++)
                        if (at->host)
                                at->mnt = fds[k++];
        } while (at < end);
        return 0;
}

/* Wait for a program; its descriptors come along. */
static int take_order(const struct launch *l, struct program *p, int fds[static NOTE_FDS],
                      struct err *e)
{
        struct note n = { .type = NOTE_NONE };
        int r = note_recv(l->report, &n, fds);

        if (r <= 0 || n.type != NOTE_ORDER)
                return err_set(e, -EPIPE, "the operation has ended");
        r = program_read(fds[ORDER_PROGRAM], p, e);
        if (r < 0)
                return r;
        p->spec.root_mnt = fds[ORDER_ROOT];
        for (size_t i = 0, k = ORDER_BINDS; i < p->spec.n_binds && k < NOTE_FDS; i++)
                if (!p->binds[i].host)
                        p->binds[i].mnt = fds[k++];
        return 0;
}

/* Where the program will live; O_PATH on its root. */
static int enter_root(const struct launch *l, struct program *p, const struct tree *t,
                      struct err *e)
{
        const struct sandbox_spec *s = &p->spec;
        struct binds binds = { l, p };
        const struct inject_wait wait = { take_binds, &binds };
        AUTO(fd) int root = -EBADF;
        int r;

        if (l->join >= 0)
                root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
        else if (sethostname(s->hostname, strlen(s->hostname)) < 0)
                return err_errno(e, -errno, "set the host name");
        else
                root = mounts_enter(s, t, e);
        if (root < 0)
                return l->join >= 0 ? err_errno(e, -errno, "open /") : root;
        r = l->join < 0 ? mounts_fill(root, s, &wait, e) : take_binds(&binds, e);
        return r < 0 ? r : fd_take(&root);
}

/* A terminal of the cluster's own devpts; the master goes to the monitor.  In an exec session the
 * tenant may have bent everything but mounts, so each step is checked. */
static int open_tty(const struct launch *l, const struct sandbox_spec *s, int root,
                    const struct user *u, struct err *e)
{
        const struct winsize size = { .ws_row = s->rows, .ws_col = s->cols };
        AUTO(fd) int pts = fd_open_beneath(root, "dev/pts", O_PATH | O_DIRECTORY, 0);
        AUTO(fd) int master = -EBADF, slave = -EBADF;
        struct note n = { .type = NOTE_PTY };
        struct statfs fs;
        struct stat st;
        int unlock = 0;

        if (pts < 0)
                return err_errno(e, pts, "open /dev/pts");
        if (fstatfs(pts, &fs) < 0 || fs.f_type != DEVPTS_SUPER_MAGIC)
                return err_set(e, -ENODEV, "/dev/pts is not what it should be");
        master = openat(pts, "ptmx", O_RDWR | O_NOCTTY | O_NOFOLLOW | O_CLOEXEC);
        if (master < 0 || fstat(master, &st) < 0)
                return err_errno(e, -errno, "open a terminal");
        if (!S_ISCHR(st.st_mode) || st.st_rdev != makedev(5, 2))
                return err_set(e, -ENODEV, "/dev/pts/ptmx is not what it should be");
        if (ioctl(master, TIOCSPTLCK, &unlock) < 0)
                return err_errno(e, -errno, "unlock the terminal");
        slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
        if (slave < 0)
                return err_errno(e, -errno, "open the terminal's other end");
        if (size.ws_row && size.ws_col && ioctl(slave, TIOCSWINSZ, &size) < 0)
                return err_errno(e, -errno, "size of the terminal");
        if (fchown(slave, u->uid, SANDBOX_TTY_GID) < 0 || ioctl(slave, TIOCSCTTY, 0) < 0)
                return err_errno(e, -errno, "take the terminal");
        for (int i = 0; i < 3; i++)
                if (dup2(slave, i) < 0)
                        return err_errno(e, -errno, "terminal as descriptor %d", i);
        return note_send(l->report, &n, &master, 1) < 0
                       ? err_set(e, -EPIPE, "the operation has ended")
                       : 0;
}

/* Stdin of a cluster's first process: the null device of its own /dev, which nobody inside has
 * touched yet. */
static int open_null(int root, struct err *e)
{
        AUTO(fd) int fd = fd_open_beneath(root, "dev/null", O_RDONLY | O_NOFOLLOW | O_CLOEXEC, 0);

        if (fd < 0)
                return err_errno(e, fd, "open /dev/null");
        return dup2(fd, STDIN_FILENO) < 0 ? err_errno(e, -errno, "/dev/null as stdin") : 0;
}

/* Pipes belong to the program's user, so that it can open /dev/stdout again. */
static int open_pipes(const int io[3], int root, const struct user *u, struct err *e)
{
        int r = io[0] < 0 ? open_null(root, e) : 0;

        for (int i = io[0] < 0 ? 1 : 0; i < 3 && r >= 0; i++) {
                if (fchown(io[i], u->uid, u->gid) < 0)
                        return err_errno(e, -errno, "hand over the pipes");
                if (dup2(io[i], i) < 0)
                        return err_errno(e, -errno, "pipe as descriptor %d", i);
        }
        return r;
}

/* By descriptor, so that it is what was checked, and inside, so that getcwd() can name it. */
static int enter_cwd(int root, const char *path, struct err *e)
{
        const char *cwd = str_empty(path) ? "/" : path;
        char buf[PATH_MAX];
        AUTO(fd) int fd = root_mkdirs(root, cwd, 0755);

        if (fd < 0)
                return err_errno(e, fd, "working directory %s", cwd);
        if (fchdir(fd) < 0)
                return err_errno(e, -errno, "working directory %s", cwd);
        if (syscall(SYS_getcwd, buf, sizeof buf) < 0 || buf[0] != '/')
                return err_set(e, -EXDEV, "working directory %s lies outside", cwd);
        return 0;
}

static int add_home(char ***env, char *const *from, const struct user *u, struct err *e)
{
        *env = strv_dup(from);
        if (!*env || (!strv_env_get(*env, "HOME") && strv_env_set(env, "HOME", u->home) < 0))
                return err_set(e, -ENOMEM, "environment: out of memory");
        return 0;
}

/* Close, not only on execve: a program's path or interpreter may lead over /proc/self/fd, and no
 * mount or directory of ours must be found there. */
static int close_all(struct launch *l, struct err *e)
{
        int r;

        if (l->report != REPORT_FD && dup3(l->report, REPORT_FD, O_CLOEXEC) < 0)
                return err_errno(e, -errno, "move a descriptor");
        l->report = REPORT_FD;
        r = fd_close_from(REPORT_FD + 1);
        return r < 0 ? err_errno(e, r, "close descriptors") : 0;
}

/* From an order to the last step before execve. */
static int become_program(struct launch *l, struct program *p, const struct tree *t,
                          const int fds[static NOTE_FDS], char ***env, struct err *e)
{
        const struct sandbox_spec *s = &p->spec;
        struct note n = { .type = NOTE_EXEC };
        struct user u;
        int root = enter_root(l, p, t, e), r = root;

        if (r >= 0)
                r = user_resolve(root, s->user, &u, e);
        if (r >= 0)
                r = enter_cwd(root, s->cwd, e);
        if (r >= 0 && l->join < 0) /* all that is ours has been written */
                r = mounts_seal(s, root, e);
        if (r >= 0)
                r = add_home(env, s->env, &u, e);
        if (r >= 0)
                r = s->tty ? open_tty(l, s, root, &u, e) : open_pipes(&fds[ORDER_IN], root, &u, e);
        if (r >= 0)
                r = confine_limits(s, e);
        if (r >= 0 && !str_empty(s->apparmor))
                r = confine_label(l->label, s->apparmor, e);
        if (r >= 0)
                r = close_all(l, e);
        if (r >= 0)
                r = confine_rights(p->filter, s, &u, e);
        if (r >= 0 && note_send(l->report, &n, NULL, 0) < 0)
                r = err_set(e, -EPIPE, "the operation has ended");
        return r;
}

static int run(struct launch *l, struct err *e)
{
        AUTO(program_done) struct program p = { .text = NULL };
        AUTO(strv_free) char **env = NULL;
        struct tree t = { -EBADF, -EBADF, -EBADF };
        int fds[NOTE_FDS], r;

        l->up = fd_close(l->up); /* its end is the launcher's death, which the operation must see */
        if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0 || setsid() < 0)
                return err_errno(e, -errno, "new session");
        (void) umask(022);
        r = prepare(l, &t, e);
        if (r >= 0)
                r = take_order(l, &p, fds, e);
        if (r >= 0)
                r = become_program(l, &p, &t, fds, &env, e);
        if (r < 0)
                return r;
        r = confine_exec(p.spec.argv, env, e);
        return str_empty(p.spec.argv_field) ? r : err_wrap(e, r, "%s", p.spec.argv_field);
}

_Noreturn void first_run(struct launch *l)
{
        struct note n = { .type = NOTE_ERROR };
        int r = run(l, &n.err);

        n.err.code = r;
        (void) note_send(l->report, &n, NULL, 0);
        _exit(127);
}
