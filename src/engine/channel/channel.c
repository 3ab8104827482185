/* channel.c - connection handling and cluster messages of the node protocol; requests are in
 * request.c.  Engine process, loop thread. */
#include "engine/channel/channel.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/jsonx.h"
#include "base/log.h"
#include "base/str.h"
#include "engine/channel/channel_priv.h"
#include "engine/channel/facts.h"
#include "engine/fleet/fleet.h"
#include "engine/instance.h"
#include "engine/op/listen.h"

#define PROTOCOL_VERSION 1
#define SOCKET_NAME      "node.sock"
#define MESSAGES_A_TURN  64

static void drop(struct channel *c, const char *why)
{
        if (!c->conn)
                return;
        log_warn("control plane: %s", why);
        request_drop_all(c);
        c->conn_src = sd_event_source_disable_unref(c->conn_src);
        c->conn = frame_conn_free(c->conn);
        c->welcome = false;
}

/* Ask for EPOLLOUT only while something waits. */
static void rearm(struct channel *c)
{
        if (c->conn)
                (void) sd_event_source_set_io_events(
                        c->conn_src, EPOLLIN | (frame_pending(c->conn) ? EPOLLOUT : 0));
}

void channel_send(struct channel *c, const json_t *msg, const int *fds, size_t n_fds)
{
        int r;

        if (!c->conn || !msg)
                return;
        r = frame_send(c->conn, msg, fds, n_fds);
        if (r < 0 && r != -ENOMEM)
                drop(c, "the connection is gone");
        else
                rearm(c);
}

void channel_report(void *channel, const json_t *report)
{
        struct channel *c = channel;
        AUTO(json_put) json_t *copy = NULL;

        if (!c->welcome)
                return;
        /* other CPUs can only be chosen by somebody who knows which ones are taken */
        if (json_is_true(json_object_get(report, "cpus_taken")))
                facts_refresh(c->facts);
        copy = json_copy((json_t *) (uintptr_t) report);
        if (!copy ||
            json_object_set_new(copy, "epoch", json_integer((json_int_t) c->spec.epoch)) < 0 ||
            json_object_set_new(copy, "seq", json_integer((json_int_t) ++c->seq)) < 0)
                return;
        channel_send(c, copy, NULL, 0);
}

static int on_welcome(struct channel *c, const struct frame_msg *m, struct err *e)
{
        AUTO(json_put)
        json_t *synced =
                json_pack("{s:s, s:I}", "type", "synced", "epoch", (json_int_t) c->spec.epoch);
        AUTO(json_put) json_t *inner = json_pack("{s:s}", "type", "inner");

        if (json_integer_value(json_object_get(m->json, "version")) != PROTOCOL_VERSION)
                return err_set(e, -EPROTO, "speaks another version of the node protocol");
        c->welcome = true;
        facts_send(c->facts);
        channel_gpus_changed(c);
        if (c->fleet)
                fleet_report_all(c->fleet);
        channel_send(c, synced, NULL, 0);
        security_send_waiting(c);
        if (c->spec.inner_fd >= 0)
                channel_send(c, inner, &c->spec.inner_fd, 1);
        if (c->spec.on_synced)
                c->spec.on_synced(c->spec.arg);
        return 0;
}

/* A plan that cannot be taken is answered with a report, so that the user sees why. */
static void refuse(struct channel *c, const char *cluster, uint64_t generation, const char *why)
{
        AUTO(json_put)
        json_t *j = json_pack("{s:s, s:s, s:I, s:s, s:s, s:b}", "type", "report", "cluster",
                              cluster, "generation", (json_int_t) generation, "state", "exited",
                              "reason", why, "released", 1);

        if (j)
                channel_report(c, j);
}

static uint64_t generation_of(const struct frame_msg *m)
{
        json_int_t g = json_integer_value(json_object_get(m->json, "generation"));

        return g > 0 ? (uint64_t) g : 0;
}

static int on_assign(struct channel *c, const struct frame_msg *m, struct err *e)
{
        const char *cluster = jsonx_str(m->json, "cluster");
        const char *desired = jsonx_str(m->json, "desired");
        const json_t *plan = json_object_get(m->json, "plan");
        const json_t *cred = json_object_get(m->json, "credentials");
        const struct fleet_login login = { jsonx_str(cred, "username"), jsonx_str(cred, "password"),
                                           jsonx_str(cred, "error") };
        const json_t *secrets = json_object_get(m->json, "secrets");
        struct err why = { 0 };

        if (!cluster || generation_of(m) == 0 || !json_is_object(plan) ||
            (!str_eq(desired, "running") && !str_eq(desired, "stopped")))
                return err_set(e, -EPROTO,
                               "an assign without cluster, generation, desired or plan");
        if (fleet_assign(c->fleet, cluster, generation_of(m), str_eq(desired, "running"), plan,
                         json_is_object(cred) ? &login : NULL,
                         json_is_object(secrets) ? secrets : NULL, jsonx_str(m->json, "ssh_keys"),
                         &why) < 0) {
                log_warn("assign of cluster %.32s: %s", cluster, why.msg);
                refuse(c, cluster, generation_of(m), why.msg);
        }
        return 0;
}

static int on_tombstone(struct channel *c, const struct frame_msg *m, struct err *e)
{
        const char *cluster = jsonx_str(m->json, "cluster");

        if (!cluster || generation_of(m) == 0)
                return err_set(e, -EPROTO, "a tombstone without cluster or generation");
        return fleet_tombstone(c->fleet, cluster, generation_of(m), e);
}

