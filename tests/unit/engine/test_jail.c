/* jail_enter(), by what a process inside finds: in a child, which prints what it found otherwise.  Who is
 * not root tries it in a user namespace. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../in_child.h"
#include "base/fd.h"
#include "base/mem.h"
#include "engine/jail.h"

struct tree {
        char dir[64], read[80], write[80], link[80], secret[80];
};

static int child(int (*fn)(const struct tree *), const struct tree *t)
{
        int status;
        pid_t pid = fork();

        assert_true(pid >= 0);
        if (pid == 0)
                _exit(fn(t));
        assert_int_equal(waitpid(pid, &status, 0), pid);
        return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static int put(const char *path)
{
        AUTO(fd) int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0755);

        return fd >= 0 && write(fd, "text", 4) == 4 ? 0 : -1;
}

static int tree_up(void **state)
{
        static struct tree t;
        char path[128];
        int r;

        (void) snprintf(t.dir, sizeof t.dir, "/tmp/hvmm-jail.XXXXXX");
        if (!mkdtemp(t.dir))
                return -1;
        (void) snprintf(t.read, sizeof t.read, "%s/read", t.dir);
        (void) snprintf(t.write, sizeof t.write, "%s/write", t.dir);
        (void) snprintf(t.link, sizeof t.link, "%s/link", t.dir);
        (void) snprintf(t.secret, sizeof t.secret, "%s/secret", t.dir);
        r = mkdir(t.read, 0755) < 0 || mkdir(t.write, 0755) < 0 || symlink(t.read, t.link) < 0 ||
            put(t.secret) < 0;
        (void) snprintf(path, sizeof path, "%s/file", t.read);
        r |= put(path);
        (void) snprintf(path, sizeof path, "%s/program", t.write);
        r |= put(path);
        *state = &t;
        return r;
}

static int tree_down(void **state)
{
        const struct tree *t = *state;

        return fd_rm_rf(AT_FDCWD, t->dir);
}

/* The rights over mounts, and the ids that the tree has. */
static int become_able(void)
{
        char uids[64], gids[64];
        int r;

        (void) snprintf(uids, sizeof uids, "%u %u 1", geteuid(), geteuid());
        (void) snprintf(gids, sizeof gids, "%u %u 1", getegid(), getegid());
        if (geteuid() == 0)
                return 0;
        if (unshare(CLONE_NEWUSER) < 0)
                return -errno;
        r = fd_write_value(AT_FDCWD, "/proc/self/setgroups", "deny");
        if (r >= 0)
                r = fd_write_value(AT_FDCWD, "/proc/self/uid_map", uids);
        return r < 0 ? r : fd_write_value(AT_FDCWD, "/proc/self/gid_map", gids);
}

static int enter(const struct jail_row *rows, size_t n)
{
        struct err e = { 0 };
        int r = become_able();

        r = r < 0 ? err_errno(&e, r, "user namespace") : jail_enter(rows, n, &e);
        if (r < 0)
                (void) dprintf(STDERR_FILENO, "%s\n", e.msg);
        return r;
}

static int at(const char *dir, const char *name, int flags)
{
        char path[160];
        AUTO(fd) int fd = -EBADF;

        (void) snprintf(path, sizeof path, "%s%s%s", dir, *name ? "/" : "", name);
        fd = open(path, flags | O_CLOEXEC, 0644);
        return fd < 0 ? -1 : 0;
}

