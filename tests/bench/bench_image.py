"""B=image: from a registry to a mounted image, beside skopeo + umoci and podman in the same run.

The registry is Debian's docker-registry on loopback; everything is below /var/tmp and goes at the end.
Ours: from the API's request to pull until its last line, which comes when the image has been published
and can be mounted.  `make bench B=image` prints, in this order:

pull_ready_s      a Debian with Python (build/images/llm-starter)
delta_ratio       an image on the same base: bytes from the registry and bytes that all processes wrote,
                  each divided by its own layer and metadata; the worse of both
pull_rate_ratio   4 GB, 60 layers, 50,000 files: rate of the pull by the slower of inflating and hashing
                  the same bytes on all CPUs; what the disk takes is printed with it
fetch_peak_mb     most memory that a vmm-fetch had during that
mount_ms          mount and unmount of 1, 60 and 120 layers, for a cluster of an image in use; `first`:
                  for the first cluster of an image, its EROFS included
read_*            inside a cluster, and in an ext4 directory with the same files
share_mb          what a second image with the same 1 GB library adds to disk and page cache
"""
import contextlib
import json
import mmap
import os
import pathlib
import re
import shutil
import socket
import sqlite3
import statistics
import subprocess
import tempfile
import threading
import time

import requests

from host import BUILD, Host, image_layout
from ocimake import ARCH, OCI, Layer, compress, sha256

CONFIG = {"engine": {"cpu_overcommit": 100, "memory_overcommit": 20, "disk_overcommit": 100,
                     "log_level": "warning"}}
ROUNDS = 4
LAYERS, SMALL, SMALL_BYTES, BIG, BIG_BYTES = 59, 835, 8192, 12, 5100000
LIBRARY_BYTES = 1 << 30
TOOL_S = 200  # what any single program of a peer may take


def sh(*words, **kw):
    done = subprocess.run([str(w) for w in words], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, timeout=TOOL_S, **kw)
    if done.returncode:
        raise RuntimeError("%s: %s" % (words, done.stderr[-2000:]))
    return done.stdout


def tool(name, *args):
    return sh(BUILD / "tests/flow/image" / name, *args)


