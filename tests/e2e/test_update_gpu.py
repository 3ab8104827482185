"""GPUs come to a cluster that runs and go again: the first process stays, the new nodes open and the old
ones do not, /proc/driver and the driver's files follow, nothing is sold twice, and what is killed in
between ends in the one or the other.  With the simulated driver: an open that the device rules let
through answers ENXIO there, one that they refuse EPERM."""
import contextlib
import os
import random
import threading
import time

import pytest
import requests

import host as hosts
import inventory
from crash import revive, wait_until
from host import ApiError, Host
from test_update import (changed, first, inside, kill_api, kill_engine, kill_operation,  # noqa: F401
                         refused, revived, settled, update, view)

TYPE = "NVIDIA GeForce RTX 3090"
CHECK_S = 40  # a GPU that was taken away is looked at before its change is answered


@pytest.fixture(scope="module")
def host():
    with Host({"engine": {"pool_networks": 0, "pool_disks": 0, "grace": "1s", "cpu_overcommit": 100,
                          "memory_overcommit": 20, "disk_overcommit": 100,
                          "gpu_driver": "simulated:3090x8"}}) as h:
        h.import_image("tensorone/starter")
        yield h


@contextlib.contextmanager
def cluster_with(host, gpus, *command, **more):
    more.setdefault("minMemoryInGb", 1)
    c = host.deploy(gpuCount=gpus, gpuTypeId=TYPE,
                    dockerArgs=" ".join(command) or "sleep 100000", **more)
    try:
        host.wait_running(c)
        yield c
    finally:
        host.terminate(c)
        end = time.monotonic() + CHECK_S
        while claimed(host, c):
            assert time.monotonic() < end, host.log_text()[-3000:]
            time.sleep(0.05)


def uuids(host, cluster):
    found = host.gql("query($id: String!) { cluster(input: {clusterId: $id}) { gpus { id } } }",
                     {"id": cluster})["cluster"]["gpus"]
    return [g["id"] for g in found]


def states(host):
    return {g["id"]: g["state"] for g in host.gql("{ gpus { id state } }")["gpus"]}


def claimed(host, cluster):
    found = set()
    for f in (hosts.RUN / "gpus").iterdir():
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            words = f.read_text().split()
            if words[:2] == [host.id, cluster] and f.name[0] != ".":
                found.add(f.name)
    return found


def gpu_count(host, cluster, n):
    update(host, cluster, gpuCount=n)
    v = settled(host, cluster, CHECK_S)
    assert v["updateRefused"] is None and v["gpuCount"] == n, v
    return v


def nodes(host, cluster):
    """GPU nodes inside: {name: what an open says}."""
    out = inside(host, cluster, """
        for n in /dev/nvidia[0-9]* /dev/nvidiactl; do
            [ -c $n ] && { (exec < $n) 2>&1 || true; } | sed "s|.*: |$n |; s|^$|$n ok|"; done; true""").stdout
    found = {}
    for line in out.strip().split("\n"):
        if line:
            name, _, said = line.partition(" ")
            found[name.rsplit("/", 1)[1]] = said
    return found


def numbers(names):
    return {n for n in names if n[6:].isdigit()}


def proc_gpus(host, cluster):
    return inside(host, cluster, "ls /proc/driver/nvidia/gpus 2> /dev/null || true").stdout.split()


def check(host, cluster, n):
    """@n GPUs, and everything says so."""
    ids = uuids(host, cluster)
    assert len(ids) == n and len(set(ids)) == n
    there = nodes(host, cluster)
    assert len(numbers(there)) == n, there
    assert ("nvidiactl" in there) == (n > 0)
    for said in there.values():
        assert "No such device or address" in said, there
    assert len(proc_gpus(host, cluster)) == n
    assert claimed(host, cluster) == set(ids)
    return set(ids), set(there)


