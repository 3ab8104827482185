"""Registry credentials of an account: kept sealed, used for its own pulls alone, and asked for anew by
every new cluster; what they opened is nobody else's without a right of its own."""
import contextlib
import os
import pty
import random
import re
import select
import signal
import sqlite3
import subprocess
import time

import pytest
import requests

from host import RUN, ApiError, Host, our_node, program
from ocimake import Hang, Image, Layer, Registry

PASSWORD = "s3cret-Pa55w0rd-of-ada"
OTHER = "s3cret-Pa55w0rd-of-bob"

SAVE = "mutation($i: SaveRegistryAuthInput) { saveRegistryAuth(input: $i) { id name } }"
UPDATE = "mutation($i: UpdateRegistryAuthInput) { updateRegistryAuth(input: $i) { id name } }"
DELETE = "mutation($id: String!) { deleteRegistryAuth(registryAuthId: $id) }"
LIST = "{ myself { containerRegistryCreds { id, name } } }"


@pytest.fixture(scope="module")
def locked():
    """A registry with two users."""
    with Registry() as reg:
        reg.need_basic("ada", PASSWORD)
        reg.others["bob"] = OTHER
        yield reg


@pytest.fixture(scope="module")
def bearer():
    with Registry() as reg:
        reg.need_token(user="ada", password=PASSWORD)
        yield reg


@pytest.fixture(scope="module")
def open_registry():
    with Registry() as reg:
        yield reg


@pytest.fixture(scope="module")
def host(locked, bearer, open_registry):
    engine = {"cpu_overcommit": 100, "memory_overcommit": 20, "disk_overcommit": 100,
              "pool_networks": 0, "pool_disks": 0, "grace": "500ms", "log_level": "debug"}
    conf = {"engine": engine}
    for reg in locked, bearer, open_registry:
        conf['registry "%s"' % reg.host] = {"insecure": "yes"}
    with Host(conf) as h:
        h.import_image("tensorone/starter")
        yield h


@pytest.fixture(scope="module")
def keys(host):
    return {name: host.new_account(name) for name in ("a", "b")}


@pytest.fixture(autouse=True)
def clean(host, keys, locked):
    """Whatever a test did: no cluster and no credentials are left."""
    yield
    locked.stop.set()
    for key in [host.key, *keys.values()]:
        for c in host.clusters(key):
            host.call("clusterTerminate", c["id"], key)
        for a in auths(host, key):
            host.gql(DELETE, {"id": a["id"]}, key)
    host.wait_held(set())
    locked.stop.clear()
    locked.faults.clear()
    locked.others = {"bob": OTHER}


BUSYBOX = Layer().busybox("sh", "sleep", "cat").dir("tmp", mode=0o1777).dir("etc").tar()
RND = random.Random(3)


def image_of(registry, name, layers=1, tag="1"):
    noise = [Layer().file("noise%d" % i, RND.randbytes(9000)).tar() for i in range(layers)]
    return registry.add("test/" + name, tag, Image([BUSYBOX] + noise, config={
        "Cmd": ["/bin/sh", "-c", "echo up; sleep 1000"], "Env": ["PATH=/bin"]}))


def asked(registry, name):
    return [p for p, _ in registry.requests if "/test/%s/" % name in p]


def forget(registry):
    registry.requests.clear()


def save(host, key, name="hub", username="ada", password=PASSWORD):
    return host.gql(SAVE, {"i": dict(name=name, username=username, password=password)},
                    key)["saveRegistryAuth"]["id"]


def auths(host, key):
    return host.gql(LIST, key=key)["myself"]["containerRegistryCreds"]


def until(check, timeout=20, what="it"):
    end = time.monotonic() + timeout
    while True:
        with contextlib.suppress(requests.RequestException):
            got = check()
            if got:
                return got
        assert time.monotonic() < end, "never came: %s" % what
        time.sleep(0.02)


def running(host, cluster, key):
    def check():
        c = host.cluster(cluster, key)
        assert c["desiredStatus"] != "EXITED", c["reason"]
        return c["runtime"]
    until(check, what="running")


def failed(host, cluster, key):
    """Why."""
    return until(lambda: host.cluster(cluster, key)["phase"] == "exited" and
                 host.cluster(cluster, key)["reason"], what="a failure")


