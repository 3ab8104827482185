/* confine.c - see confine.h.  Runs at the start of the programs that climb down by themselves
 * (tensorone-api, vmm-fetch, vmm-gpu), once, before the first foreign byte is read. */
#include "base/confine.h"

#include <errno.h>
#include <linux/capability.h>
#include <seccomp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

/* ---- limits ---- */

int confine_limit(int what, uint64_t max, struct err *e)
{
        struct rlimit now;

        if (getrlimit((__rlimit_resource_t) what, &now) < 0)
                return err_errno(e, -errno, "getrlimit");
        if (now.rlim_max < max)
                max = now.rlim_max;
        now = (struct rlimit){ max, max };
        if (setrlimit((__rlimit_resource_t) what, &now) < 0)
                return err_errno(e, -errno, "setrlimit");
        return 0;
}

/* ---- capabilities ---- */

int confine_capabilities(struct err *e)
{
        struct __user_cap_header_struct h = { .version = _LINUX_CAPABILITY_VERSION_3 };
        struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = { { 0 } };

        /* who has none may not drop these either: then whoever started us has done it */
        for (unsigned long c = 0; prctl(PR_CAPBSET_READ, c, 0, 0, 0) >= 0; c++)
                if (prctl(PR_CAPBSET_DROP, c, 0, 0, 0) < 0 && errno != EPERM)
                        return err_errno(e, -errno, "capability %lu", c);
        if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0 ||
            syscall(SYS_capset, &h, none) < 0)
                return err_errno(e, -errno, "dropping capabilities");
        return 0;
}

/* ---- system calls ---- */

static int add_calls(scmp_filter_ctx f, const struct confine_calls *c, struct err *e)
{
        for (size_t i = 0; i < c->n; i++) {
                const struct confine_call *w = &c->rows[i];
                int r;

                if (w->arg == CONFINE_ANY)
                        r = seccomp_rule_add(f, w->action, w->nr, 0);
                else
                        r = seccomp_rule_add(f, w->action, w->nr, 1,
                                             SCMP_CMP64((unsigned) w->arg, SCMP_CMP_MASKED_EQ,
                                                        w->mask, w->value));
                if (r < 0)
                        return err_errno(e, r, "system call filter: call %d", w->nr);
        }
        return 0;
}

int confine_filter(const struct confine_calls *calls, size_t n, uint32_t otherwise, struct err *e)
{
        scmp_filter_ctx f = seccomp_init(otherwise);
        int r;

        if (!f)
                return err_set(e, -ENOMEM, "system call filter");
        /* a tree instead of a list; it sets no_new_privs itself */
        r = seccomp_attr_set(f, SCMP_FLTATR_CTL_OPTIMIZE, 2);
        r = r < 0 ? err_errno(e, r, "system call filter") : 0;
        for (size_t i = 0; r >= 0 && i < n; i++)
                r = add_calls(f, &calls[i], e);
        if (r >= 0) {
                r = seccomp_load(f);
                if (r < 0)
                        (void) err_errno(e, r, "system call filter");
        }
        seccomp_release(f);
        return r;
}

/* ---- all of it ---- */

bool confine_sanitized(void)
{
#if defined(__SANITIZE_ADDRESS__)
        return true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
        return true;
#endif
#endif
        return false;
}

static int descend(const struct confine *c, struct err *e)
{
        /* 1 and not 0: only 1 also keeps a core_pattern pipe from being started */
        int r = confine_limit(RLIMIT_CORE, 1, e);

        if (r >= 0 && c->nofile)
                r = confine_limit(RLIMIT_NOFILE, c->nofile, e);
        if (r >= 0 && !c->traceable && prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
                r = err_errno(e, -errno, "dumpable");
        if (r >= 0)
                r = confine_capabilities(e);
        if (r >= 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
                r = err_errno(e, -errno, "no_new_privs");
        if (r < 0 || confine_sanitized())
                return r;
        r = confine_landlock(c->paths, c->n_paths, c->reach, e);
        return r < 0 ? r : confine_filter(c->calls, c->n_calls, c->otherwise, e);
}

int confine_descend(const struct confine *c, struct err *e)
{
        int r = descend(c, e);

        return r < 0 ? err_wrap(e, r, "sandbox of %s", c->program) : 0;
}
