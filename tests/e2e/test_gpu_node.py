"""What a simulated host's engine tells the control plane of its GPUs (root): the order of the first messages,
one measurement a second, events as they come, and that no hanging driver makes it late. The test takes the
place of tensorone-api, which stands still meanwhile."""
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

sys.path.insert(0, os.path.dirname(__file__))
from fake_node import Framed
from host import RUN, Host


@pytest.fixture
def host():
    with Host(config={"engine": {"cpu_overcommit": 100, "memory_overcommit": 10, "disk_overcommit": 10,
                                 "gpu_driver": "simulated:3090x8"}, 'gpu "NVIDIA"': {"on_demand": 0.5}}) as h:
        yield h


@contextlib.contextmanager
def in_place_of_the_api(host):
    """(the connection, the messages until `synced`)"""
    api = int(subprocess.run(["pgrep", "-P", str(host.pid), "-x", "tensorone-api"], check=True, capture_output=True,
                             text=True).stdout)
    os.kill(api, signal.SIGSTOP)
    try:
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(10)
            s.connect(str(RUN / host.id / "node.sock"))
            f = Framed(s)
            f.send({"type": "welcome", "version": 1})
            first = []
            while not first or first[-1]["type"] != "synced":
                msg, fds = f.recv()
                for fd in fds:
                    os.close(fd)
                first.append(msg)
            yield f, first
    finally:
        os.kill(api, signal.SIGCONT)


def until(f, want, limit=200):
    for _ in range(limit):
        msg, fds = f.recv()
        for fd in fds:
            os.close(fd)
        if want(msg):
            return msg
    raise AssertionError("it did not come")


def faults(host, *lines):
    path = RUN / host.id / "simulated" / "faults"
    new = path.with_name("faults.new")
    new.write_text("".join(line + "\n" for line in lines))
    new.rename(path)


def test_first_messages(host):
    with in_place_of_the_api(host) as (f, first):
        assert [m["type"] for m in first] == ["hello", "facts", "gpus", "synced"]
        inventory, gpus = first[0]["inventory"], first[2]
        assert "gpus" not in inventory and "gpu_note" not in inventory
        assert sorted(c for n in inventory["numa"] for c in n["cpus"]) == sorted(inventory["cpus"])
        assert sum(n["memory_mib"] for n in inventory["numa"]) <= inventory["memory_mib"]
        assert gpus["simulated"] and len(gpus["list"]) == 8 and len(gpus["links"]) == 8
        assert gpus["prices"] == [{"type": "NVIDIA", "on_demand": 0.5}] or gpus["prices"][0]["on_demand"] == 0.5
        uuids = [g["uuid"] for g in gpus["list"]]
        times = []
        for _ in range(3):
            m = until(f, lambda m: m["type"] == "telemetry")
            times.append(time.monotonic())
            assert [g["uuid"] for g in m["gpus"]] == uuids
        assert all(0.7 < b - a < 1.3 for a, b in zip(times, times[1:]))


def test_trouble(host):
    """An Xid, and a GPU that hangs: requests are answered at once all the while."""
    with in_place_of_the_api(host) as (f, first):
        uuids = [g["uuid"] for g in first[2]["list"]]
        faults(host, "xid 2 31", f"hang {uuids[4]} nvmlDeviceGetUtilizationRates")
        e = until(f, lambda m: m["type"] == "event")
        assert (e["kind"], e["code"], e["uuid"]) == ("xid", 31, uuids[2]) and "cluster" not in e
        worst, req, over, seen = 0, 0, time.monotonic() + 8, {}
        while time.monotonic() < over and not {"hang", "gpus"} <= seen.keys():
            req += 1
            began = time.monotonic()
            f.send({"type": "request", "req": req, "op": "image.list", "args": {"account": "", "admin": True}})
            while True:
                m, _ = f.recv()
                if m["type"] == "reply" and m["req"] == req:
                    break
                if m["type"] == "event":
                    seen[m["kind"]] = m
                elif m["type"] == "gpus":
                    seen["gpus"] = m
            worst = max(worst, time.monotonic() - began)
            time.sleep(0.02)
        assert seen["hang"]["uuid"] == uuids[4]
        assert {g["uuid"]: g["state"] for g in seen["gpus"]["list"] if g["state"] != "ok"} == {uuids[4]: "unhealthy"}
        assert worst < 0.25, worst
        faults(host)


def test_none():
    with Host(config={"engine": {"cpu_overcommit": 100, "memory_overcommit": 10, "disk_overcommit": 10,
                                 "gpu_driver": "none"}}) as h:
        with in_place_of_the_api(h) as (f, first):
            gpus = first[2]
            assert gpus["list"] == [] and gpus["note"] == "gpu_driver = none" and not gpus["simulated"]
            with pytest.raises(socket.timeout):  # nothing is measured
                f.sock.settimeout(2.5)
                until(f, lambda m: m["type"] == "telemetry")
        assert subprocess.run(["pgrep", "-P", str(h.pid), "-x", "vmm-gpu"], check=False).returncode == 1
