"""B=isolation: what it costs that clusters are held.

policy_ms: how much longer a boot takes than one in a build whose policy is empty (the same programs,
linked with tests/bench/bare_policy.c), after everything that pools do ahead; boot_ms_* also without
pools.  The least of many runs, because what a policy adds is work, not waiting.
syscall_ratio: how fast work that is mostly system calls is inside, the host being 1: calls of getpid,
a walk over small files in the root and in a volume, redis-benchmark; in CPU time, of which others on the
machine take no part.  The host's files lie on its disk, without an overlay.  Beside it the same in a
container of runc with the same rules on an overlay.  All take turns, and the best of each counts."""
import contextlib
import json
import os
import pathlib
import re
import shutil
import socket
import statistics
import subprocess
import tempfile
import time

from host import ApiError, Host
from ocimake import Image, Layer
import oci_peer

BUILD = pathlib.Path(os.environ["HVMM_BUILD"])
FLOW = BUILD / "tests/flow/sandbox"
ROUNDS = 6
BOOTS = 80          # a round, half of them with a shell that was made ahead
GETPIDS = 1000000
FILES = 5000
STREAMS = 25        # turns of 0.4 s
REQUESTS = 20000   # one at a time: what waits together would be served together, at less a piece
CONFIG = {"engine": {"cpu_overcommit": 100, "memory_overcommit": 20, "disk_overcommit": 50,
                     "pool_networks": 1, "pool_disks": 0, "log_level": "warning"}}


def run(figures):
    policy_ms(figures)
    syscall_ratio(figures)
    nft_add_ms(figures)
    net_ratio(figures)
    neighbour_ratio(figures)


# ---- a boot with and without the policy

def boots(program, tree, libexec, profile):
    """Least time in ms of a start in a shell that was there, and of one that makes its own."""
    out = subprocess.run([FLOW / program, tree, libexec, "tmpfs", str(BOOTS), "/bin/true", profile],
                         check=True, capture_output=True, text=True, timeout=300).stdout
    least = {m[1]: int(m[2]) / 1000 for m in re.finditer(r"^(\S+) .* min +(\d+) us$", out, re.M)}
    return least["sandbox.start_pooled"], least["sandbox.start"]


def policy_ms(figures):
    with tempfile.TemporaryDirectory(prefix="hvmm-isolation.") as work:
        work = pathlib.Path(work)
        work.chmod(0o755)
        tree = work / "tree"
        for d in ("bin", "etc", "proc", "sys", "dev"):
            (tree / d).mkdir(parents=True)
        shutil.copy("/bin/busybox", tree / "bin/true")
        kinds = {"none": ("bench_sandbox_bare", FLOW / "bare", "standard")}
        for profile in ("standard", "strict", "compat"):
            kinds[profile] = ("bench_sandbox", BUILD, profile)
        best = {}
        for _ in range(ROUNDS):
            for kind, (program, launch, profile) in kinds.items():
                libexec = work / kind
                if not libexec.exists():
                    libexec.mkdir()
                    shutil.copy(launch / "vmm-launch", libexec)
                    shutil.copy(BUILD / "vmm-monitor", libexec)
                got = boots(program, tree, libexec, profile)
                best[kind] = [min(a, b) for a, b in zip(best.get(kind, got), got)]
    bare = best["none"]
    figures.add("isolation.policy_ms", best["standard"][0] - bare[0], "ms")
    for profile in ("standard", "strict", "compat"):
        figures.add(f"isolation.boot_ms_{profile}", best[profile][0], "ms", "no policy", bare[0])
        figures.add(f"isolation.boot_ms_{profile}_unpooled", best[profile][1], "ms", "no policy", bare[1])


# ---- system calls

def with_libraries(program):
    """A program of this machine and what it is linked with: path, content."""
    found = re.findall(r"(/\S+) \(0x", subprocess.run(["ldd", program], check=True, capture_output=True,
                                                      text=True).stdout)
    return [program, *found]


def load_image():
    """syscall_load, and redis, whose checker is its server under another name."""
    layer = Layer()
    seen = set()
    for d in ("bin", "lib", "lib64", "root"):
        layer.dir(d)
    layer.dir("tmp", mode=0o1777)
    layer.file("bin/syscall_load", (FLOW / "syscall_load").read_bytes(), mode=0o755)
    layer.file("bin/busybox", pathlib.Path("/bin/busybox").read_bytes(), mode=0o755)
    layer.symlink("bin/sleep", "busybox").symlink("bin/sh", "busybox")
    for program, name in (("/usr/bin/redis-check-rdb", "redis-server"),
                          ("/usr/bin/redis-benchmark", "redis-benchmark"), ("/usr/bin/redis-cli", "redis-cli")):
        for path in with_libraries(program):
            where = path[1:] if path.startswith("/lib64/") else "lib/" + os.path.basename(path)
            where = "bin/" + name if path == program else where
            if where not in seen:
                seen.add(where)
                layer.file(where, pathlib.Path(path).read_bytes(), mode=0o755)
    return Image([layer.tar()], config={"Cmd": ["/bin/sleep", "100000"],
                                        "Env": ["PATH=/bin", "LD_LIBRARY_PATH=/lib"]})


