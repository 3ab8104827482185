"""Ends and new starts of a host: what it finds again, what it refuses to begin with, what a reboot
leaves, and a control plane that says anything at any time.

Random draws come from a seed that is printed: HVMM_SEED=N repeats a run."""
import contextlib
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import tempfile
import time

import pytest

import inventory
from crash import alive, clear, converge, group_pids, revive, wait_until
from host import RUN, ApiError, Host, Node, program
from ocimake import Image, Layer, Registry, Slow

SEED = int(os.environ.get("HVMM_SEED") or random.randrange(1 << 32))
CONFIG = {"engine": {"cpu_overcommit": 100, "memory_overcommit": 50, "disk_overcommit": 100,
                     "pool_networks": 0, "pool_disks": 0, "grace": "300ms", "log_level": "debug"}}
SLEEP = "sleep 1000"


@pytest.fixture
def host():
    with Host(CONFIG) as h:
        h.import_image("tensorone/starter")
        yield h
        revive(h)
        clear(h)


def first_pids(host):
    return {name: (row["monitor_pid"], row["init_pid"]) for name, row in host.journal().items()
            if row["state"] == "running"}


def start_fails(host):
    """What a start that must not succeed says."""
    out = subprocess.run(
        [program("hypervisor-vmm"), "standalone", "--data-dir", str(host.data), "--listen",
         "127.0.0.1:%d" % host.port, "--config", str(host.dir / "config")],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        timeout=30)
    assert out.returncode == 1 and out.stdout == "", out
    return out.stderr.splitlines()[-1]


@contextlib.contextmanager
def journal_of(host):
    with sqlite3.connect(host.data / "journal.db") as db:
        yield db
    db.close()


# --- restarts -------------------------------------------------------------------------------------

@pytest.mark.parametrize("end", ["kill", "stop"])
def test_clusters_outlive_the_engine(host, end):
    ids = [host.deploy(dockerArgs="sh -c 'n=0; while sleep 0.05; do n=$((n+1)); echo line $n; done'")
           for _ in range(2)]
    for c in ids:
        host.wait_running(c)
    before = first_pids(host)
    assert set(before) == set(ids)
    getattr(host, end)()
    assert not host.proc
    assert all(alive(p) for pair in before.values() for p in pair)
    seen = [host_log(host, c) for c in ids]
    time.sleep(0.3)
    assert all(len(host_log(host, c)) > len(s) for c, s in zip(ids, seen)), "they wrote on"
    host.start()
    converge(host)
    assert first_pids(host) == before
    assert host.exec(ids[0], "echo", "in").stdout == "in\n"
    log = host.wait_log(ids[0], "line 10\n").splitlines()
    assert log == ["line %d" % (i + 1) for i in range(len(log))]
    host.call("clusterStop", ids[0])
    assert host.wait_exited(ids[0])["desiredStatus"] == "EXITED"
    assert alive(before[ids[1]][1])


def host_log(host, cluster):
    """The log file as it lies on disk."""
    return (host.data / "clusters" / cluster / "log.0").read_bytes()


def test_a_killed_monitor_costs_its_own_cluster(host):
    kept, hit = [host.deploy(dockerArgs=SLEEP, volumeInGb=1) for _ in range(2)]
    host.wait_running(kept)
    path = host.wait_running(hit)["volumeMountPath"]
    host.exec(hit, "sh", "-c", "echo precious >%s/f; sync" % path)
    before = first_pids(host)
    os.kill(before[hit][0], signal.SIGKILL)
    c = host.wait(hit, lambda c: c["runtime"] is None)
    assert c["reason"] == "its monitor was killed; restarting in 1 s"
    wait_until(lambda: not alive(before[hit][1]), what="the end of what was left of the cluster")
    host.wait_running(hit)
    after = first_pids(host)
    assert after[kept] == before[kept]
    assert after[hit] != before[hit]
    assert host.exec(hit, "cat", path + "/f").stdout == "precious\n"
    # the same while nobody watches
    host.kill()
    os.kill(after[hit][0], signal.SIGKILL)
    host.start()
    host.wait_running(hit)
    converge(host)
    last = first_pids(host)
    assert last[kept] == before[kept] and last[hit] != after[hit]