def refused(host, query, variables, key=None):
    with pytest.raises(ApiError) as e:
        host.gql(query, variables, key)
    return str(e.value)


# ---- keeping -----------------------------------------------------------------------------------

def test_saved_listed_changed_removed(host, keys):
    one = save(host, keys["a"])
    assert auths(host, keys["a"]) == [{"id": one, "name": "hub"}]
    assert auths(host, keys["b"]) == []
    assert "exist already" in refused(host, SAVE, {"i": dict(name="hub", username="x", password="y")},
                                      keys["a"])
    save(host, keys["b"])  # the same name: nobody hears that it is taken elsewhere
    got = host.gql(UPDATE, {"i": dict(id=one, password="new")}, keys["a"])["updateRegistryAuth"]
    assert got == {"id": one, "name": "hub"}
    assert "nothing to change" in refused(host, UPDATE, {"i": dict(id=one)}, keys["a"])
    nobodys = refused(host, UPDATE, {"i": dict(id="nobodys", password="x")}, keys["b"])
    theirs = refused(host, UPDATE, {"i": dict(id=one, password="x")}, keys["b"])
    assert theirs == nobodys.replace("nobodys", one) and "not found" in theirs
    assert refused(host, DELETE, {"id": one}, keys["b"]) == refused(
        host, DELETE, {"id": "nobodys"}, keys["b"]).replace("nobodys", one)
    assert host.gql(DELETE, {"id": one}, keys["a"]) == {"deleteRegistryAuth": None}
    assert auths(host, keys["a"]) == [] and len(auths(host, keys["b"])) == 1


@pytest.mark.parametrize("field,value,words", [
    ("name", "", "name: is missing"),
    ("name", "n" * 192, "name: 192 bytes, at most 191"),
    ("name", "a\nb", "name: has a character"),
    ("username", "", "username: is missing"),
    ("username", "u" * 256, "username: 256 bytes, at most 255"),
    ("username", "a:b", "a colon"),
    ("password", "", "password: is missing"),
    ("password", "p" * 4097, "password: 4097 bytes, at most 4096"),
])
def test_what_is_refused(host, keys, field, value, words):
    given = dict(name="n", username="u", password="p")
    given[field] = value
    said = refused(host, SAVE, {"i": given}, keys["a"])
    assert words in said and (field != "password" or not value or value not in said)
    r = host.rest("POST", "/v1/containerregistryauth", keys["a"], json=given)
    assert r.status_code in (400, 413) and words in r.json()["message"]
    assert auths(host, keys["a"]) == []


def test_limit(host, keys):
    for i in range(100):
        save(host, keys["a"], "n%d" % i, "u" * 255, "p" * 4096)
    assert "at most 100" in refused(host, SAVE, {"i": dict(name="n", username="u", password="p")},
                                    keys["a"])
    cut = host.rest("POST", "/v1/containerregistryauth", keys["a"], data='{"name": "n", "password": "the-word')
    assert cut.status_code == 400 and "column" in cut.text and "the-word" not in cut.text
    assert host.rest("POST", "/v1/containerregistryauth", keys["a"], json=dict(
        name="n", username="u", password="p")).status_code == 409


def test_rest(host, keys):
    path = "/v1/containerregistryauth"
    r = host.rest("POST", path, keys["a"], json=dict(name="r", username="u", password=PASSWORD))
    assert r.status_code == 200 and set(r.json()) == {"id", "name"}
    one = r.json()
    assert host.rest("GET", path, keys["a"]).json() == [one]
    assert host.rest("GET", path + "/" + one["id"], keys["a"]).json() == one
    assert host.rest("GET", path, keys["b"]).json() == []
    assert host.rest("GET", path + "/" + one["id"], keys["b"]).status_code == 404
    assert host.rest("DELETE", path + "/" + one["id"], keys["b"]).status_code == 404
    assert host.rest("POST", path, keys["a"], data="{").status_code == 400
    r = host.rest("DELETE", path + "/" + one["id"], keys["a"])
    assert (r.status_code, r.text) == (204, "")
    assert auths(host, keys["a"]) == []


# ---- whose image -------------------------------------------------------------------------------

