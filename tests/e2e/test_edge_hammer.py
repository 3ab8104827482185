"""tests/edge/hammer for a while: no answer comes from another cluster than the one that was asked."""
import json
import os
import pathlib
import subprocess
import sys

import host

HAMMER = pathlib.Path(__file__).resolve().parents[1] / "edge" / "hammer"


def test_no_request_reaches_another_cluster():
    done = subprocess.run([sys.executable, HAMMER, "--cycles", "150", "--clients", "12", "--seconds", "20"],
                          env={**os.environ, "HVMM_BUILD": str(host.BUILD)}, capture_output=True, text=True,
                          timeout=110 * host.SLOW, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    result = json.loads(done.stdout)
    assert result["wrong"] == 0 and result["sees"]
    assert result["cycles"] >= 5 and result["answers"].get("200", 0) > 0 and result["answers"].get("404", 0) > 0, result
