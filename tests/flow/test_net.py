"""Cluster networks on the real kernel (root): engine/net through the driver netctl, in the namespaces of
tests/lib/networld.py."""
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from networld import (AGENT, INET, LAN, META, POOL, RESOLVER, SERVER, UPLINK, WEB, Ctl, Refused, clean, four, one,  # noqa: F401
                      pair, world)


def test_lease(one):
    assert one.address == "100.96.0.1" and one.slot == "1"
    assert one.service.startswith("100.96.")
    assert f"nameserver {WEB}|" in one.resolv
    assert "127.0.0.53" not in one.resolv and "secret" not in one.resolv


def test_inside(one):
    """What a cluster sees of its network: one link, one address, one way, everything free."""
    addrs = {l["ifname"]: [a["local"] for a in l["addr_info"]]
             for l in json.loads(one.enter(1, "ip", "-j", "addr")) if "UP" in l["flags"]}
    assert addrs == {"lo": ["127.0.0.1", "::1"], "eth0": ["100.96.0.1", one.address6]}
    assert one.address6.startswith("fd") and one.address6.endswith("::1")
    assert one.enter(1, "ip", "route").strip() == "default via 169.254.1.1 dev eth0 proto static onlink"
    assert "PERMANENT" in one.enter(1, "ip", "neigh")
    proc = "/proc/sys/net"
    assert one.enter(1, "cat", f"{proc}/ipv4/ip_forward").strip() == "0"
    assert one.enter(1, "ip", "-6", "route", "show", "default").split()[:5] == ["default", "via", "fe80::1", "dev", "eth0"]
    for name, value in (("accept_ra", "0"), ("accept_redirects", "0"), ("forwarding", "0")):
        assert one.enter(1, "cat", f"{proc}/ipv6/conf/eth0/{name}").strip() == value, name
    for end in (one.enter(1, "ip", "-j", "link", "show", "eth0"), one.world.on_host("ip", "-j", "link", "show", "hv1")):
        assert "NOARP" in json.loads(end)[0]["flags"]
    first = 0x50000000 + 65536
    assert one.enter(1, "cat", f"{proc}/ipv4/ping_group_range").split() == [str(first), str(first + 65535)]
    assert one.enter(1, "setpriv", "--reuid", "12345", "--clear-groups", "--regid", "12345",
                     sys.executable, "-c", AGENT, "bind80").strip() == '"ok"'
    host = json.loads(one.world.on_host("ip", "-j", "-d", "addr", "show", "dev", "hv1"))[0]
    assert host["addr_info"] == [], "the host has no address on a cluster's link, IPv6 neither"


def test_icmp_sockets_are_for_the_clusters_groups(one):
    first = 0x50000000 + 65536
    code = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)"
    for gid, may in ((first, True), (first + 65535, True), (first - 1, False), (first + 65536, False), (0, False)):
        done = subprocess.run(["nsenter", f"--net=/proc/{one.p.pid}/fd/{one.ns[1]}", "setpriv", "--regid", str(gid),
                               "--clear-groups", "--reuid", "12345", sys.executable, "-c", code],
                              capture_output=True, text=True)
        assert (done.returncode == 0) == may, (gid, done.stderr)
        assert may or "PermissionError" in done.stderr


def test_sysfs_is_the_clusters(one):
    fd = one("prepare", 9).split()[1]
    try:
        names = os.listdir(f"/proc/{one.p.pid}/fd/{fd}/class/net")
        assert "eth0" in names and "up0" not in names
        with pytest.raises(OSError):
            os.open(f"/proc/{one.p.pid}/fd/{fd}/class/net/eth0/mtu", os.O_WRONLY)
    finally:
        one.down(9)


def test_egress_is_translated(one):
    assert one.tcp(1, WEB, 80) == f"internet {UPLINK}"
    assert one.agent(1, "udp", WEB, 9999, 1) == f"internet {UPLINK}"
    assert "1 received" in one.enter(1, "ping", "-c1", "-W1", WEB)


def test_first_packet_counts(one):
    """The link carries from the moment that net_bind() returns."""
    for slot in range(20, 40):
        one.up(slot)
        assert one.agent(slot, "udp", WEB, 9999, 1) == f"internet {UPLINK}"
        one.down(slot)


