/* confine_calls.c - the lists of system calls that several programs of ours share. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/ioctl.h>

#include "base/confine.h"
#include "base/mem.h"

#define NEW_NAMESPACES                                                                             \
        (CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | \
         CLONE_NEWCGROUP)

static const struct confine_call runtime[] = {
        /* memory */
        CONFINE_ALLOW(brk),
        CONFINE_ALLOW(mmap),
        CONFINE_ALLOW(munmap),
        CONFINE_ALLOW(mremap),
        CONFINE_ALLOW(mprotect), /* malloc's arenas, guard pages of threads */
        CONFINE_ALLOW(madvise),
        /* threads, never processes, never in a namespace of their own */
        { SCMP_SYS(clone), SCMP_ACT_ALLOW, 0, CLONE_THREAD | NEW_NAMESPACES, CLONE_THREAD },
        /* its arguments lie in memory, where a filter cannot look; glibc falls back to clone */
        { SCMP_SYS(clone3), SCMP_ACT_ERRNO(ENOSYS), CONFINE_ANY, 0, 0 },
        CONFINE_ALLOW(futex),
        CONFINE_ALLOW(set_robust_list),
        CONFINE_ALLOW(rseq),
        CONFINE_ALLOW(sched_yield),
        CONFINE_ALLOW(sched_getaffinity), /* how many CPUs: glibc sizes malloc by it */
        CONFINE_ALLOW(gettid),
        CONFINE_ALLOW(tgkill), /* abort() and raise() signal themselves */
        CONFINE_ALLOW(exit),
        CONFINE_ALLOW(exit_group),
        CONFINE_ALLOW(restart_syscall), /* after a stop and a continue */
        /* signals */
        CONFINE_ALLOW(rt_sigaction),
        CONFINE_ALLOW(rt_sigprocmask),
        CONFINE_ALLOW(rt_sigreturn),
        CONFINE_ALLOW(sigaltstack),
        /* who and when */
        CONFINE_ALLOW(getpid),
        CONFINE_ALLOW(getppid),
        CONFINE_ALLOW(getuid),
        CONFINE_ALLOW(geteuid),
        CONFINE_ALLOW(getgid),
        CONFINE_ALLOW(getegid),
        CONFINE_ALLOW(uname),
        CONFINE_ALLOW(sysinfo),
        CONFINE_ALLOW(getrandom),
        CONFINE_ALLOW(clock_gettime), /* these where the vdso has no clock */
        CONFINE_ALLOW(clock_getres),
        CONFINE_ALLOW(gettimeofday),
        CONFINE_ALLOW(time),
        CONFINE_ALLOW(clock_nanosleep),
        CONFINE_ALLOW(nanosleep),
        /* reading a limit, never setting one */
        CONFINE_ALLOW_IF(prlimit64, 2, 0),
};
const struct confine_calls confine_calls_runtime = { runtime, NELEM(runtime) };

static const struct confine_call io[] = {
        CONFINE_ALLOW(read),
        CONFINE_ALLOW(write),
        CONFINE_ALLOW(readv),
        CONFINE_ALLOW(writev),
        CONFINE_ALLOW(pread64),
        CONFINE_ALLOW(pwrite64),
        CONFINE_ALLOW(close),
        CONFINE_ALLOW(dup),
        CONFINE_ALLOW(fcntl),
        CONFINE_ALLOW(lseek),
        CONFINE_ALLOW(fstat),
        CONFINE_ALLOW(newfstatat), /* fstat() of newer glibc; names are Landlock's business */
        CONFINE_ALLOW(statx),
        CONFINE_ALLOW(ftruncate),
        CONFINE_ALLOW(fallocate),
        CONFINE_ALLOW(umask),
        CONFINE_ALLOW(poll),
        CONFINE_ALLOW(ppoll),
        CONFINE_ALLOW(pipe2),
        CONFINE_ALLOW(eventfd2),
        CONFINE_ALLOW_IF32(ioctl, 1, FIONBIO),
        CONFINE_ALLOW_IF32(ioctl, 1, FIONREAD),
};
const struct confine_calls confine_calls_io = { io, NELEM(io) };

static const struct confine_call deadly[] = {
        CONFINE_KILL(execve),
        CONFINE_KILL(execveat),
        CONFINE_KILL(fork),
        CONFINE_KILL(vfork),
        CONFINE_KILL(ptrace),
        CONFINE_KILL(process_vm_readv),
        CONFINE_KILL(process_vm_writev),
        CONFINE_KILL(pidfd_getfd),
        CONFINE_KILL(mount),
        CONFINE_KILL(umount2),
        CONFINE_KILL(move_mount),
        CONFINE_KILL(open_tree),
        CONFINE_KILL(fsopen),
        CONFINE_KILL(fsmount),
        CONFINE_KILL(mount_setattr),
        CONFINE_KILL(pivot_root),
        CONFINE_KILL(chroot),
        CONFINE_KILL(setns),
        CONFINE_KILL(unshare),
        CONFINE_KILL(bpf),
        CONFINE_KILL(perf_event_open),
        CONFINE_KILL(io_uring_setup),
        CONFINE_KILL(userfaultfd),
        CONFINE_KILL(keyctl),
        CONFINE_KILL(add_key),
        CONFINE_KILL(request_key),
        CONFINE_KILL(init_module),
        CONFINE_KILL(finit_module),
        CONFINE_KILL(kexec_load),
        CONFINE_KILL(name_to_handle_at),
        CONFINE_KILL(open_by_handle_at),
};
const struct confine_calls confine_calls_deadly = { deadly, NELEM(deadly) };