def test_whose_image(host, locked, keys):
    ref = image_of(locked, "whose", layers=2)
    ada, bob = save(host, keys["a"]), save(host, keys["b"], "mine", "bob", OTHER)
    wrong = save(host, keys["b"], "wrong", "bob", "guess")
    # before it is here: what a stranger sees of it
    forget(locked)
    before = failed(host, host.deploy(key=keys["b"], imageName=ref), keys["b"])
    seen = asked(locked, "whose")
    c = host.deploy(key=keys["a"], imageName=ref, containerRegistryAuthId=ada)
    running(host, c, keys["a"])
    # and after: the same words, the same requests; without credentials, and with wrong ones
    forget(locked)
    assert failed(host, host.deploy(key=keys["b"], imageName=ref), keys["b"]) == before
    assert asked(locked, "whose") == seen
    assert "denies access" in before and "name registry credentials" in before
    c = host.deploy(key=keys["b"], imageName=ref, containerRegistryAuthId=wrong)
    reason = failed(host, c, keys["b"])
    assert "denies access" in reason and "name registry credentials" not in reason
    # another's credentials are none, in the words for what never was
    with pytest.raises(ApiError) as theirs:
        host.deploy(key=keys["b"], imageName=ref, containerRegistryAuthId=ada)
    with pytest.raises(ApiError) as nobodys:
        host.deploy(key=keys["b"], imageName=ref, containerRegistryAuthId="nobodys")
    assert "containerRegistryAuthId" in str(theirs.value) and "not found" in str(theirs.value)
    assert str(theirs.value) == str(nobodys.value).replace("nobodys", ada)
    # with a right of one's own it is there at once: a manifest is asked for, no layer comes again
    forget(locked)
    c = host.deploy(key=keys["b"], imageName=ref, containerRegistryAuthId=bob)
    running(host, c, keys["b"])
    assert len([p for p in asked(locked, "whose") if "/manifests/" in p]) >= 1
    assert {p.rsplit("/", 1)[1] for p in asked(locked, "whose") if "/blobs/" in p} <= {
        d for d, blob in locked.repos["test/whose"]["blobs"].items() if blob.startswith(b"{")}
    owners = {k: [i["owner"] for i in host.rest("GET", "/v1/images", keys[k]).json()
                  if i["reference"] == ref] for k in "ab"}
    assert len(owners["a"]) == len(owners["b"]) == 1 and owners["a"] != owners["b"]


def test_bearer(host, bearer, keys):
    ref = image_of(bearer, "tokens")
    c = host.deploy(key=keys["a"], imageName=ref, containerRegistryAuthId=save(host, keys["a"]))
    running(host, c, keys["a"])
    assert "denies access" in failed(host, host.deploy(key=keys["b"], imageName=ref), keys["b"])


def test_a_new_cluster_proves_it_a_known_one_need_not(host, locked, keys):
    """Restarts, also behind the death of both programs, ask nobody; a new cluster asks, and when the
    registry has changed its mind, it does not start."""
    key = keys["a"]
    ref, mine = image_of(locked, "again"), save(host, keys["a"], "b", "bob", OTHER)
    old = host.deploy(key=key, imageName=ref, containerRegistryAuthId=mine)
    running(host, old, key)
    forget(locked)
    new = host.deploy(key=key, imageName=ref, containerRegistryAuthId=mine)
    running(host, new, key)
    assert any("/manifests/" in p for p in asked(locked, "again"))
    host.call("clusterTerminate", new, key)
    # the account itself, naming nothing: as anybody
    assert "denies access" in failed(host, host.deploy(key=key, imageName=ref), key)
    del locked.others["bob"]
    forget(locked)
    reason = failed(host, host.deploy(key=key, imageName=ref, containerRegistryAuthId=mine), key)
    assert "denies access" in reason
    forget(locked)
    host.call("clusterRestart", old, key)
    until(lambda: host.cluster(old, key)["phase"] == "ready")
    os.kill(host.first_pid(old), signal.SIGKILL)  # a crash of its own
    until(lambda: "starting again" in host.log_text() or host.cluster(old, key)["runtime"])
    running(host, old, key)
    host.restart()
    host.call("clusterStop", old, key)
    until(lambda: host.cluster(old, key)["phase"] == "exited")
    host.restart()
    host.call("clusterResume", old, key)
    running(host, old, key)
    session = host.session(old, "cat", "/noise0", key=key).finish()
    assert session.exit == {"code": 0, "signal": 0} and len(session.out) == 9000
    assert asked(locked, "again") == []


