/* erf(x), a ratio of polynomials on [-3.8328, 3.8328], beyond which it is 1 in float32. */
static inline float tsfmc_erf(float x) {
  const float b = tsfmc_min(tsfmc_max(x, -3.832506856900711F), 3.832506856900711F);
  const float s = b * b;
  float p = 0.00022905065861350646F, q = -1.1791602954361697e-7F;
  p = p * s + 0.0034082910107109506F;
  p = p * s + 0.050955695062380861F;
  p = p * s + 0.18520832239976145F;
  p = p * s + 1.128379143519084F;
  q = q * s + 0.000023547966471313185F;
  q = q * s + 0.0010179625278914885F;
  q = q * s + 0.014070470171167667F;
  q = q * s + 0.11098505178285362F;
  q = q * s + 0.49746925110067538F;
  q = q * s + 1.0F;
  return b * p / q;
}
