/* layer_log.c - see layer_log.h: adding to the log.  Runs in vmm-fetch.  How it is resolved is told in
 * layer_log_priv.h. */
#include "store/layer_log.h"

#include <errno.h>

#include "store/layer_log_priv.h"

#define LOG_BYTES_MAX  (4ULL << 30)
#define ENTRIES_MAX    10000000U
#define PATH_BYTES_MAX 4096U

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

/* @x: what goes behind the event's own fields; its chunks are native numbers in @chunks. */
static int append(struct layer_log *l, struct event *ev, const char *path, const char *target,
                  const struct layer_entry *x, const uint32_t *chunks, struct err *e)
{
        size_t path_len = strlen(path), target_len = 0;
        uint64_t bytes;
        uint8_t *p;
        int r;

        if (target) /* that of a symbolic link has been checked */
                target_len = ev->kind == EV_LINK ? strlen(target) : (size_t) ev->size;
        if (path_len >= PATH_BYTES_MAX || target_len >= PATH_BYTES_MAX)
                return err_set(e, -ENAMETOOLONG, "'%.100s...' is too long", path);
        if (l->n_events == l->max_entries)
                return err_set(e, -E2BIG, "it has more than %u entries", l->max_entries);
        ev->path_len = (uint16_t) path_len;
        ev->target_len = (uint16_t) target_len;
        bytes = round_up(sizeof *ev + event_strings(ev) + 4ULL * ev->n_chunks + ev->xattrs_len,
                         EVENT_ALIGN);
        ev->bytes = (uint32_t) bytes;
        ev->inode = (uint32_t) (l->log.len / EVENT_ALIGN);
        r = scratch_add(&l->log, bytes, &p, e);
        if (r < 0)
                return r;
        l->n_events++;
        memcpy(p, ev, sizeof *ev);
        p += sizeof *ev;
        memcpy(p, path, path_len);
        if (target_len > 0)
                memcpy(p + path_len, target, target_len);
        p += event_strings(ev);
        for (uint32_t i = 0; i < ev->n_chunks; i++, p += 4)
                put32(p, chunks[i]);
        if (ev->xattrs_len > 0)
                memcpy(p, x->xattrs, ev->xattrs_len);
        return 0;
}

static int check_entry(const char *path, const struct layer_entry *n, struct err *e)
{
        if (!*path && n->type != LAYER_DIR)
                return err_set(e, -EINVAL, "the layer's root is not a directory");
        if (n->uid > LAYER_ID_MAX || n->gid > LAYER_ID_MAX)
                return err_set(e, -ERANGE, "'%.200s': owner %u:%u is outside 0..%u", path, n->uid,
                               n->gid, LAYER_ID_MAX);
        if (n->type == LAYER_SYMLINK && (n->size == 0 || n->size >= PATH_BYTES_MAX))
                return err_set(e, -EINVAL, "'%.200s': a link to nowhere", path);
        if (n->size > LAYER_SIZE_MAX || n->n_chunks > LAYER_CHUNKS_MAX)
                return err_set(e, -EFBIG, "'%.200s' is larger than %llu GiB", path,
                               LAYER_SIZE_MAX >> 30);
        if (n->type == LAYER_OBJECT && n->object >= LAYER_OBJECTS_MAX)
                return err_set(e, -E2BIG, "it has more than %u large files", LAYER_OBJECTS_MAX);
        if (n->xattrs_len > LAYER_XATTRS_MAX)
                return err_set(e, -E2BIG, "'%.200s' has more than %u KiB of attributes", path,
                               LAYER_XATTRS_MAX >> 10);
        return 0;
}

int layer_log_add(struct layer_log *l, const char *path, const struct layer_entry *n,
                  const uint32_t *chunks, struct err *e)
{
        bool is_link = n->type == LAYER_SYMLINK, is_file = n->type == LAYER_FILE;
        struct event ev = { .kind = EV_ENTRY };
        int r = check_entry(path, n, e);

        if (r < 0)
                return r;
        ev.type = (uint8_t) n->type;
        ev.mode = is_link ? 0777 : n->mode & 07777;
        ev.uid = (uint16_t) n->uid;
        ev.gid = (uint16_t) n->gid;
        ev.mtime_s = n->mtime_s;
        ev.mtime_ns = n->mtime_ns;
        ev.size = n->size;
        ev.n_chunks = is_file ? n->n_chunks : 0;
        ev.chunk_bits = (uint8_t) (is_file ? n->chunk_bits : 0);
        ev.xattrs_len = (uint32_t) n->xattrs_len;
        if (n->type == LAYER_OBJECT) {
                ev.object = n->object;
                l->n_objects = n->object < l->n_objects ? l->n_objects : n->object + 1;
        }
        return append(l, &ev, path, is_link ? n->target : NULL, n, chunks, e);
}

int layer_log_link(struct layer_log *l, const char *path, const char *target, struct err *e)
{
        struct event ev = { .kind = EV_LINK };

        if (!*path)
                return err_set(e, -EINVAL, "the layer's root is not a directory");
        if (strcmp(path, target) == 0)
                return 0; /* a name that is itself */
        return append(l, &ev, path, target, NULL, NULL, e);
}

int layer_log_whiteout(struct layer_log *l, const char *path, struct err *e)
{
        struct event ev = { .kind = EV_WHITEOUT };

        return *path ? append(l, &ev, path, NULL, NULL, NULL, e)
                     : err_set(e, -EINVAL, "a whiteout of the root");
}

int layer_log_opaque(struct layer_log *l, const char *path, struct err *e)
{
        struct event ev = { .kind = EV_OPAQUE };

        return append(l, &ev, path, NULL, NULL, NULL, e);
}
