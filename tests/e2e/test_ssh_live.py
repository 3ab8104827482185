"""SSH keys that change while clusters run, what sessions leave behind, and images that would let others in."""
import os
import pathlib
import signal
import subprocess
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from host import Host, program  # noqa: E402
from ocimake import Image, Layer  # noqa: E402
from sshkeys import ECDSA, ED25519  # noqa: E402
from test_ssh import (banner, commands, listener, options_of, plain, servers, set_keys, ssh,  # noqa: E402
                      to_port, until, with_image)

FILE = "/root/.ssh/authorized_keys"


@pytest.fixture(scope="module")
def host():
    with Host({"engine": {"cpu_overcommit": 100, "memory_overcommit": 20, "disk_overcommit": 100,
                          "pool_networks": 0, "pool_disks": 0, "grace": "500ms"}}) as h:
        h.import_image("tensorone/starter")
        yield h


@pytest.fixture
def own_key(host):
    host.cli("ssh", "add-key")
    yield (host.dir / ".tensorone" / "ssh" / "id_ed25519.pub").read_text().strip()
    set_keys(host, "\n")


@pytest.fixture
def other_key(tmp_path):
    """Somebody else's: the file of its private half; its public half lies beside it."""
    path = tmp_path / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "other", "-f", str(path)], check=True)
    return path


def public(key):
    return pathlib.Path(str(key) + ".pub").read_text().strip()


def comes_in(host, cluster, **kw):
    return ssh(host, cluster, "echo in", check=False, **kw).stdout == "in\n"


def by(host, cluster, key, *command, **kw):
    """The arguments of ssh with that key alone, over the API."""
    config = "".join(x for x in pathlib.Path(options_of(host, cluster)).read_text().splitlines(True)
                     if "IdentityFile" not in x)
    path = host.dir / ("config-%s-%s" % (cluster, os.path.basename(str(key))))
    path.write_text(config)
    return ["ssh", "-F", str(path), "-i", str(key), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", *kw.get("options", ()),
            cluster, *command]