def test_attach_and_detach(host):
    with cluster_with(host, 1) as c:
        was = first(host, c)
        one, first_nodes = check(host, c, 1)
        before = inside(host, c, "ls -i /dev/nvidia[0-9]*").stdout
        gpu_count(host, c, 3)
        three, _ = check(host, c, 3)
        assert one < three
        # what was there is the very same node
        assert before.strip() in inside(host, c, "ls -i /dev/nvidia[0-9]*").stdout
        gpu_count(host, c, 2)
        two, _ = check(host, c, 2)
        assert two < three
        gpu_count(host, c, 0)
        check(host, c, 0)
        gpu_count(host, c, 8)
        check(host, c, 8)
        refused(host, c, "outside", gpuCount=65)
        with pytest.raises(ApiError) as e:
            update(host, c, gpuCount=9)
        assert "not enough free GPUs" in str(e.value)
        gpu_count(host, c, 1)
        check(host, c, 1)
        assert first(host, c) == was


def opens(host, cluster, rdev):
    """What an open of such a node says inside, made there by the host's root."""
    pid = host.first_pid(cluster)
    node = "/proc/%d/root/dev/planted" % pid
    os.mknod(node, 0o666 | 0o020000, rdev)
    os.chown(node, int(inventory.read("/proc/%d/uid_map" % pid).split()[1]), -1)
    try:
        return inside(host, cluster, "(exec < /dev/planted) 2>&1; true").stdout
    finally:
        os.unlink(node)


def numbers_of(host, cluster):
    """Device numbers of its GPUs."""
    dev = "/proc/%d/root/dev" % host.first_pid(cluster)
    return {os.stat("%s/%s" % (dev, n)).st_rdev for n in os.listdir(dev)
            if n.startswith("nvidia") and n[6:].isdigit()}


def test_only_what_it_has_opens(host):
    with cluster_with(host, 1) as c, cluster_with(host, 1) as other:
        gpu_count(host, c, 4)
        four, theirs = numbers_of(host, c), numbers_of(host, other)
        assert len(four) == 4 and not four & theirs
        for rdev in theirs:
            assert "not permitted" in opens(host, c, rdev)
        gpu_count(host, c, 1)
        one = numbers_of(host, c)
        for rdev in four:
            assert ("No such device" if rdev in one else "not permitted") in opens(host, c, rdev)
        gpu_count(host, c, 0)
        for rdev in four:
            assert "not permitted" in opens(host, c, rdev)


def test_the_first_gpu_of_a_cluster_brings_the_driver(host):
    with cluster_with(host, 0) as c:
        was = first(host, c)
        check(host, c, 0)
        assert inside(host, c, "ls /proc/driver; which nvidia-smi", check=False).stdout == ""
        gpu_count(host, c, 2)
        check(host, c, 2)
        out = inside(host, c, "nvidia-smi -L; ls /usr/lib*/libcuda.so* /usr/lib/*/libcuda.so*; ldconfig -p",
                     check=False).stdout
        assert "libcuda.so.1" in out, out
        gpu_count(host, c, 0)
        check(host, c, 0)
        gpu_count(host, c, 1)
        check(host, c, 1)
        mounts = inside(host, c, "cat /proc/mounts").stdout
        lines = [l for l in mounts.split("\n") if "libcuda" in l or "/proc/driver " in l]
        assert len(lines) == len({l.split()[1] for l in lines}) + 1, lines  # /proc/driver lies on a mask
        assert first(host, c) == was


def test_driver_in_a_read_only_root(host):
    """The files of the first GPU come into a strict cluster that runs, whose root stays closed."""
    with cluster_with(host, 0, securityProfile="strict") as c:
        gpu_count(host, c, 1)
        out = inside(host, c, "nvidia-smi -L; ls /usr/lib*/libcuda.so* /usr/lib/*/libcuda.so*; "
                              "touch /etc/x /x || true; grep ' / / ' /proc/self/mountinfo", check=False)
        assert "GPU 0" in out.stdout and "libcuda.so.1" in out.stdout, out
        assert out.stderr.count("Read-only file system") == 2 and " / / ro," in out.stdout


def test_what_was_taken_does_not_open_by_any_name(host):
    """A hard link, a descriptor of the node, a name of the tenant's own: the rule is the kernel's."""
    with cluster_with(host, 2) as c:
        inside(host, c, "mkdir -p /dev/mine /dev/.a/b/.c; for n in /dev/nvidia[0-9]*; do ln $n /dev/mine/; ln $n $n.link;"
                        " ln $n /dev/.a/b/.c/; done")
        gpu_count(host, c, 1)
        there = nodes(host, c)
        assert len(numbers(there)) == 1
        out = inside(host, c, "for n in $(find /dev -type c -name 'nvidia[0-9]*'); do"
                     " (exec < $n) 2>&1; done; true").stdout
        assert "No such device" in out and "not permitted" not in out, out  # they went with the node


