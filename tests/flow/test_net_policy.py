"""What clusters may do to each other and to the world (root): engine/net through the driver netctl, in the
namespaces of tests/lib/networld.py.  IPv6 is held to everything that IPv4 is."""
import ipaddress
import json
import os
import pathlib
import re
import select
import socket
import sys
import time

import pytest

from networld import (INET, INET6, LAN, LAN6, META, META6, NETCTL, UPLINK, UPLINK6, WEB, WEB6, Ctl, Refused, clean, one,  # noqa: F401
                      world)

TABLE = "inet hvmm_aaaaaaaa"


def listing(w, kind, name):
    """The elements of a set or map: {element: data or None}, concatenations as tuples."""
    out = json.loads(w.on_host("nft", "-j", "list", kind, *TABLE.split(), name))
    items = [x[kind] for x in out["nftables"] if kind in x][0].get("elem", [])

    def plain(x):
        if isinstance(x, dict) and "elem" in x:
            return plain(x["elem"]["val"])
        if isinstance(x, dict) and "concat" in x:
            return tuple(plain(y) for y in x["concat"])
        if isinstance(x, dict) and "prefix" in x:
            return "%s/%d" % (x["prefix"]["addr"], x["prefix"]["len"])
        return x

    return {plain(x[0]) if isinstance(x, list) else plain(x): x[1] if isinstance(x, list) else None for x in items}


SETS = ("sources", "sources6", "members", "members6", "connections", "connections6", "asking")


def lists(w):
    """What each cluster is limited to: {chain: networks}; without the rule that drops the rest, which has to be there."""
    out = json.loads(w.on_host("nft", "-j", "list", "table", *TABLE.split()))["nftables"]
    found = {x["chain"]["name"]: [] for x in out if x.get("chain", {}).get("name", "").startswith("egress_")}
    for rule in (x["rule"] for x in out if x.get("rule", {}).get("chain") in found):
        found[rule["chain"]].append(rule["expr"])
    for chain, rules in found.items():
        assert rules[-1] == [{"drop": None}], (chain, rules)
        assert all(r[-1] == {"return": None} for r in rules[:-1])
        right = [r[0]["match"]["right"] for r in rules[:-1]]
        found[chain] = ["%s/%d" % (x["prefix"]["addr"], x["prefix"]["len"]) if isinstance(x, dict) else x for x in right]
        assert all(r[0]["match"]["left"]["payload"]["field"] == "daddr" for r in rules[:-1])
    return found


def all_of_it(w):
    found = {name: listing(w, "set", name) for name in SETS}
    found.update({name: listing(w, "map", name) for name in ("accounts", "accounts6", "limited")})
    return {**found, "lists": lists(w)}


def left_behind(w):
    """What the firewall still has of clusters."""
    return {name: v for name, v in all_of_it(w).items() if v}


@pytest.fixture
def three(clean):
    """Clusters 1 and 2 are account 5's, 3 is account 6's; 2 and 3 serve."""
    c = Ctl(clean, "aaaaaaaa")
    c.at = {}
    for slot, account in ((1, 5), (2, 5), (3, 6)):
        c.at[slot] = (c.up(slot, account)[0], c.address6)
    for slot in (2, 3):
        c.serve(slot, f"cluster{slot}", 7000, *(f"{ip}:7000" for ip in c.at[slot]))
    yield c
    for slot in (1, 2, 3):
        c.down(slot)
    c("reap")
    assert left_behind(clean) == {}
    c.stop()


def test_an_accounts_clusters_reach_each_other(three):
    for mine, ip in zip(three.at[1], three.at[2]):
        assert three.tcp(1, ip, 7000, 3) == f"cluster2 {mine}", "with its own address"
        assert three.agent(1, "udp", ip, 7000, 3) == f"cluster2 {mine}"
        assert three.ping(1, ip)
    assert three.ping(2, three.at[1][0]) and three.ping(2, three.at[1][1])


def test_nobody_elses(three):
    w = three.world
    for ip in three.at[3]:
        assert w.host_agent("tcp", ip, 7000, 3).startswith("cluster3"), "it does serve"
        for slot in (1, 2):
            assert three.tcp(slot, ip, 7000, 0.3) == "timeout"
            assert three.agent(slot, "udp", ip, 7000, 0.3) == "timeout"
            assert not three.ping(slot, ip)
    assert not three.ping(3, three.at[1][0]) and not three.ping(3, three.at[1][1])
    # a mark that somebody else's rules put on a packet is no account's number
    w.on_host("nft", "add table inet other; add chain inet other pre { type filter hook prerouting priority -200; };"
              " add chain inet other post { type filter hook forward priority -10; };"
              " add rule inet other pre meta mark set 6; add rule inet other post meta mark set 6")
    try:
        for ip in three.at[3]:
            assert three.tcp(1, ip, 7000, 0.3) == "timeout"
        assert three.tcp(1, three.at[2][0], 7000, 3) == f"cluster2 {three.at[1][0]}"
    finally:
        w.on_host("nft", "delete", "table", "inet", "other")


def test_accounts_of_two_hosts_are_strangers(three):
    """The same number in another instance is another account."""
    b = Ctl(three.world, "bbbbbbbb")
    try:
        at = (b.up(9, 5)[0], b.address6)
        b.serve(9, "other", 7000)
        for ip in at:
            assert three.world.host_agent("tcp", ip, 7000, 3).startswith("other")
            assert three.tcp(1, ip, 7000, 0.3) == "timeout"
        for ip in three.at[2]:
            assert b.tcp(9, ip, 7000, 0.3) == "timeout"
    finally:
        b.down(9)
        b.stop()


def test_without_an_account_nobody(three):
    at = (three.up(4, 0)[0], three.address6)
    three.up(5, 0)
    three.serve(4, "four", 7000)
    for ip in at:
        assert three.tcp(5, ip, 7000, 0.3) == "timeout"
    three.down(4)
    three.down(5)


