/* hash.h - a keyed hash for tables that strangers fill: without the key nobody can aim at one bucket. */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <string.h>

__extension__ typedef unsigned __int128 hash_wide;

static inline uint64_t hash_mix(uint64_t a, uint64_t b)
{
        hash_wide m = (hash_wide) a * b;

        return (uint64_t) m ^ (uint64_t) (m >> 64);
}

static inline uint64_t hash_bytes(const uint64_t key[static 2], const char *s, size_t len)
{
        uint64_t h = key[0] ^ len, w;

        for (; len >= 8; s += 8, len -= 8) {
                memcpy(&w, s, 8);
                h = hash_mix(h ^ w, key[1] | 1);
        }
        w = 0;
        if (len > 0)
                memcpy(&w, s, len);
        h = hash_mix(h ^ w, key[1] | 1);
        return hash_mix(h ^ key[0], 0x9e3779b97f4a7c15ULL);
}