def test_the_cached_one_of_a_moved_tag(host, locked, keys):
    """A new cluster has what the registry says now."""
    key, mine = keys["a"], save(host, keys["a"])
    ref = image_of(locked, "moved")
    running(host, host.deploy(key=key, imageName=ref, containerRegistryAuthId=mine), key)
    one = [i["digest"] for i in host.rest("GET", "/v1/images", key).json() if i["reference"] == ref]
    image_of(locked, "moved")
    running(host, host.deploy(key=key, imageName=ref, containerRegistryAuthId=mine), key)
    two = [i["digest"] for i in host.rest("GET", "/v1/images", key).json() if i["reference"] == ref]
    assert one != two and two == [locked.repos["test/moved"]["tags"]["1"]]


def test_what_all_may_have_costs_nothing(host, open_registry, keys):
    """Credentials that are named and not needed: nobody is asked, and no password leaves the store."""
    ref = image_of(open_registry, "public")
    running(host, host.deploy(key=keys["b"], imageName=ref), keys["b"])
    forget(open_registry)
    c = host.deploy(key=keys["a"], imageName=ref,
                    containerRegistryAuthId=save(host, keys["a"]))
    running(host, c, keys["a"])
    assert open_registry.requests == []


def test_password_of_many_lines(host, locked, keys):
    """As service accounts have them: a whole JSON file.  In a header it cannot become a line of its own."""
    text = '{\n  "type": "service_account",\r\n\t"X-Header": "1"\n}'
    locked.others["_json_key"] = text
    ref = image_of(locked, "lines")
    mine = save(host, keys["a"], "key", "_json_key", text)
    running(host, host.deploy(key=keys["a"], imageName=ref, containerRegistryAuthId=mine), keys["a"])
    assert not any("X-Header" in h for _, h in locked.requests)
    done = subprocess.run([program("tensoronecli"), "registry-auth", "create", "piped", "--username",
                           "_json_key"], env=host.cli_env(), input=text + "\n", text=True, timeout=30,
                          capture_output=True)
    made = re.fullmatch(r'registry credentials "(\w+)" created\n', done.stdout)
    assert made, done
    host.cli("image", "pull", ref, "--registryAuthId", made[1])


def test_changed_password(host, locked, keys):
    key = keys["a"]
    ref, mine = image_of(locked, "changed"), save(host, keys["a"], password="old")
    c = host.deploy(key=key, imageName=ref, containerRegistryAuthId=mine)
    assert "denies access" in failed(host, c, key)
    host.gql(UPDATE, {"i": dict(id=mine, password=PASSWORD)}, key)
    host.call("clusterResume", c, key)
    running(host, c, key)


def test_removed_credentials(host, locked, keys):
    key = keys["a"]
    ref, mine = image_of(locked, "kept"), save(host, keys["a"])
    other = image_of(locked, "kept2")
    template = host.gql(
        "mutation($i: SaveTemplateInput) { saveTemplate(input: $i) { id containerRegistryAuthId } }",
        {"i": dict(name="private", imageName=ref, containerDiskInGb=1, volumeInGb=0, dockerArgs="",
                   containerRegistryAuthId=mine)}, key)["saveTemplate"]
    assert template["containerRegistryAuthId"] == mine
    c = host.deploy(key=key, imageName="", templateId=template["id"])
    running(host, c, key)
    host.gql(DELETE, {"id": mine}, key)
    assert host.cluster(c, key)["runtime"]
    host.call("clusterRestart", c, key)
    until(lambda: host.cluster(c, key)["phase"] == "ready")
    for more in dict(imageName="", templateId=template["id"]), dict(
            imageName=ref, containerRegistryAuthId=mine):
        with pytest.raises(ApiError) as e:
            host.deploy(key=key, **more)
        assert "%s not found" % mine in str(e.value)
    host.call("clusterEditJob", c, key, imageName=other)
    reason = failed(host, c, key)
    assert mine in reason and "were removed" in reason
    # others in their place
    host.call("clusterEditJob", c, key, containerRegistryAuthId=save(host, key, "new"))
    host.call("clusterResume", c, key)
    running(host, c, key)
    host.gql("mutation { deleteTemplate(templateName: \"private\") }", key=key)


