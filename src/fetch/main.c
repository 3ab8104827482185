/* main.c - vmm-fetch: what touches a stranger's image, and nothing else does.
 *
 * Started by an operation process with fixed descriptors (model/fetchwire.h) in namespaces of its
 * own, one process per layer, and one that builds the image's metadata from them.  Climbs down ladder.c before the request is even parsed, does its one
 * job, says "done" or "error", ends.  When anything upstream dies it is killed. */
#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/jsonx.h"
#include "base/log.h"
#include "base/str.h"
#include "fetch/ladder.h"
#include "fetch/mode.h"

#define REQUEST_MAX (1U << 20)

#if defined(__SANITIZE_ADDRESS__)
/* The search for leaks needs a /proc, which the sandbox has not. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
        return "detect_leaks=0";
}
#endif

static const struct mode {
        const char *name;
        int (*run)(const struct mode_context *c, int root, struct err *e);
        bool network, dir;
} modes[] = {
        { "manifest", mode_manifest, true, true },
        { "layer", mode_layer, true, true },
        { "import", mode_import, false, true },
        { "build", mode_build, false, false },
};

/* The request's bytes, from a descriptor that is then closed. */
static int read_request(char **ret, size_t *ret_len)
{
        AUTO(str_wipe_free) char *text = calloc(1, REQUEST_MAX + 1);
        ssize_t n;

        if (!text)
                return -ENOMEM;
        n = fd_read_full(FETCH_FD_REQUEST, text, REQUEST_MAX);
        (void) fd_close(FETCH_FD_REQUEST);
        if (n < 0)
                return (int) n;
        *ret_len = (size_t) n;
        *ret = TAKE(text);
        return 0;
}

static int parse_request(char *text, size_t len, struct fetch_request *ret, struct err *e)
{
        AUTO(json_put) json_t *j = jsonx_parse(text, len, e);

        explicit_bzero(text, len);
        return j ? fetch_request_decode(j, ret, e) : -EINVAL;
}

static int run(const struct mode *mode, struct result **res, struct err *e)
{
        AUTO(fetch_request_done) struct fetch_request req = { 0 };
        AUTO(free) char *text = NULL, *ca = NULL;
        struct mode_context c = { .req = &req, .input = STDIN_FILENO };
        size_t len = 0;
        int root = -EBADF, r;

        r = read_request(&text, &len);
        if (r < 0)
                return err_errno(e, r, "reading the request");
        if (mode->network) {
                if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) /* reads OpenSSL's files */
                        return err_set(e, -ENOMEM, "the HTTP client cannot be set up");
                c.ca = ca = ladder_read_ca(&c.ca_len);
        }
        r = ladder_descend(mode->dir ? FETCH_FD_ROOT : -EBADF, mode->network, &root, e);
        (void) fd_close(FETCH_FD_ROOT);
        if (r >= 0)
                r = parse_request(text, len, &req, e);
        if (r < 0)
                return r;
        (void) result_free(*res);
        *res = NULL;
        r = result_new(STDOUT_FILENO, req.size_bytes, res);
        if (r < 0)
                return err_set(e, r, "out of memory");
        c.res = *res;
        return mode->run(&c, root, e);
}

int main(int argc, char **argv)
{
        AUTO(result_free) struct result *res = NULL;
        struct err e = { 0 };

        log_init("vmm-fetch", LOG_LVL_INFO);
        (void) umask(0);
        (void) signal(SIGPIPE, SIG_IGN);
        (void) signal(SIGXFSZ, SIG_IGN);       /* a file over the limit is an error like another */
        (void) setlocale(LC_CTYPE, "C.UTF-8"); /* how libarchive reads names */
        if (result_new(STDOUT_FILENO, 0, &res) < 0)
                return 1;
        for (size_t i = 0; argc == 2 && i < NELEM(modes); i++) {
                if (!str_eq(argv[1], modes[i].name))
                        continue;
                if (run(&modes[i], &res, &e) >= 0)
                        return 0;
                if (!res || result_error(res, &e) < 0)
                        log_error("%s", e.msg);
                return 1;
        }
        (void) fprintf(
                stderr,
                "usage: vmm-fetch manifest|layer|import|build (started by hypervisor-vmm)\n");
        return 2;
}
