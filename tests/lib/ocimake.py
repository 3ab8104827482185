"""Makes images for tests: layers from descriptions, OCI layouts, docker-archives, and a registry that
misbehaves on demand.

    layer = Layer().dir("etc").file("etc/x", b"1", mode=0o640, uid=5).whiteout("old").tar()
    image = Image([layer], cmd=["sh"])            # compress: "gzip", "zstd", "none", by layer
    image.write_layout(path)
    with Registry() as reg: reg.add("a/b", "v1", image); reg.fault(r"/blobs/", Truncate(1000))
"""
import base64
import gzip
import hashlib
import http.server
import io
import json
import os
import platform
import re
import subprocess
import tarfile
import threading
import time
import urllib.parse

ARCH = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
MTIME = 1700000000.25  # exact in binary
OCI = "application/vnd.oci.image."


def sha256(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Layer:
    """A tar, entry by entry, in the order of the calls.  Paths are taken as they are."""

    def __init__(self, form=tarfile.PAX_FORMAT):
        self.out = io.BytesIO()
        self.t = tarfile.open(fileobj=self.out, mode="w", format=form)

    def entry(self, path, kind, data=b"", mode=0o644, uid=0, gid=0, mtime=MTIME, link="", xattrs=None,
              dev=(0, 0)):
        info = tarfile.TarInfo(path)
        info.type, info.mode, info.uid, info.gid, info.size = kind, mode, uid, gid, len(data)
        info.linkname = link
        info.devmajor, info.devminor = dev
        info.mtime = mtime if self.t.format == tarfile.PAX_FORMAT else int(mtime)
        if self.t.format == tarfile.PAX_FORMAT:
            info.pax_headers = {"mtime": f"{mtime:.9f}"} if mtime != int(mtime) else {}
            for name, value in (xattrs or {}).items():
                info.pax_headers["SCHILY.xattr." + name] = value.decode("utf-8", "surrogateescape")
            info.mtime = int(mtime)
        self.t.addfile(info, io.BytesIO(data) if data else None)
        return self

    def file(self, path, data=b"", **kw):
        return self.entry(path, tarfile.REGTYPE, data, **kw)

    def dir(self, path, mode=0o755, **kw):
        return self.entry(path, tarfile.DIRTYPE, mode=mode, **kw)

    def symlink(self, path, target, **kw):
        return self.entry(path, tarfile.SYMTYPE, link=target, mode=0o777, **kw)

    def busybox(self, *applets):
        """This machine's static busybox, and links by these names."""
        self.dir("bin")
        with open("/bin/busybox", "rb") as f:
            self.file("bin/busybox", f.read(), mode=0o755)
        for name in applets:
            self.symlink("bin/" + name, "busybox")
        return self

    def hardlink(self, path, target, **kw):
        return self.entry(path, tarfile.LNKTYPE, link=target, **kw)

    def fifo(self, path, **kw):
        return self.entry(path, tarfile.FIFOTYPE, **kw)

    def device(self, path, major, minor, block=False, **kw):
        return self.entry(path, tarfile.BLKTYPE if block else tarfile.CHRTYPE, dev=(major, minor), **kw)

    def whiteout(self, path):
        head, tail = os.path.split(path)
        return self.file(os.path.join(head, ".wh." + tail))

    def opaque(self, path):
        return self.file(os.path.join(path, ".wh..wh..opq"))

    def tar(self):
        self.t.close()
        return self.out.getvalue()


def compress(data, how):
    if how == "gzip":
        return gzip.compress(data, 6, mtime=0)
    if how == "zstd":
        return subprocess.run(["zstd", "-q", "-c"], input=data, stdout=subprocess.PIPE, check=True).stdout
    if how == "zstd-long":  # as large a window as is unpacked
        return subprocess.run(["zstd", "-q", "-c", "--long=27"], input=data, stdout=subprocess.PIPE,
                              check=True).stdout
    return data


SUFFIX = {"gzip": "+gzip", "zstd": "+zstd", "zstd-long": "+zstd", "none": ""}


class Image:
    def __init__(self, tars, compress_as="gzip", arch=ARCH, os_="linux", config=None, diff_ids=None,
                 media=None):
        kinds = compress_as if isinstance(compress_as, list) else [compress_as] * len(tars)
        self.blobs = {}
        self.layers = []
        for tar, kind in zip(tars, kinds):
            blob = compress(tar, kind)
            self.layers.append(self.add(blob, media or OCI + "layer.v1.tar" + SUFFIX[kind]))
        self.config = {"architecture": arch, "os": os_, "config": config or {"Cmd": ["/bin/sh"]},
                       "rootfs": {"type": "layers", "diff_ids": diff_ids or [sha256(t) for t in tars]}}
        self.arch, self.os = arch, os_
        self.finish()

    def add(self, data, media):
        digest = sha256(data)
        self.blobs[digest] = data
        return {"mediaType": media, "digest": digest, "size": len(data)}

    def finish(self):
        config = self.add(json.dumps(self.config).encode(), OCI + "config.v1+json")
        self.manifest = self.add(json.dumps({"schemaVersion": 2, "mediaType": OCI + "manifest.v1+json",
                                             "config": config, "layers": self.layers}).encode(),
                                 OCI + "manifest.v1+json")
        self.digest = self.manifest["digest"]

    def entry(self, **more):
        return dict(self.manifest, platform={"architecture": self.arch, "os": self.os}, **more)

    def write_layout(self, path):
        os.makedirs(os.path.join(path, "blobs/sha256"), exist_ok=True)
        for digest, data in self.blobs.items():
            with open(os.path.join(path, "blobs/sha256", digest[7:]), "wb") as f:
                f.write(data)
        with open(os.path.join(path, "oci-layout"), "w") as f:
            f.write('{"imageLayoutVersion":"1.0.0"}')
        with open(os.path.join(path, "index.json"), "w") as f:
            entry = dict(self.manifest, annotations={"org.opencontainers.image.ref.name": "latest"})
            json.dump({"schemaVersion": 2, "manifests": [entry]}, f)
        return path


class Index:
    """A multi-architecture image."""

    def __init__(self, images):
        self.blobs = {}
        for image in images:
            self.blobs.update(image.blobs)
        data = json.dumps({"schemaVersion": 2, "mediaType": OCI + "index.v1+json",
                           "manifests": [i.entry() for i in images]}).encode()
        self.digest = sha256(data)
        self.blobs[self.digest] = data
        self.manifest = {"mediaType": OCI + "index.v1+json"}


# --- faults: called as fault(handler, data) in place of the plain answer; `times` then they stop ---

class Fault:
    def __init__(self, times=10 ** 9):
        self.left = times


class Status(Fault):
    def __init__(self, status, times=10 ** 9, headers=None, body=b""):
        super().__init__(times)
        self.status, self.headers, self.body = status, headers or {}, body

    def __call__(self, h, data):
        h.send_response(self.status)
        for k, v in self.headers.items():
            h.send_header(k, v)
        h.send_header("Content-Length", str(len(self.body)))
        h.end_headers()
        h.wfile.write(self.body)


class Redirect(Status):
    def __init__(self, to, status=307, times=10 ** 9):
        super().__init__(status, times)
        self.to = to

    def __call__(self, h, data):
        self.headers = {"Location": self.to.replace("{path}", h.path)}
        super().__call__(h, data)


class Truncate(Fault):
    """The whole length is promised, `at` bytes come, the connection ends."""

    def __init__(self, at, times=10 ** 9):
        super().__init__(times)
        self.at = at

    def __call__(self, h, data):
        h.send_body(data, cut=self.at)


class Hang(Fault):
    """`at` bytes come, then nothing for `seconds`."""

    def __init__(self, at=0, seconds=60, times=10 ** 9):
        super().__init__(times)
        self.at, self.seconds = at, seconds

    def __call__(self, h, data):
        h.send_body(data, cut=self.at, wait=self.seconds)


class Replace(Fault):
    """Other bytes than those that were asked for."""

    def __init__(self, data, times=10 ** 9):
        super().__init__(times)
        self.data = data

    def __call__(self, h, data):
        h.send_body(self.data)


class Slow(Fault):
    def __init__(self, seconds, times=10 ** 9):
        super().__init__(times)
        self.seconds = seconds

    def __call__(self, h, data):
        time.sleep(self.seconds)
        h.send_body(data)


class Throttle(Fault):
    """The body; all bodies that come through it together have @rate bytes a second."""

    def __init__(self, rate, times=10 ** 9):
        super().__init__(times)
        self.rate, self.lock, self.due = rate, threading.Lock(), 0.0

    def __call__(self, h, data):
        h.send_response(200)
        h.send_header("Content-Length", str(len(data)))
        h.end_headers()
        step = self.rate // 20
        for at in range(0, len(data), step):
            with self.lock:
                now = time.monotonic()
                self.due = max(self.due, now) + len(data[at:at + step]) / self.rate
                rest = self.due - now
            h.server.reg.stop.wait(rest)
            h.wfile.write(data[at:at + step])


class Gate(Fault):
    """@at bytes of the body at once, then drops, so that who counts is not left with an old number; all of the rest when
    `open` is set (or the registry ends)."""

    def __init__(self, at, times=10 ** 9):
        super().__init__(times)
        self.at, self.open = at, threading.Event()

    def __call__(self, h, data):
        h.send_response(200)
        h.send_header("Content-Length", str(len(data)))
        h.end_headers()
        at = self.at
        h.wfile.write(data[:at])
        while not self.open.wait(0.1) and not h.server.reg.stop.is_set():
            h.wfile.write(data[at:at + 256])
            at += 256
        h.wfile.write(data[at:])


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def send_body(self, data, cut=None, wait=0, media=None):
        reg, start = self.server.reg, 0
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if match and reg.ranges:
            start = int(match[1])
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        else:
            self.send_response(200)
        rest = data[start:]
        self.send_header("Content-Length", str(len(rest)))
        if media:
            self.send_header("Content-Type", media)
        self.end_headers()
        part = rest if cut is None else rest[:cut]
        self.wfile.write(part)
        if cut is not None:
            self.wfile.flush()
            reg.stop.wait(wait)
            self.close_connection = True

    def do_GET(self):
        reg = self.server.reg
        with reg.lock:
            reg.requests.append((self.path, dict(self.headers)))
            reg.now += 1
            reg.most = max(reg.most, reg.now)
        try:
            self.answer(reg)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            with reg.lock:
                reg.now -= 1

    def answer(self, reg):
        url = urllib.parse.urlsplit(self.path)
        if url.path == "/token":
            return self.token(reg, url)
        data, media = reg.lookup(url.path)
        for pattern, fault in reg.faults:
            if fault.left > 0 and re.search(pattern, self.path):
                fault.left -= 1
                return fault(self, data or b"")
        if reg.auth and not reg.auth_ok(self.headers.get("Authorization", "")):
            return Status(401, headers={"WWW-Authenticate": reg.challenge(url.path)})(self, b"")
        if data is None:
            body = b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}'
            return Status(404, body=body)(self, b"")
        self.send_body(data, media=media)

    def token(self, reg, url):
        query = urllib.parse.parse_qs(url.query)
        if reg.user and self.headers.get("Authorization") not in reg.basic():
            return Status(401)(self, b"")
        reg.tokens.append(query)
        self.send_body(json.dumps({"token": reg.token, "expires_in": 60}).encode())


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        pass  # clients of ours are killed on purpose


