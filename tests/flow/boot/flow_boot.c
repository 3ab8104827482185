/* flow_boot.c - the boot flow over the real modules and the real kernel: every stage failing in turn,
 * every stage killed in turn, and undo from names alone.
 *
 * As in the engine, each boot and each undo is a process of its own, and the undo knows nothing but
 * the names.  Held against an inventory of the host before and after. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/str.h"
#include "engine/claim/claim.h"
#include "engine/disk/disk.h"
#include "engine/idmap.h"
#include "world.h"

#define CLUSTER "flowboot"
#define WAIT_US (5 * US_PER_S) /* the kernel's own work after a kill */

static struct world world; /* one host for all tests; each leaves it as it was */

/* What a boot takes from the engine: a slot, and perhaps what a pool has ready. */
struct attempt {
        uint64_t number;
        uint32_t slot;
        bool pooled;
};

static struct attempt next_attempt(bool pooled)
{
        static uint64_t number;
        struct attempt a = { .number = ++number, .pooled = pooled };
        struct err e = { 0 };

        if (claim_slot(world.host.claims, CLUSTER, 1, &a.slot, &e) < 0)
                fail_msg("%s", e.msg);
        return a;
}

static int take_from_pool(struct boot *b, struct err *e)
{
        int r = boot_prepare(b, e);

        (void) snprintf(b->disk_pool_name, sizeof b->disk_pool_name, "pool-1-%u.img", b->slot);
        if (r >= 0)
                r = disk_make_fast(world.host.disks, b->disk_pool_name, 1ULL << 30, e);
        if (r >= 0)
                r = b->disk_mnt = disk_mount(world.host.disks, b->disk_pool_name, 0, e);
        return r;
}

static int fill_boot(struct boot *b, const struct attempt *a, struct err *e)
{
        static const char *const command[] = { "/bin/sleep", "1000" };

        boot_init(b, &world.host);
        b->attempt = a->number;
        b->slot = a->slot;
        (void) snprintf(b->claim, sizeof b->claim, "%s", CLUSTER);
        b->plan.cluster = strdup(CLUSTER);
        b->plan.generation = 1;
        b->plan.account = strdup("test");
        b->plan.name = strdup(CLUSTER);
        b->plan.image = strdup("img");
        b->plan.vcpu = 1;
        b->plan.memory_mib = 128;
        b->plan.container_disk_gib = 1;
        b->plan.volume_gib = 1;
        b->plan.volume_path = strdup("/workspace");
        b->image.id = 1;
        b->image.meta_sha = strdup(world.meta_sha);
        if (!b->image.meta_sha)
                return -ENOMEM;
        for (size_t i = 0; i < NELEM(command); i++)
                if (strv_push(&b->plan.command, command[i]) < 0)
                        return -ENOMEM;
        return a->pooled ? take_from_pool(b, e) : 0;
}

/* What a boot is told to do beside booting. */
struct trouble {
        const char *fail_at;   /* this stage fails when its work is done */
        const char *kill_at;   /* the process dies before this stage */
        const char *orphan_at; /* a process of the shell is killed before this stage */
        bool launcher;         /* that one, not the first process */
        const struct boot *boot;
};

static void kill_of_shell(const struct trouble *t)
{
        const struct sandbox_shell *s = &t->boot->shell;
        struct pollfd gone = { .fd = t->launcher ? s->launcher_pidfd : s->first_pidfd,
                               .events = POLLIN };

        (void) syscall(SYS_pidfd_send_signal, gone.fd, SIGKILL, NULL, 0);
        (void) poll(&gone, 1, -1);
}

static void on_stage(void *arg, const char *stage)
{
        const struct trouble *t = arg;

        if (str_eq(t->kill_at, stage))
                (void) kill(getpid(), SIGKILL);
        if (str_eq(t->orphan_at, stage))
                kill_of_shell(t);
}

/* A boot in a process of its own; its wait status.  Exit status 1: it failed as it was told to, 3: it
 * asks for a second try. */
