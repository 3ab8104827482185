/* gpu_xid.h - the driver's error numbers ("Xid") in words, and which of them any program can cause on
 * a sound GPU.  Pure. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

/* "GPU has fallen off the bus"; "an error without a name" for a number that is not known. */
const char *gpu_xid_text(uint64_t code);

/* A program's own mistake (or its end) brings it about: no reason to doubt the GPU. */
bool gpu_xid_is_program(uint64_t code);

/* The GPU is not to be used before a reset or a repair; never true of a number that is not known. */
bool gpu_xid_is_fatal(uint64_t code);
