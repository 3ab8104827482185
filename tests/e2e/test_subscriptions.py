"""GraphQL subscriptions over server-sent events and graphql-transport-ws (docs/edge.md): what they tell, whom, and
what clients that misbehave cost."""
import json
import os
import re
import socket
import struct
import sys
import threading
import time

import pytest
import requests
import websocket

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from fake_node import FakeNode, cri  # noqa: E402
from test_api import api  # noqa: E402,F401

PROTOCOL = "graphql-transport-ws"
PATIENCE = 60
EVENTS = "subscription { clusterEvents { time kind clusterId text } }"


@pytest.fixture
def node(tmp_path):
    n = FakeNode(str(tmp_path / "node.sock"), str(tmp_path), cpus=64, memory_mib=256000, disk_gib=4000, overcommit=10.0)
    yield n
    n.close()


class Sse:
    """The answers of one subscription, until its end."""

    def __init__(self, api, query, key=None, variables=None):
        self.r = requests.post(api.base + "/graphql", json={"query": query, "variables": variables}, stream=True,
                               headers={**api.head(key), "Accept": "text/event-stream"}, timeout=PATIENCE)
        self.lines = self.r.iter_lines(chunk_size=1)

    def event(self):
        got = {}
        for line in self.lines:
            if not line and got:
                return got["event"], json.loads(got["data"]) if got["data"] else None
            if line and not line.startswith(b":"):
                name, _, value = line.decode().partition(":")
                got[name] = value.strip()
        return None, None

    def next(self):
        kind, data = self.event()
        assert kind == "next" and "errors" not in data, (kind, data)
        [value] = data["data"].values()
        return value

    def close(self):
        self.r.close()


class Ws:
    def __init__(self, api, key="", init=None, ack=True, **kw):
        head = [] if key is None else ["Authorization: Bearer " + (key or api.key)]
        self.ws = websocket.create_connection(api.base.replace("http", "ws") + "/graphql", timeout=PATIENCE,
                                              header=head, subprotocols=[PROTOCOL], **kw)
        if ack:
            self.send(type="connection_init", **({"payload": init} if init else {}))
            assert self.recv() == {"type": "connection_ack"}

    def send(self, **message):
        self.ws.send(json.dumps(message))

    def recv(self):
        op, data = self.ws.recv_data()
        if op == websocket.ABNF.OPCODE_CLOSE:
            return struct.unpack(">H", data[:2])[0]
        return json.loads(data)

    def subscribe(self, id, query, **variables):
        self.send(id=id, type="subscribe", payload={"query": query, "variables": variables})

    def next(self, id):
        m = self.recv()
        assert m["type"] == "next" and m["id"] == id and "errors" not in m["payload"], m
        [value] = m["payload"]["data"].values()
        return value

    def closed(self):
        """The code of the close; answers before it are passed over."""
        while True:
            m = self.recv()
            if isinstance(m, int):
                return m


def deploy(api, n=1, key=None):
    return [api.deploy("containerDiskInGb: 5", key=key)["id"] for _ in range(n)]


def memory_kib(api):
    return int(re.search(r"VmRSS:\s+(\d+)", open("/proc/%d/status" % api.proc.pid).read()).group(1))


# ---- what is told -----------------------------------------------------------------------------

def test_events(api, node):
    """In order, each once, on both transports; with `since` what was missed comes first."""
    [first] = deploy(api)
    api.running(first)
    sse, ws = Sse(api, EVENTS), Ws(api)
    assert sse.r.headers["Content-Type"] == "text/event-stream"
    ws.subscribe("e", EVENTS)
    ws.subscribe("one", 'subscription { podEvents(input: {podId: "%s"}) { kind podId } }' % first)
    ids = deploy(api, 5)
    told = [sse.next() for _ in range(5)]
    assert [(e["kind"], e["clusterId"]) for e in told] == [("deployed", i) for i in ids]
    assert [ws.next("e") for _ in range(5)] == told
    api.gql('mutation { podStop(input: {podId: "%s"}) { id } }' % first)
    got = [ws.recv() for _ in range(2)]
    assert {m["id"] for m in got} == {"e", "one"}
    one = next(m["payload"]["data"] for m in got if m["id"] == "one")
    assert one == {"podEvents": {"kind": "stopped", "podId": first}}
    ws.send(id="one", type="complete")
    again = Sse(api, "subscription($s: DateTime) { clusterEvents(input: {since: $s}) { time kind clusterId text } }",
                variables={"s": told[1]["time"]})
    assert [again.next() for _ in range(3)] == told[2:]
    kinds = Sse(api, 'subscription { clusterEvents(input: {kind: "terminated"}) { kind clusterId } }')
    api.gql('mutation { clusterTerminate(input: {clusterId: "%s"}) }' % ids[0])
    assert kinds.next() == {"kind": "terminated", "clusterId": ids[0]}
    for s in (sse, again, kinds):
        s.close()
    ws.ws.close()


