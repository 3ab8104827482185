/* edge_certs.c - see edge_certs.h.
 *
 * Looking is cheaper than being told: the operator's path may lead over any number of links (an ACME client's
 * live/), each of which can be replaced, and a look is four small files.
 *
 * One certificate at a time is told, over a connection of its own.  HAProxy knows one open change at once, which
 * an engine that was killed may have left: so they are given up first.  A file follows when HAProxy has said yes;
 * an engine that is killed before that tells the same again. */
#include "engine/edge_certs.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/str.h"
#include "edge/config.h"
#include "edge/runtime.h"
#include "engine/edge_child.h"
#include "engine/edge_source.h"
#include "engine/op/listen.h"

#define LOOK_US     US_PER_S
#define AGAIN_US    (60 * US_PER_S) /* after HAProxy could not be told */
#define CARE_US     (3600 * US_PER_S)
#define PATIENCE_US (20 * US_PER_S)
#define DAY_S       86400U
#define WARN_S      (7U * DAY_S)
#define FILE_MAX    (CERT_PEM_MAX + 1024U)
#define DIGEST      32U

struct row {
        struct edge_source source;
        unsigned char seen[DIGEST];   /* what the last look found */
        unsigned char judged[DIGEST]; /* what was decided about */
        bool bad;                     /* that was not in order */
        bool doubt;                   /* HAProxy may have another one than its file */
        char *next;                   /* what its file is to be; a secret */
        uint64_t warned_day;
};

struct edge_certs {
        sd_event *loop;
        const struct instance *inst;
        const struct edge_files *files;
        int own; /* directory of our authority */
        struct row row[EDGE_SOURCE_COUNT];
        sd_event_source *timer;
        uint64_t care_us; /* when to see to what only time changes */
        /* one is being told */
        struct runtime *runtime;
        struct row *telling;
        uint64_t set, commit; /* numbers of the commands */
        bool over;            /* the connection may go */
};

/* ---- what lies there ---- */

/* Of what was read, or of why it was not. */
static void digest_of(const struct edge_text *t, const struct err *why,
                      unsigned char ret[static DIGEST])
{
        const char *s = t->s ? t->s : why->msg;
        size_t n = 0;

        if (EVP_Q_digest(NULL, "SHA256", NULL, s, t->s ? t->len : strlen(s), ret, &n) != 1)
                memset(ret, 0, DIGEST);
}

/* What HAProxy starts with: where it is from, and the certificate. */
static char *file_text(const struct row *row, const struct cert *cert)
{
        return str_fmt("%s%s", row->source.origin, cert->pem);
}

/* -ENOENT: nothing, or something from elsewhere. */
static int read_file(const struct edge_certs *c, const struct row *row, char **ret)
{
        AUTO(str_wipe_free) char *text = NULL;
        int r = fd_read_file(c->files->fd, row->source.file, FILE_MAX, &text, NULL);

        if (r >= 0 && !str_after(text, row->source.origin))
                r = -ENOENT;
        if (r >= 0)
                *ret = TAKE(text);
        return r;
}

static int renew(struct edge_certs *c, bool start, struct err *e)
{
        return edge_source_renew(c->own, c->inst, clock_wall_us() / US_PER_S, start, e);
}

static bool is_own(const struct row *row)
{
        return str_empty(row->source.given);
}

static void warn_of_key(const struct row *row, const struct edge_text *text)
{
        if (text->exposed && !is_own(row))
                log_warn("%s: %s: everybody on this host can read its private key",
                         row->source.option, row->source.given);
}

/* ---- at the start ---- */

