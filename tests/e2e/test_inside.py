"""What a cluster is like from inside: its variables, its names, the one way to the API, and what
it has no way to."""
import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import threading
import time

import pytest
import requests

from host import Host

CAPS = 0x800405fb  # CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP BIND CHROOT SETFCAP


@pytest.fixture(scope="module")
def host():
    with Host({"engine": {"pool_networks": 0, "pool_disks": 0, "grace": "1s", "cpu_overcommit": 100,
                          "memory_overcommit": 20, "disk_overcommit": 100}}) as h:
        h.import_image("tensorone/starter")
        h.import_image("tensorone/llm-starter")
        yield h
        assert h.key not in h.log_text()


USER_ENV = {"PLAIN": "value", "QUOTED": "it's \"so\" $HOME `id`", "LINES": "one\ntwo", "EMPTY": "",
            "TENSORONE_CLUSTER_ID": "mine", "RUNPOD_API_KEY": "stolen", "PUBLIC_KEY": "ssh-ed25519 AAAA me"}


@pytest.fixture(scope="module")
def pair(host):
    """Two clusters that live for all tests; the second one serves HTTP on port 8000."""
    a = host.deploy(dockerArgs=json.dumps({"cmd": ["sh", "-c", "env; exec sleep 100000"]}), volumeInGb=1,
                    minVcpuCount=2, minMemoryInGb=3, env=[{"key": k, "value": v} for k, v in USER_ENV.items()])
    b = host.deploy(name="server")
    host.wait_running(a)
    host.wait_running(b)
    yield a, b
    for c in host.clusters():
        host.terminate(c["id"])
    host.wait_held(set())


@pytest.fixture(scope="module")
def python(host):
    c = host.deploy(imageName="tensorone/llm-starter", dockerArgs="sleep 100000", containerDiskInGb=2)
    host.wait_running(c)
    return c


def sh(host, cluster, script, check=True, **kw):
    return host.exec(cluster, "sh", "-c", script, check=check, **kw).stdout


def address(host, cluster):
    return host.gql('{ cluster(input: {clusterId: "%s"}) { clusterIp } }' % cluster)["cluster"]["clusterIp"]


# ---- variables, names --------------------------------------------------------------------------

def variables(text):
    """NUL-separated KEY=VALUE."""
    return dict(v.split("=", 1) for v in text.split("\0") if v)


def test_variables(host, pair):
    a, _ = pair
    env = variables(sh(host, a, "cat /proc/1/environ"))
    for runpod, tensorone, value in (
            ("RUNPOD_POD_ID", "TENSORONE_CLUSTER_ID", a), ("RUNPOD_CPU_COUNT", "TENSORONE_CPU_COUNT", "2"),
            ("RUNPOD_MEM_GB", "TENSORONE_MEM_GB", "3"), ("RUNPOD_GPU_COUNT", "TENSORONE_GPU_COUNT", "0"),
            ("RUNPOD_DC_ID", "TENSORONE_DC_ID", "LOCAL-1"),
            ("RUNPOD_API_URL", "TENSORONE_API_URL", "http://api.internal")):
        assert env[runpod] == env[tensorone] == value, runpod
    assert env["RUNPOD_POD_HOSTNAME"] == env["TENSORONE_CLUSTER_HOSTNAME"] == host.gql(
        '{ cluster(input: {clusterId: "%s"}) { machine { clusterHostId } } }' % a)["cluster"]["machine"]["clusterHostId"]
    assert env["RUNPOD_API_KEY"] == env["TENSORONE_API_KEY"] and len(env["RUNPOD_API_KEY"]) > 30
    for name in ("PLAIN", "QUOTED", "LINES", "EMPTY", "PUBLIC_KEY"):
        assert env[name] == USER_ENV[name]
    assert env["PATH"] == "/bin:/usr/bin", "the image's"
    assert not any(os.environ.get("HVMM_BUILD", "-") in v for v in env.values())
    # exec has the same, and so does a login shell that begins with nothing
    keep = re.compile("RUNPOD_|TENSORONE_|" + "|".join(USER_ENV))
    ours = {k: v for k, v in env.items() if keep.match(k)}
    assert {k: v for k, v in variables(host.exec(a, "cat", "/proc/self/environ").stdout).items()
            if keep.match(k)} == ours
    login = variables(host.exec(a, "env", "-i", "sh", "-l", "-c", "exec cat /proc/self/environ").stdout)
    assert {k: v for k, v in login.items() if keep.match(k)} == ours
    # the key is nowhere that its owner's API shows
    shown = host.cluster(a)
    assert env["TENSORONE_API_KEY"] not in json.dumps(shown) and "PLAIN=value" in shown["env"]


