"""The root of a GPU driver (root): a simulated one's tree as programs find it, made anew, taken away, and
what is said about a wrong wish.  Through the program driverctl; nothing of a real driver is here."""
import glob
import json
import os
import re
import stat
import subprocess
import uuid

import pytest

from programs import build_dir

DRIVERCTL = os.path.join(build_dir(), "tests/flow/gpu_driver/driverctl")
FLEETS = sorted(f for f in os.listdir(os.path.join(build_dir(), "data/fleets")) if "." not in f)
COUNT = {"3090x8": 8, "4090x1": 1, "a100mig": 4, "a100x8": 8, "a6000x4": 4, "h100x8": 8, "h200x8": 8, "x16": 16}


def call(ident, want, *words, libexec=None, ok=True):
    p = subprocess.run([DRIVERCTL, ident, libexec or build_dir(), want, *map(str, words)], capture_output=True,
                       text=True, timeout=60)
    assert "Sanitizer" not in p.stderr and "runtime error:" not in p.stderr, p.stderr
    assert (p.returncode == 0) == ok, p.stderr
    return p.stdout if ok else p.stderr


@pytest.fixture
def ident():
    name = "t" + uuid.uuid4().hex[:7]
    yield name
    subprocess.run(["rm", "-rf", f"/run/hypervisor-vmm/{name}"], check=True)


def sh(ident, want, script, **kw):
    """The facts, and what SCRIPT prints in the namespace where the tree is."""
    first, _, rest = call(ident, want, "open", "sh", "-ec", script, **kw).partition("\n")
    return json.loads(first), rest


def inside(command, gone="true"):
    """As a cluster sees it: the tree is its root; nvidia-smi is there."""
    return f'{gone}; exec chroot "$ROOT" /usr/bin/nvidia-smi {command}'


# --- the tree ------------------------------------------------------------------------------------

@pytest.mark.parametrize("fleet", FLEETS)
def test_every_fleet(ident, fleet):
    facts, out = sh(ident, f"simulated:{fleet}", inside("--query-gpu=index,uuid,name --format=csv,noheader"))
    rows = [line.split(", ") for line in out.splitlines()]
    assert facts["kind"] == "simulated" and facts["version"] == "550.54.15" and facts["has_root"]
    assert [r[0] for r in rows] == [str(i) for i in range(COUNT[fleet])]
    assert len({r[1] for r in rows}) == COUNT[fleet]
    assert all(re.fullmatch(r"GPU-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", r[1]) for r in rows)


def test_known_fleets_are_those_of_the_test():
    assert set(COUNT) == set(FLEETS)


def test_names_are_stable_and_differ_between_hosts(ident):
    other = "u" + ident[1:]
    try:
        names = [sh(i, "simulated:a100mig", inside("-L"))[1] for i in (ident, ident, other)]
    finally:
        subprocess.run(["rm", "-rf", f"/run/hypervisor-vmm/{other}"], check=True)
    assert names[0] == names[1] and names[0].count("MIG-") == 13
    assert not set(re.findall(r"(?:GPU|MIG)-[0-9a-f-]{36}", names[0])) & set(
        re.findall(r"(?:GPU|MIG)-[0-9a-f-]{36}", names[2]))


def test_a_crash_leaves_nothing_that_matters(ident):
    before = sh(ident, "simulated:a100x8", inside("-L"))[1]
    call(ident, "simulated:a100x8", "kill")
    state = f"/run/hypervisor-vmm/{ident}"
    with open(f"{state}/simulated/faults", "w") as f:
        f.write("util 0 7\n")
    assert sh(ident, "simulated:a100x8", inside("-L"))[1] == before
    assert json.loads(call(ident, "simulated:a100x8", "again"))["kind"] == "simulated"
    assert open(f"{state}/simulated/faults").read() == "util 0 7\n"  # the hardware's, not the engine's
    assert sorted(os.listdir(state)) == ["simulated"]
    assert ident not in open("/proc/mounts").read()


def test_what_the_host_sees_of_it(ident):
    """Nothing: the tree is in the engine's mount namespace alone."""
    _, out = sh(ident, "simulated:4090x1", f'nsenter -t {os.getpid()} -m ls "$ROOT"')
    assert out == ""


def test_another_fleet_leaves_none_of_the_old(ident):
    sh(ident, "simulated:a100x8", "true")
    _, out = sh(ident, "simulated:4090x1", 'cd "$ROOT"; ls dev proc/driver/nvidia/gpus')
    assert "nvidia1\n" not in out and "nvswitch" not in out and out.count("0000:") == 1


