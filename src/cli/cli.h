/* cli.h - the command line as two tables: options and verbs.
 *
 * A row feeds parsing, --help, the manual page and the three shells' completion, so a new verb is
 * one row in verbs.c and one function.  Everything in src/cli runs in `tensoronecli`, as the user,
 * in one thread; functions may block on the network unless their comment says otherwise. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/mem.h"

#define CLI_PROGRAM "tensoronecli"

enum opt_kind {
        OPT_KIND_NONE,
        OPT_KIND_BOOL, /* --x, --x=true, --x=false */
        OPT_KIND_STR,
        OPT_KIND_INT,   /* whole number within [min, max] */
        OPT_KIND_FLOAT, /* not negative, finite */
        OPT_KIND_LIST,  /* may be repeated; each use adds one element */
        OPT_KIND_COUNT
};

enum opt_id {
        OPT_NONE,
        OPT_HELP,
        OPT_OUTPUT,
        OPT_CA,
        OPT_API_KEY,
        OPT_API_URL,
        OPT_CA_FINGERPRINT,
        OPT_GPU_TYPE,
        OPT_IMAGE_NAME,
        OPT_NAME,
        OPT_CONTAINER_DISK,
        OPT_VOLUME_SIZE,
        OPT_VOLUME_PATH,
        OPT_MEM,
        OPT_VCPU,
        OPT_GPU_COUNT,
        OPT_ARGS,
        OPT_ENV,
        OPT_PORTS,
        OPT_COST,
        OPT_SECURE_CLOUD,
        OPT_COMMUNITY_CLOUD,
        OPT_TEMPLATE_ID,
        OPT_NETWORK_VOLUME,
        OPT_DATA_CENTER,
        OPT_START_SSH,
        OPT_COMPUTE_TYPE,
        OPT_STOP_AFTER,
        OPT_TERMINATE_AFTER,
        OPT_CLUSTER_COUNT,
        OPT_WAIT,
        OPT_NEW_GPU_COUNT,
        OPT_NEW_VCPU,
        OPT_NEW_MEM,
        OPT_NEW_CONTAINER_DISK,
        OPT_NEW_VOLUME_SIZE,
        OPT_SEEN_VERSION,
        OPT_ALL_FIELDS,
        OPT_BID,
        OPT_RESUME_GPU_COUNT,
        OPT_FOLLOW,
        OPT_TAIL,
        OPT_SINCE,
        OPT_TIMESTAMPS,
        OPT_STREAM,
        OPT_STDIN,
        OPT_TTY,
        OPT_EXEC_ENV,
        OPT_USER,
        OPT_CWD,
        OPT_URL_PATH,
        OPT_PUBLIC,
        OPT_FORCE,
        OPT_REGISTRY_AUTH,
        OPT_SECURITY_PROFILE,
        OPT_READINESS_PATH,
        OPT_EGRESS,
        OPT_ALLOWED_IPS,
        OPT_IDLE_TIMEOUT,
        OPT_IDLE_ACTION,
        OPT_REGISTRY_USER,
        OPT_SECRET_FILE,
        OPT_SECRET_TEXT,
        OPT_CLOUD_COMMUNITY,
        OPT_CLOUD_SECURE,
        OPT_CLOUD_DISK,
        OPT_CLOUD_MEM,
        OPT_CLOUD_VCPU,
        OPT_TOPO,
        OPT_P2P,
        OPT_VFIO,
        OPT_TIMES,
        OPT_INTERVAL,
        OPT_EVENT_KIND,
        OPT_EVENT_SINCE,
        OPT_LIMIT,
        OPT_SSH_KEY,
        OPT_SSH_KEY_FILE,
        OPT_SSH_KEY_NAME,
        OPT_SSH_FINGERPRINT,
        OPT_SSH_LOCAL,
        OPT_SSH_REMOTE,
        OPT_SSH_DYNAMIC,
        OPT_SSH_NOTHING,
        OPT_COUNT
};

struct option {
        const char *name; /* long name, without dashes */
        char letter;      /* short name or '\0' */
        enum opt_kind kind;
        const char *arg;    /* what the argument is, for people; NULL for OPT_KIND_BOOL */
        const char *preset; /* value when not given, as text; NULL: none */
        uint64_t min, max;  /* OPT_KIND_INT */
        const char *words;  /* the allowed values, blank-separated; NULL: anything */
        const char *help;   /* one sentence, no full stop */
};

struct opt_value {
        bool given;
        bool b;
        uint64_t n;
        double f;
        const char *s; /* borrowed from argv or from the table */
        char **list;   /* owned */
};

/* What an operand is, for completion. */
enum operand_kind {
        OPERAND_NONE,
        OPERAND_CLUSTER,
        OPERAND_IMAGE,
        OPERAND_GPU,
        OPERAND_FILE,
        OPERAND_SHELL
};

struct cli;

