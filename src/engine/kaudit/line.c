/* line.c - see line.h.  Pure; engine process. */
#include "engine/kaudit/line.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "engine/claim/claim.h"
#include "model/limits.h"

#define PROFILE "hvmm-"

/* What a record says of @key: within the text, without its quotes. */
struct value {
        const char *s;
        size_t len;
        bool quoted;
};

/* Walks "key=value key="value" ...".  The first @key counts: what strangers choose comes behind what
 * the kernel says itself, and cannot hold a blank that is not within quotes. */
static bool field(const char *text, size_t len, const char *key, struct value *ret)
{
        const char *p = text, *end = text + len;
        size_t key_len = strlen(key);

        while (p < end) {
                const char *word = p, *eq, *stop;

                while (p < end && *p != '=' && *p != ' ')
                        p++;
                if (p == end || *p == ' ') { /* a word without a value */
                        p += p < end;
                        continue;
                }
                eq = p++;
                if (p < end && *p == '"') {
                        stop = memchr(p + 1, '"', (size_t) (end - p - 1));
                        if (!stop)
                                return false;
                        *ret = (struct value){ p + 1, (size_t) (stop - p - 1), true };
                        p = stop + 1;
                } else {
                        stop = memchr(p, ' ', (size_t) (end - p));
                        stop = stop ? stop : end;
                        *ret = (struct value){ p, (size_t) (stop - p), false };
                        p = stop;
                }
                if ((size_t) (eq - word) == key_len && memcmp(word, key, key_len) == 0)
                        return true;
                p += p < end && *p == ' ';
        }
        return false;
}

static bool number(const char *text, size_t len, const char *key, uint64_t max, uint64_t *ret)
{
        struct value v;
        char digits[24];

        if (!field(text, len, key, &v) || v.quoted || v.len == 0 || v.len >= sizeof digits)
                return false;
        memcpy(digits, v.s, v.len);
        digits[v.len] = '\0';
        return str_u64(digits, 0, max, ret) >= 0;
}

static int hex_digit(char c)
{
        return c >= '0' && c <= '9'   ? c - '0'
               : c >= 'A' && c <= 'F' ? c - 'A' + 10
               : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                      : -1;
}

/* A name that a stranger chose: decoded, cut, plain ASCII. */
static void name(const char *text, size_t len, const char *key, char *ret, size_t size)
{
        struct value v;
        size_t n = 0;
        bool hex;

        ret[0] = '\0';
        if (!field(text, len, key, &v))
                return;
        hex = !v.quoted && v.len > 0 && v.len % 2 == 0;
        for (size_t i = 0; hex && i < v.len; i++)
                hex = hex_digit(v.s[i]) >= 0;
        for (size_t i = 0; i < v.len && n + 1 < size; i += hex ? 2 : 1) {
                int c = hex ? hex_digit(v.s[i]) * 16 + hex_digit(v.s[i + 1])
                            : (unsigned char) v.s[i];

                ret[n++] = (char) (c >= ' ' && c < 0x7f ? c : '?');
        }
        ret[n] = '\0';
}

/* Of the kernel's own: as it is. */
static void word(const char *text, size_t len, const char *key, char *ret, size_t size)
{
        struct value v;
        size_t n = field(text, len, key, &v) && v.len < size ? v.len : 0;

        for (size_t i = 0; i < n; i++)
                ret[i] = v.s[i] >= ' ' && v.s[i] < 0x7f ? v.s[i] : '?';
        ret[n] = '\0';
}

static bool is(const char *text, size_t len, const char *key, const char *want)
{
        struct value v;

        return field(text, len, key, &v) && v.len == strlen(want) && memcmp(v.s, want, v.len) == 0;
}

/* "hvmm-12", "hvmm-12-strict"; 0: none of ours. */
static uint32_t slot_of(const char *text, size_t len)
{
        struct value v;
        uint32_t slot = 0;
        size_t i = strlen(PROFILE);

        if (!field(text, len, "profile", &v) || !v.quoted || v.len <= i ||
            memcmp(v.s, PROFILE, i) != 0)
                return 0;
        for (; i < v.len && v.s[i] >= '0' && v.s[i] <= '9' && slot <= LIMIT_SLOTS; i++)
                slot = slot * 10 + (uint32_t) (v.s[i] - '0');
        return slot <= LIMIT_SLOTS && (i == v.len || v.s[i] == '-') ? slot : 0;
}

/* Killed for a call: the default is to refuse it with an error, which is nothing to tell of. */
static bool parse_seccomp(const char *text, size_t len, struct kaudit_line *l)
{
        uint64_t signal, uid;

        if (!number(text, len, "sig", 64, &signal) || signal != SIGSYS ||
            !number(text, len, "uid", UINT32_MAX, &uid))
                return false;
        l->kind = "seccomp";
        l->has_uid = true;
        l->uid = (uint32_t) uid;
        (void) number(text, len, "syscall", UINT32_MAX, &l->syscall);
        word(text, len, "arch", l->arch, sizeof l->arch);
        return true;
}

static bool parse_lsm(const char *text, size_t len, struct kaudit_line *l)
{
        if (!is(text, len, "apparmor", "DENIED"))
                return false;
        l->kind = "apparmor";
        l->slot = slot_of(text, len);
        word(text, len, "operation", l->operation, sizeof l->operation);
        name(text, len, "name", l->name, sizeof l->name);
        word(text, len, "denied_mask", l->denied, sizeof l->denied);
        return l->slot != 0;
}

int kaudit_parse(unsigned type, const char *text, size_t len, struct kaudit_line *ret)
{
        struct kaudit_line l = { .kind = NULL };
        const char *nul = memchr(text, '\0', len), *body;
        bool found;

        len = nul ? (size_t) (nul - text) : len;
        /* "audit(TIME:SERIAL): " */
        body = len > 6 && memcmp(text, "audit(", 6) == 0 ? memchr(text, ')', len) : NULL;
        if (!body || text + len - body < 3 || body[1] != ':' || body[2] != ' ')
                return -ENOMSG;
        body += 3;
        len -= (size_t) (body - text);
        found = type == KAUDIT_SECCOMP ? parse_seccomp(body, len, &l)
                : type == KAUDIT_LSM   ? parse_lsm(body, len, &l)
                                       : false;
        if (!found)
                return -ENOMSG;
        (void) number(body, len, "pid", INT32_MAX, &l.pid);
        name(body, len, "comm", l.comm, sizeof l.comm);
        *ret = l;
        return 0;
}

/* AUDIT_ARCH_*: machine, 64 bits, little endian */
static const char *arch_name(const char *hex)
{
        static const struct {
                const char *hex, *name;
        } known[] = {
                { "c000003e", "x86_64" },
                { "40000003", "i386" },
                { "c00000b7", "aarch64" },
                { "40000028", "arm" },
        };

        for (size_t i = 0; i < NELEM(known); i++)
                if (str_eq(known[i].hex, hex))
                        return known[i].name;
        return "another ABI";
}

void kaudit_sentence(const struct kaudit_line *l, char *ret, size_t size)
{
        const char *who = *l->comm ? l->comm : "a process";

        if (str_eq(l->kind, "seccomp"))
                (void) snprintf(ret, size,
                                "seccomp has ended %s: system call %llu of %s is not allowed", who,
                                (unsigned long long) l->syscall, arch_name(l->arch));
        else
                (void) snprintf(ret, size, "AppArmor has denied %s: %s%s%s%s%s%s", who,
                                *l->operation ? l->operation : "an operation",
                                *l->name ? " of " : "", l->name, *l->denied ? " (" : "", l->denied,
                                *l->denied ? ")" : "");
}
