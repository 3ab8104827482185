"""What the host puts around vmm-fetch, on the real kernel: firewall rules for its ids, a group of its
own, and what becomes of both when something is killed."""
import contextlib
import fcntl
import json
import os
import pathlib
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

import pytest

from host import Host, free_port, program
from ocimake import Hang, Image, Layer, Registry

LISTED = "127.0.0.1:%d" % free_port()  # a registry of the configuration at which the tests listen
F_OFD_SETLK = 37
FIRST_FETCHER = 0x4F000000
NO_FETCHER = 0x4F800000  # behind the last range that a fetcher may have
CONFIG = {"cpu_overcommit": 100, "memory_overcommit": 20, "disk_overcommit": 100,
          "pool_networks": 0, "pool_disks": 0, "log_level": "debug"}


@pytest.fixture(scope="module")
def host(registry):
    plain = {"insecure": "yes"}
    with Host({"engine": CONFIG, 'registry "%s"' % registry.host: plain,
               'registry "%s"' % LISTED: {}}) as h:
        h.import_image("tensorone/starter")
        yield h


@pytest.fixture(autouse=True)
def nothing_held(host, registry):
    yield
    registry.stop.set()  # whoever hangs lets go
    host.wait_held(set())
    registry.stop.clear()
    registry.faults.clear()


def image_of(registry, name, hang):
    noise = [Layer().file("noise", random.Random(name).randbytes(300000)).tar()]
    image = Image(noise)
    if hang:
        registry.fault(image.layers[0]["digest"], Hang(at=1000, seconds=120))
    return registry.add("test/" + name, "1", image)


def until(check, timeout=10, what="it"):
    end = time.monotonic() + timeout
    while not check():
        assert time.monotonic() < end, "never came: %s" % what
        time.sleep(0.02)


def gone(pid):
    """Dead; whoever inherited it may be slow to take notice."""
    with contextlib.suppress(OSError):
        return pathlib.Path("/proc/%d/stat" % pid).read_text().rsplit(")", 1)[1].split()[0] == "Z"
    return True


def unpacking(host):
    """Fetchers that are in the middle of a layer: they have their sandbox and a connection."""
    found = []
    for pid in host.descendants("vmm-fetch"):
        with contextlib.suppress(OSError):
            words = pathlib.Path("/proc/%d/cmdline" % pid).read_bytes()
            links = [os.readlink("/proc/%d/fd/%s" % (pid, n)) for n in os.listdir("/proc/%d/fd" % pid)]
            if words == b"vmm-fetch\0layer\0" and any(l.startswith("socket:") for l in links):
                found.append(pid)
    return found


@contextlib.contextmanager
def hanging(host, registry, name):
    """A pull that hangs in its layer; yields the fetcher's pid and the first of its ids."""
    ref = image_of(registry, name, hang=True)
    cli = subprocess.Popen([program("tensoronecli"), "image", "pull", ref], env=host.cli_env(),
                           stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                           stderr=subprocess.PIPE, text=True)
    try:
        until(lambda: len(unpacking(host)) == 1, what="the layer's fetcher")
        (pid,) = unpacking(host)
        yield pid, int(pathlib.Path("/proc/%d/uid_map" % pid).read_text().split()[1]), cli
    finally:
        cli.kill()
        cli.wait()


TRY = """
import errno, os, socket, sys
uid, kind, host, port = int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
os.setgroups([]); os.setresgid(uid, uid, uid); os.setresuid(uid, uid, uid)
s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET,
                  socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
s.settimeout(float(sys.argv[5]))
try:
    if kind == "tcp":
        s.connect((host, port))
    else:
        s.sendto(b"?", (host, port))
    print("through")
except OSError as e:
    print("refused" if e.errno == errno.ECONNREFUSED else "dropped")
"""


def attempt(uid, host, port, kind="tcp", patience=0.6):
    """What a process with this id sees of an address."""
    p = subprocess.run([sys.executable, "-c", TRY, str(uid), kind, host, str(port), str(patience)],
                       stdout=subprocess.PIPE, text=True, timeout=60, check=True)
    return p.stdout.strip()


def reaches(*what):
    """Silence is no proof here: a machine that stands still for a moment is silent too."""
    return attempt(*what, patience=10) == "through"


@contextlib.contextmanager
def listener(address, port=0):
    s = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind((address, port))
    s.listen(8)
    try:
        yield s.getsockname()[1]
    finally:
        s.close()


