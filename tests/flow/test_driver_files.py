"""What the launcher adds to a root from the host (engine/sandbox/inject.c): driver files, links and
the loader's cache, in images of every layout and in images that set traps."""
import base64
import gzip
import os
import re
import shutil
import socket
import subprocess

import pytest

from test_sandbox import go, image, order, program, say  # noqa: F401  pylint: disable=unused-import

MULTIARCH = "usr/lib/x86_64-linux-gnu"
LIBRARY = "@lib/libcuda.so.9"


@pytest.fixture
def driver(tmp_path):
    """A host's driver files; afterwards they are what they were."""
    d = tmp_path / "driver"
    d.mkdir()
    for i in range(100):
        (d / f"f{i}").write_text(f"file {i}\n")
    (d / "firmware").mkdir()
    (d / "firmware/gsp.bin").write_text("gsp\n")
    yield d
    for i in range(100):
        assert (d / f"f{i}").read_text() == f"file {i}\n"
    assert sorted(os.listdir(d / "firmware")) == ["gsp.bin"]


def lib(driver, target=LIBRARY, **kw):
    return {"host": {target: str(driver / "f1")}, **kw}


def test_many(order, driver):
    """More mounts than one note carries: each lies where it belongs, read-only and without rights."""
    host = {f"@lib/f{i}": str(driver / f"f{i}") for i in range(100)}
    out = say(order, "cat /usr/lib64/f*; grep -c ' /usr/lib64/f[0-9]* ro,nosuid,nodev' "
                     "/proc/self/mountinfo; echo x > /usr/lib64/f7 || rm /usr/lib64/f7 || echo no",
              host=host).split("\n")
    assert sorted(out[:100]) == sorted(f"file {i}" for i in range(100))
    assert out[100] == "100"
    assert "no" in out[101:]  # among what the two commands say, in any order: those are two streams


def test_directory(order, driver):
    assert say(order, "cat /lib/firmware/x/gsp.bin; touch /lib/firmware/x/new 2>&- || echo ro",
               host={"/lib/firmware/x": str(driver / "firmware")}).split("\n") == ["gsp", "ro"]


@pytest.mark.parametrize("dirs, want", [
    ([MULTIARCH, "usr/lib64"], MULTIARCH),
    (["usr/lib64", "usr/lib"], "usr/lib64"),
    (["usr/lib"], "usr/lib"),
    ([], "usr/lib64"),
])
def test_layouts(order, driver, image, dirs, want):
    for d in dirs:
        (image.base / d).mkdir(parents=True, exist_ok=True)
    out = say(order, f"cat /{want}/libcuda.so.9; readlink /{want}/libcuda.so; cat /{want}/libcuda.so",
              **lib(driver, symlinks={"@lib/libcuda.so": "libcuda.so.9"}))
    assert out == "file 1\nlibcuda.so.9\nfile 1"


# what lies at the library's place in the image, and what is seen there in the end
def as_link(to):
    return lambda p: p.symlink_to(to)


def as_fifo(p):
    os.mkfifo(p)


def as_socket(p):
    s = socket.socket(socket.AF_UNIX)
    here = os.getcwd()
    os.chdir(p.parent)  # the name must fit
    s.bind(p.name)
    os.chdir(here)
    s.close()


def as_node(p):
    os.mknod(p, 0o20666, os.makedev(1, 3))


def as_file(p):
    p.write_text("the image's own")


@pytest.mark.parametrize("trap", [
    as_link("/etc/passwd"), as_link("../../../../../../etc/passwd"), as_link("/nowhere"),
    as_link("libcuda.so.9"), as_link("/proc/1/root/etc/passwd"), as_link("/proc/self/fd/3"),
    as_link("/"), as_fifo, as_socket, as_node, as_file])
