"""Security profiles (docs/security.md): what each of them lets a cluster do, in its first process and in
exec sessions, from the request to what the owner is told."""
import json
import os
import pathlib
import re

import pytest

from host import ApiError, Host
from ocimake import Image, Layer

BUILD = pathlib.Path(os.environ.get("HVMM_BUILD", "build")).resolve()
PROFILES = ("standard", "strict", "compat")
CAPS = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
        "NET_BIND_SERVICE", "SYS_CHROOT", "SETFCAP"]
PASSWD = b"root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/tmp:/bin/sh\n"


def probe_image():
    """busybox, the launcher's probe, and the probe as a set-id program."""
    layer = Layer()
    for d in ("bin", "etc", "root", "proc", "sys", "dev", "run", "var", "var/tmp"):
        layer.dir(d)
    layer.dir("tmp", mode=0o1777)
    probe = (BUILD / "tests/flow/sandbox/probe").read_bytes()
    layer.file("bin/busybox", pathlib.Path("/bin/busybox").read_bytes(), mode=0o755)
    layer.file("bin/probe", probe, mode=0o755).file("bin/su-probe", probe, mode=0o4755)
    layer.file("etc/passwd", PASSWD).file("tmp/of-the-image", b"")
    for applet in ("sh", "sleep", "cat", "touch", "ls", "grep", "httpd", "wget", "stat", "df", "mkdir", "id",
                   "hostname", "awk", "head", "rm"):
        layer.symlink("bin/" + applet, "busybox")
    first = "probe ptrace vm_read kcmp getfd low_port >/dev/stdout 2>&1; exec sleep 100000"
    return Image([layer.tar()], config={"Cmd": ["/bin/sh", "-c", first], "Env": ["PATH=/bin"]})


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    with Host({"engine": {"pool_networks": 2, "pool_disks": 0, "grace": "1s", "cpu_overcommit": 100,
                          "memory_overcommit": 20, "disk_overcommit": 100}}) as h:
        h.import_image("probe", layout=probe_image().write_layout(tmp_path_factory.mktemp("probe") / "layout"))
        yield h


@pytest.fixture(scope="module")
def clusters(host):
    ids = {p: host.deploy(imageName="probe", securityProfile=p, volumeInGb=1) for p in PROFILES}
    for c in ids.values():
        host.wait_running(c)
    yield ids
    for c in ids.values():
        host.terminate(c)
    host.wait_released()


def sh(host, cluster, script, user=None, check=True):
    who = ["-u", user] if user else []
    return host.cli("exec", *who, cluster, "--", "sh", "-c", script, check=check)


def shown(host, cluster):
    return json.loads(host.cli("get", "cluster", cluster, "-o", "json").stdout)


def probe(text):
    return dict(line.split() for line in text.splitlines() if re.fullmatch(r"\w+ \w+", line))


def test_what_the_owner_is_told(host, clusters):
    for profile, c in clusters.items():
        got = shown(host, c)
        security = got["security"]
        assert got["securityProfile"] == security["profile"] == profile
        assert security["seccomp"] == "enforced"
        assert security["no_new_privs"] is (profile != "compat")
        assert security["read_only_root"] is (profile == "strict")
        want = {"strict": set(CAPS) - {"NET_BIND_SERVICE"}, "compat": set(CAPS) | {"NET_RAW"}}.get(profile, set(CAPS))
        assert set(security["capabilities"]) == want
        if not os.path.exists("/sys/module/apparmor"):
            assert "AppArmor: not in this kernel" in security["missing"]
        assert any(m.startswith("debuggers: ") for m in security["missing"]) is (
            profile == "strict" and security["apparmor"] == "unavailable")


def test_what_is_told_is_true(host, clusters):
    """/proc/PID/status of both kinds of process, read from outside, says the same."""
    for c in clusters.values():
        security = shown(host, c)["security"]
        first = pathlib.Path(f"/proc/{host.first_pid(c)}/status").read_text()
        for text in (first, sh(host, c, "cat /proc/self/status").stdout):
            status = dict(x.split(":\t", 1) for x in text.splitlines() if ":\t" in x)
            assert status["Seccomp"] == "2"
            assert (status["NoNewPrivs"] == "1") is security["no_new_privs"]
            bounding = int(status["CapBnd"], 16)
            assert bin(bounding).count("1") == len(security["capabilities"])
            assert bounding >> 10 & 1 == ("NET_BIND_SERVICE" in security["capabilities"])


@pytest.mark.parametrize("profile", PROFILES)
def test_debuggers_and_low_ports(host, clusters, profile):
    names = ("ptrace", "vm_read", "kcmp", "getfd")
    want = dict.fromkeys(names, "EPERM" if profile == "strict" else "ok")
    want["low_port"] = "EACCES" if profile == "strict" else "ok"
    c = clusters[profile]
    sessions = [sh(host, c, "probe " + " ".join(want), user=user).stdout for user in (None, "user")]
    host.wait_log(c, "low_port")
    for text in (host.logs(c), *sessions):
        text = text if isinstance(text, str) else "\n".join(str(x) for x in text)
        got = {n: re.search(rf"\b{n} (\w+)", text)[1] for n in want}
        assert got == want


def test_high_ports_work_everywhere(host, clusters):
    for profile, c in clusters.items():
        sh(host, c, "mkdir -p /tmp/www; touch /tmp/www/x; httpd -p 8080 -h /tmp/www")
        assert sh(host, c, "wget -qO- 127.0.0.1:8080/x && echo got").stdout == "got\n", profile


WRITABLE = "for d in / /etc /root /bin /var /tmp /run /var/tmp /dev/shm /workspace; do " \
           "touch $d/new 2>/dev/null && echo $d; done; true"


