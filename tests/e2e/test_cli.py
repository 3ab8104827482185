"""tensoronecli, the real program, against a stand-in for the API with real transport.

What is checked here is the contract of the command line: words, tables, messages, exit codes,
files, terminals.  The same program against the real API is test_lifecycle's business."""
import io
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import termios
import time

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import fake_api  # noqa: E402
from fake_api import KEY, FakeApi, Refusal  # noqa: E402
from programs import program  # noqa: E402
from terminal import Terminal  # noqa: E402

CLI = program("tensoronecli")
EXAMPLE = ["create", "clusters", "--gpuType", "NVIDIA A100", "--imageName",
           "tensorone/llm-starter", "--containerDiskSize", "20", "--volumeSize", "40", "--mem",
           "32", "--args", "python run.py"]


@pytest.fixture
def api():
    with FakeApi() as a:
        yield a


@pytest.fixture
def env(tmp_path, api):
    return {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "TENSORONE_API_URL": api.url,
            "TENSORONE_API_KEY": KEY, "TERM": "xterm"}


class Result:
    def __init__(self, rc, out, err):
        self.rc, self.out, self.err = rc, out, err


def run(env, *args, stdin=b"", timeout=20):
    p = subprocess.run([CLI, *args], env=env, input=stdin, capture_output=True, timeout=timeout)
    return Result(p.returncode, p.stdout.decode(), p.stderr.decode())


def good(env, *args, **kw):
    r = run(env, *args, **kw)
    assert r.rc == 0 and r.err == "", (r.rc, r.out, r.err)
    return r.out


def bad(env, *args, **kw):
    """Exit status 1, nothing on stdout, one line on stderr, which is returned."""
    r = run(env, *args, **kw)
    assert r.rc == 1 and r.out == "", (r.rc, r.out, r.err)
    assert re.fullmatch(r"Error: [^\n]+\n", r.err), r.err
    assert KEY not in r.err
    return r.err[len("Error: "):-1]


def sent(api, root):
    """The variables of the last GraphQL request that mentions @root."""
    for method, path, _, body in reversed(api.requests):
        if path == "/graphql" and root in json.loads(body)["query"]:
            return json.loads(body).get("variables")
    raise AssertionError(f"{root} was never asked for")


def terminal(env, *args, **size):
    """The program on a terminal."""
    return Terminal([CLI, *args], env, **size)


# --- words, help, generated texts

VERBS = ["config", "create cluster", "create clusters", "get cluster", "get cloud",
         "start cluster", "stop cluster", "restart cluster", "update cluster",
         "remove cluster", "remove clusters", "create secret", "get secrets", "remove secret",
         "logs", "exec", "image import", "image pull", "image ls", "image rm", "template create",
         "template ls", "template get", "template rm", "ssh", "ssh connect", "ssh config", "ssh add-key", "ssh list-keys", "ssh remove-key",
         "version", "completion"]


@pytest.mark.parametrize("verb", VERBS)
def test_help(env, verb):
    out = good(env, *verb.split(), "--help")
    assert out.startswith(f"usage: tensoronecli {verb} [OPTION...]")
    assert "-o, --output" in out
    assert verb == "version" or "Examples:" in out
    assert good(env, "help", *verb.split()) == out
    assert max(len(line) for line in out.split("Examples:")[0].splitlines()) <= 100


def test_overview(env):
    out = good(env, "--help")
    for verb in VERBS:
        assert f"  {verb} " in out
    assert "man " not in out and "__complete" not in out
    r = run(env)
    assert (r.rc, r.out) == (1, out)
    group = good(env, "create", "--help")
    assert "create clusters" in group and "get cluster" not in group


@pytest.mark.parametrize("args, message", [
    (["crate", "cluster"], 'unknown command "crate"; did you mean "create"?'),
    (["create", "clutser"], 'unknown command "create clutser"; did you mean "create cluster"?'),
    (["create", "zebra"], 'unknown command "create zebra"; create takes one of: cluster, clusters, secret'),
    (["zebra"], 'unknown command "zebra"; see tensoronecli --help'),
    (["get"], "get what? One of: cluster, cloud, gpus, events, secrets"),
    (["create", "cluster", "--gpuTyp", "x"],
     'unknown option "--gpuTyp"; did you mean "--gpuType"?'),
    (["logs", "-z", "x"], 'unknown option "-z"; see tensoronecli logs --help'),
    (["create", "clusters", "--zebra"],
     'unknown option "--zebra"; see tensoronecli create clusters --help'),
    (["--zebra"], 'unknown option "--zebra"; see tensoronecli --help'),
    (["create", "cluster", "--mem"], "--mem needs a value: --mem GB"),
    (["create", "cluster", "--mem", "lots"], '--mem: "lots" is not a whole number'),
    (["create", "cluster", "--mem", "0"], "--mem: 0 is outside 1..65536"),
    (["create", "cluster", "--mem", "-5"], "--mem: -5 is outside 1..65536"),
    (["create", "cluster", "--mem", "99999999999999999999"],
     "--mem: 99999999999999999999 is outside 1..65536"),
    (["create", "cluster", "--cost", "cheap"], '--cost: "cheap" is not an amount'),
    (["get", "cluster", "-o", "xml"], '--output: "xml" is not one of: table json'),
    (["get", "cluster", "a", "b"],
     'unexpected "b"; usage: tensoronecli get cluster [CLUSTER]'),
    (["stop", "cluster"], "usage: tensoronecli stop cluster CLUSTER..."),
    (["exec", "trainer"], "usage: tensoronecli exec CLUSTER -- COMMAND [ARGUMENT...]"),
    (["exec", "trainer", "--"], "usage: tensoronecli exec CLUSTER -- COMMAND [ARGUMENT...]"),
    (["completion", "tcsh"], 'unknown shell "tcsh"; one of: bash, zsh, fish'),
    (["logs", "--follow=maybe", "trainer"], '--follow: "maybe" is neither true nor false'),
    (["create", "cluster", "--imageName", "x"],
     'required flag(s) "gpuType" not set; a cluster without GPUs needs --gpuCount 0'),
    (["create", "cluster", "--gpuType", "x"], 'required flag(s) "imageName" not set'),
    (["create", "cluster", "--gpuType", "x", "--imageName", "y", "--env", "novalue"],
     'wrong env value: "novalue" is not KEY=VALUE'),
    (["create", "cluster", "--gpuType", "x", "--imageName", "y", "--stopAfter", "soon"],
     '--stopAfter: "soon" is neither a time such as 2026-01-31T08:00:00Z nor a span such as 10m'),
    (["exec", "-e", "bad", "trainer", "--", "true"],
     'wrong env value: "bad" is not KEY=VALUE'),
    (["stop", "cluster", ""], "an operand is empty; usage: tensoronecli stop cluster CLUSTER..."),
])
def test_usage_errors(env, args, message):
    assert bad(env, *args) == message


