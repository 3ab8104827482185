/* order.c - see order.h.  order_encode: engine; everything else: operation process.
 *
 * Descriptors travel in the order of the slots table; the message's "fds" lists which came. */
#include "engine/boot/order.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/fd.h"
#include "base/jsonx.h"
#include "base/proc.h"
#include "base/str.h"
#include "engine/op/op.h"
#include "model/secret.h"

static const char *const kind_names[ORDER_COUNT] = { "none", "boot", "undo", "change" };

/* Every descriptor that an order may carry. */
static const struct {
        const char *name;
        size_t off;
} slots[] = {
        { "userns", offsetof(struct boot, userns) },
        { "disk", offsetof(struct boot, disk_mnt) },
        { "monitor", offsetof(struct boot, proc.monitor_pidfd) },
        { "init", offsetof(struct boot, proc.init_pidfd) },
        { "launcher", offsetof(struct boot, shell.launcher_pidfd) },
        { "first", offsetof(struct boot, shell.first_pidfd) },
        { "up", offsetof(struct boot, shell.up) },
        { "report", offsetof(struct boot, shell.report) },
        { "dev", offsetof(struct boot, shell.dev) },
        { "shm", offsetof(struct boot, shell.shm) },
};
static_assert(NELEM(slots) == ORDER_MAX_FDS, "descriptor table");

#define I(f)  #f, .off = offsetof(struct image, f)
#define IC(f) #f, .off = offsetof(struct image, config.f)
static const struct jfield image_fields[] = {
        { I(id), .kind = J_U64 },
        { I(meta_sha), .kind = J_STR, .max = 64 },
        { I(devices), .kind = J_STRV, .max = 128 },
        { I(objects), .kind = J_BOOL },
        { IC(entrypoint), .kind = J_STRV },
        { IC(command), .kind = J_STRV },
        { IC(env), .kind = J_STRV },
        { IC(working_dir), .kind = J_STR },
        { IC(user), .kind = J_STR },
        { IC(stop_signal), .kind = J_STR },
};
#undef I
#undef IC

/* What a boot needs of a GPU beyond its UUID, which is all that the plan has; a list of eight takes
 * its time. */
static const struct jfield gpu_fields[] = {
        { "uuid", .kind = J_STR, .off = offsetof(struct gpu, uuid), .max = 64, .required = true },
        { "pci", .kind = J_STR, .off = offsetof(struct gpu, pci), .max = 31 },
        { "mig", .kind = J_STR, .off = offsetof(struct gpu, mig_profile), .max = 63 },
        { "parent", .kind = J_STR, .off = offsetof(struct gpu, parent), .max = 64 },
        { "state", .kind = J_ENUM, .off = offsetof(struct gpu, state), .names = gpu_state_names,
          .max = GS_STATE_COUNT, .required = true },
        { "index", .kind = J_U32, .off = offsetof(struct gpu, index) },
        { "minor", .kind = J_U32, .off = offsetof(struct gpu, minor) },
        { "gi", .kind = J_U32, .off = offsetof(struct gpu, gi) },
        { "ci", .kind = J_U32, .off = offsetof(struct gpu, ci) },
};

static json_t *gpus_encode(const struct boot *b)
{
        AUTO(json_put) json_t *list = json_array();

        for (size_t i = 0; list && i < b->n_gpus; i++)
                if (json_array_append_new(
                            list, jsonx_encode(gpu_fields, NELEM(gpu_fields), &b->gpus[i])) < 0)
                        return NULL;
        return TAKE(list);
}

static int gpus_decode(const json_t *list, struct boot *b, struct err *e)
{
        size_t k, n = json_array_size(list);
        const json_t *j;

        if (n == 0)
                return 0;
        b->gpus = n <= GPU_MAX ? calloc(n, sizeof *b->gpus) : NULL;
        if (!b->gpus)
                return err_set(e, n <= GPU_MAX ? -ENOMEM : -EPROTO, "order: %zu GPUs", n);
        json_array_foreach(list, k, j)
        {
                int r = jsonx_decode(j, gpu_fields, NELEM(gpu_fields), &b->gpus[k], e);

                b->n_gpus++; /* boot_done() frees what there is of it */
                if (r < 0)
                        return err_wrap(e, r, "order");
        }
        return 0;
}

static int *fd_at(const struct boot *b, size_t i)
{
        return (int *) (uintptr_t) ((const char *) b + slots[i].off);
}

