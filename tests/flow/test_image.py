"""Images on the real kernel (root): engine/image and vmm-fetch through the driver imagectl.

Pulled from a real docker-registry (pushed by skopeo) and from a registry of ours that misbehaves;
what comes out is held, file by file, against `umoci unpack`."""
import base64
import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import sqlite3
import stat
import struct
import subprocess
import tarfile
import tempfile
import time

import pytest

from ocimake import (ARCH, Fault, Hang, Image, Index, Layer, Redirect, Registry, Replace, Slow, Status,
                     Truncate, docker_archive, sha256)
from programs import build_dir, program

IMAGECTL = os.path.join(build_dir(), "tests/flow/image/imagectl")
SANITIZED = "asan" in build_dir()  # then vmm-fetch goes without its filter
ID_BASE = 0x5abc0000
CAP_NET_BIND = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)  # cap_net_bind_service=ep


class Store:
    """One image store below a temporary directory, as an engine would have it."""

    def __init__(self, path):
        self.dir = pathlib.Path(path)
        self.images = self.dir / "images"
        self.registries, self.options = [], []
        self.libexec = os.path.dirname(program("vmm-fetch"))

    def argv(self, *args):
        registries = [x for r in self.registries for x in ("--registry", r)]
        return [IMAGECTL, str(self.dir), self.libexec, *registries, *self.options, *map(str, args)]

    def run(self, *args, ok=True, stdin=None, **kw):
        p = subprocess.run(self.argv(*args), input=stdin, capture_output=True, timeout=500, **kw)
        err = p.stderr.decode(errors="replace")
        assert "Sanitizer" not in err and "runtime error:" not in err, err
        if ok:
            assert p.returncode == 0, err
        else:
            assert p.returncode == 1, f"exit {p.returncode}: {err}{p.stdout.decode()}"
        self.progress = [l for l in err.splitlines() if not l.startswith("error")]
        return p.stdout.decode() if ok else [l for l in err.splitlines() if l.startswith("error")][-1]

    def pull(self, ref, *args, **kw):
        return self.run("pull", ref, *args, **kw)

    def fails(self, *args, **kw):
        """The message; and nothing is left."""
        text = self.run(*args, ok=False, **kw)
        self.nothing_staged()
        return text

    def find(self, ref, account="acc"):
        return json.loads(self.run("find", account, ref))

    def list(self, account="acc", *admin):
        return [json.loads(l) for l in self.run("list", account, *admin).splitlines()]

    def layers(self):
        return sorted(p.name for p in (self.images / "layers").iterdir())

    def nothing_staged(self):
        assert list((self.images / "staging").iterdir()) == []

    def objects(self):
        return sorted(p.parent.name + p.name for p in (self.images / "objects").glob("*/*"))

    def nothing_kept(self):
        for name in ("layers", "metas", "objects"):
            assert list((self.images / name).iterdir()) == [], name

    @contextlib.contextmanager
    def merged(self, ref, account="acc", id_base=0):
        """The image as a cluster would see it: metadata, and objects as a data-only layer."""
        meta, data, empty, target = (self.dir / n for n in ("meta", "data", "empty", "merged"))
        for d in (meta, data, empty, target):
            d.mkdir(exist_ok=True)
        mounted = []
        try:
            self.run("mount", account, ref, meta, id_base)
            mounted.append(meta)
            lower = f"{meta}:{empty}"  # an overlay wants two lower layers when there is no upper one
            if self.find(ref, account)["objects"]:
                self.run("mount", account, ref, data, id_base, "objects")
                mounted.append(data)
                lower += f"::{data}"
            subprocess.run(["mount", "-t", "overlay", "overlay", "-o",
                            f"ro,metacopy=on,redirect_dir=on,lowerdir={lower}", target], check=True)
            mounted.append(target)
            yield target
        finally:
            for d in reversed(mounted):
                subprocess.run(["umount", d], check=True)


@pytest.fixture
def store(tmp_path):
    s = Store(tmp_path / "data")
    yield s
    for name in ("merged", "data", "meta"):
        if os.path.ismount(s.dir / name):
            subprocess.run(["umount", s.dir / name], check=False)
    s.run("recover")
    assert not (s.dir / "fetch-ids").exists(), "the lock file of id ranges stayed"


@pytest.fixture
def fake(store):
    with Registry() as reg:
        store.registries.append(reg.host + ",insecure")
        yield reg


def tree_of(root, skip_times=()):
    """Everything that can be seen of a tree, by path."""
    out, inodes = {}, {}
    for d, dirs, files in os.walk(root):
        for name in dirs + files:
            path = os.path.join(d, name)
            rel, st = os.path.relpath(path, root), os.lstat(path)
            content = None
            if stat.S_ISREG(st.st_mode):
                with open(path, "rb") as f:
                    content = hashlib.sha256(f.read()).hexdigest()
            elif stat.S_ISLNK(st.st_mode):
                content = os.readlink(path)
            xattrs = {k: os.getxattr(path, k, follow_symlinks=False)
                      for k in os.listxattr(path, follow_symlinks=False)}
            if not stat.S_ISDIR(st.st_mode) and st.st_nlink > 1:
                inodes.setdefault(st.st_ino, []).append(rel)
            out[rel] = (oct(st.st_mode), st.st_uid, st.st_gid, st.st_size if content else 0,
                        st.st_mtime_ns if rel not in skip_times else 0, xattrs, content)
    return out, sorted(sorted(names) for names in inodes.values())


def assert_same_trees(ours, theirs, skip_times=()):
    a, links_a = tree_of(ours, skip_times)
    b, links_b = tree_of(theirs, skip_times)
    differ = {k: (a.get(k), b.get(k)) for k in a.keys() | b.keys() if a.get(k) != b.get(k)}
    assert not differ, json.dumps({k: str(v) for k, v in list(differ.items())[:8]}, indent=1)
    assert links_a == links_b


def umoci(layout, tmp_path, tag="latest"):
    bundle = tmp_path / "umoci"
    shutil.rmtree(bundle, ignore_errors=True)
    subprocess.run(["umoci", "unpack", "--image", f"{layout}:{tag}", bundle], check=True, capture_output=True)
    return bundle / "rootfs"


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    """A real docker-registry; .push(layout, name, *skopeo options)."""
    with docker_registry(tmp_path_factory.mktemp("registry")) as reg:
        yield reg


class DockerRegistry:
    def __init__(self, host):
        self.host, self.creds = host, []

    def push(self, layout, name, *options):
        subprocess.run(["skopeo", "copy", "-q", *self.creds, "--dest-tls-verify=false", *options,
                        f"oci:{layout}:latest", f"docker://{self.host}/{name}"], check=True, capture_output=True)
        return f"{self.host}/{name}"


@contextlib.contextmanager
def docker_registry(path, extra=""):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    conf = path / "conf.yml"
    conf.write_text(f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {path}/d}}}}\n"
                    f"http: {{addr: '127.0.0.1:{port}'}}\n{extra}")
    with open(path / "log", "wb") as log:
        proc = subprocess.Popen(["docker-registry", "serve", str(conf)], stdout=log, stderr=log)
    try:
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert proc.poll() is None, (path / "log").read_text()
            time.sleep(0.05)
        yield DockerRegistry(f"127.0.0.1:{port}")
    finally:
        proc.terminate()
        proc.wait(10)


# --- what a layer can hold ---------------------------------------------------------------------

LONG = "long/" + "d" * 120 + "/" + "e" * 200 + "/" + "f" * 250


def rich_layers():
    base = (Layer().dir("./").dir("etc").file("etc/passwd", b"root:x:0:0::/:/bin/sh\n", mode=0o644)
            .file("etc/shadow", b"s\n", mode=0o640, gid=42).dir("tmp", mode=0o1777)
            .dir("bin").file("bin/su", b"#!su", mode=0o4755).file("bin/wall", b"#!wall", mode=0o2755, gid=5)
            .hardlink("bin/su2", "bin/su").symlink("bin/sh", "su").symlink("abs", "/etc/passwd")
            .symlink("dangling", "../../nowhere").file("owned", b"x" * 70000, uid=1000, gid=65535)
            .file("bin/ping", b"ping", mode=0o755, xattrs={"security.capability": CAP_NET_BIND})
            .file("attr", b"a", xattrs={"user.note": b"hello", "user.bin": b"\x01\x02"})
            .dir("attrdir", xattrs={"user.d": b"1"}).fifo("fifo", mode=0o622, uid=7)
            .dir("gone").file("gone/a", b"1").file("gone/b", b"2").file("gonefile", b"3")
            .dir("opaque", mode=0o700).file("opaque/old", b"4").dir("opaque/olddir")
            .dir("remade").file("remade/old", b"5").dir("turned").file("turned/x", b"6").file("turnedfile", b"7")
            .dir("readonly", mode=0o555).file("readonly/inside", b"8", mode=0o400).dir("closed", mode=0)
            .file("closed/inside", b"9").file(LONG, b"long").symlink("longlink", "t" * 300)
            .file("unicode-\u00fc\u4e2d", b"u").file("empty").file("old-time", b"o", mtime=1.0))
    top = (Layer().whiteout("gone").whiteout("gonefile").dir("opaque", mode=0o711, uid=3).opaque("opaque")
           .file("opaque/new", b"10").whiteout("remade").dir("remade").file("remade/new", b"11")
           .file("turned", b"now a file").dir("turnedfile").file("turnedfile/x", b"now a directory")
           .whiteout("etc/shadow").file("etc/passwd", b"changed\n", mode=0o600)
           .hardlink("etc/passwd2", "etc/passwd").file("tmp/added", b"12"))
    return [base.tar(), top.tar()]


# directories whose time is set by something later than the entry that describes them
SKIP = ("long", LONG.rsplit("/", 1)[0], LONG.rsplit("/", 2)[0], "tmp", "etc", "remade", "turnedfile")


@pytest.mark.parametrize("how, options", [
    ("gzip", []), ("zstd", []), ("none", []), ("gzip", ["--threshold", "1"]), ("gzip", ["--threshold", "0"]),
    ("gzip", ["--threshold", "5", "--mount", "loop"])], ids=["gzip", "zstd", "none", "objects", "packs", "loop"])
def test_tree_is_what_umoci_makes(store, fake, tmp_path, how, options):
    store.options = options
    image = Image(rich_layers(), compress_as=how)
    ref = fake.add("rich/tree", "v1", image)
    plain = Image(rich_layers(), compress_as="gzip")
    rootfs = umoci(plain.write_layout(str(tmp_path / "layout")), tmp_path)
    store.pull(ref)
    store.nothing_staged()
    with store.merged(ref) as merged:
        assert_same_trees(merged, rootfs, SKIP)
    check_files(store)
    assert bool(store.objects()) == (len(options) > 0 and options[1] != "0")


def test_docker_registry_and_starter(store, registry, tmp_path):
    """The starter image of `make images` through skopeo, docker-registry and back."""
    layout = os.path.join(build_dir(), "images/starter")
    assert os.path.isdir(layout), "run `make images` first"
    store.registries.append(registry.host + ",insecure")
    for i, options in enumerate(([], ["--format", "v2s2"], ["--dest-compress-format", "zstd"])):
        ref = registry.push(layout, f"tensorone/starter:v{i}", *options)
        store.pull(ref)
        with store.merged(ref) as merged:
            assert_same_trees(merged, umoci(layout, tmp_path))
    found = store.find(ref)
    assert found["command"][0] == "httpd" and found["working_dir"] == "/root"
    assert any(e.startswith("PATH=") for e in found["env"])
    assert len(store.layers()) == 1, "the layer is known by its diff id, however it was compressed"


