/* fuzz_cdi.c - libFuzzer target for CDI specifications (src/engine/gpu/cdi.c, cdi_tree.c).
 *
 * Input: a file, YAML or JSON.  Checked beside memory errors and leaks: what is accepted keeps the
 * rules that bind.c relies on, and printed it is accepted again.  A trap is a finding. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "engine/gpu/cdi.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(x)                                                                                   \
        do {                                                                                       \
                if (!(x))                                                                          \
                        __builtin_trap();                                                          \
        } while (0)

static int on_value(void *arg, const char *value)
{
        *(size_t *) arg += strlen(value);
        return 0;
}

static void check_edits(const struct cdi_edits *x)
{
        size_t n = 0;

        for (size_t i = 0; i < x->n_nodes; i++)
                CHECK(strncmp(x->nodes[i].path, "/dev/", 5) == 0 && x->nodes[i].file_mode <= 07777);
        for (size_t i = 0; i < x->n_mounts; i++)
                CHECK(x->mounts[i].container_path[0] == '/' && x->mounts[i].container_path[1] &&
                      !strstr(x->mounts[i].container_path, "/../") &&
                      x->mounts[i].host_path[0] == '/');
        for (char **v = x->env; v && *v; v++)
                CHECK(strchr(*v, '='));
        for (size_t i = 0; i < x->n_hooks; i++) {
                CHECK(cdi_hook_deed(&x->hooks[i]) < CDI_DEED_COUNT);
                CHECK(cdi_hook_values(&x->hooks[i], "--link", on_value, &n) == 0);
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct cdi_spec s = { .version = NULL }, again = { .version = NULL };
        struct strbuf b = { 0 };
        struct err e = { .code = 0 };
        int r = cdi_parse("f", (const char *) data, size, &s, &e);

        if (r < 0)
                CHECK(e.code == r && e.msg[0] && !strchr(e.msg, '\n') && !s.version);
        if (r != 0)
                return 0;
        CHECK(s.n_devices > 0 && strcmp(s.kind, CDI_KIND) == 0);
        check_edits(&s.edits);
        for (size_t i = 0; i < s.n_devices; i++)
                check_edits(&s.devices[i].edits);
        CHECK(cdi_print(&s, &b, &e) == 0 && !b.failed);
        r = cdi_parse("g", b.s, b.len, &again, &e);
        CHECK(r == 0 && again.n_devices == s.n_devices && again.edits.n_mounts == s.edits.n_mounts);
        cdi_spec_done(&again);
        cdi_spec_done(&s);
        strbuf_done(&b);
        return 0;
}
