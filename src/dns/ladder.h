/* ladder.h - how vmm-dns gives up what answering for names does not need: see ladder.c. */
#pragma once
#include "base/err.h"

/* To be called with one thread, before a tenant's byte is read. */
int ladder_descend(struct err *e);
