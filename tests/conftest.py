"""Shared by every test in Python: tests/lib can be imported, and no test runs for ever.

A test has 120 seconds for each of set-up, call and clean-up; `@pytest.mark.limit(SECONDS)` gives it
another limit."""
import os
import signal
import subprocess
import sys
import time

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))

# On a machine that is slower by so much (tests/lab: emulated) every deadline is that much further away:
# Python's clock, which they are computed by, goes slower.
SLOW = int(os.environ.get("HVMM_SLOW", "1"))
LIMIT_S = 120
if SLOW > 1:
    real = time.monotonic
    time.monotonic = subprocess._time = lambda: real() / SLOW


def pytest_configure(config):
    config.addinivalue_line("markers", "limit(seconds): how long the test may take")
    # tests/run ends a file by SIGTERM; fixtures then still clean up
    signal.signal(signal.SIGTERM, lambda number, frame: pytest.exit("ended by SIGTERM", 1))


def guarded(item, phase):
    mark = item.get_closest_marker("limit")
    limit = (mark.args[0] if mark else LIMIT_S) * SLOW

    def on_alarm(number, frame):
        # Failed is no Exception, so a test's own `except Exception` does not swallow it
        raise pytest.fail.Exception(f"{phase} took more than {limit} s")

    old = signal.signal(signal.SIGALRM, on_alarm)
    signal.setitimer(signal.ITIMER_REAL, limit)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_setup(item):
    yield from guarded(item, "set-up")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item):
    yield from guarded(item, "the test")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_teardown(item):
    yield from guarded(item, "clean-up")


@pytest.fixture(scope="module")
def registry():
    """A registry on the loopback that can be told to misbehave."""
    from ocimake import Registry
    with Registry() as reg:
        yield reg


@pytest.fixture
def nothing_left(tmp_path):
    """The host is the same after the test as before it: see tests/lib/inventory.py.  Name it first,
    so that it looks after every other fixture has cleaned up."""
    import inventory
    dirs = [str(tmp_path), "/var/tmp"]
    before = inventory.take(dirs)
    yield
    inventory.assert_same(before, dirs, gone_ok=True)
