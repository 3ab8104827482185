/* template.c - templates: the account's own, the public ones, and those built into the program.
 * tensorone-api, loop thread. */
#include <errno.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/proc.h"
#include "base/str.h"
#include "control/plane/args.h"
#include "control/plane/plane_priv.h"
#include "model/egress.h"
#include "model/limits.h"
#include "model/plan.h"
#include "model/ready.h"
#include "model/secret.h"

#define TEMPLATE_ID_CHARS 10U
#define TEMPLATES_MAX     1000U /* of one account */

/* Known to clients by these ids. */
static const struct {
        const char *id, *name, *image, *args, *category;
        uint32_t container_disk_gib;
} builtin[] = {
        { "runpod-ubuntu", "Ubuntu", "ubuntu:22.04", "bash -c 'exec sleep infinity'", "CPU", 10 },
        { "tensorone-starter", "TensorOne starter", "tensorone/starter", NULL, "CPU", 5 },
        { "tensorone-llm-starter", "TensorOne LLM starter", "tensorone/llm-starter",
          "python run.py", "CPU", 20 },
};

int templates_add_builtin(struct plane *p)
{
        for (size_t i = 0; i < NELEM(builtin); i++) {
                AUTO(template_free) struct template *t = calloc(1, sizeof *t);

                if (!t)
                        return -ENOMEM;
                t->id = strdup(builtin[i].id);
                t->name = strdup(builtin[i].name);
                t->image = strdup(builtin[i].image);
                t->docker_args = str_dup(builtin[i].args);
                t->category = strdup(builtin[i].category);
                t->container_disk_gib = builtin[i].container_disk_gib;
                t->builtin = t->is_public = true;
                if (!t->id || !t->name || !t->image || !t->category ||
                    map_set(p->templates, t->id, t) < 0)
                        return -ENOMEM;
                t = NULL;
        }
        return 0;
}

static bool may_see(const struct caller *who, const struct template *t)
{
        return t->is_public || (t->account && str_eq(t->account, who->account));
}

const struct template *plane_template(const struct plane *p, const struct caller *who,
                                      const char *id)
{
        const struct template *t = map_get(p->templates, id);

        return t && may_see(who, t) ? t : NULL;
}

int plane_templates(const struct plane *p, const struct caller *who, bool own, bool builtin_too,
                    int (*fn)(void *arg, const struct template *t), void *arg)
{
        for (struct map_entry *i = map_first(p->templates); i; i = map_next(i)) {
                const struct template *t = map_value(i);
                bool mine = t->account && str_eq(t->account, who->account);
                int r = (mine ? own : t->is_public && builtin_too) ? fn(arg, t) : 0;

                if (r < 0)
                        return r;
        }
        return 0;
}

static int check_sizes(const struct template *t, struct err *e)
{
        const struct {
                const char *field, *value;
                size_t max;
        } text[] = {
                { "name", t->name, LIMIT_NAME_LEN },
                { "dockerArgs", t->docker_args, LIMIT_ARGS_BYTES },
                { "readme", t->readme, LIMIT_ARGS_BYTES },
                { "startScript", t->start_script, LIMIT_ARGS_BYTES },
        };

        for (size_t i = 0; i < NELEM(text); i++)
                if (text[i].value && strlen(text[i].value) > text[i].max)
                        return err_set(e, -E2BIG, "%s: %zu bytes, at most %zu are allowed",
                                       text[i].field, strlen(text[i].value), text[i].max);
        if (t->container_disk_gib > LIMIT_DISK_GIB || t->volume_gib > LIMIT_DISK_GIB)
                return err_set(e, -ERANGE, "containerDiskInGb, volumeInGb: at most %u are allowed",
                               LIMIT_DISK_GIB);
        return 0;
}

