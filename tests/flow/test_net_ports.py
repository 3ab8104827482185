"""Published TCP ports on the real kernel (root): engine/net through the driver netctl, in the namespaces of
tests/lib/networld.py."""
import json
import subprocess
import sys

import pytest

from networld import (AGENT, INET, INET6, UPLINK, UPLINK6, WEB, WEB6, Ctl, Refused, clean, one, pair, world)  # noqa: F401

TABLE = "hvmm_aaaaaaaa"


def elements(w, name, kind="map", table=TABLE):
    """Of one map or set, as nft says them."""
    listing = json.loads(w.on_host("nft", "-j", "list", kind, "inet", table, name))["nftables"]
    return [x[kind].get("elem", []) for x in listing if kind in x][0]


def published(w, table=TABLE):
    return {name: sorted((key["concat"][1], *to["concat"]) for key, to in elements(w, name, table=table))
            for name in ("published", "published6")}


NOTHING = {"published": [], "published6": []}


@pytest.fixture
def served(clean):
    """A cluster with two published ports and one that is not, each of them served."""
    c = Ctl(clean, "aaaaaaaa", connections=50)
    c.up(1, 7, "-", "22:20022,80:20080")
    c.serve(1, "one", 22, 80, 81)
    yield c
    c.down(1)
    assert published(clean) == NOTHING and elements(clean, "publishers", "set") == []
    c.stop()


def test_from_outside(served):
    """By every address of the host's that the outside knows; the cluster sees who asks."""
    w = served.world
    for _ in range(3):
        assert w.inet_agent("tcp", UPLINK, 20022, 5) == f"one {INET}"
        assert w.inet_agent("tcp", UPLINK, 20080, 5) == f"one {INET}"
        assert w.inet_agent("tcp", UPLINK6, 20022, 5) == f"one {INET6}"
        assert w.inet_agent("tcp", UPLINK6, 20080, 5) == f"one {INET6}"


def test_from_the_same_host(served):
    w = served.world
    assert w.host_agent("tcp", UPLINK, 20022, 5) == f"one {UPLINK}"
    assert w.host_agent("tcp", UPLINK, 20080, 5) == f"one {UPLINK}"
    assert w.host_agent("tcp", UPLINK6, 20080, 5) == f"one {UPLINK6}"
    for loopback in ("127.0.0.1", "::1"):  # docs/edge.md says why
        assert w.host_agent("tcp", loopback, 20080, 5) == "error 111"


def test_what_is_answered_is_counted(served):
    """For the idle stop: what somebody was connected for, by either family; not what nobody took part in, nor
    what the cluster itself begins."""
    w = served.world

    def counted():
        (element,) = elements(w, "publishers", "set")
        assert element["elem"]["val"] == "hv1"
        said = int(served("published", 1))
        assert element["elem"]["counter"]["bytes"] == said
        return said

    assert counted() == 0
    assert served.tcp(1, WEB, 80, 5) == f"internet {UPLINK}"
    assert w.inet_agent("udp", UPLINK, 20022, 0.4) in ("timeout", "error 111")
    assert counted() == 0
    one = w.inet_agent("tcp", UPLINK, 20022, 5) and counted()
    assert one > 0
    two = w.inet_agent("tcp", UPLINK6, 20080, 5) and counted()
    assert two > one
    assert w.host_agent("tcp", UPLINK, 20080, 5) and counted() > two


def test_a_port_where_nobody_listens_is_not_counted(clean):
    c = Ctl(clean, "aaaaaaaa")
    c.up(1, 7, "-", "22:20022")
    assert clean.inet_agent("tcp", UPLINK, 20022, 5) == "error 111"
    assert c("published", 1) == "0"
    c.up(2, 7)
    assert c("published", 2) == "-"
    c.down(1)
    c.down(2)
    c.stop()


def test_nothing_else(served):
    """No other port of it, no other protocol, no port of the range that is nobody's; the host's own as before."""
    w = served.world
    for port in (20081, 20079, 20000, 22, 80, 81):
        assert w.inet_agent("tcp", UPLINK, port, 5) == "error 111", port
        assert w.inet_agent("tcp", UPLINK6, port, 5) == "error 111", port
    for port in (22, 80, 81):
        assert w.inet_agent("tcp", served.address, port, 0.4) == "timeout", port
    assert w.inet_agent("udp", UPLINK, 20022, 0.4) in ("timeout", "error 111")
    assert w.inet_agent("tcp", UPLINK, 8080, 5) == f"host {INET}"
    # what only passes through the host is not for it
    assert w.host_agent("tcp", WEB, 20080, 5) == "error 111"


def test_no_way_in_for_clusters(served):
    """Another account's cluster does not come in by the public port either: the host's addresses are closed to it."""
    served.up(2, 8)
    served.up(3, 7)
    for slot in (2, 3):
        assert served.tcp(slot, UPLINK, 20080) == "timeout"
        assert served.tcp(slot, UPLINK6, 20080) == "timeout"
    assert served.tcp(2, "100.96.0.1", 80) == "timeout"
    assert served.tcp(3, "100.96.0.1", 80, 5) == "one 100.96.0.3", "its own account's, directly"
    for slot in (2, 3):
        served.down(slot)


