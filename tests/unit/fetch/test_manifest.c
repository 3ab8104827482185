/* test_manifest.c - manifests, indexes, configurations, docker's manifest.json. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "base/str.h"
#include "fetch/manifest.h"

#define A           "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define B           "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
#define C           "sha256:cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"
#define TAR         "application/vnd.oci.image.layer.v1.tar"
#define CONFIG      "\"config\":{\"digest\":\"" A "\",\"size\":5}"
#define LAYER(type) "\"layers\":[{\"mediaType\":\"" type "\",\"digest\":\"" B "\",\"size\":7}]"
#define ENTRY(os, arch, digest)                                                                    \
        "{\"digest\":\"" digest "\",\"size\":1,\"platform\":{\"os\":\"" os                         \
        "\",\"architecture\":\"" arch "\"}}"

struct row {
        const char *in;
        int r;
        enum manifest_kind kind;
        const char *chosen; /* of an index */
};

static const struct row rows[] = {
        { "{" CONFIG "," LAYER(TAR) "}", 0, MANIFEST_IMAGE, NULL },
        { "{" CONFIG "," LAYER(TAR "+gzip") "}", 0, MANIFEST_IMAGE, NULL },
        { "{" CONFIG "," LAYER(TAR "+zstd") "}", 0, MANIFEST_IMAGE, NULL },
        { "{" CONFIG "," LAYER("application/vnd.docker.image.rootfs.diff.tar.gzip") "}", 0,
          MANIFEST_IMAGE, NULL },
        { "{" CONFIG "," LAYER("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip") "}", 0,
          MANIFEST_IMAGE, NULL },
        { "{" CONFIG "," LAYER(TAR "+encrypted") "}", -ENOTSUP, MANIFEST_NONE, NULL },
        { "{" CONFIG "," LAYER("text/plain") "}", -ENOTSUP, MANIFEST_NONE, NULL },
        { "{" CONFIG ",\"layers\":[]}", -ENOTSUP, MANIFEST_NONE, NULL },
        { "{" CONFIG ",\"layers\":{}}", -EINVAL, MANIFEST_NONE, NULL },
        { "{" CONFIG "}", -EINVAL, MANIFEST_NONE, NULL },
        { "{" LAYER(TAR) "}", -EINVAL, MANIFEST_NONE, NULL },
        { "{\"config\":{\"digest\":\"md5:1\",\"size\":1}," LAYER(TAR) "}", -EINVAL, MANIFEST_NONE,
          NULL },
        { "{\"config\":{\"digest\":\"" A "\",\"size\":-1}," LAYER(TAR) "}", -EINVAL, MANIFEST_NONE,
          NULL },
        { "{\"config\":{\"digest\":\"" A "\",\"size\":99999999}," LAYER(TAR) "}", -E2BIG,
          MANIFEST_NONE, NULL },
        { "{\"config\":{\"mediaType\":\"application/vnd.cncf.helm.config.v1+json\",\"digest\":\"" A
          "\",\"size\":1}," LAYER(TAR) "}",
          -ENOTSUP, MANIFEST_NONE, NULL },
        { "{\"schemaVersion\":1,\"fsLayers\":[]}", -ENOTSUP, MANIFEST_NONE, NULL },
        { "{\"manifests\":[" ENTRY("linux", "amd64", A) "]}", 0, MANIFEST_INDEX, A },
        { "{\"manifests\":[" ENTRY("linux", "arm64", A) "," ENTRY("linux", "amd64", B) "]}", 0,
          MANIFEST_INDEX, B },
        { "{\"manifests\":[" ENTRY("windows", "amd64", A) "," ENTRY("linux", "amd64", B) "]}", 0,
          MANIFEST_INDEX, B },
        { "{\"manifests\":[" ENTRY("linux", "arm64", A) "]}", -ENOTSUP, MANIFEST_NONE, NULL },
        { "{\"manifests\":[" ENTRY("unknown", "unknown", A) "]}", -ENOTSUP, MANIFEST_NONE, NULL },
        { "{\"manifests\":[]}", -ENOTSUP, MANIFEST_NONE, NULL },
        { "{\"manifests\":[{\"digest\":\"" C "\",\"size\":1}]}", 0, MANIFEST_INDEX, C },
        { "{\"manifests\":[{\"digest\":\"" C "\",\"size\":1},{\"digest\":\"" A "\",\"size\":1}]}",
          -ENOTSUP, MANIFEST_NONE, NULL },
        { "{\"manifests\":[{\"digest\":\"" C "\",\"size\":1}," ENTRY("linux", "amd64", A) "]}", 0,
          MANIFEST_INDEX, A },
        { "{\"manifests\":[{\"digest\":\"" C
          "\",\"size\":1,\"platform\":{\"os\":\"linux\",\"architecture\":\"amd64\","
          "\"variant\":\"v3\"}}," ENTRY("linux", "amd64", A) "]}",
          0, MANIFEST_INDEX, A },
        { "{\"manifests\":[{\"size\":1,\"platform\":{\"os\":\"linux\",\"architecture\":\"amd64\"}}]}",
          -EINVAL, MANIFEST_NONE, NULL },
        { "{\"manifests\":[1,null,\"x\",{}]}", -ENOTSUP, MANIFEST_NONE, NULL },
        { "{\"manifests\":[]," CONFIG "," LAYER(TAR) "}", -EINVAL, MANIFEST_NONE, NULL },
        { "[]", -EINVAL, MANIFEST_NONE, NULL },
        { "", -EINVAL, MANIFEST_NONE, NULL },
        { "{\"a\":1,\"a\":2}", -EINVAL, MANIFEST_NONE, NULL },
};

