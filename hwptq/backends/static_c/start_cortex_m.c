/* Arm's M profile: vectors, floats and vector instructions switched on, faults that say what they are. */
#include <stddef.h>
#include <stdint.h>

extern uint8_t stack_top[];
void begin(void);
void fail(int status, const char *why);

#define CPACR (*(volatile uint32_t *)0xE000ED88) /* access to coprocessors */
#define CFSR (*(volatile uint32_t *)0xE000ED28)  /* causes of faults */
enum { UNDEFINED = 3 << 16 | 1 << 19, STATUS_ILLEGAL = 132, STATUS_FAULT = 139 };

long semihost(long operation, const void *block) {
    register long r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = block;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

void _start(void) {
    CPACR |= 0xFu << 20;
    __asm__ volatile("dsb\n isb");
    begin();
}

static void fault(void) {
    if (CFSR & UNDEFINED) fail(STATUS_ILLEGAL, "Illegal instruction\n");
    fail(STATUS_FAULT, "a fault of the processor: memory that is not there, or a stack that is full\n");
}

__attribute__((section(".start"), used)) static const void *const vectors[16] = {
    stack_top, _start, fault, fault, fault, fault, fault, fault, fault, fault, fault, fault, fault, fault, fault, fault,
};

/* Arm's names of moving memory */
void *memcpy(void *, const void *, size_t);
void *memmove(void *, const void *, size_t);
void *memset(void *, int, size_t);
void __aeabi_memcpy(void *to, const void *from, size_t n) { memcpy(to, from, n); }
void __aeabi_memcpy4(void *to, const void *from, size_t n) { memcpy(to, from, n); }
void __aeabi_memcpy8(void *to, const void *from, size_t n) { memcpy(to, from, n); }
void __aeabi_memmove(void *to, const void *from, size_t n) { memmove(to, from, n); }
void __aeabi_memmove4(void *to, const void *from, size_t n) { memmove(to, from, n); }
void __aeabi_memmove8(void *to, const void *from, size_t n) { memmove(to, from, n); }
void __aeabi_memset(void *to, size_t n, int value) { memset(to, value, n); }
void __aeabi_memset4(void *to, size_t n, int value) { memset(to, value, n); }
void __aeabi_memset8(void *to, size_t n, int value) { memset(to, value, n); }
void __aeabi_memclr(void *to, size_t n) { memset(to, 0, n); }
void __aeabi_memclr4(void *to, size_t n) { memset(to, 0, n); }
void __aeabi_memclr8(void *to, size_t n) { memset(to, 0, n); }
