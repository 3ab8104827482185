/* edge_keys.c - see edge_keys.h.
 *
 * What always holds: nothing is changed in HAProxy before a control plane has told of all accounts, so that an engine
 * that was just started takes nobody's key away; a change that HAProxy does not take is followed by all of it. */
#include "engine/edge_keys.h"

#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "base/jsonx.h"
#include "base/log.h"
#include "base/str.h"
#include "edge/config.h"
#include "edge/keys.h"
#include "edge/runtime.h"
#include "engine/edge_child.h"
#include "engine/edge_files.h"
#include "engine/op/listen.h"

#define PATIENCE_US (10 * US_PER_S)
#define AGAIN_US    (100 * US_PER_MS) /* between two connections */

struct edge_keys {
        sd_event *loop;
        const struct instance *inst;
        struct edge_files files;
        struct keys *keys;
        struct runtime *runtime;
        sd_event_source *again_src;
        uint64_t prepared, before; /* numbers of commands; 0: not said yet */
};

static void connect_soon(struct edge_keys *k)
{
        (void) sd_event_source_set_time_relative(k->again_src, AGAIN_US);
        (void) sd_event_source_set_enabled(k->again_src, SD_EVENT_ONESHOT);
}

static void on_lost(void *arg, const char *why)
{
        struct edge_keys *k = arg;

        log_debug("haproxy: %s; it is told of all keys again", why);
        connect_soon(k); /* which frees the runtime: that must not happen in here */
}

static void fill(struct edge_keys *k, const char *text)
{
        AUTO(strbuf_done) struct strbuf b = { 0 };
        const char *number = strstr(text, ": ");
        uint64_t version = 0;
        size_t n;

        if (!number || str_u64(number + 2, 1, UINT32_MAX, &version) < 0) {
                log_error("haproxy: no new version of the keys: %s", text);
                connect_soon(k);
                return;
        }
        n = keys_fill(k->keys, (unsigned) version, &b);
        k->before = runtime_say(k->runtime, "", 0);
        if (b.failed)
                connect_soon(k);
        else
                (void) runtime_say(k->runtime, b.s, n);
}

static void on_answer(void *arg, uint64_t number, const char *text)
{
        struct edge_keys *k = arg;

        if (number == k->prepared) {
                fill(k, text);
        } else if (*text && k->before && number > k->before) {
                log_error("haproxy: a change of keys: %s", text);
                connect_soon(k);
        }
}

static int talk(struct edge_keys *k, struct err *e)
{
        struct runtime_spec spec = { .loop = k->loop,
                                     .patience_us = PATIENCE_US,
                                     .answer = on_answer,
                                     .lost = on_lost,
                                     .arg = k };
        AUTO(free) char *prepare = str_fmt("prepare map %s/" EDGE_KEYS_FILE "\n", k->files.dir);
        int r;

        if (!prepare)
                return err_set(e, -ENOMEM, "out of memory");
        spec.fd = op_connect(k->inst->run_fd, EDGE_ADMIN_SOCKET, e);
        r = spec.fd < 0 ? spec.fd : runtime_new(&spec, &k->runtime, e);
        if (r < 0)
                return r;
        k->before = 0;
        k->prepared = runtime_say(k->runtime, prepare, 1);
        return 0;
}

/* Its listener is the engine's: connecting works while HAProxy is being started, too, and then waits. */
static int on_again(sd_event_source *s, uint64_t usec, void *arg)
{
        struct edge_keys *k = arg;

        (void) s;
        (void) usec;
        k->runtime = runtime_free(k->runtime);
        k->prepared = k->before = 0;
        if (keys_complete(k->keys) && talk(k, NULL) < 0)
                connect_soon(k);
        return 0;
}

int edge_keys_new(sd_event *loop, const struct instance *inst, struct edge_keys **ret,
                  struct err *e)
{
        AUTO(edge_keys_free) struct edge_keys *k = calloc(1, sizeof *k);
        AUTO(free) char *map = NULL;
        int r;

        if (!k)
                return err_set(e, -ENOMEM, "out of memory");
        k->loop = loop;
        k->inst = inst;
        k->files.fd = -EBADF;
        r = edge_files_open(inst, &k->files, e);
        if (r < 0)
                return r;
        map = str_fmt("%s/" EDGE_KEYS_FILE, k->files.dir);
        k->keys = map ? keys_new(map) : NULL;
        if (!k->keys)
                return err_set(e, -ENOMEM, "out of memory");
        r = sd_event_add_time_relative(loop, &k->again_src, CLOCK_MONOTONIC, 0, US_PER_MS, on_again,
                                       k);
        if (r >= 0)
                r = sd_event_source_set_enabled(k->again_src, SD_EVENT_OFF);
        if (r < 0)
                return err_errno(e, r, "a timer");
        *ret = TAKE(k);
        return 0;
}

struct edge_keys *edge_keys_free(struct edge_keys *k)
{
        if (!k)
                return NULL;
        k->runtime = runtime_free(k->runtime);
        sd_event_source_disable_unref(k->again_src);
        k->keys = keys_free(k->keys);
        edge_files_done(&k->files);
        free(k);
        return NULL;
}

/* For a HAProxy that is started from now on. */
static void put_file(struct edge_keys *k)
{
        AUTO(strbuf_done) struct strbuf b = { 0 };
        struct err e = { 0 };

        keys_file(k->keys, &b);
        if (b.failed || edge_files_put(&k->files, EDGE_KEYS_FILE, b.s ? b.s : "", b.len, &e) < 0)
                log_error("edge: %s", b.failed ? "out of memory" : e.msg);
}

void edge_keys_begin(struct edge_keys *k)
{
        keys_begin(k->keys);
}

int edge_keys_take(struct edge_keys *k, const json_t *msg, struct err *e)
{
        AUTO(strbuf_done) struct strbuf b = { 0 };
        bool was = keys_complete(k->keys);
        int n = json_is_true(json_object_get(msg, "complete"))
                        ? keys_end(k->keys, &b)
                        : keys_set(k->keys, jsonx_str(msg, "account"), json_object_get(msg, "keys"),
                                   &b, e);

        if (n < 0)
                return n;
        if (!keys_complete(k->keys) || (was && n == 0))
                return 0;
        put_file(k);
        if (!was || !k->runtime || b.failed)
                connect_soon(k);
        else
                (void) runtime_say(k->runtime, b.s, (size_t) n);
        return 0;
}