def test_version(env):
    assert re.fullmatch(r"tensoronecli \d+\.\d+\.\d+\n", good(env, "version"))
    assert good(env, "--version") == good(env, "version")
    assert re.fullmatch(r"\d+\.\d+\.\d+", json.loads(good(env, "version", "-o", "json"))["version"])


def test_manual_page(env):
    page = good(env, "man")
    r = subprocess.run(["mandoc", "-Tlint", "-W", "style"], input=page, text=True,
                       capture_output=True)
    assert r.returncode == 0 and r.stdout + r.stderr == ""
    text = subprocess.run(["mandoc", "-Tutf8"], input=page, text=True, capture_output=True).stdout
    text = re.sub(".\x08", "", text)
    for verb in VERBS:
        assert verb in text
    assert "--containerDiskSize" in text


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_syntax(env, shell, tmp_path):
    script = tmp_path / "script"
    script.write_text(good(env, "completion", shell))
    r = subprocess.run([shell, "-n", str(script)], capture_output=True, text=True)
    assert r.returncode == 0 and r.stderr == ""


def bash_completes(env, tmp_path, *words):
    script = tmp_path / "script"
    script.write_text(good(env, "completion", "bash"))
    prog = (f"source {script}; COMP_WORDS=({' '.join(repr(w) for w in ('tensoronecli',) + words)});"
            f"COMP_CWORD={len(words)}; _tensoronecli; printf '%s\\n' \"${{COMPREPLY[@]}}\"")
    path = tmp_path / "bin"
    path.mkdir(exist_ok=True)
    if not (path / "tensoronecli").exists():
        (path / "tensoronecli").symlink_to(CLI)
    r = subprocess.run(["bash", "-c", prog], env=dict(env, PATH=f"{path}:{env['PATH']}"),
                       capture_output=True, text=True)
    assert r.returncode == 0 and r.stderr == "", r.stderr
    return [w for w in r.stdout.split("\n") if w]


def test_bash_completion(env, tmp_path):
    assert bash_completes(env, tmp_path, "cr") == ["create"]
    assert bash_completes(env, tmp_path, "get", "") == ["cluster", "clusters", "cloud", "gpus", "gpu", "events", "event", "secrets",
                                                     "secret"]
    assert bash_completes(env, tmp_path, "create", "clusters", "--gpuC") == ["--gpuCount"]
    assert "abcdefghijklm1" in bash_completes(env, tmp_path, "stop", "cluster", "")
    assert bash_completes(env, tmp_path, "logs", "tr") == ["trainer"]
    assert bash_completes(env, tmp_path, "ssh", "tr") == ["trainer"]  # a verb of one word, beside its nouns
    assert {"add-key", "connect", "trainer"} <= set(bash_completes(env, tmp_path, "ssh", ""))
    assert bash_completes(env, tmp_path, "get", "clusters", "-o", "") == ["table", "json"]
    assert bash_completes(env, tmp_path, "completion", "z") == ["zsh"]


def test_fish_completion(env, tmp_path):
    script = tmp_path / "script"
    script.write_text(good(env, "completion", "fish"))
    (tmp_path / "tensoronecli").symlink_to(CLI)  # fish completes only what it can run

    def completes(line):
        r = subprocess.run(["fish", "--no-config", "-c", f"source {script}; complete -C '{line}'"],
                           env=dict(env, PATH=f"{tmp_path}:{env['PATH']}"),
                           capture_output=True, text=True)
        assert r.stderr == "", r.stderr
        return [w.split("\t")[0] for w in r.stdout.splitlines()]
    assert "create" in completes("tensoronecli cr")
    assert set(completes("tensoronecli create ")) >= {"cluster", "clusters"}
    assert "--gpuType" in completes("tensoronecli create clusters --gpuT")
    assert completes("tensoronecli get clusters -o j") == ["json"]


def test_zsh_completion(env, tmp_path):
    (tmp_path / "_tensoronecli").write_text(good(env, "completion", "zsh"))
    (tmp_path / "tensoronecli").symlink_to(CLI)
    t = Terminal([shutil.which("zsh"), "-f", "-i"], dict(env, PATH=f"{tmp_path}:{env['PATH']}"), cols=200)
    # ^X shows the line as completion left it, and empties it
    t.write(f"fpath=({tmp_path} $fpath); autoload -Uz compinit; compinit -u -D; "
            "show() { zle -I; print -r -- \"<$BUFFER>\"; BUFFER= }; zle -N show; bindkey '^X' show; "
            "print set''tled\n".encode())
    t.read_until(rb"settled")
    for typed, line in [("cr", "create "), ("create clusters --gpuT", "create clusters --gpuType "),
                        ("get clusters -o j", "get clusters -o json "),
                        ("logs tr", "logs trainer "), ("ssh tr", "ssh trainer "), ("ssh add", "ssh add-key "), ("completion z", "completion zsh "),
                        ("image ru", "image ru")]:
        t.write(f"tensoronecli {typed}\t\x18".encode())
        t.read_until(f"<tensoronecli {line}>".encode())
    t.write(b"exit\n")
    assert t.wait() == 0


# --- settings

