"""A cluster's life through the real programs on the real kernel: start, stop, restart, back-off,
timers, pulling, logs, exec, and what a cluster that cannot run says about why.

Every test ends by comparing what the host holds for clusters with what it held before."""
import concurrent.futures
import contextlib
import datetime
import hashlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import threading
import time

import pytest
import requests
import websocket

from host import ApiError, Host, free_port, program
from ocimake import Image, Layer, Throttle

GRACE_S = 1.5
DEAD_REGISTRY = "127.0.0.1:%d" % free_port()  # nobody listens there


@pytest.fixture(scope="module")
def host(registry):
    engine = {"cpu_overcommit": 100, "memory_overcommit": 20, "disk_overcommit": 100,
              "pool_networks": 0, "pool_disks": 0, "grace": "%dms" % (GRACE_S * 1000),
              "registry_silence": "1s", "log_level": "debug"}
    plain = {"insecure": "yes"}
    with Host({"engine": engine, 'registry "%s"' % registry.host: plain,
               'registry "%s"' % DEAD_REGISTRY: plain}) as h:
        h.import_image("tensorone/starter")
        assert h.held() == set()
        yield h


@pytest.fixture(autouse=True)
def nothing_held(host):
    """Whatever a test did and however it ended: its clusters are gone, and all they held."""
    yield
    for c in host.clusters():
        host.terminate(c["id"])
    host.wait_held(set())


def busybox_layer():
    return Layer().busybox("sh", "sleep", "echo", "cat").dir("tmp", mode=0o1777).dir("etc").tar()


@pytest.fixture(scope="module")
def busybox(registry):
    """The reference of a small image on the loopback registry."""
    return registry.add("test/busybox", "1", Image([busybox_layer()], config={
        "Cmd": ["/bin/sh", "-c", "echo from the registry; sleep 1000"]}))


# ---- create, stop, start, restart, terminate ---------------------------------------------------

BEAT = 'echo up $TENSORONE_CLUSTER_ID; exec sleep 1000'


def generation(host, cluster):
    return host.gql('{ cluster(input: {clusterId: "%s"}) { version } }' % cluster)["cluster"]["version"]


def test_life_by_graphql(host):
    began = time.monotonic()
    c = host.deploy(dockerArgs=json.dumps({"cmd": ["sh", "-c", BEAT]}), volumeInGb=1, name="life")
    assert time.monotonic() - began < 2
    seen = host.wait_running(c)
    assert (seen["phase"], seen["desiredStatus"], seen["reason"]) == ("ready", "RUNNING", None)
    assert seen["runtime"]["uptimeInSeconds"] < 5 and seen["name"] == "life"
    host.wait_log(c, "up %s\n" % c)
    first = host.first_pid(c)

    assert host.call("clusterStop", c)["clusterStop"]["desiredStatus"] == "EXITED"
    seen = host.wait_exited(c)
    assert seen["runtime"] is None and seen["reason"] is None and seen["uptimeSeconds"] == 0
    assert not os.path.exists("/proc/%d" % first)
    host.wait_held(host.kept(c, volume=True))
    assert host.call("clusterStop", c)["clusterStop"]["desiredStatus"] == "EXITED"  # again: no harm

    assert host.call("podResume", c)["podResume"]["desiredStatus"] == "RUNNING"
    host.wait_running(c)
    assert host.call("clusterResume", c)["clusterResume"]["desiredStatus"] == "RUNNING"  # again
    second, was = host.first_pid(c), generation(host, c)
    host.wait(c, lambda k: host.logs(c).count("up ") == 2)  # the log goes on over a stop

    assert host.call("clusterRestart", c)["clusterRestart"]["desiredStatus"] == "RUNNING"
    host.wait(c, lambda k: k["runtime"] and host.logs(c).count("up ") == 3)
    assert host.first_pid(c) != second and not os.path.exists("/proc/%d" % second)
    assert generation(host, c) == was + 1

    assert host.terminate(c) == {"clusterTerminate": None}
    assert host.cluster(c) is None and host.clusters() == []  # at once
    host.wait_held(set())
    for verb, message in (("clusterStop", "cluster not found"), ("podResume", "pod not found"),
                          ("podTerminate", "pod not found to terminate"),
                          ("clusterTerminate", "cluster not found to terminate")):
        with pytest.raises(ApiError) as e:
            host.call(verb, c)
        assert e.value.errors[0]["message"] == message and e.value.status == 200


