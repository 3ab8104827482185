/* test_gpu_sim.c - descriptions of simulated fleets: what they mean, what is wrong with them by line and
 * word, and that what is written into a tree reads as the same. */
#include "model/gpu_sim.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "base/fd.h"
#include "base/str.h"

#define D    "driver 1.2 cuda=12.4\n"
#define M    "model \"NVIDIA X 1\" memory=1000 reserved=10 links=4 nvlink=3 divisible=on\n"
#define PAIR "gpu 0000:01:00.0 peer=0000:02:00.0/4\ngpu 0000:02:00.0 peer=0000:01:00.0/4\n"
#define G(x) "gpu 0000:" x ":00.0"
#define MIG  D M G("01") " mig=on\n"

static void test_mistakes(void **state)
{
        static const struct {
                const char *text, *says;
        } t[] = {
                { "", "there is no line 'driver VERSION cuda=VERSION'" },
                { "driver 1.2\n", "there is no line 'driver VERSION cuda=VERSION'" },
                { "driver\n", "line 1: 'driver': something must follow" },
                { "driver x cuda=1\n", "line 1: 'x': is no driver version" },
                { D "\n# c\n" D, "line 4: 'driver': is there already" },
                { D "gpu 0000:01:00.0\n", "line 2: 'gpu': a model must come first" },
                { D "model X\n", "line 2: 'X': a model needs memory= above reserved=" },
                { D "model X memory=300 reserved=300\n",
                  "line 2: 'X': a model needs memory= above" },
                { D "model X memory=12x\n", "line 2: 'memory=12x': must be a number from 256 to" },
                { D "model X memory=99999999999999999999\n",
                  "must be a number from 256 to 8388608" },
                { D "model X memory=1000 links=3\n", "line 2: 'X': links= needs nvlink=" },
                { D "model X memory=1000 device=zz01\n",
                  "'device=zz01': must be four hexadecimal" },
                { D "model X memory=1000 ecc=maybe\n", "'ecc=maybe': must be on or off" },
                { D "model X memory=1000 vbios=a/b\n", "'vbios=a/b': must be a short word" },
                { D "model X memory=1000 memory=1000\n", "'memory=1000': is there already" },
                { D "model X memory\n", "line 2: 'memory': KEY=VALUE was expected" },
                { D "model \"X memory=1\n", "line 2: 'X memory=1': the quote is not closed" },
                { D "model \"\x1b[31m\" memory=1000\n", "a name has printable ASCII alone" },
                { D M "gpu 01:00.0\n",
                  "line 3: '01:00.0': is no PCI address such as 0000:07:00.0" },
                { D M "gpu 0000:01:00.1\n", "is no PCI address" },
                { D M "gpu 0000:01:20.0\n", "is no PCI address" },
                { D M G("01") " numma=1\n", "line 3: 'numma=1': there is no such key here" },
                { D M G("01") "\n" G("01") "\n",
                  "line 4: '0000:01:00.0': address or minor number is" },
                { D M G("01") " peer=0000:02:00.0\n", "must be ADDRESS/LINKS" },
                { D M G("01") " peer=0000:02:00.0/4\n", "gpu 0000:01:00.0: a peer is missing" },
                { D M G("01") " peer=0000:02:00.0/5\n", "more links than its model has" },
                { D M G("01") " peer=0000:02:00.0/4\n" G("02") "\n",
                  "a peer's links do not match" },
                { D M G("01") " peer=0000:01:00.0/4\n", "a peer's links do not match" },
                { D M G("01") " uuid=GPU-1\n", "gpu 0000:01:00.0: 'GPU-1' is no UUID" },
                { D M G("01") "\nmig 0000:01:00.0 1g.5gb\n", "is no GPU above with mig=on" },
                { D "model Y memory=999\n" G("01") " mig=on\n", "its model is not divisible" },
                { MIG "mig 0000:01:00.0\n", "line 4: '': is no profile such as 1g.10gb" },
                { MIG "mig 0000:01:00.0 9g.5gb\n", "'9g.5gb': is no profile" },
                { MIG "mig 0000:01:00.0 1g.5gb\n", "'1g.5gb': needs memory=, within the GPU's" },
                { MIG "mig 0000:01:00.0 1g.5gb memory=1001\n", "needs memory=, within the GPU's" },
                { MIG "mig 0000:01:00.0 1g.5gb memory=500\nmig 0000:01:00.0 1g.5gb memory=500\n",
                  "line 5: '1g.5gb': gi and ci are taken" },
                { D "seed a/b\n", "line 2: 'a/b': is no seed" },
                { D "cpu 1\n",
                  "line 2: 'cpu': a line begins with driver, model, gpu, mig or seed" },
                { D "gpu a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a\n",
                  "too many words in one line" },
        };
        static struct gpu_sim s;

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                struct err e = { 0 };

                assert_int_equal(gpu_sim_parse(t[i].text, NULL, false, &s, &e), -EINVAL);
                if (!strstr(e.msg, t[i].says))
                        fail_msg("row %zu: '%s' instead of '%s'", i, e.msg, t[i].says);
        }
}

