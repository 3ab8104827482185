"""The edge of a Host as its clients see it: TLS that trusts the host's own authority, names that lead to it.

    with Host({"edge": edge.here()}) as host:
        answer = Edge(host).get(Edge(host).name(cluster, 8000))
"""
import http.client
import pathlib
import re
import socket
import ssl
import time

from host import RUN, SLOW, free_port

TIMEOUT_S = 30 * SLOW


def here(**more):
    """`[edge]` for a test's host: a port that stays the same when it is started again, and no limits, because all its clients
    have one address."""
    return {"listen": "127.0.0.1:%d" % free_port(), "address_connections": 0, "address_requests": 0, "cluster_connections": 0,
            "cluster_requests": 0, **more}


class Connection(http.client.HTTPSConnection):
    """To the edge, under any name."""

    def __init__(self, edge, name, context, source):
        super().__init__(name, edge.port, timeout=TIMEOUT_S, context=context)
        self.edge, self.sni, self.source = edge, name, source

    def connect(self):
        raw = socket.create_connection(("127.0.0.1", self.edge.port), timeout=TIMEOUT_S, source_address=(self.source, 0))
        self.sock = self._context.wrap_socket(raw, server_hostname=self.sni)


class Answer:
    def __init__(self, response):
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    @property
    def text(self):
        return self.body.decode()


class Edge:
    def __init__(self, host):
        self.host = host
        conf = host.config["edge"]
        self.domain = conf.get("tenant_domain", "localhost")
        self.api = conf.get("api_domain", "api.localhost")
        self.port = int(conf["listen"].rsplit(":", 1)[1])
        if self.port == 0:
            self.port = int(re.findall(r"edge: https://ID-PORT\.proxy\.[^:]*:(\d+)", host.log_text())[-1])

    @property
    def ca(self):
        return self.host.data / "edge" / "ca.pem"

    @property
    def files(self):
        return RUN / self.host.id / "edge"

    @property
    def admin(self):
        return RUN / self.host.id / "edge.sock"

    def name(self, cluster, port):
        return "%s-%d.proxy.%s" % (cluster, port, self.domain)

    def context(self):
        return ssl.create_default_context(cafile=str(self.ca))

    def connect(self, name, context=None, source="127.0.0.1"):
        """@source: any of 127.0.0.0/8 is this machine's."""
        c = Connection(self, name, context or self.context(), source)
        c.connect()
        return c

    def ask(self, connection, method, path="/", body=None, **headers):
        connection.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
        return Answer(connection.getresponse())

    def get(self, name, path="/", source="127.0.0.1", **headers):
        c = self.connect(name, source=source)
        try:
            return self.ask(c, "GET", path, **headers)
        finally:
            c.close()

    def runtime(self, *commands):
        """What HAProxy says to these.  One that was just killed resets what it has taken; its listener is the engine's."""
        end = time.monotonic() + TIMEOUT_S
        while True:
            try:
                return self._runtime(commands)
            except (ConnectionResetError, BrokenPipeError):
                if time.monotonic() > end:
                    raise

    def _runtime(self, commands):
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(TIMEOUT_S)
            s.connect(str(self.admin))
            s.sendall((";".join(commands) + "\n").encode())
            text = b""
            while piece := s.recv(65536):
                text += piece
        return text.decode()

    def map(self):
        """{name: "ADDRESS:PORT" or "=PAGE"} as HAProxy has them now."""
        lines = self.runtime("show map %s" % (self.files / "routes")).splitlines()
        return {line.split()[1]: line.split()[2] for line in lines if line.strip()}

    def routes(self):
        """Those that lead to a cluster."""
        return {name: to for name, to in self.map().items() if not to.startswith("=")}

    def pid(self):
        """Of HAProxy, as it says itself."""
        return int(re.search(r"^Pid: (\d+)", self.runtime("show info"), re.M).group(1))

    def proc(self, name):
        return pathlib.Path("/proc/%d/%s" % (self.pid(), name))
