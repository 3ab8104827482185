/* imagectl.c - the image store from a command line, for tests.  Root; an instance is made up from
 * the arguments, without an engine.
 *
 *   imagectl DIR LIBEXEC [--registry HOST[,insecure][,user=U,password=P]]... [--parallel N]
 *            [--deadline SECONDS] [--max-mib N] [--silence SECONDS] [--threshold BYTES]
 *            [--mount auto|file|loop] [--keep SECONDS] [--floor BYTES] [--uploads yes] VERB ARGS
 *     pull REF [USER PASSWORD [ACCOUNT]]      import ACCOUNT NAME [public] < TAR
 *     find ACCOUNT REF        list ACCOUNT [admin]      rm ACCOUNT REF [admin] [DIGEST-IN-USE]...
 *     mount ACCOUNT REF TARGET ID_BASE [objects]    attaches the metadata, or the objects, there
 *     expire NEED [IN-USE]...  and what lost its name is swept; prints how many rounds that took
 *     scrub BYTES              1: the round is complete; prints what is damaged
 *     sweep [IN-USE]...        recover */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sched.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/jsonx.h"
#include "base/log.h"
#include "engine/idmap.h"
#include "engine/image/base.h"
#include "engine/image/expire.h"
#include "engine/image/image.h"
#include "engine/image/scrub.h"

#include <linux/mount.h>

struct ctl {
        struct instance inst;
        struct registry_conf registries[8];
        struct image_store *store;
        uint64_t deadline_us;
};

static void on_progress(void *arg, const struct image_progress *p)
{
        (void) arg;
        (void) fprintf(stderr, "%s %llu/%llu\n", p->phase, (unsigned long long) p->done_bytes,
                       (unsigned long long) p->total_bytes);
}

static json_t *strings(char *const *v)
{
        json_t *list = json_array();

        for (; v && *v; v++)
                (void) json_array_append_new(list, json_string(*v));
        return list;
}

static void print_image(const struct image *i)
{
        AUTO(json_put)
        json_t *j = json_pack(
                "{s:s,s:s,s:I,s:I,s:s?,s:b,s:I,s:s,s:o,s:b,s:s?,s:o,s:o,s:o,s:s?,s:s?,s:s?}",
                "reference", i->reference, "digest", i->digest, "size_bytes",
                (json_int_t) i->size_bytes, "shared_bytes", (json_int_t) i->shared_bytes, "account",
                i->account, "public", i->is_public, "id", (json_int_t) i->id, "meta_sha",
                i->meta_sha, "devices", strings(i->devices), "objects", i->objects, "quarantined",
                i->quarantined, "entrypoint", strings(i->config.entrypoint), "command",
                strings(i->config.command), "env", strings(i->config.env), "working_dir",
                i->config.working_dir, "user", i->config.user, "stop_signal",
                i->config.stop_signal);
        AUTO(free) char *text = j ? jsonx_dump(j) : NULL;

        (void) printf("%s\n", text ? text : "?");
}

/* The instances here have a file of id ranges of their own.  Their fetchers must not get ids that a
 * real host's have, or had when it was killed: its firewall would hold them too.  A host begins with
 * the first range, so these are left to hosts until this process ends. */
static int leave_ranges_to_hosts(const struct ctl *c, struct err *e)
{
        const struct flock l = { .l_type = F_RDLCK, .l_whence = SEEK_SET, .l_len = 64 };
        int fd = openat(c->inst.run_fd, "../fetch-ids", O_RDWR | O_CREAT | O_CLOEXEC, 0600);

        return fd < 0 || fcntl(fd, F_OFD_SETLK, &l) < 0 ? err_errno(e, -errno, "id ranges") : 0;
}

static int do_pull(struct ctl *c, char **argv, struct err *e)
{
        const struct image_credentials cred = { argv[1], argv[1] ? argv[2] : NULL,
                                                argv[1] && argv[2] ? argv[3] : NULL };

        int r = leave_ranges_to_hosts(c, e);

        return r < 0 ? r
                     : image_pull(c->store, argv[0], argv[1] ? &cred : NULL, c->deadline_us,
                                  on_progress, c, e);
}

static int do_import(struct ctl *c, char **argv, struct err *e)
{
        int r = leave_ranges_to_hosts(c, e);

        return r < 0 ? r
                     : image_import(c->store, argv[0], argv[2] != NULL, argv[1], STDIN_FILENO,
                                    c->deadline_us, on_progress, c, e);
}

static int do_find(struct ctl *c, char **argv, struct err *e)
{
        struct image i;
        int r = image_find_private(c->store, argv[0], argv[1], &i, e);

        if (r < 0)
                return r;
        print_image(&i);
        image_done(&i);
        return 0;
}

