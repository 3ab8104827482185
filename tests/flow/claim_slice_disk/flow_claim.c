/* flow_claim.c - several engines on one machine: shares, kills, and taking back.
 *
 * Each test runs in a mount namespace of its own with an empty /run, so that the machine's own
 * /run/hypervisor-vmm is neither used nor changed. */
#include "flow.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>

#include "base/str.h"
#include "engine/claim/claim_priv.h"
#include "model/limits.h"

#define RUN "/run/hypervisor-vmm"

struct world {
        char dir[40]; /* data directories a, b, ... are made below */
        struct instance a, b;
        char paths[2][64];
};

static void instance_make(struct world *w, struct instance *i, char *path, const char *id)
{
        (void) snprintf(i->id, sizeof i->id, "%s", id);
        (void) snprintf(path, 64, "%s/%s", w->dir, id);
        (void) mkdir(path, 0700);
        i->data_dir = path;
}

static int world_up(void **state)
{
        struct world *w = calloc(1, sizeof *w);

        if (!w || unshare(CLONE_NEWNS) < 0 ||
            mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
            mount("tmpfs", "/run", "tmpfs", 0, "mode=755") < 0)
                return -1;
        (void) snprintf(w->dir, sizeof w->dir, "/var/tmp/flow-claim-XXXXXX");
        if (!mkdtemp(w->dir))
                return -1;
        instance_make(w, &w->a, w->paths[0], "flowaaaa");
        instance_make(w, &w->b, w->paths[1], "flowbbbb");
        *state = w;
        return 0;
}

static int world_down(void **state)
{
        struct world *w = *state;

        (void) fd_rm_rf(AT_FDCWD, w->dir);
        free(w);
        return umount2("/run", MNT_DETACH);
}

static struct claim_host *open_ok(const struct instance *i)
{
        struct claim_host *c = NULL;

        ok(claim_open(i, &c, &flow_err));
        return c;
}

static uint32_t slot_ok(struct claim_host *c, const char *cluster, uint64_t generation)
{
        uint32_t slot = 0;

        ok(claim_slot(c, cluster, generation, &slot, &flow_err));
        assert_in_range(slot, 1, LIMIT_SLOTS);
        return slot;
}

static int count_claims(void *arg, const char *kind, uint32_t number, const char *cluster,
                        uint64_t generation)
{
        (void) kind;
        (void) number;
        (void) cluster;
        (void) generation;
        ++*(unsigned *) arg;
        return 0;
}

static unsigned claims(struct claim_host *c)
{
        unsigned n = 0;

        assert_int_equal(claim_each(c, count_claims, &n), 0);
        return n;
}

static void test_slots(void **state)
{
        struct world *w = *state;
        AUTO(claim_close) struct claim_host *a = open_ok(&w->a), *b = open_ok(&w->b);
        uint32_t slot = 77;

        assert_int_equal(slot_ok(a, "one", 5), 1);
        assert_int_equal(slot_ok(b, "one", 5), 2); /* the same cluster name on another engine */
        assert_int_equal(slot_ok(a, "one", 5), 1); /* again: the same */
        assert_int_equal(slot_ok(a, "one", 6), 1);
        assert_int_equal(claim_slot(a, "one", 5, &slot, &flow_err), -ESTALE);
        assert_int_equal(slot, 77);
        ok(claim_release(a, "one", 5, &flow_err)); /* late, of an older generation: kept */
        assert_int_equal(slot_ok(a, "one", 6), 1);
        ok(claim_release(b, "two", 99, &flow_err)); /* nothing of that name */
        ok(claim_release(a, "one", 6, &flow_err));
        ok(claim_release(a, "one", 6, &flow_err));
        assert_int_equal(slot_ok(a, "two", 1), 3); /* 1 rests for a while */
        assert_int_equal(claims(a), 1);
        assert_int_equal(claims(b), 1);
        assert_int_equal(claim_slot(a, "UPPER", 1, &slot, &flow_err), -EINVAL);
        assert_int_equal(claim_slot(a, "a/b", 1, &slot, &flow_err), -EINVAL);
}

static bool odd_is_taken(void *arg, uint16_t port)
{
        (void) arg;
        return port % 2 == 1;
}

static bool none_is_taken(void *arg, uint16_t port)
{
        (void) arg;
        (void) port;
        return false;
}