def test_a_tenants_own_things_in_dev_are_in_nobodys_way(host):
    with cluster_with(host, 0) as c:
        inside(host, c, """cd /dev; for i in 0 1 2 3 4 5 6 7; do ln -s /etc/passwd nvidia$i; done
            mkdir nvidiactl; ln -s / nvidia-caps; mkfifo nvidia-uvm""")
        gpu_count(host, c, 1)
        ids, names = check(host, c, 1)
        assert inside(host, c, "test -f /etc/passwd && ls /").returncode == 0
        gpu_count(host, c, 0)
        check(host, c, 0)


@pytest.mark.parametrize("plant, says", [
    ("for i in 0 1 2 3 4 5 6 7; do mkdir -p /dev/nvidia$i/x; done", "gpuCount: /dev/nvidia0 cannot be made inside: Directory not empty"),
    ("i=0; while : > /dev/f$i; do i=$((i+1)); done 2> /dev/null", "cannot be made inside: No space left on device"),
    ("mkdir -p /usr/bin/nvidia-smi/x", "no driver file can be shown at /usr/bin/nvidia-smi: Is a directory"),
    ("mkdir -p /etc; rm -f /etc/ld.so.cache; mkdir -p /etc/ld.so.cache/x", "write /etc/ld.so.cache: Is a directory"),
    ("for d in /usr/lib /usr/lib64 /usr/lib/*-linux-gnu; do mkdir -p $d/libcuda.so.1; done", "/libcuda.so.1: Is a directory")])
def test_what_a_tenant_keeps_in_the_way(host, plant, says):
    """Refused with the reason, and nothing of a GPU is left inside; nobody else loses one."""
    with cluster_with(host, 0) as c:
        was = first(host, c)
        inside(host, c, plant, check=False)
        update(host, c, gpuCount=1)
        v = settled(host, c, CHECK_S)
        assert v["updateRefused"] and says in v["updateRefused"] and v["gpuCount"] == 0, v
        assert not nodes(host, c) and proc_gpus(host, c) == [] and first(host, c) == was
        assert wait_until(lambda: not claimed(host, c), CHECK_S)
        with cluster_with(host, 8) as other:
            check(host, other, 8)


def test_a_first_process_with_another_root(host):
    """Whatever directory it has made its own root: the nodes come where the cluster has its /dev."""
    script = "mkdir -p /jail/dev /jail/bin; cp /bin/busybox /jail/bin/sh 2> /dev/null || cp -r /bin /lib* /jail/;" \
             " exec chroot /jail sh -c 'while :; do read x < /dev/none; done 2> /dev/null'"
    c = host.deploy(gpuCount=0, dockerArgs='{"cmd": ["sh", "-c", "%s"]}' % script, minMemoryInGb=1)
    try:
        host.wait_running(c)
        update(host, c, gpuCount=1)
        v = settled(host, c, CHECK_S)
        assert v["updateRefused"] is None or v["phase"] != "ready", v
    finally:
        host.terminate(c)


def test_everything_at_once(host):
    with cluster_with(host, 1) as c:
        was = first(host, c)
        update(host, c, gpuCount=2, vcpuCount=2, memoryInGb=2)
        v = settled(host, c, CHECK_S)
        assert (v["gpuCount"], v["vcpuCount"], v["memoryInGb"]) == (2, 2, 2)
        check(host, c, 2)
        # what cannot be had takes the GPUs with it
        inside(host, c, "for i in a b c; do dd if=/dev/zero of=/dev/shm/$i bs=1M count=170; done 2> /dev/null")
        before = check(host, c, 2)
        inside(host, c, "dd if=/dev/zero of=/big bs=1M count=1 2> /dev/null")
        gpu_count(host, c, 3)
        update(host, c, gpuCount=1, memoryInGb=1, vcpuCount=4)
        v = settled(host, c, CHECK_S)
        assert v["updateRefused"] is None and before
        check(host, c, 1)
        assert first(host, c) == was


