/* logfile.h - reading a cluster's two log files by absolute offset while the monitor writes them
 * (format: model/attach.h), and turning their lines into what a client asked for. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/str.h"
#include "model/attach.h"

struct log_files {
        int fd[2]; /* owned; -EBADF: not open */
};

void log_files_init(struct log_files *l);
void log_files_done(struct log_files *l);

/* Oldest and newest absolute offset that can be read now; both 0 when nothing was ever logged. */
void log_files_range(const struct log_files *l, uint64_t *ret_start, uint64_t *ret_end);

/* Read at most @max bytes at *@pos, which is moved on to the oldest kept byte when it was
 * overtaken.  Returns the number of bytes, 0 at the end. */
ssize_t log_files_read(const struct log_files *l, uint64_t *pos, char *buf, size_t max);

/* What a client wants to see. */
struct log_filter {
        bool timestamps;
        bool raw;                     /* records as they are stored, instead of their text */
        bool want[ATTACH_STDERR + 1]; /* by channel */
        char since[32];               /* "2026-11-22T14:54:47.123456", "" = everything */
        bool open[ATTACH_STDERR + 1]; /* the last piece of that channel was no whole line */
};

/* The offset behind which the last @lines lines begin that @f wants (whatever their time). */
uint64_t log_files_tail(const struct log_files *l, const struct log_filter *f, uint64_t lines);

/* "2026-01-31T08:00:00Z", or a span such as 10m, which ends now; empty: everything. */
int log_since(const char *text, char ret[static 32], struct err *e);

/* Append the wanted text of the whole lines in @data to @out; returns how many bytes were used. */
size_t log_filter_lines(struct log_filter *f, const char *data, size_t len, struct strbuf *out);
