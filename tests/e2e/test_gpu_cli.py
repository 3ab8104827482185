"""tensoronecli's words about GPUs, the real program against the real API, which an engine that runs
nothing tells of fleets (fake_node.py): get cloud, get gpus, top, gpu release, get events."""
import json
import os
import re
import signal
import subprocess
import sys
import termios
import time

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import fleets  # noqa: E402
from programs import program  # noqa: E402
from terminal import Terminal  # noqa: E402
from test_gpu_api import A100, make  # noqa: E402,F401

CLI = program("tensoronecli")


def env_of(w, key=None):
    return {"HOME": w.api.dir, "PATH": os.environ["PATH"], "TENSORONE_API_URL": w.api.base,
            "TENSORONE_API_KEY": key or w.api.key, "TERM": "xterm"}


def cli(w, *args, key=None, rc=0):
    p = subprocess.run([CLI, *args], env=env_of(w, key), capture_output=True, timeout=20)
    assert p.returncode == rc, (p.returncode, p.stdout, p.stderr)
    return p.stdout.decode() if rc == 0 else p.stderr.decode()


def table(text):
    """Rows of a table, blanks around the cells removed."""
    lines = text.split("\n")
    assert lines[-1] == "" and all(line.endswith("\t") for line in lines[:-1])
    return [[c.strip() for c in line[:-1].split("\t")] for line in lines[:-1]]


def test_cloud(make):  # noqa: F811
    w = make()
    assert table(cli(w, "get", "cloud")) == [["GPU TYPE", "MEM GB", "VCPU", "SPOT $/HR", "ONDEMAND $/HR"],
                                             ["1x " + A100, "32", "2", "0.600", "1.190"]]
    assert table(cli(w, "get", "cloud", "8", "--mem", "256"))[1] == ["8x " + A100, "256", "16", "0.600", "1.190"]
    assert len(table(cli(w, "get", "cloud", "3"))) == 1, "the fabric has no set of three"
    assert len(table(cli(w, "get", "cloud", "-c"))) == len(table(cli(w, "get", "cloud", "-s"))) == 2
    w.take(8)
    assert table(cli(w, "get", "cloud")) == [["GPU TYPE", "MEM GB", "VCPU", "SPOT $/HR", "ONDEMAND $/HR"]]


@pytest.mark.parametrize("fleet, args, says", [
    (None, ["3"], "no type has 3 GPUs free that may be rented together\n"),
    (None, ["--mem", "5000"], "no type has 1 GPU free that may be rented with what was asked for\n"),
    ({"note": "no driver", "list": []}, [], "there are no GPUs here\n"),
])
def test_an_empty_cloud_says_why(make, fleet, args, says):  # noqa: F811
    p = subprocess.run([CLI, "get", "cloud", *args], env=env_of(make(fleet)), capture_output=True, timeout=20)
    assert p.returncode == 0 and p.stderr.decode() == says and len(table(p.stdout.decode())) == 1


def test_cloud_of_a_stand_in_says_so(make):  # noqa: F811
    w = make(fleets.a100x8(simulated=True))
    named = table(cli(w, "get", "cloud"))[1][0]
    assert named == "1x " + A100 + " (simulated)"
    cli(w, "create", "cluster", "--gpuType", named[3:], "--imageName", "x", "--mem", "1", "--containerDiskSize", "1")


def test_why_of_each_wish(make):  # noqa: F811
    w = make()
    w.take(8)
    say = cli(w, "create", "cluster", "--gpuType", "RTX 4090,A100", "--imageName", "x", rc=1)
    assert "RTX 4090 is not on this host; it has " + A100 in say and "1 x A100 wanted, 0 of 8 free" in say
    assert say.count("no longer any instances") == 1
    assert "names no type" in cli(w, "create", "cluster", "--gpuType", " , ", "--imageName", "x", rc=1)


def test_matrices_exclude_each_other(make):  # noqa: F811
    w = make()
    for pair in (("--topo", "--vfio"), ("--topo", "--p2p"), ("-a", "--vfio")):
        assert "exclude each other" in cli(w, "get", "gpus", *pair, rc=1)


