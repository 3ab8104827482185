"""Who did what, and what clusters did that they should not: events of the kinds audit and security,
written with the change that they tell of, kept for a time and out of others' way."""
import base64
import contextlib
import json
import os
import signal
import sqlite3
import struct
import subprocess
import time

import pytest
import requests

from host import ApiError, Host, program
from sshkeys import ED25519

CONFIG = {"cpu_overcommit": 100, "memory_overcommit": 20, "disk_overcommit": 100,
          "pool_networks": 0, "pool_disks": 0, "grace": "500ms", "log_level": "debug"}
PASSWORD = "pa55w0rd-that-is-never-told"
QUERY = ("query($i: EventsInput) { events(input: $i)"
         " { time kind object clusterId account actor operation outcome text } }")


@pytest.fixture(scope="module")
def host():
    with Host({"engine": CONFIG}) as h:
        h.import_image("tensorone/starter")
        yield h


@pytest.fixture
def key(host):
    """Of an account without a past."""
    own = host.new_account("a%d" % time.monotonic_ns())
    yield own
    for c in host.clusters(own):
        host.call("clusterTerminate", c["id"], own)


def events(host, key=None, kind="audit", **more):
    return host.gql(QUERY, {"i": dict(kind=kind, limit=1000, **more)}, key)["events"]


def changes(host, key, **more):
    return events(host, key, "audit.change", **more)


def until(check, timeout=60, what="it"):
    end = time.monotonic() + timeout
    while True:
        with contextlib.suppress(requests.RequestException):
            got = check()
            if got:
                return got
        assert time.monotonic() < end, "never came: %s" % what
        time.sleep(0.05)


def refused(host, query, variables, key):
    with pytest.raises(ApiError) as e:
        host.gql(query, variables, key)
    return e.value.errors[0]["message"]


def running(host, cluster, key):
    def check():
        c = host.cluster(cluster, key)
        assert c["desiredStatus"] != "EXITED", c["reason"]
        return c["runtime"]
    until(check, what="running")


def account_of(host, key):
    return host.gql("{ myself { id } }", key=key)["myself"]["id"]


# ---- who did what ------------------------------------------------------------------------------

def test_each_change_with_who_and_what_and_outcome(host, key):
    me = account_of(host, key)
    c = host.deploy(key=key, dockerArgs="sleep 1000")
    host.call("podStop", c, key)
    said = refused(host, "mutation { clusterTerminate(input: {clusterId: \"nobodys\"}) }", None, key)
    host.call("clusterTerminate", c, key)
    got = changes(host, key)[::-1]
    first = [e for e in got if e["operation"] != "POST /v1/accounts"]
    assert [(e["operation"], e["object"], e["clusterId"], e["outcome"]) for e in first] == [
        ("clusterFindAndDeployOnDemand", c, c, "done"),
        ("podStop", c, c, "done"),
        ("clusterTerminate", "nobodys", None, "refused"),
        ("clusterTerminate", c, c, "done")]
    assert {e["account"] for e in first} == {me} and len({e["actor"] for e in first}) == 1
    assert first[2]["text"].endswith("refused: " + said)
    assert "(first)" in first[0]["actor"] and first[0]["time"].startswith("20")
    # the account was made by somebody else, and can see that it was
    made = got[0]
    assert made["operation"] == "POST /v1/accounts" and made["object"] == me
    assert "(admin)" in made["actor"] and made["actor"] != first[0]["actor"]


def test_many_refusals_in_one_query(host, key):
    """Not a row each: they would all go through the store, before what others wait for."""
    host.gql("mutation { updateUserSettings(input: {pubKey: \"%s\"}) { id } }" % ED25519, key=key)
    many = " ".join('a%d: clusterTerminate(input: {clusterId: "nobody%d"})' % (i, i) for i in range(500))
    refused(host, "mutation { %s }" % many, None, key)
    got = [e for e in changes(host, key) if e["outcome"] == "refused"]
    assert len(got) == 60 and {e["object"] for e in got} == {"nobody%d" % i for i in range(60)}
    assert got[0]["text"] == "more is refused within this minute, which is not told"
    assert "not found" in got[1]["text"]
    host.gql("mutation { updateUserSettings(input: {pubKey: \"%s y\"}) { id } }" % ED25519, key=key)
    assert changes(host, key)[0]["outcome"] == "done", "what is done is told all the same"


