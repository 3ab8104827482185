/* handover_judge.c - see handover_judge.h.  Pure; engine process.
 *
 * One row per check.  What cannot be known counts against the GPU where it was known before: a check
 * that does not come off is no pass. */
#include "engine/gpu/handover_judge.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/jsonx.h"
#include "base/str.h"
#include "model/gpu_xid.h"

const char *const handover_check_names[HC_COUNT] = {
        [HC_PROCESSES] = "processes", [HC_MEMORY] = "memory",   [HC_ECC] = "ecc",
        [HC_REMAP] = "remap",         [HC_RETIRED] = "retired", [HC_XID] = "xid",
        [HC_VBIOS] = "vbios",         [HC_INFOROM] = "inforom",
};

#define SAID_SIZE sizeof(((struct handover_finding *) NULL)->said[0])

/* Writes what it found to @said. */
typedef enum handover_verdict check_fn(const struct handover_before *b,
                                       const struct handover_now *n, char said[SAID_SIZE]);

static void say(char said[SAID_SIZE], const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void say(char said[SAID_SIZE], const char *fmt, ...)
{
        va_list ap;

        va_start(ap, fmt);
        (void) vsnprintf(said, SAID_SIZE, fmt, ap);
        va_end(ap);
}

static enum handover_verdict check_processes(const struct handover_before *b,
                                             const struct handover_now *n, char said[SAID_SIZE])
{
        (void) b;
        if (n->n_processes == 0) {
                say(said, "none");
                return HV_CLEAN;
        }
        say(said, "%zu, one is pid %" PRIu64, n->n_processes, n->pid);
        return HV_WAIT;
}

static enum handover_verdict check_memory(const struct handover_before *b,
                                          const struct handover_now *n, char said[SAID_SIZE])
{
        uint64_t most = b->memory_mib == GPU_UNKNOWN ? HANDOVER_UNSEEN_MIB
                                                     : b->memory_mib + HANDOVER_TOLERANCE_MIB;

        if (n->memory_mib == GPU_UNKNOWN) {
                say(said, "the driver does not say");
                return HV_BAD;
        }
        if (b->memory_mib == GPU_UNKNOWN)
                say(said, "%" PRIu64 " MiB, never seen idle before", n->memory_mib);
        else
                say(said, "%" PRIu64 " MiB, baseline %" PRIu64, n->memory_mib, b->memory_mib);
        return n->memory_mib > most ? HV_WAIT : HV_CLEAN;
}

static enum handover_verdict check_ecc(const struct handover_before *b,
                                       const struct handover_now *n, char said[SAID_SIZE])
{
        if (n->ecc_uncorrected == GPU_UNKNOWN) {
                say(said, "%s",
                    b->ecc_uncorrected == GPU_UNKNOWN ? "not counted" : "not counted any more");
                return b->ecc_uncorrected == GPU_UNKNOWN ? HV_CLEAN : HV_BAD;
        }
        /* a counter that starts again (the driver was loaded anew) has counted what it shows */
        if (n->ecc_uncorrected > 0 &&
            (b->ecc_uncorrected == GPU_UNKNOWN || n->ecc_uncorrected != b->ecc_uncorrected)) {
                say(said, "%" PRIu64 " uncorrected, %" PRIu64 " before the lease",
                    n->ecc_uncorrected, b->ecc_uncorrected == GPU_UNKNOWN ? 0 : b->ecc_uncorrected);
                return HV_BAD;
        }
        say(said, "none new");
        return HV_CLEAN;
}

static enum handover_verdict check_remap(const struct handover_before *b,
                                         const struct handover_now *n, char said[SAID_SIZE])
{
        (void) b;
        say(said, "%s",
            n->remap_failed    ? "a row of memory could not be remapped"
            : n->remap_pending ? "a row of memory waits to be remapped"
                               : "none pending");
        return n->remap_failed || n->remap_pending ? HV_BAD : HV_CLEAN;
}

static enum handover_verdict check_retired(const struct handover_before *b,
                                           const struct handover_now *n, char said[SAID_SIZE])
{
        (void) b;
        say(said, "%s",
            n->retired_pending ? "a page of memory waits to be retired" : "none pending");
        return n->retired_pending ? HV_BAD : HV_CLEAN;
}

static bool noted(const struct handover_before *b, uint64_t xid)
{
        for (size_t i = 0; i < b->n_xids; i++)
                if (b->xids[i] == xid)
                        return true;
        return false;
}

/* One that is a reason is never left out for want of room. */
void handover_note_xid(struct handover_before *b, uint64_t xid)
{
        if (xid == 0 || xid == GPU_UNKNOWN || noted(b, xid))
                return;
        if (b->n_xids < HANDOVER_XIDS)
                b->xids[b->n_xids++] = xid;
        else if (!gpu_xid_is_program(xid))
                b->xids[HANDOVER_XIDS - 1] = xid;
}

static enum handover_verdict check_xid(const struct handover_before *b,
                                       const struct handover_now *n, char said[SAID_SIZE])
{
        struct handover_before all = *b;
        enum handover_verdict v = HV_CLEAN;
        AUTO(strbuf_done) struct strbuf list = { 0 };

        if (n->xid != b->xid)
                handover_note_xid(&all, n->xid);
        for (int pass = 0; pass < 2; pass++) { /* reasons first: what is behind may be cut */
                for (size_t i = 0; i < all.n_xids; i++) {
                        bool program = gpu_xid_is_program(all.xids[i]);

                        if (program != (pass == 1))
                                continue;
                        strbuf_fmt(&list, "%s%" PRIu64 "%s", list.len ? ", " : "", all.xids[i],
                                   program ? " (of a program)" : "");
                        if (!program)
                                v = HV_BAD;
                }
        }
        say(said, "%s", !all.n_xids ? "none" : list.s ? list.s : "?");
        return v;
}

static enum handover_verdict same_text(const char *before, const char *now, char said[SAID_SIZE])
{
        if (*now && str_eq(before, now)) {
                say(said, "%s", now);
                return HV_CLEAN;
        }
        if (!*before) {
                say(said, "%s", *now ? now : "not known");
                return HV_CLEAN;
        }
        say(said, "%s, %s when first seen", *now ? now : "not known", before);
        return HV_BAD;
}

static enum handover_verdict check_vbios(const struct handover_before *b,
                                         const struct handover_now *n, char said[SAID_SIZE])
{
        return same_text(b->vbios, n->vbios, said);
}

static enum handover_verdict check_inforom(const struct handover_before *b,
                                           const struct handover_now *n, char said[SAID_SIZE])
{
        return same_text(b->inforom, n->inforom, said);
}

static const struct {
        check_fn *fn;
        const char *reason; /* before what it found */
} checks[HC_COUNT] = {
        [HC_PROCESSES] = { check_processes, "processes still hold it" },
        [HC_MEMORY] = { check_memory, "its memory is not given back" },
        [HC_ECC] = { check_ecc, "errors in its memory could not be corrected" },
        [HC_REMAP] = { check_remap, "its memory is not in order" },
        [HC_RETIRED] = { check_retired, "its memory is not in order" },
        [HC_XID] = { check_xid, "the driver reported errors (Xid)" },
        [HC_VBIOS] = { check_vbios, "its VBIOS is another one" },
        [HC_INFOROM] = { check_inforom, "its InfoROM is another one" },
};

void handover_judge(const struct handover_before *before, const struct handover_now *now,
                    struct handover_finding *ret)
{
        *ret = (struct handover_finding){ .verdict = HV_CLEAN };
        if (!now->present) {
                ret->verdict = HV_BAD;
                (void) snprintf(ret->reason, sizeof ret->reason,
                                "the driver does not list it any more (fallen off the bus)");
                return;
        }
        for (size_t i = 0; i < HC_COUNT; i++) {
                enum handover_verdict v = checks[i].fn(before, now, ret->said[i]);

                if (v <= ret->verdict)
                        continue;
                ret->verdict = v;
                (void) snprintf(ret->reason, sizeof ret->reason, "%s: %s", checks[i].reason,
                                ret->said[i]);
        }
}

static uint64_t number(const json_t *j, const char *key)
{
        const json_t *v = json_object_get(j, key);

        return json_is_integer(v) && json_integer_value(v) >= 0 ? (uint64_t) json_integer_value(v)
                                                                : GPU_UNKNOWN;
}

static void put_number(json_t *j, const char *key, uint64_t v)
{
        if (v != GPU_UNKNOWN)
                (void) json_object_set_new(j, key, json_integer((json_int_t) v));
}

/* What a terminal or a log would obey, an InfoROM has no use for. */
static void take_text(const json_t *j, const char *key, char ret[static 64])
{
        const char *s = jsonx_str(j, key);

        (void) snprintf(ret, 64, "%s", s ? s : "");
        for (char *c = ret; *c; c++)
                if ((unsigned char) *c < ' ' || (unsigned char) *c > '~')
                        *c = '?';
}

int handover_now_decode(const json_t *j, struct handover_now *ret, struct err *e)
{
        const json_t *present = json_object_get(j, "present");
        const json_t *processes = json_object_get(j, "processes");

        if (!json_is_boolean(present))
                return err_set(e, -EPROTO, "a check without `present`");
        *ret = (struct handover_now){
                .present = json_is_true(present),
                .n_processes = json_array_size(processes),
                .pid = number(json_array_get(processes, 0), "pid"),
                .memory_mib = number(j, "memory_used_mib"),
                .ecc_uncorrected = number(j, "ecc_uncorrected"),
                .xid = number(j, "xid"),
                .remap_pending = json_is_true(json_object_get(j, "remap_pending")),
                .remap_failed = json_is_true(json_object_get(j, "remap_failed")),
                .retired_pending = json_is_true(json_object_get(j, "retired_pending")),
        };
        if (ret->present && !json_is_array(processes))
                return err_set(e, -EPROTO, "the driver does not say which processes hold it");
        if (ret->pid == GPU_UNKNOWN)
                ret->pid = 0;
        if (ret->xid == GPU_UNKNOWN)
                ret->xid = 0;
        take_text(j, "vbios", ret->vbios);
        take_text(j, "inforom", ret->inforom);
        return 0;
}

int handover_before_decode(const json_t *j, struct handover_before *ret, struct err *e)
{
        size_t i;
        json_t *xid;

        if (!json_is_object(j))
                return err_set(e, -EPROTO, "a lease of a GPU is not written down as one");
        *ret = (struct handover_before){ .began_us = number(j, "began_us"),
                                         .memory_mib = number(j, "memory_mib"),
                                         .ecc_uncorrected = number(j, "ecc_uncorrected"),
                                         .xid = number(j, "xid"),
                                         .open = json_is_true(json_object_get(j, "open")) };
        if (ret->began_us == GPU_UNKNOWN)
                ret->began_us = 0;
        if (ret->xid == GPU_UNKNOWN)
                ret->xid = 0;
        take_text(j, "vbios", ret->vbios);
        take_text(j, "inforom", ret->inforom);
        json_array_foreach(json_object_get(j, "xids"), i, xid)
        {
                if (json_integer_value(xid) > 0)
                        handover_note_xid(ret, (uint64_t) json_integer_value(xid));
        }
        return 0;
}

json_t *handover_before_encode(const struct handover_before *b)
{
        AUTO(json_put)
        json_t *j =
                json_pack("{s:I, s:I, s:s, s:s, s:[]}", "began_us", (json_int_t) b->began_us, "xid",
                          (json_int_t) b->xid, "vbios", b->vbios, "inforom", b->inforom, "xids");

        if (!j)
                return NULL;
        if (b->open && json_object_set_new(j, "open", json_true()) < 0)
                return NULL;
        put_number(j, "memory_mib", b->memory_mib);
        put_number(j, "ecc_uncorrected", b->ecc_uncorrected);
        for (size_t i = 0; i < b->n_xids; i++)
                if (json_array_append_new(json_object_get(j, "xids"),
                                          json_integer((json_int_t) b->xids[i])) < 0)
                        return NULL;
        return TAKE(j);
}

json_t *handover_receipt(const char *uuid, uint64_t at_us, const struct handover_finding *f,
                         const char *scrub)
{
        AUTO(json_put)
        json_t *j =
                json_pack("{s:s, s:b, s:I, s:{}, s:s}", "uuid", uuid, "ok", f->verdict == HV_CLEAN,
                          "at_us", (json_int_t) at_us, "checks", "reason", f->reason);
        json_t *list = json_object_get(j, "checks");

        for (size_t i = 0; j && i < HC_COUNT; i++)
                if (f->said[i][0] &&
                    json_object_set_new(list, handover_check_names[i], json_string(f->said[i])) < 0)
                        return NULL;
        if (j && scrub && json_object_set_new(list, "scrub", json_string(scrub)) < 0)
                return NULL;
        return TAKE(j);
}