static void test_parse(void **state)
{
        (void) state;
        for (size_t i = 0; i < NELEM(rows); i++) {
                AUTO(manifest_done) struct manifest m = { 0 };
                struct err e = { 0 };
                int r = manifest_parse(rows[i].in, strlen(rows[i].in), "amd64", &m, &e);

                if (r != rows[i].r || m.kind != rows[i].kind)
                        fail_msg("row %zu: r=%d kind=%d: %s", i, r, (int) m.kind, e.msg);
                if (r < 0 && !*e.msg)
                        fail_msg("row %zu: no message", i);
                if (rows[i].chosen && !str_eq(m.chosen, rows[i].chosen))
                        fail_msg("row %zu: chose %s", i, m.chosen);
        }
}

static void test_every_cut(void **state)
{
        const char *in = rows[0].in;

        (void) state; /* no prefix of a good manifest is one */
        for (size_t n = 0; n < strlen(in); n++) {
                struct manifest m = { 0 };

                assert_true(manifest_parse(in, n, "amd64", &m, NULL) < 0);
        }
}

#define DIFF "\"rootfs\":{\"diff_ids\":[\"" C "\"]}"

static void test_config(void **state)
{
        static const struct {
                const char *in;
                int r;
        } t[] = {
                { "{" DIFF "}", 0 },
                { "{" DIFF ",\"os\":\"linux\",\"architecture\":\"amd64\",\"config\":null}", 0 },
                { "{" DIFF
                  ",\"config\":{\"Cmd\":null,\"Env\":null,\"User\":\"\",\"WorkingDir\":\"/x\"}}",
                  0 },
                { "{" DIFF ",\"config\":{\"Cmd\":\"a string\"}}", -EINVAL },
                { "{" DIFF ",\"config\":{\"Cmd\":[1]}}", -EINVAL },
                { "{" DIFF ",\"config\":[]}", -EINVAL },
                { "{" DIFF ",\"os\":\"windows\"}", -ENOTSUP },
                { "{" DIFF ",\"architecture\":\"arm64\"}", -ENOTSUP },
                { "{\"rootfs\":{\"diff_ids\":[]}}", -EINVAL },
                { "{\"rootfs\":{\"diff_ids\":[\"" A "\",\"" B "\"]}}", -EINVAL },
                { "{\"rootfs\":{\"diff_ids\":[\"nope\"]}}", -EINVAL },
                { "{\"rootfs\":{\"diff_ids\":[7]}}", -EINVAL },
                { "{}", -EINVAL },
                { "", -EINVAL },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                AUTO(manifest_done) struct manifest m = { 0 };
                AUTO(fetch_image_done) struct fetch_image image = { 0 };
                int r;

                assert_int_equal(manifest_parse(rows[0].in, strlen(rows[0].in), "amd64", &m, NULL),
                                 0);
                r = manifest_config(t[i].in, strlen(t[i].in), "amd64", &m, &image, NULL);
                if (r != t[i].r || (r >= 0) != (image.n_layers == 1))
                        fail_msg("row %zu: r=%d layers=%zu", i, r, image.n_layers);
                if (r >= 0 &&
                    (!str_eq(image.layers[0].diff_id, C) || !str_eq(image.layers[0].digest, B)))
                        fail_msg("row %zu: layer", i);
        }
}