def test_config_saves(env, tmp_path, api):
    env = {k: v for k, v in env.items() if not k.startswith("TENSORONE")}
    assert bad(env, "get", "clusters") == ("the API's address is not set; run: tensoronecli config "
                                           "--apiUrl URL --apiKey KEY")
    path = tmp_path / ".tensorone" / "config.toml"
    assert good(env, "config", "--apiUrl", api.url + "/graphql", "--apiKey", KEY) == (
        f"Configuration saved to file: {path}\n")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert path.read_text() == f'apiUrl = "{api.url}"\napiKey = "{KEY}"\n'
    assert "trainer" in good(env, "get", "clusters")
    shown = good(env, "config")
    assert api.url in shown and "apiKey: set" in shown and KEY not in shown
    # the rest of the file is the user's
    path.write_text("# mine\n" + path.read_text() + '[other]\napiKey = "not this"\n')
    good(env, "config", "--apiKey", "-", stdin=b"second-key\n")
    assert path.read_text() == (f'# mine\napiUrl = "{api.url}"\napiKey = "second-key"\n'
                                '[other]\napiKey = "not this"\n')
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "refused the key" in bad(env, "get", "clusters")


def test_config_sources(env, tmp_path, api):
    env.update(RUNPOD_API_URL="http://127.0.0.1:1/", RUNPOD_API_KEY="wrong")
    assert "trainer" in good(env, "get", "clusters")
    del env["TENSORONE_API_URL"], env["TENSORONE_API_KEY"]
    env.update(RUNPOD_API_URL=api.url + "/graphql/", RUNPOD_API_KEY=KEY)
    (tmp_path / ".tensorone").mkdir()
    (tmp_path / ".tensorone" / "config.toml").write_text('apiUrl = "http://127.0.0.1:1"\n')
    os.chmod(tmp_path / ".tensorone" / "config.toml", 0o600)
    assert "trainer" in good(env, "get", "clusters")
    assert json.loads(good(env, "config", "-o", "json")) == {
        "apiUrl": api.url, "apiUrlFrom": "RUNPOD_API_URL", "apiKeySet": True,
        "apiKeyFrom": "RUNPOD_API_KEY", "caFile": None, "caFileFrom": None}


@pytest.mark.parametrize("url, message", [
    ("ftp://x", '--apiUrl: "ftp://x" does not begin with http:// or https://'),
    ("http://", "--apiUrl: the address must be http(s)://HOST[:PORT][/PATH], without user, query "
                "or blanks"),
    ("http://u:p@x", "--apiUrl: the address must be http(s)://HOST[:PORT][/PATH], without user, "
                     "query or blanks"),
])
def test_config_bad_url(env, url, message):
    assert bad(env, "config", "--apiUrl", url) == message


def test_config_bad_values(env, tmp_path):
    assert "line breaks" in bad(env, "config", "--apiKey", "a\r\nX-Evil: 1")
    assert bad(env, "config", "--apiKey", "") == "--apiKey: the API key is empty"
    (tmp_path / ".tensorone").mkdir()
    path = tmp_path / ".tensorone" / "config.toml"
    path.write_text("apiKey = 12\n")
    del env["TENSORONE_API_KEY"]
    path.chmod(0o600)
    assert bad(env, "get", "clusters") == f"{path}: line 1: apiKey must be a string in quotes"
    path.write_text('apiKey = "x"\n')
    path.chmod(0o644)
    assert "others can read" in run(env, "get", "clusters").err


# --- create

def test_product_page_example(env, api):
    assert good(env, *EXAMPLE) == 'cluster "new00000000003" created for $0.500 / hr\n'
    assert sent(api, "clusterFindAndDeployOnDemand")["input"] == {
        "gpuTypeId": "NVIDIA A100", "imageName": "tensorone/llm-starter",
        "containerDiskInGb": 20, "volumeInGb": 40, "minMemoryInGb": 32, "minVcpuCount": 1,
        "gpuCount": 1, "dockerArgs": "python run.py", "volumeMountPath": "/runpod",
        "cloudType": "COMMUNITY", "name": "tensorone/llm-starter"}


def test_product_page_example_without_gpu(env, api):
    api.gpus_with_room = set()
    assert bad(env, *EXAMPLE).startswith("There are no longer any instances available")
    assert good(env, *EXAMPLE, "--gpuCount", "0").startswith('cluster "new')
    assert sent(api, "clusterFindAndDeployOnDemand")["input"]["gpuCount"] == 0


def test_create_all_fields(env, api):
    good(env, "create", "cluster", "--gpuType", "NVIDIA H100", "--imageName",
         "docker.io:443/library/debian:12@sha256:00", "--name", "x", "--env", "A=1,B=two=2,x",
         "--env=C=", "--ports", "8888/http, 22/tcp", "--ports", "99/tcp", "--cost", "1.5",
         "--secureCloud", "--startSSH", "--networkVolumeId", "nv", "--dataCenterId", "dc",
         "--computeType", "GPU", "--vcpu=3", "--volumePath", "/data", "--stopAfter",
         "2030-01-01T00:00:00Z", "--terminateAfter", "90m")
    i = sent(api, "clusterFindAndDeployOnDemand")["input"]
    assert i["env"] == [{"key": "A", "value": "1"}, {"key": "B", "value": "two=2,x"},
                        {"key": "C", "value": ""}]
    assert i["ports"] == "8888/http,22/tcp,99/tcp"
    assert i["deployCost"] == 1.5 and i["cloudType"] == "SECURE" and i["startSsh"] is True
    assert i["stopAfter"].startswith("2030-01-01T00:00:00") and i["name"] == "x"
    due = time.mktime(time.strptime(i["terminateAfter"][:19], "%Y-%m-%dT%H:%M:%S")) - time.timezone
    assert abs(due - time.time() - 5400) < 60


def test_create_default_names(env, api):
    for image, name in [("debian", "debian"), ("debian:12", "debian"), ("a:5000/b/c:1@x", "a:5000/b/c"),
                        ("a:5000/b", "a:5000/b"), ("a@sha256:00", "a")]:
        good(env, "create", "cluster", "--gpuCount", "0", "--imageName", image)
        assert sent(api, "clusterFindAndDeployOnDemand")["input"]["name"] == name


