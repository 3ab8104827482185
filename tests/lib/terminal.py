"""A program on a terminal of a given size: type, read, resize, wait."""
import fcntl
import os
import pty
import re
import select
import struct
import termios
import time


class Terminal:
    def __init__(self, argv, env, rows=24, cols=80):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))
            os.execve(argv[0], argv, env)
        self.out = b""
        self.rc = None

    def read_until(self, pattern, timeout=15):
        """Until @pattern, a regular expression, is in what came since the last call."""
        end = time.monotonic() + timeout
        self.out = b""
        while not re.search(pattern, self.out):
            left = end - time.monotonic()
            assert left > 0, f"{pattern!r} never came: {self.out!r}"
            self.read(left)
        return self.out

    def read(self, timeout):
        """False at the end."""
        if not select.select([self.fd], [], [], timeout)[0]:
            return True
        try:
            data = os.read(self.fd, 65536)
        except OSError:
            data = b""
        self.out += data
        return bool(data)

    def write(self, data):
        os.write(self.fd, data)

    def resize(self, rows, cols):
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

    def wait(self, timeout=15):
        """The exit status; self.out is everything that came."""
        end = time.monotonic() + timeout
        while self.rc is None:
            assert time.monotonic() < end, f"still running: {self.out!r}"
            more = self.read(0.05)
            pid, status = os.waitpid(self.pid, os.WNOHANG if more else 0)
            if pid:
                self.rc = os.waitstatus_to_exitcode(status)
        while self.read(0):
            if not select.select([self.fd], [], [], 0)[0]:
                break
        os.close(self.fd)
        return self.rc
