/* test_order.c - an order to an operation and back over a socket: names, numbers and descriptors
 * arrive as they were sent, and what is not a complete order is refused. */
#include "engine/boot/order.h"

#include <assert.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/jsonx.h"
#include "base/str.h"

#define PLAN                                                                                        \
        "{\"cluster\":\"abc\",\"generation\":7,\"account\":\"acc\",\"name\":\"n\",\"image\":\"i\"," \
        "\"command\":[\"a\",\"b\"],\"vcpu\":2,\"memory_mib\":64,\"container_disk_gib\":3,"          \
        "\"env\":[\"A=1\"]}"

/* What arrived. */
static struct {
        struct order order;
        struct boot boot;
} got;

/* Where the order's descriptors are, in the order of their names on the wire. */
static void fds_of(struct boot *b, int *ret[static ORDER_MAX_FDS])
{
        int *const own[] = { &b->userns, &b->disk_mnt, &b->proc.monitor_pidfd,
                             &b->proc.init_pidfd };

        static_assert(NELEM(own) + SANDBOX_SHELL_FDS == ORDER_MAX_FDS, "every one is tested");
        memcpy(ret, own, sizeof own);
        for (size_t i = 0; i < SANDBOX_SHELL_FDS; i++)
                ret[NELEM(own) + i] = sandbox_shell_fd(&b->shell, i);
}

static ino_t inode_of(int fd)
{
        struct stat st;

        return fd >= 0 && fstat(fd, &st) == 0 ? st.st_ino : 0;
}

/* Over a socket, as in the engine. */
static int deliver(const json_t *order, const int *fds, size_t n, struct err *e)
{
        AUTO(frame_conn_free) struct frame_conn *a = NULL, *b = NULL;
        AUTO(frame_msg_done) struct frame_msg m = { 0 };
        int pair[2];

        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
        assert_true(frame_conn_new(pair[0], &a) >= 0 && frame_conn_new(pair[1], &b) >= 0);
        assert_true(frame_send(a, order, fds, n) >= 0);
        assert_int_equal(frame_recv_wait(b, &m, 0, e), 1);
        boot_done(&got.boot);
        boot_init(&got.boot, NULL);
        got.order = (struct order){ .kind = ORDER_NONE };
        return order_decode(&m, &got.order, &got.boot, e);
}

/* A boot with the descriptors of @mask open. */
static void fill(struct boot *b, unsigned mask)
{
        int *fds[ORDER_MAX_FDS];

        boot_init(b, NULL);
        fds_of(b, fds);
        for (size_t i = 0; i < ORDER_MAX_FDS; i++)
                if (mask & (1U << i))
                        *fds[i] = memfd_create("fd", MFD_CLOEXEC);
        b->attempt = (1ULL << 40) + 3;
        b->slot = 4711;
        b->ports = (struct published){ .n = 2, .at = { { 22, 20000 }, { 80, 20001 } } };
        (void) snprintf(b->public_ip, sizeof b->public_ip, "203.0.113.9");
        b->shell.launcher = 14;
        b->shell.first = 15;
        b->proc.monitor = 12;
        b->proc.init = 13;
        (void) snprintf(b->claim, sizeof b->claim, "pool-3-4");
        (void) snprintf(b->disk_pool_name, sizeof b->disk_pool_name, "pool-3-5.img");
        assert_true(strv_push(&b->image.devices, "7") >= 0);
        b->image.config.working_dir = strdup("/work");
}

static void send_boot(unsigned mask, const struct order *o)
{
        ino_t want[ORDER_MAX_FDS] = { 0 };
        int fds[ORDER_MAX_FDS], *at[ORDER_MAX_FDS];
        struct err e = { 0 };
        struct boot b;
        size_t n = 99;

        fill(&b, mask);
        fds_of(&b, at);
        for (size_t i = 0; i < ORDER_MAX_FDS; i++)
                want[i] = inode_of(*at[i]);
        {
                AUTO(json_put) json_t *j = order_encode(o, &b, fds, &n);

                assert_non_null(j);
                assert_int_equal(n, __builtin_popcount(mask));
                if (deliver(j, fds, n, &e) < 0)
                        fail_msg("%s", e.msg);
        }
        assert_memory_equal(&got.boot.ports, &b.ports, sizeof b.ports);
        assert_string_equal(got.boot.public_ip, "203.0.113.9");
        fds_of(&got.boot, at);
        for (size_t i = 0; i < ORDER_MAX_FDS; i++)
                if (inode_of(*at[i]) != want[i])
                        fail_msg("mask %x: descriptor %zu is another", mask, i);
        boot_done(&b);
}

