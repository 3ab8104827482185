/* request.c - requests of the control plane: logs, exec, images, stats.  Each is answered once, at
 * once or when its operation is done.  Engine process, loop thread. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "base/fd.h"
#include "base/jsonx.h"
#include "base/log.h"
#include "base/str.h"
#include "engine/channel/channel_priv.h"
#include "engine/fleet/fleet.h"
#include "engine/image/image.h"
#include "model/limits.h"
#include "model/secret.h"

/* One that waits for an operation. */
struct request {
        struct request *next;
        struct channel *channel; /* NULL: the asker is gone */
        json_int_t req;
};

static void reply(struct channel *c, json_int_t req, json_t *result, const int *fds, size_t n_fds)
{
        AUTO(json_put)
        json_t *j = json_pack("{s:s, s:I, s:b, s:o}", "type", "reply", "req", req, "ok", 1,
                              "result", result ? result : json_object());

        channel_send(c, j, fds, n_fds);
}

static void reply_error(struct channel *c, json_int_t req, int r, const char *message)
{
        AUTO(json_put)
        json_t *j = json_pack("{s:s, s:I, s:b, s:i, s:s}", "type", "reply", "req", req, "ok", 0,
                              "errno", -r, "message", message);

        if (!j)
                j = json_pack("{s:s, s:I, s:b, s:i, s:s}", "type", "reply", "req", req, "ok", 0,
                              "errno", -r, "message", "failed");
        channel_send(c, j, NULL, 0);
}

static int request_new(struct channel *c, json_int_t req, struct request **ret, struct err *e)
{
        struct request *q = calloc(1, sizeof *q);

        if (!q)
                return err_set(e, -ENOMEM, "out of memory");
        *q = (struct request){ c->requests, c, req };
        c->requests = q;
        *ret = q;
        return 0;
}

static void request_unlink(struct request *q)
{
        for (struct request **at = &q->channel->requests; *at; at = &(*at)->next) {
                if (*at != q)
                        continue;
                *at = q->next;
                break;
        }
        q->channel = NULL;
}

static void request_end(struct request *q)
{
        if (q->channel)
                request_unlink(q);
        free(q);
}

/* Its asker does not wait any more: so no pull need go on for it.  What cannot be called back keeps
 * the request until its callback frees it. */
static void request_leave(struct request *q)
{
        struct channel *c = q->channel;

        if (c->fleet && fleet_drop_requests(c->fleet, q) > 0) {
                request_end(q);
                return;
        }
        request_unlink(q);
}

void request_drop_all(struct channel *c)
{
        while (c->requests)
                request_leave(c->requests);
}

int request_cancel(struct channel *c, const struct frame_msg *m, struct err *e)
{
        const json_t *req = json_object_get(m->json, "req");

        if (!json_is_integer(req))
                return err_set(e, -EPROTO, "a cancel without req");
        for (struct request *q = c->requests; q; q = q->next) {
                if (q->req != json_integer_value(req))
                        continue;
                request_leave(q);
                break;
        }
        return 0;
}

static int strv_of(const json_t *list, char ***ret)
{
        size_t i;
        json_t *v;

        json_array_foreach(list, i, v)
        {
                if (!json_is_string(v) || strv_push(ret, json_string_value(v)) < 0)
                        return -EINVAL;
        }
        return 0;
}

static int do_logs(struct channel *c, json_int_t req, const json_t *args, const struct frame_msg *m,
                   struct err *e)
{
        int fds[3], n = fleet_logs(c->fleet, jsonx_str(args, "cluster"), fds, e);

        (void) m;
        if (n < 0)
                return n;
        reply(c, req, NULL, fds, (size_t) n);
        for (int i = 0; i < n; i++)
                (void) fd_close(fds[i]);
        return 0;
}

static void on_exec(void *arg, int r, const char *session, int fd, const struct err *e)
{
        struct request *q = arg;

        if (q->channel && r >= 0)
                reply(q->channel, q->req, json_pack("{s:s}", "session", session), &fd, 1);
        else if (q->channel)
                reply_error(q->channel, q->req, r, e->msg);
        (void) fd_close(fd);
        request_end(q);
}

/* A u16; anything else is none. */
static uint16_t small(const json_t *args, const char *name)
{
        json_int_t v = json_integer_value(json_object_get(args, name));

        return v > 0 && v <= UINT16_MAX ? (uint16_t) v : 0;
}

static int do_exec(struct channel *c, json_int_t req, const json_t *args, const struct frame_msg *m,
                   struct err *e)
{
        AUTO(strv_free) char **argv = NULL, **env = NULL;
        AUTO(secrets_free) char **secrets = NULL;
        const json_t *values = json_object_get(args, "secrets");
        struct request *q = NULL;
        struct fleet_exec x = { .cwd = jsonx_str(args, "cwd"),
                                .user = jsonx_str(args, "user"),
                                .tty = json_is_true(json_object_get(args, "tty")),
                                .rows = small(args, "rows"),
                                .cols = small(args, "cols"),
                                .keep_s = small(args, "keep_seconds") };
        int r;

