"""The launcher on the real kernel (root): engine/sandbox through flow_sandbox, with busybox and a
static probe as the image.  A stand-in takes vmm-monitor's place and hands back what was printed."""
import json
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("HVMM_BUILD", ROOT / "build"))
HERE = BUILD / "tests/flow/sandbox"
ID_BASE = 0x6F000000 + os.getpid() % 200 * 0x10000 + 1  # runs may lie beside each other
IDS = range(ID_BASE - 1, ID_BASE + 65536)  # the monitor's uid is the one below

PASSWD = "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n"
GROUP = "root:x:0:\ntty:x:5:\nuser:x:1000:\nextra:x:2000:user\n"


OURS = {str(HERE / "flow_sandbox")}  # and a launcher for each image


def ours():
    """Processes with one of our ids, and launchers that have not become anything yet."""
    found = {}
    for p in pathlib.Path("/proc").iterdir():
        if not p.name.isdigit():
            continue
        try:
            uid = int(re.search(r"^Uid:\s+(\d+)", (p / "status").read_text(), re.M)[1])
            exe = os.readlink(p / "exe")
        except (OSError, TypeError):
            continue
        if uid in IDS or exe.endswith(tuple(OURS)):
            found[int(p.name)] = exe
    return found


class Image:
    """One layer, "base", with busybox and the probe; tests add what they need."""

    def __init__(self, root):
        self.tree, self.base = root / "tree", root / "tree/base"
        OURS.add(str(self.tree / "programs/vmm-launch (deleted)")[-150:])  # in memory
        for d in ("bin", "etc", "root", "tmp", "home/user"):
            (self.base / d).mkdir(parents=True)
        (self.base / "tmp").chmod(0o1777)
        shutil.copy("/bin/busybox", self.base / "bin/busybox")
        shutil.copy(HERE / "probe", self.base / "bin/probe")
        applets = subprocess.run(["/bin/busybox", "--list"], capture_output=True, text=True,
                                 check=True).stdout.split()
        for a in applets:
            if a != "busybox":
                os.symlink("busybox", self.base / "bin" / a)
        (self.base / "etc/passwd").write_text(PASSWD)
        (self.base / "etc/group").write_text(GROUP)


class Result:
    def __init__(self, answer):
        self.r, self.err = answer["r"], answer["err"]
        self.init, self.monitor = answer["init"], answer["monitor"]
        self.grouped = answer.get("grouped")  # each process in its own group, and alone there
        self.standing = self.out = self.code = self.signal = None
        if self.r >= 0:
            lines = answer["output"].replace("\r\n", "\n").split("\n")
            assert lines[0].startswith("#uid") and lines[-2].startswith("@"), answer["output"]
            self.standing = lines[0]
            self.out = "\n".join(lines[1:-2])
            self.code, self.signal = map(int, lines[-2][1:].split())

    def ok(self):
        assert self.r >= 0, self.err
        assert (self.code, self.signal) == (0, 0), self.out
        return self.out


def program(argv, **kw):
    if isinstance(argv, str):
        argv = ["sh", "-c", argv]
    return {"argv": argv, "env": ["PATH=/bin"], **kw}


@pytest.fixture
def image(tmp_path):
    assert os.geteuid() == 0, "needs root"
    assert not ours(), "left over from somewhere else"
    yield Image(tmp_path)
    left = ours()
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left, "left behind"


@pytest.fixture
def order(image):
    libexec = image.tree / "programs"
    libexec.mkdir()
    (libexec / "vmm-monitor").symlink_to(HERE / "vmm-monitor")  # a stand-in
    shutil.copy(BUILD / "vmm-launch", libexec)
    return {"tree": str(image.base), "libexec": str(libexec),
            "id_base": ID_BASE}


