"""GPUs inside clusters, on the simulated driver: what a tenant sees of its own, that nothing of the
others' can be opened whichever way one gets at a node, that hostile images get their own GPUs and no
more, and that nothing is left behind."""
import array
import glob
import json
import os
import pathlib
import re
import socket
import stat
import subprocess
import time

import pytest

from host import RUN, ApiError, Host, our_node, program
from ocimake import Image, Layer
from test_update import settled, update

CONFIG = {"pool_networks": 2, "pool_disks": 2, "grace": "1s", "cpu_overcommit": 100,
          "memory_overcommit": 20, "disk_overcommit": 100, "gpu_driver": "simulated:a100x8"}
SLEEP = json.dumps({"cmd": ["sleep", "100000"]})


@pytest.fixture(scope="module")
def host():
    with Host({"engine": CONFIG}) as h:
        h.import_image("tensorone/starter")
        h.import_image("tensorone/llm-starter")
        yield h
        wait_free(h)


@pytest.fixture(autouse=True)
def clean(request):
    """Every test gives its GPUs back."""
    yield
    if "host" not in request.fixturenames:
        return
    h = request.getfixturevalue("host")
    for c in h.clusters():
        h.terminate(c["id"])
    wait_free(h)


def claimed(h):
    """{uuid: cluster} of this host's claims."""
    found = {}
    for f in (RUN / "gpus").glob("[GM]*"):
        try:
            words = f.read_text().split()
        except FileNotFoundError:
            continue
        if words and words[0] == h.id:
            found[f.name] = words[1]
    return found


def wait_free(h, timeout=15):
    end = time.monotonic() + timeout
    while claimed(h):
        assert time.monotonic() < end, f"still claimed: {claimed(h)}\n{h.log_text()[-2000:]}"
        time.sleep(0.05)


def deploy(h, n, image="tensorone/llm-starter", **kw):
    kw.setdefault("dockerArgs", SLEEP)
    kw.setdefault("containerDiskInGb", 2)
    if n:
        kw.setdefault("gpuTypeId", "NVIDIA A100")
    cluster = eventually(lambda: h.deploy(imageName=image, gpuCount=n, **kw))
    h.wait_running(cluster)
    return cluster


def sh(h, cluster, script, check=True):
    return h.exec(cluster, "sh", "-c", script, check=check).stdout


def python(h, cluster, script):
    return h.exec(cluster, "python3", "-c", script).stdout


def smi(h, cluster):
    """UUIDs, by nvidia-smi."""
    return re.findall(r"UUID: (\S+)\)", sh(h, cluster, "nvidia-smi -L"))


def smi_version(h, cluster):
    return sh(h, cluster, "nvidia-smi --query-gpu=driver_version --format=csv,noheader").strip()


def held_by(h, cluster):
    return sorted(u for u, c in claimed(h).items() if c == cluster)


def driver_root(h):
    """The simulated driver's tree, which is mounted for the engine alone."""
    return pathlib.Path(f"/proc/{h.pid}/root/run/hypervisor-vmm/{h.id}/driver")


NVML = """
import ctypes
nvml = ctypes.CDLL("libnvidia-ml.so.1")
assert nvml.nvmlInit_v2() == 0
n = ctypes.c_uint()
assert nvml.nvmlDeviceGetCount_v2(ctypes.byref(n)) == 0
for i in range(n.value):
    dev, buf = ctypes.c_void_p(), ctypes.create_string_buffer(96)
    assert nvml.nvmlDeviceGetHandleByIndex_v2(i, ctypes.byref(dev)) == 0
    assert nvml.nvmlDeviceGetUUID(dev, buf, 96) == 0
    print(buf.value.decode())
"""


# ---- its own

