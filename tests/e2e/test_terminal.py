"""The web terminal without its browser: who may open one, what it is served with, and that it is still there after
the engine, the API or the connection was not.  With a browser: test_browser.py."""
import json
import os
import re
import time

import pytest
import requests

import edge
import webterm
from edge import Edge
from host import PAUSE_S, SLOW, Host
from webterm import PROTOCOL, Refused, Terminal, ticket, upgrade

CONFIG = {"engine": {"pool_networks": 0, "pool_disks": 0, "grace": "1s", "cpu_overcommit": 100,
                     "memory_overcommit": 20, "disk_overcommit": 100}}
IMAGE = "tensorone/llm-starter"  # has stty
WAIT_S = 60


@pytest.fixture(scope="module")
def host():
    with Host({**CONFIG, "edge": edge.here(log_requests="yes")}) as h:
        h.import_image(IMAGE)
        yield h


@pytest.fixture(scope="module")
def cluster(host):
    with host.running(imageName=IMAGE, dockerArgs="sleep 10000") as c:
        yield c


def wait(condition, what):
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(PAUSE_S)


def kept(host):
    return {f for f in host.held() if f.startswith("run file k-")}


# ---- the page ------------------------------------------------------------------------------------

def test_the_page_trusts_nobody_else(host):
    e = Edge(host)
    page = e.get(e.api, "/terminal")
    assert page.status == 200 and page.headers["Content-Type"] == "text/html; charset=utf-8"
    policy = dict(x.strip().split(" ", 1) for x in page.headers["Content-Security-Policy"].split(";"))
    assert policy == {"default-src": "'none'", "script-src": "'self'", "style-src": "'self'", "img-src": "'self'",
                      "connect-src": "'self'", "base-uri": "'none'", "form-action": "'none'", "frame-ancestors": "'none'"}
    assert page.headers["Referrer-Policy"] == "no-referrer"
    assert page.headers["X-Content-Type-Options"] == "nosniff"
    assert page.headers["X-Frame-Options"] == "DENY"
    assert page.headers["Strict-Transport-Security"]
    assert "<script>" not in page.text and " on" not in re.sub(r">[^<]*<", "><", page.text)  # nothing that the policy stops
    for path in re.findall(r'(?:src|href)="([^"]*)"', page.text):
        assert path.startswith("/terminal/")
        answer = e.get(e.api, path)
        assert answer.status == 200 and answer.headers["Content-Security-Policy"], path
    assert "Permission is hereby granted" in e.get(e.api, "/terminal/xterm.js").text
    for path in ("/terminal/", "/terminal/none", "/terminal/../health", "/terminal/terminal.js/x"):
        assert e.get(e.api, path).status == 404, path
    assert e.get(e.name("nobody", 1), "/terminal").status == 404


# ---- tickets -------------------------------------------------------------------------------------

def refused(host, cluster, text, **kw):
    with pytest.raises(Refused) as x:
        upgrade(host, cluster, [PROTOCOL, "tensorone.ticket." + text], tty=1, cmd="true", **kw)
    return x.value.status


def test_a_ticket_is_good_for_one_session(host, cluster):
    text = ticket(host, cluster)
    ws = upgrade(host, cluster, [PROTOCOL, "tensorone.ticket." + text], tty=1, cmd="true")
    assert ws.getsubprotocol() == PROTOCOL  # and no word of the other
    ws.close()
    assert refused(host, cluster, text) == 401
    assert refused(host, cluster, "0" * 64) == 401
    assert refused(host, cluster, "") == 401


def test_a_ticket_is_for_its_cluster_and_its_page(host, cluster):
    e = Edge(host)
    with host.running(imageName=IMAGE, dockerArgs="sleep 10000") as other:
        assert refused(host, other, ticket(host, cluster)) == 401
    for origin in ("https://example.org", "http://%s:%d" % (e.api, e.port), "https://" + e.api, "null",
                   "https://%s:%d" % (e.name(cluster, 8000), e.port), "https://%s:%d.example.org" % (e.api, e.port), ""):
        text = ticket(host, cluster)
        assert refused(host, cluster, text, origin=origin) == 401, origin
        assert refused(host, cluster, text) == 401, "it was used up"


