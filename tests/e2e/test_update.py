"""What a cluster has is changed while it runs: the first process goes on, the limits bite at once, what
cannot be had live is refused with the reason and changes nothing, and whatever is killed meanwhile ends
in the plan before or the plan after."""
import contextlib
import os
import random
import re
import signal
import threading
import time

import pytest
import requests

import inventory
from crash import revive, wait_until
from host import ApiError, Host
from ocimake import Image, Layer, Throttle

MIB = 1 << 20
GROWS = bool(int(re.search(r"CapEff:\s*(\w+)", open("/proc/self/status").read()).group(1), 16)
             & 1 << 24)  # CAP_SYS_RESOURCE: ext4 asks for it to grow while it is mounted
VIEW = """id version updating updateRefused desiredStatus phase reason vcpuCount memoryInGb
 containerDiskInGb volumeInGb gpuCount lastStatusChange runtime { uptimeInSeconds }"""
HAS = ("vcpuCount", "memoryInGb", "containerDiskInGb", "volumeInGb", "gpuCount")


@pytest.fixture(scope="module")
def host(registry):
    with Host({'registry "%s"' % registry.host: {"insecure": "yes"}, "engine": {"pool_networks": 0, "pool_disks": 0, "grace": "1s", "cpu_overcommit": 100,
                          "memory_overcommit": 20, "disk_overcommit": 100}}) as h:
        h.import_image("tensorone/starter")
        yield h


def view(host, cluster, key=None):
    return host.gql("query($id: String!) { cluster(input: {clusterId: $id}) { %s } }" % VIEW,
                    {"id": cluster}, key)["cluster"]


def update(host, cluster, key=None, **fields):
    data = host.gql("mutation($input: ClusterUpdateInput!) { clusterUpdate(input: $input) { %s } }"
                    % VIEW, {"input": dict(fields, clusterId=cluster)}, key)
    return data["clusterUpdate"]


def settled(host, cluster, timeout=20):
    end = time.monotonic() + timeout
    while True:
        v = view(host, cluster)
        if not v["updating"]:
            return v
        if time.monotonic() > end:
            raise TimeoutError("%s\n%s" % (v, host.log_text()[-3000:]))
        time.sleep(0.01)


def changed(host, cluster, **fields):
    """Update, and it was made."""
    before = view(host, cluster)
    asked = update(host, cluster, **fields)
    assert asked["version"] == before["version"] + 1
    v = settled(host, cluster)
    assert v["updateRefused"] is None, v
    for name, value in fields.items():
        assert name == "generation" or v[name] == value
    assert v["version"] == asked["version"] and v["phase"] == "ready"
    return v


def refused(host, cluster, *words, **fields):
    """By the control plane, at once, and nothing is another."""
    before = view(host, cluster)
    with pytest.raises(ApiError) as e:
        update(host, cluster, **fields)
    message = e.value.errors[0]["message"]
    for word in words:
        assert word in message, message
    after = view(host, cluster)
    assert after == {**before, "runtime": after["runtime"]}
    return message


def refused_by_host(host, cluster, *words, **fields):
    """Taken, and then the engine says why not; all is as it was."""
    before, limits = view(host, cluster), group(host, cluster)
    update(host, cluster, **fields)
    v = settled(host, cluster)
    for word in words:
        assert word in v["updateRefused"], v
    assert v["version"] == before["version"] + 2
    assert [v[n] for n in HAS] == [before[n] for n in HAS]
    assert group(host, cluster) == limits
    return v


def group_dir(host, cluster, name):
    for root in host.slice_roots():
        path = root / ("c%d" % host.slot(cluster)) / name
        if path.exists():
            return path
    return None


def group(host, cluster):
    """Limits of its group: memory in bytes, and CPUs by quota."""
    v1 = group_dir(host, cluster, "memory.limit_in_bytes")
    if v1:
        cpu = group_dir(host, cluster, "cpu.cfs_quota_us")
        return int(v1.read_text()), int(cpu.read_text()) / 100000
    quota, period = group_dir(host, cluster, "cpu.max").read_text().split()
    return int(group_dir(host, cluster, "memory.max").read_text()), int(quota) / int(period)


def first(host, cluster):
    """Pid and start time of the first process."""
    pid = host.first_pid(cluster)
    stat = inventory.read("/proc/%d/stat" % pid)
    return pid, stat[stat.rindex(")") + 2:].split()[19]


def inside(host, cluster, script, check=True):
    return host.exec(cluster, "sh", "-c", script, check=check)