static int do_list(struct ctl *c, char **argv, struct err *e)
{
        struct image *list = NULL;
        size_t n = 0;
        int r = image_list(c->store, argv[0], argv[1] != NULL, &list, &n, e);

        for (size_t i = 0; r >= 0 && i < n; i++) {
                print_image(&list[i]);
                image_done(&list[i]);
        }
        free(list);
        return r;
}

static int do_rm(struct ctl *c, char **argv, struct err *e)
{
        bool admin = argv[2] && strcmp(argv[2], "admin") == 0;

        int r = image_unname(c->store, argv[0], admin, argv[1], argv + 2 + admin, e);

        return r < 0 ? r : image_sweep(c->store, argv + 2 + admin, e);
}

/* A user namespace where ids are what they are on the disk, for looking at them. */
static int same_ids(struct err *e)
{
        AUTO(fd) int dir = -EBADF;
        int up[2], down[2], fd = -EBADF;
        char path[32], b;
        pid_t pid;

        if (pipe2(up, O_CLOEXEC) < 0 || pipe2(down, O_CLOEXEC) < 0)
                return err_errno(e, -errno, "pipe");
        pid = fork();
        if (pid == 0) {
                (void) close(down[1]);
                if (unshare(CLONE_NEWUSER) < 0 || write(up[1], "", 1) != 1)
                        _exit(1);
                (void) !read(down[0], &b, 1);
                _exit(0);
        }
        (void) close(up[1]);
        (void) !read(up[0], &b, 1);
        (void) snprintf(path, sizeof path, "/proc/%d", (int) pid);
        dir = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (dir >= 0 && idmap_write(dir, 0) >= 0)
                fd = openat(dir, "ns/user", O_RDONLY | O_CLOEXEC);
        (void) close(down[1]);
        (void) waitpid(pid, NULL, 0);
        return fd < 0 ? err_set(e, -EIO, "a user namespace") : fd;
}

static int do_mount(struct ctl *c, char **argv, struct err *e)
{
        uint32_t id_base = (uint32_t) strtoul(argv[3], NULL, 10);
        AUTO(fd) int userns = id_base ? idmap_userns(id_base, e) : same_ids(e);
        AUTO(fd) int mnt = -EBADF;
        struct image i;
        int r;

        if (userns < 0)
                return userns;
        r = image_find_private(c->store, argv[0], argv[1], &i, e);
        if (r < 0)
                return r;
        mnt = argv[4] ? image_objects_clone(c->store, e)
                      : image_base_clone(c->store, &i, userns, e);
        if (!argv[4] && mnt >= 0) /* of this process alone, which ends */
                r = image_base_tidy(c->store, NULL, 0, e);
        image_done(&i);
        if (mnt < 0 || r < 0)
                return mnt < 0 ? mnt : r;
        if (syscall(SYS_move_mount, mnt, "", AT_FDCWD, argv[2], MOVE_MOUNT_F_EMPTY_PATH) < 0)
                return err_errno(e, -errno, "move_mount");
        return 0;
}

static int do_sweep(struct ctl *c, char **argv, struct err *e)
{
        return image_sweep(c->store, argv, e);
}

/* As the engine does it: the sweep after each, until nothing goes any more. */
static int do_expire(struct ctl *c, char **argv, struct err *e)
{
        uint64_t need = strtoull(argv[0], NULL, 10);
        int rounds = 0, r;

        while ((r = image_expire(c->store, argv + 1, need, e)) > 0) {
                rounds++;
                r = image_sweep(c->store, argv + 1, e);
                if (r < 0)
                        break;
        }
        (void) printf("%d%s\n", rounds, image_is_low(c->store) ? " low" : "");
        return r;
}

static void on_damaged(void *arg, uint64_t image, const char *name, const char *why)
{
        (void) arg;
        (void) printf("%llu %s %s\n", (unsigned long long) image, name, why);
}

static int do_scrub(struct ctl *c, char **argv, struct err *e)
{
        struct image_scrub x = { .bytes = strtoull(argv[0], NULL, 10), .fn = on_damaged };
        int r = image_scrub(c->store, &x, e);

        if (r >= 0)
                (void) printf("%d %llu %llu\n", r, (unsigned long long) x.read,
                              (unsigned long long) x.total);
        return r;
}

static int do_recover(struct ctl *c, char **argv, struct err *e)
{
        (void) argv;
        return image_recover(c->store, e);
}

static const struct verb {
        const char *name;
        int min;
        int (*run)(struct ctl *c, char **argv, struct err *e);
} verbs[] = {
        { "pull", 1, do_pull },       { "import", 2, do_import }, { "find", 2, do_find },
        { "list", 1, do_list },       { "rm", 2, do_rm },         { "mount", 4, do_mount },
        { "recover", 0, do_recover }, { "expire", 1, do_expire }, { "scrub", 1, do_scrub },
        { "sweep", 0, do_sweep },
};

