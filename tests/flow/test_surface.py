"""What somebody could do who has taken over a program of ours (root): each ladder, and below it one attempt
at a time, started with more rights than the program has.  A canary says whether it was done: a file, a
process, a listener.  Each attempt is also made without the ladder, where the canary must go; so a ladder
that lacks a rung, or a canary that does not sing, is seen."""
import ctypes
import os
import pathlib
import secrets
import signal
import socket
import subprocess
import tempfile

import pytest

from programs import build_dir

FOLDER = os.path.join(build_dir(), "tests/flow/surface")
LADDERS = ["api", "gpu", "scrub", "dns", "fetch", "monitor"]
# What a ladder leaves because the program lives from it.
ALLOWED = {("fetch", "connect"), ("fetch", "udp"), ("dns", "connect"), ("dns", "udp")}
# Glibc binds a netlink socket, so only Landlock tells a port: from its fourth ABI on.
LANDLOCK = ctypes.CDLL(None).syscall(444, None, 0, 1)
if LANDLOCK < 4:
    ALLOWED.add(("fetch", "bind"))
SANITIZED = b"__asan_init" in pathlib.Path(FOLDER, "attempt_api").read_bytes()
UNSANITIZED = True  # tests/run

pytestmark = pytest.mark.skipif(SANITIZED, reason="a sanitizer's build has neither filter nor Landlock")


def attempt(ladder, mode, home, what, *args):
    return subprocess.run([os.path.join(FOLDER, "attempt_" + ladder), mode, str(home), what, *map(str, args)],
                          capture_output=True, timeout=60)


class File:
    def __init__(self, home):
        self.path = home / "canary"
        self.text = secrets.token_hex(8)
        self.path.write_text(self.text)
        self.path.chmod(0o600)


class Read(File):
    def args(self):
        return [self.path]

    def gone(self, done):
        return self.text.encode() in done.stdout


class Write(File):
    def args(self):
        return [self.path]

    def gone(self, done):
        return self.path.read_text() != self.text


class Unlink(File):
    def args(self):
        return [self.path]

    def gone(self, done):
        return not self.path.exists()


class Make:
    def __init__(self, home):
        self.path = home / "made"

    def args(self):
        return [self.path]

    def gone(self, done):
        return self.path.exists()


class Listener:
    def __init__(self, home):
        self.sock = socket.socket()
        self.sock.bind(("127.0.0.1", 0))
        self.sock.listen()
        self.sock.settimeout(0)

    def args(self):
        return [self.sock.getsockname()[1]]

    def gone(self, done):
        try:
            self.sock.accept()[0].close()
            return True
        except BlockingIOError:
            return False

    def close(self):
        self.sock.close()


class Abstract(Listener):
    def __init__(self, home):
        self.name = "hvmm-" + secrets.token_hex(6)
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.bind("\0" + self.name)
        self.sock.listen()
        self.sock.settimeout(0)

    def args(self):
        return [self.name]


class Datagram(Listener):
    def __init__(self, home):
        self.sock = socket.socket(type=socket.SOCK_DGRAM)
        self.sock.bind(("127.0.0.1", 0))
        self.sock.settimeout(0)

    def gone(self, done):
        try:
            return self.sock.recv(16) == b"taken"
        except BlockingIOError:
            return False


class Bind(Listener):
    """A port that is free; whoever took it has said so."""
    def __init__(self, home):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]

    def args(self):
        return [self.port]

    def gone(self, done):
        return b"did it" in done.stdout

    def close(self):
        pass


class Process:
    """It ends by the signal that it is sent."""
    def __init__(self, home):
        self.proc = subprocess.Popen(["sleep", "300"])

    def args(self):
        return [self.proc.pid]

    def gone(self, done):
        if done.returncode == 0:
            return self.proc.wait(10) == -signal.SIGUSR1
        return self.proc.poll() is not None

    def close(self):
        self.proc.kill()
        self.proc.wait()


class Traced(Process):
    def gone(self, done):
        return b"did it" in done.stdout


class Said:
    """Nothing outside shows it but the kernel's answer."""
    def __init__(self, home):
        pass

    def args(self):
        return []

    def gone(self, done):
        return b"did it" in done.stdout


class Mount:
    def __init__(self, home):
        self.path = home / "mount"
        self.path.mkdir()

    def args(self):
        return [self.path]

    def gone(self, done):
        return os.path.ismount(self.path)

    def close(self):
        subprocess.run(["umount", "-q", self.path], check=False)


ATTEMPTS = {"read": Read, "write": Write, "unlink": Unlink, "make": Make, "exec": Make, "connect": Listener,
            "abstract": Abstract, "udp": Datagram, "bind": Bind, "signal": Process, "trace": Traced, "fork": Said,
            "namespace": Said, "mount": Mount}


