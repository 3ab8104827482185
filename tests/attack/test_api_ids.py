"""Every operation of the API with ids of another account's things: the answer is the one that an id
which does not exist gets, and nothing of the other's changes.

The operations come from introspection.  An input field that may carry an id is one whose name is in
KINDS, or ends like one; a new one fails here until it is given a row."""
import json
import re
import secrets

import pytest
import requests
import websocket

import attack

INTROSPECT = """{ __schema {
  queryType { fields { name args { name type { ...T } } type { ...T } } }
  mutationType { fields { name args { name type { ...T } } type { ...T } } }
  types { kind name fields { name type { ...T } args { name } } inputFields { name type { ...T } defaultValue }
          enumValues { name } } } }
fragment T on __Type { kind name ofType { kind name ofType { kind name ofType { kind name } } } }"""

# What a field's id is of; None: of nothing that belongs to an account (a catalogue's, or not built yet)
KINDS = {
    "podId": "cluster", "clusterId": "cluster", "templateId": "template", "templateName": "template name",
    "containerRegistryAuthId": "registry", "registryAuthId": "registry", "object": "cluster", "imageName": "image",
    "volumeKey": None, "networkVolumeId": None, "networkVolumeIds": None, "endpointId": None, "hubReleaseId": None,
    "gpuTypeId": None, "gpuTypeIdList": None, "gpuIds": None, "gpuId": None, "dataCenterId": None, "instanceId": None,
    "instanceIds": None, "aiApiId": None, "ids": None, "pubKey": None,
}
# What `id` is of, by operation
ID_OF = {
    "podTemplate": "template", "clusterTemplate": "template", "saveTemplate": "template", "updateRegistryAuth": "registry",
    "secretDelete": "secret", "gpuTypes": None, "cpuFlavors": None, "listing": None, "myModel": None, "saveEndpoint": None,
    "deleteEndpoint": None, "updateNetworkVolume": None, "deleteNetworkVolume": None, "deleteCluster": None,
}
# What required fields and arguments get, where a type's default would be refused before the id is looked at
GIVEN = {"instanceId": "cpu-1-1", "containerDiskInGb": 1, "planLength": "1m", "imageName": "attack"}
FREE = {"String": "x", "ID": "x", "Int": 1, "Float": 1.0, "Boolean": False, "DateTime": "2030-01-01", "JSON": {}}


@pytest.fixture(scope="module")
def schema(world):
    return world.gql(INTROSPECT)["__schema"]


@pytest.fixture(scope="module")
def theirs(world, alice):
    """{kind: id} of alice's things."""
    key = world.keys["alice"]
    name = "t" + secrets.token_hex(6)
    template = world.gql('mutation { saveTemplate(input: {name: "%s", imageName: "attack", containerDiskInGb: 1, '
                         'env: [{key: "S", value: "alices-own"}]}) { id } }' % name, key=key)["saveTemplate"]["id"]
    registry = world.gql('mutation { saveRegistryAuth(input: {name: "r", username: "u", password: "p"}) { id } }',
                         key=key)["saveRegistryAuth"]["id"]
    secret = world.gql('mutation { secretCreate(input: {name: "s", value: "alices-own"}) { id } }', key=key)
    world.add_own_image("alice", "alices/own", attack.image())
    return {"cluster": alice, "template": template, "template name": name, "registry": registry,
            "secret": secret["secretCreate"]["id"], "image": "alices/own"}


def invented(kind, real):
    """One of the same form that nothing has."""
    fresh = "".join(secrets.choice("bcdfghjkmnpqrstvwxyz0123456789") for _ in range(len(real)))
    return {"template name": "t" + fresh[1:], "image": "zzzzzz/own"}.get(kind, fresh)


def strip(t):
    """(is required, is list, named type)"""
    required, many = t["kind"] == "NON_NULL", False
    while t.get("ofType"):
        many |= t["kind"] == "LIST"
        t = t["ofType"]
    return required, many, t


def value_of(t, types, name=""):
    """Something that the type takes."""
    _, many, named = strip(t)
    if name in GIVEN:
        v = GIVEN[name]
    elif name == "name":
        v = "fresh-" + secrets.token_hex(8)  # names are unique
    elif named["kind"] == "INPUT_OBJECT":
        v = {f["name"]: value_of(f["type"], types, f["name"]) for f in types[named["name"]]["inputFields"]
             if strip(f["type"])[0] or f["name"] in GIVEN}
    elif named["kind"] == "ENUM":
        v = types[named["name"]]["enumValues"][0]["name"]
    else:
        v = FREE.get(named["name"], "x")
    return [v] if many else v


def may_be_id(name):
    return name in KINDS or name == "id" or name.endswith(("Id", "Ids", "Key", "ID"))


