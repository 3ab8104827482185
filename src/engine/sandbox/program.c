/* program.c - what a first process has to run, as one text: written by the operation, read by a
 * process that was started long before.
 *
 *   struct head | the filter's instructions | modes of the files | flags of binds and libraries | strings, each with its NUL, in the order of write_strings()
 *
 * It travels in a memory file, because an environment may be larger than a socket buffer.  Both
 * ends are of one build (birth.c) and trust each other; the reader still keeps to the length. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/str.h"
#include "engine/sandbox/sandbox_priv.h"

#define COUNT_MAX 65536U

struct head {
        uint64_t nofile, memory_bytes;
        uint32_t n_insn, n_argv, n_env, n_files, n_binds, n_symlinks, n_libraries;
        uint16_t rows, cols;
        uint8_t profile, tty, pad[6];
};

struct file_head {
        uint32_t mode, if_absent;
};

static void put(struct strbuf *b, const char *s)
{
        strbuf_add(b, s ? s : "", (s ? strlen(s) : 0) + 1);
}

static void write_strings(struct strbuf *b, const struct sandbox_spec *s)
{
        put(b, s->hostname);
        put(b, s->argv_field);
        put(b, s->cwd);
        put(b, s->user);
        put(b, s->apparmor);
        for (char *const *p = s->argv; *p; p++)
                put(b, *p);
        for (char *const *p = s->env; *p; p++)
                put(b, *p);
        for (size_t i = 0; i < s->n_files; i++) {
                put(b, s->files[i].target);
                put(b, s->files[i].content);
        }
        for (size_t i = 0; i < s->n_binds; i++)
                put(b, s->binds[i].target);
        for (size_t i = 0; i < s->n_symlinks; i++) {
                put(b, s->symlinks[i].target);
                put(b, s->symlinks[i].link);
        }
        for (size_t i = 0; i < s->n_libraries; i++) {
                put(b, s->libraries[i].name);
                put(b, s->libraries[i].path);
        }
}

static void write_flags(struct strbuf *b, const struct sandbox_spec *s)
{
        for (size_t i = 0; i < s->n_binds; i++)
                strbuf_char(b, s->binds[i].host);
        for (size_t i = 0; i < s->n_libraries; i++)
                strbuf_char(b, s->libraries[i].is_32);
}

int program_write(const struct sandbox_spec *s, const struct filter *f, struct err *e)
{
        struct head h = { .nofile = s->nofile,
                          .memory_bytes = s->memory_bytes,
                          .n_insn = f->len,
                          .n_argv = (uint32_t) strv_len(s->argv),
                          .n_env = (uint32_t) strv_len(s->env),
                          .n_files = (uint32_t) s->n_files,
                          .n_binds = (uint32_t) s->n_binds,
                          .n_symlinks = (uint32_t) s->n_symlinks,
                          .n_libraries = (uint32_t) s->n_libraries,
                          .rows = s->rows,
                          .cols = s->cols,
                          .profile = (uint8_t) s->profile,
                          .tty = s->tty };
        AUTO(strbuf_done) struct strbuf b = { 0 };
        AUTO(fd) int fd = -EBADF;
        int r;

        if (s->n_binds > SANDBOX_BINDS_MAX || s->n_files > COUNT_MAX || h.n_argv > COUNT_MAX ||
            h.n_env > COUNT_MAX || s->n_symlinks > COUNT_MAX || s->n_libraries > COUNT_MAX)
                return err_set(e, -E2BIG, "sandbox: too much to start with");
        strbuf_add(&b, &h, sizeof h);
        strbuf_add(&b, f->insn, f->len * sizeof *f->insn);
        for (size_t i = 0; i < s->n_files; i++) {
                const struct file_head file = { s->files[i].mode, s->files[i].if_absent };

                strbuf_add(&b, &file, sizeof file);
        }
        write_flags(&b, s);
        write_strings(&b, s);
        if (b.failed)
                return err_set(e, -ENOMEM, "out of memory");
        fd = memfd_create("program", MFD_CLOEXEC);
        r = fd < 0 ? -errno : fd_write_full(fd, b.s, b.len);
        return r < 0 ? err_errno(e, r, "memory file for the program") : fd_take(&fd);
}

struct reader {
        const char *at, *end;
        bool bad;
};

static const void *get(struct reader *r, size_t len)
{
        const char *p = r->at;

        if ((size_t) (r->end - r->at) < len) {
                r->bad = true;
                return NULL;
        }
        r->at += len;
        return p;
}

/* In the text itself, so without const where argv and environment want it so. */
static char *get_string(struct reader *r)
{
        const char *nul = memchr(r->at, '\0', (size_t) (r->end - r->at));
        char *s = (char *) (uintptr_t) r->at;

        if (!nul) {
                r->bad = true;
                return NULL;
        }
        r->at = nul + 1;
        return s;
}

static char **get_strv(struct reader *r, uint32_t n)
{
        char **v = n <= COUNT_MAX ? calloc(n + 1U, sizeof *v) : NULL;

        for (uint32_t i = 0; v && i < n; i++)
                v[i] = get_string(r);
        r->bad |= !v;
        return v;
}