def held_open(host, args):
    """A session that says it has begun, and stays."""
    p = subprocess.Popen([*args, "echo begun; cat"], env=host.cli_env(), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert p.stdout.readline() == b"begun\n"
    return p


def keys_inside(host, cluster, path=FILE):
    return host.exec(cluster, "cat", path, check=False).stdout.splitlines()


def dead(host, cluster):
    """Processes that nobody has waited for."""
    script = "for p in /proc/[0-9]*; do grep -h -E '^(Name|State):' $p/status; done 2>/dev/null | grep -B1 'Z (zombie)'"
    return host.exec(cluster, "sh", "-c", script, check=False).stdout


# ---- keys


@pytest.mark.parametrize("profile", ["standard", "strict"])
def test_come_and_go(host, own_key, other_key, profile):
    """While it runs: one that is added opens it, one that is removed does not any more; what the tenant has written
    into the file stays, but for the key that was removed."""
    with host.running("sleep", "10000", startSsh=True, securityProfile=profile) as c:
        assert comes_in(host, c)
        assert subprocess.run(by(host, c, other_key, "true"), env=host.cli_env(), stdin=subprocess.DEVNULL,
                              check=False).returncode == 255
        set_keys(host, own_key + "\n" + public(other_key))
        until(lambda: subprocess.run(by(host, c, other_key, "true"), env=host.cli_env(), stdin=subprocess.DEVNULL,
                                     check=False).returncode == 0)
        if profile == "standard":
            host.exec(c, "sh", "-c", 'printf "# mine\\n%s\\nno-pty %s\\n" "$1" "$2" >>' + FILE, "-", ED25519, public(other_key))
        set_keys(host, own_key)
        until(lambda: public(other_key) not in "\n".join(keys_inside(host, c)))
        assert subprocess.run(by(host, c, other_key, "true"), env=host.cli_env(), stdin=subprocess.DEVNULL,
                              check=False).returncode == 255
        assert comes_in(host, c)
        if profile == "standard":
            assert keys_inside(host, c) == ["# mine", ED25519, own_key]
        set_keys(host, "\n")
        until(lambda: own_key not in keys_inside(host, c))
        assert not comes_in(host, c)


def test_sessions_of_a_removed_key_end(host, own_key, other_key):
    """Over the API and by the port; those of other keys do not notice."""
    set_keys(host, own_key + "\n" + public(other_key))
    with host.running("sleep", "10000", startSsh=True) as c:
        assert banner(host, c)
        address = host.gql("query($i: ClusterInput) { cluster(input: $i) { clusterIp } }", {"i": {"clusterId": c}})
        port = ["-o", "ProxyCommand=none", "-o", "HostName=" + address["cluster"]["clusterIp"]]
        theirs = [held_open(host, by(host, c, other_key)), held_open(host, by(host, c, other_key, options=port))]
        own = host.dir / ".tensorone" / "ssh" / "id_ed25519"
        mine = [held_open(host, by(host, c, own)), held_open(host, by(host, c, own, options=port))]
        set_keys(host, public(other_key) + "\n" + own_key)  # another order is no removal
        set_keys(host, own_key)
        for p in theirs:
            assert p.wait(60) == 255
        assert public(other_key) not in keys_inside(host, c)
        for p in mine:
            assert p.communicate(b"still here\n", timeout=60)[0] == b"still here\n" and p.returncode == 0


def test_keys_of_now_after_a_crash(host, own_key, other_key):
    """A first process that ends is started again with the keys of now, also in what the image makes of them; so it
    is after the engine was killed."""
    set_keys(host, own_key + "\n" + public(other_key))
    script = 'echo "$PUBLIC_KEY" >>%s; while sleep 1; do :; done' % FILE
    with host.running("sh", "-c", script, startSsh=True) as c:
        until(lambda: keys_inside(host, c).count(public(other_key)) == 2)
        set_keys(host, own_key)
        until(lambda: public(other_key) not in keys_inside(host, c))
        first = host.first_pid(c)
        os.kill(first, signal.SIGKILL)
        host.wait_new_first(c, first, timeout=60)
        until(lambda: keys_inside(host, c) == [own_key, own_key])
        host.kill()
        host.start()
        first = host.first_pid(c)
        os.kill(first, signal.SIGKILL)
        host.wait_new_first(c, first, timeout=60)
        until(lambda: keys_inside(host, c) == [own_key, own_key])
        assert comes_in(host, c)


def test_removed_while_nobody_can_tell(host, own_key, other_key):
    """The engine is killed with the word on its way: the next one says it."""
    set_keys(host, own_key + "\n" + public(other_key))
    with host.running("sleep", "10000", startSsh=True) as c:
        assert comes_in(host, c)
        (keeper,) = servers(host, c)[1]
        host.exec(c, "kill", "-STOP", str(keeper))
        set_keys(host, own_key)
        host.kill()
        host.start()
        host.exec(c, "kill", "-CONT", str(keeper))
        until(lambda: public(other_key) not in keys_inside(host, c))
        assert comes_in(host, c)


def test_own_variables_are_the_users(host, own_key):
    """Who logs in is said by the cluster's own variables: the account's keys come and go without it."""
    with host.running("sleep", "10000", startSsh=True, env=[{"key": "SSH_PUBLIC_KEY", "value": ECDSA}]) as c:
        assert keys_inside(host, c) == [ECDSA]
        with host.running("sleep", "10000", startSsh=True) as witness:
            assert keys_inside(host, witness) == [own_key]
            set_keys(host, ED25519)
            until(lambda: keys_inside(host, witness) == [ED25519])
        assert keys_inside(host, c) == [ECDSA]


# ---- the keeper


def test_leaves_no_dead(host, own_key):
    """The first process waits for nobody, and still no session leaves a dead process: not one that ends, one that is
    hung up, nor what they have left running."""
    with host.running("sleep", "10000", startSsh=True) as c:
        for _ in range(3):
            assert comes_in(host, c)
            ssh(host, c, "sleep 1000 >/dev/null 2>&1 & echo $!")
        p = held_open(host, [program("tensoronecli"), "ssh", c, "--"])
        p.kill()
        p.wait()
        assert to_port(host, c, "sleep 1000 >/dev/null 2>&1 & echo left").stdout == "left\n"
        host.exec(c, "killall", "-9", "sleep")
        until(lambda: [x for x in commands(host, c) if x[1].startswith("sleep")] == [(1, "sleep 10000")])
        until(lambda: not [x for x in commands(host, c) if x[1].endswith("vmm-ssh connect")])
        until(lambda: dead(host, c) == "")


def test_keeper_is_killed(host, own_key):
    """It comes again, with the keys of now; sessions can be had meanwhile."""
    with host.running("sleep", "10000", startSsh=True) as c:
        assert banner(host, c)
        (keeper,) = servers(host, c)[1]
        host.exec(c, "kill", "-9", str(keeper))
        assert comes_in(host, c)
        until(lambda: servers(host, c)[1] not in ([], [keeper]))
        assert until(lambda: listener(host, c)) and banner(host, c)
        set_keys(host, "\n")
        until(lambda: keys_inside(host, c) == [])
        assert not comes_in(host, c)


def test_only_roots(host, own_key):
    """What the keeper listens at, and what it keeps, is of root inside alone."""
    with host.running("sleep", "10000", startSsh=True) as c:
        assert comes_in(host, c)
        names = ["/dev/.tensorone-ssh" + n for n in (".sock", ".lock", "-keys")]
        assert host.exec(c, "stat", "-c", "%a %u", *names).stdout == "600 0\n" * 3


# ---- images


def busybox(*applets, passwd, env=()):
    layer = Layer()
    for d in ("bin", "etc", "proc", "sys", "dev", "run"):
        layer.dir(d)
    layer.dir("tmp", mode=0o1777)
    layer.file("bin/busybox", pathlib.Path("/bin/busybox").read_bytes(), mode=0o755)
    layer.file("etc/passwd", passwd)
    for a in applets:
        layer.symlink("bin/" + a, "busybox")
    return Image([layer.tar()], config={"Cmd": ["/bin/busybox", "sleep", "100000"], "Env": ["PATH=/bin", *env]})


@pytest.mark.parametrize("name", ["PUBLIC_KEY", "SSH_PUBLIC_KEY"])
@pytest.mark.parametrize("keys", [True, False])
def test_image_lets_nobody_in(host, tmp_path, other_key, name, keys, request):
    """Variables of an image are its author's, who has no key to clusters of others."""
    want = [request.getfixturevalue("own_key")] if keys else []
    made = busybox("sh", "cat", passwd=b"root:x:0:0:root:/root:/bin/sh\n", env=[name + "=" + public(other_key)])
    with with_image(host, tmp_path, "bent-%s-%d" % (name.lower().replace("_", "-"), keys), made) as c:
        assert keys_inside(host, c) == want
        assert comes_in(host, c) is keys
        assert subprocess.run(by(host, c, other_key, "true"), env=host.cli_env(), stdin=subprocess.DEVNULL,
                              check=False).returncode == 255


@pytest.mark.parametrize("profile", ["standard", "strict"])
def test_home_elsewhere(host, tmp_path, own_key, profile):
    made = busybox("sh", "cat", passwd=b"root:x:0:0:root:/home/admin:/bin/sh\n")
    with with_image(host, tmp_path, "elsewhere-" + profile, made, securityProfile=profile) as c:
        assert ssh(host, c, "cd; pwd").stdout == "/home/admin\n"
        set_keys(host, own_key + "\n" + ED25519)
        until(lambda: keys_inside(host, c, "/home/admin/.ssh/authorized_keys") == [own_key, ED25519])


def test_home_that_others_may_write(host, tmp_path, own_key):
    """Nobody comes in then, and who tries is told why."""
    made = busybox("sh", "cat", "chmod", passwd=b"root:x:0:0:root:/root:/bin/sh\n")
    with with_image(host, tmp_path, "open-home", made) as c:
        host.exec(c, "chmod", "777", "/root")
        done = ssh(host, c, "true", check=False)
        assert done.returncode == 255 and "/root must be owned by" in done.stderr, done
        host.exec(c, "chmod", "755", "/root")
        assert ssh(host, c, "echo mended").stdout == "mended\n"


def test_variables_for_a_loader(host, tmp_path, own_key):
    """LD_PRELOAD and its like mean the image's loader, not ours; a login shell has them."""
    odd = {"LD_PRELOAD": "/bin/busybox", "LD_TRACE_LOADED_OBJECTS": "1", "LD_AUDIT": "/bin/busybox"}
    made = busybox("sh", "cat", "env", passwd=b"root:x:0:0:root:/root:/bin/sh\n")
    with with_image(host, tmp_path, "loader", made, env=[{"key": k, "value": v} for k, v in odd.items()]) as c:
        assert ssh(host, c, "echo fine").stdout == "fine\n"
        done = plain(host, "ssh", c, "-tt", c, stdin=None, input="env | cat; exit\n")
        assert "LD_PRELOAD=/bin/busybox" in done.stdout, done


def test_stop_does_not_wait_for_our_server():
    """A first process that does not know of TERM is not given its time on account of what we started beside it."""
    with Host({"engine": {"cpu_overcommit": 100, "memory_overcommit": 20, "disk_overcommit": 100, "pool_networks": 0,
                          "pool_disks": 0, "grace": "110s"}}) as host:
        host.import_image("tensorone/starter")
        c = host.deploy(startSsh=True, dockerArgs="sleep 100000")
        host.wait_running(c)
        assert banner(host, c)
        host.call("clusterStop", c)
        host.wait_exited(c, timeout=60)
        host.call("clusterTerminate", c)
