"""From one tenant to another, and to the host's network: packets, names, registries, files."""
import contextlib
import ipaddress
import json
import os
import random
import re
import secrets
import socket
import subprocess
import threading
import time

import pytest

import attack
from attack import image
from ocimake import Layer, Redirect, Registry


def address(world, cluster, who):
    return world.gql('{ cluster(input: {clusterId: "%s"}) { clusterIp } }' % cluster,
                     key=world.keys[who])["cluster"]["clusterIp"]


def address6(world, cluster, who):
    """Its IPv6 address, as it is inside; a host that cannot give one says why."""
    for line in world.sh(cluster, "cat /proc/net/if_inet6 2>/dev/null; true", who=who).splitlines():
        word, _, _, scope, _, link = line.split()
        if link == "eth0" and scope == "00":
            return str(ipaddress.ip_address(bytes.fromhex(word)))
    lacks = world.gql('{ cluster(input: {clusterId: "%s"}) { security } }' % cluster, key=world.keys[who])["cluster"]["security"]
    pytest.skip("clusters have no IPv6 on this host: %s" % [x for x in lacks["missing"] if "IPv6" in x])


class Ear:
    """A socket of the host's for TCP and one for UDP at one port; .heard."""

    def __init__(self, address_, port=0):
        family = socket.AF_INET6 if ":" in address_ else socket.AF_INET
        self.tcp, self.udp = socket.socket(family), socket.socket(family, socket.SOCK_DGRAM)
        self.tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.tcp.bind((address_, port))
        self.port = self.tcp.getsockname()[1]
        self.udp.bind((address_, self.port))
        self.tcp.listen(64)
        self.heard, self.stop = [], threading.Event()
        self.threads = [threading.Thread(target=t, daemon=True) for t in (self.accept, self.receive)]
        for s in self.tcp, self.udp:
            s.settimeout(0.1)
        for t in self.threads:
            t.start()

    def accept(self):
        while not self.stop.is_set():
            with contextlib.suppress(TimeoutError):
                c, who = self.tcp.accept()
                self.heard.append("tcp from %s" % who[0])
                c.close()

    def receive(self):
        while not self.stop.is_set():
            with contextlib.suppress(TimeoutError):
                data, who = self.udp.recvfrom(500)
                self.heard.append("udp from %s: %s" % (who[0], data))

    def __enter__(self):
        return self

    def __exit__(self, *what):
        self.stop.set()
        for t in self.threads:
            t.join()
        self.tcp.close()
        self.udp.close()


@pytest.fixture
def beyond():
    """A machine beyond the host, with a public, a private and a link-local address; what hears there
    is `attack packets`.  (addresses, port, function that gives all that was heard)"""
    a, b = random.randrange(256), random.randrange(64) * 4
    name, ns = "atk-%d" % os.getpid(), "atkns%d" % os.getpid()
    here, there = "198.18.%d.%d" % (a, b + 1), "198.18.%d.%d" % (a, b + 2)
    private, local = "10.%d.%d.2" % (200 + a % 50, b), "169.254.%d.%d" % (a % 250 + 1, b + 2)
    here6, there6 = "2001:db8:a:%x%02x::1" % (a, b), "2001:db8:a:%x%02x::2" % (a, b)
    # where a cloud keeps its keys for IPv6 (fd00:ec2::254 is one), and a network of the operator's
    local6, private6 = "fd00:ec2:%x:%x::254" % (a, b), "fd77:%x:%x::2" % (a, b)

    def ip(*words):
        subprocess.run(["ip", *words], check=True)

    ip("netns", "add", ns)
    try:
        ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", ns)
        ip("address", "add", here + "/30", "dev", name)
        ip("link", "set", name, "up")
        six = os.path.exists("/proc/net/if_inet6")
        for own in (there + "/30", private + "/32", local + "/32", *((there6 + "/64", private6 + "/128", local6 + "/128") * six)):
            ip("-n", ns, "address", "add", own, "dev", "eth0", *["nodad"] * (":" in own))
        ip("-n", ns, "link", "set", "eth0", "up")
        ip("-n", ns, "route", "add", "default", "via", here)
        for target in (private, local):  # go with their link
            ip("route", "add", target + "/32", "via", there)
        if six:
            ip("address", "add", here6 + "/64", "dev", name, "nodad")
            ip("-n", ns, "-6", "route", "add", "default", "via", here6)
            for target in (private6, local6):
                ip("-6", "route", "add", target + "/128", "via", there6)
        ear = subprocess.Popen(["ip", "netns", "exec", ns, attack.program(), "packets", "4000"], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True)
        try:
            assert ear.stdout.readline() == "listening\n"

            def heard():
                return ear.communicate(timeout=20)[0]
            yield {"public": there, "private": private, "link-local": local, "public6": there6, "private6": private6,
                   "metadata6": local6}, 4000, heard
        finally:
            ear.kill()
            ear.wait()
    finally:
        subprocess.run(["ip", "netns", "del", ns], check=False)
        subprocess.run(["ip", "link", "del", name], check=False, stderr=subprocess.DEVNULL)


