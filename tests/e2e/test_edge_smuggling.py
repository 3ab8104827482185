"""The edge and requests that two readers could take for different ones: what a cluster sees of them is one request, byte for
byte as it is written here, or nothing."""
import json
import re
import shlex
import socket

import h2.config
import h2.connection
import h2.events
import pytest

import edge
from edge import Edge
from host import Host
from test_edge import CONFIG, IMAGE, wait_status

# Keeps each request as its bytes came; strict in what it takes for one.
SERVER = r'''
import json, socket, sys, threading
seen, lock = [], threading.Lock()
class Gone(Exception): pass
def serve(c):
    left = b""
    def need(n):
        nonlocal left
        while len(left) < n:
            piece = c.recv(65536)
            if not piece: raise Gone
            left += piece
        part, left = left[:n], left[n:]
        return part
    def until(end):
        while (at := left.find(end)) < 0: left_more()
        return need(at + len(end))
    def left_more():
        nonlocal left
        piece = c.recv(65536)
        if not piece: raise Gone
        left += piece
    with c:
        while True:
            head = until(b"\r\n\r\n")
            fields = {n.lower(): v.strip() for n, v in (l.split(b":", 1) for l in head.split(b"\r\n")[1:] if b":" in l)}
            body = b""
            if b"transfer-encoding" in fields:
                while True:
                    size = until(b"\r\n")
                    body += size
                    if n := int(size, 16): body += need(n + 2)
                    else: break
                while (line := until(b"\r\n")) != b"\r\n": body += line
                body += line
            elif b"content-length" in fields: body = need(int(fields[b"content-length"]))
            with lock:
                answer = b"ok"
                if head.startswith(b"GET /seen "):
                    answer = json.dumps([s.decode("latin-1") for s in seen]).encode()
                    seen.clear()
                else: seen.append(head + body)
            c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(answer), answer))
def run(c):
    try: serve(c)
    except (Gone, OSError): pass
s = socket.create_server(("0.0.0.0", 8000), backlog=1000)
while True: threading.Thread(target=run, args=(s.accept()[0],), daemon=True).start()
'''


class Target:
    def __init__(self, e, cluster):
        self.edge, self.name = e, e.name(cluster, 8000)

    def send(self, text):
        """The statuses of all answers until the connection ends."""
        s = self.edge.connect(self.name).sock
        got = b""
        with s:
            try:
                s.sendall(text)
            except OSError:
                pass  # it is refused before all of it is there
            try:
                while piece := s.recv(65536):
                    got += piece
            except ConnectionResetError:
                pass
        return [int(n) for n in re.findall(rb"HTTP/1\.[01] (\d+) ", got)]

    def send2(self, headers, body=None):
        """The same by HTTP/2, whatever the headers are; the status, or None where the request is refused as a stream."""
        context = self.edge.context()
        context.set_alpn_protocols(["h2"])
        c = h2.connection.H2Connection(h2.config.H2Configuration(
            client_side=True, validate_outbound_headers=False, normalize_outbound_headers=False, validate_inbound_headers=False))
        c.initiate_connection()
        c.send_headers(1, headers, end_stream=body is None)
        if body is not None:
            c.send_data(1, body, end_stream=True)
        status = None
        with self.edge.connect(self.name, context).sock as s:
            try:
                s.sendall(c.data_to_send())
                while piece := s.recv(65536):
                    for event in c.receive_data(piece):
                        if isinstance(event, h2.events.ResponseReceived):
                            status = int(dict(event.headers)[b":status"])
                        elif isinstance(event, (h2.events.StreamEnded, h2.events.StreamReset, h2.events.ConnectionTerminated)):
                            return status
            except ConnectionResetError:
                pass
        return status

    def seen(self):
        return json.loads(self.edge.get(self.name, "/seen").text)

    def passed(self, first, *headers, body="", after=()):
        """What the cluster has to see."""
        lines = [first, "host: " + self.name, *headers, "x-forwarded-for: 127.0.0.1", "x-forwarded-proto: https",
                 "x-forwarded-host: " + self.name, *after, "", ""]
        return "\r\n".join(lines) + body


