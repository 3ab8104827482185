"""Limits bite, and only inside: vCPUs, memory, pids, disks, /dev/shm, devices; what does not fit is
refused with the constraint that failed; what may grow grows."""
import os
import re
import signal
import subprocess
import time

import pytest

from host import ApiError, Host, Node

ALONE = True  # tests/run: it pins CPUs, of which every host wants all
CPUS = len(os.sched_getaffinity(0))


@pytest.fixture(scope="module")
def strict():
    """Nothing is sold twice."""
    with Host({"engine": {"pool_networks": 0, "pool_disks": 0, "grace": "1s"}}) as h:
        h.import_image("tensorone/starter")
        yield h


@pytest.fixture(scope="module")
def shared():
    """Overcommitted: clusters share CPUs by quota."""
    with Host({"engine": {"pool_networks": 0, "pool_disks": 0, "grace": "1s", "cpu_overcommit": 100,
                          "memory_overcommit": 20, "disk_overcommit": 100}}) as h:
        h.import_image("tensorone/starter")
        yield h


@pytest.fixture(autouse=True)
def nothing_held(request):
    hosts = [request.getfixturevalue(n) for n in ("strict", "shared") if n in request.fixturenames]
    yield
    for h in hosts:
        for c in h.clusters():
            h.terminate(c["id"])
        h.wait_held(set())


def no_room(host, *words, **fields):
    with pytest.raises(ApiError) as e:
        host.deploy(**fields)
    message = e.value.errors[0]["message"]
    assert "no longer any instances available" in message and e.value.status == 200
    for word in words:
        assert word in message, message


def inside(host, cluster, script, check=True):
    return host.exec(cluster, "sh", "-c", script, check=check)


def group_file(host, cluster, name):
    """A file of the cluster's cgroup, in whichever hierarchy has it."""
    for root in host.slice_roots():
        path = root / ("c%d" % host.slot(cluster)) / name
        if path.exists():
            return path
    raise RuntimeError("no group has " + name)


def cpu_seconds(host, cluster):
    """What the cluster's processes used so far; exact, from the group."""
    try:
        return int(group_file(host, cluster, "cpuacct.usage").read_text()) / 1e9
    except RuntimeError:
        text = group_file(host, cluster, "cpu.stat").read_text()
        return int(re.search(r"usage_usec (\d+)", text).group(1)) / 1e6


def quota(host, cluster):
    """CPUs that the group may use at once."""
    try:
        return int(group_file(host, cluster, "cpu.cfs_quota_us").read_text()) / \
            int(group_file(host, cluster, "cpu.cfs_period_us").read_text())
    except RuntimeError:
        limit, period = group_file(host, cluster, "cpu.max").read_text().split()
        return int(limit) / int(period)


# ---- CPUs --------------------------------------------------------------------------------------

def test_vcpus_are_pinned_and_exclusive(strict):
    with strict.running("sh", "-c", "nproc; exec sleep 1000", minVcpuCount=CPUS - 1) as a, \
            strict.running("sleep", "1000") as b:
        pinned_a, pinned_b = (os.sched_getaffinity(strict.first_pid(c)) for c in (a, b))
        assert len(pinned_a) == CPUS - 1 and len(pinned_b) == 1 and not pinned_a & pinned_b
        assert strict.claims("cpus") == {**{n: a for n in pinned_a}, **{n: b for n in pinned_b}}
        assert strict.wait_log(a, "\n") == "%d\n" % (CPUS - 1)
        assert inside(strict, b, "nproc; echo $RUNPOD_CPU_COUNT $TENSORONE_CPU_COUNT").stdout == "1\n1 1\n"
        # root inside cannot widen it
        inside(strict, b, "taskset -p 0xffffffff 1; taskset -p 0xffffffff $$; true")
        assert os.sched_getaffinity(strict.first_pid(b)) == pinned_b
        assert inside(strict, b, "taskset 0xffffffff nproc || nproc").stdout == "1\n"
        # two busy loops have one CPU
        began, used = time.perf_counter(), cpu_seconds(strict, b)
        inside(strict, b, "for i in 1 2; do timeout 1 sh -c 'while :; do :; done' & done; wait; true")
        took = time.perf_counter() - began
        assert cpu_seconds(strict, b) - used <= took * 1.05
        no_room(strict, "minVcpuCount: 1 vCPUs wanted, 0 free on a host of %d (cpu_overcommit 1)" % CPUS)
        # as soon as one is released, it is sold again
        strict.call("clusterStop", b)
        strict.wait_exited(b)
        with strict.running("sleep", "1000") as c:
            assert os.sched_getaffinity(strict.first_pid(c)) == pinned_b
            with pytest.raises(ApiError, match="not enough room on the host.*minVcpuCount"):
                strict.call("clusterResume", b)
        strict.call("clusterResume", b)
        strict.wait_running(b)


