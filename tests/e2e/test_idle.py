"""The idle stop (docs/edge.md): what counts as use, the warning, the end, and restarts in between; against an
engine that plays its reports, then on a real host."""
import os
import socket
import sys
import threading
import time

import pytest

import edge
from edge import Edge
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from fake_node import FakeNode, fleet  # noqa: E402
from host import ApiError, Host  # noqa: E402
from test_api import Exec, api  # noqa: E402,F401

SELECT = "id desiredStatus phase lastStatusChange idleTimeoutSeconds idleAction idleSeconds lastUse version updating"
FOREVER = 90  # seconds within which what must happen has happened, on any machine


class Reporter:
    """Reports like an engine's, only more often; `use` of a cluster is called before each of its own."""

    def __init__(self, node):
        self.node, self.use, self.done = node, {}, threading.Event()
        self.gpus = {}
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        last = time.monotonic()
        while not self.done.wait(1.1):
            now = time.monotonic()
            with self.node.lock:
                if self.gpus:
                    self.node.say({"type": "telemetry", "gpus": [
                        {"uuid": u, "util_pct": p} for u, p in self.gpus.items()]})
                for cid, c in list(self.node.clusters.items()):
                    if c["state"] != "running":
                        continue
                    usage = c.setdefault("usage", {"cpu_us": 1000})
                    self.use.get(cid, lambda u, s: None)(usage, now - last)
                    self.node.report(cid)
            last = now

    def close(self):
        self.done.set()
        self.thread.join()


@pytest.fixture
def node(tmp_path):
    n = FakeNode(str(tmp_path / "node.sock"), str(tmp_path), cpus=64, memory_mib=256000, disk_gib=4000, fleet=fleet(2))
    yield n
    n.close()


@pytest.fixture
def reporter(node):
    r = Reporter(node)
    yield r
    r.close()


def idle(api, seconds=10, action="", extra=""):
    c = api.deploy("containerDiskInGb: 5 idleTimeoutSeconds: %d %s %s" % (seconds, action, extra))["id"]
    api.running(c)
    return c


def see(api, c):
    return api.cluster(c, SELECT)


def idle_for(seconds):
    """Where nobody counts, as before a new generation runs, there is no number."""
    return lambda k: k["idleSeconds"] is not None and k["idleSeconds"] >= seconds


def until(api, c, test):
    return api.until(c, test, timeout=FOREVER, select=SELECT)


def events(api, c, kind=""):
    kind = ', kind: "%s"' % kind if kind else ""
    return [e["text"] for e in api.gql('{ events(input: {clusterId: "%s"%s}) { kind text } }' % (c, kind))["events"]]


def cpu(usage, seconds):
    usage["cpu_us"] += int(seconds * 200000)


def daemons(usage, seconds):
    usage["cpu_us"] += int(seconds * 20000)


def traffic(usage, seconds):
    usage["edge"] = {"bytes": usage.get("edge", {}).get("bytes", 0) + 1, "connections": 0}


def connection(usage, seconds):
    usage["edge"] = {"bytes": 77, "connections": 1}


def mute_edge(usage, seconds):
    usage["edge"] = None


def silent_edge(usage, seconds):
    usage["edge"] = {"bytes": 77, "connections": 0}


