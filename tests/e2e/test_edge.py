"""The edge: HTTPS names of clusters and of the API through HAProxy, from the first start on."""
import base64
import contextlib
import json
import os
import shlex
import socket
import ssl
import stat
import subprocess
import time

import pytest

import edge
from certs import openssl
from edge import Edge
from host import PAUSE_S, RUN, SLOW, Host, program

CONFIG = {"engine": {"pool_networks": 0, "pool_disks": 0, "grace": "1s", "cpu_overcommit": 100,
                     "memory_overcommit": 20, "disk_overcommit": 100}}
EDGE_UID = 0x4FD00003
IMAGE = "tensorone/llm-starter"
# Tells what reached it; streams; echoes bodies; speaks a WebSocket's handshake and echoes frames as they come.
SERVER = r'''
import base64, hashlib, http.server, json, sys, threading, time
class H(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *a): pass
    def send(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        if self.path == "/ws":
            key = self.headers["Sec-WebSocket-Key"].encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
            self.send_response(101)
            self.send_header("Upgrade", "websocket")
            self.send_header("Connection", "Upgrade")
            self.send_header("Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key).digest()).decode())
            self.end_headers()
            self.wfile.flush()
            while piece := self.rfile.read1(65536):
                self.wfile.write(piece)
            self.close_connection = True
        elif self.path == "/stream":
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for i in range(3):
                data = b"data: %d\n\n" % i
                self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
                self.wfile.flush()
                with lock: lock.wait_for(lambda: taken[0] > i, 60)
            self.wfile.write(b"0\r\n\r\n")
        elif self.path == "/taken":
            with lock:
                taken[0] += 1
                lock.notify_all()
            self.send(b"")
        elif self.path == "/close":
            self.close_connection = True
        else:
            self.send(json.dumps({"path": self.path, "headers": dict(self.headers.items()),
                                  "from": self.client_address[0], "say": sys.argv[2]}).encode())
    def do_POST(self):
        digest, left = hashlib.sha256(), int(self.headers.get("Content-Length", 0))
        if self.headers.get("Transfer-Encoding"):
            while size := int(self.rfile.readline(), 16):
                digest.update(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
        while left:
            piece = self.rfile.read(min(left, 1 << 20))
            digest.update(piece)
            left -= len(piece)
        self.send(digest.hexdigest().encode())
class S(http.server.ThreadingHTTPServer):
    request_queue_size = 1000
lock, taken = threading.Condition(), [0]
S(("0.0.0.0", int(sys.argv[1])), H).serve_forever()
'''


def serve(port, say="x"):
    """dockerArgs of a cluster that runs the server."""
    return "python3 -c %s %d %s" % (shlex.quote(SERVER), port, say)


@pytest.fixture(scope="module")
def host():
    with Host({**CONFIG, "edge": edge.here()}) as h:
        h.import_image(IMAGE)
        yield h


@contextlib.contextmanager
def serving(host, port=8000, ports="8000/http", say="x"):
    c = host.deploy(imageName=IMAGE, dockerArgs=serve(port, say), ports=ports)
    try:
        host.wait_running(c)
        yield c
    finally:
        host.terminate(c)


def wait_status(e, name, want, timeout=30):
    """The first answer with that status."""
    end = time.monotonic() + timeout
    while (answer := e.get(name)).status != want:
        assert time.monotonic() < end, (answer.status, answer.text)
        time.sleep(PAUSE_S)
    return answer


@pytest.fixture(scope="module")
def cluster(host):
    with serving(host, ports="8000/http,8001/http,9000/tcp") as c:
        wait_status(Edge(host), Edge(host).name(c, 8000), 200)
        yield c


def websocket(e, name, source="127.0.0.1"):
    s = e.connect(name, source=source).sock
    s.sendall(("GET /ws HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
               "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n" %
               (name, base64.b64encode(os.urandom(16)).decode())).encode())
    head = b""
    while b"\r\n\r\n" not in head:
        head += s.recv(1000)
    assert head.startswith(b"HTTP/1.1 101 ")
    return s


