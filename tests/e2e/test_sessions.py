"""Exec sessions and standard input on a real host: what flows, what a signal reaches, and what a
program sees that nobody writes to."""
import json
import os
import signal
import subprocess
import threading

import pytest

from host import Host, program


@pytest.fixture(scope="module")
def host():
    with Host({"engine": {"cpu_overcommit": 100, "memory_overcommit": 20, "disk_overcommit": 100,
                          "pool_networks": 0, "pool_disks": 0, "grace": "1s"}}) as h:
        h.import_image("tensorone/starter")
        yield h


@pytest.fixture(scope="module")
def cluster(host):
    with host.running("sleep", "1000") as c:
        yield c


def cli_exec(host, cluster, *words, **kw):
    return subprocess.Popen([program("tensoronecli"), "exec", *words[:1], cluster, "--",
                             *words[1:]], env=host.cli_env(), stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, **kw)


@pytest.mark.parametrize("command, size", [("cat", 6 << 20), ("head -c 0 | cat; sleep 0.2", 1 << 20),
                                           ("tee /dev/stderr", 1 << 20)])
def test_much_both_ways(host, cluster, command, size):
    """No window is large enough to hang: the session goes on whatever the sizes are."""
    data = os.urandom(size)
    p = cli_exec(host, cluster, "-i", "sh", "-c", command, stdin=subprocess.PIPE)
    out, err = p.communicate(data, timeout=60)
    assert p.returncode == 0
    assert out == (b"" if command.startswith("head") else data)
    assert err == (data if "stderr" in command else b"")


def test_output_while_stdin_is_blocked(host, cluster):
    """The program writes much, then reads; the client has much to say from the start."""
    p = cli_exec(host, cluster, "-i", "sh", "-c", "head -c 3000000 /dev/zero; wc -c >&2",
                 stdin=subprocess.PIPE)
    out, err = p.communicate(b"x" * 3000000, timeout=60)
    assert (len(out), err.strip(), p.returncode) == (3000000, b"3000000", 0)


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("who", ["-u0", "-u1000"])
def test_signals_without_a_terminal(host, cluster, sig, who):
    p = cli_exec(host, cluster, who, "sh", "-c", "echo ready; exec sleep 100",
                 stdin=subprocess.DEVNULL)
    assert p.stdout.readline() == b"ready\n"
    p.send_signal(sig)
    out, err = p.communicate(timeout=20)
    assert (p.returncode, out, err) == (128 + sig, b"", b"")


def test_a_signal_can_be_handled(host, cluster):
    p = cli_exec(host, cluster, "-u0", "sh", "-c",
                 "trap 'echo caught; exit 7' TERM; echo ready; while :; do sleep 0.1; done",
                 stdin=subprocess.DEVNULL)
    assert p.stdout.readline() == b"ready\n"
    p.send_signal(signal.SIGTERM)
    assert (p.communicate(timeout=20)[0], p.returncode) == (b"caught\n", 7)


def test_a_signal_while_nobody_reads_stdin(host, cluster):
    """Input that fills every buffer on the way to the program does not hold a signal back, as far
    as the client itself still reads: the monitor parses behind a full window."""
    p = cli_exec(host, cluster, "-i", "sh", "-c", "echo ready; exec sleep 100",
                 stdin=subprocess.PIPE)
    assert p.stdout.readline() == b"ready\n"
    feeder = threading.Thread(target=feed, args=(p.stdin, b"x" * 150000), daemon=True)
    feeder.start()
    feeder.join(10)
    p.send_signal(signal.SIGTERM)
    assert p.wait(20) == 143
    p.stdout.close()
    p.stderr.close()


def feed(f, data):
    try:
        f.write(data)
        f.flush()
    except BrokenPipeError:
        pass


@pytest.mark.parametrize("argv", [["sh"], ["cat"], ["sh", "-c", "wc -c"]])
def test_a_program_that_reads_stdin_ends(host, argv):
    """Docker without -i: the first process's stdin is empty, not silent."""
    cluster = host.deploy(dockerArgs=json.dumps({"cmd": argv}))
    try:
        c = host.wait(cluster, lambda c: c["phase"] in ("backoff", "exited"))
        assert "exit code 0" in c["reason"]
    finally:
        host.terminate(cluster)
