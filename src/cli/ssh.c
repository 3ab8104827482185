/* ssh.c - see ssh.h.  Runs in tensoronecli. */
#include "cli/ssh.h"

#include <errno.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/str.h"

extern char **environ;

/* Run a program of the user's PATH to its end. */
static int run_program(char *const *argv, struct err *e)
{
        pid_t pid;
        int status, r = posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ);

        if (r == ENOENT)
                return err_set(e, -ENOENT,
                               "%s is not there; install OpenSSH's client, in Debian the package "
                               "openssh-client",
                               argv[0]);
        if (r != 0)
                return err_errno(e, -r, "start %s", argv[0]);
        while (waitpid(pid, &status, 0) < 0)
                if (errno != EINTR)
                        return err_errno(e, -errno, "wait for %s", argv[0]);
        return WIFEXITED(status) && WEXITSTATUS(status) == 0
                       ? 0
                       : err_set(e, -ECHILD, "%s has failed", argv[0]);
}

static int make_key(const char *home, const char *path, struct err *e)
{
        AUTO(free) char *outer = str_fmt("%s/.tensorone", home);
        AUTO(free) char *dir = str_fmt("%s/.tensorone/ssh", home);
        AUTO(free) char *copy = strdup(path);
        char *argv[] = { (char[]){ "ssh-keygen" },
                         (char[]){ "-q" },
                         (char[]){ "-t" },
                         (char[]){ "ed25519" },
                         (char[]){ "-N" },
                         (char[]){ "" },
                         (char[]){ "-f" },
                         copy,
                         NULL };

        if (!outer || !dir || !copy)
                return err_set(e, -ENOMEM, "out of memory");
        if (mkdir(outer, 0700) < 0 && errno != EEXIST)
                return err_errno(e, -errno, "%s", outer);
        if (mkdir(dir, 0700) < 0 && errno != EEXIST)
                return err_errno(e, -errno, "%s", dir);
        return run_program(argv, e);
}

int ssh_own_key(bool make, char **ret, struct err *e)
{
        const char *home = getenv("HOME");
        AUTO(free) char *private = str_fmt("%s/.tensorone/ssh/id_ed25519", home ? home : "");
        AUTO(free) char *public = str_fmt("%s/.tensorone/ssh/id_ed25519.pub", home ? home : "");
        int r = 0;

        if (!private || !public)
                return err_set(e, -ENOMEM, "out of memory");
        if (str_empty(home))
                return err_set(e, -ENOENT, "HOME is not set: there is no place for a key");
        if (access(public, F_OK) < 0)
                r = make ? make_key(home, private, e) : err_errno(e, -errno, "%s", public);
        if (r >= 0)
                *ret = TAKE(public);
        return r;
}
