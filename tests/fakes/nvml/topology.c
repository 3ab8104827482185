/* topology.c - the calls that say how GPUs are joined: NVLinks, PCIe, peer access. */
#include "fake.h"

#include <stdio.h>
#include <string.h>

/* What is at the other end of this link: the address and what it is; NVML_NOT_SUPPORTED without links,
 * NVML_INVALID_ARGUMENT where there is none of this number. */
struct end {
        struct gpu_sim_pci pci;
        unsigned type;
        bool is_up;
};

static int link_end(const struct nvml_device *d, unsigned link, struct end *ret)
{
        const struct gpu_sim_gpu *g = gpu_of(d);
        const struct gpu_sim_model *m = model_of(d);
        uint32_t at = 0;

        if (!m->links)
                return NVML_NOT_SUPPORTED;
        if (link >= m->links)
                return NVML_INVALID_ARGUMENT;
        *ret = (struct end){ .type = NVML_LINK_UNKNOWN };
        if (g->fabric != GPU_SIM_NONE) {
                *ret = (struct end){ .pci = { g->pci.domain,
                                              0xf0 + g->fabric % 2 * 8 + link % GPU_SIM_SWITCHES,
                                              0 },
                                     .type = NVML_LINK_SWITCH,
                                     .is_up = true };
                return NVML_SUCCESS;
        }
        for (uint32_t i = 0; i < g->n_peers; i++) {
                if (link >= at && link < at + g->peers[i].links)
                        *ret = (struct end){ g->peers[i].pci, NVML_LINK_GPU, true };
                at += g->peers[i].links;
        }
        return NVML_SUCCESS;
}

int nvmlDeviceGetNvLinkState(struct nvml_device *device, unsigned link, unsigned *active)
{
        struct end end;
        int r = begin_whole("nvmlDeviceGetNvLinkState", device);

        if (!r)
                r = link_end(device, link, &end);
        if (!r)
                *active = end.is_up ? NVML_ENABLED : NVML_DISABLED;
        return r;
}

int nvmlDeviceGetNvLinkVersion(struct nvml_device *device, unsigned link, unsigned *version)
{
        struct end end;
        int r = begin_whole("nvmlDeviceGetNvLinkVersion", device);

        if (!r)
                r = link_end(device, link, &end);
        if (!r)
                *version = model_of(device)->nvlink;
        return r;
}

int nvmlDeviceGetNvLinkRemoteDeviceType(struct nvml_device *device, unsigned link, unsigned *type)
{
        struct end end;
        int r = begin_whole("nvmlDeviceGetNvLinkRemoteDeviceType", device);

        if (!r)
                r = link_end(device, link, &end);
        if (!r && !end.is_up)
                r = NVML_NOT_SUPPORTED;
        if (!r)
                *type = end.type;
        return r;
}

int nvmlDeviceGetNvLinkRemotePciInfo_v2(struct nvml_device *device, unsigned link,
                                        struct nvml_pci *pci)
{
        struct end end;
        int r = begin_whole("nvmlDeviceGetNvLinkRemotePciInfo_v2", device);

        if (!r)
                r = link_end(device, link, &end);
        if (!r && !end.is_up)
                r = NVML_NOT_SUPPORTED;
        if (r)
                return r;
        *pci = (struct nvml_pci){ .domain = end.pci.domain,
                                  .bus = end.pci.bus,
                                  .device = end.pci.slot,
                                  .device_id = 0x10de };
        (void) snprintf(pci->bus_id_legacy, sizeof pci->bus_id_legacy, "%04X:%02X:%02X.0",
                        end.pci.domain & 0xffff, end.pci.bus & 0xff, end.pci.slot & 0x1f);
        (void) snprintf(pci->bus_id, sizeof pci->bus_id, "%08X:%02X:%02X.0", end.pci.domain,
                        end.pci.bus & 0xff, end.pci.slot & 0x1f);
        return NVML_SUCCESS;
}

int nvmlDeviceGetNvLinkRemotePciInfo(struct nvml_device *device, unsigned link,
                                     struct nvml_pci_v2 *pci)
{
        struct nvml_pci now;
        int r = nvmlDeviceGetNvLinkRemotePciInfo_v2(device, link, &now);

        if (r)
                return r;
        *pci = (struct nvml_pci_v2){ .domain = now.domain,
                                     .bus = now.bus,
                                     .device = now.device,
                                     .device_id = now.device_id };
        memcpy(pci->bus_id, now.bus_id_legacy, sizeof pci->bus_id);
        return NVML_SUCCESS;
}

static int begin_pair(const char *call, const struct nvml_device *a, const struct nvml_device *b)
{
        int r = begin_whole(call, a);

        return r ? r : begin_whole(call, b);
}

int nvmlDeviceGetTopologyCommonAncestor(struct nvml_device *a, struct nvml_device *b,
                                        unsigned *level)
{
        int r = begin_pair("nvmlDeviceGetTopologyCommonAncestor", a, b);

        if (!r)
                *level = a == b ? NVML_TOPOLOGY_INTERNAL : gpu_sim_level(gpu_of(a), gpu_of(b));
        return r;
}

int nvmlDeviceGetP2PStatus(struct nvml_device *a, struct nvml_device *b, unsigned what,
                           unsigned *status)
{
        int r = begin_pair("nvmlDeviceGetP2PStatus", a, b);
        bool linked, near;

        if (r)
                return r;
        if (what > NVML_P2P_PCI || a == b)
                return NVML_INVALID_ARGUMENT;
        linked = gpu_sim_nvlinks(&world.sim, gpu_of(a), gpu_of(b)) > 0;
        near = !model_of(a)->display && gpu_sim_level(gpu_of(a), gpu_of(b)) < NVML_TOPOLOGY_SYSTEM;
        if (gpu_of(a)->mig || gpu_of(b)->mig)
                *status = NVML_P2P_NOT_SUPPORTED;
        else if (linked || (what != NVML_P2P_NVLINK && near))
                *status = NVML_P2P_OK;
        else
                *status = what == NVML_P2P_NVLINK ? NVML_P2P_NOT_SUPPORTED : NVML_P2P_CHIPSET;
        return NVML_SUCCESS;
}
