/* gpu_sim.c - see gpu_sim.h.  Pure; engine and stand-in library.
 *
 * Theory of operation: one table per kind of line says which keys it has and where the value lies;
 * the lines are read in one pass, checked in a second, and what was not given is derived then. */
#include "model/gpu_sim.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"

#define WORDS_MAX 32U

enum value_kind { V_NONE, V_NUMBER, V_HEX, V_TEXT, V_SWITCH };
struct key {
        const char *name;
        enum value_kind kind;
        size_t off, size;
        uint64_t min, max;
};
#define NUM(T, f, name, lo, hi)                                                                    \
        {                                                                                          \
                name, V_NUMBER, offsetof(struct T, f), 0, lo, hi                                   \
        }
#define HEX(T, f, name)                                                                            \
        {                                                                                          \
                name, V_HEX, offsetof(struct T, f), 0, 1, 0xffff                                   \
        }
#define TXT(T, f, name)                                                                            \
        {                                                                                          \
                name, V_TEXT, offsetof(struct T, f), sizeof((struct T *) 0)->f, 0, 0               \
        }
#define SWI(T, f, name)                                                                            \
        {                                                                                          \
                name, V_SWITCH, offsetof(struct T, f), 0, 0, 0                                     \
        }

static const struct key driver_keys[] = { TXT(gpu_sim, cuda, "cuda") };
static const struct key model_keys[] = {
        NUM(gpu_sim_model, memory_mib, "memory", 256, 1U << 23),
        NUM(gpu_sim_model, reserved_mib, "reserved", 0, 65536),
        HEX(gpu_sim_model, device, "device"),
        HEX(gpu_sim_model, subsystem, "subsystem"),
        TXT(gpu_sim_model, vbios, "vbios"),
        TXT(gpu_sim_model, inforom, "inforom"),
        SWI(gpu_sim_model, ecc, "ecc"),
        NUM(gpu_sim_model, power_w, "power", 10, 5000),
        NUM(gpu_sim_model, sm_mhz, "sm", 100, 10000),
        NUM(gpu_sim_model, mem_mhz, "mem", 100, 30000),
        NUM(gpu_sim_model, links, "links", 0, GPU_SIM_LINKS_MAX),
        NUM(gpu_sim_model, nvlink, "nvlink", 1, 9),
        SWI(gpu_sim_model, fan, "fan"),
        SWI(gpu_sim_model, display, "display"),
        SWI(gpu_sim_model, divisible, "divisible"),
};
static const struct key gpu_keys[] = {
        NUM(gpu_sim_gpu, numa, "numa", 0, 1023),
        NUM(gpu_sim_gpu, bridge, "bridge", 0, 255),
        NUM(gpu_sim_gpu, sw, "switch", 0, 255),
        NUM(gpu_sim_gpu, leaf, "leaf", 0, 255),
        NUM(gpu_sim_gpu, fabric, "fabric", 0, 15),
        NUM(gpu_sim_gpu, module, "module", 1, 16),
        NUM(gpu_sim_gpu, minor, "minor", 0, 127),
        SWI(gpu_sim_gpu, mig, "mig"),
        TXT(gpu_sim_gpu, uuid, "uuid"),
        TXT(gpu_sim_gpu, serial, "serial"),
};
static const struct key mig_keys[] = {
        NUM(gpu_sim_mig, gi, "gi", 0, 14),
        NUM(gpu_sim_mig, ci, "ci", 0, 7),
        NUM(gpu_sim_mig, memory_mib, "memory", 256, 1U << 23),
        NUM(gpu_sim_mig, sms, "sms", 1, 1024),
        TXT(gpu_sim_mig, uuid, "uuid"),
};

struct reader {
        struct gpu_sim *s;
        struct err *e;
        unsigned line;
        char *words[WORDS_MAX];
        size_t n;
};

static int bad(const struct reader *r, const char *word, const char *why)
{
        return err_set(r->e, -EINVAL, "line %u: '%.60s': %s", r->line, word, why);
}

/* ---- words ---- */

