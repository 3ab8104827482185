/* gpu_type.c - see gpu_type.h.  Pure; engine and control plane.
 *
 * What always holds: every GPU of a fleet that is for rent is a member of exactly one type. */
#include "model/gpu_type.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <strings.h>

#include "base/str.h"

/* clang-format off */
const struct gpu_product gpu_products[] = {
        { "NVIDIA B300 SXM6 AC",           "B300",             NULL,       "BLACKWELL_288", 288, 18944 },
        { "NVIDIA B200",                   "B200",             NULL,       "BLACKWELL_180", 180, 18944 },
        { "NVIDIA GH200 480GB",            "GH200",            NULL,       NULL,             96, 16896 },
        { "NVIDIA H200",                   "H200 SXM",         NULL,       "HOPPER_141",    141, 16896 },
        { "NVIDIA H200 NVL",               "H200 NVL",         NULL,       "HOPPER_141",    141, 16896 },
        { "NVIDIA H100 80GB HBM3",         "H100 SXM",         "H100",     "ADA_80_PRO",     80, 16896 },
        { "NVIDIA H100 PCIe",              "H100 PCIe",        "H100",     "ADA_80_PRO",     80, 14592 },
        { "NVIDIA H100 NVL",               "H100 NVL",         "H100",     "ADA_80_PRO",     94, 16896 },
        { "NVIDIA A100-SXM4-80GB",         "A100 SXM",         "A100",     "AMPERE_80",      80,  6912 },
        { "NVIDIA A100 80GB PCIe",         "A100 PCIe",        "A100",     "AMPERE_80",      80,  6912 },
        { "NVIDIA A100-SXM4-40GB",         "A100 SXM 40GB",    "A100",     NULL,             40,  6912 },
        { "NVIDIA A100-PCIE-40GB",         "A100 PCIe 40GB",   "A100",     NULL,             40,  6912 },
        { "NVIDIA A40",                    "A40",              NULL,       "AMPERE_48",      48, 10752 },
        { "NVIDIA A30",                    "A30",              NULL,       NULL,             24,  3584 },
        { "NVIDIA A10",                    "A10",              NULL,       NULL,             24,  9216 },
        { "NVIDIA A10G",                   "A10G",             NULL,       NULL,             24,  9216 },
        { "NVIDIA A2",                     "A2",               NULL,       NULL,             16,  1280 },
        { "NVIDIA L40S",                   "L40S",             NULL,       "ADA_48_PRO",     48, 18176 },
        { "NVIDIA L40",                    "L40",              NULL,       "ADA_48_PRO",     48, 18176 },
        { "NVIDIA L4",                     "L4",               NULL,       "AMPERE_24",      24,  7424 },
        { "NVIDIA RTX PRO 6000 Blackwell Server Edition",
                                           "RTX PRO 6000",     NULL,       "BLACKWELL_96",   96, 24064 },
        { "NVIDIA RTX PRO 6000 Blackwell Workstation Edition",
                                           "RTX PRO 6000 WK",  NULL,       "BLACKWELL_96",   96, 24064 },
        { "NVIDIA RTX 6000 Ada Generation","RTX 6000 Ada",     NULL,       "ADA_48_PRO",     48, 18176 },
        { "NVIDIA RTX 5000 Ada Generation","RTX 5000 Ada",     NULL,       NULL,             32, 12800 },
        { "NVIDIA RTX 4000 Ada Generation","RTX 4000 Ada",     NULL,       "AMPERE_16",      20,  6144 },
        { "NVIDIA RTX 4000 SFF Ada Generation",
                                           "RTX 4000 Ada SFF", NULL,       "AMPERE_16",      20,  6144 },
        { "NVIDIA RTX 2000 Ada Generation","RTX 2000 Ada",     NULL,       "AMPERE_16",      16,  2816 },
        { "NVIDIA RTX A6000",              "RTX A6000",        "A6000",    "AMPERE_48",      48, 10752 },
        { "NVIDIA RTX A5000",              "RTX A5000",        "A5000",    "AMPERE_24",      24,  8192 },
        { "NVIDIA RTX A4500",              "RTX A4500",        "A4500",    "AMPERE_16",      20,  7168 },
        { "NVIDIA RTX A4000",              "RTX A4000",        "A4000",    "AMPERE_16",      16,  6144 },
        { "NVIDIA RTX A2000",              "RTX A2000",        "A2000",    NULL,              6,  3328 },
        { "NVIDIA GeForce RTX 5090",       "RTX 5090",         NULL,       "ADA_32_PRO",     32, 21760 },
        { "NVIDIA GeForce RTX 5080",       "RTX 5080",         NULL,       NULL,             16, 10752 },
        { "NVIDIA GeForce RTX 4090",       "RTX 4090",         NULL,       "ADA_24",         24, 16384 },
        { "NVIDIA GeForce RTX 4080 SUPER", "RTX 4080 SUPER",   NULL,       NULL,             16, 10240 },
        { "NVIDIA GeForce RTX 4080",       "RTX 4080",         NULL,       NULL,             16,  9728 },
        { "NVIDIA GeForce RTX 4070 Ti",    "RTX 4070 Ti",      NULL,       NULL,             12,  7680 },
        { "NVIDIA GeForce RTX 3090 Ti",    "RTX 3090 Ti",      NULL,       NULL,             24, 10752 },
        { "NVIDIA GeForce RTX 3090",       "RTX 3090",         NULL,       "AMPERE_24",      24, 10496 },
        { "NVIDIA GeForce RTX 3080 Ti",    "RTX 3080 Ti",      NULL,       NULL,             12, 10240 },
        { "NVIDIA GeForce RTX 3080",       "RTX 3080",         NULL,       NULL,             10,  8704 },
        { "NVIDIA GeForce RTX 3070",       "RTX 3070",         NULL,       NULL,              8,  5888 },
        { "Tesla V100-SXM2-32GB",          "V100 SXM2 32GB",   "V100",     NULL,             32,  5120 },
        { "Tesla V100-SXM2-16GB",          "V100 SXM2",        "V100",     NULL,             16,  5120 },
        { "Tesla V100-PCIE-32GB",          "V100 PCIe 32GB",   "V100",     NULL,             32,  5120 },
        { "Tesla V100-PCIE-16GB",          "V100 PCIe",        "V100",     NULL,             16,  5120 },
        { "Tesla T4",                      "T4",               NULL,       NULL,             16,  2560 },
};
/* clang-format on */
const size_t gpu_products_n = NELEM(gpu_products);

