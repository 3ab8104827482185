"""GPUs of a real host with a simulated driver while the engine and the API are killed at random: never
sold twice, never lost.  HVMM_SEED=N repeats a run."""
import os
import random
import signal
import sys
import threading
import time

import pytest
import requests

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from crash import converge, revive, wait_until  # noqa: E402
from host import RUN, ApiError, Host  # noqa: E402

SEED = int(os.environ.get("HVMM_SEED") or random.randrange(1 << 32))
R3090 = "NVIDIA GeForce RTX 3090"
ENGINE = {"cpu_overcommit": 100, "memory_overcommit": 50, "disk_overcommit": 100, "grace": "300ms",
          "gpu_driver": "simulated:3090x8", "pool_networks": 0, "pool_disks": 0}


class Gpus:
    """The same GPUs as everybody has them: API, claims on the machine, what clusters see."""

    def __init__(self, host):
        self.host = host

    def sold(self):
        return {g["id"]: g["clusterId"] for g in self.host.gql("{ gpus { id clusterId } }")["gpus"] if g["clusterId"]}

    def claims(self):
        found = {}
        for f in (RUN / "gpus").iterdir():
            try:
                words = f.read_text().split() if f.name.startswith("GPU-") else []
            except FileNotFoundError:
                continue
            if words and words[0] == self.host.id:
                found[f.name] = words[1]
        return found

    def seen(self, cluster):
        """By the first process, in its own /proc/driver."""
        base = "/proc/%d/root/proc/driver/nvidia/gpus" % self.host.first_pid(cluster)
        found = set()
        for pci in os.listdir(base):
            with open("%s/%s/information" % (base, pci)) as f:
                found |= {line.split()[-1] for line in f if line.startswith("GPU UUID")}
        return found

    def agree(self):
        """At rest: what is sold is what is claimed is what each cluster sees, and nothing is twice."""
        clusters = {c["id"]: c for c in converge(self.host) if c["desiredStatus"] == "RUNNING" and c["gpuCount"]}
        # those that were stopped or terminated may still be on their way
        wait_until(lambda: self.sold() == self.claims() and set(self.sold().values()) == set(clusters),
                   what="%s = %s = %s" % (self.sold(), self.claims(), list(clusters)))
        sold = self.sold()
        for cid, c in clusters.items():
            mine = {u for u, owner in sold.items() if owner == cid}
            assert len(mine) == c["gpuCount"] and self.seen(cid) == mine, (cid, mine)
        return clusters


def churn(host, rng, stop):
    """One client that never rests; refusals and broken connections are part of its life."""
    mine = []
    while not stop.is_set():
        try:
            what = rng.random()
            if what < 0.5 or not mine:
                mine.append(host.deploy(gpuTypeId=R3090, gpuCount=rng.randint(1, 4), dockerArgs="sleep 1000"))
            elif what < 0.65:
                host.call("clusterStop", rng.choice(mine))
            elif what < 0.8:
                host.call("clusterResume", rng.choice(mine), gpuCount=rng.randint(1, 3))
            else:
                host.terminate(mine.pop(rng.randrange(len(mine))))
        except ApiError:
            time.sleep(0.01)
        except (requests.RequestException, ValueError, AssertionError):
            time.sleep(0.05)


def kill_something(host, rng):
    victims = []
    if rng.random() < 0.7:
        victims.append(host.proc.pid)
    if rng.random() < 0.5 or not victims:
        try:
            victims.append(host.api_pid())
        except (RuntimeError, OSError):
            pass
    for pid in victims:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    if host.proc.pid in victims:
        host.proc.wait()


def clear(host, gpus, base):
    for c in host.clusters():
        host.terminate(c["id"])
    wait_until(lambda: not gpus.sold() and not gpus.claims(), what="%s, %s" % (gpus.sold(), gpus.claims()))
    host.wait_held(base)


def wait_gpus(host):
    wait_until(lambda: len(host.gql("{ gpus { id } }")["gpus"]) == 8, what="the GPUs")


@pytest.mark.limit(300)
def test_kills_at_random(capsys):
    rng = random.Random(SEED)
    with capsys.disabled():
        print("HVMM_SEED=%d" % SEED)
    with Host(config={"engine": ENGINE}) as host:
        host.import_image("tensorone/starter")
        wait_gpus(host)
        gpus, base = Gpus(host), host.held()
        ran = 0
        for _ in range(12):
            stop = threading.Event()
            clients = [threading.Thread(target=churn, args=(host, random.Random(rng.random()), stop), daemon=True)
                       for _ in range(2)]
            for c in clients:
                c.start()
            for _ in range(2):
                time.sleep(rng.random() / 2)
                kill_something(host, rng)
                revive(host)
            stop.set()
            for c in clients:
                c.join(40)
                assert not c.is_alive()
            ran += len(gpus.agree())
            clear(host, gpus, base)
        assert ran > 5
        clear(host, gpus, base)
        # none is lost: all eight at once, and the pairs are whole
        every = host.deploy(gpuTypeId=R3090, gpuCount=8, dockerArgs="sleep 1000")
        host.wait_running(every)
        assert len(gpus.seen(every)) == 8
        clear(host, gpus, base)


def test_two_clients_for_the_last_on_a_real_host():
    """The race of test_gpu_place.py once more with everything that is real behind it."""
    with Host(config={"engine": dict(ENGINE, gpu_driver="simulated:4090x1")}) as host:
        host.import_image("tensorone/starter")
        wait_until(lambda: host.gql("{ gpus { id } }")["gpus"], what="the GPU")
        for _ in range(25):
            won, lost, gate = [], [], threading.Barrier(2)

            def go():
                gate.wait()
                try:
                    won.append(host.deploy(gpuTypeId="RTX 4090", gpuCount=1, dockerArgs="sleep 1000"))
                except ApiError as e:
                    lost.append(str(e))

            clients = [threading.Thread(target=go) for _ in range(2)]
            for c in clients:
                c.start()
            for c in clients:
                c.join()
            assert len(won) == 1 and len(lost) == 1, (won, lost)
            assert "gpuCount: 1 x RTX 4090 wanted, 0 of 1 free" in lost[0]
            host.wait_running(won[0])
            assert Gpus(host).seen(won[0]) == set(Gpus(host).sold())
            host.terminate(won[0])
            wait_until(lambda: not Gpus(host).sold(), what="the release")
