"""SSH: the keys of an account, and what clusters get of them."""
import hashlib
import json
import os
import pathlib
import signal
import socket
import stat
import subprocess
import time

import pytest
import requests

from host import ApiError, Host, free_port, program
from ocimake import Image, Layer
from sshkeys import ECDSA, ECDSA_PRINT, ED25519, ED25519_PRINT
from terminal import Terminal

SET = "mutation($i: UpdateUserSettingsInput!) { updateUserSettings(input: $i) { pubKey } }"


@pytest.fixture(scope="module")
def host():
    with Host({"engine": {"cpu_overcommit": 100, "memory_overcommit": 20, "disk_overcommit": 100,
                          "pool_networks": 0, "pool_disks": 0, "grace": "500ms"}}) as h:
        h.import_image("tensorone/starter")
        yield h


@pytest.fixture(autouse=True)
def no_keys(host):
    yield
    set_keys(host, "\n")


def set_keys(host, text, key=None):
    return host.gql(SET, {"i": {"pubKey": text}}, key)["updateUserSettings"]["pubKey"]


def get_keys(host):
    return host.gql("{ myself { pubKey } }")["myself"]["pubKey"] or ""


def listed(host):
    return json.loads(host.cli("ssh", "list-keys", "-o", "json").stdout)


def refused(host, *args):
    done = host.cli("ssh", *args, check=False)
    assert done.returncode == 1 and done.stdout == "", done
    return done.stderr


# ---- keys of the account


def test_add_list_remove(host, tmp_path):
    assert host.cli("ssh", "list-keys").stdout == "No SSH keys found.\n"
    assert listed(host) == []
    out = host.cli("ssh", "add-key", "--key", ED25519 + " ada@laptop").stdout
    assert out == "key %s added; clusters with an SSH server have it now, others from their next start\n" % ED25519_PRINT
    file = tmp_path / "id.pub"
    file.write_text("# at work\r\n%s bob\r\n" % ECDSA)
    host.cli("ssh", "add-key", "--key-file", str(file))
    assert listed(host) == [
        {"name": "ada@laptop", "type": "ssh-ed25519", "bits": 256, "fingerprint": ED25519_PRINT},
        {"name": "bob", "type": "ecdsa-sha2-nistp256", "bits": 256, "fingerprint": ECDSA_PRINT}]
    table = host.cli("ssh", "list-keys").stdout.splitlines()
    assert table[0].split() == ["NAME", "TYPE", "FINGERPRINT"]
    assert table[1].split() == ["ada@laptop", "ssh-ed25519", ED25519_PRINT]
    # under another name it is the same key
    out = host.cli("ssh", "add-key", "--key", ED25519 + " other").stdout
    assert "is there already" in out and len(listed(host)) == 2
    assert host.cli("ssh", "remove-key", "--name", "ada@laptop").returncode == 0
    assert [k["name"] for k in listed(host)] == ["bob"]
    assert "there is no SSH key ada@laptop" in refused(host, "remove-key", "--name", "ada@laptop")
    host.cli("ssh", "remove-key", "--fingerprint", ECDSA_PRINT)
    assert listed(host) == [] and get_keys(host) == ""


def test_own_key_is_made_once(host):
    home = host.dir / ".tensorone" / "ssh"
    first = host.cli("ssh", "add-key").stdout
    private = home / "id_ed25519"
    assert stat.S_IMODE(os.stat(private).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(home).st_mode) == 0o700
    theirs = subprocess.run(["ssh-keygen", "-l", "-f", str(private) + ".pub"], check=True,
                            capture_output=True, text=True).stdout.split()
    assert listed(host)[0]["fingerprint"] == theirs[1] and theirs[1] in first
    assert "is there already" in host.cli("ssh", "add-key").stdout


def test_names_that_are_not_enough(host):
    set_keys(host, "%s ada\n%s ada\n" % (ED25519, ECDSA))
    assert '2 keys are called "ada"; use --fingerprint' in refused(host, "remove-key", "--name", "ada")
    assert "say which key" in refused(host, "remove-key")
    host.cli("ssh", "remove-key", "--name", "ada", "--fingerprint", ED25519_PRINT)
    assert get_keys(host) == "%s ada\n" % ECDSA


