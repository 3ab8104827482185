"""What the attack suite (tests/attack) works with: canaries outside the cluster, and the attacker's
side.  A test asserts on its canary: `changed()` is the one way to say that it sang."""
import contextlib
import os
import pathlib
import secrets
import shutil
import signal
import subprocess
import tempfile
import threading
import time

import pytest
import websocket

import host as host_
from host import Host
from ocimake import Image, Layer

ENGINE = {"cpu_overcommit": 100, "memory_overcommit": 20, "disk_overcommit": 100, "grace": "1s"}
TOOL = "/bin/attack"
PROFILES = ("standard", "strict", "compat")


def program(name="attack"):
    return host_.program("tests/attack/" + name)


def tries(count):
    """So many, and in the lab, which is emulated, as many as it makes in the same time."""
    return count // host_.SLOW


def some(forms):
    """All forms of an attack, each of which costs a cluster or a session; every third in the lab."""
    return list(forms)[::3 if host_.SLOW > 1 else 1]


def changed(text):
    """A canary outside the cluster was changed or read."""
    print("CANARY: " + text, flush=True)
    pytest.fail("CANARY: " + text)


class Canary:
    """Files of the test's own on the host, for everybody to read and write, so that only isolation
    keeps them; a secret that is nowhere else."""

    def __init__(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="hvmm-canary.", dir="/var/tmp"))
        self.secret = "canary-" + secrets.token_hex(16)
        self.file = self.dir / "secret"
        self.empty = self.dir / "empty"
        self.empty.mkdir()
        self.file.write_text(self.secret + "\n")
        for p, mode in ((self.dir, 0o777), (self.empty, 0o777), (self.file, 0o666)):
            p.chmod(mode)

    def check(self, *texts):
        """Nothing was written, made or removed here, and the secret is in none of @texts."""
        if self.file.read_text() != self.secret + "\n":
            changed("the host's file %s was written" % self.file)
        made = list(self.empty.iterdir()) + [p for p in self.dir.iterdir() if p not in (self.file, self.empty)]
        if made:
            changed("made on the host: %s" % made)
        with open("/proc/self/mountinfo", encoding="utf-8") as f:
            if str(self.dir) in f.read():
                changed("mounted on the host: below %s" % self.dir)
        for text in texts:
            if self.secret in text:
                changed("the host's file was read: %s" % text[:300])

    def remove(self):
        shutil.rmtree(self.dir, ignore_errors=True)


@contextlib.contextmanager
def canary():
    c = Canary()
    try:
        yield c
    finally:
        c.remove()


def layer():
    """Busybox and the attack program, as the base of every hostile image."""
    base = Layer().busybox("sh", "sleep", "cat", "ls", "id", "ln", "mkdir", "rm", "env", "grep", "stat", "touch",
                           "chmod", "echo", "wc", "mv", "readlink", "nc", "wget", "ip", "true", "sync", "dd", "od",
                           "mknod", "ps", "head", "tail", "test", "find", "cp", "ping", "hostname", "setsid")
    with open(program(), "rb") as f:
        base.file("bin/attack", f.read(), mode=0o755)
    return base.dir("etc").file("etc/passwd", b"root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n") \
               .file("etc/group", b"root:x:0:\nuser:x:1000:\n").dir("tmp", mode=0o1777).dir("root", mode=0o700)


def image(*tars, cmd=("/bin/sleep", "100000"), **config):
    return Image([layer().tar(), *tars], config={"Cmd": list(cmd), "Env": ["PATH=/bin"], **config})


