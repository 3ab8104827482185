"""What users and operators see of GPUs: the real tensorone-api against an engine that names fleets and
measures nothing itself (fake_node.py).  Types, prices, what is free, telemetry, events, /metrics."""
import os
import random
import resource
import sqlite3
import sys
import time

import pytest
import requests

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import fleets  # noqa: E402
from fake_node import FakeNode  # noqa: E402
from prometheus import Metrics  # noqa: E402
from test_api import Api  # noqa: E402

A100 = "NVIDIA A100-SXM4-80GB"
PRICES = [{"type": A100, "on_demand": 1.19, "spot": 0.6}]
LOWEST = ("lowestPrice(input: {%s}) { gpuName gpuTypeId minimumBidPrice uninterruptablePrice minMemory minVcpu "
          "rentedCount totalCount rentalPercentage stockStatus maxUnreservedGpuCount availableGpuCounts }")


class GpuNode(FakeNode):
    """With a fleet of its own, and an operator's release."""

    def measure(self, **more):
        self.say({"type": "telemetry", "at_us": int(time.time() * 1e6),
                  "gpus": [fleets.numbers(g["uuid"], **more) for g in self.fleet["list"]]})

    def happen(self, i, kind, text="", **more):
        self.say({"type": "event", "at_us": int(time.time() * 1e6), "uuid": self.fleet["list"][i]["uuid"],
                  "kind": kind, "text": text, **more})

    def set_state(self, i, state, reason=""):
        self.fleet["list"][i].update(state=state, reason=reason)
        self.say_gpus()

    def op_gpu_release(self, conn, req, args, fds):
        for i, g in enumerate(self.fleet["list"]):
            if g["uuid"] == args["uuid"]:
                if g["serial"] == "stuck":
                    raise FileNotFoundError("the driver still names a process")
                self.set_state(i, "ok")
                return {}, []
        raise FileNotFoundError("no such GPU")


class World:
    def __init__(self, tmp_path, fleet, **more):
        self.node = GpuNode(str(tmp_path / "node.sock"), str(tmp_path), fleet=fleet, prices=PRICES, cpus=16,
                            memory_mib=256 << 10, disk_gib=2000, **more)
        self.api = Api(tmp_path, self.node.path)

    def close(self):
        self.api.close()
        self.node.close()

    def types(self, select, args=""):
        return self.api.gql("{ gpuTypes%s { %s } }" % (args, select))["gpuTypes"]

    def lowest(self, args="gpuCount: 1"):
        return self.types("id " + LOWEST % args)[0]["lowestPrice"]

    def take(self, n, key=None, extra="", select="id"):
        return self.api.gql('mutation { clusterFindAndDeployOnDemand(input: {imageName: "tensorone/starter", '
                            'gpuTypeId: "%s", gpuCount: %d, minMemoryInGb: 8, containerDiskInGb: 10 %s}) { %s } }'
                            % (A100, n, extra, select), key)["clusterFindAndDeployOnDemand"]

    def until(self, test, what, timeout=30):
        end = time.monotonic() + timeout
        while True:
            got = what()
            if test(got):
                return got
            assert time.monotonic() < end, got
            time.sleep(0.02)

    def gpus(self, select="id state reason clusterId"):
        return self.api.gql("{ gpus { %s } }" % select)["gpus"]

    def events(self, key=None, args="", select="time kind object clusterId podId account text"):
        return self.api.gql("{ events%s { %s } }" % (args, select), key)["events"]

    def metrics(self):
        r = self.api.get("/metrics")
        assert r.status_code == 200, r.text
        assert r.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        return Metrics(r.content)


@pytest.fixture
def make(tmp_path):
    worlds = []

    def start(fleet=None, **more):
        w = World(tmp_path, fleet or fleets.a100x8(), **more)
        worlds.append(w)
        w.api.start()
        return w

    yield start
    for w in worlds:
        w.close()