#define PORTS(...)                                                                                 \
        (uint16_t[])                                                                               \
        {                                                                                          \
                __VA_ARGS__                                                                        \
        }
#define SAME(p, ...) assert_memory_equal(p, PORTS(__VA_ARGS__), sizeof PORTS(__VA_ARGS__))

/* One claim for each of the host's ports, whoever asks. */
static void test_ports(void **state)
{
        struct world *w = *state;
        AUTO(claim_close) struct claim_host *a = open_ok(&w->a), *b = open_ok(&w->b);
        uint16_t p[4] = { 0 }, q[4] = { 0 }, all[LIMIT_PORTS + 1] = { 0 };
        struct err e = { 0 };

        ok(claim_ports(a, "one", 5, 3000, 3009, none_is_taken, NULL, p, 2, &e));
        SAME(p, 3000, 3001);
        ok(claim_ports(b, "one", 5, 3000, 3009, none_is_taken, NULL, q, 2, &e));
        SAME(q, 3002, 3003);
        ok(claim_ports(a, "one", 6, 3000, 3009, none_is_taken, NULL, p, 2,
                       &e)); /* the same again */
        SAME(p, 3000, 3001);
        memcpy(q, PORTS(0, 3001, 3004, 0),
               sizeof q); /* a wish is not given to another of the list */
        ok(claim_ports(b, "two", 1, 3000, 3009, none_is_taken, NULL, q, 4, &e));
        SAME(q, 3005, 3006, 3004, 3007);
        memset(q, 0, sizeof q);
        assert_int_equal(claim_ports(a, "two", 1, 3000, 3009, none_is_taken, NULL, q, 3, &e),
                         -ENOSPC);
        assert_int_equal(claims(a), 2);             /* all or none */
        ok(claim_release(a, "one", 99, &flow_err)); /* that of slots and CPUs leaves them */
        assert_int_equal(claims(a), 2);
        ok(claim_ports_keep(a, "one", PORTS(3001), 1, &flow_err));
        ok(claim_ports_keep(a, "one", PORTS(3001), 1, &flow_err));
        assert_int_equal(claims(a), 1);
        ok(claim_ports_keep(b, "two", NULL, 0, &flow_err));
        memset(q, 0, sizeof q);
        ok(claim_ports(a, "two", 1, 3000, 3009, none_is_taken, NULL, q, 3, &e));
        SAME(q, 3008, 3009, 3000); /* what has rested first, then what rests longest */
        ok(claim_ports_keep(a, "two", NULL, 0, &flow_err));
        ok(claim_ports_keep(a, "one", NULL, 0, &flow_err));
        memset(q, 0, sizeof q);
        ok(claim_ports(a, "two", 1, 3004, 3009, odd_is_taken, NULL, q, 3, &e));
        for (size_t i = 0; i < 3; i++)
                assert_int_equal(q[i] % 2, 0);
        memset(q, 0, sizeof q);
        assert_int_equal(claim_ports(a, "one", 1, 3004, 3009, odd_is_taken, NULL, q, 1, &e),
                         -ENOSPC);
        assert_int_equal(
                claim_ports(a, "one", 1, 3000, 3999, none_is_taken, NULL, all, NELEM(all), &e),
                -EINVAL);
        ok(claim_ports(a, "one", 1, 4000, 4999, none_is_taken, NULL, all, LIMIT_PORTS, &e));
        assert_int_equal(all[LIMIT_PORTS - 1], 4000 + LIMIT_PORTS - 1);
}

static void test_cpus(void **state)
{
        static const uint32_t low[] = { 0, 1, 2 }, mid[] = { 4, 5, 2 }, high[] = { 4, 5 };
        struct world *w = *state;
        AUTO(claim_close) struct claim_host *a = open_ok(&w->a), *b = open_ok(&w->b);
        struct err e = { 0 };

        ok(claim_cpus(a, "one", 1, low, NELEM(low), &flow_err));
        ok(claim_cpus(a, "one", 2, low, NELEM(low), &flow_err));
        assert_int_equal(claim_cpus(b, "two", 1, mid, NELEM(mid), &e), -EUSERS);
        assert_string_equal(e.msg, "cpu 2 is held by cluster one of instance flowaaaa");
        assert_int_equal(claims(b), 0); /* all or none */
        ok(claim_cpus(a, "three", 1, high, NELEM(high), &flow_err));
        ok(claim_release(a, "one", 1, &flow_err));
        assert_int_equal(claim_cpus(b, "two", 1, mid, NELEM(mid), &flow_err), -EUSERS);
        ok(claim_release(a, "one", 2, &flow_err));
        ok(claim_release(a, "three", 1, &flow_err));
        ok(claim_cpus(b, "two", 1, mid, NELEM(mid), &flow_err)); /* no rest for CPUs */
        assert_int_equal(claims(b), 3);
        assert_int_equal(claim_cpus(b, "two", 1, &(uint32_t){ 8192 }, 1, &flow_err), -EINVAL);
}