def go(order, run, execs=(), **kw):
    done = subprocess.run([HERE / "flow_sandbox"], input=json.dumps(
        {**order, "run": run, "exec": list(execs), **kw}), capture_output=True, text=True,
        timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    first = Result(answer["run"])
    return (first, [Result(x) for x in answer["exec"]]) if execs else first


def say(order, argv, pooled=False, **kw):
    return go({**order, "pooled": pooled}, program(argv, **kw)).ok()


# ---- who and where

def test_identity(order):
    out = say(order, "id -u; id -g; id -G; cat /proc/self/uid_map /proc/self/gid_map; hostname;"
                     "pwd; echo $$ $HOME; cat /proc/self/cgroup")
    lines = out.split("\n")
    assert lines[:3] == ["0", "0", "0"]
    assert [x.split() for x in lines[3:5]] == [["0", str(ID_BASE), "65536"]] * 2
    assert lines[5:8] == ["box", "/", "1 /root"]
    assert all(x.endswith(":/") for x in lines[8:])


def test_namespaces(order):
    kinds = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
    out = say(order, "".join(f"readlink /proc/self/ns/{k};" for k in kinds))
    host = [os.readlink(f"/proc/self/ns/{k}") for k in kinds]
    assert len(out.split("\n")) == 7
    assert not set(out.split("\n")) & set(host)


def test_rights(order):
    status = dict(x.split(":", 1) for x in say(order, ["cat", "/proc/self/status"]).split("\n"))
    kept = "00000000800405fb"
    assert {k: status[k].strip() for k in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {
        "CapInh": "0" * 16, "CapPrm": kept, "CapEff": kept, "CapBnd": kept, "CapAmb": "0" * 16}
    assert status["NoNewPrivs"].strip() == "1"
    assert status["Seccomp"].strip() == "2"
    assert status["SigIgn"].strip() == status["SigBlk"].strip() == "0" * 16


@pytest.mark.parametrize("user, want", [
    ("user", "1000 1000 1000 2000 /home/user"),
    ("1000", "1000 1000 1000 2000 /home/user"),
    ("user:tty", "1000 5 5 /home/user"),
    ("4711", "4711 0 0 /"),
    ("4711:4712", "4711 4712 4712 /"),
    ("", "0 0 0 /root"),
])
def test_user(order, user, want):
    out = say(order, "echo $(id -u) $(id -g) $(id -G) $HOME; grep CapEff /proc/self/status",
              user=user)
    ids, caps = out.split("\n")
    assert ids == want
    assert (caps.split()[1] == "0" * 16) == (user != "")


@pytest.mark.parametrize("user, message", [
    ("nobody", "user nobody is not in the image's /etc/passwd"),
    ("user:none", "group none is not in the image's /etc/group"),
    ("70000", "user 70000: ids inside are 0 to 65535"),
])
def test_user_unknown(order, user, message):
    assert go(order, program("true", user=user)).err == message


# uid, gid, home; `id` itself reads /etc/group, which may be a trap
WHO = "set -- $(grep -E '^[UG]id' /proc/self/status); echo $2 $7 $HOME"


@pytest.mark.parametrize("what", ["fifo", "huge", "link", "dir", "socket"])
@pytest.mark.parametrize("name", ["passwd", "group"])
def test_user_files_may_be_traps(order, image, name, what):
    """Ids and the default user need no file, so that nobody is locked out; names say what is wrong."""
    db = image.base / "etc" / name
    db.unlink()
    if what == "fifo":
        os.mkfifo(db)
    elif what == "huge":
        db.write_text("x" * (1 << 20) + "\n")
    elif what == "dir":
        db.mkdir()
    elif what == "socket":
        with socket.socket(socket.AF_UNIX) as s:
            s.bind(str(db))
    else:
        os.symlink("/proc/1/root/etc/" + name, db)
    known = name == "group"
    for user, want in (("", "0 0 /root"), ("0", "0 0 /root"),
                       ("1000", "1000 1000 /home/user" if known else "1000 0 /"),
                       ("1000:7", "1000 7 " + ("/home/user" if known else "/"))):
        assert say(order, WHO, user=user) == want
    r = go(order, program("true", user="user:tty" if known else "user"))
    assert r.r < 0 and re.search(f"is not in the image's /etc/{name} \\(.*/etc/{name}: ", r.err), r.err


@pytest.mark.parametrize("trap", ["ln -sf /dev/zero /etc/passwd", "rm /etc/passwd; mkfifo /etc/passwd",
                                  "ln -sf passwd /etc/passwd", "truncate -s 100G /etc/passwd"])
def test_root_inside_does_not_lock_out_its_owner(order, trap):
    """What it makes of the file while the cluster runs: sessions start, and at once."""
    begin = time.monotonic()
    _, (_, root, five) = go(order, program(f"({trap}); touch /tmp/set; exec sleep 100"), [
        program("until [ -e /tmp/set ]; do usleep 10000; done"), program(WHO), program(WHO, user="5")])
    assert (root.ok(), five.ok()) == ("0 0 /root", "5 0 /")
    assert time.monotonic() - begin < 5


def test_cwd(order):
    assert say(order, "pwd", cwd="/root") == "/root"
    assert say(order, "pwd; stat -c %u:%a .", cwd="/made/for/us") == "/made/for/us\n0:755"
    for bad in ("/../x", "relative", "/bin/sh", "/proc/1/cwd/x", "/proc/self/fd/7",
                "/proc/self/root"):
        r = go(order, program("pwd", cwd=bad))
        assert r.r < 0 and r.err.startswith("working directory"), (bad, r.err)


# ---- exec

@pytest.mark.parametrize("argv, message", [
    (["nope"], "exec nope: No such file or directory"),
    (["/bin/nope"], "exec /bin/nope: No such file or directory"),
    ([""], "exec '': No such file or directory"),
    (["/tmp"], "exec /tmp: Permission denied"),
    (["/etc/passwd"], "exec /etc/passwd: Permission denied"),
    (["/proc/self/exe"], "exec /proc/self/exe: Too many levels of symbolic links"),
    (["/bin/bad"], "exec /bin/bad: its interpreter is not in the image"),
    (["/bin/text"], "exec /bin/text: Exec format error"),
    (["plain"], "exec /bin/plain: Permission denied"),
])
def test_exec_errors(order, image, argv, message):
    for name, text, mode in (("bad", "#!/no/such\n", 0o755), ("text", "hello\n", 0o755),
                             ("plain", "hello\n", 0o644)):
        (image.base / "bin" / name).write_text(text)
        (image.base / "bin" / name).chmod(mode)
    assert go(order, program(argv)).err == message


def test_engine_descriptors_are_no_way_to_run_anything(order, image):
    """Interpreters are looked up by the kernel, over magic links too."""
    for fd in range(3, 64):
        script = image.base / f"bin/by{fd}"
        script.write_text(f"#!/proc/self/fd/{fd}/bin/true\n")
        script.chmod(0o755)
    order["keep_fds"] = True  # one of them is the host's /
    for fd in range(3, 64, 3):
        r = go(order, program([f"/bin/by{fd}"]))
        assert r.err == f"exec /bin/by{fd}: its interpreter is not in the image" or (
            fd == 3 and r.r < 0), (fd, r.err)


def test_exit_status(order):
    assert go(order, program("exit 3")).code == 3
    r = go(order, program(["sh", "-c", "sh -c 'kill -9 $$'; exit $?"]))
    assert r.code == 137


def test_path_lookup(order, image):
    (image.base / "usr/bin").mkdir(parents=True)
    (image.base / "usr/bin/tool").write_text("#!/bin/sh\necho second\n")
    (image.base / "usr/bin/tool").chmod(0o755)
    (image.base / "etc/tool").write_text("not for execution")
    run = {"argv": ["tool"], "env": ["PATH=/nowhere:/etc:/bin/sh:/usr/bin:/bin"]}
    assert go(order, run).ok() == "second"
    assert go(order, {"argv": ["tool"], "env": []}).ok() == "second"  # a default PATH


def test_monitor_is_confined(order):
    r = go(order, program("true"))
    m = re.fullmatch(r"#uid (\d+) gid (\d+) groups 0 bnd 0{16} nnp 1 kill 0 fds ([\d ]+)",
                     r.standing)
    assert m and int(m[1]) == int(m[2]) == ID_BASE - 1
    assert len(m[3].split()) == 3 + 7  # 0 1 2, pidfd listen status out err log0 log1


# ---- what is visible

def test_dev(order):
    out = say(order, "cd /dev; find . -type c -exec stat -c '%n %t:%T %a %u:%g' {} +; "
                     "find . -type l -exec sh -c 'echo $0 $(readlink $0)' {} \\;; "
                     "stat -c '%n %a' shm pts mqueue; find . -type b")
    assert set(out.split("\n")) == {
        "./null 1:3 666 0:0", "./zero 1:5 666 0:0", "./full 1:7 666 0:0", "./random 1:8 666 0:0",
        "./urandom 1:9 666 0:0", "./tty 5:0 666 0:0", "./pts/ptmx 5:2 666 0:0",
        "./fd /proc/self/fd", "./stdin /proc/self/fd/0", "./stdout /proc/self/fd/1",
        "./stderr /proc/self/fd/2", "./ptmx pts/ptmx", "shm 1777", "pts 755", "mqueue 1777"}


def test_dev_works(order):
    out = say(order, "echo a >/dev/stdout; echo b >/dev/stderr; echo c >/dev/null; "
                     "head -c 3 /dev/zero | wc -c; echo x >/dev/shm/x && cat /dev/shm/x; "
                     "echo no >/dev/full || echo full", user="user")
    assert set(out.split("\n")) == {"a", "b", "3", "x", "full",
                                    "sh: write error: No space left on device"}


def test_stdin_of_the_first_process_is_empty(order):
    """A shell or python as the program ends at once instead of waiting for ever."""
    assert say(order, "readlink /proc/self/fd/0; stat -Lc %t:%T /proc/self/fd/0; cat; head -c 1 <&0;"
                      "echo end", user="user") == "/dev/null\n1:3\nend"


def test_shm_has_its_size(order):
    assert "1777 8192" in say(order, "stat -c %a /dev/shm; df -k /dev/shm | tail -1 | "
                                     "awk '{print $2}'").replace("\n", " ")
    r = go(order, program("dd if=/dev/zero of=/dev/shm/x bs=1M count=9"))
    assert r.code != 0 and "No space left" in r.out


def test_devices(order):
    run = program("stat -c '%t:%T' /dev/further /dev/caps/cap1; head -c 2 /dev/further | wc -c",
                  devices={"further": "/dev/zero", "caps/cap1": "/dev/null"})
    assert go(order, run).ok() == "1:5\n1:3\n2"
    for name, node, message in (("x", "/etc/passwd", "device x: not a device node"),
                                ("../x", "/dev/null", "device ../x: not a name below /dev"),
                                ("a/../x", "/dev/null", "device a/../x: not a name below /dev"),
                                ("a/b/c", "/dev/null", "device a/b/c: name too deep"),
                                ("null", "/dev/zero", "device null: File exists")):
        assert go(order, program("true", devices={name: node})).err == message


HIDDEN_FILES = ("buddyinfo", "diskstats", "interrupts", "kcore", "keys", "latency_stats", "locks",
                "mdstat", "partitions", "sched_debug", "schedstat", "softirqs", "sysrq-trigger", "timer_list",
                "timer_stats")
HIDDEN_DIRS = ("/proc/acpi", "/proc/asound", "/proc/fs", "/proc/irq", "/proc/pressure", "/proc/scsi",
               "/sys/devices/virtual/bdi", "/sys/devices/virtual/block", "/sys/devices/virtual/powercap",
               "/sys/firmware", "/sys/fs/btrfs", "/sys/fs/erofs", "/sys/fs/ext4", "/sys/fs/f2fs",
               "/sys/fs/xfs", "/sys/kernel/irq")


def test_masks(order):
    out = say(order, f"for f in {' '.join(HIDDEN_FILES)}; do "
                     "[ -e /proc/$f ] && stat -c '%n %t:%T' /proc/$f; done; "
                     f"for d in {' '.join(HIDDEN_DIRS)};"
                     "do [ -e $d ] && echo $d $(ls -A $d | wc -l); done; true")
    assert set(out.split("\n")) == {
        f"/proc/{f} 1:3" for f in HIDDEN_FILES if os.path.exists("/proc/" + f)} | {
        f"{d} 0" for d in HIDDEN_DIRS if os.path.exists(d)}
    assert "/proc/keys 1:3" in out and "/proc/diskstats 1:3" in out and "/proc/fs 0" in out
    ro = say(order, "cat /proc/self/mountinfo")
    for d in ("bus", "sys"):
        if os.path.exists(f"/proc/{d}"):
            assert re.search(rf" /{d} /proc/{d} ro,nosuid,nodev,noexec", ro), d
    assert re.search(r" / /sys ro,nosuid,nodev,noexec", ro)
    assert re.search(r" / / rw,nosuid,nodev,", ro)
    compat = say(order, "cat /proc/self/mountinfo", profile="compat")
    assert re.search(r" / / rw,nodev,", compat)


@pytest.fixture
def neighbour(tmp_path):
    """A file system on a loop device, as the disk of each cluster is one.  Its device's name."""
    disk, point = tmp_path / "neighbour.disk", tmp_path / "neighbour"
    disk.touch()
    os.truncate(disk, 16 << 20)
    point.mkdir()
    subprocess.run(["mkfs.ext4", "-q", disk], check=True)
    subprocess.run(["mount", "-o", "loop", disk, point], check=True)
    try:
        yield os.path.basename(subprocess.run(["findmnt", "-no", "SOURCE", point], check=True,
                                              capture_output=True, text=True).stdout.strip())
    finally:
        subprocess.run(["umount", point], check=True)


def test_neighbours_disks_are_not_seen(order, neighbour):
    """Root inside looks everywhere: no file says anything about a loop device, /sys/block's links
    lead nowhere, and what only the host's root may read stays shut."""
    assert f" {neighbour} " in pathlib.Path("/proc/diskstats").read_text()
    assert os.path.exists(f"/proc/fs/ext4/{neighbour}") and os.path.exists(f"/sys/fs/ext4/{neighbour}")
    found = say(order, "cd /proc; for f in $(find . -maxdepth 1 -type f) $(find fs irq bus tty sysvipc"
                       " driver pressure -type f 2>/dev/null); do "
                       "timeout 2 grep -l -E 'loop[0-9]|7:0' $f 2>/dev/null; done;"
                       "find /sys/devices /sys/fs /sys/kernel -name '*loop[0-9]*' 2>/dev/null;"
                       "for b in /sys/block/loop* /sys/class/block/loop* /sys/dev/block/7:*; do "
                       "[ -e $b ] && echo $b; done; true")
    assert found == ""
    shut = "kmsg kpagecgroup kpagecount kpageflags pagetypeinfo slabinfo vmallocinfo"
    assert say(order, f"for f in {shut}; do cat /proc/$f 2>/dev/null | head -c 1; done") == ""
    addresses = say(order, "cut -d' ' -f1 /proc/kallsyms | sort -u; cut -d: -f1 /proc/iomem | sort -u")
    assert addresses and set(addresses) <= set("0- \n")


def test_programs_find_what_they_read(order):
    out = say(order, "for f in cpuinfo filesystems loadavg meminfo stat uptime version vmstat; do "
                     "echo $f $(head -c 16 /proc/$f | wc -c); done; free -m | wc -l; uptime | wc -l;"
                     "ps | wc -l; df / | wc -l")
    words = out.split("\n")
    assert words[:8] == [f"{f} 16" for f in ("cpuinfo", "filesystems", "loadavg", "meminfo", "stat",
                                             "uptime", "version", "vmstat")]
    assert all(int(n) >= 1 for n in words[8:])


def test_nothing_of_the_host(order, tmp_path):
    out = say(order, "cat /proc/self/mountinfo; ls /; cat /proc/mounts", )
    assert str(tmp_path) not in out and "/dev/vda" not in out
    assert {x.split()[4] for x in out.split("\n") if " - " in x} >= {"/", "/proc", "/sys", "/dev"}


def test_no_descriptor_leaks(order):
    out = say({**order, "keep_fds": True}, ["ls", "-1", "/proc/self/fd"])
    assert out.split("\n") == ["0", "1", "2", "3"]  # 3 is ls reading the directory


def test_limits(order):
    out = say(order, "ulimit -n; ulimit -Hn; ulimit -Hc; cat /proc/self/oom_score_adj",
              nofile=512)
    assert out.split("\n") == ["512", "512", "0", "100"]


# ---- what is refused

WANTED = {
    "unshare_user": "EPERM", "clone_user": "EPERM", "clone3": "ENOSYS", "setns": "EPERM",
    "mount": "EPERM", "umount": "EPERM", "open_tree": "EPERM", "mknod_char": "EPERM",
    "mknod_fifo": "ok", "keyctl": "EPERM", "bpf": "EPERM", "perf": "EPERM",
    "userfaultfd": "EPERM", "io_uring": "ENOSYS", "handle": "EPERM", "reboot": "EPERM",
    "sethostname": "EPERM", "packet": "EAFNOSUPPORT", "raw": "EPERM", "alg": "EAFNOSUPPORT",
    "vsock": "EAFNOSUPPORT", "audit": "EPROTONOSUPPORT", "route": "ok", "tiocsti": "EPERM",
    "norandom": "ok", "core_limit": "ok", "kcore": ("ENOENT", "ok"), "sysctl": "EROFS",
    "sysrq": ("EPERM", "ENOENT"), "sysfs": ("EROFS", "EACCES"), "cgroup": ("ENOENT", "EROFS"),
    "own_exe": ("EACCES", "ETXTBSY", "ok"), "exec_mem": "ok", "ptrace": "ok", "parent": "ok",
    "vm_read": "ok", "kcmp": ("ok", "ENOSYS"), "getfd": "ok", "low_port": "ok",
    "i386": "EBADRQC", "x32": "ENOSYS",
}


@pytest.mark.parametrize("user", ["", "user"])
def test_refusals(order, user):
    got = dict(x.split() for x in say(order, ["probe"], user=user).split("\n"))
    assert set(got) == set(WANTED)
    for name, want in WANTED.items():
        if user and name == "sysctl":
            want = ("EROFS", "EACCES")
        if user and name == "low_port":  # a network namespace of this test, with the kernel's default
            want = "EACCES"
        assert got[name] in ((want,) if isinstance(want, str) else want), (name, got[name])


STRICT = {"ptrace": "EPERM", "vm_read": "EPERM", "kcmp": "EPERM", "getfd": "EPERM", "low_port": "EACCES"}


@pytest.mark.parametrize("pooled", [False, True])
def test_strict_has_no_debuggers_and_no_low_ports(order, pooled):
    order = {**order, "pooled": pooled}
    probe = program(["probe", *STRICT], profile="strict")
    _, (session,) = go(order, program("sleep 60", profile="strict"), [probe])
    for result in (go(order, probe), session):
        assert dict(x.split() for x in result.ok().split("\n")) == STRICT
    assert say(order, "cat /proc/sys/net/ipv4/ip_unprivileged_port_start", profile="strict") == "1024"
    assert say(order, "grep -E 'NoNewPrivs|CapBnd' /proc/self/status", profile="strict").split() == [
        "CapBnd:", "00000000800401fb", "NoNewPrivs:", "1"]


def test_strict_root_is_read_only(order, image, tmp_path):
    """Nothing of the image can be changed; what has to be written lies in memory or in the volume."""
    volume = tmp_path / "volume"
    volume.mkdir()
    os.chown(volume, 0, 0)
    (image.base / "tmp/of-the-image").write_text("x")
    order["upper"] = None
    run = program("for d in / /etc /root /bin /usr /var /home/user /tmp /run /var/tmp /dev/shm /data; do "
                  "touch $d/new 2>/dev/null && echo $d; done; "
                  "cat /etc/hosts; pwd; ls -A /tmp /run; stat -c %a /tmp /run /var/tmp; "
                  "df -k /tmp /run /var/tmp | awk 'NR>1{print $2}'",
                  profile="strict", cwd="/made/for/it", files={"/etc/hosts": "127.0.0.1 me\n"},
                  binds={"/data": str(volume)})
    out = go(order, run).ok().split("\n")
    assert out == ["/tmp", "/run", "/var/tmp", "/dev/shm", "/data", "127.0.0.1 me", "/made/for/it",
                   "/run:", "new", "", "/tmp:", "new", "1777", "755", "1777", "32768", "16384", "32768"]
    assert (volume / "new").exists()
    full = go(order, program("dd if=/dev/zero of=/run/x bs=1M count=17", profile="strict"))
    assert full.code != 0 and "No space left" in full.out
    # root inside cannot take it back
    for how in ("mount -o remount,rw /", "mount -t tmpfs x /etc", "umount /tmp"):
        assert go(order, program(how, profile="strict")).code != 0


def test_strict_volume_below_a_directory_in_memory(order, tmp_path):
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "kept").write_text("")
    assert say(order, "ls /run/data; touch /run/data/more", profile="strict",
               binds={"/run/data": str(volume)}) == "kept"
    assert (volume / "more").exists()


def test_strict_hides_the_kernel(order):
    hidden = [f for f in ("cmdline", "config.gz", "kallsyms", "modules") if os.path.exists("/proc/" + f)]
    ask = "stat -c %t:%T " + " ".join("/proc/" + f for f in hidden)
    assert set(say(order, ask, profile="strict").split()) == {"1:3"}
    assert set(say(order, ask).split()) == {"0:0"}


def test_strict_session_cannot_make_its_directory(order):
    session = program("true", profile="strict", cwd="/not/there")
    _, (got,) = go(order, program("sleep 60", profile="strict"), [session])
    assert got.err == "working directory /not/there: Read-only file system"


def test_profile_of_a_session_is_its_own_filter(order):
    """The engine starts both with the cluster's; here they differ to show that each has its own."""
    _, (strict, standard) = go(order, program("sleep 60"), [program(["probe", "ptrace"], profile="strict"),
                                                            program(["probe", "ptrace"])])
    assert (strict.out, standard.out) == ("ptrace EPERM", "ptrace ok")


def test_set_id_counts_in_compat_alone(order, image):
    (image.base / "bin/su-probe").write_bytes((HERE / "probe").read_bytes())
    (image.base / "bin/su-probe").chmod(0o4755)
    for profile, euid in (("standard", 1000), ("strict", 1000), ("compat", 0)):
        out = say(order, ["su-probe", "ids"], user="user", profile=profile)
        assert f"uid 1000 euid {euid}" in out, profile
    out = say(order, "grep -E 'NoNewPrivs|Seccomp:|CapBnd' /proc/self/status", profile="compat")
    assert out.split() == ["CapBnd:", "00000000800425fb", "NoNewPrivs:", "0", "Seccomp:", "2"]


def test_file_capabilities_do_not_stop_a_program(order, image):
    """Debian's ping asks for NET_RAW, which nobody here has."""
    tool = image.base / "bin/asks"
    shutil.copy(HERE / "probe", tool)
    os.setxattr(tool, "security.capability", struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0))
    for profile in ("standard", "strict", "compat"):
        for user in ("", "user"):
            assert "uid" in say(order, ["asks", "ids"], user=user, profile=profile)
            assert say(order, "asks mount; grep CapEff /proc/self/status", user=user, profile=profile)


