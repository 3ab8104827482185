"""Subscriptions and exec sessions against clients that mean harm: keys that are taken away, dear answers,
frames that no WebSocket has (docs/edge.md, "Subscriptions")."""
import json
import os
import random
import re
import struct
import sys
import time

import pytest
import requests
import websocket

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from fake_node import FakeNode, cri  # noqa: E402
from test_api import api  # noqa: E402,F401
from test_subscriptions import EVENTS, PATIENCE, Sse, Ws, deploy, memory_kib  # noqa: E402


@pytest.fixture
def node(tmp_path):
    n = FakeNode(str(tmp_path / "node.sock"), str(tmp_path), cpus=64, memory_mib=256000, disk_gib=4000, overcommit=10.0)
    yield n
    n.close()


def running(api, key=None):  # noqa: F811
    [c] = deploy(api, key=key)
    api.until(c, lambda x: x and x["phase"] == "running", timeout=PATIENCE, key=key)
    return c


# ---- keys that are taken away -----------------------------------------------------------------

@pytest.fixture
def removable(api):  # noqa: F811
    """A key, another one of the same account, and what takes the first away."""
    stays = api.account("mine")
    r = api.session.get(api.base + "/v1/accounts", headers=api.head(), timeout=PATIENCE).json()
    account = next(a["id"] for a in r if a["name"] == "mine")
    k = api.session.post(api.base + "/v1/accounts/%s/keys" % account, json={"name": "k"}, headers=api.head(),
                         timeout=PATIENCE).json()

    def remove():
        r = api.session.delete(api.base + "/v1/keys/" + k["id"], headers=api.head(), timeout=PATIENCE)
        assert r.status_code == 200
    return k["key"], stays, remove


def exec_session(api, cluster, key):  # noqa: F811
    return websocket.create_connection(api.base.replace("http", "ws") + "/v1/clusters/%s/exec?cmd=cat" % cluster,
                                       header=["Authorization: Bearer " + key], subprotocols=["tensorone.exec.v1"],
                                       timeout=PATIENCE)


