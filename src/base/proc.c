/* proc.c - see proc.h. */
#include "base/proc.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/mem.h"
#include "base/str.h"

int proc_drop(uid_t id, pid_t parent)
{
        for (unsigned long c = 0; prctl(PR_CAPBSET_READ, c, 0, 0, 0) >= 0; c++)
                if (prctl(PR_CAPBSET_DROP, c, 0, 0, 0) < 0)
                        return -errno;
        if (syscall(SYS_setgroups, 0, NULL) < 0 || syscall(SYS_setresgid, id, id, id) < 0 ||
            syscall(SYS_setresuid, id, id, id) < 0)
                return -errno;
        /* after the uid change, which clears it; the parent may have died in between */
        if (prctl(PR_SET_PDEATHSIG, parent ? SIGKILL : 0) < 0)
                return -errno;
        if (parent && getppid() != parent)
                return -ESRCH;
        return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || chdir("/") < 0 ? -errno : 0;
}

int proc_boot_id(char ret[static 37])
{
        AUTO(free) char *s = NULL;
        int r = fd_read_file(AT_FDCWD, "/proc/sys/kernel/random/boot_id", 64, &s, NULL);

        if (r < 0)
                return r;
        if (strlen(s) < 36)
                return -EIO;
        memcpy(ret, s, 36);
        ret[36] = '\0';
        return 0;
}

/* Field 22, counted behind the last ')' because the command name may hold anything. */
static int start_ticks(pid_t pid, uint64_t *ret)
{
        AUTO(free) char *s = NULL;
        char path[64], *p;
        int r;

        (void) snprintf(path, sizeof path, "/proc/%d/stat", (int) pid);
        r = fd_read_file(AT_FDCWD, path, 4096, &s, NULL);
        if (r < 0)
                return r == -ENOENT ? -ESRCH : r;
        p = strrchr(s, ')');
        for (int field = 2; p && field < 22; field++)
                p = strchr(p + 1, ' ');
        if (!p)
                return -EIO;
        return str_u64_prefix(p + 1, 10, ret) < 0 ? -EIO : 0;
}

int proc_identify(pid_t pid, struct proc_id *ret)
{
        struct proc_id id = { .pid = pid };
        int r = start_ticks(pid, &id.start_ticks);

        if (r >= 0)
                r = proc_boot_id(id.boot_id);
        if (r >= 0)
                *ret = id;
        return r;
}

int proc_open(const struct proc_id *id)
{
        struct proc_id now;
        AUTO(fd) int fd = -EBADF;
        int r;

        if (id->pid <= 0)
                return -ESRCH;
        fd = (int) syscall(SYS_pidfd_open, id->pid, 0);
        if (fd < 0)
                return -errno;
        r = proc_identify(id->pid, &now); /* after the open: the pidfd pins what we compare */
        if (r < 0)
                return r;
        if (now.start_ticks != id->start_ticks || strcmp(now.boot_id, id->boot_id) != 0)
                return -ESRCH;
        return fd_take(&fd);
}

int rand_bytes(void *buf, size_t len)
{
        size_t done = 0;

        while (done < len) {
                ssize_t n = getrandom((char *) buf + done, len - done, 0);

                if (n < 0 && errno != EINTR)
                        return -errno;
                if (n > 0)
                        done += (size_t) n;
        }
        return 0;
}

int rand_id(char *buf, size_t len)
{
        static const char set[] = "abcdefghijklmnopqrstuvwxyz0123456789";

        for (size_t i = 0; i < len;) {
                unsigned char b;
                int r = rand_bytes(&b, 1);
                unsigned n = i == 0 ? 26 : 36;

                if (r < 0)
                        return r;
                if (b >= 256 / n * n)
                        continue; /* keeps every character equally likely */
                buf[i++] = set[b % n];
        }
        buf[len] = '\0';
        return 0;
}

void hex_encode(const void *data, size_t len, char *out)
{
        static const char digit[] = "0123456789abcdef";
        const unsigned char *p = data;

        for (size_t i = 0; i < len; i++) {
                out[2 * i] = digit[p[i] >> 4];
                out[2 * i + 1] = digit[p[i] & 15];
        }
        out[2 * len] = '\0';
}
