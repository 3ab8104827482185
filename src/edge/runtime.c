/* runtime.c - see runtime.h.
 *
 * With "prompt" a connection stays open, and every answer ends with "> " at the beginning of a line; before
 * the answer to a command that goes on over lines stands a "+ " for each of them. */
#include "edge/runtime.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/str.h"

#define ANSWER_MAX (64U << 10)
#define QUEUE_MAX  (64U << 20)
#define LATE_US    US_PER_S /* of our own timer: whatever has passed says nothing of the other side */

struct runtime {
        struct runtime_spec spec;
        sd_event_source *io_src, *timer_src;
        struct strbuf out, in;
        uint64_t said, answered;
        bool lost;
};

static void put_lost(struct runtime *r, const char *why)
{
        if (r->lost)
                return;
        r->lost = true;
        (void) sd_event_source_set_enabled(r->io_src, SD_EVENT_OFF);
        (void) sd_event_source_set_enabled(r->timer_src, SD_EVENT_OFF);
        r->spec.lost(r->spec.arg, why);
}

/* Out of a caller's sight: spec.lost must not come while something is said. */
static void lose_soon(struct runtime *r)
{
        (void) sd_event_source_set_time_relative(r->timer_src, 0);
        (void) sd_event_source_set_enabled(r->timer_src, SD_EVENT_ONESHOT);
        r->out.failed = true;
}

static void wait_for_answers(struct runtime *r)
{
        (void) sd_event_source_set_time_relative(r->timer_src, r->spec.patience_us);
        (void) sd_event_source_set_enabled(r->timer_src,
                                           r->answered < r->said ? SD_EVENT_ONESHOT : SD_EVENT_OFF);
}

static void flush(struct runtime *r)
{
        while (r->out.len > 0 && !r->out.failed) {
                ssize_t n = send(r->spec.fd, r->out.s, r->out.len, MSG_NOSIGNAL | MSG_DONTWAIT);

                if (n < 0 && errno == EAGAIN)
                        break;
                if (n < 0) {
                        lose_soon(r);
                        return;
                }
                explicit_bzero(r->out.s, (size_t) n); /* there are keys among what is said */
                strbuf_drop_front(&r->out, (size_t) n);
        }
        (void) sd_event_source_set_io_events(r->io_src, r->out.len ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

/* One answer, NUL-terminated, without its prompt. */
static char *bare(char *text)
{
        size_t n;

        while (str_after(text, "+ "))
                text += 2;
        text += strspn(text, " \n");
        n = strlen(text);
        while (n > 0 && (text[n - 1] == '\n' || text[n - 1] == ' '))
                n--;
        text[n] = '\0';
        return text;
}

static void take_answers(struct runtime *r)
{
        char *end;

        while (!r->lost && r->in.len > 0 && (end = strstr(r->in.s, "\n> "))) {
                size_t used = (size_t) (end - r->in.s) + 3;

                *end = '\0';
                if (r->answered == r->said) {
                        put_lost(r, "it answers what was not asked");
                        return;
                }
                r->spec.answer(r->spec.arg, ++r->answered, bare(r->in.s));
                strbuf_drop_front(&r->in, used);
                wait_for_answers(r);
        }
        if (r->in.len > ANSWER_MAX)
                put_lost(r, "an answer has no end");
}

static int on_io(sd_event_source *s, int fd, uint32_t revents, void *arg)
{
        struct runtime *r = arg;
        char buf[16384];
        ssize_t n;

        (void) s;
        if (revents & EPOLLOUT)
                flush(r);
        n = recv(fd, buf, sizeof buf, MSG_DONTWAIT);
        if (n < 0 && errno == EAGAIN)
                return 0;
        if (n <= 0) {
                put_lost(r, "it has closed the connection");
                return 0;
        }
        if (memchr(buf, '\0', (size_t) n)) {
                put_lost(r, "its answer is no text");
                return 0;
        }
        strbuf_add(&r->in, buf, (size_t) n);
        if (r->in.failed)
                put_lost(r, "out of memory");
        else
                take_answers(r);
        return 0;
}

/* That nobody has read yet. */
static bool has_words(const struct runtime *r)
{
        struct pollfd p = { .fd = r->spec.fd, .events = POLLIN };

        return poll(&p, 1, 0) > 0;
}

static int on_timer(sd_event_source *s, uint64_t usec, void *arg)
{
        struct runtime *r = arg;

        (void) s;
        /* If it is we who are late, the machine stood still, and the other side as well. */
        if (!r->out.failed && (clock_mono_us() > usec + LATE_US || has_words(r)))
                wait_for_answers(r);
        else
                put_lost(r, r->out.failed ? "it cannot be told anything" : "it does not answer");
        return 0;
}

int runtime_new(const struct runtime_spec *spec, struct runtime **ret, struct err *e)
{
        AUTO(runtime_free) struct runtime *r = calloc(1, sizeof *r);
        int res;

        if (!r) {
                (void) close(spec->fd);
                return err_set(e, -ENOMEM, "out of memory");
        }
        r->spec = *spec;
        res = sd_event_add_io(spec->loop, &r->io_src, spec->fd, EPOLLIN, on_io, r);
        if (res >= 0)
                res = sd_event_add_time_relative(spec->loop, &r->timer_src, CLOCK_MONOTONIC, 0,
                                                 US_PER_MS, on_timer, r);
        if (res >= 0)
                res = sd_event_source_set_enabled(r->timer_src, SD_EVENT_OFF);
        if (res < 0)
                return err_errno(e, res, "watch HAProxy's runtime socket");
        (void) runtime_say(r, "prompt\n", 1);
        *ret = TAKE(r);
        return 0;
}

struct runtime *runtime_free(struct runtime *r)
{
        if (!r)
                return NULL;
        sd_event_source_disable_unref(r->io_src);
        sd_event_source_disable_unref(r->timer_src);
        strbuf_done(&r->out);
        strbuf_done(&r->in);
        (void) fd_close(r->spec.fd);
        free(r);
        return NULL;
}

uint64_t runtime_say(struct runtime *r, const char *commands, size_t n)
{
        if (r->lost || n == 0)
                return r->said;
        if (r->answered == r->said) {
                r->said += n;
                wait_for_answers(r);
        } else {
                r->said += n;
        }
        strbuf_str(&r->out, commands);
        if (r->out.failed || r->out.len > QUEUE_MAX)
                lose_soon(r);
        else
                flush(r);
        return r->said;
}
