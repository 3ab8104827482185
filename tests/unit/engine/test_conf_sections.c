/* test_conf_sections.c - the configuration's sections that carry a label: registries and what GPUs
 * cost. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "base/jsonx.h"
#include "base/str.h"
#include "engine/instance.h"

static void test_prices(void **state)
{
        static const struct {
                const char *label, *key, *value;
        } lines[] = {
                { "NVIDIA A100-SXM4-80GB", NULL, NULL },
                { "NVIDIA A100-SXM4-80GB", "on_demand", "1.19" },
                { "NVIDIA A100-SXM4-80GB", "spot", ".6" },
                { "NVIDIA GeForce RTX 4090", NULL, NULL },
                { "NVIDIA GeForce RTX 4090", "on_demand", "0.34" },
                { "NVIDIA A100-SXM4-80GB", "on_demand", "1.29" }, /* the last one counts */
        };
        struct instance i = { 0 };
        struct err e = { 0 };
        json_t *list, *one;

        (void) state;
        for (size_t k = 0; k < NELEM(lines); k++)
                if (instance_labelled(&i, "gpu", lines[k].label, lines[k].key, lines[k].value, &e) <
                    0)
                        fail_msg("%s", e.msg);
        assert_int_equal(instance_labelled(&i, "registry", "127.0.0.1:5000", "insecure", "yes", &e),
                         0);
        assert_int_equal(i.n_registries, 1);
        assert_true(i.registries[0].insecure);
        list = instance_prices(&i);
        assert_int_equal(json_array_size(list), 2);
        one = json_array_get(list, 0);
        assert_string_equal(jsonx_str(one, "type"), "NVIDIA A100-SXM4-80GB");
        assert_true(json_real_value(json_object_get(one, "on_demand")) == 1.29);
        assert_true(json_real_value(json_object_get(one, "spot")) == 0.6);
        assert_true(json_real_value(json_object_get(json_array_get(list, 1), "spot")) == 0);
        json_decref(list);
        instance_labelled_done(&i);
}

static void test_refused(void **state)
{
        static const struct {
                const char *section, *label, *key, *value, *says;
        } rows[] = {
                { "gpu", "A", "on_demand", "cheap",
                  "[gpu \"A\"] on_demand = cheap: must be a number of dollars" },
                { "gpu", "A", "on_demand", "-1", "[gpu \"A\"] on_demand = -1: must be" },
                { "gpu", "A", "on_demand", "1,19", "must be a number of dollars" },
                { "gpu", "A", "spot", "nan", "must be a number of dollars" },
                { "gpu", "A", "spot", "1e400", "must be a number of dollars" },
                { "gpu", "A", "spot", "0x10", "must be a number of dollars" },
                { "gpu", "A", "spot", "", "must be a number of dollars" },
                { "gpu", "A", "spot", "1000001", "from 0 to 1000000" },
                { "gpu", "A", "price", "1", "[gpu \"A\"] price: there is no such option" },
                { "gpu", "", NULL, NULL, "[gpu \"\"]: TYPE has 1 to 255 characters" },
                { "gpus", "A", NULL, NULL, "[gpus \"A\"]: there is no such section" },
                { "registry", "", NULL, NULL, "HOST[:PORT] has 1 to 255" },
        };

        (void) state;
        for (size_t k = 0; k < NELEM(rows); k++) {
                struct instance i = { 0 };
                struct err e = { 0 };

                assert_true(instance_labelled(&i, rows[k].section, rows[k].label, rows[k].key,
                                              rows[k].value, &e) < 0);
                if (!strstr(e.msg, rows[k].says))
                        fail_msg("'%s' does not say '%s'", e.msg, rows[k].says);
                instance_labelled_done(&i);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_prices),
                cmocka_unit_test(test_refused),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
