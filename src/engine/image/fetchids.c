/* fetchids.c - see fetchids.h.  Who locks a byte makes sure afterwards that the file still has its
 * name; who unlinks the file holds all its bytes: so nobody keeps a lock on a file without a name. */
#include "fetchids.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "engine/claim/claim.h"
#include "engine/idmap.h"

#define PATH    "../fetch-ids" /* beside the instances' run directories */
#define RANGES  128U
#define ID_BASE 0x4F000000U
#define TRIES   16

static_assert(ID_BASE + RANGES * IDMAP_RANGE <= CLAIM_API_UID, "below what claim.h places");

static int lock(int fd, off_t from, off_t len)
{
        struct flock l = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = from, .l_len = len };

        return fcntl(fd, F_OFD_SETLK, &l) < 0 ? -errno : 0;
}

static bool still_named(const struct instance *inst, int fd)
{
        struct stat a, b;

        return fstat(fd, &a) == 0 && fstatat(inst->run_fd, PATH, &b, AT_SYMLINK_NOFOLLOW) == 0 &&
               a.st_ino == b.st_ino && a.st_dev == b.st_dev;
}

/* The first free byte of @n from @from on; -EAGAIN: the file has lost its name, begin again. */
static int claim_byte(const struct instance *inst, int fd, uint32_t from, uint32_t n,
                      uint32_t *ret_base)
{
        for (uint32_t i = from; i < from + n; i++) {
                int r = lock(fd, i, 1);

                if (r == -EAGAIN || r == -EACCES)
                        continue;
                if (r < 0)
                        return r;
                if (!still_named(inst, fd))
                        return -EAGAIN;
                *ret_base = ID_BASE + i * IDMAP_RANGE;
                return 0;
        }
        return still_named(inst, fd) ? -EBUSY : -EAGAIN;
}

static int claim(const struct instance *inst, uint32_t from, uint32_t n, uint32_t *ret_base,
                 struct err *e)
{
        int r = -EAGAIN;

        for (int i = 0; i < TRIES && r == -EAGAIN; i++) {
                AUTO(fd)
                int fd =
                        openat(inst->run_fd, PATH, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);

                if (fd < 0)
                        return err_errno(e, -errno, "opening the id ranges of fetchers");
                r = claim_byte(inst, fd, from, n, ret_base);
                if (r >= 0)
                        return fd_take(&fd);
        }
        return r == -EBUSY ? err_set(e, r, "%u images are being unpacked on this machine already",
                                     RANGES)
                           : err_errno(e, r, "locking an id range");
}

int fetchids_claim(const struct instance *inst, uint32_t *ret_base, struct err *e)
{
        return claim(inst, 0, RANGES, ret_base, e);
}

int fetchids_claim_at(const struct instance *inst, uint32_t base, struct err *e)
{
        uint32_t i = (base - ID_BASE) / IDMAP_RANGE;

        if (base < ID_BASE || i >= RANGES || base % IDMAP_RANGE != 0)
                return err_set(e, -EINVAL, "%u is no id range of fetchers", base);
        return claim(inst, i, 1, &base, e);
}

int fetchids_release(const struct instance *inst, int fd)
{
        if (fd >= 0 && lock(fd, 0, 0) >= 0 && still_named(inst, fd))
                (void) unlinkat(inst->run_fd, PATH, 0);
        return fd_close(fd);
}

void fetchids_tidy(const struct instance *inst)
{
        (void) fetchids_release(inst, openat(inst->run_fd, PATH, O_RDWR | O_NOFOLLOW | O_CLOEXEC));
}