def kind_of(op, name):
    table = ID_OF if name == "id" else KINDS
    key = op if name == "id" else name
    assert key in table, "%s.%s may be an id: give it a row in %s" % (op, name, "ID_OF" if name == "id" else "KINDS")
    return table[key]


def cases(field, types):
    """(path of the id, kind) for every place in the arguments where one may stand."""
    for arg in field["args"]:
        _, _, named = strip(arg["type"])
        if named["kind"] != "INPUT_OBJECT":
            if may_be_id(arg["name"]):
                yield (arg["name"],), kind_of(field["name"], arg["name"])
            continue
        for f in types[named["name"]]["inputFields"]:
            if may_be_id(f["name"]):
                yield (arg["name"], f["name"]), kind_of(field["name"], f["name"])


def text_of(t):
    return t["name"] if t["name"] else ("[%s]" if t["kind"] == "LIST" else "%s!") % text_of(t["ofType"])


def ask(world, word, field, types, path, value):
    """Mallory's question with @value at @path; status and body."""
    variables = {a["name"]: value_of(a["type"], types, a["name"]) for a in field["args"]
                 if strip(a["type"])[0] or a["name"] == path[0]}
    at = variables
    for name in path[:-1]:
        at = at[name]
    at[path[-1]] = value
    declared = ", ".join("$%s: %s" % (a["name"], text_of(a["type"])) for a in field["args"] if a["name"] in variables)
    passed = ", ".join("%s: $%s" % (n, n) for n in variables)
    _, _, named = strip(field["type"])
    sub = " { __typename }" if named["kind"] == "OBJECT" else ""
    query = "%s(%s) { %s(%s)%s }" % (word, declared, field["name"], passed, sub)
    answer = world.post(query, variables, key=world.keys["mallory"])
    return answer.status_code, re.sub("fresh-[0-9a-f]{16}", "NAME", answer.text).replace(value, "ID")


def everything_of_alices(world):
    """What she sees of her own, but for what changes by itself."""
    key = world.keys["alice"]
    seen = world.gql("{ myself { clusters { id name desiredStatus imageName env version } containerRegistryCreds { id name } "
                     "secrets { id name } pubKey } podTemplates { id name imageName env { key value } } }", key=key)
    images = sorted(i["reference"] for i in world.rest("GET", "/v1/images", key=key).json())
    return json.dumps(seen, sort_keys=True), images


def test_every_operation_with_a_foreign_id(world, schema, theirs):
    """And with one that does not exist: word for word the same."""
    types = {t["name"]: t for t in schema["types"]}
    before, first, count = everything_of_alices(world), world.first_pid(theirs["cluster"]), 0
    for word in ("query", "mutation"):
        for field in schema[word + "Type"]["fields"]:
            for path, kind in cases(field, types):
                if kind is None:
                    continue
                fake = invented(kind, theirs[kind])
                real = ask(world, word, field, types, path, theirs[kind])
                none = ask(world, word, field, types, path, fake)
                if real != none:
                    attack.changed("%s, %s: of alice's %s, of nobody's %s" % (field["name"], ".".join(path), real, none))
                assert "BAD_USER_INPUT" not in real[1] and "VALIDATION" not in real[1], (field["name"], path, real)
                count += 1
    if everything_of_alices(world) != before:
        attack.changed("alice's things: %s, were %s" % (everything_of_alices(world), before))
    if world.first_pid(theirs["cluster"]) != first:
        attack.changed("alice's cluster was started again")
    for c in world.clusters(world.keys["mallory"]):
        world.end(c["id"])
    assert count > 40
    print("%d places for an id" % count)


def test_lists_show_ones_own(world, theirs):
    """What is listed without any id, for the account and for administrators of nothing."""
    key = world.keys["mallory"]
    seen = world.post("{ myself { id clusters { id env } containerRegistryCreds { id } secrets { id name } } podTemplates { id "
                      "env { key value } } clusterTemplates { id } events { object podId account text } }", key=key).text
    seen += world.rest("GET", "/v1/images", key=key).text + world.rest("GET", "/v1/containerregistryauth", key=key).text
    seen += world.rest("GET", "/v2/secrets", key=key).text
    # her own pull of an image of that name, above, when it had the time to fail
    seen = re.sub(r'"text":"pull docker.io/[^" ]+: manifest: [^"]*"', "", seen)
    for kind, name in theirs.items():
        if name in seen:
            attack.changed("alice's %s shows in a list: %s" % (kind, name))
    if "alices-own" in seen:
        attack.changed("a value of alice's shows")
    for query in ("{ gpus { id } }", "{ gpuVfio }", 'mutation { gpuRelease(input: {gpuId: "x"}) { id } }'):
        assert "FORBIDDEN" in world.post(query, key=key).text, query