static void test_limits(void **state)
{
        AUTO(strbuf_done) struct strbuf b = { 0 };
        static struct gpu_sim s;
        struct err e = { 0 };

        (void) state;
        strbuf_str(&b, D M);
        for (unsigned i = 0; i < GPU_SIM_MAX; i++)
                strbuf_fmt(&b, "gpu 0000:%02x:00.0\n", i);
        assert_int_equal(gpu_sim_parse(b.s, NULL, false, &s, &e), 0);
        assert_int_equal(s.n_gpus, GPU_SIM_MAX);
        strbuf_str(&b, "gpu 0000:f0:00.0\n");
        assert_int_equal(gpu_sim_parse(b.s, NULL, false, &s, &e), -EINVAL);
        assert_non_null(strstr(e.msg, "at most 64 GPUs"));
        b.len = 0;
        for (unsigned i = 0; i < GPU_SIM_LINE_MAX; i++)
                strbuf_char(&b, 'x');
        assert_int_equal(gpu_sim_parse(b.s, NULL, false, &s, &e), -EINVAL);
        assert_string_equal(e.msg, "line 1 is too long");
}

static void test_seeds(void **state)
{
        static struct gpu_sim a, b, c;

        (void) state;
        assert_int_equal(gpu_sim_parse(D M PAIR, "host1", false, &a, NULL), 0);
        assert_int_equal(gpu_sim_parse(D M PAIR "seed host1\n", NULL, false, &b, NULL), 0);
        assert_int_equal(gpu_sim_parse(D M PAIR "seed host1\n", "host2", false, &c, NULL), 0);
        for (unsigned i = 0; i < 2; i++) {
                assert_string_equal(a.gpus[i].uuid, b.gpus[i].uuid);
                assert_string_equal(a.gpus[i].serial, b.gpus[i].serial);
                assert_string_not_equal(a.gpus[i].uuid, c.gpus[i].uuid);
        }
        assert_string_not_equal(a.gpus[0].uuid, a.gpus[1].uuid);
        assert_int_equal(gpu_sim_parse(D M PAIR, "../x", false, &c, NULL), -EINVAL);
}

static void check_pair(const struct gpu_sim *s, unsigned a, unsigned b, unsigned links,
                       unsigned level)
{
        assert_int_equal(gpu_sim_nvlinks(s, &s->gpus[a], &s->gpus[b]), links);
        assert_int_equal(gpu_sim_nvlinks(s, &s->gpus[b], &s->gpus[a]), links);
        assert_int_equal(gpu_sim_level(&s->gpus[a], &s->gpus[b]), level);
}

static void test_joins(void **state)
{
        static struct gpu_sim s;
        static const char text[] = D M "gpu 0000:01:00.0 numa=0 bridge=0 switch=0 leaf=0 fabric=1\n"
                                       "gpu 0000:02:00.0 numa=0 bridge=0 switch=0 leaf=0 fabric=1\n"
                                       "gpu 0000:03:00.0 numa=0 bridge=0 switch=0 leaf=1 fabric=0\n"
                                       "gpu 0000:04:00.0 numa=0 bridge=0 switch=1 leaf=0\n"
                                       "gpu 0000:05:00.0 numa=0 bridge=1 switch=0 leaf=0\n"
                                       "gpu 0000:06:00.0 numa=1 bridge=0 switch=0 leaf=0\n"
                                       "gpu 0000:07:00.0 numa=0\ngpu 0000:08:00.0 numa=0\n";

        (void) state;
        assert_int_equal(gpu_sim_parse(text, NULL, false, &s, NULL), 0);
        check_pair(&s, 0, 1, 4, 10);
        check_pair(&s, 0, 2, 0, 20);
        check_pair(&s, 0, 3, 0, 30);
        check_pair(&s, 0, 4, 0, 40);
        check_pair(&s, 0, 5, 0, 50);
        check_pair(&s, 6, 7, 0, 40);
}

