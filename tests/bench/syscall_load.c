/* syscall_load.c - work that is mostly system calls, timed by itself.  Static, so that it runs in any
 * root file system.
 *
 * usage: syscall_load getpid N          N calls
 *        syscall_load make DIR N        a tree of N small files
 *        syscall_load walk DIR          open, read and stat everything in it
 * Prints nanoseconds of CPU time, which others on the machine have no part in. */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define PER_DIR 50

static double now_ns(void)
{
        struct timespec t;

        (void) clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
        return (double) t.tv_sec * 1e9 + (double) t.tv_nsec;
}

static int visit(const char *path, const struct stat *st, int type, struct FTW *w)
{
        char buf[4096];
        int fd;

        (void) st;
        (void) w;
        if (type != FTW_F)
                return 0;
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || read(fd, buf, sizeof buf) < 0 || close(fd) < 0)
                return -1;
        return 0;
}

static int make(const char *dir, long n)
{
        char path[4096];

        if (mkdir(dir, 0755) < 0 && errno != EEXIST)
                return -1;
        for (long i = 0; i < n; i++) {
                int fd;

                (void) snprintf(path, sizeof path, "%s/%ld", dir, i / PER_DIR);
                if (i % PER_DIR == 0 && mkdir(path, 0755) < 0 && errno != EEXIST)
                        return -1;
                (void) snprintf(path, sizeof path, "%s/%ld/%ld", dir, i / PER_DIR, i);
                fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
                if (fd < 0 || write(fd, path, 100) != 100 || close(fd) < 0)
                        return -1;
        }
        return 0;
}

/* One round: a small file that is written and waited for, fresh memory, system calls.  Prints what each took. */
static int probe(const char *path, long n)
{
        static char block[4096];
        const size_t size = 1 << 20;

        for (; n > 0; n--) {
                double begin = now_ns();
                int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
                char *fresh = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                                   -1, 0);

                if (fd < 0 || fresh == MAP_FAILED ||
                    write(fd, block, sizeof block) != (ssize_t) sizeof block || fsync(fd) < 0 ||
                    close(fd) < 0)
                        return -1;
                for (size_t i = 0; i < size; i += sizeof block)
                        fresh[i] = 1;
                for (int i = 0; i < 200; i++)
                        (void) syscall(SYS_getpid);
                if (munmap(fresh, size) < 0)
                        return -1;
                (void) printf("%.0f ", now_ns() - begin);
        }
        return 0;
}

int main(int argc, char **argv)
{
        const char *what = argc > 2 ? argv[1] : "";
        double begin = now_ns();
        int r = -1;

        if (strcmp(what, "getpid") == 0) {
                for (long i = strtol(argv[2], NULL, 10); i > 0; i--)
                        (void) syscall(SYS_getpid);
                r = 0;
        } else if (strcmp(what, "make") == 0 && argc > 3) {
                r = make(argv[2], strtol(argv[3], NULL, 10));
        } else if (strcmp(what, "probe") == 0 && argc > 3) {
                r = probe(argv[2], strtol(argv[3], NULL, 10));
        } else if (strcmp(what, "bomb") == 0) {
                for (;;) /* and so does each child */
                        (void) fork();
        } else if (strcmp(what, "walk") == 0) {
                r = nftw(argv[2], visit, 16, FTW_PHYS);
        } else {
                (void) fprintf(
                        stderr,
                        "usage: syscall_load getpid N|make DIR N|walk DIR|probe FILE N|bomb NOW\n");
                return 2;
        }
        if (r < 0) {
                perror(argv[2]);
                return 1;
        }
        (void) printf("%.0f\n", now_ns() - begin);
        return 0;
}