def test_everything_that_changes_something(host, key):
    """Templates, credentials, secrets, settings, keys, images: each with its object."""
    def gql(query, **variables):
        return host.gql(query, variables, key)
    gql("mutation { updateUserSettings(input: {pubKey: \"%s\"}) { id } }" % ED25519)
    t = gql("mutation($i: SaveTemplateInput) { saveTemplate(input: $i) { id } }",
            i=dict(name="t", imageName="x", containerDiskInGb=1, volumeInGb=0, dockerArgs="", env=[]))
    gql("mutation { deleteTemplate(templateName: \"t\") }")
    r = gql("mutation($i: SaveRegistryAuthInput) { saveRegistryAuth(input: $i) { id } }",
            i=dict(name="hub", username="ada", password=PASSWORD))["saveRegistryAuth"]["id"]
    gql("mutation($id: String!) { deleteRegistryAuth(registryAuthId: $id) }", id=r)
    s = gql("mutation($i: SecretCreateInput!) { secretCreate(input: $i) { id } }",
            i=dict(name="hf", value=PASSWORD))["secretCreate"]["id"]
    gql("mutation($id: String!) { secretDelete(id: $id) }", id=s)
    me = account_of(host, key)
    more = host.rest("POST", "/v1/accounts/%s/keys" % me, json={"name": "more"}).json()["id"]
    assert host.rest("DELETE", "/v1/keys/" + more, key).status_code == 200
    assert host.rest("POST", "/v1/containerregistryauth", key,
                     json=dict(name="h", username="u", password=PASSWORD)).status_code == 200
    assert host.rest("POST", "/v1/containerregistryauth", key,
                     data='{"name": "h", "password": "%s' % PASSWORD).status_code == 400
    assert host.rest("DELETE", "/v1/images", key, params={"reference": "no/such:1"}).status_code >= 400
    got = [(e["operation"], e["object"], e["outcome"]) for e in changes(host, key)[::-1]][1:]
    assert got[:9] == [
        ("updateUserSettings", None, "done"),
        ("saveTemplate", t["saveTemplate"]["id"], "done"), ("deleteTemplate", "t", "done"),
        ("saveRegistryAuth", r, "done"), ("deleteRegistryAuth", r, "done"),
        ("secretCreate", s, "done"), ("secretDelete", s, "done"),
        ("POST /v1/accounts/{}/keys", more, "done"), ("DELETE /v1/keys/{}", more, "done")]
    assert [(o, w) for o, _, w in got[9:]] == [
        ("POST /v1/containerregistryauth", "done"), ("POST /v1/containerregistryauth", "refused"),
        ("DELETE /v1/images", "refused")]
    assert PASSWORD not in json.dumps(events(host)) + host.log_text()


def test_forbidden_is_told(host, key):
    me = account_of(host, key)
    reader = host.rest("POST", "/v1/accounts/%s/keys" % me, json={"rights": "read"}).json()
    c = host.deploy(key=key, dockerArgs="sleep 1000")
    said = refused(host, "mutation { secretCreate(input: {name: \"x\", value: \"%s\"}) { id } }"
                   % PASSWORD, None, reader["key"])
    assert "forbidden" in said
    assert host.rest("POST", "/v1/accounts", reader["key"], json={"name": "x"}).status_code == 403
    assert host.rest("DELETE", "/v1/keys/" + reader["id"], reader["key"]).status_code == 403
    got = [e for e in changes(host, key) if reader["id"] in e["actor"]]
    assert {(e["operation"], e["outcome"]) for e in got} == {
        ("secretCreate", "refused"), ("POST /v1/accounts", "refused"), ("DELETE /v1/keys/{}", "refused")}
    assert all("forbidden" in e["text"] for e in got)
    host.call("clusterTerminate", c, key)


