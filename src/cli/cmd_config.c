/* cmd_config.c - the verb `config`: saves where the API is, the key, and whom to believe.  Runs in
 * tensoronecli, as the user.
 *
 * An API behind HTTPS is looked at before it is saved.  Whoever the system believes is believed; a private
 * authority only when it is named: by a file, by its fingerprint, or by a person who has compared that. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/jsonx.h"
#include "base/str.h"
#include "cli/cli.h"
#include "cli/config.h"
#include "cli/out.h"
#include "cli/secret.h"
#include "cli/tls.h"

#define CA_MAX 65536U

static int show_json(const struct config *cfg, struct err *e)
{
        AUTO(json_put)
        json_t *j = json_pack("{s:s?,s:s?,s:b,s:s?,s:s?,s:s?}", "apiUrl", cfg->url, "apiUrlFrom",
                              cfg->url_from, "apiKeySet", cfg->key != NULL, "apiKeyFrom",
                              cfg->key_from, "caFile", cfg->ca, "caFileFrom", cfg->ca_from);

        return j ? out_json(j, e) : err_set(e, -ENOMEM, "out of memory");
}

static int show(const struct cli *c, struct err *e)
{
        AUTO(config_done) struct config cfg = { 0 };
        int r = config_load(&cfg, e);

        if (r < 0)
                return r;
        if (cli_json(c))
                return show_json(&cfg, e);
        if (cfg.url)
                r = out_printf(e, "apiUrl: %s (from %s)\n", cfg.url, cfg.url_from);
        else
                r = out_printf(e, "apiUrl: not set\n");
        if (r >= 0 && cfg.key)
                r = out_printf(e, "apiKey: set (from %s)\n", cfg.key_from);
        else if (r >= 0)
                r = out_printf(e, "apiKey: not set\n");
        if (r >= 0 && cfg.ca)
                r = out_printf(e, "caFile: %s (from %s)\n", cfg.ca, cfg.ca_from);
        return r;
}

/* ---- whom to believe ---------------------------------------------------------------------------- */

/* "yes", and nothing else. */
static bool says_yes(void)
{
        char line[16];
        size_t n = 0;

        while (n < sizeof line - 1 && read(STDIN_FILENO, line + n, 1) == 1 && line[n] != '\n')
                n++;
        line[n] = '\0';
        return str_eq(line, "yes");
}

static int ask(const char *url, const struct tls_authority *a, struct err *e)
{
        if (!isatty(STDIN_FILENO) || !isatty(STDERR_FILENO))
                return err_set(
                        e, -EKEYREJECTED,
                        "this computer does not know who vouches for %s: %s, SHA-256 %s; compare that with what its operator says, and run this again with --fingerprint and what the operator says",
                        url, a->name, a->fingerprint);
        (void) fprintf(stderr,
                       "This computer does not know who vouches for %s:\n  %s\n  SHA-256 %s\n"
                       "Is that what its operator says? Trust it for this API? (yes or no) ",
                       url, a->name, a->fingerprint);
        (void) fflush(stderr);
        if (!says_yes())
                return err_set(e, -ECANCELED, "not trusted, and nothing was saved");
        return 0;
}

/* The authority that @url shows, when it is the one that is meant.  @expected NULL: a person is asked. */
static int believe(const char *url, const char *expected, char **ret_pem, struct err *e)
{
        AUTO(tls_authority_done) struct tls_authority a = { .pem = NULL };
        int r = tls_look(url, &a, e);

        if (r < 0)
                return r;
        if (!expected)
                r = ask(url, &a, e);
        else if (!str_eq(expected, a.fingerprint))
                r = err_set(
                        e, -EKEYREJECTED,
                        "whoever vouches for %s is another: SHA-256 %s, not %s; somebody may be in between, so ask its operator; nothing was saved",
                        url, a.fingerprint, expected);
        if (r < 0)
                return r;
        *ret_pem = TAKE(a.pem);
        return 0;
}

/* -ECONNREFUSED and the like: it cannot be checked now, which is for the person to know. */
static int check(const struct tls_trust *t, struct err *e)
{
        struct err why = { 0 };
        int r = tls_try(t, &why);

        if (r != -ECONNREFUSED && r != -ETIMEDOUT)
                return r < 0 ? err_copy(e, &why) : 0;
        (void) err_wrap(&why, r, "its certificate is not checked now");
        out_note(why.msg);
        return 0;
}