def test_login_shell_of_a_distribution(host, python):
    """Its own /etc/profile stays, and reads what we add."""
    done = host.exec(python, "env", "-i", "bash", "-l", "-c",
                     "echo $TENSORONE_CLUSTER_ID; grep -c profile.d /etc/profile")
    assert done.stdout.split()[0] == python and int(done.stdout.split()[1]) >= 1


def test_names(host, pair):
    a, _ = pair
    assert sh(host, a, "hostname; cat /etc/hostname; cat /proc/sys/kernel/hostname") == (a + "\n") * 3
    hosts = [line.split() for line in sh(host, a, "cat /etc/hosts").splitlines()]
    assert ["127.0.0.1", "localhost"] in hosts and [address(host, a), a] in hosts
    assert [w for w in hosts if "api.internal" in w]
    assert sh(host, a, "ip -4 -o addr show eth0").split()[3].split("/")[0] == address(host, a)
    resolv = sh(host, a, "cat /etc/resolv.conf")
    servers = re.findall(r"^nameserver (\S+)$", resolv, re.M)
    assert servers and not any(s.startswith("127.") for s in servers), resolv
    assert sh(host, a, "ping -c 1 -W 2 %s >/dev/null 2>&1 || true; echo x >> /etc/hosts && tail -1 /etc/hosts"
              % a) == "x\n", "they are ordinary files"


# ---- api.internal ------------------------------------------------------------------------------

ASK = """
import json, os, sys, urllib.request
def ask(path="/graphql", query=None, key=None, url=None):
    r = urllib.request.Request((url or os.environ["TENSORONE_API_URL"]) + path)
    r.add_header("Authorization", "Bearer " + (key or os.environ["TENSORONE_API_KEY"]))
    r.add_header("Content-Type", "application/json")
    data = json.dumps({"query": query}).encode() if query else None
    try:
        with urllib.request.urlopen(r, data, timeout=5) as a:
            return a.status, a.read().decode()
    except urllib.error.HTTPError as e:
        return e.code, e.read().decode()
"""


def ask(host, cluster, **kw):
    done = host.exec(cluster, "python", "-c", ASK + "print(json.dumps(ask(**json.loads(sys.argv[1]))))",
                     json.dumps(kw))
    status, body = json.loads(done.stdout)
    return status, json.loads(body) if body.startswith("{") else body


def test_api_internal_with_wget(host, pair):
    """What a shell script in the smallest image does."""
    a, _ = pair
    wget = 'wget -qO- --header "Authorization: Bearer $TENSORONE_API_KEY" --header "Content-Type: ' \
        'application/json" --post-data \'{"query": "{ myself { clusters { id desiredStatus } } }"}\' '
    for url in ("$TENSORONE_API_URL/graphql", "http://api.internal"):
        answer = json.loads(sh(host, a, wget + url))
        assert answer == {"data": {"myself": {"clusters": [{"id": a, "desiredStatus": "RUNNING"}]}}}
    done = host.exec(a, "sh", "-c", "wget -qO- --post-data '{}' http://api.internal/graphql", check=False)
    assert done.returncode != 0 and "401" in done.stderr


