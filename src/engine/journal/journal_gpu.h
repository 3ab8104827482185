/* journal_gpu.h - what is remembered of each GPU over restarts of the engine and of the machine: how
 * it was when it was first seen, and why it may not be rented.  Same file, process and cost as
 * journal.h; a row is never removed, there are as many as GPUs ever were in this machine. */
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
};

/* 1: *@ret is its row; 0: it was never seen. */
int journal_gpu_get(struct journal *j, const char *uuid, struct journal_gpu *ret, struct err *e);
/* Insert or replace; durable. */
int journal_gpu_save(struct journal *j, const struct journal_gpu *row, struct err *e);
