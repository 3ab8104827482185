/* test_runtime.c - src/edge/runtime.c against answers that come in any pieces, or not at all. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/str.h"
#include "edge/runtime.h"

#define LONG_US (60 * US_PER_S)

struct seen {
        struct strbuf answers; /* "<number>=<text>|" */
        char lost[64];
};

static void on_answer(void *arg, uint64_t number, const char *text)
{
        struct seen *s = arg;

        strbuf_fmt(&s->answers, "%llu=%s|", (unsigned long long) number, text);
}

static void on_lost(void *arg, const char *why)
{
        struct seen *s = arg;

        assert_string_equal(s->lost, ""); /* once */
        (void) snprintf(s->lost, sizeof s->lost, "%s", why);
}

static struct runtime *begin(sd_event *loop, struct seen *seen, uint64_t patience, int *ret_peer)
{
        struct runtime_spec spec = { .loop = loop,
                                     .patience_us = patience,
                                     .answer = on_answer,
                                     .lost = on_lost,
                                     .arg = seen };
        struct runtime *r = NULL;
        int pair[2];

        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
        spec.fd = pair[0];
        *ret_peer = pair[1];
        assert_int_equal(runtime_new(&spec, &r, NULL), 0);
        return r;
}

static void run(sd_event *loop)
{
        while (sd_event_run(loop, 0) > 0)
                ;
}

static void test_pieces(void **state)
{
        static const char text[] =
                "\n> New version created: 1\n\n> + + + \n> \n> No such server.\n> ";
        struct seen seen = { .lost = "" };
        sd_event *loop = NULL;
        char got[256];
        struct runtime *r;
        ssize_t n;
        int peer;

        (void) state;
        assert_int_equal(sd_event_new(&loop), 0);
        r = begin(loop, &seen, LONG_US, &peer);
        assert_int_equal(runtime_say(r, "prepare map /m\n", 1), 2);
        assert_int_equal(runtime_say(r, "add map @1 /m <<\na b\nc d\n\ncommit map @1 /m\n", 2), 4);
        assert_int_equal(runtime_say(r, "del server x/y\n", 1), 5);
        n = recv(peer, got, sizeof got - 1, 0);
        assert_true(n > 0);
        got[n] = '\0';
        assert_string_equal(
                got,
                "prompt\nprepare map /m\nadd map @1 /m <<\na b\nc d\n\ncommit map @1 /m\ndel server x/y\n");
        for (size_t i = 0; i < sizeof text - 1; i++) {
                assert_int_equal(send(peer, text + i, 1, 0), 1);
                run(loop);
        }
        assert_string_equal(seen.answers.s, "1=|2=New version created: 1|3=|4=|5=No such server.|");
        assert_string_equal(seen.lost, "");
        strbuf_done(&seen.answers);
        (void) runtime_free(r);
        (void) close(peer);
        sd_event_unref(loop);
}

static void test_what_was_not_asked(void **state)
{
        struct seen seen = { .lost = "" };
        sd_event *loop = NULL;
        struct runtime *r;
        int peer;

        (void) state;
        assert_int_equal(sd_event_new(&loop), 0);
        r = begin(loop, &seen, LONG_US, &peer);
        assert_int_equal(send(peer, "\n> \n> ", 6, 0), 6);
        run(loop);
        assert_string_equal(seen.answers.s, "1=|");
        assert_string_equal(seen.lost, "it answers what was not asked");
        assert_int_equal(runtime_say(r, "show info\n", 1), 1); /* nobody listens any more */
        strbuf_done(&seen.answers);
        (void) runtime_free(r);
        (void) close(peer);
        sd_event_unref(loop);
}

static void test_ends(void **state)
{
        struct seen seen = { .lost = "" };
        sd_event *loop = NULL;
        struct runtime *r;
        int peer;

        (void) state;
        assert_int_equal(sd_event_new(&loop), 0);
        r = begin(loop, &seen, LONG_US, &peer);
        (void) close(peer);
        run(loop);
        /* unread words of ours make it a reset */
        assert_true(strstr(seen.lost, "closed the connection") != NULL);
        (void) runtime_free(r);
        sd_event_unref(loop);
}

static void test_silence(void **state)
{
        struct seen seen = { .lost = "" };
        uint64_t until = clock_mono_us() + LONG_US;
        sd_event *loop = NULL;
        struct runtime *r;
        int peer;

        (void) state;
        assert_int_equal(sd_event_new(&loop), 0);
        r = begin(loop, &seen, 20 * US_PER_MS, &peer);
        while (!*seen.lost && clock_mono_us() < until)
                assert_true(sd_event_run(loop, LONG_US) >= 0);
        assert_string_equal(seen.lost, "it does not answer");
        (void) runtime_free(r);
        (void) close(peer);
        sd_event_unref(loop);
}

/* A machine that stood still for longer than the patience: nobody could answer meanwhile. */
static void test_a_standstill_is_no_silence(void **state)
{
        struct seen seen = { .lost = "" };
        sd_event *loop = NULL;
        struct runtime *r;
        uint64_t until;
        int peer;

        (void) state;
        assert_int_equal(sd_event_new(&loop), 0);
        r = begin(loop, &seen, 400 * US_PER_MS, &peer);
        until = clock_mono_us() + 1500 * US_PER_MS;
        while (clock_mono_us() < until)
                (void) usleep(100000);
        assert_true(sd_event_run(loop, 0) >= 0);
        assert_string_equal(seen.lost, "");
        assert_int_equal(send(peer, "\n> ", 3, 0), 3);
        run(loop);
        assert_string_equal(seen.answers.s, "1=|");
        strbuf_done(&seen.answers);
        (void) runtime_free(r);
        (void) close(peer);
        sd_event_unref(loop);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_pieces),
                cmocka_unit_test(test_what_was_not_asked),
                cmocka_unit_test(test_ends),
                cmocka_unit_test(test_silence),
                cmocka_unit_test(test_a_standstill_is_no_silence),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