def test_p2p(make):  # noqa: F811
    fleet = fleets.rtx3090x4()
    words = ["", "OK", "CNS", ""]
    fleet["p2p"] = [[words[abs(i - k)] for k in range(4)] for i in range(4)]
    lines = cli(make(fleet), "get", "gpus", "--p2p").splitlines()
    assert lines[:3] == ["\tGPU0\tGPU1\tGPU2\tGPU3", "GPU0\t X \tOK\tCNS\tU", "GPU1\tOK\t X \tOK\tCNS"]
    assert "  CNS  = not with this chipset" in lines


def test_free_of_charge_is_reserved(make):  # noqa: F811
    w = make(fleets.rtx3090x4())
    assert table(cli(w, "get", "cloud", "2"))[1] == ["2x NVIDIA GeForce RTX 3090", "128", "8", "Reserved", "Reserved"]


def test_gpus(make):  # noqa: F811
    w = make(fleets.a100x8(simulated=True))
    k = w.take(1)["id"]
    w.node.measure()
    w.node.set_state(2, "quarantined", "memory in use\x1b[31m: 900 MiB")
    w.until(lambda g: g[2]["state"] == "quarantined" and g[0]["telemetry"], lambda: w.gpus("state telemetry"))
    rows = table(cli(w, "get", "gpus"))
    assert rows[0] == ["GPU", "GPU TYPE", "MEM GB", "NUMA", "UTIL", "MEM USED", "TEMP", "POWER", "STATE", "CLUSTER",
                       "ID", "REASON"]
    assert len(rows) == 9
    u = w.node.fleet["list"][2]["uuid"]
    assert rows[3] == ["2", "A100 SXM (simulated)", "80", "0", "37%", "20480 MiB", "54 C", "252 W", "quarantined", "",
                       u, "memory in use?[31m: 900 MiB"]
    assert [r[9] for r in rows[1:] if r[9]] == [k]
    assert rows == table(cli(w, "get", "gpu"))
    more = table(cli(w, "get", "gpus", "-a"))
    assert more[0][12:] == ["PCI", "SERIAL", "VBIOS", "INFOROM", "SM CLOCK", "XID"]
    assert more[1][12:] == ["00000000:07:00.0", "1321900000", "92.00.45.00.03", "G506.0200.00.04", "1410 MHz", "0"]
    j = json.loads(cli(w, "get", "gpus", "-o", "json"))
    assert len(j) == 8 and j[2]["state"] == "quarantined" and j[0]["telemetry"]["util_pct"] == 37
    other = w.api.account("other")
    for what in (["gpus"], ["gpus", "--topo"], ["gpus", "--vfio"]):
        said = cli(w, "get", *what, key=other, rc=1)
        assert "forbidden: an administrator's key is needed; the host's lies in admin.key" in said


def test_no_gpus(make):  # noqa: F811
    w = make({"note": "no NVIDIA driver on this host", "list": []})
    p = subprocess.run([CLI, "get", "gpus"], env=env_of(w), capture_output=True, timeout=20)
    assert p.returncode == 0 and p.stderr == b"no NVIDIA driver on this host\n"
    assert len(table(p.stdout.decode())) == 1
    assert "no GPUs: no NVIDIA driver on this host" in cli(w, "top")


def test_topology(make):  # noqa: F811
    w = make(numa=[{"node": 0, "cpus": ["0", "1", "2", "3", "8", "9", "11"], "memory_mib": 1},
                   {"node": 1, "cpus": ["4", "5", "6", "7", "10", "12", "13", "14", "15"], "memory_mib": 1}])
    lines = cli(w, "get", "gpus", "--topo").split("\n")
    assert lines[0] == "\t" + "\t".join("GPU%d" % i for i in range(8)) + "\tCPU Affinity\tNUMA Affinity"
    assert lines[1] == "GPU0\t X \t" + "\t".join(["NV12"] * 7) + "\t0-3,8-9,11\t0"
    assert lines[8] == "GPU7\t" + "\t".join(["NV12"] * 7) + "\t X \t4-7,10,12-15\t1"
    assert lines[9] == "" and lines[10] == "Legend:"
    words = [line.split("=")[0].strip() for line in lines[12:] if line]
    assert words == ["X", "SYS", "NODE", "PHB", "PXB", "PIX", "NV#"]


