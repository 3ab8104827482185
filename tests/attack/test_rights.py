"""What only one security profile takes away or gives: strict's debuggers, ports and read-only root,
compat's set-id programs and file capabilities.  All else is tried under each of them where it belongs."""
import os
import re
import struct

import pytest

import attack
from attack import layer
from ocimake import Image, Layer

CAP_NAMES = ("CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE "
             "NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT "
             "SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE "
             "AUDIT_WRITE AUDIT_CONTROL SETFCAP").split()
KEPT = {"CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "NET_BIND_SERVICE",
        "SYS_CHROOT", "SETFCAP"}
MAY_HAVE = {"standard": KEPT, "strict": KEPT - {"NET_BIND_SERVICE"}, "compat": KEPT | {"NET_RAW"}}
ALL = (1 << 41) - 1


def rows(said):
    return dict(re.findall(r"^([\w ]+): (\w+)$", said, re.M))


def caps_of(said):
    """{set: names} of a status that was shown."""
    sets = {}
    for name, bits in re.findall(r"^Cap(\w+):\s+(\w+)$", said, re.M):
        sets[name] = {n for i, n in enumerate(CAP_NAMES) if int(bits, 16) >> i & 1}
        assert int(bits, 16) < 1 << len(CAP_NAMES), said
    return sets


def check_caps(profile, said):
    """None that the policy does not name, in any set."""
    sets = caps_of(said)
    assert set(sets) == {"Inh", "Prm", "Eff", "Bnd", "Amb"}, said
    for name, have in sets.items():
        assert have <= MAY_HAVE[profile], "%s: %s" % (name, sorted(have - MAY_HAVE[profile]))
    return sets


def file_caps(bits, effective=True, rootid=None):
    """What `security.capability` holds: version 2, or 3 with the id that counts as root."""
    low, high = bits & 0xffffffff, bits >> 32
    version = 0x02000000 if rootid is None else 0x03000000
    tail = b"" if rootid is None else struct.pack("<I", rootid)
    return struct.pack("<5I", version | effective, low, low, high, high) + tail


# ---- capabilities

@pytest.mark.parametrize("user", ["", "1000"])
def test_capabilities_do_not_grow(world, caged, profile, user):
    """By capset, the inheritable and ambient sets, secure bits, and an execve."""
    said = world.attack(caged, "grow", user=user)
    sets = check_caps(profile, said)
    assert bool(sets["Prm"]) is (user == ""), said


# ---- strict

@pytest.mark.parametrize("user", ["", "1000"])
def test_debuggers(world, caged, profile, user):
    """Into one's own child: in strict by no call there is.  /proc/PID/mem is AppArmor's to close, and
    where that is not, the owner is told."""
    got = rows(world.attack(caged, "debug", user=user))
    calls = {"process_vm_readv", "process_vm_writev", "pidfd_getfd", "kcmp", "seize", "attach", "traceme"}
    assert set(got) == calls | {"mem read", "mem written"}
    assert {got[c] for c in calls} == ({"EPERM"} if profile == "strict" else {"ok"}), got
    security = world.gql('{ cluster(input: {clusterId: "%s"}) { security } }' % caged,
                         key=world.keys["mallory"])["cluster"]["security"]
    if profile == "strict" and "ok" in (got["mem read"], got["mem written"]):
        assert any(m.startswith("debuggers: ") for m in security["missing"]), got


@pytest.mark.parametrize("user", ["", "1000"])
def test_low_ports(world, caged, profile, user):
    """Each protocol that has ports, by number and by a range that the kernel chooses from."""
    got = rows(world.attack(caged, "ports", user=user))
    assert len(got) == 16, got
    opened = {n for n, r in got.items() if r == "ok"}
    if profile == "strict":
        assert not opened, got
    else:
        assert {"tcp", "udp", "tcp6", "udp6"} <= opened, got


def test_a_root_that_is_read_only(world, by_profile):
    """Nothing of the image's tree changes, by any call; the same do where it is writable."""
    answers = {}
    for profile in attack.PROFILES:
        c = by_profile(profile)
        before = world.sh(c, "stat -c '%n %a %u %s %Y' /etc /etc/group; cat /etc/group")
        answers[profile] = rows(world.attack(c, "rewrite", "/etc/group", "/etc"))
        if profile == "strict":
            assert world.sh(c, "stat -c '%n %a %u %s %Y' /etc /etc/group; cat /etc/group") == before
    assert "ok" not in answers["strict"].values(), answers["strict"]
    assert len(answers["strict"]) == 19 and answers["standard"]["write"] == "ok" == answers["compat"]["rename"]


# ---- compat: set-id programs and file capabilities count

ROOTS = "only"


@pytest.fixture(scope="module")
def set_id(world):
    """{profile: a cluster of an image with set-id programs and file capabilities}."""
    with open(attack.program(), "rb") as f:
        data = f.read()
    extra = Layer().file("bin/suid", data, mode=0o4755).file("bin/sgid", data, mode=0o2755) \
        .file("bin/caps", data, mode=0o755, xattrs={"security.capability": file_caps(1 << 1)}) \
        .file("bin/all", data, mode=0o755, xattrs={"security.capability": file_caps(ALL, effective=False)}) \
        .file("bin/must", data, mode=0o755, xattrs={"security.capability": file_caps(ALL)}) \
        .file("bin/others", data, mode=0o4755, uid=2000).file(ROOTS, b"the-byte-of-root", mode=0o600)
    world.add_image("setid", Image([layer().tar(), extra.tar()],
                                   config={"Cmd": ["/bin/sleep", "100000"], "Env": ["PATH=/bin"]}))
    return {p: world.rent(imageName="setid", securityProfile=p, volumeInGb=1, volumeMountPath="/v")
            for p in attack.PROFILES}


