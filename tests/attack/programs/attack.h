/* attack.h - one static program with everything that root inside a cluster tries.  It is put into an
 * image and started by tests/attack; it says on stdout what it got, and the tests look at their
 * canaries.  Whatever it finds open it only ever reads, but for canaries. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct sockaddr_in6;

#define NELEM(a) (sizeof(a) / sizeof((a)[0]))

struct verb {
        const char *name, *args;
        int min; /* operands */
        int (*run)(int argc, char **argv);
};

/* attack.c */
bool say_file(const char *path); /* its first bytes, as "read PATH: TEXT" */
double now(void);                /* seconds */

int syscalls(int argc, char **argv); /* syscalls.c */
int surface(int argc, char **argv);  /* surface.c */
int setcap(int argc, char **argv);   /* rights.c */
int grow(int argc, char **argv);
int debug(int argc, char **argv);
int trace(int argc, char **argv);
int ports(int argc, char **argv);
int rewrite(int argc, char **argv);
struct sockaddr_in6 at6(const char *address, int port); /* packets6.c; "fe80::1%eth0" too */
int forge6(char **argv);                                /* FROM TO PORT TEXT */
int forge(int argc, char **argv);                       /* packets.c */
int tell(int argc, char **argv);
int packets(int argc, char **argv);
int scan(int argc, char **argv);