def test_life_by_cli(host):
    made = host.cli("create", "clusters", "--gpuType", "NVIDIA A100", "--gpuCount", "0", "--imageName",
                    "tensorone/starter", "--containerDiskSize", "1", "--volumeSize", "1", "--mem", "1",
                    "--name", "cli", "--args", "sh -c '%s'" % BEAT, "--wait")
    c = re.search(r'"([a-z0-9]{13})"', made.stdout).group(1)
    row = json.loads(host.cli("get", "cluster", c, "-o", "json").stdout)
    row = row[0] if isinstance(row, list) else row
    assert row["id"] == c and row["runtime"] and row["volumeMountPath"] == "/runpod"
    assert c in host.cli("get", "clusters").stdout
    host.wait_log(c, "up")
    host.cli("stop", "cluster", c, "--wait")
    assert host.cluster(c)["phase"] == "exited"
    host.wait_held(host.kept(c, volume=True))
    host.cli("start", "cluster", "cli", "--wait")  # by name
    pid = host.first_pid(c)
    host.cli("restart", "cluster", c, "--wait")
    assert host.first_pid(c) != pid
    host.cli("remove", "cluster", c)
    assert host.cluster(c) is None
    gone = host.cli("stop", "cluster", c, check=False)
    assert gone.returncode == 1 and "no cluster" in gone.stderr and c in gone.stderr


def test_product_page_example(host):
    """As printed: on a host without GPUs it names the constraint; with --gpuCount 0 it is placed."""
    words = ["create", "clusters", "--gpuType", "NVIDIA A100", "--imageName", "tensorone/starter",
             "--containerDiskSize", "20", "--volumeSize", "40", "--mem", "32", "--args", "sleep 1000"]
    done = host.cli(*words, check=False)
    assert done.returncode == 1 and "no longer any instances available" in done.stderr
    assert "gpuCount" in done.stderr and "gpuCount 0 would fit" in done.stderr
    assert host.clusters() == []
    host.cli(*words, "--gpuCount", "0", "--wait")
    (c,) = host.clusters()
    assert (c["containerDiskInGb"], c["volumeInGb"], c["memoryInGb"]) == (20, 40, 32)
    assert c["runtime"] and c["gpuCount"] == 0


# ---- TERM, grace, KILL -------------------------------------------------------------------------

def stop_timed(host, cluster):
    began = time.monotonic()
    host.call("clusterStop", cluster)
    host.wait_exited(cluster)
    return time.monotonic() - began


class Threads(threading.Thread):
    """How many threads each process of the host's programs was ever seen with, by program; the
    control plane and the fetchers may have several."""

    def __init__(self):
        super().__init__()
        self.most, self.stop = {}, threading.Event()

    def run(self):
        while not self.stop.wait(0.002):
            for pid in filter(str.isdigit, os.listdir("/proc")):
                with contextlib.suppress(OSError):
                    name = os.path.basename(os.readlink("/proc/%s/exe" % pid)).removesuffix(" (deleted)")
                    if name in ("hypervisor-vmm", "vmm-launch", "vmm-monitor"):
                        n = len(os.listdir("/proc/%s/task" % pid))
                        self.most[name] = max(n, self.most.get(name, 0))

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *what):
        self.stop.set()
        self.join()


def test_one_thread(host, busybox):
    """Engine, operations, launchers and monitors have one thread, whatever is under way."""
    with Threads() as threads:
        clusters = [host.deploy(dockerArgs="sleep 1000") for _ in range(4)]
        clusters.append(host.deploy(imageName=busybox))
        for c in clusters:
            host.wait_running(c)
            host.exec(c, "sh", "-c", ":")
            host.terminate(c)
        host.wait_held(set())
    assert {"hypervisor-vmm", "vmm-monitor"} <= set(threads.most)
    assert set(threads.most.values()) == {1}, threads.most


def test_term_is_answered(host):
    with host.running("sh", "-c", "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done") as c:
        host.wait_log(c, "up")
        assert stop_timed(host, c) < GRACE_S
        assert host.logs(c) == "up\nbye\n"


def test_term_is_ignored(host):
    with host.running("sh", "-c", "trap 'echo no' TERM; echo up; while :; do sleep 0.05; done") as c:
        host.wait_log(c, "up")
        took = stop_timed(host, c)
        assert GRACE_S <= took < GRACE_S + 3
        assert host.logs(c).startswith("up\nno\n")


