/* What a shared object adds for a host: its shapes, scratch memory, and a check of the processor. */
#include "tsfmc_model.h"

#include <stdlib.h>
@INCLUDES@

TSFMC_API const char *tsfmc_missing_cpu_feature(void);
TSFMC_API int tsfmc_predict(const float *past, float *forecast);
TSFMC_API extern const int tsfmc_shape[4]; /* batch, variates, numbers of a row in and out */
const int tsfmc_shape[4] = {1, TSFMC_VARIATES, TSFMC_ROW, TSFMC_HORIZON * TSFMC_QUANTILES};

const char *tsfmc_missing_cpu_feature(void) {
@CPU_CHECKS@
  return 0;
}

#if TSFMC_SCRATCH_BYTES <= 65536 /* half of the smallest stack that a thread gets by default */
int tsfmc_predict(const float *past, float *forecast) {
  unsigned char scratch[TSFMC_SCRATCH_BYTES];
  return tsfmc_forecast(&tsfmc_student, past, forecast, scratch);
}
#else
int tsfmc_predict(const float *past, float *forecast) {
  void *const scratch = malloc(TSFMC_SCRATCH_BYTES);
  if (!scratch) return -3;
  const int status = tsfmc_forecast(&tsfmc_student, past, forecast, scratch);
  free(scratch);
  return status;
}
#endif
