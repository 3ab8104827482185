"""GPUs on a whole host with a simulated driver: what the API, the command line and /metrics show is
what vmm-gpu has measured through the driver library, and trouble of the driver arrives as events."""
import os
import subprocess
import sys
import time

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from host import RUN, ApiError, Host, program  # noqa: E402
from prometheus import Metrics  # noqa: E402

A100 = "NVIDIA A100-SXM4-80GB"


class GpuHost(Host):
    def faults(self, *lines):
        """Trouble on command (docs/gpu.md); none ends it."""
        path = RUN / self.id / "simulated" / "faults"
        temporary = path.with_suffix(".new")
        temporary.write_text("".join(line + "\n" for line in lines))
        temporary.replace(path)

    def metrics(self):
        r = self.rest("GET", "/metrics")
        assert r.status_code == 200, r.text
        return Metrics(r.content)

    def gpus(self, select="id index state reason clusterId telemetry"):
        return self.gql("{ gpus { %s } }" % select)["gpus"]

    def until(self, what, test, timeout=10):
        end = time.monotonic() + timeout
        while True:
            got = what()
            if test(got):
                return got
            assert time.monotonic() < end, (got, self.log_text()[-2000:])
            time.sleep(0.1)

    def cli(self, *words):
        env = {"HOME": str(self.dir), "PATH": os.environ["PATH"], "TENSORONE_API_URL": self.url,
               "TENSORONE_API_KEY": self.key}
        p = subprocess.run([program("tensoronecli"), *words], env=env, capture_output=True, text=True, timeout=30)
        assert p.returncode == 0 and p.stderr == "", p.stdout + p.stderr
        return p.stdout


@pytest.fixture(scope="module")
def host():
    config = {"engine": {"gpu_driver": "simulated:a100x8", "cpu_overcommit": 100, "memory_overcommit": 50,
                         "disk_overcommit": 50},
              'gpu "%s"' % A100: {"on_demand": "1.19", "spot": "0.6"}}
    with GpuHost(config=config) as h:
        h.import_image("tensorone/starter")
        h.until(h.gpus, lambda g: len(g) == 8 and all(x["telemetry"] for x in g))
        yield h


def test_types_and_prices(host):
    (t,) = host.gql("{ gpuTypes { id displayName maxGpuCount securePrice simulated lowestPrice(input: {gpuCount: 8}) "
                    "{ stockStatus availableGpuCounts uninterruptablePrice } } }")["gpuTypes"]
    assert t["id"] == A100 and t["displayName"] == "A100 SXM (simulated)" and t["simulated"] is True
    assert t["maxGpuCount"] == 8 and t["securePrice"] == 1.19 and t["lowestPrice"]["stockStatus"] == "High"
    assert {1, 2, 4, 8} <= set(t["lowestPrice"]["availableGpuCounts"])
    with pytest.raises(ApiError, match="allowedCudaVersions: 65 elements, at most 64 are allowed"):
        host.gql("query($c: [String!]) { gpuTypes { lowestPrice(input: {gpuCount: 1, allowedCudaVersions: $c}) { "
                 "stockStatus } } }", {"c": ["12.4"] * 65})
    rows = [[c.strip() for c in line.split("\t")] for line in host.cli("get", "cloud").splitlines()]
    assert rows[1][0] == "1x " + A100 + " (simulated)" and rows[1][3:5] == ["0.600", "1.190"]


def test_a_cluster_sees_its_own_numbers(host):
    k = host.deploy(imageName="tensorone/starter", gpuTypeId="NVIDIA A100", gpuCount=2, dockerArgs="sleep 1000")
    host.wait_running(k)
    q = ('{ cluster(input: {clusterId: "%s"}) { costPerHr gpus { id } machine { gpuDisplayName } runtime { gpus '
         "{ id gpuUtilPercent memoryUtilPercent } } latestTelemetry { time state individualGpuMetrics { id "
         "percentUtilization temperatureCelcius powerWatts } } } }" % k)
    c = host.until(lambda: host.gql(q)["cluster"], lambda c: c["runtime"]["gpus"][0]["gpuUtilPercent"] is not None)
    ids = [g["id"] for g in c["gpus"]]
    assert c["costPerHr"] == 2.38 and c["machine"]["gpuDisplayName"] == "A100 SXM (simulated)" and len(ids) == 2
    assert [g["id"] for g in c["runtime"]["gpus"]] == ids
    assert all(0 <= g["gpuUtilPercent"] <= 100 for g in c["runtime"]["gpus"])
    one = c["latestTelemetry"]["individualGpuMetrics"][0]
    assert one["id"] == ids[0] and 20 <= one["temperatureCelcius"] <= 100 and 30 <= one["powerWatts"] <= 500
    index = next(g["index"] for g in host.gpus() if g["id"] == ids[0])
    host.faults("util %d 88" % index, "temperature %d 71" % index)
    try:
        host.until(lambda: host.gql(q)["cluster"]["latestTelemetry"]["individualGpuMetrics"][0],
                   lambda m: m["percentUtilization"] == 88 and m["temperatureCelcius"] == 71)
        m = host.metrics()
        assert m.one("DCGM_FI_DEV_GPU_UTIL", UUID=ids[0], cluster=k, simulated="true", gpu=str(index)) == 88
        assert "88%" in host.cli("top")
    finally:
        host.faults()
    assert host.metrics().one("hvmm_gpus_taken") == 2
    # one that is stopped and was changed meanwhile has none, and its name says so all the same
    host.call("clusterStop", k)
    host.wait_exited(k)
    shown = "{ cluster(input: {clusterId: \"%s\"}) { machine { gpuDisplayName } } }" % k
    for n, name in ((4, "A100 SXM (simulated)"), (0, "CPU"), (1, "A100 SXM (simulated)")):
        host.gql('mutation { clusterUpdate(input: {clusterId: "%s", gpuCount: %d}) { id } }' % (k, n))
        assert host.gql(shown)["cluster"]["machine"]["gpuDisplayName"] == name
    host.terminate(k)
    host.until(host.metrics, lambda m: m.one("hvmm_gpus_taken") == 0)


