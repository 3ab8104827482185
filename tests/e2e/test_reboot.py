"""After a reboot of the host: what should run, runs again; volumes are intact, container disks gone.
The reboot is played: everything of the host is killed and the journal is from another boot."""
import contextlib
import os
import signal
import sqlite3

import pytest

from host import RUN, ApiError, Host

OTHER_BOOT = "00000000-0000-0000-0000-000000000000"


def end_process(pid, start):
    """The very one that the journal means: of a cluster that was ending it may be gone, and its number another's."""
    with contextlib.suppress(ProcessLookupError):
        fd = os.pidfd_open(pid)
        try:
            with open("/proc/%d/stat" % pid, encoding="utf-8") as f:
                if int(f.read().rsplit(")", 1)[1].split()[19]) == start:
                    signal.pidfd_send_signal(fd, signal.SIGKILL)
        except FileNotFoundError:
            pass
        finally:
            os.close(fd)


def reboot(host):
    host.kill()
    with contextlib.closing(sqlite3.connect(host.data / "journal.db")) as db, db:
        for monitor, began, init, init_began in db.execute(
                "SELECT monitor_pid, monitor_start, init_pid, init_start FROM cluster WHERE monitor_pid > 0"):
            end_process(monitor, began)
            if init > 0:
                end_process(init, init_began)
        db.execute("UPDATE meta SET boot_id = ?", (OTHER_BOOT,))
        db.execute("UPDATE cluster SET boot_id = ?", (OTHER_BOOT,))
    host.start()


def test_reboot():
    script = "echo boot >> /workspace/boots; ls /mark || touch /mark; exec sleep 1000"
    with Host({"engine": {"cpu_overcommit": 100, "memory_overcommit": 20, "disk_overcommit": 100,
                          "grace": "1s"}}) as h:
        h.import_image("tensorone/starter")
        cluster = h.deploy(dockerArgs="sh -c '%s'" % script, volumeInGb=1,
                           volumeMountPath="/workspace")
        stopped = h.deploy(dockerArgs="sleep 1000")
        for c in (cluster, stopped):
            h.wait_running(c)
        h.call("clusterStop", stopped)
        h.wait_exited(stopped)
        h.exec(cluster, "sync")
        reboot(h)
        h.wait_running(cluster)
        h.wait_log(cluster, "No such file")  # /mark is not there a second time either
        assert h.cluster(stopped)["phase"] == "exited"
        boots = h.exec(cluster, "cat", "/workspace/boots")
        assert getattr(boots, "stdout", boots).split() == ["boot", "boot"]
        assert h.logs(cluster).count("No such file") == 2
        disks = [f.name for f in (h.data / "disks").glob("*.img") if not f.name.startswith("pool-")]
        assert disks == [cluster + "-2.img"]


def gpu_claims(host):
    """{uuid: cluster} of this host's, which lie in /run."""
    found = {}
    for f in (RUN / "gpus").glob("GPU-*"):
        words = f.read_text().split()
        if words[0] == host.id:
            found[f.name] = words[1]
    return found


def test_gpus():
    """Whose cluster goes on keeps its GPUs; those of one that was ending are checked, not lost, not sold before."""
    with Host({"engine": {"cpu_overcommit": 100, "memory_overcommit": 20, "disk_overcommit": 100, "grace": "1s",
                          "pool_networks": 0, "pool_disks": 0, "gpu_driver": "simulated:3090x8"}}) as h:
        def gpus():
            return {g["id"]: (g["state"], g["clusterId"]) for g in h.gql("{ gpus { id state clusterId } }")["gpus"]}

        h.import_image("tensorone/starter")
        runs, ends = (h.deploy(gpuTypeId="RTX 3090", gpuCount=n, dockerArgs="sleep 1000") for n in (2, 3))
        for c in (runs, ends):
            h.wait_running(c)
        of = {c: {u for u, (_, k) in gpus().items() if k == c} for c in (runs, ends)}
        assert [len(of[c]) for c in (runs, ends)] == [2, 3]
        bad = min(of[ends])
        (RUN / h.id / "simulated/faults").write_text("leak %s 5000\n" % bad)
        h.call("clusterStop", ends)
        h.wait(ends, lambda c: c["phase"] == "stopping")
        assert set(gpu_claims(h).values()) == {runs, ends}
        for uuid in gpu_claims(h):
            (RUN / "gpus" / uuid).unlink()
        reboot(h)
        h.wait_running(runs)
        assert {u for u, (_, k) in gpus().items() if k == runs} == of[runs]
        assert h.exec(runs, "nvidia-smi", "-L").stdout.count("UUID: GPU-") == 2
        with pytest.raises(ApiError) as e:
            h.deploy(gpuTypeId="RTX 3090", gpuCount=4)
        assert "3 of 8 free" in str(e.value)
        h.wait_exited(ends, 40)  # its GPUs are looked at until it is clear that one is not given back
        receipts = h.gql("query($id: String!) { cluster(input: {clusterId: $id}) { gpuReceipts } }",
                         {"id": ends})["cluster"]["gpuReceipts"]
        assert {r["uuid"]: r["ok"] for r in receipts} == {u: u != bad for u in of[ends]}
        assert gpus()[bad] == ("quarantined", None) and set(gpu_claims(h)) == of[runs]
        assert h.deploy(gpuTypeId="RTX 3090", gpuCount=5)