/* What one holds, the other sees, and is told when it changes. */
#define GPU(c) ((char[]){ "GPU-" c "0000000-1111-2222-3333-444444444444" })

static int elsewhere(struct claim_host *c)
{
        AUTO(strv_free) char **list = NULL;
        int n = claim_gpus_elsewhere(c, &list, &flow_err);

        assert_int_equal(n, strv_len(list));
        return n;
}

static void test_gpus(void **state)
{
        char *low[] = { GPU("0"), GPU("1"), NULL }, *mid[] = { GPU("2"), GPU("1"), NULL };
        char *odd[] = { GPU("3"), (char[]){ "../x" }, NULL };
        struct world *w = *state;
        AUTO(claim_close) struct claim_host *a = open_ok(&w->a), *b = open_ok(&w->b);
        AUTO(fd) int watch = claim_watch_open(b, &flow_err);
        struct err e = { 0 };

        ok(watch);
        ok(claim_gpus(a, "one", 1, low, &flow_err));
        assert_true(claim_watch_read(watch));
        assert_int_equal(elsewhere(b), 2);
        assert_int_equal(elsewhere(a), 0);
        ok(claim_gpus(a, "one", 2, low, &flow_err)); /* its own, of a newer generation */
        assert_int_equal(claim_gpus(a, "one", 1, low, &flow_err), -ESTALE);
        assert_int_equal(claim_gpus(b, "two", 1, mid, &e), -EUSERS);
        assert_non_null(strstr(e.msg, " is held by cluster one of instance flowaaaa"));
        assert_int_equal(claims(b), 0);                                       /* all or none */
        assert_int_equal(claim_gpus(a, "three", 1, mid, &flow_err), -EUSERS); /* a neighbour, too */
        assert_int_equal(claim_gpus(b, "two", 1, odd, &flow_err), -EINVAL);
        assert_int_equal(claims(b), 0);
        ok(claim_gpus_drop(a, "one", 1, NULL, &flow_err)); /* late, of an older generation: kept */
        assert_int_equal(claims(a), 2);
        ok(claim_release(a, "one", 2, &flow_err)); /* they are looked at first */
        assert_int_equal(claims(a), 2);
        /* a process that was killed between two steps: what is claimed does not change under it */
        assert_int_equal(link("/run/hypervisor-vmm/gpus/GPU-00000000-1111-2222-3333-444444444444",
                              "/run/hypervisor-vmm/gpus/.new"),
                         0);
        ok(claim_gpus(b, "two", 1, (char *[]){ GPU("7"), NULL }, &flow_err));
        assert_int_equal(elsewhere(b), 2);
        assert_int_equal(elsewhere(a), 1);
        ok(claim_gpus_drop(a, "one", 2, (char *[]){ GPU("1"), GPU("7"), NULL }, &flow_err));
        assert_int_equal(claims(a), 1);
        assert_int_equal(claims(b), 1);
        ok(claim_gpus(b, "two", 1, mid, &flow_err));
        assert_int_equal(claims(b), 3);
        ok(claim_gpus_drop(b, "two", 1, NULL, &flow_err));
        ok(claim_gpus_drop(a, "one", 2, NULL, &flow_err));
        assert_int_equal(claims(a) + claims(b), 0);
}

