"""A real standalone host for tests and benchmarks: starts hypervisor-vmm on a temporary data
directory, talks to it as a client would, and ends it again, also after failures.

    with Host(config={"engine": {"cpu_overcommit": 50}}) as host:
        host.import_image("tensorone/starter")
        cluster = host.deploy(imageName="tensorone/starter", dockerArgs="sleep 100")
        host.wait(cluster, lambda c: c["runtime"])
"""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time

import requests
import websocket

import inventory

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("HVMM_BUILD", ROOT / "build")).resolve()
RUN = pathlib.Path("/run/hypervisor-vmm")
SLOW = int(os.environ.get("HVMM_SLOW", "1"))  # tests/conftest.py
PAUSE_S = 0.02 * SLOW  # between two questions; each of them costs the host that is asked, too

FIELDS = """id name imageName desiredStatus phase progressPercent progressBytes progressTotalBytes
 progressBytesPerSecond reason costPerHr
 containerDiskInGb volumeInGb volumeMountPath vcpuCount memoryInGb gpuCount env ports dockerArgs
 lastStatusChange uptimeSeconds machine { gpuDisplayName }
 runtime { uptimeInSeconds ports { ip isIpPublic privatePort publicPort type } }"""


class ApiError(Exception):
    """What GraphQL answered in `errors`, with the HTTP status."""

    def __init__(self, status, errors):
        self.status = status
        self.errors = errors
        super().__init__("%d: %s" % (status, "; ".join(e["message"] for e in errors)))


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def program(name):
    path = BUILD / name
    if not path.exists():
        raise RuntimeError("%s is missing: run 'make build' first" % path)
    return str(path)


def image_layout(name):
    """The OCI layout of a starter image; made by `make images`."""
    path = BUILD / "images" / name
    if not (path / "index.json").exists():
        raise RuntimeError("%s is missing: run 'make images' first" % path)
    return path


def bare(element):
    """Of a firewall set, without what its counter says."""
    return element["elem"]["val"] if isinstance(element, dict) and "elem" in element else element


