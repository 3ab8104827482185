/* dbspace.h - room that a SQLite database in WAL mode holds ready for itself, so that its rows can
 * still be changed and removed when the file system is full: a cluster can always be stopped.
 *
 * It is kept in the two places that a commit writes to: blocks for the write-ahead log (allocated
 * beyond its end) and free pages within the database.  A file of ballast that is given up in need
 * would be taken by whoever fills the disk; this nobody else can use.  File systems that never write
 * in place (btrfs) keep no such promise. */
#pragma once
#include <sqlite3.h>

#include "base/err.h"

/* Make it so, where it is not and the disk has plenty of room.  @path: the database's file.  0: it is
 * there; -ENOSPC: not now.  Cheap when nothing is to be done, else a write of some MiB; never in a
 * transaction.  To be called after opening and now and then. */
int dbspace_keep(sqlite3 *db, const char *path, struct err *e);
