/* tty.c - see tty.h.  Runs in tensoronecli. */
#include "cli/tty.h"

#include <errno.h>
#include <sys/ioctl.h>
#include <unistd.h>

int tty_raw(struct tty *t, struct err *e)
{
        struct termios raw;

        if (!isatty(STDIN_FILENO))
                return 0;
        if (tcgetattr(STDIN_FILENO, &t->saved) < 0)
                return err_errno(e, -errno, "terminal");
        raw = t->saved;
        cfmakeraw(&raw);
        if (tcsetattr(STDIN_FILENO, TCSADRAIN, &raw) < 0)
                return err_errno(e, -errno, "terminal");
        t->raw = true;
        return 0;
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
