/* args.h - dockerArgs and environment lists, as clients write them.  Pure. */
#pragma once
#include <stdbool.h>

#include "base/err.h"

/* A command line (split as a shell splits words) or a JSON object {"cmd": [..], "entrypoint":
 * [..]}.  Outputs are vectors that the caller frees, NULL where nothing was said; *@ret_set says
 * that the command was given, possibly empty.  -EINVAL, -E2BIG with *e. */
int docker_args_parse(const char *s, char ***ret_entrypoint, char ***ret_command, bool *ret_set,
                      struct err *e);

/* An image reference as a user writes it; messages begin with "imageName: ". */
/* A request's wishes for the host's driver, as "12.4"; empty ones are none. */
struct cuda_wish {
        const char *least[2]; /* minCudaVersion, cudaVersion: at least this */
        char *const *allowed; /* allowedCudaVersions: one of these; NULL: any */
};
/* @have: the host's, NULL: it has none.  -EINVAL: what is wished for is no version; -ENOSPC: the host's
 * does not do; *@e has the sentence. */
int cuda_check(const struct cuda_wish *w, const char *have, struct err *e);

int image_check(const char *image, struct err *e);

/* At most LIMIT_ENV_ENTRIES, names made of letters, digits and _ . -, no line longer than the
 * kernel passes on. */
int env_check(char *const *env, struct err *e);

/* @base with @over on top, in a fresh vector; either may be NULL.  -ENOMEM. */
int env_merge(char *const *base, char *const *over, char ***ret);