def test_a_ticket_opens_nothing_else(host, cluster):
    e = Edge(host)
    for method, path in (("POST", "/graphql"), ("GET", "/v1/clusters/%s/logs" % cluster), ("GET", "/v2/secrets"),
                         ("POST", "/v1/clusters/%s/exec/tickets" % cluster)):
        c = e.connect(e.api)
        answer = e.ask(c, method, path, body='{"query":"{ myself { id } }"}' if method == "POST" else None,
                       Sec_WebSocket_Protocol="tensorone.ticket." + ticket(host, cluster),
                       Origin="https://%s:%d" % (e.api, e.port))
        assert answer.status == 401, (path, answer.text)
        c.close()


def test_who_gets_a_ticket(host, cluster):
    made = requests.post(host.url + "/v1/accounts", json={"name": "other"}, timeout=30 * SLOW,
                         headers={"Authorization": "Bearer " + host.key}).json()
    def new_key(account, rights):
        return requests.post(host.url + "/v1/accounts/%s/keys" % account, json={"name": rights, "rights": rights},
                             headers={"Authorization": "Bearer " + host.key}, timeout=30 * SLOW).json()
    own = requests.get(host.url + "/v1/accounts", headers={"Authorization": "Bearer " + host.key}, timeout=30 * SLOW).json()
    admin = next(a["id"] for a in own if a["admin"])
    for key, status in ((made["key"], 404), (new_key(admin, "read")["key"], 403), ("nonsense", 401)):
        with pytest.raises(Refused) as x:
            ticket(host, cluster, key)
        assert x.value.status == status
    with pytest.raises(Refused) as x:
        ticket(host, "nonexistent")
    assert x.value.status == 404
    writer = new_key(admin, "write")
    text = ticket(host, cluster, writer["key"])
    done = requests.delete(host.url + "/v1/keys/" + writer["id"], headers={"Authorization": "Bearer " + host.key}, timeout=30 * SLOW)
    assert done.status_code == 200
    assert refused(host, cluster, text) == 401, "the key that it came from is gone"


def test_neither_key_nor_ticket_is_written_down(host, cluster):
    e, text = Edge(host), ticket(host, cluster)
    upgrade(host, cluster, [PROTOCOL, "tensorone.ticket." + text], tty=1, cmd="true").close()

    def logged():  # HAProxy leaves a line out while its other thread stands still in the middle of one
        refused(host, cluster, text)
        e.get(e.name("nobody", 1), "/marked-behind-it")
        return "/exec" in host.log_text() and "/marked-behind-it" in host.log_text()

    wait(logged, "the edge's log")
    log = host.log_text()
    assert text not in log and host.key not in log
    assert text not in json.dumps(host.gql('{ events(input: {kind: "audit", limit: 1000}) { kind object text operation } }'))


# ---- a terminal ----------------------------------------------------------------------------------

def test_it_is_a_terminal(host, cluster):
    t = Terminal(host, cluster)
    assert t.say("stty size") == "24 80\r\n"
    t.send(webterm.RESIZE, bytes([0, 50, 0, 132]))
    assert t.say("stty size") == "50 132\r\n"
    t.type("exit 7\n")
    t.finish()
    assert (t.exit, t.close_code) == ({"code": 7, "signal": 0}, 1000)
    wait(lambda: not kept(host), "its socket goes with it")


def test_every_byte_both_ways(host, cluster):
    t = Terminal(host, cluster, "sh", "-c", "stty raw -echo; echo ready; head -c 1024; sleep 1000")
    start = t.until(b"ready\n")
    data = bytes(range(256)) * 4
    t.send(webterm.STDIN, data)
    t.until(data, start)
    t.close()


def test_what_cannot_be_opened_says_why(host, cluster):
    t = Terminal(host, cluster, "/nonexistent")
    assert "/nonexistent" in t.error and t.close_code == 4404
    t = Terminal(host, cluster, tty=0)
    assert "keep: 1 to 3600 seconds, of a session with a terminal" in t.error and t.close_code == 1011


