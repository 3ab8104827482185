"""Which GPUs, CPUs and NUMA nodes a cluster gets, and that no GPU is ever sold twice: the real
tensorone-api with its real store against an engine that runs nothing (fake_node.py)."""
import contextlib
import copy
import os
import random
import re
import sqlite3
import sys
import threading
import time

import pytest
import requests

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import fleets  # noqa: E402
from fake_node import FakeNode  # noqa: E402
from host import Host, our_node  # noqa: E402
from test_api import NO_INSTANCES, Api  # noqa: E402

A100 = "NVIDIA A100-SXM4-80GB"
OVERCOMMIT = {"engine": {"cpu_overcommit": 100, "memory_overcommit": 100, "disk_overcommit": 100}}
R3090 = "NVIDIA GeForce RTX 3090"


def two_nodes(cpus=16, memory_mib=128 << 10):
    """Two NUMA nodes, even CPUs on one, odd ones on the other."""
    return [{"node": k, "cpus": [str(i) for i in range(cpus) if i % 2 == k], "memory_mib": memory_mib // 2}
            for k in (0, 1)]


@contextlib.contextmanager
def world(tmp_path, fleet, cpus=16, memory_mib=128 << 10, numa=None, **more):
    node = FakeNode(str(tmp_path / "node.sock"), str(tmp_path), fleet=fleet, cpus=cpus, memory_mib=memory_mib,
                    disk_gib=20000, numa=numa, **more)
    api = Api(tmp_path, node.path)
    try:
        yield api.start(), node
    finally:
        api.close()
        node.close()


def ask(wish, count, extra=""):
    return ('mutation { clusterFindAndDeployOnDemand(input: {imageName: "tensorone/starter", %s, gpuCount: %d, '
            'containerDiskInGb: 1 %s}) { id } }' % (wish, count, extra))


def type_id(name):
    return 'gpuTypeId: "%s"' % name


def deploy(api, wish, count, extra=""):
    return api.gql(ask(wish, count, extra))["clusterFindAndDeployOnDemand"]["id"]


def plan(node, cid):
    node.wait(lambda: "plan" in node.clusters.get(cid, {}))
    return node.clusters[cid]["plan"]


def got(node, cid):
    """Positions in the fleet."""
    where = {g["uuid"]: i for i, g in enumerate(node.fleet["list"])}
    return sorted(where[u] for u in plan(node, cid)["gpus"])


def end(api, node, cid):
    """From the engine's having heard of it to its having forgotten it."""
    plan(node, cid)
    api.gql('mutation { clusterTerminate(input: {clusterId: "%s"}) }' % cid)
    node.wait(lambda: cid not in node.clusters)


def stored(api, kind):
    """Rows of the store, which is its own while the API runs."""
    with contextlib.closing(sqlite3.connect(os.path.join(api.data, "store.db"))) as db:
        return db.execute("SELECT resource, cluster, amount FROM reservation WHERE kind = ?", (kind,)).fetchall()


def holders(api):
    """Who has each GPU, by position."""
    return [g["clusterId"] for g in api.gql("{ gpus { id clusterId } }")["gpus"]]


# ---- wishes ----

def test_wishes(tmp_path):
    fleet = fleets.rtx3090x4()
    with world(tmp_path, fleet) as (api, node):
        pair = deploy(api, type_id("RTX 3090"), 2)
        assert got(node, pair) == [0, 1]
        c = api.cluster(pair, "gpuCount machine { gpuTypeId gpuDisplayName }")
        assert c["machine"] == {"gpuTypeId": R3090, "gpuDisplayName": "RTX 3090"}
        one = deploy(api, 'gpuTypeIdList: ["NVIDIA H200", "NVIDIA GeForce RTX 3090"]', 1)
        assert got(node, one) == [2]
        other = deploy(api, type_id("NVIDIA H100 NVL, rtx 3090"), 1)
        assert got(node, other) == [3]
        # gpuTypeId goes before the list
        end(api, node, one)
        assert got(node, deploy(api, type_id(R3090) + ', gpuTypeIdList: ["NVIDIA H200"]', 1)) == [2]
        m = api.refused(ask(type_id("NVIDIA GeForce RTX 3090"), 1))["message"]
        assert NO_INSTANCES in m and "gpuCount: 1 x NVIDIA GeForce RTX 3090 wanted, 0 of 4 free" in m


def test_what_is_left_stays_whole(tmp_path):
    with world(tmp_path, fleets.rtx3090x4()) as (api, node):
        first = deploy(api, type_id(R3090), 1)
        assert got(node, deploy(api, type_id(R3090), 1)) == [1]  # the other half of the broken pair
        assert got(node, deploy(api, type_id(R3090), 2)) == [2, 3]
        assert got(node, first) == [0]


def test_messages(tmp_path):
    with world(tmp_path, fleets.a100x8()) as (api, node):
        for wish, count, why in (
                (type_id("NVIDIA H200"), 1, "gpuTypeId: NVIDIA H200 is not on this host; it has " + A100),
                (type_id("NVIDIA A100"), 9, "gpuCount: 9 x NVIDIA A100 wanted, this host has 8, 8 free"),
                (type_id("NVIDIA A100"), 3, "gpuCount: 3 x NVIDIA A100 wanted, the NVSwitch fabric of this host "
                                            "is divided into sets of 2, 4 or 8, not 3"),
                (type_id("A100 1g.10gb"), 1, "gpuTypeId: A100 1g.10gb is not on this host"),
                ('gpuTypeIdList: ["H200", "A100"]', 9, "gpuCount: 9 wanted of H200 (not on this host), A100 (this host")):
            m = api.refused(ask(wish, count))["message"]
            assert NO_INSTANCES in m and why in m, m
        assert "outside" in api.refused(ask(type_id(A100), 65))["message"]
        deploy(api, type_id("A100"), 1)
        deploy(api, type_id("A100"), 4)
        m = api.refused(ask(type_id("A100"), 4))["message"]
        assert "gpuCount: 4 x A100 wanted, 3 of 8 free" in m
        deploy(api, type_id("A100"), 2)
        assert got(node, deploy(api, type_id("A100"), 1)) == [1]
    with world(tmp_path, {"list": [], "note": "the kernel module is missing"}) as (api, node):
        m = api.refused(ask(type_id("NVIDIA A100"), 1))["message"]
        assert "this host has no GPU (the kernel module is missing); gpuCount 0 would fit" in m


def test_mig_on_a_gpu_without_it(tmp_path):
    """Instances that nobody has made, or that this GPU cannot have: the message says what there is."""
    for fleet, wish, kind in ((fleets.rtx3090x4(), "RTX 3090 1g.10gb", R3090), (fleets.a100x8(), "A100 1g.10gb", A100)):
        with world(tmp_path, fleet) as (api, node):
            m = api.refused(ask(type_id(wish), 1))["message"]
            assert NO_INSTANCES in m and m.endswith(f"gpuTypeId: {wish} is not on this host; it has {kind}"), m
            assert holders(api) == [None] * len(fleet["list"])
    with world(tmp_path, fleets.a100mig()) as (api, node):
        m = api.refused(ask(type_id("A100 2g.20gb"), 1))["message"]
        assert f"A100 2g.20gb is not on this host; it has {A100}, {A100} 1g.10gb" in m, m


def test_half_of_a_fabric(tmp_path):
    """Two that are free and lie in two halves are no pair, and no three are a set at all."""
    with world(tmp_path, fleets.a100x8()) as (api, node):
        ones = [deploy(api, type_id(A100), 1) for _ in range(8)]
        at = {got(node, c)[0]: c for c in ones}
        for place in (1, 2):
            end(api, node, at[place])
        m = api.refused(ask(type_id(A100), 2))["message"]
        assert NO_INSTANCES in m and "2 are free, but no 2 of them are a set of the NVSwitch fabric" in m, m
        end(api, node, at[3])
        assert "divided into sets of 2, 4 or 8, not 3" in api.refused(ask(type_id(A100), 3))["message"]
        assert got(node, deploy(api, type_id(A100), 2)) == [2, 3]


def test_only_those_in_order_are_sold(tmp_path):
    with world(tmp_path, fleets.rtx3090x4()) as (api, node):
        held = deploy(api, type_id(R3090), 1)
        fleet = copy.deepcopy(node.fleet)
        for i, state in ((0, "lost"), (1, "quarantined"), (2, "elsewhere")):
            fleet["list"][i].update(state=state, reason="as told")
        node.say_gpus(fleet)
        node_uuid = fleet["list"][3]["uuid"]
        cid = None
        limit = time.monotonic() + 5
        while cid is None:  # until the message has come
            cid = deploy(api, type_id(R3090), 1)
            if plan(node, cid)["gpus"] != [node_uuid]:
                end(api, node, cid)
                cid = None
            assert time.monotonic() < limit
        m = api.refused(ask(type_id(R3090), 1))["message"]
        assert "0 of 4 free, 3 out of order" in m
        # who has one keeps it, whatever its state, also when it starts anew
        api.gql('mutation { clusterEditJob(input: {clusterId: "%s", dockerArgs: "sleep 1"}) { id } }' % held)
        node.wait(lambda: node.clusters[held]["generation"] == 2)
        assert got(node, held) == [0]


def test_resume_chooses_again(tmp_path):
    with world(tmp_path, fleets.rtx3090x4()) as (api, node):
        cid = deploy(api, type_id("RTX 3090"), 1)
        assert got(node, cid) == [0]
        api.gql('mutation { clusterStop(input: {clusterId: "%s"}) { id } }' % cid)
        node.wait(lambda: node.clusters[cid]["state"] == "exited")
        other = None
        limit = time.monotonic() + 5
        while other is None:
            other = deploy(api, type_id(R3090), 2)
            if got(node, other) != [0, 1]:  # not released yet
                end(api, node, other)
                other = None
            assert time.monotonic() < limit
        api.gql('mutation { clusterResume(input: {clusterId: "%s", gpuCount: 1}) { id } }' % cid)
        node.wait(lambda: node.clusters[cid]["generation"] == 2)
        assert got(node, cid) == [2]
        api.gql('mutation { clusterStop(input: {clusterId: "%s"}) { id } }' % cid)
        node.wait(lambda: node.clusters[cid]["state"] == "exited")
        api.until(cid, lambda c: c["phase"] == "exited")
        m = api.refused('mutation { clusterResume(input: {clusterId: "%s", gpuCount: 3}) { id } }' % cid)["message"]
        assert m.startswith("There are not enough free GPUs on the host machine to start this cluster.")
        assert "gpuCount: 3 x %s wanted, 2 of 4 free" % R3090 in m


def test_instances(tmp_path):
    with world(tmp_path, fleets.a100mig()) as (api, node):
        cid = deploy(api, type_id("NVIDIA A100 1g.10gb"), 2)
        assert got(node, cid) == [2, 3]
        c = api.cluster(cid, "machine { gpuTypeId gpuDisplayName }")["machine"]
        assert c == {"gpuTypeId": A100 + " 1g.10gb", "gpuDisplayName": "A100 SXM 1g.10gb"}
        whole = deploy(api, type_id("NVIDIA A100"), 1)
        assert got(node, whole) == [0]
        m = api.refused(ask(type_id("NVIDIA A100"), 1))["message"]  # the divided one is not for rent
        assert "gpuCount: 1 x NVIDIA A100 wanted, 0 of 1 free" in m


def test_what_an_engine_says_is_checked(tmp_path):
    """A message that is wrong changes nothing and costs nobody the connection; the last good one is
    remembered, also while the engine is away."""
    with world(tmp_path, fleets.rtx3090x4()) as (api, node):
        deploy(api, type_id(R3090), 1)
        good = node.fleet["list"][0]
        for bad in ({"list": [dict(good, uuid="../../etc")]}, {"list": [good, good]}, {"list": "x"},
                    {"list": [dict(good, state="fine")]}, {"list": [good], "links": [["NV1/"]]},
                    {"list": [good], "partitions": [[7]]}, {"list": [good], "prices": [{"type": "x", "spot": -1}]},
                    {"list": [dict(good, name="n" * 200)]}, {"list": [dict(good, uuid="GPU-%d" % i) for i in range(65)]}):
            node.say({"type": "gpus", **bad})
        node.say({"type": "gpus", "list": "x"})
        cid = deploy(api, type_id(R3090), 1)
        assert got(node, cid) == [1] and len(holders(api)) == 4
        conn = node.conn
        assert conn is not None and api.log().count(": gpus: ") >= 8
        node.close()
        api.kill()
        api.start()
        assert holders(api).count(None) == 2
        assert "0 of 4 free" not in api.gql(ask(type_id(R3090), 2)).__repr__()
        assert "0 of 4 free" in api.refused(ask(type_id(R3090), 1))["message"]


# ---- NUMA nodes ----

def test_cpus_and_memory_follow_the_gpus(tmp_path):
    with world(tmp_path, fleets.rtx3090x4(), numa=two_nodes()) as (api, node):
        near = deploy(api, type_id(R3090), 2, "minVcpuCount: 4, minMemoryInGb: 32")
        p = plan(node, near)
        assert got(node, near) == [0, 1] and p["mems"] == "0" and p["cpus"] == ["0", "2", "4", "6"]
        far = deploy(api, type_id(R3090), 1, "minVcpuCount: 2, minMemoryInGb: 40")
        p = plan(node, far)
        assert got(node, far) == [2] and p["mems"] == "1" and p["cpus"] == ["1", "3"]
        # not enough memory there any more: CPUs near it, memory anywhere
        full = deploy(api, type_id(R3090), 1, "minVcpuCount: 2, minMemoryInGb: 30")
        p = plan(node, full)
        assert got(node, full) == [3] and "mems" not in p and p["cpus"] == ["5", "7"]
        end(api, node, near)
        end(api, node, far)
        end(api, node, full)
        both = deploy(api, type_id(R3090), 4, "minVcpuCount: 4, minMemoryInGb: 100")
        p = plan(node, both)
        assert p["mems"] == "0-1" and p["cpus"] == ["0", "1", "2", "3"]
        api.kill()
        api.start()
        end(api, node, both)


def test_clusters_without_gpus_lie_on_one_node(tmp_path):
    with world(tmp_path, fleets.rtx3090x4(), numa=two_nodes()) as (api, node):
        def one(vcpu, gib):
            return plan(node, api.deploy("minVcpuCount: %d, minMemoryInGb: %d, containerDiskInGb: 1" % (vcpu, gib))["id"])

        assert one(2, 8)["mems"] == "0"
        assert one(2, 8)["mems"] == "0"         # the fuller one
        assert one(6, 8)["mems"] == "1"         # four are left on the other
        p = one(5, 8)                           # nowhere on one
        assert "mems" not in p and {int(c) % 2 for c in p["cpus"]} == {0, 1}
    with world(tmp_path / "b", fleets.rtx3090x4(), numa=two_nodes(), overcommit=4.0) as (api, node):
        p = plan(node, api.deploy("minVcpuCount: 2, containerDiskInGb: 1")["id"])
        assert "mems" not in p and "cpus" not in p
        assert plan(node, deploy(api, type_id(R3090), 4))["mems"] == "0-1"
        api.stop()


@pytest.fixture(autouse=True)
def second_directory(tmp_path):
    (tmp_path / "b").mkdir()


def nodes_of_this_machine():
    return sorted(int(d[4:]) for d in os.listdir("/sys/devices/system/node") if re.fullmatch(r"node\d+", d))


def test_memory_is_bound_on_the_real_kernel():
    """The engine binds a cluster to the nodes of its plan: each that this kernel shows, and one that it
    does not."""
    nodes = nodes_of_this_machine()
    print("this kernel shows %d NUMA node(s)%s" % (
        len(nodes), "" if len(nodes) > 1 else ": moving between two is tested with stand-ins alone"))
    with Host(config=OVERCOMMIT) as host:
        host.import_image()
        with our_node(host) as node:
            for k in nodes:
                node.assign("numa%d" % k, ["sleep", "1000"], mems=str(k))
                node.until(lambda m: m.get("cluster") == "numa%d" % k and m.get("state") == "running")
                with open("/proc/%d/status" % host.first_pid("numa%d" % k)) as f:
                    assert "Mems_allowed_list:\t%d\n" % k in f.read()
                node.remove("numa%d" % k)
            node.assign("nowhere", ["sleep", "1000"], mems="1023")
            report, _ = node.until(lambda m: m.get("cluster") == "nowhere" and m.get("reason"))
            assert "cpuset.mems" in report["reason"] and "1023" in report["reason"], report
            node.remove("nowhere")
            node.assign("nonsense", ["sleep", "1000"], mems="0-")
            report, _ = node.until(lambda m: m.get("cluster") == "nonsense")
            assert report["state"] == "exited" and "mems" in report["reason"], report


# ---- never twice ----

class Rivals:
    """Clients that ask at the same moment, again and again."""

    def __init__(self, api, n):
        self.api = api
        self.start, self.done = threading.Barrier(n + 1), threading.Barrier(n + 1)
        self.queries, self.answers = [None] * n, [None] * n
        self.threads = [threading.Thread(target=self.run, args=(i,), daemon=True) for i in range(n)]
        for t in self.threads:
            t.start()

    def run(self, i):
        with requests.Session() as session:
            while True:
                self.start.wait()
                if self.queries[i] is None:
                    return
                time.sleep(self.queries[i][1])
                r = session.post(self.api.base + "/graphql", json={"query": self.queries[i][0]},
                                 headers=self.api.head(), timeout=20)
                self.answers[i] = r.json()
                self.done.wait()

    def go(self, queries):
        self.queries[:] = queries
        self.start.wait(20)
        self.done.wait(20)
        won = [a["data"]["clusterFindAndDeployOnDemand"]["id"] for a in self.answers if "errors" not in a]
        lost = [a["errors"][0]["message"] for a in self.answers if "errors" in a]
        return won, lost

    def close(self):
        self.queries[:] = [None] * len(self.queries)
        self.start.wait(20)
        for t in self.threads:
            t.join(20)


def test_two_for_the_last_one(tmp_path):
    """1,000 random races: exactly one wins, and the store names one cluster per GPU."""
    rng = random.Random(9)
    with world(tmp_path, fleets.rtx3090x4(), overcommit=100.0) as (api, node):
        rivals = Rivals(api, 2)
        try:
            for count in (1, 2, 4):
                holder = deploy(api, type_id(R3090), 4 - count) if count < 4 else None
                for _ in range(334 if count == 1 else 333):
                    slow = rng.choice([0, 0, 0, rng.random() / 500])
                    won, lost = rivals.go([(ask(type_id(R3090), count), slow), (ask(type_id(R3090), count), 0)])
                    assert len(won) == 1 and len(lost) == 1, (won, lost)
                    assert NO_INSTANCES in lost[0] and "0 of 4 free" in lost[0], lost
                    assert holders(api) == [holder] * (4 - count) + won * count
                    end(api, node, won[0])
                if holder:
                    end(api, node, holder)
        finally:
            rivals.close()
        assert holders(api) == [None] * 4
        api.kill()
        assert stored(api, "gpu") == []


class Watching(FakeNode):
    """Notes when a GPU is given out while the engine still has it."""

    def __init__(self, *args, **more):
        self.holds, self.twice = {}, []
        super().__init__(*args, **more)

    def on_assign(self, conn, m, fds):
        if m["desired"] == "running":
            for u in m["plan"].get("gpus", []):
                other = self.holds.setdefault(u, m["cluster"])
                if other != m["cluster"]:
                    self.twice.append((u, other, m["cluster"]))
        super().on_assign(conn, m, fds)

    def report(self, cid, **more):
        if more.get("released"):
            self.holds = {u: c for u, c in self.holds.items() if c != cid}
        super().report(cid, **more)


def test_crash_between_lease_and_start(tmp_path):
    """The API is killed at random moments while clients deploy, stop and terminate: what was promised
    is there, nothing is sold twice, and in the end nothing is lost."""
    rng = random.Random(10)
    node = Watching(str(tmp_path / "node.sock"), str(tmp_path), fleet=fleets.rtx3090x4(), cpus=16,
                    memory_mib=128 << 10, disk_gib=20000, overcommit=100.0)
    api = Api(tmp_path, node.path)
    promised, answered = set(), 0
    try:
        api.start()
        for _ in range(25):
            stop = threading.Event()

            def work():
                with requests.Session() as s:
                    def say(query):
                        r = s.post(api.base + "/graphql", json={"query": query}, headers=api.head(), timeout=0.3)
                        return r.json()
                    while not stop.is_set():
                        try:
                            a = say(ask(type_id(R3090), rng.randint(1, 3)))
                            if "errors" in a:
                                continue
                            cid = a["data"]["clusterFindAndDeployOnDemand"]["id"]
                            promised.add(cid)
                            if rng.random() < 0.8:
                                promised.discard(cid)
                                say('mutation { clusterTerminate(input: {clusterId: "%s"}) }' % cid)
                        except (requests.RequestException, ValueError):
                            time.sleep(0.005)

            threads = [threading.Thread(target=work, daemon=True) for _ in range(3)]
            for t in threads:
                t.start()
            time.sleep(rng.random() / 8)
            api.kill()
            stop.set()
            for t in threads:
                t.join(10)
            held = stored(api, "gpu")
            assert len({uuid for uuid, _, _ in held}) == len(held)
            api.start()
            listed = {c["id"] for c in api.gql("{ myself { clusters { id } } }")["myself"]["clusters"]}
            assert promised <= listed
            answered += len(promised)
            promised.clear()
            for cid in listed:
                api.gql('mutation { clusterTerminate(input: {clusterId: "%s"}) }' % cid)
        assert answered > 10
        limit = time.monotonic() + 10
        while any(holders(api)):
            assert time.monotonic() < limit, holders(api)
            time.sleep(0.02)
        assert node.twice == []
        assert got(node, deploy(api, type_id(R3090), 4)) == [0, 1, 2, 3]  # none is lost
    finally:
        api.close()
        node.close()


def test_bound_memory_is_counted_per_node(tmp_path):
    """Rows of the store: the nodes of a cluster's memory; none for what was there before."""
    with world(tmp_path, fleets.rtx3090x4(), numa=two_nodes()) as (api, node):
        a = api.deploy("minMemoryInGb: 40, containerDiskInGb: 1")["id"]
        b = api.deploy("minMemoryInGb: 40, containerDiskInGb: 1")["id"]
        assert [plan(node, c)["mems"] for c in (a, b)] == ["0", "1"]
        api.kill()
        assert sorted(stored(api, "numa")) == sorted([(a, a, 1), (b, b, 2)])
        with contextlib.closing(sqlite3.connect(os.path.join(api.data, "store.db"))) as db:
            db.execute("DELETE FROM reservation WHERE kind = 'numa'")  # as an older version left it
            db.commit()
        api.start()
        c = plan(node, api.deploy("minMemoryInGb: 20, containerDiskInGb: 1")["id"])
        assert c["mems"] == "0"      # 40 GB of both lie on each
        d = plan(node, api.deploy("minMemoryInGb: 24, containerDiskInGb: 1")["id"])
        assert d["mems"] == "1"
        assert "minMemoryInGb" in api.refused(
            'mutation { clusterFindAndDeployOnDemand(input: {imageName: "x", gpuCount: 0, minMemoryInGb: 8}) { id } }')["message"]
