"""Whole CPUs given to a cluster that runs and taken from it: cpuset, claims and reservations agree."""
import os
import signal

import pytest

from crash import revive
from host import Host
from test_update import changed, first, group_dir, refused, settled, update, view  # noqa: F401

ALONE = True  # tests/run: it pins CPUs, of which every host wants all
CPUS = sorted(os.sched_getaffinity(0))


@pytest.fixture(scope="module")
def host():
    with Host({"engine": {"pool_networks": 0, "pool_disks": 0, "grace": "1s", "memory_overcommit": 20,
                          "disk_overcommit": 100}}) as h:
        h.import_image("tensorone/starter")
        yield h


@pytest.fixture
def cluster(host):
    with host.running("sh", "-c", "sleep 1000 & sleep 1000") as c:
        yield c


def cpuset(host, cluster):
    text = group_dir(host, cluster, "cpuset.cpus").read_text().strip()
    found = set()
    for part in text.split(","):
        a, _, b = part.partition("-")
        found |= set(range(int(a), int(b or a) + 1))
    return found


def claimed(host, cluster):
    return {n for n, c in host.claims("cpus").items() if c == cluster}


def check(host, cluster, n):
    cpus = cpuset(host, cluster)
    assert len(cpus) == n and cpus == claimed(host, cluster)
    for pid in host.pids(cluster):
        assert os.sched_getaffinity(pid) == cpus
    return cpus


def test_grow_and_shrink(host, cluster):
    was, one = first(host, cluster), check(host, cluster, 1)
    changed(host, cluster, vcpuCount=len(CPUS))
    assert check(host, cluster, len(CPUS)) >= one
    refused(host, cluster, "not enough room", vcpuCount=len(CPUS) + 1)
    changed(host, cluster, vcpuCount=1)
    assert check(host, cluster, 1) == one  # what it had first stays
    assert first(host, cluster) == was


def test_what_another_one_has_is_not_given(host, cluster):
    if len(CPUS) < 2:
        pytest.fail("one CPU is not enough to see anything")
    with host.running("sleep", "1000", minVcpuCount=len(CPUS) - 1) as other:
        refused(host, cluster, "not enough room", "0 free" if len(CPUS) == 1 else "free",
                vcpuCount=2)
        mine = check(host, cluster, 1)
        assert not mine & check(host, other, len(CPUS) - 1)
    changed(host, cluster, vcpuCount=2)
    check(host, cluster, 2)


def test_killed_between(host, cluster):
    was = first(host, cluster)
    for n in (2, 1, 2, 1, 2, 1):
        update(host, cluster, vcpuCount=n)
        host.kill()
        revive(host)
        assert settled(host, cluster)["vcpuCount"] == n
        check(host, cluster, n)
    for n in (2, 1, 2, 1):
        update(host, cluster, vcpuCount=n)
        os.kill(host.api_pid(), signal.SIGKILL)
        revive(host)
        settled(host, cluster)
        check(host, cluster, n)
    assert first(host, cluster) == was


def test_nothing_stays_claimed(host, cluster):
    changed(host, cluster, vcpuCount=2)
    update(host, cluster, vcpuCount=1)
    host.call("clusterStop", cluster)
    host.wait_exited(cluster)
    host.wait_held(host.kept(cluster))
    assert not claimed(host, cluster)