def test_basic_auth(store, tmp_path):
    line = subprocess.run(["htpasswd", "-Bbn", "ada", "s3cret"], capture_output=True, check=True).stdout
    (tmp_path / "htpasswd").write_bytes(line)
    extra = f"auth: {{htpasswd: {{realm: r, path: {tmp_path}/htpasswd}}}}\n"
    layout = Image([Layer().file("x", b"1").tar()]).write_layout(str(tmp_path / "layout"))
    with docker_registry(tmp_path, extra) as reg:
        reg.creds = ["--dest-creds", "ada:s3cret"]
        ref = reg.push(layout, "private/x:1")
        store.registries.append(reg.host + ",insecure")
        assert "denies access" in store.fails("pull", ref)
        assert "denies access" in store.fails("pull", ref, "ada", "wrong")
        store.pull(ref, "ada", "s3cret", "acc")
        assert store.find(ref, "acc")["account"] == "acc"
        assert "not on this host" in store.run("find", "other", ref, ok=False)
        store.registries[0] += ",user=ada,password=s3cret"   # the operator's own, for everybody
        store.pull(ref)
        assert store.find(ref, "other")["account"] is None


def test_multi_arch_index(store, fake):
    other = "arm64" if ARCH == "amd64" else "amd64"
    mine = Image([Layer().file("mine", b"1").tar()])
    theirs = Image([Layer().file("theirs", b"1").tar()], arch=other)
    ref = fake.add("a/multi", "v1", Index([theirs, mine]))
    store.pull(ref)
    assert store.find(ref)["digest"] == mine.digest
    with store.merged(ref) as m:
        assert (m / "mine").exists()
    only = fake.add("a/other", "v1", Index([theirs]))
    assert f"no linux/{ARCH} image in it, only linux/{other}" in store.fails("pull", only)
    single = fake.add("a/single", "v1", theirs)
    assert f"it is an image for {other}" in store.fails("pull", single)
    by_digest = f"{fake.host}/a/multi@{Index([theirs, mine]).digest}"
    store.pull(by_digest)
    assert store.find(by_digest)["digest"] == mine.digest


# --- authentication, redirects, addresses ------------------------------------------------------

def one_layer(reg, repo="a/b", tag="v1", **kw):
    image = Image([Layer().dir("d").file("d/f", os.urandom(300000)).tar()], **kw)
    return reg.add(repo, tag, image), image


def test_bearer_token(store, fake):
    ref, _ = one_layer(fake)
    fake.need_token(user="ada", password="s3cret")
    assert "denies access" in store.fails("pull", ref)
    store.pull(ref, "ada", "s3cret", "acc")
    assert fake.tokens[-1]["scope"] == ["repository:a/b:pull"] and fake.tokens[-1]["service"] == ["test"]
    assert len(fake.tokens) == 1, "the manifest's token serves the layers, too"


def test_anonymous_token_that_expires(store, fake):
    ref, _ = one_layer(fake)
    fake.need_token()
    real = fake.auth_ok
    seen = []

    def once_each(value):   # every token is good for one request
        if real(value):
            seen.append(value)
            fake.token = f"tok-{len(seen) + 1}"
            return True
        return False
    fake.auth_ok = once_each
    store.pull(ref)
    assert len(fake.tokens) == 3


def test_redirect_keeps_credentials_home(store, fake):
    ref, image = one_layer(fake)
    fake.need_basic("ada", "s3cret")
    with Registry() as cdn:
        cdn.add("a/b", "v1", image)
        fake.fault("/blobs/", Redirect(f"http://user:pw@{cdn.host}{{path}}"))
        text = store.fails("pull", ref, "ada", "s3cret", "acc")
        assert "plain HTTP" in text and not cdn.requests
        store.registries.append(cdn.host)          # listed, but not for plain HTTP
        assert "plain HTTP" in store.fails("pull", ref, "ada", "s3cret", "acc")
        store.registries[-1] = cdn.host + ",insecure"
        store.pull(ref, "ada", "s3cret", "acc")
        assert cdn.requests and all("Authorization" not in headers for _, headers in cdn.requests)
    assert any("Authorization" in headers for _, headers in fake.requests)


@pytest.mark.parametrize("to, why", [
    ("https://127.0.0.1:1/x", "loopback address 127.0.0.1"), ("https://10.1.2.3/x", "private address 10.1.2.3"),
    ("https://169.254.169.254/latest", "link-local address"), ("https://[::1]/x", "loopback address"),
    ("https://[::ffff:127.0.0.1]/x", "loopback address"), ("https://0.0.0.0/x", "unspecified address"),
    ("https://localhost/x", "loopback address"), ("https://2130706433/x", "loopback address"),
    ("file:///etc/passwd", "redirect"), ("ftp://example.com/x", "redirect"), ("gopher://127.0.0.1/x", "redirect"),
])
def test_redirects_do_not_reach_private_addresses(store, fake, to, why):
    ref, _ = one_layer(fake)
    fake.fault("/blobs/", Redirect(to))
    assert why in store.fails("pull", ref)


def test_token_realm_is_judged_too(store, fake):
    ref, _ = one_layer(fake)
    with Registry() as inside:
        fake.need_token(realm=f"http://{inside.host}/token")
        assert "plain HTTP" in store.fails("pull", ref)
        fake.need_token(realm=f"https://{inside.host}/token")
        assert "loopback address" in store.fails("pull", ref)
        assert not inside.requests


def test_unlisted_registries(store):
    with Registry() as reg:
        ref, _ = one_layer(reg)
        assert "loopback address 127.0.0.1" in store.fails("pull", ref)
        assert not reg.requests
    assert "loopback address" in store.fails("pull", "localhost:5000/x")
    assert "private address" in store.fails("pull", "10.0.0.1/x")


def test_redirect_loop(store, fake):
    ref, _ = one_layer(fake)
    fake.fault("/manifests/", Redirect(f"http://{fake.host}{{path}}"))
    assert "redirects more than 5 times" in store.fails("pull", ref)
    assert len(fake.requests) == 6


# --- names and TLS ------------------------------------------------------------------------------

# Runs in a network and mount namespace of its own: a name server on 127.0.0.1, a registry with TLS
# and one without, the host's certificate bundle and name server replaced.  Prints the outcomes.
INSIDE = r"""
import json, os, socket, ssl, struct, subprocess, sys, threading
tests, lib, tmp, argv = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:]
sys.path[:0] = [lib]
from ocimake import Image, Layer, Registry
subprocess.run(["mount", "--make-rprivate", "/"], check=True)
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
subprocess.run(["ip", "addr", "add", "8.8.9.9/32", "dev", "lo"], check=True)  # a public address
open(tmp + "/resolv.conf", "w").write("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
subprocess.run(["mount", "--bind", tmp + "/resolv.conf", os.path.realpath("/etc/resolv.conf")], check=True)
subprocess.run(["mount", "--bind", tmp + "/ca.pem", os.path.realpath("/etc/ssl/certs/ca-certificates.crt")], check=True)
ZONE = {"public.test": ["8.8.9.9"], "inner.test": ["127.0.0.1"], "both.test": ["10.9.9.9", "8.8.9.9"],
        "meta.test": ["169.254.169.254"]}
dns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
dns.bind(("127.0.0.1", 53))

def serve():
    while True:
        q, peer = dns.recvfrom(2000)
        labels, i = [], 12
        while q[i]:
            labels.append(q[i + 1:i + 1 + q[i]].decode()); i += 1 + q[i]
        kind = struct.unpack("!H", q[i + 1:i + 3])[0]
        found = ZONE.get(".".join(labels))
        answers = [socket.inet_aton(a) for a in found or []] if kind == 1 else []
        head = q[:2] + struct.pack("!HHHHH", 0x8180 if found else 0x8183, 1, len(answers), 0, 0)
        body = b"".join(b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 1, 4) + a for a in answers)
        dns.sendto(head + q[12:i + 5] + body, peer)
threading.Thread(target=serve, daemon=True).start()

def registry(address, tls):
    reg = Registry(address)
    if tls:
        ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ctx.load_cert_chain(tmp + "/cert.pem", tmp + "/key.pem")
        reg.server.socket = ctx.wrap_socket(reg.server.socket, server_side=True)
    reg.__enter__()
    reg.add("a/b", "v1", Image([Layer().file("f", os.urandom(3000000)).tar()]))
    return reg.host.split(":")[1]

out = {}
def pull(name, ref, *registries):
    options = [x for r in registries for x in ("--registry", r)]
    p = subprocess.run(argv[:3] + options + ["--deadline", "20", "pull", ref + "/a/b:v1"], capture_output=True)
    out[name] = p.stderr.decode().splitlines()[-1] if p.returncode else "ok"
tls, plain, inner = registry("8.8.9.9", True), registry("8.8.9.9", False), registry("127.0.0.1", True)
pull("tls", "public.test:" + tls)
pull("tls by other name", "both.test:" + tls)
pull("tls by address", "8.8.9.9:" + tls)
pull("plain not listed", "public.test:" + plain)
pull("plain", "public.test:" + plain, "public.test:" + plain + ",insecure")
pull("inner not listed", "inner.test:" + inner)
pull("inner listed, not in certificate", "inner.test:" + inner, "inner.test:" + inner)
pull("metadata", "meta.test:80")
pull("unknown name", "nowhere.test")
print(json.dumps(out))
"""


def test_names_and_certificates(store, tmp_path):
    pem = tmp_path / "tls"
    pem.mkdir()
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test",
                    "-addext", "subjectAltName=DNS:public.test,DNS:both.test", "-keyout", pem / "key.pem", "-out", pem / "cert.pem"],
                   check=True, capture_output=True)
    shutil.copy(pem / "cert.pem", pem / "ca.pem")
    here = pathlib.Path(__file__).parent
    p = subprocess.run(["unshare", "-mn", "/usr/bin/python3", "-c", INSIDE, here, here.parent / "lib", pem, *store.argv()],
                       capture_output=True)
    assert p.returncode == 0, p.stderr.decode()
    out = json.loads(p.stdout)
    assert out["tls"] == out["tls by other name"] == out["plain"] == "ok", out
    assert "certificate" in out["tls by address"] or "SSL" in out["tls by address"], out
    assert "SSL" in out["plain not listed"] or "wrong version" in out["plain not listed"], out
    assert "inner.test has the loopback address 127.0.0.1" in out["inner not listed"], out
    assert "SSL" in out["inner listed, not in certificate"] or "certificate" in out["inner listed, not in certificate"], out
    assert "link-local address 169.254.169.254" in out["metadata"], out
    assert "resolve host" in out["unknown name"], out
    store.nothing_staged()


# --- when things go wrong on the way -----------------------------------------------------------

def test_server_errors_pass(store, fake):
    ref, _ = one_layer(fake)
    fake.fault("/manifests/", Status(503, times=2))
    fake.fault("/blobs/", Status(500, times=3))
    store.pull(ref)


def test_server_errors_stay(store, fake):
    ref, _ = one_layer(fake)
    fake.fault("/manifests/", Status(500, body=b'{"errors":[{"message":"disk on fire"}]}'))
    assert "HTTP 500: disk on fire" in store.fails("pull", ref)


@pytest.mark.parametrize("ranges", [True, False])
def test_broken_connections_resume(store, fake, ranges):
    ref, image = one_layer(fake)
    fake.ranges = ranges
    cut = fake.fault(image.layers[0]["digest"], Truncate(100000, times=2))
    store.pull(ref)
    asked = [h.get("Range") for p, h in fake.requests if image.layers[0]["digest"] in p]
    assert cut.left == 0 and asked[0] is None and asked[1] == "bytes=100000-"
    with store.merged(ref) as m:
        assert (m / "d/f").stat().st_size == 300000


