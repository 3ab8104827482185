"""What the page of the web terminal does, without a browser: a ticket, a WebSocket, and back again."""
import json
import struct
import urllib.parse

import websocket

from edge import Edge
from host import SLOW

TIMEOUT_S = 60 * SLOW
STDIN, STDOUT, STDERR, RESIZE, EOF, EXIT, ERROR, SIGNAL, SESSION, TAKEN = range(10)
PROTOCOL = "tensorone.exec.v1"


class Refused(Exception):
    def __init__(self, status, text):
        self.status, self.text = status, text
        super().__init__("%d %s" % (status, text))


def ticket(host, cluster, key=None):
    e = Edge(host)
    c = e.connect(e.api)
    try:
        answer = e.ask(c, "POST", "/v1/clusters/%s/exec/tickets" % cluster, Authorization="Bearer " + (key or host.key))
    finally:
        c.close()
    if answer.status != 201:
        raise Refused(answer.status, answer.text)
    return json.loads(answer.text)["ticket"]


def upgrade(host, cluster, offers, origin=None, headers=(), **params):
    """The WebSocket, or Refused."""
    e = Edge(host)
    at = "%s:%d" % (e.api, e.port)
    url = "wss://%s/v1/clusters/%s/exec?%s" % (at, cluster, urllib.parse.urlencode(params, doseq=True))
    try:
        return websocket.create_connection(
            url, socket=e.connect(e.api).sock, subprotocols=offers, timeout=TIMEOUT_S, header=list(headers),
            origin="https://" + at if origin is None else origin, suppress_origin=origin == "")
    except websocket.WebSocketBadStatusException as x:
        raise Refused(x.status_code, str(x)) from None


class Terminal:
    """One of the page's.  @shell: what runs in it."""

    def __init__(self, host, cluster, *shell, keep=600, tty=1):
        self.host, self.cluster, self.id, self.out = host, cluster, None, b""
        self.connect(tty=tty, keep=keep, rows=24, cols=80, cmd=list(shell) or ["sh"])

    def connect(self, **params):
        """Until it is there, or was refused."""
        self.exit = self.error = self.close_code = self.missing = None
        self.ws = upgrade(self.host, self.cluster, [PROTOCOL, "tensorone.ticket." + ticket(self.host, self.cluster)],
                          acks=1, **params)
        assert self.ws.getsubprotocol() == PROTOCOL  # and no word of the other
        while self.missing is None and self.close_code is None:
            self.step()

    def back(self):
        """After the connection was lost, or to lose it."""
        self.ws.shutdown()
        self.connect(session=self.id, **{"from": len(self.out)})
        return self

    def send(self, channel, data=b""):
        self.ws.send_binary(bytes([channel]) + data)

    def type(self, text):
        self.send(STDIN, text.encode())

    def echo(self, n):
        """So many times there and back, with nothing else coming."""
        for i in range(n):
            self.ws.ping(b"%d" % i)
            assert self.ws.recv_data(control_frame=True) == (websocket.ABNF.OPCODE_PONG, b"%d" % i)

    def step(self, take=True):
        opcode, data = self.ws.recv_data(control_frame=True)
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            self.close_code = struct.unpack(">H", data[:2])[0]
            return False
        assert opcode == websocket.ABNF.OPCODE_BINARY
        if data[0] == STDOUT:
            self.out += data[1:]
            if take:
                self.send(TAKEN, struct.pack(">I", len(data) - 1))
        elif data[0] == SESSION:
            said = json.loads(data[1:])
            self.id = said["session"]
            self.missing = said["offset"] - len(self.out)
        elif data[0] == EXIT:
            self.exit = json.loads(data[1:])
        elif data[0] == ERROR:
            self.error = data[1:].decode()
        return True

    def until(self, text, start=0):
        """Read until @text was written behind @start; the offset behind it."""
        while (at := self.out.find(text, start)) < 0:
            if not self.step():
                raise EOFError("ended with %r, %r: %r" % (self.exit, self.error, self.out[-500:]))
        return at + len(text)

    def say(self, text):
        """A line to the shell, and what it answers, between two marks: prompts and echoes come when they like."""
        start = len(self.out)
        self.type("echo be''gin; %s; echo ma''rk\n" % text)
        end = self.until(b"mark\r\n", start)
        return self.out[start:end - 6].split(b"begin\r\n", 1)[1].decode()

    def finish(self):
        while self.step():
            pass
        return self

    def close(self):
        """As a tab is closed: with a goodbye."""
        self.ws.close(timeout=TIMEOUT_S)
