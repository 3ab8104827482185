/* metrics.c - GET /metrics: the host, its clusters and its GPUs as Prometheus reads them (text format
 * 0.0.4).  tensorone-api, loop thread; everything is in memory.
 *
 * The GPUs' families and labels are those of dcgm-exporter, so that its dashboards work; where DCGM has
 * no name for what is measured, and for everything else, names begin with hvmm_.  Counters of clusters
 * have the cluster as a label, so that none of them ever falls. */
#include <errno.h>
#include <math.h>
#include <unistd.h>

#include "base/jsonx.h"
#include "base/str.h"
#include "control/rest/http_priv.h"
#include "model/gpu_telemetry.h"

#define TYPE "text/plain; version=0.0.4; charset=utf-8"

/* ---- lines ---- */

static void family(struct strbuf *b, const char *name, const char *type, const char *help)
{
        strbuf_fmt(b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* A label's value: backslash, quote and line break are escaped; what is not UTF-8 was never taken. */
static void label(struct strbuf *b, const char *name, const char *value, bool first)
{
        strbuf_fmt(b, "%s%s=\"", first ? "{" : ",", name);
        for (const char *s = value ? value : ""; *s; s++) {
                if (*s == '\n')
                        strbuf_str(b, "\\n");
                else if (*s == '\\' || *s == '"')
                        strbuf_fmt(b, "\\%c", *s);
                else
                        strbuf_char(b, *s);
        }
        strbuf_char(b, '"');
}

/* Whole numbers without an exponent, others as short as they read back. */
static void number(struct strbuf *b, double v)
{
        if (v >= 0 && v <= (double) JSONX_EXACT_MAX && v - (double) (uint64_t) v <= 0)
                strbuf_fmt(b, " %llu\n", (unsigned long long) v);
        else
                strbuf_fmt(b, " %.15g\n", v);
}

static void gauge(struct strbuf *b, const char *name, const char *help, double v)
{
        family(b, name, "gauge", help);
        strbuf_str(b, name);
        number(b, v);
}

/* ---- the host ---- */

static void host_metrics(struct strbuf *b, const struct plane *p)
{
        struct plane_host h;
        const char *why;

        plane_host(p, &h);
        family(b, "hvmm_build_info", "gauge", "Always 1; the versions of API and engine.");
        strbuf_str(b, "hvmm_build_info");
        label(b, "version", HVMM_VERSION, true);
        label(b, "engine", h.inv ? h.inv->version : "", false);
        strbuf_str(b, "} 1\n");
        gauge(b, "hvmm_node_connected", "Whether the engine is connected and in step.",
              node_connected(plane_node(p)));
        gauge(b, "hvmm_healthy", "Whether /health says ok.", plane_healthy(p, &why));
        family(b, "hvmm_boots_total", "counter",
               "First processes of clusters that began to run since this program started.");
        strbuf_str(b, "hvmm_boots_total");
        number(b, (double) plane_boots(p));
        gauge(b, "hvmm_vcpus_total", "vCPUs that may be sold, overcommit included.",
              (double) h.vcpu_total);
        gauge(b, "hvmm_vcpus_taken", "vCPUs that clusters hold.", (double) h.vcpu_taken);
        gauge(b, "hvmm_memory_total_bytes", "Memory that may be sold, overcommit included.",
              (double) h.memory_mib * 1048576.0);
        gauge(b, "hvmm_memory_taken_bytes", "Memory that clusters hold.",
              (double) h.memory_taken_mib * 1048576.0);
        gauge(b, "hvmm_disk_total_bytes", "Disk space that may be sold, overcommit included.",
              (double) h.disk_gib * 1073741824.0);
        gauge(b, "hvmm_disk_taken_bytes", "Disk space that clusters and their volumes hold.",
              (double) h.disk_taken_gib * 1073741824.0);
}

/* ---- clusters ---- */

static void cluster_labels(struct strbuf *b, const char *name, const struct cluster *k)
{
        strbuf_str(b, name);
        label(b, "cluster", k->id, true);
        label(b, "account", k->account, false);
        strbuf_char(b, '}');
}

static double m_restarts(const struct cluster *k)
{
        return (double) k->restarts;
}
static double m_oom(const struct cluster *k)
{
        return (double) k->oom_kills;
}
static double m_cpu(const struct cluster *k)
{
        return cluster_runs(k) && k->usage.at_us ? (double) k->usage.cpu_us * 1e-6 : (double) NAN;
}
static double m_memory(const struct cluster *k)
{
        return cluster_runs(k) && k->usage.at_us ? (double) k->usage.memory_bytes : (double) NAN;
}
static double known(const struct cluster *k, double v)
{
        return cluster_runs(k) && k->usage.at_us ? v / 100 : (double) NAN;
}
static double m_pressure_cpu(const struct cluster *k)
{
        return known(k, k->usage.pressure_cpu);
}
static double m_pressure_memory(const struct cluster *k)
{
        return known(k, k->usage.pressure_memory);
}
static double m_pressure_io(const struct cluster *k)
{
        return known(k, k->usage.pressure_io);
}
static double m_gpus(const struct cluster *k)
{
        return k->gpu_count;
}

static const struct cluster_metric {
        const char *name, *type, *help;
        double (*value)(const struct cluster *k); /* NaN: not said */
} cluster_metrics[] = {
        { "hvmm_cluster_restarts_total", "counter",
          "Times that its first process ended by itself and was started again.", m_restarts },
        { "hvmm_cluster_oom_kills_total", "counter",
          "Processes that the kernel ended because its memory was full.", m_oom },
        { "hvmm_cluster_cpu_seconds_total", "counter", "Processor time that it has used.", m_cpu },
        { "hvmm_cluster_memory_bytes", "gauge", "Memory that it uses.", m_memory },
        { "hvmm_cluster_pressure_cpu_ratio", "gauge",
          "Share of the last ten seconds in which some of it waited for a processor.",
          m_pressure_cpu },
        { "hvmm_cluster_pressure_memory_ratio", "gauge",
          "Share of the last ten seconds in which some of it waited for memory.",
          m_pressure_memory },
        { "hvmm_cluster_pressure_io_ratio", "gauge",
          "Share of the last ten seconds in which some of it waited for a disk.", m_pressure_io },
        { "hvmm_cluster_gpus", "gauge", "GPUs that it has.", m_gpus },
};

struct each {
        struct strbuf *b;
        const struct cluster_metric *m;
        unsigned states[CS_STATE_COUNT];
};

static int count_state(void *arg, const struct cluster *k)
{
        struct each *x = arg;

        x->states[k->state]++;
        return 0;
}

static int cluster_line(void *arg, const struct cluster *k)
{
        struct each *x = arg;
        double v = x->m->value(k);

        if (isnan(v))
                return 0;
        cluster_labels(x->b, x->m->name, k);
        number(x->b, v);
        return 0;
}

static void clusters_metrics(struct strbuf *b, const struct plane *p)
{
        struct each x = { .b = b };

        (void) plane_all_clusters(p, count_state, &x);
        family(b, "hvmm_clusters", "gauge", "Clusters by what they are doing.");
        for (enum cluster_state s = CS_NONE + 1; s < CS_STATE_COUNT; s++) {
                strbuf_str(b, "hvmm_clusters");
                label(b, "state", cluster_state_names[s], true);
                strbuf_fmt(b, "} %u\n", x.states[s]);
        }
        for (x.m = cluster_metrics; x.m < cluster_metrics + NELEM(cluster_metrics); x.m++) {
                family(b, x.m->name, x.m->type, x.m->help);
                (void) plane_all_clusters(p, cluster_line, &x);
        }
}

/* ---- GPUs ---- */

/* What all lines of a GPU have in common, made once. */
struct gpu_rows {
        const struct gpu_fleet *fleet;
        struct gpu_row {
                const struct gpu_telemetry *t; /* NULL: nothing is known */
                char *labels;                  /* without the closing brace */
        } row[GPU_MAX];
};

/* As dcgm-exporter has them; an instance carries its profile, too. */
static void gpu_labels(struct strbuf *b, const struct plane *p, const char *host,
                       const struct gpu *g)
{
        const struct gpu_fleet *f = plane_gpus(p);
        char text[96];

        (void) snprintf(text, sizeof text, "%u", g->index);
        label(b, "gpu", text, true);
        label(b, "UUID", g->uuid, false);
        label(b, "pci_bus_id", g->pci, false);
        (void) snprintf(text, sizeof text, "nvidia%u", g->minor);
        label(b, "device", text, false);
        label(b, "modelName", g->name, false);
        if (g->mig_profile) {
                label(b, "GPU_I_PROFILE", g->mig_profile, false);
                (void) snprintf(text, sizeof text, "%u", g->gi);
                label(b, "GPU_I_ID", text, false);
        }
        label(b, "Hostname", host, false);
        label(b, "DCGM_FI_DRIVER_VERSION", f->driver_version, false);
        label(b, "cluster", plane_gpu_holder(p, g->uuid), false);
        if (f->simulated)
                label(b, "simulated", "true", false);
}

static void make_rows(struct gpu_rows *rows, const struct plane *p, struct strbuf *b)
{
        char host[65] = "";

        rows->fleet = plane_gpus(p);
        (void) gethostname(host, sizeof host - 1);
        for (size_t i = 0; i < rows->fleet->n; i++) {
                struct gpu_row *row = &rows->row[i];
                struct strbuf labels = { 0 };

                gpu_labels(&labels, p, host, &rows->fleet->gpus[i]);
                row->labels = strbuf_take(&labels);
                b->failed = b->failed || !row->labels;
                row->t = plane_telemetry(p, rows->fleet->gpus[i].uuid, NULL);
        }
}

static void drop_rows(struct gpu_rows *rows)
{
        for (size_t i = 0; i < rows->fleet->n; i++)
                free(rows->row[i].labels);
}

static void gpu_line(struct strbuf *b, const char *name, const struct gpu_row *row, double v)
{
        strbuf_str(b, name);
        strbuf_str(b, row->labels);
        strbuf_char(b, '}');
        number(b, v);
}

static void gpu_metric_lines(struct strbuf *b, const struct gpu_rows *rows, enum gpu_metric m)
{
        const struct gpu_metric_info *info = &gpu_metrics[m];
        AUTO(free)
        char *name = info->dcgm ? strdup(info->dcgm) : str_fmt("hvmm_gpu_%s", info->name);
        bool begun = false;

        if (!name) {
                b->failed = true;
                return;
        }
        for (size_t i = 0; i < rows->fleet->n; i++) {
                const struct gpu_row *row = &rows->row[i];

                if (!row->t || row->t->value[m] == GPU_UNKNOWN)
                        continue;
                if (!begun)
                        family(b, name, info->type, info->help);
                begun = true;
                gpu_line(b, name, row, (double) row->t->value[m] * info->scale);
        }
}

/* What is free of the framebuffer, which dashboards divide by. */
static void gpu_free_memory(struct strbuf *b, const struct gpu_rows *rows)
{
        static const char name[] = "DCGM_FI_DEV_FB_FREE";
        bool begun = false;

        for (size_t i = 0; i < rows->fleet->n; i++) {
                const struct gpu_telemetry *t = rows->row[i].t;
                uint64_t total = t ? t->value[GM_MEMORY_TOTAL_MIB] : GPU_UNKNOWN;
                uint64_t used = t ? t->value[GM_MEMORY_USED_MIB] : GPU_UNKNOWN;

                if (total == GPU_UNKNOWN || used == GPU_UNKNOWN)
                        continue;
                if (t->value[GM_MEMORY_RESERVED_MIB] != GPU_UNKNOWN)
                        used += t->value[GM_MEMORY_RESERVED_MIB];
                if (!begun)
                        family(b, name, "gauge", "Framebuffer memory free (in MiB).");
                begun = true;
                gpu_line(b, name, &rows->row[i], total > used ? (double) (total - used) : 0);
        }
}

/* One line for each state, 1 for the one that holds. */
static void gpu_states(struct strbuf *b, const struct gpu_rows *rows)
{
        if (rows->fleet->n == 0)
                return;
        family(b, "hvmm_gpu_state", "gauge",
               "1 for the state that a GPU is in, 0 for the others; only those that are ok are "
               "rented out.");
        for (size_t i = 0; i < rows->fleet->n; i++) {
                for (enum gpu_state s = GS_NONE + 1; s < GS_STATE_COUNT; s++) {
                        strbuf_str(b, "hvmm_gpu_state");
                        strbuf_str(b, rows->row[i].labels);
                        label(b, "state", gpu_state_names[s], false);
                        strbuf_fmt(b, "} %d\n", rows->fleet->gpus[i].state == s);
                }
        }
}

static void gpu_counts(struct strbuf *b, const struct plane *p)
{
        const struct gpu_fleet *f = plane_gpus(p);
        unsigned total = 0, taken = 0, quarantined = 0;

        for (size_t i = 0; i < f->n; i++) {
                total += gpu_is_for_rent(&f->gpus[i]);
                taken += plane_gpu_holder(p, f->gpus[i].uuid) != NULL;
                quarantined += f->gpus[i].state == GS_QUARANTINED;
        }
        gauge(b, "hvmm_gpus_total", "GPUs that may be rented, whatever their state.", total);
        gauge(b, "hvmm_gpus_taken", "GPUs that clusters hold.", taken);
        gauge(b, "hvmm_gpus_quarantined",
              "GPUs that failed a check after a lease and wait for the operator's release.",
              quarantined);
        gauge(b, "hvmm_gpus_simulated", "Whether the GPUs are stand-ins.", f->simulated);
}

static void gpus_metrics(struct strbuf *b, const struct plane *p)
{
        struct gpu_rows rows = { 0 };

        gpu_counts(b, p);
        make_rows(&rows, p, b);
        if (!b->failed) {
                gpu_states(b, &rows);
                for (enum gpu_metric m = 0; m < GM_COUNT; m++)
                        gpu_metric_lines(b, &rows, m);
                gpu_free_memory(b, &rows);
        }
        drop_rows(&rows);
}

void handle_metrics(struct http_request *q)
{
        struct strbuf b = { 0 };

        host_metrics(&b, q->plane);
        clusters_metrics(&b, q->plane);
        gpus_metrics(&b, q->plane);
        http_reply_buf(q, MHD_HTTP_OK, TYPE, &b);
}
