/* fuzz_http.c - libFuzzer target for the HTTP side of tensorone-api: the real server with a real store and
 * an administrator's key, and no engine.  Input: the first line is "METHOD PATH", what follows it is the
 * body of a request with that key; a first byte '!' means that the rest goes over the wire as it is.
 *
 * Checked beside memory errors: a well-formed request gets an HTTP answer, and none says "internal error".
 * What is answered later than in a moment is given up, as a client would. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/str.h"
#include "control/rest/http.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define PATIENCE_US (20 * US_PER_MS)
#define TURN_US     (2 * US_PER_MS)

#define CHECK(x)                                                                                   \
        do {                                                                                       \
                if (!(x)) {                                                                        \
                        fprintf(stderr, "fuzz_http: %s\n", #x);                                    \
                        __builtin_trap();                                                          \
                }                                                                                  \
        } while (0)

struct world {
        sd_event *loop;
        struct plane *plane;
        struct http_server *http;
        char dir[32], *key;
        struct sockaddr_in at;
        unsigned asked;
        bool durable;
};

static void on_inner(void *arg, int fd)
{
        (void) arg;
        (void) fd_close(fd);
}

static void on_synced(void *arg)
{
        (void) arg;
}

static void on_fence(int r, void *arg)
{
        CHECK(r >= 0);
        ((struct world *) arg)->durable = true;
}

static int listener(struct sockaddr_in *at)
{
        socklen_t len = sizeof *at;
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

        *at = (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
        CHECK(fd >= 0 && bind(fd, (struct sockaddr *) at, sizeof *at) == 0);
        CHECK(listen(fd, 64) == 0 && getsockname(fd, (struct sockaddr *) at, &len) == 0);
        return fd;
}

static void make_admin(struct world *w)
{
        struct store_txn *t = plane_txn(w->plane);
        struct accounts *all = plane_accounts(w->plane);
        const struct account *admin = NULL;
        const char *id = NULL;

        CHECK(t && accounts_add(all, t, "admin", true, 1, &admin, NULL) >= 0);
        CHECK(accounts_add_key(all, t, admin->id, KEY_ADMIN, "admin", 1, &w->key, &id, NULL) >= 0);
        plane_submit(w->plane, t);
        plane_fence(w->plane, on_fence, w);
        while (!w->durable)
                CHECK(sd_event_run(w->loop, UINT64_MAX) >= 0);
}

static void world_done(struct world *w)
{
        w->http = http_free(w->http);
        w->plane = plane_free(w->plane);
        w->loop = sd_event_unref(w->loop);
        (void) fd_rm_rf(AT_FDCWD, w->dir);
        w->key = str_wipe_free(w->key);
}

static struct world the_world;

static void at_end(void)
{
        world_done(&the_world);
}

static void world_new(struct world *w)
{
        struct plane_conf pc = { .node_path = "/nonexistent/node.sock",
                                 .inner = on_inner,
                                 .synced = on_synced };
        AUTO(fd) int seal = memfd_create("seal", MFD_CLOEXEC);
        struct http_conf hc;
        struct err e = { 0 };

        log_init("fuzz", LOG_LVL_ERROR);
        (void) snprintf(w->dir, sizeof w->dir, "/dev/shm/hvmm-fuzz-XXXXXX");
        CHECK(mkdtemp(w->dir) && sd_event_new(&w->loop) >= 0 && seal >= 0);
        pc.loop = w->loop;
        pc.data_dir = w->dir;
        pc.seal_fd = seal;
        if (plane_new(&pc, &w->plane, &e) < 0)
                fprintf(stderr, "%s\n", e.msg);
        CHECK(w->plane);
        make_admin(w);
        hc = (struct http_conf){ w->loop, w->plane, listener(&w->at) };
        CHECK(http_new(&hc, &w->http, &e) >= 0);
        (void) atexit(at_end);
}

/* The request as it goes over the wire; false: the input is none. */
static bool request(const struct world *w, const uint8_t *data, size_t size, struct strbuf *out)
{
        const char *line = (const char *) data, *end = memchr(data, '\n', size);
        size_t n = end ? (size_t) (end - line) : size, rest = size - n - (end ? 1 : 0);

        if (size > 0 && data[0] == '!') {
                strbuf_add(out, line + 1, size - 1);
                return false;
        }
        strbuf_add(out, line, n);
        strbuf_fmt(
                out,
                " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n"
                "Content-Type: application/json\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n",
                w->key, rest);
        if (rest)
                strbuf_add(out, end + 1, rest);
        return true;
}

static void check_answer(const char *text, size_t len)
{
        if (len == 0)
                return; /* it was not in time, or no request */
        CHECK(len >= 12 && memcmp(text, "HTTP/1.", 7) == 0);
        CHECK(memcmp(text + 9, "500", 3) != 0);
}

static void talk(struct world *w, const struct strbuf *out)
{
        AUTO(fd) int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        const struct linger now = { 1, 0 }; /* no port stays behind */
        uint64_t until = clock_mono_us() + PATIENCE_US;
        char answer[4096];
        size_t sent = 0, got = 0;
        bool over = false;

        CHECK(fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now) == 0);
        if (connect(fd, (struct sockaddr *) &w->at, sizeof w->at) < 0)
                CHECK(errno == EINPROGRESS);
        while (!over && clock_mono_us() < until) {
                ssize_t n;

                if (sent < out->len) {
                        n = send(fd, out->s + sent, out->len - sent, MSG_NOSIGNAL);
                        sent += n > 0 ? (size_t) n : 0;
                        if (n < 0 && errno != EAGAIN && errno != ENOTCONN)
                                sent = out->len; /* refused before all of it was read */
                }
                CHECK(sd_event_run(w->loop, TURN_US) >= 0);
                do { /* the beginning is enough */
                        char more[4096];
                        char *to = got < sizeof answer ? answer + got : more;

                        n = recv(fd, to, got < sizeof answer ? sizeof answer - got : sizeof more,
                                 0);
                        if (n > 0 && to != more)
                                got += (size_t) n;
                } while (n > 0);
                over = n == 0 || (n < 0 && errno != EAGAIN && errno != ENOTCONN);
        }
        check_answer(answer, got);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        AUTO(strbuf_done) struct strbuf out = { 0 };

        if (!the_world.http)
                world_new(&the_world);
        if (!request(&the_world, data, size, &out) && out.len == 0)
                return 0;
        CHECK(!out.failed);
        talk(&the_world, &out);
        return 0;
}
