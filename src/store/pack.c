/* pack.c - see pack.h.  Runs in vmm-fetch. */
#include "store/pack.h"

#include <errno.h>
#include <unistd.h>

#include "base/fd.h"
#include "store/bytes.h"
#include "store/layer_index.h"

#define GATHER_BYTES (256U << 10)

struct pack {
        int fd;
        uint64_t max_blocks, blocks; /* blocks: taken so far */
        uint64_t size;               /* of the present file */
        struct pack_file file;
        uint64_t at; /* where buf goes */
        size_t n;
        uint32_t chunks[LAYER_CHUNKS_MAX];
        uint8_t buf[GATHER_BYTES];
};

int pack_new(int fd, uint64_t max_bytes, struct pack **ret, struct err *e)
{
        struct pack *p = calloc(1, sizeof *p);

        if (!p)
                return err_set(e, -ENOMEM, "out of memory");
        p->fd = fd;
        p->max_blocks = max_bytes >> LAYER_BLOCK_BITS;
        if (p->max_blocks >= LAYER_HOLE)
                p->max_blocks = LAYER_HOLE - 1;
        *ret = p;
        return 0;
}

struct pack *pack_free(struct pack *p)
{
        free(p);
        return NULL;
}

static int drain(struct pack *p, struct err *e)
{
        size_t done = 0;

        while (done < p->n) {
                ssize_t w = pwrite(p->fd, p->buf + done, p->n - done, (off_t) (p->at + done));

                if (w < 0 && errno == EINTR)
                        continue;
                if (w < 0 && (errno == ENOSPC || errno == EDQUOT))
                        return err_set(e, -errno, "no space is left on the host's image store");
                if (w <= 0)
                        return err_errno(e, w < 0 ? -errno : -EIO, "writing a pack");
                done += (size_t) w;
        }
        p->at += p->n;
        p->n = 0;
        return 0;
}

/* Bytes of the pack: gathered while they follow each other, paddings included. */
static int put(struct pack *p, uint64_t to, const uint8_t *data, size_t len, struct err *e)
{
        uint64_t gap = to - (p->at + p->n);
        int r;

        if (to < p->at + p->n || gap >= LAYER_BLOCK || gap > sizeof p->buf - p->n) {
                r = drain(p, e);
                if (r < 0)
                        return r;
                p->at = to; /* what is skipped reads as zeros: the file is fresh */
                gap = 0;
        }
        memset(p->buf + p->n, 0, gap);
        p->n += gap;
        while (len > 0) {
                size_t room = sizeof p->buf - p->n, part = len < room ? len : room;

                memcpy(p->buf + p->n, data, part);
                p->n += part;
                data += part;
                len -= part;
                if (p->n == sizeof p->buf) {
                        r = drain(p, e);
                        if (r < 0)
                                return r;
                }
        }
        return 0;
}

static int take_chunk(struct pack *p, uint32_t chunk, struct err *e)
{
        uint64_t whole = (uint64_t) LAYER_BLOCK << p->file.chunk_bits;
        uint64_t left = p->size - chunk * whole;
        uint64_t blocks = round_up(left < whole ? left : whole, LAYER_BLOCK) >> LAYER_BLOCK_BITS;

        if (blocks > p->max_blocks - p->blocks)
                return err_set(e, -EFBIG, "unpacked it has more than the %llu MiB that are allowed",
                               (unsigned long long) (p->max_blocks >> 8));
        p->chunks[chunk] = (uint32_t) p->blocks;
        p->blocks += blocks;
        return 0;
}

int pack_file_begin(struct pack *p, uint64_t size, bool sparse, struct err *e)
{
        if (size > LAYER_SIZE_MAX)
                return err_set(e, -EFBIG, "a file is larger than %llu GiB", LAYER_SIZE_MAX >> 30);
        p->size = size;
        p->file = (struct pack_file){ .chunks = p->chunks };
        p->file.chunk_bits = sparse ? layer_chunk_bits_sparse(size) : layer_chunk_bits_whole(size);
        p->file.n_chunks = (uint32_t) layer_chunk_count(size, p->file.chunk_bits);
        for (uint32_t i = 0; i < p->file.n_chunks; i++)
                p->chunks[i] = LAYER_HOLE;
        return !sparse && size > 0 ? take_chunk(p, 0, e) : 0;
}

int pack_file_write(struct pack *p, uint64_t at, const void *data, size_t len, struct err *e)
{
        const uint8_t *from = data;
        uint64_t whole = (uint64_t) LAYER_BLOCK << p->file.chunk_bits;

        if (at > p->size || len > p->size - at)
                return err_set(e, -EBADMSG, "data beyond a file's end");
        while (len > 0) {
                uint32_t chunk = (uint32_t) (at >> (LAYER_BLOCK_BITS + p->file.chunk_bits));
                uint64_t in = at & (whole - 1);
                size_t part = len < whole - in ? len : (size_t) (whole - in);
                int r = p->chunks[chunk] == LAYER_HOLE ? take_chunk(p, chunk, e) : 0;

                if (r >= 0)
                        r = put(p, ((uint64_t) p->chunks[chunk] << LAYER_BLOCK_BITS) + in, from,
                                part, e);
                if (r < 0)
                        return r;
                at += part;
                from += part;
                len -= part;
        }
        return 0;
}

void pack_file_end(struct pack *p, struct pack_file *ret)
{
        bool empty = p->file.n_chunks > 1;

        for (uint32_t i = 0; empty && i < p->file.n_chunks; i++)
                empty = p->chunks[i] == LAYER_HOLE;
        if (empty) { /* one hole rather than many */
                p->file.chunk_bits = layer_chunk_bits_whole(p->size);
                p->file.n_chunks = 1;
        }
        *ret = p->file;
}

int pack_end(struct pack *p, uint64_t *ret_bytes, struct err *e)
{
        int r = drain(p, e);

        if (r < 0)
                return r;
        if (ftruncate(p->fd, (off_t) (p->blocks << LAYER_BLOCK_BITS)) < 0)
                return err_errno(e, -errno, "writing a pack");
        *ret_bytes = p->blocks << LAYER_BLOCK_BITS;
        return 0;
}