def as_user(world, cluster, program):
    """The status of that program when user 1000 runs it, and what it reads of root's."""
    return world.inside(cluster, program, "show", "/proc/self/status", "/" + ROOTS, user="1000")


@pytest.mark.parametrize("profile", attack.PROFILES)
@pytest.mark.parametrize("name", ["suid", "sgid", "caps", "all", "must", "others"])
def test_set_id_of_the_image(world, set_id, profile, name):
    """In compat a user becomes root of the cluster, with what the policy lets that have; elsewhere nothing."""
    said = as_user(world, set_id[profile], "/bin/" + name)
    if name == "must" and profile == "compat" and "CapEff" not in said:
        assert "403" in said, said  # it asks for more than there is to have, and cannot be run
        return
    sets = check_caps(profile, said)
    gains = profile == "compat" and name in ("suid", "caps")
    assert ("the-byte-of-root" in said) is gains, said
    if profile != "compat":
        assert not sets["Prm"] and "NoNewPrivs:\t1" in said and "Seccomp:\t2" in said, said
    assert "Seccomp:\t2" in said, said


@pytest.mark.parametrize("where, counts", [("/bin2", True), ("/v", True), ("/tmp", True), ("/dev/shm", False),
                                           ("/dev", False)])
def test_set_id_made_inside(world, set_id, where, counts):
    """Root inside makes them, on each kind of file system: what lies in memory of ours is nosuid, and on
    the host none of them is a set-id program of the host's own root."""
    c = set_id["compat"]
    copy = where + "/mine"
    said = world.sh(c, "mkdir -p %s; cp /bin/attack %s; chmod 4755 %s; attack setcap %s %s; ls -l %s; rm -f %s.caps; "
                       "cp /bin/attack %s.caps; attack setcap %s.caps %s" % (
                           where, copy, copy, copy, file_caps(1 << 12, effective=False).hex(), copy, copy, copy, copy,
                           file_caps(ALL, effective=False).hex()))
    assert "-rwsr-xr-x" in said, said
    said = as_user(world, c, copy)
    assert ("the-byte-of-root" in said) is counts, said
    if "CapEff" in said:
        check_caps("compat", said)
    more = as_user(world, c, copy + ".caps")
    if "CapEff" in more:
        check_caps("compat", more)
    seen = os.stat("/proc/%d/root%s" % (world.first_pid(c), copy))
    if seen.st_uid < 65536 or seen.st_mode & 0o4000 == 0:
        attack.changed("a set-id program of uid %d on the host" % seen.st_uid)


def test_set_id_on_a_volume_goes_no_further(world, set_id):
    """The volume that root filled comes back into a cluster of each other profile: there it gives nothing."""
    for profile in ("standard", "strict"):
        c = set_id[profile]
        world.sh(c, "cp /bin/attack /v/mine; chmod 4755 /v/mine; cp /bin/attack /v/caps; attack setcap /v/caps %s"
                 % file_caps(ALL, effective=False).hex())
        for name in ("mine", "caps"):
            said = as_user(world, c, "/v/" + name)
            assert "the-byte-of-root" not in said and not check_caps(profile, said)["Prm"], said


def test_namespaced_file_capabilities(world, set_id):
    """Those that name an id of the host's as their root, its real one say, are nobody's inside."""
    c = set_id["compat"]
    for root in (0, 1000, 65534, 0x50000000):
        world.sh(c, "rm -f /x; cp /bin/attack /x; attack setcap /x %s" % file_caps(ALL, effective=False, rootid=root).hex())
        said = as_user(world, c, "/x")
        if "CapEff" in said:
            check_caps("compat", said)
        value = world.inside(c, "/x", "show", "/proc/self/status")
        if "CapEff" in value:
            check_caps("compat", value)


def test_the_surface_by_a_set_id_program(world, set_id):
    """Whoever became root that way reaches nothing that root does not."""
    c = set_id["compat"]
    direct = rows_of_surface(world.attack(c, "surface", "/tmp"))
    by_program = rows_of_surface(world.inside(c, "/bin/suid", "surface", "/tmp", user="1000"))
    assert set(by_program) == set(direct) and "ok" not in {*direct.values(), *by_program.values()}, (direct, by_program)


def rows_of_surface(said):
    assert "done" in said, said
    return dict(re.findall(r"^([\w /-]+?): (\w+)$", said, re.M))


def test_set_id_programs_are_not_traced(world, set_id):
    """A user traces what he starts, and it is a set-id program: it runs without the right, or not traced."""
    c = set_id["compat"]
    said = world.sh(c, "attack trace /bin/suid show /%s" % ROOTS, user="1000")
    assert "traced" in said and "the-byte-of-root" not in said, said


def test_mounts_of_compat(world, set_id):
    """Set-id counts on the tenant's own disks alone: everything else that is mounted is nosuid, all of it
    without devices."""
    with open("/proc/%d/mountinfo" % world.first_pid(set_id["compat"]), encoding="ascii") as f:
        for line in f:
            words = line.split()
            place, options = words[4], words[5].split(",")
            assert ("nosuid" in options) is (place not in ("/", "/v")), line
            assert "nodev" in options or "/null" == words[3] or place in ("/dev", "/dev/pts"), line
