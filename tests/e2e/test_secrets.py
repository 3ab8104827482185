"""Secrets of an account: kept sealed, named by placeholders in variables, put in their place when a
cluster is started and nowhere else."""
import contextlib
import json
import os
import pathlib
import re
import signal
import sqlite3
import subprocess
import time

import pytest
import requests

from host import RUN, ApiError, Host, program
from terminal import Terminal

CREATE = ("mutation($i: SecretCreateInput!) { secretCreate(input: $i)"
          " { id name description createdAt } }")
DELETE = "mutation($id: String!) { secretDelete(id: $id) }"
LIST = "{ myself { secrets { id, name, description } } }"
VALUE = "v4lue-0f-a-s3cret-of-ada"
PLAIN = "pl4in-text-that-is-no-secret"
T = "{{ TENSORONE_SECRET_%s }}"


@pytest.fixture(scope="module")
def host():
    with Host({"engine": {"cpu_overcommit": 100, "memory_overcommit": 20, "disk_overcommit": 100,
                          "pool_networks": 0, "pool_disks": 0, "grace": "500ms",
                          "log_level": "debug"}}) as h:
        h.import_image("tensorone/starter")
        yield h


@pytest.fixture(scope="module")
def keys(host):
    return {name: host.new_account(name) for name in ("a", "b")}


@pytest.fixture(autouse=True)
def clean(host, keys):
    yield
    for key in [host.key, *keys.values()]:
        for c in host.clusters(key):
            host.call("clusterTerminate", c["id"], key)
        for s in secrets(host, key):
            host.gql(DELETE, {"id": s["id"]}, key)
    host.wait_held(set())


def secrets(host, key):
    return host.gql(LIST, key=key)["myself"]["secrets"]


def create(host, key, name="hf", value=VALUE, **more):
    return host.gql(CREATE, {"i": dict(name=name, value=value, **more)}, key)["secretCreate"]["id"]


def refused(host, query, variables, key=None):
    with pytest.raises(ApiError) as e:
        host.gql(query, variables, key)
    return str(e.value)


def until(check, timeout=60, what="it"):
    end = time.monotonic() + timeout
    while True:
        with contextlib.suppress(requests.RequestException):
            got = check()
            if got:
                return got
        assert time.monotonic() < end, "never came: %s" % what
        time.sleep(0.02)


def env(**values):
    return [{"key": k, "value": v} for k, v in values.items()]


def deploy(host, key, command="sleep 1000", **values):
    """With these variables; runs."""
    c = host.deploy(key=key, dockerArgs=command, env=env(**values))
    running(host, c, key)
    return c


def running(host, cluster, key):
    def check():
        c = host.cluster(cluster, key)
        assert c["desiredStatus"] != "EXITED", c["reason"]
        return c["runtime"]
    until(check, what="running")


def new_first(host, cluster, key, old):
    """Host pid of its first process, when that is another than @old."""
    with contextlib.suppress(RuntimeError, KeyError):
        pid = host.first_pid(cluster)
        return pid if pid != old and host.cluster(cluster, key)["runtime"] else None


def environ(host, cluster):
    """What the first process was started with."""
    data = pathlib.Path("/proc/%d/environ" % host.first_pid(cluster)).read_bytes()
    return dict(e.decode().split("=", 1) for e in data.split(b"\0") if e)


def inside(host, cluster, key, *command):
    s = host.session(cluster, *command, key=key).finish()
    assert s.exit == {"code": 0, "signal": 0}, s
    return s.out.decode()


# ---- keeping -----------------------------------------------------------------------------------

