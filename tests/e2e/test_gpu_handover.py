"""What happens to a GPU when a lease ends: checked, scrubbed, given back with a receipt, or put into
quarantine.  Everything with the simulated driver and its faults (tests/fakes); the hosts, clusters and
the driver library's calls are real."""
import contextlib
import json
import os
import re
import sqlite3
import subprocess
import time

import pytest

import host as hosts

CONFIG = {"cpu_overcommit": 100, "memory_overcommit": 50, "disk_overcommit": 50,
          "gpu_driver": "simulated:a100x8"}
TYPE = "NVIDIA A100"
CHECKS = {"processes", "memory", "ecc", "remap", "retired", "xid", "vbios", "inforom"}
DEADLINE = 15  # seconds that a check may take, docs/gpu.md


class GpuHost(hosts.Host):
    def __init__(self, **engine):
        super().__init__({"engine": dict(CONFIG, **engine)})

    def gpus(self):
        return {g["id"]: g for g in self.gql(
            "{ gpus { id name state reason clusterId simulated } }")["gpus"]}

    def lease(self, count=1, **fields):
        cluster = self.deploy(gpuCount=count, gpuTypeId=TYPE, dockerArgs="sleep 100000", **fields)
        self.wait_running(cluster)
        return cluster

    def lease_rest(self, uuid):
        """The seven others; @uuid is not to be had.  One by one: the fabric is divided by 2, 4 and 8."""
        for _ in range(7):
            assert self.uuids(self.lease()) != [uuid]
        with pytest.raises(hosts.ApiError):
            self.deploy(gpuCount=1, gpuTypeId=TYPE)

    def uuids(self, cluster):
        found = self.gql("query($id: String!) { cluster(input: {clusterId: $id}) { gpus { id } } }",
                         {"id": cluster})["cluster"]["gpus"]
        return [g["id"] for g in found]

    def receipts(self, cluster):
        found = self.gql("query($id: String!) { cluster(input: {clusterId: $id}) { gpuReceipts } }",
                         {"id": cluster})["cluster"]["gpuReceipts"]
        return {r["uuid"]: r for r in found or []}

    def faults(self, *lines, name="faults"):
        """What the simulated driver does wrong from now on."""
        folder = hosts.RUN / self.id / "simulated"
        fresh = folder / (name + ".new")
        fresh.write_text("".join(line + "\n" for line in lines))
        fresh.chmod(0o644)
        fresh.rename(folder / name)

    def wait_gpu(self, uuid, until, timeout=20):
        end = time.monotonic() + timeout
        while True:
            g = self.gpus()[uuid]
            if until(g):
                return g
            assert time.monotonic() < end, (g, self.log_text()[-3000:])
            time.sleep(0.05)

    def stop_cluster(self, cluster, timeout=DEADLINE + 10):
        """Its receipts."""
        self.call("clusterStop", cluster)
        self.wait_exited(cluster, timeout)
        return self.receipts(cluster)

    def release(self, uuid):
        return self.gql("mutation($id: String!) { gpuRelease(input: {gpuId: $id}) { id state } }",
                        {"id": uuid})["gpuRelease"]

    def remove(self, *clusters):
        for c in clusters:
            self.terminate(c)
        self.wait_gone(DEADLINE + 10)

    def wait_gone(self, timeout):
        """Also the checks are over."""
        end = time.monotonic() + timeout
        while self.clusters() or self.gpu_claims():
            assert time.monotonic() < end, (self.clusters(), self.log_text()[-3000:])
            time.sleep(0.05)
        self.wait_released()

    def known(self):
        """{uuid: row} of the GPUs that it has measured."""
        with contextlib.suppress(sqlite3.DatabaseError):  # it was being written
            return {u: r for u, r in self.journal("gpu").items() if r["vbios"] and r["memory_mib"] >= 0}
        return {}

    def measured(self, timeout=60):
        """What later checks compare with has been seen: nobody has a GPU, and none was just released."""
        end = time.monotonic() + timeout
        while not self.gpus() or set(self.gpus()) - set(self.known()):
            assert time.monotonic() < end, (self.gpus(), self.known())
            time.sleep(0.2)

    def mended(self):
        """No faults, no quarantine, and it knows how each GPU is: as at the beginning."""
        self.faults()
        for uuid, g in self.gpus().items():
            if g["state"] == "quarantined":
                self.release(uuid)
            self.wait_gpu(uuid, lambda g: g["state"] == "ok", 90)
        self.measured()


