"""What must feel like a virtual server of one's own (docs/security.md): packages, users, debuggers, servers,
in Debian as people know it.  The image comes from the distribution (images/vps), made once a build."""
import fcntl
import pathlib
import subprocess
import textwrap
import time

import pytest

import host as hosts
from host import Host

ROOT = pathlib.Path(__file__).resolve().parents[2]
MAKING_S = 900  # debootstrap and apt over the network, when the list has changed

pytestmark = pytest.mark.limit(MAKING_S)


def vps_layout():
    """Made by whoever comes first."""
    out = hosts.BUILD / "test-images"
    out.mkdir(exist_ok=True)
    with open(out / ".lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        subprocess.run([ROOT / "images/build", out, "vps"], check=True, timeout=MAKING_S)
    return out / "vps"


@pytest.fixture(scope="module")
def host():
    layout = vps_layout()
    with Host({"engine": {"pool_networks": 0, "pool_disks": 0, "grace": "1s", "cpu_overcommit": 100,
                          "memory_overcommit": 20, "disk_overcommit": 100}}) as h:
        h.import_image("vps", layout=layout)
        yield h


def deploy(host, profile):
    c = host.deploy(imageName="vps", securityProfile=profile, containerDiskInGb=2, minMemoryInGb=2, volumeInGb=1)
    host.wait_running(c)
    return c


@pytest.fixture(scope="module")
def standard(host):
    return deploy(host, "standard")


@pytest.fixture(scope="module")
def strict(host):
    return deploy(host, "strict")


@pytest.fixture(scope="module")
def compat(host):
    return deploy(host, "compat")


def sh(host, cluster, script, user=None, check=True):
    who = ["-u", user] if user else []
    done = host.cli("exec", *who, cluster, "--", "sh", "-ec", textwrap.dedent(script), check=False)
    assert done.returncode == 0 or not check, done.stdout[-2000:] + done.stderr[-2000:]
    return done


PACKAGE = """
    mkdir -p /root/repo/hello/DEBIAN /root/repo/hello/usr/bin
    printf 'Package: hello-vps\\nVersion: 1.0\\nArchitecture: all\\nMaintainer: me <a@example.org>\\nDescription: x\\n' \
        > /root/repo/hello/DEBIAN/control
    printf '#!/bin/sh\\nset -e\\nadduser --system --group --no-create-home --quiet hello || useradd -r hello\\n' \
        > /root/repo/hello/DEBIAN/postinst
    printf '#!/bin/sh\\necho hello from a package\\n' > /root/repo/hello/usr/bin/hello-vps
    chmod 755 /root/repo/hello/DEBIAN/postinst /root/repo/hello/usr/bin/hello-vps
    dpkg-deb --root-owner-group -b /root/repo/hello /srv/hello.deb
    cd /srv
    size=$(stat -c %s hello.deb); sum=$(sha256sum hello.deb | cut -d' ' -f1)
    { cat /root/repo/hello/DEBIAN/control; echo "Filename: ./hello.deb"; echo "Size: $size"; echo "SHA256: $sum"; } \
        > Packages
    echo 'deb [trusted=yes] file:/srv ./' > /etc/apt/sources.list
"""


def test_apt_get(host, standard):
    """update runs its methods as the user _apt; install runs dpkg and a package's own script."""
    sh(host, standard, PACKAGE)
    out = sh(host, standard, "apt-get update; DEBIAN_FRONTEND=noninteractive apt-get install -y hello-vps; hello-vps; "
                             "id hello; dpkg -s hello-vps | grep Status; apt-get remove -y hello-vps").stdout
    assert "hello from a package" in out and "install ok installed" in out


def test_pip(host, standard):
    sh(host, standard, """
        mkdir -p /root/pkg && cd /root/pkg
        printf 'from setuptools import setup\\nsetup(name="vpspkg", version="1", py_modules=["vpspkg"])\\n' > setup.py
        echo 'VALUE = 42' > vpspkg.py
        pip install --break-system-packages --no-index --no-build-isolation . || pip install --break-system-packages \
            --no-index --no-build-isolation --use-pep517 .
        cd / && python3 -c 'import vpspkg; assert vpspkg.VALUE == 42'
        python3 -c 'import multiprocessing as m; p = m.Pool(2); print(p.map(abs, [-1, -2]))'""")


SSHD = """
    mkdir -p /run/sshd
    ssh-keygen -A >/dev/null
    rm -f /root/.ssh/id; mkdir -p -m 700 /root/.ssh; ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id
    cp /root/.ssh/id.pub /root/.ssh/authorized_keys
    /usr/sbin/sshd -p 22
    ssh -i /root/.ssh/id -o StrictHostKeyChecking=no -o ConnectTimeout=20 root@127.0.0.1 'echo over ssh: $(id -u); tty || true'
    ssh -tt -i /root/.ssh/id -o StrictHostKeyChecking=no root@127.0.0.1 'test -t 0 && echo with a terminal'
"""


def test_sshd(host, standard):
    """Its unprivileged half sits in a chroot under a filter of its own; sessions get terminals."""
    out = sh(host, standard, SSHD).stdout
    assert "over ssh: 0" in out and "with a terminal" in out


def test_gdb(host, standard):
    out = sh(host, standard, "gdb -batch -ex 'catch syscall exit_group' -ex run -ex bt -ex kill --args /bin/true 2>&1; "
                             "sleep 1000 & p=$!; gdb -batch -p $p -ex 'info proc' 2>&1; kill $p").stdout
    assert "call to syscall exit_group" in out and "_exit" in out, "a breakpoint and its stack"
    assert "exe = '/usr/bin/sleep'" in out and "Operation not permitted" not in out, "attached"


def test_strace(host, standard):
    assert "execve(" in sh(host, standard, "strace -f -o /tmp/out sh -c 'true; ls / >/dev/null'; cat /tmp/out").stdout
    out = sh(host, standard, "sleep 1000 & p=$!; timeout 2 strace -p $p -o /tmp/at || true; cat /tmp/at; kill $p").stdout
    assert "nanosleep" in out or "restart_syscall" in out or "detached" in out


def test_users(host, standard):
    """useradd, su, setpriv, and a service of another user."""
    out = sh(host, standard, """
        id alice 2>/dev/null || useradd -m -s /bin/bash alice
        echo alice:secret | chpasswd
        su - alice -c 'id -un; touch ~/x; stat -c %U ~/x'
        setpriv --reuid alice --regid alice --clear-groups id -u""").stdout
    assert out.split()[:2] == ["alice", "alice"]


def test_jupyter(host, standard):
    """The server, and a kernel that it starts and talks to over its sockets."""
    sh(host, standard, """
        mkdir -p /root/nb
        nohup jupyter-server --allow-root --no-browser --ip=127.0.0.1 --port=8888 --ServerApp.token=t \
            --ServerApp.root_dir=/root/nb >/tmp/jupyter.log 2>&1 &""")
    script = """
        import json, urllib.request, sys
        def ask(path, data=None):
            r = urllib.request.Request('http://127.0.0.1:8888' + path, data=data, headers={'Authorization': 'token t'})
            return json.load(urllib.request.urlopen(r, timeout=20))
        print(ask('/api')['version'])
        from jupyter_client.manager import start_new_kernel
        manager, client = start_new_kernel()
        reply = client.execute_interactive('print(6 * 7)', timeout=60)
        print(reply['content']['status'])
        manager.shutdown_kernel(now=True)
    """
    end = time.monotonic() + 60
    while True:
        done = host.exec(standard, "python3", "-c", textwrap.dedent(script), check=False)
        if done.returncode == 0 or time.monotonic() > end:
            break
    assert done.returncode == 0 and "42" in done.stdout and "ok" in done.stdout, \
        done.stdout + done.stderr[-2000:] + sh(host, standard, "cat /tmp/jupyter.log").stdout[-2000:]


def test_ping(host, standard, compat):
    """Debian's, with the file capability that it has: passed over in one profile, honoured in the other."""
    for c in (standard, compat):
        for user in ("root", "nobody"):
            assert "1 received" in sh(host, c, "ping -c 1 -W 5 127.0.0.1", user=user).stdout


SUDO = """
    id alice 2>/dev/null || useradd -m -s /bin/bash alice
    echo 'alice ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/alice
    chmod 440 /etc/sudoers.d/alice
"""


def test_sudo_in_compat(host, compat):
    sh(host, compat, SUDO)
    out = sh(host, compat, "sudo -n id -u; sudo -n sh -c 'echo x > /etc/by-sudo'; stat -c %U /etc/by-sudo; "
                           "sudo -n -u nobody id -un; id -un", user="alice").stdout
    assert out.split() == ["0", "root", "nobody", "alice"]
    # root of the cluster, and no more than it was before
    caps = sh(host, compat, "sudo -n grep CapEff /proc/self/status", user="alice").stdout.split()[1]
    bounding = sh(host, compat, "grep CapBnd /proc/self/status").stdout.split()[1]
    assert int(caps, 16) & ~int(bounding, 16) == 0


def test_su_in_compat(host, compat):
    sh(host, compat, SUDO + "echo root:secret | chpasswd")
    assert sh(host, compat, "echo secret | su -c 'id -u' root", user="alice").stdout.strip().endswith("0")


def test_no_sudo_elsewhere(host, standard):
    sh(host, standard, SUDO)
    done = sh(host, standard, "sudo -n id -u", user="alice", check=False)
    assert done.returncode != 0 and "0\n" not in done.stdout


def test_strict_still_serves(host, strict):
    """No debugger, no new programs; but servers on high ports, python, and sshd that was set up for it."""
    assert "Operation not permitted" in sh(host, strict, "strace -o /tmp/x true 2>&1 || true; "
                                                         "gdb -batch -ex run --args /bin/true 2>&1 || true").stdout
    assert "Read-only file system" in sh(host, strict, "apt-get update 2>&1 || true").stdout
    out = sh(host, strict, """
        mkdir -p /run/sshd /tmp/ssh
        ssh-keygen -q -t ed25519 -N '' -f /tmp/ssh/host; ssh-keygen -q -t ed25519 -N '' -f /tmp/ssh/id
        cp /tmp/ssh/id.pub /tmp/ssh/keys
        /usr/sbin/sshd -p 2222 -h /tmp/ssh/host -o AuthorizedKeysFile=/tmp/ssh/keys -o StrictModes=no -o PidFile=/run/s
        ssh -p 2222 -i /tmp/ssh/id -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null root@127.0.0.1 'id -u'
        timeout 20 /usr/sbin/sshd -De -p 22 -h /tmp/ssh/host -o PidFile=/run/t 2>&1 || true""").stdout
    assert out.split()[0] == "0" and "Permission denied" in out
    assert "4" in sh(host, strict, "python3 -c 'import tempfile; f = tempfile.NamedTemporaryFile(); print(2 + 2)'").stdout