def test_public_template_keeps_its_owners_credentials(host, locked, keys):
    """An administrator's public template: its credentials serve the owner, and others do not see them."""
    ref, mine = image_of(locked, "shown"), save(host, host.key)
    made = host.gql(
        "mutation($i: SaveTemplateInput) { saveTemplate(input: $i) { id containerRegistryAuthId } }",
        {"i": dict(name="shown", imageName=ref, containerDiskInGb=1, volumeInGb=0, dockerArgs="",
                   isPublic=True, containerRegistryAuthId=mine)})["saveTemplate"]
    try:
        query = "query($id: String!) { podTemplate(id: $id) { id containerRegistryAuthId } }"
        assert host.gql(query, {"id": made["id"]}, keys["a"])["podTemplate"] == {
            "id": made["id"], "containerRegistryAuthId": None}
        running(host, host.deploy(imageName="", templateId=made["id"]), host.key)
        c = host.deploy(key=keys["a"], imageName="", templateId=made["id"])
        assert "denies access" in failed(host, c, keys["a"])
        with pytest.raises(ApiError) as e:
            host.gql("mutation($i: SaveTemplateInput) { saveTemplate(input: $i) { id } }",
                     {"i": dict(name="x", imageName=ref, containerDiskInGb=1, volumeInGb=0,
                                dockerArgs="", containerRegistryAuthId=mine)}, keys["a"])
        assert "%s not found" % mine in str(e.value)
    finally:
        host.gql("mutation { deleteTemplate(templateName: \"shown\") }")


def test_image_pull_by_id(host, locked, keys):
    ref = image_of(locked, "ahead")
    mine = save(host, host.key)
    host.cli("image", "pull", ref, "--registryAuthId", mine)
    done = host.cli("image", "pull", ref, check=False)
    assert done.returncode != 0 and "denies access" in done.stderr
    done = host.cli("image", "pull", ref, "--registryAuthId", save(host, keys["a"]), check=False)
    assert done.returncode != 0 and "not found" in done.stderr


# ---- secrecy -----------------------------------------------------------------------------------

def places(host):
    """Every byte on disk, and what anybody may read of our processes."""
    for root in host.dir, RUN / host.id:
        for base, _, files in os.walk(root):
            for f in files:
                path = os.path.join(base, f)
                if os.path.isfile(path) and not os.path.islink(path):
                    yield path
    for pid in filter(str.isdigit, os.listdir("/proc")):
        yield "/proc/%s/cmdline" % pid
        yield "/proc/%s/environ" % pid


def test_password_is_nowhere(host, locked, keys):
    """While its pull hangs, and afterwards: not in the store, the journal, a log, a run file, staging, an
    argument or an environment."""
    key = keys["a"]
    ref, mine = image_of(locked, "nowhere"), save(host, keys["a"])
    locked.fault("/test/nowhere/", Hang(at=10, seconds=3, times=1))
    c = host.deploy(key=key, imageName=ref, containerRegistryAuthId=mine)
    until(lambda: host.descendants("vmm-fetch"), what="the pull")
    secrets = [PASSWORD.encode(), __import__("base64").b64encode(b"ada:" + PASSWORD.encode())]

    def look():
        for path in places(host):
            with contextlib.suppress(OSError):
                with open(path, "rb") as f:
                    data = f.read()
                assert not any(s in data for s in secrets), path
    look()
    running(host, c, key)
    look()
    assert PASSWORD not in str(host.gql("{ myself { id containerRegistryCreds { id name } } }", key=key))
    modes = {f: os.stat(host.data / f).st_mode & 0o777 for f in ("seal.key", "admin.key")}
    assert modes == {"seal.key": 0o600, "admin.key": 0o600}
    assert len((host.data / "seal.key").read_text().strip()) == 64


