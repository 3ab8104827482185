/* mapfill.c - see mapfill.h.  Engine process. */
#include "edge/mapfill.h"

#include "base/str.h"

#define PAYLOAD_BYTES                                                                              \
        12000U /* HAProxy reads a command with what follows it into a buffer of 16 KiB */

void map_fill_next(struct map_fill *f)
{
        if (f->commands > 0 && f->out->len - f->begun <= PAYLOAD_BYTES)
                return;
        if (f->commands++ > 0)
                strbuf_char(f->out, '\n');
        f->begun = f->out->len;
        strbuf_fmt(f->out, "add map @%u %s <<\n", f->version, f->map);
}

size_t map_fill_end(struct map_fill *f)
{
        if (f->commands > 0)
                strbuf_char(f->out, '\n');
        strbuf_fmt(f->out, "commit map @%u %s\n", f->version, f->map);
        return f->commands + 1;
}