@pytest.mark.parametrize("args, says", [
    (["--key", "ssh-rsa AAAA"], "--key: what follows ssh-rsa is no whole key"),
    (["--key", "-----BEGIN OPENSSH PRIVATE KEY-----"], "--key: this is a private key"),
    (["--key", ""], "--key: holds no key"),
    (["--key", ED25519 + "\n" + ECDSA], "--key: holds 2 keys; add them one by one"),
    (["--key", ED25519, "--key-file", "x"], "--key and --key-file: give one of them"),
    (["--key-file", "/nowhere"], "--key-file: /nowhere: No such file or directory"),
])
def test_keys_that_are_none(host, args, says):
    assert says in refused(host, "add-key", *args)
    assert get_keys(host) == ""


def test_api_checks_every_line(host):
    """Whoever does not use our command line: the whole list, by GraphQL and REST."""
    good = ED25519 + " one\n\n" + ECDSA
    assert set_keys(host, good) == good
    for bad, says in ((good + "\nssh-dss AAAA", "pubKey: line 4: DSA keys are not taken"),
                      ("x", "pubKey: line 1: it must begin with the key's type"),
                      ("\n".join([ED25519] * 101), "pubKey: 101 keys, at most 100 are allowed"),
                      ("#" * 65537, "pubKey: 65537 bytes, at most 65536 are allowed")):
        with pytest.raises(ApiError) as e:
            set_keys(host, bad)
        assert says in str(e.value)
    assert get_keys(host) == good
    keys = host.rest("GET", "/v2/account/ssh-keys").json()
    assert keys == {"keys": [ED25519 + " one", ECDSA]}
    r = host.rest("PUT", "/v2/account/ssh-keys", json={"keys": [ECDSA + " mine"]})
    assert r.status_code == 200 and r.json() == {"keys": [ECDSA + " mine"]}
    assert get_keys(host) == ECDSA + " mine"
    for body, status, says in (({"keys": ["x"]}, 400, "pubKey: line 1"), ({}, 400, "keys: must be the list"),
                               ({"keys": [ED25519, 7]}, 400, "keys: number 2 is no text of one line"),
                               ({"keys": [ED25519 + "\n" + ECDSA]}, 400, "keys: number 1 is no text")):
        r = host.rest("PUT", "/v2/account/ssh-keys", json=body)
        assert r.status_code == status and says in r.json()["message"], r.text
    r = host.rest("PUT", "/v2/account/ssh-keys", json={"keys": []})
    assert r.json() == {"keys": []} and get_keys(host) == ""


def test_keys_are_the_accounts_own(host):
    """Another account sees none of them; a key that reads does not write."""
    set_keys(host, ED25519)
    other = host.new_account("other")
    assert host.rest("GET", "/v2/account/ssh-keys", key=other).json() == {"keys": []}
    me = host.gql("{ myself { id } }")["myself"]["id"]
    r = host.rest("POST", "/v1/accounts/%s/keys" % me, json={"name": "r", "rights": "read"}).json()
    assert host.rest("GET", "/v2/account/ssh-keys", key=r["key"]).json() == {"keys": [ED25519]}
    assert host.rest("PUT", "/v2/account/ssh-keys", key=r["key"], json={"keys": []}).status_code == 403
    assert host.rest("GET", "/v2/account/ssh-keys", key="nobody").status_code == 401
    assert get_keys(host) == ED25519


def test_public_key_inside(host):
    """The account's, as it was at the start; a variable of the user's own wins."""
    set_keys(host, ED25519 + " one\n" + ECDSA)
    with host.running("sleep", "1000") as c:
        show = ("sh", "-c", 'printf %s "$PUBLIC_KEY"')
        assert host.exec(c, *show).stdout == ED25519 + " one\n" + ECDSA
    with host.running("sleep", "1000", env=[{"key": "PUBLIC_KEY", "value": "mine"}]) as c:
        assert host.exec(c, *show).stdout == "mine"


