"""B=edge: what the way through the edge costs.

tls_rps_ratio: requests a second through TLS and the map of names, of those that a bare HAProxy (the same
certificate and number of threads, one server, no map, nothing rewritten) makes of the same server, by
HTTP/1.1 (wrk) and HTTP/2 (h2load); beside it nginx as a proxy.  They take turns, and the best of each counts.
added_us: the median of one connection's requests in turn, without what the server takes when it is
asked directly; beside it the bare HAProxy's.
map_visible_ms: from the moment that a change of the map is sent until a request is answered by it, a
thousand routes being in it.
create_to_200_ms: from the call that creates a cluster to the first answer 200 over HTTPS; the image is
there, and its server listens at once.

The server is an nginx of this machine that answers from memory, so that it is not what is measured."""
import contextlib
import json
import os
import pathlib
import re
import shutil
import ssl
import statistics
import subprocess
import tempfile
import time

import edge
from host import Host, free_port
from ocimake import Image, Layer

BUILD = pathlib.Path(os.environ["HVMM_BUILD"])
ROUNDS = 6
SECONDS = 3
CONNECTIONS = 32
CREATES = 40
CHANGES = 200
ROUTES = 1000
CONFIG = {"engine": {"cpu_overcommit": 100, "memory_overcommit": 20, "disk_overcommit": 50, "log_level": "warning"}}

NGINX = """
worker_processes %(workers)d;
daemon off;
pid %(dir)s/nginx.pid;
error_log stderr crit;
events { worker_connections 4096; }
http {
  access_log off;
  keepalive_requests 1000000000;
  client_body_temp_path %(dir)s/b; proxy_temp_path %(dir)s/p; fastcgi_temp_path %(dir)s/f;
  uwsgi_temp_path %(dir)s/u; scgi_temp_path %(dir)s/s;
  upstream origin { server 127.0.0.1:%(origin)d; keepalive 64; keepalive_requests 1000000000; }
  server { listen 127.0.0.1:%(origin)d backlog=4096; location / { return 200 "hello\\n"; } }
  server {
    listen 127.0.0.1:%(proxy)d ssl http2 backlog=4096;
    ssl_certificate %(pem)s; ssl_certificate_key %(pem)s;
    location / { proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host; }
  }
}
"""

HAPROXY = """
global
    nbthread %(threads)d
    maxconn 4096
    ssl-default-bind-options ssl-min-ver TLSv1.2 no-tls-tickets
defaults
    mode http
    timeout connect 5s
    timeout client 1m
    timeout server 1m
frontend bare
    bind 127.0.0.1:%(bare)d ssl crt %(pem)s alpn h2,http/1.1
    default_backend origin
backend origin
    server origin 127.0.0.1:%(origin)d
"""


def run(figures):
    with contextlib.ExitStack() as stack:
        host = stack.enter_context(Host({**CONFIG, "edge": edge.here()}))
        e = edge.Edge(host)
        ports, name = peers(stack, host, e), e.name("benchmark", 8000)
        e.runtime("add map %s %s 127.0.0.1:%d" % (e.files / "routes", name, ports["origin"]))
        ways = {"edge": (e.port, name), "bare HAProxy": (ports["bare"], name), "nginx": (ports["proxy"], name)}
        for way in ways.values():
            assert "hello" in curl(e, *way)
        rps(figures, ways)
        added(figures, ways, ports["origin"])
        map_visible(figures, e, ports["origin"])
        create_to_200(figures, host, e)


def peers(stack, host, e):
    """Servers of this machine with the edge's own certificate; their ports by name."""
    work = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hvmm-edge.")))
    pem = work / "tenant.pem"
    shutil.copy(e.files / "tenant.pem", pem)
    threads = int(re.search(r"^Nbthread: (\d+)", e.runtime("show info"), re.M).group(1))
    given = {"dir": work, "pem": pem, "threads": threads, "workers": os.cpu_count(),
             "origin": free_port(), "proxy": free_port(), "bare": free_port()}
    for text, argv in ((NGINX, ["nginx", "-p", str(work), "-c"]), (HAPROXY, ["haproxy", "-db", "-q", "-f"])):
        conf = work / (argv[0] + ".conf")
        conf.write_text(text % given)
        p = subprocess.Popen(argv + [str(conf)], stdin=subprocess.DEVNULL)
        stack.callback(p.wait)
        stack.callback(p.terminate)
    for key in ("origin", "proxy", "bare"):
        wait_port(given[key])
    return given


def wait_port(port):
    end = time.monotonic() + 10
    while subprocess.run(["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/%d" % port], stderr=subprocess.DEVNULL,
                         check=False).returncode != 0:
        assert time.monotonic() < end, port
        time.sleep(0.05)


def curl(e, port, name):
    return subprocess.run(["curl", "-sS", "--cacert", str(e.ca), "--resolve", "%s:%d:127.0.0.1" % (name, port),
                           "https://%s:%d/" % (name, port)], check=True, capture_output=True, text=True).stdout


