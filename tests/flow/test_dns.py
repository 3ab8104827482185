"""vmm-dns (root, for port 53), with clusters that are addresses of the loopback network and name servers that
this test plays: who is answered what, what is passed on, and that nobody takes it away from others."""
import contextlib
import json
import os
import random
import socket
import struct
import subprocess
import threading
import time

import pytest

from programs import build_dir

PROGRAM = os.path.join(build_dir(), "vmm-dns")
A, PTR, AAAA = 1, 12, 28
OK, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP = 0, 1, 2, 3, 4


def encode(name):
    return b"".join(bytes([len(p)]) + p.encode() for p in name.split(".") if p) + b"\0"


def query(name, qtype=A, ident=None, opt=b""):
    ident = random.randrange(65536) if ident is None else ident
    return struct.pack(">HHHHHH", ident, 0x0100, 1, 0, 0, 1 if opt else 0) + encode(name) + \
        struct.pack(">HH", qtype, 1) + opt


def answer(ask, records=()):
    """What a server says: the question as it came, and A records."""
    end = 12
    while ask[end]:
        end += ask[end] + 1
    end += 5
    body = b"".join(b"\xc0\x0c" + struct.pack(">HHIH", A, 1, 60, 4) + socket.inet_aton(r) for r in records)
    return ask[:2] + b"\x81\x80" + struct.pack(">HHHH", 1, len(records), 0, 0) + ask[12:end] + body


def read(reply):
    """(rcode, [(type, data)]) of an answer with one question."""
    _, flags, questions, count, _, _ = struct.unpack_from(">HHHHHH", reply)
    assert flags & 0x8000
    at, records = 12, []
    for _ in range(questions):
        while reply[at]:
            at += reply[at] + 1
        at += 5
    for _ in range(count):
        rtype, _, _, size = struct.unpack_from(">HHIH", reply, at + 2)
        records.append((rtype, reply[at + 12:at + 12 + size]))
        at += 12 + size
    return flags & 15, records


class Server:
    """A name server over UDP and TCP; `behave(query)` says what it answers: bytes, a list of them, or None."""

    def __init__(self, address, behave):
        self.behave, self.seen = behave, []
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind((address, 53))
        self.tcp = socket.create_server((address, 53))
        for run in (self.run_udp, self.run_tcp):
            threading.Thread(target=run, daemon=True).start()

    def run_udp(self):
        while True:
            try:
                msg, who = self.udp.recvfrom(65535)
            except OSError:
                return
            self.seen.append((msg, who))
            replies = self.behave(msg)
            for reply in replies if isinstance(replies, list) else [replies] if replies else []:
                self.udp.sendto(reply, who)

    def run_tcp(self):
        while True:
            try:
                conn, _ = self.tcp.accept()
            except OSError:
                return
            with conn:
                head = conn.recv(2, socket.MSG_WAITALL)
                msg = conn.recv(struct.unpack(">H", head)[0], socket.MSG_WAITALL) if len(head) == 2 else b""
                reply = self.behave(msg) if msg else None
                if reply:
                    conn.sendall(struct.pack(">H", len(reply)) + reply)

    def close(self):
        for s in (self.udp, self.tcp):
            s.shutdown(socket.SHUT_RDWR) if s is self.tcp else None
            s.close()


