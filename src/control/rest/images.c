/* images.c - images of an account: list, pull, import, remove.  tensorone-api, loop thread.
 * Long work answers as newline-delimited JSON: progress lines, then the result or an error. */
#include <errno.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/jsonx.h"
#include "control/rest/http_priv.h"
#include "model/imageref.h"
#include "model/limits.h"

#define ASK_TIMEOUT_US (30 * US_PER_S)
#define OUT_MAX        (64U << 10) /* progress lines a slow reader may be behind; more are dropped */

struct job {
        struct http_request *q;
        int64_t asked;
        struct strbuf out;
        bool done;

        /* import: the body goes into a pipe whose read end the engine has */
        int pipe;
        sd_event_source *writable;
        bool broken; /* nobody reads the pipe any more; the answer says why */
};

static void job_end(void *priv)
{
        struct job *j = priv;

        if (j->asked)
                node_cancel(plane_node(j->q->plane), j->asked);
        j->writable = sd_event_source_disable_unref(j->writable);
        j->pipe = fd_close(j->pipe);
        strbuf_done(&j->out);
        free(j);
}

static struct job *job_new(struct http_request *q)
{
        struct job *j = calloc(1, sizeof *j);

        if (!j) {
                http_reply_error(q, MHD_HTTP_INTERNAL_SERVER_ERROR, "out of memory");
                return NULL;
        }
        j->q = q;
        j->pipe = -EBADF;
        q->priv = j;
        q->end = job_end;
        return j;
}

static char *iso(uint64_t us, char buf[static 32])
{
        clock_format(us, buf, 32);
        return buf;
}

/* ---- answers ---- */

static json_t *image_json(const json_t *i)
{
        char created[32], used[32];

        return json_pack(
                "{s:s?, s:s?, s:I, s:I, s:s, s:s, s:s?, s:b, s:b, s:s?}", "reference",
                jsonx_str(i, "reference"), "digest", jsonx_str(i, "digest"), "sizeBytes",
                json_integer_value(json_object_get(i, "size_bytes")), "sharedBytes",
                json_integer_value(json_object_get(i, "shared_bytes")), "createdAt",
                iso((uint64_t) json_integer_value(json_object_get(i, "created_us")), created),
                "lastUsedAt",
                iso((uint64_t) json_integer_value(json_object_get(i, "used_us")), used), "owner",
                jsonx_str(i, "account"), "public", json_is_true(json_object_get(i, "public")),
                "inUse", json_is_true(json_object_get(i, "in_use")), "damaged",
                jsonx_str(i, "damaged"));
}

static void on_list(void *arg, struct node_reply *reply)
{
        struct job *j = arg;
        json_t *list = json_array(), *item;
        size_t i;

        j->asked = 0;
        if (reply->r < 0) {
                json_decref(list);
                http_reply_error(j->q, http_status_of(reply->r), "%s", reply->message);
                return;
        }
        json_array_foreach(json_object_get(reply->result, "images"), i, item)(void)
                json_array_append_new(list, image_json(item));
        http_reply_json(j->q, MHD_HTTP_OK, list);
}

static void on_removed(void *arg, struct node_reply *reply)
{
        struct job *j = arg;
        struct strbuf none = { 0 };

        j->asked = 0;
        if (reply->r < 0)
                http_reply_error(j->q, http_status_of(reply->r), "%s", reply->message);
        else
                http_reply_buf(j->q, MHD_HTTP_NO_CONTENT, "application/json", &none);
}

static void put_line(struct job *j, json_t *line)
{
        AUTO(json_put) json_t *own = line;
        AUTO(free) char *text = own ? jsonx_dump(own) : NULL;

        if (!text)
                return;
        strbuf_str(&j->out, text);
        strbuf_char(&j->out, '\n');
}

static ssize_t read_lines(void *priv, char *buf, size_t max)
{
        struct job *j = priv;
        size_t n = j->out.len < max ? j->out.len : max;

        if (n == 0)
                return j->done ? -1 : 0;
        memcpy(buf, j->out.s, n);
        strbuf_drop_front(&j->out, n);
        return (ssize_t) n;
}

