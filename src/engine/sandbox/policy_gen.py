#!/usr/bin/env python3
"""Turn data/policy into C tables.  usage: policy_gen.py POLICY... OUT_RULES.c OUT_POLICY.c

Each file is known by its name; its grammar is described at its top, sections in data/policy/README.
A mistake ends the build with file and line.
"""
import errno
import os
import re
import sys

COMMON = "none"
PROFILES = ["standard", "strict", "compat"]
SECTION = re.compile(r"\[([a-z]+)\]$")
RULE = re.compile(r"(?P<action>\w+)\s+(?P<names>[\w=]+(?:\s+[\w=]+)*?)(?:\s+if\s+(?P<tests>.+))?$")
TEST = re.compile(r"a([0-5])(?:&(0x[0-9a-f]+|\d+))?==(0x[0-9a-f]+|\d+)$")
PATH = re.compile(r"(/[\w.+-]+)+$")
SYSCTL = re.compile(r"(-?)(net[./][\w./-]+)\s*=\s*(\S.*)$")
RLIMITS = "AS CORE CPU DATA FSIZE LOCKS MEMLOCK MSGQUEUE NICE NOFILE NPROC RSS RTPRIO RTTIME SIGPENDING STACK".split()
CAPABILITIES = """CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP
    LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE
    SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME
    SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG
    WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE""".split()
ALL = (1 << 64) - 1
MAX_TESTS = 2  # FILTER_TESTS in filter.h


def need(good, text):
    if not good:
        raise ValueError(text)


def common_only(section, what):
    need(section == COMMON, f"{what} holds for every profile; no section may say it")


def section_only(section, what):
    need(section != COMMON, f"{what} belongs into a section")


class Rules:
    """seccomp.policy"""

    def __init__(self):
        self.rows = {s: [] for s in [COMMON] + PROFILES}
        # calls whose last rule had no test: nothing behind it could ever fit
        self.ended = {s: set() for s in self.rows}

    @staticmethod
    def action(word):
        if word == "allow":
            return "SECCOMP_RET_ALLOW"
        if word == "kill":
            return "SECCOMP_RET_KILL_PROCESS"
        if word == "ignore":
            return "SECCOMP_RET_ERRNO"
        need(hasattr(errno, word), f"unknown action {word}")
        return f"SECCOMP_RET_ERRNO | {word}"

    @staticmethod
    def tests(text):
        tests = []
        for part in re.split(r"\s+and\s+", text.strip()) if text else []:
            m = TEST.match(part)
            need(m, f"cannot read the test {part}")
            mask = int(m[2], 0) if m[2] else ALL
            value = int(m[3], 0)
            need(not value & ~mask, f"{part} can never hold")
            tests.append((int(m[1]), mask, value))
        need(len(tests) <= MAX_TESTS, f"more than {MAX_TESTS} tests")
        return tests

    def take(self, section, line):
        m = RULE.match(line)
        need(m, "cannot read this rule")
        action, tests = self.action(m["action"]), self.tests(m["tests"])
        for word in m["names"].split():
            name, _, given = word.partition("=")
            need(name not in self.ended[section], f"{name} was decided above")
            if not tests:
                self.ended[section].add(name)
            self.rows[section].append((name, int(given) if given else -1, action, tests))

    def write(self, out):
        out.write('/* Generated from data/policy by policy_gen.py. */\n'
                  '#include "engine/sandbox/filter.h"\n\n#include <errno.h>\n\n'
                  "const struct filter_row policy_rows[] = {\n")
        for section in PROFILES + [COMMON]:  # a profile's own are tried first
            for name, number, action, tests in self.rows[section]:
                inner = ", ".join("{ %d, 0x%xULL, 0x%xULL }" % t for t in tests)
                out.write('        { "%s", %d, %s, %d, { %s }, SECURITY_%s },\n' % (
                    name, number, action, len(tests), inner or "{ 0, 0, 0 }", section.upper()))
        out.write("};\nconst size_t policy_n_rows = sizeof policy_rows / sizeof policy_rows[0];\n")