REDIS = ("redis-server --port {port} --save '' --daemonize no >/dev/null 2>&1 & p=$!; "
         "n=0; until redis-cli -p {port} ping >/dev/null 2>&1 || [ $n -ge 200 ]; "
         "do n=$((n + 1)); sleep 0.05; done; "
         "redis-benchmark -p {port} -t get,set -n {n} -c 1 --csv; kill $p; wait $p; times")


def requests_per_s(text):
    """Of CPU time, the server's and the client's."""
    assert len(re.findall(r'^"(?:GET|SET)","', text, re.M)) == 2, text
    spent = [60 * int(m[1]) + float(m[2]) for m in re.finditer(r"(\d+)m([\d.]+)s", text.split("\n")[-2])]
    return 2 * REQUESTS / sum(spent)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def on_host(work, what):
    if what == "redis":
        server = work / "bin"
        if not server.exists():
            server.mkdir()
            (server / "redis-server").symlink_to("/usr/bin/redis-check-rdb")
        env = {**os.environ, "PATH": f"{server}:{os.environ['PATH']}"}
        return requests_per_s(subprocess.run(["sh", "-c", REDIS.format(port=free_port(), n=REQUESTS)], env=env,
                                             cwd=work, check=False, capture_output=True, text=True,
                                             timeout=120).stdout)
    args = ["getpid", str(GETPIDS)] if what == "getpid" else ["walk", work / "files"]
    return 1e9 / float(subprocess.run([FLOW / "syscall_load", *args], check=True, capture_output=True,
                                      text=True, timeout=120).stdout)


def inside(host, cluster, what):
    if what == "redis":
        return requests_per_s(host.exec(cluster, "sh", "-c", REDIS.format(port=6379, n=REQUESTS),
                                        check=False).stdout)
    args = {"getpid": ["getpid", str(GETPIDS)], "tree": ["walk", "/root/files"],
            "tree_volume": ["walk", "/workspace/files"]}[what]
    return 1e9 / float(host.exec(cluster, "syscall_load", *args).stdout)


class Runc:
    """The same two loads in a container of runc, on an overlay over this machine's disk."""

    def __init__(self, work):
        self.bundle = work / "runc"
        rootfs = self.bundle / "lower"
        for d in ("bin", "proc", "dev", "sys", "etc", "root"):
            (rootfs / d).mkdir(parents=True)
        shutil.copy(FLOW / "syscall_load", rootfs / "bin")
        subprocess.run([FLOW / "syscall_load", "make", rootfs / "root/files", str(FILES)], check=True,
                       stdout=subprocess.DEVNULL)
        for path in [rootfs, *rootfs.rglob("*")]:
            os.chown(path, 0x60000000, 0x60000000)
        for d in ("upper", "work", "rootfs"):
            (self.bundle / d).mkdir()
        options = "lowerdir=%s,upperdir=%s,workdir=%s" % tuple(self.bundle / d for d in ("lower", "upper", "work"))
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, self.bundle / "rootfs"], check=True)
        self.config = oci_peer.config(self.bundle / "rootfs")
        del self.config["linux"]["resources"]["cpu"]  # speed, not share, is the question

    def close(self):
        subprocess.run(["umount", self.bundle / "rootfs"], check=True)

    def measure(self, what):
        args = ["getpid", str(GETPIDS)] if what == "getpid" else ["walk", "/root/files"]
        self.config["process"]["args"] = ["/bin/syscall_load", *args]
        (self.bundle / "config.json").write_text(json.dumps(self.config))
        out = subprocess.run(["runc", "run", "--bundle", str(self.bundle), f"hvmm-isolation-{os.getpid()}"],
                             check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120)
        return 1e9 / float(out.stdout)


