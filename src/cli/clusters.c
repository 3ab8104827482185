/* clusters.c - see clusters.h.  Runs in tensoronecli. */
#include "cli/clusters.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/jsonx.h"
#include "cli/cli.h"
#include "cli/out.h"
#include "model/limits.h"

#define SELECTION                                                                                                                                           \
        "id name imageName desiredStatus phase progressPercent progressBytes "                                                                              \
        "progressTotalBytes progressBytesPerSecond reason lastStatusChange "                                                                                \
        "createdAt lastStartedAt costPerHr clusterType gpuCount vcpuCount memoryInGb "                                                                      \
        "containerDiskInGb volumeInGb volumeMountPath dockerArgs env ports templateId version securityProfile egressAllow allowedIps security gpuReceipts " \
        "idleTimeoutSeconds idleAction idleSeconds lastUse urls readinessPath "                                                                             \
        "uptimeSeconds machineId machine{gpuDisplayName location} "                                                                                         \
        "runtime{uptimeInSeconds ports{ip isIpPublic privatePort publicPort type} "                                                                         \
        "container{cpuPercent memoryPercent cpuPressurePercent memoryPressurePercent ioPressurePercent}}"

const char cluster_selection[] = SELECTION;

static bool looks_like_id(const char *s)
{
        size_t n = strlen(s);

        return n > 0 && n <= LIMIT_CLUSTER_ID_LEN &&
               strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789") == n;
}

/* The list below myself.clusters; new reference. */
static int list(struct api *a, const char *query, json_t **ret, struct err *e)
{
        AUTO(json_put) json_t *data = NULL;
        json_t *found;
        int r = api_graphql(a, query, NULL, &data, e);

        if (r < 0)
                return r;
        found = json_object_get(json_object_get(data, "myself"), "clusters");
        if (!json_is_array(found))
                return err_set(e, -EPROTO, "the API's answer has no list of clusters");
        *ret = json_incref(found);
        return 0;
}

/* By id; *@ret stays NULL when there is none. */
static int by_id(struct api *a, const char *query, const char *id, json_t **ret, struct err *e)
{
        AUTO(json_put) json_t *data = NULL;
        json_t *found;
        int r = api_graphql(a, query, json_pack("{s:s}", "id", id), &data, e);

        if (r < 0)
                return r;
        found = json_object_get(data, "cluster");
        if (json_is_object(found))
                *ret = json_incref(found);
        return 0;
}

static int ambiguous(const json_t *all, const char *name, struct err *e)
{
        AUTO(strbuf_done) struct strbuf ids = { 0 };
        size_t i, n = 0;
        json_t *c;

        json_array_foreach(all, i, c)
        {
                if (!str_eq(jsonx_str(c, "name"), name))
                        continue;
                if (n++ < 8)
                        strbuf_fmt(&ids, "%s%s", n > 1 ? ", " : "", jsonx_str(c, "id"));
        }
        return err_set(e, -ENOTUNIQ, "%zu clusters are named \"%s\" (%s%s); use an id", n, name,
                       ids.s ? ids.s : "", n > 8 ? ", ..." : "");
}

/* By id, else by name, with either query's fields. */
static int find(struct api *a, const char *word, const char *one, const char *all_query,
                json_t **ret, struct err *e)
{
        AUTO(json_put) json_t *all = NULL;
        json_t *c, *named = NULL;
        size_t i;
        int r = looks_like_id(word) ? by_id(a, one, word, ret, e) : 0;

        if (r < 0 || *ret)
                return r;
        r = list(a, all_query, &all, e);
        if (r < 0)
                return r;
        json_array_foreach(all, i, c)
        {
                if (!str_eq(jsonx_str(c, "name"), word))
                        continue;
                if (named)
                        return ambiguous(all, word, e);
                named = c;
        }
        if (!named)
                return err_set(e, -ENOENT, "there is no cluster \"%s\"", word);
        *ret = json_incref(named);
        return 0;
}

int cluster_find(struct api *a, const char *word, char **ret_id, struct err *e)
{
        AUTO(json_put) json_t *c = NULL;
        const char *id;
        int r = find(a, word,
                     "query findCluster($id: String!){cluster(input:{clusterId:$id}){id "
                     "name}}",
                     "query listClusters{myself{clusters{id name}}}", &c, e);

        if (r < 0)
                return r;
        id = jsonx_str(c, "id");
        if (str_empty(id))
                return err_set(e, -EPROTO, "the API's answer has no id");
        *ret_id = strdup(id);
        return *ret_id ? 0 : err_set(e, -ENOMEM, "out of memory");
}

int cluster_get(struct api *a, const char *word, json_t **ret, struct err *e)
{
        return find(a, word,
                    "query getCluster($id: String!){cluster(input:{clusterId:$id}){" SELECTION "}}",
                    "query getClusters{myself{clusters{" SELECTION "}}}", ret, e);
}

int cluster_list(struct api *a, json_t **ret, struct err *e)
{
        return list(a, "query getClusters{myself{clusters{" SELECTION "}}}", ret, e);
}

json_t *cluster_input(const char *id)
{
        return json_pack("{s:{s:s}}", "input", "clusterId", id);
}

