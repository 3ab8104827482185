/* doctor.h - `hypervisor-vmm doctor`: what this kernel offers and what follows from what it lacks. */
#pragma once
#include <stdio.h>

#include "base/err.h"

/* Print the report.  @config: what to judge by (NULL: defaults).  -ENOTSUP: something indispensable is
 * missing; another error: the configuration cannot be read, and nothing was printed. */
int doctor_run(FILE *out, const char *config, struct err *e);
