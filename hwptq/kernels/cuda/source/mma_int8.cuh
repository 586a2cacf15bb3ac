// Products of 16 x 32 and 32 x 8 bytes on tensor cores, by a warp: PTX's mma.m16n8k32.
//
// Of lane 4g + t: a holds rows g and g + 8, columns 4t ... 4t+3, then the same of columns 16 + 4t ...; b holds
// column g, rows 4t ... and 16 + 4t ...; the sums are rows g and g + 8, columns 2t and 2t + 1.
#ifndef HWPTQ_MMA_INT8
#define HWPTQ_MMA_INT8

#ifndef HWPTQ_EMULATED

static __device__ __forceinline__ void hwptq_mma_signed(int sums[4], const hwptq_word a[4], hwptq_word b0, hwptq_word b1) {
  asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+r"(sums[0]), "+r"(sums[1]), "+r"(sums[2]), "+r"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// a is unsigned
static __device__ __forceinline__ void hwptq_mma_unsigned(int sums[4], const hwptq_word a[4], hwptq_word b0, hwptq_word b1) {
  asm("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+r"(sums[0]), "+r"(sums[1]), "+r"(sums[2]), "+r"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

#endif

// Four rows of four bytes -> four columns.
static __device__ __forceinline__ void hwptq_transpose(const hwptq_word row[4], hwptq_word column[4]) {
  hwptq_word low01 = __byte_perm(row[0], row[1], 0x5140), high01 = __byte_perm(row[0], row[1], 0x7362);
  hwptq_word low23 = __byte_perm(row[2], row[3], 0x5140), high23 = __byte_perm(row[2], row[3], 0x7362);
  column[0] = __byte_perm(low01, low23, 0x5410);
  column[1] = __byte_perm(low01, low23, 0x7632);
  column[2] = __byte_perm(high01, high23, 0x5410);
  column[3] = __byte_perm(high01, high23, 0x7632);
}

#endif
