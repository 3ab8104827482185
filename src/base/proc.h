/* proc.h - processes recognised by more than a number, random ids, digests. */
#pragma once
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

/* A process that may have ended and whose pid may have been given to another: boot id and start
 * time make it one of a kind.  Stored in the journal. */
struct proc_id {
        pid_t pid;
        uint64_t start_ticks; /* field 22 of /proc/PID/stat, clock ticks since boot */
        char boot_id[37];     /* /proc/sys/kernel/random/boot_id */
};

/* Describe a live process; -ESRCH when it is gone. */
int proc_identify(pid_t pid, struct proc_id *ret);

/* A pidfd on exactly that process; -ESRCH when it has ended, was another boot's, or the pid
 * belongs to someone else now. */
int proc_open(const struct proc_id *id);

/* In a child that is about to execute another program: take the user and group @id, no further groups
 * and so no capabilities, not even in the bounding set, die with @parent (0: outlive it), gain nothing by execve, and stand in "/".  -ESRCH: the
 * parent has died already.  After a failure only _exit() is left.
 * #syscalls setgroups setresgid setresuid prctl getppid chdir */
int proc_drop(uid_t id, pid_t parent);

/* The boot id alone, NUL-terminated, 37 bytes. */
int proc_boot_id(char ret[static 37]);

/* @len characters of lower-case base 36, the first one a letter, from the kernel's generator;
 * @buf has @len + 1 bytes.  Fit for DNS names and cluster ids. */
int rand_id(char *buf, size_t len);
int rand_bytes(void *buf, size_t len);

/* Lower-case hex; @out has 2 * @len + 1 bytes. */
void hex_encode(const void *data, size_t len, char *out);