@pytest.fixture(scope="module")
def host():
    with GpuHost() as h:
        h.import_image()
        h.measured()
        yield h


@pytest.fixture(autouse=True)
def whole(request):
    yield
    if "host" in request.fixturenames:
        h = request.getfixturevalue("host")
        for c in h.clusters():
            h.terminate(c["id"])
        h.faults()
        h.wait_gone(60)
        h.mended()


def test_receipt_of_a_clean_one(host):
    cluster = host.lease(2)
    uuids = host.uuids(cluster)
    assert set(host.gpu_claims()) == set(uuids)
    receipts = host.stop_cluster(cluster)
    assert set(receipts) == set(uuids)
    for r in receipts.values():
        assert r["ok"] and r["reason"] == "" and set(r["checks"]) == CHECKS, r
        assert re.fullmatch(r"\d+ MiB, baseline \d+", r["checks"]["memory"]), r
        assert abs(r["at_us"] / 1e6 - time.time()) < 60
    assert host.gpu_claims() == {}
    shown = json.loads(host.cli("get", "cluster", cluster, "-o", "json").stdout)
    shown = shown[0] if isinstance(shown, list) else shown
    assert {r["uuid"] for r in shown["gpuReceipts"]} == set(uuids), shown
    # they last over a restart of everything
    host.restart()
    assert host.receipts(cluster) == receipts
    # the next lease has none yet
    host.call("clusterResume", cluster)
    host.wait_running(cluster)
    host.remove(cluster)
    told = host.gql('{ events(input: {kind: "gpu.handover", limit: 100}) { object clusterId } }')
    assert sum(e["clusterId"] == cluster for e in told["events"]) == 4
    rows = [r for r in host.cli("get", "events", "--kind", "gpu.handover").stdout.splitlines() if cluster in r]
    assert len(rows) == 4 and "{" not in "".join(rows)
    assert all(re.search(r"clean; processes: none; memory: \d+ MiB, baseline \d+; ecc: none new; ", r) for r in rows), rows


def test_cluster_without_gpus_has_none(host):
    cluster = host.deploy(dockerArgs="sleep 1000")
    host.wait_running(cluster)
    assert host.stop_cluster(cluster) == {}
    row = host.journal()[cluster]
    assert row["gpus"] is None and row["gpu_receipts"] is None
    host.remove(cluster)


# fault, what the reason says, whether waiting could have mended it
BROKEN = [
    ("leak {} 3000", "its memory is not given back", True),
    ("process {} 4242 100", "processes still hold it: 1, one is pid 4242", True),
    ("xid {} 79", "the driver reported errors (Xid): 79", False),
    ("ecc {} 2", "errors in its memory could not be corrected: 2 uncorrected", False),
    ("remap {} pending", "a row of memory waits to be remapped", False),
    ("remap {} failed", "a row of memory could not be remapped", False),
    ("retired {}", "a page of memory waits to be retired", False),
    ("vbios {} 99.99.99.00.01", "its VBIOS is another one: 99.99.99.00.01", False),
    ("inforom {} G999", "its InfoROM is another one: G999", False),
]


@pytest.mark.parametrize("fault, says, waits", BROKEN, ids=[b[0].split()[0] + b[0][-6:].strip()
                                                          for b in BROKEN])
