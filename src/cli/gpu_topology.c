/* gpu_topology.c - the matrices of `get gpus --topo` and `--p2p`.  Pure.
 *
 * Columns, words and tabs are those of `nvidia-smi topo -m` and `-p2p`, which scripts cut apart. */
#include <stdio.h>
#include <stdlib.h>

#include "base/jsonx.h"
#include "cli/gpus.h"

static const struct meaning {
        const char *word, *meaning;
} legend[] = {
        { "X", "the GPU itself" },
        { "SYS", "through PCIe and the link between NUMA nodes" },
        { "NODE", "through PCIe and the link between host bridges of one NUMA node" },
        { "PHB", "through PCIe and one host bridge" },
        { "PXB", "through several PCIe switches, and no host bridge" },
        { "PIX", "through one PCIe switch" },
        { "NV#", "through so many NVLinks" },
};

static const struct meaning p2p_legend[] = {
        { "X", "the GPU itself" },
        { "OK", "each reads and writes the other's memory" },
        { "CNS", "not with this chipset" },
        { "GNS", "not with these GPUs" },
        { "TNS", "not across what lies between them" },
        { "DR", "switched off in the driver" },
        { "NS", "not, for another reason" },
        { "U", "the driver does not say" },
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

static void add_legend(const struct meaning *m, size_t n, struct strbuf *out)
{
        strbuf_str(out, "\nLegend:\n\n");
        for (size_t i = 0; i < n; i++)
                strbuf_fmt(out, "  %-4s = %s\n", m[i].word, m[i].meaning);
}

void gpu_p2p(const json_t *gpus, struct strbuf *out)
{
        const json_t *a, *b;
        size_t i, k;

        add_heads(gpus, out);
        strbuf_char(out, '\n');
        json_array_foreach(gpus, i, a)
        {
                const json_t *row = json_object_get(a, "p2p");

                if (!is_whole(a))
                        continue;
                strbuf_fmt(out, "GPU%lld", index_of(a));
                json_array_foreach(gpus, k, b)
                {
                        const char *word = json_string_value(json_array_get(row, k));

                        if (is_whole(b))
                                add_link(a == b ? "X" : str_empty(word) ? "U" : word, out);
                }
                strbuf_char(out, '\n');
        }
        add_legend(p2p_legend, NELEM(p2p_legend), out);
}

void gpu_topology(const json_t *gpus, struct strbuf *out)
{
        const json_t *a, *b;
        size_t i, k;

        add_heads(gpus, out);
        strbuf_str(out, "\tCPU Affinity\tNUMA Affinity\n");
        json_array_foreach(gpus, i, a)
        {
                const json_t *numa = json_object_get(a, "numaNode");

                if (!is_whole(a))
                        continue;
                strbuf_fmt(out, "GPU%lld", index_of(a));
                json_array_foreach(gpus, k, b)
                {
                        if (is_whole(b))
                                add_link(json_string_value(
                                                 json_array_get(json_object_get(a, "links"), k)),
                                         out);
                }
                strbuf_char(out, '\t');
                add_cpus(json_object_get(a, "cpus"), out);
                if (json_is_integer(numa))
                        strbuf_fmt(out, "\t%lld\n", (long long) json_integer_value(numa));
                else
                        strbuf_str(out, "\tN/A\n");
        }
        add_legend(legend, NELEM(legend), out);
}
