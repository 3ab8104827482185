/* cmd_life.c - start, stop, restart, update and remove, each of several clusters.  Runs in tensoronecli. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/jsonx.h"
#include "base/str.h"
#include "cli/cli.h"
#include "cli/clusters.h"
#include "cli/each.h"
#include "cli/values.h"

/* One cluster by id; *@ret is what the mutation answered (may stay NULL). */
typedef int one_fn(struct cli *c, const char *id, json_t **ret, struct err *e);

static int mutate(struct api *a, const char *query, const char *root, json_t *vars, json_t **ret,
                  struct err *e)
{
        AUTO(json_put) json_t *data = NULL;
        int r = api_graphql(a, query, vars, &data, e);

        if (r >= 0)
                *ret = json_incref(json_object_get(data, root));
        return r;
}

static int expect_status(const json_t *j, const char *id, const char *want, struct err *e)
{
        const char *status = jsonx_str(j, "desiredStatus");
        const char *why = jsonx_str(j, "lastStatusChange");

        if (str_eq(status, want))
                return 0;
        return err_set(e, -EREMOTEIO, "cluster \"%s\" is %s%s%s", id, status ? status : "unknown",
                       str_empty(why) ? "" : ": ", why ? why : "");
}

static int wait_if(struct cli *c, const char *id, enum cluster_goal goal, struct err *e)
{
        return c->opt[OPT_WAIT].b ? cluster_wait(c->api, id, goal, e) : 0;
}

/* And say where it is reached then. */
static int wait_ready(struct cli *c, const char *id, struct err *e)
{
        int r = wait_if(c, id, GOAL_READY, e);

        return r < 0 || !c->opt[OPT_WAIT].b ? r : cluster_report_reached(c, id, e);
}

static int start_one(struct cli *c, const char *id, json_t **ret, struct err *e)
{
        static const char resume[] =
                "mutation startCluster($input: ClusterResumeInput!){"
                "clusterResume(input:$input){id costPerHr desiredStatus lastStatusChange}}";
        static const char bid[] =
                "mutation startCluster($input: ClusterBidResumeInput!){"
                "clusterBidResume(input:$input){id costPerHr desiredStatus lastStatusChange}}";
        const struct opt_value *offer = &c->opt[OPT_BID], *gpus = &c->opt[OPT_RESUME_GPU_COUNT];
        json_t *vars = cluster_input(id), *input = json_object_get(vars, "input");
        int r = vars ? 0 : -ENOMEM;

        if (r >= 0 && gpus->given)
                r = json_object_set_new(input, "gpuCount", json_integer((json_int_t) gpus->n));
        if (r >= 0 && offer->f > 0)
                r = json_object_set_new(input, "bidPerGpu", json_real(offer->f));
        if (r < 0) {
                json_decref(vars);
                return err_set(e, -ENOMEM, "out of memory");
        }
        r = offer->f > 0 ? mutate(c->api, bid, "clusterBidResume", vars, ret, e)
                         : mutate(c->api, resume, "clusterResume", vars, ret, e);
        if (r >= 0)
                r = expect_status(*ret, id, "RUNNING", e);
        if (r >= 0 && !cli_json(c))
                r = out_printf(e, "cluster \"%s\" started with $%.3f / hr\n", id,
                               json_number_value(json_object_get(*ret, "costPerHr")));
        return r < 0 ? r : wait_ready(c, id, e);
}

static int stop_one(struct cli *c, const char *id, json_t **ret, struct err *e)
{
        int r = mutate(c->api,
                       "mutation stopCluster($input: ClusterStopInput!){"
                       "clusterStop(input:$input){id desiredStatus lastStatusChange}}",
                       "clusterStop", cluster_input(id), ret, e);

        if (r >= 0)
                r = expect_status(*ret, id, "EXITED", e);
        if (r >= 0)
                r = wait_if(c, id, GOAL_STOPPED, e);
        if (r >= 0 && !cli_json(c))
                r = out_printf(e, "cluster \"%s\" stopped\n", id);
        return r;
}

static int restart_one(struct cli *c, const char *id, json_t **ret, struct err *e)
{
        int r = mutate(c->api,
                       "mutation restartCluster($input: ClusterRestartInput!){"
                       "clusterRestart(input:$input){id costPerHr desiredStatus "
                       "lastStatusChange}}",
                       "clusterRestart", cluster_input(id), ret, e);

        if (r >= 0 && !cli_json(c))
                r = out_printf(e, "cluster \"%s\" restarted\n", id);
        return r < 0 ? r : wait_ready(c, id, e);
}

