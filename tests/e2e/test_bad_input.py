"""Bad input through GraphQL, REST and the command line: a clear message that names the field and
the limit, the HTTP status of the contract, no crash, nothing left behind, no secret written down."""
import gzip
import io
import json
import os
import pathlib
import re
import socket
import subprocess
import tarfile
import threading
import time

import pytest
import requests

from host import ApiError, Host, program
from ocimake import Fault, Hang, Image, Layer, Replace, sha256

PASSWORD = "hunter2-of-the-registry"
TENANT_SECRET = "s3cret-of-a-tenant"


@pytest.fixture(scope="module")
def host(registry):
    engine = {"pool_networks": 0, "pool_disks": 0, "grace": "1s", "cpu_overcommit": 100,
              "memory_overcommit": 4, "disk_overcommit": 4, "registry_silence": "1s", "image_max": "64M",
              "log_level": "debug"}
    section = {"insecure": "yes", "username": "robot", "password": PASSWORD}
    with Host({"engine": engine, 'registry "%s"' % registry.host: section}) as h:
        h.import_image("tensorone/starter")
        programs = h.pid, h.api_pid()
        yield h
        assert (h.pid, h.api_pid()) == programs, "somebody crashed"
        check_secrets(h)


def check_secrets(h):
    """After all that: neither the log nor anything on disk or in a process list has a key."""
    log = h.log_text()
    assert len(log) > 500
    for secret in (h.key, PASSWORD, TENANT_SECRET, "api_key=", "hvmc_"):
        assert secret not in log, secret
    for f in h.data.rglob("*"):
        if f.is_file() and f.name != "admin.key" and "/layers/" not in str(f):
            assert h.key.encode() not in f.read_bytes(), f
    for name in ("admin.key", "journal.db", "control/store.db", "control/cluster-key.secret"):
        assert (h.data / name).stat().st_mode & 0o077 == 0, name
    for pid in pathlib.Path("/proc").iterdir():
        if pid.name.isdigit():
            try:
                line = (pid / "cmdline").read_bytes()
            except OSError:
                continue
            assert h.key.encode() not in line and PASSWORD.encode() not in line, line


@pytest.fixture(autouse=True)
def nothing_held(host):
    yield
    for c in host.clusters():
        host.terminate(c["id"])
    host.wait_held(set())
    assert host.rest("GET", "/health").status_code == 200


def refusal(host, query, variables=None, **kw):
    """(status, message, code) of a request that must fail, in the shape that clients rely on."""
    answer = host.post(query, variables, **kw)
    assert answer.headers["Content-Type"].startswith("application/json")
    body = answer.json()
    assert body["errors"], body
    assert not body.get("data") or all(v is None for v in body["data"].values()), body
    first = body["errors"][0]
    return answer.status_code, first["message"], first["extensions"]["code"]


# ---- numbers, names, paths: GraphQL -----------------------------------------------------------

DEPLOY = "mutation { clusterFindAndDeployOnDemand(input: {%s}) { id } }"
GOOD = 'imageName: "tensorone/starter" gpuCount: 0 '

