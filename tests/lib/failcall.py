#!/usr/bin/python3
"""Lets one call of a running process fail, of a kind that strace cannot pick by itself: the number of
the call *and* the value of one argument.  An epoll_ctl() that adds can fail in life, for want of
watches; one that removes cannot, and what goes wrong after it is not the process's fault.

    failcall.py PID CALL ARGUMENT VALUE ERRNO WHEN

The WHENth of these calls of the process's first thread fails (0: none, they are only counted).
Says "attached" when it watches; SIGINT ends it, and then it prints how many it saw.  x86-64."""
import ctypes
import errno
import os
import signal
import sys

CALLS = {"epoll_ctl": 233, "fcntl": 72}
VALUES = {"EPOLL_CTL_ADD": 1, "F_DUPFD_CLOEXEC": 1030}

CONT_SYSCALL, GETREGS, SETREGS, DETACH = 24, 12, 13, 17
SEIZE, INTERRUPT, LISTEN = 0x4206, 0x4207, 0x4208
TRACESYSGOOD, EVENT_STOP = 1, 128
ARGUMENTS = ("rdi", "rsi", "rdx", "r10", "r8", "r9")
REGISTERS = ("r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss "
             "fs_base gs_base ds es fs gs").split()


class Registers(ctypes.Structure):
    _fields_ = [(name, ctypes.c_ulonglong) for name in REGISTERS]


libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long


def ptrace(what, pid, address=0, data=0):
    if libc.ptrace(what, pid, address, data) < 0:
        raise OSError(ctypes.get_errno(), "ptrace")


class Watch:
    def __init__(self, pid, call, argument, value, error, when):
        self.pid, self.call, self.argument = pid, CALLS[call], ARGUMENTS[int(argument)]
        self.value, self.error, self.when = VALUES[value], getattr(errno, error), int(when)
        self.seen, self.ending, self.entering, self.failing = 0, False, True, False

    def end(self, *_):
        self.ending = True
        ptrace(INTERRUPT, self.pid)

    def at_call(self):
        """At its entry it is made into no call at all; at its exit it has failed."""
        regs = Registers()
        ptrace(GETREGS, self.pid, 0, ctypes.addressof(regs))
        if self.entering:
            if regs.orig_rax == self.call and getattr(regs, self.argument) & 0xFFFFFFFF == self.value:
                self.seen += 1
                self.failing = self.seen == self.when
            if self.failing:
                regs.orig_rax = 2**64 - 1
        if self.failing:
            regs.rax = 2**64 - self.error
            ptrace(SETREGS, self.pid, 0, ctypes.addressof(regs))
        self.failing = self.failing and self.entering
        self.entering = not self.entering

    def run(self):
        ptrace(SEIZE, self.pid, 0, TRACESYSGOOD)
        signal.signal(signal.SIGINT, self.end)
        ptrace(INTERRUPT, self.pid)
        first = True
        while True:
            _, status = os.waitpid(self.pid, 0x40000000)  # __WALL
            if not os.WIFSTOPPED(status):
                break
            if first:  # watched from here on
                print("attached", file=sys.stderr, flush=True)
                first = False
            sig, event = os.WSTOPSIG(status), status >> 16
            if sig == signal.SIGTRAP | 0x80:
                self.at_call()
            if self.ending and self.entering:
                ptrace(DETACH, self.pid)
                break
            ours = event == EVENT_STOP or sig == signal.SIGTRAP | 0x80
            ptrace(CONT_SYSCALL, self.pid, 0, 0 if ours else sig)
        print("%d seen" % self.seen, file=sys.stderr)


if __name__ == "__main__":
    if os.uname().machine != "x86_64":
        sys.exit("failcall.py knows the registers of x86-64 only")
    Watch(int(sys.argv[1]), *sys.argv[2:]).run()