/* What lies in the files of a tree, put together as the stand-in does, is the same fleet again. */
static void test_round_trip(void **state)
{
        static const char *const fleets[] = { "3090x8",  "4090x1", "a100mig", "a100x8",
                                              "a6000x4", "h100x8", "h200x8",  "x16" };

        (void) state;
        for (size_t f = 0; f < NELEM(fleets); f++) {
                AUTO(free) char *path = str_fmt("%s/%s", FLEETS, fleets[f]);
                AUTO(free) char *text = NULL;
                AUTO(strbuf_done) struct strbuf again = { 0 };
                static struct gpu_sim a, b;
                struct err e = { 0 };
                char lines[4096];

                assert_int_equal(fd_read_file(AT_FDCWD, path, GPU_SIM_TEXT_MAX, &text, NULL), 0);
                if (gpu_sim_parse(text, "s", false, &a, &e) < 0)
                        fail_msg("%s: %s", fleets[f], e.msg);
                for (uint32_t i = 0; i < a.n_gpus; i++) {
                        const char *from = lines;

                        assert_true(gpu_sim_gpu_lines(&a, i, "", lines, sizeof lines) > 0);
                        if (i) /* the driver's line once */
                                from = strchr(lines, '\n') + 1;
                        strbuf_str(&again, from);
                }
                for (uint32_t i = 0; i < a.n_migs; i++) {
                        assert_true(gpu_sim_mig_lines(&a, i, "", lines, sizeof lines) > 0);
                        strbuf_str(&again, lines);
                }
                if (gpu_sim_parse(again.s, NULL, true, &b, &e) < 0)
                        fail_msg("%s again: %s", fleets[f], e.msg);
                assert_int_equal(a.n_gpus, b.n_gpus);
                assert_int_equal(a.n_migs, b.n_migs);
                assert_string_equal(a.driver, b.driver);
                assert_string_equal(a.cuda, b.cuda);
                for (uint32_t i = 0; i < a.n_gpus; i++) {
                        struct gpu_sim_gpu x = a.gpus[i], y = b.gpus[i];

                        assert_memory_equal(&a.models[x.model], &b.models[y.model],
                                            sizeof a.models[0]);
                        x.model = y.model = 0;
                        assert_memory_equal(&x, &y, sizeof x);
                }
                assert_memory_equal(a.migs, b.migs, sizeof a.migs);
                assert_int_equal(gpu_sim_gpu_lines(&a, 0, "", lines, 20), 0);
        }
}

static void test_addresses(void **state)
{
        struct gpu_sim_pci pci = { 7, 7, 7 };
        char text[16];

        (void) state;
        assert_int_equal(gpu_sim_pci_parse("0000:BD:1f.0", &pci), 0);
        gpu_sim_pci_text(&pci, text);
        assert_string_equal(text, "0000:bd:1f.0");
        assert_int_equal(gpu_sim_pci_parse("00000001:07:00.0", &pci), 0);
        gpu_sim_pci_text(&pci, text);
        assert_string_equal(text, "0001:07:00.0");
        assert_int_equal(gpu_sim_pci_parse("00010001:07:00.0", &pci), -EINVAL);
        assert_int_equal(gpu_sim_pci_parse("0000:07:00.0 ", &pci), -EINVAL);
        assert_int_equal(gpu_sim_pci_parse("", &pci), -EINVAL);
}

/* Two numbers that the driver's own table has. */
static void test_cap_numbers(void **state)
{
        (void) state;
        assert_int_equal(gpu_sim_cap_minor(0, 0, GPU_SIM_NONE), 3);
        assert_int_equal(gpu_sim_cap_minor(0, 0, 0), 4);
        assert_int_equal(gpu_sim_cap_minor(0, 1, GPU_SIM_NONE), 12);
        assert_int_equal(gpu_sim_cap_minor(1, 0, GPU_SIM_NONE), 138);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_mistakes),    cmocka_unit_test(test_limits),
                cmocka_unit_test(test_seeds),       cmocka_unit_test(test_joins),
                cmocka_unit_test(test_round_trip),  cmocka_unit_test(test_addresses),
                cmocka_unit_test(test_cap_numbers),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