def test_one_gpu(host):
    c = deploy(host, 1)
    assert "simulated" in sh(host, c, "nvidia-smi") and len(smi(host, c)) == 1
    assert smi(host, c) == held_by(host, c) == python(host, c, NVML).split()
    minors = sh(host, c, "ls /dev | grep -x 'nvidia[0-9]*'").split()
    assert len(minors) == 1
    assert len(os.listdir(driver_root(host) / "proc/driver/nvidia/gpus")) == 8
    assert len(sh(host, c, "ls /proc/driver/nvidia/gpus").split()) == 1
    # world-accessible nodes; leased: the device rules let it through, and nothing stands behind it
    assert sh(host, c, f"stat -c %a /dev/{minors[0]} /dev/nvidiactl").split() == ["666", "666"]
    assert opens(host, c, f"/dev/{minors[0]}") == "ENXIO"
    firmware = sh(host, c, "cd /lib/firmware/nvidia && ls */gsp* && cat */gsp_ga10x.bin")
    version = smi_version(host, c)
    assert firmware.split() == [f"{version}/gsp_ga10x.bin", f"{version}/gsp_tu10x.bin", "simulated"]
    assert " ro,nosuid,nodev" in sh(host, c, "grep /lib/firmware/nvidia/ /proc/self/mountinfo")


def test_loader_finds_it(host):
    """By name, in the cache, and after an ldconfig of the tenant's own (apt runs it)."""
    c = deploy(host, 1)
    for again in ("true", "ldconfig"):
        sh(host, c, again)
        out = sh(host, c, "ldconfig -p")
        assert re.search(r"libcuda\.so\.1 \(libc6,x86-64\) => (/usr)?/lib/x86_64-linux-gnu/libcuda\.so\.1", out), out
        assert "libc.so.6 (libc6,x86-64)" in out
        python(host, c, "import ctypes; ctypes.CDLL('libcuda.so.1'); ctypes.CDLL('libcuda.so')")
    assert "nosuid,nodev" in sh(host, c, "grep libcuda.so /proc/self/mountinfo")
    assert "Read-only" in sh(host, c, "echo x 2>&1 > /usr/lib/x86_64-linux-gnu/libcuda.so.1; true", False) \
        or "rc" in sh(host, c, "echo x > /usr/lib/x86_64-linux-gnu/libcuda.so.1 || echo rc", False)


def test_two_tenants(host):
    key = host.new_account("other")
    a = deploy(host, 2)
    b = host.deploy(key=key, imageName="tensorone/llm-starter", gpuCount=4, gpuTypeId="NVIDIA A100",
                    dockerArgs=SLEEP, containerDiskInGb=2)
    end = time.monotonic() + 30
    while not host.cluster(b, key=key)["runtime"]:
        assert time.monotonic() < end
        time.sleep(0.05)
    env = dict(host.cli_env(), TENSORONE_API_KEY=key)
    theirs = subprocess.run([host_program(), "exec", b, "--",
                             "nvidia-smi", "-L"], env=env, capture_output=True, text=True, check=True).stdout
    theirs = set(re.findall(r"UUID: (\S+)\)", theirs))
    mine = set(smi(host, a))
    assert len(mine) == 2 and len(theirs) == 4 and not mine & theirs
    everything = sh(host, a, "cat /proc/driver/nvidia/gpus/*/* /proc/driver/nvidia/version; env; ls -lR /dev")
    assert not [u for u in theirs if u in everything]
    host.call("clusterTerminate", b, key=key)


def host_program(name="tensoronecli"):
    return program(name)


def test_without_gpus(host):
    c = deploy(host, 0)
    assert sh(host, c, "ls /dev | grep nvidia; ls /proc/driver; ls /usr/lib/x86_64-linux-gnu | grep nvidia; true") == ""
    assert "NVIDIA_VISIBLE_DEVICES" not in sh(host, c, "env")


def test_all_of_them(host):
    c = deploy(host, 8)
    assert len(smi(host, c)) == 8
    assert "nvidia-nvswitch0" in sh(host, c, "ls /dev")