# ---- packets

def test_network_scan(world, mallory, alice):
    """Everything in the neighbourhood, the host on all its addresses: nobody hears a knock."""
    theirs = address(world, alice, "alice")
    net = theirs.rsplit(".", 1)[0] + ".0"
    out = subprocess.run(["ip", "-j", "-4", "address"], capture_output=True, text=True, check=True).stdout
    own = [x["local"] for link in json.loads(out) for x in link["addr_info"]]
    with Ear("0.0.0.0") as ear, world.beside(alice, attack.TOOL, "packets", "7000", ready=b"listening",
                                             who="alice") as heard:
        with socket.create_connection((theirs, 7000), 5):
            pass  # the host itself does get there: whoever listens can be heard
        said = world.attack(mallory, "scan", net, "256", "7000", str(ear.port))
        for a in sorted({*own, "127.0.0.1", "0.0.0.0"}):
            said += world.attack(mallory, "scan", a, "1", str(ear.port), str(world.port), "22")
        assert said.count("tried") > 2, said
        if ear.heard:
            attack.changed("the host heard %s" % ear.heard)
    got = [x for x in re.findall(r"got .*", heard[0])]
    if len(got) != 1:
        attack.changed("the neighbour heard %s" % got)
    own_ip = address(world, mallory, "mallory")
    answers = [x for x in re.findall(r"(?:open|host) (\S+):\d+", said) if x not in (own_ip, "127.0.0.1", "0.0.0.0")]
    assert not answers, answers


def test_network_scan_ipv6(world, mallory, alice):
    """The same of IPv6: neighbours' addresses are numbers one behind the other, the host has the service address,
    its own ones, and a next hop."""
    theirs, own_ip = address6(world, alice, "alice"), address6(world, mallory, "mallory")
    pool = ipaddress.ip_network(theirs + "/64", strict=False)
    net = str(pool.network_address)
    out = subprocess.run(["ip", "-j", "-6", "address"], capture_output=True, text=True, check=True).stdout
    own = [x["local"] + ("%eth0" if x["scope"] == "link" else "") for link in json.loads(out) for x in link["addr_info"]]
    assert [a for a in own if "%" not in a and ipaddress.ip_address(a) in pool], "the service address is among them: %s" % own
    with Ear("::") as ear, world.beside(alice, attack.TOOL, "packets", "7002", ready=b"listening", who="alice") as heard:
        with socket.create_connection((theirs, 7002), 5):
            pass  # the host itself does get there: whoever listens can be heard
        said = world.attack(mallory, "scan", net, "256", "7002", str(ear.port))
        said += world.attack(mallory, "scan", theirs, "1", "7002", "22", "80")
        for a in sorted({*own, "::1", "fe80::1%eth0", "::"}):
            said += world.attack(mallory, "scan", a, "1", str(ear.port), str(world.port), "22")
        assert said.count("tried") > 4, said
        if ear.heard:
            attack.changed("the host heard %s" % ear.heard)
    got = re.findall(r"got .*", heard[0])
    if len(got) != 1:
        attack.changed("the neighbour heard %s" % got)
    answers = [x for x in re.findall(r"(?:open|host) (\S+):\d+", said) if x not in (own_ip, "::1", "::")]
    assert not answers, answers


def frames(sock):
    """Source addresses of what a link carried: IPv4, IPv6 and ARP."""
    seen = set()
    with contextlib.suppress(BlockingIOError):
        while True:
            data, info = sock.recvfrom(2048, socket.MSG_DONTWAIT)
            if info[2] == socket.PACKET_OUTGOING:
                continue
            kind = data[12:14]
            if kind == b"\x08\x00":
                seen.add(socket.inet_ntoa(data[26:30]))
            elif kind == b"\x86\xdd":
                seen.add(socket.inet_ntop(socket.AF_INET6, data[22:38]))
            elif kind == b"\x08\x06":
                seen.add(socket.inet_ntoa(data[28:32]))
    return seen