static void on_progress(void *arg, const struct node_progress *g)
{
        struct job *j = arg;

        if (j->out.len < OUT_MAX)
                put_line(j, json_pack("{s:s, s:I, s:I, s:I}", "phase", g->phase, "doneBytes",
                                      (json_int_t) g->done_bytes, "totalBytes",
                                      (json_int_t) g->total_bytes, "bytesPerSecond",
                                      (json_int_t) g->bytes_per_s));
        http_stream_more(j->q);
}

static void on_image(void *arg, struct node_reply *reply)
{
        struct job *j = arg;
        const json_t *i = reply->result;

        j->asked = 0;
        j->done = true;
        if (reply->r < 0)
                put_line(j, json_pack("{s:s}", "error", reply->message));
        else
                put_line(j, json_pack("{s:s?, s:s?, s:I}", "reference", jsonx_str(i, "reference"),
                                      "digest", jsonx_str(i, "digest"), "sizeBytes",
                                      json_integer_value(json_object_get(i, "size_bytes"))));
        j->broken = true; /* what is still being uploaded is not wanted any more */
        http_upload_more(j->q);
        http_stream_more(j->q);
}

/* ---- asking ---- */

static void start(struct job *j, const char *op, json_t *args, const int *fds, size_t n_fds,
                  uint64_t timeout_us, node_done_fn *done, node_progress_fn *progress)
{
        struct err e = { 0 };
        int64_t r = node_request(plane_node(j->q->plane), op, args, fds, n_fds, timeout_us, done,
                                 progress, j, &e);

        if (r > 0)
                j->asked = r;
        else
                http_reply_error(j->q, http_status_of((int) r), "%s", e.msg);
}

void handle_images(struct http_request *q)
{
        struct job *j = job_new(q);

        if (j)
                start(j, "image.list",
                      json_pack("{s:s, s:b}", "account", q->ctx.who.account, "admin",
                                q->ctx.who.right == KEY_ADMIN),
                      NULL, 0, ASK_TIMEOUT_US, on_list, NULL);
}

/* The reference as given, checked; false: answered. */
static bool check_reference(struct http_request *q, const char *field, const char *ref)
{
        struct imageref parsed;
        struct err e = { 0 };

        if (str_empty(ref))
                http_reply_error(q, MHD_HTTP_BAD_REQUEST, "%s: is missing", field);
        else if (strlen(ref) > LIMIT_IMAGE_REF_LEN)
                http_reply_error(q, MHD_HTTP_BAD_REQUEST, "%s: %zu bytes, at most %u are allowed",
                                 field, strlen(ref), LIMIT_IMAGE_REF_LEN);
        else if (imageref_parse(ref, &parsed, &e) < 0) /* which speaks of a GraphQL field */
                http_reply_error(q, MHD_HTTP_BAD_REQUEST, "%s: %s", field,
                                 str_after(e.msg, "imageName: ") ? str_after(e.msg, "imageName: ")
                                                                 : e.msg);
        else
                return true;
        return false;
}

void handle_image_remove(struct http_request *q)
{
        const char *ref = http_param(q, "reference");
        struct job *j = check_reference(q, "reference", ref) ? job_new(q) : NULL;

        if (j)
                start(j, "image.remove",
                      json_pack("{s:s, s:b, s:s}", "account", q->ctx.who.account, "admin",
                                q->ctx.who.right == KEY_ADMIN, "reference", ref),
                      NULL, 0, ASK_TIMEOUT_US, on_removed, NULL);
}

/* The credentials of a pull: given with it, or kept under an id.  False: answered. */
static bool find_login(struct http_request *q, const json_t *in, const char **ret_user,
                       char **ret_password)
{
        const char *id = jsonx_str(in, "containerRegistryAuthId");
        struct err e = { 0 };
        int r = 0;

        *ret_user = jsonx_str(in, "username");
        if (!str_empty(id))
                r = plane_open_registry_auth(q->plane, &q->ctx.who, id, ret_user, ret_password, &e);
        else
                *ret_password = str_dup(jsonx_str(in, "password"));
        if (r < 0)
                http_reply_error(q, http_status_of(r), "containerRegistryAuthId: %s", e.msg);
        return r >= 0;
}

