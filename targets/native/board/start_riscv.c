/* First instructions of an RV32IMC under the emulator, and semihosting. */
#include <stdint.h>

extern uint32_t stack_top[], data_start[], data_end[], data_flash[], bss_start[], bss_end[];
int main(void);
void reset(void);
void begin(void);

__attribute__((section(".vectors"), naked, used)) void begin(void) {
  __asm__ volatile("la sp, stack_top\n j reset");
}

int host_call(int operation, const void *argument) {
  register int a0 __asm__("a0") = operation;
  register const void *a1 __asm__("a1") = argument;
  __asm__ volatile(
      ".balign 16\n"
      ".option push\n.option norvc\n"
      "slli zero, zero, 0x1f\nebreak\nsrai zero, zero, 7\n"
      ".option pop\n"
      : "+r"(a0)
      : "r"(a1)
      : "memory");
  return a0;
}

void reset(void) {
  for (uint32_t *to = data_start, *from = data_flash; to < data_end;) *to++ = *from++;
  for (uint32_t *to = bss_start; to < bss_end;) *to++ = 0U;
  (void)main();
  (void)host_call(0x18, (const void *)(uintptr_t)0x20023); /* SYS_EXIT, a run-time error */
  for (;;) {
  }
}

uint32_t ticks(void) {
  uint32_t count;
  __asm__ volatile(".option push\n.option arch, +zicsr\ncsrr %0, minstret\n.option pop" : "=r"(count));
  return count;
}
uint32_t ticks_between(uint32_t before, uint32_t after) { return after - before; }

unsigned char *stack_pointer(void) {
  unsigned char *pointer;
  __asm__ volatile("mv %0, sp" : "=r"(pointer));
  return pointer;
}
