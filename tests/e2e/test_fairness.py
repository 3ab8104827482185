"""One cluster takes all that it can get: it meets its own limit, the cluster beside it goes on, and the
host is clean afterwards.  How much slower the other one becomes is a figure: tests/bench/bench_isolation.py."""
import contextlib
import json
import pathlib
import re
import socket
import subprocess
import time

import pytest

from host import Host

ALONE = True  # tests/run: it takes all that it can get

MIB = 1 << 20
LIMITS = {"io_write": "8M", "io_read": "8M", "io_write_ops": 400, "pids": 300, "log_rate": "1M"}


@pytest.fixture(scope="module")
def host():
    with Host({"engine": {"pool_networks": 0, "pool_disks": 0, "grace": "1s", "cpu_overcommit": 100,
                          "memory_overcommit": 20, "disk_overcommit": 100}, "limits": LIMITS}) as h:
        h.import_image("tensorone/starter")
        yield h


@pytest.fixture
def pair(host):
    """Who takes, and who lives beside it."""
    with host.running("sleep", "100000", volumeInGb=1) as quiet, \
            host.running("sleep", "100000", volumeInGb=1) as loud:
        first = host.first_pid(quiet)
        yield loud, quiet
        assert host.first_pid(quiet) == first
        assert inside(host, quiet, "echo x > /workspace/x && sync /workspace/x && cat /workspace/x") == "x\n"


def inside(host, cluster, script, check=True):
    return host.exec(cluster, "sh", "-c", script, check=check).stdout


def group_file(host, cluster, name, group="c"):
    for root in host.slice_roots():
        path = root / ("%s%d" % (group, host.slot(cluster))) / name
        if path.exists():
            return path
    raise RuntimeError("no group has " + name)


def counter(host, cluster, file, key=None):
    text = group_file(host, cluster, file).read_text()
    return int(re.search(r"(?m)^%s (\d+)" % key, text)[1] if key else text)


def wait(until, what, timeout=60):
    end = time.monotonic() + timeout
    while not until():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def version1(host):
    return any("/memory/" in str(p) + "/" for p in host.slice_roots())


# ---- processes ---------------------------------------------------------------------------------

def test_fork_bomb(host, pair):
    loud, quiet = pair
    bomb = host.session(loud, "sh", "-c", "f() { f | f & }; f; sleep 100000")
    try:
        wait(lambda: counter(host, loud, "pids.events", "max") > 0, "the limit of processes never bit")
        assert counter(host, loud, "pids.current") <= 300
        assert counter(host, quiet, "pids.events", "max") == 0
        assert inside(host, quiet, "for i in 1 2 3; do /bin/true & done; wait; echo forks") == "forks\n"
    finally:
        host.terminate(loud)
        with contextlib.suppress(Exception):
            bomb.finish()