REFUSED = [  # what is given, HTTP status, what the message says
    ("gpuCount: 0", 400, ["imageName", "missing"]),
    ('imageName: "UPPER CASE" gpuCount: 0', 400, ["imageName"]),
    ('imageName: "http://x/y" gpuCount: 0', 400, ["imageName"]),
    ('imageName: "a/../b" gpuCount: 0', 400, ["imageName"]),
    ('imageName: "x@sha256:123" gpuCount: 0', 400, ["imageName"]),
    ('imageName: "%s" gpuCount: 0' % ("x" * 600), 400, ["imageName", "600", "512"]),
    (GOOD + 'name: "%s"' % ("n" * 192), 400, ["name", "192", "191"]),
    (GOOD + 'templateId: "nope"', 200, ["templateId", "nope", "not found"]),
    (GOOD + "containerDiskInGb: -1", 400, ["containerDiskInGb", "-1", "65536"]),
    (GOOD + "containerDiskInGb: 65537", 400, ["containerDiskInGb", "65537", "65536"]),
    (GOOD + "volumeInGb: -5", 400, ["volumeInGb", "-5", "65536"]),
    (GOOD + "volumeInGb: 2147483647", 400, ["volumeInGb", "2147483647", "65536"]),
    (GOOD + "volumeInGb: 2147483648", 400, ["volumeInGb", "2147483648"]),
    (GOOD + "volumeInGb: 1e30", 400, ["volumeInGb"]),
    (GOOD + "volumeInGb: 1.5", 400, ["volumeInGb"]),
    (GOOD + 'volumeInGb: "ten"', 400, ["volumeInGb"]),
    (GOOD + "volumeInGb: [1, 2]", 400, ["volumeInGb"]),
    (GOOD + "minMemoryInGb: -1", 400, ["minMemoryInGb", "-1", "65536"]),
    (GOOD + "minMemoryInGb: 1000000", 400, ["minMemoryInGb", "1000000", "65536"]),
    (GOOD + "minMemoryInGb: 60000", 200, ["no longer any instances available", "minMemoryInGb", "60000"]),
    (GOOD + "minVcpuCount: 5000", 400, ["minVcpuCount", "5000", "1024"]),
    (GOOD + "minVcpuCount: -1", 400, ["minVcpuCount", "-1"]),
    ('imageName: "x" gpuCount: -1', 400, ["gpuCount", "-1", "64"]),
    ('imageName: "x" gpuCount: 65', 400, ["gpuCount", "65", "64"]),
    ('imageName: "x" gpuCount: 1', 200, ["no longer any instances available", "gpuCount"]),
    (GOOD + 'volumeInGb: 1 volumeMountPath: "/proc"', 400, ["volumeMountPath", "/proc"]),
    (GOOD + 'volumeInGb: 1 volumeMountPath: "/proc/self/root"', 400, ["volumeMountPath", "/proc"]),
    (GOOD + 'volumeInGb: 1 volumeMountPath: "../.."', 400, ["volumeMountPath", "../.."]),
    (GOOD + 'volumeInGb: 1 volumeMountPath: "/a/../../etc"', 400, ["volumeMountPath", ".."]),
    (GOOD + 'volumeInGb: 1 volumeMountPath: "/%s"' % ("x" * 300), 400, ["volumeMountPath", "255"]),
    (GOOD + 'volumeInGb: 1 volumeMountPath: "%s"' % ("/abcdefg" * 200), 400, ["volumeMountPath", "1024"]),
    (GOOD + 'env: [{key: "", value: "x"}]', 400, ["env", "variable name"]),
    (GOOD + 'env: [{key: "A=B", value: "x"}]', 400, ["env", "A=B"]),
    (GOOD + 'env: [{key: "A B", value: "x"}]', 400, ["env", "A B"]),
    (GOOD + 'env: [{key: "A\\u0000B", value: "x"}]', 400, ["NUL"]),
    (GOOD + 'env: [{key: "A", value: "x\\u0000y"}]', 400, ["NUL"]),
    (GOOD + 'env: [{key: "A"}]', 400, ["env", "value"]),
    (GOOD + 'env: "A=B"', 400, ["env"]),
    (GOOD + "env: [%s]" % " ".join('{key: "K%d", value: ""}' % i for i in range(51)), 400, ["env", "51", "50"]),
    (GOOD + 'env: [{key: "BIG", value: "%s"}]' % ("v" * 131072), 400, ["env", "BIG", "131072"]),
    (GOOD + 'dockerArgs: "%s"' % ("a" * 131072), 400, ["dockerArgs", "131072", "131071"]),
    (GOOD + 'dockerArgs: "%s"' % ("a " * 1025), 400, ["dockerArgs", "more than 1024 words"]),
    (GOOD + "dockerArgs: \"sh -c 'open\"", 400, ["dockerArgs"]),
    (GOOD + 'dockerArgs: "{\\"cmd\\": [1, 2]}"', 400, ["dockerArgs", "strings"]),
    (GOOD + 'ports: "0/http"', 400, ["ports", "65535"]),
    (GOOD + 'ports: "65536/tcp"', 400, ["ports", "65535"]),
    (GOOD + 'ports: "80/udp"', 400, ["ports", "80/udp", "/http or /tcp"]),
    (GOOD + 'ports: "80/http,80/http"', 400, ["ports", "80/http", "twice"]),
    (GOOD + 'ports: "%s"' % ",".join("%d/http" % (i + 1) for i in range(11)), 400, ["ports", "10"]),
    (GOOD + 'ports: "%s"' % ",".join("%d/tcp" % (i + 1) for i in range(65)), 400, ["ports", "64"]),
    (GOOD + 'stopAfter: "soon"', 400, ["stopAfter", "soon"]),
    (GOOD + 'terminateAfter: "1999-01-01T00:00:00Z"', 400, ["terminateAfter", "past"]),
    (GOOD + 'networkVolumeId: "nv1"', 200, ["networkVolumeId", "volumeInGb"]),
    (GOOD + 'containerRegistryAuthId: "x"', 200, ["containerRegistryAuthId", "x"]),
    (GOOD + 'cloudType: MOON', 400, ["cloudType", "MOON"]),
]


