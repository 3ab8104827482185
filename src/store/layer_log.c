/* layer_log.c - see layer_log.h.  Runs in vmm-fetch.
 *
 * Theory of operation.  An event lies at an offset of the log that is also its time: the log only
 * grows.  Sorted by (path, time), all events below a directory follow the directory's own, so one
 * walk resolves the layer with a stack of open directories.  Each of them has a floor: the time of
 * the last entry at that path, or at one above, that was no directory.  Whatever happened below
 * before that moment was swept away with it.
 * A directory exists when it was described or marked after that, or when anything happened below it
 * after that; a bare name exists otherwise.  The walk is made twice: first to count (names per inode,
 * entries, objects), then to write. */
#include "store/layer_log.h"

#include <errno.h>

#include "store/bytes.h"
#include "store/scratch.h"

#define LOG_BYTES_MAX  (4ULL << 30)
#define ENTRIES_MAX    10000000U
#define EVENT_ALIGN    8U
#define PATH_BYTES_MAX 4096U
#define STEPS_EACH     64ULL
#define STEPS_FREE     1000000ULL
#define NO_EVENT       UINT32_MAX /* times are offsets / EVENT_ALIGN: 32 bits for 32 GiB */

enum { EV_ENTRY, EV_LINK, EV_OPAQUE, EV_WHITEOUT };

/* In the log, followed by path, target (of a link: the path it points to), chunks, xattrs. */
struct event {
        struct layer_entry n; /* pointers are NULL here: see event_entry() */
        uint32_t bytes;       /* of the whole event */
        uint32_t path_len, target_len;
        uint8_t kind;
        uint32_t inode; /* a link: the event that made the inode; anything else: itself */
        uint32_t names; /* of an inode: how many the layer has in the end */
        uint8_t sha[LAYER_SHA_BYTES];
};

struct layer_log {
        struct scratch log;
        uint32_t max_entries, n_events;
        uint32_t *order; /* events by path and time */
        uint64_t steps;  /* left for looking after hard links */
};

/* --- the log --- */

int layer_log_new(int scratch, const struct layer_log_limits *limits, struct layer_log **ret,
                  struct err *e)
{
        struct layer_log *l = calloc(1, sizeof *l);

        if (!l)
                return err_set(e, -ENOMEM, "out of memory");
        scratch_init(&l->log, scratch, limits->max_bytes ? limits->max_bytes : LOG_BYTES_MAX);
        l->max_entries = limits->max_entries ? limits->max_entries : ENTRIES_MAX;
        *ret = l;
        return 0;
}

struct layer_log *layer_log_free(struct layer_log *l)
{
        if (!l)
                return NULL;
        scratch_done(&l->log);
        free(l->order);
        free(l);
        return NULL;
}

static struct event *event_at(const struct layer_log *l, uint32_t time)
{
        void *p = l->log.p + (uint64_t) time * EVENT_ALIGN;

        return p;
}

static const char *event_path(const struct event *ev)
{
        return (const char *) (ev + 1);
}

static const char *event_target(const struct event *ev)
{
        return event_path(ev) + ev->path_len;
}

/* Tables of numbers follow the strings at an aligned place. */
static const uint8_t *event_chunks(const struct event *ev)
{
        return (const uint8_t *) (ev + 1) + round_up(ev->path_len + ev->target_len, 4);
}

static int append(struct layer_log *l, struct event *ev, const char *path, const char *target,
                  const uint32_t *chunks, struct err *e)
{
        uint64_t strings, bytes;
        uint8_t *p;
        int r;

        ev->path_len = (uint32_t) strlen(path);
        if (ev->path_len >= PATH_BYTES_MAX || ev->target_len >= PATH_BYTES_MAX)
                return err_set(e, -ENAMETOOLONG, "'%.100s...' is too long", path);
        if (l->n_events == l->max_entries)
                return err_set(e, -E2BIG, "it has more than %u entries", l->max_entries);
        strings = round_up(ev->path_len + ev->target_len, 4);
        bytes = round_up(sizeof *ev + strings + 4ULL * ev->n.n_chunks + ev->n.xattrs_len,
                         EVENT_ALIGN);
        ev->bytes = (uint32_t) bytes;
        ev->inode = (uint32_t) (l->log.len / EVENT_ALIGN);
        r = scratch_add(&l->log, bytes, &p, e);
        if (r < 0)
                return r;
        l->n_events++;
        memcpy(p, ev, sizeof *ev);
        ((struct event *) (void *) p)->n.xattrs = NULL; /* it was the caller's */
        p += sizeof *ev;
        memcpy(p, path, ev->path_len);
        if (ev->target_len > 0)
                memcpy(p + ev->path_len, target, ev->target_len);
        p += strings;
        for (uint32_t i = 0; i < ev->n.n_chunks; i++, p += 4)
                put32(p, chunks[i]);
        if (ev->n.xattrs_len > 0)
                memcpy(p, ev->n.xattrs, ev->n.xattrs_len);
        return 0;
}

