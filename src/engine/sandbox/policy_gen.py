#!/usr/bin/env python3
"""Turn data/seccomp.policy into a C table.  usage: policy_gen.py POLICY OUT.c

The grammar is described at the top of the policy itself.  A mistake in it ends the build with the
line's number.
"""
import errno
import re
import sys

RULE = re.compile(r"(?P<action>\w+)\s+(?P<names>[\w=]+(?:\s+[\w=]+)*?)(?:\s+if\s+(?P<tests>.+))?$")
TEST = re.compile(r"a([0-5])(?:&(0x[0-9a-f]+|\d+))?==(0x[0-9a-f]+|\d+)$")
ALL = (1 << 64) - 1
MAX_TESTS = 2  # FILTER_TESTS in filter.h


def action_of(word):
    if word == "allow":
        return "SECCOMP_RET_ALLOW"
    if word == "kill":
        return "SECCOMP_RET_KILL_PROCESS"
    if not hasattr(errno, word):
        raise ValueError(f"unknown action {word}")
    return f"SECCOMP_RET_ERRNO | {word}"


def tests_of(text):
    tests = []
    for part in re.split(r"\s+and\s+", text.strip()) if text else []:
        m = TEST.match(part)
        if not m:
            raise ValueError(f"cannot read the test {part}")
        mask = int(m[2], 0) if m[2] else ALL
        value = int(m[3], 0)
        if value & ~mask:
            raise ValueError(f"{part} can never hold")
        tests.append((int(m[1]), mask, value))
    if len(tests) > MAX_TESTS:
        raise ValueError(f"more than {MAX_TESTS} tests")
    return tests


def rows_of(lines):
    ended = set()  # calls whose last rule had no test: nothing behind it could ever fit
    for number, line in enumerate(lines, 1):
        line = line.split("#", 1)[0].strip()
        if not line:
            continue
        try:
            m = RULE.match(line)
            if not m:
                raise ValueError("cannot read this rule")
            action, tests = action_of(m["action"]), tests_of(m["tests"])
            for word in m["names"].split():
                name, _, given = word.partition("=")
                if name in ended:
                    raise ValueError(f"{name} was decided above")
                if not tests:
                    ended.add(name)
                yield name, int(given) if given else -1, action, tests
        except ValueError as e:
            sys.exit(f"{sys.argv[1]}:{number}: {e}")


def main():
    with open(sys.argv[1], encoding="ascii") as f:
        rows = list(rows_of(f))
    with open(sys.argv[2], "w", encoding="ascii") as out:
        out.write("/* Generated from data/seccomp.policy by policy_gen.py. */\n"
                  '#include "engine/sandbox/filter.h"\n\n#include <errno.h>\n\n'
                  "const struct filter_row policy_rows[] = {\n")
        for name, number, action, tests in rows:
            inner = ", ".join("{ %d, 0x%xULL, 0x%xULL }" % t for t in tests)
            out.write('        { "%s", %d, %s, %d, { %s } },\n' % (
                name, number, action, len(tests), inner or "{ 0, 0, 0 }"))
        out.write("};\nconst size_t policy_n_rows = sizeof policy_rows / sizeof policy_rows[0];\n")


main()