# ---- the server, and sessions by the system's ssh


@pytest.fixture
def own_key(host):
    """This computer's key is among the account's."""
    host.cli("ssh", "add-key")


def ssh(host, cluster, *command, options=(), check=True, **kw):
    """By `tensoronecli ssh`; a session that cannot be had fails at once instead of asking."""
    words = ["ssh", *options, cluster] + (["--", *command] if command else [])
    return host.cli(*words, check=check, **kw)


@pytest.fixture(scope="module")
def server(host):
    """A cluster with an SSH server, in an image that has none."""
    host.cli("ssh", "add-key")
    cluster = host.deploy(startSsh=True, dockerArgs="sleep 100000",
                          env=[{"key": "COLOUR", "value": "blue and 'green'"}])
    host.wait_running(cluster)
    return cluster


def test_session_in_an_image_without_a_server(host, server, own_key):
    """Exit codes, both streams, input to its end, the cluster's variables."""
    assert ssh(host, server, "id", "-u").stdout == "0\n"
    done = ssh(host, server, "echo out; echo err >&2; exit 7", check=False)
    assert (done.returncode, done.stdout) == (7, "out\n") and "err\n" in done.stderr
    with open("/usr/bin/python3", "rb") as f:
        want = f.read()
    with open("/usr/bin/python3", "rb") as f:
        got = ssh(host, server, "cat | sha256sum", stdin=f).stdout.split()[0]
    assert got == hashlib.sha256(want).hexdigest()
    assert ssh(host, server, "echo $COLOUR, $TENSORONE_CLUSTER_ID").stdout == "blue and 'green', %s\n" % server


def until(check, timeout=60):
    end = time.monotonic() + timeout
    while True:
        got = check()
        if got:
            return got
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)


def stranger(host, tmp_path):
    """Whose key is not among the account's: a home of its own."""
    env = dict(host.cli_env(), HOME=str(tmp_path))
    subprocess.run([program("tensoronecli"), "ssh", "list-keys"], env=env, check=True, capture_output=True)
    return env


def options_of(host, cluster):
    """The lines of `ssh config`, as a file for -F."""
    text = host.cli("ssh", "config", cluster).stdout
    path = host.dir / ("config-" + cluster)
    path.write_text(text)
    return str(path)


def plain(host, program_, cluster, *args, **kw):
    """ssh, scp or sftp themselves, with the cluster's part of a configuration."""
    kw.setdefault("stdin", subprocess.DEVNULL)
    return subprocess.run([program_, "-F", options_of(host, cluster), *args], env=host.cli_env(), timeout=120,
                          capture_output=True, text=True, check=False, **kw)


def test_copies(host, server, tmp_path, own_key):
    """scp and sftp, though the image has no server for them: what comes back is what was sent."""
    source, back = tmp_path / "source", tmp_path / "back"
    source.write_bytes(os.urandom(3 << 20))
    done = plain(host, "scp", server, str(source), server + ":/tmp/copy")
    assert done.returncode == 0, done.stderr
    done = plain(host, "scp", server, server + ":/tmp/copy", str(back))
    assert done.returncode == 0 and back.read_bytes() == source.read_bytes(), done.stderr
    done = plain(host, "sftp", server, "-b", "-", server, stdin=None, input="rename /tmp/copy /tmp/moved\nls -1 /tmp\n")
    assert done.returncode == 0 and "/tmp/moved" in done.stdout, done


def test_forwarded_port(host, server, own_key):
    """A server inside that listens on its loopback alone is reached from here."""
    host.exec(server, "sh", "-c", "mkdir -p /tmp/www; echo through >/tmp/www/index.html;"
              " httpd -p 127.0.0.1:8123 -h /tmp/www")
    port = free_port()
    p = subprocess.Popen([program("tensoronecli"), "ssh", "-N", "-L", "127.0.0.1:%d:127.0.0.1:8123" % port, server],
                         env=host.cli_env(), stdin=subprocess.DEVNULL)
    try:
        def fetch():
            try:
                return requests.get("http://127.0.0.1:%d/index.html" % port, timeout=20).text
            except requests.ConnectionError:
                assert p.poll() is None, "ssh has ended"
                return None
        assert until(fetch) == "through\n"
    finally:
        p.terminate()
        p.wait(20)


