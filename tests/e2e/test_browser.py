"""Chromium in front of the edge: a page from inside a cluster, its WebSocket, and the web terminal, over TLS that
is trusted by the host's own authority.  Pictures are kept in BUILD/test-artefacts."""
import json
import shlex
import struct
import time

import pytest

import browser
import edge
from browser import Browser
from edge import Edge
from host import PAUSE_S, Host
from webterm import ticket

CONFIG = {"engine": {"pool_networks": 0, "pool_disks": 0, "grace": "1s", "cpu_overcommit": 100,
                     "memory_overcommit": 20, "disk_overcommit": 100}}
IMAGE = "tensorone/llm-starter"
# A page and a WebSocket that says back what it hears; messages of one frame, as browsers send small ones.
SERVER = r'''
import base64, hashlib, http.server, struct
PAGE = b"""<!doctype html><html lang=en><meta charset=utf-8><title>a cluster</title>
<body style="font:20px sans-serif;margin:3rem"><h1>From inside a cluster</h1><p id=text>no answer yet<p id=bytes>no answer yet
<script>
const ws = new WebSocket(location.origin.replace("http", "ws") + "/ws");
ws.binaryType = "arraybuffer";
const sent = Uint8Array.from({ length: 60000 }, (x, i) => i * 7 & 255);
ws.onopen = () => { ws.send("gr\u00fc\u00df dich"); ws.send(sent); };
ws.onmessage = (e) => {
    if (typeof e.data == "string")
        document.getElementById("text").textContent = "echo: " + e.data;
    else
        document.getElementById("bytes").textContent = "echo: " + sent.every((x, i) => x == new Uint8Array(e.data)[i]) + " " + e.data.byteLength;
};
</script>"""
class H(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *a): pass
    def do_GET(self):
        if self.path == "/ws":
            key = self.headers["Sec-WebSocket-Key"].encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
            self.send_response(101)
            self.send_header("Upgrade", "websocket")
            self.send_header("Connection", "Upgrade")
            self.send_header("Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key).digest()).decode())
            self.end_headers()
            self.wfile.flush()
            while self.echo(): pass
            self.close_connection = True
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(PAGE)))
        self.end_headers()
        self.wfile.write(PAGE)
    def echo(self):
        head = self.rfile.read(2)
        if len(head) < 2 or head[0] & 15 == 8: return False
        n = head[1] & 127
        long = self.rfile.read({126: 2, 127: 8}.get(n, 0))
        n = int.from_bytes(long, "big") if long else n
        mask = self.rfile.read(4)
        data = bytes(b ^ mask[i & 3] for i, b in enumerate(self.rfile.read(n)))
        self.wfile.write(head[:1] + (bytes([n]) if n < 126 else struct.pack(">BH", 126, n)) + data)
        self.wfile.flush()
        return True
http.server.ThreadingHTTPServer(("0.0.0.0", 8000), H).serve_forever()
'''


@pytest.fixture(scope="module")
def host():
    with Host({**CONFIG, "edge": edge.here()}) as h:
        h.import_image(IMAGE)
        yield h


@pytest.fixture(scope="module")
def cluster(host):
    c = host.deploy(imageName=IMAGE, name="served", dockerArgs="python3 -c " + shlex.quote(SERVER), ports="8000/http")
    host.wait(c, lambda c: c["phase"] == "ready", timeout=60)
    return c


@pytest.fixture(scope="module")
def chromium(host):
    with Browser(Edge(host).ca, Edge(host).port) as b:
        yield b


@pytest.fixture
def open_page(chromium):
    opened = []

    def open_it(url):
        opened.append(chromium.page(url))
        return opened[-1]

    yield open_it
    for page in opened:
        page.close()


def at(e, name, path="/"):
    return "https://%s:%d%s" % (name, e.port, path)


