/* usage.h - what hypervisor-vmm can be told, as tables, and the texts that follow from them: help,
 * completion, manual pages, the sample configuration.  main.c has the functions behind the verbs.
 * Pure: everything appends to the caller's buffer. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

#include "base/str.h"

#define USAGE_PROGRAM "hypervisor-vmm"

enum usage_verb_id {
        VERB_NONE,
        VERB_STANDALONE,
        VERB_DOCTOR,
        VERB_CONFIG,
        VERB_CDI,
        VERB_VERSION,
        VERB_HELP,
        VERB_MAN,
        VERB_COMPLETION,
        VERB_COUNT
};

enum usage_arg {
        ARG_NONE,
        ARG_DIR,
        ARG_FILE,
        ARG_ADDRESS,
        ARG_VERB,
        ARG_CDI,
        ARG_PAGE,
        ARG_SHELL,
        ARG_COUNT
};

#define USAGE_FLAGS 4U

struct usage_flag {
        const char *name; /* with its dashes; NULL: end of the list */
        enum usage_arg arg;
        bool needed;
        const char *help; /* one sentence, no full stop */
};

struct usage_verb {
        const char *name;
        struct usage_flag flags[USAGE_FLAGS];
        enum usage_arg operand;
        bool operand_needed, hidden; /* hidden: not in lists and completion */
        const char *summary;         /* one line, no full stop */
        const char *detail;          /* sentences, or NULL */
};

extern const struct usage_verb usage_verbs[VERB_COUNT];

/* VERB_NONE: there is no such verb. */
enum usage_verb_id usage_find(const char *name);
/* The verb that was probably meant, or NULL. */
const char *usage_near(const char *name);
/* What an argument is called in texts: "DIR". */
const char *usage_arg_title(enum usage_arg arg);

/* The value of a flag, or an operand, as an argument vector gives it; all borrowed. */
struct usage_args {
        const char *flag[USAGE_FLAGS]; /* in the order of the verb's row */
        const char *operand;
        bool help;
};
/* @argv: what stands behind the verb, NULL-terminated.  -EINVAL with a sentence. */
int usage_parse(enum usage_verb_id id, char **argv, struct usage_args *ret, struct err *e);

void usage_all(struct strbuf *b);                         /* hypervisor-vmm help */
void usage_help(enum usage_verb_id id, struct strbuf *b); /* hypervisor-vmm VERB --help */
/* @shell is bash, zsh or fish; -EINVAL otherwise. */
int usage_completion(const char *shell, struct strbuf *b);

/* manual.c */
/* mdoc source; @page "hypervisor-vmm" (section 8) or "hypervisor-vmm.conf" (5); -EINVAL otherwise. */
int manual_page(const char *page, struct strbuf *b);
void manual_sample(struct strbuf *b); /* the configuration file with every default */