def echoes(s):
    sent, got = os.urandom(5000), b""
    s.sendall(sent)
    while len(got) < len(sent):
        piece = s.recv(65536)
        assert piece
        got += piece
    return got == sent


# ---- who is asked --------------------------------------------------------------------------------

def test_a_cluster_answers_under_its_name(host, cluster):
    e = Edge(host)
    seen = json.loads(e.get(e.name(cluster, 8000), "/a?b=c").text)
    assert seen["path"] == "/a?b=c"
    headers = {k.lower(): v for k, v in seen["headers"].items()}
    assert headers["x-forwarded-for"] == "127.0.0.1"
    assert headers["x-forwarded-proto"] == "https"
    assert headers["host"] == headers["x-forwarded-host"] == "%s:%d" % (e.name(cluster, 8000), e.port)


def test_what_a_client_says_of_itself_is_not_believed(host, cluster):
    e = Edge(host)
    seen = json.loads(e.get(e.name(cluster, 8000), X_Forwarded_For="9.9.9.9", X_Forwarded_Proto="http",
                            X_Real_IP="9.9.9.9", Forwarded="for=9.9.9.9", X_Forwarded_Host="evil").text)
    assert "9.9.9.9" not in json.dumps(seen["headers"]) and "evil" not in json.dumps(seen["headers"])


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_names_of_this_host_as_curl_has_them(host, cluster, version):
    """curl finds *.localhost by itself, as browsers do."""
    e = Edge(host)
    done = subprocess.run(["curl", "-sS", version, "--noproxy", "*", "--cacert", str(e.ca), "-w", "\n%{http_version} %{http_code}",
                           "https://%s:%d/x" % (e.name(cluster, 8000), e.port)],
                          capture_output=True, text=True, timeout=60 * SLOW, check=True)
    body, last = done.stdout.rsplit("\n", 1)
    assert json.loads(body)["path"] == "/x"
    assert last == ("1.1 200" if version == "--http1.1" else "2 200")


def test_the_api_has_a_name_of_its_own(host):
    e = Edge(host)
    c = e.connect(e.api)
    answer = e.ask(c, "POST", "/graphql", json.dumps({"query": "{ myself { id } }"}),
                   Authorization="Bearer " + host.key, Content_Type="application/json")
    assert answer.status == 200 and json.loads(answer.text)["data"]["myself"]["id"]
    assert answer.headers["Strict-Transport-Security"] == "max-age=31536000"
    c.close()


def test_tenants_pages_are_not_strict_for_others(host, cluster):
    e = Edge(host)
    assert e.get(e.name(cluster, 8000)).headers["Strict-Transport-Security"] is None


def test_a_name_that_nobody_has(host, cluster):
    e = Edge(host)
    for name in (e.name("nobody", 8000), e.name(cluster, 8002), e.name(cluster, 9000),
                 "%s.proxy.localhost" % cluster):
        for accept, kind in (("text/html,*/*", "text/html; charset=utf-8"), ("*/*", "application/json")):
            answer = e.get(name, Accept=accept)
            assert (answer.status, answer.headers["Content-Type"]) == (404, kind)
            assert answer.headers["Cache-Control"] == "no-store"
    json.loads(answer.text)


def test_other_hosts_headers_lead_nowhere(host, cluster):
    """Whatever the certificate was asked for: the Host header alone decides, and as a whole."""
    e = Edge(host)
    name = e.name(cluster, 8000)
    for said, status in ((name.upper(), 200), (name + ":1", 200), (name + ".", 404), ("x." + name, 404),
                         (name + ".evil", 404), ("", 404), (e.domain, 404)):
        c = e.connect(name)
        c.putrequest("GET", "/", skip_host=True)
        c.putheader("Host", said)
        c.endheaders()
        assert c.getresponse().status == status, said
        c.close()


