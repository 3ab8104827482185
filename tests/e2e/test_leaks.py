"""Small things that leak when nobody looks: a pool's disk under a boot that never came to it, secrets
in files that others may read, other tenants' names in /sys, one cluster's hold on api.internal."""
import os
import signal
import stat
import time

import pytest

from host import Host, Node

ALONE = True  # tests/run: it pins CPUs, of which every host wants all
SHARED = {"engine": {"cpu_overcommit": 100, "memory_overcommit": 20, "disk_overcommit": 100}}


@pytest.fixture(scope="module")
def shared():
    with Host(SHARED) as h:
        h.import_image("tensorone/starter")
        yield h


def until(check, timeout=20):
    end = time.monotonic() + timeout
    while not check():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_boot_that_fails_early_gives_the_pools_disk_back():
    """The CPU belongs to another host's cluster, which shows before the disk gets its name."""
    pinned = {"engine": {"cpu_overcommit": 1, "memory_overcommit": 20, "disk_overcommit": 100,
                         "pool_disks": 1, "grace": "1s"}}
    with Host(pinned) as first, Host(pinned) as second:
        for h in (first, second):
            h.import_image("tensorone/starter")
        holder = first.deploy(dockerArgs="sleep 1000")
        first.wait(holder, lambda c: c["runtime"] or c["desiredStatus"] == "EXITED")
        held = str(next(iter(first.claims("cpus"))))
        disks = second.data / "disks"
        os.kill(second.api_pid(), signal.SIGSTOP)  # it would not choose that CPU
        node = Node(second.id)
        for i in range(4):
            node.assign("b%d" % i, ["sleep", "1000"], cpus=[held])
            node.until(lambda m: m.get("cluster") == "b%d" % i and m.get("cpus_taken"))
            node.remove("b%d" % i)
            until(lambda: list(disks.glob("pool-*.img")))  # the next boot takes a ready one
        until(lambda: len(list(disks.glob("pool-*.img"))) <= 1)
        node.close()
        os.kill(second.api_pid(), signal.SIGCONT)


def test_a_stop_of_the_host_in_the_middle_of_boots_costs_no_cluster():
    """The engine's own orderly end is no failure of the clusters that it was starting."""
    with Host(SHARED) as h:
        h.import_image("tensorone/starter")
        for _ in range(3):
            clusters = [h.deploy(dockerArgs="sleep 1000") for _ in range(5)]
            assert h.stop() == 0
            h.start()
            for c in clusters:
                h.wait_running(c)
            for c in clusters:
                h.terminate(c)


def test_the_journal_is_for_root_alone(shared):
    """Plans hold the variables and the key of a cluster, and others may pass through DIR."""
    for name in ("journal.db", "journal.db-wal", "admin.key"):
        mode = stat.S_IMODE((shared.data / name).stat().st_mode)
        assert mode & 0o077 == 0, "%s: %o" % (name, mode)


def test_loop_devices_name_no_other_cluster(shared):
    other = shared.deploy(dockerArgs="sleep 1000")
    cluster = shared.deploy(dockerArgs="sleep 1000")
    for c in (other, cluster):
        shared.wait_running(c)
    script = "ls /sys/devices/virtual/block; cat /sys/block/*/loop/backing_file"
    seen = shared.exec(cluster, "sh", "-c", script + " 2>/dev/null || true")
    assert other not in getattr(seen, "stdout", seen) and "loop" not in getattr(seen, "stdout", seen)


def test_a_cluster_cannot_take_all_of_api_internal(shared):
    noisy, quiet = (shared.deploy(dockerArgs="sleep 1000") for _ in range(2))
    for c in (noisy, quiet):
        shared.wait_running(c)
    ask = "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | timeout 5 nc -w 4 api.internal 80 | head -n 1"
    hold = "i=0; while [ $i -lt 100 ]; do (sleep 20 | nc api.internal 80 &) ; i=$((i+1)); done"
    shared.exec(noisy, "sh", "-c", hold + " >/dev/null 2>&1; sleep 1")
    answers = [shared.exec(c, "sh", "-c", ask + " || true") for c in (noisy, quiet)]
    texts = [getattr(a, "stdout", a) for a in answers]
    assert "HTTP/1.1" not in texts[0] and "HTTP/1.1" in texts[1], texts


def test_images_are_mounted_while_they_have_clusters():
    """Once for all of them, and for some seconds longer; an engine that starts has none."""
    with Host({"engine": dict(SHARED["engine"], pool_networks=0, pool_disks=0)}) as h:
        h.import_image("tensorone/starter")
        first, second = (h.deploy(dockerArgs="sleep 1000") for _ in range(2))
        for c in (first, second):
            h.wait_running(c)
        assert len(h.mounted_images()) == 1
        h.terminate(first)
        time.sleep(5)
        assert len(h.mounted_images()) == 1
        h.terminate(second)
        until(lambda: not h.mounted_images(), 15)
        with h.running("sleep", "1000"):
            assert len(h.mounted_images()) == 1
            h.kill()  # its namespace goes, and the mount with it; the cluster has its own
            h.start()
            with h.running("sleep", "1000"):
                assert len(h.mounted_images()) == 1
