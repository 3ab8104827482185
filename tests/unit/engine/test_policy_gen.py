"""The generator of policy tables: every kind of mistake in data/policy ends the build with file and line,
and what it makes of sections."""
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
GENERATOR = ROOT / "src/engine/sandbox/policy_gen.py"
POLICY = ROOT / "data/policy"


@pytest.fixture
def policy(tmp_path):
    for f in POLICY.glob("*.policy"):
        shutil.copy(f, tmp_path)
    return tmp_path


def generate(where, names=None):
    files = [str(where / n) for n in names] if names else sorted(str(f) for f in where.glob("*.policy"))
    done = subprocess.run([sys.executable, GENERATOR, *files, where / "rules.c", where / "policy.c"],
                          capture_output=True, text=True, check=False)
    return done.returncode, done.stderr.strip()


def test_the_real_ones(policy):
    assert generate(policy) == (0, "")
    rules, table = (policy / "rules.c").read_text(), (policy / "policy.c").read_text()
    # a profile's own rules stand before the common ones
    assert rules.index("SECURITY_STRICT") < rules.index("SECURITY_NONE")
    assert re.search(r'"ptrace", -1, SECCOMP_RET_ERRNO \| EPERM, 0, .*SECURITY_STRICT', rules)
    assert re.search(r'"ptrace", -1, SECCOMP_RET_ALLOW, 0, .*SECURITY_NONE', rules)
    assert 'POLICY_HIDE, "/proc/kcore"' in table
    for f in ("rules.c", "policy.c"):  # a second run makes the same
        (policy / f).rename(policy / (f + ".old"))
    assert generate(policy) == (0, "")
    assert (policy / "rules.c").read_text() == rules and (policy / "policy.c").read_text() == table


def caps(table, profile):
    row = re.search(r"\[SECURITY_%s\] = \{\n(.*)," % profile.upper(), table)[1]
    return set(re.findall(r"CAP_(\w+)", row))


def test_sections(policy):
    (policy / "capabilities.policy").write_text(
        "keep CHOWN KILL\n[strict]\ndrop KILL # why\n[compat]\nkeep MKNOD\nnew-privileges\n")
    (policy / "rlimits.policy").write_text("NOFILE 5\nCORE 1\n[strict]\nNOFILE 4\n")
    assert generate(policy) == (0, "")
    table = (policy / "policy.c").read_text()
    assert caps(table, "standard") == {"CHOWN", "KILL"}
    assert caps(table, "strict") == {"CHOWN"}
    assert caps(table, "compat") == {"CHOWN", "KILL", "MKNOD"}
    assert caps(table, "none") == {"CHOWN", "KILL", "MKNOD"}, "what any profile keeps"
    limits = re.search(r"strict_rlimits\[\] = \{(.*?)\};", table, re.S)[1]
    assert "RLIMIT_NOFILE, 4ULL" in limits and "RLIMIT_CORE, 1ULL" in limits and "5ULL" not in limits


MISTAKES = [
    ("seccomp", "allw read", "unknown action allw"),
    ("seccomp", "allow read if a9==1", "cannot read the test a9==1"),
    ("seccomp", "allow read if a0&0x1==2", "a0&0x1==2 can never hold"),
    ("seccomp", "allow read if a0==1 and a1==1 and a2==1", "more than 2 tests"),
    ("seccomp", "allow read\nallow read", "read was decided above"),
    ("seccomp", "allow", "cannot read this rule"),
    ("seccomp", "[lax]", "unknown profile lax; there are standard, strict, compat"),
    ("seccomp", "[strict]\n[compat]\n[strict]", "[strict] began above"),
    ("capabilities", "keep CHOWM", "unknown capability CHOWM"),
    ("capabilities", "keep CHOWN CHOWN", "CHOWN is kept already"),
    ("capabilities", "drop CHOWN", "drop belongs into a section"),
    ("capabilities", "new-privileges", "new-privileges belongs into a section"),
    ("capabilities", "[strict]\ndrop CHOWN", "CHOWN is not kept anyhow"),
    ("capabilities", "keep CHOWN\n[strict]\ndrop CHOWN\ndrop CHOWN", "CHOWN was dropped above"),
    ("capabilities", "CHOWN", "cannot read this rule"),
    ("masks", "hide /etc/passwd", "/etc/passwd is not below /proc or /sys"),
    ("masks", "hide /proc", "/proc is not below /proc or /sys"),
    ("masks", "hide /proc/../etc", "/proc/../etc is no plain absolute path"),
    ("masks", "hide proc/kcore", "proc/kcore is no plain absolute path"),
    ("masks", "hide /proc/keys\n[strict]\nread-only /proc/keys", "/proc/keys was covered above"),
    ("masks", "read-only /", "read-only / belongs into a section"),
    ("masks", "memory /tmp 1777 50%", "memory belongs into a section"),
    ("masks", "[strict]\nmemory /tmp 1777 0%", "0% is outside 1%..100%"),
    ("masks", "[strict]\nmemory /dev/x 1777 5%", "/dev/x is the kernel's"),
    ("masks", "[strict]\nmemory /tmp 1779 5%", "memory wants a path, a mode and a share: /tmp 1777 50%"),
    ("masks", "show /proc/keys", "cannot read this rule"),
    ("sysctls", "kernel.msgmax = 1", "cannot read this rule; -NAME = VALUE, and NAME begins with net."),
    ("sysctls", "net.ipv4.ip_forward = 0\nnet.ipv4.ip_forward = 1", "net.ipv4.ip_forward was set above"),
    ("sysctls", "net.ipv4..x = 0", "net.ipv4..x is no name"),
    ("sysctls", "[compat]\nnet.ipv4.x = GROUPS", "GROUPS holds for every profile; no section may say it"),
    ("rlimits", "NOFILES 3", "unknown limit NOFILES"),
    ("rlimits", "NOFILE many", "cannot read this rule: NAME NUMBER"),
    ("rlimits", "NOFILE 3\nNOFILE 4", "NOFILE was set above"),
    ("rlimits", "NOFILE 18446744073709551616", "18446744073709551616 is too large"),
]


@pytest.mark.parametrize("kind,text,message", MISTAKES, ids=[f"{k}-{m[:24]}" for k, _, m in MISTAKES])
def test_mistakes(policy, kind, text, message):
    file = policy / f"{kind}.policy"
    file.write_text("# why\n\n" + text + "\n")
    code, said = generate(policy)
    assert code != 0
    assert said == f"{file}:{2 + len(text.splitlines())}: {message}"


def test_all_files_are_wanted(policy):
    (policy / "masks.policy").unlink()
    code, said = generate(policy)
    assert code != 0 and "wants capabilities.policy, masks.policy" in said