/* ---- comparing names ---- */

static bool is_gap(char c)
{
        return c == ' ' || c == '-' || c == '_' || c == '\t';
}

static const char *skip_gaps(const char *s)
{
        while (is_gap(*s))
                s++;
        return s;
}

/* What follows the maker's name. */
static const char *bare(const char *s)
{
        static const char maker[] = GPU_MANUFACTURER;

        s = skip_gaps(s);
        if (strncasecmp(s, maker, sizeof maker - 1) == 0 && is_gap(s[sizeof maker - 1]))
                s = skip_gaps(s + sizeof maker);
        return s;
}

static size_t trim(const char *s, size_t n)
{
        while (n > 0 && is_gap(s[n - 1]))
                n--;
        return n;
}

/* The first @n bytes of @a and @m of @b are one name: case, kinds of gaps and the maker apart. */
static bool same_name(const char *a, size_t n, const char *b, size_t m)
{
        const char *a_end = a + trim(a, n), *b_end = b + trim(b, m);

        a = bare(a);
        b = bare(b);
        while (a < a_end && b < b_end) {
                if (is_gap(*a) != is_gap(*b))
                        return false;
                if (is_gap(*a)) {
                        a = skip_gaps(a);
                        b = skip_gaps(b);
                } else if (tolower((unsigned char) *a++) != tolower((unsigned char) *b++)) {
                        return false;
                }
        }
        return a >= a_end && b >= b_end;
}

