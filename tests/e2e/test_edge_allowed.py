"""Lists of addresses that may ask a cluster's web ports: from its start, and changed while it runs.  Clients have addresses of 127.0.0.0/8."""
import json
import os
import re
import time

import pytest

import edge
from edge import Edge
from host import PAUSE_S, ApiError, Host
from test_edge import CONFIG, IMAGE, echoes, serve, websocket


@pytest.fixture(scope="module")
def host():
    with Host({**CONFIG, "edge": edge.here()}) as h:
        h.import_image(IMAGE)
        yield h


class Listed:
    """A cluster with such a list."""

    def __init__(self, host, *allowed, ports="8000/http"):
        self.host, self.edge = host, Edge(host)
        self.id = host.deploy(imageName=IMAGE, dockerArgs=serve(8000), ports=ports, allowedIps=list(allowed))
        self.name = self.edge.name(self.id, 8000)

    def status(self, source="127.0.0.1", **headers):
        return self.edge.get(self.name, source=source, **headers).status

    def wait(self, status, source="127.0.0.1", **headers):
        end, got = time.monotonic() + 60, None
        while got != status:
            assert time.monotonic() < end, got
            try:
                got = self.status(source, **headers)
            except OSError:  # of a HAProxy that was just killed
                time.sleep(PAUSE_S)

    def told(self):
        data = self.host.gql("query { myself { clusters { id allowedIps } } }")
        return next(c["allowedIps"] for c in data["myself"]["clusters"] if c["id"] == self.id)

    def update(self, **fields):
        """Once no other change is on its way."""
        end = time.monotonic() + 60
        while True:
            try:
                data = self.host.gql("mutation($input: ClusterUpdateInput!) { clusterUpdate(input: $input) { id allowedIps } }",
                                     {"input": {"clusterId": self.id, **fields}})
                return data["clusterUpdate"]["allowedIps"]
            except ApiError as e:
                assert "try again in a moment" in str(e) and time.monotonic() < end, e
                time.sleep(PAUSE_S)

    def entries(self):
        return {name for name in self.edge.map() if name.startswith("allow/%s/" % self.id)}

    def wait_entries(self, n):
        end = time.monotonic() + 60
        while len(self.entries()) != n:
            assert time.monotonic() < end, self.entries()
            time.sleep(PAUSE_S)


@pytest.fixture
def listed(host):
    made = []

    def make(*allowed, **fields):
        made.append(Listed(host, *allowed, **fields))
        return made[-1]
    yield make
    for one in made:
        host.terminate(one.id)


def test_who_may_ask(listed):
    c = listed("127.0.6.0/24", "127.0.7.9", "2001:db8::/33")
    c.wait(200, "127.0.6.1")
    for source, status in (("127.0.6.0", 200), ("127.0.6.255", 200), ("127.0.7.9", 200), ("127.0.7.8", 403), ("127.0.5.255", 403),
                           ("127.0.7.0", 403), ("127.0.0.1", 403)):
        assert c.status(source) == status, source
    answer = c.edge.get(c.name)
    assert json.loads(answer.text)["state"] == "notAllowed" and answer.headers["Cache-Control"] == "no-store"
    page = c.edge.get(c.name, Accept="text/html")
    assert page.status == 403 and "Not from your address" in page.text
    assert c.told() == ["127.0.6.0/24", "127.0.7.9", "2001:db8::/33"]
    assert c.status(X_Forwarded_For="127.0.6.1") == 403  # what a client says of itself changes nothing