def test_api_internal_serves_nothing_else(host, pair, python):
    a, b = pair
    own = 'cluster(input: {clusterId: "%s"}) { id reason env }' % python
    status, body = ask(host, python, query="{ %s }" % own)
    assert status == 200 and body["data"]["cluster"]["id"] == python
    status, body = ask(host, python, query='{ cluster(input: {clusterId: "%s"}) { id } myself { clusters { id } } }' % a)
    assert body["data"] == {"cluster": None, "myself": {"clusters": [{"id": python}]}}
    for verb in ("clusterStop", "clusterTerminate", "podStop", "clusterResume", "clusterRestart"):
        kind, sub = ("pod", "{ id }") if verb.startswith("pod") else ("cluster", "{ id }")
        sub = "" if verb.endswith("Terminate") else sub
        status, body = ask(host, python, query='mutation { %s(input: {%sId: "%s"}) %s }' % (verb, kind, a, sub))
        assert "not found" in body["errors"][0]["message"], (verb, body)
    assert host.cluster(a)["runtime"] and host.cluster(b)["runtime"]
    for mutation in ('clusterFindAndDeployOnDemand(input: {imageName: "tensorone/starter", gpuCount: 0}) { id }',
                     'clusterEditJob(input: {clusterId: "%s", dockerArgs: "sh"}) { id }' % python,
                     'saveTemplate(input: {name: "t", imageName: "x", containerDiskInGb: 1}) { id }',
                     'updateUserSettings(input: {pubKey: "x"}) { id }'):
        status, body = ask(host, python, query="mutation { %s }" % mutation)
        assert "errors" in body and body["errors"][0]["extensions"]["code"] == "FORBIDDEN", body
    for path in ("/health", "/v1/images", "/v1/accounts", "/v1/clusters/%s/logs" % python,
                 "/v1/clusters/%s/exec?cmd=id" % python, "/v1", "/../v1/images", "/x"):
        status, _ = ask(host, python, path=path)
        assert status in (404, 405), (path, status)
    # other keys, good as they may be elsewhere
    other = variables(sh(host, a, "cat /proc/1/environ"))["TENSORONE_API_KEY"]
    for key in (other, host.key, "x", "hvmc_" + "0" * 40):
        status, body = ask(host, python, query="{ myself { id } }", key=key)
        assert status == 401 and "unauthorized" in json.dumps(body), key
    # and this one elsewhere: what a cluster may, from everywhere it is let to, and no more
    key = variables(host.exec(python, "cat", "/proc/1/environ").stdout)["TENSORONE_API_KEY"]
    outside = host.gql("{ myself { clusters { id } } }", key=key)
    assert outside["myself"]["clusters"] == [{"id": python}]
    assert host.rest("GET", "/v1/images", key=key).status_code == 403
    assert host.rest("GET", "/v1/clusters/%s/logs" % python, key=key).status_code == 403
    big = host.exec(python, "python", "-c", ASK + "print(ask(query='{' + 'a ' * (3 << 20) + '}')[0])")
    assert big.stdout in ("400\n", "413\n")


def test_a_cluster_stops_itself(host, python):
    with host.running("sleep", "100000", imageName="tensorone/llm-starter", containerDiskInGb=2) as c:
        script = ASK + "print(ask(query='mutation { podStop(input: {podId: \"%s\"}) { desiredStatus } }'" \
            " % os.environ['RUNPOD_POD_ID'])[1])"
        # the answer may not reach the one that is being stopped
        host.exec(c, "python", "-c", script, check=False)
        seen = host.wait_exited(c)
        assert seen["desiredStatus"] == "EXITED" and seen["reason"] is None
        # its key still reads and starts; as a person with `runpodctl` and that key would
        host.call("clusterResume", c)
        host.wait_running(c)
        host.exec(c, "python", "-c", script.replace("podStop", "podTerminate").replace(" { desiredStatus }", ""),
                  check=False)
        host.wait(c, lambda k: k is None)


# ---- network -----------------------------------------------------------------------------------

@contextlib.contextmanager
def listener(address_, family=socket.AF_INET):
    """Says "hello" to whoever connects; .port."""
    s = socket.socket(family)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind((address_, 0))
    s.listen(16)
    s.settimeout(0.2)
    peers, stop = [], threading.Event()

    def serve():
        while not stop.is_set():
            with contextlib.suppress(TimeoutError, OSError):
                c, peer = s.accept()
                peers.append(peer[0])
                c.sendall(b"hello\n")
                c.close()

    t = threading.Thread(target=serve, daemon=True)
    t.start()
    try:
        yield s.getsockname()[1], peers
    finally:
        stop.set()
        t.join()
        s.close()