def df_mib(host, cluster, path):
    out = inside(host, cluster, "df -Pk %s | tail -1" % path).stdout
    return int(out.split()[1]) // 1024


@pytest.fixture
def cluster(host):
    with host.running("sleep", "1000", minMemoryInGb=2, containerDiskInGb=1, volumeInGb=1,
                      volumeMountPath="/workspace") as c:
        yield c


# -- growing and shrinking -------------------------------------------------------------------------

def test_vcpus_grow_and_shrink(host, cluster):
    was = first(host, cluster)
    assert group(host, cluster)[1] == 1
    for n in (3, 2, 1):
        changed(host, cluster, vcpuCount=n)
        assert group(host, cluster)[1] == n
    assert first(host, cluster) == was


def test_memory_grows_and_shrinks(host, cluster):
    was = first(host, cluster)
    changed(host, cluster, memoryInGb=3)
    assert group(host, cluster)[0] == 3 << 30
    changed(host, cluster, memoryInGb=1)
    assert group(host, cluster)[0] == 1 << 30
    # it bites: dd asks for a buffer that there is no room for any more
    full = inside(host, cluster, "dd if=/dev/zero of=/dev/null bs=1100M count=1", check=False)
    assert full.returncode == 137, full
    assert first(host, cluster) == was


def test_page_cache_does_not_keep_memory_from_shrinking(host, cluster):
    inside(host, cluster, "dd if=/dev/zero of=/big bs=1M count=900 2> /dev/null; cat /big > /dev/null")
    changed(host, cluster, memoryInGb=1)
    assert group(host, cluster)[0] == 1 << 30


def test_memory_in_use_cannot_be_taken(host, cluster):
    was = first(host, cluster)
    inside(host, cluster, "dd if=/dev/zero of=/dev/shm/x bs=1M count=980 2> /dev/null")
    v = refused_by_host(host, cluster, "memoryInGb", "in use", memoryInGb=1)
    (event,) = host.gql("query($c: String) { events(input: {clusterId: $c, kind: \"refused\"}) { text } }",
                        {"c": cluster})["events"]
    assert event["text"] == v["updateRefused"]
    assert "1024 MiB" in v["updateRefused"] and v["lastStatusChange"].startswith("Update refused")
    # and with it nothing of what was asked for in the same breath
    refused_by_host(host, cluster, "memoryInGb", memoryInGb=1, vcpuCount=4)
    inside(host, cluster, "rm /dev/shm/x")
    assert changed(host, cluster, memoryInGb=1)["updateRefused"] is None
    assert first(host, cluster) == was


def test_disks_grow(host, cluster):
    if not GROWS:
        disks_cannot_grow_and_say_so(host, cluster)
        return
    was = first(host, cluster)
    small = df_mib(host, cluster, "/")
    inside(host, cluster, "dd if=/dev/urandom of=/a bs=1M count=600 2> /dev/null; sha256sum /a > /sum")
    changed(host, cluster, containerDiskInGb=3, volumeInGb=2)
    assert df_mib(host, cluster, "/") > small + 1900
    assert df_mib(host, cluster, "/workspace") > 1900
    inside(host, cluster, "dd if=/dev/zero of=/b bs=1M count=1500 && sha256sum -c /sum"
           " && dd if=/dev/zero of=/workspace/b bs=1M count=1200 && sync")
    assert inside(host, cluster, "dd if=/dev/zero of=/c bs=1M count=1500", check=False).returncode != 0
    assert first(host, cluster) == was
    host.call("clusterRestart", cluster)
    host.wait_running(cluster)
    assert df_mib(host, cluster, "/workspace") > 1900


def disks_cannot_grow_and_say_so(host, cluster):
    """Root without CAP_SYS_RESOURCE, as on some build machines: ext4 does not grow for it."""
    for field in ("containerDiskInGb", "volumeInGb"):
        refused_by_host(host, cluster, field, "CAP_SYS_RESOURCE", "stop the cluster",
                        **{field: 2, "vcpuCount": 2})
    changed(host, cluster, vcpuCount=2)
    # what the sentence says to do
    host.call("clusterStop", cluster)
    host.wait_exited(cluster)
    update(host, cluster, containerDiskInGb=2, volumeInGb=2)
    host.call("clusterResume", cluster)
    host.wait_running(cluster)
    assert df_mib(host, cluster, "/") > 1900 and df_mib(host, cluster, "/workspace") > 1900


# -- what is refused -------------------------------------------------------------------------------

