"""Never loses, never leaks: kill -9 of anything of ours at any moment, on a real host.

What must hold after every kill, once a dead engine was started again: each cluster runs as it
should or is cleanly stopped with a reason; then it can be terminated, and control plane, journal,
claims and kernel agree that nothing is left.

Points to kill at are found by following one run with tests/flow/crash/killpoint.c; what is random
is drawn from a seed that is printed: HVMM_SEED=N repeats a run."""
import json
import os
import pathlib
import random
import signal
import sqlite3
import subprocess
import time

import pytest
import requests

import inventory
from host import ApiError, Host, Node, image_layout, program
from ocimake import Image, Layer, Registry

SEED = int(os.environ.get("HVMM_SEED") or random.randrange(1 << 32))
GRACE_S = 0.3
ENGINE = {"cpu_overcommit": 100, "memory_overcommit": 50, "disk_overcommit": 100,
          "grace": "%dms" % (GRACE_S * 1000), "registry_silence": "2s", "log_level": "debug"}
NO_POOLS = dict(ENGINE, pool_networks=0, pool_disks=0)
SLEEP = "sleep 1000"


@pytest.fixture(scope="module")
def registry():
    with Registry() as reg:
        yield reg


@pytest.fixture(scope="module")
def host(registry):
    """A host that holds nothing while nothing is deployed, so that what is left can be told."""
    with Host({"engine": NO_POOLS, 'registry "%s"' % registry.host: {"insecure": "yes"}}) as h:
        h.import_image("tensorone/starter")
        with h.running(*SLEEP.split()):  # makes the formatted master of that disk size
            pass
        yield h


def busybox_image(salt):
    layer = Layer().dir("bin").dir("etc").file("etc/salt", salt * 5000)
    with open("/bin/busybox", "rb") as f:
        layer.file("bin/busybox", f.read(), mode=0o755)
    for name in ("sh", "sleep", "echo"):
        layer.symlink("bin/" + name, "busybox")
    return Image([layer.tar(), Layer().dir("opt").file("opt/second", salt).tar()])


# --- what must hold after a kill --------------------------------------------------------------

def alive(pid):
    stat = inventory.read("/proc/%d/stat" % pid)
    return bool(stat) and stat[stat.rindex(")") + 2] != "Z"


def wait_until(check, timeout=20, what="it"):
    end = time.monotonic() + timeout
    while True:
        found = check()
        if found:
            return found
        if time.monotonic() > end:
            raise TimeoutError("%s never came" % what)
        time.sleep(0.01)


def revive(host):
    """The engine again when it is dead, and the API again when that is."""
    if host.proc is None or host.proc.poll() is not None:
        host.proc = None
        host.start()

    def serves():
        try:
            return host.clusters() is not None
        except (requests.RequestException, ValueError):
            return False
    wait_until(serves, what="the API")


def resting(c):
    """Neither on its way up nor down."""
    return c["runtime"] is not None if c["desiredStatus"] == "RUNNING" else c["phase"] == "exited"


def converge(host, timeout=30):
    """Wait until every cluster is at rest; then API, journal and kernel tell the same."""
    def rest():
        return all(resting(c) for c in host.clusters())
    try:
        wait_until(rest, timeout, "rest")
    except TimeoutError as e:
        raise AssertionError("%s: %s\n%s" % (e, host.clusters(), host.log_text()[-4000:])) from e
    clusters = host.clusters()
    rows = host.journal()
    for c in clusters:
        row = rows.get(c["id"])
        if c["desiredStatus"] == "RUNNING":
            assert row and row["state"] == "running", (c, row)
            assert alive(row["init_pid"]) and alive(row["monitor_pid"]), row
            assert host.claims("slots").get(row["slot"]) == row["claim"], row
            assert row["init_pid"] in host.pids(c["id"])
        else:
            assert not row or (row["state"] == "exited" and row["slot"] == 0), (c, row)
            assert c["reason"] is not None or not row or row["want_running"] == 0, c
    for name, row in rows.items():  # the API shows no cluster that is going away
        assert name in {c["id"] for c in clusters} or row["want_gone"], row
    return clusters


def clear(host):
    """Terminate what there is; then nothing of it is anywhere."""
    for c in host.clusters():
        host.terminate(c["id"])
    host.wait_held(set())
    wait_until(lambda: not host.journal() and not host.clusters(), what="the end of all records")
    assert store_rows(host) == {}


def store_rows(host):
    """Rows that the control plane still keeps for clusters, by table; a copy is read."""
    import shutil
    import tempfile
    found = {}
    with tempfile.TemporaryDirectory() as tmp:
        for f in (host.data / "control").glob("*.db*"):
            shutil.copy(f, tmp)
        for f in pathlib.Path(tmp).glob("*.db"):
            with sqlite3.connect(f) as db:
                for (table,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'"):
                    if table in ("cluster", "reservation"):
                        rows = db.execute("SELECT * FROM %s" % table).fetchall()
                        if rows:
                            found[table] = rows
            db.close()
    return found


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
    deploy = dict(dockerArgs=SLEEP, volumeInGb=1)

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
        if time.monotonic() > end:
            break
        seen = play_or_tell(scenario, n, victim)
        done += 1
        killed += len(seen) >= n
        print("point %d (%s): killed %s" % (n, " ".join(seen[n - 1]) if len(seen) >= n else
                                            "not reached", victim))
    print("%d of %d points, %d kills" % (done, len(plan), killed))
    assert done >= len(plan) * 2 // 3, "this machine is too slow: %d of %d" % (done, len(plan))
    assert killed >= done * 2 // 3, (killed, done)


def play_or_tell(scenario, n, victim):
    try:
        return play(scenario, n, victim)
    except BaseException:
        print("at point %d, killing %s" % (n, victim))
        raise


@pytest.mark.limit(200)
def test_kill_at_each_call_of_a_boot(host):
    kill_everywhere(Boot(host), 90, 40, 70)


@pytest.mark.limit(200)
def test_kill_at_each_call_of_a_stop(host):
    kill_everywhere(Stop(host), 40, 15, 30)


@pytest.mark.limit(200)
def test_kill_at_each_call_of_a_terminate(host):
    kill_everywhere(Terminate(host), 30, 10, 25)


@pytest.mark.limit(200)
def test_kill_at_each_call_of_a_pull(host, registry):
    scenario = Pull(host)
    scenario.ref = registry.add("crash/pull", "v1", busybox_image(b"pull"))
    scenario.base_layers = len(list((host.data / "images/layers").iterdir()))
    kill_everywhere(scenario, 40, 15, 40)


@pytest.mark.limit(200)
def test_kill_at_each_call_of_an_import(host, tmp_path):
    scenario = Import(host)
    scenario.ref = "crash/import"
    scenario.layout = tmp_path / "layout"
    busybox_image(b"import").write_layout(str(scenario.layout))
    scenario.base_layers = len(list((host.data / "images/layers").iterdir()))
    kill_everywhere(scenario, 30, 10, 30)
