/* flow_holders.c - a device that anybody in a group still has is found, wherever it is kept: or it
 * would be another tenant's and theirs.  /dev/fuse stands in for a GPU: it opens without harm. */
#include "engine/boot/holders.h"

#include "flow.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>

#include "engine/slice/slice.h"

#define DEVICE "/dev/fuse"

static const struct slice_device fuse = { 'c', 10, 229, "rw" };
static const struct slice_device may_open[] = { { 'c', 10, 229, "rw" }, { 'b', -1, -1, "rw" } };

struct world {
        struct slice_host *h;
        char instance[16];
        int say[2]; /* the child has come so far */
};

static int world_up(void **state)
{
        struct world *w = calloc(1, sizeof *w);
        struct err e = { 0 };

        if (!w || pipe2(w->say, O_CLOEXEC) < 0)
                return -1;
        (void) snprintf(w->instance, sizeof w->instance, "hold%d", (int) getpid());
        if (slice_host_open(w->instance, 0, &w->h, &e) < 0) {
                print_error("%s\n", e.msg);
                return -1;
        }
        *state = w;
        return 0;
}

static int world_down(void **state)
{
        struct world *w = *state;
        struct err e = { 0 };

        if (slice_kill(w->h, "g", clock_mono_us() + 5 * US_PER_S, &e) < 0 ||
            slice_remove(w->h, "g", &e) < 0 || slice_host_remove(w->h, &e) < 0) {
                print_error("%s\n", e.msg);
                return -1;
        }
        while (waitpid(-1, NULL, WNOHANG) > 0)
                ;
        w->h = slice_host_close(w->h);
        (void) close(w->say[0]);
        (void) close(w->say[1]);
        free(w);
        return 0;
}

static void said(const struct world *w)
{
        (void) !write(w->say[1], "x", 1);
        for (;;)
                (void) pause();
}

static void start(struct world *w, void (*fn)(struct world *))
{
        struct slice_enter in;
        char c = 0;
        pid_t pid;

        ok(slice_enter_open(w->h, "g", &in, &flow_err));
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
                if (slice_enter_self(&in) < 0)
                        _exit(99);
                slice_enter_done(&in);
                (void) alarm(60);
                fn(w);
                _exit(0);
        }
        slice_enter_done(&in);
        assert_int_equal(read(w->say[0], &c, 1), 1);
        assert_int_equal(c, 'x');
}

/* ---- how it can be kept ---- */

static void nothing(struct world *w)
{
        (void) !open("/dev/null", O_RDWR);
        (void) !open("/dev/urandom", O_RDONLY);
        said(w);
}

static void path_only(struct world *w)
{
        (void) !open(DEVICE, O_PATH);
        said(w);
}

static void opened(struct world *w)
{
        if (open(DEVICE, O_RDWR) < 0)
                _exit(1);
        said(w);
}

static void in_a_child(struct world *w)
{
        int fd = open(DEVICE, O_RDWR);

        if (fork() == 0 && fork() == 0)
                said(w);
        (void) close(fd);
        for (;;)
                (void) pause();
}

static void *thread(void *arg)
{
        if (unshare(CLONE_FILES) == 0 && open(DEVICE, O_RDWR) >= 0)
                said(arg);
        return NULL;
}

/* A thread with descriptors that its process does not have. */
static void in_a_thread(struct world *w)
{
        pthread_t t;

        if (pthread_create(&t, NULL, thread, w) == 0)
                (void) pthread_join(t, NULL);
}

static void send_it(int to)
{
        int fd = open(DEVICE, O_RDWR);
        union {
                char buf[CMSG_SPACE(sizeof(int))];
                struct cmsghdr align;
        } u = { { 0 } };
        struct iovec io = { .iov_base = "x", .iov_len = 1 };
        struct msghdr m = { .msg_iov = &io,
                            .msg_iovlen = 1,
                            .msg_control = u.buf,
                            .msg_controllen = sizeof u.buf };

        u.align = (struct cmsghdr){ .cmsg_level = SOL_SOCKET,
                                    .cmsg_type = SCM_RIGHTS,
                                    .cmsg_len = CMSG_LEN(sizeof(int)) };
        memcpy(CMSG_DATA(&u.align), &fd, sizeof fd);
        if (fd < 0 || sendmsg(to, &m, 0) != 1)
                _exit(1);
        (void) close(fd);
}

static void in_a_socket(struct world *w)
{
        int pair[2];

        if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0)
                _exit(1);
        send_it(pair[0]);
        said(w);
}

static void in_a_datagram(struct world *w)
{
        int pair[2];

        if (socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) < 0)
                _exit(1);
        send_it(pair[0]);
        (void) close(pair[0]);
        said(w);
}

