/* links.c - how the GPUs are joined: NVLinks, directly or through NVSwitches, the way over PCIe, and
 * whether they reach into each other's memory.
 *
 * Through an NVSwitch every GPU with links to one reaches every other; between two of them there are as
 * many links as the one with fewer has. */
#include <errno.h>
#include <stdlib.h>

#include "gpu/gpud.h"

static const struct {
        unsigned level;
        enum gpu_path path;
} paths[] = {
        { NVML_TOPOLOGY_INTERNAL, GP_PIX }, { NVML_TOPOLOGY_SINGLE, GP_PIX },
        { NVML_TOPOLOGY_MULTIPLE, GP_PXB }, { NVML_TOPOLOGY_HOSTBRIDGE, GP_PHB },
        { NVML_TOPOLOGY_NODE, GP_NODE },    { NVML_TOPOLOGY_SYSTEM, GP_SYS },
};

static bool same_place(const struct nvml_pci *a, const struct nvml_pci *b)
{
        return a->domain == b->domain && a->bus == b->bus && a->device == b->device;
}

static struct gpu_link *link_at(struct gpu_fleet *f, size_t a, size_t b)
{
        return &f->links[a * f->n + b];
}

/* Position of the whole GPU at that address; d->n: none of ours. */
static size_t at_address(const struct gpud *d, const struct nvml_pci *pci)
{
        size_t i = 0;

        while (i < d->n && (d->devs[i].whole != i || !same_place(&d->devs[i].pci, pci)))
                i++;
        return i;
}

static void count_link(struct gpud *d, struct gpu_fleet *f, size_t a, unsigned link)
{
        struct gpud_dev *dev = &d->devs[a];
        unsigned active = 0, type = NVML_LINK_UNKNOWN;
        struct nvml_pci pci = { .domain = UINT32_MAX };
        size_t b = d->n;

        if (NVML(&d->nv, nvmlDeviceGetNvLinkState, dev->handle, link, &active) != NVML_SUCCESS ||
            active != NVML_ENABLED)
                return;
        (void) NVML(&d->nv, nvmlDeviceGetNvLinkRemoteDeviceType, dev->handle, link, &type);
        if (gpud_ok(d, dev, nvml_remote_pci(&d->nv, dev->handle, link, &pci)))
                b = at_address(d, &pci);
        if (b < d->n && b != a)
                link_at(f, a, b)->nvlinks++;
        else if (type == NVML_LINK_SWITCH)
                dev->links_to_switch++;
}

/* What the two ends count may differ for the moment in which a link goes down: the smaller one. */
static void level(struct gpud *d, struct gpu_fleet *f, size_t a, size_t b)
{
        struct gpu_link *x = link_at(f, a, b), *y = link_at(f, b, a);
        unsigned n = x->nvlinks < y->nvlinks ? x->nvlinks : y->nvlinks;
        unsigned s = d->devs[a].links_to_switch < d->devs[b].links_to_switch
                             ? d->devs[a].links_to_switch
                             : d->devs[b].links_to_switch;

        x->nvlinks = y->nvlinks = (uint8_t) (n + s);
}

static void find_path(struct gpud *d, struct gpu_fleet *f, size_t a, size_t b)
{
        unsigned levels = UINT32_MAX;

        if (NVML(&d->nv, nvmlDeviceGetTopologyCommonAncestor, d->devs[a].handle, d->devs[b].handle,
                 &levels) != NVML_SUCCESS)
                return;
        for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
                if (paths[i].level == levels)
                        link_at(f, a, b)->path = link_at(f, b, a)->path = (uint8_t) paths[i].path;
}

/* Both ways must be open; else the reason of the first that is not. */
static void find_p2p(struct gpud *d, struct gpu_fleet *f, size_t a, size_t b)
{
        static const enum nvml_p2p_status of[GPP_COUNT] = {
                [GPP_UNKNOWN] = NVML_P2P_UNKNOWN,   [GPP_OK] = NVML_P2P_OK,
                [GPP_CHIPSET] = NVML_P2P_CHIPSET,   [GPP_GPU] = NVML_P2P_GPU,
                [GPP_TOPOLOGY] = NVML_P2P_IOH,      [GPP_DISABLED] = NVML_P2P_REGKEY,
                [GPP_NOT] = NVML_P2P_NOT_SUPPORTED,
        };
        static const unsigned ways[] = { NVML_P2P_READ, NVML_P2P_WRITE };
        unsigned status = NVML_P2P_OK;

        for (size_t i = 0; i < sizeof ways / sizeof *ways && status == NVML_P2P_OK; i++)
                if (NVML(&d->nv, nvmlDeviceGetP2PStatus, d->devs[a].handle, d->devs[b].handle,
                         ways[i], &status) != NVML_SUCCESS)
                        return;
        for (uint8_t i = 0; i < GPP_COUNT; i++)
                if (of[i] == status)
                        link_at(f, a, b)->p2p = link_at(f, b, a)->p2p = i;
}

size_t gpud_partitions(uint64_t joined, uint64_t *ret)
{
        unsigned order[GPU_MAX], k = 0;
        size_t n = 0;

        for (unsigned i = 0; i < GPU_MAX; i++)
                if (joined >> i & 1)
                        order[k++] = i;
        if (k < 2)
                return 0;
        for (unsigned size = 1; size <= 8 && size < k; size *= 2)
                for (unsigned at = 0; at + size <= k; at += size) {
                        ret[n] = 0;
                        for (unsigned i = at; i < at + size; i++)
                                ret[n] |= 1ULL << order[i];
                        n++;
                }
        ret[n++] = joined;
        return n;
}

static int fill_partitions(const struct gpud *d, struct gpu_fleet *f)
{
        uint64_t joined = 0;

        for (size_t i = 0; i < d->n; i++)
                if (d->devs[i].links_to_switch)
                        joined |= 1ULL << i;
        f->partitions = calloc(2 * GPU_MAX, sizeof *f->partitions);
        if (!f->partitions)
                return -ENOMEM;
        f->n_partitions = gpud_partitions(joined, f->partitions);
        return 0;
}

int gpud_links(struct gpud *d, struct gpu_fleet *f)
{
        f->links = calloc(f->n * f->n + 1, sizeof *f->links);
        if (!f->links)
                return -ENOMEM;
        for (size_t a = 0; a < f->n; a++) {
                struct gpud_dev *dev = &d->devs[a];

                dev->links_to_switch = 0;
                if (dev->whole != a)
                        continue; /* instances have no links */
                link_at(f, a, a)->path = GP_SELF;
                gpud_at(d, dev->info.uuid, "nvmlDeviceGetNvLinkState");
                for (unsigned link = 0; link < NVML_NVLINKS_MAX; link++)
                        count_link(d, f, a, link);
        }
        for (size_t a = 0; a < f->n; a++)
                for (size_t b = a + 1; b < f->n; b++)
                        if (d->devs[a].whole == a && d->devs[b].whole == b) {
                                level(d, f, a, b);
                                gpud_at(d, d->devs[a].info.uuid,
                                        "nvmlDeviceGetTopologyCommonAncestor");
                                find_path(d, f, a, b);
                                gpud_at(d, d->devs[a].info.uuid, "nvmlDeviceGetP2PStatus");
                                find_p2p(d, f, a, b);
                        }
        return fill_partitions(d, f);
}
