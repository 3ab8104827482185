"""TCP ports of clusters on the host's public range (docs/edge.md): from the declaration to a connection from another
machine, over restarts and kills, each of them lent once."""
import contextlib
import json
import os
import random
import signal
import socket
import subprocess

import pytest

from crash import converge, revive, wait_until
from host import RUN, SLOW, Host

PID = os.getpid()
NET = "198.%d.%d.%d" % (18 + PID % 2, (PID >> 1) & 255, ((PID >> 9) & 63) * 4)  # a /30 of this run's own
HERE, AWAY = (NET.rsplit(".", 1)[0] + "." + str(int(NET.rsplit(".", 1)[1]) + n) for n in (1, 2))
SEED = int(os.environ.get("HVMM_SEED") or random.randrange(1 << 32))
ENGINE = {"pool_networks": 0, "pool_disks": 0, "grace": "200ms", "cpu_overcommit": 100, "memory_overcommit": 50,
          "disk_overcommit": 100}
SERVE = """
import os, socket, sys, threading
def serve(port):
    s = socket.socket(socket.AF_INET6); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("::", port)); s.listen(50)
    while True:
        c, a = s.accept(); c.sendall(("%s %d %s" % (os.environ["TENSORONE_CLUSTER_ID"], port, a[0])).encode()); c.close()
for p in sys.argv[2:]: threading.Thread(target=serve, args=(int(p),)).start()
print("serving", flush=True)
"""
PYTHON = "tensorone/llm-starter"


def some_ports(n):
    """A range of @n that nobody on this machine uses, outside the usual one and that of the kernel."""
    while True:
        first = random.randrange(2000, 19000)
        taken = {int(f) for f in os.listdir(RUN / "ports") if f.isdigit()} if (RUN / "ports").exists() else set()
        if taken & set(range(first, first + n)):
            continue
        with contextlib.suppress(OSError), contextlib.ExitStack() as held:
            for port in range(first, first + n):
                held.enter_context(socket.socket()).bind(("0.0.0.0", port))
            return first, first + n - 1


