/* boot.c - the boot flow, read from top to bottom.  Operation process; see boot.h. */
#include "engine/boot/boot.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>

#include "base/fd.h"
#include "base/str.h"
#include "engine/boot/stage.h"
#include "model/secret.h"

static const struct stage stages[] = {
        /* name       binds                                             undo */
        { "plan", stage_plan_run, stage_plan_undo }, /* CPUs claimed; claims released */
        { "shell", stage_shell_run, NULL },          /* undone by net and slice */
        { "image", stage_image_run, NULL },          /* lower mount; ends with us */
        { "disk", stage_disk_run, stage_disk_undo }, /* upper layer, volume */
        { "gpu", stage_gpu_run,
          NULL }, /* claims, nodes, driver files; given back after their check */
        { "net", stage_net_run, stage_net_undo },             /* address, firewall */
        { "slice", stage_slice_run, stage_slice_undo },       /* cgroup with limits */
        { "session", stage_session_run, stage_session_undo }, /* monitor and first process */
};

const char *const boot_stage_names[] = { "plan", "shell", "image",   "disk", "gpu",
                                         "net",  "slice", "session", NULL };
static_assert(NELEM(boot_stage_names) == NELEM(stages) + 1, "stage names");

void boot_init(struct boot *b, const struct host *host)
{
        *b = (struct boot){ .host = host };
        b->userns = b->disk_mnt = -EBADF;
        sandbox_shell_init(&b->shell);
        b->lower_mnt = b->data_mnt = b->upper_mnt = b->volume_mnt = b->root_mnt = -EBADF;
        b->proc.monitor_pidfd = b->proc.init_pidfd = -EBADF;
        gpu_binding_init(&b->gpu);
}

void boot_done(struct boot *b)
{
        plan_done(&b->plan);
        plan_done(&b->was);
        image_done(&b->image);
        net_lease_done(&b->lease);
        for (size_t i = 0; i < b->n_gpus; i++)
                gpu_done(&b->gpus[i]);
        b->secrets = secrets_free(b->secrets);
        free(b->ssh_keys);
        b->ssh_keys = NULL;
        free(b->gpus);
        b->gpus = NULL;
        b->n_gpus = 0;
        gpu_binding_done(&b->gpu);
        b->userns = fd_close(b->userns);
        b->disk_mnt = fd_close(b->disk_mnt);
        b->lower_mnt = fd_close(b->lower_mnt);
        b->data_mnt = fd_close(b->data_mnt);
        b->upper_mnt = fd_close(b->upper_mnt);
        b->volume_mnt = fd_close(b->volume_mnt);
        b->root_mnt = fd_close(b->root_mnt);
        sandbox_shell_done(&b->shell);
        sandbox_proc_done(&b->proc);
}

/* What is missing when a shell is killed (its network goes with it) is no fault of the plan's. */
static int blame_shell(const struct boot *b, int r, struct err *e)
{
        if (b->shell.up < 0 || sandbox_shell_ready(&b->shell))
                return r;
        return err_set(e, -EOWNERDEAD, "its shell was killed");
}

int boot_run(struct boot *b, boot_stage_fn *fn, void *arg, struct err *e)
{
        for (size_t i = 0; i < NELEM(stages); i++) {
                int r;

                if (fn)
                        fn(arg, stages[i].name);
                r = stages[i].run(b, e);
                if (r >= 0 && str_eq(b->fail_at, stages[i].name))
                        r = err_set(e, -EIO, "told to fail");
                if (r < 0)
                        return err_wrap(e, blame_shell(b, r, e), "%s", stages[i].name);
        }
        return 0;
}

int boot_undo(struct boot *b, bool graceful, bool volume, struct err *e)
{
        const struct undo_how how = { .graceful = graceful, .volume = volume };

        for (size_t i = NELEM(stages); i-- > 0;) {
                struct err mine = { 0 }; /* a stage may say something and succeed after all */
                int r = stages[i].undo ? stages[i].undo(b, &how, &mine) : 0;

                if (r >= 0)
                        continue;
                /* What follows gives back what this stage still uses (its slot, its address):
                 * stop here, and the engine tries the whole walk again later. */
                (void) err_copy(e, &mine);
                return err_wrap(e, r, "undo %s", stages[i].name);
        }
        return 0;
}

void boot_slice_name(uint32_t slot, char ret[static 32])
{
        (void) snprintf(ret, 32, "c%u", slot);
}

void boot_monitor_slice_name(uint32_t slot, char ret[static 32])
{
        (void) snprintf(ret, 32, "m%u", slot);
}

void boot_disk_name(const char *cluster, uint64_t attempt, char ret[static 64])
{
        (void) snprintf(ret, 64, "%s-%llu.img", cluster, (unsigned long long) attempt);
}

void boot_socket_name(const char *cluster, uint64_t attempt, char ret[static 64])
{
        (void) snprintf(ret, 64, "c-%s-%llu.sock", cluster, (unsigned long long) attempt);
}