def test_shell_that_waits_for_a_child(host):
    """A shell as first process does not get TERM from the kernel; its children are told."""
    child = "trap \"echo child bye; exit 0\" TERM; echo child up; while :; do sleep 0.05; done"
    with host.running("sh", "-c", "sh -c '%s'; echo shell goes" % child) as c:
        host.wait_log(c, "child up")
        assert stop_timed(host, c) < GRACE_S
        lines = [x for x in host.logs(c).splitlines() if x != "Terminated"]  # says sh of its sleep
        assert lines == ["child up", "child bye", "shell goes"]


def test_every_child_is_told(host):
    child = "trap \"echo bye; exit 0\" TERM; echo up; read x"
    with host.running("sh", "-c", "mkfifo /tmp/f; exec 3<>/tmp/f; for i in $(seq 150); do sh -c '%s' <&3 & done; "
                      "wait" % child) as c:
        end = time.monotonic() + 20
        while host.logs(c).count("up\n") < 150:
            assert time.monotonic() < end
            time.sleep(0.05)
        stop_timed(host, c)
        assert host.logs(c).count("bye\n") == 150


def test_orphans_end_with_the_cluster(host):
    with host.running("sh", "-c", "trap '' TERM HUP; for i in 1 2 3; do (setsid sleep 1000 &) ; done;"
                      "echo up; sleep 1000") as c:
        host.wait_log(c, "up")
        pids = host.pids(c)
        assert len(pids) >= 4
        stop_timed(host, c)
        assert [p for p in pids if os.path.exists("/proc/%d" % p)] == []


def test_first_process_that_cannot_be_told(host):
    """It does not catch TERM and has no children: waiting would be for nothing."""
    with host.running("sleep", "1000") as c:
        assert stop_timed(host, c) < GRACE_S


# ---- back-off, timers --------------------------------------------------------------------------

def test_back_off_grows(host):
    with host.running("sh", "-c", "echo run; sleep 0.1; exit 7") as c:
        said = []
        for seconds in (1, 2, 4):
            text = "the main process ended with exit code 7; restarting in %d s" % seconds
            seen = host.wait(c, lambda k: k["phase"] == "backoff" and k["reason"] == text)
            assert seen["runtime"] is None
            said.append((seen["desiredStatus"], time.monotonic()))
        assert [s for s, _ in said] == ["RESTARTING"] * 3 or [s for s, _ in said] == ["RUNNING"] * 3
        assert said[1][1] - said[0][1] >= 1 and said[2][1] - said[1][1] >= 2
        assert host.logs(c) == "run\n" * 3
        end = time.monotonic() + 2  # the undoing ends a moment after its first words
        while any(w.startswith(("slot", "group", "loop", "disk", "link")) for w in host.held()):
            assert time.monotonic() < end, host.held()
            time.sleep(0.02)
        assert stop_timed(host, c) < 1, "a stop does not wait for the back-off"
        assert host.cluster(c)["runtime"] is None
        host.call("clusterResume", c)  # a new order begins from the start
        host.wait(c, lambda k: k["reason"] and "restarting in 1 s" in k["reason"])


def test_killed_first_process(host):
    with host.running("sh", "-c", "echo run; sleep 1000") as c:
        host.wait_log(c, "run")
        os.kill(host.first_pid(c), signal.SIGKILL)
        seen = host.wait(c, lambda k: k["phase"] == "backoff")
        assert seen["reason"] == "the main process was killed by signal 9 (Killed); restarting in 1 s"
        host.wait(c, lambda k: k["runtime"] and host.logs(c) == "run\nrun\n")
        assert host.cluster(c)["reason"] is None


def soon(seconds):
    at = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=seconds)
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"), time.monotonic() + seconds


def test_stop_after_and_terminate_after(host):
    stop, stop_at = soon(1.5)
    end, end_at = soon(2)
    a = host.deploy(dockerArgs="sleep 1000", stopAfter=stop, volumeInGb=1)
    b = host.deploy(dockerArgs="sleep 1000", terminateAfter=end, volumeInGb=1)
    host.wait_running(a)
    host.wait_running(b)
    seen = host.wait_exited(a)
    assert stop_at <= time.monotonic() < stop_at + 2
    assert "stopAfter" in seen["lastStatusChange"] or "Exited" in seen["lastStatusChange"]
    host.wait(b, lambda k: k is None)
    assert end_at <= time.monotonic() < end_at + 2
    host.wait_held(host.kept(a, volume=True))
    host.call("clusterResume", a)  # the timer is used up
    host.wait_running(a)
    time.sleep(0.5)
    assert host.cluster(a)["runtime"]
    for field in ("stopAfter", "terminateAfter"):
        for bad in ("2020-01-01T00:00:00Z", "tomorrow"):
            with pytest.raises(ApiError, match=field):
                host.deploy(**{field: bad})


