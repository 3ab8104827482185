/* journal_gpu.h - what is remembered of each GPU over restarts of the engine and of the machine: how
 * it was when it was first seen, and why it may not be rented.  Same file, process and cost as
 * journal.h.  A row ends when its GPU has not been here for long: MIG instances that are made anew
 * have another name each time. */
#pragma once
#include "engine/journal/journal.h"

#define JOURNAL_GPU_UNKNOWN UINT64_MAX

struct journal_gpu {
        char uuid[72];
        char vbios[64], inforom[64]; /* when it was first seen; "": the driver does not say */
        char driver[64];             /* version of the driver that memory_mib was seen with */
        uint64_t memory_mib;  /* least use that was seen while nobody had it; JOURNAL_GPU_UNKNOWN */
        uint64_t first_us;    /* wall clock */
        char quarantine[512]; /* why; "": it is not in quarantine */
        char cluster[16];     /* after which lease; "": none */
        uint64_t since_us;    /* wall clock */
        uint32_t xid;         /* the last one, 0: none */
        uint64_t xid_us;
        uint64_t seen_us; /* wall clock, by the day: when the driver last listed it */
};

/* 1: *@ret is its row; 0: it was never seen. */
int journal_gpu_get(struct journal *j, const char *uuid, struct journal_gpu *ret, struct err *e);
/* Remove rows of GPUs that were last seen before @before_us (wall clock), but for those in quarantine and
 * those that a cluster still holds.  Returns how many. */
int journal_gpu_expire(struct journal *j, uint64_t before_us, struct err *e);
/* Insert or replace; durable. */
int journal_gpu_save(struct journal *j, const struct journal_gpu *row, struct err *e);
