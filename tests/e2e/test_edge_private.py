"""Private ports of clusters: who is let in, by key, link and cookie; what the cluster sees of that; what ends it."""
import base64
import contextlib
import hashlib
import hmac
import http.cookies
import json
import os
import re
import time
import urllib.parse

import pytest

import edge
from edge import Edge
from host import PAUSE_S, Host
from test_edge import CONFIG, IMAGE, echoes, serve, wait_status

COOKIE = "__Host-tensorone-access"
HTML = "text/html,*/*"
PORTS = "8000/http:private,8001/http:public,8002/http:private"


@pytest.fixture(scope="module")
def host():
    with Host({**CONFIG, "edge": edge.here(log_requests="yes")}) as h:
        h.import_image(IMAGE)
        yield h


class Account:
    def __init__(self, host, name):
        made = host.rest("POST", "/v1/accounts", json={"name": name}).json()
        self.host, self.id, self.key, self.key_id = host, made["id"], made["key"], made["keyId"]

    def another_key(self, **fields):
        answer = self.host.rest("POST", "/v1/accounts/%s/keys" % self.id, json=fields)
        assert answer.status_code == 201, answer.text
        return answer.json()

    def remove(self, key_id):
        assert self.host.rest("DELETE", "/v1/keys/" + key_id).status_code == 200


@pytest.fixture(scope="module")
def owner(host):
    return Account(host, "owner")


@pytest.fixture(scope="module")
def other(host):
    return Account(host, "other")


class Port:
    """A cluster's private port, with what it answers about the request that it saw."""

    def __init__(self, host, cluster):
        self.host, self.cluster, self.edge = host, cluster, Edge(host)
        self.name = self.edge.name(cluster, 8000)

    def get(self, path="/", **headers):
        return self.edge.get(self.name, path, **headers)

    def by_key(self, key):
        return self.get(Authorization="Bearer " + key)

    def seen(self, path="/", **headers):
        answer = self.get(path, **headers)
        assert answer.status == 200, answer.text
        told = json.loads(answer.text)
        return told["path"], {k.lower(): v for k, v in told["headers"].items()}

    def link(self, key, **fields):
        answer = self.host.rest("POST", "/v1/clusters/%s/open" % self.cluster, key, json={"port": 8000, **fields})
        assert answer.status_code == 200, answer.text
        return answer.json()["url"]

    def follow(self, url):
        """The path behind it and the cookie."""
        u = urllib.parse.urlsplit(url)
        assert (u.scheme, u.netloc) == ("https", "%s:%d" % (self.name, self.edge.port))
        answer = self.get(u.path + "?" + u.query)
        assert answer.status == 303, answer.text
        self.answer = answer
        to = answer.headers["Location"]
        assert to.startswith("https://%s:%d/" % (self.name, self.edge.port)) and "tensorone_access" not in to
        (cookie,) = http.cookies.SimpleCookie(answer.headers["Set-Cookie"]).values()
        return to.split(str(self.edge.port), 1)[1], cookie

    def wait(self, status, **headers):
        end = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError):  # of a HAProxy that was just killed
                answer = self.get(**headers)
                if answer.status == status:
                    return answer
            assert time.monotonic() < end
            time.sleep(PAUSE_S)


@pytest.fixture(scope="module")
def port(host, owner):
    c = host.deploy(owner.key, imageName=IMAGE, dockerArgs=serve(8000), ports=PORTS)
    p = Port(host, c)
    p.wait(200, Authorization="Bearer " + owner.key)
    yield p
    host.call("clusterTerminate", c, owner.key)


def sent(token):
    return {"Cookie": "%s=%s" % (COOKIE, token)}


# ---- keys ----------------------------------------------------------------------------------------

def test_nobody_is_let_in_without_a_key(port, owner, other, host):
    cluster_key = host.exec(port.cluster, "printenv", "TENSORONE_API_KEY", key=owner.key).stdout.strip()
    assert cluster_key
    for key in ("", "wrong", owner.id, owner.key_id, other.key, host.key, cluster_key,
                hashlib.sha256(owner.key.encode()).hexdigest()):
        answer = port.by_key(key)
        assert answer.status == 401 and "private" in json.loads(answer.text)["error"], key
        assert answer.headers["WWW-Authenticate"].startswith("Bearer") and answer.headers["Cache-Control"] == "no-store"
        if key:
            assert port.get("/?api_key=" + key).status == 401
            assert port.get(Authorization=key).status == 401
    page = port.get(Accept=HTML)
    assert page.status == 401 and "tensoronecli open" in page.text


