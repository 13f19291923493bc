/* Example: reads float32 windows from the first file, writes float32 forecasts to the second, both scaled.
 *   make, and then in the folder that the Makefile names:
 *   ./predict past.bin forecast.bin
 *   ./predict --selftest
 * Ends with 0, 1 (the forecaster refused), 2 (a file) or 3 (the self-test failed). */
#include "tsfmc_model.h"

#include <stdio.h>
#include <string.h>

static float past[TSFMC_INPUT_SIZE];
static float forecast[TSFMC_OUTPUT_SIZE];
static unsigned char scratch[TSFMC_SCRATCH_BYTES];

int main(int argc, char **argv) {
  if (argc == 2 && strcmp(argv[1], "--selftest") == 0) {
    const int status = tsfmc_selftest(&tsfmc_student, past, forecast, scratch);
    printf("self-test: %d\n", status);
    return status == TSFMC_OK ? 0 : 3;
  }
  if (argc != 3) {
    fprintf(stderr, "usage: %s past.bin forecast.bin | --selftest\n", argv[0]);
    return 2;
  }
  FILE *const in = fopen(argv[1], "rb"), *const out = in ? fopen(argv[2], "wb") : NULL;
  if (!in || !out) {
    perror(in ? argv[2] : argv[1]);
    if (in) fclose(in);
    return 2;
  }
  int result = 0;
  while (result == 0 && fread(past, sizeof past, 1, in) == 1) {
    const int status = tsfmc_forecast(&tsfmc_student, past, forecast, scratch);
    if (status != TSFMC_OK) {
      fprintf(stderr, "tsfmc_forecast: %d\n", status);
      result = 1;
    } else if (fwrite(forecast, sizeof forecast, 1, out) != 1) {
      perror(argv[2]);
      result = 2;
    }
  }
  fclose(in);
  return fclose(out) == 0 ? result : 2;
}
