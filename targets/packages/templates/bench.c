/* Measures the artifact that it is linked with, by the rule of run.py bench, on a device without Python:
 *   ./bench [seconds] > latency.json        and at home:  tsfmc bench ARTIFACT --record latency.json
 * It writes times as they were measured; what they say is worked out at home, as for every other record.
 * Ends with 0, 1 (the forecaster refused), 2 (a file or memory) or 3 (this processor lacks a feature). */
#include "bench_case.h"
#include "tsfmc_model.h"

#include <ctype.h>
#include <math.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

enum { LEAST_CALLS = 4, MAX_CALLS = 4096, MAX_ROUNDS = 4096, EMPTY_TURNS = 9, QUERIES = 64, TEXT = 4096 };
enum { WARM_UP_CALLS = 50, LEAST_WARM_UP = 5, MOST_SAMPLES = 1 << 20 };
static const double SLICE_S = 0.02, SETTLE_S = 0.002, SETTLED_S = 0.02, SLOW_S = 0.25;
static const double WARM_UP_S = 0.5, LONGEST_WARM_UP_S = 2.0;

static float windows[CASE_WINDOWS][TSFMC_INPUT_SIZE];
static float past[CASE_SELFTESTS][TSFMC_INPUT_SIZE], expected[CASE_SELFTESTS][TSFMC_OUTPUT_SIZE];
static float forecast[TSFMC_OUTPUT_SIZE];
static unsigned char scratch[TSFMC_SCRATCH_BYTES];

typedef struct {
  long settle, calls, rounds, place, room, used;
  uint64_t *wall; /* [rounds][calls] */
  double *cpu;    /* [rounds] */
} turns;

static void fail(int code, const char *what) {
  fprintf(stderr, "bench: %s\n", what);
  exit(code);
}