@pytest.mark.parametrize("given,status,words", REFUSED, ids=range(len(REFUSED)))
def test_refused(host, given, status, words):
    got, message, code = refusal(host, DEPLOY % given)
    for word in words:
        assert word in message, message
    assert got == status, (got, message)
    assert code and len(message) < 600
    assert host.clusters() == []


def test_the_same_through_variables(host):
    """Values that no literal can have."""
    for given, word in (({"volumeInGb": True}, "volumeInGb"), ({"volumeInGb": 1.5}, "volumeInGb"),
                        ({"imageName": {"a": 7}}, "imageName"), ({"imageName": ["x"]}, "imageName"),
                        ({"env": {"A": {"B": "c"}}}, "env"), ({"gpuCount": 1 << 40}, "gpuCount"),
                        ({"stopAfter": 5}, "stopAfter")):
        with pytest.raises(ApiError) as e:
            host.deploy(**given)
        assert word in str(e.value) and e.value.status == 400, e.value
    status, message, code = refusal(host, "mutation($input: ClusterFindAndDeployOnDemandInput) "
                                    "{ clusterFindAndDeployOnDemand(input: $input) { id } }", [1])
    assert status == 400 and "variables" in message


def test_unknown_fields(host):
    """Of an input: taken and left alone, as newer clients need; of a selection: named."""
    c = host.deploy(dockerArgs="sleep 1000", objectMounts=[{"x": 1}], notAField="y")
    host.wait_running(c)
    for query, words in (('{ cluster(input: {clusterId: "%s"}) { id nonsense } }' % c, ["nonsense", "Cluster"]),
                         ("{ nonsense }", ["nonsense", "Query"]),
                         ("mutation { nonsense(a: 1) }", ["nonsense", "Mutation"]),
                         ('{ cluster(other: 1) { id } }', ["other"]),
                         ("{ myself { clusters { machine } } }", ["machine"]),
                         ("{ myself }", ["myself"])):
        status, message, code = refusal(host, query)
        assert status == 400 and code == "GRAPHQL_VALIDATION_FAILED", (status, code, message)
        for word in words:
            assert word in message, message


# ---- size and shape of requests ----------------------------------------------------------------

def timed(fn):
    began = time.monotonic()
    result = fn()
    assert time.monotonic() - began < 5
    return result