static void add_registry(struct ctl *c, char *spec)
{
        struct registry_conf *r = &c->registries[c->inst.n_registries++];
        char *save = NULL;

        r->host = strtok_r(spec, ",", &save);
        for (char *p = strtok_r(NULL, ",", &save); p; p = strtok_r(NULL, ",", &save)) {
                if (strcmp(p, "insecure") == 0)
                        r->insecure = true;
                else if (strncmp(p, "user=", 5) == 0)
                        r->username = p + 5;
                else if (strncmp(p, "password=", 9) == 0)
                        r->password = p + 9;
        }
}

static int open_instance(struct ctl *c, char *dir, char *libexec)
{
        char run[4096];

        (void) snprintf(run, sizeof run, "%s/run", dir);
        if ((mkdir(dir, 0711) < 0 && errno != EEXIST) || (mkdir(run, 0711) < 0 && errno != EEXIST))
                return -errno;
        c->inst.data_dir = dir;
        c->inst.libexec = libexec;
        c->inst.data_fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
        c->inst.run_fd = open(run, O_PATH | O_DIRECTORY | O_CLOEXEC);
        c->inst.registries = c->registries;
        if (!c->inst.conf.parallel_layers)
                c->inst.conf.parallel_layers = 3;
        return c->inst.data_fd < 0 || c->inst.run_fd < 0 ? -errno : 0;
}

int main(int argc, char **argv)
{
        struct ctl c = { .inst.conf = { .image_max_bytes = 16ULL << 30,
                                        .registry_silence_us = 30 * US_PER_S,
                                        .registry_rate_bytes = 1024,
                                        .pull_timeout_us = 7200 * US_PER_S,
                                        .object_threshold = 128 << 10,
                                        .image_mount = (char *) (uintptr_t) "auto" } };
        struct err e = { 0 };
        int i = 3, r = -EINVAL;

        log_init("imagectl", LOG_LVL_INFO);
        for (; i + 1 < argc && strncmp(argv[i], "--", 2) == 0; i += 2) {
                if (strcmp(argv[i], "--registry") == 0)
                        add_registry(&c, argv[i + 1]);
                else if (strcmp(argv[i], "--parallel") == 0)
                        c.inst.conf.parallel_layers = (uint32_t) strtoul(argv[i + 1], NULL, 10);
                else if (strcmp(argv[i], "--max-mib") == 0)
                        c.inst.conf.image_max_bytes = strtoull(argv[i + 1], NULL, 10) << 20;
                else if (strcmp(argv[i], "--threshold") == 0)
                        c.inst.conf.object_threshold = strtoull(argv[i + 1], NULL, 10);
                else if (strcmp(argv[i], "--mount") == 0)
                        c.inst.conf.image_mount = argv[i + 1];
                else if (strcmp(argv[i], "--keep") == 0)
                        c.inst.conf.image_keep_us =
                                (uint64_t) (strtod(argv[i + 1], NULL) * (double) US_PER_S);
                else if (strcmp(argv[i], "--floor") == 0)
                        c.inst.conf.image_floor_bytes = strtoull(argv[i + 1], NULL, 10);
                else if (strcmp(argv[i], "--uploads") == 0)
                        c.inst.conf.image_expire_uploads = true;
                else if (strcmp(argv[i], "--silence") == 0)
                        c.inst.conf.registry_silence_us =
                                strtoull(argv[i + 1], NULL, 10) * US_PER_S;
                else if (strcmp(argv[i], "--deadline") == 0)
                        c.deadline_us = clock_mono_us() +
                                        (uint64_t) (strtod(argv[i + 1], NULL) * (double) US_PER_S);
        }
        if (i >= argc || open_instance(&c, argv[1], argv[2]) < 0) {
                (void) fprintf(stderr, "usage: imagectl DIR LIBEXEC [OPTIONS] VERB ARGS\n");
                return 2;
        }
        r = image_store_open(&c.inst, &c.store, &e);
        for (size_t k = 0; r >= 0 && k < NELEM(verbs); k++)
                if (strcmp(verbs[k].name, argv[i]) == 0 && argc - i - 1 >= verbs[k].min) {
                        r = verbs[k].run(&c, argv + i + 1, &e);
                        (void) image_store_close(c.store);
                        if (r < 0)
                                (void) fprintf(stderr, "error %d: %s\n", -r, e.msg);
                        return r < 0 ? 1 : 0;
                }
        (void) fprintf(stderr, "error: %s\n", r < 0 ? e.msg : "unknown verb");
        return 2;
}
