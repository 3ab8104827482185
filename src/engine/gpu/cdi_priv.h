/* cdi_priv.h - what a spec is made of, as a table: reading, printing and freeing come from it. */
#pragma once
#include "engine/gpu/cdi.h"

enum cdi_field_kind { K_NONE, K_STR, K_STRV, K_U32, K_MODE, K_SUB, K_LIST, K_COUNT };

struct cdi_field {
        const char *name;
        enum cdi_field_kind kind;
        bool needed;
        size_t off, off_n, size; /* of the member, its count, one element */
        const struct cdi_field *sub;
        size_t n_sub;
};

extern const struct cdi_field cdi_spec_rows[], cdi_edit_rows[];
extern const size_t cdi_n_spec_rows, cdi_n_edit_rows;

/* The member at @off; const is the caller's business. */
void *cdi_at(const void *base, size_t off);