def test_create_from_template_is_sparse(env, api):
    good(env, "create", "cluster", "--templateId", "tpl1", "--gpuType", "NVIDIA A100", "--mem", "8")
    assert sent(api, "clusterFindAndDeployOnDemand")["input"] == {
        "templateId": "tpl1", "gpuTypeId": "NVIDIA A100", "minMemoryInGb": 8,
        "cloudType": "COMMUNITY"}


def test_create_several_tries_gpus_in_order(env, api):
    api.gpus_with_room = {"NVIDIA H100"}
    out = good(env, "create", "clusters", "--gpuType", "NVIDIA A100, NVIDIA H100,NVIDIA L4",
               "--imageName", "x", "--clusterCount", "2")
    assert len(out.splitlines()) == 2
    asked = [json.loads(b)["variables"]["input"]["gpuTypeId"] for _, p, _, b in api.requests]
    assert asked == ["NVIDIA A100", "NVIDIA H100", "NVIDIA H100"]
    api.gpus_with_room = set()
    say = bad(env, "create", "clusters", "--gpuType", "NVIDIA A100,NVIDIA L4", "--imageName", "x")
    assert "no free NVIDIA A100" in say and "no free NVIDIA L4" in say


def test_create_stops_at_another_error(env, api):
    api.broken = Refusal("account is over its limit")
    assert bad(env, "create", "clusters", "--gpuType", "A,B,C", "--imageName", "x") == (
        "account is over its limit")
    assert len(api.requests) == 1


def test_create_json(env):
    one = json.loads(good(env, "create", "cluster", "--gpuCount", "0", "--imageName", "x", "-o",
                          "json"))
    assert one["id"].startswith("new") and one["costPerHr"] == 0.5
    many = json.loads(good(env, "create", "clusters", "--gpuCount", "0", "--imageName", "x", "-o",
                           "json", "--clusterCount", "3"))
    assert [c["desiredStatus"] for c in many] == ["RUNNING"] * 3


def test_create_wait(env, api):
    api.phases = [{"phase": "pulling", "progressPercent": 43}, {"phase": "starting"},
                  {"phase": "running", "runtime": {"uptimeInSeconds": 0, "ports": []}},
                  {"phase": "ready", "runtime": {"uptimeInSeconds": 0, "ports": []}}]
    out = good(env, "create", "cluster", "--gpuCount", "0", "--imageName", "x", "--wait")
    assert out.startswith('cluster "new') and api.phases == []


def test_create_wait_failure(env, api):
    api.phases = [{"phase": "pulling"},
                  {"phase": "exited", "desiredStatus": "EXITED", "reason": "image: no such tag"}]
    r = run(env, "create", "cluster", "--gpuCount", "0", "--imageName", "x", "--wait")
    assert r.rc == 1 and "did not start: image: no such tag" in r.err


def test_create_wait_shows_progress_on_a_terminal(env, api):
    api.phases = [{"phase": "pulling", "progressPercent": 43}, {"phase": "starting"},
                  {"phase": "running", "runtime": {"uptimeInSeconds": 0, "ports": []}},
                  {"phase": "ready", "runtime": {"uptimeInSeconds": 0, "ports": []}}]
    t = terminal(env, "create", "cluster", "--gpuCount", "0", "--imageName", "x", "--wait")
    assert t.wait() == 0
    assert re.search(rb"pulling \[#+\.+\]  43%", t.out), t.out


def test_create_wait_shows_bytes_and_rate(env, api):
    api.phases = [{"phase": "pulling", "progressPercent": 0, "progressBytes": 0, "progressBytesPerSecond": 0},
                  {"phase": "pulling", "progressPercent": 10, "progressBytes": 123 << 20,
                   "progressTotalBytes": 1229 << 20, "progressBytesPerSecond": 45 << 20}, {"phase": "starting"},
                  {"phase": "running", "runtime": {"uptimeInSeconds": 0, "ports": []}},
                  {"phase": "ready", "runtime": {"uptimeInSeconds": 0, "ports": []}}]
    t = terminal(env, "create", "cluster", "--gpuCount", "0", "--imageName", "x", "--wait", cols=100)
    assert t.wait() == 0
    assert re.search(rb"pulling \[#+\.+\]  10% 123 MiB of 1.2 GiB 45 MiB/s ETA 25s\x1b\[K", t.out), t.out


# --- get

HEAD = ["ID", "NAME", "GPU", "IMAGE NAME", "STATUS"]


def cells(line):
    assert line.endswith("\t")
    return [c.rstrip(" ") for c in line[:-1].split("\t")]


def test_get_table(env):
    lines = good(env, "get", "cluster").splitlines()
    assert cells(lines[0]) == HEAD
    assert cells(lines[1]) == ["abcdefghijklm1", "trainer", "1 A100", "tensorone/llm-starter",
                               "RUNNING"]
    assert len(lines) == 4 and len({len(line) for line in lines}) == 1
    assert good(env, "get", "clusters") == good(env, "get", "cluster")
    assert cells(good(env, "get", "cluster", "trainer").splitlines()[1]) == cells(lines[1])


def test_get_all_fields(env):
    out = good(env, "get", "cluster", "abcdefghijklm1", "-a")
    head, row = (cells(line) for line in out.splitlines())
    assert head == HEAD + ["CLUSTER TYPE", "VCPU", "MEM", "CONTAINER DISK", "VOLUME DISK",
                           "LOCATION", "$/HR", "PORTS", "CPU PRESSURE", "MEM PRESSURE", "IO PRESSURE",
                           "PHASE", "REASON", "URLS"]
    assert row[5:] == ["RESERVED", "4", "32", "20", "40", "here", "0.500",
                       "192.0.2.7:40022->22\u00a0(pub,tcp),100.96.0.7:8000->8000\u00a0(prv,http)",
                       "12.5%", "0.0%", "", "running", "", "https://abcdefghijklm1-8000.proxy.localhost:8443"]
    assert good(env, "get", "cluster", "trainer", "--allfields") == out


def test_get_json(env, api):
    assert json.loads(good(env, "get", "clusters", "-o", "json")) == api.clusters
    assert json.loads(good(env, "get", "cluster", "trainer", "-ojson")) == api.clusters[0]