def test_an_address_that_goes_to_another_account(three):
    """What the old one was allowed, and the connections that it had, end with it."""
    three.down(2)
    assert three.at[2][0] not in str(left_behind(three.world))
    assert three.tcp(1, three.at[2][0], 7000, 0.3) in ("timeout", "error 113")
    three.up(2, 6)
    three.serve(2, "new", 7000)
    for ip in three.at[2]:
        assert three.world.host_agent("tcp", ip, 7000, 3).startswith("new")
        assert three.tcp(1, ip, 7000, 0.3) == "timeout"
        assert three.tcp(3, ip, 7000, 3).startswith("new"), "of the other account it is a neighbour now"


def test_ipv6_egress_is_translated(one):
    assert one.tcp(1, WEB6, 80, 3) == f"internet {UPLINK6}"
    assert one.agent(1, "udp", WEB6, 9999, 3) == f"internet {UPLINK6}"
    assert one.ping(1, WEB6)


def test_ipv6_is_closed_as_ipv4_is(one):
    w = one.world
    for ip in (META6, LAN6):
        assert w.host_agent("tcp", ip, 80, 3).startswith("internet"), "the host may"
        assert one.tcp(1, ip, 80, 0.3) == "timeout"
    assert w.host_agent("tcp", UPLINK6, 8080, 3) == f"host {UPLINK6}"
    for ip in (UPLINK6, one.service6, "fe80::1%eth0", "ff02::1%eth0"):
        assert one.tcp(1, ip, 8080, 0.3) in ("timeout", "error 101", "error 22", "error 99"), ip
        assert ip.startswith("ff") or not one.ping(1, ip)
    for ip in ("64:ff9b::a9fe:a9fe", "64:ff9b::a00:1", "2002:a00:1::1", "::ffff:169.254.169.254", "::169.254.169.254"):
        assert one.tcp(1, ip, 80, 0.3) in ("timeout", "error 101", "error 22", "error 113"), ip


def test_a_host_without_ipv6_says_so_at_once(one):
    """Nothing to wait for: the program inside takes its other address."""
    one.world.on_host("ip", "-6", "route", "del", "default")
    try:
        begin = time.monotonic()
        assert one.tcp(1, WEB6, 80, 10) == "error 101"
        assert time.monotonic() - begin < 8
        assert one.tcp(1, WEB, 80, 3) == f"internet {UPLINK}"
    finally:
        one.world.on_host("ip", "-6", "route", "add", "default", "via", "2001:db8:1::1")


def test_private_networks_of_ipv6_can_be_opened(clean):
    c = Ctl(clean, "aaaaaaaa", allow=f"10.9.0.0/16,{LAN6}/128")
    c.up(1)
    assert c.tcp(1, LAN6, 80, 3) == f"internet {UPLINK6}" and c.tcp(1, LAN[0], 80, 3) == f"internet {UPLINK}"
    assert c.tcp(1, META6, 80, 0.3) == "timeout"
    c.down(1)
    c.stop()


def test_a_pool_of_its_own(clean):
    c = Ctl(clean, "aaaaaaaa", pool6="fd12:3456:789a:1::/64")
    c.up(1)
    assert c.address6 == "fd12:3456:789a:1::1"
    c("close")
    for pool6 in ("fd12:3456:789a:2::/64", "none"):
        c.pool6 = pool6
        with pytest.raises(Refused, match="network pool6: a running cluster has fd12:3456:789a:1::1"):
            c.open()
        c("close")
    c.pool6 = "2001:db8::/64"
    with pytest.raises(Refused, match="network pool6: 2001:db8::/64 is no /64 within fc00::/7"):
        c.open()
    c("close")
    c.pool6 = "fd12:3456:789a:1::/64"
    c.open()
    assert c.tcp(1, WEB6, 80, 3) == f"internet {UPLINK6}"
    c.down(1)
    c.stop()


POOL6 = "fd12:3456:789a:1::/64"


@pytest.mark.parametrize("what", ["route fd12:3456:789a:1::/64", "route fd12:3456:789a::/48", "route fd12:3456:789a:1:8::/80",
                                  "route fd12:3456:789a:1::7/128", "address fd12:3456:789a:1::7/64",
                                  "address fd12:3456:789a:1::7/128", "down fd12:3456:789a:1::7/64",
                                  "table fd12:3456:789a::/48"])
def test_pool6_in_use(clean, what):
    """By a route, in whatever table, or an address, also of a link that is down: refused, and nothing was changed."""
    kind, net = what.split()
    w = clean
    route = (net, "via", INET6, *(("table", "52") if kind == "table" else ()))
    if kind in ("route", "table"):
        w.on_host("ip", "-6", "route", "add", *route)
    elif kind == "down":
        w.on_host("sh", "-c", f"ip link add other0 type veth peer name other1; ip address add {net} dev other0")
    else:
        w.on_host("ip", "address", "add", net, "dev", "up0", "nodad")
    try:
        c = Ctl(w, "aaaaaaaa", pool6=POOL6, opened=False)
        with pytest.raises(Refused) as why:
            c.open()
        c("close")
        said = str(why.value)
        by = net.replace("/64", "/128") if kind in ("address", "down") else net
        assert re.fullmatch(r"\d+ network pool6: %s overlaps the host's (route to|address) %s on (up0|other0); choose a /64 that "
                            r"is not in use with `pool6` in \[network\]" % (re.escape(POOL6), re.escape(by)), said), said
        assert w.links() + w.tables() == [] and w.forwards6() == ("0", "0")
    finally:
        if kind in ("route", "table"):
            w.on_host("ip", "-6", "route", "del", *route)
        elif kind == "down":
            w.on_host("ip", "link", "del", "other0")
        else:
            w.on_host("ip", "address", "del", net, "dev", "up0")
    c.open()
    c.stop()


