/* manifest.c - see manifest.h.  Runs in vmm-fetch on a stranger's bytes; jansson parses, and every
 * value is checked for type and range before it is used. */
#include "fetch/manifest.h"

#include <errno.h>
#include <openssl/evp.h>

#include "base/jsonx.h"
#include "base/proc.h"
#include "base/str.h"
#include "model/imageref.h"
#include "model/limits.h"

#define OCI    "application/vnd.oci.image."
#define DOCKER "application/vnd.docker.distribution.manifest."

const char manifest_accept[] =
        OCI "manifest.v1+json, " OCI "index.v1+json, " DOCKER "v2+json, " DOCKER "list.v2+json";

int manifest_digest(const void *data, size_t len, char ret[static 72])
{
        unsigned char md[EVP_MAX_MD_SIZE];
        unsigned n = 0;

        if (EVP_Digest(data, len, md, &n, EVP_sha256(), NULL) != 1 || n != 32)
                return -EIO;
        memcpy(ret, "sha256:", 7);
        hex_encode(md, n, ret + 7);
        return 0;
}

void manifest_done(struct manifest *m)
{
        for (size_t i = 0; i < m->n_layers; i++) {
                free(m->layers[i].digest);
                free(m->layers[i].diff_id);
                free(m->layers[i].file);
        }
        free(m->layers);
        *m = (struct manifest){ 0 };
}

/* { mediaType, digest, size }: the two that count. */
static int descriptor(const json_t *d, const char *what, const char **ret_digest,
                      uint64_t *ret_size, struct err *e)
{
        const char *digest = jsonx_str(d, "digest");
        const json_t *size = json_object_get(d, "size");

        if (!digest || !digest_ok(digest))
                return err_set(e, -EINVAL, "%s: its digest is not sha256: and 64 hex digits", what);
        if (!json_is_integer(size) || json_integer_value(size) < 0)
                return err_set(e, -EINVAL, "%s: its size is not a number", what);
        *ret_digest = digest;
        *ret_size = (uint64_t) json_integer_value(size);
        return 0;
}

/* A media type of a file system layer, in any of its spellings. */
static bool is_layer_type(const char *t)
{
        static const char *const ok[] = {
                OCI "layer.v1.tar",
                OCI "layer.nondistributable.v1.tar",
                "application/vnd.docker.image.rootfs.diff.tar",
                "application/vnd.docker.image.rootfs.foreign.diff.tar",
        };

        for (size_t i = 0; t && i < NELEM(ok); i++) {
                const char *rest = str_after(t, ok[i]);

                if (rest && (str_eq(rest, "") || str_eq(rest, "+gzip") || str_eq(rest, "+zstd") ||
                             str_eq(rest, ".gzip") || str_eq(rest, ".zstd")))
                        return true;
        }
        return false;
}

static int parse_layers(const json_t *list, struct manifest *m, struct err *e)
{
        size_t n = json_array_size(list), i;
        json_t *d;

        if (!json_is_array(list))
                return err_set(e, -EINVAL, "layers: is not a list");
        if (n == 0)
                return err_set(e, -ENOTSUP, "the image has no layers: there is nothing to run");
        if (n > LIMIT_LAYERS)
                return err_set(e, -E2BIG, "the image has %zu layers, at most %u are allowed", n,
                               LIMIT_LAYERS);
        m->layers = calloc(n, sizeof *m->layers);
        if (!m->layers)
                return err_set(e, -ENOMEM, "out of memory");
        m->n_layers = n;
        json_array_foreach(list, i, d)
        {
                const char *type = jsonx_str(d, "mediaType"), *digest = NULL;
                char what[32];
                int r;

                (void) snprintf(what, sizeof what, "layer %zu", i + 1);
                if (!is_layer_type(type))
                        return err_set(e, -ENOTSUP,
                                       "%s: '%.100s' is not the media type of a file system layer",
                                       what, type ? type : "");
                r = descriptor(d, what, &digest, &m->layers[i].size_bytes, e);
                if (r < 0)
                        return r;
                m->layers[i].digest = strdup(digest);
                if (!m->layers[i].digest)
                        return err_set(e, -ENOMEM, "out of memory");
        }
        return 0;
}

