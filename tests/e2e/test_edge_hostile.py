"""The edge against clients and machines that mean no good: what one of them leaves behind, and what it takes from others."""
import contextlib
import ipaddress
import os
import pathlib
import shlex
import signal
import socket
import subprocess
import time

import h2.config
import h2.connection
import h2.events
import pytest

import edge
from edge import Edge
from host import PAUSE_S, RUN, SLOW, Host

CONFIG = {"engine": {"pool_networks": 0, "pool_disks": 0, "grace": "1s", "cpu_overcommit": 100,
                     "memory_overcommit": 20, "disk_overcommit": 100}}
IMAGE = "tensorone/llm-starter"
PATIENCE_S = 60 * SLOW
SYN_SENT, TIME_WAIT, CLOSED, CLOSE_WAIT = 2, 6, 7, 8  # linux/tcp_states.h
# Answers with the port of whoever asks; /hold never answers; /held tells how many wait for that and have not gone.
SERVER = r'''
import os, socket, _thread
held = set()
def serve(c):
    with c:
        left = b""
        while True:
            while b"\r\n\r\n" not in left:
                try: piece = c.recv(65536)
                except OSError: return
                if not piece: return
                left += piece
            head, left = left.split(b"\r\n\r\n", 1)
            if b" /hold" in head:
                held.add(c)
                try:
                    while c.recv(65536): pass
                except OSError: pass
                held.discard(c)
                return
            said = b"%d" % (len(held) if b" /held" in head else c.getpeername()[1])
            c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(said), said))
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("0.0.0.0", 8000))
s.listen(1000)
while True: _thread.start_new_thread(serve, (s.accept()[0],))
'''


@contextlib.contextmanager
def serving(host):
    c = host.deploy(imageName=IMAGE, dockerArgs="python3 -I -S -c " + shlex.quote(SERVER), ports="8000/http")
    try:
        host.wait_running(c)
        wait_for(lambda: Edge(host).get(Edge(host).name(c, 8000)).status == 200)
        yield c
    finally:
        host.terminate(c)


def wait_for(what):
    end = time.monotonic() + PATIENCE_S
    while not (got := what()):
        assert time.monotonic() < end, got
        time.sleep(PAUSE_S)


@pytest.fixture(scope="module")
def host():
    """With room for few."""
    with Host({**CONFIG, "edge": edge.here(connections=16)}) as h:
        h.import_image(IMAGE)
        yield h


@pytest.fixture(scope="module")
def cluster(host):
    with serving(host) as c:
        yield c


@pytest.fixture
def own():
    """A host that a test may kill, with a cluster that serves."""
    with Host({**CONFIG, "edge": edge.here()}) as h:
        h.import_image(IMAGE)
        with serving(h) as h.served:
            yield h


def held(e, name):
    return int(e.get(name, "/held").text)


class Http2:
    """One connection with as many requests at once as it may have."""

    def __init__(self, e, name):
        context = e.context()
        context.set_alpn_protocols(["h2"])
        self.name, self.sock, self.status = name, e.connect(name, context).sock, {}
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        self.h2.initiate_connection()
        self.sock.sendall(self.h2.data_to_send())
        while not self.h2.remote_settings.max_concurrent_streams < 1000:
            self.take()

    def take(self):
        data = self.sock.recv(65536)
        assert data
        for event in self.h2.receive_data(data):
            if isinstance(event, h2.events.ResponseReceived):
                self.status[event.stream_id] = int(dict(event.headers)[b":status"])
        self.sock.sendall(self.h2.data_to_send())

    def ask(self, path):
        stream = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream, [(":method", "GET"), (":scheme", "https"), (":path", path), (":authority", self.name)],
                             end_stream=True)
        self.sock.sendall(self.h2.data_to_send())
        return stream

    def close(self):
        self.sock.close()


# ---- what one client takes -----------------------------------------------------------------------

def test_requests_end_with_their_client(host, cluster):
    """Also those that a cluster never answers: what is open for nobody would be open for ever."""
    e = Edge(host)
    name = e.name(cluster, 8000)
    plain = []
    for method, body in (("GET", None), ("POST", "whole")):
        plain.append(e.connect(name))
        plain[-1].request(method, "/hold", body)
    partly = e.connect(name)
    partly.sock.sendall(b"POST /hold HTTP/1.1\r\nHost: %s\r\nContent-Length: 10\r\n\r\npart" % name.encode())
    many = Http2(e, name)
    for _ in range(10):
        many.ask("/hold")
    wait_for(lambda: held(e, name) == 13)
    for c in (*plain, partly, many):
        c.close()
    wait_for(lambda: held(e, name) == 0)


