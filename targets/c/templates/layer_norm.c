/* (x - mean) / sqrt(variance + epsilon) * gain + offset of each row; the variance of the centred row. */
TSFMC_INLINE void layer_norm(const int rows, const int size, const float *restrict x, float epsilon,
                             const float *restrict gain, const float *restrict offset, float *restrict y) {
  for (int r = 0; r < rows; ++r) {
    const float *const from = x + r * size;
    float *const to = y + r * size;
    const float mean = tsfmc_total(from, size) / (float)size;
    for (int i = 0; i < size; ++i) to[i] = (from[i] - mean) * (from[i] - mean);
    const float factor = 1.0F / sqrtf(tsfmc_total(to, size) / (float)size + epsilon);
    for (int i = 0; i < size; ++i) to[i] = (from[i] - mean) * factor * gain[i];
    if (offset)
      for (int i = 0; i < size; ++i) to[i] += offset[i];
  }
}
