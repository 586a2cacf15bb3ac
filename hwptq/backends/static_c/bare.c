/* A program without an operating system: its memory before main, and its input and output by semihosting, that is
   by a debugger or an emulator, which opens the files of the machine that it runs on.

   start_*.c has the processor's part: the first instructions, and `semihost`. */
#include <stddef.h>
#include <stdint.h>

int main(void);
long semihost(long operation, const void *block);

enum { OPEN = 1, WRITE = 5, READ = 6, EXIT = 0x20, EXITED = 0x20026, BINARY_READ = 1, BINARY_APPEND = 9 };

/* places of the linker script */
extern uint8_t data_start[], data_end[], data_stored[], bss_start[], bss_end[];

static long opened(int file) {
    static const char *const names[] = {"/dev/stdin", "/dev/stdout", "/dev/stderr"};
    static long handles[3]; /* one more than the handle */
    if (!handles[file]) {
        size_t length = 0;
        while (names[file][length]) length++;
        const size_t block[] = {(size_t)names[file], file ? BINARY_APPEND : BINARY_READ, length};
        handles[file] = semihost(OPEN, block) + 1;
    }
    return handles[file] - 1;
}

static long moved(int operation, int file, const void *p, size_t n) {
    const size_t block[] = {(size_t)opened(file), (size_t)p, n};
    long left = semihost(operation, block);
    return left < 0 || (size_t)left > n ? -1 : (long)n - left;
}

long read(int file, void *p, size_t n) { return moved(READ, file, p, n); }

long write(int file, const void *p, size_t n) { return moved(WRITE, file, p, n); }

void end_program(int status) {
    const size_t block[] = {EXITED, (size_t)status};
    semihost(EXIT, block);
    for (;;) {
    }
}

/* What the processor's exceptions end in; status 132 is an instruction that it lacks. */
void fail(int status, const char *why) {
    size_t length = 0;
    while (why[length]) length++;
    (void)write(2, why, length);
    end_program(status);
}

void begin(void) {
    for (uint8_t *to = data_start, *from = data_stored; to != data_end;) *to++ = *from++;
    for (uint8_t *to = bss_start; to != bss_end;) *to++ = 0;
    end_program(main());
}
