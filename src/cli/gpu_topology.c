/* gpu_topology.c - the matrices of `get gpus --topo` and `--p2p`.  Pure.
 *
 * Columns, words and tabs are those of `nvidia-smi topo -m` and `-p2p`, which scripts cut apart. */
#include <stdio.h>
#include <stdlib.h>

#include "base/jsonx.h"
#include "cli/gpus.h"

struct matrix {
        const char *heads;                                   /* of the columns behind the GPUs' */
        const char *key;                                     /* of the list that has a GPU's row */
        const char *self, *unknown;                          /* NULL: as the list says */
        void (*more)(const json_t *gpu, struct strbuf *out); /* those columns; NULL: none */
        struct {
                const char *word, *meaning;
        } legend[9];
};

/* MIG instances are not joined with anything. */
static bool is_whole(const json_t *gpu)
{
        return !json_is_string(json_object_get(gpu, "parentId"));
}

static long long index_of(const json_t *gpu)
{
        return json_integer_value(json_object_get(gpu, "index"));
}

/* "NV12/SYS" is NV12 here. */
static void add_link(const char *link, struct strbuf *out)
{
        size_t n = link ? strcspn(link, "/") : 0;
        AUTO(free) char *word = strndup(link ? link : "", n);

        if (!word) {
                out->failed = true;
                return;
        }
        str_tame(word, '?');
        strbuf_fmt(out, "\t%s", *word == '\0' ? "N/A" : str_eq(word, "X") ? " X " : word);
}

/* "0", "1", "2", "8" as 0-2,8. */
static void add_cpus(const json_t *cpus, struct strbuf *out)
{
        uint64_t first = 0, last = 0, cpu;
        size_t i, n = json_array_size(cpus), runs = 0;

        for (i = 0; i <= n; i++) {
                const char *s = i < n ? json_string_value(json_array_get(cpus, i)) : NULL;

                if (i < n && (!s || str_u64(s, 0, 65535, &cpu) < 0))
                        continue;
                if (i < n && runs > 0 && cpu == last + 1) {
                        last = cpu;
                        continue;
                }
                if (runs > 0)
                        strbuf_fmt(out, first == last ? "%s%llu" : "%s%llu-%llu",
                                   runs > 1 ? "," : "", (unsigned long long) first,
                                   (unsigned long long) last);
                first = last = i < n ? cpu : 0;
                runs++;
        }
        if (runs < 2)
                strbuf_str(out, "N/A");
}

static void add_heads(const json_t *gpus, struct strbuf *out)
{
        const json_t *gpu;
        size_t i;

        json_array_foreach(gpus, i, gpu)
        {
                if (is_whole(gpu))
                        strbuf_fmt(out, "\tGPU%lld", index_of(gpu));
        }
}

static void add_affinity(const json_t *gpu, struct strbuf *out)
{
        const json_t *numa = json_object_get(gpu, "numaNode");

        strbuf_char(out, '\t');
        add_cpus(json_object_get(gpu, "cpus"), out);
        if (json_is_integer(numa))
                strbuf_fmt(out, "\t%lld", (long long) json_integer_value(numa));
        else
                strbuf_str(out, "\tN/A");
}

static const struct matrix topology = {
        .heads = "\tCPU Affinity\tNUMA Affinity",
        .key = "links",
        .more = add_affinity,
        .legend = { { "X", "the GPU itself" },
                    { "SYS", "through PCIe and the link between NUMA nodes" },
                    { "NODE", "through PCIe and the link between host bridges of one NUMA node" },
                    { "PHB", "through PCIe and one host bridge" },
                    { "PXB", "through several PCIe switches, and no host bridge" },
                    { "PIX", "through one PCIe switch" },
                    { "NV#", "through so many NVLinks" } },
};

static const struct matrix p2p = {
        .heads = "",
        .key = "p2p",
        .self = "X",
        .unknown = "U",
        .legend = { { "X", "the GPU itself" },
                    { "OK", "each reads and writes the other's memory" },
                    { "CNS", "not with this chipset" },
                    { "GNS", "not with these GPUs" },
                    { "TNS", "not across what lies between them" },
                    { "DR", "switched off in the driver" },
                    { "NS", "not, for another reason" },
                    { "U", "the driver does not say" } },
};

static void add_row(const struct matrix *m, const json_t *gpus, const json_t *a, struct strbuf *out)
{
        const json_t *row = json_object_get(a, m->key), *b;
        size_t k;

        strbuf_fmt(out, "GPU%lld", index_of(a));
        json_array_foreach(gpus, k, b)
        {
                const char *word = json_string_value(json_array_get(row, k));

                if (m->self && a == b)
                        word = m->self;
                if (is_whole(b))
                        add_link(str_empty(word) && m->unknown ? m->unknown : word, out);
        }
        if (m->more)
                m->more(a, out);
        strbuf_char(out, '\n');
}

static void print(const struct matrix *m, const json_t *gpus, struct strbuf *out)
{
        const json_t *gpu;
        size_t i;

        add_heads(gpus, out);
        strbuf_fmt(out, "%s\n", m->heads);
        json_array_foreach(gpus, i, gpu)
        {
                if (is_whole(gpu))
                        add_row(m, gpus, gpu, out);
        }
        strbuf_str(out, "\nLegend:\n\n");
        for (i = 0; m->legend[i].word; i++)
                strbuf_fmt(out, "  %-4s = %s\n", m->legend[i].word, m->legend[i].meaning);
}

void gpu_topology(const json_t *gpus, struct strbuf *out)
{
        print(&topology, gpus, out);
}

void gpu_p2p(const json_t *gpus, struct strbuf *out)
{
        print(&p2p, gpus, out);
}
