"""What must hold on a real host (host.py) after anything of it was killed: the helpers of the tests
that kill."""
import pathlib
import shutil
import sqlite3
import tempfile
import time

import requests

import inventory


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


def revive_engine(host):
    if host.proc is None or host.proc.poll() is not None:
        host.proc = None
        host.start()


def revive(host):
    """The engine again when it is dead; the API comes again by itself."""
    revive_engine(host)

    def serves():
        try:
            return host.clusters() is not None
        except (requests.RequestException, ValueError):
            return False
    wait_until(serves, what="the API")


def group_pids(host, name):
    procs = host.slice_roots()[0] / name / "cgroup.procs"
    return [int(p) for p in inventory.read(str(procs)).split()]


def resting(c):
    """Neither on its way up nor down."""
    return c["runtime"] is not None if c["desiredStatus"] == "RUNNING" else c["phase"] == "exited"


def agreed(host):
    """The clusters, once all are at rest and API, journal and kernel tell the same of them."""
    clusters = host.clusters()
    rows = host.journal()
    for c in clusters:
        row = rows.get(c["id"])
        assert resting(c), c
        if c["desiredStatus"] == "RUNNING":
            assert row and row["state"] == "running", (c, row)
            assert alive(row["init_pid"]) and alive(row["monitor_pid"]), row
            assert host.claims("slots").get(row["slot"]) == row["claim"], row
            assert row["init_pid"] in group_pids(host, "c%d" % row["slot"]), row
        elif row:
            assert row["state"] == "exited" and row["slot"] == 0 and not row["ports"], (c, row)
            assert c["reason"] or not row["want_running"], c
    lent = {int(pair.split(":")[1]): name for name, row in rows.items() for pair in (row["ports"] or "").split()}
    assert host.claims("ports") == lent, (host.claims("ports"), lent)
    for name, row in rows.items():  # the API shows no cluster that is going away
        assert name in {c["id"] for c in clusters} or row["want_gone"], row
    return clusters


def converge(host, timeout=30):
    """News takes a moment to get around, so agreement is waited for."""
    end = time.monotonic() + timeout
    while True:
        try:
            return agreed(host)
        except (AssertionError, sqlite3.Error) as e:  # the journal was read while it changed
            if time.monotonic() > end:
                raise AssertionError("%s\n%s" % (e, host.log_text()[-4000:])) from e
        time.sleep(0.01)


def clear(host):
    """Terminate what there is; then nothing of it is anywhere."""
    for c in host.clusters():
        host.terminate(c["id"])
    host.wait_held(set())
    wait_until(lambda: not host.journal() and not host.clusters(), what="the end of all records")
    assert store_rows(host) == {}


def store_rows(host):
    """Rows that the control plane still keeps for clusters, by table; a copy is read."""
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
