"""What the edge itself says where a cluster cannot (docs/edge.md, "Pages"): to browsers and to programs, from the
order to start until it answers, and whatever dies meanwhile."""
import contextlib
import json
import os
import re
import shlex
import subprocess
import time

import pytest

import edge
from crash import wait_until
from edge import Edge
from host import PAUSE_S, SLOW, Host
from ocimake import Gate, Image, Layer

ENGINE = {"pool_networks": 0, "pool_disks": 0, "grace": "1s", "cpu_overcommit": 100, "memory_overcommit": 20,
          "disk_overcommit": 100}
REPO = "secret/name"
BASE = Layer().busybox("sh", "sleep", "httpd", "cat", "nc").dir("tmp", mode=0o1777).dir("etc").tar()
SERVES = ["/bin/sh", "-c", "echo -n it answers > /tmp/index.html; exec httpd -f -p 8000 -h /tmp"]
HTML = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"  # as browsers ask


@pytest.fixture(scope="module")
def host(registry):
    with Host({"engine": ENGINE, "edge": edge.here(), 'registry "%s"' % registry.host: {"insecure": "yes"}}) as h:
        h.image = registry.add(REPO, "here", Image([BASE], config={"Cmd": SERVES}))
        h.cli("image", "pull", h.image)
        yield h


@pytest.fixture(autouse=True)
def tidy(host, registry):
    yield
    registry.faults.clear()
    for c in host.clusters():
        host.terminate(c["id"])


def html_of(answer):
    """A page, as small and as closed as each of them has to be."""
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'; ")
    assert answer.headers["Cache-Control"] == "no-store" and answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Strict-Transport-Security"] is None and answer.headers["Set-Cookie"] is None
    text = answer.text
    assert text.startswith("<!doctype html>") and len(text) < 1500 and "script" not in text and "http:" not in text
    return text


def renews(text):
    """After how many seconds a page asks again."""
    found = re.search(r'<meta http-equiv="refresh" content="(\d+)">', text)
    return int(found.group(1)) if found else None


def see(e, name, method="GET", **more):
    """(status, JSON) of a program's question."""
    c = e.connect(name)
    try:
        answer = e.ask(c, method, **more)
    finally:
        c.close()
    assert answer.headers["Content-Type"] == "application/json" and answer.headers["Cache-Control"] == "no-store", (
        answer.status, answer.headers.items(), answer.body)
    said = json.loads(answer.text)
    assert answer.headers["Retry-After"] == (str(said["retryAfterSeconds"]) if "retryAfterSeconds" in said else None)
    return answer.status, said


def state(e, name):
    return see(e, name)[1]["state"]


def until_state(e, name, want):
    wait_until(lambda: e.get(name).status != 200 and state(e, name) == want, 60, want)


def left(e, name, what):
    """It is no longer said."""
    answer = e.get(name)
    return answer.status == 200 or json.loads(answer.text)["state"] != what


def until_answers(e, name, cut=False, known=False):
    """As a browser does: it asks again because the page has told it to.  @cut: an answer may be cut off before;
    @known: the edge has heard of it, which is a moment after the API's answer to a deployment."""
    end = time.monotonic() + 60
    while True:
        answer = e.get(name, Accept=HTML)
        if answer.status == 404 and not known:
            assert renews(html_of(answer)) == 30 and time.monotonic() < end
            time.sleep(PAUSE_S)
            continue
        known = True
        if answer.status == 200:
            assert answer.text == "it answers"
            return
        assert (cut and answer.status == 502) or (answer.status == 503 and renews(html_of(answer)) == 2), answer.text
        assert time.monotonic() < end
        time.sleep(PAUSE_S)


def other(host, cluster, old):
    """The first process, when it is another one already."""
    with contextlib.suppress(RuntimeError, KeyError):
        pid = host.first_pid(cluster)
        return pid if pid != old else None


def another(e, pid):
    """HAProxy, when it is not that one any more; one that is killed cuts off what it says."""
    with contextlib.suppress(OSError, AttributeError):
        return e.pid() != pid