class World(Host):
    """A host with two tenants: mallory, who attacks, and alice, who has what mallory wants."""

    def __init__(self, config=None, **kw):
        super().__init__({"engine": {**ENGINE, **(config or {}).pop("engine", {})}, **(config or {})}, **kw)
        self.keys = {}

    def __enter__(self):
        self.start()
        try:
            self.add_image("attack", image())
            for name in ("mallory", "alice"):
                self.keys[name] = self.new_account(name)
        except BaseException:
            self.close()
            raise
        return self

    def close(self):
        """Tenants' clusters, too, are ended: an administrator does not see them."""
        for name, key in self.keys.items():
            for c in self.clusters(key) if self.proc and self.proc.poll() is None else []:
                self.end(c["id"], name)
        super().close()

    def add_image(self, name, made):
        with tempfile.TemporaryDirectory(prefix="hvi.") as tmp:
            self.import_image(name, made.write_layout(os.path.join(tmp, "x")))

    def add_own_image(self, who, name, made):
        """As @who uploads it: nobody else's."""
        with tempfile.TemporaryDirectory(prefix="hvi.") as tmp:
            made.write_layout(os.path.join(tmp, "x"))
            tar = subprocess.run(["tar", "-C", os.path.join(tmp, "x"), "-c", "."], stdout=subprocess.PIPE,
                                 check=True).stdout
        answer = self.rest("POST", "/v1/images/import", key=self.keys[who], params={"name": name}, data=tar)
        assert '"digest"' in answer.text, answer.text

    def rent(self, who="mallory", wait=True, **fields):
        """A cluster of @who's, which runs."""
        fields.setdefault("imageName", "attack")
        cluster = self.deploy(key=self.keys[who], **fields)
        if wait:
            self.until(cluster, who, lambda c: c["runtime"] is not None)
        return cluster

    def until(self, cluster, who, good, timeout=60):
        end = time.monotonic() + timeout
        while True:
            c = self.cluster(cluster, key=self.keys[who])
            assert c is not None, "cluster %s is gone" % cluster
            if good(c):
                return c
            if c["desiredStatus"] == "EXITED":
                pytest.fail("cluster %s does not run: %s" % (cluster, c["reason"]))
            if time.monotonic() > end:
                pytest.fail("cluster %s: %s\n%s" % (cluster, c, self.log_text()[-2000:]))
            time.sleep(host_.PAUSE_S)

    def until_any(self, cluster, who, good, timeout=60):
        end = time.monotonic() + timeout
        while True:
            c = self.cluster(cluster, key=self.keys[who])
            if good(c):
                return c
            if time.monotonic() > end:
                pytest.fail("cluster %s: %s" % (cluster, c))
            time.sleep(host_.PAUSE_S)

    def ended(self, cluster, who="mallory"):
        """Its record once it has stopped, or has run into what stops it."""
        return self.until_any(cluster, who, lambda c: c["desiredStatus"] == "EXITED" or c["reason"])

    def end(self, cluster, who="mallory"):
        self.call("clusterTerminate", cluster, key=self.keys[who])

    def inside(self, cluster, *argv, who="mallory", **params):
        """What a session of @who's in the cluster wrote, or "not begun: ..."."""
        try:
            s = self.session(cluster, *argv, key=self.keys[who], **params).finish()
        except websocket.WebSocketBadStatusException as e:
            return "not begun: %s" % e
        return (s.out + s.err).decode(errors="replace") + (s.error or "")

    def attack(self, cluster, *argv, who="mallory", **params):
        return self.inside(cluster, TOOL, *argv, who=who, **params)

    def sh(self, cluster, script, who="mallory", **params):
        return self.inside(cluster, "sh", "-c", script, who=who, **params)

    @contextlib.contextmanager
    def beside(self, cluster, *argv, ready=b"", stop=None, who="mallory", **params):
        """A session that goes on while the block runs, once it has written @ready.  Then it ends by the
        file @stop, or the end of its stdin; [0] of what is handed out is what it wrote."""
        s = self.session(cluster, *argv, key=self.keys[who], **params)
        said = [""]
        s.until(ready)
        reader = threading.Thread(target=s.finish, daemon=True)
        reader.start()
        try:
            yield said
        finally:
            if stop:
                self.inside(cluster, "touch", stop, who=who)
            else:
                s.eof()
            reader.join(30 * host_.SLOW)
            said[0] = (s.out + s.err).decode(errors="replace")
            assert not reader.is_alive(), "a session does not end"


class Watched:
    """A process of the host's that says which signals came, with @text in its command line and its
    environment."""

    CODE = ("import os,signal,sys\n"
            "for s in (signal.SIGUSR1, signal.SIGTERM): signal.signal(s, lambda n, f: os.write(1, b'signal\\n'))\n"
            "os.write(1, b'up\\n')\n"
            "sys.stdin.read()\n")

    def __init__(self, text):
        self.proc = subprocess.Popen(["/usr/bin/python3", "-c", self.CODE, text], stdin=subprocess.PIPE,
                                     stdout=subprocess.PIPE, env={"CANARY": text}, start_new_session=True)
        assert self.proc.stdout.readline() == b"up\n"

    @property
    def pid(self):
        return self.proc.pid

    def end(self):
        """Everything that it said; it must have lived until now."""
        if self.proc.poll() is not None:
            changed("a process of the host's was ended (%d)" % self.proc.returncode)
        said, _ = self.proc.communicate(timeout=20)
        if b"signal" in said:
            changed("a process of the host's got a signal")


@contextlib.contextmanager
def watched(text):
    w = Watched(text)
    try:
        yield w
        w.end()
    finally:
        if w.proc.poll() is None:
            w.proc.send_signal(signal.SIGKILL)
            w.proc.wait()