static int read_ca(const char *url, const char *file, char **ret_pem, struct err *e)
{
        AUTO(free) char *pem = NULL;
        int r = fd_read_file(AT_FDCWD, file, CA_MAX, &pem, NULL);

        if (r < 0)
                return err_errno(e, r, "--ca: %s", file);
        if (tls_count(pem) < 0)
                return err_set(e, -EBADMSG, "--ca: %s: not a PEM file with certificates in it",
                               file);
        r = check(&(struct tls_trust){ url, file, "--ca" }, e);
        if (r < 0)
                return r;
        *ret_pem = TAKE(pem);
        return 0;
}

/* Whether who was trusted for that address before still vouches for it. */
static bool still_good(const char *url)
{
        AUTO(config_done) struct config cfg = { 0 };

        return config_load(&cfg, NULL) >= 0 && cfg.ca && str_eq(cfg.url, url) &&
               tls_try(&(struct tls_trust){ url, cfg.ca, cfg.ca_from }, NULL) >= 0;
}

/* *@ret_pem: "": whom the system believes; NULL: as before. */
static int choose(const struct cli *c, const char *url, char **ret_pem, struct err *e)
{
        const struct opt_value *ca = &c->opt[OPT_CA], *print = &c->opt[OPT_CA_FINGERPRINT];
        char expected[TLS_FINGERPRINT_MAX];
        struct err why = { 0 };
        int r;

        if (ca->given && print->given)
                return err_set(e, -EINVAL, "--ca and --fingerprint: one of the two");
        if ((ca->given || print->given) && !str_after(url, "https://"))
                return err_set(e, -EINVAL, "%s: only an address with https:// has an authority",
                               url);
        if (ca->given)
                return read_ca(url, ca->s, ret_pem, e);
        if (print->given) {
                r = tls_fingerprint(print->s, expected, e);
                return r < 0 ? err_wrap(e, r, "--fingerprint") : believe(url, expected, ret_pem, e);
        }
        if (still_good(url))
                return 0;
        *ret_pem = strdup("");
        if (!*ret_pem)
                return err_set(e, -ENOMEM, "out of memory");
        if (!str_after(url, "https://"))
                return 0;
        r = check(&(struct tls_trust){ url, NULL, NULL }, &why);
        if (r != -EKEYREJECTED)
                return r < 0 ? err_copy(e, &why) : 0;
        free(*ret_pem);
        *ret_pem = NULL;
        return believe(url, NULL, ret_pem, e);
}

/* ---- the verb ----------------------------------------------------------------------------------- */

/* The address that is meant, given now or before. */
static int get_url(const struct cli *c, char **ret, struct err *e)
{
        AUTO(config_done) struct config cfg = { 0 };
        int r;

        if (c->opt[OPT_API_URL].given) {
                r = config_base_url(c->opt[OPT_API_URL].s, ret, e);
                return r < 0 ? err_wrap(e, r, "--apiUrl") : 0;
        }
        r = config_load(&cfg, e);
        if (r < 0)
                return r;
        if (!cfg.url)
                return err_set(e, -ENOENT,
                               "the API's address is not set; say it, too: --apiUrl URL");
        *ret = TAKE(cfg.url);
        return 0;
}

static int get_key(const struct cli *c, char **ret, struct err *e)
{
        const struct opt_value *key = &c->opt[OPT_API_KEY];
        int r = 0;

        if (!key->given)
                return 0;
        if (str_eq(key->s, "-"))
                r = secret_read("API key", false, ret, e);
        else if (!(*ret = strdup(key->s)))
                return err_set(e, -ENOMEM, "out of memory");
        if (r >= 0)
                r = config_check_key(*ret, e);
        return r < 0 ? err_wrap(e, r, "--apiKey") : 0;
}

int cmd_config(struct cli *c, struct err *e)
{
        bool trust = c->opt[OPT_API_URL].given || c->opt[OPT_CA].given ||
                     c->opt[OPT_CA_FINGERPRINT].given;
        AUTO(free) char *url = NULL, *pem = NULL, *path = NULL;
        AUTO(str_wipe_free) char *key = NULL;
        int r = 0;

        if (!trust && !c->opt[OPT_API_KEY].given)
                return show(c, e);
        if (trust)
                r = get_url(c, &url, e);
        if (r >= 0)
                r = get_key(c, &key, e);
        if (r >= 0 && trust)
                r = choose(c, url, &pem, e);
        if (r >= 0)
                r = config_save(&(struct config_change){ url, key, pem }, &path, e);
        if (r < 0)
                return r;
        if (cli_json(c)) {
                AUTO(json_put) json_t *j = json_pack("{s:s}", "file", path);

                return j ? out_json(j, e) : err_set(e, -ENOMEM, "out of memory");
        }
        return out_printf(e, "Configuration saved to file: %s\n", path);
}