def own_address():
    """An address of this machine that is not loopback, or None."""
    out = subprocess.run(["ip", "-j", "-4", "address"], stdout=subprocess.PIPE, check=True).stdout
    for link in json.loads(out):
        for a in link["addr_info"]:
            if link["ifname"] != "lo" and a["scope"] == "global":
                return a["local"]
    return None


@contextlib.contextmanager
def held_range(base):
    """No host on this machine has the range at @base meanwhile."""
    fd = os.open("/run/hypervisor-vmm/fetch-ids", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def lock():
        with contextlib.suppress(OSError):
            fcntl.fcntl(fd, F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, (base - FIRST_FETCHER) >> 16, 1, 0))
            return True
    try:
        until(lock, what="the range of ids")
        yield
    finally:
        os.close(fd)


def test_ids_of_a_fetcher_reach_nothing_private(host, registry):
    with listener("127.0.0.1") as private, hanging(host, registry, "wall") as (_, base, _):
        assert reaches(0, "127.0.0.1", private), "nobody else is touched"
        for other in (1000, NO_FETCHER, NO_FETCHER + 65536):
            assert reaches(other, "127.0.0.1", private), other
        for uid in (base, base + 1, base + 65535):
            assert attempt(uid, "127.0.0.1", private) == "dropped", uid
        assert attempt(base, "127.0.0.2", private) == "dropped"
        if own_address():
            with listener(own_address()) as mine:
                assert reaches(0, own_address(), mine)
                assert attempt(base, own_address(), mine) == "dropped"
        for far in ("10.1.2.3", "169.254.169.254", "192.168.1.1", "100.64.0.1", "172.16.0.1"):
            assert attempt(base, far, 80) == "dropped", far
            assert attempt(base, far, 9, "udp") == "dropped", far
        assert attempt(base, "127.0.0.1", 9, "udp") == "dropped"
        assert attempt(base, "8.8.8.8", 123, "udp") == "dropped", "TCP alone"
        # the registries of the configuration, on their ports
        assert reaches(base, *registry.host.split(":"))
        with listener("127.0.0.1", int(LISTED.split(":")[1])):
            assert reaches(base, *LISTED.split(":"))
        assert attempt(base, *LISTED.split(":"), patience=10) == "refused", "not dropped, but nobody listens"
    host.wait_held(set())
    with held_range(base), listener("127.0.0.1") as private:
        assert reaches(base, "127.0.0.1", private), "the ids are nobody's again"


def test_ids_of_a_fetcher_by_ipv6(host, registry):
    try:
        with listener("::1"):
            pass
    except OSError:
        assert not os.path.exists("/proc/net/if_inet6") or "lo" not in open(
            "/proc/net/if_inet6").read(), "::1 is here and cannot be used"
        return  # a machine without IPv6 has nothing to close
    with listener("::1") as private, hanging(host, registry, "six") as (_, base, _):
        assert reaches(0, "::1", private)
        assert attempt(base, "::1", private) == "dropped"


def name_servers():
    with contextlib.suppress(OSError):
        return [l.split()[1] for l in open("/etc/resolv.conf") if l.startswith("nameserver ")]
    return []


def test_name_servers_are_open(host, registry):
    with hanging(host, registry, "names") as (_, base, _):
        for server in name_servers() or ["127.0.0.1"]:
            assert attempt(base, server, 53, "udp", patience=10) in ("through", "refused"), server
            assert attempt(base, server, 54, "udp") == "dropped", server


def groups(host):
    """But for those that only tell clusters' pressure, beside the hierarchies of cgroup v1."""
    return [g for root in host.slice_roots() for g in root.iterdir()
            if g.name.startswith("f") and not (len(host.slice_roots()) > 1 and "unified" in g.parts)]


def value(group, *files):
    for f in files:
        if (group / f).exists():
            return (group / f).read_text().strip()
    return None


def test_group_of_a_fetcher(host, registry):
    with hanging(host, registry, "group") as (pid, base, _):
        found = groups(host)
        assert found and {g.name for g in found} == {"f%x" % (base >> 16)}
        for g in found:
            assert str(pid) in (g / "cgroup.procs").read_text().split(), g
        limits = {f: value(g, *f) for g in found
                  for f in (("memory.limit_in_bytes", "memory.max"), ("pids.max",)) if value(g, *f)}
        assert limits == {("memory.limit_in_bytes", "memory.max"): str(512 << 20), ("pids.max",): "32"}