void handle_image_pull(struct http_request *q)
{
        AUTO(str_wipe_free) char *password = NULL;
        const char *user = NULL;
        struct err e = { 0 };
        AUTO(json_put) json_t *in = http_body_json(q, &e);
        const char *ref = jsonx_str(in, "reference");
        struct job *j;

        if (!in) {
                http_reply_error(q, MHD_HTTP_BAD_REQUEST, "%s", e.msg);
                return;
        }
        audit_detail(&q->audit, ref);
        j = check_reference(q, "reference", ref) && find_login(q, in, &user, &password) ? job_new(q)
                                                                                        : NULL;
        if (!j)
                return;
        start(j, "image.pull",
              json_pack("{s:s, s:s, s:s?, s:s?, s:b}", "account", q->ctx.who.account, "reference",
                        ref, "username", user, "password", password, "force",
                        json_is_true(json_object_get(in, "force"))),
              NULL, 0, 0, on_image, on_progress);
        if (j->asked)
                http_reply_stream(q, "application/x-ndjson", read_lines);
}

/* ---- import ---- */

static int on_writable(sd_event_source *s, int fd, uint32_t revents, void *arg)
{
        struct job *j = arg;

        (void) fd;
        (void) revents;
        (void) sd_event_source_set_enabled(s, SD_EVENT_OFF);
        http_upload_more(j->q);
        return 0;
}

/* Make the pipe and hand its read end to the engine. */
static int open_import(struct job *j)
{
        const char *name = http_param(j->q, "name");
        bool is_public = http_param_true(j->q, "public");
        int fds[2], r;

        audit_detail(&j->q->audit, name);
        if (!check_reference(j->q, "name", name))
                return -EINVAL;
        if (is_public && j->q->ctx.who.right != KEY_ADMIN) {
                http_reply_error(j->q, MHD_HTTP_FORBIDDEN, "%s (to show an image to all)",
                                 key_needed[KEY_ADMIN]);
                return -EPERM;
        }
        if (pipe2(fds, O_CLOEXEC) < 0) {
                http_reply_error(j->q, MHD_HTTP_INTERNAL_SERVER_ERROR, "no pipe");
                return -EMFILE;
        }
        j->pipe = fds[1];
        (void) fcntl(j->pipe, F_SETPIPE_SZ, 1 << 20); /* a smaller one is slower, nothing else */
        r = fd_set_nonblock(j->pipe, true);
        if (r >= 0)
                r = sd_event_add_io(plane_loop(j->q->plane), &j->writable, j->pipe, EPOLLOUT,
                                    on_writable, j);
        if (r >= 0)
                r = sd_event_source_set_enabled(j->writable, SD_EVENT_OFF);
        if (r >= 0)
                start(j, "image.import",
                      json_pack("{s:s, s:s, s:b}", "account", j->q->ctx.who.account, "name", name,
                                "public", is_public),
                      &fds[0], 1, 0, on_image, on_progress);
        (void) fd_close(fds[0]);
        return j->asked ? 0 : -EIO;
}

size_t upload_image(struct http_request *q, const char *data, size_t len)
{
        struct job *j = q->priv ? q->priv : job_new(q);
        size_t done = 0;

        if (!j || (j->pipe < 0 && !j->broken && open_import(j) < 0))
                return len; /* answered */
        while (done < len && !j->broken) {
                ssize_t n = write(j->pipe, data + done, len - done);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0 && errno == EAGAIN) {
                        (void) sd_event_source_set_enabled(j->writable, SD_EVENT_ON);
                        return done;
                }
                if (n < 0) {
                        j->broken = true; /* the reader has gone; its answer is on the way */
                        break;
                }
                done += (size_t) n;
        }
        return len; /* also what nobody wants any more */
}

/* The body is complete. */
void handle_image_import(struct http_request *q)
{
        struct job *j = q->priv;

        j->writable = sd_event_source_disable_unref(j->writable);
        j->pipe = fd_close(j->pipe); /* the end of the stream */
        j->broken = true;
        http_reply_stream(q, "application/x-ndjson", read_lines);
}