def test_created_listed_deleted(host, keys):
    made = host.gql(CREATE, {"i": dict(name="hf", value=VALUE, description="for models")},
                    keys["a"])["secretCreate"]
    assert made["name"] == "hf" and made["description"] == "for models" and made["createdAt"]
    assert secrets(host, keys["a"]) == [{"id": made["id"], "name": "hf", "description": "for models"}]
    assert secrets(host, keys["b"]) == []
    assert "exists already" in refused(host, CREATE, {"i": dict(name="hf", value="x")}, keys["a"])
    other = create(host, keys["b"])  # nobody hears that a name is taken elsewhere
    theirs = refused(host, DELETE, {"id": made["id"]}, keys["b"])
    nobodys = refused(host, DELETE, {"id": "nobodys"}, keys["b"])
    assert theirs == nobodys.replace("nobodys", made["id"]) and "not found" in theirs
    assert host.gql(DELETE, {"id": made["id"]}, keys["a"]) == {"secretDelete": None}
    assert secrets(host, keys["a"]) == [] and [s["id"] for s in secrets(host, keys["b"])] == [other]


def test_rest_answers_what_graphql_does(host, keys):
    key, path = keys["a"], "/v2/secrets"
    assert host.rest("GET", path, key).json() == {"secrets": []}
    r = host.rest("POST", path, key, json=dict(name="hf", value=VALUE, description="for models"))
    assert r.status_code == 201 and VALUE not in r.text
    made = r.json()
    named = "{ myself { secrets { id name description createdAt } } }"
    assert host.gql(named, key=key)["myself"]["secrets"] == [made]
    create(host, key, "two")
    listed = host.rest("GET", path, key)
    assert listed.json()["secrets"] == host.gql(named, key=key)["myself"]["secrets"]
    assert VALUE not in listed.text and len(listed.json()["secrets"]) == 2
    assert host.rest("GET", path + "/" + made["id"], key).json() == made
    # it is a secret like the others
    c = deploy(host, key, TOKEN=T % "hf")
    assert environ(host, c)["TOKEN"] == VALUE
    # another account: as if it did not exist, for each method
    other = keys["b"]
    assert host.rest("GET", path, other).json() == {"secrets": []}
    for method in "GET", "DELETE":
        theirs, none = (host.rest(method, path + "/" + i, other) for i in (made["id"], "nobodys"))
        assert (theirs.status_code, theirs.text) == (404, none.text.replace("nobodys", made["id"]))
    # what is removed by either is gone for both
    gone = host.rest("DELETE", path + "/" + made["id"], key)
    assert (gone.status_code, gone.text) == (204, "")
    assert host.rest("DELETE", path + "/" + made["id"], key).status_code == 404
    assert [s["name"] for s in secrets(host, key)] == ["two"]
    host.gql(DELETE, {"id": secrets(host, key)[0]["id"]}, key)
    assert host.rest("GET", path, key).json() == {"secrets": []}


def test_rest_of_a_cluster(host, keys):
    """Below a cluster's path are its account's secrets; nobody else's cluster is there."""
    key = keys["a"]
    c = host.deploy(key=key)
    path = "/v2/clusters/%s/secrets" % c
    made = host.rest("POST", path, key, json=dict(name="hf", value=VALUE))
    assert made.status_code == 201 and made.json()["name"] == "hf" and made.json()["createdAt"]
    assert host.rest("GET", path, key).json() == {"secrets": [made.json()]}
    assert host.rest("GET", path, key).json() == host.rest("GET", "/v2/secrets", key).json()
    for method, more in ("GET", {}), ("POST", {"json": dict(name="x", value="v")}):
        theirs = host.rest(method, path, keys["b"], **more)
        none = host.rest(method, path.replace(c, "nobodys"), keys["b"], **more)
        assert (theirs.status_code, theirs.text) == (none.status_code, none.text)
        assert theirs.status_code == 404
    assert secrets(host, keys["b"]) == []
    row = host.gql('{ events(input: {kind: "audit.change"}) { operation object outcome } }',
                   key=key)["events"][0]
    assert row == {"operation": "POST /v2/clusters/{}/secrets", "object": made.json()["id"],
                   "outcome": "done"}