def test_a_program_waits_for_the_page(host, cluster):
    """It is sent no more than it has room for: 96 KiB, and not those of a program that never ends."""
    t = Terminal(host, cluster, "sh", "-c", "stty -opost; yes 0123456789")
    may = 98304
    for taken in (50000, 98304, 1 << 20):  # the last is more than it was sent
        while len(t.out) < may:
            t.step(take=False)
        assert len(t.out) == may
        t.echo(20)
        t.send(webterm.TAKEN, taken.to_bytes(4, "big"))
        may += min(taken, 98304)
    assert t.out == (b"0123456789\n" * (len(t.out) // 11 + 1))[:len(t.out)]
    t.close()
    wait(lambda: not kept(host), "it ends")


def test_many_at_once(host, cluster):
    terminals = [Terminal(host, cluster) for _ in range(32)]
    assert len({t.id for t in terminals}) == 32
    assert "32 terminals that are kept" in Terminal(host, cluster).error
    for i, t in enumerate(terminals):
        t.type("n=%d\n" % i)
    for i, t in enumerate(terminals):
        assert t.say("echo $n") == "%d\r\n" % i
    for t in terminals:
        t.close()
    wait(lambda: not kept(host), "all of them end")


# ---- it is still there ---------------------------------------------------------------------------

def test_a_lost_connection(host, cluster):
    t = Terminal(host, cluster)
    t.say("x=42")
    t.type("sleep 1; echo a''way\n")
    t.until(b"\n", len(t.out))
    t.back()
    assert t.missing == 0
    t.until(b"away\r\n")
    assert t.say("echo $x") == "42\r\n"
    # a reader that had not got everything
    t.out = t.out[:-10]
    assert t.back().missing == 0
    t.until(b"mark\r\n", len(t.out) - 10)
    t.close()
    wait(lambda: not kept(host), "it ends with the goodbye")
    t.back()
    assert t.close_code == 4404 and "ended" in t.error


def test_the_api_is_started_again(host, cluster):
    t = Terminal(host, cluster)
    t.say("x=43")
    os.kill(host.api_pid(), 9)
    lost(t)
    back(t)
    assert t.missing == 0 and t.say("echo $x") == "43\r\n"
    t.close()


def lost(t):
    """The connection ends without a goodbye."""
    with pytest.raises((webterm.websocket.WebSocketException, OSError)):
        while t.step():
            pass


def back(t):
    """As the page does: again, until somebody answers."""
    end = time.monotonic() + WAIT_S
    while True:
        try:
            t.back()
            if t.close_code is None:
                return
            assert t.close_code != 4404, t.error
        except (Refused, OSError, webterm.websocket.WebSocketException) as e:
            assert time.monotonic() < end and getattr(e, "status", 503) not in (401, 403, 404), e
        time.sleep(PAUSE_S)


@pytest.mark.limit(300)
def test_the_engine_is_started_again():
    """Killed, and stopped in order: the shell, its variables and what it says go on."""
    with Host({**CONFIG, "edge": edge.here()}) as h:
        h.import_image(IMAGE)
        c = h.deploy(imageName=IMAGE, dockerArgs="sleep 10000")
        h.wait_running(c)
        t, u = Terminal(h, c), Terminal(h, c, "sh", "-c", "stty -opost; i=0; while echo line $i; do i=$((i+1)); done")
        t.say("x=44")
        u.until(b"line 1000\n")
        for end in (h.kill, h.stop):
            end()
            lost(t)
            lost(u)
            h.start()
            back(t)
            back(u)
            assert (t.missing, u.missing) == (0, 0)
            assert t.say("echo $x") == "44\r\n"
            u.until(b"line %d\n" % (u.out.count(b"\n") + 3000))
        lines = u.out[:u.out.rindex(b"\n")].split(b"\n")
        assert lines == [b"line %d" % i for i in range(len(lines))]
        h.call("clusterStop", c)
        h.wait_exited(c)
        lost_or_over(t)
        wait(lambda: not kept(h), "they end with the cluster")


def lost_or_over(t):
    try:
        t.finish()
    except (webterm.websocket.WebSocketException, OSError):
        pass
    assert t.exit is not None or t.error is not None
