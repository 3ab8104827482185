/* help.h - texts generated from the tables: --help, the manual page, completion scripts.
 * Pure: they append to a buffer. */
#pragma once
#include "base/str.h"
#include "cli/cli.h"

void help_all(struct strbuf *b);                     /* tensoronecli --help */
void help_group(const char *word, struct strbuf *b); /* the verbs that begin with @word */
void help_verb(const struct verb *v, struct strbuf *b);
void man_page(struct strbuf *b); /* mdoc source of tensoronecli(1) */

/* @shell is bash, zsh or fish; -EINVAL otherwise. */
int completion_script(const char *shell, struct strbuf *b);

/* "--name ARG" or "-x, --name", for people. */
void option_title(const struct option *o, struct strbuf *b);