@pytest.fixture(scope="module")
def away():
    """Another machine, on a link of this one."""
    link, ns = "po-%d" % PID, "hvpo%d" % PID
    try:
        subprocess.run(["ip", "netns", "add", ns], check=True)
        for words in (f"link add {link} type veth peer name eth0 netns {ns}", f"address add {HERE}/30 dev {link}",
                      f"link set {link} up", f"-n {ns} address add {AWAY}/30 dev eth0", f"-n {ns} link set eth0 up"):
            subprocess.run(["ip", *words.split()], check=True)
        yield ns
    finally:
        subprocess.run(["ip", "netns", "del", ns], check=False)
        subprocess.run(["ip", "link", "del", link], check=False, stderr=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def host(away):
    with Host({"engine": ENGINE, "network": {"public_ip": HERE}}) as h:
        for image in ("tensorone/starter", PYTHON):
            h.import_image(image)
        yield h


ASK = """
import socket, sys
try:
    s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 10); print(s.recv(200).decode(), end="")
except OSError as e: print("error %d" % (e.errno or 0), end="")
"""


def ask(ip, port, ns=None):
    """What is said there, to a program of this machine or of another."""
    words = (["ip", "netns", "exec", ns] if ns else []) + ["/usr/bin/python3", "-c", ASK, ip, str(port)]
    return subprocess.run(words, capture_output=True, text=True, timeout=30 * SLOW).stdout


@contextlib.contextmanager
def serving(host, *ports, **fields):
    """A cluster that serves and declares these TCP ports, once it does."""
    given = dict(imageName=PYTHON, containerDiskInGb=5, ports=",".join(f"{p}/tcp" for p in ports))
    given.update(fields)
    with host.running("python3", "-c", SERVE, "-", *map(str, ports), **given) as c:
        host.wait_log(c, "serving", 60)
        yield c


def shown(host, cluster):
    """{private: public} of what is published, as the API has it."""
    ports = host.cluster(cluster)["runtime"]["ports"]
    return {p["privatePort"]: p["publicPort"] for p in ports if p["isIpPublic"]}


def lent(host):
    """{port: cluster} by the claims."""
    return host.claims("ports")


def test_published(host, away):
    """Declared is reachable, from another machine and from this one; in the API, the command line, the
    environment; and it ends with the cluster."""
    with serving(host, 22, 8000, ports="22/tcp,8888/http,8000/tcp") as c:
        run = host.cluster(c)["runtime"]["ports"]
        at = shown(host, c)
        assert set(at) == {22, 8000} and len(set(at.values())) == 2
        assert all(20000 <= p <= 29999 for p in at.values())
        assert [(p["privatePort"], p["type"], p["isIpPublic"], p["ip"] == HERE) for p in run] == [
            (22, "tcp", True, True), (8888, "http", False, False), (8000, "tcp", True, True)]
        assert lent(host) == {at[22]: c, at[8000]: c}
        for port in (22, 8000):
            assert ask(HERE, at[port], away) == f"{c} {port} ::ffff:{AWAY}"
            assert ask(HERE, at[port]) == f"{c} {port} ::ffff:{HERE}"
        env = dict(v.split("=", 1) for v in host.exec(c, "env").stdout.splitlines() if "=" in v)
        first = host.exec(c, "cat", "/proc/1/environ").stdout.split("\0")
        login = host.exec(c, "sh", "-lc", "echo $TENSORONE_TCP_PORT_22").stdout.strip()
        assert login == str(at[22])
        for prefix in ("RUNPOD_", "TENSORONE_"):
            for name, value in (("PUBLIC_IP", HERE), ("TCP_PORT_22", at[22]), ("TCP_PORT_8000", at[8000])):
                assert env[prefix + name] == str(value) and f"{prefix}{name}={value}" in first
            assert prefix + "TCP_PORT_8888" not in env
        table = host.cli("get", "cluster", c, "-a").stdout
        assert f"{HERE}:{at[22]}->22" in table
        assert json.loads(host.cli("get", "cluster", c, "-o", "json").stdout)
        old = at[22]
    assert lent(host) == {}
    assert ask(HERE, old, away).startswith("error") and ask(HERE, old).startswith("error")


def test_stays_over_restarts(host, away):
    """The same port while the cluster runs: over the engine's end by signal and by kill, the API's, and restarts of its
    first process."""
    with serving(host, 22) as c:
        at = shown(host, c)
        host.stop()
        assert ask(HERE, at[22], away) == f"{c} 22 ::ffff:{AWAY}", "without any engine"
        host.start()
        assert host.wait_running(c) and shown(host, c) == at and lent(host) == {at[22]: c}
        host.restart()
        host.wait_running(c)
        assert shown(host, c) == at and ask(HERE, at[22], away) == f"{c} 22 ::ffff:{AWAY}"
        first = host.first_pid(c)
        os.kill(first, signal.SIGKILL)
        host.wait_new_first(c, first)
        assert shown(host, c) == at and lent(host) == {at[22]: c}
        wait_until(lambda: ask(HERE, at[22], away) == f"{c} 22 ::ffff:{AWAY}", 30, "the second process")


def test_stop_gives_it_back(host, away):
    with serving(host, 22) as c:
        old = shown(host, c)[22]
        host.call("clusterStop", c)
        host.wait_exited(c)
        assert host.cluster(c)["runtime"] is None
        wait_until(lambda: lent(host) == {}, 20, "its port")
        assert ask(HERE, old, away).startswith("error")
        host.call("clusterResume", c, gpuCount=0)
        host.wait_running(c)
        at = shown(host, c)
        assert set(at) == {22} and lent(host) == {at[22]: c}
        wait_until(lambda: ask(HERE, at[22], away) == f"{c} 22 ::ffff:{AWAY}", 30, "its new port")


def test_a_wiped_firewall(host, away):
    """Somebody takes our rules out of the kernel: they come back, ports included."""
    with serving(host, 22) as c:
        at = shown(host, c)
        subprocess.run(["nft", "delete", "table", "inet", "hvmm_" + host.id], check=True)
        wait_until(lambda: ask(HERE, at[22], away) == f"{c} 22 ::ffff:{AWAY}", 30, "the firewall")
        assert shown(host, c) == at


def test_the_range_is_full(away):
    """Who finds no port is told so, with the number, the range and the way out, and holds nothing; the next one
    runs."""
    first, last = some_ports(2)
    with Host({"engine": ENGINE, "network": {"public_ip": HERE, "public_ports": f"{first}-{last}"}}) as host:
        host.import_image("tensorone/starter")
        with host.running("sleep", "1000", ports="22/tcp") as a:
            assert lent(host) == {shown(host, a)[22]: a}
            b = host.deploy(ports="22/tcp,23/tcp", dockerArgs="sleep 1000")
            why = host.wait_exited(b)["reason"]
            assert "2 public TCP ports" in why and f"{first}-{last}" in why and "public_ports" in why
            assert lent(host) == {shown(host, a)[22]: a}
            host.terminate(b)
            with host.running("sleep", "1000", ports="22/tcp") as c:
                assert {*shown(host, a).values(), *shown(host, c).values()} == {first, last}
        with host.running("sleep", "1000", ports="1/tcp,2/tcp") as d:  # what was given back rests, and is lent all the same
            assert set(shown(host, d).values()) == {first, last}


def test_none_are_published():
    with Host({"engine": ENGINE, "network": {"public_ports": "none"}}) as host:
        host.import_image("tensorone/starter")
        with host.running("sleep", "1000", ports="22/tcp") as c:
            ports = host.cluster(c)["runtime"]["ports"]
            assert [(p["isIpPublic"], p["privatePort"], p["publicPort"]) for p in ports] == [(False, 22, 22)]
            assert lent(host) == {}
            assert "TCP_PORT" not in host.exec(c, "env").stdout and "PUBLIC_IP" not in host.exec(c, "env").stdout


@pytest.mark.parametrize("option, value, why", [
    ("public_ports", "20000-", "no range of ports"), ("public_ports", "80-90", "1024-65535"),
    ("public_ip", "my.host", "no IP address")])
def test_bad_configuration(option, value, why):
    host = Host({"engine": ENGINE, "network": {option: value}})
    try:
        with pytest.raises(RuntimeError) as e:
            host.start()
        assert option in str(e.value) and why in str(e.value)
    finally:
        if host.proc:
            host.proc.wait(30)
            host.proc = None
        host.config = {"engine": ENGINE}
        host.close()


def test_two_hosts_never_lend_one_twice(away):
    """One range, two hosts on the machine, both killed while they start and stop clusters: at each moment that both
    are up, no port is in two hands, and at the end none is in any."""
    first, last = some_ports(8)
    config = {"engine": ENGINE, "network": {"public_ip": HERE, "public_ports": f"{first}-{last}"}}
    rng = random.Random(SEED)
    print("HVMM_SEED=%d" % SEED)
    with Host(config) as a, Host(config) as b:
        for h in (a, b):
            h.import_image("tensorone/starter")
        for _ in range(6):
            for h in (a, b):
                for c in h.clusters():
                    if rng.random() < 0.4:
                        h.terminate(c["id"])
                for _ in range(2):
                    if len(h.clusters()) < 3:
                        h.deploy(ports="22/tcp", dockerArgs="sleep 1000")
            victim = rng.choice((a, b))
            victim.kill()
            revive(victim)
            held = []
            for h in (a, b):
                # one that found no port has ended with a reason
                converge(h, 60)
                at = {}
                for c in h.clusters():
                    if c["runtime"]:
                        at[shown(h, c["id"])[22]] = c["id"]
                wait_until(lambda h=h, at=at: lent(h) == at, 30, "claims %s as clusters %s" % (lent(h), at))
                held += at
            assert len(held) == len(set(held)) and all(first <= p <= last for p in held)
        for h in (a, b):
            for c in h.clusters():
                h.terminate(c["id"])
        for h in (a, b):
            h.wait_held(set())
            assert lent(h) == {}
