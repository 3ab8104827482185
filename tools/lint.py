#!/usr/bin/python3
"""What a compiler does not check: tools/lint.py [--quick] [CHECK...]

--quick leaves out what takes seconds (headers, cppcheck); the unit tests run it so.
Prints `file:line: message` per finding; exit status 1 when there is any."""
import argparse
import concurrent.futures
import json
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# Who may include whom (DESIGN.md, section 10).  Every program uses base and model, its own folder,
# and nothing of another program.  Within a program the rows go upwards: a folder includes itself
# and rows below it, never its neighbours in the same row.
GROUND = [{"base"}, {"model"}, {"store"}, {"edge"}]
PROGRAMS = {
    "engine": [{"engine:ground"}, {"engine/claim"}, {"engine/slice", "engine/disk"},
               {"engine/net", "engine/sandbox", "engine/image", "engine/journal", "engine/op",
                "engine/vm"},
               {"engine/gpu"}, {"engine/boot"}, {"engine/pool"}, {"engine/fleet"}, {"engine/channel"}, {"engine/kaudit"},
               {"engine"}],
    "control": [{"control/graphql", "control/store", "control/node", "control/seal"},
                {"control/account"},
                {"control/place"}, {"control/plane"}, {"control/resolve"}, {"control/rest"},
                {"control"}],
    "cli": [{"cli"}],
    "fetch": [{"fetch"}],
    "monitor": [{"monitor"}],
    "gpu": [{"gpu"}],
    "dns": [{"dns"}],
    "ssh": [{"ssh"}],
}
# Files that lie in a program's top folder and belong to its lowest row.
GROUND_FILES = {"engine/instance", "engine/conf", "engine/idmap", "engine/host", "engine/policy",
                "engine/tcp_listen", "engine/sshtree"}

BANNED = {  # CODING_STYLE.md, rule 27
    "alloca": "grows the stack without a limit", "strcpy": "has no bound", "strcat": "has no bound",
    "sprintf": "has no bound; use snprintf or str_fmt", "vsprintf": "has no bound",
    "gets": "has no bound", "strtok": "keeps state; use strtok_r or strcspn",
    "atoi": "hides errors; use str_u64", "atol": "hides errors; use str_u64",
    "atof": "hides errors", "system": "runs a shell", "popen": "runs a shell",
    "mktemp": "races", "tmpnam": "races",
}
BARE_STRTO = re.compile(r"\b(strto(?:l|ul|ll|ull))\s*\((?:[^()]|\([^()]*\))*,\s*NULL\s*[,)]")
FILE_LINES, FUNCTION_LINES = 1000, 120


def tracked(*suffixes):
    """Files of the project; without git (an unpacked archive) everything but build directories."""
    git = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
                         cwd=ROOT, capture_output=True)
    if git.returncode == 0:
        names = git.stdout.decode().split("\0")
    else:
        names = []
        for base, folders, files in os.walk(ROOT):
            folders[:] = [f for f in folders if f[0] != "." and not os.path.exists(
                os.path.join(base, f, "build.ninja")) and f != "__pycache__"]
            names += [os.path.relpath(os.path.join(base, f), ROOT) for f in files]
    return [f for f in sorted(names) if f and f.endswith(suffixes) and
            os.path.isfile(os.path.join(ROOT, f))]


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8", errors="replace") as f:
        return f.read()


def sources():
    return [f for f in tracked(".c", ".h") if f.startswith("src/")]


def blank(text, keep_strings=False):
    """Comments (and what is inside quotes) as blanks, line breaks kept."""
    def hide(m):
        s = m.group(0)
        if s[0] == "/" or not keep_strings:
            return re.sub(r"[^\n]", " ", s) if s[0] == "/" else s[0] + re.sub(
                r"[^\n]", " ", s[1:-1]) + s[-1]
        return s
    return re.sub(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', hide, text,
                  flags=re.S)


def line_of(text, at):
    return text.count("\n", 0, at) + 1


