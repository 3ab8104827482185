/* mode_manifest.c - from a reference to a checked description of the image.  Runs in vmm-fetch.
 *
 * Every document is hashed before it is read.  What the reference itself pins (a digest) must come
 * out; what a tag resolves to is the hash of what came. */
#include <errno.h>

#include "base/fd.h"
#include "base/str.h"
#include "fetch/http.h"
#include "fetch/manifest.h"
#include "fetch/mode.h"
#include "model/imageref.h"
#include "model/limits.h"

/* GET a manifest; @want: the digest that it must have, or NULL. */
static int get_manifest(struct http *h, const char *name, const char *want, char **ret,
                        size_t *ret_len, char digest[static 72], struct err *e)
{
        AUTO(free) char *url = http_registry_url(h, "manifests", name);
        int r;

        if (!url)
                return err_set(e, -ENOMEM, "out of memory");
        r = http_get(h, url, manifest_accept, LIMIT_MANIFEST_BYTES, "manifest", ret, ret_len, e);
        if (r < 0)
                return err_wrap(e, r, "manifest");
        r = manifest_digest(*ret, *ret_len, digest);
        if (r < 0)
                return err_set(e, r, "SHA-256 failed");
        if (want && !str_eq(want, digest))
                return err_set(e, -EBADMSG, "manifest: its digest is %s, not %s", digest, want);
        return 0;
}

static int get_config(struct http *h, struct manifest *m, const char *arch,
                      struct fetch_image *image, struct err *e)
{
        AUTO(free) char *url = http_registry_url(h, "blobs", m->config_digest);
        AUTO(free) char *text = NULL;
        char digest[72];
        size_t len = 0;
        int r;

        if (!url)
                return err_set(e, -ENOMEM, "out of memory");
        r = http_get(h, url, NULL, LIMIT_CONFIG_BYTES, "configuration", &text, &len, e);
        if (r < 0)
                return err_wrap(e, r, "configuration");
        if (len != m->config_size || manifest_digest(text, len, digest) < 0 ||
            !str_eq(digest, m->config_digest))
                return err_set(e, -EBADMSG, "configuration: its digest is not %s",
                               m->config_digest);
        return manifest_config(text, len, arch, m, image, e);
}

int mode_manifest(const struct mode_context *c, int root, struct err *e)
{
        AUTO(http_free) struct http *h = NULL;
        AUTO(fetch_image_done) struct fetch_image image = { 0 };
        AUTO(manifest_done) struct manifest m = { 0 };
        AUTO(free) char *text = NULL;
        const char *want = digest_ok(c->req->reference) ? c->req->reference : NULL;
        char digest[72];
        size_t len = 0;
        int r;

        (void) fd_close(root); /* writes nothing */
        r = http_new(c->req, c->ca, c->ca_len, &h, e);
        if (r >= 0)
                r = get_manifest(h, c->req->reference, want, &text, &len, digest, e);
        if (r >= 0)
                r = manifest_parse(text, len, c->req->architecture, &m, e);
        if (r >= 0 && m.kind == MANIFEST_INDEX) {
                char chosen[72];

                memcpy(chosen, m.chosen, sizeof chosen);
                free(text);
                text = NULL;
                r = get_manifest(h, chosen, chosen, &text, &len, digest, e);
                if (r >= 0)
                        r = manifest_parse(text, len, c->req->architecture, &m, e);
                if (r >= 0 && m.kind != MANIFEST_IMAGE)
                        r = err_set(e, -EINVAL, "manifest: an index that points to an index");
        }
        if (r >= 0)
                r = get_config(h, &m, c->req->architecture, &image, e);
        if (r < 0)
                return r;
        image.digest = strdup(digest);
        image.config_digest = strdup(m.config_digest);
        if (http_authorization(h))
                image.authorization = strdup(http_authorization(h));
        if (!image.digest || !image.config_digest ||
            (http_authorization(h) && !image.authorization))
                return err_set(e, -ENOMEM, "out of memory");
        r = result_image(c->res, &image);
        if (r < 0)
                return err_errno(e, r, "reporting");
        return result_done(c->res, 0, 0);
}
