/* confine.c - the way down: limits, rights and the last system call.  First process (and, for
 * confine_monitor(), the launcher), right before it becomes a program that is not ours.
 *
 * Everything here only ever takes away.  The filter goes in while CAP_SYS_ADMIN over the cluster's
 * own namespace is still there, so that it does not depend on no_new_privs; ids and capabilities
 * follow, through calls that the filter allows. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/keyctl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/str.h"
#include "engine/sandbox/sandbox_priv.h"

#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#define CAP_BIT(c)   (1ULL << (c))

void confine_signals(void)
{
        /* The kernel's own form of "default", for all 64: an ignored signal survives execve (and
         * CLONE_CLEAR_SIGHAND), and the C library keeps two of them for itself. */
        static const struct {
                void (*handler)(int);
                unsigned long flags;
                void (*restorer)(void);
                uint64_t mask;
        } dfl = { 0 };
        sigset_t none;

        for (int i = 1; i < NSIG; i++)
                (void) syscall(SYS_rt_sigaction, i, &dfl, NULL, sizeof dfl.mask);
        (void) sigemptyset(&none);
        (void) sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Lower to @want, or keep a hard limit that is lower: raising one takes a right we do not need. */
static int limit(int what, uint64_t want, struct err *e)
{
        struct rlimit now;

        if (getrlimit((__rlimit_resource_t) what, &now) < 0)
                return err_errno(e, -errno, "getrlimit");
        now.rlim_max = want < now.rlim_max ? want : now.rlim_max;
        now.rlim_cur = now.rlim_max;
        if (setrlimit((__rlimit_resource_t) what, &now) < 0)
                return err_errno(e, -errno, "setrlimit");
        return 0;
}

int confine_limits(const struct sandbox_spec *s, struct err *e)
{
        const struct policy *p = policy_of(s->profile);
        int r = 0;

        for (size_t i = 0; i < p->n_rlimits && r >= 0; i++)
                r = limit(p->rlimits[i].what, p->rlimits[i].value, e);
        if (r >= 0 && s->nofile)
                r = limit(RLIMIT_NOFILE, s->nofile, e);
        (void) setpriority(PRIO_PROCESS, 0, 0); /* an engine with a better nice value keeps it */
        /* the session keyring that we inherited is the host's */
        if (r >= 0 && syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL) < 0 && errno != ENOSYS)
                r = err_errno(e, -errno, "new session keyring");
        return r;
}

int confine_open_proc(struct err *e)
{
        AUTO(fd) int fd = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
        struct statfs st;

        if (fd < 0 || fstatfs(fd, &st) < 0)
                return err_errno(e, -errno, "open /proc");
        return st.f_type == PROC_SUPER_MAGIC
                       ? fd_take(&fd)
                       : err_set(e, -ENODEV, "/proc is not what it should be");
}

/* "self" is a plain link, and tells our number in the host's process list, whichever namespaces we are
 * in by now.  The file stays the attribute of this process alone: the kernel takes a value only from the
 * one who opened it. */
int confine_open_label(int proc)
{
        const struct open_how how = { .flags = O_WRONLY | O_CLOEXEC,
                                      .resolve = RESOLVE_BENEATH | RESOLVE_NO_XDEV |
                                                 RESOLVE_NO_MAGICLINKS };
        int fd = (int) syscall(SYS_openat2, proc, "self/attr/apparmor/exec", &how, sizeof how);

        return fd < 0 ? -errno : fd;
}

int confine_label(int label, const char *name, struct err *e)
{
        char value[64];
        int n = snprintf(value, sizeof value, "exec %s", name);
        ssize_t r;

        if (label < 0)
                return err_errno(e, label, "AppArmor profile %s: open our attribute", name);
        if (n < 0 || (size_t) n >= sizeof value)
                return err_set(e, -ENAMETOOLONG, "AppArmor profile %s", name);
        r = write(label, value, (size_t) n);
        return r == n ? 0
                      : err_errno(e, r < 0 ? -errno : -EIO, "AppArmor profile %s: take it", name);
}

/* Nothing outside @keep can come back through an execve. */
static int drop_bounding(uint64_t keep, struct err *e)
{
        for (unsigned c = 0; c < 64; c++) {
                if (keep & CAP_BIT(c))
                        continue;
                if (prctl(PR_CAPBSET_DROP, c, 0, 0, 0) < 0) {
                        if (errno == EINVAL)
                                break; /* beyond this kernel's last one */
                        return err_errno(e, -errno, "drop capability %u", c);
                }
        }
        return 0;
}