def test_quarantine_and_release(host, fault, says, waits):
    cluster = host.lease()
    uuid, = host.uuids(cluster)
    host.faults(fault.format(uuid))
    if "xid" in fault:  # an event, while it is leased
        host.wait(cluster, lambda c: c["reason"] and "Xid 79" in c["reason"])
    began = time.monotonic()
    receipt = host.stop_cluster(cluster)[uuid]
    took = time.monotonic() - began
    assert not receipt["ok"] and says in receipt["reason"], receipt
    assert (DEADLINE - 1 < took < DEADLINE + 5) if waits else took < 5, took
    g = host.wait_gpu(uuid, lambda g: g["state"] == "quarantined")
    assert says in g["reason"], g
    others = [x for x in host.gpus().values() if x["id"] != uuid]
    assert all(x["state"] == "ok" for x in others), others
    # not sold, not lost: seven are there, the eighth is not to be had
    with pytest.raises(hosts.ApiError):
        host.deploy(gpuCount=8, gpuTypeId=TYPE)
    host.lease_rest(uuid)
    # quarantine outlives the engine, and the trouble
    host.faults()
    host.restart()
    host.wait_gpu(uuid, lambda g: g["state"] == "quarantined" and says in g["reason"])
    assert "hvmm_gpus_quarantined 1" in metrics(host)
    # the operator vouches for it
    assert host.release(uuid)["id"] == uuid
    host.wait_gpu(uuid, lambda g: g["state"] == "ok")
    last = host.lease()
    assert host.uuids(last) == [uuid]
    assert host.stop_cluster(last)[uuid]["ok"]
    told = host.gql('query($u: String!) { events(input: {object: $u, limit: 50}) { kind } }',
                    {"u": uuid})["events"]
    kinds = [e["kind"] for e in told]
    assert "gpu.quarantined" in kinds and "gpu.released" in kinds, kinds


def metrics(host):
    text = host.rest("GET", "/metrics").text
    return "\n".join(re.sub(r"\{[^}]*\}", "", line) for line in text.split("\n"))


def test_program_faults_are_no_reason(host):
    """A tenant cannot take GPUs off the market by crashing programs."""
    cluster = host.lease()
    uuid, = host.uuids(cluster)
    host.faults("xid %s 13" % uuid, "xid %s 31" % uuid, "xid %s 45" % uuid)
    asked = 'query($u: String!) { events(input: {object: $u, kind: "gpu.xid"}) { text } }'
    end = time.monotonic() + 20
    while len(host.gql(asked, {"u": uuid})["events"]) < 3:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert not host.cluster(cluster)["reason"]
    receipt = host.stop_cluster(cluster)[uuid]
    assert receipt["ok"] and "(of a program)" in receipt["checks"]["xid"], receipt


def test_first_versions_are_kept(host):
    """What the operator vouched for is what is compared with from then on."""
    cluster = host.lease()
    uuid, = host.uuids(cluster)
    host.faults("vbios %s 1.2.3" % uuid)
    assert not host.stop_cluster(cluster)[uuid]["ok"]
    host.wait_gpu(uuid, lambda g: g["state"] == "quarantined")
    host.release(uuid)
    host.wait_gpu(uuid, lambda g: g["state"] == "ok")
    host.measured()  # the driver is opened anew for that
    assert host.known()[uuid]["vbios"] == "1.2.3"
    everything = host.lease(8)
    receipts = host.stop_cluster(everything)
    assert receipts[uuid]["ok"] and receipts[uuid]["checks"]["vbios"] == "1.2.3", receipts
    # and the version from before is another one now
    host.call("clusterResume", everything)
    host.wait_running(everything)
    host.faults()
    assert "1.2.3 when first seen" in host.stop_cluster(everything)[uuid]["reason"]


def test_memory_that_is_given_back_late(host):
    cluster = host.lease()
    uuid, = host.uuids(cluster)
    host.faults("leak %s 5000" % uuid)
    host.call("clusterStop", cluster)
    time.sleep(3)
    c = host.cluster(cluster)
    assert c["phase"] == "stopping", c
    assert host.gpu_claims() == {uuid: cluster}
    free = [g for g in host.gpus().values() if not g["clusterId"]]
    assert len(free) == 7
    host.faults()
    host.wait_exited(cluster, 5)
    assert host.receipts(cluster)[uuid]["ok"]
    assert host.gpu_claims() == {}


