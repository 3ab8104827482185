/* top.h - the picture of `top`: what is asked for once a second, as lines of text.  Pure. */
#pragma once
#include <jansson.h>
#include <stddef.h>

#include "base/str.h"

struct top_picture {
        const json_t *gpus;     /* the operator's: every GPU of the host; NULL: not shown to us */
        const json_t *host;     /* one of `machines`, with them */
        const json_t *clusters; /* our own */
        const char *time;       /* of the picture, for the headline */
        const char *note;       /* why it is an old one; NULL: it is not */
        size_t rows, cols;      /* of the terminal; 0: as long, as wide as it is */
};

/* Lines, each with a line break.  What does not fit into `rows` is left out, and the last line says so. */
void top_text(const struct top_picture *t, struct strbuf *out);
