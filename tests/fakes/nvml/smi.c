/* smi.c - the stand-in's nvidia-smi: a static program with the stand-in library inside, so that it runs in
 * any image and says what a program there would be told.  It says that it is simulated. */
#include "smi.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"

static const char usage_text[] =
        "nvidia-smi (simulated; hypervisor-vmm's stand-in for the driver's program)\n"
        "  nvidia-smi [-i GPU[,GPU]]                       the table\n"
        "  nvidia-smi -L                                   list GPUs and instances\n"
        "  nvidia-smi topo -m                              how they are joined\n"
        "  nvidia-smi --query-gpu=FIELD,... --format=csv[,noheader][,nounits]\n";

static int fail(int code)
{
        (void) fprintf(stderr, "nvidia-smi (simulated): no driver can be reached: %s\n",
                       nvmlErrorString(code));
        return 9;
}

static int add(struct smi_list *l, const char *word)
{
        struct nvml_device *d;
        uint64_t index;
        int r;

        if (str_u64(word, 0, GPU_SIM_MAX, &index) >= 0)
                r = nvmlDeviceGetHandleByIndex_v2((unsigned) index, &d);
        else if (strchr(word, ':'))
                r = nvmlDeviceGetHandleByPciBusId_v2(word, &d);
        else
                r = nvmlDeviceGetHandleByUUID(word, &d);
        if (r || d->is_mig || l->n == GPU_SIM_MAX) {
                (void) fprintf(stderr, "nvidia-smi (simulated): no GPU is '%s'\n", word);
                return 6;
        }
        l->gpus[l->n++] = d;
        return 0;
}

static int collect(struct smi_list *l, char *only)
{
        unsigned n = 0;
        int r = 0;

        if (only) {
                for (char *save = NULL, *w = strtok_r(only, ",", &save); !r && w;
                     w = strtok_r(NULL, ",", &save))
                        r = add(l, w);
                return r;
        }
        (void) nvmlDeviceGetCount_v2(&n);
        for (unsigned i = 0; i < n; i++)
                if (nvmlDeviceGetHandleByIndex_v2(i, &l->gpus[l->n]) == NVML_SUCCESS)
                        l->n++;
        if (l->n)
                return 0;
        (void) puts("No devices were found");
        return 6;
}

/* "--name=value" and "--name value"; NULL: another word. */
static char *value_of(const char *name, char ***word)
{
        size_t n = strlen(name);
        char *w = **word;

        if (strncmp(w, name, n) != 0)
                return NULL;
        if (w[n] == '=')
                return w + n + 1;
        if (w[n] || !(*word)[1])
                return NULL;
        return *++*word;
}

int main(int argc, char **argv)
{
        const char *slash = strrchr(argv[0], '/'), *name = slash ? slash + 1 : argv[0];
        char *only = NULL, *fields = NULL, *format = NULL;
        bool names = false, topology = false;
        struct smi_list l = { .n = 0 };
        int r;

        if (!str_eq(name, "nvidia-smi")) {
                (void) printf("%s: simulated, there is nothing that it could do\n", name);
                return 0;
        }
        for (char **w = argv + 1; w < argv + argc; w++) {
                char *v;

                if (str_eq(*w, "-L") || str_eq(*w, "--list-gpus"))
                        names = true;
                else if (str_eq(*w, "topo") && str_eq(w[1], "-m")) {
                        topology = true;
                        w++;
                } else if ((v = value_of("-i", &w)) || (v = value_of("--id", &w)))
                        only = v;
                else if ((v = value_of("--query-gpu", &w)))
                        fields = v;
                else if ((v = value_of("--format", &w)))
                        format = v;
                else {
                        (void) fputs(usage_text,
                                     str_eq(*w, "-h") || str_eq(*w, "--help") ? stdout : stderr);
                        return str_eq(*w, "-h") || str_eq(*w, "--help") ? 0 : 2;
                }
        }
        r = nvmlInit_v2();
        if (r)
                return fail(r);
        r = collect(&l, only);
        if (r)
                return r;
        return names      ? smi_names(&l)
               : topology ? smi_topology(&l)
               : fields   ? smi_query(&l, fields, format ? format : "csv")
                          : smi_table(&l);
}
