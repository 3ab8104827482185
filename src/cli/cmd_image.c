/* cmd_image.c - `image import|pull|ls|rm`.  Runs in tensoronecli. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/jsonx.h"
#include "base/rate.h"
#include "base/str.h"
#include "cli/api.h"
#include "cli/cli.h"
#include "cli/each.h"
#include "cli/ndjson.h"
#include "cli/out.h"
#include "cli/tarsource.h"

struct upload {
        struct ndjson answer; /* first: also the argument of the answer's chunks */
        struct tar_source *tar;
        struct progress *progress;
        struct rate rate;
        uint64_t sent;
};

static int on_answer(void *arg, const char *data, size_t len, struct err *e)
{
        struct upload *u = arg;

        return ndjson_chunk(&u->answer, data, len, e);
}

static ssize_t on_read(void *arg, char *buf, size_t len, struct err *e)
{
        struct upload *u = arg;
        ssize_t n = tar_source_read(u->tar, buf, len, e);

        if (n > 0) {
                uint64_t sent = tar_source_done(u->tar);

                rate_add(&u->rate, clock_mono_us(), sent - u->sent);
                u->sent = sent;
                progress_show(u->progress,
                              &(struct progress_state){ .phase = "uploading",
                                                        .done = sent,
                                                        .total = tar_source_total(u->tar),
                                                        .per_s = rate_per_s(&u->rate),
                                                        .bytes = true });
        }
        return n;
}

/* `image "R" pulled (sha256:..., 77.3 MB)` */
static int report(const struct cli *c, const json_t *result, const char *verb, struct err *e)
{
        json_int_t bytes = json_integer_value(json_object_get(result, "sizeBytes"));
        const char *ref = jsonx_str(result, "reference"), *digest = jsonx_str(result, "digest");
        char size[16];

        if (cli_json(c))
                return out_json(result, e);
        if (!ref)
                return err_set(e, -EPROTO, "the API's answer names no image");
        return out_printf(e, "image \"%s\" %s (%s, %s)\n", ref, verb, digest ? digest : "?",
                          size_text(bytes > 0 ? (uint64_t) bytes : 0, size));
}

int cmd_image_import(struct cli *c, struct err *e)
{
        AUTO(tar_source_free) struct tar_source *tar = NULL;
        AUTO(strbuf_done) struct strbuf path = { 0 };
        AUTO(json_put) json_t *result = NULL;
        struct progress p;
        struct upload u = { .progress = &p };
        struct api_request q = { .method = "POST",
                                 .read = on_read,
                                 .chunk = on_answer,
                                 .type = "application/x-tar",
                                 .arg = &u };
        int r = tar_source_open(c->operands[1], &tar, e);

        if (r < 0)
                return r;
        strbuf_str(&path, "/v1/images/import");
        api_path_add(&path, "name", c->operands[0]);
        if (c->opt[OPT_PUBLIC].b)
                api_path_add(&path, "public", "1");
        if (path.failed)
                return err_set(e, -ENOMEM, "out of memory");
        q.path = path.s;
        u.tar = tar;
        u.answer.progress = &p;
        progress_init(&p);
        r = api_request(c->api, &q, e);
        if (r >= 0)
                r = ndjson_finish(&u.answer, &result, e);
        progress_clear(&p);
        ndjson_done(&u.answer);
        return r < 0 ? r : report(c, result, "imported", e);
}

int cmd_image_pull(struct cli *c, struct err *e)
{
        AUTO(json_put)
        json_t *body = json_pack("{s:s,s:b,s:s*}", "reference", c->operands[0], "force",
                                 c->opt[OPT_FORCE].b, "containerRegistryAuthId",
                                 c->opt[OPT_REGISTRY_AUTH].s);
        AUTO(json_put) json_t *result = NULL;
        struct progress p;
        AUTO(ndjson_done) struct ndjson answer = { .progress = &p };
        struct api_request q = { .method = "POST",
                                 .path = "/v1/images/pull",
                                 .body = body,
                                 .chunk = ndjson_chunk,
                                 .arg = &answer };
        int r;

        if (!body)
                return err_set(e, -EINVAL, "the image's name or the ID is not UTF-8 text");
        progress_init(&p);
        r = api_request(c->api, &q, e);
        if (r >= 0)
                r = ndjson_finish(&answer, &result, e);
        progress_clear(&p);
        return r < 0 ? r : report(c, result, "pulled", e);
}

