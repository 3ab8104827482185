"""vmm-monitor with real processes, pipes, ptys, files and sockets.  Needs root (it drops to a uid
of its own for each monitor).  The program is taken from $HVMM_BUILD, default "build"."""
import contextlib
import ctypes
import hashlib
import os
import pathlib
import re
import select
import signal
import socket
import struct
import subprocess
import tempfile
import time

import pytest

from attach_client import (CREDIT, DATA, EOF, ERROR, EXIT, F_INPUT, F_STDIO, F_TTY, FOLLOW, HELLO,
                           LOG, RESIZE, SIGNAL, STDERR, STDIN, STDOUT, UID, Client, Monitor,
                           find_monitor)
from programs import run_as

LINE = re.compile(rb"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z (stdout|stderr) ([PF]) (.*)$", re.S)
SANITIZED = "asan" in os.environ.get("HVMM_BUILD", "")  # then memory is not ours to judge
HALF = 32 << 20  # LIMIT_LOG_BYTES / 2


@pytest.fixture
def start():
    assert os.geteuid() == 0, "needs root"
    started = []
    # pytest closes its own folder to others whenever another one begins, and a client of another uid walks to the socket
    with tempfile.TemporaryDirectory(prefix="hvmm-monitor.", dir="/var/tmp") as top:
        os.chmod(top, 0o755)

        def launch(script, directory=top, **kw):
            argv = ["/bin/sh", "-c", script] if isinstance(script, str) else script
            m = Monitor(pathlib.Path(directory), argv, **kw)
            started.append(m)
            return m

        yield launch
        for m in started:
            m.end()


def texts(lines):
    """[(stream, text)] of log lines, parts joined."""
    out, pending = [], {}
    for line in lines:
        m = LINE.match(line.rstrip(b"\n"))
        assert m, line
        stream, tag, text = m.groups()
        pending[stream] = pending.get(stream, b"") + text
        if tag == b"F":
            out.append((stream.decode(), pending.pop(stream)))
    assert not pending, "a P without its F"
    return out


