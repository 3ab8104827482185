/* log.c - see log.h.  A line is one write(2), so lines of several processes do not mix. */
#include "base/log.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *program_name = "?";
static enum log_level max_level = LOG_LVL_INFO;
static bool to_journal;

static const struct {
        const char *name;
        int syslog;
} levels[] = {
        [LOG_LVL_ERROR] = { "error", 3 },
        [LOG_LVL_WARN] = { "warning", 4 },
        [LOG_LVL_INFO] = { "info", 6 },
        [LOG_LVL_DEBUG] = { "debug", 7 },
};
_Static_assert(sizeof levels / sizeof levels[0] == LOG_LVL_COUNT, "level names");

/* systemd names the stream that it gave us; what we have may be another by now. */
static bool is_journal(int fd)
{
        const char *text = getenv("JOURNAL_STREAM");
        unsigned long long dev, ino;
        struct stat st;

        return text && sscanf(text, "%llu:%llu", &dev, &ino) == 2 && fstat(fd, &st) == 0 &&
               st.st_dev == dev && st.st_ino == ino;
}

void log_init(const char *program, enum log_level max)
{
        program_name = program;
        max_level = max;
        to_journal = is_journal(STDERR_FILENO);
}

int log_level_parse(const char *name)
{
        for (int i = 0; i < LOG_LVL_COUNT; i++)
                if (strcmp(name, levels[i].name) == 0)
                        return i;
        return -1;
}

void log_msg(enum log_level lvl, const char *fmt, ...)
{
        char line[2048];
        va_list ap;
        int n;

        if (lvl > max_level)
                return;
        if (to_journal)
                n = snprintf(line, sizeof line, "<%d>", levels[lvl].syslog);
        else
                n = snprintf(line, sizeof line, "%s %s: ", levels[lvl].name, program_name);
        if (n < 0)
                return;
        va_start(ap, fmt);
        (void) vsnprintf(line + n, sizeof line - (size_t) n - 1, fmt, ap);
        va_end(ap);
        for (char *p = line + n; *p; p++)
                if ((unsigned char) *p < 0x20)
                        *p = ' ';
        n = (int) strlen(line);
        line[n++] = '\n';
        if (write(STDERR_FILENO, line, (size_t) n) < 0)
                return; /* nobody left to tell */
}
