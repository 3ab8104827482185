"""After a reboot of the host: what should run, runs again; volumes are intact, container disks gone.
The reboot is played: everything of the host is killed and the journal is from another boot."""
import os
import sqlite3

from host import Host

OTHER_BOOT = "00000000-0000-0000-0000-000000000000"


def reboot(host):
    host.kill()
    with sqlite3.connect(host.data / "journal.db") as db:
        for pids in db.execute("SELECT monitor_pid, init_pid FROM cluster WHERE monitor_pid > 0"):
            for pid in pids:
                os.kill(pid, 9)
        db.execute("UPDATE meta SET boot_id = ?", (OTHER_BOOT,))
        db.execute("UPDATE cluster SET boot_id = ?", (OTHER_BOOT,))
    db.close()
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
