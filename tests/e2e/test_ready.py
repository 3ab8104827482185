"""Readiness (docs/edge.md): `ready` when every declared port answers, once for each start, and asked no longer than
until then."""
import json
import os
import signal
import subprocess

import pytest

from crash import wait_until
from host import SLOW, Host, program

ENGINE = {"pool_networks": 0, "pool_disks": 0, "grace": "200ms", "cpu_overcommit": 100, "memory_overcommit": 50,
          "disk_overcommit": 100}
PYTHON = "tensorone/llm-starter"
# Opens each port named by a file in /workspace, once that is there; counts connections on standard output.
SERVE = """
import os, socket, sys, threading, time
def serve(spec):
    name, port = spec.split(":")
    while not os.path.exists("/workspace/" + spec): time.sleep(0.02)
    family = socket.AF_INET6 if name == "six" else socket.AF_INET
    s = socket.socket(family); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if name == "six": s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    s.bind(({"six": "::", "four": "0.0.0.0", "own": "127.0.0.1"}[name], int(port))); s.listen(50)
    print("listening", spec, flush=True)
    while True:
        c, a = s.accept(); print("visitor", spec, flush=True); c.close()
for spec in sys.argv[1:]: threading.Thread(target=serve, args=(spec,)).start()
"""


@pytest.fixture(scope="module")
def host():
    with Host({"engine": ENGINE}) as h:
        for image in ("tensorone/starter", PYTHON):
            h.import_image(image)
        yield h


def serving(host, *specs, **fields):
    return host.running("python3", "-c", SERVE, *specs, imageName=PYTHON, containerDiskInGb=5, volumeInGb=1, **fields)


def opened(host, cluster, spec):
    host.exec(cluster, "touch", "/workspace/" + spec)
    host.wait_log(cluster, "listening " + spec, 60)


def phase(host, cluster):
    return host.cluster(cluster)["phase"]


def ready(host, cluster):
    return host.wait(cluster, lambda c: c["phase"] == "ready", 60)


def told(host, cluster):
    """How many events say so."""
    return len(host.gql('{ events(input: {clusterId: "%s", kind: "ready"}) { kind } }' % cluster)["events"])


def visitors(host, cluster, spec):
    return host.logs(cluster).count("visitor " + spec)


def visited(host, cluster, spec, n):
    """What the program says of a connection comes a moment after it."""
    wait_until(lambda: visitors(host, cluster, spec) >= n, 30, "word of the visitors")
    assert visitors(host, cluster, spec) == n


def test_without_ports(host):
    """Nothing declared: ready as soon as it runs."""
    with host.running("sleep", "1000") as c:
        assert ready(host, c)["runtime"] is not None and told(host, c) == 1


def test_every_port(host):
    """Each of them, by IPv4 or IPv6; running until then, with everything that clients look for."""
    with serving(host, "four:8000", "six:22", ports="8000/http,22/tcp") as c:
        host.exec(c, "true")
        assert phase(host, c) == "running" and host.cluster(c)["runtime"]["ports"] and told(host, c) == 0
        opened(host, c, "four:8000")
        visited(host, c, "four:8000", 1)
        assert phase(host, c) == "running" and told(host, c) == 0
        opened(host, c, "six:22")
        ready(host, c)
        assert told(host, c) == 1
        visited(host, c, "four:8000", 1)
        visited(host, c, "six:22", 1)


def test_loopback_is_not_enough(host):
    with serving(host, "own:8000", "four:9000", ports="8000/tcp") as c:
        opened(host, c, "own:8000")
        opened(host, c, "four:9000")  # not declared: not asked
        # a second cluster gets ready meanwhile, so there was time to ask
        with serving(host, "four:8000", ports="8000/tcp") as d:
            opened(host, d, "four:8000")
            ready(host, d)
        assert phase(host, c) == "running"
        assert visitors(host, c, "own:8000") == visitors(host, c, "four:9000") == 0


def test_over_restarts(host):
    """An engine that starts again goes on asking who was not ready, and asks nobody who was; a new first process is
    asked again, and the event told once for each order."""
    with serving(host, "four:8000", ports="8000/tcp") as late, serving(host, "four:8000", ports="8000/tcp") as c:
        opened(host, c, "four:8000")
        ready(host, c)
        host.restart()
        assert ready(host, c) and phase(host, late) == "running"
        opened(host, late, "four:8000")
        ready(host, late)
        visited(host, c, "four:8000", 1)
        first = host.first_pid(c)
        os.kill(first, signal.SIGKILL)
        host.wait_new_first(c, first)
        ready(host, c)
        visited(host, c, "four:8000", 2)
        assert told(host, c) == 1
        host.call("clusterRestart", c)
        wait_until(lambda: told(host, c) == 2, 60, "the second event")
        assert phase(host, c) == "ready"


def test_command_line_waits(host):
    """--wait returns when it is ready, and says where it is reached."""
    p = subprocess.Popen(
        [program("tensoronecli"), "create", "cluster", "--gpuCount", "0", "--imageName", PYTHON, "--mem", "1",
         "--vcpu", "1", "--containerDiskSize", "5", "--volumeSize", "1", "--ports", "8000/tcp", "--args",
         json.dumps({"cmd": ["python3", "-c", SERVE, "four:8000"]}), "--name", "waited", "--wait"],
        env=host.cli_env(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        c = wait_until(lambda: next((c["id"] for c in host.clusters() if c["name"] == "waited" and c["runtime"]), None),
                       60 * SLOW, "the cluster")
        assert phase(host, c) == "running" and p.poll() is None
        opened(host, c, "four:8000")
        out, err = p.communicate(timeout=60 * SLOW)
        assert p.returncode == 0, err
        at = [x for x in host.cluster(c)["runtime"]["ports"] if x["isIpPublic"]][0]
        assert "port 8000/tcp at %s:%d\n" % (at["ip"], at["publicPort"]) in out
        assert phase(host, c) == "ready"
    finally:
        p.kill()
        p.communicate()
        for k in host.clusters():
            host.terminate(k["id"])
    host.wait_held(set())