def test_pool6_below_wide_routes_and_beside_others(clean):
    """Ways to everywhere, sinks, and the other instances that share it."""
    w = clean
    wide = ("fc00::/7", "fd00::/8", "unreachable fd12::/16")
    for route in wide:
        w.on_host("ip", "-6", "route", "add", *route.split(), *(() if "unreach" in route else ("via", INET6)))
    try:
        a, b = (Ctl(w, ident, pool6=POOL6) for ident in ("aaaaaaaa", "bbbbbbbb"))
        a.up(1)
        b.up(2)
        again = Ctl(w, "cccccccc", pool6=POOL6)
        for c, slot in ((a, 1), (b, 2)):
            assert c.tcp(slot, WEB6, 80, 3) == f"internet {UPLINK6}"
            c.down(slot)
        for c in (again, a, b):
            c.stop()
    finally:
        for route in wide:
            w.on_host("ip", "-6", "route", "del", *route.split())


DOCTOR = pathlib.Path(NETCTL).parents[3] / "hypervisor-vmm"


def doctor(w, *lines):
    """Its rows about the network: {name: (grade, what, what follows or None)}."""
    (w.tmp / "doctor.conf").write_text("[network]\n" + "\n".join(lines) + "\n")
    out = w.on_host("sh", "-c", f"{DOCTOR} doctor --config {w.tmp}/doctor.conf || true")
    rows = re.findall(r"^(ok|note|MISSING)\s+(IPv6|router adverts|bandwidth|connections|conntrack table)  +(.*)(?:\n +-> (.*))?", out, re.M)
    return {name: (grade, what, then or None) for grade, name, what, then in rows}


def test_doctor_of_the_network(clean):
    """What a host can do for clusters' networks, tried without a trace; and what is lost without."""
    w = clean
    fine = {"IPv6": ("ok", "clusters get it, translated", None), "bandwidth": ("ok", "token bucket (tbf)", None),
            "router adverts": ("ok", "the host has no route from one", None),
            "connections": ("ok", "counted for each address (ct count)", None)}
    found = doctor(w)
    assert found.pop("conntrack table")[0] in ("ok", "note")
    assert found == fine
    assert doctor(w, "pool6 = none")["IPv6"] == ("ok", "not wanted (pool6 = none)", None)
    w.on_host("ip", "-6", "route", "replace", "default", "via", INET6, "proto", "ra")
    try:
        assert doctor(w)["router adverts"] == ("ok", "the host lives by them, and goes on", None)
        w.on_host("sh", "-c", "mkdir -p /run/all && cp -r /proc/sys/net/ipv6/conf/all/. /run/all 2>/dev/null;"
                  " rm -f /run/all/force_forwarding; mount --bind /run/all /proc/sys/net/ipv6/conf/all")
        rows = doctor(w)
        assert rows["IPv6"][0] == "note" and "router's advertisement" in rows["IPv6"][1]
        assert rows["IPv6"][2] == "clusters have IPv4 only"
        assert rows["router adverts"][:2] == ("note", "the host lives by them, and its kernel cannot forward beside that")
        w.on_host("ip", "-6", "route", "del", "default", "proto", "ra")
        assert doctor(w)["router adverts"][:2] == ("note", "not needed now; none would be heard once clusters have IPv6")
        w.on_host("sh", "-c", "echo 1 > /run/all/disable_ipv6")
        assert doctor(w)["IPv6"] == ("note", "IPv6 is switched off on this host (net.ipv6.conf.*.disable_ipv6)",
                                     "clusters have IPv4 only")
    finally:
        w.on_host("sh", "-c", "umount /proc/sys/net/ipv6/conf/all; rm -rf /run/all; true")
        w.on_host("sh", "-c", "ip -6 route del default proto ra 2>/dev/null; true")
        w.on_host("ip", "-6", "route", "replace", "default", "via", INET6)
    assert w.leftovers() == [] and w.tables() == [] and w.forwards6() == ("0", "0")


def test_questions_take_no_connections(clean):
    """A cluster asks for as many names as it likes: none is tracked, answered or not; what else it has is, and it
    cannot pass for another while it asks."""
    w = clean
    c = Ctl(w, "aaaaaaaa", connections=50)
    c.up(1, 5)
    c.up(2, 5)
    tracked = lambda: w.on_host("cat", "/proc/net/nf_conntrack")  # noqa: E731
    many = ("import socket, sys\nfor i in range(400): s = socket.socket(2, 2); s.settimeout(5);"
            " s.sendto(b'x', (sys.argv[1], 53)); sys.argv[2] == 'unheard' or s.recv(99)")
    c.enter(1, sys.executable, "-c", many, c.service, "unheard")  # nothing listens
    w.serve(w.host, "resolver", c.service + ":53")
    c.enter(1, sys.executable, "-c", many, c.service, "answered")
    assert f"={c.service} " not in tracked()
    assert c.agent(1, "udp", WEB, 9999, 3).startswith("internet"), "all its connections are free"
    assert f"dst={WEB} " in tracked()
    w.log.write_text("")
    c.agent(2, "spoof", "100.96.0.1", c.service, 53)
    c.agent(2, "spoof", "100.96.0.2", c.service, 53)
    assert c.agent(2, "udp", c.service, 53, 3) == "resolver 100.96.0.2"
    assert "100.96.0.1" not in w.log.read_text()
    for slot in (1, 2):
        c.down(slot)
    c.stop()


def test_doctor_of_the_table_of_connections(clean, capfd):
    """Whether all clusters together can fill what the kernel tracks: in the doctor, and at the start."""
    w = clean
    cpus = len(os.sched_getaffinity(0))
    row = lambda *lines: doctor(w, *lines)["conntrack table"]  # noqa: E731
    wanted = cpus * 4 * 4096 + 16384  # each with an address of both families, as many visitors, and the host
    w.on_host("sh", "-c", "echo %d > /run/most; mount --bind /run/most /proc/sys/net/netfilter/nf_conntrack_max" % wanted)
    try:
        assert row() == ("ok", f"{wanted} entries, {cpus} clusters and the host may use {wanted}", None)
        grade, what, then = row("connections = 4097")
        assert (grade, what) == ("note", f"{wanted} entries, {cpus} clusters and the host may use {wanted + 4 * cpus}")
        assert "net.netfilter.nf_conntrack_max" in then and "`connections`" in then
        assert row("connections = 8192", "pool6 = none")[0] == "ok"
        assert row("connections = 8192", "public_ports = none")[0] == "ok"
        assert row("[engine]", "cpu_overcommit = 3")[1].startswith(f"{wanted} entries, {3 * cpus} clusters")
        assert row("connections = 0")[:2] == ("note", "one cluster can fill it (connections = 0)")
        for connections, warned in ((8192, False), (8193, True), (0, False)):  # this driver publishes nothing
            c = Ctl(w, "aaaaaaaa", connections=connections)
            c.stop()
            assert (f"set net.netfilter.nf_conntrack_max (sysctl) to {wanted + 2 * cpus}" in capfd.readouterr().err) == warned
    finally:
        w.on_host("sh", "-c", "umount /proc/sys/net/netfilter/nf_conntrack_max; rm -f /run/most")


