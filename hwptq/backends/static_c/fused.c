/* fmaf for processors without it, where compilers have doubles. */
#include <stdint.h>

/* a * b + c, rounded once: the product is exact in a double, and the sum is rounded to an odd one, which leaves
   nothing for the last rounding to tie on */
float fmaf(float a, float b, float c) {
    union {
        double value;
        uint64_t bits;
    } sum;
    double product = (double)a * b;
    sum.value = product + c;
    double added = sum.value - product, lost = (product - (sum.value - added)) + (c - added);
    if (lost == lost && lost != 0 && !(sum.bits & 1)) sum.bits += (lost > 0) == (sum.value > 0) ? 1 : -1;
    return (float)sum.value;
}
