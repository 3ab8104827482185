/* unit_ssh.c - the SSH server of a cluster with startSsh.  Engine process, loop thread.
 *
 * It is an exec session: `vmm-ssh serve`, inside, with the cluster's own rights, which keeps dropbear running and
 * reaps what sessions leave.  Its variables bring the account's keys.  A second one tells the first what the
 * keys are now, and ends: so an engine that was restarted, and keys that change, are one and the same act.
 * Under `strict` nothing may listen on a port below 1024: it is `vmm-ssh keep` there.
 *
 * What always holds: a session that ends badly is asked for again, less and less often, as long as the cluster
 * runs; what it says is a stranger's words. */
#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/str.h"
#include "engine/fleet/unit.h"
#include "model/attach_codec.h"
#include "model/sshdir.h"
#include "model/sshkey.h"

#define RETRY_FIRST_US US_PER_S
#define RETRY_MOST_US  (60 * US_PER_S)
#define WORDS_MAX      160U

/* One session, until it ends. */
struct ssh_watch {
        struct unit *unit;
        struct ssh_watch *next;
        int fd;
        sd_event_source *io;
        struct attach_parser parser;
        uint8_t buf[ATTACH_PARSER_MIN];
        char words[WORDS_MAX]; /* on stderr */
        size_t n_words;
};

static void start(struct unit *u);

static int on_due(sd_event_source *s, uint64_t usec, void *arg)
{
        struct unit *u = arg;

        (void) s;
        (void) usec;
        u->ssh.src = sd_event_source_disable_unref(u->ssh.src);
        start(u);
        return 0;
}

static void start_in(struct unit *u, uint64_t delay_us)
{
        int r;

        u->ssh.src = sd_event_source_disable_unref(u->ssh.src);
        r = sd_event_add_time_relative(u->fleet->spec.loop, &u->ssh.src, CLOCK_MONOTONIC, delay_us,
                                       10 * US_PER_MS, on_due, u);
        if (r < 0)
                log_error("cluster %s: SSH server: %s", u->row.cluster, strerror(-r));
}

/* Many clusters that start at once, a process that was stopped inside, or one that somebody has killed. */
static void try_again(struct unit *u, const char *why)
{
        uint64_t delay = RETRY_FIRST_US << (u->ssh.failures < 6 ? u->ssh.failures : 6);

        u->ssh.failures++;
        log_info("cluster %s: its SSH server: %s", u->row.cluster, why);
        start_in(u, delay < RETRY_MOST_US ? delay : RETRY_MOST_US);
}

/* ---- a session that runs ---- */

static void watch_end(struct ssh_watch *w)
{
        struct ssh_watch **at = &w->unit->ssh.watches;

        while (*at != w)
                at = &(*at)->next;
        *at = w->next;
        sd_event_source_disable_unref(w->io);
        (void) fd_close(w->fd);
        free(w);
}

/* 1: it has ended, and well. */
static int on_packet(struct ssh_watch *w, const struct attach_packet *p)
{
        int code, sig;

        if (p->type == ATTACH_DATA && p->channel == ATTACH_STDERR) {
                size_t room = sizeof w->words - 1 - w->n_words;
                size_t n = p->length < room ? p->length : room;

                memcpy(w->words + w->n_words, p->payload, n);
                w->n_words += n;
        }
        if (p->type != ATTACH_EXIT || attach_get_exit(p, &code, &sig) < 0)
                return 0;
        return code == 0 ? 1 : -ECHILD;
}

static void ended(struct ssh_watch *w, int r)
{
        struct unit *u = w->unit;
        char why[WORDS_MAX];

        memcpy(why, w->words, sizeof why);
        str_tame(why, ' ');
        watch_end(w);
        if (r == 1)
                u->ssh.failures = 0;
        else if (u->row.state == CS_RUNNING)
                try_again(u, *why ? why : "it has ended");
}

static int on_session(sd_event_source *s, int fd, uint32_t revents, void *arg)
{
        struct ssh_watch *w = arg;
        struct attach_packet p;
        size_t room;
        void *at = attach_parser_space(&w->parser, &room);
        ssize_t n = recv(fd, at, room, MSG_DONTWAIT);
        int r = n > 0 ? 0 : -EPIPE, more = 0;

        (void) s;
        (void) revents;
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return 0;
        if (n > 0) {
                attach_parser_commit(&w->parser, (size_t) n);
                while (r == 0 && (more = attach_parser_next(&w->parser, &p)) > 0)
                        r = on_packet(w, &p);
        }
        if (r != 0 || more < 0)
                ended(w, r);
        return 0;
}

