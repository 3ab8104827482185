/* main.c - hypervisor-vmm: the command line of the node engine. */
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "base/conf.h"
#include "base/log.h"
#include "base/str.h"
#include "engine/doctor.h"
#include "engine/instance.h"
#include "engine/standalone.h"

static int verb_standalone(char **argv, struct err *e);
static int verb_doctor(char **argv, struct err *e);
static int verb_config(char **argv, struct err *e);
static int verb_version(char **argv, struct err *e);
static int verb_help(char **argv, struct err *e);

/* One row feeds dispatch and --help. */
static const struct {
        const char *name, *args, *help;
        int (*run)(char **argv, struct err *e);
} verbs[] = {
        { "standalone", "--data-dir DIR --listen ADDRESS:PORT [--config FILE]",
          "run one host: engine and API together, until SIGTERM", verb_standalone },
        { "doctor", "", "print what this kernel offers and what follows from what it lacks",
          verb_doctor },
        { "config", "", "print every configuration option with its default", verb_config },
        { "version", "", "print the version", verb_version },
        { "help", "", "print this list", verb_help },
};

static int verb_help(char **argv, struct err *e)
{
        (void) argv;
        (void) e;
        (void) printf("hypervisor-vmm - turns a GPU host into a multi-tenant GPU cloud\n\nUsage:\n");
        for (size_t i = 0; i < NELEM(verbs); i++)
                (void) printf("  hypervisor-vmm %s%s%s\n        %s\n", verbs[i].name,
                              *verbs[i].args ? " " : "", verbs[i].args, verbs[i].help);
        (void) printf("\nExample:\n  hypervisor-vmm standalone --data-dir /var/lib/hypervisor-vmm --listen 127.0.0.1:8080\n");
        return 0;
}

static int verb_version(char **argv, struct err *e)
{
        (void) argv;
        (void) e;
        (void) puts("hypervisor-vmm " HVMM_VERSION);
        return 0;
}

static int verb_doctor(char **argv, struct err *e)
{
        (void) argv;
        return doctor_run(stdout) ? err_set(e, -ENOTSUP, "this host cannot run clusters") : 0;
}

static int verb_config(char **argv, struct err *e)
{
        size_t n;
        const struct conf_option *o = instance_options(&n);
        const char *section = "";

        (void) argv;
        (void) e;
        for (size_t i = 0; i < n; i++) {
                if (!str_eq(section, o[i].section))
                        (void) printf("%s[%s]\n", *section ? "\n" : "", o[i].section);
                section = o[i].section;
                (void) printf("# %s%s%s%s\n%s = %s\n", o[i].help, o[i].unit ? " (" : "",
                              o[i].unit ? o[i].unit : "", o[i].unit ? ")" : "", o[i].key,
                              o[i].preset);
        }
        (void) printf("\n# One section for each registry that needs credentials, plain HTTP, or lies at a private address.\n"
                      "#[registry \"127.0.0.1:5000\"]\n#insecure = yes\n#username =\n#password =\n");
        return 0;
}

static int verb_standalone(char **argv, struct err *e)
{
        struct standalone_args a = { 0 };
        const struct {
                const char *flag;
                const char **to;
        } flags[] = { { "--data-dir", &a.data_dir },
                      { "--listen", &a.listen },
                      { "--config", &a.config } };

        for (; *argv; argv++) {
                bool known = false;

                for (size_t i = 0; i < NELEM(flags); i++) {
                        const char *rest = str_after(*argv, flags[i].flag);

                        if (!rest || (*rest && *rest != '='))
                                continue;
                        known = true;
                        *flags[i].to = *rest == '=' ? rest + 1 : argv[1];
                        if (!*flags[i].to)
                                return err_set(e, -EINVAL, "%s: a value is missing", flags[i].flag);
                        argv += *rest != '=';
                        break;
                }
                if (!known)
                        return err_set(e, -EINVAL, "standalone: unknown argument '%s'", *argv);
        }
        if (!a.data_dir || !a.listen)
                return err_set(e, -EINVAL, "standalone: --data-dir DIR and --listen ADDRESS:PORT are needed");
        if (geteuid() != 0)
                return err_set(e, -EPERM, "standalone: must run as root");
        return standalone_run(&a, e);
}

int main(int argc, char **argv)
{
        const char *name = argc > 1 ? argv[1] : "help";
        struct err e = { 0 };

        log_init("hypervisor-vmm", LOG_LVL_INFO);
        if (str_eq(name, "--help") || str_eq(name, "-h"))
                name = "help";
        if (str_eq(name, "--version"))
                name = "version";
        for (size_t i = 0; i < NELEM(verbs); i++) {
                if (!str_eq(name, verbs[i].name))
                        continue;
                if (verbs[i].run(argv + (argc > 1 ? 2 : 1), &e) >= 0)
                        return 0;
                (void) fprintf(stderr, "hypervisor-vmm: %s\n", e.msg);
                return 1;
        }
        (void) fprintf(stderr, "hypervisor-vmm: unknown command '%s'; try: hypervisor-vmm help\n", name);
        return 1;
}
