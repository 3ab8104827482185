/* gpus.c - decoding of what an engine says about its GPUs and their prices.  Runs in tensorone-api;
 * pure.
 *
 * What always holds: a decoded fleet has at most GPU_MAX GPUs, each UUID once; its texts are safe to
 * print; a price is a finite number that is not negative. */
#include <errno.h>
#include <math.h>

#include "base/jsonx.h"
#include "base/str.h"
#include "control/node/node.h"

#define PRICES_MAX 256U
#define PRICE_MAX  1e6 /* an hour of one GPU */
#define TYPE_BYTES 128U

/* Everything that people get to see: a terminal obeys none of it. */
static void tame(struct gpu_fleet *f)
{
        char *of_fleet[] = { f->driver_version, f->cuda_version, f->note };

        for (size_t i = 0; i < NELEM(of_fleet); i++)
                if (of_fleet[i])
                        str_tame(of_fleet[i], '?');
        for (struct gpu *g = f->gpus; g < f->gpus + f->n; g++) {
                char *of_gpu[] = { g->name,  g->pci,     g->mig_profile, g->serial,
                                   g->vbios, g->inforom, g->reason };

                for (size_t i = 0; i < NELEM(of_gpu); i++)
                        if (of_gpu[i])
                                str_tame(of_gpu[i], '?');
        }
}

static int decode_amount(const json_t *j, const char *key, double *ret, struct err *e)
{
        const json_t *v = json_object_get(j, key);
        double d = v ? json_number_value(v) : 0;

        if ((v && !json_is_number(v)) || !isfinite(d) || d < 0 || d > PRICE_MAX)
                return err_set(e, -ERANGE, "%s: outside 0..%g", key, PRICE_MAX);
        *ret = d;
        return 0;
}

static int decode_price(const json_t *j, struct node_price *ret, struct err *e)
{
        const char *type = jsonx_str(j, "type");
        int r = decode_amount(j, "on_demand", &ret->on_demand, e);

        if (r >= 0)
                r = decode_amount(j, "spot", &ret->spot, e);
        if (r < 0)
                return r;
        if (str_empty(type) || strlen(type) > TYPE_BYTES)
                return err_set(e, -EINVAL, "type: 1 to %u bytes are allowed", TYPE_BYTES);
        ret->type = strdup(type);
        if (!ret->type)
                return err_set(e, -ENOMEM, "out of memory");
        str_tame(ret->type, '?');
        return 0;
}

static int decode_prices(const json_t *j, struct node_gpus *g, struct err *e)
{
        size_t n = json_array_size(j);

        if (j && !json_is_array(j))
                return err_set(e, -EINVAL, "prices: is no list");
        if (n > PRICES_MAX)
                return err_set(e, -E2BIG, "prices: %zu, at most %u are allowed", n, PRICES_MAX);
        g->prices = n ? calloc(n, sizeof *g->prices) : NULL;
        if (n && !g->prices)
                return err_set(e, -ENOMEM, "out of memory");
        for (; g->n_prices < n; g->n_prices++) {
                int r = decode_price(json_array_get(j, g->n_prices), &g->prices[g->n_prices], e);

                if (r < 0)
                        return err_wrap(e, r, "prices");
        }
        return 0;
}

int node_gpus_decode(const json_t *j, struct node_gpus *ret, struct err *e)
{
        struct node_gpus g = { 0 };
        int r = gpu_fleet_decode(j, &g.fleet, e);

        if (r >= 0)
                r = decode_prices(json_object_get(j, "prices"), &g, e);
        if (r < 0) {
                node_gpus_done(&g);
                return err_wrap(e, r, "gpus");
        }
        tame(&g.fleet);
        *ret = g;
        return 0;
}

json_t *node_gpus_encode(const struct node_gpus *g)
{
        AUTO(json_put) json_t *j = gpu_fleet_encode(&g->fleet);
        json_t *prices = json_array();

        if (!j || json_object_set_new(j, "prices", prices) < 0)
                return NULL;
        for (const struct node_price *p = g->prices; p < g->prices + g->n_prices; p++)
                if (json_array_append_new(prices,
                                          json_pack("{s:s, s:f, s:f}", "type", p->type, "on_demand",
                                                    p->on_demand, "spot", p->spot)) < 0)
                        return NULL;
        return TAKE(j);
}

void node_gpus_done(struct node_gpus *g)
{
        gpu_fleet_done(&g->fleet);
        for (size_t i = 0; i < g->n_prices; i++)
                free(g->prices[i].type);
        free(g->prices);
        *g = (struct node_gpus){ 0 };
}
