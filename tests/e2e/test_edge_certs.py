"""Certificates that change while the edge serves: nobody is disconnected, and nothing bad gets in."""
import hashlib
import os
import re
import ssl
import stat
import subprocess
import time

import pytest

import edge
from certs import Authority, Live, fingerprint, openssl
from edge import Edge
from host import PAUSE_S, Host, image_layout, program
from test_edge import CONFIG, EDGE_UID, IMAGE, echoes, serve, wait_dead, wait_status, websocket

TENANT, API = "*.proxy.localhost", "api.localhost"


class Certified(Edge):
    """An edge whose clients trust one authority, and look at what they are shown."""

    def __init__(self, host, authority):
        super().__init__(host)
        self.authority = authority

    def context(self):
        return ssl.create_default_context(cafile=str(self.authority.pem))

    def shown(self, name):
        """SHA-256 of what a new connection gets; it has been verified."""
        c = self.connect(name)
        try:
            return hashlib.sha256(c.sock.getpeercert(True)).hexdigest()
        finally:
            c.close()

    def shown_to_anybody(self, name):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        c = self.connect(name, context)
        try:
            return hashlib.sha256(c.sock.getpeercert(True)).hexdigest()
        finally:
            c.close()

    def wait_shown(self, name, want, timeout=60):
        end = time.monotonic() + timeout
        while (got := self.shown_to_anybody(name)) != want:
            assert time.monotonic() < end, (got, want, self.host.log_text()[-2000:])
            time.sleep(PAUSE_S)


def wait_log(host, text, begin=0, timeout=60):
    """How long the log is once @text is in it, behind @begin."""
    end = time.monotonic() + timeout
    while text not in (log := host.log_text())[begin:]:
        assert time.monotonic() < end, log[begin:]
        time.sleep(PAUSE_S)
    return len(log)


def looked(host, live, issued, e, name):
    """Return when the engine has certainly seen what lies there: something behind it was picked up."""
    live.put(issued)
    e.wait_shown(name, issued.fingerprint)


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def live(tmp_path, authority):
    """For tenants' names, through links as certbot makes them."""
    at = Live(tmp_path / "letsencrypt")
    at.put(authority.issue(TENANT))
    return at


@pytest.fixture
def host(live, tmp_path, authority):
    """Tenants' names from such folders, the API's from one file."""
    h = Host({**CONFIG, "edge": edge.here(tenant_certificate=live.dir, api_certificate=tmp_path / "api.pem")})
    h.api_file = tmp_path / "api.pem"
    h.api_issued = authority.issue(API)
    put_api(h, h.api_issued)
    with h:
        yield h


def put_api(host, issued):
    """As a careful operator does."""
    new = host.api_file.with_suffix(".new")
    new.touch(mode=0o600)
    new.write_text(issued.key + issued.chain)
    new.rename(host.api_file)


# ---- good ones -----------------------------------------------------------------------------------

def test_a_new_one_drops_nobody(host, live, authority):
    host.import_image(IMAGE)
    c = host.deploy(imageName=IMAGE, dockerArgs=serve(8000), ports="8000/http")
    e = Certified(host, authority)
    name, pid = e.name(c, 8000), e.pid()
    wait_status(e, name, 200)
    kept, ws, stream = e.connect(name), websocket(e, name), e.connect(name)
    stream.request("GET", "/stream")
    download = stream.getresponse()
    assert download.readline() == b"data: 0\n"
    assert e.ask(kept, "GET").status == 200 and echoes(ws)
    old, issued = e.shown(name), authority.issue(TENANT)
    live.put_by_parts(issued)
    e.wait_shown(name, issued.fingerprint)
    api = authority.issue(API)
    put_api(host, api)
    e.wait_shown(e.api, api.fingerprint)
    assert e.shown(name) == issued.fingerprint != old
    assert e.ask(kept, "GET").status == 200 and echoes(ws)
    for i in (1, 2):
        assert e.get(name, "/taken").status == 200
        assert (download.readline(), download.readline()) == (b"\n", b"data: %d\n" % i)
    assert e.get(e.api, "/v1/none").status == 404
    assert e.pid() == pid
    # and one that is started anew begins with them
    os.kill(pid, 9)
    wait_dead(pid)
    wait_status(e, name, 200)
    assert (e.shown(name), e.shown(e.api)) == (issued.fingerprint, api.fingerprint)
    log = host.log_text()
    assert "a new certificate for *.proxy.localhost, good until " in log and issued.fingerprint in log
    for secret in (issued.key, api.key):
        assert secret.splitlines()[1] not in log
    for path, mode in ((e.files / "tenant.pem", 0o600), (e.files / "api.pem", 0o600)):
        st = os.stat(path)
        assert (stat.S_IMODE(st.st_mode), st.st_uid) == (mode, EDGE_UID)
    for c in (kept, stream, ws):
        c.close()


