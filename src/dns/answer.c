/* answer.c - what is said about names of ours.  vmm-dns; pure. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>

#include "base/str.h"
#include "dns/dnsd.h"

/* "abc.internal" behind an address. */
static size_t add_pointer(uint8_t *to, size_t len, size_t size, const char *host)
{
        char text[DNS_NAME_TEXT];
        uint8_t name[DNS_NAME_TEXT];
        size_t n;

        (void) snprintf(text, sizeof text, "%s.internal", host);
        n = dns_name_encode(text, name, sizeof name);
        return dns_answer_add(to, len, size, DNS_TYPE_PTR, DNSD_TTL_S, name, (uint16_t) n);
}

/* The records that @q asks for, of those that there are. */
static size_t add_records(uint8_t *to, size_t len, size_t size, const struct dns_question *q,
                          const char *host, uint32_t address, const struct in6_addr *address6)
{
        const uint32_t v4 = htonl(address);
        uint32_t reversed;

        if (dns_reverse4(q->name, &reversed) >= 0)
                return q->type == DNS_TYPE_PTR || q->type == DNS_TYPE_ANY
                               ? add_pointer(to, len, size, host)
                               : len;
        if (q->type == DNS_TYPE_A || q->type == DNS_TYPE_ANY)
                len = dns_answer_add(to, len, size, DNS_TYPE_A, DNSD_TTL_S, &v4, sizeof v4);
        if (address6 && (q->type == DNS_TYPE_AAAA || q->type == DNS_TYPE_ANY))
                len = dns_answer_add(to, len, size, DNS_TYPE_AAAA, DNSD_TTL_S, address6,
                                     sizeof *address6);
        return len;
}

int answer_query(const struct names *n, const struct name *from, const uint8_t *msg, size_t len,
                 uint8_t *to, size_t size, struct dns_question *ret_q)
{
        const struct name *who = NULL;
        enum names_verdict v;
        size_t end;
        int r = dns_question_parse(msg, len, ret_q);

        if (r < 0)
                return r;
        if (r > 0)
                return (int) dns_answer_begin(to, msg, DNS_HEADER, (enum dns_rcode) r);
        v = names_judge(n, from, ret_q->name, &who);
        if (v != NAMES_FORWARD && !ret_q->plain)
                v = NAMES_ABSENT; /* nobody is called like that, and the suffix stays ours */
        if (v == NAMES_FORWARD)
                return 0;
        end = dns_answer_begin(to, msg, ret_q->end, v == NAMES_ABSENT ? DNS_NXDOMAIN : DNS_OK);
        if (v == NAMES_SERVICE)
                end = add_records(to, end, size, ret_q, "api", names_service(n), NULL);
        if (v == NAMES_CLUSTER)
                end = add_records(to, end, size, ret_q, who->cluster, who->address,
                                  who->has_address6 ? &who->address6 : NULL);
        return (int) end;
}

size_t answer_failure(const uint8_t *msg, size_t end, uint8_t *to)
{
        return dns_answer_begin(to, msg, end, DNS_SERVFAIL);
}
