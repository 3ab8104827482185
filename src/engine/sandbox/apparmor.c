/* apparmor.c - see apparmor.h: the cache of compiled profiles, what is loaded, and what processes say.
 *
 *   DIR/apparmor/<key>-hvmm-12           compiled; whole or absent, replaced when the key changes
 *   RUN/<instance>/apparmor/hvmm-12      a note, made before loading, gone after unloading
 *
 * Engine (open, label) and operation processes.  Always: a note is there for whatever this instance has
 * loaded, and only slots that it has claimed are touched. */
#include "engine/sandbox/apparmor.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/fd.h"
#include "engine/instance.h"
#include "engine/sandbox/apparmor_priv.h"
#include "model/limits.h"

#define SECURITYFS "/sys/kernel/security"
#define FOLDER     "apparmor"
#define BINARY_MAX (4U << 20)
#define PREFIX     "hvmm-"

static const char *const suffixes[SECURITY_PROFILE_COUNT] = { "", "", "-strict", "-compat" };

void apparmor_name(uint32_t slot, enum security_profile p, char ret[static APPARMOR_NAME_MAX])
{
        (void) snprintf(ret, APPARMOR_NAME_MAX, PREFIX "%u%s", slot, suffixes[p]);
}

/* ---- what this host has */

static int find_parser(const char **ret, struct err *e)
{
        static const char *const paths[] = { "/usr/sbin/apparmor_parser", "/sbin/apparmor_parser" };

        for (size_t i = 0; i < NELEM(paths); i++)
                if (access(paths[i], X_OK) == 0) {
                        *ret = paths[i];
                        return 0;
                }
        return err_set(e, -EOPNOTSUPP,
                       "AppArmor: apparmor_parser is missing; install the package apparmor");
}

static int check_kernel(struct err *e)
{
        AUTO(free) char *on = NULL;

        if (fd_read_file(AT_FDCWD, "/sys/module/apparmor/parameters/enabled", 8, &on, NULL) < 0)
                return err_set(e, -EOPNOTSUPP, "AppArmor: not in this kernel");
        return *on == 'Y' ? 0
                          : err_set(e, -EOPNOTSUPP,
                                    "AppArmor: switched off; start the kernel with apparmor=1");
}

/* From under a profile, others cannot be handed out, and no profile of ours would take its signals. */
static int check_self(struct err *e)
{
        AUTO(free) char *label = NULL;
        int r = fd_read_file(AT_FDCWD, "/proc/self/attr/apparmor/current", 4096, &label, NULL);

        if (r < 0)
                return err_set(e, -EOPNOTSUPP, "AppArmor: it does not say what confines us: %s",
                               strerror(-r));
        label[strcspn(label, "\n")] = '\0';
        return str_eq(label, "unconfined")
                       ? 0
                       : err_set(e, -EOPNOTSUPP,
                                 "AppArmor: the engine itself runs under the profile %.100s; start it without",
                                 label);
}

int apparmor_probe(struct err *e)
{
        const char *parser;
        int r = check_kernel(e);

        if (r >= 0)
                r = check_self(e);
        return r < 0 ? r : find_parser(&parser, e);
}

/* The kernel's own directory: a securityfs, whoever has mounted it. */
static int open_kernel(struct err *e)
{
        AUTO(fd) int fs = open(SECURITYFS, O_PATH | O_DIRECTORY | O_CLOEXEC);
        struct statfs st;
        int r;

        if (fs < 0 || fstatfs(fs, &st) < 0)
                return err_errno(e, -errno, "open " SECURITYFS);
        if (st.f_type != SECURITYFS_MAGIC) {
                if (mount("securityfs", SECURITYFS, "securityfs", MS_NOSUID | MS_NODEV | MS_NOEXEC,
                          NULL) < 0)
                        return err_errno(e, -errno, "mount " SECURITYFS);
                (void) fd_close(fs);
                fs = open(SECURITYFS, O_PATH | O_DIRECTORY | O_CLOEXEC);
                if (fs < 0)
                        return err_errno(e, -errno, "open " SECURITYFS);
        }
        r = fd_open_beneath(fs, "apparmor", O_PATH | O_DIRECTORY, 0);
        return r < 0 ? err_errno(e, r, "open " SECURITYFS "/apparmor") : r;
}