static bool is_name(const char *wish, size_t n, const char *name)
{
        return name && same_name(wish, n, name, strlen(name));
}

/* The id's first @m bytes, or what is left of it without the line of products that it begins with:
 * "GeForce RTX 4090" is "RTX 4090" and "4090". */
static bool is_id(const char *wish, size_t n, const char *id, size_t m)
{
        static const char *const lines[] = { "GeForce", "RTX", "GTX", "Quadro", "Tesla" };
        const char *end = id + trim(id, m);

        for (id = bare(id); id < end; id = skip_gaps(id)) {
                size_t k = 0, len = 0;

                if (same_name(wish, n, id, (size_t) (end - id)))
                        return true;
                while (id + len < end && !is_gap(id[len]))
                        len++;
                while (k < NELEM(lines) &&
                       (strlen(lines[k]) != len || strncasecmp(lines[k], id, len) != 0))
                        k++;
                if (k == NELEM(lines))
                        return false;
                id += len;
        }
        return false;
}

const struct gpu_product *gpu_product_find(const char *name)
{
        for (size_t i = 0; i < gpu_products_n; i++)
                if (is_name(name, strlen(name), gpu_products[i].id))
                        return &gpu_products[i];
        return NULL;
}

/* The driver calls an instance "<product> MIG <profile>"; what comes before that. */
static size_t product_len(const struct gpu *g)
{
        const char *mig = g->mig_profile ? strstr(g->name, " MIG ") : NULL;

        return mig ? (size_t) (mig - g->name) : strlen(g->name);
}

/* Where the last word begins. */
static size_t last_word(const char *s, size_t n)
{
        while (n > 0 && !is_gap(s[n - 1]))
                n--;
        return n;
}

/* "1g.10gb", "1c.3g.40gb", "1g.10gb+me": digits, g or c, a point, and so on. */
static bool is_profile(const char *s, size_t n)
{
        size_t digits = 0;

        while (digits < n && isdigit((unsigned char) s[digits]))
                digits++;
        return digits > 0 && digits + 2 < n && strchr("gGcC", s[digits]) && s[digits + 1] == '.' &&
               isdigit((unsigned char) s[digits + 2]);
}

/* Length of the product's part of @wish; *@ret_profile: what follows it, or NULL. */
static size_t split_wish(const char *wish, const char **ret_profile)
{
        static const char label[] = "(simulated)"; /* as it is shown */
        size_t n = strlen(wish), at;

        *ret_profile = NULL;
        n = trim(wish, n);
        if (n >= sizeof label - 1 &&
            strncasecmp(wish + n - (sizeof label - 1), label, sizeof label - 1) == 0)
                n = trim(wish, n - (sizeof label - 1));
        at = last_word(wish, n);
        if (!is_profile(wish + at, n - at))
                return n;
        *ret_profile = wish + at;
        at = trim(wish, at);
        n = last_word(wish, at);
        return at - n == 3 && strncasecmp(wish + n, "MIG", 3) == 0 ? n : at;
}

/* ---- the types of a host ---- */

static bool same_type(const struct gpu_type *t, const char *id)
{
        return strcasecmp(t->id, id) == 0;
}

static uint32_t memory_gib(const struct gpu *g, const struct gpu_product *p)
{
        const char *dot = g->mig_profile ? strrchr(g->mig_profile, '.') : NULL;
        uint64_t gib;

        if (dot && str_u64_prefix(dot + 1, 10, &gib) >= 0 && gib <= UINT32_MAX)
                return (uint32_t) gib;
        return p && !g->mig_profile ? p->memory_gib : (g->memory_mib + 512) / 1024;
}

