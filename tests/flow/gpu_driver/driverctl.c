/* driverctl.c - the GPU driver's root from a command line, for test_gpu_driver.py.  Root; an instance is
 * made up from the arguments, in a mount namespace of its own.
 *
 *   driverctl ID LIBEXEC WANT open [COMMAND ARGS...]   opens, prints what there is as JSON, runs COMMAND
 *                                                      with the root's path in ROOT, closes
 *   driverctl ID LIBEXEC WANT kill                     opens and ends without closing
 *   driverctl ID LIBEXEC WANT again                    opens twice, prints the second
 *   driverctl ID LIBEXEC WANT describe */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/jsonx.h"
#include "base/log.h"
#include "base/str.h"
#include "engine/gpu/driver.h"

static int fake_instance(struct instance *inst, char **argv, struct err *e)
{
        char run[64];

        (void) snprintf(inst->id, sizeof inst->id, "%s", argv[1]);
        inst->libexec = argv[2];
        inst->conf.gpu_driver = argv[3];
        (void) snprintf(run, sizeof run, "/run/hypervisor-vmm/%s", inst->id);
        (void) mkdir("/run/hypervisor-vmm", 0755);
        (void) mkdir(run, 0711);
        if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0)
                return err_errno(e, -errno, "mount namespace");
        inst->run_fd = open(run, O_PATH | O_DIRECTORY | O_CLOEXEC);
        return inst->run_fd < 0 ? err_errno(e, -errno, "open %s", run) : 0;
}

static void show(const struct gpu_driver *d)
{
        static const char *const kinds[GD_KIND_COUNT] = { "none", "nvidia", "simulated" };
        json_t *j = json_pack("{s:s,s:s?,s:s?,s:s?,s:s?,s:s?,s:b}", "kind", kinds[d->kind], "root",
                              d->root_path, "nvml", d->nvml, "fleet", d->fleet_file, "version",
                              d->version, "note", d->note, "has_root", d->root_fd >= 0);

        (void) json_dumpf(j, stdout, JSON_COMPACT);
        (void) putchar('\n');
        (void) fflush(stdout);
        json_decref(j);
}

static int run(const struct gpu_driver *d, char **argv)
{
        int status = 0;
        pid_t pid = fork();

        if (pid == 0) {
                (void) setenv("ROOT", d->root_path ? d->root_path : "", 1);
                (void) execvp(argv[0], argv);
                _exit(127);
        }
        if (pid < 0 || waitpid(pid, &status, 0) < 0)
                return 1;
        return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

static int describe(const char *want, const char *libexec, struct err *e)
{
        AUTO(free) char *text = NULL;
        int r = gpu_driver_describe(want, libexec, &text, e);

        if (r >= 0)
                (void) printf("%d %s\n", r, text);
        return r;
}

int main(int argc, char **argv)
{
        struct gpu_driver d = { .root_fd = -EBADF };
        struct instance inst = { .run_fd = -EBADF };
        struct err e = { 0 };
        int r, status = 0;

        log_init("driverctl", LOG_LVL_INFO);
        if (argc < 5)
                return 2;
        if (str_eq(argv[4], "describe")) {
                r = describe(argv[3], argv[2], &e);
        } else {
                r = fake_instance(&inst, argv, &e);
                if (r >= 0)
                        r = gpu_driver_open(&inst, &d, &e);
                if (r >= 0 && str_eq(argv[4], "again")) {
                        struct gpu_driver old = d;

                        r = gpu_driver_open(&inst, &d, &e);
                        old.kind = GD_NONE; /* what it stands for is the second's now */
                        gpu_driver_close(&old);
                }
        }
        if (r < 0) {
                (void) fprintf(stderr, "%s\n", e.msg);
                return 1;
        }
        if (str_eq(argv[4], "kill"))
                _exit(0);
        if (str_eq(argv[4], "describe"))
                return 0;
        show(&d);
        if (argc > 5)
                status = run(&d, argv + 5);
        gpu_driver_close(&d);
        return status;
}
