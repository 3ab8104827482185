/* apparmor_compile.c - from the template to what the kernel loads, by apparmor_parser.
 *
 * Runs in operation processes; the child is the parser.
 * Always: a fixed path and arguments, an empty environment, no user's rights, nothing to write but its
 * output, killed when the operation ends.  It reads a text made of our own template and a name that has
 * been checked, from a memory file. */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/proc.h"
#include "engine/policy.h"
#include "engine/sandbox/apparmor_priv.h"

#define NOBODY       65534U
#define EXIT_NO_EXEC 127
#define BINARY_MAX   (4U << 20)
#define ABI_FILE     "/etc/apparmor.d/abi/3.0"

/* FNV-1a: the key only has to change when what it is made of does. */
static void mix(uint64_t *h, const void *data, size_t len)
{
        const unsigned char *p = data;

        for (size_t i = 0; i < len; i++)
                *h = (*h ^ p[i]) * 0x100000001b3ULL;
}

static void mix_str(uint64_t *h, const char *s)
{
        mix(h, s, strlen(s) + 1);
}

/* What an upgrade of the package changes. */
static int mix_file(uint64_t *h, const char *path, struct err *e)
{
        struct stat st;

        if (stat(path, &st) < 0)
                return err_errno(e, -errno, "%s", path);
        mix_str(h, path);
        mix(h, &st.st_size, sizeof st.st_size);
        mix(h, &st.st_mtim, sizeof st.st_mtim);
        return 0;
}

int apparmor_key(const char *parser, char ret[static 17], struct err *e)
{
        uint64_t h = 0xcbf29ce484222325ULL;
        struct utsname u;
        int r = mix_file(&h, parser, e);

        if (r >= 0)
                r = mix_file(&h, ABI_FILE, e);
        if (r < 0)
                return r;
        if (uname(&u) < 0)
                return err_errno(e, -errno, "uname");
        mix_str(&h, u.release); /* the parser asks the kernel what it can */
        mix_str(&h, u.version);
        for (int p = SECURITY_NONE + 1; p < SECURITY_PROFILE_COUNT; p++) {
                AUTO(strbuf_done) struct strbuf text = { 0 };

                apparmor_text("", (enum security_profile) p, &text);
                if (text.failed)
                        return err_set(e, -ENOMEM, "out of memory");
                mix(&h, text.s, text.len);
        }
        (void) snprintf(ret, 17, "%016llx", (unsigned long long) h);
        return 0;
}

/* Those of the security profile, as AppArmor spells them. */
static void add_capabilities(enum security_profile p, struct strbuf *b)
{
        uint64_t set = policy_of(p)->capabilities;

        for (size_t i = 0; i < policy_n_capabilities; i++) {
                if (!(set >> i & 1))
                        continue;
                strbuf_str(b, "capability ");
                for (const char *c = policy_capability_names[i]; *c; c++)
                        strbuf_char(b, (char) tolower((unsigned char) *c));
                strbuf_str(b, ",\n");
        }
}

void apparmor_text(const char *name, enum security_profile p, struct strbuf *ret)
{
        static const char word[] = "%profile%";
        const char *rules = apparmor_rules[p], *at;

        strbuf_fmt(ret, "abi <abi/3.0>,\nprofile %s flags=(%s) {\n", name, apparmor_flags);
        add_capabilities(p, ret);
        while ((at = strstr(rules, word)) != NULL) {
                strbuf_add(ret, rules, (size_t) (at - rules));
                strbuf_str(ret, name);
                rules = at + sizeof word - 1;
        }
        strbuf_str(ret, rules);
        strbuf_str(ret, "}\n");
}