/* A line in place into words; quotes go. */
static int split(struct reader *r, char *line)
{
        r->n = 0;
        for (char *p = line;;) {
                bool quoted;

                p += strspn(p, " \t\r");
                if (!*p || *p == '#')
                        return 0;
                if (r->n == WORDS_MAX)
                        return bad(r, p, "too many words in one line");
                quoted = *p == '"';
                p += quoted;
                r->words[r->n++] = p;
                p += strcspn(p, quoted ? "\"" : " \t\r");
                if (quoted && !*p)
                        return bad(r, r->words[r->n - 1], "the quote is not closed");
                if (*p)
                        *p++ = '\0';
        }
}

/* What may lie in a file name, a variable or a table of ours. */
static bool plain(const char *s)
{
        return *s &&
               strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-_+") ==
                       strlen(s);
}

static int parse_hex(const char *s, size_t digits, uint32_t *ret)
{
        uint32_t v = 0;

        if (strlen(s) < digits || strspn(s, "0123456789abcdefABCDEF") < digits)
                return -EINVAL;
        for (size_t i = 0; i < digits; i++) {
                uint32_t c = (uint8_t) s[i];

                v = v << 4 | (c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
        }
        *ret = v;
        return 0;
}

int gpu_sim_pci_parse(const char *s, struct gpu_sim_pci *ret)
{
        size_t n = strcspn(s, ":"), wide = n == 8 ? 4 : 0; /* NVML has eight digits, Linux four */
        uint32_t domain, bus, slot;

        if ((n != 4 && n != 8) || strlen(s) != n + 8 || strncmp(s, "0000", wide) != 0)
                return -EINVAL;
        s += wide;
        if (parse_hex(s, 4, &domain) < 0 || parse_hex(s + 5, 2, &bus) < 0 || s[7] != ':' ||
            parse_hex(s + 8, 2, &slot) < 0 || slot > 31 || !str_eq(s + 10, ".0"))
                return -EINVAL;
        *ret = (struct gpu_sim_pci){ domain, bus, slot };
        return 0;
}

void gpu_sim_pci_text(const struct gpu_sim_pci *pci, char ret[static 16])
{
        (void) snprintf(ret, 16, "%04x:%02x:%02x.0", pci->domain & 0xffff, pci->bus & 0xff,
                        pci->slot & 0x1f);
}

bool gpu_sim_pci_eq(const struct gpu_sim_pci *a, const struct gpu_sim_pci *b)
{
        return a->domain == b->domain && a->bus == b->bus && a->slot == b->slot;
}

/* ---- values ---- */

static int set_value(const struct reader *r, const struct key *k, void *to, const char *word,
                     const char *value)
{
        void *at = (char *) to + k->off;
        uint64_t v;
        uint32_t hex;

        switch (k->kind) {
        case V_NUMBER:
                if (str_u64(value, k->min, k->max, &v) < 0)
                        return err_set(r->e, -EINVAL,
                                       "line %u: '%.60s': must be a number from %llu to %llu",
                                       r->line, word, (unsigned long long) k->min,
                                       (unsigned long long) k->max);
                *(uint32_t *) at = (uint32_t) v;
                return 0;
        case V_HEX:
                if (strlen(value) != 4 || parse_hex(value, 4, &hex) < 0)
                        return bad(r, word, "must be four hexadecimal digits");
                *(uint32_t *) at = hex;
                return 0;
        case V_TEXT:
                if (strlen(value) >= k->size || !plain(value))
                        return bad(r, word, "must be a short word of letters, digits, . - _ +");
                memset(at, 0, k->size); /* equal things are equal byte by byte */
                memcpy(at, value, strlen(value));
                return 0;
        case V_SWITCH:
                if (!str_eq(value, "on") && !str_eq(value, "off"))
                        return bad(r, word, "must be on or off");
                *(bool *) at = value[1] == 'n';
                return 0;
        case V_NONE:
                break;
        }
        return -EINVAL;
}

/* The words from @from on.  "peer" is no value but a list. */
static int take_keys(const struct reader *r, size_t from, const struct key *keys, size_t n,
                     void *to, int (*other)(const struct reader *r, char *word, char *value))
{
        uint64_t seen = 0;

        for (size_t w = from; w < r->n; w++) {
                char *word = r->words[w], *equals = strchr(word, '=');
                size_t k = 0, len = equals ? (size_t) (equals - word) : 0;
                int x;

                if (!equals)
                        return bad(r, word, "KEY=VALUE was expected");
                while (k < n &&
                       (strlen(keys[k].name) != len || strncmp(keys[k].name, word, len) != 0))
                        k++;
                if (k < n && (seen >> k & 1))
                        x = bad(r, word, "is there already");
                else if (k < n)
                        x = set_value(r, &keys[k], to, word, equals + 1);
                else if (other)
                        x = other(r, word, equals + 1);
                else
                        x = bad(r, word, "there is no such key here");
                if (x < 0)
                        return x;
                seen |= k < n ? 1ULL << k : 0;
        }
        return 0;
}

/* ---- lines ---- */

static int line_driver(struct reader *r)
{
        struct gpu_sim *s = r->s;

        if (s->driver[0])
                return bad(r, r->words[0], "is there already");
        if (strlen(r->words[1]) >= sizeof s->driver ||
            strspn(r->words[1], "0123456789.") != strlen(r->words[1]))
                return bad(r, r->words[1], "is no driver version");
        memcpy(s->driver, r->words[1], strlen(r->words[1]) + 1);
        return take_keys(r, 2, driver_keys, NELEM(driver_keys), s, NULL);
}

static int line_model(struct reader *r)
{
        struct gpu_sim_model *m = &r->s->models[r->s->n_models];
        const char *name = r->words[1];
        int x;

        if (r->s->n_models == GPU_SIM_MAX)
                return bad(r, name, "too many models");
        if (strlen(name) >= sizeof m->name || !*name)
                return bad(r, name, "a name has 1 to 63 bytes");
        for (const char *p = name; *p; p++)
                if (*p < ' ' || *p > '~' || *p == '"')
                        return bad(r, name, "a name has printable ASCII alone, and no quotes");
        *m = (struct gpu_sim_model){ .reserved_mib = 300,
                                     .power_w = 300,
                                     .sm_mhz = 1500,
                                     .mem_mhz = 5000,
                                     .subsystem = 1,
                                     .device = 1 };
        memcpy(m->name, name, strlen(name) + 1);
        x = take_keys(r, 2, model_keys, NELEM(model_keys), m, NULL);
        if (x < 0)
                return x;
        if (m->memory_mib <= m->reserved_mib)
                return bad(r, name, "a model needs memory= above reserved=");
        if (m->links && !m->nvlink)
                return bad(r, name, "links= needs nvlink=");
        r->s->n_models++;
        return 0;
}

static int key_peer(const struct reader *r, char *word, char *value)
{
        struct gpu_sim_gpu *g = &r->s->gpus[r->s->n_gpus];
        char *slash = strchr(value, '/');
        struct gpu_sim_peer p;
        char text[16];
        uint64_t n;

        if (strncmp(word, "peer=", 5) != 0)
                return bad(r, word, "there is no such key here");
        if (g->n_peers == GPU_SIM_PEERS)
                return bad(r, word, "too many peers");
        if (!slash || slash - value >= (ptrdiff_t) sizeof text)
                return bad(r, word, "must be ADDRESS/LINKS");
        memcpy(text, value, (size_t) (slash - value));
        text[slash - value] = '\0';
        if (gpu_sim_pci_parse(text, &p.pci) < 0 || str_u64(slash + 1, 1, GPU_SIM_LINKS_MAX, &n) < 0)
                return bad(r, word, "must be ADDRESS/LINKS");
        p.links = (uint32_t) n;
        g->peers[g->n_peers++] = p;
        return 0;
}

static int line_gpu(struct reader *r)
{
        struct gpu_sim *s = r->s;
        struct gpu_sim_gpu *g = &s->gpus[s->n_gpus];
        int x;

        if (s->n_gpus == GPU_SIM_MAX)
                return bad(r, r->words[1], "at most 64 GPUs");
        if (!s->n_models)
                return bad(r, r->words[0], "a model must come first");
        *g = (struct gpu_sim_gpu){ .model = s->n_models - 1,
                                   .minor = s->n_gpus,
                                   .module = s->n_gpus % 16 + 1,
                                   .numa = GPU_SIM_NONE,
                                   .bridge = GPU_SIM_NONE,
                                   .sw = GPU_SIM_NONE,
                                   .leaf = GPU_SIM_NONE,
                                   .fabric = GPU_SIM_NONE };
        if (gpu_sim_pci_parse(r->words[1], &g->pci) < 0)
                return bad(r, r->words[1], "is no PCI address such as 0000:07:00.0");
        x = take_keys(r, 2, gpu_keys, NELEM(gpu_keys), g, key_peer);
        if (x < 0)
                return x;
        if (g->mig && !s->models[g->model].divisible)
                return bad(r, r->words[1], "mig=on, and its model is not divisible");
        for (uint32_t i = 0; i < s->n_gpus; i++)
                if (gpu_sim_pci_eq(&s->gpus[i].pci, &g->pci) || s->gpus[i].minor == g->minor)
                        return bad(r, r->words[1], "address or minor number is taken");
        s->n_gpus++;
        return 0;
}

static int line_mig(struct reader *r)
{
        struct gpu_sim *s = r->s;
        struct gpu_sim_mig *m = &s->migs[s->n_migs];
        const char *profile = r->n > 2 ? r->words[2] : "";
        struct gpu_sim_pci pci;
        uint32_t gpu = 0;
        int x;

        if (s->n_migs == GPU_SIM_MAX)
                return bad(r, r->words[1], "at most 64 instances");
        if (gpu_sim_pci_parse(r->words[1], &pci) < 0)
                return bad(r, r->words[1], "is no PCI address such as 0000:07:00.0");
        while (gpu < s->n_gpus && !gpu_sim_pci_eq(&s->gpus[gpu].pci, &pci))
                gpu++;
        if (gpu == s->n_gpus || !s->gpus[gpu].mig)
                return bad(r, r->words[1], "is no GPU above with mig=on");
        if (!plain(profile) || strlen(profile) >= sizeof m->profile || *profile < '1' ||
            *profile > '7' || strncmp(profile + 1, "g.", 2) != 0)
                return bad(r, profile, "is no profile such as 1g.10gb");
        *m = (struct gpu_sim_mig){ .gpu = gpu, .sms = 1, .slices = (uint32_t) (*profile - '0') };
        memcpy(m->profile, profile, strlen(profile) + 1);
        x = take_keys(r, 3, mig_keys, NELEM(mig_keys), m, NULL);
        if (x < 0)
                return x;
        if (!m->memory_mib || m->memory_mib > s->models[s->gpus[gpu].model].memory_mib)
                return bad(r, profile, "needs memory=, within the GPU's");
        for (uint32_t i = 0; i < s->n_migs; i++)
                if (s->migs[i].gpu == gpu && s->migs[i].gi == m->gi && s->migs[i].ci == m->ci)
                        return bad(r, profile, "gi and ci are taken");
        s->n_migs++;
        return 0;
}

static int line_seed(struct reader *r)
{
        if (strlen(r->words[1]) >= sizeof r->s->seed || !plain(r->words[1]))
                return bad(r, r->words[1], "is no seed");
        memcpy(r->s->seed, r->words[1], strlen(r->words[1]) + 1);
        return 0;
}

static const struct {
        const char *word;
        int (*take)(struct reader *r);
} lines[] = {
        { "driver", line_driver }, { "model", line_model }, { "gpu", line_gpu },
        { "mig", line_mig },       { "seed", line_seed },
};

static int take_line(struct reader *r, char *line)
{
        int x = split(r, line);

        if (x < 0 || r->n == 0)
                return x;
        for (size_t i = 0; i < NELEM(lines); i++)
                if (str_eq(lines[i].word, r->words[0]))
                        return r->n < 2 ? bad(r, r->words[0], "something must follow")
                                        : lines[i].take(r);
        return bad(r, r->words[0], "a line begins with driver, model, gpu, mig or seed");
}

/* ---- what is derived ---- */

/* FNV-1a, then mixed so that neighbours differ in every bit. */
uint64_t gpu_sim_hash(const char *word, uint64_t salt)
{
        uint64_t h = 0xcbf29ce484222325ULL ^ salt * 0x9e3779b97f4a7c15ULL;

        for (; *word; word++)
                h = (h ^ (uint8_t) *word) * 0x100000001b3ULL;
        h = (h ^ h >> 30) * 0xbf58476d1ce4e5b9ULL;
        h = (h ^ h >> 27) * 0x94d049bb133111ebULL;
        return h ^ h >> 31;
}

static void make_uuid(const char *kind, const char *word, uint64_t salt, char ret[static 48])
{
        uint64_t a = gpu_sim_hash(word, 2 * salt + 1), b = gpu_sim_hash(word, 2 * salt + 2);

        (void) snprintf(ret, 48, "%s-%08x-%04x-%04x-%04x-%012llx", kind, (unsigned) (a >> 32),
                        (unsigned) (a >> 16 & 0xffff), (unsigned) (a & 0xffff),
                        (unsigned) (b >> 48), (unsigned long long) (b & 0xffffffffffffULL));
}

static void derive(struct gpu_sim *s)
{
        for (uint32_t i = 0; i < s->n_gpus; i++) {
                struct gpu_sim_gpu *g = &s->gpus[i];
                uint64_t h = gpu_sim_hash(s->seed, 1000 + i);

                if (!g->uuid[0])
                        make_uuid("GPU", s->seed, i, g->uuid);
                if (!g->serial[0])
                        (void) snprintf(g->serial, sizeof g->serial, "132%010llu",
                                        (unsigned long long) (h % 10000000000ULL));
        }
        for (uint32_t i = 0; i < s->n_migs; i++) {
                struct gpu_sim_mig *m = &s->migs[i];

                if (!m->uuid[0])
                        make_uuid("MIG", s->gpus[m->gpu].uuid, m->gi * 16 + m->ci, m->uuid);
        }
}

static uint32_t links_to(const struct gpu_sim_gpu *a, const struct gpu_sim_gpu *b)
{
        uint32_t n = 0;

        for (uint32_t i = 0; i < a->n_peers; i++)
                if (gpu_sim_pci_eq(&a->peers[i].pci, &b->pci))
                        n += a->peers[i].links;
        return n;
}

static int check_uuid(const char *uuid, const char *kind)
{
        return uuid[0] && (strncmp(uuid, kind, 4) != 0 || strlen(uuid) != 40) ? -EINVAL : 0;
}

/* What only the whole shows. */
static int check(const struct gpu_sim *s, bool part, struct err *e)
{
        if (!s->driver[0] || !s->cuda[0])
                return err_set(e, -EINVAL, "there is no line 'driver VERSION cuda=VERSION'");
        for (uint32_t i = 0; i < s->n_gpus; i++) {
                const struct gpu_sim_gpu *g = &s->gpus[i];
                uint32_t links = 0, found = 0;
                char pci[16];

                gpu_sim_pci_text(&g->pci, pci);
                for (uint32_t p = 0; p < g->n_peers; p++)
                        links += g->peers[p].links;
                if (links > s->models[g->model].links || (links && g->fabric != GPU_SIM_NONE))
                        return err_set(e, -EINVAL, "gpu %s: more links than its model has", pci);
                if (check_uuid(g->uuid, "GPU-") < 0)
                        return err_set(e, -EINVAL, "gpu %s: '%s' is no UUID", pci, g->uuid);
                for (uint32_t k = 0; k < s->n_gpus; k++) {
                        if (links_to(g, &s->gpus[k]) != links_to(&s->gpus[k], g) ||
                            (k == i && links_to(g, g)))
                                return err_set(e, -EINVAL, "gpu %s: a peer's links do not match",
                                               pci);
                        found += links_to(g, &s->gpus[k]);
                }
                if (found != links && !part)
                        return err_set(e, -EINVAL, "gpu %s: a peer is missing", pci);
        }
        for (uint32_t i = 0; i < s->n_migs; i++)
                if (check_uuid(s->migs[i].uuid, "MIG-") < 0)
                        return err_set(e, -EINVAL, "mig: '%s' is no UUID", s->migs[i].uuid);
        return 0;
}

int gpu_sim_parse(const char *text, const char *seed, bool part, struct gpu_sim *ret, struct err *e)
{
        struct reader r = { .s = ret, .e = e };
        int x = 0;

        memset(ret, 0, sizeof *ret);
        while (x >= 0 && *text) {
                char line[GPU_SIM_LINE_MAX];
                size_t n = strcspn(text, "\n");

                r.line++;
                if (n >= sizeof line)
                        return err_set(e, -EINVAL, "line %u is too long", r.line);
                memcpy(line, text, n);
                line[n] = '\0';
                text += n + (text[n] != '\0');
                x = take_line(&r, line);
        }
        if (x >= 0)
                x = check(ret, part, e);
        if (x < 0)
                return x;
        if (seed && (strlen(seed) >= sizeof ret->seed || !plain(seed)))
                return err_set(e, -EINVAL, "'%.60s' is no seed", seed);
        if (seed)
                memcpy(ret->seed, seed, strlen(seed) + 1);
        derive(ret);
        return 0;
}

/* ---- written again ---- */

struct writer {
        char *buf;
        size_t size, len;
};

__attribute__((format(printf, 2, 3))) static void put(struct writer *w, const char *fmt, ...)
{
        va_list ap;
        int n;

        va_start(ap, fmt);
        n = w->len < w->size ? vsnprintf(w->buf + w->len, w->size - w->len, fmt, ap) : 0;
        va_end(ap);
        w->len = n < 0 ? w->size : w->len + (size_t) n;
}

static void put_keys(struct writer *w, const struct key *keys, size_t n, const void *from)
{
        for (size_t k = 0; k < n; k++) {
                const void *at = (const char *) from + keys[k].off;
                uint32_t v = keys[k].kind == V_NUMBER || keys[k].kind == V_HEX
                                     ? *(const uint32_t *) at
                                     : 0;

                if (keys[k].kind == V_NUMBER && v != GPU_SIM_NONE && v >= keys[k].min)
                        put(w, " %s=%u", keys[k].name, v);
                if (keys[k].kind == V_HEX)
                        put(w, " %s=%04x", keys[k].name, v);
                if (keys[k].kind == V_TEXT && *(const char *) at)
                        put(w, " %s=%s", keys[k].name, (const char *) at);
                if (keys[k].kind == V_SWITCH && *(const bool *) at)
                        put(w, " %s=on", keys[k].name);
        }
}

size_t gpu_sim_gpu_lines(const struct gpu_sim *s, uint32_t gpu, const char *prefix, char *buf,
                         size_t size)
{
        const struct gpu_sim_gpu *g = &s->gpus[gpu];
        const struct gpu_sim_model *m = &s->models[g->model];
        struct writer w = { buf, size, 0 };
        char pci[16];

        put(&w, "%sdriver %s cuda=%s\n%smodel \"%s\"", prefix, s->driver, s->cuda, prefix, m->name);
        put_keys(&w, model_keys, NELEM(model_keys), m);
        gpu_sim_pci_text(&g->pci, pci);
        put(&w, "\n%sgpu %s", prefix, pci);
        put_keys(&w, gpu_keys, NELEM(gpu_keys), g);
        for (uint32_t i = 0; i < g->n_peers; i++) {
                gpu_sim_pci_text(&g->peers[i].pci, pci);
                put(&w, " peer=%s/%u", pci, g->peers[i].links);
        }
        put(&w, "\n");
        return w.len < size ? w.len : 0;
}

size_t gpu_sim_mig_lines(const struct gpu_sim *s, uint32_t mig, const char *prefix, char *buf,
                         size_t size)
{
        const struct gpu_sim_mig *m = &s->migs[mig];
        struct writer w = { buf, size, 0 };
        char pci[16];

        gpu_sim_pci_text(&s->gpus[m->gpu].pci, pci);
        put(&w, "%smig %s %s", prefix, pci, m->profile);
        put_keys(&w, mig_keys, NELEM(mig_keys), m);
        put(&w, "\n");
        return w.len < size ? w.len : 0;
}

/* ---- how they are joined ---- */

uint32_t gpu_sim_level(const struct gpu_sim_gpu *a, const struct gpu_sim_gpu *b)
{
        if (a->numa != b->numa)
                return 50;
        if (a->bridge == GPU_SIM_NONE || a->bridge != b->bridge)
                return 40;
        if (a->sw == GPU_SIM_NONE || a->sw != b->sw)
                return 30;
        return a->leaf == GPU_SIM_NONE || a->leaf != b->leaf ? 20 : 10;
}

uint32_t gpu_sim_nvlinks(const struct gpu_sim *s, const struct gpu_sim_gpu *a,
                         const struct gpu_sim_gpu *b)
{
        uint32_t la = s->models[a->model].links, lb = s->models[b->model].links;

        if (a->fabric != GPU_SIM_NONE && a->fabric == b->fabric)
                return la < lb ? la : lb;
        return links_to(a, b);
}

/* After "config" (1) and "monitor" (2): 15 GPU instances of 1 + 8 files for each GPU. */
uint32_t gpu_sim_cap_minor(uint32_t minor, uint32_t gi, uint32_t ci)
{
        return 3 + minor * 135 + gi * 9 + (ci == GPU_SIM_NONE ? 0 : 1 + ci);
}
