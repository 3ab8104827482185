"""What a cluster's AppArmor profile refuses and what it leaves, asked of the kernel itself.

Between two clusters stand namespaces, ids, seccomp and mounts, so that AppArmor is hardly ever asked.
Here it is asked alone: helpers of the host's root, with every right and in the host's namespaces, run
under the profile of a cluster and try what the cluster must not do even then."""
import os
import pathlib
import re
import subprocess
import time

# A helper: takes the profile that is its first argument at its second execve.
UNDER = r"""
import os, sys
with open("/proc/self/attr/apparmor/exec", "w") as f:
    f.write("exec " + sys.argv[1])
os.execv(sys.argv[2], sys.argv[2:])
"""
TRACE = r"""
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
r = libc.ptrace(0x4206, int(sys.argv[1]), 0, 0)  # PTRACE_SEIZE
print("traced" if r == 0 else os.strerror(ctypes.get_errno()))
"""
# Takes the profile, enters the mounts of the process, makes its /proc/sys writable, or read-only again, and
# goes on as a program of the cluster's.
UNMASKED = r"""
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def check(r):
    if r < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
with open("/proc/self/attr/apparmor/exec", "w") as f:
    f.write("exec " + sys.argv[1])
check(libc.setns(os.open("/proc/%s/ns/mnt" % sys.argv[2], os.O_RDONLY), 0))
flags = 0x102e | (sys.argv[3] == "ro")  # MS_BIND | MS_REMOUNT | MS_NOSUID | MS_NODEV | MS_NOEXEC
check(libc.mount(None, b"/proc/sys", None, ctypes.c_ulong(flags), None))
os.execv(sys.argv[4], sys.argv[4:])
"""
SCOPE = "/proc/sys/kernel/yama/ptrace_scope"


def read(path):
    return pathlib.Path(path).read_text(errors="replace").strip()


def profile(pid):
    return read("/proc/%d/attr/apparmor/current" % pid).split()[0]


def under(name, *argv, **kwargs):
    return subprocess.run(["/usr/bin/python3", "-c", UNDER, name, *argv], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=False, **kwargs).stdout.strip()


def kernel_log():
    return subprocess.run(["dmesg"], stdout=subprocess.PIPE, text=True, check=True).stdout


def denied(before, **fields):
    """The line of the kernel's log that says so, come since @before lines of it."""
    want = ['apparmor="DENIED"'] + ['%s="%s"' % pair for pair in fields.items()]
    end = time.monotonic() + 20
    while True:
        lines = kernel_log().splitlines()[before:]
        for line in lines:
            if all(word in line for word in want):
                return re.sub(r"^.*?apparmor=", "apparmor=", line)
        assert time.monotonic() < end, (want, [x for x in lines if "apparmor" in x])
        time.sleep(0.1)


def mark():
    return len(kernel_log().splitlines())


def signals(mine, mine_pid, theirs, theirs_pid):
    start = mark()
    out = under(mine, "/bin/sh", "-c", "kill -CONT %d && echo sent" % theirs_pid)
    assert "sent" not in out and "Permission denied" in out, out
    line = denied(start, operation="signal", profile=mine, peer=theirs)
    out = under(mine, "/bin/sh", "-c", "kill -CONT %d && echo sent" % mine_pid)
    assert out == "sent", out
    # and out of a cluster, to what is not confined: the tests themselves
    out = under(mine, "/bin/sh", "-c", "kill -CONT %d && echo sent" % os.getpid())
    assert "sent" not in out, out
    denied(start, operation="signal", profile=mine, peer="unconfined")
    return line


def ptrace(mine, mine_pid, theirs, theirs_pid):
    """By one who has the other's ids, as root of its user namespace."""
    start, scope = mark(), read(SCOPE)
    pathlib.Path(SCOPE).write_text("0")  # Yama would say no to everybody
    try:
        def ask(pid, *argv, name=mine):
            return subprocess.run(["nsenter", "-t", str(pid), "-U", "/usr/bin/python3", "-c", UNDER,
                                   name, *argv], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                  text=True, check=False).stdout.strip()
        out = ask(theirs_pid, "/usr/bin/python3", "-c", TRACE, str(theirs_pid))
        assert out == "Permission denied", out
        line = denied(start, operation="ptrace", profile=mine, peer=theirs)
        out = ask(theirs_pid, "/bin/cat", "/proc/%d/maps" % theirs_pid)
        assert "Permission denied" in out, out
        out = ask(mine_pid, "/usr/bin/python3", "-c", TRACE, str(mine_pid))
        assert out == "traced", out
        out = ask(mine_pid, "/bin/cat", "/proc/%d/maps" % mine_pid)
        assert "[stack]" in out, out
        # a strict cluster's own: seen, not traced
        out = ask(theirs_pid, "/usr/bin/python3", "-c", TRACE, str(theirs_pid), name=theirs)
        assert out == "Permission denied", out
        out = ask(theirs_pid, "/bin/cat", "/proc/%d/maps" % theirs_pid, name=theirs)
        assert "[stack]" in out, out
        return line
    finally:
        pathlib.Path(SCOPE).write_text(scope)