static void test_cpus_elsewhere(void **state)
{
        static const uint32_t mine[] = { 7, 3 };
        struct world *w = *state;
        AUTO(claim_close) struct claim_host *a = open_ok(&w->a), *b = open_ok(&w->b);
        AUTO(fd) int watch = claim_watch_open(b, &flow_err);
        uint32_t got[4];

        ok(watch);
        ok(claim_cpus(b, "own", 1, &(uint32_t){ 5 }, 1, &flow_err));
        assert_true(claim_watch_read(watch));
        assert_false(claim_watch_read(watch));
        assert_int_equal(claim_cpus_elsewhere(b, got, NELEM(got), &flow_err), 0);
        ok(claim_cpus(a, "one", 1, mine, NELEM(mine), &flow_err));
        assert_true(claim_watch_read(watch));
        assert_int_equal(claim_cpus_elsewhere(b, got, NELEM(got), &flow_err), 2);
        assert_int_equal(got[0], 3);
        assert_int_equal(got[1], 7);
        assert_int_equal(claim_cpus_elsewhere(b, got, 1, &flow_err), 1);
        assert_int_equal(claim_cpus_elsewhere(a, got, NELEM(got), &flow_err), 1);
        assert_int_equal(got[0], 5);
        ok(claim_release(a, "one", 1, &flow_err));
        assert_true(claim_watch_read(watch));
        assert_int_equal(claim_cpus_elsewhere(b, got, NELEM(got), &flow_err), 0);
}

/* All of them, how fast, and what a full house says. */
static void test_full(void **state)
{
        struct world *w = *state;
        AUTO(claim_close) struct claim_host *a = open_ok(&w->a);
        uint32_t slot = 0;
        uint64_t t = clock_mono_us(), each_us;
        char name[16];

        for (unsigned i = 0; i < LIMIT_SLOTS; i++) {
                (void) snprintf(name, sizeof name, "c%u", i);
                assert_int_equal(slot_ok(a, name, 1), i + 1);
        }
        each_us = (clock_mono_us() - t) / LIMIT_SLOTS;
        print_message("claim_slot: %llu us on average\n", (unsigned long long) each_us);
        assert_true(each_us < 1000); /* looking at every slot each time takes longer, anywhere */
        assert_int_equal(claim_slot(a, "more", 1, &slot, &flow_err), -ENOSPC);
        ok(claim_release(a, "c1000", 1, &flow_err));
        assert_int_equal(slot_ok(a, "more", 1), 1001); /* rested or not, it is the only one */
        assert_int_equal(claims(a), LIMIT_SLOTS);
}

/* --- engines ------------------------------------------------------------------------------- */

static void test_one_engine_each(void **state)
{
        struct world *w = *state;
        struct instance copy = w->a, moved = w->a;
        struct claim_host *other = NULL;
        char path[64];

        {
                AUTO(claim_close) struct claim_host *a = open_ok(&w->a);
                uint64_t t = clock_mono_us();
                pid_t pid = fork();

                if (pid == 0) /* another process: the lock is not ours by accident */
                        _exit(claim_open(&w->a, &other, NULL) == -EBUSY ? 0 : 1);
                child_good(pid);
                assert_true(clock_mono_us() - t < 10 * US_PER_S);
                (void) slot_ok(a, "one", 1);
        }
        /* a copied directory is refused, a moved one is known again */
        copy.data_dir = w->paths[1];
        assert_int_equal(claim_open(&copy, &other, &flow_err), -EEXIST);
        (void) snprintf(path, sizeof path, "%s/moved", w->dir);
        assert_int_equal(rename(w->paths[0], path), 0);
        moved.data_dir = path;
        AUTO(claim_close) struct claim_host *a = open_ok(&moved);

        assert_int_equal(claims(a), 1);
}

/* A killed engine's operations keep its lock until they are gone, too; the next start waits. */
static void test_restart_waits(void **state)
{
        struct world *w = *state;
        int ready[2];
        pid_t pid;
        char c;

        assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
        pid = fork();
        if (pid == 0) {
                struct claim_host *a = NULL;

                if (claim_open(&w->a, &a, NULL) < 0 || fork() < 0 || write(ready[1], "x", 1) != 1)
                        _exit(1);
                (void) slot_ok(a, "one", 1);
                sleep_ms(300); /* both: the engine, and an operation that outlives it a little */
                _exit(0);
        }
        assert_int_equal(read(ready[0], &c, 1), 1);
        AUTO(claim_close) struct claim_host *a = open_ok(&w->a);

        assert_int_equal(claims(a), 1);
        child_good(pid);
}

