/* A row of floats as whole numbers of at most `bits` bits, rounded, by integer arithmetic alone; returns the unit,
 * a power of two. */
static float tsfmc_to_int16(const float *restrict x, const int count, const int bits, int16_t *restrict q) {
  uint32_t largest = 0U, unit = 0U;
  float result;
  for (int i = 0; i < count; ++i) {
    uint32_t pattern;
    memcpy(&pattern, x + i, sizeof pattern);
    pattern &= 0x7FFFFFFFU;
    largest = pattern > largest ? pattern : largest;
  }
  const int top = (int)(largest >> 23); /* all are below 2^(top - 126) */
  const int32_t limit = ((int32_t)1 << bits) - 1;
  if (top >= bits) unit = (uint32_t)(top - bits + 1) << 23;
  for (int i = 0; i < count; ++i) {
    uint32_t pattern;
    memcpy(&pattern, x + i, sizeof pattern);
    const int exponent = (int)((pattern >> 23) & 0xFFU), shift = 24 - bits + top - exponent;
    int32_t value = 0;
    if (unit != 0U && exponent > 0 && shift < 25) {
      const uint32_t digits = (pattern & 0x7FFFFFU) | 0x800000U;
      value = (int32_t)((digits + (1U << (shift - 1))) >> shift);
      value = value > limit ? limit : value;
    }
    q[i] = (int16_t)((pattern >> 31) != 0U ? -value : value);
  }
  memcpy(&result, &unit, sizeof result);
  return result;
}

/* `columns` columns of one row: int16 times int8, summed in int32, which `bits` keeps from overflowing. */
TSFMC_TILE void linear_int16_tile(const int columns, int inputs, const int16_t *restrict q,
                                  const int8_t *restrict w, int stride, float unit, const float *restrict scales,
                                  const float *restrict bias, float *restrict y) {
  int32_t sums[8];
  TSFMC_UNROLL for (int c = 0; c < columns; ++c) sums[c] = 0;
  for (int k = 0; k < inputs; ++k) {
    const int32_t value = q[k];
    TSFMC_UNROLL for (int c = 0; c < columns; ++c) sums[c] += value * w[k * stride + c];
  }
  for (int c = 0; c < columns; ++c) y[c] = (float)sums[c] * (scales[c] * unit) + (bias ? bias[c] : 0.0F);
}

/* y [rows, outputs] = x [rows, inputs] @ w * scales (+ bias) in integers, for cores without a floating-point unit. */
static void linear_int16(int rows, int inputs, int outputs, const float *restrict x, int x_step,
                         const int8_t *restrict w, const float *restrict scales, const float *restrict bias,
                         float *restrict y, int bits, void *restrict scratch) {
  int16_t *const q = (int16_t *)scratch;
  for (int r = 0; r < rows; ++r) {
    const float unit = tsfmc_to_int16(x + r * x_step, inputs, bits, q);
    int size = 0;
    for (int at = 0; at < outputs; at += size) {
      const int start = at / TSFMC_PANEL * TSFMC_PANEL;
      const int stride = TSFMC_MIN(TSFMC_PANEL, outputs - start), left = stride - (at - start);
      const int8_t *const columns = w + start * inputs + (at - start);
      const float *const offset = bias ? bias + at : 0;
      float *const to = y + r * outputs + at;
      size = left >= 8 ? 8 : left >= 4 ? 4 : 1;
      if (size == 8)
        linear_int16_tile(8, inputs, q, columns, stride, unit, scales + at, offset, to);
      else if (size == 4)
        linear_int16_tile(4, inputs, q, columns, stride, unit, scales + at, offset, to);
      else
        linear_int16_tile(1, inputs, q, columns, stride, unit, scales + at, offset, to);
    }
  }
}
