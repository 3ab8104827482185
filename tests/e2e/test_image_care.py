"""What a host does with its images by itself: they are mounted once while clusters run from them, leave
by age and when a pull finds no space, and what has changed on the disk is found and healed; clusters that
run are left alone."""
import contextlib
import hashlib
import os
import pathlib
import random
import shutil
import sqlite3
import subprocess
import tempfile
import time

import pytest

import inventory
from crash import alive, revive, wait_until
from host import Host
from ocimake import Image, Layer
from test_crash import ALL, SEED, Killer, sample

MIB = 1 << 20
ENGINE = {"cpu_overcommit": 100, "memory_overcommit": 50, "disk_overcommit": 100, "pool_networks": 0,
          "pool_disks": 0, "grace": "200ms", "log_level": "debug"}
SLEEP = "/bin/sleep 1000"


def image(registry, name, size=200000):
    """One that a cluster can run from, with something large and something small in it."""
    layer = Layer().busybox("sleep", "cat", "sh", "sha256sum").file("large", (os.urandom(MIB) * (size // MIB + 1))[:size]).file("small", os.urandom(3000))
    return registry.add("a/" + name, "v1", Image([layer.tar()], compress_as="none"))


@contextlib.contextmanager
def host_with(registry, images, data=None):
    h = Host({"engine": ENGINE, "images": images, 'registry "%s"' % registry.host: {"insecure": "yes"}})
    if data:
        h.data = data
    with h:
        yield h
        for c in h.clusters():
            h.terminate(c["id"])


def names(host, where=""):
    with contextlib.closing(sqlite3.connect(f"file:{host.data}/images/images.db?mode=ro", uri=True)) as db:
        return {n for n, in db.execute("SELECT n.reference FROM name n JOIN image i ON i.id = n.image " + where)}


def layer_of(host, ref):
    with contextlib.closing(sqlite3.connect(f"file:{host.data}/images/images.db?mode=ro", uri=True)) as db:
        ((n,),) = db.execute("SELECT il.layer FROM name n JOIN image_layer il ON il.image = n.image"
                             " WHERE n.reference = ?", (ref,)).fetchall()
    return host.data / "images/layers" / str(n)


def scrubbed(host):
    """Packs are known by what the first round found."""
    with contextlib.closing(sqlite3.connect(f"file:{host.data}/images/images.db?mode=ro", uri=True)) as db:
        return not db.execute("SELECT 1 FROM layer WHERE pack_sha = ''").fetchall()


def layers(host):
    return len(list((host.data / "images/layers").iterdir()))


def flip(path, at=-1):
    with open(path, "r+b") as f:
        f.seek(at, os.SEEK_END if at < 0 else os.SEEK_SET)
        byte = f.read(1)
        f.seek(-1, os.SEEK_CUR)
        f.write(bytes([byte[0] ^ 4]))


def listed(host, ref):
    return next(i for i in host.rest("GET", "/v1/images").json() if i["reference"] == ref)


def test_unused_images_leave(registry):
    """Not the one that a cluster runs from, also when another engine started it, until it ends."""
    used, unused = image(registry, "used"), image(registry, "unused")
    with host_with(registry, {"keep": "3s", "scrub": "0"}) as h:
        c = h.deploy(imageName=used, dockerArgs=SLEEP)
        h.wait_running(c)
        h.cli("image", "pull", unused)
        wait_until(lambda: names(h) == {used}, what="the end of what nothing uses")
        wait_until(lambda: layers(h) == 1, what="the end of its files")
        assert f"image {unused} goes (" in h.log_text()
        h.restart()
        wait_until(lambda: h.wait_running(c), what="the cluster")
        h.cli("image", "pull", unused)
        wait_until(lambda: names(h) == {used}, what="the same again")
        h.exec(c, "/bin/sha256sum", "/large", "/small")  # not opened before
        h.terminate(c)
        wait_until(lambda: names(h) == set() and layers(h) == 0, what="the end of the other one")
        wait_until(lambda: not any(list((h.data / "images" / d).iterdir()) for d in ("metas", "objects", "staging")),
                   what="the end of the last file")


def test_killed_while_images_leave(registry):
    """At instants all over an expiry: nothing is left after the next start, and what is found is whole."""
    refs = [image(registry, f"n{i}") for i in range(3)]
    with host_with(registry, {"keep": "2s", "scrub": "0"}) as h:
        for i in range(4):
            for ref in refs:
                h.cli("image", "pull", ref)
            before = h.log_text().count(" goes (")
            wait_until(lambda n=before: h.log_text().count(" goes (") > n, what="an expiry")
            h.kill()
            h.start()
            ref = refs[i % 3]
            c = h.deploy(imageName=ref, dockerArgs=SLEEP)  # pulled again, or still here
            h.wait_running(c)
            h.exec(c, "/bin/sha256sum", "/large", "/small")
            h.terminate(c)
        wait_until(lambda: names(h) == set() and layers(h) == 0, what="the end of all")


@pytest.mark.parametrize("victim", ["self", "engine"])
@pytest.mark.limit(3600 if ALL else 200)
def test_killed_before_each_call_of_an_expiry(registry, victim):
    """Engine or operation, before calls that change something, all over what happens from the look at ages
    to the last file: afterwards everything is gone or whole."""
    ref = image(registry, "point")

    def pulled():
        h.cli("image", "pull", ref)
        assert ref in names(h)

    def gone():
        return names(h) == set() and not any(list((h.data / "images" / d).iterdir())
                                             for d in ("layers", "metas", "objects", "staging"))

    with host_with(registry, {"keep": "3s", "scrub": "0"}) as h:
        pulled()
        with Killer(h) as one:
            wait_until(gone, what="an expiry")
        points = len(one.points)
        killed = 0
        for n in sample(list(range(1, points + 1)), points if ALL else 4, random.Random(SEED)):
            pulled()
            with Killer(h, n, victim) as k:
                wait_until(lambda k=k: k.over() or gone(), what="the end of it")
            killed += k.killed
            revive(h)
            if names(h):
                c = h.deploy(imageName=ref, dockerArgs=SLEEP)
                h.wait_running(c)
                h.exec(c, "/bin/sha256sum", "/large", "/small")
                h.terminate(c)
            wait_until(gone, what=f"the end of all after a kill at {n} of {one.points}")
        print("seed", SEED, "points", points, "killed", killed)
        assert killed >= 3, "the points are not those of an expiry any more"


class SmallDisk:
    def __init__(self, size):
        self.top = pathlib.Path(tempfile.mkdtemp(prefix="hvmm-test.", dir="/var/tmp"))
        disk, self.point = self.top / "disk", self.top / "mnt"
        self.point.mkdir()
        with open(disk, "wb") as f:
            f.truncate(size)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", disk], check=True)
        subprocess.run(["mount", "-o", "loop", disk, self.point], check=True)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        subprocess.run(["umount", self.point], check=True)
        shutil.rmtree(self.top)


@pytest.mark.limit(300)
def test_a_pull_makes_room(registry):
    """Least recently used first, never what a cluster runs from; what cannot fit is refused as before."""
    refs = [image(registry, f"big{i}", 300 * MIB) for i in range(4)]
    huge = image(registry, "huge", 850 * MIB)
    with SmallDisk(1150 * MIB) as disk:
        with host_with(registry, {"scrub": "0"}, data=disk.point / "data") as h:
            c = h.deploy(imageName=refs[0], dockerArgs=SLEEP)
            h.wait_running(c)
            for ref in refs[1:]:
                h.cli("image", "pull", ref)
            pid = h.first_pid(c)
            have = names(h)
            assert refs[0] in have and refs[3] in have
            log = h.log_text()
            assert f"pull {refs[3]}: no space; looking for images that can go" in log, log[-3000:]
            assert f"image {refs[1]} goes (301 MiB), last used " in log, log[-3000:]
            failed = h.cli("image", "pull", huge, check=False)
            assert failed.returncode != 0 and "no space" in failed.stderr, failed.stderr
            assert h.log_text().count(f"pull {huge}: no space; looking") == 1, "once"
            assert names(h) == {refs[0]}, "all that could go went for it"
            assert alive(pid) and h.first_pid(c) == pid
            h.exec(c, "/bin/sha256sum", "/large", "/small")
            h.cli("image", "pull", refs[2])
            assert names(h) == {refs[0], refs[2]}


@pytest.mark.parametrize("what", ["pack", "index", "meta", "object"])
def test_damage_is_found_while_a_cluster_runs(registry, what):
    ref, good = image(registry, "bad-" + what), image(registry, "good-" + what)
    with host_with(registry, {"scrub": "2s"}) as h:
        c = h.deploy(imageName=ref, dockerArgs=SLEEP)
        h.wait_running(c)
        other = h.deploy(imageName=good, dockerArgs=SLEEP)
        h.wait_running(other)
        pid = h.first_pid(c)
        layer = layer_of(h, ref)
        wait_until(lambda: scrubbed(h), what="a first round")
        if what in ("pack", "index"):
            flip(layer / what)
        elif what == "meta":
            flip(h.data / "images/metas" / "1")
        else:
            name = (layer / "objects").read_bytes()[56:88].hex()  # not busybox, which the other one has, too
            flip(h.data / "images/objects" / name[:2] / name[2:])
        said = f"cluster {c} runs from an image that is damaged, and goes on: "
        wait_until(lambda: said in h.log_text(), what="the scrub")
        assert alive(pid) and h.first_pid(c) == pid
        h.exec(c, "/bin/sh", "-c", "true")
        why = h.wait(c, lambda k: k["reason"])["reason"]
        assert listed(h, ref)["damaged"] in why and why.startswith("it runs from an image that is damaged"), why
        assert h.cluster(c)["phase"] == "ready" and h.cluster(other)["reason"] is None
        assert listed(h, ref)["damaged"] and not listed(h, good).get("damaged")
        assert f"cluster {other} runs from" not in h.log_text()
        again = h.deploy(imageName=ref, dockerArgs=SLEEP)  # heals it
        h.wait_running(again)
        h.exec(again, "/bin/sha256sum", "/large", "/small")
        assert not listed(h, ref).get("damaged")
        assert h.first_pid(c) == pid
        assert h.cluster(again)["reason"] is None and h.cluster(c)["reason"] == why


def test_a_damaged_image_is_shown_and_a_restart_heals(registry):
    """Also by the next engine, which finds no new damage; the restart is what brings a fresh copy."""
    ref = image(registry, "shown")
    with host_with(registry, {"scrub": "2s"}) as h:
        c = h.deploy(imageName=ref, dockerArgs=SLEEP)
        h.wait_running(c)
        pid, pack = h.first_pid(c), layer_of(h, ref) / "pack"
        wait_until(lambda: scrubbed(h), what="a first round")
        flip(pack)
        why = h.wait(c, lambda k: k["reason"])["reason"]
        assert "pack" in why and why in h.cli("get", "cluster", "-a").stdout
        h.restart()
        h.wait(c, lambda k: k["reason"] == why and k["phase"] == "ready")
        assert h.first_pid(c) == pid
        asked = sum("/blobs/" in path for path, _ in registry.requests)
        h.call("clusterRestart", c)
        h.wait_new_first(c, pid)
        wait_until(lambda: h.cluster(c)["reason"] is None, what="an end of it")
        assert sum("/blobs/" in path for path, _ in registry.requests) > asked, "pulled anew"
        h.exec(c, "/bin/sha256sum", "/large", "/small")
        assert layer_of(h, ref) != pack.parent and not listed(h, ref).get("damaged")


def test_damage_that_a_pull_finds(registry):
    """A layer that is here is looked at before another image uses it; who runs from it hears of that."""
    layer = Layer().busybox("sleep").tar()
    one, two = (registry.add("a/shares", v, Image([layer] + more, compress_as="none"))
                for v, more in (("v1", []), ("v2", [Layer().file("x", b"x").tar()])))
    with host_with(registry, {"scrub": "0"}) as h:
        c = h.deploy(imageName=one, dockerArgs=SLEEP)
        h.wait_running(c)
        flip(layer_of(h, one) / "index")
        h.cli("image", "pull", two)
        assert "damaged" in h.wait(c, lambda k: k["reason"])["reason"]
        assert listed(h, one)["damaged"] and not listed(h, two).get("damaged")


def test_an_image_that_is_gone_is_pulled_anew(registry):
    """Removed while its cluster was stopped: starting it is enough."""
    ref = image(registry, "gone")
    with host_with(registry, {"scrub": "0"}) as h:
        c = h.deploy(imageName=ref, dockerArgs=SLEEP)
        h.wait_running(c)
        h.call("clusterStop", c)
        h.wait_exited(c)
        h.cli("image", "rm", ref)
        assert names(h) == set()
        h.call("clusterResume", c)
        h.wait_running(c)
        h.exec(c, "/bin/sha256sum", "/large", "/small")
        assert names(h) == {ref}


def test_damage_that_a_boot_finds(registry):
    """The metadata is looked at before it is mounted; what is damaged is pulled again."""
    ref = image(registry, "boot")
    with host_with(registry, {"scrub": "0"}) as h:
        h.cli("image", "pull", ref)
        (meta,) = (h.data / "images/metas").iterdir()
        flip(meta)
        c = h.deploy(imageName=ref, dockerArgs=SLEEP)
        h.wait_running(c)
        h.exec(c, "/bin/sha256sum", "/large", "/small")
        assert f"images: metas/{meta.name} is not what was written" in h.log_text()
        assert not listed(h, ref).get("damaged")


def base_mounts(host):
    """{device: places} of what is mounted as EROFS where the engine is."""
    found = {}
    for line in inventory.read(f"/proc/{host.pid}/mountinfo").splitlines():
        head, _, tail = line.partition(" - ")
        if tail.split()[0] == "erofs" and f"/{host.id}/" in head:
            found.setdefault(head.split()[2], []).append(head.split()[4])
    return found


def image_loops(host):
    """Files of the image store behind loop devices, below images/."""
    top = str(host.data / "images")
    return sorted(os.path.relpath(file, top) for _, file in inventory.loops([top]))


@pytest.mark.parametrize("mount, threshold", [("loop", "0"), ("loop", "128K"), ("file", "0"), ("file", "128K")])
def test_one_mount_for_all_clusters(registry, mount, threshold):
    """On each of the kernels' ways; gone after the last cluster, the engine killed in between or not.  That
    the disk can be unmounted at the end says that no file system made of its files is left."""
    large, small = os.urandom(MIB), os.urandom(3000)
    ref = registry.add("a/mounts", f"{mount}-{threshold}", Image(
        [Layer().busybox("sleep", "sha256sum", "cat").file("large", large).tar(), Layer().file("small", small).tar()],
        compress_as="none"))

    def reads(cluster):
        lines = h.exec(cluster, "/bin/sha256sum", "/large", "/small").stdout.split()
        assert lines[::2] == [hashlib.sha256(data).hexdigest() for data in (large, small)]
        assert " erofs " not in h.exec(cluster, "/bin/cat", "/proc/self/mountinfo").stdout

    def deployed():
        c = h.deploy(imageName=ref, dockerArgs=SLEEP)
        h.wait_running(c)
        return c

    with SmallDisk(1300 * MIB) as disk:
        with host_with(registry, {"mount": mount, "object_threshold": threshold, "scrub": "0"}, data=disk.point / "data") as h:
            place = f"/run/hypervisor-vmm/{h.id}/images/1"
            packs = [1, 2] if threshold == "0" else [2]  # of objects alone there is no device
            loops = [f"layers/{n}/pack" for n in packs] + ["metas/1"] if mount == "loop" else []
            first, second = deployed(), deployed()
            assert list(base_mounts(h).values()) == [[place]] and image_loops(h) == loops
            assert any((h.data / "images/objects").glob("*/*")) == (threshold != "0")
            reads(first)
            h.terminate(first)
            reads(second)
            assert list(base_mounts(h).values()) == [[place]] and image_loops(h) == loops
            h.kill()
            h.start()
            assert image_loops(h) == loops, "its cluster has them"
            third = deployed()  # this engine's first one
            assert list(base_mounts(h).values()) == [[place]]
            for c in (second, third):
                reads(c)
            h.terminate(second)
            h.terminate(third)
            wait_until(lambda: not base_mounts(h) and not image_loops(h) and not h.mounted_images(),
                       what="the end of the mount")


def test_what_is_listed(registry):
    """Sizes, what is shared, users and the last use, by the API and by the command."""
    base, own, other, alone = (Layer().file(n, os.urandom(size)) for n, size in
                               (("base", 2 * MIB), ("own", MIB), ("other", 3 * MIB), ("alone", MIB)))
    base = base.busybox("sleep").tar()
    used, twin = (registry.add("a/listed", v, Image([base, layer.tar()], compress_as="none"))
                  for v, layer in (("used", own), ("twin", other)))
    single = registry.add("a/listed", "single", Image([alone.tar()], compress_as="none"))
    shared = 2 * MIB + os.path.getsize("/bin/busybox")
    with host_with(registry, {"scrub": "0"}) as h:
        h.cli("image", "pull", used)
        assert listed(h, used)["sharedBytes"] == 0, "with whom?"
        h.cli("image", "pull", twin)
        h.cli("image", "pull", single)
        with contextlib.closing(sqlite3.connect(h.data / "images/images.db")) as db:
            db.execute("UPDATE name SET created_us = created_us - 86400000000, used_us = used_us - 86400000000")
            db.commit()
        h.restart()
        long_ago = listed(h, single)["lastUsedAt"]
        before = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
        assert long_ago < before
        c = h.deploy(imageName=used, dockerArgs=SLEEP)
        h.wait_running(c)
        show = {r: [listed(h, r)[k] for k in ("sizeBytes", "sharedBytes", "inUse")] for r in (used, twin, single)}
        assert show == {used: [shared + MIB, shared, True], twin: [shared + 3 * MIB, shared, False],
                        single: [MIB, 0, False]}
        last = {r: listed(h, r)["lastUsedAt"] for r in show}
        assert last[used] >= before and last[twin] < before and last[single] == long_ago
        head, *rows = ([cell.strip() for cell in line.split("\t")] for line in h.cli("image", "ls").stdout.splitlines())
        table = {row[0]: dict(zip(head, row)) for row in rows}
        assert {r: table[r]["IN USE"] for r in show} == {used: "yes", twin: "no", single: "no"}, table
        assert table[single]["SHARED"] == "0 B" and table[used]["SHARED"] == table[twin]["SHARED"] != "0 B"
        assert table[used]["LAST USED"][:19] == last[used][:19]
        h.terminate(c)
        wait_until(lambda: not listed(h, used)["inUse"], what="the end of its use")
        h.cli("image", "rm", twin)
        assert [listed(h, used)[k] for k in ("sizeBytes", "sharedBytes")] == [shared + MIB, 0]