/* Sent to somebody who has not accepted the connection yet, by one who has hung up. */
static void before_it_is_accepted(struct world *w)
{
        struct sockaddr_un a = { .sun_family = AF_UNIX };
        int listener = socket(AF_UNIX, SOCK_STREAM, 0), client = socket(AF_UNIX, SOCK_STREAM, 0);

        (void) snprintf(a.sun_path + 1, sizeof a.sun_path - 1, "flow-holders-%d", (int) getpid());
        if (bind(listener, (struct sockaddr *) &a, sizeof a) < 0 || listen(listener, 1) < 0 ||
            connect(client, (struct sockaddr *) &a, sizeof a) < 0)
                _exit(1);
        send_it(client);
        (void) close(client);
        said(w);
}

/* A socket whose description is longer than anybody reads: the number of its files comes last. */
static void behind_many_locks(struct world *w)
{
        struct flock k = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1 };
        int pair[2];

        if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0)
                _exit(1);
        send_it(pair[0]);
        for (int i = 0; i < 4000; i++, k.l_start += 2)
                if (fcntl(pair[1], F_SETLK, &k) < 0)
                        _exit(1);
        said(w);
}

/* Block devices stand in for what can be mapped. */
static void map_it(void)
{
        const char *const names[] = { "/dev/loop0", "/dev/vda", "/dev/sda", "/dev/nvme0n1" };
        int fd = -1;

        for (size_t i = 0; i < NELEM(names) && fd < 0; i++)
                fd = open(names[i], O_RDONLY);
        if (fd < 0 || mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0) == MAP_FAILED)
                _exit(1);
        (void) close(fd);
}

static void mapped(struct world *w)
{
        map_it();
        said(w);
}

static void *wait_for_the_first(void *arg)
{
        char path[64], text[512] = "";

        (void) snprintf(path, sizeof path, "/proc/self/task/%d/stat", (int) getpid());
        while (!strstr(text, ") Z")) {
                int fd = open(path, O_RDONLY);

                (void) !read(fd, text, sizeof text - 1);
                (void) close(fd);
                (void) usleep(1000);
        }
        said(arg);
        return NULL;
}

/* A process without its first thread has no mappings under its own number. */
static void mapped_and_first_thread_gone(struct world *w)
{
        pthread_t t;

        map_it();
        if (pthread_create(&t, NULL, wait_for_the_first, w) == 0)
                (void) syscall(SYS_exit, 0);
}

static void test_holders(void **state)
{
        static const struct {
                const char *name, *word;
                void (*fn)(struct world *);
        } t[] = {
                { "nothing", NULL, nothing },
                { "path only", NULL, path_only },
                { "opened", "GPU open", opened },
                { "in a child of a child", "GPU open", in_a_child },
                { "in a thread", "GPU open", in_a_thread },
                { "in a socket", "a socket", in_a_socket },
                { "in a datagram", "a socket", in_a_datagram },
                { "before it is accepted", "a socket", before_it_is_accepted },
                { "behind many locks", "a socket", behind_many_locks },
                { "mapped", "GPU mapped", mapped },
                { "mapped, first thread gone", "GPU mapped", mapped_and_first_thread_gone },
        };
        struct world *w = *state;

        for (size_t i = 0; i < NELEM(t); i++) {
                struct err e = { 0 };
                int r;

                ok(slice_create_bare(w->h, "g", &flow_err));
                ok(slice_devices(w->h, "g", may_open, NELEM(may_open), &flow_err));
                start(w, t[i].fn);
                ok(slice_freeze(w->h, "g", clock_mono_us() + 5 * US_PER_S, &flow_err));
                r = holders_check(w->h, "g", NULL, 0, &e);
                if (r != (t[i].word ? -EBUSY : 0) || (t[i].word && !strstr(e.msg, t[i].word)))
                        fail_msg("%s: r=%d '%s'", t[i].name, r, e.msg);
                if (t[i].word) /* by name, for people */
                        assert_non_null(strstr(e.msg, "(flow_holders)"));
                if (t[i].word &&
                    strstr(t[i].word, "GPU open")) /* and nobody minds it where it may be */
                        assert_int_equal(holders_check(w->h, "g", &fuse, 1, &e), 0);
                ok(slice_thaw(w->h, "g", &flow_err));
                ok(slice_kill(w->h, "g", clock_mono_us() + 5 * US_PER_S, &flow_err));
                ok(slice_remove(w->h, "g", &flow_err));
        }
}

int main(int argc, char **argv)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_holders, world_up, world_down),
        };

        return flow_main(argc, argv, tests, NELEM(tests));
}
