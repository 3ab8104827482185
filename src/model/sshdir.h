/* sshdir.h - where the SSH server lies inside a cluster that was started with startSsh: what the engine
 * shows there, vmm-ssh starts, and tensoronecli asks for. */
#pragma once

#define SSH_DIR     "/.tensorone/ssh"
#define SSH_PROGRAM SSH_DIR "/vmm-ssh"
#define SSH_LOG     "vmm-ssh-log.so" /* loaded into dropbear */
#define SSH_LOADER  "ld.so" /* the host's dynamic loader; all libraries lie beside it */
/* Where dropbear looks for a server of SFTP, which scp needs, too. */
#define SSH_SFTP "/usr/lib/sftp-server"
/* The cluster's host key, base64 of dropbear's form of it.  In memory, never on a disk. */
#define SSH_HOST_KEY "/dev/.tensorone-ssh-host-key"
/* While one listens in a cluster; in memory, too. */
#define SSH_PID_FILE "/dev/.tensorone-ssh.pid"
/* Of the account, as vmm-ssh knows them: root's file may have others.  Its environment says which they are
 * to be.  In memory, as the next two. */
#define SSH_KEYS     "/dev/.tensorone-ssh-keys"
#define SSH_KEYS_ENV "TENSORONE_SSH_KEYS"
/* What root's file is a link to where the root cannot be written. */
#define SSH_AUTHORIZED "/dev/.tensorone-ssh-authorized"
/* Where it listens inside, for root alone; and who holds that is the one. */
#define SSH_SOCKET       "/dev/.tensorone-ssh.sock"
#define SSH_LOCK         "/dev/.tensorone-ssh.lock"
#define SSH_PORT         22U
#define SSH_HOST_KEY_MAX 512U /* bytes of that text */