class Capabilities:
    """capabilities.policy; the common set of the table is all that any profile keeps."""

    def __init__(self):
        self.keep = {s: set() for s in [COMMON] + PROFILES}
        self.drop = {s: set() for s in PROFILES}
        self.new_privs = set()

    def take(self, section, line):
        verb, *names = line.split()
        if verb == "new-privileges" and not names:
            section_only(section, verb)
            need(section not in self.new_privs, f"{verb} was said above")
            self.new_privs.add(section)
            return
        need(verb in ("keep", "drop") and names, "cannot read this rule")
        if verb == "drop":
            section_only(section, verb)
        for name in names:
            need(name in CAPABILITIES, f"unknown capability {name}")
            known = name in self.keep[COMMON] or (section != COMMON and (
                name in self.keep[section] or name in self.drop[section]))
            need(known == (verb == "drop"), f"{name} is kept already" if known
                 else f"{name} is not kept anyhow")
            if verb == "drop":
                need(name not in self.drop[section], f"{name} was dropped above")
                self.drop[section].add(name)
            else:
                self.keep[section].add(name)

    def of(self, profile):
        if profile == COMMON:
            return set().union(*(self.of(p) for p in PROFILES))
        return (self.keep[COMMON] | self.keep[profile]) - self.drop[profile]


class Masks:
    """masks.policy: what covers, what is read-only, what lies in memory"""

    def __init__(self):
        self.rows = {s: [] for s in [COMMON] + PROFILES}
        self.memory = {s: [] for s in PROFILES}
        self.root_rdonly = set()

    def take(self, section, line):
        verb, *words = line.split()
        need(verb in ("hide", "read-only", "memory") and words, "cannot read this rule")
        path = words[0]
        if verb == "read-only" and words == ["/"]:
            section_only(section, f"{verb} /")
            need(section not in self.root_rdonly, f"{verb} / was said above")
            self.root_rdonly.add(section)
            return
        need(PATH.match(path) and "/./" not in path + "/" and "/../" not in path + "/",
             f"{path} is no plain absolute path")
        if verb == "memory":
            self.take_memory(section, path, words[1:])
            return
        need(len(words) == 1, "cannot read this rule")
        tree, _, rest = path[1:].partition("/")
        need(tree in ("proc", "sys") and rest, f"{path} is not below /proc or /sys")
        need(all(path != p for s in {COMMON, section} for _, p in self.rows[s]),
             f"{path} was covered above")
        self.rows[section].append((verb, path))

    def take_memory(self, section, path, words):
        section_only(section, "memory")
        need(len(words) == 2 and re.match(r"[01]?[0-7]{3}$", words[0])
             and re.match(r"\d+%$", words[1]), "memory wants a path, a mode and a share: /tmp 1777 50%")
        share = int(words[1][:-1])
        need(1 <= share <= 100, f"{share}% is outside 1%..100%")
        need(path.split("/")[1] not in ("proc", "sys", "dev"), f"{path} is the kernel's")
        need(all(path != m[0] for m in self.memory[section]), f"{path} was covered above")
        self.memory[section].append((path, words[0].zfill(4), share))


class Sysctls:
    """sysctls.policy"""

    def __init__(self):
        self.rows = {s: {} for s in [COMMON] + PROFILES}

    def take(self, section, line):
        m = SYSCTL.match(line)
        need(m, "cannot read this rule; -NAME = VALUE, and NAME begins with net.")
        path = "/proc/sys/" + m[2].replace(".", "/")
        need(PATH.match(path) and "//" not in path, f"{m[2]} is no name")
        need(path not in self.rows[section], f"{m[2]} was set above")
        if m[3] == "GROUPS": # no profile needs it, and only the namespace's maker knows them
            common_only(section, m[3])
        self.rows[section][path] = (m[3], bool(m[1]))


class Rlimits:
    """rlimits.policy"""

    def __init__(self):
        self.rows = {s: {} for s in [COMMON] + PROFILES}

    def take(self, section, line):
        words = line.split()
        need(len(words) == 2 and words[1].isdigit(), "cannot read this rule: NAME NUMBER")
        need(words[0] in RLIMITS, f"unknown limit {words[0]}")
        need(words[0] not in self.rows[section], f"{words[0]} was set above")
        need(int(words[1]) <= ALL, f"{words[1]} is too large")
        self.rows[section][words[0]] = int(words[1])

    def of(self, profile):
        return {**self.rows[COMMON], **self.rows[profile]}


