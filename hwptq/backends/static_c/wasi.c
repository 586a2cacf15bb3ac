/* A program for a WebAssembly engine with three functions of WASI. */
#include <stddef.h>
#include <stdint.h>

#define IMPORT(name) __attribute__((import_module("wasi_snapshot_preview1"), import_name(name)))

typedef struct {
    const void *place;
    size_t bytes;
} Part;

IMPORT("fd_read") int32_t fd_read(int32_t file, const Part *parts, size_t count, size_t *moved);
IMPORT("fd_write") int32_t fd_write(int32_t file, const Part *parts, size_t count, size_t *moved);
IMPORT("proc_exit") _Noreturn void proc_exit(int32_t status);

int main(void);

long read(int file, void *p, size_t n) {
    Part part = {p, n};
    size_t moved;
    return fd_read(file, &part, 1, &moved) ? -1 : (long)moved;
}

long write(int file, const void *p, size_t n) {
    Part part = {p, n};
    size_t moved;
    return fd_write(file, &part, 1, &moved) ? -1 : (long)moved;
}

void _start(void) { proc_exit(main()); }