def wait_until(condition, timeout=30.0):
    """For states of the kernel that nobody announces; short, bounded."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "condition not reached"
        select.select([], [], [], 0.005)


def proc_field(pid, name):
    with open(f"/proc/{pid}/status") as f:
        for line in f:
            if line.startswith(name + ":"):
                return line.split(":", 1)[1].strip()
    raise KeyError(name)


def state(pid):
    with open(f"/proc/{pid}/stat") as f:
        return f.read().rpartition(")")[2].split()[0]


# ---- exit ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("script, code, sig", [
    ("exit 0", 0, 0), ("exit 7", 7, 0), ("exit 255", 255, 0),
    ("kill -KILL $$", 137, 9), ("kill -TERM $$", 143, 15), ("kill -SEGV $$", 139, 11),
])
@pytest.mark.parametrize("exec_", [False, True])
def test_exit_status(start, script, code, sig, exec_):
    before = time.time()
    m = start("read x; " + script, exec_=exec_)
    c = m.connect(F_STDIO | F_INPUT)
    c.send(DATA, b"go\n")
    assert c.collect()[2] == (code, sig)
    assert m.wait() == 0
    s = m.status()
    assert (s["pid"], s["code"], s["signal"], s["oom"]) == (m.child, code, sig, False)
    assert before <= s["at_us"] / 1e6 <= time.time()


def test_exit_with_nobody_attached(start):
    m = start("echo done")
    assert m.wait() == 0
    assert m.status()["code"] == 0
    assert texts(m.log_lines()) == [("stdout", b"done")]


def test_exit_reaches_everybody(start):
    m = start("read x; echo bye; exit 3")
    watchers = [m.connect(f) for f in (0, 0, F_STDIO, F_STDIO)]
    follower = m.connect()
    follower.send(FOLLOW, struct.pack("<Q", 0))
    writer = m.connect(F_INPUT)
    for c in watchers + [follower, writer]:
        c.hello()
    writer.send(DATA, b"\n")
    for c in watchers:
        assert c.collect()[2] == (3, 0)
    assert texts(line for _, line in follower.lines()) == [("stdout", b"bye")]
    assert m.wait() == 0


def test_a_client_that_does_not_read_delays_the_end_only_briefly(start):
    m = start("read x; head -c 8000000 /dev/zero | tr '\\0' '\\n'")
    stuck = m.connect(rcvbuf=4096)
    stuck.send(FOLLOW, struct.pack("<Q", 0))
    w = m.connect(F_INPUT)
    w.send(DATA, b"\n")
    assert m.wait(timeout=20) == 0
    ended = m.status()["at_us"] / 1e6
    assert time.time() - ended < 3
    stuck.close()


# ---- log -----------------------------------------------------------------------------------------


def test_log_format(start):
    long = 40000
    m = start("printf 'one\\n\\n'; echo two >&2; head -c %d /dev/zero | tr '\\0' x; echo; "
              "printf 'no newline'" % long)
    assert m.wait() == 0
    lines = m.log_lines()
    assert all(len(line) <= 16384 + 63 for line in lines)
    got = texts(lines)
    assert [t for s, t in got if s == "stderr"] == [b"two"]
    assert [t for s, t in got if s == "stdout"] == [b"one", b"", b"x" * long, b"no newline"]
    parts = [LINE.match(line) for line in lines if b"xx" in line]
    assert [(p[2], len(p[3])) for p in parts] == [(b"P", 16384), (b"P", 16384), (b"F", 7232)]


def test_unfinished_line_is_shown_after_a_second(start):
    m = start("printf 'Downloading 10%%'; read x; echo ' done'")
    c = m.connect(F_INPUT)
    c.send(FOLLOW, struct.pack("<Q", 0))
    (_, line), = c.lines(until=b"Downloading")
    assert LINE.match(line.rstrip(b"\n")).groups() == (b"stdout", b"P", b"Downloading 10%")
    c.send(DATA, b"\n")
    (_, line), = c.lines()
    assert LINE.match(line.rstrip(b"\n")).groups() == (b"stdout", b"F", b" done")
    m.wait()
    assert texts(m.log_lines()) == [("stdout", b"Downloading 10% done")]


def test_follow_live_and_from_offsets(start):
    m = start("i=0; while read x; do i=$((i+1)); echo line $i; done")
    w = m.connect(F_INPUT)
    w.hello()
    a = m.connect()
    a.send(FOLLOW, struct.pack("<Q", 0))
    got = []
    for i in range(1, 6):
        w.send(DATA, b"\n")
        got += a.lines(until=b"line %d\n" % i)
    offsets = [o for o, _ in got]
    assert offsets[0] == 0
    # from a line's start, from its middle, from the end, from beyond
    for ask, first in ((offsets[2], b"line 3"), (offsets[2] + 5, b"line 4"),
                       (offsets[4] + len(got[4][1]), b"line 6"), (2**64 - 1, b"line 6")):
        c = m.connect()
        assert c.hello()[2:] == (0, offsets[4] + len(got[4][1]))
        c.send(FOLLOW, struct.pack("<Q", ask))
        if first != b"line 6":
            o, line = c.lines(until=first)[0]
            assert line.rstrip().endswith(first) and o >= ask
        else:
            assert not select.select([c.s], [], [], 0.05)[0]
        c.close()
    w.send(EOF)
    a.lines()
    assert m.wait() == 0


def test_log_turns_and_resumes(start):
    """100 MB through a 64 MiB log: kept are whole lines, offsets have no gap, and a monitor that
    is started on the files goes on where the last one stopped."""
    m = start("read x; seq 1 1500000")
    w = m.connect(F_INPUT)
    w.send(DATA, b"\n")
    c = m.connect()
    c.send(FOLLOW, struct.pack("<Q", 0))
    assert m.wait(timeout=60) == 0
    sizes = [os.path.getsize(m.log_path(i)) for i in (0, 1)]
    assert max(sizes) <= HALF and sum(sizes) > HALF
    lines = m.log_lines()
    assert texts(lines[-1:]) == [("stdout", b"1500000")]
    numbers = [int(line.rsplit(b" ", 1)[1]) for line in lines]
    assert numbers == list(range(numbers[0], 1500001)) and numbers[0] > 1
    heads = sorted(int(open(m.log_path(i), "rb").readline()[5:]) for i in (0, 1))
    end = heads[0] + sum(len(line) + 1 for line in lines)

    m2 = start("echo again; read x")
    f = m2.connect(F_INPUT)
    f.send(FOLLOW, struct.pack("<Q", end))
    (off, line), = f.lines(until=b"again")
    assert off == end
    old = m2.connect()
    _, _, start_off, _ = old.hello()
    assert start_off == heads[0]
    old.send(FOLLOW, struct.pack("<Q", 5))  # older than kept
    first = old.expect(LOG)[2]
    assert struct.unpack_from("<Q", first)[0] == heads[0]
    assert first[8:].splitlines()[0] == lines[0]
    f.send(EOF)
    assert m2.wait() == 0


def test_slow_follower_is_overtaken_not_dropped(start):
    m = start("read x; seq 1 1500000; read x")
    w = m.connect(F_INPUT)
    c = m.connect(rcvbuf=4096)
    c.hello()
    c.send(FOLLOW, struct.pack("<Q", 0))
    w.send(DATA, b"\n")
    end = time.monotonic() + 60
    while b"1500000" not in subprocess.check_output(["tail", "-qn1", m.log_path(0), m.log_path(1)]):
        assert time.monotonic() < end
        select.select([], [], [], 0.05)
    jumps, pos, last = 0, 0, b""
    while b" 1500000\n" not in last:
        p = c.expect(LOG)
        off = struct.unpack_from("<Q", p[2])[0]
        assert off >= pos and p[2].endswith(b"\n") and LINE.match(p[2][8:].split(b"\n")[0])
        jumps += off > pos
        pos, last = off + len(p[2]) - 8, p[2]
    assert jumps >= 1
    w.send(EOF)
    assert m.wait() == 0


def test_log_rate(start):
    """64 MiB at once, then at the rate: whoever writes faster waits, and loses nothing."""
    lines, rate = 73000, 2 << 20  # of a thousand bytes
    m = start("read x; seq -f %%0999.0f 1 %d; read x" % lines, log_rate=rate)
    w, c = m.connect(F_INPUT), m.connect()
    begin = time.monotonic()
    w.send(DATA, b"\n")
    c.hello()  # it has time for others meanwhile

    def last():
        return subprocess.check_output(["tail", "-qn1", m.log_path(0), m.log_path(1)])
    wait_until(lambda: b"0%d\n" % lines in last(), 60)
    assert time.monotonic() - begin >= (lines * 1000 - (64 << 20)) / rate - 0.2
    numbers = [int(line[-8:]) for line in m.log_lines()]
    assert numbers == list(range(numbers[0], lines + 1))
    w.send(EOF)
    assert m.wait() == 0


@pytest.fixture
def small_disk(tmp_path):
    path = tmp_path / "small"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=755", "hvmm-test", path], check=True)
    yield path
    subprocess.run(["umount", path], check=True)


def test_full_disk_never_stops_the_cluster(small_disk, start):
    """Lines are lost and counted, the process does not notice, and its status has its room."""
    m = start("read x; seq 1 30000; echo marker >&2; read x; echo after; seq 1 30000; exit 4",
              directory=small_disk)
    filler = small_disk / "filler"
    live = m.connect(F_STDIO | F_INPUT)
    live.hello()
    filler.write_bytes(b"x" * (700 << 10))
    live.credit(1 << 20)
    live.send(DATA, b"\n")
    while True:
        _, channel, data = live.expect(DATA)
        if channel == STDERR:
            break
    filler.unlink()
    live.send(DATA, b"\n")
    assert m.wait() == 0
    assert m.status()["code"] == 4
    lines = m.log_lines()
    assert all(LINE.match(line) for line in lines)
    notes = [line for line in lines if b"bytes lost: No space left on device" in line]
    assert len(notes) >= 1
    assert b"stdout F after" in b"\n".join(lines)


# ---- exec sessions -------------------------------------------------------------------------------


def test_exec_100_mb_under_back_pressure(start):
    """The process cannot run ahead of its client, and not a byte is lost or changed."""
    size = 100_000_000
    m = start(f"head -c {size} /dev/zero | openssl enc -aes-128-ctr -K 00 -iv 00 2>/dev/null; "
              "echo end >&2; exit 5", exec_=True)
    want = hashlib.sha256(subprocess.run(
        f"head -c {size} /dev/zero | openssl enc -aes-128-ctr -K 00 -iv 00 2>/dev/null",
        shell=True, check=True, stdout=subprocess.PIPE).stdout).hexdigest()
    c = m.connect(F_STDIO)
    c.hello()
    digest, got, ended, credit = hashlib.sha256(), 0, [], 32768
    while got < 32768:  # the window, and not one byte more
        _, _, data = c.expect(DATA)
        digest.update(data)
        got += len(data)
    assert got == 32768
    assert not select.select([c.s], [], [], 0.2)[0]
    switches = proc_field(m.pid, "voluntary_ctxt_switches")
    assert not select.select([c.s], [], [], 0.2)[0]
    assert proc_field(m.pid, "voluntary_ctxt_switches") == switches, "busy while paused"
    assert state(m.child) == "S"
    private, dirty = m.private_kb()
    assert dirty <= 1024 or SANITIZED
    while True:
        if credit - got < 1 << 19:
            c.credit(1 << 20)
            credit += 1 << 20
        kind, channel, data = c.packet()
        if kind == DATA and channel == STDOUT:
            digest.update(data)
            got += len(data)
            assert got <= credit
        elif kind == DATA:
            assert data == b"end\n"
        elif kind == EOF:
            ended.append(channel)
        else:
            assert (kind, struct.unpack("<ii", data)) == (EXIT, (5, 0))
            break
    assert got == size and digest.hexdigest() == want and sorted(ended) == [STDOUT, STDERR]
    assert m.wait() == 0


def test_exec_waits_for_its_client(start):
    m = start("echo early; exit 2", exec_=True)
    wait_until(lambda: not os.path.exists(f"/proc/{m.child}"))
    assert m.status()["code"] == 2  # known at once, whoever listens
    c = m.connect(F_STDIO)
    out, _, status = c.collect()
    assert out[STDOUT] == b"early\n" and status == (2, 0)
    assert m.wait() == 0


def test_exec_ends_when_nobody_comes(start):
    m = start("echo x; exit 9", exec_=True)
    began = time.monotonic()
    assert m.wait(timeout=15) == 0
    assert 9.5 < time.monotonic() - began < 12
    assert m.status()["code"] == 9


def test_exec_slow_reader_gets_everything_after_the_exit(start):
    m = start("head -c 60000 /dev/zero; echo e >&2", exec_=True)
    c = m.connect(F_STDIO)
    wait_until(lambda: not os.path.exists(f"/proc/{m.child}"))
    select.select([], [], [], 0.8)  # longer than the drain deadline
    switches = proc_field(m.pid, "voluntary_ctxt_switches")
    select.select([], [], [], 0.2)
    assert proc_field(m.pid, "voluntary_ctxt_switches") == switches, "busy while it waits"
    out, ended, status = c.collect()
    assert len(out[STDOUT]) == 60000 and out[STDERR] == b"e\n" and status == (0, 0)
    assert m.wait() == 0


def test_exec_background_grandchild_does_not_hold_the_session(start):
    m = start("sleep 30 & echo $!; exit 0", exec_=True)
    c = m.connect(F_STDIO)
    began = time.monotonic()
    out, ended, status = c.collect()
    try:
        assert 0.3 < time.monotonic() - began < 2 and status == (0, 0)
        assert sorted(ended) == [STDOUT, STDERR]
        assert m.wait() == 0
    finally:
        os.kill(int(out[STDOUT]), signal.SIGKILL)


def test_exec_background_grandchild_after_much_output(start):
    """Credit without end, so that nothing but the queue's emptying wakes the monitor."""
    m = start("head -c 700000 /dev/zero; sleep 30 & echo $! >&2", exec_=True)
    c = m.connect(F_STDIO)
    c.credit(1 << 30)
    select.select([], [], [], 0.3)
    out, _, status = c.collect(grant=False)
    try:
        assert len(out[STDOUT]) == 700000 and status == (0, 0)
        assert m.wait() == 0
    finally:
        os.kill(int(out[STDERR]), signal.SIGKILL)