def test_spoofing(world, mallory, alice, beyond):
    """Packets and ARP answers in a neighbour's name: none leaves the cluster, none arrives."""
    addresses, port, heard = beyond
    theirs, own = address(world, alice, "alice"), address(world, mallory, "mallory")
    before = subprocess.run(["ip", "neigh", "show", theirs], capture_output=True, text=True, check=True).stdout
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as link:
        link.bind(("hv%d" % world.slot(mallory), 3))
        with world.beside(alice, attack.TOOL, "packets", "7001", ready=b"listening", who="alice") as at_alices:
            said = world.attack(mallory, "forge", theirs, addresses["public"], str(port), "forged")
            said += world.attack(mallory, "forge", addresses["public"], theirs, "7001", "forged")
            world.attack(mallory, "tell", addresses["public"], str(port), "hello")
        sources = frames(link)
        # and had the first wall fallen: as the host's root in the cluster's network, who may send anything
        subprocess.run(["nsenter", "-t", str(world.first_pid(mallory)), "-n", attack.program(), "forge", theirs,
                        addresses["public"], str(port), "forged"], check=True, stdout=subprocess.DEVNULL)
    there = heard()
    assert "hello" in there and own in sources, "an honest packet arrives: %s %s" % (there, sources)
    if "forged" in there or "forged" in at_alices[0]:
        attack.changed("a forged packet arrived: %s %s" % (there, at_alices[0]))
    if {theirs, addresses["public"]} & sources:
        attack.changed("a forged packet left the cluster: %s" % sources)
    neigh = subprocess.run(["ip", "neigh", "show", theirs], capture_output=True, text=True, check=True).stdout
    if re.findall("lladdr (\\S+)", neigh) != re.findall("lladdr (\\S+)", before) and before:
        attack.changed("the host's entry for the neighbour: %s, was %s" % (neigh, before))
    assert said.count("done") == 2 and ": sent" not in said, said


def known(*words):
    """What the host has learned of links of clusters."""
    out = subprocess.run(["ip", *words], capture_output=True, text=True, check=True).stdout
    return sorted(re.sub(r" (expires|metric|pref|used|ref|probes) \S+", "", l) for l in out.splitlines() if re.search(r"\bhv\d", l))


def test_spoofing_ipv6(world, mallory, alice, beyond):
    """The same of IPv6, where neighbours and routers speak by ICMP: what a neighbour or a router would say is
    forged, too, and nobody believes it.  Linux lets anybody name a source that is not his (IPV6_FREEBIND): such
    packets do leave the cluster, and the firewall is the wall."""
    addresses, port, heard = beyond
    theirs, own = address6(world, alice, "alice"), address6(world, mallory, "mallory")
    links = ["hv%d" % world.slot(c) for c in (mallory, alice)]

    def believed():
        """Of these two links: others on this machine come and go."""
        return [[l for l in known(*words) if re.search(r"\b(%s)\b" % "|".join(links), l)]
                for words in (("-6", "neigh", "show", "nud", "all"), ("-6", "route", "show", "table", "all"))] + \
            [world.sh(alice, "cat /proc/net/ipv6_route /proc/net/if_inet6", who="alice").count("\n")]
    before = believed()
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as link:
        link.bind((links[0], 3))
        with world.beside(alice, attack.TOOL, "packets", "7003", ready=b"listening", who="alice") as at_alices:
            said = world.attack(mallory, "forge", theirs, addresses["public6"], str(port), "forged")
            said += world.attack(mallory, "forge", addresses["public6"], theirs, "7003", "forged")
            world.attack(mallory, "tell", addresses["public6"], str(port), "hello")
            sources = frames(link)
            # and had the first wall fallen: as the host's root in the cluster's network, who may send anything
            for source, dest, to in ((theirs, addresses["public6"], port), (addresses["public6"], theirs, 7003)):
                subprocess.run(["nsenter", "-t", str(world.first_pid(mallory)), "-n", attack.program(), "forge", source, dest,
                                str(to), "forged"], check=True, stdout=subprocess.DEVNULL)
            deeper = frames(link)
    there = heard()
    assert "hello" in there and own in sources, "an honest packet arrives: %s %s" % (there, sources)
    assert {theirs, "fe80::9"} <= deeper, "the second attempt did leave the cluster: %s" % deeper
    if "forged" in there or "forged" in at_alices[0]:
        attack.changed("a forged packet arrived: %s %s" % (there, at_alices[0]))
    if "fe80::9" in sources:
        attack.changed("what a router would say left the cluster: %s" % sources)
    if believed() != before:
        attack.changed("somebody believed it: %s, was %s" % (believed(), before))
    assert said.count("done") == 2, said
    assert {l for l in said.splitlines() if l.endswith(": sent")} <= {"free bind: sent"}, said