class Dns:
    """The program with its three descriptors; a network of its own in 127/8, so that several tests fit."""

    def __init__(self):
        self.net = "127.%d.%d." % (random.randrange(2, 250), random.randrange(1, 250))
        self.service = self.net + "1"
        self.servers = [self.net + "10", self.net + "11"]
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind((self.service, 53))
        tcp = socket.create_server((self.service, 53))
        self.engine, theirs = socket.socketpair()
        fds = [theirs.fileno(), udp.fileno(), tcp.fileno()]
        self.proc = subprocess.Popen([PROGRAM, "--fd", str(fds[0]), "--udp-fd", str(fds[1]), "--tcp-fd",
                                      str(fds[2])], pass_fds=fds)
        for s in (udp, tcp, theirs):
            s.setblocking(False)
            s.close()
        self.settings(self.servers)

    def say(self, **msg):
        text = json.dumps(msg).encode()
        self.engine.sendall(struct.pack(">IBBH", len(text), 1, 0, 0) + text)

    def settings(self, servers):
        self.say(type="settings", service=self.service, pool=self.net + "0", pool_bits=24, servers=servers)

    def name(self, last, account, cluster, v6=None):
        more = {"address6": v6} if v6 else {}
        self.say(type="name", address=self.net + str(last), account=account, cluster=cluster, **more)

    def forget(self, last):
        self.say(type="forget", address=self.net + str(last))

    def socket(self, last):
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        s.bind((self.net + str(last), 0))
        s.settimeout(10)
        s.connect((self.service, 53))
        return s

    def ask(self, last, name, qtype=A, timeout=10, opt=b""):
        """As that cluster does; None: no answer."""
        with self.socket(last) as s:
            s.settimeout(timeout)
            msg = query(name, qtype, opt=opt)
            s.send(msg)
            try:
                reply = s.recv(65535)
            except TimeoutError:
                return None
            assert reply[:2] == msg[:2]
            return read(reply)

    def connect(self, last):
        s = socket.socket()
        s.bind((self.net + str(last), 0))
        s.settimeout(10)
        s.connect((self.service, 53))
        return s

    def ask_tcp(self, last, name, qtype=A, conn=None):
        with conn or self.connect(last) as s:
            msg = query(name, qtype)
            s.sendall(struct.pack(">H", len(msg)) + msg)
            return read(recv_tcp(s))

    def until(self, last, name, want):
        """Messages of the engine and queries come by different ways."""
        end = time.monotonic() + 10
        while (got := self.ask(last, name, timeout=0.2)) != want:
            assert time.monotonic() < end, got
            time.sleep(0.01)

    def close(self):
        self.engine.close()
        assert self.proc.wait(10) == 0


def recv_tcp(s):
    head = s.recv(2, socket.MSG_WAITALL)
    assert len(head) == 2
    return s.recv(struct.unpack(">H", head)[0], socket.MSG_WAITALL)


def ip(text):
    return [(A, socket.inet_aton(text))]


@pytest.fixture
def dns():
    d = Dns()
    d.name(21, "anna", "one", "fd00::15")
    d.name(22, "anna", "two")
    d.name(31, "bert", "three")
    d.until(31, "three.internal", (OK, ip(d.net + "31")))
    yield d
    d.close()


@pytest.fixture
def serve(dns):
    servers = []

    def start(i, behave):
        servers.append(Server(dns.servers[i], behave))
        return servers[-1]
    yield start
    for s in servers:
        s.close()


def test_names_of_the_own_account(dns):
    assert dns.ask(21, "two.internal") == (OK, ip(dns.net + "22"))
    assert dns.ask(22, "ONE.Internal") == (OK, ip(dns.net + "21"))
    assert dns.ask(22, "one.internal", AAAA) == (OK, [(AAAA, socket.inet_pton(socket.AF_INET6, "fd00::15"))])
    assert dns.ask(21, "two.internal", AAAA) == (OK, [])  # it exists, and has none
    assert dns.ask(21, "api.internal") == (OK, ip(dns.service))
    last = dns.net.rstrip(".").split(".")
    reverse = "22.%s.in-addr.arpa" % ".".join(reversed(last))
    assert dns.ask(21, reverse, PTR) == (OK, [(PTR, encode("two.internal"))])
    assert dns.ask_tcp(21, "two.internal") == (OK, ip(dns.net + "22"))


def test_another_account_is_as_if_it_did_not_exist(dns):
    there, nobody = dns.ask(21, "three.internal"), dns.ask(21, "nobody.internal")
    assert there == nobody == (NXDOMAIN, [])
    assert dns.ask_tcp(21, "three.internal") == (NXDOMAIN, [])
    reverse = "31.%s.in-addr.arpa" % ".".join(reversed(dns.net.rstrip(".").split(".")))
    assert dns.ask(21, reverse, PTR) == (NXDOMAIN, [])
    assert dns.ask(31, "one.internal") == (NXDOMAIN, [])


def test_who_is_no_cluster_hears_nothing(dns):
    assert dns.ask(99, "one.internal", timeout=0.5) is None
    with dns.connect(99) as s:
        assert s.recv(1) == b""
    dns.forget(22)
    dns.until(21, "two.internal", (NXDOMAIN, []))
    assert dns.ask(22, "one.internal", timeout=0.5) is None


