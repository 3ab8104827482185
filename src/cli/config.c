/* config.c - see config.h; and the verb `config`.  Runs in tensoronecli, as the user. */
#include "cli/config.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/jsonx.h"
#include "base/str.h"
#include "cli/cli.h"
#include "cli/secret.h"
#include "cli/toml.h"

#define FILE_MAX 65536

static const char file_origin[] = "the configuration file";

/* Each value's sources, strongest first. */
static const struct source {
        const char *env[2];
        const char *key; /* in the file */
} url_source = { { "TENSORONE_API_URL", "RUNPOD_API_URL" }, "apiUrl" },
  key_source = { { "TENSORONE_API_KEY", "RUNPOD_API_KEY" }, "apiKey" };

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

        for (size_t i = 0; i < NELEM(s->env); i++) {
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

int config_load(struct config *ret, struct err *e)
{
        AUTO(config_done) struct config c = { 0 };
        AUTO(free) char *path = NULL, *base = NULL;
        AUTO(str_wipe_free) char *text = NULL;
        const char *home;
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
        *ret = c;
        c = (struct config){ 0 };
        return 0;
}

void config_done(struct config *c)
{
        free(c->url);
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

int config_save(const char *url, const char *key, char **ret_path, struct err *e)
{
        AUTO(str_wipe_free) char *text = NULL;
        AUTO(free) char *dir = NULL, *path = NULL;
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
        r = set_in(&text, url_source.key, url, e);
        if (r >= 0)
                r = set_in(&text, key_source.key, key, e);
        if (r < 0)
                return r;
        r = fd_replace_file(dirfd, "config.toml", text, strlen(text), 0600, true);
        if (r < 0)
                return err_errno(e, r, "%s", path);
        *ret_path = TAKE(path);
        return 0;
}

static int show(const struct cli *c, struct err *e)
{
        AUTO(config_done) struct config cfg = { 0 };
        int r = config_load(&cfg, e);

        if (r < 0)
                return r;
        if (cli_json(c)) {
                AUTO(json_put)
                json_t *j = json_pack("{s:s?,s:s?,s:b,s:s?}", "apiUrl", cfg.url, "apiUrlFrom",
                                      cfg.url_from, "apiKeySet", cfg.key != NULL, "apiKeyFrom",
                                      cfg.key_from);

                return j ? out_json(j, e) : err_set(e, -ENOMEM, "out of memory");
        }
        if (cfg.url)
                r = out_printf(e, "apiUrl: %s (from %s)\n", cfg.url, cfg.url_from);
        else
                r = out_printf(e, "apiUrl: not set\n");
        if (r < 0)
                return r;
        if (cfg.key)
                return out_printf(e, "apiKey: set (from %s)\n", cfg.key_from);
        return out_printf(e, "apiKey: not set\n");
}

int cmd_config(struct cli *c, struct err *e)
{
        const struct opt_value *url = &c->opt[OPT_API_URL], *key = &c->opt[OPT_API_KEY];
        AUTO(free) char *base = NULL, *path = NULL;
        AUTO(str_wipe_free) char *typed = NULL;
        int r = 0;

        if (!url->given && !key->given)
                return show(c, e);
        if (url->given)
                r = config_base_url(url->s, &base, e);
        if (r < 0)
                return err_wrap(e, r, "--apiUrl");
        if (key->given)
                r = str_eq(key->s, "-") ? secret_read("API key", false, &typed, e) : 0;
        if (r >= 0 && key->given)
                r = config_check_key(typed ? typed : key->s, e);
        if (r < 0)
                return err_wrap(e, r, "--apiKey");
        r = config_save(base, typed ? typed : key->given ? key->s : NULL, &path, e);
        if (r < 0)
                return r;
        if (cli_json(c)) {
                AUTO(json_put) json_t *j = json_pack("{s:s}", "file", path);

                return j ? out_json(j, e) : err_set(e, -ENOMEM, "out of memory");
        }
        return out_printf(e, "Configuration saved to file: %s\n", path);
}