def test_a_stop_goes_on_after_a_kill(host):
    """An engine that is killed in the grace of a stop gives the rest of it at its next start."""
    c = host.deploy(dockerArgs="sh -c 'trap \"echo bye; exit 7\" TERM; echo up; while :; do sleep 0.05; done'")
    host.wait_log(c, "up")
    host.call("clusterStop", c)
    host.kill()
    host.start()
    host.wait_exited(c)
    assert "bye" in host.logs(c)
    converge(host)
    assert host.held() == host.kept(c)


def test_a_stop_in_the_middle_of_everything():
    """SIGTERM while boots, a pull and an exec are under way: they are finished after the next start,
    or their asker has heard why not."""
    with Registry() as registry, Host(dict(CONFIG, **{
            'registry "%s"' % registry.host: {"insecure": "yes"}})) as host:
        host.import_image("tensorone/starter")
        slow = registry.fault("/blobs/", Slow(2))
        ref = registry.add("a/slow", "v1", Image([Layer().dir("etc").tar()]))
        old = host.deploy(dockerArgs=SLEEP)
        host.wait_running(old)
        before = first_pids(host)
        pull = subprocess.Popen([program("tensoronecli"), "image", "pull", ref], env=host.cli_env(),
                                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                stderr=subprocess.PIPE, text=True)
        wait_until(lambda: host.descendants("vmm-fetch"), what="the pull")
        session = host.session(old, "sleep", "1000")
        new = [host.deploy(dockerArgs=SLEEP, volumeInGb=i % 2) for i in range(6)]
        begin = time.monotonic()
        assert host.stop() == 0
        assert time.monotonic() - begin < 5
        assert pull.wait(10) == 1 and pull.stderr.read()
        with contextlib.suppress(Exception):  # it ends in one of several ways
            session.finish()
        slow.left = 0
        assert all(map(alive, before[old])), "what runs, runs on"
        host.start()
        for c in new:
            host.wait_running(c)
        converge(host)
        assert first_pids(host)[old] == before[old]
        clear(host)


def test_two_hosts_side_by_side():
    with Host(CONFIG) as a, Host(CONFIG) as b:
        for h in (a, b):
            h.import_image("tensorone/starter")
        mine = [h.deploy(dockerArgs=SLEEP) for h in (a, b)]
        for h, c in zip((a, b), mine):
            h.wait_running(c)
        assert not set(a.claims("slots")) & set(b.claims("slots"))
        assert a.id != b.id
        # one data directory has one engine
        assert "another hypervisor-vmm is running on" in start_fails_beside(a)
        kept, held = first_pids(b), b.held()
        a.kill()
        a.start()
        converge(a)
        a.terminate(mine[0])
        a.wait_held(set())
        assert a.stop() == 0
        assert not inventory.below(a.id, []) and not (RUN / a.id).exists()
        assert first_pids(b) == kept and b.held() == held
        assert b.exec(mine[1], "echo", "in").stdout == "in\n"
        assert "1" == inventory.read("/proc/sys/net/ipv4/ip_forward").strip(), "b still needs it"
        b.terminate(mine[1])
        b.wait_held(set())


def start_fails_beside(host):
    port, host.port = host.port, 1
    try:
        return start_fails(host)
    finally:
        host.port = port


def test_a_start_that_fails_leaves_nothing():
    before = None
    with Host(CONFIG) as h, socket.socket() as taken:
        before = inventory.take([str(h.data)])
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        other = Host(CONFIG)
        try:
            other.write_config()
            other.port = taken.getsockname()[1]
            assert "--listen 127.0.0.1:%d: Address already in use" % other.port in start_fails(other)
            name = (other.data / "instance").read_text()
            now = inventory.take([str(h.data), str(other.data)])
            left = [line for line in inventory.compare(before, now) if name in line]
            assert left == []
            assert not (RUN / name).exists()
        finally:
            shutil.rmtree(other.dir)