@pytest.mark.parametrize("body,words", [
    ("{", "column"),
    ('{"name": "n", "value": "the-value', "column"),
    ("[]", "the body is not an object"),
    ('{"value": "the-value"}', "name: is missing"),
    ('{"name": "a b", "value": "the-value"}', "1 to 64 letters"),
    ('{"name": "n", "value": 17}', "value: is no text"),
    ('{"name": "n", "value": "the-value", "description": []}', "description: is no text"),
    ('{"name": "n"}', "value: is missing"),
    ('{"name": "n", "value": "bell\\u0007"}', "control character"),
    ('{"name": "n", "value": "the-value\\u0000"}', "JSON_ALLOW_NUL"),
])
def test_rest_refuses(host, keys, body, words):
    got = host.rest("POST", "/v2/secrets", keys["a"], data=body)
    assert got.status_code == 400 and words in got.json()["message"], got.text
    assert "the-value" not in got.text and "bell" not in got.text
    assert secrets(host, keys["a"]) == []


@pytest.mark.parametrize("field,value,words", [
    ("name", "", "name: is missing"),
    ("name", "n" * 65, "1 to 64 letters"),
    ("name", "a b", "1 to 64 letters"),
    ("name", "a}}", "1 to 64 letters"),
    ("value", "", "value: is missing"),
    ("value", "v" * 32769, "value: 32769 bytes, at most 32768"),
    ("value", "bell\x07", "control character"),
    ("description", "d" * 256, "description: 256 bytes, at most 255"),
])
def test_what_is_refused(host, keys, field, value, words):
    given = dict(name="n", value="the-value")
    given[field] = value
    said = refused(host, CREATE, {"i": given}, keys["a"])
    assert words in said and "the-value" not in said and "bell" not in said
    assert secrets(host, keys["a"]) == []


def test_limit_and_rights(host, keys):
    for i in range(100):
        create(host, keys["a"], "n%d" % i, "v" * 10)
    full = refused(host, CREATE, {"i": dict(name="n", value="v")}, keys["a"])
    more = host.rest("POST", "/v2/secrets", keys["a"], json=dict(name="n", value="v"))
    assert "at most 100" in full and more.status_code >= 400 and more.json()["message"] in full
    twice = host.rest("POST", "/v2/secrets", keys["a"], json=dict(name="n1", value="v"))
    assert twice.status_code == 409 and "exists already" in twice.text
    account = host.gql("{ myself { id } }", key=keys["a"])["myself"]["id"]
    reader = host.rest("POST", "/v1/accounts/%s/keys" % account, json={"rights": "read"}).json()["key"]
    assert len(secrets(host, reader)) == 100
    assert "forbidden" in refused(host, CREATE, {"i": dict(name="n", value="v")}, reader)
    assert "forbidden" in refused(host, DELETE, {"id": "x"}, reader)
    assert len(host.rest("GET", "/v2/secrets", reader).json()["secrets"]) == 100
    for method, path in ("POST", "/v2/secrets"), ("DELETE", "/v2/secrets/x"):
        assert host.rest(method, path, reader, json=dict(name="n", value="v")).status_code == 403
        assert requests.request(method, host.url + path, timeout=30).status_code == 401


# ---- in variables --------------------------------------------------------------------------------

def test_expanded_at_the_start_and_nowhere_else(host, keys):
    key = keys["a"]
    create(host, key)
    create(host, key, "lines", "one\n\ttwo 'quoted' $HOME\n")
    given = dict(PLAIN=PLAIN, TOKEN=T % "hf", BOTH="a-{{RUNPOD_SECRET_hf}}-b-" + T % "hf",
                 LINES=T % "lines", OTHER="{{ something }}")
    c = deploy(host, key, **given)
    got = environ(host, c)
    assert got["PLAIN"] == PLAIN and got["TOKEN"] == VALUE and got["OTHER"] == "{{ something }}"
    assert got["BOTH"] == "a-%s-b-%s" % (VALUE, VALUE)
    assert got["LINES"] == "one\n\ttwo 'quoted' $HOME\n"
    # a session has the same, and so has a login shell, which has them from no disk
    out = inside(host, c, key, "sh", "-c", "echo $TOKEN; printf %s \"$LINES\"")
    assert out == VALUE + "\n" + got["LINES"]
    out = inside(host, c, key, "env", "-i", "sh", "-lc", "echo $TOKEN; printf %s \"$LINES\"")
    assert out == VALUE + "\n" + got["LINES"]
    assert inside(host, c, key, "stat", "-c", "%a %u", "/dev/.tensorone-secrets.sh") == "600 0\n"
    assert VALUE not in inside(host, c, key, "cat", "/etc/profile.d/tensorone.sh")
    # what is answered is what was given
    assert sorted(host.cluster(c, key)["env"]) == sorted("%s=%s" % e for e in given.items())


