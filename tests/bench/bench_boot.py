"""B=boot: how fast a full sandbox starts, beside crun and runc in the same run.

Ours: from the engine receiving the plan to the first process's execve done, the journal's commit
included (the engine's own `boot_us`).  Theirs: wall time of `crun create` + `crun start` on the
same root file system, with the same kinds of namespaces, the same limits and the same filter.
Medians; the configuration is printed with the figures."""

import json
import os
import pathlib
import signal
import statistics
import subprocess
import threading
import time

import requests

from host import Host, Node
import oci_peer

CONFIG = {"engine": {"cpu_overcommit": 200, "memory_overcommit": 20, "disk_overcommit": 50,
                     "pool_networks": 128, "pool_disks": 64, "log_level": "warning"}}
RUNS = 200
PEER_RUNS = 40
SUSTAINED_S = 60


def percentile(values, pct):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * pct / 100))]


def pause_api(host):
    """The node socket serves one control plane; ours steps in while the API is stopped."""
    pid = host.api_pid()
    os.kill(pid, signal.SIGSTOP)
    return pid


def create_start(host, figures, peers):
    pid = pause_api(host)
    node = Node(host.id)
    boots = []
    for i in range(RUNS + 10):
        name = "b%d" % i
        node.assign(name, ["sleep", "1000"])
        report, _ = node.until(lambda m: m.get("cluster") == name
                               and m.get("state") in ("running", "exited"))
        assert report["state"] == "running", report
        if i >= 10:
            boots.append(report["boot_us"] / 1000)
        node.remove(name)
        time.sleep(0.02)
    node.close()
    os.kill(pid, signal.SIGCONT)
    for peer in ("crun", "runc"):
        suffix = "" if peer == "crun" else "_vs_runc"
        figures.add("boot.create_start_p50" + suffix, statistics.median(boots), "ms", peer,
                    statistics.median(peers[peer]))
        figures.add("boot.create_start_p99" + suffix, percentile(boots, 99), "ms", peer,
                    percentile(peers[peer], 99))


def first_byte(host, figures):
    """API call to the first byte of the container's output, read through the API's log stream."""
    times = []
    session = requests.Session()
    session.headers["Authorization"] = "Bearer " + host.key
    query = ("mutation($input: ClusterFindAndDeployOnDemandInput)"
             " { clusterFindAndDeployOnDemand(input: $input) { id } }")
    given = dict(gpuCount=0, imageName="tensorone/starter", containerDiskInGb=1, minMemoryInGb=1,
                 minVcpuCount=1, dockerArgs="sh -c 'echo x; sleep 1000'")
    for _ in range(40):
        begin = time.perf_counter()
        body = session.post(host.url + "/graphql",
                            json={"query": query, "variables": {"input": given}}).json()
        cluster = body["data"]["clusterFindAndDeployOnDemand"]["id"]
        with session.get(host.url + "/v1/clusters/%s/logs?follow=1" % cluster, stream=True) as r:
            next(r.raw.stream(1))
        times.append((time.perf_counter() - begin) * 1000)
        host.terminate(cluster)
        time.sleep(0.1)
    figures.add("boot.first_byte_p50", statistics.median(times), "ms")


def sustained(host, figures):
    """Create and stop for a minute, four at a time, pools and teardown included."""
    pid = pause_api(host)
    node = Node(host.id)
    end = time.monotonic() + SUSTAINED_S
    begun, ended, live = 0, 0, set()

    def begin():
        nonlocal begun
        name = "s%d" % begun
        begun += 1
        node.assign(name, ["sleep", "1000"])
        live.add(name)

    for _ in range(4):
        begin()
    while live:
        msg, _ = node.recv()
        name, state = msg.get("cluster"), msg.get("state")
        if name not in live:
            continue
        if state == "running" and not msg.get("usage", {}).get("seen"):
            node.send({"type": "tombstone", "cluster": name, "generation": 1})
        elif state == "terminated":
            node.send({"type": "forget", "cluster": name})
            live.discard(name)
            if time.monotonic() < end:
                ended += 1
                begin()
    node.close()
    os.kill(pid, signal.SIGCONT)
    figures.add("boot.sustained_per_s", ended / SUSTAINED_S, "clusters/s", higher_is_better=True)


def burst(host, figures):
    """100 creates at once through the API; each one's time until the API says it runs."""
    time.sleep(5)  # the pools are full again, as they are whenever nothing happens
    clusters, lock, began = {}, threading.Lock(), time.perf_counter()

    def create(i):
        cluster = host.deploy(name="burst%d" % i, dockerArgs="sleep 1000")
        with lock:
            clusters[cluster] = None

    threads = [threading.Thread(target=create, args=(i,)) for i in range(100)]
    began = time.perf_counter()
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    query = "{ myself { clusters { id reason desiredStatus runtime { uptimeInSeconds } } } }"
    while any(v is None for v in clusters.values()):
        now = {c["id"]: c for c in host.gql(query)["myself"]["clusters"]}
        at = (time.perf_counter() - began) * 1000
        for cluster in [c for c, v in clusters.items() if v is None]:
            assert now[cluster]["desiredStatus"] == "RUNNING", now[cluster]
            if now[cluster]["runtime"]:
                clusters[cluster] = at
        assert at < 60000, "not all run after a minute"
        time.sleep(0.01)
    figures.add("boot.burst100_p99", percentile(clusters.values(), 99), "ms")
    return list(clusters)


def smaps(pid, *keys):
    text = pathlib.Path("/proc/%d/smaps_rollup" % pid).read_text()
    return sum(int(line.split()[1]) for line in text.splitlines() if line.split(":")[0] in keys)


def in_groups(host, program):
    """Pids of a program below the host's own groups: others may run clusters, too."""
    for procs in host.slice_roots()[0].glob("*/cgroup.procs"):
        for pid in procs.read_text().split():
            if pathlib.Path("/proc/%s/comm" % pid).read_text().strip() == program:
                yield int(pid)


def memory(host, figures):
    """With 100 clusters running: our programs' proportional share, and the own pages of a monitor and
    of a process that waits in the pool."""
    time.sleep(2)
    ours = [host.pid] + [int(p) for p in subprocess.run(
        ["pgrep", "-P", str(host.pid)], stdout=subprocess.PIPE, text=True).stdout.split()]
    total_kb = sum(smaps(pid, "Pss") for pid in ours)
    figures.add("boot.idle100_mb", total_kb / 1024, "MB")
    for name, program in (("monitor", "vmm-monitor"), ("shell", "hvmm-shell")):
        own = [smaps(pid, "Private_Clean", "Private_Dirty") for pid in in_groups(host, program)]
        figures.add("boot.%s_private_kb" % name, statistics.median(own), "kB")


def run(figures):
    print("configuration: %s; %d runs; %d CPUs; kernel %s" % (
        json.dumps(CONFIG["engine"]), RUNS, os.cpu_count(), os.uname().release))
    peers = oci_peer.measure(PEER_RUNS)
    with Host(CONFIG) as host:
        host.import_image("tensorone/starter")
        create_start(host, figures, peers)
        first_byte(host, figures)
        sustained(host, figures)
        clusters = burst(host, figures)
        memory(host, figures)
        for cluster in clusters:
            host.terminate(cluster)
        host.wait_released(120)
