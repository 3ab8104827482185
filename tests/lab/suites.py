"""What of tests/flow, tests/e2e and tests/attack runs in the lab, and what does not and why.

The guest is emulated, ten to thirty times as slow as a host, so `make lab` takes what another kernel, the
second version of cgroups and AppArmor can change: the attacks, and what is limited, confined and recovered.
`tests/lab/run --suite all` takes all of it; what is in LEFT_OUT does not run there at all."""
import re
import subprocess
import threading
import time

LANES = 2          # pytest at a time: they wait as much as they work
LIMIT_S = 1500     # for one file

DEFAULT = ("attack/*", "e2e/test_limits", "e2e/test_profiles", "e2e/test_network_policy", "e2e/test_surface")
LEFT_OUT = {
    "attack/test_mutate": "it compiles the product anew, and the guest has no compiler",
    "e2e/test_browser": "Chromium, emulated, takes minutes for a page; and it needs llm-starter, which does not come along",
    "e2e/test_demo": "it needs llm-starter, which does not come along",
    "e2e/test_names": "it needs llm-starter, which does not come along",
    "e2e/test_terminal": "it needs llm-starter, which does not come along",
    "e2e/test_vps": "its image is made from packages, and the guest has no network to get them from",
}
RESULT = re.compile(r"^tests/(\S+::.+?) (PASSED|FAILED|ERROR|SKIPPED)\b")


def expand(words, tests):
    """Names of files below @tests, without .py, in the order in which they are asked for."""
    names = []
    for word in words:
        for name in DEFAULT if word == "default" else ("flow/*", "e2e/*", "attack/*") if word == "all" else (word,):
            name = name if "/" in name else "flow/" + name
            folder, stem = name.split("/", 1)
            names += sorted("%s/%s" % (folder, p.stem) for p in (tests / folder).glob("test_*.py")) \
                if stem == "*" else [name]
    return list(dict.fromkeys(names))


def run_file(report, root, name):
    """A result for each of its tests, and one that says that it has come to its end.  Or of one: file::test."""
    parts = name.partition("::")
    run = subprocess.Popen(["/usr/bin/python3", "-u", "-m", "pytest", "-v", "--no-header", "--tb=short",
                            "--rootdir", str(root), "-p", "no:cacheprovider", "tests/%s.py%s%s" % parts],
                           stdout=subprocess.PIPE, cwd=root, stderr=subprocess.STDOUT, text=True)
    late = threading.Timer(LIMIT_S, run.terminate)  # its fixtures clean up
    late.start()
    results, begin, said = 0, time.monotonic(), []
    start = begin
    for line in run.stdout:
        m = RESULT.match(line)
        if m:
            results, now = results + 1, time.monotonic()
            report.result(m[2] == "PASSED", m[1], now - start)
            start = now
        elif line.strip():
            said.append(line)
    code, took = run.wait(), time.monotonic() - begin
    late.cancel()
    if code or took > LIMIT_S:  # in one piece: the other lane speaks, too
        report.say("%s%s" % ("".join(said), "ended after its %d s" % LIMIT_S if took > LIMIT_S else ""))
    report.result(code == 0 and results > 0, "%s: %d tests" % (name, results), took)


def run(report, root, words):
    """Those that compare what is on the host before and after, alone at the end."""
    names = expand(words, root / "tests")
    if any(name.startswith("attack/") for name in names):
        report.say("attacks try a tenth as often, and every third of their forms that cost a cluster each: "
                   "emulated (tests/lib/attack.py, tries() and some())")
    for name in names:
        if name in LEFT_OUT:
            report.say("left out: %s: %s" % (name, LEFT_OUT[name]))
    names = [n for n in names if n not in LEFT_OUT]
    alone = [n for n in names
             if "\nALONE = True" in (root / ("tests/%s.py" % n.partition("::")[0])).read_text(encoding="utf-8")]
    queue = [n for n in names if n not in alone]

    def lane():
        while True:
            try:
                name = queue.pop(0)
            except IndexError:
                return
            run_file(report, root, name)
    lanes = [threading.Thread(target=lane) for _ in range(LANES)]
    for t in lanes:
        t.start()
    for t in lanes:
        t.join()
    for name in alone:
        run_file(report, root, name)