class Registry:
    """The read side of the OCI distribution protocol, on loopback."""

    def __init__(self, address="127.0.0.1"):
        self.server = Server((address, 0), Handler)
        self.server.reg = self
        self.host = f"{address}:{self.server.server_address[1]}"
        self.repos, self.faults, self.requests, self.tokens = {}, [], [], []
        self.auth = self.user = self.realm = None
        self.others = {}  # more users, and their passwords
        self.token, self.ranges = "tok-1", True
        self.now = self.most = 0
        self.lock, self.stop = threading.Lock(), threading.Event()

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *exc):
        self.stop.set()
        self.server.shutdown()
        self.server.server_close()

    def add(self, repo, tag, image):
        entry = self.repos.setdefault(repo, {"blobs": {}, "tags": {}})
        entry["blobs"].update(image.blobs)
        entry["tags"][tag] = image.digest
        return f"{self.host}/{repo}:{tag}"

    def lookup(self, path):
        match = re.fullmatch(r"/v2/(.+)/(manifests|blobs)/([^/]+)", path)
        repo = self.repos.get(match[1]) if match else None
        if not repo:
            return None, None
        data = repo["blobs"].get(repo["tags"].get(match[3], match[3]))
        media = None
        if data is not None and match[2] == "manifests":
            media = json.loads(data).get("mediaType")
        return data, media

    def fault(self, pattern, fault):
        self.faults.append((pattern, fault))
        return fault

    def need_basic(self, user, password):
        self.auth, self.user = "basic", (user.encode(), password.encode())

    def need_token(self, realm=None, user=None, password=None):
        self.auth, self.realm = "bearer", realm or f"http://{self.host}/token"
        if user:
            self.user = (user.encode(), password.encode())

    def basic(self):
        pairs = [self.user] + [(u.encode(), p.encode()) for u, p in self.others.items()]
        return ["Basic " + base64.b64encode(b":".join(p)).decode() for p in pairs]

    def auth_ok(self, value):
        if self.auth == "basic":
            return value in self.basic()
        return value == "Bearer " + self.token

    def challenge(self, path):
        if self.auth == "basic":
            return 'Basic realm="test"'
        repo = path.split("/v2/")[1].rsplit("/", 2)[0]
        return f'Bearer realm="{self.realm}",service="test",scope="repository:{repo}:pull"'


def docker_archive(image, tars, tags=("x/y:latest",), links=False):
    """`docker save` of an image, plain layers."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as t:
        def put(name, data):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            t.addfile(info, io.BytesIO(data))
        config = json.dumps(image.config).encode()
        name = hashlib.sha256(config).hexdigest() + ".json"
        put(name, config)
        names = []
        for i, tar in enumerate(tars):
            put(f"l{i}/layer.tar", tar)
            names.append(f"l{i}/layer.tar")
        if links:
            for i in range(len(tars)):
                info = tarfile.TarInfo(f"k{i}/layer.tar")
                info.type, info.linkname = tarfile.SYMTYPE, f"../l{i}/layer.tar"
                t.addfile(info)
            names = [f"k{i}/layer.tar" for i in range(len(tars))]
        put("manifest.json", json.dumps([{"Config": name, "RepoTags": list(tags), "Layers": names}]).encode())
    return out.getvalue()