def test_the_key_of_its_account(port, owner):
    """As the API takes it; the cluster does not see it."""
    for path, headers, wants in (
            ("/a?b=c", {"Authorization": "Bearer " + owner.key}, "/a?b=c"), ("/", {"Authorization": "bearer " + owner.key}, "/"),
            ("/", {"Authorization": owner.key}, "/"), ("/?api_key=" + owner.key, {}, "/"),
            ("/a?b=c&api_key=%s&d=e" % owner.key, {}, "/a?b=c&d=e"), ("/?b;api_key=%s" % owner.key, {}, "/?b")):
        path, seen = port.seen(path, **headers)
        assert path == wants and owner.key not in json.dumps(seen) and "authorization" not in seen


def test_what_is_not_for_the_edge_is_passed_on(port, owner, other):
    path, seen = port.seen("/?api_key=%s&x=1" % owner.key, Authorization="Bearer of-the-server", Cookie="a=b")
    assert seen["authorization"] == "Bearer of-the-server" and seen["cookie"] == "a=b" and path == "/?x=1"
    # but never a key, whoever's it is
    _, seen = port.seen("/?api_key=" + owner.key, Authorization="Bearer " + other.key)
    assert "authorization" not in seen


def test_a_key_that_may_only_read_does_not_open(port, owner):
    reader = owner.another_key(rights="read")["key"]
    assert port.by_key(reader).status == 401
    _, seen = port.seen("/?api_key=" + owner.key, Authorization="Bearer " + reader)
    assert "authorization" not in seen


def test_public_ports_beside_it(port, owner):
    e = port.edge
    assert e.get(e.name(port.cluster, 8001)).status == 503  # nothing listens, and nobody is asked for anything
    assert e.get(e.name(port.cluster, 8002)).status == 401
    assert e.get(e.name(port.cluster, 8002), Authorization="Bearer " + owner.key).status == 503


# ---- links ---------------------------------------------------------------------------------------

def test_a_link_becomes_a_cookie(port, owner):
    path, cookie = port.follow(port.link(owner.key, path="/lab?x=1&y=2"))
    assert path == "/lab?x=1&y=2"
    assert cookie.key == COOKIE and cookie["path"] == "/" and cookie["secure"] and cookie["httponly"]
    assert cookie["samesite"] == "Lax" and cookie["domain"] == "" and int(cookie["max-age"]) == 43200
    assert port.answer.headers["Referrer-Policy"] == "no-referrer" and port.answer.headers["Cache-Control"] == "no-store"
    assert port.seen(path, **sent(cookie.value))[0] == path
    for before, after in (("a=1; ", ""), ("", "; b=2"), ("a=1; ", "; b=2")):
        _, seen = port.seen(Cookie="%s%s=%s%s" % (before, COOKIE, cookie.value, after))
        assert seen["cookie"] == (before + after[2:] if before and after else before.rstrip("; ") or after[2:])
    _, seen = port.seen(**sent(cookie.value))
    assert "cookie" not in seen
    # for that name alone
    e = port.edge
    assert e.get(e.name(port.cluster, 8002), **sent(cookie.value)).status == 401


def test_a_websocket_with_the_cookie(port, owner):
    _, cookie = port.follow(port.link(owner.key))
    s = port.edge.connect(port.name).sock
    ask = ("GET /ws HTTP/1.1\r\nHost: %s\r\nOrigin: https://%s\r\n%sUpgrade: websocket\r\nConnection: Upgrade\r\n"
           "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n" %
           (port.name, "%s", "Cookie: %s=%s\r\n" % (COOKIE, cookie.value), base64.b64encode(os.urandom(16)).decode()))
    s.sendall((ask % port.name).encode())
    head = b""
    while b"\r\n\r\n" not in head:
        piece = s.recv(1000)
        assert piece
        head += piece
    assert head.startswith(b"HTTP/1.1 101 ") and echoes(s)
    s.close()
    s = port.edge.connect(port.name).sock  # a page of another tenant asks for one
    s.sendall((ask % "evil-1.proxy.localhost").encode())
    assert s.recv(1000).startswith(b"HTTP/1.1 403 ")
    s.close()


