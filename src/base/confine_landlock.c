/* confine_landlock.c - the rung of confine.h that is about names.  By itself, because vmm-monitor, which
 * links no library, climbs down it, too. */
#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/confine.h"
#include "base/fd.h"

/* The kernel's structure and bits as of ABI 6; headers of a distribution may be older. */
struct ruleset {
        uint64_t fs, net, scoped;
};
#define FS_READ     (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
#define FS_REFER    (1ULL << 13) /* ABI 2: to another directory */
#define FS_TRUNCATE (1ULL << 14) /* ABI 3 */
#define FS_IOCTL    (1ULL << 15) /* ABI 5 */
#define FS_MAKE                                                                                    \
        (LANDLOCK_ACCESS_FS_REMOVE_DIR | LANDLOCK_ACCESS_FS_REMOVE_FILE |                          \
         LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_MAKE_REG | FS_REFER)
#define FS_FILE                                                                                    \
        (LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_WRITE_FILE |                              \
         LANDLOCK_ACCESS_FS_READ_FILE | FS_TRUNCATE | FS_IOCTL) /* what a file can have */
#define NET_BIND       (1ULL << 0)
#define NET_CONNECT    (1ULL << 1)
#define SCOPE_ABSTRACT (1ULL << 0)
#define SCOPE_SIGNAL   (1ULL << 1)

int confine_landlock_abi(void)
{
        long r = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);

        return r < 0 ? 0 : (int) r;
}

/* Everything that this kernel can refuse. */
static struct ruleset all_of(int abi, unsigned reach)
{
        unsigned bits = abi >= CONFINE_ABI_DEVICE ? 16 : abi >= 3 ? 15 : abi >= 2 ? 14 : 13;

        struct ruleset all = { .fs = (1ULL << bits) - 1 };

        if (abi >= CONFINE_ABI_TCP)
                all.net = NET_BIND | (reach & CONFINE_CONNECT ? 0 : NET_CONNECT);
        if (abi >= CONFINE_ABI_SCOPE)
                all.scoped = SCOPE_ABSTRACT | (reach & CONFINE_SIGNAL ? 0 : SCOPE_SIGNAL);
        return all;
}

static int add_path(int rules, uint64_t known, const struct confine_path *p, struct err *e)
{
        AUTO(fd) int fd = open(p->path, O_PATH | O_CLOEXEC);
        struct landlock_path_beneath_attr a = { .parent_fd = fd };
        struct stat st;

        if (fd < 0 && (errno == ENOENT || errno == ENOTDIR || errno == EACCES))
                return 0; /* what cannot be reached needs no row */
        if (fd < 0 || fstat(fd, &st) < 0)
                return err_errno(e, -errno, "%s", p->path);
        a.allowed_access =
                (p->access & CONFINE_READ ? FS_READ : 0) |
                (p->access & CONFINE_WRITE ? LANDLOCK_ACCESS_FS_WRITE_FILE | FS_TRUNCATE : 0) |
                (p->access & CONFINE_MAKE ? FS_MAKE : 0) |
                (p->access & CONFINE_DEVICE ? FS_IOCTL : 0);
        a.allowed_access &= S_ISDIR(st.st_mode) ? known : known & FS_FILE;
        if (a.allowed_access &&
            syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &a, 0) < 0)
                return err_errno(e, -errno, "Landlock: %s", p->path);
        return 0;
}

int confine_landlock(const struct confine_path *paths, size_t n, unsigned reach, struct err *e)
{
        int abi = confine_landlock_abi(), r = 0;
        struct ruleset all = all_of(abi, reach);
        /* an older kernel takes the shorter structures of its time */
        size_t size = abi >= CONFINE_ABI_SCOPE ? sizeof all
                      : abi >= CONFINE_ABI_TCP ? offsetof(struct ruleset, scoped)
                                               : offsetof(struct ruleset, net);
        AUTO(fd) int rules = -EBADF;

        if (abi == 0)
                return 0;
        rules = (int) syscall(SYS_landlock_create_ruleset, &all, size, 0);
        if (rules < 0)
                return err_errno(e, -errno, "Landlock");
        for (size_t i = 0; r >= 0 && i < n; i++)
                r = add_path(rules, all.fs, &paths[i], e);
        if (r < 0)
                return r;
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
            syscall(SYS_landlock_restrict_self, rules, 0) < 0)
                return err_errno(e, -errno, "Landlock");
        return abi;
}