def test_metrics(api, node):
    [c] = deploy(api)
    api.running(c)
    query = 'subscription($i: ClusterFilter!) { clusterMetrics(input: $i) { state cpuUtilization memoryUtilization } }'
    sse, ws = Sse(api, query, variables={"i": {"clusterId": c}}), Ws(api)
    ws.subscribe("m", query, i={"clusterId": c})
    assert sse.next()["state"] == ws.next("m")["state"] == "running"
    with node.lock:
        node.report(c, usage={"cpu_us": 2000, "memory_bytes": 1 << 29})
    assert sse.next()["memoryUtilization"] == ws.next("m")["memoryUtilization"] == 50
    api.gql('mutation { clusterTerminate(input: {clusterId: "%s"}) }' % c)
    while (e := sse.event())[0] == "next":
        pass
    assert e == ("complete", None) and sse.event() == (None, None)
    while (m := ws.recv())["type"] == "next":
        pass
    assert m == {"type": "complete", "id": "m"}


def test_logs(api, node):
    """What is there, then what is written, over a restart of the monitor and of the engine's connection."""
    [c] = deploy(api)
    api.running(c)
    log = node.log(c)
    log.write(cri("one"), cri("two"), cri("bad", "stderr"))
    query = ("subscription($i: ClusterLogsInput!) { clusterLogs(input: $i) { time stream text whole } }")
    sse, ws = Sse(api, query, variables={"i": {"clusterId": c}}), Ws(api)
    ws.subscribe("last", query, i={"clusterId": c, "tail": 1, "stream": "stdout"})
    ws.subscribe("err", 'subscription { podLogs(input: {podId: "%s", stream: "stderr"}) { text } }' % c)
    got = [sse.next() for _ in range(3)]
    assert [(g["stream"], g["text"]) for g in got] == [("stdout", "one"), ("stdout", "two"), ("stderr", "bad")]
    assert all(g["whole"] and re.match(r"\d{4}-\d\d-\d\dT", g["time"]) for g in got)
    got = {m["id"]: m["payload"]["data"] for m in (ws.recv(), ws.recv())}
    assert got["last"]["clusterLogs"]["text"] == "two" and got["err"] == {"podLogs": {"text": "bad"}}
    odd = 'tab\t "quote" \\ \u20ac \x1b[0m'
    log.write(cri(odd), cri("half", tag="P"), cri("done"))
    assert [(g["text"], g["whole"]) for g in (sse.next(), sse.next(), sse.next())] == [
        (odd, True), ("half", False), ("done", True)]
    assert [ws.next("last")["text"] for _ in range(3)] == [odd, "half", "done"]
    node.drop()  # the engine is away; the monitor is not
    log.write(cri("while it was away"))
    assert sse.next()["text"] == "while it was away"
    log.write(b"".join(cri("line %d" % i) for i in range(2000)))
    assert [sse.next()["text"] for _ in range(2000)] == ["line %d" % i for i in range(2000)]
    end = time.monotonic() + PATIENCE
    while api.get("/health").status_code != 200:  # the engine is back
        assert time.monotonic() < end
        time.sleep(0.05)
    api.gql('mutation { clusterStop(input: {clusterId: "%s"}) { id } }' % c)
    log.close()
    while (e := sse.event())[0] == "next":
        pass
    assert e == ("complete", None)
    for i, says in (({"clusterId": "nothere"}, "cluster not found"), ({"clusterId": c, "stream": "x"}, "stdout or stderr"),
                    ({"clusterId": c, "tail": -1}, "tail"), ({"clusterId": c, "since": "soon"}, "soon")):
        w = Ws(api)
        w.subscribe("x", query, i=i)
        m = w.recv()
        assert m["type"] == "error" and says in m["payload"][0]["message"], m
        w.ws.close()
    theirs = Ws(api, key=api.account("other"))
    theirs.subscribe("x", query, i={"clusterId": c})
    assert theirs.recv()["payload"][0]["message"] == "cluster not found", "as if it did not exist"