/* What one look at the cluster means: 1 there, 0 not yet, < 0 it failed. */
static int judge(const json_t *c, const char *id, enum cluster_goal goal, struct err *e)
{
        const char *status = jsonx_str(c, "desiredStatus"), *phase = jsonx_str(c, "phase");
        const char *reason = jsonx_str(c, "reason");

        if (goal == GOAL_STOPPED)
                return !c || str_eq(phase, "exited") ||
                       (str_empty(phase) && str_eq(status, "EXITED"));
        if (!c)
                return err_set(e, -ECHILD, "cluster \"%s\" is gone", id);
        if (str_eq(status, "EXITED") || str_eq(status, "DEAD") || str_eq(phase, "exited"))
                return err_set(e, -ECHILD, "cluster \"%s\" did not start: %s", id,
                               str_empty(reason) ? "it was stopped" : reason);
        if (str_eq(phase, "backoff"))
                return err_set(e, -ECHILD, "cluster \"%s\" started and its main process ended: %s",
                               id, str_empty(reason) ? "see its logs" : reason);
        /* an API without phases knows nothing more than that it runs */
        return json_is_object(json_object_get(c, "runtime")) &&
               (str_empty(phase) || str_eq(phase, "ready"));
}

static uint64_t amount(const json_t *c, const char *key)
{
        json_int_t n = json_integer_value(json_object_get(c, key));

        return n > 0 ? (uint64_t) n : 0;
}

void cluster_progress(const json_t *c, struct progress_state *ret)
{
        const char *phase = jsonx_str(c, "phase");
        bool pulls = str_eq(phase, "pulling");
        uint64_t total = pulls ? amount(c, "progressTotalBytes") : 0;

        *ret = (struct progress_state){ .phase = str_empty(phase) ? "waiting" : phase };
        if (total > 0) {
                ret->done = amount(c, "progressBytes");
                ret->total = total;
                ret->per_s = amount(c, "progressBytesPerSecond");
                ret->bytes = true;
        } else if (pulls) {
                ret->done = amount(c, "progressPercent");
                ret->total = 100;
        }
}

int cluster_wait(struct api *a, const char *id, enum cluster_goal goal, struct err *e)
{
        static const char query[] = "query waitCluster($id: String!){cluster(input:{clusterId:$id})"
                                    "{id desiredStatus phase progressPercent progressBytes "
                                    "progressTotalBytes progressBytesPerSecond reason "
                                    "runtime{uptimeInSeconds}}}";
        static const struct timespec first = { 0, 100000000 }, pause = { 0, 500000000 };
        struct progress p;
        int r;

        progress_init(&p);
        for (unsigned turn = 0;; turn++) {
                AUTO(json_put) json_t *c = NULL;
                struct progress_state s;

                r = by_id(a, query, id, &c, e);
                if (r >= 0)
                        r = judge(c, id, goal, e);
                if (r != 0)
                        break;
                cluster_progress(c, &s);
                progress_show(&p, &s);
                (void) nanosleep(turn < 10 ? &first : &pause, NULL);
        }
        progress_clear(&p);
        return r < 0 ? r : 0;
}

int cluster_wait_update(struct api *a, const char *id, struct err *e)
{
        static const char query[] = "query waitCluster($id: String!){cluster(input:{clusterId:$id})"
                                    "{id updating updateRefused}}";
        static const struct timespec first = { 0, 10000000 }, pause = { 0, 500000000 };

        for (unsigned turn = 0;; turn++) {
                AUTO(json_put) json_t *c = NULL;
                const char *why;
                int r = by_id(a, query, id, &c, e);

                if (r < 0)
                        return r;
                if (!c)
                        return err_set(e, -ECHILD, "cluster \"%s\" is gone", id);
                why = jsonx_str(c, "updateRefused");
                if (!json_is_true(json_object_get(c, "updating")))
                        return str_empty(why)
                                       ? 0
                                       : err_set(e, -EREMOTEIO,
                                                 "cluster \"%s\" was not updated: %s", id, why);
                (void) nanosleep(turn < 50 ? &first : &pause, NULL);
        }
}

int time_text(const char *field, const char *word, bool ahead, char ret[static 32], struct err *e)
{
        uint64_t us, now = clock_wall_us();

        if (str_duration_us(word, &us) >= 0) {
                if (us > now)
                        return err_set(e, -ERANGE, "--%s: %s is out of range", field, word);
                clock_format(ahead ? now + us : now - us, ret, 32);
                return 0;
        }
        if (clock_parse(word, &us) < 0)
                return err_set(e, -EINVAL,
                               "--%s: \"%s\" is neither a time such as "
                               "2026-01-31T08:00:00Z nor a span such as 10m",
                               field, word);
        clock_format(us, ret, 32);
        return 0;
}

static int report_port(const json_t *port, const char *url, struct err *e)
{
        const long long inside = json_integer_value(json_object_get(port, "privatePort"));

        if (url)
                return out_printf(e, "port %lld/http at %s\n", inside, url);
        if (!json_is_true(json_object_get(port, "isIpPublic")))
                return 0;
        return out_printf(e, "port %lld/%s at %s:%lld\n", inside, jsonx_str(port, "type"),
                          jsonx_str(port, "ip"),
                          json_integer_value(json_object_get(port, "publicPort")));
}

int cluster_report_reached(struct cli *c, const char *id, struct err *e)
{
        AUTO(json_put) json_t *got = NULL;
        json_t *port, *urls;
        size_t i, web = 0;
        int r = cli_json(c) ? 0 : cluster_get(c->api, id, &got, e);

        urls = json_object_get(got, "urls"); /* in the order of its web ports */
        json_array_foreach(json_object_get(json_object_get(got, "runtime"), "ports"), i, port)
        {
                const bool http = str_eq(jsonx_str(port, "type"), "http");

                if (r >= 0)
                        r = report_port(port,
                                        http ? json_string_value(json_array_get(urls, web)) : NULL,
                                        e);
                web += http;
        }
        return r;
}
