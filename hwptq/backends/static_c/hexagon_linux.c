/* What a program on Hexagon Linux needs beside freestanding.c: the start, three system calls, and the functions
   that compilers call for what the processor has no instruction for. Compiled with -fno-builtin. */
#include <stddef.h>
#include <stdint.h>

int main(void);

enum { READ = 63, WRITE = 64, EXIT_GROUP = 94 };

/* Linux on Hexagon: trap 1, the number in r6, arguments and result from r0 on */
static long call_system(long number, long a, long b, long c) {
    register long r6 __asm__("r6") = number;
    register long r0 __asm__("r0") = a;
    register long r1 __asm__("r1") = b;
    register long r2 __asm__("r2") = c;
    __asm__ volatile("trap0(#1)" : "+r"(r0) : "r"(r6), "r"(r1), "r"(r2) : "memory");
    return r0;
}

long read(int file, void *p, size_t n) { return call_system(READ, file, (long)p, (long)n); }

long write(int file, const void *p, size_t n) { return call_system(WRITE, file, (long)p, (long)n); }

/* The stack is aligned to a vector, as code that spills vectors expects it. */
void _start(void) {
    __asm__ volatile("r29 = and(r29, #-128)");
    call_system(EXIT_GROUP, main(), 0, 0);
    for (;;) {
    }
}

void *memcpy(void *to, const void *from, size_t n);

void *__hexagon_memcpy_likely_aligned_min32bytes_mult8bytes(void *to, const void *from, size_t n) {
    return memcpy(to, from, n);
}

/* quotient and remainder of a / b, bit by bit */
static uint64_t divide(uint64_t a, uint64_t b, uint64_t *remainder) {
    uint64_t quotient = 0, rest = 0;
    for (int i = a >> 32 ? 63 : 31; i >= 0; i--) {
        rest = rest << 1 | (a >> i & 1);
        if (rest >= b) {
            rest -= b;
            quotient |= UINT64_C(1) << i;
        }
    }
    *remainder = rest;
    return quotient;
}

static uint64_t magnitude(int64_t a) { return a < 0 ? 0 - (uint64_t)a : (uint64_t)a; }

uint64_t __hexagon_udivdi3(uint64_t a, uint64_t b) {
    uint64_t rest;
    return divide(a, b, &rest);
}

uint64_t __hexagon_umoddi3(uint64_t a, uint64_t b) {
    uint64_t rest;
    divide(a, b, &rest);
    return rest;
}

int64_t __hexagon_divdi3(int64_t a, int64_t b) {
    uint64_t q = __hexagon_udivdi3(magnitude(a), magnitude(b));
    return (int64_t)((a < 0) != (b < 0) ? 0 - q : q);
}

int64_t __hexagon_moddi3(int64_t a, int64_t b) {
    uint64_t r = __hexagon_umoddi3(magnitude(a), magnitude(b));
    return (int64_t)(a < 0 ? 0 - r : r);
}

uint32_t __hexagon_udivsi3(uint32_t a, uint32_t b) { return (uint32_t)__hexagon_udivdi3(a, b); }
uint32_t __hexagon_umodsi3(uint32_t a, uint32_t b) { return (uint32_t)__hexagon_umoddi3(a, b); }
int32_t __hexagon_divsi3(int32_t a, int32_t b) { return (int32_t)__hexagon_divdi3(a, b); }
int32_t __hexagon_modsi3(int32_t a, int32_t b) { return (int32_t)__hexagon_moddi3(a, b); }

typedef union {
    float value;
    uint32_t bits;
} Float;

enum { FRACTION = 23, BIAS = 127, SPECIAL = 255 };

/* (-1)^sign * significand * 2^exponent, the significand's first bit at FRACTION */
static int32_t unpack(uint32_t bits, uint32_t *significand) {
    int32_t exponent = (int32_t)(bits >> FRACTION & 255);
    *significand = bits & ((1u << FRACTION) - 1);
    if (exponent) {
        *significand |= 1u << FRACTION;
    } else {
        int shift = __builtin_clz(*significand) - 8;
        *significand <<= shift;
        exponent = 1 - shift;
    }
    return exponent - BIAS;
}

/* floor(m * 2^24 / n) for 2^23 <= n <= m < 2n < 2^25: by a float reciprocal, then made exact in integers */
static uint32_t quotient_of(uint32_t m, uint32_t n, uint32_t *remainder) {
    const float unit = 1.0f / 8388608.0f;
    float y = (float)(int32_t)n * unit;
    float r = 24.0f / 17.0f - 8.0f / 17.0f * y; /* within 1/17 of 1 / y; each step squares the error */
    for (int i = 0; i < 3; i++) r = r * (2.0f - y * r);
    int32_t quotient = (int32_t)((float)(int32_t)m * unit * r * 16777216.0f);
    int64_t rest = ((int64_t)m << 24) - (int64_t)quotient * n;
    for (; rest < 0; rest += n) quotient--;
    for (; rest >= (int64_t)n; rest -= n) quotient++;
    *remainder = (uint32_t)rest;
    return (uint32_t)quotient;
}

/* a / b, rounded once, half to even: also where the result is subnormal */
float __hexagon_divsf3(float a, float b) {
    Float x = {a}, y = {b};
    uint32_t sign = (x.bits ^ y.bits) & 0x80000000u, m, n;
    uint32_t p = x.bits & 0x7fffffffu, q = y.bits & 0x7fffffffu, infinity = (uint32_t)SPECIAL << FRACTION;
    if (p > infinity || q > infinity || (p == infinity && q == infinity) || (!p && !q))
        return (Float){.bits = 0x7fc00000u}.value;
    if (p == infinity || !q) return (Float){.bits = sign | infinity}.value;
    if (q == infinity || !p) return (Float){.bits = sign}.value;
    int32_t exponent = unpack(p, &m) - unpack(q, &n) + BIAS;
    if (m < n) {
        m <<= 1;
        exponent--;
    }
    /* 25 bits, the last one half a unit, and whether anything is left */
    uint32_t rest, quotient = quotient_of(m, n, &rest), sticky = rest != 0;
    if (exponent >= SPECIAL) return (Float){.bits = sign | infinity}.value;
    if (exponent < 1) {
        int32_t shift = 1 - exponent < 31 ? 1 - exponent : 31;
        sticky |= (quotient & ((1u << shift) - 1)) != 0;
        quotient >>= shift;
        exponent = 0;
    }
    uint32_t up = quotient & 1 & (sticky | quotient >> 1);
    uint32_t whole = (quotient >> 1) + up;
    /* the hidden bit adds one to the exponent of a normal number; so does a carry out of the fraction */
    uint32_t top = exponent ? (uint32_t)(exponent - 1) << FRACTION : 0;
    return (Float){.bits = sign | (top + whole)}.value;
}

float sqrtf(float x);

float __hexagon_sqrtf(float x) { return sqrtf(x); }
