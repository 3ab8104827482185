/* fuzz_kaudit.c - libFuzzer target for records of the kernel's audit stream (src/engine/kaudit/line.c),
 * in which strangers choose names.
 *
 * Input: one byte for the type, then the record.  Checked beside memory errors: what is found has a slot
 * or an id, names that end and are plain ASCII; what is not found left the result alone.  A trap is a
 * finding. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/mem.h"
#include "engine/kaudit/line.h"
#include "model/limits.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(x)                                                                                   \
        do {                                                                                       \
                if (!(x))                                                                          \
                        __builtin_trap();                                                          \
        } while (0)

static void check_name(const char *s, size_t size)
{
        size_t n = strnlen(s, size);

        CHECK(n < size);
        for (size_t i = 0; i < n; i++)
                CHECK(s[i] >= ' ' && s[i] < 0x7f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct kaudit_line l = { .pid = 4711 };
        char text[512];
        int r;

        if (size == 0)
                return 0;
        r = kaudit_parse(data[0] & 1 ? KAUDIT_LSM : KAUDIT_SECCOMP, (const char *) data + 1,
                         size - 1, &l);
        if (r < 0) {
                CHECK(l.pid == 4711 && !l.kind);
                return 0;
        }
        CHECK(l.kind && (l.has_uid || (l.slot > 0 && l.slot <= LIMIT_SLOTS)));
        check_name(l.arch, sizeof l.arch);
        check_name(l.comm, sizeof l.comm);
        check_name(l.operation, sizeof l.operation);
        check_name(l.name, sizeof l.name);
        check_name(l.denied, sizeof l.denied);
        kaudit_sentence(&l, text, sizeof text);
        check_name(text, sizeof text);
        return 0;
}
