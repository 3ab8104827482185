/* layer_log_resolve.c - see layer_log_priv.h: what the events come to, and the index of it.  Runs in
 * vmm-fetch. */
#include "store/layer_log_priv.h"

#include <errno.h>

/* --- the walk --- */

struct level {
        const char *path; /* of the log */
        size_t len;
        uint32_t floor;
};

struct resolver {
        struct layer_log *l;
        struct sink *out; /* NULL: only count */
        struct layer_index x;
        struct level stack[LAYER_DEPTH_MAX + 2];
        unsigned depth;
        uint64_t *objects; /* their sizes; 0: no name is left */
};

static void put(struct resolver *w, const struct layer_entry *n)
{
        if (w->out)
                layer_index_put(w->out, n);
        else
                w->x.len += layer_index_entry_bytes(n);
        w->x.n_entries++;
}

/* What an entry's event says; the name is still missing. */
static struct layer_entry entry_of(const struct event *ev)
{
        return (struct layer_entry){
                .type = (enum layer_type) ev->type,
                .mode = ev->mode,
                .uid = ev->uid,
                .gid = ev->gid,
                .mtime_s = ev->mtime_s,
                .mtime_ns = ev->mtime_ns,
                .group = ev->group,
                .size = ev->size,
                .chunks = event_chunks(ev),
                .n_chunks = ev->n_chunks,
                .chunk_bits = ev->chunk_bits,
                .object = ev->object,
                .xattrs = event_chunks(ev) + 4ULL * ev->n_chunks,
                .xattrs_len = ev->xattrs_len,
                .target = event_target(ev),
        };
}

/* The last component of @path, and how many there are. */
static void set_name(struct layer_entry *n, const char *path, size_t len)
{
        const char *slash = memrchr(path, '/', len);

        n->name = slash ? slash + 1 : path;
        n->name_len = len - (size_t) (n->name - path);
        n->depth = len > 0;
        for (size_t i = 0; i < len; i++)
                n->depth += path[i] == '/';
}

static void push(struct resolver *w, const char *path, size_t len, uint32_t floor)
{
        w->stack[++w->depth] = (struct level){ path, len, floor };
}

static int put_implied(struct resolver *w, const char *path, size_t len, unsigned flags,
                       uint32_t floor, struct err *e)
{
        struct layer_entry n = { .type = LAYER_DIR, .flags = flags | LAYER_IMPLIED, .mode = 0755 };

        set_name(&n, path, len);
        if (n.depth > LAYER_DEPTH_MAX)
                return err_set(e, -ENAMETOOLONG, "'%.100s...' is deeper than %u directories", path,
                               LAYER_DEPTH_MAX);
        put(w, &n);
        push(w, path, len, floor);
        return 0;
}

/* Every directory above @path that is not open yet. */
static int put_parents(struct resolver *w, const char *path, size_t len, struct err *e)
{
        uint32_t floor = w->stack[w->depth].floor;
        size_t n = w->stack[w->depth].len;

        for (n = n > 0 ? n + 1 : 0; n < len; n++)
                if (path[n] == '/') {
                        int r = put_implied(w, path, n, 0, floor, e);

                        if (r < 0)
                                return r;
                }
        return 0;
}

/* A name of the inode that the event at @time made. */
static int put_bare(struct resolver *w, const struct event *name, struct err *e)
{
        struct event *inode = event_at(w->l, name->inode);
        struct layer_entry n = { .type = LAYER_LINK };
        bool first;

        if (!w->out) {
                inode->names++;
                if (inode->type == LAYER_OBJECT)
                        w->objects[inode->object] = inode->size;
                first = inode->names == 1;
        } else {
                first = !inode->group;
                if (first && inode->names > 1)
                        inode->group = ++w->x.n_groups;
                first = first || inode->names == 1;
        }
        if (first) {
                n = entry_of(inode);
                w->x.content_bytes += n.type == LAYER_FILE || n.type == LAYER_OBJECT ? n.size : 0;
        } else {
                n.group = inode->group;
        }
        set_name(&n, event_path(name), name->path_len);
        if (n.depth > LAYER_DEPTH_MAX)
                return err_set(e, -ENAMETOOLONG, "a path is deeper than %u directories",
                               LAYER_DEPTH_MAX);
        put(w, &n);
        return 0;
}

/* What the events of one path come to. */
struct verdict {
        const struct event *bare, *dir; /* the last of each that counts */
        bool any, opaque, whiteout;
        uint32_t floor; /* for what lies below */
};

static struct verdict judge(const struct resolver *w, uint32_t from, uint32_t to)
{
        uint32_t floor = w->stack[w->depth].floor;
        struct verdict v = { .floor = floor };

        for (uint32_t i = from; i < to; i++) {
                const struct event *ev = event_at(w->l, w->l->order[i]);

                if (w->l->order[i] < floor)
                        continue;
                v.any = true;
                if (ev->kind == EV_WHITEOUT)
                        v.whiteout = true;
                if (event_is_bare(ev)) {
                        v.bare = ev;
                        v.dir = NULL;
                        v.opaque = false;
                        v.floor = w->l->order[i];
                }
                if (event_is_dir(ev)) {
                        v.opaque = v.opaque || ev->kind == EV_OPAQUE;
                        if (ev->kind == EV_ENTRY || !v.dir)
                                v.dir = ev;
                }
        }
        return v;
}

