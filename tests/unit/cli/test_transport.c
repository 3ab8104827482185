/* test_transport.c - the pure parts of talking to the API: addresses, keys, paths, refusals,
 * lines of JSON, the WebSocket's answer key (src/cli/config.c, api.c, ndjson.c, ws.c). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>

#include "base/jsonx.h"
#include "base/str.h"
#include "cli/api.h"
#include "cli/config.h"
#include "cli/ndjson.h"
#include "cli/tls.h"
#include "cli/ws.h"

static void test_base_url(void **state)
{
        static const struct {
                const char *in, *want; /* NULL: refused */
        } t[] = {
                { "http://h", "http://h" },
                { "HTTPS://Host:8443/", "https://Host:8443" },
                { "http://h/graphql", "http://h" },
                { "http://h/graphql///", "http://h" },
                { "http://h/v1", "http://h" },
                { "http://h/api/graphql", "http://h/api" },
                { "http://h/graphql/graphql", "http://h/graphql" },
                { "http://[::1]:80", "http://[::1]:80" },
                { "http://graphql", "http://graphql" },
                { "ftp://h", NULL },
                { "h", NULL },
                { "http:///x", NULL },
                { "http://:80", NULL },
                { "http://u@h", NULL },
                { "http://h?api_key=x", NULL },
                { "http://h#f", NULL },
                { "http://h\r\nX: y", NULL },
                { "", NULL },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                AUTO(free) char *got = NULL;
                int r = config_base_url(t[i].in, &got, NULL);

                if (r != (t[i].want ? 0 : -EINVAL) || !str_eq(got, t[i].want))
                        fail_msg("'%s' -> %d '%s'", t[i].in, r, got ? got : "NULL");
        }
}

static void test_key(void **state)
{
        struct err e = { 0 };

        (void) state;
        assert_int_equal(config_check_key("tpo_live_0aZ-._~+/=", NULL), 0);
        assert_int_equal(config_check_key("", NULL), -EINVAL);
        assert_int_equal(config_check_key("a b", NULL), -EINVAL);
        assert_int_equal(config_check_key("a\xc3\xa9", NULL), -EINVAL);
        assert_int_equal(config_check_key("secret\r\nX: y", &e), -EINVAL);
        assert_null(strstr(e.msg, "secret"));
}

static void test_path(void **state)
{
        AUTO(strbuf_done) struct strbuf b = { 0 };

        (void) state;
        strbuf_str(&b, "/v1/x");
        api_path_add(&b, "cmd", "a b&c=d");
        api_path_add(&b, "env", "K=\u00e9\n");
        api_path_add(&b, "empty", "");
        assert_string_equal(b.s, "/v1/x?cmd=a%20b%26c%3Dd&env=K%3D%C3%A9%0A&empty=");
}

static void test_refusal(void **state)
{
        static const struct {
                long status;
                const char *body;
                int code;
                const char *want;
        } t[] = {
                { 400, "{\"errors\":[{\"message\":\"no\"}]}", -EREMOTEIO, "no" },
                { 403, "{\"error\":\"forbidden\",\"message\":\"not yours\"}", -EACCES,
                  "not yours" },
                { 404, "{\"error\":\"gone\"}", -ENOENT, "gone" },
                { 409, "{\"error\":\"x\",\"message\":\"busy\"}", -EBUSY, "busy" },
                { 429, "", -EAGAIN, "the API answered with HTTP status 429 and no message" },
                { 502, "<html>", -EREMOTEIO,
                  "the API answered with HTTP status 502 and no message" },
                { 500, "{\"errors\":[]}", -EREMOTEIO,
                  "the API answered with HTTP status 500 and no message" },
                { 500, "[1]", -EREMOTEIO, "the API answered with HTTP status 500 and no message" },
                { 401, "{\"errors\":[{\"message\":\"unauthorized\"}]}", -EACCES,
                  "unauthorized: the API refused the key (HTTP 401); set one with: tensoronecli "
                  "config --apiKey KEY" },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                struct err e = { 0 };

                assert_int_equal(api_refusal(t[i].status, t[i].body, strlen(t[i].body), &e),
                                 t[i].code);
                assert_string_equal(e.msg, t[i].want);
        }
        assert_int_equal(api_refusal(500, NULL, 0, NULL), -EREMOTEIO);
}