def in_store(host, statement):
    with contextlib.closing(sqlite3.connect(host.data / "control/store.db")) as db:
        db.executescript(statement)
        db.commit()


def test_rows_cannot_be_swapped_and_a_lost_key_says_so(host, locked, keys):
    key = keys["a"]
    ref = image_of(locked, "swapped")
    ada = save(host, keys["a"])
    bob = save(host, keys["b"], "bobs", "ada", "not his")
    host.stop()
    in_store(host, "UPDATE registry_auth SET password = (SELECT password FROM registry_auth WHERE id ="
                   " '%s') WHERE id = '%s'" % (ada, bob))
    host.start()
    c = host.deploy(key=keys["b"], imageName=ref, containerRegistryAuthId=bob)
    assert "belongs to another row" in failed(host, c, keys["b"])
    # moved to another account as a whole
    host.stop()
    in_store(host, "UPDATE registry_auth SET account = (SELECT account FROM registry_auth WHERE id ="
                   " '%s') WHERE id = '%s'" % (bob, ada))
    host.start()
    c = host.deploy(key=keys["b"], imageName=ref, containerRegistryAuthId=ada)
    assert "belongs to another row" in failed(host, c, keys["b"])
    host.gql(DELETE, {"id": ada}, keys["b"])
    # a lost key: everything runs, new credentials are good, the old say why not
    ada = save(host, key)
    host.stop()
    kept = (host.data / "seal.key").read_text()
    os.unlink(host.data / "seal.key")
    host.start()
    assert "of no use" in host.log_text() and "has been replaced" in host.log_text()
    c = host.deploy(key=key, imageName=ref, containerRegistryAuthId=ada)
    assert "seal.key has been replaced" in failed(host, c, key)
    running(host, host.deploy(key=key, imageName=ref,
                              containerRegistryAuthId=save(host, key, "new")), key)
    # one that is no key
    host.stop()
    (host.data / "seal.key").write_text("rubbish\n")
    host.start()
    assert "holds no key" in refused(host, SAVE, {"i": dict(name="x", username="u", password="p")}, key)
    running(host, host.deploy(), host.key)
    # the old one put back
    host.stop()
    (host.data / "seal.key").write_text(kept)
    host.start()
    running(host, host.deploy(key=key, imageName=ref, containerRegistryAuthId=ada), key)


# ---- deaths between the order and the pull -------------------------------------------------------

@pytest.mark.parametrize("who", ["api", "engine"])
def test_killed_between_deploy_and_pull(host, locked, keys, who):
    """Credentials live in memory alone: whoever dies, the pull is begun with them again."""
    key = keys["a"]
    mine = save(host, key)
    for i, delay in enumerate([0, 0.003, 0.01, 0.03, 0.1]):
        ref = image_of(locked, "killed%s%d" % (who, i))
        locked.fault("/test/killed%s%d/manifests" % (who, i), Hang(at=10, seconds=1, times=1))
        c = host.deploy(key=key, imageName=ref, containerRegistryAuthId=mine)
        time.sleep(delay)
        if who == "api":
            with contextlib.suppress(RuntimeError):
                os.kill(host.api_pid(), signal.SIGKILL)
        else:
            host.restart()
        until(lambda: host.cluster(c, key)["runtime"], 30, "running")
        host.call("clusterTerminate", c, key)


def test_the_engine_asks_and_waits(host, locked):
    """It says that it wants credentials, asks no registry without them, takes none that it has not asked
    for or that are another generation's, and forgets them with the pull."""
    ref, other = image_of(locked, "asks"), image_of(locked, "asks2")
    cmd = ["/bin/sh", "-c", "sleep 1000"]
    good = {"username": "ada", "password": PASSWORD}

    def report(state, **want):
        return node.until(lambda m: m.get("cluster") == "asker" and m.get("state") == state and all(
            m[k] == v for k, v in want.items()))[0]

    def assign(credentials=None, generation=1, image=ref):
        node.send({"type": "assign", "cluster": "asker", "generation": generation,
                   "desired": "running", "plan": node.plan(
                       "asker", cmd, generation, image=image, registry_auth="some"),
                   **({"credentials": credentials} if credentials else {})})

    with our_node(host) as node:
        try:
            forget(locked)
            assign(good)  # the cluster is new: nothing was asked for
            report("pulling", credentials_wanted=True)
            time.sleep(0.3)
            assert asked(locked, "asks") == []
            assign(good)
            report("running", credentials_wanted=False)
            assert asked(locked, "asks")
            # a new image in a new generation: those of the old one are not taken for it
            assign(generation=2, image=other)
            report("pulling", generation=2, credentials_wanted=True)
            assign(good, generation=1)
            time.sleep(0.3)
            assert asked(locked, "asks2") == []
            assign({"error": "registry credentials some were removed"}, generation=2, image=other)
            said = report("exited", generation=2)
            assert "asks2" in said["reason"] and "were removed" in said["reason"]
            assign(generation=3, image=ref)  # it has run from that
            report("running", generation=3)
            row = {k: v for k, v in host.journal()["asker"].items() if v}
            assert PASSWORD not in str(row) and "some" in row["plan"]
        finally:
            node.remove("asker")


