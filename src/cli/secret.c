/* secret.c - see secret.h.  Runs in tensoronecli. */
#include "cli/secret.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/str.h"

#define SECRET_MAX 65536U
#define CTRL_C     3

/* One byte at a time: what follows a line is not ours to take. */
static int read_text(int fd, const char *what, bool all, bool terminal, char *buf, size_t max,
                     struct err *e)
{
        size_t n = 0;

        for (;;) {
                ssize_t k = read(fd, buf + n, 1);

                if (k < 0 && errno == EINTR)
                        continue;
                if (k < 0)
                        return err_errno(e, -errno, "%s", what);
                if (k == 0 || (!all && buf[n] == '\n'))
                        break;
                if (terminal && buf[n] == CTRL_C)
                        return err_set(e, -ECANCELED, "cancelled");
                if (buf[n] == '\0')
                        return err_set(e, -EINVAL, "%s: not text", what);
                if (++n == max)
                        return err_set(e, -E2BIG, "%s: over %zu bytes", what, max - 1);
        }
        if (all && n > 0 && buf[n - 1] == '\n')
                n--;
        if (n > 0 && buf[n - 1] == '\r')
                n--;
        buf[n] = '\0';
        return 0;
}

/* No signals from the keyboard meanwhile: they would leave the terminal without its echo. */
static int ask(const char *prompt, char *buf, size_t max, struct err *e)
{
        struct termios saved, quiet;
        int r;

        if (tcgetattr(STDIN_FILENO, &saved) < 0)
                return err_errno(e, -errno, "terminal");
        quiet = saved;
        quiet.c_lflag &= ~(tcflag_t) (ECHO | ISIG);
        quiet.c_cc[VEOL] = CTRL_C; /* ends the line at once */
        if (tcsetattr(STDIN_FILENO, TCSAFLUSH, &quiet) < 0)
                return err_errno(e, -errno, "terminal");
        (void) fprintf(stderr, "%s: ", prompt);
        r = read_text(STDIN_FILENO, "terminal", false, true, buf, max, e);
        (void) tcsetattr(STDIN_FILENO, TCSAFLUSH, &saved);
        (void) fprintf(stderr, "\n");
        return r;
}

/* Wipes @buf. */
static int copy_out(int r, char *buf, size_t size, char **ret, struct err *e)
{
        char *copy = r >= 0 ? strdup(buf) : NULL;

        explicit_bzero(buf, size);
        if (r < 0)
                return r;
        if (!copy)
                return err_set(e, -ENOMEM, "out of memory");
        *ret = copy;
        return 0;
}

int secret_read(const char *prompt, bool all, char **ret, struct err *e)
{
        char buf[SECRET_MAX] = "";
        int r = isatty(STDIN_FILENO)
                        ? ask(prompt, buf, sizeof buf, e)
                        : read_text(STDIN_FILENO, "standard input", all, false, buf, sizeof buf, e);

        return copy_out(r, buf, sizeof buf, ret, e);
}

int secret_file(const char *path, char **ret, struct err *e)
{
        AUTO(fd) int fd = open(path, O_RDONLY | O_CLOEXEC);
        char buf[SECRET_MAX] = "";
        int r = fd < 0 ? err_errno(e, -errno, "%s", path)
                       : read_text(fd, path, true, false, buf, sizeof buf, e);

        return copy_out(r, buf, sizeof buf, ret, e);
}