static int parse_image(const json_t *j, struct manifest *m, struct err *e)
{
        const json_t *config = json_object_get(j, "config");
        const char *type = jsonx_str(config, "mediaType"), *digest = NULL;
        int r;

        if (type && !str_eq(type, OCI "config.v1+json") &&
            !str_eq(type, "application/vnd.docker.container.image.v1+json") &&
            !str_eq(type, "application/octet-stream"))
                return err_set(e, -ENOTSUP, "it is not a container image but '%.100s'", type);
        r = descriptor(config, "configuration", &digest, &m->config_size, e);
        if (r < 0)
                return r;
        if (m->config_size > LIMIT_CONFIG_BYTES)
                return err_set(e, -E2BIG,
                               "the configuration has %llu bytes, at most %u are allowed",
                               (unsigned long long) m->config_size, LIMIT_CONFIG_BYTES);
        memcpy(m->config_digest, digest, 72);
        m->kind = MANIFEST_IMAGE;
        return parse_layers(json_object_get(j, "layers"), m, e);
}

/* Does an index entry suit, and how well: 2 at once, 1 unless something better comes (a variant that
 * this machine may lack, or no platform at all, as in an OCI layout with one image), 0 not. */
static int suits(const json_t *d, const char *architecture, struct strbuf *seen)
{
        const json_t *p = json_object_get(d, "platform");
        const char *arch = jsonx_str(p, "architecture"), *os = jsonx_str(p, "os");
        const char *variant = jsonx_str(p, "variant"), *type = jsonx_str(d, "mediaType");

        if (type && !strstr(type, "manifest") && !strstr(type, "image.index"))
                return 0;
        if (!arch || !os)
                return 1;
        if (seen->len < 200 && !str_eq(arch, "unknown"))
                strbuf_fmt(seen, "%s%.20s/%.20s", seen->len ? ", " : "", os, arch);
        if (!str_eq(os, "linux") || !str_eq(arch, architecture))
                return 0;
        return str_empty(variant) || str_eq(variant, "v8") || str_eq(variant, "v1") ? 2 : 1;
}

static int parse_index(const json_t *list, const char *architecture, struct manifest *m,
                       struct err *e)
{
        AUTO(strbuf_done) struct strbuf seen = { 0 };
        const json_t *best = NULL;
        const char *digest = NULL;
        unsigned maybe = 0;
        uint64_t size;
        size_t i;
        json_t *d;
        int r;

        json_array_foreach(list, i, d)
        {
                int fit = suits(d, architecture, &seen);

                if (fit == 0)
                        continue;
                maybe += !json_object_get(d, "platform");
                if (!best || fit == 2)
                        best = d;
                if (fit == 2)
                        break;
        }
        if (best && maybe > 1 && !json_object_get(best, "platform"))
                return err_set(e, -ENOTSUP, "it holds %u images: upload one at a time", maybe);
        if (!best)
                return err_set(e, -ENOTSUP, "there is no linux/%s image in it, only %s",
                               architecture, seen.len ? seen.s : "others");
        r = descriptor(best, "index entry", &digest, &size, e);
        if (r < 0)
                return r;
        memcpy(m->chosen, digest, 72);
        m->kind = MANIFEST_INDEX;
        return 0;
}

int manifest_parse(const char *text, size_t len, const char *architecture, struct manifest *ret,
                   struct err *e)
{
        AUTO(manifest_done) struct manifest m = { 0 };
        AUTO(json_put) json_t *j = jsonx_parse(text, len, e);
        const json_t *list;
        int r;

        if (!j)
                return err_wrap(e, -EINVAL, "manifest");
        list = json_object_get(j, "manifests");
        if (json_integer_value(json_object_get(j, "schemaVersion")) == 1)
                return err_set(
                        e, -ENOTSUP,
                        "its manifest has Docker's old schema 1: push the image again with a newer tool");
        if (list && json_object_get(j, "layers"))
                return err_set(e, -EINVAL, "manifest: it is an index and an image at once");
        if (json_is_array(list))
                r = parse_index(list, architecture, &m, e);
        else
                r = parse_image(j, &m, e);
        if (r < 0)
                return r;
        *ret = m;
        m = (struct manifest){ 0 };
        return 0;
}

/* A list of strings or nothing. */
static int string_list(const json_t *from, const char *key, size_t max, char ***ret, struct err *e)
{
        const struct jfield f = { key, J_STRV, 0, .max = max };

        return jsonx_decode(from, &f, 1, ret, e);
}

static int string_of(const json_t *from, const char *key, size_t max, char **ret, struct err *e)
{
        const struct jfield f = { key, J_STR, 0, .max = max };
        int r = jsonx_decode(from, &f, 1, ret, e);

        if (r >= 0 && *ret && !**ret) {
                free(*ret);
                *ret = NULL;
        }
        return r;
}

