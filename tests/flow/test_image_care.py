"""What the image store does by itself, on the real kernel (root): images leave by age and for space,
and what has changed on the disk is found.  Through the driver imagectl, as tests/flow/test_image.py."""
import contextlib
import os
import shutil
import sqlite3
import subprocess
import time

import pytest

from ocimake import Image, Layer, docker_archive
from test_image import ID_BASE, STATE_CALLS, Store, check_files, fake, store  # noqa: F401 (fixtures)

MIB = 1 << 20
ALL = str(1 << 40)


def image(reg, repo, *sizes, tag="v1"):
    return reg.add(repo, tag, Image([Layer().file(f"f{i}", os.urandom(n)).tar() for i, n in enumerate(sizes)]))


def age(store, ref, seconds):
    """As if nothing had used it for so long."""
    with contextlib.closing(sqlite3.connect(store.images / "images.db")) as db:
        then = int((time.time() - seconds) * 1e6)
        done = db.execute("UPDATE name SET created_us = ?, used_us = ? WHERE reference = ?", (then, then, ref))
        assert done.rowcount == 1
        db.commit()


def names(store):
    return {i["reference"] for i in store.list("x", "admin")}


def expire(store, *options, need=0, in_use=()):
    """The names that are left, and what was said."""
    p = subprocess.run(store.argv(*options, "expire", need, *in_use), capture_output=True, timeout=100, text=True)
    assert p.returncode == 0, p.stderr
    store.nothing_staged()
    return names(store), p.stderr, p.stdout


def use_of(store, ref):
    i = store.find(ref)
    return f"{i['id']} {i['account'] or '-'} {i['reference']}"


# --- what leaves -------------------------------------------------------------------------------

def test_unused_images_leave(store, fake):
    old, fresh, shared = (image(fake, f"a/{n}", 200000, 1000) for n in ("old", "fresh", "shared"))
    base = Layer().file("base", os.urandom(300000)).tar()
    twin = fake.add("a/twin", "v1", Image([base, Layer().file("x", b"1").tar()]))
    kept = fake.add("a/twin", "v2", Image([base, Layer().file("x", b"2").tar()]))
    refs = {old, fresh, shared, twin, kept}
    for ref in refs:
        store.pull(ref)
    for ref in (old, twin):
        age(store, ref, 3600)
    assert expire(store, "--keep", 0)[0] == refs, "0: for ever"
    assert expire(store, "--keep", 4000)[0] == refs
    left, said, _ = expire(store, "--keep", 600)
    assert left == refs - {old, twin}
    for ref in (old, twin):
        assert f"image {ref} goes (0 MiB): nothing has used it for 1 h" in said, said
    check_files(store)
    with store.merged(kept) as m:  # what it shared with the other one
        assert (m / "base").stat().st_size == 300000 and (m / "x").read_bytes() == b"2"
    store.pull(old)
    assert old in names(store)


def test_uploads_leave_only_when_told(store):
    tars = [Layer().file("x", b"1").tar()]
    store.run("import", "acc", "mine:v1", stdin=docker_archive(Image(tars), tars))
    (ref,) = names(store)
    age(store, ref, 3600)
    assert expire(store, "--keep", 60, "--floor", ALL)[0] == {ref}
    assert expire(store, "--keep", 60, "--uploads", "yes")[0] == set()
    store.nothing_kept()


def test_used_images_stay(store, fake):
    """And count as used now, so that they do not leave the moment that their cluster does."""
    refs = [image(fake, f"a/{n}", 200000) for n in ("one", "two", "three")]
    for ref in refs:
        store.pull(ref)
        age(store, ref, 3600)
    one = store.find(refs[0])
    age(store, refs[0], 3600)
    left, *_ = expire(store, "--keep", 60, "--floor", ALL, need=ALL, in_use=[f"{one['id']} - {refs[0]}"])
    assert left == {refs[0]}
    assert expire(store, "--keep", 60)[0] == {refs[0]}
    with store.merged(refs[0]) as m:
        assert (m / "f0").stat().st_size == 200000
    check_files(store)


def unmount(at):
    """The kernel closes the files of a file system that was unmounted above it a moment later."""
    for left in range(50, -1, -1):
        if subprocess.run(["umount", at], stderr=subprocess.DEVNULL if left else None, check=not left).returncode == 0:
            return
        time.sleep(0.1)


