"""`make demo` after the build: ends well, shows what it promises, and leaves nothing behind."""
import os
import pathlib
import signal
import subprocess

import pytest

from programs import ROOT, build_dir

ALONE = True  # tests/run: it compares the whole host before and after
DEMO = os.path.join(ROOT, "tools", "demo")


def start(**kw):
    return subprocess.Popen([DEMO], env=dict(os.environ, HVMM_BUILD=build_dir()), text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **kw)


def leftovers():
    return sorted(p.name for p in pathlib.Path("/var/tmp").glob("hvmm-demo.*"))


@pytest.mark.limit(300)
def test_demo(nothing_left):
    demo = start()
    text, _ = demo.communicate(timeout=290)
    assert demo.returncode == 0, text
    assert ('$ tensoronecli create clusters --gpuType "NVIDIA A100" --imageName '
            'tensorone/llm-starter --containerDiskSize 20 --volumeSize 40 --mem 32 '
            '--args "python run.py"\n') in text
    assert "sells memory and disk more than once" in text
    assert "serving on 0.0.0.0:8000" in text, "the cluster's output"
    assert '"text":' in text, "the answer of its HTTP server"
    assert "those of the demo are *simulated*" in text
    inside = text.split("== its GPU, seen from inside")[1].split("== ")[0]
    assert inside.count("UUID: GPU-") == 1 and "simulated" in inside, inside
    assert "gpu.handover" in text
    assert text.rstrip().endswith("done; nothing is left")
    assert leftovers() == []


@pytest.mark.limit(300)
def test_demo_interrupted(nothing_left):
    """^C in the middle cleans up just the same."""
    demo = start(start_new_session=True)
    for line in demo.stdout:
        if line.startswith("== its output"):
            break
    os.killpg(demo.pid, signal.SIGINT)
    text, _ = demo.communicate(timeout=120)
    assert demo.returncode == 130, text
    assert leftovers() == []
