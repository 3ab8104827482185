/* keys.c - root's authorized_keys, while the cluster runs: the account's keys come and go, what else is in
 * the file is the tenant's.  vmm-ssh, inside the cluster, as its root.
 *
 * What always holds: a key that the account has taken away is in no line that we leave, however often and
 * with whatever options it was there; the new list is remembered after the file is so. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/str.h"
#include "model/sshdir.h"
#include "ssh/ssh_priv.h"

#define FILE_BYTES (1U << 20) /* of a file that is read */
#define BLANKS     " \t\r"

struct word {
        const char *s;
        size_t len;
};

/* The next word of the line that *@p is in; len 0: there is none. */
static struct word next_word(const char **p)
{
        struct word w;

        *p += strspn(*p, BLANKS);
        w = (struct word){ *p, strcspn(*p, BLANKS "\n") };
        *p += w.len;
        return w;
}

static const char *next_line(const char *p)
{
        p += strcspn(p, "\n");
        return *p ? p + 1 : p;
}

static bool same(struct word a, struct word b)
{
        return a.len == b.len && memcmp(a.s, b.s, a.len) == 0;
}

/* The base64 of a line of ours. */
static struct word blob_of(const char *line)
{
        (void) next_word(&line);
        (void) next_word(&line);
        return next_word(&line);
}

static bool list_has_blob(const char *list, struct word blob)
{
        for (; *list; list = next_line(list))
                if (same(blob_of(list), blob))
                        return true;
        return false;
}

/* Whatever stands before the key and behind it. */
static bool names_one_of(const char *line, const char *list)
{
        for (struct word w = next_word(&line); w.len; w = next_word(&line))
                if (w.len > 16 && list_has_blob(list, w)) /* no key is as short */
                        return true;
        return false;
}

char *keys_merge(const char *file, const char *old, const char *now)
{
        struct strbuf b = { 0 };

        strbuf_str(&b, "");
        for (const char *p = file; *p; p = next_line(p)) {
                size_t n = strcspn(p, "\n");

                if (names_one_of(p, old) || names_one_of(p, now))
                        continue;
                strbuf_add(&b, p, n);
                strbuf_char(&b, '\n');
        }
        for (const char *p = now; *p; p = next_line(p)) {
                const char *rest = p;

                (void) next_word(&rest); /* its fingerprint */
                rest += strspn(rest, BLANKS);
                strbuf_add(&b, rest, strcspn(rest, "\n"));
                strbuf_char(&b, '\n');
        }
        return strbuf_take(&b);
}

bool keys_have(const char *list, const char *print)
{
        const struct word want = { print, strlen(print) };

        for (; *list; list = next_line(list)) {
                const char *p = list;

                if (same(next_word(&p), want))
                        return true;
        }
        return false;
}

bool keys_fewer(const char *old, const char *now)
{
        for (; *old; old = next_line(old)) {
                struct word blob = blob_of(old);

                if (blob.len && !list_has_blob(now, blob))
                        return true;
        }
        return false;
}

void keys_home(const char *passwd, char *ret, size_t size)
{
        (void) snprintf(ret, size, "/root");
        for (const char *p = passwd; *p; p = next_line(p)) {
                const char *end = p + strcspn(p, "\n"), *home = p;
                size_t n;

                if (strncmp(p, "root:", 5) != 0)
                        continue;
                for (int i = 0; home && i < 5; i++)
                        if ((home = memchr(home, ':', (size_t) (end - home))))
                                home++;
                if (!home)
                        continue;
                n = strcspn(home, ":\n");
                if (*home == '/' && n < size)
                        (void) snprintf(ret, size, "%.*s", (int) n, home);
                return;
        }
}

/* "" where there is none; an error is something that is no plain file. */
static int read_plain(const char *path, char **ret, struct err *e)
{
        AUTO(fd) int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
        AUTO(free) char *text = NULL;
        struct stat st;
        ssize_t n = 0;

        if (fd < 0 && errno != ENOENT)
                return err_errno(e, -errno, "%s", path);
        if (fd >= 0 && (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > FILE_BYTES))
                return err_set(e, -EINVAL, "%s is no plain file of at most %u bytes", path,
                               FILE_BYTES);
        text = malloc(fd >= 0 ? (size_t) st.st_size + 1 : 1);
        if (!text)
                return err_set(e, -ENOMEM, "out of memory");
        if (fd >= 0)
                n = fd_read_full(fd, text, (size_t) st.st_size);
        if (n < 0)
                return err_errno(e, (int) n, "read %s", path);
        text[n] = '\0';
        *ret = TAKE(text);
        return 0;
}

/* In one step where the directory can be written; else in place, shorter before longer: who is let in
 * meanwhile is too few. */
static int write_plain(const char *path, const char *text, struct err *e)
{
        AUTO(free) char *real = realpath(path, NULL); /* a link is the tenant's wish */
        const char *to = real ? real : path;
        AUTO(fd) int fd = -EBADF;
        int r = fd_replace_file(AT_FDCWD, to, text, strlen(text), 0600, false);

        if (r >= 0)
                return 0;
        fd = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0600);
        r = fd < 0 ? -errno : fd_write_full(fd, text, strlen(text));
        return r < 0 ? err_errno(e, r, "write %s", to) : 0;
}

static int apply_to(const char *home, const char *old, const char *now, struct err *e)
{
        AUTO(free) char *dir = str_fmt("%s/.ssh", home);
        AUTO(free) char *path = str_fmt("%s/.ssh/authorized_keys", home);
        AUTO(free) char *before = NULL, *after = NULL;
        int r = dir && path ? read_plain(path, &before, e) : err_set(e, -ENOMEM, "out of memory");

        if (r < 0)
                return r;
        after = keys_merge(before, old, now);
        if (!after)
                return err_set(e, -ENOMEM, "out of memory");
        if (strcmp(before, after) == 0)
                return 0;
        if (mkdir(dir, 0700) < 0 && errno != EEXIST)
                return err_errno(e, -errno, "make %s", dir);
        return write_plain(path, after, e);
}

int keys_apply(const char *now, char **ret_old, struct err *e)
{
        AUTO(free) char *passwd = NULL, *old = NULL;
        char home[256];
        int r = read_plain("/etc/passwd", &passwd, NULL);

        keys_home(r < 0 ? "" : passwd, home, sizeof home);
        r = read_plain(SSH_KEYS, &old, e);
        if (r >= 0 && strcmp(old, now) != 0) { /* else the file is so, or as the tenant wants it */
                r = apply_to(home, old, now, e);
                if (r >= 0)
                        r = write_plain(SSH_KEYS, now, e);
        }
        if (r >= 0)
                *ret_old = TAKE(old);
        return r;
}