@pytest.fixture
def small(tmp_path):
    """A file system of 200 MiB with the store on it."""
    disk, at = tmp_path / "disk", tmp_path / "small"
    at.mkdir()
    with open(disk, "wb") as f:
        f.truncate(200 * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-b", "4096", "-m", "0", disk], check=True)
    subprocess.run(["mount", "-o", "loop", disk, at], check=True)
    try:
        yield Store(at / "data")
    finally:
        unmount(at)


def free_of(store):
    v = os.statvfs(store.dir)
    return v.f_bavail * v.f_frsize


def test_least_recently_used_make_room(small, store, fake):
    small.registries = store.registries
    refs = [image(fake, f"a/n{i}", 15 * MIB, 5 * MIB) for i in range(5)]
    for i, ref in enumerate(refs):
        small.pull(ref)
    for i, ref in enumerate(refs):
        age(small, ref, 3600 - i * 60)
    age(small, refs[1], 10)
    before = free_of(small)
    assert expire(small, "--floor", 0)[0] == set(refs), "0: none goes for space"
    # the floor is at most a tenth of the disk: plenty is free
    assert expire(small, "--floor", ALL)[0] == set(refs)
    need = before + 30 * MIB
    left, said, out = expire(small, "--floor", 1, need=need)
    assert left == {refs[1], refs[3], refs[4]}, said
    assert f"image {refs[0]} goes (20 MiB), last used 60 min ago: " in said, said
    assert free_of(small) >= need and out.split()[0] == "1"
    check_files(small)
    # what is in use is passed over, and nothing else goes when there is enough
    use = use_of(small, refs[3])
    age(small, refs[3], 7200)
    left, *_ = expire(small, "--floor", 1, need=free_of(small) + 1 * MIB, in_use=[use])
    assert left == {refs[1], refs[3]}
    # impossible: all that may go goes, once
    left, _, out = expire(small, "--floor", 1, need=1 << 50, in_use=[use])
    assert left == {refs[3]} and out.split()[0] == "1"
    check_files(small)


def test_inodes_run_out(small, store, fake):
    """Before the file system has none at all for anybody."""
    small.registries = store.registries
    ref, other = image(fake, "a/b", 5000, 200000), image(fake, "a/other", 5000, 200001)
    small.pull(ref)
    v = os.statvfs(small.dir)
    more = small.dir / "more"
    more.mkdir()
    for i in range(v.f_favail - v.f_files // 20 - 10):
        (more / str(i)).touch()
    before = os.statvfs(small.dir).f_favail
    text = small.fails("pull", other)
    assert text.startswith("error 28:") and "no inodes are left on the host's image store" in text, text
    assert os.statvfs(small.dir).f_favail == before and names(small) == {ref}
    check_files(small)
    shutil.rmtree(more)
    small.pull(other)


@pytest.mark.limit(600)
@pytest.mark.parametrize("why", ["age", "floor"])
def test_expiry_is_killed_at_each_call(store, fake, tmp_path, why):
    """Each image is whole or gone, and what is left over goes with the next one.  For space the same calls
    are made: about ten of them will do."""
    old, fresh = image(fake, "a/old", 200000, 1000), image(fake, "a/fresh", 200000, 1000)
    argv = ["--keep", "60", "expire", "0"]
    env = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}
    for ref in (old, fresh):
        store.pull(ref)
    age(store, old, 3600)
    if why == "floor":  # as much as there never is: whoever is not used goes
        argv = ["--floor", "1", "--keep", "0", "expire", ALL, use_of(store, fresh)]
    saved = tmp_path / "saved"
    shutil.copytree(store.images, saved)
    log = tmp_path / "trace"
    subprocess.run(["strace", "-o", log, "-e", f"trace={STATE_CALLS}", *store.argv(*argv)], check=True, env=env,
                   capture_output=True)
    calls = [l.split("(")[0] for l in log.read_text().splitlines() if "(" in l and l[0].isalpha()]
    assert {"unlinkat", "renameat"} <= set(calls), calls
    points = [(name, calls[:i + 1].count(name)) for i, name in enumerate(calls)]
    if why == "floor":
        points = points[:-1:max(len(points) // 9, 1)] + points[-1:]
    outcomes = []
    for name, when in points:
        shutil.rmtree(store.images)
        shutil.copytree(saved, store.images)
        p = subprocess.run(["strace", "-o", "/dev/null", "-e", f"trace={STATE_CALLS}",
                            "-e", f"inject={name}:signal=KILL:when={when}", *store.argv(*argv)],
                           capture_output=True, env=env, timeout=100)
        assert p.returncode != 0, f"{name} number {when} was not reached"
        left = names(store)
        assert fresh in left
        for ref in left:  # whoever is found can be used
            with store.merged(ref) as m:
                assert (m / "f0").stat().st_size == 200000
        outcomes.append(old in left)
        store.run("sweep")  # as the engine does at its start
        store.run("recover")
        if old in left:  # it was found just now
            age(store, old, 3600)
        p = subprocess.run(store.argv(*argv), capture_output=True, env=env, timeout=100)
        assert p.returncode == 0 and names(store) == {fresh}, p.stderr
        store.nothing_staged()
        check_files(store)
        assert len(store.layers()) == 2
    assert outcomes[0] is True and outcomes[-1] is False, outcomes
    print(len(points), "of", len(calls), "calls,", outcomes.count(True), "before the commit")


# --- what has changed --------------------------------------------------------------------------

def scrub(store, size=1 << 40):
    """1: the round is complete; what is damaged, as (image, name, why)."""
    *damage, last = store.run("scrub", size).splitlines()
    done, read, total = map(int, last.split())
    return done, [tuple(d.split(" ", 2)) for d in damage], read


def whole_round(store):
    done, damage, _ = scrub(store)
    assert done == 1
    return damage


def flip(path, at=-1):
    with open(path, "r+b") as f:
        f.seek(at, os.SEEK_END if at < 0 else os.SEEK_SET)
        byte = f.read(1)
        f.seek(-1, os.SEEK_CUR)
        f.write(bytes([byte[0] ^ 4]))


def file_of(store, what, n=1):
    if what == "object":
        (name,) = store.objects()
        return store.images / "objects" / name[:2] / name[2:]
    return store.images / ("metas/%d" % n if what == "meta" else "layers/%d/%s" % (n, what))


@pytest.mark.parametrize("what, why", [
    ("pack", "layers/1: its pack has changed on the disk"),
    ("index", "layers/1: its index has changed on the disk"),
    ("objects", "layers/1: the list of its objects has changed on the disk"),
    ("meta", "metas/1: its metadata has changed on the disk"),
    ("object", "does not match its name: it has changed on the disk"),
])
@pytest.mark.parametrize("how", ["flipped", "cut", "gone"])
def test_damage_is_found_and_healed(store, fake, what, why, how):
    big, small = os.urandom(200000), os.urandom(5000)
    bad = fake.add("a/bad", "v1", Image([Layer().file("big", big).file("small", small).tar()]))
    good = fake.add("a/good", "v1", Image([Layer().file("small", small).tar()]))
    same = fake.add("a/same", "v1", Image([Layer().file("again", big).tar()]))
    for ref in (bad, good, same):
        store.pull(ref)
    assert whole_round(store) == [] and whole_round(store) == []  # the first one notes hashes of packs
    path = file_of(store, what)
    with store.merged(bad) as running:
        seen = (running / "small").read_bytes()
        if how == "flipped":
            flip(path)
        elif how == "cut":
            os.truncate(path, path.stat().st_size - 1)
        else:
            path.unlink()
        damage = whole_round(store)
        shares = what == "object"  # the other image has the same large file
        assert {d[1] for d in damage} == ({bad, same} if shares else {bad}), damage
        if how == "flipped":
            assert why in damage[0][2], damage
        assert whole_round(store) == [], "it is said once"
        if how != "cut" and what not in ("meta", "object"):
            assert (running / "small").read_bytes() == (seen if what != "pack" else (running / "small").read_bytes())
    text = store.run("find", "acc", bad, ok=False)
    assert text.startswith("error 2:") and "is damaged on this host: " in text and damage[0][2] in text, text
    assert {i["reference"]: i["quarantined"] for i in store.list("x", "admin") if i["quarantined"]} == \
        {d[1]: d[2] for d in damage}
    with store.merged(good) as m:
        assert (m / "small").read_bytes() == small
    fake.requests.clear()
    for ref in {d[1] for d in damage}:
        store.pull(ref)
    blobs = [p for p, _ in fake.requests if "/blobs/" in p]
    assert len(blobs) == (1 if what == "meta" else 4 if shares else 2), blobs  # the configuration, and the layer
    with store.merged(bad) as m:
        assert (m / "big").read_bytes() == big and (m / "small").read_bytes() == small
    with store.merged(same) as m:
        assert (m / "again").read_bytes() == big
    assert expire(store)[0] == {bad, good, same}  # takes what is nobody's
    check_files(store)
    assert whole_round(store) == [] and len(store.layers()) == 3


def test_metadata_is_checked_when_it_is_mounted(store, fake):
    ref = image(fake, "a/b", 5000)
    store.pull(ref)
    flip(file_of(store, "meta"))
    target = store.dir / "meta"
    target.mkdir()
    text = store.run("mount", "acc", ref, target, ID_BASE, ok=False)
    assert "pull it again" in text, text
    assert "metas/1 is not what was written" in store.run("find", "acc", ref, ok=False)
    store.pull(ref)
    with store.merged(ref) as m:
        assert (m / "f0").stat().st_size == 5000


def test_a_round_goes_on_where_it_was(store, fake):
    """In other processes, however they ended; every file once in a round."""
    refs = [image(fake, f"a/n{i}", 200000 + i, 3000) for i in range(3)]
    for ref in refs:
        store.pull(ref)
    steps, read = 0, 0
    while True:
        done, damage, n = scrub(store, 1)
        steps, read = steps + 1, read + n
        assert damage == []
        if done:
            break
    assert steps == 6 + 3 + 3 + 1, "layers, metadata, objects, and the end"
    assert read > sum(p.stat().st_size for p in store.images.rglob("*") if p.is_file() and "images.db" not in p.name)
    # killed in the middle of a file: that one comes again
    flip(file_of(store, "pack", 6))
    for call in ("pread64", "pwrite64"):
        for when in (1, 5, 12, 20, 40):
            subprocess.run(["strace", "-o", "/dev/null", "-e", "trace=pread64,pwrite64",
                            "-e", f"inject={call}:signal=KILL:when={when}", *store.argv("scrub", ALL)],
                           capture_output=True, timeout=100, check=False)
    whole_round(store)
    whole_round(store)
    assert [i["reference"] for i in store.list("x", "admin") if i["quarantined"]] == [refs[2]]
    assert [i["reference"] for i in store.list("x", "admin") if not i["quarantined"]] == refs[:2]


@pytest.mark.parametrize("what", ["pack", "index", "meta", "object", "."])
def test_a_file_system_that_sees_it_first(small, store, fake, tmp_path, what):
    """An inode that makes no sense: the kernel refuses to open the file.  The round goes on behind it."""
    small.registries = store.registries
    ref, good = image(fake, "a/b", 5000, 200000), image(fake, "a/good", 5000)
    small.pull(ref)
    small.pull(good)
    file = "/data/" + str(file_of(small, what).relative_to(small.dir))
    subprocess.run(["sync", "-f", tmp_path / "small"], check=True)
    unmount(tmp_path / "small")
    # on a disk that nobody has ever mounted: somebody's mount namespace may keep the old one, and its journal in use
    subprocess.run(["cp", "--sparse=always", tmp_path / "disk", tmp_path / "changed"], check=True)
    assert subprocess.run(["e2fsck", "-p", tmp_path / "changed"], capture_output=True).returncode in (0, 1)
    subprocess.run(["debugfs", "-w", "-R", f"set_inode_field {file} block[0] 0", tmp_path / "changed"], check=True, capture_output=True)
    subprocess.run(["mount", "-o", "loop", tmp_path / "changed", tmp_path / "small"], check=True)
    damage = whole_round(small)
    assert damage and {d[1] for d in damage} == {ref}, damage
    assert whole_round(small) == []
    if what == "object":  # its name is taken, by what only fsck can remove
        assert "Structure needs cleaning" in small.run("pull", ref, ok=False)
        return
    small.pull(ref)
    with small.merged(ref) as m:
        assert (m / "f0").stat().st_size == 5000 and len((m / "f1").read_bytes()) == 200000


def test_what_cannot_be_removed_is_no_reason_to_stop(small, store, fake):
    """Neither to start nor to collect what can be."""
    small.registries = store.registries
    left = small.images / "staging/left"
    small.pull(image(fake, "a/b", 200000))
    (left / "x").mkdir(parents=True)
    (left / "x/file").touch()
    subprocess.run(["chattr", "+i", left / "x/file"], check=True)
    try:
        small.run("recover")
        (ref,) = names(small)
        small.run("rm", "acc", ref, "admin")
        assert small.objects() == [] and (left / "x/file").exists()
    finally:
        subprocess.run(["chattr", "-i", left / "x/file"], check=True)
    small.run("recover")
    small.nothing_staged()


def damage(path, how):
    if how == "gone":
        path.unlink()
    elif how == "flipped":
        flip(path, 20)
    else:
        os.truncate(path, 30)


@pytest.mark.parametrize("how", ["flipped", "cut", "gone"])
@pytest.mark.parametrize("index", ["sound", "flipped", "gone"])
def test_a_damaged_layer_keeps_its_objects(store, fake, how, index):
    """A host starts.  What may be the layer's own stays until it goes: of a sound index all that has such a size, else all."""
    ref, other, third = image(fake, "a/b", 200000), image(fake, "a/other", 300000), image(fake, "a/third", 200000)
    for i in (ref, other, third):
        store.pull(i)
    damage(file_of(store, "objects"), how)
    if index != "sound":
        damage(file_of(store, "index"), index)
    use = use_of(store, ref)
    store.run("recover")  # found by nobody yet
    assert len(store.objects()) == 3
    store.run("rm", "acc", other, "admin", use)
    store.run("rm", "acc", third, "admin", use)
    sizes = sorted((store.images / "objects" / n[:2] / n[2:]).stat().st_size for n in store.objects())
    assert sizes == ([200000, 200000] if index == "sound" else [200000, 200000, 300000])
    assert {d[1] for d in whole_round(store)} == {ref}
    store.run("recover")
    assert len(store.objects()) == len(sizes)
    store.run("rm", "acc", ref, "admin")
    store.nothing_kept()


@pytest.mark.parametrize("index", ["sound", "flipped"])
def test_objects_that_must_stay_take_no_image_along(store, fake, index):
    """While a cluster runs from a damaged layer whose objects nothing tells, no other image goes for space: it would make
    none.  By age it does; and when the cluster has ended, the damaged one goes first."""
    ref, *others = (image(fake, f"a/n{i}", 200000 + i) for i in range(3))
    for i, name in enumerate([ref, *others]):
        store.pull(name)
        age(store, name, 3600 - i)
    damage(file_of(store, "objects"), "flipped")
    if index != "sound":
        damage(file_of(store, "index"), "flipped")
    use = use_of(store, ref)
    age(store, ref, 10)  # it was found just now
    if index == "sound":
        assert expire(store, "--floor", 1, need=ALL, in_use=[use])[0] == {ref}
        assert len(store.objects()) == 1
        return
    left, said, _ = expire(store, "--floor", 1, need=ALL, in_use=[use])
    assert left == {ref, *others} and "layers/1: names of its objects are damaged; all objects stay" in said, said
    assert expire(store, "--keep", 3000, "--floor", 1, need=ALL, in_use=[use])[0] == {ref}
    store.pull(others[0])
    assert len(store.objects()) == 3
    left, _, out = expire(store, "--floor", 1, need=ALL)
    assert left == set() and out.split()[0] == "2", "then there is room to be made by others"
    store.nothing_kept()


def test_disk_is_read_past_the_cache(small, store, fake, tmp_path):
    """The cache has the right bytes, the disk has not."""
    small.registries = store.registries
    ref = image(fake, "a/b", 5000)
    small.pull(ref)
    assert whole_round(small) == []
    pack = file_of(small, "pack")
    data = pack.read_bytes()
    out = subprocess.run(["filefrag", "-b4096", "-v", pack], check=True, capture_output=True, text=True).stdout
    block = int(out.split("\n")[3].split()[3].split(".")[0])
    flip(tmp_path / "disk", block * 4096 + 7)  # below the mounted file system
    assert pack.read_bytes() == data, "the cache still answers"
    assert [d[2] for d in whole_round(small)] == ["layers/1: its pack has changed on the disk"]
