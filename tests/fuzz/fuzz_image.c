/* fuzz_image.c - libFuzzer target for what a registry says: manifests, indexes, configurations,
 * docker's manifest.json, WWW-Authenticate, token answers, and what vmm-fetch says of them.
 *
 * Input: one byte that chooses the reader, then its text.  Checked beside memory errors: an image
 * that is accepted survives the way to the operation process and back, with every digest in order;
 * a token is one header value.  A trap is a finding. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/jsonx.h"
#include "base/str.h"
#include "fetch/auth.h"
#include "fetch/manifest.h"
#include "fetch/tarpath.h"
#include "model/imageref.h"
#include "model/limits.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(x)                                                                                   \
        do {                                                                                       \
                if (!(x))                                                                          \
                        __builtin_trap();                                                          \
        } while (0)

/* "manifest NUL configuration" */
static void fuzz_manifest(const char *text, size_t len)
{
        const char *config = memchr(text, '\0', len);
        AUTO(manifest_done) struct manifest m = { 0 };
        AUTO(fetch_image_done) struct fetch_image image = { 0 }, back = { 0 };
        AUTO(json_put) json_t *j = NULL;
        size_t n = config ? (size_t) (config - text) : len;

        if (manifest_parse(text, n, "amd64", &m, NULL) < 0)
                return;
        CHECK(m.kind == MANIFEST_INDEX ? digest_ok(m.chosen)
                                       : digest_ok(m.config_digest) && m.n_layers >= 1 &&
                                                 m.n_layers <= LIMIT_LAYERS);
        if (m.kind != MANIFEST_IMAGE || !config ||
            manifest_config(config + 1, len - n - 1, "amd64", &m, &image, NULL) < 0)
                return;
        image.digest = strdup(image.layers[0].digest);
        image.config_digest = strdup(image.layers[0].digest);
        j = fetch_image_encode(&image);
        CHECK(j);
        if (fetch_image_decode(j, &back, NULL) >= 0) /* the environment may be refused there */
                CHECK(back.n_layers == image.n_layers);
}

static void fuzz_auth(const char *text, size_t len)
{
        AUTO(free) char *line = strndup(text, len);
        AUTO(free) char *url = NULL, *token = NULL;
        AUTO(auth_challenge_done) struct auth_challenge c = { 0 };

        CHECK(line);
        if (auth_parse(line, &c, NULL) >= 0 && c.kind == AUTH_BEARER)
                (void) auth_token_url(&c, "a/b", "me", &url, NULL);
        if (auth_token_parse(text, len, &token, NULL) >= 0)
                CHECK(!strpbrk(token, "\r\n"));
}

static void fuzz_path(const char *text, size_t len)
{
        AUTO(free) char *raw = strndup(text, len);
        enum tarpath_mark mark = TARPATH_PLAIN;
        char path[4096];

        CHECK(raw);
        if (tarpath_clean(raw, path, NULL) < 0)
                return;
        CHECK(path[0] != '/' && !strstr(path, "//") && strlen(path) < sizeof path);
        if (tarpath_mark(path, &mark, NULL) < 0)
                return;
        CHECK(strcmp(path, "..") != 0 && strncmp(path, "../", 3) != 0 && !strstr(path, "/../"));
        CHECK(strlen(path) < 3 || strcmp(path + strlen(path) - 3, "/..") != 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        const char *text = (const char *) data + 1;
        size_t len = size - 1;

        if (size < 1)
                return 0;
        switch (data[0] % 5) {
        case 0:
                fuzz_manifest(text, len);
                break;
        case 1:
                fuzz_auth(text, len);
                break;
        case 2:
                fuzz_path(text, len);
                break;
        case 3: {
                AUTO(free) char *config = NULL;
                AUTO(strv_free) char **layers = NULL;

                (void) manifest_archive(text, len, &config, &layers, NULL);
                break;
        }
        default: {
                AUTO(json_put) json_t *j = jsonx_parse(text, len, NULL);
                AUTO(fetch_image_done) struct fetch_image image = { 0 };

                if (j && fetch_image_decode(j, &image, NULL) >= 0)
                        CHECK(digest_ok(image.digest) && image.n_layers >= 1);
        }
        }
        return 0;
}
