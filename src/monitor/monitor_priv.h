/* monitor_priv.h - what the rooms of vmm-monitor share: one arena, and the doors between
 * main.c (start), loop.c (events, exit, end), stdio.c (pipes and pty) and client.c (attach socket).
 *
 * One thread, one epoll set, no allocation: struct monitor is mapped once and its pages cost
 * nothing until used.  No function here blocks, but for the log's and the status file's disk. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "model/attach_codec.h"
#include "model/limits.h"
#include "monitor/ring.h"

#define MON_CLIENTS     16U
#define MON_CHUNK       16384U /* bytes read from the process at once */
#define MON_PAGE        4096U
#define MON_IN_BYTES    2048U               /* a client's unparsed packets */
#define MON_OUT_BYTES   (9U * MON_PAGE)     /* a client's unsent packets... */
#define MON_OUT_RESERVE 1024U               /* ...of which this much is for EOF, ERROR and EXIT */
#define MON_DRAIN_BYTES (1U << 20)          /* most that a pipe can hold at the end */
#define MON_CREDIT_STEP (ATTACH_WINDOW / 4) /* stdin bytes taken -> the writer is told */

/* Times, all in microseconds. */
#define MON_PARTIAL_US 1000000ULL      /* an unfinished line is shown after this */
#define MON_DRAIN_US   500000ULL       /* exit -> whoever still holds stdout is not waited for */
#define MON_NOBODY_US  10000000ULL     /* exit of an exec'd process -> its client must have come */
#define MON_LINGER_US  1000000ULL      /* exit -> the clients of a cluster have read the rest */
#define MON_STUCK_US   600000000ULL    /* an exec's client reads nothing after the exit */
#define MON_HELLO_US   10000000ULL     /* connect -> hello */
#define MON_ACCEPT_US  1000000ULL      /* accept failed -> tried again */
#define MON_DYING_US   5000000ULL      /* ERROR queued -> closed, read or not */
#define MON_LOG_AHEAD  LIMIT_LOG_BYTES /* this much at once, then at the rate */

enum source { SRC_NONE, SRC_CHILD, SRC_LISTEN, SRC_IN, SRC_OUT, SRC_ERR, SRC_CLIENT };

/* A descriptor and how epoll knows it.  Watching nothing means being out of the set: a hung-up
 * pipe would wake us for ever otherwise. */
struct watch {
        int fd; /* -EBADF: closed */
        uint32_t events;
        uint64_t id; /* enum source (+ client index), generation << 32 */
};

struct options {
        const char *id;
        uint32_t pid, peer, log_rate; /* log bytes a second, 0: any number */
        uint32_t keep;                /* seconds, 0: the session ends with its client */
        int pidfd, listen, status, pty, in, out, err, log0, log1;
        bool exec;
};

struct client {
        struct watch w;
        uint32_t flags; /* ATTACH_F_* of its hello */
        uint32_t credit;
        bool greeted, follow, exit_sent, dying;
        uint64_t deadline_us; /* hello, or the end of a dying one; 0: none */
        uint64_t progress_us; /* last sign of life */
        uint64_t pos;         /* next log offset to send; of a kept session's owner, of output */
        const uint8_t *in;    /* stdin beyond its window, still in in_buf: nothing more is parsed */
        size_t in_len;
        bool in_eof; /* stdin ends behind that */
        size_t out_start, out_end;
        struct attach_parser parser;
        uint8_t in_buf[MON_IN_BYTES];
        uint8_t out[MON_OUT_BYTES];
} __attribute__((aligned(MON_PAGE)));

struct output {
        struct watch w;
        bool ended;
        size_t last_bytes; /* when draining against the clock: how much more is taken */
};

enum phase {
        PH_NONE,
        PH_RUN,
        PH_DRAIN,  /* the process has ended, its output has not */
        PH_LINGER, /* everything is known, clients read the rest */
        PH_DONE,
        PH_COUNT
};

