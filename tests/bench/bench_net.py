"""What a cluster's network costs: made ahead (prepare), on the boot path (bind), after (release).

Median and 99th percentile of 400 rounds, each of which ends a namespace, while 100 other clusters
are up.  Root; in namespaces of its own."""
import os
import subprocess


def run(figures):
    program = os.path.join(os.environ["HVMM_BUILD"], "tests/flow/net/bench_net")
    out = subprocess.run([program, "400"], check=True, capture_output=True, text=True, timeout=300)
    for line in out.stdout.splitlines():
        name, value, unit = line.split()
        figures.add(name, float(value), unit)
