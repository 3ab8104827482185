/* What the parts of the launcher tell each other: notes, the program, and what vmm-launch is born
 * with. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/fd.h"
#include "base/str.h"
#include "engine/sandbox/sandbox_priv.h"

/* The lowest free descriptor: what leaks moves it. */
static int next_fd(void)
{
        int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

        assert_true(fd >= 0);
        (void) close(fd);
        return fd;
}

/* ---- program */

static const union {
        struct filter f;
        char bytes[sizeof(struct filter) + 2 * sizeof(struct sock_filter)];
} two = { .f = { .len = 2 } };
static const struct filter *const filter = &two.f;

static char *const argv[] = { (char[]){ "sh" }, (char[]){ "" }, (char[]){ "a b" }, NULL };
static char *const env[] = { (char[]){ "PATH=/bin" }, (char[]){ "EMPTY=" }, NULL };
static const struct sandbox_file files[] = { { "/etc/hosts", "127.0.0.1\n", 0644, false },
                                             { "/empty", "", 0600, true } };
static const struct sandbox_bind binds[] = { { -EBADF, "/0", false }, { -EBADF, "@lib/1", true } };
static const struct sandbox_symlink symlinks[] = { { "a", "/b" }, { "c.1", "@lib/c" } };
static const struct sandbox_library libraries[] = { { "c.1", "@lib/c.1", false },
                                                    { "c.1", "@lib32/c.1", true } };
static const struct sandbox_spec full = { .cluster = "c",
                                          .hostname = "box",
                                          .binds = binds,
                                          .n_binds = NELEM(binds),
                                          .files = files,
                                          .n_files = NELEM(files),
                                          .symlinks = symlinks,
                                          .n_symlinks = NELEM(symlinks),
                                          .libraries = libraries,
                                          .n_libraries = NELEM(libraries),
                                          .argv = argv,
                                          .env = env,
                                          .argv_field = "cmd",
                                          .cwd = "/w",
                                          .user = "1:2",
                                          .nofile = 1ULL << 40,
                                          .memory_bytes = 3ULL << 33,
                                          .profile = SECURITY_COMPAT,
                                          .tty = true,
                                          .rows = 25,
                                          .cols = 65535 };

static void test_program(void **state)
{
        AUTO(program_done) struct program p = { .text = NULL };
        AUTO(fd) int fd = program_write(&full, filter, NULL);
        const struct sandbox_spec *s = &p.spec;

        (void) state;
        assert_true(fd >= 0);
        assert_int_equal(program_read(fd, &p, NULL), 0);
        assert_string_equal(s->hostname, "box");
        assert_string_equal(s->argv_field, "cmd");
        assert_string_equal(s->cwd, "/w");
        assert_string_equal(s->user, "1:2");
        assert_true(s->nofile == full.nofile && s->memory_bytes == full.memory_bytes && s->tty);
        assert_int_equal(s->profile, SECURITY_COMPAT);
        assert_int_equal(p.filter->len, 2);
        assert_memory_equal(p.filter->insn, filter->insn, 2 * sizeof *filter->insn);
        assert_int_equal(s->rows, 25);
        assert_int_equal(s->cols, 65535);
        assert_int_equal(strv_len(s->argv), 3);
        assert_string_equal(s->argv[1], "");
        assert_string_equal(s->argv[2], "a b");
        assert_int_equal(strv_len(s->env), 2);
        assert_string_equal(s->env[1], "EMPTY=");
        assert_int_equal(s->n_files, 2);
        assert_string_equal(s->files[0].content, "127.0.0.1\n");
        assert_true(s->files[1].if_absent && !s->files[0].if_absent && s->files[1].mode == 0600);
        assert_int_equal(s->n_binds, 2);
        assert_string_equal(s->binds[1].target, "@lib/1");
        assert_true(s->binds[1].host && !s->binds[0].host);
        assert_int_equal(s->n_symlinks, 2);
        assert_string_equal(s->symlinks[1].target, "c.1");
        assert_string_equal(s->symlinks[1].link, "@lib/c");
        assert_int_equal(s->n_libraries, 2);
        assert_string_equal(s->libraries[1].path, "@lib32/c.1");
        assert_true(s->libraries[1].is_32 && !s->libraries[0].is_32);
}