def test_lost_while_leased(host):
    """Fallen off the bus: the cluster hears why and goes on; the GPU is not sold again."""
    cluster = host.lease()
    uuid, = host.uuids(cluster)
    first = host.first_pid(cluster)
    host.faults("lose %s" % uuid)
    c = host.wait(cluster, lambda c: c["reason"] and uuid in c["reason"], 30)
    assert c["desiredStatus"] == "RUNNING" and c["runtime"], c
    assert host.first_pid(cluster) == first
    assert host.exec(cluster, "echo", "here").stdout == "here\n"
    host.wait_gpu(uuid, lambda g: g["state"] in ("lost", "unhealthy"))
    receipt = host.stop_cluster(cluster)[uuid]
    assert not receipt["ok"], receipt
    host.wait_gpu(uuid, lambda g: g["state"] == "quarantined")
    host.lease_rest(uuid)
    # also when it comes back
    host.faults()
    time.sleep(2)
    assert host.gpus()[uuid]["state"] == "quarantined"


def test_restarted_on_a_bad_one(host):
    """Who restarts a cluster keeps its GPU, and is told that it did not pass the check in between; a start
    after a stop takes another one."""
    cluster = host.lease()
    uuid, = host.uuids(cluster)
    host.faults("ecc %s 2" % uuid)
    host.call("clusterRestart", cluster)
    c = host.wait(cluster, lambda c: c["runtime"] and c["reason"], DEADLINE + 10)
    assert re.match("GPU %s: quarantined: errors in its memory" % uuid, c["reason"]), c["reason"]
    assert host.uuids(cluster) == [uuid] and not host.receipts(cluster).get(uuid, {"ok": False})["ok"]
    host.restart()
    host.wait(cluster, lambda c: c["runtime"] and "quarantined" in (c["reason"] or ""), 30)
    host.faults()
    assert host.release(uuid)["id"] == uuid
    host.wait(cluster, lambda c: c["runtime"] and not c["reason"], 30)
    host.faults("vbios %s 6.66" % uuid)
    host.call("clusterRestart", cluster)
    host.wait(cluster, lambda c: c["runtime"] and "VBIOS is another one" in (c["reason"] or ""), DEADLINE + 10)
    host.stop_cluster(cluster)
    host.call("clusterResume", cluster)
    host.wait_running(cluster)
    assert host.uuids(cluster) != [uuid] and not host.cluster(cluster)["reason"]


def test_a_check_that_hangs(host):
    cluster = host.lease(2)
    uuid, other = host.uuids(cluster)
    # asked by nothing but a check
    host.faults("hang %s nvmlDeviceGetRetiredPagesPendingStatus" % uuid)
    began = time.monotonic()
    receipts = host.stop_cluster(cluster)
    took = time.monotonic() - began
    assert not receipts[uuid]["ok"] and took < DEADLINE + 5, (took, receipts)
    assert receipts[other]["ok"], receipts
    host.wait_gpu(uuid, lambda g: g["state"] == "quarantined")
    assert host.gpus()[other]["state"] == "ok"
    # the engine never stalled
    began = time.monotonic()
    assert host.gpus()
    assert time.monotonic() - began < 1


def test_release_of_what_is_not_quarantined(host):
    uuid = next(iter(host.gpus()))
    with pytest.raises(hosts.ApiError) as e:
        host.release(uuid)
    assert "only a quarantined GPU is released" in str(e.value)
    with pytest.raises(hosts.ApiError):
        host.release("GPU-00000000-0000-0000-0000-000000000000")
    key = host.new_account("nobody%d" % os.getpid())
    with pytest.raises(hosts.ApiError):
        host.gql("mutation { gpuRelease(input: {gpuId: \"%s\"}) { id } }" % uuid, key=key)