class Host:
    def __init__(self, config=None, data=None, keep=False, programs=None):
        """@programs: another folder than BUILD to start them from."""
        self.config = config or {}
        self.programs = programs
        self.own = data is None
        self.dir = pathlib.Path(data or tempfile.mkdtemp(prefix="hvmm-test.", dir="/var/tmp"))
        self.keep = keep
        os.chmod(self.dir, 0o711)
        self.data = self.dir / "data"
        self.port = free_port()
        self.proc = None
        self.key = None
        self.log = self.dir / "log"

    # -- life ---------------------------------------------------------------------------------

    def write_config(self):
        lines = []
        # hosts of many tests run beside each other: one has an edge when it asks for it
        for section, keys in {"edge": {"listen": "none"}, **self.config}.items():
            lines.append("[%s]" % section)
            lines += ["%s = %s" % kv for kv in keys.items()]
        (self.dir / "config").write_text("\n".join(lines) + "\n")

    def start(self, timeout=30):
        self.write_config()
        out, into = os.pipe()
        self.proc = subprocess.Popen(
            [str(self.programs / "hypervisor-vmm") if self.programs else program("hypervisor-vmm"), "standalone", "--data-dir", str(self.data), "--listen",
             "127.0.0.1:%d" % self.port, "--config", str(self.dir / "config")],
            stdout=into, stderr=open(self.log, "ab"), stdin=subprocess.DEVNULL)
        os.close(into)
        end = time.monotonic() + timeout
        text = b""
        import select
        while not text.endswith(b"ready\n"):
            left = (end - time.monotonic()) * SLOW
            ready, _, _ = select.select([out], [], [], max(left, 0))
            chunk = os.read(out, 100) if ready else b""
            if not chunk:
                os.close(out)
                raise RuntimeError("the host did not become ready: %s" % self.log_text()[-2000:])
            text += chunk
        os.close(out)
        self.key = (self.data / "admin.key").read_text().strip()
        return self

    def stop(self, timeout=40):
        """SIGTERM; clusters go on running."""
        if not self.proc:
            return None
        self.proc.send_signal(signal.SIGTERM)
        try:
            code = self.proc.wait(timeout)
        finally:
            self.proc = self.proc if self.proc.poll() is None else None
        return code

    def kill(self):
        """kill -9 of the engine, as a crash would be."""
        self.proc.kill()
        self.proc.wait()
        self.proc = None

    def restart(self):
        if self.proc:
            self.kill()
        return self.start()

    def close(self):
        """End everything that this host ever started; raises when something cannot be removed."""
        try:
            if not (self.data / "instance").exists():
                return
            if self.proc is None or self.proc.poll() is not None:
                self.proc = None
                self.start()
            for c in self.clusters():
                self.terminate(c["id"])
            self.wait_released()
            self.stop()
        finally:
            if self.proc and self.proc.poll() is None:
                self.kill()
            if self.own and not self.keep:
                shutil.rmtree(self.dir, ignore_errors=True)

    def __enter__(self):
        return self.start()

    def __exit__(self, kind, value, trace):
        if kind:
            print("--- host log ---\n%s" % self.log_text()[-6000:])
        self.close()

    def log_text(self):
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    @property
    def id(self):
        return (self.data / "instance").read_text().strip()

    @property
    def url(self):
        return "http://127.0.0.1:%d" % self.port

    @property
    def pid(self):
        return self.proc.pid

    # -- API ----------------------------------------------------------------------------------

    def post(self, query, variables=None, key=None, **kw):
        headers = {"Authorization": "Bearer " + (key or self.key)}
        body = {"query": query}
        if variables is not None:
            body["variables"] = variables
        try:
            return requests.post(self.url + "/graphql", json=body, headers=headers, timeout=30 * SLOW, **kw)
        except requests.ConnectionError:
            if self.proc and self.proc.poll() is not None:
                raise requests.ConnectionError("the engine has ended (%d); its last words:\n%s" %
                                               (self.proc.returncode, self.log_text()[-3000:])) from None
            raise

    def gql(self, query, variables=None, key=None):
        answer = self.post(query, variables, key)
        body = answer.json()
        if "errors" in body:
            raise ApiError(answer.status_code, body["errors"])
        return body["data"]

    def deploy(self, key=None, **fields):
        """Create a cluster; returns its id."""
        given = dict(gpuCount=0, imageName="tensorone/starter", containerDiskInGb=1,
                     minMemoryInGb=1, minVcpuCount=1)
        given.update(fields)
        data = self.gql("mutation($input: ClusterFindAndDeployOnDemandInput)"
                        " { clusterFindAndDeployOnDemand(input: $input) { id desiredStatus } }",
                        {"input": given}, key)
        cluster = data["clusterFindAndDeployOnDemand"]
        assert cluster["desiredStatus"] == "RUNNING", cluster
        return cluster["id"]

    def cluster(self, cluster, key=None):
        return self.gql("query($id: String!) { cluster(input: {clusterId: $id}) { %s } }" % FIELDS,
                        {"id": cluster}, key)["cluster"]

    def clusters(self, key=None):
        return self.gql("{ myself { clusters { %s } } }" % FIELDS, key=key)["myself"]["clusters"]

    def wait(self, cluster, until, timeout=30):
        end = time.monotonic() + timeout
        while True:
            c = self.cluster(cluster)
            if until(c):
                return c
            if time.monotonic() > end:
                raise TimeoutError("cluster %s: %s\n%s" % (cluster, c, self.log_text()[-3000:]))
            time.sleep(PAUSE_S)

    def wait_running(self, cluster, timeout=30):
        def check(c):
            assert c is not None, "cluster %s is gone" % cluster
            assert c["desiredStatus"] != "EXITED", c["reason"]
            return c["runtime"] is not None
        return self.wait(cluster, check, timeout)

    def wait_exited(self, cluster, timeout=30):
        return self.wait(cluster, lambda c: c["desiredStatus"] == "EXITED" and c["phase"] == "exited",
                         timeout)

    def call(self, verb, cluster, key=None, **fields):
        fields["podId" if verb.startswith("pod") else "clusterId"] = cluster
        kind = verb[0].upper() + verb[1:] + "Input"
        sub = "" if verb.endswith("Terminate") else "{ id desiredStatus }"
        return self.gql("mutation($input: %s!) { %s(input: $input) %s }" % (kind, verb, sub),
                        {"input": fields}, key)

    def terminate(self, cluster):
        return self.call("clusterTerminate", cluster)

    def wait_released(self, timeout=30):
        """Every terminated cluster has let go of its resources: no group, no link, no disk, no GPU
        that is still being checked."""
        end = time.monotonic() + timeout
        while any((self.data / "volumes").iterdir()) or self.slices() or self.gpu_claims():
            if time.monotonic() > end:
                raise TimeoutError("still held: %s %s %s\n%s" % (
                    list((self.data / "volumes").iterdir()), self.slices(), self.gpu_claims(),
                    self.log_text()[-3000:]))
            time.sleep(PAUSE_S)

    def gpu_claims(self):
        """{UUID: cluster} of GPUs that clusters of this host have, or have not quite given back."""
        found = {}
        with contextlib.suppress(FileNotFoundError):
            for f in (RUN / "gpus").iterdir():
                with contextlib.suppress(FileNotFoundError):
                    words = f.read_text().split()
                    if words and words[0] == self.id:
                        found[f.name] = words[1]
        return found

    def slices(self):
        """Groups of clusters with processes in them, c<slot> and m<slot>; the pool's shells wait for
        a cluster and are none."""
        held = []
        for root in self.slice_roots():
            for group in root.iterdir():
                procs = group / "cgroup.procs"
                with contextlib.suppress(OSError):  # it goes while we look
                    if any(inventory.read("/proc/%s/comm" % pid).strip() not in ("", "hvmm-shell")
                           for pid in procs.read_text().split()):
                        held.append(str(group))
        return held

    def slice_roots(self):
        base = pathlib.Path("/sys/fs/cgroup")
        name = "hvmm-" + self.id
        return [p for p in [base / name] + [d / name for d in base.iterdir() if d.is_dir()]
                if p.is_dir()]

    def rest(self, method, path, key=None, timeout=30, **kw):
        return requests.request(method, self.url + path, timeout=timeout * SLOW,
                                headers={"Authorization": "Bearer " + (key or self.key)}, **kw)

    def new_account(self, name):
        """Its key."""
        answer = self.rest("POST", "/v1/accounts", json={"name": name})
        assert answer.status_code == 201, answer.text
        return answer.json()["key"]

    def logs(self, cluster, **params):
        answer = self.rest("GET", "/v1/clusters/%s/logs" % cluster, params=params)
        answer.raise_for_status()
        return answer.text

    def wait_log(self, cluster, text, timeout=20):
        """The log once @text is in it."""
        end = time.monotonic() + timeout
        while True:
            log = self.logs(cluster)
            if text in log:
                return log
            if time.monotonic() > end:
                raise TimeoutError("%r never came: %r\n%s" % (text, log, self.log_text()[-3000:]))
            time.sleep(PAUSE_S)

    # -- what clusters hold -------------------------------------------------------------------

    def mounted_images(self):
        """Ids of images with a base mount.  One stays for some seconds behind its last cluster, so it
        is not among what is held()."""
        return {int(f.name) for f in (RUN / self.id).glob("images/*")}

    def claims(self, kind):
        """{number: cluster} of this host's claims; @kind: "slots", "cpus" or "ports"."""
        found = {}
        for f in (RUN / kind).iterdir():
            with contextlib.suppress(FileNotFoundError):
                words = f.read_text().split() if f.name.isdigit() else []
                if words and words[0] == self.id:
                    found[int(f.name)] = words[1]
        return found

    def slot(self, cluster):
        for n, c in self.claims("slots").items():
            if c == cluster:
                return n
        return self.journal()[cluster]["slot"]  # its claim has a name of the pool's

    def pids(self, cluster, group="c"):
        """Host pids in the cluster's group; group "m" is its monitors'."""
        name = "%s%d" % (group, self.slot(cluster))
        for root in self.slice_roots():
            procs = root / name / "cgroup.procs"
            if procs.exists():
                return [int(p) for p in procs.read_text().split()]
        raise RuntimeError("there is no group %s" % name)

    def first_pid(self, cluster):
        """Host pid of the cluster's first process."""
        for pid in self.pids(cluster):
            line = inventory.read("/proc/%d/status" % pid)
            if "NSpid:" in line and line.split("NSpid:")[1].split("\n")[0].split()[-1] == "1":
                return pid
        raise RuntimeError("cluster %s has no first process" % cluster)

    def wait_new_first(self, cluster, old, timeout=30):
        """Host pid of the first process, once it is another than @old."""
        end = time.monotonic() + timeout
        while True:
            with contextlib.suppress(RuntimeError, KeyError):
                pid = self.first_pid(cluster)
                if pid != old and self.cluster(cluster)["runtime"]:
                    return pid
            if time.monotonic() > end:
                raise TimeoutError("cluster %s: %s" % (cluster, self.cluster(cluster)))
            time.sleep(PAUSE_S)

    def held(self):
        """Everything that this host holds for clusters and pulls, in words.  A host without pools
        (pool_networks = pool_disks = 0) on which nothing was deployed holds nothing."""
        found = {"slot %d of %s" % x for x in self.claims("slots").items()}
        found |= {"link hv%d" % n for n in self.claims("slots") if "hv%d" % n in inventory.links()}
        found |= {"cpu %d of %s" % x for x in self.claims("cpus").items()}
        found |= {"port %d of %s" % x for x in self.claims("ports").items()}
        found |= {"group %s" % g for root in self.slice_roots() for g in root.iterdir()
                  if g.is_dir()}
        found |= {"loop %s %s" % x for x in inventory.loops([str(self.data)])}
        found |= {"mount %s" % (m,) for m in inventory.mounts([str(self.data)])
                  if m[1] != str(RUN / self.id / "control")}  # the API's own
        found |= {"run file %s" % f.name for f in (RUN / self.id).iterdir()
                  if f.name not in ("node.sock", "control", "images", "apparmor", "edge", "edge.sock",
                                    "edge.process", "ssh")}
        found |= {"disk " + f.name for f in (self.data / "disks").iterdir() if f.name != "masters"}
        found |= {"staging " + f.name for f in (self.data / "images/staging").iterdir()}
        found |= {"volume " + f.name for f in (self.data / "volumes").iterdir()}
        found |= {"log " + f.name for f in (self.data / "clusters").iterdir()
                  if f.name != ".spare"}
        found |= {"fetcher %d" % p for p in self.descendants("vmm-fetch")}
        table = subprocess.run(["nft", "-j", "list", "table", "inet", "hvmm_" + self.id],
                               capture_output=True, text=True)
        if table.returncode == 0:
            for x in json.loads(table.stdout)["nftables"]:
                if x.get("set", {}).get("name") in ("links", "sources", "fetchers", "publishers"):
                    found |= {"%s element %s" % (x["set"]["name"], json.dumps(bare(e)))
                              for e in x["set"].get("elem", [])}
        return found

    def wait_held(self, wanted, or_less=False, timeout=15):
        """Slow teardown ends after the answer: until held() is what it shall be."""
        end = time.monotonic() + timeout
        while True:
            now = self.held()
            if now == wanted or (or_less and now <= wanted):
                return
            if time.monotonic() > end:
                raise AssertionError("left behind: %s; gone: %s\n%s" % (
                    sorted(now - wanted), sorted(wanted - now), self.log_text()[-3000:]))
            time.sleep(PAUSE_S)

    def kept(self, cluster, volume=False):
        """What a stopped cluster may still hold."""
        return {"log " + cluster} | ({"volume %s.img" % cluster} if volume else set())

    def descendants(self, name):
        found, todo = [], [self.pid] if self.proc else []
        while todo:
            pid = todo.pop()
            with contextlib.suppress(OSError):  # it has ended meanwhile
                for task in os.listdir("/proc/%d/task" % pid):
                    todo += [int(p) for p in inventory.read(
                        "/proc/%d/task/%s/children" % (pid, task)).split()]
            if inventory.read("/proc/%d/comm" % pid).strip() == name:
                found.append(pid)
        return found

    @contextlib.contextmanager
    def running(self, *command, **fields):
        """A cluster that runs @command (words, or dockerArgs), for the length of the block; then
        all that it held must be gone."""
        before = self.held()
        if command:
            fields["dockerArgs"] = json.dumps({"cmd": list(command)})
        cluster = self.deploy(**fields)
        try:
            self.wait_running(cluster)
            yield cluster
        finally:
            if self.cluster(cluster):
                self.terminate(cluster)
        self.wait_held(before, or_less=True)

    def session(self, cluster, *command, key=None, **params):
        return Session(self, cluster, command, key, **params)

    # -- CLI ----------------------------------------------------------------------------------

    def cli_env(self):
        return {"PATH": os.environ["PATH"], "HOME": str(self.dir), "LANG": "C.UTF-8",
                "TENSORONE_API_URL": self.url, "TENSORONE_API_KEY": self.key or ""}

    def cli(self, *args, check=True, key=None, **kw):
        kw.setdefault("stdin", subprocess.DEVNULL)
        env = {**self.cli_env(), **({"TENSORONE_API_KEY": key} if key else {})}
        done = subprocess.run([program("tensoronecli"), *args], env=env, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=120, **kw)
        if check and done.returncode != 0:
            raise RuntimeError("tensoronecli %s: %d\n%s%s" % (" ".join(args), done.returncode,
                                                              done.stdout, done.stderr))
        return done

    def exec(self, cluster, *command, check=True, **kw):
        return self.cli("exec", cluster, "--", *command, check=check, **kw)

    def import_image(self, name="tensorone/starter", layout=None, public=True):
        layout = layout or image_layout(name.split("/")[-1])
        args = ["image", "import"] + (["--public"] if public else []) + [name, str(layout)]
        return self.cli(*args)

    # -- engine -------------------------------------------------------------------------------

    def api_pid(self):
        found = self.descendants("tensorone-api")
        if not found:
            raise RuntimeError("tensorone-api is not running")
        return found[0]

    def journal(self, table="cluster"):
        """Rows of the engine's journal as {first column: {column: value}}; the engine must be down or
        idle (its lock is exclusive), so a copy is read."""
        import sqlite3
        with tempfile.TemporaryDirectory() as tmp:
            for f in self.data.glob("journal.db*"):
                shutil.copy(f, tmp)
            db = sqlite3.connect(tmp + "/journal.db")
            db.row_factory = sqlite3.Row
            rows = {r[0]: dict(r) for r in db.execute("SELECT * FROM " + table)}
            db.close()
            return rows


