"""fake_node.py - an engine for tests of the API: speaks docs/node-protocol.md, runs no cluster.

What a cluster does follows from its image name: `fail/...` ends with a reason, `slow/...` stays in
`pulling`, anything else runs.  Logs are real files in the format of src/model/attach.h, exec runs a
real process on this machine behind a small monitor, import reads the stream to its end.
"""
import array
import hashlib
import json
import os
import signal
import socket
import struct
import subprocess
import threading
import time

def fleet(count, name="NVIDIA A100-SXM4-80GB", memory_mib=81920, link="NV12/NODE", partitions=(), numa=None):
    """A fleet message of so many GPUs, each joined to each by the same link."""
    return {"driver_version": "550.54.15", "cuda_version": "12.4", "simulated": True,
            "list": [{"uuid": "GPU-%08d-0000-0000-0000-000000000000" % i, "name": name, "index": i,
                      "minor": i, "pci": "00000000:%02x:00.0" % (i + 1), "memory_mib": memory_mib,
                      "numa_node": numa[i] if numa else 0, "state": "ok"} for i in range(count)],
            "links": [["X" if a == b else link for b in range(count)] for a in range(count)],
            "partitions": [list(p) for p in partitions]}


HELLO, DATA, EOF, RESIZE, SIGNAL, FOLLOW, LOG, EXIT, ERROR, CREDIT = range(1, 11)


class Framed:
    """Messages with descriptors over a unix stream socket (src/base/frame.h)."""

    def __init__(self, sock):
        self.sock = sock
        self.buf = b""
        self.fds = []
        self.lock = threading.Lock()

    def send(self, msg, fds=()):
        text = json.dumps(msg, separators=(",", ":")).encode()
        data = struct.pack(">IBBH", len(text), 1, len(fds), 0) + text
        anc = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        with self.lock:
            n = self.sock.sendmsg([data], anc)
            while n < len(data):
                n += self.sock.send(data[n:])

    def recv(self):
        while True:
            if len(self.buf) >= 8:
                size, _, n_fds, _ = struct.unpack(">IBBH", self.buf[:8])
                if len(self.buf) >= 8 + size:
                    msg = json.loads(self.buf[8:8 + size])
                    self.buf = self.buf[8 + size:]
                    fds, self.fds = self.fds[:n_fds], self.fds[n_fds:]
                    return msg, fds
            data, anc, _, _ = self.sock.recvmsg(65536, socket.CMSG_SPACE(64))
            if not data:
                raise EOFError
            self.buf += data
            for level, kind, raw in anc:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    got = array.array("i")
                    got.frombytes(raw[:len(raw) - len(raw) % 4])
                    self.fds += list(got)


def packet(kind, channel, payload=b""):
    return struct.pack("<BBHI", kind, channel, 0, len(payload)) + payload


def read_exact(sock, n):
    data = b""
    while len(data) < n:
        more = sock.recv(n - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def read_packet(sock):
    kind, channel, _, size = struct.unpack("<BBHI", read_exact(sock, 8))
    return kind, channel, read_exact(sock, size)


def cri(text, stream="stdout", at=None, tag="F"):
    at = time.time() if at is None else at
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at)) + ".%09dZ" % int(at % 1 * 1e9)
    return f"{stamp} {stream} {tag} {text}\n".encode()


class Log:
    """Two files that take turns, and followers that get LOG packets."""

    def __init__(self, directory, name):
        self.paths = [os.path.join(directory, f"{name}.log.{i}") for i in (0, 1)]
        for p in self.paths:
            open(p, "wb").close()
        with open(self.paths[0], "wb") as f:
            f.write(b"#log 0\n")
        self.active, self.end, self.followers = 0, 0, []
        self.lock = threading.Lock()

    def write(self, *lines):
        data = b"".join(lines)
        with self.lock:
            with open(self.paths[self.active], "ab") as f:
                f.write(data)
            for s in list(self.followers):
                try:
                    s.sendall(packet(LOG, 0, struct.pack("<Q", self.end) + data))
                except OSError:
                    self.followers.remove(s)
            self.end += len(data)

    def turn(self):
        """The other file becomes the active one."""
        with self.lock:
            self.active = 1 - self.active
            with open(self.paths[self.active], "wb") as f:
                f.write(b"#log %d\n" % self.end)

    def follow(self, sock, offset):
        with self.lock:
            data, start = b"", None
            parts = []
            for p in self.paths:
                raw = open(p, "rb").read()
                if raw:
                    head, rest = raw.split(b"\n", 1)
                    parts.append((int(head.split()[1]), rest))
            for first, rest in sorted(parts):
                if first + len(rest) > offset:
                    skip = max(0, offset - first)
                    start = first + skip if start is None else start
                    data += rest[skip:]
            if data:
                sock.sendall(packet(LOG, 0, struct.pack("<Q", start) + data))
            self.followers.append(sock)

    def close(self):
        with self.lock:
            for s in self.followers:
                try:
                    s.shutdown(socket.SHUT_RDWR)  # its reader is in recv(), close() alone is not seen
                except OSError:
                    pass
                s.close()
            self.followers = []


