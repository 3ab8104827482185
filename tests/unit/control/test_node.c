/* test_node.c - what an engine says about its GPUs and its NUMA nodes: taken as it is when it is
 * right, refused with the reason when it is not, and never printed as it came. */
#include "control/node/node.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

#include "base/jsonx.h"
#include "base/str.h"

/* ' for ", so that the rows can be read. */
static json_t *parse(const char *text)
{
        AUTO(free) char *copy = strdup(text);
        struct err e = { 0 };
        json_t *j;

        for (char *c = copy; *c; c++)
                if (*c == '\'')
                        *c = '"';
        j = jsonx_parse(copy, strlen(copy), &e);
        if (!j)
                fail_msg("%s: %s", copy, e.msg);
        return j;
}

#define A "'list':[{'uuid':'GPU-a','name':'NVIDIA A10','state':'ok'}]"

static void test_gpus(void **state)
{
        AUTO(json_put)
        json_t *j = parse(
                "{'type':'gpus','list':[{'uuid':'GPU-a','name':'NVIDIA\\u001b[31m A10','state':'ok'},"
                "{'uuid':'GPU-b','name':'NVIDIA A10','state':'unhealthy','reason':'a\\nb'}],"
                "'links':[['X','PIX'],['PIX','X']],'prices':[{'type':'NVIDIA A10','on_demand':1.19,'spot':0.6}]}");
        struct node_gpus g = { 0 }, again = { 0 };
        AUTO(json_put) json_t *back = NULL;

        (void) state;
        assert_int_equal(node_gpus_decode(j, &g, NULL), 0);
        assert_int_equal(g.fleet.n, 2);
        assert_string_equal(g.fleet.gpus[0].name, "NVIDIA?[31m A10");
        assert_string_equal(g.fleet.gpus[1].reason, "a?b");
        assert_int_equal(g.n_prices, 1);
        assert_true(g.prices[0].on_demand > 1.18 && g.prices[0].on_demand < 1.2);
        back = node_gpus_encode(&g);
        assert_int_equal(node_gpus_decode(back, &again, NULL), 0);
        assert_int_equal(again.fleet.links[1].path, GP_PIX);
        assert_string_equal(again.prices[0].type, "NVIDIA A10");
        node_gpus_done(&g);
        node_gpus_done(&again);
}

static void test_gpus_refused(void **state)
{
        static const struct {
                const char *text, *why;
        } t[] = {
                { "{'list':[{'uuid':'../x','name':'n','state':'ok'}]}", "uuid" },
                { "{" A ",'prices':[{'type':'x','on_demand':-1}]}", "on_demand" },
                { "{" A ",'prices':[{'type':'x','on_demand':1e9}]}", "on_demand" },
                { "{" A ",'prices':[{'type':'x','spot':'free'}]}", "spot" },
                { "{" A ",'prices':[{'type':'','spot':1}]}", "type" },
                { "{" A ",'prices':[7]}", "type" },
                { "{" A ",'prices':'x'}", "prices: is no list" },
                { "{'list':'x'}", "list: is no list" },
                { "{" A ",'links':{}}", "links: is no list" },
                { "{" A ",'partitions':7}", "partitions: is no list" },
                { "{" A ",'links':[['X','X']]}", "links" },
                { "{" A ",'partitions':[[0,1]]}", "1 is no GPU" },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                AUTO(json_put) json_t *j = parse(t[i].text);
                struct node_gpus g = { .n_prices = 7 };
                struct err e = { 0 };

                if (node_gpus_decode(j, &g, &e) >= 0 || !strstr(e.msg, t[i].why) || g.n_prices != 7)
                        fail_msg("row %zu: %s", i, e.msg);
        }
}

#define HOST "'memory_mib':1024,'disk_gib':9,'cpus':['0','1','2','3']"

static void test_numa(void **state)
{
        static const struct {
                const char *text, *why; /* NULL: fine */
        } t[] = {
                { "{" HOST "}", NULL },
                { "{" HOST ",'numa':[]}", NULL },
                { "{" HOST ",'numa':[{'node':0,'cpus':['0','1'],'memory_mib':512},"
                  "{'node':1,'cpus':['2','3'],'memory_mib':512}]}",
                  NULL },
                { "{" HOST ",'numa':[{'node':1,'memory_mib':512}]}", NULL }, /* memory alone */
                { "{" HOST ",'numa':[{'node':0,'cpus':['4'],'memory_mib':512}]}", "'4' is no CPU" },
                { "{" HOST ",'numa':[{'node':0,'cpus':['x'],'memory_mib':512}]}", "'x' is no CPU" },
                { "{" HOST ",'numa':[{'node':0,'cpus':['1']},{'node':2,'cpus':['1']}]}",
                  "CPU 1 lies on nodes 0 and 2" },
                { "{" HOST ",'numa':[{'node':0,'cpus':['1','1']}]}",
                  "CPU 1 lies on nodes 0 and 0" },
                { "{" HOST ",'numa':[{'node':0},{'node':0}]}", "node 0 is listed twice" },
                { "{" HOST ",'numa':[{'node':0,'cpus':['x']},{'node':62}]}", NULL }, /* as one */
                { "{" HOST ",'numa':[{'node':-1}]}", "node" },
                { "{" HOST ",'numa':[{'cpus':[]}]}", "node" },
                { "{" HOST ",'numa':['x']}", "numa" },
                { "{" HOST ",'numa':'x'}", "numa: is no list" },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                AUTO(json_put) json_t *j = parse(t[i].text);
                struct node_inventory inv = { 0 };
                struct err e = { 0 };
                int r = node_inventory_decode(j, &inv, &e);

                if ((r < 0) != (t[i].why != NULL) || (t[i].why && !strstr(e.msg, t[i].why)))
                        fail_msg("row %zu: %d %s", i, r, e.msg);
                if (r >= 0)
                        node_inventory_done(&inv);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_gpus),
                cmocka_unit_test(test_gpus_refused),
                cmocka_unit_test(test_numa),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