def test_get_empty(env, api):
    api.clusters = []
    assert [cells(line) for line in good(env, "get", "cluster").splitlines()] == [HEAD]
    assert json.loads(good(env, "get", "cluster", "--output=json")) == []


def test_get_unknown_and_ambiguous(env):
    assert bad(env, "get", "cluster", "nobody") == 'there is no cluster "nobody"'
    assert bad(env, "get", "cluster", "twin") == (
        '2 clusters are named "twin" (abcdefghijklm2, abcdefghijklm3); use an id')


def test_get_hostile_text(env, api):
    api.clusters = [fake_api.cluster("abcdefghijklm1", "evil\x1b[2Jname\tx\n")]
    out = good(env, "get", "cluster")
    assert "\x1b" not in out and len(out.splitlines()) == 2 and len(cells(out.splitlines()[1])) == 5


def test_get_pulling(env, api):
    api.clusters = [fake_api.cluster("a1", "p", phase="pulling", progressPercent=43, runtime=None)]
    row = cells(good(env, "get", "cluster", "-a").splitlines()[1])
    assert row[-4:-1] == ["", "pulling 43%", ""]
    api.clusters[0].update(progressBytes=43 << 20, progressTotalBytes=100 << 20, progressBytesPerSecond=1 << 20)
    row = cells(good(env, "get", "cluster", "-a").splitlines()[1])
    assert row[-3] == "pulling 43% 43 MiB of 100 MiB 1.0 MiB/s ETA 57s"
    assert json.loads(good(env, "get", "clusters", "-o", "json")) == api.clusters


def test_get_cloud(env, api):
    lines = good(env, "get", "cloud", "2", "--mem", "16", "--secure").splitlines()
    assert [cells(line) for line in lines] == [
        ["GPU TYPE", "MEM GB", "VCPU", "SPOT $/HR", "ONDEMAND $/HR"],
        ["2x NVIDIA A100", "32", "8", "Reserved", "1.500"]]
    assert sent(api, "lowestPrice")["input"] == {"gpuCount": 2, "secureCloud": True,
                                                 "minMemoryInGb": 16}
    good(env, "get", "cloud")
    assert sent(api, "lowestPrice")["input"] == {"gpuCount": 1, "secureCloud": None}
    assert len(json.loads(good(env, "get", "cloud", "-o", "json"))) == 1
    assert "GPUCOUNT" in bad(env, "get", "cloud", "many")


# --- start, stop, restart, remove

def test_life_cycle(env, api):
    assert good(env, "stop", "cluster", "trainer") == 'cluster "abcdefghijklm1" stopped\n'
    api.clusters[0].update(desiredStatus="RUNNING")
    assert good(env, "start", "cluster", "trainer") == (
        'cluster "abcdefghijklm1" started with $0.500 / hr\n')
    assert sent(api, "clusterResume")["input"] == {"clusterId": "abcdefghijklm1"}
    good(env, "start", "cluster", "trainer", "--gpuCount", "2")
    assert sent(api, "clusterResume")["input"]["gpuCount"] == 2
    good(env, "start", "clusters", "trainer", "--bid", "0.25")
    assert sent(api, "clusterBidResume")["input"]["bidPerGpu"] == 0.25
    assert good(env, "restart", "cluster", "trainer") == 'cluster "abcdefghijklm1" restarted\n'
    assert good(env, "remove", "cluster", "trainer") == 'cluster "abcdefghijklm1" removed\n'
    assert bad(env, "remove", "cluster", "trainer") == 'there is no cluster "trainer"'


def test_update(env, api):
    assert good(env, "update", "cluster", "trainer", "--vcpu", "4", "--mem", "8") == (
        'cluster "abcdefghijklm1" is being updated\n')
    assert sent(api, "clusterUpdate")["input"] == {
        "clusterId": "abcdefghijklm1", "vcpuCount": 4, "memoryInGb": 8}
    assert good(env, "update", "cluster", "trainer", "--gpuCount", "0", "--containerDiskSize", "30",
                "--volumeSize", "9", "--ifVersion", "2", "--wait") == (
        'cluster "abcdefghijklm1" updated\n')
    assert sent(api, "clusterUpdate")["input"] == {
        "clusterId": "abcdefghijklm1", "gpuCount": 0, "containerDiskInGb": 30, "volumeInGb": 9,
        "generation": 2}
    out = json.loads(good(env, "update", "cluster", "trainer", "--vcpu", "2", "--wait", "-o", "json"))
    assert out["vcpuCount"] == 2 and out["updating"] is False
    api.refuse_update = "memoryInGb: 1024 MiB are too little"
    assert bad(env, "update", "cluster", "trainer", "--mem", "1", "--wait") == (
        'cluster "abcdefghijklm1" was not updated: memoryInGb: 1024 MiB are too little')
    assert "update what?" in bad(env, "update", "cluster", "trainer")
    assert "update what?" in bad(env, "update", "cluster", "trainer", "--ifVersion", "1")
    assert bad(env, "update", "cluster", "nobody", "--vcpu", "1") == 'there is no cluster "nobody"'
    for words in (["--vcpu", "0"], ["--vcpu", "-1"], ["--mem", "x"], ["--gpuCount", "65"],
                  ["--volumeSize", "0"], ["--containerDiskSize", "70000"]):
        assert words[0] in bad(env, "update", "cluster", "trainer", *words)


def test_wrong_status(env, api):
    api.clusters[0].update(desiredStatus="EXITED", lastStatusChange="Exited by user")
    assert bad(env, "start", "cluster", "trainer") == (
        'cluster "abcdefghijklm1" is EXITED: Exited by user')


def test_several_at_once(env):
    r = run(env, "stop", "clusters", "trainer", "nobody", "abcdefghijklm2")
    assert r.rc == 1
    assert r.out == 'cluster "abcdefghijklm1" stopped\ncluster "abcdefghijklm2" stopped\n'
    assert r.err == 'Error: there is no cluster "nobody"\n'
    out = json.loads(good(env, "stop", "clusters", "trainer", "abcdefghijklm2", "-o", "json"))
    assert [c["id"] for c in out] == ["abcdefghijklm1", "abcdefghijklm2"]
    assert json.loads(good(env, "remove", "cluster", "trainer", "-o", "json")) == {
        "id": "abcdefghijklm1", "removed": True}


