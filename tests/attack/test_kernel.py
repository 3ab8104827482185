"""The kernel's surface, from inside: what may be asked of it, and what else of it can be reached."""
import contextlib
import fcntl
import json
import os
import pathlib
import re
import secrets
import subprocess
import time

import pytest

import attack
import inventory
from attack import image, layer, watched
from host import our_node
from ocimake import Image, Layer, sha256

HERE = pathlib.Path(__file__).resolve().parent


# ---- system calls

def allowed(profile):
    """{number: (name, may be missing)} of the reviewed list."""
    rows = {}
    for line in (HERE / "syscalls.allowed").read_text().splitlines():
        words = line.split("#")[0].split()
        if words and "!" + profile not in words[2:]:
            rows[int(words[0].rstrip("?"))] = (words[1], words[0].endswith("?"))
    return rows


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the reviewed list has x86-64's numbers")
def test_every_system_call(world, caged, profile):
    """0 to 600: what reaches the kernel is what was reviewed, no more and no less."""
    said = world.attack(caged, "syscalls")
    found = {int(n): r for n, r in re.findall(r"^(\d+) (\w+)$", said, re.M)}
    assert sorted(found) == list(range(601)), said[-300:]
    works = {n for n, r in found.items() if r not in ("EPERM", "ENOSYS")}
    rows = allowed(profile)
    assert not works - set(rows), "not reviewed: %s" % {n: found[n] for n in works - set(rows)}
    missing = {n for n in set(rows) - works if not (rows[n][1] and found[n] == "ENOSYS")}
    assert not missing, "refused, though on the list: %s" % {n: (rows[n][0], found[n]) for n in missing}
    print("%d of 601 system calls reach the kernel" % len(works))


def host_state():
    """What the attempts below would change on the host."""
    def text(path):
        try:
            return pathlib.Path(path).read_text()
        except OSError:
            return None
    # of modules those that the attempts would bring; firewalls and disks of who runs beside us load theirs
    modules = re.findall(r"^(vsock|af_alg|alg|xfrm|xsk|fuse|quota|algif)\w* ", text("/proc/modules") or "", re.M)
    return {"hostname": text("/proc/sys/kernel/hostname"), "modules": sorted(modules), "swaps": text("/proc/swaps"),
            "kexec": text("/sys/kernel/kexec_loaded"), "ctrl-alt-del": text("/proc/sys/kernel/ctrl-alt-del"),
            "core_pattern": text("/proc/sys/kernel/core_pattern")}


@pytest.fixture(scope="module")
def surface(world, by_profile):
    """A function: {what: errno or "ok"} of everything that programs/surface.c tries, once under each
    profile, by whom it says."""
    known = {}

    def rows(profile, *command, **params):
        key = (profile, command, *params.values())
        if key not in known:
            known[key] = try_all(world, by_profile(profile), *command, **params)
        return known[key]
    return rows


def try_all(world, cluster, *command, **params):
    before = host_state()
    mark = "hvmm-canary-" + secrets.token_hex(8)
    with open("/dev/kmsg", "w", encoding="ascii") as f:  # the canary in the host's kernel log
        f.write("<7>" + mark + "\n")
    said = world.inside(cluster, *command, "surface", "/tmp", **params)
    if mark in said:
        attack.changed("the host's kernel log was read from inside")
    if host_state() != before:
        attack.changed("the host is not as it was: %s, was %s" % (host_state(), before))
    rows = dict(re.findall(r"^([\w /-]+?): (\w+)$", said, re.M))
    assert "done" in said, said
    return rows


@pytest.fixture
def tried(surface, profile):
    return surface(profile, attack.TOOL)


