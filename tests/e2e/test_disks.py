"""Container disks and volumes: what is wiped, what is kept, through stop, restart, crash and the
engine's own restarts; who may see what.  Contents are compared by checksum."""
import hashlib
import os
import random
import signal
import subprocess
import time

import pytest

from crash import wait_until
from host import ApiError, Host, program


@pytest.fixture(scope="module")
def host():
    with Host({"engine": {"pool_networks": 0, "pool_disks": 0, "grace": "1s", "cpu_overcommit": 100,
                          "memory_overcommit": 20, "disk_overcommit": 100}}) as h:
        h.import_image("tensorone/starter")
        yield h


@pytest.fixture(autouse=True)
def nothing_held(host):
    yield
    for c in host.clusters():
        host.terminate(c["id"])
    host.wait_held(set())


def sh(host, cluster, script, check=True):
    return host.exec(cluster, "sh", "-c", script, check=check).stdout


def fill(host, cluster, size=30 << 20, seed=7):
    """Random bytes and a few awkward files onto the volume; returns the checksum."""
    data = random.Random(seed).randbytes(size)
    subprocess.run([program("tensoronecli"), "exec", "-i", cluster, "--", "sh", "-c",
                    "mkdir -p '/workspace/a b'; cat > '/workspace/a b/data'; ln -s data '/workspace/a b/link';"
                    "echo me > /workspace/mode; chown 5:6 /workspace/mode; chmod 6751 /workspace/mode;"
                    "mkfifo /workspace/fifo"],
                   input=data, env=host.cli_env(), check=True, timeout=60)
    return hashlib.sha256(data).hexdigest()


def check(host, cluster, digest):
    assert sh(host, cluster, "sha256sum < '/workspace/a b/link'").split()[0] == digest
    assert sh(host, cluster, "stat -c '%u %g %a' /workspace/mode; test -p /workspace/fifo && cat /workspace/mode"
              ) == "5 6 6751\nme\n"


def again(host, cluster, verb):
    """Run @verb and wait for the new first process."""
    old = host.first_pid(cluster) if host.cluster(cluster)["runtime"] else None
    host.call(verb, cluster)
    host.wait_new_first(cluster, old)


def test_container_disk_is_wiped(host):
    with host.running("sh", "-c", "echo found $(cat /mark /etc/mark 2>/dev/null); echo x > /mark;"
                      "echo x > /etc/mark; exec sleep 1000") as c:
        host.wait_log(c, "found\n")
        assert sh(host, c, "cat /mark; rm /bin/zcat; ls /bin/zcat 2>/dev/null; true") == "x\n"
        (disk,) = (host.data / "disks").glob(c + "-*.img")
        host.call("clusterStop", c)
        host.wait_exited(c)
        host.wait_held(host.kept(c))  # the file is gone
        host.call("clusterResume", c)
        host.wait_running(c)
        assert sh(host, c, "ls /bin/zcat") == "/bin/zcat\n", "the image was changed"
        again(host, c, "clusterRestart")
        os.kill(host.first_pid(c), signal.SIGKILL)  # a restart by itself wipes too
        host.wait(c, lambda k: k["runtime"] and host.logs(c).count("found") == 4)
        assert host.logs(c) == "found\n" * 4
        assert not disk.exists()


def test_volume_survives(host):
    with host.running("sleep", "1000", volumeInGb=1) as c:
        digest = fill(host, c)
        host.call("clusterStop", c)
        host.wait_exited(c)
        host.wait_held(host.kept(c, volume=True))
        host.call("clusterResume", c)
        host.wait_running(c)
        check(host, c, digest)
        again(host, c, "clusterRestart")
        check(host, c, digest)
        # a crash of the main process
        first = host.first_pid(c)
        os.kill(first, signal.SIGKILL)
        host.wait_new_first(c, first)
        check(host, c, digest)
        # the volume is where it was asked to be after an edit
        host.gql('mutation { clusterEditJob(input: {clusterId: "%s", volumeMountPath: "/srv/deep/er"}) { id } }' % c)
        host.wait(c, lambda k: k["runtime"] and k["volumeMountPath"] == "/srv/deep/er")
        assert sh(host, c, "sha256sum < '/srv/deep/er/a b/data'; ls /workspace 2>/dev/null; true"
                  ).split()[0] == digest
    assert list((host.data / "volumes").iterdir()) == []


