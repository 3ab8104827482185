"""The GPU stack: what brings a driver's files and nodes into a cluster, against images and tenants."""
import json
import os
import re
import time

import pytest

import attack
from attack import image, layer
from host import ApiError
from ocimake import Image, Layer

MULTIARCH = "usr/lib/x86_64-linux-gnu"
GPU = {"gpuCount": 1, "gpuTypeId": "NVIDIA A100-SXM4-80GB"}


@pytest.fixture(scope="module")
def world():
    with attack.World({"engine": {"gpu_driver": "simulated:a100x8"}}) as w:
        yield w


def driver_files(world):
    """{path: bytes} of the host's driver files that clusters get to see."""
    found = {}
    for root, _, names in os.walk("/run/hypervisor-vmm/%s/simulated" % world.id):
        for n in names:
            path = os.path.join(root, n)
            if os.path.isfile(path) and not os.path.islink(path):
                with open(path, "rb") as f:
                    found[path] = f.read()
    return found


def wait(check, timeout=60):
    end = time.monotonic() + timeout
    while not check():
        assert time.monotonic() < end
        time.sleep(0.02)


def began(world, cluster, gpus):
    """A change of its GPUs was begun; False while another is under way."""
    try:
        world.call("clusterUpdate", cluster, key=world.keys["mallory"], gpuCount=gpus)
    except ApiError as e:
        if "try again in a moment" in str(e):
            return False
        raise
    return True


def rent(world, name, tree=None, who="mallory", config=None, **fields):
    world.add_image(name, image(*([tree.tar()] if tree else []), **(config or {})))
    return world.rent(who, imageName=name, wait=False, **GPU, **fields)


def settle(world, c, who="mallory"):
    return world.until_any(c, who, lambda x: x["runtime"] or x["reason"])


# ---- CVE-2024-0132, -2025-23359: what is at the place of a driver's file, and what it becomes meanwhile

@pytest.mark.parametrize("link, to", attack.some([
    (MULTIARCH, "{c}"), (MULTIARCH, "../../../../../..{c}"), ("usr/lib", "{c}"), ("usr", "{c}"), ("usr/bin", "{c}"),
    (MULTIARCH + "/libnvidia-ml.so.1", "{c}/x"), (MULTIARCH + "/libcuda.so.1", "{f}"), ("usr/bin/nvidia-smi", "{f}"),
    ("etc/ld.so.cache", "{f}"), ("etc/ld.so.conf.d", "{c}"), ("lib/firmware", "{c}"), ("run", "{c}"),
    (MULTIARCH, "/proc/1/root{c}"), (MULTIARCH, "/proc/self/fd/3")]))
def test_cve_2024_0132_2025_23359_links_at_library_mounts(world, canary, link, to):
    """Where the driver's files go the image has links to the host's directories and files."""
    before = driver_files(world)
    tree = Layer().symlink(link, to.format(c=canary.empty, f=canary.file))
    c = rent(world, "gpulinks", tree)
    seen = settle(world, c)
    if seen["runtime"]:
        said = world.sh(c, "cat /%s; ls -R %s; cat %s/* %s" % (link, canary.empty, canary.empty, canary.file))
        said += world.attack(c, "spoil", "spoiled", "/" + link, str(canary.file))
        canary.check(said)
    world.end(c)
    canary.check()
    if driver_files(world) != before:
        attack.changed("the host's driver files were written")


@pytest.mark.limit(240)
def test_cve_2025_23359_toctou_on_library_mounts(world, canary):
    """GPUs come to a cluster that runs and go again, while root inside turns the directories of the
    driver's files into links to the host's and back."""
    before, rounds = driver_files(world), 12
    assert before
    c = world.rent(**GPU)
    points = [line.split()[4] for line in world.sh(c, "cat /proc/self/mountinfo").splitlines()]
    target = os.path.dirname([p for p in points if p.startswith("/usr/lib")][0])
    world.call("clusterUpdate", c, key=world.keys["mallory"], gpuCount=0)
    world.until(c, "mallory", lambda x: x["gpuCount"] == 0)
    with world.beside(c, attack.TOOL, "swap", target, str(canary.empty), "/stop", ready=b"swapping", stop="/stop") as said:
        for i in range(rounds):
            for n in (1, 0):
                wait(lambda: began(world, c, n))
    print("%d attachments, %s" % (rounds, said[0].split("\n")[-2]))
    world.end(c)
    canary.check()
    if driver_files(world) != before:
        attack.changed("the host's driver files were written")