def test_the_cluster_goes_out_as_before(served):
    assert served.tcp(1, WEB, 80, 5) == f"internet {UPLINK}"
    assert served.tcp(1, WEB6, 80, 5) == f"internet {UPLINK6}"


def test_closed_with_the_cluster(clean):
    """The port is closed from the moment of the release, and a connection that was open goes no further."""
    w, c = clean, Ctl(clean, "aaaaaaaa")
    c.up(1, 7, "-", "7070:20070")
    c.serve(1, "one", "stream7070")
    code = ("import socket, sys\ns = socket.create_connection((%r, 20070), 5); s.sendall(b'i'); s.recv(1)\n"
            "print('open', flush=True); sys.stdin.readline(); s.settimeout(1.5)\n"
            "try:\n  while s.recv(1 << 16): pass\n  print('end', flush=True)\n"
            "except socket.timeout: print('silence', flush=True)\n"
            "except OSError as e: print('error', flush=True)" % UPLINK)
    p = subprocess.Popen(["nsenter", "-t", str(w.inet), "-n", sys.executable, "-c", code], stdin=subprocess.PIPE,
                         stdout=subprocess.PIPE, text=True)
    w.procs.append(p)
    assert p.stdout.readline() == "open\n"
    c("release", 1, "later")
    assert published(w) == NOTHING
    assert w.inet_agent("tcp", UPLINK, 20070, 5) == "error 111"
    p.stdin.write("\n")
    p.stdin.flush()
    assert p.stdout.readline() in ("silence\n", "error\n")
    c("reap")
    # the same port, the same slot: another cluster's
    c("drop", 1)
    c.up(1, 8, "-", "9090:20070")
    c.serve(1, "two", 9090)
    assert w.inet_agent("tcp", UPLINK, 20070, 5) == f"two {INET}"
    c.down(1)
    c.stop()


def test_without_ipv6(clean):
    c = Ctl(clean, "aaaaaaaa", pool6="none")
    c.up(1, 7, "-", "80:20080")
    c.serve(1, "one", 80)
    assert published(clean) == {"published": [(20080, "100.96.0.1", 80)], "published6": []}
    assert clean.inet_agent("tcp", UPLINK, 20080, 5) == f"one {INET}"
    assert clean.inet_agent("tcp", UPLINK6, 20080, 5) == "error 111"
    c.down(1)
    c.stop()


def test_two_hosts(pair):  # noqa: F811
    """Two engines on one machine: each table answers for its own ports."""
    a, b = pair
    w = a.world
    for c, slot, port in ((a, 3, 20003), (b, 4, 20004)):
        c.up(slot, 1, "-", f"80:{port}")
        c.serve(slot, f"slot{slot}", 80)
    assert w.inet_agent("tcp", UPLINK, 20003, 5) == f"slot3 {INET}"
    assert w.inet_agent("tcp", UPLINK, 20004, 5) == f"slot4 {INET}"
    assert w.host_agent("tcp", UPLINK, 20004, 5) == f"slot4 {UPLINK}"
    a.down(3)
    assert w.inet_agent("tcp", UPLINK, 20003, 5) == "error 111"
    assert w.inet_agent("tcp", UPLINK, 20004, 5) == f"slot4 {INET}"
    b.down(4)


def test_many(clean):
    """As many as a cluster may have, of clusters with lists: one transaction, and all of it goes again."""
    w, c = clean, Ctl(clean, "aaaaaaaa", dns=WEB)
    nets = ",".join(f"203.0.113.{i}" for i in range(64))
    for slot in (1, 2):
        c.up(slot, slot, nets, ",".join(f"{1 + i}:{20000 + 100 * slot + i}" for i in range(64)))
    want = {"published": sorted((20000 + 100 * s + i, f"100.96.0.{s}", 1 + i) for s in (1, 2) for i in range(64)),
            "published6": sorted((20000 + 100 * s + i, c.address6[:-1] + str(s), 1 + i) for s in (1, 2)
                                 for i in range(64))}
    assert published(w) == want
    c.serve(2, "two", 64)
    assert w.inet_agent("tcp", UPLINK, 20263, 5) == f"two {INET}"
    c.down(1)
    assert published(w) == {name: [x for x in v if x[0] >= 20200] for name, v in want.items()}
    assert w.inet_agent("tcp", UPLINK, 20263, 5) == f"two {INET}"
    c.down(2)
    assert published(w) == NOTHING
    c.stop()


def test_a_wiped_firewall(served):
    """Somebody flushes the host's firewall: the ports come back with the rest."""
    w = served.world
    was = published(w)
    assert len(was["published"]) == len(was["published6"]) == 2
    served("watch")
    w.on_host("nft", "flush", "ruleset")
    assert served("watch") == "1"
    served("repair")
    assert published(w) == was
    assert w.inet_agent("tcp", UPLINK, 20022, 5) == f"one {INET}"
    assert w.host_agent("tcp", UPLINK6, 20022, 5) == f"one {UPLINK6}"


