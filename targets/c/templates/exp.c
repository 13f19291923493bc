/* exp(x) within 2 units of the last place: x = n ln 2 + r, exp(r) by a polynomial (Cephes, expf).
 * Without branches, so that loops of it go into vectors. */
static inline float tsfmc_exp(float x) {
  const float bounded = x < -87.0F ? -87.0F : x > 88.0F ? 88.0F : x;
  const float scaled = bounded * 1.44269504F + 12582912.0F; /* 1.5 * 2^23: rounds to whole numbers */
  const float n = scaled - 12582912.0F;
  const float r = (bounded - n * 0.693359375F) + n * 2.12194440e-4F;
  float p = 1.9875691500e-4F;
  p = p * r + 1.3981999507e-3F;
  p = p * r + 8.3334519073e-3F;
  p = p * r + 4.1665795894e-2F;
  p = p * r + 1.6666665459e-1F;
  p = p * r + 5.0000001201e-1F;
  p = p * r * r + r + 1.0F;
  const int32_t exponent = ((int32_t)n + 127) * 8388608;
  float power;
  memcpy(&power, &exponent, sizeof power);
  return p * power;
}