/* The least that there is, and what a spec may leave out. */
static void test_bare_program(void **state)
{
        char *const one[] = { (char[]){ "x" }, NULL }, *const none[] = { NULL };
        const struct sandbox_spec s = { .argv = one, .env = none, .profile = SECURITY_STANDARD };
        AUTO(program_done) struct program p = { .text = NULL };
        AUTO(fd) int fd = program_write(&s, filter, NULL);

        (void) state;
        assert_int_equal(program_read(fd, &p, NULL), 0);
        assert_string_equal(p.spec.argv[0], "x");
        assert_null(p.spec.env[0]);
        assert_true(str_empty(p.spec.cwd) && str_empty(p.spec.user) && !p.spec.tty);
        assert_true(p.spec.n_files == 0 && p.spec.n_binds == 0 && p.spec.n_libraries == 0);
}

static void test_too_large(void **state)
{
        enum { MANY = 65537 };
        AUTO(free) char **many = calloc(MANY + 1, sizeof *many);
        struct sandbox_spec s = full;

        (void) state;
        assert_non_null(many);
        for (size_t i = 0; i < MANY; i++)
                many[i] = argv[0];
        s.env = many;
        assert_int_equal(program_write(&s, filter, NULL), -E2BIG);
        s = full;
        s.n_binds = SANDBOX_BINDS_MAX + 1;
        assert_int_equal(program_write(&s, filter, NULL), -E2BIG);
}

/* Cut anywhere, or with something behind: refused, and nothing is read beyond the end. */
static void test_cut_program(void **state)
{
        AUTO(fd) int fd = program_write(&full, filter, NULL);
        off_t len = lseek(fd, 0, SEEK_END);
        struct program p = { .text = NULL };
        int before = next_fd();

        (void) state;
        assert_int_equal(write(fd, "", 1), 1);
        assert_int_equal(program_read(fd, &p, NULL), -EPROTO);
        while (len-- > 0) {
                assert_int_equal(ftruncate(fd, len), 0);
                assert_int_equal(program_read(fd, &p, NULL), -EPROTO);
        }
        assert_null(p.text);
        assert_int_equal(next_fd(), before);
        assert_true(program_read(-EBADF, &p, NULL) < 0);
}

/* ---- notes */

struct pair {
        int a, b;
};

static struct pair make_pair(void)
{
        int s[2];

        assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, s), 0);
        return (struct pair){ s[0], s[1] };
}

static void close_pair(struct pair p)
{
        (void) close(p.a);
        (void) close(p.b);
}

/* Every set of descriptors keeps its places. */
static void test_places(void **state)
{
        struct pair p = make_pair();
        int before = next_fd();

        (void) state;
        for (unsigned set = 0; set < 1U << NOTE_FDS; set += 1 + set / 16) {
                struct note n = { .type = NOTE_ORDER }, m = { .type = NOTE_NONE };
                int fds[NOTE_FDS], got[NOTE_FDS];

                for (size_t i = 0; i < NOTE_FDS; i++)
                        fds[i] = set & (1U << i) ? p.a : -EBADF;
                assert_int_equal(note_send(p.a, &n, fds, NOTE_FDS), 0);
                assert_int_equal(note_recv(p.b, &m, got), 1);
                assert_int_equal(m.type, NOTE_ORDER);
                for (size_t i = 0; i < NOTE_FDS; i++)
                        assert_true(set & (1U << i) ? got[i] >= 0 : got[i] == -EBADF);
                note_close(got);
        }
        assert_int_equal(next_fd(), before);
        close_pair(p);
}