def test_types_are_public(make):
    """Without a key, as catalogues ask."""
    w = make()
    q = ("query G($lowestPriceInput: GpuLowestPriceInput) { gpuTypes { maxGpuCount maxGpuCountSecureCloud "
         "minPodGpuCount id displayName manufacturer memoryInGb cudaCores secureCloud communityCloud securePrice "
         "communityPrice secureSpotPrice communitySpotPrice oneMonthPrice clusterPrice simulated "
         "lowestPrice(input: $lowestPriceInput) { stockStatus compliance countryCode minVcpu } } "
         "dataCenters { id listed gpuAvailability { gpuTypeId displayName stockStatus available } } "
         "serverlessGpuPools { id gpuTypeIds } }")
    r = requests.post(w.api.base + "/graphql",
                      json={"query": q, "variables": {"lowestPriceInput": {"gpuCount": 1, "secureCloud": None,
                                                                           "unknown": 1}}})
    assert r.status_code == 200 and "errors" not in r.json(), r.text
    d = r.json()["data"]
    (t,) = d["gpuTypes"]
    assert t["id"] == A100 and t["displayName"] == "A100 SXM" and t["manufacturer"] == "NVIDIA"
    assert t["memoryInGb"] == 80 and t["cudaCores"] == 6912 and t["maxGpuCount"] == 8 == t["maxGpuCountSecureCloud"]
    assert t["securePrice"] == t["communityPrice"] == 1.19
    assert t["secureSpotPrice"] == t["communitySpotPrice"] == 0.6
    assert t["oneMonthPrice"] is None and t["simulated"] is False and t["minPodGpuCount"] == 1
    assert t["lowestPrice"] == {"stockStatus": "High", "compliance": [], "countryCode": None, "minVcpu": 2}
    assert d["dataCenters"] == [{"id": "LOCAL-1", "listed": True, "gpuAvailability": [
        {"gpuTypeId": A100, "displayName": "A100 SXM", "stockStatus": "High", "available": True}]}]
    assert d["serverlessGpuPools"] == [{"id": "AMPERE_80", "gpuTypeIds": [A100]}]


def test_which_types_are_asked_for(make):
    w = make()
    for args, n in (('(input: {id: "%s"})' % A100, 1), ('(input: {id: "NVIDIA A100"})', 1), ("(input: {})", 1),
                    ('(input: {id: ""})', 1), ('(input: {ids: ["NVIDIA H100 PCIe", "%s"]})' % A100, 1),
                    ('(input: {id: "NVIDIA H100 PCIe"})', 0), ('(input: {ids: ["", "x"]})', 0),
                    ("(input: {cluster: false})", 1), ("(input: {cluster: true})", 0)):
        assert len(w.types("id", args)) == n, args


def test_lowest_price_follows_what_is_free(make):
    w = make()
    p = w.lowest()
    assert p == {"gpuName": "A100 SXM", "gpuTypeId": A100, "minimumBidPrice": 0.6, "uninterruptablePrice": 1.19,
                 "minMemory": 32, "minVcpu": 2, "rentedCount": 0, "totalCount": 8, "rentalPercentage": 0,
                 "stockStatus": "High", "maxUnreservedGpuCount": 8, "availableGpuCounts": [1, 2, 4, 8]}
    assert w.lowest("gpuCount: 4")["minMemory"] == 128
    assert w.lowest("gpuCount: 3")["minMemory"] is None, "the fabric has no such set"
    assert w.lowest("gpuCount: 9")["stockStatus"] is None
    w.take(4)
    p = w.lowest()
    assert p["rentedCount"] == 4 and p["rentalPercentage"] == 50 and p["stockStatus"] == "Medium"
    assert p["maxUnreservedGpuCount"] == 4 and p["availableGpuCounts"] == [1, 2, 4]
    w.take(2)
    w.take(1)
    p = w.lowest()
    assert p["stockStatus"] == "Low" and p["availableGpuCounts"] == [1] and p["minMemory"] == 32
    w.take(1)
    p = w.lowest()
    assert p["minMemory"] is None and p["minVcpu"] is None and p["stockStatus"] is None
    assert p["availableGpuCounts"] == [] and p["maxUnreservedGpuCount"] == 0 and p["gpuTypeId"] == A100
    assert p["totalCount"] == 8 and w.types("id")[0]["id"] == A100
    a = w.api.gql("{ dataCenters { gpuAvailability { stockStatus available } } }")["dataCenters"][0]
    assert a["gpuAvailability"] == [{"stockStatus": None, "available": False}]


def deploys(w, args):
    """Whether a cluster with these wishes is had; the reason when it is not is theirs."""
    r = w.api.post('mutation { clusterFindAndDeployOnDemand(input: {imageName: "i", gpuTypeId: "%s", gpuCount: 1, '
                   'containerDiskInGb: 1, %s}) { id } }' % (A100, args)).json()
    if "errors" not in r:
        k = r["data"]["clusterFindAndDeployOnDemand"]["id"]
        w.api.gql('mutation { clusterTerminate(input: {clusterId: "%s"}) }' % k)
        w.until(lambda gpus: not any(g["clusterId"] for g in gpus), w.gpus)
        return True
    message = r["errors"][0]["message"]
    assert "no longer any instances" in message, message
    assert args.split(":")[0] in message and "this host's driver has CUDA 12.4" in message, message
    return False


