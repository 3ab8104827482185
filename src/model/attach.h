/* attach.h - the contract between vmm-monitor and whoever talks to it, wire and command line.
 *
 * Every cluster (and every exec session) has one vmm-monitor.  It is started by the launcher with
 * open descriptors and holds no path.  Clients connect to its unix stream socket; the first thing
 * each side sends is `hello`.
 *
 * Wire: packets of { u8 type, u8 channel, u16 zero, u32 little-endian length } and payload, at most
 * ATTACH_MAX_PAYLOAD bytes.  Numbers in payloads are little-endian too.  Unknown types are skipped
 * by length (a newer peer may know more), and so is what a known payload has beyond its known
 * part; a wrong version in hello ends the connection with an `error` packet.  Pure definitions;
 * attach_codec.h packs and unpacks them. */
#pragma once
#include <assert.h>
#include <stdint.h>

#define ATTACH_VERSION     1U
#define ATTACH_MAX_PAYLOAD 65536U

enum attach_type {
        ATTACH_NONE,
        ATTACH_HELLO,  /* both ways: u32 version, u32 flags (ATTACH_F_*); the monitor adds u64
                        * oldest kept log offset, u64 offset behind the last line */
        ATTACH_DATA,   /* both ways: bytes of `channel`; client -> monitor only on stdin */
        ATTACH_EOF,    /* client -> monitor: stdin is closed; monitor -> client: that channel ended
                        * (stdin: the process closed it) */
        ATTACH_RESIZE, /* client -> monitor: u16 rows, u16 columns (ignored without a tty) */
        ATTACH_SIGNAL, /* client -> monitor: u32 signal for the process (exec sessions) */
        ATTACH_FOLLOW, /* client -> monitor: u64 log offset; answered with LOG packets from there.
                        * monitor -> client, of a kept session: u64 offset of the DATA that follows */
        ATTACH_LOG,    /* monitor -> client: u64 offset of the first byte, then whole log lines */
        ATTACH_EXIT,   /* monitor -> client: i32 exit code (0..255), i32 signal (0: none) */
        ATTACH_ERROR,  /* monitor -> client: one sentence; the connection ends, or, on channel
                        * ATTACH_ERROR_REFUSED, goes on without what was asked for */
        ATTACH_CREDIT, /* both ways: u32 bytes more that the sender is ready to take (flow control) */
        ATTACH_LEAVE, /* client -> monitor: it has all and will not come back; a kept session ends with it */
        ATTACH_TYPE_COUNT
};

enum attach_channel { ATTACH_STDIN, ATTACH_STDOUT, ATTACH_STDERR };
#define ATTACH_ERROR_REFUSED ATTACH_STDOUT

#define ATTACH_F_STDIO 1U /* client wants DATA of stdout and stderr from now on */
#define ATTACH_F_TTY   2U /* monitor -> client: a pty, everything is on stdout */
#define ATTACH_F_INPUT 4U /* client may send stdin; one such client at a time, else ERROR */
#define ATTACH_F_RESUME                                                                            \
        8U /* client of a kept session: wants output from the offset that its hello has behind the
            * flags, as u64 (and a second one, 0) */

