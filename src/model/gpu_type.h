/* gpu_type.h - which type of GPU a GPU is, and which types a wish means.  Pure.
 *
 * A type's id is the driver's product name, which is also what clients say ("NVIDIA A100-SXM4-80GB").
 * The table knows the common ones; a product that it does not know is a type by itself, named as the
 * driver names it.  MIG instances of one profile are a type, too: "NVIDIA A100-SXM4-80GB 1g.10gb". */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/mem.h"
#include "model/gpu.h"

#define GPU_MANUFACTURER "NVIDIA"

/* One product that we know. */
struct gpu_product {
        const char *id;      /* "NVIDIA A100-SXM4-80GB" */
        const char *display; /* "A100 SXM" */
        const char *family;  /* "A100": what several products are together; NULL: only itself */
        const char *pool;    /* "AMPERE_80": what serverless endpoints ask for; NULL: none */
        uint32_t memory_gib, cuda_cores;
};
extern const struct gpu_product gpu_products[];
extern const size_t gpu_products_n;

/* By the driver's name, with or without "NVIDIA", in any case; NULL: not in the table. */
const struct gpu_product *gpu_product_find(const char *name);

/* A type that a host has. */
struct gpu_type {
        char *id, *display;
        const struct gpu_product *product; /* NULL: not in the table */
        char *mig_profile;                 /* NULL: whole GPUs */
        uint32_t memory_gib, cuda_cores;   /* 0 cores: not known, or an instance */
        uint64_t members;                  /* bit i: gpus[i] of the fleet; never empty */
};
struct gpu_types {
        struct gpu_type *list; /* in the order in which the fleet names them */
        size_t n;
};

/* The types of what the fleet has for rent, whatever its state. */
int gpu_types_init(const struct gpu_fleet *f, struct gpu_types *ret, struct err *e);
void gpu_types_done(struct gpu_types *t);
/* The one that gpus[i] belongs to; NULL: it is not for rent. */
const struct gpu_type *gpu_types_of(const struct gpu_types *t, size_t i);
/* By id; NULL: this host has none of it. */
const struct gpu_type *gpu_types_find(const struct gpu_types *t, const char *id);

/* Does @wish mean this type?  It says, in any case, with or without "NVIDIA" before it, blanks and
 * dashes being the same: an id, also without the line of products before it ("4090" is "GeForce RTX
 * 4090"), a display name ("A100 SXM"), a family ("NVIDIA A100" is every A100), and for MIG one of these and the profile ("NVIDIA A100 1g.10gb", "A100 MIG 1g.10gb").  "(simulated)"
 * at the end, as it is shown, is no part of it.  A wish
 * without a profile means whole GPUs.  NULL, "" and "any" mean every type of whole GPUs. */
bool gpu_type_matches(const struct gpu_type *t, const char *wish);
/* All GPUs of the types that it means; 0: none here. */
uint64_t gpu_types_match(const struct gpu_types *t, const char *wish);
