/* fuzz_gpuhost.c - libFuzzer target for what the engine reads from vmm-gpu: a stream of JSON objects, one
 * a line, that are taken as fleets, events, answers and measurements one after another.
 *
 * Checked beside memory errors: what is accepted is what others may open files by and show on terminals,
 * and a fleet that follows another keeps every GPU but instances that were taken apart. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/jsonx.h"
#include "base/str.h"
#include "engine/gpu/gpuhost_priv.h"
#include "model/gpu_telemetry.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(x)                                                                                   \
        do {                                                                                       \
                if (!(x)) {                                                                        \
                        fprintf(stderr, "fuzz_gpuhost: %s\n", #x);                                 \
                        __builtin_trap();                                                          \
                }                                                                                  \
        } while (0)

static bool is_tame(const char *s)
{
        for (; s && *s; s++)
                if ((unsigned char) *s < 0x20 || *s == 0x7f)
                        return false;
        return true;
}

static void check_gpu(const struct gpu *g)
{
        CHECK(gpu_uuid_ok(g->uuid) && !strchr(g->uuid, '/'));
        CHECK(g->pci && strlen(g->pci) == 16 && strspn(g->pci, "0123456789abcdef:.") == 16);
        CHECK(!g->mig_profile || (!strchr(g->mig_profile, '/') && *g->mig_profile));
        CHECK(g->minor <= 255 && (g->state == GS_OK || g->state == GS_UNHEALTHY));
        CHECK(is_tame(g->name) && is_tame(g->reason) && is_tame(g->serial) && is_tame(g->vbios));
}

static void check_merge(const struct gpu_fleet *was, const struct gpu_fleet *now,
                        const struct gpu_fleet *ret)
{
        CHECK(ret->n >= now->n && ret->n <= GPU_MAX);
        for (size_t i = 0; i < now->n; i++)
                CHECK(gpu_fleet_find(ret, now->gpus[i].uuid));
        for (size_t i = 0; i < was->n; i++)
                if (!was->gpus[i].parent && was->n + now->n <= GPU_MAX)
                        CHECK(gpu_fleet_find(ret, was->gpus[i].uuid));
        for (size_t a = 0; a < ret->n; a++)
                for (size_t b = 0; b < ret->n; b++)
                        CHECK(memcmp(&ret->links[a * ret->n + b], &ret->links[b * ret->n + a],
                                     sizeof *ret->links) == 0);
        for (size_t i = 0; i < ret->n_partitions; i++)
                CHECK(ret->partitions[i] && (ret->n == 64 || ret->partitions[i] >> ret->n == 0));
}

static void fleet(const json_t *j, struct gpu_fleet *was)
{
        struct gpu_fleet now, next;

        if (gpu_words_fleet(j, &now, NULL) < 0)
                return;
        for (size_t i = 0; i < now.n; i++)
                check_gpu(&now.gpus[i]);
        CHECK(is_tame(now.note) && is_tame(now.driver_version));
        if (gpu_fleet_merge(was, &now, &next) >= 0) {
                check_merge(was, &now, &next);
                gpu_fleet_done(was);
                *was = next;
        }
        gpu_fleet_done(&now);
}

static void others(const json_t *j)
{
        struct gpu_word_event ev;
        struct gpu_telemetry t;
        json_t *row = gpu_words_checked(json_object_get(j, "gpus"), "GPU-1");

        CHECK(row && str_eq(jsonx_str(row, "uuid"), "GPU-1"));
        CHECK(json_is_boolean(json_object_get(row, "present")));
        CHECK(is_tame(jsonx_str(row, "vbios")) && json_object_size(row) <= 11);
        json_decref(row);
        if (gpu_words_event(j, &ev, NULL) >= 0)
                CHECK(gpu_uuid_ok(ev.uuid) && is_tame(ev.text) && *ev.kind);
        if (gpu_telemetry_decode(j, &t, NULL) >= 0)
                json_decref(gpu_telemetry_encode(&t));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct gpu_fleet was = { 0 };

        while (size > 0) {
                const uint8_t *end = memchr(data, '\n', size);
                size_t n = end ? (size_t) (end - data) : size;
                json_t *j = jsonx_parse((const char *) data, n, NULL);

                if (j) {
                        fleet(j, &was);
                        others(j);
                }
                json_decref(j);
                n += end != NULL;
                data += n;
                size -= n;
        }
        gpu_fleet_done(&was);
        return 0;
}