def is_a_picture(png):
    """Of the window's size, and not of one colour."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", png[16:24])
    assert width >= 800 and height >= 400 and len(png) > 5000
    return True


@pytest.mark.limit(300)
def test_a_page_from_inside_a_cluster(host, cluster, open_page):
    e = Edge(host)
    page = open_page(at(e, e.name(cluster, 8000)))
    page.wait("document.getElementById('text').textContent == 'echo: grüß dich'")
    page.wait("document.getElementById('bytes').textContent == 'echo: true 60000'")
    assert page.eval("isSecureContext && location.protocol == 'https:'")
    assert page.eval("performance.getEntriesByType('navigation')[0].nextHopProtocol") == "h2"
    assert is_a_picture(page.screenshot("page"))
    assert page.complaints() == []


@pytest.mark.limit(300)
def test_a_tenants_page_and_the_api(host, cluster, open_page):
    """It can neither read the API nor open a terminal, not even with a ticket that it has got hold of."""
    e = Edge(host)
    page = open_page(at(e, e.name(cluster, 8000)))
    ask = "fetch(%s, %s).then((r) => r.text(), (x) => 'refused: ' + x.name)"
    body = {"method": "POST", "headers": {"Authorization": "Bearer x"}, "body": '{"query":"{ gpuTypes { id } }"}'}
    assert page.eval(ask % (json.dumps(at(e, e.api, "/graphql")), json.dumps(body))) == "refused: TypeError"
    socket = """new Promise((done) => {
        const ws = new WebSocket(%s, ["tensorone.exec.v1", "tensorone.ticket.%s"]);
        ws.onopen = () => done("open");
        ws.onclose = (e) => done(e.code);
    })"""
    to = at(e, e.api, "/v1/clusters/%s/exec?tty=1&cmd=true" % cluster).replace("https", "wss")
    assert page.eval(socket % (json.dumps(to), ticket(host, cluster))) == 1006
    page.eval("document.body.append(Object.assign(document.createElement('iframe'), { id: 'f', src: %s }))"
              % json.dumps(at(e, e.api, "/terminal")))
    end = time.monotonic() + browser.TIMEOUT_S
    while not any("frame-ancestors" in p["entry"]["text"] for m, p in page.events if m == "Log.entryAdded"):
        page.eval("1")
        assert time.monotonic() < end, page.events[-20:]
        time.sleep(PAUSE_S)


def screen(page):
    """What the terminal in front shows, by its own description for screen readers."""
    return page.eval("[...document.querySelectorAll('.screen:not([hidden]) .xterm-accessibility-tree > *')]"
                     ".map((row) => row.textContent.trimEnd()).join('\\n').replaceAll('\\u00a0', ' ')")


def wait_screen(page, shown, what):
    end = time.monotonic() + browser.TIMEOUT_S
    while not any(map(shown, screen(page).split("\n"))):
        assert time.monotonic() < end, (what, screen(page))
        time.sleep(PAUSE_S)


def wait_line(page, text):
    wait_screen(page, lambda line: line == text, text)


def wait_prompt(page):
    """What is typed while bash sets its terminal up is bash's to lose."""
    wait_screen(page, lambda line: line.endswith("#"), "a prompt")


def wait_states(page, *states):
    page.wait("[...document.querySelectorAll('.tab')].map((t) => t.dataset.state).join() == %s" % json.dumps(",".join(states)))


@pytest.mark.limit(400)
def test_the_terminal(host, cluster, open_page):
    e = Edge(host)
    page = open_page(at(e, e.api, "/terminal#" + cluster))
    page.click("#key")
    page.call("Input.insertText", text="wrong")
    page.click("#enter")
    page.wait("document.getElementById('sign-in-says').textContent.includes('unauthorized')")
    page.click("#key")
    page.call("Input.insertText", text=host.key)
    page.click("#enter")
    page.wait("!document.getElementById('work').hidden")
    assert page.eval("document.getElementById('cluster').value") == cluster
    assert page.eval("document.getElementById('key').value") == ""
    page.click("#open")
    wait_states(page, "open")
    wait_prompt(page)
    page.type("x=$((6*7)); echo \"x is $x, $TERM\"\n")
    wait_line(page, "x is 42, xterm-256color")
    # as large as the window
    size = page.eval("document.querySelector('.xterm-screen').clientWidth / document.querySelector('#screens').clientWidth")
    assert 0.9 < size <= 1
    page.type("stty size\n")
    page.type("printf '\\342\\234\\223 \\033[1;32mgreen\\033[0m\\n'\n")
    wait_line(page, "✓ green")
    assert is_a_picture(page.screenshot("terminal"))

    # a second one, beside the first
    page.click("#open")
    wait_states(page, "open", "open")
    wait_prompt(page)
    page.type("echo \"x is ${x:-unset}\"\n")
    wait_line(page, "x is unset")

    # the engine and the API are away: both come back to what they had
    host.kill()
    wait_states(page, "connecting", "connecting")
    page.type("echo typed a''head\n")
    host.start()
    wait_states(page, "open", "open")
    wait_line(page, "typed ahead")
    page.type("echo \"back with ${x:-nothing}\"\n")
    wait_line(page, "back with nothing")
    page.click(".tab:first-child button")
    page.type("echo \"back with $x\"\n")
    wait_line(page, "back with 42")
    assert is_a_picture(page.screenshot("terminal-again"))

    page.type("exit 3\n")
    wait_states(page, "ended", "open")
    assert page.eval("document.getElementById('says').textContent") == "ended with code 3"
    page.click("#sign-out")
    page.wait("!document.getElementById('sign-in').hidden && document.querySelectorAll('.tab').length == 0")

    # what it has told to whom
    assert page.complaints() == []
    asked = page.requests()
    assert any(url.startswith("wss://") for url, _ in asked)
    for url, headers in asked:
        assert host.key not in url and "ticket." not in url and url.split("/")[2] == "%s:%d" % (e.api, e.port), url
        assert not headers.get("Referer")
    assert page.eval("document.cookie + JSON.stringify(localStorage) + JSON.stringify(sessionStorage)") == "{}{}"