def test_exec_background_writer_does_not_hold_the_session(start):
    m = start("yes & echo pid $! >&2; exit 0", exec_=True)
    c = m.connect(F_STDIO)
    out, ended, status = c.collect()
    pid = int(out[STDERR].split()[1])
    try:
        assert status == (0, 0) and m.wait() == 0
        # its pipe has no reader any more
        wait_until(lambda: not os.path.exists(f"/proc/{pid}") or state(pid) == "Z")
    finally:
        if os.path.exists(f"/proc/{pid}"):
            os.kill(pid, signal.SIGKILL)


def test_exec_client_without_input_gives_end_of_stdin(start):
    m = start("cat; echo over", exec_=True)
    out, _, _ = m.connect(F_STDIO).collect()
    assert out[STDOUT] == b"over\n"
    assert m.wait() == 0


def test_exec_stdin_10_mb(start):
    m = start("sha256sum", exec_=True)
    c = m.connect(F_STDIO | F_INPUT)
    data = os.urandom(1 << 20) * 10
    for i in range(0, len(data), 65536):
        c.send(DATA, data[i:i + 65536])
    c.send(EOF)
    out, _, status = c.collect()
    assert out[STDOUT].split()[0].decode() == hashlib.sha256(data).hexdigest()
    assert status == (0, 0) and m.wait() == 0