def test_strict_writes_to_memory_and_volume_alone(host, clusters):
    everywhere = sh(host, clusters["standard"], WRITABLE).stdout.split()
    assert everywhere == ["/", "/etc", "/root", "/bin", "/var", "/tmp", "/run", "/var/tmp", "/dev/shm",
                          "/workspace"]
    c = clusters["strict"]
    assert sh(host, c, WRITABLE).stdout.split() == ["/tmp", "/run", "/var/tmp", "/dev/shm", "/workspace"]
    assert "Read-only file system" in sh(host, c, "echo x > /etc/passwd", check=False).stderr
    # 1 GB of memory: at most half of it each, and a quarter
    sizes = sh(host, c, "df -k /tmp /run /var/tmp | awk 'NR>1{print $2}'").stdout.split()
    for got, share in zip(map(int, sizes), (50, 25, 50)):
        assert abs(got - 1024 * 1024 * share // 100) < 16
    # ours are right all the same
    assert c in sh(host, c, "hostname; cat /etc/hostname /etc/hosts").stdout
    assert "nameserver" in sh(host, c, "cat /etc/resolv.conf").stdout
    assert "TENSORONE_CLUSTER_ID" in sh(host, c, "cat /etc/profile.d/tensorone.sh").stdout


def test_strict_memory_counts(host, clusters):
    """What lies in /tmp is the cluster's own memory."""
    c = clusters["strict"]
    sh(host, c, "head -c 120000000 /dev/zero > /tmp/much")

    def usage():
        return host.gql('{ cluster(input: {clusterId: "%s"}) { runtime { container { memoryPercent } } } }' % c)[
            "cluster"]["runtime"]["container"]["memoryPercent"]
    host.wait(c, lambda _: usage() >= 11, timeout=60)
    sh(host, c, "rm /tmp/much")


def test_strict_over_a_restart(host, clusters):
    c = clusters["strict"]
    sh(host, c, "touch /tmp/gone /workspace/kept")
    old = host.first_pid(c)
    host.call("clusterRestart", c)
    host.wait_new_first(c, old)
    assert sh(host, c, "ls /tmp /workspace").stdout.count("gone") == 0
    assert "kept" in sh(host, c, "ls /workspace").stdout
    assert probe(sh(host, c, "probe ptrace low_port; touch /x || true").stdout) == {
        "ptrace": "EPERM", "low_port": "EACCES"}


def test_set_id_in_compat_alone(host, clusters):
    for profile, c in clusters.items():
        ids = sh(host, c, "su-probe ids", user="user").stdout
        assert f"uid 1000 euid {0 if profile == 'compat' else 1000} " in ids, profile


def test_templates_and_requests(host):
    """A template's profile counts where the request names none."""
    saved = host.gql("mutation($i: SaveTemplateInput) { saveTemplate(input: $i) { id securityProfile } }",
                     {"i": dict(name="held", imageName="probe", containerDiskInGb=1, dockerArgs="sleep 1000",
                                securityProfile="strict")})["saveTemplate"]
    plain = host.gql("mutation($i: SaveTemplateInput) { saveTemplate(input: $i) { id securityProfile } }",
                     {"i": dict(name="plain", imageName="probe", containerDiskInGb=1)})["saveTemplate"]
    assert (saved["securityProfile"], plain["securityProfile"]) == ("strict", "standard")
    ids = [host.deploy(imageName=None, templateId=saved["id"]),
           host.deploy(imageName=None, templateId=saved["id"], securityProfile="standard"),
           host.deploy(imageName=None, templateId=plain["id"], securityProfile="strict")]
    try:
        for c, want in zip(ids, ("strict", "standard", "strict")):
            host.wait_running(c)
            assert shown(host, c)["security"]["profile"] == want
            assert probe(sh(host, c, "probe ptrace").stdout) == {
                "ptrace": "EPERM" if want == "strict" else "ok"}
    finally:
        for c in ids:
            host.terminate(c)


def test_unknown_profiles(host):
    sentence = "securityProfile: 'lax' is none of standard, strict, compat"
    with pytest.raises(ApiError) as wrong:
        host.deploy(imageName="probe", securityProfile="lax")
    assert sentence in str(wrong.value)
    with pytest.raises(ApiError) as wrong:
        host.gql("mutation($i: SaveTemplateInput) { saveTemplate(input: $i) { id } }",
                 {"i": dict(name="x", imageName="probe", containerDiskInGb=1, securityProfile="lax")})
    assert sentence in str(wrong.value)
    done = host.cli("create", "cluster", "--imageName", "probe", "--gpuCount", "0", "--securityProfile", "lax",
                    check=False)
    assert done.returncode != 0 and "securityProfile" in done.stderr and "strict" in done.stderr
    assert not [c for c in host.clusters() if c["name"] == "x"]


def test_command_line(host):
    made = host.cli("create", "cluster", "--imageName", "probe", "--gpuCount", "0", "--mem", "1",
                    "--containerDiskSize", "1", "--securityProfile", "strict", "--wait").stdout
    c = re.search(r'"(\w+)"', made)[1]
    try:
        assert shown(host, c)["securityProfile"] == "strict"
    finally:
        host.terminate(c)


def test_a_new_engine_keeps_them(host, clusters):
    """Sessions in clusters that an earlier engine started have the cluster's own profile."""
    before = {p: host.first_pid(c) for p, c in clusters.items()}
    host.restart()
    for profile, c in clusters.items():
        host.wait_running(c)
        assert host.first_pid(c) == before[profile]
        assert probe(sh(host, c, "probe ptrace low_port").stdout)["ptrace"] == (
            "EPERM" if profile == "strict" else "ok")
        assert shown(host, c)["security"]["profile"] == profile