/* Flow.  DATA of stdout and stderr is sent against credit: a hello with STDIO opens a window of
 * ATTACH_WINDOW bytes, CREDIT packets widen it.  Of a cluster, a client that has no credit left
 * and a full queue is dropped with ERROR: it cannot stop the cluster.  Of an exec session, the one
 * STDIO client holds the process up instead (nothing is read before it has come), and when it
 * leaves, the session hangs up as sshd's do: stdin, stdout, stderr or the pty are closed.
 * DATA of stdin has a window of the same size, opened by a hello with INPUT and widened by CREDIT
 * from the monitor as the process takes it; within it, whatever comes behind is parsed at once.
 * Beyond it, nothing is parsed until the process has read: a CREDIT or SIGNAL behind such bytes
 * waits, and with it perhaps the process, so a client that writes much keeps to the window.
 * LOG needs no credit: the socket and the files are the flow control, and a follower that was
 * overtaken by the ring goes on at the oldest kept line (the offset tells it how much is gone).
 * FOLLOW from the middle of a line starts at the next one, from beyond the end at the end.
 * A signal exit has code 128 + signal.  EXIT is the last packet, after all DATA, EOF and LOG; a
 * write may fail with EPIPE from then on while packets are still to be read.  It is missing when
 * the monitor was killed, or when a client of a cluster did not read for a second after the exit:
 * then the engine knows.  Whoever has not said hello by the end, or is in the backlog then, gets
 * ERROR, and everybody after that ECONNREFUSED; who is turned away gets ERROR whatever it has sent
 * before.  A client that closes its writing side has left; the end of stdin is EOF.
 * SIGNAL: with a tty, INT, QUIT and TSTP reach the foreground job through the pty.  Anything else
 * goes to the session's process: the monitor's uid owns the cluster's user namespace, which is the
 * right to signal what runs there, and its filter confines that right to this one child.  What the
 * kernel refuses all the same is answered with ERROR_REFUSED. */
#define ATTACH_WINDOW 32768U

/* A kept session (--keep) does not hang up when its client's connection ends, but waits for another one; a
 * new STDIO client takes the place of one that is still there.  Its output has offsets, from 0, and the last
 * ATTACH_KEPT_BYTES of it can be had once more: a client whose credit never runs so far ahead of what has
 * reached its destination loses nothing.  Output that is older is left out, as FOLLOW then says. */
#define ATTACH_KEPT_BYTES 131072U

struct attach_header {
        uint8_t type, channel;
        uint16_t zero;
        uint32_t length; /* little-endian on the wire */
};
static_assert(sizeof(struct attach_header) == 8, "wire format");

/* Log lines on disk and in LOG packets are the kubernetes CRI format, one line each:
 *   2026-11-22T14:54:47.123456789Z stdout F text
 * F: the line is whole, P: a part of a longer one (over 16 KiB, or unfinished for a second), the
 * rest follows.  Two files, log.0 and log.1, take turns: when the active one reaches half of
 * LIMIT_LOG_BYTES the other is truncated and becomes active.  Each begins with one header line
 * "#log <absolute offset of the byte behind this line>".  An absolute offset counts every byte ever
 * logged, headers not included, so it survives turns; the active file is the one with the larger. */
#define ATTACH_LOG_HEADER "#log "
#define ATTACH_LOG_TEXT   16384U                  /* most bytes of text in one line */
#define ATTACH_LOG_LINE   (ATTACH_LOG_TEXT + 64U) /* most bytes of a line, newline included */

/* How the launcher execs vmm-monitor.  Numbers are descriptors, inherited on purpose:
 *   vmm-monitor --id ID --pidfd N --pid P --listen N --status N [--pty N | [--in N] --out N --err N]
 *               [--log0 N --log1 N] [--peer UID] [--exec [--keep SECONDS]]
 * --id       cluster id, or session id with --exec (for its process title and messages)
 * --pidfd    its child: the cluster's first process or the exec'd one; --pid its number
 * --listen   bound, listening unix stream socket
 * --in       write end of the process's stdin; left out when that is /dev/null
 * --log0/1   readable and writable, without O_APPEND; both or none
 * --status   writable file; on exit one JSON line goes there, then fsync:
 *            {"pid":P,"code":N,"signal":N,"at_us":WALL,"oom":false}
 * --peer     a uid that may connect beside root (who connect()ed counts, not who holds the socket)
 * --exec     an exec session: no log; waits until output is drained and the (only) client has read
 *            it or gone; ends 10 s after the process when nobody ever connected
 * --keep     of an exec session with a pty: how long it waits for its client to come back
 * It starts with uid and gid already dropped (it refuses to run as root), as the parent of --pid,
 * closes every descriptor that is not named, installs its own seccomp filter, and serves.  All
 * descriptors are 3 or above; 0-2 become /dev/null once it serves, stderr takes start-up errors.
 * Exit status: 0 status written; 1 could not start; 2 the status file could not be written. */
#define ATTACH_STATUS_MAX 256U
