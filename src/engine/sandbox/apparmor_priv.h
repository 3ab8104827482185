/* apparmor_priv.h - what apparmor.c, apparmor_compile.c and their unit test share.  See apparmor.h. */
#pragma once
#include "base/str.h"
#include "engine/sandbox/apparmor.h"

extern const char apparmor_flags[];
extern const char *const apparmor_rules[SECURITY_PROFILE_COUNT]; /* a rule a line */

struct apparmor {
        int kernel;           /* securityfs/apparmor */
        int cache, notes;     /* directories of ours */
        const char *parser;   /* path */
        const char *features; /* a file that says what the kernel can; NULL: the parser asks it */
        char key[17];         /* of all that a compiled profile depends on, but its name */
};

/* The directories belong to *@ret from now on, also when it fails.  Removes from the cache what was made
 * for another key. */
int apparmor_open_at(const struct apparmor *in, struct apparmor **ret, struct err *e);

/* ---- apparmor_compile.c */
int apparmor_key(const char *parser, char ret[static 17], struct err *e);
/* The profile as the parser reads it. */
void apparmor_text(const char *name, enum security_profile p, struct strbuf *ret);
/* As the kernel reads it. */
int apparmor_compile(const struct apparmor *a, const char *name, enum security_profile p,
                     char **ret, size_t *ret_len, struct err *e);