def test_what_goes_live_leaves_nothing(host):
    """From all, with the fabric's nodes, to one: no node, and no empty directory of theirs."""
    c = deploy(host, 8)
    assert sh(host, c, "ls /dev/nvidia-caps-imex-channels; ls -d /dev/nvidia-nvswitch0")
    sh(host, c, "mkdir /dev/mine")
    update(host, c, gpuCount=1)
    assert settled(host, c, 40)["gpuCount"] == 1
    left = sh(host, c, "cd /dev; ls -d nvidia* mine; find . -type d -empty ! -path './shm*' ! -path './pts*' ! -path './mqueue*'")
    assert re.fullmatch(r"mine\nnvidia-uvm\nnvidia-uvm-tools\nnvidia\d\nnvidiactl\n./mine\n", left), left
    update(host, c, gpuCount=8)
    assert settled(host, c, 40)["gpuCount"] == 8
    assert "channel0" in sh(host, c, "ls /dev/nvidia-caps-imex-channels")


def test_some_have_no_switches(host):
    assert "nvswitch" not in sh(host, deploy(host, 4), "ls -R /dev")


@pytest.mark.parametrize("name, value", [
    ("NVIDIA_VISIBLE_DEVICES", "all"), ("NVIDIA_VISIBLE_DEVICES", "0,1,2,3,4,5,6,7"),
    ("CUDA_VISIBLE_DEVICES", "7"), ("NVIDIA_MIG_CONFIG_DEVICES", "all"), ("LD_PRELOAD", "/evil.so"),
    ("NVIDIA_REQUIRE_CUDA", "cuda>=99")])
def test_variables(host, name, value):
    """What a tenant asks for by variable gets it its own GPU and no other."""
    c = deploy(host, 1, env=[{"key": name, "value": value}])
    assert smi(host, c) == held_by(host, c)
    got = sh(host, c, f"echo ${name}").strip()
    assert got == ("void" if name == "NVIDIA_VISIBLE_DEVICES" else value)


def test_capabilities(host):
    c = deploy(host, 1, env=[{"key": "NVIDIA_DRIVER_CAPABILITIES", "value": "utility"}])
    assert sh(host, c, "ls /usr/lib/x86_64-linux-gnu | grep libcuda; true") == ""
    assert len(smi(host, c)) == 1
    bad = host.deploy(imageName="tensorone/llm-starter", gpuCount=1, gpuTypeId="NVIDIA A100",
                      env=[{"key": "NVIDIA_DRIVER_CAPABILITIES", "value": "compute,teleport"}])
    assert "unknown word 'teleport'" in host.wait_exited(bad)["reason"]
    wait_of = time.monotonic() + 10
    while held_by(host, bad):
        assert time.monotonic() < wait_of


@pytest.fixture
def specs(host):
    """The driver root's /etc/cdi."""
    where = driver_root(host) / "etc/cdi"
    where.mkdir(parents=True, exist_ok=True)
    yield where
    for f in where.iterdir():
        f.unlink()


def test_operators_spec(host, specs, tmp_path):
    """An existing spec is used, ours as another runtime would get it; its hooks are never run."""
    done = subprocess.run([host_program("hypervisor-vmm"), "cdi", "generate", "--root", driver_root(host)],
                          capture_output=True, text=True, check=True)
    evil = tmp_path / "evil"
    evil.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    evil.chmod(0o755)
    (specs / "nvidia.yaml").write_text(done.stdout.replace(
        '  env:\n', '  env:\n    - "FROM_SPEC=yes"\n', 1).replace(
        '/usr/bin/nvidia-cdi-hook', str(evil)).replace('  hooks:\n', f"""  hooks:
    - hookName: prestart
      path: {evil}
      args: [evil, please]
""", 1))
    c = deploy(host, 1)
    assert smi(host, c) == held_by(host, c) and opens(host, c, "/dev/nvidiactl") == "ENXIO"
    assert "FROM_SPEC=yes" in python(host, c, "print(open('/proc/1/environ').read().replace(chr(0), '\\n'))")
    python(host, c, "import ctypes; ctypes.CDLL('libcuda.so.1'); ctypes.CDLL('libcuda.so')")
    assert not (tmp_path / "ran").exists()
    assert f"hook {evil} please is not run" in host.log_text()


