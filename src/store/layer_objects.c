/* layer_objects.c - see layer_objects.h.  layer_objects_hash() and _put() run in the publisher, the
 * rest in the image builder. */
#include "store/layer_objects.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "store/bytes.h"

#define OBJECTS_MAGIC "hvmmobj1"
#define READ_BYTES    (256U << 10)

struct hasher {
        EVP_MD_CTX *sha;
        uint8_t buf[READ_BYTES];
};

static struct hasher *hasher_free(struct hasher *h)
{
        if (h)
                EVP_MD_CTX_free(h->sha);
        free(h);
        return NULL;
}

DEFINE_AUTO(struct hasher *, hasher_free)

static int hash_file(struct hasher *h, int fd, uint64_t size, uint8_t digest[LAYER_SHA_BYTES])
{
        uint8_t sha[EVP_MAX_MD_SIZE];
        uint64_t done = 0;
        ssize_t n;

        if (EVP_DigestInit_ex(h->sha, EVP_sha256(), NULL) != 1)
                return -EIO;
        while ((n = fd_read_full(fd, h->buf, sizeof h->buf)) > 0) {
                if (EVP_DigestUpdate(h->sha, h->buf, (size_t) n) != 1)
                        return -EIO;
                done += (uint64_t) n;
        }
        if (n < 0)
                return (int) n;
        if (done != size || EVP_DigestFinal_ex(h->sha, sha, NULL) != 1)
                return done != size ? -EBADMSG : -EIO;
        memcpy(digest, sha, LAYER_SHA_BYTES);
        return 0;
}

static int hash_one(struct hasher *h, int dir, uint32_t n, uint64_t size,
                    uint8_t digest[LAYER_SHA_BYTES], struct err *e)
{
        AUTO(fd) int fd = -EBADF;
        struct stat st;
        char name[16];
        int r;

        (void) snprintf(name, sizeof name, "%u", n);
        fd = fd_open_beneath(dir, name, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
        if (fd < 0)
                return err_set(e, -EBADMSG, "object %u of the layer is not there: %s", n,
                               strerror(-fd));
        if (fstat(fd, &st) < 0)
                return err_errno(e, -errno, "object %u", n);
        if (!S_ISREG(st.st_mode) || st.st_nlink != 1 || (uint64_t) st.st_size != size)
                return err_set(e, -EBADMSG, "object %u of the layer is not what its index says", n);
        r = hash_file(h, fd, size, digest);
        return r < 0 ? err_errno(e, r, "object %u", n) : 0;
}

int layer_objects_hash(const struct layer_index *x, int dir, uint8_t (*digests)[LAYER_SHA_BYTES],
                       struct err *e)
{
        AUTO(hasher_free) struct hasher *h = calloc(1, sizeof *h);
        int r = 0;

        if (h)
                h->sha = EVP_MD_CTX_new();
        if (!h || !h->sha)
                return err_set(e, -ENOMEM, "out of memory");
        for (uint32_t i = 0; r >= 0 && i < x->n_objects; i++) {
                uint64_t size = layer_index_object(x, i);

                if (size > 0)
                        r = hash_one(h, dir, i, size, digests[i], e);
                else
                        memset(digests[i], 0, LAYER_SHA_BYTES);
        }
        return r;
}

void layer_objects_put(struct sink *s, const struct layer_index *x,
                       const uint8_t (*digests)[LAYER_SHA_BYTES])
{
        uint8_t head[OBJECTS_HEADER_BYTES] = OBJECTS_MAGIC;

        put32(head + 8, x->n_objects);
        sink_put(s, head, sizeof head);
        for (uint32_t i = 0; i < x->n_objects; i++) {
                uint8_t size[8];

                put64(size, layer_index_object(x, i));
                sink_put(s, digests[i], LAYER_SHA_BYTES);
                sink_put(s, size, sizeof size);
        }
}

const uint8_t *layer_objects_digest(const struct layer_index *x, uint32_t n)
{
        return x->digests + (uint64_t) n * OBJECTS_ROW_BYTES;
}

int layer_objects_attach(struct layer_index *x, const uint8_t *p, size_t len, struct err *e)
{
        static const uint8_t zeros[LAYER_SHA_BYTES];
        const uint8_t *row = p + OBJECTS_HEADER_BYTES;

        if (len != OBJECTS_HEADER_BYTES + (uint64_t) x->n_objects * OBJECTS_ROW_BYTES ||
            memcmp(p, OBJECTS_MAGIC, 8) != 0 || get32(p + 8) != x->n_objects || get32(p + 12) != 0)
                return err_set(e, -EBADMSG, "the layer's names of objects are damaged");
        for (uint32_t i = 0; i < x->n_objects; i++, row += OBJECTS_ROW_BYTES) {
                uint64_t size = layer_index_object(x, i);

                if (get64(row + LAYER_SHA_BYTES) != size ||
                    (size == 0) != (memcmp(row, zeros, LAYER_SHA_BYTES) == 0))
                        return err_set(e, -EBADMSG, "the layer's names of objects are not its own");
        }
        x->digests = p + OBJECTS_HEADER_BYTES;
        return 0;
}