# ---- requests a second, and how long one takes

def wrk(url, name, connections, seconds=SECONDS):
    """(requests a second, median in us)"""
    out = subprocess.run(["wrk", "-t%d" % min(2, connections), "-c%d" % connections, "-d%ds" % seconds, "--latency",
                          "-H", "Host: " + name, url], check=True, capture_output=True, text=True).stdout
    assert "Non-2xx" not in out and "Socket errors" not in out, out
    value, unit = re.search(r"50%\s+([\d.]+)(us|ms|s)", out).groups()
    return (float(re.search(r"Requests/sec:\s+([\d.]+)", out)[1]),
            float(value) * {"us": 1, "ms": 1e3, "s": 1e6}[unit])


def h2load(port, name):
    out = subprocess.run(["h2load", "-t2", "-c8", "-m16", "-D%d" % SECONDS, "--connect-to=127.0.0.1:%d" % port,
                          "https://%s/" % name], check=True, capture_output=True, text=True).stdout
    good, bad = re.search(r"status codes: (\d+) 2xx, (\d+ 3xx, \d+ 4xx, \d+ 5xx)", out).groups()
    assert int(good) > 0 and bad == "0 3xx, 0 4xx, 0 5xx", out
    return float(re.search(r"([\d.]+) req/s", out)[1])


def rps(figures, ways):
    best = {}
    for _ in range(ROUNDS):
        for way, (port, name) in ways.items():
            for kind, got in (("h1", wrk("https://127.0.0.1:%d/" % port, name, CONNECTIONS)[0]), ("h2", h2load(port, name))):
                best[way, kind] = max(best.get((way, kind), 0), got)
    for kind in ("h1", "h2"):
        figures.add("edge.tls_rps_" + kind, best["edge", kind], "requests/s", "bare HAProxy",
                    best["bare HAProxy", kind], higher_is_better=True)
        figures.add("edge.tls_rps_%s_nginx" % kind, best["nginx", kind], "requests/s")
    figures.add("edge.tls_rps_ratio", min(best["edge", k] / best["bare HAProxy", k] for k in ("h1", "h2")), "of bare HAProxy")


def added(figures, ways, origin):
    least = {}
    for _ in range(ROUNDS):
        for way, (url, name) in {"direct": ("http://127.0.0.1:%d/" % origin, "origin"),
                                 **{w: ("https://127.0.0.1:%d/" % p, n) for w, (p, n) in ways.items()}}.items():
            least[way] = min(least.get(way, 1e9), wrk(url, name, 1, 2)[1])
    more = {way: us - least["direct"] for way, us in least.items()}
    figures.add("edge.added_us", more["edge"], "us", "bare HAProxy", more["bare HAProxy"])
    figures.add("edge.added_us_nginx", more["nginx"], "us")


# ---- names

def map_visible(figures, e, origin):
    routes = str(e.files / "routes")
    e.runtime(*["add map %s filler%d-1.proxy.%s 127.0.0.1:1" % (routes, i, e.domain) for i in range(ROUTES // 2)])
    e.runtime(*["add map %s filler%d-2.proxy.%s 127.0.0.1:1" % (routes, i, e.domain) for i in range(ROUTES // 2)])
    name, took = e.name("changed", 8000), []
    line = e.connect(name)
    for i in range(CHANGES):
        want, command = ((200, "add map %s %s 127.0.0.1:%d" % (routes, name, origin)),
                         (404, "del map %s %s" % (routes, name)))[i % 2]
        begin = time.monotonic()
        e.runtime(command)
        while e.ask(line, "GET").status != want:
            pass
        took.append((time.monotonic() - begin) * 1000)
    figures.add("edge.map_visible_ms", statistics.median(took), "ms")
    figures.add("edge.map_visible_ms_max", max(took), "ms")


def create_to_200(figures, host, e):
    """busybox httpd in an image of its own.  The client keeps its connection, as a browser does that was there."""
    layer = Layer().busybox("httpd", "sh").dir("www").file("www/index.html", b"hello\n")
    image = Image([layer.tar()], config={"Cmd": ["/bin/httpd", "-f", "-p", "8000", "-h", "/www"], "Env": ["PATH=/bin"]})
    host.import_image("bench/listens", image.write_layout(str(host.dir / "layout")))
    took, context = [], e.context()
    for _ in range(CREATES):
        line = e.connect("warm-8000.proxy." + e.domain, context)
        e.ask(line, "GET")
        begin = time.monotonic()
        cluster = host.deploy(imageName="bench/listens", ports="8000/http")
        name = e.name(cluster, 8000)
        while e.ask(line, "GET", Host=name).status != 200:
            pass
        took.append((time.monotonic() - begin) * 1000)
        line.close()
        host.terminate(cluster)
        host.wait_released()
    figures.add("edge.create_to_200_ms", statistics.median(took), "ms")
    figures.add("edge.create_to_200_ms_p90", statistics.quantiles(took, n=10)[8], "ms")