def test_nothing_listens_yet(host, cluster):
    e = Edge(host)
    for accept, kind in (("text/html", "text/html; charset=utf-8"), ("application/json", "application/json")):
        answer = e.get(e.name(cluster, 8001), Accept=accept)
        assert (answer.status, answer.headers["Content-Type"]) == (503, kind)
        assert "listens on" in answer.text


def test_something_ends_without_an_answer(host, cluster):
    e = Edge(host)
    answer = e.get(e.name(cluster, 8000), "/close")
    assert answer.status == 502 and "error" in json.loads(answer.text)


# ---- what a browser and a client expect ----------------------------------------------------------

def test_answers_come_as_they_are_made(host, cluster):
    """Each part has to arrive before the next one is sent."""
    e = Edge(host)
    c = e.connect(e.name(cluster, 8000))
    c.request("GET", "/stream")
    response = c.getresponse()
    assert response.headers["Content-Type"] == "text/event-stream"
    for i in range(3):
        assert response.readline() == b"data: %d\n" % i
        assert response.readline() == b"\n"
        e.get(e.name(cluster, 8000), "/taken")
    assert response.read() == b""
    c.close()


def test_websocket(host, cluster):
    s = websocket(Edge(host), Edge(host).name(cluster, 8000))
    for _ in range(10):
        assert echoes(s)
    s.close()


def test_an_upload_of_any_size(host, cluster):
    """More than any buffer of ours, of a length that is told and of one that is not."""
    import hashlib
    e = Edge(host)
    piece, n = os.urandom(1 << 20), 32
    want = hashlib.sha256(piece * n).hexdigest()
    for told in (True, False):
        c = e.connect(e.name(cluster, 8000))
        c.request("POST", "/", (piece for _ in range(n)), {"Content-Length": str(n << 20)} if told else {},
                  encode_chunked=not told)
        assert c.getresponse().read().decode() == want
        c.close()


# ---- routes --------------------------------------------------------------------------------------

def test_a_stop_takes_the_name_away_and_a_start_gives_it_back(host):
    e = Edge(host)
    with serving(host) as c:
        name = e.name(c, 8000)
        wait_status(e, name, 200)
        host.call("clusterStop", c)
        host.wait_exited(c)
        assert e.get(name).status == 503
        assert name not in e.routes()
        host.call("clusterResume", c, gpuCount=0)
        host.wait_running(c)
        wait_status(e, name, 200)
    wait_status(e, name, 404)


def test_what_was_not_declared_is_not_reached(host):
    e = Edge(host)
    with serving(host, ports="8001/http,8000/tcp") as c:
        assert set(e.routes()) >= {e.name(c, 8001)}
        assert e.get(e.name(c, 8000)).status == 404


def sockets_to(address):
    """This host's TCP sockets with that peer that may still send something."""
    done = subprocess.run(["ss", "-Htan", "state", "connected", "exclude", "time-wait", "dst", address],
                          capture_output=True, text=True, timeout=30 * SLOW, check=True)
    return done.stdout.splitlines()


def test_connections_end_with_their_cluster(host):
    """Also one that is still being opened, which would be opened with the next cluster that has the address."""
    e = Edge(host)
    full = "import socket, time; s = socket.socket(); s.bind(('0.0.0.0', 8000)); s.listen(0); print('here', flush=True); time.sleep(1000)"
    c = host.deploy(imageName=IMAGE, dockerArgs="python3 -c " + shlex.quote(full), ports="8000/http")
    host.wait_log(c, "here")
    address = e.routes()[e.name(c, 8000)].split(":")[0]
    pending = []
    end = time.monotonic() + 30
    while not any("SYN-SENT" in line for line in sockets_to(address)):
        assert time.monotonic() < end and len(pending) < 100
        pending.append(e.connect(e.name(c, 8000)))
        pending[-1].request("GET", "/")
        time.sleep(PAUSE_S)
    slot = host.slot(c)
    host.terminate(c)
    end = time.monotonic() + 30
    while slot in host.claims("slots"):
        assert time.monotonic() < end
        time.sleep(PAUSE_S)
    assert sockets_to(address) == []
    for p in pending:
        p.close()


