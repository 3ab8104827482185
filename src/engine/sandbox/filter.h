/* filter.h - from rules about system calls to a seccomp program.
 *
 * The program finds the system call by a balanced tree of number ranges, so that a call costs
 * log2(ranges) comparisons and loading it costs a fifth of what a list of comparisons costs.
 * Pure: no state, no kernel. */
#pragma once
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/mem.h"
#include "model/security.h"

#define FILTER_TESTS 2U

struct filter_test { /* holds when (argument & mask) == value */
        uint8_t arg;
        uint64_t mask, value;
};

struct filter_row {
        const char *name;
        int number;      /* -1: ask libseccomp */
        uint32_t action; /* SECCOMP_RET_* */
        uint8_t n_tests; /* all must hold */
        struct filter_test tests[FILTER_TESTS];
        enum security_profile profile; /* that it is for; SECURITY_NONE: every one */
};

/* data/policy/seccomp.policy as a table, generated at build time. */
extern const struct filter_row policy_rows[];
extern const size_t policy_n_rows;

struct filter {
        unsigned short len;
        struct sock_filter insn[]; /* as seccomp(2) takes it */
};

/* Compile the rows that count for @profile, for the native architecture: foreign ABIs are killed,
 * calls without a fitting row get ENOSYS, rows of one call are tried in order.  The caller frees
 * *@ret.  -EINVAL: a name that libseccomp does not know; -E2BIG: more than the kernel takes. */
int filter_build(const struct filter_row *rows, size_t n, enum security_profile profile,
                 struct filter **ret, struct err *e);
