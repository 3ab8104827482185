/* place.c - see place.h.  Pure; control plane. */
#include "model/place.h"

#include <errno.h>
#include <stdio.h>

/* What is left of @total stretched by @factor. */
static uint64_t left(uint64_t total, double factor, uint64_t taken)
{
        double all = (double) total * (factor < 1.0 ? 1.0 : factor);

        return all <= (double) taken ? 0 : (uint64_t) all - taken;
}

static enum place_limit check_gpus(const struct place_node *n, const struct place_want *w,
                                   struct err *e)
{
        uint32_t free_gpus = n->n_gpus > n->gpus_taken ? n->n_gpus - n->gpus_taken : 0;

        if (w->gpu_count <= free_gpus)
                return PLACE_OK;
        if (n->n_gpus == 0)
                (void) err_set(
                        e, -ENOSPC,
                        "gpuCount: %u x %s wanted, this host has no GPU%s%s%s; gpuCount 0 would fit",
                        w->gpu_count, w->gpu_type ? w->gpu_type : "GPU", n->gpu_note ? " (" : "",
                        n->gpu_note ? n->gpu_note : "", n->gpu_note ? ")" : "");
        else
                (void) err_set(e, -ENOSPC, "gpuCount: %u x %s wanted, %u of %u free", w->gpu_count,
                               w->gpu_type ? w->gpu_type : "GPU", free_gpus, n->n_gpus);
        return PLACE_GPU;
}

static enum place_limit choose_cpus(const struct place_node *n, const struct place_want *w,
                                    size_t *ret_cpus, struct err *e)
{
        size_t free_cpus = 0, got = 0;

        if (place_shares_cpus(n)) {
                free_cpus = left(n->n_cpus, n->cpu_overcommit, n->vcpu_taken);
        } else {
                for (size_t i = 0; i < n->n_cpus; i++)
                        free_cpus += !n->cpu_taken[i];
        }
        if (w->vcpu > free_cpus) {
                char elsewhere[64] = "";

                if (n->cpus_elsewhere)
                        (void) snprintf(elsewhere, sizeof elsewhere,
                                        ", %zu held by other hosts on this machine",
                                        n->cpus_elsewhere);
                (void) err_set(
                        e, -ENOSPC,
                        "minVcpuCount: %u vCPUs wanted, %zu free on a host of %zu (cpu_overcommit %g%s)",
                        w->vcpu, free_cpus, n->n_cpus, n->cpu_overcommit, elsewhere);
                return PLACE_CPU;
        }
        for (size_t i = 0; !place_shares_cpus(n) && i < n->n_cpus && got < w->vcpu; i++)
                if (!n->cpu_taken[i])
                        ret_cpus[got++] = i;
        return PLACE_OK;
}

enum place_limit place_choose(const struct place_node *n, const struct place_want *w,
                              size_t *ret_cpus, struct err *e)
{
        uint64_t memory = left(n->memory_mib, n->memory_overcommit, n->memory_taken_mib);
        uint64_t disk = left(n->disk_gib, n->disk_overcommit, n->disk_taken_gib);
        enum place_limit l = check_gpus(n, w, e);

        if (l == PLACE_OK)
                l = choose_cpus(n, w, ret_cpus, e);
        if (l != PLACE_OK)
                return l;
        if (w->memory_mib > memory) {
                (void) err_set(
                        e, -ENOSPC,
                        "minMemoryInGb: %llu GB wanted, %llu GB free on a host of %llu (memory_overcommit %g)",
                        (unsigned long long) (w->memory_mib + 1023) / 1024,
                        (unsigned long long) memory / 1024,
                        (unsigned long long) n->memory_mib / 1024, n->memory_overcommit);
                return PLACE_MEMORY;
        }
        if (w->disk_gib > disk) {
                (void) err_set(
                        e, -ENOSPC,
                        "containerDiskInGb + volumeInGb: %llu GB wanted, %llu GB free on a host of %llu (disk_overcommit %g)",
                        (unsigned long long) w->disk_gib, (unsigned long long) disk,
                        (unsigned long long) n->disk_gib, n->disk_overcommit);
                return PLACE_DISK;
        }
        return PLACE_OK;
}
