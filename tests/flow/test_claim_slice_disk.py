"""Claims, cgroups and disks on the real kernel (root): each cmocka test of the programs in
tests/flow/claim_slice_disk is a test here, run in a process of its own."""
import os
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("HVMM_BUILD", ROOT / "build"))
PROGRAMS = {name: BUILD / "tests/flow/claim_slice_disk" / f"flow_{name}"
            for name in ("claim", "slice", "disk", "holders")}


def cases():
    for name, program in PROGRAMS.items():
        listed = subprocess.run([program, "--list"], capture_output=True, text=True, check=True)
        yield from (pytest.param(program, test, id=f"{name}:{test}")
                    for test in listed.stdout.split())


@pytest.mark.parametrize("program, test", cases())
def test_flow(program, test):
    done = subprocess.run([program, test], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout
    assert "[       OK ]" in done.stdout, done.stdout