# ---- pulling -----------------------------------------------------------------------------------

def slow_image(registry, name, size=3 << 20, rate=2 << 20):
    noise = Layer().file("noise", random.Random(size).randbytes(size)).tar()
    image = Image([busybox_layer(), noise], config={"Cmd": ["sh", "-c", "echo pulled; sleep 1000"],
                                                    "Env": ["PATH=/bin"]})
    registry.fault(image.layers[1]["digest"], Throttle(rate))
    return registry.add("test/" + name, "1", image)


def test_progress_while_pulling(host, registry):
    ref = slow_image(registry, "progress")
    c = host.deploy(imageName=ref)
    seen = []

    def done(k):
        assert k["desiredStatus"] == "RUNNING", k
        if k["phase"] == "pulling":
            assert k["runtime"] is None
            if k["progressPercent"] is not None:
                seen.append(k["progressPercent"])
        return k["runtime"]

    last = host.wait(c, done)
    assert seen == sorted(seen) and len(set(seen)) >= 4, seen
    assert seen[0] < 60 and max(seen) <= 99 and last["phase"] == "ready"
    host.wait_log(c, "pulled")
    # the second one does not ask the registry again
    asked = len(registry.requests)
    host.wait_running(host.deploy(imageName=ref))
    assert len(registry.requests) == asked


def test_a_present_image_is_pulled_again_only_when_asked(host, registry):
    """The tag moves on in the registry; here it moves when somebody says so."""
    def publish(text):
        return registry.add("test/moves", "1", Image([busybox_layer(), Layer().file("which", text).tar()]))

    def runs():
        c = host.deploy(imageName=ref, dockerArgs="sh -c 'cat /which; sleep 1000'")
        host.wait_running(c)
        return host.wait_log(c, "\n")

    ref = publish(b"one\n")
    assert runs() == "one\n"
    publish(b"two\n")
    registry.requests.clear()
    assert runs() == "one\n"
    host.cli("image", "pull", ref)
    assert registry.requests == [], "nobody asked the registry"
    assert runs() == "one\n"
    host.cli("image", "pull", "--force", ref)
    assert registry.requests != []
    assert runs() == "two\n"


def test_progress_in_the_terminal(host, registry):
    from terminal import Terminal
    ref = slow_image(registry, "terminal", size=(3 << 20) + 1)
    t = Terminal([program("tensoronecli"), "create", "cluster", "--gpuCount", "0", "--imageName", ref,
                  "--mem", "1", "--containerDiskSize", "1", "--wait"], host.cli_env())
    assert t.wait(30) == 0, t.out
    percents = {int(p) for p in re.findall(rb"(\d+)\s?%", t.out)}
    assert len(percents) >= 3, t.out


def test_changes_are_answered_at_once(host, registry):
    """Clients give up after five seconds: no change waits for a pull, a boot or a first process that
    takes its whole grace."""
    def timed(change, *args, **kw):
        began = time.monotonic()
        result = change(*args, **kw)
        assert time.monotonic() - began < 0.9 * GRACE_S, args
        return result

    ref = slow_image(registry, "patience", size=(4 << 20) + 2, rate=1 << 20)
    pulling = timed(host.deploy, imageName=ref)
    host.wait(pulling, lambda k: k["phase"] == "pulling")
    stubborn = timed(host.deploy, dockerArgs="sh -c 'trap : TERM; while :; do sleep 1; done'")
    host.wait_running(stubborn)
    for c in (pulling, stubborn):
        timed(host.call, "clusterEditJob", c, env=[{"key": "A", "value": "b"}])
        answer = timed(host.call, "clusterStop", c)["clusterStop"]
        assert answer["desiredStatus"] == "EXITED"
        answer = timed(host.call, "clusterResume", c)["clusterResume"]
        assert answer["desiredStatus"] == "RUNNING"
        timed(host.terminate, c)
        assert host.cluster(c) is None


