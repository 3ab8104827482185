/* ladder.h - how tensorone-api gives up what it does not need: see ladder.c. */
#pragma once
#include "base/err.h"

/* @data_dir is the store's directory.  To be called with one thread, when everything else that has a
 * name is open. */
int ladder_descend(const char *data_dir, struct err *e);
