/* fetchwire.c - see fetchwire.h.  Pure memory; used by vmm-fetch and by operation processes. */
#include "model/fetchwire.h"

#include <assert.h>
#include <errno.h>

#include "base/jsonx.h"
#include "base/str.h"
#include "model/imageref.h"
#include "model/limits.h"

static_assert(FETCH_FDS_MAX == FETCH_FD_INDEXES + 2 * LIMIT_LAYERS, "two for each layer");

#define R(k) .off = offsetof(struct fetch_request, k)
#define I(k) .off = offsetof(struct fetch_image, k)
#define L(k) .off = offsetof(struct fetch_layer, k)

static const struct jfield request_fields[] = {
        { "registry", J_STR, R(registry) },
        { "repository", J_STR, R(repository) },
        { "reference", J_STR, R(reference) },
        { "username", J_STR, R(username) },
        { "password", J_STR, R(password), .max = 65536 },
        { "authorization", J_STR, R(authorization), .max = 65536 },
        { "listed", J_STRV, R(listed) },
        { "insecure", J_STRV, R(insecure) },
        { "architecture", J_STR, R(architecture) },
        { "digest", J_STR, R(digest) },
        { "diff_id", J_STR, R(diff_id) },
        { "size_bytes", J_U64, R(size_bytes) },
        { "from_file", J_BOOL, R(from_file) },
        { "threshold", J_U64, R(threshold) },
        { "layers", J_U32, R(layers), .max = LIMIT_LAYERS },
        { "max_bytes", J_U64, R(max_bytes), .min = 1, .required = true },
        { "max_entries", J_U64, R(max_entries), .min = 1, .required = true },
        { "connect_us", J_U64, R(connect_us), .min = 1, .required = true },
        { "stall_us", J_U64, R(stall_us), .min = 1, .required = true },
        { "rate_bytes", J_U64, R(rate_bytes), .min = 1, .required = true },
        { "deadline_us", J_U64, R(deadline_us) },
};

static const struct jfield layer_fields[] = {
        { "digest", J_STR, L(digest), .max = 71, .required = true },
        { "diff_id", J_STR, L(diff_id), .max = 71, .required = true },
        { "file", J_STR, L(file), .max = 64 },
        { "size_bytes", J_U64, L(size_bytes) },
};

static const struct jfield image_fields[] = {
        { "digest", J_STR, I(digest), .max = 71, .required = true },
        { "config_digest", J_STR, I(config_digest), .max = 71, .required = true },
        { "authorization", J_STR, I(authorization), .max = 65536 },
        { "entrypoint", J_STRV, I(entrypoint), .max = LIMIT_ARGV_ENTRIES },
        { "command", J_STRV, I(command), .max = LIMIT_ARGV_ENTRIES },
        { "env", J_STRV, I(env), .max = LIMIT_ENV_TOTAL_ENTRIES },
        { "working_dir", J_STR, I(working_dir), .max = 4095 },
        { "user", J_STR, I(user), .max = 255 },
        { "stop_signal", J_STR, I(stop_signal), .max = 32 },
};

int fetch_request_decode(const json_t *j, struct fetch_request *ret, struct err *e)
{
        struct fetch_request r = { 0 };
        int rc = jsonx_decode(j, request_fields, NELEM(request_fields), &r, e);

        if (rc < 0) {
                fetch_request_done(&r);
                return err_wrap(e, rc, "fetch request");
        }
        *ret = r;
        return 0;
}

json_t *fetch_request_encode(const struct fetch_request *r)
{
        return jsonx_encode(request_fields, NELEM(request_fields), r);
}

void fetch_request_done(struct fetch_request *r)
{
        r->password = str_wipe_free(r->password);
        r->authorization = str_wipe_free(r->authorization);
        jsonx_done(request_fields, NELEM(request_fields), r);
}