def includes(path):
    """(line, target) of the quoted includes, targets relative to src/."""
    for m in re.finditer(r'^[ \t]*#[ \t]*include[ \t]+"([^"]+)"', blank(read(path), True), re.M):
        target, line = m.group(1), line_of(read(path), m.start())
        beside = os.path.join(os.path.dirname(path), target)
        if "/" not in target and os.path.isfile(os.path.join(ROOT, beside)):
            target = os.path.relpath(beside, "src")
        yield line, target


def layer(path):
    """"src/engine/net/nft.c" -> "engine/net"; the ground files have a name of their own."""
    path = os.path.relpath(path, "src") if path.startswith("src/") else path
    if os.path.splitext(path)[0] in GROUND_FILES:
        return os.path.dirname(path) + ":ground"
    return os.path.dirname(path)


def check_layers():
    """includes look down only (the table is in this file)"""
    below = {}
    for program in [None] + list(PROGRAMS):
        rows, seen = GROUND + (PROGRAMS[program] if program else []), set()
        for row in rows:
            for folder in row:
                below[folder] = seen | {folder}
            seen = seen | row
    for path in sources():
        mine = layer(path)
        if mine not in below:
            yield path, 1, f"folder {mine} is not in the table of tools/lint.py"
            continue
        for line, target in includes(path):
            if layer(target) not in below[mine]:
                yield path, line, f"{mine} must not include {target}"


def check_cycles():
    """headers do not include each other in a ring"""
    graph = {os.path.relpath(f, "src"): [t for _, t in includes(f)] for f in sources()
             if f.endswith(".h")}
    done, stack = set(), []

    def visit(node):
        if node in stack:
            yield f"src/{node}", 1, "includes itself: " + " > ".join(
                stack[stack.index(node):] + [node])
            return
        if node in done or node not in graph:
            return
        stack.append(node)
        for to in graph[node]:
            yield from visit(to)
        stack.pop()
        done.add(node)
    for node in sorted(graph):
        yield from visit(node)


def check_own_header():
    """a .c includes its own header first; a header has #pragma once"""
    for path in sources():
        text = read(path)
        if path.endswith(".h"):
            if not re.search(r"^#pragma once$", text, re.M):
                yield path, 1, "no #pragma once"
            continue
        own = path[:-2] + ".h"
        first = re.search(r'^#[ \t]*include[ \t]+(\S+)', blank(text, True), re.M)
        if os.path.isfile(os.path.join(ROOT, own)) and first:
            named = first.group(1).strip('"<>')
            if named not in (os.path.relpath(own, "src"), os.path.basename(own)) and \
                    not named.endswith("_priv.h"):  # which includes it
                yield path, line_of(text, first.start()), "its own header comes first"


def check_banned():
    """functions that are not used in src/"""
    names = re.compile(r"(?<![\w.>])(" + "|".join(BANNED) + r")\s*\(")
    for path in sources():
        code = blank(read(path))
        for m in names.finditer(code):
            yield path, line_of(code, m.start()), f"{m.group(1)}: {BANNED[m.group(1)]}"
        for m in BARE_STRTO.finditer(code):
            yield path, line_of(code, m.start()), (f"{m.group(1)} without an end pointer hides "
                                                   "errors; use str_u64")


def check_exits():
    """exit and abort only in a program's main.c"""
    for path in sources():
        if os.path.basename(path) == "main.c":
            continue
        code = blank(read(path))
        for m in re.finditer(r"(?<![\w.>])(exit|abort)\s*\(", code):
            yield path, line_of(code, m.start()), f"{m.group(1)} outside main.c"


def check_opening():
    """each file opens with what it is for"""
    for path in sources():
        if not re.match(r"/\* ?\S+\.[ch]\b", read(path)):
            yield path, 1, "does not open with '/* name - what it is for'"