@pytest.mark.parametrize("gone", [False, True], ids=["stop", "terminate"])
def test_killed_while_it_waits(host, gone):
    """The row still holds the GPU: the next engine looks before anybody gets it."""
    cluster = host.lease()
    uuid, = host.uuids(cluster)
    host.faults("leak %s 5000" % uuid)
    if gone:
        host.terminate(cluster)
    else:
        host.call("clusterStop", cluster)
    time.sleep(2)
    assert json.loads(host.journal()[cluster]["gpus"])[uuid]
    host.restart()
    assert host.gpu_claims() == {uuid: cluster}
    host.lease_rest(uuid)
    host.faults()
    if gone:
        end = time.monotonic() + 20
        while uuid in host.gpu_claims():
            assert time.monotonic() < end
            time.sleep(0.05)
    else:
        host.wait_exited(cluster, 20)
        assert host.receipts(cluster)[uuid]["ok"]
    last = host.lease()
    assert host.uuids(last) == [uuid]


@pytest.mark.parametrize("delay", [0, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.3])
def test_killed_at_any_time(host, delay):
    """Never sold twice, never lost, always a receipt."""
    cluster = host.lease()
    uuid, = host.uuids(cluster)
    host.call("clusterStop", cluster)
    time.sleep(delay)
    host.restart()
    host.wait_exited(cluster, 20)
    receipt = host.receipts(cluster)[uuid]
    assert receipt["ok"] and set(receipt["checks"]) == CHECKS, receipt
    assert host.gpu_claims() == {}
    assert host.journal()[cluster]["gpus"] is None
    all_of_them = host.lease(8)
    assert len(set(host.uuids(all_of_them))) == 8


def test_crashing_program_keeps_its_gpu(host):
    """Between restarts of one cluster the GPU stays its own, unchecked."""
    cluster = host.deploy(gpuCount=1, gpuTypeId=TYPE,
                          dockerArgs=json.dumps({"cmd": ["sh", "-c", "sleep 0.2; exit 3"]}))
    host.wait(cluster, lambda c: c["reason"] and "exit code 3" in c["reason"])
    uuid, = host.uuids(cluster)
    assert host.gpu_claims() in ({uuid: cluster}, {})
    assert json.loads(host.journal()[cluster]["gpus"])[uuid]
    assert host.gpus()[uuid]["clusterId"] == cluster
    assert host.stop_cluster(cluster)[uuid]["ok"]


# ---- scrub ----

def library(h):
    """Of the simulated CUDA, in the engine's own mount namespace."""
    root = "/proc/%d/root/run/hypervisor-vmm/%s/driver" % (h.pid, h.id)
    for folder, _, files in os.walk(root):
        for name in files:
            if name.startswith("libcuda.so."):
                return os.path.join(folder, name)
    raise RuntimeError("there is no libcuda below " + root)


@pytest.mark.parametrize("mode", ["auto", "require"])
def test_scrub(mode):
    with GpuHost(gpu_scrub=mode) as h:
        h.import_image()
        h.measured()
        cluster = h.lease(2)
        receipts = h.stop_cluster(cluster)
        assert all(r["ok"] and re.fullmatch(r"\d+ of 64 MiB overwritten and read back in \d\.\d s",
                                            r["checks"]["scrub"]) for r in receipts.values()), receipts
        # memory that does not keep what is written
        h.faults("flip=1000", name="cuda-faults")
        cluster2 = h.lease()
        uuid, = h.uuids(cluster2)
        receipt = h.stop_cluster(cluster2)[uuid]
        assert not receipt["ok"] and "did not keep what was written" in receipt["reason"], receipt
        h.wait_gpu(uuid, lambda g: g["state"] == "quarantined")
        # a driver that does not work
        h.faults("fail=cuDevicePrimaryCtxRetain", name="cuda-faults")
        cluster3 = h.lease()
        uuid, = h.uuids(cluster3)
        receipt = h.stop_cluster(cluster3)[uuid]
        assert not receipt["ok"] and "cuDevicePrimaryCtxRetain" in receipt["reason"], receipt
        # no CUDA at all
        h.faults(name="cuda-faults")
        os.unlink(library(h))
        cluster4 = h.lease()
        uuid, = h.uuids(cluster4)
        receipt = h.stop_cluster(cluster4)[uuid]
        assert "there is no CUDA driver library" in receipt["checks"]["scrub"], receipt
        assert receipt["ok"] == (mode == "auto"), receipt
        h.wait_gpu(uuid, lambda g: g["state"] == ("ok" if mode == "auto" else "quarantined"))


