"""A stand-in for tensorone-api, for tests of clients: canned clusters, real transport.

GraphQL requests are held against the schema before they are answered.  exec runs the command on
this machine, on a pty when the client asks for a terminal, so exit codes, signals, window sizes
and streams are the real thing.  Every request is kept in `requests` for the test to look at."""
import base64
import contextlib
import fcntl
import hashlib
import http.server
import json
import os
import pty
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
import urllib.parse

import gqlcheck

KEY = "tpo_test_0123456789abcdef"
GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def cluster(id_, name, **more):
    c = {
        "id": id_, "name": name, "imageName": "tensorone/llm-starter", "desiredStatus": "RUNNING",
        "phase": "running", "progressPercent": None, "progressBytes": None,
        "progressTotalBytes": None, "progressBytesPerSecond": None, "reason": None,
        "lastStatusChange": "Rented by User", "createdAt": "2026-01-31T08:00:00Z",
        "lastStartedAt": "2026-01-31T08:00:00Z", "costPerHr": 0.5, "clusterType": "RESERVED",
        "gpuCount": 1, "vcpuCount": 4, "memoryInGb": 32, "containerDiskInGb": 20, "volumeInGb": 40,
        "volumeMountPath": "/runpod", "dockerArgs": "python run.py", "env": ["A=1"],
        "ports": "8000/http,22/tcp", "urls": ["https://%s-8000.proxy.localhost:8443" % id_], "templateId": None, "security": {"seccomp": "enforced"},
        "uptimeSeconds": 60, "machineId": "m1",
        "machine": {"gpuDisplayName": "A100", "location": "here"},
        "runtime": {"uptimeInSeconds": 60, "container": {
            "cpuPercent": 7, "memoryPercent": 9, "cpuPressurePercent": 12.5, "memoryPressurePercent": 0,
            "ioPressurePercent": None}, "ports": [
            {"ip": "192.0.2.7", "isIpPublic": True, "privatePort": 22, "publicPort": 40022,
             "type": "tcp"},
            {"ip": "100.96.0.7", "isIpPublic": False, "privatePort": 8000, "publicPort": 8000,
             "type": "http"}]},
    }
    c.update(more)
    return c


class Refusal(Exception):
    def __init__(self, message, status=200, body=None):
        super().__init__(message)
        self.message, self.status, self.body = message, status, body


