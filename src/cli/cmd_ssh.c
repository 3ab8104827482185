/* cmd_ssh.c - `ssh CLUSTER`, `ssh connect`, `ssh config`: sessions by the system's own ssh, to the server
 * that a cluster has with startSsh.  Runs in tensoronecli; `ssh CLUSTER` becomes ssh.
 *
 * Theory of operation.  The connection goes through the API: ssh's ProxyCommand is `tensoronecli exec` of
 * vmm-ssh, which starts a server for the one connection on its stdin and stdout.  So nothing must listen
 * anywhere, the API's key and the SSH key are both needed, and what is between sees ciphertext alone.
 * Which host key is right the API says; it lies in a file for each cluster, and ssh believes no other. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/jsonx.h"
#include "base/str.h"
#include "cli/api.h"
#include "cli/cli.h"
#include "cli/clusters.h"
#include "cli/out.h"
#include "cli/ssh.h"
#include "model/sshdir.h"

#define SELECTION                                                                                  \
        "id name desiredStatus sshHostKey runtime{ports{ip isIpPublic privatePort publicPort type}}"

/* ---- the cluster ----------------------------------------------------------------------------- */

/* New reference; it has an SSH server. */
static int get_target(struct api *a, const char *word, json_t **ret, struct err *e)
{
        AUTO(free) char *id = NULL;
        AUTO(json_put) json_t *data = NULL;
        json_t *c;
        int r = cluster_find(a, word, &id, e);

        if (r >= 0)
                r = api_graphql(
                        a,
                        "query sshTarget($id: String!){cluster(input:{clusterId:$id}){" SELECTION
                        "}}",
                        json_pack("{s:s}", "id", id), &data, e);
        if (r < 0)
                return r;
        c = json_object_get(data, "cluster");
        if (!json_is_object(c))
                return err_set(e, -ENOENT, "there is no cluster \"%s\"", word);
        if (str_empty(jsonx_str(c, "sshHostKey")))
                return err_set(e, -EOPNOTSUPP,
                               "cluster %s has no SSH server: it was created without --startSSH",
                               id);
        *ret = json_incref(c);
        return 0;
}

/* Where everybody reaches its port 22, or NULL. */
static const json_t *published(const json_t *c)
{
        const json_t *ports = json_object_get(json_object_get(c, "runtime"), "ports"), *p;
        size_t i;

        json_array_foreach(ports, i, p)
        {
                if (json_integer_value(json_object_get(p, "privatePort")) == 22 &&
                    str_eq(jsonx_str(p, "type"), "tcp") &&
                    json_is_true(json_object_get(p, "isIpPublic")) &&
                    !str_empty(jsonx_str(p, "ip")))
                        return p;
        }
        return NULL;
}

/* ---- options for ssh ------------------------------------------------------------------------- */

/* Several commands may be at it at once: each writes a file of its own name first. */
static int replace_own(const char *path, const char *text)
{
        AUTO(free) char *own = str_fmt("%s.%d", path, (int) getpid());
        AUTO(free) char *old = NULL;
        int r;

        if (fd_read_file(AT_FDCWD, path, 4096, &old, NULL) >= 0 && str_eq(old, text))
                return 0;
        r = own ? fd_replace_file(AT_FDCWD, own, text, strlen(text), 0600, false) : -ENOMEM;
        return r >= 0 && rename(own, path) < 0 ? -errno : r;
}

/* "ID KEY" in a file of its own: two commands at once do not take each other's lines away. */
static int write_known_host(const json_t *c, char **ret_path, struct err *e)
{
        const char *home = getenv("HOME"), *id = jsonx_str(c, "id");
        AUTO(free) char *line = str_fmt("%s %s\n", id, jsonx_str(c, "sshHostKey"));
        AUTO(free) char *path = str_fmt("%s/.tensorone/ssh/hosts/%s", home ? home : "", id);
        static const char *const dirs[] = { "", "/ssh", "/ssh/hosts" };
        int r;

        if (!line || !path)
                return err_set(e, -ENOMEM, "out of memory");
        if (str_empty(home) || strpbrk(home, "\"\n"))
                return err_set(e, -EINVAL, "HOME: there is no place for the host's key");
        for (size_t i = 0; i < NELEM(dirs); i++) {
                AUTO(free) char *dir = str_fmt("%s/.tensorone%s", home, dirs[i]);

                if (!dir || (mkdir(dir, 0700) < 0 && errno != EEXIST))
                        return err_errno(e, dir ? -errno : -ENOMEM, "%s", dir ? dir : "directory");
        }
        r = replace_own(path, line);
        if (r < 0)
                return err_errno(e, r, "%s", path);
        *ret_path = TAKE(path);
        return 0;
}