def test_stop_while_pulling(host, registry):
    ref = slow_image(registry, "stopped", size=(4 << 20) + 1, rate=1 << 20)
    c = host.deploy(imageName=ref)
    host.wait(c, lambda k: k["phase"] == "pulling" and (k["progressPercent"] or 0) > 5)
    assert stop_timed(host, c) < 1
    assert host.cluster(c)["runtime"] is None and host.cluster(c)["reason"] is None
    host.call("clusterResume", c)
    host.wait_running(c)
    host.wait_log(c, "pulled")
    # the pull ended with the one that waited for it; the second one began again
    assert sum("/test/stopped/blobs/" in path for path, _ in registry.requests) == 6


# ---- logs --------------------------------------------------------------------------------------

TALK = ("for i in 1 2 3 4 5; do echo out$i; done; for i in 1 2 3; do echo err$i >&2; done;"
        "while [ ! -e /go ]; do sleep 0.05; done; echo late; printf half; sleep 1000")


class Follow(threading.Thread):
    """GET logs?follow=1 until its end."""

    def __init__(self, host, cluster, **params):
        super().__init__(daemon=True)
        self.r = host.rest("GET", "/v1/clusters/%s/logs" % cluster, stream=True,
                           params=dict(params, follow=1))
        self.text, self.ended = b"", False
        self.start()

    def run(self):
        with contextlib.suppress(requests.exceptions.ChunkedEncodingError):  # close()
            for piece in self.r.iter_content(None):
                self.text += piece
            self.ended = True

    def until(self, text, timeout=10):
        end = time.monotonic() + timeout
        while text not in self.text:
            assert time.monotonic() < end, self.text
            time.sleep(0.01)
        return self.text

    def close(self):
        with contextlib.suppress(Exception):
            self.r.raw._fp.fp.raw._sock.shutdown(socket.SHUT_RDWR)
        self.join(30)


def test_logs(host):
    with host.running("sh", "-c", TALK) as c:
        host.wait_log(c, "err3")
        out, err = "".join("out%d\n" % i for i in range(1, 6)), "".join("err%d\n" % i for i in (1, 2, 3))
        assert host.logs(c, stream="stdout") == out and host.logs(c, stream="stderr") == err
        assert sorted(host.logs(c).split()) == sorted((out + err).split())
        assert host.logs(c, tail=2).count("\n") == 2 and host.logs(c, tail=0) == ""
        stamped = host.logs(c, timestamps=1, stream="stdout").splitlines()
        assert len(stamped) == 5
        stamp, text = stamped[4].split(" ", 1)
        at = datetime.datetime.fromisoformat(stamp[:26] + "+00:00")
        assert text == "out5"
        assert abs((datetime.datetime.now(datetime.timezone.utc) - at).total_seconds()) < 20
        live, tailed = Follow(host, c), Follow(host, c, tail=1, stream="stderr")
        live.until(b"err3\n")
        time.sleep(0.3)
        since = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        host.exec(c, "touch", "/go")
        live.until(b"late\n")
        host.wait_log(c, "late")
        assert host.logs(c, since=since).startswith("late\n")
        assert "out1" in host.logs(c, since="1h")
        assert "out1" not in host.logs(c, since=since)
        # the CLI has the same
        host.wait_log(c, "half")  # a line that does not end shows after a second
        assert host.cli("logs", "--tail", "2", "--stream", "stdout", c).stdout == "late\nhalf"
        assert host.cli("logs", "--stream", "stderr", c).stdout == err
        assert host.cli("logs", "--timestamps", "--tail", "1", "--stream", "stderr", c).stdout.endswith(" err3\n")
        assert host.cli("logs", "--since", "1h", "--stream", "stderr", c).stdout == err
        for params, word in (({"tail": "x"}, "tail"), ({"since": "yesterday"}, "since"),
                             ({"stream": "both"}, "stream")):
            r = host.rest("GET", "/v1/clusters/%s/logs" % c, params=params)
            assert r.status_code == 400 and word in r.json()["message"]
        # a follower goes on over a restart and ends with a stop
        host.call("clusterRestart", c)
        end = time.monotonic() + 10
        while live.text.count(b"out5\n") < 2:
            assert time.monotonic() < end, live.text
            time.sleep(0.01)
        cli = subprocess.Popen([program("tensoronecli"), "logs", "-f", "--stream", "stderr", c],
                               env=host.cli_env(), stdout=subprocess.PIPE, text=True)
        assert cli.stdout.readline() == "err1\n"
        host.wait_running(c)
        host.call("clusterStop", c)
        live.join(10)
        tailed.join(10)
        assert live.ended and tailed.ended
        assert tailed.text.startswith(b"err3\n") and b"out" not in tailed.text
        cli.communicate(timeout=10)
        assert cli.returncode == 0
        assert host.logs(c).count("out1") == 2, "logs are there after the stop"
    assert host.rest("GET", "/v1/clusters/%s/logs" % c).status_code == 404