json_t *order_encode(const struct order *o, const struct boot *b, int ret_fds[static ORDER_MAX_FDS],
                     size_t *ret_n)
{
        AUTO(json_put) json_t *names = json_array();
        AUTO(json_put) json_t *plan = jsonx_parse(o->plan, strlen(o->plan), NULL);
        json_t *was = o->was ? jsonx_parse(o->was, strlen(o->was), NULL) : json_null();
        AUTO(json_put) json_t *gpus = gpus_encode(b);
        json_t *image = jsonx_encode(image_fields, NELEM(image_fields), &b->image);
        AUTO(json_put) json_t *secrets = secret_encode(b->secrets);
        AUTO(free) char *ports = published_format(&b->ports);

        *ret_n = 0;
        for (size_t i = 0; names && i < NELEM(slots); i++) {
                if (*fd_at(b, i) < 0)
                        continue;
                ret_fds[(*ret_n)++] = *fd_at(b, i);
                (void) json_array_append_new(names, json_string(slots[i].name));
        }
        if (!names || !plan || !gpus || !image || !was || !secrets || !ports) {
                json_decref(image);
                json_decref(was);
                return NULL;
        }
        return json_pack(
                "{s:s, s:O, s:o, s:o, s:O, s:I, s:I, s:s, s:s, s:[i,i], s:b, s:b, s:i, s:i, s:O, s:b, s:O, s:I, s:s, s:s, s:s?}",
                "do", kind_names[o->kind], "plan", plan, "was", was, "image", image, "fds", names,
                "attempt", (json_int_t) b->attempt, "slot", (json_int_t) b->slot, "claim", b->claim,
                "disk_name", b->disk_pool_name, "shell", (int) b->shell.launcher,
                (int) b->shell.first, "graceful", o->graceful, "volume", o->volume, "monitor",
                (int) b->proc.monitor, "init", (int) b->proc.init, "gpus", gpus, "whole_fabric",
                b->whole_fabric, "secrets", secrets, "net_account", (json_int_t) b->net_account,
                "ports", ports, "public_ip", b->public_ip, "ssh_keys", b->ssh_keys);
}

static void copy_text(char *to, size_t size, const char *from)
{
        (void) snprintf(to, size, "%s", from ? from : "");
}

static int take_fds(struct boot *b, const json_t *names, struct frame_msg *m, struct err *e)
{
        size_t k;
        json_t *name;

        json_array_foreach(names, k, name)
        {
                for (size_t i = 0; i < NELEM(slots) && k < m->n_fds; i++)
                        if (str_eq(json_string_value(name), slots[i].name))
                                *fd_at(b, i) = fd_take(&m->fds[k]);
        }
        return k == m->n_fds ? 0 : err_set(e, -EPROTO, "order: descriptors are missing");
}

/* All that undo needs, so that a plan which this version would refuse can still be undone. */
static int decode_names(const json_t *plan, struct plan *ret, struct err *e)
{
        const char *cluster = jsonx_str(plan, "cluster");

        if (!plan_cluster_id_ok(cluster))
                return err_set(e, -EPROTO, "order: no cluster id");
        ret->generation = (uint64_t) json_integer_value(json_object_get(plan, "generation"));
        ret->cluster = strdup(cluster);
        return ret->cluster ? 0 : err_set(e, -ENOMEM, "out of memory");
}

static int decode_both(const json_t *j, struct boot *b, struct err *e)
{
        int r = plan_decode(json_object_get(j, "plan"), &b->plan, e);

        return r < 0 ? r : plan_decode(json_object_get(j, "was"), &b->was, e);
}

int order_decode(struct frame_msg *m, struct order *ret, struct boot *b, struct err *e)
{
        const json_t *j = m->json, *plan = json_object_get(j, "plan");
        const json_t *shell = json_object_get(j, "shell");
        struct order o = { .graceful = json_is_true(json_object_get(j, "graceful")),
                           .volume = json_is_true(json_object_get(j, "volume")) };
        int r = -EPROTO;

        for (int k = ORDER_NONE + 1; k < ORDER_COUNT; k++)
                if (str_eq(jsonx_str(j, "do"), kind_names[k]))
                        o.kind = (enum order_kind) k;
        if (o.kind == ORDER_BOOT)
                r = plan_decode(plan, &b->plan, e);
        else if (o.kind == ORDER_UNDO)
                r = decode_names(plan, &b->plan, e);
        else if (o.kind == ORDER_CHANGE)
                r = decode_both(j, b, e);
        else
                (void) err_set(e, r, "order: it says neither boot nor undo nor change");
        if (r >= 0)
                r = jsonx_decode(json_object_get(j, "image"), image_fields, NELEM(image_fields),
                                 &b->image, e);
        if (r >= 0 && json_object_get(j, "secrets"))
                r = secret_decode(json_object_get(j, "secrets"), &b->secrets, e);
        if (r >= 0)
                r = gpus_decode(json_object_get(j, "gpus"), b, e);
        if (r >= 0)
                r = published_parse(jsonx_str(j, "ports"), &b->ports, e);
        if (r < 0)
                return r;
        *ret = o;
        b->whole_fabric = json_is_true(json_object_get(j, "whole_fabric"));
        b->attempt = (uint64_t) json_integer_value(json_object_get(j, "attempt"));
        b->slot = (uint32_t) json_integer_value(json_object_get(j, "slot"));
        b->net_account = (uint32_t) json_integer_value(json_object_get(j, "net_account"));
        b->shell.launcher = (pid_t) json_integer_value(json_array_get(shell, 0));
        b->shell.first = (pid_t) json_integer_value(json_array_get(shell, 1));
        b->proc.monitor = (pid_t) json_integer_value(json_object_get(j, "monitor"));
        b->proc.init = (pid_t) json_integer_value(json_object_get(j, "init"));
        b->ssh_keys = str_dup(jsonx_str(j, "ssh_keys"));
        copy_text(b->public_ip, sizeof b->public_ip, jsonx_str(j, "public_ip"));
        copy_text(b->claim, sizeof b->claim, jsonx_str(j, "claim"));
        copy_text(b->disk_pool_name, sizeof b->disk_pool_name, jsonx_str(j, "disk_name"));
        return take_fds(b, json_object_get(j, "fds"), m, e);
}

