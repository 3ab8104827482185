"""Choosing GPUs: the slowest of many thousand cases, and the usual one beside a plain full enumeration."""
import os
import subprocess


def run(figures):
    program = os.path.join(os.environ["HVMM_BUILD"], "tests/unit/model/bench_gpu_choose")
    for line in subprocess.run([program], check=True, capture_output=True, text=True).stdout.splitlines():
        name, *values = line.split()
        values = [float(v) for v in values]
        if len(values) == 1:
            figures.add("gpu.%s_us" % name, values[0], "us")
            continue
        worst, median, peer = values
        figures.add("gpu.%s_us" % name, worst, "us")
        figures.add("gpu.%s_median_us" % name, median, "us", "full enumeration", peer)
