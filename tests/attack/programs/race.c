/* race.c - CVE-2021-30465 against the very functions that mount into a cluster's root
 * (engine/sandbox/rootfs.c), on the host's own file system and as root, where nothing else stands
 * between a link that is followed and the host.
 *
 *   race DIR TRIES
 *
 * DIR/root is the cluster's root, DIR/canary the host's.  A child turns root/a/b between a directory
 * and links that lead out, all the time; meanwhile TRIES mounts are made at /a/b/c.  In a mount
 * namespace of our own.  "outside N" counts those that lay somewhere else than below the root. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "engine/sandbox/sandbox_priv.h"

static const char *const out[] = { "../../../canary", "ABSOLUTE", "/proc/self/cwd/canary" };

/* Turn each of the links into the directory's place and back, for ever. */
_Noreturn static void swapper(const char *dir)
{
        char a[PATH_MAX], b[PATH_MAX], to[PATH_MAX];

        (void) prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void) snprintf(a, sizeof a, "%s/root/a/b", dir);
        for (size_t i = 0; i < NELEM(out); i++) {
                (void) snprintf(b, sizeof b, "%s/root/a/l%zu", dir, i);
                (void) snprintf(to, sizeof to, "%s/canary", dir);
                (void) !symlink(i == 1 ? to : out[i], b);
        }
        for (size_t i = 0;; i = (i + 1) % NELEM(out)) {
                (void) snprintf(b, sizeof b, "%s/root/a/l%zu", dir, i);
                for (int k = 0; k < 200; k++)
                        (void) syscall(SYS_renameat2, AT_FDCWD, a, AT_FDCWD, b, RENAME_EXCHANGE);
        }
}

struct count {
        long inside, refused, outside;
};

/* One mount at /a/b/c, and where it came to lie. */
static int one(int root, const char *dir, struct count *c)
{
        AUTO(fd) int mnt = mount_make("tmpfs", NULL, 0, NULL);
        struct sandbox_bind b = { .target = (char *) (uintptr_t) "/a/b/c", .mnt = mnt };
        char self[64], where[PATH_MAX], want[PATH_MAX];
        ssize_t n;

        if (mnt < 0)
                return mnt;
        if (root_bind(root, &b, 0, NULL) < 0) {
                c->refused++;
                return 0;
        }
        (void) snprintf(self, sizeof self, "/proc/self/fd/%d", mnt);
        n = readlink(self, where, sizeof where - 1);
        if (n < 0)
                return -errno;
        where[n] = '\0';
        (void) snprintf(want, sizeof want, "%s/root/", dir);
        if (strncmp(where, want, strlen(want)) != 0) {
                if (c->outside++ == 0)
                        printf("mounted at %s\n", where);
        } else {
                c->inside++;
        }
        return umount2(self, MNT_DETACH) < 0 ? -errno : 0;
}

static int count_entries(const char *dir)
{
        DIR *d = opendir(dir);
        struct dirent *n;
        int count = -2; /* . and .. */

        while (d && (n = readdir(d)))
                count++;
        if (d)
                (void) closedir(d);
        return count;
}

int main(int argc, char **argv)
{
        struct count c = { 0 };
        char path[PATH_MAX];
        pid_t child;
        int root, r = 0;

        if (argc != 3 || chdir(argv[1]) < 0 || mkdir("root", 0755) < 0 ||
            mkdir("canary", 0755) < 0 || mkdir("root/a", 0755) < 0 || mkdir("root/a/b", 0755) < 0)
                return 2;
        if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
                return 2;
        root = open("root", O_PATH | O_DIRECTORY | O_CLOEXEC);
        child = fork();
        if (child == 0)
                swapper(argv[1]);
        for (long i = 0; i < atol(argv[2]) && r >= 0; i++)
                r = one(root, argv[1], &c);
        (void) kill(child, SIGKILL);
        (void) waitpid(child, NULL, 0);
        (void) snprintf(path, sizeof path, "%s/canary", argv[1]);
        printf("inside %ld refused %ld outside %ld canary %d error %d\n", c.inside, c.refused,
               c.outside, count_entries(path), -r);
        return r < 0 ? 1 : 0;
}
