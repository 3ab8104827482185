/* stand_in.c - takes vmm-monitor's place in the launcher's tests: same command line, but everything
 * that the program prints goes to the status file, followed by one line "@<code> <signal>".
 * It reports its own standing first: "#uid U ... kill R fds LIST". */
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

struct args {
        int pidfd, pid, listen, status, pty, in, out, err, log0, log1;
        bool exec;
};

static int option(struct args *a, const char *name, const char *value)
{
        const struct {
                const char *name;
                int *to;
        } rows[] = {
                { "--pidfd", &a->pidfd },   { "--pid", &a->pid }, { "--listen", &a->listen },
                { "--status", &a->status }, { "--pty", &a->pty }, { "--in", &a->in },
                { "--out", &a->out },       { "--err", &a->err }, { "--log0", &a->log0 },
                { "--log1", &a->log1 },
        };

        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
                if (strcmp(name, rows[i].name) == 0) {
                        *rows[i].to = (int) strtol(value, NULL, 10);
                        return 0;
                }
        return strcmp(name, "--id") == 0 || strcmp(name, "--log-rate") == 0 ? 0 : -1;
}

static void standing(int to, int pidfd)
{
        FILE *f = fopen("/proc/self/status", "re");
        char line[256], caps[64] = "?", nnp[8] = "?";
        DIR *dir;

        while (f && fgets(line, sizeof line, f)) {
                (void) sscanf(line, "CapBnd: %60s", caps);
                (void) sscanf(line, "NoNewPrivs: %7s", nnp);
        }
        if (f)
                (void) fclose(f);
        (void) dprintf(to, "#uid %d gid %d groups %d bnd %s nnp %s kill %d fds", (int) getuid(),
                       (int) getgid(), getgroups(0, NULL), caps, nnp,
                       (int) syscall(SYS_pidfd_send_signal, pidfd, 0, NULL, 0));
        dir = opendir("/proc/self/fd");
        for (struct dirent *d; dir && (d = readdir(dir));)
                if (d->d_name[0] != '.' && atoi(d->d_name) != dirfd(dir))
                        (void) dprintf(to, " %s", d->d_name);
        if (dir)
                (void) closedir(dir);
        (void) dprintf(to, "\n");
}

/* Copy until both ends are closed; a pty says EIO. */
static void copy(const struct args *a)
{
        struct pollfd p[] = { { .fd = a->pty >= 0 ? a->pty : a->out, .events = POLLIN },
                              { .fd = a->err, .events = POLLIN } };

        while (p[0].fd >= 0 || p[1].fd >= 0) {
                if (poll(p, 2, -1) < 0 && errno != EINTR)
                        return;
                for (int i = 0; i < 2; i++) {
                        char buf[4096];
                        ssize_t n;

                        if (p[i].fd < 0 || !p[i].revents)
                                continue;
                        n = read(p[i].fd, buf, sizeof buf);
                        if (n <= 0)
                                p[i].fd = -1;
                        else if (write(a->status, buf, (size_t) n) != n)
                                return;
                }
        }
}

int main(int argc, char **argv)
{
        struct args a = { -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, false };
        siginfo_t si = { 0 };

        for (int i = 1; i < argc; i++) {
                if (strcmp(argv[i], "--exec") == 0)
                        a.exec = true;
                else if (i + 1 >= argc || option(&a, argv[i], argv[i + 1]) < 0)
                        return 2;
                else
                        i++;
        }
        if (a.status < 0 || a.pid < 0 || a.pidfd < 0)
                return 2;
        standing(a.status, a.pidfd);
        if (a.in >= 0)
                (void) close(a.in);
        copy(&a);
        if (waitid(P_PIDFD, (id_t) a.pidfd, &si, WEXITED) < 0)
                return 3;
        (void) dprintf(a.status, "@%d %d\n", si.si_code == CLD_EXITED ? si.si_status : -1,
                       si.si_code == CLD_EXITED ? 0 : si.si_status);
        return 0;
}