# ---- bent images

@pytest.mark.parametrize("name", ["proc", "sys", "dev"])
def test_mount_points_are_directories(order, image, name):
    os.symlink("/etc", image.base / name)
    r = go(order, program("true"))
    assert r.err.endswith(f"image: /{name} is not a directory of its own"), r.err
    (image.base / name).unlink()
    (image.base / name).write_text("")
    assert go(order, program("true")).r < 0


def test_etc_is_a_link(order, image):
    (image.base / "etc").rename(image.base / "real")
    os.symlink("../../../../real", image.base / "etc")
    out = say(order, "cat /real/hosts; id -un", files={"/etc/hosts": "1.2.3.4 me\n"})
    assert out == "1.2.3.4 me\nroot"


@pytest.mark.parametrize("trap", ["absolute", "dots", "proc", "fifo", "dangling"])
def test_files_stay_inside(order, image, tmp_path, trap):
    victim = tmp_path / "victim"
    victim.write_text("host")
    hosts = image.base / "etc/hosts"
    if trap == "absolute":
        os.symlink(victim, hosts)
    elif trap == "dots":
        os.symlink("../" * 20 + str(victim), hosts)
    elif trap == "proc":
        os.symlink("/proc/self/status", hosts)
    elif trap == "fifo":
        os.mkfifo(hosts)
    else:
        os.symlink("/run/not/there", hosts)
    out = say(order, "cat /etc/hosts; stat -c '%F %a' /etc/hosts",
              files={"/etc/hosts": "inside\n"})
    assert out == "inside\nregular file 644"
    assert victim.read_text() == "host"


