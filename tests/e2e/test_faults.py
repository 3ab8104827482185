"""System calls of the engine that fail in the middle of things: what it cannot write down it does not
do, and is told again; what it cannot watch does not run on unwatched.

strace, or failcall.py where it has to be a call of one kind, makes them fail, of the engine's process
alone."""
import contextlib
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from crash import alive, wait_until
from host import Host, ROOT, our_node

CONFIG = {"engine": {"cpu_overcommit": 100, "memory_overcommit": 50, "disk_overcommit": 100,
                     "pool_networks": 0, "pool_disks": 0, "grace": "200ms", "log_level": "debug"}}
SLEEP = "sleep 1000"
FAILCALL = str(ROOT / "tests/lib/failcall.py")


@pytest.fixture(scope="module")
def host():
    with Host(CONFIG) as h:
        h.import_image("tensorone/starter")
        yield h


@pytest.fixture(autouse=True)
def nothing_held(host):
    yield
    for c in host.clusters():
        host.terminate(c["id"])
    host.wait_held(set())


@contextlib.contextmanager
def watched_by(*command):
    """Runs a tracer; yields what it will have said at its end."""
    p = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    said = []
    try:
        assert "attached" in p.stderr.readline()
        yield said
    finally:
        p.send_signal(signal.SIGINT)
        said += p.communicate(timeout=10)[1].splitlines()


def failing(pid, call, error):
    """Every @call fails with @error."""
    return watched_by("strace", "-p", str(pid), "-e", "trace=" + call, "-e",
                      "inject=%s:error=%s" % (call, error))


def one_failing(pid, call, argument, value, error, when):
    """The @when-th @call whose @argument has @value fails with @error."""
    return watched_by(sys.executable, FAILCALL, str(pid), call, str(argument), value, error, str(when))


def journal_fails(host):
    return failing(host.pid, "pwrite64", "EIO")


def logged(host, text, since):
    return text in host.log_text()[since:]


REFUSED = "a new order cannot be taken"


@pytest.mark.parametrize("what", ["stop", "restart", "terminate"])
def test_an_order_that_could_not_be_journaled_is_repeated(host, what):
    c = host.deploy(dockerArgs=SLEEP, volumeInGb=1)
    host.wait_running(c)
    row = host.journal()[c]
    since = len(host.log_text())
    with journal_fails(host):
        if what == "terminate":
            host.terminate(c)
        elif what == "restart":
            host.call("clusterRestart", c)
        else:
            host.call("clusterStop", c)
        wait_until(lambda: logged(host, REFUSED, since), what="the refusal")
        assert alive(row["init_pid"]), "what is not written down is not done"
        if what == "stop":
            assert host.wait(c, lambda k: k["reason"])["reason"].startswith(REFUSED)
        # told again, and refused again
        wait_until(lambda: host.log_text()[since:].count(REFUSED) >= 2, 15, "a repeat")
    if what == "terminate":
        wait_until(lambda: c not in host.journal(), 15, "its end")
    elif what == "restart":
        assert host.wait(c, lambda k: k["runtime"] and host.journal()[c]["generation"] == 2,
                         15)["reason"] is None
        assert not alive(row["init_pid"])
    else:
        assert host.wait_exited(c, 15)["reason"] is None
        wait_until(lambda: host.journal()[c]["state"] == "exited", what="its row")
    assert not alive(row["init_pid"])
    # and there it ends: no repeats for what has been done
    size = len(host.log_text())
    time.sleep(1.5)
    assert REFUSED not in host.log_text()[size:]


def test_a_boot_that_cannot_be_journaled(host):
    """A new cluster is not waited for: it ends, with that reason, and starts when asked again."""
    with journal_fails(host):
        c = host.deploy(dockerArgs=SLEEP)
        seen = host.wait_exited(c)
        assert "journal cannot be written" in seen["reason"]
    host.call("clusterResume", c)
    assert host.wait_running(c)["reason"] is None


# --- each call of a boot --------------------------------------------------------------------------

def calls_of_a_boot(host, *call):
    """How many of these calls there are in a boot."""
    with one_failing(host.pid, *call, 0) as said:
        c = host.deploy(dockerArgs=SLEEP)
        host.wait_running(c)
        time.sleep(0.3)
    host.terminate(c)
    host.wait_held(set())
    return int(re.fullmatch(r"(\d+) seen", said[-1])[1])


def check_watched(host, c):
    """It runs, or it has ended with a reason; what runs is watched."""
    seen = host.wait(c, lambda k: k["runtime"] or k["phase"] == "exited", 30)
    if seen["phase"] == "exited":
        assert seen["reason"], seen
        return "exited"
    pid = host.journal()[c]["init_pid"]
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)

    def noticed():
        row = host.journal()[c]
        return row["state"] != "running" or row["init_pid"] != pid
    wait_until(noticed, 10, "word of its end")
    return "running"


@pytest.mark.parametrize("call", [("epoll_ctl", 1, "EPOLL_CTL_ADD", "ENOSPC"),
                                  ("fcntl", 1, "F_DUPFD_CLOEXEC", "EMFILE")], ids=lambda c: c[0])
def test_every_call_of_a_boot_fails_once(host, call):
    """The watch of a new monitor cannot be set up, or its descriptors not be kept: it is ended and
    started again; it never runs on with nobody noticing its end."""
    n = calls_of_a_boot(host, *call)
    assert n >= 2
    since, told = len(host.log_text()), "could not watch it"
    # once around at least; what else the engine does at that moment moves them by one or two
    for i in range(3 * n):
        if i >= n and logged(host, told, since):
            break
        with one_failing(host.pid, *call, i % n + 1):
            c = host.deploy(dockerArgs=SLEEP)
            host.wait(c, lambda k: k["runtime"] or k["phase"] in ("exited", "backoff"), 30)
            time.sleep(0.1)
        check_watched(host, c)
        host.terminate(c)
        host.wait_held(set())
        assert host.proc.poll() is None, "the engine lives on"
    assert logged(host, told, since), "the one that this is about was among them"


# --- the same generation, wanted again --------------------------------------------------------------

def test_stopped_and_wanted_again(host):
    """`desired` is a level: the newest word counts, also within one generation."""
    with our_node(host) as node, contextlib.ExitStack() as last:
        def say(desired="running", command=("sleep", "1000"), generation=1):
            node.assign("again", list(command), generation, desired)

        def state(name, generation=1):
            return node.until(lambda m: m["type"] == "report" and m["cluster"] == "again" and
                              m["state"] == name and m["generation"] == generation)[0]
        last.callback(node.remove, "again")
        say()
        state("running")
        say("stopped")
        state("exited")
        say()
        state("running")
        time.sleep(0.3)  # the operation that started it is over
        first = host.journal()["again"]["init_pid"]
        say("stopped")
        say()  # before the stop is through
        state("exited")
        state("running")
        assert host.journal()["again"]["init_pid"] != first
        # what failed for good is not started by the same words, nor by repeating them
        say(command=["/no/such/program"], generation=2)
        assert re.search("No such file", state("exited", 2)["reason"])
        say(command=["/no/such/program"], generation=2)
        with pytest.raises(TimeoutError):
            node.until(lambda m: m["type"] == "report" and m["state"] != "exited", 1)
