"""The programs of a running host as the kernel sees them: user, capabilities, filters, mounts, limits,
listeners; who may speak to whom; and where secrets must not be.  What each ladder refuses is in
tests/flow/test_surface.py."""
import contextlib
import ctypes
import os
import pathlib
import re
import subprocess
import sys
import time

import pytest

from host import PAUSE_S, ROOT, RUN, Host, program
from ocimake import Hang, Image, Layer

MONITOR_BASE, FETCH_BASE, API_UID, GPU_UID, DNS_UID = 0x4FF00000, 0x4F000000, 0x4FD00000, 0x4FD00001, 0x4FD00002
PASSWORD = "s3cret-registry-word"
CONFIG = {"cpu_overcommit": 100, "memory_overcommit": 20, "disk_overcommit": 100, "pool_networks": 1,
          "pool_disks": 0, "grace": "1s", "log_level": "debug", "gpu_driver": "simulated:4090x1"}
CAPS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


def names_of_rights():
    return set(re.findall(r"RIGHT\((CAP_\w+)", (ROOT / "src/engine/rights.c").read_text()))


def cap_number(name):
    number = ctypes.c_int()
    assert ctypes.CDLL("libcap.so.2").cap_from_name(name.lower().encode(), ctypes.byref(number)) == 0, name
    return number.value


def mask(names):
    return sum(1 << cap_number(n) for n in names)


@pytest.fixture(scope="module")
def host(registry):
    with Host({"engine": CONFIG, 'registry "%s"' % registry.host: {"insecure": "yes"},
               'registry "registry.example"': {"username": "ada", "password": PASSWORD}}) as h:
        h.import_image("tensorone/starter")
        yield h


@contextlib.contextmanager
def running(host):
    """host.running() wants a host without pools; here one is looked at."""
    cluster = host.deploy(dockerArgs="sleep 1000")
    try:
        host.wait_running(cluster)
        yield cluster
    finally:
        host.terminate(cluster)
        end = time.monotonic() + 60
        while [p for p in sockets(host) if cluster in p.name]:  # its monitor is asked as long as it is there
            assert time.monotonic() < end, "cluster %s does not end" % cluster
            time.sleep(PAUSE_S)


@pytest.fixture(scope="module")
def clusters(host):
    with running(host) as a, running(host) as b:
        yield a, b


def read(pid, name):
    return pathlib.Path("/proc/%d/%s" % (pid, name)).read_text()


def status(pid):
    s = dict(line.split(":\t", 1) for line in read(pid, "status").splitlines() if ":\t" in line)
    return {"uids": {int(x) for x in s["Uid"].split()}, "gids": {int(x) for x in s["Gid"].split()},
            "groups": s["Groups"].split(), "nnp": int(s["NoNewPrivs"]), "seccomp": int(s["Seccomp"]),
            **{c: int(s[c], 16) for c in CAPS}}


def below(uid):
    """What every program of ours is that climbs down."""
    return {"uids": {uid}, "gids": {uid}, "groups": [], "nnp": 1, "seccomp": 2, **{c: 0 for c in CAPS}}


def mounts(pid):
    return {f[4]: set(f[5].split(",")) for f in map(str.split, read(pid, "mountinfo").splitlines())}


def namespace(pid, kind):
    return os.readlink("/proc/%d/ns/%s" % (pid, kind))


def limit(pid, name):
    return re.search(r"%s\s+(\S+)\s+(\S+)" % name, read(pid, "limits")).groups()


def one(pids):
    assert len(pids) == 1, pids
    return pids[0]


def monitor_of(host, cluster):
    return one(host.pids(cluster, "m"))


# --- each program ------------------------------------------------------------------------------

def check_engine(host, pid):
    """No more than the list, of what this machine's root has."""
    mine, s = status(os.getpid()), status(pid)
    listed = mask(names_of_rights())
    assert s["uids"] == {0} and s["groups"] == status(os.getpid())["groups"]
    assert (s["CapEff"], s["CapPrm"]) == (mine["CapEff"] & listed, mine["CapPrm"] & listed)
    assert s["CapBnd"] == mine["CapBnd"] & listed and s["CapInh"] == s["CapAmb"] == 0
    # clusters would inherit these for good, and compat's sudo would not work
    assert (s["nnp"], s["seccomp"]) == (mine["nnp"], mine["seccomp"])