/* Flags came first, strings come now. */
static void get_host_files(struct reader *r, const struct head *h, const char *flags,
                           struct program *p)
{
        p->binds = calloc(h->n_binds + 1U, sizeof *p->binds);
        p->symlinks = calloc(h->n_symlinks + 1U, sizeof *p->symlinks);
        p->libraries = calloc(h->n_libraries + 1U, sizeof *p->libraries);
        r->bad |= !p->binds || !p->symlinks || !p->libraries;
        for (uint32_t i = 0; !r->bad && i < h->n_binds; i++)
                p->binds[i] = (struct sandbox_bind){ -EBADF, get_string(r), *flags++ != 0 };
        for (uint32_t i = 0; !r->bad && i < h->n_symlinks; i++) {
                p->symlinks[i].target = get_string(r);
                p->symlinks[i].link = get_string(r);
        }
        for (uint32_t i = 0; !r->bad && i < h->n_libraries; i++) {
                p->libraries[i].name = get_string(r);
                p->libraries[i].path = get_string(r);
                p->libraries[i].is_32 = *flags++ != 0;
        }
        p->spec.binds = p->binds;
        p->spec.n_binds = h->n_binds;
        p->spec.symlinks = p->symlinks;
        p->spec.n_symlinks = h->n_symlinks;
        p->spec.libraries = p->libraries;
        p->spec.n_libraries = h->n_libraries;
}

static void get_spec(struct reader *r, const struct head *h, const struct file_head *modes,
                     const char *flags, struct program *p)
{
        struct sandbox_spec *s = &p->spec;

        s->hostname = get_string(r);
        s->argv_field = get_string(r);
        s->cwd = get_string(r);
        s->user = get_string(r);
        s->apparmor = get_string(r);
        s->argv = p->argv = get_strv(r, h->n_argv);
        s->env = p->env = get_strv(r, h->n_env);
        s->files = p->files = calloc(h->n_files + 1U, sizeof *p->files);
        r->bad |= !p->files || h->n_argv == 0;
        for (uint32_t i = 0; !r->bad && i < h->n_files; i++) {
                struct file_head f;

                memcpy(&f, &modes[i], sizeof f);
                p->files[i].mode = f.mode;
                p->files[i].if_absent = f.if_absent != 0;
                p->files[i].target = get_string(r);
                p->files[i].content = get_string(r);
        }
        get_host_files(r, h, flags, p);
        s->n_files = h->n_files;
        s->nofile = h->nofile;
        s->memory_bytes = h->memory_bytes;
        s->profile = (enum security_profile) h->profile;
        s->tty = h->tty != 0;
        s->rows = h->rows;
        s->cols = h->cols;
}

static void get_filter(struct reader *r, uint32_t n, struct program *p)
{
        size_t len = n * sizeof *p->filter->insn;
        const void *insn = n <= BPF_MAXINSNS ? get(r, len) : NULL;

        p->filter = insn ? malloc(sizeof *p->filter + len) : NULL;
        if (!p->filter) {
                r->bad = true;
                return;
        }
        p->filter->len = (unsigned short) n;
        memcpy(p->filter->insn, insn, len);
}

int program_read(int fd, struct program *ret, struct err *e)
{
        AUTO(program_done) struct program p = { .text = NULL };
        struct reader r = { .bad = false };
        const struct file_head *modes;
        const char *flags = NULL;
        struct head h = { 0 };
        const void *head;
        struct stat st;

        if (fstat(fd, &st) < 0 || st.st_size < 0 || !(p.text = malloc((size_t) st.st_size + 1)))
                return err_set(e, -ENOMEM, "out of memory");
        if (pread(fd, p.text, (size_t) st.st_size, 0) != st.st_size)
                return err_errno(e, -EIO, "read the program");
        r.at = p.text;
        r.end = p.text + st.st_size;
        head = get(&r, sizeof h);
        if (head)
                memcpy(&h, head, sizeof h);
        if (!head || h.n_files > COUNT_MAX || h.n_binds > SANDBOX_BINDS_MAX ||
            h.n_symlinks > COUNT_MAX || h.n_libraries > COUNT_MAX || h.profile == SECURITY_NONE ||
            h.profile >= SECURITY_PROFILE_COUNT)
                return err_set(e, -EPROTO, "program: not one of ours");
        get_filter(&r, h.n_insn, &p);
        modes = get(&r, h.n_files * sizeof *modes);
        if (modes)
                flags = get(&r, h.n_binds + h.n_libraries);
        if (flags)
                get_spec(&r, &h, modes, flags, &p);
        if (r.bad || r.at != r.end)
                return err_set(e, -EPROTO, "program: it is cut short");
        *ret = p;
        p = (struct program){ .text = NULL };
        return 0;
}

void program_done(struct program *p)
{
        free(p->argv);
        free(p->env);
        free(p->files);
        free(p->binds);
        free(p->symlinks);
        free(p->libraries);
        free(p->filter);
        free(p->text);
        *p = (struct program){ .text = NULL };
}