def test_logs_without_an_engine(api, node):
    """A log that cannot be had ends with a code, and a client that comes back gets it."""
    [c] = deploy(api)
    api.running(c)
    os.rename(node.path, node.path + ".away")
    node.drop()
    end = time.monotonic() + PATIENCE
    while api.get("/health").status_code == 200:
        assert time.monotonic() < end
        time.sleep(0.05)
    query = 'subscription { clusterLogs(input: {clusterId: "%s"}) { text } }' % c
    w = Ws(api)
    w.subscribe("x", query)
    m = w.recv()
    assert m["type"] == "error" and m["payload"][0]["extensions"]["code"] == "UNAVAILABLE", m
    os.rename(node.path + ".away", node.path)
    node.log(c).write(cri("hello"))
    while (m := (w.subscribe("x", query), w.recv())[1])["type"] == "error":
        assert time.monotonic() < end
        time.sleep(0.05)
    assert m["payload"]["data"]["clusterLogs"]["text"] == "hello"


def test_every_event_once_while_many_happen(api, node):
    """Answers leave in the order of the journal, whatever is written at the same time."""
    ws = Ws(api)
    ws.subscribe("e", 'subscription { clusterEvents(input: {kind: "deployed"}) { time clusterId } }')
    made, lock = [], threading.Lock()

    def work():
        for _ in range(15):
            [c] = deploy(api)
            with lock:
                made.append(c)

    workers = [threading.Thread(target=work) for _ in range(3)]
    for w in workers:
        w.start()
    got = [ws.next("e") for _ in range(45)]
    for w in workers:
        w.join()
    assert sorted(e["clusterId"] for e in got) == sorted(made)
    assert [e["time"] for e in got] == sorted(e["time"] for e in got)


# ---- whom -------------------------------------------------------------------------------------

def test_whose(api, node):
    mine, theirs = api.account("mine"), api.account("theirs")
    [a], [b] = deploy(api, key=mine), deploy(api, key=theirs)
    events = Sse(api, EVENTS, mine)
    admin = Sse(api, EVENTS)
    [b2], [a2] = deploy(api, key=theirs), deploy(api, key=mine)
    assert events.next()["clusterId"] == a2, "nothing of the other account"
    assert [admin.next()["clusterId"] for _ in range(2)] == [b2, a2]
    metrics = 'subscription { clusterMetrics(input: {clusterId: "%s"}) { state } }'
    answers = [requests.post(api.base + "/graphql", json={"query": metrics % c}, timeout=PATIENCE,
                             headers={**api.head(mine), "Accept": "text/event-stream"}).json()["errors"][0]
               for c in (b, "nothere")]
    assert answers[0] == answers[1] and answers[0]["extensions"]["code"] == "NOT_FOUND", "as if it did not exist"
    for key, status in ((None, 401), ("wrong", 401)):
        r = requests.post(api.base + "/graphql", json={"query": EVENTS}, timeout=PATIENCE,
                          headers={"Accept": "text/event-stream", **({"Authorization": key} if key else {})})
        assert r.status_code == status, r.text
    ws = Ws(api, key=None)  # a browser has no header for its key
    ws.subscribe("x", EVENTS)
    m = ws.recv()
    assert (m["type"], m["payload"][0]["extensions"]["code"]) == ("error", "UNAUTHENTICATED"), m
    ws.ws.close()
    ws = Ws(api, key=None, init={"Authorization": "Bearer " + mine})
    ws.subscribe("x", metrics % b)
    ws.subscribe("y", metrics % a)
    got = {m["id"]: m for m in (ws.recv(), ws.recv())}
    assert got["x"]["payload"][0]["message"] == "cluster not found" and got["y"]["type"] == "next"
    own = dict(v.split("=", 1) for v in node.clusters[a]["plan"]["env"])["TENSORONE_API_KEY"]
    ws = Ws(api, key=own)  # the key that a cluster finds inside
    for i, query in enumerate((metrics % a, metrics % a2, EVENTS)):
        ws.subscribe(str(i), query)
    got = {m["id"]: m for m in (ws.recv(), ws.recv(), ws.recv())}
    assert got["0"]["type"] == "next" and got["1"]["payload"][0]["extensions"]["code"] == "NOT_FOUND"
    assert got["2"]["payload"][0]["extensions"]["code"] == "FORBIDDEN"
    assert refused(api, init={"Authorization": "Bearer wrong"}) == 4403


