"""What a cluster may reach, from the request to the firewall (docs/security.md): egressAllow, an account's own
clusters, and all of it again after a restart and after somebody wiped the host's firewall."""
import os
import re
import subprocess
import time

import pytest

from host import ApiError, Host

OUT, PORT = "198.51.100.6", 4000


@pytest.fixture(scope="module")
def host():
    with Host({"engine": {"pool_networks": 1, "pool_disks": 0, "grace": "1s", "cpu_overcommit": 100,
                          "memory_overcommit": 20, "disk_overcommit": 100},
               "network": {"bandwidth": "512M", "connections": 2000}}) as h:
        h.import_image("tensorone/starter")
        yield h


@pytest.fixture(scope="module")
def outside():
    """A machine beyond the host, that says hello on port 4000."""
    name, ns = "np-%d" % os.getpid(), "hvnp%d" % os.getpid()
    code = ("import socket\ns=socket.socket();s.bind(('%s',%d));s.listen(9)\nprint('up',flush=True)\n"
            "while True:\n c,p=s.accept();c.sendall(b'hello');c.close()" % (OUT, PORT))
    server = None
    subprocess.run(["ip", "netns", "add", ns], check=True)
    try:
        for words in (f"link add {name} type veth peer name eth0 netns {ns}", f"address add 198.51.100.5/30 dev {name}",
                      f"link set {name} up", f"-n {ns} address add {OUT}/30 dev eth0", f"-n {ns} link set eth0 up"):
            subprocess.run(["ip", *words.split()], check=True)
        server = subprocess.Popen(["ip", "netns", "exec", ns, "/usr/bin/python3", "-c", code], stdout=subprocess.PIPE)
        assert server.stdout.readline() == b"up\n"
        yield OUT
    finally:
        if server:
            server.kill()
            server.wait()
        subprocess.run(["ip", "netns", "del", ns], check=False)
        subprocess.run(["ip", "link", "del", name], check=False, stderr=subprocess.DEVNULL)


def sh(host, cluster, script):
    return host.exec(cluster, "sh", "-c", script).stdout


def reach(host, cluster, ip, port=PORT):
    return sh(host, cluster, f"timeout 2 nc {ip} {port} </dev/null 2>/dev/null; true")


def shown(host, cluster):
    return host.gql('{ cluster(input: {clusterId: "%s"}) { egressAllow clusterIp security } }' % cluster)["cluster"]


@pytest.fixture(scope="module")
def clusters(host, outside):
    asked = {"free": None, "listed": [OUT + "/32", "198.51.100.4/30", "2001:db8::/32"], "none": []}
    ids = {name: host.deploy(name=name, dockerArgs="sleep 100000", **({} if v is None else {"egressAllow": v}))
           for name, v in asked.items()}
    ids["server"] = host.deploy(name="server", egressAllow=["203.0.113.0/24"])  # serves HTTP on port 8000
    for c in ids.values():
        host.wait_running(c)
    yield ids
    for c in ids.values():
        host.terminate(c)
    host.wait_released()


def check(host, clusters):
    got = {name: reach(host, c, OUT) for name, c in clusters.items()}
    assert got == {"free": "hello", "listed": "hello", "none": "", "server": ""}
    server = shown(host, clusters["server"])["clusterIp"]
    for name in ("free", "listed", "none"):
        assert "200 OK" in sh(host, clusters[name], "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | timeout 5 nc %s 8000" % server), name
        assert "HTTP/1" in sh(host, clusters[name], "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | timeout 5 nc api.internal 80"), name


def test_what_is_allowed(host, clusters):
    check(host, clusters)


