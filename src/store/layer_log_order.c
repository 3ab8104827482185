/* layer_log_order.c - see layer_log_priv.h: the order of events, and what hard links meant when they
 * were read.  Runs in vmm-fetch. */
#include "store/layer_log_priv.h"

#include <errno.h>

#define STEPS_EACH 64ULL
#define STEPS_FREE 1000000ULL

static bool comes_before(const struct layer_log *l, uint32_t x, uint32_t y)
{
        const struct event *ex = event_at(l, x), *ey = event_at(l, y);
        int r = layer_path_compare(event_path(ex), ex->path_len, event_path(ey), ey->path_len);

        return r != 0 ? r < 0 : x < y;
}

/* Merge the sorted halves [from, mid) and [mid, to); @left has room for the first. */
static void merge_halves(struct layer_log *l, uint32_t *left, uint32_t from, uint32_t mid,
                         uint32_t to)
{
        uint32_t n = mid - from, i = 0;

        if (comes_before(l, l->order[mid - 1], l->order[mid]))
                return; /* as most tars have it */
        memcpy(left, l->order + from, n * sizeof *left);
        while (i < n)
                l->order[from++] = mid < to && comes_before(l, l->order[mid], left[i])
                                           ? l->order[mid++]
                                           : left[i++];
}

/* By hand: the C library's sort falls back to one that a stranger's order can make quadratic. */
static int merge_sort(struct layer_log *l)
{
        uint64_t n = l->n_events;
        AUTO(free) uint32_t *left = malloc((n + 1) * sizeof *left);

        if (!left)
                return -ENOMEM;
        for (uint64_t width = 1; width < n; width *= 2)
                for (uint64_t i = 0; i + width < n; i += 2 * width) {
                        uint64_t to = i + 2 * width < n ? i + 2 * width : n;

                        merge_halves(l, left, (uint32_t) i, (uint32_t) (i + width), (uint32_t) to);
                }
        return 0;
}

int log_sort(struct layer_log *l, struct err *e)
{
        uint32_t time = 0;

        l->order = malloc((l->n_events + 1ULL) * sizeof *l->order);
        if (!l->order)
                return err_set(e, -ENOMEM, "out of memory");
        for (uint32_t i = 0; i < l->n_events; i++) {
                l->order[i] = time;
                time += event_at(l, time)->bytes / EVENT_ALIGN;
        }
        return merge_sort(l) < 0 ? err_set(e, -ENOMEM, "out of memory") : 0;
}

bool log_is_below(const char *dir, size_t dir_len, const char *path, size_t len)
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
uint32_t log_group_end(const struct layer_log *l, uint32_t i)
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
bool log_happened_below(const struct layer_log *l, uint32_t i, const struct event *dir,
                        uint32_t after, uint32_t before, uint32_t *ret_end)
{
        for (; i < l->n_events; i++) {
                const struct event *ev = event_at(l, l->order[i]);

                if (!log_is_below(event_path(dir), dir->path_len, event_path(ev), ev->path_len))
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
                        if (l->order[i] > after && event_is_bare(ev))
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
        if (!ev || !event_is_bare(ev) || log_happened_below(l, i, ev, last + 1, time, &end) ||
            swept(l, path, len, last, time))
                return NO_EVENT;
        return spend(l, end - i) ? ev->inode : NO_EVENT;
}

/* In the order of time, so that the inode of a link's link is known. */
int log_resolve_links(struct layer_log *l, struct err *e)
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
