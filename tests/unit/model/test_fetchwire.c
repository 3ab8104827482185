/* test_fetchwire.c - what an operation process believes of what vmm-fetch says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "base/jsonx.h"
#include "base/str.h"
#include "model/fetchwire.h"
#include "model/limits.h"

#define A     "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define HEAD  "\"digest\":\"" A "\",\"config_digest\":\"" A "\""
#define LAYER "{\"digest\":\"" A "\",\"diff_id\":\"" A "\",\"size_bytes\":5}"

static void test_image(void **state)
{
        static const struct {
                const char *in;
                int r;
        } t[] = {
                { "{" HEAD ",\"layers\":[" LAYER "]}", 0 },
                { "{" HEAD ",\"layers\":[" LAYER "],\"env\":[\"A=b\",\"C=\"],\"unknown\":1}", 0 },
                { "{" HEAD ",\"layers\":[]}", -ERANGE },
                { "{" HEAD "}", -ERANGE },
                { "{" HEAD ",\"layers\":{}}", -ERANGE },
                { "{" HEAD ",\"layers\":[{}]}", -EINVAL },
                { "{" HEAD ",\"layers\":[{\"digest\":\"sha256:x\",\"diff_id\":\"" A "\"}]}",
                  -EINVAL },
                { "{" HEAD ",\"layers\":[{\"digest\":\"" A "\",\"diff_id\":\"../../etc\"}]}",
                  -EINVAL },
                { "{" HEAD ",\"layers\":[{\"digest\":\"" A "\",\"diff_id\":\"" A
                  "\",\"file\":\"../x\"}]}",
                  -EINVAL },
                { "{" HEAD ",\"layers\":[{\"digest\":\"" A "\",\"diff_id\":\"" A
                  "\",\"file\":\"\"}]}",
                  -EINVAL },
                { "{" HEAD ",\"layers\":[{\"digest\":\"" A "\",\"diff_id\":\"" A
                  "\",\"file\":\"f12\"}]}",
                  0 },
                { "{" HEAD ",\"layers\":[{\"digest\":\"" A "\",\"diff_id\":\"" A
                  "\",\"size_bytes\":-1}]}",
                  -ERANGE },
                { "{" HEAD ",\"layers\":[" LAYER "],\"env\":[\"novalue\"]}", -EINVAL },
                { "{" HEAD ",\"layers\":[" LAYER "],\"env\":[\"=x\"]}", -EINVAL },
                { "{" HEAD ",\"layers\":[" LAYER "],\"env\":\"A=b\"}", -EINVAL },
                { "{\"digest\":\"" A "\",\"layers\":[" LAYER "]}", -EINVAL },
                { "{\"digest\":\"sha256:AAAA\",\"config_digest\":\"" A "\",\"layers\":[" LAYER "]}",
                  -EINVAL },
                { "[]", -EINVAL },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                AUTO(json_put) json_t *j = jsonx_parse(t[i].in, strlen(t[i].in), NULL);
                AUTO(fetch_image_done) struct fetch_image image = { 0 };
                struct err e = { 0 };
                int r = fetch_image_decode(j, &image, &e);

                if (r != t[i].r)
                        fail_msg("row %zu: r=%d %s", i, r, e.msg);
                if (r < 0 && (image.layers || image.digest))
                        fail_msg("row %zu: failure has written", i);
        }
}

static void test_too_many_layers(void **state)
{
        for (unsigned n = LIMIT_LAYERS; n <= LIMIT_LAYERS + 1; n++) {
                AUTO(json_put)
                json_t *j = json_pack("{s:s,s:s,s:[]}", "digest", A, "config_digest", A, "layers");
                AUTO(fetch_image_done) struct fetch_image image = { 0 };

                for (unsigned i = 0; i < n; i++)
                        assert_int_equal(json_array_append_new(
                                                 json_object_get(j, "layers"),
                                                 json_pack("{s:s,s:s}", "digest", A, "diff_id", A)),
                                         0);
                assert_int_equal(fetch_image_decode(j, &image, NULL),
                                 n > LIMIT_LAYERS ? -ERANGE : 0);
        }
        (void) state;
}

static void test_image_round_trip(void **state)
{
        static const char in[] =
                "{" HEAD ",\"layers\":[" LAYER "," LAYER "],\"env\":[\"A=b\"],\"command\":[\"x\"],"
                "\"working_dir\":\"/w\",\"user\":\"1\",\"stop_signal\":\"TERM\",\"entrypoint\":[\"y\"]}";
        AUTO(json_put) json_t *j = jsonx_parse(in, strlen(in), NULL), *back = NULL;
        AUTO(fetch_image_done) struct fetch_image image = { 0 };

        (void) state;
        assert_int_equal(fetch_image_decode(j, &image, NULL), 0);
        back = fetch_image_encode(&image);
        assert_true(json_equal(j, back));
}

static void test_request_round_trip(void **state)
{
        struct fetch_request r = { .registry = (char *) "r",
                                   .repository = (char *) "p",
                                   .password = (char *) "s",
                                   .max_bytes = 1,
                                   .max_entries = 2,
                                   .connect_us = 3,
                                   .stall_us = 4,
                                   .rate_bytes = 5,
                                   .from_file = true };
        AUTO(json_put) json_t *j = fetch_request_encode(&r), *empty = json_object();
        AUTO(fetch_request_done) struct fetch_request back = { 0 }, none = { 0 };

        (void) state;
        assert_int_equal(fetch_request_decode(j, &back, NULL), 0);
        assert_string_equal(back.registry, "r");
        assert_string_equal(back.password, "s");
        assert_true(back.from_file);
        assert_int_equal(back.stall_us, 4);
        assert_int_equal(back.rate_bytes, 5);
        assert_null(back.username);
        assert_int_equal(fetch_request_decode(empty, &none, NULL),
                         -EINVAL); /* limits are not optional */
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_image),
                cmocka_unit_test(test_too_many_layers),
                cmocka_unit_test(test_image_round_trip),
                cmocka_unit_test(test_request_round_trip),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