static int what_rows_give(const struct tree *t)
{
        const struct jail_row rows[] = {
                { t->read, JAIL_READ },     { t->write, JAIL_WRITE },
                { t->link, JAIL_READ },     { "/dev/null", JAIL_DEVICE },
                { "/dev/zero", JAIL_READ }, { "/no/such/file", JAIL_READ },
        };
        const char *const places[] = { t->read, t->write, "/dev/null", "/" };
        struct statvfs v;
        char path[128];
        char *const argv[] = { path, NULL };

        CHECK(enter(rows, NELEM(rows)) == 0);
        CHECK(at(t->read, "file", O_RDONLY) == 0);
        FAILS(at(t->read, "file", O_WRONLY), EROFS);
        FAILS(at(t->read, "new", O_WRONLY | O_CREAT), EROFS);
        CHECK(at(t->write, "new", O_WRONLY | O_CREAT) == 0);
        (void) snprintf(path, sizeof path, "%s/program", t->write);
        FAILS(execv(path, argv), EACCES);
        CHECK(at(t->link, "file", O_RDONLY) == 0); /* a link, to what is shown */
        CHECK(readlink(t->link, path, sizeof path) == (ssize_t) strlen(t->read));
        CHECK(at("/dev/null", "", O_RDWR) == 0);
        FAILS(at("/dev/zero", "", O_RDONLY), EACCES); /* no row says that it is a device */
        for (size_t i = 0; i < NELEM(places); i++)
                CHECK(statvfs(places[i], &v) == 0 && v.f_flag & ST_NOSUID);
        return 0;
}

static int what_is_left(const struct tree *t)
{
        const struct jail_row rows[] = { { t->read, JAIL_READ } };
        AUTO(fd) int before = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
        char cwd[16] = "";
        struct stat a, b;

        CHECK(enter(rows, NELEM(rows)) == 0);
        CHECK(getcwd(cwd, sizeof cwd) && strcmp(cwd, "/") == 0);
        CHECK(fstat(before, &a) == 0 && stat("/", &b) == 0 && a.st_dev != b.st_dev);
        CHECK(stat("/..", &a) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino);
        FAILS(at(t->secret, "", O_RDONLY), ENOENT);
        FAILS(at("/proc", "self", O_RDONLY), ENOENT);
        FAILS(at("/etc", "passwd", O_RDONLY), ENOENT);
        FAILS(mkdir("/new", 0755), EROFS);
        FAILS(at("", "new", O_WRONLY | O_CREAT), EROFS);
        return 0;
}

static int bad_rows(const struct tree *t)
{
        static const struct jail_row slash = { "/usr/", JAIL_READ };
        struct jail_row many[25];
        struct err e = { 0 };

        for (size_t i = 0; i < NELEM(many); i++)
                many[i] = (struct jail_row){ t->read, JAIL_READ };
        CHECK(jail_enter(many, NELEM(many), &e) == -E2BIG);
        CHECK(strstr(e.msg, "more than 24 rows"));
        CHECK(access("/etc/passwd", F_OK) == 0); /* nothing has been begun */
        CHECK(enter(&slash, 1) == -EINVAL);
        return 0;
}

/* A place that is there twice: the second one is no way to cover the first. */
static int twice(const struct tree *t)
{
        const struct jail_row rows[] = { { t->secret, JAIL_READ }, { t->secret, JAIL_WRITE } };

        CHECK(enter(rows, NELEM(rows)) == -EEXIST);
        return 0;
}

static void test_rows(void **state)
{
        assert_int_equal(child(what_rows_give, *state), 0);
}

static void test_nothing_else(void **state)
{
        assert_int_equal(child(what_is_left, *state), 0);
}

static void test_refused(void **state)
{
        assert_int_equal(child(bad_rows, *state), 0);
        assert_int_equal(child(twice, *state), 0);
}

/* In a tree that hands its mounts on, as systemd's does. */
static int beside_a_shared_tree(const struct tree *t)
{
        AUTO(free) char *mounts = NULL;

        CHECK(become_able() == 0 && unshare(CLONE_NEWNS) == 0);
        CHECK(mount(NULL, "/", NULL, MS_REC | MS_SHARED, NULL) == 0);
        CHECK(child(what_rows_give, t) == 0);
        CHECK(fd_read_file(AT_FDCWD, "/proc/self/mountinfo", 1U << 20, &mounts, NULL) >= 0);
        CHECK(!strstr(mounts, t->dir));
        CHECK(access(t->secret, R_OK) == 0);
        return 0;
}

static void test_host_is_as_it_was(void **state)
{
        assert_int_equal(child(beside_a_shared_tree, *state), 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, tree_up, tree_down)
                T(test_rows),
                T(test_nothing_else),
                T(test_refused),
                T(test_host_is_as_it_was),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