def test_what_counts(api, node, reporter):
    api.gql('mutation { saveTemplate(input: {name: "t", imageName: "x", dockerArgs: "", containerDiskInGb: 5, volumeInGb: 0, '
            'env: [], idleTimeoutSeconds: 10, idleAction: TERMINATE}) { id } }')
    [t] = api.gql('{ clusterTemplates(input: {isRunpod: false}) { id idleTimeoutSeconds idleAction } }')["clusterTemplates"]
    assert (t["idleTimeoutSeconds"], t["idleAction"]) == (10, "TERMINATE")
    nobody, waits = idle(api), idle(api)
    gone = api.deploy('templateId: "%s"' % t["id"])["id"]
    kept = api.deploy('templateId: "%s" idleAction: STOP' % t["id"])["id"]
    busy = {idle(api): use for use in (cpu, traffic, connection)}
    never = [api.deploy()["id"], api.deploy('templateId: "%s" idleTimeoutSeconds: 0' % t["id"])["id"]]
    talks, followed, unseen = idle(api), idle(api), idle(api)
    works, blind = [api.gql('mutation { clusterFindAndDeployOnDemand(input: {imageName: "x", gpuCount: 1, gpuTypeId: '
                            '"NVIDIA A100-SXM4-80GB", idleTimeoutSeconds: 10}) { id } }')["clusterFindAndDeployOnDemand"]["id"]
                    for _ in range(2)]
    reporter.use.update(busy)
    reporter.use.update({waits: daemons, nobody: silent_edge, unseen: mute_edge})
    node.wait(lambda: works in node.clusters and blind in node.clusters)
    [gpu], [mute] = node.clusters[works]["plan"]["gpus"], node.clusters[blind]["plan"]["gpus"]
    reporter.gpus[gpu] = 60
    session = Exec(api, talks, ["sleep", "1000"])
    follower = api.get("/v1/clusters/%s/logs?follow=1" % followed, stream=True)
    assert see(api, nobody)["lastUse"] in ("start", None) and see(api, never[0])["idleSeconds"] is None
    for c in (nobody, waits, kept):
        end = until(api, c, lambda k: k["desiredStatus"] == "EXITED")
        assert end["lastStatusChange"].startswith("Exited by idleTimeout"), end
        [warning] = events(api, c, "idle")
        assert "nobody has used it for" in warning and "it is stopped in" in warning, warning
        assert any(e.startswith("Exited by idleTimeout") for e in events(api, c, "stopped"))
    until(api, gone, lambda k: k is None)
    assert "it is terminated in" in events(api, gone, "idle")[0]
    assert any(e.startswith("Terminated by idleTimeout") for e in events(api, gone, "terminated"))
    for c, use in {**busy, talks: "session", followed: "session", works: "gpu"}.items():
        want = {cpu: "cpu", traffic: "traffic", connection: "traffic"}.get(use, use)
        k = until(api, c, lambda k: k["lastUse"] == want)
        assert k["desiredStatus"] == "RUNNING" and k["idleSeconds"] < 5, k
    assert all(see(api, c)["desiredStatus"] == "RUNNING" for c in never)
    for c in (blind, unseen):
        assert see(api, c)["idleSeconds"] == 0, "what cannot be seen is not idle"
    reporter.gpus[mute] = 0
    # the end of use is the beginning of the wait
    reporter.gpus[gpu] = 0
    reporter.use.clear()
    node.clusters[list(busy)[2]]["usage"]["edge"]["connections"] = 0
    del node.clusters[unseen]["usage"]["edge"]
    session.ws.close()
    follower.close()
    for c in [*busy, talks, followed, unseen, works, blind]:
        until(api, c, lambda k: k["desiredStatus"] == "EXITED")
    assert all(see(api, c)["desiredStatus"] == "RUNNING" for c in never)


def test_restarts(api, node, reporter):
    """The clock goes on where it was, no start is an end at once, and use that nobody saw counts."""
    c, used = idle(api, 20), idle(api, 20)
    reporter.use[used] = silent_edge
    for k in (c, used):
        until(api, k, idle_for(11))
    api.kill()
    node.clusters[used]["usage"]["edge"] = {"bytes": 100000, "connections": 0}
    reporter.use.clear()
    api.start()
    until(api, used, lambda k: k["lastUse"] == "traffic")
    first = until(api, c, lambda k: k["phase"] in ("running", "ready") and k["idleSeconds"] is not None)
    assert 8 <= first["idleSeconds"] and first["desiredStatus"] == "RUNNING", first
    until(api, c, lambda k: k["desiredStatus"] == "EXITED")
    assert len(events(api, c, "idle")) == 1, "one warning, whoever gave it"
    # stopped and started again: it counts from the start
    api.gql('mutation { clusterResume(input: {clusterId: "%s"}) { id } }' % c)
    k = until(api, c, lambda k: k["lastUse"] == "start" and k["idleSeconds"] is not None)
    assert k["idleSeconds"] < 15, k


def test_the_engine_goes_away(api, node, reporter):
    c = idle(api, 20)
    until(api, c, idle_for(3))
    node.drop()
    until(api, c, idle_for(6))  # it comes back by itself; the clock was not reset
    assert see(api, c)["desiredStatus"] == "RUNNING"


def update(api, c, fields):
    return api.gql('mutation { clusterUpdate(input: {clusterId: "%s" %s}) { %s } }' % (c, fields, SELECT))["clusterUpdate"]


def test_update(api, node, reporter):
    c = api.deploy()["id"]
    api.running(c)
    before = see(api, c)
    assert (before["idleTimeoutSeconds"], before["idleAction"], before["idleSeconds"]) == (0, "STOP", None)
    k = update(api, c, "idleTimeoutSeconds: 3600 idleAction: TERMINATE")
    assert (k["idleTimeoutSeconds"], k["idleAction"], k["version"], k["updating"]) == (3600, "TERMINATE", before["version"], False)
    k = update(api, c, "idleTimeoutSeconds: null")
    assert (k["idleTimeoutSeconds"], k["idleAction"]) == (3600, "TERMINATE")
    k = update(api, c, "idleAction: STOP vcpuCount: 2")  # the engine's part and ours in one
    assert k["idleAction"] == "STOP" and k["version"] == before["version"] + 1
    until(api, c, idle_for(3))
    assert update(api, c, "idleTimeoutSeconds: 7200")["idleSeconds"] == 0, "it counts from here"
    for bad in (9, 1, -1, 2592001):
        for do in ('clusterUpdate(input: {clusterId: "%s" idleTimeoutSeconds: %d}) { id }' % (c, bad),
                   'clusterFindAndDeployOnDemand(input: {imageName: "x" gpuCount: 0 idleTimeoutSeconds: %d}) { id }' % bad,
                   'saveTemplate(input: {name: "b", imageName: "x", dockerArgs: "", containerDiskInGb: 5, volumeInGb: 0, env: [], idleTimeoutSeconds: %d}) { id }' % bad):
            e = api.refused("mutation { %s }" % do)
            assert "idleTimeoutSeconds: %d is neither 0 (never) nor within 10..2592000" % bad in e["message"], e
    assert "IdleAction" in api.refused('mutation { clusterUpdate(input: {clusterId: "%s" idleAction: SOON}) { id } }' % c)["message"]
    api.kill()
    api.start()
    assert see(api, c)["idleTimeoutSeconds"] == 7200
    assert update(api, c, "idleTimeoutSeconds: 0")["idleSeconds"] is None
    other = api.account("other")
    assert api.refused('mutation { clusterUpdate(input: {clusterId: "%s" idleTimeoutSeconds: 10}) { id } }' % c, other)


