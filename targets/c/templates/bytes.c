/* int8 weights as floats. */
#if TSFMC_LANES > 1
typedef int8_t tsfmc_bytes __attribute__((vector_size(TSFMC_LANES)));

TSFMC_TILE tsfmc_vector tsfmc_load_bytes(const int8_t *from) {
  tsfmc_bytes value;
  memcpy(&value, from, sizeof value);
  return __builtin_convertvector(value, tsfmc_vector);
}
#else
TSFMC_TILE tsfmc_vector tsfmc_load_bytes(const int8_t *from) { return (float)*from; }
#endif
