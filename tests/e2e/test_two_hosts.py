"""Two standalone hosts on one machine that both pin vCPUs: neither sells a CPU that the other's
clusters hold, and a race for one that is lost costs a moment, not the cluster."""
import os
import re
import signal
import time

import pytest

from crash import wait_until
from host import RUN, ApiError, Host

ALONE = True  # tests/run: it pins CPUs, of which every host wants all
CPUS = len(os.sched_getaffinity(0))
CONFIG = {"engine": {"cpu_overcommit": 1, "memory_overcommit": 50, "disk_overcommit": 100,
                     "pool_networks": 0, "pool_disks": 0, "grace": "200ms", "log_level": "debug"}}
SLEEP = "sleep 1000"
GONE = "no longer any instances available"


def foreign(*hosts):
    """CPUs that hosts beside these hold."""
    ours = {h.id for h in hosts}
    held = []
    for f in (RUN / "cpus").iterdir():
        try:
            words = f.read_text().split() if f.name.isdigit() else []
        except FileNotFoundError:
            continue
        if words and words[0] not in ours:
            held.append(int(f.name))
    return held


@pytest.fixture(scope="module")
def both():
    if CPUS < 2:
        pytest.fail("two CPUs are needed")
    with Host(CONFIG) as a, Host(CONFIG) as b:
        for h in (a, b):
            h.import_image("tensorone/starter")
        yield a, b


@pytest.fixture
def pair(both):
    a, b = both
    wait_until(lambda: not foreign(a, b), 120, "the end of others' claims")
    yield a, b
    for h in both:
        for c in h.clusters():
            h.terminate(c["id"])
    for h in both:
        h.wait_held(set())


def elsewhere(host):
    """CPUs that its control plane will not sell: what a deployment of all of them is told."""
    with pytest.raises(ApiError) as e:
        host.deploy(dockerArgs=SLEEP, minVcpuCount=1000)
    message = e.value.errors[0]["message"]
    found = re.search(r"(\d+) held by other hosts", message)
    return int(found.group(1)) if found else 0


def run_on(host, n=1):
    c = host.deploy(dockerArgs=SLEEP, minVcpuCount=n)
    host.wait_running(c)
    return c, {cpu for cpu, name in host.claims("cpus").items() if name == c}


def test_neither_sells_what_the_other_holds(pair):
    a, b = pair
    first, on = run_on(a)
    wait_until(lambda: elsewhere(b) == 1, 5, "word of it")
    second, also = run_on(b, CPUS - 1)
    assert len(on) == 1 and len(also) == CPUS - 1 and not on & also
    wait_until(lambda: elsewhere(a) == CPUS - 1, 5, "word of it")
    for h, n in ((a, CPUS - 1), (b, 1)):
        with pytest.raises(ApiError) as e:
            h.deploy(dockerArgs=SLEEP)
        message = e.value.errors[0]["message"]
        assert e.value.status == 200 and GONE in message, message
        assert "minVcpuCount: 1 vCPUs wanted, 0 free" in message, message
        assert "%d held by other hosts on this machine" % n in message, message
    a.terminate(first)
    wait_until(lambda: elsewhere(b) == 0, 15, "word of its end")
    third, freed = run_on(b)
    assert freed == on
    assert b.cluster(second)["runtime"]


def test_it_is_known_after_restarts(pair):
    a, b = pair
    _, on = run_on(a)
    b.restart()
    _, also = run_on(b)
    assert not on & also
    os.kill(b.api_pid(), signal.SIGKILL)
    wait_until(lambda: b.rest("GET", "/health").status_code == 200, 15, "its API")
    assert elsewhere(b) == 1


class Race:
    """The engine of @host is held still: its control plane sells by what it knew before."""

    def __init__(self, host):
        self.host = host

    def __enter__(self):
        os.kill(self.host.pid, signal.SIGSTOP)

    def __exit__(self, *_):
        os.kill(self.host.pid, signal.SIGCONT)


def test_a_lost_race_takes_another_cpu(pair):
    a, b = pair
    with Race(b):
        late = b.deploy(dockerArgs="sh -c 'echo here; %s'" % SLEEP)
        _, on = run_on(a)
    seen = b.wait_running(late)  # fails when it exits on the way
    assert seen["reason"] is None
    assert set(b.claims("cpus")) and not set(b.claims("cpus")) & on
    b.wait_log(late, "here")
    text = b.log_text()
    assert "is held by cluster" in text
    assert b.journal()[late]["generation"] == 2
    # and it is an ordinary cluster afterwards
    b.call("clusterStop", late)
    b.wait_exited(late)
    wait_until(lambda: not b.claims("cpus"), what="released CPUs")
    b.call("clusterResume", late)
    b.wait_running(late)


def test_a_lost_race_for_the_last_cpu(pair):
    a, b = pair
    with Race(b):
        late = b.deploy(dockerArgs=SLEEP, volumeInGb=1)
        run_on(a, CPUS)
    seen = b.wait_exited(late)
    assert GONE in seen["reason"] and "%d held by other hosts" % CPUS in seen["reason"], seen
    assert a.id not in seen["reason"], "whose it is, is no tenant's business"
    b.wait_held({w for w in b.held() if w in b.kept(late, volume=True)})
    for c in a.clusters():
        a.terminate(c["id"])
    wait_until(lambda: elsewhere(b) == 0, 15, "word of its end")
    b.call("clusterResume", late)
    assert b.wait_running(late)["reason"] is None


def test_cpus_lost_between_two_runs_of_the_process(pair):
    """Its main process ends by itself, and while it waits for its next start, the CPU is taken."""
    a, b = pair
    c = b.deploy(dockerArgs="sh -c 'sleep 2; exit 3'")
    b.wait_running(c)
    mine = set(b.claims("cpus"))
    b.wait(c, lambda k: k["phase"] == "backoff")
    wait_until(lambda: not b.claims("cpus") and elsewhere(a) == 0, what="its CPU to be given back")
    others, taken = run_on(a, 1)
    assert taken == mine
    b.wait_running(c)
    assert set(b.claims("cpus")) and not set(b.claims("cpus")) & taken
    # now all of them: it ran once, so it waits for one to come back rather than end
    b.wait(c, lambda k: k["phase"] == "backoff")
    wait_until(lambda: not b.claims("cpus") and elsewhere(a) == 0, what="its CPU to be given back")
    more, _ = run_on(a, CPUS - 1)
    b.wait(c, lambda k: k["reason"] and "in use by another host" in k["reason"])
    time.sleep(1.5)
    assert b.cluster(c)["desiredStatus"] == "RUNNING"
    a.terminate(more)
    b.wait_running(c)
