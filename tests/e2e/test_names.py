"""Names of clusters (`<id>.internal`) from inside: an account's own, nobody else's; and the resolver behind
them, vmm-dns, which may end at any time."""
import contextlib
import json
import os
import signal
import time

import pytest

from host import Host

IMAGE = "tensorone/llm-starter"


@pytest.fixture(scope="module")
def host():
    with Host({"engine": {"pool_networks": 0, "pool_disks": 0, "grace": "1s", "cpu_overcommit": 100,
                          "memory_overcommit": 20, "disk_overcommit": 100}}) as h:
        h.import_image("tensorone/llm-starter")
        h.keys = {}
        yield h


@contextlib.contextmanager
def acting(host, key):
    """Whatever is called goes under that account's key."""
    old, host.key = host.key, key
    try:
        yield
    finally:
        host.key = old


@pytest.fixture(scope="module")
def trio(host):
    """Two clusters of one account and one of another."""
    keys = [host.key, host.key, host.new_account("other")]
    made = []
    for key in keys:
        with acting(host, key):
            made.append(host.deploy(imageName=IMAGE, dockerArgs="sleep 100000"))
            host.wait_running(made[-1])
    host.keys = dict(zip(made, keys))
    yield made
    for c, key in host.keys.items():
        with acting(host, key):
            host.terminate(c)


def lookup(host, cluster, name):
    """Its address as the C library says it, or None."""
    with acting(host, host.keys.get(cluster, host.key)):
        done = host.exec(cluster, "getent", "ahostsv4", name, check=False)
    return done.stdout.split()[0] if done.returncode == 0 else None


def address(host, cluster):
    return host.gql('{ cluster(input: {clusterId: "%s"}) { clusterIp } }' % cluster,
                    key=host.keys.get(cluster))["cluster"]["clusterIp"]


def until(want, seconds=20):
    end = time.monotonic() + seconds
    while not want():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_own_names_and_nobody_elses(host, trio):
    a, b, c = trio
    service = lookup(host, a, "api.internal")
    resolv = host.exec(a, "cat", "/etc/resolv.conf").stdout.splitlines()
    assert [line for line in resolv if not line.startswith("#")] == ["nameserver " + service]
    assert lookup(host, a, b + ".internal") == address(host, b)
    assert lookup(host, b, a + ".internal") == address(host, a)
    assert lookup(host, c, c + ".internal") == address(host, c)
    assert lookup(host, a, c + ".internal") is None
    assert lookup(host, c, a + ".internal") is None
    assert lookup(host, a, "nobody.internal") is None


def test_a_cluster_is_known_before_it_asks(host):
    """Its first process's first word: a resolver that knows nobody yet says nothing, and the question is asked
    again after five seconds."""
    script = "s=$(date +%s%N); getent ahostsv4 one-that-is-not.internal; e=$(date +%s%N); " \
             "echo took $(((e - s) / 1000000)) end; exec sleep 100000"
    c = host.deploy(imageName=IMAGE, dockerArgs=json.dumps({"cmd": ["sh", "-c", script]}))
    try:
        text = host.wait_log(c, " end")
        took = int(text.split("took ")[1].split()[0])
        assert took < 4000, text
    finally:
        host.terminate(c)


def test_names_go_with_their_clusters(host, trio):
    a = trio[0]
    gone = host.deploy(imageName=IMAGE, dockerArgs="sleep 100000")
    host.wait_running(gone)
    assert lookup(host, a, gone + ".internal")
    host.call("clusterStop", gone)
    host.wait_exited(gone)
    until(lambda: lookup(host, a, gone + ".internal") is None)
    host.call("clusterResume", gone)
    host.wait_running(gone)
    assert lookup(host, a, gone + ".internal") == address(host, gone)
    host.terminate(gone)
    until(lambda: lookup(host, a, gone + ".internal") is None)


def test_the_resolver_is_killed_and_the_engine_too(host, trio):
    a, b, c = trio
    want = address(host, b)
    old, = host.descendants("vmm-dns")
    os.kill(old, signal.SIGKILL)
    until(lambda: host.descendants("vmm-dns") not in ([], [old]))
    assert lookup(host, a, b + ".internal") == want
    assert lookup(host, a, c + ".internal") is None
    host.kill()
    host.start()
    until(lambda: lookup(host, a, b + ".internal") == want)
    assert lookup(host, a, c + ".internal") is None


def test_it_runs_as_nobody(host):
    pid, = host.descendants("vmm-dns")
    status = dict(line.split(":", 1) for line in open("/proc/%d/status" % pid, encoding="ascii"))
    assert len(set(status["Uid"].split())) == 1 and int(status["Uid"].split()[0]) >= 0x4FD00000
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0 and status["NoNewPrivs"].strip() == "1"
    fds = [os.readlink("/proc/%d/fd/%s" % (pid, fd)) for fd in os.listdir("/proc/%d/fd" % pid)]
    assert not [f for f in fds if f.startswith("/") and f != "/dev/null"
                and not f.endswith((".log", "/log", "stderr"))], fds
