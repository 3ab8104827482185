/* tty.c - see tty.h.  Runs in tensoronecli. */
#include "cli/tty.h"

#include <errno.h>
#include <sys/ioctl.h>
#include <unistd.h>

static void single_keys(struct termios *s)
{
        s->c_lflag &= ~(tcflag_t) (ICANON | ECHO);
        s->c_cc[VMIN] = 1;
        s->c_cc[VTIME] = 0;
        s->c_cc[VSUSP] = _POSIX_VDISABLE; /* else the shell would have the picture's terminal */
}

static int set(struct tty *t, void (*change)(struct termios *s), struct err *e)
{
        struct termios s;

        if (!isatty(STDIN_FILENO))
                return 0;
        if (tcgetattr(STDIN_FILENO, &t->saved) < 0)
                return err_errno(e, -errno, "terminal");
        s = t->saved;
        change(&s);
        if (tcsetattr(STDIN_FILENO, TCSADRAIN, &s) < 0)
                return err_errno(e, -errno, "terminal");
        t->raw = true;
        return 0;
}

int tty_raw(struct tty *t, struct err *e)
{
        return set(t, cfmakeraw, e);
}

int tty_keys(struct tty *t, struct err *e)
{
        return set(t, single_keys, e);
}

void tty_restore(struct tty *t)
{
        if (!t->raw)
                return;
        t->raw = false;
        (void) tcsetattr(STDIN_FILENO, TCSADRAIN, &t->saved);
}

bool tty_size(uint16_t *ret_rows, uint16_t *ret_cols)
{
        struct winsize ws;

        for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
                if (ioctl(fd, TIOCGWINSZ, &ws) < 0 || ws.ws_row == 0 || ws.ws_col == 0)
                        continue;
                *ret_rows = ws.ws_row;
                *ret_cols = ws.ws_col;
                return true;
        }
        return false;
}