class Session:
    """An exec session over its WebSocket (docs/http-api.md)."""

    def __init__(self, host, cluster, command, key=None, **params):
        pairs = [("cmd", word) for word in command]
        for name, value in params.items():
            pairs += [(name, v) for v in (value if isinstance(value, list) else [value])]
        query = requests.models.RequestEncodingMixin._encode_params(pairs)
        self.ws = websocket.create_connection(
            host.url.replace("http", "ws") + "/v1/clusters/%s/exec?%s" % (cluster, query),
            timeout=30 * SLOW, header=["Authorization: Bearer " + (key or host.key)],
            subprotocols=["tensorone.exec.v1"])
        self.out, self.err = b"", b""
        self.exit = self.error = self.close_code = None

    def send(self, channel, data=b""):
        self.ws.send_binary(bytes([channel]) + data)

    def stdin(self, data):
        self.send(0, data)

    def eof(self):
        self.send(4)

    def resize(self, rows, cols):
        self.send(3, struct.pack(">HH", rows, cols))

    def signal(self, number):
        self.send(7, bytes([number]))

    def step(self):
        """One message; False at the end."""
        opcode, data = self.ws.recv_data(control_frame=True)
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            self.close_code = struct.unpack(">H", data[:2])[0]
            self.ws.close()
            return False
        if data[0] == 1:
            self.out += data[1:]
        elif data[0] == 2:
            self.err += data[1:]
        elif data[0] == 5:
            self.exit = json.loads(data[1:])
        elif data[0] == 6:
            self.error = data[1:].decode()
        return True

    def until(self, text):
        """Read until @text was written to stdout."""
        while text not in self.out:
            if not self.step():
                raise EOFError("the session ended with %r: %r" % (self.exit, self.out))
        return self.out

    def finish(self):
        while self.step():
            pass
        return self


