/* config.c - see config.h.  Runs in tensoronecli, as the user. */
#include "cli/config.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <pwd.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/proc.h"
#include "base/str.h"
#include "cli/toml.h"

#define FILE_MAX  65536
#define CA_PREFIX "ca-"

static const char file_origin[] = "the configuration file";

/* Each value's sources, strongest first. */
static const struct source {
        const char *env[2];
        const char *key; /* in the file */
} url_source = { { "TENSORONE_API_URL", "RUNPOD_API_URL" }, "apiUrl" },
  key_source = { { "TENSORONE_API_KEY", "RUNPOD_API_KEY" }, "apiKey" },
  ca_source = { { CONFIG_CA_VARIABLE }, "caFile" };

static int home_dir(const char **ret, struct err *e)
{
        const struct passwd *pw;

        *ret = getenv("HOME");
        if (!str_empty(*ret))
                return 0;
        pw = getpwuid(getuid());
        if (!pw || str_empty(pw->pw_dir))
                return err_set(e, -ENOENT,
                               "there is no home directory to keep settings in; set "
                               "HOME");
        *ret = pw->pw_dir;
        return 0;
}

/* *@ret NULL when there is no file. */
static int read_file(const char *path, char **ret, struct err *e)
{
        struct stat st;
        int r = fd_read_file(AT_FDCWD, path, FILE_MAX, ret, NULL);

        if (r == -ENOENT || r == -ENOTDIR) {
                *ret = NULL;
                return 0;
        }
        if (r < 0)
                return err_errno(e, r, "%s", path);
        if (stat(path, &st) == 0 && st.st_mode & 077)
                (void) fprintf(stderr, "Warning: others can read %s; run: chmod 600 %s\n", path,
                               path);
        return 0;
}

static int load_one(const struct source *s, const char *text, const char *path, char **ret,
                    const char **ret_from, struct err *e)
{
        int r;

        for (size_t i = 0; i < NELEM(s->env) && s->env[i]; i++) {
                const char *v = getenv(s->env[i]);

                if (str_empty(v))
                        continue;
                *ret_from = s->env[i];
                *ret = strdup(v);
                return *ret ? 0 : err_set(e, -ENOMEM, "out of memory");
        }
        r = text ? toml_get(text, s->key, ret, e) : 0;
        if (r < 0)
                return err_wrap(e, r, "%s", path);
        if (str_empty(*ret)) {
                free(*ret);
                *ret = NULL;
        } else {
                *ret_from = file_origin;
        }
        return 0;
}

static void strip_slashes(char *s)
{
        for (size_t n = strlen(s); n > 0 && s[n - 1] == '/'; n--)
                s[n - 1] = '\0';
}

int config_base_url(const char *url, char **ret, struct err *e)
{
        static const char *const schemes[] = { "http://", "https://" };
        static const char *const tails[] = { "/graphql", "/v1" };
        const char *host = NULL;
        AUTO(free) char *base = NULL;

        for (size_t i = 0; i < NELEM(schemes) && !host; i++)
                if (strncasecmp(url, schemes[i], strlen(schemes[i])) == 0)
                        host = url + strlen(schemes[i]);
        if (!host)
                return err_set(e, -EINVAL, "\"%s\" does not begin with http:// or https://", url);
        if (!*host || *host == '/' || *host == ':' || strpbrk(host, "@?#\\ \t\r\n"))
                return err_set(e, -EINVAL,
                               "the address must be http(s)://HOST[:PORT][/PATH], "
                               "without user, query or blanks");
        base = strdup(url);
        if (!base)
                return err_set(e, -ENOMEM, "out of memory");
        for (char *p = base; *p != ':'; p++)
                *p = (char) (*p | 0x20); /* letters of the scheme */
        strip_slashes(base);
        for (size_t i = 0; i < NELEM(tails); i++) {
                size_t n = strlen(base), k = strlen(tails[i]);

                if (n <= k || !str_eq(base + n - k, tails[i]) || base[n - k - 1] == '/')
                        continue;
                base[n - k] = '\0';
                strip_slashes(base);
                break;
        }
        *ret = TAKE(base);
        return 0;
}

int config_check_key(const char *key, struct err *e)
{
        for (const char *p = key; *p; p++)
                if (*p <= ' ' || *p > '~')
                        return err_set(e, -EINVAL,
                                       "an API key has no blanks, line breaks or "
                                       "special characters in it");
        if (!*key)
                return err_set(e, -EINVAL, "the API key is empty");
        return 0;
}

/* Who vouches for another address than the file's is not what the file says. */
static int load_ca(struct config *c, const char *home, const char *text, const char *path,
                   struct err *e)
{
        AUTO(free) char *theirs = NULL, *base = NULL, *full = NULL;
        int r = load_one(&ca_source, text, path, &c->ca, &c->ca_from, e);

        if (r < 0 || !c->ca || c->ca_from != file_origin)
                return r;
        if (c->url_from != file_origin) {
                r = toml_get(text, url_source.key, &theirs, e);
                if (r < 0)
                        return err_wrap(e, r, "%s", path);
                if (!theirs || config_base_url(theirs, &base, NULL) < 0 || !str_eq(base, c->url)) {
                        free(c->ca);
                        c->ca = NULL;
                        c->ca_from = NULL;
                        return 0;
                }
        }
        if (*c->ca == '/')
                return 0;
        full = str_fmt("%s/.tensorone/%s", home, c->ca);
        if (!full)
                return err_set(e, -ENOMEM, "out of memory");
        free(c->ca);
        c->ca = TAKE(full);
        return 0;
}