def test_exec_control_behind_blocked_stdin(start):
    """A full window of stdin that nobody reads holds up neither credit nor signals."""
    m = start("head -c 100000 /dev/zero; sleep 60", exec_=True, uid=UID, child_uid=UID)
    c = m.connect(F_STDIO | F_INPUT)
    window, written, got = 32768, 0, 0
    while True:
        c.send(DATA, b"x" * window)
        written, window = written + window, 0
        try:
            kind, _, payload = c.packet(0.5)
        except TimeoutError:
            break
        if kind == CREDIT:
            window = struct.unpack("<I", payload)[0]
        got += len(payload) if kind == DATA else 0
    assert written > 65536 and got == 32768  # the pipe and our window are full; so is its
    c.credit(100000)
    while got < 100000:
        got += len(c.expect(DATA)[2])
    c.send(SIGNAL, struct.pack("<I", signal.SIGKILL))
    assert c.collect()[2] == (137, 9)


def test_exec_stdin_is_credited(start):
    """cat with a client that keeps to both windows: nothing hangs, whatever the sizes are."""
    m = start(["cat"], exec_=True)
    c = m.connect(F_STDIO | F_INPUT)
    data, sent, window, got = os.urandom(1 << 20) * 4, 0, 32768, bytearray()
    while len(got) < len(data):
        while window > 0 and sent < len(data):
            n = min(window, 10000, len(data) - sent)
            c.send(DATA, data[sent:sent + n])
            sent, window = sent + n, window - n
        kind, _, payload = c.packet()
        if kind == DATA:
            got += payload
            c.credit(len(payload))
        elif kind == CREDIT:
            window += struct.unpack("<I", payload)[0]
            assert window <= 32768
        else:
            assert kind == HELLO
    assert got == data
    c.send(EOF)
    assert c.collect()[2] == (0, 0)


def test_stdin_that_nobody_reads_is_credited_too(start):
    m = start("exec <&-; echo closed; sleep 5", exec_=True, uid=UID, child_uid=UID)
    c = m.connect(F_STDIO | F_INPUT)
    c.expect(DATA)
    for _ in range(4):
        c.send(DATA, b"x" * 8192)
    credit = 0
    while credit < 32768 - 8192:
        credit += struct.unpack("<I", c.expect(CREDIT)[2])[0]
    c.send(SIGNAL, struct.pack("<I", signal.SIGKILL))
    assert c.collect()[2] == (137, 9)


def test_exec_echo_both_ways(start):
    m = start(["cat"], exec_=True)
    c = m.connect(F_STDIO | F_INPUT)
    for i in range(200):
        c.send(DATA, b"ping %d\n" % i)
        assert c.expect(DATA)[2] == b"ping %d\n" % i
        c.credit(16)
    c.send(EOF)
    assert c.collect()[2] == (0, 0)


def test_exec_process_that_closes_stdin(start):
    m = start("exec <&-; echo closed; read x 2>/dev/null; sleep 0.5", exec_=True)
    c = m.connect(F_STDIO | F_INPUT)
    c.expect(DATA)
    c.send(DATA, b"x" * 10)
    while True:
        kind, channel, _ = c.packet()
        if (kind, channel) == (EOF, STDIN):
            break
    assert c.collect()[2] == (0, 0)