def test_the_engine(host):
    check_engine(host, host.pid)
    assert namespace(host.pid, "mnt") != namespace(os.getpid(), "mnt")


def test_operations_and_shells(host, clusters):
    found = host.descendants("hvmm-op")
    assert found
    for pid in found:
        # one that makes a cluster's id map has all capabilities in a user namespace with nothing in it
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            try:
                check_engine(host, pid)
            except AssertionError:
                if namespace(pid, "user") == namespace(host.pid, "user"):
                    raise
    listed = mask(names_of_rights())
    for name in ("hvmm-shell", "vmm-launch"):
        for pid in host.descendants(name):
            with contextlib.suppress(FileNotFoundError):
                if namespace(pid, "user") == namespace(host.pid, "user"):
                    assert status(pid)["CapBnd"] & ~listed == 0, name


def test_the_api(host):
    pid = host.api_pid()
    assert status(pid) == below(API_UID)
    for task in os.listdir("/proc/%d/task" % pid):  # the store's thread, too
        assert status(int(task)) == below(API_UID)
    assert limit(pid, "Max core file size") == ("1", "1")
    assert namespace(pid, "mnt") not in (namespace(host.pid, "mnt"), namespace(os.getpid(), "mnt"))
    seen = mounts(pid)
    control, node = str(RUN / host.id / "control"), str(RUN / host.id / "node.sock")
    assert {"/", control, node} <= set(seen)
    assert set(seen) <= {"/", control, node, "/usr/lib", "/usr/lib64", "/usr/local/lib", "/lib", "/lib64",
                         "/etc/ld.so.cache", "/etc/ssl/openssl.cnf", "/dev/urandom"}
    assert {m for m, flags in seen.items() if "rw" in flags} == {control, node, "/dev/urandom"}
    for m, flags in seen.items():
        assert "nosuid" in flags and ("nodev" in flags or m == "/dev/urandom")
        assert "noexec" in flags or "lib" in m or m.startswith("/etc") or m == "/dev/urandom"
    root = pathlib.Path("/proc/%d/root" % pid)
    assert {p.name for p in root.iterdir()} <= {"dev", "etc", "lib", "lib64", "run", "usr"}
    assert not (root / "etc/passwd").exists() and not (root / "proc").exists()


def test_the_gpu_program(host):
    pid = one(host.descendants("vmm-gpu"))
    assert status(pid) == below(GPU_UID)
    assert limit(pid, "Max core file size") in (("0", "0"), ("1", "1"))
    assert pathlib.Path("/proc/%d/environ" % pid).read_bytes().count(b"\0") <= 4
    links = [os.readlink("/proc/%d/fd/%s" % (pid, n)) for n in os.listdir("/proc/%d/fd" % pid)]
    assert sum(x.startswith("socket:") for x in links) == 1, links


def test_the_resolver(host):
    pid = one(host.descendants("vmm-dns"))
    assert status(pid) == below(DNS_UID)
    assert limit(pid, "Max core file size") in (("0", "0"), ("1", "1"))
    links = [os.readlink("/proc/%d/fd/%s" % (pid, n)) for n in os.listdir("/proc/%d/fd" % pid)]
    assert sum(x.startswith("socket:") for x in links) == 3, links
    err = os.readlink("/proc/%d/fd/2" % pid)
    assert [x for x in links if x.startswith("/") and x not in ("/dev/null", err)] == []


def test_monitors(host, clusters):
    uids = set()
    for cluster in clusters:
        pid = monitor_of(host, cluster)
        assert status(pid) == below(MONITOR_BASE + host.slot(cluster))
        uids |= status(pid)["uids"]
        assert host.slot(cluster) and "vmm-monitor" in read(pid, "comm")
    assert len(uids) == 2, "each has an id of its own"


def test_the_monitor_of_a_session(host):
    with running(host) as cluster:
        before = set(host.pids(cluster, "m"))
        p = subprocess.Popen([program("tensoronecli"), "exec", cluster, "--", "sh", "-c",
                              "echo up; exec sleep 1000"], env=host.cli_env(), stdout=subprocess.PIPE,
                             stdin=subprocess.DEVNULL)
        try:
            assert p.stdout.readline() == b"up\n"
            pid = one(list(set(host.pids(cluster, "m")) - before))
            assert status(pid) == below(MONITOR_BASE + host.slot(cluster))
        finally:
            p.kill()
            p.communicate()


