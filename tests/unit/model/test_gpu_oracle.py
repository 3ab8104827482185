"""The chooser against an independent oracle: the fleets that come with the program, hand-made hard
ones, and 1,000 random link tables.  Same set, same score, same loss, every time."""
import json
import os
import pathlib
import random
import socket
import subprocess
import sys

import pytest

sys.path[:0] = [os.path.dirname(__file__), os.path.join(os.path.dirname(__file__), "../../lib"),
                os.path.join(os.path.dirname(__file__), "../../e2e")]
import gpu_oracle  # noqa: E402
import programs  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[3]
FLEETS = sorted(p.name for p in (ROOT / "data/fleets").iterdir() if p.name != "meson.build")
NAME = "NVIDIA H100 80GB HBM3"
LINKS = ["SYS", "NODE", "PHB", "PXB", "PIX", "NV1/SYS", "NV2/SYS", "NV4/NODE", "NV6", "NV12/NODE",
         "NV18/PIX", "NV12"]


def mask(s):
    return "%x" % sum(1 << i for i in s)


def members(text):
    n = int(text, 16)
    return frozenset(i for i in range(64) if n >> i & 1)


def gpu(i, name=NAME, **more):
    return {"uuid": "GPU-%d" % i, "name": name, "state": "ok", **more}


def run(cases):
    """[(fleet, [(free, wish, keep, k)])] -> answers, one list per case"""
    text = "".join(json.dumps({"fleet": fleet, "ask": [
        {"free": mask(free), "wanted": wish, "keep": mask(keep), "k": k}
        for free, wish, keep, k in asks]}) + "\n" for fleet, asks in cases)
    out = subprocess.run([os.path.join(programs.build_dir(), "tests/unit/model/choose_tool")], input=text, capture_output=True, text=True,
                         timeout=60, check=True).stdout.splitlines()
    assert len(out) == sum(len(asks) for _, asks in cases)
    at = iter(out)
    return [[next(at) for _ in asks] for _, asks in cases]


def check(cases, kinds=None):
    """Every answer is the oracle's; returns how many had a set."""
    found = 0
    for (fleet, asks), answers in zip(cases, run(cases)):
        oracle = gpu_oracle.Oracle(fleet)
        for (free, wish, keep, k), answer in zip(asks, answers):
            wanted = kinds(wish) if kinds else list(oracle.types)
            best = oracle.best(set(free), wanted, set(keep), k)
            if best is None:
                assert answer.startswith("-"), (fleet, free, wish, keep, k, answer)
                continue
            s, score, loss, nodes = answer.split()
            got = members(s), int(score), int(loss), int(nodes)
            assert got == best, (json.dumps(fleet), sorted(free), keep, k, sorted(got[0]), got[1:],
                                 sorted(best[0]), best[1:])
            found += 1
    return found


def random_links(rng, n):
    """Of several temperaments: all different, few kinds, mostly nothing, symmetric blocks."""
    kind = rng.randrange(5)
    some = LINKS if kind == 0 else rng.sample(LINKS, rng.randint(1, 3))
    block = [rng.randrange(rng.randint(1, 4)) for _ in range(n)]
    between = {}
    links = [["X"] * n for _ in range(n)]
    for a in range(n):
        for b in range(a):
            if kind == 4:
                key = tuple(sorted((block[a], block[b])))
                text = between.setdefault(key, rng.choice(LINKS))
            elif kind == 3:
                text = rng.choice(LINKS) if rng.random() < 0.15 else "SYS"
            elif kind == 2:
                text = "NV%d/%s" % (rng.randint(1, 18), rng.choice(["SYS", "NODE", "PIX"]))
            else:
                text = rng.choice(some)
            links[a][b] = links[b][a] = text
    return links


def random_asks(rng, n, count):
    asks = []
    for _ in range(count):
        free = set(range(n)) if rng.random() < 0.3 else {i for i in range(n) if rng.random() < 0.7}
        k = rng.randint(1, max(1, len(free)))
        keep = set()
        if rng.random() < 0.25:
            keep = set(rng.sample(range(n), rng.randint(1, min(k, n))))
        asks.append((free, "any", keep, k))
    return asks