REST = (("GET", "/v1/clusters/{cluster}/logs"), ("DELETE", "/v1/images?reference={image}"),
        ("GET", "/v1/containerregistryauth/{registry}"), ("DELETE", "/v1/containerregistryauth/{registry}"),
        ("GET", "/v2/secrets/{secret}"), ("DELETE", "/v2/secrets/{secret}"), ("GET", "/v2/clusters/{cluster}/secrets"),
        ("POST", "/v2/clusters/{cluster}/secrets"))


@pytest.mark.parametrize("method, path", REST)
def test_every_rest_path_with_a_foreign_id(world, theirs, method, path):
    key, before = world.keys["mallory"], everything_of_alices(world)
    fake = {kind: invented(kind, name) for kind, name in theirs.items()}
    real, none = (world.rest(method, path.format(**ids), key=key) for ids in (theirs, fake))
    words = [(r.status_code, r.text) for r in (real, none)]
    for kind in theirs:
        words = [(s, t.replace(theirs[kind], "ID").replace(fake[kind], "ID")) for s, t in words]
    if words[0] != words[1] or real.status_code < 400:
        attack.changed("%s %s: of alice's %s, of nobody's %s" % (method, path, words[0], words[1]))
    if everything_of_alices(world) != before:
        attack.changed("alice's things were changed by %s %s" % (method, path))


def test_sessions_keys_and_accounts(world, theirs):
    """A session in a foreign cluster, a foreign key, an administrator's paths."""
    key = world.keys["mallory"]
    words = []
    for cluster in (theirs["cluster"], invented("cluster", theirs["cluster"])):
        with pytest.raises(websocket.WebSocketBadStatusException) as e:
            world.session(cluster, "true", key=key)
        words.append(str(e.value).replace(cluster, "ID"))
    assert words[0] == words[1] and "404" in words[0], words
    made = world.rest("POST", "/v1/accounts", json={"name": "carol" + secrets.token_hex(3)}).json()
    real, none = (world.rest("DELETE", "/v1/keys/" + i, key=key) for i in (made["keyId"], "k" + secrets.token_hex(6)))
    assert real.status_code == none.status_code == 404, (real.text, none.text)
    if world.post("{ myself { id } }", key=made["key"]).status_code != 200:
        attack.changed("a foreign key was deleted")
    for method, path, body in (("GET", "/v1/accounts", None), ("POST", "/v1/accounts", {"name": "x"}), ("GET", "/metrics", None),
                               ("POST", "/v1/accounts/%s/keys" % made["id"], {"name": "x", "rights": "write"})):
        assert world.rest(method, path, key=key, json=body).status_code == 403, path
    assert requests.get(world.url + "/metrics", timeout=10).status_code == 401


def test_a_foreign_image_is_not_there(world, theirs):
    """Its name, in a deployment and in a template, and its digest."""
    digest = [i["digest"] for i in world.rest("GET", "/v1/images", key=world.keys["alice"]).json()
              if theirs["image"] in i["reference"]][0]
    for name in (theirs["image"], theirs["image"] + ":latest", theirs["image"] + "@" + digest, digest):
        answer = world.post('mutation { clusterFindAndDeployOnDemand(input: {imageName: "%s", gpuCount: 0, minVcpuCount: 1, '
                            'minMemoryInGb: 1, containerDiskInGb: 1}) { id } }' % name, key=world.keys["mallory"]).json()
        if "errors" in answer:
            continue
        c = answer["data"]["clusterFindAndDeployOnDemand"]["id"]
        seen = world.until(c, "mallory", lambda x: x["runtime"] or x["reason"] or x["desiredStatus"] == "EXITED")
        if seen["runtime"]:
            attack.changed("alice's image runs for mallory: " + name)
        world.end(c)


def test_a_foreign_secret_is_not_there(world, theirs):
    """A placeholder with the name of a neighbour's secret."""
    for name in ("s", theirs["secret"]):
        answer = world.post('mutation { clusterFindAndDeployOnDemand(input: {imageName: "attack", gpuCount: 0, minVcpuCount: 1, '
                            'minMemoryInGb: 1, containerDiskInGb: 1, dockerArgs: "sleep 1000", env: [{key: "S", value: '
                            '"{{ TENSORONE_SECRET_%s }}"}]}) { id } }' % name, key=world.keys["mallory"]).json()
        if "errors" in answer:
            continue
        c = answer["data"]["clusterFindAndDeployOnDemand"]["id"]
        seen = world.until(c, "mallory", lambda x: x["runtime"] or x["reason"])
        if seen["runtime"] and "alices-own" in world.sh(c, "cat /proc/1/environ; env"):
            attack.changed("alice's secret came to mallory")
        world.end(c)