def test_no_more_pulls_while_it_waits(host, locked, keys):
    """Stopped and removed while it waits, changed while it pulls."""
    key = keys["a"]
    ref, mine = image_of(locked, "stopped"), save(host, key)
    locked.fault("/test/stopped/", Hang(at=10, seconds=30, times=1))
    c = host.deploy(key=key, imageName=ref, containerRegistryAuthId=mine)
    until(lambda: asked(locked, "stopped"), what="the pull")  # and the fault has had its time
    host.call("clusterStop", c, key)
    until(lambda: not host.descendants("vmm-fetch"), what="its end")
    until(lambda: host.cluster(c, key)["phase"] == "exited")
    host.call("clusterResume", c, key)
    running(host, c, key)


# ---- the command line ------------------------------------------------------------------------------

def test_cli(host):
    done = subprocess.run([program("tensoronecli"), "registry-auth", "create", "hub", "--username",
                           "ada"], env=host.cli_env(), input=PASSWORD + "\n", text=True, timeout=30,
                          capture_output=True)
    made = re.fullmatch(r'registry credentials "(\w+)" created\n', done.stdout)
    assert done.returncode == 0 and made, done
    assert PASSWORD not in done.stdout + done.stderr
    assert host.cli("registry-auth", "ls").stdout.split() == ["ID", "NAME", made[1], "hub"]
    done = subprocess.run([program("tensoronecli"), "registry-auth", "update", "hub"],
                          env=host.cli_env(), input="new", text=True, timeout=30, capture_output=True)
    assert done.returncode == 0 and "changed" in done.stdout, done
    done = host.cli("registry-auth", "create", "x", "--username", "u", check=False)
    assert done.returncode != 0 and "the password is empty" in done.stderr
    assert "username" in host.cli("registry-auth", "create", "x", check=False).stderr
    assert "no registry credentials" in host.cli("registry-auth", "rm", "x", check=False).stderr
    host.cli("registry-auth", "rm", "hub")
    assert auths(host, host.key) == []


@pytest.mark.parametrize("typed,ok", [(PASSWORD + "\n", True), ("half\x03", False)])
def test_cli_on_a_terminal(host, typed, ok):
    """Asked for without an echo; Ctrl-C gives the terminal back as it was."""
    ours, theirs = pty.openpty()
    before = subprocess.run(["stty", "-a"], stdin=theirs, capture_output=True, text=True).stdout
    p = subprocess.Popen([program("tensoronecli"), "registry-auth", "create", "tty", "--username", "u"],
                         env=host.cli_env(), stdin=theirs, stdout=theirs, stderr=theirs)
    text = b""
    end = time.monotonic() + 20
    while p.poll() is None or select.select([ours], [], [], 0.1)[0]:
        assert time.monotonic() < end, text
        if select.select([ours], [], [], 0.1)[0]:
            text += os.read(ours, 1000)
        if b"Password: " in text and typed:
            os.write(ours, typed.encode())
            typed = ""
    assert PASSWORD.encode() not in text and b"half" not in text
    assert (p.returncode == 0) == ok and (b"created" if ok else b"cancelled") in text, text
    assert subprocess.run(["stty", "-a"], stdin=theirs, capture_output=True, text=True).stdout == before
    os.close(ours)
    os.close(theirs)
