"""How far a pull is and how fast, as the API and the command line tell it while a registry drips: never
backwards, honest about what is here already, and in the end whole."""
import json
import random
import re
import subprocess
import threading
import time

import pytest
import requests

from host import Host, program
from ocimake import Image, Layer, Throttle
from terminal import Terminal

RATE = 3 << 20
REPO = "test/progress"  # layers are shared within one
ENGINE = {"cpu_overcommit": 100, "memory_overcommit": 20, "disk_overcommit": 100, "pool_networks": 0,
          "pool_disks": 0, "grace": "500ms"}
BASE = Layer().busybox("sh", "sleep").dir("tmp", mode=0o1777).dir("etc").tar()
RND = random.Random(11)


@pytest.fixture(scope="module")
def host(registry):
    with Host({"engine": ENGINE, 'registry "%s"' % registry.host: {"insecure": "yes"}}) as h:
        h.cli("image", "pull", registry.add(REPO, "base", Image([BASE])))
        yield h


@pytest.fixture(autouse=True)
def tidy(host, registry):
    yield
    registry.faults.clear()
    for c in host.clusters():
        host.terminate(c["id"])


def noise(size):
    return Layer().file("noise%d" % size, RND.randbytes(size)).tar()


def dripping(registry, name, tars, rate=RATE):
    """An image on the base that is here; its own layers come at @rate together, in bytes @due."""
    image = Image([BASE] + tars, compress_as="none", config={"Cmd": ["/bin/sleep", "1000"]})
    drip = Throttle(rate)
    for layer in image.layers[1:]:
        registry.fault(layer["digest"], drip)
    return registry.add(REPO, name, image), sum(layer["size"] for layer in image.layers[1:])


class Ask(threading.Thread):
    """POST /v1/images/..., the lines of its answer and when they came."""

    def __init__(self, host, path, **more):
        super().__init__(daemon=True)
        self.lines, self.times = [], []
        self.args = (host.url + path, dict(stream=True, timeout=60,
                                           headers={"Authorization": "Bearer " + host.key}, **more))
        self.start()

    def run(self):
        url, more = self.args
        with requests.post(url, **more) as answer:
            for line in answer.iter_lines():
                self.lines.append(json.loads(line))
                self.times.append(time.monotonic())

    def end(self, timeout=30):
        self.join(timeout)
        assert not self.is_alive() and "digest" in self.lines[-1], self.lines[-3:]
        return [(t, line) for t, line in zip(self.times, self.lines) if "phase" in line]


def check(samples, due):
    """@samples: (time, done, total, bytes a second) while it was coming."""
    began = samples[0][0]
    done = [s[1] for s in samples]
    rate = (done[-1] - done[0]) / (samples[-1][0] - began)
    assert rate < 1.2 * RATE, "that is what the registry drips"
    assert done == sorted(done) and len(set(done)) >= 10, done
    assert {s[2] for s in samples} == {due}, samples[:3]
    rates = [s[3] for s in samples]
    assert all(r <= 1.5 * rate for r in rates), rates
    settled = [s[3] for s in samples if s[0] > began + 1.5 and s[1] < due]
    assert len(settled) >= 3 and all(rate / 1.5 <= r <= 1.5 * rate for r in settled), settled


def test_lines_of_a_pull(host, registry):
    """Two layers at once; what is here counts neither as due nor as moved."""
    ref, due = dripping(registry, "lines", [noise(5 << 20), noise(7 << 20)])
    lines = Ask(host, "/v1/images/pull", json={"reference": ref}).end()
    phases = [line["phase"] for _, line in lines]
    assert [p for i, p in enumerate(phases) if phases[:i][-1:] != [p]] == ["resolving", "downloading", "publishing"]
    coming = [(t, line["doneBytes"], line["totalBytes"], line["bytesPerSecond"]) for t, line in lines
              if line["phase"] == "downloading"]
    check(coming, due)
    assert coming[0][1] == 0 and coming[0][3] == 0 and coming[-1][1] == due
    assert lines[-1][1] == {"phase": "publishing", "doneBytes": due, "totalBytes": due, "bytesPerSecond": 0}


def test_a_cluster_and_who_waits_for_it(host, registry):
    """GraphQL, `create --wait` on a terminal and `get` tell the same."""
    ref, due = dripping(registry, "cluster", [noise(14 << 20)])
    t = Terminal([program("tensoronecli"), "create", "cluster", "--gpuCount", "0", "--imageName", ref, "--name",
                  "dripping", "--mem", "1", "--containerDiskSize", "1", "--wait"], host.cli_env(), cols=100)
    samples, percent, table = [], [], None
    end = time.monotonic() + 30
    while True:
        assert time.monotonic() < end
        t.read(0.05)
        (c,) = host.clusters() or [None]
        if not c:
            continue
        if c["phase"] not in ("accepted", "pulling"):
            break
        if c["progressTotalBytes"]:
            samples.append((time.monotonic(), c["progressBytes"], c["progressTotalBytes"], c["progressBytesPerSecond"]))
            percent.append(c["progressPercent"])
            assert abs(c["progressPercent"] - 100 * c["progressBytes"] / due) <= 1, c
        if not table and c["progressBytesPerSecond"]:
            table = host.cli("get", "cluster", "dripping", "-a").stdout
    check(samples, due)
    assert percent == sorted(percent) and len(set(percent)) >= 10 and percent[-1] <= 99
    assert re.search(r"\tpulling \d+% [\d.]+ [KM]iB of 14 MiB [\d.]+ MiB/s ETA \d+s *\t", table), table
    assert t.wait(20) == 0
    c = host.cluster(c["id"])
    assert [v for k, v in c.items() if k.startswith("progress")] == [None] * 4
    seen = [int(p) for p in re.findall(rb"pulling \[[#.]+\] +(\d+)% [\d.]+ [KM]iB of 14 MiB", t.out)]
    assert len(seen) >= 5 and seen == sorted(seen), t.out
    assert re.search(rb" of 14 MiB [\d.]+ [KM]iB/s ETA \d+s\x1b\[K", t.out), t.out


def test_what_another_pull_brings_is_not_moved(host, registry):
    """Two images share a layer that is on its way: it is due to both and moved by one only."""
    shared = noise(9 << 20)
    one, due = dripping(registry, "one", [shared])
    first = Ask(host, "/v1/images/pull", json={"reference": one})
    while not any(line.get("doneBytes") for line in first.lines):
        time.sleep(0.02)
    two = registry.add(REPO, "two", Image([BASE, shared, noise(100000)], compress_as="none"))
    lines = [line for _, line in Ask(host, "/v1/images/pull", json={"reference": two}).end()]
    first.end()
    coming = [line for line in lines if line["phase"] == "downloading"]
    done = [line["doneBytes"] for line in coming]
    (total,) = {line["totalBytes"] for line in coming}
    assert total > due and done == sorted(done) and done[-1] == total, (done, total)
    assert all(line["bytesPerSecond"] <= 250000 for line in coming), coming


def test_lines_of_an_upload(host, tmp_path):
    """Nothing is downloaded."""
    layout = tmp_path / "layout"
    Image([BASE, noise(300000)], compress_as="none").write_layout(layout)
    tar = subprocess.run(["tar", "-C", layout, "-c", "."], stdout=subprocess.PIPE, check=True).stdout
    lines = Ask(host, "/v1/images/import?name=uploaded", data=tar).end()
    assert {line["phase"] for _, line in lines} <= {"waiting", "uploading", "unpacking", "publishing"}
    assert lines[-1][1]["phase"] == "publishing" and lines[-1][1]["doneBytes"] == lines[-1][1]["totalBytes"]