/* Compiled for another kernel, template or parser, or half written by an engine that was killed. */
static int tidy_cache(const struct apparmor *a, struct err *e)
{
        int fd = fd_open_beneath(a->cache, ".", O_RDONLY | O_DIRECTORY, 0);
        DIR *dir = fd < 0 ? NULL : fdopendir(fd);
        struct dirent *de;
        char prefix[32];

        if (!dir) {
                (void) fd_close(fd);
                return err_errno(e, fd < 0 ? fd : -errno, "read the AppArmor cache");
        }
        (void) snprintf(prefix, sizeof prefix, "%s-" PREFIX, a->key);
        while ((de = readdir(dir)) != NULL)
                if (de->d_type == DT_REG && !str_after(de->d_name, prefix))
                        (void) unlinkat(a->cache, de->d_name, 0);
        (void) closedir(dir);
        return 0;
}

struct apparmor *apparmor_close(struct apparmor *a)
{
        if (a) {
                (void) fd_close(a->kernel);
                (void) fd_close(a->cache);
                (void) fd_close(a->notes);
                free(a);
        }
        return NULL;
}

int apparmor_open_at(const struct apparmor *in, struct apparmor **ret, struct err *e)
{
        struct apparmor *a = malloc(sizeof *a);
        int r;

        if (!a) {
                (void) fd_close(in->kernel);
                (void) fd_close(in->cache);
                (void) fd_close(in->notes);
                return err_set(e, -ENOMEM, "out of memory");
        }
        *a = *in;
        r = apparmor_key(a->parser, a->key, e);
        if (r >= 0)
                r = tidy_cache(a, e);
        if (r < 0) {
                (void) apparmor_close(a);
                return r;
        }
        *ret = a;
        return 0;
}

int apparmor_open(const struct instance *inst, struct apparmor **ret, struct err *e)
{
        struct apparmor a = { .kernel = -EBADF, .cache = -EBADF, .notes = -EBADF };
        int r = apparmor_probe(e);

        if (r >= 0)
                r = find_parser(&a.parser, e);
        if (r >= 0)
                r = a.kernel = open_kernel(e);
        if (r >= 0)
                r = a.cache = instance_dir(inst, FOLDER, e);
        if (r >= 0) {
                r = a.notes = fd_mkdir_beneath(inst->run_fd, FOLDER, 0700);
                if (r < 0)
                        (void) err_errno(e, r, "make the directory for AppArmor's notes");
        }
        if (r >= 0)
                return apparmor_open_at(&a, ret, e);
        (void) fd_close(a.kernel);
        (void) fd_close(a.cache);
        return r;
}

/* ---- loading */

/* In one write, which is all or nothing. */
static int tell_kernel(const struct apparmor *a, const char *file, const void *data, size_t len)
{
        AUTO(fd) int fd = fd_open_beneath(a->kernel, file, O_WRONLY, 0);
        ssize_t n;

        if (fd < 0)
                return fd;
        do
                n = write(fd, data, len);
        while (n < 0 && errno == EINTR);
        return n < 0 ? -errno : (size_t) n == len ? 0 : -EIO;
}

static void cache_name(const struct apparmor *a, const char *name, char ret[static 64])
{
        (void) snprintf(ret, 64, "%s-%s", a->key, name);
}

/* Compiled anew and kept; that it could not be kept costs time only. */
static int compile(const struct apparmor *a, const char *name, enum security_profile p, char **ret,
                   size_t *ret_len, struct err *e)
{
        char file[64];
        int r = apparmor_compile(a, name, p, ret, ret_len, e);

        if (r < 0)
                return r;
        cache_name(a, name, file);
        (void) fd_replace_file(a->cache, file, *ret, *ret_len, 0600, true);
        return 0;
}

static int load(const struct apparmor *a, const char *name, enum security_profile p, struct err *e)
{
        AUTO(free) char *binary = NULL;
        char file[64];
        size_t len = 0;
        int r;

        cache_name(a, name, file);
        r = fd_read_file(a->cache, file, BINARY_MAX, &binary, &len);
        if (r >= 0)
                r = tell_kernel(a, ".replace", binary, len);
        if (r >= 0)
                return 0;
        /* not there, or the kernel does not take it: a disk may have damaged it */
        free(TAKE(binary));
        r = compile(a, name, p, &binary, &len, e);
        if (r < 0)
                return r;
        r = tell_kernel(a, ".replace", binary, len);
        return r < 0 ? err_errno(e, r, "load it into the kernel") : 0;
}