CLASSES = {
    "user_namespaces": ["user namespace", "user namespace by clone", "user namespace by clone3"],
    "namespaces": ["mount namespace", "network namespace", "setns"],
    "mount": ["mount tmpfs", "mount proc", "mount cgroup", "mount cgroup2", "fsopen", "open_tree", "remount /proc/sys",
              "unmount /proc/sys"],
    "bpf": ["bpf"], "keyctl": ["keyctl", "add_key"], "perf": ["perf"], "io_uring": ["io_uring"],
    "userfaultfd": ["userfaultfd"], "kexec": ["kexec", "kexec by file", "reboot"],
    "modules": ["module", "module by file", "module removed"],
    "raw_sockets": ["raw socket", "raw socket v6", "packet socket", "transparent socket"],
    "rare_sockets": ["vsock", "crypto socket", "xdp socket", "netfilter", "audit", "xfrm"],
    "own_link": ["link down", "link address"],
    "device_nodes": ["node kmsg", "node loop0", "node fuse"],
    "kernel_log": ["kernel log"], "file_handles": ["file handle", "fanotify", "quota"],
    "the_host_itself": ["swap", "clock", "host name", "port I/O"],
    "priority_and_limits": ["nice", "real time", "core limit", "no core limit"],
    "capabilities": ["capability raised"], "terminal_input": ["TIOCSTI"], "foreign_abi": ["32-bit call"],
}


@pytest.mark.parametrize("kind", CLASSES)
def test_surface(tried, kind):
    """Each way in is refused."""
    for what in CLASSES[kind]:
        assert what in tried, (what, sorted(tried))
        assert tried[what] != "ok", "%s: %s opened" % (kind, what)


def test_surface_is_listed(tried):
    listed = {w for words in CLASSES.values() for w in words}
    assert set(tried) == listed, set(tried) ^ listed


def test_children_for_the_monitor(world, caged):
    """CLONE_PARENT would give a process of the host's a child that it knows nothing of."""
    with world.beside(caged, attack.TOOL, "adopt", ready=b"adopted") as said:
        for pid in world.pids(caged, "m"):
            kids = inventory.read("/proc/%d/task/%d/children" % (pid, pid)).split()
            if len(kids) > 1:
                attack.changed("vmm-monitor %d has children that it did not make: %s" % (pid, kids))
    assert "adopted -1" in said[0], said[0]


# ---- /proc, /sys, groups

def test_sysctls_of_the_host(world, caged):
    """One that does nothing until the machine is switched off, with what it has already and a blank."""
    sysctl = "/proc/sys/kernel/poweroff_cmd"
    before = open(sysctl, encoding="utf-8").read()
    world.attack(caged, "spoil", before.strip() + " ", sysctl)
    if open(sysctl, encoding="utf-8").read() != before:
        with open(sysctl, "w", encoding="utf-8") as f:
            f.write(before)
        attack.changed("a sysctl of the host's was written")


def test_proc_and_sys_writes(world, caged):
    """Every file below /proc and /sys but processes' own: none opens for writing."""
    said = world.sh(caged, "find /proc /sys -path '/proc/[0-9]*' -prune -o -path /proc/self -prune -o "
                             "-path /proc/thread-self -prune -o -type f -print | xargs attack spoil ''")
    wrote = re.findall(r"^WROTE (\S+)", said, re.M)
    assert said.count("refused ") > 1000, said[-500:]
    assert not wrote, wrote
    print("%d files refused" % said.count("refused "))


def group_values(world, cluster):
    """What bounds the cluster, as the host has it."""
    values = {}
    for root in world.slice_roots():
        for path in (root / ("c%d" % world.slot(cluster))).glob("*"):
            if path.name in ("memory.limit_in_bytes", "memory.max", "pids.max", "cpu.cfs_quota_us", "cpu.max",
                             "cpuset.cpus", "notify_on_release"):
                values[str(path)] = path.read_text()
    return values


