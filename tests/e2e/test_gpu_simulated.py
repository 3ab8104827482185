"""A host whose configuration asks for GPUs that do not exist: every fleet as the API shows it, wrong
wishes, what stays over restarts, and what is left at the end."""
import os
import re
import signal
import subprocess
import time

import pytest

from host import RUN, Host

CONFIG = {"cpu_overcommit": 100, "memory_overcommit": 100, "disk_overcommit": 100}
GPUS = "{ gpus { id name pci state reason forRent migMode index numaNode memoryInGb simulated } }"


def host(fleet):
    return Host(config={"engine": dict(CONFIG, gpu_driver=f"simulated:{fleet}")})


def gpus(h):
    return h.gql(GPUS)["gpus"]


@pytest.mark.parametrize("fleet, entries, for_rent, name", [
    ("a100x8", 8, 8, "NVIDIA A100-SXM4-80GB"),
    ("3090x8", 8, 8, "NVIDIA GeForce RTX 3090"),
    ("a100mig", 17, 14, "NVIDIA A100-SXM4-80GB"),
    ("x16", 16, 16, "NVIDIA A100-SXM4-40GB"),
    ("4090x1", 1, 1, "NVIDIA GeForce RTX 4090"),
])
def test_fleets(fleet, entries, for_rent, name):
    with host(fleet) as h:
        shown = gpus(h)
        assert len(shown) == entries == len({g["id"] for g in shown})
        assert sum(g["forRent"] for g in shown) == for_rent
        assert {(g["name"], g["state"], g["simulated"]) for g in shown} == {(name, "ok", True)}
        assert all(re.fullmatch(r"0000[0-9a-f]{4}:[0-9a-f]{2}:00\.0", g["pci"]) for g in shown)


def test_what_stays_and_what_goes():
    with host("a100x8") as h, host("a100x8") as other:
        first = gpus(h)
        assert not {g["id"] for g in first} & {g["id"] for g in gpus(other)}
        run = RUN / h.id
        h.restart()  # kill -9
        assert gpus(h) == first
        (run / "simulated/faults").write_text("lose 3\n")
        wait(lambda: [g["id"] for g in gpus(h) if g["state"] == "lost"] == [first[3]["id"]])
        h.stop()
        assert not run.exists()  # no cluster needs it
        h.start()
        assert gpus(h) == first  # and what was wrong is gone with the directory
        h.stop()
        assert not run.exists() and h.id not in open("/proc/mounts").read()


def wait(check, timeout=20):
    end = time.monotonic() + timeout
    while not check():
        assert time.monotonic() < end
        time.sleep(0.1)


# --- in clusters -----------------------------------------------------------------------------------

def deploy(h, kind, command, image="tensorone/starter", count=1):
    return h.deploy(imageName=image, gpuCount=count, gpuTypeId=kind, dockerArgs=f"sh -c '{command}; echo END; sleep 1000'")


def seen(log):
    return re.findall(r"UUID: ((?:GPU|MIG)-[0-9a-f-]{36})\) \(simulated\)", log)


def test_each_cluster_sees_its_own():
    with host("a100x8") as h:
        h.import_image("tensorone/starter")
        clusters = [deploy(h, "NVIDIA A100-SXM4-80GB", "nvidia-smi -L; nvidia-smi topo -m", count=n) for n in (1, 2, 1)]
        logs = [h.wait_log(c, "END") for c in clusters]
        mine = [seen(log) for log in logs]
        assert [len(m) for m in mine] == [1, 2, 1]
        assert len({u for m in mine for u in m}) == 4
        holders = {g["id"]: g["clusterId"] for g in h.gql("{ gpus { id clusterId } }")["gpus"]}
        assert [[holders[u] for u in m] for m in mine] == [[clusters[0]], [clusters[1]] * 2, [clusters[2]]]
        assert logs[1].count("NV12") == 2 and "NV12" not in logs[0]


def test_an_instance_is_all_there_is():
    with host("a100mig") as h:
        h.import_image("tensorone/starter")
        clusters = [deploy(h, "NVIDIA A100 1g.10gb", "nvidia-smi -L") for _ in range(3)]
        mine = [seen(h.wait_log(c, "END")) for c in clusters]
        assert [[u[:4] for u in m] for m in mine] == [["GPU-", "MIG-"]] * 3
        assert len({m[1] for m in mine}) == 3


def test_the_library_loads_in_an_image():
    """Debian's python3 and loader: by name, without a path."""
    ask = ('python3 -c "import ctypes as c; l = c.CDLL(\\"libnvidia-ml.so.1\\"); n = c.c_uint(); d = c.c_void_p(); '
           'b = c.create_string_buffer(96); r = [l.nvmlInit_v2(), l.nvmlDeviceGetCount_v2(c.byref(n)), '
           'l.nvmlDeviceGetHandleByIndex_v2(0, c.byref(d)), l.nvmlDeviceGetUUID(d, b, 96)]; print(r, n.value, b.value.decode())"')
    with host("h100x8") as h:
        h.import_image("tensorone/llm-starter")
        c = deploy(h, "NVIDIA H100 80GB HBM3", ask, image="tensorone/llm-starter")
        log = h.wait_log(c, "END")
        holder = [g["id"] for g in h.gql("{ gpus { id clusterId } }")["gpus"] if g["clusterId"] == c]
        assert f"[0, 0, 0, 0] 1 {holder[0]}\n" in log


# --- wrong wishes ----------------------------------------------------------------------------------

@pytest.mark.parametrize("wish, says", [
    ("simulated:a100x7", "there is no simulated fleet 'a100x7'; one of 3090x8, 4090x1, a100mig, a100x8, a6000x4, h100x8, h200x8, x16, "
                         "or the path of a description"),
    ("simulated:/nowhere/at/all", "read /nowhere/at/all: No such file or directory"),
    ("yes", "'yes' is not auto, none or simulated:FLEET"),
])
def test_wrong_wishes(wish, says):
    h = Host(config={"engine": dict(CONFIG, gpu_driver=wish)})
    try:
        with pytest.raises(RuntimeError, match="did not become ready"):
            h.start()
        assert h.proc.wait(20) == 1
        assert f"[engine] gpu_driver: {says}\n" in h.log_text()
        run = RUN / (h.data / "instance").read_text().strip()
        h.proc = None
        assert not run.exists()
    finally:
        if h.proc and h.proc.poll() is None:
            h.proc.send_signal(signal.SIGKILL)
        subprocess.run(["rm", "-rf", str(h.dir)], check=True)


def test_mistakes_are_named_by_line(tmp_path):
    bad = tmp_path / "fleet"
    bad.write_text('driver 1.2 cuda=12.4\nmodel "X" memory=1000\ngpu 0000:01:00.0 numa=two\n')
    os.chmod(tmp_path, 0o755)
    h = Host(config={"engine": dict(CONFIG, gpu_driver=f"simulated:{bad}")})
    try:
        with pytest.raises(RuntimeError):
            h.start()
        assert h.proc.wait(20) == 1
        assert f"{bad}: line 3: 'numa=two': must be a number from 0 to 1023" in h.log_text()
    finally:
        subprocess.run(["rm", "-rf", str(h.dir)], check=True)
