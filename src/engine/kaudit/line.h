/* line.h - one record of the kernel's audit stream, as far as it is about a cluster.  Pure.
 *
 * Names in it are chosen by strangers (comm, exe, name); the kernel writes such a name in quotes, or in
 * hex where it holds a quote, a blank or anything unprintable, so that no name can end its own field.
 * Of each field the first one counts. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Types of records: linux/audit.h */
#define KAUDIT_SECCOMP 1326U
#define KAUDIT_LSM     1400U /* AppArmor's, too */

#define KAUDIT_NAME_BYTES 128U

struct kaudit_line {
        const char *kind; /* "seccomp", "apparmor"; static */
        bool has_uid;
        uint32_t uid;  /* of the process, as the host counts */
        uint32_t slot; /* that its AppArmor profile names; 0: none */
        uint64_t pid, syscall;
        char arch[16];                     /* "c000003e" */
        char comm[KAUDIT_NAME_BYTES];      /* decoded; what is not plain ASCII is '?' */
        char operation[KAUDIT_NAME_BYTES]; /* "open", as are the next */
        char name[KAUDIT_NAME_BYTES], denied[16];
};

/* 0: a process that seccomp has ended, or a denial of AppArmor under one of our profiles.  -ENOMSG:
 * anything else, also what is no record at all; then *@ret is untouched. */
int kaudit_parse(unsigned type, const char *text, size_t len, struct kaudit_line *ret);

/* What people read. */
void kaudit_sentence(const struct kaudit_line *l, char *ret, size_t size);
