/* fuzz_conf.c - libFuzzer target for files that an operator or a user writes: the engine's configuration
 * (src/base/conf.c with the engine's tables) and, behind a leading byte 0x01, the command line's TOML.
 *
 * Checked beside memory errors: what is accepted is within the table's limits; what is refused comes with
 * a sentence; a TOML text into which a value was put gives it back. */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/conf.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/str.h"
#include "cli/toml.h"
#include "engine/instance.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(x)                                                                                   \
        do {                                                                                       \
                if (!(x)) {                                                                        \
                        fprintf(stderr, "fuzz_conf: %s\n", #x);                                    \
                        __builtin_trap();                                                          \
                }                                                                                  \
        } while (0)

static void check_option(const struct conf_option *o, const struct engine_conf *c)
{
        const char *at = (const char *) c + o->off;
        uint64_t v = 0;
        double d;

        switch (o->kind) {
        case CONF_U32:
                v = *(const uint32_t *) (const void *) at;
                CHECK(v >= o->min && (!o->max || v <= o->max));
                break;
        case CONF_DURATION:
        case CONF_BYTES:
                v = *(const uint64_t *) (const void *) at;
                CHECK(v >= o->min && (!o->max || v <= o->max));
                break;
        case CONF_FACTOR:
                d = *(const double *) (const void *) at;
                CHECK(d >= 1 && d <= 1000);
                break;
        case CONF_STR:
        case CONF_BOOL:
        case CONF_PRICE:
                break;
        }
}

static void engine(const uint8_t *data, size_t size)
{
        AUTO(fd) int fd = memfd_create("conf", MFD_CLOEXEC);
        AUTO(instance_close) struct instance *i = NULL;
        const struct conf_option *o;
        struct err e = { 0 };
        char path[32];
        size_t n;

        CHECK(fd >= 0 && fchmod(fd, 0600) == 0 && fd_write_full(fd, data, size) >= 0);
        (void) snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        if (instance_read_conf(path, &i, &e) < 0) {
                CHECK(*e.msg && !i);
                return;
        }
        o = instance_options(&n);
        for (size_t k = 0; k < n; k++)
                check_option(&o[k], &i->conf);
        for (size_t k = 0; k < i->n_registries; k++)
                CHECK(!str_empty(i->registries[k].host));
        for (size_t k = 0; k < i->n_gpu_prices; k++)
                CHECK(i->gpu_prices[k].on_demand >= 0 && i->gpu_prices[k].spot >= 0);
}

static void toml(const char *text)
{
        static const char value[] = "a \"quoted\" \\ value\n\x7f";
        AUTO(free) char *got = NULL, *changed = NULL, *again = NULL;
        struct err e = { 0 };

        if (toml_get(text, "api_key", &got, &e) < 0)
                CHECK(*e.msg && !got);
        CHECK(toml_set(text, "api_key", value, &changed) >= 0);
        if (toml_get(changed, "api_key", &again, &e) >= 0)
                CHECK(str_eq(again, value));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        AUTO(free) char *text = NULL;

        if (size > 0 && data[0] == 1) {
                text = strndup((const char *) data + 1, size - 1);
                CHECK(text);
                toml(text);
                return 0;
        }
        engine(data, size);
        return 0;
}
