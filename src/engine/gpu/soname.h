/* soname.h - the one thing that a loader's cache needs to know of a library: its name.  Reads the host's
 * driver files; every offset is checked against the file.  Pure but for reading. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

#define ELF_SONAME_MAX 128U

struct elf_library {
        char soname[ELF_SONAME_MAX]; /* "" : it says none */
        bool is_32;
};

/* -ENOEXEC: no library in ELF for this machine (or its 32-bit sister). */
int elf_library(int fd, struct elf_library *ret);
