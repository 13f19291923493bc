static inline float tsfmc_max(float a, float b) { return a > b ? a : b; }
static inline float tsfmc_min(float a, float b) { return a < b ? a : b; }
