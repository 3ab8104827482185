"""What a cluster gets of a GPU driver (engine/gpu: bind, cdi, cdi_make), on trees that look like
drivers': from our own list, and from CDI specs, with everything that can be wrong with those."""
import json
import os
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("HVMM_BUILD", ROOT / "build"))
VERSION = "550.54.15"
LIB = "usr/lib/x86_64-linux-gnu"
MAJOR = 60
FIRMWARE = f"/lib/firmware/nvidia/{VERSION}"
CAPS = {"utility": ["libnvidia-ml", "libnvidia-cfg"],
        "compute": ["libcuda", "libnvidia-opencl", "libnvidia-ptxjitcompiler", "libnvidia-nvvm",
                    "libcudadebugger", "libnvidia-pkcs11", "libnvidia-gpucomp", "libnvidia-allocator"],
        "video": ["libnvidia-encode", "libnvcuvid", "libnvidia-opticalflow"],
        "graphics": ["libGLX_nvidia", "libEGL_nvidia", "libnvidia-glcore", "libnvidia-eglcore"],
        "ngx": ["libnvidia-ngx"]}


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    """A shared library with the name that is asked for; for i386, too."""
    where = tmp_path_factory.mktemp("lib")

    def make(soname, bits=64):
        out = where / f"{soname}.{bits}"
        if not out.exists():
            subprocess.run(["as", f"--{bits}", "/dev/null", "-o", where / "o"], check=True)
            subprocess.run(["ld", "-m", "elf_i386" if bits == 32 else "elf_x86_64", "-shared",
                            "-soname", soname, where / "o", "-o", out], check=True)
        return out.read_bytes()
    return make


class Driver:
    def __init__(self, root, library):
        self.root, self.library = root, library
        for d in ("dev/nvidia-caps", "dev/nvidia-caps-imex-channels", "dev/dri", LIB, "usr/bin",
                  "etc/cdi", "var/run/cdi", f"lib/firmware/nvidia/{VERSION}", "usr/share/vulkan/icd.d"):
            (root / d).mkdir(parents=True)
        for i, name in enumerate(["nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset",
                                  "nvidia-nvswitch0", "nvidia-nvswitch1", "nvidia-nvswitchctl",
                                  "nvidia-caps-imex-channels/channel0"]):
            self.node(name, 200 + i)
        for soname in sum(CAPS.values(), []):
            self.lib(soname + ".so")
        for name in ("nvidia-smi", "nvidia-cuda-mps-server"):
            self.file("usr/bin/" + name, "#!")
        self.file(f"{FIRMWARE[1:]}/gsp_ga10x.bin", "gsp")
        self.file("usr/share/vulkan/icd.d/nvidia_icd.json", "{}")
        self.file("proc/driver/nvidia/version", f"NVRM version: NVIDIA  {VERSION}\n")
        self.file("proc/driver/nvidia/params", "ModifyDeviceFiles: 1\nDeviceFileMode: 438\n")
        self.gpus = [self.gpu(i) for i in range(8)]

    def file(self, path, text):
        p = self.root / path
        p.parent.mkdir(parents=True, exist_ok=True)
        (p.write_bytes if isinstance(text, bytes) else p.write_text)(text)

    def node(self, name, minor, mode=0o20666):
        os.mknod(self.root / "dev" / name, mode, os.makedev(MAJOR + ("nvidia-caps/" in name), minor))

    def lib(self, name, version=VERSION, soname=None, where=LIB):
        self.file(f"{where}/{name}.{version}", self.library(soname or name + ".1", 32 if "i386" in where else 64))

    def gpu(self, i):
        pci = f"0000:{i + 1:02x}:00.0"
        self.node(f"nvidia{i}", i)
        self.node(f"dri/card{i}", 100 + i)
        self.node(f"dri/renderD{128 + i}", 128 + i)
        self.file(f"proc/driver/nvidia/gpus/{pci}/information", f"GPU UUID: \t GPU-{i:08d}-1111-2222-3333-444444444444\nDevice Minor: \t {i}\n")
        for name in (f"card{i}", f"renderD{128 + i}"):
            (self.root / f"sys/bus/pci/devices/{pci}/drm" / name).mkdir(parents=True)
        return {"uuid": f"GPU-{i:08d}-1111-2222-3333-444444444444", "name": "NVIDIA A100", "index": i,
                "pci": "0000" + pci, "minor": i, "memory_mib": 1, "state": "ok"}

    def mig(self, i, gi, ci, minor):
        for path, m in ((f"gi{gi}", minor), (f"gi{gi}/ci{ci}", minor + 1)):
            access = f"proc/driver/nvidia/capabilities/gpu{i}/mig/{path}/access"
            if not (self.root / access).exists():
                self.file(access, f"DeviceFileMinor: {m}\nDeviceFileMode: 292\nDeviceFileModify: 1\n")
                self.node(f"nvidia-caps/nvidia-cap{m}", m)
        return {**self.gpus[i], "uuid": f"MIG-{i}-{gi}-{ci}", "mig_profile": "1g.10gb", "gi": gi,
                "ci": ci, "parent": self.gpus[i]["uuid"]}

    def bind(self, gpus, caps="", fabric=False, version=VERSION, times=None):
        gpus = [self.gpus[g] if isinstance(g, int) else g for g in gpus]
        done = subprocess.run([BUILD / "tests/flow/gpu/bindctl", self.root, version, caps,
                               "1" if fabric else "0"] + ([str(times)] if times else []),
                              input=json.dumps(gpus), capture_output=True, text=True, check=True)
        self.log = done.stderr
        return json.loads(done.stdout)

    def ok(self, gpus, *args, **kw):
        b = self.bind(gpus, *args, **kw)
        assert b["r"] == 0, b["err"]
        assert "unsafe" not in b["mounts"].values()
        assert "NVIDIA_VISIBLE_DEVICES=void" in b["env"]
        assert all(d[4] == 0o666 and set(d[3]) <= set("rw") for d in b["devices"])
        return b

    def names(self, b):
        return {d[0] for d in b["devices"]}

    def spec(self, text, path="etc/cdi/nvidia.yaml"):
        self.file(path, text if isinstance(text, str) else json.dumps(text, indent=1))