static int on_forget(struct channel *c, const struct frame_msg *m, struct err *e)
{
        const char *cluster = jsonx_str(m->json, "cluster");

        if (!cluster)
                return err_set(e, -EPROTO, "a forget without cluster");
        return fleet_forget(c->fleet, cluster, e);
}

/* What cannot be taken leaves the edge as it was: fewer are let in than should be, if anybody. */
static int on_keys(struct channel *c, const struct frame_msg *m, struct err *e)
{
        struct err why = { 0 };

        (void) e;
        if (c->spec.on_keys && c->spec.on_keys(c->spec.arg, m->json, &why) < 0)
                log_warn("the control plane's keys: %s", why.msg);
        return 0;
}

static const struct {
        const char *type;
        bool before_welcome;
        int (*fn)(struct channel *c, const struct frame_msg *m, struct err *e);
} messages[] = {
        { "welcome", true, on_welcome },      { "assign", false, on_assign },
        { "tombstone", false, on_tombstone }, { "forget", false, on_forget },
        { "request", false, request_handle }, { "cancel", false, request_cancel },
        { "keys", false, on_keys },
};

static int dispatch(struct channel *c, const struct frame_msg *m, struct err *e)
{
        const char *type = jsonx_str(m->json, "type");

        for (size_t i = 0; i < NELEM(messages); i++) {
                if (!str_eq(type, messages[i].type))
                        continue;
                if (c->welcome == messages[i].before_welcome)
                        return err_set(e, -EPROTO, "sent '%s' out of turn", type);
                return messages[i].fn(c, m, e);
        }
        return 0; /* a newer peer may know more */
}

static int on_conn(sd_event_source *s, int fd, uint32_t revents, void *arg)
{
        struct channel *c = arg;

        (void) s;
        (void) fd;
        if ((revents & EPOLLOUT) && frame_flush(c->conn) < 0) {
                drop(c, "the connection is gone");
                return 0;
        }
        for (int i = 0; c->conn && (i < MESSAGES_A_TURN || frame_ready(c->conn)); i++) {
                struct frame_msg m;
                struct err e = { 0 };
                int r = frame_recv(c->conn, &m, &e);

                if (r == 0)
                        break;
                if (r > 0) {
                        r = dispatch(c, &m, &e);
                        frame_msg_done(&m);
                }
                if (r == -EPROTO || r == -EPIPE)
                        drop(c, e.msg);
                else if (r < 0)
                        log_warn("control plane: %s", e.msg);
        }
        rearm(c);
        return 0;
}

static int send_hello(struct channel *c)
{
        AUTO(json_put)
        json_t *j = json_pack("{s:s, s:i, s:s, s:I, s:O}", "type", "hello", "version",
                              PROTOCOL_VERSION, "node", c->spec.host->inst->id, "epoch",
                              (json_int_t) c->spec.epoch, "inventory", c->spec.inventory);

        if (!j)
                return -ENOMEM;
        channel_send(c, j, NULL, 0);
        return 0;
}

static int on_accept(sd_event_source *s, int fd, uint32_t revents, void *arg)
{
        struct channel *c = arg;
        AUTO(fd) int conn = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        struct ucred cred;
        socklen_t len = sizeof cred;

        (void) s;
        (void) revents;
        if (conn < 0)
                return 0; /* gone again */
        if (getsockopt(conn, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0 ||
            (cred.uid != 0 && cred.uid != c->spec.peer_uid)) {
                log_warn("control plane: refused a connection from uid %u", cred.uid);
                return 0;
        }
        drop(c, "replaced by a new connection");
        if (frame_conn_new(fd_take(&conn), &c->conn) < 0)
                return 0;
        if (sd_event_add_io(c->spec.loop, &c->conn_src, frame_conn_fd(c->conn), EPOLLIN, on_conn,
                            c) < 0 ||
            send_hello(c) < 0) {
                drop(c, "out of memory");
                return 0;
        }
        return 0;
}

int channel_new(const struct channel_spec *spec, struct channel **ret, struct err *e)
{
        AUTO(channel_free) struct channel *c = calloc(1, sizeof *c);
        int r;

        if (!c)
                return err_set(e, -ENOMEM, "out of memory");
        c->spec = *spec;
        c->listener = -EBADF;
        r = facts_new(c, &c->facts, e);
        if (r < 0)
                return r;
        c->listener = op_listen(spec->host->inst->run_fd, SOCKET_NAME, e);
        if (c->listener < 0)
                return c->listener;
        if (fchownat(spec->host->inst->run_fd, SOCKET_NAME, spec->peer_uid, spec->peer_uid,
                     AT_SYMLINK_NOFOLLOW) < 0)
                return err_errno(e, -errno, "hand %s to the control plane", SOCKET_NAME);
        r = sd_event_add_io(spec->loop, &c->listen_src, c->listener, EPOLLIN, on_accept, c);
        if (r < 0)
                return err_errno(e, r, "watch %s", SOCKET_NAME);
        *ret = TAKE(c);
        return 0;
}

struct channel *channel_free(struct channel *c)
{
        if (!c)
                return NULL;
        request_drop_all(c);
        security_forget(c);
        c->facts = facts_free(c->facts);
        sd_event_source_disable_unref(c->conn_src);
        sd_event_source_disable_unref(c->listen_src);
        (void) frame_conn_free(c->conn);
        (void) fd_close(c->listener);
        free(c);
        return NULL;
}

void channel_set_fleet(struct channel *c, struct fleet *f)
{
        c->fleet = f;
}
