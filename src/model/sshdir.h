/* sshdir.h - where the SSH server lies inside a cluster that was started with startSsh: what the engine
 * shows there, vmm-ssh starts, and tensoronecli asks for. */
#pragma once

#define SSH_DIR     "/.tensorone/ssh"
#define SSH_PROGRAM SSH_DIR "/vmm-ssh"
#define SSH_LOADER  "ld.so" /* the host's dynamic loader; all libraries lie beside it */
/* Where dropbear looks for a server of SFTP, which scp needs, too. */
#define SSH_SFTP "/usr/lib/sftp-server"
/* The cluster's host key, base64 of dropbear's form of it.  In memory, never on a disk. */
#define SSH_HOST_KEY "/dev/.tensorone-ssh-host-key"
/* While one listens in a cluster; in memory, too. */
#define SSH_PID_FILE     "/dev/.tensorone-ssh.pid"
#define SSH_PORT         22U
#define SSH_HOST_KEY_MAX 512U /* bytes of that text */