def test_vcpus_by_quota(shared):
    with shared.running("sleep", "1000", minVcpuCount=1) as c:
        assert len(os.sched_getaffinity(shared.first_pid(c))) == CPUS
        began, used = time.perf_counter(), cpu_seconds(shared, c)
        inside(shared, c, "for i in 1 2 3; do timeout 2 sh -c 'while :; do :; done' & done; wait; true")
        took = time.perf_counter() - began
        assert cpu_seconds(shared, c) - used <= took * 1.1, "more than one CPU"
        assert quota(shared, c) == 1.0  # on a busy machine nobody gets more than that anyhow
    with shared.running("sleep", "1000", minVcpuCount=3) as c:
        assert quota(shared, c) == 3.0
    no_room(shared, "minVcpuCount: 1000 vCPUs wanted", "cpu_overcommit 100", minVcpuCount=1000)


# ---- memory ------------------------------------------------------------------------------------

def hog(mib):
    """A shell's command that has so much memory in use at once."""
    return "dd if=/dev/zero of=/dev/null bs=%dM count=1" % mib


def test_memory_ends_what_overflows_inside(shared):
    with shared.running("sleep", "1000") as other, shared.running("sleep", "1000") as c:
        neighbour, first = shared.first_pid(other), shared.first_pid(c)
        assert inside(shared, c, hog(1100), check=False).returncode == 137
        assert shared.first_pid(c) == first and shared.first_pid(other) == neighbour
        assert inside(shared, c, "echo still here; echo $RUNPOD_MEM_GB").stdout == "still here\n1\n"
        # files in memory count too, and cannot get around it
        assert inside(shared, c, hog(700)).returncode == 0
        done = inside(shared, c, "dd if=/dev/zero of=/dev/shm/x bs=1M count=400 2>&1; " + hog(700), check=False)
        assert done.returncode == 137
        assert shared.cluster(other)["runtime"]


def test_memory_of_the_first_process(shared):
    with shared.running("sh", "-c", "echo begun; exec " + hog(1100)) as c:
        seen = shared.wait(c, lambda k: k["phase"] == "backoff", 60)
        assert re.match(r"out of memory: the cluster reached its 1024 MiB and the main process was "
                        r"killed by signal 9 \(Killed\); restarting in \d s", seen["reason"])
        assert "out of memory" in shared.cli("get", "cluster", c, "-a").stdout


# ---- pids --------------------------------------------------------------------------------------

