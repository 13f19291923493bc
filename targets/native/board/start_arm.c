/* First instructions of a Cortex-M under the emulator, and semihosting. */
#include <stdint.h>

extern uint32_t stack_top[], data_start[], data_end[], data_flash[], bss_start[], bss_end[];
int main(void);
void reset(void);
static void stop(void);

__attribute__((section(".vectors"), used)) static const uintptr_t vectors[16] = {
    (uintptr_t)stack_top, (uintptr_t)reset, (uintptr_t)stop, (uintptr_t)stop, (uintptr_t)stop,
    (uintptr_t)stop,      (uintptr_t)stop,
};

int host_call(int operation, const void *argument) {
  register int r0 __asm__("r0") = operation;
  register const void *r1 __asm__("r1") = argument;
  __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
  return r0;
}

static void stop(void) {
  (void)host_call(0x18, (const void *)(uintptr_t)0x20023); /* SYS_EXIT, a run-time error */
  for (;;) {
  }
}

#define REGISTER(address) (*(volatile uint32_t *)(uintptr_t)(address))

void reset(void) {
  REGISTER(0xE000ED88U) |= 0xFU << 20; /* CPACR: the floating-point unit */
  __asm__ volatile("dsb\n isb");
  for (uint32_t *to = data_start, *from = data_flash; to < data_end;) *to++ = *from++;
  for (uint32_t *to = bss_start; to < bss_end;) *to++ = 0U;
  REGISTER(0xE000E014U) = 0xFFFFFFU; /* SysTick: reload, value, on with the processor's clock */
  REGISTER(0xE000E018U) = 0U;
  REGISTER(0xE000E010U) = 5U;
  (void)main();
  stop();
}

/* Ticks since `since`, which counts down and wraps at 24 bits. */
uint32_t ticks(void) { return REGISTER(0xE000E018U); }
uint32_t ticks_between(uint32_t before, uint32_t after) { return (before - after) & 0xFFFFFFU; }

unsigned char *stack_pointer(void) {
  unsigned char *pointer;
  __asm__ volatile("mov %0, sp" : "=r"(pointer));
  return pointer;
}