def test_a_full_connection_leaves_room_for_others(host, cluster):
    """Of HTTP/2, with requests that are never answered: each is a socket of ours."""
    e = Edge(host)
    name = e.name(cluster, 8000)
    many = Http2(e, name)
    for _ in range(50):  # of the 64 that 16 clients may have
        many.ask("/hold")
    wait_for(lambda: held(e, name) == 50)
    for _ in range(10):
        assert e.get(name).status == 200
    many.close()
    wait_for(lambda: held(e, name) == 0)


def test_a_connection_to_a_cluster_is_for_one_name(host, cluster):
    """Not even where two names lead to one address, as they do when it has a new owner."""
    e = Edge(host)
    name, other = e.name(cluster, 8000), e.name("other", 8000)
    e.runtime("add map %s %s %s" % (e.files / "routes", other, e.routes()[name]))
    try:
        c = e.connect(name)
        ports = {name: set(), other: set()}
        for said in (name, name, other, name, other, other, name):
            c.request("GET", "/", headers={"Host": said})
            answer = c.getresponse()
            assert answer.status == 200
            ports[said].add(answer.read())
        c.close()
        assert not ports[name] & ports[other]
    finally:
        e.runtime("del map %s %s" % (e.files / "routes", other))


def test_a_private_port_is_private_whatever_its_key_is(host, cluster):
    """A route that says whose it is never lets anybody in for want of a key that is one."""
    e = Edge(host)
    address = e.routes()[e.name(cluster, 8000)]
    for access in (":a", ":a:", ":a:b", "::", ":a:%s" % ("b" * 43), ":a:%s=" % ("b" * 43)):
        name = e.name("other", 8000)
        e.runtime("add map %s %s %s" % (e.files / "routes", name, address + access))
        try:
            assert e.get(name).status == 401, access
        finally:
            e.runtime("del map %s %s" % (e.files / "routes", name))


def test_it_goes_before_the_clusters_when_it_uses_more(host):
    """When memory runs out; the engine, and what inherits that from it, goes last."""
    assert Edge(host).proc("oom_score_adj").read_text().strip() == "100"


def test_where_a_key_is_used_from(host):
    """The audit tells of the client, not of the edge, nor of what the client says."""
    e, key = Edge(host), host.new_account("from%d" % time.monotonic_ns())
    with socket.create_connection(("127.0.0.1", e.port), 30 * SLOW, ("127.0.0.9", 0)) as raw, \
         e.context().wrap_socket(raw, server_hostname=e.api) as s:
        s.sendall(("GET /v1/clusters HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nX-Forwarded-For: 9.9.9.9\r\n"
                   "Connection: close\r\n\r\n" % (e.api, key)).encode())
        while s.recv(65536):
            pass
    got = host.gql('{ events(input: {kind: "audit.key", limit: 1000}) { object account } }')["events"]
    mine = host.gql("{ myself { id } }", key=key)["myself"]["id"]
    assert [k["object"] for k in got if k["account"] == mine] == ["127.0.0.9"]