def test_device_nodes(ident):
    script = 'cd "$ROOT"; stat -c "%n %F %t:%T %a" dev/* dev/*/* ; python3 - <<"EOF"\n' \
             'import os, errno\n' \
             'for n in ["nvidia0", "nvidiactl", "nvidia-uvm", "nvidia-caps/nvidia-cap66"]:\n' \
             '    try: os.open("dev/" + n, os.O_RDWR); print(n, "opened")\n' \
             '    except OSError as e: print(n, errno.errorcode[e.errno])\nEOF\n'
    _, out = sh(ident, "simulated:a100mig", script)
    nodes = {l.split()[0]: l for l in out.splitlines() if "character special" in l}
    majors = {int(l.split()[-2].split(":")[0], 16) for l in nodes.values()}
    assert len(majors) == 3 and all(60 <= m <= 63 or 120 <= m <= 127 for m in majors)
    listed = re.findall(r"^ *(\d+) ", open("/proc/devices").read().split("Block")[0], re.M)
    assert not majors & set(map(int, listed))
    assert {"dev/nvidia0", "dev/nvidia3", "dev/nvidiactl", "dev/nvidia-uvm", "dev/nvidia-uvm-tools",
            "dev/nvidia-modeset", "dev/nvidia-caps/nvidia-cap1", "dev/nvidia-caps/nvidia-cap66"} <= set(nodes)
    assert nodes["dev/nvidia0"].endswith(":0 666") and nodes["dev/nvidia-caps/nvidia-cap1"].endswith("400")
    assert {"dev/dri/card3", "dev/dri/renderD131"} <= set(nodes)
    for name in ("nvidia0", "nvidiactl", "nvidia-uvm", "nvidia-caps/nvidia-cap66"):
        assert f"{name} ENXIO" in out


def test_proc_and_sys(ident):
    script = 'cd "$ROOT"; cat proc/driver/nvidia/version proc/driver/nvidia/gpus/0000:47:00.0/information; ' \
             'for f in vendor device class numa_node local_cpulist; do cat sys/bus/pci/devices/0000:87:00.0/$f; done; ' \
             'readlink -e sys/bus/pci/devices/0000:87:00.0/iommu_group sys/bus/pci/devices/0000:87:00.0/driver ' \
             'sys/kernel/iommu_groups/24/devices/*; ls dev'
    facts, out = sh(ident, "simulated:a100x8", script)
    root = facts["root"]
    assert "Kernel Module  550.54.15 " in out and "Simulated: driver 550.54.15 cuda=12.4" in out
    assert re.search(r"^Model: \t\t NVIDIA A100-SXM4-80GB$", out, re.M)
    assert re.search(r"^Device Minor: \t 2$", out, re.M)
    assert "\n0x10de\n0x20b2\n0x030200\n1\n" in out
    assert f"{root}/sys/kernel/iommu_groups/24\n{root}/sys/bus/pci/drivers/nvidia\n" in out
    assert f"{root}/sys/devices/pci0000:02/0000:87:00.0\n" in out
    assert "nvidia-nvswitch5\nnvidia-nvswitchctl" in out


def test_library_files(ident):
    facts, out = sh(ident, "simulated:h100x8",
                    'cd "$ROOT"/usr/lib/*-linux-gnu; for f in *.so.550.54.15 */*.so.* ../xorg/*/*/*.so.*; do '
                    'echo "$f $(readelf -d "$f" | sed -n "s/.*soname: \\[\\(.*\\)\\]/\\1/p")"; done; '
                    'ldconfig -nvN . ; readlink -e libcuda.so libnvidia-ml.so.1 gbm/nvidia-drm_gbm.so; '
                    'ls -R "$ROOT"/lib/firmware "$ROOT"/etc "$ROOT"/usr/share "$ROOT"/usr/bin')
    names = dict(l.split(" ") for l in out.splitlines() if re.match(r"\S+\.so\.\S+ \S+$", l))
    assert len(names) >= 34
    assert names["libcuda.so.550.54.15"] == "libcuda.so.1"
    assert names["libnvidia-nvvm.so.550.54.15"] == "libnvidia-nvvm.so.4"
    assert names["libnvidia-glcore.so.550.54.15"] == "libnvidia-glcore.so.550.54.15"
    assert names["vdpau/libvdpau_nvidia.so.550.54.15"] == "libvdpau_nvidia.so.1"
    assert facts["nvml"].endswith("/libnvidia-ml.so.1")
    assert len(re.findall(r"^/\S+/(libcuda|libnvidia-ml|libnvidia-allocator)\.so\.550\.54\.15$", out, re.M)) == 3
    assert "gsp_ga10x.bin" in out and "nvidia_icd.json" in out and "nvidia-persistenced" in out


