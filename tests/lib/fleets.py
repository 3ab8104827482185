"""fleets.py - hosts' GPUs as an engine names them (docs/gpu.md), for tests of the control plane."""


def gpu(i, name, memory_mib, numa, **more):
    g = {"uuid": "GPU-%08x-0000-4000-8000-%012x" % (i, i), "name": name, "index": i, "minor": i,
         "pci": "00000000:%02x:00.0" % (7 + 8 * i), "memory_mib": memory_mib, "numa_node": numa, "state": "ok",
         "reason": "", "serial": "13219%05d" % i, "vbios": "92.00.45.00.03", "inforom": "G506.0200.00.04",
         "mig_mode": False, "ecc": True}
    g.update(more)
    return g


def fleet(gpus, link, **more):
    """@link(a, b): how two positions are joined."""
    n = range(len(gpus))
    return {"driver_version": "550.54.15", "cuda_version": "12.4", "simulated": False, "note": "", "list": gpus,
            "links": [["X" if a == b else link(min(a, b), max(a, b)) for b in n] for a in n],
            "partitions": [], **more}


def a100x8(**more):
    """NVSwitch: any pair has 12 links, and the fabric is divided into halves, quarters and pairs."""
    gpus = [gpu(i, "NVIDIA A100-SXM4-80GB", 81920, i // 4) for i in range(8)]
    parts = [list(range(8)), [0, 1, 2, 3], [4, 5, 6, 7], [0, 1], [2, 3], [4, 5], [6, 7]]
    return fleet(gpus, lambda a, b: "NV12/" + ("NODE" if a // 4 == b // 4 else "SYS"), partitions=parts, **more)


def rtx3090x4(**more):
    gpus = [gpu(i, "NVIDIA GeForce RTX 3090", 24576, i // 2, ecc=False) for i in range(4)]
    return fleet(gpus, lambda a, b: "NV4/PHB" if a // 2 == b // 2 else "SYS", **more)


def a100mig(**more):
    """One whole GPU, one that is divided into seven."""
    gpus = [gpu(0, "NVIDIA A100-SXM4-80GB", 81920, 0),
            gpu(1, "NVIDIA A100-SXM4-80GB", 81920, 0, mig_mode=True)]
    for k in range(7):
        gpus.append(gpu(1, "NVIDIA A100-SXM4-80GB MIG 1g.10gb", 9728, 0, mig_profile="1g.10gb", gi=7 + k, ci=0,
                        uuid="MIG-%08x-0000-4000-8000-%012x" % (k, k), parent=gpus[1]["uuid"]))
    return fleet(gpus, lambda a, b: "NODE" if b < 2 else "", **more)


def numbers(uuid, **more):
    """What is measured of one GPU."""
    return {"uuid": uuid, "util_pct": 37, "mem_util_pct": 12, "memory_used_mib": 20480, "memory_total_mib": 81920,
            "memory_reserved_mib": 512, "temperature_c": 54, "power_mw": 251500, "power_limit_mw": 400000,
            "energy_mj": 123456789, "sm_clock_mhz": 1410, "ecc_corrected": 0, "xid": 0, "processes": 1, **more}