def test_host_is_closed(one):
    for ip in (UPLINK, one.service, "127.0.0.1"):
        assert one.tcp(1, ip, 8080) in ("timeout", "error 111" if ip == "127.0.0.1" else "timeout")
    assert one.agent(1, "udp", UPLINK, 8080, 0.4) == "timeout"
    assert one.world.host_agent("tcp", UPLINK, 8080, 1) == f"host {UPLINK}", "the server itself works"
    for ip in ("169.254.1.1", UPLINK, one.service):
        assert subprocess.run(["nsenter", f"--net=/proc/{one.p.pid}/fd/{one.ns[1]}", "ping", "-c1",
                               "-W1", ip], capture_output=True).returncode != 0
    for ip in ("255.255.255.255", "224.0.0.1", "198.51.100.255"):
        assert one.agent(1, "udp", ip, 8080, 0.3) in ("timeout", "error 13")


def test_host_address_stays_closed_behind_foreign_dnat(one):
    """Somebody else's port forwarding on the host is no way in: the host's address is judged
    before it is translated."""
    w = one.world
    w.on_host("nft", "add table ip other; add chain ip other pre { type nat hook prerouting priority -100; };"
              f" add rule ip other pre ip daddr {UPLINK} tcp dport 81 dnat to {WEB}:80")
    try:
        assert one.tcp(1, UPLINK, 81) == "timeout"
    finally:
        w.on_host("nft", "delete", "table", "ip", "other")


def test_host_stays_closed_behind_a_foreign_redirect(one):
    """A transparent proxy of the operator's is the host too."""
    w = one.world
    w.on_host("nft", "add table ip other; add chain ip other pre { type nat hook prerouting priority -100; };"
              f" add rule ip other pre ip daddr {WEB} tcp dport 81 dnat to {UPLINK}:8080")
    try:
        assert one.tcp(1, WEB, 81) == "timeout"
        assert one.tcp(1, WEB, 80) == f"internet {UPLINK}"
    finally:
        w.on_host("nft", "delete", "table", "ip", "other")


def test_metadata_is_closed(one):
    assert one.world.host_agent("tcp", META, 80, 1).startswith("internet"), "the host may"
    assert one.tcp(1, META, 80) == "timeout"
    assert one.agent(1, "udp", META, 53, 0.4) == "timeout"


def test_link_local_resolver_is_open_for_dns_only(clean):
    """Some clouds resolve names on a link-local address."""
    c = Ctl(clean, "aaaaaaaa", dns=f"{RESOLVER},{WEB}")
    c.up(1)
    assert c.agent(1, "udp", RESOLVER, 53, 1) == f"internet {UPLINK}"
    assert c.tcp(1, RESOLVER, 53) == f"internet {UPLINK}"
    assert c.tcp(1, RESOLVER, 80) == "timeout"
    assert c.agent(1, "udp", META, 53, 0.4) == "timeout"
    c.down(1)
    c.stop()


def test_private_networks_are_closed(one):
    for a in LAN:
        assert one.world.host_agent("tcp", a, 80, 1).startswith("internet"), "the host may"
        assert one.tcp(1, a, 80, 0.2) == "timeout"
        assert one.agent(1, "udp", a, 53, 0.2) == "timeout"
    assert one.tcp(1, WEB, 80) == f"internet {UPLINK}"


def test_private_networks_can_be_opened(clean):
    c = Ctl(clean, "aaaaaaaa", allow="10.9.0.0/16,192.168.5.7/32,10.0.0.0/8")
    c.up(1)
    c.up(2)
    got = {a: c.tcp(1, a, 80, 0.3) for a in LAN + (META, "100.96.0.2", UPLINK)}
    assert {a for a, answer in got.items() if answer == f"internet {UPLINK}"} == {LAN[0], LAN[3]}, got
    assert {a for a, answer in got.items() if answer == "timeout"} == {
        LAN[1], LAN[2], META, "100.96.0.2", UPLINK}, got
    # an engine that starts with another configuration closes them again
    c("close")
    c.allow = "-"
    c.open()
    assert c.tcp(1, LAN[0], 80, 0.3) == "timeout"
    c.down(1)
    c.down(2)
    c.stop()


def test_nothing_opens_metadata_and_neighbours(clean):
    c = Ctl(clean, "aaaaaaaa", allow="0.0.0.0/0")
    c.up(1)
    c.up(2)
    assert c.tcp(1, LAN[2], 80) == f"internet {UPLINK}"
    for a in (META, "100.96.0.2", UPLINK, "127.0.0.1"):
        assert c.tcp(1, a, 80, 0.3) in ("timeout", "error 111"), a
    c.down(1)
    c.down(2)
    c.stop()
    c = Ctl(clean, "aaaaaaaa", allow="169.254.169.254/32", opened=False)
    with pytest.raises(Refused, match="network allow: 169.254.169.254/32: clusters never reach link-local"):
        c.open()


