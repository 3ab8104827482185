"""The image store's formats on the real kernel (root): layers become pack, index and objects, their
merge becomes an EROFS, and what the kernel shows of it is held against a model of unpacking.
fsck.erofs is the second opinion."""
import contextlib
import hashlib
import io
import os
import pathlib
import random
import re
import shutil
import subprocess
import tarfile
import time

import pytest

import layermodel
from layermodel import Inode, LayerTar, merge
from ocimake import Image
from programs import build_dir
from test_image import SKIP, assert_same_trees, rich_layers, umoci

STORECTL = os.path.join(build_dir(), "tests/flow/store/storectl")


def storectl(*args, ok=True, **kw):
    p = subprocess.run([STORECTL, *map(str, args)], capture_output=True, timeout=100, **kw)
    err = p.stderr.decode(errors="replace")
    assert "Sanitizer" not in err and "runtime error:" not in err, err
    assert (p.returncode == 0) == ok, err
    return p.stdout.decode() if ok else err


class Built:
    """An image in a directory of its own: DIR/<n>/{pack,index,objects}, DIR/meta."""

    def __init__(self, path, tars, threshold=0):
        self.dir, self.layers = pathlib.Path(path), []
        self.dir.mkdir(parents=True, exist_ok=True)
        for i, tar in enumerate(tars):
            d = self.dir / str(i)
            d.mkdir()
            storectl("layer", d, threshold, hashlib.sha256(tar).hexdigest(), input=tar)
            self.layers.append(d)
        self.meta = self.dir / "meta"
        out = storectl("image", self.meta, *[d / "index" for d in self.layers]).split()
        self.bytes, self.inodes, self.objects = map(int, out[:3])
        self.devices = [self.layers[int(n)] / "pack" for n in out[3:]]
        assert self.meta.stat().st_size == self.bytes

    def fsck(self, content=True):
        p = subprocess.run(["fsck.erofs", *["--device=%s" % d for d in self.devices], *(["--extract"] if content else []), self.meta], capture_output=True, text=True, timeout=100)
        assert p.returncode == 0, p.stdout + p.stderr
        assert "<E>" not in p.stderr + p.stdout, p.stderr

    @contextlib.contextmanager
    def mounted(self):
        """From plain files where the kernel can, which is from 6.12 on; else by loop devices."""
        if tuple(map(int, re.match(r"(\d+)\.(\d+)", os.uname().release).groups())) < (6, 12):
            with self.mounted_by_loop() as m:
                yield m
            return
        target = self.dir / "mnt"
        target.mkdir(exist_ok=True)
        storectl("mount", self.meta, target, *self.devices)
        try:
            yield str(target)
        finally:
            subprocess.run(["umount", target], check=True)

    @contextlib.contextmanager
    def mounted_by_loop(self):
        target, loops = self.dir / "mnt", []
        target.mkdir(exist_ok=True)
        try:
            for f in [self.meta, *self.devices]:
                loops.append(subprocess.run(["losetup", "-r", "-f", "--show", f], check=True,
                                            capture_output=True, text=True).stdout.strip())
            storectl("mount", loops[0], target, *loops[1:])
            try:
                yield str(target)
            finally:
                subprocess.run(["umount", target], check=True)
        finally:
            for dev in loops:
                subprocess.run(["losetup", "-d", dev], check=True)

    @contextlib.contextmanager
    def overlaid(self):
        """The metadata over the objects of all layers, as a host has them in one place."""
        objects, target = self.dir / "objects", self.dir / "over"
        target.mkdir(exist_ok=True)
        for layer in self.layers:
            names = (layer / "objects.names").read_bytes()[16:]
            for i in range(len(names) // 40):
                sha, size = names[i * 40:][:32].hex(), int.from_bytes(names[i * 40 + 32:][:8], "little")
                if size == 0:
                    continue  # replaced by a later entry
                data = (layer / "objects" / str(i)).read_bytes()
                assert hashlib.sha256(data).hexdigest() == sha and len(data) == size
                (objects / sha[:2]).mkdir(parents=True, exist_ok=True)
                (objects / sha[:2] / sha[2:]).write_bytes(data)
        with self.mounted() as lower:
            subprocess.run(["mount", "-t", "overlay", "overlay", "-o",
                            f"ro,metacopy=on,redirect_dir=on,lowerdir={lower}::{objects}", target],
                           check=True)
            try:
                yield str(target)
            finally:
                subprocess.run(["umount", target], check=True)


def holds(built, tree):
    built.fsck()
    with built.mounted() as m:
        assert layermodel.differences(tree, m) == []


@pytest.mark.parametrize("seed", range(24))
def test_random_layers(tmp_path, seed):
    rng = random.Random(seed)
    layers = [layermodel.random_layer(rng, rng.choice([5, 40, 150])) for _ in range(rng.randint(1, 6))]
    holds(Built(tmp_path, [l.bytes() for l in layers]), merge(layers))


def test_the_same_layers_give_the_same_bytes(tmp_path):
    layers = [layermodel.random_layer(random.Random(i), 100) for i in range(4)]
    tars = [l.bytes() for l in layers]
    one, two = Built(tmp_path / "1", tars, 4096), Built(tmp_path / "2", tars, 4096)
    for a, b in [(one.meta, two.meta)] + [(x / f, y / f) for x, y in zip(one.layers, two.layers)
                                          for f in ("pack", "index")]:
        assert a.read_bytes() == b.read_bytes(), a


@pytest.mark.parametrize("seed", range(100, 104))
def test_objects_by_a_data_only_lower(tmp_path, seed):
    rng = random.Random(seed)
    layers = [layermodel.random_layer(rng, 120) for _ in range(3)]
    built = Built(tmp_path, [l.bytes() for l in layers], 4096)
    built.fsck()
    assert built.objects > 0
    with built.overlaid() as m:
        bad = [b for b in layermodel.differences(merge(layers), m)
               if b[1] not in ("links", "is another inode")]  # overlayfs counts its own
        assert bad == []


@pytest.mark.parametrize("threshold", [0, 1000])
def test_tree_is_what_umoci_makes(tmp_path, threshold):
    rootfs = umoci(Image(rich_layers()).write_layout(str(tmp_path / "layout")), tmp_path)
    built = Built(tmp_path / "i", rich_layers(), threshold)
    built.fsck()
    with built.overlaid() if threshold else built.mounted() as m:
        assert_same_trees(m, rootfs, SKIP)


def test_by_loop_devices(tmp_path):
    layers = [layermodel.random_layer(random.Random(77 + i), 80) for i in range(3)]
    built = Built(tmp_path, [l.bytes() for l in layers])
    assert len(built.devices) >= 2
    with built.mounted_by_loop() as m:
        assert layermodel.differences(merge(layers), m) == []


def test_all_on_one_device(tmp_path):
    """What a microVM gets: the metadata and its packs behind each other, no device named."""
    layers = [layermodel.random_layer(random.Random(31 + i), 80) for i in range(4)]
    built = Built(tmp_path, [l.bytes() for l in layers])
    flat = tmp_path / "flat"
    flat.write_bytes(b"".join(f.read_bytes() for f in [built.meta, *built.devices]))
    built.meta, built.devices = flat, []
    with built.mounted() as m:
        assert layermodel.differences(merge(layers), m) == []


def test_times_before_1970_and_far_away(tmp_path):
    layer = LayerTar()
    for i, s in enumerate([-1, -5 * 10**9, 0, 2**31, 2**32 + 1, 2**40]):
        layer.add("f%d" % i, Inode("file", 0o644, mtime=s * 10**9, data=b"x"))
    holds(Built(tmp_path, [layer.bytes()]), merge([layer]))


def test_without_any_file(tmp_path):
    base, top = LayerTar(), LayerTar()
    base.add("a/b", Inode("file", 0o644, data=b"x"))
    top.whiteout("a")
    empty = Built(tmp_path / "1", [LayerTar().bytes()])
    assert empty.devices == [] and empty.inodes == 1
    holds(empty, merge([LayerTar()]))
    gone = Built(tmp_path / "2", [base.bytes(), top.bytes()])
    assert len(gone.devices) == 1 and gone.inodes == 1, "a pack that nothing points into is a device still"
    holds(gone, merge([base, top]))
    only_dirs = LayerTar()
    only_dirs.add("x/y", Inode("dir", 0o700, 1, 2))
    holds(Built(tmp_path / "3", [only_dirs.bytes(), LayerTar().bytes()]), merge([only_dirs]))


def test_long_names_large_directories_and_deep_paths(tmp_path):
    layer = LayerTar()
    for i in range(3000):
        layer.add("many/%05d-%s" % (i, "x" * (i % 240)), Inode("file", 0o644, data=b"%d" % i))
    for name in ["y" * 255, "z" * 254, "\xe4" * 127]:
        layer.add("long/" + name, Inode("file", 0o600, mtime=10**18 + 1, data=name.encode()))
    for n in (1, 59, 60, 61, 4000, 4031, 4032, 4033, 4095):
        layer.add("links/%d" % n, Inode("symlink", 0o777, data=b"l" * n))
    layer.add("/".join(["d"] * 250), Inode("file", 0o644, data=b"deep"))
    layer.add("attributes", Inode("file", 0o644, xattrs={"user.%03d" % i: b"v" * 1000 for i in range(60)}))
    for i in range(300):  # inodes whose attributes lie across blocks, and directories beside them
        layer.add("x/%d" % i, Inode("dir", 0o755, mtime=i, xattrs={"user.a": b"w" * (i * 13 + 1)}))
    holds(Built(tmp_path, [layer.bytes()]), merge([layer]))


def test_many_layers(tmp_path):
    layers = []
    for i in range(120):
        layer = LayerTar()
        for j in range(20):
            layer.add("dir%d/f%d" % (j, i % 50), Inode("file", 0o644, i, j, i * 1000, b"%d" % i))
        layer.add("only%d" % i, Inode("file", 0o644, data=b"x" * i))
        if i % 10 == 9:
            layer.whiteout("dir3")
        layers.append(layer)
    built = Built(tmp_path, [l.bytes() for l in layers])
    assert len(built.devices) == 120
    holds(built, merge(layers))


def sparse_tar(path, size, parts):
    """GNU tar's own description of a file with holes."""
    with open(path, "wb") as f:
        for at, data in parts:
            f.seek(at)
            f.write(data)
        f.truncate(size)
    return subprocess.run(["tar", "-C", path.parent, "--sparse", "--format=pax", "--numeric-owner",
                           "--owner=0", "--group=0", "-c", path.name], check=True,
                          capture_output=True).stdout


def test_sparse_files(tmp_path):
    tib = 1 << 40
    tars = [sparse_tar(tmp_path / "huge", tib, [(0, b"begin"), (tib // 2 + 12345, b"middle")]),
            sparse_tar(tmp_path / "hole", 5 << 30, []),
            sparse_tar(tmp_path / "small", 1 << 20, [(4096 * 3, b"a" * 5000), ((1 << 20) - 1, b"z")])]
    built = Built(tmp_path / "i", tars, 4096)
    built.fsck(content=False)  # it would read a tebibyte of zeros
    assert built.objects == 0, "holes are not hashed"
    with built.mounted() as m:
        assert os.stat(m + "/huge").st_size == tib and os.stat(m + "/hole").st_size == 5 << 30
        with open(m + "/huge", "rb") as f:
            assert f.read(6) == b"begin\0"
            f.seek(tib // 2 + 12344)
            assert f.read(8) == b"\0middle\0"
            f.seek(tib - 10)
            assert f.read() == bytes(10)
        with open(m + "/hole", "rb") as f:
            f.seek(4 << 30)
            assert f.read(100) == bytes(100)
        assert open(m + "/small", "rb").read() == (tmp_path / "small").read_bytes()
    packs = sum(os.stat(d).st_blocks * 512 for d in built.devices)
    assert packs < 200 << 10, "what the pack skips costs nothing"
    assert built.bytes < 2 << 20


def test_an_index_with_a_flipped_bit_is_refused_or_harmless(tmp_path):
    layer = layermodel.random_layer(random.Random(5), 60)
    built = Built(tmp_path / "i", [layer.bytes()], 4096)
    good, rng = (built.layers[0] / "index").read_bytes(), random.Random(6)
    refused = 0
    for i in range(150):
        data, at = bytearray(good), rng.randrange(len(good))
        data[at] ^= 1 << rng.randrange(8)
        (tmp_path / "bad").write_bytes(data)
        p = subprocess.run([STORECTL, "check", tmp_path / "bad"], capture_output=True, text=True)
        assert p.returncode in (0, 1), p.stderr
        refused += p.returncode
        if p.returncode == 0:
            (tmp_path / "meta").unlink(missing_ok=True)
            shutil.copy(built.layers[0] / "objects.names", tmp_path)
            storectl("image", tmp_path / "meta", tmp_path / "bad")
    assert refused > 20
    for n in (0, 1, 127, 128, len(good) // 2, len(good) - 8, len(good) - 1):
        (tmp_path / "bad").write_bytes(good[:n])
        assert "damaged" in storectl("check", tmp_path / "bad", ok=False) or n == 0


@pytest.mark.parametrize("what, message", [
    (lambda l: l._write("a", tarfile.LNKTYPE, Inode("file"), link="nowhere"), "hard link"),
    (lambda l: l._write("../a", tarfile.REGTYPE, Inode("file")), "climbs out"),
    (lambda l: l.add("a", Inode("file", uid=65536)), "outside 0..65535"),
    (lambda l: l._write("./", tarfile.SYMTYPE, Inode("file"), link="x"), "root is not a directory"),
])
def test_refused(tmp_path, what, message):
    layer = LayerTar()
    what(layer)
    tar = layer.bytes()
    assert message in storectl("layer", tmp_path, 0, hashlib.sha256(tar).hexdigest(), input=tar, ok=False)


def test_attributes_that_a_layer_may_not_bring(tmp_path):
    layer = LayerTar()
    layer.add("f", Inode("file", 0o755, data=b"x" * 9000, xattrs={
        "trusted.overlay.redirect": b"/00/11", "trusted.overlay.metacopy": b"x", "user.overlay.opaque": b"y",
        "security.selinux": b"s", "system.posix_acl_access": b"p", "user.fine": b"1"}))
    built = Built(tmp_path, [layer.bytes()])
    with built.mounted() as m:
        assert os.listxattr(m + "/f") == ["user.fine"]
        assert b"trusted" not in b"".join(os.fsencode(x) for x in os.listxattr(m + "/f"))


def test_ids_are_mapped(tmp_path):
    """The metadata file system carries an idmapped mount with ids 0..65535."""
    layer = LayerTar()
    layer.add("f", Inode("file", 0o644, 0, 65535, data=b"hello"))
    built = Built(tmp_path, [layer.bytes()])
    with built.mounted() as m:
        st = os.stat(m + "/f")
        assert (st.st_uid, st.st_gid) == (0, 65535)


def test_fifty_thousand_files(tmp_path):
    file, tar = io.BytesIO(), None
    with tarfile.open(fileobj=file, mode="w") as tar:
        for i in range(50000):
            info = tarfile.TarInfo("usr/share/d%03d/file-%d" % (i // 100, i))
            info.size = 100
            tar.addfile(info, io.BytesIO(b"%0100d" % i))
    begin = time.monotonic()
    built = Built(tmp_path, [file.getvalue()])
    took = time.monotonic() - begin
    with built.mounted() as m:
        names = [os.path.join(b, f) for b, _, fs in os.walk(m) for f in fs]
        assert len(names) == 50000
        assert open(names[-1], "rb").read() == b"%0100d" % int(names[-1].rpartition("-")[2])
    assert took < 5, took