/* row->next is what its file is to be; NULL: what lies there stays. */
static int choose(struct edge_certs *c, struct row *row, struct err *e)
{
        AUTO(edge_text_done) struct edge_text text = { .s = NULL };
        AUTO(str_wipe_free) char *old = NULL;
        AUTO(cert_done) struct cert cert = { .pem = NULL };
        struct err why = { 0 };
        int r = edge_source_read(&row->source, c->own, &text, &why);

        if (r >= 0)
                r = edge_source_judge(&row->source, &text, clock_wall_us() / US_PER_S, &cert, &why);
        digest_of(&text, &why, row->seen);
        memcpy(row->judged, row->seen, DIGEST);
        row->next = cert.pem ? file_text(row, &cert) : NULL;
        if (cert.pem && !row->next)
                return err_set(e, -ENOMEM, "out of memory");
        row->bad = r < 0;
        if (r < 0 && read_file(c, row, &old) >= 0 && !str_eq(old, row->next)) {
                log_error("%s; the one before it stays in use", why.msg);
                row->next = str_wipe_free(row->next);
                return 0;
        }
        if (r == -EKEYEXPIRED)
                log_warn("%s; it is used, since there is no other", why.msg);
        else if (r < 0)
                return err_copy(e, &why);
        warn_of_key(row, &text);
        return 0;
}

int edge_certs_put(struct edge_certs *c, struct err *e)
{
        for (struct row *row = c->row; row < c->row + NELEM(c->row); row++) {
                int r = row->next ? edge_files_put(c->files, row->source.file, row->next,
                                                   strlen(row->next), e)
                                  : 0;

                if (r < 0)
                        return r;
                row->next = str_wipe_free(row->next);
        }
        return 0;
}

/* ---- telling it ---- */

static void hang_up(struct edge_certs *c)
{
        c->runtime = runtime_free(c->runtime);
        if (c->telling)
                c->telling->next = str_wipe_free(c->telling->next);
        c->telling = NULL;
        c->over = false;
}

static void look_in(struct edge_certs *c, uint64_t us)
{
        (void) sd_event_source_set_time_relative(c->timer, us);
        (void) sd_event_source_set_enabled(c->timer, SD_EVENT_ONESHOT);
}

/* It is looked at again, and decided anew. */
static void try_again(struct row *row)
{
        memset(row->judged, 0, DIGEST);
}

static void accepted(struct edge_certs *c, struct row *row)
{
        AUTO(str_wipe_free) char *old = NULL;
        AUTO(cert_done) struct cert cert = { .pem = NULL };
        struct err e = { 0 };
        char date[11];

        row->doubt = false;
        if (read_file(c, row, &old) >= 0 && str_eq(old, row->next))
                return;
        if (edge_files_put(c->files, row->source.file, row->next, strlen(row->next), &e) < 0) {
                log_error("%s; HAProxy has it already", e.msg);
                try_again(row);
                return;
        }
        if (cert_read(row->next, strlen(row->next), row->source.host, row->source.names, &cert,
                      NULL) < 0)
                return;
        cert_date(cert.ends_s, date);
        log_info("edge: a new certificate for %s, good until %s, SHA-256 %s", row->source.names,
                 date, cert.fingerprint);
}

/* What it says of a commit begins with what it is about to do. */
static void refused(struct edge_certs *c, const char *text)
{
        const char *why = str_after(text, "Committing ") ? strchr(text, '\n') : NULL;
        char line[160];

        (void) snprintf(line, sizeof line, "%s", why ? why + 1 : text);
        str_tame(line, ' ');
        log_error("%s: HAProxy does not take it, the one before it stays in use: %s",
                  c->telling->source.option, line);
        c->telling->bad = true;
}

/* Only to a change that was begun for this very file there is a commit: HAProxy lays what is set for one on a
 * change that is open for another. */
static void on_answer(void *arg, uint64_t number, const char *text)
{
        struct edge_certs *c = arg;
        AUTO(free)
        char *commit = str_fmt("commit ssl cert %s/%s\n", c->files->dir, c->telling->source.file);

        if (number == c->set && commit && str_after(text, "Transaction created for certificate ")) {
                c->commit = runtime_say(c->runtime, commit, 1);
                return;
        }
        if (number != c->set && number != c->commit)
                return;
        if (number == c->commit && strstr(text, "Success!"))
                accepted(c, c->telling);
        else
                refused(c, text);
        c->over = true;
        look_in(c, 0);
}