def test_many_in_a_row(host, live, authority):
    e = Certified(host, authority)
    name, pid = e.name("nobody", 1), e.pid()
    for _ in range(5):
        issued = authority.issue(TENANT, "more.example")
        live.put(issued)
        e.wait_shown(name, issued.fingerprint)
        assert e.shown(name) == issued.fingerprint
    assert e.pid() == pid


def test_as_large_as_it_may_be(host, live, authority):
    """HAProxy takes it in one command; what is larger is refused before, with a sentence."""
    e = Certified(host, authority)
    name, pid, begin = e.name("nobody", 1), e.pid(), len(host.log_text())

    def with_names(n):
        return authority.issue(TENANT, *("%03d.a-rather-long-name-that-takes-its-room.tenants.example.org" % i for i in range(n)))
    n, issued = 200, with_names(200)
    while (size := len(issued.chain) + len(issued.key)) > 14000 or size < 13000:
        n = n * 13500 // size
        issued = with_names(n)
    live.put(issued)
    e.wait_shown(name, issued.fingerprint)
    live.put(with_names(n * 2))
    wait_log(host, "and HAProxy takes 14000; leave out what clients have anyway, such as the root; the one before it stays in use", begin)
    assert e.shown(name) == issued.fingerprint and e.pid() == pid


# ---- bad ones ------------------------------------------------------------------------------------

def other_key(a):
    return a.issue(TENANT).chain, a.issue(TENANT).key


def ended(a):
    i = a.issue(TENANT, days=-3)
    return i.chain, i.key


def elsewhere(a):
    i = a.issue("*.proxy.example.org")
    return i.chain, i.key


