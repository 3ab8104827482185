/* loop.c - see loop.h.  Operation processes. */
#include "engine/disk/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/fd.h"

#define BLOCK 4096U /* the sector that every host disk can */
#define TRIES 256   /* each failed one means that somebody else got a device */

int loop_attach(int fd, unsigned flags, char ret_path[static LOOP_PATH_BYTES], struct err *e)
{
        AUTO(fd) int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
        int mode = flags & LOOP_READ_ONLY ? O_RDONLY : O_RDWR;
        struct loop_config c = { .fd = (uint32_t) fd, .block_size = BLOCK };

        if (control < 0)
                return err_errno(e, -errno, "open /dev/loop-control");
        c.info.lo_flags = LO_FLAGS_AUTOCLEAR | (flags & LOOP_DIRECT ? LO_FLAGS_DIRECT_IO : 0U) |
                          (flags & LOOP_READ_ONLY ? LO_FLAGS_READ_ONLY : 0U);
        for (int i = 0; i < TRIES; i++) {
                AUTO(fd) int loop = -EBADF;
                int n = ioctl(control, LOOP_CTL_GET_FREE);

                if (n < 0)
                        return err_errno(e, -errno, "find a free loop device");
                (void) snprintf(ret_path, LOOP_PATH_BYTES, "/dev/loop%d", n);
                loop = open(ret_path, mode | O_CLOEXEC);
                if (loop < 0 && errno != ENXIO && errno != ENODEV && errno != EBUSY)
                        return err_errno(e, -errno, "open %s", ret_path);
                if (loop >= 0 && ioctl(loop, LOOP_CONFIGURE, &c) == 0)
                        return fd_take(&loop);
                if (loop >= 0 && errno != EBUSY && errno != ENXIO && errno != ENODEV)
                        return err_errno(e, -errno, "%s: attach", ret_path);
        }
        return err_set(e, -EBUSY, "no loop device could be had in %d tries", TRIES);
}
