/* cdi_verb.h - `hypervisor-vmm cdi generate`: the installed GPU driver as a CDI specification. */
#pragma once
#include "base/str.h"

/* @config: NULL for the defaults; @root: where the driver's files lie, NULL: as the configuration has
 * it.  Appends YAML to @out.  Reads files, runs nothing, needs no root. */
int cdi_generate(const char *config, const char *root, struct strbuf *out, struct err *e);