class FakeNode:
    def __init__(self, path, directory, cpus=4, memory_mib=24000, disk_gib=400, overcommit=1.0,
                 epoch=1, node="fake0001", quiet=False, fleet=None, prices=(), numa=None):
        self.path, self.directory, self.epoch, self.node = path, directory, epoch, node
        self.inventory = {
            "cpus": [str(i) for i in range(cpus)], "cpu_overcommit": overcommit,
            "memory_mib": memory_mib, "memory_overcommit": overcommit, "disk_gib": disk_gib,
            "disk_overcommit": overcommit, "security": {"apparmor": False}, "version": "0.0.1"}
        if numa:
            self.inventory["numa"] = numa
        self.fleet = fleet or {"note": "no NVIDIA driver on this host", "list": []}
        self.prices = list(prices)
        self.clusters = {}   # id -> {generation, desired, plan, state, ...}
        self.messages = []   # everything that came, in order
        self.logs = {}
        self.images = []
        self.seq = 0
        self.conn = None
        self.quiet = quiet   # do not act on assigns
        self.inner = None
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        if os.path.exists(path):
            os.unlink(path)
        self.listener.bind(path)
        os.chmod(path, 0o666)
        self.listener.listen(8)
        self.closing = False
        self.threads = []
        self.children = []
        self.spawn(self.accept)

    def spawn(self, fn, *args):
        t = threading.Thread(target=fn, args=args, daemon=True)
        t.start()
        self.threads.append(t)

    def close(self):
        self.closing = True
        self.listener.close()
        self.drop()
        for log in self.logs.values():
            log.close()
        for c in self.children:
            if c.poll() is None:
                c.kill()
            c.wait()
        if self.inner:
            self.inner.close()
        if os.path.exists(self.path):
            os.unlink(self.path)

    def drop(self):
        """Lose the connection."""
        with self.lock:
            if self.conn:
                try:
                    self.conn.sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
                self.conn = None

    def accept(self):
        while not self.closing:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            self.spawn(self.serve, Framed(sock))

    def serve(self, conn):
        try:
            conn.send({"type": "hello", "version": 1, "node": self.node, "epoch": self.epoch,
                       "inventory": self.inventory})
            msg, _ = conn.recv()
            assert msg["type"] == "welcome" and msg["version"] == 1
            with self.lock:
                self.conn = conn
                self.say_gpus()
                for cid in list(self.clusters):
                    self.report(cid)
                conn.send({"type": "synced", "epoch": self.epoch})
                if self.inner:
                    conn.send({"type": "inner"}, [self.inner.fileno()])
            while True:
                msg, fds = conn.recv()
                with self.lock:
                    self.messages.append(msg)
                    getattr(self, "on_" + msg["type"], self.ignore)(conn, msg, fds)
                    self.changed.notify_all()
        except (EOFError, OSError):
            pass
        finally:
            conn.sock.close()
            with self.lock:
                if self.conn is conn:
                    self.conn = None

    def wait(self, test, timeout=30):
        with self.lock:
            if not self.changed.wait_for(test, timeout):
                raise AssertionError("the node never saw it: %r" % self.messages[-5:])

    # ---- saying ----

    def say_gpus(self, fleet=None):
        """The fleet of now; it may have changed."""
        self.fleet = fleet or self.fleet
        self.say({"type": "gpus", "prices": self.prices, **self.fleet})

    def say(self, msg):
        with self.lock:
            if self.conn:
                try:
                    self.conn.send(msg)
                except OSError:
                    pass

    def report(self, cid, **more):
        with self.lock:  # reports go out in the order of their numbers
            c = self.clusters[cid]
            c.update(more)
            self.seq += 1
            msg = {"type": "report", "epoch": self.epoch, "seq": self.seq, "cluster": cid,
                   "generation": c["generation"], "state": c["state"],
                   "progress_pct": c.get("progress_pct", 0),
                   "progress_bytes": c.get("progress_bytes", 0),
                   "progress_total_bytes": c.get("progress_total_bytes", 0),
                   "progress_bytes_per_s": c.get("progress_bytes_per_s", 0), "reason": c.get("reason", ""),
                   "released": c.get("released", False),
                   "credentials_wanted": c.get("credentials_wanted", False), "address": c.get("address", ""),
                   "started_us": c.get("started_us", 0), "exit_code": c.get("exit_code", 0),
                   "restarts": c.get("restarts", 0), "oom_kills": 0,
                   "security": {"seccomp": "enforced", "apparmor": "unavailable"}}
            if c["state"] == "running":
                msg["usage"] = {"cpu_us": 1000, "memory_bytes": 512 << 20, **c.get("usage", {})}
            self.say(msg)
            self.changed.notify_all()

    def ignore(self, conn, m, fds):
        """Of a type that is not known here, as the protocol has it."""

    def on_assign(self, conn, m, fds):
        cid, gen = m["cluster"], m["generation"]
        c = self.clusters.get(cid)
        if c and c["generation"] > gen:
            return
        if not c or c["generation"] < gen:
            c = self.clusters[cid] = {"generation": gen, "state": "accepted",
                                      "address": c["address"] if c else
                                      "127.0.0.%d" % (10 + len(self.clusters))}
        c.update(desired=m["desired"], plan=m["plan"])
        if self.quiet:
            return
        image = m["plan"]["image"]
        if m["desired"] == "stopped":
            if c["state"] != "exited":
                self.report(cid, state="stopping")
                self.report(cid, state="exited", released=True, started_us=0)
        elif c["state"] == "accepted":
            if image.startswith("fail/"):
                self.report(cid, state="pulling", progress_pct=1)
                self.report(cid, state="exited", released=True,
                            reason="image %s: not found in the registry" % image)
            elif image.startswith("slow/"):
                self.report(cid, state="pulling", progress_pct=43)
            else:
                self.report(cid, state="binding")
                self.report(cid, state="running", released=False,
                            started_us=int(time.time() * 1e6))

    def on_tombstone(self, conn, m, fds):
        c = self.clusters.setdefault(m["cluster"], {"generation": m["generation"]})
        c["generation"] = max(c["generation"], m["generation"])
        c["state"] = "terminated"
        if not self.quiet:
            self.report(m["cluster"], released=True)

    def on_forget(self, conn, m, fds):
        self.clusters.pop(m["cluster"], None)

    def on_welcome(self, conn, m, fds):
        pass

    def on_cancel(self, conn, m, fds):
        pass

    # ---- requests ----

    def on_request(self, conn, m, fds):
        op = getattr(self, "op_" + m["op"].replace(".", "_"))
        self.spawn(self.answer, conn, m, op, fds)

    def answer(self, conn, m, op, fds):
        try:
            result, out = op(conn, m["req"], m["args"], fds)
            conn.send({"type": "reply", "req": m["req"], "ok": True, "result": result}, out)
            for fd in out:
                os.close(fd)
        except FileNotFoundError as e:
            conn.send({"type": "reply", "req": m["req"], "ok": False, "errno": 2,
                       "message": str(e.args[0])})
        except OSError:
            pass

    def log(self, cid):
        if cid not in self.logs:
            self.logs[cid] = Log(self.directory, cid)
        return self.logs[cid]

    def op_logs(self, conn, req, args, fds):
        cid = args["cluster"]
        if cid not in self.clusters:
            raise FileNotFoundError("no such cluster")
        log = self.log(cid)
        out = [os.open(p, os.O_RDONLY) for p in log.paths]
        if self.clusters[cid]["state"] == "running":
            ours, theirs = socket.socketpair()
            out.append(theirs.detach())
            self.spawn(self.log_monitor, log, ours)
        return {}, out

    def log_monitor(self, log, sock):
        try:
            while True:
                kind, _, payload = read_packet(sock)
                if kind == HELLO:
                    sock.sendall(packet(HELLO, 0, struct.pack("<IIQQ", 1, 0, 0, log.end)))
                if kind == FOLLOW:
                    log.follow(sock, struct.unpack("<Q", payload)[0])
        except (EOFError, OSError):
            pass

    def op_exec(self, conn, req, args, fds):
        if args["argv"][0] == "no-such-program":
            raise FileNotFoundError("no-such-program: not found in the cluster")
        ours, theirs = socket.socketpair()
        env = dict(e.split("=", 1) for e in args.get("env", []))
        p = subprocess.Popen(args["argv"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, env={**os.environ, **env},
                             cwd=args.get("cwd", "/"))
        self.children.append(p)
        self.spawn(self.exec_monitor, p, ours)
        return {"session": "s%d" % req}, [theirs.detach()]

    def exec_monitor(self, p, sock):
        credit = threading.Semaphore(0)
        lock = threading.Lock()
        left = [32768]
        more = threading.Condition()

        def pump(stream, channel):
            while True:
                data = os.read(stream.fileno(), 16384)
                if not data:
                    return
                with more:
                    more.wait_for(lambda: left[0] >= len(data) or gone[0])
                    left[0] -= len(data)
                if gone[0]:
                    return
                with lock:
                    try:
                        sock.sendall(packet(DATA, channel, data))
                    except OSError:
                        return

        gone = [False]
        pumps = [threading.Thread(target=pump, args=a, daemon=True)
                 for a in ((p.stdout, 1), (p.stderr, 2))]

        def feed():
            try:
                while True:
                    kind, _, payload = read_packet(sock)
                    if kind == DATA:
                        p.stdin.write(payload)
                        p.stdin.flush()
                        with lock:
                            sock.sendall(packet(CREDIT, 0, struct.pack("<I", len(payload))))
                    elif kind == EOF:
                        p.stdin.close()
                    elif kind == SIGNAL:
                        number = struct.unpack("<I", payload)[0]
                        if number != signal.SIGUSR1:
                            p.send_signal(number)
                            continue
                        with lock:  # one that the kernel refuses; the session goes on
                            sock.sendall(packet(ERROR, 1, b"signal 10: Operation not permitted"))
                    elif kind == RESIZE:
                        self.resized = struct.unpack("<HH", payload)
                    elif kind == CREDIT:
                        with more:
                            left[0] += struct.unpack("<I", payload)[0]
                            more.notify_all()
            except (EOFError, OSError, ValueError):
                gone[0] = True
                with more:
                    more.notify_all()
                p.kill()

        sock.sendall(packet(HELLO, 0, struct.pack("<IIQQ", 1, 0, 0, 0)))
        threading.Thread(target=feed, daemon=True).start()
        for t in pumps:
            t.start()
        for t in pumps:
            t.join()
        code = p.wait()
        with lock:
            try:
                sig = -code if code < 0 else 0
                sock.sendall(packet(EXIT, 0, struct.pack("<ii", 128 + sig if sig else code, sig)))
                sock.shutdown(socket.SHUT_WR)
            except OSError:
                pass

    def op_image_list(self, conn, req, args, fds):
        return {"images": [i for i in self.images
                           if args["admin"] or i["public"] or i["account"] == args["account"]]}, []

    def op_image_remove(self, conn, req, args, fds):
        for i in self.images:
            if i["reference"] == args["reference"] and (args["admin"] or
                                                        i["account"] == args["account"]):
                self.images.remove(i)
                return {}, []
        raise FileNotFoundError("image %s: not found" % args["reference"])

    def progress(self, conn, req, phase, done, total, rate=0):
        conn.send({"type": "progress", "req": req, "phase": phase, "done_bytes": done,
                   "total_bytes": total, "bytes_per_s": rate})

    def add_image(self, args, name, digest, size):
        image = {"reference": name, "digest": "sha256:" + digest, "size_bytes": size,
                 "created_us": int(time.time() * 1e6), "used_us": int(time.time() * 1e6),
                 "account": args["account"], "public": bool(args.get("public")), "in_use": False}
        self.images.append(image)
        return image, []

    def op_image_pull(self, conn, req, args, fds):
        if "missing" in args["reference"]:
            raise FileNotFoundError("image %s: not found" % args["reference"])
        for i in (1, 2, 3):
            self.progress(conn, req, "downloading", i * 100, 300, 50)
        return self.add_image(args, args["reference"], "0" * 64, 300)

    def op_image_import(self, conn, req, args, fds):
        h, n = hashlib.sha256(), 0
        with os.fdopen(fds[0], "rb", buffering=0) as f:
            while True:
                data = f.read(1 << 16)
                if not data:
                    break
                h.update(data)
                n += len(data)
                if n % (1 << 20) == 0:
                    self.progress(conn, req, "reading", n, 0)
        return self.add_image(args, args["name"], h.hexdigest(), n)