def test_sessions(host, key):
    c = host.deploy(key=key, dockerArgs="sleep 1000")
    running(host, c, key)
    assert host.session(c, "sh", "-c", "echo " + PASSWORD, key=key).finish().out
    with pytest.raises(Exception):
        host.session("nobodys", "sh", key=key).finish()
    got = events(host, key, "audit.exec")[::-1]
    assert [(e["operation"], e["object"], e["clusterId"], e["outcome"]) for e in got] == [
        ("exec", c, c, "done"), ("exec", "nobodys", None, "refused")]
    assert "sh: done" in got[0]["text"] and PASSWORD not in json.dumps(got)
    host.call("clusterTerminate", c, key)


def test_keys_are_told_once_an_hour_and_place(host, key):
    for _ in range(5):
        account_of(host, key)
    got = events(host, key, "audit.key")
    assert len(got) in (1, 2)  # an hour may have ended meanwhile
    assert got[0]["object"] == "127.0.0.1" and "was used from 127.0.0.1" in got[0]["text"]
    assert requests.post(host.url + "/graphql", json={"query": "{ myself { id } }"},
                         headers={"Authorization": "Bearer no-key"}).status_code == 401
    assert len(events(host, key, "audit.key")) == len(got)


def test_whose_they_are(host, key):
    """An account's own, without a word of it elsewhere; an administrator's are all; and who does not ask
    for them is not told of them."""
    other = host.new_account("b%d" % time.monotonic_ns())
    c = host.deploy(key=key, dockerArgs="sleep 1000")
    refused(host, "mutation($id: String!) { clusterTerminate(input: {clusterId: $id}) }", {"id": c},
            other)
    mine, theirs = events(host, key), events(host, other)
    assert {e["account"] for e in mine} == {account_of(host, key)}
    assert {e["account"] for e in theirs} == {account_of(host, other)}
    tried = [e for e in theirs if e["object"] == c]
    assert len(tried) == 1 and tried[0]["clusterId"] is None and tried[0]["outcome"] == "refused"
    assert {e["account"] for e in events(host)} >= {account_of(host, key), account_of(host, other)}
    plain = host.gql(QUERY, {"i": {"limit": 1000}}, key)["events"]
    assert plain and not any(e["kind"].startswith("audit") for e in plain)
    assert [e["kind"] for e in host.gql(QUERY, {"i": {"object": c, "kind": "deployed"}}, key)["events"]]
    assert len(events(host, key, "audit.change", object=c)) == 1
    assert "kind: 'audit.nope' is none" in refused(host, QUERY, {"i": {"kind": "audit.nope"}}, key)
    host.call("clusterTerminate", c, key)


def test_the_same_refusal_is_one(host, key):
    """Nobody fills the disk, or drives his own past out, by asking for what is refused."""
    for _ in range(50):
        refused(host, "mutation { clusterStop(input: {clusterId: \"nobodys\"}) { id } }", None, key)
    got = [e for e in changes(host, key) if e["object"] == "nobodys"]
    assert 1 <= len(got) <= 2


def test_what_has_happened_survives(host, key):
    """With the change, or not at all: whenever the API is killed, what is there was told."""
    made = []
    for i in range(12):
        with contextlib.suppress(requests.RequestException, ApiError):
            if i % 4 == 3:
                os.kill(host.api_pid(), signal.SIGKILL)
            host.gql("mutation($i: SecretCreateInput!) { secretCreate(input: $i) { id } }",
                     {"i": dict(name="n%d" % i, value="v")}, key)
        until(lambda: host.rest("GET", "/health").status_code == 200)
    made = {s["id"] for s in host.gql("{ myself { secrets { id } } }", key=key)["myself"]["secrets"]}
    told = {e["object"] for e in changes(host, key)
            if e["operation"] == "secretCreate" and e["outcome"] == "done"}
    assert made and made == told
    before = events(host, key)
    host.restart()
    after = events(host, key)
    assert after[-len(before):] == before