static int set_caps(uint64_t keep, struct err *e)
{
        struct __user_cap_header_struct h = { .version = _LINUX_CAPABILITY_VERSION_3 };
        struct __user_cap_data_struct d[2] = { { 0 } };

        for (unsigned i = 0; i < 2; i++)
                d[i].effective = d[i].permitted = (uint32_t) (keep >> (32 * i));
        if (syscall(SYS_capset, &h, d) < 0)
                return err_errno(e, -errno, "set capabilities");
        if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
                return err_errno(e, -errno, "clear ambient capabilities");
        return 0;
}

static int set_ids(uid_t uid, gid_t gid, const gid_t *groups, size_t n, struct err *e)
{
        if (setgroups(n, groups) < 0)
                return err_errno(e, -errno, "setgroups");
        if (setresgid(gid, gid, gid) < 0)
                return err_errno(e, -errno, "setresgid %u", gid);
        if (setresuid(uid, uid, uid) < 0)
                return err_errno(e, -errno, "setresuid %u", uid);
        return 0;
}

static int load_filter(const struct filter *f, struct err *e)
{
        struct sock_fprog prog = { .len = f->len };

        memcpy(&prog.filter, &(const struct sock_filter *){ f->insn }, sizeof prog.filter);
        if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &prog) < 0)
                return err_errno(e, -errno, "load the seccomp filter");
        return 0;
}

int confine_bounding(const struct policy *p, struct err *e)
{
        return drop_bounding(p->capabilities, e);
}

int confine_rights(const struct filter *f, const struct sandbox_spec *s, const struct user *u,
                   struct err *e)
{
        const struct policy *p = policy_of(s->profile);
        int r;

        if (!p->new_privs && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
                return err_errno(e, -errno, "no_new_privs");
        r = load_filter(f, e);
        if (r >= 0) /* all but what any profile keeps went ahead */
                r = drop_bounding(p->capabilities | ~policy_of(SECURITY_NONE)->capabilities, e);
        if (r >= 0)
                r = set_caps(p->capabilities, e);
        if (r >= 0) /* another uid than 0 loses what is left of them here */
                r = set_ids(u->uid, u->gid, u->groups, u->n_groups, e);
        return r;
}

int confine_monitor(uint32_t uid, struct err *e)
{
        int r;

        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
                return err_errno(e, -errno, "no_new_privs");
        r = drop_bounding(0, e);
        return r < 0 ? r : set_ids(uid, uid, NULL, 0, e); /* leaving id 0 clears the others */
}

/* One candidate.  A path that ends in a magic link (/proc/self/exe is our own program, on the
 * host's disk) is refused before the kernel would follow it. */
static int try_exec(const char *path, char *const *argv, char *const *env, struct err *e)
{
        struct open_how how = { .flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_NO_MAGICLINKS };
        int fd = (int) syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof how);

        if (fd < 0)
                return err_errno(e, -errno, "exec %s", path);
        (void) close(fd);
        (void) execve(path, argv, env);
        if (errno == ENOENT)
                return err_set(e, -ENOEXEC, "exec %s: its interpreter is not in the image", path);
        return err_errno(e, -errno, "exec %s", path);
}

int confine_exec(char *const *argv, char *const *env, struct err *e)
{
        const char *path = strv_env_get(env, "PATH");
        struct err first = { .code = 0 };
        char full[PATH_MAX];
        int r;

        if (strchr(argv[0], '/'))
                return try_exec(argv[0], argv, env, e);
        if (argv[0][0] == '\0')
                return err_set(e, -ENOENT, "exec '': No such file or directory");
        for (path = str_empty(path) ? DEFAULT_PATH : path; path;) {
                size_t n = strcspn(path, ":");

                r = snprintf(full, sizeof full, "%.*s%s%s", (int) n, path, n ? "/" : "./", argv[0]);
                if (r < (int) sizeof full) {
                        struct err now = { .code = 0 };

                        r = try_exec(full, argv, env, &now);
                        if (r != -ENOENT && r != -ENOTDIR && first.code == 0)
                                first = now; /* found, but unfit: more telling than "not found" */
                        if (r != -ENOENT && r != -ENOTDIR && r != -EACCES)
                                break;
                }
                path = path[n] ? path + n + 1 : NULL;
        }
        if (first.code)
                return err_copy(e, &first);
        return err_errno(e, -ENOENT, "exec %s", argv[0]);
}
