/* Sum of numbers, in parts: as accurate as pairs, and it goes into vectors. */
static float tsfmc_total(const float *restrict x, int count) {
  float parts[TSFMC_PANEL] = {0.0F};
  int i = 0;
  for (; i + TSFMC_PANEL <= count; i += TSFMC_PANEL)
    for (int u = 0; u < TSFMC_PANEL; ++u) parts[u] += x[i + u];
  for (int u = 0; i + u < count; ++u) parts[u] += x[i + u];
  for (int half = TSFMC_PANEL / 2; half > 0; half /= 2)
    for (int u = 0; u < half; ++u) parts[u] += parts[u + half];
  return parts[0];
}