@pytest.fixture
def driver(tmp_path, library):
    assert os.geteuid() == 0, "needs root"
    return Driver(tmp_path / "root", library)


# ---- our own

def libs(words):
    return {f"@lib/{x}.so.{VERSION}" for w in words.split(",") for x in CAPS[w]}


def test_default(driver):
    b = driver.ok([3])
    assert driver.names(b) == {"nvidia3", "nvidiactl", "nvidia-uvm", "nvidia-uvm-tools"}
    assert set(b["mounts"]) == libs("compute,utility") | {
        FIRMWARE, "/usr/bin/nvidia-smi", "/usr/bin/nvidia-cuda-mps-server"}
    assert b["links"]["@lib/libcuda.so.1"] == f"libcuda.so.{VERSION}"
    assert b["links"]["@lib/libcuda.so"] == "libcuda.so.1"
    assert ["libcuda.so.1", "@lib/libcuda.so.1", False] in b["libraries"]
    assert ["libcuda.so", "@lib/libcuda.so", False] in b["libraries"]


@pytest.mark.parametrize("caps", ["utility", "compute", "video,utility", "ngx"])
def test_capabilities(driver, caps):
    got = driver.ok([0], caps)["mounts"]
    # shared by several
    extra = {f"@lib/libnvidia-gpucomp.so.{VERSION}"} if "video" in caps else set()
    assert {m for m in got if m.startswith("@lib/")} == libs(caps) | extra