@pytest.mark.parametrize("text, why", [
    ("kind: nvidia.com/gpu\ncdiVersion: 0.6.0\ndevices: 5\n", "/etc/cdi/nvidia.yaml:3: devices is not a list"),
    ("kind: nvidia.com/gpu\ncdiVersion: 0.6.0\ndevices: [{name: none}]\n", "names no device for GPU-"),
])
def test_spec_with_a_mistake(host, specs, text, why):
    (specs / "nvidia.yaml").write_text(text)
    c = host.deploy(imageName="tensorone/starter", gpuCount=1, gpuTypeId="NVIDIA A100")
    assert why in host.wait_exited(c)["reason"]


@pytest.mark.limit(180)
def test_mig():
    """Two tenants on one GPU: each has its instance's capabilities, and cannot open the other's."""
    with Host({"engine": dict(CONFIG, gpu_driver="simulated:a100mig")}) as h:
        h.import_image("tensorone/llm-starter")
        a, b = (deploy(h, 1, gpuTypeId="NVIDIA A100 1g.10gb") for _ in range(2))
        seen = [re.findall(r"MIG-[0-9a-f-]+", sh(h, c, "nvidia-smi -L")) for c in (a, b)]
        assert seen == [held_by(h, a), held_by(h, b)] and seen[0] != seen[1]
        caps = [set(sh(h, c, "ls /dev/nvidia-caps").split()) for c in (a, b)]
        assert len(caps[0]) == len(caps[1]) == 2 and not caps[0] & caps[1]
        assert sh(h, a, "ls /dev | grep -x 'nvidia[0-9]*'") == sh(h, b, "ls /dev | grep -x 'nvidia[0-9]*'")
        # nodes that everybody may open, by their mode
        inside = f"/proc/{h.first_pid(a)}/root/dev/"
        for name, of, want in (("theirs", caps[1], "EPERM"), ("mine", caps[0], "ENXIO")):
            node = driver_root(h) / "dev/nvidia-caps" / of.pop()
            os.mknod(inside + name, 0o20666, os.stat(node).st_rdev)
            os.chmod(inside + name, 0o666)
            assert opens(h, a, "/dev/" + name) == want
            assert passed(h, a, str(node)) in ("EPERM", "EACCES")  # the host's node is root's


# ---- the others'

def opens(h, cluster, path):
    return python(h, cluster, f"""
import errno, os
try:
    os.open({path!r}, os.O_RDWR); print("opened")
except OSError as e: print(errno.errorcode[e.errno])""").strip()


def others(h, cluster):
    """Numbers of a GPU's node that the cluster does not have."""
    mine = set(sh(h, cluster, "ls /dev").split())
    for path in sorted(glob.glob(str(driver_root(h) / "dev/nvidia[0-9]*"))):
        if os.path.basename(path) not in mine:
            return path, os.stat(path).st_rdev
    raise AssertionError("it has them all")