def test_removed_key_ends_what_it_opened(api, node, removable):  # noqa: F811
    """Without anything happening that would have to be told: subscriptions, terminals, logs that are followed."""
    key, stays, remove = removable
    c = running(api, key)
    node.log(c).write(cri("one"))
    ws, init = Ws(api, key=key), Ws(api, key=None, init={"Authorization": key})
    for w in (ws, init):
        w.subscribe("e", EVENTS)
        w.subscribe("m", 'subscription { clusterMetrics(input: {clusterId: "%s"}) { state } }' % c)
        w.subscribe("l", 'subscription { clusterLogs(input: {clusterId: "%s"}) { text } }' % c)
        assert {w.recv()["id"] for _ in range(2)} == {"m", "l"}
    sse = Sse(api, EVENTS, key)
    run = exec_session(api, c, key)
    run.send_binary(b"\0hello")
    assert run.recv() == b"\1hello"
    follow = requests.get(api.base + "/v1/clusters/%s/logs?follow=1" % c, headers=api.head(key), stream=True, timeout=PATIENCE)
    lines = follow.iter_lines(chunk_size=1)
    assert next(lines) == b"one"
    other = Ws(api, key=stays)
    other.subscribe("l", 'subscription { clusterLogs(input: {clusterId: "%s"}) { text } }' % c)
    assert other.next("l")["text"] == "one"
    remove()
    for w in (ws, init):
        ended = {}
        while set(ended) != {"e", "m", "l"}:
            m = w.recv()
            if m["type"] == "next":
                assert m["payload"]["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED", m
            else:
                assert m["type"] == "complete"
                ended[m["id"]] = True
        w.subscribe("again", EVENTS)
        m = w.recv()
        assert m["type"] in ("next", "error"), m
        text = json.dumps(m)
        assert "UNAUTHENTICATED" in text
    op, data = run.recv_data()
    assert op == websocket.ABNF.OPCODE_BINARY and data[:1] == b"\6" and b"was removed" in data
    op, data = run.recv_data()
    assert op == websocket.ABNF.OPCODE_CLOSE and struct.unpack(">H", data[:2])[0] == 1008
    kind, data = sse.event()
    assert kind == "next" and data["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"
    node.log(c).write(cri("two"))
    assert list(lines) == []
    assert other.next("l")["text"] == "two", "another key's goes on"


# ---- dear answers -----------------------------------------------------------------------------

def names(field, n):
    return " ".join("f%d: %s" % (i, field) for i in range(n))


def test_long_answers_are_refused(api, node):  # noqa: F811
    """A line of 16 KiB under 500 names is 8 MB for each of a hundred subscriptions: an error takes its place, and the
    next line is told."""
    c = running(api)
    log = node.log(c)
    ws = Ws(api)
    query = 'subscription { clusterLogs(input: {clusterId: "%s"}) { %s } }' % (c, names("text", 500))
    for i in range(50):
        ws.subscribe("s%d" % i, query)
    ws.send(type="ping")
    assert ws.recv() == {"type": "pong"}
    before = memory_kib(api)
    log.write(cri("x" * 16000), cri("short"))
    seen = {}
    while len(seen) < 50:
        m = ws.recv()
        assert m["type"] == "next"
        if "errors" in m["payload"]:
            assert m["payload"]["errors"][0]["extensions"]["code"] == "ANSWER_TOO_LONG"
            assert m["payload"]["data"] is None
        else:
            assert m["payload"]["data"]["clusterLogs"]["f499"] == "short"
            seen[m["id"]] = True
    assert memory_kib(api) - before < 32 << 10


def test_one_object_under_many_names(api, node):  # noqa: F811
    """A query, too, has no answer beyond its limit, however few objects are in it."""
    c = api.deploy('env: [%s]' % ", ".join('{key: "K%d", value: "%s"}' % (i, "x" * 100000) for i in range(4)))["id"]
    before = memory_kib(api)
    r = api.post('{ cluster(input: {clusterId: "%s"}) { %s } }' % (c, names("env", 2000)))
    assert r.json()["errors"][0]["extensions"]["code"] in ("ANSWER_TOO_LONG", "BAD_USER_INPUT"), r.text[:500]
    assert len(r.content) < 4096
    assert memory_kib(api) - before < 200 << 10, "800 MB were asked for"


# ---- frames -----------------------------------------------------------------------------------

def frame(opcode, payload=b"", fin=True, mask=True, rsv=0, length=None):
    n = len(payload) if length is None else length
    b = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    m = 0x80 if mask else 0
    b += bytes([m | n]) if n < 126 else struct.pack(">BH", m | 126, n) if n < 65536 else struct.pack(">BQ", m | 127, n)
    key = b"\1\2\3\4"
    return b + (key + bytes(c ^ key[i % 4] for i, c in enumerate(payload)) if mask else payload)


PING = b'{"type":"ping"}'
ENDS = {
    "unmasked": frame(1, PING, mask=False),
    "reserved bits": frame(1, PING, rsv=4),
    "reserved opcode": frame(3, PING),
    "reserved control": frame(11),
    "fragmented ping": frame(9, b"x", fin=False),
    "long ping": frame(9, b"x" * 126),
    "continuation of nothing": frame(0, PING),
    "message within a message": frame(1, PING, fin=False) + frame(1, PING),
    "a length beyond all": frame(1, b"", length=(1 << 63) + 5),
    "a length that ends at the limit of a number": frame(2, b"", length=(1 << 62)),
    "a length that is written too long": b"\x81\xfe\x00\x05\0\0\0\0hello",
    "message over the limit": frame(1, b"x" * 65537),
    "message over the limit in pieces": frame(1, b"x" * 40000, fin=False) + frame(0, b"x" * 40000),
    "close of one byte": frame(8, b"x"),
    "close with a code that is none": frame(8, struct.pack(">H", 1005)),
    "close with a reason that is no text": frame(8, struct.pack(">H", 1000) + b"\xff\xfe"),
    "text that is none": frame(1, b"\xff\xfe{}"),
    "text that is none, in pieces": frame(1, b"{\"a\": \"\xe2", fin=False) + frame(0, b"x\"}"),
    "pieces without end": frame(1, b"", fin=False) + frame(0, b"", fin=False) * 5000,
}


def raw(api, path="/graphql", protocol="graphql-transport-ws"):  # noqa: F811
    """A socket behind the handshake."""
    w = websocket.create_connection(api.base.replace("http", "ws") + path, timeout=PATIENCE,
                                    header=["Authorization: Bearer " + api.key], subprotocols=[protocol])
    w.sock.settimeout(PATIENCE)
    return w.sock


def drained(sock):
    """Whatever comes until the end of the connection."""
    got = b""
    try:
        while data := sock.recv(65536):
            got += data
    except ConnectionResetError:
        pass
    return got


@pytest.mark.parametrize("what", ENDS)
def test_frames_that_are_none(api, node, what):  # noqa: F811
    """Each ends its own connection, and nothing else."""
    c = running(api)
    good = Ws(api)
    for path, protocol in (("/graphql", "graphql-transport-ws"),
                           ("/v1/clusters/%s/exec?cmd=cat" % c, "tensorone.exec.v1")):
        if protocol == "tensorone.exec.v1" and ("over the limit" in what or "pieces" in what or "text" in what):
            continue  # which takes a megabyte, and no text
        if protocol == "tensorone.exec.v1" and "limit of a number" in what:
            continue  # it is told so, 1009, and may go
        sock = raw(api, path, protocol)
        try:
            sock.sendall(ENDS[what])
        except (BrokenPipeError, ConnectionResetError):
            pass
        drained(sock)
        sock.close()
    good.send(type="ping")
    assert good.recv() == {"type": "pong"}


def test_random_frames(api, node):  # noqa: F811
    """Valid ones that are cut, glued and bent, over one socket after the other; the API stays and keeps no memory."""
    rng = random.Random(20261123)
    parts = [frame(1, json.dumps({"type": "connection_init"}).encode()), frame(1, PING), frame(9, b"x"), frame(10), frame(0, b"x"),
             frame(1, json.dumps({"type": "subscribe", "id": "a", "payload": {"query": EVENTS}}).encode()),
             frame(1, json.dumps({"type": "complete", "id": "a"}).encode()), frame(8, struct.pack(">H", 1000)), *ENDS.values()]
    before = None
    for i in range(300):
        data = bytearray(b"".join(rng.choice(parts) for _ in range(rng.randrange(1, 8))))
        for _ in range(rng.randrange(3)):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        sock = raw(api)
        try:
            sock.sendall(data[:rng.randrange(len(data)) + 1])
        except (BrokenPipeError, ConnectionResetError):
            pass
        sock.close()
        if i == 100:
            before = memory_kib(api)
    w = Ws(api)
    w.send(type="ping")
    assert w.recv() == {"type": "pong"}
    assert memory_kib(api) - before < 16 << 10
    end = time.monotonic() + PATIENCE
    while len(os.listdir("/proc/%d/fd" % api.proc.pid)) > 64:
        assert time.monotonic() < end, "their sockets stay"
        time.sleep(0.1)


def test_flood_of_pings(api, node):  # noqa: F811
    """Answers that the client does not read are not made."""
    w = Ws(api)
    before = memory_kib(api)
    sock = w.ws.sock
    sock.settimeout(10)
    data = frame(9, b"x" * 125) * 4096
    sent = 0
    try:
        while sent < 64 << 20:
            sent += sock.send(data)
    except TimeoutError:
        pass
    assert sent < 64 << 20, "it was read on and on"
    assert memory_kib(api) - before < 8 << 10
    other = Ws(api)
    other.send(type="ping")
    assert other.recv() == {"type": "pong"}


def test_cluster_of_another(api, node):  # noqa: F811
    """Ids that are guessed, ended, or another account's: no difference is told, by none of the three."""
    mine, theirs = api.account("mine"), api.account("theirs")
    a, [gone] = running(api, theirs), deploy(api, key=theirs)
    api.gql('mutation { clusterTerminate(input: {clusterId: "%s"}) }' % gone, theirs)
    ws = Ws(api, key=mine)
    answers = {}
    for field, sub in (("clusterMetrics", "state"), ("clusterLogs", "text")):
        for c in (a, gone, "nothere", "", "../" + a, a.upper(), "x" * 10000, a + "\\u0000"):
            ws.subscribe("q", 'subscription { %s(input: {clusterId: "%s"}) { %s } }' % (field, c, sub))
            m = ws.recv()
            assert m["type"] == "error", (field, c, m)
            answers.setdefault(field, set()).add(re.sub(r'"(line|column)": \d+', "", json.dumps(m["payload"])))
    ws.subscribe("e", 'subscription { clusterEvents(input: {clusterId: "%s"}) { kind } }' % a)
    ws.send(type="ping")
    assert ws.recv() == {"type": "pong"}
    api.gql('mutation { clusterStop(input: {clusterId: "%s"}) { id } }' % a, theirs)
    [b] = deploy(api, key=mine)
    ws.subscribe("own", 'subscription { clusterEvents(input: {since: "2020-01-01"}) { clusterId } }')
    assert ws.next("own") == {"clusterId": b}, "nothing of the other account's"
    assert all(len(v) <= 2 for v in answers.values()), answers
