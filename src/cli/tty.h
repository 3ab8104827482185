/* tty.h - the user's terminal in raw mode, and its size. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <termios.h>

#include "base/err.h"

struct tty {
        bool raw;
        struct termios saved;
};

/* Switch the terminal on standard input to raw mode.  No terminal there: nothing happens. */
int tty_raw(struct tty *t, struct err *e);
/* Single keys without echo; the keys that send signals still do, but for the one that stops. */
int tty_keys(struct tty *t, struct err *e);
void tty_restore(struct tty *t); /* safe to call twice and when nothing was switched */

static inline void tty_restore_cleanup(struct tty *t)
{
        tty_restore(t);
}

/* Rows and columns of the terminal on stdin, stdout or stderr; false when there is none. */
bool tty_size(uint16_t *ret_rows, uint16_t *ret_cols);
