/* dns.c - see dns.h.  Engine and operation processes.  Always holds: every address in the result is
 * one that a cluster may at least try to reach. */
#include "engine/net/dns.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "base/str.h"
#include "engine/net/ipv4.h"

#define STUB         0x7F000035U /* 127.0.0.53 */
#define RESOLV_BYTES 65536U

static bool usable(uint32_t addr)
{
        return !ipv4_within(addr, 0x7F000000, 8) && !ipv4_within(addr, 0, 8) &&
               !ipv4_within(addr, 0xE0000000, 3) && addr != IPV4_GATEWAY;
}

/* Keep each once, the first DNS_MAX. */
static void keep(struct dns_servers *s, uint32_t addr)
{
        for (size_t i = 0; i < s->n; i++)
                if (s->addr[i] == addr)
                        return;
        if (s->n < DNS_MAX)
                s->addr[s->n++] = addr;
}

static void trim(char **s)
{
        size_t n;

        *s += strspn(*s, " \t");
        for (n = strlen(*s); n > 0 && strchr(" \t", (*s)[n - 1]); n--)
                ;
        (*s)[n] = '\0';
}

int dns_parse_option(const char *list, struct dns_servers *ret, struct err *e)
{
        AUTO(free) char *copy = strdup(list);
        struct dns_servers s = { .n = 0 };
        char *rest = copy, *one;
        size_t seen = 0;

        if (!copy)
                return err_set(e, -ENOMEM, "network dns");
        while ((one = strsep(&rest, ","))) {
                uint32_t addr;

                trim(&one);
                if (!*one)
                        continue;
                if (ipv4_parse(one, &addr) < 0)
                        return err_set(e, -EINVAL, "network dns: '%s' is not an IPv4 address", one);
                if (!usable(addr))
                        return err_set(
                                e, -EINVAL,
                                "network dns: clusters cannot reach %s; name a server on the network",
                                one);
                if (++seen > DNS_MAX)
                        return err_set(e, -E2BIG, "network dns: at most %u servers", DNS_MAX);
                keep(&s, addr);
        }
        *ret = s;
        return 0;
}

void dns_parse_resolv(const char *text, struct dns_servers *ret)
{
        static const char blanks[] = " \t\r";
        struct dns_servers s = { .n = 0 };

        for (const char *line = text; *line;) {
                size_t len = strcspn(line, "\n");
                const char *p = str_after(line, "nameserver");
                char word[64];
                uint32_t addr;

                if (p && (*p == ' ' || *p == '\t')) {
                        size_t n;

                        p += strspn(p, blanks);
                        n = strcspn(p, " \t\r\n#;");
                        if (n < sizeof word) {
                                memcpy(word, p, n);
                                word[n] = '\0';
                                if (ipv4_parse(word, &addr) == 0) {
                                        s.stub = s.stub || addr == STUB;
                                        if (usable(addr))
                                                keep(&s, addr);
                                }
                        }
                }
                line += len + (line[len] == '\n');
        }
        *ret = s;
}

void dns_drop(struct dns_servers *s, dns_drop_fn *fn, void *arg)
{
        size_t n = 0;

        for (size_t i = 0; i < s->n; i++)
                if (!fn(arg, s->addr[i]))
                        s->addr[n++] = s->addr[i];
        s->n = n;
}

static int load_file(const char *path, struct dns_servers *ret, struct err *e)
{
        AUTO(free) char *text = NULL;
        size_t len;
        int r = fd_read_file(AT_FDCWD, path, RESOLV_BYTES, &text, &len);

        if (r < 0 && r != -ENOENT)
                return err_errno(e, r, "read %s", path);
        dns_parse_resolv(text ? text : "", ret);
        return 0;
}

int dns_load(const char *etc, const char *upstream, struct dns_servers *ret, struct err *e)
{
        struct dns_servers s, real;
        int r = load_file(etc, &s, e);

        if (r < 0)
                return r;
        if (s.stub && s.n == 0) {
                r = load_file(upstream, &real, e);
                if (r < 0)
                        return r;
                s = real;
        }
        *ret = s;
        return 0;
}

char *dns_render(const struct dns_servers *s)
{
        struct strbuf b = { 0 };
        char text[IPV4_TEXT];

        strbuf_str(&b, "# written by hypervisor-vmm for this cluster\n");
        for (size_t i = 0; i < s->n; i++)
                strbuf_fmt(&b, "nameserver %s\n", ipv4_format(s->addr[i], text));
        return strbuf_take(&b);
}