def test_other_names_are_carried(dns, serve):
    server = serve(0, lambda msg: answer(msg, ["198.51.100.7"]))
    opt = b"\0\0\x29\x10\0\0\0\0\0\0\0"
    assert dns.ask(21, "example.org", opt=opt) == (OK, ip("198.51.100.7"))
    assert server.seen[0][0].endswith(opt)  # as the client said it
    assert dns.ask_tcp(21, "example.org") == (OK, ip("198.51.100.7"))
    before = len(server.seen)
    dns.ask(21, "one.internal")
    dns.ask(21, "x.y.internal")
    assert len(server.seen) == before, "names of ours leave the host"


def test_ports_and_numbers_are_not_to_be_guessed(dns, serve):
    server = serve(0, lambda msg: answer(msg, ["198.51.100.7"]))
    with dns.socket(21) as s:
        for _ in range(40):
            s.send(query("example.org", ident=7))
            assert read(s.recv(65535))[0] == OK
    assert len({who[1] for _, who in server.seen}) > 30
    assert len({msg[:2] for msg, _ in server.seen}) > 30


def test_forged_answers_are_passed_over(dns, serve):
    def behave(msg):
        wrong_id = bytes([msg[0] ^ 1]) + answer(msg, ["203.0.113.66"])[1:]
        other = query("example.net")
        wrong_name = msg[:2] + answer(other, ["203.0.113.66"])[2:]
        return [wrong_id, wrong_name, b"", msg, msg[:11], answer(msg, ["198.51.100.7"])]
    serve(0, behave)
    assert dns.ask(21, "example.org") == (OK, ip("198.51.100.7"))


def test_the_next_server_is_asked(dns, serve):
    serve(1, lambda msg: answer(msg, ["198.51.100.8"]))  # nobody at the first: refused at once
    start = time.monotonic()
    assert dns.ask(21, "example.org") == (OK, ip("198.51.100.8"))
    assert dns.ask_tcp(21, "example.org") == (OK, ip("198.51.100.8"))
    assert time.monotonic() - start < 5
    serve(0, lambda msg: None)  # and now one that is silent
    assert dns.ask(21, "example.org") == (OK, ip("198.51.100.8"))


def test_no_server(dns):
    assert dns.ask(21, "example.org") == (SERVFAIL, [])
    assert dns.ask_tcp(21, "example.org") == (SERVFAIL, [])
    dns.settings([])
    dns.until(21, "example.org", (SERVFAIL, []))


def test_nonsense(dns):
    with dns.socket(21) as s:
        for msg in (b"", b"x", b"\0" * 11, b"\xff" * 600, answer(query("one.internal"))):
            s.send(msg)
        s.send(b"\0\7\1\0\0\2\0\0\0\0\0\0")  # two questions
        assert read(s.recv(512))[0] == FORMERR
        s.send(b"\0\7\x28\0\0\1\0\0\0\0\0\0\0\0\6\0\1")  # an update
        assert read(s.recv(512))[0] == NOTIMP
        for _ in range(2000):
            s.send(random.randbytes(random.randrange(1, 80)))
    assert dns.ask(21, "two.internal") == (OK, ip(dns.net + "22"))


def test_one_cluster_does_not_take_it_from_another(dns, serve):
    def behave(msg):
        return None if b"silent" in msg else answer(msg, ["198.51.100.7"])
    serve(0, behave)
    serve(1, behave)
    with dns.socket(21) as s:  # far more than it may have under way
        for i in range(3000):
            s.send(query("silent%d.example.org" % i))
        held = [dns.connect(21) for _ in range(40)]
        assert dns.ask(31, "example.org") == (OK, ip("198.51.100.7"))
        assert dns.ask_tcp(31, "example.org") == (OK, ip("198.51.100.7"))
        assert dns.ask(21, "two.internal") == (OK, ip(dns.net + "22"))
        for h in held:
            h.close()
    assert len(os.listdir("/proc/%d/fd" % dns.proc.pid)) < 400
    end = time.monotonic() + 15  # and all of it is given back
    while len(os.listdir("/proc/%d/fd" % dns.proc.pid)) > 12:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert dns.ask(21, "example.org") == (OK, ip("198.51.100.7"))


