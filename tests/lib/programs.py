"""Where the programs under test are: below the build directory that HVMM_BUILD names."""
import glob
import os
import subprocess

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def build_dir():
    return os.path.join(ROOT, os.environ.get("HVMM_BUILD", "build"))


def program(name):
    """The path of a built program; fails loudly when it was not built."""
    build = build_dir()
    places = [os.path.join(build, name)] + sorted(glob.glob(os.path.join(build, "src", "*", name)))
    for path in places:
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    raise FileNotFoundError(f"{name} is not in {build}: run make build, or set HVMM_BUILD")


def run_as(uid, path, *words, pass_fds=(), **kw):
    """subprocess.run() as that user, in a group of the same number.  By descriptor: who has cloned into
    a home that is closed to others can test, too."""
    fd = os.open(path, os.O_PATH)
    try:
        return subprocess.run([path, *words], executable=f"/proc/self/fd/{fd}", pass_fds=[fd, *pass_fds],
                              user=uid, group=uid, extra_groups=[], capture_output=True, text=True,
                              timeout=20, **kw)
    finally:
        os.close(fd)
