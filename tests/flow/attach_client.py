"""A client of vmm-monitor's attach protocol, written from src/model/attach.h alone, and a small
launcher that does what the sandbox does: it becomes the monitor, and the process is its child."""
import ctypes
import fcntl
import json
import os
import pty
import resource
import select
import signal
import socket
import struct
import time

HELLO, DATA, EOF, RESIZE, SIGNAL, FOLLOW, LOG, EXIT, ERROR, CREDIT, LEAVE = range(1, 12)
STDIN, STDOUT, STDERR = range(3)
F_STDIO, F_TTY, F_INPUT, F_RESUME = 1, 2, 4, 8
KEPT = 131072  # bytes of a kept session's output that can be had once more
UID = 54321  # of the monitor


PR_SET_KEEPCAPS, PR_CAP_AMBIENT, CAP_KILL, SYS_CAPSET = 8, 47, 5, {"x86_64": 126, "aarch64": 91}


def prctl(op, a, b=0):
    if ctypes.CDLL(None, use_errno=True).prctl(op, a, b, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl {op}")


def ambient_cap_kill():
    """CAP_KILL, and only that, survives the coming exec."""
    head = struct.pack("<II", 0x20080522, 0)
    data = struct.pack("<6I", *[1 << CAP_KILL] * 3, 0, 0, 0)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(SYS_CAPSET[os.uname().machine], head, data) != 0:
        raise OSError(ctypes.get_errno(), "capset")
    prctl(PR_CAP_AMBIENT, 2, CAP_KILL)


def find_monitor():
    build = os.environ.get("HVMM_BUILD", "build")
    for path in ("vmm-monitor", "src/monitor/vmm-monitor"):
        path = os.path.abspath(os.path.join(build, path))
        if os.access(path, os.X_OK):
            return path
    raise FileNotFoundError(f"no vmm-monitor in {build} (set HVMM_BUILD)")


class Client:
    """One connection.  Every wait has a deadline; nothing here sleeps."""

    def __init__(self, path, flags=0, version=1, hello=True, rcvbuf=None, resume=None):
        self.s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        if rcvbuf:
            self.s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        self.s.connect(path)
        self.buf = bytearray()
        self.closed = False
        if hello:
            self.send(HELLO, struct.pack("<II", version, flags) if resume is None else
                      struct.pack("<IIQQ", version, flags | F_RESUME, resume, 0))

    def close(self):
        self.s.close()

    def raw(self, data):
        self.s.sendall(data)

    def send(self, kind, payload=b"", channel=0):
        self.raw(struct.pack("<BBHI", kind, channel, 0, len(payload)) + payload)

    def credit(self, n):
        try:
            self.send(CREDIT, struct.pack("<I", n))
        except BrokenPipeError:
            pass  # the monitor has ended; what it sent is still to be read

    def packet(self, timeout=10.0):
        """(type, channel, payload), or None when the monitor has closed."""
        end = time.monotonic() + timeout
        while True:
            if len(self.buf) >= 8:
                kind, channel, zero, n = struct.unpack_from("<BBHI", self.buf)
                assert zero == 0 and n <= 65536
                if len(self.buf) >= 8 + n:
                    payload = bytes(self.buf[8:8 + n])
                    del self.buf[:8 + n]
                    return kind, channel, payload
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.s], [], [], left)[0]:
                raise TimeoutError("no packet in time")
            try:
                data = self.s.recv(1 << 18)
            except ConnectionResetError:
                data = b""
            if not data:
                assert not self.buf, "the stream ends inside a packet"
                self.closed = True
                return None
            self.buf += data

    def expect(self, kind, timeout=10.0):
        """The next packet of that kind; others on the way are dropped."""
        while True:
            p = self.packet(timeout)
            assert p is not None, f"closed while waiting for packet {kind}"
            if p[0] == kind:
                return p
            assert p[0] != ERROR, p[2]

    def hello(self):
        p = self.packet()
        assert p[0] == HELLO
        return struct.unpack("<IIQQ", p[2])

    def collect(self, timeout=30.0, grant=True):
        """Everything up to EXIT: ({channel: bytes}, [channels that ended], (code, signal))."""
        out, ended = {STDOUT: bytearray(), STDERR: bytearray()}, []
        while True:
            p = self.packet(timeout)
            assert p is not None, "closed before EXIT"
            kind, channel, payload = p
            if kind == DATA:
                out[channel] += payload
                if grant:
                    self.credit(len(payload))
            elif kind == EOF:
                ended.append(channel)
            elif kind == EXIT:
                return out, ended, struct.unpack("<ii", payload)
            else:
                assert kind in (HELLO, CREDIT), p

    def lines(self, until=None, timeout=10.0):
        """Log packets, checked for gapless offsets, as a list of (offset, line bytes); ends at
        EXIT or after the line that contains @until."""
        got = []
        while True:
            p = self.packet(timeout)
            assert p is not None, "closed before EXIT"
            if p[0] == EXIT:
                return got
            if p[0] != LOG:
                assert p[0] != ERROR, p[2]
                continue
            off = struct.unpack_from("<Q", p[2])[0]
            text = p[2][8:]
            assert text.endswith(b"\n")
            for line in text.split(b"\n")[:-1]:
                got.append((off, line + b"\n"))
                off += len(line) + 1
            if until is not None and any(until in line for _, line in got[-2000:]):
                return got