def test_one_account_does_not_take_it_from_another(dns, serve):
    """However many clusters it has."""
    def behave(msg):
        return None if b"silent" in msg else answer(msg, ["198.51.100.7"])
    serve(0, behave)
    serve(1, behave)
    many = range(41, 61)
    for last in many:
        dns.name(last, "carl", "carl%d" % last)
    dns.until(60, "carl41.internal", (OK, ip(dns.net + "41")))
    held = [dns.connect(last) for last in many for _ in range(16)]
    socks = [dns.socket(last) for last in many]
    try:
        assert dns.ask_tcp(31, "example.org") == (OK, ip("198.51.100.7"))
        end = time.monotonic() + 20
        while True:  # all that they may have under way, and again what has ended of it
            for s in socks:
                for i in range(130):
                    s.send(query("silent%d.example.org" % i))
            time.sleep(0.05)  # ours shall not be lost in the same burst
            got = dns.ask(31, "example.org", timeout=0.5)
            if got:
                break
            assert time.monotonic() < end, "no place is left for anybody else"
        assert got == (OK, ip("198.51.100.7"))
    finally:
        for s in held + socks:
            s.close()


def test_an_account_asks_servers_so_often(dns, serve):
    """The host's kernel remembers each query for a while, in a table that is everybody's: 500 a second, after a
    first 2,000, from all clusters of an account together, and a fourth of that by TCP.  Names of ours cost nothing."""
    asked = []

    def behave(msg):
        asked.append(msg)
        return answer(msg, ["198.51.100.7"])
    serve(0, behave)
    begin, socks = time.monotonic(), [dns.socket(21), dns.socket(22)]
    try:
        for i in range(80):
            s = socks[i % 2]
            for k in range(100):
                s.send(query("n%d.example.org" % (100 * i + k)))
            s.settimeout(0.03)
            with contextlib.suppress(TimeoutError):
                while True:
                    s.recv(65535)
        took = time.monotonic() - begin
        assert 500 < len(asked) <= 2000 + 500 * took + 1, (len(asked), took)
        assert dns.ask(31, "example.org") == (OK, ip("198.51.100.7")), "another account's are its own"
        assert dns.ask(21, "two.internal") == (OK, ip(dns.net + "22"))
        # what has been paid for comes back
        dns.until(21, "example.org", (OK, ip("198.51.100.7")))
    finally:
        for s in socks:
            s.close()
    del asked[:]
    begin, answered = time.monotonic(), 0
    for _ in range(2000):
        with dns.connect(31) as s:
            msg = query("example.org")
            s.sendall(struct.pack(">H", len(msg)) + msg)
            try:
                if len(s.recv(2, socket.MSG_WAITALL)) < 2:
                    break
            except ConnectionResetError:
                break
            answered += 1
    took = time.monotonic() - begin
    assert answered <= 500 + 125 * took + 1, (answered, took)


def test_an_answer_is_for_who_asked(dns, serve):
    """Not for the next one at the address."""
    asked, go = threading.Event(), threading.Event()

    def behave(msg):
        asked.set()
        go.wait(10)
        return answer(msg, ["198.51.100.7"])
    serve(0, behave)
    with dns.socket(21) as s:
        s.send(query("example.org"))
        assert asked.wait(10)
        dns.name(21, "bert", "four")
        dns.until(31, "four.internal", (OK, ip(dns.net + "21")))
        go.set()
        s.settimeout(1)
        with pytest.raises(TimeoutError):
            s.recv(65535)
    assert dns.ask(21, "example.org") == (OK, ip("198.51.100.7"))


def test_many_queries_on_one_connection_and_in_pieces(dns, serve):
    serve(0, lambda msg: answer(msg, ["198.51.100.7"]))
    with dns.connect(21) as s:
        for i in range(20):
            msg = query("two.internal" if i % 2 else "example.org")
            for byte in struct.pack(">H", len(msg)) + msg:
                s.sendall(bytes([byte]))
            assert read(recv_tcp(s)) == (OK, ip(dns.net + "22" if i % 2 else "198.51.100.7"))
        s.sendall(b"\0\0")  # an empty message
        assert s.recv(1) == b""
    with dns.connect(21) as s:
        s.sendall(struct.pack(">H", 65535) + random.randbytes(65535))
        s.settimeout(5)
        try:
            s.recv(65535)
        except ConnectionResetError:
            pass
    assert dns.ask(21, "two.internal") == (OK, ip(dns.net + "22"))
