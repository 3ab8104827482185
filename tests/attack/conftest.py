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
def by_profile(world):
    """One cluster of the attacker's for each security profile, made when it is asked for."""
    made = {}

    def rent(profile):
        if profile not in made:
            made[profile] = world.rent(securityProfile=profile, volumeInGb=1, volumeMountPath="/v")
        return made[profile]
    return rent


@pytest.fixture(params=attack.PROFILES)
def profile(request):
    return request.param


@pytest.fixture
def caged(by_profile, profile):
    """The attacker's cluster under each profile in turn."""
    return by_profile(profile)


@pytest.fixture(scope="module")
def mallory(world):
    """The attacker's cluster."""
    return world.rent()


@pytest.fixture(scope="module")
def alice(world):
    """The neighbour's, with a secret in its environment, its log and its volume."""
    return world.rent("alice", volumeInGb=1, volumeMountPath="/v")