def test_last_component(order, driver, image, trap):
    """Whatever is there gives way; nothing is followed, on neither side."""
    (image.base / MULTIARCH).mkdir(parents=True)
    trap(image.base / MULTIARCH / "libcuda.so.9")
    before = (image.base / "etc/passwd").read_text()
    host = open("/etc/passwd", encoding="utf-8").read()
    out = say(order, f"cat /{MULTIARCH}/libcuda.so.9; cat /etc/passwd; "
                     f"grep -c ' /{MULTIARCH}/libcuda.so.9 ' /proc/self/mountinfo", **lib(driver))
    assert out == "file 1\n" + before + "1"
    assert open("/etc/passwd", encoding="utf-8").read() == host


def test_directory_in_the_way(order, driver, image):
    (image.base / MULTIARCH / "libcuda.so.9/deep").mkdir(parents=True)
    first = go(order, program("true", **lib(driver)))
    assert first.r < 0
    assert first.err == (f"image: no driver file can be shown at /{MULTIARCH}/libcuda.so.9: "
                         "Is a directory")


@pytest.mark.parametrize("link, to", [
    ("usr", "/etc"), ("usr/lib", "/etc"), (MULTIARCH, "/etc"), (MULTIARCH, "../../../etc"),
    (MULTIARCH, "/../../../etc"), ("usr", "/tmp"), ("usr/lib", "/made/by/us"), ("usr", "/dev")])
def test_directory_links(order, driver, image, link, to):
    """Directories that are links, absolute ones too, lead to places of the cluster's alone."""
    (image.base / link).parent.mkdir(parents=True, exist_ok=True)
    (image.base / link).symlink_to(to)
    first = go(order, program("find / -xdev -name libcuda.so.9 | head -1 | xargs cat; "
                              "find /dev -name libcuda.so.9 | xargs cat", **lib(driver)))
    assert first.r < 0 and first.err.startswith("image: ") or "file 1" in first.ok(), first.err
    for d in ("/", "/etc", "/tmp", "/dev", "/made", os.getcwd()):
        assert not os.path.lexists(d + "/libcuda.so.9") and not os.path.exists("/made"), d


@pytest.mark.parametrize("link, to", [
    ("usr", "/proc"), ("usr/lib", "/proc/self"), (MULTIARCH, "/proc/driver"), ("usr", "/sys"),
    (MULTIARCH, "/proc/self/root/etc"), (MULTIARCH, "/proc/1/cwd"), (MULTIARCH, "/dev/pts"),
    ("usr", "usr"), (MULTIARCH, "/proc/self/fd"), (MULTIARCH, "/bin/busybox")])
def test_directory_traps(order, driver, image, link, to):
    """Ways into the kernel's trees, through magic links and in circles: refused with a sentence."""
    (image.base / link).parent.mkdir(parents=True, exist_ok=True)
    (image.base / link).symlink_to(to)
    first = go(order, program("find / -name libcuda.so.9", **lib(driver)))
    if first.r >= 0:  # no such place: another was chosen
        assert first.out.split("\n")[0].startswith("/usr/lib"), first.out
    else:
        assert first.err.startswith("image: no driver file can be shown at "), first.err


@pytest.mark.parametrize("trap", [as_link("/etc/passwd"), as_link("/nowhere"), as_fifo, as_file])
def test_links(order, driver, image, trap):
    (image.base / MULTIARCH).mkdir(parents=True)
    trap(image.base / MULTIARCH / "libcuda.so")
    assert say(order, f"readlink /{MULTIARCH}/libcuda.so; head -1 /etc/passwd",
               **lib(driver, symlinks={"@lib/libcuda.so": "libcuda.so.9"})) == \
        "libcuda.so.9\nroot:x:0:0:root:/root:/bin/sh"


def test_link_where_a_directory_is(order, driver, image):
    (image.base / MULTIARCH / "libcuda.so").mkdir(parents=True)
    first = go(order, program("true", **lib(driver, symlinks={"@lib/libcuda.so": "x"})))
    assert first.r < 0 and f"no link can be made at /{MULTIARCH}/libcuda.so: Is a directory" in first.err


@pytest.mark.parametrize("target", ["@lib/..", "@lib/.", "@lib/", "/", "/usr/..", "relative", "@lib",
                                    "@lib/../../etc/passwd", "/usr/../etc/passwd"])
