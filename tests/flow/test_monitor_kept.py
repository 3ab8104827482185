"""Sessions of vmm-monitor that outlive the connection to their client (--keep): nothing is lost, nothing comes
twice, and what ends them.  Needs root, as test_monitor.py."""
import os
import pathlib
import signal
import struct
import tempfile

import pytest

from attach_client import (DATA, ERROR, EXIT, F_INPUT, F_STDIO, FOLLOW, KEPT, LEAVE, Monitor)

OWNER = F_STDIO | F_INPUT
LONG_S = 600
WAIT_S = 30
COUNT = "i=0; while [ $i -lt %d ]; do echo line $i; i=$((i+1)); done"


@pytest.fixture
def start():
    assert os.geteuid() == 0, "needs root"
    started = []
    with tempfile.TemporaryDirectory(prefix="hvmm-monitor.", dir="/var/tmp") as top:
        os.chmod(top, 0o755)

        def launch(script, keep=LONG_S, **kw):
            m = Monitor(pathlib.Path(top), ["/bin/sh", "-c", script], tty=True, exec_=True, keep=keep, **kw)
            started.append(m)
            return m

        yield launch
        for m in started:
            m.end()


def offset(c):
    return struct.unpack("<Q", c.expect(FOLLOW, WAIT_S)[2])[0]


def read(c, until):
    """Output up to @until, or up to the end of what credit there is."""
    out = b""
    while until not in out:
        out += c.expect(DATA, WAIT_S)[2]
    return out


def test_it_goes_on_where_the_client_was(start):
    m = start("stty -echo; echo ready; while read x; do echo got $x; done")
    a = m.connect(OWNER)
    assert offset(a) == 0
    out = read(a, b"ready\r\n")
    a.close()
    b = m.connect(OWNER, resume=len(out))
    assert offset(b) == len(out)
    b.send(DATA, b"1\n")
    more = read(b, b"got 1\r\n")
    assert more == b"got 1\r\n"
    b.close()
    c = m.connect(OWNER, resume=len(out) + len(b"got"))  # that is how far it got on the way
    assert offset(c) == len(out) + 3
    assert read(c, b"1\r\n") == b" 1\r\n"
    c.send(LEAVE)
    c.close()
    assert m.wait(WAIT_S) == 0


def test_nothing_is_lost_and_nothing_comes_twice(start):
    """A client that is cut off again and again, wherever it has got to, and has taken less than it was sent."""
    n = 20000
    m = start("stty -opost; " + COUNT % n)
    want = b"".join(b"line %d\n" % i for i in range(n))
    got, rounds = b"", 0
    while True:
        c = m.connect(OWNER, resume=len(got))
        assert offset(c) == len(got)
        at, end, taken = len(got), False, 0
        while taken < 20000:
            p = c.packet(WAIT_S)
            if p[0] == EXIT:
                assert struct.unpack("<ii", p[2]) == (0, 0)
                end = True
                break
            if p[0] == DATA:
                piece = p[2][:max(1, len(p[2]) - rounds % 7)]  # a part of the last one never arrived
                got += piece
                taken += len(p[2])
                if len(piece) < len(p[2]):
                    break
        assert want.startswith(got[at:], at)
        if end:
            c.send(LEAVE)
        c.close()
        rounds += 1
        if end:
            break
    assert got == want and rounds > 5
    assert m.wait(WAIT_S) == 0


def test_the_process_waits_while_nobody_is_there(start):
    m = start("echo ready; yes 0123456789 | head -c 3000000; echo; echo done")
    a = m.connect(OWNER)
    offset(a)
    out = len(read(a, b"ready"))
    a.close()
    b = m.connect(OWNER, resume=out)
    assert offset(b) == out
    total, tail = 0, b""
    while b"done" not in tail:
        piece = b.expect(DATA, WAIT_S)[2]
        total, tail = total + len(piece), tail[-10:] + piece
        b.credit(len(piece))
    assert total > 3000000


def test_what_is_too_old_is_left_out(start):
    m = start("yes 0123456789 | head -c 1000000; echo; echo done; read x")
    a = m.connect(OWNER)
    offset(a)
    a.credit(4000000)
    total, tail = 0, b""
    while b"done" not in tail:
        piece = a.expect(DATA, WAIT_S)[2]
        total, tail = total + len(piece), tail[-10:] + piece
    a.close()
    b = m.connect(OWNER, resume=5)
    first = offset(b)
    assert total - KEPT - 10 <= first <= total - KEPT + 10
    b.credit(KEPT)
    assert len(read(b, b"done")) >= KEPT - 20
    c = m.connect(OWNER, resume=1 << 60)  # more than there is
    assert abs(offset(c) - total) <= 10


def test_the_latest_client_has_it(start):
    m = start("stty -echo; echo ready; while read x; do echo got $x; done")
    a = m.connect(OWNER)
    offset(a)
    n = len(read(a, b"ready\r\n"))
    b = m.connect(OWNER, resume=n)
    assert offset(b) == n
    while (p := a.packet(WAIT_S))[0] != ERROR:
        pass
    assert b"taken this session over" in p[2] and a.packet(WAIT_S) is None
    b.send(DATA, b"2\n")
    assert read(b, b"\r\n") == b"got 2\r\n"


def test_one_that_leaves_ends_it(start):
    m = start("echo ready; exec sleep 600")
    a = m.connect(OWNER)
    read(a, b"ready")
    a.send(LEAVE)
    a.close()
    assert m.wait(WAIT_S) == 0
    assert m.status()["signal"] == signal.SIGHUP


def test_it_is_not_waited_for_longer(start):
    m = start("echo ready; exec sleep 600", keep=1)
    a = m.connect(OWNER)
    read(a, b"ready")
    a.close()
    assert m.wait(WAIT_S) == 0
    assert m.status()["signal"] == signal.SIGHUP


def test_the_exit_is_told_to_who_comes_back(start):
    m = start("echo ready; read x; echo bye; exit 7")
    watcher = m.connect()
    a = m.connect(OWNER)
    n = len(read(a, b"ready\r\n"))
    a.send(DATA, b"\n")
    a.close()
    assert struct.unpack("<ii", watcher.expect(EXIT, WAIT_S)[2]) == (7, 0)
    for i in range(3):  # it is told until somebody has heard it
        b = m.connect(OWNER, resume=n)
        assert offset(b) == n
        out = b""
        while (p := b.packet(WAIT_S))[0] != EXIT:
            out += p[2] if p[0] == DATA else b""
        assert out.endswith(b"bye\r\n") and struct.unpack("<ii", p[2]) == (7, 0)
        if i == 2:
            b.send(LEAVE)
        b.close()
    assert m.wait(WAIT_S) == 0


def test_an_exit_that_nobody_hears_of(start):
    m = start("echo ready; read x; exit 7", keep=1)
    a = m.connect(OWNER)
    read(a, b"ready\r\n")
    a.send(DATA, b"\n")
    a.close()
    assert m.wait(WAIT_S) == 0
    assert m.status()["code"] == 7


def test_a_session_that_is_not_kept_has_one_client(start):
    m = start("echo ready; exec sleep 600", keep=None)
    a = m.connect(OWNER)
    read(a, b"ready")
    b = m.connect(OWNER, resume=0)
    b.hello()
    assert b.packet(WAIT_S)[0] == ERROR
    a.close()
    assert m.wait(WAIT_S) == 0
