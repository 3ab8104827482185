"""tests/gpu/run is for machines with a GPU; here everything of it that needs none runs, with the
simulated driver, so that it works on the day when it is needed."""
import os
import re
import subprocess
import sys

import host as hosts


def test_simulated():
    done = subprocess.run([str(hosts.ROOT / "tests/gpu/run"), "--simulated", "--build",
                           str(hosts.BUILD)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, timeout=300, check=False)
    sys.stdout.write(done.stdout)
    assert done.returncode == 0
    lines = done.stdout.strip().split("\n")
    assert re.fullmatch(r"\d+ ok, 0 failed, 2 skipped \(simulated\)", lines[-1]), lines[-1]
    results = [line for line in lines if line.startswith(("ok ", "skipped "))]
    assert len(results) >= 14 and all("(simulated)" in line for line in results)
    assert all(line.split(": ", 1)[1] for line in results if line.startswith("skipped"))


def test_without_a_driver():
    """It says what is missing; it does not report success."""
    assert not os.path.exists("/proc/driver/nvidia/version"), "run tests/gpu/run itself here"
    done = subprocess.run([str(hosts.ROOT / "tests/gpu/run"), "--build", str(hosts.BUILD)],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60,
                          check=False)
    assert done.returncode != 0 and "no NVIDIA driver is loaded here" in done.stderr
