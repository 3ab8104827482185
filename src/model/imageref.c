/* imageref.c - see imageref.h; the grammar is the OCI distribution specification's, section
 * "Pulling manifests": repository [a-z0-9]+((\.|_|__|-+)[a-z0-9]+)* per component, tag
 * [a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}. */
#include "model/imageref.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>

#include "base/str.h"

static bool lower_alnum(char c)
{
        return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

int digest_ok(const char *s)
{
        const char *hex = str_after(s, "sha256:");

        return hex && strlen(hex) == 64 && strspn(hex, "0123456789abcdef") == 64;
}

/* Alphanumeric runs joined by one '.', one or two '_', or any number of '-'. */
static bool component_ok(const char *s, size_t n)
{
        size_t i = 0;

        if (n == 0 || !lower_alnum(s[0]) || !lower_alnum(s[n - 1]))
                return false;
        while (i < n) {
                size_t run;

                if (lower_alnum(s[i])) {
                        i++;
                        continue;
                }
                run = strspn(s + i, s[i] == '-' ? "-" : s[i] == '_' ? "_" : ".");
                if (run == 0 || (s[i] == '.' && run > 1) || (s[i] == '_' && run > 2))
                        return false;
                i += run;
                if (i >= n || !lower_alnum(s[i]))
                        return false;
        }
        return true;
}

static bool repository_ok(const char *s)
{
        for (;;) {
                size_t n = strcspn(s, "/");

                if (!component_ok(s, n))
                        return false;
                if (!s[n])
                        return true;
                s += n + 1;
        }
}

static bool tag_ok(const char *s)
{
        static const char set[] =
                "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-";
        size_t n = strlen(s);

        return n >= 1 && n <= 128 && strspn(s, set) == n && s[0] != '.' && s[0] != '-';
}

static bool registry_ok(const char *s)
{
        static const char set[] =
                "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-:[]";
        const char *colon = strrchr(s, ':');
        uint64_t port;

        if (strspn(s, set) != strlen(s) || !*s || *s == '.' || *s == '-')
                return false;
        if (colon && !strchr(colon, ']'))
                return colon != s && str_u64(colon + 1, 1, 65535, &port) == 0;
        return true;
}

/* The first component names a registry; the rest is left in *rest. */
static bool split_registry(const char *s, char *reg, size_t size, const char **rest)
{
        size_t n = strcspn(s, "/");

        if (!s[n] || n >= size)
                return false;
        memcpy(reg, s, n);
        reg[n] = '\0';
        *rest = s + n + 1;
        return strchr(reg, '.') || strchr(reg, ':') || str_eq(reg, "localhost");
}

static int put(char *to, size_t size, const char *from)
{
        return snprintf(to, size, "%s", from) >= (int) size ? -EINVAL : 0;
}

int imageref_parse(const char *s, struct imageref *ret, struct err *e)
{
        struct imageref r = { .registry = "docker.io" };
        AUTO(free) char *copy = strdup(s ? s : "");
        const char *name = copy;
        char *at, *colon;

        if (!copy)
                return err_set(e, -ENOMEM, "out of memory");
        if (!*copy)
                return err_set(e, -EINVAL, "imageName: is empty");
        at = strchr(copy, '@');
        if (at) {
                *at = '\0';
                if (!digest_ok(at + 1))
                        return err_set(e, -EINVAL,
                                       "imageName: '%s' is not sha256: and 64 hex digits", at + 1);
                (void) put(r.digest, sizeof r.digest, at + 1);
        }
        if (split_registry(copy, r.registry, sizeof r.registry, &name)) {
                if (!registry_ok(r.registry))
                        return err_set(e, -EINVAL, "imageName: '%s' is not a registry address",
                                       r.registry);
        } else {
                name = copy;
                (void) put(r.registry, sizeof r.registry, "docker.io");
        }
        if (str_eq(r.registry, "index.docker.io"))
                (void) put(r.registry, sizeof r.registry, "docker.io");
        colon = strrchr(name, ':');
        if (colon) {
                *colon = '\0';
                if (!tag_ok(colon + 1))
                        return err_set(e, -EINVAL, "imageName: '%s' is not a tag", colon + 1);
                (void) put(r.tag, sizeof r.tag, colon + 1);
        } else if (!*r.digest) {
                (void) put(r.tag, sizeof r.tag, "latest");
        }
        if (!repository_ok(name))
                return err_set(e, -EINVAL,
                               "imageName: '%s' must be lower-case letters, digits and . _ - /", s);
        if (str_eq(r.registry, "docker.io") && !strchr(name, '/')) {
                if (snprintf(r.repository, sizeof r.repository, "library/%s", name) >=
                    (int) sizeof r.repository)
                        return err_set(e, -EINVAL, "imageName: is too long");
        } else if (put(r.repository, sizeof r.repository, name) < 0) {
                return err_set(e, -EINVAL, "imageName: is too long");
        }
        *ret = r;
        return 0;
}

char *imageref_format(const struct imageref *r)
{
        return str_fmt("%s/%s%s%s%s%s", r->registry, r->repository, *r->tag ? ":" : "", r->tag,
                       *r->digest ? "@" : "", r->digest);
}
