/* test_top.c - the pictures of `top` and of `get gpus --topo`: they fit, whatever the terminal's size and
 * whatever is in a name (src/cli/top.c, gpu_topology.c). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "base/jsonx.h"
#include "cli/gpus.h"
#include "cli/out.h"
#include "cli/top.h"

#define GPU(i, more)                                                                               \
        "{\"id\":\"GPU-" #i "\",\"name\":\"A\",\"displayName\":\"A100 SXM (simulated)\","          \
        "\"index\":" #i ",\"state\":\"ok\",\"forRent\":true,\"parentId\":null," more "}"
#define FULL                                                                                       \
        "\"clusterId\":\"abcdefghijklm1\",\"telemetry\":{\"util_pct\":100,\"memory_used_mib\":"    \
        "81920,\"memory_total_mib\":81920,\"temperature_c\":54,\"power_mw\":399900}"

static json_t *parse(const char *text)
{
        struct err e = { 0 };
        json_t *j = jsonx_parse(text, strlen(text), &e);

        if (!j)
                fail_msg("%s", e.msg);
        return j;
}

/* Columns of the widest line, and how many there are. */
static size_t measure(const char *text, size_t *ret_widest)
{
        size_t lines = 0, n;

        *ret_widest = 0;
        for (; *text; text += n + (text[n] == '\n'), lines++) {
                AUTO(free) char *line = NULL;

                n = strcspn(text, "\n");
                line = strndup(text, n);
                assert_non_null(line);
                if (text_width(line) > *ret_widest)
                        *ret_widest = text_width(line);
        }
        return lines;
}

static void test_it_fits(void **state)
{
        AUTO(json_put) json_t *gpus = parse("[" GPU(0, FULL) "," GPU(1, "\"telemetry\":null") "]");
        AUTO(json_put)
        json_t *clusters =
                parse("[{\"id\":\"abcdefghijklm1\",\"name\":\"\\u00e4\\u001b[31m\\u00f6 a "
                      "name that is longer than its column\",\"phase\":\"running\","
                      "\"gpuCount\":2,\"latestTelemetry\":{\"cpuUtilization\":250,"
                      "\"averageGpuMetrics\":{\"percentUtilization\":50}}},{},null]");
        AUTO(json_put) json_t *host = parse("{\"id\":\"h\",\"driverVersion\":\"550\"}");

        (void) state;
        for (size_t cols = 0; cols < 250; cols++) {
                for (size_t rows = 0; rows < 14; rows++) {
                        struct top_picture p = { gpus,   host, clusters, "12:00:00",
                                                 "away", rows, cols };
                        AUTO(strbuf_done) struct strbuf b = { 0 };
                        size_t widest, n;

                        top_text(&p, &b);
                        assert_false(b.failed);
                        n = measure(b.s ? b.s : "", &widest);
                        assert_true(!cols || widest <= (cols < 24 ? 24 : cols));
                        assert_true(!rows || n <= (rows < 2 ? 2 : rows));
                        assert_null(strchr(b.s ? b.s : "", '\033'));
                }
        }
}

static void test_what_it_says(void **state)
{
        AUTO(json_put) json_t *gpus = parse("[" GPU(0, FULL) "," GPU(1, "\"telemetry\":null") "]");
        AUTO(json_put) json_t *none = json_array();
        AUTO(json_put)
        json_t *host =
                parse("{\"simulated\":true,\"cudaVersion\":\"12.4\",\"gpuNote\":\"no driver\"}");
        struct top_picture p = { gpus, host, none, "12:00:00", NULL, 0, 120 };
        AUTO(strbuf_done) struct strbuf b = { 0 }, empty = { 0 };

        (void) state;
        top_text(&p, &b);
        assert_non_null(strstr(b.s, "tensorone 12:00:00  CUDA 12.4  (simulated)\n"));
        assert_non_null(strstr(b.s, "100%"));
        assert_non_null(strstr(b.s, "80.0/80.0"));
        assert_non_null(strstr(b.s, " 400W "));
        assert_non_null(strstr(b.s, "]    - "));
        p.gpus = none;
        top_text(&p, &empty);
        assert_non_null(strstr(empty.s, "\nno GPUs: no driver\n"));
        assert_null(strstr(empty.s, "UTIL    MEMORY   GiB"));
}

static void test_waits(void **state)
{
        static const struct {
                const char *runtime, *text;
        } t[] = {
                { "null", "             -    1" },
                { "{\"container\":{\"cpuPressurePercent\":null}}", "             -    1" },
                { "{\"container\":{\"cpuPressurePercent\":99.6,\"memoryPressurePercent\":0,"
                  "\"ioPressurePercent\":12.5}}",
                  "     100/0/12%    1" },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                AUTO(free)
                char *text = str_fmt("[{\"id\":\"abcdefghijklm1\",\"gpuCount\":1,\"runtime\":%s}]",
                                     t[i].runtime);
                AUTO(json_put) json_t *clusters = parse(text);
                struct top_picture p = { NULL, NULL, clusters, "12:00:00", NULL, 0, 160 };
                AUTO(strbuf_done) struct strbuf b = { 0 };

                top_text(&p, &b);
                assert_non_null(strstr(b.s, "CPU/MEM/IO WAIT GPUS"));
                if (!strstr(b.s, t[i].text))
                        fail_msg("row %zu: %s", i, b.s);
        }
}

static void test_topology(void **state)
{
        static const struct {
                const char *cpus, *numa, *line;
        } t[] = {
                { "[]", "null", "GPU0\t X \tNV12\tN/A\tN/A\n" },
                { "[\"7\"]", "0", "GPU0\t X \tNV12\t7\t0\n" },
                { "[\"0\",\"1\",\"2\",\"4\",\"6\",\"7\"]", "1", "GPU0\t X \tNV12\t0-2,4,6-7\t1\n" },
                { "[\"x\",\"3\",null]", "1", "GPU0\t X \tNV12\t3\t1\n" },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                AUTO(free)
                char *text =
                        str_fmt("[{\"index\":0,\"links\":[\"X\",\"NV12/SYS\",\"\"],\"cpus\":%s,"
                                "\"numaNode\":%s},{\"index\":1,\"links\":[\"NV12/SYS\",\"X\"]},"
                                "{\"index\":1,\"parentId\":\"GPU-1\"}]",
                                t[i].cpus, t[i].numa);
                AUTO(json_put) json_t *gpus = parse(text);
                AUTO(strbuf_done) struct strbuf b = { 0 };

                gpu_topology(gpus, &b);
                assert_false(b.failed);
                assert_true(str_after(b.s, "\tGPU0\tGPU1\tCPU Affinity\tNUMA Affinity\n") != NULL);
                if (!strstr(b.s, t[i].line))
                        fail_msg("row %zu: %s", i, b.s);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_it_fits),
                cmocka_unit_test(test_what_it_says),
                cmocka_unit_test(test_waits),
                cmocka_unit_test(test_topology),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