# the volume knows no other ids than the cluster's; capabilities stay the host's
AS_ROOT_INSIDE = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(28, 4, 0, 0, 0) == 0  # PR_SET_SECUREBITS, NO_SETUID_FIXUP
libc.setfsuid(int(sys.argv[3])); libc.setfsgid(int(sys.argv[3]))
os.mknod(sys.argv[1], 0o20666, int(sys.argv[2]))
"""


@pytest.mark.parametrize("n", [0, 1])
def test_nodes_of_others(host, n):
    """EPERM, whichever way the tenant gets at a node: one that a privileged outsider made in its /dev
    or on its volume, one in another devtmpfs, one whose descriptor it was passed."""
    c = deploy(host, n, volumeInGb=1)
    path, rdev = others(host, c)
    inside = f"/proc/{host.first_pid(c)}/root"
    assert "not permitted" in h_stderr(host, c, f"mknod /tmp/x c {os.major(rdev)} {os.minor(rdev)}")

    os.mknod(inside + "/dev/other", 0o20666, rdev)
    os.chmod(inside + "/dev/other", 0o666)
    assert opens(host, c, "/dev/other") == "EPERM"
    subprocess.run(["/usr/bin/python3", "-c", AS_ROOT_INSIDE, inside + "/workspace/other", str(rdev),
                    str(os.stat(inside + "/workspace").st_uid)], check=True)
    assert opens(host, c, "/workspace/other") in ("EPERM", "EACCES")  # nodev is the first to refuse

    pid = str(host.first_pid(c))
    sh(host, c, "mkdir -p /mnt/dev /mnt/tmp")
    for kind, name in (("devtmpfs", "dev"), ("tmpfs", "tmp")):
        subprocess.run(["nsenter", "-t", pid, "-m", "mount", "-t", kind, "none", "/mnt/" + name], check=True)
    try:
        assert opens(host, c, "/mnt/dev/null") == "opened"
        assert opens(host, c, "/mnt/dev/kmsg") in ("EPERM", "EACCES")  # by its mode, already
        os.mknod(inside + "/mnt/tmp/other", 0o20666, rdev)
        os.chmod(inside + "/mnt/tmp/other", 0o666)
        assert opens(host, c, "/mnt/tmp/other") == "EPERM"
    finally:
        for name in ("dev", "tmp"):
            subprocess.run(["nsenter", "-t", pid, "-m", "umount", "/mnt/" + name], check=True)
    assert passed(host, c, path) == "EPERM"


HOLD = """
import array, os, socket
s = socket.socket(socket.AF_UNIX)
s.bind("/tmp/hold"); s.listen(1); print("ready", flush=True)
c, _ = s.accept()
msg, anc, _, _ = c.recvmsg(1, 64)
print(array.array("i", anc[0][2])[0] > 2, flush=True)
c.recv(1)
"""


@pytest.fixture
def real_device(host, specs):
    """A number behind which something stands, as a part of every GPU: behind simulated ones is nothing."""
    node = driver_root(host) / "dev/nvidia-real"
    os.mknod(node, 0o666 | stat.S_IFCHR, os.stat("/dev/kmsg").st_rdev)
    done = subprocess.run([host_program("hypervisor-vmm"), "cdi", "generate", "--root", driver_root(host)],
                          capture_output=True, text=True, check=True)
    (specs / "nvidia.yaml").write_text(done.stdout.replace(
        '  deviceNodes:\n', '  deviceNodes:\n    - path: "/dev/nvidia-real"\n', 1))
    yield "/dev/kmsg"
    node.unlink()


def test_open_while_one_goes(host, real_device):
    """Eight GPUs, seven are to go, and a process has a device of one open: refused, and all is as it was."""
    c = deploy(host, 8)
    assert "nvidia-real" in sh(host, c, "ls /dev")
    with subprocess.Popen([host_program(), "exec", c, "--", "python3", "-c", HOLD], env=host.cli_env(),
                          stdout=subprocess.PIPE, text=True) as p, socket.socket(socket.AF_UNIX) as s:
        assert p.stdout.readline() == "ready\n"
        s.connect(f"/proc/{host.first_pid(c)}/root/tmp/hold")
        device = os.open(real_device, os.O_RDONLY)
        s.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [device]))])
        os.close(device)
        assert p.stdout.readline() == "True\n"
        look = "find /dev/nvidia* -ls; ls /proc/driver/nvidia/gpus; nvidia-smi -L"
        before, first = sh(host, c, look), host.first_pid(c)
        update(host, c, gpuCount=1)
        v = settled(host, c, 40)
        assert v["gpuCount"] == 8 and re.search(r"^gpuCount: process \d+ \(python3\S*\) has a GPU open; end it first$",
                                                v["updateRefused"]), v["updateRefused"]
        assert sh(host, c, look) == before and host.first_pid(c) == first and len(held_by(host, c)) == 8
        assert all(opens(host, c, f"/dev/nvidia{i}") == "ENXIO" for i in range(8))
        s.send(b"x")
        assert p.wait(20) == 0
    update(host, c, gpuCount=1)
    assert settled(host, c, 40)["gpuCount"] == 1 and len(held_by(host, c)) == 1


def h_stderr(h, cluster, script):
    return h.exec(cluster, "sh", "-c", script, check=False).stderr


RECEIVE = """
import array, errno, os, socket
s = socket.socket(socket.AF_UNIX)
if os.path.exists("/tmp/pass"): os.unlink("/tmp/pass")
s.bind("/tmp/pass"); s.listen(1); print("ready", flush=True)
c, _ = s.accept()
msg, anc, _, _ = c.recvmsg(1, 64)
fd = array.array("i", anc[0][2])[0]
for way in ("/proc/self/fd/%d" % fd, "/dev/fd/%d" % fd):
    try:
        os.open(way, os.O_RDWR); print("opened")
    except OSError as e: print(errno.errorcode[e.errno])
