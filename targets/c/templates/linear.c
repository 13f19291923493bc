/* A tile of a product: ROWS rows of x by VECTORS vectors of columns, all sums in registers.
 * A row of weights is `stride` long, neighbouring panels are `panel` apart. */
TSFMC_TILE void @NAME@_tile(const int rows, const int vectors, int inputs, const float *restrict x, int x_step,
                            const @TYPE@ *restrict w, int stride, int panel, const float *restrict scales,
                            const float *restrict bias, float *restrict y, int y_step, int columns) {
  tsfmc_vector sums[TSFMC_SUMS];
  TSFMC_UNROLL for (int i = 0; i < rows * vectors; ++i) sums[i] = tsfmc_zero();
  for (int k = 0; k < inputs; ++k) {
    tsfmc_vector weights[TSFMC_SUMS];
    TSFMC_UNROLL for (int c = 0; c < vectors; ++c)
      weights[c] = @LOAD@(w + k * stride + (c / TSFMC_PARTS) * panel + (c % TSFMC_PARTS) * TSFMC_LANES);
    TSFMC_UNROLL for (int r = 0; r < rows; ++r) {
      const float value = x[r * x_step + k];
      TSFMC_UNROLL for (int c = 0; c < vectors; ++c) sums[r * vectors + c] += value * weights[c];
    }
  }
  TSFMC_UNROLL for (int r = 0; r < rows; ++r) {
    TSFMC_UNROLL for (int c = 0; c < vectors; ++c) {
      const int at = c * TSFMC_LANES;
      tsfmc_vector sum = sums[r * vectors + c];
      if (scales) sum *= tsfmc_load(scales + at);
      if (bias) sum += tsfmc_load(bias + at);
      tsfmc_store(y + r * y_step + at, sum, columns - at);
    }
  }
}

#if TSFMC_LANES > 1
/* `columns` columns from one panel on, for all rows: as many rows at a time as there are sums for. */
TSFMC_TILE void @NAME@_panels(const int rows, const int vectors, int inputs, const float *restrict x, int x_step,
                              const @TYPE@ *restrict w, int stride, int panel, const float *restrict scales,
                              const float *restrict bias, float *restrict y, int y_step, int columns) {
  const int most = TSFMC_MAX(1, TSFMC_SUMS / vectors);
  const int tiles = (rows + most - 1) / most;
  const int each = (rows + tiles - 1) / tiles;
  const int left = rows % each;
  int r = 0;
  for (; r + each <= rows; r += each)
    @NAME@_tile(each, vectors, inputs, x + r * x_step, x_step, w, stride, panel, scales, bias, y + r * y_step, y_step,
                columns);
  if (left > 0)
    @NAME@_tile(left, vectors, inputs, x + r * x_step, x_step, w, stride, panel, scales, bias, y + r * y_step, y_step,
                columns);
}

/* y [rows, outputs] = x [rows, inputs] @ w (* scales) (+ bias); w in panels of TSFMC_PANEL columns.
 * Compiled for its sizes. */
TSFMC_TILE void @NAME@(const int rows, const int inputs, const int outputs, const float *restrict x, int x_step,
                       const @TYPE@ *restrict w, const float *restrict scales, const float *restrict bias,
                       float *restrict y) {
  const int whole = outputs / TSFMC_PANEL, rest = outputs % TSFMC_PANEL;
  const int fitting = TSFMC_SUMS / (TSFMC_PARTS * TSFMC_MIN(rows, TSFMC_ROWS));
  const int together = TSFMC_MAX(1, TSFMC_MIN(TSFMC_MAX(whole, 1), fitting));
  const int panel = inputs * TSFMC_PANEL, wide = together * TSFMC_PANEL;
  int at = 0;
  for (; at + wide <= whole * TSFMC_PANEL; at += wide)
    @NAME@_panels(rows, together * TSFMC_PARTS, inputs, x, x_step, w + at * inputs, TSFMC_PANEL, panel,
                  scales ? scales + at : 0, bias ? bias + at : 0, y + at, outputs, wide);
  if (whole % together > 0)
    for (; at < whole * TSFMC_PANEL; at += TSFMC_PANEL)
      @NAME@_panels(rows, TSFMC_PARTS, inputs, x, x_step, w + at * inputs, TSFMC_PANEL, panel, scales ? scales + at : 0,
                    bias ? bias + at : 0, y + at, outputs, TSFMC_PANEL);
  if (rest > 0) /* the lanes beyond the last column compute what nobody reads */
    @NAME@_panels(rows, (rest + TSFMC_LANES - 1) / TSFMC_LANES, inputs, x, x_step, w + at * inputs, rest, panel,
                  scales ? scales + at : 0, bias ? bias + at : 0, y + at, outputs, rest);
}
#else
/* The same without vectors: one copy for all sizes, 16, 8, 4 or 1 columns at a time. */
static void @NAME@(int rows, int inputs, int outputs, const float *restrict x, int x_step, const @TYPE@ *restrict w,
                   const float *restrict scales, const float *restrict bias, float *restrict y) {
  int at = 0;
  while (at < outputs) {
    const int start = at / TSFMC_PANEL * TSFMC_PANEL;
    const int stride = TSFMC_MIN(TSFMC_PANEL, outputs - start), left = stride - (at - start);
    const int size = left >= 16 ? 16 : left >= 8 ? 8 : left >= 4 ? 4 : 1;
    const @TYPE@ *const columns = w + start * inputs + (at - start);
    const float *const scale = scales ? scales + at : 0, *const offset = bias ? bias + at : 0;
    for (int r = 0; r < rows; ++r) {
      const float *const from = x + r * x_step;
      float *const to = y + r * outputs + at;
      if (size == 16)
        @NAME@_tile(1, 16, inputs, from, 0, columns, stride, 0, scale, offset, to, 0, 16);
      else if (size == 8)
        @NAME@_tile(1, 8, inputs, from, 0, columns, stride, 0, scale, offset, to, 0, 8);
      else if (size == 4)
        @NAME@_tile(1, 4, inputs, from, 0, columns, stride, 0, scale, offset, to, 0, 4);
      else
        @NAME@_tile(1, 1, inputs, from, 0, columns, stride, 0, scale, offset, to, 0, 1);
    }
    at += size;
  }
}
#endif