def test_truncated_for_ever(store, fake):
    ref, image = one_layer(fake)
    fake.ranges = False
    fake.fault(image.layers[0]["digest"], Truncate(1000))
    assert "layer 1 of 1" in store.fails("pull", ref)


@pytest.mark.parametrize("where", ["/manifests/", "/blobs/"])
def test_registry_that_hangs(store, fake, where):
    ref, _ = one_layer(fake)
    fake.fault(where, Hang(at=100 if where == "/blobs/" else 0))
    store.options = ["--deadline", "2"]
    began = time.monotonic()
    assert "in time" in store.fails("pull", ref)
    assert time.monotonic() - began < 6


class Drip(Fault):
    """The whole length is promised; a byte every `pause` seconds comes, for at most `seconds`."""

    def __init__(self, pause, seconds):
        super().__init__()
        self.pause, self.seconds = pause, seconds

    def __call__(self, h, data):
        match = re.fullmatch(r"bytes=(\d+)-", h.headers.get("Range", ""))
        start = int(match[1]) if match else 0
        h.send_response(206 if match else 200)
        if match:
            h.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        h.send_header("Content-Length", str(len(data) - start))
        h.end_headers()
        end = time.monotonic() + self.seconds
        for i in range(start, len(data)):
            h.wfile.write(data[i:i + 1])
            h.wfile.flush()
            if time.monotonic() > end or h.server.reg.stop.wait(self.pause):
                break
        h.close_connection = True


@pytest.mark.parametrize("seconds", [60, 0], ids=["slow", "short"])
def test_registry_that_drips(store, fake, seconds):
    """Bytes do come, one now and then, in one long answer or in many short ones: given up all the
    same after five attempts, each of which is as long as a silence may be."""
    image = Image([Layer().file("f", os.urandom(200000)).tar()])
    ref = fake.add("a/drip", "v1", image)
    drip = Drip(0.2, seconds)
    fake.fault(image.layers[0]["digest"], drip)
    store.options = ["--silence", "1"]
    began = time.monotonic()
    text = store.fails("pull", ref)
    assert time.monotonic() - began < 25
    assert ("slow" in text) if seconds else ("of 2" in text or "closed" in text), text
    tries = [h for p, h in fake.requests if image.layers[0]["digest"] in p]
    assert 5 <= len(tries) <= 6 and "Range" in tries[-1], "each went on where the last one stopped"


def test_registry_that_is_silent(store):
    """It accepts the connection and says nothing at all."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen(16)
        host = "127.0.0.1:%d" % s.getsockname()[1]
        store.registries, store.options = [host + ",insecure"], ["--deadline", "2"]
        assert "in time" in store.fails("pull", host + "/x")


def test_wrong_bytes(store, fake):
    ref, image = one_layer(fake)
    pinned = f"{fake.host}/a/b@{image.digest}"
    layer = image.layers[0]
    other = Image([Layer().file("evil", b"1").tar()])
    for what, data, message in (
            (image.digest, other.blobs[other.digest], "manifest: its digest is sha256:"),
            (sha256(json.dumps(image.config).encode()), b"{}", "configuration: its digest is not sha256:"),
            (layer["digest"], os.urandom(layer["size"]), "its digest is sha256:"),
            (layer["digest"], other.blobs[other.layers[0]["digest"]], "")):
        fake.faults = [(what, Replace(data))]
        text = store.fails("pull", pinned)
        assert message in text, text
    fake.faults = []
    store.nothing_kept()
    store.pull(pinned)


def test_wrong_diff_id(store, fake):
    ref, _ = one_layer(fake, diff_ids=["sha256:" + "0" * 64])
    assert "its diff id is sha256:" in store.fails("pull", ref)
    store.nothing_kept()
    assert store.list() == []


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"nonsense", b'{"schemaVersion":1}', b'{"manifests":[]}',
                                  b'{"layers":[],"config":{"digest":"x"}}', b"[" * 100000, b'{"a":1,"a":2}',
                                  b"\xff\xfe", b'{"manifests":"x"}', b'{"schemaVersion":2,"layers":{}}'],
                         ids=lambda d: d[:20].decode("latin-1") or "empty")
def test_manifests_that_are_not(store, fake, data):
    ref, _ = one_layer(fake)
    fake.fault("/manifests/", Replace(data))
    store.fails("pull", ref)


def test_manifest_too_large(store, fake):
    ref, _ = one_layer(fake)
    fake.fault("/manifests/", Replace(b" " * (5 << 20)))
    assert "more than 4194304 bytes" in store.fails("pull", ref)


class Body(Fault):
    """@data until its end or until nobody reads it, its length said or in chunks."""

    def __init__(self, data, chunked):
        super().__init__(1)
        self.data, self.chunked, self.sent = data, chunked, 0

    def __call__(self, h, data):
        data = self.data
        h.send_response(200)
        h.send_header(*(("Transfer-Encoding", "chunked") if self.chunked else ("Content-Length", str(len(data)))))
        h.end_headers()
        for at in range(0, len(data), 1 << 16):
            part = data[at:at + (1 << 16)]
            h.wfile.write(b"%x\r\n%s\r\n" % (len(part), part) if self.chunked else part)
            self.sent += len(part)
        if self.chunked:
            h.wfile.write(b"0\r\n\r\n")


# In a process of its own, whose size is not that of pytest: the peak of all that a program started.
PEAK = """
import os, resource, sys
code = os.waitstatus_to_exitcode(os.waitpid(os.spawnv(os.P_NOWAIT, sys.argv[1], sys.argv[1:]), 0)[1])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunks"])
@pytest.mark.parametrize("valid", [False, True], ids=["spaces", "json"])
def test_manifest_of_50_mb(store, fake, chunked, valid):
    """Refused with a sentence and at the limit, neither read to its end nor kept."""
    ref, image = one_layer(fake)
    huge = b" " * 50_000_000
    if valid:  # what could be used
        manifest = json.loads(image.blobs[image.digest])
        huge = json.dumps({**manifest, "annotations": {"a": "x" * 50_000_000}}).encode()
    sends = fake.fault("/manifests/", Body(huge, chunked))
    p = subprocess.run(["/usr/bin/python3", "-S", "-c", PEAK, *store.argv("pull", ref)], capture_output=True,
                       text=True, timeout=100)
    said = p.stderr.splitlines()[-1]
    assert p.returncode == 1 and said.startswith("error") and "manifest" in said and "more than 4194304 bytes" in said, p
    assert sends.left == 0 and len(fake.requests) == 1, "asked for once, and for nothing of it"
    assert sends.sent < 20_000_000, "most of it was never sent"
    assert int(p.stdout) < (48 << 10) or SANITIZED, f"{p.stdout} KiB"
    store.nothing_staged()
    store.nothing_kept()


def test_not_an_image(store, fake):
    ref, _ = one_layer(fake, media="application/vnd.cncf.helm.chart.content.v1.tar+gzip")
    assert "not the media type of a file system layer" in store.fails("pull", ref)
    ref = fake.add("a/none", "v1", Image([]))
    assert "no layers" in store.fails("pull", ref)
    ref = fake.add("a/many", "v1", Image([Layer().file("x", b"%d" % i).tar() for i in range(128)]))
    assert "128 layers, at most 127" in store.fails("pull", ref)
    assert "manifest unknown" in store.fails("pull", f"{fake.host}/no/such:thing")


# --- hostile layers ----------------------------------------------------------------------------

def pull_layers(store, fake, *tars, **kw):
    ref = fake.add("evil/x", "v1", Image(list(tars), **kw))
    return store, ref


@pytest.mark.parametrize("layer, message", [
    (Layer().file("../escape", b"1"), "climbs out with .."),
    (Layer().file("a/../../escape", b"1"), "climbs out with .."),
    (Layer().hardlink("x", "/etc/passwd"), "not a file of this layer"),
    (Layer().hardlink("x", "../../../etc/passwd"), "climbs out"),
    (Layer().symlink("out", "/etc").hardlink("x", "out/passwd"), "not a file of this layer"),
    (Layer().whiteout("gone").hardlink("x", "gone"), "not a file of this layer"),
    (Layer().file("a/.wh...", b""), "whiteout of nothing"),
    (Layer().file(".wh.", b""), "whiteout of nothing"),
    (Layer().file("x", b"1", uid=70000), "outside 0..65535"),
    (Layer().dir("x", gid=1 << 31), "outside 0..65535"),
    (Layer().file("/".join("d" * 300), b"1"), "deeper than 256"),
    (Layer().file("n" * 256, b"1"), "over 255 bytes"),
], ids=lambda x: x.replace(" ", "-") if isinstance(x, str) else "")
def test_refused_entries(store, fake, layer, message):
    _, ref = pull_layers(store, fake, layer.tar())
    assert message in store.fails("pull", ref)
    store.nothing_kept()


def raw_image(blob, diff_id):
    """An image of one layer whose tar is not kept."""
    image = Image([b""])
    image.layers = [image.add(blob, "application/vnd.oci.image.layer.v1.tar+zstd")]
    image.config["rootfs"]["diff_ids"] = [diff_id]
    image.finish()
    return image


@pytest.mark.limit(300)
@pytest.mark.parametrize("n", [10_000_000, 10_000_001])
def test_ten_million_entries(store, fake, tmp_path, n):
    """All of one name: half a megabyte to download, five gigabytes of tar, a gigabyte of log."""
    header = tarfile.TarInfo("f").tobuf(tarfile.USTAR_FORMAT)
    sha = hashlib.sha256()
    with open(tmp_path / "blob", "wb") as out:
        z = subprocess.Popen(["zstd", "-q", "-1", "-c"], stdin=subprocess.PIPE, stdout=out)
        for left in range(n, 0, -2000):
            block = header * min(left, 2000)
            z.stdin.write(block)
            sha.update(block)
        z.stdin.close()
        assert z.wait() == 0
    ref = fake.add("evil/many", "v1", raw_image((tmp_path / "blob").read_bytes(), "sha256:" + sha.hexdigest()))
    if n > 10_000_000:
        assert "more than 10000000 entries" in store.fails("pull", ref)
        store.nothing_kept()
    else:
        store.pull(ref)
        with store.merged(ref) as m:
            assert os.listdir(m) == ["f"]


def header(name, **fields):
    info = tarfile.TarInfo(name)
    for k, v in fields.items():
        setattr(info, k, v)
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("tar, message", [
    (b"this is not a tar" * 1000, "the tar is damaged"), (os.urandom(8192), "the tar is damaged"),
    (header("f", size=-5) + b"\0" * 1024, ""), (header("f", size=1 << 62) + b"\0" * 1024, ""),
    (header("f", size=100000) + b"x" * 600, "the tar is damaged"), (header("f" * 65536), "over 255 bytes"),
    (header("f", linkname="f", type=tarfile.LNKTYPE) + b"\0" * 1024, None),
    (header("a", linkname="b", type=tarfile.LNKTYPE) + header("b", linkname="a", type=tarfile.LNKTYPE) + b"\0" * 1024,
     "not a file of this layer"),
    (header("a") + header("b", linkname="a", type=tarfile.LNKTYPE) + header("a", linkname="b", type=tarfile.LNKTYPE) +
     header("b", linkname="a", type=tarfile.LNKTYPE) + b"\0" * 1024, None),
    (b"\0" * 10240, None),
], ids=["text", "random", "negative", "huge", "cut", "name", "link-to-itself", "links-in-a-circle", "links-in-turns", "zeros"])
def test_tars_that_lie(store, fake, tar, message):
    _, ref = pull_layers(store, fake, tar)
    if message is None:
        store.pull(ref)
        with store.merged(ref) as m:
            tree_of(m)
        return
    text = store.fails("pull", ref)
    assert message in text, text
    store.nothing_kept()


