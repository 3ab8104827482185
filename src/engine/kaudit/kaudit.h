/* kaudit.h - what the kernel's audit stream says of clusters: processes that seccomp has ended, denials
 * of AppArmor.
 *
 * The stream is the whole host's.  A filter of the socket lets two types of records through, and of those
 * only what carries an id or a profile of one of our slots is looked at further; nothing of the rest is
 * kept or logged.  Needs CAP_AUDIT_READ, and a kernel with audit.  Loop thread; nothing blocks. */
#pragma once
#include <stdint.h>
#include <systemd/sd-event.h>

#include "base/err.h"
#include "base/mem.h"

struct kaudit;

/* @slot: whose cluster it is.  @kind: "seccomp", "apparmor".  @message: a sentence. */
typedef void kaudit_fn(void *arg, uint32_t slot, const char *kind, const char *message);

/* -EPERM, -EPROTONOSUPPORT, ...: this host does not tell; *e says why. */
int kaudit_new(sd_event *loop, kaudit_fn *fn, void *arg, struct kaudit **ret, struct err *e);
struct kaudit *kaudit_free(struct kaudit *k);
DEFINE_AUTO(struct kaudit *, kaudit_free)