static void test_every_descriptor(void **state)
{
        const struct order o = { .kind = ORDER_BOOT, .plan = PLAN };

        (void) state;
        send_boot(0, &o);
        send_boot((1U << ORDER_MAX_FDS) - 1, &o);
        for (unsigned i = 0; i < ORDER_MAX_FDS; i++) {
                send_boot(1U << i, &o);
                send_boot(((1U << ORDER_MAX_FDS) - 1) & ~(1U << i), &o);
        }
}

static void test_boot_arrives(void **state)
{
        const struct order o = { .kind = ORDER_BOOT, .plan = PLAN };

        (void) state;
        send_boot(5, &o);
        assert_int_equal(got.order.kind, ORDER_BOOT);
        assert_true(got.boot.attempt == (1ULL << 40) + 3);
        assert_int_equal(got.boot.plan.generation, 7);
        assert_int_equal(got.boot.slot, 4711);
        assert_int_equal(got.boot.plan.container_disk_gib, 3);
        assert_int_equal(got.boot.shell.launcher, 14);
        assert_int_equal(got.boot.shell.first, 15);
        assert_int_equal(got.boot.proc.monitor, 12);
        assert_int_equal(got.boot.proc.init, 13);
        assert_string_equal(got.boot.plan.cluster, "abc");
        assert_string_equal(got.boot.claim, "pool-3-4");
        assert_string_equal(got.boot.disk_pool_name, "pool-3-5.img");
        assert_string_equal(got.boot.image.devices[0], "7");
        assert_string_equal(got.boot.image.config.working_dir, "/work");
}

static void test_undo_arrives(void **state)
{
        (void) state;
        for (unsigned k = 0; k < 4; k++) {
                /* names are enough: a plan that this version refuses can be undone */
                const struct order o = { .kind = ORDER_UNDO,
                                         .plan = "{\"cluster\":\"abc\",\"generation\":7}",
                                         .graceful = k & 1,
                                         .volume = k & 2 };

                send_boot(0x30, &o);
                assert_int_equal(got.order.kind, ORDER_UNDO);
                assert_int_equal(got.order.graceful, k & 1);
                assert_int_equal(got.order.volume, !!(k & 2));
                assert_string_equal(got.boot.plan.cluster, "abc");
                assert_int_equal(got.boot.plan.generation, 7);
                assert_int_equal(got.boot.slot, 4711);
        }
}

static void test_unencodable(void **state)
{
        struct order o = { .kind = ORDER_BOOT, .plan = "{\"cluster\":" };
        int fds[ORDER_MAX_FDS];
        struct boot b;
        size_t n;

        (void) state;
        fill(&b, 0);
        assert_null(order_encode(&o, &b, fds, &n));
        boot_done(&b);
}

static void test_refused(void **state)
{
        static const struct {
                const char *json;
                size_t fds; /* how many come along */
                int r;
        } t[] = {
                { "{}", 0, -EPROTO },
                { "{\"do\":\"undo\"}", 0, -EPROTO },
                { "{\"do\":\"none\",\"plan\":" PLAN ",\"image\":{}}", 0, -EPROTO },
                { "{\"plan\":" PLAN ",\"image\":{}}", 0, -EPROTO },
                { "{\"do\":\"undo\",\"plan\":{\"cluster\":\"../x\"},\"image\":{}}", 0, -EPROTO },
                { "{\"do\":\"undo\",\"plan\":{\"cluster\":7},\"image\":{}}", 0, -EPROTO },
                { "{\"do\":\"boot\",\"plan\":{\"cluster\":\"abc\"},\"image\":{}}", 0, -EINVAL },
                { "{\"do\":\"boot\",\"plan\":" PLAN ",\"image\":{\"devices\":7}}", 0, -EINVAL },
                /* a descriptor is named and none came; one came and none is named */
                { "{\"do\":\"undo\",\"plan\":{\"cluster\":\"abc\"},\"image\":{},\"fds\":[\"init\"]}",
                  0, -EPROTO },
                { "{\"do\":\"undo\",\"plan\":{\"cluster\":\"abc\"},\"image\":{},\"fds\":[]}", 1,
                  -EPROTO },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                AUTO(json_put) json_t *j = jsonx_parse(t[i].json, strlen(t[i].json), NULL);
                AUTO(fd) int fd = memfd_create("fd", MFD_CLOEXEC);
                struct err e = { 0 };
                int r;

                assert_non_null(j);
                r = deliver(j, &fd, t[i].fds, &e);
                if (r != t[i].r || !*e.msg)
                        fail_msg("row %zu: r=%d (%s)", i, r, e.msg);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_every_descriptor), cmocka_unit_test(test_boot_arrives),
                cmocka_unit_test(test_undo_arrives),     cmocka_unit_test(test_unencodable),
                cmocka_unit_test(test_refused),
        };

        boot_init(&got.boot, NULL);
        return cmocka_run_group_tests(tests, NULL, NULL);
}
