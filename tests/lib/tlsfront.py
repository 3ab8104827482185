"""TLS in front of a stand-in for the API: another certificate whenever a test says so."""
import contextlib
import socket
import ssl
import threading


class TlsFront:
    """with TlsFront(port, folder) as front: front.use(issued) ... front.url ..."""

    def __init__(self, port, folder, name="api.localhost"):
        self.to, self.folder, self.name, self.n = port, folder, name, 0
        self.context, self.begun = None, 0

    def use(self, issued, chain=True):
        """@chain: whether the authority goes along."""
        self.n += 1
        file = self.folder / ("front%d.pem" % self.n)
        end = issued.chain.index("-----END") + 26
        file.write_text((issued.chain if chain else issued.chain[:end]) + issued.key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        context.set_alpn_protocols(["http/1.1"])
        self.context = context

    @property
    def url(self):
        return "https://%s:%d" % (self.name, self.port)

    def __enter__(self):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=50)
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *args):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(30)

    def serve(self):
        while True:
            try:
                raw, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.carry, args=(raw, self.context), daemon=True).start()

    def carry(self, raw, context):
        with contextlib.suppress(OSError), raw:
            raw.settimeout(60)
            with context.wrap_socket(raw, server_side=True) as client:
                with socket.create_connection(("127.0.0.1", self.to), timeout=60) as server:
                    self.begun += 1
                    back = threading.Thread(target=self.pump, args=(server, client), daemon=True)
                    back.start()
                    self.pump(client, server)
                    back.join(60)

    @staticmethod
    def pump(source, sink):
        with contextlib.suppress(OSError):
            while piece := source.recv(65536):
                sink.sendall(piece)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)