# ---- a real host ------------------------------------------------------------------------------

def test_real_host():
    with Host(config={"engine": {"cpu_overcommit": 100, "memory_overcommit": 10, "disk_overcommit": 10},
                      "edge": edge.here()}) as host:
        host.import_image("tensorone/starter")
        quiet = host.deploy(dockerArgs="sleep 100000", idleTimeoutSeconds=10)
        asked, held = [host.deploy(ports="8000/http", idleTimeoutSeconds=10) for _ in range(2)]  # HTTP is served there
        dialled = host.deploy(ports="8000/tcp", idleTimeoutSeconds=10)
        busy = host.deploy(dockerArgs="sh -c 'while :; do :; done'", idleTimeoutSeconds=10)
        made = host.cli("create", "cluster", "--imageName", "tensorone/starter", "--gpuCount", "0", "--mem", "1",
                        "--containerDiskSize", "1", "--volumeSize", "0", "--args", "sleep 100000", "--idleTimeout", "1h",
                        "--idleAction", "terminate", "--wait").stdout
        c = made.split('"')[1]
        look = '{ cluster(input: {clusterId: "%s"}) { idleTimeoutSeconds idleAction lastUse } }'
        got = host.gql(look % c)["cluster"]
        assert (got["idleTimeoutSeconds"], got["idleAction"]) == (3600, "TERMINATE")
        for args, says in ((("--idleTimeout", "5s"), "--idleTimeout: 5 is neither 0 (never) nor within 10..2592000"),
                           (("--idleTimeout", "soon"), '--idleTimeout: "soon" is no time'),
                           (("--idleTimeout", "10500ms"), "is not a number of seconds"),
                           (("--idleAction", "sleep"), "idleAction")):
            bad = host.cli("update", "cluster", c, *args, check=False)
            assert bad.returncode != 0 and says in bad.stderr, bad.stderr
        host.cli("update", "cluster", c, "--idleTimeout", "10s")
        e = Edge(host)
        host.wait_running(held)
        line = e.connect(e.name(held, 8000))  # a request that is not all there yet is open
        line.putrequest("POST", "/")
        line.putheader("Content-Length", "100")
        line.endheaders()
        (port,) = [p for p in host.wait_running(dialled)["runtime"]["ports"] if p["isIpPublic"]]

        def uses(cluster, kind):
            return host.gql(look % cluster)["cluster"]["lastUse"] == kind

        def ask(k):
            e.get(e.name(asked, 8000))  # whatever it answers: somebody wants it
            with socket.create_connection((port["ip"], port["publicPort"]), 30) as s:
                s.sendall(b"GET / HTTP/1.0\r\n\r\n")
                s.recv(100)
            return k["phase"] == "exited" and uses(asked, "traffic") and uses(dialled, "traffic")

        seen = host.wait(quiet, ask, FOREVER)
        assert host.cluster(asked)["runtime"] and host.cluster(dialled)["runtime"]
        assert host.cluster(held)["runtime"] and host.gql(look % held)["cluster"]["lastUse"] == "traffic"
        line.close()
        assert seen["lastStatusChange"].startswith("Exited by idleTimeout"), seen
        host.wait(c, lambda k: k is None, FOREVER)
        host.wait(held, lambda k: k["phase"] == "exited", FOREVER)
        host.wait(dialled, lambda k: k["phase"] == "exited", FOREVER)  # nobody asks any more
        seen = host.wait(asked, lambda k: k["phase"] == "exited", FOREVER)
        assert seen["lastStatusChange"].startswith("Exited by idleTimeout"), seen
        assert host.cluster(busy)["runtime"] and host.gql(look % busy)["cluster"]["lastUse"] == "cpu"
        with pytest.raises(ApiError, match="idleTimeoutSeconds"):
            host.deploy(idleTimeoutSeconds=3)
