/* cmd_ssh_keys.c - `ssh add-key`, `ssh list-keys`, `ssh remove-key`: the public keys of the account.
 * Runs in tensoronecli.
 *
 * The API has them as one text, a key a line, and takes the whole text; so a change is a reading, an
 * addition or omission, and a writing.  Lines that mean nothing to us stay as they are. */
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/fd.h"
#include "base/jsonx.h"
#include "base/str.h"
#include "cli/api.h"
#include "cli/cli.h"
#include "cli/out.h"
#include "cli/ssh.h"
#include "model/sshkey.h"

/* One line of the list. */
struct entry {
        const char *line; /* up to the next one, its end included */
        size_t len;
        bool good;
        struct sshkey key;
        char name[256];
        char fingerprint[SSHKEY_FINGERPRINT_LEN + 1];
};

int ssh_fingerprint(const struct sshkey *k, char ret[static SSHKEY_FINGERPRINT_LEN + 1],
                    struct err *e)
{
        uint8_t digest[32];
        unsigned int len = sizeof digest;

        if (EVP_Digest(k->blob, k->len, digest, &len, EVP_sha256(), NULL) != 1 ||
            len != sizeof digest)
                return err_set(e, -ENOMEM, "the digest of a key cannot be had");
        sshkey_fingerprint(digest, ret);
        return 0;
}

/* The entry that *@p begins with; *@p moves on.  0: the line means nothing. */
static int next_entry(const char **p, struct entry *ret, struct err *e)
{
        int r;

        ret->line = *p;
        r = sshkey_line(*p, &ret->key, p, NULL);
        ret->len = (size_t) (*p - ret->line);
        ret->good = r > 0;
        *ret->name = *ret->fingerprint = '\0';
        if (ret->good) {
                (void) snprintf(ret->name, sizeof ret->name, "%.*s", (int) ret->key.comment_len,
                                ret->key.comment);
                r = ssh_fingerprint(&ret->key, ret->fingerprint, e);
                return r < 0 ? r : 1;
        }
        if (r < 0) /* kept from a time when nobody looked */
                (void) snprintf(ret->name, sizeof ret->name, "%.*s",
                                (int) strcspn(ret->line, "\r\n"), ret->line);
        return r < 0;
}

static int read_keys(struct api *a, char **ret, struct err *e)
{
        AUTO(json_put) json_t *data = NULL;
        const char *text;
        int r = api_graphql(a, "query sshKeys{myself{id pubKey}}", NULL, &data, e);

        if (r < 0)
                return r;
        text = jsonx_str(json_object_get(data, "myself"), "pubKey");
        *ret = strdup(text ? text : "");
        return *ret ? 0 : err_set(e, -ENOMEM, "out of memory");
}

static int write_keys(struct api *a, const char *text, struct err *e)
{
        AUTO(json_put) json_t *data = NULL;

        return api_graphql(a,
                           "mutation sshKeysSet($input: UpdateUserSettingsInput!){"
                           "updateUserSettings(input:$input){id}}",
                           json_pack("{s:{s:s}}", "input", "pubKey", *text ? text : "\n"), &data,
                           e); /* "" would be "not given" */
}

static json_t *entry_json(const struct entry *x)
{
        return json_pack("{s:s,s:s?,s:i,s:s?}", "name", x->name, "type",
                         x->good ? x->key.type : NULL, "bits", x->good ? (int) x->key.bits : 0,
                         "fingerprint", x->good ? x->fingerprint : NULL);
}

/* ---- list-keys ------------------------------------------------------------------------------- */

int cmd_ssh_list_keys(struct cli *c, struct err *e)
{
        static const char *const headers[] = { "NAME", "TYPE", "FINGERPRINT" };
        AUTO(table_free) struct table *t = NULL;
        AUTO(json_put) json_t *list = json_array();
        AUTO(free) char *text = NULL;
        int r = read_keys(c->api, &text, e);

        if (r < 0)
                return r;
        if (!list || table_new(headers, NELEM(headers), &t) < 0)
                return err_set(e, -ENOMEM, "out of memory");
        for (const char *p = text; *p;) {
                struct entry x;

                r = next_entry(&p, &x, e);
                if (r < 0)
                        return r;
                if (r == 0)
                        continue;
                if (table_cell(t, x.name) < 0 ||
                    table_cell(t, x.good ? x.key.type : "(no key)") < 0 ||
                    table_cell(t, x.fingerprint) < 0 ||
                    json_array_append_new(list, entry_json(&x)) < 0)
                        return err_set(e, -ENOMEM, "out of memory");
        }
        if (cli_json(c))
                return out_json(list, e);
        return json_array_size(list) ? table_print(t, e) : out_printf(e, "No SSH keys found.\n");
}

/* ---- add-key --------------------------------------------------------------------------------- */

/* The one key of @text, which stands alone in it but for empty lines and comments. */
static int only_key(const char *what, const char *text, struct entry *ret, struct err *e)
{
        struct err why = { 0 };
        size_t n = 0;

        for (const char *p = text, *line = p; *p; line = p) {
                struct sshkey k;
                int r = sshkey_line(line, &k, &p, &why);

                if (r < 0)
                        return err_set(e, r, "%s: %s", what, why.msg);
                if (r > 0 && n++ == 0) {
                        const char *at = line;

                        r = next_entry(&at, ret, e);
                        if (r < 0)
                                return r;
                }
        }
        if (n == 1)
                return 0;
        return n ? err_set(e, -EINVAL, "%s: holds %zu keys; add them one by one", what, n)
                 : err_set(e, -EINVAL, "%s: holds no key", what);
}