static int update_input(struct cli *c, json_t *input, struct err *e)
{
        static const struct {
                enum opt_id opt;
                const char *field;
        } rows[] = {
                { OPT_NEW_GPU_COUNT, "gpuCount" },
                { OPT_NEW_VCPU, "vcpuCount" },
                { OPT_NEW_MEM, "memoryInGb" },
                { OPT_NEW_CONTAINER_DISK, "containerDiskInGb" },
                { OPT_NEW_VOLUME_SIZE, "volumeInGb" },
                { OPT_SEEN_VERSION, "generation" },
        };
        bool any = false;
        int r;

        for (size_t i = 0; i < NELEM(rows); i++) {
                const struct opt_value *v = &c->opt[rows[i].opt];

                if (!v->given)
                        continue;
                any = any || rows[i].opt != OPT_SEEN_VERSION;
                if (json_object_set_new(input, rows[i].field, json_integer((json_int_t) v->n)) < 0)
                        return err_set(e, -ENOMEM, "out of memory");
        }
        any = any || c->opt[OPT_EGRESS].given || c->opt[OPT_ALLOWED_IPS].given ||
              c->opt[OPT_IDLE_TIMEOUT].given || c->opt[OPT_IDLE_ACTION].given;
        if (!any)
                return err_set(e, -EINVAL,
                               "update what? One of: --gpuCount, --vcpu, --mem, "
                               "--containerDiskSize, --volumeSize, --egressAllow, --allowedIps, "
                               "--idleTimeout, --idleAction");
        r = values_egress(c, OPT_EGRESS, input, e);
        if (r >= 0)
                r = values_allowed_ips(c, input, e);
        return r < 0 ? r : values_idle(c, input, e);
}

static int update_one(struct cli *c, const char *id, json_t **ret, struct err *e)
{
        json_t *vars = cluster_input(id);
        int r = vars ? update_input(c, json_object_get(vars, "input"), e)
                     : err_set(e, -ENOMEM, "out of memory");
        bool under_way;

        if (r < 0) {
                json_decref(vars);
                return r;
        }
        r = mutate(c->api,
                   "mutation updateCluster($input: ClusterUpdateInput!){"
                   "clusterUpdate(input:$input){id version updating desiredStatus gpuCount "
                   "vcpuCount memoryInGb containerDiskInGb volumeInGb egressAllow allowedIps}}",
                   "clusterUpdate", vars, ret, e);
        if (r < 0)
                return r;
        under_way = json_is_true(json_object_get(*ret, "updating"));
        if (under_way && c->opt[OPT_WAIT].b) {
                r = cluster_wait_update(c->api, id, e);
                if (r >= 0 && json_object_set_new(*ret, "updating", json_false()) < 0)
                        r = err_set(e, -ENOMEM, "out of memory");
                under_way = false;
        }
        if (r < 0 || cli_json(c))
                return r;
        return out_printf(e, "cluster \"%s\" %s\n", id, under_way ? "is being updated" : "updated");
}

static int terminate(struct cli *c, const char *id, struct err *e)
{
        json_t *ignored = NULL;
        int r = mutate(c->api,
                       "mutation removeCluster($input: ClusterTerminateInput!){"
                       "clusterTerminate(input:$input)}",
                       "clusterTerminate", cluster_input(id), &ignored, e);

        json_decref(ignored);
        return r;
}

static int remove_one(struct cli *c, const char *id, json_t **ret, struct err *e)
{
        int r = terminate(c, id, e);

        if (r < 0)
                return r;
        *ret = json_pack("{s:s,s:b}", "id", id, "removed", 1);
        if (!*ret)
                return err_set(e, -ENOMEM, "out of memory");
        return cli_json(c) ? 0 : out_printf(e, "cluster \"%s\" removed\n", id);
}

struct deed {
        one_fn *fn;
};

static int find_and_do(struct cli *c, const char *word, void *arg, json_t **ret, struct err *e)
{
        const struct deed *d = arg;
        AUTO(free) char *id = NULL;
        int r = cluster_find(c->api, word, &id, e);

        return r < 0 ? r : d->fn(c, id, ret, e);
}

static int for_each(struct cli *c, one_fn *fn, struct err *e)
{
        struct deed d = { fn };

        return each_operand(c, find_and_do, &d, e);
}

int cmd_start(struct cli *c, struct err *e)
{
        return for_each(c, start_one, e);
}

int cmd_stop(struct cli *c, struct err *e)
{
        return for_each(c, stop_one, e);
}

int cmd_restart(struct cli *c, struct err *e)
{
        return for_each(c, restart_one, e);
}

int cmd_update(struct cli *c, struct err *e)
{
        return for_each(c, update_one, e);
}

int cmd_remove(struct cli *c, struct err *e)
{
        return for_each(c, remove_one, e);
}

int cmd_remove_named(struct cli *c, struct err *e)
{
        const char *name = c->operands[0];
        uint64_t most = c->opt[OPT_CLUSTER_COUNT].n, n = 0;
        AUTO(json_put) json_t *all = NULL, *answer = NULL;
        const json_t *one;
        size_t i;
        int r = cluster_list(c->api, &all, e);

        json_array_foreach(all, i, one)
        {
                if (r < 0 || n >= most)
                        break;
                if (!str_eq(jsonx_str(one, "name"), name))
                        continue;
                r = terminate(c, jsonx_str(one, "id"), e);
                n += r >= 0;
        }
        if (r < 0)
                return n > 0 ? err_wrap(e, r, "after %llu were removed", (unsigned long long) n)
                             : r;
        if (!cli_json(c))
                return out_printf(e, "%llu clusters removed with name \"%s\"\n",
                                  (unsigned long long) n, name);
        answer = json_pack("{s:s,s:I}", "name", name, "removed", (json_int_t) n);
        return answer ? out_json(answer, e) : err_set(e, -ENOMEM, "out of memory");
}
