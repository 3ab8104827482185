/* clusters.h - what the verbs about clusters share: which cluster is meant, and waiting for it. */
#pragma once
#include <jansson.h>
#include <stdbool.h>

#include "base/err.h"
#include "cli/api.h"

struct cli;

/* The fields that `get` asks for, as a selection set. */
extern const char cluster_selection[];

/* @word is an id or a name that one cluster only has; *@ret_id is the id, the caller's to free.
 * -ENOENT: none; -ENOTUNIQ: several, and their ids are in the message. */
int cluster_find(struct api *a, const char *word, char **ret_id, struct err *e);

/* Like cluster_find(), with every field of cluster_selection; new reference. */
int cluster_get(struct api *a, const char *word, json_t **ret, struct err *e);

/* All clusters of the account with cluster_selection; a list, new reference. */
int cluster_list(struct api *a, json_t **ret, struct err *e);

struct progress_state;
/* How far @c is, which has the fields of cluster_selection; borrows its texts. */
void cluster_progress(const json_t *c, struct progress_state *ret);

enum cluster_goal { GOAL_READY, GOAL_STOPPED };

/* Return when the cluster got there, showing its progress meanwhile (cli/out.h).  Asks the
 * API once a second.  -ECHILD with the cluster's own reason when it failed instead. */
int cluster_wait(struct api *a, const char *id, enum cluster_goal goal, struct err *e);

/* Say where its ports are reached from outside: a line for each web port and each published one.  Nothing for JSON. */
int cluster_report_reached(struct cli *c, const char *id, struct err *e);

/* Return when the host has answered a change of the cluster.  -EREMOTEIO with its reason when it was not
 * made. */
int cluster_wait_update(struct api *a, const char *id, struct err *e);

/* {"input":{"clusterId":@id}}; new reference, or NULL. */
json_t *cluster_input(const char *id);

/* "10m" (ago or ahead of now) or a time -> RFC 3339 text; @field is for the message. */
int time_text(const char *field, const char *word, bool ahead, char ret[static 32], struct err *e);