static int check(const struct template *t, struct err *e)
{
        AUTO(strv_free) char **entrypoint = NULL, **command = NULL;
        struct plan_port ports[LIMIT_PORTS];
        enum security_profile profile;
        struct egress egress;
        struct ready_path ready;
        bool set;
        int r;

        if (str_empty(t->name))
                return err_set(e, -EINVAL, "name: is missing");
        if (str_empty(t->image))
                return err_set(e, -EINVAL, "imageName: is missing");
        if (t->is_serverless && t->volume_gib)
                return err_set(e, -EINVAL, "volumeInGb: must be 0 in a serverless template");
        r = image_check(t->image, e);
        if (r >= 0)
                r = check_sizes(t, e);
        if (r >= 0)
                r = env_check(t->env, e);
        if (r >= 0) /* whether they are there is for who deploys it to know */
                r = secret_check(t->env, e);
        if (r >= 0)
                r = docker_args_parse(t->docker_args, &entrypoint, &command, &set, e);
        if (r >= 0)
                r = plan_ports(t->ports, ports, NELEM(ports), e);
        if (r >= 0)
                r = ready_path_parse(t->readiness_path, t->ports, &ready, e);
        if (r >= 0)
                r = security_profile_parse("securityProfile", t->security_profile, &profile, e);
        if (r >= 0)
                r = egress_parse("egressAllow", t->egress, &egress, e);
        if (r >= 0 && !str_empty(t->volume_path))
                r = plan_mount_path("volumeMountPath", t->volume_path, e);
        return r < 0 ? r : 0;
}

static struct template *by_name(const struct plane *p, const char *account, const char *name,
                                size_t *ret_count)
{
        struct template *found = NULL;

        *ret_count = 0;
        for (struct map_entry *i = map_first(p->templates); i; i = map_next(i)) {
                struct template *t = map_value(i);

                if (!t->account || !str_eq(t->account, account))
                        continue;
                (*ret_count)++;
                if (str_eq(t->name, name))
                        found = t;
        }
        return found;
}

/* Give @t its identity: a new id, or that of the template that it replaces. */
static int identify(struct plane *p, const struct caller *who, struct template *t, struct err *e)
{
        size_t count;
        const struct template *same = by_name(p, who->account, t->name, &count), *old = NULL;
        char id[TEMPLATE_ID_CHARS + 1];

        if (!str_empty(t->id)) {
                old = map_get(p->templates, t->id);
                if (!old || !str_eq(old->account, who->account) || old->builtin)
                        return err_set(e, -ENOENT, "id: template %.64s not found", t->id);
        }
        if (same && same != old)
                return err_set(
                        e, -EEXIST,
                        "name: a template '%.64s' exists already; names are unique in an account",
                        t->name);
        if (!old && count >= TEMPLATES_MAX)
                return err_set(e, -EDQUOT, "an account has at most %u templates", TEMPLATES_MAX);
        t->created_us = old ? old->created_us : clock_wall_us();
        if (!old && (rand_id(id, TEMPLATE_ID_CHARS) < 0 || text_set(&t->id, id) < 0))
                return err_set(e, -ENOMEM, "out of memory");
        return text_set(&t->account, who->account) < 0 ? err_set(e, -ENOMEM, "out of memory") : 0;
}

int plane_save_template(struct plane *p, const struct caller *who, struct template *given,
                        const struct template **ret, struct err *e)
{
        AUTO(template_free) struct template *t = given;
        AUTO(store_txn_free) struct store_txn *txn = store_txn_new();
        struct template *old;
        int r = plane_writable(p, e);

        if (r >= 0)
                r = txn ? check(t, e) : err_set(e, -ENOMEM, "out of memory");
        if (r >= 0) /* the last pages are for stopping and removing */
                r = plane_has_room(p, e);
        if (r >= 0 && t->is_public && who->right != KEY_ADMIN)
                r = err_set(e, -EPERM,
                            "isPublic: only an administrator may show a template to all");
        if (r >= 0)
                r = registry_auth_check(p, who, t->registry_auth, e);
        if (r >= 0)
                r = identify(p, who, t, e);
        if (r < 0)
                return r;
        old = map_get(p->templates, t->id);
        if (map_set(p->templates, t->id, t) < 0)
                return err_set(e, -ENOMEM, "out of memory");
        (void) template_free(old);
        plane_audit_object(p, NULL, t->id);
        store_put(txn, ST_TEMPLATE, template_to_row(t));
        *ret = TAKE(t);
        plane_submit(p, TAKE(txn));
        return 0;
}

int plane_delete_template(struct plane *p, const struct caller *who, const char *name,
                          struct err *e)
{
        AUTO(store_txn_free) struct store_txn *txn = store_txn_new();
        size_t count;
        struct template *t = by_name(p, who->account, name, &count);
        int r = plane_writable(p, e);

        if (r < 0)
                return r;
        if (!t)
                return err_set(e, -ENOENT, "template '%.64s' not found", name);
        if (!txn)
                return err_set(e, -ENOMEM, "out of memory");
        store_del(txn, ST_TEMPLATE, json_pack("{s:s}", "id", t->id));
        (void) template_free(map_del(p->templates, t->id));
        plane_submit(p, TAKE(txn));
        return 0;
}
