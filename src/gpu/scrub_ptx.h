/* scrub_ptx.h - the program that a scrub runs on a GPU; tests/gpu measures with it, too.  In PTX, because
 * building must not need the vendor's compiler: the driver compiles it for the GPU that it finds. */
#pragma once

/* Two kernels over @n words of 64 bits at @p: word i is to be (i * odd + seed) ^ flip.  The oldest PTX
 * that every driver of today still takes; the driver compiles it for the GPU. */
#define PTX_BEGIN(name)                                                                            \
        ".visible .entry " name "(.param .u64 p, .param .u64 n, .param .u64 seed,\n"               \
        " .param .u64 flip, .param .u64 bad)\n"                                                    \
        "{\n"                                                                                      \
        ".reg .pred %q<3>;\n"                                                                      \
        ".reg .b32 %r<5>;\n"                                                                       \
        ".reg .b64 %d<14>;\n"                                                                      \
        "ld.param.u64 %d1, [p];\n"                                                                 \
        "ld.param.u64 %d2, [n];\n"                                                                 \
        "ld.param.u64 %d3, [seed];\n"                                                              \
        "ld.param.u64 %d4, [flip];\n"                                                              \
        "ld.param.u64 %d11, [bad];\n"                                                              \
        "cvta.to.global.u64 %d1, %d1;\n"                                                           \
        "cvta.to.global.u64 %d11, %d11;\n"                                                         \
        "mov.u32 %r1, %ctaid.x;\n"                                                                 \
        "mov.u32 %r2, %ntid.x;\n"                                                                  \
        "mov.u32 %r3, %tid.x;\n"                                                                   \
        "mov.u32 %r4, %nctaid.x;\n"                                                                \
        "mul.wide.u32 %d5, %r1, %r2;\n"                                                            \
        "cvt.u64.u32 %d6, %r3;\n"                                                                  \
        "add.s64 %d5, %d5, %d6;\n"                                                                 \
        "mul.wide.u32 %d7, %r4, %r2;\n"                                                            \
        "NEXT:\n"                                                                                  \
        "setp.ge.u64 %q1, %d5, %d2;\n"                                                             \
        "@%q1 bra DONE;\n"                                                                         \
        "mul.lo.s64 %d8, %d5, -7046029254386353131;\n"                                             \
        "add.s64 %d8, %d8, %d3;\n"                                                                 \
        "xor.b64 %d8, %d8, %d4;\n"                                                                 \
        "shl.b64 %d9, %d5, 3;\n"                                                                   \
        "add.s64 %d9, %d1, %d9;\n"
#define PTX_END                                                                                    \
        "add.s64 %d5, %d5, %d7;\n"                                                                 \
        "bra NEXT;\n"                                                                              \
        "DONE:\n"                                                                                  \
        "ret;\n"                                                                                   \
        "}\n"

static const char scrub_ptx[] = ".version 6.0\n"
                                ".target sm_50\n"
                                ".address_size 64\n"
        /* clang-format off */
        PTX_BEGIN("scrub_write")
        "st.global.u64 [%d9], %d8;\n"
        PTX_END
        PTX_BEGIN("scrub_compare")
        "ld.global.u64 %d10, [%d9];\n"
        "setp.eq.s64 %q2, %d10, %d8;\n"
        "@%q2 bra SAME;\n"
        "mov.u64 %d12, 1;\n"
        "atom.global.add.u64 %d13, [%d11], %d12;\n"
        "SAME:\n"
        PTX_END;
/* clang-format on */