def test_graphics(driver):
    b = driver.ok([2], "all")
    assert libs("graphics,video,compute,utility,ngx") <= set(b["mounts"])
    assert "/usr/share/vulkan/icd.d/nvidia_icd.json" in b["mounts"]
    assert driver.names(b) == {"nvidia2", "nvidiactl", "nvidia-uvm", "nvidia-uvm-tools",
                               "nvidia-modeset", "dri/card2", "dri/renderD130"}
    assert b["links"]["@lib/gbm/nvidia-drm_gbm.so"] == f"../libnvidia-allocator.so.{VERSION}"
    assert not [x for x in b["libraries"] if "gbm" in x[1]]


@pytest.mark.parametrize("caps", ["compute,foo", "none", "ALL", "compute;utility", " compute", ",,"])
def test_unknown_capability(driver, caps):
    b = driver.bind([0], caps)
    assert b["r"] == -22 and "unknown word" in b["err"] and "compat32" in b["err"]


def test_fabric(driver):
    all_of_it = driver.names(driver.ok(range(8), fabric=True))
    assert {"nvidia-nvswitch0", "nvidia-nvswitch1", "nvidia-nvswitchctl",
            "nvidia-caps-imex-channels/channel0"} | {f"nvidia{i}" for i in range(8)} <= all_of_it
    # the engine has not seen the eighth, which hangs, and somebody may have; the kernel has
    assert not [n for n in driver.names(driver.ok(range(7), fabric=True)) if "nvswitch" in n or "caps" in n]
    half = driver.names(driver.ok(range(4)))
    assert not {n for n in half if "nvswitch" in n or "caps" in n}
    assert {n for n in half if n[-1].isdigit()} == {f"nvidia{i}" for i in range(4)}


def test_mig(driver):
    one, two = driver.mig(1, 7, 0, 30), driver.mig(1, 8, 0, 40)
    b = driver.ok([one])
    assert driver.names(b) >= {"nvidia1", "nvidia-caps/nvidia-cap30", "nvidia-caps/nvidia-cap31"}
    caps = {p: t for p, t in b["proc"].items() if "capabilities" in p}
    assert sorted(caps) == ["nvidia/capabilities/gpu1/mig/gi7/access",
                            "nvidia/capabilities/gpu1/mig/gi7/ci0/access"]
    assert all("DeviceFileModify: 0" in t for t in caps.values())
    assert {n for n in driver.names(driver.ok([one, two])) if "cap" in n} == {
        f"nvidia-caps/nvidia-cap{i}" for i in (30, 31, 40, 41)}


def test_proc(driver):
    proc = driver.ok([1, 4])["proc"]
    assert proc == {"nvidia/version": f"NVRM version: NVIDIA  {VERSION}\n",
                    "nvidia/params": "ModifyDeviceFiles: 0\nDeviceFileMode: 438\n",
                    **{f"nvidia/gpus/0000:0{i + 1}:00.0/information":
                       f"GPU UUID: \t {driver.gpus[i]['uuid']}\nDevice Minor: \t {i}\n" for i in (1, 4)}}


def test_other_layouts(driver):
    """Fedora's directory, a version of its own, links of the distribution, 32-bit libraries."""
    for p in (driver.root / LIB).iterdir():
        p.unlink()
    driver.lib("libnvidia-ml.so", where="usr/lib64")
    driver.lib("libcuda.so", where="usr/lib64")
    driver.lib("libnvidia-egl-gbm.so", "1.1.1", where="usr/lib64")
    os.symlink("libnvidia-egl-gbm.so.1.1.1", driver.root / "usr/lib64/libnvidia-egl-gbm.so.1")
    driver.lib("libcuda.so", where="usr/lib/i386-linux-gnu")
    b = driver.ok([0], "compute,utility,graphics,compat32")
    assert {m for m in b["mounts"] if "@lib" in m} == {
        f"@lib/libnvidia-ml.so.{VERSION}", f"@lib/libcuda.so.{VERSION}",
        "@lib/libnvidia-egl-gbm.so.1.1.1", f"@lib32/libcuda.so.{VERSION}"}
    assert b["links"]["@lib/libnvidia-egl-gbm.so.1"] == "libnvidia-egl-gbm.so.1.1.1"
    assert b["links"]["@lib32/libcuda.so.1"] == f"libcuda.so.{VERSION}"
    assert ["libcuda.so.1", "@lib32/libcuda.so.1", True] in b["libraries"]


