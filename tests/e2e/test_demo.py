"""`make demo` after the build: ends well, shows what it promises, and leaves nothing behind."""
import json
import os
import pathlib
import re
import signal
import socket
import subprocess

import pytest

from programs import ROOT, build_dir

ALONE = True  # tests/run: it compares the whole host before and after
DEMO = os.path.join(ROOT, "tools", "demo")


def start(more=(), **kw):
    return subprocess.Popen([DEMO], env=dict(os.environ, HVMM_BUILD=build_dir(), **dict(more)), text=True,
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
    request = text.split("HTTPS, with the host's own authority\n")[1].splitlines()
    assert re.fullmatch(r'\$ curl --cacert \S+/edge/ca\.pem "https://[a-z0-9]+-8000\.proxy\.localhost:\d+/generate\?prompt=\S+"', request[0])
    answer = json.loads(request[1])
    assert answer["prompt"] == "A cluster" and answer["tokens"] == 40 and answer["text"]
    assert "those of the demo are *simulated*" in text
    inside = text.split("== its GPU, seen from inside")[1].split("== ")[0]
    assert inside.count("UUID: GPU-") == 1 and "simulated" in inside, inside
    assert "gpu.handover" in text
    assert text.rstrip().endswith("done; nothing is left")
    assert leftovers() == []


@pytest.mark.limit(300)
@pytest.mark.parametrize("which", ["DEMO_API_PORT", "DEMO_EDGE_PORT"])
def test_demo_where_a_port_is_taken(nothing_left, which):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        port = taken.getsockname()[1]
        demo = start({which: str(port)})
        text, _ = demo.communicate(timeout=290)
    assert demo.returncode == 1
    assert re.search(r"127\.0\.0\.1:%d: Address already in use; another program listens there" % port, text), text
    assert text.rstrip().endswith("%s=N names another" % "DEMO_EDGE_PORT")
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