# ---- TLS -----------------------------------------------------------------------------------------

def handshake(e, **want):
    context = e.context()
    for key, value in want.items():
        setattr(context, key, value)
    c = e.connect(e.api, context)
    try:
        return c.sock.version(), c.sock.cipher()[0]
    finally:
        c.close()


def test_tls_versions(host):
    e = Edge(host)
    v = ssl.TLSVersion
    assert handshake(e)[0] == "TLSv1.3"
    version, cipher = handshake(e, maximum_version=v.TLSv1_2)
    assert version == "TLSv1.2" and cipher.startswith("ECDHE-ECDSA-")
    for old in ("-tls1", "-tls1_1"):
        done = subprocess.run(["openssl", "s_client", old, "-cipher", "ALL:@SECLEVEL=0", "-connect",
                               "127.0.0.1:%d" % e.port], input="", capture_output=True, text=True, timeout=60 * SLOW, check=False)
        assert done.returncode != 0 and "alert" in done.stdout + done.stderr


def test_certificates_are_for_their_names_alone(host):
    e = Edge(host)
    for wrong in ("example.org", "a.b.proxy.localhost", "proxy.localhost"):
        with pytest.raises(ssl.SSLCertVerificationError):
            e.connect(wrong)


# ---- its life ------------------------------------------------------------------------------------

def test_it_may_do_next_to_nothing(host):
    e = Edge(host)
    status = dict(line.split(":", 1) for line in e.proc("status").read_text().splitlines())
    assert set(status["Uid"].split()) == set(status["Gid"].split()) == {str(EDGE_UID)}
    for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[kind], 16) == 0
    assert status["NoNewPrivs"].strip() == "1" and status["Groups"].strip() == ""
    root = e.proc("root")
    assert sorted(os.listdir(root / "run/hypervisor-vmm" / host.id)) == ["edge"]
    assert not os.path.exists(root / "proc") or os.listdir(root / "proc") == []
    assert not os.path.exists(root / "usr/sbin")
    # all mounts of it are read-only
    for line in e.proc("mountinfo").read_text().splitlines():
        fields = line.split()
        assert "ro" in fields[5].split(",") or fields[4] == "/dev/urandom", line


def test_keys_are_for_nobody_else(host):
    e = Edge(host)
    for path, uid in ((host.data / "edge/ca.key", 0), (host.data / "edge/tenant.pem", 0), (host.data / "edge/api.pem", 0),
                      (e.files / "tenant.pem", EDGE_UID), (e.files / "api.pem", EDGE_UID), (e.files / "haproxy.cfg", EDGE_UID)):
        st = os.stat(path)
        assert (stat.S_IMODE(st.st_mode), st.st_uid) == (0o600, uid), path
    assert stat.S_IMODE(os.stat(e.admin).st_mode) == 0o600


def test_no_query_is_logged(tmp_path):
    """Not where every request is logged, nor of those that fail."""
    with Host({**CONFIG, "edge": edge.here(log_requests="yes")}) as host:
        e = Edge(host)
        end = time.monotonic() + 30
        # HAProxy leaves a line out while its other thread stands still in the middle of one
        while "/v1/marked" not in host.log_text() or "/marked2" not in host.log_text():
            assert time.monotonic() < end
            e.get(e.api, "/v1/marked?api_key=verysecret", Referer="https://x/?api_key=verysecret",
                  Authorization="Bearer verysecret")
            e.get(e.name("nobody", 1), "/marked2?api_key=verysecret")
            with socket.create_connection(("127.0.0.1", e.port)) as raw:
                s = e.context().wrap_socket(raw, server_hostname=e.api)
                s.sendall(b"GET /marked3?api_key=verysecret HTTP/1.1\r\nHost: a\r\nbad header verysecret\r\n\r\n")
                assert b" 400 " in s.recv(1000)
            time.sleep(PAUSE_S)
        assert "verysecret" not in host.log_text()