def test_pids(shared):
    """A plan's limit, straight through the node protocol; the API's default is far above."""
    with shared.running("sleep", "1000") as c:
        kernel = min(int(open("/proc/sys/kernel/" + n).read()) for n in ("pid_max", "threads-max"))
        assert int(group_file(shared, c, "pids.max").read_text()) == min(32768, kernel // 4)
    api = shared.api_pid()
    os.kill(api, signal.SIGSTOP)  # it would ask for its place back
    try:
        node = Node(shared.id)
        try:
            bomb = "(i=0; while [ $i -lt 200 ]; do sleep 1000 & i=$((i+1)); done; echo all); exec sleep 1000"
            node.assign("pids1", ["sh", "-c", bomb], pids=50)
            node.until(lambda m: m.get("cluster") == "pids1" and m.get("state") == "running")
            log = shared.data / "clusters/pids1/log.0"
            end = time.monotonic() + 10
            while "fork" not in log.read_text():
                assert time.monotonic() < end, log.read_text()
                time.sleep(0.02)
            assert 45 <= len(shared.pids("pids1")) <= 50
            assert "all" not in log.read_text()
        finally:
            node.remove("pids1")
            node.close()
    finally:
        os.kill(api, signal.SIGCONT)
    end = time.monotonic() + 10
    while shared.rest("GET", "/health").status_code != 200:
        assert time.monotonic() < end
        time.sleep(0.05)


# ---- disks -------------------------------------------------------------------------------------

GIB = 1 << 30


def test_container_disk_is_full_at_its_size(shared):
    free = os.statvfs(shared.data).f_bavail
    with shared.running("sleep", "1000", containerDiskInGb=1) as c:
        done = inside(shared, c, "dd if=/dev/zero of=/big bs=1M count=1100 2>&1; stat -c %s /big", check=False)
        assert "No space left on device" in done.stdout
        assert 0.85 * GIB < int(done.stdout.split()[-1]) <= GIB
        assert "No space left" in inside(shared, c, "dd if=/dev/zero of=/more bs=1M count=9 2>&1; true").stdout
        assert shared.cluster(c)["runtime"], "it goes on"
        assert inside(shared, c, "rm /big; echo x > /y; cat /y").stdout == "x\n"
        size = int(inside(shared, c, "df -k / | tail -1").stdout.split()[1])
        assert 0.85 * (1 << 20) < size <= 1 << 20
    block = os.statvfs(shared.data)
    assert (free - block.f_bavail) * block.f_frsize < 300 << 20, "given back to the host"


def test_volume_is_full_at_its_size(shared):
    with shared.running("sleep", "1000", volumeInGb=1, volumeMountPath="/data") as c:
        done = inside(shared, c, "fallocate -l 1500m /data/big 2>&1; rm /data/big; fallocate -l 600m /data/half"
                      "&& echo half")
        assert "No space left" in done.stdout and done.stdout.endswith("half\n")
        assert "No space left" in inside(shared, c, "fallocate -l 600m /data/more 2>&1; true").stdout
        assert inside(shared, c, "echo x > /y && rm /y && echo free").stdout == "free\n", "disks are apart"


def test_shm(shared):
    """Half of the memory."""
    with shared.running("sleep", "1000") as c:
        done = inside(shared, c, "dd if=/dev/zero of=/dev/shm/x bs=1M count=700 2>&1; stat -c %s /dev/shm/x;"
                      "stat -c %a /dev/shm", check=False)
        assert "No space left on device" in done.stdout
        assert done.stdout.split()[-2:] == [str(GIB // 2), "1777"]


# ---- devices -----------------------------------------------------------------------------------

def test_devices(shared, tmp_path):
    with shared.running("sleep", "1000", volumeInGb=1) as c:
        usual = inside(shared, c, "for d in null zero full random urandom tty; do test -c /dev/$d || echo no $d;"
                       "done; head -c 4 /dev/urandom | wc -c; echo x > /dev/null; head -c 1 /dev/full | wc -c")
        assert usual.stdout == "4\n1\n"
        assert "not permitted" in inside(shared, c, "mknod /workspace/kmsg c 1 11 2>&1; true").stdout
        assert inside(shared, c, "ls /dev/kmsg /dev/mem /dev/vda /dev/kvm /dev/fuse /dev/loop0 2>/dev/null; true"
                      ).stdout == ""
        shared.call("clusterStop", c)
        shared.wait_exited(c)
        # somebody gets nodes onto the volume all the same
        point = tmp_path / "volume"
        point.mkdir()
        subprocess.run(["mount", "-o", "loop", shared.data / "volumes" / (c + ".img"), point], check=True)
        try:
            for name, minor in (("kmsg", 11), ("null", 3)):
                os.mknod(point / name, 0o20666, os.makedev(1, minor))
        finally:
            subprocess.run(["umount", point], check=True)
        shared.call("clusterResume", c)
        shared.wait_running(c)
        for name in ("kmsg", "null"):
            done = inside(shared, c, "cat /workspace/%s" % name, check=False)
            assert done.returncode != 0 and ("not permitted" in done.stderr or "denied" in done.stderr), done
        # the group itself refuses, also where no mount option stands in the way
        group = shared.slice_roots()
        script = "for g in %s; do test -e $g/tasks && echo 0 > $g/tasks || echo 0 > $g/cgroup.procs; done;" \
            "head -c 1 /dev/zero > /dev/null && echo zero; exec head -c 0 /dev/kmsg" % " ".join(
                str(g / ("c%d" % shared.slot(c))) for g in group)
        done = subprocess.run(["sh", "-c", script], capture_output=True, text=True)
        assert done.stdout == "zero\n" and "not permitted" in done.stderr, done
        with open("/dev/kmsg", "rb"):
            pass  # from outside it opens


# ---- what does not fit, what grows -------------------------------------------------------------

def test_what_does_not_fit_is_refused(strict):
    memory = int(re.search(r"MemTotal:\s+(\d+)", open("/proc/meminfo").read()).group(1)) // (1 << 20)
    disk = os.statvfs(strict.data)
    disk_gib = disk.f_blocks * disk.f_frsize // GIB
    no_room(strict, "minMemoryInGb: %d GB wanted" % (memory + 1), "memory_overcommit 1",
            minMemoryInGb=memory + 1)
    no_room(strict, "containerDiskInGb + volumeInGb: %d GB wanted" % (disk_gib + 1), "disk_overcommit 1",
            "enough disk space", containerDiskInGb=disk_gib, volumeInGb=1)
    part = memory // 2 + 1  # twice that is never there
    with strict.running("sleep", "1000", minMemoryInGb=part) as a:
        no_room(strict, "minMemoryInGb: %d GB wanted" % part, minMemoryInGb=part)
        strict.call("clusterStop", a)
        strict.wait_exited(a)
        with strict.running("sleep", "1000", minMemoryInGb=part):
            with pytest.raises(ApiError, match="not enough room on the host.*minMemoryInGb"):
                strict.call("clusterResume", a)
    # a stopped cluster's volume stays sold, its container disk does not
    sold = disk_gib_sold(strict)
    with strict.running("sleep", "1000", volumeInGb=1, containerDiskInGb=1) as a:
        assert disk_gib_sold(strict) == sold + 2
        strict.call("clusterStop", a)
        strict.wait_exited(a)
        assert disk_gib_sold(strict) == sold + 1
        volume = strict.data / "volumes" / (a + ".img")
        assert volume.stat().st_blocks * 512 >= GIB, "allocated in full"
    end = time.monotonic() + 5
    while disk_gib_sold(strict) != sold:  # the report comes after the release
        assert time.monotonic() < end
        time.sleep(0.05)
    # through the command line, which moves on only for want of an instance
    done = strict.cli("create", "cluster", "--gpuCount", "0", "--imageName", "tensorone/starter", "--mem",
                      str(memory + 1), check=False)
    assert done.returncode == 1 and "minMemoryInGb" in done.stderr


def disk_gib_sold(host):
    """As a refusal says it.  What is free alone moves with what others write on the same file system."""
    with pytest.raises(ApiError) as e:
        host.deploy(containerDiskInGb=65536)
    free, size = re.search(r"(\d+) GB free on a host of (\d+)", e.value.errors[0]["message"]).groups()
    return int(size) - int(free)


def edit(host, cluster, **fields):
    return host.gql("mutation($input: ClusterEditJobInput!) { clusterEditJob(input: $input) "
                    "{ volumeInGb containerDiskInGb env desiredStatus } }",
                    {"input": dict(fields, clusterId=cluster)})["clusterEditJob"]


def test_elastic_cluster(shared):
    """A bigger volume grows in place, with what is in it."""
    def kib(path):
        return int(inside(shared, c, "df -k %s | tail -1" % path).stdout.split()[1])

    with shared.running("sh", "-c", "echo V=$V; exec sleep 1000", volumeInGb=1) as c:
        inside(shared, c, "head -c 50000000 /dev/urandom > /workspace/data; sha256sum /workspace/data > /workspace/sum")
        first = shared.first_pid(c)
        assert edit(shared, c, volumeInGb=3)["volumeInGb"] == 3
        shared.wait_new_first(c, first)
        assert inside(shared, c, "sha256sum -c /workspace/sum").stdout.endswith(": OK\n")
        assert 2.7 * (1 << 20) < kib("/workspace") <= 3 << 20
        for smaller in (1, 2):
            with pytest.raises(ApiError, match="volumeInGb: %d is less than the 3 GB it has" % smaller):
                edit(shared, c, volumeInGb=smaller)
        # stopped: it grows with the next start; other things change too
        shared.call("clusterStop", c)
        shared.wait_exited(c)
        edit(shared, c, volumeInGb=4, containerDiskInGb=2, env=[{"key": "V", "value": "new"}])
        shared.call("clusterResume", c)
        shared.wait_running(c)
        shared.wait_log(c, "V=new")
        assert 3.6 * (1 << 20) < kib("/workspace") <= 4 << 20 and 1.7 * (1 << 20) < kib("/") <= 2 << 20
        assert inside(shared, c, "sha256sum -c /workspace/sum").stdout.endswith(": OK\n")
        with pytest.raises(ApiError, match="enough room.*volumeInGb"):
            edit(shared, c, volumeInGb=65000)
        assert shared.cluster(c)["volumeInGb"] == 4 and shared.cluster(c)["runtime"]
