/* handover_judge.h - whether a GPU that comes back from a cluster may be given to another one: what
 * the driver says of it now against what it said before.  Pure: table tests.
 *
 * What is compared with was written down when the lease began, with the journal row that holds the
 * GPU, so that a judgement after a crash of the engine is the same one. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "model/gpu_telemetry.h" /* GPU_UNKNOWN */

/* A driver that is idle does not always use the same; a context of CUDA takes more than this. */
#define HANDOVER_TOLERANCE_MIB 64U
/* One that was leased before anybody had seen it idle: more than any driver keeps for itself. */
#define HANDOVER_UNSEEN_MIB 1024U

#define HANDOVER_XIDS 8U

/* When the lease began.  GPU_UNKNOWN, "": the driver does not say. */
struct handover_before {
        uint64_t began_us;
        uint64_t memory_mib;          /* in use while nobody had it, when it was first seen so */
        uint64_t ecc_uncorrected;     /* the counter then */
        uint64_t xid;                 /* the last one then, 0: none */
        char vbios[64], inforom[64];  /* as first seen, not as of the last lease */
        uint64_t xids[HANDOVER_XIDS]; /* seen during the lease, each once */
        size_t n_xids;
        bool open; /* the cluster shall not have it and may, after a change that failed */
};

/* A row of a "checked" message (docs/gpu.md). */
struct handover_now {
        bool present;
        size_t n_processes;
        uint64_t pid; /* of one of them */
        uint64_t memory_mib, ecc_uncorrected, xid;
        bool remap_pending, remap_failed, retired_pending;
        char vbios[64], inforom[64];
};

enum handover_verdict {
        HV_NONE,
        HV_CLEAN,
        HV_WAIT, /* may become clean by itself: processes that end, memory that is given back */
        HV_BAD,
        HV_VERDICT_COUNT
};

enum handover_check {
        HC_PROCESSES,
        HC_MEMORY,
        HC_ECC,
        HC_REMAP,
        HC_RETIRED,
        HC_XID,
        HC_VBIOS,
        HC_INFOROM,
        HC_COUNT
};
extern const char *const handover_check_names[HC_COUNT]; /* keys of a receipt's `checks` */

struct handover_finding {
        enum handover_verdict verdict; /* the worst of them */
        char said[HC_COUNT][96];       /* what each check found; "": it came to none */
        char reason[256];              /* why the verdict is not clean, a sentence; else "" */
};

void handover_judge(const struct handover_before *before, const struct handover_now *now,
                    struct handover_finding *ret);

/* Xids of programs (model/gpu_xid.h) stand in the receipt and are no reason, else every tenant could take
 * GPUs off the market. */
void handover_note_xid(struct handover_before *b, uint64_t xid);

int handover_now_decode(const json_t *j, struct handover_now *ret, struct err *e);
int handover_before_decode(const json_t *j, struct handover_before *ret, struct err *e);
json_t *handover_before_encode(const struct handover_before *b); /* new reference or NULL */

/* The receipt of docs/gpu.md; @scrub: what a scrub said, NULL: there was none.  New reference. */
json_t *handover_receipt(const char *uuid, uint64_t at_us, const struct handover_finding *f,
                         const char *scrub);