def test_terminal(host, server, own_key):
    t = Terminal([program("tensoronecli"), "ssh", server], dict(host.cli_env(), TERM="xterm"), cols=97)
    t.write(b"stty size; echo $TERM $((40 + 2)); exit 5\n")
    t.read_until(rb"\d+ 97\r\n(?s:.*)xterm 42\r\n", timeout=60)
    assert t.wait(timeout=60) == 5


def test_many_at_once(host, server, own_key):
    ps = [subprocess.Popen([program("tensoronecli"), "ssh", server, "--", "cat >/dev/null; echo %d" % i],
                           env=host.cli_env(), stdin=subprocess.PIPE, stdout=subprocess.PIPE) for i in range(8)]
    for i, p in enumerate(ps):
        assert p.communicate(b"x" * 100000, timeout=120)[0] == b"%d\n" % i


def commands(host, cluster):
    """(pid inside, command line) of everything in there but this question."""
    script = "for p in /proc/[0-9]*; do echo ${p#/proc/} $(tr '\\0' ' ' <$p/cmdline); done 2>/dev/null"
    lines = [x.partition(" ") for x in host.exec(cluster, "sh", "-c", script).stdout.splitlines()]
    return [(int(pid), line) for pid, _, line in lines]


def sessions(host, cluster):
    """What there is of sessions over the API."""
    return [c for c in commands(host, cluster) if c[1].endswith(("vmm-ssh connect", " -i", "echo begun; cat")) or c[1] == "cat"]


