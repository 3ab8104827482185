/* sshtree.c - see sshtree.h.  Engine process at its start, and operations. */
#include "engine/sshtree.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/str.h"
#include "engine/instance.h"
#include "model/sshdir.h"

#define PLACE    "ssh"       /* in the run directory */
#define FILE_MAX (32U << 20) /* of one file */
#define LIST_MAX 16384U      /* what the loader says */
#define ATTRS    (MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)
#define CLONE    (OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH)
#define TO_EMPTY (MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH)

#if defined(__x86_64__)
#define LOADER "/lib64/ld-linux-x86-64.so.2"
#elif defined(__aarch64__)
#define LOADER "/lib/ld-linux-aarch64.so.1"
#endif

static const char *const sftp_places[] = { "/usr/lib/openssh/sftp-server",
                                           "/usr/libexec/openssh/sftp-server" };

/* ---- copying --------------------------------------------------------------------------------- */

/* Into the directory @dir as @name; a second library of one name is the same one. */
static int copy_file(int dir, const char *from, const char *name, struct err *e)
{
        AUTO(fd) int in = open(from, O_RDONLY | O_CLOEXEC);
        AUTO(fd) int out = -EBADF;
        AUTO(free) char *buf = NULL;
        struct stat st;
        ssize_t n;
        int r;

        if (in < 0 || fstat(in, &st) < 0)
                return err_errno(e, -errno, "%s", from);
        if (!S_ISREG(st.st_mode) || st.st_size > (off_t) FILE_MAX)
                return err_set(e, -EFBIG, "%s is no file of at most %u MiB", from, FILE_MAX >> 20);
        out = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0555);
        if (out < 0)
                return errno == EEXIST ? 0 : err_errno(e, -errno, "copy %s", from);
        buf = malloc((size_t) st.st_size + 1);
        n = buf ? fd_read_full(in, buf, (size_t) st.st_size) : -ENOMEM;
        r = n < 0 ? (int) n : fd_write_full(out, buf, (size_t) n);
        if (r >= 0 && fchmod(out, 0555) < 0)
                r = -errno;
        return r < 0 ? err_errno(e, r, "copy %s", from) : 0;
}