@pytest.fixture
def home():
    """Not below a directory that a ladder allows."""
    with tempfile.TemporaryDirectory(prefix="hvmm-surface-", dir="/var/tmp") as d:
        yield pathlib.Path(d)


@pytest.fixture
def own(home):
    (home / "own").mkdir()
    return home / "own"


@pytest.fixture
def canary(home, what):
    c = ATTEMPTS[what](home)
    yield c
    if hasattr(c, "close"):
        c.close()


@pytest.mark.parametrize("what", ATTEMPTS)
def test_without_a_ladder_it_succeeds(home, own, canary, what):
    """Else the next test would prove nothing."""
    done = attempt("api", "bare", own, what, *canary.args())
    assert done.returncode == 0, done.stderr
    assert canary.gone(done)


@pytest.mark.parametrize("what", ATTEMPTS)
@pytest.mark.parametrize("ladder", LADDERS)
def test_below_the_ladder_it_does_not(home, own, canary, ladder, what):
    done = attempt(ladder, "down", own, what, *canary.args())
    assert done.returncode != 2, done.stderr
    if LANDLOCK < 1 and what in ("read", "write", "unlink", "make"):
        pytest.fail("this kernel has no Landlock: what keeps programs from files is not tested here")
    if (ladder, what) in ALLOWED:
        assert canary.gone(done), done
        return
    assert done.returncode in (1, -signal.SIGSYS), done
    assert not canary.gone(done)


@pytest.mark.parametrize("ladder", LADDERS)
def test_what_the_kernel_says_of_it(own, ladder):
    """Started with every right that we have; what the ladder itself takes away."""
    with subprocess.Popen([os.path.join(FOLDER, "attempt_" + ladder), "down", str(own), "wait"],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as p:
        assert p.stdout.readline() == b"here\n"
        text = pathlib.Path("/proc/%d/status" % p.pid).read_text()
        s = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
        for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
            assert int(s[name], 16) == 0, name
        if ladder != "monitor":  # whose bounding set the launcher empties
            assert int(s["CapBnd"], 16) == 0
            core = [l for l in pathlib.Path("/proc/%d/limits" % p.pid).read_text().splitlines() if "core file" in l]
            assert core[0].split()[4:6] == ["1", "1"], core
        assert (s["NoNewPrivs"], s["Seccomp"]) == ("1", "2")
        p.communicate(timeout=30)


CALLS = {"x86_64": {"bpf": 321, "perf_event_open": 298, "io_uring_setup": 425, "userfaultfd": 323, "keyctl": 250,
                    "add_key": 248, "init_module": 175, "finit_module": 313, "kexec_load": 246, "setns": 308,
                    "open_by_handle_at": 304, "process_vm_readv": 310, "pidfd_getfd": 438, "chroot": 161,
                    "pivot_root": 155, "move_mount": 429, "fsopen": 430, "reboot": 169, "syslog": 103,
                    "swapon": 167, "settimeofday": 164, "acct": 163, "quotactl": 179, "fanotify_init": 300,
                    "mknod": 133, "iopl": 172, "personality": 135, "setuid": 105, "capset": 126}}


@pytest.mark.parametrize("ladder", LADDERS)
def test_calls_that_none_has(own, ladder):
    """Without a right argument each: EFAULT or EINVAL would mean that the kernel had begun."""
    got = {}
    for name, number in CALLS[os.uname().machine].items():
        done = attempt(ladder, "down", own, "call", number)
        got[name] = "killed" if done.returncode == -signal.SIGSYS else done.stdout.decode().strip()
    assert {n: r for n, r in got.items() if r not in ("killed", "Operation not permitted")} == {}


def test_the_api_keeps_its_store(own):
    """What it lives from: its own directory, and nothing beside it."""
    (own / "file").write_text("mine")
    assert attempt("api", "down", own, "read", own / "file").stdout.startswith(b"mine")
    assert attempt("api", "down", own, "write", own / "file").returncode == 0
    assert attempt("api", "down", own, "make", own / "new").returncode == 0
    assert attempt("api", "down", own, "unlink", own / "new").returncode == 0
    (own / "way").symlink_to("/etc/passwd")
    assert attempt("api", "down", own, "read", own / "way").returncode == 1


def test_the_driver_keeps_its_libraries(own):
    for ladder in ("gpu", "scrub"):
        assert attempt(ladder, "down", own, "read", "/proc/meminfo").returncode == 0
        assert attempt(ladder, "down", own, "read", "/usr/lib/os-release").returncode == 0
        assert attempt(ladder, "down", own, "write", "/dev/null").returncode == 0
        assert attempt(ladder, "down", own, "read", "/proc/1/environ").returncode == 1
        assert attempt(ladder, "down", own, "read", "/dev/kmsg").returncode == 1
