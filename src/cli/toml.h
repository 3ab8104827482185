/* toml.h - the top-level strings of a TOML file, read and replaced in place.
 *
 * Only what the configuration needs: `key = "value"` lines before the first [table], with basic
 * or literal strings.  Everything else is passed through untouched.  Pure. */
#pragma once
#include "base/err.h"

/* The value of @key as a heap string; *@ret stays NULL when it is not there.  -EINVAL with the
 * line's number when the value is not a string. */
int toml_get(const char *text, const char *key, char **ret, struct err *e);

/* @text (may be NULL) with @key set to @value, on the heap; -ENOMEM. */
int toml_set(const char *text, const char *key, const char *value, char **ret);