def test_files_are_writable_and_replaced(order):
    out = say(order, "echo more >> /etc/hosts; cat /etc/hosts; ls /etc/profile.d",
              files={"/etc/hosts": "one\n", "/etc/profile.d/t.sh": "export A=1\n"})
    assert out == "one\nmore\nt.sh"
    r = go(order, program("true", files={"/etc/../../x": "y"}))
    assert r.r < 0 and "write /etc/../../x" in r.err


# ---- binds

def volume(tmp_path):
    v = tmp_path / "volume"
    v.mkdir()
    (v / "kept").write_text("data")
    return v


def test_bind(order, image, tmp_path):
    v = volume(tmp_path)
    (image.base / "links").mkdir()
    os.symlink("../../../../../data/there", image.base / "links/out")
    (image.base / "data").mkdir()
    run = program("cat /data/there/kept /work/kept /etc/one; echo new > /work/new; "
                  "stat -c %u /work/new", binds={"/links/out/": str(v)})
    r = go(order, run)
    assert r.r < 0  # a link that leads nowhere is not made true
    (image.base / "data/there").mkdir()
    run["binds"] = {"/links/out": str(v), "/work": str(v), "/etc/one": str(v / "kept")}
    assert go(order, run).ok() == "datadatadata0"
    assert (v / "new").stat().st_uid == 0  # through the id map