def test_other_pages_cannot_use_the_cookie(port, owner):
    """Names of tenants are of one site for a browser: SameSite alone does not keep them apart."""
    _, cookie = port.follow(port.link(owner.key))
    own = "https://%s:%d" % (port.name, port.edge.port)
    for headers, status in (
            ({"Origin": own}, 200), ({"Origin": "https://evil-1.proxy.localhost"}, 403), ({"Origin": "null"}, 403),
            ({"Origin": own + "x"}, 403), ({"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Dest": "empty"}, 200),
            ({"Sec-Fetch-Site": "same-site", "Sec-Fetch-Dest": "image"}, 403),
            ({"Sec-Fetch-Site": "same-site", "Sec-Fetch-Dest": "iframe"}, 403),
            ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "document"}, 200), ({"Sec-Fetch-Site": "none", "Sec-Fetch-Dest": "document"}, 200)):
        assert port.get(**sent(cookie.value), **headers).status == status, headers
    # a key is sent by nobody who does not have it
    assert port.get(Origin="https://elsewhere.example", Authorization="Bearer " + owner.key).status == 200


def token(port, kind, until, by, host=None, secret=None):
    """As the API and the edge make them."""
    secret = secret or base64.b64decode(port.edge.routes()[port.name].split(":")[3])
    said = "%s %s %d %s" % (kind, host or port.name, until, by)
    return "%d.%s.%s" % (until, by, hmac.new(secret, said.encode(), hashlib.sha256).hexdigest())


def test_tokens_that_are_worth_nothing(port, owner, other):
    later, by = int(time.time()) + 3600, owner.key_id
    good = token(port, "cookie", later, by)
    assert port.get(**sent(good)).status == 200
    bad = {
        "over": token(port, "cookie", int(time.time()) - 1, by),
        "of a link": token(port, "link", later, by),
        "of another name": token(port, "cookie", later, by, host=port.edge.name(port.cluster, 8002)),
        "of another key": token(port, "cookie", later, other.key_id),
        "of no key": token(port, "cookie", later, "nosuchkey000"),
        "of another secret": token(port, "cookie", later, by, secret=bytes(32)),
        "longer": good.replace(str(later), str(later + 1), 1),
        "of somebody": good.replace(by, other.key_id),
        "short": good[:-1], "empty": "", "dots": "..", "signature alone": good.rsplit(".", 1)[1],
        "capitals": good.rsplit(".", 1)[0] + "." + good.rsplit(".", 1)[1].upper(),
    }
    for what, value in bad.items():
        assert port.get(**sent(value)).status == 401, what
        if what != "of a link":
            assert port.get("/?tensorone_access=" + value).status == 401, what
    assert port.get("/?tensorone_access=" + good).status == 401  # a cookie is no link
    link = token(port, "link", later, by)
    assert port.get("/?tensorone_access=" + link).status == 303
    assert port.get("/?tensorone_access=%s" % token(port, "link", int(time.time()) - 1, by)).status == 401
    # a cookie that is there twice is not guessed at
    assert port.get(Cookie="%s=x; %s=%s" % (COOKIE, COOKIE, good)).status == 400


def test_a_link_leads_nowhere_else(port, owner):
    link = token(port, "link", int(time.time()) + 60, owner.key_id)
    answer = port.get("//evil.example/x?tensorone_access=" + link)
    assert answer.status == 303
    assert answer.headers["Location"] == "https://%s:%d//evil.example/x" % (port.name, port.edge.port)


def test_with_a_body_a_link_is_used_at_once(port, owner):
    """What cannot be led elsewhere is let through, without the token."""
    link = token(port, "link", int(time.time()) + 60, owner.key_id)
    c = port.edge.connect(port.name)
    answer = port.edge.ask(c, "POST", "/?tensorone_access=" + link, b"hello")
    assert answer.status == 200 and answer.text == hashlib.sha256(b"hello").hexdigest()
    c.close()


@pytest.mark.parametrize("fields, status, says", [
    ({"port": 9999}, 404, "port: 9999 is no http port of this cluster; it has " + PORTS),
    ({}, 400, "port: say which"), ({"port": 0}, 400, "port: say which"), ({"port": 65536}, 400, "port"), ({"port": "x"}, 400, "port"),
    ({"port": 8000, "path": "lab"}, 400, "must begin with /"), ({"port": 8000, "path": "/a b"}, 400, "write it as %20"),
    ({"port": 8000, "path": "/a\r\nX: y"}, 400, "write it as %0D"), ({"port": 8000, "path": "/" + "a" * 2048}, 413, "at most 2048"),
])
def test_links_that_are_not_made(port, owner, host, fields, status, says):
    answer = host.rest("POST", "/v1/clusters/%s/open" % port.cluster, owner.key, json=fields)
    assert answer.status_code == status and says in answer.text, answer.text


