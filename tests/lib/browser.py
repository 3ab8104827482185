"""Chromium, headless, driven by its own protocol (CDP) over a WebSocket: a page that trusts a host's authority and
no other of ours.

    with Browser(edge.ca, edge.port) as browser:
        page = browser.page("https://...")
        page.wait("document.title == 'ready'")
"""
import base64
import contextlib
import http.client
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time

import websocket

from host import BUILD, SLOW

UID = 54323          # nobody's, and not root's: Chromium takes what a page says
TIMEOUT_S = 120      # for anything; the machine may be slow, and busy with other tests
ARTEFACTS = BUILD / "test-artefacts"
PAUSE_S = 0.05


class Island:
    """A network of its own for the browser: a loopback, on which one port leads to the same one of the machine.
    Chromium takes each change of an interface for another network and drops what is open, and beside other tests
    interfaces come and go."""

    HELPER = """
import ctypes, os, socket, subprocess, sys
way = socket.socket(fileno=int(sys.argv[1]))
if ctypes.CDLL(None, use_errno=True).unshare(0x40000000) != 0:
    raise OSError(ctypes.get_errno(), "unshare")
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
listener = socket.create_server(("127.0.0.1", int(sys.argv[2])), backlog=100)
socket.send_fds(way, [b"listener"], [listener.fileno()])
while port := way.recv(16):
    with socket.create_connection(("127.0.0.1", int(port))) as s:
        socket.send_fds(way, [b"connection"], [s.fileno()])
"""

    def __init__(self, port):
        self.port = port
        self.way, theirs = socket.socketpair()
        self.way.settimeout(TIMEOUT_S * SLOW)
        self.helper = subprocess.Popen([sys.executable, "-c", self.HELPER, str(theirs.fileno()), str(port)],
                                       pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        theirs.close()
        self.listener = self.received()
        threading.Thread(target=self.serve, daemon=True).start()

    def received(self):
        text, fds, _, _ = socket.recv_fds(self.way, 16, 1)
        assert text and fds, "the helper has ended"
        return socket.socket(fileno=fds[0])

    def connect(self, port):
        """To what listens on the island."""
        self.way.send(b"%d" % port)
        s = self.received()
        s.settimeout(TIMEOUT_S * SLOW)
        return s

    def serve(self):
        with contextlib.suppress(OSError):  # closed
            while True:
                inner, _ = self.listener.accept()
                try:
                    outer = socket.create_connection(("127.0.0.1", self.port))
                except OSError:
                    inner.close()
                    continue
                for pair in ((inner, outer), (outer, inner)):
                    threading.Thread(target=self.carry, args=pair, daemon=True).start()

    @staticmethod
    def carry(source, sink):
        with contextlib.suppress(OSError):
            while piece := source.recv(1 << 16):
                sink.sendall(piece)
        for s in (source, sink):  # who has ended one direction has ended both, here
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)

    def close(self):
        self.way.close()
        self.helper.wait(TIMEOUT_S * SLOW)
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


class Browser:
    def __init__(self, ca, port):
        self.ca, self.port, self.island = ca, port, None
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="hvmm-browser.", dir="/var/tmp"))
        self.log = self.dir / "log"
        self.proc = None

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind, value, trace):
        if kind and self.log.exists():
            print("--- chromium ---\n%s" % self.log.read_text(errors="replace")[-3000:])
        self.close()

    def start(self):
        nss = self.dir / ".pki/nssdb"
        nss.mkdir(parents=True)
        for command in (["-N", "--empty-password"], ["-A", "-n", "host", "-t", "C,,", "-i", str(self.ca)]):
            subprocess.run(["certutil", "-d", "sql:%s" % nss, *command], check=True, timeout=TIMEOUT_S * SLOW)
        for top, folders, files in os.walk(self.dir):
            for name in (".", *folders, *files):
                os.chown(os.path.join(top, name), UID, UID)
        self.island = Island(self.port)
        env = {"HOME": str(self.dir), "PATH": os.environ["PATH"], "LANG": "C.UTF-8", "TMPDIR": str(self.dir)}
        with open(self.log, "wb") as log:
            # no sandbox of its own: that wants user namespaces for everybody, and the pages are ours
            self.proc = subprocess.Popen(
                ["nsenter", "--net=/proc/%d/ns/net" % self.island.helper.pid, "setpriv", "--reuid=%d" % UID, "--regid=%d" % UID,
                 "--clear-groups", "chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                 "--no-first-run", "--no-proxy-server", "--disable-extensions", "--disable-background-networking",
                 "--disable-component-update", "--disable-sync", "--window-size=1000,700", "--remote-debugging-port=0",
                 "--user-data-dir=%s" % (self.dir / "profile"), "about:blank"],
                env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", start_new_session=True)
        port = self.dir / "profile/DevToolsActivePort"
        self.wait_for(lambda: port.exists() and port.read_text().count("\n") == 1, "its port")
        self.devtools = int(port.read_text().split()[0])

    def wait_for(self, condition, what):
        end = time.monotonic() + TIMEOUT_S
        while not condition():
            assert self.proc.poll() is None, "chromium has ended: %s" % self.log.read_text(errors="replace")[-2000:]
            assert time.monotonic() < end, "%s did not come: %s" % (what, self.log.read_text(errors="replace")[-2000:])
            time.sleep(PAUSE_S)

    def page(self, url):
        ask = http.client.HTTPConnection("127.0.0.1", self.devtools)
        ask.sock = self.island.connect(self.devtools)
        ask.request("PUT", "/json/new?about:blank")
        made = json.load(ask.getresponse())
        ask.close()
        page = Page(made["webSocketDebuggerUrl"], self.island.connect(self.devtools))
        page.go(url)
        return page

    def close(self):
        """Chromium and all that it has started: they are of its session."""
        if self.proc:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.proc.pid, 9)
            self.proc.wait()
            self.proc = None
        if self.island:
            self.island.close()
            self.island = None
        end = time.monotonic() + TIMEOUT_S
        while self.dir.exists() and time.monotonic() < end:  # some of its processes write while they die
            shutil.rmtree(self.dir, ignore_errors=True)


