/* doctor.h - `hypervisor-vmm doctor`: what this kernel offers and what follows from what it lacks. */
#pragma once
#include <stdio.h>

/* Print the report.  0: clusters can run here; 1: something indispensable is missing. */
int doctor_run(FILE *out);