def test_a_host_that_lives_by_advertisements(clean):
    """Forwarding may not cost the host its own way out: where the kernel has no way to do both, clusters do
    without IPv6."""
    w = clean
    w.on_host("ip", "-6", "route", "replace", "default", "via", "2001:db8:1::1", "proto", "ra")
    try:
        for has_way in (True, False):
            if not has_way:  # an older kernel
                w.on_host("sh", "-c", "mkdir -p /run/all && cp -r /proc/sys/net/ipv6/conf/all/. /run/all 2>/dev/null;"
                          " rm -f /run/all/force_forwarding; mount --bind /run/all /proc/sys/net/ipv6/conf/all")
            c = Ctl(w, "aaaaaaaa")
            try:
                c.up(1)
                assert (c.address6 != "-") == has_way
                assert w.sysctl("conf/all/forwarding", 6) == "0"
                assert c.tcp(1, WEB, 80, 3) == f"internet {UPLINK}"
                assert not has_way or c.tcp(1, WEB6, 80, 3) == f"internet {UPLINK6}"
                c.down(1)
            finally:
                c.stop()
    finally:
        w.on_host("sh", "-c", "umount /proc/sys/net/ipv6/conf/all; rm -rf /run/all; true")
        w.on_host("ip", "-6", "route", "replace", "default", "via", "2001:db8:1::1")
        w.on_host("sh", "-c", "ip -6 route del default proto ra; true")


def test_ipv6_forwarding_goes_with_the_last(clean):
    a, b = Ctl(clean, "aaaaaaaa"), Ctl(clean, "bbbbbbbb")
    assert "1" in clean.forwards6()
    a.stop()
    assert "1" in clean.forwards6()
    b.stop()
    assert clean.forwards6() == ("0", "0")
    clean.on_host("sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/all/forwarding")
    try:
        Ctl(clean, "aaaaaaaa").stop()
        assert clean.forwards6() == ("1", "0"), "what was on stays on"
    finally:
        clean.on_host("sh", "-c", "echo 0 > /proc/sys/net/ipv6/conf/all/forwarding")


def test_egress_list(clean):
    w, c = clean, Ctl(clean, "aaaaaaaa", dns=f"{LAN[0]}", allow="172.20.0.0/16,192.168.5.0/24")
    c.up(1, 5, "203.0.113.0/24,2001:db8:7::/48,192.168.5.7")
    c.up(2, 5, "none")
    peer = (c.up(3, 5)[0], c.address6)
    c.serve(3, "three", 7000)
    pid = int(c("listen"))
    try:
        assert c.tcp(1, WEB, 80, 3) == f"internet {UPLINK}" and c.tcp(1, WEB6, 80, 3) == f"internet {UPLINK6}"
        assert c.tcp(1, LAN[3], 80, 3) == f"internet {UPLINK}", "private, opened and listed"
        for ip in (INET, LAN[2], "2001:db8:1::1"):
            assert c.tcp(3, ip, 80, 3).startswith("internet"), "one without a list may"
            assert c.tcp(1, ip, 80, 0.3) == "timeout", "not listed"
        for ip in (WEB, WEB6, LAN[3]):
            assert c.tcp(2, ip, 80, 0.3) == "timeout", "it may nowhere"
        for slot in (1, 2):  # what a list never takes away
            assert c.agent(slot, "udp", LAN[0], 53, 3) == f"internet {UPLINK}"
            assert c.tcp(slot, c.service, 80, 3) == f"slot {slot}\n"
            for ip in peer:
                assert c.tcp(slot, ip, 7000, 3).startswith("three")
        assert listing(w, "map", "limited") == {f"hv{i}": {"jump": {"target": f"egress_{i}"}} for i in (1, 2)}
        assert lists(w) == {"egress_1": ["203.0.113.0/24", "2001:db8:7::/48", "192.168.5.7"], "egress_2": []}
    finally:
        os.kill(pid, 9)
    for slot in (1, 2, 3):
        c.down(slot)
    assert left_behind(w) == {}
    c.stop()


# A stream that is up the whole time: what it is sent comes back
ECHO = """
import socket, sys
s = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind((sys.argv[1], 7171)); s.listen(1)
print("ready", flush=True)
c, _ = s.accept()
while (x := c.recv(100)): c.sendall(x)
"""
TALK = """
import socket, sys
s = socket.create_connection((sys.argv[1], 7171), 5); print("ready", flush=True)
for line in sys.stdin: s.sendall(line.encode()); print(s.recv(100).decode().strip(), flush=True)
"""


class Stream:
    """From a cluster to a machine outside, or to another cluster."""

    def __init__(self, c, slot, ip, server=None):
        where = ["-t", str(c.world.inet), "-n"] if server is None else [f"--net=/proc/{c.p.pid}/fd/{c.ns[server]}"]
        c.world.start("nsenter", *where, sys.executable, "-c", ECHO, ip)
        self.p = c.world.start("nsenter", f"--net=/proc/{c.p.pid}/fd/{c.ns[slot]}", sys.executable, "-c", TALK, ip)

    def says(self, word, seconds=10):
        self.p.stdin.write(word + "\n")
        self.p.stdin.flush()
        ready = select.select([self.p.stdout], [], [], seconds)[0]
        return bool(ready) and self.p.stdout.readline() == word + "\n"


