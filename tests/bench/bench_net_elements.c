/* bench_net_elements.c - what it takes to let one more cluster out, and to forget it, while the elements
 * of many others are there: net_bind()'s transaction alone, and the same through libnftables.  Root; in a
 * network namespace of its own.  Usage: bench_net_elements [CLUSTERS]; one line per figure. */
#include <errno.h>
#include <linux/netlink.h>
#include <nftables/libnftables.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/str.h"
#include "engine/net/nft.h"
#include "model/limits.h"

#define TABLE    "hvmm_bench"
#define ROUNDS   200U
#define NETWORKS 8U /* in the list of every limited cluster; every second one is */

static void die(const char *what, const struct err *e)
{
        fprintf(stderr, "bench_net_elements: %s: %s\n", what, e ? e->msg : strerror(errno));
        exit(1);
}

static const struct nft_config config = { .table = TABLE,
                                          .pool = { 0x64600000, 16 },
                                          .pool6 = { true, { 0xfd, 1 } },
                                          .service = 0x6460F000,
                                          .service6 = { 0xfd, 1, [8] = 0x80 },
                                          .connections = 4096 };

static void make(uint32_t slot, struct egress *x, struct nft_cluster *ret)
{
        *x = (struct egress){ .limited = slot % 2, .n = slot % 2 ? NETWORKS : 0 };
        for (uint8_t i = 0; i < x->n; i++)
                x->net[i] = (struct network){ .v6 = i % 2,
                                              .bits = i % 2 ? 48 : 24,
                                              .addr = { 0x20, 1, 0x0d, i % 2 ? i : 0 } };
        for (uint8_t i = 0; i < x->n; i += 2)
                x->net[i].addr[2] = i;
        *ret = (struct nft_cluster){ .slot = slot,
                                     .mac = { 2, 'h', 'v', 1, (uint8_t) (slot >> 8),
                                              (uint8_t) slot },
                                     .addr = ipv4_of_slot(&config.pool, slot),
                                     .v6 = true,
                                     .account = slot / 4 + 1,
                                     .egress = x };
        (void) snprintf(ret->link, sizeof ret->link, "hv%u", slot);
        ipv6_of_slot(&config.pool6, slot, ret->addr6);
}

static int by_value(const void *a, const void *b)
{
        const uint64_t *x = a, *y = b;

        return *x < *y ? -1 : *x > *y;
}

static void print(const char *name, uint64_t *us, size_t n)
{
        qsort(us, n, sizeof *us, by_value);
        printf("%s_p50 %llu us\n", name, (unsigned long long) us[n / 2]);
        printf("%s_p99 %llu us\n", name, (unsigned long long) us[n * 99 / 100]);
}

/* The least that a tool over libnftables does for a cluster. */
static uint64_t by_libnftables(struct nft_ctx *ctx, uint32_t slot)
{
        char text[512];
        uint64_t t = clock_mono_us();

        (void) snprintf(
                text, sizeof text,
                "add element inet " TABLE " links { hv%u }\nadd element inet " TABLE
                " sources { hv%u . 02:68:76:01:00:01 . 100.96.%u.%u }\nadd element inet " TABLE
                " accounts { 100.96.%u.%u : 7 }\nadd element inet " TABLE
                " members { 100.96.%u.%u . 7 }\n",
                slot, slot, slot >> 8, slot & 255, slot >> 8, slot & 255, slot >> 8, slot & 255);
        if (nft_run_cmd_from_buffer(ctx, text) != 0)
                die("libnftables", NULL);
        return clock_mono_us() - t;
}

int main(int argc, char **argv)
{
        static uint64_t add[2][ROUNDS], del[2][ROUNDS], peer[ROUNDS]; /* without and with a list */
        static const struct dns_servers dns = { .n = 0 };
        struct nl_sock s = { 0 };
        struct nft_ctx *ctx;
        struct err e = { 0 };
        struct nft_cluster c;
        struct egress x;
        uint64_t n = 1000;

        if (argc > 1 && str_u64(argv[1], 1, LIMIT_SLOTS - 4 * ROUNDS, &n) < 0)
                die("usage: bench_net_elements [CLUSTERS]", NULL);
        if (unshare(CLONE_NEWNET) < 0 || !(ctx = nft_ctx_new(NFT_CTX_DEFAULT)))
                die("a network of its own (needs root)", NULL);
        if (nft_rules_apply(&config, &e) < 0 || nl_sock_open(&s, NETLINK_NETFILTER, &e) < 0)
                die("rules", &e);
        for (uint32_t slot = 1; slot <= n; slot++) {
                make(slot, &x, &c);
                if (nft_cluster_add(&s, TABLE, &c, &dns, &e) < 0)
                        die("add", &e);
        }
        for (uint32_t i = 0; i < 2 * ROUNDS; i++) {
                uint32_t slot = (uint32_t) n + 1 + i;
                uint64_t t = clock_mono_us();

                make(slot, &x, &c);
                if (nft_cluster_add(&s, TABLE, &c, &dns, &e) < 0)
                        die("add", &e);
                add[x.limited][i / 2] = clock_mono_us() - t;
                if (x.limited)
                        peer[i / 2] = by_libnftables(ctx, slot + 2 * ROUNDS);
                t = clock_mono_us();
                if (nft_cluster_del(&s, TABLE, &c, &e) < 0)
                        die("remove", &e);
                del[x.limited][i / 2] = clock_mono_us() - t;
        }
        print("add", add[0], ROUNDS);
        print("add_listed", add[1], ROUNDS);
        print("del", del[0], ROUNDS);
        print("del_listed", del[1], ROUNDS);
        print("libnftables", peer, ROUNDS);
        nl_sock_close(&s);
        nft_ctx_free(ctx);
        return 0;
}
