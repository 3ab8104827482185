/* choose_tool.c - the chooser on a pipe, for tests against an independent oracle and for benchmarks.
 *
 * Each line of standard input is {"fleet":{...},"ask":[{"free":S,"wanted":W,"keep":S,"k":N},...]}; S is
 * a set as hexadecimal digits, W a wish.  Each answer is a line: "SET SCORE LOSS NODES", or "-ERRNO
 * MESSAGE". */
#include <stdio.h>
#include <stdlib.h>

#include "base/jsonx.h"
#include "base/str.h"
#include "model/gpu_choose.h"

static uint64_t set_of(const json_t *ask, const char *key)
{
        const char *text = jsonx_str(ask, key);
        uint64_t set = 0;

        if (text && str_u64_prefix(text, 16, &set) < 0)
                exit(2);
        return set;
}

static void answer(const struct gpu_chooser *c, const struct gpu_types *types, const json_t *ask)
{
        struct gpu_choice x;
        struct err e = { 0 };
        int r = gpu_choose(c, set_of(ask, "free"), gpu_types_match(types, jsonx_str(ask, "wanted")),
                           set_of(ask, "keep"),
                           (uint32_t) json_integer_value(json_object_get(ask, "k")), &x, &e);

        if (r < 0)
                printf("%d %s\n", r, e.msg);
        else
                printf("%llx %llu %llu %u\n", (unsigned long long) x.set,
                       (unsigned long long) x.score, (unsigned long long) x.loss, x.numa_nodes);
}

static void one(const json_t *j)
{
        struct gpu_fleet f = { 0 };
        struct gpu_types types = { 0 };
        AUTO(gpu_chooser_free) struct gpu_chooser *c = NULL;
        struct err e = { 0 };
        const json_t *ask;
        size_t i;

        if (gpu_fleet_decode(json_object_get(j, "fleet"), &f, &e) < 0 ||
            gpu_types_init(&f, &types, &e) < 0 || gpu_chooser_new(&f, &types, &c, &e) < 0) {
                fprintf(stderr, "choose_tool: %s\n", e.msg);
                exit(1);
        }
        json_array_foreach(json_object_get(j, "ask"), i, ask)
        {
                answer(c, &types, ask);
        }
        gpu_types_done(&types);
        gpu_fleet_done(&f);
}

int main(void)
{
        char *line = NULL;
        size_t cap = 0;

        while (getline(&line, &cap, stdin) > 0) {
                AUTO(json_put) json_t *j = json_loads(line, 0, NULL);

                if (!j)
                        return 2;
                one(j);
        }
        free(line);
        return 0;
}