def syscall_ratio(figures):
    with tempfile.TemporaryDirectory(prefix="hvmm-isolation.") as tmp, contextlib.ExitStack() as at_end, \
            Host(CONFIG) as host:
        work = pathlib.Path(tmp)
        work.chmod(0o755)
        runc = at_end.enter_context(contextlib.closing(Runc(work)))
        host.import_image("load", layout=load_image().write_layout(work / "layout"))
        # no share of the CPU is missing: what is measured is speed
        cluster = host.deploy(imageName="load", containerDiskInGb=2, volumeInGb=1,
                              minVcpuCount=os.cpu_count())
        host.wait_running(cluster)
        for where in ("/root/files", "/workspace/files"):
            host.exec(cluster, "syscall_load", "make", where, str(FILES))
        subprocess.run([FLOW / "syscall_load", "make", work / "files", str(FILES)], check=True,
                       stdout=subprocess.DEVNULL)
        best = {}

        def take(where, what, value):
            best[where, what] = max(value, best.get((where, what), 0))
        for _ in range(ROUNDS):
            for what in ("getpid", "tree", "tree_volume", "redis"):
                take("host", what, on_host(work, what))
                take("inside", what, inside(host, cluster, what))
                if what in ("getpid", "tree"):
                    take("runc", what, runc.measure(what))
        host.terminate(cluster)
        host.wait_released()
    ratios = {}
    for what in ("getpid", "tree", "tree_volume", "redis"):
        ratios[what] = best["inside", what] / best["host", what]
        peer = best["runc", what] / best["host", what] if ("runc", what) in best else None
        figures.add(f"isolation.syscall_ratio_{what}", ratios[what], "of the host", "runc" if peer else None, peer,
                    higher_is_better=True)
    figures.add("isolation.syscall_ratio", min(ratios.values()), "of the host")


# ---- the network

def nft_add_ms(figures):
    """What lets one more cluster out, and forgets it, while 1,000 are there, every second one with a list of eight
    networks; one that has such a list, and one that has none."""
    out = subprocess.run([BUILD / "tests/flow/net/bench_net_elements", "1000"], check=True, capture_output=True, text=True,
                         timeout=300).stdout
    us = {m[1]: int(m[2]) / 1000 for m in re.finditer(r"^(\S+) (\d+) us$", out, re.M)}
    figures.add("isolation.nft_add_ms", us["add_listed_p50"], "ms", "libnftables, without a list", us["libnftables_p50"])
    figures.add("isolation.nft_del_ms", us["del_listed_p50"], "ms")
    figures.add("isolation.nft_add_unlisted_ms", us["add_p50"], "ms")
    figures.add("isolation.nft_del_unlisted_ms", us["del_p50"], "ms")


STREAM = r'''
import socket, sys, time
s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
if sys.argv[1] == "sink":
    s.bind((sys.argv[2], int(sys.argv[3]))); s.listen(9); print("ready", flush=True)
    room = bytearray(65536)
    while True:
        c, _ = s.accept()
        while c.recv_into(room): pass
        c.close()
s.connect((sys.argv[2], int(sys.argv[3]))); block = bytes(65536); n = 0
begin = time.monotonic()
while time.monotonic() - begin < 0.4: s.sendall(block); n += len(block)
print(n / (time.monotonic() - begin))
'''


@contextlib.contextmanager
def bare_link():
    """Two namespaces and a veth between them, without any rule: (command inside one, address of the other)."""
    names = ["hvmm-bench-%d%s" % (os.getpid(), end) for end in "ab"]
    ip = ["ip", "-n"]
    try:
        for name in names:
            subprocess.run(["ip", "netns", "add", name], check=True)
        subprocess.run([*ip, names[0], "link", "add", "v0", "type", "veth", "peer", "name", "v1", "netns", names[1]],
                       check=True)
        for n, name in enumerate(names):
            subprocess.run([*ip, name, "addr", "add", "10.9.9.%d/24" % (n + 1), "dev", "v%d" % n], check=True)
            subprocess.run([*ip, name, "link", "set", "v%d" % n, "up"], check=True)
        yield *(["ip", "netns", "exec", name] for name in names), "10.9.9.2"
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False)


def net_ratio(figures):
    """Streams of 64 KB from a cluster to the host's service address, beside those over its own loopback and over a
    link without rules; by turns, medians, since single turns of either are now and then twice the others."""
    import networld
    import sys
    with tempfile.TemporaryDirectory(prefix="hvmm-isolation.") as tmp, bare_link() as (near, far, address):
        os.chmod(tmp, 0o755)
        world = networld.World(tmp)
        try:
            c = networld.Ctl(world, "aaaaaaaa")
            c.up(1)
            stream = [sys.executable, "-c", STREAM]
            inside = ["nsenter", f"--net=/proc/{c.p.pid}/fd/{c.ns[1]}"]
            host = ["nsenter", "-t", str(world.host), "-n"]
            ways = {"cluster": (inside, host, c.service, "80"), "loopback": (inside, inside, "127.0.0.1", "7000"),
                    "bare": (near, far, address, "7000")}
            for _, sink, ip, port in ways.values():
                world.start(*sink, *stream, "sink", ip, port)
            rates = {way: [] for way in ways}
            for _ in range(STREAMS):
                for way, (source, _, ip, port) in ways.items():
                    out = subprocess.run([*source, *stream, "source", ip, port], check=True, capture_output=True,
                                         text=True, timeout=60).stdout
                    rates[way].append(float(out))
            c.down(1)
            c.stop()
        finally:
            world.close()
    rate = {way: statistics.median(r) for way, r in rates.items()}
    figures.add("isolation.net_mb_s", rate["cluster"] / 1e6, "MB/s", "veth without rules", rate["bare"] / 1e6,
                higher_is_better=True)
    figures.add("isolation.net_ratio", rate["cluster"] / rate["loopback"], "of loopback")
    figures.add("isolation.net_bare_ratio", rate["bare"] / rate["loopback"], "of loopback")