def test_exec_hangs_up_when_the_client_leaves(start):
    m = start("trap '' HUP; while echo x; do sleep 0.05; done", exec_=True)
    c = m.connect(F_STDIO | F_INPUT)
    c.expect(DATA)
    c.close()
    assert m.wait() == 0
    s = m.status()
    assert s["code"] != 0  # EPIPE or SIGPIPE


def test_exec_tty_hangs_up_when_the_client_leaves(start):
    m = start("echo ready; exec sleep 60", exec_=True, tty=True)
    c = m.connect(F_STDIO | F_INPUT)
    c.expect(DATA)
    c.close()
    assert m.wait() == 0
    assert m.status()["signal"] == signal.SIGHUP


def test_exec_has_one_client(start):
    m = start("read x; exit 6", exec_=True)
    a = m.connect(F_STDIO | F_INPUT)
    a.hello()
    b = m.connect(F_STDIO)
    b.hello()
    assert b.packet()[0] == ERROR and b.packet() is None
    observer = m.connect()
    observer.hello()
    a.send(DATA, b"\n")
    assert a.collect()[2] == (6, 0)
    assert struct.unpack("<ii", observer.expect(EXIT)[2]) == (6, 0)


# ---- signals -------------------------------------------------------------------------------------


def test_signal_reaches_a_process_of_the_same_uid(start):
    m = start("trap 'echo caught; exit 33' USR1; echo ready; while :; do sleep 0.01; done",
              exec_=True, child_uid=UID)
    c = m.connect(F_STDIO)
    c.expect(DATA)
    c.send(SIGNAL, struct.pack("<I", signal.SIGUSR1))
    out, _, status = c.collect()
    assert out[STDOUT] == b"caught\n" and status == (33, 0)


def test_signal_to_another_uid_is_refused_aloud(start):
    m = start("read x", exec_=True)
    c = m.connect(F_STDIO | F_INPUT)
    c.hello()
    c.send(SIGNAL, struct.pack("<I", signal.SIGTERM))
    kind, channel, text = c.packet()
    assert (kind, channel, text) == (ERROR, 1, b"signal 15: Operation not permitted")
    c.send(EOF)  # and the session goes on
    assert c.collect()[2][0] != 143


def test_signal_to_another_uid_with_cap_kill(start):
    """If the launcher leaves it CAP_KILL, an exec monitor keeps just that."""
    m = start("read x", exec_=True, cap_kill=True)
    c = m.connect(F_STDIO | F_INPUT)
    c.hello()
    assert int(proc_field(m.pid, "CapEff"), 16) == 1 << 5
    c.send(SIGNAL, struct.pack("<I", signal.SIGTERM))
    assert c.collect()[2] == (143, 15)
    cluster = start("read x", cap_kill=True)
    cluster.connect().hello()
    assert int(proc_field(cluster.pid, "CapPrm"), 16) == 0


def test_signal_of_a_cluster_is_not_for_clients(start):
    m = start("read x", child_uid=UID)
    c = m.connect(F_INPUT)
    c.hello()
    c.send(SIGNAL, struct.pack("<I", signal.SIGKILL))
    assert c.packet()[0] == ERROR
    c.send(EOF)
    assert m.wait() == 0 and m.status()["signal"] == 0


@pytest.mark.parametrize("name", ["INT", "QUIT"])
def test_tty_signals_reach_the_foreground_job_of_any_uid(start, name):
    m = start(f"trap 'echo caught; exit 44' {name}; echo ready; while :; do sleep 0.01; done",
              exec_=True, tty=True)
    c = m.connect(F_STDIO | F_INPUT)
    c.expect(DATA)
    c.send(SIGNAL, struct.pack("<I", getattr(signal, "SIG" + name)))
    out, _, status = c.collect()
    assert b"caught" in out[STDOUT] and status == (44, 0)


# ---- pty -----------------------------------------------------------------------------------------


def test_tty(start):
    m = start("stty -echo; read go; test -t 0 && test -t 1 && test -t 2 && echo a tty; "
              "while read x; do case $x in size) stty size;; *) echo got $x;; esac; done; exit 12",
              tty=True)
    c = m.connect(F_STDIO | F_INPUT)
    _, flags, _, _ = c.hello()
    assert flags == F_TTY | F_INPUT
    seen = b""

    def until(text):
        nonlocal seen
        while text not in seen:
            data = c.expect(DATA)[2]
            seen += data
            c.credit(len(data))

    c.send(DATA, b"go\n")
    until(b"a tty\r\n")
    c.send(RESIZE, struct.pack("<HH", 33, 123))
    c.send(DATA, b"size\n")
    until(b"33 123\r\n")
    c.send(DATA, b"hello\n")
    until(b"got hello\r\n")
    c.send(EOF)  # typed as ^D
    out, ended, status = c.collect()
    assert status == (12, 0) and ended == [STDOUT]
    assert m.wait() == 0
    assert ("stdout", b"got hello\r") in texts(m.log_lines())