@pytest.mark.parametrize("keys, says", [
    ({"listen": "8443"}, "[edge] listen: '8443' is not ADDRESS:PORT"),
    ({"listen": "0.0.0.0:20443"}, "[edge] listen: port 20443 is one of [network] public_ports 20000-29999, which lead to clusters"),
    ({"tenant_domain": "example.com", "api_domain": "api.example.com"}, "[edge] api_domain: 'api.example.com' shares example.com"),
    ({"tenant_domain": "Ex_ample"}, "[edge] tenant_domain: 'Ex_ample' is no domain"),
    ({"tenant_certificate": "/nonexistent/x.pem"}, "[edge] tenant_certificate: /nonexistent/x.pem: No such file"),
    ({"api_certificate": "/etc/hostname"}, "[edge] api_certificate: /etc/hostname: no certificate in it"),
])
def test_a_configuration_that_cannot_be(tmp_path, keys, says):
    config = tmp_path / "config"
    config.write_text("[edge]\n" + "".join("%s = %s\n" % kv for kv in {"listen": "127.0.0.1:0", **keys}.items()))
    done = subprocess.run([program("hypervisor-vmm"), "standalone", "--data-dir", str(tmp_path / "data"), "--listen",
                           "127.0.0.1:0", "--config", str(config)], capture_output=True, text=True, timeout=60 * SLOW, check=False)
    assert done.returncode == 1 and done.stdout == "" and says in done.stderr.splitlines()[-1], done.stderr


