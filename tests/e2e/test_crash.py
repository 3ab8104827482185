"""Never loses, never leaks: kill -9 of anything of ours at any moment, on a real host.

What must hold after every kill, once a dead engine was started again: each cluster runs as it
should or is cleanly stopped with a reason; then it can be terminated, and control plane, journal,
claims and kernel agree that nothing is left.

Points to kill at are found by following one run with tests/flow/crash/killpoint.c; what is random
is drawn from a seed that is printed: HVMM_SEED=N repeats a run.  Of many points some are taken;
HVMM_ALL_POINTS=1 takes all, in half an hour."""
import os
import random
import re
import signal
import sqlite3
import subprocess
import threading
import time

import pytest
import requests

import inventory
from crash import (alive, clear, converge, group_pids, resting, revive, revive_engine, store_rows,
                   wait_until)
from host import ApiError, Host, program
from ocimake import Image, Layer, Slow

SEED = int(os.environ.get("HVMM_SEED") or random.randrange(1 << 32))
ALL = bool(os.environ.get("HVMM_ALL_POINTS"))
LIMIT_S = 3600 if ALL else 600
GRACE_S = 0.3
ENGINE = {"cpu_overcommit": 100, "memory_overcommit": 50, "disk_overcommit": 100,
          "grace": "%dms" % (GRACE_S * 1000), "registry_silence": "2s", "log_level": "debug"}
NO_POOLS = dict(ENGINE, pool_networks=0, pool_disks=0)
SLEEP = "sleep 1000"


@pytest.fixture(scope="module")
def host(registry):
    """A host that holds nothing while nothing is deployed, so that what is left can be told."""
    with Host({"engine": NO_POOLS, 'registry "%s"' % registry.host: {"insecure": "yes"}}) as h:
        h.import_image("tensorone/starter")
        with h.running(*SLEEP.split()):  # makes the formatted master of that disk size
            pass
        yield h


def busybox_image(salt):
    layer = Layer().busybox("sh", "sleep", "echo").dir("etc").file("etc/salt", salt * 5000)
    return Image([layer.tar(), Layer().dir("opt").file("opt/second", salt).tar()])


# --- 1. before each system call that changes something ------------------------------------------

class Killer:
    """killpoint on a host's engine and its operations, for the length of the block."""

    def __init__(self, host, n=0, victim="self"):
        self.host, self.n, self.victim = host, n, victim

    def __enter__(self):
        who = str(self.host.pid) if self.victim == "engine" else "self"
        pids = [self.host.pid] + self.host.descendants("hvmm-op")
        self.proc = subprocess.Popen(
            [program("tests/flow/crash/killpoint"), str(self.n), who] + [str(p) for p in pids],
            stdout=subprocess.PIPE, text=True)
        assert self.proc.stdout.readline() == "ready\n"
        return self

    def __exit__(self, *exc):
        self.proc.terminate()
        lines = self.proc.stdout.read().splitlines()
        self.proc.wait(10)
        assert not any(line.startswith("failed") for line in lines), lines[-1]
        self.points = [tuple(line.split()[2:]) for line in lines if line[0].isdigit()]
        self.killed = "killed" in lines

    def over(self):
        """It has killed."""
        return self.proc.poll() is not None