void fetch_image_done(struct fetch_image *i)
{
        for (size_t k = 0; k < i->n_layers; k++)
                jsonx_done(layer_fields, NELEM(layer_fields), &i->layers[k]);
        free(i->layers);
        i->layers = NULL;
        i->n_layers = 0;
        i->authorization = str_wipe_free(i->authorization);
        jsonx_done(image_fields, NELEM(image_fields), i);
}

/* A plain name: what import calls its files. */
static bool file_ok(const char *s)
{
        return *s && strspn(s, "0123456789abcdefghijklmnopqrstuvwxyz") == strlen(s);
}

static int check_layer(const struct fetch_layer *l, struct err *e)
{
        if (!digest_ok(l->digest))
                return err_set(e, -EINVAL, "digest: is not sha256: and 64 hex digits");
        if (!digest_ok(l->diff_id))
                return err_set(e, -EINVAL, "diff_id: is not sha256: and 64 hex digits");
        if (l->file && !file_ok(l->file))
                return err_set(e, -EINVAL, "file: is not a plain name");
        return 0;
}

static int decode_layers(const json_t *list, struct fetch_image *i, struct err *e)
{
        size_t n = json_array_size(list), k;
        json_t *item;

        if (n < 1 || n > LIMIT_LAYERS)
                return err_set(e, -ERANGE, "layers: the image has %zu, 1..%u are allowed", n,
                               LIMIT_LAYERS);
        i->layers = calloc(n, sizeof *i->layers);
        if (!i->layers)
                return err_set(e, -ENOMEM, "out of memory");
        json_array_foreach(list, k, item)
        {
                int r;

                i->n_layers = k + 1;
                r = jsonx_decode(item, layer_fields, NELEM(layer_fields), &i->layers[k], e);
                if (r >= 0)
                        r = check_layer(&i->layers[k], e);
                if (r < 0)
                        return err_wrap(e, r, "layer %zu", k + 1);
        }
        return 0;
}

int fetch_env_check(char *const *env, struct err *e)
{
        size_t bytes = 0;

        for (char *const *v = env; v && *v; v++) {
                const char *eq = strchr(*v, '=');

                bytes += strlen(*v);
                if (!eq || eq == *v)
                        return err_set(e, -EINVAL, "env: '%.64s' is not NAME=VALUE", *v);
                if (strlen(*v) > LIMIT_ENV_BYTES - 1)
                        return err_set(e, -E2BIG, "env: %.64s is longer than %u bytes", *v,
                                       LIMIT_ENV_BYTES - 1);
        }
        if (bytes > 1U << 20)
                return err_set(e, -E2BIG, "env: %zu bytes, at most 1 MiB is allowed", bytes);
        return 0;
}

static int check_image(const struct fetch_image *i, struct err *e)
{
        if (!digest_ok(i->digest) || !digest_ok(i->config_digest))
                return err_set(e, -EINVAL, "digest: is not sha256: and 64 hex digits");
        return fetch_env_check(i->env, e);
}

int fetch_image_decode(const json_t *j, struct fetch_image *ret, struct err *e)
{
        struct fetch_image i = { 0 };
        int r = jsonx_decode(j, image_fields, NELEM(image_fields), &i, e);

        if (r >= 0)
                r = decode_layers(json_object_get(j, "layers"), &i, e);
        if (r >= 0)
                r = check_image(&i, e);
        if (r < 0) {
                fetch_image_done(&i);
                return r;
        }
        *ret = i;
        return 0;
}

json_t *fetch_image_encode(const struct fetch_image *i)
{
        AUTO(json_put) json_t *j = jsonx_encode(image_fields, NELEM(image_fields), i);
        AUTO(json_put) json_t *list = json_array();

        for (size_t k = 0; j && list && k < i->n_layers; k++)
                if (json_array_append_new(list, jsonx_encode(layer_fields, NELEM(layer_fields),
                                                             &i->layers[k])) < 0)
                        return NULL;
        if (!j || !list || json_object_set(j, "layers", list) < 0)
                return NULL;
        return TAKE(j);
}