static void on_lost(void *arg, const char *why)
{
        struct edge_certs *c = arg;

        log_debug("haproxy: %s; its certificates are told again", why);
        try_again(c->telling);
        c->over = true; /* it must not be freed from in here */
        look_in(c, LOOK_US);
}

static void say(struct edge_certs *c, const struct row *row)
{
        const char *dir = c->files->dir, *file = row->source.file;
        const char *pem = row->next + strlen(row->source.origin);
        AUTO(free)
        char *before = str_fmt("abort ssl cert %s/" EDGE_TENANT_FILE
                               "\nabort ssl cert %s/" EDGE_API_FILE "\n",
                               dir, dir);
        AUTO(str_wipe_free) char *set = str_fmt("set ssl cert %s/%s <<\n%s\n", dir, file, pem);

        if (!before || !set)
                return;
        (void) runtime_say(c->runtime, before, 2);
        c->set = runtime_say(c->runtime, set, 1);
}

/* row->next. */
static void tell(struct edge_certs *c, struct row *row)
{
        struct err e = { 0 };
        struct runtime_spec spec = { .loop = c->loop,
                                     .fd = op_connect(c->inst->run_fd, EDGE_ADMIN_SOCKET, &e),
                                     .patience_us = PATIENCE_US,
                                     .answer = on_answer,
                                     .lost = on_lost,
                                     .arg = c };

        c->telling = row;
        c->set = c->commit = 0;
        if (spec.fd >= 0 && runtime_new(&spec, &c->runtime, &e) >= 0)
                say(c, row);
        if (c->set)
                return;
        log_warn("edge: the certificate for %s waits: HAProxy cannot be told", row->source.names);
        try_again(row);
        c->over = true;
        look_in(c, AGAIN_US);
}

/* ---- looking ---- */

/* True: HAProxy is being told. */
static bool decide(struct edge_certs *c, struct row *row, const struct edge_text *text,
                   struct err *why)
{
        AUTO(str_wipe_free) char *old = NULL;
        AUTO(cert_done) struct cert cert = { .pem = NULL };
        int r = text->s ? edge_source_judge(&row->source, text, clock_wall_us() / US_PER_S, &cert,
                                            why)
                        : why->code;

        row->bad = r < 0;
        if (r < 0) {
                log_error("%s; the one before it stays in use", why->msg);
                return false;
        }
        warn_of_key(row, text);
        row->next = file_text(row, &cert);
        if (!row->next) {
                try_again(row);
                return false;
        }
        if (!row->doubt && read_file(c, row, &old) >= 0 && str_eq(old, row->next)) {
                row->next = str_wipe_free(row->next);
                return false;
        }
        tell(c, row);
        return true;
}

/* True: HAProxy is being told. */
static bool consider(struct edge_certs *c, struct row *row)
{
        AUTO(edge_text_done) struct edge_text text = { .s = NULL };
        unsigned char found[DIGEST];
        struct err why = { 0 };
        bool settled;

        if (edge_source_read(&row->source, c->own, &text, &why) < 0)
                edge_text_done(&text);
        digest_of(&text, &why, found);
        settled = memcmp(found, row->seen, DIGEST) == 0;
        memcpy(row->seen, found, DIGEST);
        if (!settled) { /* somebody may be writing */
                c->care_us = is_own(row) ? 0 : c->care_us;
                return false;
        }
        if (memcmp(found, row->judged, DIGEST) == 0 && (!row->doubt || row->bad))
                return false;
        memcpy(row->judged, found, DIGEST);
        return decide(c, row, &text, &why);
}

static void warn_of_end(const struct edge_certs *c, struct row *row, uint64_t now_s)
{
        AUTO(str_wipe_free) char *text = NULL;
        AUTO(cert_done) struct cert cert = { .pem = NULL };
        char date[11];

        if (row->warned_day == now_s / DAY_S || read_file(c, row, &text) < 0 ||
            cert_read(text, strlen(text), row->source.host, row->source.names, &cert, NULL) < 0 ||
            now_s + WARN_S < cert.ends_s)
                return;
        row->warned_day = now_s / DAY_S;
        cert_date(cert.ends_s, date);
        log_warn("edge: the certificate for %s %s on %s, and no newer one is there",
                 row->source.names, now_s < cert.ends_s ? "ends" : "has ended", date);
}