def test_a_start_with_wrong_words_makes_nothing(tmp_path):
    data = tmp_path / "data"
    wrong = tmp_path / "wrong.conf"
    wrong.write_text("[engine]\nsurprise = 1\n")
    for words, says in [
            (["--listen", "nonsense"], "--listen: 'nonsense' is not ADDRESS:PORT"),
            (["--listen", "127.0.0.1:65536"], "--listen: '127.0.0.1:65536' is not ADDRESS:PORT"),
            (["--listen", "[::1:80"], "--listen: '[::1:80' is not ADDRESS:PORT"),
            (["--listen", "127.0.0.1:0", "--config", str(wrong)],
             "%s:2: [engine] surprise: there is no such option" % wrong)]:
        r = subprocess.run([program("hypervisor-vmm"), "standalone", "--data-dir", str(data), *words],
                           capture_output=True, text=True, timeout=20)
        assert (r.returncode, r.stdout, r.stderr) == (1, "", "hypervisor-vmm: %s\n" % says)
        assert not data.exists()


# --- a journal that is not as it should be --------------------------------------------------------

def test_a_damaged_plan_stops_one_cluster(host):
    hurt, well = [host.deploy(dockerArgs=SLEEP, volumeInGb=1) for _ in range(2)]
    host.wait_running(hurt), host.wait_running(well)
    before = first_pids(host)
    host.kill()
    with journal_of(host) as db:
        db.execute("UPDATE cluster SET plan = '{\"cluster\":' WHERE cluster = ?", (hurt,))
    host.start()
    converge(host)
    assert first_pids(host) == before, "what runs is not touched"
    assert "cluster %s: its plan cannot be read" % hurt in host.log_text()
    os.kill(before[hurt][1], signal.SIGKILL)
    c = host.wait_exited(hurt)
    assert "its plan cannot be read" in c["reason"]
    assert host.kept(hurt, volume=True) <= host.held()
    host.call("clusterResume", hurt)  # brings the plan along
    host.wait_running(hurt)
    assert first_pids(host)[well] == before[well]


def test_a_damaged_row_is_named(host):
    c = host.deploy(dockerArgs=SLEEP)
    host.wait_running(c)
    before = first_pids(host)
    host.kill()
    with journal_of(host) as db:
        db.execute("UPDATE cluster SET state = 'nonsense' WHERE cluster = ?", (c,))
    said = start_fails(host)
    assert said == "hypervisor-vmm: journal: the row of cluster %s is damaged" % c
    assert all(map(alive, before[c]))
    with journal_of(host) as db:
        db.execute("UPDATE cluster SET state = 'running' WHERE cluster = ?", (c,))
    host.start()
    assert first_pids(host) == before


def test_a_damaged_journal_is_named(host):
    host.stop()
    journal = host.data / "journal.db"
    good = journal.read_bytes()
    journal.write_bytes(b"x" * len(good))
    assert "journal" in start_fails(host) and "not a database" in start_fails(host)
    journal.write_bytes(good)
    with journal_of(host) as db:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        db.execute("PRAGMA user_version = 999")
    assert "journal: was written by a newer version (999" in start_fails(host)
    with journal_of(host) as db:
        db.execute(f"PRAGMA user_version = {version}")
    host.start()


@pytest.fixture
def small_disk():
    """A file system of its own that can be filled to the last byte."""
    top = pathlib.Path(tempfile.mkdtemp(prefix="hvmm-test.", dir="/var/tmp"))
    image, point = top / "image", top / "mnt"
    point.mkdir()
    with open(image, "wb") as f:
        f.truncate(8 << 30)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(point)], check=True)
    try:
        yield point
    finally:
        subprocess.run(["umount", str(point)], check=True)
        shutil.rmtree(top)


def fill(point):
    """Every block of it is taken afterwards."""
    fd = os.open(point / "filler", os.O_CREAT | os.O_WRONLY)
    step, at = 1 << 30, 0
    while step >= 4096:
        try:
            os.posix_fallocate(fd, at, step)
            at += step
        except OSError:
            step //= 2
    os.close(fd)
    os.sync()


def test_a_full_disk(small_disk):
    with Host(CONFIG, data=small_disk) as host:
        host.import_image("tensorone/starter")
        c = host.deploy(dockerArgs=SLEEP)
        host.wait_running(c)
        before = first_pids(host)
        fill(small_disk)
        refused = None
        for _ in range(200):  # what is allocated ahead lasts for a while
            try:
                new = host.deploy(dockerArgs=SLEEP, env=[{"key": "A", "value": "b" * 30000}])
            except ApiError as e:
                refused = str(e)
                break
            host.wait(new, lambda c: c["runtime"] or c["phase"] == "exited")
            if host.cluster(new)["phase"] == "exited":
                refused = host.cluster(new)["reason"]
                break
        assert refused and re.search("full|space|journal|written down", refused), refused
        assert all(map(alive, before[c]))
        host.kill()
        fill(small_disk)
        host.start()
        assert all(map(alive, before[c]))
        assert first_pids(host)[c] == before[c]
        os.unlink(small_disk / "filler")
        host.restart()
        assert first_pids(host)[c] == before[c]
        converge(host)
        with host.running("sh", "-c", SLEEP):
            pass
        clear(host)