@contextlib.contextmanager
def waiting(host, registry, size=4 << 20, gate=2 << 20, **fields):
    """A cluster whose image comes half-way until its gate is opened: (cluster, gate)."""
    layer = Layer().file("noise", os.urandom(size)).tar()
    image = Image([BASE, layer], compress_as="none", config={"Cmd": SERVES})
    g = registry.fault(image.layers[1]["digest"], Gate(gate))
    ref = registry.add(REPO, "gate%d" % time.monotonic_ns(), image)
    try:
        yield host.deploy(imageName=ref, ports="8000/http,8001/http,9000/tcp", name="a-name", **fields), g
    finally:
        g.open.set()


# ---- stopped -------------------------------------------------------------------------------------

def test_stopped(host):
    e = Edge(host)
    c = host.deploy(imageName=host.image, ports="8000/http,9000/tcp")
    name = e.name(c, 8000)
    until_answers(e, name)
    host.call("clusterStop", c)
    host.wait_exited(c)
    until_state(e, name, "stopped")
    assert see(e, name) == (503, {"error": "the cluster is stopped", "state": "stopped"})
    answer = e.get(name, Accept=HTML)
    assert answer.status == 503 and answer.headers["Retry-After"] is None
    assert "<h1>Stopped</h1>" in html_of(answer) and renews(answer.text) == 30
    # names that it never had are unknown as ever
    for port in (8001, 9000):
        assert see(e, e.name(c, port)) == (404, {"error": "no cluster has this name and port", "state": "unknown"})
        assert renews(html_of(e.get(e.name(c, port), Accept=HTML))) == 30
    host.call("clusterResume", c, gpuCount=0)
    wait_until(lambda: left(e, name, "stopped"), 60, "the start")
    until_answers(e, name, known=True)
    host.terminate(c)
    until_state(e, name, "unknown")
    assert name not in e.map()


def test_a_restart_is_a_start(host):
    """Nobody is told that it is stopped, or that it is unknown."""
    e = Edge(host)
    c = host.deploy(imageName=host.image, ports="8000/http")
    name = e.name(c, 8000)
    until_answers(e, name)
    old = host.first_pid(c)
    host.call("clusterRestart", c)
    end = time.monotonic() + 60
    while other(host, c, old) is None:
        until_answers(e, name, cut=True, known=True)
        assert time.monotonic() < end
    until_answers(e, name, known=True)