def test_refused_as_a_whole(host):
    with cluster_with(host, 1, minMemoryInGb=2) as c:
        inside(host, c, "dd if=/dev/zero of=/dev/shm/x bs=1M count=980 2> /dev/null")
        before = check(host, c, 1)
        update(host, c, gpuCount=4, memoryInGb=1)
        v = settled(host, c, CHECK_S)
        assert "memoryInGb" in v["updateRefused"] and v["gpuCount"] == 1
        assert wait_until(lambda: claimed(host, c) == before[0], CHECK_S)
        assert check(host, c, 1) == before


def test_one_that_fell_off_the_bus(host):
    """It stays the cluster's, also when a new engine never sees it, and nothing else is in its way: other
    changes are made, no other GPU comes in its place unasked, and it can be given back."""
    faults = hosts.RUN / host.id / "simulated" / "faults"
    with cluster_with(host, 1) as c:
        mine, = uuids(host, c)
        was = first(host, c)
        try:
            faults.write_text("lose %s\n" % mine)
            assert wait_until(lambda: states(host)[mine] == "lost", CHECK_S), states(host)
            changed(host, c, vcpuCount=2)
            host.kill()
            revive(host)
            assert wait_until(lambda: len(states(host)) == 7 and "lost" in (host.cluster(c)["reason"] or ""), CHECK_S)
            changed(host, c, vcpuCount=3)
            assert claimed(host, c) == {mine} and first(host, c) == was
            gpu_count(host, c, 2)  # who asks for GPUs gets such as are there
            assert mine not in check(host, c, 2)[0]
            gpu_count(host, c, 0)
            check(host, c, 0)
        finally:
            faults.write_text("")
            host.kill()
            revive(host)
            assert wait_until(lambda: mine in states(host), CHECK_S), states(host)
        assert states(host)[mine] == "quarantined"
        host.gql("mutation($id: String!) { gpuRelease(input: {gpuId: $id}) { id } }", {"id": mine})
        assert wait_until(lambda: states(host)[mine] == "ok", CHECK_S), states(host)


def test_a_gpu_that_is_not_there_is_refused(host):
    """An engine that is told to attach one which it does not have says so, at once, and goes on."""
    with hosts.our_node(host) as node:
        node.assign("wishful", ["sleep", "1000"])
        node.until(lambda m: m.get("cluster") == "wishful" and m.get("state") == "running")
        node.assign("wishful", ["sleep", "1000"], generation=2, boot=1, gpu_count=1, gpus=["GPU-00000000-none"])
        report, _ = node.until(lambda m: m.get("cluster") == "wishful" and m.get("refused"), 10)
        assert report["generation"] == 2 and report["refused"] == "gpu GPU-00000000-none is not on this host", report
        node.assign("wishful", ["sleep", "1000"], generation=3, boot=1)
        node.until(lambda m: m.get("cluster") == "wishful" and m["generation"] == 3 and not m.get("refused"), 10)
        node.remove("wishful")


def test_two_clusters_never_have_the_same(host):
    with cluster_with(host, 2) as a, cluster_with(host, 2) as b:
        rng = random.Random(3)
        for _ in range(8):
            c = rng.choice((a, b))
            with contextlib.suppress(ApiError):
                update(host, c, gpuCount=rng.randrange(0, 7))
            for x in (a, b):
                settled(host, x, CHECK_S)
            ids_a, _ = check(host, a, len(uuids(host, a)))
            ids_b, _ = check(host, b, len(uuids(host, b)))
            assert not ids_a & ids_b


def test_it_keeps_them_over_restarts_of_the_engine(host):
    with cluster_with(host, 1) as c:
        was = first(host, c)
        gpu_count(host, c, 3)
        before = check(host, c, 3)
        host.kill()
        revive(host)
        assert check(host, c, 3) == before and first(host, c) == was
        gpu_count(host, c, 1)
        check(host, c, 1)


