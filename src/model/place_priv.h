/* place_priv.h - shared by place.c and place_gpu.c. */
#pragma once
#include "model/place.h"

/* The GPUs alone; PLACE_OK or PLACE_GPU. */
enum place_limit place_choose_gpus(const struct place_node *n, const struct place_want *w,
                                   struct place_choice *ret, struct err *e);