def refused(api, init):
    ws = Ws(api, key=None, ack=False)
    ws.send(type="connection_init", payload=init)
    return ws.closed()


def test_a_key_that_is_taken_away(api, node):
    key = api.account("mine")
    r = api.session.get(api.base + "/v1/accounts", headers=api.head(), timeout=PATIENCE).json()
    account = next(a["id"] for a in r if a["name"] == "mine")
    k = api.session.post(api.base + "/v1/accounts/%s/keys" % account, json={"name": "k", "rights": "read"},
                         headers=api.head(), timeout=PATIENCE).json()
    s = Sse(api, EVENTS, k["key"])
    [a] = deploy(api, key=key)
    assert s.next()["clusterId"] == a
    assert api.session.delete(api.base + "/v1/keys/" + k["id"], headers=api.head(), timeout=PATIENCE).status_code == 200
    deploy(api, key=key)
    kind, data = s.event()
    assert kind == "next" and data["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"
    assert s.event() == ("complete", None)


# ---- clients that misbehave -------------------------------------------------------------------

@pytest.mark.parametrize("send,code", [
    ({"type": "subscribe", "id": "a", "payload": {"query": EVENTS}}, 4401),
    ({"type": "nonsense"}, 4400), ("not JSON", 4400), ({}, 4400), ([], 4400), ({"type": 5}, 4400), (b"\0\1", 4400)])
def test_wrong_messages(api, node, send, code):
    ws = Ws(api, ack=False)
    if isinstance(send, bytes):
        ws.ws.send_binary(send)
    else:
        ws.ws.send(send if isinstance(send, str) else json.dumps(send))
    assert ws.closed() == code


def test_wrong_messages_later(api, node):
    for messages, code in (([{"type": "connection_init"}], 4429),
                           ([{"type": "subscribe", "id": "a", "payload": {"query": EVENTS}}] * 2, 4409),
                           ([{"type": "subscribe", "id": "", "payload": {"query": EVENTS}}], 4400),
                           ([{"type": "subscribe", "id": "a" * 129, "payload": {"query": EVENTS}}], 4400),
                           ([{"type": "subscribe", "id": "a"}], 4400),
                           ([{"type": "subscribe", "id": 7, "payload": {"query": EVENTS}}], 4400)):
        ws = Ws(api)
        for m in messages:
            ws.send(**m)
        assert ws.closed() == code, messages
    ws = Ws(api)
    ws.send(type="ping")
    assert ws.recv() == {"type": "pong"}
    for bad, says in (("{ myself { id } }", "only subscriptions"), ("subscription {", ""), ("", ""),
                      ("subscription { a: clusterEvents { kind } b: clusterEvents { kind } }", "exactly one field"),
                      ("subscription { clusterEvents { " + "x { " * 70 + "}" * 71 + "}", ""),
                      ("subscription { clusterEvents { %s } }" % " ".join("f%d: kind" % i for i in range(600)), "512 fields"),
                      ('subscription { clusterEvents(input: {kind: "nope"}) { kind } }', "'nope' is none"),
                      ('subscription { clusterEvents(input: {since: "soon"}) { kind } }', "")):
        ws.subscribe("q", bad)
        m = ws.recv()
        assert m["type"] == "error" and m["id"] == "q" and says in m["payload"][0]["message"], m
    ws.subscribe("q", EVENTS)
    [c] = deploy(api)
    assert ws.next("q")["clusterId"] == c, "it serves on"
    r = requests.get(api.base + "/graphql", headers=api.head(), timeout=PATIENCE)
    assert r.status_code == 405 and "WebSocket" in r.text
    assert "over a WebSocket" in api.refused(EVENTS)["message"]


def test_invalid_frames(api, node):
    """What is no WebSocket ends its own connection and nothing else."""
    for junk in (b"\xff" * 64, b"\x81\x05hello", b"\x83\x80\0\0\0\0", b"\x81\xff" + b"\xff" * 8 + b"\0" * 4,
                 b"\x88\xfe\xff\xff\0\0\0\0"):
        ws = Ws(api)
        ws.ws.sock.sendall(junk)
        ws.ws.sock.settimeout(PATIENCE)
        while ws.ws.sock.recv(65536):
            pass
    assert api.get("/health").status_code == 200


def test_ten_thousand_on_one_socket(api, node):
    """One account's limit holds, all are answered, and the memory is given back."""
    ws = Ws(api)
    before = memory_kib(api)
    answers = {"error": 0, "next": 0}

    def read():
        while sum(answers.values()) < 9900:
            answers[ws.recv()["type"]] += 1

    reader = threading.Thread(target=read)
    reader.start()
    for i in range(10000):
        ws.subscribe(str(i), EVENTS)
    reader.join(PATIENCE)
    assert not reader.is_alive() and answers["error"] == 9900
    other = Ws(api, key=api.account("other"))
    other.subscribe("x", EVENTS)
    other.send(type="ping")
    assert other.recv() == {"type": "pong"}, "another account has its own"
    ws.ws.close()
    assert memory_kib(api) - before < 32 << 10
    end = time.monotonic() + PATIENCE
    while True:  # those of the closed socket are free again
        s = Sse(api, EVENTS)
        if s.r.headers["Content-Type"] == "text/event-stream":
            return
        assert time.monotonic() < end and s.r.json()["errors"][0]["extensions"]["code"] == "QUOTA_EXCEEDED"


def test_sockets_of_an_account(api, node):
    open_, key = [], api.account("many")
    for _ in range(32):
        open_.append(Ws(api, key=key))
    with pytest.raises(websocket.WebSocketBadStatusException) as e:
        Ws(api, key=key)
    assert e.value.status_code == 503
    late = Ws(api, key=None, ack=False)
    late.send(type="connection_init", payload={"Authorization": "Bearer " + key})
    assert late.closed() == 4428
    Ws(api).ws.close()
    for w in open_:
        w.ws.close()


@pytest.mark.parametrize("transport", ["sse", "ws"])
def test_a_reader_that_never_reads(api, node, transport):
    """It is behind, holds no memory, and is cut off; who reads beside it misses nothing."""
    small = [(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)]
    fields = " ".join("f%d: text" % i for i in range(400))  # some 20 KB an answer
    query = "subscription { clusterEvents { kind clusterId %s } }" % fields
    if transport == "ws":
        slow = Ws(api, sockopt=small)
        for i in range(20):
            slow.subscribe(str(i), query)
        sock = slow.ws.sock
    else:
        sock = socket.socket()
        sock.setsockopt(*small[0])
        sock.settimeout(PATIENCE)
        sock.connect(api.sock.getsockname())
        body = json.dumps({"query": query})
        sock.sendall(("POST /graphql HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nAccept: text/event-stream\r\n"
                      "Content-Length: %d\r\n\r\n%s" % (api.key, len(body), body)).encode())
    good = Ws(api)
    good.subscribe("e", EVENTS)
    deploy(api, 2)
    before = memory_kib(api)
    for _ in range(40):
        deploy(api, 3)
    for _ in range(122):
        good.next("e")
    assert memory_kib(api) - before < 16 << 10, "24 answers of 20 KB for each event were to be held"
    end = time.monotonic() + 120
    while "is not read; closed" not in api.log():
        assert time.monotonic() < end
        time.sleep(0.1)
    if transport == "ws":
        assert slow.closed() == 4413
    # the far end of its connection is gone after a while, whatever it does
    port = sock.getsockname()[1]
    end = time.monotonic() + 120
    while any(line.split()[2].endswith(":%04X" % port) and line.split()[3] == "01"
              for line in open("/proc/net/tcp").read().splitlines()[1:]):
        assert time.monotonic() < end
        time.sleep(0.2)
    sock.close()


def test_no_connection_init(api, node):
    ws = Ws(api, ack=False)
    assert ws.closed() == 4408


def test_restart(api, node):
    """The API goes and comes back: `since` has what was missed, in order."""
    ids = deploy(api, 3)
    s = Sse(api, "subscription { clusterEvents(input: {since: \"2020-01-01\"}) { time clusterId } }")
    told = [s.next() for _ in range(3)]
    api.kill()
    api.start()
    s = Sse(api, "subscription($s: DateTime) { clusterEvents(input: {since: $s, kind: \"deployed\"}) { time clusterId } }",
            variables={"s": told[0]["time"]})
    more = deploy(api, 2)
    assert [s.next()["clusterId"] for _ in range(4)] == ids[1:] + more
    s.close()
