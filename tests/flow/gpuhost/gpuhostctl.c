/* gpuhostctl.c - the engine's side of vmm-gpu alone, for test_gpuhost.py.  Root; an instance is made up
 * from the arguments, in a mount namespace of its own, and ends with the standard input.
 *
 *   gpuhostctl ID DATADIR LIBEXEC DRIVER [NVML]
 *
 * DRIVER as `gpu_driver` of the configuration; with NVML the library is another one.
 * Lines on the standard input, JSON lines on the standard output:
 *
 *   check GPU...             {"type":"checked","error":"..."|absent,"gpus":[...]}
 *   quarantine GPU REASON    release GPU    omit GPU...    fleet    remembered GPU    claims
 *   open [GPU CLUSTER]       that cluster may have it open; none
 *   lag                      {"type":"lag","ms":N}: the longest that the loop was late since the last */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/jsonx.h"
#include "base/log.h"
#include "base/str.h"
#include "engine/claim/claim.h"
#include "engine/gpu/driver.h"
#include "engine/gpu/gpuhost.h"
#include "engine/journal/journal.h"
#include "engine/journal/journal_gpu.h"

#define TICK_US (5 * US_PER_MS)

struct world {
        struct instance inst;
        struct host host;
        struct gpu_driver driver;
        struct journal *journal;
        sd_event *loop;
        struct gpuhost *g;
        char open[2][80]; /* a GPU, and the cluster that may have it open */
        uint64_t due_us, lag_us;
        char line[8192];
        size_t len;
        bool over;
};

static void say(json_t *j)
{
        (void) json_dumpf(j, stdout, JSON_COMPACT);
        (void) putchar('\n');
        (void) fflush(stdout);
        json_decref(j);
}

static void say_fleet(const struct world *w)
{
        json_t *j = gpu_fleet_encode(gpuhost_fleet(w->g));

        (void) json_object_set_new(j, "type", json_string("gpus"));
        (void) json_object_set_new(j, "known", json_boolean(gpuhost_is_known(w->g)));
        say(j);
}

static void on_changed(void *arg)
{
        say_fleet(arg);
}

static void on_message(void *arg, const json_t *msg)
{
        (void) arg;
        say(json_deep_copy(msg));
}

static void on_checked(void *arg, const json_t *gpus, const struct err *e)
{
        (void) arg;
        if (gpus)
                say(json_pack("{s:s, s:O}", "type", "checked", "gpus", gpus));
        else
                say(json_pack("{s:s, s:s, s:i}", "type", "checked", "error", e->msg, "code",
                              e->code));
}

static const char *open_in(void *arg, const char *uuid)
{
        const struct world *w = arg;

        return str_eq(uuid, w->open[0]) ? w->open[1] : NULL;
}

static void set_open(struct world *w, char **word)
{
        size_t n = strv_len(word);

        for (size_t i = 0; i < 2; i++)
                (void) snprintf(w->open[i], sizeof w->open[i], "%s", n > i ? word[i] : "");
        gpuhost_claims_changed(w->g);
}

static int on_tick(sd_event_source *s, uint64_t usec, void *arg)
{
        struct world *w = arg;
        uint64_t now = clock_mono_us();

        (void) usec;
        if (now - w->due_us > w->lag_us)
                w->lag_us = now - w->due_us;
        w->due_us = now + TICK_US;
        (void) sd_event_source_set_time(s, w->due_us);
        return sd_event_source_set_enabled(s, SD_EVENT_ONESHOT);
}

static void remembered(struct world *w, const char *uuid)
{
        const struct journal_gpu *j = gpuhost_remembered(w->g, uuid);

        if (j)
                say(json_pack("{s:s, s:s, s:s, s:I, s:s, s:s, s:i}", "type", "remembered", "vbios",
                              j->vbios, "inforom", j->inforom, "memory_mib",
                              (json_int_t) j->memory_mib, "quarantine", j->quarantine, "cluster",
                              j->cluster, "xid", (int) j->xid));
        else
                say(json_pack("{s:s}", "type", "remembered"));
}

