"""Readiness by a path (docs/edge.md, "Readiness"): what is asked, which answers count, and that no answer can harm
who asks."""
import json

import pytest

from crash import wait_until
from host import ApiError, Host

ENGINE = {"pool_networks": 0, "pool_disks": 0, "grace": "200ms", "cpu_overcommit": 100, "memory_overcommit": 50,
          "disk_overcommit": 100}
PYTHON = "tensorone/llm-starter"
# Answers as /workspace/mode says, and says on standard output what it was asked.
SERVE = r"""
import json, os, socket, sys, threading, time
def head(c):
    got = b""
    while b"\r\n\r\n" not in got:
        piece = c.recv(4096)
        if not piece: return got.decode()
        got += piece
    return got.decode()
def gone(c):
    try:
        while c.recv(4096): pass
    except OSError: pass
def serve(c):
    with open("/workspace/mode") as f: mode = f.read().strip()
    asked = head(c)
    print("asked", mode, json.dumps(asked), flush=True)
    try:
        if mode.isdigit():
            c.sendall(("HTTP/1.1 %s x\r\nLocation: http://127.0.0.1:%d/elsewhere\r\nContent-Length: 0\r\n\r\n" % (mode, port)).encode())
        elif mode == "garbage": c.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
        elif mode == "old": c.sendall(b"<html>it is an HTTP/1.1 200")
        elif mode == "interim": c.sendall(b"HTTP/1.1 102 Processing\r\n\r\n")
        elif mode == "flood":
            while True: c.sendall(b"HTTP/1.1" * 8192)
        elif mode == "drip":
            for b in b"HTTP/1.1 200 OK":
                c.sendall(bytes([b]))
                time.sleep(1.2)
        elif mode == "silent": gone(c)
        elif mode == "pieces":
            for b in b"HTTP/1.1 200 OK\r\n\r\n":
                c.sendall(bytes([b]))
                time.sleep(0.01)
    except OSError: pass
    c.close()
    print("end of", mode, flush=True)
port = int(sys.argv[1])
s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("0.0.0.0", port)); s.listen(50)
while True:
    c, a = s.accept()
    threading.Thread(target=serve, args=(c,)).start()
"""


@pytest.fixture(scope="module")
def host():
    with Host({"engine": ENGINE}) as h:
        for image in ("tensorone/starter", PYTHON):
            h.import_image(image)
        yield h


def serving(host, mode, port=8000, **fields):
    """A cluster whose server begins with that mode."""
    return host.running("sh", "-c", 'printf %s > /workspace/mode; exec python3 -c "$1" %d' % (mode, port), "x", SERVE,
                        imageName=PYTHON, containerDiskInGb=5, volumeInGb=1, **fields)


def switch(host, cluster, mode):
    host.exec(cluster, "sh", "-c", "printf %s > /workspace/new; mv /workspace/new /workspace/mode" % mode)


def phase(host, cluster):
    return host.cluster(cluster)["phase"]


def ready(host, cluster):
    return host.wait(cluster, lambda c: c["phase"] == "ready", 60)


def asked(host, cluster, mode):
    """What it was asked in that mode."""
    lines = [line.split(" ", 2) for line in host.logs(cluster).splitlines() if line.startswith("asked %s " % mode)]
    return [json.loads(line[2]) for line in lines]


def wait_ends(host, cluster, mode, n):
    wait_until(lambda: host.logs(cluster).count("end of %s\n" % mode) >= n, 90, "%d ends of %s" % (n, mode))


@pytest.mark.parametrize("status", [200, 204, 302, "pieces"])
def test_what_counts(host, status):
    """One GET, of what was asked for; where a redirect leads nobody asks."""
    with serving(host, status, ports="8000/http", readinessPath="/health?full=1&x=%20") as c:
        ready(host, c)
        wait_ends(host, c, status, 1)
        (get,) = asked(host, c, status)
        line, *headers = get[:-4].split("\r\n")
        assert line == "GET /health?full=1&x=%20 HTTP/1.1"
        assert headers == ["Host: localhost:8000", "User-Agent: hypervisor-vmm (readiness)", "Accept: */*", "Connection: close"]


