/* RISC-V in machine mode: stack and traps. */
#include <stddef.h>
#include <stdint.h>

void fail(int status, const char *why);

enum { ILLEGAL = 2, STATUS_ILLEGAL = 132, STATUS_FAULT = 139 };

/* three instructions of 4 bytes on one page make the break a call of the debugger */
__attribute__((naked, aligned(16))) long semihost(long operation, const void *block) {
    (void)operation, (void)block;
    __asm__ volatile(
        ".option push\n"
        ".option norvc\n"
        "slli zero, zero, 0x1f\n"
        "ebreak\n"
        "srai zero, zero, 7\n"
        ".option pop\n"
        "ret");
}

__attribute__((used, aligned(4))) static void trap(void) {
    unsigned long cause;
    __asm__ volatile(".option push\n .option arch, +zicsr\n csrr %0, mcause\n .option pop" : "=r"(cause));
    if (cause == ILLEGAL) fail(STATUS_ILLEGAL, "Illegal instruction\n");
    fail(STATUS_FAULT, "a fault of the processor: memory that is not there, or a stack that is full\n");
}

__attribute__((naked, section(".start"), used)) void _start(void) {
    __asm__ volatile(
        ".option push\n"
        ".option norelax\n"
        ".option arch, +zicsr\n"
        "la gp, __global_pointer$\n"
        "la sp, stack_top\n"
        "la t0, trap\n"
        "csrw mtvec, t0\n"
        ".option pop\n"
        "j begin");
}
