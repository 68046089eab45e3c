/*
 * talker/predictor.h - the code predictor: codes 1 .. groups-1 of a frame from the Talker's hidden
 * state and code 0 (private to talker/).
 *
 * A small decoder that starts afresh for every frame and runs groups - 1 dependent passes. Codes
 * and the number of the draw stay in device memory, so nothing waits for the host inside a frame.
 */
#ifndef PARLEY_TALKER_PREDICTOR_H
#define PARLEY_TALKER_PREDICTOR_H

#include "model/model.h"

struct predictor;

/* `s` is copied. 0 or -ENOMEM. */
int predictor_open(struct predictor **ret, const struct model *model, struct device *device,
                   const struct sampling *s, struct problems *why);

/* codes[1 .. groups-1] from hidden[hidden] and codes[0]; all in device memory. */
void predictor_frame(struct predictor *p, int32_t *codes, const float *hidden, uint64_t *draw);

size_t predictor_bytes(const struct model *model);

void predictor_close(struct predictor *p); /* NULL is legal */

#endif
