"""A host and an internet in namespaces of their own, for tests of engine/net through its driver netctl: so that
the machine's own network is neither used nor changed.  A "host" (network and mount namespace, its own /run),
and an "internet" behind it, with web servers, a name server's port, a cloud's metadata addresses and the
operator's own machines.  The internet has no way back to the pools' addresses but over the host, so only
translated traffic is answered."""
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("HVMM_BUILD", ROOT / "build"))
NETCTL = BUILD / "tests/flow/net/netctl"
POOL = "100.96.0.0/16"
LAN = ("10.9.8.7", "100.100.0.7", "172.20.0.7", "192.168.5.7")  # the operator's own machines
UPLINK, INET, WEB, META, RESOLVER = ("198.51.100.2", "198.51.100.1", "203.0.113.7",
                                     "169.254.169.254", "169.254.169.253")

# the same of IPv6: the host's uplink, the internet's end, its web server, a cloud's metadata, the operator's own
UPLINK6, INET6, WEB6, META6, LAN6 = ("2001:db8:1::2", "2001:db8:1::1", "2001:db8:7::7", "fd00:ec2::254",
                                     "fd99::7")

# What runs inside a namespace.  Prints one JSON value.
AGENT = r'''
import json, socket, struct, sys
cmd, args = sys.argv[1], sys.argv[2:]
def addr(a): return a[0], int(a[1])
family = socket.AF_INET6 if args and ":" in args[0] else socket.AF_INET
def twice(step):  # time may pass without anybody having run, where the machine stands still for a moment
    try: return step()
    except socket.timeout: pass
    try: return step()
    except socket.timeout: return "timeout"
def tcp():
    s = socket.socket(family); s.settimeout(float(args[2])); s.connect(addr(args)); return s.recv(200).decode()
if cmd == "tcp":
    try: out = twice(tcp)
    except OSError as e: out = "error " + str(e.errno)
elif cmd == "udp":
    s = socket.socket(family, socket.SOCK_DGRAM); s.settimeout(float(args[2]))
    try: s.sendto(b"hello", addr(args)); out = twice(lambda: s.recv(200).decode())
    except OSError as e: out = "error " + str(e.errno)
elif cmd == "spoof":   # SOURCE DEST PORT [SOURCE-PORT]
    s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    udp = struct.pack("!HHHH", int((args + [4444])[3]), int(args[2]), 8 + 5, 0) + b"spoof"
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 7, 0, 64, 17, 0,
                     socket.inet_aton(args[0]), socket.inet_aton(args[1]))
    try: out = s.sendto(ip + udp, (args[1], 0))
    except OSError as e: out = "error " + str(e.errno)
elif cmd == "spoof6":  # SOURCE DEST PORT
    s = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW)
    udp = struct.pack("!HHHH", 4444, int(args[2]), 8 + 5, 1) + b"spoof"
    ip = struct.pack("!IHBB16s16s", 6 << 28, len(udp), 17, 64, socket.inet_pton(socket.AF_INET6, args[0]),
                     socket.inet_pton(socket.AF_INET6, args[1]))
    words = ip[8:] + udp + b"\0" * (len(udp) % 2)
    total = sum(struct.unpack("!%dH" % (len(words) // 2), words)) - 1 + 17 + len(udp)
    while total >> 16: total = (total & 0xffff) + (total >> 16)
    udp = udp[:6] + struct.pack("!H", ~total & 0xffff) + udp[8:]
    try: out = s.sendto(ip + udp, (args[1], 0))
    except OSError as e: out = "error " + str(e.errno)
elif cmd == "frame":   # LINK HEX: as it is, whatever it says
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); s.bind((args[0], 0)); out = s.send(bytes.fromhex(args[1]))
elif cmd == "flows":   # ADDRESS FIRST COUNT: one datagram to each port
    s = socket.socket(family, socket.SOCK_DGRAM)
    for port in range(int(args[1]), int(args[1]) + int(args[2])): s.sendto(b"x", (args[0], port))
    out = "ok"
elif cmd == "burst":   # ADDRESS PORT COUNT: from one socket, with a number each
    s = socket.socket(family, socket.SOCK_DGRAM); s.connect(addr(args))
    for i in range(int(args[2])): s.send(b"burst %d" % i)
    out = "ok"
elif cmd == "rate":    # ADDRESS PORT SECONDS in|out: bytes a second
    import time
    s = socket.create_connection(addr(args), 5); n, end = 0, time.monotonic() + float(args[2])
    s.sendall(args[3].encode()[:1]); block = bytes(65536); s.settimeout(2)
    begin = time.monotonic()
    while time.monotonic() < end: n += len(s.recv(65536)) if args[3] == "in" else s.send(block)
    out = n / (time.monotonic() - begin)
elif cmd == "bind80":
    s = socket.socket(); s.bind(("", 80)); out = "ok"
print(json.dumps(out))
'''