def writes(mine):
    """Paths and mounts, by a root that has all capabilities of the host's."""
    lines = []
    for path, text in (("/proc/sys/kernel/core_pattern", "|/bin/evil"), ("/proc/sysrq-trigger", "h"),
                       ("/sys/kernel/uevent_helper", "/bin/evil"), ("/proc/self/uid_map", "0 0 1")):
        start = mark()
        before = read(path) if "sysrq" not in path and os.path.exists(path) else None
        if not os.path.exists(path):
            continue
        out = under(mine, "/bin/sh", "-c", "echo '%s' > %s && echo written" % (text, path))
        assert "written" not in out and "Permission denied" in out, (path, out)
        lines.append(denied(start, operation="open", profile=mine))
        assert before is None or "self" in path or read(path) == before
    start = mark()
    out = under(mine, "/usr/bin/unshare", "-m", "/bin/true")
    assert "ermission denied" in out or "not permitted" in out, out  # CAP_SYS_ADMIN is not in it
    lines.append(denied(start, operation="capable", profile=mine, capname="sys_admin"))
    return lines


def mounts(mine, pid):
    """In a mount namespace of its own, made for it before."""
    start = mark()
    done = subprocess.run(["unshare", "-m", "/usr/bin/python3", "-c", UNDER, mine, "/bin/mount", "-t",
                           "tmpfs", "x", "/mnt"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, check=False)
    assert done.returncode != 0, done
    mount = denied(start, operation="mount", profile=mine, name="/mnt/")
    # /proc/sys is read-only inside; without that, the profile says no
    def unmasked(how, command):
        return subprocess.run(["/usr/bin/python3", "-c", UNMASKED, mine, str(pid), how, "/bin/sh", "-c",
                               command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              check=False).stdout
    out = unmasked("rw", "echo 7 > /proc/sys/net/ipv4/ip_default_ttl && echo written")
    assert unmasked("ro", "echo done") == "done\n"
    assert "written" not in out and "Permission denied" in out, out
    return [mount, denied(start, operation="open", profile=mine,
                          name="/proc/sys/net/ipv4/ip_default_ttl")]


def inside(host, cluster, mine):
    """From inside, where only AppArmor refuses: the file is its own and may be opened by its mode."""
    start = mark()
    out = host.exec(cluster, "sh", "-c", "exec 3> /proc/self/uid_map && echo opened", check=False)
    assert "opened" not in out.stdout and "ermission denied" in out.stderr, out
    line = denied(start, operation="open", profile=mine)
    # and what every server does, works
    out = host.exec(cluster, "sh", "-c", """
        set -e
        sleep 100 & kill $!; cat /proc/self/maps > /dev/null
        (exec 9<> /tmp/f; rm /tmp/f; echo x >&9; cat /proc/self/fd/9)
        cp /bin/busybox /tmp/busybox; /tmp/busybox true; echo 100 > /proc/self/oom_score_adj; ln -s a /tmp/b
        chown 1:1 /tmp/busybox; echo fine""").stdout
    assert out.endswith("fine\n"), out
    return line


def best_ms(times, call):
    """Of several rounds, since the machine that emulates this one has other work."""
    took = []
    for _ in range(times):
        start = time.monotonic()
        call()
        took.append(time.monotonic() - start)
    return 1000 * min(took)


def cost(host, mine):
    """AppArmor's share on this machine: of a slot's preparation, and of a program's life under it."""
    (kept,) = pathlib.Path(host.data, "apparmor").glob("*-" + mine)
    binary, kernel = kept.read_bytes(), "/sys/kernel/security/apparmor/.replace"
    mounted = os.path.exists(kernel)
    if not mounted:
        subprocess.run(["mount", "-t", "securityfs", "x", "/sys/kernel/security"], check=True)
    load = best_ms(5, lambda: pathlib.Path(kernel).write_bytes(binary))
    if not mounted:
        subprocess.run(["umount", "/sys/kernel/security"], check=True)
    work = "i=0; while [ $i -lt 100 ]; do /bin/true < /etc/hostname; i=$((i+1)); done"
    plain = best_ms(3, lambda: subprocess.run(["/bin/sh", "-c", work], check=True))
    held = best_ms(3, lambda: under(mine, "/bin/sh", "-c", work))
    none = best_ms(3, lambda: under("unconfined", "/bin/sh", "-c", ":"))
    return "loading %.2f ms, %d bytes; 100 programs %.0f ms without, %.0f ms under a profile" % (
        load, len(binary), plain, held - none)


def enforced(host, one, two):
    """@two is a strict one.  Lines of the kernel's log, one for each kind."""
    # ten lines in five seconds are too few for what is asked here
    pathlib.Path("/proc/sys/kernel/printk_ratelimit").write_text("0")
    mine_pid, theirs_pid = host.first_pid(one), host.first_pid(two)
    mine, theirs = profile(mine_pid), profile(theirs_pid)
    assert mine == "hvmm-%d" % host.slot(one), mine
    assert theirs == "hvmm-%d-strict" % host.slot(two), theirs
    return [signals(mine, mine_pid, theirs, theirs_pid), ptrace(mine, mine_pid, theirs, theirs_pid),
            *writes(mine), *mounts(mine, mine_pid), inside(host, one, mine),
            cost(host, mine)]