def test_remove_by_name(env, api):
    assert good(env, "remove", "clusters", "nobody") == '0 clusters removed with name "nobody"\n'
    assert good(env, "remove", "clusters", "twin") == '1 clusters removed with name "twin"\n'
    assert good(env, "remove", "clusters", "twin", "--clusterCount", "5", "-o", "json") == (
        json.dumps({"name": "twin", "removed": 1}, indent=2) + "\n")
    assert [c["name"] for c in api.clusters] == ["trainer"]


def test_stop_wait(env, api):
    api.phases = [{}, {"phase": "stopping"}, {"phase": "exited", "desiredStatus": "EXITED"}]
    assert good(env, "stop", "cluster", "trainer", "--wait").endswith("stopped\n")


# --- refusals and broken servers

@pytest.mark.parametrize("status, body, message", [
    (401, None, "unauthorized: the API refused the key (HTTP 401); set one with: tensoronecli "
                "config --apiKey KEY"),
    (200, None, "unauthorized"),
    (500, None, "unauthorized"),
    (502, b"<html>bad gateway</html>", "the API answered with HTTP status 502 and no message"),
])
def test_refusals(env, api, status, body, message):
    api.broken = Refusal("unauthorized", status, body)
    assert bad(env, "get", "clusters") == message


def test_not_an_api(env, api):
    api.broken = Refusal("", 200, b"<html>hello</html>")
    assert "does not speak the TensorOne API" in bad(env, "get", "clusters")


def test_unreachable(env):
    env["TENSORONE_API_URL"] = "http://127.0.0.1:1"
    assert bad(env, "get", "clusters").startswith("the API at http://127.0.0.1:1 cannot be reached")
    assert bad(env, "exec", "abc", "--", "true").startswith("the API at http://127.0.0.1:1 cannot")


def test_message_cannot_drive_the_terminal(env, api):
    api.broken = Refusal("bad\x1b[31m\nthing")
    assert bad(env, "get", "clusters") == "bad [31m thing"


def test_full_disk(env):
    with open("/dev/full", "wb") as full:
        p = subprocess.run([CLI, "get", "clusters"], env=env, stdout=full, stderr=subprocess.PIPE)
    assert p.returncode == 1 and p.stderr == (
        b"Error: standard output: No space left on device\n")


def test_key_is_nowhere_in_the_process_list(env, api):
    p = subprocess.Popen([CLI, "logs", "-f", "trainer"], env=env, stdout=subprocess.PIPE)
    api.log_more = [b"x"] * 20
    p.stdout.read(1)
    with open(f"/proc/{p.pid}/cmdline", "rb") as f:
        assert KEY.encode() not in f.read()
    p.kill()
    p.wait()


# --- logs

def test_logs(env, api):
    assert good(env, "logs", "trainer") == "one\ntwo\nthree\n"
    assert good(env, "logs", "--tail", "1", "abcdefghijklm1") == "three\n"
    good(env, "logs", "--since", "2026-01-31T08:00:00Z", "--timestamps", "--stream", "stderr",
         "trainer")
    _, path, args, _ = api.requests[-1]
    assert path == "/v1/clusters/abcdefghijklm1/logs"
    assert args == {"since": ["2026-01-31T08:00:00.000000Z"], "timestamps": ["1"],
                    "stream": ["stderr"]}
    good(env, "logs", "--since", "10m", "trainer")
    assert api.requests[-1][2]["since"][0].endswith("Z")


def test_logs_are_bytes(env, api):
    api.log_text = bytes(range(256)) * 300
    p = subprocess.run([CLI, "logs", "trainer"], env=env, capture_output=True)
    assert p.stdout == api.log_text and p.returncode == 0


def test_logs_follow(env, api):
    api.log_more = [b"four\n", b"five"]
    p = subprocess.Popen([CLI, "logs", "-f", "trainer"], env=env, stdout=subprocess.PIPE)
    assert p.stdout.read(14) == b"one\ntwo\nthree\n"  # before the end of the stream
    assert p.stdout.read() == b"four\nfive" and p.wait() == 0


def test_logs_into_a_closed_pipe(env, api):
    api.log_text = b"x" * 10 ** 6
    p = subprocess.Popen([CLI, "logs", "trainer"], env=env, stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE)
    p.stdout.read(10)
    p.stdout.close()
    assert p.wait() == 1 and b"Broken pipe" in p.stderr.read()


# --- exec

def test_exec_passes_words_and_status(env, api):
    out = good(env, "exec", "trainer", "--", "printf", "[%s]", "a b", "-x", "--", "$HOME", "é")
    assert out == "[a b][-x][--][$HOME][é]"
    assert good(env, "exec", "trainer", "echo", "-n", "hi") == "hi"
    r = run(env, "exec", "trainer", "--", "sh", "-c", "echo out; echo err >&2; exit 42")
    assert (r.rc, r.out, r.err) == (42, "out\n", "err\n")
    assert run(env, "exec", "trainer", "--", "sh", "-c", "kill -9 $$").rc == 137


def test_exec_environment(env, tmp_path):
    out = good(env, "exec", "-e", "A=x y", "--env", "B=1=2", "--cwd", str(tmp_path), "trainer",
               "--", "sh", "-c", 'printf "%s|%s|%s" "$A" "$B" "$PWD"')
    assert out == f"x y|1=2|{tmp_path}"


def test_exec_user_is_sent(env, api):
    good(env, "exec", "-u", "app:staff", "trainer", "--", "true")
    assert api.requests[-1][2] == {"user": ["app:staff"], "cmd": ["true"]}


def test_exec_without_stdin_sees_its_end(env):
    assert good(env, "exec", "trainer", "--", "cat", stdin=b"not for you") == ""


@pytest.mark.parametrize("size", [0, 1, 100, 70000, 5 * 10 ** 6])
def test_exec_stdin_and_stdout(env, size):
    data = os.urandom(size)
    p = subprocess.run([CLI, "exec", "-i", "trainer", "--", "cat"], env=env, input=data,
                       capture_output=True, timeout=60)
    assert p.returncode == 0 and p.stdout == data