/* The engine shows "starting" from here on; the stages before take a few milliseconds. */
static void on_stage(void *out, const char *stage)
{
        AUTO(json_put) json_t *j = json_pack("{s:s}", "stage", stage);

        if (j && str_eq(stage, "session"))
                (void) op_report(out, j, NULL, 0);
}

static json_t *proc_json(const struct proc_id *p)
{
        return json_pack("{s:i, s:I}", "pid", (int) p->pid, "start", (json_int_t) p->start_ticks);
}

static int report_started(struct frame_conn *out, const struct boot *b, struct err *e)
{
        AUTO(json_put) json_t *j = NULL;
        struct proc_id monitor, init;
        int r = proc_identify(b->proc.monitor, &monitor);

        if (r < 0)
                return err_errno(e, r, "identify the monitor");
        /* it may have ended already: the exit status will tell what there is to tell */
        if (proc_identify(b->proc.init, &init) < 0)
                init = (struct proc_id){ .pid = b->proc.init };
        j = json_pack("{s:o, s:o, s:s, s:s}", "monitor", proc_json(&monitor), "init",
                      proc_json(&init), "address", b->lease.ipv4_text, "address6",
                      b->lease.ipv6_text);
        if (!j)
                return err_set(e, -ENOMEM, "out of memory");
        return op_report(out, j, (int[]){ b->proc.monitor_pidfd, b->proc.init_pidfd }, 2);
}

/* A child shares its pages with the engine until it writes to them, and each first touch is a page
 * fault: 60 us of an order.  So it has one to try, of which nothing is done. */
static int warm_up(const struct host *host, struct err *e)
{
        static const char sample[] =
                "{\"do\":\"boot\",\"plan\":{\"cluster\":\"abcdefghijklm\",\"generation\":1,\"account\":\"a\","
                "\"name\":\"n\",\"image\":\"i\",\"command\":[\"sleep\"],\"env\":[\"A=1\",\"B=2\",\"C=3\"],"
                "\"vcpu\":1,\"memory_mib\":64,\"container_disk_gib\":1},\"image\":{\"env\":[\"PATH=/bin\"]},"
                "\"fds\":[],\"attempt\":1,\"slot\":1,\"claim\":\"c\",\"disk_name\":\"d\"}";
        AUTO(frame_msg_done)
        struct frame_msg m = { .json = jsonx_parse(sample, sizeof sample - 1, e) };
        struct order o;
        struct boot b;
        int r = m.json ? 0 : -EINVAL;

        boot_init(&b, host);
        if (r >= 0)
                r = order_decode(&m, &o, &b, e);
        if (r >= 0)
                r = plan_check(&b.plan, e);
        boot_done(&b);
        return r < 0 ? err_wrap(e, r, "warm up") : 0;
}

int order_run(struct frame_conn *out, struct frame_msg *msg, void *host, struct err *e)
{
        struct order o = { .kind = ORDER_NONE };
        struct boot b;
        int r;

        if (!msg)
                return warm_up(host, e);
        boot_init(&b, host);
        r = order_decode(msg, &o, &b, e);
        if (r < 0)
                return r;
        if (o.kind == ORDER_UNDO)
                return boot_undo(&b, o.graceful, o.volume, e);
        if (o.kind == ORDER_CHANGE)
                return boot_change(&b, e);
        r = boot_run(&b, on_stage, out, e);
        /* nothing is closed here: the report is what the engine waits for, and dissolving mounts
         * takes milliseconds that the end of this process spends anyway */
        return r < 0 ? r : report_started(out, &b, e);
}