def test_template(host, keys):
    """An administrator's public one: whose cluster it is, his secrets they are."""
    made = host.gql("mutation($i: SaveTemplateInput) { saveTemplate(input: $i) { id env { key value } } }",
                    {"i": dict(name="named", imageName="tensorone/starter", containerDiskInGb=1,
                               volumeInGb=0, dockerArgs="sleep 1000", isPublic=True,
                               env=env(TOKEN=T % "hf"))})["saveTemplate"]
    try:
        assert made["env"] == env(TOKEN=T % "hf")
        create(host, host.key, value="the-admins")
        with pytest.raises(ApiError) as e:
            host.deploy(key=keys["a"], imageName="", templateId=made["id"])
        assert "secret hf not found" in str(e.value)
        create(host, keys["a"])
        c = host.deploy(key=keys["a"], imageName="", templateId=made["id"])
        running(host, c, keys["a"])
        assert environ(host, c)["TOKEN"] == VALUE
    finally:
        host.gql("mutation { deleteTemplate(templateName: \"named\") }")
    assert "placeholder without a secret's name" in refused(
        host, "mutation($i: SaveTemplateInput) { saveTemplate(input: $i) { id } }",
        {"i": dict(name="x", imageName="tensorone/starter", containerDiskInGb=1, volumeInGb=0,
                   dockerArgs="", env=env(A=T % ""))}, keys["a"])


def test_unknown_secret(host, keys):
    """Refused where it can be, in the same words for what is another's; a failure with a sentence where
    it was removed in between."""
    key = keys["a"]
    create(host, keys["b"], "theirs")
    said = []
    for name in "theirs", "nobodys":
        with pytest.raises(ApiError) as e:
            host.deploy(key=key, env=env(A=T % name))
        said.append(str(e.value).replace(name, "X"))
    assert said[0] == said[1] and "env: secret X not found" in said[0]
    with pytest.raises(ApiError) as e:
        host.deploy(key=key, env=env(A=T % "a b"))
    assert "env: A has a placeholder without a secret's name" in str(e.value)
    mine = create(host, key)
    c = deploy(host, key, A=T % "hf")
    with pytest.raises(ApiError) as e:
        host.call("clusterEditJob", c, key, env=env(A=T % "nope"))
    assert "secret nope not found" in str(e.value)
    host.gql(DELETE, {"id": mine}, key)
    # it goes on; a session lacks what is not there any more
    assert environ(host, c)["A"] == VALUE
    assert inside(host, c, key, "sh", "-c", "echo ${A-unset}") == "unset\n"
    # what runs is not ended for a start that cannot be
    with pytest.raises(ApiError) as e:
        host.call("clusterRestart", c, key)
    assert "secret hf not found" in str(e.value) and host.cluster(c, key)["runtime"]
    # but a crash of its own is a start
    os.kill(host.first_pid(c), signal.SIGKILL)
    got = until(lambda: host.cluster(c, key)["phase"] == "exited" and host.cluster(c, key))
    assert "the secret hf, which the cluster's variables name, was removed" in got["reason"]
    assert got["desiredStatus"] == "EXITED"
    create(host, key, value="another")
    host.call("clusterResume", c, key)
    running(host, c, key)
    assert environ(host, c)["A"] == "another"