def test_exec_refusals(env, api):
    assert bad(env, "exec", "nobody", "--", "true") == 'there is no cluster "nobody"'
    api.exec_mode = "refuse"
    assert bad(env, "exec", "trainer", "--", "true") == "the cluster is not running"
    api.exec_mode = "error"
    assert bad(env, "exec", "trainer", "--", "true") == (
        "the command cannot be started: no such file")
    api.exec_mode = "drop"
    r = run(env, "exec", "trainer", "--", "true")
    assert r.rc == 1 and r.out == "half an ans" and "connection to the API was lost" in r.err


def test_exec_signals_are_passed_on(env):
    prog = "trap 'echo got; exit 7' INT; echo ready; while :; do sleep 0.05; done"
    p = subprocess.Popen([CLI, "exec", "trainer", "--", "sh", "-c", prog], env=env,
                         stdout=subprocess.PIPE)
    assert p.stdout.readline() == b"ready\n"
    p.send_signal(signal.SIGINT)
    assert p.stdout.read() == b"got\n" and p.wait() == 7


def test_exec_gives_up_when_nobody_listens(env):
    prog = "trap '' INT; echo ready; while :; do sleep 0.05; done"
    p = subprocess.Popen([CLI, "exec", "trainer", "--", "sh", "-c", prog], env=env,
                         stdout=subprocess.PIPE)
    assert p.stdout.readline() == b"ready\n"
    for _ in range(4):
        p.send_signal(signal.SIGINT)
        time.sleep(0.1)
    assert p.wait(10) == 130


def test_exec_terminal(env, api):
    t = terminal(env, "exec", "-it", "trainer", "--", "sh", "-c",
                 "stty size; read x; echo \"<$x>\"; read y; stty size; exit 5", rows=31, cols=97)
    t.read_until(rb"31 97\r\n")
    t.write(b"hello\r")
    t.read_until(rb"<hello>")
    t.resize(40, 120)
    while (40, 120) not in api.exec_sizes:
        time.sleep(0.02)
    t.write(b"\r")
    assert t.wait() == 5
    assert b"40 120\r\n" in t.out and t.out.count(b"<hello>") == 1


def test_exec_terminal_is_raw_and_restored(env):
    t = terminal(env, "exec", "-it", "trainer", "--", "sh", "-c",
                 "trap 'echo int; exit 3' INT; echo ready; while :; do sleep 0.05; done")
    t.read_until(rb"ready")
    raw = termios.tcgetattr(t.fd)
    assert not raw[3] & (termios.ICANON | termios.ECHO | termios.ISIG)
    t.write(b"\x03")  # a byte for the far terminal, not a signal for us
    t.read_until(rb"int")
    end = time.monotonic() + 10
    while os.waitpid(t.pid, os.WNOHANG)[0] == 0 and time.monotonic() < end:
        time.sleep(0.02)
    after = termios.tcgetattr(t.fd)
    assert after[3] & termios.ICANON and after[3] & termios.ECHO
    os.close(t.fd)


def test_exec_terminal_restored_after_a_signal(env):
    t = terminal(env, "exec", "-it", "trainer", "--", "sh", "-c", "echo ready; sleep 60")
    t.read_until(rb"ready")
    os.kill(t.pid, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(t.pid, 0)[1]) == 143
    assert termios.tcgetattr(t.fd)[3] & termios.ECHO
    os.close(t.fd)


# --- images