def test_driver_files_cannot_be_written(world, canary):
    """Root inside, by every name of each file."""
    before = driver_files(world)
    c = world.rent(**GPU)
    said = world.sh(c, "for f in $(grep -o ' /usr/[^ ]*' /proc/self/mountinfo); do attack spoil x $f; chmod 777 $f; rm -f $f; "
                       "mv $f /tmp/; echo x >> $f; done")
    assert "WROTE" not in said and "refused" in said, said
    world.end(c)
    if driver_files(world) != before:
        attack.changed("the host's driver files were written")


# ---- CVE-2025-23266, -23267: what of the image runs, or is read, on the host's side

def test_cve_2025_23266_ld_preload_and_hooks(world, canary):
    """The image's environment, loader and hooks are for the loader of whoever runs on the host: nothing
    of it runs there, so the canary keeps its time and its content."""
    evil = b"#!/bin/sh\ntouch %s/ran; cat %s\n" % (str(canary.empty).encode(), str(canary.file).encode())
    tree = Layer()
    for d in ("usr", "usr/bin", "usr/sbin", "sbin", "etc", "etc/ld.so.conf.d", "usr/share", "usr/share/containers",
              "usr/share/containers/oci", "usr/share/containers/oci/hooks.d", "etc/nvidia-container-runtime", "etc/cdi"):
        tree.dir(d)
    for name in ("sbin/ldconfig", "sbin/ldconfig.real", "usr/sbin/ldconfig", "usr/bin/nvidia-smi", "usr/bin/nvidia-cdi-hook",
                 "usr/bin/nvidia-ctk", "usr/bin/nvidia-container-runtime-hook", "bin/modprobe", "proc.so", "evil.so"):
        tree.file(name, evil, mode=0o755)
    hook = json.dumps({"version": "1.0.0", "hook": {"path": "/bin/sh", "args": ["sh", "-c", evil.decode()]},
                       "when": {"always": True}, "stages": ["prestart", "createContainer"]}).encode()
    tree.file("usr/share/containers/oci/hooks.d/x.json", hook).file("etc/ld.so.preload", b"/evil.so\n")
    tree.file("etc/cdi/x.json", json.dumps({"cdiVersion": "0.6.0", "kind": "nvidia.com/gpu", "devices": [
        {"name": "all", "containerEdits": {"mounts": [{"hostPath": str(canary.dir), "containerPath": "/stolen"}],
                                           "hooks": [{"hookName": "createContainer", "path": "/bin/sh"}]}}]}).encode())
    env = ["PATH=/bin", "LD_PRELOAD=/evil.so", "LD_AUDIT=/evil.so", "LD_LIBRARY_PATH=/", "GCONV_PATH=/", "BASH_ENV=/sbin/ldconfig",
           "NVIDIA_VISIBLE_DEVICES=all", "NVIDIA_DRIVER_CAPABILITIES=all", "NVIDIA_REQUIRE_CUDA=", "CUDA_ENABLE_COREDUMP_ON_EXCEPTION=1",
           "NVIDIA_CONFIG=%s" % canary.file, "XDG_CONFIG_HOME=/etc"]
    world.add_image("hooks", Image([layer().tar(), tree.tar()], config={
        "Cmd": ["/bin/sleep", "100000"], "Env": env, "Labels": {"com.nvidia.volumes.needed": "nvidia_driver",
                                                               "hooks": hook.decode()}}))
    c = world.rent(imageName="hooks", **GPU)
    canary.check(world.sh(c, "ls /stolen; cat /stolen/*; ls /dev"))
    assert len(re.findall(r"^nvidia\d+$", world.sh(c, "ls /dev"), re.M)) == 1, "what the environment asks for is not given"
    world.end(c)


