/* gpu.c - see gpu.h.  Pure; engine, vmm-gpu and control plane. */
#include "model/gpu.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/jsonx.h"
#include "base/str.h"
#include "model/limits.h"

const char *const gpu_state_names[GS_STATE_COUNT] = {
        "none", "ok", "unhealthy", "lost", "quarantined", "elsewhere", "open",
};
static_assert(sizeof(enum gpu_state) == sizeof(int), "J_ENUM wants an int");
static_assert(GPU_MAX == LIMIT_GPUS, "a set of GPUs is one word");

static const char *const path_names[GP_PATH_COUNT] = {
        "", "SYS", "NODE", "PHB", "PXB", "PIX", "X"
};

const char *const gpu_p2p_names[GPP_COUNT] = { "", "OK", "CNS", "GNS", "TNS", "DR", "NS" };

#define NVLINKS_MAX    64U
#define PARTITIONS_MAX 256U

#define F(f) #f, .off = offsetof(struct gpu, f)
static const struct jfield gpu_fields[] = {
        { F(uuid), .kind = J_STR, .max = 64, .required = true },
        { F(name), .kind = J_STR, .max = 96, .required = true },
        { F(pci), .kind = J_STR, .max = 32 },
        { F(mig_profile), .kind = J_STR, .max = 32 },
        { F(parent), .kind = J_STR, .max = 64 },
        { F(serial), .kind = J_STR, .max = 64 },
        { F(vbios), .kind = J_STR, .max = 64 },
        { F(inforom), .kind = J_STR, .max = 64 },
        { F(reason), .kind = J_STR, .max = 512 },
        { F(state), .kind = J_ENUM, .names = gpu_state_names, .max = GS_STATE_COUNT,
          .required = true },
        { F(index), .kind = J_U32, .max = 255 },
        { F(minor), .kind = J_U32, .max = 1U << 20 },
        { F(memory_mib), .kind = J_U32, .max = 1U << 24 },
        { F(numa_node), .kind = J_U32, .max = GPU_NUMA_UNKNOWN },
        { F(gi), .kind = J_U32, .max = 255 },
        { F(ci), .kind = J_U32, .max = 255 },
        { F(mig_mode), .kind = J_BOOL },
        { F(ecc), .kind = J_BOOL },
};
#undef F

#define F(f) #f, .off = offsetof(struct gpu_fleet, f)
static const struct jfield fleet_fields[] = {
        { F(driver_version), .kind = J_STR, .max = 64 },
        { F(cuda_version), .kind = J_STR, .max = 64 },
        { F(note), .kind = J_STR, .max = 512 },
        { F(simulated), .kind = J_BOOL },
};
#undef F

