/* What programs without a C library need of one: moving memory, and the mathematics that code of float operators
   calls. Compiled with -ffreestanding -fno-builtin. */
#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("no-tree-loop-distribute-patterns") /* no loop of memset becomes a call of memset */
#endif

void *memset(void *to, int value, size_t n) {
    uint8_t *p = to;
    const size_t word = SIZE_MAX / UINT8_MAX * (uint8_t)value;
    if ((uintptr_t)p % sizeof word == 0)
        for (; n >= sizeof word; n -= sizeof word, p += sizeof word) *(size_t *)p = word;
    while (n--) *p++ = (uint8_t)value;
    return to;
}

void *memcpy(void *to, const void *from, size_t n) {
    uint8_t *p = to;
    const uint8_t *q = from;
    if (((uintptr_t)p | (uintptr_t)q) % 8 == 0)
        for (; n >= 8; n -= 8, p += 8, q += 8) *(uint64_t *)p = *(const uint64_t *)q;
    while (n--) *p++ = *q++;
    return to;
}

void *memmove(void *to, const void *from, size_t n) {
    uint8_t *p = to;
    const uint8_t *q = from;
    if (p <= q) return memcpy(to, from, n);
    while (n--) p[n] = q[n];
    return to;
}

typedef union {
    float value;
    uint32_t bits;
} Float;

enum { BIAS = 127, FRACTION = 23 };

/* to the nearest integer, half to even: adding 2^23 leaves no bits of a fraction */
float nearbyintf(float x) {
    const float limit = 8388608.0f;
    if (!(x > -limit && x < limit)) return x;
    float magic = __builtin_copysignf(limit, x);
    return __builtin_copysignf(x + magic - magic, x);
}

float rintf(float x) { return nearbyintf(x); }

float roundevenf(float x) { return nearbyintf(x); }

float floorf(float x) {
    float nearest = nearbyintf(x);
    return nearest > x ? nearest - 1.0f : nearest;
}

float ceilf(float x) { return -floorf(-x); }

float truncf(float x) { return x < 0 ? ceilf(x) : floorf(x); }

/* the other one where one is no number */
float fmaxf(float a, float b) { return a != a || a < b ? b : a; }

float fminf(float a, float b) { return a != a || b < a ? b : a; }

float fabsf(float x) { return __builtin_fabsf(x); }

/* rounded once: the root of the significand, an integer of 24 bits, digit by digit */
float sqrtf(float x) {
    Float f = {x};
    if (f.bits == 0x7f800000u || !(f.bits << 1)) return x;
    if (f.bits & 0x80000000u || f.bits > 0x7f800000u) return __builtin_nanf("");
    int32_t exponent = (int32_t)(f.bits >> FRACTION);
    uint32_t significand = f.bits & ((1u << FRACTION) - 1);
    if (exponent) significand |= 1u << FRACTION;
    else
        for (exponent = 1; !(significand >> FRACTION); exponent--) significand <<= 1;
    exponent -= BIAS;
    if (exponent & 1) significand <<= 1; /* an even exponent is left; -1 & 1 is 1 too */
    exponent >>= 1;
    uint64_t rest = (uint64_t)significand << (FRACTION + 2), root = 0; /* one bit more than the result has */
    for (uint64_t bit = UINT64_C(1) << 48; bit; bit >>= 2) {
        if (rest >= root + bit) {
            rest -= root + bit;
            root = (root >> 1) + bit;
        } else {
            root >>= 1;
        }
    }
    uint32_t rounded = (uint32_t)(root >> 1) + (uint32_t)(root & 1); /* never half: a root of no 25 bits is one */
    return (Float){.bits = ((uint32_t)(exponent + BIAS - 1) << FRACTION) + rounded}.value;
}

/* 2^n * e^r with |r| <= ln(2) / 2, the latter by its series */
float expf(float x) {
    if (x != x) return x;
    if (x > 88.7f) return __builtin_inff();
    if (x < -103.9f) return 0;
    float n = nearbyintf(x * 1.44269504f);
    float r = x - n * 0.693145752f - n * 1.42860677e-6f;
    float series = 1.0f / 5040.0f;
    const float terms[] = {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f};
    for (int i = 0; i < 7; i++) series = series * r + terms[i];
    int whole = (int)n, half = whole / 2;
    Float low = {.bits = (uint32_t)(half + BIAS) << FRACTION};
    Float high = {.bits = (uint32_t)(whole - half + BIAS) << FRACTION};
    return series * low.value * high.value;
}