def test_what_does_not_count(host):
    """Nor does it harm: each is asked again and again, until it says what counts."""
    modes = ["503", "404", "garbage", "old", "interim", "flood", "drip", "silent", "close"]
    with serving(host, modes[0], ports="8000/http", readinessPath="/") as c:
        for mode in modes:
            switch(host, c, mode)
            wait_ends(host, c, mode, 3 if mode not in ("drip", "silent") else 2)
            assert phase(host, c) == "running", mode
        # whoever else waits was not kept waiting
        with serving(host, 200, ports="8000/http", readinessPath="/") as d:
            ready(host, d)
        assert phase(host, c) == "running"
        switch(host, c, 200)
        ready(host, c)
        n = len(asked(host, c, 200))
        host.restart()
        assert ready(host, c) and len(asked(host, c, 200)) == n, "who was ready is not asked again"


def test_another_port_and_those_without_a_path(host):
    """The port that is named is asked, the others connected to; all have to answer."""
    with serving(host, 200, port=8001, ports="8000/http,8001/http,9000/tcp", readinessPath=":8001/ping") as c:
        assert phase(host, c) == "running" and asked(host, c, 200) == []
        # the first in the list keeps all others waiting
        listen = "import socket, sys, time; s = [socket.create_server(('0.0.0.0', int(p))) for p in sys.argv[1:]]; print('ok', flush=True); time.sleep(1000)"
        x = host.session(c, "python3", "-c", listen, "8000", "9000")
        x.until(b"ok")
        ready(host, c)
        x.ws.close()
        wait_ends(host, c, 200, 1)
        (get,) = asked(host, c, 200)
        assert get.startswith("GET /ping HTTP/1.1\r\nHost: localhost:8001\r\n")


def test_templates_and_what_is_told(host):
    made = host.gql("mutation($i: SaveTemplateInput) { saveTemplate(input: $i) { id readinessPath } }", {"i": dict(
        name="asked", imageName=PYTHON, dockerArgs="sleep 1000", containerDiskInGb=5, volumeInGb=0, env=[], ports="8000/http",
        readinessPath="/t")})["saveTemplate"]
    assert made["readinessPath"] == "/t"
    tell = '{ cluster(input: {clusterId: "%s"}) { readinessPath } }'
    for given, want in (({}, "/t"), ({"readinessPath": ":8000/own"}, ":8000/own"), ({"readinessPath": "none"}, None)):
        c = host.deploy(imageName=PYTHON, templateId=made["id"], **given)
        try:
            assert host.gql(tell % c)["cluster"]["readinessPath"] == want
            host.restart()
            assert host.gql(tell % c)["cluster"]["readinessPath"] == want
        finally:
            host.terminate(c)
    host.cli("create", "cluster", "--gpuCount", "0", "--imageName", PYTHON, "--mem", "1", "--containerDiskSize", "5", "--volumeSize",
             "0", "--ports", "8000/http", "--readinessPath", "/cli", "--name", "by-cli", "--args", "sleep 1000")
    got = json.loads(host.cli("get", "cluster", "by-cli", "-o", "json").stdout)
    assert got["readinessPath"] == "/cli"
    host.terminate(got["id"])


@pytest.mark.parametrize("ports, path, says", [
    ("8000/http", "health", "readinessPath: 'health' is neither a path such as /health nor one with its port"),
    ("8000/http", "/a b", "readinessPath: '/a b' is neither"),
    ("8000/http", "/\r\nX: y", "readinessPath: "),
    ("8000/http", "/" + "x" * 1024, "readinessPath: 1025 bytes, at most 1024 are allowed"),
    ("8000/http,22/tcp", ":22/", "readinessPath: 22 is no HTTP port of the cluster; add 22/http to ports"),
    ("22/tcp", "/", "readinessPath: the cluster has no HTTP port that could be asked; add one such as 8000/http"),
])
def test_what_is_refused(host, ports, path, says):
    with pytest.raises(ApiError, match="readinessPath") as x:
        host.deploy(ports=ports, readinessPath=path)
    assert says in str(x.value)
    with pytest.raises(ApiError, match="readinessPath"):
        host.gql("mutation($i: SaveTemplateInput) { saveTemplate(input: $i) { id } }", {"i": dict(
            name="refused", imageName=PYTHON, dockerArgs="", containerDiskInGb=5, volumeInGb=0, env=[], ports=ports, readinessPath=path)})
    assert host.clusters() == []