@pytest.mark.parametrize("target, why", [
    ("/", "that is the root"), ("//", "that is the root"),
    ("/proc", "Invalid cross-device link"), ("/proc/self", ""), ("/sys/fs", ""),
    ("/dev/pts", ""), ("/to-proc", "Invalid cross-device link"), ("/proc/1/root/x", ""),
    ("/to-root", "Invalid cross-device link"),
    ("/a/../../b", "Invalid argument"), ("relative", "Invalid argument"),
    ("/etc/passwd", "Not a directory"),
])
def test_bind_refused(order, image, tmp_path, target, why):
    os.symlink("/proc/sys", image.base / "to-proc")
    os.symlink("/", image.base / "to-root")
    r = go(order, program("true", binds={target: str(volume(tmp_path))}))
    assert r.r < 0 and target in r.err and why in r.err, r.err


def test_bind_has_no_devices(order, tmp_path):
    v = volume(tmp_path)
    os.mknod(v / "zero", 0o020666, os.makedev(1, 5))
    r = go(order, program("cat /v/zero", binds={"/v": str(v)}))
    assert r.code != 0 and "Permission denied" in r.out


def test_image_has_no_devices(order, image):
    os.mknod(image.base / "etc/zero", 0o020666, os.makedev(1, 5))
    r = go(order, program("cat /etc/zero"))
    assert r.code != 0 and "Permission denied" in r.out