def test_too_long_with_its_secrets(host, keys):
    create(host, keys["a"], value="v" * 32768)
    c = host.deploy(key=keys["a"], env=env(A=(T % "hf") * 4))
    until(lambda: host.cluster(c, keys["a"])["phase"] == "exited")
    reason = host.cluster(c, keys["a"])["reason"]
    assert "env: with its secrets, A is over 131072 bytes" in reason and "vvv" not in reason


def test_asked_again_at_every_start(host, keys):
    """Behind a crash, a restart, a stop, and the death of either program; a changed one counts then."""
    key = keys["a"]
    mine = create(host, key)
    c = deploy(host, key, A=T % "hf")
    old = host.first_pid(c)
    os.kill(old, signal.SIGKILL)
    old = until(lambda: new_first(host, c, key, old))
    assert environ(host, c)["A"] == VALUE
    host.restart()
    assert host.first_pid(c) == old and environ(host, c)["A"] == VALUE  # adopted
    assert inside(host, c, key, "sh", "-c", "echo $A") == VALUE + "\n"
    host.gql(DELETE, {"id": mine}, key)
    create(host, key, value="changed")
    host.call("clusterRestart", c, key)
    old = until(lambda: new_first(host, c, key, old))
    assert environ(host, c)["A"] == "changed"
    host.call("clusterStop", c, key)
    until(lambda: host.cluster(c, key)["phase"] == "exited")
    host.call("clusterResume", c, key)
    until(lambda: new_first(host, c, key, old))
    assert environ(host, c)["A"] == "changed"


@pytest.mark.parametrize("who", ["api", "engine"])
def test_killed_between_deploy_and_start(host, keys, who):
    key = keys["a"]
    create(host, key)
    for delay in 0, 0.002, 0.005, 0.02:
        c = host.deploy(key=key, env=env(A=T % "hf"), dockerArgs="sleep 1000")
        time.sleep(delay)
        if who == "api":
            with contextlib.suppress(RuntimeError, ProcessLookupError):
                os.kill(host.api_pid(), signal.SIGKILL)
        else:
            host.restart()
        until(lambda: host.cluster(c, key)["runtime"], 60, "running")
        assert environ(host, c)["A"] == VALUE
        host.call("clusterTerminate", c, key)


# ---- secrecy -----------------------------------------------------------------------------------

def holes_left_out(path):
    """The parts of a file that there are."""
    with open(path, "rb") as f:
        at, size = 0, os.fstat(f.fileno()).st_size
        if size < 1 << 20:
            yield f.read()
            return
        while at < size:
            try:
                at = os.lseek(f.fileno(), at, os.SEEK_DATA)
                end = os.lseek(f.fileno(), at, os.SEEK_HOLE)
            except OSError:
                return
            os.lseek(f.fileno(), max(at - 4096, 0), os.SEEK_SET)
            while at < end:
                yield os.read(f.fileno(), 1 << 20)
                at = os.lseek(f.fileno(), 0, os.SEEK_CUR)
                os.lseek(f.fileno(), -1024 if at < end else 0, os.SEEK_CUR)


def places(host):
    for root in host.dir, RUN / host.id:
        for base, _, files in os.walk(root):
            for f in files:
                path = os.path.join(base, f)
                if os.path.isfile(path) and not os.path.islink(path):
                    yield path
    for pid in filter(str.isdigit, os.listdir("/proc")):
        yield "/proc/%s/cmdline" % pid


def where(host, text):
    found = set()
    for path in places(host):
        with contextlib.suppress(OSError):
            if any(text in part for part in holes_left_out(path)):
                found.add(path)
    return found


