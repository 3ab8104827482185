/* in_child.h - checks for what a test does in a child, where cmocka cannot fail: they return 1 and say where. */
#pragma once
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

static int wrong(const char *what, int line)
{
        (void) dprintf(STDERR_FILENO, "line %d: not so: %s (errno %d)\n", line, what, errno);
        return 1;
}
#define CHECK(x)                                                                                   \
        do {                                                                                       \
                if (!(x))                                                                          \
                        return wrong(#x, __LINE__);                                                \
        } while (0)
#define FAILS(x, with) CHECK((x) < 0 && errno == (with))