/* Our own program, as a word of a shell, with ssh's own placeholders made plain. */
static int own_program(struct strbuf *b, struct err *e)
{
        char path[4096];
        ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);

        if (n < 0)
                return err_errno(e, -errno, "where this program lies");
        path[n] = '\0';
        if (strpbrk(path, "'\n"))
                return err_set(e, -EINVAL, "%s: ssh cannot be told of a name with a quote", path);
        strbuf_char(b, '\'');
        for (const char *p = path; *p; p++) {
                strbuf_char(b, *p);
                if (*p == '%')
                        strbuf_char(b, '%');
        }
        strbuf_char(b, '\'');
        return 0;
}

__attribute__((format(printf, 3, 4))) static void add_option(char ***v, struct strbuf *failed,
                                                             const char *fmt, ...)
{
        AUTO(strbuf_done) struct strbuf b = { 0 };
        va_list ap;

        va_start(ap, fmt);
        strbuf_vfmt(&b, fmt, ap);
        va_end(ap);
        if (b.failed || strv_push(v, b.s) < 0)
                failed->failed = true;
}

/* This computer's key for clusters, and those that ssh would have tried without being told of one. */
static void add_keys(char ***v, struct strbuf *failed)
{
        static const char *const own[] = {
                "/.tensorone/ssh/id_ed25519", "/.ssh/id_ed25519", "/.ssh/id_ecdsa", "/.ssh/id_rsa",
                "/.ssh/id_ed25519_sk",        "/.ssh/id_ecdsa_sk"
        };
        const char *home = getenv("HOME");

        for (size_t i = 0; i < NELEM(own); i++) {
                AUTO(free) char *path = str_fmt("%s%s", home ? home : "", own[i]);

                if (!path)
                        failed->failed = true;
                else if (access(path, R_OK) == 0)
                        add_option(v, failed, "IdentityFile \"%s\"", path);
        }
}

/* Lines of an ssh_config that lead to @c; each is an argument of -o, too. */
static int ssh_options(const json_t *c, char ***ret, struct err *e)
{
        static const char *const always[] = { "User root",
                                              "StrictHostKeyChecking yes",
                                              "GlobalKnownHostsFile none",
                                              "UpdateHostKeys no",
                                              "CheckHostIP no",
                                              "HostKeyAlgorithms ssh-ed25519",
                                              "ServerAliveInterval 30" };
        AUTO(strbuf_done) struct strbuf proxy = { 0 };
        AUTO(strv_free) char **v = NULL;
        AUTO(free) char *known = NULL;
        const char *id = jsonx_str(c, "id");
        int r = write_known_host(c, &known, e);

        if (r >= 0)
                r = own_program(&proxy, e);
        if (r < 0)
                return r;
        strbuf_fmt(&proxy, " exec -i -u 0 %s -- " SSH_PROGRAM " connect", id);
        for (size_t i = 0; i < NELEM(always); i++)
                add_option(&v, &proxy, "%s", always[i]);
        add_option(&v, &proxy, "HostKeyAlias %s", id);
        add_option(&v, &proxy, "UserKnownHostsFile \"%s\"", known);
        add_keys(&v, &proxy);
        add_option(&v, &proxy, "ProxyCommand %s", proxy.s ? proxy.s : "");
        if (proxy.failed)
                return err_set(e, -ENOMEM, "out of memory");
        *ret = TAKE(v);
        return 0;
}

/* ---- ssh CLUSTER ----------------------------------------------------------------------------- */

static int add_word(char ***argv, const char *flag, const char *value)
{
        int r = strv_push(argv, flag);

        return r >= 0 && value ? strv_push(argv, value) : r;
}

static int add_forwards(const struct cli *c, char ***argv)
{
        static const struct {
                enum opt_id id;
                const char *flag;
        } rows[] = { { OPT_SSH_LOCAL, "-L" }, { OPT_SSH_REMOTE, "-R" }, { OPT_SSH_DYNAMIC, "-D" } };
        int r = c->opt[OPT_SSH_NOTHING].b ? add_word(argv, "-N", NULL) : 0;

        for (size_t i = 0; i < NELEM(rows); i++)
                for (char **p = c->opt[rows[i].id].list; p && *p && r >= 0; p++)
                        r = add_word(argv, rows[i].flag, *p);
        return r;
}