def test_topology_of_pairs_and_instances(make):  # noqa: F811
    w = make(fleets.rtx3090x4())
    rows = [line.split("\t") for line in cli(w, "get", "gpus", "--topo").split("\n")[1:5]]
    assert [r[1:5] for r in rows] == [[" X ", "NV4", "SYS", "SYS"], ["NV4", " X ", "SYS", "SYS"],
                                      ["SYS", "SYS", " X ", "NV4"], ["SYS", "SYS", "NV4", " X "]]
    assert [r[5:] for r in rows] == [["N/A", "0"], ["N/A", "0"], ["N/A", "1"], ["N/A", "1"]]
    w.node.say_gpus(fleets.a100mig())
    w.until(lambda g: len(g) == 9, w.gpus)
    rows = [line.split("\t") for line in cli(w, "get", "gpus", "--topo").split("\n")[:4]]
    assert [r[:3] for r in rows] == [["", "GPU0", "GPU1"], ["GPU0", " X ", "NODE"], ["GPU1", "NODE", " X "], [""]]
    assert [r[1] for r in table(cli(w, "get", "gpus"))[2:4]] == ["A100 SXM (divided)", "A100 SXM 1g.10gb"]


def test_release(make):  # noqa: F811
    w = make()
    u = w.node.fleet["list"][3]["uuid"]
    w.node.set_state(3, "quarantined", "why")
    w.until(lambda g: g[3]["state"] == "quarantined", w.gpus)
    assert cli(w, "gpu", "release", "3") == 'GPU "%s" released\n' % u
    assert w.gpus()[3]["state"] == "ok"
    assert "only a quarantined GPU" in cli(w, "gpu", "release", u, rc=1)
    assert 'there is no GPU "17"' in cli(w, "gpu", "release", "17", rc=1)
    w.node.set_state(3, "quarantined", "again")
    w.until(lambda g: g[3]["state"] == "quarantined", w.gpus)
    assert json.loads(cli(w, "gpu", "release", u, "-o", "json")) == {
        "id": u, "displayName": "A100 SXM", "state": "ok", "reason": None}
    said = cli(w, "gpu", "release", "3", key=w.api.account("other"), rc=1)
    assert "forbidden: an administrator's key is needed" in said


def test_events(make):  # noqa: F811
    w = make()
    a = w.api.account("a")
    k = w.take(1, a)["id"]
    w.node.happen(1, "xid", "GPU has fallen\tof the bus", code=79)
    w.node.happen(0, "throttle", "power", cluster=k)
    w.until(lambda e: len(e) == 3, w.events)
    rows = table(cli(w, "get", "events"))
    assert rows[0] == ["TIME", "KIND", "CLUSTER", "OBJECT", "TEXT"]
    assert [r[1:4] for r in rows[1:]] == [["deployed", k, k], ["gpu.xid", "", w.node.fleet["list"][1]["uuid"]],
                                          ["gpu.throttle", k, w.node.fleet["list"][0]["uuid"]]]
    assert rows[2][4] == "GPU has fallen?of the bus (79)"
    assert [r[1] for r in table(cli(w, "get", "events", key=a))[1:]] == ["deployed", "gpu.throttle"]
    assert [r[1] for r in table(cli(w, "get", "events", k))[1:]] == ["deployed"]
    assert [r[1] for r in table(cli(w, "get", "events", "--kind", "gpu", "--limit", "1"))[1:]] == ["gpu.throttle"]
    assert len(table(cli(w, "get", "events", "--since", "1h"))) == 4
    assert len(table(cli(w, "get", "event", "--since", "2100-01-01"))) == 1
    assert len(json.loads(cli(w, "get", "events", "-o", "json"))) == 3
    assert "limit" in cli(w, "get", "events", "--limit", "0", rc=1)


