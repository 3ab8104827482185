/* filter.c - see filter.h.  Runs in vmm-monitor, once, before it serves.
 *
 * The monitor talks to a stranger's process (pipes, pty) and to clients.  Whoever takes it over
 * finds: no path can be opened, no socket or process made, no memory made executable, no
 * descriptor received, and the only process that can be signalled is its own child.  One table
 * says what is left, the most frequent calls first; the BPF program is made from it. */
#include "monitor/filter.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/confine.h"
#include "base/mem.h"

#if defined(__x86_64__)
#define FILTER_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define FILTER_ARCH AUDIT_ARCH_AARCH64
#else
#error "filter.c: add the audit architecture"
#endif

#if defined(__SANITIZE_ADDRESS__)
#define FILTER_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FILTER_SANITIZED 1
#endif
#endif

#ifdef FILTER_SANITIZED
/* The search for leaks clones and traces; there is no heap to search. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
        return "detect_leaks=0";
}
#endif

#define ARG_ANY     (-1)
#define VALUES_MAX  3U
#define VALUE_PIDFD UINT32_MAX /* stands for the descriptor of the child */

static const struct rule {
        int nr;
        int arg; /* which argument is held to `values`, or ARG_ANY */
        unsigned n_values;
        uint32_t values[VALUES_MAX];
} rules[] = {
#ifdef SYS_epoll_wait
        { SYS_epoll_wait, ARG_ANY, 0, { 0 } },
#endif
        { SYS_epoll_pwait, ARG_ANY, 0, { 0 } },
        { SYS_read, ARG_ANY, 0, { 0 } },   /* stdout, stderr, pty */
        { SYS_sendto, ARG_ANY, 0, { 0 } }, /* clients; without SCM_RIGHTS */
        { SYS_recvfrom, ARG_ANY, 0, { 0 } },
        { SYS_write, ARG_ANY, 0, { 0 } },    /* stdin, pty, status */
        { SYS_pwrite64, ARG_ANY, 0, { 0 } }, /* log */
        { SYS_pread64, ARG_ANY, 0, { 0 } },
        { SYS_ftruncate, ARG_ANY, 0, { 0 } },
        { SYS_clock_gettime, ARG_ANY, 0, { 0 } }, /* where the vdso has no clock */
        { SYS_epoll_ctl, ARG_ANY, 0, { 0 } },
        { SYS_accept4, ARG_ANY, 0, { 0 } },
        { SYS_getsockopt, ARG_ANY, 0, { 0 } }, /* SO_PEERCRED */
        { SYS_shutdown, 1, 1, { SHUT_RD } },   /* the listener, at the end */
        { SYS_close, ARG_ANY, 0, { 0 } },
        { SYS_madvise, ARG_ANY, 0, { 0 } }, /* memory of a client that left */
        { SYS_ioctl, 1, 3, { TIOCSWINSZ, TIOCSIG, TIOCGPTPEER } },
        { SYS_pidfd_send_signal, 0, 1, { VALUE_PIDFD } },
        { SYS_waitid, ARG_ANY, 0, { 0 } },
        { SYS_fsync, ARG_ANY, 0, { 0 } },
        { SYS_restart_syscall, ARG_ANY, 0, { 0 } }, /* after a stop and a continue */
        { SYS_exit_group, ARG_ANY, 0, { 0 } },
#ifdef FILTER_SANITIZED /* what the sanitizers' run-time needs to report and to end */
        { SYS_mmap, ARG_ANY, 0, { 0 } },
        { SYS_munmap, ARG_ANY, 0, { 0 } },
        { SYS_mprotect, ARG_ANY, 0, { 0 } },
        { SYS_futex, ARG_ANY, 0, { 0 } },
        { SYS_sigaltstack, ARG_ANY, 0, { 0 } },
        { SYS_rt_sigaction, ARG_ANY, 0, { 0 } },
        { SYS_rt_sigprocmask, ARG_ANY, 0, { 0 } },
        { SYS_getpid, ARG_ANY, 0, { 0 } },
        { SYS_gettid, ARG_ANY, 0, { 0 } },
        { SYS_sched_yield, ARG_ANY, 0, { 0 } },
        { SYS_getrlimit, ARG_ANY, 0, { 0 } },
        { SYS_prlimit64, ARG_ANY, 0, { 0 } },
#endif
};