def test_a_port_that_is_taken(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        config = tmp_path / "config"
        at = "127.0.0.1:%d" % taken.getsockname()[1]
        config.write_text("[edge]\nlisten = %s\n" % at)
        done = subprocess.run([program("hypervisor-vmm"), "standalone", "--data-dir", str(tmp_path / "data"), "--listen",
                               "127.0.0.1:0", "--config", str(config)], capture_output=True, text=True, timeout=60 * SLOW, check=False)
        assert done.returncode == 1 and done.stderr.splitlines()[-1] == \
            "hypervisor-vmm: edge: [edge] listen %s: Address already in use; another program listens there: end it, or take another port" % at


def test_it_is_started_again_with_all_routes(host, cluster):
    e = Edge(host)
    old = e.pid()
    os.kill(old, 9)
    wait_status(e, e.name(cluster, 8000), 200)
    assert e.pid() != old


def test_the_authority_stays(tmp_path):
    h = Host({**CONFIG, "edge": edge.here()})
    try:
        h.start()
        e = Edge(h)
        assert "[WARNING]" not in h.log_text()  # HAProxy has nothing to say of a configuration of ours
        ca = e.ca.read_bytes()
        h.restart()
        assert e.ca.read_bytes() == ca
        assert e.get(e.name("nobody", 1)).status == 404
    finally:
        h.close()


# ---- it outlives the engine ----------------------------------------------------------------------

def alive(pid):
    """Still the edge of a host, and neither dead nor somebody else who has its number by now."""
    try:
        with open("/proc/%d/stat" % pid) as f:
            name, rest = f.read().split("(", 1)[1].rsplit(")", 1)
        return name == "haproxy" and rest.split()[0] not in "ZX"
    except OSError:
        return False


def wait_dead(pid, timeout=20):
    end = time.monotonic() + timeout
    while alive(pid):
        assert time.monotonic() < end
        time.sleep(PAUSE_S)


@pytest.fixture
def own():
    """A host that a test may kill, with a cluster that serves."""
    with Host({**CONFIG, "edge": edge.here()}) as h:
        h.import_image(IMAGE)
        h.served = h.deploy(imageName=IMAGE, dockerArgs=serve(8000), ports="8000/http")
        wait_status(Edge(h), Edge(h).name(h.served, 8000), 200)
        yield h


def test_connections_outlive_the_engine(own):
    e = Edge(own)
    name, pid = e.name(own.served, 8000), e.pid()
    kept, ws = e.connect(name), websocket(e, name)
    assert e.ask(kept, "GET").status == 200 and echoes(ws)
    own.kill()
    assert e.ask(kept, "GET").status == 200 and echoes(ws)  # nobody is there but HAProxy and the cluster
    assert e.get(name).status == 200
    # what only a HAProxy that was left alone could hold
    e.runtime("add map %s stale.proxy.localhost 127.0.0.1:1" % (e.files / "routes"))
    own.start()
    assert e.pid() == pid
    assert set(e.routes()) == {name}
    assert e.ask(kept, "GET").status == 200 and echoes(ws)
    assert e.get(e.api, "/v1/none").status == 404
    own.restart()
    assert e.pid() == pid and echoes(ws)
    assert own.stop() == 0  # in order, and the cluster runs on
    assert alive(pid) and echoes(ws)
    own.start()
    assert e.pid() == pid and echoes(ws)
    own.terminate(own.served)
    wait_status(e, name, 404)
    assert ws.recv(1) == b""
    kept.close()


def test_one_that_dies_without_an_engine_is_replaced(own):
    e = Edge(own)
    pid = e.pid()
    own.kill()
    os.kill(pid, 9)
    wait_dead(pid)
    own.start()
    assert e.pid() != pid
    assert e.get(e.name(own.served, 8000)).status == 200


def test_one_that_was_found_again_is_watched(own):
    e = Edge(own)
    own.restart()
    pid = e.pid()
    os.kill(pid, 9)
    wait_dead(pid)
    wait_status(e, e.name(own.served, 8000), 200)
    assert e.pid() != pid


def test_another_configuration_is_another_process(own):
    e = Edge(own)
    pid = e.pid()
    own.kill()
    own.config["edge"]["log_requests"] = "yes"
    own.start()
    assert not alive(pid)
    assert e.get(e.name(own.served, 8000)).status == 200
    pid = e.pid()
    own.kill()
    own.config["edge"] = {"listen": "none"}
    own.start()
    assert not alive(pid)


def test_a_configuration_that_cannot_be_leaves_the_old_one(own, tmp_path):
    """HAProxy itself says no: to a key that is too short."""
    e = Edge(own)
    pid = e.pid()
    own.kill()
    weak = tmp_path / "weak.pem"
    openssl("req", "-x509", "-newkey", "rsa:1024", "-nodes", "-days", 30, "-subj", "/CN=weak", "-addext", "subjectAltName=DNS:" + e.api,
            "-keyout", tmp_path / "key", "-out", weak)
    weak.write_text(weak.read_text() + (tmp_path / "key").read_text())
    own.config["edge"].update(api_certificate=weak, log_requests="yes")
    with pytest.raises(RuntimeError, match="HAProxy does not take its configuration"):
        own.start()
    assert alive(pid) and e.get(e.name(own.served, 8000)).status == 200
    own.proc.wait(30)
    own.proc = None
    del own.config["edge"]["api_certificate"], own.config["edge"]["log_requests"]
    own.start()
    assert e.pid() == pid


def test_a_stop_that_was_cut_short(own):
    """The engine dies while it stops a cluster: the next one takes the routes away before it gives anything back."""
    e = Edge(own)
    name = e.name(own.served, 8000)
    own.call("clusterStop", own.served)
    own.kill()
    own.start()
    own.wait_exited(own.served)
    assert e.get(name).status == 503 and name not in e.routes()


def test_without_clusters_nothing_stays(tmp_path):
    with Host({**CONFIG, "edge": edge.here()}) as host:
        pid = Edge(host).pid()
        assert host.stop() == 0
        assert not alive(pid)
        host.start()
        pid = Edge(host).pid()
    assert not alive(pid)


def test_one_whose_host_is_gone_is_ended_by_another():
    with Host({**CONFIG, "edge": edge.here()}) as gone:
        pid, run = Edge(gone).pid(), RUN / gone.id
        gone.kill()
        moved = gone.data.rename(gone.data.with_name("moved"))  # it could come back otherwise
        os.utime(run, (0, 0))                                   # younger ones may be just starting
        with Host(CONFIG):
            wait_dead(pid)
            assert not run.exists()
        moved.rename(gone.data)