static void test_config_env(void **state)
{
        static const char head[] = "{" DIFF ",\"config\":{\"Env\":[";
        AUTO(manifest_done) struct manifest m = { 0 };
        AUTO(fetch_image_done) struct fetch_image image = { 0 }, none = { 0 };
        AUTO(free) char *mixed = str_fmt("%s\"=x\",\"A=1\",\"B\",\"\",\"C=\",\"D=a=b\"]}}", head);
        AUTO(free) char *big = malloc(1U << 18);
        AUTO(free) char *over = NULL;
        struct err e = { 0 };

        (void) state;
        assert_int_equal(manifest_parse(rows[0].in, strlen(rows[0].in), "amd64", &m, NULL), 0);
        assert_int_equal(manifest_config(mixed, strlen(mixed), "amd64", &m, &image, NULL), 0);
        assert_int_equal(strv_len(image.env), 3);
        assert_string_equal(image.env[0], "A=1");
        assert_string_equal(image.env[1], "C=");
        assert_string_equal(image.env[2], "D=a=b");

        memset(big, 'x', (1U << 18) - 1);
        big[(1U << 18) - 1] = '\0';
        over = str_fmt("%s\"A=%s\"]}}", head, big);
        manifest_done(&m);
        assert_int_equal(manifest_parse(rows[0].in, strlen(rows[0].in), "amd64", &m, NULL), 0);
        assert_int_equal(manifest_config(over, strlen(over), "amd64", &m, &none, &e), -E2BIG);
        assert_non_null(strstr(e.msg, "env: "));
}

static void test_archive(void **state)
{
        static const struct {
                const char *in;
                int r;
        } t[] = {
                { "[{\"Config\":\"c\",\"RepoTags\":null,\"Layers\":[\"l\"]}]", 0 },
                { "[{\"Config\":\"c\"}]", 0 }, /* no layers: refused one step later */
                { "[]", -ENOTSUP },
                { "[{},{}]", -ENOTSUP },
                { "{}", -ENOTSUP },
                { "[1]", -EINVAL },
                { "[{}]", -EINVAL },
                { "[{\"Config\":7}]", -EINVAL },
                { "[{\"Config\":\"c\",\"Layers\":\"l\"}]", -EINVAL },
                { "x", -EINVAL },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                AUTO(free) char *config = NULL;
                AUTO(strv_free) char **layers = NULL;
                int r = manifest_archive(t[i].in, strlen(t[i].in), &config, &layers, NULL);

                if (r != t[i].r || (r >= 0) != (config != NULL))
                        fail_msg("row %zu: r=%d", i, r);
        }
}

static void test_digest(void **state)
{
        char d[72];

        (void) state;
        assert_int_equal(manifest_digest("", 0, d), 0);
        assert_string_equal(
                d, "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_parse),   cmocka_unit_test(test_every_cut),
                cmocka_unit_test(test_config),  cmocka_unit_test(test_config_env),
                cmocka_unit_test(test_archive), cmocka_unit_test(test_digest),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
