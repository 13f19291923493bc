/* The example without an operating system: past.bin -> forecast.bin by semihosting, then the self-test.
 * report.txt gets: status of the self-test, stack in bytes and ticks of a forecast. */
#include "tsfmc_model.h"

#include <stdint.h>
#include <string.h>

int host_call(int operation, const void *argument);
unsigned char *stack_pointer(void);
uint32_t ticks(void);
uint32_t ticks_between(uint32_t before, uint32_t after);

static float past[TSFMC_INPUT_SIZE];
static float forecast[TSFMC_OUTPUT_SIZE];
static unsigned char scratch[TSFMC_SCRATCH_BYTES];

enum { OPEN = 1, CLOSE = 2, WRITE = 5, READ = 6, EXIT = 0x18, READ_BINARY = 1, WRITE_BINARY = 5 };
enum { PAINTED = 8192, PAINT = 0xA5, OWN = 64 /* of paint itself */ };

static uintptr_t open_file(const char *name, uintptr_t mode) {
  const uintptr_t arguments[3] = {(uintptr_t)name, mode, strlen(name)};
  return (uintptr_t)host_call(OPEN, arguments);
}

/* 0 when all bytes came or went. */
static int transfer(int operation, uintptr_t file, void *bytes, size_t size) {
  const uintptr_t arguments[3] = {file, (uintptr_t)bytes, size};
  return host_call(operation, arguments);
}

static void close_file(uintptr_t file) {
  const uintptr_t arguments[1] = {file};
  (void)host_call(CLOSE, arguments);
}

static char *written(char *to, uint32_t value) {
  char digits[12];
  int count = 0;
  do {
    digits[count++] = (char)('0' + value % 10U);
    value /= 10U;
  } while (value > 0U);
  while (count > 0) *to++ = digits[--count];
  *to++ = ' ';
  return to;
}

/* The stack below main's frame is painted, and looked at after the forecast. */
static void paint(unsigned char *top) {
  for (int i = 1; i <= PAINTED; ++i) top[-i] = PAINT;
}

static uint32_t stack_used(const unsigned char *top) {
  int deepest = PAINTED;
  while (deepest > 0 && top[-deepest] == PAINT) --deepest;
  return (uint32_t)deepest;
}

int main(void) {
  int status = TSFMC_OK;
  unsigned char *const top = stack_pointer() - OWN;
  const uintptr_t in = open_file("past.bin", READ_BINARY), out = open_file("forecast.bin", WRITE_BINARY);
  uint32_t before = 0U, after = 0U, stack = 0U;
  while (status == TSFMC_OK && transfer(READ, in, past, sizeof past) == 0) {
    paint(top);
    before = ticks();
    status = @FORECAST@;
    after = ticks();
    stack = stack_used(top) + OWN;
    if (status == TSFMC_OK && transfer(WRITE, out, forecast, sizeof forecast) != 0) status = 1;
  }
  close_file(in);
  close_file(out);
  const int tested = @SELFTEST@;
  char line[64], *end = written(line, (uint32_t)-status);
  end = written(end, (uint32_t)-tested);
  end = written(end, stack);
  end = written(end, ticks_between(before, after));
  const uintptr_t report = open_file("report.txt", WRITE_BINARY);
  (void)transfer(WRITE, report, line, (size_t)(end - line));
  close_file(report);
  (void)host_call(EXIT, (const void *)(uintptr_t)0x20026); /* ADP_Stopped_ApplicationExit */
  return 0;
}