static int given_key(const struct cli *c, char **ret_text, const char **ret_what, struct err *e)
{
        const struct opt_value *key = &c->opt[OPT_SSH_KEY], *file = &c->opt[OPT_SSH_KEY_FILE];
        AUTO(free) char *path = NULL;
        int r;

        if (key->given && file->given)
                return err_set(e, -EINVAL, "--key and --key-file: give one of them");
        if (key->given) {
                *ret_what = "--key";
                *ret_text = strdup(key->s);
                return *ret_text ? 0 : err_set(e, -ENOMEM, "out of memory");
        }
        *ret_what = "--key-file";
        if (!file->given) {
                r = ssh_own_key(true, &path, e);
                if (r < 0)
                        return r;
                *ret_what = "the key in ~/.tensorone/ssh";
        }
        r = fd_read_file(AT_FDCWD, path ? path : file->s, LIMIT_SSH_KEYS_BYTES, ret_text, NULL);
        return r < 0 ? err_errno(e, r, "%s: %s", *ret_what, path ? path : file->s) : 0;
}

/* Whether the same key is among @text, whatever it is called there. */
static int has_key(const char *text, const struct sshkey *key, struct err *e)
{
        for (const char *p = text; *p;) {
                struct entry x;
                int r = next_entry(&p, &x, e);

                if (r < 0)
                        return r;
                if (x.good && x.key.len == key->len && memcmp(x.key.blob, key->blob, key->len) == 0)
                        return 1;
        }
        return 0;
}

static int append_key(struct api *a, const char *old, const struct entry *x, struct err *e)
{
        size_t len = strlen(old), own = strcspn(x->line, "\r\n");
        AUTO(free)
        char *text = str_fmt("%s%s%.*s\n", old, len && old[len - 1] != '\n' ? "\n" : "", (int) own,
                             x->line);

        return text ? write_keys(a, text, e) : err_set(e, -ENOMEM, "out of memory");
}

int cmd_ssh_add_key(struct cli *c, struct err *e)
{
        AUTO(free) char *given = NULL;
        AUTO(free) char *old = NULL;
        const char *what = "";
        struct entry x = { .line = "" };
        int known, r = given_key(c, &given, &what, e);

        if (r >= 0)
                r = only_key(what, given, &x, e);
        if (r >= 0)
                r = read_keys(c->api, &old, e);
        if (r >= 0)
                r = has_key(old, &x.key, e);
        known = r;
        if (r == 0)
                r = append_key(c->api, old, &x, e);
        if (r < 0)
                return r;
        if (cli_json(c)) {
                AUTO(json_put) json_t *j = entry_json(&x);

                return out_json(j, e);
        }
        return out_printf(
                e, "key %s %s\n", x.fingerprint,
                known ? "is there already"
                      : "added; clusters with an SSH server have it now, others from their next start");
}

/* ---- remove-key ------------------------------------------------------------------------------ */

static bool is_meant(const struct cli *c, const struct entry *x)
{
        const char *name = c->opt[OPT_SSH_KEY_NAME].s, *print = c->opt[OPT_SSH_FINGERPRINT].s;

        return (!name || str_eq(name, x->name)) && (!print || str_eq(print, x->fingerprint));
}

/* All that is not meant goes to @rest; returns how many lines were. */
static int leave_out(const struct cli *c, const char *text, struct strbuf *rest, json_t *gone,
                     struct err *e)
{
        int n = 0;

        for (const char *p = text; *p;) {
                struct entry x;
                int r = next_entry(&p, &x, e);

                if (r < 0)
                        return r;
                if (r == 0 || !is_meant(c, &x)) {
                        strbuf_add(rest, x.line, x.len);
                        continue;
                }
                n++;
                if (json_array_append_new(gone, entry_json(&x)) < 0)
                        return err_set(e, -ENOMEM, "out of memory");
        }
        return rest->failed ? err_set(e, -ENOMEM, "out of memory") : n;
}

int cmd_ssh_remove_key(struct cli *c, struct err *e)
{
        const char *name = c->opt[OPT_SSH_KEY_NAME].s, *print = c->opt[OPT_SSH_FINGERPRINT].s;
        AUTO(strbuf_done) struct strbuf rest = { 0 };
        AUTO(json_put) json_t *gone = json_array();
        AUTO(free) char *text = NULL;
        int n, r;

        if (!gone)
                return err_set(e, -ENOMEM, "out of memory");
        if (!name && !print)
                return err_set(e, -EINVAL,
                               "say which key: --name or --fingerprint; ssh list-keys shows both");
        r = read_keys(c->api, &text, e);
        n = r < 0 ? r : leave_out(c, text, &rest, gone, e);
        if (n < 0)
                return n;
        if (n == 0)
                return err_set(e, -ENOENT, "there is no SSH key %s", print ? print : name);
        if (n > 1 && !print)
                return err_set(e, -ENOTUNIQ, "%d keys are called \"%s\"; use --fingerprint", n,
                               name);
        r = write_keys(c->api, rest.s ? rest.s : "", e);
        if (r < 0)
                return r;
        if (cli_json(c))
                return out_json(json_array_get(gone, 0), e);
        return out_printf(
                e,
                "key removed, and sessions that it opened ended; an image's own SSH server has it until the cluster is stopped\n");
}