/* A type whose first member is gpus[i]. */
static int add_type(struct gpu_types *ts, const struct gpu *g, size_t i, const char *id,
                    const struct gpu_product *p)
{
        const char *profile = g->mig_profile ? g->mig_profile : "";
        struct gpu_type *t = &ts->list[ts->n];
        AUTO(free) char *name = strndup(g->name, product_len(g));

        if (!name)
                return -ENOMEM;
        t->product = p;
        t->id = strdup(id);
        t->display = str_fmt("%s%s%s", p ? p->display : bare(name), *profile ? " " : "", profile);
        t->mig_profile = str_dup(g->mig_profile);
        t->memory_gib = memory_gib(g, p);
        t->cuda_cores = p && !g->mig_profile ? p->cuda_cores : 0;
        t->members = 1ULL << i;
        ts->n++;
        return t->id && t->display && !t->mig_profile == !g->mig_profile ? 0 : -ENOMEM;
}

static int add_gpu(struct gpu_types *ts, const struct gpu *g, size_t i)
{
        AUTO(free) char *name = strndup(g->name, product_len(g)), *id = NULL;
        const struct gpu_product *p = name ? gpu_product_find(name) : NULL;

        if (name)
                id = str_fmt("%s%s%s", p ? p->id : name, g->mig_profile ? " " : "",
                             g->mig_profile ? g->mig_profile : "");
        if (!id)
                return -ENOMEM;
        for (size_t k = 0; k < ts->n; k++) {
                if (!same_type(&ts->list[k], id))
                        continue;
                ts->list[k].members |= 1ULL << i;
                return 0;
        }
        return add_type(ts, g, i, id, p);
}

int gpu_types_init(const struct gpu_fleet *f, struct gpu_types *ret, struct err *e)
{
        struct gpu_types ts = { calloc(f->n + 1, sizeof *ts.list), 0 };
        int r = ts.list ? 0 : -ENOMEM;

        for (size_t i = 0; r >= 0 && i < f->n; i++)
                if (gpu_is_for_rent(&f->gpus[i]))
                        r = add_gpu(&ts, &f->gpus[i], i);
        if (r < 0) {
                gpu_types_done(&ts);
                return err_set(e, r, "out of memory");
        }
        *ret = ts;
        return 0;
}

void gpu_types_done(struct gpu_types *t)
{
        for (size_t i = 0; i < t->n; i++) {
                free(t->list[i].id);
                free(t->list[i].display);
                free(t->list[i].mig_profile);
        }
        free(t->list);
        *t = (struct gpu_types){ 0 };
}

const struct gpu_type *gpu_types_of(const struct gpu_types *t, size_t i)
{
        for (size_t k = 0; k < t->n; k++)
                if (t->list[k].members >> i & 1)
                        return &t->list[k];
        return NULL;
}

const struct gpu_type *gpu_types_find(const struct gpu_types *t, const char *id)
{
        for (size_t k = 0; id && k < t->n; k++)
                if (same_type(&t->list[k], id))
                        return &t->list[k];
        return NULL;
}

/* ---- wishes ---- */

bool gpu_type_matches(const struct gpu_type *t, const char *wish)
{
        const struct gpu_product *p = t->product;
        const char *profile;
        size_t n;

        if (str_empty(wish))
                return !t->mig_profile;
        n = split_wish(wish, &profile);
        if (!profile && is_name(wish, n, "any"))
                return !t->mig_profile;
        if (!profile != !t->mig_profile)
                return false;
        if (profile) {
                size_t len = strlen(t->mig_profile);

                if (strncasecmp(profile, t->mig_profile, len) != 0 ||
                    (profile[len] && !is_gap(profile[len])))
                        return false;
        }
        if (p)
                return is_id(wish, n, p->id, strlen(p->id)) || is_name(wish, n, p->display) ||
                       is_name(wish, n, p->family);
        return is_id(wish, n, t->id, strlen(t->id) - (profile ? strlen(t->mig_profile) + 1 : 0));
}

uint64_t gpu_types_match(const struct gpu_types *t, const char *wish)
{
        uint64_t set = 0;

        for (size_t k = 0; k < t->n; k++)
                if (gpu_type_matches(&t->list[k], wish))
                        set |= t->list[k].members;
        return set;
}