def test_what_is_shown(host, clusters):
    got = {name: shown(host, c) for name, c in clusters.items()}
    assert [got[n]["egressAllow"] for n in ("free", "none", "server")] == [None, [], ["203.0.113.0/24"]]
    network = {n: got[n]["security"]["network"] for n in got}
    assert network["free"]["egress"] is None and network["none"]["egress"] == []
    assert network["listed"]["egress"] == ["198.51.100.4/30", "2001:db8::/32"], "what another holds is not said twice"
    for n in network.values():
        assert (n["bandwidth_bytes_per_s"], n["connections"], n["ipv6"]) == (512 << 20, 2000, True)


def test_a_restart_and_a_wiped_firewall(host, clusters):
    host.kill()
    host.start()
    check(host, clusters)
    table = "hvmm_" + host.id
    subprocess.run(["nft", "delete", "table", "inet", table], check=True)
    wait_until(lambda: reach(host, clusters["free"], OUT) == "hello")
    check(host, clusters)
    rules = lambda: subprocess.run(["nft", "-s", "list", "chain", "inet", table, "from_cluster"], check=True,  # noqa: E731
                                   capture_output=True, text=True).stdout
    before = rules()
    subprocess.run(["nft", "flush", "table", "inet", table], check=True)  # the rules go, the table stays
    wait_until(lambda: rules() == before)
    wait_until(lambda: reach(host, clusters["free"], OUT) == "hello")
    check(host, clusters)
    host.kill()  # and while nobody looks
    subprocess.run(["nft", "delete", "table", "inet", table], check=True)
    host.start()
    wait_until(lambda: reach(host, clusters["free"], OUT) == "hello")
    check(host, clusters)


def test_the_table_of_another_version(host, clusters):
    """One without our mark is made anew with all that lives, before the engine does anything else."""
    def listed():
        return subprocess.run(["nft", "-a", "list", "table", "inet", table], check=True, capture_output=True, text=True).stdout
    host.kill()
    table = "hvmm_" + host.id
    before = re.match(r"table .*# handle \d+", listed())[0]
    subprocess.run(["nft", "delete", "chain", "inet", table, re.search(r"chain (layout_\w+)", listed())[1]], check=True)
    host.start()
    assert re.match(r"table .*# handle \d+", listed())[0] != before
    check(host, clusters)


def wait_until(what, seconds=30):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.05)


def update(host, cluster, **fields):
    return host.gql("mutation($i: ClusterUpdateInput!) { clusterUpdate(input: $i) { id version updating egressAllow } }",
                    {"i": dict(clusterId=cluster, **fields)})["clusterUpdate"]


def settled(host, cluster):
    def get():
        return host.gql('{ cluster(input: {clusterId: "%s"}) { updating updateRefused egressAllow } }' % cluster)["cluster"]
    wait_until(lambda: not get()["updating"])
    got = get()
    assert got["updateRefused"] is None
    return got["egressAllow"]


