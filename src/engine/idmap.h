/* idmap.h - user namespaces that exist only to carry an id map for idmapped mounts.
 * Disks, volumes and layers hold ids 0..65535; a cluster's mount shows them as id_base + id. */
#pragma once
#include <stdint.h>

#include "base/err.h"

#define IDMAP_RANGE 65536U

/* A user namespace descriptor that maps 0..65535 to @id_base.. .  Forks a helper that ends before
 * this returns; blocks about 0.3 ms.  The caller closes the result. */
int idmap_userns(uint32_t id_base, struct err *e);

/* Give a detached mount (@mnt_fd, from open_tree or fsmount) that map.  Must come before the mount
 * is attached anywhere.  @attr_set: further MOUNT_ATTR_* such as MOUNT_ATTR_RDONLY. */
int idmap_mount(int mnt_fd, int userns_fd, uint64_t attr_set, struct err *e);

/* Write both maps of a process that waits in a fresh user namespace; @proc_dir is its /proc/PID. */
int idmap_write(int proc_dir, uint32_t id_base);
