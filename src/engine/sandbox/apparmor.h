/* apparmor.h - a profile of its own for each slot, where the kernel has AppArmor: "hvmm-12" for what
 * runs in slot 12, so that signals and ptrace between clusters are decided by label.
 *
 * A profile is loaded exactly as long as its slot is claimed: apparmor_prepare() before the first
 * process, apparmor_remove() when nothing of the slot runs any more and before its claim is released.
 * What is loaded is written down first, below the instance's run directory, so that nothing stays
 * behind a kill, and forgotten with a reboot, as the kernel forgets it.
 *
 * Compiled profiles are kept below the data directory; the parser gets our own template and a number,
 * nothing that a tenant has written.  Operations use the engine's handle by fork.  All of it blocks:
 * compiling 15 ms, once for each slot and profile, loading less than one. */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/mem.h"
#include "model/security.h"

struct instance;
struct apparmor; /* directories of the kernel's, the cache's and the notes */

/* -EOPNOTSUPP: clusters cannot have profiles on this host, and *e says why: the kernel has no AppArmor,
 * the parser is not installed, or the engine itself is confined.  Mounts securityfs in our own mount
 * namespace where the host has not. */
int apparmor_open(const struct instance *inst, struct apparmor **ret, struct err *e);
struct apparmor *apparmor_close(struct apparmor *a);
DEFINE_AUTO(struct apparmor *, apparmor_close)

/* The same question for `doctor`, which opens nothing: 0, or -EOPNOTSUPP with the reason. */
int apparmor_probe(struct err *e);

#define APPARMOR_NAME_MAX 32U
/* "hvmm-12", "hvmm-12-strict", "hvmm-12-compat"; SECURITY_NONE is the standard one. */
void apparmor_name(uint32_t slot, enum security_profile p, char ret[static APPARMOR_NAME_MAX]);

/* Compile (unless that was done before) and load the profile of a slot that is ours.  May be repeated.
 * @a NULL: nothing to do. */
int apparmor_prepare(const struct apparmor *a, uint32_t slot, enum security_profile p,
                     struct err *e);
/* Unload all profiles of a slot in which nothing runs; idempotent. */
int apparmor_remove(const struct apparmor *a, uint32_t slot, struct err *e);

/* Call @fn for each slot whose profiles the instance @id, one that is gone for good, has left loaded;
 * @run: the directory of all run directories.  apparmor_forget() unloads what is left of one. */
typedef int apparmor_left_fn(void *arg, uint32_t slot);
int apparmor_left(int run, const char *id, apparmor_left_fn *fn, void *arg);
int apparmor_forget(const struct apparmor *a, int run, const char *id, uint32_t slot,
                    struct err *e);

/* The profile that process @pid is confined by, "" for none; -ESRCH: it has ended. */
int apparmor_label(pid_t pid, char ret[static APPARMOR_NAME_MAX]);
