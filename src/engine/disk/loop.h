/* loop.h - loop devices.  Root; blocks for a moment. */
#pragma once
#include "base/err.h"

#define LOOP_DIRECT    1U /* past the page cache of the file, where its file system can */
#define LOOP_READ_ONLY 2U

#define LOOP_PATH_BYTES 32U

/* A free loop device on @fd, with autoclear: returns its descriptor and path; when the last descriptor
 * of it and the last mount from it are gone, the kernel frees it. */
int loop_attach(int fd, unsigned flags, char ret_path[static LOOP_PATH_BYTES], struct err *e);
