/* fuzz_fleet.c - libFuzzer target for the description of a simulated GPU fleet (src/model/gpu_sim.c), which
 * the engine reads as root.
 *
 * Checked beside memory errors: what is accepted holds only words that are safe as file names and lines of
 * a tree's files, keeps its limits, and, written into those files and read again, is the same. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "model/gpu_sim.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(x)                                                                                   \
        do {                                                                                       \
                if (!(x))                                                                          \
                        __builtin_trap();                                                          \
        } while (0)

static void check_word(const char *s, size_t size)
{
        CHECK(memchr(s, '\0', size));
        CHECK(strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-_+") ==
              strlen(s));
}

static void check_gpu(const struct gpu_sim *s, uint32_t i)
{
        static struct gpu_sim again;
        const struct gpu_sim_gpu *g = &s->gpus[i];
        char lines[4096];
        struct gpu_sim_gpu a = *g, b;

        CHECK(g->model < s->n_models && g->n_peers <= GPU_SIM_PEERS);
        check_word(g->uuid, sizeof g->uuid);
        check_word(g->serial, sizeof g->serial);
        check_word(s->models[g->model].vbios, sizeof s->models[0].vbios);
        for (uint32_t k = 0; k < s->n_gpus; k++) {
                CHECK(gpu_sim_level(g, &s->gpus[k]) == gpu_sim_level(&s->gpus[k], g));
                CHECK(gpu_sim_nvlinks(s, g, &s->gpus[k]) == gpu_sim_nvlinks(s, &s->gpus[k], g));
        }
        CHECK(gpu_sim_gpu_lines(s, i, "", lines, sizeof lines) > 0);
        CHECK(gpu_sim_parse(lines, NULL, true, &again, NULL) == 0 && again.n_gpus == 1);
        b = again.gpus[0];
        a.model = b.model = 0;
        CHECK(memcmp(&a, &b, sizeof a) == 0);
        CHECK(memcmp(&s->models[g->model], &again.models[0], sizeof again.models[0]) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        static struct gpu_sim s;
        char *text = malloc(size + 1);
        struct err e = { .code = 0 };
        int r;

        CHECK(text);
        memcpy(text, data, size);
        text[size] = '\0';
        r = gpu_sim_parse(text, "seed", false, &s, &e);
        if (r < 0)
                CHECK(e.code == r && e.msg[0]);
        CHECK(r < 0 || (s.n_gpus <= GPU_SIM_MAX && s.n_migs <= GPU_SIM_MAX && s.driver[0]));
        for (uint32_t i = 0; r >= 0 && i < s.n_gpus; i++)
                check_gpu(&s, i);
        for (uint32_t i = 0; r >= 0 && i < s.n_migs; i++) {
                CHECK(s.migs[i].gpu < s.n_gpus);
                check_word(s.migs[i].profile, sizeof s.migs[i].profile);
                check_word(s.migs[i].uuid, sizeof s.migs[i].uuid);
        }
        free(text);
        return 0;
}
