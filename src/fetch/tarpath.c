/* tarpath.c - see tarpath.h.  Runs in vmm-fetch on a stranger's bytes. */
#include "fetch/tarpath.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#include "base/str.h"
#include "model/limits.h"

#define WH  ".wh."
#define WHH ".wh..wh."
#define OPQ ".wh..wh..opq"

int tarpath_clean(const char *raw, char *buf, struct err *e)
{
        size_t len = 0;
        unsigned depth = 0;
        const char *p = raw;

        if (!*p)
                return err_set(e, -EINVAL, "an entry without a name");
        while (*p) {
                size_t n;

                p += strspn(p, "/");
                n = strcspn(p, "/");
                if (n == 0 || (n == 1 && p[0] == '.')) {
                        p += n;
                        continue;
                }
                if (n == 2 && p[0] == '.' && p[1] == '.')
                        return err_set(e, -EINVAL, "'%.200s' climbs out with ..", raw);
                if (n > NAME_MAX)
                        return err_set(e, -ENAMETOOLONG, "'%.100s...' has a name over %d bytes", p,
                                       NAME_MAX);
                if (++depth > LIMIT_LAYER_DEPTH)
                        return err_set(e, -ENAMETOOLONG,
                                       "'%.100s...' is deeper than %u directories", raw,
                                       LIMIT_LAYER_DEPTH);
                if (len + n + 1 >= PATH_MAX)
                        return err_set(e, -ENAMETOOLONG, "'%.100s...' is longer than %d bytes", raw,
                                       PATH_MAX - 1);
                if (len > 0)
                        buf[len++] = '/';
                memcpy(buf + len, p, n);
                len += n;
                p += n;
        }
        buf[len] = '\0';
        return 0;
}

int tarpath_mark(char *path, enum tarpath_mark *ret, struct err *e)
{
        char *leaf = strrchr(path, '/');
        const char *name;

        for (const char *p = path; p && *p; p = strchr(p, '/') ? strchr(p, '/') + 1 : NULL)
                if (str_after(p, WHH) && !(strcmp(p, OPQ) == 0)) {
                        *ret = TARPATH_SKIP;
                        return 0;
                }
        leaf = leaf ? leaf + 1 : path;
        name = str_after(leaf, WH);
        if (strcmp(leaf, OPQ) == 0) {
                *(leaf > path ? leaf - 1 : leaf) = '\0';
                *ret = TARPATH_OPAQUE;
                return 0;
        }
        if (!name) {
                *ret = TARPATH_PLAIN;
                return 0;
        }
        if (!*name || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
                return err_set(e, -EINVAL, "'%.200s' is a whiteout of nothing", path);
        memmove(leaf, name, strlen(name) + 1);
        *ret = TARPATH_WHITEOUT;
        return 0;
}
