/* launch_main.c - vmm-launch: the launcher as a program, started by operations of the engine and of no
 * use to anybody else.  usage: vmm-launch FD, a memory file of birth.c. */
#include <linux/close_range.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/str.h"
#include "engine/sandbox/sandbox_priv.h"

int main(int argc, char **argv)
{
        static struct birth birth;
        struct err e = { 0 };
        uint64_t fd;

        if (argc != 2 || str_u64(argv[1], 3, INT32_MAX, &fd) < 0) {
                (void) fputs("vmm-launch: hypervisor-vmm starts this program\n", stderr);
                return 2;
        }
        if (syscall(SYS_close_range, 3U, ~0U, CLOSE_RANGE_CLOEXEC) < 0 ||
            birth_read((int) fd, &birth, &e) < 0) {
                (void) fprintf(stderr, "vmm-launch: %s\n", e.code ? e.msg : "close_range");
                return LAUNCH_OTHER_BUILD;
        }
        (void) fd_close((int) fd);
        launcher_run(&birth.launch);
}