static uint64_t now(clockid_t clock) {
  struct timespec time;
  clock_gettime(clock, &time);
  return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static void call(const float *window) {
  int status;
#ifdef TSFMC_SCHEMA
  status = tsfmc_forecast(&tsfmc_student, window, forecast, scratch);
#else
  status = tsfmc_forecast(window, forecast, scratch);
#endif
  if (status != TSFMC_OK) fail(1, "the forecaster refused a window");
}

static void nothing(const float *window) { (void)window; }

static int ascending(const void *left, const void *right) {
  const uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
  return (a > b) - (a < b);
}

static uint64_t median(uint64_t *values, long count) {
  qsort(values, (size_t)count, sizeof *values, ascending);
  return count % 2 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

/* A turn: calls that do not count, then calls that do; returns their processor time with the clock's own. */
static uint64_t take_turn(void (*candidate)(const float *), turns *turn, uint64_t *samples) {
  for (long settle = 0; settle < turn->settle; settle++) candidate(windows[turn->place++ % CASE_WINDOWS]);
  const uint64_t cpu = now(CLOCK_PROCESS_CPUTIME_ID);
  for (long number = 0; number < turn->calls; number++) {
    const float *const window = windows[turn->place++ % CASE_WINDOWS];
    const uint64_t began = now(CLOCK_MONOTONIC);
    candidate(window);
    samples[number] = now(CLOCK_MONOTONIC) - began;
  }
  return now(CLOCK_PROCESS_CPUTIME_ID) - cpu;
}

static double empty_turn(long calls, uint64_t *samples) {
  uint64_t found[EMPTY_TURNS];
  for (int number = 0; number < EMPTY_TURNS; number++) {
    turns turn = {.calls = calls};
    found[number] = take_turn(nothing, &turn, samples);
  }
  return (double)median(found, EMPTY_TURNS);
}

/* Rounds for `seconds`, and until there are QUERIES calls.  `evicted` is read and written before each. */
static void run_rounds(turns *turn, double seconds, uint64_t *evicted, size_t evict_words) {
  static uint64_t samples[MAX_CALLS];
  const double empty = empty_turn(turn->calls, samples);
  const long least = (QUERIES + turn->calls - 1) / turn->calls;
  const uint64_t until = now(CLOCK_MONOTONIC) + (uint64_t)(seconds * 1e9);
  turn->cpu = malloc((size_t)(least > MAX_ROUNDS ? least : MAX_ROUNDS) * sizeof *turn->cpu);
  if (!turn->cpu) fail(2, "out of memory");
  for (turn->rounds = 0; turn->rounds < MAX_ROUNDS; turn->rounds++) {
    if (turn->rounds >= least && (now(CLOCK_MONOTONIC) >= until || turn->used >= MOST_SAMPLES)) break;
    for (size_t word = 0; word < evict_words; word++) evicted[word]++;
    const double cpu = (double)take_turn(call, turn, samples) - empty;
    turn->cpu[turn->rounds] = (cpu > 0 ? cpu : 0) / (double)turn->calls;
    if (turn->used + turn->calls > turn->room) {
      turn->room = 2 * (turn->used + turn->calls);
      turn->wall = realloc(turn->wall, (size_t)turn->room * sizeof *turn->wall);
      if (!turn->wall) fail(2, "out of memory");
    }
    memcpy(turn->wall + turn->used, samples, (size_t)turn->calls * sizeof *samples);
    turn->used += turn->calls;
  }
}

/* Usual time of a call in seconds, less what other programs took of it; `calls` becomes how many there were. */
static double warm_up(long *calls) {
  static uint64_t wall[MOST_SAMPLES], cpu[MOST_SAMPLES];
  const uint64_t start = now(CLOCK_MONOTONIC);
  long count = 0;
  for (;;) {
    const double passed = (double)(now(CLOCK_MONOTONIC) - start) / 1e9;
    if (count >= WARM_UP_CALLS && passed >= WARM_UP_S) break;
    if ((count >= LEAST_WARM_UP && passed >= LONGEST_WARM_UP_S) || count == MOST_SAMPLES) break;
    const uint64_t cpu_began = now(CLOCK_PROCESS_CPUTIME_ID), began = now(CLOCK_MONOTONIC);
    call(windows[count % CASE_WINDOWS]);
    wall[count] = now(CLOCK_MONOTONIC) - began;
    cpu[count] = now(CLOCK_PROCESS_CPUTIME_ID) - cpu_began;
    count++;
  }
  *calls = count;
  const long half = count / 2;
  uint64_t typical = median(cpu + half, count - half);
  if (!typical) typical = median(wall + half, count - half);
  return (double)(typical ? typical : 1) / 1e9;
}

/* The first line of a file, or the rest of its first line "name : rest"; null where there is none. */
static const char *line_of(const char *file, const char *name) {
  static char line[TEXT];
  FILE *const in = fopen(file, "r");
  const char *found = NULL;
  while (in && !found && fgets(line, sizeof line, in)) {
    line[strcspn(line, "\n")] = 0;
    const size_t length = name ? strlen(name) : 0;
    if (!name) {
      found = line;
    } else if (strncmp(line, name, length) == 0 && strchr("\t :", line[length])) {
      found = strchr(line, ':');
      if (found) found += 1 + strspn(found + 1, " \t");
    }
  }
  if (in) fclose(in);
  return found;
}

static void print_text(const char *text) {
  if (!text) {
    printf("null");
    return;
  }
  putchar('"');
  for (; *text; text++)
    if (*text == '"' || *text == '\\') printf("\\%c", *text);
    else if (isprint((unsigned char)*text) && (unsigned char)*text < 128) putchar(*text);
  putchar('"');
}

static long cache_kib(void) {
  long most = 0;
  for (int index = 0; index < 10; index++) {
    char path[96];
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/size", index);
    const char *const size = line_of(path, NULL);
    if (size && atol(size) > most) most = atol(size);
  }
  return most;
}

/* What runs this program in the place of a processor, or null.  An emulator answers for the program's own
 * files, but its process has its own name, and the processor that the system tells of is another kind. */
static const char *emulator(const char *machine) {
  static char path[TEXT];
  const ssize_t length = readlink("/proc/thread-self/exe", path, sizeof path - 1);
  path[length > 0 ? length : 0] = 0;
  const char *const slash = strrchr(path, '/'), *const own = slash ? slash + 1 : path;
  if (strncmp(own, "qemu", 4) == 0) return own;
  const char *name = line_of("/proc/self/status", "Name");
  if (name && strncmp(name, "qemu", 4) == 0) return strcpy(path, name);
  const int x86 = strcmp(machine, "x86_64") == 0 || (machine[0] == 'i' && strcmp(machine + 2, "86") == 0);
  if (!x86 && line_of("/proc/cpuinfo", "vendor_id")) return "unknown";
  return NULL;
}

static void print_host(void) {
  static const char *const flags[] = {CASE_FLAGS};
  static char listed[TEXT];
  struct utsname system;
  if (uname(&system) != 0) fail(2, "uname");
  printf("\"host\": {\"board\": ");
  print_text(line_of("/proc/device-tree/model", NULL));
  printf(", \"cpu\": ");
  const char *cpu = line_of("/proc/cpuinfo", "model name");
  if (!cpu) cpu = line_of("/proc/cpuinfo", "Model");
  print_text(cpu ? cpu : line_of("/proc/cpuinfo", "Hardware"));
  const char *found = line_of("/proc/cpuinfo", "flags");
  if (!found) found = line_of("/proc/cpuinfo", "Features");
  snprintf(listed, sizeof listed, " %s ", found ? found : "");
  printf(", \"flags\": [");
  for (size_t flag = 0, printed = 0; flag < sizeof flags / sizeof *flags; flag++) {
    char word[32];
    snprintf(word, sizeof word, " %s ", flags[flag]);
    if (strstr(listed, word)) printf("%s\"%s\"", printed++ ? ", " : "", flags[flag]);
  }
  printf("], \"machine\": ");
  print_text(system.machine);
  printf(", \"system\": ");
  print_text(system.sysname);
  printf(", \"cores\": %ld, \"governor\": ", sysconf(_SC_NPROCESSORS_ONLN));
  print_text(line_of("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", NULL));
  printf(", \"emulator\": ");
  print_text(emulator(system.machine));
  printf(", \"packages\": {}}");
}

static double largest(const float *values, long count) {
  double most = 0;
  for (long place = 0; place < count; place++)
    if (fabs((double)values[place]) > most) most = fabs((double)values[place]);
  return most;
}

static void print_selftest(void) {
  double max_abs = 0, max_rel = 0;
  for (int window = 0; window < CASE_SELFTESTS; window++) {
    call(past[window]);
    double error = 0;
    for (long place = 0; place < TSFMC_OUTPUT_SIZE; place++) {
      const double apart = fabs((double)forecast[place] - (double)expected[window][place]);
      if (!isfinite(apart)) fail(1, "the self-test's forecast is not finite");
      if (apart > error) error = apart;
    }
    const double scale = largest(past[window], TSFMC_INPUT_SIZE) + largest(expected[window], TSFMC_OUTPUT_SIZE);
    max_abs = fmax(max_abs, error);
    max_rel = fmax(max_rel, error / (scale > 0 ? scale : 1));
  }
  printf("\"selftest\": {\"windows\": %d, \"max_abs\": %.9g, \"max_rel\": %.9g, \"tolerance\": %s, \"passed\": %s}",
         CASE_SELFTESTS, max_abs, max_rel, CASE_TOLERANCE, max_rel <= atof(CASE_TOLERANCE) ? "true" : "false");
}

static void print_turns(const char *name, const turns *turn) {
  printf("\"%s\": {\"settle\": %ld, \"calls\": %ld, \"cpu_ns\": [", name, turn->settle, turn->calls);
  for (long round = 0; round < turn->rounds; round++) printf("%s%.0f", round ? "," : "", turn->cpu[round]);
  printf("], \"wall_ns\": [");
  for (long sample = 0; sample < turn->used; sample++) {
    const int first = sample % turn->calls == 0;
    printf("%s%llu", first ? (sample ? "],\n[" : "[") : ",", (unsigned long long)turn->wall[sample]);
  }
  printf("]]}");
}

static void read_file(void *numbers, size_t bytes, FILE *in) {
  if (!in || fread(numbers, 1, bytes, in) != bytes) fail(2, "vectors.bin is not beside this program");
}

int main(int argc, char **argv) {
  const uint64_t started = now(CLOCK_MONOTONIC);
  const double seconds = argc > 1 ? atof(argv[1]) : 5.0;
#ifndef TSFMC_SCHEMA
  if (tsfmc_missing_cpu_feature()) fail(3, "this processor lacks a feature that the forecaster needs");
#endif
  char place[TEXT];
  const char *const slash = strrchr(argv[0], '/');
  snprintf(place, sizeof place, "%.*svectors.bin", slash ? (int)(slash - argv[0] + 1) : 0, argv[0]);
  FILE *const in = fopen(place, "rb");
  read_file(windows, sizeof windows, in);
  read_file(past, sizeof past, in);
  read_file(expected, sizeof expected, in);
  fclose(in);

  const uint64_t began = now(CLOCK_MONOTONIC);
  call(windows[0]);
  const double load_ms = (double)(began - started) / 1e6;
  const double first_ms = (double)(now(CLOCK_MONOTONIC) - began) / 1e6;
  const char *const rss = line_of("/proc/self/status", "VmHWM");
  const double peak_mb = rss ? atof(rss) / 1024 : 0;

  long warm_calls = 0;
  const double typical = warm_up(&warm_calls);
  turns stream = {0}, interval = {.calls = 1};
  const double settle = typical >= SETTLED_S ? 0 : ceil(SETTLE_S / typical), count = SLICE_S / typical;
  const double least = typical >= SLOW_S ? 1 : LEAST_CALLS, calls = count > least ? count : least;
  stream.settle = settle < MAX_CALLS ? (long)settle : MAX_CALLS;
  stream.calls = calls < MAX_CALLS ? (long)(calls + 0.5) : MAX_CALLS;
  run_rounds(&stream, seconds / 2, NULL, 0);

  const long cache = cache_kib();
  long mib = cache ? 2 * cache / 1024 : 64;
  struct utsname system;
  if (uname(&system) != 0) fail(2, "uname");
  if (mib < 8 || emulator(system.machine)) mib = 8; /* an emulator's times say nothing, however long they take */
  if (mib > 64) mib = 64;
  const size_t words = (size_t)mib << 17;
  uint64_t *const evicted = calloc(words, sizeof *evicted);
  if (!evicted) fail(2, "out of memory");
  run_rounds(&interval, seconds / 2, evicted, words);

  char date[32];
  const time_t today = time(NULL);
  strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S+00:00", gmtime(&today));
  printf("{\"format\": \"tsfmc-latency\", \"version\": 1, \"payload_sha256\": \"%s\",\n", CASE_PAYLOAD);
  printf("\"measured_at\": \"%s\", \"threads\": 1,\n", date);
  print_host();
  printf(",\n");
  print_selftest();
  printf(",\n\"cold_start\": {\"load_ms\": %.6g, \"first_call_ms\": %.6g, \"peak_rss_mb\": %.6g},\n", load_ms, first_ms,
         peak_mb);
  printf("\"samples\": {\"windows\": %d, \"warm_up_calls\": %ld, \"evict_mib\": %ld, \"cache_kib\": ", CASE_WINDOWS,
         warm_calls, mib);
  if (cache) printf("%ld", cache);
  else printf("null");
  printf(", \"scenarios\": {\n");
  print_turns("stream", &stream);
  printf(",\n");
  print_turns("interval", &interval);
  printf("}}}\n");
  fprintf(stderr, "bench: stream %.3f us, interval %.3f us by the clock on the wall, medians\n",
          (double)median(stream.wall, stream.used) / 1e3, (double)median(interval.wall, interval.used) / 1e3);
  return fflush(stdout) == 0 ? 0 : 2;
}