def test_lowest_price_filters(make):
    w = make()
    for args, free in (("minMemoryInGb: 200", True), ("minMemoryInGb: 300", False), ("minVcpuCount: 16", True),
                       ("minVcpuCount: 17", False), ("totalDisk: 1000", True), ("totalDisk: 2001", False),
                       ("minDisk: 2001", False), ('dataCenterId: "LOCAL-1"', True), ('dataCenterId: "EU-1"', False),
                       ('countryCode: "DE"', False), ('minCudaVersion: "12.4"', True),
                       ('minCudaVersion: "12.8"', False), ('cudaVersion: "11.8"', True),
                       ('allowedCudaVersions: ["12.4", "12.5"]', True), ('allowedCudaVersions: ["12.5"]', False),
                       ("secureCloud: false", True), ("secureCloud: true", True), ("gpuCount: 0", True)):
        p = w.lowest(args)
        assert (p["minMemory"] is not None) == free, (args, p)
        assert (p["stockStatus"] is not None) == free, (args, p)
        if "uda" in args:  # what is offered is deployed, and nothing else
            assert deploys(w, args) == free, args
    for field in ("gpuCount", "minMemoryInGb", "minVcpuCount", "totalDisk", "minDisk"):
        why = w.api.refused("{ gpuTypes { %s } }" % (LOWEST % (field + ": -1")))["message"]
        assert why == field + ": -1 is below 0", why
    for field in ("minCudaVersion", "cudaVersion", "allowedCudaVersions"):
        for query in ("{ gpuTypes { %s } }" % (LOWEST % (field + ': "new"')),
                      'mutation { podFindAndDeployOnDemand(input: {imageName: "i", gpuCount: 1, %s: "new"}) { id } }'
                      % field):
            assert w.api.refused(query)["message"] == field + ": 'new' is no version such as 12.4"
    cpu = 'mutation { deployCpuPod(input: {imageName: "i", instanceId: "cpu3c-1-1"}) { id } }'
    assert "errors" not in w.api.post(cpu).json()
    assert w.lowest("minMemoryInGb: 200")["minMemory"] == 200
    for full in ("the disk is full", ""):
        w.node.say({"type": "facts", "cpus_elsewhere": [], "disk_full": full})
        w.until(lambda p: (p["minMemory"] is None) == bool(full), w.lowest)


def test_gpu_type_is_gpu_type_id(make):
    """The name that REST and the command line have for it; not a field that is passed over."""
    w = make()
    ask = 'mutation { %s(input: {imageName: "i", gpuCount: 1, containerDiskInGb: 1, %s}) { gpuCount %s } }'
    for call in ("podFindAndDeployOnDemand", "clusterFindAndDeployOnDemand", "podRentInterruptable",
                 "clusterRentInterruptable"):
        assert "H100 is not on this host" in w.api.refused(ask % (call, 'gpuType: "H100"', "id"))["message"]
        why = w.api.refused(ask % (call, 'gpuType: "H100", gpuTypeId: "A100"', "id"))["message"]
        assert why == "gpuType: 'H100' and gpuTypeId 'A100' are two names of one field; give one"
        got = w.api.gql(ask % (call, 'gpuType: "A100", gpuTypeId: ""', "machine { gpuTypeId }"))[call]
        assert got == {"gpuCount": 1, "machine": {"gpuTypeId": A100}}


@pytest.mark.parametrize("name", ["a100x8", "rtx3090x4"])
def test_sizes_are_those_that_are_granted(make, name):
    """What availableGpuCounts lists may be deployed, and nothing else, whatever is taken already."""
    w = make(getattr(fleets, name)())
    kind, total = w.node.fleet["list"][0]["name"], len(w.node.fleet["list"])
    rng = random.Random(name)
    held = []

    def deploy(n):
        r = w.api.post('mutation { clusterFindAndDeployOnDemand(input: {imageName: "i", gpuTypeId: "%s", gpuCount: %d, '
                       'containerDiskInGb: 1}) { id } }' % (kind, n)).json()
        assert ("errors" in r) == (r["data"] is None or r["data"]["clusterFindAndDeployOnDemand"] is None), r
        return None if "errors" in r else r["data"]["clusterFindAndDeployOnDemand"]["id"]

    def end(k):
        rented = w.lowest()["rentedCount"]
        w.api.gql('mutation { clusterTerminate(input: {clusterId: "%s"}) }' % k)
        w.until(lambda p: p["rentedCount"] < rented, w.lowest)

    for _ in range(8):
        listed = w.lowest()["availableGpuCounts"]
        for n in range(1, total + 2):
            k = deploy(n)
            assert (k is not None) == (n in listed), (n, listed)
            if k:
                end(k)
        assert w.lowest()["availableGpuCounts"] == listed
        if listed and (not held or rng.random() < 0.6):
            held.append(deploy(rng.choice(listed[:3])))
        else:
            end(held.pop(rng.randrange(len(held))))


def test_prices_by_name_family_and_for_any(make):
    w = make()
    for prices, want in (([("any", 3), ("NVIDIA A100", 2), (A100, 1)], 1), ([("any", 3), ("NVIDIA A100", 2)], 3),
                         ([("A100 SXM", 2), ("any", 3)], 2), ([("NVIDIA H100", 5)], 0), ([], 0)):
        w.node.prices = [{"type": t, "on_demand": p, "spot": 0} for t, p in prices]
        w.node.say_gpus()
        w.until(lambda t: t[0]["securePrice"] == want, lambda: w.types("securePrice"))
    w.node.prices = [{"type": "NVIDIA H1000", "on_demand": 5, "spot": 0}]
    w.api.stop()
    w.api.start()
    w.node.say_gpus(fleets.rtx3090x4())
    w.until(lambda t: "3090" in t[0]["id"], lambda: w.types("id"))
    assert '[gpu "NVIDIA H1000"]: the host has no GPU of that type; its price is not used' in w.api.log()


