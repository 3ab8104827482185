/* claim_priv.h - what the files of this folder (and their unit tests) share.  See claim.h. */
#pragma once
#include <sys/types.h>

#include "base/err.h"
#include "base/mem.h"
#include "engine/claim/claim.h"

#define CLAIM_NAME_MAX      40U         /* characters of a cluster, instance or setting name */
#define CLAIM_QUARANTINE_US 10000000ULL /* a released slot rests this long while others are free */

enum claim_kind {
        CLAIM_KIND_NONE,
        CLAIM_KIND_SLOT,
        CLAIM_KIND_CPU,
        CLAIM_KIND_PORT,
        CLAIM_KIND_COUNT
};

/* What one claim file says. */
struct claim_rec {
        char instance[CLAIM_NAME_MAX + 1], cluster[CLAIM_NAME_MAX + 1];
        uint64_t generation;
};
int claim_rec_format(const struct claim_rec *r, char *buf, size_t size);
int claim_rec_parse(const char *text, struct claim_rec *ret);
#define CLAIM_REC_MAX 160U /* bytes of one, as text */

/* One number in the index: who holds it, or since when it is free. */
struct claim_cell {
        uint64_t holder;      /* claim_hash() of instance and cluster; 0 = free */
        uint64_t released_us; /* CLOCK_BOOTTIME of the last release; 0 = never used */
};

/* A directory of claim files with its index; see claim_table.c.  Everything but _open, _done and
 * _read wants the host-wide lock. */
struct claim_table {
        enum claim_kind kind;
        int dir;
        uint32_t first, last;
        struct claim_cell *cell; /* last + 1 of them, shared by all processes */
};
const char *claim_kind_name(enum claim_kind k); /* "slot", "cpu", "port" */
int claim_table_open(int parent, enum claim_kind kind, struct claim_table *ret, struct err *e);
void claim_table_done(struct claim_table *t);
/* Make the index agree with the files. */
int claim_table_check(struct claim_table *t, struct err *e);
int claim_table_read(const struct claim_table *t, uint32_t n, struct claim_rec *ret);
/* -EEXIST when it is taken and not @replace; the index then tells the truth again. */
int claim_table_take(struct claim_table *t, uint32_t n, const struct claim_rec *rec, bool replace);
int claim_table_drop(struct claim_table *t, uint32_t n, uint64_t now_us);
uint64_t claim_hash(const char *instance, const char *cluster);
/* The number to try next: the lowest that has rested, else the one that rests longest; 0: full. */
uint32_t claim_pick(const struct claim_table *t, uint64_t now_us);

struct claim_host {
        int dir, instances, settings, gpus;
        int alive; /* the flock that says "this engine runs" */
        pid_t owner;
        char id[CLAIM_NAME_MAX + 1];
        struct claim_table table[CLAIM_KIND_COUNT];
};

/* What a cluster of @c writes into a claim. */
int claim_rec_make(const struct claim_host *c, const char *cluster, uint64_t generation,
                   struct claim_rec *ret, struct err *e);
bool claim_rec_same(const struct claim_rec *a, const struct claim_rec *b); /* holder */

/* Each claimed GPU; @rec is NULL where the file cannot be read.  Stops at < 0. */
typedef int claim_gpu_walk_fn(void *arg, const char *uuid, const struct claim_rec *rec);
int claim_gpu_walk(const struct claim_host *c, claim_gpu_walk_fn *fn, void *arg);

uint64_t claim_now_us(void); /* CLOCK_BOOTTIME */
/* A fresh descriptor with the host-wide lock; closing it unlocks.  Never the same open file in two
 * processes: a flock does not keep out those who share it by fork. */
int claim_lock(const struct claim_host *c, struct err *e);
/* Give back what @cluster holds of @kind, but for @kept.  Takes the lock. */
int claim_keep(struct claim_host *c, enum claim_kind kind, const char *cluster,
               const uint32_t *kept, size_t n, struct err *e);
int claim_name_check(const char *what, const char *name, struct err *e);

/* Take the running-engine lock of @data_dir's instance (claim_instance.c); returns it. */
int claim_instance_lock(int instances, const char *id, const char *data_dir, struct err *e);
/* Engine ended, data directory gone, nothing running in its groups; doubt means no. */
/* Free what dead instances hold.  With the host-wide lock. */
int claim_reap(struct claim_host *c, struct err *e);

/* A setting's file (claim_setting.c). */
#define CLAIM_SAVE_MAX    63U
#define CLAIM_HOLDERS_MAX 64U
struct claim_setting {
        char saved[CLAIM_SAVE_MAX + 1];
        char holder[CLAIM_HOLDERS_MAX][CLAIM_NAME_MAX + 1];
        size_t n;
};
int claim_setting_parse(const char *text, struct claim_setting *ret);
int claim_setting_format(const struct claim_setting *s, char **ret);
int claim_setting_reap(struct claim_host *c, struct err *e);
