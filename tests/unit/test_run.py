"""tests/run counts what it should: the last line is what a person and CI rely on."""
import importlib.machinery
import importlib.util
import json
import os
import subprocess
import sys

import pytest

RUN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "run")


@pytest.fixture
def build(tmp_path):
    """A build directory whose unit programs are these scripts."""
    def make(**programs):
        folder = tmp_path / "tests" / "unit" / "area"
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in programs.items():
            (folder / name).write_text("#!/bin/sh\n" + text)
            (folder / name).chmod(0o755)
        return tmp_path
    return make


def run(build):
    """(exit status, passed, failed, all lines) of the scripts alone."""
    p = subprocess.run([sys.executable, RUN, "--build", str(build), "--only", "unit/area/", "unit"],
                       capture_output=True, text=True, timeout=60)
    lines = p.stdout.splitlines()
    passed, failed = (int(part.split()[0]) for part in lines[-1].split(", "))
    assert lines[-1] == f"{passed} passed, {failed} failed" and p.stderr == ""
    return p.returncode, passed, failed, p.stdout


def test_good(build):
    assert run(build(test_a="echo 1..2; echo 'ok 1 - one'; echo 'ok 2 - two'",
                     test_b="echo 'ok 1 - three'"))[:3] == (0, 3, 0)


@pytest.mark.parametrize("script, passed, failed, says", [
    ("echo 'ok 1 - a'; echo 'not ok 2 - b'; echo why; exit 1", 1, 1, "test_x: b"),
    ("echo 'ok 1 - a'; kill -SEGV $$", 1, 1, "died from SIGSEGV"),
    ("echo 'ok 1 - a'; exit 3", 1, 1, "exit status 3"),
    ("echo 'ok 1 - a # SKIP no root'", 0, 1, "test_x: a # SKIP"),
    ("true", 0, 1, "ran no test"),
    ("exit 1", 0, 1, "exit status 1"),
])
def test_bad(build, script, passed, failed, says):
    rc, p, f, out = run(build(test_x=script, test_y="echo 'ok 1 - y'"))
    assert (rc, p, f) == (1, passed + 1, failed) and says in out


def test_nothing_ran(build):
    rc, passed, failed, out = run(build())
    assert (rc, passed) == (1, 0) and failed > 0 and "nothing ran" in out


@pytest.mark.parametrize("value, left", [("none", 2), ("address,undefined", 1)])
def test_left_out_of_a_sanitizers_build(tmp_path, capsys, value, left):
    loader = importlib.machinery.SourceFileLoader("tests_run", RUN)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("tests_run", loader))
    sys.modules["tests_run"] = module  # its dataclass wants to find it
    loader.exec_module(module)
    jobs = [("flow/test_surface.py", None), ("flow/test_dns.py", None)]
    (tmp_path / "meson-info").mkdir()
    (tmp_path / "meson-info/intro-buildoptions.json").write_text(json.dumps([{"name": "b_sanitize", "value": value}]))
    assert len(module.without(jobs, str(tmp_path))) == left
    assert ("left out flow/test_surface.py" in capsys.readouterr().out) == (left == 1)
    del sys.modules["tests_run"]
