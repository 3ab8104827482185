/* log.h - one line per event on stderr: "<level> program: message".  Whoever stops an error logs
 * it, once.  Never pass a key, a password or a query string.  The only file-scope state beside a
 * program's main.c. */
#pragma once

enum log_level { LOG_LVL_ERROR, LOG_LVL_WARN, LOG_LVL_INFO, LOG_LVL_DEBUG, LOG_LVL_COUNT };

/* @program is borrowed for the life of the process.  With $JOURNAL_STREAM set the level is
 * written as a <N> prefix that journald understands. */
void log_init(const char *program, enum log_level max);

void log_msg(enum log_level lvl, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...) log_msg(LOG_LVL_ERROR, __VA_ARGS__)
#define log_warn(...)  log_msg(LOG_LVL_WARN, __VA_ARGS__)
#define log_info(...)  log_msg(LOG_LVL_INFO, __VA_ARGS__)
#define log_debug(...) log_msg(LOG_LVL_DEBUG, __VA_ARGS__)

/* "error", "warning", "info", "debug" -> level; -1 for anything else. */
int log_level_parse(const char *name);
