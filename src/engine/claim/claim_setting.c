/* claim_setting.c - counted host-wide settings: who changed it first, and what it was.
 *
 * Runs in the engine.
 * Always: settings/<name> holds the value from before the first holder until that value is back in
 * place (claim_setting_restored), so a kill at any point cannot lose it. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/str.h"
#include "engine/claim/claim_priv.h"

#define FILE_MAX 8192U

int claim_setting_parse(const char *text, struct claim_setting *ret)
{
        AUTO(free) char *copy = strdup(text);
        char *save = NULL;
        const char *v;

        memset(ret, 0, sizeof *ret);
        if (!copy)
                return -ENOMEM;
        for (char *l = strtok_r(copy, "\n", &save); l; l = strtok_r(NULL, "\n", &save)) {
                if ((v = str_after(l, "saved ")) != NULL) {
                        if (strlen(v) > CLAIM_SAVE_MAX)
                                return -EINVAL;
                        memcpy(ret->saved, v, strlen(v) + 1);
                } else if ((v = str_after(l, "holder ")) != NULL) {
                        if (strlen(v) > CLAIM_NAME_MAX || ret->n == CLAIM_HOLDERS_MAX)
                                return -EINVAL;
                        memcpy(ret->holder[ret->n++], v, strlen(v) + 1);
                } else {
                        return -EINVAL;
                }
        }
        return 0;
}

int claim_setting_format(const struct claim_setting *s, char **ret)
{
        AUTO(strbuf_done) struct strbuf b = { 0 };

        strbuf_fmt(&b, "saved %s\n", s->saved);
        for (size_t i = 0; i < s->n; i++)
                strbuf_fmt(&b, "holder %s\n", s->holder[i]);
        *ret = strbuf_take(&b);
        return *ret ? 0 : -ENOMEM;
}

/* -ENOENT when nobody holds it; *ret is then empty. */
static int load(const struct claim_host *c, const char *name, struct claim_setting *ret,
                struct err *e)
{
        AUTO(free) char *text = NULL;
        int r = fd_read_file(c->settings, name, FILE_MAX, &text, NULL);

        memset(ret, 0, sizeof *ret);
        if (r >= 0)
                r = claim_setting_parse(text, ret);
        return r < 0 && r != -ENOENT ? err_errno(e, r, "setting %s", name) : r;
}

static int store(const struct claim_host *c, const char *name, const struct claim_setting *s,
                 struct err *e)
{
        AUTO(free) char *text = NULL;
        int r = claim_setting_format(s, &text);

        if (r >= 0)
                r = fd_replace_file(c->settings, name, text, strlen(text), 0644, false);
        return r < 0 ? err_errno(e, r, "setting %s", name) : 0;
}

static bool drop_holder(struct claim_setting *s, const char *id)
{
        for (size_t i = 0; i < s->n; i++)
                if (strcmp(s->holder[i], id) == 0) {
                        memmove(s->holder[i], s->holder[i + 1],
                                (s->n - i - 1) * sizeof s->holder[0]);
                        s->n--;
                        return true;
                }
        return false;
}

int claim_setting_hold(struct claim_host *c, const char *name, const char *save, bool *ret_first,
                       struct err *e)
{
        struct claim_setting s;
        AUTO(fd) int lock = -EBADF;
        int r = claim_name_check("setting", name, e);

        if (r < 0)
                return r;
        if (save && (strlen(save) > CLAIM_SAVE_MAX || strchr(save, '\n')))
                return err_set(e, -EINVAL, "setting %s: a value of one line, at most %u bytes",
                               name, CLAIM_SAVE_MAX);
        lock = claim_lock(c, e);
        if (lock < 0)
                return lock;
        r = load(c, name, &s, e);
        if (r < 0 && r != -ENOENT)
                return r;
        if (r == -ENOENT && save)
                (void) snprintf(s.saved, sizeof s.saved, "%s", save);
        (void) drop_holder(&s, c->id);
        if (s.n == CLAIM_HOLDERS_MAX)
                return err_set(e, -ENOSPC, "setting %s: more than %u holders", name,
                               CLAIM_HOLDERS_MAX);
        (void) snprintf(s.holder[s.n], sizeof s.holder[0], "%s", c->id);
        s.n++;
        r = store(c, name, &s, e);
        if (r < 0)
                return r;
        *ret_first = s.n == 1;
        return 0;
}

int claim_setting_leave(struct claim_host *c, const char *name, char *ret_saved, size_t size,
                        bool *ret_last, struct err *e)
{
        struct claim_setting s;
        AUTO(fd) int lock = -EBADF;
        int r = claim_name_check("setting", name, e);

        if (r < 0)
                return r;
        lock = claim_lock(c, e);
        if (lock < 0)
                return lock;
        r = load(c, name, &s, e);
        if (r == -ENOENT) {
                *ret_last = false;
                return 0;
        }
        if (r < 0)
                return r;
        if (drop_holder(&s, c->id)) {
                r = store(c, name, &s, e);
                if (r < 0)
                        return r;
        }
        if (strlen(s.saved) >= size)
                return err_set(e, -ENOBUFS, "setting %s: %zu bytes", name, strlen(s.saved));
        memcpy(ret_saved, s.saved, strlen(s.saved) + 1);
        *ret_last = s.n == 0;
        return 0;
}

int claim_setting_restored(struct claim_host *c, const char *name, struct err *e)
{
        struct claim_setting s;
        AUTO(fd) int lock = -EBADF;
        int r = claim_name_check("setting", name, e);

        if (r < 0)
                return r;
        lock = claim_lock(c, e);
        if (lock < 0)
                return lock;
        r = load(c, name, &s, e);
        if (r < 0)
                return r == -ENOENT ? 0 : r;
        if (s.n > 0)
                return 1;
        if (unlinkat(c->settings, name, 0) < 0 && errno != ENOENT)
                return err_errno(e, -errno, "setting %s", name);
        return 0;
}

int claim_setting_reap(struct claim_host *c, struct err *e)
{
        int fd = openat(c->settings, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), r = 0;
        DIR *dir = fd < 0 ? NULL : fdopendir(fd);
        struct dirent *de;

        if (!dir) {
                r = err_errno(e, -errno, "claims: settings");
                (void) fd_close(fd);
                return r;
        }
        while (r >= 0 && (de = readdir(dir)) != NULL) {
                struct claim_setting s;
                size_t before;

                if (claim_name_check("setting", de->d_name, NULL) < 0 ||
                    load(c, de->d_name, &s, NULL) < 0)
                        continue;
                before = s.n;
                for (size_t i = s.n; i-- > 0;)
                        if (claim_instance_dead(c, s.holder[i]))
                                (void) drop_holder(&s, s.holder[i]);
                if (s.n != before)
                        r = store(c, de->d_name, &s, e);
        }
        (void) closedir(dir);
        return r;
}