static int check_entry(const char *path, const struct layer_entry *n, struct err *e)
{
        if (!*path && n->type != LAYER_DIR)
                return err_set(e, -EINVAL, "the layer's root is not a directory");
        if (n->uid > LAYER_ID_MAX || n->gid > LAYER_ID_MAX)
                return err_set(e, -ERANGE, "'%.200s': owner %u:%u is outside 0..%u", path, n->uid,
                               n->gid, LAYER_ID_MAX);
        if (n->size > LAYER_SIZE_MAX || n->n_chunks > LAYER_CHUNKS_MAX)
                return err_set(e, -EFBIG, "'%.200s' is larger than %llu GiB", path,
                               LAYER_SIZE_MAX >> 30);
        if (n->xattrs_len > LAYER_XATTRS_MAX)
                return err_set(e, -E2BIG, "'%.200s' has more than %u KiB of attributes", path,
                               LAYER_XATTRS_MAX >> 10);
        return 0;
}

int layer_log_add(struct layer_log *l, const char *path, const struct layer_entry *n,
                  const uint32_t *chunks, const uint8_t *sha, struct err *e)
{
        bool is_link = n->type == LAYER_SYMLINK;
        struct event ev = { .kind = EV_ENTRY };
        int r = check_entry(path, n, e);

        if (r < 0)
                return r;
        ev.n = (struct layer_entry){
                .type = n->type,
                .mode = is_link ? 0777 : n->mode & 07777,
                .uid = n->uid,
                .gid = n->gid,
                .mtime_s = n->mtime_s,
                .mtime_ns = n->mtime_ns,
                .size = n->size,
                .n_chunks = n->type == LAYER_FILE ? n->n_chunks : 0,
                .chunk_bits = n->type == LAYER_FILE ? n->chunk_bits : 0,
                .xattrs = n->xattrs,
                .xattrs_len = n->xattrs_len,
        };
        ev.target_len = is_link ? (uint32_t) n->size : 0;
        if (sha)
                memcpy(ev.sha, sha, LAYER_SHA_BYTES);
        return append(l, &ev, path, n->target, chunks, e);
}

int layer_log_link(struct layer_log *l, const char *path, const char *target, struct err *e)
{
        struct event ev = { .kind = EV_LINK, .target_len = (uint32_t) strlen(target) };

        if (!*path)
                return err_set(e, -EINVAL, "the layer's root is not a directory");
        if (strcmp(path, target) == 0)
                return 0; /* a name that is itself */
        return append(l, &ev, path, target, NULL, e);
}

int layer_log_whiteout(struct layer_log *l, const char *path, struct err *e)
{
        struct event ev = { .kind = EV_WHITEOUT };

        return *path ? append(l, &ev, path, NULL, NULL, e)
                     : err_set(e, -EINVAL, "a whiteout of the root");
}

int layer_log_opaque(struct layer_log *l, const char *path, struct err *e)
{
        struct event ev = { .kind = EV_OPAQUE };

        return append(l, &ev, path, NULL, NULL, e);
}

/* --- order --- */

/* It takes the place of what has the name, and is no directory. */
static bool is_bare(const struct event *ev)
{
        return ev->kind == EV_LINK || (ev->kind == EV_ENTRY && ev->n.type != LAYER_DIR);
}

static bool is_dir_event(const struct event *ev)
{
        return ev->kind == EV_OPAQUE || (ev->kind == EV_ENTRY && ev->n.type == LAYER_DIR);
}

static int compare(const void *a, const void *b, void *arg)
{
        const struct layer_log *l = arg;
        uint32_t x, y;
        const struct event *ex, *ey;
        int r;

        memcpy(&x, a, sizeof x);
        memcpy(&y, b, sizeof y);
        ex = event_at(l, x);
        ey = event_at(l, y);
        r = layer_path_compare(event_path(ex), ex->path_len, event_path(ey), ey->path_len);
        return r != 0 ? r : x < y ? -1 : x > y;
}

static int sort_events(struct layer_log *l, struct err *e)
{
        uint32_t time = 0;
        bool sorted = true;

        l->order = malloc((l->n_events + 1ULL) * sizeof *l->order);
        if (!l->order)
                return err_set(e, -ENOMEM, "out of memory");
        for (uint32_t i = 0; i < l->n_events; i++) {
                l->order[i] = time;
                if (i > 0 && sorted)
                        sorted = compare(&l->order[i - 1], &l->order[i], l) < 0;
                time += event_at(l, time)->bytes / EVENT_ALIGN;
        }
        if (!sorted)
                qsort_r(l->order, l->n_events, sizeof *l->order, compare, l);
        return 0;
}

