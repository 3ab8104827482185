"""vmm-gpu and the engine's side of it (root), against the stand-in for the driver: what is listed, measured
and reported, and that no trouble of the driver's reaches the engine.  Through the program gpuhostctl."""
import contextlib
import json
import os
import queue
import re
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import threading
import time
import uuid

import pytest

from programs import ROOT, build_dir

CTL = os.path.join(build_dir(), "tests/flow/gpuhost/gpuhostctl")
FLEETS = sorted(f for f in os.listdir(os.path.join(ROOT, "data/fleets")) if "." not in f)
PATHS = ["numa", "bridge", "switch", "leaf"]


class Ctl:
    """One gpuhostctl; its lines are kept in `seen`."""

    def __init__(self, data, driver, *more, ident=None, libexec=None):
        self.id = ident or "t" + uuid.uuid4().hex[:7]
        self.run = f"/run/hypervisor-vmm/{self.id}"
        self.proc = subprocess.Popen([CTL, self.id, str(data), libexec or build_dir(), driver, *more], text=True,
                                     stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                     stderr=open(os.path.join(data, "log"), "a", encoding="utf-8"))
        self.lines, self.seen = queue.Queue(), []
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        for line in self.proc.stdout:
            self.lines.put((time.monotonic(), json.loads(line)))

    def say(self, *words):
        self.proc.stdin.write(" ".join(f"'{w}'" for w in words) + "\n")
        self.proc.stdin.flush()

    def wait(self, want, timeout=30):
        """The first new line for which WANT is true; what came before it is dropped."""
        end = time.monotonic() + timeout
        while True:
            try:
                self.at, line = self.lines.get(timeout=max(0.01, end - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"did not come in {timeout} s; last: {str(self.seen[-1:])[-600:]}") from None
            self.seen.append(line)
            if want(line):
                return line

    def of(self, kind, timeout=30, want=lambda m: True):
        return self.wait(lambda m: m["type"] == kind and want(m), timeout)

    def fleet(self, timeout=30, want=lambda f: True):
        return self.of("gpus", timeout, lambda f: f["known"] and want(f))

    def state(self, gpu, state, timeout=30):
        """Its row once it has that state."""
        f = self.of("gpus", timeout, lambda f: any(g["uuid"] == gpu and g["state"] == state for g in f["list"]))
        return next(g for g in f["list"] if g["uuid"] == gpu)

    def event(self, kind, timeout=30):
        return self.of("event", timeout, lambda m: m["kind"] == kind)

    def ask(self, *words, kind=None):
        self.say(*words)
        return self.of(kind or words[0])

    def faults(self, *lines):
        path = f"{self.run}/simulated/faults"
        with open(path + ".new", "w", encoding="utf-8") as f:
            f.write("".join(line + "\n" for line in lines))
        os.rename(path + ".new", path)

    def helper(self, timeout=30):
        """The pid of its vmm-gpu that lives."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            for pid in subprocess.run(["pgrep", "-P", str(self.proc.pid), "-x", "vmm-gpu"], capture_output=True,
                                      text=True).stdout.split():
                with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", encoding="utf-8") as f:
                    if f.read().rsplit(")", 1)[1].split()[0] not in "ZX":
                        return int(pid)
            time.sleep(0.02)
        raise AssertionError("there is no vmm-gpu")

    def stop(self, keep=False):
        self.proc.stdin.close()
        try:
            code = self.proc.wait(10)
        finally:
            if self.proc.poll() is None:
                self.proc.kill()
                self.proc.wait()
            self.reader.join(5)
            self.proc.stdout.close()
            if not keep:
                shutil.rmtree(self.run, ignore_errors=True)
        assert code == 0


@pytest.fixture
def ctl(tmp_path):
    made = []

    def start(driver="simulated:3090x8", *more, ident=None, libexec=None):
        made.append(Ctl(tmp_path, driver, *more, ident=ident, libexec=libexec))
        return made[-1]

    yield start
    for c in made:
        if c.proc.poll() is None:
            c.stop()
        shutil.rmtree(c.run, ignore_errors=True)


def log(tmp_path):
    return (tmp_path / "log").read_text()


# --- what there is ---------------------------------------------------------------------------------

def described(fleet):
    """The fleet file, read by this test alone: GPUs (with their model) and instances."""
    model, gpus, migs = {}, [], []
    with open(os.path.join(ROOT, "data/fleets", fleet), encoding="utf-8") as f:
        for line in f:
            words = re.findall(r'"[^"]*"|[^\s]+', line.split("#")[0])
            if not words:
                continue
            keys = [w.split("=", 1) for w in words[2:] if "=" in w]
            row = dict(keys, peers={v.split("/")[0]: int(v.split("/")[1]) for k, v in keys if k == "peer"})
            if words[0] == "model":
                model = dict(row, name=words[1].strip('"'))
            elif words[0] == "gpu":
                gpus.append(dict(model, **row, at=words[1]))
            elif words[0] == "mig":
                migs.append(dict(row, at=words[1], profile=words[2]))
    return gpus, migs


def path_of(a, b):
    same = 0
    for key in PATHS:
        if key not in a or a.get(key) != b.get(key):
            break
        same += 1
    return ["SYS", "NODE", "PHB", "PXB", "PIX"][same]


def link_of(a, b):
    n = 0
    if "fabric" in a and a["fabric"] == b.get("fabric"):
        n += int(a["links"])
    n += a["peers"].get(b["at"], 0) or b["peers"].get(a["at"], 0)
    return (f"NV{n}/" if n else "") + path_of(a, b)


def p2p_of(link, a, b):
    """The stand-in's rule: divided ones not at all, by NVLink always, else within a NUMA node where there is no display."""
    if "on" in (a.get("mig"), b.get("mig")):
        return "NS"
    return "OK" if link.startswith("NV") or (a.get("display") != "on" and link != "SYS") else "CNS"


@pytest.mark.parametrize("fleet", FLEETS)
def test_inventory(ctl, fleet):
    got = ctl(f"simulated:{fleet}").fleet()
    gpus, migs = described(fleet)
    assert got["simulated"] and got["driver_version"] == "550.54.15" and got["cuda_version"] == "12.4"
    assert "note" not in got or got["note"] == ""
    whole = [g for g in got["list"] if "parent" not in g]
    assert [g["pci"] for g in whole] == ["0000" + g["at"] for g in gpus]
    for at, (g, d) in enumerate(zip(whole, gpus)):
        assert (g["name"], g["memory_mib"], g["numa_node"]) == (d["name"], int(d["memory"]), int(d.get("numa", 65535)))
        assert (g["index"], g["state"], g["mig_mode"]) == (at, "ok", d.get("mig") == "on")
        assert (g["vbios"], g["ecc"]) == (d["vbios"], d.get("ecc") == "on")
        assert g.get("inforom") == d.get("inforom")
        assert re.fullmatch(r"GPU-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", g["uuid"])
    instances = [g for g in got["list"] if "parent" in g]
    by_address = {g["at"]: w["uuid"] for g, w in zip(gpus, whole)}
    assert sorted((g["parent"], g["mig_profile"], g["gi"], g["ci"], g["memory_mib"]) for g in instances) == sorted(
        (by_address[m["at"]], m["profile"], int(m["gi"]), int(m["ci"]), int(m["memory"])) for m in migs)
    at = {w["uuid"]: d for w, d in zip(whole, gpus)}
    for i, a in enumerate(got["list"]):
        for k, b in enumerate(got["list"]):
            want = "" if "parent" in a or "parent" in b else "X" if i == k else link_of(at[a["uuid"]], at[b["uuid"]])
            assert got["links"][i][k] == want, (fleet, i, k)
            if len(whole) > 1:
                assert got["p2p"][i][k] == ("" if want in ("", "X") else p2p_of(want, at[a["uuid"]], at[b["uuid"]]))
    fabric = [i for i, g in enumerate(got["list"]) if "parent" not in g and "fabric" in at[g["uuid"]]]
    blocks = [fabric[i:i + n] for n in (1, 2, 4, 8) if n < len(fabric) for i in range(0, len(fabric), n)]
    assert sorted(got["partitions"]) == sorted(blocks + ([fabric] if fabric else []))


def test_helper_is_nobody(ctl):
    """A uid of its own, no capability, no way to any, nothing of ours open, no variable of ours."""
    os.environ["HVMM_TEST_SECRET"] = "x"
    try:
        c = ctl()
    finally:
        del os.environ["HVMM_TEST_SECRET"]
    c.fleet()
    pid = c.helper()
    status = dict(line.split(":\t", 1) for line in open(f"/proc/{pid}/status", encoding="utf-8") if ":\t" in line)
    assert set(status["Uid"].split()) == {str(0x4FD00001)} == set(status["Gid"].split())
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
    assert status["NoNewPrivs"].strip() == "1" and status["Groups"].strip() == ""
    assert open(f"/proc/{pid}/oom_score_adj", encoding="utf-8").read().strip() == "500"
    env = open(f"/proc/{pid}/environ", encoding="utf-8").read().split("\0")
    assert {e.split("=")[0] for e in env if e} <= {"PATH", "LANG", "JOURNAL_STREAM"}
    kinds = sorted(os.readlink(f"/proc/{pid}/fd/{fd}").split(":")[0] for fd in os.listdir(f"/proc/{pid}/fd"))
    assert kinds == sorted(["/dev/null", "/dev/null", "socket", f"{c.run}/driver", kinds[-1] if kinds[-1].endswith(
        "/log") else str(next(k for k in kinds if k.endswith("/log")))])


# --- each second -----------------------------------------------------------------------------------

def test_telemetry(ctl):
    c = ctl("simulated:a100x8")
    uuids = [g["uuid"] for g in c.fleet()["list"]]
    c.faults("util 2 37", "temperature 2 61", "process 3 4711 500")
    c.of("telemetry")
    times = []
    for _ in range(4):
        m = c.of("telemetry", 2)
        times.append(c.at)
        assert [g["uuid"] for g in m["gpus"]] == uuids
    gaps = [b - a for a, b in zip(times, times[1:])]
    assert all(0.8 < g < 1.2 for g in gaps), gaps
    assert (m["gpus"][2]["util_pct"], m["gpus"][2]["temperature_c"]) == (37, 61)
    assert m["gpus"][3]["processes"] == 1 and m["gpus"][3]["memory_used_mib"] >= 500
    assert abs(m["at_us"] / 1e6 - time.time()) < 2
    for g in m["gpus"]:
        assert g["memory_total_mib"] == 81920 and g["nvlink_tx_kib_s"] > 0 and g["power_mw"] <= g["power_limit_mw"]
        assert g["nvlink_rx_kib_s"] > 0 and g["pcie_tx_kib_s"] >= 0 and g["pcie_rx_kib_s"] >= 0
        assert 0 < g["sm_clock_mhz"] <= 1410 and g["mem_clock_mhz"] == 1593 and 20 <= g["temperature_c"] <= 100
        assert g["ecc_corrected"] == g["ecc_uncorrected"] == g["remap_pending"] == g["xid"] == g["throttle"] & ~1 == 0


def test_idle_memory_is_remembered(ctl):
    """The least in use while nobody had it; a leak or a process does not raise it."""
    c = ctl()
    gpu = c.fleet()["list"][1]
    c.of("telemetry")
    c.of("telemetry")
    first = c.ask("remembered", gpu["uuid"])
    assert first["memory_mib"] < 1000 and first["vbios"] == gpu["vbios"] and first["inforom"] == gpu.get("inforom", "")
    c.faults("leak 1 3000", "vbios 1 66.6")
    c.of("telemetry", want=lambda m: m["gpus"][1]["memory_used_mib"] >= 3000)
    again = c.ask("remembered", gpu["uuid"])
    assert again == first


# --- trouble ---------------------------------------------------------------------------------------

def test_xid(ctl):
    c = ctl()
    gpus = c.fleet()["list"]
    c.faults("xid 3 79")
    e = c.event("xid")
    assert (e["uuid"], e["code"], e["text"]) == (gpus[3]["uuid"], 79, "GPU has fallen off the bus")
    assert c.state(gpus[3]["uuid"], "unhealthy")["reason"] == "Xid 79: GPU has fallen off the bus"
    assert c.of("telemetry")["gpus"][3]["xid"] == 79
    c.faults("xid 3 79", "xid 4 31")  # what any program can cause
    assert c.event("xid")["uuid"] == gpus[4]["uuid"]
    f = c.ask("fleet", kind="gpus")
    assert [g["state"] for g in f["list"]] == ["ok"] * 3 + ["unhealthy"] + ["ok"] * 4
    # a new vmm-gpu has not seen it; the engine has
    c.faults()
    os.kill(c.helper(), signal.SIGKILL)
    c.of("gpus", 5)
    assert c.of("telemetry", 5)["gpus"][3]["xid"] == 79
    assert c.ask("check", gpus[3]["uuid"], kind="checked")["gpus"][0]["xid"] == 79


def test_throttle_and_ecc(ctl):
    """Told as events, the first once a minute at most; neither by itself is a reason not to rent it out."""
    c = ctl("simulated:a100x8")
    gpus = c.fleet()["list"]
    for again in (False, True):
        c.faults("throttle 2 64")
        if not again:
            e = c.event("throttle")
            assert (e["uuid"], e["code"]) == (gpus[2]["uuid"], 64) and "too hot" in e["text"]
        c.of("telemetry", want=lambda m: m["gpus"][2]["throttle"] == 64)
        c.faults()
        c.of("telemetry", want=lambda m: m["gpus"][2]["throttle"] != 64)
    c.faults("ecc 4 3")
    e = c.event("ecc")
    assert (e["uuid"], e["code"]) == (gpus[4]["uuid"], 3) and e["text"] == "uncorrectable memory error"
    assert c.of("telemetry", want=lambda m: m["gpus"][4]["ecc_uncorrected"])["gpus"][4]["ecc_uncorrected"] == 3
    assert [m["kind"] for m in c.seen if m["type"] == "event"] == ["throttle", "ecc"]
    assert {g["state"] for g in c.ask("fleet", kind="gpus")["list"]} == {"ok"}


def test_hang(ctl, tmp_path):
    """One GPU's call does not come back: vmm-gpu is replaced within 6 s, the others go on, the loop is
    never late."""
    c = ctl("simulated:a100x8")
    gpus = c.fleet()["list"]
    c.of("telemetry")
    old = c.helper()
    c.ask("lag")
    c.faults(f"hang {gpus[5]['uuid']} nvmlDeviceGetUtilizationRates")
    began = time.monotonic()
    row = c.state(gpus[5]["uuid"], "unhealthy", 8)
    assert "nvmlDeviceGetUtilizationRates" in row["reason"] and "has not come back for 5 s" in row["reason"]
    m = c.of("telemetry", 3, lambda m: len(m["gpus"]) == 7)
    assert time.monotonic() - began < 7.5  # up to a second until the call is made
    assert c.helper() != old
    assert gpus[5]["uuid"] not in [g["uuid"] for g in m["gpus"]]
    f = c.ask("fleet", kind="gpus")
    assert len(f["list"]) == 8 and [g["state"] for g in f["list"]].count("ok") == 7
    assert len(f["partitions"]) == 15 and all(len(row) == 8 for row in f["links"])
    c.of("telemetry")
    c.of("telemetry")
    assert c.ask("lag")["ms"] < 1000  # who waited for the call would be late by seconds
    assert "has not said a word for 5 s, in nvmlDeviceGetUtilizationRates of " + gpus[5]["uuid"] in log(tmp_path)
    assert any(m["type"] == "event" and m["kind"] == "hang" for m in c.seen)


def test_driver_hangs_at_start(ctl):
    c = ctl("simulated:4090x1")
    c.fleet()
    c.faults("hang - nvmlInit_v2")
    os.kill(c.helper(), signal.SIGKILL)
    f = c.fleet(9, lambda f: f["list"] and f["list"][0]["state"] == "unhealthy")
    assert "nvmlInit" in f["list"][0]["reason"]
    c.faults()
    assert c.fleet(12, lambda f: f["list"][0]["state"] == "ok")


def test_hangs_before_it_was_seen(ctl):
    """The others are there nevertheless."""
    c = ctl()
    gpus = c.fleet()["list"]
    c.stop(keep=True)
    c = ctl(ident=c.id)
    c.fleet()
    c.faults("hang 6 nvmlDeviceGetName")
    os.kill(c.helper(), signal.SIGKILL)
    c.state(gpus[6]["uuid"], "unhealthy", 9)
    c.stop(keep=True)
    began = time.monotonic()
    c = ctl(ident=c.id)
    f = c.fleet(9, lambda f: len(f["list"]) == 7)
    assert time.monotonic() - began < 8 and gpus[6]["uuid"] not in [g["uuid"] for g in f["list"]]
    assert all(g["state"] == "ok" for g in f["list"])
    assert len(c.of("telemetry")["gpus"]) == 7


def test_instances_of_a_gpu_that_hangs(ctl):
    c = ctl("simulated:a100mig")
    fleet = c.fleet()["list"]
    whole = next(g for g in fleet if g["mig_mode"])
    c.faults(f"hang {whole['uuid']} nvmlDeviceGetUtilizationRates")
    c.state(whole["uuid"], "unhealthy", 8)
    f = c.of("telemetry", 3) and c.ask("fleet", kind="gpus")
    assert len(f["list"]) == len(fleet)
    for g in f["list"]:
        theirs = whole["uuid"] in (g["uuid"], g.get("parent"))
        assert g["state"] == ("unhealthy" if theirs else "ok") and ("5 s" in g.get("reason", "")) == theirs


def test_reset_required(ctl):
    c = ctl()
    gpu = c.fleet()["list"][3]["uuid"]
    c.faults("fail 3 nvmlDeviceGetUtilizationRates 16")
    assert "the driver says" in c.state(gpu, "unhealthy")["reason"]
    c.faults()
    c.state(gpu, "ok")


def test_check_of_a_hanging_gpu(ctl):
    c = ctl("simulated:a100x8")  # they count errors of memory
    gpu = c.fleet()["list"][0]["uuid"]
    good = c.ask("check", gpu, "GPU-unknown", kind="checked")
    assert good["gpus"][0]["present"] and good["gpus"][0]["processes"] == [] and good["gpus"][0]["xid"] == 0
    assert good["gpus"][1] == {"uuid": "GPU-unknown", "present": False}
    c.faults("process 0 77 1234", "ecc 0 3", "remap 0 pending", "retired 0")
    time.sleep(0.1)
    row = c.ask("check", gpu, kind="checked")["gpus"][0]
    assert row["processes"] == [{"pid": 77, "memory_mib": 1234}] and row["memory_used_mib"] >= 1234
    assert row["ecc_uncorrected"] == 3 and row["remap_pending"] and row["retired_pending"]
    c.faults("hang 0 nvmlDeviceGetMemoryInfo_v2")
    time.sleep(0.1)  # the stand-in looks at the file every 20 ms
    c.say("check", gpu)
    bad = c.of("checked", 7)
    assert bad["code"] in (-110, -32) and bad["error"]


def test_unhealthy_and_well_again(ctl):
    c = ctl("simulated:a100x8")
    gpu = c.fleet()["list"][2]["uuid"]
    c.faults("remap 2 pending")
    assert c.event("unhealthy")["uuid"] == gpu
    assert "reset" in c.state(gpu, "unhealthy")["reason"]
    c.faults()
    assert c.event("healthy")["uuid"] == gpu
    assert "reason" not in c.state(gpu, "ok")


def test_open_in_a_cluster_that_was_refused_it(ctl):
    """Not for rent while it may be; no event, because nothing is wrong with it."""
    c = ctl()
    gpu = c.fleet()["list"][2]["uuid"]
    c.say("open", gpu, "c0ffee")
    row = c.state(gpu, "open")
    assert row["reason"] == ("cluster c0ffee may have it open after a change that failed; it is free when that"
                             " cluster is stopped")
    assert [g["state"] for g in c.ask("fleet", kind="gpus")["list"]].count("ok") == 7
    c.say("quarantine", gpu, "dust")
    assert c.state(gpu, "quarantined")["reason"] == "dust"
    c.say("release", gpu)
    c.state(gpu, "open")
    c.say("open")
    assert "reason" not in c.state(gpu, "ok")
    assert not [m for m in c.seen if m["type"] == "event" and m["kind"] not in ("quarantined", "released")]


def test_lost_and_back(ctl):
    c = ctl("simulated:a100x8")
    gpus = c.fleet()["list"]
    c.faults("lose 6")
    row = c.state(gpus[6]["uuid"], "lost", 8)
    assert row["reason"] == "the driver does not list it any more" and row["serial"] == gpus[6]["serial"]
    f = c.ask("fleet", kind="gpus")
    assert len(f["list"]) == 8 and len(f["partitions"]) == 15
    assert {g["uuid"]: g["state"] for g in f["list"] if g["state"] != "ok"} == {gpus[6]["uuid"]: "lost"}
    c.faults()
    os.kill(c.helper(), signal.SIGKILL)  # as a driver that was loaded anew
    c.state(gpus[6]["uuid"], "ok", 8)


def test_killed(ctl):
    c = ctl()
    before = c.fleet()
    for _ in range(3):
        old = c.helper()
        c.say("check", before["list"][0]["uuid"])
        os.kill(old, signal.SIGSTOP)
        c.say("check", before["list"][0]["uuid"])
        time.sleep(0.05)
        os.kill(old, signal.SIGKILL)
        c.wait(lambda m: m["type"] == "checked" and m.get("code") == -32)
        after = c.fleet()
        assert after == before and c.helper() != old
        c.of("telemetry")


def test_stopped_is_not_a_gpus_fault(ctl):
    """A vmm-gpu that is silent outside of any call is replaced, and no GPU is blamed."""
    c = ctl()
    c.fleet()
    c.of("telemetry")
    old = c.helper()
    os.kill(old, signal.SIGSTOP)
    f = c.fleet(8)
    assert c.helper() != old and all(g["state"] == "ok" for g in f["list"])


def test_ends_with_the_engine(ctl):
    c = ctl()
    c.fleet()
    pid = c.helper()
    c.proc.kill()
    c.proc.wait()
    end = time.monotonic() + 3
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < end:
        time.sleep(0.02)
    assert not os.path.exists(f"/proc/{pid}")


def test_omit(ctl):
    c = ctl()
    gpus = c.fleet()["list"]
    c.say("omit", gpus[1]["uuid"], gpus[4]["uuid"])
    m = c.of("telemetry", 5, lambda m: len(m["gpus"]) == 6)
    assert not {gpus[1]["uuid"], gpus[4]["uuid"]} & {g["uuid"] for g in m["gpus"]}
    f = c.ask("fleet", kind="gpus")
    assert len(f["list"]) == 8 and all(g["state"] == "ok" for g in f["list"])
    os.kill(c.helper(), signal.SIGKILL)  # the next one leaves them alone, too
    assert len(c.of("telemetry", 5)["gpus"]) in (6, 8)
    c.of("telemetry", 5, lambda m: len(m["gpus"]) == 6)
    c.say("omit")
    c.of("telemetry", 5, lambda m: len(m["gpus"]) == 8)


def test_gone_for_long(ctl, tmp_path):
    """A GPU that is here is written down as such; one that has not been for a month is forgotten, unless it is
    in quarantine."""
    def rows(sql, *args):
        with contextlib.closing(sqlite3.connect(tmp_path / "journal.db", timeout=10)) as db, db:
            return dict(db.execute(sql, *args).fetchall())

    c = ctl()
    here = [g["uuid"] for g in c.fleet()["list"]]
    c.of("telemetry")
    c.stop()
    month = 30 * 86400
    ago = lambda s: int((time.time() - s) * 1e6)  # noqa: E731
    rows("UPDATE gpu SET seen_us = ?", [ago(2 * month)])
    for name, seen, why in (("GPU-old", month + 60, ""), ("GPU-bad", 2 * month, "dust"), ("GPU-late", month - 60, "")):
        rows("INSERT INTO gpu SELECT ?, vbios, inforom, driver, memory_mib, first_us, ?, '', 0, 0, 0, ? FROM gpu LIMIT 1",
             [name, why, ago(seen)])
    c = ctl(ident=c.id)
    c.of("telemetry")
    c.stop()
    left = rows("SELECT uuid, seen_us FROM gpu")
    assert set(left) == {*here, "GPU-bad", "GPU-late"}
    assert all(left[u] > ago(60) for u in here), left


# --- quarantine ------------------------------------------------------------------------------------

def test_quarantine_survives(ctl):
    c = ctl()
    gpu = c.fleet()["list"][0]["uuid"]
    assert c.ask("quarantine", "GPU-unknown", "x", kind="failed")["code"] == -2
    c.say("quarantine", gpu, "a process still holds it")
    assert c.event("quarantined")["uuid"] == gpu
    assert c.state(gpu, "quarantined")["reason"] == "a process still holds it"
    c.stop(keep=True)
    c = ctl(ident=c.id)
    f = c.fleet()
    assert [g["state"] for g in f["list"]] == ["quarantined"] + ["ok"] * 7
    assert c.ask("remembered", gpu)["cluster"] == "abc"
    c.faults("vbios 0 95.00")
    os.kill(c.helper(), signal.SIGKILL)
    c.of("gpus", 5)
    c.say("release", gpu)
    assert c.event("released")["uuid"] == gpu
    c.state(gpu, "ok")
    # who releases it vouches for how it is; taken down when the driver has said it again
    assert any(c.ask("remembered", gpu)["vbios"] == "95.00" or time.sleep(0.1) for _ in range(20))
    c.stop(keep=True)
    c = ctl(ident=c.id)
    assert c.fleet()["list"][0]["state"] == "ok"


def test_quarantine_that_cannot_be_read(ctl, tmp_path):
    """A damaged record does not let a GPU go, nor is it written over."""
    c = ctl("simulated:4090x1")
    gpu = c.fleet()["list"][0]["uuid"]
    c.say("quarantine", gpu, "a process still holds it")
    c.state(gpu, "quarantined")
    c.stop(keep=True)

    def rename(a, b):
        with contextlib.closing(sqlite3.connect(next(tmp_path.rglob("journal.db")))) as db:
            db.execute(f"ALTER TABLE gpu RENAME COLUMN {a} TO {b}")
            db.commit()
    rename("xid_us", "gone")
    c = ctl("simulated:4090x1", ident=c.id)
    g = c.fleet()["list"][0]
    assert g["state"] == "quarantined" and "cannot be read" in g["reason"]
    c.of("telemetry")
    c.of("telemetry")
    c.stop(keep=True)
    rename("gone", "xid_us")
    c = ctl("simulated:4090x1", ident=c.id)
    assert c.fleet()["list"][0]["reason"] == "a process still holds it"


def test_ever_other_gpus(ctl, tmp_path):
    """A vmm-gpu that was taken over does not fill the disk with GPUs that it invents."""
    for name in os.listdir(build_dir()):
        (tmp_path / "libexec").mkdir(exist_ok=True)
        os.symlink(os.path.join(build_dir(), name), tmp_path / "libexec" / name)
    (tmp_path / "libexec/vmm-gpu").unlink()
    shutil.copy(os.path.join(os.path.dirname(CTL), "takenover"), tmp_path / "libexec/vmm-gpu")
    c = ctl("simulated:4090x1", libexec=tmp_path / "libexec")
    c.fleet(want=lambda f: len(f["list"]) == 64)
    end = time.monotonic() + 15
    while "other GPUs all the time" not in log(tmp_path):
        assert time.monotonic() < end
        time.sleep(0.1)
    c.stop(keep=True)
    with contextlib.closing(sqlite3.connect(next(tmp_path.rglob("journal.db")))) as db:
        assert db.execute("SELECT count(*) FROM gpu").fetchone()[0] <= 8 * 64 + 20


def test_another_engines(ctl):
    """A GPU that a cluster of another engine claims is not for sale here, until it is given back."""
    c = ctl()
    gpus = c.fleet()["list"]
    claim = f"/run/hypervisor-vmm/gpus/{gpus[5]['uuid']}"
    with open(claim, "w", encoding="utf-8") as f:
        f.write("zzzzzzzz abc 1\n")
    try:
        c.say("claims")
        assert "another engine" in c.state(gpus[5]["uuid"], "elsewhere")["reason"]
        with open(claim, "w", encoding="utf-8") as f:
            f.write(f"{c.id} abc 1\n")  # one of ours
        c.say("claims")
        c.state(gpus[5]["uuid"], "ok")
    finally:
        os.unlink(claim)


# --- no driver -------------------------------------------------------------------------------------

def test_none(ctl):
    f = ctl("none").fleet()
    assert f["list"] == [] and f["note"]


def test_library_missing(ctl, tmp_path):
    f = ctl("simulated:4090x1", str(tmp_path / "libnvidia-ml.so.1")).fleet()
    assert f["list"] == [] and "cannot be loaded" in f["note"]


@pytest.fixture
def library():
    """A driver library made of some C, where vmm-gpu's user may read it."""
    with tempfile.TemporaryDirectory(prefix="hvmm-test.", dir="/var/tmp") as top:
        os.chmod(top, 0o755)

        def make(code):
            lib = f"{top}/libnvidia-ml.so.1"
            subprocess.run(["cc", "-shared", "-fPIC", "-x", "c", "-o", lib, "-"], input=code, text=True, check=True)
            return lib
        yield make


STUB = """
int nvmlInit_v2(void);
int nvmlInit_v2(void) { return %d; }
"""


@pytest.mark.parametrize("code,words", [(18, "not of the kernel driver's version"), (9, "not loaded"),
                                        (999, "cannot be started")])
def test_driver_does_not_start(ctl, library, code, words):
    c = ctl("simulated:4090x1", library(STUB % code))
    f = c.fleet()
    assert f["list"] == [] and words in f["note"]
    time.sleep(2)
    assert c.proc.poll() is None and c.helper()


OLD = """
/* The functions as they were named years ago, and a GPU that tells little. */
#include <string.h>
int nvmlInit(void); int nvmlInit(void) { return 0; }
int nvmlShutdown(void); int nvmlShutdown(void) { return 0; }
int nvmlDeviceGetCount(unsigned *n); int nvmlDeviceGetCount(unsigned *n) { *n = 1; return 0; }
int nvmlDeviceGetHandleByIndex(unsigned i, void **d);
int nvmlDeviceGetHandleByIndex(unsigned i, void **d) { *d = (void *) 8; return i ? 2 : 0; }
int nvmlDeviceGetUUID(void *d, char *s, unsigned n);
int nvmlDeviceGetUUID(void *d, char *s, unsigned n) { (void) d; strncpy(s, "GPU-0ld", n); return 0; }
struct pci { char id[16]; unsigned domain, bus, device, a, b, r[4]; };
int nvmlDeviceGetPciInfo(void *d, struct pci *p);
int nvmlDeviceGetPciInfo(void *d, struct pci *p) { (void) d; p->domain = 0; p->bus = 9; p->device = 0; return 0; }
struct mem { unsigned long long total, free, used; };
int nvmlDeviceGetMemoryInfo(void *d, struct mem *m);
int nvmlDeviceGetMemoryInfo(void *d, struct mem *m) { (void) d; m->total = 2ULL << 30; m->used = 1 << 20; return 0; }
struct proc { unsigned pid; unsigned long long mem; };
int nvmlDeviceGetComputeRunningProcesses(void *d, unsigned *n, struct proc *p);
int nvmlDeviceGetComputeRunningProcesses(void *d, unsigned *n, struct proc *p)
{ (void) d; p[0].pid = 12; p[0].mem = 5 << 20; p[1].pid = 13; p[1].mem = ~0ULL; *n = 2; return 0; }
"""


def test_old_library(ctl, library):
    c = ctl("simulated:4090x1", library(OLD))
    g = c.fleet()["list"][0]
    assert (g["uuid"], g["pci"], g["name"], g["memory_mib"]) == ("GPU-0ld", "00000000:09:00.0", "unknown", 2048)
    t = c.of("telemetry")["gpus"][0]
    assert (t["memory_used_mib"], t["processes"]) == (1, 2) and "util_pct" not in t
    row = c.ask("check", "GPU-0ld", kind="checked")["gpus"][0]
    assert row["processes"] == [{"pid": 12, "memory_mib": 5}, {"pid": 13}] and "vbios" not in row


TWO = """
/* Two GPUs; a call about the second one ends who makes it. */
#include <stdlib.h>
#include <string.h>
int nvmlInit_v2(void); int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void); int nvmlShutdown(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned *n); int nvmlDeviceGetCount_v2(unsigned *n) { *n = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **d);
int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **d) { *d = (void *) (8UL + i); return 0; }
int nvmlDeviceGetUUID(void *d, char *s, unsigned n);
int nvmlDeviceGetUUID(void *d, char *s, unsigned n) { strncpy(s, d == (void *) 8 ? "GPU-a" : "GPU-b", n); return 0; }
struct pci { char id[16]; unsigned domain, bus, device, a, b; char more[32]; };
int nvmlDeviceGetPciInfo_v3(void *d, struct pci *p);
int nvmlDeviceGetPciInfo_v3(void *d, struct pci *p)
{ memset(p, 0, sizeof *p); p->bus = (unsigned) (unsigned long) d; return 0; }
struct util { unsigned gpu, memory; };
int nvmlDeviceGetUtilizationRates(void *d, struct util *u);
int nvmlDeviceGetUtilizationRates(void *d, struct util *u) { if (d != (void *) 8) abort(); u->gpu = 5; return 0; }
"""


def test_a_call_that_ends_it(ctl, library):
    c = ctl("simulated:4090x1", library(TWO))
    row = c.state("GPU-b", "unhealthy", 8)
    assert row["reason"] == "a driver call (nvmlDeviceGetUtilizationRates) has ended the program that made it"
    t = c.of("telemetry", 5)
    assert [(g["uuid"], g["util_pct"]) for g in t["gpus"]] == [("GPU-a", 5)]
    assert {g["uuid"]: g["state"] for g in c.ask("fleet", kind="gpus")["list"]} == {
        "GPU-a": "ok", "GPU-b": "unhealthy"}


# --- a vmm-gpu that lies ---------------------------------------------------------------------------

LIAR = r"""
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static int fd;
static void say(const char *text)
{
        unsigned len = htonl((unsigned) strlen(text));
        char head[8] = { 0, 0, 0, 0, 1, 0, 0, 0 };
        memcpy(head, &len, 4);
        if (write(fd, head, 8) != 8 || write(fd, text, strlen(text)) != (ssize_t) strlen(text))
                exit(1);
}
#define GPU(more) "{\"uuid\":\"GPU-1\",\"name\":\"x\",\"pci\":\"00000000:01:00.0\",\"state\":" more "}"
#define FLEET(gpu) say("{\"type\":\"fleet\",\"list\":[" gpu "]}")
int main(int argc, char **argv)
{
        unsigned long n = 0;
        (void) argc;
        fd = atoi(argv[2]);
        FLEET(GPU("\"ok\""));
        for (;; n++) {
                (void) n;
                WHAT;
        }
}
"""

LIES = {
    "no frame": 'write(fd, "\\xff\\xff\\xff\\xff garbage garbage", 20)',
    "no JSON": 'say("{{{{")',
    "no type": 'say("{}")',
    "a type of its own": 'say("{\\"type\\":\\"welcome\\"}")',
    "quarantine": 'FLEET(GPU("\\"quarantined\\""))',
    "a path": 'FLEET("{\\"uuid\\":\\"GPU-../../x\\",\\"name\\":\\"x\\",\\"state\\":\\"ok\\"}")',
    "fleets": 'FLEET(GPU("\\"ok\\"")); FLEET(GPU("\\"unhealthy\\""))',
    "events": 'say("{\\"type\\":\\"event\\",\\"uuid\\":\\"GPU-1\\",\\"kind\\":\\"xid\\",\\"code\\":79,\\"text\\":\\"x\\"}")',
    "telemetry": 'say("{\\"type\\":\\"telemetry\\",\\"gpus\\":[{\\"uuid\\":\\"GPU-1\\"},{\\"uuid\\":\\"GPU-1\\"},{\\"uuid\\":\\"GPU-2\\"}]}")',
    "answers": 'say("{\\"type\\":\\"checked\\",\\"req\\":1,\\"gpus\\":[]}")',
    "at": 'say("{\\"type\\":\\"at\\",\\"gpu\\":\\"GPU-1\\",\\"call\\":\\"nvmlX\\"}")',
    "at nowhere": 'say("{\\"type\\":\\"at\\",\\"gpu\\":\\"GPU-1\\",\\"call\\":\\"rm -rf /\\"}")',
    "an end": "exit(0)",
    "a hung-up line": "close(fd); pause()",
}


def cpu_s(pid):
    with open(f"/proc/{pid}/schedstat", encoding="utf-8") as f:
        return int(f.read().split()[0]) / 1e9


@pytest.mark.parametrize("lie", LIES)
def test_a_liar(tmp_path, lie):
    """Whatever vmm-gpu says and however fast: the loop goes on, little of it reaches others, nothing wrong does."""
    libexec = tmp_path / "libexec"
    libexec.mkdir()
    for name in os.listdir(build_dir()):
        if name != "vmm-gpu":
            (libexec / name).symlink_to(os.path.join(os.path.abspath(build_dir()), name))
    subprocess.run(["cc", "-x", "c", "-w", "-o", str(libexec / "vmm-gpu"), "-"], input=LIAR.replace("WHAT", LIES[lie]),
                   text=True, check=True)
    c = Ctl(tmp_path, "simulated:4090x1", libexec=str(libexec))
    try:
        c.fleet()
        c.ask("lag")
        time.sleep(1.5)
        lag = c.ask("lag")["ms"]
        kinds = [m["type"] for m in c.seen]
        assert lag < 1000, lag
        assert c.proc.poll() is None and cpu_s(c.proc.pid) < 2
        assert kinds.count("event") <= 75 and kinds.count("telemetry") <= 20 and kinds.count("gpus") <= 80
        for m in c.seen:
            for g in m.get("list", []):
                assert (g["uuid"], g["state"] in ("ok", "unhealthy")) == ("GPU-1", True)
            assert m["type"] != "telemetry" or len(m["gpus"]) == 1
    finally:
        c.stop()