def test_broken_ones_are_not_for_rent(make):
    w = make(fleets.rtx3090x4())
    assert w.types("id displayName memoryInGb maxGpuCount securePrice") == [
        {"id": "NVIDIA GeForce RTX 3090", "displayName": "RTX 3090", "memoryInGb": 24, "maxGpuCount": 4,
         "securePrice": 0}]
    assert w.lowest()["availableGpuCounts"] == [1, 2, 3, 4]
    for i, state in enumerate(("quarantined", "lost", "unhealthy", "elsewhere")):
        w.node.set_state(i, state, "because of %d" % i)
        w.until(lambda p: len(p["availableGpuCounts"]) == 3 - i, w.lowest)
    assert w.lowest()["minMemory"] is None
    assert [(g["state"], g["reason"]) for g in w.gpus()] == [
        ("quarantined", "because of 0"), ("lost", "because of 1"), ("unhealthy", "because of 2"),
        ("elsewhere", "because of 3")]


def test_instances_are_a_type(make):
    w = make(fleets.a100mig())
    assert [(t["id"], t["memoryInGb"], t["maxGpuCount"]) for t in w.types("id memoryInGb maxGpuCount")] == [
        (A100, 80, 1), (A100 + " 1g.10gb", 10, 7)]
    rows = w.gpus("id forRent migMode migProfile parentId gpuTypeId displayName memoryInGb links")
    assert rows[1]["displayName"] == "A100 SXM" and rows[2]["displayName"] == "A100 SXM 1g.10gb"
    assert [r["memoryInGb"] for r in rows[:3]] == [80, 80, 10]
    assert [g["forRent"] for g in rows] == [True, False] + 7 * [True]
    assert rows[1]["gpuTypeId"] is None and rows[1]["migMode"] is True
    assert rows[2]["parentId"] == rows[1]["id"] and rows[2]["gpuTypeId"] == A100 + " 1g.10gb"
    assert rows[0]["links"][:3] == ["X", "NODE", ""]


def test_simulated_is_said_everywhere(make):
    w = make(fleets.a100x8(simulated=True))
    (t,) = w.types("id displayName simulated " + LOWEST % "gpuCount: 1")
    assert t["displayName"] == "A100 SXM (simulated)" == t["lowestPrice"]["gpuName"]
    assert t["simulated"] is True and t["id"] == A100
    k = w.take(1, select="id machine { gpuDisplayName gpuTypeId }")
    assert k["machine"] == {"gpuDisplayName": "A100 SXM (simulated)", "gpuTypeId": A100}
    assert all(g["simulated"] for g in w.gpus("simulated"))
    assert w.api.gql("{ machines { simulated } }")["machines"] == [{"simulated": True}]
    w.node.measure()
    m = w.until(lambda m: m.all("DCGM_FI_DEV_GPU_UTIL"), w.metrics)
    assert all(s[0]["simulated"] == "true" for s in m.all("DCGM_FI_DEV_GPU_UTIL"))


def test_no_gpus(make):
    w = make({"note": "no NVIDIA driver on this host", "list": []})
    assert w.types("id") == [] and w.gpus("id") == []
    assert w.api.gql("{ serverlessGpuPools { id } machines { gpuTotal gpuType { id } gpuNote } "
                     "dataCenters { gpuAvailability { available } } }") == {
        "serverlessGpuPools": [], "dataCenters": [{"gpuAvailability": []}],
        "machines": [{"gpuTotal": 0, "gpuType": None, "gpuNote": "no NVIDIA driver on this host"}]}
    other = w.api.account("other")
    assert w.api.refused("{ machines { gpuNote } }", other)["extensions"]["code"] == "FORBIDDEN"
    k = w.api.deploy(select="id costPerHr machine { gpuDisplayName gpuType { id } gpuAvailable } latestTelemetry "
                            "{ averageGpuMetrics { percentUtilization } }")
    assert k["costPerHr"] == 0 and k["machine"] == {"gpuDisplayName": "CPU", "gpuType": None, "gpuAvailable": 0}
    m = w.metrics()
    assert m.one("hvmm_gpus_total") == 0 and not m.all("hvmm_gpu_state")