def test_tty_survives_that_everybody_inside_closes_it(start):
    m = start("t=$(tty); exec </dev/null >/dev/null 2>&1; sleep 0.3; echo back >$t; sleep 0.1; "
              "exit 3", tty=True)
    c = m.connect(F_STDIO)
    out, _, status = c.collect()
    assert out[STDOUT] == b"back\r\n" and status == (3, 0)


def test_tty_100_000_lines(start):
    m = start("seq 1 100000", exec_=True, tty=True)
    out, _, status = m.connect(F_STDIO).collect()
    assert out[STDOUT].split() == [b"%d" % i for i in range(1, 100001)] and status == (0, 0)


# ---- live clients of a cluster -------------------------------------------------------------------


def test_slow_client_is_dropped_and_blocks_nobody(start):
    m = start("read x; seq 1 200000; echo end >&2; read x")
    slow, writer, good = m.connect(F_STDIO), m.connect(F_INPUT), m.connect()
    for c in (slow, writer, good):
        c.hello()
    good.send(FOLLOW, struct.pack("<Q", 0))
    writer.send(DATA, b"\n")
    # two streams, so "end" may be logged before the last of stdout
    lines = good.lines(until=b"stdout F 200000\n")
    numbers = [line.split()[-1] for _, line in lines if b" stdout " in line]
    assert numbers == [b"%d" % i for i in range(1, 200001)]
    got = b""
    while True:
        kind, _, data = slow.packet()
        if kind == ERROR:
            break
        got += data
    assert b"dropped" in data and 16384 <= len(got) <= 32768 and slow.packet() is None
    writer.send(EOF)
    assert m.wait() == 0


def test_one_writer_at_a_time(start):
    m = start("while read x; do echo $x; done")
    a = m.connect(F_STDIO | F_INPUT)
    a.hello()
    b = m.connect(F_INPUT)
    b.hello()
    assert b.packet()[0] == ERROR and b.packet() is None
    a.send(DATA, b"a\n")
    assert a.expect(DATA)[2] == b"a\n"
    a.close()
    # the slot is free again, and stdin stayed open
    end = time.monotonic() + 5
    while True:
        c = m.connect(F_STDIO | F_INPUT)
        c.hello()
        try:
            kind = c.packet(timeout=0.1)[0]
        except TimeoutError:
            break
        assert kind == ERROR and time.monotonic() < end
    c.send(DATA, b"c\n")
    assert c.expect(DATA)[2] == b"c\n"
    c.send(EOF)
    assert c.collect()[2] == (0, 0)


def test_seventeenth_client_is_turned_away(start):
    m = start("read x")
    many = [m.connect() for _ in range(16)]
    for c in many:
        c.hello()
    extra = m.connect(hello=False)
    assert extra.packet()[0] == ERROR and extra.packet() is None
    private, dirty = m.private_kb()
    assert dirty <= 1024 or SANITIZED
    many.pop().close()
    wait_until(lambda: m.connect(hello=False).packet()[0] == HELLO)


def test_no_descriptor_left_for_a_client(start):
    """It neither spins nor gives up: the connection waits until there is room again."""
    m = start("read x", nofile=18)
    clients = []
    while True:
        c = m.connect(hello=False)
        if not select.select([c.s], [], [], 0.2)[0]:
            break
        assert c.packet()[0] == HELLO
        clients.append(c)
    assert 1 <= len(clients) < 16
    switches = int(proc_field(m.pid, "voluntary_ctxt_switches"))
    assert not select.select([c.s], [], [], 0.5)[0]
    assert int(proc_field(m.pid, "voluntary_ctxt_switches")) - switches <= 1
    clients.pop().close()
    assert c.packet()[0] == HELLO


# ---- bad clients ---------------------------------------------------------------------------------


@pytest.mark.parametrize("data, why", [
    (struct.pack("<BBHIII", HELLO, 0, 0, 8, 2, 0), b"version"),
    (struct.pack("<BBHI", DATA, 0, 0, 1) + b"x", b"hello"),
    (struct.pack("<BBHIII", HELLO, 0, 0, 8, 1, 0) * 2, b"hello"),
    (struct.pack("<BBHI", HELLO, 0, 0, 7) + b"1234567", b"not a packet"),
    (struct.pack("<BBHI", HELLO, 0, 0, 70000), b"not a packet"),
    (b"GET / HTTP/1.1\r\n\r\n", b"not a packet"),
    (bytes(64), b"not a packet"),
    (struct.pack("<BBHIII", HELLO, 0, 0, 8, 1, 0) + struct.pack("<BBHI", EXIT, 0, 0, 8) + bytes(8),
     b"monitor"),
    (struct.pack("<BBHIII", HELLO, 0, 0, 8, 1, 0) + struct.pack("<BBHI", DATA, 0, 0, 1) + b"x",
     b"input"),
    (struct.pack("<BBHIII", HELLO, 0, 0, 8, 1, 4) + struct.pack("<BBHI", DATA, 1, 0, 1) + b"x",
     b"input"),
    (struct.pack("<BBHIII", HELLO, 0, 0, 8, 1, 0) + struct.pack("<BBHII", SIGNAL, 0, 0, 4, 900),
     b"signal"),
])
def test_bad_packets_end_only_their_connection(start, data, why):
    m = start("read x")
    good = m.connect()
    good.hello()
    c = m.connect(hello=False)
    c.hello()
    c.raw(data)
    kind, _, text = c.packet()
    assert kind == ERROR and why in text, text
    assert c.packet() is None
    m.connect(F_INPUT).send(DATA, b"\n")  # and leave at once: it counts all the same
    assert good.expect(EXIT)


