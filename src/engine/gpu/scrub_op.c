/* scrub_op.c - see scrub_op.h.
 *
 * Loop thread: starts the operation and reads its report.  Operation process: starts vmm-gpu under its
 * own uid, collects one line of JSON.  The operation dies at its deadline, and vmm-gpu with it, which is
 * when the driver frees what it held. */
#include "engine/gpu/scrub_op.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/jsonx.h"
#include "base/proc.h"
#include "base/str.h"
#include "engine/claim/claim.h"

#define TIMEOUT_US (60 * US_PER_S)
#define ANSWER_MAX 4096U
#define ENOUGH_PCT 90U /* of the memory: the driver and the context keep some */

struct scrub_op {
        struct op *op;
        scrub_op_fn *done; /* NULL: cancelled */
        void *arg;
        char uuid[72], name[96];
        char *program, *cuda, *fleet;
        struct scrub_result result;
};

static void scrub_op_free(struct scrub_op *s)
{
        free(s->program);
        free(s->cuda);
        free(s->fleet);
        free(s);
}

/* --- in the operation ---------------------------------------------------------------------- */

/* In vmm-gpu's process: no way back from here. */
__attribute__((noreturn)) static void become(const struct scrub_op *s, pid_t parent, int out)
{
        char *argv[8] = { (char *) (uintptr_t) "vmm-gpu", (char *) (uintptr_t) "--scrub",
                          (char *) (uintptr_t) s->uuid };
        char *env[] = { (char *) (uintptr_t) "PATH=/usr/bin:/bin",
                        (char *) (uintptr_t) "LANG=C.UTF-8", NULL };
        int prog = open(s->program, O_PATH | O_CLOEXEC); /* its uid may have no way there */
        size_t n = 3;

        if (s->cuda) {
                argv[n++] = (char *) (uintptr_t) "--cuda";
                argv[n++] = s->cuda;
        }
        if (s->fleet) {
                argv[n++] = (char *) (uintptr_t) "--fleet";
                argv[n++] = s->fleet;
        }
        if (prog < 0 || dup2(out, STDOUT_FILENO) < 0 ||
            fd_close_except(STDERR_FILENO + 1, &prog, 1) < 0 ||
            proc_drop(CLAIM_GPU_UID, parent) < 0)
                _exit(126);
        (void) syscall(SYS_execveat, prog, "", argv, env, AT_EMPTY_PATH);
        _exit(127);
}

/* Everything it says until it ends; the deadline is the operation's. */
static int collect(int fd, char ret[static ANSWER_MAX], struct err *e)
{
        ssize_t n = fd_read_full(fd, ret, ANSWER_MAX - 1);

        if (n < 0)
                return err_errno(e, (int) n, "read what it says");
        ret[n] = '\0';
        return 0;
}

static int judge(const json_t *j, char *ret, size_t size, struct err *e)
{
        json_int_t total = json_integer_value(json_object_get(j, "total_mib"));
        json_int_t covered = json_integer_value(json_object_get(j, "covered_mib"));
        json_int_t ms = json_integer_value(json_object_get(j, "ms"));
        json_int_t code = json_integer_value(json_object_get(j, "errno"));
        const char *why = jsonx_str(j, "error");

        if (why)
                return err_set(e, code > 0 && code < 4096 ? (int) -code : -EIO, "%.90s", why);
        if (covered <= 0 || covered > total || covered * 100 < total * (json_int_t) ENOUGH_PCT)
                return err_set(e, -EIO, "only %lld of %lld MiB could be had", (long long) covered,
                               (long long) total);
        (void) snprintf(ret, size, "%lld of %lld MiB overwritten and read back in %lld.%lld s",
                        (long long) covered, (long long) total, (long long) (ms / 1000),
                        (long long) (ms % 1000 / 100));
        return 0;
}

