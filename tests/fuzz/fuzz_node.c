/* fuzz_node.c - libFuzzer target for the node protocol: frames as either side reads them, and the plan
 * that an engine takes from a control plane which it does not believe.  The first byte chooses:
 *
 *   f  bytes of a stream, read in pieces        p  a plan (JSON)
 *   o  text of `ports`                          m  a mount point
 *
 * Checked beside memory errors: a plan that is taken is within its limits and, written and read again,
 * the same; a stream cut anywhere gives the same messages. */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/frame.h"
#include "base/jsonx.h"
#include "base/str.h"
#include "model/limits.h"
#include "model/plan.h"
#include "model/security.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define PIECES_MAX 64U

#define CHECK(x)                                                                                   \
        do {                                                                                       \
                if (!(x)) {                                                                        \
                        fprintf(stderr, "fuzz_node: %s\n", #x);                                    \
                        __builtin_trap();                                                          \
                }                                                                                  \
        } while (0)

struct heard {
        size_t messages, bytes;
        int end;
};

static void listen_to(struct frame_conn *c, struct heard *h)
{
        struct frame_msg m = { 0 };
        struct err e = { 0 };
        int r;

        while (h->end == 0 && (r = frame_recv(c, &m, &e)) != 0) {
                if (r < 0) {
                        CHECK(r == -EPIPE || (r == -EPROTO && *e.msg) || r == -ENOMEM);
                        h->end = r;
                        return;
                }
                AUTO(free) char *text = json_dumps(m.json, JSON_COMPACT);

                CHECK(json_is_object(m.json) && m.n_fds == 0 && text);
                h->messages++;
                h->bytes += strlen(text);
                frame_msg_done(&m);
        }
}

/* In pieces of @piece bytes, then the end of the stream. */
static struct heard stream(const uint8_t *data, size_t size, size_t piece)
{
        AUTO(frame_conn_free) struct frame_conn *c = NULL;
        AUTO(fd) int ours = -EBADF;
        struct heard h = { 0 };
        int p[2];

        CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, p) == 0);
        ours = p[1];
        CHECK(frame_conn_new(p[0], &c) == 0);
        for (size_t at = 0; at < size && h.end == 0; at += piece) {
                size_t n = size - at < piece ? size - at : piece;

                CHECK(send(ours, data + at, n, MSG_NOSIGNAL) == (ssize_t) n);
                listen_to(c, &h);
        }
        ours = fd_close(ours);
        listen_to(c, &h);
        return h;
}

static void frames(const uint8_t *data, size_t size)
{
        size_t piece = 1 + size / PIECES_MAX;
        struct heard whole = stream(data, size, size + 1), pieces = stream(data, size, piece);

        CHECK(whole.messages == pieces.messages && whole.bytes == pieces.bytes);
        CHECK(whole.end == pieces.end && whole.end < 0);
}

static void plan(const json_t *j)
{
        struct plan p = { 0 }, again = { 0 };
        struct plan_port ports[LIMIT_PORTS];
        struct err e = { 0 };
        AUTO(json_put) json_t *out = NULL, *twice = NULL;

        if (plan_decode(j, &p, &e) < 0) {
                CHECK(*e.msg);
                return;
        }
        CHECK(plan_cluster_id_ok(p.cluster) && p.generation >= 1 && p.vcpu >= 1);
        CHECK(p.vcpu <= LIMIT_VCPU && p.container_disk_gib <= LIMIT_DISK_GIB);
        CHECK(plan_ports(p.ports, ports, NELEM(ports), NULL) >= 0);
        if (p.volume_gib)
                CHECK(plan_mount_path("volume_path", p.volume_path, NULL) >= 0);
        out = plan_encode(&p);
        CHECK(out && plan_decode(out, &again, &e) >= 0);
        twice = plan_encode(&again);
        CHECK(twice && json_equal(out, twice));
        plan_done(&p);
        plan_done(&again);
}

static void ports(const char *text)
{
        struct plan_port list[LIMIT_PORTS];
        struct err e = { 0 };
        int n = plan_ports(text, list, NELEM(list), &e);

        CHECK(n <= (int) NELEM(list) && (n >= 0 || *e.msg));
        for (int i = 0; i < n; i++)
                CHECK(list[i].private_port >= 1 && list[i].private_port <= 65535 &&
                      list[i].type > PORT_NONE && list[i].type < PORT_TYPE_COUNT);
}

static void mount_path(const char *text)
{
        struct err e = { 0 };

        if (plan_mount_path("volumeMountPath", text, &e) < 0) {
                CHECK(strstr(e.msg, "volumeMountPath"));
                return;
        }
        CHECK(text[0] == '/' && text[1] && !strstr(text, "//") && !strstr(text, "/../"));
        CHECK(strncmp(text, "/proc", 5) != 0 || (text[5] && text[5] != '/'));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        AUTO(free) char *text = NULL;
        AUTO(json_put) json_t *j = NULL;

        if (size < 1)
                return 0;
        text = strndup((const char *) data + 1, size - 1);
        CHECK(text);
        if (data[0] == 'f')
                frames(data + 1, size - 1);
        else if (data[0] == 'p' && (j = jsonx_parse((const char *) data + 1, size - 1, NULL)))
                plan(j);
        else if (data[0] == 'o')
                ports(text);
        else if (data[0] == 'm')
                mount_path(text);
        return 0;
}
