/* main.c - vmm-gpu: the only program that calls the driver library, started and replaced by
 * hypervisor-vmm (docs/gpu.md has the messages).  Runs under a uid of its own without capabilities;
 * takes orders from the engine alone, and ends when that does. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/jsonx.h"
#include "base/log.h"
#include "base/str.h"
#include "gpu/gpud.h"

#define SECOND_US       US_PER_S
#define LOOK_EVERY_US   (10 * US_PER_S) /* at links and instances, and whether a driver has come */
#define REOPEN_EVERY_US (60 * US_PER_S) /* at most, for a GPU that is gone */

/* There are more GPUs or fewer than when they were opened, or the driver itself has gone. */
static bool count_has_changed(struct gpud *d)
{
        unsigned count = 0;

        gpud_at(d, "", "nvmlDeviceGetCount");
        return nvml_count(&d->nv, &count) != NVML_SUCCESS || count != d->count;
}

static void open_again(struct gpud *d, uint64_t now)
{
        d->reopened_us = now;
        gpud_close(d);
        gpud_open(d);
        gpud_say_fleet(d, false);
}

static void look(struct gpud *d, uint64_t now)
{
        bool due = now - d->looked_us >= LOOK_EVERY_US;

        if (d->reopen && (!d->reopened_us || now - d->reopened_us >= REOPEN_EVERY_US)) {
                open_again(d, now);
                return;
        }
        if (!due && !d->rescan)
                return;
        d->looked_us = now;
        d->rescan = false;
        if (due && (!d->nv.running || count_has_changed(d)))
                open_again(d, now);
        else
                gpud_say_fleet(d, false);
}

static void second(struct gpud *d, uint64_t now)
{
        gpud_drain(d);
        gpud_measure(d);
        look(d, now);
}

static int serve(struct gpud *d)
{
        uint64_t next = clock_mono_us();

        while (!d->gone) {
                struct pollfd p = { .fd = frame_conn_fd(d->conn),
                                    .events = (short) (POLLIN |
                                                       (frame_pending(d->conn) ? POLLOUT : 0)) };
                uint64_t now = clock_mono_us();
                int wait_ms = next > now ? (int) ((next - now + US_PER_MS - 1) / US_PER_MS) : 0;

                if (poll(&p, 1, wait_ms) < 0 && errno != EINTR)
                        return -errno;
                if ((p.revents & POLLOUT) && frame_flush(d->conn) < 0)
                        return -EPIPE;
                if ((p.revents & (POLLIN | POLLHUP | POLLERR)) && gpud_receive(d) < 0)
                        return -EPIPE;
                now = clock_mono_us();
                if (now < next)
                        continue;
                next = now - next < SECOND_US ? next + SECOND_US : now + SECOND_US;
                if (d->asked)
                        second(d, now);
        }
        return -EPIPE;
}

static int parse(int argc, char **argv, struct gpud *d, const char **root, int *fd)
{
        static const struct option options[] = { { "fd", required_argument, NULL, 'f' },
                                                 { "nvml", required_argument, NULL, 'n' },
                                                 { "root", required_argument, NULL, 'r' },
                                                 { "fleet", required_argument, NULL, 's' },
                                                 { NULL, 0, NULL, 0 } };
        uint64_t v;
        int c;

        while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
                if (c == 'f' && str_u64(optarg, 3, 1U << 20, &v) >= 0)
                        *fd = (int) v;
                else if (c == 'n')
                        d->nvml_path = optarg;
                else if (c == 'r')
                        *root = optarg;
                else if (c == 's')
                        d->fleet_file = optarg;
                else
                        return -EINVAL;
        }
        return optind == argc && *fd >= 0 ? 0 : -EINVAL;
}

int main(int argc, char **argv)
{
        struct gpud *d = calloc(1, sizeof *d);
        const char *root = "/";
        int fd = -EBADF;

        log_init("vmm-gpu", LOG_LVL_INFO);
        if (!d || parse(argc, argv, d, &root, &fd) < 0) {
                (void) fprintf(
                        stderr,
                        "usage: vmm-gpu --fd N [--nvml PATH] [--root DIR] [--fleet FILE] (started by hypervisor-vmm)\n");
                return 2;
        }
        (void) signal(SIGPIPE, SIG_IGN);
        (void) fd_set_cloexec(fd, true);
        d->root_fd = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (d->root_fd < 0 || frame_conn_new(fd, &d->conn) < 0) {
                log_error("%s: %s", root, strerror(errno));
                return 1;
        }
        /* what the simulated library wants to know; a real one takes no notice */
        if (d->fleet_file && setenv("HVMM_SIMULATED_FLEET", d->fleet_file, 1) < 0)
                return 1;
        (void) serve(d);
        _exit(0); /* the library's own way out may hang */
}