def test_logs_of_a_talkative_cluster(host):
    """20 MB as fast as it can, while somebody follows: every line, in order, once."""
    n = 200_000
    program = 'BEGIN { for (i = 1; i <= %d; i++) print "line", i, "%s" }' % (n, "x" * 80)
    with host.running("sh", "-c", "awk '%s'; echo END; sleep 1000" % program) as c:
        f = host.rest("GET", "/v1/clusters/%s/logs" % c, params={"follow": 1}, stream=True)
        i = 0
        for i, line in enumerate(f.iter_lines(1 << 16), 1):
            if line == b"END":
                break
            assert line.startswith(b"line %d " % i)
        assert i == n + 1
        f.close()
        assert host.logs(c, tail=1) == "END\n"


# ---- exec --------------------------------------------------------------------------------------

def test_exec_status_streams_and_place(host):
    with host.running("sleep", "1000", env=[{"key": "OWN", "value": "of the cluster"}]) as c:
        for code in (0, 1, 42, 255):
            assert host.exec(c, "sh", "-c", "exit %d" % code, check=False).returncode == code
        assert host.exec(c, "sh", "-c", "kill -TERM $$", check=False).returncode == 128 + 15
        done = host.exec(c, "sh", "-c", "echo to out; echo to err >&2; exit 3", check=False)
        assert (done.stdout, done.stderr, done.returncode) == ("to out\n", "to err\n", 3)
        assert host.exec(c, "printf", "%s|", "two words", "", "$HOME").stdout == "two words||$HOME|"
        assert host.cli("exec", "-e", "A=b c", "-w", "/tmp", c, "--", "sh", "-c",
                        "echo $A $OWN $PWD $TENSORONE_CLUSTER_ID").stdout == "b c of the cluster /tmp %s\n" % c
        assert host.cli("exec", "-u", "12:34", c, "--", "id").stdout.split()[:2] == ["uid=12", "gid=34"]
        missing = host.exec(c, "no-such-program", check=False)
        assert missing.returncode in (1, 126, 127) and "no-such-program" in missing.stderr
        s = host.session(c, "sh", "-c", "sleep 1000")
        s.signal(signal.SIGKILL)
        assert s.finish().exit == {"code": 137, "signal": 9} and s.close_code == 1000
        # a background child that keeps the pipe does not hold the session
        began = time.monotonic()
        assert host.exec(c, "sh", "-c", "sleep 1000 & echo done").stdout == "done\n"
        assert time.monotonic() - began < 5


def test_exec_streams_50_mb(host, tmp_path):
    size = 50 << 20
    data = random.Random(1).randbytes(1 << 20) * 50
    (tmp_path / "in").write_bytes(data)
    with host.running("sleep", "1000") as c:
        began = time.monotonic()
        with open(tmp_path / "in", "rb") as src, open(tmp_path / "out", "wb") as dst:
            done = subprocess.run([program("tensoronecli"), "exec", "-i", c, "--", "cat"], stdin=src,
                                  stdout=dst, stderr=subprocess.PIPE, env=host.cli_env(), timeout=60)
        assert done.returncode == 0, done.stderr
        got = (tmp_path / "out").read_bytes()
        assert len(got) == size and hashlib.sha256(got).digest() == hashlib.sha256(data).digest()
        print("exec cat: %.0f MB/s" % (50 / (time.monotonic() - began)))
        # and both ends inside agree
        with open(tmp_path / "in", "rb") as src:
            done = subprocess.run([program("tensoronecli"), "exec", "-i", c, "--", "sha256sum"], stdin=src,
                                  capture_output=True, text=True, env=host.cli_env(), timeout=60)
        assert done.stdout.split()[0] == hashlib.sha256(data).hexdigest()