def test_the_first_packet_is_judged(clean):
    c = Ctl(clean, "aaaaaaaa")
    c.world.log.write_text("")
    for slot in range(20, 30):
        c.up(slot, 5, "198.51.100.0/24")
        assert c.agent(slot, "udp", WEB, 9999, 0.1) == "timeout"
        c.down(slot)
    assert c.world.log.read_text() == ""
    c.stop()


def tracked(w, source, dest, port):
    """The kernel's entries of what the one has begun to the other, without what changes in them."""
    a, b = (ipaddress.ip_address(x).exploded for x in (source, dest))
    return [l for l in w.on_host("cat", "/proc/net/nf_conntrack").splitlines() if f"src={a} dst={b} " in l
            and f"dport={port} " in l]


def test_a_list_that_changes(clean):
    """From one packet to the next, also for what the cluster has begun; what no list is about goes on."""
    w, c = clean, Ctl(clean, "aaaaaaaa", dns=LAN[0])
    at = {slot: (c.up(slot, 5, egress)[0], c.address6) for slot, egress in ((1, "203.0.113.0/24,2001:db8:7::/48"), (2, "-"))}
    web, web6, inet = Stream(c, 1, WEB), Stream(c, 1, WEB6), Stream(c, 2, INET)
    peers = [Stream(c, 1, ip, server=2) for ip in at[2]]
    assert c.agent(1, "udp", WEB, 9999, 3) == c.agent(1, "udp", LAN[0], 53, 3) == f"internet {UPLINK}"
    for x in (web, web6, inet, *peers):
        assert x.says("before")
    c("change", 1, "203.0.113.7,198.51.100.0/24")
    assert web.says("listed still") and not web6.says("not listed now", 0.5)
    for x in (inet, *peers):
        assert x.says("no list is about it")
    assert lists(w) == {"egress_1": ["203.0.113.7", "198.51.100.0/24"]}
    assert tracked(w, at[1][0], WEB, 7171) and not tracked(w, at[1][1], WEB6, 7171)
    assert c.tcp(1, INET, 80, 3) == f"internet {UPLINK}" and c.tcp(1, WEB6, 80, 0.3) == "timeout"
    c("change", 1, "none")
    assert not web.says("no network", 0.5) and not tracked(w, at[1][0], WEB, 9999)
    assert tracked(w, at[1][0], LAN[0], 53) and c.agent(1, "udp", LAN[0], 53, 3) == f"internet {UPLINK}"
    for x in (inet, *peers):
        assert x.says("no list is about it")
    c("change", 1, "-")
    assert "egress_1" not in lists(w) and listing(w, "map", "limited") == {}
    for ip, up in ((WEB, UPLINK), (WEB6, UPLINK6), (INET, UPLINK)):
        assert c.tcp(1, ip, 80, 3) == f"internet {up}"
    c("change", 1, "-")
    c("change", 2, "198.51.100.1")
    assert inet.says("listed") and lists(w) == {"egress_2": ["198.51.100.1"]}
    with pytest.raises(Refused, match="egressAllow: 10.0.0.1/8 does not start at its base"):
        c("change", 2, "10.0.0.1/8")
    assert lists(w) == {"egress_2": ["198.51.100.1"]}
    w.on_host("nft", "flush", "ruleset")
    c("change", 1, "203.0.113.0/24")  # it makes what it needs; the rest is the engine's repair
    assert c.tcp(1, WEB, 80, 3) == f"internet {UPLINK}" and c.tcp(1, INET, 80, 0.3) == "timeout"
    c("repair")
    assert lists(w) == {"egress_1": ["203.0.113.0/24"], "egress_2": ["198.51.100.1"]}
    for slot in (1, 2):
        c.down(slot)
    assert left_behind(w) == {}
    c.stop()


FLOOD = """
import socket, sys
print("ready", flush=True)
s = socket.socket(2, 2)
while True: s.sendto(b"leak", (sys.argv[1], 9999))
"""


def test_no_packet_between_two_lists(clean):
    """What neither list has gets nowhere while they take turns; what both have never waits."""
    w, c = clean, Ctl(clean, "aaaaaaaa")
    both, turns = "198.51.100.0/24", ("10.0.0.0/8", "192.0.2.0/24,10.0.0.0/8,2001:db8:9::/48")
    c.up(1, 5, both)
    always = Stream(c, 1, INET)
    w.log.write_text("")
    flood = w.start("nsenter", f"--net=/proc/{c.p.pid}/fd/{c.ns[1]}", sys.executable, "-c", FLOOD, WEB)
    for i in range(100):
        c("change", 1, both + "," + turns[i % 2])
        if i % 10 == 0:
            assert c.tcp(1, INET, 80, 3) == f"internet {UPLINK}" and always.says(f"turn {i}")
    flood.kill()
    flood.wait()
    assert w.log.read_text() == ""
    c.down(1)
    c.stop()


def test_networks_of_every_length(clean):
    """As nft would have written the rules, so that it reads them back."""
    c = Ctl(clean, "aaaaaaaa")
    v4 = [f"{ipaddress.ip_network((0xcb007100 | 0x7, n), strict=False)}" for n in (32, 31, 25, 24, 23, 17, 16, 9, 8, 4, 1)]
    v6 = [f"{ipaddress.ip_network((0x20010db8000700000000000000000007, n), strict=False)}" for n in
          (128, 127, 121, 120, 65, 64, 63, 48, 33, 32, 20, 3, 1)]
    for net in v4 + v6:
        c.up(1, 5, net)
        assert lists(clean) == {"egress_1": [net.removesuffix("/32").removesuffix("/128") if net in (v4[0], v6[0]) else net]}
        assert c.tcp(1, WEB, 80, 0.3 if net in v6 else 3) == ("timeout" if net in v6 else f"internet {UPLINK}"), net
        assert c.tcp(1, WEB6, 80, 0.3 if net in v4 else 3) == ("timeout" if net in v4 else f"internet {UPLINK6}"), net
        c.down(1)
    c.up(1, 5, "0.0.0.0/0")
    assert c.tcp(1, WEB, 80, 3) == f"internet {UPLINK}" and c.tcp(1, WEB6, 80, 0.3) == "timeout"
    c.down(1)
    c.up(1, 5, "::/0")
    assert c.tcp(1, WEB6, 80, 3) == f"internet {UPLINK6}" and c.tcp(1, WEB, 80, 0.3) == "timeout"
    c.down(1)
    c.stop()