def test_its_next_start_has_what_it_had(host):
    with cluster_with(host, 1) as c:
        gpu_count(host, c, 2)
        before, _ = check(host, c, 2)
        host.call("clusterRestart", c)
        host.wait_running(c, CHECK_S)
        assert check(host, c, 2)[0] == before
        assert inside(host, c, "echo $RUNPOD_GPU_COUNT").stdout.strip() == "2"


def test_a_stopped_one_has_them_at_its_next_start(host):
    with cluster_with(host, 1) as c:
        host.call("clusterStop", c)
        host.wait_exited(c, CHECK_S)
        assert not claimed(host, c)
        assert update(host, c, gpuCount=3)["gpuCount"] == 3
        host.call("clusterResume", c)
        host.wait_running(c, CHECK_S)
        check(host, c, 3)


def test_none_left_for_another(host):
    """What one has taken live is not sold, and what it gives back is."""
    with cluster_with(host, 1) as c:
        gpu_count(host, c, 8)
        with pytest.raises(ApiError) as e:
            host.deploy(gpuCount=1, gpuTypeId=TYPE)
        assert "no longer any instances" in str(e.value)
        gpu_count(host, c, 7)
        with cluster_with(host, 1) as other:
            assert not check(host, other, 1)[0] & check(host, c, 7)[0]
            message = refused(host, c, "not enough free GPUs", gpuCount=8)
            assert "update this cluster" in message


@pytest.mark.limit(400)
@pytest.mark.parametrize("kill", [kill_engine, kill_api, kill_operation])
def test_killed_at_any_instant(host, kill):
    rng = random.Random(kill.__name__)
    with cluster_with(host, 1) as c:
        was = first(host, c)
        for _ in range(8):
            n = rng.randrange(0, 5)
            with contextlib.suppress(ApiError, requests.RequestException, ValueError):
                update(host, c, gpuCount=n)
            time.sleep(rng.random() * 0.04)
            kill(host)
            revived(host)
            v = settled(host, c, CHECK_S)
            assert v["desiredStatus"] == "RUNNING" and v["updateRefused"] is None, v
            check(host, c, v["gpuCount"])
            assert first(host, c) == was
            assert inside(host, c, "echo moves").stdout == "moves\n"  # nobody is held still


def kill_changes(host, cluster, there, over):
    """Every operation from the moment on when there are other nodes than @there."""
    dev = f"/proc/{host.first_pid(cluster)}/root/dev"
    while not over.is_set() and set(os.listdir(dev)) == there:
        pass
    while not over.is_set():
        kill_operation(host)
        if "is refused: " in host.log_text()[over.mark:]:
            return


@pytest.mark.limit(200)
def test_what_may_be_open_stays_until_the_end(host):
    """A change that is killed again and again, once it has let a GPU in, is refused; but the GPU is nobody
    else's while the cluster may have it open, and no restart of the engine forgets that."""
    with cluster_with(host, 1) as c:
        for _ in range(10):
            over = threading.Event()
            over.mark = len(host.log_text())
            there = set(os.listdir(f"/proc/{host.first_pid(c)}/root/dev"))
            t = threading.Thread(target=kill_changes, args=(host, c, there, over))
            t.start()
            try:
                update(host, c, gpuCount=2)
                v = settled(host, c, CHECK_S)
            finally:
                over.set()
                t.join()
            if v["updateRefused"]:
                break
            gpu_count(host, c, 1)  # it was faster
        assert v["gpuCount"] == 1 and v["updateRefused"], v
        assert len(numbers(nodes(host, c))) == 2
        extra, = claimed(host, c) - set(uuids(host, c))
        for again in (False, True):
            if again:
                host.kill()
                revive(host)
            assert wait_until(lambda: states(host).get(extra) == "open", CHECK_S), states(host)
            assert claimed(host, c) == {extra, *uuids(host, c)}
            with pytest.raises(ApiError) as e:
                host.deploy(gpuCount=7, gpuTypeId=TYPE)
            assert "6 of 8 free, 1 out of order" in str(e.value)
        with cluster_with(host, 6) as other:
            check(host, other, 6)
            refused(host, c, "not enough free GPUs", gpuCount=2)
        assert inside(host, c, "echo moves").stdout == "moves\n"
    assert wait_until(lambda: set(states(host).values()) == {"ok"}, CHECK_S), states(host)