def test_metadata_and_private_networks_ipv6(world, mallory, beyond):
    """The clouds' metadata services and the operator's own networks."""
    addresses, port, heard = beyond
    address6(world, mallory, "mallory")
    for kind in ("metadata6", "private6"):
        world.attack(mallory, "scan", addresses[kind], "1", str(port))
        world.attack(mallory, "tell", addresses[kind], str(port), "stolen-" + kind)
    # by ways into IPv4: NAT64, 6to4, mapped and compatible addresses
    for way in ("64:ff9b::", "::ffff:", "::"):
        for kind in ("link-local", "private"):
            world.attack(mallory, "tell", way + addresses[kind], str(port), "stolen-" + way + kind)
    world.attack(mallory, "tell", addresses["public6"], str(port), "hello")
    there = heard()
    assert "hello" in there, there
    if "stolen" in there or "tcp" in there:
        attack.changed("what is not for tenants was reached: " + there)


def test_metadata_and_private_networks(world, mallory, beyond):
    """Link-local addresses, where clouds keep their keys, and the operator's own networks."""
    addresses, port, heard = beyond
    for kind in ("link-local", "private"):
        world.attack(mallory, "scan", addresses[kind], "1", str(port))
        world.attack(mallory, "tell", addresses[kind], str(port), "stolen-" + kind)
    world.attack(mallory, "tell", addresses["public"], str(port), "hello")
    there = heard()
    assert "hello" in there, there
    if "stolen" in there or "tcp" in there:
        attack.changed("what is not for tenants was reached: " + there)


# ---- what the host asks for in a tenant's name

NAMES = ("127.0.0.1:{p}", "localhost:{p}", "127.1:{p}", "0.0.0.0:{p}", "2130706433:{p}", "0x7f000001:{p}", "0177.0.0.1:{p}",
         "[::1]:{p}", "[::ffff:127.0.0.1]:{p}", "{h}:{p}", "{n}:{p}", "127.0.0.1.:{p}", "[64:ff9b::7f00:1]:{p}")


@pytest.fixture(scope="module")
def host_address():
    """Of this machine, beyond its loopback."""
    with socket.socket(type=socket.SOCK_DGRAM) as s:
        try:
            s.connect(("198.51.100.1", 9))
            return s.getsockname()[0]
        except OSError:
            return "127.0.0.2"


def refused_pull(world, name):
    """What a deployment of @name comes to: it never runs."""
    answer = world.post("mutation($i: ClusterFindAndDeployOnDemandInput) { clusterFindAndDeployOnDemand(input: $i) { id } }",
                        {"i": {"imageName": name, "gpuCount": 0, "minVcpuCount": 1, "minMemoryInGb": 1,
                               "containerDiskInGb": 1}}, key=world.keys["mallory"]).json()
    if "errors" in answer:
        return answer["errors"][0]["message"]
    c = answer["data"]["clusterFindAndDeployOnDemand"]["id"]
    seen = world.until_any(c, "mallory", lambda x: x["reason"] or x["desiredStatus"] == "EXITED" or x["runtime"])
    world.end(c)
    assert not seen["runtime"], "it runs: " + name
    return seen["reason"]


@pytest.mark.parametrize("form", NAMES)
def test_server_side_requests_through_image_names(world, host_address, form):
    """An image's name is the address of something of the host's: nothing there is ever asked."""
    with Ear("0.0.0.0") as ear:
        name = form.format(p=ear.port, h=host_address, n=socket.gethostname()) + "/x/y:1"
        why = refused_pull(world, name)
        if ear.heard:
            attack.changed("the host asked itself for %s: %s" % (name, ear.heard))
    assert why, name


@pytest.fixture(scope="module")
def listed():
    """A registry that the operator lists, and that the attacker runs; images of his."""
    with Registry() as reg, attack.World({'registry "%s"' % reg.host: {"insecure": "yes"}}) as w:
        yield reg, w


def trap_redirect(reg, to, _):
    reg.fault(r"/blobs/", Redirect("%s/stolen{path}" % to))