static void obey(struct world *w, char **word)
{
        struct err e = { 0 };
        int r = 0;

        if (str_eq(word[0], "check"))
                r = gpuhost_check(w->g, word + 1, on_checked, w, &e);
        else if (str_eq(word[0], "quarantine"))
                r = gpuhost_quarantine(w->g, word[1], word[2], "abc", &e);
        else if (str_eq(word[0], "release"))
                r = gpuhost_quarantine(w->g, word[1], NULL, NULL, &e);
        else if (str_eq(word[0], "omit"))
                r = gpuhost_omit(w->g, word + 1, &e);
        else if (str_eq(word[0], "fleet"))
                say_fleet(w);
        else if (str_eq(word[0], "remembered"))
                remembered(w, word[1]);
        else if (str_eq(word[0], "open"))
                set_open(w, word + 1);
        else if (str_eq(word[0], "claims"))
                gpuhost_claims_changed(w->g);
        else if (str_eq(word[0], "lag")) {
                say(json_pack("{s:s, s:f}", "type", "lag", "ms", (double) w->lag_us / 1000));
                w->lag_us = 0;
        }
        if (r < 0)
                say(json_pack("{s:s, s:s, s:i}", "type", "failed", "error", e.msg, "code", r));
}

static int on_line(sd_event_source *s, int fd, uint32_t revents, void *arg)
{
        struct world *w = arg;
        ssize_t n = read(fd, w->line + w->len, sizeof w->line - 1 - w->len);
        char *end;

        (void) s;
        (void) revents;
        if (n <= 0) {
                w->over = true;
                return 0;
        }
        w->len += (size_t) n;
        w->line[w->len] = '\0';
        while ((end = strchr(w->line, '\n')) != NULL) {
                AUTO(strv_free) char **words = NULL;

                *end = '\0';
                if (strv_split_shell(w->line, 64, &words, NULL) >= 0 && strv_len(words))
                        obey(w, words);
                w->len -= (size_t) (end + 1 - w->line);
                memmove(w->line, end + 1, w->len + 1);
        }
        return 0;
}

static int make_instance(struct world *w, char **argv, struct err *e)
{
        struct instance *inst = &w->inst;
        char run[64];

        (void) snprintf(inst->id, sizeof inst->id, "%s", argv[1]);
        inst->data_dir = argv[2];
        inst->libexec = argv[3];
        inst->conf.gpu_driver = argv[4];
        (void) snprintf(run, sizeof run, "/run/hypervisor-vmm/%s", inst->id);
        (void) mkdir("/run/hypervisor-vmm", 0755);
        (void) mkdir(run, 0711);
        if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0)
                return err_errno(e, -errno, "mount namespace");
        inst->run_fd = open(run, O_PATH | O_DIRECTORY | O_CLOEXEC);
        inst->data_fd = open(inst->data_dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
        w->host.inst = inst;
        return inst->run_fd < 0 || inst->data_fd < 0 ? err_errno(e, -errno, "%s", run) : 0;
}

static int open_all(struct world *w, char **argv, struct err *e)
{
        const struct gpuhost_spec spec = { .host = &w->host,
                                           .driver = &w->driver,
                                           .changed = on_changed,
                                           .telemetry = on_message,
                                           .event = on_message,
                                           .open_in = open_in,
                                           .arg = w };
        struct gpuhost_spec s = spec;
        int r = make_instance(w, argv, e);

        if (r >= 0)
                r = claim_open(&w->inst, &w->host.claims, e);
        if (r >= 0)
                r = gpu_driver_open(&w->inst, &w->driver, e);
        if (r >= 0 && argv[5]) {
                free(w->driver.nvml);
                w->driver.nvml = str_dup(argv[5]);
        }
        if (r >= 0)
                r = journal_open(&w->inst, &w->journal, e);
        if (r >= 0)
                r = sd_event_new(&w->loop);
        s.loop = w->loop;
        s.journal = w->journal;
        if (r >= 0)
                r = gpuhost_new(&s, &w->g, e);
        if (r < 0)
                return r;
        w->due_us = clock_mono_us();
        (void) sd_event_add_time(w->loop, NULL, CLOCK_MONOTONIC, w->due_us, 1, on_tick, w);
        (void) sd_event_add_io(w->loop, NULL, STDIN_FILENO, EPOLLIN, on_line, w);
        return 0;
}

int main(int argc, char **argv)
{
        static struct world w = { .driver.root_fd = -EBADF };
        struct err e = { 0 };
        int r;

        log_init("gpuhostctl", LOG_LVL_INFO);
        if (argc < 5)
                return 2;
        r = open_all(&w, argv, &e);
        if (r < 0)
                (void) fprintf(stderr, "%s\n", e.msg);
        else
                say_fleet(&w);
        while (r >= 0 && !w.over)
                r = sd_event_run(w.loop, UINT64_MAX);
        w.g = gpuhost_free(w.g);
        w.journal = journal_close(w.journal);
        gpu_driver_close(&w.driver);
        w.host.claims = claim_close(w.host.claims);
        w.loop = sd_event_unref(w.loop);
        return r < 0;
}
