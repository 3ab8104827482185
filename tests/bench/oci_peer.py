"""crun and runc on the starter's root file system, for comparison: the same kinds of namespaces,
an id range, the same limits and the same seccomp policy."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]

# crun refuses hybrid control groups: it gets a mount namespace in which the v2 part is not seen.
HIDE_V2 = "umount /sys/fs/cgroup/unified 2>/dev/null; exec \"$@\""


def allowed_syscalls():
    """Names of the policy file that are plainly allowed; conditional ones count as allowed."""
    names = []
    for line in (ROOT / "data/policy/seccomp.policy").read_text().splitlines():
        line = line.split("#")[0].split()
        if line and line[0].startswith("["):  # sections of single profiles come last
            break
        if len(line) >= 2 and line[0] == "allow":
            names += [w for w in line[1:] if re.fullmatch(r"[a-z_0-9]+", w)]
        elif line and len(line) >= 2 and line[1] == "allow":
            names.append(line[0])
    return sorted(set(names))


def config(rootfs):
    ids = [{"containerID": 0, "hostID": 0x60000000, "size": 65536}]
    names = allowed_syscalls()
    assert len(names) > 200, "the seccomp policy could not be read"
    return {
        "ociVersion": "1.0.2",
        "root": {"path": str(rootfs), "readonly": False},
        "hostname": "peer",
        "process": {"terminal": False, "user": {"uid": 0, "gid": 0}, "cwd": "/",
                    "args": ["/bin/sleep", "1000"], "env": ["PATH=/bin"], "noNewPrivileges": True,
                    "capabilities": {k: ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID", "CAP_SETGID"]
                                     for k in ("bounding", "effective", "permitted")}},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
             "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
             "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs",
             "options": ["nosuid", "noexec", "nodev", "ro"]}],
        "linux": {
            "uidMappings": ids, "gidMappings": ids,
            "namespaces": [{"type": t} for t in
                           ("pid", "network", "ipc", "uts", "mount", "user", "cgroup")],
            "resources": {"memory": {"limit": 256 << 20}, "pids": {"limit": 1000},
                          "cpu": {"quota": 100000, "period": 100000}},
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/acpi",
                            "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys",
                              "/proc/sysrq-trigger"],
            "seccomp": {"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64"],
                        "syscalls": [{"names": names, "action": "SCMP_ACT_ALLOW"}]}}}


def one(runtime, bundle, name):
    # a file, not a pipe: the container keeps it open, and a pipe's end would never come
    errors = bundle / "stderr"
    quiet = dict(stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors.open("w"))
    begin = time.perf_counter()
    for verb in (["create", "--bundle", str(bundle), name], ["start", name]):
        done = subprocess.run([runtime, *verb], **quiet)
        if done.returncode:
            raise RuntimeError("%s %s: %s" % (runtime, verb[0], errors.read_text()))
    took = (time.perf_counter() - begin) * 1000
    subprocess.run([runtime, "delete", "-f", name], **quiet)
    return took


def inside(runs):
    """Runs in the prepared mount namespace; prints the measurements as JSON."""
    work = pathlib.Path(tempfile.mkdtemp(prefix="hvmm-peer."))
    try:
        work.chmod(0o755)
        rootfs = work / "rootfs"
        for d in ("bin", "proc", "dev", "sys", "etc"):
            (rootfs / d).mkdir(parents=True)
        shutil.copy("/bin/busybox", rootfs / "bin" / "sleep")
        for path in [rootfs, *rootfs.rglob("*")]:
            os.chown(path, 0x60000000, 0x60000000)
        (work / "config.json").write_text(json.dumps(config(rootfs)))
        result = {}
        for runtime in ("crun", "runc"):
            times = [one(runtime, work, "hvmm-peer-%d-%s-%d" % (os.getpid(), runtime, i)) for i in range(runs + 3)]
            result[runtime] = times[3:]
        print(json.dumps(result))
    finally:
        shutil.rmtree(work, ignore_errors=True)


def measure(runs):
    done = subprocess.run(["unshare", "-m", "--propagation", "private", "sh", "-c", HIDE_V2, "sh",
                           sys.executable, __file__, str(runs)], stdout=subprocess.PIPE)
    if done.returncode:
        raise RuntimeError("the peers could not be measured")
    return json.loads(done.stdout)


if __name__ == "__main__":
    inside(int(sys.argv[1]))
