/* fuzz_user.c - libFuzzer target for the files of an image that the launcher reads: /etc/passwd and
 * /etc/group (src/engine/sandbox/user.c).
 *
 * Input: "spec NUL passwd NUL group".  Checked beside memory errors: whoever comes out has ids that
 * exist inside, a list of groups that fits and an absolute home; whoever does not, left the result
 * alone.  A trap is a finding. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "engine/sandbox/sandbox_priv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(x)                                                                                   \
        do {                                                                                       \
                if (!(x))                                                                          \
                        __builtin_trap();                                                          \
        } while (0)

static void check_user(const struct user *u)
{
        CHECK(u->uid < SANDBOX_IDS && u->gid < SANDBOX_IDS);
        CHECK(u->n_groups <= USER_GROUPS_MAX);
        for (size_t i = 0; i < u->n_groups; i++)
                CHECK(u->groups[i] < SANDBOX_IDS);
        CHECK(u->home[0] == '/' && memchr(u->home, '\0', sizeof u->home));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        char *text = malloc(size + 3), *spec = text, *passwd, *group;
        struct user u = { .uid = 0x77777777 };
        struct err e = { .code = 0 };
        int r;

        CHECK(text);
        memcpy(text, data, size);
        memset(text + size, 0, 3); /* three strings, whatever is missing */
        passwd = spec + strlen(spec) + 1;
        group = passwd < text + size ? passwd + strlen(passwd) + 1 : text + size;
        r = user_parse(passwd <= text + size ? passwd : "", group, spec, &u, &e);
        if (r < 0)
                CHECK(u.uid == 0x77777777 && e.code == r && e.msg[0]);
        else
                check_user(&u);
        free(text);
        return 0;
}