/* @path lies below @dir. */
static bool is_below(const char *dir, size_t dir_len, const char *path, size_t len)
{
        if (dir_len == 0)
                return len > 0;
        return len > dir_len && path[dir_len] == '/' && memcmp(dir, path, dir_len) == 0;
}

/* The first place in the order whose path is not before @path. */
static uint32_t place_of(const struct layer_log *l, const char *path, size_t len)
{
        uint32_t lo = 0, hi = l->n_events;

        while (lo < hi) {
                uint32_t mid = lo + (hi - lo) / 2;
                const struct event *ev = event_at(l, l->order[mid]);

                if (layer_path_compare(event_path(ev), ev->path_len, path, len) < 0)
                        lo = mid + 1;
                else
                        hi = mid;
        }
        return lo;
}

/* Behind all events of the path at @i. */
static uint32_t group_end(const struct layer_log *l, uint32_t i)
{
        const struct event *first = event_at(l, l->order[i]);

        for (i++; i < l->n_events; i++) {
                const struct event *ev = event_at(l, l->order[i]);

                if (ev->path_len != first->path_len ||
                    memcmp(event_path(ev), event_path(first), first->path_len) != 0)
                        break;
        }
        return i;
}

/* Whether anything happened below @dir between the two times; @i is the first place behind its own
 * events.  *@ret_end: the place behind all that lies below, set when nothing did. */
static bool happened_below(const struct layer_log *l, uint32_t i, const struct event *dir,
                           uint32_t after, uint32_t before, uint32_t *ret_end)
{
        for (; i < l->n_events; i++) {
                const struct event *ev = event_at(l, l->order[i]);

                if (!is_below(event_path(dir), dir->path_len, event_path(ev), ev->path_len))
                        break;
                if (l->order[i] >= after && l->order[i] < before)
                        return true;
        }
        *ret_end = i;
        return false;
}

/* --- hard links --- */

/* Looking for a link's target may walk over all that ever had its name.  Real layers need a few steps
 * for each; entries made to need more than STEPS_EACH on average are refused, by count and not by
 * clock, so that it is the same everywhere. */
static bool spend(struct layer_log *l, uint64_t n)
{
        bool fine = l->steps > n;

        l->steps = fine ? l->steps - n : 0;
        return fine;
}

/* Whether something that is no directory took the place of a directory above @path. */
static bool swept(struct layer_log *l, const char *path, size_t len, uint32_t after,
                  uint32_t before)
{
        for (size_t n = 0; n < len; n++) {
                if (path[n] != '/')
                        continue;
                for (uint32_t i = place_of(l, path, n); i < l->n_events; i++) {
                        const struct event *ev = event_at(l, l->order[i]);

                        if (ev->path_len != n || memcmp(event_path(ev), path, n) != 0 ||
                            l->order[i] >= before || !spend(l, 1))
                                break;
                        if (l->order[i] > after && is_bare(ev))
                                return true;
                }
        }
        return false;
}

/* The inode that @path had at @time; NO_EVENT: there was none. */
static uint32_t inode_at(struct layer_log *l, const char *path, size_t len, uint32_t time)
{
        uint32_t last = NO_EVENT, i = place_of(l, path, len), end = 0;
        const struct event *ev = NULL;

        for (; i < l->n_events && spend(l, 1); i++) {
                const struct event *next = event_at(l, l->order[i]);

                if (next->path_len != len || memcmp(event_path(next), path, len) != 0)
                        break;
                if (l->order[i] < time && next->kind != EV_WHITEOUT) {
                        last = l->order[i];
                        ev = next;
                }
        }
        if (!ev || !is_bare(ev) || happened_below(l, i, ev, last + 1, time, &end) ||
            swept(l, path, len, last, time))
                return NO_EVENT;
        return spend(l, end - i) ? ev->inode : NO_EVENT;
}

/* In the order of time, so that the inode of a link's link is known. */
static int resolve_links(struct layer_log *l, struct err *e)
{
        uint32_t time = 0;

        l->steps = l->n_events * STEPS_EACH + STEPS_FREE;
        for (uint32_t i = 0; i < l->n_events; i++) {
                struct event *ev = event_at(l, time);

                if (ev->kind == EV_LINK) {
                        ev->inode = inode_at(l, event_target(ev), ev->target_len, time);
                        if (!l->steps)
                                return err_set(e, -E2BIG, "its hard links are too tangled");
                        if (ev->inode == NO_EVENT)
                                return err_set(e, -EINVAL,
                                               "'%.*s' is a hard link to '%.*s', which is not a "
                                               "file of this layer",
                                               (int) (ev->path_len < 150 ? ev->path_len : 150),
                                               event_path(ev),
                                               (int) (ev->target_len < 150 ? ev->target_len : 150),
                                               event_target(ev));
                }
                time += ev->bytes / EVENT_ALIGN;
        }
        return 0;
}

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
        uint32_t *objects; /* inode events, by digest once sorted */
        uint32_t n_objects, cap_objects;
};

