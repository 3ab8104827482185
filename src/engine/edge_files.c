/* edge_files.c - see edge_files.h. */
#include "engine/edge_files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/str.h"
#include "edge/ca.h"
#include "edge/config.h"
#include "engine/claim/claim.h"

#define DIR_NAME "edge"
#define PEM_MAX  (256U << 10)

int edge_files_open(const struct instance *inst, struct edge_files *ret, struct err *e)
{
        struct edge_files f = { .fd = fd_mkdir_beneath(inst->run_fd, DIR_NAME, 0711) };

        if (f.fd < 0)
                return err_errno(e, f.fd, "make the run directory's " DIR_NAME);
        f.dir = str_fmt("/run/hypervisor-vmm/%s/" DIR_NAME, inst->id);
        if (!f.dir) {
                edge_files_done(&f);
                return err_set(e, -ENOMEM, "out of memory");
        }
        *ret = f;
        return 0;
}

void edge_files_done(struct edge_files *f)
{
        free(f->dir);
        f->dir = NULL;
        f->fd = fd_close(f->fd);
}

int edge_files_put(const struct edge_files *f, const char *name, const void *data, size_t len,
                   struct err *e)
{
        int r = fd_replace_file(f->fd, name, data, len, 0600, false);

        if (r >= 0 &&
            fchownat(f->fd, name, CLAIM_EDGE_UID, CLAIM_EDGE_UID, AT_SYMLINK_NOFOLLOW) < 0)
                r = -errno;
        return r < 0 ? err_errno(e, r, "write %s/%s", f->dir, name) : 0;
}

/* As an operator or an ACME client leaves them: one file with everything, or a directory with a chain and
 * a key. */
static int read_given(const char *option, const char *path, struct strbuf *b, struct err *e)
{
        static const char *const parts[] = { "fullchain.pem", "privkey.pem" };
        AUTO(fd) int at = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        struct stat st;
        int r = 0;

        if (at < 0 || fstat(at, &st) < 0)
                return err_errno(e, -errno, "[edge] %s: %s", option, path);
        for (size_t i = 0; i < NELEM(parts); i++) {
                AUTO(free) char *text = NULL;
                size_t len = 0;

                if (S_ISDIR(st.st_mode))
                        r = fd_read_file(at, parts[i], PEM_MAX, &text, &len);
                else if (i == 0)
                        r = fd_read_file(AT_FDCWD, path, PEM_MAX, &text, &len);
                else
                        break;
                if (r < 0)
                        return err_errno(e, r, "[edge] %s: %s%s%s", option, path,
                                         S_ISDIR(st.st_mode) ? "/" : "",
                                         S_ISDIR(st.st_mode) ? parts[i] : "");
                strbuf_add(b, text, len);
                strbuf_char(b, '\n');
                explicit_bzero(text, len);
        }
        return b->failed ? err_set(e, -ENOMEM, "out of memory") : 0;
}

static int put_one(const struct edge_files *f, int own, const char *option, const char *given,
                   const char *name, struct err *e)
{
        AUTO(strbuf_done) struct strbuf b = { 0 };
        AUTO(free) char *text = NULL;
        size_t len = 0;
        int r;

        if (!str_empty(given)) {
                r = read_given(option, given, &b, e);
                if (r >= 0)
                        r = edge_files_put(f, name, b.s, b.len, e);
                if (b.s)
                        explicit_bzero(b.s, b.len);
                return r;
        }
        r = fd_read_file(own, name, PEM_MAX, &text, &len);
        if (r < 0)
                return err_errno(e, r, "read " DIR_NAME "/%s", name);
        r = edge_files_put(f, name, text, len, e);
        explicit_bzero(text, len);
        return r;
}

int edge_files_certificates(const struct edge_files *f, const struct instance *inst, struct err *e)
{
        const struct engine_conf *c = &inst->conf;
        const struct ca_spec spec = { .instance = inst->id,
                                      .tenant_domain = c->edge_tenant_domain,
                                      .api_domain = c->edge_api_domain,
                                      .now_s = clock_wall_us() / US_PER_S };
        AUTO(fd) int own = fd_mkdir_beneath(inst->data_fd, DIR_NAME, 0711);
        struct ca_result res;
        int r = own < 0 ? err_errno(e, own, "make %s/" DIR_NAME, inst->data_dir) : 0;

        if (r >= 0 &&
            (str_empty(c->edge_tenant_certificate) || str_empty(c->edge_api_certificate))) {
                r = ca_ensure(own, &spec, &res, e);
                if (r >= 0 && res.new_authority)
                        log_info("edge: made an authority for its certificates: %s/" DIR_NAME
                                 "/" CA_CERT_FILE ", SHA-256 %s",
                                 inst->data_dir, res.fingerprint);
        }
        if (r >= 0)
                r = put_one(f, own, "tenant_certificate", c->edge_tenant_certificate,
                            EDGE_TENANT_FILE, e);
        if (r >= 0)
                r = put_one(f, own, "api_certificate", c->edge_api_certificate, EDGE_API_FILE, e);
        return r;
}
