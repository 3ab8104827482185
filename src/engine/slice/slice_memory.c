/* slice_memory.c - less memory for a group in which processes run.  Operation processes.
 *
 * v1 gives back what it can and refuses a limit that is still too small.  v2 would take the limit and
 * kill; so it is first set as the throttle (memory.high), which only gives back, and made the limit
 * when the use has come below it. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "base/fd.h"
#include "engine/slice/slice_priv.h"

#define FILE_MAX 65536U

static int root_of(const struct slice_host *h, struct err *e)
{
        if (h->at[SLICE_CTRL_MEMORY] == SLICE_NO_HIER)
                return err_set(e, -ENOTSUP, "cgroup v%d: this host has no %s controller",
                               h->version, slice_ctrl_name(SLICE_CTRL_MEMORY));
        return h->hier[h->at[SLICE_CTRL_MEMORY]].root;
}

/* A number of its memory.stat; 0 when there is no such line. */
static uint64_t stat_number(const char *text, const char *key)
{
        size_t len = strlen(key);
        uint64_t n = 0;

        for (const char *at = text; *at; at += strcspn(at, "\n"), at += *at == '\n')
                if (strncmp(at, key, len) == 0 && at[len] == ' ')
                        return str_u64_prefix(at + len + 1, 10, &n) < 0 ? 0 : n;
        return 0;
}

uint64_t slice_memory_droppable(const char *stat, int version)
{
        return version == 1 ? stat_number(stat, "total_inactive_file") +
                                      stat_number(stat, "total_active_file")
                            : stat_number(stat, "inactive_file") + stat_number(stat, "active_file");
}

int slice_memory_held(struct slice_host *h, const char *name, uint64_t *ret_bytes, struct err *e)
{
        AUTO(free) char *text = NULL, *now = NULL;
        char path[SLICE_PATH_MAX];
        uint64_t used, drop;
        int root = root_of(h, e), r = slice_name_check(name, e);

        if (root < 0 || r < 0)
                return root < 0 ? root : r;
        r = fd_read_file(root, slice_path(path, name, "memory.stat"), FILE_MAX, &text, NULL);
        if (r < 0)
                return err_errno(e, r, "memory.stat");
        r = fd_read_file(root,
                         slice_path(path, name,
                                    h->version == 1 ? "memory.usage_in_bytes" : "memory.current"),
                         64, &now, NULL);
        if (r < 0 || str_u64_prefix(now, 10, &used) < 0)
                return err_set(e, r < 0 ? r : -EPROTO, "cgroup %s: its use of memory", name);
        drop = slice_memory_droppable(text, h->version);
        *ret_bytes = used > drop ? used - drop : 0;
        return 0;
}

int slice_memory_limit(struct slice_host *h, const char *name, uint64_t *ret_bytes, struct err *e)
{
        AUTO(free) char *now = NULL;
        char path[SLICE_PATH_MAX];
        int root = root_of(h, e), r = slice_name_check(name, e);

        if (root < 0 || r < 0)
                return root < 0 ? root : r;
        r = fd_read_file(
                root,
                slice_path(path, name, h->version == 1 ? "memory.limit_in_bytes" : "memory.max"),
                64, &now, NULL);
        if (r < 0)
                return err_errno(e, r, "cgroup %s: its limit of memory", name);
        if (str_after(now, "max"))
                *ret_bytes = UINT64_MAX;
        else if (str_u64_prefix(now, 10, ret_bytes) < 0)
                return err_set(e, -EPROTO, "cgroup %s: its limit of memory", name);
        return 0;
}

static int put(int root, const char *name, const char *file, const char *value, struct err *e)
{
        char path[SLICE_PATH_MAX];
        int r = fd_write_value(root, slice_path(path, name, file), value);

        return r < 0 ? err_errno(e, r, "%s = %s", file, value) : 0;
}

static int too_much(uint64_t bytes, struct err *e)
{
        return err_set(e, -EBUSY, "more than %" PRIu64 " MiB are in use and cannot be given back",
                       bytes >> 20);
}

/* The throttle, and then whether that was enough. */
static int lower_v2(int root, const char *name, uint64_t bytes, struct err *e)
{
        AUTO(free) char *now = NULL;
        char path[SLICE_PATH_MAX], value[24];
        uint64_t used = UINT64_MAX;
        int r, undo;

        (void) snprintf(value, sizeof value, "%" PRIu64, bytes);
        r = put(root, name, "memory.high", value, e);
        if (r < 0)
                return r;
        r = fd_read_file(root, slice_path(path, name, "memory.current"), 64, &now, NULL);
        if (r >= 0)
                r = str_u64_prefix(now, 10, &used);
        if (r >= 0 && used <= bytes)
                r = put(root, name, "memory.max", value, e);
        else
                r = too_much(bytes, e);
        undo = put(root, name, "memory.high", "max", r < 0 ? NULL : e);
        return r < 0 ? r : undo;
}

int slice_memory_lower(struct slice_host *h, const char *name, uint64_t bytes, struct err *e)
{
        char value[24];
        int root = root_of(h, e), r = slice_name_check(name, e);

        if (root < 0 || r < 0)
                return root < 0 ? root : r;
        if (h->version == 2)
                return lower_v2(root, name, bytes, e);
        (void) snprintf(value, sizeof value, "%" PRIu64, bytes);
        r = put(root, name, "memory.limit_in_bytes", value, e);
        if (r >= 0 && h->memsw) /* the limit is below it: always valid */
                r = put(root, name, "memory.memsw.limit_in_bytes", value, e);
        return r == -EBUSY ? too_much(bytes, e) : r;
}