def test_exec_with_input_that_nobody_reads(host):
    """A client that writes for ever costs the API a few buffers, and nobody else any time."""
    def rss_kib():
        status = open("/proc/%d/status" % host.api_pid()).read()
        return int(re.search(r"VmRSS:\s+(\d+)", status).group(1))

    with host.running("sleep", "1000") as c:
        before = rss_kib()
        with open("/dev/zero", "rb") as zero:
            clients = [subprocess.Popen([program("tensoronecli"), "exec", "-i", c, "--", *words],
                                        stdin=zero, stdout=subprocess.DEVNULL, env=host.cli_env())
                       for words in (["sleep", "1000"], ["sh", "-c", "cat > /dev/null"])]
        try:
            end, slowest = time.monotonic() + 2, 0
            while time.monotonic() < end:
                began = time.monotonic()
                host.clusters()
                slowest = max(slowest, time.monotonic() - began)
                time.sleep(0.05)
            assert rss_kib() - before < 16 << 10
            assert slowest < 1, slowest
        finally:
            for client in clients:
                client.kill()
                client.wait()


def test_exec_with_a_terminal(host):
    from terminal import Terminal
    with host.running("sleep", "1000") as c:
        s = host.session(c, "sh", "-c", "tty; stty size; read x; stty size; echo got $x; exit 5", tty="1",
                         rows="31", cols="97")
        s.until(b"31 97")
        assert b"/dev/pts/" in s.out
        s.resize(50, 132)
        s.stdin(b"word\r")
        s.finish()
        assert b"50 132" in s.out and b"got word" in s.out and s.err == b"" and s.exit["code"] == 5
        t = Terminal([program("tensoronecli"), "exec", "-it", c, "--", "sh"], host.cli_env(), rows=30, cols=100)
        t.read_until(rb"# ")
        t.write(b"stty size; test -t 0 && test -t 1 && test -t 2 && echo terminal\r")
        t.read_until(rb"30 100\r\nterminal\r\n")
        t.resize(40, 120)
        t.write(b"stty size\r")
        t.read_until(rb"40 120\r\n")
        t.write(b"sleep 1000\r")
        time.sleep(0.3)
        t.write(b"\x03")  # ^C ends the sleep, not the session
        t.write(b"echo status $?\r")
        t.read_until(rb"status 130\r\n")
        t.write(b"exit 9\r")
        assert t.wait() == 9
        # without a terminal there is none
        assert host.exec(c, "sh", "-c", "test -t 0 || test -t 1; echo $?").stdout == "1\n"


def test_exec_many_at_once(host):
    with host.running("sleep", "1000") as c:
        idle = len(host.pids(c))

        def one(i):
            blob = random.Random(i).randbytes(300_000)
            done = subprocess.run([program("tensoronecli"), "exec", "-i", c, "--", "sh", "-c",
                                   "sha256sum; exit %d" % (i + 1)], input=blob, capture_output=True,
                                  env=host.cli_env(), timeout=60)
            return done.returncode == i + 1 and \
                done.stdout.split()[0].decode() == hashlib.sha256(blob).hexdigest()

        with concurrent.futures.ThreadPoolExecutor(12) as pool:
            assert all(pool.map(one, range(12)))
        end = time.monotonic() + 5
        while len(host.pids(c)) > idle:
            assert time.monotonic() < end, "exec sessions are left"
            time.sleep(0.02)


def test_exec_ends_with_client_and_cluster(host):
    with host.running("sleep", "1000") as c:
        idle = set(host.pids(c)) | set(host.pids(c, "m"))
        # a client that hangs up closes stdin, stdout and stderr, or the terminal, as sshd does
        for command, tty in (("echo up; cat", "0"), ("echo up; yes", "0"), ("echo up; sleep 1000", "1")):
            s = host.session(c, "sh", "-c", command, tty=tty)
            s.until(b"up")
            assert set(host.pids(c)) - idle
            s.ws.sock.close()
            end = time.monotonic() + 5
            while (set(host.pids(c)) | set(host.pids(c, "m"))) - idle:
                assert time.monotonic() < end, "%s outlives its client" % command
                time.sleep(0.02)
        s = host.session(c, "sh", "-c", "echo up; sleep 1000")
        s.until(b"up\n")
        host.call("clusterStop", c)
        s.finish()
        assert s.exit or s.error, "a session that the stop ended says so"
        host.wait_exited(c)
        with pytest.raises(websocket.WebSocketBadStatusException) as refused:
            host.session(c, "true")
        assert refused.value.status_code == 409
        done = host.exec(c, "true", check=False)
        assert done.returncode != 0 and "not running" in done.stderr and "exited" in done.stderr
        assert host.exec("nosuchcluster", "true", check=False).returncode != 0