def test_a_list_at_its_longest(clean):
    c = Ctl(clean, "aaaaaaaa")
    nets = [f"2001:db8:{i * 2:x}::/47" for i in range(1, 63)] + ["203.0.113.0/24", "2001:db8:ffff::/64"]
    c.up(1, 5, ",".join(nets))
    assert c.tcp(1, WEB6, 80, 3) == f"internet {UPLINK6}" and c.tcp(1, WEB, 80, 3) == f"internet {UPLINK}"
    c.up(2, 5, ",".join(nets))
    c.down(1)
    assert lists(clean) == {"egress_2": nets} and set(listing(clean, "map", "limited")) == {"hv2"}
    assert c.tcp(2, WEB6, 80, 3) == f"internet {UPLINK6}"
    c.down(2)
    assert left_behind(clean) == {}
    with pytest.raises(Refused, match="egressAllow: more than 64 networks"):
        c.up(1, 5, ",".join(nets + ["10.0.0.0/8"]))
    c.down(1)
    c.stop()


def test_spoofed_ipv6_source(one):
    w = one.world
    one.up(2)
    w.log.write_text("")
    for source in (one.address6, UPLINK6, WEB6, "2001:db8:9::9", "fe80::2", "::1"):
        one.agent(1, "spoof6", source, WEB6, 9999)
    mine = one.address6[:-1] + "1"
    assert one.agent(1, "spoof6", mine, WEB6, 9999) > 0
    end = time.monotonic() + 5
    while "spoof" not in w.log.read_text() and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(0.1)
    assert w.log.read_text() == f"{UPLINK6} spoof\n", "only the one with the true source"
    one.down(2)


def macs(c, slot):
    """Of the inner and the outer end."""
    inner = json.loads(c.enter(slot, "ip", "-j", "link", "show", "eth0"))[0]["address"]
    outer = json.loads(c.world.on_host("ip", "-j", "link", "show", f"hv{slot}"))[0]["address"]
    return inner.replace(":", ""), outer.replace(":", "")


def hex_ip(text):
    return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text).hex()


def test_spoofed_hardware_address(one):
    """A true address from a false card gets nowhere."""
    w = one.world
    inner, outer = macs(one, 1)
    # IPv4, UDP to the internet's port 9999; checksums are not looked at on the way, and 0 is none for UDP
    def packet(mac):
        head = "4500001d0007000040110000" + hex_ip(one.address) + hex_ip(WEB)
        words = [int(head[i:i + 4], 16) for i in range(0, 40, 4)]
        total = sum(words)
        total = (total & 0xffff) + (total >> 16)
        total = (total & 0xffff) + (total >> 16)
        head = head[:20] + "%04x" % (~total & 0xffff) + head[24:]
        return outer + mac + "0800" + head + "115c270f00090000" + "41"

    w.log.write_text("")
    one.agent(1, "frame", "eth0", packet("0268760100ff"))
    one.agent(1, "frame", "eth0", packet(inner))
    end = time.monotonic() + 5
    while "A" not in w.log.read_text() and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(0.1)
    assert w.log.read_text() == f"{UPLINK} A\n", "once, from the true card"


def neighbours(w):
    return sorted(l for l in w.on_host("ip", "neigh", "show", "nud", "all").splitlines() if re.search(r"\bhv\d", l))