def test_unknown_packets_are_skipped(start):
    m = start("read x; exit 1")
    c = m.connect(F_INPUT)
    c.raw(struct.pack("<BBHI", 200, 9, 0, 50000) + bytes(50000))
    c.send(DATA, b"\n")
    assert c.expect(EXIT)


def test_packets_cut_into_single_bytes(start):
    m = start(["cat"])
    c = m.connect(F_STDIO | F_INPUT)
    c.hello()
    for b in struct.pack("<BBHI", DATA, 0, 0, 3) + b"ab\n" + struct.pack("<BBHI", EOF, 0, 0, 0):
        c.raw(bytes([b]))
    out, _, _ = c.collect()
    assert out[STDOUT] == b"ab\n"


def connect_as(uid, path):
    """A connection that was made by another uid; the descriptor is handed over, as the engine
    does with the API."""
    a, b = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            s.connect(path)
            socket.send_fds(b, [b"x"], [s.fileno()])
        finally:
            os._exit(0)
    b.close()
    _, fds, _, _ = socket.recv_fds(a, 1, 1)
    os.waitpid(pid, 0)
    a.close()
    c = Client.__new__(Client)
    c.s, c.buf, c.closed = socket.socket(fileno=fds[0]), bytearray(), False
    return c


def test_who_may_connect(start):
    m = start("read x", peer=777)
    for uid, kind in ((12345, ERROR), (UID, ERROR), (777, HELLO), (0, HELLO)):
        c = connect_as(uid, m.sock)
        assert c.packet()[0] == kind, uid
        c.close()


@contextlib.contextmanager
def stopped(m):
    """What happens meanwhile is there all at once when it goes on."""
    m.kill(signal.SIGSTOP)
    try:
        wait_until(lambda: state(m.pid) == "T")
        yield
    finally:
        m.kill(signal.SIGCONT)


def last_words(c):
    """All packets to the end, which is no error."""
    data = b""
    c.s.settimeout(60)
    while chunk := c.s.recv(65536):
        data += chunk
    packets = []
    while data:
        n = struct.unpack_from("<I", data, 4)[0]
        packets.append((data[0], data[8:8 + n]))
        data = data[8 + n:]
    return packets


def test_whoever_is_turned_away_hears_why(start):
    """Also those who have spoken first: what lies unread when a socket is closed is an error on the other side."""
    m = start("read x", peer=777)
    many = [m.connect() for _ in range(16)]
    for c in many:
        c.hello()
    with stopped(m):
        turned_away = {b"may not attach": connect_as(12345, m.sock), b"too many": connect_as(777, m.sock)}
        for c in turned_away.values():
            c.send(HELLO, struct.pack("<II", 1, 0))
    for why, c in turned_away.items():
        ((kind, text),) = last_words(c)
        assert kind == ERROR and why in text, text


def test_whoever_comes_at_the_end_hears_why(start):
    """The process has ended, and there they wait: more than are let in in one turn of the loop."""
    m = start("read x", peer=777)
    with stopped(m):
        os.kill(m.child, signal.SIGKILL)
        late = [(uid, connect_as(uid, m.sock)) for uid in (0, 777, 12345) * 3]
        late[0][1].send(HELLO, struct.pack("<II", 1, 0))
    for uid, c in late:
        packets = last_words(c)
        kind, text = packets[-1]
        assert kind == ERROR, (uid, packets)
        if uid == 12345:
            assert len(packets) == 1 and b"this user may not attach" in text, packets
        else:
            assert b"the process has ended" in text and {k for k, _ in packets[:-1]} <= {HELLO}, packets
    assert m.wait() == 0
    with pytest.raises(ConnectionRefusedError):
        m.connect()


# ---- the monitor itself --------------------------------------------------------------------------


def test_confinement(start):
    m = start("read x", extra_fds=3)
    m.connect().hello()
    assert proc_field(m.pid, "Threads") == "1"
    assert proc_field(m.pid, "NoNewPrivs") == "1"
    assert proc_field(m.pid, "Seccomp") == "2"
    assert proc_field(m.pid, "Uid").split() == [str(UID)] * 4
    assert proc_field(m.pid, "Gid").split() == [str(UID)] * 4
    assert proc_field(m.pid, "Groups") == ""
    for caps in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert int(proc_field(m.pid, caps), 16) == 0
    assert os.stat(f"/proc/{m.pid}/mem").st_uid == 0  # not dumpable
    assert os.readlink(f"/proc/{m.pid}/cwd") == "/"
    fds = {int(n): os.readlink(f"/proc/{m.pid}/fd/{n}") for n in os.listdir(f"/proc/{m.pid}/fd")}
    assert [fds.pop(i) for i in range(3)] == ["/dev/null"] * 3
    kinds = sorted(re.sub(r"[:\[].*", "", os.path.basename(v)) for v in fds.values())
    # child, listen, 3 pipes, 2 logs, status, epoll, one client that has just left or not
    assert kinds.count("pipe") == 3 and kinds.count("anon_inode") == 2, fds
    assert {"status", "log.0", "log.1"} <= set(kinds) and len(kinds) <= 10, fds


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="registers of x86_64")
def test_a_forbidden_system_call_kills_it(start):
    """The filter is real: openat(2), forced upon it by a debugger, is its end."""
    m = start("read x")
    m.connect().hello()
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
    regs = (ctypes.c_uint64 * 27)()
    attach, detach, getregs, setregs, rax, orig_rax, rip = 16, 17, 12, 13, 10, 15, 16
    assert libc.ptrace(attach, m.pid, None, None) == 0
    assert os.WIFSTOPPED(os.waitpid(m.pid, 0)[1])
    assert libc.ptrace(getregs, m.pid, None, regs) == 0
    regs[rip] -= 2  # back onto its system call instruction
    regs[rax], regs[orig_rax] = 257, 2**64 - 1
    assert libc.ptrace(setregs, m.pid, None, regs) == 0
    assert libc.ptrace(detach, m.pid, None, None) == 0
    assert m.wait() == -signal.SIGSYS