# ---- overlay

@pytest.mark.parametrize("way", [0, 1, 2], ids=["any", "namespace", "options"])
def test_overlay(order, image, way):
    order["way"] = way
    (image.base / "stack").mkdir()
    for i in range(30):
        (image.base / "stack" / str(i)).write_text("")
    out = say(order, "ls /stack | wc -l; mv /stack /moved && ls /moved | wc -l; rm /etc/group; ls /etc")
    assert out.split() == ["30", "30", "passwd"]
    assert (image.base / "etc/group").exists()


@pytest.mark.parametrize("way", [0, 1, 2], ids=["any", "namespace", "options"])
def test_objects(order, image, tmp_path, way):
    """Data of marked files comes from a mount that has no names in the tree; changes stay above."""
    objects = tmp_path / "objects"
    (objects / "ab").mkdir(parents=True)
    (objects / "ab/cd").write_bytes(b"from an object\n" * 1000)
    (objects / "ab/cd").chmod(0o444)
    (objects / "secret").write_text("of somebody else")
    big = image.base / "big"
    with open(big, "wb") as f:
        f.truncate(15000)
    big.chmod(0o640)
    os.setxattr(big, "trusted.overlay.metacopy", b"")
    os.setxattr(big, "trusted.overlay.redirect", b"/ab/cd")
    out = go({**order, "way": way, "objects": str(objects)}, program(
        "head -1 /big; stat -c '%s %a' /big; wc -c < /big; chmod 600 /big; echo x >> /big; wc -c < /big; "
        "ls -a / | grep -c -e '^ab$' -e secret; cat /ab/cd /secret; true")).ok()
    assert out.split("\n")[:6] == ["from an object", "15000 640", "15000", "15002", "0",
                                   "cat: can't open '/ab/cd': No such file or directory"]
    assert (objects / "ab/cd").read_bytes() == b"from an object\n" * 1000