@pytest.mark.parametrize("words, fields", [
    (["containerDiskInGb", "only grow"], dict(containerDiskInGb=1)),
    (["volumeInGb", "only grow"], dict(volumeInGb=1)),
    (["vcpuCount", "below 0"], dict(vcpuCount=-1)),
    (["vcpuCount", "outside 1..1024"], dict(vcpuCount=1025)),
    (["memoryInGb", "outside"], dict(memoryInGb=2 ** 31 - 1)),
    (["gpuCount", "below 0"], dict(gpuCount=-1)),
    (["gpuCount", "outside 0..64"], dict(gpuCount=65)),
    (["not enough free GPUs"], dict(gpuCount=1)),
    (["not enough room", "machine to update this cluster. vcpuCount: 1024"], dict(vcpuCount=1024)),
    (["machine to update this cluster. memoryInGb: 60000 GB", "GB free"], dict(memoryInGb=60000)),
    (["not enough room", "GB free"], dict(containerDiskInGb=65536)),
    (["generation", "is at", "look at it again"], dict(vcpuCount=2, generation=99)),
])
def test_bad_input(host, words, fields):
    with host.running("sleep", "1000", containerDiskInGb=2, volumeInGb=2,
                      volumeMountPath="/workspace") as c:
        refused(host, c, *words, **fields)


def test_what_is_no_number_is_refused_by_the_schema(host, cluster):
    for value in ("two", 1.5, [], {}, True):
        with pytest.raises(ApiError) as e:
            update(host, cluster, vcpuCount=value)
        assert e.value.status == 400


def test_a_volume_is_not_added_live(host):
    with host.running("sleep", "1000") as c:
        refused(host, c, "volumeInGb", "stop it", volumeInGb=1)
        host.call("clusterStop", c)
        host.wait_exited(c)
        update(host, c, volumeInGb=1)
        host.call("clusterResume", c)
        host.wait_running(c)
        assert df_mib(host, c, "/workspace") > 900


def test_another_accounts_cluster_does_not_exist(host, cluster):
    other = host.new_account("other-%d" % time.monotonic_ns())
    messages = set()
    for c in (cluster, "abcdefghijklm"):
        with pytest.raises(ApiError) as e:
            update(host, c, key=other, vcpuCount=2)
        messages.add(e.value.errors[0]["message"])
    assert messages == {"cluster not found"}
    assert view(host, cluster)["vcpuCount"] == 1


def test_both_spellings(host, cluster):
    data = host.gql("mutation { podUpdate(input: {podId: \"%s\", vcpuCount: 2}) { id vcpuCount } }"
                    % cluster)
    assert data["podUpdate"] == {"id": cluster, "vcpuCount": 2}
    assert settled(host, cluster)["updateRefused"] is None


# -- in which state --------------------------------------------------------------------------------

def test_nothing_asked_is_nothing_done(host, cluster):
    before = view(host, cluster)
    after = update(host, cluster, vcpuCount=before["vcpuCount"], memoryInGb=before["memoryInGb"],
                   generation=before["version"])
    assert after["version"] == before["version"] and not after["updating"]


def test_the_generation_that_was_seen(host, cluster):
    v = view(host, cluster)["version"]
    changed(host, cluster, vcpuCount=2, generation=v)
    message = refused(host, cluster, "generation", vcpuCount=3, generation=v)
    assert "at %d now" % (v + 1) in message
    answer = host.post("mutation($i: ClusterUpdateInput!) { clusterUpdate(input: $i) { id } }",
                       {"i": {"clusterId": cluster, "vcpuCount": 3, "generation": v}})
    assert answer.json()["errors"][0]["extensions"]["code"] == "CONFLICT"


def test_a_stopped_one_has_it_at_its_next_start(host, cluster):
    host.call("clusterStop", cluster)
    host.wait_exited(cluster)
    v = update(host, cluster, vcpuCount=2, memoryInGb=1, containerDiskInGb=2, volumeInGb=2)
    assert v["version"] == 2 and not v["updating"] and v["desiredStatus"] == "EXITED"
    refused(host, cluster, "volumeInGb", "only grow", volumeInGb=1)
    update(host, cluster, containerDiskInGb=1)  # it is made anew at each start
    host.call("clusterResume", cluster)
    host.wait_running(cluster)
    assert group(host, cluster) == (1 << 30, 2)
    assert inside(host, cluster, "echo $RUNPOD_CPU_COUNT").stdout.strip() == "2"
    assert df_mib(host, cluster, "/") < 1100 and df_mib(host, cluster, "/workspace") > 1900


