"""hypervisor-vmm's words: what it says to an operator before anything runs."""
import re
import subprocess

import pytest

from host import Host
from programs import program, run_as

NOBODY = 65534


def run(*words, **kw):
    return subprocess.run([program("hypervisor-vmm"), *words], capture_output=True, text=True,
                          timeout=20, **kw)


def findings(text):
    """{question: (grade, answer, what follows or None)} and the verdict."""
    found, name = {}, None
    *lines, blank, verdict = text.splitlines()
    assert blank == ""
    for line in lines:
        grade, what, rest = line[:8].strip(), line[9:25].strip(), line[26:]
        if rest.startswith("-> "):
            assert grade == what == "" and found[name][2] is None, line
            found[name] = found[name][:2] + (rest[3:],)
        else:
            assert grade in ("ok", "note", "MISSING") and what and rest, line
            name = what
            found[name] = (grade, rest, None)
    return found, verdict


def test_doctor():
    r = run("doctor")
    assert r.returncode == 0 and r.stderr == "", r.stdout + r.stderr
    found, verdict = findings(r.stdout)
    assert verdict == "This host can run clusters."
    assert {"kernel", "rights", "cgroups", "namespaces", "AppArmor", "overlayfs", "EROFS", "loop devices",
            "idmapped mounts", "nftables", "IPv6", "router adverts", "bandwidth", "connections", "conntrack table", "project quotas", "KVM", "IOMMU", "NVIDIA driver"} <= set(found)
    for name, (grade, _, follows) in found.items():
        assert (grade == "ok") == (follows is None), name
    assert found["rights"] == ("ok", "root", None)
    assert found["cgroups"][1].startswith("version ")


def test_require_apparmor():
    """Refused with the reason that doctor gives, or, where there is AppArmor, nothing special."""
    grade, says, _ = findings(run("doctor").stdout)[0]["AppArmor"]
    h = Host({"engine": {"require_apparmor": "yes", "cpu_overcommit": 100, "pool_networks": 0,
                         "pool_disks": 0}})
    try:
        if grade == "ok":
            h.start(60)
            assert "without a profile" not in h.log_text()
        else:
            with pytest.raises(RuntimeError, match="require_apparmor = yes: AppArmor: " + re.escape(says)):
                h.start(60)
            assert h.proc.wait(60) != 0
            h.config["engine"]["require_apparmor"] = "no"
            h.start(60)
            assert "without a profile of their own: AppArmor: " + says in h.log_text()
    finally:
        h.close()


def test_doctor_with_a_configuration(tmp_path):
    conf = tmp_path / "conf"

    def nvidia(value):
        conf.write_text(f"[engine]\ngpu_driver = {value}\n")
        r = run("doctor", "--config", str(conf))
        return findings(r.stdout)[0]["NVIDIA driver"], r.returncode
    assert nvidia("none") == (("note", "gpu_driver = none", "clusters run with gpuCount 0 only"), 0)
    assert nvidia("simulated:a100x8") == (("ok", "simulated: 8 x NVIDIA A100-SXM4-80GB (a100x8)", None), 0)
    for value, says in (("simulated:a100x7", "one of 3090x8, 4090x1, a100mig, a100x8"),
                        ("nvidia", "'nvidia' is not auto, none or simulated:FLEET")):
        (grade, what, follows), code = nvidia(value)
        assert (grade, code) == ("MISSING", 1) and says in what
        assert follows == "the engine does not start with this configuration"
    conf.write_text("[engine]\nnonsense = 1\n")
    r = run("doctor", "--config", str(conf))
    assert r.returncode == 1 and r.stdout == "" and "nonsense" in r.stderr


def test_doctor_of_a_stranger():
    r = run_as(NOBODY, program("hypervisor-vmm"), "doctor")
    found, verdict = findings(r.stdout)
    assert found["rights"] == ("MISSING", "uid %d" % NOBODY, "the engine must run as root")
    assert verdict == "This host cannot run clusters until what is MISSING is mended."
    assert (r.returncode, r.stderr) == (1, "hypervisor-vmm: this host cannot run clusters\n")


def test_doctor_leaves_nothing():
    def mounts():
        with open("/proc/self/mountinfo", encoding="utf-8") as f:
            return sorted(line.split()[4] for line in f)
    before = mounts()
    assert run("doctor").returncode == 0
    assert mounts() == before


@pytest.mark.parametrize("words, says", [
    (["bogus"], "unknown command 'bogus'; try: hypervisor-vmm help"),
    (["standalnoe"], "unknown command 'standalnoe'; did you mean 'standalone'?"),
    (["standalone"], "standalone: --data-dir is needed; see hypervisor-vmm standalone --help"),
    (["standalone", "--data-dir", "/nonexistent"],
     "standalone: --listen is needed; see hypervisor-vmm standalone --help"),
    (["standalone", "--dta-dir", "x"], "standalone: unknown argument '--dta-dir'; did you mean --data-dir?"),
    (["doctor", "extra"], "doctor: unknown argument 'extra'"),
    (["man", "ls"], "there is no manual page 'ls'"),
    (["completion", "tcsh"], "unknown shell 'tcsh'; one of: bash, zsh, fish"),
])
def test_wrong_words(words, says):
    r = run(*words)
    assert (r.returncode, r.stdout, r.stderr) == (1, "", "hypervisor-vmm: %s\n" % says)


def test_standalone_is_roots():
    r = run_as(NOBODY, program("hypervisor-vmm"), "standalone", "--data-dir", "/nonexistent/d", "--listen", "127.0.0.1:0")
    assert (r.returncode, r.stdout) == (1, "")
    assert r.stderr == "hypervisor-vmm: standalone: must run as root\n"


def test_help_of_each_command():
    overview = run("help").stdout
    assert run("--help").stdout == overview
    for verb in ("standalone", "doctor", "config", "version", "help"):
        assert "\n  hypervisor-vmm " + verb in overview
        said = run(verb, "--help")
        assert said.returncode == 0 and said.stdout.startswith("usage: hypervisor-vmm " + verb)
        assert run("help", verb).stdout == said.stdout
