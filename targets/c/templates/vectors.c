/* Vectors of the processor, through the compiler's portable vector types: AVX-512, AVX, SSE, NEON, Helium.
 * Elsewhere, and with TSFMC_SCALAR defined, a vector is one float. */
#if defined(TSFMC_SCALAR) || !defined(__GNUC__)
#define TSFMC_LANES 1
#elif defined(__AVX512F__)
#define TSFMC_LANES 16
#elif defined(__AVX__)
#define TSFMC_LANES 8
#elif defined(__SSE2__) || defined(__aarch64__) || (defined(__ARM_FEATURE_MVE) && (__ARM_FEATURE_MVE & 2))
#define TSFMC_LANES 4
#else
#define TSFMC_LANES 1
#endif

#define TSFMC_PANEL @PANEL@
#define TSFMC_PARTS (TSFMC_PANEL / TSFMC_LANES)
#define TSFMC_MAX(a, b) ((a) > (b) ? (a) : (b))
#define TSFMC_MIN(a, b) ((a) < (b) ? (a) : (b))

/* How many vectors of sums the registers hold beside weights and a value. */
#if defined(__AVX512F__) || defined(__aarch64__)
#define TSFMC_SUMS 24
#elif TSFMC_LANES == 1
#define TSFMC_SUMS 16
#elif defined(__ARM_FEATURE_MVE)
#define TSFMC_SUMS 4
#else
#define TSFMC_SUMS 12
#endif

/* Rows of a tile: more of them read no fewer weights from the nearest cache, but more rows of x. */
#define TSFMC_ROWS 8

#if defined(__clang__)
#define TSFMC_UNROLL _Pragma("clang loop unroll(full)")
#elif defined(__GNUC__)
#define TSFMC_UNROLL _Pragma("GCC unroll 32")
#else
#define TSFMC_UNROLL
#endif

/* With vectors a product is compiled for its sizes; without, one copy serves all: flash is scarce there. */
#if defined(__GNUC__)
#define TSFMC_TILE static inline __attribute__((always_inline))
#else
#define TSFMC_TILE static inline
#endif
#if TSFMC_LANES > 1
#define TSFMC_INLINE TSFMC_TILE
#else
#define TSFMC_INLINE static
#endif

#if TSFMC_LANES > 1
typedef float tsfmc_vector __attribute__((vector_size(TSFMC_LANES * 4)));

TSFMC_TILE tsfmc_vector tsfmc_zero(void) { return (tsfmc_vector){0.0F}; }

TSFMC_TILE tsfmc_vector tsfmc_load(const float *from) {
  tsfmc_vector value;
  memcpy(&value, from, sizeof value);
  return value;
}

/* At most `count` lanes. */
TSFMC_TILE void tsfmc_store(float *to, tsfmc_vector value, const int count) {
  memcpy(to, &value, (size_t)TSFMC_MIN(count, TSFMC_LANES) * sizeof(float));
}
#else
typedef float tsfmc_vector;
TSFMC_TILE tsfmc_vector tsfmc_zero(void) { return 0.0F; }
TSFMC_TILE tsfmc_vector tsfmc_load(const float *from) { return *from; }
TSFMC_TILE void tsfmc_store(float *to, tsfmc_vector value, const int count) {
  (void)count;
  *to = value;
}
#endif