def test_cgroup_escape_release_agent(world, canary, profile):
    """v1's release_agent and v2's own files: a program of the host's never runs, and the group keeps
    its limits and its processes."""
    cluster = world.rent(securityProfile=profile)
    agent = canary.dir.parent / (canary.dir.name + ".agent")
    agent.write_text("#!/bin/sh\ntouch %s/ran\n" % canary.empty)
    agent.chmod(0o755)
    try:
        before = group_values(world, cluster)
        assert before
        groups = open("/proc/%d/cgroup" % world.first_pid(cluster), encoding="utf-8").read()
        said = world.sh(cluster, """
            attack surface /tmp | grep cgroup
            for d in $(find /sys/fs/cgroup -type d) /tmp/m; do
                attack spoil %s $d/release_agent
                attack spoil 1 $d/notify_on_release $d/cgroup.procs $d/tasks $d/cgroup.kill
                case $d in /sys*) mkdir $d/x 2>&1 && echo "WROTE made $d/x";; esac
                for v in memory.limit_in_bytes memory.max pids.max cpu.cfs_quota_us cpu.max; do attack spoil -1 $d/$v; done
                attack spoil max $d/memory.max $d/pids.max $d/cpu.max
            done""" % agent)
        assert said.count("refused ") > 5, said
        if group_values(world, cluster) != before:
            attack.changed("the cluster's group on the host: %s, was %s" % (group_values(world, cluster), before))
        if open("/proc/%d/cgroup" % world.first_pid(cluster), encoding="utf-8").read() != groups:
            attack.changed("the first process left its group")
        canary.check()
        assert "WROTE" not in said, said
    finally:
        agent.unlink()
        world.end(cluster)


# ---- images

def test_overlay_xattrs_from_a_layer(world, canary):
    """A layer that says "my content is that object" names the object of a neighbour's private image."""
    content = (canary.secret + "\n").encode() * (1 << 16)
    world.add_own_image("alice", "alices", image(Layer().file("model", content).tar()))
    digest = sha256(content)[7:]
    objects = world.data / "images/objects" / digest[:2] / digest[2:]
    # before Linux 6.5 nothing is: then the names lead nowhere, and shall do so
    assert objects.exists() == ("cannot share large files" not in world.log_text()), "large enough to be an object"
    where = ("/%s/%s" % (digest[:2], digest[2:])).encode()
    tree = Layer()
    for i, prefix in enumerate(("trusted.overlay.", "user.overlay.")):
        tree.file("steal%d" % i, b"\0" * len(content), xattrs={prefix + "redirect": where, prefix + "metacopy": b""})
        tree.file("small%d" % i, b"\0" * 300, xattrs={prefix + "redirect": where, prefix + "metacopy": b""})
        tree.dir("dir%d" % i, xattrs={prefix + "redirect": b"/", prefix + "opaque": b"n"})
    world.add_own_image("mallory", "thief", image(tree.tar()))
    c = world.rent(imageName="thief")
    canary.check(world.sh(c, "head -c 200 /steal0 /steal1 /small0 /small1; ls -R /dir0 /dir1"))
    world.end(c)


def test_device_nodes_of_an_image(world, profile):
    """The image brings nodes of the kernel's log, a disk and memory."""
    mark = "hvmm-canary-" + secrets.token_hex(8)
    with open("/dev/kmsg", "w", encoding="ascii") as f:
        f.write("<7>" + mark + "\n")
    tree = Layer().dir("nodes", mode=0o777)
    for name, major, minor, block in (("kmsg", 1, 11, False), ("mem", 1, 1, False), ("loop0", 7, 0, True),
                                      ("loop-control", 10, 237, False)):
        tree.device("nodes/" + name, major, minor, block=block, mode=0o666)
    world.add_image("nodes", image(tree.tar()))
    c = world.rent(imageName="nodes", securityProfile=profile)
    said = world.sh(c, "ls /nodes; attack show /nodes/*; attack spoil x /nodes/*; cd /nodes; dd if=kmsg bs=8192 count=1000; "
                       "for p in /dev /dev/shm /tmp /nodes; do mknod $p/k c 1 11; dd if=$p/k bs=8192 count=1000; done")
    if mark in said:
        attack.changed("the host's kernel log was read through a node")
    assert "WROTE" not in said, said
    world.end(c)


# ---- neighbours in the same kernel

def test_abstract_unix_sockets(world, mallory, alice):
    """A name without a file: neither the host's nor a neighbour's listener hears anything."""
    import socket
    name = "hvmm-canary-" + secrets.token_hex(8)
    with contextlib.ExitStack() as stack:
        socks = []
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET):
            s = stack.enter_context(socket.socket(socket.AF_UNIX, kind))
            with contextlib.suppress(OSError):  # one name for the three kinds: the first has it
                s.bind("\0" + name + ("" if kind == socket.SOCK_STREAM else str(int(kind))))
                if kind != socket.SOCK_DGRAM:
                    s.listen(8)
                s.setblocking(False)
                socks.append(s)
        said = "".join(world.attack(mallory, "abstract", name + end) for end in ("", "2", "5"))
        for s in socks:
            with contextlib.suppress(BlockingIOError):
                s.recv(10) if s.type == socket.SOCK_DGRAM else s.accept()
                attack.changed("the host's abstract socket was reached: " + said)
    assert said.count("tried") == 3 and "connected" not in said, said


