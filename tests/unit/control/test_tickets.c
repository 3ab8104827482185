/* test_tickets.c - a ticket is good once, for a while, for whom it was made; and there are only so many. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "control/rest/tickets.h"

#define NOW_US (1000 * US_PER_S)

static const struct caller alice = { .right = KEY_WRITE, .account = "alice", .key = "k1" };
static const struct caller bob = { .right = KEY_ADMIN, .account = "bob", .key = "k2" };

static void issue(struct tickets *t, const struct caller *who, const char *cluster, uint64_t now_us,
                  char ret[static TICKET_CHARS + 1])
{
        struct err e = { 0 };

        assert_int_equal(tickets_issue(t, who, cluster, now_us, ret, &e), 0);
        assert_int_equal(strlen(ret), TICKET_CHARS);
}

static bool take(struct tickets *t, const char *text, uint64_t now_us, struct caller *who,
                 char cluster[static LIMIT_CLUSTER_ID_LEN + 1])
{
        *who = (struct caller){ .right = KEY_NONE };
        *cluster = '\0';
        return tickets_take(t, text, now_us, who, cluster);
}

static void test_once_and_for_whom(void **state)
{
        struct tickets *t = tickets_new();
        char a[TICKET_CHARS + 1], b[TICKET_CHARS + 1], cluster[LIMIT_CLUSTER_ID_LEN + 1];
        struct caller who;

        (void) state;
        issue(t, &alice, "abcdefghijklmn", NOW_US, a);
        issue(t, &bob, "other", NOW_US, b);
        assert_string_not_equal(a, b);
        assert_true(take(t, b, NOW_US + 1, &who, cluster));
        assert_string_equal(who.account, "bob");
        assert_int_equal(who.right, KEY_ADMIN);
        assert_string_equal(cluster, "other");
        assert_false(take(t, b, NOW_US + 1, &who, cluster));
        assert_int_equal(who.right, KEY_NONE);
        assert_true(take(t, a, NOW_US + TICKET_LIFE_US - 1, &who, cluster));
        assert_string_equal(who.key, "k1");
        assert_string_equal(cluster, "abcdefghijklmn");
        tickets_free(t);
}

static void test_what_is_none(void **state)
{
        struct tickets *t = tickets_new();
        char a[TICKET_CHARS + 1], cluster[LIMIT_CLUSTER_ID_LEN + 1], none[TICKET_CHARS + 1];
        struct caller who;

        (void) state;
        memset(none, '0', TICKET_CHARS);
        none[TICKET_CHARS] = '\0';
        assert_false(take(t, "", NOW_US, &who, cluster));
        assert_false(take(t, none, NOW_US, &who, cluster)); /* a free place is no ticket */
        issue(t, &alice, "c", NOW_US, a);
        a[0] = a[0] == '0' ? '1' : '0';
        assert_false(take(t, a, NOW_US, &who, cluster));
        a[TICKET_CHARS - 1] = '\0';
        assert_false(take(t, a, NOW_US, &who, cluster));
        tickets_free(t);
}

static void test_too_late(void **state)
{
        struct tickets *t = tickets_new();
        char a[TICKET_CHARS + 1], cluster[LIMIT_CLUSTER_ID_LEN + 1];
        struct caller who;

        (void) state;
        issue(t, &alice, "c", NOW_US, a);
        assert_false(take(t, a, NOW_US + TICKET_LIFE_US, &who, cluster));
        assert_false(take(t, a, NOW_US, &who, cluster)); /* asking has used it up */
        tickets_free(t);
}

static void test_how_many(void **state)
{
        struct tickets *t = tickets_new();
        char a[TICKET_CHARS + 1], cluster[LIMIT_CLUSTER_ID_LEN + 1];
        struct err e = { 0 };
        struct caller who;

        (void) state;
        for (unsigned i = 0; i < TICKETS_EACH; i++)
                issue(t, &alice, "c", NOW_US, a);
        {
                char none[TICKET_CHARS + 1];

                assert_int_equal(tickets_issue(t, &alice, "c", NOW_US, none, &e), -EBUSY);
        }
        assert_non_null(strstr(e.msg, "30 seconds"));
        assert_true(take(t, a, NOW_US, &who, cluster));
        issue(t, &alice, "c", NOW_US, a); /* one was used */
        for (unsigned n = TICKETS_EACH; n < TICKETS_MAX; n++) {
                struct caller other = { .right = KEY_WRITE };

                (void) snprintf(other.account, sizeof other.account, "u%u", n / TICKETS_EACH);
                issue(t, &other, "c", NOW_US, a);
        }
        assert_int_equal(tickets_issue(t, &bob, "c", NOW_US, a, &e), -EBUSY);
        issue(t, &bob, "c", NOW_US + TICKET_LIFE_US, a); /* all others are too old */
        assert_true(take(t, a, NOW_US + TICKET_LIFE_US, &who, cluster));
        tickets_free(t);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_once_and_for_whom),
                cmocka_unit_test(test_what_is_none),
                cmocka_unit_test(test_too_late),
                cmocka_unit_test(test_how_many),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
