/* ssh_priv.h - vmm-ssh between its files. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/err.h"

/* main.c.  Both return only with an error. */
int ssh_exec_program(const char *program, char *const *args, char *const *env, struct err *e);
/* With the host key; @mode: further words. */
int ssh_exec_dropbear(char *const *mode, char *const *env, struct err *e);

/* connect.c: one connection on stdin and stdout; an exit status. */
int ssh_connect(struct err *e);

/* keeper.c: the cluster's SSH server, until it is killed; 0: there is one, and it has the keys now. */
int ssh_keep(bool listens, struct err *e);

/* ---- what goes over SSH_SOCKET: one packet, its first byte says what it is ---- */

#define SSH_SAY_CONNECT 'C' /* with SSH_CONNECT_FDS descriptors: socket, environment, stderr */
#define SSH_SAY_KEYS    'K' /* lines as in SSH_KEYS; answered with "" or what was wrong */
#define SSH_CONNECT_FDS 3
int ssh_say_connect(int fd, const int fds[SSH_CONNECT_FDS]);
/* A connection to the keeper; -errno: none is there. */
int ssh_find_keeper(void);

/* ---- keys.c: lines "SHA256:PRINT TYPE BASE64 COMMENT", what the account says ---- */

#define SSH_PRINT_LEN 50U

/* What root's file is when the account's list was @old and is @now: lines that name one of either go, those
 * of @now come at the end, all others stay as they are.  Heap; NULL: out of memory. */
char *keys_merge(const char *file, const char *old, const char *now);
/* A line of @list begins with @print. */
bool keys_have(const char *list, const char *print);
/* @old has one that @now has not. */
bool keys_fewer(const char *old, const char *now);
/* root's home, of the text of /etc/passwd. */
void keys_home(const char *passwd, char *ret, size_t size);
/* Make it so, and remember @now.  *@ret_old: what it was before, heap. */
int keys_apply(const char *now, char **ret_old, struct err *e);

/* ---- sessions.c: which of dropbear's processes was let in by which key, by its own word ---- */

struct sessions;
struct sessions *sessions_new(void);
/* A line of its log. */
void sessions_hear(struct sessions *s, const char *line);
/* Of a line of its log: who says it; 0: nobody. */
pid_t sessions_pid(const char *line);
/* Of a line of its log: who was let in; false: it says something else.  Pure. */
bool sessions_parse(const char *line, pid_t *ret_pid, char ret_print[SSH_PRINT_LEN + 1]);
void sessions_forget(struct sessions *s, pid_t pid);
/* End each connection that a key opened which @old has and @now has not, or that nobody knows the key of;
 * but for @listener, which is none. */
void sessions_end(const struct sessions *s, const char *old, const char *now, pid_t listener);