class Layout:
    """An OCI layout whose blobs come from files: too large for memory."""

    def __init__(self, path):
        self.path = path
        self.blobs = path / "blobs/sha256"
        self.blobs.mkdir(parents=True)
        self.layers, self.diff_ids, self.plain_bytes = [], [], 0

    def put(self, data, media):
        digest = sha256(data)
        (self.blobs / digest[7:]).write_bytes(data)
        return {"mediaType": media, "digest": digest, "size": len(data)}

    def add(self, tar):
        self.layers.append(self.put(compress(tar, "gzip"), OCI + "layer.v1.tar+gzip"))
        self.diff_ids.append(sha256(tar))
        self.plain_bytes += len(tar)

    def make(self, seed, layers, small, small_bytes, big, big_bytes, big_seed=0):
        where = self.path / "made"
        where.mkdir()
        lines = tool("bench_layers", "make", where, seed, layers, small, small_bytes, big, big_bytes,
                     big_seed).splitlines()
        for n, digest, size, diff_id, plain in sorted((l.split() for l in lines), key=lambda w: int(w[0])):
            (where / n).rename(self.blobs / digest[7:])
            self.layers.append({"mediaType": OCI + "layer.v1.tar+gzip", "digest": digest, "size": int(size)})
            self.diff_ids.append(diff_id)
            self.plain_bytes += int(plain)
        where.rmdir()

    def finish(self):
        config = {"architecture": ARCH, "os": "linux", "config": {"Cmd": ["/bin/sleep", "1000"]},
                  "rootfs": {"type": "layers", "diff_ids": self.diff_ids}}
        manifest = {"schemaVersion": 2, "mediaType": OCI + "manifest.v1+json", "layers": self.layers,
                    "config": self.put(json.dumps(config).encode(), OCI + "config.v1+json")}
        entry = self.put(json.dumps(manifest).encode(), OCI + "manifest.v1+json")
        entry["annotations"] = {"org.opencontainers.image.ref.name": "latest"}
        (self.path / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        (self.path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
        return self.path

    def files(self):
        return [self.blobs / l["digest"][7:] for l in self.layers]


def base_layer(number=0):
    """Runs `sleep`; @number makes it another one."""
    return Layer().busybox("sh", "sleep").dir("tmp", mode=0o1777).file("number", b"%d" % number).tar()


class Registry:
    """A real docker-registry; counts what it sends."""

    def __init__(self, path):
        self.path, self.log = path, path / "log"
        (path / "d").mkdir(parents=True)

    def __enter__(self):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        self.host = "127.0.0.1:%d" % port
        (self.path / "conf").write_text(
            "version: 0.1\nlog: {accesslog: {disabled: true}, level: info, formatter: json}\n"
            "storage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: '%s'}\n" % (self.path / "d", self.host))
        with self.log.open("wb") as log:
            self.proc = subprocess.Popen(["docker-registry", "serve", str(self.path / "conf")],
                                         stdout=log, stderr=log)
        end = time.monotonic() + 20
        while time.monotonic() < end and self.proc.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return self
            time.sleep(0.05)
        self.__exit__()
        raise RuntimeError("docker-registry did not start: %s" % self.log.read_text()[-1000:])

    def __exit__(self, *exc):
        self.proc.terminate()
        self.proc.wait(10)

    def push(self, layout, name):
        sh("skopeo", "copy", "-q", "--dest-tls-verify=false", "oci:%s:latest" % layout,
           "docker://%s/%s" % (self.host, name))
        return "%s/%s" % (self.host, name)

    def sent(self):
        """Bytes of all answers to GET so far."""
        time.sleep(0.3)
        lines = [json.loads(l) for l in self.log.read_text().splitlines() if l.startswith("{")]
        return sum(int(l.get("http.response.written", 0)) for l in lines
                   if l.get("http.request.method") == "GET")


def pull(host, ref):
    """Seconds until @ref is mountable."""
    begin = time.perf_counter()
    with requests.post(host.url + "/v1/images/pull", json={"reference": ref}, stream=True, timeout=TOOL_S,
                       headers={"Authorization": "Bearer " + host.key}) as answer:
        last = [json.loads(line) for line in answer.iter_lines()][-1]
    if "digest" not in last:
        raise RuntimeError("pull %s: %s" % (ref, last))
    return time.perf_counter() - begin


def stored(host):
    """{inode: bytes} of packs, indexes, objects and metadata."""
    found = {}
    for part in ("layers", "objects", "metas"):
        for top, _, names in os.walk(host.data / "images" / part):
            for name in names:
                st = os.stat(os.path.join(top, name))
                found[st.st_ino] = st.st_blocks * 512
    return found


def written(host):
    """Bytes that the engine and all its processes wrote, those that have ended included."""
    text = pathlib.Path("/proc/%d/io" % host.pid).read_text()
    return int(re.search(r"^write_bytes: (\d+)", text, re.M)[1])


class Memory(threading.Thread):
    """Free memory that the machine really has.  A virtual one gets it from its hypervisor at the first
    touch, ten times as slow as a copy, and loses again what nobody has used for two seconds; then that
    is what is measured, with us and with peers.  Each program that is timed therefore begins with some
    that is in place; @per_s more bytes are given back in each second while it runs."""

    GROUND, STEP_S = 512 << 20, 0.1

    def __init__(self, per_s=0, seconds=0):
        super().__init__(daemon=True)
        self.step, self.ended = int(per_s * self.STEP_S) & ~(mmap.PAGESIZE - 1), threading.Event()
        self.size = self.GROUND + self.step * int(seconds / self.STEP_S)

    @staticmethod
    def touch(m):
        m[::mmap.PAGESIZE] = bytes([1]) * (len(m) // mmap.PAGESIZE)

    def __enter__(self):
        self.held = mmap.mmap(-1, self.size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.touch(self.held)
        self.held.madvise(mmap.MADV_DONTNEED, 0, self.GROUND)
        if self.step:
            self.start()

    def __exit__(self, *exc):
        self.ended.set()
        if self.step:
            self.join()
        self.held.close()

    def run(self):
        for at in range(self.GROUND, self.size, self.step or 1):
            self.held.madvise(mmap.MADV_DONTNEED, at, min(self.step, self.size - at))
            if self.ended.wait(self.STEP_S):
                return

    @classmethod
    def speeds(cls):
        """MB/s of the first touch, and of one right after it."""
        for _ in range(2):
            with mmap.mmap(-1, cls.GROUND, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as m:
                m.madvise(mmap.MADV_NOHUGEPAGE)
                begin = time.perf_counter()
                cls.touch(m)
                yield cls.GROUND / 1e6 / (time.perf_counter() - begin)


# --- figures -----------------------------------------------------------------------------------

def peers(work, ref):
    """Seconds from the registry to a root file system: skopeo + umoci, podman.  What they made stays
    until all are done: ext4 is slow to give away inodes that were freed a moment ago."""
    times = {"skopeo+umoci": [], "podman": []}
    for i in range(3):
        oci = "oci:%s:x" % (work / ("oci%d" % i))
        with Memory():
            begin = time.perf_counter()
            sh("skopeo", "copy", "-q", "--src-tls-verify=false", "docker://" + ref, oci)
            sh("umoci", "unpack", "--image", oci[4:], work / ("bundle%d" % i))
            times["skopeo+umoci"].append(time.perf_counter() - begin)
    for i in range(2):
        root = work / ("podman%d" % i)
        podman = ["podman", "--root", root, "--runroot", root / "run", "--storage-driver", "overlay"]
        try:
            with Memory():
                begin = time.perf_counter()
                sh(*podman, "pull", "-q", "--tls-verify=false", ref)
                times["podman"].append(time.perf_counter() - begin)
        finally:
            for mount in (root / "overlay", root):
                subprocess.run(["umount", str(mount)], stderr=subprocess.DEVNULL)
    return {name: statistics.median(v) for name, v in times.items()}


def pull_ready(start, registry, work, figures):
    """On a new host each time, with nothing in its store."""
    layout = image_layout("llm-starter")
    ref = registry.push(layout, "python:1")
    manifest = json.loads((layout / "index.json").read_text())["manifests"][0]["digest"][7:]
    layers = json.loads((layout / "blobs/sha256" / manifest).read_text())["layers"]
    theirs, ours = peers(work, ref), []
    with contextlib.ExitStack() as hosts:
        for _ in range(ROUNDS):
            host = hosts.enter_context(start())
            with Memory():
                ours.append(pull(host, ref))
            size = sum(stored(host).values())
    print("image of pull_ready_s: %.0f MB from the registry, %.0f MB on the disk; rounds %s" % (
        sum(l["size"] for l in layers) / 1e6, size / 1e6, " ".join("%.2f" % t for t in ours)))
    for peer, value in theirs.items():
        figures.add("image.pull_ready_s" + ("" if "umoci" in peer else "_vs_podman"),
                    statistics.median(ours), "s", peer, value)


def delta(host, registry, work, figures):
    base, top = base_layer(1), work / "top"
    first = Layout(work / "first")
    first.add(base)
    first.make(1000, 1, 2000, SMALL_BYTES, 10, BIG_BYTES)
    pull(host, registry.push(first.finish(), "delta:1"))
    second = Layout(top)
    second.add(base)
    second.make(1000, 2, 2000, SMALL_BYTES, 10, BIG_BYTES)
    ref = registry.push(second.finish(), "delta:2")
    own = second.layers[2]["size"] + sum(f.stat().st_size for f in second.blobs.iterdir() if f.stat().st_size < 20000)
    had, sent, wrote = stored(host), registry.sent(), written(host)
    pull(host, ref)
    time.sleep(0.5)  # the operation's process has been waited for
    sent, wrote, now = registry.sent() - sent, written(host) - wrote, stored(host)
    kept = sum(now[i] for i in set(now) - set(had))
    figures.add("image.delta_sent_ratio", sent / own, "of its own %.1f MB" % (own / 1e6))
    figures.add("image.delta_written_ratio", wrote / kept, "of its own %.1f MB" % (kept / 1e6))
    figures.add("image.delta_ratio", max(sent / own, wrote / kept), "of its own layer and metadata")
    for name in ("delta:1", "delta:2"):
        host.rest("DELETE", "/v1/images", params={"reference": "%s/%s" % (registry.host, name)}).raise_for_status()


class Peak(threading.Thread):
    """The most memory that any vmm-fetch of @host has had."""

    def __init__(self, host):
        super().__init__(daemon=True)
        self.host, self.kb, self.ended = host, 0, threading.Event()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *exc):
        self.ended.set()
        self.join()

    def run(self):
        while not self.ended.wait(0.1):
            for pid in self.host.descendants("vmm-fetch"):
                with contextlib.suppress(OSError, TypeError):
                    text = pathlib.Path("/proc/%d/status" % pid).read_text()
                    self.kb = max(self.kb, int(re.search(r"VmHWM:\s+(\d+)", text)[1]))


def disk_rate(work, size=2 << 30):
    """MB/s of plain writing and one fsync: what no pull on this disk can pass for long."""
    data, begin = os.urandom(1 << 20), time.perf_counter()
    with (work / "written").open("wb") as f:
        for _ in range(size >> 20):
            f.write(data)
        f.flush()
        os.fsync(f.fileno())
    took = time.perf_counter() - begin
    (work / "written").unlink()
    return size / 1e6 / took


def pull_rate(host, registry, work, figures):
    big = Layout(work / "big")
    big.add(base_layer(2))
    big.make(1, LAYERS, SMALL, SMALL_BYTES, BIG, BIG_BYTES)
    ref = registry.push(big.finish(), "big:1")
    sh("sync", "-f", work)
    with Memory(600e6, 5):
        to_disk = disk_rate(work)
    with Peak(host) as peak, Memory(600e6, 20):
        took = pull(host, ref)
    total, inflate_s, hash_s = tool("bench_layers", "cost", *big.files()).split()
    inflate, sha = (int(total) / 1e6 / float(s) for s in (inflate_s, hash_s))
    rate = big.plain_bytes / 1e6 / took
    slower = "inflate" if inflate < sha else "sha-256"
    print("image of pull_rate_ratio: %.2f GB in %d layers, %.2f GB from the registry, %.1f s; all CPUs: inflate "
          "%.0f MB/s, SHA-256 %.0f MB/s; disk %.0f MB/s" % (
              big.plain_bytes / 1e9, len(big.layers), sum(l["size"] for l in big.layers) / 1e9, took,
              inflate, sha, to_disk))
    figures.add("image.pull_rate", rate, "MB/s", slower, min(inflate, sha), higher_is_better=True)
    figures.add("image.pull_rate_vs_disk", rate, "MB/s", "write+fsync", to_disk, higher_is_better=True)
    figures.add("image.pull_rate_ratio", rate / min(inflate, sha), "of " + slower)
    figures.add("image.fetch_peak_mb", peak.kb / 1024, "MB")
    shutil.rmtree(big.path)
    return ref


def parts_of(host, ref):
    """Metadata and packs of an image, as the kernel needs them."""
    with tempfile.TemporaryDirectory() as tmp:
        for f in host.data.glob("images/images.db*"):
            shutil.copy(f, tmp)
        with contextlib.closing(sqlite3.connect(tmp + "/images.db")) as db:
            row = db.execute("SELECT i.id, i.devices FROM image i JOIN name n ON n.image = i.id"
                             " WHERE n.reference LIKE ?", ("%" + ref + "%",)).fetchone()
    images = host.data / "images"
    packs = re.findall(r"\d+", row[1])
    return images / "metas" / str(row[0]), [images / "layers" / n / "pack" for n in packs]


@contextlib.contextmanager
def disk(work):
    """An ext4 of its own on a loop device, as a cluster has for what it writes."""
    file, at = work / "disk.ext4", work / "upper"
    at.mkdir()
    with file.open("wb") as f:
        f.truncate(256 << 20)
    sh("mkfs.ext4", "-q", file)
    sh("mount", "-o", "loop", file, at)
    try:
        yield at
    finally:
        sh("umount", at)
        file.unlink()


def mounts(host, work, upper, figures):
    objects = host.data / "images/objects"
    one = None
    for n in (1, 60, 120):
        layout = Layout(work / ("mount%d" % n))
        layout.add(base_layer(n))
        for i in range(1, n):
            layout.add(Layer().dir("d%d" % i).file("d%d/small" % i, b"%d" % i).tar())
        name = "bench/layers-%03d" % n
        host.import_image(name, layout.finish())
        meta, packs = parts_of(host, name)
        assert len(packs) == n, packs
        got = dict(l.split() for l in tool("bench_image", "mount", "-", meta, objects, upper, 300,
                                           *packs).splitlines())
        got = {k: float(v) for k, v in got.items()}
        one = one or got
        figures.add("image.mount_ms_%d_layers" % n, got["next"], "ms", "1 layer", one["next"])
        figures.add("image.mount_first_ms_%d_layers" % n, got["first"], "ms", "1 layer", one["first"])
    figures.add("image.mount_ms", got["next"], "ms")
    sh("mount", "-t", "tmpfs", "tmpfs", upper)  # what is left without the cluster's ext4
    try:
        out = tool("bench_image", "mount", "-", meta, objects, upper, 300, *packs)
    finally:
        sh("umount", upper)
    for line in out.splitlines():
        name, value = line.split()
        figures.add("image.mount_%s_ms_on_tmpfs" % name, float(value), "ms")


def reads(host, work, ref, figures):
    cluster = host.deploy(imageName=ref, dockerArgs="sleep 1000")
    host.wait_running(cluster)
    pid = host.first_pid(cluster)
    plain = work / "plain"
    plain.mkdir()
    copy = subprocess.Popen(["nsenter", "-t", str(pid), "-m", "/bin/busybox", "tar", "-cf", "-", "data"],
                            stdout=subprocess.PIPE)
    sh("tar", "-xf", "-", "-C", plain, stdin=copy.stdout)
    assert copy.wait(TOOL_S) == 0
    sh("sync", "-f", work)
    ours, theirs, overlay = {}, {}, {}
    over = work / "over"
    for d in ("upper", "work", "merged"):
        (over / d).mkdir(parents=True)
    sh("mount", "-t", "overlay", "overlay", over / "merged", "-o",
       "lowerdir=%s,upperdir=%s,workdir=%s" % (plain, over / "upper", over / "work"))
    trees = ((ours, pid, "/data"), (theirs, "-", plain / "data"), (overlay, "-", over / "merged/data"))
    try:
        read_trees(trees)
    finally:
        sh("umount", over / "merged")
    units = {"sequential": "MB/s", "random": "reads/s", "stat": "files/s", "small": "files/s"}
    for name, unit in units.items():
        figures.add("image.read_" + name, statistics.mean(ours[name]), unit, "ext4 directory",
                    statistics.mean(theirs[name]), higher_is_better=True)
        figures.add("image.read_%s_vs_overlay" % name, statistics.mean(ours[name]), unit, "overlay on ext4",
                    statistics.mean(overlay[name]), higher_is_better=True)
    for suffix, peer in (("", theirs), ("_vs_overlay", overlay)):
        figures.add("image.read_ratio" + suffix,
                    min(sum(ours[k]) / sum(peer[k]) for k in ("sequential", "random", "stat")),
                    "worst of sequential, random, stat")
    host.terminate(cluster)
    host.wait_released(60)
    shutil.rmtree(plain)


def read_trees(trees):
    """Each twice, in turns: what else the machine does hits all."""
    for values, of, tree in trees * 2:
        for line in tool("bench_image", "read", of, tree, 5).splitlines():
            name, value = line.split()
            values.setdefault(name, []).append(float(value))


def share(host, registry, work, figures):
    """Two images whose own layers differ, each with the same library in it."""
    clusters, disk = [], []
    for i in range(2):
        layout = Layout(work / ("share%d" % i))
        layout.add(base_layer(3))
        layout.make(2000 + i, 1, 100, SMALL_BYTES, 1, LIBRARY_BYTES, 77)
        ref = registry.push(layout.finish(), "share:%d" % i)
        shutil.rmtree(layout.path)
        had = stored(host)
        pull(host, ref)
        now = stored(host)
        disk.append(sum(now[k] for k in set(now) - set(had)) / 1e6)
        clusters.append(host.deploy(imageName=ref, dockerArgs="sleep 1000"))
        host.wait_running(clusters[-1])
    path = "/data/%d/big0"
    pids = [host.first_pid(c) for c in clusters]
    sh("nsenter", "-t", pids[0], "-m", "/bin/busybox", "sh", "-c", "/bin/busybox cat %s >/dev/null" % (path % 2000))
    held, size = map(int, tool("bench_image", "cached", pids[1], path % 2001).split())
    print("share: first image %.0f MB on the disk, the second adds %.0f MB; of its %.0f MB library %.0f MB are in the "
          "page cache after the first one's was read" % (disk[0], disk[1], size / 1e6, held / 1e6))
    figures.add("image.share_disk_mb", disk[1], "MB", "not shared", disk[0])
    figures.add("image.share_cache_mb", (size - held) / 1e6, "MB")
    figures.add("image.share_mb", disk[1] + (size - held) / 1e6, "MB", "not shared", disk[0] + size / 1e6)
    for c in clusters:
        host.terminate(c)


def run(figures):
    work = pathlib.Path(tempfile.mkdtemp(prefix="hvmm-bench.", dir="/var/tmp"))
    print("%d CPUs; kernel %s; memory: first touch %.0f MB/s, then %.0f MB/s" % (
        os.cpu_count(), os.uname().release, *Memory.speeds()))
    try:
        with Registry(work / "registry") as registry:
            def start():
                return Host(dict(CONFIG, **{'registry "%s"' % registry.host: {"insecure": "yes"}}))

            pull_ready(start, registry, work, figures)
            with start() as host:
                delta(host, registry, work, figures)
                with disk(work) as upper:
                    mounts(host, work, upper, figures)
                ref = pull_rate(host, registry, work, figures)
                reads(host, work, ref, figures)
                share(host, registry, work, figures)
    finally:
        shutil.rmtree(work, ignore_errors=True)