static int body(struct frame_conn *out, void *arg, struct err *e)
{
        const struct scrub_op *s = arg;
        char answer[ANSWER_MAX], text[sizeof s->result.text];
        AUTO(json_put) json_t *j = NULL, *msg = NULL;
        pid_t parent = getpid(), pid;
        int p[2], status = 0, r;

        if (pipe2(p, O_CLOEXEC) < 0)
                return err_errno(e, -errno, "pipe");
        pid = fork();
        if (pid < 0)
                return err_errno(e, -errno, "fork");
        if (pid == 0)
                become(s, parent, p[1]);
        (void) fd_close(p[1]);
        r = collect(p[0], answer, e);
        (void) fd_close(p[0]);
        if (waitpid(pid, &status, 0) != pid)
                return err_errno(e, -errno, "wait");
        if (r < 0)
                return r;
        j = jsonx_parse(answer, strlen(answer), NULL);
        if (!j)
                return err_set(e, -EIO, "vmm-gpu ended without an answer (%s %d)",
                               WIFSIGNALED(status) ? "signal" : "status",
                               WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
        r = judge(j, text, sizeof text, e);
        if (r < 0)
                return r;
        msg = json_pack("{s:s}", "text", text);
        return msg ? op_report(out, msg, NULL, 0) : -ENOMEM;
}

/* --- in the engine ------------------------------------------------------------------------- */

static void on_report(void *arg, const struct frame_msg *m)
{
        struct scrub_op *s = arg;
        const char *text = jsonx_str(m->json, "text");

        (void) snprintf(s->result.text, sizeof s->result.text, "%s", text ? text : "");
}

static void on_done(void *arg, int r, const struct err *err)
{
        struct scrub_op *s = arg;

        s->result.r = r;
        if (r == -ETIMEDOUT)
                (void) snprintf(s->result.text, sizeof s->result.text,
                                "it did not end within %llu s",
                                (unsigned long long) (TIMEOUT_US / US_PER_S));
        else if (r < 0)
                (void) snprintf(s->result.text, sizeof s->result.text, "%.95s", err->msg);
        if (s->done)
                s->done(s->arg, &s->result);
        scrub_op_free(s);
}

/* Beside the simulated driver's library; a real one is found by the loader. */
static int find_cuda(struct scrub_op *s, const struct gpu_driver *d)
{
        const char *slash = d->nvml ? strrchr(d->nvml, '/') : NULL;

        if (d->kind != GD_SIMULATED || !slash)
                return 0;
        s->cuda = str_fmt("%.*s/libcuda.so.1", (int) (slash - d->nvml), d->nvml);
        s->fleet = str_dup(d->fleet_file);
        return s->cuda && (s->fleet || !d->fleet_file) ? 0 : -ENOMEM;
}

int scrub_op_start(struct op_runner *w, const struct instance *inst, const struct gpu_driver *d,
                   const char *uuid, scrub_op_fn *done, void *arg, struct scrub_op **ret,
                   struct err *e)
{
        struct scrub_op *s = calloc(1, sizeof *s);
        struct op_spec spec;
        int r;

        if (!s)
                return err_set(e, -ENOMEM, "out of memory");
        s->done = done;
        s->arg = arg;
        (void) snprintf(s->uuid, sizeof s->uuid, "%s", uuid);
        (void) snprintf(s->name, sizeof s->name, "scrub %s", uuid);
        s->program = str_fmt("%s/vmm-gpu", inst->libexec);
        spec = (struct op_spec){ .name = s->name,
                                 .body = body,
                                 .body_arg = s,
                                 .timeout_us = TIMEOUT_US,
                                 .report = on_report,
                                 .done = on_done,
                                 .arg = s };
        r = s->program ? find_cuda(s, d) : -ENOMEM;
        r = r < 0 ? err_set(e, r, "out of memory") : op_start(w, &spec, &s->op, e);
        if (r < 0) {
                scrub_op_free(s);
                return r;
        }
        *ret = s;
        return 0;
}

struct scrub_op *scrub_op_cancel(struct scrub_op *s)
{
        if (s) {
                s->done = NULL;
                op_cancel(s->op);
        }
        return NULL;
}
