/* filter.h - the system calls that vmm-monitor may make, once it serves. */
#pragma once
#include "base/err.h"

/* Give up what is left to give up: capabilities (all but CAP_KILL, when @keep_kill), new
 * privileges, core dumps and ptrace by others, and with Landlock every name of a file.  The process may not have threads. */
int filter_drop(int keep_kill, struct err *e);

/* Install the seccomp filter, for good.  Anything not in its table kills the process.  Signals
 * can be sent through descriptor @pidfd only. */
int filter_install(int pidfd, struct err *e);