def test_the_environment_is_that_of_the_start(host, cluster):
    changed(host, cluster, vcpuCount=2)
    env = inventory.read("/proc/%d/environ" % host.first_pid(cluster)).split("\0")
    assert "RUNPOD_CPU_COUNT=1" in env
    host.call("clusterRestart", cluster)
    host.wait_running(cluster)
    env = inventory.read("/proc/%d/environ" % host.first_pid(cluster)).split("\0")
    assert "RUNPOD_CPU_COUNT=2" in env


def test_it_starts_again_by_itself_with_what_it_has_now(host):
    with host.running("sh", "-c", "sleep 1.5; exit 3") as c:
        changed(host, c, vcpuCount=2, memoryInGb=2)
        old = host.first_pid(c)
        host.wait_new_first(c, old)
        assert group(host, c) == (2 << 30, 2)


def test_while_it_backs_off(host):
    with host.running("sh", "-c", "sleep 0.3; exit 3") as c:
        host.wait(c, lambda x: x["phase"] == "backoff")
        update(host, c, vcpuCount=2)
        settled(host, c)
        host.wait_running(c)
        assert group(host, c)[1] == 2


def test_while_it_starts(host):
    """From the first instant on: whichever state the order meets."""
    for delay in (0, 0.001, 0.003, 0.006, 0.01, 0.02, 0.05):
        c = host.deploy(dockerArgs="sleep 100")
        time.sleep(delay)
        update(host, c, vcpuCount=2, memoryInGb=2)
        assert settled(host, c)["updateRefused"] is None
        host.wait_running(c)
        assert group(host, c) == (2 << 30, 2)
        host.terminate(c)


def test_while_it_pulls(host, registry):
    image = Image([Layer().busybox("sh", "sleep").dir("tmp", mode=0o1777).dir("etc").tar(),
                   Layer().file("noise", random.Random(5).randbytes(3 << 20)).tar()],
                  compress_as="none", config={"Cmd": ["/bin/sleep", "1000"]})
    registry.fault(image.layers[1]["digest"], Throttle(1 << 20))
    c = host.deploy(imageName=registry.add("test/update", "slower", image))
    before = host.wait(c, lambda x: x["phase"] == "pulling" and (x["progressBytes"] or 0) > 200000)
    update(host, c, vcpuCount=2, memoryInGb=2)
    v = settled(host, c)
    assert v["phase"] == "pulling" and v["updateRefused"] is None
    assert host.cluster(c)["progressBytes"] >= before["progressBytes"]  # it goes on
    host.wait_running(c)
    assert group(host, c) == (2 << 30, 2)
    host.terminate(c)


def test_while_it_stops(host):
    with host.running("sh", "-c", "trap '' TERM; while :; do sleep 0.1; done") as c:
        host.call("clusterStop", c)
        refused(host, c, "still stopping", vcpuCount=2)
        host.wait_exited(c)
        assert update(host, c, vcpuCount=2)["vcpuCount"] == 2


def test_one_that_was_removed_does_not_exist(host):
    c = host.deploy(dockerArgs="sleep 100")
    host.terminate(c)
    with pytest.raises(ApiError) as e:
        update(host, c, vcpuCount=2)
    assert e.value.errors[0]["message"] == "cluster not found"


