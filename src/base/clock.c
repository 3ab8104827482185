/* clock.c - see clock.h. */
#include "base/clock.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static uint64_t now_us(clockid_t id)
{
        struct timespec ts = { 0 };

        (void) clock_gettime(id, &ts);
        return (uint64_t) ts.tv_sec * US_PER_S + (uint64_t) ts.tv_nsec / 1000;
}

uint64_t clock_mono_us(void)
{
        return now_us(CLOCK_MONOTONIC);
}

uint64_t clock_thread_us(void)
{
        return now_us(CLOCK_THREAD_CPUTIME_ID);
}

uint64_t clock_wall_us(void)
{
        return now_us(CLOCK_REALTIME);
}

void clock_format(uint64_t wall_us, char *buf, size_t len)
{
        time_t s = (time_t) (wall_us / US_PER_S);
        struct tm tm;
        char date[32];

        if (!gmtime_r(&s, &tm) || strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &tm) == 0)
                date[0] = '\0';
        (void) snprintf(buf, len, "%s.%06uZ", date, (unsigned) (wall_us % US_PER_S));
}

/* Offset "Z", "+hh:mm" or "-hh:mm" in seconds; 0 characters means UTC. */
static int parse_offset(const char *s, int *ret_s)
{
        int h, m, n = 0;

        if (*s == '\0' || strcmp(s, "Z") == 0 || strcmp(s, "z") == 0) {
                *ret_s = 0;
                return 0;
        }
        if ((*s != '+' && *s != '-') || !isdigit((unsigned char) s[1]) ||
            sscanf(s + 1, "%2d:%2d%n", &h, &m, &n) != 2 || s[1 + n])
                return -EINVAL;
        if (h > 23 || m > 59 || h < 0 || m < 0)
                return -EINVAL;
        *ret_s = (h * 60 + m) * 60 * (*s == '-' ? -1 : 1);
        return 0;
}

int clock_parse(const char *s, uint64_t *ret_wall_us)
{
        struct tm tm = { 0 }, same;
        uint64_t frac = 0;
        int off_s, r;
        time_t t;
        const char *p = strptime(s, "%Y-%m-%d", &tm);

        if (!p)
                return -EINVAL;
        if (*p == 'T' || *p == 't' || *p == ' ') {
                p = strptime(p + 1, "%H:%M:%S", &tm);
                if (!p)
                        return -EINVAL;
                if (*p == '.') {
                        uint64_t unit = US_PER_S / 10;

                        for (p++; isdigit((unsigned char) *p); p++, unit /= 10)
                                frac += (uint64_t) (*p - '0') * unit;
                }
        }
        r = parse_offset(p, &off_s);
        if (r < 0)
                return r;
        same = tm;
        t = timegm(&same); /* a 30th of February becomes a day of March */
        if (same.tm_mday != tm.tm_mday)
                return -EINVAL;
        if (t < 0 || t - off_s < 0)
                return -EINVAL;
        *ret_wall_us = (uint64_t) (t - off_s) * US_PER_S + frac;
        return 0;
}
