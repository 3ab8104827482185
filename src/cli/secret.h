/* secret.h - a password from the user: asked for without an echo on a terminal, else from standard
 * input.  Never from the command line, where everybody on the machine could read it. */
#pragma once
#include <stdbool.h>

#include "base/err.h"

/* The first line; with @all everything to the end of what is piped in, less the newline that ends it.
 * *@ret is the caller's to wipe and free; it may be "".  -E2BIG over 65,535 bytes; -ECANCELED: Ctrl-C
 * at the prompt.  Blocks. */
int secret_read(const char *prompt, bool all, char **ret, struct err *e);

/* The same of a whole file. */
int secret_file(const char *path, char **ret, struct err *e);