static int boot_in_child(const struct attempt *a, struct trouble t)
{
        pid_t pid = fork();
        int status = 0;

        assert_true(pid >= 0);
        if (pid == 0) {
                AUTO(free) char *want = str_fmt("%s: told to fail", t.fail_at ? t.fail_at : "");
                struct err e = { 0 };
                struct boot b;
                int r = fill_boot(&b, a, &e);

                b.fail_at = t.fail_at;
                t.boot = &b;
                if (r >= 0)
                        r = boot_run(&b, on_stage, &t, &e);
                if (r == -EOWNERDEAD)
                        _exit(3);
                if (r < 0 && !str_eq(e.msg, want))
                        (void) fprintf(stderr, "boot: %s\n", e.msg);
                _exit(r >= 0 ? 0 : str_eq(e.msg, want) ? 1 : 2);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        return status;
}

/* The way back in another process, from names alone. */
static void undo_in_child(const struct attempt *a, bool volume)
{
        pid_t pid = fork();
        int status = 0;

        assert_true(pid >= 0);
        if (pid == 0) {
                struct err e = { 0 };
                struct boot b;

                boot_init(&b, &world.host);
                b.attempt = a->number;
                b.slot = a->slot;
                (void) snprintf(b.claim, sizeof b.claim, "%s", CLUSTER);
                b.plan.cluster = strdup(CLUSTER);
                b.plan.generation = 1;
                if (boot_undo(&b, false, volume, &e) < 0)
                        (void) fprintf(stderr, "undo: %s\n", e.msg);
                _exit(e.code < 0 ? 1 : 0);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
}

/* A pool's disk that no boot took over is its engine's to remove. */
static void drop_pool_disk(const struct attempt *a)
{
        char name[64];

        (void) snprintf(name, sizeof name, "pool-1-%u.img", a->slot);
        (void) disk_remove(world.host.disks, name);
}

/* Everything is as it was; the kernel may take a moment for the last of it. */
static void assert_held(const char *want, const char *when)
{
        uint64_t until = clock_mono_us() + WAIT_US;

        for (;;) {
                AUTO(free) char *now = world_held(&world);

                if (str_eq(now, want))
                        return;
                if (clock_mono_us() > until)
                        fail_msg("%s: held is\n%sand should be\n%s", when, now, want);
                (void) usleep(5000);
        }
}

static void fail_each(bool pooled)
{
        for (size_t i = 0; boot_stage_names[i]; i++) {
                const char *stage = boot_stage_names[i];
                struct attempt a = next_attempt(pooled);
                int status = boot_in_child(&a, (struct trouble){ .fail_at = stage });

                if (!WIFEXITED(status) || WEXITSTATUS(status) != 1)
                        fail_msg("%s: did not fail as told: 0x%x", stage, (unsigned) status);
                drop_pool_disk(&a);
                undo_in_child(&a, true);
                assert_held("", stage);
        }
}

static void test_every_stage_fails(void **state)
{
        (void) state;
        fail_each(false);
}

static void test_every_stage_fails_pooled(void **state)
{
        (void) state;
        fail_each(true);
}

static void kill_each(bool pooled)
{
        for (size_t i = 0; boot_stage_names[i]; i++) {
                const char *stage = boot_stage_names[i];
                struct attempt a = next_attempt(pooled);
                int status = boot_in_child(&a, (struct trouble){ .kill_at = stage });

                if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
                        fail_msg("%s: was not killed: 0x%x", stage, (unsigned) status);
                drop_pool_disk(&a);
                undo_in_child(&a, true);
                assert_held("", stage);
        }
}

static void test_every_stage_is_killed(void **state)
{
        (void) state;
        kill_each(false);
        kill_each(true);
}

/* Whichever of the two is killed while a boot has them, and whenever: it is tried again. */
static void test_the_shell_is_killed(void **state)
{
        size_t stages = 0;

        (void) state;
        while (!str_eq(boot_stage_names[stages], "image"))
                stages++;
        for (; boot_stage_names[stages]; stages++)
                for (int launcher = 0; launcher < 2; launcher++) {
                        const char *stage = boot_stage_names[stages];
                        struct attempt a = next_attempt(launcher);
                        int status = boot_in_child(
                                &a, (struct trouble){ .orphan_at = stage, .launcher = launcher });

                        if (!WIFEXITED(status) || WEXITSTATUS(status) != 3)
                                fail_msg("%s: no second try: 0x%x", stage, (unsigned) status);
                        drop_pool_disk(&a);
                        undo_in_child(&a, true);
                        assert_held("", stage);
                }
}

/* A failed boot keeps the volume, and its content, for the next one. */
static void test_the_volume_stays(void **state)
{
        static const char mark[] = "kept for the next boot";
        char got[sizeof mark] = "";
        AUTO(fd) int fd = -EBADF;

        (void) state;
        for (size_t i = 0; boot_stage_names[i]; i++) {
                struct attempt a = next_attempt(false);
                int status = boot_in_child(&a, (struct trouble){ .fail_at = boot_stage_names[i] });
                struct err e = { 0 };

                assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 1);
                undo_in_child(&a, false);
                if (strcmp(boot_stage_names[i], "disk") == 0) {
                        AUTO(fd)
                        int mnt = disk_mount(world.host.volumes, CLUSTER ".img",
                                             clock_mono_us() + WAIT_US, &e);
                        AUTO(fd) int f = openat(mnt, "f", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

                        assert_int_equal(write(f, mark, sizeof mark), sizeof mark);
                }
        }
        {
                struct err e = { 0 };
                AUTO(fd)
                int mnt = disk_mount(world.host.volumes, CLUSTER ".img", clock_mono_us() + WAIT_US,
                                     &e);

                fd = openat(mnt, "f", O_RDONLY | O_CLOEXEC);
                assert_int_equal(read(fd, got, sizeof got), sizeof got);
                assert_string_equal(got, mark);
                fd = fd_close(fd);
        }
        assert_held("log " CLUSTER "\nvolume " CLUSTER ".img\n", "volume kept");
        {
                struct attempt a = next_attempt(false);

                undo_in_child(&a, true);
        }
        assert_held("", "volume removed");
}

/* A boot that worked runs on without the process that made it, until it is undone; twice. */
static void test_boot_and_undo(void **state)
{
        (void) state;
        for (int pooled = 0; pooled < 2; pooled++) {
                struct attempt a = next_attempt(pooled);
                AUTO(free) char *running = NULL;
                char name[32];
                pid_t pids[8];
                struct err e = { 0 };

                assert_int_equal(boot_in_child(&a, (struct trouble){ .fail_at = NULL }), 0);
                running = world_held(&world);
                for (const char *const *p =
                             (const char *const[]){ "slot ", "group c", "group m", "link hv",
                                                    "element hv", "disk " CLUSTER,
                                                    "volume " CLUSTER, "log " CLUSTER,
                                                    "run file c-", "loop on ", NULL };
                     *p; p++)
                        if (!strstr(running, *p))
                                fail_msg("there is no '%s' in\n%s", *p, running);
                (void) snprintf(name, sizeof name, "c%u", a.slot);
                assert_int_equal(slice_pids(world.host.slices, name, pids, NELEM(pids), &e), 1);
                (void) snprintf(name, sizeof name, "m%u", a.slot);
                assert_int_equal(slice_pids(world.host.slices, name, pids, NELEM(pids), &e), 1);
                undo_in_child(&a, true);
                undo_in_child(&a, true);
                assert_held("", "after undo");
        }
}

/* The undo of a boot that never began. */
static void test_undo_of_nothing(void **state)
{
        struct attempt a = next_attempt(false);

        (void) state;
        undo_in_child(&a, true);
        assert_held("", "undo of nothing");
        a.slot = 0; /* a row that holds no slot */
        undo_in_child(&a, true);
        assert_held("", "undo without a slot");
}

/* Beside another cluster's boot, an undo touches nothing of that one. */
static void test_undo_leaves_others_alone(void **state)
{
        struct attempt mine = next_attempt(false), other = { .number = 1 << 20 };
        AUTO(free) char *before = NULL, *after = NULL;
        struct err e = { 0 };

        (void) state;
        assert_int_equal(boot_in_child(&mine, (struct trouble){ .fail_at = NULL }), 0);
        before = world_held(&world);
        if (claim_slot(world.host.claims, "other", 1, &other.slot, &e) < 0)
                fail_msg("%s", e.msg);
        assert_true(other.slot != mine.slot);
        {
                struct boot b;

                boot_init(&b, &world.host);
                b.attempt = other.number;
                b.slot = other.slot;
                (void) snprintf(b.claim, sizeof b.claim, "other");
                b.plan.cluster = b.claim;
                if (boot_undo(&b, false, true, &e) < 0)
                        fail_msg("%s", e.msg);
        }
        after = world_held(&world);
        assert_string_equal(before, after);
        undo_in_child(&mine, true);
        assert_held("", "after undo");
}

static int set_up(void **state)
{
        char self[PATH_MAX];
        ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
        AUTO(free) char *libexec = NULL;
        struct err e = { 0 };

        (void) state;
        self[n < 0 ? 0 : n] = '\0';
        libexec = str_fmt("%s/../../..", dirname(self));
        if (libexec && world_open(&world, libexec, &e) >= 0)
                return 0;
        (void) fprintf(stderr, "flow_boot: %s\n", e.msg);
        return -1;
}

static int tear_down(void **state)
{
        struct err e = { 0 };

        (void) state;
        if (world_close(&world, &e) >= 0)
                return 0;
        (void) fprintf(stderr, "flow_boot: %s\n", e.msg);
        return -1;
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_every_stage_fails),
                cmocka_unit_test(test_every_stage_fails_pooled),
                cmocka_unit_test(test_every_stage_is_killed),
                cmocka_unit_test(test_the_shell_is_killed),
                cmocka_unit_test(test_the_volume_stays),
                cmocka_unit_test(test_boot_and_undo),
                cmocka_unit_test(test_undo_of_nothing),
                cmocka_unit_test(test_undo_leaves_others_alone),
        };

        if (geteuid() != 0) {
                (void) fprintf(stderr, "flow_boot: must be root\n");
                return 1;
        }
        return cmocka_run_group_tests(tests, set_up, tear_down);
}
