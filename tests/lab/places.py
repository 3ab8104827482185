"""Hosts of the lab that are not like the build machine: two NUMA nodes, and a data directory on a file
system with project quotas."""
import os
import pathlib
import subprocess
import tempfile

import host

NODES = pathlib.Path("/sys/devices/system/node")
ANY = {"engine": {"cpu_overcommit": 1, "memory_overcommit": 4, "disk_overcommit": 4, "grace": "2s",
                  "pool_networks": 0, "pool_disks": 0}}


def read(path):
    return pathlib.Path(path).read_text(errors="replace").strip()


def config(**engine):
    return {"engine": {**ANY["engine"], **engine}}


def node_of(cpu):
    (found,) = [n for n in NODES.glob("node*") if (n / ("cpu" + cpu)).exists()]
    return found.name[4:]


def group(h, cluster):
    (found,) = [g for g in map(pathlib.Path, h.slices()) if g.name == "c%d" % h.slot(cluster)]
    return found


def memory_by_node(g):
    """Bytes of programs' memory on each node."""
    (line,) = [x for x in read(g / "memory.numa_stat").splitlines() if x.startswith("anon ")]
    return {k[1:]: int(v) for k, v in (part.split("=") for part in line.split()[1:])}


def bound(h, cluster):
    """(node of its CPU, nodes of its memory), and what it takes comes from there."""
    g = group(h, cluster)
    cpus, mems = read(g / "cpuset.cpus.effective"), read(g / "cpuset.mems.effective")
    h.exec(cluster, "sh", "-c", "x=$(head -c 60000000 /dev/zero | tr '\\0' x); sleep 1000 & echo ${#x}")
    by_node = memory_by_node(g)
    elsewhere = sum(v for k, v in by_node.items() if k not in mems.split(","))
    assert elsewhere <= 4 << 20, (mems, by_node)
    return node_of(cpus), mems


def numa(slow):
    """A cluster's memory is on the node of its vCPUs, and both are where its GPU is."""
    nodes = sorted(n.name for n in NODES.glob("node[0-9]*"))
    assert nodes == ["node0", "node1"], nodes
    told = []
    with host.Host(config(gpu_driver="simulated:a6000x4"), data=None) as h:
        h.import_image("tensorone/starter")
        inventory = {g["id"]: g for g in h.gql("{ gpus { id numaNode cpus } }")["gpus"]}
        assert {g["numaNode"] for g in inventory.values()} == {0, 1}, inventory
        for g in inventory.values():
            assert g["cpus"] == [c for c in ("0", "1") if node_of(c) == str(g["numaNode"])], g
        one = h.deploy(dockerArgs="sleep 1000000", gpuCount=1, gpuTypeId="NVIDIA RTX A6000")
        h.wait_running(one, 30 * slow)
        (uuid,) = [u for u, c in h.gpu_claims().items() if c == one]
        want = str(inventory[uuid]["numaNode"])
        assert bound(h, one) == (want, want)
        told.append("GPU, vCPU and memory on node " + want)
        two = h.deploy(dockerArgs="sleep 1000000")
        h.wait_running(two, 30 * slow)
        other = str(1 - int(want))
        assert bound(h, two) == (other, other)  # the only CPU that is left
        told.append("vCPU and memory on node " + other)
        # as they were, also for the next engine
        h.kill()
        h.start(30 * slow)
        h.wait_running(one, 20 * slow)
        assert bound(h, one) == (want, want)
    return "\n".join(told)


def project_quotas(slow):
    """Disks are files of their size with an ext4 inside: they hold what was sold, no more, also where
    the data directory's file system counts blocks by project, and it counts ours for nobody."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as tmp:
        image, top = tmp + "/disk.img", tmp + "/top"
        os.truncate(os.open(image, os.O_CREAT | os.O_WRONLY), 3 << 30)
        os.mkdir(top)
        subprocess.run(["mkfs.ext4", "-q", "-O", "quota,project", "-E", "quotatype=usrquota:prjquota",
                        image], check=True)
        subprocess.run(["mount", "-o", "loop,prjquota", image, top], check=True)
        try:
            os.mkdir(top + "/host")
            with host.Host(config(), data=top + "/host") as h:
                doctor = subprocess.run([host.program("hypervisor-vmm"), "doctor"], text=True,
                                        stdout=subprocess.PIPE, check=True).stdout
                assert "a mount has them" in doctor, doctor
                h.import_image("tensorone/starter")
                c = h.deploy(dockerArgs="sleep 1000000", containerDiskInGb=1, volumeInGb=1,
                             volumeMountPath="/work")
                h.wait_running(c, 30 * slow)
                out = h.exec(c, "sh", "-c", "df -m / /work").stdout
                for path in ("/", "/work/"):
                    full = h.exec(c, "fallocate", "-l", "1100M", path + "x", check=False)
                    assert full.returncode and "No space left" in full.stderr, full
                    h.exec(c, "sh", "-c", "rm -f %sx; fallocate -l 700M %sx" % (path, path))
                h.terminate(c)
                h.wait_released(20 * slow)
            used = os.statvfs(top)
            assert (used.f_blocks - used.f_bfree) * used.f_frsize < 300 << 20, used
        finally:
            subprocess.run(["umount", top], check=True)
    return out
