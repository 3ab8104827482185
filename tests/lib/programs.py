"""Where the programs under test are: below the build directory that HVMM_BUILD names."""
import glob
import os

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