class Monitor:
    """A vmm-monitor with a child.  @directory keeps socket, log and status."""

    def __init__(self, directory, argv, tty=False, exec_=False, stdin=True, logs=True, uid=UID,
                 child_uid=None, peer=None, extra_fds=0, cap_kill=False, nofile=None, log_rate=None, keep=None):
        self.dir = str(directory)
        self.sock = os.path.join(self.dir, "attach")
        self.status_path = os.path.join(self.dir, "status")
        self.binary = find_monitor()
        listen = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        if os.path.exists(self.sock):
            os.unlink(self.sock)
        listen.bind(self.sock)
        listen.listen(16)
        os.chmod(self.sock, 0o777)
        self.child = None
        r, w = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                w, fd = self._only_these(w, listen.detach())
                self._become(w, fd, argv, tty, exec_, stdin, logs, uid, child_uid, peer,
                             extra_fds, cap_kill, nofile, log_rate, keep)
            except BaseException as e:  # noqa: B902 - anything is reported to the parent
                os.write(w, f"!{e!r}".encode())
            os._exit(127)
        os.close(w)
        listen.close()
        text = b""
        while chunk := os.read(r, 4096):
            text += chunk
        os.close(r)
        if text.startswith(b"!"):
            os.waitpid(self.pid, 0)
            raise RuntimeError(text[1:].decode())
        self.child = int(text)
        self.reaped = None

    @staticmethod
    def _only_these(*fds):
        """Close everything else and give these small numbers."""
        for i, fd in enumerate(fds):
            os.dup2(fd, 900 + i)
        os.closerange(3, 900)
        low = [os.dup(900 + i) for i in range(len(fds))]
        os.closerange(900, 900 + len(fds))
        return low

    def _become(self, w, listen, argv, tty, exec_, stdin, logs, uid, child_uid, peer,
                extra_fds, cap_kill, nofile, log_rate, keep):
        args = [self.binary, "--id", "testcluster"]
        if tty:
            master, slave = pty.openpty()
            args += ["--pty", str(master)]
            ends = [slave, slave, slave]
            mine = [master]
        else:
            pairs = [os.pipe(), os.pipe(), os.pipe()]
            ends = [pairs[0][0], pairs[1][1], pairs[2][1]]
            mine = [pairs[0][1], pairs[1][0], pairs[2][0]]
            if stdin:
                args += ["--in", str(mine[0])]
            args += ["--out", str(mine[1]), "--err", str(mine[2])]
        pid = os.fork()
        if pid == 0:
            os.setsid()
            if tty:
                fcntl.ioctl(ends[0], 0x540E, 0)  # TIOCSCTTY
            for i, fd in enumerate(ends):
                os.dup2(fd, i)
            if not tty and not stdin:
                os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
            os.closerange(3, 1024)
            if child_uid is not None:
                os.setresgid(child_uid, child_uid, child_uid)
                os.setresuid(child_uid, child_uid, child_uid)
            for sig in (signal.SIGPIPE, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
                signal.signal(sig, signal.SIG_DFL)  # whoever runs us may ignore them
            try:
                os.execvp(argv[0], argv)
            finally:
                os._exit(126)
        for fd in set(ends):
            os.close(fd)
        pidfd = os.pidfd_open(pid)
        status = os.open(self.status_path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        fds = [pidfd, status, listen] + mine
        args += ["--pidfd", str(pidfd), "--pid", str(pid), "--listen", str(listen),
                 "--status", str(status)]
        if exec_:
            args += ["--exec"]
        elif logs:
            for i in (0, 1):
                fd = os.open(self.log_path(i), os.O_RDWR | os.O_CREAT, 0o600)
                fds.append(fd)
                args += [f"--log{i}", str(fd)]
        if peer is not None:
            args += ["--peer", str(peer)]
        if keep is not None:
            args += ["--keep", str(keep)]
        if log_rate is not None:
            args += ["--log-rate", str(log_rate)]
        for fd in fds:
            os.set_inheritable(fd, True)
        for _ in range(extra_fds):
            os.set_inheritable(os.open("/etc/passwd", os.O_RDONLY), True)
        binary = os.open(self.binary, os.O_PATH | os.O_CLOEXEC)  # a home may be closed to others
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        if cap_kill:
            prctl(PR_SET_KEEPCAPS, 1)
        os.setresuid(uid, uid, uid)
        if cap_kill:
            ambient_cap_kill()
        os.write(w, str(pid).encode())  # w closes at exec
        if nofile:
            resource.setrlimit(resource.RLIMIT_NOFILE, (nofile, nofile))
        os.execve(binary, args, {})

    def log_path(self, i):
        return os.path.join(self.dir, f"log.{i}")

    def connect(self, flags=0, **kw):
        return Client(self.sock, flags, **kw)

    def wait(self, timeout=10.0):
        """Exit status of the monitor (negative: signal)."""
        if self.reaped is None:
            fd = os.pidfd_open(self.pid)
            try:
                if not select.select([fd], [], [], timeout)[0]:
                    raise TimeoutError("the monitor does not end")
            finally:
                os.close(fd)
            self.reaped = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.reaped

    def status(self):
        with open(self.status_path) as f:
            text = f.read()
        assert text.count("\n") == 1 and text.endswith("\n") and len(text) <= 256
        return json.loads(text)

    def log_lines(self):
        """Whole log, oldest file first, without headers."""
        files = []
        for i in (0, 1):
            with open(self.log_path(i), "rb") as f:
                data = f.read()
            if data:
                head, _, rest = data.partition(b"\n")
                assert head.startswith(b"#log "), head
                files.append((int(head[5:]), rest))
        files.sort()
        data = b"".join(rest for _, rest in files)
        assert data == b"" or data.endswith(b"\n")
        return data.split(b"\n")[:-1]

    def private_kb(self):
        """(private, of that dirty) from smaps_rollup."""
        clean = dirty = 0
        with open(f"/proc/{self.pid}/smaps_rollup") as f:
            for line in f:
                if line.startswith("Private_Clean"):
                    clean = int(line.split()[1])
                elif line.startswith("Private_Dirty"):
                    dirty = int(line.split()[1])
        return clean + dirty, dirty

    def kill(self, sig=signal.SIGKILL):
        os.kill(self.pid, sig)

    def end(self):
        """Whatever is left of it, by its own pids."""
        if self.reaped is None:
            if self.child:
                try:
                    os.kill(self.child, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            try:
                os.kill(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self.reaped = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
