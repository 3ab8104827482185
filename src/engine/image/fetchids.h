/* fetchids.h - 65,536 ids for each vmm-fetch that runs on this machine, so that none could touch
 * another's process or file even if both escaped.
 *
 * A range is a byte of /run/hypervisor-vmm/fetch-ids under an open-file-description lock: the kernel
 * drops it with the process that holds it, over all engines of the machine.  The last one out takes
 * the file away.  Operation processes; quick. */
#pragma once
#include <stdint.h>

#include "base/err.h"
#include "engine/instance.h"

/* *@ret_base: the first id.  The lock is a descriptor, for fetchids_release().  -EBUSY: all taken. */
int fetchids_claim(const struct instance *inst, uint32_t *ret_base, struct err *e);

/* The range at @base, when nobody has it: a descriptor as above, -EBUSY otherwise. */
int fetchids_claim_at(const struct instance *inst, uint32_t base, struct err *e);

/* Give the range back; accepts -EBADF; always returns -EBADF. */
int fetchids_release(const struct instance *inst, int lock);

/* Take the file away when nobody holds a range: what a killed process could not do. */
void fetchids_tidy(const struct instance *inst);