def test_proc_of_others(world, mallory, alice):
    """/proc shows nobody else: neither by number nor by name."""
    mark = "hvmm-canary-" + secrets.token_hex(8)
    with watched(mark) as w, world.beside(alice, "env", "CANARY=" + mark, "sh", "-c", "echo up; cat", ready=b"up",
                                          who="alice"):
        others = [w.pid, *world.pids(alice), *world.pids(alice, "m"), *world.pids(mallory, "m"), world.pid]
        said = world.attack(mallory, "look", mark[:20] + "+" + mark[20:], *map(str, others))
    found = [x for x in re.findall(r"^found (\S+)", said, re.M)]
    if found:
        attack.changed("processes of others show: %s" % found)
    assert int(re.search(r"saw (\d+)", said)[1]) < 10, said


def test_signals_out_of_the_namespace(world, mallory, alice):
    """To every number, by kill, tkill and pidfd, and to groups: the host's and the neighbour's live on."""
    mark = "hvmm-canary-" + secrets.token_hex(8)
    with watched(mark) as w, \
            world.beside(alice, "sh", "-c", "trap 'echo signal' USR1; echo up; cat; echo over", ready=b"up",
                         who="alice") as heard:
        firsts = {c: world.first_pid(c) for c in (mallory, alice)}
        others = [w.pid, world.pid, *world.pids(alice), *world.pids(alice, "m"), *world.pids(mallory, "m")]
        said = world.attack(mallory, "signals", *map(str, others))
        assert "sent" in said, said
    if "signal" in heard[0] or "over" not in heard[0]:
        attack.changed("a neighbour's process got a signal: " + heard[0])
    if {c: world.first_pid(c) for c in (mallory, alice)} != firsts:
        attack.changed("a first process was ended")


def test_what_is_counted_by_user(world, mallory, alice):
    """Pages in pipes are counted by the host's uid: one tenant's are his own, the neighbour still gets hers."""
    with world.beside(mallory, attack.TOOL, "hoard", ready=b"\n") as said:
        with world.beside(alice, attack.TOOL, "hoard", ready=b"\n", who="alice") as others:
            pass
    mine, theirs = (int(re.search(r"holding (\d+)", x[0])[1]) for x in (said, others))
    assert mine > 10
    if theirs < mine // 2:
        attack.changed("a neighbour gets %d large pipes while another holds %d" % (theirs, mine))


def test_core_pattern(world, mallory, canary):
    """A crash inside starts nothing on the host and leaves nothing there, whatever its core_pattern is."""
    pattern = open("/proc/sys/kernel/core_pattern", encoding="utf-8").read()
    cwd = set(os.listdir("/"))
    said = world.sh(mallory, "ulimit -Hc; ulimit -c unlimited; attack spoil '|/bin/touch %s/x' /proc/sys/kernel/core_pattern;"
                             "mkdir -p /tmp/c; cd /tmp/c; (kill -SEGV $(exec sh -c 'echo $PPID')); ls /tmp/c" % canary.empty)
    assert "WROTE" not in said and "core" not in said.split("refused")[1].split("\n", 1)[1], said
    if open("/proc/sys/kernel/core_pattern", encoding="utf-8").read() != pattern:
        with open("/proc/sys/kernel/core_pattern", "w", encoding="utf-8") as f:
            f.write(pattern)
        attack.changed("the host's core_pattern was written")
    assert set(os.listdir("/")) == cwd