def test_the_table_of_another_version(served):
    """An engine of another version leaves a table of another layout: ours takes its place with the ports in it."""
    w = served.world
    was = published(w)
    layout = [x["chain"]["name"] for x in json.loads(w.on_host("nft", "-j", "list", "table", "inet", TABLE))["nftables"]
              if x.get("chain", {}).get("name", "").startswith("layout_")]
    w.on_host("nft", "delete", "chain", "inet", TABLE, layout[0])
    served("repair")
    assert layout[0] in w.on_host("nft", "list", "table", "inet", TABLE), "made anew"
    (publisher,) = elements(w, "publishers", "set")
    assert published(w) == was and publisher["elem"]["val"] == "hv1"
    assert w.inet_agent("tcp", UPLINK, 20022, 5) == f"one {INET}"


def test_taken_port(clean):
    """Two clusters of one host never lead from one port, whoever asked for it: the second is not let out."""
    c = Ctl(clean, "aaaaaaaa")
    c.up(1, 1, "-", "80:20080")
    c.ns[2] = c("prepare", 2).split()[0]
    with pytest.raises(Refused):
        c("bind", 2, 2, "-", "80:20080")
    assert published(clean)["published"] == [(20080, "100.96.0.1", 80)]
    c.down(2)
    assert published(clean)["published"] == [(20080, "100.96.0.1", 80)]
    c.down(1)
    c.stop()


def test_visitors_are_counted(clean):
    """[network] connections counts for those that come in, too, apart from what the cluster begins itself."""
    w, c = clean, Ctl(clean, "aaaaaaaa", connections=8)
    c.up(1, 7, "-", "7070:20070")
    c.serve(1, "one", "stream7070")
    code = ("import socket, sys\nheld = []\nfor _ in range(20):\n  s = socket.socket(); s.settimeout(0.4)\n"
            "  try: s.connect((%r, 20070)); held.append(s)\n  except OSError: pass\n"
            "print(len(held), flush=True); sys.stdin.readline()" % UPLINK)
    p = subprocess.Popen(["nsenter", "-t", str(w.inet), "-n", sys.executable, "-c", code], stdin=subprocess.PIPE,
                         stdout=subprocess.PIPE, text=True)
    w.procs.append(p)
    assert int(p.stdout.readline()) == 8
    assert c.tcp(1, WEB, 80, 5) == f"internet {UPLINK}", "its own are counted apart"
    p.stdin.write("\n")
    p.stdin.flush()
    p.wait()
    c.down(1)
    c.stop()


def test_a_program_of_the_hosts_own(clean):
    """A port that leads to a cluster is the cluster's; when it is given back, it is the host's again."""
    w, c = clean, Ctl(clean, "aaaaaaaa")
    assert w.inet_agent("tcp", UPLINK, 8080, 5) == f"host {INET}"
    c.up(1, 7, "-", "80:8080")
    c.serve(1, "one", 80)
    assert w.inet_agent("tcp", UPLINK, 8080, 5) == f"one {INET}"
    assert w.host_agent("tcp", "127.0.0.1", 8080, 5) == "host 127.0.0.1"
    c.down(1)
    assert w.inet_agent("tcp", UPLINK, 8080, 5) == f"host {INET}"
    c.stop()


def test_an_address_without_a_link(served):
    """As when a first process has just ended: nobody else answers in its place, not for programs of the host, and not
    for who comes in; and nothing of it leaves the host."""
    w = served.world
    there = {"100.96.0.1": "ip", served.address6: "ip6"}
    for a in there:
        w.inside(w.inet, "ip", "addr", "add", a + ("/128" if ":" in a else "/32"), "dev", "lo", *(["nodad"] if ":" in a else []))
    w.inside(w.inet, "nft", "add table inet t; add chain inet t in { type filter hook prerouting priority 0; };"
             + "".join(" add rule inet t in iifname wan %s daddr %s counter;" % (kind, a) for a, kind in there.items()))
    try:
        w.on_host("ip", "link", "del", "hv1")
        for a in there:
            assert w.host_agent("tcp", a, 80, 5) == "error 111"
            assert w.host_agent("udp", a, 53, 5).startswith("error "), a
        for outside in (UPLINK, UPLINK6):
            assert w.inet_agent("tcp", outside, 20080, 5) == "error 111"
        listed = w.inside(w.inet, "nft", "list", "table", "inet", "t")
        assert listed.count("packets 0 ") == 2, listed
        # without our firewall they would have
        w.on_host("nft", "flush", "chain", "inet", TABLE, "no_link")
        assert w.host_agent("tcp", "100.96.0.1", 80, 5).startswith("internet "), "who is there does answer"
    finally:
        w.inside(w.inet, "nft", "delete", "table", "inet", "t")
        for a in there:
            w.inside(w.inet, "ip", "addr", "del", a + ("/128" if ":" in a else "/32"), "dev", "lo")