bool gpu_uuid_ok(const char *uuid)
{
        size_t n = uuid ? strlen(uuid) : 0;

        return n > 4 && n <= 64 &&
               (strncmp(uuid, "GPU-", 4) == 0 || strncmp(uuid, "MIG-", 4) == 0) &&
               strspn(uuid, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-") == n;
}

bool gpu_is_for_rent(const struct gpu *g)
{
        return g->mig_profile || !g->mig_mode;
}

struct gpu *gpu_fleet_find(const struct gpu_fleet *f, const char *uuid)
{
        for (size_t i = 0; i < f->n; i++)
                if (str_eq(f->gpus[i].uuid, uuid))
                        return &f->gpus[i];
        return NULL;
}

/* ---- links ---- */

void gpu_link_text(struct gpu_link l, bool with_path, char ret[static 16])
{
        const char *path = l.path < GP_PATH_COUNT ? path_names[l.path] : "";

        if (!l.nvlinks)
                (void) snprintf(ret, 16, "%s", path);
        else if (with_path && *path)
                (void) snprintf(ret, 16, "NV%u/%s", l.nvlinks, path);
        else
                (void) snprintf(ret, 16, "NV%u", l.nvlinks);
}

int gpu_link_parse(const char *s, struct gpu_link *ret)
{
        struct gpu_link l = { 0 };
        const char *path = s;

        if (strncmp(s, "NV", 2) == 0) {
                char number[4] = "";
                size_t n = strcspn(s, "/");
                uint64_t v;

                if (n < 3 || n > 4)
                        return -EINVAL;
                memcpy(number, s + 2, n - 2);
                if (str_u64(number, 1, NVLINKS_MAX, &v) < 0)
                        return -EINVAL;
                l.nvlinks = (uint8_t) v;
                if (str_eq(s + n, "/"))
                        return -EINVAL;
                path = s[n] ? s + n + 1 : "";
        }
        while (l.path < GP_PATH_COUNT && !str_eq(path, path_names[l.path]))
                l.path++;
        if (l.path == GP_PATH_COUNT || (l.path == GP_SELF && l.nvlinks))
                return -EINVAL;
        *ret = l;
        return 0;
}

/* A cell of a matrix, into its part of *@ret. */
static int link_cell(const char *s, struct gpu_link *ret)
{
        struct gpu_link l;
        int r = gpu_link_parse(s, &l);

        if (r < 0)
                return r;
        ret->path = l.path;
        ret->nvlinks = l.nvlinks;
        return 0;
}

static int p2p_cell(const char *s, struct gpu_link *ret)
{
        uint8_t i = 0;

        while (i < GPP_COUNT && !str_eq(s, gpu_p2p_names[i]))
                i++;
        if (i == GPP_COUNT)
                return -EINVAL;
        ret->p2p = i;
        return 0;
}

static int decode_matrix(const json_t *all, const char *key,
                         int (*cell)(const char *s, struct gpu_link *ret), struct gpu_fleet *f,
                         struct err *e)
{
        const json_t *j = json_object_get(all, key);

        if (!j)
                return 0;
        if (json_array_size(j) != f->n)
                return err_set(e, -EINVAL, "%s: %zu rows for %zu GPUs", key, json_array_size(j),
                               f->n);
        for (size_t a = 0; a < f->n; a++) {
                const json_t *row = json_array_get(j, a);

                if (json_array_size(row) != f->n)
                        return err_set(e, -EINVAL, "%s: row %zu has not %zu entries", key, a, f->n);
                for (size_t b = 0; b < f->n; b++) {
                        const char *s = json_string_value(json_array_get(row, b));

                        if (!s || cell(s, &f->links[a * f->n + b]) < 0)
                                return err_set(e, -EINVAL, "%s: '%.16s' is none", key, s ? s : "");
                }
        }
        for (size_t a = 0; a < f->n; a++)
                for (size_t b = 0; b < a; b++)
                        if (memcmp(&f->links[a * f->n + b], &f->links[b * f->n + a],
                                   sizeof *f->links) != 0)
                                return err_set(e, -EINVAL, "%s: %zu and %zu disagree", key, b, a);
        return 0;
}

static int decode_links(const json_t *j, struct gpu_fleet *f, struct err *e)
{
        int r;

        f->links = calloc(f->n * f->n + 1, sizeof *f->links);
        if (!f->links)
                return err_set(e, -ENOMEM, "out of memory");
        r = decode_matrix(j, "links", link_cell, f, e);
        return r < 0 ? r : decode_matrix(j, "p2p", p2p_cell, f, e);
}

static void link_word(struct gpu_link l, char ret[static 16])
{
        gpu_link_text(l, true, ret);
}

static void p2p_word(struct gpu_link l, char ret[static 16])
{
        (void) snprintf(ret, 16, "%s", l.p2p < GPP_COUNT ? gpu_p2p_names[l.p2p] : "");
}

static json_t *encode_matrix(const struct gpu_fleet *f,
                             void (*word)(struct gpu_link l, char ret[static 16]))
{
        AUTO(json_put) json_t *rows = json_array();

        for (size_t a = 0; rows && a < f->n; a++) {
                json_t *row = json_array();

                if (json_array_append_new(rows, row) < 0)
                        return NULL;
                for (size_t b = 0; b < f->n; b++) {
                        char text[16];

                        word(f->links[a * f->n + b], text);
                        if (json_array_append_new(row, json_string(text)) < 0)
                                return NULL;
                }
        }
        return TAKE(rows);
}

static bool knows_p2p(const struct gpu_fleet *f)
{
        for (size_t i = 0; f->links && i < f->n * f->n; i++)
                if (f->links[i].p2p)
                        return true;
        return false;
}

/* ---- partitions: arrays of positions ---- */

static int decode_partitions(const json_t *j, struct gpu_fleet *f, struct err *e)
{
        size_t n = json_array_size(j);

        if (n > PARTITIONS_MAX)
                return err_set(e, -E2BIG, "partitions: %zu, at most %u are allowed", n,
                               PARTITIONS_MAX);
        f->partitions = calloc(n + 1, sizeof *f->partitions);
        if (!f->partitions)
                return err_set(e, -ENOMEM, "out of memory");
        for (size_t i = 0; i < n; i++) {
                const json_t *set = json_array_get(j, i), *at;
                size_t k;

                json_array_foreach(set, k, at)
                {
                        json_int_t v = json_is_integer(at) ? json_integer_value(at) : -1;

                        if (v < 0 || (size_t) v >= f->n)
                                return err_set(e, -EINVAL, "partitions: %lld is no GPU",
                                               (long long) v);
                        f->partitions[i] |= 1ULL << v;
                }
                if (!f->partitions[i])
                        return err_set(e, -EINVAL, "partitions: one is empty");
        }
        f->n_partitions = n;
        return 0;
}

static json_t *encode_partitions(const struct gpu_fleet *f)
{
        AUTO(json_put) json_t *all = json_array();

        for (size_t i = 0; all && i < f->n_partitions; i++) {
                json_t *set = json_array();

                if (json_array_append_new(all, set) < 0)
                        return NULL;
                for (size_t k = 0; k < f->n; k++)
                        if (f->partitions[i] >> k & 1 &&
                            json_array_append_new(set, json_integer((json_int_t) k)) < 0)
                                return NULL;
        }
        return TAKE(all);
}

/* ---- one and all ---- */

int gpu_decode(const json_t *j, struct gpu *ret, struct err *e)
{
        struct gpu g = { .numa_node = GPU_NUMA_UNKNOWN };
        int r = jsonx_decode(j, gpu_fields, NELEM(gpu_fields), &g, e);

        if (r >= 0 && !gpu_uuid_ok(g.uuid))
                r = err_set(e, -EINVAL, "uuid: '%.64s' is none", g.uuid);
        if (r >= 0 && g.state == GS_NONE)
                r = err_set(e, -EINVAL, "state: is missing");
        if (r >= 0 && g.parent && !gpu_uuid_ok(g.parent))
                r = err_set(e, -EINVAL, "parent: '%.64s' is no UUID", g.parent);
        if (r < 0) {
                gpu_done(&g);
                return err_wrap(e, r, "GPU");
        }
        *ret = g;
        return 0;
}

json_t *gpu_encode(const struct gpu *g)
{
        return jsonx_encode(gpu_fields, NELEM(gpu_fields), g);
}

void gpu_done(struct gpu *g)
{
        jsonx_done(gpu_fields, NELEM(gpu_fields), g);
}

static int decode_list(const json_t *list, struct gpu_fleet *f, struct err *e)
{
        size_t n = json_array_size(list);

        if (n > GPU_MAX)
                return err_set(e, -E2BIG, "list: %zu GPUs, at most %u are allowed", n, GPU_MAX);
        f->gpus = calloc(n + 1, sizeof *f->gpus);
        if (!f->gpus)
                return err_set(e, -ENOMEM, "out of memory");
        for (size_t i = 0; i < n; i++) {
                int r = gpu_decode(json_array_get(list, i), &f->gpus[i], e);

                if (r < 0)
                        return r;
                f->n = i + 1;
                if (gpu_fleet_find(f, f->gpus[i].uuid) != &f->gpus[i])
                        return err_set(e, -EEXIST, "%s is listed twice", f->gpus[i].uuid);
        }
        return 0;
}

int gpu_fleet_decode(const json_t *j, struct gpu_fleet *ret, struct err *e)
{
        static const char *const lists[] = { "list", "links", "p2p", "partitions" };
        struct gpu_fleet f = { 0 };
        int r = jsonx_decode(j, fleet_fields, NELEM(fleet_fields), &f, e);

        for (size_t i = 0; r >= 0 && i < NELEM(lists); i++)
                if (json_object_get(j, lists[i]) && !json_is_array(json_object_get(j, lists[i])))
                        r = err_set(e, -EINVAL, "%s: is no list", lists[i]);
        if (r >= 0)
                r = decode_list(json_object_get(j, "list"), &f, e);
        if (r >= 0)
                r = decode_links(j, &f, e);
        if (r >= 0)
                r = decode_partitions(json_object_get(j, "partitions"), &f, e);
        if (r < 0) {
                gpu_fleet_done(&f);
                return err_wrap(e, r, "GPUs");
        }
        *ret = f;
        return 0;
}

json_t *gpu_fleet_encode(const struct gpu_fleet *f)
{
        AUTO(json_put) json_t *j = jsonx_encode(fleet_fields, NELEM(fleet_fields), f);
        json_t *list = json_array();
        int r = j ? json_object_set_new(j, "list", list) : -1;

        for (size_t i = 0; r >= 0 && i < f->n; i++)
                r = json_array_append_new(list, gpu_encode(&f->gpus[i]));
        if (r >= 0)
                r = json_object_set_new(j, "links", encode_matrix(f, link_word));
        if (r >= 0 && knows_p2p(f))
                r = json_object_set_new(j, "p2p", encode_matrix(f, p2p_word));
        if (r >= 0)
                r = json_object_set_new(j, "partitions", encode_partitions(f));
        return r < 0 ? NULL : TAKE(j);
}

void gpu_fleet_done(struct gpu_fleet *f)
{
        for (size_t i = 0; i < f->n; i++)
                gpu_done(&f->gpus[i]);
        jsonx_done(fleet_fields, NELEM(fleet_fields), f);
        free(f->gpus);
        free(f->links);
        free(f->partitions);
        *f = (struct gpu_fleet){ 0 };
}

int gpu_copy(const struct gpu *g, struct gpu *ret)
{
        struct gpu copy = *g;
        bool failed = false;

        for (size_t i = 0; i < NELEM(gpu_fields); i++) {
                char **s = (char **) ((char *) &copy + gpu_fields[i].off);

                if (gpu_fields[i].kind != J_STR || !*s)
                        continue;
                *s = failed ? NULL : strdup(*s);
                failed |= !*s;
        }
        if (failed) {
                gpu_done(&copy);
                return -ENOMEM;
        }
        *ret = copy;
        return 0;
}

int gpu_fleet_copy(const struct gpu_fleet *f, struct gpu_fleet *ret)
{
        AUTO(json_put) json_t *j = gpu_fleet_encode(f);

        return j ? gpu_fleet_decode(j, ret, NULL) : -ENOMEM;
}