#define RULE_INSNS (3U + 2U * VALUES_MAX) /* most that one row becomes */

static void emit(struct sock_filter *prog, unsigned short *n, struct sock_filter insn)
{
        prog[(*n)++] = insn;
}

/* One row: allow, or compare the low half of the argument (a descriptor or an ioctl, which the
 * kernel takes as 32 bits) with the values, or kill. */
static void emit_rule(struct sock_filter *prog, unsigned short *n, const struct rule *r, int pidfd)
{
        uint8_t body = r->arg == ARG_ANY ? 1 : (uint8_t) (2 + 2 * r->n_values);

        emit(prog, n,
             (struct sock_filter) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t) r->nr, 0, body));
        if (r->arg != ARG_ANY) {
                uint32_t off = (uint32_t) (offsetof(struct seccomp_data, args) +
                                           (size_t) r->arg * sizeof(uint64_t));

                emit(prog, n, (struct sock_filter) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, off));
                for (unsigned i = 0; i < r->n_values; i++) {
                        uint32_t v = r->values[i] == VALUE_PIDFD ? (uint32_t) pidfd : r->values[i];

                        emit(prog, n,
                             (struct sock_filter) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, v, 0, 1));
                        emit(prog, n,
                             (struct sock_filter) BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
                }
                emit(prog, n,
                     (struct sock_filter) BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS));
                return;
        }
        emit(prog, n, (struct sock_filter) BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
}

/* #syscalls seccomp (before the filter) */
int filter_install(int pidfd, struct err *e)
{
        struct sock_filter prog[5 + NELEM(rules) * RULE_INSNS];
        struct sock_fprog fprog = { .filter = prog };
        unsigned short n = 0;

        emit(prog, &n,
             (struct sock_filter) BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
                                           offsetof(struct seccomp_data, arch)));
        emit(prog, &n, (struct sock_filter) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, FILTER_ARCH, 1, 0));
        emit(prog, &n, (struct sock_filter) BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS));
        emit(prog, &n,
             (struct sock_filter) BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
                                           offsetof(struct seccomp_data, nr)));
        for (size_t i = 0; i < NELEM(rules); i++)
                emit_rule(prog, &n, &rules[i], pidfd);
        emit(prog, &n, (struct sock_filter) BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS));
        fprog.len = n;
        if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &fprog) < 0)
                return err_errno(e, -errno, "seccomp");
        return 0;
}

/* The filter lets nothing be opened, so no path has to be allowed: a second fence, of another kind.  Its
 * own child was made before, and is signalled.  #syscalls landlock_create_ruleset
 * landlock_restrict_self (before the filter) */
static int fence(struct err *e)
{
#ifdef FILTER_SANITIZED
        (void) e;
        return 0;
#else
        return confine_landlock(NULL, 0, CONFINE_SIGNAL, e);
#endif
}

/* #syscalls prctl capget capset (before the filter) */
int filter_drop(int keep_kill, struct err *e)
{
        struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
        struct __user_cap_data_struct cap[_LINUX_CAPABILITY_U32S_3] = { 0 };
        uint32_t keep = keep_kill ? 1U << CAP_KILL : 0;

        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
                return err_errno(e, -errno, "no_new_privs");
        if (syscall(SYS_capget, &head, cap) < 0)
                return err_errno(e, -errno, "capget");
        for (size_t i = 0; i < NELEM(cap); i++) {
                cap[i].effective &= i == 0 ? keep : 0;
                cap[i].permitted &= i == 0 ? keep : 0;
                cap[i].inheritable = 0;
        }
        if (syscall(SYS_capset, &head, cap) < 0)
                return err_errno(e, -errno, "capset");
        if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
                return err_errno(e, -errno, "dumpable");
        return fence(e);
}
