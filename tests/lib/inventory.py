"""What hypervisor-vmm has on this host, as sets that can be compared.

    before = inventory.take([data_dir])
    ...
    inventory.assert_same(before, [data_dir])

Only things that are ours by name or by place are listed, so that the rest of the machine may do as
it likes meanwhile; what is listed must be the same again afterwards."""
import glob
import json
import os
import re
import subprocess
import time

RUN = "/run/hypervisor-vmm"
PROGRAMS = re.compile(r"^(hypervisor-vmm|vmm-[a-z]+|tensorone-api|hvmm-op)$")
LINK = re.compile(r"^hv(x|-)?[0-9a-z]+$")
SYSCTLS = ("net/ipv4/ip_forward", "net/ipv4/conf/all/send_redirects",
           "net/ipv4/conf/all/rp_filter", "net/ipv4/conf/all/route_localnet",
           "net/ipv4/conf/default/rp_filter", "net/ipv6/conf/all/forwarding",
           "kernel/keys/maxkeys", "kernel/pid_max", "fs/inotify/max_user_instances",
           "user/max_user_namespaces", "vm/overcommit_memory")


def read(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as f:
            return f.read()
    except OSError:
        return ""


def unescape(field):
    """Octal escapes of /proc/PID/mountinfo."""
    return re.sub(r"\\([0-7]{3})", lambda m: chr(int(m.group(1), 8)), field)


def pids():
    return [int(d) for d in os.listdir("/proc") if d.isdigit()]


def below(path, dirs):
    return any(path == d or path.startswith(d.rstrip("/") + "/") for d in dirs)


def mounts(dirs):
    """(mount namespace, mount point, type, source) of what is mounted on or from our directories,
    in every mount namespace that a process is in."""
    found, seen = set(), set()
    for pid in ["self"] + pids():
        try:
            ns = os.readlink(f"/proc/{pid}/ns/mnt")
        except OSError:
            continue
        if ns in seen:
            continue
        seen.add(ns)
        for line in read(f"/proc/{pid}/mountinfo").splitlines():
            head, _, tail = line.partition(" - ")
            if not tail:
                continue
            root, point = (unescape(f) for f in head.split()[3:5])
            kind, source = tail.split()[0], unescape(tail.split()[1])
            if below(point, dirs) or below(root, dirs) or below(source, dirs) or any(
                    f"={d}" in tail or f":{d}" in tail for d in dirs):
                found.add((ns, point, kind, source))
    return found


def processes():
    """(name, pid, start time): a pid that was given to another is another process."""
    found = set()
    for pid in pids():
        stat = read(f"/proc/{pid}/stat")
        name, rest = stat[stat.find("(") + 1:stat.rfind(")")], stat[stat.rfind(")") + 2:].split()
        if PROGRAMS.match(name) and len(rest) > 19 and rest[0] != "Z":  # dead; init may be slow
            found.add((name, pid, int(rest[19])))
    return found


def engines():
    """(instance, pid, start time) of the engines that run."""
    found = set()
    for name, pid, start in processes():
        words = read(f"/proc/{pid}/cmdline").split("\0")
        if name == "hypervisor-vmm" and "--data-dir" in words[:-1]:
            instance = read(words[words.index("--data-dir") + 1] + "/instance").strip()
            found |= {(instance, pid, start)} if instance else set()
    return found


def belongs(kind, thing, instance):
    """Is this what an engine has for as long as it runs?"""
    return {"nft tables": lambda: thing[1] == f"hvmm_{instance}",
            "addresses": lambda: thing[2] == f"lo:hv-{instance}",
            "cgroups": lambda: thing.endswith(f"/hvmm-{instance}"),
            "run entries": lambda: thing == f"{instance}/node.sock"}.get(kind, lambda: False)()


def links():
    return {n for n in os.listdir("/sys/class/net") if LINK.match(n)}


def addresses():
    """(link, address, label) of addresses that carry our label or sit on our links."""
    out = subprocess.run(["ip", "-j", "address"], capture_output=True, text=True, check=True).stdout
    return {(link["ifname"], a["local"], a.get("label", "")) for link in json.loads(out)
            for a in link.get("addr_info", [])
            if LINK.match(link["ifname"]) or a.get("label", "").startswith("lo:hv-")}


def nft_tables():
    out = subprocess.run(["nft", "-j", "list", "tables"], capture_output=True, text=True,
                         check=True).stdout
    return {(t["table"]["family"], t["table"]["name"]) for t in json.loads(out)["nftables"]
            if "table" in t and t["table"]["name"].startswith("hvmm")}


def cgroups():
    """Our groups in every hierarchy, with all groups below them."""
    found = set()
    for line in read("/proc/self/mountinfo").splitlines():
        head, _, tail = line.partition(" - ")
        if not tail.startswith(("cgroup ", "cgroup2 ")):
            continue
        top = unescape(head.split()[4])
        for base, names, _ in os.walk(top):
            if any(part.startswith("hvmm-") for part in base.split("/")):
                found.add(base)
            elif base.count("/") - top.count("/") >= 4:
                names.clear()  # ours are not that deep in somebody else's
    return found


def loops(dirs):
    """(device, backing file) of loop devices over our files, deleted ones included."""
    found = set()
    for path in glob.glob("/sys/block/loop*/loop/backing_file"):
        backing = read(path).strip()
        if below(backing, dirs):
            found.add((path.split("/")[3], backing))
    return found


def named_namespaces():
    return {f"/run/netns/{n}" for n in (os.listdir("/run/netns") if os.path.isdir("/run/netns")
                                        else ()) if n.startswith("hv")}


def run_entries():
    """Claims, instances and saved settings below /run; not the files that only ever stay."""
    return {os.path.relpath(os.path.join(base, name), RUN) for base, _, files in os.walk(RUN)
            for name in files if name != "lock" and not name.startswith(".")}


def apparmor_profiles():
    """Names, without their modes; none where the kernel has no AppArmor or does not show it."""
    lines = read("/sys/kernel/security/apparmor/profiles").splitlines()
    return {line.split()[0] for line in lines if line.startswith("hvmm-")}


def sysctls():
    return {(name, read(f"/proc/sys/{name}").strip()) for name in SYSCTLS}


def take(dirs=()):
    """{kind: set}.  @dirs: data directories; /run/hypervisor-vmm is always looked at."""
    dirs = [os.path.realpath(d) for d in dirs] + [RUN]
    return {"mounts": mounts(dirs), "processes": processes(), "links": links(),
            "addresses": addresses(), "nft tables": nft_tables(), "cgroups": cgroups(),
            "loop devices": loops(dirs), "named namespaces": named_namespaces(),
            "run entries": run_entries(), "AppArmor profiles": apparmor_profiles(), "sysctls": sysctls(), "engines": engines()}


def compare(before, after, gone_ok=False):
    """Lines that say what came and what went; empty when nothing did.  @gone_ok: other hosts may end
    meanwhile, and an engine that starts sweeps what dead ones left, so of what is gone only that
    counts which an engine had that ran before and still runs."""
    lines = []
    still = {engine[0] for engine in before["engines"] & after["engines"]}
    for kind in before:
        if kind == "engines":
            continue  # they are among the processes
        gone = {x for x in before[kind] - after[kind]
                if not gone_ok or any(belongs(kind, x, i) for i in still)}
        lines += [f"{kind}: left behind: {x}" for x in sorted(after[kind] - before[kind], key=str)]
        lines += [f"{kind}: is gone: {x}" for x in sorted(gone, key=str)]
    return lines


def assert_same(before, dirs=(), wait_s=10.0, gone_ok=False):
    """Slow teardown may end after the answer, so give it @wait_s; then it is a leak.  @gone_ok: see
    compare()."""
    end = time.monotonic() + wait_s
    while True:
        lines = compare(before, take(dirs), gone_ok)
        if not lines:
            return
        if time.monotonic() >= end:
            raise AssertionError("this host is not as it was:\n  " + "\n  ".join(lines))
        time.sleep(0.1)