# --- a cluster's view -------------------------------------------------------------------------------

def test_only_what_can_be_opened_is_seen(ident):
    gone = 'cd "$ROOT"; rm dev/nvidia0 dev/nvidia2 dev/nvidia3; rm -r proc/driver/nvidia/gpus/0000:bd:00.0'
    _, out = sh(ident, "simulated:a100x8", inside("--query-gpu=index,pci.bus_id --format=csv,noheader", gone))
    assert out.split("\n")[:-1] == ["0, 00000000:0F:00.0", "1, 00000000:87:00.0", "2, 00000000:90:00.0",
                                    "3, 00000000:B7:00.0"]


def test_one_of_a_pair_is_seen_alone(ident):
    _, out = sh(ident, "simulated:3090x8", inside("topo -m", 'cd "$ROOT"; rm dev/nvidia[1-7]'))
    assert "GPU0" in out and "GPU1" not in out and "NV4" not in out


def test_only_opened_instances_are_seen(ident):
    """gpu 1 has 3g.40gb (gi 1), 2g.20gb (gi 3), two 1g.10gb: the second is left."""
    gone = 'cd "$ROOT"; rm dev/nvidia[023]; rm dev/nvidia-caps/nvidia-cap[0-9]*; ' \
           'mknod dev/nvidia-caps/nvidia-cap165 c 60 165; mknod dev/nvidia-caps/nvidia-cap166 c 60 166'
    _, out = sh(ident, "simulated:a100mig", inside("-L", gone))
    assert out.count("GPU ") == 1 and out.count("MIG ") == 1 and "MIG 2g.20gb" in out


def test_refused_nodes(ident):
    script = 'chmod 0 "$ROOT"/dev/nvidia{}; set +e; chroot --userspec=65534:65534 "$ROOT" /usr/bin/nvidia-smi -L; echo "exit $?"'
    assert sh(ident, "simulated:3090x8", script.format(3))[1].count("GPU-") == 7
    first, _, rest = call(ident, "simulated:3090x8", "open", "bash", "-c", script.format("ctl")).partition("\n")
    assert rest == "exit 9\n"
    assert sh(ident, "simulated:3090x8", 'rm "$ROOT"/dev/nvidia[0-9]; set +e; chroot "$ROOT" /usr/bin/nvidia-smi; echo $?')[1] \
        == "No devices were found\n6\n"


def test_everything_says_simulated(ident):
    _, out = sh(ident, "simulated:a6000x4", 'for a in "" -L "topo -m"; do chroot "$ROOT" /usr/bin/nvidia-smi $a; echo ---; done; '
                'chroot "$ROOT" /usr/bin/nvidia-persistenced')
    assert [("simulated" in part) for part in out.split("---\n")] == [True] * 4


# --- wishes ------------------------------------------------------------------------------------------

def test_none_and_auto(ident):
    facts, _ = sh(ident, "none", "true")
    assert facts["kind"] == "none" and facts["note"] == "gpu_driver = none" and not facts["has_root"]
    if not os.path.exists("/proc/driver/nvidia/version"):
        for want in ("auto", ""):
            facts, _ = sh(ident, want, "true")
            assert facts["kind"] == "none" and facts["note"] == "no NVIDIA driver is loaded"


REAL = """mount -t tmpfs none /proc/driver; mkdir /proc/driver/nvidia
echo 'NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {kernel}  Release Build  (x@y)' > /proc/driver/nvidia/version
mount -t tmpfs none /usr/local/lib; touch /usr/local/lib/libnvidia-ml.so.{library}
ln -s libnvidia-ml.so.{library} /usr/local/lib/libnvidia-ml.so.1
exec {ctl} {ident} {libexec} auto open"""