def test_trouble_is_an_event(host):
    gpus = host.gpus()
    host.faults("xid 3 31")  # what any program can cause: told, and no more
    try:
        q = '{ events(input: {kind: "gpu"}) { kind object text } }'
        e = host.until(lambda: host.gql(q)["events"], lambda e: any(x["kind"] == "gpu.xid" for x in e))
        x = next(x for x in e if x["kind"] == "gpu.xid")
        assert x["object"] == next(g["id"] for g in gpus if g["index"] == 3) and "(31)" in x["text"]
        assert "gpu.xid" in host.cli("get", "events", "--kind", "gpu")
        host.until(host.metrics, lambda m: m.one("DCGM_FI_DEV_XID_ERRORS", gpu="3") == 31)
    finally:
        host.faults()


def test_topology(host):
    lines = host.cli("get", "gpus", "--topo").splitlines()
    assert lines[0].split("\t")[1:] == ["GPU%d" % i for i in range(8)] + ["CPU Affinity", "NUMA Affinity"]
    for i in range(8):
        row = lines[1 + i].split("\t")
        assert row[0] == "GPU%d" % i and row[1 + i] == " X " and row.count("NV12") == 7


def test_metrics_of_a_whole_host(host):
    m = host.metrics()
    for name in ("DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_FB_USED", "DCGM_FI_DEV_FB_FREE", "DCGM_FI_DEV_GPU_TEMP",
                 "DCGM_FI_DEV_POWER_USAGE", "DCGM_FI_DEV_SM_CLOCK", "DCGM_FI_DEV_XID_ERRORS"):
        assert len(m.all(name)) == 8, name
    assert m.one("hvmm_node_connected") == 1 and m.one("hvmm_gpus_total") == 8
    assert m.one("hvmm_gpus_simulated") == 1


def test_quarantine_is_shown_and_ended(host):
    """A GPU whose memory is not given back: why, an event, a metric; and the operator's release."""
    k = host.deploy(imageName="tensorone/starter", gpuTypeId=A100, gpuCount=1, dockerArgs="sleep 1000")
    host.wait_running(k)
    g = next(g for g in host.gpus() if g["clusterId"] == k)
    i = g["index"]
    host.faults("leak %d 3000" % i)
    try:
        host.terminate(k)
        bad = host.until(lambda: host.gpus()[i], lambda g: g["state"] == "quarantined" and g["clusterId"] is None, 60)
        assert bad["reason"]
        assert host.metrics().one("hvmm_gpus_quarantined") == 1
        assert host.metrics().one("hvmm_gpu_state", gpu=str(i), state="quarantined") == 1
        row = host.cli("get", "gpus").splitlines()[1 + i]
        assert "quarantined" in row and bad["reason"][:20] in row
        assert 8 not in host.gql("{ gpuTypes { lowestPrice { availableGpuCounts } } }")["gpuTypes"][0][
            "lowestPrice"]["availableGpuCounts"]
        e = host.gql('{ events(input: {object: "%s"}) { kind } }' % g["id"])["events"]
        assert "gpu.quarantined" in [x["kind"] for x in e]
    finally:
        host.faults()
    assert "released" in host.cli("gpu", "release", str(i))
    host.until(lambda: host.gpus()[i], lambda g: g["state"] == "ok")
    assert host.metrics().one("hvmm_gpus_quarantined") == 0


def test_no_driver():
    """The answer says why there is no GPU, in the words of the one who looked for it."""
    with GpuHost(config={"engine": {"gpu_driver": "none", "cpu_overcommit": 100, "memory_overcommit": 50,
                                    "disk_overcommit": 50}}) as h:
        assert h.gpus() == [] and h.gql("{ gpuTypes { id } }")["gpuTypes"] == []
        with pytest.raises(ApiError) as e:
            h.deploy(gpuCount=1, gpuTypeId="NVIDIA A100")
        assert "gpuCount: 1 x NVIDIA A100 wanted, this host has no GPU (gpu_driver = none); gpuCount 0 would fit" in str(e.value)
        assert h.clusters() == []
