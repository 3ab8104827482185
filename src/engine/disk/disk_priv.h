/* disk_priv.h - what the files of this folder (and their unit tests) share.  See disk.h. */
#pragma once
#include <sys/stat.h>
#include <sys/types.h>

#include "engine/disk/disk.h"

#define DISK_BLOCK     4096U /* ext4 block, loop sector: fits every host disk */
#define DISK_MIN_BYTES (16ULL << 20)

/* The part of an ext4 superblock that decides how a disk is treated. */
#define DISK_SUPER_OFF  1024
#define DISK_SUPER_SIZE 1024U
struct disk_super {
        uint64_t size_bytes;
        bool journal;
        bool fresh;   /* never mounted */
        bool sparse2; /* of a format that the kernel does not grow while it is mounted */
};
/* -EINVAL: no ext4 of ours in there. */
int disk_super_parse(const uint8_t raw[static DISK_SUPER_SIZE], struct disk_super *ret);
int disk_super_read(int fd, struct disk_super *ret, struct err *e);

/* One plain name, not a path. */
int disk_name_check(const char *name, struct err *e);
/* Open one of our files; no link, nothing but a regular file. */
int disk_open(int dirfd, const char *name, int flags, struct err *e);
/* Attach and grow are in disk_mount.c and disk_make.c. */
int disk_find_loop(const struct stat *file, char *ret_path); /* a descriptor; -ENOENT: none */
int disk_mount_ext4(const char *device, bool journal, struct err *e);
int disk_size_check(uint64_t size_bytes, struct err *e);
int disk_grow_file(int fd, uint64_t size_bytes, bool *ret_full, struct err *e);
int disk_allocate(int fd, uint64_t from, uint64_t len, struct err *e);

/* Lock the file that @name is now and return it, open for reading and writing; see disk_mount(). */
int disk_lock(int dirfd, const char *name, uint64_t deadline_us, struct err *e);

/* Run a program of e2fsprogs on the open file @fd: "/proc/self/fd/3" is it for the program.  Empty
 * environment, no capability, no file but its own, ends with its parent.  Returns the exit status,
 * or a negative errno; the last line of what the program said goes to @e when the status is above
 * @ok_max. */
#define DISK_TOOL_FILE "/proc/self/fd/3"
int disk_tool_run(const char *const *argv, int fd, int ok_max, struct err *e);