@pytest.mark.parametrize("kernel,library,note", [
    ("550.54.15", "550.54.15", None),
    ("550.54.15", "535.183.01", "the NVIDIA kernel module is of version 550.54.15, /usr/local/lib/libnvidia-ml.so.1 of 535.183.01: "
                                "restart the host, or unload and load the module"),
    ("garbage", "550.54.15", "/proc/driver/nvidia/version says no version"),
])
def test_a_real_driver_as_far_as_files_go(ident, kernel, library, note):
    script = REAL.format(kernel=kernel, library=library, ctl=DRIVERCTL, ident=ident, libexec=build_dir())
    p = subprocess.run(["unshare", "-m", "sh", "-ec", script], capture_output=True, text=True, timeout=60)
    assert p.returncode == 0, p.stderr
    facts = json.loads(p.stdout)
    assert facts["note"] == note and facts["kind"] == ("none" if kernel == "garbage" else "nvidia")
    if facts["kind"] == "nvidia":
        assert facts["root"] == "/" and facts["version"] == kernel and facts["nvml"] == "/usr/local/lib/libnvidia-ml.so.1"


def test_wrong_wishes(ident, tmp_path):
    known = ", ".join(FLEETS)
    assert call(ident, "simulated:a100x9", "open", ok=False).strip() == \
        f"[engine] gpu_driver: there is no simulated fleet 'a100x9'; one of {known}, or the path of a description"
    for bad in ("simulated:", "simulated:..", "simulated:meson.build"):
        assert "there is no simulated fleet" in call(ident, bad, "open", ok=False)
    assert "is not auto, none or simulated:FLEET" in call(ident, "fake", "open", ok=False)
    assert "No such file or directory" in call(ident, "simulated:/nowhere/x", "open", ok=False)
    broken = tmp_path / "broken"
    broken.write_text("driver 1.2 cuda=12.4\nmodel X memory=1000\ngpu 0000:01:00.0 numma=0\n")
    assert call(ident, f"simulated:{broken}", "open", ok=False).strip() == \
        f"[engine] gpu_driver: {broken}: line 3: 'numma=0': there is no such key here"
    assert not os.path.exists(f"/run/hypervisor-vmm/{ident}/driver")


def test_a_description_of_ones_own(ident, tmp_path):
    own = tmp_path / "own"
    own.write_text('driver 555.1.2 cuda=12.5\nmodel "NVIDIA Test 1" memory=1000 reserved=10\ngpu 0000:01:00.0\n')
    facts, out = sh(ident, f"simulated:{own}", inside("--query-gpu=name,memory.total --format=csv,noheader"))
    assert facts["version"] == "555.1.2" and out == "NVIDIA Test 1, 1000 MiB\n"
    assert call(ident, f"simulated:{own}", "describe") == f"1 simulated: 1 x NVIDIA Test 1 ({own})\n"
    assert call(ident, "simulated:a100x8", "describe") == "1 simulated: 8 x NVIDIA A100-SXM4-80GB (a100x8)\n"


def test_installed(ident, tmp_path):
    """The places after `meson install`: libexec/hypervisor-vmm/simulated and share/hypervisor-vmm/fleets."""
    libexec, share = tmp_path / "libexec/hypervisor-vmm", tmp_path / "share/hypervisor-vmm"
    (libexec / "simulated").mkdir(parents=True)
    share.mkdir(parents=True)
    for name in ("libnvidia-ml.so.1", "libcuda.so.1", "libdriver-stub.so", "nvidia-smi"):
        os.symlink(os.path.join(build_dir(), "tests/fakes/nvml", name), libexec / "simulated" / name)
    os.symlink(os.path.join(build_dir(), "data/fleets"), share / "fleets")
    _, out = sh(ident, "simulated:4090x1", inside("-L"), libexec=str(libexec))
    assert "RTX 4090" in out
    assert "one of 3090x8, 4090x1" in call(ident, "simulated:z", "open", libexec=str(libexec), ok=False)


def test_old_c_libraries_can_load_it():
    """It is shown in images that are older than this host."""
    lib = os.path.join(build_dir(), "tests/fakes/nvml/libnvidia-ml.so.1")
    out = subprocess.run(["readelf", "-V", lib], capture_output=True, text=True, check=True).stdout
    versions = {tuple(map(int, v.split("."))) for v in re.findall(r"GLIBC_([0-9.]+)", out)}
    assert versions and max(versions) <= (2, 17)
    needed = subprocess.run(["readelf", "-d", lib], capture_output=True, text=True, check=True).stdout
    assert re.findall(r"NEEDED.*\[(.*)\]", needed) == ["libc.so.6"]