# ---- a neighbour that takes what it can get

HOSTILE = {
    "fork_bomb": "exec syscall_load bomb now",
    "memory_hog": "while :; do busybox tail /dev/zero; done",
    "disk_hog": "while :; do busybox dd if=/dev/zero of=/workspace/big bs=1M count=64 conv=fsync; done",
    "log_flood": "exec busybox yes a-line-that-says-nothing > /proc/1/fd/1",
    "network_flood": "while :; do busybox dd if=/dev/zero bs=1400 count=100000 | busybox nc -u -w 1 %s 9; done",
}
PROBES = 2000       # a turn
TURNS = 3

def p99(values):
    return sorted(values)[len(values) * 99 // 100]


def cpu_us(host, cluster):
    """What its processes used so far."""
    for root in host.slice_roots():
        group = root / ("c%d" % host.slot(cluster))
        if (group / "cpuacct.usage").exists():
            return int((group / "cpuacct.usage").read_text()) / 1000
        if (group / "cpu.stat").exists() and "nr_throttled" in (group / "cpu.stat").read_text() and \
                "usage_usec" in (group / "cpu.stat").read_text():
            return int(re.search(r"usage_usec (\d+)", (group / "cpu.stat").read_text())[1])
    raise RuntimeError("no group says what was used")


def deploy_pinned(host, fields):
    """Other hosts on this machine may have the CPUs for a while."""
    for left in range(60, -1, -1):
        try:
            return host.deploy(**fields)
        except ApiError:
            if left == 0:
                raise
            time.sleep(1)


def probe(host, cluster):
    out = host.exec(cluster, "syscall_load", "probe", "/workspace/probe", str(PROBES)).stdout.split()
    return [float(x) / 1e6 for x in out[:PROBES]]


def neighbour_ratio(figures):
    """p99 of a quiet tenant beside each kind of hostile one, over that of the same tenant alone; the two take
    turns, so that what others do to the machine meanwhile is in both."""
    limits = {"io_write": "32M", "io_write_ops": 500, "pids": 2000}
    with tempfile.TemporaryDirectory(prefix="hvmm-isolation.") as tmp, \
            Host({"engine": {"pool_networks": 0, "pool_disks": 0, "grace": "1s", "memory_overcommit": 20,
                             "disk_overcommit": 50}, "limits": limits}) as host:
        host.import_image("load", layout=load_image().write_layout(pathlib.Path(tmp) / "layout"))
        fields = {"imageName": "load", "minVcpuCount": 1, "volumeInGb": 1, "containerDiskInGb": 2}
        quiet = deploy_pinned(host, fields)
        host.wait_running(quiet)
        ratios = []
        for kind, script in HOSTILE.items():
            alone, beside, busy = [], [], 0
            loud = deploy_pinned(host, fields)
            host.wait_running(loud)
            if kind == "network_flood":
                script %= host.exec(quiet, "busybox", "hostname", "-i").stdout.split()[0]
            for _ in range(TURNS):
                alone += probe(host, quiet)
                host.exec(loud, "sh", "-c", "busybox setsid sh -c '%s' </dev/null >/dev/null 2>&1 &" % script)
                probe(host, quiet)  # until the other one is at its work
                before = cpu_us(host, loud)
                beside += probe(host, quiet)
                busy += cpu_us(host, loud) - before
                host.call("clusterStop", loud)
                host.wait_exited(loud)
                host.call("clusterResume", loud)
                host.wait_running(loud)
            host.terminate(loud)
            assert busy > 0, kind + " did nothing"
            ratios.append(p99(beside) / p99(alone))
            figures.add("isolation.neighbour_ratio_" + kind, ratios[-1], "of alone")
            figures.add("isolation.neighbour_ms_" + kind, p99(beside), "ms", "alone", p99(alone))
            figures.add("isolation.neighbour_busy_" + kind, busy / 1e6, "s of CPU of the hostile one")
        host.terminate(quiet)
        host.wait_released()
    figures.add("isolation.neighbour_ratio", max(ratios), "of alone")
