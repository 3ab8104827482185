/* log.c - vmm-ssh-log.so: dropbear's log goes to its stderr, which the keeper reads.
 *
 * Loaded into dropbear, inside a cluster, ahead of the C library: for a single connection it knows no other
 * log than syslog's, and who logs there in a cluster is the image's matter.  Without it nothing is missing but
 * the keeper's knowledge of who was let in by which key. */
#include <stdarg.h>
#include <stdio.h>
#include <syslog.h>
#include <unistd.h>

#define LINE_BYTES 1024

void __syslog_chk(int priority, int flag, const char *fmt, ...);
void __vsyslog_chk(int priority, int flag, const char *fmt, va_list ap);

/* One line, one write: others write there, too. */
__attribute__((format(printf, 1, 0))) static void say(const char *fmt, va_list ap)
{
        char line[LINE_BYTES];
        int n = snprintf(line, sizeof line, "[%d] ", (int) getpid());
        int m = vsnprintf(line + n, sizeof line - (size_t) n - 1, fmt, ap);

        if (m < 0)
                return;
        n = n + m < (int) sizeof line - 2 ? n + m : (int) sizeof line - 2;
        for (int i = 0; i < n; i++)
                if (line[i] == '\n') /* a name that a stranger gave makes no line of its own */
                        line[i] = ' ';
        line[n++] = '\n';
        (void) !write(STDERR_FILENO, line, (size_t) n);
}

void vsyslog(int priority, const char *fmt, va_list ap)
{
        (void) priority;
        say(fmt, ap);
}

void syslog(int priority, const char *fmt, ...)
{
        va_list ap;

        (void) priority;
        va_start(ap, fmt);
        say(fmt, ap);
        va_end(ap);
}

void __vsyslog_chk(int priority, int flag, const char *fmt, va_list ap)
{
        (void) priority;
        (void) flag;
        say(fmt, ap);
}

void __syslog_chk(int priority, int flag, const char *fmt, ...)
{
        va_list ap;

        (void) priority;
        (void) flag;
        va_start(ap, fmt);
        say(fmt, ap);
        va_end(ap);
}