def test_what_a_cluster_costs_and_sits_on(make):
    w = make()
    k = w.take(2, select="id costPerHr adjustedCostPerHr gpus { id } machine { gpuTypeId gpuDisplayName gpuType "
                         "{ id memoryInGb } gpuAvailable currentPricePerGpu costPerHr minClusterGpuCount "
                         "machineSystem { cudaVersion diskTotal diskFree } }")
    assert k["costPerHr"] == k["adjustedCostPerHr"] == 2.38 == k["machine"]["costPerHr"]
    assert len(k["gpus"]) == 2
    m = k["machine"]
    assert m["gpuTypeId"] == A100 and m["gpuDisplayName"] == "A100 SXM" and m["currentPricePerGpu"] == 1.19
    assert m["gpuType"] == {"id": A100, "memoryInGb": 80} and m["gpuAvailable"] == 6
    assert m["machineSystem"] == {"cudaVersion": "12.4", "diskTotal": 2000, "diskFree": 1990}
    w.api.running(k["id"])
    assert w.api.gql("{ myself { currentSpendPerHr } }")["myself"]["currentSpendPerHr"] == 2.38
    spot = w.api.gql('mutation { podRentInterruptable(input: {imageName: "i", gpuTypeId: "%s", gpuCount: 1, '
                     'bidPerGpu: 0.7}) { costPerHr podType } }' % A100)["podRentInterruptable"]
    assert spot == {"costPerHr": 0.6, "podType": "INTERRUPTABLE"}
    other = w.api.account("other")
    assert w.api.gql("{ myself { currentSpendPerHr } }", other)["myself"]["currentSpendPerHr"] == 0


def test_what_it_costs_when_one_is_lost(make):
    """The host that starts anew does not list the GPU that fell off the bus; the others are not free of charge."""
    w = make()
    k = w.take(4)["id"]
    select = "costPerHr gpus { id } machine { gpuTypeId gpuDisplayName currentPricePerGpu }"
    before = w.api.cluster(k, select)
    assert before["costPerHr"] == 4.76 and before["machine"]["gpuDisplayName"] == "A100 SXM"
    gone = before["gpus"][0]["id"]
    fleet = w.node.fleet
    stay = [i for i, g in enumerate(fleet["list"]) if g["uuid"] != gone]
    w.node.say_gpus(dict(fleet, list=[fleet["list"][i] for i in stay], partitions=[],
                         links=[[fleet["links"][a][b] for b in stay] for a in stay]))
    w.until(lambda g: len(g) == 7, w.gpus)
    assert w.api.cluster(k, select) == before


def test_telemetry(make):
    w = make()
    k = w.take(2)["id"]
    w.api.running(k)
    sel = ("runtime { gpus { id gpuUtilPercent memoryUtilPercent } } latestTelemetry { state time cpuUtilization "
           "memoryUtilization averageGpuMetrics { percentUtilization temperatureCelcius memoryUtilization powerWatts } "
           "individualGpuMetrics { id percentUtilization temperatureCelcius memoryUtilization powerWatts } }")
    gpus = [g["id"] for g in w.api.cluster(k, "gpus { id }")["gpus"]]
    c = w.api.cluster(k, sel)
    assert c["runtime"]["gpus"] == [{"id": g, "gpuUtilPercent": None, "memoryUtilPercent": None} for g in gpus]
    w.node.say({"type": "telemetry", "at_us": 1, "gpus": [
        fleets.numbers(gpus[0]), fleets.numbers(gpus[1], util_pct=63, power_mw=300000, temperature_c=60)]})
    c = w.until(lambda c: c["runtime"]["gpus"][0]["gpuUtilPercent"] is not None, lambda: w.api.cluster(k, sel))
    assert c["runtime"]["gpus"] == [{"id": gpus[0], "gpuUtilPercent": 37, "memoryUtilPercent": 25},
                                    {"id": gpus[1], "gpuUtilPercent": 63, "memoryUtilPercent": 25}]
    t = c["latestTelemetry"]
    assert t["state"] == "running" and t["time"].startswith("20")
    assert t["averageGpuMetrics"] == {"percentUtilization": 50, "temperatureCelcius": 57, "memoryUtilization": 25,
                                      "powerWatts": 275.75}
    assert t["individualGpuMetrics"][1] == {"id": gpus[1], "percentUtilization": 63, "temperatureCelcius": 60,
                                            "memoryUtilization": 25, "powerWatts": 300}
    # what the driver does not say is null, and does not spoil the mean
    w.node.say({"type": "telemetry", "at_us": 2, "gpus": [{"uuid": gpus[0]}, fleets.numbers(gpus[1])]})
    c = w.until(lambda c: c["runtime"]["gpus"][0]["gpuUtilPercent"] is None, lambda: w.api.cluster(k, sel))
    assert c["latestTelemetry"]["averageGpuMetrics"]["percentUtilization"] == 37
    assert c["latestTelemetry"]["individualGpuMetrics"][0] == {
        "id": gpus[0], "percentUtilization": None, "temperatureCelcius": None, "memoryUtilization": None,
        "powerWatts": None}
    w.api.gql('mutation { clusterStop(input: {clusterId: "%s"}) { id } }' % k)
    assert w.api.cluster(k, sel) == {"runtime": None, "latestTelemetry": None}