/* What the host's loader would load for @program, as it prints it; heap. */
static int list_libraries(const char *program, char **ret, struct err *e)
{
        AUTO(fd) int out = -EBADF;
        AUTO(fd) int in = -EBADF;
        AUTO(free) char *text = calloc(1, LIST_MAX);
        int pipe_fd[2], status = 0;
        ssize_t n;
        pid_t pid;

        if (!text || pipe2(pipe_fd, O_CLOEXEC) < 0)
                return err_errno(e, text ? -errno : -ENOMEM, "libraries of %s", program);
        out = pipe_fd[0];
        in = pipe_fd[1];
        pid = fork();
        if (pid < 0)
                return err_errno(e, -errno, "fork");
        if (pid == 0) {
                char *env[] = { NULL };

                if (dup2(in, STDOUT_FILENO) >= 0)
                        (void) execle(LOADER, LOADER, "--list", program, (char *) NULL, env);
                _exit(127);
        }
        in = fd_close(in);
        n = fd_read_full(out, text, LIST_MAX - 1);
        out = fd_close(out); /* one that says more ends by this */
        while (waitpid(pid, &status, 0) < 0)
                if (errno != EINTR)
                        return err_errno(e, -errno, "wait for " LOADER);
        if (n < 0 || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
                return err_set(e, -ENOEXEC, LOADER " cannot load %s", program);
        *ret = TAKE(text);
        return 0;
}

/* The lines are "\tNAME => PATH (0x...)"; the kernel's own library and the loader have no arrow. */
static int copy_libraries(int dir, const char *program, struct err *e)
{
        AUTO(free) char *text = NULL;
        char *save = NULL;
        int r = list_libraries(program, &text, e);

        for (char *p = r < 0 ? NULL : strtok_r(text, "\n", &save); p && r >= 0;
             p = strtok_r(NULL, "\n", &save)) {
                char name[128], path[256];

                if (sscanf(p, " %127s => %255s", name, path) != 2)
                        continue;
                if (strchr(name, '/') || *path != '/')
                        return err_set(e, -ENOEXEC, "%s needs %s, which is not there", program,
                                       name);
                r = copy_file(dir, path, name, e);
        }
        return r;
}

static int copy_program(int dir, const char *path, const char *name, struct err *e)
{
        int r = copy_file(dir, path, name, e);

        return r < 0 ? r : copy_libraries(dir, path, e);
}

static int fill(const struct instance *inst, int dir, struct sshtree *t, struct err *e)
{
        AUTO(free) char *own = str_fmt("%s/vmm-ssh", inst->libexec);
        AUTO(free) char *log = str_fmt("%s/" SSH_LOG, inst->libexec);
        int r = own && log ? copy_file(dir, own, "vmm-ssh", e)
                           : err_set(e, -ENOMEM, "out of memory");

        if (r >= 0)
                r = copy_file(dir, log, SSH_LOG, e);
        if (r >= 0)
                r = copy_file(dir, LOADER, SSH_LOADER, e);
        if (r >= 0)
                r = copy_program(dir, SSHTREE_DROPBEAR, "dropbear", e);
        for (size_t i = 0; i < NELEM(sftp_places) && r >= 0 && !t->sftp; i++) {
                if (access(sftp_places[i], R_OK) < 0)
                        continue;
                r = copy_program(dir, sftp_places[i], "sftp-server", e);
                t->sftp = r >= 0;
        }
        return r;
}

/* ---- the mount ------------------------------------------------------------------------------- */

static int make_tmpfs(struct err *e)
{
        AUTO(fd) int fs = fsopen("tmpfs", FSOPEN_CLOEXEC);
        int mnt = -EBADF;

        if (fs < 0 || fsconfig(fs, FSCONFIG_SET_STRING, "mode", "0755", 0) < 0 ||
            fsconfig(fs, FSCONFIG_SET_STRING, "size", "64m", 0) < 0 ||
            fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0 ||
            (mnt = fsmount(fs, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)) < 0)
                return err_errno(e, -errno, "a directory in memory");
        return mnt;
}

/* Where it can be cloned from: before Linux 6.15 not from a mount that is attached nowhere. */
static int attach(const struct instance *inst, int mnt, struct err *e)
{
        struct mount_attr attr = { .attr_set = ATTRS };
        AUTO(fd) int place = fd_mkdir_beneath(inst->run_fd, PLACE, 0700);

        if (place < 0)
                return err_errno(e, place, "make " PLACE);
        if (mount_setattr(mnt, "", AT_EMPTY_PATH, &attr, sizeof attr) < 0 ||
            move_mount(mnt, "", place, "", TO_EMPTY) < 0)
                return err_errno(e, -errno, "mount " PLACE);
        return 0;
}

int sshtree_open(const struct instance *inst, struct sshtree *ret, struct err *e)
{
        struct sshtree t = { .mnt = -EBADF };
        AUTO(fd) int mnt = -EBADF;
        int r;

        if (access(SSHTREE_DROPBEAR, X_OK) < 0) {
                (void) snprintf(t.why, sizeof t.why,
                                "this host has no " SSHTREE_DROPBEAR " (package dropbear-bin)");
                *ret = t;
                return 0;
        }
        r = mnt = make_tmpfs(e);
        if (r >= 0)
                r = fill(inst, mnt, &t, e);
        if (r >= 0)
                r = attach(inst, mnt, e);
        if (r < 0)
                return err_wrap(e, r, "the SSH server for clusters");
        t.mnt = fd_take(&mnt);
        *ret = t;
        return 0;
}

void sshtree_close(const struct instance *inst, struct sshtree *t)
{
        char path[64];

        if (t->mnt < 0)
                return;
        (void) snprintf(path, sizeof path, "/proc/self/fd/%d", t->mnt);
        (void) umount2(path, MNT_DETACH);
        t->mnt = fd_close(t->mnt);
        (void) unlinkat(inst->run_fd, PLACE, AT_REMOVEDIR);
}

int sshtree_clone(const struct sshtree *t, int *ret_dir, int *ret_sftp, struct err *e)
{
        *ret_dir = *ret_sftp = -EBADF;
        if (t->mnt < 0)
                return err_set(e, -EOPNOTSUPP, "startSsh: %s", t->why);
        *ret_dir = open_tree(t->mnt, "", CLONE);
        if (*ret_dir < 0)
                return err_errno(e, -errno, "clone the SSH server");
        if (!t->sftp)
                return 0;
        *ret_sftp = open_tree(t->mnt, "vmm-ssh", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
        return *ret_sftp < 0 ? err_errno(e, -errno, "clone the server of SFTP") : 0;
}
