"""What GPUs cost the host, against the simulated driver. One function per figure; run() calls each.

gpu.helper_cpu_pct   CPU of vmm-gpu at 8 GPUs and one look a second, in percent of a core; the driver's own part
                     of it is the stand-in's, so this is the price of our program and its messages
gpu.engine_cpu_pct   what the engine spends meanwhile, with nothing else to do
gpu.choose_...      the best set of free GPUs: bench_gpu_choose.py
gpu.bind8_ms         what 8 GPUs add to a boot: boots with none and with 8 by turns, medians of the engine's
                     own boot_us
gpu.bind1_ms         the same for one
gpu.hang_replaced_s  from a driver call that does not come back to the next measurement of the other GPUs
"""
import glob
import re
import statistics
import time

import bench_gpu_choose
import host

QUIET = {"cpu_overcommit": 100, "memory_overcommit": 10, "disk_overcommit": 10}
SECONDS = 20
BOOTS = 60


def cpu_s(pid):
    """By the scheduler's own clock: a tick is too coarse for so little."""
    with open("/proc/%d/schedstat" % pid, encoding="utf-8") as f:
        return int(f.read().split()[0]) / 1e9


def child(parent, name):
    with open("/proc/%d/task/%d/children" % (parent, parent), encoding="utf-8") as f:
        for pid in map(int, f.read().split()):
            with open("/proc/%d/comm" % pid, encoding="utf-8") as comm:
                if comm.read().strip() == name:
                    return pid
    raise RuntimeError("there is no %s" % name)


def simulated(fleet):
    """A host with such GPUs; `with` it."""
    return host.Host(config={"engine": dict(QUIET, gpu_driver="simulated:" + fleet)})


def helper_cpu(figures):
    with simulated("a100x8") as h:
        pid = child(h.proc.pid, "vmm-gpu")
        time.sleep(3)
        before, engine, began = cpu_s(pid), cpu_s(h.proc.pid), time.monotonic()
        time.sleep(SECONDS)
        took = time.monotonic() - began
        assert child(h.proc.pid, "vmm-gpu") == pid
        figures.add("gpu.helper_cpu_pct", 100 * (cpu_s(pid) - before) / took, "%")
        figures.add("gpu.engine_cpu_pct", 100 * (cpu_s(h.proc.pid) - engine) / took, "%")


def hang_replaced(figures):
    with simulated("a100x8") as h:
        instance = (h.data / "instance").read_text().strip()
        faults = host.RUN / instance / "simulated" / "faults"
        pid = child(h.proc.pid, "vmm-gpu")
        faults.write_text("hang 5 nvmlDeviceGetUtilizationRates\n")
        began = time.monotonic()
        while time.monotonic() - began < 15:
            try:
                now = child(h.proc.pid, "vmm-gpu")
            except RuntimeError:
                now = pid
            if now != pid:
                break
            time.sleep(0.01)
        figures.add("gpu.hang_replaced_s", time.monotonic() - began, "s")
        faults.write_text("")


def boot_ms(node, name, uuids):
    more = {"gpu_count": len(uuids), "gpus": uuids} if uuids else {}
    node.assign(name, ["sleep", "1000"], **more)
    report, _ = node.until(lambda m: m.get("cluster") == name and m.get("state") in ("running", "exited"))
    assert report["state"] == "running", report
    node.remove(name)
    time.sleep(0.05)  # the pool fills up again
    return report["boot_us"] / 1000


def bind(figures):
    config = dict(QUIET, gpu_driver="simulated:a100x8", pool_networks=64, pool_disks=64, log_level="warning")
    with host.Host(config={"engine": config}) as h:
        h.import_image("tensorone/starter")
        files = glob.glob("/proc/%d/root/run/hypervisor-vmm/%s/driver/proc/driver/nvidia/gpus/*/information"
                          % (h.pid, h.id))
        uuids = [re.search(r"GPU UUID:\s*(\S+)", open(f, encoding="utf-8").read())[1] for f in sorted(files)]
        time.sleep(3)
        took = {0: [], 1: [], 8: []}
        with host.our_node(h) as node:
            for i in range(BOOTS):
                for n, times in took.items():
                    times.append(boot_ms(node, "g%dx%d" % (n, i), uuids[:n]))
        base = statistics.median(took[0][5:])
        for n in (1, 8):
            figures.add("gpu.bind%d_ms" % n, statistics.median(took[n][5:]) - base, "ms")


def run(figures):
    bench_gpu_choose.run(figures)
    helper_cpu(figures)
    bind(figures)
    hang_replaced(figures)