def test_bad_telemetry_is_refused_and_the_rest_goes_on(make):
    w = make()
    w.node.measure()
    w.until(lambda g: g[0]["telemetry"], lambda: w.gpus("telemetry"))
    u = w.node.fleet["list"][0]["uuid"]
    for msg in ({"gpus": [{"uuid": "../x"}]}, {"gpus": [{"uuid": u, "util_pct": -1}]}, {"gpus": {}}, {},
                {"gpus": [{"uuid": u, "util_pct": "9"}]}, {"gpus": [{"uuid": u}] * 65}, {"gpus": [None]}):
        w.node.say({"type": "telemetry", "at_us": 1, **msg})
    for msg in ({"uuid": "x", "kind": "xid"}, {"uuid": u, "kind": "X y"}, {"uuid": u}, {"uuid": u, "kind": "a" * 33},
                {"uuid": u, "kind": "xid", "text": "t" * 513}, {"uuid": u, "kind": "xid", "code": -1},
                {"uuid": u, "kind": "xid", "cluster": "../.."}):
        w.node.say({"type": "event", "at_us": 1, **msg})
    w.node.happen(0, "xid", "after all that", code=79)
    e = w.until(len, lambda: w.events(args='(input: {kind: "gpu"})'))
    assert len(e) == 1 and e[0]["text"] == "after all that (79)"
    assert w.gpus("telemetry")[0]["telemetry"]["util_pct"] == 37


def test_all_gpus_of_the_host(make):
    w = make(numa=[{"node": 0, "cpus": [str(i) for i in range(8)], "memory_mib": 128 << 10},
                   {"node": 1, "cpus": [str(i) for i in range(8, 16)], "memory_mib": 128 << 10}])
    k = w.take(1)["id"]
    w.node.measure()
    w.until(lambda g: g[0]["telemetry"], lambda: w.gpus("telemetry"))
    rows = w.gpus("id name displayName gpuTypeId index pci numaNode cpus memoryInGb state clusterId podId links "
                  "telemetry forRent serial vbios inforom ecc")
    assert len(rows) == 8 and [g["index"] for g in rows] == list(range(8))
    held = [g for g in rows if g["clusterId"]]
    assert len(held) == 1 and held[0]["clusterId"] == held[0]["podId"] == k
    g = rows[7]
    assert g["numaNode"] == 1 and g["cpus"] == [str(i) for i in range(8, 16)] and g["memoryInGb"] == 80
    assert g["links"] == 4 * ["NV12/SYS"] + 3 * ["NV12/NODE"] + ["X"]
    assert g["telemetry"]["temperature_c"] == 54 and "uuid" not in g["telemetry"]
    assert g["serial"] and g["vbios"] == "92.00.45.00.03" and g["inforom"] and g["ecc"] is True
    other = w.api.account("other")
    assert w.api.refused("{ gpus { id } }", other)["extensions"]["code"] == "FORBIDDEN"
    assert requests.post(w.api.base + "/graphql", json={"query": "{ gpus { id } }"}).status_code == 401


def release(uuid):
    return 'mutation { gpuRelease(input: {gpuId: "%s"}) { id state } }' % uuid


def test_release(make):
    w = make()
    u = [g["uuid"] for g in w.node.fleet["list"]]
    w.node.set_state(3, "quarantined", "memory in use: 900 MiB, baseline 450")
    w.until(lambda g: g[3]["state"] == "quarantined", w.gpus)
    assert w.lowest()["availableGpuCounts"] == [1, 2, 4]
    assert "only a quarantined" in w.api.refused(release(u[2]))["message"]
    assert w.api.refused(release("GPU-none"))["message"] == ("gpuId: there is no GPU 'GPU-none'; the query gpus"
                                                             " names them")
    assert w.api.refused(release(""))["message"] == "gpuId: is empty; the query gpus names them"
    other = w.api.account("other")
    assert w.api.refused(release(u[3]), other)["extensions"]["code"] == "FORBIDDEN"
    assert w.api.gql(release(u[3])) == {"gpuRelease": {"id": u[3], "state": "ok"}}
    assert w.lowest()["availableGpuCounts"] == [1, 2, 4, 8]
    w.node.fleet["list"][4]["serial"] = "stuck"
    w.node.set_state(4, "quarantined", "why")
    w.until(lambda g: g[4]["state"] == "quarantined", w.gpus)
    assert w.api.refused(release(u[4]))["message"] == "the driver still names a process"


