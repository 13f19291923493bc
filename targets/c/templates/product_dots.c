/* y [rows, outputs] = a [rows, inputs] @ b [inputs, outputs], columns of b dense. */
TSFMC_INLINE void product_dots(const int rows, const int inputs, const int outputs, const float *restrict a, int a_step,
                               const float *restrict b, int b_step, float *restrict y) {
  for (int r = 0; r < rows; ++r) {
    for (int c = 0; c < outputs; ++c) {
      const float *const one = a + r * a_step, *const other = b + c * b_step;
      float parts[TSFMC_PANEL] = {0.0F}, sum = 0.0F;
      int k = 0;
      for (; k + TSFMC_PANEL <= inputs; k += TSFMC_PANEL)
        for (int u = 0; u < TSFMC_PANEL; ++u) parts[u] += one[k + u] * other[k + u];
      for (; k < inputs; ++k) sum += one[k] * other[k];
      y[r * outputs + c] = sum + tsfmc_total(parts, TSFMC_PANEL);
    }
  }
}