int cmd_ssh(struct cli *c, struct err *e)
{
        AUTO(strv_free) char **argv = NULL, **lines = NULL;
        AUTO(json_put) json_t *cluster = NULL;
        int r = get_target(c->api, c->operands[0], &cluster, e);

        if (r >= 0)
                r = ssh_options(cluster, &lines, e);
        if (r < 0)
                return r;
        r = add_word(&argv, "ssh", NULL);
        for (char **o = lines; *o && r >= 0; o++)
                r = add_word(&argv, "-o", *o);
        if (r >= 0)
                r = add_forwards(c, &argv);
        if (r >= 0)
                r = add_word(&argv, "--", jsonx_str(cluster, "id"));
        for (char **p = c->command; p && *p && r >= 0; p++)
                r = strv_push(&argv, *p);
        if (r < 0)
                return err_set(e, -ENOMEM, "out of memory");
        (void) execvp(argv[0], argv);
        return errno == ENOENT
                       ? err_set(e, -ENOENT,
                                 "ssh is not there; install OpenSSH's client, in Debian the "
                                 "package openssh-client")
                       : err_errno(e, -errno, "start ssh");
}

/* ---- ssh connect, ssh config ----------------------------------------------------------------- */

static char *connect_line(const json_t *c)
{
        const json_t *p = published(c);

        if (!p)
                return str_fmt(CLI_PROGRAM " ssh %s", jsonx_str(c, "id"));
        return str_fmt("ssh root@%s -p %lld", jsonx_str(p, "ip"),
                       (long long) json_integer_value(json_object_get(p, "publicPort")));
}

static int print_line(const struct cli *c, const json_t *cluster, bool named, json_t *list,
                      struct err *e)
{
        AUTO(free) char *line = connect_line(cluster);
        AUTO(free) char *name = str_dup(jsonx_str(cluster, "name"));
        char print[SSHKEY_FINGERPRINT_LEN + 1] = "";
        struct sshkey key;
        const char *next;
        int r = sshkey_line(jsonx_str(cluster, "sshHostKey"), &key, &next, e);

        if (r > 0)
                r = ssh_fingerprint(&key, print, e);
        if (r < 0)
                return err_wrap(e, r, "the host key in the API's answer");
        if (!line)
                return err_set(e, -ENOMEM, "out of memory");
        if (cli_json(c))
                return json_array_append_new(list,
                                             json_pack("{s:O,s:O,s:s,s:s}", "id",
                                                       json_object_get(cluster, "id"), "name",
                                                       json_object_get(cluster, "name"), "command",
                                                       line, "hostKeyFingerprint", print)) < 0
                               ? err_set(e, -ENOMEM, "out of memory")
                               : 0;
        if (name)
                str_tame(name, '?');
        return named ? out_printf(e, "%s\n", line)
                     : out_printf(e, "%s # %s %s\n", line, jsonx_str(cluster, "id"),
                                  name ? name : "");
}

int cmd_ssh_connect(struct cli *c, struct err *e)
{
        AUTO(json_put) json_t *data = NULL, *one = NULL, *done = json_array();
        json_t *list, *k;
        size_t i;
        int r;

        if (!done)
                return err_set(e, -ENOMEM, "out of memory");
        if (c->n_operands) {
                r = get_target(c->api, c->operands[0], &one, e);
                if (r >= 0)
                        r = print_line(c, one, true, done, e);
                return r >= 0 && cli_json(c) ? out_json(json_array_get(done, 0), e) : r;
        }
        r = api_graphql(c->api, "query sshTargets{myself{clusters{" SELECTION "}}}", NULL, &data,
                        e);
        list = json_object_get(json_object_get(data, "myself"), "clusters");
        json_array_foreach(list, i, k)
        {
                if (r >= 0 && !str_empty(jsonx_str(k, "sshHostKey")))
                        r = print_line(c, k, false, done, e);
        }
        return r >= 0 && cli_json(c) ? out_json(done, e) : r;
}

int cmd_ssh_config(struct cli *c, struct err *e)
{
        int r = 0;

        for (size_t i = 0; i < c->n_operands && r >= 0; i++) {
                AUTO(json_put) json_t *cluster = NULL;
                AUTO(strv_free) char **lines = NULL;
                const char *word = c->operands[i];

                r = get_target(c->api, word, &cluster, e);
                if (r >= 0 && strpbrk(word, " \t\n\"*?!#,%"))
                        word = jsonx_str(cluster, "id"); /* a name that means something to ssh */
                if (r >= 0)
                        r = ssh_options(cluster, &lines, e);
                if (r >= 0)
                        r = out_printf(e, "Host %s\n", word);
                for (char **o = lines; o && *o && r >= 0; o++)
                        r = out_printf(e, "    %s\n", *o);
        }
        return r;
}
