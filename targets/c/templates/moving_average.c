/* Mean of `kernel` neighbours; `size` results of each row of size + kernel - 1 numbers. */
TSFMC_INLINE void moving_average(const int rows, const int size, const int kernel, const float *restrict x,
                                 float *restrict y) {
  for (int r = 0; r < rows; ++r) {
    const float *const from = x + r * (size + kernel - 1);
    float *const to = y + r * size;
    for (int i = 0; i < size; ++i) to[i] = from[i];
    for (int k = 1; k < kernel; ++k)
      for (int i = 0; i < size; ++i) to[i] += from[i + k];
    for (int i = 0; i < size; ++i) to[i] /= (float)kernel;
  }
}