def reach(host, cluster, address_, port):
    return reach_all(host, cluster, [(address_, port)])[0]


def reach_all(host, cluster, targets):
    """What each answers to a connection, all at the same time."""
    script = "".join("timeout 1 nc %s %d </dev/null >/tmp/r%d 2>/dev/null & " % (a, p, i)
                     for i, (a, p) in enumerate(targets))
    return sh(host, cluster, script + "wait; for i in $(seq 0 %d); do echo \"$(cat /tmp/r$i)\"; done"
              % (len(targets) - 1)).split("\n")[:-1]


def host_addresses(family=4):
    out = subprocess.run(["ip", "-j", f"-{family}", "address"], capture_output=True, text=True, check=True).stdout
    return [a["local"] for link in json.loads(out) for a in link["addr_info"]
            if not a["local"].startswith("127.") and not a["local"] == "::1" and not a["local"].startswith("fe80")]


def test_host_is_out_of_reach(host, pair):
    a, b = pair
    service = [line.split()[0] for line in sh(host, a, "cat /etc/hosts").splitlines() if "api.internal" in line][0]
    assert "200 OK" in sh(host, b, "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc 127.0.0.1 8000"), "nc reaches what can be reached"
    with listener("0.0.0.0") as (port, peers):
        targets = sorted(set(host_addresses()) | {service, "169.254.1.1", "127.0.0.1", "0.0.0.0"})
        assert len(targets) >= 5
        with socket.create_connection(("127.0.0.1", port), 1) as s:
            assert s.recv(6) == b"hello\n"
        peers.clear()
        tried = [(t, p) for t in targets for p in (port, host.port)] + [(service, 22)]
        assert set(reach_all(host, a, tried)) == {""}, tried
        assert peers == []
    with listener("::", socket.AF_INET6) as (port, peers):
        own = [l.split()[0] for l in sh(host, a, "cat /etc/hosts").splitlines() if l.startswith("fd")]
        assert own == re.findall(r"inet6 (fd[^/]*)/128", sh(host, a, "ip -6 addr")), "one address of IPv6, in /etc/hosts"
        assert sh(host, a, "ip -6 route show default").split()[:3] == ["default", "via", "fe80::1"]
        prefix = ":".join(own[0].split(":")[:4])
        targets = host_addresses(6) + ["fe80::1%eth0", prefix + "::ffff", "::"]
        assert any(t.startswith(prefix) for t in targets[:-2]), "the service address is the host's"
        assert set(reach_all(host, a, [(t, p) for t in targets for p in (port, host.port)])) == {""}, targets
        assert peers == []


def address6(host, cluster):
    return re.search(r"inet6 (fd[^/]*)/128", sh(host, cluster, "ip -6 addr")).group(1)


def test_an_accounts_clusters_reach_each_other(host, pair):
    a, b = pair
    for ip in (address(host, b), address6(host, b)):
        assert "200 OK" in sh(host, a, "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc %s 8000" % ip)


@pytest.fixture
def stranger(host):
    """Another account's cluster, which serves HTTP on port 8000: its addresses."""
    key = host.new_account("stranger")
    c, end = host.deploy(key=key), time.monotonic() + 30
    ask = '{ cluster(input: {clusterId: "%s"}) { clusterIp runtime { uptimeInSeconds } } }' % c
    try:
        while not (seen := host.gql(ask, key=key)["cluster"])["runtime"]:
            assert time.monotonic() < end, host.log_text()[-3000:]
            time.sleep(0.02)
        ip = seen["clusterIp"]
        yield ip, "%s::%x" % (":".join(address6(host, host.clusters()[0]["id"]).split(":")[:4]),
                              int(ip.split(".")[2]) * 256 + int(ip.split(".")[3]))
    finally:
        host.call("clusterTerminate", c, key=key)


