"""A canary for each test, and one host with two tenants for each file."""
import pytest

import attack


@pytest.fixture
def canary():
    with attack.canary() as c:
        yield c
        c.check()


@pytest.fixture(scope="module")
def world():
    with attack.World() as w:
        yield w
        assert w.key not in w.log_text()


@pytest.fixture(scope="module")
def mallory(world):
    """The attacker's cluster."""
    return world.rent()


@pytest.fixture(scope="module")
def alice(world):
    """The neighbour's, with a secret in its environment, its log and its volume."""
    return world.rent("alice", volumeInGb=1, volumeMountPath="/v")