def test_forged_neighbours(one):
    """Whatever is said of neighbours, by ARP or by neighbour discovery: nobody answers, nobody learns."""
    w = one.world
    inner, outer = macs(one, 1)
    before = neighbours(w)
    assert len(before) == 2 and all("PERMANENT" in l for l in before)
    routes = w.on_host("ip", "-6", "route")
    inside = one.enter(1, "ip", "neigh")
    evil, everyone = "026666666666", "f" * 12
    for mac_to in (outer, everyone):
        for op in ("0001", "0002"):
            for ip in (one.address, "100.96.0.77", UPLINK, "169.254.1.1"):
                one.agent(1, "frame", "eth0", mac_to + evil + "0806" + "00010800060400" + op[2:] + evil + hex_ip(ip)
                          + outer + hex_ip(UPLINK))

    def icmp6(source, dest, kind, body):
        payload = kind + "000000" + body
        pseudo = hex_ip(source) + hex_ip(dest) + "%08x" % (len(payload) // 2) + "0000003a" + payload
        total = sum(int(pseudo[i:i + 4], 16) for i in range(0, len(pseudo), 4))
        while total >> 16:
            total = (total & 0xffff) + (total >> 16)
        payload = kind + "00" + "%04x" % (~total & 0xffff) + body
        return ("86dd6000000" + "0" + "%04x" % (len(payload) // 2) + "3aff" + hex_ip(source) + hex_ip(dest) + payload)

    target, link_layer = hex_ip(one.service6), "0101" + evil
    for source in (one.address6, "fe80::6666", one.service6):
        for dest in (one.service6, "ff02::1", UPLINK6):
            for kind, body in (("87", "00000000" + target + link_layer),              # solicitation
                               ("88", "e0000000" + hex_ip(source) + "0201" + evil),   # advertisement
                               ("86", "40000708" + "0" * 16 + link_layer),            # router advertisement
                               ("89", "00000000" + target + hex_ip(WEB6))):           # redirect
                one.agent(1, "frame", "eth0", outer + inner + icmp6(source, dest, kind, body))
    assert one.tcp(1, WEB, 80, 3) == f"internet {UPLINK}", "what came before it has been dealt with"
    assert one.tcp(1, WEB6, 80, 3) == f"internet {UPLINK6}"
    assert neighbours(w) == before
    assert w.on_host("ip", "-6", "route") == routes
    assert one.enter(1, "ip", "neigh") == inside
    # and the host says nothing of itself
    assert "1 received" not in one.enter(1, "sh", "-c", "arping -c 1 -w 1 -I eth0 169.254.1.1 2>&1 || true")


def test_connections_of_one_leave_the_others_theirs(clean):
    c = Ctl(clean, "aaaaaaaa", connections=50)
    c.up(1, 5)
    c.up(2, 5)
    for ip in (WEB, WEB6):
        c.agent(1, "flows", ip, 20000, 400)
        assert c.agent(1, "udp", ip, 9999, 0.3) == "timeout", "it has no more"
        assert c.agent(2, "udp", ip, 9999, 3).startswith("internet"), "another has"
    tracked = clean.on_host("cat", "/proc/net/nf_conntrack")
    for ip in ("100.96.0.1", c.address6[:-1] + "1"):
        n = len(re.findall(r"src=%s " % re.escape(str(ipaddress.ip_address(ip).exploded) if ":" in ip else ip),
                           tracked))
        assert 40 <= n <= 52, (ip, n)
    assert set(listing(clean, "set", "connections")) == {"100.96.0.1", "100.96.0.2"}
    # one connection counts once, however much it sends before it is answered
    c.up(3, 5)
    c.enter(3, sys.executable, "-c", "import socket\ns = socket.socket(2, 2)\n"
            f"for i in range(2000): s.sendto(b'x', ('{WEB}', 20000))")
    assert c.agent(3, "udp", WEB, 9999, 3).startswith("internet")
    # the next one with the address begins anew
    c.down(1)
    c.up(1, 6)
    assert c.agent(1, "udp", WEB, 9999, 3).startswith("internet")
    for slot in (1, 2, 3):
        c.down(slot)
    assert left_behind(clean) == {}
    c.stop()


def test_questions_of_one_leave_the_others_theirs(three):
    """At the resolver, whose socket holds some hundreds."""
    w = three.world
    w.serve(w.host, "resolver", f"{three.service}:53")
    three.serve(2, "ear", f"{three.at[2][0]}:53")
    assert three.agent(3, "udp", three.service, 53, 3) == f"resolver {three.at[3][0]}"
    before = w.log.read_text().count("burst")
    begin = time.monotonic()
    three.agent(1, "burst", three.service, 53, 30000)
    took = time.monotonic() - begin
    assert three.agent(3, "udp", three.service, 53, 5) == f"resolver {three.at[3][0]}"
    assert w.log.read_text().count("burst") - before <= 1000 + 2000 * took
    w.log.write_text("")
    three.agent(1, "burst", three.at[2][0], 53, 3000)  # what goes elsewhere is not counted
    end = time.monotonic() + 10
    while "burst 2999" not in w.log.read_text():
        assert time.monotonic() < end, w.log.read_text()[-200:]
        three.agent(1, "burst", three.at[2][0], 53, 3000)
    assert three.agent(1, "udp", three.service, 53, 3) == f"resolver {three.at[1][0]}"


def test_bandwidth(clean):
    """A second's stream each way, beside one that is held to nothing."""
    rate = 4 << 20
    c = Ctl(clean, "aaaaaaaa", bandwidth=rate)
    c.up(1)
    for way in ("in", "out"):
        got = c.agent(1, "rate", WEB, 7070, 3, way)
        assert 0.7 * rate < got < 1.3 * rate, (way, got / rate)
    assert "tbf" in clean.on_host("tc", "qdisc", "show", "dev", "hv1")
    assert "tbf" in c.enter(1, "tc", "qdisc", "show", "dev", "eth0")
    c.down(1)
    c.stop()
    free = Ctl(clean, "bbbbbbbb")
    free.up(1)
    assert free.agent(1, "rate", WEB, 7070, 1, "in") > 3 * rate
    free.down(1)
    free.stop()


def test_all_of_it_comes_back(clean):
    """After `nft flush ruleset`: closed at once, and repaired with accounts, lists and limits."""
    c = Ctl(clean, "aaaaaaaa", connections=1000)
    at = {}
    for slot, account, egress in ((1, 5, "203.0.113.0/24"), (2, 5, "-"), (3, 6, "-")):
        at[slot] = (c.up(slot, account, egress)[0], c.address6)
    c.serve(2, "two", 7000)
    c("prepare", 4)
    was = all_of_it(clean)
    clean.on_host("nft", "flush", "ruleset")
    c("repair")
    assert all_of_it(clean) == {**was, "connections": {}, "connections6": {}}
    for gone in (("flush", "table", *TABLE.split()), ("flush", "map", *TABLE.split(), "limited"),
                 ("flush", "set", *TABLE.split(), "members")):
        clean.on_host("nft", *gone)
        c("repair")
        assert all_of_it(clean) == {**was, "connections": {}, "connections6": {}}, gone
    # a list that is in force may be newer than what the repair knows
    clean.on_host("nft", "flush chain %s egress_1; add rule %s egress_1 ip daddr 192.0.2.0/24 return;"
                  " add rule %s egress_1 drop" % (TABLE, TABLE, TABLE))
    c("repair")
    assert lists(clean) == {"egress_1": ["192.0.2.0/24"]}
    c("change", 1, "203.0.113.0/24")
    for ip in at[2]:
        assert c.tcp(1, ip, 7000, 3).startswith("two")
        assert c.tcp(3, ip, 7000, 0.3) == "timeout"
    assert c.tcp(1, WEB6, 80, 0.3) == "timeout" and c.tcp(2, WEB6, 80, 3) == f"internet {UPLINK6}"
    for slot in (1, 2, 3):
        c.down(slot)
    c("release", 4, "later")
    c("drop", 4)
    assert left_behind(clean) == {}
    c.stop()


# Of an engine from before IPv6, accounts and lists: links, sources without a hardware address
OLD_LAYOUT = """
table inet hvmm_aaaaaaaa {
  set links { type ifname; elements = { "hv1", "hv2", "hv4" } }
  set sources { type ifname . ipv4_addr; elements = { "hv1" . 100.96.0.1, "hv2" . 100.96.0.2 } }
  set released { type ipv4_addr; elements = { 100.96.0.9 } }
  set resolvers { type ipv4_addr; }
  set fetchers { type uid; }
  set fetch_to4 { type ipv4_addr . inet_proto . inet_service; }
  set fetch_to6 { type ipv6_addr . inet_proto . inet_service; }
  map published { type inet_proto . inet_service : ipv4_addr . inet_service; }
  chain from_cluster {
    meta nfproto != ipv4 drop
    iifname . ip saddr != @sources drop
    ct state established,related accept
    fib daddr type != unicast drop
  }
  chain leave_cluster { oifname "hv*" drop; }
  chain early { type filter hook prerouting priority -150; policy accept; iifname @links jump from_cluster; }
  chain input { type filter hook input priority 0; policy accept; iifname @links drop; }
  chain forward { type filter hook forward priority -5; policy accept; iifname @links jump leave_cluster; }
  chain nat_out { type nat hook postrouting priority 100; policy accept; iifname @links oifname != "hv*" masquerade; }
}
"""
# Of the first with lists: intervals
LISTS_AS_SETS = """
  map limited { type ifname : mark; elements = { "hv1" : 0x1 } }
  set egress { type mark . ipv4_addr; flags interval; elements = { 0x1 . 203.0.113.0/24 } }
  set sources6 { type ifname . ether_addr . ipv6_addr; elements = { %s } }
  map accounts { type ipv4_addr : mark; elements = { 100.96.0.1 : 0x9 } }
}
"""

@pytest.mark.parametrize("layout", ["before IPv6", "lists as sets"])
def test_the_table_of_another_version(clean, layout):
    """The clusters of the engine before keep what they have, from the first packet on: the new table is there with
    them, in the one transaction in which the old one goes."""
    w, c = clean, Ctl(clean, "aaaaaaaa", dns=LAN[0])
    for slot, account, egress in ((1, 5, "203.0.113.0/24"), (2, 5, "-"), (3, 6, "none")):
        c.up(slot, account, egress)
    six = c.address6[:-1]
    c("prepare", 4)
    wants = all_of_it(w)
    says = Stream(c, 1, WEB).says
    old = OLD_LAYOUT.replace("aaaaaaaa", c.ident)
    if layout != "before IPv6":  # with hardware addresses, and slot 3 too
        mac = "02:68:76:01:00:%02x"
        old = old.replace("type ifname . ipv4_addr", "type ifname . ether_addr . ipv4_addr").replace(
            "iifname . ip saddr", "iifname . ether saddr . ip saddr")
        for slot in (1, 2):
            old = old.replace('"hv%d" . ' % slot, '"hv%d" . %s . ' % (slot, mac % slot))
        old = old.rstrip().removesuffix("}") + LISTS_AS_SETS % ", ".join(
            '"hv%d" . %s . %s%d' % (i, mac % i, six, i) for i in (1, 2))
    (w.tmp / "old.nft").write_text("delete table inet hvmm_aaaaaaaa\n" + old)
    w.on_host("nft", "-f", str(w.tmp / "old.nft"))
    assert says("over the old one")
    w.log.write_text("")
    c("close")
    c.open()
    assert "type ifname . ipv4_addr" in w.on_host("nft", "list", "table", *TABLE.split()) or layout != "before IPv6", "kept"
    assert says("until clusters are known")
    assert c("settle") == "outdated" and c("settle") == "current"
    assert says("over the new one")
    now = all_of_it(w)
    if layout == "before IPv6":  # clusters that were started without have none
        assert [now[n] for n in ("sources6", "accounts6", "members6")] == [{}, {}, {}]
    else:
        assert len(now["sources6"]) == 2, "slot 3 had none"
        assert set(now["sources6"]) < set(wants["sources6"])
    for name in ("sources", "members", "accounts", "limited", "lists"):
        assert now[name] == wants[name], name
    assert set(listing(w, "set", "links")) == {"hv1", "hv2", "hv3", "hv4"}
    assert listing(w, "set", "resolvers") == {LAN[0]: None} and listing(w, "set", "released") == {}
    assert c.tcp(1, WEB, 80, 3) == f"internet {UPLINK}" and c.tcp(2, INET, 80, 3).startswith("internet")
    assert c.tcp(1, INET, 80, 0.3) == "timeout" and c.tcp(3, WEB, 80, 0.3) == "timeout", "lists are in force"
    handles = w.on_host("nft", "-a", "list", "table", *TABLE.split())
    c("close")
    c.open()
    assert c("settle") == "current"
    table = re.search(r"table inet \S+ \{ # handle \d+", handles)[0]
    assert table in w.on_host("nft", "-a", "list", "table", *TABLE.split()), "one of ours is not made anew"
    for slot in (1, 2, 3):
        c.down(slot)
    c("release", 4, "later")
    c("drop", 4)
    assert left_behind(w) == {}
    c.stop()


def test_connections_of_ipv6_end_with_their_cluster(one):
    w = one.world
    one.up(5)
    at = one.address6
    assert one.agent(5, "udp", WEB6, 9999, 3) == f"internet {UPLINK6}"
    full = ipaddress.ip_address(at).exploded

    def known():
        return [l for l in w.on_host("cat", "/proc/net/nf_conntrack").splitlines() if f"={full} " in l]

    assert len(known()) == 1
    one.down(5)
    assert at in listing(w, "set", "released6")
    one("reap")
    assert known() == [] and listing(w, "set", "released6") == {} and listing(w, "set", "released") == {}


def test_a_disk_without_room(clean):
    """Nothing has to be made on it for a cluster to get another list, to come back, or to go."""
    c = Ctl(clean, "aaaaaaaa", opened=False)
    clean.on_host("mount", "-t", "tmpfs", "-o", "nr_inodes=1", "none", str(c.data))
    c.open()
    c.up(1, 5)
    c("change", 1, "198.51.100.0/24")
    assert lists(clean) == {"egress_1": ["198.51.100.0/24"]}
    clean.on_host("nft", "flush", "ruleset")
    c("repair")
    c.down(1)
    assert left_behind(clean) == {}
    c.stop()
    clean.on_host("umount", str(c.data))