def test_all_clusters_leave_numbers_to_the_host(host):
    kernel = min(int(open("/proc/sys/kernel/" + n).read()) for n in ("pid_max", "threads-max"))
    limits = {int((r / "pids.max").read_text()) for r in host.slice_roots() if (r / "pids.max").exists()}
    assert limits == {kernel // 4 * 3}


# ---- memory ------------------------------------------------------------------------------------

def test_memory_hog(host, pair):
    loud, quiet = pair
    assert host.exec(loud, "tail", "/dev/zero", check=False).returncode == 137
    oom = ("memory.oom_control", "oom_kill") if version1(host) else ("memory.events", "oom_kill")
    assert counter(host, loud, *oom) >= 1 and counter(host, quiet, *oom) == 0
    if not version1(host):
        high, most = (counter(host, loud, "memory." + n) for n in ("high", "max"))
        assert most - 64 * MIB <= high < most


def test_files_without_end(host, pair):
    """Names cost memory of the kernel or inodes; both are its own."""
    loud, quiet = pair
    full = "cd %s && i=0; while mkdir d$i 2>/dev/null && (cd d$i && seq 1 2000 | xargs touch 2>/dev/null); " \
        "do i=$((i+1)); done; df -i . | tail -1 | awk '{print $4}'; rm -rf d*"
    assert int(inside(host, loud, full % "/dev")) < 100
    for where, most in (("/dev", 4096), ("/dev/shm", 512 * MIB // 4096)):
        assert int(inside(host, loud, "df -i %s | tail -1 | awk '{print $2}'" % where)) == most
    # the container disk's inodes are of its size; the host has the file and nothing more
    assert int(inside(host, loud, "df -i / | tail -1 | awk '{print $2}'")) <= 20 * (1 << 30) // 4096
    used = counter(host, loud, "memory.usage_in_bytes" if version1(host) else "memory.current")
    inside(host, loud, "mkdir /dev/shm/n && cd /dev/shm/n && seq 1 60000 | xargs touch")
    now = counter(host, loud, "memory.usage_in_bytes" if version1(host) else "memory.current")
    assert now - used > 60000 * 512, "the kernel's objects are on the cluster's bill"
    assert inside(host, quiet, "touch /dev/shm/y /dev/y /y && echo files") == "files\n"


# ---- disks -------------------------------------------------------------------------------------

def disk_bytes(host, cluster):
    """Bytes that the group wrote to or read from loop devices, as the throttle counts them."""
    if version1(host):
        text = group_file(host, cluster, "blkio.throttle.io_service_bytes").read_text()
        return sum(int(n) for n in re.findall(r"(?m)^7:\d+ (?:Read|Write) (\d+)", text))
    text = group_file(host, cluster, "io.stat").read_text()
    return sum(int(n) for n in re.findall(r"(?m)^7:\d+ .*?rbytes=(\d+)", text)) + \
        sum(int(n) for n in re.findall(r"(?m)^7:\d+ .*?wbytes=(\d+)", text))


@pytest.mark.parametrize("where, how", [("/workspace", "conv=fsync"), ("/root", "oflag=direct")])
def test_disk_hog(host, pair, where, how):
    """Not faster than it may, by what the kernel says was written and the time that it took."""
    loud, quiet = pair
    began, before = time.monotonic(), disk_bytes(host, loud)
    inside(host, loud, "dd if=/dev/zero of=%s/big bs=1M count=32 %s 2>&1" % (where, how))
    took, moved = time.monotonic() - began, disk_bytes(host, loud) - before
    assert moved >= 30 * MIB, "its writes are on its bill"
    assert moved <= 8 * MIB * (took + 1)
    # and the limit stands in the group, for both disks
    name = "blkio.throttle.write_bps_device" if version1(host) else "io.max"
    assert len(re.findall(r"(?m)^7:\d+ .*%d" % (8 * MIB), group_file(host, loud, name).read_text())) == 2
    assert inside(host, quiet, "echo y > /workspace/y && sync && cat /workspace/y") == "y\n"


def test_many_small_writes(host, pair):
    loud, _ = pair
    began = time.monotonic()
    inside(host, loud, "dd if=/dev/zero of=/workspace/small bs=4k count=1200 oflag=direct 2>&1")
    assert 1200 <= 400 * (time.monotonic() - began + 1)


# ---- logs --------------------------------------------------------------------------------------

def test_log_flood(host):
    """Not a line is lost and none is written faster than the rate: the program waits."""
    with host.running("sh", "-c", "seq 1 100000000", volumeInGb=0) as loud, \
            host.running("sh", "-c", "echo here; exec sleep 100000") as quiet:
        log = [host.data / "clusters" / loud / ("log.%d" % i) for i in (0, 1)]

        def size():
            return sum(f.stat().st_size for f in log if f.exists())
        wait(lambda: size() > 32 * MIB, "it writes at once what is within its first 64 MiB")
        monitors = host.pids(loud, "m")
        assert monitors
        host.wait_log(quiet, "here\n")
        assert size() <= 65 * MIB, "two halves"
        lines = host.logs(loud, tail=200).splitlines()
        numbers = [int(n) for n in re.findall(r"(\d+)$", "\n".join(lines), re.M)]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def test_monitor_has_its_clusters_cpus():
    with Host({"engine": {"pool_networks": 0, "pool_disks": 0, "grace": "1s"}}) as h:
        h.import_image("tensorone/starter")
        with h.running("sleep", "1000", minVcpuCount=1) as c:
            own, monitor = (group_file(h, c, "cpuset.cpus", g).read_text() for g in "cm")
            assert own == monitor


# ---- what a user has so many of ----------------------------------------------------------------

def test_terminals_are_its_own(host, pair):
    loud, quiet = pair
    options = pathlib.Path("/proc/%d/mountinfo" % host.first_pid(loud)).read_text()
    assert re.search(r" /dev/pts .*devpts.*max=256", options), options


# ---- what is told ------------------------------------------------------------------------------

def test_limits_and_pressure_are_told(host, pair):
    loud, _ = pair
    selection = "{ cluster(input: {clusterId: \"%s\"}) { security runtime { container { cpuPressurePercent " \
        "memoryPressurePercent ioPressurePercent } } } }" % loud

    def told():
        return host.gql(selection)["cluster"]
    wait(lambda: told()["runtime"] and told()["runtime"]["container"], "no report")
    limits = told()["security"]["limits"]
    assert limits["pids"] == 300 and limits["log_bytes_per_s"] == MIB
    assert limits["io_write_bytes_per_s"] == 8 * MIB and limits["io_write_ops_per_s"] == 400
    assert limits["cpu_weight"] == 20 and limits["memory_bytes"] == 1 << 30
    root = next((r for r in host.slice_roots() if (r / "cpu.pressure").exists()), None)
    if root is None:
        assert any("pressure" in s for s in told()["security"]["missing"])
        return
    wait(lambda: told()["runtime"]["container"]["cpuPressurePercent"] is not None, "no pressure")
    assert all(0 <= v <= 100 for v in told()["runtime"]["container"].values())
    shown = host.cli("get", "cluster", loud, "-a").stdout.splitlines()
    row = dict(zip(*([c.rstrip(" ") for c in line.split("\t")] for line in shown)))
    assert all(re.fullmatch(r"\d+\.\d%", row[kind + " PRESSURE"]) for kind in ("CPU", "MEM", "IO")), shown
    assert re.search(r"(?m)^%s .* \d+/\d+/\d+%% " % loud, host.cli("top", "--times", "1").stdout)
    metrics = host.rest("GET", "/metrics").text
    assert re.search(r'(?m)^hvmm_cluster_pressure_io_ratio\{[^}]*%s' % loud, metrics)


def test_shares_follow_vcpus(host):
    with host.running("sleep", "1000", minVcpuCount=1) as one, host.running("sleep", "1000", minVcpuCount=2) as two:
        name, part = ("cpu.shares", 1024) if version1(host) else ("cpu.weight", 100)
        assert [int(group_file(host, c, name).read_text()) for c in (one, two)] == [part * w // 100 for w in (20, 40)]


@pytest.mark.parametrize("key, value, says", [("io_write", "much", "a size such as"), ("pids", "3", "within its limits"),
                                              ("log_rate", "-1", "a size such as")])
def test_bad_limits_are_refused(tmp_path, key, value, says):
    config = tmp_path / "config"
    config.write_text("[limits]\n%s = %s\n" % (key, value))
    from host import program
    done = subprocess.run([program("hypervisor-vmm"), "standalone", "--data-dir", str(tmp_path / "data"), "--listen",
                           "127.0.0.1:1", "--config",
                           str(config)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0 and "[limits] %s" % key in done.stderr and says in done.stderr, done.stderr


# ---- the host's own work -----------------------------------------------------------------------

def test_clusters_that_will_not_end():
    """Who takes all the time that an orderly end may take leaves places for others' starts and stops."""
    grace = 20
    with Host({"engine": {"pool_networks": 0, "pool_disks": 0, "grace": "%ds" % grace, "cpu_overcommit": 100,
                          "memory_overcommit": 20, "disk_overcommit": 100, "parallel_ops": 4}}) as h:
        h.import_image("tensorone/starter")
        slow = h.new_account("slow")
        stubborn = json.dumps({"cmd": ["sh", "-c", "trap : TERM; while :; do sleep 1; done"]})
        held = [h.deploy(key=slow, dockerArgs=stubborn) for _ in range(4)]
        try:
            for c in held:
                wait(lambda: h.cluster(c, slow)["runtime"], "a cluster does not run")
            for c in held:
                h.call("clusterStop", c, slow)
            begin = time.monotonic()
            other = h.deploy(dockerArgs="sleep 100000")
            h.wait_running(other)
            assert time.monotonic() - begin < grace / 2
            for c in held:
                wait(lambda: h.cluster(c, slow)["phase"] == "exited", "a cluster does not end", 4 * grace)
        finally:
            for c in held:
                h.call("clusterTerminate", c, slow)


def test_queries_of_one(host):
    """Two dozen dear queries, each some 0.3 s of the API's time, begin in one instant: all are answered, and whoever
    asks little does not wait for them."""
    loud, quiet = host.new_account("loud"), host.new_account("quiet")
    for i in range(50):  # rows that each field looks through
        host.post('mutation { clusterTerminate(input: {clusterId: "nobody%d"}) }' % i, key=loud)
    body = json.dumps({"query": "query($i: EventsInput) { %s }" % " ".join("e%d:events(input:$i){time}" % i for i in range(30000)),
                       "variables": {"i": {"kind": "audit", "object": "x", "limit": 1}}})
    request = ("POST /graphql HTTP/1.1\r\nHost: api\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n"
               "Connection: close\r\n\r\n%s" % (loud, len(body), body)).encode()
    with contextlib.ExitStack() as open_ones:
        dear = [open_ones.enter_context(socket.create_connection(host.url.partition("//")[2].split(":"), 120)) for _ in range(24)]
        for s in dear:
            s.sendall(request[:-1])
        assert "myself" in host.gql("{ myself { id } }", key=quiet), "what has been sent is read"
        begin = time.monotonic()
        for s in dear:
            s.sendall(request[-1:])
        assert "myself" in host.gql("{ myself { id } }", key=quiet)
        waited = time.monotonic() - begin
        for s in dear:
            with s.makefile("rb") as f:
                answer = f.read()
            assert b'{"data":{"e0":[],' in answer and b'"e29999":' in answer, answer[-300:]
        assert waited < (time.monotonic() - begin) / 3, waited
