/* layer_log_priv.h - the log of a layer, as the files of layer_log share it.
 *
 * Theory of operation.  An event lies at an offset of the log that is also its time: the log only
 * grows.  Sorted by (path, time), all events below a directory follow the directory's own, so one
 * walk resolves the layer with a stack of open directories.  Each of them has a floor: the time of
 * the last entry at that path, or at one above, that was no directory.  Whatever happened below
 * before that moment was swept away with it.
 * A directory exists when it was described or marked after that, or when anything happened below it
 * after that; a bare name exists otherwise.  The walk is made twice: first to count (names per inode,
 * entries, objects), then to write. */
#pragma once
#include "store/bytes.h"
#include "store/layer_log.h"
#include "store/scratch.h"

#define EVENT_ALIGN 8U
#define NO_EVENT    UINT32_MAX /* times are offsets / EVENT_ALIGN: 32 bits for 32 GiB */

enum { EV_ENTRY, EV_LINK, EV_OPAQUE, EV_WHITEOUT };

/* In the log, followed by: path, target (of a link: the path it points to), padding to 4, chunks,
 * xattrs. */
struct event {
        uint64_t size;
        int64_t mtime_s;
        uint32_t mtime_ns;
        uint32_t bytes; /* of the whole event */
        uint32_t n_chunks, xattrs_len;
        uint32_t inode;         /* a link: the event that made the inode; anything else: itself */
        uint32_t names;         /* of an inode: how many the layer has in the end */
        uint32_t group, object; /* of an inode: as struct layer_entry has them */
        uint16_t path_len, target_len;
        uint16_t uid, gid, mode;
        uint8_t kind, type, chunk_bits;
};

struct layer_log {
        struct scratch log;
        uint32_t max_entries, n_events;
        uint32_t n_objects; /* one more than the highest number */
        uint32_t *order;    /* events by path and time */
        uint64_t steps;     /* left for looking after hard links */
};

static inline struct event *event_at(const struct layer_log *l, uint32_t time)
{
        return (struct event *) (void *) (l->log.p + (uint64_t) time * EVENT_ALIGN);
}

static inline const char *event_path(const struct event *ev)
{
        return (const char *) (ev + 1);
}

static inline const char *event_target(const struct event *ev)
{
        return event_path(ev) + ev->path_len;
}

static inline uint64_t event_strings(const struct event *ev)
{
        return round_up((uint64_t) ev->path_len + ev->target_len, 4);
}

static inline const uint8_t *event_chunks(const struct event *ev)
{
        return (const uint8_t *) (ev + 1) + event_strings(ev);
}

/* It takes the place of what has the name, and is no directory. */
static inline bool event_is_bare(const struct event *ev)
{
        return ev->kind == EV_LINK || (ev->kind == EV_ENTRY && ev->type != LAYER_DIR);
}

static inline bool event_is_dir(const struct event *ev)
{
        return ev->kind == EV_OPAQUE || (ev->kind == EV_ENTRY && ev->type == LAYER_DIR);
}

/* --- layer_log_order.c --- */

int log_sort(struct layer_log *l, struct err *e);
/* The inode of every link; -EINVAL: of one that has none. */
int log_resolve_links(struct layer_log *l, struct err *e);
/* @path lies below @dir. */
bool log_is_below(const char *dir, size_t dir_len, const char *path, size_t len);
/* Behind all events of the path at place @i of the order. */
uint32_t log_group_end(const struct layer_log *l, uint32_t i);
/* Whether anything happened below @dir at a time in [after, before); @i is the first place behind its
 * own events.  *@ret_end: the place behind all that lies below, set when nothing did. */
bool log_happened_below(const struct layer_log *l, uint32_t i, const struct event *dir,
                        uint32_t after, uint32_t before, uint32_t *ret_end);