def thin(points):
    """Numbers (from 1) of points, of a long row of the same call by the same program only the first,
    one in the middle and the last."""
    kept, start = [], 0
    for i in range(1, len(points) + 1):
        if i == len(points) or points[i] != points[start]:
            kept += sorted({start + 1, (start + i + 1) // 2, i})
            start = i
    return kept


def sample(numbers, most, rnd):
    """At most @most of them, evenly spread, from a random start."""
    if len(numbers) <= most:
        return numbers
    step = len(numbers) / most
    first = rnd.random() * step
    return [numbers[int(first + i * step)] for i in range(most)]


class Scenario:
    """One action of a control plane: what comes before, the action, and when it is over."""
    deploy = dict(dockerArgs=SLEEP, volumeInGb=1, ports="22/tcp,80/tcp")

    def __init__(self, host):
        self.host, self.cluster = host, None

    def prepare(self):
        self.cluster = self.host.deploy(**self.deploy)
        self.host.wait_running(self.cluster)

    def over(self):
        raise NotImplementedError

    def check(self):
        converge(self.host)

    def finish(self):
        clear(self.host)


class Boot(Scenario):
    def prepare(self):
        pass

    def act(self):
        self.cluster = self.host.deploy(**self.deploy)

    def over(self):
        return resting(self.host.cluster(self.cluster))


class Stop(Scenario):
    def act(self):
        self.host.call("clusterStop", self.cluster)

    def over(self):
        return resting(self.host.cluster(self.cluster))

    def check(self):
        if converge(self.host)[0]["desiredStatus"] == "RUNNING":  # the order itself was lost
            return
        assert self.host.held() == self.host.kept(self.cluster, volume=True)


class Terminate(Scenario):
    def act(self):
        self.host.terminate(self.cluster)

    def over(self):
        return not self.host.held()


class Pull(Scenario):
    def prepare(self):
        pass

    def act(self):
        self.done = None
        self.pull = subprocess.Popen(
            [program("tensoronecli"), "image", "pull", self.ref], env=self.host.cli_env(),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def over(self):
        return self.pull.poll() is not None

    def check(self):
        _, said = self.pull.communicate(timeout=30)
        wait_until(lambda: not self.host.held(), what="the end of the pull: %s" % said)
        layers = sorted(f.name for f in (self.host.data / "images/layers").iterdir())
        here = [i for i in self.host.rest("GET", "/v1/images").json() if self.ref in i["reference"]]
        assert len(layers) == self.base_layers + (2 if here else 0), (layers, here, said)
        if self.pull.returncode == 0:
            assert here, said
        else:
            assert said, "a failed pull must say why"

    def finish(self):
        """Whatever became of it, the image can be had now, and works."""
        self.host.cli("image", "pull", self.ref)
        with self.host.running("sh", "-c", "echo here; sleep 1000", imageName=self.ref) as c:
            self.host.wait_log(c, "here")
        wait_until(lambda: c not in self.host.journal(), what="the end of %s" % c)
        self.host.cli("image", "rm", self.ref)
        assert not self.host.held()


class Import(Pull):
    def act(self):
        self.pull = subprocess.Popen(
            [program("tensoronecli"), "image", "import", self.ref, str(self.layout)],
            env=self.host.cli_env(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True)

    def finish(self):
        assert self.host.cli("image", "import", self.ref, str(self.layout)).returncode == 0
        with self.host.running("sh", "-c", "echo here; sleep 1000", imageName=self.ref) as c:
            self.host.wait_log(c, "here")
        wait_until(lambda: c not in self.host.journal(), what="the end of %s" % c)
        self.host.cli("image", "rm", self.ref)
        assert not self.host.held()


def play(scenario, n, victim):
    """The scenario once, with a kill before point @n; what was killed, or None."""
    host = scenario.host
    scenario.prepare()
    with Killer(host, n, victim) as killer:
        try:
            scenario.act()
            wait_until(lambda: killer.over() or scenario.over(), what="the end of it")
        except (requests.RequestException, ApiError):  # the API died with the engine
            wait_until(killer.over, what="the kill")
    revive(host)
    scenario.check()
    scenario.finish()
    return killer.points


def kill_everywhere(scenario, most, most_engine, seconds):
    rnd = random.Random(SEED)
    if ALL:
        most = most_engine = 1 << 30
        seconds = LIMIT_S
    points = play(scenario, 0, "self")
    numbers = thin(points)
    plan = [(n, "self") for n in sample(numbers, most, rnd)]
    others = [n for n in numbers if points[n - 1][0] != "hypervisor-vmm"]
    plan += [(n, "engine") for n in sample(others, most_engine, rnd)]
    print("seed %d: %d points, %d of them different; %d are tried" % (SEED, len(points),
                                                                      len(numbers), len(plan)))
    rnd.shuffle(plan)
    end, done, killed = time.monotonic() + seconds, 0, 0
    for n, victim in plan:
        if time.monotonic() > end and done >= len(plan) * 2 // 3:
            break
        seen = play_or_tell(scenario, n, victim)
        done += 1
        killed += len(seen) >= n
        print("point %d (%s): killed %s" % (n, " ".join(seen[n - 1]) if len(seen) >= n else
                                            "not reached", victim))
    print("%d of %d points, %d kills" % (done, len(plan), killed))
    assert killed >= done * 2 // 3, (killed, done)


def play_or_tell(scenario, n, victim):
    try:
        return play(scenario, n, victim)
    except BaseException:
        print("at point %d, killing %s" % (n, victim))
        raise


@pytest.mark.limit(LIMIT_S)
def test_kill_at_each_call_of_a_boot(host):
    kill_everywhere(Boot(host), 55, 28, 50)


@pytest.mark.limit(LIMIT_S)
def test_kill_at_each_call_of_a_stop(host):
    kill_everywhere(Stop(host), 26, 10, 25)


@pytest.mark.limit(LIMIT_S)
def test_kill_at_each_call_of_a_terminate(host):
    kill_everywhere(Terminate(host), 20, 8, 20)


@pytest.mark.limit(LIMIT_S)
def test_kill_at_each_call_of_a_pull(host, registry):
    scenario = Pull(host)
    scenario.ref = registry.add("crash/pull", "v1", busybox_image(b"pull"))
    scenario.base_layers = len(list((host.data / "images/layers").iterdir()))
    kill_everywhere(scenario, 20, 8, 30)


@pytest.mark.limit(LIMIT_S)
def test_kill_at_each_call_of_an_import(host, tmp_path):
    scenario = Import(host)
    scenario.ref = "crash/import"
    scenario.layout = tmp_path / "layout"
    busybox_image(b"import").write_layout(str(scenario.layout))
    scenario.base_layers = len(list((host.data / "images/layers").iterdir()))
    kill_everywhere(scenario, 14, 6, 25)


# --- 2. random instants inside concurrent boots ---------------------------------------------------

def first_pids(host):
    """{cluster: host pid of its first process} of what runs, as far as the journal knows."""
    try:
        return {name: row["init_pid"] for name, row in host.journal().items()
                if row["state"] == "running"}
    except sqlite3.Error:  # it was written while it was read
        return {}


class Chaos:
    """Four boots at a time, and kills in between.  One of the four pulls its image first."""
    KILLS = 5

    def __init__(self, host, registry, rnd):
        self.host, self.registry, self.rnd = host, registry, rnd
        self.count = dict.fromkeys(("engine", "api", "operation", "monitor", "fetch"), 0)
        self.killed_monitors = set()

    def monitors(self):
        """{pid: cluster}, of first processes and of sessions."""
        found = {}
        for name, row in self.host.journal().items():
            for pid in group_pids(self.host, "m%d" % row["slot"]) if row["slot"] else ():
                found[pid] = name
        return found

    def victims(self, kind):
        host = self.host
        if kind == "engine":
            return [host.pid]
        if kind == "monitor":
            return list(self.monitors())
        name = {"api": "tensorone-api", "operation": "hvmm-op", "fetch": "vmm-fetch"}[kind]
        return host.descendants(name)

    def kill_one(self):
        kinds = list(self.count)
        self.rnd.shuffle(kinds)
        kinds.sort(key=self.count.get)  # those that were rare so far first
        for kind in kinds:
            found = self.victims(kind)
            if not found:
                continue
            pid = self.rnd.choice(found)
            if kind == "monitor":
                self.killed_monitors.add(self.monitors().get(pid))  # None: it ended just now
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            if kind == "engine":
                self.host.proc.wait()
            self.count[kind] += 1
            return kind
        return None

    def deploy(self, **fields):
        try:
            self.host.deploy(dockerArgs=SLEEP, ports="22/tcp", **fields)
        except (requests.RequestException, ApiError, ValueError):
            pass  # the API or the engine was dead; it may have happened or not

    def round(self, number):
        host, rnd = self.host, self.rnd
        ref = self.registry.add("crash/chaos", "v%d" % number, busybox_image(b"%d" % number))
        boots = [dict(), dict(volumeInGb=1), dict(), dict(imageName=ref)]
        starts = [threading.Thread(target=self.deploy, kwargs=b) for b in boots]
        for t in starts:
            t.start()
        self.killed_monitors.clear()
        said = []
        for _ in range(self.KILLS):
            time.sleep(rnd.random() * 0.08)
            before = first_pids(host)
            said.append(self.kill_one())
            revive_engine(host)
            self.check_kept(before)
        for t in starts:
            t.join()
        revive(host)
        converge(host)
        self.clear(ref)
        return said

    def check_kept(self, before):
        """Who ran before the kill runs on, as the same process."""
        for cluster, pid in before.items():
            if cluster not in self.killed_monitors and None not in self.killed_monitors:
                assert alive(pid), "cluster %s lost its first process %d\n%s" % (
                    cluster, pid, self.host.log_text()[-4000:])

    def clear(self, ref):
        host = self.host
        for c in host.clusters():
            host.terminate(c["id"])
        wait_until(lambda: not host.journal() and not host.clusters(), what="the end of records")
        host.cli("image", "rm", ref, check=False)
        wait_until(lambda: not self.left(), what="the end of %s" % self.left())
        assert store_rows(host) == {}

    def left(self):
        """What is held, except by the pool."""
        host = self.host
        pool = {n for n, name in host.claims("slots").items() if name.startswith("pool-")}
        mine = re.compile(r"^(slot (\d+) of pool-.*|link hv(\d+)|group .*/[cm](\d+)"
                          r"|(?:disk|loop) .*pool-[0-9-]+\.img.*|.* element .*)$")
        found = set()
        for entry in host.held():
            m = mine.match(entry)
            slots = {int(x) for x in m.groups()[1:] if x} if m else set()
            if not m or not slots <= pool:
                found.add(entry)
        return found


@pytest.mark.limit(LIMIT_S)
def test_kill_at_200_random_instants(registry):
    print("seed %d" % SEED)
    rnd = random.Random(SEED)
    slow = registry.fault(r"crash/chaos/blobs/", Slow(0.1))
    with Host({"engine": ENGINE, 'registry "%s"' % registry.host: {"insecure": "yes"}}) as h:
        h.import_image("tensorone/starter")
        chaos = Chaos(h, registry, rnd)
        end, rounds = time.monotonic() + 120, 0
        while rounds * Chaos.KILLS < 200 and time.monotonic() < end:
            print("round %d: %s" % (rounds, " ".join(map(str, chaos.round(rounds)))))
            rounds += 1
        slow.left = 0
        print("%d kills: %s" % (sum(chaos.count.values()), chaos.count))
        assert rounds * Chaos.KILLS >= 150, "this machine is too slow"
        assert all(n >= 10 for n in chaos.count.values()), chaos.count


# --- what waits in the pool -----------------------------------------------------------------------

def shells(host):
    """Host pids of processes that wait for a cluster, by group."""
    found = {}
    for group in (g for g in host.slice_roots()[0].iterdir() if g.is_dir()):
        pids = [p for p in group_pids(host, group.name)
                if inventory.read("/proc/%d/comm" % p).strip() == "hvmm-shell"]
        if pids:
            found[group.name] = pids
    return found


def test_shells_of_the_pool():
    """Killed ones are never handed out, their slots come back; all go with their engine, and what
    has become a cluster stays."""
    with Host({"engine": dict(ENGINE, pool_networks=4, pool_disks=2)}) as h:
        h.import_image("tensorone/starter")
        full = wait_until(lambda: (s := shells(h)) and len(s) == 8 and s, what="a full pool")
        for i, group in enumerate(sorted(full)):  # one of each pair, first process or launcher
            if i % 2 == (group[0] == "m"):
                os.kill(full[group][0], signal.SIGKILL)
        clusters = [h.deploy(dockerArgs=SLEEP) for _ in range(3)]
        for c in clusters:
            h.wait_running(c)
        wait_until(lambda: len(shells(h)) == 8 and len(h.claims("slots")) == 7, what="a full pool")
        before = {c: h.first_pid(c) for c in clusters}
        waiting = [p for pids in shells(h).values() for p in pids]
        h.kill()
        wait_until(lambda: not any(alive(p) for p in waiting), 5, "the end of the shells")
        assert all(alive(p) for p in before.values())
        revive(h)
        assert {c: h.first_pid(c) for c in clusters} == before
        wait_until(lambda: len(shells(h)) == 8 and len(h.claims("slots")) == 7, what="a full pool")
        for c in clusters:
            h.terminate(c)
        h.wait_released()
        h.stop()
        assert not h.claims("slots")
        assert not [r for r in h.slice_roots()], "groups without an engine"