def test_the_fetcher(host, registry):
    image = Image([Layer().file("noise", os.urandom(300000)).tar()])
    registry.fault(image.layers[0]["digest"], Hang(at=1000, seconds=120))
    ref = registry.add("test/surface", "1", image)
    cli = subprocess.Popen([program("tensoronecli"), "image", "pull", ref], env=host.cli_env(),
                           stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end, found = time.monotonic() + 30, []
        while not found:
            assert time.monotonic() < end, "there is no fetcher"
            for pid in host.descendants("vmm-fetch"):
                with contextlib.suppress(OSError):
                    if status(pid)["seccomp"] == 2:
                        found.append((pid, status(pid), mounts(pid)))
            time.sleep(0.02)
        pid, s, seen = found[0]
        uid = one(list(s["uids"]))
        assert s == below(uid) and FETCH_BASE <= uid < API_UID
        assert set(seen) <= {"/", "/layer"} and "ro" in seen["/"]
    finally:
        cli.kill()
        cli.wait()
        registry.stop.set()
        while host.descendants("vmm-fetch"):
            assert time.monotonic() < end + 30, "the fetcher stays"
            time.sleep(0.02)
        registry.stop.clear()


# --- between them ------------------------------------------------------------------------------

REACH = """
import ctypes, os, sys
uid, pid = int(sys.argv[1]), int(sys.argv[2])
os.setgroups([]); os.setresgid(uid, uid, uid); os.setresuid(uid, uid, uid)
libc = ctypes.CDLL(None, use_errno=True)
said = []
try:
    os.kill(pid, 0)
    said.append("signalled")
except PermissionError:
    pass
if libc.ptrace(0x4206, pid, 0, 0) == 0:
    said.append("traced")
for name in ("mem", "environ", "cwd", "fd", "ns/mnt"):
    try:
        path = "/proc/%d/%s" % (pid, name)
        os.listdir(path) if name == "fd" else os.readlink(path) if "/" in name or name == "cwd" else open(path).read(1)
        said.append(name)
    except OSError:
        pass
print(" ".join(said))
"""


def reach(uid, pid):
    return subprocess.run([sys.executable, "-c", REACH, str(uid), str(pid)], check=True, capture_output=True,
                          text=True, timeout=30).stdout.strip()


def test_programs_do_not_reach_each_other(host, clusters):
    """As the user of each, without its sandbox: no signal, no trace, nothing below /proc."""
    pids = {MONITOR_BASE + host.slot(c): monitor_of(host, c) for c in clusters}
    pids[API_UID], pids[GPU_UID] = host.api_pid(), one(host.descendants("vmm-gpu"))
    for uid in pids:
        for other, pid in pids.items():
            if other != uid:
                assert reach(uid, pid) == "", (uid, other)
        assert reach(uid, host.pid) == ""
    for pid in pids.values():
        os.kill(pid, 0)
    # and the canary sings: root is not kept from it
    assert "fd" in reach(0, pids[API_UID]).split()


def sockets(host):
    return sorted(p for p in (RUN / host.id).iterdir() if p.is_socket())


SPEAK = """
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.settimeout(120)
s.connect(sys.argv[1])
print(s.recv(65536).hex(), end="")
"""


def speak(path, uid):
    """What it says first to that user, who is let past the socket's own mode on purpose."""
    p = subprocess.run(["setpriv", "--reuid", str(uid), "--regid", str(uid), "--clear-groups",
                        "--inh-caps", "-all,+dac_override", "--ambient-caps", "-all,+dac_override",
                        sys.executable, "-c", SPEAK, str(path)], capture_output=True, text=True, timeout=60)
    assert p.returncode == 0, p.stderr
    return bytes.fromhex(p.stdout)


def test_sockets_ask_who_is_there(host, clusters):
    """Every listener below the run directory: a foreign uid hears nothing that its own user would."""
    found = sockets(host)
    assert len(found) >= 3, "the node's and one for each cluster"
    for path in found:
        st = path.stat()
        assert st.st_mode & 0o077 == 0, path
        if path.name == "node.sock":
            assert st.st_uid == API_UID
            assert speak(path, 65534) == speak(path, MONITOR_BASE + host.slot(clusters[0])) == b""
            assert "refused a connection from uid 65534" in host.log_text()
            continue
        refusal = b"this user may not attach"
        assert speak(path, 0) and refusal not in speak(path, 0)
        for uid in (65534, API_UID, GPU_UID):
            assert refusal in speak(path, uid), (path, uid)
    assert host.cluster(clusters[0])["runtime"], "the API's own connection is as it was"


def listeners(pid):
    """What it listens on, by the kernel's tables of its network namespace."""
    inodes = set()
    for n in os.listdir("/proc/%d/fd" % pid):
        with contextlib.suppress(OSError):
            link = os.readlink("/proc/%d/fd/%s" % (pid, n))
            if link.startswith("socket:"):
                inodes.add(link[8:-1])
    found = set()
    for kind in ("tcp", "tcp6"):
        for f in map(str.split, read(pid, "net/" + kind).splitlines()[1:]):
            if f[3] == "0A" and f[9] in inodes:
                found.add(int(f[1].split(":")[1], 16))
    for kind in ("udp", "udp6", "raw", "raw6", "packet"):
        with contextlib.suppress(FileNotFoundError):
            for line in read(pid, "net/" + kind).splitlines()[1:]:
                f = line.split()
                if kind == "udp" and f[1].endswith(":0035") and f[9] in inodes:
                    found.add(53)  # the resolver's
                else:
                    assert not inodes & set(f), (kind, line)
    for f in map(str.split, read(pid, "net/unix").splitlines()[1:]):
        if int(f[3], 16) & 0x10000 and f[6] in inodes:
            found.add(f[7].split("/")[-1] if len(f) > 7 else "unnamed")
    return found


def test_nothing_else_listens(host, clusters):
    api = listeners(host.api_pid())
    assert host.port in api and len(api) <= 2  # the second is where clusters reach the API
    assert listeners(host.pid) <= api | {"node.sock", 53}
    assert listeners(one(host.descendants("vmm-gpu"))) == set()
    assert listeners(one(host.descendants("vmm-dns"))) == {53}  # UDP and TCP, where clusters reach it
    for c in clusters:
        assert len(listeners(monitor_of(host, c))) == 1


# --- the service -------------------------------------------------------------------------------

def test_the_service_has_the_same_list():
    text = (ROOT / "data/hypervisor-vmm.service.in").read_text()
    lines = re.findall(r"^CapabilityBoundingSet=(.*)$", text, re.M)
    assert {w for line in lines for w in line.split()} == names_of_rights()


def test_the_doctor_tells(host):
    said = subprocess.run([program("hypervisor-vmm"), "doctor"], capture_output=True, text=True).stdout
    for word in ("capabilities", "seccomp", "Landlock"):
        assert re.search(r"^(ok|note|MISSING) +%s +\S" % word, said, re.M), said


# --- secrets -----------------------------------------------------------------------------------

def test_secrets_are_not_shown(host, clusters):
    """Keys and passwords: in no argument, no environment, no log line."""
    secrets = [PASSWORD.encode(), host.key.encode()]
    todo, seen = [host.pid], 0
    while todo:
        pid = todo.pop()
        with contextlib.suppress(OSError):
            for name in ("cmdline", "environ"):
                data = pathlib.Path("/proc/%d/%s" % (pid, name)).read_bytes()
                assert not any(s in data for s in secrets), (pid, name)
            todo += [int(p) for t in os.listdir("/proc/%d/task" % pid)
                     for p in read(pid, "task/%s/children" % t).split()]
            seen += 1
    assert seen >= 5
    log = host.log_text().encode()
    assert log and not any(s in log for s in secrets)
    for name in ("admin.key", "seal.key"):
        st = (host.data / name).stat()
        assert (st.st_mode & 0o777, st.st_uid) == (0o600, 0), name


@pytest.mark.parametrize("mode, loud", [(0o644, True), (0o640, False), (0o600, False)])
def test_a_configuration_with_a_password(tmp_path, mode, loud):
    """Everybody may read it: said at once, with the way out; and it is no secret from then on."""
    conf = tmp_path / "config"
    conf.write_text('[registry "registry.example"]\nusername = ada\npassword = %s\n' % PASSWORD)
    conf.chmod(mode)
    p = subprocess.run([program("hypervisor-vmm"), "doctor", "--config", str(conf)], capture_output=True, text=True)
    said = p.stdout + p.stderr
    assert PASSWORD not in said
    assert ("chmod" in said) == loud, said


def test_a_world_readable_password_is_loud(registry):
    h = Host({"engine": CONFIG, 'registry "registry.example"': {"username": "ada", "password": PASSWORD}})
    with h:
        text = h.log_text()
        assert "may be read by every user" in text and PASSWORD not in text
