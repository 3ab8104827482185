/* edge_source.c - see edge_source.h.
 *
 * The operator's paths are followed whatever links are on the way (an ACME client's live/ is made of them), anew
 * each time. */
#include "engine/edge_source.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "edge/ca.h"
#include "edge/config.h"
#include "engine/edge_files.h"

#define PART_MAX  (64U << 10)
#define PARTS_MAX 2U

int edge_source_init(struct edge_source *s, enum edge_source_kind kind,
                     const struct engine_conf *conf)
{
        bool tenant = kind == EDGE_SOURCE_TENANT;

        *s = (struct edge_source){
                .option = tenant ? "[edge] tenant_certificate" : "[edge] api_certificate",
                .given = tenant ? conf->edge_tenant_certificate : conf->edge_api_certificate,
                .file = tenant ? EDGE_TENANT_FILE : EDGE_API_FILE,
                .host = tenant ? str_fmt("cluster.proxy.%s", conf->edge_tenant_domain)
                               : str_dup(conf->edge_api_domain),
                .names = tenant ? str_fmt("*.proxy.%s", conf->edge_tenant_domain)
                                : str_dup(conf->edge_api_domain),
        };
        if (s->names)
                s->origin = str_fmt("%s for %s\n",
                                    str_empty(s->given) ? "this host's own" : s->given, s->names);
        if (s->host && s->origin)
                return 0;
        edge_source_done(s);
        return -ENOMEM;
}

void edge_source_done(struct edge_source *s)
{
        free(s->host);
        free(s->names);
        free(s->origin);
        *s = (struct edge_source){ .host = NULL };
}

void edge_text_done(struct edge_text *t)
{
        if (t->s)
                explicit_bzero(t->s, t->len);
        free(t->s);
        *t = (struct edge_text){ .s = NULL };
}

/* What it is is known before it is opened: a pipe would wait for a writer, a device might do something. */
static int open_regular(int dirfd, const char *name, struct stat *ret)
{
        AUTO(fd) int at = openat(dirfd, name, O_PATH | O_CLOEXEC);
        char link[32];
        int fd;

        if (at < 0 || fstat(at, ret) < 0)
                return -errno;
        if (!S_ISREG(ret->st_mode))
                return -EINVAL;
        (void) snprintf(link, sizeof link, "/proc/self/fd/%d", at);
        fd = open(link, O_RDONLY | O_CLOEXEC);
        return fd < 0 ? -errno : fd;
}

/* @text has room for all parts: it does not move, so no key is left where it was. */
static int add_part(int dirfd, const char *name, struct edge_text *text)
{
        struct stat st;
        AUTO(fd) int fd = open_regular(dirfd, name, &st);
        ssize_t n;

        if (fd < 0)
                return fd;
        n = fd_read_full(fd, text->s + text->len, PART_MAX + 1);
        if (n < 0)
                return (int) n;
        text->len += (size_t) n;
        if ((size_t) n > PART_MAX)
                return -EFBIG;
        text->s[text->len++] = '\n';
        text->s[text->len] = '\0';
        text->exposed = st.st_mode & S_IROTH;
        return 0;
}

static int failed(const struct edge_source *s, const char *part, int r, struct err *e)
{
        const char *slash = part ? "/" : "";

        if (r == -EINVAL)
                return err_set(e, r, "%s: %s%s%s is no regular file", s->option, s->given, slash,
                               part ? part : "");
        return err_errno(e, r, "%s: %s%s%s", s->option, s->given, slash, part ? part : "");
}

/* One file with everything, or a directory with a chain and a key. */
static int read_given(const struct edge_source *s, struct edge_text *text, struct err *e)
{
        static const char *const parts[PARTS_MAX] = { "fullchain.pem", "privkey.pem" };
        AUTO(fd) int dir = open(s->given, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        int r = 0;

        if (dir < 0 && errno != ENOTDIR)
                return failed(s, NULL, -errno, e);
        if (dir < 0) {
                r = add_part(AT_FDCWD, s->given, text);
                return r < 0 ? failed(s, NULL, r, e) : 0;
        }
        for (size_t i = 0; i < PARTS_MAX; i++) {
                r = add_part(dir, parts[i], text);
                if (r < 0)
                        return failed(s, parts[i], r, e);
        }
        return 0;
}

/* The authority's own goes along with the API's: a client can look at it, and be told to trust it. */
static int read_own(const struct edge_source *s, int own, struct edge_text *text, struct err *e)
{
        const char *const part[PARTS_MAX] = { CA_CERT_FILE, s->file };

        for (size_t i = str_eq(s->file, EDGE_API_FILE) ? 0 : 1; i < PARTS_MAX; i++) {
                int r = add_part(own, part[i], text);

                if (r < 0)
                        return err_errno(e, r, "read " EDGE_FILES_DIR "/%s", part[i]);
        }
        return 0;
}

int edge_source_read(const struct edge_source *s, int own, struct edge_text *ret, struct err *e)
{
        AUTO(edge_text_done)
        struct edge_text text = { .s = malloc(PARTS_MAX * ((size_t) PART_MAX + 2) + 1) };
        int r;

        if (!text.s)
                return err_set(e, -ENOMEM, "out of memory");
        r = str_empty(s->given) ? read_own(s, own, &text, e) : read_given(s, &text, e);
        if (r < 0)
                return r;
        *ret = text;
        text.s = NULL;
        return 0;
}

int edge_source_judge(const struct edge_source *s, const struct edge_text *t, uint64_t now_s,
                      struct cert *ret, struct err *e)
{
        int r = cert_read(t->s, t->len, s->host, s->names, ret, e);

        if (r >= 0)
                r = cert_check_time(ret, now_s, e);
        return r < 0 ? err_wrap(e, r, "%s: %s", s->option,
                                str_empty(s->given) ? EDGE_FILES_DIR : s->given)
                     : 0;
}

int edge_source_renew(int own, const struct instance *inst, uint64_t now_s, bool start,
                      struct err *e)
{
        const struct ca_spec spec = { .instance = inst->id,
                                      .tenant_domain = inst->conf.edge_tenant_domain,
                                      .api_domain = inst->conf.edge_api_domain,
                                      .now_s = now_s };
        struct ca_result res;
        int r = ca_ensure(own, &spec, &res, e);

        if (r < 0)
                return r;
        if (res.new_authority)
                log_info("edge: made an authority for its certificates: %s/" EDGE_FILES_DIR
                         "/" CA_CERT_FILE ", SHA-256 %s",
                         inst->data_dir, res.fingerprint);
        else if (start)
                log_info("edge: the authority of its certificates: %s/" EDGE_FILES_DIR
                         "/" CA_CERT_FILE ", SHA-256 %s",
                         inst->data_dir, res.fingerprint);
        if (res.new_certificates && !res.new_authority)
                log_info("edge: made its certificates anew, by the same authority");
        return 0;
}