def test_signals_do_not_end_it(start):
    m = start("read x")
    m.connect().hello()
    for sig in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGPIPE, signal.SIGUSR1):
        m.kill(sig)
    m.connect().hello()


def test_refuses_to_start(tmp_path):
    base = ["--id", "x", "--pid", "1", "--pidfd", "50", "--listen", "51", "--status", "52"]
    for args, uid, why in (
            (base + ["--out", "53", "--err", "54"], 0, "refuses to run as root"),
            (base, UID, "either --pty"),
            (["--id", "x"], UID, "needed"),
            (base + ["--out", "53", "--err", "54"], UID, "Bad file descriptor"),
            (base + ["--out", "53", "--err", "1"], UID, "not a number that fits"),
            (base + ["--out", "x3", "--err", "54"], UID, "not a number that fits"),
            (base + ["--out", "53", "--err", "54", "--log0", "5"], UID, "go together"),
            (base + ["--pty", "53", "--in", "54"], UID, "either --pty"),
            (base + ["--out", "53", "--err", "54", "--exec", "--keep", "5"], UID, "--keep is for --exec with --pty"),
            (["--bogus"], UID, "unknown option '--bogus'")):
        r = run_as(uid, find_monitor(), *args)
        assert r.returncode == 1 and why in r.stderr, (args, r.stderr)
        assert r.stderr.startswith("vmm-monitor") and r.stderr.count("\n") == 1


def test_refuses_a_process_that_is_not_its_child(tmp_path):
    fds = [os.pidfd_open(os.getpid())]
    fds += [os.open("/dev/null", os.O_RDWR) for _ in range(2)]
    s = socket.socket(socket.AF_UNIX)
    fds.append(s.fileno())
    fds.append(os.open(tmp_path / "status", os.O_RDWR | os.O_CREAT))
    names = ["--pidfd", "--out", "--err", "--listen", "--status"]
    args = [str(x) for pair in zip(names, fds) for x in pair]
    r = run_as(UID, find_monitor(), "--id", "x", "--pid", "1", *args, pass_fds=fds)
    for fd in fds:
        if fd != s.fileno():
            os.close(fd)
    assert r.returncode == 1 and "not a child" in r.stderr


def test_killed_monitor(start):
    """Its cluster is the engine's to kill; what it leaves behind is whole."""
    m = start("read x; seq 1 50000; sleep 60")
    c = m.connect(F_INPUT | F_STDIO)
    c.hello()
    f = m.connect()
    f.send(FOLLOW, struct.pack("<Q", 0))
    c.send(DATA, b"\n")
    f.lines(until=b" 50000\n")
    m.kill()
    assert m.wait() == -signal.SIGKILL
    while c.packet() is not None:
        pass
    assert open(m.status_path).read() == ""
    assert os.path.exists(f"/proc/{m.child}")
    os.kill(m.child, signal.SIGKILL)
    # a torn last line is cut when the next monitor starts
    with open(m.log_path(0), "ab") as log:
        log.write(b"2026-11-22T00:00:00.000000000Z stdout F torn")
    m2 = start("echo next")
    assert m2.wait() == 0
    got = texts(m2.log_lines())
    assert got[-2:] == [("stdout", b"50000"), ("stdout", b"next")]


def test_memory(start, tmp_path, capsys):
    """Private memory of one of three idle monitors, and after a busy time."""
    ms = []
    for i in range(3):
        d = tmp_path / str(i)
        d.mkdir()
        ms.append(start("read x; seq 1 300000; read x", directory=d))
    for m in ms:
        m.connect().hello()
    idle, idle_dirty = ms[0].private_kb()
    w = ms[0].connect(F_INPUT)
    f = ms[0].connect()
    f.send(FOLLOW, struct.pack("<Q", 0))
    w.send(DATA, b"\n")
    f.lines(until=b" 300000\n")
    busy, busy_dirty = ms[0].private_kb()
    with capsys.disabled():
        print(f"\nmonitor.private_kb idle {idle} (dirty {idle_dirty}), after 18 MB of log "
              f"{busy} (dirty {busy_dirty})")
    if not SANITIZED:
        assert idle <= 300 and busy <= 1024