def test_scrub_below_a_closed_folder(tmp_path):
    """The scrub's user cannot come to its program by name, and does not have to."""
    programs = tmp_path / "closed" / "programs"
    programs.mkdir(parents=True)
    programs.parent.chmod(0o700)
    subprocess.run(["mount", "--bind", hosts.BUILD, programs], check=True)
    try:
        h = GpuHost(gpu_scrub="require")
        h.programs = programs
        with h:
            h.import_image()
            h.measured()
            receipt, = h.stop_cluster(h.lease()).values()
            assert receipt["ok"] and "overwritten and read back" in receipt["checks"]["scrub"], receipt
    finally:
        subprocess.run(["umount", "--lazy", programs], check=True)


def test_killed_while_it_scrubs():
    with GpuHost(gpu_scrub="require") as h:
        h.import_image()
        h.measured()
        cluster = h.lease()
        uuid, = h.uuids(cluster)
        h.faults("hang", name="cuda-faults")
        h.call("clusterStop", cluster)
        end = time.monotonic() + 10
        while not h.descendants("vmm-gpu")[1:]:
            assert time.monotonic() < end
            time.sleep(0.02)
        h.restart()
        assert h.gpu_claims() == {uuid: cluster}
        h.faults(name="cuda-faults")
        # the one that hangs has begun anew: it is ended by its deadline, or by us
        end = time.monotonic() + 100
        while h.cluster(cluster)["phase"] != "exited":
            assert time.monotonic() < end, h.log_text()[-2000:]
            time.sleep(0.2)
        receipt = h.receipts(cluster)[uuid]
        assert receipt["ok"] or "within 60 s" in receipt["reason"], receipt


def test_configuration():
    h = GpuHost(gpu_scrub="sometimes")
    with pytest.raises(RuntimeError) as e:
        h.start()
    assert "gpu_scrub: must be off, auto or require" in str(e.value)
    h.proc = None
    h.close()


def test_vfio(host):
    """Operators alone; the simulated tree has a group for each GPU and the driver bound."""
    answer = json.loads(host.cli("get", "gpus", "--vfio", "-o", "json").stdout)
    assert answer["iommu"] and answer["simulated"] and len(answer["devices"]) == 8
    for d in answer["devices"]:
        assert d["driver"] == "nvidia" and d["resettable"] and d["members"] == [], d
        assert any("taken from the driver nvidia" in n for n in d["needs"]), d
    shown = host.cli("get", "gpus", "--vfio")
    assert "simulated" in shown.stderr and shown.stdout.count("nvidia") >= 8
    key = host.new_account("vfio%d" % os.getpid())
    with pytest.raises(hosts.ApiError):
        host.gql("{ gpuVfio }", key=key)


def test_instances():
    """MIG: an instance is checked and quarantined by itself; what happens to its GPU concerns it."""
    with GpuHost(gpu_driver="simulated:a100mig") as h:
        h.import_image()
        h.measured()
        kind = "NVIDIA A100 1g.10gb"
        cluster = h.deploy(gpuCount=1, gpuTypeId=kind, dockerArgs="sleep 100000")
        h.wait_running(cluster)
        uuid, = h.uuids(cluster)
        assert uuid.startswith("MIG-")
        receipt = h.stop_cluster(cluster)[uuid]
        assert receipt["ok"] and receipt["checks"]["processes"] == "none", receipt
        h.call("clusterResume", cluster)
        h.wait_running(cluster)
        uuid, = h.uuids(cluster)
        parent = h.gql("{ gpus { id parentId } }")["gpus"]
        parent = next(g["parentId"] for g in parent if g["id"] == uuid)
        h.faults("xid %s 95" % parent)
        c = h.wait(cluster, lambda c: c["reason"])
        assert uuid in c["reason"], c["reason"]
        receipt = h.stop_cluster(cluster)[uuid]
        assert not receipt["ok"] and "95" in receipt["reason"], receipt
        h.wait_gpu(uuid, lambda g: g["state"] == "quarantined")
        h.faults()
