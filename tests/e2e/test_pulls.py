"""Pulls side by side, on a real host: places and turns, whose credentials serve whom, what happens
when nobody waits any more, and removing an image while clusters begin to use it."""
import contextlib
import json
import os
import random
import signal
import subprocess
import threading
import time

import pytest
import requests

from crash import wait_until
from host import Host, program
from ocimake import Hang, Image, Layer, Registry

PLACES = 4


@pytest.fixture(scope="module")
def locked():
    """A registry that wants a name and a password."""
    with Registry() as reg:
        reg.need_basic("ada", "Pa55w0rd")
        yield reg


@pytest.fixture(scope="module")
def host(registry, locked):
    engine = {"cpu_overcommit": 100, "memory_overcommit": 20, "disk_overcommit": 100,
              "pool_networks": 0, "pool_disks": 0, "grace": "500ms", "parallel_pulls": PLACES,
              "log_level": "debug"}
    plain = {"insecure": "yes"}
    with Host({"engine": engine, 'registry "%s"' % registry.host: plain,
               'registry "%s"' % locked.host: plain}) as h:
        h.import_image("tensorone/starter")
        yield h


@pytest.fixture(autouse=True)
def nothing_held(host, registry):
    """Whatever a test did and however it ended: its clusters are gone, and all they held."""
    yield
    registry.stop.set()  # whoever hangs lets go
    for c in host.clusters():
        host.terminate(c["id"])
    host.wait_held(set())
    registry.stop.clear()
    registry.faults.clear()


@pytest.fixture(scope="module")
def keys(host):
    """Two accounts beside the administrator's."""
    return {name: host.new_account(name) for name in ("a", "b")}


BUSYBOX = Layer().busybox("sh", "sleep", "echo", "cat").dir("tmp", mode=0o1777).dir("etc").tar()
RND = random.Random(7)


def image_of(registry, name, hang=False, layers=1):
    """A fresh image that runs; its own layer never comes to an end when @hang."""
    noise = [Layer().file("noise%d" % i, RND.randbytes(40000)).tar() for i in range(layers)]
    image = Image([BUSYBOX] + noise, config={
        "Cmd": ["/bin/sh", "-c", "cat /noise0 >/tmp/n && echo whole; sleep 1000"],
        "Env": ["PATH=/bin"]})
    if hang:
        registry.fault(image.layers[1]["digest"], Hang(at=1000, seconds=120))
    return registry.add("test/" + name, "1", image)


def asked(registry, name):
    return sum("/test/%s/" % name in path for path, _ in registry.requests)


class Ask(threading.Thread):
    """POST /v1/images/pull, its answer line by line."""

    def __init__(self, host, ref, key=None, **more):
        super().__init__(daemon=True)
        self.lines, self.answer = [], None
        self.args = (host.url + "/v1/images/pull",
                     dict(json=dict(reference=ref, **more), stream=True, timeout=60,
                          headers={"Authorization": "Bearer " + (key or host.key)}))
        self.start()

    def run(self):
        with contextlib.suppress(Exception):  # hung up by the test
            url, more = self.args
            with requests.post(url, **more) as self.answer:
                for line in self.answer.iter_lines():
                    self.lines.append(json.loads(line))

    def end(self, timeout=20):
        self.join(timeout)
        assert not self.is_alive() and self.lines, "no answer"
        return self.lines[-1]

    def phases(self):
        return [l["phase"] for l in self.lines if "phase" in l]


def until(check, timeout=15, what="it"):
    end = time.monotonic() + timeout
    while not check():
        assert time.monotonic() < end, "never came: %s" % what
        time.sleep(0.02)


def hang_up(*asks):
    import socket
    for a in asks:
        if a.answer is not None and a.answer.raw is not None:
            with contextlib.suppress(Exception):
                a.answer.raw._fp.fp.raw._sock.shutdown(socket.SHUT_RDWR)


# ---- places and turns --------------------------------------------------------------------------

