/* each.h - a verb over its operands.  Runs in tensoronecli. */
#pragma once
#include <jansson.h>

#include "cli/cli.h"

/* One operand; *@ret, a new reference, is what -o json shows of it, also after a failure.  It may stay
 * NULL. */
typedef int each_fn(struct cli *c, const char *word, void *arg, json_t **ret, struct err *e);

/* One that fails does not keep the others from being tried: its sentence is printed, and the exit status
 * that is returned is 1.  With a single operand it is the verb's own failure.  -o json: the object of
 * a single operand, else a list. */
int each_operand(struct cli *c, each_fn *fn, void *arg, struct err *e);