/* An entry that is no NAME=VALUE sets nothing that a program could look up: it is left out. */
static void tidy_env(char **env)
{
        char **to = env;

        for (char **v = env; v && *v; v++) {
                const char *eq = strchr(*v, '=');

                if (eq && eq != *v)
                        *to++ = *v;
                else
                        free(*v);
        }
        if (to)
                *to = NULL;
}

static int env_of(const json_t *c, struct fetch_image *image, struct err *e)
{
        int r = string_list(c, "Env", LIMIT_ENV_TOTAL_ENTRIES, &image->env, e);

        if (r < 0)
                return r;
        tidy_env(image->env);
        return fetch_env_check(image->env, e);
}

/* "config": what to run. */
static int run_settings(const json_t *c, struct fetch_image *image, struct err *e)
{
        int r = 0;

        if (!c || json_is_null(c))
                return 0;
        if (!json_is_object(c))
                return err_set(e, -EINVAL, "config: is not an object");
        r = string_list(c, "Entrypoint", LIMIT_ARGV_ENTRIES, &image->entrypoint, e);
        if (r >= 0)
                r = string_list(c, "Cmd", LIMIT_ARGV_ENTRIES, &image->command, e);
        if (r >= 0)
                r = env_of(c, image, e);
        if (r >= 0)
                r = string_of(c, "WorkingDir", 4095, &image->working_dir, e);
        if (r >= 0)
                r = string_of(c, "User", 255, &image->user, e);
        if (r >= 0)
                r = string_of(c, "StopSignal", 32, &image->stop_signal, e);
        return r;
}

static int take_diff_ids(const json_t *rootfs, struct manifest *m, struct err *e)
{
        const json_t *list = json_object_get(rootfs, "diff_ids");

        if (json_array_size(list) != m->n_layers)
                return err_set(e, -EINVAL, "the configuration names %zu diff ids for %zu layers",
                               json_array_size(list), m->n_layers);
        for (size_t i = 0; i < m->n_layers; i++) {
                const char *id = json_string_value(json_array_get(list, i));

                if (!id || !digest_ok(id))
                        return err_set(e, -EINVAL, "diff id %zu is not sha256: and 64 hex digits",
                                       i + 1);
                free(m->layers[i].diff_id);
                m->layers[i].diff_id = strdup(id);
                if (!m->layers[i].diff_id)
                        return err_set(e, -ENOMEM, "out of memory");
        }
        return 0;
}

int manifest_config(const char *text, size_t len, const char *architecture, struct manifest *m,
                    struct fetch_image *image, struct err *e)
{
        AUTO(json_put) json_t *j = jsonx_parse(text, len, e);
        const char *arch = jsonx_str(j, "architecture"), *os = jsonx_str(j, "os");
        int r;

        if (!j)
                return err_wrap(e, -EINVAL, "configuration");
        if (!str_empty(os) && !str_eq(os, "linux"))
                return err_set(e, -ENOTSUP, "it is an image for %.40s, not for Linux", os);
        if (!str_empty(arch) && !str_eq(arch, architecture))
                return err_set(e, -ENOTSUP, "it is an image for %.40s, this host is %s", arch,
                               architecture);
        r = take_diff_ids(json_object_get(j, "rootfs"), m, e);
        if (r >= 0)
                r = run_settings(json_object_get(j, "config"), image, e);
        if (r < 0)
                return err_wrap(e, r, "configuration");
        image->layers = TAKE(m->layers);
        image->n_layers = m->n_layers;
        m->n_layers = 0;
        return 0;
}

int manifest_archive(const char *text, size_t len, char **ret_config, char ***ret_layers,
                     struct err *e)
{
        AUTO(json_put) json_t *j = jsonx_parse(text, len, e);
        AUTO(free) char *config = NULL;
        AUTO(strv_free) char **layers = NULL;
        const json_t *one;
        int r;

        if (!j)
                return err_wrap(e, -EINVAL, "manifest.json");
        if (json_array_size(j) != 1)
                return err_set(e, -ENOTSUP, "manifest.json holds %zu images: upload one at a time",
                               json_array_size(j));
        one = json_array_get(j, 0);
        if (!json_is_object(one))
                return err_set(e, -EINVAL, "manifest.json: not a list of objects");
        r = string_of(one, "Config", 4095, &config, e);
        if (r >= 0 && !config)
                r = err_set(e, -EINVAL, "Config: is missing");
        if (r >= 0)
                r = string_list(one, "Layers", 1024, &layers, e);
        if (r < 0)
                return err_wrap(e, r, "manifest.json");
        *ret_config = TAKE(config);
        *ret_layers = TAKE(layers);
        return 0;
}