static int put_dir(struct resolver *w, const struct event *ev, const struct verdict *v,
                   struct err *e)
{
        unsigned flags = v->opaque || v->whiteout ? LAYER_OPAQUE : 0;
        struct layer_entry n;

        if (!v->dir || v->dir->kind == EV_OPAQUE)
                return put_implied(w, event_path(ev), ev->path_len, flags, v->floor, e);
        n = entry_of(v->dir);
        n.flags = flags;
        set_name(&n, event_path(ev), ev->path_len);
        if (n.depth > LAYER_DEPTH_MAX)
                return err_set(e, -ENAMETOOLONG, "a path is deeper than %u directories",
                               LAYER_DEPTH_MAX);
        put(w, &n);
        push(w, event_path(ev), ev->path_len, v->floor);
        return 0;
}

/* All events of the path at @from; *@ret: the place to go on. */
static int put_path(struct resolver *w, uint32_t from, uint32_t *ret, struct err *e)
{
        uint32_t to = log_group_end(w->l, from), end = to;
        const struct event *ev = event_at(w->l, w->l->order[from]);
        struct layer_entry hidden = { .type = LAYER_WHITEOUT };
        struct verdict v;
        int r;

        while (!log_is_below(w->stack[w->depth].path, w->stack[w->depth].len, event_path(ev),
                             ev->path_len))
                w->depth--;
        v = judge(w, from, to);
        *ret = to;
        if (!v.any)
                return 0;
        r = put_parents(w, event_path(ev), ev->path_len, e);
        if (r < 0)
                return r;
        if (v.dir ||
            log_happened_below(w->l, to, ev, v.bare ? v.floor + 1 : v.floor, NO_EVENT, &end))
                return put_dir(w, ev, &v, e);
        *ret = end; /* whatever lies below was swept away */
        if (v.bare)
                return put_bare(w, v.bare, e);
        set_name(&hidden, event_path(ev), ev->path_len);
        put(w, &hidden);
        return 0;
}

static int walk(struct resolver *w, struct err *e)
{
        const struct layer_log *l = w->l;
        uint32_t i = 0;
        int r = 0;

        w->depth = 0;
        w->x.n_entries = w->x.n_groups = 0;
        w->x.content_bytes = 0;
        while (i < l->n_events && event_at(l, l->order[i])->path_len == 0)
                i++; /* those of the root come first */
        if (i > 0) {
                struct verdict v = judge(w, 0, i);

                r = put_dir(w, event_at(l, l->order[0]), &v, e);
        } else {
                r = put_implied(w, "", 0, 0, 0, e);
        }
        while (r >= 0 && i < l->n_events)
                r = put_path(w, i, &i, e);
        return r;
}

/* --- the index --- */

static void put_objects(struct resolver *w)
{
        for (uint32_t i = 0; i < w->l->n_objects; i++) {
                uint8_t size[LAYER_OBJECT_BYTES];

                put64(size, w->objects[i]);
                sink_put(w->out, size, sizeof size);
        }
}

/* Groups of names are numbered while writing; the header comes first and wants their number. */
static uint32_t count_groups(const struct layer_log *l)
{
        uint32_t n = 0, time = 0;

        for (uint32_t i = 0; i < l->n_events; i++) {
                const struct event *ev = event_at(l, time);

                n += ev->names > 1;
                time += ev->bytes / EVENT_ALIGN;
        }
        return n;
}

static int write_index(struct resolver *w, const struct layer_totals *totals, int out,
                       struct err *e)
{
        AUTO(sink_free) struct sink *s = NULL;
        int r = walk(w, e);

        if (r < 0)
                return r;
        w->x.totals = *totals;
        w->x.len += LAYER_HEADER_BYTES + (uint64_t) w->l->n_objects * LAYER_OBJECT_BYTES;
        w->x.n_objects = w->l->n_objects;
        w->x.n_groups = count_groups(w->l);
        if (w->x.len > LAYER_INDEX_BYTES_MAX)
                return err_set(e, -E2BIG, "its index is larger than %llu MiB",
                               LAYER_INDEX_BYTES_MAX >> 20);
        r = sink_new(out, &s, e);
        if (r < 0)
                return r;
        w->out = s;
        layer_index_put_header(s, &w->x);
        put_objects(w);
        r = walk(w, e);
        w->out = NULL;
        return r < 0 ? r : sink_flush(s, e);
}

int layer_log_finish(struct layer_log *l, const struct layer_totals *totals, int out, struct err *e)
{
        AUTO(free) struct resolver *w = calloc(1, sizeof *w);
        int r;

        if (!w)
                return err_set(e, -ENOMEM, "out of memory");
        w->l = l;
        w->objects = calloc(l->n_objects + 1ULL, sizeof *w->objects);
        r = w->objects ? log_sort(l, e) : err_set(e, -ENOMEM, "out of memory");
        if (r >= 0)
                r = log_resolve_links(l, e);
        if (r >= 0)
                r = write_index(w, totals, out, e);
        free(w->objects);
        return r;
}
