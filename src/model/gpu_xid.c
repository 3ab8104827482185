/* gpu_xid.c - see gpu_xid.h.  Numbers and meanings as NVIDIA documents them. */
#include "model/gpu_xid.h"

#include <stddef.h>

#include "base/mem.h"

enum xid_class { PROGRAM, NOTED, FATAL };

static const struct xid {
        uint32_t code;
        enum xid_class class;
        const char *text;
} xids[] = {
        { 8, PROGRAM, "GPU stopped processing" },
        { 13, PROGRAM, "graphics engine exception" },
        { 31, PROGRAM, "GPU memory page fault" },
        { 32, PROGRAM, "invalid or corrupted push buffer" },
        { 38, FATAL, "driver firmware error" },
        { 43, PROGRAM, "GPU stopped processing" },
        { 44, NOTED, "graphics engine fault during context switch" },
        { 45, PROGRAM, "work was cleaned up after an earlier error" },
        { 48, FATAL, "double-bit ECC error" },
        { 56, FATAL, "display engine error" },
        { 57, FATAL, "error in programming the video memory interface" },
        { 58, FATAL, "unstable video memory interface" },
        { 61, FATAL, "internal micro-controller breakpoint" },
        { 62, FATAL, "internal micro-controller halt" },
        { 63, NOTED, "a bad memory row or page was recorded" },
        { 64, FATAL, "a bad memory row or page could not be recorded" },
        { 68, PROGRAM, "video processor exception" },
        { 69, PROGRAM, "graphics engine class error" },
        { 74, FATAL, "NVLink error" },
        { 78, NOTED, "vGPU could not be started" },
        { 79, FATAL, "GPU has fallen off the bus" },
        { 92, NOTED, "high rate of single-bit ECC errors" },
        { 94, NOTED, "contained ECC error" },
        { 95, FATAL, "uncontained ECC error" },
        { 109, PROGRAM, "context switch timeout" },
        { 110, FATAL, "security fault" },
        { 119, FATAL, "GPU system processor does not answer" },
        { 120, FATAL, "GPU system processor error" },
        { 121, NOTED, "chip-to-chip link error" },
        { 123, FATAL, "power management unit does not answer" },
        { 136, FATAL, "NVLink training failed" },
        { 140, FATAL, "unrecovered ECC error" },
        { 143, FATAL, "GPU could not be initialised" },
        { 149, FATAL, "NVLink error" },
        { 154, NOTED, "the driver asks for another way of recovery" },
        { 155, FATAL, "NVLink firmware error" },
};

static const struct xid *find(uint64_t code)
{
        for (size_t i = 0; i < NELEM(xids); i++)
                if (xids[i].code == code)
                        return &xids[i];
        return NULL;
}

const char *gpu_xid_text(uint64_t code)
{
        const struct xid *x = find(code);

        return x ? x->text : "an error without a name";
}

bool gpu_xid_is_program(uint64_t code)
{
        const struct xid *x = find(code);

        return x && x->class == PROGRAM;
}

bool gpu_xid_is_fatal(uint64_t code)
{
        const struct xid *x = find(code);

        return x && x->class == FATAL;
}