def test_value_is_nowhere(host, keys):
    """While it runs and after it has ended and restarted: in no file of the host's (store, journal,
    logs, disks of clusters), in no argument, in no answer.  A variable that is no secret is found, so
    the search can find."""
    key = keys["a"]
    create(host, key, description="d")
    c = deploy(host, key, PLAIN=PLAIN, TOKEN=T % "hf")
    inside(host, c, key, "true")
    old = host.first_pid(c)
    os.kill(old, signal.SIGKILL)
    until(lambda: new_first(host, c, key, old))
    host.restart()
    running(host, c, key)
    os.sync()
    found = where(host, PLAIN.encode())
    assert any("/disks/" in p for p in found) and any("store.db" in p for p in found), found
    assert any("journal" in p for p in found), found
    assert where(host, VALUE.encode()) == set()
    answers = json.dumps([host.cluster(c, key), secrets(host, key),
                          host.gql("{ events(input: {limit: 100}) { kind object text } }", key=key)])
    assert VALUE not in answers
    host.stop()
    assert where(host, VALUE.encode()) == set()
    host.start()


def in_store(host, statement):
    with contextlib.closing(sqlite3.connect(host.data / "control/store.db")) as db:
        db.executescript(statement)
        db.commit()


def test_rows_cannot_be_swapped_and_a_lost_key_says_so(host, keys):
    ada, bob = create(host, keys["a"]), create(host, keys["b"], value="his")
    host.stop()
    in_store(host, "UPDATE secret SET value = (SELECT value FROM secret WHERE id = '%s')"
                   " WHERE id = '%s'" % (ada, bob))
    host.start()
    assert "secrets are of no use" in host.log_text()
    c = host.deploy(key=keys["b"], env=env(A=T % "hf"))
    until(lambda: host.cluster(c, keys["b"])["phase"] == "exited")
    assert "belongs to another row" in host.cluster(c, keys["b"])["reason"]
    assert VALUE not in host.cluster(c, keys["b"])["reason"]
    host.stop()
    kept = (host.data / "seal.key").read_text()
    os.unlink(host.data / "seal.key")
    host.start()
    c = host.deploy(key=keys["a"], env=env(A=T % "hf"))
    until(lambda: host.cluster(c, keys["a"])["phase"] == "exited")
    assert "seal.key has been replaced" in host.cluster(c, keys["a"])["reason"]
    host.stop()
    (host.data / "seal.key").write_text(kept)
    host.start()
    deploy(host, keys["a"], A=T % "hf")


# ---- the command line ----------------------------------------------------------------------------

def test_cli(host, tmp_path):
    def cli(*args, **kw):
        return subprocess.run([program("tensoronecli"), *args], env=host.cli_env(), text=True,
                              timeout=60, capture_output=True, **kw)
    done = cli("create", "secret", "piped", input=VALUE + "\n")
    made = re.fullmatch(r'secret "(\w+)" created; use it as \{\{ TENSORONE_SECRET_piped \}\}\n',
                        done.stdout)
    assert made, done
    (tmp_path / "f").write_text("line 1\nline 2\n")
    done = cli("create", "secret", "filed", "--file", str(tmp_path / "f"), "--description", "two lines")
    assert done.returncode == 0, done
    done = cli("create", "secret", "gone", "--file", str(tmp_path / "none"))
    assert done.returncode != 0 and "none" in done.stderr
    done = cli("create", "secret", "none", input="")
    assert done.returncode != 0 and "the value is empty" in done.stderr
    t = Terminal([program("tensoronecli"), "create", "secret", "typed"], host.cli_env())
    t.read_until(b"Value: ")
    t.write(b"typed-in\r")
    assert t.wait() == 0
    listed = json.loads(cli("get", "secrets", "-o", "json").stdout)
    assert sorted((s["name"], s["description"]) for s in listed) == [
        ("filed", "two lines"), ("piped", None), ("typed", None)]
    assert "two lines" in cli("get", "secrets").stdout
    c = host.deploy(env=env(A=T % "filed", B=T % "typed", C=T % "piped"), dockerArgs="sleep 1000")
    running(host, c, host.key)
    got = environ(host, c)
    assert (got["A"], got["B"], got["C"]) == ("line 1\nline 2", "typed-in", VALUE)
    done = cli("remove", "secret", "piped", "filed", "nope")
    assert done.returncode == 1 and 'secret "piped" removed' in done.stdout and "nope" in done.stderr
    assert [s["name"] for s in secrets(host, host.key)] == ["typed"]
