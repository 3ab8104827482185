/* disk_tool.c - running mkfs.ext4, e2fsck and resize2fs.
 *
 * Runs in operation processes; the child is the program.
 * Always: fixed path and arguments, empty environment, only the disk's descriptor; no capability, no
 * new privileges, no network; with Landlock (where the kernel has it: a second fence) no file but the
 * disk itself can be written; it is killed when the operation ends. */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "engine/disk/disk_priv.h"

#define FILE_FD      3
#define EXIT_NO_EXEC 127
#define SAID_MAX     2048U

#define FS_READ                                                                                    \
        (LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
#define FS_ALL_V1                                                                                  \
        (FS_READ | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_DIR |                 \
         LANDLOCK_ACCESS_FS_REMOVE_FILE | LANDLOCK_ACCESS_FS_MAKE_CHAR |                           \
         LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_MAKE_REG |                               \
         LANDLOCK_ACCESS_FS_MAKE_SOCK | LANDLOCK_ACCESS_FS_MAKE_FIFO |                             \
         LANDLOCK_ACCESS_FS_MAKE_BLOCK | LANDLOCK_ACCESS_FS_MAKE_SYM)

/* --- in the child: nothing but system calls ------------------------------------------------ */

static int fence_add(int ruleset, int fd, uint64_t access)
{
        struct landlock_path_beneath_attr a = { .allowed_access = access, .parent_fd = fd };

        return (int) syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &a, 0);
}

/* Programs and libraries may be read and run, /proc and /dev/null read, the disk written. */
static int fence(void)
{
        static const char *const readable[] = { "/usr",   "/bin", "/sbin", "/lib",
                                                "/lib64", "/etc", "/proc", "/dev/null" };
        struct landlock_ruleset_attr a = { .handled_access_fs = FS_ALL_V1 };
        int rs = (int) syscall(SYS_landlock_create_ruleset, &a, sizeof a, 0);

        if (rs < 0)
                return errno == ENOSYS || errno == EOPNOTSUPP ? 0 : -1;
        for (size_t i = 0; i < NELEM(readable); i++) {
                int fd = open(readable[i], O_PATH | O_CLOEXEC);
                uint64_t access = i == NELEM(readable) - 1 ? LANDLOCK_ACCESS_FS_READ_FILE : FS_READ;

                if (fd < 0)
                        continue; /* this distribution has no such directory */
                if (fence_add(rs, fd, access) < 0)
                        return -1;
                (void) close(fd);
        }
        if (fence_add(rs, FILE_FD, LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE) <
            0)
                return -1;
        return (int) syscall(SYS_landlock_restrict_self, rs, 0);
}

static int drop_caps(void)
{
        struct __user_cap_header_struct h = { .version = _LINUX_CAPABILITY_VERSION_3 };
        struct __user_cap_data_struct none[2] = { { 0 } };

        /* exec as uid 0 would bring the bounding set back */
        for (unsigned long c = 0; prctl(PR_CAPBSET_READ, c, 0, 0, 0) >= 0; c++)
                if (prctl(PR_CAPBSET_DROP, c, 0, 0, 0) < 0)
                        return -1;
        return (int) syscall(SYS_capset, &h, none);
}

static _Noreturn void child(const char *const *argv, int fd, int out, pid_t parent)
{
        static char *const no_env[] = { NULL };
        static const char *const step[] = { "descriptors", "confine", "exec" };
        char *const *args;
        sigset_t none;
        int at = 0, null;

        memcpy(&args, &argv,
               sizeof args); /* execve() keeps its hands off, its type does not say so */
        (void) prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
                _exit(EXIT_NO_EXEC);
        (void) sigemptyset(&none);
        (void) sigprocmask(SIG_SETMASK, &none, NULL);
        /* out of the way of 0..3 first, then into place */
        fd = fcntl(fd, F_DUPFD_CLOEXEC, 10);
        out = fcntl(out, F_DUPFD_CLOEXEC, 10);
        null = open("/dev/null", O_RDONLY | O_CLOEXEC);
        if (fd < 0 || out < 0 || null < 0 || dup2(null, 0) < 0 || dup2(out, 1) < 0 ||
            dup2(out, 2) < 0 || dup2(fd, FILE_FD) < 0)
                goto fail;
        (void) fd_close_from(FILE_FD + 1);
        at++;
        if (unshare(CLONE_NEWNET | CLONE_NEWIPC) < 0 ||
            prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || fence() < 0 || drop_caps() < 0)
                goto fail;
        at++;
        (void) execve(argv[0], args, no_env);
fail:
        (void) dprintf(2, "%s: %s: %s", argv[0], step[at], strerror(errno));
        _exit(EXIT_NO_EXEC);
}

/* --- in the operation ---------------------------------------------------------------------- */

/* Keep the end of what the program says; its last line is the reason. */
static void collect(int from, char said[static SAID_MAX])
{
        size_t len = 0;
        char part[512];
        ssize_t n;

        while ((n = read(from, part, sizeof part)) != 0) {
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        break;
                if (len + (size_t) n >= SAID_MAX) {
                        memmove(said, said + SAID_MAX / 2, len - SAID_MAX / 2);
                        len -= SAID_MAX / 2;
                }
                memcpy(said + len, part, (size_t) n);
                len += (size_t) n;
        }
        while (len > 0 && (said[len - 1] == '\n' || said[len - 1] == ' '))
                len--;
        said[len] = '\0';
}

int disk_tool_run(const char *const *argv, int fd, int ok_max, struct err *e)
{
        char said[SAID_MAX];
        AUTO(fd) int from = -EBADF, to = -EBADF;
        const char *last;
        pid_t parent = getpid(), pid;
        int pipefd[2], status, r;

        if (pipe2(pipefd, O_CLOEXEC) < 0)
                return err_errno(e, -errno, "pipe");
        from = pipefd[0];
        to = pipefd[1];
        pid = fork();
        if (pid < 0)
                return err_errno(e, -errno, "fork for %s", argv[0]);
        if (pid == 0)
                child(argv, fd, to, parent);
        to = fd_close(to);
        collect(from, said);
        do
                r = waitpid(pid, &status, 0);
        while (r < 0 && errno == EINTR);
        if (r < 0)
                return err_errno(e, -errno, "wait for %s", argv[0]);
        if (WIFEXITED(status) && WEXITSTATUS(status) <= ok_max)
                return WEXITSTATUS(status);
        last = strrchr(said, '\n');
        if (WIFSIGNALED(status))
                return err_set(e, -EIO, "%s: killed by signal %d", argv[0], WTERMSIG(status));
        return err_set(e, -EIO, "%s: exit status %d: %.200s", argv[0], WEXITSTATUS(status),
                       last ? last + 1 : said);
}
