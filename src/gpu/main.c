/* main.c - vmm-gpu: the only program that calls the driver library, started and replaced by
 * hypervisor-vmm (docs/gpu.md has the messages).  Runs under a uid of its own without capabilities and
 * climbs down (ladder.c) before it loads the library; takes orders from the engine alone, and ends when
 * that does. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
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
#include "gpu/ladder.h"
#include "gpu/scrub.h"

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

/* Ours name the nodes that there were: for others the engine starts another of us. */
static bool nodes_have_changed(const struct ladder_args *l, uint64_t nodes, uint64_t now,
                               uint64_t *looked_us)
{
        if (now - *looked_us < LOOK_EVERY_US)
                return false;
        *looked_us = now;
        if (ladder_nodes(l) == nodes)
                return false;
        log_info("the driver's device nodes have changed; the next vmm-gpu may open them");
        return true;
}

static int serve(struct gpud *d, const struct ladder_args *l, uint64_t nodes)
{
        uint64_t looked_us = clock_mono_us();
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
                if (nodes_have_changed(l, nodes, now, &looked_us))
                        return 0;
                if (d->asked)
                        second(d, now);
        }
        return -EPIPE;
}

struct args {
        const char *fd, *nvml, *root, *fleet, *scrub, *cuda;
        int fd_number;
};

static const struct {
        const char *name;
        size_t off;
} arg_table[] = {
        { "fd", offsetof(struct args, fd) },       { "nvml", offsetof(struct args, nvml) },
        { "root", offsetof(struct args, root) },   { "fleet", offsetof(struct args, fleet) },
        { "scrub", offsetof(struct args, scrub) }, { "cuda", offsetof(struct args, cuda) },
};

/* "--name value" pairs; either --fd or --scrub. */
static int parse(char **argv, struct args *a)
{
        uint64_t v = 0;

        for (argv++; *argv; argv += 2) {
                const char *name = str_after(*argv, "--");
                size_t i = 0;

                while (i < NELEM(arg_table) && !str_eq(name, arg_table[i].name))
                        i++;
                if (i == NELEM(arg_table) || !argv[1])
                        return -EINVAL;
                memcpy((char *) a + arg_table[i].off, &argv[1], sizeof argv[1]);
        }
        if (a->fd && str_u64(a->fd, 3, 1U << 20, &v) < 0)
                return -EINVAL;
        a->fd_number = (int) v;
        return !a->fd != !a->scrub ? 0 : -EINVAL;
}

static int watch(const struct args *a)
{
        struct gpud *d = calloc(1, sizeof *d);
        const char *root = a->root ? a->root : "/";
        const struct ladder_args l = { .root = root, .library = a->nvml, .fleet = a->fleet };
        uint64_t nodes = ladder_nodes(&l);
        struct err e = { 0 };

        if (!d)
                return 1;
        d->nvml_path = a->nvml;
        d->fleet_file = a->fleet;
        (void) fd_set_cloexec(a->fd_number, true);
        d->root_fd = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (d->root_fd < 0 || frame_conn_new(a->fd_number, &d->conn) < 0) {
                log_error("%s: %s", root, strerror(errno));
                return 1;
        }
        if (ladder_descend(&l, &e) < 0) {
                log_error("%s", e.msg);
                return 1;
        }
        (void) serve(d, &l, nodes);
        _exit(0); /* the library's own way out may hang */
}

int main(int argc, char **argv)
{
        struct args a = { 0 };

        (void) argc;
        log_init("vmm-gpu", LOG_LVL_INFO);
        if (parse(argv, &a) < 0) {
                (void) fprintf(
                        stderr,
                        "usage: vmm-gpu --fd N [--nvml PATH] [--root DIR] [--fleet FILE]\n"
                        "       vmm-gpu --scrub UUID [--cuda PATH] [--fleet FILE] (started by hypervisor-vmm)\n");
                return 2;
        }
        (void) signal(SIGPIPE, SIG_IGN);
        /* what a simulated library wants to know; a real one takes no notice */
        if (a.fleet && setenv("HVMM_SIMULATED_FLEET", a.fleet, 1) < 0)
                return 1;
        if (a.scrub) {
                const struct scrub_args s = { .uuid = a.scrub, .cuda = a.cuda };
                const struct ladder_args l = {
                        .root = "/", .library = a.cuda, .fleet = a.fleet, .cuda = true
                };
                struct err e = { 0 };

                if (ladder_descend(&l, &e) < 0) {
                        log_error("%s", e.msg);
                        return 1;
                }
                return scrub_main(&s);
        }
        return watch(&a);
}