def test_events(make):
    w = make()
    a, b = w.api.account("a"), w.api.account("b")
    k = w.take(1, a)["id"]
    w.api.until(k, lambda c: c and c["phase"] == "running", key=a)
    uuid = w.api.cluster(k, "gpus { id }", a)["gpus"][0]["id"]
    w.node.happen(0, "throttle", "power", code=4, cluster=k)
    w.node.happen(5, "xid", "GPU has fallen off the bus", code=79)
    w.until(lambda e: len(e) >= 3, w.events)
    mine = w.events(a)
    assert [e["kind"] for e in mine] == ["gpu.throttle", "deployed"]
    assert mine[0]["clusterId"] == mine[0]["podId"] == k == mine[1]["object"]
    assert mine[0]["time"] >= mine[1]["time"] and mine[0]["text"] == "power (4)"
    assert w.events(b) == []
    every = w.events()
    assert [e["kind"] for e in every] == ["gpu.xid", "gpu.throttle", "deployed"]
    assert every[0]["account"] is None and every[0]["object"] == w.node.fleet["list"][5]["uuid"]
    for args, n in (('kind: "gpu"', 2), ('kind: "gpu.xid"', 1), ('kind: "removed"', 0), ("limit: 1", 1),
                    ('clusterId: "%s"' % k, 2), ('podId: "%s"' % k, 2), ('object: "%s"' % uuid, 1),
                    ('since: "2100-01-01"', 0), ('since: "2020-01-01"', 3), ('until: "2020-01-01"', 0),
                    ('kind: "", object: ""', 3)):
        assert len(w.events(args="(input: {%s})" % args)) == n, args
    assert "limit" in w.api.refused("{ events(input: {limit: 0}) { kind } }")["message"]
    assert "limit" in w.api.refused("{ events(input: {limit: 1001}) { kind } }")["message"]
    for kind in ("zzz", "gp", "gpu.", "gpu.xi", "Deployed", "gpu.xid.x"):
        why = w.api.refused('{ events(input: {kind: "%s"}) { kind } }' % kind)["message"]
        assert why.startswith("kind: '%s' is none; the known ones: deployed, started, " % kind), why
        assert "gpu.xid" in why and "gpu.handover" in why
    assert "since" in w.api.refused('{ events(input: {since: "soon"}) { kind } }')["message"]
    assert requests.post(w.api.base + "/graphql", json={"query": "{ events { kind } }"}).status_code == 401
    # a clock that goes on saying the same is one event; they are there after a restart
    for _ in range(20):
        w.node.happen(0, "throttle", "power", code=4, cluster=k)
    w.node.happen(0, "throttle", "temperature", code=32, cluster=k)
    w.until(lambda e: e[0]["text"] == "temperature (32)", w.events)
    assert len(w.events()) == 4
    w.api.kill()
    w.api.start()
    assert [e["text"] for e in w.events(args="(input: {limit: 2})")] == ["temperature (32)",
                                                                        "GPU has fallen off the bus (79)"]


def test_an_old_reason_is_not_that_of_what_people_do(make):
    """A GPU's trouble is the cluster's reason; who changes, stops or ends the cluster does so all the same."""
    w = make()
    k = w.take(1)["id"]
    w.api.until(k, lambda c: c and c["phase"] == "running")
    w.node.report(k, state="running", reason="GPU 3: lost")
    w.api.until(k, lambda c: c["reason"] == "GPU 3: lost")
    w.api.gql('mutation { clusterUpdate(input: {clusterId: "%s", memoryInGb: 9}) { id } }' % k)
    w.node.wait(lambda: (w.node.clusters[k]["generation"], w.node.clusters[k]["state"]) == (2, "running"))
    w.node.report(k, state="running", reason="GPU 3: lost")
    w.api.until(k, lambda c: c["reason"] == "GPU 3: lost")
    w.api.gql('mutation { clusterStop(input: {clusterId: "%s"}) { id } }' % k)
    texts = {e["kind"]: e["text"] for e in w.events() if e["clusterId"] == k}
    assert "GPU 3" not in str(texts), texts
    assert texts["stopped"].startswith("Exited by user: ")


def test_events_are_bounded(make):
    """The ring in the store and the one in memory agree when they have gone round."""
    w = make()
    w.api.stop()
    db = sqlite3.connect(os.path.join(w.api.data, "store.db"))
    db.executemany("INSERT INTO event (id, at_us, kind, message, object) VALUES (?, ?, 'exited', ?, 'x')",
                   [("%05d" % i, i + 1, "number %d" % i) for i in range(20000)])
    db.commit()
    db.close()
    w.api.start()
    assert w.events(args='(input: {kind: "exited", limit: 1})')[0]["text"] == "number 19999"
    w.node.happen(0, "xid", "new", code=13)
    w.until(lambda e: e and e[0]["kind"] == "gpu.xid", w.events)
    w.api.stop()
    db = sqlite3.connect(os.path.join(w.api.data, "store.db"))
    assert db.execute("SELECT count(*), min(at_us) FROM event").fetchone() == (20000, 2)
    db.close()
    w.api.start()
    assert [e["kind"] for e in w.events(args="(input: {limit: 2})")] == ["gpu.xid", "exited"]