def test_large_queries(host):
    mb = 1 << 20
    for query, status in (("{" + "a " * (mb // 2) + "}", 400), ("#" + "x" * mb + "\n{ myself { id } }", 200),
                          ("{" + " ".join("a%d: myself { id }" % i for i in range(mb // 24)) + "}", None),
                          ('{ cluster(input: {clusterId: "%s"}) { id } }' % ("x" * mb), 200),
                          ("{" + "myself { id } " * (mb // 14) + "}", 200), ("{" * mb, 400), ("[" * mb, 400),
                          ('"' + "\\" * mb, 400), ("{ a(b: " + "[" * mb + ") }", 400),
                          ("fragment f on Query { ...f } { ...f }" + " " * mb, 400)):
        answer = timed(lambda q=query: host.post(q))
        body = answer.json()
        assert answer.status_code == status or (status is None and answer.status_code in (200, 400)), \
            (query[:40], answer.status_code, str(body)[:300])
        assert ("errors" in body) == (answer.status_code != 200), str(body)[:300]
        if "errors" in body:
            assert len(answer.content) < 100_000 and body["errors"][0]["message"]
    answer = timed(lambda: host.post("{ myself { id } }" + " " * (5 << 20)))
    assert answer.status_code in (400, 413) and "4194304" in answer.text
    # nobody may send that much
    r = timed(lambda: requests.post(host.url + "/graphql", data=b"{" * (1 << 20), timeout=10,
                                    headers={"Content-Type": "application/json"}))
    assert r.status_code in (400, 401, 413)


def test_deep_queries(host):
    for depth in (200, 20000):
        for query in ("{" + "myself { clusters { machine {" * depth, "{ a" * depth + "}" * depth,
                      "{ cluster(input: " + "{a: " * depth + "1" + "}" * depth + ") { id } }",
                      "{ cluster(input: " + "[" * depth + "]" * depth + ") { id } }",
                      "{ ...on Query " * depth + "{ a }" + "}" * depth):
            status, message, _ = timed(lambda q=query: refusal(host, q))
            assert status == 400 and "64" in message and ("deep" in message or "nest" in message), message
    types = "query($a: " + "[" * 20000 + "Int" + "]" * 20000 + ") { myself { id } }"
    assert timed(lambda: host.post(types)).status_code in (200, 400)  # a type is not followed
    raw = b'{"query": "{ myself { id } }", "variables": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    r = timed(lambda: requests.post(host.url + "/graphql", data=raw, timeout=10,
                                    headers={"Authorization": "Bearer " + host.key}))
    assert r.status_code == 400 and r.json()["errors"][0]["message"]


def test_bodies_that_are_none(host):
    headers = {"Authorization": "Bearer " + host.key, "Content-Type": "application/json"}
    for body in (b"", b"null", b"[]", b"7", b'"x"', b"{}", b'{"query": 7}', b'{"query": ""}', b'{"query": "{"}',
                 b'{"query": "{ myself { id } }", "variables": 7}', b'{"query": "\xff\xfe"}', b"\x00" * 100,
                 b'{"query": "query A { myself { id } } query B { myself { id } }"}',
                 b'{"query": "query A { myself { id } }", "operationName": "C"}', b"--x\r\n"):
        r = requests.post(host.url + "/graphql", data=body, headers=headers, timeout=10)
        assert r.status_code == 400 and r.json()["errors"][0]["message"], body
    for method, status in (("GET", 405), ("PUT", 405), ("DELETE", 405)):
        r = requests.request(method, host.url + "/graphql", headers=headers, timeout=10)
        assert r.status_code == status, method


def test_keys(host):
    for key in ("", "x", host.key[:-1], host.key + "x", host.key.swapcase(), "A" * 5000):
        r = requests.post(host.url + "/graphql", json={"query": "{ myself { id } }"}, timeout=10,
                          headers={"Authorization": "Bearer " + key})
        assert r.status_code in (401, 431), key
        assert r.status_code == 431 or "unauthorized" in r.json()["errors"][0]["message"]
        for path in ("/v1/images", "/v1/clusters/x/logs"):
            assert requests.get(host.url + path, headers={"Authorization": "Bearer " + key},
                                timeout=10).status_code in (401, 431)
    # in the address it works, and is not logged (check_secrets)
    r = requests.post(host.url + "/graphql", params={"api_key": host.key}, json={"query": "{ myself { id } }"},
                      timeout=10)
    assert r.status_code == 200
    r = requests.post(host.url + "/graphql", params={"api_key": host.key + "x"}, json={"query": "{ myself { id } }"},
                      timeout=10)
    assert r.status_code == 401


def test_wire_garbage(host):
    api = "/proc/%d/fd" % host.api_pid()
    before = len(os.listdir(api))
    for data in (b"\x00" * 1000, b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"A" * 100_000,
                 b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n",
                 b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 20_000 + b"\r\n",
                 b"POST /graphql HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n{}",
                 b"POST /graphql HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n{}",
                 b"POST /graphql HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
                 b"POST /graphql HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{",
                 b"GET /v1/clusters/%2e%2e/logs HTTP/1.1\r\nHost: x\r\n\r\n",
                 b"GET /v1/clusters/../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", host.port), 5) as s:
            s.settimeout(2)
            try:
                s.sendall(data)
                s.shutdown(socket.SHUT_WR)
                answer = s.recv(65536)
            except OSError:
                answer = b""
            assert not answer or re.match(rb"HTTP/1\.[01] [45]\d\d ", answer), answer[:200]
            assert b"root:" not in answer
    # many that say nothing do not keep others out
    idle = [socket.create_connection(("127.0.0.1", host.port), 5) for _ in range(200)]
    assert host.clusters() == []
    for s in idle:
        s.close()
    end = time.monotonic() + 10
    while len(os.listdir(api)) > before + 10:  # half-closed ones wait for their time-out
        assert time.monotonic() < end, "descriptors are left"
        time.sleep(0.05)


# ---- REST --------------------------------------------------------------------------------------

def test_rest(host):
    c = host.deploy(dockerArgs="sleep 1000")
    host.wait_running(c)
    ws = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
          "Sec-WebSocket-Version": "13", "Sec-WebSocket-Protocol": "tensorone.exec.v1"}
    for method, path, more, status, word in (
            ("GET", "/nope", {}, 404, ""), ("GET", "/v1/clusters/nope/logs", {}, 404, "not found"),
            ("GET", "/v1/clusters/%s/logs?tail=-1" % c, {}, 400, "tail"),
            ("GET", "/v1/clusters/%s/logs?tail=9999999999999999999" % c, {}, 400, "tail"),
            ("GET", "/v1/clusters/%s/logs?since=never" % c, {}, 400, "since"),
            ("GET", "/v1/clusters/%s/logs?stream=third" % c, {}, 400, "stream"),
            ("POST", "/v1/clusters/%s/logs" % c, {}, 405, ""),
            ("GET", "/v1/clusters/%s/exec?cmd=id" % c, {}, 400, "WebSocket"),
            ("GET", "/v1/clusters/%s/exec" % c, {"headers": ws}, 400, "cmd"),
            ("GET", "/v1/clusters/nope/exec?cmd=id", {"headers": ws}, 404, "not found"),
            ("GET", "/v1/clusters/%s/exec?cmd=nope" % c, {"headers": ws}, 404, "cmd: exec nope"),
            ("GET", "/v1/clusters/%s/exec?cmd=id&user=nobody-here" % c, {"headers": ws}, None, "user"),
            ("GET", "/v1/clusters/%s/exec?cmd=id&env=NOVALUE" % c, {"headers": ws}, 400, "env"),
            ("GET", "/v1/clusters/%s/exec?cmd=id&%s" % (c, "&".join("env=A%d=1" % i for i in range(51))),
             {"headers": ws}, 413, "50"),
            ("POST", "/v1/images/pull", {"data": "{"}, 400, ""),
            ("POST", "/v1/images/pull", {"json": {}}, 400, "reference"),
            ("POST", "/v1/images/pull", {"json": {"reference": "A B"}}, 400, "reference"),
            ("POST", "/v1/images/pull", {"json": {"reference": "x" * 600}}, 400, "512"),
            ("POST", "/v1/images/import", {"data": b"x"}, 400, "name"),
            ("POST", "/v1/images/import?name=A%20B", {"data": b"x"}, 400, "name"),
            ("DELETE", "/v1/images?reference=no/such", {}, 404, "no/such"),
            ("DELETE", "/v1/images", {}, 400, "reference"),
            ("DELETE", "/v1/images?reference=tensorone/starter", {}, 409, "tensorone/starter")):
        headers = dict(more.pop("headers", {}), Authorization="Bearer " + host.key)
        r = requests.request(method, host.url + path, headers=headers, timeout=15, **more)
        assert r.status_code == status or (status is None and 400 <= r.status_code < 500), (path, r.status_code, r.text)
        body = r.json()
        assert body["error"] and word in body["message"], (path, r.text)
        nokey = requests.request(method, host.url + path, timeout=15,
                                 headers={k: v for k, v in headers.items() if k != "Authorization"}, **more)
        assert nokey.status_code in (401, 404, 405, 400), path
        assert nokey.status_code != 400 or "unauthorized" in nokey.text, (path, nokey.text)


# ---- the command line --------------------------------------------------------------------------

def test_cli(host, tmp_path):
    create = ["create", "cluster", "--gpuCount", "0", "--mem", "1", "--imageName", "tensorone/starter"]
    for words, said in (
            (create + ["--mem", "-1"], ["mem"]), (create + ["--mem", "99999999"], ["mem", "65536"]),
            (create + ["--containerDiskSize", "0"], ["containerDiskSize", "1"]),
            (create + ["--containerDiskSize", "99999999"], ["containerDiskSize", "65536"]),
            (create + ["--volumeSize", "-3"], ["volumeSize"]), (create + ["--volumeSize", "ten"], ["volumeSize", "ten"]),
            (create + ["--vcpu", "100000"], ["vcpu", "1024"]), (create + ["--gpuCount", "-1"], ["gpuCount"]),
            (create + ["--volumePath", "/proc"], ["volumeMountPath", "/proc"]),
            (create + ["--volumePath", "../.."], ["volumeMountPath", "../.."]),
            (create + ["--env", "NOVALUE"], ["NOVALUE"]), (create + ["--env", "A B=1"], ["A B"]),
            (create + [w for i in range(51) for w in ("--env", "A%d=1" % i)], ["51", "50"]),
            (create + ["--args", "sh -c 'open"], ["dockerArgs"]), (create + ["--ports", "80/udp"], ["80/udp"]),
            (create + ["--stopAfter", "tomorrow"], ["stopAfter"]), (create + ["--templateId", "nope"], ["nope"]),
            (create[:-2], ["imageName"]), (create + ["--imageName", "A B"], ["imageName"]),
            (create + ["--noSuchOption"], ["noSuchOption"]), (["exec", "nope", "--", "id"], ["nope"]),
            (["logs", "nope"], ["nope"]), (["stop", "cluster", "nope"], ["nope"]), (["fly"], ["fly"]),
            (["image", "rm", "no/such"], ["no/such"]), (["image", "import", "a/b", str(tmp_path / "none")], ["none"]),
            (["image", "pull", "A B"], ["A B"]), (["template", "get", "nope"], ["nope"])):
        done = host.cli(*words, check=False)
        assert done.returncode == 1 and done.stdout == "", (words, done)
        for word in said:
            assert word in done.stderr, (words, done.stderr)
        assert host.key not in done.stderr
    assert host.clusters() == []


def test_duplicate_names(host):
    """Templates: refused.  Clusters may share a name, and then are not taken for one another."""
    host.cli("template", "create", "twin", "--imageName", "tensorone/starter")
    done = host.cli("template", "create", "twin", "--imageName", "tensorone/other", check=False)
    assert done.returncode == 1 and "twin" in done.stderr and "name" in done.stderr and "unique" in done.stderr
    status, message, code = refusal(host, 'mutation { saveTemplate(input: {name: "twin" imageName: "x" '
                                    'containerDiskInGb: 1}) { id } }')
    assert status in (200, 409) and code == "CONFLICT" and message.startswith("name: ")
    for bad, word in (('name: "" imageName: "x"', "name"), ('name: "t" imageName: ""', "imageName"),
                      ('name: "t" imageName: "x" volumeMountPath: "/proc"', "volumeMountPath"),
                      ('name: "t" imageName: "x" env: [{key: "A B" value: ""}]', "env"),
                      ('name: "t" imageName: "x" ports: "x"', "ports")):
        status, message, _ = refusal(host, "mutation { saveTemplate(input: {containerDiskInGb: 1 %s}) { id } }" % bad)
        assert status == 400 and word in message
    host.cli("template", "rm", "twin")
    a, b = (host.deploy(dockerArgs="sleep 1000", name="twin") for _ in range(2))
    for verb in ("stop", "start", "remove"):
        done = host.cli(verb, "cluster", "twin", check=False)
        assert done.returncode == 1 and a in done.stderr and b in done.stderr
    host.wait_running(a)
    host.wait_running(b)


def test_secrets_are_not_repeated(host):
    """A tenant's variables reach the cluster and its owner, no log and no message."""
    with host.running("sh", "-c", "echo $TOKEN; exec sleep 1000",
                      env=[{"key": "TOKEN", "value": TENANT_SECRET}]) as c:
        host.wait_log(c, TENANT_SECRET)
        assert host.cluster(c)["env"] == ["TOKEN=" + TENANT_SECRET]
    with pytest.raises(ApiError) as e:
        host.deploy(env=[{"key": "A B", "value": TENANT_SECRET}])
    assert TENANT_SECRET not in str(e.value)


# ---- images ------------------------------------------------------------------------------------

def layer(seed=b"x"):
    return Layer().busybox().file("seed", seed).tar()


class CutShort(Fault):
    """The first bytes only, whatever was asked for."""

    def __call__(self, h, data):
        del h.headers["Range"]
        h.send_body(data, cut=2000)


class Stuck(Fault):
    """The first bytes, then nothing; nor when it is asked for the rest."""

    def __call__(self, h, data):
        h.send_body(data, cut=0 if h.headers.get("Range") else 5000, wait=60)


def zeros(gigabytes):
    """A gzip'd tar with one file of zeros; small, and made at once."""
    size = gigabytes << 30
    info = tarfile.TarInfo("zeros")
    info.size = size
    step = gzip.compress(bytes(64 << 20), 6, mtime=0)
    return gzip.compress(info.tobuf(tarfile.GNU_FORMAT), mtime=0) + step * (size // (64 << 20)) + \
        gzip.compress(bytes(1024), mtime=0)


def bad_images(reg):
    """(reference, words that each message has)"""
    here = reg.host + "/bad/"
    yield here + "unknown:1", ["not found"]
    image = Image([layer(b"tag")])
    reg.add("bad/tag", "1", image)
    yield here + "tag:2", ["not found"]
    yield here + "tag@sha256:" + "ab" * 32, ["not found"]
    image = Image([layer(b"manifest")])
    reg.add("bad/manifest", "1", image)
    reg.repos["bad/manifest"]["tags"]["1"] = image.digest
    reg.fault("/bad/manifest/manifests/" + image.digest, Replace(b'{"schemaVersion": 2}'))
    yield here + "manifest@" + image.digest, ["digest"]
    image = Image([layer(b"blob")])
    reg.fault("/bad/blob/blobs/" + image.layers[0]["digest"], Replace(b"y" * image.layers[0]["size"]))
    yield reg.add("bad/blob", "1", image), ["layer 1 of 1", "digest"]
    image = Image([layer(b"short")])
    reg.fault("/bad/short/blobs/" + image.layers[0]["digest"], CutShort())
    yield reg.add("bad/short", "1", image), ["layer 1 of 1", "closed"]
    image = Image([layer(b"hang")])
    reg.fault("/bad/hang/blobs/" + image.layers[0]["digest"], Stuck())
    yield reg.add("bad/hang", "1", image), ["layer 1 of 1", "too slow"]
    image = Image([layer(b"silent")])
    reg.fault("/bad/silent/manifests/", Hang(seconds=60))
    yield reg.add("bad/silent", "1", image), [reg.host, "too slow"]
    bomb = zeros(10)
    image = Image([b""], diff_ids=[sha256(b"")])
    image.layers[0] = image.add(bomb, "application/vnd.oci.image.layer.v1.tar+gzip")
    image.finish()
    yield reg.add("bad/bomb", "1", image), ["layer 1 of 1", "64"]
    image = Image([layer(b"arch")], arch="sparc64")
    yield reg.add("bad/arch", "1", image), ["sparc64"]
    image = Image([Layer().file("../../escape", b"x").tar()])
    yield reg.add("bad/escape", "1", image), ["layer 1 of 1", ".."]
    image = Image([b"this is no tar" * 100])
    yield reg.add("bad/rubbish", "1", image), ["layer 1 of 1"]
    yield "127.0.0.1:1/x:1", ["127.0.0.1:1"]
    yield "169.254.169.254/latest:1", ["169.254.169.254"]


def pull_by_rest(host, ref, results):
    with host.rest("POST", "/v1/images/pull", json={"reference": ref}, stream=True, timeout=60) as r:
        lines = [json.loads(line) for line in r.iter_lines() if line]
        results.append((r.status_code, lines[-1].get("error")))


@pytest.mark.limit(60)
def test_bad_images(host, registry):
    """All at once; each by a deploy, by REST and by the command line."""
    cases = []
    for ref, words in bad_images(registry):
        cluster, rest = host.deploy(imageName=ref, volumeInGb=1), []
        cli = subprocess.Popen([program("tensoronecli"), "image", "pull", ref], env=host.cli_env(),
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        thread = threading.Thread(target=pull_by_rest, args=(host, ref, rest))
        thread.start()
        cases.append((ref, words, cluster, rest, cli, thread))
    for ref, words, cluster, rest, cli, thread in cases:
        seen = host.wait_exited(cluster, 50)
        thread.join()
        _, err = cli.communicate()
        assert cli.returncode == 1 and rest[0][0] == 200, (ref, rest, err)
        for message in (seen["reason"], rest[0][1], err):
            assert ref.split("@")[0] in message, (ref, message)
            for word in words:
                assert word in message, (ref, message)
        assert seen["desiredStatus"] == "EXITED" and seen["runtime"] is None
    host.wait_held({w for w in host.held() if w.startswith("log ")})
    assert [i["reference"] for i in host.rest("GET", "/v1/images").json()] == \
        ["docker.io/tensorone/starter:latest"], "nothing of them is there"
    assert len(list((host.data / "images/layers").iterdir())) == 1


def test_bad_uploads(host, tmp_path):
    def tar(**files):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as t:
            for name, data in files.items():
                info = tarfile.TarInfo(name.replace("__", "/"))
                info.size = len(data)
                t.addfile(info, io.BytesIO(data))
        return out.getvalue()

    layout = Image([layer(b"upload")])
    layout.blobs[layout.layers[0]["digest"]] = b"other bytes"
    layout.write_layout(str(tmp_path / "wrong"))
    wrong = io.BytesIO()
    with tarfile.open(fileobj=wrong, mode="w") as t:
        t.add(tmp_path / "wrong", ".")
    for data, word in ((b"", ""), (b"not a tar at all" * 100, ""), (tar(x=b"y"), ""),
                       (tar(**{"index.json": b"{", "oci-layout": b"{}"}), ""),
                       (wrong.getvalue(), "damaged"), (tar(**{"..__..__escape": b"x"}), "")):
        r = host.rest("POST", "/v1/images/import", params={"name": "up/load"}, data=data)
        last = json.loads(r.text.splitlines()[-1])
        assert r.status_code in (200, 400) and "up/load" in (last.get("error", "") + last.get("message", "")), r.text
        assert word in r.text
    done = host.cli("image", "import", "up/load", str(tmp_path / "wrong"), check=False)
    assert done.returncode == 1 and "damaged" in done.stderr
    # a client that goes away half-way
    with socket.create_connection(("127.0.0.1", host.port), 5) as s:
        s.sendall(b"POST /v1/images/import?name=half HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n"
                  b"Content-Length: 100000000\r\n\r\n" % host.key.encode() + wrong.getvalue()[:100_000])
        time.sleep(0.3)
    host.wait_held(set())
    assert len(host.rest("GET", "/v1/images").json()) == 1


def test_ten_gigabytes_of_zeros_in_a_disk_of_one(host):
    with host.running("sh", "-c", "dd if=/dev/zero of=/zeros bs=1M count=10240; echo status $?; stat -c %s /zeros;"
                      "exec sleep 1000", containerDiskInGb=1) as c:
        log = host.wait_log(c, "status 1\n", 60)
        assert "No space left on device" in log
        log = host.wait_log(c, "status 1\n")
        host.wait(c, lambda k: len(host.logs(c).split("status 1\n")[1]) > 5)
        assert int(host.logs(c).split()[-1]) <= 1 << 30
        assert host.cluster(c)["runtime"]