def busy(w):
    k = w.take(2, extra=', name: "train\\u0007er"')["id"]
    w.api.running(k)
    w.node.measure(util_pct=50)
    w.until(lambda g: g[0]["telemetry"], lambda: w.gpus("telemetry"))
    return k


def test_top_as_text(make):  # noqa: F811
    w = make(fleets.a100x8(simulated=True))
    k = busy(w)
    out = cli(w, "top")
    assert "\x1b" not in out and "\x07" not in out
    lines = out.split("\n")
    assert "driver 550.54.15  CUDA 12.4  (simulated)" in lines[0]
    gpus = [line for line in lines if re.match(r" *\d+ +A100 SXM \(simulated\)", line)]
    assert len(gpus) == 8 and all("50%" in g and "20.0/80.0" in g and "54C" in g and "252W" in g for g in gpus)
    half = re.search(r"\[(#+)(\.+)\]", gpus[0])
    assert abs(len(half[1]) - len(half[2])) <= 1
    assert sum(k in g for g in gpus) == 2
    (mine,) = [line for line in lines if line.startswith(k)]
    assert "train?er" in mine and " running " in mine and mine.count("[") == 4
    assert cli(w, "top", "-n", "3", "--interval", "100ms").count("driver 550") == 3
    other = cli(w, "top", key=w.api.account("other"))
    assert "A100" not in other and k not in other and "CLUSTER" in other
    j = json.loads(cli(w, "top", "-o", "json"))
    assert len(j["host"]["gpus"]) == 8 and j["clusters"][0]["latestTelemetry"]["averageGpuMetrics"]
    assert "--interval" in cli(w, "top", "--interval", "1ms", rc=1)


def settings(fd):
    return termios.tcgetattr(fd)[:6]


@pytest.mark.parametrize("how", ["q", "^C", "TERM", "HUP", "-n"])
def test_top_on_a_terminal(make, how):  # noqa: F811
    """The picture fits, follows the size of the window, and the terminal is given back."""
    w = make()
    busy(w)
    more = ["-n", "8"] if how == "-n" else []
    t = Terminal([CLI, "top", "--interval", "200ms", *more], env_of(w), rows=14, cols=100)
    before = settings(t.fd)
    first = t.read_until(rb"more lines\x1b\[K\x1b\[J")
    assert first.startswith(b"\x1b[?1049h\x1b[?25l\x1b[H") and b"A100 SXM" in first
    assert settings(t.fd) != before
    text = re.sub(rb"\x1b\[[?0-9;]*[A-Za-z]", b"", first)
    lines = text.replace(b"\r", b"").split(b"\n")
    assert len(lines) <= 14 and max(map(len, lines)) <= 100
    t.resize(40, 60)
    t.read_until(rb"GPU MEMORY|CLUSTER +NAME")
    out = t.read_until(rb"\x1b\[J")
    assert b"more lines" not in out
    assert max(len(re.sub(rb"\x1b\[[?0-9;]*[A-Za-z]", b"", x)) for x in out.split(b"\r\n")) <= 60
    if how == "q":
        t.write(b"q")
    elif how == "^C":
        t.write(b"\x03")
    elif how != "-n":
        os.kill(t.pid, getattr(signal, "SIG" + how))
    t.read_until(rb"\x1b\[\?25h\x1b\[\?1049l")
    end = time.monotonic() + 5
    while settings(t.fd) != before:
        assert time.monotonic() < end, "the terminal is not given back"
    assert t.wait() == 0


def test_top_goes_on_when_the_api_is_away(make):  # noqa: F811
    w = make()
    busy(w)
    t = Terminal([CLI, "top", "--interval", "100ms"], env_of(w), rows=40, cols=200)
    t.read_until(rb"A100 SXM")
    w.api.kill()
    w.api.sock.close()
    t.read_until(rb"  ! ")
    assert b"A100 SXM" in t.read_until(rb"A100 SXM")
    t.write(b"q")
    assert t.wait() == 0


def test_completion_offers_gpus(make):  # noqa: F811
    w = make()
    assert cli(w, "__complete", "gpus").split() == [g["uuid"] for g in w.node.fleet["list"]]