def test_kept_for_a_time_and_within_bounds():
    """Rows that are older than audit_keep are not shown, and leave with the next one that is written;
    one account's do not drive out another's, whatever it does."""
    with Host({"engine": dict(CONFIG, audit_keep="1h")}) as host:
        one = "mutation($i: SecretCreateInput!) { secretCreate(input: $i) { id } }"
        a = host.new_account("a")
        host.gql(one, {"i": dict(name="x", value="v")}, a)
        host.stop()
        store = str(host.data / "control/store.db")
        old = int(time.time() * 1e6) - 3600000000
        with contextlib.closing(sqlite3.connect(store)) as db:
            assert db.execute("SELECT count(*) FROM audit WHERE operation = 'secretCreate'"
                              ).fetchone()[0] == 1
            db.execute("UPDATE audit SET at_us = at_us - 7200000000")
            db.commit()
        host.start()
        assert not {"secretCreate", "POST /v1/accounts"} & {e["operation"] for e in events(host)}
        b = host.new_account("b")
        host.stop()
        now = int(time.time() * 1e6)
        with contextlib.closing(sqlite3.connect(store)) as db:
            assert db.execute("SELECT count(*) FROM audit WHERE at_us < ?", (old,)).fetchone()[0] == 0
            top = int(db.execute("SELECT max(id) FROM audit").fetchone()[0])
            me = db.execute("SELECT account FROM audit WHERE id = ?", ("%020d" % top,)).fetchone()[0]
            db.executemany(
                "INSERT INTO audit (id, at_us, account, kind, object, message, actor, operation, outcome)"
                " VALUES (?, ?, ?, 'audit.change', 'o', 'm', 'k', 'flood', 'done')",
                [("%020d" % (top + 1 + i), now - 10000000 + i, me) for i in range(10500)])
            db.commit()
        host.start()
        for i in range(20):
            host.gql(one, {"i": dict(name="y%d" % i, value="v")}, b)
        assert account_of(host, b) == me and [e for e in events(host, a)]
        assert [e["operation"] for e in changes(host, b)[:20]] == ["secretCreate"] * 20
        host.stop()
        with contextlib.closing(sqlite3.connect(store)) as db:
            left = dict(db.execute("SELECT operation, count(*) FROM audit WHERE account = ? AND kind ="
                                   " 'audit.change' GROUP BY operation", (me,)).fetchall())
        # 64 leave with each that is written, until there are 10,000
        assert left == {"flood": 10000 - 20, "secretCreate": 20}, left
        host.start()


# ---- what clusters did ---------------------------------------------------------------------------

def foreign():
    """A program whose first system call is one of the 32-bit ABI, which no filter of ours lets through:
    mov eax, 20; int 0x80; then exit(0) as x86_64 has it."""
    code = bytes([0xb8, 20, 0, 0, 0, 0xcd, 0x80, 0xb8, 60, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05])
    head = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 2, 62, 1, 0x400078, 64, 0, 0, 64, 56,
                       1, 0, 0, 0)
    part = struct.pack("<IIQQQQQQ", 1, 5, 0, 0x400000, 0x400000, 120 + len(code), 120 + len(code), 4096)
    return head + part + code


# makes /tmp/foreign of it
MAKE = "echo %s | base64 -d > /tmp/foreign; chmod +x /tmp/foreign; " % (
    base64.b64encode(foreign()).decode())


def test_seccomp_kill(host, key):
    c = host.deploy(key=key, dockerArgs="sleep 1000")
    running(host, c, key)
    s = host.session(c, "sh", "-c", MAKE + "exec /tmp/foreign", key=key).finish()
    assert s.exit["signal"] == 31, s
    got = until(lambda: events(host, key, "security.seccomp"))
    assert got[0]["clusterId"] == c and got[0]["account"] == account_of(host, key)
    assert got[0]["text"] == "seccomp has ended foreign: system call 20 of i386 is not allowed"
    # as often as one likes, and told a few times
    host.session(c, "sh", "-c", "for i in $(seq 40); do /tmp/foreign; done; true", key=key).finish()
    assert len(events(host, key, "security.seccomp")) <= 12
    other = host.new_account("o%d" % time.monotonic_ns())
    assert events(host, other, "security") == []
    # the first process itself
    host.call("clusterTerminate", c, key)
    c = host.deploy(key=key, dockerArgs=json.dumps(
        {"cmd": ["sh", "-c", MAKE + "exec /tmp/foreign"]}))
    until(lambda: [e for e in events(host, key, "security") if e["clusterId"] == c
                   and e["kind"] == "security.signal"])
    host.call("clusterTerminate", c, key)


