/* soname.c - see soname.h.  Operation process.
 *
 * Program headers, not sections, because those are what the loader goes by: PT_DYNAMIC gives the
 * string table's address and the name's place in it, PT_LOAD the address's place in the file. */
#include "engine/gpu/soname.h"

#include <elf.h>
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"

#define PHDRS_MAX 32U
#define DYN_MAX   128U

struct segment {
        uint32_t type;
        uint64_t offset, vaddr, filesz;
};

struct image {
        int fd;
        bool is_32;
        struct segment seg[PHDRS_MAX];
        size_t n;
};

static bool get(int fd, uint64_t off, void *to, size_t len)
{
        return off <= INT64_MAX && pread(fd, to, len, (off_t) off) == (ssize_t) len;
}

static bool read_phdrs(struct image *m, uint64_t off, size_t n, size_t size)
{
        union {
                Elf32_Phdr p32[PHDRS_MAX];
                Elf64_Phdr p64[PHDRS_MAX];
        } h;

        if (n > PHDRS_MAX || size != (m->is_32 ? sizeof *h.p32 : sizeof *h.p64) ||
            !get(m->fd, off, &h, n * size))
                return false;
        for (m->n = 0; m->n < n; m->n++) {
                const Elf32_Phdr *a = &h.p32[m->n];
                const Elf64_Phdr *b = &h.p64[m->n];

                m->seg[m->n] = m->is_32 ? (struct segment){ a->p_type, a->p_offset, a->p_vaddr,
                                                            a->p_filesz }
                                        : (struct segment){ b->p_type, b->p_offset, b->p_vaddr,
                                                            b->p_filesz };
        }
        return true;
}

static bool read_head(struct image *m)
{
        union {
                unsigned char ident[EI_NIDENT];
                Elf32_Ehdr h32;
                Elf64_Ehdr h64;
        } h;

        if (!get(m->fd, 0, &h, sizeof h.h32) || memcmp(h.ident, ELFMAG, SELFMAG) != 0 ||
            h.ident[EI_DATA] != ELFDATA2LSB)
                return false;
        m->is_32 = h.ident[EI_CLASS] == ELFCLASS32;
        if (m->is_32)
                return h.h32.e_type == ET_DYN && h.h32.e_machine == EM_386 &&
                       read_phdrs(m, h.h32.e_phoff, h.h32.e_phnum, h.h32.e_phentsize);
        return get(m->fd, 0, &h, sizeof h.h64) && h.h64.e_type == ET_DYN &&
               (h.h64.e_machine == EM_X86_64 || h.h64.e_machine == EM_AARCH64) &&
               read_phdrs(m, h.h64.e_phoff, h.h64.e_phnum, h.h64.e_phentsize);
}

/* Where the byte at @vaddr lies in the file; false: nowhere. */
static bool to_offset(const struct image *m, uint64_t vaddr, uint64_t *ret)
{
        for (size_t i = 0; i < m->n; i++) {
                const struct segment *s = &m->seg[i];

                if (s->type != PT_LOAD || vaddr < s->vaddr || vaddr - s->vaddr >= s->filesz)
                        continue;
                *ret = s->offset + (vaddr - s->vaddr);
                return true;
        }
        return false;
}

/* The string table's address and the name's place in it. */
static bool read_dynamic(const struct image *m, const struct segment *d, uint64_t *strtab,
                         uint64_t *name)
{
        union {
                Elf32_Dyn d32[DYN_MAX];
                Elf64_Dyn d64[DYN_MAX];
        } h;
        size_t size = m->is_32 ? sizeof *h.d32 : sizeof *h.d64, n = d->filesz / size;
        bool have_tab = false, have_name = false;

        n = n < DYN_MAX ? n : DYN_MAX;
        if (!get(m->fd, d->offset, &h, n * size))
                return false;
        for (size_t i = 0; i < n; i++) {
                int64_t tag = m->is_32 ? h.d32[i].d_tag : h.d64[i].d_tag;
                uint64_t val = m->is_32 ? h.d32[i].d_un.d_val : h.d64[i].d_un.d_val;

                if (tag == DT_NULL)
                        break;
                if (tag == DT_STRTAB)
                        *strtab = val;
                else if (tag == DT_SONAME)
                        *name = val;
                have_tab |= tag == DT_STRTAB;
                have_name |= tag == DT_SONAME;
        }
        return have_tab && have_name;
}

static bool name_ok(const char *s)
{
        return *s && *s != '.' && !strchr(s, '/');
}

int elf_library(int fd, struct elf_library *ret)
{
        struct image m = { .fd = fd };
        struct elf_library l = { .soname = "" };
        uint64_t strtab = 0, name = 0, off = 0;
        char buf[ELF_SONAME_MAX];

        if (!read_head(&m))
                return -ENOEXEC;
        l.is_32 = m.is_32;
        for (size_t i = 0; i < m.n; i++) {
                ssize_t n;

                if (m.seg[i].type != PT_DYNAMIC || !read_dynamic(&m, &m.seg[i], &strtab, &name) ||
                    name > UINT32_MAX || !to_offset(&m, strtab, &off) || off > INT64_MAX / 2)
                        continue;
                n = pread(fd, buf, sizeof buf - 1, (off_t) (off + name));
                if (n <= 0)
                        break;
                buf[n] = '\0';
                if (strlen(buf) < (size_t) n && name_ok(buf))
                        memcpy(l.soname, buf, strlen(buf) + 1);
                break;
        }
        *ret = l;
        return 0;
}