static int take_note(const struct apparmor *a, const char *name)
{
        int fd = openat(a->notes, name, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);

        return fd < 0 ? -errno : (fd_close(fd), 0);
}

int apparmor_prepare(const struct apparmor *a, uint32_t slot, enum security_profile p,
                     struct err *e)
{
        char name[APPARMOR_NAME_MAX];
        int r;

        if (!a)
                return 0;
        if (p == SECURITY_NONE)
                p = SECURITY_STANDARD;
        if (slot < 1 || slot > LIMIT_SLOTS || p >= SECURITY_PROFILE_COUNT)
                return err_set(e, -EINVAL, "AppArmor: slot %u, profile %d", slot, (int) p);
        apparmor_name(slot, p, name);
        r = take_note(a, name);
        if (r < 0)
                return err_errno(e, r, "AppArmor profile %s: note it down", name);
        r = load(a, name, p, e);
        return r < 0 ? err_wrap(e, r, "AppArmor profile %s", name) : 0;
}

/* @notes: those of an instance, ours or one that is gone. */
static int unload(const struct apparmor *a, int notes, uint32_t slot, struct err *e)
{
        for (int p = SECURITY_NONE + 1; p < SECURITY_PROFILE_COUNT; p++) {
                char name[APPARMOR_NAME_MAX];
                int r;

                apparmor_name(slot, (enum security_profile) p, name);
                if (faccessat(notes, name, F_OK, AT_SYMLINK_NOFOLLOW) < 0) {
                        if (errno == ENOENT)
                                continue;
                        return err_errno(e, -errno, "AppArmor profile %s: its note", name);
                }
                r = tell_kernel(a, ".remove", name, strlen(name));
                if (r < 0 && r != -ENOENT)
                        return err_errno(e, r, "AppArmor profile %s: unload it", name);
                if (unlinkat(notes, name, 0) < 0 && errno != ENOENT)
                        return err_errno(e, -errno, "AppArmor profile %s: its note", name);
        }
        return 0;
}

int apparmor_remove(const struct apparmor *a, uint32_t slot, struct err *e)
{
        return a ? unload(a, a->notes, slot, e) : 0;
}

/* ---- what instances have left that are gone for good */

static int open_notes(int run, const char *id)
{
        AUTO(fd) int dir = fd_open_beneath(run, id, O_PATH | O_DIRECTORY, 0);

        return dir < 0 ? dir : fd_open_beneath(dir, FOLDER, O_RDONLY | O_DIRECTORY, 0);
}

int apparmor_left(int run, const char *id, apparmor_left_fn *fn, void *arg)
{
        int fd = open_notes(run, id), r = 0;
        DIR *dir = fd < 0 ? NULL : fdopendir(fd);
        struct dirent *de;

        if (!dir) {
                (void) fd_close(fd);
                return fd == -ENOENT ? 0 : fd < 0 ? fd : -errno;
        }
        while (r >= 0 && (de = readdir(dir)) != NULL) {
                const char *number = str_after(de->d_name, PREFIX);
                uint64_t slot;

                if (number && str_u64_prefix(number, 10, &slot) >= 0 && slot >= 1 &&
                    slot <= LIMIT_SLOTS)
                        r = fn(arg, (uint32_t) slot);
        }
        (void) closedir(dir);
        return r < 0 ? r : 0;
}

int apparmor_forget(const struct apparmor *a, int run, const char *id, uint32_t slot, struct err *e)
{
        AUTO(fd) int notes = open_notes(run, id);

        if (!a || notes < 0)
                return 0;
        return unload(a, notes, slot, e);
}

/* ---- who is confined by what */

int apparmor_label(pid_t pid, char ret[static APPARMOR_NAME_MAX])
{
        AUTO(free) char *text = NULL;
        char path[64];
        int r;

        (void) snprintf(path, sizeof path, "/proc/%d/attr/apparmor/current", (int) pid);
        r = fd_read_file(AT_FDCWD, path, 4096, &text, NULL);
        if (r == -ESRCH || (r == -ENOENT && access("/proc/self/attr/apparmor", F_OK) == 0))
                return -ESRCH;
        if (r < 0 || !str_after(text, PREFIX)) /* no AppArmor, or not by one of ours */
                *ret = '\0';
        else
                (void) snprintf(ret, APPARMOR_NAME_MAX, "%.*s", (int) strcspn(text, " \n"), text);
        return 0;
}