def check_todo():
    """a TODO has an issue number"""
    mark = re.compile(r"\b(TODO|FIXME|XXX)\b(?!\(#\d+\))")
    for path in tracked(".c", ".h", ".py", ".sh", ".build", ".graphqls"):
        if path == "tools/lint.py":
            continue
        for n, text in enumerate(read(path).splitlines(), 1):
            if mark.search(text):
                yield path, n, "a TODO without an issue number"


def check_size():
    """files of at most 1,000 lines, functions of at most 120"""
    for path in sources():
        n = read(path).count("\n")
        if n > FILE_LINES:
            yield path, n, f"{n} lines; over {FILE_LINES} wants a split"
    out = subprocess.run(["ctags", "--output-format=json", "--fields=+ne", "--kinds-c=f", "-L", "-",
                          "-f", "-"], input="\n".join(f for f in sources() if f.endswith(".c")),
                         cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for tag in map(json.loads, out.splitlines()):
        length = tag.get("end", tag["line"]) - tag["line"] + 1
        if length > FUNCTION_LINES:
            yield tag["path"], tag["line"], f"{tag['name']}: {length} lines"


def check_scripts():
    """shell and Python parse"""
    for path in tracked(""):
        full = os.path.join(ROOT, path)
        with open(full, "rb") as f:
            first = f.readline(100).decode(errors="replace")
        shell = re.match(r"#! ?(?:/usr/bin/env )?(?:/\S*/)?(sh|bash|dash)\b", first)
        if shell or path.endswith(".sh"):
            r = subprocess.run([shell.group(1) if shell else "sh", "-n", full], capture_output=True,
                               text=True)
            if r.returncode:
                yield path, 1, r.stderr.strip().splitlines()[0]
        elif path.endswith(".py") or re.match(r"#!.*python", first):
            try:
                compile(read(path), path, "exec")
            except SyntaxError as e:
                yield path, e.lineno or 1, f"syntax error: {e.msg}"


def check_headers():
    """each header compiles alone"""
    headers = [f for f in sources() if f.endswith(".h")]

    def compile_one(path):
        return subprocess.run(["gcc", "-std=c17", "-D_GNU_SOURCE", "-D_FILE_OFFSET_BITS=64",
                               "-fsyntax-only", "-Wall", "-Wextra", "-Isrc", "-I.", "-x", "c",
                               "-include", path, "/dev/null"], cwd=ROOT, capture_output=True,
                              text=True)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for path, r in zip(headers, pool.map(compile_one, headers)):
            if r.returncode:
                error = next((x for x in r.stderr.splitlines() if "error" in x), r.stderr[:200])
                yield path, 1, "does not compile alone: " + error


def check_cppcheck():
    """cppcheck's warnings"""
    r = subprocess.run(["cppcheck", "--quiet", "--enable=warning,portability", "--std=c11", "-j2",
                        "--inline-suppr",
                        "--suppress=memleak",  # it does not know the cleanup attribute
                        "--template={file}:{line}: {id}: "
                        "{message}", "-Isrc", "-D__x86_64__", "src"], cwd=ROOT, capture_output=True,
                       text=True)
    for text in r.stderr.splitlines():
        m = re.match(r"(src/[^:]+):(\d+): (.*)", text)
        if m:
            yield m.group(1), int(m.group(2)), m.group(3)


QUICK = [check_layers, check_cycles, check_own_header, check_banned, check_exits, check_opening,
         check_todo, check_size, check_scripts]
SLOW = [check_headers, check_cppcheck]


def main():
    names = {f.__name__[len("check_"):]: f for f in QUICK + SLOW}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("check", nargs="*", choices=[[]] + list(names), metavar="CHECK",
                        help=", ".join(names))
    args = parser.parse_args()
    checks = [names[n] for n in args.check] or (QUICK if args.quick else QUICK + SLOW)
    found = 0
    for check in checks:
        for path, line, message in check():
            found += 1
            print(f"{path}:{line}: {message}", flush=True)
    print(f"{len(checks)} checks, {found} findings")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
