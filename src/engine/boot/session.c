/* session.c - see session.h.  Operation process; pure. */
#include "engine/boot/session.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/str.h"
#include "model/secret.h"

#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

static int append(char ***to, char *const *from)
{
        for (; from && *from; from++)
                if (strv_push(to, *from) < 0)
                        return -ENOMEM;
        return 0;
}

int session_argv(const struct plan *p, const struct image_config *c, char ***ret, struct err *e)
{
        AUTO(strv_free) char **v = NULL;
        bool own_entry = strv_len(p->entrypoint) > 0;
        bool own_command = p->command_set || strv_len(p->command) > 0;
        int r = append(&v, own_entry ? p->entrypoint : c->entrypoint);

        /* a replaced entry point drops the image's CMD, which was written for the old one */
        if (r >= 0)
                r = append(&v, own_command ? p->command : own_entry ? NULL : c->command);
        if (r < 0)
                return err_set(e, r, "out of memory");
        if (strv_len(v) == 0)
                return err_set(e, -EINVAL,
                               "dockerArgs: the image names no command to run; give one");
        *ret = TAKE(v);
        return 0;
}

static int merge(char ***to, char *const *from)
{
        for (; from && *from; from++) {
                const char *eq = strchr(*from, '=');
                AUTO(free) char *key = eq ? strndup(*from, (size_t) (eq - *from)) : NULL;

                if (!eq)
                        continue; /* an image may hold rubbish; the kernel would take it, we don't */
                if (!key || strv_env_set(to, key, eq + 1) < 0)
                        return -ENOMEM;
        }
        return 0;
}

int session_env(const struct plan *p, char *const *own, const struct image_config *c, char ***ret,
                struct err *e)
{
        AUTO(strv_free) char **v = NULL;
        int r = merge(&v, c->env);

        if (r >= 0)
                r = merge(&v, own);
        if (r >= 0 && !strv_env_get(v, "PATH"))
                r = strv_env_set(&v, "PATH", DEFAULT_PATH);
        if (r >= 0)
                r = strv_env_set(&v, "HOSTNAME", p->cluster);
        /* what other runtimes would take an image's or a user's "all" for */
        if (r >= 0 && p->gpu_count > 0)
                r = strv_env_set(&v, "NVIDIA_VISIBLE_DEVICES", "void");
        if (r < 0)
                return err_set(e, r, "out of memory");
        *ret = TAKE(v);
        return 0;
}

static int set_both(char ***env, const char *name, const char *value)
{
        static const char *const prefixes[] = { "RUNPOD_", "TENSORONE_" };
        int r = 0;

        for (size_t i = 0; r >= 0 && i < NELEM(prefixes); i++) {
                AUTO(free) char *key = str_fmt("%s%s", prefixes[i], name);

                r = key ? strv_env_set(env, key, value) : -ENOMEM;
        }
        return r;
}

int session_ports(const struct published *ports, const char *public_ip, char ***env, struct err *e)
{
        int r = ports->n && !str_empty(public_ip) ? set_both(env, "PUBLIC_IP", public_ip) : 0;

        for (size_t i = 0; r >= 0 && i < ports->n; i++) {
                char name[32], value[8];

                (void) snprintf(name, sizeof name, "TCP_PORT_%u", ports->at[i].inner);
                (void) snprintf(value, sizeof value, "%u", ports->at[i].outer);
                r = set_both(env, name, value);
        }
        return r < 0 ? err_set(e, r, "out of memory") : 0;
}

char *session_hosts(const char *hostname, const struct net_lease *lease)
{
        struct strbuf b = { 0 };

        strbuf_str(&b, "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
        const struct {
                const char *addr, *name;
        } lines[] = { { lease->ipv4_text, hostname },
                      { lease->ipv6_text, hostname },
                      { lease->service_text, "api.internal" } };

        for (size_t i = 0; i < NELEM(lines); i++)
                if (*lines[i].addr)
                        strbuf_fmt(&b, "%s\t%s\n", lines[i].addr, lines[i].name);
        return strbuf_take(&b);
}

/* A name that a shell can export. */
static bool shell_name(const char *s, size_t n)
{
        static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_";

        for (size_t i = 0; i < n; i++)
                if (!strchr(letters, s[i]) && (i == 0 || s[i] < '0' || s[i] > '9'))
                        return false;
        return n > 0;
}

static void add_export(struct strbuf *b, const char *key, size_t key_len, const char *value)
{
        strbuf_str(b, "export ");
        strbuf_add(b, key, key_len);
        strbuf_str(b, "='");
        for (const char *p = value; *p; p++) {
                if (*p == '\'')
                        strbuf_str(b, "'\\''");
                else
                        strbuf_char(b, *p);
        }
        strbuf_str(b, "'\n");
}

char *session_profile(char *const *env)
{
        struct strbuf b = { 0 };
        bool secrets = false;

        strbuf_str(&b, "# The cluster's variables, for login shells.  Written at every start.\n");
        for (; env && *env; env++) {
                const char *eq = strchr(*env, '=');

                if (!eq || !shell_name(*env, (size_t) (eq - *env)))
                        continue;
                if (secret_in(eq + 1))
                        secrets = true;
                else
                        add_export(&b, *env, (size_t) (eq - *env), eq + 1);
        }
        if (secrets)
                strbuf_str(&b, "[ -r " SESSION_SECRETS " ] && . " SESSION_SECRETS "\n");
        return strbuf_take(&b);
}

char *session_secret_profile(char *const *env, char *const *expanded)
{
        struct strbuf b = { 0 };

        for (; env && *env; env++) {
                const char *eq = strchr(*env, '=');
                AUTO(free) char *key = eq ? strndup(*env, (size_t) (eq - *env)) : NULL;
                const char *value = key ? strv_env_get(expanded, key) : NULL;

                if (eq && !key)
                        b.failed = true;
                if (value && secret_in(eq + 1) && shell_name(key, strlen(key)))
                        add_export(&b, key, strlen(key), value);
        }
        if (!b.len && !b.failed)
                strbuf_str(&b, "");
        return strbuf_take(&b);
}

char *session_authorized_keys(char *const *env)
{
        const char *keys = strv_env_get(env, "SSH_PUBLIC_KEY");

        if (str_empty(keys))
                keys = strv_env_get(env, "PUBLIC_KEY");
        return str_fmt("%s%s", keys ? keys : "", str_empty(keys) ? "" : "\n");
}

char *session_account_keys(const char *keys)
{
        struct strbuf b = { 0 };

        strbuf_str(&b, "");
        for (const char *p = keys; *p; p += *p == '\n') {
                p += strcspn(p, " \n"); /* the fingerprint */
                p += *p == ' ';
                strbuf_add(&b, p, strcspn(p, "\n"));
                strbuf_char(&b, '\n');
                p += strcspn(p, "\n");
        }
        return strbuf_take(&b);
}
