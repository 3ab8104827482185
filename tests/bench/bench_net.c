/* bench_net.c - what a cluster's network costs: prepare (ahead of time), bind (on the boot path),
 * release (after the answer), reap.  Root; works in namespaces of its own, so the machine's network
 * is neither seen nor touched.  Usage: bench_net [ROUNDS]; one line per figure, "name value unit".
 * The host of the measurement has other clusters up, a uplink and a route. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"
#include "engine/claim/claim.h"
#include "engine/net/net.h"

#define BACKGROUND 100U /* clusters that are up meanwhile */
#define ROUNDS_MAX 2000U

static void die(const char *what, const struct err *e)
{
        fprintf(stderr, "bench_net: %s: %s\n", what, e ? e->msg : strerror(errno));
        exit(1);
}

static int by_value(const void *a, const void *b)
{
        const uint64_t *x = a, *y = b;

        return *x < *y ? -1 : *x > *y;
}

static void print(const char *name, uint64_t *us, size_t n)
{
        qsort(us, n, sizeof *us, by_value);
        printf("net.%s_p50 %llu us\n", name, (unsigned long long) us[n / 2]);
        printf("net.%s_p99 %llu us\n", name, (unsigned long long) us[n * 99 / 100]);
}

static void own_world(void)
{
        if (unshare(CLONE_NEWNET | CLONE_NEWNS) < 0 ||
            mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
            mount("tmpfs", "/run", "tmpfs", 0, "mode=755") < 0 || mkdir("/run/data", 0700) < 0)
                die("a world of its own (needs root)", NULL);
}

int main(int argc, char **argv)
{
        static uint64_t prepare[ROUNDS_MAX], bind_[ROUNDS_MAX], release[ROUNDS_MAX];
        struct instance inst = { .id = "benchnet",
                                 .data_dir = (char[]){ "/run/data" },
                                 .conf = { .network_pool = (char[]){ "100.96.0.0/16" },
                                           .dns = (char[]){ "192.0.2.53" } } };
        struct claim_host *claims = NULL;
        struct net_host *h = NULL;
        struct err e = { 0 };
        uint64_t rounds = 200, t;

        if (argc > 1 && str_u64(argv[1], 1, ROUNDS_MAX, &rounds) < 0)
                die("usage: bench_net [ROUNDS]", NULL);
        log_init("bench_net", LOG_LVL_WARN);
        own_world();
        t = clock_mono_us();
        if (claim_open(&inst, &claims, &e) < 0 || net_host_open(&inst, claims, &h, &e) < 0)
                die("open", &e);
        printf("net.host_open %llu us\n", (unsigned long long) (clock_mono_us() - t));
        for (uint32_t i = 1; i <= BACKGROUND; i++) {
                struct net_lease l;
                struct net_ns n;

                if (net_prepare(h, i, &n, &e) < 0 ||
                    net_bind(h, i, &(struct net_policy){ .account = i }, &l, &e) < 0)
                        die("background", &e);
                net_lease_done(&l); /* the namespaces stay open until we end */
        }
        for (uint32_t i = 0; i < rounds; i++) {
                uint32_t slot = BACKGROUND + 1 + i;
                struct net_lease l;
                struct net_ns n;
                uint64_t t0 = clock_mono_us(), t1, t2;

                if (net_prepare(h, slot, &n, &e) < 0)
                        die("prepare", &e);
                t1 = clock_mono_us();
                if (net_bind(h, slot, &(struct net_policy){ .account = slot }, &l, &e) < 0)
                        die("bind", &e);
                t2 = clock_mono_us();
                if (net_release(h, slot, NULL, true, &e) < 0)
                        die("release", &e);
                prepare[i] = t1 - t0;
                bind_[i] = t2 - t1;
                release[i] = clock_mono_us() - t2;
                net_lease_done(&l);
                net_ns_done(&n);
        }
        print("prepare", prepare, rounds);
        print("bind", bind_, rounds);
        print("release", release, rounds);
        t = clock_mono_us();
        if (net_host_remove(h, &e) < 0)
                die("remove", &e);
        printf("net.host_remove %llu us\n", (unsigned long long) (clock_mono_us() - t));
        (void) net_host_close(h);
        (void) claim_close(claims);
        return 0;
}
