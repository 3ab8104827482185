/* sessions.c - who is connected by which key.  vmm-ssh, inside the cluster.
 *
 * dropbear says so in its log, once, when it lets somebody in; nobody else can tell.  A process whose word was
 * not heard (the keeper was not there) is one that nobody knows the key of. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/str.h"
#include "model/sshdir.h"
#include "ssh/ssh_priv.h"

#define SESSIONS_MAX 1024U /* that are remembered: who came first is forgotten first */
#define LET_IN       " Pubkey auth succeeded for '"

struct sessions {
        struct {
                pid_t pid; /* 0: free */
                char print[SSH_PRINT_LEN + 1];
        } at[SESSIONS_MAX];
        size_t next;
};

struct sessions *sessions_new(void)
{
        return calloc(1, sizeof(struct sessions));
}

pid_t sessions_pid(const char *line)
{
        char *end;
        long pid = *line == '[' ? strtol(line + 1, &end, 10) : 0;

        return pid > 0 && pid <= INT32_MAX && *end == ']' ? (pid_t) pid : 0;
}

/* "[7] Nov 23 14:00:01 Pubkey auth succeeded for 'root' with ssh-ed25519 key SHA256:... from ...".  Who logs in
 * chooses no word of it before the fingerprint but a name that is in /etc/passwd. */
bool sessions_parse(const char *line, pid_t *ret_pid, char ret_print[SSH_PRINT_LEN + 1])
{
        const char *p = strstr(line, LET_IN);
        const char *print = p ? strstr(p + strlen(LET_IN), " key SHA256:") : NULL;
        pid_t pid = sessions_pid(line);
        size_t n;

        if (!pid || !print)
                return false;
        print += strlen(" key ");
        n = strcspn(print, " \n");
        if (n > SSH_PRINT_LEN)
                return false;
        *ret_pid = pid;
        (void) snprintf(ret_print, SSH_PRINT_LEN + 1, "%.*s", (int) n, print);
        return true;
}

void sessions_forget(struct sessions *s, pid_t pid)
{
        for (size_t i = 0; i < SESSIONS_MAX; i++)
                if (s->at[i].pid == pid)
                        s->at[i].pid = 0;
}

void sessions_hear(struct sessions *s, const char *line)
{
        char print[SSH_PRINT_LEN + 1];
        pid_t pid;

        if (!sessions_parse(line, &pid, print))
                return;
        sessions_forget(s, pid); /* the number was somebody else's */
        s->at[s->next].pid = pid;
        memcpy(s->at[s->next].print, print, sizeof print);
        s->next = (s->next + 1) % SESSIONS_MAX;
}

static const char *print_of(const struct sessions *s, pid_t pid)
{
        for (size_t i = 0; i < SESSIONS_MAX; i++)
                if (s->at[i].pid == pid)
                        return s->at[i].print;
        return NULL;
}

/* A process of ours that serves a connection: our loader, told to be dropbear. */
static bool is_server(int proc, const char *pid)
{
        char path[64], exe[64], command[512];
        AUTO(fd) int fd = -EBADF;
        ssize_t n;

        (void) snprintf(path, sizeof path, "%s/exe", pid);
        n = readlinkat(proc, path, exe, sizeof exe - 1);
        if (n < 0)
                return false;
        exe[n] = '\0';
        (void) snprintf(path, sizeof path, "%s/cmdline", pid);
        fd = openat(proc, path, O_RDONLY | O_CLOEXEC);
        n = fd < 0 ? -1 : read(fd, command, sizeof command);
        return str_eq(exe, SSH_DIR "/" SSH_LOADER) && n > 0 &&
               memmem(command, (size_t) n, "\0dropbear\0", 10);
}

/* By descriptor: what was looked at is what is ended. */
static void end_server(int proc, const char *name, pid_t pid)
{
        AUTO(fd) int fd = (int) syscall(SYS_pidfd_open, pid, 0);

        if (fd >= 0 && is_server(proc, name))
                (void) syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0);
}

void sessions_end(const struct sessions *s, const char *old, const char *now, pid_t listener)
{
        DIR *proc = keys_fewer(old, now) ? opendir("/proc") : NULL;
        const struct dirent *d;

        while (proc && (d = readdir(proc))) {
                const char *print;
                uint64_t pid;

                if (str_u64(d->d_name, 1, INT32_MAX, &pid) < 0 || (pid_t) pid == listener)
                        continue;
                print = print_of(s, (pid_t) pid);
                if (!print || (keys_have(old, print) && !keys_have(now, print)))
                        end_server(dirfd(proc), d->d_name, (pid_t) pid);
        }
        if (proc)
                (void) closedir(proc);
}
