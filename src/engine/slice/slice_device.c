/* slice_device.c - exactly these devices, for a group in which processes run.  Operation processes.
 *
 * v2: a new program takes the old one's place, and there is no instant without one.  v1: what the
 * kernel lists beyond the set is denied, what it lacks is allowed. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "base/fd.h"
#include "engine/slice/slice_priv.h"

#define LIST_MAX (1U << 20)

static bool covers(const struct slice_device *d, const struct slice_device *by)
{
        return d->type == by->type && d->major == by->major && d->minor == by->minor;
}

/* The rights of @d that neither the base set nor @set gives; returns how many. */
static size_t surplus(const struct slice_device *d, const struct slice_device *set, size_t n,
                      char ret[static 4])
{
        size_t k = 0;

        for (const char *a = d->access; *a && k < 3; a++) {
                bool wanted = false;

                for (size_t i = 0; i < slice_n_base_devices; i++)
                        wanted = wanted || (covers(d, &slice_base_devices[i]) &&
                                            strchr(slice_base_devices[i].access, *a));
                for (size_t i = 0; i < n; i++)
                        wanted = wanted || (covers(d, &set[i]) && strchr(set[i].access, *a));
                if (!wanted)
                        ret[k++] = *a;
        }
        ret[k] = '\0';
        return k;
}

static int number(const char *s, int32_t *ret)
{
        uint64_t n;

        if (*s == '*') {
                *ret = -1;
                return 0;
        }
        if (str_u64_prefix(s, 10, &n) < 0 || n > INT32_MAX)
                return -EINVAL;
        *ret = (int32_t) n;
        return 0;
}

/* "c 195:0 rw"; @access gets its last word. */
int slice_device_parse(const char *line, char access[static 4], struct slice_device *ret)
{
        const char *colon = strchr(line, ':'), *space = colon ? strchr(colon, ' ') : NULL;

        if ((line[0] != 'c' && line[0] != 'b') || line[1] != ' ' || !space)
                return -EINVAL;
        *ret = (struct slice_device){ .type = line[0], .access = access };
        if (number(line + 2, &ret->major) < 0 || number(colon + 1, &ret->minor) < 0)
                return -EINVAL;
        (void) snprintf(access, 4, "%.*s", (int) strspn(space + 1, "rwm"), space + 1);
        return 0;
}

static int put(int root, const char *name, const char *file, const struct slice_device *d,
               struct err *e)
{
        char path[SLICE_PATH_MAX], rule[48];
        int r = slice_device_rule(d, rule, sizeof rule, e);

        if (r < 0)
                return r;
        r = fd_write_value(root, slice_path(path, name, file), rule);
        return r < 0 ? err_errno(e, r, "%s '%s'", file, rule) : 0;
}

static int deny_others(int root, const char *name, const struct slice_device *d, size_t n,
                       struct err *e)
{
        AUTO(free) char *list = NULL;
        char path[SLICE_PATH_MAX], *save = NULL;
        int r = fd_read_file(root, slice_path(path, name, "devices.list"), LIST_MAX, &list, NULL);

        if (r < 0)
                return err_errno(e, r, "devices.list");
        for (char *l = strtok_r(list, "\n", &save); l && r >= 0; l = strtok_r(NULL, "\n", &save)) {
                char access[4], rest[4];
                struct slice_device have;

                if (slice_device_parse(l, access, &have) < 0)
                        return err_set(e, -EPROTO, "devices.list: '%.40s'", l);
                if (surplus(&have, d, n, rest) == 0)
                        continue;
                have.access = rest;
                r = put(root, name, "devices.deny", &have, e);
        }
        return r;
}

int slice_devices(struct slice_host *h, const char *name, const struct slice_device *d, size_t n,
                  struct err *e)
{
        AUTO(fd) int prog = -EBADF, dir = -EBADF;
        int r = slice_name_check(name, e), root;

        if (r < 0)
                return r;
        if (h->at[SLICE_CTRL_DEVICES] == SLICE_NO_HIER)
                return err_set(e, -ENOTSUP, "cgroup v%d: this host has no %s controller",
                               h->version, slice_ctrl_name(SLICE_CTRL_DEVICES));
        root = h->hier[h->at[SLICE_CTRL_DEVICES]].root;
        if (h->version == 1) {
                r = deny_others(root, name, d, n, e);
                for (size_t i = 0; i < n && r >= 0; i++)
                        r = put(root, name, "devices.allow", &d[i], e);
        } else {
                dir = openat(root, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
                if (dir < 0)
                        return err_errno(e, -errno, "open cgroup");
                r = prog = slice_bpf_load(d, n, e);
                if (r >= 0)
                        r = slice_bpf_attach(dir, prog, e);
        }
        return r < 0 ? err_wrap(e, r, "cgroup %s", name) : 0;
}