/* The same answer, cut at every place. */
static void test_ndjson(void **state)
{
        static const char text[] = "{\"phase\":\"x\",\"doneBytes\":1,\"totalBytes\":2}\n\n \r\n"
                                   "{\"phase\":\"y\"}\r\n{\"reference\":\"r\"}";

        (void) state;
        for (size_t cut = 0; cut < sizeof text; cut++) {
                AUTO(ndjson_done) struct ndjson n = { 0 };
                AUTO(json_put) json_t *result = NULL;

                assert_int_equal(ndjson_chunk(&n, text, cut, NULL), 0);
                assert_int_equal(ndjson_chunk(&n, text + cut, sizeof text - 1 - cut, NULL), 0);
                assert_int_equal(ndjson_finish(&n, &result, NULL), 0);
                assert_string_equal(jsonx_str(result, "reference"), "r");
        }
}

static void test_ndjson_failures(void **state)
{
        static const struct {
                const char *text;
                int chunk, finish;
                const char *message;
        } t[] = {
                { "", 0, -EPROTO, "the API's answer ended without a result" },
                { "{\"phase\":\"x\"}\n", 0, -EPROTO, "the API's answer ended without a result" },
                { "{\"error\":\"no such image\"}\n", 0, -EREMOTEIO, "no such image" },
                { "{\"error\":\"e\",\"message\":\"m\"}", 0, -EREMOTEIO, "m" },
                { "nonsense\n", -EPROTO, 0, NULL },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                AUTO(ndjson_done) struct ndjson n = { 0 };
                AUTO(json_put) json_t *result = NULL;
                struct err e = { 0 };

                assert_int_equal(ndjson_chunk(&n, t[i].text, strlen(t[i].text), &e), t[i].chunk);
                if (t[i].chunk < 0)
                        continue;
                assert_int_equal(ndjson_finish(&n, &result, &e), t[i].finish);
                assert_string_equal(e.msg, t[i].message);
                assert_null(result);
        }
}

static void test_ndjson_long_line(void **state)
{
        static char line[70000];
        AUTO(ndjson_done) struct ndjson n = { 0 };

        (void) state;
        memset(line, ' ', sizeof line);
        assert_int_equal(ndjson_chunk(&n, line, 60000, NULL), 0);
        assert_int_equal(ndjson_chunk(&n, line, 60000, NULL), -EPROTO);
}

static void test_accept_key(void **state)
{
        char got[29];

        (void) state; /* the example of RFC 6455, section 1.3 */
        assert_int_equal(ws_accept_key("dGhlIHNhbXBsZSBub25jZQ==", got), 0);
        assert_string_equal(got, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
}

static void test_fingerprints(void **state)
{
        static const struct {
                const char *in;
                int r;
        } t[] = {
                { "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f", 0 },
                { "000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F", 0 },
                { "00:01:02:03:04:05:06:07:08:09:0a:0b:0c:0d:0e:0f:10:11:12:13:14:15:16:17:18:19:1A:1B:1C:1D:1E:1F",
                  0 },
                { "", -EINVAL },
                { "00", -EINVAL },
                { ":00", -EINVAL },
                { "0:0", -EINVAL },
                { "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1", -EINVAL },
                { "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1g", -EINVAL },
                { "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f0", -EINVAL },
                { " 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1", -EINVAL },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                char got[TLS_FINGERPRINT_MAX] = "?";
                int r = tls_fingerprint(t[i].in, got, NULL);

                if (r != t[i].r || strcmp(got, r < 0 ? "?" : t[0].in) != 0)
                        fail_msg("row %zu: %d %s", i, r, got);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_fingerprints),
                cmocka_unit_test(test_base_url),
                cmocka_unit_test(test_key),
                cmocka_unit_test(test_path),
                cmocka_unit_test(test_refusal),
                cmocka_unit_test(test_ndjson),
                cmocka_unit_test(test_ndjson_failures),
                cmocka_unit_test(test_ndjson_long_line),
                cmocka_unit_test(test_accept_key),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
