/* Which name servers a cluster is told about. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
/* cmocka needs some of the above */
#include <cmocka.h>

#include "base/fd.h"
#include "base/str.h"
#include "engine/net/dns.h"

static void check(const struct dns_servers *s, const char *want, const char *what)
{
        AUTO(free) char *text = dns_render(s);
        AUTO(strbuf_done) struct strbuf b = { 0 };

        assert_non_null(text);
        for (const char *p = text; *p; p += strcspn(p, "\n"), p += *p == '\n') {
                const char *addr = str_after(p, "nameserver ");

                if (addr)
                        strbuf_fmt(&b, "%.*s ", (int) strcspn(addr, "\n"), addr);
        }
        if (!str_eq(b.s ? b.s : "", want))
                fail_msg("%s: got '%s', want '%s'", what, b.s ? b.s : "", want);
}

static void test_resolv(void **state)
{
        static const struct {
                const char *in, *want;
                bool stub;
        } t[] = {
                { "", "", false },
                { "nameserver 192.0.2.1\n", "192.0.2.1 ", false },
                { "nameserver 192.0.2.1", "192.0.2.1 ", false },
                { "nameserver\t192.0.2.1 # mine\n", "192.0.2.1 ", false },
                { "nameserver 192.0.2.1\r\nnameserver 192.0.2.2\r\n", "192.0.2.1 192.0.2.2 ",
                  false },
                { "nameserver 127.0.0.53\noptions edns0\n", "", true },
                { "nameserver 127.0.0.1\nnameserver 127.9.9.9\n", "", false },
                { "nameserver 127.0.0.53\nnameserver 192.0.2.1\n", "192.0.2.1 ", true },
                { "nameserver ::1\nnameserver 2001:db8::1\nnameserver fe80::1%eth0\n", "", false },
                { "search a.example\ndomain b\nnameserver 192.0.2.1\noptions rotate\n",
                  "192.0.2.1 ", false },
                { "nameserver 192.0.2.1\nnameserver 192.0.2.1\n", "192.0.2.1 ", false },
                { "nameserver 1.0.0.1\nnameserver 1.0.0.2\nnameserver 1.0.0.3\nnameserver 1.0.0.4\n",
                  "1.0.0.1 1.0.0.2 1.0.0.3 ", false },
                { "# nameserver 192.0.2.1\n;nameserver 192.0.2.2\n", "", false },
                { " nameserver 192.0.2.1\n", "", false }, /* as resolvers do: only at line start */
                { "nameservers 192.0.2.1\nnameserver192.0.2.1\nnameserver\n", "", false },
                { "nameserver 0.0.0.0\nnameserver 224.0.0.1\nnameserver 255.255.255.255\n", "",
                  false },
                { "nameserver 169.254.169.254\n", "169.254.169.254 ", false },
                { "nameserver 169.254.1.1\n", "", false }, /* the clusters' own gateway */
                { "nameserver 1.2.3.4.5\nnameserver 300.1.1.1\nnameserver x\n", "", false },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                struct dns_servers s;

                dns_parse_resolv(t[i].in, &s);
                check(&s, t[i].want, t[i].in);
                assert_int_equal(s.stub, t[i].stub);
        }
}

static void test_option(void **state)
{
        static const struct {
                const char *in;
                int r;
                const char *want; /* servers, or what the message says */
        } t[] = {
                { "", 0, "" },
                { "192.0.2.1", 0, "192.0.2.1 " },
                { " 192.0.2.1 , 192.0.2.2,", 0, "192.0.2.1 192.0.2.2 " },
                { "192.0.2.1,192.0.2.1", 0, "192.0.2.1 " },
                { "dns.example", -EINVAL, "'dns.example'" },
                { "192.0.2.1 192.0.2.2", -EINVAL, "'192.0.2.1 192.0.2.2'" },
                { "::1", -EINVAL, "'::1'" },
                { "127.0.0.1", -EINVAL, "cannot reach 127.0.0.1" },
                { "1.1.1.1,2.2.2.2,3.3.3.3,4.4.4.4", -E2BIG, "at most 3" },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                struct dns_servers s = { .n = 1, .addr = { 7777 } };
                struct err e = { 0 };
                int r = dns_parse_option(t[i].in, &s, &e);

                assert_int_equal(r, t[i].r);
                if (r == 0) {
                        check(&s, t[i].want, t[i].in);
                } else {
                        assert_int_equal(s.addr[0], 7777);
                        assert_non_null(strstr(e.msg, "network dns"));
                        assert_non_null(strstr(e.msg, t[i].want));
                }
        }
}

static bool is_two(void *arg, uint32_t addr)
{
        (void) arg;
        return addr == 2;
}

static void test_drop(void **state)
{
        struct dns_servers s = { .addr = { 1, 2, 3 }, .n = 3 };

        (void) state;
        dns_drop(&s, is_two, NULL);
        assert_int_equal(s.n, 2);
        assert_int_equal(s.addr[0], 1);
        assert_int_equal(s.addr[1], 3);
}

/* The stub alone sends us to the upstream file; anything else does not. */
static void test_load(void **state)
{
        static const struct {
                const char *etc, *upstream, *want;
        } t[] = {
                { "nameserver 127.0.0.53\n", "nameserver 192.0.2.9\n", "192.0.2.9 " },
                { "nameserver 127.0.0.53\n", NULL, "" },
                { "nameserver 192.0.2.1\n", "nameserver 192.0.2.9\n", "192.0.2.1 " },
                { "nameserver 127.0.0.1\n", "nameserver 192.0.2.9\n", "" },
                { "nameserver 127.0.0.53\nnameserver 192.0.2.1\n", "nameserver 192.0.2.9\n",
                  "192.0.2.1 " },
                { NULL, "nameserver 192.0.2.9\n", "" },
        };
        char dir[] = "/tmp/hvmm-dns-XXXXXX", etc[64], up[64];

        (void) state;
        assert_non_null(mkdtemp(dir));
        (void) snprintf(etc, sizeof etc, "%s/etc", dir);
        (void) snprintf(up, sizeof up, "%s/up", dir);
        for (size_t i = 0; i < NELEM(t); i++) {
                struct dns_servers s;

                (void) unlink(etc);
                (void) unlink(up);
                if (t[i].etc)
                        assert_int_equal(fd_replace_file(AT_FDCWD, etc, t[i].etc, strlen(t[i].etc),
                                                         0600, false),
                                         0);
                if (t[i].upstream)
                        assert_int_equal(fd_replace_file(AT_FDCWD, up, t[i].upstream,
                                                         strlen(t[i].upstream), 0600, false),
                                         0);
                assert_int_equal(dns_load(etc, up, &s, NULL), 0);
                check(&s, t[i].want, t[i].etc ? t[i].etc : "(none)");
        }
        (void) unlink(etc);
        (void) unlink(up);
        (void) rmdir(dir);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_resolv),
                cmocka_unit_test(test_option),
                cmocka_unit_test(test_drop),
                cmocka_unit_test(test_load),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