def test_a_killed_operation_leaves_nothing(host, registry):
    with hanging(host, registry, "killed") as (pid, base, cli):
        (op,) = [p for p in host.descendants("hvmm-op") if str(pid) in pathlib.Path(
            "/proc/%d/task/%d/children" % (p, p)).read_text().split()]
        os.kill(op, signal.SIGKILL)
        until(lambda: gone(pid), what="the fetcher's end")
        assert cli.wait(10) == 1
        host.wait_held(set())
        with listener("127.0.0.1") as private:
            assert reaches(base, "127.0.0.1", private)


def test_a_killed_engine_leaves_nothing_after_its_next_start(registry):
    with Host({"engine": CONFIG, 'registry "%s"' % registry.host: {"insecure": "yes"}}) as h:
        with hanging(h, registry, "engine") as (pid, base, cli):
            h.kill()
            until(lambda: gone(pid), what="the fetcher's end")
        h.start()
        assert h.held() == set()


def test_stopping_in_the_middle_leaves_nothing(registry):
    with Host({"engine": CONFIG, 'registry "%s"' % registry.host: {"insecure": "yes"}}) as h:
        with hanging(h, registry, "stop") as (pid, base, cli):
            roots = h.slice_roots()
            assert roots and h.stop() == 0
        assert gone(pid) and not [r for r in roots if r.exists()]


@contextlib.contextmanager
def lower_ranges_taken(base):
    """Whoever wants a range of ids meanwhile gets @base, if that is free."""
    fd = os.open("/run/hypervisor-vmm/fetch-ids", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        for i in range((base - FIRST_FETCHER) >> 16):
            with contextlib.suppress(OSError):  # taken by others already
                fcntl.fcntl(fd, F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, i, 1, 0))
        yield
    finally:
        os.close(fd)


def test_two_hosts_do_not_judge_each_others_fetchers(host, registry):
    """A range that a dead host's firewall still names is another's now: what that one may reach is
    its own configuration's matter."""
    with Registry() as theirs, Host({"engine": CONFIG, 'registry "%s"' % theirs.host: {
            "insecure": "yes"}}) as h:
        with hanging(h, theirs, "first") as (pid, base, _):
            assert reaches(base, *theirs.host.split(":"))
            assert attempt(base, *registry.host.split(":")) == "dropped"
            h.kill()
            until(lambda: gone(pid), what="the fetcher's end")
        assert attempt(base, *registry.host.split(":")) == "dropped", "its table is there still"
        for i in range(20):  # unless others on this machine were faster
            with lower_ranges_taken(base), hanging(host, registry, "second%d" % i) as (_, now, _):
                if now != base:
                    continue
                assert reaches(base, *registry.host.split(":"))
                h.start()  # what it left of a range that is another's now goes all the same
                assert h.held() == set()
                assert reaches(base, *registry.host.split(":"))
                assert h.stop() == 0 and not h.slice_roots()
                break
        else:
            pytest.fail("the range was always somebody else's")


# ---- memory ------------------------------------------------------------------------------------

class Tighten(threading.Thread):
    """Gives every fetcher's group less memory than it has by itself."""

    def __init__(self, host, size):
        super().__init__(daemon=True)
        self.host, self.size, self.stop, self.seen = host, size, threading.Event(), set()

    def run(self):
        while not self.stop.wait(0.002):
            for g in groups(self.host):
                for f in ("memory.limit_in_bytes", "memory.max"):
                    with contextlib.suppress(OSError):
                        fd = os.open(g / f, os.O_WRONLY)
                        os.write(fd, str(self.size).encode())
                        os.close(fd)
                        self.seen.add(g.name)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *exc):
        self.stop.set()
        self.join()


def test_memory_of_a_fetcher(host, registry):
    """A stream that wants a window of 128 MiB: with what a fetcher has it is unpacked; with less the
    kernel ends the fetcher, twice, and the reason says so."""
    image = Image([Layer().file("zeros", bytes(180 << 20)).tar()], compress_as="zstd-long")
    ref = registry.add("test/window", "1", image)
    with Tighten(host, 48 << 20) as t:
        r = host.cli("image", "pull", ref, check=False)
        assert t.seen
    assert r.returncode == 1 and "takes more than the 512 MiB of memory" in r.stderr, r.stderr
    assert "trying again" in host.log_text()
    host.wait_held(set())
    assert host.cli("image", "pull", ref).returncode == 0
    host.cli("image", "rm", ref)
