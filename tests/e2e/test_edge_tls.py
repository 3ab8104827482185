"""TLS of the edge as sslscan judges it, which has an implementation of its own for what is too old for our libraries."""
import re
import subprocess
import time
import xml.etree.ElementTree as ElementTree

import pytest

import edge
from edge import Edge
from host import SLOW, Host

CONFIG = {"engine": {"pool_networks": 0, "pool_disks": 0, "grace": "1s", "cpu_overcommit": 100,
                     "memory_overcommit": 20, "disk_overcommit": 100}}
# forward secrecy, and authenticated encryption: no RSA key exchange, no CBC, no SHA-1 in a record's code
STRONG = re.compile(r"TLS_(AES_128_GCM_SHA256|AES_256_GCM_SHA384|CHACHA20_POLY1305_SHA256)"
                    r"|ECDHE-(ECDSA|RSA)-(AES(128-GCM-SHA256|256-GCM-SHA384)|CHACHA20-POLY1305)")
HSTS = "Strict-Transport-Security"


@pytest.fixture(scope="module")
def host():
    with Host({**CONFIG, "edge": edge.here()}) as h:
        yield h


def scan(e, name):
    done = subprocess.run(["sslscan", "--no-colour", "--show-certificate", "--xml=-", "--sni-name=" + name,
                           "127.0.0.1:%d" % e.port], capture_output=True, text=True, timeout=100 * SLOW, check=True)
    return ElementTree.fromstring(done.stdout).find("ssltest")


def names(host):
    e = Edge(host)
    return e, (e.api, e.name("0123456789abcd", 8888), "somebody.else")


@pytest.mark.parametrize("which", range(3), ids=("api", "tenant", "unknown"))
def test_only_what_is_strong(host, which):
    e, all_names = names(host)
    found = scan(e, all_names[which])
    on = {(p.get("type"), p.get("version")) for p in found.iter("protocol") if p.get("enabled") == "1"}
    off = {(p.get("type"), p.get("version")) for p in found.iter("protocol") if p.get("enabled") == "0"}
    assert on == {("tls", "1.2"), ("tls", "1.3")}
    assert off == {("ssl", "2"), ("ssl", "3"), ("tls", "1.0"), ("tls", "1.1")}

    ciphers = {(c.get("sslversion"), c.get("cipher")) for c in found.iter("cipher")}
    assert {v for v, _ in ciphers} == {"TLSv1.2", "TLSv1.3"}
    assert [c for c in ciphers if not STRONG.fullmatch(c[1])] == []
    assert all(int(c.get("bits")) >= 128 and c.get("strength") in ("strong", "acceptable") for c in found.iter("cipher"))
    groups = {g.get("name") for g in found.iter("group")}
    assert groups and groups <= {"x25519", "secp256r1 (NIST P-256)", "secp384r1 (NIST P-384)"}

    compression = found.find("compression")  # not told by one that is built without it
    assert compression is None or compression.get("supported") == "0"
    assert all(h.get("vulnerable") == "0" for h in found.iter("heartbleed"))
    renegotiation = found.find("renegotiation")
    assert renegotiation.get("supported") == "0" or renegotiation.get("secure") == "1"


@pytest.mark.parametrize("which", range(2), ids=("api", "tenant"))
def test_certificate(host, which):
    e, all_names = names(host)
    cert = scan(e, all_names[which]).find("certificates/certificate[@type='short']")
    assert cert.find("signature-algorithm").text == "ecdsa-with-SHA256"
    assert (cert.find("pk").get("type"), cert.find("pk").get("curve_name")) == ("EC", "prime256v1")
    assert cert.find("expired").text == "false"
    wanted = e.api if which == 0 else "*.proxy." + e.domain
    assert "DNS:" + wanted in cert.find("altnames").text


def test_the_api_is_strict_about_tls(host):
    """Also when the answer is the edge's own.  Names of clusters are the tenants', who may say so themselves."""
    e, (api, tenant, _) = names(host)
    assert e.get(api, "/health").headers[HSTS] == "max-age=31536000"
    assert e.get(api, "/v1/none").headers[HSTS] == "max-age=31536000"
    assert e.get(tenant).headers[HSTS] is None
    host.kill()  # HAProxy goes on
    try:
        end, status = time.monotonic() + 60, 0
        while status != 503:  # the API dies with the engine, perhaps in the middle of an answer
            assert time.monotonic() < end, status
            answer = e.get(api, "/health")
            assert answer.headers[HSTS] == "max-age=31536000", answer.status
            status = answer.status
    finally:
        host.start()