def cut_off(a):
    i = a.issue(TENANT)
    return i.chain[:len(i.chain) * 2 // 3], i.key


def locked(a):
    i = a.issue(TENANT)
    (a.dir / "plain.key").write_text(i.key)
    return i.chain, openssl("pkey", "-in", a.dir / "plain.key", "-aes128", "-passout", "pass:secret")


@pytest.mark.parametrize("bad, says", [
    (other_key, ": the private key belongs to another certificate; the one before it stays in use"),
    (ended, ": the certificate has ended, on "),
    (elsewhere, ": the certificate is for *.proxy.example.org, not for *.proxy.localhost; the one before it stays"),
    (cut_off, ": what follows certificate 1 in it is damaged or cut off; the one before it stays in use"),
    (locked, ": its key wants a passphrase, and nobody is there to type it"),
    (lambda a: ("", a.issue(TENANT).key), ": no certificate in it; the one before it stays in use"),
    (lambda a: (a.issue(TENANT).chain, ""), ": no private key in it; the one before it stays in use"),
])
def test_a_bad_one_stays_out(host, live, authority, bad, says):
    e = Certified(host, authority)
    name, pid, begin = e.name("nobody", 1), e.pid(), len(host.log_text())
    old = e.shown(name)
    live.put_both(*bad(authority))
    wait_log(host, "[edge] tenant_certificate: %s" % live.dir, begin)
    said = [line for line in host.log_text()[begin:].splitlines() if "tenant_certificate" in line]
    assert len(said) == 1 and says.removeprefix(": ") in said[0], said
    assert e.shown(name) == old
    # the way out is the next good one; what was bad is said no more
    looked(host, live, authority.issue(TENANT), e, name)
    assert e.pid() == pid
    assert len([line for line in host.log_text()[begin:].splitlines() if "tenant_certificate" in line]) == 1


def test_files_that_go(host, live, authority):
    e = Certified(host, authority)
    name, begin = e.name("nobody", 1), len(host.log_text())
    old = e.shown(name)
    (live.dir / "privkey.pem").unlink()
    begin = wait_log(host, "%s/privkey.pem: No such file or directory; the one before it stays in use" % live.dir, begin)
    live.dir.rename(live.dir.with_name("moved"))
    begin = wait_log(host, "tenant_certificate: %s: No such file or directory; the one before it" % live.dir, begin)
    os.mkfifo(live.dir)  # nobody waits for a writer
    wait_log(host, "tenant_certificate: %s is no regular file; the one before it" % live.dir, begin)
    assert e.shown(name) == old and e.get(e.api, "/v1/none").status == 404
    live.dir.unlink()
    looked(host, live, authority.issue(TENANT), e, name)


def test_half_written(host, authority):
    """In place, as some clients do: what is there in between is not taken, the whole is."""
    e = Certified(host, authority)
    begin = len(host.log_text())
    old, issued = e.shown(e.api), authority.issue(API)
    text = issued.key + issued.chain
    with open(host.api_file, "r+", encoding="ascii") as f:
        f.truncate()
        f.write(text[:len(issued.key) + 300])
        f.flush()
        wait_log(host, "damaged or cut off; the one before it stays in use", begin)
        assert e.shown(e.api) == old
        f.write(text[len(issued.key) + 300:])
        f.flush()
        e.wait_shown(e.api, issued.fingerprint)
    assert e.shown(e.api) == issued.fingerprint


def test_what_haproxy_refuses(host, live, authority):
    """What we take and it does not: a key that is too short by its rules.  It says so once, and keeps what it has."""
    e = Certified(host, authority)
    name, pid, begin = e.name("nobody", 1), e.pid(), len(host.log_text())
    old = e.shown(name)
    key, pem = authority.dir / "weak.key", authority.dir / "weak.pem"
    openssl("req", "-x509", "-newkey", "rsa:1024", "-nodes", "-days", 30, "-subj", "/CN=weak", "-addext", "subjectAltName=DNS:" + TENANT,
            "-keyout", key, "-out", pem)
    live.put_both(pem.read_text(), key.read_text())
    wait_log(host, "[edge] tenant_certificate: HAProxy does not take it, the one before it stays in use: ", begin)
    assert e.shown(name) == old
    looked(host, live, authority.issue(TENANT), e, name)
    os.kill(pid, 9)
    wait_dead(pid)
    end = time.monotonic() + 60
    while True:
        try:
            assert e.shown(name) != old
            break
        except OSError:
            assert time.monotonic() < end
            time.sleep(PAUSE_S)


# ---- engines that end ----------------------------------------------------------------------------

def test_a_change_while_no_engine_is_there(host, live, authority):
    e = Certified(host, authority)
    name, pid = e.name("nobody", 1), e.pid()
    host.kill()
    issued = authority.issue(TENANT)
    live.put(issued)
    host.start()
    e.wait_shown(name, issued.fingerprint)
    assert e.pid() == pid


def test_an_engine_that_was_killed_in_the_middle(host, live, authority):
    """A change that it had begun, and one that HAProxy has taken and that is written down nowhere."""
    e = Certified(host, authority)
    name, pid = e.name("nobody", 1), e.pid()
    host.kill()
    begun, taken, issued = authority.issue(API), authority.issue(TENANT), authority.issue(TENANT)
    tenant, api = e.files / "tenant.pem", e.files / "api.pem"
    assert "Transaction created" in e.runtime("set ssl cert %s <<\n%s\n" % (tenant, taken.chain + taken.key))
    assert "Success!" in e.runtime("commit ssl cert %s" % tenant)
    assert e.shown(name) == taken.fingerprint
    assert "Transaction created" in e.runtime("set ssl cert %s <<\n%s\n" % (api, begun.chain + begun.key))
    old = fingerprint((live.dir / "fullchain.pem").read_text())
    host.start()
    e.wait_shown(name, old)
    assert e.shown(e.api) == host.api_issued.fingerprint
    looked(host, live, issued, e, name)
    assert e.pid() == pid


def test_a_bad_one_does_not_keep_an_engine_from_starting(host, live, authority):
    """Where its clusters run, that would be worse than what it is about."""
    e = Certified(host, authority)
    name, pid = e.name("nobody", 1), e.pid()
    old = e.shown(name)
    host.kill()
    live.put_both("", authority.issue(TENANT).key)
    begin = len(host.log_text())
    host.start()
    wait_log(host, "no certificate in it; the one before it stays in use", begin)
    assert e.shown(name) == old and e.pid() == pid
    host.kill()
    os.kill(pid, 9)
    wait_dead(pid)
    host.start()
    assert e.shown(name) == old
    looked(host, live, authority.issue(TENANT), e, name)


def test_other_folders_need_no_other_process(host, tmp_path, authority):
    e = Certified(host, authority)
    name, pid = e.name("nobody", 1), e.pid()
    other = Live(tmp_path / "other")
    issued = authority.issue(TENANT)
    other.put(issued)
    host.kill()
    host.config["edge"]["tenant_certificate"] = other.dir
    host.start()
    e.wait_shown(name, issued.fingerprint)
    assert e.pid() == pid
    # what was never good is refused: there is nothing of these names to go on with
    host.kill()
    host.config["edge"]["tenant_certificate"] = "/etc/hostname"
    with pytest.raises(RuntimeError, match="/etc/hostname: no certificate in it"):
        host.start()
    host.proc.wait(60)
    host.proc = None
    host.config["edge"]["tenant_certificate"] = other.dir
    host.start()
    assert e.shown(name) == issued.fingerprint


# ---- our own -------------------------------------------------------------------------------------

@pytest.mark.parametrize("file, name", [("tenant.pem", "nobody-1.proxy.localhost"), ("api.pem", API)])
def test_our_own_are_renewed_in_time(tmp_path, file, name):
    """One that lies there and ends in ten days: it is shown to nobody for long, and the authority stays."""
    with Host({**CONFIG, "edge": edge.here()}) as host:
        ours = host.data / "edge"
        e = Certified(host, Authority(tmp_path, pem=ours / "ca.pem", key=ours / "ca.key"))
        ca, old, pid = e.ca.read_bytes(), e.shown(name), e.pid()
        host.restart()
        assert "the authority of its certificates: %s, SHA-256 %s" % (e.ca, fingerprint(ca.decode())) in host.log_text()
        soon = e.authority.issue(TENANT if "proxy" in name else API, days=10)
        new = ours / "new"
        new.touch(mode=0o600)
        new.write_text(soon.chain + soon.key)
        new.rename(ours / file)
        end = time.monotonic() + 60
        while (now := e.shown(name)) in (old, soon.fingerprint):
            assert time.monotonic() < end
            time.sleep(PAUSE_S)
        made = ssl.create_default_context(cafile=str(e.ca))
        with pytest.raises(ssl.SSLCertVerificationError):
            e.connect("example.org", made)
        c = e.connect(name, made)
        left = ssl.cert_time_to_seconds(c.sock.getpeercert()["notAfter"]) - time.time()
        c.close()
        assert 390 * 86400 < left < 398 * 86400
        assert fingerprint((ours / file).read_text()) == now and stat.S_IMODE(os.stat(ours / file).st_mode) == 0o600
        assert e.ca.read_bytes() == ca and e.pid() == pid
        (ours / file).unlink()  # nor does it matter that somebody takes it away
        while (again := e.shown(name)) == now:
            assert time.monotonic() < end + 60
            time.sleep(PAUSE_S)
        assert again != now and e.pid() == pid


def test_the_command_line_goes_through_it(tmp_path):
    """From nothing but the SHA-256 in the log: an upload, a cluster, a session, its log."""
    with Host({**CONFIG, "edge": edge.here()}) as host:
        sha = re.search(r"made an authority for its certificates: .*/edge/ca\.pem, SHA-256 ([0-9a-f]{64})", host.log_text()).group(1)
        env = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}

        def cli(*words, stdin=""):
            done = subprocess.run([program("tensoronecli"), *words], env=env, input=stdin, capture_output=True, text=True, timeout=300, check=False)
            assert (done.returncode, done.stderr) == (0, ""), (words, done)
            return done.stdout
        cli("config", "--apiUrl", "https://api.localhost:%d" % Edge(host).port, "--apiKey", "-", "--fingerprint", sha, stdin=host.key)
        cli("image", "import", "--public", "tensorone/starter", str(image_layout("starter")))
        cli("ssh", "add-key")
        cli("create", "cluster", "--name", "x", "--startSSH", "--gpuCount", "0", "--mem", "1", "--imageName", "tensorone/starter", "--args",
            "sh -c 'echo hello; sleep 1000'", "--containerDiskSize", "1", "--volumeSize", "0", "--wait")
        assert cli("exec", "-i", "x", "--", "cat", stdin="y" * 200000) == "y" * 200000
        assert "hello\n" in cli("logs", "x")
        assert cli("ssh", "x", "--", "echo", "here") == "here\n"  # ssh starts it once more


def test_the_authority_comes_with_the_apis(tmp_path):
    """So that a client can look at it, and be told to trust it."""
    with Host({**CONFIG, "edge": edge.here()}) as host:
        e = Edge(host)
        said = openssl("s_client", "-connect", "127.0.0.1:%d" % e.port, "-servername", e.api, "-showcerts")
        assert e.ca.read_text().strip() in said
