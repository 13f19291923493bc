/* Example and self-test: reads float32 windows from the first file, writes float32 forecasts to the second.
 *   cc main.c libtsfmc_model.a -lm -o predict && ./predict past.bin forecast.bin
 * Ends with 0, 1 (a kernel failed), 2 (a file) or 3 (this processor lacks a feature that the kernels use). */
#include "tsfmc_model.h"

#include <stdio.h>

static float past[TSFMC_INPUT_SIZE];
static float forecast[TSFMC_OUTPUT_SIZE];
static unsigned char scratch[TSFMC_SCRATCH_BYTES];

int main(int argc, char **argv) {
  if (argc != 3) {
    fprintf(stderr, "usage: %s past.bin forecast.bin\n", argv[0]);
    return 2;
  }
  const char *const missing = tsfmc_missing_cpu_feature();
  if (missing) {
    fprintf(stderr, "error: this processor has no %s, for which the forecaster was compiled\n", missing);
    return 3;
  }
  FILE *in = fopen(argv[1], "rb"), *out = fopen(argv[2], "wb");
  if (!in || !out) {
    perror(in ? argv[2] : argv[1]);
    return 2;
  }
  while (fread(past, sizeof past, 1, in) == 1) {
    if (tsfmc_forecast(past, forecast, scratch) != TSFMC_OK) {
      fprintf(stderr, "a kernel failed\n");
      return 1;
    }
    if (fwrite(forecast, sizeof forecast, 1, out) != 1) {
      perror(argv[2]);
      return 1;
    }
  }
  fclose(in);
  return fclose(out) == 0 ? 0 : 1;
}