def test_another_accounts_clusters_are_out_of_reach(host, pair, stranger):
    a, _ = pair
    for ip, url in zip(stranger, ("http://%s:8000/", "http://[%s]:8000/")):
        wait_for(lambda: requests.get(url % ip, timeout=5).status_code == 200)  # it does serve, to the host
        assert reach(host, a, ip, 8000) == ""
        assert sh(host, a, "ping -c 1 -W 1 %s >/dev/null 2>&1 && echo pong; true" % ip) == ""
    # nor by another source address, nor with a raw socket
    assert "not permitted" in sh(host, a, "ip addr add %s/32 dev eth0 2>&1; true" % stranger[0])
    assert "not permitted" in sh(host, a, "ip link set eth0 arp on 2>&1; true")
    assert host.exec(a, "arping", "-c", "1", "-I", "eth0", stranger[0], check=False).returncode != 0
    assert sh(host, a, "ls /sys/class/net").split() == ["eth0", "lo"]


def wait_for(what, seconds=20):
    end = time.monotonic() + seconds
    while True:
        try:
            assert what()
            return
        except (AssertionError, OSError):
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


@pytest.fixture
def outside():
    """A machine beyond the host: a namespace with an address that is not the host's."""
    name, ns = "e2e-%d" % os.getpid(), "hvtest%d" % os.getpid()  # not hv*: those are clusters' links

    def ip(*words):
        subprocess.run(["ip", *words], check=True)

    ip("netns", "add", ns)
    try:
        ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", ns)
        ip("address", "add", "198.51.100.1/30", "dev", name)
        ip("link", "set", name, "up")
        ip("-n", ns, "address", "add", "198.51.100.2/30", "dev", "eth0")
        ip("-n", ns, "link", "set", "eth0", "up")
        yield ns
    finally:
        subprocess.run(["ip", "netns", "del", ns], check=False)
        subprocess.run(["ip", "link", "del", name], check=False, stderr=subprocess.DEVNULL)


def test_the_world_is_in_reach(host, pair, outside):
    """By masquerade: the other end sees the host, and knows no way to the cluster."""
    a, _ = pair
    code = ("import socket\ns=socket.socket();s.bind(('198.51.100.2',4000));s.listen(4)\nprint('up',flush=True)\n"
            "c,p=s.accept();c.sendall(p[0].encode());c.close()")
    server = subprocess.Popen(["ip", "netns", "exec", outside, "/usr/bin/python3", "-c", code],
                              stdout=subprocess.PIPE)
    try:
        assert server.stdout.readline() == b"up\n"
        assert reach(host, a, "198.51.100.2", 4000) == "198.51.100.1"
    finally:
        server.kill()
        server.wait()
    with listener("198.51.100.1") as (port, _):  # that is the host itself again
        assert reach(host, a, "198.51.100.1", port) == ""
    subprocess.run(["ip", "-n", outside, "route", "add", "100.96.0.0/16", "via", "198.51.100.1"], check=True)
    done = subprocess.run(["ip", "netns", "exec", outside, "timeout", "1", "bash", "-c",
                           "exec 3<>/dev/tcp/%s/8000" % address(host, pair[1])], capture_output=True)
    assert done.returncode != 0, "nobody out there gets in"


def test_private_networks_are_the_operators_choice(host, pair, outside):
    subprocess.run(["ip", "-n", outside, "address", "add", "10.77.0.2/32", "dev", "lo"], check=True)
    subprocess.run(["ip", "route", "add", "10.77.0.2/32", "via", "198.51.100.2"], check=True)  # goes with its link
    code = ("import socket\ns=socket.socket();s.bind(('10.77.0.2',4000));s.listen(4)\nprint('up',flush=True)\n"
            "while True:\n c,p=s.accept();c.sendall(b'lan');c.close()")
    server = subprocess.Popen(["ip", "netns", "exec", outside, "/usr/bin/python3", "-c", code],
                              stdout=subprocess.PIPE)
    try:
        assert server.stdout.readline() == b"up\n"
        with socket.create_connection(("10.77.0.2", 4000), 2) as s:
            assert s.recv(3) == b"lan"
        assert reach(host, pair[0], "10.77.0.2", 4000) == ""
        for refused in ("169.254.0.0/16", "10.77.0.0", "10.77.0.9/16"):
            bad = Host({"network": {"allow": refused}})
            with pytest.raises(RuntimeError, match="network allow: .*" + refused):
                bad.start()
            bad.proc.wait()
            shutil.rmtree(bad.dir)
        with Host({"engine": {"cpu_overcommit": 100, "memory_overcommit": 20, "disk_overcommit": 100, "grace": "1s"},
                   "network": {"allow": "192.168.0.0/24, 10.77.0.0/16"}}) as open_:
            open_.import_image("tensorone/starter")
            c = open_.deploy(dockerArgs="sleep 1000")
            open_.wait_running(c)
            assert reach(open_, c, "10.77.0.2", 4000) == "lan"
    finally:
        server.kill()
        server.wait()