def test_nothing_stays_of_a_session(host, server, own_key):
    """Who hangs up without a word takes server, shell and all that with it."""
    p = subprocess.Popen([program("tensoronecli"), "ssh", server, "--", "echo begun; cat"], env=host.cli_env(),
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
    assert p.stdout.readline() == b"begun\n"
    assert sessions(host, server)
    os.killpg(p.pid, signal.SIGKILL)
    p.wait(20)
    until(lambda: sessions(host, server) == [])


def test_only_the_accounts_keys(host, server, tmp_path):
    """A key that nobody added opens nothing, nor does a password, nor one's own key elsewhere."""
    env = stranger(host, tmp_path)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key")], check=True)
    done = subprocess.run([program("tensoronecli"), "ssh", server, "--", "id"], env=env, capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, timeout=120, check=False)
    assert done.returncode == 255 and "Permission denied (publickey)" in done.stderr, done
    config = pathlib.Path(options_of(host, server)).read_text()
    config = "".join(x for x in config.splitlines(True) if "IdentityFile" not in x)
    (tmp_path / "config").write_text(config)
    done = subprocess.run(["ssh", "-F", str(tmp_path / "config"), "-i", str(tmp_path / "key"), "-o", "BatchMode=yes",
                           server, "id"], env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120,
                          check=False)
    assert done.returncode == 255 and "Permission denied (publickey)" in done.stderr, done
    other = host.new_account("stranger")
    env["TENSORONE_API_KEY"] = other
    done = subprocess.run([program("tensoronecli"), "ssh", server, "--", "id"], env=env, capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, timeout=120, check=False)
    assert done.returncode == 1 and "there is no cluster" in done.stderr, done


def host_key(host, cluster):
    return host.gql("query($i: ClusterInput) { cluster(input: $i) { sshHostKey } }", {"i": {"clusterId": cluster}})["cluster"]["sshHostKey"]


def test_host_key(host, server, own_key):
    """One for each cluster; the same after a restart; another one is not believed."""
    first = host_key(host, server)
    config = pathlib.Path(options_of(host, server))
    known = host.dir / ".tensorone" / "ssh" / "hosts" / server
    assert known.read_text() == "%s %s\n" % (server, first)
    with host.running("sleep", "1000", startSsh=True) as c:
        other = host_key(host, c)
        assert other != first and other.startswith("ssh-ed25519 ")
        assert ssh(host, c, "echo hello").stdout == "hello\n"
        before = host.first_pid(c)
        host.call("clusterRestart", c)
        host.wait_new_first(c, before)
        assert host_key(host, c) == other and ssh(host, c, "echo again").stdout == "again\n"
        # what the account's own key is for: the right one in the file, the wrong one at the other end
        known.write_text("%s %s\n" % (server, other))
        done = subprocess.run(["ssh", "-F", str(config), server, "id"], env=host.cli_env(), capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, timeout=120, check=False)
        assert done.returncode == 255 and "Host key verification failed" in done.stderr, done
    assert ssh(host, server, "echo mended").stdout == "mended\n"


def command_for(host, cluster):
    """Past the API where the whole world reaches its port, else through it."""
    for p in host.cluster(cluster)["runtime"]["ports"] or []:
        if p["privatePort"] == 22 and p["isIpPublic"]:
            return "ssh root@%s -p %d" % (p["ip"], p["publicPort"])
    return "tensoronecli ssh " + cluster


def test_what_connect_prints(host, server):
    command = command_for(host, server)
    assert host.cli("ssh", "connect", server).stdout == command + "\n"
    with host.running("sleep", "1000") as c:
        done = host.cli("ssh", "connect", c, check=False)
        assert done.returncode == 1 and "was created without --startSSH" in done.stderr
        lines = host.cli("ssh", "connect").stdout.splitlines()
        assert any(x.startswith("%s # %s " % (command, server)) for x in lines)
        assert not any(c in x for x in lines)
    print_ = json.loads(host.cli("ssh", "connect", server, "-o", "json").stdout)["hostKeyFingerprint"]
    (host.dir / "hk.pub").write_text(host_key(host, server))
    theirs = subprocess.run(["ssh-keygen", "-l", "-f", str(host.dir / "hk.pub")], check=True, capture_output=True, text=True)
    assert theirs.stdout.split()[1] == print_


def test_template_has_a_server(host):
    made = host.gql("mutation($i: SaveTemplateInput) { saveTemplate(input: $i) { id startSsh } }", {"i": dict(
        name="with-ssh", imageName="tensorone/starter", containerDiskInGb=1, volumeInGb=0, dockerArgs="sleep 1000",
        env=[], startSsh=True)})["saveTemplate"]
    assert made["startSsh"] is True
    with host.running(templateId=made["id"], imageName=None) as c:
        assert host_key(host, c)


def test_port_is_declared(host):
    """By the request or by its template, once."""
    with host.running("sleep", "1000", startSsh=True, ports="8888/http") as c:
        assert host.cluster(c)["ports"] == "8888/http,22/tcp"
    with host.running("sleep", "1000", startSsh=True, ports="22/tcp, 8888/http") as c:
        assert host.cluster(c)["ports"] == "22/tcp, 8888/http"


# ---- images and profiles


def image(*applets, passwd=b"root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/tmp:/bin/sh\n", user=None):
    """busybox with these names, and not much else."""
    layer = Layer()
    for d in ("bin", "etc", "proc", "sys", "dev", "run"):
        layer.dir(d)
    layer.dir("tmp", mode=0o1777)
    layer.file("bin/busybox", pathlib.Path("/bin/busybox").read_bytes(), mode=0o755)
    if passwd:
        layer.file("etc/passwd", passwd)
    for a in applets:
        layer.symlink("bin/" + a, "busybox")
    return Image([layer.tar()], config={"Cmd": ["/bin/busybox", "sleep", "100000"], "Env": ["PATH=/bin"], "User": user or ""})


def with_image(host, tmp_path, name, made, **fields):
    host.import_image(name, layout=made.write_layout(tmp_path / "layout"))
    return host.running(imageName=name, startSsh=True, **fields)


@pytest.mark.parametrize("profile", ["standard", "strict", "compat"])
def test_profiles(host, tmp_path, own_key, profile):
    """A session has what its cluster has: the same limits, capabilities, filter; root, also where the image's
    program is another user."""
    look = "grep -E '^(CapBnd|Seccomp|NoNewPrivs):' /proc/self/status; cat /proc/self/attr/current 2>/dev/null; id -u"
    with with_image(host, tmp_path, "plain", image("sh", "sleep", "cat", "id", "grep"), securityProfile=profile) as c:
        by_ssh = ssh(host, c, look).stdout
        assert by_ssh == host.exec(c, "sh", "-c", look).stdout and by_ssh.endswith("0\n")
    with with_image(host, tmp_path, "user", image("sh", "sleep", "cat", "id", "grep", user="user"), securityProfile=profile) as c:
        assert "Uid:\t1000" in host.exec(c, "cat", "/proc/1/status").stdout
        assert ssh(host, c, "id -u").stdout == "0\n"


def test_image_without_users(host, tmp_path, own_key):
    """No /etc/passwd: root is all that there is."""
    with with_image(host, tmp_path, "nobody", image("sh", "id", passwd=None)) as c:
        assert ssh(host, c, "id -u; echo $HOME").stdout == "0\n/root\n"


def test_image_without_a_shell(host, tmp_path, own_key):
    """There is nothing to log in to; ports are forwarded all the same."""
    with with_image(host, tmp_path, "shell-less", image("httpd", "sleep")) as c:
        done = ssh(host, c, "true", check=False)
        assert done.returncode not in (0, None), done
        host.exec(c, "httpd", "-p", "127.0.0.1:8123", "-h", "/etc")
        done = plain(host, "ssh", c, "-W", "127.0.0.1:8123", c, stdin=None, input="GET /passwd HTTP/1.0\r\n\r\n")
        assert "200 OK" in done.stdout and "root:x:0:0" in done.stdout, done


def test_hostile_image(host, tmp_path, own_key):
    """Links where our files are to appear lead nowhere outside, and cost the image its own server alone."""
    layer = Layer()
    for d in ("bin", "etc", "proc", "sys", "dev", "run", "usr", "usr/lib", "real"):
        layer.dir(d)
    layer.file("bin/busybox", pathlib.Path("/bin/busybox").read_bytes(), mode=0o755)
    layer.symlink("bin/sh", "busybox").symlink("root", "/../../../real").symlink(".tensorone", "/real")
    layer.symlink("usr/lib/sftp-server", "/etc/passwd").file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n")
    made = Image([layer.tar()], config={"Cmd": ["/bin/busybox", "sleep", "100000"], "Env": ["PATH=/bin"]})
    with with_image(host, tmp_path, "hostile", made) as c:
        assert ssh(host, c, "busybox ls -A /real").stdout == ".ssh\nssh\n"
        assert host.exec(c, "busybox", "cat", "/etc/passwd").stdout == "root:x:0:0:root:/root:/bin/sh\n"


def test_keys_of_a_variable(host, own_key, tmp_path):
    """SSH_PUBLIC_KEY stands for the account's keys where it is set; without any key nobody comes in."""
    with host.running("sleep", "1000", startSsh=True, env=[{"key": "SSH_PUBLIC_KEY", "value": ED25519}]) as c:
        assert host.exec(c, "cat", "/root/.ssh/authorized_keys").stdout == ED25519 + "\n"
        done = ssh(host, c, "id", check=False)
        assert done.returncode == 255 and "Permission denied (publickey)" in done.stderr


def test_secrets_stay_where_they_are(host, server):
    """The host key lies in memory, for root inside alone; no command line and no log has it."""
    text = host.exec(server, "cat", "/dev/.tensorone-ssh-host-key").stdout
    assert "600" in host.exec(server, "stat", "-c", "%a %t", "/dev/.tensorone-ssh-host-key").stdout
    assert len(text) == 112 and text not in host.log_text()
    assert text not in json.dumps(host.gql("{ myself { clusters { id env security sshHostKey } } }"))
    assert "ro," in [x for x in host.exec(server, "cat", "/proc/self/mounts").stdout.splitlines() if "/.tensorone/ssh " in x][0]


# ---- the server that listens


def banner(host, cluster, timeout=60):
    """What is said at its port 22, from the host; None: nobody listens within that time."""
    address = host.gql("query($i: ClusterInput) { cluster(input: $i) { clusterIp } }", {"i": {"clusterId": cluster}})
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        try:
            with socket.create_connection((address["cluster"]["clusterIp"], 22), 5) as s:
                return s.recv(100)
        except OSError:
            time.sleep(0.05)
    return None


def servers(host, cluster):
    """Pids inside of dropbear that listens, and of what keeps it running."""
    all_ = commands(host, cluster)
    return ([pid for pid, line in all_ if "dropbear" in line and " -p 22" in line],
            [pid for pid, line in all_ if line.endswith("vmm-ssh serve")])


def listener(host, cluster):
    """Its pid inside, as it says itself."""
    return host.exec(cluster, "cat", "/dev/.tensorone-ssh.pid", check=False).stdout.strip()


def to_port(host, cluster, *command):
    """Past the API: to the cluster's address itself."""
    address = host.gql("query($i: ClusterInput) { cluster(input: $i) { clusterIp } }", {"i": {"clusterId": cluster}})
    return plain(host, "ssh", cluster, "-o", "ProxyCommand=none", "-o", "HostName=" + address["cluster"]["clusterIp"],
                 cluster, *command)


def test_listens(host, server, own_key):
    assert banner(host, server).startswith(b"SSH-2.0-dropbear")
    done = to_port(host, server, "id -u; echo $COLOUR")
    assert (done.returncode, done.stdout) == (0, "0\nblue and 'green'\n"), done.stderr
    assert "Permission denied (publickey)" in plain(host, "ssh", server, "-o", "ProxyCommand=none", "-o", "PubkeyAuthentication=no", "-o",
                                "HostName=" + host.gql("query($i: ClusterInput) { cluster(input: $i) { clusterIp } }",
                                                       {"i": {"clusterId": server}})["cluster"]["clusterIp"],
                                server, "id").stderr


def test_ends_and_comes_again(host, own_key):
    """A server that is killed is started again; the cluster does not notice, nor does an engine's restart make a
    second one."""
    with host.running("sleep", "1000", startSsh=True) as c:
        assert banner(host, c)
        first, (keeper,) = host.first_pid(c), servers(host, c)[1]
        for _ in range(2):
            pid = until(lambda: listener(host, c))
            host.exec(c, "kill", "-9", pid)
            until(lambda: listener(host, c) not in ("", pid))
        assert banner(host, c) and host.first_pid(c) == first
        host.restart()
        assert banner(host, c) and to_port(host, c, "echo still").stdout == "still\n"
        until(lambda: servers(host, c)[1] == [keeper])
        host.kill()
        host.start()
        assert to_port(host, c, "echo still").stdout == "still\n" and host.first_pid(c) == first
        until(lambda: servers(host, c)[1] == [keeper])


def test_port_is_taken(host, own_key):
    """An image's own server keeps its port; ours waits, and is there when that has ended."""
    with host.running("sh", "-c", "nc -l -p 22 -e echo theirs; sleep 1000", startSsh=True) as c:
        assert banner(host, c)
        assert until(lambda: (banner(host, c) or b"").startswith(b"SSH-2.0-dropbear"))


def test_strict_has_no_port(host, own_key):
    with host.running("sleep", "1000", startSsh=True, securityProfile="strict") as c:
        assert host.cluster(c)["ports"] is None
        assert ssh(host, c, "echo all the same").stdout == "all the same\n"
        assert servers(host, c) == ([], [])


def test_published(host, server, own_key):
    """From outside: the port of the host that its 22 is published on."""
    ports = host.wait(server, lambda c: any(p["privatePort"] == 22 for p in c["runtime"]["ports"] or []))["runtime"]["ports"]
    (p,) = [p for p in ports if p["privatePort"] == 22]
    assert p["type"] == "tcp" and p["publicPort"] != 22
    done = plain(host, "ssh", server, "-o", "ProxyCommand=none", "-o", "HostName=" + p["ip"], "-p", str(p["publicPort"]),
                 server, "echo published")
    assert done.stdout == "published\n", done.stderr
