/* secret.h - placeholders for an account's secrets in the values of environment variables:
 * `{{ TENSORONE_SECRET_name }}` and `{{ RUNPOD_SECRET_name }}`, alone or with text around them.
 *
 * Everything that is kept or answered has the placeholder; values take its place where a process is
 * about to be started, and nowhere else.  Whatever only looks like one stays as it is.  A value is put
 * in once and not looked at again, so that no secret can name another.  Pure.
 *
 * Environments are vectors of KEY=VALUE, values of secrets such of name=value; a name has no '='. */
#pragma once
#include <jansson.h>
#include <stdbool.h>

#include "base/err.h"
#include "base/mem.h"

/* Letters, digits, _ . -, at most LIMIT_SECRET_NAME_LEN of them. */
bool secret_name_ok(const char *name);

/* Does this value hold a placeholder? */
bool secret_in(const char *value);

/* The names that @env has placeholders for, each once, in a fresh vector; NULL: none.  -E2BIG: more
 * than LIMIT_SECRETS; -ENOMEM. */
int secret_names(char *const *env, char ***ret, struct err *e);

/* Placeholders whose name is none are a slip of the pen: -EINVAL names the variable. */
int secret_check(char *const *env, struct err *e);

/* What becomes of a variable that names a secret which is not there. */
enum secret_missing {
        SECRET_FAIL, /* -ENOENT names variable and secret */
        SECRET_LEAVE_OUT,
};

/* A copy of @env with the values of @secrets in it, to be wiped.  -E2BIG: a variable became longer than
 * the kernel passes on; -ENOMEM. */
int secret_expand(char *const *env, char *const *secrets, enum secret_missing missing, char ***ret,
                  struct err *e);

/* {name: value} as messages carry them, and back.  NULL: out of memory.  -EPROTO: not such an object. */
json_t *secret_encode(char *const *secrets);
int secret_decode(const json_t *j, char ***ret, struct err *e);

/* Any vector of strings that may hold secrets: overwrite, free.  Accepts NULL, returns NULL. */
char **secrets_free(char **v);
DEFINE_AUTO(char **, secrets_free)
