/* attach.h - the contract between vmm-monitor and whoever talks to it, wire and command line.
 *
 * Every cluster (and every exec session) has one vmm-monitor.  It is started by the launcher with
 * open descriptors and holds no path.  Clients connect to its unix stream socket; the first thing
 * each side sends is `hello`.
 *
 * Wire: packets of { u8 type, u8 channel, u16 zero, u32 little-endian length } and payload, at most
 * ATTACH_MAX_PAYLOAD bytes.  Unknown types are skipped by length (a newer peer may know more);
 * a wrong version in hello ends the connection with an `error` packet.  Pure definitions. */
#pragma once
#include <assert.h>
#include <stdint.h>

#define ATTACH_VERSION     1U
#define ATTACH_MAX_PAYLOAD 65536U

enum attach_type {
        ATTACH_NONE,
        ATTACH_HELLO,  /* both ways: u32 version, u32 flags (ATTACH_F_*) */
        ATTACH_DATA,   /* both ways: bytes of `channel`; client -> monitor only on stdin */
        ATTACH_EOF,    /* client -> monitor: stdin is closed; monitor -> client: that channel ended */
        ATTACH_RESIZE, /* client -> monitor: u16 rows, u16 columns (ignored without a tty) */
        ATTACH_SIGNAL, /* client -> monitor: u32 signal for the process (exec sessions) */
        ATTACH_FOLLOW, /* client -> monitor: u64 log offset; answered with LOG packets from there */
        ATTACH_LOG,    /* monitor -> client: u64 offset of the first byte, then whole log lines */
        ATTACH_EXIT,   /* monitor -> client: i32 exit code (0..255), i32 signal (0: none) */
        ATTACH_ERROR,  /* monitor -> client: one sentence */
        ATTACH_CREDIT, /* client -> monitor: u32 bytes more that it is ready to take (flow control) */
        ATTACH_TYPE_COUNT
};

enum attach_channel { ATTACH_STDIN, ATTACH_STDOUT, ATTACH_STDERR };

#define ATTACH_F_STDIO 1U /* client wants DATA of stdout and stderr from now on */
#define ATTACH_F_TTY   2U /* monitor -> client: a pty, everything is on stdout */
#define ATTACH_F_INPUT 4U /* client may send stdin; one such client at a time, else ERROR */

struct attach_header {
        uint8_t type, channel;
        uint16_t zero;
        uint32_t length; /* little-endian on the wire */
};
static_assert(sizeof(struct attach_header) == 8, "wire format");

/* Log lines on disk and in LOG packets are the kubernetes CRI format, one line each:
 *   2026-11-22T14:54:47.123456789Z stdout F text
 * F: the line is whole, P: a part of a longer one (over 16 KiB).  Two files, log.0 and log.1, take
 * turns: when the active one reaches half of LIMIT_LOG_BYTES the other is truncated and becomes
 * active.  Each begins with one header line "#log <absolute offset of the byte behind this line>".
 * An absolute offset counts every byte ever logged, headers not included, so it survives turns. */
#define ATTACH_LOG_HEADER "#log "

/* How the launcher execs vmm-monitor.  Numbers are descriptors, inherited on purpose:
 *   vmm-monitor --id ID --pidfd N --pid P --listen N --status N [--pty N | --in N --out N --err N]
 *               [--log0 N --log1 N] [--exec]
 * --id       cluster id, or session id with --exec (for its process title and messages)
 * --pidfd    its child: the cluster's first process or the exec'd one; --pid its number
 * --listen   bound, listening unix stream socket
 * --status   writable file; on exit one JSON line goes there, then fsync:
 *            {"pid":P,"code":N,"signal":N,"at_us":WALL,"oom":false}
 * --exec     an exec session: no log; waits until output is drained and the (only) client has read
 *            it or gone; ends 10 s after the process when nobody ever connected
 * It starts as root with these descriptors, takes --uid/--gid U from the launcher's setresuid
 * (already dropped before exec), installs its own seccomp filter, and serves. */
#define ATTACH_STATUS_MAX 256U
