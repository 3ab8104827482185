/* text.h - what programs need to talk about their own tables: the name that was probably meant, and
 * table texts in a manual page's source.  Pure: it appends to the caller's buffer. */
#pragma once
#include "base/str.h"

/* The closest of @n words to @word, or NULL when none is close. */
const char *text_nearest(const char *word, const char *const *words, size_t n);

/* mdoc(7): @text with roff's own characters made plain; no line begins with a control character. */
void text_roff(const char *text, struct strbuf *b);
/* One quoted macro argument, a blank in front, so that no word of it is read as a macro. */
void text_quoted(const char *text, struct strbuf *b);
/* Running text: each sentence begins a line of its own, as mdoc wants it; the first letter becomes
 * a capital. */
void text_sentences(const char *text, struct strbuf *b);