def test_each_kind_of_question(host):
    """Also those with a body, of any size, and those that are no HTTP afterwards: a connection goes on if it can."""
    e = Edge(host)
    c = host.deploy(imageName=host.image, ports="8000/http")
    name = e.name(c, 8000)
    host.call("clusterStop", c)
    host.wait_exited(c)
    until_state(e, name, "stopped")
    k = e.connect(name)
    for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "PROPFIND"):
        answer = e.ask(k, method, "/any?api_key=x", b"x" * 9000 if method in ("POST", "PUT", "PATCH") else None)
        assert answer.status == 503, method
        assert (answer.body == b"") == (method == "HEAD") and int(answer.headers["Content-Length"]) > 40
        assert method == "HEAD" or json.loads(answer.text)["state"] == "stopped"
    k.close()
    answer = e.get(name, Upgrade="websocket", Connection="Upgrade", Sec_WebSocket_Version="13",
                   Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25jZQ==")
    assert answer.status == 503 and json.loads(answer.text)["state"] == "stopped"
    for accept, kind in (("TEXT/HTML", "text/html"), ("*/*", "application/json"), ("", "application/json"),
                         ("application/json", "application/json"), ("image/webp,*/*", "application/json")):
        assert e.get(name, Accept=accept).headers["Content-Type"].split(";")[0] == kind, accept


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_as_curl_sees_it(host, version):
    e = Edge(host)
    c = host.deploy(imageName=host.image, ports="8000/http")
    host.call("clusterStop", c)
    host.wait_exited(c)
    until_state(e, e.name(c, 8000), "stopped")
    url = "https://%s:%d/" % (e.name(c, 8000), e.port)
    for more in ([], ["-I"], ["-d", "a=b"], ["-H", "Content-Type: application/json", "-d", '{"x": "%s"}' % ("y" * 8000)]):
        done = subprocess.run(["curl", "-sS", version, "--noproxy", "*", "--cacert", str(e.ca), "-o", "/dev/null", "-w",
                               "%{http_version} %{http_code}", *more, url],
                              capture_output=True, text=True, timeout=60 * SLOW, check=False)
        assert (done.returncode, done.stdout) == (0, "1.1 503" if version == "--http1.1" else "2 503"), (more, done)


# ---- starting ------------------------------------------------------------------------------------

def test_starting_with_its_progress(host, registry):
    """From the order to start until it answers; and nothing is told but how far it is."""
    e = Edge(host)
    with waiting(host, registry, env=[{"key": "TOKEN", "value": "verysecret"}]) as (c, gate):
        name = e.name(c, 8000)
        until_state(e, name, "pulling")
        wait_until(lambda: see(e, name)[1].get("percent", 0) >= 40, 60, "its progress")
        status, said = see(e, name)
        answer = e.get(name, Accept=HTML)
        while see(e, name)[1] != said:  # it moved in between
            status, said = see(e, name)
            answer = e.get(name, Accept=HTML)
        assert status == 503 and set(said) == {"error", "state", "percent", "retryAfterSeconds"}
        assert "its image is on its way, %d %%" % said["percent"] in said["error"] and 40 <= said["percent"] <= 60
        text = html_of(answer)
        assert answer.status == 503 and answer.headers["Retry-After"] == "2" and renews(text) == 2
        assert "<h1>Starting</h1>" in text and '<progress max="100" value="%d">' % said["percent"] in text
        for word in (c, "verysecret", "secret/name", "a-name", registry.host, "busybox"):
            assert word not in text and word not in json.dumps(said), word
        assert see(e, e.name(c, 8001))[1]["state"] == "pulling"
        assert see(e, e.name(c, 9000))[1]["state"] == "unknown"
        gate.open.set()
        until_answers(e, name, known=True)
        assert see(e, e.name(c, 8001)) == (503, {
            "error": "nothing listens on this port of the cluster yet; try again in a moment", "state": "notListening",
            "retryAfterSeconds": 2})
        assert renews(html_of(e.get(e.name(c, 8001), Accept=HTML))) == 2


def test_one_that_cannot_start_is_stopped(host, registry):
    e = Edge(host)
    c = host.deploy(imageName="%s/%s:none" % (registry.host, REPO), ports="8000/http")
    host.wait_exited(c)
    until_state(e, e.name(c, 8000), "stopped")
    assert set(see(e, e.name(c, 8000))[1]) == {"error", "state"}, "not why: that is its owner's to know"


def test_one_that_ends_by_itself(host):
    """It is started again, later and later; meanwhile that is what is said."""
    e = Edge(host)
    c = host.deploy(imageName=host.image, ports="8000/http", dockerArgs="/bin/sh -c 'exit 1'")
    until_state(e, e.name(c, 8000), "restarting")
    status, said = see(e, e.name(c, 8000))
    assert status == 503 and (said["state"] != "restarting" or said["retryAfterSeconds"] == 2)


# ---- its address ---------------------------------------------------------------------------------

def test_the_command_line_says_where(host):
    """From the create on, and once it answers there at the latest; what is told is what works."""
    e = Edge(host)
    out = host.cli("create", "cluster", "--gpuCount", "0", "--imageName", host.image, "--name", "told", "--mem", "1", "--vcpu", "1",
                   "--containerDiskSize", "1", "--volumeSize", "0", "--ports", "8000/http", "--ports", "9000/http",
                   "--readinessPath", "/index.html", "--args", "/bin/sh -c " + shlex.quote("httpd -p 9000; " + SERVES[2]), "--wait").stdout
    (c,) = host.clusters()
    urls = ["https://%s:%d" % (e.name(c["id"], port), e.port) for port in (8000, 9000)]
    told = "port 8000/http at %s\nport 9000/http at %s\n" % tuple(urls)
    assert out.endswith(" / hr\n" + told)
    done = subprocess.run(["curl", "-sS", "--noproxy", "*", "--cacert", str(e.ca), urls[0]], capture_output=True, text=True,
                          timeout=60 * SLOW, check=True)
    assert done.stdout == "it answers"
    assert host.cli("get", "cluster", "told", "-a").stdout.rstrip().endswith("\t" + ",".join(urls))
    assert json.loads(host.cli("get", "cluster", "told", "-o", "json").stdout)["urls"] == urls
    assert host.cli("restart", "cluster", "told", "--wait").stdout == 'cluster "%s" restarted\n%s' % (c["id"], told)
    host.cli("stop", "cluster", "told", "--wait")
    assert json.loads(host.cli("get", "cluster", "told", "-o", "json").stdout)["urls"] == urls
    assert host.cli("start", "cluster", "told", "--wait").stdout.endswith(" / hr\n" + told)
    made = json.loads(host.cli("create", "cluster", "--gpuCount", "0", "--imageName", host.image, "--mem", "1", "--containerDiskSize",
                               "1", "--volumeSize", "0", "--ports", "22/tcp", "--wait", "--args", "nc -ll -p 22 -e cat", "-o", "json").stdout)
    assert made["urls"] == []


# ---- whatever dies -------------------------------------------------------------------------------

def test_pages_outlive_what_makes_them(host, registry):
    """Of a stopped and of a starting cluster: no engine, no API, another HAProxy, another engine."""
    e = Edge(host)
    stopped = host.deploy(imageName=host.image, ports="8000/http")
    until_answers(e, e.name(stopped, 8000))
    host.call("clusterStop", stopped)
    host.wait_exited(stopped)
    with waiting(host, registry) as (starting, gate):
        names = {"stopped": e.name(stopped, 8000), "pulling": e.name(starting, 8000)}
        for want, name in names.items():
            until_state(e, name, want)
        os.kill(host.api_pid(), 9)
        assert {want: state(e, name) for want, name in names.items()} == {want: want for want in names}
        pid = e.pid()
        os.kill(pid, 9)
        wait_until(lambda: another(e, pid), 30, "another HAProxy")
        assert {want: state(e, name) for want, name in names.items()} == {want: want for want in names}
        host.kill()
        assert {want: state(e, name) for want, name in names.items()} == {want: want for want in names}
        wait_until(lambda: e.get(e.api, "/v1/none").status == 503, 30, "the end of the API")
        answer = e.get(e.api, "/v1/none")
        assert answer.headers["Retry-After"] == "2" and answer.headers["Strict-Transport-Security"]
        assert json.loads(answer.text)["errors"][0]["message"].startswith("the API is away")
        host.start()
        assert state(e, names["stopped"]) == "stopped" and state(e, names["pulling"]) in ("pulling", "starting")
        gate.open.set()
        until_answers(e, names["pulling"], known=True)
        assert state(e, names["stopped"]) == "stopped"


def test_a_thousand_names(host):
    """A command for each of them, and each says its own."""
    e = Edge(host)
    c = host.deploy(imageName=host.image, ports="8000/http")
    until_answers(e, e.name(c, 8000))
    for k in range(4):
        lines = "".join("t%dx%d-80.proxy.localhost =pulling=%d\n" % (k, i, i % 100) for i in range(300))
        assert e.runtime("add map %s <<\n%s" % (e.files / "routes", lines)).strip() == ""
    k = e.connect(e.name(c, 8000))
    for i in range(0, 300, 37):
        k.request("GET", "/", headers={"Host": "t%dx%d-80.proxy.localhost" % (i % 4, i)})
        answer = k.getresponse()
        assert answer.status == 503 and json.loads(answer.read())["percent"] == i % 100
    k.close()
    assert e.get(e.name(c, 8000)).text == "it answers"
    host.restart()  # what is in no table goes
    wait_until(lambda: set(e.map()) == {e.name(c, 8000)}, 30, "the routes alone")
