"""What one address, or one cluster's visitors, may take of the edge; clients have addresses of 127.0.0.0/8 of their own."""
import contextlib
import json
import re
import ssl
import time

import h2.config
import h2.connection
import h2.events
import pytest

import edge
from edge import Edge
from host import Host
from test_edge import CONFIG, IMAGE, serve, wait_status, websocket

OPEN, RATE, CLUSTER_OPEN, CLUSTER_RATE = 8, 4, 12, 15
PERIOD_S = 10  # over which requests are counted
HTML = "text/html,*/*"


@pytest.fixture(scope="module")
def host():
    limits = {"address_connections": OPEN, "address_requests": RATE, "cluster_connections": CLUSTER_OPEN, "cluster_requests": CLUSTER_RATE}
    with Host({**CONFIG, "edge": edge.here(**limits)}) as h:
        h.import_image(IMAGE)
        yield h


@pytest.fixture(scope="module")
def names(host):
    """Of clusters."""
    ids = [host.deploy(imageName=IMAGE, dockerArgs=serve(8000), ports="8000/http") for _ in range(3)]
    e = Edge(host)
    for i in ids:
        wait_status(e, e.name(i, 8000), 200)
    return [e.name(i, 8000) for i in ids]


def free_again(e, name, source):
    """Once nobody asks any more."""
    end = time.monotonic() + 120
    while True:
        with contextlib.suppress(OSError):  # it may have too many for any answer yet
            if e.get(name, source=source).status == 200:
                return
        assert time.monotonic() < end
        time.sleep(1)


def refused(answer, what):
    assert (answer.status, answer.headers["Retry-After"], answer.headers["Cache-Control"]) == (429, str(PERIOD_S), "no-store")
    assert answer.headers["Content-Type"] == "application/json" and what in json.loads(answer.text)["error"]


def test_requests_of_an_address(host, names):
    e = Edge(host)
    c = e.connect(names[0], source="127.0.1.1")
    n = 0
    while (answer := e.ask(c, "GET")).status == 200:
        n += 1
        assert n < 100 * RATE * PERIOD_S
    assert n >= RATE * PERIOD_S
    refused(answer, "from this address")
    page = e.ask(c, "GET", Accept=HTML)
    assert page.status == 429 and "Your address" in page.text and page.headers["Content-Type"].startswith("text/html")
    assert e.get(e.api, "/v1/none", source="127.0.1.1").status == 429  # wherever it goes
    assert e.get(names[0], source="127.0.1.2").status == 200           # and nobody else
    c.close()
    free_again(e, names[0], "127.0.1.1")


def test_connections_of_an_address(host, names):
    e = Edge(host)
    with contextlib.ExitStack() as opened:
        for i in range(2 * OPEN):
            c = e.connect(names[0], source="127.0.2.1")
            opened.callback(c.close)
            if i < OPEN:
                assert e.ask(c, "GET").status == 200
            else:
                refused(e.ask(c, "GET"), "from this address")
        with pytest.raises((ssl.SSLError, OSError)):
            e.connect(names[0], source="127.0.2.1")
        assert e.get(names[0], source="127.0.2.2").status == 200
    free_again(e, names[0], "127.0.2.1")


def test_requests_that_an_address_has_open(host, names):
    """In one connection of HTTP/2."""
    e = Edge(host)
    context = e.context()
    context.set_alpn_protocols(["h2"])
    c = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
    c.initiate_connection()
    for i in range(OPEN + 1):
        c.send_headers(2 * i + 1, [(":method", "GET"), (":scheme", "https"), (":authority", names[0]), (":path", "/stream")], end_stream=True)
    statuses = []
    with e.connect(names[0], context, source="127.0.3.1").sock as s:
        s.sendall(c.data_to_send())
        while len(statuses) < OPEN + 1:
            piece = s.recv(65536)
            assert piece
            statuses += [dict(event.headers)[":status"] for event in c.receive_data(piece) if isinstance(event, h2.events.ResponseReceived)]
            s.sendall(c.data_to_send())
    assert sorted(statuses) == ["200"] * OPEN + ["429"]
    for _ in range(3):
        e.get(names[0], "/taken")


def test_requests_for_a_cluster(host, names):
    """From many addresses, none of which asks too often."""
    e = Edge(host)
    n, answer = 0, None
    for i in range(100):
        c = e.connect(names[0], source="127.0.4.%d" % (i + 1))
        for _ in range(RATE * PERIOD_S // 2):
            answer = e.ask(c, "GET")
            n += answer.status == 200
            if answer.status != 200:
                break
        c.close()
        if answer.status != 200:
            break
    refused(answer, "this cluster")
    assert n >= CLUSTER_RATE * PERIOD_S // 2  # others have asked for it in these ten seconds
    page = e.get(names[0], source="127.0.4.200", Accept=HTML)
    assert page.status == 429 and "Too many visitors" in page.text
    assert e.get(names[1], source="127.0.4.200").status == 200
    free_again(e, names[0], "127.0.4.201")


def test_what_a_cluster_has_open(host, names):
    e = Edge(host)
    with contextlib.ExitStack() as opened:
        for i in range(CLUSTER_OPEN):
            opened.enter_context(websocket(e, names[2], "127.0.5.%d" % (i // (OPEN // 2) + 1)))
        refused(e.get(names[2], source="127.0.5.100"), "this cluster")
        assert e.get(names[1], source="127.0.5.100").status == 200
    free_again(e, names[2], "127.0.5.100")


def test_what_is_kept_of_addresses_is_bounded(host):
    for table in ("addresses", "callers"):
        size, used = re.search(r"size:(\d+), used:(\d+)", Edge(host).runtime("show table " + table)).groups()
        assert int(size) == 65536 and int(used) < 1000


def test_half_of_all_at_most():
    """What is configured for one does not exceed what there is for all."""
    with Host({**CONFIG, "edge": edge.here(connections=20, address_connections=1000, cluster_connections=1000)}) as h:
        text = (Edge(h).files / "haproxy.cfg").read_text()
        assert "sc1_conn_cur gt 10\n" in text and "sc0_conn_cur gt 10\n" in text and "sc2_conn_cur gt 20 }" in text
