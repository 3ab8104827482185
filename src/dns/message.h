/* message.h - the little of a DNS message (RFC 1035) that a resolver for names of ours must read: its
 * one question; and the answers that it writes.  Pure; every byte comes from a tenant. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DNS_HEADER    12U
#define DNS_NAME_TEXT 256U   /* longest name as text, with its end */
#define DNS_MESSAGE   65535U /* what 16 bits of length can say */
#define DNS_UDP_PLAIN 512U   /* an answer over UDP, unless the query says more */

enum dns_type { DNS_TYPE_A = 1, DNS_TYPE_PTR = 12, DNS_TYPE_AAAA = 28, DNS_TYPE_ANY = 255 };
enum dns_rcode { DNS_OK = 0, DNS_FORMERR = 1, DNS_SERVFAIL = 2, DNS_NXDOMAIN = 3, DNS_NOTIMP = 4 };

struct dns_question {
        char name[DNS_NAME_TEXT]; /* lower case, dots between, none at the end */
        bool plain; /* of letters, digits, '-' and '_' alone; else `name` is only good for messages */
        uint16_t type;
        size_t end; /* header and question in bytes */
};

/* 0, or what to answer: DNS_FORMERR (one question, nothing compressed, is what every resolver asks),
 * DNS_NOTIMP (no query).  -EBADMSG: not even that, say nothing. */
int dns_question_parse(const uint8_t *msg, size_t len, struct dns_question *ret);

/* An answer to the query @msg whose question ends at @end (DNS_HEADER: it is left out), without
 * records; returns its length, which is @end.  @to holds at least that much. */
size_t dns_answer_begin(uint8_t *to, const uint8_t *msg, size_t end, enum dns_rcode rcode);
/* One more record about the name of the question; @len behind, returns the new length, or @len when
 * @size is too small, with the "truncated" bit set. */
size_t dns_answer_add(uint8_t *to, size_t len, size_t size, enum dns_type type, uint32_t ttl_s,
                      const void *data, uint16_t data_len);
/* A name as it lies in a record: "a.internal" as 1 a 8 internal 0.  Returns its length, 0: too long. */
size_t dns_name_encode(const char *name, uint8_t *to, size_t size);

/* Whether @answer is one to @query: its number and its question, byte for byte. */
bool dns_answers(const uint8_t *answer, size_t len, const uint8_t *query, size_t end);

/* "4.3.2.1.in-addr.arpa" as 1.2.3.4, host byte order; -EINVAL: another name. */
int dns_reverse4(const char *name, uint32_t *ret);