static _Noreturn void child(const struct apparmor *a, const int io[static 3], pid_t parent)
{
        /* no configuration of the host's, nothing loaded by the parser, nothing cached by it */
        const char *argv[] = { a->parser, "--config-file=/dev/null", "-QKS", NULL, NULL, NULL };
        static char *const env[] = { NULL };
        char *const *args;
        sigset_t none;
        int fd[3];

        if (a->features) {
                argv[3] = "-M";
                argv[4] = a->features;
        }
        memcpy(&args, &(const char *const *){ argv }, sizeof args); /* execve() changes nothing */
        (void) sigemptyset(&none);
        (void) sigprocmask(SIG_SETMASK, &none, NULL);
        for (int i = 0; i < 3; i++) /* out of the way of 0 to 2 first, then into place */
                fd[i] = fcntl(io[i], F_DUPFD_CLOEXEC, 10);
        for (int i = 0; i < 3; i++)
                if (fd[i] < 0 || dup2(fd[i], i) < 0)
                        _exit(EXIT_NO_EXEC);
        (void) fd_close_from(3);
        if (geteuid() != 0 || proc_drop(NOBODY, parent) >= 0) /* a unit test has nothing to drop */
                (void) execve(argv[0], args, env);
        (void) dprintf(2, "%s", strerror(errno));
        _exit(EXIT_NO_EXEC);
}

/* The last line of what it said. */
static void reason(int fd, char *buf, size_t size)
{
        ssize_t n = pread(fd, buf, size - 1, 0);
        char *line;

        buf[n < 0 ? 0 : n] = '\0';
        buf[strlen(buf) - (n > 0 && buf[n - 1] == '\n')] = '\0';
        line = strrchr(buf, '\n');
        if (line)
                memmove(buf, line + 1, strlen(line));
        str_tame(buf, ' ');
}

static int run_parser(const struct apparmor *a, const int io[static 3], struct err *e)
{
        pid_t parent = getpid(), pid = fork();
        char said[200];
        int status, r;

        if (pid < 0)
                return err_errno(e, -errno, "fork for %s", a->parser);
        if (pid == 0)
                child(a, io, parent);
        do
                r = waitpid(pid, &status, 0);
        while (r < 0 && errno == EINTR);
        if (r < 0)
                return err_errno(e, -errno, "wait for %s", a->parser);
        if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
                return 0;
        if (WIFSIGNALED(status))
                return err_set(e, -EIO, "%s: killed by signal %d", a->parser, WTERMSIG(status));
        reason(io[2], said, sizeof said);
        return err_set(e, -EIO, "%s: exit status %d: %s", a->parser, WEXITSTATUS(status), said);
}

static int read_all(int fd, char **ret, size_t *ret_len)
{
        struct stat st;

        if (fstat(fd, &st) < 0)
                return -errno;
        if (st.st_size <= 0 || st.st_size > BINARY_MAX)
                return -EFBIG;
        *ret = malloc((size_t) st.st_size);
        if (!*ret)
                return -ENOMEM;
        *ret_len = (size_t) st.st_size;
        return pread(fd, *ret, *ret_len, 0) == st.st_size ? 0 : -EIO;
}

int apparmor_compile(const struct apparmor *a, const char *name, enum security_profile p,
                     char **ret, size_t *ret_len, struct err *e)
{
        AUTO(strbuf_done) struct strbuf text = { 0 };
        AUTO(free) char *binary = NULL;
        AUTO(fd) int in = memfd_create("profile", MFD_CLOEXEC);
        AUTO(fd) int out = memfd_create("binary", MFD_CLOEXEC);
        AUTO(fd) int said = memfd_create("said", MFD_CLOEXEC);
        int r;

        apparmor_text(name, p, &text);
        if (text.failed)
                return err_set(e, -ENOMEM, "out of memory");
        if (in < 0 || out < 0 || said < 0)
                return err_errno(e, -errno, "memory file for AppArmor's parser");
        r = fd_write_full(in, text.s, text.len);
        if (r < 0 || lseek(in, 0, SEEK_SET) < 0)
                return err_errno(e, r < 0 ? r : -errno, "memory file for AppArmor's parser");
        r = run_parser(a, (const int[]){ in, out, said }, e);
        if (r < 0)
                return r;
        r = read_all(out, &binary, ret_len);
        if (r < 0)
                return err_errno(e, r, "read what %s made", a->parser);
        *ret = TAKE(binary);
        return 0;
}