def test_who_makes_links(port, owner, other, host):
    path = "/v1/clusters/%s/open" % port.cluster
    reader = owner.another_key(rights="read")["key"]
    assert host.rest("POST", path, other.key, json={"port": 8000}).status_code == 404
    assert host.rest("POST", path, reader, json={"port": 8000}).status_code == 403
    assert host.rest("POST", path, "wrong", json={"port": 8000}).status_code == 401
    assert host.rest("POST", path, host.key, json={"port": 8000}).status_code == 404  # an administrator of another account
    public = host.rest("POST", path, owner.key, json={"port": 8001}).json()
    e = port.edge
    assert public == {"url": "https://%s:%d/" % (e.name(port.cluster, 8001), e.port), "expiresAt": None}


def test_the_command_line(host, port, owner):
    done = host.cli("open", port.cluster, "8000", "--path", "/lab", key=owner.key)
    assert port.follow(done.stdout.strip())[0] == "/lab"
    done = host.cli("open", port.cluster, "8000", "-o", "json", key=owner.key)
    made = json.loads(done.stdout)
    assert 200 < made["expiresAt"] - time.time() <= 300 and port.follow(made["url"])[0] == "/"
    done = host.cli("open", port.cluster, "x", key=owner.key, check=False)
    assert done.returncode != 0 and "'x' is not a port number" in done.stderr


# ---- what ends it --------------------------------------------------------------------------------

def test_a_removed_key_opens_nothing(port, owner):
    """Neither itself nor by a cookie, in HAProxy and in one that is started anew."""
    made = owner.another_key(name="soon gone")
    port.wait(200, Authorization="Bearer " + made["key"])
    _, cookie = port.follow(port.link(made["key"]))
    assert port.get(**sent(cookie.value)).status == 200
    owner.remove(made["id"])
    port.wait(401, Authorization="Bearer " + made["key"])
    port.wait(401, **sent(cookie.value))
    assert port.by_key(owner.key).status == 200
    os.kill(port.edge.pid(), 9)
    port.wait(200, Authorization="Bearer " + owner.key)
    assert port.by_key(made["key"]).status == 401 and port.get(**sent(cookie.value)).status == 401


def test_nothing_of_it_is_logged(port, owner, host):
    url = port.link(owner.key)
    _, cookie = port.follow(url)
    port.get("/marked?api_key=" + owner.key)
    end = time.monotonic() + 60
    while "/marked" not in host.log_text():
        assert time.monotonic() < end
        time.sleep(PAUSE_S)
    text = host.log_text()
    assert owner.key not in text and url.split("tensorone_access=")[1] not in text and cookie.value not in text


def test_it_stays_private_whatever_is_restarted(tmp_path):
    with Host({**CONFIG, "edge": edge.here()}) as h:
        h.import_image(IMAGE)
        c = h.deploy(imageName=IMAGE, dockerArgs=serve(8000), ports="8000/http:private")
        p = Port(h, c)
        p.wait(200, Authorization="Bearer " + h.key)
        _, cookie = p.follow(p.link(h.key))
        pid = p.edge.pid()
        h.kill()  # HAProxy goes on by itself
        assert p.get().status == 401 and p.by_key(h.key).status == 200 and p.get(**sent(cookie.value)).status == 200
        h.start()
        assert p.edge.pid() == pid
        assert p.get().status == 401 and p.by_key(h.key).status == 200 and p.get(**sent(cookie.value)).status == 200
        os.kill(pid, 9)
        p.wait(401)
        p.wait(200, Authorization="Bearer " + h.key)
        assert p.get(**sent(cookie.value)).status == 200
        h.call("clusterStop", c)
        h.wait_exited(c)
        assert p.get().status in (404, 503)
        h.call("clusterResume", c, gpuCount=0)
        p.wait(401)
        p.wait(200, **sent(cookie.value))


def test_ports_that_cannot_be(host):
    for ports, says in (("22/tcp:private", "22/tcp cannot be private"), ("80/http:secret", "must end in :public, :private"),
                        ("80/http,80/http:private", "listed twice")):
        with pytest.raises(Exception, match=re.escape(says)):
            host.deploy(imageName=IMAGE, ports=ports)


def test_what_was_said_is_told(host, port, owner):
    data = host.gql("query { myself { clusters { id ports } } }", None, owner.key)
    assert [c["ports"] for c in data["myself"]["clusters"] if c["id"] == port.cluster] == [PORTS]