KINDS = {"seccomp.policy": Rules, "capabilities.policy": Capabilities, "masks.policy": Masks,
         "sysctls.policy": Sysctls, "rlimits.policy": Rlimits}
MASK_KIND = {"hide": "POLICY_HIDE", "read-only": "POLICY_RDONLY"}


def read(path):
    kind, section, seen = KINDS[os.path.basename(path)](), COMMON, set()
    with open(path, encoding="ascii") as f:
        for number, line in enumerate(f, 1):
            line = line.split("#", 1)[0].strip()
            m = SECTION.match(line)
            try:
                if m:
                    need(m[1] in PROFILES, f"unknown profile {m[1]}; there are {', '.join(PROFILES)}")
                    need(m[1] not in seen, f"[{m[1]}] began above")
                    seen.add(m[1])
                    section = m[1]
                elif line:
                    kind.take(section, line)
            except ValueError as e:
                sys.exit(f"{path}:{number}: {e}")
    return kind


def array(out, ctype, name, rows):
    """Returns the two initializers for it."""
    if not rows:
        return "NULL, 0"
    out.write("static const struct %s %s[] = {\n" % (ctype, name))
    for row in rows:
        out.write("        { %s },\n" % row)
    out.write("};\n")
    return "%s, %d" % (name, len(rows))


def write_policy(out, caps, masks, sysctls, rlimits):
    out.write('/* Generated from data/policy by policy_gen.py. */\n#include "engine/policy.h"\n\n'
              "#include <linux/capability.h>\n#include <stddef.h>\n#include <sys/resource.h>\n\n")
    text = []
    for p in [COMMON] + PROFILES:
        memory = masks.memory.get(p, [])
        lists = [
            ("rlimits", "policy_rlimit", ["RLIMIT_%s, %dULL" % i for i in rlimits.of(p).items()]),
            ("masks", "policy_mask", ['%s, "%s"' % (MASK_KIND[k], path) for k, path in masks.rows[p]]),
            ("memory", "policy_memory", ['"%s", "%s", %d' % m for m in memory]),
            ("sysctls", "policy_sysctl", ['"%s", %s, %s' % (
                path, "NULL" if value == "GROUPS" else '"%s"' % value, "true" if lack else "false")
                for path, (value, lack) in sysctls.rows[p].items()]),
        ]
        text.append("        [SECURITY_%s] = {\n                %s,\n                %s, %s,\n" % (
            p.upper(), " | ".join("1ULL << CAP_" + c for c in CAPABILITIES if c in caps.of(p)) or "0",
            "true" if p in caps.new_privs else "false",
            "true" if p in masks.root_rdonly else "false"))
        for name, ctype, rows in lists:
            text.append("                %s,\n" % array(out, ctype, "%s_%s" % (p, name), rows))
        text.append("        },\n")
    out.write("\nstatic const struct policy policies[SECURITY_PROFILE_COUNT] = {\n%s};\n\n" %
              "".join(text))
    out.write("const struct policy *policy_of(enum security_profile p)\n{\n"
              "        return p < SECURITY_PROFILE_COUNT ? &policies[p] : NULL;\n}\n\n")
    out.write("const char *const policy_capability_names[] = {\n%s};\n"
              "const size_t policy_n_capabilities = sizeof policy_capability_names / sizeof policy_capability_names[0];\n"
              % "".join('        [CAP_%s] = "%s",\n' % (c, c) for c in CAPABILITIES))


def main():
    *paths, rules, policy = sys.argv[1:]
    given = sorted(os.path.basename(p) for p in paths)
    if given != sorted(KINDS):
        sys.exit("policy_gen.py: wants %s" % ", ".join(sorted(KINDS)))
    of = {os.path.basename(p): read(p) for p in paths}
    with open(rules, "w", encoding="ascii") as out:
        of["seccomp.policy"].write(out)
    with open(policy, "w", encoding="ascii") as out:
        write_policy(out, of["capabilities.policy"], of["masks.policy"], of["sysctls.policy"],
                     of["rlimits.policy"])


main()
