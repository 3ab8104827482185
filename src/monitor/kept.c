/* kept.c - exec sessions that outlive the connection to their client (--keep SECONDS).
 *
 * Runs in vmm-monitor.  The last ATTACH_KEPT_BYTES of what a terminal has said stay here, by absolute offset, and
 * its client's credit is less than that: so whoever comes back and names the offset that he has got to misses
 * nothing.  While nobody is there nothing is read, and the process waits as it does behind any slow client.
 *
 * What always holds: there is one client at a time, the latest; a session that was hung up stays so.  That the
 * process has ended is known to have arrived when the client leaves with that word, not before. */
#include <string.h>

#include "base/clock.h"
#include "monitor/monitor_priv.h"

uint64_t kept_start(const struct monitor *m)
{
        return m->kept_end > ATTACH_KEPT_BYTES ? m->kept_end - ATTACH_KEPT_BYTES : 0;
}

void kept_add(struct monitor *m, const void *data, size_t len)
{
        const uint8_t *from = data;

        while (len > 0) {
                size_t at = (size_t) (m->kept_end % ATTACH_KEPT_BYTES);
                size_t n = ATTACH_KEPT_BYTES - at < len ? ATTACH_KEPT_BYTES - at : len;

                memcpy(m->kept + at, from, n);
                m->kept_end += n;
                from += n;
                len -= n;
        }
}

size_t kept_get(const struct monitor *m, uint64_t pos, const uint8_t **ret)
{
        size_t at = (size_t) (pos % ATTACH_KEPT_BYTES);
        uint64_t left = m->kept_end - pos;

        *ret = m->kept + at;
        return left < ATTACH_KEPT_BYTES - at ? (size_t) left : ATTACH_KEPT_BYTES - at;
}

bool kept_behind(const struct monitor *m, const struct client *c)
{
        return m->opt.keep > 0 && m->owner == c && c->pos < m->kept_end;
}

bool kept_open(const struct monitor *m)
{
        return m->opt.keep > 0 && !m->hung_up && !m->left;
}

bool kept_waits(const struct monitor *m)
{
        return kept_open(m) && m->owner_seen;
}

void owner_gone(struct monitor *m)
{
        m->owner = NULL;
        if (kept_open(m)) {
                m->keep_until_us = clock_mono_us() + m->opt.keep * US_PER_S;
                return;
        }
        m->hung_up = true;
        stdio_hangup(m);
}

void owner_come(struct monitor *m, struct client *c, const struct attach_hello *h)
{
        m->owner = c;
        m->owner_seen = true;
        m->keep_until_us = 0;
        c->pos = m->kept_end;
        if ((h->flags & ATTACH_F_RESUME) && h->log_start < m->kept_end)
                c->pos = h->log_start > kept_start(m) ? h->log_start : kept_start(m);
}

void kept_settle(struct monitor *m, uint64_t now_us)
{
        if (m->keep_until_us == 0 || now_us < m->keep_until_us)
                return;
        m->keep_until_us = 0;
        m->hung_up = true;
        stdio_hangup(m);
}
