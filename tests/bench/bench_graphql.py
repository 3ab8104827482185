"""B=graphql: what one core does with GraphQL, HTTP body to answer, without the HTTP server.

runpodctl's `myPods` over 20 pods in memory; medians of 20 runs.  No C library for GraphQL exists to
compare with."""

import os
import pathlib
import statistics
import subprocess

RUNS = 20


def run(figures):
    program = pathlib.Path(os.environ["HVMM_BUILD"]) / "tests/unit/control/bench_graphql"
    values = {}
    for _ in range(RUNS):
        out = subprocess.run([program, "200ms"], check=True, capture_output=True, text=True).stdout
        for line in out.splitlines():
            name, value, unit = line.split()
            values.setdefault((name, unit), []).append(float(value))
    for (name, unit), seen in values.items():
        figures.add(name, statistics.median(seen), unit)