def random_case(rng, n, count):
    names = [NAME] if rng.random() < 0.7 else [NAME, "NVIDIA H100 NVL"]
    gpus = [gpu(i, rng.choice(names), numa_node=rng.choice([0, 0, 1, 65535])) for i in range(n)]
    return {"list": gpus, "links": random_links(rng, n)}, random_asks(rng, n, count)


def test_random_tables():
    rng = random.Random(4)
    sizes = [rng.randint(1, 8) for _ in range(880)] + [rng.randint(9, 12) for _ in range(100)] + [16] * 20
    cases = [random_case(rng, n, 12 if n <= 8 else 4 if n <= 12 else 2) for n in sizes]
    assert len(cases) == 1000
    assert check(cases) > 9000


def random_partitions(rng, n):
    some = [set(range(n))]
    while len(some[-1]) > 2:
        last = sorted(some[-1])
        some.append(set(rng.sample(last, len(last) // 2)))
        some.append(set(last) - some[-1])
    more = [set(rng.sample(range(n), rng.randint(1, n))) for _ in range(rng.randint(0, 6))]
    return [sorted(p) for p in some + more]


def test_fabrics():
    rng = random.Random(5)
    cases = []
    for _ in range(200):
        fleet, asks = random_case(rng, rng.randint(2, 8), 10)
        cases.append(({**fleet, "partitions": random_partitions(rng, len(fleet["list"]))}, asks))
    assert check(cases) > 500


def test_instances():
    """Instances of several profiles on several GPUs, beside whole ones."""
    rng = random.Random(6)
    cases = []
    for _ in range(300):
        gpus, n = [], 0
        for card in range(rng.randint(1, 4)):
            gpus.append(gpu(n, index=card, mig_mode=rng.random() < 0.8, numa_node=card % 2))
            n += 1
            for gi in range(rng.randint(0, 6) if gpus[-1]["mig_mode"] else 0):
                gpus.append(gpu(n, uuid="MIG-%d" % n, mig_profile=rng.choice(["1g.10gb", "2g.20gb"]),
                                parent=gpus[n - 1 - gi]["uuid"], gi=rng.randrange(14), ci=0,
                                index=card, numa_node=card % 2))
                n += 1
        links = [["X" if a == b else "SYS" for b in range(n)] for a in range(n)]
        kinds = [("any", None), (NAME + " 1g.10gb", "1g.10gb"), ("H100 SXM 2g.20gb", "2g.20gb")]
        asks = []
        for _ in range(8):
            free = {i for i in range(n) if rng.random() < 0.8}
            asks.append((free, rng.choice(kinds)[0], set(), rng.randint(1, 5)))
        cases.append(({"list": gpus, "links": links}, asks))
    assert check(cases, lambda wish: [(NAME, dict(kinds)[wish])]) > 500


def switches(sizes, inner="PIX", outer="SYS"):
    """GPUs below equal switches."""
    of = [k for k, n in enumerate(sizes) for _ in range(n)]
    n = len(of)
    return {"list": [gpu(i, numa_node=of[i] // 2) for i in range(n)],
            "links": [["X" if a == b else inner if of[a] == of[b] else outer for b in range(n)]
                      for a in range(n)]}


def test_hard_shapes():
    """What makes many equals: stars, rings, cubes, pairs, switches; and more than sixteen GPUs."""
    rng = random.Random(7)
    cases = []

    def add(n, linked, text="NV4/SYS", other="SYS", numa=lambda i: i * 2 // 16):
        fleet = {"list": [gpu(i, numa_node=numa(i)) for i in range(n)],
                 "links": [["X" if a == b else text if linked(a, b) or linked(b, a) else other
                            for b in range(n)] for a in range(n)]}
        cases.append((fleet, random_asks(rng, n, 6)))

    for n in (8, 12):
        add(n, lambda a, b: a == 0)                                  # star
        add(n, lambda a, b: (a + 1) % n == b)                        # ring
        add(n, lambda a, b: a // 2 == b // 2)                        # pairs
        add(n, lambda a, b: a % 2 != b % 2)                          # both sides
        add(n, lambda a, b: bin(a ^ b).count("1") == 1)              # cube
        add(n, lambda a, b: False)
        add(n, lambda a, b: True)
    for sizes in ([5, 5, 5, 5], [10, 10], [4, 4, 4, 4, 4], [17], [1, 16]):
        fleet = switches(sizes)
        n = sum(sizes)
        asks = [({i for i in range(n) if rng.random() < 0.8}, "any", set(), k) for k in (1, 2, 3, 4)]
        asks += [(set(range(n)), "any", {1}, 3), (set(range(n)), "any", set(), n)]
        cases.append((fleet, asks))
    assert check(cases) > 90


def test_too_many_that_are_all_different():
    rng = random.Random(8)
    n = 24
    links = [["X"] * n for _ in range(n)]
    for a in range(n):
        for b in range(a):
            links[a][b] = links[b][a] = "NV%d" % rng.randint(1, 60)
    fleet = {"list": [gpu(i) for i in range(n)], "links": links}
    answers = run([(fleet, [(set(range(n)), "any", set(), k) for k in (2, 12, 23)])])[0]
    assert all("1 or all that are free" in a for a in answers)
    check([(fleet, [(set(range(n)), "any", set(), k) for k in (1, n)])])


def test_messages():
    half = switches([4, 4])
    half["partitions"] = [[0, 1], [2, 3], [4, 5], [6, 7], [0, 1, 2, 3], [4, 5, 6, 7], list(range(8))]
    answers = run([(half, [(set(range(8)), "any", set(), 3), ({0, 2, 4}, "any", set(), 2),
                           ({0, 2}, "any", set(), 4), (set(), "any", set(), 1),
                           (set(range(8)), "any", set(), 65)])])[0]
    assert "is divided into sets of 2, 4 or 8, not 3" in answers[0]
    assert "3 are free, but no 2 of them are a set of the NVSwitch fabric" in answers[1]
    assert "2 of one type are free" in answers[2]
    assert "0 of one type are free" in answers[3]
    assert answers[4].startswith("-")


def fleet_of(name):
    """As vmm-gpu reads it through the stand-in driver library."""
    from fake_node import Framed
    ours, theirs = socket.socketpair()
    nvml = os.path.join(programs.build_dir(), "tests/fakes/nvml/libnvidia-ml.so.1")
    child = subprocess.Popen([programs.program("vmm-gpu"), "--fd", str(theirs.fileno()), "--nvml", nvml,
                              "--fleet", str(ROOT / "data/fleets" / name)], pass_fds=[theirs.fileno()])
    theirs.close()
    ours.settimeout(10)
    conn = Framed(ours)
    try:
        conn.send({"type": "open", "omit": []})
        while True:
            msg, _ = conn.recv()
            if msg["type"] == "fleet":
                return msg
    finally:
        ours.close()
        child.wait(10)


@pytest.mark.parametrize("name", FLEETS)
def test_fleets(name):
    fleet = fleet_of(name)
    n = len(fleet["list"])
    assert n > 0, fleet
    rng = random.Random(name)
    asks = [(set(range(n)), "any", set(), k) for k in range(1, n + 1)]
    for _ in range(40 if n <= 8 else 6):
        asks.append(({i for i in range(n) if rng.random() < 0.6}, "any", set(), rng.randint(1, min(n, 8))))
    kinds = {(g["name"], None) for g in fleet["list"]}
    assert check([(fleet, asks)], lambda wish: kinds) > 0
    profiles = {g.get("mig_profile") for g in fleet["list"]} - {None, ""}
    for p in profiles:
        wish = "NVIDIA A100 " + p
        asks = [({i for i in range(n) if rng.random() < 0.8}, wish, set(), rng.randint(1, 4)) for _ in range(20)]
        check([(fleet, asks)], lambda w: {(g["name"], p) for g in fleet["list"]})