def trap_manifest(reg, to, _):
    reg.fault(r"/manifests/", Redirect("%s/stolen{path}" % to))


def trap_realm(reg, to, _):
    reg.need_token(realm="%s/token" % to)


@pytest.mark.parametrize("trap", [trap_redirect, trap_manifest, trap_realm])
@pytest.mark.parametrize("form", ["https://127.0.0.1:{p}", "http://127.0.0.1:{p}", "https://localhost:{p}", "https://{h}:{p}",
                                  "https://[::ffff:127.0.0.1]:{p}", "https://127.1:{p}"])
def test_registry_redirects_and_token_realms(listed, host_address, trap, form):
    """A registry that may be asked sends the fetcher on to the host's own ports."""
    reg, w = listed
    name = "x/" + secrets.token_hex(4)
    ref = reg.add(name, "1", image(Layer().file("noise", secrets.token_bytes(1000)).tar()))
    with Ear("0.0.0.0") as ear:
        try:
            trap(reg, form.format(p=ear.port, h=host_address), name)
            why = refused_pull(w, ref)
        finally:
            reg.faults.clear()
            reg.auth = reg.realm = None
        if ear.heard:
            attack.changed("the host asked itself: %s" % ear.heard)
    assert why and any(name in path for path, _ in reg.requests), "it was asked"


def test_no_webhooks(world):
    """Nothing in the API takes an address to be called at; the day it does, this wants a test."""
    sdl = world.gql("{ __schema { types { inputFields { name } } mutationType { fields { args { name } } } } }")["__schema"]
    names = {f["name"] for t in sdl["types"] for f in t["inputFields"] or []}
    names |= {a["name"] for f in sdl["mutationType"]["fields"] for a in f["args"]}
    found = {n for n in names if re.search("webhook|callback|url$|uri$|endpointUrl", n, re.I)}
    assert not found, found
    print("webhooks do not exist in this API: nothing to attack")


# ---- files

def test_volume_logs_env_of_a_neighbour(world, mallory, alice, canary):
    """Alice's secret is in her volume, her files, her environment and her log; mallory greps everything
    he sees, and gets the disks that alice has just given back."""
    secret = canary.secret
    c = world.rent("alice", volumeInGb=1, volumeMountPath="/v", env=[{"key": "S", "value": secret}],
                   dockerArgs=json.dumps({"cmd": ["sh", "-c", "echo %s; exec sleep 100000" % secret]}))
    for to in ("/v/f", "/f", "/dev/shm/f", "/tmp/f"):
        world.sh(c, "echo %s > %s; sync" % (secret, to), who="alice")
    assert secret in world.sh(c, "cat /v/f /f", who="alice")
    grep = "for d in /* /dev/shm /dev/mqueue; do case $d in /proc|/sys|/dev) continue;; esac; grep -rl '%s[%s]%s' $d 2>/dev/null; done; cat /proc/[0-9]*/environ" % (
        secret[:10], secret[10], secret[11:])
    canary.check(world.sh(mallory, grep))
    found = re.findall(r"^/.*", world.sh(mallory, grep), re.M)
    if found:
        attack.changed("the neighbour's secret is in %s" % found)
    world.end(c, "alice")
    mine = world.rent(volumeInGb=1, volumeMountPath="/v")
    found = re.findall(r"^/.*", world.sh(mine, grep), re.M)
    if found:
        attack.changed("what a neighbour left is in %s" % found)
    world.end(mine)


# ---- sessions

def test_sessions_that_are_held_up(world, alice):
    """Root inside stops each process of a session before it is a program: the host waits for it, and has places
    for the neighbour's all the same."""
    jailer = world.rent(dockerArgs=json.dumps({"cmd": ["sh", "-c", "while :; do kill -s STOP -- -1; done 2>/dev/null"]}))
    refused = []

    def hold():
        for _ in range(5):  # one is over before it was stopped, and where AppArmor is, all are
            if world.inside(jailer, "true"):
                refused.append(1)
                return
    tries = [threading.Thread(target=hold, daemon=True) for _ in range(100)]
    try:
        for t in tries:
            t.start()
        end = time.monotonic() + 60
        while len(refused) < 16 and any(t.is_alive() for t in tries):
            assert time.monotonic() < end, len(refused)
            time.sleep(0.05)
        for _ in range(3):
            assert world.inside(alice, "echo", "hello", who="alice").strip() == "hello"
    finally:
        world.end(jailer)
        for t in tries:
            t.join(60)