def test_out_of_memory(host, key):
    c = host.deploy(key=key, dockerArgs=json.dumps(
        {"cmd": ["sh", "-c", "tail /dev/zero; sleep 1000"]}))
    got = until(lambda: events(host, key, "security.oom"))
    assert got[0]["clusterId"] == c
    assert "out of memory: the cluster reached its 1024 MiB" in got[0]["text"]
    host.call("clusterTerminate", c, key)


def test_refused_device(host, key):
    """A node that somebody from outside has put into its /dev opens nothing, and that it was tried is
    told: once for each device.  cgroup v1 has no word on it, which `missing` says."""
    c = host.deploy(key=key, dockerArgs="sleep 1000")
    running(host, c, key)
    missing = host.gql("{ cluster(input: {podId: \"%s\"}) { security } }" % c,
                       key=key)["cluster"]["security"]["missing"]
    devices = [m for m in missing if "security.device" in m]
    node = "/proc/%d/root/dev/kmsg" % host.first_pid(c)
    os.mknod(node, 0o20666, os.makedev(1, 11))
    os.chmod(node, 0o666)
    said = host.session(c, "sh", "-c", "for i in 1 2 3; do cat /dev/kmsg; done; echo x > /dev/kmsg", key=key).finish()
    assert said.err.count(b"not permitted") == 4, said
    if os.path.isdir("/sys/fs/cgroup/devices"):
        print("cgroup v1: refused, and not told")
        assert devices == ["devices: cgroup v1 refuses them, but does not tell which (no security.device events)"]
        assert events(host, key, "security.device") == []
    else:
        assert devices == []
        got = until(lambda: events(host, key, "security.device"))
        host.session(c, "cat", "/dev/kmsg", key=key).finish()
        assert [(e["clusterId"], e["account"], e["text"]) for e in got] == [
            (c, account_of(host, key), "character device 1:11 refused, 4 times: no device of this cluster's")]
        until(lambda: host.cluster(c, key)["runtime"])
        assert len(events(host, key, "security.device")) == 1
    host.call("clusterTerminate", c, key)


def test_told_when_somebody_listens_again(host, key):
    """What is found while the API is away waits for it."""
    c = host.deploy(key=key, dockerArgs=json.dumps({"cmd": ["sh", "-c", "until [ -e /dev/shm/go ]; do sleep 0.1;"
                    " done; " + MAKE + "/tmp/foreign; sleep 1000"]}))
    running(host, c, key)
    pid = host.first_pid(c)
    api = host.api_pid()
    os.kill(api, signal.SIGKILL)
    mode = os.open("/proc/%d/root/dev/shm" % pid, os.O_PATH)
    os.setegid(os.fstat(mode).st_gid)
    os.seteuid(os.fstat(mode).st_uid)
    try:
        os.close(os.open("go", os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=mode))
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.close(mode)
    until(lambda: host.rest("GET", "/health").status_code == 200)
    assert until(lambda: events(host, key, "security.seccomp"))[0]["clusterId"] == c
    host.call("clusterTerminate", c, key)


# ---- the command line ----------------------------------------------------------------------------

def test_cli(host):
    host.cli("create", "secret", "cli-audit", input="v", stdin=None)
    out = host.cli("get", "events", "--kind", "audit", "--since", "1h").stdout
    assert "secretCreate by key" in out and "audit.key" in out
    listed = json.loads(host.cli("get", "events", "--kind", "audit.change", "-o", "json").stdout)
    assert any(e["operation"] == "secretCreate" and e["outcome"] == "done" for e in listed)
    assert "audit" not in host.cli("get", "events").stdout
    done = host.cli("get", "events", "--kind", "audits", check=False)
    assert done.returncode != 0 and "is none" in done.stderr
    host.cli("remove", "secret", "cli-audit")