# --- a reboot -------------------------------------------------------------------------------------

def power_cut(host):
    """All that a reboot takes: processes, groups, links, rules, /run.  The engine is down."""
    me = host.id
    roots = host.slice_roots()
    for root in roots:
        for procs in root.glob("*/cgroup.procs"):
            for pid in inventory.read(str(procs)).split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
    for root in roots:
        for group in [g for g in root.iterdir() if g.is_dir()] + [root]:
            def gone():
                try:
                    group.rmdir()
                    return True
                except OSError:
                    return False
            wait_until(gone, what="the end of %s" % group)
    for slot in host.claims("slots"):
        subprocess.run(["ip", "link", "del", "hv%d" % slot], stderr=subprocess.DEVNULL)
        (RUN / "slots" / str(slot)).unlink()
    for cpu in host.claims("cpus"):
        (RUN / "cpus" / str(cpu)).unlink()
    subprocess.run(["nft", "delete", "table", "inet", "hvmm_" + me], check=True)
    shutil.rmtree(RUN / me)
    with journal_of(host) as db:
        db.execute("UPDATE meta SET boot_id = '00000000-0000-0000-0000-000000000000'")


def test_after_a_reboot_what_should_run_runs(host):
    up, down, gone = [host.deploy(dockerArgs=SLEEP, volumeInGb=1) for _ in range(3)]
    path = host.wait_running(up)["volumeMountPath"]
    for c in (down, gone):
        host.wait_running(c)
    host.exec(up, "sh", "-c", "echo kept >%s/f; echo lost >/f; sync" % path)
    host.call("clusterStop", down)
    host.wait_exited(down)
    before = first_pids(host)
    host.kill()
    with journal_of(host) as db:  # the order to go away came right before the lights went out
        db.execute("UPDATE cluster SET want_gone = 1, want_running = 0 WHERE cluster = ?", (gone,))
    power_cut(host)
    assert not any(alive(p) for pair in before.values() for p in pair)
    host.start()
    host.wait_running(up)
    assert host.exec(up, "cat", path + "/f").stdout == "kept\n"
    assert host.exec(up, "ls", "/f", check=False).returncode != 0
    assert host.cluster(down)["desiredStatus"] == "EXITED"
    wait_until(lambda: "volume %s.img" % gone not in host.held(), what="the end of %s" % gone)
    assert {"volume %s.img" % c for c in (up, down)} <= host.held()
    assert {name for name, row in host.journal().items() if row["state"] == "running"} == {up}


# --- a control plane that says anything ------------------------------------------------------------

