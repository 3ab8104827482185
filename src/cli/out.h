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

/* One line for a terminal @width columns wide, without a line break: phase, bar, percent, sizes,
 * as much of it as fits.  @total 0: unknown.  @buf holds 256 bytes. */
const char *progress_text(size_t width, const char *phase, uint64_t done, uint64_t total,
                          bool bytes, char *buf);

/* The progress line itself, on stderr, and only when that is a terminal.  At most ten a second. */
struct progress {
        bool tty, shown;
        uint64_t last_us;
};
void progress_init(struct progress *p);
void progress_show(struct progress *p, const char *phase, uint64_t done, uint64_t total,
                   bool bytes);
void progress_clear(struct progress *p); /* call before anything else is printed */