class FakeApi:
    """with FakeApi() as api: ... api.url ..."""

    def __init__(self):
        self.schema = gqlcheck.Schema()
        self.clusters = [cluster("abcdefghijklm1", "trainer"),
                         cluster("abcdefghijklm2", "twin"), cluster("abcdefghijklm3", "twin")]
        self.templates = [{"id": "tpl1", "name": "chat", "imageName": "tensorone/llm-starter",
                           "dockerArgs": "", "containerDiskInGb": 20, "volumeInGb": 0,
                           "volumeMountPath": "/runpod", "ports": "8000/http", "env": [],
                           "startSsh": False, "isPublic": True}]
        self.images = [{"reference": "docker.io/library/debian:12", "digest": "sha256:" + "ab" * 32,
                        "sizeBytes": 77300000, "sharedBytes": 50000000, "createdAt": "2026-01-01T00:00:00Z",
                        "lastUsedAt": None, "owner": "acc", "public": False, "inUse": True}]
        self.gpus_with_room = {"NVIDIA A100", "NVIDIA H100"}
        self.requests = []      # (method, path, query dict, body)
        self.uploads = []       # bodies of imports
        self.phases = []        # what successive polls of a created cluster say
        self.broken = None      # a Refusal for every request
        self.refuse_update = None  # why an update is not made
        self.pull_steps = 3
        self.pull_delay = 0.0
        self.pull_error = None
        self.log_text = b"one\ntwo\nthree\n"
        self.log_more = []      # pieces that a follower gets
        self.exec_mode = "run"  # or "drop", "refuse", "error"
        self.exec_sizes = []    # what the client said
        self.exec_children = []

    def __enter__(self):
        api = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args):
                pass

            def do_GET(self):
                api.handle(self)

            do_POST = do_DELETE = do_GET

            def handle_expect_100(self):
                return True if api.broken else super().handle_expect_100()

        class Server(http.server.ThreadingHTTPServer):
            def handle_error(self, request, client_address):
                if not isinstance(sys.exc_info()[1], OSError):  # a client that went away is fine
                    super().handle_error(request, client_address)

        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *exc):
        self.server.shutdown()
        self.server.server_close()
        for child in self.exec_children:
            if child.poll() is None:
                child.kill()
                child.wait()

    # --- transport

    def body(self, h):
        if h.headers.get("Transfer-Encoding") == "chunked":
            data = b""
            while True:
                n = int(h.rfile.readline().split(b";")[0], 16)
                data += h.rfile.read(n)
                h.rfile.readline()
                if n == 0:
                    return data
        return h.rfile.read(int(h.headers.get("Content-Length") or 0))

    def answer(self, h, status, value, content="application/json"):
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        h.send_response(status)
        h.send_header("Content-Type", content)
        h.send_header("Content-Length", str(len(data)))
        h.end_headers()
        h.wfile.write(data)

    def chunked(self, h, pieces, content):
        h.send_response(200)
        h.send_header("Content-Type", content)
        h.send_header("Transfer-Encoding", "chunked")
        h.end_headers()
        try:
            for p in pieces:
                if p:
                    h.wfile.write(b"%x\r\n%s\r\n" % (len(p), p))
                    h.wfile.flush()
            h.wfile.write(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            h.close_connection = True

    def handle(self, h):
        path, _, query = h.path.partition("?")
        args = urllib.parse.parse_qs(query, keep_blank_values=True)
        early = self.broken and path == "/v1/images/import"  # refused before it is read
        body = b"" if "Upgrade" in h.headers or early else self.body(h)
        h.close_connection = h.close_connection or bool(early)
        self.requests.append((h.command, path, args, body))
        try:
            if self.broken:
                raise self.broken
            if h.headers.get("Authorization") != "Bearer " + KEY:
                raise Refusal("unauthorized", 401)
            self.route(h, path, args, body)
        except Refusal as r:
            if r.body is not None:
                self.answer(h, r.status, r.body, "text/html")
            elif path == "/graphql":
                self.answer(h, r.status, {"errors": [{"message": r.message}], "data": None})
            else:
                self.answer(h, r.status, {"error": "refused", "message": r.message})
        except gqlcheck.Invalid as e:
            self.answer(h, 400, {"errors": [{"message": f"GRAPHQL_VALIDATION_FAILED: {e}"}]})

    def route(self, h, path, args, body):
        if path == "/graphql":
            q = json.loads(body)
            roots = self.schema.check(q["query"], q.get("variables"))
            data = {root: getattr(self, "gql_" + root)(q.get("variables") or {}) for root in roots}
            return self.answer(h, 200, {"data": data})
        if path == "/v1/images" and h.command == "GET":
            return self.answer(h, 200, self.images)
        if path == "/v1/images" and h.command == "DELETE":
            return self.remove_image(h, args["reference"][0])
        if path == "/v1/images/pull":
            return self.pull(h, json.loads(body))
        if path == "/v1/images/import":
            self.uploads.append(body)
            return self.chunked(h, [
                b'{"phase":"unpacking","doneBytes":1,"totalBytes":2}\n',
                json.dumps({"reference": args["name"][0], "digest": "sha256:" + "cd" * 32,
                            "sizeBytes": len(body)}).encode() + b"\n"], "application/x-ndjson")
        if path.startswith("/v1/clusters/") and path.endswith("/logs"):
            return self.logs(h, args)
        if path.startswith("/v1/clusters/") and path.endswith("/exec"):
            return self.exec(h, args)
        raise Refusal(f"there is no {path}", 404)

    # --- GraphQL

    def find(self, variables):
        id_ = variables.get("id") or variables["input"]["clusterId"]
        for c in self.clusters:
            if c["id"] == id_:
                return c
        return None

    def must(self, variables, message="cluster not found"):
        c = self.find(variables)
        if not c:
            raise Refusal(message)
        return c

    def gql_cluster(self, v):
        c = self.find(v)
        if c and self.phases:
            step = self.phases.pop(0)
            c.update(step)
        return c

    def gql_myself(self, v):
        return {"clusters": self.clusters}

    def gql_clusterFindAndDeployOnDemand(self, v):
        i = v["input"]
        if i.get("gpuCount", 1) > 0 and i.get("gpuTypeId") not in self.gpus_with_room:
            raise Refusal("There are no longer any instances available with the requested "
                          f"specifications: no free {i.get('gpuTypeId')}")
        c = cluster("new%011d" % len(self.clusters), i.get("name", ""), gpuCount=i.get("gpuCount"))
        if self.phases:
            c.update(runtime=None, phase="accepted")
        self.clusters.append(c)
        return c

    def gql_clusterResume(self, v):
        return self.must(v)

    gql_clusterBidResume = gql_clusterRestart = gql_clusterResume

    def gql_clusterStop(self, v):
        c = self.must(v)
        c.update(desiredStatus="EXITED", phase="exited", runtime=None)
        return c

    def gql_clusterUpdate(self, v):
        c = self.must(v)
        for name, value in v["input"].items():
            if name not in ("clusterId", "generation"):
                c[name] = value
        c.update(version=c.get("version", 1) + 1, updating=True, updateRefused=None)
        answer = dict(c)
        c.update(updating=False, updateRefused=self.refuse_update)
        return answer

    def gql_clusterTerminate(self, v):
        self.clusters.remove(self.must(v, "cluster not found to terminate"))

    def gql_clusterTemplates(self, v):
        return self.templates

    def gql_saveTemplate(self, v):
        t = dict(v["input"], id="tpl%d" % (len(self.templates) + 1))
        self.templates.append(t)
        return t

    def gql_deleteTemplate(self, v):
        self.templates = [t for t in self.templates if t["name"] != v["name"]]

    def gql_gpuTypes(self, v):
        return [{"lowestPrice": {"gpuName": "A100", "gpuTypeId": "NVIDIA A100",
                                 "minimumBidPrice": 0, "uninterruptablePrice": 1.5,
                                 "minMemory": 32, "minVcpu": 8}},
                {"lowestPrice": {"gpuName": "H100", "gpuTypeId": "NVIDIA H100",
                                 "minimumBidPrice": None, "uninterruptablePrice": None,
                                 "minMemory": None, "minVcpu": None}}]

    # --- images, logs

    def remove_image(self, h, reference):
        if not any(i["reference"] == reference for i in self.images):
            raise Refusal(f'there is no image "{reference}"', 404)
        self.images = [i for i in self.images if i["reference"] != reference]
        h.send_response(204)
        h.end_headers()

    def pull(self, h, body):
        def pieces():
            for i in range(self.pull_steps):
                if i > 0:
                    time.sleep(self.pull_delay)
                # lines cut anywhere: a client must not rely on one line a piece
                line = json.dumps({"phase": "downloading", "doneBytes": (i + 1) * 10 ** 7,
                                   "totalBytes": self.pull_steps * 10 ** 7,
                                   "bytesPerSecond": 5 * 10 ** 6}).encode() + b"\n"
                yield line[:7]
                yield line[7:]
            if self.pull_error:
                yield json.dumps({"error": self.pull_error}).encode() + b"\n"
            else:
                yield json.dumps({"reference": body["reference"], "digest": "sha256:" + "ef" * 32,
                                  "sizeBytes": 77300000}).encode() + b"\n"
        self.chunked(h, pieces(), "application/x-ndjson")

    def logs(self, h, args):
        lines = self.log_text.splitlines(True)
        if "tail" in args:
            n = int(args["tail"][0])
            lines = lines[len(lines) - n:] if n else []

        def pieces():
            yield b"".join(lines)
            if "follow" in args:
                for p in self.log_more:
                    time.sleep(0.05)
                    yield p
        self.chunked(h, pieces(), "text/plain")

    # --- exec

    def exec(self, h, args):
        if self.exec_mode == "refuse":
            raise Refusal("the cluster is not running", 409)
        accept = base64.b64encode(hashlib.sha1(
            (h.headers["Sec-WebSocket-Key"] + GUID).encode()).digest()).decode()
        h.wfile.write(("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                       "Connection: Upgrade\r\nSec-WebSocket-Accept: " + accept +
                       "\r\nSec-WebSocket-Protocol: tensorone.exec.v1\r\n\r\n").encode())
        h.close_connection = True
        Exec(self, h.connection, h.rfile, args).run()


class Exec:
    """One session.  Threads: this one reads the client, one per stream reads the command."""

    def __init__(self, api, sock, rfile, args):
        self.api, self.sock, self.rfile, self.args = api, sock, rfile, args
        self.lock = threading.Lock()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, data, opcode=2):
        n = len(data)
        head = bytes([0x80 | opcode])
        if n < 126:
            head += bytes([n])
        elif n < 65536:
            head += bytes([126]) + struct.pack(">H", n)
        else:
            head += bytes([127]) + struct.pack(">Q", n)
        with self.lock:
            try:
                self.sock.sendall(head + data)
            except OSError:
                pass

    def recv(self):
        """(opcode, payload), or None at the end of the stream."""
        head = self.rfile.read(2)
        if len(head) < 2:
            return None
        n = head[1] & 127
        assert head[1] & 128, "a client masks its frames"
        if n == 126:
            n = struct.unpack(">H", self.rfile.read(2))[0]
        elif n == 127:
            n = struct.unpack(">Q", self.rfile.read(8))[0]
        mask = self.rfile.read(4)
        data = self.rfile.read(n)
        key = int.from_bytes(mask * (n // 4 + 1), "big") >> (8 * ((4 - n % 4) if n % 4 else 4))
        data = (int.from_bytes(data, "big") ^ key).to_bytes(n, "big") if n else b""
        return head[0] & 15, data

    def run(self):
        if self.api.exec_mode == "error":
            self.send(b"\x06the command cannot be started: no such file")
            self.send(struct.pack(">H", 1011), 8)
            return self.hang_up()
        if self.api.exec_mode == "drop":
            self.send(b"\x01half an ans")
            return self.hang_up()
        tty = "tty" in self.args
        env = dict(os.environ)
        for pair in self.args.get("env", []):
            k, _, v = pair.partition("=")
            env[k] = v
        master = None
        if tty:
            master, slave = pty.openpty()
            size = [int(self.args.get(k, ["0"])[0]) for k in ("rows", "cols")]
            fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
            self.child = subprocess.Popen(self.args["cmd"], stdin=slave, stdout=slave, stderr=slave,
                                          env=env, cwd=self.args.get("cwd", [None])[0],
                                          start_new_session=True,
                                          preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
            os.close(slave)
            self.stdin = master
            outs = [(master, b"\x01")]
        else:
            self.child = subprocess.Popen(self.args["cmd"], stdin=subprocess.PIPE,
                                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env,
                                          cwd=self.args.get("cwd", [None])[0],
                                          start_new_session=True)
            self.stdin = self.child.stdin.fileno()
            outs = [(self.child.stdout.fileno(), b"\x01"), (self.child.stderr.fileno(), b"\x02")]
        self.api.exec_children.append(self.child)
        reader = threading.Thread(target=self.client_loop, args=(master,), daemon=True)
        reader.start()
        pumps = [threading.Thread(target=self.pump, args=o, daemon=True) for o in outs]
        for p in pumps:
            p.start()
        for p in pumps:
            p.join()
        code = self.child.wait()
        end = {"code": code if code >= 0 else 0, "signal": -code if code < 0 else 0}
        self.send(b"\x05" + json.dumps(end).encode())
        self.send(struct.pack(">H", 1000), 8)
        self.sock.shutdown(socket.SHUT_WR)
        reader.join(10)
        return None

    def hang_up(self):
        """Closing with bytes of the client unread would reset the connection, and what was sent last
        could be lost on the client's side."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)
            self.sock.settimeout(10)
            while self.sock.recv(4096):
                pass

    def pump(self, fd, channel):
        while True:
            try:
                data = os.read(fd, 65536)
            except OSError:  # a pty whose other side is gone
                return
            if not data:
                return
            self.send(channel + data)

    def client_loop(self, master):
        while True:
            try:
                got = self.recv()
            except OSError:
                got = None
            if got is None or got[0] == 8:
                return
            opcode, data = got
            if opcode == 9:
                self.send(data, 10)
            if opcode != 2 or not data:
                continue
            channel, data = data[0], data[1:]
            if channel == 0:
                while data:
                    try:
                        data = data[os.write(self.stdin, data):]
                    except OSError:
                        data = b""
            elif channel == 3:
                size = struct.unpack(">HH", data)
                self.api.exec_sizes.append(size)
                if master is not None:
                    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
            elif channel == 4 and master is None:
                self.child.stdin.close()
            elif channel == 7:
                os.killpg(self.child.pid, data[0])