static void test_perms(void **state)
{
        struct world *w = *state;
        struct claim_host *c = NULL;
        struct stat st;
        mode_t old = umask(0077);

        (void) claim_close(open_ok(&w->a));
        (void) umask(old);
        assert_int_equal(stat(RUN, &st), 0);
        assert_int_equal(st.st_mode, S_IFDIR | 0755);                  /* whatever the umask */
        assert_int_equal(access(RUN "/instances/flowaaaa", F_OK), -1); /* held nothing: gone */
        assert_int_equal(chmod(RUN, 0777), 0);
        assert_int_equal(claim_open(&w->a, &c, &flow_err), -EPERM);
        assert_int_equal(chmod(RUN, 0755), 0);
        assert_int_equal(chown(RUN, 65534, 0), 0);
        assert_int_equal(claim_open(&w->a, &c, &flow_err), -EPERM);
        assert_int_equal(fd_rm_rf(AT_FDCWD, RUN), 0);
        assert_int_equal(mkdir("/run/elsewhere", 0755), 0);
        assert_int_equal(symlink("/run/elsewhere", RUN), 0);
        assert_true(claim_open(&w->a, &c, &flow_err) < 0);
}

/* Dead means: not running, directory gone, nothing in its groups.  Two of three are not enough. */
static void test_reap(void **state)
{
        const char *group = access("/sys/fs/cgroup/cgroup.controllers", F_OK) == 0
                                    ? "/sys/fs/cgroup/" CLAIM_GROUP_PREFIX "flowbbbb"
                                    : "/sys/fs/cgroup/pids/" CLAIM_GROUP_PREFIX "flowbbbb";
        struct world *w = *state;
        bool first;
        char saved[64], away[64];
        pid_t pid;

        (void) snprintf(away, sizeof away, "%s/away", w->dir);
        {
                AUTO(claim_close) struct claim_host *b = open_ok(&w->b);

                assert_int_equal(slot_ok(b, "two", 1), 1);
                ok(claim_cpus(b, "two", 1, &(uint32_t){ 1 }, 1, &flow_err));
                ok(claim_setting_hold(b, "ip_forward", "0", &first, &flow_err));
                assert_int_equal(rename(w->paths[1], away), 0);
                (void) claim_close(open_ok(&w->a)); /* it runs */
                assert_int_equal(claims(b), 2);
                assert_int_equal(rename(away, w->paths[1]), 0);
        }
        (void) claim_close(open_ok(&w->a)); /* its directory is there */
        assert_int_equal(access(RUN "/slots/1", F_OK), 0);
        assert_int_equal(rmdir(w->paths[1]), 0);

        assert_int_equal(mkdir(group, 0755), 0);
        pid = fork();
        if (pid == 0) {
                (void) alarm(60);
                (void) pause();
                _exit(0);
        }
        {
                AUTO(fd) int dir = open(group, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
                char text[16];

                (void) snprintf(text, sizeof text, "%d", (int) pid);
                assert_int_equal(fd_write_value(dir, "cgroup.procs", text), 0);
                (void) claim_close(open_ok(&w->a)); /* something runs in its groups */
                assert_int_equal(access(RUN "/slots/1", F_OK), 0);
        }
        (void) kill(pid, SIGKILL);
        assert_int_equal(waitpid(pid, NULL, 0), pid);
        (void) claim_close(open_ok(&w->a)); /* empty groups are no sign of life */
        assert_int_equal(rmdir(group), 0);
        assert_int_equal(access(RUN "/slots/1", F_OK), -1);
        assert_int_equal(access(RUN "/cpus/1", F_OK), -1);
        assert_int_equal(access(RUN "/instances/flowbbbb", F_OK), -1);

        { /* one that holds nothing, but was killed */
                AUTO(fd)
                int fd = open(RUN "/instances/flowcccc", O_WRONLY | O_CREAT | O_CLOEXEC, 0644);

                assert_int_equal(dprintf(fd, "%s/gone\n", w->dir) > 0, 1);
        }
        (void) claim_close(open_ok(&w->a));
        assert_int_equal(access(RUN "/instances/flowcccc", F_OK), -1);

        /* its setting: the old value was never put back, so it is what the next one restores */
        AUTO(claim_close) struct claim_host *a = open_ok(&w->a);

        ok(claim_setting_hold(a, "ip_forward", "1", &first, &flow_err));
        assert_true(first);
        ok(claim_setting_leave(a, "ip_forward", saved, sizeof saved, &first, &flow_err));
        assert_true(first);
        assert_string_equal(saved, "0");
}

static void test_settings(void **state)
{
        struct world *w = *state;
        AUTO(claim_close) struct claim_host *a = open_ok(&w->a), *b = open_ok(&w->b);
        char saved[64] = "canary";
        bool first = false, last = true;

        ok(claim_setting_leave(a, "x", saved, sizeof saved, &last, &flow_err));
        assert_false(last);
        assert_string_equal(saved, "canary");
        ok(claim_setting_hold(a, "x", "old value", &first, &flow_err));
        assert_true(first);
        ok(claim_setting_hold(a, "x", "new value", &first, &flow_err)); /* restarted: as before */
        assert_true(first);
        ok(claim_setting_hold(b, "x", "new value", &first, &flow_err));
        assert_false(first);
        ok(claim_setting_leave(a, "x", saved, sizeof saved, &last, &flow_err));
        assert_false(last);
        ok(claim_setting_leave(b, "x", saved, sizeof saved, &last, &flow_err));
        assert_true(last);
        assert_string_equal(saved, "old value");
        /* killed before it put the value back: the next clean leave still knows it */
        ok(claim_setting_hold(b, "x", "new value", &first, &flow_err));
        assert_true(first);
        ok(claim_setting_leave(b, "x", saved, sizeof saved, &last, &flow_err));
        assert_string_equal(saved, "old value");
        /* somebody took hold in between */
        ok(claim_setting_hold(a, "x", "new value", &first, &flow_err));
        assert_int_equal(claim_setting_restored(b, "x", &flow_err), 1);
        ok(claim_setting_leave(a, "x", saved, sizeof saved, &last, &flow_err));
        assert_int_equal(claim_setting_restored(a, "x", &flow_err), 0);
        assert_int_equal(access(RUN "/settings/x", F_OK), -1);
        assert_int_equal(claim_setting_hold(a, "../x", "1", &first, &flow_err), -EINVAL);
        assert_int_equal(claim_setting_hold(a, "x", "two\nlines", &first, &flow_err), -EINVAL);
}

/* --- all at once --------------------------------------------------------------------------- */

enum { ENGINES = 8, CPUS = 4 };

/* Who uses a number right now, seen by all processes: 0 or engine + 1. */
struct board {
        _Atomic uint32_t slot[LIMIT_SLOTS + 1], cpu[CPUS];
        _Atomic uint32_t rounds, cpu_rounds;
};

static bool use(_Atomic uint32_t *place, uint32_t me)
{
        uint32_t free_ = 0;

        return __atomic_compare_exchange_n((uint32_t *) place, &free_, me, false, __ATOMIC_SEQ_CST,
                                           __ATOMIC_SEQ_CST);
}

static int engine_rounds(struct world *w, struct board *b, uint32_t me, int rounds)
{
        struct instance i = { 0 };
        struct claim_host *c = NULL;
        unsigned seed = me;
        char path[64], id[9];

        (void) snprintf(id, sizeof id, "engine%02u", me);
        instance_make(w, &i, path, id);
        if (claim_open(&i, &c, &flow_err) < 0)
                return 2;
        for (int k = 0; rounds == 0 || k < rounds; k++) {
                uint32_t slot = 0, cpus[2] = { (uint32_t) rand_r(&seed) % CPUS,
                                               (uint32_t) rand_r(&seed) % CPUS };
                size_t n = cpus[0] == cpus[1] ? 1 : 2;
                char name[16];
                int r;

                (void) snprintf(name, sizeof name, "c%d", k % 3);
                if (claim_slot(c, name, (uint64_t) k, &slot, &flow_err) < 0)
                        return 3;
                if (!use(&b->slot[slot], me))
                        return 4; /* somebody else has it */
                r = claim_cpus(c, name, (uint64_t) k, cpus, n, &flow_err);
                if (r < 0 && r != -EUSERS)
                        return 5;
                for (size_t x = 0; r == 0 && x < n; x++)
                        if (!use(&b->cpu[cpus[x]], me))
                                return 6;
                for (size_t x = 0; r == 0 && x < n; x++)
                        b->cpu[cpus[x]] = 0;
                b->slot[slot] = 0;
                if (claim_release(c, name, (uint64_t) k, &flow_err) < 0)
                        return 7;
                b->rounds++;
                b->cpu_rounds += r == 0;
        }
        (void) claim_close(c);
        return 0;
}

static struct board *board_new(void)
{
        void *p = mmap(NULL, sizeof(struct board), PROT_READ | PROT_WRITE,
                       MAP_SHARED | MAP_ANONYMOUS, -1, 0);

        assert_true(p != MAP_FAILED);
        return p;
}

static void test_stress(void **state)
{
        struct world *w = *state;
        struct board *b = board_new();
        pid_t pid[ENGINES];

        for (uint32_t i = 0; i < ENGINES; i++) {
                pid[i] = fork();
                if (pid[i] == 0) {
                        int r = engine_rounds(w, b, i + 1, 400);

                        if (r)
                                print_error("engine %u: %d %s\n", i, r, flow_err.msg);
                        _exit(r);
                }
        }
        for (uint32_t i = 0; i < ENGINES; i++)
                child_good(pid[i]);
        assert_int_equal(b->rounds, ENGINES * 400);
        assert_true(b->cpu_rounds > 0);
        (void) munmap(b, sizeof *b);
}

/* Engines are killed at any instant and started again; what each held it finds again, and no number
 * is ever given to two. */
static void test_stress_killed(void **state)
{
        unsigned seed = (unsigned) time(NULL);
        struct world *w = *state;
        struct board *b = board_new();

        print_message("seed %u\n", seed);
        for (int round = 0; round < 25; round++) {
                uint32_t owner[LIMIT_SLOTS + 1] = { 0 };
                pid_t pid[ENGINES];

                for (uint32_t i = 0; i < ENGINES; i++) {
                        pid[i] = fork();
                        if (pid[i] == 0)
                                _exit(engine_rounds(w, b, i + 1, 0));
                }
                (void) usleep((useconds_t) (20000 + rand_r(&seed) % 40000));
                for (uint32_t i = 0; i < ENGINES; i++)
                        (void) kill(pid[i], SIGKILL);
                for (uint32_t i = 0; i < ENGINES; i++) {
                        int status;

                        assert_int_equal(waitpid(pid[i], &status, 0), pid[i]);
                        if (!WIFSIGNALED(status))
                                fail_msg("engine %u ended by itself: %x", i, (unsigned) status);
                }
                for (uint32_t i = 0; i < ENGINES; i++) { /* restart: find, check, release */
                        struct instance inst = { 0 };
                        char path[64], id[9];
                        struct claim_host *c;

                        (void) snprintf(id, sizeof id, "engine%02u", i + 1);
                        instance_make(w, &inst, path, id);
                        c = open_ok(&inst);
                        for (uint32_t s = 1; s <= LIMIT_SLOTS; s++) {
                                struct claim_rec rec;

                                if (claim_table_read(&c->table[CLAIM_KIND_SLOT], s, &rec) < 0 ||
                                    strcmp(rec.instance, id) != 0)
                                        continue;
                                assert_int_equal(owner[s], 0);
                                owner[s] = i + 1;
                        }
                        for (uint32_t s = 1; s <= LIMIT_SLOTS; s++) /* in use means claimed */
                                if (b->slot[s] == i + 1) {
                                        assert_int_equal(owner[s], i + 1);
                                        b->slot[s] = 0;
                                }
                        for (uint32_t x = 0; x < CPUS; x++)
                                if (b->cpu[x] == i + 1)
                                        b->cpu[x] = 0;
                        for (int k = 0; k < 3; k++) {
                                char name[16];

                                (void) snprintf(name, sizeof name, "c%d", k);
                                ok(claim_release(c, name, UINT64_MAX, &flow_err));
                        }
                        assert_int_equal(claims(c), 0);
                        (void) claim_close(c);
                }
        }
        assert_true(b->rounds > 100);
        (void) munmap(b, sizeof *b);
}

int main(int argc, char **argv)
{
#define T(f) cmocka_unit_test_setup_teardown(f, world_up, world_down)
        const struct CMUnitTest tests[] = {
                T(test_slots),
                T(test_ports),
                T(test_gpus),
                T(test_cpus),
                T(test_cpus_elsewhere),
                T(test_full),
                T(test_one_engine_each),
                T(test_perms),
                T(test_reap),
                T(test_settings),
                T(test_restart_waits),
                T(test_stress),
                T(test_stress_killed),
        };

        return flow_main(argc, argv, tests, NELEM(tests));
}