struct verb {
        const char *word;     /* "create" */
        const char *noun;     /* "clusters", or NULL for a verb of one word */
        const char *alias;    /* another spelling of the noun, or NULL */
        const char *operands; /* "[ID]", for people; "" for none */
        size_t min, max;      /* operands; max SIZE_MAX: any number */
        enum operand_kind complete;
        bool hidden;    /* not in lists and completion */
        bool needs_api; /* c->api is set before @run */
        bool maybe;     /* @command may be missing */
        bool command;   /* what follows the first operand or "--" is a command of the user's */
        const enum opt_id *opts; /* ends with OPT_NONE; the global ones are implied */
        /* >= 0: the exit status of the program; < 0: *e is printed and the status is 1 */
        int (*run)(struct cli *c, struct err *e);
        const char *summary;  /* one line, no full stop */
        const char *detail;   /* one paragraph or NULL */
        const char *examples; /* lines without the prompt, or NULL */
};

extern const struct option options[OPT_COUNT];
extern const enum opt_id global_options[]; /* of every verb; ends with OPT_NONE */
bool option_is_global(enum opt_id id);
extern const struct verb verbs[];
extern const size_t n_verbs;

struct api;

/* One invocation. */
struct cli {
        const struct verb *verb; /* NULL: no verb was given */
        struct opt_value opt[OPT_COUNT];
        char **operands; /* borrowed from argv */
        size_t n_operands;
        char **command; /* borrowed; NULL-terminated; only for verbs that take one */
        bool help, version;
        const char *group; /* borrowed: help for the verbs that begin with this word; or NULL */
        struct api *api;
};

static inline bool cli_json(const struct cli *c)
{
        return c->opt[OPT_OUTPUT].s && strcmp(c->opt[OPT_OUTPUT].s, "json") == 0;
}

/* Parse the words after the program's name.  @argv must stay; it is permuted.  -EINVAL with a
 * sentence that names the word and, where one is close, what was probably meant.  Never blocks. */
int cli_parse(struct cli *c, int argc, char **argv, struct err *e);
void cli_done(struct cli *c);

/* Parse and run.  Returns the exit status; errors are printed on stderr here and nowhere else. */
int cli_main(int argc, char **argv);

/* The row for @word and @noun (alias or name), or NULL.  @noun may be NULL. */
const struct verb *verb_find(const char *word, const char *noun);
/* "create clusters", into @buf. */
const char *verb_title(const struct verb *v, char *buf, size_t len);
/* Whether @v takes @id, the global options included. */
bool verb_takes(const struct verb *v, enum opt_id id);

/* Print to stdout; what could not be written is an error like any other. */
int out_printf(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int out_json(const void *json, struct err *e); /* json_t *, indented, newline at the end */

/* One sentence on stderr, "Error: " in front, control characters made harmless. */
void out_error(const char *msg);

/* The same without that, for what is no error. */
void out_note(const char *msg);

/* The verbs' functions, one file each. */
int cmd_config(struct cli *c, struct err *e);
int cmd_create(struct cli *c, struct err *e);
int cmd_get(struct cli *c, struct err *e);
int cmd_get_cloud(struct cli *c, struct err *e);
int cmd_get_gpus(struct cli *c, struct err *e);
int cmd_get_events(struct cli *c, struct err *e);
int cmd_gpu_release(struct cli *c, struct err *e);
int cmd_top(struct cli *c, struct err *e);
int cmd_start(struct cli *c, struct err *e);
int cmd_stop(struct cli *c, struct err *e);
int cmd_restart(struct cli *c, struct err *e);
int cmd_update(struct cli *c, struct err *e);
int cmd_remove(struct cli *c, struct err *e);
int cmd_remove_named(struct cli *c, struct err *e);
int cmd_logs(struct cli *c, struct err *e);
int cmd_exec(struct cli *c, struct err *e);
int cmd_image_import(struct cli *c, struct err *e);
int cmd_image_pull(struct cli *c, struct err *e);
int cmd_image_ls(struct cli *c, struct err *e);
int cmd_image_rm(struct cli *c, struct err *e);
int cmd_secret_create(struct cli *c, struct err *e);
int cmd_get_secrets(struct cli *c, struct err *e);
int cmd_secret_remove(struct cli *c, struct err *e);
int cmd_registry_create(struct cli *c, struct err *e);
int cmd_registry_update(struct cli *c, struct err *e);
int cmd_registry_ls(struct cli *c, struct err *e);
int cmd_registry_rm(struct cli *c, struct err *e);
int cmd_template_create(struct cli *c, struct err *e);
int cmd_template_ls(struct cli *c, struct err *e);
int cmd_template_get(struct cli *c, struct err *e);
int cmd_template_rm(struct cli *c, struct err *e);
int cmd_version(struct cli *c, struct err *e);
int cmd_completion(struct cli *c, struct err *e);
int cmd_man(struct cli *c, struct err *e);
int cmd_complete(struct cli *c, struct err *e);
int cmd_ssh(struct cli *c, struct err *e);
int cmd_ssh_connect(struct cli *c, struct err *e);
int cmd_ssh_config(struct cli *c, struct err *e);
int cmd_open(struct cli *c, struct err *e);
int cmd_ssh_add_key(struct cli *c, struct err *e);
int cmd_ssh_list_keys(struct cli *c, struct err *e);
int cmd_ssh_remove_key(struct cli *c, struct err *e);