"""


def passed(h, cluster, path):
    """What opening anew says of a descriptor on a node that came over a socket."""
    p = subprocess.Popen([host_program(), "exec", cluster, "--", "python3", "-c", RECEIVE],
                         env=h.cli_env(), stdout=subprocess.PIPE, text=True)
    assert p.stdout.readline() == "ready\n"
    node = os.open(path, os.O_PATH)
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(f"/proc/{h.first_pid(cluster)}/root/tmp/pass")
        s.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [node]))])
    os.close(node)
    out = set(p.communicate(timeout=20)[0].split())
    assert len(out) == 1
    return out.pop()


def test_passed_descriptor_of_its_own(host):
    """The same way, with a node that it has: so EPERM above is the device rules' and nothing else's."""
    c = deploy(host, 1)
    name = sh(host, c, "ls /dev | grep -x 'nvidia[0-9]*'").strip()
    assert passed(host, c, str(driver_root(host) / "dev" / name)) == "ENXIO"


# ---- hostile images

def evil(layer, env=()):
    layer.busybox("sh", "cat", "ls", "sleep", "grep", "true", "env", "stat")
    return Image([layer.tar()], config={"Cmd": ["sleep", "100000"], "Env": ["PATH=/usr/bin:/bin", *env]})


IMAGES = {
    "lib64 is /etc": lambda: evil(Layer().dir("etc").dir("usr").symlink("usr/lib64", "/etc")),
    "usr is absolute": lambda: evil(Layer().dir("elsewhere").symlink("usr", "/elsewhere")),
    "out and up": lambda: evil(Layer().dir("usr").dir("var").dir("var/tmp").symlink("usr/lib64", "../../../../../../var/tmp")),
    "files are links": lambda: evil(Layer().dir("usr/lib64").symlink("usr/lib64/libcuda.so.550.54.15", "/bin/busybox")
                                    .symlink("usr/lib64/libcuda.so.1", "/nowhere").fifo("usr/lib64/libcuda.so")),
    "its own libraries": lambda: evil(Layer().dir("usr/lib64").file("usr/lib64/libcuda.so.1", b"mine")
                                      .file("usr/lib64/libnvidia-ml.so.550.54.15", b"mine")),
    "a poisoned cache": lambda: evil(Layer().dir("etc").file("etc/ld.so.cache", b"glibc-ld.so.cache1.1" + b"\xff" * 4096)),
    "preload": lambda: evil(Layer().dir("etc").file("etc/ld.so.preload", b"/evil.so"),
                            ["LD_PRELOAD=/evil.so", "LD_LIBRARY_PATH=/evil", "NVIDIA_VISIBLE_DEVICES=all"]),
}


@pytest.mark.parametrize("name", list(IMAGES))
def test_hostile_image(host, tmp_path, name):
    before = sorted(os.listdir("/var/tmp")), sorted(os.listdir("/etc"))
    IMAGES[name]().write_layout(str(tmp_path / "image"))
    ref = "evil/" + re.sub(r"\W", "-", name)
    host.import_image(ref, tmp_path / "image")
    c = deploy(host, 1, image=ref, dockerArgs="")
    assert smi(host, c) == held_by(host, c), name
    assert len(sh(host, c, "ls /proc/driver/nvidia/gpus").split()) == 1
    etc = sorted(os.listdir("/etc"))
    assert etc == before[1]
    assert not [f for f in os.listdir("/var/tmp") if "nvidia" in f or "cuda" in f]


@pytest.mark.parametrize("target", ["/proc", "/sys/kernel", "/dev/pts", "/proc/self/root", "loop"])
def test_refused_image(host, tmp_path, target):
    layer = Layer().dir("usr")
    layer.symlink("usr/lib64", "lib64" if target == "loop" else target)
    evil(layer.symlink("usr/lib", "lib64")).write_layout(str(tmp_path / "image"))
    ref = "evil/r" + re.sub(r"\W", "-", target)
    host.import_image(ref, tmp_path / "image")
    c = host.deploy(imageName=ref, gpuCount=1, gpuTypeId="NVIDIA A100")
    assert "image: no driver file can be shown at " in host.wait_exited(c)["reason"]


# ---- nothing is left, nobody loses

def test_held_by_another_engine(host):
    """A GPU that a cluster of another engine holds is refused with that reason, and had later."""
    uuid = re.search(r"GPU UUID:\s*(\S+)", next(iter(
        (driver_root(host) / "proc/driver/nvidia/gpus").glob("*/information"))).read_text())[1]
    with Host({"engine": dict(CONFIG, pool_networks=0, pool_disks=0, gpu_driver="none")}) as other:
        claim = RUN / "gpus" / uuid
        claim.write_text(f"{other.id} stranger 1\n")
        try:
            with our_node(host) as node:
                node.assign("wanting", ["sleep", "1000"], gpu_count=1, gpus=[uuid])
                report, _ = node.until(lambda m: m.get("cluster") == "wanting" and m.get("reason"))
                assert report["reason"].startswith("its GPUs are in use by another host on this machine")
                assert f"gpu {uuid} is held by cluster stranger of instance {other.id}" in host.log_text()
                claim.unlink()
                node.until(lambda m: m.get("cluster") == "wanting" and m.get("state") == "running", 60)
                assert claimed(host) == {uuid: "wanting"}
                node.remove("wanting")
        finally:
            claim.unlink(missing_ok=True)
    wait_free(host)


def eventually(deploy_it):
    """The control plane hears of a release a moment after the claims are gone."""
    end = time.monotonic() + 15
    while True:
        try:
            return deploy_it()
        except ApiError:
            assert time.monotonic() < end
            time.sleep(0.05)


@pytest.mark.limit(240)
def test_killed_in_the_middle():
    """kill -9 of the engine anywhere in a boot with GPUs: afterwards they can be had again, all."""
    with Host({"engine": CONFIG}) as h:
        h.import_image("tensorone/starter")
        uuids = sorted(re.findall(r"GPU UUID:\s*(\S+)", "".join(
            p.read_text() for p in (driver_root(h) / "proc/driver/nvidia/gpus").glob("*/information"))))
        for i in range(12):
            c = eventually(lambda: h.deploy(gpuCount=8, gpuTypeId="NVIDIA A100"))
            time.sleep(i * 0.002)
            h.restart()
            h.wait_running(c)
            assert sorted(claimed(h)) == uuids and set(claimed(h).values()) == {c}
            assert sorted(smi(h, c)) == uuids
            h.terminate(c)
            wait_free(h)


def test_restart_keeps_it(host):
    """The engine is killed under a cluster with a GPU: the GPU stays the cluster's."""
    c = deploy(host, 1)
    mine, pid = smi(host, c), host.first_pid(c)
    host.restart()
    host.wait_running(c)
    assert host.first_pid(c) == pid and smi(host, c) == mine == held_by(host, c)
    assert opens(host, c, "/dev/" + sh(host, c, "ls /dev | grep -x 'nvidia[0-9]*'").strip()) == "ENXIO"