def test_a_list_that_changes(host, clusters):
    """In a cluster that runs: the first process is the same one, and the list holds from there on, over a restart of
    the engine, of the cluster, and of both."""
    c = clusters["server"]
    boot = sh(host, c, "cat /proc/1/stat | cut -d' ' -f22")
    everything = ["0.0.0.0/0", "::/0"]
    try:
        for want, says in (([OUT + "/32"], "hello"), ([], ""), (everything, "hello"), (["203.0.113.0/24"], ""), ([OUT], "hello")):
            assert update(host, c, egressAllow=want)["egressAllow"] == want
            assert settled(host, c) == want
            assert reach(host, c, OUT) == says
            wait_until(lambda: shown(host, c)["security"]["network"]["egress"] ==
                       [n if "/" in n else n + "/32" for n in want])
        assert update(host, c, egressAllow=[OUT])["updating"] is False, "it is the list that it has"
        assert update(host, c, egressAllow=None)["egressAllow"] == [OUT], "null is as it is"
        assert sh(host, c, "cat /proc/1/stat | cut -d' ' -f22") == boot
        host.kill()
        host.start()
        assert reach(host, c, OUT) == "hello" and shown(host, c)["egressAllow"] == [OUT]
        host.call("clusterRestart", c)
        host.wait_running(c)
        wait_until(lambda: reach(host, c, OUT) == "hello")
        version = update(host, c, egressAllow=[OUT + "/32"])["version"]
        settled(host, c)
        for bad, why in ((["nowhere"], "egressAllow: 'nowhere' is not a network"),
                         (["10.0.0.1/8"], "egressAllow: 10.0.0.1/8 does not start at its base, 10.0.0.0/8"),
                         (["10.%d.0.0/16" % i for i in range(65)], "egressAllow: 65 elements, at most 64")):
            with pytest.raises(ApiError, match=re.escape(why)):
                update(host, c, egressAllow=bad, memoryInGb=2)
        assert shown(host, c)["egressAllow"] == [OUT + "/32"] and update(host, c)["version"] == version
        host.cli("update", "cluster", c, "--egressAllow", "203.0.113.0/24,2001:db8::/32", "--wait")
        assert shown(host, c)["egressAllow"] == ["203.0.113.0/24", "2001:db8::/32"] and reach(host, c, OUT) == ""
        host.call("clusterStop", c)
        host.wait_exited(c)
        update(host, c, egressAllow=[OUT])  # one that is stopped has it at the next start
        host.call("clusterResume", c)
        host.wait_running(c)
        wait_until(lambda: reach(host, c, OUT) == "hello")
    finally:
        update(host, c, egressAllow=["203.0.113.0/24"])
        settled(host, c)


def test_a_template_has_one(host, outside):
    def save(name, **fields):
        return host.gql("mutation($i: SaveTemplateInput) { saveTemplate(input: $i) { id egressAllow } }",
                        {"i": dict(name=name, imageName="tensorone/starter", containerDiskInGb=1, volumeInGb=0,
                                   dockerArgs="sleep 100000", env=[], **fields)})["saveTemplate"]
    t, plain = save("closed", egressAllow=[]), save("open")
    assert (t["egressAllow"], plain["egressAllow"]) == ([], None)
    a = host.deploy(imageName=None, templateId=t["id"])
    b = host.deploy(imageName=None, templateId=t["id"], egressAllow=[OUT])
    for c, says in ((a, ""), (b, "hello")):
        host.wait_running(c)
        assert reach(host, c, OUT) == says
        host.terminate(c)


@pytest.mark.parametrize("bad,why", [
    (["example.com"], "egressAllow: 'example.com' is not a network such as 198.51.100.0/24 or 2001:db8::/32"),
    (["10.0.0.1/8"], "egressAllow: 10.0.0.1/8 does not start at its base, 10.0.0.0/8"),
    (["169.254.169.254"], "egressAllow: 169.254.169.254: clusters never reach link-local addresses"),
    (["10.%d.0.0/16" % i for i in range(65)], "egressAllow: 65 elements, at most 64"),
])
def test_bad_lists(host, bad, why):
    before = len(host.clusters())
    with pytest.raises(ApiError, match=re.escape(why)):
        host.deploy(egressAllow=bad)
    assert len(host.clusters()) == before


def test_command_line(host, outside):
    done = host.cli("create", "cluster", "--imageName", "tensorone/starter", "--gpuCount", "0", "--mem", "1", "--vcpu", "1",
                    "--containerDiskSize", "1", "--volumeSize", "0", "--args", "sleep 1000", "--egressAllow",
                    "203.0.113.0/24,2001:db8::/32", "--egressAllow", OUT, "--wait").stdout
    c = re.search(r'cluster "(\w+)"', done)[1]
    try:
        assert shown(host, c)["egressAllow"] == ["203.0.113.0/24", "2001:db8::/32", OUT]
        assert reach(host, c, OUT) == "hello"
    finally:
        host.terminate(c)
    bad = host.cli("create", "cluster", "--imageName", "tensorone/starter", "--gpuCount", "0", "--egressAllow", "nowhere",
                   check=False)
    assert bad.returncode != 0 and "egressAllow: 'nowhere' is not a network" in bad.stderr