# Servers: each answers with its name and who asked; UDP datagrams are also logged to a file.
SERVER = r'''
import socket, sys, threading
name, log, ports = sys.argv[1], sys.argv[2], sys.argv[3:]
def tcp(port):
    s = socket.socket(socket.AF_INET6); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("::", port)); s.listen(50)
    def run():
        while True:
            c, a = s.accept(); c.sendall(("%s %s" % (name, a[0].replace("::ffff:", ""))).encode()); c.close()
    threading.Thread(target=run, daemon=True).start()
def udp(spec):
    a, port = spec.rsplit(":", 1)
    s = socket.socket(socket.AF_INET6 if ":" in a else socket.AF_INET, socket.SOCK_DGRAM); s.bind((a, int(port)))
    def run():
        while True:
            d, a = s.recvfrom(2000)
            with open(log, "a") as f: f.write("%s %s\n" % (a[0], d.decode()))
            s.sendto(("%s %s" % (name, a[0])).encode(), a)
    threading.Thread(target=run, daemon=True).start()
def stream(port):  # "i": bytes come, "o": they are taken
    s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("0.0.0.0", port)); s.listen(50)
    def serve(c):
        block = bytes(65536)
        try:
            if c.recv(1) == b"i":
                while True: c.sendall(block)
            while c.recv(1 << 20): pass
        except OSError: pass
    def run():
        while True: threading.Thread(target=serve, args=(s.accept()[0],), daemon=True).start()
    threading.Thread(target=run, daemon=True).start()
for p in ports:
    stream(int(p[6:])) if p.startswith("stream") else udp(p) if ":" in p else tcp(int(p))
print("ready", flush=True)
sys.stdin.read()
'''


def sh(*argv, **kw):
    r = subprocess.run(argv, capture_output=True, text=True, timeout=60, **kw)
    assert r.returncode == 0, f"{' '.join(map(str, argv))}: {r.stderr or r.stdout}"
    return r.stdout