@pytest.mark.parametrize("kind", ["link", "huge", "garbage", "directory"])
def test_cve_2025_23267_ldcache(world, canary, kind):
    """The loader's cache of the image is a link to the host's file, or poisoned: what is written, is
    written inside."""
    tree = Layer().dir("etc")
    if kind == "link":
        tree.symlink("etc/ld.so.cache", str(canary.file)).symlink("etc/ld.so.cache~", str(canary.file))
    elif kind == "directory":
        tree.dir("etc/ld.so.cache")
    else:
        tree.file("etc/ld.so.cache", b"glibc-ld.so.cache1.1" + (b"\xff" * (4 << 20 if kind == "huge" else 300)))
    host_cache = open("/etc/ld.so.cache", "rb").read()
    c = rent(world, "ldcache", tree)
    seen = settle(world, c)
    if seen["runtime"]:
        canary.check(world.sh(c, "head -c 3000 /etc/ld.so.cache"))
    else:
        assert "image" in seen["reason"] or "ld.so.cache" in seen["reason"], seen["reason"]
    world.end(c)
    if open("/etc/ld.so.cache", "rb").read() != host_cache:
        attack.changed("the host's loader cache was written")


# ---- the way to another's memory: its nodes

def test_gpu_of_a_neighbour(world):
    """Each has its own GPU's node and no other's, makes none, and what it kept of one that is gone
    does not open."""
    mine = world.rent(**GPU)
    theirs = world.rent("alice", **GPU)
    nodes = {c: set(re.findall(r"^nvidia\d+$", world.sh(c, "ls /dev", who=who), re.M))
             for c, who in ((mine, "mallory"), (theirs, "alice"))}
    if nodes[mine] & nodes[theirs]:
        attack.changed("one node in two clusters: %s" % nodes)
    (own,), (other,) = nodes[mine], nodes[theirs]
    number = [int(x, 16) for x in world.sh(theirs, "stat -c '%t %T' /dev/" + other, who="alice").split()]
    said = world.sh(mine, "mknod /dev/%s c %d %d; mknod /tmp/x c %d %d; attack show /dev/%s /tmp/x; attack spoil x /dev/%s"
                    % (other, *number, *number, other, other))
    if "WROTE" in said or "read /" in said:
        attack.changed("a neighbour's GPU was opened: " + said)
    shown = world.sh(mine, "cat /proc/driver/nvidia/gpus/*/information; ls /proc/driver/nvidia/gpus; nvidia-smi -L")
    uuid = {g["id"]: g["clusterId"] for g in world.gql("{ gpus { id clusterId } }")["gpus"]}
    if any(u in shown for u, holder in uuid.items() if holder == theirs):
        attack.changed("a neighbour's GPU is named: " + shown)
    # a second name for the node stays behind when the GPU goes to somebody else
    world.sh(mine, "mkdir -p /dev/a/b; ln /dev/%s /dev/kept; ln /dev/%s /dev/a/b/kept; cp -a /dev/%s /dev/copied" % (own, own, own))
    world.call("clusterUpdate", mine, key=world.keys["mallory"], gpuCount=0)
    world.until(mine, "mallory", lambda x: x["gpuCount"] == 0)
    wait(lambda: mine not in [g["clusterId"] for g in world.gql("{ gpus { clusterId } }")["gpus"]])
    said = world.attack(mine, "spoil", "x", "/dev/kept", "/dev/a/b/kept", "/dev/copied", "/dev/" + own)
    if "WROTE" in said or "No such device or address" in said:  # no driver is behind a simulated one's node
        attack.changed("a node of a GPU that was given back got past the group's rules: " + said)
    world.end(mine)
    world.end(theirs, "alice")