def test_core_pipe(world, mallory, canary):
    """On a host that hands crashes to a program of its own, which would be root's: those inside are none of
    them, whatever limit they have set themselves."""
    log, helper = canary.dir.parent / (canary.dir.name + ".log"), canary.dir.parent / (canary.dir.name + ".core")
    ours = "/proc/%d/root" % os.getpid()  # the kernel looks from where the first process of the machine is
    helper.write_text('#!/bin/sh\necho "$1 " >> %s%s\n' % (ours, log))
    helper.chmod(0o755)
    lock = open("/run/hvmm-core-pattern.lock", "w")  # one for the machine: who runs beside us waits
    fcntl.flock(lock, fcntl.LOCK_EX)
    with open("/proc/sys/kernel/core_pattern", encoding="utf-8") as f:
        pattern = f.read()
    crash = "kill -SEGV $(exec sh -c 'echo $PPID')"

    def set_pattern(text):
        with open("/proc/sys/kernel/core_pattern", "w", encoding="utf-8") as f:
            f.write(text)
    try:
        set_pattern("|%s%s %%u" % (ours, helper))
        world.sh(mallory, "for l in 0 1 unlimited; do (ulimit -c $l; %s); (ulimit -Sc $l; %s); done" % (crash, crash))
        subprocess.run(["prlimit", "--core=0", "/bin/sh", "-c", "kill -SEGV $$"], check=False)
        end = time.monotonic() + 10
        while not log.exists():  # one of the host's own, behind those
            assert time.monotonic() < end, "this host runs no core_pattern pipe"
            time.sleep(0.05)
    finally:
        set_pattern(pattern)
        lock.close()
        said = log.read_text() if log.exists() else ""
        for f in (helper, log):
            f.unlink(missing_ok=True)
    if any(0x50000000 <= int(uid) < 0x60000000 for uid in said.split()):
        attack.changed("a program of the host's was run for a crash inside: %s" % said)


# ---- starting and stopping while all of that goes on

STARTS, AT_ONCE = attack.tries(1000), 20


def come_and_go(node, names, program):
    """All of them run, and are gone."""
    for name in names:
        node.assign(name, program, image="attack", container_disk_gib=1)
    waiting = set(names)
    while waiting:
        m, _ = node.recv(60)
        assert m.get("state") != "backoff", m
        if m.get("cluster") in waiting and m.get("state") in ("running", "exited"):
            waiting.discard(m["cluster"])
    for name in names:
        node.send({"type": "tombstone", "cluster": name, "generation": 1 << 40})
    waiting = set(names)
    while waiting:
        m, _ = node.recv(60)
        if m.get("cluster") in waiting and m.get("state") == "terminated":
            waiting.discard(m["cluster"])
            node.send({"type": "forget", "cluster": m["cluster"]})


@pytest.mark.limit(400)
def test_thousand_starts_while_attacking(canary):
    """1,000 clusters come and go, 20 at a time, each of which attacks as long as it lives, beside one
    that forks, looks and signals all the time; nothing stays behind and nothing outside changes."""
    mark = "hvmm-canary-" + secrets.token_hex(8)
    with attack.World({"engine": {"pool_networks": 4, "pool_disks": 4}}) as w, watched(mark) as outside:
        forever = "while :; do attack signals %d; attack look %s | grep found; done" % (
            outside.pid, mark[:20] + "+" + mark[20:])
        c = w.rent(dockerArgs=json.dumps({"cmd": ["sh", "-c", forever]}))
        with our_node(w) as node:
            program = ["sh", "-c", "attack leak %s; attack surface /tmp; exec sleep 100000" % canary.file]
            begin = time.monotonic()
            for first in range(0, STARTS, AT_ONCE):
                come_and_go(node, ["atk%05d" % (first + i) for i in range(AT_ONCE)], program)
            print("%d starts and stops in %.1f s" % (STARTS, time.monotonic() - begin))
        end = time.monotonic() + 60
        while w.rest("GET", "/health").status_code != 200:  # the API has its place again
            assert time.monotonic() < end
            time.sleep(0.05)
        log = w.rest("GET", "/v1/clusters/%s/logs" % c, key=w.keys["mallory"]).text
        if "found /proc" in log:
            attack.changed("processes of others show: " + log[-300:])
        assert "sent" in log
        w.end(c)
        w.wait_released()
        canary.check(log, w.log_text())
