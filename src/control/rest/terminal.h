/* terminal.h - the files of the web terminal, put into the program by pages.py. */
#pragma once
#include <stddef.h>

struct page_file {
        const char *name, *type;
        const unsigned char *data;
        size_t len;
};
extern const struct page_file page_files[];
extern const size_t page_n_files;