@pytest.fixture(scope="module")
def target():
    with Host({**CONFIG, "edge": edge.here()}) as h:
        h.import_image(IMAGE)
        c = h.deploy(imageName=IMAGE, dockerArgs="python3 -c " + shlex.quote(SERVER), ports="8000/http")
        t = Target(Edge(h), c)
        wait_status(t.edge, t.name, 200)
        t.seen()
        yield t


def request(name, first="GET /a HTTP/1.1", *headers, body="", host=True):
    lines = [first] + (["Host: " + name] if host else []) + ["Connection: close", *headers, "", ""]
    return ("\r\n".join(lines) + body).encode("latin-1")


GET, POST, CHUNKED = "GET /a HTTP/1.1", "POST /a HTTP/1.1", "Transfer-Encoding: chunked"
SMUGGLED = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"

REFUSED = {
    "two lengths": (POST, ["Content-Length: 0", "Content-Length: 5"], "hello"),
    "two lengths in one": (POST, ["Content-Length: 5, 6"], "hello"),
    "length with a sign": (POST, ["Content-Length: +5"], "hello"),
    "length below zero": (POST, ["Content-Length: -5"], "hello"),
    "length in hex": (POST, ["Content-Length: 0x5"], "hello"),
    "length that is none": (POST, ["Content-Length: "], ""),
    "length of 67 bits": (POST, ["Content-Length: 99999999999999999999"], "hello"),
    "length, blank before the colon": (POST, ["Content-Length : 5"], "hello"),
    "coding: xchunked": (POST, ["Transfer-Encoding: xchunked"], "0\r\n\r\n"),
    "coding: identity": (POST, ["Transfer-Encoding: identity", "Content-Length: 5"], "hello"),
    "coding: not at the end": (POST, ["Transfer-Encoding: chunked, identity"], "0\r\n\r\n"),
    "coding: two": (POST, ["Transfer-Encoding: gzip, chunked"], "0\r\n\r\n"),
    "coding: twice": (POST, [CHUNKED, CHUNKED], "0\r\n\r\n"),
    "coding: twice in one": (POST, ["Transfer-Encoding: chunked, chunked"], "0\r\n\r\n"),
    "coding: vertical tab": (POST, ["Transfer-Encoding: \x0bchunked"], "0\r\n\r\n"),
    "coding: quoted": (POST, ['Transfer-Encoding: "chunked"'], "0\r\n\r\n"),
    "coding: blank before the colon": (POST, ["Transfer-Encoding : chunked"], "0\r\n\r\n"),
    "coding: NUL": (POST, ["Transfer-Encoding: chunked\x00"], "0\r\n\r\n"),
    "coding in HTTP/1.0": ("POST /a HTTP/1.0", [CHUNKED], "0\r\n\r\n" + SMUGGLED),
    "chunk in 0x": (POST, [CHUNKED], "0x5\r\nhello\r\n0\r\n\r\n"),
    "chunk below zero": (POST, [CHUNKED], "-5\r\nhello\r\n0\r\n\r\n"),
    "chunk of 68 bits": (POST, [CHUNKED], "ffffffffffffffff5\r\nhello\r\n0\r\n\r\n"),
    "chunk without its end": (POST, [CHUNKED], "5\r\nhelloX0\r\n\r\n"),
    "bare CR in a value": (GET, ["X: a\rX-Forwarded-For: 6"], ""),
    "NUL in a value": (GET, ["X: a\x00b"], ""),
    "NUL in a name": (GET, ["X\x00: b"], ""),
    "blank in a name": (GET, ["X y: b"], ""),
    "no colon": (GET, ["Xy"], ""),
    "no name": (GET, [": x"], ""),
    "fragment": ("GET /a#b HTTP/1.1", [], ""),
    "blank in the target": ("GET /a b HTTP/1.1", [], ""),
    "no slash": ("GET a HTTP/1.1", [], ""),
    "control in the target": ("GET /a\x01 HTTP/1.1", [], ""),
    "version in small letters": ("GET /a http/1.1", [], ""),
    "control in the method": ("GE\x7fT /a HTTP/1.1", [], ""),
    "a header of 64 KiB": (GET, ["X: " + "a" * 65536], ""),
    "64 KiB of headers": (GET, ["X%d: %s" % (i, "a" * 650) for i in range(100)], ""),
    "a target of 64 KiB": ("GET /%s HTTP/1.1" % ("a" * 65536), [], ""),
    "200 headers": (GET, ["X%d: y" % i for i in range(200)], ""),
    "another host": (GET, ["Host: other.proxy.localhost"], ""),
    "an absolute target of another host": ("GET https://other.proxy.localhost/a HTTP/1.1", [], ""),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(target, case):
    first, headers, body = REFUSED[case]
    statuses = target.send(request(target.name, first, *headers, body=body))
    assert 200 not in statuses and target.seen() == []


@pytest.mark.parametrize("said, status", [
    ("other, NAME", 400), ("NAME, other", 400), ("a@NAME", 400), ("NAME:x", 400), ("NAME/x", 400), ("NAME x", 400), ("NAME\x00x", 400),
    ("NAME:80@other", 400), ("NAME#", 400), ("NAME?", 400), ("NAME\\x", 404), ("[::1]:443", 404), ("a" * 5000, 404), ("", 404),
])
def test_a_host_that_is_none(target, said, status):
    """Nothing of it is taken for a name that leads to a cluster."""
    text = request(target.name, GET, "Host: " + said.replace("NAME", target.name), host=False)
    assert target.send(text) == [status] and target.seen() == []


def test_no_host_at_all(target):
    for first in (GET, "GET /a HTTP/1.0", "GET https://%s/a HTTP/1.1" % target.name):
        assert target.send(request(target.name, first, host=False)) == [404]
    assert target.send(b"GET /a\r\n") == [400]
    assert target.seen() == []


HELLO = "5\r\nhello\r\n0\r\n\r\n"
C = "transfer-encoding: chunked"
# (request, headers, body), (what is seen of it)
PASSED = {
    "length and coding": ((POST, ["Content-Length: 5", CHUNKED], "0\r\n\r\n"), (POST, [C], "0\r\n\r\n")),
    "coding and length": ((POST, [CHUNKED, "Content-Length: 6"], "0\r\n\r\n"), (POST, [C], "0\r\n\r\n")),
    "one length twice": ((POST, ["Content-Length: 5", "Content-Length: 5"], "hello"), (POST, ["content-length: 5"], "hello")),
    "one length twice in one": ((POST, ["Content-Length: 5, 5"], "hello"), (POST, ["content-length: 5"], "hello")),
    "coding after a tab": ((POST, ["Transfer-Encoding:\tchunked"], "0\r\n\r\n"), (POST, [C], "0\r\n\r\n")),
    "coding on the next line": ((POST, ["Transfer-Encoding:\r\n chunked"], "0\r\n\r\n"), (POST, [C], "0\r\n\r\n")),
    "coding as a value's next line": ((POST, ["X: y\r\n Transfer-Encoding: chunked", "Content-Length: 0"], ""),
                                      (POST, ["x: y   Transfer-Encoding: chunked", "content-length: 0"], "")),
    "chunk with an extension": ((POST, [CHUNKED], "5;a=b\r\nhello\r\n0;x\r\n\r\n"), (POST, [C], HELLO)),
    "chunk with an extension and a bare LF": ((POST, [CHUNKED], "5;a=b\nhello\r\n0\r\n\r\n"), (POST, [C], HELLO)),
    "chunks with bare LF": ((POST, [CHUNKED], "5\nhello\n0\n\n"), (POST, [C], HELLO)),
    "chunk with a blank": ((POST, [CHUNKED], "5 \r\nhello\r\n0\r\n\r\n"), (POST, [C], HELLO)),
    "a body of GET": ((GET, ["Content-Length: 5"], "hello"), (GET, ["content-length: 5"], "hello")),
    "bare LF in a value": ((GET, ["X: a\nX-Forwarded-For: 6"], ""), (GET, ["x: a"], "")),
    "a folded value": ((GET, ["X: a\r\n b"], ""), (GET, ["x: a   b"], "")),
    "an absolute target": (("GET https://NAME/a?b HTTP/1.1", [], ""), ("GET /a?b HTTP/1.1", [], "")),
    "an absolute target of a user": (("GET http://u:p@NAME/a HTTP/1.1", [], ""), (GET, [], "")),
    "the host twice": ((GET, ["Host: NAME"], ""), (GET, [], "")),
    "HTTP/2.0 by its name": (("GET /a HTTP/2.0", [], ""), (GET, [], "")),
    "forged": ((GET, ["X-Forwarded-For: 6.6.6.6", "X-Forwarded-Proto: http", "X-Forwarded-Host: x", "X-Forwarded-Port: 1", "X_Forwarded_For: 6",
                      "x-forwarded_host: x", "Forwarded: for=6", "X-Real-IP: 6", "X_Real_IP: 6", "X-Forwarded: 6"], ""),
               (GET, [], "")),
    "lengths for those who read _ as -": ((GET, ["Content_Length: 9", "Transfer_Encoding: chunked"], ""), (GET, [], "")),
    "headers that are to be taken away": ((GET, ["Connection: X-Forwarded-For, close", "Keep-Alive: 5", "Proxy-Connection: x"], ""), (GET, [], "")),
    "another protocol": ((GET, ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"], ""),
                         (GET, [], "")),
    "14 KB of headers": ((GET, ["X: " + "a" * 14000], ""), (GET, ["x: " + "a" * 14000], "")),
    "90 headers": ((GET, ["X%d: y" % i for i in range(90)], ""), (GET, ["x%d: y" % i for i in range(90)], "")),
}


@pytest.mark.parametrize("case", PASSED)
def test_passed_on(target, case):
    (first, headers, body), (first2, headers2, body2) = PASSED[case]
    n = target.name
    assert target.send(request(n, first.replace("NAME", n), *[h.replace("NAME", n) for h in headers], body=body)) == [200]
    assert target.seen() == [target.passed(first2, *headers2, body=body2)]


def test_what_follows_is_a_request_of_its_own(target):
    """After length and coding together the connection ends: nothing behind it is read."""
    both = request(target.name, POST, "Content-Length: 5", CHUNKED, body="0\r\n\r\n" + SMUGGLED)
    assert target.send(both.replace(b"Connection: close\r\n", b""))[:1] == [200]
    assert target.seen() == [target.passed(POST, C, body="0\r\n\r\n")]
    two = request(target.name).replace(b"Connection: close\r\n", b"") + request(target.name, "GET /b HTTP/1.1")
    assert target.send(two) == [200, 200]
    assert target.seen() == [target.passed(GET), target.passed("GET /b HTTP/1.1")]


# ---- HTTP/2, which becomes HTTP/1.1 ---------------------------------------------------------------

def pseudo(t, **other):
    return [(":" + k, other.get(k, v)) for k, v in
            (("method", "GET"), ("scheme", "https"), ("authority", t.name), ("path", "/a"))]


REFUSED2 = {
    "length too short": ({"method": "POST"}, [("content-length", "2")], b"hello"),
    "length too long": ({"method": "POST"}, [("content-length", "9")], b"hello"),
    "length of nothing": ({"method": "POST"}, [("content-length", "0")], SMUGGLED.encode()),
    "two lengths": ({"method": "POST"}, [("content-length", "5"), ("content-length", "6")], b"hello"),
    "coding": ({"method": "POST"}, [("transfer-encoding", "chunked")], b"0\r\n\r\n"),
    "coding in capitals": ({}, [("Transfer-Encoding", "chunked")], None),
    "connection": ({}, [("connection", "close")], None),
    "upgrade": ({}, [("upgrade", "h2c")], None),
    "te": ({}, [("te", "gzip")], None),
    "LF in a value": ({}, [("x", "a\nX-Forwarded-For: 6")], None),
    "CRLF in a value": ({}, [("x", "a\r\nTransfer-Encoding: chunked")], None),
    "CR in a value": ({}, [("x", "a\rb")], None),
    "NUL in a value": ({}, [("x", "a\0b")], None),
    "CRLF in a name": ({}, [("x: y\r\ntransfer-encoding", "chunked")], None),
    "colon in a name": ({}, [("x:y", "b")], None),
    "blank in a name": ({}, [("x y", "b")], None),
    "CRLF in the path": ({"path": "/a HTTP/1.1\r\nX: y"}, [], None),
    "blank in the path": ({"path": "/a b"}, [], None),
    "no path": ({"path": ""}, [], None),
    "no slash": ({"path": "a"}, [], None),
    "absolute path": ({"path": "https://other.proxy.localhost/a"}, [], None),
    "CRLF in the method": ({"method": "GET /x HTTP/1.1\r\nA: b\r\n\r\nGET"}, [], None),
    "blank in the method": ({"method": "GET /x"}, [], None),
    "CRLF in the authority": ({"authority": "NAME\r\nX: y"}, [], None),
    "blank in the authority": ({"authority": "NAME x"}, [], None),
    "user in the authority": ({"authority": "u@NAME"}, [], None),
    "path in the authority": ({"authority": "NAME/x"}, [], None),
    "CRLF in the scheme": ({"scheme": "https\r\nX: y"}, [], None),
    "odd scheme": ({"scheme": "https://x/?"}, [], None),
    "two paths": ({}, [(":path", "/b")], None),
    "a pseudo-header that is none": ({}, [(":x", "y")], None),
    "64 KiB of headers": ({}, [("x%d" % i, "a" * 8000) for i in range(8)], None),
    "200 headers": ({}, [("x%d" % i, "a") for i in range(200)], None),
}


@pytest.mark.parametrize("case", REFUSED2)
def test_refused_in_http2(target, case):
    other, headers, body = REFUSED2[case]
    status = target.send2(pseudo(target, **{k: v.replace("NAME", target.name) for k, v in other.items()}) + headers, body)
    assert status in (None, 400) and target.seen() == []


def test_passed_on_from_http2(target):
    """As HTTP/1.1 has it; the authority is the host, whatever else says so."""
    post = pseudo(target, method="POST")
    for headers, body, seen in (
            (pseudo(target), None, target.passed(GET)),
            (post, b"hello", target.passed(POST, body=HELLO, after=[C])),
            (post + [("content-length", "5")], b"hello", target.passed(POST, "content-length: 5", body="hello")),
            (pseudo(target) + [("host", "other.proxy.localhost")], None, target.passed(GET)),
            (pseudo(target) + [("x-forwarded-for", "6"), ("x_forwarded_for", "6"), ("forwarded", "for=6")], None, target.passed(GET)),
            (pseudo(target) + [("cookie", "a=1"), ("cookie", "b=2")], None, target.passed(GET, "cookie: a=1; b=2"))):
        assert target.send2(headers, body) == 200
        assert target.seen() == [seen]


def test_an_ipv6_listener_knows_ipv4_addresses():
    """[::] takes IPv4 connections, too: they are counted and told as such."""
    with socket.socket(socket.AF_INET6) as s:
        s.bind(("::", 0))
        port = s.getsockname()[1]
    with Host({**CONFIG, "edge": edge.here(listen="[::]:%d" % port)}) as h:
        h.import_image(IMAGE)
        c = h.deploy(imageName=IMAGE, dockerArgs="python3 -c " + shlex.quote(SERVER), ports="8000/http")
        t = Target(Edge(h), c)
        wait_status(t.edge, t.name, 200)
        t.seen()
        assert t.send(request(t.name)) == [200] and t.seen() == [t.passed(GET)]
        assert "key=::ffff:127.0.0.1 " in t.edge.runtime("show table addresses")