def ping_image():
    """This machine's own ping with its file capability, and busybox."""
    from ocimake import Image, Layer
    ping = os.path.realpath(shutil.which("ping"))
    libs = re.findall(r"(/\S+) \(0x", subprocess.run(["ldd", ping], capture_output=True, text=True,
                                                     check=True).stdout)
    layer = Layer()
    for d in ("bin", "lib64", "lib"):
        layer.dir(d)
    for path, mode in [("/bin/busybox", 0o755)] + [(p, 0o755) for p in libs]:
        with open(path, "rb") as f:
            layer.file(("bin/busybox" if path == "/bin/busybox" else
                        path.lstrip("/") if path.startswith("/lib64/") else "lib/" + os.path.basename(path)),
                       f.read(), mode=mode)
    with open(ping, "rb") as f:
        layer.file("bin/ping", f.read(), mode=0o755,
                   xattrs={"security.capability": bytes.fromhex("0100000200200000000000000000000000000000")})
    for applet in ("sh", "sleep"):
        layer.symlink("bin/" + applet, "busybox")
    return Image([layer.tar()], config={"Cmd": ["/bin/sleep", "100000"], "Env": ["PATH=/bin", "LD_LIBRARY_PATH=/lib"]})


def test_ping_without_any_right(host, outside, tmp_path):
    """By ICMP sockets of the cluster's own range of groups, as root and as anybody."""
    host.import_image("ping", layout=ping_image().write_layout(tmp_path / "ping"))
    c = host.deploy(imageName="ping")
    try:
        host.wait_running(c)
        for user in ("0", "1000:1000"):
            def ping(address_, check=True, user=user):
                return host.cli("exec", "-u", user, c, "--", "ping", "-c", "1", "-W", "1", address_, check=check)
            for open_ in ("198.51.100.2", "127.0.0.1"):
                assert "1 received" in ping(open_).stdout
            # the host itself does not answer
            assert ping("198.51.100.1" if user == "0" else "api.internal", check=False).returncode == 1
    finally:
        host.terminate(c)


# ---- rights, and what shows of the host --------------------------------------------------------

def status_of(text):
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


def test_rights(host, pair):
    a, _ = pair
    for where in ("/proc/1/status", "/proc/self/status"):
        s = status_of(sh(host, a, "cat " + where))
        assert int(s["CapEff"], 16) == int(s["CapPrm"], 16) == int(s["CapBnd"], 16) == CAPS, s
        assert int(s["CapInh"], 16) == int(s["CapAmb"], 16) == 0
        assert s["Seccomp"] == "2" and s["NoNewPrivs"] == "1" and s["Uid"].split() == ["0"] * 4
    real = status_of(open("/proc/%d/status" % host.first_pid(a)).read())
    uid = int(real["Uid"].split()[0])
    assert uid >= 0x50000000 and set(real["Uid"].split()) == {str(uid)} and real["Groups"].strip() in ("", str(uid))
    for script in ("mount -t tmpfs none /mnt", "mount -o remount,rw /sys", "umount /proc", "mknod /x b 7 0",
                   "chroot /proc/1/root mount -t proc p /tmp", "unshare -U true", "unshare -m true", "dmesg",
                   "insmod /x.ko", "ip link add x type dummy", "ip route add 1.2.3.4 dev eth0", "reboot -f",
                   "hostname other && mount -t sysfs s /mnt", "swapon /x", "losetup /dev/loop0 /etc/hosts",
                   "echo 1 > /proc/sys/kernel/core_pattern", "echo c > /proc/sysrq-trigger && ls /nope",
                   "echo 1 > /proc/sys/vm/drop_caches", "echo 0 > /sys/fs/cgroup/memory/memory.limit_in_bytes",
                   "mkdir /sys/fs/cgroup/memory/x", "nice -n -5 true", "cat /proc/kcore | head -c 1 | grep .",
                   "cat /proc/1/../keys | grep .", "nsenter -t 1 -m true"):
        done = host.exec(a, "sh", "-c", "mkdir -p /mnt; " + script, check=False)
        assert done.returncode != 0, (script, done.stdout)
    assert "not permitted" in sh(host, a, "date -s 2000-01-01 2>&1; true")
    assert host.cluster(a)["runtime"]
    assert sh(host, a, "cat /proc/keys /proc/timer_list /proc/interrupts; ls -A /proc/acpi /sys/firmware") in (
        "/proc/acpi:\n\n/sys/firmware:\n", "")


