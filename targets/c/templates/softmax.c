/* Softmax of each row. */
TSFMC_INLINE void softmax(const int rows, const int size, const float *restrict x, float *restrict y) {
  for (int r = 0; r < rows; ++r) {
    float largest = x[r * size], sum = 0.0F;
    for (int i = 1; i < size; ++i) largest = tsfmc_max(largest, x[r * size + i]);
    for (int i = 0; i < size; ++i) y[r * size + i] = tsfmc_exp(x[r * size + i] - largest);
    for (int i = 0; i < size; ++i) sum += y[r * size + i];
    for (int i = 0; i < size; ++i) y[r * size + i] /= sum;
  }
}
