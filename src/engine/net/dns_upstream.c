/* dns_upstream.c - the name servers that the host itself uses, as vmm-dns asks them.  Engine process. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "base/jsonx.h"
#include "base/str.h"
#include "engine/net/dns.h"

#define RESOLV_BYTES 65536U

/* Behind anything but an address (a scope such as %eth0, too) nobody is asked. */
static void add(json_t *list, const char *word)
{
        struct in6_addr a;

        if (json_array_size(list) < DNS_MAX &&
            (inet_pton(AF_INET, word, &a) == 1 || inet_pton(AF_INET6, word, &a) == 1))
                (void) json_array_append_new(list, json_string(word));
}

/* "nameserver ADDRESS" lines. */
static void add_resolv(json_t *list, char *text)
{
        char *rest = text, *line;

        while ((line = strsep(&rest, "\n"))) {
                char *word = strsep(&line, " \t\r");

                if (!str_eq(word, "nameserver"))
                        continue;
                while (line && (word = strsep(&line, " \t\r")) && !*word)
                        ;
                if (line || *word)
                        add(list, word);
        }
}

static void add_option(json_t *list, char *text)
{
        char *rest = text, *word;

        while ((word = strsep(&rest, ", \t")))
                add(list, word);
}

json_t *dns_upstreams(const char *option, const char *etc, struct err *e)
{
        AUTO(json_put) json_t *list = json_array();
        AUTO(free) char *text = NULL;
        int r = 0;

        if (!str_empty(option))
                text = str_dup(option);
        else
                r = fd_read_file(AT_FDCWD, etc, RESOLV_BYTES, &text, NULL);
        if (!list || (r >= 0 && !text)) {
                (void) err_set(e, -ENOMEM, "out of memory");
                return NULL;
        }
        if (r < 0 && r != -ENOENT) {
                (void) err_errno(e, r, "read %s", etc);
                return NULL;
        }
        if (text && str_empty(option))
                add_resolv(list, text);
        else if (text)
                add_option(list, text);
        return TAKE(list);
}