def test_events_that_could_not_be_written_leave_no_gap(make):
    w = make()
    w.take(1)
    w.until(len, w.events)
    inf = resource.RLIM_INFINITY
    resource.prlimit(w.api.proc.pid, resource.RLIMIT_FSIZE, (1, inf))
    for _ in range(3):
        r = w.api.post('mutation { deployCpuPod(input: {imageName: "i", instanceId: "cpu3c-1-1"}) { id } }')
        assert r.json()["errors"][0]["extensions"]["code"] == "STORE_FAILED", r.text
    assert [e["kind"] for e in w.events()] == ["deployed"]
    resource.prlimit(w.api.proc.pid, resource.RLIMIT_FSIZE, (inf, inf))
    w.node.happen(0, "xid", "later", code=13)
    assert [e["kind"] for e in w.until(lambda e: len(e) > 1, w.events)] == ["gpu.xid", "deployed"]


def test_metrics(make):
    w = make()
    assert requests.get(w.api.base + "/metrics").status_code == 401
    assert w.api.get("/metrics", key=w.api.account("other")).status_code == 403
    k = w.take(2, extra=', name: "x"')["id"]
    w.api.running(k)
    w.node.report(k, restarts=2)
    w.node.set_state(6, "quarantined", "why \"so\"\\")
    w.node.measure()
    w.until(lambda m: m.one("hvmm_gpus_quarantined") == 1 and m.all("DCGM_FI_DEV_GPU_UTIL"), w.metrics)
    m = w.until(lambda m: m.one("hvmm_cluster_restarts_total", cluster=k) == 2, w.metrics)
    assert m.one("hvmm_build_info", engine="0.0.1") == 1 and m.one("hvmm_node_connected") == 1
    assert m.one("hvmm_clusters", state="running") == 1 and m.one("hvmm_clusters", state="pulling") == 0
    assert m.one("hvmm_vcpus_total") == 16 and m.one("hvmm_vcpus_taken") == 1
    assert m.one("hvmm_memory_total_bytes") == 256 << 30 and m.one("hvmm_memory_taken_bytes") == 8 << 30
    assert m.one("hvmm_disk_total_bytes") == 2000 << 30 and m.one("hvmm_disk_taken_bytes") == 10 << 30
    assert m.one("hvmm_gpus_total") == 8 and m.one("hvmm_gpus_taken") == 2 and m.one("hvmm_gpus_simulated") == 0
    assert m.one("hvmm_boots_total") == 1 and m.one("hvmm_cluster_oom_kills_total", cluster=k) == 0
    assert m.one("hvmm_cluster_memory_bytes", cluster=k) == 512 << 20 and m.one("hvmm_cluster_gpus", cluster=k) == 2
    u = [g["uuid"] for g in w.node.fleet["list"]]
    assert sum(v for _, v in m.all("hvmm_gpu_state", UUID=u[6])) == 1
    assert m.one("hvmm_gpu_state", UUID=u[6], state="quarantined") == 1
    assert m.one("hvmm_gpu_state", UUID=u[5], state="ok") == 1
    (lab, v), = m.all("DCGM_FI_DEV_POWER_USAGE", gpu="3")
    assert v == 251.5 and lab == {
        "gpu": "3", "UUID": u[3], "pci_bus_id": "00000000:1f:00.0", "device": "nvidia3", "modelName": A100,
        "Hostname": os.uname().nodename, "DCGM_FI_DRIVER_VERSION": "550.54.15", "cluster": lab["cluster"]}
    held = [s for s in m.all("DCGM_FI_DEV_GPU_UTIL") if s[0]["cluster"] == k]
    assert len(held) == 2 and len(m.all("DCGM_FI_DEV_GPU_UTIL")) == 8
    for name, value in (("DCGM_FI_DEV_FB_USED", 20480), ("DCGM_FI_DEV_FB_FREE", 81920 - 20480 - 512),
                        ("DCGM_FI_DEV_GPU_TEMP", 54), ("DCGM_FI_DEV_SM_CLOCK", 1410),
                        ("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", 123456789), ("DCGM_FI_DEV_XID_ERRORS", 0),
                        ("DCGM_FI_DEV_MEM_COPY_UTIL", 12), ("hvmm_gpu_processes", 1)):
        assert m.one(name, gpu="0") == value, name
    assert m.types["DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"] == "counter"
    assert not m.all("DCGM_FI_DEV_FAN_SPEED"), "what the driver does not say has no line"
    w.node.close()
    m = w.until(lambda m: m.one("hvmm_node_connected") == 0, w.metrics)
    assert m.one("hvmm_gpus_total") == 8 and m.one("hvmm_healthy") == 0


def test_the_last_word_is_kept(make):
    """Without an engine the API still names what there is, after a restart too; nothing is measured."""
    w = make()
    w.node.close()
    w.api.stop()
    w.api.start()
    assert len(w.types("id")) == 1 and len(w.gpus()) == 8
    assert w.gpus("telemetry")[0]["telemetry"] is None