def test_changed_while_it_runs(listed):
    c = listed()
    c.wait(200)
    assert c.told() == [] and c.entries() == set()
    ws = websocket(c.edge, c.name)
    assert c.update(allowedIps=["127.0.8.0/22", "::1"]) == ["127.0.8.0/22", "::1"]
    c.wait(403)
    assert c.status("127.0.11.255") == 200 and c.status("127.0.12.0") == 403
    assert echoes(ws)  # what is open goes on
    ws.close()
    c.update(allowedIps=["127.0.0.1", "127.0.8.0/21"])
    c.wait(200)
    assert c.status("127.0.12.0") == 200 and c.status("127.0.16.0") == 403
    c.update(containerDiskInGb=2)  # another change leaves the list alone
    assert c.told() == ["127.0.0.1", "127.0.8.0/21"]
    assert c.update(allowedIps=[]) == []
    c.wait(200, "127.0.16.0")
    c.wait_entries(0)


def test_one_that_is_stopped(host, listed):
    """It counts from the next start on; a stop leaves nothing behind."""
    c = listed("127.0.0.1")
    c.wait(200)
    host.call("clusterStop", c.id)
    host.wait_exited(c.id)
    c.wait_entries(0)
    c.update(allowedIps=["127.0.9.9"])
    host.call("clusterResume", c.id, gpuCount=0)
    c.wait(403)
    c.wait(200, "127.0.9.9")


def test_it_holds_whatever_is_restarted():
    with Host({**CONFIG, "edge": edge.here()}) as h:
        h.import_image(IMAGE)
        c = Listed(h, "127.0.0.0/25")
        c.wait(200)
        pid = c.edge.pid()
        h.kill()
        assert c.status() == 200 and c.status("127.0.0.128") == 403
        c.edge.runtime("add map %s allow/%s/47F =allow" % (c.edge.files / "routes", c.id))  # which no engine has said
        assert c.status("127.0.0.128") == 200
        h.start()
        assert c.edge.pid() == pid and c.status() == 200 and c.status("127.0.0.128") == 403
        os.kill(pid, 9)
        c.wait(200)
        c.wait(403, "127.0.0.128")


def test_private_ports_ask_for_both(host, listed):
    c = listed("127.0.6.0/24", ports="8000/http:private")
    key = {"Authorization": "Bearer " + host.key}
    c.wait(200, "127.0.6.1", **key)
    assert c.status("127.0.6.1") == 401 and c.status() == 403 and c.status(**key) == 403


def test_as_many_as_there_may_be(listed):
    """64 networks of the kind that takes the most lines."""
    nets = ["127.%d.0.0/17" % n for n in range(0, 126, 2)] + ["8000::/1"]
    assert len(nets) == 64
    c = listed(*nets)
    c.wait(200)
    c.wait_entries(64 * 8)
    assert c.status("127.0.127.255") == 200 and c.status("127.0.128.0") == 403 and c.status("127.1.0.1") == 403
    c.update(allowedIps=nets[:1])
    c.wait(403, "127.2.0.1")
    assert c.status() == 200


@pytest.mark.parametrize("allowed, says", [
    (["10.0.0.1/8"], "allowedIps: 10.0.0.1/8 does not start at its base, 10.0.0.0/8"), (["example.org"], "allowedIps: 'example.org' is not a network"),
    (["10.0.0.0/33"], "is not a network"), (["::ffff:10.0.0.1"], "write it as IPv4"),
    (["10.%d.0.0/16" % n for n in range(65)], "allowedIps"),
])
def test_lists_that_cannot_be(host, allowed, says):
    with pytest.raises(ApiError, match=re.escape(says)):
        host.deploy(imageName=IMAGE, ports="8000/http", allowedIps=allowed)


def test_the_command_line(host, listed):
    c = listed()
    c.wait(200)
    done = host.cli("update", "cluster", c.id, "--allowedIps", "127.0.9.0/24,127.0.10.1", "-o", "json")
    assert json.loads(done.stdout)
    c.wait(403)
    assert c.status("127.0.9.3") == 200 and c.told() == ["127.0.9.0/24", "127.0.10.1"]
    host.cli("update", "cluster", c.id, "--allowedIps", "all")
    c.wait(200)
    done = host.cli("update", "cluster", c.id, "--allowedIps", "nonsense", check=False)
    assert done.returncode != 0 and "allowedIps: 'nonsense' is not a network" in done.stderr