def test_many_at_once(host, cluster):
    """Each is made whole, or refused in a sentence."""
    was, results = first(host, cluster), []

    def one(n):
        try:
            results.append(update(host, cluster, vcpuCount=n, memoryInGb=n)["version"])
        except ApiError as e:
            results.append(e.errors[0]["message"])
    for round_ in range(5):
        threads = [threading.Thread(target=one, args=(2 + (round_ + i) % 3,)) for i in range(8)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        settled(host, cluster)
    made = [r for r in results if isinstance(r, int)]
    assert made and {r for r in results if not isinstance(r, int)} <= {
        "it is being changed; try again in a moment"}
    v = view(host, cluster)
    assert group(host, cluster) == (v["memoryInGb"] << 30, v["vcpuCount"])
    assert v["vcpuCount"] == v["memoryInGb"] and first(host, cluster) == was


def test_stopped_in_the_middle(host):
    for delay in (0, 0.001, 0.002, 0.005):
        with host.running("sleep", "1000") as c:
            update(host, c, vcpuCount=2, memoryInGb=3)
            time.sleep(delay)
            host.call("clusterStop", c)
            host.wait_exited(c)
            host.wait_held(host.kept(c), or_less=True)
            v = view(host, c)
            assert not v["updating"] and (v["vcpuCount"], v["memoryInGb"]) == (2, 3)
            host.call("clusterResume", c)
            host.wait_running(c)
            assert group(host, c) == (3 << 30, 2)


# -- what is sold ----------------------------------------------------------------------------------

def taken(host):
    m = host.gql("{ myself { clusters { machine { vcpuReserved memoryReserved } } } }")
    m = m["myself"]["clusters"][0]["machine"]
    return m["vcpuReserved"], m["memoryReserved"]


def test_reservations_follow(host, cluster):
    cpu, mem = taken(host)
    changed(host, cluster, vcpuCount=4, memoryInGb=4)
    assert taken(host) == (cpu + 3, mem + 2)
    changed(host, cluster, vcpuCount=2, memoryInGb=1)
    assert taken(host) == (cpu + 1, mem - 1)
    inside(host, cluster, "dd if=/dev/zero of=/dev/shm/x bs=1M count=400 2> /dev/null")
    with held_engine(host):
        update(host, cluster, vcpuCount=3)
        assert taken(host) == (cpu + 2, mem - 1)  # before the engine has heard of it
    settled(host, cluster)
    changed(host, cluster, vcpuCount=1, memoryInGb=2)
    assert taken(host) == (cpu, mem)


@contextlib.contextmanager
def held_engine(host):
    os.kill(host.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(host.pid, signal.SIGCONT)


def test_what_shrinks_is_free_only_when_it_has_shrunk(host, cluster):
    cpu, mem = taken(host)
    changed(host, cluster, vcpuCount=4, memoryInGb=4)
    with held_engine(host):
        update(host, cluster, vcpuCount=1, memoryInGb=2)
        assert taken(host) == (cpu + 3, mem + 2)
        with pytest.raises(ApiError) as e:
            update(host, cluster, vcpuCount=2)
        assert "being changed" in e.value.errors[0]["message"]
        with pytest.raises(ApiError) as e:
            host.call("clusterRestart", cluster)
        assert "being changed" in e.value.errors[0]["message"]
    settled(host, cluster)
    assert taken(host) == (cpu, mem)


# -- kill -9 ---------------------------------------------------------------------------------------

def converged(host, cluster, was):
    v = settled(host, cluster)
    wait_until(lambda: group(host, cluster) == (v["memoryInGb"] << 30, v["vcpuCount"]),
               what="%s in %s" % (v, group(host, cluster)))
    assert v["desiredStatus"] == "RUNNING" and first(host, cluster) == was
    return v


def revived(host):
    """And the two have found each other again."""
    revive(host)
    wait_until(lambda: host.rest("GET", "/health").status_code == 200, what="health")


def kill_engine(host):
    host.kill()


def kill_api(host):
    with contextlib.suppress(ProcessLookupError, RuntimeError):
        os.kill(host.api_pid(), signal.SIGKILL)


def kill_operation(host):
    for pid in host.descendants("hvmm-op"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.limit(300)
@pytest.mark.parametrize("kill", [kill_engine, kill_api, kill_operation])
def test_killed_at_any_instant(host, cluster, kill):
    rng, was = random.Random(kill.__name__), first(host, cluster)
    for n in range(12):
        v = view(host, cluster)
        want = (v["vcpuCount"] % 4 + 1, v["memoryInGb"] % 4 + 1)
        answer = []

        def ask():
            try:
                answer.append(update(host, cluster, vcpuCount=want[0], memoryInGb=want[1]))
            except (ApiError, requests.RequestException, ValueError):
                pass  # it may have been made all the same
        t = threading.Thread(target=ask)
        t.start()
        time.sleep(rng.random() * 0.015)
        kill(host)
        t.join()
        revived(host)
        now = converged(host, cluster, was)
        assert now["updateRefused"] is None
        has = (now["vcpuCount"], now["memoryInGb"])
        assert has == want or (not answer and has == (v["vcpuCount"], v["memoryInGb"]))
    cpu, mem = taken(host)
    total = view(host, cluster)
    assert (cpu, mem) == (total["vcpuCount"], total["memoryInGb"])


@pytest.mark.limit(300)
@pytest.mark.parametrize("kill", [kill_engine, kill_api])
def test_killed_while_it_is_refused(host, cluster, kill):
    rng, was = random.Random(kill.__name__), first(host, cluster)
    inside(host, cluster, "dd if=/dev/zero of=/dev/shm/x bs=1M count=980 2> /dev/null")
    for n in range(8):
        with contextlib.suppress(ApiError, requests.RequestException, ValueError):
            update(host, cluster, memoryInGb=1, vcpuCount=3)
        time.sleep(rng.random() * 0.02)
        kill(host)
        revived(host)
        v = converged(host, cluster, was)
        assert (v["vcpuCount"], v["memoryInGb"]) == (1, 2), v
    assert taken(host) == (1, 2)
