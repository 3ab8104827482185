"""SSH: the keys of an account, and what clusters get of them."""
import json
import os
import stat
import subprocess

import pytest

from host import ApiError, Host
from sshkeys import ECDSA, ECDSA_PRINT, ED25519, ED25519_PRINT

SET = "mutation($i: UpdateUserSettingsInput!) { updateUserSettings(input: $i) { pubKey } }"


@pytest.fixture(scope="module")
def host():
    with Host({"engine": {"cpu_overcommit": 100, "memory_overcommit": 20, "disk_overcommit": 100,
                          "pool_networks": 0, "pool_disks": 0, "grace": "500ms"}}) as h:
        h.import_image("tensorone/starter")
        yield h


@pytest.fixture(autouse=True)
def no_keys(host):
    yield
    set_keys(host, "\n")


def set_keys(host, text, key=None):
    return host.gql(SET, {"i": {"pubKey": text}}, key)["updateUserSettings"]["pubKey"]


def get_keys(host):
    return host.gql("{ myself { pubKey } }")["myself"]["pubKey"] or ""


def listed(host):
    return json.loads(host.cli("ssh", "list-keys", "-o", "json").stdout)


def refused(host, *args):
    done = host.cli("ssh", *args, check=False)
    assert done.returncode == 1 and done.stdout == "", done
    return done.stderr


# ---- keys of the account


def test_add_list_remove(host, tmp_path):
    assert host.cli("ssh", "list-keys").stdout == "No SSH keys found.\n"
    assert listed(host) == []
    out = host.cli("ssh", "add-key", "--key", ED25519 + " ada@laptop").stdout
    assert out == "key %s added; clusters have it from their next start\n" % ED25519_PRINT
    file = tmp_path / "id.pub"
    file.write_text("# at work\r\n%s bob\r\n" % ECDSA)
    host.cli("ssh", "add-key", "--key-file", str(file))
    assert listed(host) == [
        {"name": "ada@laptop", "type": "ssh-ed25519", "bits": 256, "fingerprint": ED25519_PRINT},
        {"name": "bob", "type": "ecdsa-sha2-nistp256", "bits": 256, "fingerprint": ECDSA_PRINT}]
    table = host.cli("ssh", "list-keys").stdout.splitlines()
    assert table[0].split() == ["NAME", "TYPE", "FINGERPRINT"]
    assert table[1].split() == ["ada@laptop", "ssh-ed25519", ED25519_PRINT]
    # under another name it is the same key
    out = host.cli("ssh", "add-key", "--key", ED25519 + " other").stdout
    assert "is there already" in out and len(listed(host)) == 2
    assert host.cli("ssh", "remove-key", "--name", "ada@laptop").returncode == 0
    assert [k["name"] for k in listed(host)] == ["bob"]
    assert "there is no SSH key ada@laptop" in refused(host, "remove-key", "--name", "ada@laptop")
    host.cli("ssh", "remove-key", "--fingerprint", ECDSA_PRINT)
    assert listed(host) == [] and get_keys(host) == ""


def test_own_key_is_made_once(host):
    home = host.dir / ".tensorone" / "ssh"
    first = host.cli("ssh", "add-key").stdout
    private = home / "id_ed25519"
    assert stat.S_IMODE(os.stat(private).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(home).st_mode) == 0o700
    theirs = subprocess.run(["ssh-keygen", "-l", "-f", str(private) + ".pub"], check=True,
                            capture_output=True, text=True).stdout.split()
    assert listed(host)[0]["fingerprint"] == theirs[1] and theirs[1] in first
    assert "is there already" in host.cli("ssh", "add-key").stdout


def test_names_that_are_not_enough(host):
    set_keys(host, "%s ada\n%s ada\n" % (ED25519, ECDSA))
    assert '2 keys are called "ada"; use --fingerprint' in refused(host, "remove-key", "--name", "ada")
    assert "say which key" in refused(host, "remove-key")
    host.cli("ssh", "remove-key", "--name", "ada", "--fingerprint", ED25519_PRINT)
    assert get_keys(host) == "%s ada\n" % ECDSA


