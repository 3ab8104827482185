"""A data directory on a file system without a byte left: nothing new begins, and a sentence says why;
what runs goes on, and can be stopped and removed, also after a kill; the journal and the store take
their own space, which no tenant can fill."""
import contextlib
import os
import pathlib
import shutil
import subprocess
import tempfile
import time

import pytest

from crash import alive, wait_until
from host import ApiError, Host

CONFIG = {"engine": {"cpu_overcommit": 100, "memory_overcommit": 50, "disk_overcommit": 100,
                     "pool_networks": 0, "pool_disks": 0, "grace": "200ms", "log_level": "debug"}}
SLEEP = "sleep 1000"
FULL = "Host disk full: less than 128 MiB are free for its data directory."


class SmallDisk:
    """A file system of its own that can be filled to the last byte."""

    def __init__(self, size=3 << 30):
        self.top = pathlib.Path(tempfile.mkdtemp(prefix="hvmm-test.", dir="/var/tmp"))
        image, self.point = self.top / "image", self.top / "mnt"
        self.point.mkdir()
        with open(image, "wb") as f:
            f.truncate(size)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(image)], check=True)
        subprocess.run(["mount", "-o", "loop", str(image), str(self.point)], check=True)

    def close(self):
        subprocess.run(["umount", str(self.point)], check=True)
        shutil.rmtree(self.top)

    def fill(self):
        """Every block is taken afterwards."""
        fd = os.open(self.point / "filler", os.O_CREAT | os.O_WRONLY)
        step, at = 1 << 28, os.fstat(fd).st_size
        while step >= 4096:
            try:
                os.posix_fallocate(fd, at, step)
                at += step
            except OSError:
                step //= 2
        os.fsync(fd)
        os.close(fd)

    def empty(self):
        (self.point / "filler").unlink(missing_ok=True)

    def free(self):
        fs = os.statvfs(self.point)
        return fs.f_bavail * fs.f_frsize


@pytest.fixture
def disk():
    d = SmallDisk()
    try:
        yield d
    finally:
        d.close()


@pytest.fixture
def host(disk):
    h = Host(CONFIG)
    h.data = disk.point / "data"  # its log and our configuration lie elsewhere
    with h, contextlib.ExitStack() as first:
        first.callback(disk.empty)  # so that a test that failed can be tidied up
        h.import_image("tensorone/starter")
        yield h


def refused(host, call):
    try:
        done = call()
    except ApiError as e:
        assert e.status == 200
        return e.errors[0]["message"]
    raise AssertionError("done, not refused: %r; %s\n%s" % (
        done, [(c["id"], c["phase"], c["reason"]) for c in host.clusters()], host.log_text()[-5000:]))


def says_full(host):
    """What a deployment that can not fit in any case is told."""
    return FULL in refused(host, lambda: host.deploy(dockerArgs=SLEEP, minVcpuCount=1000))


def settle(disk, host):
    """Full, and the host knows it: not a byte came free from before its last look to now."""
    def still_full():
        disk.fill()
        time.sleep(2.2)  # it looks every two seconds
        return disk.free() < 1 << 20 and says_full(host)
    wait_until(still_full, 60, "a disk that stays full")


def test_stop_and_terminate_go_through(disk, host):
    # one that takes whatever becomes free, as soon as it is
    greedy = host.deploy(containerDiskInGb=3, dockerArgs="sh -c 'i=0; while :; do i=$((i+1)); "
                         "dd if=/dev/zero of=/fill$((i%2)) bs=1M count=3000; sync; done'")
    stop = [host.deploy(dockerArgs=SLEEP, volumeInGb=1) for _ in range(3)]
    gone = [host.deploy(dockerArgs=SLEEP) for _ in range(3)]
    exits = host.deploy(dockerArgs="sh -c 'sleep 1; exit 7'")
    for c in [greedy, *stop, *gone]:
        host.wait_running(c)
    settle(disk, host)
    message = refused(host, lambda: host.deploy(dockerArgs=SLEEP))
    assert "no longer any instances available with enough disk space. " + FULL in message
    for c in stop[:2]:
        host.call("clusterStop", c)
        host.wait_exited(c)
        disk.fill()
    settle(disk, host)
    assert FULL in refused(host, lambda: host.call("clusterResume", stop[0]))
    assert FULL in refused(host, lambda: host.call("clusterEditJob", stop[2], imageName="tensorone/starter",
                                             dockerArgs="sleep 1"))
    assert host.cluster(stop[2])["runtime"], "a refused change changes nothing"
    for c in gone[:2]:
        host.terminate(c)
        wait_until(lambda: c not in host.journal(), what="the end of %s" % c)
        disk.fill()
    assert host.cluster(greedy)["desiredStatus"] == "RUNNING"
    row = host.journal()[stop[2]]
    # a crash now: it starts on the full disk, finds what runs, and lets go of it
    host.kill()
    disk.fill()
    host.start()
    assert alive(row["monitor_pid"]) and alive(row["init_pid"])
    wait_until(lambda: says_full(host), 60, "the sentence")
    host.call("clusterStop", stop[2])
    host.wait_exited(stop[2])
    disk.fill()
    host.terminate(gone[2])
    wait_until(lambda: gone[2] not in host.journal(), what="its end")
    for c in (greedy, exits, *stop):
        host.terminate(c)
        disk.fill()
    host.wait_released()
    wait_until(lambda: not host.journal(), what="an empty journal")
    assert host.clusters() == []
    assert "disk I/O error" not in host.log_text()
    # room again
    disk.empty()
    wait_until(lambda: not says_full(host), 60, "room")
    with host.running("sh", "-c", SLEEP):
        pass


TEMPLATE = """mutation($input: SaveTemplateInput) { saveTemplate(input: $input) { id } }"""


def test_the_log_goes_round_on_a_full_disk(disk, host):
    """More is written than was kept: the space of what is done with is used again."""
    ids = [host.deploy(dockerArgs=SLEEP, env=[{"key": "A", "value": "b" * 60000}])
           for _ in range(12)]
    for c in ids:
        host.wait_running(c)
    settle(disk, host)
    template = {"name": "t", "imageName": "x", "containerDiskInGb": 1, "volumeInGb": 0,
                "dockerArgs": "", "env": [], "readme": "r" * 100000}
    assert FULL in refused(host, lambda: host.gql(TEMPLATE, {"input": template}))
    for n in range(500):  # some pages each
        answer = host.rest("POST", "/v1/accounts", json={"name": "account %d" % n})
        assert answer.status_code == 201, answer.text
    for c in ids:  # each row 120 kB and more, in either database
        host.call("clusterStop", c)
    for c in ids:
        host.wait_exited(c)
        disk.fill()
    for c in ids:
        host.terminate(c)
    wait_until(lambda: not host.journal(), what="an empty journal")
    disk.empty()
    wait_until(lambda: not says_full(host), 60, "room")
    host.gql(TEMPLATE, {"input": template})
    with host.running("sh", "-c", SLEEP):
        pass
