/* confine_calls.c - the lists of system calls that several programs of ours share. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/ioctl.h>

#include "base/confine.h"
#include "base/mem.h"

#define ALLOW(name)                                                                                \
        {                                                                                          \
                SCMP_SYS(name), SCMP_ACT_ALLOW, CONFINE_ANY, 0, 0                                  \
        }
#define KILL(name)                                                                                 \
        {                                                                                          \
                SCMP_SYS(name), SCMP_ACT_KILL_PROCESS, CONFINE_ANY, 0, 0                           \
        }

#define NEW_NAMESPACES                                                                             \
        (CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | \
         CLONE_NEWCGROUP)

static const struct confine_call runtime[] = {
        /* memory */
        ALLOW(brk),
        ALLOW(mmap),
        ALLOW(munmap),
        ALLOW(mremap),
        ALLOW(mprotect), /* malloc's arenas, guard pages of threads */
        ALLOW(madvise),
        /* threads, never processes, never in a namespace of their own */
        { SCMP_SYS(clone), SCMP_ACT_ALLOW, 0, CLONE_THREAD | NEW_NAMESPACES, CLONE_THREAD },
        /* its arguments lie in memory, where a filter cannot look; glibc falls back to clone */
        { SCMP_SYS(clone3), SCMP_ACT_ERRNO(ENOSYS), CONFINE_ANY, 0, 0 },
        ALLOW(futex),
        ALLOW(set_robust_list),
        ALLOW(rseq),
        ALLOW(sched_yield),
        ALLOW(sched_getaffinity), /* how many CPUs: glibc sizes malloc by it */
        ALLOW(gettid),
        ALLOW(tgkill), /* abort() and raise() signal themselves */
        ALLOW(exit),
        ALLOW(exit_group),
        ALLOW(restart_syscall), /* after a stop and a continue */
        /* signals */
        ALLOW(rt_sigaction),
        ALLOW(rt_sigprocmask),
        ALLOW(rt_sigreturn),
        ALLOW(sigaltstack),
        /* who and when */
        ALLOW(getpid),
        ALLOW(getppid),
        ALLOW(getuid),
        ALLOW(geteuid),
        ALLOW(getgid),
        ALLOW(getegid),
        ALLOW(uname),
        ALLOW(sysinfo),
        ALLOW(getrandom),
        ALLOW(clock_gettime), /* these where the vdso has no clock */
        ALLOW(clock_getres),
        ALLOW(gettimeofday),
        ALLOW(time),
        ALLOW(clock_nanosleep),
        ALLOW(nanosleep),
        /* reading a limit, never setting one */
        { SCMP_SYS(prlimit64), SCMP_ACT_ALLOW, 2, UINT64_MAX, 0 },
};
const struct confine_calls confine_calls_runtime = { runtime, NELEM(runtime) };

static const struct confine_call io[] = {
        ALLOW(read),
        ALLOW(write),
        ALLOW(readv),
        ALLOW(writev),
        ALLOW(pread64),
        ALLOW(pwrite64),
        ALLOW(close),
        ALLOW(dup),
        ALLOW(fcntl),
        ALLOW(lseek),
        ALLOW(fstat),
        ALLOW(newfstatat), /* fstat() of newer glibc; names are Landlock's business */
        ALLOW(statx),
        ALLOW(ftruncate),
        ALLOW(fallocate),
        ALLOW(umask),
        ALLOW(poll),
        ALLOW(ppoll),
        ALLOW(pipe2),
        ALLOW(eventfd2),
        { SCMP_SYS(ioctl), SCMP_ACT_ALLOW, 1, UINT32_MAX, FIONBIO },
        { SCMP_SYS(ioctl), SCMP_ACT_ALLOW, 1, UINT32_MAX, FIONREAD },
};
const struct confine_calls confine_calls_io = { io, NELEM(io) };

static const struct confine_call deadly[] = {
        KILL(execve),
        KILL(execveat),
        KILL(fork),
        KILL(vfork),
        KILL(ptrace),
        KILL(process_vm_readv),
        KILL(process_vm_writev),
        KILL(pidfd_getfd),
        KILL(mount),
        KILL(umount2),
        KILL(move_mount),
        KILL(open_tree),
        KILL(fsopen),
        KILL(fsmount),
        KILL(mount_setattr),
        KILL(pivot_root),
        KILL(chroot),
        KILL(setns),
        KILL(unshare),
        KILL(bpf),
        KILL(perf_event_open),
        KILL(io_uring_setup),
        KILL(userfaultfd),
        KILL(keyctl),
        KILL(add_key),
        KILL(request_key),
        KILL(init_module),
        KILL(finit_module),
        KILL(kexec_load),
        KILL(name_to_handle_at),
        KILL(open_by_handle_at),
};
const struct confine_calls confine_calls_deadly = { deadly, NELEM(deadly) };