/* What came @len long and claims the descriptors @claim, with @n_fds. */
static int odd_note(size_t len, uint32_t claim, size_t n_fds)
{
        struct pair p = make_pair();
        struct note n = { .type = NOTE_GO, .fds = claim }, m;
        union {
                struct cmsghdr h;
                char buf[CMSG_SPACE(32 * sizeof(int))];
        } c = { .buf = { 0 } };
        char text[2 * sizeof n] = { 0 };
        struct iovec v = { text, len };
        struct msghdr msg = { .msg_iov = &v, .msg_iovlen = 1 };
        int before = next_fd(), fds[32], got[NOTE_FDS], r;

        memcpy(text, &n, sizeof n);
        for (size_t i = 0; i < n_fds; i++)
                fds[i] = p.a;
        if (n_fds) {
                msg.msg_control = &c;
                msg.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
                c.h.cmsg_level = SOL_SOCKET;
                c.h.cmsg_type = SCM_RIGHTS;
                c.h.cmsg_len = CMSG_LEN(n_fds * sizeof(int));
                memcpy(CMSG_DATA(&c.h), fds, n_fds * sizeof(int));
        }
        assert_int_equal(sendmsg(p.a, &msg, 0), len);
        r = note_recv(p.b, &m, got);
        if (r > 0)
                note_close(got);
        assert_int_equal(next_fd(), before);
        close_pair(p);
        return r;
}

static void test_odd_notes(void **state)
{
        const size_t whole = sizeof(struct note);

        (void) state;
        assert_int_equal(odd_note(whole, 5, 2), 1);
        assert_int_equal(odd_note(whole, 5, 1), -EPROTO);
        assert_int_equal(odd_note(whole, 1U << 31 | 1, 2), -EPROTO);
        assert_int_equal(odd_note(whole, UINT32_MAX, 32), -EPROTO);
        assert_int_equal(odd_note(whole - 1, 1, 1), -EPROTO);
        assert_int_equal(odd_note(1, 0, 3), -EPROTO);
        assert_int_equal(odd_note(whole + 1, 1, 1), -EPROTO);
        /* more than the note names are closed, and it is taken */
        assert_int_equal(odd_note(whole, 1, 3), 1);
}

/* ---- birth */

static void test_birth(void **state)
{
        const struct slice_enter group = { .v2_dir = -EBADF, .v1_tasks = { 11, 12 }, .n_v1 = 2 };
        const struct sandbox_place place = {
                .id_base = 65536, .monitor_uid = 7, .netns = 8, .sysfs_mnt = -EBADF, .slice = &group
        };
        const struct cgroup_view view = { .list = { "cpu,cpuacct" }, .n = 1 };
        const struct launch l = { .place = &place,
                                  .join = -EBADF,
                                  .program = 20,
                                  .up = 21,
                                  .report = 22,
                                  .mnt = { 23, 24, 25, 26, 27 },
                                  .view = &view };
        AUTO(fd) int fd = -EBADF;
        struct birth b;
        off_t len;

        (void) state;
        fd = birth_write(&l, NULL);
        assert_true(fd >= 0);
        len = lseek(fd, 0, SEEK_END);
        assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
        assert_int_equal(birth_read(fd, &b, NULL), 0);
        assert_int_equal(b.launch.join, -EBADF);
        assert_int_equal(b.launch.report, 22);
        assert_int_equal(b.launch.mnt[MNT_CGROUP], 27);
        assert_int_equal(b.launch.place->id_base, 65536);
        assert_int_equal(b.launch.place->netns, 8);
        assert_int_equal(b.launch.place->slice->v1_tasks[1], 12);
        assert_int_equal(b.launch.place->monitor_slice->v2_dir, -EBADF);
        assert_int_equal(b.launch.place->monitor_slice->n_v1, 0);
        assert_string_equal(b.launch.view->list[0], "cpu,cpuacct");
        assert_int_equal(ftruncate(fd, len - 1), 0);
        assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
        assert_int_equal(birth_read(fd, &b, NULL), -EPROTO);
        assert_int_equal(pwrite(fd, "?", 1, 11), 1); /* the version */
        assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
        assert_int_equal(birth_read(fd, &b, NULL), -EPROTO);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_program),   cmocka_unit_test(test_bare_program),
                cmocka_unit_test(test_too_large), cmocka_unit_test(test_cut_program),
                cmocka_unit_test(test_places),    cmocka_unit_test(test_odd_notes),
                cmocka_unit_test(test_birth),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