def test_odd_targets(order, driver, target):
    first = go(order, program("true", **lib(driver, target)))
    assert first.r < 0, target


# ---- the loader's cache

def listed(path):
    out = subprocess.run(["/sbin/ldconfig", "-C", path, "-p"], capture_output=True, text=True,
                         check=True).stdout
    return re.findall(r"^\t(\S+) \(([^)]*)\) => (\S+)$", out, re.M)


CACHE = {"libraries": {"@lib/libcuda.so.1": "libcuda.so.1", "@lib/libcuda.so": "libcuda.so",
                       "@lib32/libcuda.so.1": "libcuda.so.1", "/opt/x/libm.so.6": "libm.so.6"}}


def cache_of(order, driver, tmp_path, **kw):
    """The cache that a cluster ends up with, as text that ldconfig lists."""
    out = say(order, "gzip -c /etc/ld.so.cache | base64; ls -l /etc/ld.so.cache", **lib(driver, **CACHE, **kw))
    lines = out.split("\n")
    assert lines[-1].startswith("-rw-r--r--"), lines[-1]
    (tmp_path / "cache").write_bytes(gzip.decompress(base64.b64decode("".join(lines[:-1]))))
    return listed(tmp_path / "cache")


def test_cache_anew(order, driver, tmp_path):
    got = cache_of(order, driver, tmp_path)
    assert sorted(got) == sorted([
        ("libcuda.so.1", "libc6,x86-64", "/usr/lib64/libcuda.so.1"),
        ("libcuda.so.1", "libc6", "/usr/lib32/libcuda.so.1"),
        ("libcuda.so", "libc6,x86-64", "/usr/lib64/libcuda.so"),
        ("libm.so.6", "libc6,x86-64", "/opt/x/libm.so.6")])


def test_cache_added_to(order, driver, image, tmp_path):
    shutil.copy("/etc/ld.so.cache", image.base / "etc/ld.so.cache")
    (image.base / MULTIARCH).mkdir(parents=True)
    old = listed("/etc/ld.so.cache")
    got = cache_of(order, driver, tmp_path)
    assert ("libcuda.so.1", "libc6,x86-64", f"/{MULTIARCH}/libcuda.so.1") in got
    kept = [x for x in old if x[:2] not in {y[:2] for y in got if y not in old}]
    assert len(kept) > 20 and [x for x in got if x in kept] == kept  # in the same order, too


@pytest.mark.parametrize("trap", [
    lambda p: p.write_bytes(b""), lambda p: p.write_bytes(b"glibc-ld.so.cache1.1"),
    lambda p: p.write_bytes(os.urandom(4096)), lambda p: os.truncate(os.open(p, os.O_CREAT | os.O_RDWR),
                                                                    1 << 40),
    as_fifo, as_node, as_link("/etc/passwd"), as_link("/proc/kmsg"), as_link("/dev/zero"),
    as_link("/nowhere/at/all")])
def test_cache_traps(order, driver, image, tmp_path, trap):
    trap(image.base / "etc/ld.so.cache")
    assert len(cache_of(order, driver, tmp_path)) == 4


def test_conf_for_a_later_ldconfig(order, driver):
    """Directories that the image would not look into by itself."""
    out = say(order, "cat /etc/ld.so.conf.d/*", **lib(driver, **CACHE))
    assert out.split("\n")[1:] == ["/opt/x"]
    assert say(order, "ls /etc/ld.so.conf.d 2>&1 | wc -l",
               **lib(driver, libraries={"@lib/libcuda.so.1": "libcuda.so.1"})) == "1"


# ---- /proc/driver

def test_proc_driver(order, driver):
    """Nobody sees the host's; with GPUs, what the gpu stage mounts."""
    assert say(order, "ls /proc/driver | wc -l; touch /proc/driver/x 2>/dev/null || echo no") == "0\nno"
    assert say(order, "cat /proc/driver/gsp.bin",
               host={"/proc/driver": str(driver / "firmware")}) == "gsp"