@pytest.mark.parametrize("args, says", [
    (["--key", "ssh-rsa AAAA"], "--key: what follows ssh-rsa is no whole key"),
    (["--key", "-----BEGIN OPENSSH PRIVATE KEY-----"], "--key: this is a private key"),
    (["--key", ""], "--key: holds no key"),
    (["--key", ED25519 + "\n" + ECDSA], "--key: holds 2 keys; add them one by one"),
    (["--key", ED25519, "--key-file", "x"], "--key and --key-file: give one of them"),
    (["--key-file", "/nowhere"], "--key-file: /nowhere: No such file or directory"),
])
def test_keys_that_are_none(host, args, says):
    assert says in refused(host, "add-key", *args)
    assert get_keys(host) == ""


def test_api_checks_every_line(host):
    """Whoever does not use our command line: the whole list, by GraphQL and REST."""
    good = ED25519 + " one\n\n" + ECDSA
    assert set_keys(host, good) == good
    for bad, says in ((good + "\nssh-dss AAAA", "pubKey: line 4: DSA keys are not taken"),
                      ("x", "pubKey: line 1: it must begin with the key's type"),
                      ("\n".join([ED25519] * 101), "pubKey: 101 keys, at most 100 are allowed"),
                      ("#" * 65537, "pubKey: 65537 bytes, at most 65536 are allowed")):
        with pytest.raises(ApiError) as e:
            set_keys(host, bad)
        assert says in str(e.value)
    assert get_keys(host) == good
    keys = host.rest("GET", "/v2/account/ssh-keys").json()
    assert keys == {"keys": [ED25519 + " one", ECDSA]}
    r = host.rest("PUT", "/v2/account/ssh-keys", json={"keys": [ECDSA + " mine"]})
    assert r.status_code == 200 and r.json() == {"keys": [ECDSA + " mine"]}
    assert get_keys(host) == ECDSA + " mine"
    for body, status, says in (({"keys": ["x"]}, 400, "pubKey: line 1"), ({}, 400, "keys: must be the list"),
                               ({"keys": [ED25519, 7]}, 400, "keys: number 2 is no text of one line"),
                               ({"keys": [ED25519 + "\n" + ECDSA]}, 400, "keys: number 1 is no text")):
        r = host.rest("PUT", "/v2/account/ssh-keys", json=body)
        assert r.status_code == status and says in r.json()["message"], r.text
    r = host.rest("PUT", "/v2/account/ssh-keys", json={"keys": []})
    assert r.json() == {"keys": []} and get_keys(host) == ""


def test_keys_are_the_accounts_own(host):
    """Another account sees none of them; a key that reads does not write."""
    set_keys(host, ED25519)
    other = host.new_account("other")
    assert host.rest("GET", "/v2/account/ssh-keys", key=other).json() == {"keys": []}
    me = host.gql("{ myself { id } }")["myself"]["id"]
    r = host.rest("POST", "/v1/accounts/%s/keys" % me, json={"name": "r", "rights": "read"}).json()
    assert host.rest("GET", "/v2/account/ssh-keys", key=r["key"]).json() == {"keys": [ED25519]}
    assert host.rest("PUT", "/v2/account/ssh-keys", key=r["key"], json={"keys": []}).status_code == 403
    assert host.rest("GET", "/v2/account/ssh-keys", key="nobody").status_code == 401
    assert get_keys(host) == ED25519


def test_public_key_inside(host):
    """The account's, as it was at the start; a variable of the user's own wins."""
    set_keys(host, ED25519 + " one\n" + ECDSA)
    with host.running("sleep", "1000") as c:
        show = ("sh", "-c", 'printf %s "$PUBLIC_KEY"')
        assert host.exec(c, *show).stdout == ED25519 + " one\n" + ECDSA
    with host.running("sleep", "1000", env=[{"key": "PUBLIC_KEY", "value": "mine"}]) as c:
        assert host.exec(c, *show).stdout == "mine"