@pytest.mark.parametrize("name, said", [
    (b"\xff\xfe\x80/..", "'???/..' climbs out"), (("\u5c71" * 33 + "/..").encode(), "climbs out"),
    (("\u9aa8" * 80 + "/..").encode(), "climbs out"), (b"a\x1b]0;b\x07\nc/..", "'a ]0;b  c/..' climbs out"),
    ("\u009b31m/..".encode(), "'  31m/..' climbs out"),
], ids=["bytes", "short", "cut", "ascii", "c1"])
def test_names_in_messages(store, fake, name, said):
    """What is wrong is said, whatever bytes the name has; and no terminal obeys them."""
    info = tarfile.TarInfo(name.decode("utf-8", "surrogateescape"))
    _, ref = pull_layers(store, fake, info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape") + b"\0" * 1024)
    text = store.fails("pull", ref)
    assert said in text, text


@pytest.mark.parametrize("config", [b"", b"not JSON", b"[]", b"null", b"{", b'{"rootfs":5}', b'{"rootfs":{"diff_ids":[1]}}',
                                    b"\0" * 100, b'{"architecture":"' + ARCH.encode() + b'","os":"linux"}'],
                         ids=lambda c: c[:12].decode("latin-1") or "empty")
def test_configurations_that_are_not(store, fake, config):
    image = Image([Layer().file("f", b"1").tar()])
    manifest = json.loads(image.blobs[image.digest])
    manifest["config"] = image.add(config, manifest["config"]["mediaType"])
    image.manifest = image.add(json.dumps(manifest).encode(), image.manifest["mediaType"])
    image.digest = image.manifest["digest"]
    ref = fake.add("evil/config", "v1", image)
    store.fails("pull", ref)
    store.nothing_kept()


def test_tamed_entries(store, fake):
    """What is not refused does no harm: everything stays below the layer's own directory."""
    marker = pathlib.Path("/tmp/hvmm-test-escape")
    layer = (Layer().file("/absolute", b"1").file("//slashes//x", b"2").file("./dot/./y", b"3")
             .symlink("link", "/tmp").file("link/hvmm-test-escape", b"4")          # not through the link
             .symlink("deep/up", "../../../../../tmp").dir("deep/up/hvmm-test-escape")
             .symlink("self", "self").file("self/x", b"5")
             .file("file", b"6").file("file/x", b"7")                              # the later entry wins
             .dir("dir").file("dir/a", b"8").file("dir", b"9")
             .file("twice", b"first", mode=0o4755).file("twice", b"second", mode=0o644)
             .symlink("linkthenfile", "/etc/passwd").file("linkthenfile", b"10")
             .device("null", 1, 3).device("sda", 8, 0, block=True).device("whiteoutlike", 0, 0)
             .file("x", b"11", xattrs={"trusted.overlay.opaque": b"y", "user.overlay.opaque": b"y",
                                       "security.selinux": b"evil", "system.posix_acl_access": b"z",
                                       "user.ok": b"1"})
             .dir("d2", xattrs={"trusted.overlay.redirect": b"/etc", "user.overlay.whiteout": b"y"})
             .file(".wh..wh.plnk/1.2", b"aufs").file(".wh..wh.aufs", b"aufs"))
    _, ref = pull_layers(store, fake, layer.tar())
    store.pull(ref)
    assert not marker.exists()
    with store.merged(ref) as m:
        read = lambda p: (m / p).read_bytes()
        assert read("absolute") == b"1" and read("slashes/x") == b"2" and read("dot/y") == b"3"
        assert not (m / "link").is_symlink() and read("link/hvmm-test-escape") == b"4"
        assert not (m / "deep/up").is_symlink() and (m / "deep/up/hvmm-test-escape").is_dir()
        assert read("self/x") == b"5" and read("file/x") == b"7" and read("dir") == b"9"
        assert read("twice") == b"second" and stat.S_IMODE((m / "twice").stat().st_mode) == 0o644
        assert read("linkthenfile") == b"10" and pathlib.Path("/etc/passwd").read_bytes() != b"10"
        for name in ("null", "sda", "whiteoutlike", ".wh..wh.plnk", ".wh..wh.aufs"):
            assert not (m / name).exists()
        assert os.listxattr(m / "x") == ["user.ok"] and os.listxattr(m / "d2") == []


EARLIER = {
    "root": ([("etc", "/")], ["etc/passwd", "etc/tmp/hvmm-test-escape"]),
    "absolute": ([("etc", "/etc")], ["etc/passwd"]),
    "tmp": ([("d", "/tmp")], ["d/hvmm-test-escape"]),
    "relative": ([("a/b/up", "../../../../../../../.."), ("a/here", ".")],
                 ["a/b/up/tmp/hvmm-test-escape", "a/here/f"]),
    "chain": ([("one", "two"), ("two", "../../three"), ("three", "/proc/self/root")], ["one/etc/passwd"]),
    "store": ([("l", "/proc/self/fd/3"), ("m", "/layer")], ["l/pack", "m/index"]),
}


@pytest.mark.parametrize("links, files", EARLIER.values(), ids=EARLIER)
@pytest.mark.parametrize("named", [False, True], ids=["implied", "named"])
def test_paths_through_a_symlink_of_an_earlier_layer(store, fake, tmp_path, links, files, named):
    """They lead nowhere, neither out of the image nor to another place in it: a directory takes the link's
    place, as in an overlay of the layers (docs/adr/0007).  umoci goes through the link, below its root, unless
    the directory has an entry of its own; then the trees are the same."""
    passwd = pathlib.Path("/etc/passwd").read_bytes()
    below = Layer()
    for path, target in links:
        below.symlink(path, target)
    above = Layer()
    if named:
        for d in sorted({str(p) for f in files for p in list(pathlib.PurePath(f).parents)[:-1]}):
            above.dir(d, mode=0o711)
    for f in files:
        above.file(f, b"stranger's").hardlink(f + ".more", f)
    above.whiteout(os.path.dirname(files[0]) + "/group")
    image = Image([below.tar(), above.tar()])
    ref = fake.add("evil/through", "v1", image)
    store.pull(ref)
    store.nothing_staged()
    assert pathlib.Path("/etc/passwd").read_bytes() == passwd
    assert not os.path.lexists("/tmp/hvmm-test-escape")
    with store.merged(ref) as m:
        for f in files:
            assert (m / f).read_bytes() == (m / (f + ".more")).read_bytes() == b"stranger's"
            assert all((m / p).is_dir() and not (m / p).is_symlink() for p in pathlib.PurePath(f).parents)
        top = {pathlib.PurePath(p).parts[0] for p in [l[0] for l in links] + files}
        assert set(os.listdir(m)) == top, "nothing of it anywhere else"
        if named:
            rootfs = umoci(image.write_layout(str(tmp_path / "layout")), tmp_path)
            ours, theirs = (tree_of(d)[0] for d in (m, rootfs))
            strip = lambda tree: {k: v[:4] + v[5:] for k, v in tree.items()}  # times: of what was made last
            assert strip(ours) == strip(theirs)
    check_files(store)


def test_whiteouts_in_any_order(store, fake):
    """They speak of lower layers only, before or after the entries of their own."""
    base = Layer()
    for d in ("a", "b", "c", "e"):
        base.dir(d).file(f"{d}/low", b"low")
    base.file("f", b"low").dir("g").file("g/low", b"low")
    top = (Layer().dir("a").file("a/top", b"1").whiteout("a")            # whiteout after the directory
           .whiteout("b").dir("b").file("b/top", b"1")                   # and before
           .whiteout("c").file("c/top", b"1")                            # and before an implied one
           .file("e/top", b"1").opaque("e")                              # opaque after the file
           .file("f", b"top").whiteout("f").whiteout("g").whiteout("never-was"))
    _, ref = pull_layers(store, fake, base.tar(), top.tar())
    store.pull(ref)
    with store.merged(ref) as m:
        for d in ("a", "b", "c", "e"):
            assert os.listdir(m / d) == ["top"], d
        assert (m / "f").read_bytes() == b"top"
        assert sorted(os.listdir(m)) == ["a", "b", "c", "e", "f"]


def test_implied_directories_take_after_the_layer_below(store, fake):
    low = (Layer().dir("tmp", mode=0o1777).dir("srv", mode=0o750, uid=33, gid=34).dir("srv/sub", mode=0o700, uid=9)
           .dir("cut").dir("cut/inner", mode=0o711).symlink("lnk", "srv"))
    mid = Layer().whiteout("cut").file("other", b"1")
    top = Layer().file("tmp/x", b"1").file("srv/sub/y", b"2").file("cut/inner/z", b"3").file("fresh/w", b"4")
    _, ref = pull_layers(store, fake, low.tar(), mid.tar(), top.tar())
    store.pull(ref)
    mode = lambda p: stat.S_IMODE(p.stat().st_mode)
    with store.merged(ref) as m:
        assert mode(m / "tmp") == 0o1777 and (m / "tmp").stat().st_mtime_ns == 1700000000250000000
        assert (mode(m / "srv"), (m / "srv").stat().st_uid, (m / "srv").stat().st_gid) == (0o750, 33, 34)
        assert (mode(m / "srv/sub"), (m / "srv/sub").stat().st_uid) == (0o700, 9)
        assert mode(m / "cut/inner") == 0o755 and mode(m / "fresh") == 0o755
    # over another layer below, the same layer is another one
    low2 = Layer().dir("tmp", mode=0o700).tar()
    ref2 = fake.add("evil/x", "v2", Image([low2, top.tar()]))
    store.pull(ref2)
    with store.merged(ref2) as m:
        assert mode(m / "tmp") == 0o700


def test_sparse_file(store, fake, tmp_path):
    src = tmp_path / "s"
    src.mkdir()
    with open(src / "sparse", "wb") as f:
        f.write(b"begin")
        f.seek(200 << 20)
        f.write(b"end")
        f.truncate(300 << 20)
    for i, form in enumerate((["--format=gnu"], ["--format=posix", "--sparse-version=1.0"],
                              ["--format=posix", "--sparse-version=0.1"])):
        tar = subprocess.run(["tar", "-C", src, *form, "-S", "-cf", "-", "sparse"], stdout=subprocess.PIPE, check=True).stdout
        assert len(tar) < 1 << 20
        ref = fake.add("a/sparse", f"v{i}", Image([tar]))
        store.pull(ref)
        with store.merged(ref) as m:
            st = (m / "sparse").stat()
            assert st.st_size == 300 << 20
            assert hashlib.sha256((m / "sparse").read_bytes()).digest() == hashlib.sha256((src / "sparse").read_bytes()).digest()
    for pack in (store.images / "layers").glob("*/pack"):
        assert pack.stat().st_size < 1 << 20
    assert store.objects() == []


def test_formats(store, fake, tmp_path):
    """GNU and v7 headers, base-256 numbers, several gzip members, padding behind the end."""
    src = tmp_path / "s"
    (src / ("d" * 50) / ("e" * 50)).mkdir(parents=True)
    (src / ("d" * 50) / ("e" * 50) / ("f" * 90)).write_bytes(b"x" * 1000)
    (src / "short").write_bytes(b"y")
    for i, form in enumerate(("gnu", "oldgnu", "posix", "ustar")):
        tar = subprocess.run(["tar", "-C", src, f"--format={form}", "--owner=4321", "-cf", "-", "."],
                             stdout=subprocess.PIPE, check=True).stdout
        if i == 0:
            tar += b"\0" * 100000
        ref = fake.add("a/form", f"v{i}", Image([tar]))
        store.pull(ref)
        with store.merged(ref) as m:
            assert (m / ("d" * 50) / ("e" * 50) / ("f" * 90)).stat().st_size == 1000
            assert (m / "short").stat().st_uid == 4321
    tar = Layer().file("a", b"1" * 100000).tar()
    image = Image([tar])
    import gzip
    members = gzip.compress(tar[:5000]) + gzip.compress(tar[5000:]) + b"\0" * 512
    image.layers = [image.add(members, image.layers[0]["mediaType"])]
    image.finish()
    ref = fake.add("a/form", "members", image)
    store.pull(ref)
    for bad in (gzip.compress(tar)[:-5], gzip.compress(tar) + b"junk", gzip.compress(tar[:6000])):
        image.layers = [image.add(bad, image.layers[0]["mediaType"])]
        image.finish()
        store.fails("pull", fake.add("a/bad", "bad", image))   # not the repository that has this layer


def test_empty_and_repeated_layers(store, fake):
    empty, zero = b"\0" * 1024, b""
    x = Layer().file("f", b"1").tar()
    y = Layer().whiteout("f").file("g", b"2").tar()
    ref = fake.add("a/rep", "v1", Image([empty, x, empty, y, x, zero, empty]))
    store.pull(ref)
    with store.merged(ref) as m:
        assert sorted(os.listdir(m)) == ["f", "g"]


def test_bombs(store, fake):
    store.options = ["--max-mib", "32"]
    zeros = Layer().file("z", b"\0" * (64 << 20)).tar()
    for how in ("gzip", "zstd"):
        _, ref = pull_layers(store, fake, zeros, compress_as=how)
        assert "more than the 32 MiB that are allowed" in store.fails("pull", ref)
    # many that are small enough each
    part = [Layer().file(f"z{i}", bytes([i]) * (20 << 20)).tar() for i in range(3)]
    _, ref = pull_layers(store, fake, *part)
    assert "more than the 32 MiB" in store.fails("pull", ref)
    # a sparse file that claims the universe
    huge = Layer(form=1)
    info = huge.t.tarinfo("s")
    info.size = 0
    info.pax_headers = {}
    _, ref = pull_layers(store, fake, gnu_sparse_claim(1 << 60))
    text = store.fails("pull", ref)
    assert "larger than 8192 GiB" in text
    # zeros behind the end of the archive, without end
    _, ref = pull_layers(store, fake, Layer().file("a", b"1").tar() + b"\0" * (256 << 20))
    assert "unpacked layer: more than" in store.fails("pull", ref)


def gnu_sparse_claim(size):
    """A GNU sparse header: no data, `size` bytes of hole."""
    h = bytearray(512)
    h[0:1] = b"s"
    h[100:108], h[108:116], h[116:124] = b"0000644\0", b"0000000\0", b"0000000\0"
    h[124:136], h[136:148] = b"00000000000\0", b"00000000000\0"
    h[156:157], h[257:265] = b"S", b"ustar  \0"
    h[386:398] = b"00000000000\0"
    h[398:410] = b"00000000000\0"
    h[483:495] = b"\x80" + size.to_bytes(11, "big")
    h[148:156] = b" " * 8
    h[148:156] = b"%06o\0 " % sum(h)
    return bytes(h) + b"\0" * 1024


@pytest.mark.limit(600)  # a million files
def test_sizes_that_add_up_to_more_than_a_number(store, fake):
    """A few megabytes to download claim 2^63 bytes and more, all holes: they count for what they take."""
    def tar(first, n=600_000):
        one = bytearray(gnu_sparse_claim(1 << 43)[:512])
        out = []
        for i in range(n):
            one[0:8] = b"%c%07d" % (first, i)
            one[148:156] = b" " * 8
            one[148:156] = b"%06o\0 " % sum(one)
            out.append(bytes(one))
        return b"".join(out) + b"\0" * 1024

    ok = fake.add("a/ok", "v1", Image([Layer().file("f", b"123").tar()]))
    ref = fake.add("evil/sum", "v1", Image([tar(ord("a")), tar(ord("b"))]))
    for r in (ok, ref):
        store.pull(r)
    assert {i["reference"]: i["size_bytes"] for i in store.list()} == {ok: 3, ref: 0}
    store.run("expire", 0)
    with store.merged(ref) as m:
        assert (m / "a0000000").stat().st_size == 1 << 43


def test_file_capabilities_work_inside(store, fake, tmp_path):
    grep = pathlib.Path(shutil.which("grep")).read_bytes()
    store.options = ["--threshold", "0"]  # all in the metadata mount, so that it can be looked at alone
    layer = (Layer().dir("bin").file("bin/capable", grep, mode=0o755, xattrs={"security.capability": CAP_NET_BIND})
             .file("bin/setuid", grep, mode=0o4755))
    _, ref = pull_layers(store, fake, layer.tar())
    store.pull(ref)
    with store.merged(ref) as m:
        assert os.getxattr(m / "bin/capable", "security.capability") == CAP_NET_BIND
    target = pathlib.Path(tempfile.mkdtemp(dir="/var/tmp"))  # every directory above it is open
    os.chmod(target, 0o755)
    inside = subprocess.run(["unshare", "-m", "/usr/bin/python3", "-c", AS_USER, str(target), str(ID_BASE),
                             *store.argv("mount", "acc", ref, target, ID_BASE)], capture_output=True)
    target.rmdir()
    out = inside.stdout.decode().splitlines()
    assert inside.returncode == 0, inside.stderr.decode()
    assert out[0] == f"{ID_BASE}:{ID_BASE} read-only"
    assert int(out[1].split()[1], 16) == 1 << 10     # CapEff of user 1000
    assert out[2].split()[1:3] == ["1000", "0"]      # Uid: the set-id bit


# In a mount namespace of its own: mount, look, then run two programs as user 1000 of a user
# namespace with ids ID_BASE...
AS_USER = r"""
import ctypes, os, subprocess, sys
target, base, mount = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
libc = ctypes.CDLL(None, use_errno=True)
subprocess.run(["mount", "--make-rprivate", "/"], check=True)
subprocess.run(mount, check=True)
st = os.stat(f"{target}/bin/capable")
try:
    open(f"{target}/x", "w")
    how = "writable"
except OSError as e:
    how = "read-only"
print(f"{st.st_uid}:{st.st_gid} {how}", flush=True)
for name, word in (("capable", "CapEff"), ("setuid", "Uid")):
    ready, go = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        assert libc.unshare(0x10000000) == 0
        os.write(ready[1], b"x"); os.read(go[0], 1)
        os.setgroups([]); os.setresgid(1000, 1000, 1000); os.setresuid(1000, 1000, 1000)
        os.execv(f"{target}/bin/{name}", ["grep", word, "/proc/self/status"])
    os.read(ready[0], 1)
    for kind in ("uid", "gid"):
        open(f"/proc/{pid}/{kind}_map", "w").write(f"0 {base} 65536")
    os.write(go[1], b"x")
    assert os.waitpid(pid, 0)[1] == 0
"""


# --- the sandbox -------------------------------------------------------------------------------

def fetchers(pid, name="vmm-fetch"):
    """Processes of that name below a process."""
    found = []
    with contextlib.suppress(OSError):
        for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            with contextlib.suppress(OSError):
                if pathlib.Path(f"/proc/{child}/comm").read_text().strip() == name:
                    found.append(int(child))
    return found


@contextlib.contextmanager
def hanging_pull(store, fake, n_layers=2):
    """A pull whose layers all hang; yields the process and its fetchers."""
    image = Image([Layer().file(f"f{i}", os.urandom(200000)).tar() for i in range(n_layers)])
    ref = fake.add("a/hang", "v1", image)
    for layer in image.layers:
        fake.fault(layer["digest"], Hang(at=1000))
    proc = subprocess.Popen(store.argv("pull", ref), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            pids = fetchers(proc.pid)
            blobs = sum(l["digest"] in p for p, _ in fake.requests for l in image.layers)
            if len(pids) == n_layers and blobs == n_layers:
                break
            time.sleep(0.02)
        else:
            pytest.fail("the fetchers did not start")
        yield proc, pids, ref
    finally:
        proc.kill()
        proc.wait()


def status_of(pid):
    return dict(l.split(":\t", 1) for l in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in l)


def test_sandbox_of_a_fetcher(store, fake):
    with hanging_pull(store, fake) as (proc, pids, _):
        bases = set()
        for pid in pids:
            s = status_of(pid)
            base, count = map(int, pathlib.Path(f"/proc/{pid}/uid_map").read_text().split()[1:])
            bases.add(base)
            assert count == 65536 and 0x4F000000 <= base < 0x4FD00000
            assert s["Uid"].split() == [str(base)] * 4 and s["Gid"].split() == [str(base)] * 4
            assert s["Groups"].split() == []
            for kind in ("CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb"):
                assert int(s[kind], 16) == 0, kind
            assert (s["Seccomp"].strip(), s["NoNewPrivs"].strip()) == ("2", "1") or SANITIZED
            for ns in ("user", "mnt", "pid", "ipc", "uts"):
                assert os.readlink(f"/proc/{pid}/ns/{ns}") != os.readlink(f"/proc/self/ns/{ns}"), ns
            root = f"/proc/{pid}/root"
            assert sorted(os.listdir(root)) == ["etc", "layer"]
            assert set(os.listdir(root + "/etc")) <= {"resolv.conf", "hosts", "nsswitch.conf", "host.conf", "gai.conf", "services"}
            mounts = [l.split() for l in pathlib.Path(f"/proc/{pid}/mountinfo").read_text().splitlines()]
            assert sorted(m[4] for m in mounts) == ["/", "/layer"]
            assert {m[4]: m[5].split(",")[0] for m in mounts} == {"/": "ro", "/layer": "rw"}
            for m in mounts:
                assert {"nosuid", "nodev", "noexec"} <= set(m[5].split(","))
            assert pathlib.Path(f"/proc/{pid}/environ").read_bytes() == b""
            assert pathlib.Path(f"/proc/{pid}/cmdline").read_bytes() == b"vmm-fetch\0layer\0"
            limits = pathlib.Path(f"/proc/{pid}/limits").read_text()
            assert re.search(r"Max core file size +1 +1 ", limits)  # nor into a pipe
        assert len(bases) == len(pids), "each has ids of its own"


def test_credentials_are_nowhere_to_be_seen(store, fake):
    fake.need_basic("ada", "Pa55w0rd")
    image = Image([Layer().file("f", os.urandom(200000)).tar()])
    ref = fake.add("a/secret", "v1", image)
    fake.fault(image.layers[0]["digest"], Hang(at=1000))
    store.registries[0] += ",user=ada,password=Pa55w0rd"
    # the driver has the password in its own argv; what it starts must not
    proc = subprocess.Popen(store.argv("pull", ref), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            if any(image.layers[0]["digest"] in p for p, _ in fake.requests):
                break
            time.sleep(0.02)
        (pid,) = fetchers(proc.pid)
        for name in ("cmdline", "environ"):
            text = pathlib.Path(f"/proc/{pid}/{name}").read_bytes()
            assert b"Pa55w0rd" not in text and base64.b64encode(b"ada:Pa55w0rd") not in text
        links = [os.readlink(f"/proc/{pid}/fd/{n}") for n in os.listdir(f"/proc/{pid}/fd")]
        assert not any("memfd" in l for l in links), "the request is closed once it is read"
    finally:
        proc.kill()
        proc.wait()
    for path in store.images.rglob("*"):
        if path.is_file():
            assert b"Pa55w0rd" not in path.read_bytes()


def gone(pids):
    for _ in range(250):
        if not any(os.path.exists(f"/proc/{p}/ns") and status_of(p)["State"][0] != "Z" for p in pids
                   if os.path.exists(f"/proc/{p}")):
            return True
        time.sleep(0.02)
    return False


def test_operation_is_killed(store, fake):
    with hanging_pull(store, fake) as (proc, pids, ref):
        proc.kill()
        proc.wait()
        assert gone(pids), "fetchers die with their operation"
    assert len(list((store.images / "staging").iterdir())) == 1
    store.run("recover")
    store.nothing_staged()
    store.nothing_kept()
    assert store.list() == []
    with contextlib.closing(sqlite3.connect(f"file:{store.images}/images.db?mode=ro", uri=True)) as db:
        assert db.execute("SELECT * FROM claim").fetchall() == []


def test_recovery_leaves_the_living_alone(store, fake):
    with hanging_pull(store, fake) as (proc, pids, ref):
        store.run("recover")
        assert len(list((store.images / "staging").iterdir())) == 1 and len(fetchers(proc.pid)) == 2
    store.run("recover")


def test_fetcher_is_killed(store, fake):
    """Once is an accident: its layer is begun again.  Twice is a reason."""
    with hanging_pull(store, fake) as (proc, pids, ref):
        os.kill(pids[0], signal.SIGKILL)
        for _ in range(200):
            again = [p for p in fetchers(proc.pid) if p not in pids]
            if again:
                break
            time.sleep(0.02)
        assert len(again) == 1 and pids[1] in fetchers(proc.pid), "the other one goes on"
        os.kill(again[0], signal.SIGKILL)
        assert proc.wait(10) == 1
        assert gone(pids)
    store.nothing_staged()


def test_fetcher_is_killed_once(store, fake):
    image = Image([Layer().file(f"f{i}", os.urandom(200000)).tar() for i in range(2)])
    ref = fake.add("a/once", "v1", image)
    hang = fake.fault(image.layers[1]["digest"], Hang(at=100000, times=1))
    proc = subprocess.Popen(store.argv("pull", ref), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    for _ in range(200):
        pids = fetchers(proc.pid)
        if hang.left == 0 and len(pids) == 1:
            break
        time.sleep(0.02)
    os.kill(pids[0], signal.SIGKILL)
    err = proc.communicate(timeout=30)[1]
    assert proc.returncode == 0 and b"trying again" in err, err
    done = [int(n) for n in re.findall(rb"downloading (\d+)/", err)]
    assert done == sorted(done) and done[-1] == sum(layer["size"] for layer in image.layers), "never backwards"
    with store.merged(ref) as m:
        assert sorted(os.listdir(m)) == ["f0", "f1"]
    store.nothing_staged()


def test_parallel_layers(store, fake):
    image = Image([Layer().file(f"f{i}", os.urandom(1000)).tar() for i in range(6)])
    ref = fake.add("a/par", "v1", image)
    fake.fault("/blobs/", Slow(0.3))
    store.options = ["--parallel", "3"]
    store.pull(ref)
    assert fake.most == 3
    with store.merged(ref) as m:
        assert len(os.listdir(m)) == 6


# --- a fetcher that was taken over -------------------------------------------------------------

EVIL = os.path.join(build_dir(), "tests/flow/image/evilfetch")


def evil(store, tmp_path, word):
    """From now on fetchers do what tests/flow/image/evilfetch.c says of the word."""
    libexec = tmp_path / "libexec"
    libexec.mkdir(exist_ok=True)
    with open(libexec / "vmm-fetch", "wb") as f:
        f.write(pathlib.Path(EVIL).read_bytes() + b"\0" * 64 + f"EVIL:{word}\n".encode() + b"\0" * 8)
    os.chmod(libexec / "vmm-fetch", 0o755)
    store.libexec = str(libexec)


@pytest.mark.parametrize("word, message", [
    ("object-missing", "object: 0: No such file"), ("object-short", "object 0 does not have its size"),
    ("object-fifo", "object: 0 is not a plain file"), ("object-link", "object: 0: Too many levels"),
    ("object-twice", "object: 0 is not a plain file"), ("objects-elsewhere", "objects:"),
    ("index-other", "its index is that of another layer"), ("index-threshold", ""),
    ("index-damaged", "metadata: layer 1"), ("index-short", "its index is none"), ("index-huge", "its index"),
    ("index-more-objects", ""), ("pack-long", "its pack does not have the length"),
    ("pack-vast", "more than the 1024 MiB that are allowed"), ("pack-link", "pack: Too many levels"),
    ("nothing", "pack: No such file"), ("index-boasts", "metadata: layer 1"),
])
def test_lies_of_a_fetcher(store, fake, tmp_path, word, message):
    """Index, pack and objects that do not belong together are refused, and nothing is left of them.
    Another layer's object with a content that is known is no help: what is not delivered is not there."""
    big = os.urandom(200000)
    store.pull(fake.add("a/other", "v1", Image([Layer().file("big", big).tar()])))
    kept = store.objects()
    ref = fake.add("a/evil", "v1", Image([Layer().file("big", big).file("small", b"1").tar()]))
    evil(store, tmp_path, word)
    store.options = ["--max-mib", "1024"]
    text = store.fails("pull", ref)
    assert message in text, text
    assert len(store.list()) == 1 and len(store.layers()) == 1 and store.objects() == kept
    check_files(store)


@pytest.mark.parametrize("kind", ["packs", "objects"])
def test_fetchers_that_say_to_be_small(store, fake, tmp_path, kind):
    """Each layer is within the limit, and so is what their fetchers say; what is there is not."""
    evil(store, tmp_path, "none")  # says one byte
    store.options = ["--max-mib", "32", "--threshold", "0" if kind == "packs" else str(1 << 20)]
    part = [Layer().file(f"z{i}", bytes([i]) * (14 << 20)).tar() for i in range(3)]
    _, ref = pull_layers(store, fake, *part[:2])
    store.pull(ref)
    store.run("rm", "acc", ref, "admin")
    _, ref = pull_layers(store, fake, *part)
    assert "more than the 32 MiB that are allowed" in store.fails("pull", ref)
    store.nothing_kept()


@pytest.mark.parametrize("word", ["none", "object-flip", "rubbish", "late"])
def test_changed_files_are_what_they_are(store, fake, tmp_path, word):
    """A fetcher may say what it likes of its own layer; but an object has the name of its bytes, what
    nobody asked for is gone, and nobody stays who could write it later."""
    big = os.urandom(200000)
    honest = hashlib.sha256(big).hexdigest()
    ref = fake.add("a/evil", "v1", Image([Layer().file("big", big).file("small", b"1").tar()]))
    evil(store, tmp_path, word)
    if word == "late":  # what it wrote last may be anything, so it may be refused, too
        proc = subprocess.run(store.argv("pull", ref), capture_output=True, timeout=60)
        assert not [p for p in pathlib.Path("/proc").glob("[0-9]*/exe") if same_file(p, store.libexec + "/vmm-fetch")]
        store.nothing_staged()
        if proc.returncode:
            store.nothing_kept()
        else:
            check_files(store)
        return
    store.pull(ref)
    store.nothing_staged()
    check_files(store)
    assert (store.objects() == [honest]) == (word != "object-flip")
    with store.merged(ref) as m:
        assert sorted(os.listdir(m)) == ["big", "small"]
        assert hashlib.sha256((m / "big").read_bytes()).hexdigest() == store.objects()[0]
    store.libexec = os.path.dirname(program("vmm-fetch"))  # the same object from somebody honest
    store.pull(fake.add("b/honest", "v1", Image([Layer().file("copy", big).tar()])))
    with store.merged(f"{fake.host}/b/honest:v1") as m:
        assert (m / "copy").read_bytes() == big


def test_directories_without_end(store, fake, tmp_path):
    """Deeper than a removal could open them: they go all the same, or no engine would start again."""
    ref = fake.add("a/evil", "v1", Image([Layer().file("small", b"1").tar()]))
    evil(store, tmp_path, "deep")
    store.pull(ref)
    store.nothing_staged()
    check_files(store)


def test_a_fetcher_that_never_stops_talking(store, fake, tmp_path):
    """The clock goes on meanwhile, as does the watch on the disk."""
    ref = fake.add("a/evil", "v1", Image([Layer().file("small", b"1").tar()]))
    evil(store, tmp_path, "flood")
    store.options = ["--deadline", "2"]
    began = time.monotonic()
    assert "took longer than allowed" in store.fails("pull", ref)
    assert time.monotonic() - began < 20
    store.nothing_kept()


def same_file(link, path):
    with contextlib.suppress(OSError):
        return os.path.samefile(link, path)
    return False


# --- what the store knows ----------------------------------------------------------------------

def test_known_layers_are_not_fetched_again(store, fake):
    base, a, b = (Layer().file(n, n.encode() * 1000).tar() for n in ("base", "a", "b"))
    one, two = Image([base, a]), Image([base, b])
    store.pull(fake.add("a/b", "one", one))
    fake.requests.clear()
    store.pull(fake.add("a/b", "two", two))
    blobs = [p for p, _ in fake.requests if "/blobs/" in p]
    assert not any(one.layers[0]["digest"] in p for p in blobs)
    assert len(store.layers()) == 3
    # another repository is another source: nothing it says may stand for somebody else's layer
    store.pull(fake.add("c/d", "one", one))
    assert len(store.layers()) == 5


def test_two_pulls_at_once(store, fake):
    image = Image([Layer().file(f"f{i}", os.urandom(300000)).tar() for i in range(2)])
    ref = fake.add("a/b", "v1", image)
    fake.fault("/blobs/", Slow(0.2))
    both = [subprocess.Popen(store.argv("pull", ref), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for _ in range(2)]
    for p in both:
        err = p.communicate(timeout=60)[1]
        assert p.returncode == 0, err
    assert len(store.layers()) == 2 and len(store.list()) == 1
    store.nothing_staged()


def in_background(store, ref):
    return subprocess.Popen(store.argv("pull", ref), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def asked_for(fake, layer):
    return [p for p, _ in fake.requests if layer["digest"] in p]


def wait_for(what, seconds=10):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def test_pulls_share_a_download(store, fake):
    """Three images over one base, at once: the base comes once, and what differs does not wait for it."""
    base = Layer().file("base", os.urandom(300000)).tar()
    images = [Image([base, Layer().file(f"top{i}", os.urandom(1000)).tar()]) for i in range(3)]
    refs = [fake.add("a/share", f"v{i}", image) for i, image in enumerate(images)]
    fake.fault(images[0].layers[0]["digest"], Slow(1.0))
    procs = [in_background(store, refs[0])]
    wait_for(lambda: asked_for(fake, images[0].layers[0]))
    procs += [in_background(store, r) for r in refs[1:]]
    wait_for(lambda: all(asked_for(fake, i.layers[1]) for i in images[1:]), 0.9)
    for p in procs:
        err = p.communicate(timeout=60)[1]
        assert p.returncode == 0, err
    assert len(asked_for(fake, images[0].layers[0])) == 1
    assert len(store.layers()) == 4 and len(store.objects()) == 1
    check_files(store)
    for i, ref in enumerate(refs):
        with store.merged(ref) as m:
            assert sorted(os.listdir(m)) == ["base", f"top{i}"]
        assert store.find(ref)["shared_bytes"] == 300000
    store.nothing_staged()


@pytest.mark.parametrize("how", ["fails", "killed"])
def test_who_waited_fetches_itself(store, fake, how):
    """Whoever was to bring the base does not: another operation takes over."""
    base = Layer().file("base", os.urandom(300000)).tar()
    first = Image([base, Layer().file("bad", b"1").tar()])
    second = Image([base, Layer().file("good", b"2").tar()])
    refs = fake.add("a/share", "v1", first), fake.add("a/share", "v2", second)
    fake.fault(first.layers[0]["digest"], Hang(at=1000, seconds=30 if how == "killed" else 1, times=1))
    if how == "fails":
        fake.fault(first.layers[1]["digest"], Hang(at=0, seconds=1, times=1))
        fake.fault(first.layers[1]["digest"], Status(404))
    one = in_background(store, refs[0])
    wait_for(lambda: asked_for(fake, first.layers[0]))
    two = in_background(store, refs[1])
    wait_for(lambda: asked_for(fake, second.layers[1]))
    if how == "killed":
        one.kill()
    one.communicate(timeout=60)
    assert one.returncode != 0
    err = two.communicate(timeout=60)[1]
    assert two.returncode == 0, err
    with store.merged(refs[1]) as m:
        assert sorted(os.listdir(m)) == ["base", "good"]
    store.run("recover")
    store.nothing_staged()
    check_files(store)
    assert len(store.layers()) == 2


def test_crossed_needs(store, fake):
    """Many images that share layers in every order, pulled at once: nobody waits in a circle."""
    rng = random.Random(7)
    parts = [Layer().file(f"p{i}", rng.randbytes(5000)).tar() for i in range(8)]
    images = [Image(rng.sample(parts, 5)) for _ in range(8)]
    refs = [fake.add("a/cross", f"v{i}", image) for i, image in enumerate(images)]
    fake.fault("/blobs/", Slow(0.05))
    procs = [in_background(store, r) for r in refs]
    for p in procs:
        err = p.communicate(timeout=60)[1]
        assert p.returncode == 0, err
    blobs = [p for p, _ in fake.requests if any(l["digest"] in p for i in images for l in i.layers)]
    assert len(blobs) == len({l["digest"] for i in images for l in i.layers}), "each once"
    check_files(store)
    store.nothing_staged()
    for ref in refs:
        store.run("rm", "root", ref, "admin")
    store.nothing_kept()


def test_objects_are_kept_once(store, fake):
    """Whatever repository brings them, and until the last layer that needs them goes."""
    both, one = os.urandom(200000), os.urandom(200000)
    a = fake.add("a/a", "v1", Image([Layer().file("x", both).file("y", one).file("x2", both).tar()]))
    b = fake.add("b/b", "v1", Image([Layer().file("z", both).tar()]))
    store.pull(a)
    first = store.objects()
    assert sorted(first) == sorted(hashlib.sha256(d).hexdigest() for d in (both, one))
    inodes = {n: (store.images / "objects" / n[:2] / n[2:]).stat().st_ino for n in first}
    store.pull(b)
    assert {n: (store.images / "objects" / n[:2] / n[2:]).stat().st_ino for n in store.objects()} == inodes
    assert store.find(a)["size_bytes"] == 600000 and store.find(a)["shared_bytes"] == 0
    check_files(store)
    store.run("rm", "root", a, "admin")
    assert store.objects() == [hashlib.sha256(both).hexdigest()]
    with store.merged(b) as m:
        assert (m / "z").read_bytes() == both
    store.run("rm", "root", b, "admin")
    store.nothing_kept()
    # what a kill between moving and commit leaves is collected, what is needed is not
    store.pull(b)
    stray = store.images / "objects" / "ab"
    stray.mkdir(exist_ok=True)
    (stray / ("0" * 62)).write_bytes(b"1")
    (stray / "junk").write_bytes(b"1")
    (store.images / "metas" / "77").write_bytes(b"1")
    (store.images / "layers" / "77").mkdir()
    store.run("recover")
    check_files(store)
    assert store.objects() == [hashlib.sha256(both).hexdigest()] and os.listdir(store.images / "layers") == ["3"]


def test_a_shortened_object_is_replaced(store, fake):
    data = os.urandom(200000)
    a = fake.add("a/a", "v1", Image([Layer().file("x", data).tar()]))
    b = fake.add("b/b", "v1", Image([Layer().file("y", data).tar()]))
    store.pull(a)
    (name,) = store.objects()
    os.truncate(store.images / "objects" / name[:2] / name[2:], 5)
    store.pull(b)
    check_files(store)
    with store.merged(a) as m:
        assert (m / "x").read_bytes() == data


@pytest.mark.parametrize("busy", [False, True])
def test_objects_that_the_disk_refused(store, fake, busy):
    """They go; and when somebody keeps the collection away, nobody believes them."""
    both, one = os.urandom(200000), os.urandom(200000)
    a = fake.add("a/a", "v1", Image([Layer().file("x", both).tar()]))
    b = fake.add("b/b", "v1", Image([Layer().file("x", both).file("y", one).file("z", one).tar()]))
    store.pull(a)
    (kept,) = store.objects()
    env = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}
    lock = os.open(store.images / "objects", os.O_RDONLY | os.O_DIRECTORY)
    try:
        if busy:
            fcntl.flock(lock, fcntl.LOCK_SH)
        p = subprocess.run(["strace", "-o", "/dev/null", "-e", "trace=syncfs", "-e", "inject=syncfs:error=EIO",
                            *store.argv("pull", b)], capture_output=True, text=True, env=env, timeout=100)
    finally:
        os.close(lock)
    assert p.returncode == 1 and "writing the image to the disk: Input/output error" in p.stderr, p.stderr
    store.nothing_staged()
    modes = {n: stat.S_IMODE((store.images / "objects" / n[:2] / n[2:]).stat().st_mode) for n in store.objects()}
    assert modes.pop(kept) == 0o444, "it was there before"
    name = hashlib.sha256(one).hexdigest()
    assert modes == ({name: 0o1444} if busy else {})
    if busy:  # what it should be, as far as its size tells
        with open(store.images / "objects" / name[:2] / name[2:], "r+b") as f:
            f.write(bytes(4096))
    store.pull(b)
    check_files(store)
    with store.merged(b) as m:
        assert (m / "y").read_bytes() == one and (m / "x").read_bytes() == both


@pytest.mark.parametrize("file", ["index", "objects"])
def test_damaged_layers_are_fetched_again(store, fake, file):
    """A layer whose entries or names are not what they were serves nobody any more."""
    base = Layer().file("x", os.urandom(200000)).tar()
    one = fake.add("a/b", "v1", Image([base]))
    two = fake.add("a/b", "v2", Image([base, Layer().file("y", b"1").tar()]))
    three = fake.add("a/c", "v1", Image([base]))
    store.pull(one)
    store.pull(three)
    with open(store.images / "layers/1" / file, "r+b") as f:
        f.seek(50)
        byte = f.read(1)
        f.seek(50)
        f.write(bytes([byte[0] ^ 1]))
    store.pull(two)
    text = store.run("find", "acc", one, ok=False)
    assert text.startswith("error 2:") and "is damaged on this host: layers/1: " in text, text
    (bad,) = [i for i in store.list() if i["quarantined"]]
    assert bad["reference"] == one
    store.find(three)
    store.pull(one)
    with store.merged(one) as m:
        assert os.listdir(m) == ["x"]
    store.run("rm", "root", two, "admin")       # sweeps what was condemned
    assert len(store.layers()) == 2 and store.layers()[0] != "1"
    check_files(store)


def test_old_stores_are_refused(store):
    store.images.mkdir(parents=True)
    with contextlib.closing(sqlite3.connect(store.images / "images.db")) as db:
        db.execute("PRAGMA user_version = 1")
    p = subprocess.run(store.argv("list", "acc"), capture_output=True)
    assert p.returncode == 2 and b"before the first release" in p.stderr
    shutil.rmtree(store.images)


def test_layer_removed_while_pulling(store, fake):
    """The pull began with a layer that was here; it is not when the image is published."""
    base, top = Layer().file("base", b"1").tar(), Layer().file("top", os.urandom(200000)).tar()
    old = fake.add("a/b", "old", Image([base]))
    store.pull(old)
    new = Image([base, top])
    ref = fake.add("a/b", "new", new)
    hang = fake.fault(new.layers[1]["digest"], Hang(at=1000, seconds=1, times=1))
    proc = subprocess.Popen(store.argv("pull", ref), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    for _ in range(200):
        if hang.left == 0:
            break
        time.sleep(0.02)
    store.run("rm", "root", old, "admin")
    store.nothing_kept()
    err = proc.communicate(timeout=60)[1]
    assert proc.returncode == 0, err
    with store.merged(ref) as m:
        assert sorted(os.listdir(m)) == ["base", "top"]
    store.nothing_staged()


def test_names(store, fake):
    one, two = Image([Layer().file("one", b"1").tar()]), Image([Layer().file("two", b"2").tar()])
    ref = fake.add("a/b", "v1", one)
    store.pull(ref)
    fake.add("a/b", "v1", two)
    store.pull(ref)                      # the tag has moved
    assert store.find(ref)["digest"] == two.digest
    assert [i["reference"] for i in store.list()] == [ref]
    assert "belongs to all accounts" in store.run("rm", "acc", ref, ok=False)
    assert "no image" in store.run("rm", "acc", f"{fake.host}/a/c", "admin", ok=False)
    assert "a cluster runs" in store.run("rm", "root", ref, "admin", two.digest, ok=False)
    store.run("rm", "root", ref, "admin", one.digest)   # `one` has no name but is in use
    assert len(store.layers()) == 1 and store.list() == []
    store.pull(ref)
    store.run("rm", "root", ref, "admin")
    store.nothing_kept()


def layout_tar(image, tmp_path, *options):
    layout = image.write_layout(str(tmp_path / f"layout-{image.digest[7:15]}"))
    return subprocess.run(["tar", "-C", layout, *options, "-cf", "-", "."], stdout=subprocess.PIPE, check=True).stdout


def test_imports(store, tmp_path):
    tars = rich_layers()
    image = Image(tars, config={"Entrypoint": ["/e"], "Cmd": ["c"], "Env": ["A=b"], "User": "7:8",
                                "WorkingDir": "/w", "StopSignal": "SIGINT"})
    rootfs = umoci(image.write_layout(str(tmp_path / "l")), tmp_path)
    import gzip
    uploads = {"layout": layout_tar(image, tmp_path), "archive": docker_archive(image, tars),
               "links": docker_archive(image, tars, links=True),
               "packed": gzip.compress(docker_archive(image, tars), 1)}
    for name, data in uploads.items():
        store.run("import", "acc", name, stdin=data)
        found = store.find(name)
        assert found["reference"] == f"docker.io/library/{name}:latest" and found["account"] == "acc"
        assert (found["entrypoint"], found["command"], found["env"]) == (["/e"], ["c"], ["A=b"])
        assert (found["user"], found["working_dir"], found["stop_signal"]) == ("7:8", "/w", "SIGINT")
        with store.merged(name) as merged:
            assert_same_trees(merged, rootfs, SKIP)
        store.nothing_staged()
    assert len(store.layers()) == 2, "all four are the same layers"
    assert store.find("layout")["digest"] == image.digest


def test_import_visibility(store, tmp_path):
    mine, public = (layout_tar(Image([Layer().file(n, b"1").tar()]), tmp_path) for n in ("mine", "public"))
    store.run("import", "acc", "ubuntu", stdin=mine)
    assert store.find("ubuntu", "acc")["account"] == "acc"
    assert "not on this host" in store.run("find", "other", "ubuntu", ok=False)
    store.run("import", "root", "ubuntu", "public", stdin=public)
    assert store.find("ubuntu", "other")["account"] == "root" and store.find("ubuntu", "other")["public"]
    assert store.find("ubuntu", "acc")["account"] == "acc", "one's own comes first"
    assert len(store.list("other")) == 1 and len(store.list("acc")) == 2 and len(store.list("x", "admin")) == 2
    assert "another account" in store.run("rm", "other", "ubuntu", ok=False)
    store.run("rm", "acc", "ubuntu")
    assert store.find("ubuntu", "acc")["account"] == "root"


def test_bad_imports(store, tmp_path):
    tars = [Layer().file("x", b"1").tar()]
    image = Image(tars)
    good = image.write_layout(str(tmp_path / "good"))
    pack = lambda d: subprocess.run(["tar", "-C", d, "-cf", "-", "."], stdout=subprocess.PIPE, check=True).stdout
    cases = [(b"", "neither an OCI layout"), (b"junk", "not a tar"), (pack(good)[:2000], "not a tar, or damaged"),
             (Layer().file("other", b"").tar(), "neither an OCI layout"),
             (Layer().file("../index.json", b"{}").tar(), "climbs out"),
             (Layer().file("index.json", b"{}").tar(), ""),
             (Layer().symlink("index.json", "/etc/passwd").tar(), "neither an OCI layout"),
             (Layer().symlink("index.json", "index.json").tar(), "neither an OCI layout"),
             (Layer().file("manifest.json", b"[]").tar(), "holds 0 images"),
             (Layer().file("manifest.json", b'[{"Config":"c","Layers":["l"]}]').tar(), "the upload has no c"),
             (docker_archive(Image(tars, diff_ids=["sha256:" + "1" * 64]), tars), "diff id"),
             (docker_archive(Image(tars, arch="vax"), tars), "image for vax")]
    broken = shutil.copytree(good, tmp_path / "broken")
    (broken / "blobs/sha256" / image.layers[0]["digest"][7:]).write_bytes(b"other")
    cases.append((pack(broken), "missing or damaged"))
    (broken / "blobs/sha256" / image.digest[7:]).write_bytes(b"{}")
    cases.append((pack(broken), "its digest is"))
    for data, message in cases:
        text = store.fails("import", "acc", "bad", stdin=data)
        assert message in text, (data[:60], text)
    assert "upper" in store.fails("import", "acc", "Bad/NAME", stdin=b"") or True
    assert "digest" in store.fails("import", "acc", "x@sha256:" + "0" * 64, stdin=b"")
    store.options = ["--max-mib", "1"]
    big = docker_archive(image, [os.urandom(2 << 20)])
    assert "more than the 1 MiB" in store.fails("import", "acc", "big", stdin=big)
    store.nothing_kept()
    assert store.list() == []


# --- kill -9 at any instant --------------------------------------------------------------------

def check_files(store):
    """Owners, modes and hashes of all that was published are what docs/image-store.md says."""
    for path in store.images.rglob("*"):
        st = path.lstat()
        assert (st.st_uid, st.st_gid) == (0, 0), path
        if "images.db" in path.name or path.is_dir():
            continue
        assert stat.S_ISREG(st.st_mode) and stat.S_IMODE(st.st_mode) == 0o444 and st.st_nlink == 1, path
    for name in store.objects():
        assert hashlib.sha256((store.images / "objects" / name[:2] / name[2:]).read_bytes()).hexdigest() == name
    named = set()
    with contextlib.closing(sqlite3.connect(f"file:{store.images}/images.db?mode=ro", uri=True)) as db:
        for n, index, names, pack_bytes, objects in db.execute(
                "SELECT n, index_sha, names_sha, pack_bytes, objects FROM layer"):
            layer = store.images / "layers" / str(n)
            assert hashlib.sha256((layer / "index").read_bytes()).hexdigest() == index
            assert (layer / "pack").stat().st_size == pack_bytes
            assert (layer / "objects").exists() == bool(objects)
            if objects:
                data = (layer / "objects").read_bytes()
                assert hashlib.sha256(data).hexdigest() == names
                named |= {data[i:i + 32].hex() for i in range(16, len(data), 40)} - {"00" * 32}
        for i, sha in db.execute("SELECT id, meta_sha FROM image"):
            assert hashlib.sha256((store.images / "metas" / str(i)).read_bytes()).hexdigest() == sha
    assert sorted(named) == store.objects()


def whole_or_nothing(store, ref, expect):
    """After a kill and a recovery: the complete image, or no trace."""
    store.run("recover")
    store.nothing_staged()
    names = [i["reference"] for i in store.list("x", "admin")]
    if not names:
        store.nothing_kept()
        return False
    assert names == [ref]
    with store.merged(ref) as m:
        assert tree_of(m) == expect
    assert len(store.layers()) == len(store.find(ref)["devices"]) and os.listdir(store.images / "metas") == ["1"]
    check_files(store)
    return True


@pytest.mark.limit(300)
def test_killed_at_random_instants(store, fake, tmp_path):
    seed = random.randrange(1 << 32)
    print("seed", seed)
    rng = random.Random(seed)
    layers = [Layer().dir(f"d{i}").file(f"d{i}/f", rng.randbytes(200000)).file(f"x{i}/implied", b"1").opaque(f"d{i}").tar()
              for i in range(3)]
    ref = fake.add("a/kill", "v1", Image(layers))
    began = time.monotonic()
    store.pull(ref)
    whole = time.monotonic() - began
    with store.merged(ref) as m:
        expect = tree_of(m)
    done = 0
    for i in range(100):
        shutil.rmtree(store.images)
        proc = subprocess.Popen(store.argv("pull", ref), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"})  # it waits for its helper for ever
        time.sleep(rng.uniform(0, whole * 1.2))
        victims = {}
        if proc.poll() is None:  # the operation itself, what reads the stranger's bytes, what checks it
            victims = {0: fetchers(proc.pid), 1: fetchers(proc.pid, "imagectl")}.get(i % 4)
        for pid in victims or [proc.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        proc.wait(20)
        done += whole_or_nothing(store, ref, expect)
    print("complete", done, "of 100")
    store.pull(ref)
    assert whole_or_nothing(store, ref, expect)


class CutDisk:
    """A file system of its own, whose power goes: what was not on its disk by then has never been."""
    SHUTDOWN, NOTHING_FLUSHED = 0x8004587d, struct.pack("I", 2)  # EXT4_IOC_SHUTDOWN

    def __init__(self, path):
        self.path, self.at, self.n = path, path / "cut", 0
        self.at.mkdir()
        with open(path / "disk", "wb") as f:
            f.truncate(160 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", path / "disk"], check=True)
        self.file = path / "disk"
        self.store = Store(self.at / "data")

    def __enter__(self):
        subprocess.run(["mount", "-o", "loop", self.file, self.at], check=True)
        return self

    def __exit__(self, *_):
        subprocess.run(["sync", "-f", self.at], check=False, stderr=subprocess.DEVNULL)  # nothing, after a cut
        subprocess.run(["umount", "-l", self.at], check=True)

    def become(self, other):
        """What is on @other, on a disk that nobody has ever mounted: somebody's mount namespace may keep the old one."""
        self.n += 1
        new = self.path / f"disk{self.n}"
        subprocess.run(["cp", "--sparse=always", other, new], check=True)
        if self.n > 1:
            self.file.unlink()
        self.file = new

    def cut(self):
        fd = os.open(self.at, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(fd, self.SHUTDOWN, self.NOTHING_FLUSHED)
        finally:
            os.close(fd)


@pytest.mark.limit(300)
@pytest.mark.parametrize("what", ["pull", "expire"])
def test_power_is_cut(fake, store, tmp_path, what):
    """At random instants.  What a pull has said to be here stays; everything else is whole or nothing."""
    seed = random.randrange(1 << 32)
    print("seed", seed)
    rng = random.Random(seed)
    base = Layer().file("base/large", rng.randbytes(1 << 20)).file("base/small", rng.randbytes(30000)).tar()
    own = [Layer().dir(f"d{i}").file(f"d{i}/f", rng.randbytes(300000)).file(f"d{i}/g", b"1").tar() for i in range(2)]
    refs = [fake.add("a/first", "v1", Image([base])), fake.add("a/second", "v1", Image([base, *own])),
            fake.add("b/other", "v1", Image([base, own[0]]))]  # its layers anew, its objects not
    first, tried = refs[0], refs[1:] if what == "pull" else refs[:1]
    disk, expect, seen, took = CutDisk(tmp_path), {}, set(), 0.1
    small = disk.store
    small.registries = store.registries
    with disk:
        for ref in [first, *tried]:
            began = time.monotonic()
            small.pull(ref)
            took = time.monotonic() - began if what == "pull" else 0.05
            with small.merged(ref) as m:
                expect[ref] = tree_of(m)
        if what == "pull":
            for ref in tried:
                small.run("rm", "acc", ref, "admin")
            small.run("recover")
        else:
            small.pull(refs[1])
            with small.merged(refs[1]) as m:
                expect[refs[1]] = tree_of(m)
            with contextlib.closing(sqlite3.connect(small.images / "images.db")) as db:
                db.execute("UPDATE name SET created_us = 1, used_us = 1 WHERE reference = ?", (first,))
                db.commit()
    prepared = disk.file
    kept = first if what == "pull" else refs[1]
    for i in range(30):
        disk.become(prepared)
        ref = rng.choice(tried)
        argv = ["pull", ref] if what == "pull" else ["--keep", "60", "expire", "0"]
        with disk:
            engine = sqlite3.connect(small.images / "images.db")  # else whoever closes it last writes it out
            engine.execute("SELECT count(*) FROM image").fetchone()
            proc = subprocess.Popen(small.argv(*argv), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                    env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"})
            with contextlib.suppress(subprocess.TimeoutExpired):
                proc.wait(rng.uniform(0, took * 1.2) if i % 5 else 60)  # or a moment after its end
            over = proc.poll() == 0
            disk.cut()
            proc.kill()
            proc.wait()
            with contextlib.suppress(sqlite3.Error):
                engine.close()
        disk.become(disk.file)
        with disk:
            small.run("recover")
            names = {x["reference"] for x in small.list("x", "admin")}
            assert names in ({kept}, {kept, ref}), names
            if over:
                assert (ref in names) == (what == "pull"), "what was said to be done is not"
            for name in names:
                with small.merged(name) as m:
                    assert tree_of(m) == expect[name]
            small.run("sweep")
            small.nothing_staged()
            check_files(small)
            with contextlib.closing(sqlite3.connect(small.images / "images.db")) as db:
                assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            seen.add((over, ref in names))
            small.pull(ref)
    assert len(seen) > 1, seen
    print(sorted(seen))


STATE_CALLS = ("mkdirat,renameat,renameat2,rename,fsync,fdatasync,syncfs,unlinkat,pwrite64,ftruncate,clone3,clone,"
               "fchmod,fchown")


@pytest.mark.limit(600)
def test_killed_at_each_state_changing_call(store, fake, tmp_path):
    """strace finds the calls of one pull's operation process; each pull is killed before another one."""
    layers = [Layer().dir("d").file("d/f", b"1").opaque("d").file("big", os.urandom(150000)).tar(),
              Layer().file("t/g", b"2").tar()]
    ref = fake.add("a/steps", "v1", Image(layers))
    store.options = ["--parallel", "1"]
    log = tmp_path / "trace"
    # the search for leaks does not work under strace
    env = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}
    subprocess.run(["strace", "-o", log, "-e", f"trace={STATE_CALLS}", *store.argv("pull", ref)],
                   check=True, capture_output=True, env=env)
    calls = [m[1] for m in (re.match(r"(\w+)\(", l) for l in log.read_text().splitlines()) if m]
    assert {"syncfs", "renameat", "renameat2", "fchown", "fsync"} <= set(calls)
    with store.merged(ref) as m:
        expect = tree_of(m)
    count, outcomes = {}, []
    for name in calls:
        count[name] = count.get(name, 0) + 1
        shutil.rmtree(store.images)
        p = subprocess.run(["strace", "-o", "/dev/null", "-e", f"trace={STATE_CALLS}",
                            "-e", f"inject={name}:signal=KILL:when={count[name]}", *store.argv("pull", ref)],
                           capture_output=True, env=env)
        assert p.returncode != 0, f"{name} number {count[name]} was not reached"
        outcomes.append(whole_or_nothing(store, ref, expect))
    assert outcomes[0] is False and outcomes[-1] is True, outcomes
    print(len(calls), "calls,", sum(outcomes), "after the commit")
