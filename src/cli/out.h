/* out.h - tables, sizes and the progress line.  Formatting is pure; printing may block on the
 * terminal. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/str.h"

/* A table as the command line contract has it: cells padded with blanks to the column's width,
 * a tab behind each, no borders.  Cells are copied; control characters become '?'. */
struct table;
int table_new(const char *const *headers, size_t n, struct table **ret);
struct table *table_free(struct table *t);
int table_cell(struct table *t, const char *text); /* row by row, left to right; NULL is "" */
int table_text(const struct table *t, struct strbuf *out);
int table_print(const struct table *t, struct err *e); /* to stdout */
DEFINE_AUTO(struct table *, table_free)

/* Columns of @s on a terminal, taking every character for one column wide. */
size_t text_width(const char *s);

/* "77.3 MB", powers of 1,000; @buf holds 16 bytes. */
const char *size_text(uint64_t bytes, char *buf);

/* How far something is. */
struct progress_state {
        const char *phase;
        uint64_t done, total; /* total 0: unknown */
        uint64_t per_s;       /* 0: unknown */
        bool bytes;           /* all of these are */
};
#define PROGRESS_BYTES 256

/* One line for a terminal @width columns wide, without a line break: phase, bar, percent, sizes in
 * powers of 1,024, rate and what is left of the time, as much of it as fits.  The bar keeps its length
 * while the numbers change.  @buf holds PROGRESS_BYTES. */
const char *progress_text(size_t width, const struct progress_state *s, char *buf);
/* The same without a bar, as long as it is: "pulling 43% 123 MiB of 1.2 GiB 45 MiB/s ETA 12s". */
const char *progress_line(const struct progress_state *s, char *buf);

/* The progress line itself, on stderr: on a terminal one that is drawn over, at most ten times a
 * second; elsewhere a plain line every PROGRESS_LINE_US, so that a log shows that something happens. */
#define PROGRESS_LINE_US (10 * 1000000ULL)
struct progress {
        bool tty, shown;
        uint64_t last_us;
        char text[PROGRESS_BYTES]; /* what is on the terminal */
};
void progress_init(struct progress *p);
void progress_show(struct progress *p, const struct progress_state *s);
void progress_clear(struct progress *p); /* call before anything else is printed */