struct monitor {
        struct options opt;
        enum phase phase;
        int epoll;
        int pty_peer; /* a slave side that we hold, so that the pty never hangs up early */
        struct watch child, listen, stdin;
        struct output out[2];    /* stdout (or the pty), stderr */
        struct client *owner;    /* exec: the client that output is for; borrowed from clients[] */
        uint64_t keep_until_us;  /* for so long it is waited for; 0: it is not */
        bool left, hung_up;      /* the owner has said that he leaves; the session is over */
        uint64_t kept_end;       /* offset behind the last byte of a kept session's output */
        struct client *input;    /* who may write stdin */
        size_t in_start, in_end; /* what it wrote and the process has not taken yet */
        uint32_t in_taken;       /* and what was taken since it was last told */
        bool owner_seen, has_log;
        bool exited, overdue; /* overdue: the drain deadline has passed */
        bool held;            /* it says more than it may: its output waits, and so does it */
        uint64_t log_ns;      /* when what it has said so far is within the rate */
        int exit_code, exit_signal;
        uint64_t exit_wall_us, exit_us, partial_us, linger_us, accept_us;
        int result; /* of the program */
        uint32_t generation;
        struct ring ring;
        struct client clients[MON_CLIENTS];
        uint8_t in[ATTACH_WINDOW];
        uint8_t kept[ATTACH_KEPT_BYTES]; /* its end */
        uint8_t chunk[MON_CHUNK];
};

/* loop.c */
int watch_set(struct monitor *m, struct watch *w, uint32_t events);
void watch_close(struct monitor *m, struct watch *w);
uint64_t wall_ns(void);
/* Serve until the process has ended and everybody knows; returns the program's exit status. */
int monitor_run(struct monitor *m);

/* stdio.c */
void stdio_start(struct monitor *m);
void stdio_event(struct monitor *m, enum source src);
void stdio_settle(struct monitor *m); /* what is watched follows from who may take how much */
bool stdio_ended(const struct monitor *m);
/* When output that is held back is read again; UINT64_MAX: none is. */
uint64_t stdio_held_until(const struct monitor *m);
bool stdio_ready(const struct monitor *m); /* somebody would take output now */
void stdio_hangup(struct monitor *m);      /* close everything, the process is told by the kernel */
void stdio_last_call(struct monitor *m);   /* no waiting any more: take what is there */
void stdin_flush(struct monitor *m);       /* m->input's pending bytes -> process */
void stdin_close(struct monitor *m);
void stdin_forget(struct monitor *m); /* m->input has left, and what it wrote with it */
bool stdin_open(const struct monitor *m);
void stdio_resize(struct monitor *m, uint16_t rows, uint16_t cols);
/* 0 or a negative errno. */
int stdio_signal(struct monitor *m, int sig);

/* kept.c */
uint64_t
kept_start(const struct monitor *m); /* offset of the oldest byte of output that is there */
void kept_add(struct monitor *m, const void *data, size_t len);
/* How many bytes of output lie at @pos, in one piece. */
size_t kept_get(const struct monitor *m, uint64_t pos, const uint8_t **ret);
/* There is output that this owner has not been sent. */
bool kept_behind(const struct monitor *m, const struct client *c);
bool kept_open(const struct monitor *m);  /* a new owner is welcome */
bool kept_waits(const struct monitor *m); /* the owner has not said goodbye */
void owner_come(struct monitor *m, struct client *c, const struct attach_hello *h);
void owner_gone(struct monitor *m); /* hang up, or wait for it */
void kept_settle(struct monitor *m, uint64_t now_us);

/* client.c */
void client_accept(struct monitor *m, uint64_t now_us);
void client_event(struct monitor *m, struct client *c, uint32_t events, uint64_t now_us);
/* Output for everybody who wants it; a client of a cluster that cannot take it is dropped. */
void client_output(struct monitor *m, enum attach_channel ch, const void *data, size_t len);
void client_channel_ended(struct monitor *m, enum attach_channel ch);
size_t client_budget(const struct client *c); /* DATA bytes that fit now */
/* Timers, log lines, EXIT, sending; once per turn of the loop. */
void client_settle(struct monitor *m, uint64_t now_us);
/* Nobody has anything left to be sent. */
bool client_all_told(const struct monitor *m);
/* Earliest of the clients' deadlines and @until. */
uint64_t client_deadline(const struct monitor *m, uint64_t until);
void client_close_all(struct monitor *m);