def test_one_account_cannot_take_all_places(host, registry, keys):
    """Twenty pulls of one account that never end: two run, the others wait; another's goes through,
    also as the cause of a cluster."""
    refs = [image_of(registry, "mine%d" % i, hang=True) for i in range(20)]
    mine = [Ask(host, ref, keys["a"]) for ref in refs]
    until(lambda: len(host.descendants("vmm-fetch")) == PLACES // 2, what="two that run")
    until(lambda: sum(a.phases()[-1:] == ["waiting"] for a in mine) == 20 - PLACES // 2,
          what="the others wait")
    theirs = Ask(host, image_of(registry, "theirs"), keys["b"]).end()
    assert "digest" in theirs, theirs
    host.wait_running(host.deploy(imageName=image_of(registry, "theirs2")))
    assert sum("mine" in p and "blobs" in p for p, _ in registry.requests) <= 3 * PLACES // 2
    hang_up(*mine)


def test_a_cluster_that_waits_says_pulling(host, registry):
    hung = [host.deploy(imageName=image_of(registry, "full%d" % i, hang=True)) for i in range(2)]
    until(lambda: len(host.descendants("vmm-fetch")) == 2)
    waits = host.deploy(imageName=image_of(registry, "behind"))
    time.sleep(0.5)
    seen = host.cluster(waits)
    assert (seen["phase"], seen["progressPercent"] or 0, seen["reason"]) == ("pulling", 0, None)
    assert asked(registry, "behind") == 0
    host.terminate(hung[0])  # makes room
    host.wait_running(waits)
    host.wait_log(waits, "whole")


def test_turns(host, registry, keys):
    """One place left for each: what came first from an account with a long queue does not go before
    the first of another."""
    slow = [Ask(host, image_of(registry, "slow%d" % i, hang=True), keys["a"]) for i in range(2)]
    until(lambda: len(host.descendants("vmm-fetch")) == 2)
    order = []
    queue = [Ask(host, image_of(registry, "q%d" % i), keys["a"]) for i in range(5)]
    until(lambda: all(q.phases() == ["waiting"] for q in queue))
    other = Ask(host, image_of(registry, "other"), keys["b"]).end()
    assert "digest" in other and all(q.phases() == ["waiting"] for q in queue), order
    hang_up(slow[0])
    assert all("digest" in q.end() for q in queue)
    hang_up(slow[1])


def test_what_comes_serves_those_who_wait(host, registry, keys):
    """The same public image for two accounts is fetched once."""
    ref = image_of(registry, "shared", layers=2)
    registry.fault("/test/shared/blobs/", Hang(at=1000, seconds=1, times=3))
    both = [Ask(host, ref, keys[k]) for k in "ab"]
    assert len({b.end()["digest"] for b in both}) == 1
    manifests = [p for p, _ in registry.requests if "/test/shared/manifests/" in p]
    assert len(manifests) == 1, manifests


# ---- nobody waits any more ---------------------------------------------------------------------

def test_pull_ends_with_its_last_cluster(host, registry):
    ref = image_of(registry, "left", hang=True)
    one, two = host.deploy(imageName=ref), host.deploy(imageName=ref)
    until(lambda: host.descendants("vmm-fetch"))
    host.terminate(one)
    time.sleep(0.5)
    assert host.descendants("vmm-fetch"), "somebody waits still"
    host.call("clusterStop", two)
    until(lambda: not host.descendants("vmm-fetch"), 10, "the end of the pull")
    host.wait_held(set())
    assert host.wait_exited(two)["reason"] is None


def test_pull_ends_with_its_client(host, registry):
    ref = image_of(registry, "gone", hang=True)
    cli = subprocess.Popen([program("tensoronecli"), "image", "pull", ref], env=host.cli_env(),
                           stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL)
    until(lambda: host.descendants("vmm-fetch"))
    c = host.deploy(imageName=ref)  # waits for the same pull
    cli.send_signal(signal.SIGINT)
    cli.wait(30)
    time.sleep(1)
    assert host.descendants("vmm-fetch"), "the cluster waits still"
    host.terminate(c)
    until(lambda: not host.descendants("vmm-fetch"), 10, "the end of the pull")
    ask = Ask(host, ref)
    until(lambda: host.descendants("vmm-fetch"))
    hang_up(ask)
    until(lambda: not host.descendants("vmm-fetch"), 10, "the end of the second pull")
    host.wait_held(set())


def test_pull_of_a_lost_control_plane_ends(host, registry):
    ref = image_of(registry, "lost", hang=True)
    Ask(host, ref)
    until(lambda: host.descendants("vmm-fetch"))
    os.kill(host.api_pid(), signal.SIGKILL)
    until(lambda: not host.descendants("vmm-fetch"), 10, "the end of the pull")
    def back():
        with contextlib.suppress(requests.RequestException, RuntimeError):
            return host.rest("GET", "/v1/images").status_code == 200
    until(back, what="the API")


# ---- credentials -------------------------------------------------------------------------------

def test_credentials_are_their_accounts_alone(host, locked, keys):
    """One account's password opens an image; the other, who knows the name, gets nothing by it:
    neither while that pull runs, nor after it, nor from a cluster."""
    ref = image_of(locked, "secret", hang=False)
    locked.fault("/test/secret/blobs/", Hang(at=1000, seconds=1, times=2))
    with_it = Ask(host, ref, keys["a"], username="ada", password="Pa55w0rd")
    until(lambda: asked(locked, "secret") > 2, what="the pull runs")
    without = Ask(host, ref, keys["b"])
    assert "denies access" in without.end()["error"]
    assert "digest" in with_it.end()
    wrong = Ask(host, ref, keys["b"], username="ada", password="guess").end()
    assert "denies access" in wrong["error"]
    assert "denies access" in Ask(host, ref, keys["b"]).end()["error"]
    c = host.deploy(key=keys["b"], imageName=ref)
    until(lambda: host.cluster(c, keys["b"])["phase"] == "exited")
    assert "denies access" in host.cluster(c, keys["b"])["reason"]
    host.call("clusterTerminate", c, keys["b"])
    assert [i["owner"] is not None for i in host.rest("GET", "/v1/images", keys["a"]).json()
            if i["reference"] == ref] == [True]
    assert not [i for i in host.rest("GET", "/v1/images", keys["b"]).json() if i["reference"] == ref]
    # nor does whose it is, unless its cluster names credentials (test_registry_auth.py)
    c = host.deploy(key=keys["a"], imageName=ref)
    until(lambda: host.cluster(c, keys["a"])["phase"] == "exited")
    assert "denies access" in host.cluster(c, keys["a"])["reason"]
    host.call("clusterTerminate", c, keys["a"])
    assert "Pa55w0rd" not in host.log_text()


def test_other_credentials_are_another_pull(host, locked, keys):
    """The same account with a wrong and a right password at once: neither answers for the other."""
    ref = image_of(locked, "twice")
    locked.fault("/test/twice/blobs/", Hang(at=1000, seconds=1, times=2))
    right = Ask(host, ref, keys["a"], username="ada", password="Pa55w0rd")
    until(lambda: asked(locked, "twice") > 2)
    wrong = Ask(host, ref, keys["a"], username="ada", password="wrong")
    assert "denies access" in wrong.end()["error"]
    assert "digest" in right.end()


# ---- removing ----------------------------------------------------------------------------------

def test_remove_and_boot_at_the_same_instant(host, registry):
    """Clusters are started and the image is removed, again and again, closely together: each cluster
    has the whole image or says why it has none, and nothing is left of what was removed."""
    refs = [image_of(registry, "race%d" % i, layers=2) for i in range(2)]
    rnd, ran, refused, removed = random.Random(11), 0, 0, 0
    host.rest("DELETE", "/v1/images", params={"reference": refs[0]})
    before = set(os.listdir(host.data / "images/layers"))
    for i in range(14):
        ref = refs[i % 2]
        host.cli("image", "pull", ref)
        answers = []
        remove = threading.Thread(target=lambda r=ref: answers.append(
            host.rest("DELETE", "/v1/images", params={"reference": r})))
        early = rnd.random() < 0.5
        if early:
            remove.start()
            time.sleep(rnd.random() * 0.015)
        clusters = [host.deploy(imageName=ref) for _ in range(2)]
        if not early:
            time.sleep(rnd.random() * 0.015)
            remove.start()
        remove.join()
        removed += answers[0].status_code == 204
        refused += answers[0].status_code == 409
        assert answers[0].status_code in (204, 409), answers[0].text
        for c in clusters:
            host.wait_running(c)  # from what is here, or pulled anew
            host.wait_log(c, "whole")
            ran += 1
            host.terminate(c)
        host.wait_held(set())
    print("%d ran, %d removals refused, %d done" % (ran, refused, removed))
    assert ran == 28 and removed > 0
    for ref in refs:
        host.rest("DELETE", "/v1/images", params={"reference": ref})
    assert not [i for i in host.rest("GET", "/v1/images").json() if "race" in i["reference"]]
    assert set(os.listdir(host.data / "images/layers")) == before


def test_remove_while_it_runs_and_after(host, registry):
    ref = image_of(registry, "held")
    layers = len(os.listdir(host.data / "images/layers"))
    c = host.deploy(imageName=ref)
    host.wait_running(c)
    r = host.rest("DELETE", "/v1/images", params={"reference": ref})
    assert r.status_code == 409 and "a cluster runs" in r.text
    host.terminate(c)
    host.wait_held(set())
    assert host.rest("DELETE", "/v1/images", params={"reference": ref}).status_code == 204
    assert len(os.listdir(host.data / "images/layers")) == layers


def listed(host, key=None):
    return {i["reference"]: i for i in host.rest("GET", "/v1/images", key).json()}


def test_in_use_is_a_matter_of_ones_own(host, registry, keys):
    """Two accounts have uploaded the same bytes, and run what all may see: neither learns from it what
    the other runs, nor is kept from removing what is its own."""
    layout = str(host.dir / "layout")
    Image([BUSYBOX], config={"Cmd": ["/bin/sh", "-c", "sleep 1000"], "Env": ["PATH=/bin"]}
          ).write_layout(layout)
    admin, name = host.key, "docker.io/library/same:latest"
    shared = image_of(registry, "everybodys")
    for key in keys.values():
        host.key = key
        try:
            host.cli("image", "import", "same", layout)
        finally:
            host.key = admin
    own = host.deploy(key=keys["a"], imageName="same")
    until(lambda: host.cluster(own, keys["a"])["phase"] == "ready")
    common = host.deploy(key=keys["a"], imageName=shared)
    until(lambda: host.cluster(common, keys["a"])["phase"] == "ready")
    assert listed(host, keys["a"])[name]["inUse"] and listed(host, keys["a"])[shared]["inUse"]
    assert not listed(host, keys["b"])[name]["inUse"] and not listed(host, keys["b"])[shared]["inUse"]
    assert listed(host)[shared]["inUse"], "the administrator sees it"
    remove = lambda key, ref: host.rest("DELETE", "/v1/images", key, params={"reference": ref})
    assert remove(keys["b"], "same").status_code == 204
    assert remove(keys["a"], "same").status_code == 409
    assert remove(None, shared).status_code == 409
    for c in (own, common):
        host.call("clusterTerminate", c, keys["a"])
    host.wait_held(set())
    assert remove(keys["a"], "same").status_code == 204
    assert remove(None, shared).status_code == 204


def test_a_name_that_a_cluster_was_started_by_stays(host):
    """The same upload under two names: the one that a cluster would start again from is in use, the
    other one is not."""
    layout = str(host.dir / "layout2")
    Image([BUSYBOX], config={"Cmd": ["/bin/sh", "-c", "sleep 1000"], "Env": ["PATH=/bin"]}
          ).write_layout(layout)
    for name in ("one", "two"):
        host.cli("image", "import", name, layout)
    c = host.deploy(imageName="one")
    host.wait_running(c)
    r = host.cli("image", "rm", "one", check=False)
    assert r.returncode == 1 and "a cluster runs from image docker.io/library/one" in r.stderr
    host.cli("image", "rm", "two")
    host.terminate(c)
    wait_until(lambda: not host.journal(), what="an empty journal")
    host.cli("image", "rm", "one")


def test_removal_that_a_kill_cut_short(registry):
    """The name is gone and nothing else is: the next start takes the layers, and leaves those of an
    image that a cluster runs from."""
    import sqlite3
    engine = {"cpu_overcommit": 100, "memory_overcommit": 20, "disk_overcommit": 100,
              "pool_networks": 0, "pool_disks": 0, "grace": "500ms"}
    with Host({"engine": engine, 'registry "%s"' % registry.host: {"insecure": "yes"}}) as h:
        gone, used = image_of(registry, "cut"), image_of(registry, "cutused")
        h.cli("image", "pull", gone)
        c = h.deploy(imageName=used)
        h.wait_running(c)
        layers = set(os.listdir(h.data / "images/layers"))
        assert len(layers) == 4
        assert h.stop() == 0
        db = sqlite3.connect(h.data / "images/images.db")
        db.execute("DELETE FROM name")  # as the first step of a removal does
        db.execute("UPDATE image SET identity = 'gone:' || id")
        db.commit()
        db.close()
        h.start()
        until(lambda: len(os.listdir(h.data / "images/layers")) == 2, what="layers that are nobody's")
        assert h.exec(c, "/bin/sh", "-c", "cat /noise0 | wc -c; echo whole").stdout.endswith("whole\n")
        assert set(os.listdir(h.data / "images/layers")) < layers
        h.terminate(c)
        h.wait_held(set())