static int watch(struct unit *u, int fd)
{
        const struct attach_hello hello = { .version = ATTACH_VERSION, .flags = ATTACH_F_STDIO };
        struct ssh_watch *w = calloc(1, sizeof *w);
        uint8_t buf[64];
        size_t n = attach_put_hello(buf, sizeof buf, &hello);
        int r = w ? 0 : -ENOMEM;

        if (r >= 0 && send(fd, buf, n, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t) n)
                r = -EPIPE;
        if (r >= 0)
                r = sd_event_add_io(u->fleet->spec.loop, &w->io, fd, EPOLLIN, on_session, w);
        if (r < 0) {
                (void) fd_close(fd);
                free(w);
                return r;
        }
        attach_parser_init(&w->parser, w->buf, sizeof w->buf);
        w->unit = u;
        w->fd = fd;
        w->next = u->ssh.watches;
        u->ssh.watches = w;
        return 0;
}

/* ---- starting one ---- */

/* A session's id is the cluster's, "-" and a number: the cluster itself may be gone. */
static void on_started(void *arg, int r, const char *session, int fd, const struct err *why)
{
        const char *dash = strrchr(session, '-');
        char cluster[LIMIT_CLUSTER_ID_LEN + 1];
        struct unit *u;

        (void) snprintf(cluster, sizeof cluster, "%.*s", dash ? (int) (dash - session) : 0,
                        session);
        u = unit_find(arg, cluster);
        if (!u || u->row.state != CS_RUNNING) {
                (void) fd_close(fd);
                return;
        }
        u->ssh.starting = false;
        if (r >= 0)
                r = watch(u, fd);
        if (r < 0)
                try_again(u, why && *why->msg ? why->msg : strerror(-r));
        else if (u->ssh.again)
                start_in(u, 0);
        u->ssh.again = false;
}

static void start(struct unit *u)
{
        char serve[] = "serve", keep[] = "keep"; /* with and without a port */
        char *argv[] = { (char[]){ SSH_PROGRAM },
                         plan_profile(&u->plan) == SECURITY_STRICT ? keep : serve, NULL };
        AUTO(free)
        char *keys = u->row.ssh_keys ? str_fmt(SSH_KEYS_ENV "=%s", u->row.ssh_keys) : NULL;
        char *env[] = { keys, NULL };
        const struct fleet_exec x = { .argv = argv, .env = env, .user = "0", .cwd = "/" };
        struct err e = { 0 };

        if (u->row.state != CS_RUNNING)
                return;
        if (u->ssh.starting) { /* with the keys of before, perhaps */
                u->ssh.again = true;
                return;
        }
        if (u->row.ssh_keys && !keys)
                (void) err_set(&e, -ENOMEM, "out of memory");
        else if (fleet_exec(u->fleet, u->row.cluster, &x, on_started, u->fleet, &e) >= 0)
                u->ssh.starting = true;
        if (!u->ssh.starting)
                try_again(u, e.msg);
}

void unit_ssh_start(struct unit *u)
{
        u->ssh.failures = 0;
        if (u->plan.start_ssh && !u->unreadable)
                start_in(u, 0); /* behind the report that it runs */
}

void unit_ssh_forget(struct unit *u)
{
        u->ssh.src = sd_event_source_disable_unref(u->ssh.src);
        u->ssh.starting = u->ssh.again = false;
        while (u->ssh.watches)
                watch_end(u->ssh.watches);
}

/* ---- keys ---- */

/* "SHA256:... TYPE BASE64 COMMENT" of each key: inside, dropbear tells whom it let in by that. */
static char *marked(const char *keys, struct err *e)
{
        struct strbuf b = { 0 };
        struct sshkey key;

        strbuf_str(&b, "");
        for (const char *p = keys, *line = p; *p; line = p) {
                unsigned char md[EVP_MAX_MD_SIZE];
                char print[SSHKEY_FINGERPRINT_LEN + 1];
                int n = sshkey_line(p, &key, &p, e);

                if (n <= 0)
                        continue;
                if (EVP_Digest(key.blob, key.len, md, NULL, EVP_sha256(), NULL) != 1)
                        b.failed = true;
                sshkey_fingerprint(md, print);
                line += strspn(line, " \t");
                strbuf_fmt(&b, "%s %.*s\n", print, (int) strcspn(line, "\r\n"), line);
        }
        return strbuf_take(&b);
}

void unit_ssh_keys(struct unit *u, const char *keys)
{
        struct err e = { 0 };
        bool ok = !keys || sshkey_check("ssh_keys", keys, &e) >= 0;
        AUTO(free) char *new = keys &&ok ? marked(keys, &e) : NULL;

        if (!ok || (keys && !new)) { /* those of before stay */
                log_error("cluster %s: %s", u->row.cluster, ok ? "out of memory" : e.msg);
                return;
        }
        if (str_eq(new, u->row.ssh_keys))
                return;
        free(u->row.ssh_keys);
        u->row.ssh_keys = TAKE(new);
        (void) unit_save(
                u, false); /* on a full disk the control plane says them again after a restart */
        if (u->row.state == CS_RUNNING && u->row.ssh_keys)
                unit_ssh_start(u);
}