def test_no_host_paths_show(host, pair):
    """What names of the host are in the mount table and beside it."""
    a, _ = pair
    table = sh(host, a, "cat /proc/self/mountinfo /proc/mounts /proc/self/mountstats; df -a")
    for word in (str(host.dir), str(host.data), "/var/tmp", "/var/lib", "/run/hypervisor", "/tmp/", host.id, "layers"):
        assert word not in table, word
    roots = {(line.split()[3], line.split()[4]) for line in sh(host, a, "cat /proc/self/mountinfo").splitlines()}
    assert {r for r, _ in roots} <= {"/", "/null", "/bus", "/fs", "/irq", "/sys"}, roots
    overlay = re.search(r"lowerdir=(\S+?),upperdir=(\S+?),workdir=(\S+?)[, ]", table)
    assert re.fullmatch(r"/proc/self/fd/\d+(::/proc/self/fd/\d+)?", overlay.group(1)), \
        "the image's tree and the objects are descriptors"
    assert overlay.group(2).startswith("/proc/self/fd/"), overlay.group(0)
    # groups, processes, sockets, environment, open files
    assert set(re.findall(r":(/.*)", sh(host, a, "cat /proc/self/cgroup"))) == {"/"}
    programs = sh(host, a, "cat /proc/[0-9]*/comm")
    assert "sleep" in programs and not re.search("vmm|tensorone|systemd|pytest", programs)
    assert sh(host, a, "cat /proc/net/unix | wc -l") == "1\n"
    for d in ("/proc/1", "/proc/self"):
        text = sh(host, a, "ls -l %s/fd/ %s/cwd %s/exe %s/root; cat %s/maps" % ((d,) * 5))
        assert str(host.data) not in text and "/run/hypervisor" not in text
        assert all(t.startswith(("pipe:", "/proc/", "/dev/")) for t in re.findall(r"fd/\d+ -> (\S+)", text))
    assert sh(host, a, "ls /proc/1/fd").split() == ["0", "1", "2"]
    assert not re.search(r"\b(shared|master|propagate_from):\d", sh(host, a, "cat /proc/self/mountinfo"))
    assert host.key not in sh(host, a, "cat /proc/*/environ 2>/dev/null; cat /proc/*/cmdline")


def test_the_example_of_the_product_page_serves(host):
    """run.py answers to the host on its own port, with text that it makes itself."""
    import requests
    with host.running(dockerArgs="python run.py", imageName="tensorone/llm-starter", containerDiskInGb=20,
                      ports="8000/http") as c:
        host.wait_log(c, "8000", 30)
        url = "http://%s:8000" % address(host, c)
        assert requests.get(url + "/health", timeout=10).status_code == 200
        text = requests.get(url + "/generate", params={"prompt": "The", "n": 20}, timeout=20)
        assert text.status_code == 200 and len(text.text) > 10
        ports = host.cluster(c)["runtime"]["ports"]
        assert ports and ports[0]["privatePort"] == 8000 and ports[0]["ip"] == address(host, c)