def make_layout(path):
    (path / "blobs" / "sha256").mkdir(parents=True)
    (path / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (path / "index.json").write_text("{}")
    (path / "blobs" / "sha256" / ("b" * 64)).write_bytes(os.urandom(700000))
    (path / "blobs" / "sha256" / ("a" * 64)).write_bytes(b"")
    return path


def test_import_directory(env, api, tmp_path):
    layout = make_layout(tmp_path / "layout")
    out = good(env, "image", "import", "my/model:1", str(layout))
    assert re.fullmatch(r'image "my/model:1" imported \(sha256:(cd){32}, \d+\.\d kB\)\n', out)
    assert api.requests[-1][2] == {"name": ["my/model:1"]}
    with tarfile.open(fileobj=io.BytesIO(api.uploads[0])) as tar:
        assert tar.getnames() == ["oci-layout", "index.json", "blobs/sha256/" + "a" * 64,
                                  "blobs/sha256/" + "b" * 64]
        for m in tar.getmembers():
            assert tar.extractfile(m).read() == (layout / m.name).read_bytes()
            assert (m.uid, m.gid, m.mtime, m.uname) == (0, 0, 0, "")
    good(env, "image", "import", "my/model:1", str(layout), "--public")
    assert api.requests[-1][2]["public"] == ["1"] and api.uploads[0] == api.uploads[1]


def test_import_tar_and_stdin(env, api, tmp_path):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        tar.add(make_layout(tmp_path / "layout"), ".")
    (tmp_path / "image.tar").write_bytes(data.getvalue())
    good(env, "image", "import", "x", str(tmp_path / "image.tar"))
    good(env, "image", "import", "x", "-", stdin=data.getvalue())
    assert api.uploads == [data.getvalue()] * 2
    result = json.loads(good(env, "image", "import", "x", "-", "-o", "json",
                             stdin=data.getvalue()))
    assert result["reference"] == "x" and result["sizeBytes"] == len(data.getvalue())


def test_import_docker_archive_directory_with_links(env, api, tmp_path):
    (tmp_path / "d" / "one").mkdir(parents=True)
    (tmp_path / "d" / "manifest.json").write_text("[]")
    (tmp_path / "d" / "layer.tar").write_text("x")
    (tmp_path / "d" / "one" / "layer.tar").symlink_to("../layer.tar")
    good(env, "image", "import", "x", str(tmp_path / "d"))
    with tarfile.open(fileobj=io.BytesIO(api.uploads[0])) as tar:
        assert tar.getnames()[0] == "manifest.json"
        assert tar.getmember("one/layer.tar").linkname == "../layer.tar"


def test_import_bad_paths(env, api, tmp_path):
    assert bad(env, "image", "import", "x", str(tmp_path / "none")) == (
        f"{tmp_path / 'none'}: No such file or directory")
    (tmp_path / "empty").mkdir()
    assert "holds no image: neither index.json (an OCI layout) nor manifest.json" in bad(
        env, "image", "import", "x", str(tmp_path / "empty"))
    (tmp_path / "zero").write_bytes(b"")
    assert bad(env, "image", "import", "x", str(tmp_path / "zero")).endswith("zero is empty")
    make_layout(tmp_path / "fifo")
    os.mkfifo(tmp_path / "fifo" / "pipe")
    assert "pipe is neither a file nor a link" in bad(env, "image", "import", "x",
                                                      str(tmp_path / "fifo"))
    assert api.uploads == []


def test_import_refused_half_way(env, api, tmp_path):
    layout = make_layout(tmp_path / "layout")
    with open(layout / "blobs" / "sha256" / ("c" * 64), "wb") as f:
        f.truncate(200 * 10 ** 6)
    api.broken = Refusal("only administrators may publish images", 403)
    assert bad(env, "image", "import", "x", str(layout), "--public") == (
        "only administrators may publish images")


def test_pull(env, api):
    out = good(env, "image", "pull", "docker.io/library/debian:12")
    assert out == f'image "docker.io/library/debian:12" pulled (sha256:{"ef" * 32}, 77.3 MB)\n'
    assert json.loads(api.requests[-1][3]) == {"reference": "docker.io/library/debian:12",
                                               "force": False}
    good(env, "image", "pull", "--force", "x")
    assert json.loads(api.requests[-1][3])["force"] is True
    assert json.loads(good(env, "image", "pull", "x", "-o", "json"))["sizeBytes"] == 77300000
    api.pull_error = "docker.io/library/none: no such image"
    assert bad(env, "image", "pull", "none") == "docker.io/library/none: no such image"


@pytest.mark.parametrize("cols", [200, 80, 40, 24, 12])
def test_progress_bar_fits(env, api, cols):
    api.pull_delay = 0.12
    t = terminal(env, "image", "pull", "x", cols=cols)
    assert t.wait() == 0
    drawn = re.findall(rb"\r([^\r\n]*)\x1b\[K", t.out)
    assert any(drawn), t.out
    assert max(len(d) for d in drawn) < cols
    bars = [d for d in drawn if b"[" in d]
    assert bool(bars) == (cols >= 40)
    if cols >= 80:
        assert re.fullmatch(rb"downloading \[#+\.+\]  33% 9.5 MiB of 29 MiB 4.8 MiB/s ETA 4s", bars[0]), bars
        assert re.fullmatch(rb"downloading \[#+\] 100% 29 MiB of 29 MiB 4.8 MiB/s", bars[2]), bars
    elif cols == 40:
        assert re.fullmatch(rb"downloading \[###\.+\]  33% 4.8 MiB/s", bars[0]), bars
    assert len({b.index(b"]") for b in bars}) <= 1, "the bar does not tremble"
    if cols > 24:
        assert re.search(rb"\d+%", drawn[0])
    assert t.out.rstrip().endswith(b"77.3 MB)")


def test_no_progress_without_a_terminal(env, api):
    assert run(env, "image", "pull", "x").err == ""


def test_plain_lines_when_it_takes_long(env, api):
    """What a log gets: a line every ten seconds, and nothing that moves a cursor."""
    api.pull_steps, api.pull_delay = 2, 10.1
    r = run(env, "image", "pull", "x", "-o", "json")
    assert r.rc == 0 and json.loads(r.out)["sizeBytes"] == 77300000
    assert r.err == "downloading 100% 19 MiB of 19 MiB 4.8 MiB/s\n"


def test_image_ls_and_rm(env, api):
    lines = good(env, "image", "ls").splitlines()
    assert [cells(line) for line in lines] == [
        ["REFERENCE", "DIGEST", "SIZE", "SHARED", "CREATED", "LAST USED", "PUBLIC", "IN USE"],
        ["docker.io/library/debian:12", "abababababab", "77.3 MB", "50.0 MB", "2026-01-01T00:00:00Z", "",
         "no", "yes"]]
    assert good(env, "image", "list") == good(env, "image", "ls")
    assert json.loads(good(env, "image", "ls", "-o", "json")) == api.images
    assert good(env, "image", "rm", "docker.io/library/debian:12") == (
        'image "docker.io/library/debian:12" removed\n')
    assert bad(env, "image", "rm", "docker.io/library/debian:12") == (
        'there is no image "docker.io/library/debian:12"')


# --- templates

def test_templates(env, api):
    assert good(env, "template", "create", "web", "--imageName", "nginx", "--ports", "80/http",
                "--env", "A=1", "--containerDiskSize", "5", "--public") == (
        'template "tpl2" created\n')
    assert sent(api, "saveTemplate")["input"] == {
        "name": "web", "imageName": "nginx", "containerDiskInGb": 5, "volumeInGb": 1,
        "volumeMountPath": "/runpod", "dockerArgs": "", "env": [{"key": "A", "value": "1"}],
        "ports": "80/http", "isPublic": True}
    rows = [cells(line) for line in good(env, "template", "ls").splitlines()]
    assert rows[0] == ["ID", "NAME", "IMAGE NAME", "CONTAINER DISK", "VOLUME DISK", "PORTS", "ARGS",
                       "PUBLIC"]
    assert rows[2] == ["tpl2", "web", "nginx", "5", "1", "80/http", "", "yes"]
    assert [cells(x) for x in good(env, "template", "get", "web").splitlines()][1] == rows[2]
    assert json.loads(good(env, "template", "get", "tpl1", "-o", "json"))["name"] == "chat"
    assert len(json.loads(good(env, "template", "ls", "-o", "json"))) == 2
    assert good(env, "template", "rm", "tpl2") == 'template "tpl2" removed\n'
    assert sent(api, "deleteTemplate") == {"name": "web"}
    assert bad(env, "template", "rm", "web") == 'there is no template "web"'
    assert bad(env, "template", "create", "x") == 'required flag(s) "imageName" not set'
