/* conf.h - a configuration file in INI form, read by table.
 *
 * A program describes its options once; reading, defaults, error messages, the sample file and
 * the manual page come from the table.  Sections may carry a label: [registry "127.0.0.1:5000"]. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum conf_kind {
        CONF_STR,
        CONF_U32,
        CONF_BOOL,
        CONF_DURATION,
        CONF_BYTES,
        CONF_FACTOR,
        CONF_PRICE
};

struct conf_option {
        const char *section, *key;
        enum conf_kind
                kind; /* what lies at off: char *, uint32_t, bool, uint64_t us, uint64_t bytes, double, double */
        size_t off;
        const char *preset; /* default, as text */
        uint64_t min, max;  /* CONF_U32, CONF_DURATION (us), CONF_BYTES; max 0 = no limit */
        const char *unit, *help;
};

/* One labelled section and its keys: called where it begins, with @key and @value NULL (it may have
 * no key at all), and for every key of it. */
typedef int conf_labelled_fn(void *arg, const char *section, const char *label, const char *key,
                             const char *value, struct err *e);

/* Set every option of the zeroed struct at @out to its default, then read @path (NULL: defaults
 * only).  Unknown sections and keys are refused by name and line. */
int conf_load(const char *path, const struct conf_option *opt, size_t n, void *out,
              conf_labelled_fn *labelled, void *arg, struct err *e);

/* Set one option of @out by its key, as conf_load() does: for labelled sections with a table of
 * their own.  @section is what messages call it. */
int conf_set(const struct conf_option *opt, size_t n, const char *section, const char *key,
             const char *value, void *out, struct err *e);

/* "yes or no": what a value of that kind looks like, for people. */
const char *conf_kind_text(enum conf_kind kind);

/* Free the CONF_STR values. */
void conf_done(const struct conf_option *opt, size_t n, void *out);