def test_private_resolver_is_open_for_dns_only(clean):
    """The host chose it: by option, or in its resolv.conf."""
    for dns in (f"{LAN[0]},{WEB}", "-"):
        if dns == "-":
            before = (clean.tmp / "resolv.conf").read_text()
            clean.resolv(f"nameserver {LAN[0]}\n")
        c = Ctl(clean, "aaaaaaaa", dns=dns)
        try:
            c.up(1)
            assert c.agent(1, "udp", LAN[0], 53, 1) == f"internet {UPLINK}"
            assert c.tcp(1, LAN[0], 53) == f"internet {UPLINK}"
            assert c.tcp(1, LAN[0], 80, 0.2) == "timeout"
            assert c.agent(1, "udp", LAN[3], 53, 0.2) == "timeout"
            c.down(1)
        finally:
            c.stop()
            if dns == "-":
                clean.resolv(before)


def test_cluster_to_cluster(one):
    one.up(2)
    srv = subprocess.Popen(["nsenter", f"--net=/proc/{one.p.pid}/fd/{one.ns[2]}", sys.executable, "-c",
                            SERVER, "two", str(one.world.log), "7000", "100.96.0.2:7000"],
                           stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    one.world.procs.append(srv)
    assert srv.stdout.readline() == "ready\n"
    w = one.world
    assert w.host_agent("tcp", "100.96.0.2", 7000, 1) == f"two {one.service}", "the host may"
    assert one.tcp(1, "100.96.0.2", 7000) == "timeout"
    assert one.agent(1, "udp", "100.96.0.2", 7000, 0.4) == "timeout"
    # addresses of the pool that nobody has do not leave the host either
    assert one.tcp(1, "100.96.3.3", 80) == "timeout"
    # nor is a detour over somebody's port forwarding a way
    w.on_host("nft", "add table ip other; add chain ip other pre { type nat hook prerouting priority -100; };"
              f" add rule ip other pre ip daddr {WEB} tcp dport 81 dnat to 100.96.0.2:7000")
    try:
        assert one.tcp(1, WEB, 81) == "timeout"
    finally:
        w.on_host("nft", "delete", "table", "ip", "other")
    srv.kill()
    srv.wait()
    one.down(2)


def test_from_outside(one):
    """Nothing new comes in, but what is published."""
    w = one.world
    srv = subprocess.Popen(["nsenter", f"--net=/proc/{one.p.pid}/fd/{one.ns[1]}", sys.executable, "-c",
                            SERVER, "one", str(w.log), "22"],
                           stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    w.procs.append(srv)
    assert srv.stdout.readline() == "ready\n"
    assert w.inet_agent("tcp", one.address, 22, 0.4) == "timeout"
    assert w.inet_agent("tcp", one.service, 80, 0.4) == "timeout"
    w.on_host("nft", "add element inet hvmm_aaaaaaaa published { tcp . 8022 : 100.96.0.1 . 22 }")
    assert w.inet_agent("tcp", UPLINK, 8022, 1) == f"one {INET}"
    assert w.inet_agent("tcp", UPLINK, 8080, 1) == f"host {INET}", "the host's own ports as before"
    w.on_host("nft", "delete element inet hvmm_aaaaaaaa published { tcp . 8022 }")
    srv.kill()
    srv.wait()


def test_closed_until_bound(one):
    """A prepared namespace is complete, but nothing gets out, or in, before its lease."""
    w = one.world
    one.ns[5] = one("prepare", 5).split()[0]
    assert one.tcp(5, WEB, 80) == "timeout"
    assert one.tcp(5, one.service, 80) == "timeout"
    assert one.tcp(5, "100.96.0.1", 80) == "timeout"
    assert w.host_agent("udp", "100.96.0.5", 80, 0.3) == "timeout"
    one("bind", 5)
    assert one.tcp(5, WEB, 80) == f"internet {UPLINK}"
    one("release", 5, "later")
    assert one.tcp(5, WEB, 80) != f"internet {UPLINK}"
    one.down(5)


def test_bind_without_its_link(one):
    """Somebody deleted the link of a prepared namespace: an error, not a cluster without network."""
    one.ns[5] = one("prepare", 5).split()[0]
    one.world.on_host("ip", "link", "del", "hv5")
    with pytest.raises(Refused) as why:
        one("bind", 5)
    assert "hv5" in str(why.value)
    one.down(5)
    assert one.elements() == ["link:hv1:1", "element:hv1:1"]


def test_spoofed_source(one):
    w, own = one.world, one.address
    one.up(2)
    w.log.write_text("")
    for source in ("100.96.0.2", "100.96.9.9", "8.8.8.8", UPLINK, WEB):
        one.agent(1, "spoof", source, WEB, 9999)
        one.agent(1, "spoof", source, UPLINK, 8080)
    one.agent(1, "spoof", own, WEB, 9999)
    end = time.monotonic() + 2
    while "spoof" not in w.log.read_text() and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(0.1)
    assert w.log.read_text() == f"{UPLINK} spoof\n", "only the one with the true source"
    one.down(2)


def test_service_address(one):
    pid = int(one("listen"))
    try:
        assert one.tcp(1, one.service, 80) == "slot 1\n"
        assert one.tcp(1, one.service, 81) == "timeout"
        assert one.tcp(1, UPLINK, 80) == "timeout"
        assert one.world.inet_agent("tcp", one.service, 80, 0.4) == "timeout"
        assert one.world.host_agent("tcp", one.service, 80, 0.4) == "timeout"
    finally:
        os.kill(pid, 9)


def test_service_address_is_nobody_elses(one):
    """A program of the host's own that listens everywhere is not reached by it, of either family."""
    w = one.world
    w.serve(w.host, "hosts-own", 80, 53, ":::53")
    assert w.host_agent("tcp", UPLINK, 80, 3).startswith("hosts-own") and w.host_agent("udp", UPLINK, 53, 3).startswith("hosts-own")
    for ip in (one.service, one.service6):
        for port in (80, 53):
            assert one.tcp(1, ip, port) == "timeout", (ip, port)
        assert one.agent(1, "udp", ip, 53, 0.4) == "timeout", ip


def test_no_ipv6(four):
    """Even with IPv6 forced on inside, and a host that forwards it, there is no way around."""
    one, w = four, four.world
    assert one.enter(1, "cat", "/proc/sys/net/ipv6/conf/eth0/disable_ipv6").strip() == "1"
    w.inside(w.inet, "ip", "addr", "add", "fd77::1/64", "dev", "wan", "nodad")
    w.inside(w.inet, "ip", "route", "add", "fd99::/64", "via", "fd77::2")
    w.on_host("ip", "addr", "add", "fd77::2/64", "dev", "up0", "nodad")
    w.on_host("ip", "addr", "add", "fd99::1/64", "dev", "hv1", "nodad")
    w.on_host("sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/all/forwarding")
    one.enter(1, "sh", "-c", "echo 0 > /proc/sys/net/ipv6/conf/eth0/disable_ipv6;"
              " echo 0 > /proc/sys/net/ipv6/conf/all/disable_ipv6")
    for end in (lambda *a: one.enter(1, *a, "dev", "eth0"), lambda *a: w.on_host(*a, "dev", "hv1")):
        end("ip", "link", "set", "arp", "on")
    one.enter(1, "ip", "addr", "add", "fd99::2/64", "dev", "eth0", "nodad")
    one.enter(1, "ip", "route", "add", "default", "via", "fd99::1")
    try:
        assert "1 received" in w.on_host("ping", "-6", "-c1", "-W1", "fd77::1"), "the host may"
        for ip in ("fd99::1", "fd77::2", "fd77::1"):
            assert subprocess.run(["nsenter", f"--net=/proc/{one.p.pid}/fd/{one.ns[1]}", "ping", "-6",
                                   "-c1", "-W1", ip], capture_output=True).returncode != 0
    finally:
        w.on_host("ip", "addr", "del", "fd77::2/64", "dev", "up0")
        w.on_host("sh", "-c", "echo 0 > /proc/sys/net/ipv6/conf/all/forwarding")


def test_mss_follows_the_way_out(one):
    w = one.world
    w.on_host("ip", "link", "set", "up0", "mtu", "1400")
    try:
        w.inside(w.inet, "nft", "add table ip t; add chain ip t in { type filter hook input priority 0; };"
                 " add rule ip t in tcp flags syn tcp option maxseg size 1360 counter")
        assert one.tcp(1, WEB, 80) == f"internet {UPLINK}"
        assert "packets 1 " in w.inside(w.inet, "nft", "list", "table", "ip", "t")
    finally:
        w.on_host("ip", "link", "set", "up0", "mtu", "1500")
        w.inside(w.inet, "nft", "delete", "table", "ip", "t")


def test_two_instances(pair):
    a, b = pair
    w = a.world
    assert a.service != b.service
    pids = [int(a("listen")), int(b("listen"))]
    try:
        assert a.tcp(1, WEB, 80) == b.tcp(2, WEB, 80) == f"internet {UPLINK}"
        assert a.tcp(1, a.service, 80) == "slot 1\n" and b.tcp(2, b.service, 80) == "slot 2\n"
        assert a.tcp(1, b.service, 80) == b.tcp(2, a.service, 80) == "timeout"
    finally:
        for pid in pids:
            os.kill(pid, 9)
    for here, slot, there in ((a, 1, "100.96.0.2"), (b, 2, "100.96.0.1")):
        assert here.tcp(slot, there, 22) == "timeout"
    # neither reaps, lists or releases what is the other's
    assert a.elements() == ["link:hv1:1", "element:hv1:1"]
    assert b.elements() == ["link:hv2:2", "element:hv2:2"]
    a("reap", 1)
    a("release", 2, "now")
    assert w.links() == ["hv1", "hv2"]
    assert b.tcp(2, WEB, 80) == f"internet {UPLINK}"


def test_two_pools(one):
    """Instances with pools of their own: links tell clusters, not addresses alone."""
    b = Ctl(one.world, "bbbbbbbb", pool="100.80.0.0/16")
    address, service, _, _ = b.up(2)
    assert address == "100.80.0.2" and service.startswith("100.80.")
    srv = subprocess.Popen(["nsenter", f"--net=/proc/{b.p.pid}/fd/{b.ns[2]}", sys.executable, "-c",
                            SERVER, "two", str(one.world.log), "7000"],
                           stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    one.world.procs.append(srv)
    assert srv.stdout.readline() == "ready\n"
    assert one.world.host_agent("tcp", address, 7000, 1) == f"two {service}"
    assert one.tcp(1, address, 7000) == "timeout"
    assert b.tcp(2, WEB, 80) == f"internet {UPLINK}"
    srv.kill()
    srv.wait()
    b.down(2)
    b.stop()


def test_one_of_two_leaves(pair):
    a, b = pair
    c = Ctl(a.world, "cccccccc")
    c.up(3)
    c.down(3)
    c.stop()
    assert a.world.sysctl("ip_forward") == "1"
    assert a.tcp(1, WEB, 80) == b.tcp(2, WEB, 80) == f"internet {UPLINK}"


def test_others_traffic_is_untouched(one):
    """A router's other work goes on: forwarding between two links that are not ours."""
    w = one.world
    lan = w.hold("unshare", "-n")
    w.on_host("ip", "link", "add", "lan0", "type", "veth", "peer", "name", "e", "netns", str(lan))
    w.on_host("ip", "addr", "add", "10.9.0.1/24", "dev", "lan0")
    w.on_host("ip", "link", "set", "lan0", "up")
    for cmd in ("addr add 10.9.0.2/24 dev e", "link set e up", "route add default via 10.9.0.1"):
        w.inside(lan, "ip", *cmd.split())
    w.inside(w.inet, "ip", "route", "add", "10.9.0.0/24", "via", UPLINK)
    try:
        out = json.loads(w.inside(lan, sys.executable, "-c", AGENT, "tcp", WEB, "80", "1"))
        assert out == "internet 10.9.0.2", "forwarded, and not translated"
    finally:
        w.inside(w.inet, "ip", "route", "del", "10.9.0.0/24")
        w.on_host("ip", "link", "del", "lan0")


def test_restart_keeps_clusters(one):
    """An engine that starts again renews the rules and leaves elements, links, address alone."""
    w = one.world
    before = one.service
    one("close")
    one.open()
    assert one.elements() == ["link:hv1:1", "element:hv1:1"]
    assert one.tcp(1, WEB, 80) == f"internet {UPLINK}"
    assert one("prepare", 7) and one("bind", 7).split()[1] == before
    one.down(7)
    assert w.settle(["hv1"]) == ["hv1"]


def test_wiped_firewall_comes_back(one):
    """`nft flush ruleset` by somebody else: noticed, and repaired, elements included."""
    w = one.world
    other = Ctl(w, "bbbbbbbb")
    other.up(2)
    one("prepare", 6)
    assert one("watch") == "0"
    other("prepare", 7)
    other("bind", 7)
    other.down(7)
    assert one("watch") == "0", "others come and go"
    w.on_host("nft", "flush", "ruleset")
    assert one("watch") == "1" and one("watch") == "0"
    one("repair")
    assert one.elements() == ["link:hv1:1", "link:hv6:6", "element:hv1:1", "element:hv6:6"]
    assert one.tcp(1, WEB, 80) == f"internet {UPLINK}"
    assert one.tcp(1, UPLINK, 8080) == "timeout"
    one("watch")
    one("repair")
    assert one("watch") == "0", "repairing is no reason to repair"
    # whoever binds next finds it out too; what others may do only the engine knows
    other.up(8)
    assert other.tcp(8, WEB, 80) == f"internet {UPLINK}"
    assert other.tcp(2, WEB, 80) == "timeout"
    other("repair")
    assert other.tcp(8, WEB, 80) == other.tcp(2, WEB, 80) == f"internet {UPLINK}"
    for slot in (2, 8):
        other.down(slot)
    other.stop()
    one.down(6)


def test_flushed_table_comes_back(one):
    """`nft flush table` takes the rules and leaves the table: noticed and repaired, as is a single rule that goes.
    Lists that change and clusters that go take rules away, too, and are nobody's business."""
    w = one.world
    table = "hvmm_aaaaaaaa"
    rules = lambda: w.on_host("nft", "-s", "list", "table", "inet", table)  # noqa: E731
    one("prepare", 6)
    one("bind", 6, 1, f"{WEB}/32,192.0.2.0/24,198.18.0.0/15")
    one("watch")
    one("change", 6, f"{WEB}/32")
    one("change", 6, "-")
    one("change", 6, f"{WEB}/32")
    assert one("watch") == "0", "a list of ours changed"
    before = rules()

    w.on_host("nft", "flush", "table", "inet", table)
    assert one.tcp(1, UPLINK, 8080) != "timeout", "nothing is judged now, which is the point"
    assert one("watch") == "1" and one("watch") == "0"
    one("repair")
    assert rules() == before
    assert one.tcp(1, UPLINK, 8080) == "timeout"
    assert one.tcp(1, WEB, 80) == f"internet {UPLINK}"
    assert one("watch") == "0", "repairing is no reason to repair"

    spoofed = re.search(r'comment "spoofed" # handle (\d+)', w.on_host("nft", "-a", "list", "table", "inet", table))
    w.on_host("nft", "delete", "rule", "inet", table, "from_cluster", "handle", spoofed.group(1))
    w.on_host("nft", "flush", "chain", "inet", table, "nat_out")
    w.on_host("nft", "add table inet other; add chain inet other input; add rule inet other input accept;"
              " delete table inet other")
    assert one("watch") == "1" and one("watch") == "0"
    one("repair")
    assert rules() == before
    one.down(6)
    one("reap")
    assert one("watch") == "0"


def test_release(one):
    w = one.world
    one.up(5)
    one("release", 5, "later")
    assert one.elements() == ["link:hv1:1", "dead:hv5:5", "element:hv1:1"]
    assert one.tcp(5, WEB, 80) in ("timeout", "error 101", "error 113")
    one("release", 5, "later")
    # the slot is used again at once, while the old namespace is still held by its processes
    old = one.ns[5]
    one("prepare", 5)
    one("bind", 5)
    one("reap")
    assert w.links() == ["hv1", "hv5"]
    del old
    one("release", 5, "now")
    assert w.links() == ["hv1"]
    one("release", 5, "now")
    one("release", 4000, "later")
    one("drop", 5)
    assert one.elements() == ["link:hv1:1", "element:hv1:1"]


def connections(world, addr):
    """What the host's kernel knows of connections of that address."""
    return [l for l in world.on_host("cat", "/proc/net/nf_conntrack").splitlines()
            if f"={addr} " in l]


def test_connections_end_with_their_cluster(one):
    """What still comes in for a cluster that is gone reaches neither the next one with its
    address nor the way out, and the kernel forgets the connections."""
    w = one.world
    one.up(5)
    assert one.agent(5, "udp", WEB, 9999, 1) == f"internet {UPLINK}"
    assert one.agent(1, "udp", WEB, 9999, 1) == f"internet {UPLINK}"
    port = re.search(r"sport=9999 dport=(\d+)", connections(w, "100.96.0.5")[0]).group(1)
    one.down(5)
    assert w.settle(["hv1"]) == ["hv1"]
    w.inside(w.inet, "nft", "add table ip t; add chain ip t in { type filter hook prerouting priority 0; };"
             f" add rule ip t in ip daddr {POOL} counter")
    try:
        assert len(connections(w, "100.96.0.5")) == 1
        w.inet_agent("spoof", WEB, UPLINK, port, 9999)
        assert "packets 0 " in w.inside(w.inet, "nft", "list", "table", "ip", "t"), "not sent back out"
    finally:
        w.inside(w.inet, "nft", "delete", "table", "ip", "t")
    one("reap")
    assert connections(w, "100.96.0.5") == []
    assert len(connections(w, "100.96.0.1")) == 1, "others keep theirs"
    # without a reap in between, preparing does it
    one.up(5)
    one.enter(5, sys.executable, "-c", "import socket\n"
              "for p in range(2000, 2050):\n"
              "  socket.socket(2, 2).sendto(b'x', ('%s', p))" % WEB)
    assert len(connections(w, "100.96.0.5")) == 50
    one.down(5)
    one.up(5)
    assert connections(w, "100.96.0.5") == []
    assert one.agent(5, "udp", WEB, 9999, 1) == f"internet {UPLINK}"
    one.down(5)
    assert "elements = { 100.96.0.5 }" in w.on_host("nft", "list", "set", "inet", "hvmm_aaaaaaaa", "released")
    one("reap")
    assert "elements" not in w.on_host("nft", "list", "set", "inet", "hvmm_aaaaaaaa", "released")


def test_reused_slot_has_a_working_network(one):
    one.up(5)
    holder = subprocess.Popen(["nsenter", f"--net=/proc/{one.p.pid}/fd/{one.ns[5]}", "cat"],
                              stdin=subprocess.PIPE)
    one.world.procs.append(holder)
    one.down(5)
    one.up(5)
    assert one.tcp(5, WEB, 80) == f"internet {UPLINK}"
    holder.kill()
    holder.wait()
    one.down(5)


def test_restored_at_the_end(clean):
    for before in ("0", "1"):
        clean.on_host("sh", "-c", f"echo {before} > /proc/sys/net/ipv4/conf/all/accept_redirects")
        c = Ctl(clean, "aaaaaaaa")
        assert clean.sysctl("ip_forward") == "1"
        c.up(1)
        c("remove")  # also takes the link that is left
        assert clean.leftovers() == []
        assert clean.sysctl("ip_forward") == "0"
        assert clean.sysctl("conf/all/accept_redirects") == before
        c.stop(remove=False)


def test_forwarding_that_was_on_stays_on(clean):
    clean.on_host("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
    try:
        Ctl(clean, "aaaaaaaa").stop()
        assert clean.sysctl("ip_forward") == "1"
    finally:
        clean.on_host("sh", "-c", "echo 0 > /proc/sys/net/ipv4/ip_forward")


@pytest.mark.parametrize("route", ["100.64.0.0/10", "100.96.7.0/24", "100.96.0.9/32"])
def test_pool_in_use(clean, route):
    clean.on_host("ip", "route", "add", route, "via", INET)
    try:
        with pytest.raises(Refused) as why:
            Ctl(clean, "aaaaaaaa")
        assert "network pool" in str(why.value) and route in str(why.value) and "up0" in str(why.value)
    finally:
        clean.on_host("ip", "route", "del", route)


def test_pool_in_another_routing_table(clean):
    clean.on_host("ip", "route", "add", "100.64.0.0/10", "via", INET, "table", "52")
    try:
        with pytest.raises(Refused):
            Ctl(clean, "aaaaaaaa")
    finally:
        clean.on_host("ip", "route", "del", "100.64.0.0/10", "table", "52")


def test_pool_below_wide_routes(clean):
    for route in ("0.0.0.0/1", "unreachable 100.64.0.0/10"):
        argv = route.split() + ([] if "unreach" in route else ["via", INET])
        clean.on_host("ip", "route", "add", *argv)
        try:
            c = Ctl(clean, "aaaaaaaa")
            c.up(1)
            assert c.tcp(1, WEB, 80) == f"internet {UPLINK}"
            c.down(1)
            c.stop()
        finally:
            clean.on_host("ip", "route", "del", *route.split())


def test_pool_may_not_change_under_clusters(one):
    one("close")
    one.pool, was = "100.80.0.0/16", one.pool
    with pytest.raises(Refused) as why:
        one.open()
    assert "100.96.0.1" in str(why.value) and "network pool" in str(why.value)
    one("close")
    one.pool = was
    one.open()


def test_resolv_conf_follows_the_host(one):
    one.world.resolv(f"nameserver {UPLINK}\nnameserver {INET}\n")
    lease = one.up(3)
    assert f"nameserver {INET}|" in lease[3] and UPLINK not in lease[3], "the host itself is closed"
    one.down(3)
    one.world.resolv(f"nameserver {WEB}\n")


def test_links_come_and_go_during_a_start(clean):
    """A listing of many links that is overtaken by changes is read to its end and asked again."""
    w = clean
    w.on_host("sh", "-c", "for i in $(seq 120); do echo link add d$i type bridge; done | ip -batch -")
    churn = subprocess.Popen(
        ["nsenter", "-t", str(w.host), "-n", "-m", "sh", "-c",
         "while :; do echo link add x type bridge; echo link del x; done | ip -batch -"],
        start_new_session=True)
    try:
        for _ in range(30):
            one = Ctl(w, "aaaaaaaa")
            one.stop()
    finally:
        os.killpg(churn.pid, signal.SIGKILL)
        churn.wait()
        w.on_host("sh", "-c", "for i in $(seq 120); do echo link del d$i; done | ip -batch -")


def test_two_hundred_cycles_leave_nothing(clean):
    c = Ctl(clean, "aaaaaaaa")
    c("cycle", 200)
    c("reap")
    assert clean.settle([]) == []
    assert c.elements() == []
    for name in ("links", "sources", "released", "fetchers"):  # resolvers are the host's, not a cluster's
        assert "elements" not in clean.on_host("nft", "list", "set", "inet", "hvmm_aaaaaaaa", name), name
    fds = os.listdir(f"/proc/{c.p.pid}/fd")
    assert len(fds) < 20, fds
    c.stop()


def run_and_kill(world, call, n, script):
    """Run netctl with that script and kill it -9 before its n-th call; was it killed?"""
    c = Ctl(world, "aaaaaaaa", opened=False,
            prefix=("env", "ASAN_OPTIONS=detect_leaks=0", "strace", "-f", "-o", "/dev/null", "-e",
                    f"trace={call}", "-e",
                    f"inject={call}:signal=KILL:when={n}"))
    c.p.communicate("".join(f"{line}\n" for line in script), timeout=20)
    assert c.p.returncode in (0, -9, 137), c.p.returncode
    return c.p.returncode != 0


def kill_everywhere(world, script, after):
    """Before each call that changes something, one run for each, until a run gets through; what
    happened after a call is covered by the next.  @after has to put things right."""
    killed = {}
    for call in ("sendto", "recvmsg", "sendmsg", "unshare", "setns", "fsmount", "write", "rename",
                 "renameat", "unlinkat"):
        killed[call] = 0
        while run_and_kill(world, call, killed[call] + 1, script):
            killed[call] += 1
            after()
            assert world.leftovers() == [], (call, killed[call])
            assert world.sysctl("ip_forward") == "0", (call, killed[call])
        after()
    return killed


@pytest.mark.limit(300)
def test_killed_anywhere_is_repaired(clean):
    """kill -9 of whoever opens, prepares, binds and releases: releasing again and removing the host
    leaves nothing, forwarding included."""
    def after():
        c = Ctl(clean, "aaaaaaaa")
        for _ in range(2):
            c("release", 1, "later")
        c("reap", 0)
        assert clean.settle([]) == []
        assert c.elements() == []
        c.stop()

    killed = kill_everywhere(clean, (f"open aaaaaaaa {clean.tmp / 'aaaaaaaa'} {POOL}", "prepare 1",
                                     "bind 1", "release 1 later"), after)
    assert killed["sendto"] >= 20 and killed["setns"] == killed["unshare"] == 1, killed
    assert killed["write"] >= 6, killed


@pytest.mark.limit(300)
def test_killed_during_remove(clean):
    killed = kill_everywhere(clean, (f"open aaaaaaaa {clean.tmp / 'aaaaaaaa'} {POOL}", "prepare 1",
                                     "remove"), lambda: Ctl(clean, "aaaaaaaa").stop())
    assert killed["sendto"] >= 10 and killed["unlinkat"] >= 1, killed
