/* secret.h - a password from the user: asked for without an echo on a terminal, else the first line of
 * standard input.  Never from the command line, where everybody on the machine could read it. */
#pragma once
#include "base/err.h"

/* *@ret is the caller's to wipe and free; it may be "".  -E2BIG over 8,191 bytes; -ECANCELED: Ctrl-C
 * at the prompt.  Blocks. */
int secret_read(const char *prompt, char **ret, struct err *e);
