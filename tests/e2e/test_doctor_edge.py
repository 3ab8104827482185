"""What `doctor` says of the edge, beside a host that runs and without one."""
import shlex
import socket
import subprocess

import pytest

import edge
from certs import Authority
from edge import Edge
from host import Host, free_port
from programs import program
from test_edge import CONFIG
from test_program import findings

ROWS = ["HAProxy", "edge address", "edge domains", "edge names", "cert: clusters", "cert: API"]


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def doctor(tmp_path):
    """The rows of the edge for such a configuration; @mounts: {file: what stands there instead}."""
    def ask(mounts=(), **keys):
        conf = tmp_path / "conf"
        conf.write_text("[engine]\ngpu_driver = none\n[edge]\n" + "".join("%s = %s\n" % kv for kv in keys.items()))
        command = "".join("mount --bind %s %s && " % (shlex.quote(str(v)), k) for k, v in dict(mounts).items())
        command += "exec %s doctor --config %s" % (program("hypervisor-vmm"), conf)
        done = subprocess.run(["unshare", "--mount", "--propagation", "private", "sh", "-c", command], capture_output=True, text=True, timeout=120)
        assert done.returncode in (0, 1), done.stderr
        found, _ = findings(done.stdout)
        return {row: found[row] for row in ROWS}
    return ask


def put(path, issued, mode=0o600):
    path.touch(mode=mode)
    path.chmod(mode)
    path.write_text(issued.chain + issued.key)
    return path


def test_without_a_host(doctor):
    at = "127.0.0.1:%d" % free_port()
    rows = doctor(listen=at)
    assert rows["HAProxy"][0] == "ok" and rows["HAProxy"][1].startswith("/usr/sbin/haproxy 2.")
    assert rows["edge address"] == ("ok", at + ", free", None)
    assert rows["edge domains"] == ("ok", "*.proxy.localhost and api.localhost, registered apart", None)
    assert rows["edge names"] == ("ok", "below localhost: browsers and curl take them for this host", None)
    assert rows["cert: clusters"][0] == rows["cert: API"][0] == "ok"


def test_no_edge(doctor):
    assert set(doctor(listen="none").values()) == {("ok", "not wanted ([edge] listen = none)", None)}


def test_no_haproxy(doctor):
    rows = doctor({"/usr/sbin/haproxy": "/dev/null"}, listen="127.0.0.1:%d" % free_port())
    assert rows["HAProxy"] == ("MISSING", "not there (package haproxy)",
                               "the engine does not start: install it, or switch the edge off ([edge] listen = none)")


@pytest.mark.parametrize("says, grade, what", [("HAProxy version 2.4.30-x 2020/01/01 - https://haproxy.org/", "note", "/usr/sbin/haproxy 2.4.30-x"),
                                               ("HAProxy version 3.1.2", "ok", "/usr/sbin/haproxy 3.1.2"),
                                               ("nonsense", "note", "/usr/sbin/haproxy does not say its version")])
def test_other_versions(doctor, tmp_path, says, grade, what):
    other = tmp_path / "haproxy"
    other.write_text("#!/bin/sh\necho '%s'\n" % says)
    other.chmod(0o755)
    assert doctor({"/usr/sbin/haproxy": other}, listen="127.0.0.1:%d" % free_port())["HAProxy"][:2] == (grade, what)


def test_an_address_that_is_taken(doctor):
    with socket.create_server(("127.0.0.1", 0)) as s:
        at = "127.0.0.1:%d" % s.getsockname()[1]
        assert doctor(listen=at)["edge address"] == ("MISSING", at + " is taken by another program (ss -ltnp tells which)",
                                                     "the engine does not start with this configuration")
    assert "Cannot assign requested address" in doctor(listen="192.0.2.1:8443")["edge address"][1]


def test_only_this_host_reaches_it(doctor):
    grade, _, then = doctor(listen="127.0.0.1:%d" % free_port(), tenant_domain="tenants.example", api_domain="api.cloud.test")["edge address"]
    assert grade == "note" and then.startswith("only this host reaches it: ")


def test_names(doctor, tmp_path):
    hosts, dns = tmp_path / "hosts", tmp_path / "resolv.conf"
    dns.write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
    mounts = {"/etc/hosts": hosts, "/etc/resolv.conf": dns}
    keys = {"listen": "127.0.0.1:%d" % free_port(), "tenant_domain": "tenants.example", "api_domain": "api.cloud.test"}
    name = "doctor-8080.proxy.tenants.example"
    hosts.write_text("127.0.0.1 %s api.cloud.test\n" % name)
    assert doctor(mounts, **keys)["edge names"] == ("ok", "lead to this host", None)
    hosts.write_text("127.0.0.1 %s\n192.0.2.7 api.cloud.test\n" % name)
    grade, what, then = doctor(mounts, **keys)["edge names"]
    assert (grade, what) == ("note", "api.cloud.test leads to 192.0.2.7, which is no address of this host") and "passes connections on" in then
    hosts.write_text("127.0.0.1 api.cloud.test\n")
    grade, what, then = doctor(mounts, **keys)["edge names"]
    assert grade == "note" and what.startswith(name + ": ") and then.startswith("add it to the DNS")


def test_given_certificates(doctor, tmp_path, authority):
    def row(issued, mode=0o600):
        return doctor(listen="127.0.0.1:%d" % free_port(), tenant_certificate=put(tmp_path / "t.pem", issued, mode))["cert: clusters"]
    grade, what, _ = row(authority.issue("*.proxy.localhost", days=60))
    assert grade == "ok" and what.startswith("good until 20") and " days), %s" % (tmp_path / "t.pem") in what
    grade, what, then = row(authority.issue("*.proxy.localhost", days=10))
    assert (grade, then) == ("note", "a newer one has to come before that") and ("(9 days)" in what or "(10 days)" in what)
    grade, what, then = row(authority.issue("*.proxy.localhost", days=-3))
    assert (grade, then) == ("note", "clients refuse it: put a good one there") and ": the certificate has ended, on 20" in what
    grade, what, then = row(authority.issue("localhost"))
    assert (grade, then) == ("MISSING", "the engine does not start with this configuration")
    assert what.endswith("t.pem: the certificate is for localhost, not for *.proxy.localhost")
    grade, what, then = row(authority.issue("*.proxy.localhost"), 0o644)
    assert (grade, then) == ("note", "everybody on this host can read its private key: chmod 600")
    assert "No such file" in doctor(listen="127.0.0.1:%d" % free_port(), api_certificate="/nonexistent")["cert: API"][1]


def test_beside_a_host(doctor, tmp_path, authority):
    given = put(tmp_path / "t.pem", authority.issue("*.proxy.localhost"))
    with Host({**CONFIG, "edge": edge.here(tenant_certificate=given)}) as host:
        keys = host.config["edge"]
        rows = doctor(**keys)
        assert rows["edge address"] == ("ok", "%s, served by host %s" % (keys["listen"], host.id), None)
        assert rows["cert: clusters"][0] == "ok"
        assert rows["cert: API"][0] == "ok" and "by the host's own authority, which renews it" in rows["cert: API"][1]
        given.write_text("")
        assert doctor(**keys)["cert: clusters"] == ("note", "[edge] tenant_certificate: %s: no certificate in it" % given,
                                                    "the one before it stays in use: put a good one there")
        assert Edge(host).get(Edge(host).api, "/v1/none").status == 404