int config_load(struct config *ret, struct err *e)
{
        AUTO(config_done) struct config c = { 0 };
        AUTO(free) char *path = NULL, *base = NULL;
        AUTO(str_wipe_free) char *text = NULL;
        const char *home = NULL;
        int r = home_dir(&home, NULL);

        if (r == 0) {
                path = str_fmt("%s/.tensorone/config.toml", home);
                if (!path)
                        return err_set(e, -ENOMEM, "out of memory");
                r = read_file(path, &text, e);
                if (r < 0)
                        return r;
        }
        r = load_one(&url_source, text, path, &c.url, &c.url_from, e);
        if (r < 0)
                return r;
        r = load_one(&key_source, text, path, &c.key, &c.key_from, e);
        if (r < 0)
                return r;
        if (c.url) {
                r = config_base_url(c.url, &base, e);
                if (r < 0)
                        return err_wrap(e, r, "API address from %s", c.url_from);
                free(c.url);
                c.url = TAKE(base);
        }
        r = c.key ? config_check_key(c.key, e) : 0;
        if (r < 0)
                return err_wrap(e, r, "API key from %s", c.key_from);
        r = load_ca(&c, home, text, path, e);
        if (r < 0)
                return r;
        *ret = c;
        c = (struct config){ 0 };
        return 0;
}

void config_done(struct config *c)
{
        free(c->url);
        free(c->ca);
        c->key = str_wipe_free(c->key);
        *c = (struct config){ 0 };
}

static int set_in(char **text, const char *key, const char *value, struct err *e)
{
        char *changed;

        if (!value)
                return 0;
        if (toml_set(*text, key, value, &changed) < 0)
                return err_set(e, -ENOMEM, "out of memory");
        (void) str_wipe_free(*text);
        *text = changed;
        return 0;
}

/* The name that a file of authorities gets is of what is in it: while the settings name the one before, that stays. */
static int put_ca(int dirfd, const char *dir, const char *pem, char **ret_name, struct err *e)
{
        unsigned char hash[EVP_MAX_MD_SIZE];
        char hex[2 * EVP_MAX_MD_SIZE + 1];
        AUTO(free) char *name = NULL;
        size_t n = 0;
        int r;

        if (EVP_Q_digest(NULL, "SHA256", NULL, pem, strlen(pem), hash, &n) != 1)
                return err_set(e, -ENOMEM, "out of memory");
        hex_encode(hash, n, hex);
        name = str_fmt(CA_PREFIX "%.16s.pem", hex);
        if (!name)
                return err_set(e, -ENOMEM, "out of memory");
        r = fd_replace_file(dirfd, name, pem, strlen(pem), 0600, true);
        if (r < 0)
                return err_errno(e, r, "%s/%s", dir, name);
        *ret_name = TAKE(name);
        return 0;
}

static void forget_ca(int dirfd, const char *old, const char *now)
{
        if (str_after(old ? old : "", CA_PREFIX) && !strchr(old, '/') && !str_eq(old, now))
                (void) unlinkat(dirfd, old, 0);
}

static int change_text(char **text, const struct config_change *change, const char *ca,
                       struct err *e)
{
        int r = set_in(text, url_source.key, change->url, e);

        if (r >= 0)
                r = set_in(text, key_source.key, change->key, e);
        return r < 0 ? r : set_in(text, ca_source.key, ca, e);
}

int config_save(const struct config_change *change, char **ret_path, struct err *e)
{
        AUTO(str_wipe_free) char *text = NULL;
        AUTO(free) char *dir = NULL, *path = NULL, *old_ca = NULL, *ca = NULL;
        AUTO(fd) int dirfd = -EBADF;
        const char *home;
        int r = home_dir(&home, e);

        if (r < 0)
                return r;
        dir = str_fmt("%s/.tensorone", home);
        path = str_fmt("%s/.tensorone/config.toml", home);
        if (!dir || !path)
                return err_set(e, -ENOMEM, "out of memory");
        if (mkdir(dir, 0700) < 0 && errno != EEXIST)
                return err_errno(e, -errno, "%s", dir);
        dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (dirfd < 0)
                return err_errno(e, -errno, "%s", dir);
        r = fd_read_file(dirfd, "config.toml", FILE_MAX, &text, NULL);
        if (r < 0 && r != -ENOENT)
                return err_errno(e, r, "%s", path);
        if (text)
                (void) toml_get(text, ca_source.key, &old_ca, NULL);
        if (!str_empty(change->ca_pem)) {
                r = put_ca(dirfd, dir, change->ca_pem, &ca, e);
                if (r < 0)
                        return r;
        }
        /* a line for it only where there is something to say */
        r = change_text(&text, change, ca ? ca : change->ca_pem && old_ca ? "" : NULL, e);
        if (r < 0)
                return r;
        r = fd_replace_file(dirfd, "config.toml", text ? text : "", text ? strlen(text) : 0, 0600,
                            true);
        if (r < 0)
                return err_errno(e, r, "%s", path);
        if (change->ca_pem)
                forget_ca(dirfd, old_ca, ca);
        *ret_path = TAKE(path);
        return 0;
}