def test_volume_survives_the_engine(host):
    """kill -9 of the engine, then a proper stop, then a kill while the cluster is stopped: the
    cluster goes on running meanwhile, and its data is all there."""
    with host.running("sh", "-c", "i=0; while :; do echo $i > /workspace/beat; i=$((i+1)); usleep 10000; done",
                      volumeInGb=1) as c:
        digest, first = fill(host, c), host.first_pid(c)

        def beats():
            a = sh(host, c, "cat /workspace/beat")
            time.sleep(0.2)
            return int(sh(host, c, "cat /workspace/beat") or 0) > int(a or 0)

        host.restart()  # kill -9
        host.wait_running(c)
        assert host.first_pid(c) == first and beats()
        check(host, c, digest)
        assert host.stop() == 0
        assert os.path.exists("/proc/%d" % first), "a stop of the host is none of the cluster"
        host.start()
        host.wait_running(c)
        assert host.first_pid(c) == first and beats()
        check(host, c, digest)
        host.call("clusterStop", c)
        host.wait_exited(c)
        host.restart()
        assert host.cluster(c)["phase"] == "exited"
        host.wait_held(host.kept(c, volume=True))
        host.call("clusterResume", c)
        host.wait_running(c)
        check(host, c, digest)
        host.kill()
        host.start()
    assert list((host.data / "volumes").iterdir()) == []


def test_killed_while_it_stops(host):
    """The engine dies between the order and its end: the next one finishes it."""
    with host.running("sh", "-c", "trap 'echo term' TERM; while :; do usleep 50000; done", volumeInGb=1) as c:
        digest = fill(host, c, 1 << 20)
        host.call("clusterStop", c)
        time.sleep(0.3)  # within the grace
        host.restart()
        host.wait_exited(c)
        host.wait_held(host.kept(c, volume=True))
        host.call("clusterResume", c)
        host.wait_running(c)
        check(host, c, digest)
        host.terminate(c)
        host.restart()
        host.wait_held(set())


def test_clusters_do_not_see_each_others(host):
    with host.running("sleep", "1000", volumeInGb=1) as a, host.running("sleep", "1000", volumeInGb=1) as b:
        fill(host, a, 1 << 20)
        sh(host, a, "echo secret-of-a > /workspace/secret; echo secret-of-a > /secret")
        assert sh(host, b, "ls -A /workspace") == "lost+found\n" or sh(host, b, "ls -A /workspace") == ""
        assert sh(host, b, "ls /secret 2>/dev/null; true") == ""
        # the ids on disk are another range: what is root's in one is nobody's for the other
        ids = [os.stat("/proc/%d" % host.first_pid(c)).st_uid for c in (a, b)]
        assert len(set(ids)) == 2 and all(i >= 0x50000000 for i in ids)
        assert sh(host, a, "stat -c %u /workspace/secret /workspace") == "0\n0\n"
        # a removed cluster's blocks do not come back as somebody else's
        host.terminate(a)
        with host.running("sleep", "1000", volumeInGb=1) as d:
            assert sh(host, d, "ls -A /workspace").replace("lost+found\n", "") == ""


def test_set_id_programs(host):
    """Set-id files keep their bits; no_new_privs means that they do not give what they promise."""
    with host.running("sleep", "1000", volumeInGb=1) as c:
        for where in ("/workspace", "/root", "/tmp"):
            sh(host, c, "cp /bin/busybox %s/id; chmod 4755 %s/id; chmod 755 /root" % (where, where))
            assert sh(host, c, "stat -c %%a %s/id" % where) == "4755\n"
            done = host.cli("exec", "-u", "1000", c, "--", where + "/id", "-u", check=False)
            assert done.stdout == "1000\n", done
        assert "NoNewPrivs:\t1" in sh(host, c, "cat /proc/self/status")


def test_volume_needs_a_place(host):
    for path in ("/proc", "/proc/x", "/sys/fs", "/dev/shm", "/etc", "/", "relative", "/a/../b", "../..", "//x"):
        with pytest.raises(ApiError, match="volumeMountPath"):
            host.deploy(volumeInGb=1, volumeMountPath=path)
    assert host.clusters() == []


def test_image_cannot_bend_the_mount_point(host, tmp_path):
    """A link where the volume goes: the mount lands inside or nowhere, never on the host."""
    from ocimake import Image, Layer
    layer = Layer().busybox("sh", "sleep", "ls", "cat")
    bait = tmp_path / "bait"
    bait.mkdir()
    layer.dir("target").symlink("workspace", "/target").symlink("up", "../../../../../../.." + str(bait))
    layout = Image([layer.tar()], config={"Cmd": ["sleep", "1000"], "Env": ["PATH=/bin"]}).write_layout(
        str(tmp_path / "layout"))
    host.import_image("test/links", layout)
    for path in ("/workspace", "/up/x"):
        c = host.deploy(imageName="test/links", volumeInGb=1, volumeMountPath=path)
        seen = host.wait(c, lambda k: k["runtime"] or k["phase"] == "exited")
        if seen["runtime"]:
            sh(host, c, "echo x > %s/mark" % path)
            host.call("clusterRestart", c)
            host.wait(c, lambda k: k["runtime"] and "starting" not in k["phase"])
            assert sh(host, c, "cat %s/mark" % path) == "x\n"
        else:
            assert path in seen["reason"] or "volumeMountPath" in seen["reason"], seen["reason"]
        host.terminate(c)
        host.wait_held(set())
    assert list(bait.iterdir()) == []
    wait_until(lambda: not host.journal(), what="an empty journal")
    host.cli("image", "rm", "test/links")
