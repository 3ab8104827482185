/* sshtree.h - the SSH server that clusters are given with startSsh: the host's dropbear and sftp-server
 * with its loader and libraries, copied once at engine start into one read-only directory in memory.
 *
 * The same mount for all clusters, so its pages are there once; a package that is upgraded while the
 * engine runs changes nothing in it.  It is attached in the engine's own mount namespace alone. */
#pragma once
#include <stdbool.h>

#include "base/err.h"

#define SSHTREE_DROPBEAR "/usr/sbin/dropbear"

struct instance;

struct sshtree {
        int mnt; /* O_PATH on it; -EBADF: there is none */
        bool sftp;
        char why[200]; /* there is none: what the host lacks */
};

/* A host without dropbear has none, and says so in @why; an error is something else.  Runs the host's
 * loader to learn the names of the libraries.  Blocks on the local disk. */
int sshtree_open(const struct instance *inst, struct sshtree *ret, struct err *e);
void sshtree_close(const struct instance *inst, struct sshtree *t);

/* Detached mounts of it for one cluster: the directory, and the server of SFTP for SSH_SFTP, or -EBADF.
 * The caller closes both, also after an error. */
int sshtree_clone(const struct sshtree *t, int *ret_dir, int *ret_sftp, struct err *e);
