/* y [rows, outputs] = a [rows, inputs] @ b [inputs, outputs], rows of b dense. */
TSFMC_INLINE void product_rows(const int rows, const int inputs, const int outputs, const float *restrict a, int a_step,
                               const float *restrict b, int b_step, float *restrict y) {
  for (int r = 0; r < rows; ++r) {
    float *const row = y + r * outputs;
    for (int c = 0; c < outputs; ++c) row[c] = 0.0F;
    for (int k = 0; k < inputs; ++k) {
      const float value = a[r * a_step + k];
      for (int c = 0; c < outputs; ++c) row[c] += value * b[k * b_step + c];
    }
  }
}