class Page:
    def __init__(self, url, connection):
        self.ws = websocket.create_connection(url, socket=connection, timeout=TIMEOUT_S * SLOW, suppress_origin=True)
        self.number = 0
        self.events = []
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(domain + ".enable")
        self.call("Emulation.setFocusEmulationEnabled", enabled=True)

    def call(self, method, **params):
        self.number += 1
        self.ws.send(json.dumps({"id": self.number, "method": method, "params": params}))
        while True:
            said = json.loads(self.ws.recv())
            if said.get("id") == self.number:
                assert "error" not in said, (method, said["error"])
                return said["result"]
            if "method" in said:
                self.events.append((said["method"], said["params"]))

    def go(self, url):
        done = self.call("Page.navigate", url=url)
        assert not done.get("errorText"), (url, done["errorText"])
        self.wait("document.readyState == 'complete' && location.href != 'about:blank'")
        # what is pressed on a page that has not been painted yet goes nowhere
        self.call("Page.bringToFront")
        self.wait("performance.getEntriesByType('paint').length > 0")
        self.eval("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def eval(self, text):
        """The value of an expression; promises are awaited."""
        done = self.call("Runtime.evaluate", expression=text, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in done, (text, done["exceptionDetails"])
        return done["result"].get("value")

    def wait(self, text, timeout=TIMEOUT_S):
        """Until that expression is true; its value."""
        end = time.monotonic() + timeout
        while not (value := self.eval(text)):
            assert time.monotonic() < end, "%s is %r; the page: %r; %s" % (
                text, value, self.eval("document.body.innerText.slice(0, 2000)"), self.complaints())
            time.sleep(PAUSE_S)
        return value

    def click(self, selector):
        box = self.eval("(() => { const e = document.querySelector(%s), r = e.getBoundingClientRect(); window.pressed = 0;"
                        " e.addEventListener('click', () => { window.pressed = 1; }, { once: true, capture: true });"
                        " return [r.x + r.width / 2, r.y + r.height / 2]; })()" % json.dumps(selector))
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)
        self.wait("window.pressed")

    def type(self, text):
        """Key by key, as a hand does."""
        for char in text:
            key = {"\n": {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"}}.get(
                char, {"key": char, "text": char})
            self.call("Input.dispatchKeyEvent", type="keyDown", **key)
            self.call("Input.dispatchKeyEvent", type="keyUp", **{k: v for k, v in key.items() if k != "text"})

    def screenshot(self, name):
        data = base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
        ARTEFACTS.mkdir(exist_ok=True)
        (ARTEFACTS / (name + ".png")).write_bytes(data)
        return data

    def complaints(self):
        """What the page did that its policy forbids, and exceptions that nobody caught."""
        self.eval("1")
        found = []
        for method, params in self.events:
            if method == "Runtime.exceptionThrown":
                found.append(params["exceptionDetails"].get("exception", {}).get("description", "an exception"))
            if method == "Log.entryAdded" and re.search("Content Security Policy|Refused to", params["entry"]["text"]):
                found.append(params["entry"]["text"])
        return found

    def requests(self):
        """(address, headers) of everything that it asked for."""
        self.eval("1")
        return [(p["request"]["url"], p["request"]["headers"]) if m == "Network.requestWillBeSent" else (p["url"], {})
                for m, p in self.events if m in ("Network.requestWillBeSent", "Network.webSocketCreated")]

    def close(self):
        self.ws.close()
