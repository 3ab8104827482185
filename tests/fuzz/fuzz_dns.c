/* fuzz_dns.c - libFuzzer target for what tenants send to vmm-dns (src/dns/message.c, answer.c).
 *
 * Checked beside memory errors: an answer fits, is one to the query, and what is forwarded has a question
 * inside the message. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/jsonx.h"
#include "dns/dnsd.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(x)                                                                                   \
        do {                                                                                       \
                if (!(x))                                                                          \
                        __builtin_trap();                                                          \
        } while (0)

static void say(struct names *n, json_t *msg)
{
        CHECK(msg && names_message(n, msg, NULL) == 0);
        json_decref(msg);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct names *n = names_new();
        uint8_t *answer = malloc(DNS_UDP_PLAIN);
        struct dns_question q = { .end = 0 };
        struct name *from;
        int r;

        CHECK(n && answer);
        say(n, json_pack("{s:s,s:s,s:s,s:i,s:[s]}", "type", "settings", "service", "100.96.255.1",
                         "pool", "100.96.0.0", "pool_bits", 16, "servers", "192.0.2.1"));
        say(n, json_pack("{s:s,s:s,s:s,s:s,s:s}", "type", "name", "address", "100.96.0.1",
                         "address6", "fd00::1", "account", "a", "cluster", "one"));
        from = names_by_address(n, 0x64600001);
        CHECK(from);
        r = answer_query(n, from, data, size, answer, DNS_UDP_PLAIN, &q);
        CHECK(r <= (int) DNS_UDP_PLAIN);
        if (r > 0)
                CHECK(memcmp(answer, data, 2) == 0 && (answer[2] & 0x80));
        if (r == 0) {
                CHECK(q.end > DNS_HEADER && q.end <= size &&
                      q.end <= DNS_HEADER + DNS_NAME_TEXT + 8);
                CHECK(answer_failure(data, q.end, answer) == q.end);
                CHECK(dns_answers(answer, q.end, data, q.end));
        }
        free(answer);
        names_free(n);
        return 0;
}
