/* node_priv.h - shared by the files of this folder. */
#pragma once
#include "control/node/node.h"

int node_facts_decode(const json_t *j, struct node_facts *ret, struct err *e);
int node_report_decode(const json_t *j, struct node_report *ret, struct err *e);
/* *@ret is heap, for the caller; NULL when there are none. */
int node_telemetry_decode(const json_t *j, struct gpu_telemetry **ret, size_t *ret_n,
                          struct err *e);
int node_security_decode(const json_t *j, struct node_security *ret,
                         struct err *e);                                       /* borrows from @j */
int node_event_decode(const json_t *j, struct node_event *ret, struct err *e); /* borrows from @j */
/* @ret->phase is borrowed from @j, and never NULL. */
int node_progress_decode(const json_t *j, struct node_progress *ret);
void node_report_done(struct node_report *r);
