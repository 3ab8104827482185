"""Container runtimes' holes of the last years, tried on ours: as root inside, and as an image."""
import hashlib
import json
import os
import re
import shutil
import subprocess

import pytest

import attack
import host as host_
from attack import image, layer
from ocimake import Image, Layer

PROGRAMS = ["hypervisor-vmm", "tensorone-api"] + sorted(p.name for p in host_.BUILD.glob("vmm-*") if p.is_file())


# ---- CVE-2019-5736

@pytest.fixture
def own_programs(tmp_path_factory):
    """A host on copies of our programs, which end with a mark: nothing else may ever be spoiled."""
    folder = tmp_path_factory.mktemp("programs")
    os.chmod(folder, 0o755)
    marked = {}
    for name in PROGRAMS:
        shutil.copy(host_.program(name), folder / name)
        with open(folder / name, "ab") as f:
            f.write(("\n" + "HVMM-CANARY %s" % name).ljust(64).encode())
        marked[name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    with attack.World(programs=folder) as w:
        yield w, folder
    for name, digest in marked.items():
        if hashlib.sha256((folder / name).read_bytes()).hexdigest() != digest:
            attack.changed("the host's program %s was overwritten" % name)


def test_cve_2019_5736_overwriting_the_hosts_binary(own_programs):
    """A thief looks at every process that joins the cluster, by the thousand, while sessions begin
    that try to run the program they come from; PATH makes the way to execve long."""
    w, _ = own_programs
    cluster = w.rent()
    w.sh(cluster, "printf '#!/proc/self/exe\\n' > /bin/trap; chmod 755 /bin/trap; ln -s /proc/self/exe /bin/link")
    long_path = "PATH=" + ":".join("/no/%d" % i for i in range(400)) + ":/bin"
    sessions = 0
    with w.beside(cluster, attack.TOOL, "thief", "/stop", ready=b"looking", stop="/stop") as said:
        for _ in range(max(3, attack.tries(25))):
            for argv, more in ((["/proc/self/exe"], {}), (["/bin/trap"], {}), (["/bin/link"], {}),
                               (["true"], {"env": long_path})):
                out = w.inside(cluster, *argv, **more)
                assert "HVMM" not in out, out
                sessions += 1
    assert re.search(r"looked at \d{3,}", said[0]), said[0]
    if "program " in said[0]:
        attack.changed("the host's program was opened from inside: " + said[0])
    print("%d sessions, the thief %s" % (sessions, said[0].split("\n")[-2]))
    for entry in (["/proc/self/exe"], ["/bin/entry"]):
        w.add_image("exe", Image([layer().file("bin/entry", b"#!/proc/self/exe\n", mode=0o755).tar()],
                                 config={"Cmd": entry}))
        c = w.rent(imageName="exe", wait=False)
        assert "exe" in w.ended(c)["reason"] or "entry" in w.ended(c)["reason"]
        w.end(c)


# ---- CVE-2024-21626

def test_cve_2024_21626_leaked_fds_and_cwd(world, caged, canary):
    """A working directory, a program and an interpreter by way of each descriptor that could be open."""
    target = str(canary.file)
    out = world.attack(caged, "leak", target)
    canary.check(out)
    assert "open 0\n" in out, "descriptors beside the standard ones: " + out
    for n in attack.some(range(3, 40)):
        for cwd in ("/proc/self/fd/%d" % n, "/proc/1/fd/%d" % n):
            canary.check(world.attack(caged, "leak", target, cwd=cwd))
    for n in attack.some(range(3, 40)):
        via = "/proc/self/fd/%d%s" % (n, "/.." * 12)
        world.sh(caged, "printf '#!%s/bin/cat %s\\n' > /tmp/interp; chmod 755 /tmp/interp" % (via, target))
        canary.check(world.inside(caged, "/tmp/interp"),
                     world.inside(caged, via + "/bin/cat", via + target))


def test_cve_2024_21626_as_an_image(world, canary):
    """The original: the image's working directory is one of the runtime's descriptors."""
    clusters = {}
    for n in attack.some([*range(3, 11), 24]):
        world.add_image("cwd", image(cmd=[attack.TOOL, "leak", str(canary.file)], WorkingDir="/proc/self/fd/%d" % n))
        clusters[n] = world.rent(imageName="cwd", wait=False)
    reasons = {n: world.ended(c)["reason"] for n, c in clusters.items()}
    canary.check(*(log_of(world, c) for c in clusters.values()))
    for n, c in clusters.items():
        assert "working directory /proc/self/fd/%d" % n in reasons[n]
        world.end(c)


def log_of(world, cluster):
    return world.rest("GET", "/v1/clusters/%s/logs" % cluster, key=world.keys["mallory"]).text


def test_cve_2024_21626_first_process(world, profile, canary):
    """What the first process finds open, in each profile: nothing but what it writes to."""
    c = world.rent(dockerArgs=json.dumps({"cmd": [attack.TOOL, "leak", str(canary.file)]}), wait=False,
                   securityProfile=profile)
    world.ended(c)
    world.until_any(c, "mallory", lambda _: "open " in log_of(world, c))
    canary.check(log_of(world, c))
    assert "open 0\n" in log_of(world, c)
    world.end(c)


# ---- CVE-2021-30465

def test_cve_2021_30465_mount_races(tmp_path):
    """10,000 mounts by the functions that mount into a cluster's root, while a neighbour process
    turns a directory on the way into links that lead out and back."""
    tries = attack.tries(10000)
    done = subprocess.run([attack.program("race"), str(tmp_path), str(tries)], capture_output=True, text=True,
                          timeout=100, check=False)
    print(done.stdout)
    counts = {k: int(v) for k, v in re.findall(r"(\w+) (\d+)", done.stdout.split("\n")[-2])}
    assert done.returncode == 0 and counts["inside"] + counts["refused"] + counts["outside"] == tries, done.stdout
    if counts["outside"] or counts["canary"]:
        attack.changed("mounts of a cluster came to lie on the host: " + done.stdout)
    assert counts["inside"] > 50 and counts["refused"] > 50, "both places were met: " + done.stdout


def test_cve_2021_30465_in_a_cluster(world, mallory, canary):
    """The same with what makes directories in a cluster that runs: sessions and their working directory."""
    stop = "/tmp/stop-race"
    with world.beside(mallory, attack.TOOL, "swap", "/tmp/b", str(canary.empty), stop, ready=b"swapping",
                      stop=stop) as said:
        for i in range(attack.tries(100)):
            world.inside(mallory, "touch", "here", cwd="/tmp/b/%d" % i)
    assert int(re.search(r"swapped (\d+)", said[0])[1]) > attack.tries(1000), said[0]
    canary.check(said[0])


@pytest.mark.parametrize("where", ["{c}", "/../../../../../..{c}", "/proc/self/root{c}", "/proc/1/cwd{c}"])
def test_cve_2021_30465_volume_behind_links(world, canary, where):
    """The volume's place in the image is a link to the host's directory of that name."""
    to = where.format(c=canary.empty)
    world.add_image("links", image(Layer().symlink("data", to).tar()))
    c = world.rent(imageName="links", wait=False, volumeInGb=1, volumeMountPath="/data/deep/er")
    world.until(c, "mallory", lambda x: x["runtime"] or x["reason"])
    if world.cluster(c, key=world.keys["mallory"])["runtime"]:
        world.sh(c, "echo spoiled > /data/deep/er/spoiled; echo spoiled > %s/spoiled" % canary.empty)
    world.end(c)
    canary.check()


# ---- CVE-2025-31133, -52565, -52881: what masks are made of, and where procfs writes go

# Files of the host's that say something of the host, or change it; and the sysctl that a write would show in
MASKED = ("/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/partitions", "/proc/diskstats",
          "/proc/locks", "/proc/buddyinfo", "/proc/schedstat", "/proc/softirqs")
SYSCTL = "/proc/sys/kernel/poweroff_cmd"


def lines_of_the_host(path):
    """What makes the file the host's, whatever moment it is read at: the names in it."""
    try:
        with open(path, encoding="utf-8", errors="replace") as f:
            return {w for w in re.findall(r"[A-Za-z][A-Za-z0-9_-]{5,}", f.read(1 << 16))}
    except OSError:
        return set()


def check_masks(world, cluster, canary):
    """Through what the image or the tenant prepared, no masked file shows and no sysctl takes a word."""
    before = open(SYSCTL, encoding="utf-8").read()
    for path in MASKED:
        out = world.sh(cluster, "head -c 65536 %s" % path)
        shown = lines_of_the_host(path) & set(re.findall(r"[A-Za-z][A-Za-z0-9_-]{5,}", out)) - {"Permission",
                                                                                          "denied", "permitted"}
        if len(shown) > 3:
            attack.changed("the host's %s was read: %s" % (path, sorted(shown)[:5]))
    # what it has already: if the write arrives, the canary changes by its time alone
    world.attack(cluster, "spoil", before.strip() + " ", SYSCTL, "/proc/sys/kernel/core_pattern.no-such",
                 "/proc/self/root/proc/sys/kernel/poweroff_cmd", "/dev/null")
    if open(SYSCTL, encoding="utf-8").read() != before:
        with open(SYSCTL, "w", encoding="utf-8") as f:
            f.write(before)
        attack.changed("a sysctl of the host's was written")
    canary.check()


def test_cve_2025_31133_masked_paths(world, profile, canary):
    """Masks are made of /dev/null: root inside takes that away, puts links and its own in its place,
    and has sessions begin."""
    for trick in ("true", "rm -f /dev/null; ln -s /proc/sysrq-trigger /dev/null",
                  "rm -f /dev/null; ln -s %s /dev/null" % SYSCTL, "rm -f /dev/null; echo own > /dev/null",
                  "rm -rf /dev/null; mkdir /dev/null"):
        cluster = world.rent(securityProfile=profile)
        world.sh(cluster, trick)
        check_masks(world, cluster, canary)
        world.end(cluster)


@pytest.mark.parametrize("trap", attack.some(["console", "null", "tty", "fd", "ptmx", "pts", "shm"]))
def test_cve_2025_52565_dev_of_the_image(world, canary, trap):
    """/dev of the image has links to the host's files where ours are mounted or written."""
    world.add_image("dev", image(Layer().dir("dev").symlink("dev/" + trap, str(canary.file)).tar()))
    c = world.rent(imageName="dev")
    for tty in ("0", "1"):
        out = world.inside(c, "sh", "-c", "echo spoiled; attack show /dev/%s /dev/console; ls -l /dev" % trap, tty=tty)
        canary.check(out)
    check_masks(world, c, canary)
    world.end(c)


@pytest.mark.parametrize("files", [
    {"proc": "/tmp/p"}, {"proc": "/"}, {"proc": "/sys"}, {"sys": "/proc"}, {"proc/self": "/tmp"}, {"tmp/p": "/proc"},
    {"etc/hosts": SYSCTL, "etc/hostname": SYSCTL, "etc/resolv.conf": "/proc/sysrq-trigger",
     "etc/profile.d": "/proc/sys/kernel"}])
def test_cve_2025_52881_procfs_write_redirect(world, canary, files):
    """Our own writes into the root (names, variables, labels) are led into procfs by the image's links."""
    tree = Layer()
    for path, to in files.items():
        tree.symlink(path, to)
    world.add_image("redirect", image(tree.tar()))
    before = open(SYSCTL, encoding="utf-8").read()
    c = world.rent(imageName="redirect", wait=False)
    seen = world.until(c, "mallory", lambda x: x["runtime"] or x["reason"])
    if seen["runtime"]:
        check_masks(world, c, canary)
    else:
        print(seen["reason"])
    if open(SYSCTL, encoding="utf-8").read() != before:
        attack.changed("a sysctl of the host's was written")
    world.end(c)


# ---- CVE-2026-41579, -47766: /dev is a link

@pytest.mark.parametrize("name", ["dev", "proc", "sys"])
@pytest.mark.parametrize("to", attack.some(["{c}", "../../../../..{c}", "/proc/self/root{c}", "/proc/self/fd/3", "/tmp", "."]))
def test_cve_2026_41579_47766_dev_as_a_link(world, canary, name, to):
    world.add_image("devlink", image(Layer().symlink(name, to.format(c=canary.empty)).tar()))
    c = world.rent(imageName="devlink", wait=False)
    seen = world.until(c, "mallory", lambda x: x["runtime"] or x["reason"])
    assert seen["runtime"] is None and "image: /%s is not a directory of its own" % name in seen["reason"], seen
    canary.check()
    world.end(c)


# ---- CVE-2022-27650, -2026-30892: who a session is

def test_cve_2022_27650_2026_30892_exec_identity(world, caged):
    """A session of somebody else's has that one's rights and no more: the byte that only root may
    read stays root's, whatever the file capabilities in the image say."""
    secret = "roots-own-byte"
    world.sh(caged, "echo %s > /dev/shm/only; chmod 600 /dev/shm/only; echo %s > /dev/shm/group; chmod 640 /dev/shm/group"
             % (secret, secret))
    for user, want in (("user", "1000 1000"), ("1000", "1000 1000"), ("4711:4712", "4711 4712"), ("4711", "4711 0")):
        out = world.inside(caged, "sh", "-c", "cat /dev/shm/only; grep -E '^(Cap|Uid|Gid|Groups)' /proc/self/status",
                           user=user)
        if secret in out:
            attack.changed("root's byte was read by user %s" % user)
        if want.split()[1] != "0" and secret in world.inside(caged, "cat", "/dev/shm/group", user=user):
            attack.changed("the group's byte was read by user %s" % user)
        caps = dict(re.findall(r"^Cap(\w+):\s+(\w+)$", out, re.M))
        assert int(caps["Inh"], 16) == int(caps["Prm"], 16) == int(caps["Eff"], 16) == int(caps["Amb"], 16) == 0, out
        assert out.split("Uid:")[1].split()[0] + " " + out.split("Gid:")[1].split()[0] == want, out
    out = world.inside(caged, "grep", "-E", "^Cap|^Seccomp:|^NoNew", "/proc/self/status")
    first = world.inside(caged, "grep", "-E", "^Cap|^Seccomp:|^NoNew", "/proc/1/status")
    assert out == first, "a session has what the first process has"


@pytest.mark.parametrize("profile", ["standard", "strict"])
def test_set_id_programs_give_nothing(world, canary, profile):
    """A set-user-id root program and file capabilities of the image, run by another user: nosuid and
    no_new_privs each keep root's byte."""
    tool = layer().tar()
    with open(attack.program(), "rb") as f:
        data = f.read()
    caps = bytes.fromhex("0100000206000000060000000000000000000000")  # DAC_OVERRIDE, DAC_READ_SEARCH: pi, e
    extra = Layer().file("bin/suid", data, mode=0o4755).file("bin/caps", data, mode=0o755,
                                                             xattrs={"security.capability": caps})
    world.add_image("suid", Image([tool, extra.file("only", canary.secret.encode(), mode=0o600).tar()],
                                  config={"Cmd": ["/bin/sleep", "100000"], "Env": ["PATH=/bin"]}))
    c = world.rent(imageName="suid", securityProfile=profile)
    for name in ("attack", "suid", "caps"):
        out = world.inside(c, "/bin/" + name, "show", "/only", user="1000")
        if canary.secret in out:
            attack.changed("root's byte was read by user 1000 through /bin/%s" % name)
        assert "refused /only" in out, out
    world.end(c)