class Fuzz:
    """Random orders for three clusters, over the node protocol, with kills in between.  The engine
    may be asked anything; what it must do follows from the newest order alone."""
    NAMES = ("fuzza", "fuzzb", "fuzzc")
    COMMANDS = (["sleep", "1000"],) * 4 + (["true"], ["/no/such/program"], ["sh", "-c", "exit 3"])

    def __init__(self, host, rnd):
        self.host, self.rnd = host, rnd
        self.generation = dict.fromkeys(self.NAMES, 0)
        self.last = {}
        self.node = None
        self.connect()

    def connect(self):
        """In place of the API, which is held still meanwhile."""
        if self.node:
            self.node.close()
        (self.api,) = self.host.descendants("tensorone-api")
        os.kill(self.api, signal.SIGSTOP)
        self.node = Node(self.host.id)
        for msg in self.node.reports:
            self.last[msg["cluster"]] = msg

    def drain(self, seconds=0.0):
        end = time.monotonic() + seconds
        while True:
            try:
                msg, _ = self.node.recv(max(0.0005, end - time.monotonic()))
            except (TimeoutError, BlockingIOError):
                return
            except (EOFError, ConnectionError):
                return
            if msg["type"] == "report":
                self.last[msg["cluster"]] = msg
            if time.monotonic() > end:
                return

    def assign(self, name, desired, generation=None, command=None):
        if generation is None:
            self.generation[name] += 1
            generation = self.generation[name]
        self.node.assign(name, command or self.rnd.choice(self.COMMANDS), max(generation, 1), desired,
                         **({"volume_gib": 1, "volume_path": "/workspace"}
                            if name == "fuzzb" else {}))

    def tombstone(self, name):
        self.node.send({"type": "tombstone", "cluster": name,
                        "generation": max(self.generation[name], 1)})

    def kill(self):
        kind = self.rnd.choice(("operation", "operation", "monitor", "engine"))
        if kind == "engine":
            self.host.kill()
            self.host.start()
            self.connect()
            return
        if kind == "operation":
            pids = self.host.descendants("hvmm-op")
        else:
            pids = [int(p) for root in self.host.slice_roots()[:1]
                    for procs in root.glob("m*/cgroup.procs")
                    for p in inventory.read(str(procs)).split()]
        if pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.rnd.choice(pids), signal.SIGKILL)

    def step(self):
        rnd, name = self.rnd, self.rnd.choice(self.NAMES)
        old = rnd.randint(1, max(self.generation[name], 1))
        roll = rnd.random()
        if roll < 0.25:
            self.assign(name, "running")
        elif roll < 0.40:
            self.assign(name, "stopped")
        elif roll < 0.48:
            self.assign(name, rnd.choice(("running", "stopped")), old)
        elif roll < 0.60:
            self.tombstone(name)
        elif roll < 0.75:
            self.node.send({"type": "forget", "cluster": name})
        elif roll < 0.80:
            self.node.send({"type": "assign", "cluster": name, "generation": self.generation[name] + 5,
                            "desired": "running", "plan": {"nonsense": True}})
        elif roll < 0.86:
            self.kill()
        elif roll < 0.90:
            self.connect()
        else:
            self.drain(rnd.random() * 0.1)
        self.drain()

    def until(self, what, check, timeout=30):
        end = time.monotonic() + timeout
        while not check():
            if time.monotonic() > end:
                raise AssertionError("%s never came: %s\n%s" % (what, self.last,
                                                                self.host.log_text()[-5000:]))
            self.drain(0.05)

    def remove_all(self):
        """Tombstones and forgets for all; a killed operation in between delays it, no more."""
        for name in self.NAMES:
            self.generation[name] += 10
            self.last.pop(name, None)
            self.tombstone(name)
        self.until("terminated", lambda: all(self.last.get(n, {}).get("state") == "terminated"
                                             for n in self.NAMES))
        for name in self.NAMES:
            assert self.last[name]["released"]
            self.node.send({"type": "forget", "cluster": name})
        wait_until(lambda: not self.host.held() and not self.host.journal(),
                   what="the end of %s" % self.host.held())

    def close(self):
        """Its clusters go, which the API does not know; then that is let go on."""
        self.connect()
        self.remove_all()
        self.node.close()
        os.kill(self.api, signal.SIGCONT)

    def settle(self):
        """After all that: three plain orders are carried out."""
        self.remove_all()
        for name, desired in zip(self.NAMES, ("running", "running", "stopped")):
            self.assign(name, desired, command=["sleep", "1000"])
        want = dict(zip(self.NAMES, ("running", "running", "exited")))
        self.until("%s" % want, lambda: all(
            self.last.get(n, {}).get("state") == s and
            self.last[n]["generation"] == self.generation[n] for n, s in want.items()))
        rows = self.host.journal()
        for name, state in want.items():
            assert rows[name]["state"] == state, rows[name]
            if state == "running":
                assert rows[name]["init_pid"] in group_pids(self.host, "c%d" % rows[name]["slot"])
            else:
                assert rows[name]["slot"] == 0
        assert len(self.host.claims("slots")) == 2


@pytest.mark.limit(200)
def test_any_orders_end_in_order(host):
    print("seed %d" % SEED)
    fuzz = Fuzz(host, random.Random(SEED))
    try:
        for i in range(500):
            fuzz.step()
            if i % 100 == 99:
                fuzz.settle()
    finally:
        fuzz.close()
    assert not host.held()