/* What changes without anybody writing a file. */
static void care(struct edge_certs *c, uint64_t now)
{
        struct err e = { 0 };

        c->care_us = now + CARE_US;
        if ((is_own(&c->row[0]) || is_own(&c->row[1])) && renew(c, false, &e) < 0)
                log_error("edge: its own certificates: %s", e.msg);
        for (struct row *row = c->row; row < c->row + NELEM(c->row); row++) {
                if (row->bad)
                        try_again(row);
                if (!is_own(row))
                        warn_of_end(c, row, clock_wall_us() / US_PER_S);
        }
}

static int on_timer(sd_event_source *s, uint64_t usec, void *arg)
{
        struct edge_certs *c = arg;
        uint64_t now = clock_mono_us();

        (void) s;
        (void) usec;
        if (c->over)
                hang_up(c);
        if (c->telling)
                return 0;
        look_in(c, LOOK_US);
        if (now >= c->care_us)
                care(c, now);
        for (struct row *row = c->row; row < c->row + NELEM(c->row); row++)
                if (consider(c, row))
                        break;
        return 0;
}

/* ---- its life ---- */

void edge_certs_started(struct edge_certs *c)
{
        if (c->telling)
                try_again(c->telling);
        hang_up(c);
        look_in(c, LOOK_US);
}

void edge_certs_found(struct edge_certs *c)
{
        for (struct row *row = c->row; row < c->row + NELEM(c->row); row++) {
                row->next = str_wipe_free(row->next);
                row->doubt = true;
        }
        look_in(c, 0);
}

static int open_all(struct edge_certs *c, struct err *e)
{
        int r = c->own = fd_mkdir_beneath(c->inst->data_fd, EDGE_FILES_DIR, 0711);

        if (r < 0)
                return err_errno(e, r, "make %s/" EDGE_FILES_DIR, c->inst->data_dir);
        for (size_t i = 0; i < NELEM(c->row); i++)
                if (edge_source_init(&c->row[i].source, (enum edge_source_kind) i, &c->inst->conf) <
                    0)
                        return err_set(e, -ENOMEM, "out of memory");
        if (is_own(&c->row[0]) || is_own(&c->row[1]))
                r = renew(c, true, e);
        for (struct row *row = c->row; r >= 0 && row < c->row + NELEM(c->row); row++)
                r = choose(c, row, e);
        if (r < 0)
                return r;
        r = sd_event_add_time_relative(c->loop, &c->timer, CLOCK_MONOTONIC, LOOK_US, 0, on_timer,
                                       c);
        return r < 0 ? err_errno(e, r, "a timer") : 0;
}

int edge_certs_new(sd_event *loop, const struct instance *inst, const struct edge_files *files,
                   struct edge_certs **ret, struct err *e)
{
        AUTO(edge_certs_free) struct edge_certs *c = calloc(1, sizeof *c);
        int r;

        if (!c)
                return err_set(e, -ENOMEM, "out of memory");
        c->loop = loop;
        c->inst = inst;
        c->files = files;
        c->own = -EBADF;
        c->care_us = clock_mono_us() + LOOK_US;
        r = open_all(c, e);
        if (r < 0)
                return r;
        *ret = TAKE(c);
        return 0;
}

struct edge_certs *edge_certs_free(struct edge_certs *c)
{
        if (!c)
                return NULL;
        hang_up(c);
        sd_event_source_disable_unref(c->timer);
        for (struct row *row = c->row; row < c->row + NELEM(c->row); row++) {
                (void) str_wipe_free(row->next);
                edge_source_done(&row->source);
        }
        (void) fd_close(c->own);
        free(c);
        return NULL;
}
