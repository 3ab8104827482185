"""tensoronecli and HTTPS: whom it believes, what it says when it does not, and `config` that learns a private authority."""
import functools
import json
import os
import stat

import pytest

import test_cli
from certs import Authority, fingerprint
from fake_api import KEY, FakeApi
from host import free_port
from terminal import Terminal
from test_cli import CLI
from tlsfront import TlsFront

NAME = "api.localhost"
# a machine that stands still for a while is no failure
good, bad = functools.partial(test_cli.good, timeout=90), functools.partial(test_cli.bad, timeout=90)


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("other"), "another authority")


@pytest.fixture
def api():
    with FakeApi() as a:
        yield a


@pytest.fixture
def front(api, tmp_path, authority):
    with TlsFront(int(api.url.rsplit(":", 1)[1]), tmp_path) as f:
        f.use(authority.issue(NAME))
        yield f


@pytest.fixture
def env(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    return {"HOME": str(home), "PATH": os.environ["PATH"], "TERM": "xterm"}


@pytest.fixture
def there(env, front):
    """The same, and where the API is."""
    return {**env, "TENSORONE_API_URL": front.url, "TENSORONE_API_KEY": KEY}


def print_of(authority):
    return fingerprint(authority.pem.read_text())


def saved(env):
    path = os.path.join(env["HOME"], ".tensorone")
    return sorted(os.listdir(path)) if os.path.exists(path) else []


# ---- every command -------------------------------------------------------------------------------

def test_an_authority_that_nobody_knows(there, front, api):
    said = bad(there, "get", "clusters")
    assert said == ("this computer does not know who vouches for %s; to trust a private authority run: tensoronecli config --apiUrl %s, "
                    "or name its certificate: --ca FILE" % (front.url, front.url))
    assert bad(there, "exec", "trainer", "--", "true") == said
    assert api.requests == [] and front.begun == 0  # nothing was said to it, the key least of all


def test_an_authority_that_is_named(there, authority, other, tmp_path):
    assert "trainer" in good(there, "get", "clusters", "--ca", str(authority.pem))
    assert "trainer" in good(there, "--ca", str(authority.pem), "get", "clusters")
    assert "trainer" in good({**there, "TENSORONE_CA": str(authority.pem)}, "get", "clusters")
    both = tmp_path / "both.pem"
    both.write_text(other.pem.read_text() + authority.pem.read_text())
    assert "trainer" in good(there, "get", "clusters", "--ca", str(both))
    assert "is not in %s (from TENSORONE_CA); if its operator says that this has changed, run: " % other.pem in \
        bad(there, "get", "clusters", "--ca", str(other.pem))
    assert bad(there, "get", "clusters", "--ca", "/nonexistent") == "--ca: /nonexistent: No such file or directory"
    assert bad(there, "get", "clusters", "--ca", "/etc/hostname") == \
        "/etc/hostname (from TENSORONE_CA): not a PEM file with certificates in it"


def test_a_session_goes_the_same_way(there, authority):
    r = test_cli.run({**there, "TENSORONE_CA": str(authority.pem)}, "exec", "-i", "trainer", "--", "cat", stdin=b"x" * 300000, timeout=90)
    assert (r.rc, r.out, r.err) == (0, "x" * 300000, "")


@pytest.mark.parametrize("names, days, says", [
    (["other.localhost"], 90, " shows a certificate for another name; ask its operator which name the API has"),
    ([NAME], -3, " has ended; its operator has to renew it, or the clock of this computer is wrong"),
])
def test_what_no_authority_makes_good(env, there, front, authority, api, names, days, says):
    front.use(authority.issue(*names, days=days))
    assert says in bad(there, "get", "clusters", "--ca", str(authority.pem))
    assert says in bad(env, "config", "--apiUrl", front.url, "--ca", str(authority.pem))
    r = test_cli.run(env, "config", "--apiUrl", front.url, "--fingerprint", print_of(authority), timeout=90)
    assert r.rc == 1 and "does not vouch for it: " in r.err
    assert api.requests == [] and saved(env) == []


def test_no_tls_there(env, api):
    url = api.url.replace("http:", "https:")
    says = url + " does not speak TLS as it has to be; an API without it has an address with http://"
    assert bad({**env, "TENSORONE_API_URL": url}, "get", "clusters") == says
    assert bad(env, "config", "--apiUrl", url) == says and saved(env) == []


# ---- config --------------------------------------------------------------------------------------

@pytest.mark.parametrize("form", [str, str.upper, lambda p: ":".join(p[i:i + 2] for i in range(0, 64, 2))])
def test_config_by_fingerprint(env, front, authority, form):
    good(env, "config", "--apiUrl", front.url + "/graphql", "--apiKey", "-", "--fingerprint", form(print_of(authority)), stdin=KEY.encode() + b"\n")
    name, conf = saved(env)
    path = os.path.join(env["HOME"], ".tensorone", name)
    assert conf == "config.toml" and name.startswith("ca-") and stat.S_IMODE(os.stat(path).st_mode) == 0o600
    with open(path, encoding="ascii") as f:
        assert fingerprint(f.read()) == print_of(authority)
    assert "trainer" in good(env, "get", "clusters")
    assert r"caFile: %s (from the configuration file)" % path in good(env, "config")
    assert json.loads(good(env, "config", "-o", "json"))["caFile"] == path
    # once more changes nothing, and asks for nothing
    good(env, "config", "--apiUrl", front.url)
    assert saved(env) == [name, conf] and "trainer" in good(env, "get", "clusters")


def test_config_by_another_fingerprint(env, front, authority, other, api):
    said = bad(env, "config", "--apiUrl", front.url, "--apiKey", KEY, "--fingerprint", print_of(other))
    assert said.startswith("whoever vouches for %s is another: SHA-256 %s, not %s; " % (front.url, print_of(authority), print_of(other)))
    assert saved(env) == [] and api.requests == []


def test_config_by_what_is_none(env, front):
    for text in ("", "ab", "x" * 64, "a" * 63, "a" * 65, "a:" * 32 + "a", "aa:" * 31 + "aag"):
        assert "is not the SHA-256 of a certificate: 64 hexadecimal digits" in bad(env, "config", "--apiUrl", front.url, "--fingerprint", text)
    assert "one of the two" in bad(env, "config", "--apiUrl", front.url, "--fingerprint", "aa", "--ca", "x")
    assert "only an address with https:// has an authority" in bad(env, "config", "--apiUrl", "http://127.0.0.1:1", "--fingerprint", "aa")
    assert "the API's address is not set" in bad(env, "config", "--fingerprint", "aa")
    assert saved(env) == []


def test_config_without_anybody_to_ask(env, front, authority):
    assert bad(env, "config", "--apiUrl", front.url) == \
        ("this computer does not know who vouches for %s: an operator's authority, SHA-256 %s; compare that with what its operator says, and "
         "run this again with --fingerprint and what the operator says" % (front.url, print_of(authority)))
    assert saved(env) == []


@pytest.mark.parametrize("answer, trusted", [(b"yes\n", True), (b"no\n", False), (b"y\n", False), (b"\n", False)])
def test_config_asks(env, front, authority, answer, trusted):
    t = Terminal([CLI, "config", "--apiUrl", front.url, "--apiKey", KEY], env)
    t.read_until(("SHA-256 %s\r\n.*yes or no" % print_of(authority)).encode(), timeout=60)
    t.write(answer)
    assert t.wait(60) == (0 if trusted else 1)
    if trusted:
        assert "trainer" in good(env, "get", "clusters")
    else:
        assert b"not trusted, and nothing was saved" in t.out and saved(env) == []


def test_config_by_file(env, front, authority, other):
    assert bad(env, "config", "--apiUrl", front.url, "--ca", "/nonexistent") == "--ca: /nonexistent: No such file or directory"
    assert "not a PEM file" in bad(env, "config", "--apiUrl", front.url, "--ca", "/etc/hostname")
    assert "who vouches for %s is not in %s" % (front.url, other.pem) in bad(env, "config", "--apiUrl", front.url, "--ca", str(other.pem))
    assert saved(env) == []
    good(env, "config", "--apiUrl", front.url, "--apiKey", KEY, "--ca", str(authority.pem))
    assert "trainer" in good(env, "get", "clusters") and len(saved(env)) == 2


def test_another_authority_later(env, front, authority, other):
    good(env, "config", "--apiUrl", front.url, "--apiKey", KEY, "--fingerprint", print_of(authority))
    before = saved(env)
    front.use(other.issue(NAME))
    assert "is not in %s/.tensorone/%s (from the configuration file); if its operator says" % (env["HOME"], before[0]) in bad(env, "get", "clusters")
    assert "SHA-256 " + print_of(other) in bad(env, "config", "--apiUrl", front.url)
    assert saved(env) == before
    good(env, "config", "--fingerprint", print_of(other))  # of the address that is known
    assert "trainer" in good(env, "get", "clusters")
    assert len(saved(env)) == 2 and saved(env) != before
    # an API without TLS needs none
    good(env, "config", "--apiUrl", "http://127.0.0.1:1")
    assert saved(env) == ["config.toml"] and "caFile" not in good(env, "config")


def test_an_authority_that_does_not_show_itself(env, front, authority):
    front.use(authority.issue(NAME), chain=False)
    assert bad(env, "config", "--apiUrl", front.url).endswith(
        "and it does not show that itself; ask its operator for the authority's certificate, and name it: --ca FILE")
    good(env, "config", "--apiUrl", front.url, "--apiKey", KEY, "--ca", str(authority.pem))
    assert "trainer" in good(env, "get", "clusters")


def test_config_while_nobody_is_there(env, authority):
    url = "https://%s:%d" % (NAME, free_port())
    r = test_cli.run(env, "config", "--apiUrl", url, "--apiKey", KEY, timeout=90)
    assert r.rc == 0 and "its certificate is not checked now: %s cannot be reached" % url in r.err
    r = test_cli.run(env, "config", "--apiUrl", url, "--ca", str(authority.pem), timeout=90)
    assert r.rc == 0 and "is not checked now" in r.err and len(saved(env)) == 2
    before = saved(env)
    assert "%s cannot be reached" % url in bad(env, "config", "--fingerprint", print_of(authority))
    assert saved(env) == before


def test_what_is_trusted_counts_for_its_address_alone(env, front, authority, other, api, tmp_path):
    good(env, "config", "--apiUrl", front.url, "--apiKey", KEY, "--fingerprint", print_of(authority))
    with TlsFront(front.to, tmp_path) as second:
        second.use(authority.issue(NAME))
        elsewhere = {**env, "TENSORONE_API_URL": second.url}
        assert "this computer does not know who vouches for " + second.url in bad(elsewhere, "get", "clusters")
        assert "caFile" not in good(elsewhere, "config")
    assert "trainer" in good({**env, "TENSORONE_API_URL": front.url + "/graphql"}, "get", "clusters")
    assert "caFile" in good(env, "config")
