/* gpu_choose_priv.h - shared by gpu_choose.c and gpu_choose_table.c.
 *
 * Within a group (the GPUs of one type) GPUs are counted from 0 in the fleet's order. */
#pragma once
#include "model/gpu_choose.h"

#define TABLE_MAX 16U /* GPUs of a type for which all subsets are kept */

struct choose_group {
        uint64_t members;
        uint32_t n;
        uint8_t at[GPU_MAX];    /* position in the fleet */
        uint8_t numa[GPU_MAX];  /* the node's place in the chooser's list */
        uint8_t cls[GPU_MAX];   /* twins have the same */
        uint8_t first[GPU_MAX]; /* of a class */
        uint32_t n_cls;
        bool mig, fabric;
        uint32_t *w; /* n * n pair scores; NULL: instances */
        struct choose_table *table;
};

struct choose_table;
int choose_table_new(const struct choose_group *g, struct choose_table **ret);
struct choose_table *choose_table_free(struct choose_table *t);
/* The best k of @free with @keep among them (all counted within the group), @keep being of @free and
 * of @k at most, and @k no more than @free. */
uint32_t choose_table_best(const struct choose_table *t, const struct choose_group *g,
                           uint32_t free, uint32_t keep, uint32_t k);