static void put(struct resolver *w, const struct layer_entry *n)
{
        if (w->out)
                layer_index_put(w->out, n);
        else
                w->x.len += layer_index_entry_bytes(n);
        w->x.n_entries++;
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

static int note_object(struct resolver *w, uint32_t time, struct err *e)
{
        if (w->n_objects == w->cap_objects) {
                uint32_t cap = w->cap_objects ? 2 * w->cap_objects : 1024;
                uint32_t *p = realloc(w->objects, cap * sizeof *p);

                if (!p)
                        return err_set(e, -ENOMEM, "out of memory");
                w->objects = p;
                w->cap_objects = cap;
        }
        w->objects[w->n_objects++] = time;
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
                if (inode->names == 1 && inode->n.type == LAYER_OBJECT) {
                        int r = note_object(w, name->inode, e);

                        if (r < 0)
                                return r;
                }
                first = inode->names == 1;
        } else {
                first = !inode->n.group;
                if (first && inode->names > 1)
                        inode->n.group = ++w->x.n_groups;
                first = first || inode->names == 1;
        }
        if (first) {
                n = inode->n;
                n.chunks = event_chunks(inode);
                n.xattrs = n.chunks + 4ULL * n.n_chunks;
                n.target = event_target(inode);
                w->x.content_bytes += n.type == LAYER_FILE || n.type == LAYER_OBJECT ? n.size : 0;
        } else {
                n.group = inode->n.group;
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
                if (is_bare(ev)) {
                        v.bare = ev;
                        v.dir = NULL;
                        v.opaque = false;
                        v.floor = w->l->order[i];
                }
                if (is_dir_event(ev)) {
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
        n = v->dir->n;
        n.flags = flags;
        n.xattrs = event_chunks(v->dir);
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
        uint32_t to = group_end(w->l, from), end = to;
        const struct event *ev = event_at(w->l, w->l->order[from]);
        struct layer_entry hidden = { .type = LAYER_WHITEOUT };
        struct verdict v;
        int r;

        while (!is_below(w->stack[w->depth].path, w->stack[w->depth].len, event_path(ev),
                         ev->path_len))
                w->depth--;
        v = judge(w, from, to);
        *ret = to;
        if (!v.any)
                return 0;
        r = put_parents(w, event_path(ev), ev->path_len, e);
        if (r < 0)
                return r;
        if (v.dir || happened_below(w->l, to, ev, v.bare ? v.floor + 1 : v.floor, NO_EVENT, &end))
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

static int compare_sha(const void *a, const void *b, void *arg)
{
        uint32_t x, y;

        memcpy(&x, a, sizeof x);
        memcpy(&y, b, sizeof y);
        return memcmp(event_at(arg, x)->sha, event_at(arg, y)->sha, LAYER_SHA_BYTES);
}

/* Sort, and give each object its row; files with the same content share one. */
static int number_objects(struct resolver *w, struct err *e)
{
        uint32_t n = 0;

        if (w->n_objects > 0)
                qsort_r(w->objects, w->n_objects, sizeof *w->objects, compare_sha, w->l);
        for (uint32_t i = 0; i < w->n_objects; i++) {
                struct event *ev = event_at(w->l, w->objects[i]);
                const struct event *last = n > 0 ? event_at(w->l, w->objects[n - 1]) : NULL;

                if (!last || memcmp(last->sha, ev->sha, LAYER_SHA_BYTES) != 0)
                        w->objects[n++] = w->objects[i];
                else if (last->n.size != ev->n.size)
                        return err_set(e, -EBADMSG, "one digest with two sizes");
                ev->n.object = n - 1;
        }
        w->n_objects = n;
        return 0;
}

static void put_objects(struct resolver *w)
{
        for (uint32_t i = 0; i < w->n_objects; i++) {
                const struct event *ev = event_at(w->l, w->objects[i]);
                uint8_t size[8];

                put64(size, ev->n.size);
                sink_put(w->out, ev->sha, LAYER_SHA_BYTES);
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

        if (r >= 0)
                r = number_objects(w, e);
        if (r < 0)
                return r;
        w->x.totals = *totals;
        w->x.len += LAYER_HEADER_BYTES + (uint64_t) w->n_objects * LAYER_OBJECT_BYTES;
        w->x.n_objects = w->n_objects;
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
        r = sort_events(l, e);
        if (r >= 0)
                r = resolve_links(l, e);
        if (r >= 0)
                r = write_index(w, totals, out, e);
        free(w->objects);
        return r;
}
