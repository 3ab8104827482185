#!/usr/bin/env python3
"""Turn data/policy/apparmor.template into a C table.  usage: apparmor_gen.py TEMPLATE OUT.c

The grammar is described at the top of the template itself.  A mistake in it ends the build with the
line's number; what AppArmor's own parser makes of a rule is shown by the unit tests."""
import sys

PROFILES = ("standard", "strict", "compat")


def fail(number, why):
    sys.exit(f"{sys.argv[1]}:{number}: {why}")


def read(path):
    """(flags, {profile: its rows})"""
    flags, common, own, section = None, [], {p: [] for p in PROFILES}, None
    with open(path, encoding="ascii") as f:
        for number, line in enumerate(f, 1):
            line = line.split("#", 1)[0].strip()
            if not line:
                continue
            if line.startswith("[") and line.endswith("]"):
                section = line[1:-1]
                if section not in PROFILES:
                    fail(number, f"there is no profile {section}")
            elif line.startswith("flags "):
                if flags or section:
                    fail(number, "flags are named once, for all profiles")
                flags = line.split(None, 1)[1]
            elif not line.endswith(","):
                fail(number, "a rule ends with a comma")
            elif line.count("%") != 2 * line.count("%profile%"):
                fail(number, "%profile% is the only word that is filled in")
            else:
                (own[section] if section else common).append(line)
    if not flags or not common:
        sys.exit(f"{path}: no flags, or no rule")
    return flags, {p: own[p] + common for p in PROFILES}


def quoted(text):
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '\\n"'


def main():
    flags, rows = read(sys.argv[1])
    with open(sys.argv[2], "w", encoding="ascii") as out:
        out.write("/* Generated from data/policy/apparmor.template by apparmor_gen.py. */\n"
                  '#include "engine/sandbox/apparmor_priv.h"\n\n'
                  f'const char apparmor_flags[] = "{flags}";\n'
                  "const char *const apparmor_rules[SECURITY_PROFILE_COUNT] = {\n")
        for p in PROFILES:
            out.write(f"        [SECURITY_{p.upper()}] =\n")
            out.write("\n".join("                " + quoted(row) for row in rows[p]) + ",\n")
        out.write("};\n")


main()