static const char *short_digest(const char *digest, char buf[static 20])
{
        const char *hex = str_after(digest, "sha256:");

        (void) snprintf(buf, 20, "%.12s", hex ? hex : digest ? digest : "");
        return buf;
}

/* To the second: people read it. */
static const char *short_time(const char *time, char buf[static 24])
{
        size_t n = time ? strcspn(time, ".") : 0;

        if (n == 0 || n > 20 || !time[n])
                return time;
        (void) snprintf(buf, 24, "%.*sZ", (int) n, time);
        return buf;
}

static int add_image(struct table *t, const json_t *image)
{
        json_int_t bytes = json_integer_value(json_object_get(image, "sizeBytes"));
        json_int_t shared = json_integer_value(json_object_get(image, "sharedBytes"));
        bool damaged = json_is_string(json_object_get(image, "damaged"));
        char digest[20], size[16], common[16], created[24], used[24];
        const char *cells[] = {
                jsonx_str(image, "reference"),
                short_digest(jsonx_str(image, "digest"), digest),
                size_text(bytes > 0 ? (uint64_t) bytes : 0, size),
                size_text(shared > 0 ? (uint64_t) shared : 0, common),
                short_time(jsonx_str(image, "createdAt"), created),
                short_time(jsonx_str(image, "lastUsedAt"), used),
                json_is_true(json_object_get(image, "public")) ? "yes" : "no",
                damaged                                         ? "damaged"
                : json_is_true(json_object_get(image, "inUse")) ? "yes"
                                                                : "no",
        };

        for (size_t i = 0; i < NELEM(cells); i++)
                if (table_cell(t, cells[i]) < 0)
                        return -ENOMEM;
        return 0;
}

int cmd_image_ls(struct cli *c, struct err *e)
{
        static const char *const headers[] = { "REFERENCE", "DIGEST",    "SIZE",   "SHARED",
                                               "CREATED",   "LAST USED", "PUBLIC", "IN USE" };
        AUTO(table_free) struct table *t = NULL;
        AUTO(json_put) json_t *list = NULL;
        struct api_request q = { .method = "GET", .path = "/v1/images", .ret_json = &list };
        const json_t *image;
        size_t i;
        int r = api_request(c->api, &q, e);

        if (r < 0)
                return r;
        if (!json_is_array(list))
                return err_set(e, -EPROTO, "the API's answer has no list of images");
        if (cli_json(c))
                return out_json(list, e);
        if (table_new(headers, NELEM(headers), &t) < 0)
                return err_set(e, -ENOMEM, "out of memory");
        json_array_foreach(list, i, image)
        {
                if (add_image(t, image) < 0)
                        return err_set(e, -ENOMEM, "out of memory");
        }
        return table_print(t, e);
}

static int remove_one(struct cli *c, const char *reference, void *arg, json_t **ret, struct err *e)
{
        AUTO(strbuf_done) struct strbuf path = { 0 };
        struct api_request q = { .method = "DELETE" };
        int r;

        (void) arg;
        strbuf_str(&path, "/v1/images");
        api_path_add(&path, "reference", reference);
        if (path.failed)
                return err_set(e, -ENOMEM, "out of memory");
        q.path = path.s;
        r = api_request(c->api, &q, e);
        if (r < 0)
                return r;
        *ret = json_pack("{s:s,s:b}", "reference", reference, "removed", 1);
        if (!*ret)
                return err_set(e, -ENOMEM, "out of memory");
        return cli_json(c) ? 0 : out_printf(e, "image \"%s\" removed\n", reference);
}

int cmd_image_rm(struct cli *c, struct err *e)
{
        return each_operand(c, remove_one, NULL, e);
}