class World:
    """The two namespaces, what was started in them, and how to look around."""

    def __init__(self, tmp):
        self.tmp = pathlib.Path(tmp)
        self.procs = []
        self.host = self.hold("unshare", "-n", "-m", "--propagation", "private")
        self.on_host("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
        self.on_host("mount", "-t", "sysfs", "sysfs", "/sys")
        # a new namespace starts with the machine's IPv4 settings, whatever they are now
        self.on_host("sh", "-c", "echo 0 > /proc/sys/net/ipv4/ip_forward")
        self.resolv("nameserver 127.0.0.53\nnameserver ::1\nnameserver %s\nsearch secret.corp\n"
                    % WEB)
        self.on_host("mount", "--bind", str(self.tmp / "resolv.conf"), "/etc/resolv.conf")
        self.inet = self.hold("unshare", "-n")
        for ns in (self.host, self.inet):
            self.inside(ns, "ip", "link", "set", "lo", "up")
        self.on_host("ip", "link", "add", "up0", "type", "veth", "peer", "name", "wan", "netns",
                     str(self.inet))
        self.on_host("ip", "addr", "add", UPLINK + "/24", "dev", "up0")
        self.on_host("ip", "link", "set", "up0", "up")
        for cmd in (f"addr add {INET}/24 dev wan", "link set wan up", f"addr add {WEB}/32 dev lo",
                    f"addr add {META}/32 dev lo", f"addr add {RESOLVER}/32 dev lo",
                    *(f"addr add {a}/32 dev lo" for a in LAN),
                    f"route add {POOL} via {UPLINK}"):
            self.inside(self.inet, "ip", *cmd.split())
        self.on_host("ip", "route", "add", "default", "via", INET)
        self.on_host("ip", "addr", "add", UPLINK6 + "/64", "dev", "up0", "nodad")
        for cmd in (f"addr add {INET6}/64 dev wan nodad", *(f"addr add {a}/128 dev lo" for a in (WEB6, META6, LAN6))):
            self.inside(self.inet, "ip", *cmd.split())
        self.on_host("ip", "-6", "route", "add", "default", "via", INET6)
        self.log = self.tmp / "udp.log"
        self.log.write_text("")
        self.serve(self.inet, "internet", 80, 53, "stream7070", f"{WEB}:9999", f"{WEB6}:9999", f"{RESOLVER}:53", f"{META}:53",
                   *(f"{a}:53" for a in LAN))
        self.serve(self.host, "host", 8080, f"{UPLINK}:8080")

    def resolv(self, text):
        (self.tmp / "resolv.conf").write_text(text)

    def hold(self, *argv):
        p = self.start(*argv, "sh", "-c", "echo ready; exec cat")
        return p.pid

    def start(self, *argv):
        p = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.procs.append(p)
        assert p.stdout.readline() == "ready\n", argv
        return p

    def serve(self, ns, name, *ports):
        self.start("nsenter", "-t", str(ns), "-n", "-m", sys.executable, "-c", SERVER, name,
                   str(self.log), *map(str, ports))

    def inside(self, ns, *argv):
        return sh("nsenter", "-t", str(ns), "-n", "-m", *argv)

    def on_host(self, *argv):
        return self.inside(self.host, *argv)

    def host_agent(self, *args):
        return json.loads(self.on_host(sys.executable, "-c", AGENT, *map(str, args)))

    def inet_agent(self, *args):
        return json.loads(self.inside(self.inet, sys.executable, "-c", AGENT, *map(str, args)))

    def sysctl(self, name, family=4):
        return self.on_host("cat", f"/proc/sys/net/ipv{family}/{name}").strip()

    def forwards6(self):
        """Forwarding of IPv6, with and without heed to routers: "0" and "0" before and after each test."""
        way = "conf/all/force_forwarding"
        force = self.sysctl(way, 6) if self.on_host("sh", "-c", f"ls /proc/sys/net/ipv6/{way} 2>&1 || true").startswith(
            "/proc") else "0"
        return self.sysctl("conf/all/forwarding", 6), force

    def links(self):
        names = [l["ifname"] for l in json.loads(self.on_host("ip", "-j", "link"))]
        return sorted(n for n in names if n.startswith("hv"))

    def tables(self):
        return re.findall(r"inet (hvmm_\w+)", self.on_host("nft", "list", "tables"))

    def leftovers(self):
        """Everything of ours that the kernel still holds."""
        addrs = [a.get("label") or a["local"] for l in json.loads(self.on_host("ip", "-j", "addr"))
                 for a in l["addr_info"] if a.get("label", "").startswith("lo:hv")
                 or l["ifname"] == "lo" and a["local"].startswith("fd")]
        routes = re.findall(r"^100\.96\S* dev.*", self.on_host("ip", "route"), re.M)
        routes += re.findall(r"^fd\S* dev (?!lo).*", self.on_host("ip", "-6", "route"), re.M)
        return self.links() + self.tables() + addrs + routes

    def settle(self, want, seconds=5.0):
        """A namespace ends some milliseconds after its last user; wait for the kernel."""
        end = time.monotonic() + seconds
        while self.links() != want and time.monotonic() < end:
            time.sleep(0.02)
        return self.links()

    def close(self):
        for p in reversed(self.procs):
            if p.poll() is None:
                p.kill()
            p.wait()
            for f in (p.stdin, p.stdout):
                if f:
                    f.close()


class Refused(Exception):
    pass


class Ctl:
    """One engine's worth of engine/net."""

    def __init__(self, world, ident, *, pool=POOL, dns="-", allow="-", pool6="-", bandwidth=0, connections=0,
                 opened=True, prefix=()):
        self.world, self.ident, self.pool, self.dns, self.allow = world, ident, pool, dns, allow
        self.pool6, self.bandwidth, self.connections = pool6, bandwidth, connections
        self.data = world.tmp / ident
        self.data.mkdir(exist_ok=True)
        self.p = subprocess.Popen(
            ["nsenter", "-t", str(world.host), "-n", "-m", *prefix, str(NETCTL)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        world.procs.append(self.p)
        self.ns = {}
        if opened:
            self.open()

    def open(self):
        return self("open", self.ident, self.data, self.pool, self.dns, self.allow or "-", self.pool6, self.bandwidth,
                    self.connections)

    def __call__(self, *words):
        self.p.stdin.write(" ".join(map(str, words)) + "\n")
        self.p.stdin.flush()
        line = self.p.stdout.readline()
        if line.startswith("err "):
            raise Refused(line[4:].strip())
        assert line.startswith("ok"), f"{words}: {line!r}"
        return line[2:].strip()

    def up(self, slot, account=0, egress="-", ports=""):
        """Its address, the service address, the slot, resolv.conf; those of IPv6 go to address6, service6."""
        self.ns[slot] = self("prepare", slot).split()[0]
        a = self("bind", slot, account, egress, ports).split(" ", 5)
        self.address, self.service, self.address6, self.service6 = *a[:2], *a[3:5]
        return a[:3] + a[5:]

    def enter(self, slot, *argv):
        return sh("nsenter", f"--net=/proc/{self.p.pid}/fd/{self.ns[slot]}", *argv)

    def agent(self, slot, *args):
        return json.loads(self.enter(slot, sys.executable, "-c", AGENT, *map(str, args)))

    def tcp(self, slot, ip, port, timeout=0.4):
        return self.agent(slot, "tcp", ip, port, timeout)

    def serve(self, slot, name, *ports):
        """What SERVER does, inside."""
        return self.world.start("nsenter", f"--net=/proc/{self.p.pid}/fd/{self.ns[slot]}", sys.executable, "-c",
                                SERVER, name, str(self.world.log), *map(str, ports))

    def ping(self, slot, ip):
        done = subprocess.run(["nsenter", f"--net=/proc/{self.p.pid}/fd/{self.ns[slot]}", "ping", "-c1", "-W1", ip],
                              capture_output=True)
        return done.returncode == 0

    def elements(self):
        kinds = ("link:", "dead:", "element:")  # each kind by name: sets have no order
        return sorted(self("each").split(),
                      key=lambda x: ([x.startswith(k) for k in kinds].index(True), x))

    def down(self, slot, how="later"):
        self("release", slot, how)
        self("drop", slot)

    def stop(self, remove=True):
        if remove:
            self("remove")
        self("close")
        self.p.stdin.close()
        assert self.p.wait(10) == 0


@pytest.fixture(scope="module")
def world():
    if os.geteuid() != 0:
        pytest.fail("needs root")
    if not NETCTL.exists():
        pytest.fail(f"{NETCTL} is not built")
    with tempfile.TemporaryDirectory(prefix="hvmm-net-") as tmp:
        os.chmod(tmp, 0o755)
        w = World(tmp)
        try:
            yield w
        finally:
            w.close()


@pytest.fixture
def clean(world):
    """Nothing of ours before and after each test."""
    assert world.leftovers() == []
    assert world.sysctl("ip_forward") == "0" and world.forwards6() == ("0", "0")
    first = len(world.procs)
    yield world
    for p in world.procs[first:]:
        if p.poll() is None:
            p.kill()
            p.wait()
    world.settle([])
    left = world.leftovers()
    for t in world.tables():
        world.on_host("nft", "delete", "table", "inet", t)
    for l in world.links():
        world.on_host("ip", "link", "del", l)
    forward = world.sysctl("ip_forward"), *world.forwards6()
    if left or forward != ("0", "0", "0"):  # one failure shall not look like many
        world.on_host("sh", "-c", "rm -rf /run/hypervisor-vmm; echo 0 > /proc/sys/net/ipv4/ip_forward;"
                      " for f in /proc/sys/net/ipv6/conf/all/*forwarding; do echo 0 > $f; done 2>/dev/null;"
                      " ip -4 addr flush dev lo; ip addr add 127.0.0.1/8 dev lo; ip -6 addr flush dev lo;"
                      " ip addr add ::1/128 dev lo")
    assert left == []
    assert forward == ("0", "0", "0")


@pytest.fixture
def one(clean):
    """An instance with a cluster in slot 1."""
    c = Ctl(clean, "aaaaaaaa")
    c.address, c.service, c.slot, c.resolv = c.up(1)
    yield c
    c.down(1)
    c.stop()


@pytest.fixture
def pair(one):
    """Two instances, side by side, with a cluster each."""
    b = Ctl(one.world, "bbbbbbbb")
    b.address, b.service, b.slot, b.resolv = b.up(2)
    yield one, b
    b.down(2)
    b.stop()


@pytest.fixture
def four(clean):
    """The same without IPv6."""
    c = Ctl(clean, "aaaaaaaa", pool6="none")
    c.up(1)
    assert (c.address6, c.service6) == ("-", "-")
    yield c
    c.down(1)
    c.stop()
