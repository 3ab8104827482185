/* main.c - vmm-ssh: starts dropbear and sftp-server inside a cluster, with the host's loader and
 * libraries, whatever the image has of its own.
 *
 * Runs inside the cluster, as one of its processes, with its rights and nothing more; the engine shows
 * it and all that it needs at SSH_DIR, read-only.  Static, for it must run before there is a loader.
 *
 *   vmm-ssh connect    one connection on stdin and stdout, which may be pipes: a session of the API's
 *   vmm-ssh serve      the keeper, with a server on port 22; where one is, it is told the keys
 *   vmm-ssh keep       the same without a port
 *   sftp-server        by this name, at SSH_SFTP: dropbear's subsystem
 *
 * The host key comes in text and dropbear wants its own form in a file: that is one in memory, which ends
 * with the process. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/str.h"
#include "model/sshdir.h"
#include "model/sshkey.h"
#include "ssh/ssh_priv.h"

#define WINDOW                                                                                     \
        "1048576" /* bytes on their way to us in one channel: 24 KiB are slow over a distance */
#define ARGS_MAX 64U
#define ENV_MAX  4096U

extern char **environ;

/* Variables that speak to a loader, and mean the image's own: libraries of another C library end dropbear
 * before it has begun.  A login shell has them back from /etc/profile.d. */
static bool is_loaders(const char *var)
{
        static const char *const names[] = { "LD_PRELOAD=", "LD_AUDIT=", "LD_DEBUG=",
                                             "LD_TRACE_LOADED_OBJECTS=", "GLIBC_TUNABLES=" };

        for (size_t i = 0; i < NELEM(names); i++)
                if (str_after(var, names[i]))
                        return true;
        return false;
}

/* Become @program of SSH_DIR; returns only with an error. */
int ssh_exec_program(const char *program, char *const *args, char *const *env, struct err *e)
{
        char *argv[ARGS_MAX + 16] = { (char[]){ SSH_LOADER }, (char[]){ "--inhibit-cache" },
                                      (char[]){ "--library-path" }, (char[]){ SSH_DIR } };
        static char *plain[ENV_MAX + 1];
        char name[64], path[128], preload[] = "--preload", log[] = SSH_DIR "/" SSH_LOG;
        size_t n = 4, k = 0;

        (void) snprintf(name, sizeof name, "%s", program);
        (void) snprintf(path, sizeof path, SSH_DIR "/%s", program);
        if (str_eq(program, "dropbear")) {
                argv[n++] = preload;
                argv[n++] = log;
        }
        argv[n++] = (char[]){ "--argv0" }; /* no path: nothing is to be found by it again */
        argv[n++] = name;
        argv[n++] = path;
        for (size_t i = 0; i < ARGS_MAX && args[i]; i++)
                argv[n++] = args[i];
        argv[n] = NULL;
        for (; *env && k < ENV_MAX; env++)
                if (!is_loaders(*env))
                        plain[k++] = *env;
        (void) execve(SSH_DIR "/" SSH_LOADER, argv, plain);
        return err_errno(e, -errno, "exec " SSH_DIR "/" SSH_LOADER);
}

/* The host key as a file in memory that outlives an execve; its descriptor. */
static int open_host_key(struct err *e)
{
        char text[SSH_HOST_KEY_MAX + 1];
        uint8_t key[SSH_HOST_KEY_MAX];
        AUTO(fd) int fd = open(SSH_HOST_KEY, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
        AUTO(fd) int mem = -EBADF;
        ssize_t n;
        int len;

        if (fd < 0)
                return err_errno(e, -errno, "open " SSH_HOST_KEY);
        n = fd_read_full(fd, text, sizeof text - 1);
        if (n < 0)
                return err_errno(e, (int) n, "read " SSH_HOST_KEY);
        len = sshkey_unbase64(text, (size_t) n, key, sizeof key);
        if (len < 0)
                return err_set(e, -EBADMSG, SSH_HOST_KEY " holds no host key");
        mem = memfd_create("host-key", 0);
        if (mem < 0)
                return err_errno(e, -errno, "a file in memory");
        len = fd_write_full(mem, key, (size_t) len);
        explicit_bzero(key, sizeof key);
        explicit_bzero(text, sizeof text);
        return len < 0 ? err_errno(e, len, "a file in memory") : fd_take(&mem);
}

/* Keys only; the server's environment, which is the cluster's, for those who log in. */
int ssh_exec_dropbear(char *const *mode, char *const *env, struct err *e)
{
        int key = open_host_key(e);
        char path[32];
        char *args[16] = { (char[]){ "-s" },   (char[]){ "-e" }, (char[]){ "-W" },
                           (char[]){ WINDOW }, (char[]){ "-r" }, path };
        size_t n = 6;

        if (key < 0)
                return key;
        (void) snprintf(path, sizeof path, "/proc/self/fd/%d", key);
        while (*mode && n + 1 < NELEM(args))
                args[n++] = *mode++;
        return ssh_exec_program("dropbear", args, env, e);
}

int main(int argc, char **argv)
{
        const char *slash = argc > 0 ? strrchr(argv[0], '/') : NULL;
        const char *name = slash ? slash + 1 : argc > 0 ? argv[0] : "";
        struct err e = { 0 };
        int r;

        if (str_eq(name, "sftp-server"))
                r = ssh_exec_program("sftp-server", argv + 1, environ, &e);
        else if (argc == 2 && str_eq(argv[1], "connect"))
                r = ssh_connect(&e);
        else if (argc == 2 && (str_eq(argv[1], "serve") || str_eq(argv[1], "keep")))
                r = ssh_keep(str_eq(argv[1], "serve"), &e);
        else
                r = err_set(&e, -EINVAL, "usage: vmm-ssh connect|serve|keep");
        if (r >= 0)
                return r;
        (void) dprintf(STDERR_FILENO, "vmm-ssh: %s\n", e.msg);
        return 127;
}