def test_missing(driver):
    (driver.root / "dev/nvidia-uvm").unlink()
    b = driver.bind([0])
    assert b["r"] < 0 and "/dev/nvidia-uvm is missing: load" in b["err"] and "nvidia-modprobe" in b["err"]
    driver.ok([0], "utility")
    (driver.root / "dev/nvidia3").unlink()
    assert "/dev/nvidia3" in driver.bind([3], "utility")["err"]
    driver.file("dev/nvidia3", "not a device")
    assert "no character device" in driver.bind([3], "utility")["err"]


def test_loaded_anew(driver):
    """The engine was started with one driver, and the kernel has another one by now: the libraries are of
    the one that is there."""
    for name in ("libcuda.so", "libnvidia-ml.so"):
        driver.lib(name, "555.42.02")
    driver.file("proc/driver/nvidia/version", "NVRM version: NVIDIA UNIX x86_64 Kernel Module  555.42.02  Tue\n")
    got = driver.ok([0])["mounts"]
    assert {m for m in got if m.startswith("@lib/")} == {"@lib/libcuda.so.555.42.02", "@lib/libnvidia-ml.so.555.42.02"}
    assert FIRMWARE not in got


def test_odd_libraries(driver):
    """What is no library, or a broken one, is shown as it is and gets no line in the cache."""
    whole = driver.library("libcuda.so.1")
    for cut in (0, 3, 16, 40, 64, 100, 200, len(whole) // 2):
        driver.file(f"{LIB}/libcuda.so.{VERSION}", whole[:cut])
        assert f"@lib/libcuda.so.{VERSION}" in driver.ok([0])["mounts"]
    for at in range(0, 600, 7):
        driver.file(f"{LIB}/libcuda.so.{VERSION}", whole[:at] + b"\xff\xff\xff" + whole[at + 3:])
        driver.ok([0])


# ---- specs

def spec(driver, version="0.6.0", **kw):
    return {"cdiVersion": version, "kind": "nvidia.com/gpu",
            "containerEdits": {
                "env": ["NVIDIA_VISIBLE_DEVICES=void", "A=b"],
                "deviceNodes": [{"path": "/dev/nvidiactl"}, {"path": "/dev/nvidia-uvm"}],
                "mounts": [{"hostPath": f"/{LIB}/libcuda.so.{VERSION}",
                            "containerPath": f"/{LIB}/libcuda.so.{VERSION}",
                            "options": ["ro", "nosuid", "nodev", "bind"]}],
                "hooks": [
                    {"hookName": "createContainer", "path": "/usr/bin/nvidia-cdi-hook",
                     "args": ["nvidia-cdi-hook", "create-symlinks", "--link",
                              f"libcuda.so.1::/{LIB}/libcuda.so", "--link=../x::/usr/share/y"]},
                    {"hookName": "createContainer", "path": "/usr/bin/nvidia-ctk",
                     "args": ["nvidia-ctk", "hook", "update-ldcache", "--folder", f"/{LIB}"]},
                    {"hookName": "createContainer", "path": "/bin/evil", "args": ["evil", "x"]}]},
            "devices": [{"name": str(i), "containerEdits": {
                "deviceNodes": [{"path": f"/dev/nvidia{i}", "permissions": "rwm"}]}}
                for i in range(8)], **kw}


@pytest.mark.parametrize("version", ["0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0"])
def test_spec(driver, version):
    driver.spec(spec(driver, version), "etc/cdi/nvidia.json")
    b = driver.ok([3])
    assert driver.names(b) == {"nvidia3", "nvidiactl", "nvidia-uvm"}
    assert list(b["mounts"]) == [f"/{LIB}/libcuda.so.{VERSION}"]
    assert b["links"] == {f"/{LIB}/libcuda.so.1": f"libcuda.so.{VERSION}",
                          f"/{LIB}/libcuda.so": "libcuda.so.1", "/usr/share/y": "../x"}
    assert ["libcuda.so.1", f"/{LIB}/libcuda.so.1", False] in b["libraries"]
    assert "A=b" in b["env"]
    assert "/bin/evil x is not run" in driver.log


def test_yaml(driver):
    driver.spec("""---
# a comment
cdiVersion: "0.5.0"
kind: nvidia.com/gpu
future: {with: [things, that, nobody, knows]}
containerEdits:
  deviceNodes: [{path: /dev/nvidiactl, fileMode: 0666}]
  additionalGids: [44]
  intelRdt: {closID: x}
devices:
- name: GPU-00000002-1111-2222-3333-444444444444
  annotations: {a: b}
  containerEdits:
    deviceNodes:
      - path: /dev/nvidia7
        hostPath: /dev/nvidia2
        uid: 3
        type: c
    netDevices:
      - {hostInterfaceName: eth0, name: e}
...
""")
    b = driver.bind([2])  # another name inside would be a GPU that it is not
    assert b["r"] < 0 and "no /dev/nvidia2" in b["err"]
    text = (driver.root / "etc/cdi/nvidia.yaml").read_text().replace("path: /dev/nvidia7", "path: /dev/nvidia2")
    driver.spec(text)
    assert driver.names(driver.ok([2])) == {"nvidia2", "nvidiactl"}
    assert "names no device for GPU-00000001" in driver.bind([1])["err"]


def test_later_directory_wins(driver):
    driver.spec(spec(driver))
    late = spec(driver)
    late["containerEdits"]["env"] = ["WHERE=run"]
    del late["devices"][1:]
    driver.spec(late, "var/run/cdi/a.json")
    driver.spec({"cdiVersion": "0.6.0", "kind": "vendor.com/nic", "devices": "whatever"},
                "etc/cdi/other.json")
    driver.spec("rubbish: [", "etc/cdi/readme.txt")
    assert "WHERE=run" in driver.ok([0])["env"]
    assert "WHERE=run" not in driver.ok([1])["env"]
    assert {"WHERE=run", "A=b"} <= set(driver.ok([0, 1])["env"])


@pytest.mark.parametrize("change, why", [
    (lambda s: s["devices"][1]["containerEdits"]["deviceNodes"].append({"path": "/dev/nvidia2"}), "gives /dev/nvidia2"),
    (lambda s: s["devices"][1].update(containerEdits={"deviceNodes": [{"path": "/dev/nvidia1", "hostPath": "/dev/nvidia5"}]}), "gives /dev/nvidia5"),
    (lambda s: s["containerEdits"]["deviceNodes"].append({"path": "/dev/nvidia0"}), "gives /dev/nvidia0"),
])
def test_never_another_gpu(driver, change, why):
    """A spec that is older than the driver's present numbers, or wrong, gives nobody's GPU away."""
    s = spec(driver)
    change(s)
    driver.spec(s)
    b = driver.bind([1])
    assert b["r"] == -116 and why in b["err"] and "nvidia-ctk cdi generate" in b["err"]


@pytest.mark.parametrize("host", ["//dev/nvidia5", "/dev/./nvidia5", "/run/nvidia/driver/dev/nvidia5",
                                  "/dev/mine", "/mine"])
def test_never_another_gpu_by_another_name(driver, host):
    """A driver in a container has its nodes elsewhere; links and second nodes are what their number is."""
    (driver.root / "run/nvidia/driver/dev").mkdir(parents=True)
    driver.node("../run/nvidia/driver/dev/nvidia5", 5)
    driver.node("mine", 5)
    os.symlink("dev/nvidia5", driver.root / "mine")
    s = spec(driver)
    s["containerEdits"]["deviceNodes"].append({"path": "/dev/more", "hostPath": host})
    driver.spec(s)
    b = driver.bind([1])
    assert b["r"] == -116 and "gives /dev/nvidia5" in b["err"]
    assert "more" in driver.names(driver.ok([1, 5]))


def test_instance_by_another_name(driver):
    driver.mig(1, 7, 0, 30)
    (driver.root / "run/nvidia/driver/dev/nvidia-caps").mkdir(parents=True)
    driver.node("../run/nvidia/driver/dev/nvidia-caps/nvidia-cap30", 30)
    s = spec(driver)
    s["containerEdits"]["deviceNodes"].append({
        "path": "/dev/nvidia-caps/nvidia-cap30",
        "hostPath": "/run/nvidia/driver/dev/nvidia-caps/nvidia-cap30"})
    driver.spec(s)
    assert "nvidia-caps/nvidia-cap30" not in driver.names(driver.ok([1]))


@pytest.mark.parametrize("change, why", [
    ({"minor": 5}, "does not say that it is /dev/nvidia5"),
    ({"pci": "00000000:06:00.0"}, "does not say that it is /dev/nvidia1"),
    ({"pci": "00000000:06:00.0", "minor": 5}, "driver says that 00000000:06:00.0 is GPU-00000005-"),
    ({"pci": "00000000:66:00.0"}, "has none at 0000:66:00.0"),
    ({"uuid": "MIG-5", "mig_profile": "1g.10gb", "gi": 7, "ci": 0,
      "parent": "GPU-00000005-1111-2222-3333-444444444444"}, "driver says that 00000000:02:00.0 is GPU-00000001-"),
])
def test_the_kernel_has_the_last_word(driver, change, why):
    """What vmm-gpu says is believed less than the driver's own files: numbers may have changed since, or
    somebody has taken it over and wants to be given a neighbour's GPU for his own."""
    driver.mig(1, 7, 0, 30)
    b = driver.bind([{**driver.gpus[1], **change}])
    assert b["r"] < 0 and why in b["err"]


def test_lost_while_it_runs(driver):
    """Of a cluster that goes on: there is nothing to compare with."""
    (driver.root / "proc/driver/nvidia/gpus/0000:02:00.0/information").unlink()
    assert driver.bind([1])["r"] == -19
    assert "nvidia1" in driver.names(driver.ok([{**driver.gpus[1], "state": "lost"}]))


def test_left_out(driver):
    """Nodes of other instances, displays and of the fabric; sockets and other kinds of mounts."""
    import socket  # pylint: disable=import-outside-toplevel
    driver.mig(1, 7, 0, 30)
    s = spec(driver)
    s["containerEdits"]["deviceNodes"] += [{"path": "/dev/" + n} for n in (
        "nvidia-caps/nvidia-cap30", "nvidia-nvswitch0", "nvidia-caps-imex-channels/channel0",
        "dri/card5", "dri/card1", "nvidia-uvm")]
    cwd = os.getcwd()
    os.chdir(driver.root)
    socket.socket(socket.AF_UNIX).bind("sock")
    os.chdir(cwd)
    s["containerEdits"]["mounts"] += [
        {"hostPath": "/sock", "containerPath": "/run/sock"},
        {"hostPath": "tmpfs", "containerPath": "/x", "type": "tmpfs"} | {"hostPath": "/tmpfs"},
        {"hostPath": "/dev/nvidia5", "containerPath": "/dev/mine"}]
    driver.spec(s)
    b = driver.ok([1])
    assert driver.names(b) == {"nvidia1", "nvidiactl", "nvidia-uvm", "dri/card1"}
    assert list(b["mounts"]) == [f"/{LIB}/libcuda.so.{VERSION}"]


BAD = {
    "kind: nvidia.com/gpu\ncdiVersion: 9.9.9\ndevices: [{name: '0'}]\n": "is none of 0.5.0",
    "kind: nvidia.com/gpu\ncdiVersion: 0.6.0\n": "it names no devices",
    "kind: nvidia.com/gpu\n": ":1: cdiVersion is needed here",
    "cdiVersion: 0.6.0\n": ":1: kind is needed here",
    "": ":1: there is nothing in it",
    "just text": ":1: keys and values are needed here",
    "a: &x 1\nb: *x\n": ":2: aliases are not read",
    "a: 1\na: 2\n": ":2: a key is given twice",
    "a: [1, 2\nb: 3": ":2:",
    "kind: nvidia.com/gpu\ncdiVersion: 0.6.0\ndevices: 5\n": ":3: devices is not a list",
    "kind: nvidia.com/gpu\ncdiVersion: 0.6.0\ndevices:\n- containerEdits: {}\n": ":4: name is needed here",
    "kind: nvidia.com/gpu\ncdiVersion: 0.6.0\ndevices: [{name: '0'}, {name: '0'}]\n": "given twice",
    "kind: nvidia.com/gpu\ncdiVersion: 0.6.0\ndevices: [{name: '../0'}]\n": "no device's name",
    "[" * 40: "nested deeper than 16",
    "? [a]\n: b\n": "a key is no text",
    "a: " + "x" * 5000: "longer than 4096",
    "- 1\n" * 70000: "more than 65536 values",
    "a: \"\\x00\"\n": "holds a NUL",
    "a: \"\\q\"\n": "unknown escape",
    "a: \"\\v\"\n": "holds a control character",
    "a: |\n  two\n  lines\n": "holds a control character",
    "\tkind: x\n": ":1:",
    b"\xff\xfe\x00\xd8": ":1:",
    b"a: \xff\n": ":1:",
}


@pytest.mark.parametrize("text", list(BAD), ids=range(len(BAD)))
def test_bad_specs(driver, text):
    driver.spec("", "etc/cdi/bad.yaml")
    driver.file("etc/cdi/bad.yaml", text)
    b = driver.bind([0])
    assert b["r"] < 0 and b["err"].startswith("/etc/cdi/bad.yaml:") and BAD[text] in b["err"], b["err"]
    assert "\n" not in b["err"]


EDITS = [
    ({"deviceNodes": [{"path": "/etc/passwd"}]}, "does not lie below /dev"),
    ({"deviceNodes": [{"path": "/dev/../etc/x"}]}, "does not lie below /dev"),
    ({"deviceNodes": [{"hostPath": "/dev/x"}]}, "path is needed here"),
    ({"hooks": [{"hookName": "createContainer", "path": ""}]}, "path is empty"),
    ({"deviceNodes": [{"path": "/dev/x", "permissions": "rwx"}]}, "are not of r, w and m"),
    ({"deviceNodes": [{"path": "/dev/x", "type": "char"}]}, "is not b, c, u or p"),
    ({"deviceNodes": [{"path": "/dev/x", "fileMode": "rw"}]}, "is not a file mode"),
    ({"deviceNodes": [{"path": "/dev/x", "fileMode": 99999}]}, "is not a file mode"),
    ({"deviceNodes": [{"path": "/dev/x", "major": -1}]}, "is not a number"),
    ({"deviceNodes": [{"path": "/dev/a/b/c"}]}, "too many or too deep"),
    ({"deviceNodes": [{"path": "/dev/none"}]}, "/dev/none"),
    ({"deviceNodes": {"path": "/dev/x"}}, "deviceNodes is not a list"),
    ({"mounts": [{"hostPath": "/usr", "containerPath": "usr"}]}, "is not absolute"),
    ({"mounts": [{"hostPath": "/usr", "containerPath": "/"}]}, "is not absolute"),
    ({"mounts": [{"hostPath": "/usr", "containerPath": "/a/../../b"}]}, "is not absolute"),
    ({"mounts": [{"hostPath": "usr", "containerPath": "/usr"}]}, "is not absolute"),
    ({"mounts": [{"hostPath": "/nowhere", "containerPath": "/x"}]}, "has the driver changed since?"),
    ({"mounts": [{"hostPath": ["/usr"], "containerPath": "/x"}]}, "hostPath is not a text"),
    ({"env": ["=x"]}, "is not NAME=VALUE"),
    ({"env": ["x"]}, "is not NAME=VALUE"),
    ({"env": [["x=y"]]}, "no text"),
    ({"hooks": [{"hookName": "x", "path": "/x", "args": ["x", "create-symlinks", "--link", "a:b"]}]},
     "is not TARGET::LINK"),
    ({"hooks": [{"hookName": "x", "path": "/x", "args": ["x", "create-symlinks", "--link", "a::b"]}]},
     "is not TARGET::LINK"),
    ({"mounts": [{"hostPath": "/usr", "containerPath": f"/x{i}"} for i in range(300)]}, "more than 240"),
]


@pytest.mark.parametrize("edits, why", EDITS)
def test_bad_edits(driver, edits, why):
    s = spec(driver)
    s["devices"][0]["containerEdits"].update(
        {k: v for k, v in edits.items()})
    driver.spec(s, "etc/cdi/n.json")
    b = driver.bind([0])
    assert b["r"] < 0 and b["err"].startswith("/etc/cdi/n.json:") and why in b["err"], b["err"]


def test_json_escapes(driver):
    s = spec(driver)
    text = json.dumps(s).replace("/", "\\/").replace("A=b", "A=\\ud83d\\ude00\\u00e4\\u003c\\\"")
    driver.spec(text, "etc/cdi/n.json")
    assert 'A=\U0001f600ä<"' in driver.ok([0])["env"]


def test_huge_file(driver):
    driver.file("etc/cdi/n.yaml", "#" * (5 << 20))
    assert "/etc/cdi/n.yaml: File too large" in driver.bind([0])["err"]


# ---- our list as a spec, for other runtimes

def generate(driver, *args):
    done = subprocess.run([BUILD / "hypervisor-vmm", "cdi", "generate", "--root", driver.root, *args],
                          capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else done.stderr


def test_generate(driver):
    """What it prints is a spec that says of each GPU what our own list says."""
    driver.lib("libcuda.so", where="usr/lib/i386-linux-gnu")
    own = [driver.ok([i], "all") for i in range(8)] + [driver.ok(range(8), "all", fabric=True)]
    text = generate(driver)
    assert text.startswith('cdiVersion: "0.6.0"\nkind: "nvidia.com/gpu"\n')
    driver.spec(text)
    for i, o in enumerate(own):
        b = driver.ok([i] if i < 8 else range(8), fabric=i == 8)
        assert driver.names(b) == driver.names(o)
        assert b["env"] == o["env"]
        real = lambda p: p.replace("@lib/", f"/{LIB}/").replace("@lib32/", "/usr/lib/i386-linux-gnu/")
        assert set(b["mounts"]) == {real(m) for m in o["mounts"]}
        assert b["links"] == {real(k): v for k, v in o["links"].items()}
        assert sorted(b["libraries"]) == sorted([n, real(p), is_32] for n, p, is_32 in o["libraries"])
    only = text[text.index("devices:"):]
    driver.spec(text.replace(only, "devices:\n" + only[only.index('  - name: "all"'):]))
    assert len(driver.names(driver.ok(range(8), fabric=True))) > 8
    assert driver.bind([0])["r"] < 0


def test_generate_in_words(driver, tmp_path):
    (tmp_path / "conf").write_text("[engine]\ngpu_driver = simulated:a100x8\n")
    done = subprocess.run([BUILD / "hypervisor-vmm", "cdi", "generate", "--config", tmp_path / "conf"],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "simulated GPUs are for clusters of this program alone" in done.stderr
    driver.file("proc/driver/nvidia/gpus/0000:01:00.0/information", "GPU UUID: ???\n")  # fallen off the bus
    text = generate(driver)
    assert '"GPU-00000000-' not in text and '- name: "6"' in text and '- name: "7"' not in text
    (driver.root / "dev/nvidia-uvm").unlink()
    assert generate(driver).startswith("hypervisor-vmm: cdi: /dev/nvidia-uvm is missing")
    (driver.root / "proc/driver/nvidia/version").unlink()
    assert "there is no NVIDIA driver" in generate(driver)


def test_time(driver):
    """35 files and 8 GPUs in far less than 2 ms, in which they also have to be mounted."""
    assert driver.bind(range(8), times=200) < 1500