# ---- EXITED, with a reason ---------------------------------------------------------------------

def refused(host, *words, **fields):
    """A cluster that cannot run: EXITED, the reason has @words, nothing is held but its log."""
    c = host.deploy(**fields)
    seen = host.wait_exited(c, 40)
    assert seen["runtime"] is None
    for word in words:
        assert word in (seen["reason"] or ""), seen["reason"]
    host.wait_held({w for w in host.held() if w in host.kept(c, volume=True)})
    assert not any(w.startswith(("slot", "staging", "group", "loop", "disk ")) for w in host.held())
    shown = host.cli("get", "cluster", c, "-a").stdout
    assert "EXITED" in shown and words[0].split("\n")[0] in shown
    host.terminate(c)
    host.wait_held(set())


def test_missing_image(host, registry):
    refused(host, "pull %s/no/such:1" % registry.host, "not found", imageName=registry.host + "/no/such:1",
            volumeInGb=1)


def test_registry_is_down(host):
    refused(host, "pull %s/x/y:1" % DEAD_REGISTRY, "onnect", imageName=DEAD_REGISTRY + "/x/y:1")


def test_registry_that_is_not_listed(host, registry):
    other = "127.0.0.1:%d" % (int(registry.host.split(":")[1]) + 1)
    refused(host, "pull %s/x:1" % other, "configuration", imageName=other + "/x:1")


def test_program_does_not_exist(host):
    refused(host, "dockerArgs", "no-such-program: No such file", dockerArgs="no-such-program --flag",
            volumeInGb=1)
    refused(host, "dockerArgs", "/etc/passwd: Permission denied", dockerArgs="/etc/passwd")


def test_image_without_a_command(host, registry):
    ref = registry.add("test/nothing", "1", Image([busybox_layer()], config={"Env": ["A=b"]}))
    refused(host, "dockerArgs", "command", imageName=ref)


def test_wait_in_the_cli_tells_why(host, registry):
    done = host.cli("create", "cluster", "--gpuCount", "0", "--mem", "1", "--imageName",
                    registry.host + "/no/such:1", "--wait", check=False)
    assert done.returncode == 1 and "not found" in done.stderr and registry.host in done.stderr


def test_starts_after_the_cause_is_gone(host, registry):
    """The same cluster, once the image is there."""
    ref = registry.host + "/test/late:1"
    c = host.deploy(imageName=ref, volumeInGb=1)
    assert "not found" in host.wait_exited(c)["reason"]
    registry.add("test/late", "1", Image([busybox_layer()], config={
        "Cmd": ["sh", "-c", "echo late; sleep 1000"], "Env": ["PATH=/bin"]}))
    host.call("clusterResume", c)
    assert host.wait_running(c)["reason"] is None
    host.wait_log(c, "late")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 3 GB."""
    image, point = tmp_path / "small.img", tmp_path / "small"
    with open(image, "wb") as f:
        f.truncate(3 << 30)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", image], check=True)
    point.mkdir()
    subprocess.run(["mount", "-o", "loop", image, point], check=True)
    try:
        yield point
    finally:
        subprocess.run(["umount", point], check=True)


def test_disk_failure(small_disk):
    """The disk is full when the volume is to be allocated: a reason, and nothing half-made."""
    with Host({"engine": {"cpu_overcommit": 100, "pool_networks": 0, "pool_disks": 0,
                          "memory_overcommit": 20}}, data=small_disk) as h:
        h.import_image("tensorone/starter")
        filler = small_disk / "filler"
        with open(filler, "wb") as f:
            os.posix_fallocate(f.fileno(), 0, 2 << 30)
        c = h.deploy(dockerArgs="sleep 1000", volumeInGb=1)
        seen = h.wait_exited(c)
        assert "volumeInGb" in seen["reason"] and "no space" in seen["reason"], seen["reason"]
        h.wait_held({w for w in h.held() if w == "log " + c})
        assert list((h.data / "volumes").iterdir()) == []
        filler.unlink()
        h.call("clusterResume", c)  # nothing stands in the way of another try
        h.wait_running(c)
        h.terminate(c)
        h.wait_held(set())
