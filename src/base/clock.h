/* clock.h - time in microseconds.  Decisions take `now` as an argument; only loops and programs
 * ask these. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#define US_PER_S  1000000ULL
#define US_PER_MS 1000ULL

uint64_t clock_mono_us(void);   /* CLOCK_MONOTONIC: durations and deadlines */
uint64_t clock_thread_us(void); /* what this thread has had of a processor */
uint64_t clock_wall_us(void);   /* CLOCK_REALTIME since 1970: what people and files see */

/* "2026-11-22T14:54:47.123456Z"; @buf holds at least 32 bytes. */
void clock_format(uint64_t wall_us, char *buf, size_t len);

/* RFC 3339 date and time with Z or an offset; also a bare "YYYY-MM-DD".  -EINVAL otherwise. */
int clock_parse(const char *s, uint64_t *ret_wall_us);