        (void) m;
        if (strv_of(json_object_get(args, "argv"), &argv) < 0 ||
            strv_of(json_object_get(args, "env"), &env) < 0)
                return err_set(e, -EINVAL, "exec: argv and env are lists of strings");
        if (values && secret_decode(values, &secrets, e) < 0)
                return -EINVAL;
        x.secrets = secrets;
        x.argv = argv;
        x.env = env;
        r = request_new(c, req, &q, e);
        if (r < 0)
                return r;
        r = fleet_exec(c->fleet, jsonx_str(args, "cluster"), &x, on_exec, q, e);
        if (r < 0)
                request_end(q);
        return r;
}

static int do_attach(struct channel *c, json_int_t req, const json_t *args,
                     const struct frame_msg *m, struct err *e)
{
        AUTO(fd) int fd = -EBADF;
        int r = fleet_attach(c->fleet, jsonx_str(args, "cluster"), jsonx_str(args, "session"), &fd,
                             e);

        (void) m;
        if (r >= 0)
                reply(c, req, NULL, &fd, 1);
        return r;
}

static json_t *image_json(const struct image *i)
{
        return json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:s?, s:b, s:s?}", "reference",
                         i->reference, "digest", i->digest, "size_bytes",
                         (json_int_t) i->size_bytes, "shared_bytes", (json_int_t) i->shared_bytes,
                         "created_us", (json_int_t) i->created_us, "used_us",
                         (json_int_t) i->used_us, "account", i->account, "public", i->is_public,
                         "damaged", i->quarantined);
}

static void on_image(void *arg, int r, const struct image *image, const struct err *e)
{
        struct request *q = arg;

        if (q->channel && r >= 0)
                reply(q->channel, q->req, image ? image_json(image) : NULL, NULL, 0);
        else if (q->channel)
                reply_error(q->channel, q->req, r, e->msg);
        request_end(q);
}

static void on_image_progress(void *arg, const struct image_progress *g)
{
        struct request *q = arg;
        AUTO(json_put) json_t *j = NULL;

        if (!q->channel)
                return;
        j = json_pack("{s:s, s:I, s:s, s:I, s:I, s:I}", "type", "progress", "req", q->req, "phase",
                      g->phase, "done_bytes", (json_int_t) g->done_bytes, "total_bytes",
                      (json_int_t) g->total_bytes, "bytes_per_s", (json_int_t) g->bytes_per_s);
        channel_send(q->channel, j, NULL, 0);
}

/* Images are an account's, and so is its patience. */
static int check_queue(struct channel *c, const json_t *args, struct err *e)
{
        const char *account = jsonx_str(args, "account");

        if (str_empty(account))
                return err_set(e, -EINVAL, "account: is missing");
        if (fleet_pulls_waiting(c->fleet, account) >= LIMIT_PULLS_WAITING)
                return err_set(e, -EBUSY, "%u image operations of this account wait already",
                               LIMIT_PULLS_WAITING);
        return 0;
}

static int do_pull(struct channel *c, json_int_t req, const json_t *args, const struct frame_msg *m,
                   struct err *e)
{
        const struct image_credentials cred = { jsonx_str(args, "username"),
                                                jsonx_str(args, "password"),
                                                jsonx_str(args, "account") };
        const char *ref = jsonx_str(args, "reference");
        struct request *q = NULL;
        int r;

        (void) m;
        if (str_empty(ref))
                return err_set(e, -EINVAL, "reference: is missing");
        r = check_queue(c, args, e);
        if (r >= 0)
                r = request_new(c, req, &q, e);
        if (r < 0)
                return r;
        r = fleet_pull(c->fleet, ref, &cred, json_is_true(json_object_get(args, "force")),
                       on_image_progress, on_image, q, e);
        if (r < 0)
                request_end(q);
        return r;
}

static int do_import(struct channel *c, json_int_t req, const json_t *args,
                     const struct frame_msg *m, struct err *e)
{
        const char *name = jsonx_str(args, "name");
        struct request *q = NULL;
        int r;

        if (str_empty(name) || m->n_fds != 1)
                return err_set(e, -EINVAL, "import: needs a name and one stream");
        r = check_queue(c, args, e);
        if (r >= 0)
                r = request_new(c, req, &q, e);
        if (r < 0)
                return r;
        r = fleet_import(c->fleet, jsonx_str(args, "account"),
                         json_is_true(json_object_get(args, "public")), name, m->fds[0],
                         on_image_progress, on_image, q, e);
        if (r < 0)
                request_end(q);
        return r;
}