def test_upper_is_the_clusters(order, image, tmp_path):
    upper = tmp_path / "disk"
    upper.mkdir()
    say(order, "echo mine > /file; chown 1000:1000 /file; stat -c %u /etc/passwd", upper=None)
    out = go(order, program("echo mine > /file; chown 1000:1000 /file; cat /etc/hosts; "
                            "stat -c %u:%g /file /etc/passwd",
                            files={"/etc/hosts": "h\n"}), upper=str(upper)).ok()
    assert out.split() == ["h", "1000:1000", "0:0"]
    st = (upper / "upper/file").stat()
    assert (st.st_uid, st.st_gid) == (1000, 1000)  # ids 0..65535 on disk
    assert (upper / "upper/etc/hosts").stat().st_uid == 0


# ---- terminals and sessions

def test_tty(order):
    out = say(order, "tty; stat -c '%u:%g %a' $(tty); ls /dev/pts; [ -t 0 ] && echo yes; "
                     "echo x > /dev/tty", tty=True, user="user")
    assert out.split() == ["/dev/pts/0", "1000:5", "620", "0", "ptmx", "yes", "x"]


def test_exec(order):
    first, (a, b, c, d) = go(order, program("echo hello > /tmp/f; exec sleep 100"), [
        program("until [ -s /tmp/f ]; do sleep 0.01; done; cat /tmp/f; echo $$; "
                "readlink /proc/self/ns/mnt; grep -E 'CapEff|NoNew|Seccomp:' "
                "/proc/self/status; ls /proc/self/fd | wc -l; cat /proc/self/oom_score_adj"),
        program("tty; id -u; pwd", tty=True, user="user", cwd="/home/user"),
        program("exit 9"),
        program(["probe"]),
    ])
    lines = a.ok().split("\n")
    assert lines[0] == "hello" and int(lines[1]) > 1
    assert lines[3:] == ["CapEff:\t00000000800405fb", "NoNewPrivs:\t1", "Seccomp:\t2", "4", "100"]
    assert b.ok() == "/dev/pts/0\n1000\n/home/user"
    assert c.code == 9
    got = dict(x.split() for x in d.ok().split("\n"))
    assert got["mount"] == got["unshare_user"] == got["sysctl"].replace("EROFS", "EPERM") == "EPERM"
    assert first.signal == 9 and first.init != a.init


@pytest.mark.parametrize("run, message", [
    (program(["nope"]), "exec nope: No such file or directory"),
    (program("true", user="nobody"), "user nobody is not in the image's /etc/passwd"),
    (program(["/proc/self/exe"]), "exec /proc/self/exe: Too many levels of symbolic links"),
    (program("true", cwd="/proc/1/cwd"), "working directory /proc/1/cwd: "
                                         "Too many levels of symbolic links"),
])
def test_exec_errors_in_session(order, run, message):
    _, (r,) = go(order, program(["sleep", "100"]), [run])
    assert r.err == message


def test_exec_into_bent_terminals(order):
    """The first process has the same rights over /dev as an attacker would."""
    bend = "rm /dev/ptmx; ln -s /etc/passwd /dev/ptmx; rm /dev/null; ln -s /proc/1/mem /dev/null;"
    wait = "until [ -e /tmp/bent ]; do sleep 0.01; done"
    _, (_, r) = go(order, program(bend + "> /tmp/bent; exec sleep 100"),
                   [program(wait), program("tty", tty=True)])
    assert r.ok() == "/dev/pts/0"


def test_exec_after_the_end(order):
    _, (r,) = go(order, program("true"), [program("sleep 0.2; true"), ])
    assert r.r < 0 or r.code in (0, -1)  # gone already, or killed with the namespace


def test_exec_cannot_be_looked_into(order):
    """While a session is being set up it holds a copy of the engine: the cluster tries to read it
    through every door of /proc, as fast as it can."""
    _, got = go(order, program(["probe", "spy", "/tmp/seen"]),
                [program("true") for _ in range(20)] + [program("sort -u /tmp/seen")])
    assert [r.ok() for r in got[:20]] == [""] * 20
    assert got[20].ok() == "closed"  # it did meet them, and every door was shut


def test_exec_shows_nothing_of_the_host(order):
    """Everybody may read mountinfo and net/ of any process: the cluster does so from a session's
    first instant on.  On a busy machine it misses some, since they are short."""
    watch = """
        look() {
            read -r mounts < /proc/$1/mountinfo || return
            seen=$((seen + 1)); pid=$(($1 + 1))
            [ "$mounts" = "$own" ] || echo "mounts: $mounts"
            while read -r line; do case $line in
                lo:*|Inter-*|face*) ;;
                *) echo "link: $line"
            esac done < /proc/$1/net/dev
        }
        read -r own < /proc/1/mountinfo; pid=2 seen=0
        while [ $pid -lt 42 ]; do
            for n in 0 1 2 3 4 5 6 7 8 9; do look $((pid + n)) && break; done
        done 2>/dev/null
        [ $seen -lt 10 ] || seen=enough
        echo seen $seen
        exec sleep 100"""
    first, got = go(order, program(watch), [program(["sleep", "0.01"]) for _ in range(50)])
    assert [r.ok() for r in got] == [""] * 50
    assert first.out == "seen enough"


# ---- groups

