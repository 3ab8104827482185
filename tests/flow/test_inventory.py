"""tests/lib/inventory.py sees what it promises to see (root): one of each kind is made, found, and
taken away again."""
import contextlib
import os
import shutil
import subprocess

import pytest

import inventory

TAG = f"zz{os.getpid()}"


def sh(*argv):
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()


@contextlib.contextmanager
def made(make, undo):
    got = sh(*make)
    try:
        yield got
    finally:
        sh(*(w.replace("@", got) for w in undo))


def mount(tmp_path):
    (tmp_path / "m").mkdir()
    return made(["mount", "-t", "tmpfs", "x", str(tmp_path / "m")], ["umount", str(tmp_path / "m")])


@contextlib.contextmanager
def mount_elsewhere(tmp_path):
    """In a mount namespace that only a process holds."""
    (tmp_path / "m").mkdir()
    p = subprocess.Popen(["unshare", "-m", "sh", "-c",
                          f"mount -t tmpfs x {tmp_path}/m && echo up && exec sleep 60"],
                         stdout=subprocess.PIPE)
    try:
        assert p.stdout.read(3) == b"up\n"
        yield
    finally:
        p.kill()
        p.wait()


@contextlib.contextmanager
def process(tmp_path):
    shutil.copy("/bin/sleep", tmp_path / "vmm-sleep")
    p = subprocess.Popen([tmp_path / "vmm-sleep", "60"])
    try:
        yield
    finally:
        p.kill()
        p.wait()


def loop(tmp_path):
    with open(tmp_path / "disk", "wb") as f:
        f.truncate(1 << 20)
    return made(["losetup", "--show", "-f", str(tmp_path / "disk")], ["losetup", "-d", "@"])


def link(tmp_path):
    return made(["ip", "link", "add", f"hv{TAG}", "type", "veth", "peer", "name", f"hx{TAG}"],
                ["ip", "link", "del", f"hv{TAG}"])


def address(tmp_path):
    return made(["ip", "address", "add", "192.0.2.77/32", "dev", "lo", "label", f"lo:hv-{TAG[-6:]}"],
                ["ip", "address", "del", "192.0.2.77/32", "dev", "lo"])


def table(tmp_path):
    return made(["nft", "add", "table", "ip", f"hvmm_{TAG}"], ["nft", "delete", "table", "ip",
                                                                  f"hvmm_{TAG}"])


def namespace(tmp_path):
    return made(["ip", "netns", "add", f"hv{TAG}"], ["ip", "netns", "del", f"hv{TAG}"])


@contextlib.contextmanager
def group(tmp_path):
    top = next(line.split()[4] for line in open("/proc/self/mountinfo", encoding="utf-8")
               if " - cgroup" in line and ("memory" in line or "cgroup2" in line))
    path = os.path.join(top, f"hvmm-{TAG}")
    os.makedirs(os.path.join(path, "m-x"))
    try:
        yield
    finally:
        os.rmdir(os.path.join(path, "m-x"))
        os.rmdir(path)


KINDS = {"mounts": mount, "mounts in a process": mount_elsewhere, "processes": process,
         "loop devices": loop, "links": link, "addresses": address, "nft tables": table,
         "named namespaces": namespace, "cgroups": group}


def test_what_may_be_gone():
    """Of a host that has ended or is dead, everything; of one that runs, nothing that it always has."""
    def world(*engines, things=True):
        had = {"nft tables": {("inet", "hvmm_" + i) for i in "ab"},
               "addresses": {("lo", "100.96.9.9", "lo:hv-" + i) for i in "ab"},
               "cgroups": {f"/sys/fs/cgroup/{g}/hvmm-{i}" for g in ("cpu", "pids") for i in "ab"} |
                          {"/sys/fs/cgroup/cpu/hvmm-a/c1"},
               "run entries": {f"{i}/node.sock" for i in "ab"} | {"slots/1"}}
        return {**{k: v if things else set() for k, v in had.items()}, "engines": set(engines)}

    before, a = world(("a", 1, 1)), {"nft tables", "addresses", "cgroups", "run entries"}
    assert inventory.compare(before, world(things=False), gone_ok=True) == []
    assert inventory.compare(before, world(("a", 2, 9), things=False), gone_ok=True) == []
    lines = inventory.compare(before, world(("a", 1, 1), things=False), gone_ok=True)
    assert {line.split(":")[0] for line in lines} == a and len(lines) == 5, lines
    assert len(inventory.compare(before, world(things=False))) == 12
    assert inventory.compare(before, before) == []


@pytest.mark.parametrize("kind", KINDS)
def test_is_seen(kind, tmp_path):
    before = inventory.take([tmp_path])
    with KINDS[kind](tmp_path):
        seen = [line for line in inventory.compare(before, inventory.take([tmp_path]))
                if line.startswith(kind.split(" in ")[0] + ": left behind: ") and
                (TAG[-6:] in line or str(tmp_path) in line or "vmm-sleep" in line)]
        assert seen, f"{kind} is not seen"
        with pytest.raises(AssertionError, match="left behind"):
            inventory.assert_same(before, [tmp_path], wait_s=0.2)
    after = [line for line in inventory.compare(before, inventory.take([tmp_path]))
             if TAG[-6:] in line or str(tmp_path) in line]
    if kind == "mounts":  # a namespace that another test made meanwhile has a copy
        after = [line for line in after if os.readlink("/proc/self/ns/mnt") in line]
    assert after == []