class Node:
    """The other end of the node protocol (docs/node-protocol.md): a control plane in Python, for
    tests that want the engine alone."""

    def __init__(self, host_id):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(RUN / host_id / "node.sock"))
        self.buf = b""
        self.fds = []
        self.hello = self.recv()[0]
        self.send({"type": "welcome", "version": 1})
        self.reports = []
        while True:
            msg, _ = self.recv()
            if msg["type"] == "inner":
                break
            if msg["type"] == "report":
                self.reports.append(msg)

    def close(self):
        for fd in self.fds:
            os.close(fd)
        self.sock.close()

    def send(self, msg, fds=()):
        body = json.dumps(msg).encode()
        socket.send_fds(self.sock, [struct.pack(">IBBH", len(body), 1, len(fds), 0) + body], fds)

    def recv(self, timeout=30):
        self.sock.settimeout(timeout * SLOW)
        while True:
            if len(self.buf) >= 8:
                size, _, n_fds, _ = struct.unpack(">IBBH", self.buf[:8])
                if len(self.buf) >= 8 + size:
                    msg = json.loads(self.buf[8:8 + size])
                    self.buf = self.buf[8 + size:]
                    fds, self.fds = self.fds[:n_fds], self.fds[n_fds:]
                    if msg["type"] == "inner":
                        for fd in fds:
                            os.close(fd)
                    return msg, fds
            data, fds, _, _ = socket.recv_fds(self.sock, 65536, 16)
            if not data:
                raise EOFError("the engine closed the connection")
            self.buf += data
            self.fds += fds

    def until(self, want, timeout=30):
        end = time.monotonic() + timeout
        while True:
            msg, fds = self.recv(max(0.01, end - time.monotonic()))
            if want(msg):
                return msg, fds

    def plan(self, cluster, command, generation=1, **fields):
        plan = dict(cluster=cluster, generation=generation, account="test", name=cluster,
                    image="tensorone/starter", command=command, vcpu=1, memory_mib=256,
                    container_disk_gib=1, env=["A=b"])
        plan.update(fields)
        return plan

    def assign(self, cluster, command, generation=1, desired="running", **fields):
        self.send({"type": "assign", "cluster": cluster, "generation": generation,
                   "desired": desired, "plan": self.plan(cluster, command, generation, **fields)})

    def remove(self, cluster, generation=1 << 40):
        self.send({"type": "tombstone", "cluster": cluster, "generation": generation})
        self.until(lambda m: m.get("cluster") == cluster and m.get("state") == "terminated")
        self.send({"type": "forget", "cluster": cluster})


@contextlib.contextmanager
def our_node(host):
    """In place of the API, which is held still meanwhile."""
    api = host.api_pid()
    os.kill(api, signal.SIGSTOP)
    node = Node(host.id)
    try:
        yield node
    finally:
        node.close()
        os.kill(api, signal.SIGCONT)