def test_group(order):
    first, (a,) = go(order, program(["sleep", "100"]), [program(
        "cat /proc/self/cgroup; cd /sys/fs/cgroup; cat memory.max memory/memory.limit_in_bytes "
        "2>/dev/null; cat pids.max pids/pids.max 2>/dev/null; echo $$ > pids/tasks; "
        "echo $$ > cgroup.procs; mkdir x; ls | wc -l")], slice="flowsandbox")
    lines = a.ok().split("\n")
    groups = [x for x in lines if re.match(r"\d+:", x)]
    assert groups and all(x.endswith(":/") for x in groups)
    values = lines[len(groups):len(groups) + 2]
    assert values == [str(256 << 20), "64"], lines
    refused = 3 if len(groups) > 1 else 2  # version 2 has no pids/tasks
    assert sum("Read-only file system" in x for x in lines) == refused, lines
    assert a.standing.split().count("kill") == 1 and " kill 0 " in a.standing
    assert first.signal == 9 and first.grouped


def test_group_of_version_2(order):
    """On a hybrid host the unified hierarchy is there too, with fewer controllers."""
    first, (a,) = go(order, program(["sleep", "100"]), [program(
        "grep ^0: /proc/self/cgroup; cd /sys/fs/cgroup; ls cgroup.procs; head -1 cgroup.procs;"
        "grep cgroup2 /proc/self/mountinfo; echo $$ > cgroup.procs")],
        slice="flowsandbox", cgroup=2)
    lines = a.out.split("\n")
    assert lines[:3] == ["0::/", "cgroup.procs", "1"], lines
    assert " / /sys/fs/cgroup ro,nosuid,nodev,noexec," in lines[3]
    assert "Read-only file system" in lines[4]
    assert first.signal == 9 and first.grouped


def test_mounts_made_ahead(order):
    out = say(order, "ls /dev | wc -l; stat -c %a /dev/shm; df -k /dev/shm | tail -1 | "
                     "awk '{print $2}'; tty", pooled=True, tty=True, devices={"x": "/dev/zero"})
    assert out.split() == ["15", "1777", "8192", "/dev/pts/0"]


def test_pids_limit_bites(order):
    r = go(order, program("for i in $(seq 100); do sleep 5 & done; wait"), slice="flowsandbox")
    assert "fork" in r.out and "Resource temporarily unavailable" in r.out


# ---- failure and murder

def test_broken_monitor(order, tmp_path):
    for name in ("vmm-monitor", "vmm-launch"):
        r = go({**order, "libexec": str(tmp_path)}, program("true"))
        assert r.err == f"open {tmp_path}/{name}: No such file or directory"
        (tmp_path / name).write_text("")
        r = go({**order, "libexec": str(tmp_path)}, program("true"))
        assert r.err == f"{tmp_path}/{name} cannot be executed by everybody"
        (tmp_path / name).chmod(0o755)
    r = go({**order, "libexec": str(tmp_path)}, program("true"))
    assert r.err == "exec vmm-launch: Exec format error"


def test_launcher_of_another_build(order):
    """As after an upgrade under a running engine: it refuses, with this status."""
    path = pathlib.Path(order["libexec"], "vmm-launch")
    code = b"\xbf\x03\0\0\0" b"\xb8\x3c\0\0\0" b"\x0f\x05"  # exit(3)
    at, size = 0x400000, 64 + 56 + len(code)
    path.write_bytes(struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 2, 62, 1, at + 120, 64, 0, 0, 64,
                                 56, 1, 0, 0, 0) +
                     struct.pack("<IIQQQQQQ", 1, 5, 0, at, at, size, size, 4096) + code)
    for pooled in (False, True):
        done = subprocess.run([HERE / "flow_sandbox"], capture_output=True, text=True, timeout=60,
                              check=False, input=json.dumps({**order, "pooled": pooled, "exec": [],
                                                             "run": program("true")}))
        assert "vmm-launch is of another version; restart hypervisor-vmm" in (
            done.stderr if pooled else json.loads(done.stdout)["run"]["err"])


@pytest.mark.parametrize("argv", [[], ["x"], ["2"], ["3"], ["99"], ["3", "4"], ["-1"], ["4294967299"]])
def test_launcher_by_hand(order, argv):
    """Of no use to anybody else: a tenant, or a user of the host."""
    for stdin in ("/dev/null", "/dev/zero"):
        with open(stdin, "rb") as f:
            r = subprocess.run([order["libexec"] + "/vmm-launch", *argv], pass_fds=[f.fileno()],
                               stdin=subprocess.DEVNULL, capture_output=True, timeout=10, check=False)
        assert r.returncode in (2, 3) and r.stderr.startswith(b"vmm-launch: "), r


def test_an_upgrade_waits_for_the_engines_restart(order):
    first, (session,) = go({**order, "upgrade": True}, program("sleep 1000"), [program("echo old")])
    assert first.r == session.r == 0 and session.out == "old"


def test_incomplete_order(order):
    assert go({**order, "id_base": 1}, program("true")).r < 0


def test_operation_is_killed(order):
    """At 60 instants: launcher and first process never stay half-built."""
    seed = random.randrange(1 << 30)
    print("seed", seed)
    rnd = random.Random(seed)
    order = json.dumps({**order, "run": program(["sleep", "300"]), "exec": []}).encode()
    seen = set()
    for _ in range(60):
        p = subprocess.Popen([HERE / "flow_sandbox"], stdin=subprocess.PIPE,
                             stdout=subprocess.DEVNULL)
        p.stdin.write(order)
        p.stdin.close()
        time.sleep(rnd.uniform(0, 0.015))
        p.kill()
        p.wait()
        end = time.monotonic() + 3
        while True:  # whatever was being built, becomes whole or goes away
            left = ours()
            if not any(x.endswith(tuple(OURS)) for x in left.values()):
                break
            assert time.monotonic() < end, left
            time.sleep(0.01)
        seen.add(len(left))
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        while ours():
            assert time.monotonic() < end + 3
            time.sleep(0.01)
    assert 0 in seen