static int do_remove(struct channel *c, json_int_t req, const json_t *args,
                     const struct frame_msg *m, struct err *e)
{
        struct request *q = NULL;
        int r;

        (void) m;
        if (str_empty(jsonx_str(args, "reference")))
                return err_set(e, -EINVAL, "reference: is missing");
        r = check_queue(c, args, e);
        if (r >= 0)
                r = request_new(c, req, &q, e);
        if (r < 0)
                return r;
        r = fleet_image_remove(c->fleet, jsonx_str(args, "account"),
                               json_is_true(json_object_get(args, "admin")),
                               jsonx_str(args, "reference"), on_image, q, e);
        if (r < 0)
                request_end(q);
        return r;
}

static bool in_use(char *const *uses, const char *use)
{
        for (; uses && *uses; uses++)
                if (str_eq(*uses, use))
                        return true;
        return false;
}

static int do_list(struct channel *c, json_int_t req, const json_t *args, const struct frame_msg *m,
                   struct err *e)
{
        AUTO(json_put) json_t *list = json_array();
        const char *account = jsonx_str(args, "account");
        bool admin = json_is_true(json_object_get(args, "admin"));
        /* what others run from an image that all may see is their own business */
        AUTO(free)
        char **used = fleet_images_in_use(c->fleet, admin ? NULL : account ? account : "");
        struct image *images = NULL;
        size_t n = 0;
        int r = image_list(c->spec.host->images, account, admin, &images, &n, e);

        (void) m;
        if (r < 0)
                return r;
        for (size_t i = 0; i < n; i++) {
                json_t *j = image_json(&images[i]);

                if (j)
                        (void) json_object_set_new(j, "in_use",
                                                   json_boolean(in_use(used, images[i].use)));
                if (!list || !j || json_array_append_new(list, j) < 0)
                        r = err_set(e, -ENOMEM, "out of memory");
                image_done(&images[i]);
        }
        free(images);
        if (r >= 0)
                reply(c, req, json_pack("{s:O}", "images", list), NULL, 0);
        return r;
}

static int do_stats(struct channel *c, json_int_t req, const json_t *args,
                    const struct frame_msg *m, struct err *e)
{
        json_t *result = NULL;
        int r = fleet_stats(c->fleet, jsonx_str(args, "cluster"), &result, e);

        (void) m;
        if (r >= 0)
                reply(c, req, result, NULL, 0);
        return r;
}

static int do_gpu_release(struct channel *c, json_int_t req, const json_t *args,
                          const struct frame_msg *m, struct err *e)
{
        int r = channel_gpu_release(c, args, e);

        (void) m;
        if (r >= 0)
                reply(c, req, NULL, NULL, 0);
        return r;
}

static int do_gpu_vfio(struct channel *c, json_int_t req, const json_t *args,
                       const struct frame_msg *m, struct err *e)
{
        json_t *result = NULL;
        int r = channel_gpu_vfio(c, &result, e);

        (void) args;
        (void) m;
        if (r >= 0)
                reply(c, req, result, NULL, 0);
        return r;
}

static const struct {
        const char *op;
        bool cluster; /* args name one */
        int (*fn)(struct channel *c, json_int_t req, const json_t *args, const struct frame_msg *m,
                  struct err *e);
} ops[] = {
        { "logs", true, do_logs },
        { "exec", true, do_exec },
        { "attach", true, do_attach },
        { "stats", true, do_stats },
        { "image.pull", false, do_pull },
        { "image.import", false, do_import },
        { "image.list", false, do_list },
        { "image.remove", false, do_remove },
        { "gpu.release", false, do_gpu_release },
        { "gpu.vfio", false, do_gpu_vfio },
};

int request_handle(struct channel *c, const struct frame_msg *m, struct err *e)
{
        const char *op = jsonx_str(m->json, "op");
        json_int_t req = json_integer_value(json_object_get(m->json, "req"));
        const json_t *args = json_object_get(m->json, "args");
        struct err mine = { 0 };
        int r = -ENOSYS;

        if (!op || !json_is_object(args))
                return err_set(e, -EPROTO, "a request without op or args");
        (void) err_set(&mine, r, "this host does not know the request '%.32s'", op);
        for (size_t i = 0; i < NELEM(ops); i++) {
                if (!str_eq(op, ops[i].op))
                        continue;
                if (ops[i].cluster && str_empty(jsonx_str(args, "cluster")))
                        r = err_set(&mine, -EINVAL, "%s: cluster is missing", op);
                else
                        r = ops[i].fn(c, req, args, m, &mine);
        }
        if (r < 0)
                reply_error(c, req, r, mine.msg);
        return 0;
}