def test_no_program_of_the_host_waits_for_the_next_owner(host):
    """A connection that is still being opened ends with its cluster, also by a socket of IPv6, as many programs have them."""
    e = Edge(host)
    full = ("import socket, time; s = socket.socket(socket.AF_INET6); s.bind(('::', 8000)); s.listen(0); print('here', flush=True); "
            "time.sleep(1000)")
    c = host.deploy(imageName=IMAGE, dockerArgs="python3 -c " + shlex.quote(full), ports="8000/http")
    host.wait_log(c, "here")
    address, slot = e.routes()[e.name(c, 8000)].split(":")[0], host.slot(c)
    inside = pathlib.Path("/proc/%d/net/if_inet6" % host.first_pid(c)).read_text().split()
    address6 = str(ipaddress.IPv6Address(bytes.fromhex(inside[inside.index("eth0") - 5]))) if "eth0" in inside else None
    mine = []

    def state(s):
        return s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]

    def opening(to):
        mine.append(socket.socket(socket.AF_INET6, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
        mine[-1].connect_ex((to, 8000))
        time.sleep(PAUSE_S)
        return state(mine[-1]) == SYN_SENT

    try:
        for to in filter(None, ("::ffff:" + address, address6)):
            wait_for(lambda to=to: opening(to))
        host.terminate(c)
        wait_for(lambda: slot not in host.claims("slots"))
        assert {state(s) for s in mine} <= {CLOSED, CLOSE_WAIT, TIME_WAIT}
    finally:
        for s in mine:
            s.close()


# ---- a machine that fails ------------------------------------------------------------------------

def serves_again(host, old):
    e = Edge(host)
    wait_for(lambda: e.get(e.name(host.served, 8000)).status == 200)
    assert e.pid() != old and set(e.routes()) == {e.name(host.served, 8000)}


def test_a_runtime_socket_that_was_removed(own):
    e = Edge(own)
    old = e.pid()
    own.kill()
    os.unlink(e.admin)
    own.start()
    serves_again(own, old)


def test_a_runtime_socket_that_takes_nobody(own):
    """HAProxy stands still, and others have filled the queue before it."""
    e = Edge(own)
    old = e.pid()
    os.kill(old, signal.SIGSTOP)
    own.kill()
    waiting = []
    try:
        with contextlib.suppress(BlockingIOError):
            while len(waiting) < 1000:
                waiting.append(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
                waiting[-1].connect(str(e.admin))
        assert len(waiting) < 1000
        own.start()
        serves_again(own, old)
    finally:
        for s in waiting:
            s.close()


def test_others_at_the_runtime_socket(own):
    """An operator's programs that stay there do not keep the engine out, which would take HAProxy for dead."""
    e = Edge(own)
    old = e.pid()
    with contextlib.ExitStack() as stack:
        for _ in range(30):
            s = stack.enter_context(socket.socket(socket.AF_UNIX))
            s.connect(str(e.admin))
            s.sendall(b"prompt\n")
        own.restart()
        assert written_down(own) == old
        assert e.get(e.name(own.served, 8000)).status == 200


def test_a_cluster_ends_while_haproxy_stands_still(own):
    """Nobody waits for it longer than it is waited for, and the others are served on."""
    e = Edge(own)
    old = e.pid()
    with serving(own) as second:
        slot = own.slot(second)
        os.kill(old, signal.SIGSTOP)
    wait_for(lambda: slot not in own.claims("slots"))
    serves_again(own, old)


def test_a_change_that_is_refused(own):
    """Somebody else has changed the map: a new process has it right, and what was to be let go of is."""
    e = Edge(own)
    old = e.pid()
    with serving(own) as second:
        slot = own.slot(second)
        e.runtime("del map %s %s" % (e.files / "routes", e.name(second, 8000)))
    wait_for(lambda: slot not in own.claims("slots"))
    serves_again(own, old)


def written_down(host):
    """Which process HAProxy is, as the engine has noted."""
    return int((RUN / host.id / "edge.process").read_text().split()[0])


def kill_haproxy(host):
    """If it lives, and is that of this host."""
    pid = written_down(host)
    with contextlib.suppress(OSError):
        pidfd = os.pidfd_open(pid)
        if host.id.encode() in pathlib.Path("/proc/%d/cmdline" % pid).read_bytes():
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.close(pidfd)


def test_an_engine_that_is_killed_while_it_starts(own):
    """At any moment: in the end one HAProxy serves, of which the engine knows."""
    e = Edge(own)
    own.kill()
    for ms in (1, 5, 10, 15, 20, 25, 30, 40, 50, 60, 80, 100, 150, 200, 300):
        with contextlib.suppress(RuntimeError):  # not ready that soon
            own.start(timeout=ms / 1000)
        own.kill()
        if ms % 20 == 0:
            kill_haproxy(own)
    own.start()
    wait_for(lambda: e.get(e.name(own.served, 8000)).status == 200)
    done = subprocess.run(["ss", "-Htlnp", "sport = :%d" % e.port], capture_output=True, text=True,
                          timeout=30 * SLOW, check=True)
    assert done.stdout.count('"haproxy"') == 1 and "pid=%d," % e.pid() in done.stdout
    assert written_down(own) == e.pid()
