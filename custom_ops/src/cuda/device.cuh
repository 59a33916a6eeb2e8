// All that kernels take from CUDA. Where no CUDA compiler reads this, an emulator of blocks, warps
// and clusters has the same names, and the kernels run on the CPU.
#pragma once

#include <cstdint>

namespace rmsnorm::cuda {

// What moves in one access.
struct alignas(16) Words {
  uint32_t word[4];
};

// 16 bits that stand for a number.
struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

constexpr int kWarp = 32;

}  // namespace rmsnorm::cuda

#ifdef __CUDACC__

#include <cuda_fp16.h>

// A kernel of blocks of at most so many threads: `template <...> RMSNORM_KERNEL(1024) name(...)`.
#define RMSNORM_KERNEL(most) __global__ void __launch_bounds__(most, 1)
#define RMSNORM_DEVICE __device__ __forceinline__
// A kernel's argument that stays where CUDA put it, so that a run-time index does not copy it.
#define RMSNORM_ARGUMENT const __grid_constant__

namespace rmsnorm::cuda {

RMSNORM_DEVICE int thread() { return int(threadIdx.x); }
RMSNORM_DEVICE int threads() { return int(blockDim.x); }
RMSNORM_DEVICE int64_t block() { return blockIdx.x; }

// All threads of a block, and the start of its dynamic shared memory (16-byte aligned).
RMSNORM_DEVICE void sync() { __syncthreads(); }
RMSNORM_DEVICE char* shared() {
  extern __shared__ Words memory[];
  return reinterpret_cast<char*>(memory);
}

// All threads of a warp take part. `up` gives lane i what lane i - by has, within groups of `width`
// lanes; the first lanes of a group get their own.
template <class V>
RMSNORM_DEVICE V shuffle_xor(V value, int mask) {
  return __shfl_xor_sync(0xFFFFFFFFU, value, mask);
}
template <class V>
RMSNORM_DEVICE V shuffle_up(V value, int by, int width) {
  return __shfl_up_sync(0xFFFFFFFFU, value, unsigned(by), width);
}

// Clusters, from sm_90 on; before it, a cluster is one block.
RMSNORM_DEVICE int cluster_rank() {
  uint32_t rank = 0;
#if __CUDA_ARCH__ >= 900
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
#endif
  return int(rank);
}
// All threads of all blocks of the cluster; what they wrote to shared memory is seen after it.
RMSNORM_DEVICE void cluster_sync() {
#if __CUDA_ARCH__ >= 900
  asm volatile(
      "barrier.cluster.arrive.release;\n"
      "barrier.cluster.wait.acquire;" ::
          : "memory");
#endif
}
// Where the block of that rank has what this block has at `local`, in its shared memory.
template <class V>
RMSNORM_DEVICE V* remote(V* local, int rank) {
#if __CUDA_ARCH__ >= 900
  uint64_t address;
  asm("mapa.u64 %0, %1, %2;" : "=l"(address) : "l"(local), "r"(rank));
  return reinterpret_cast<V*>(address);
#else
  (void)rank;
  return local;
#endif
}

// Programmatic dependent launch, from sm_90 on. Before anything is read that the kernels before it
// on the stream may have written, or written that they may read. No load is of the kind for memory
// that nobody writes (__ldg): compilers may move those to before it.
RMSNORM_DEVICE void wait_for_kernels_before() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
// The next kernel may be brought to the processors; it waits for all of this one before it reads.
RMSNORM_DEVICE void allow_kernels_after() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// 16 aligned bytes of global memory. `streaming`: the line leaves the caches first.
RMSNORM_DEVICE Words load16(const void* from) {
  const uint4 v = *static_cast<const uint4*>(from);
  return {v.x, v.y, v.z, v.w};
}
// Asks for the line, and waits for nothing.
RMSNORM_DEVICE void prefetch(const void* from) {
  asm volatile("prefetch.global.L1 [%0];" ::"l"(__cvta_generic_to_global(from)));
}
RMSNORM_DEVICE void store16(void* to, Words v, bool streaming) {
  const uint4 value{v.word[0], v.word[1], v.word[2], v.word[3]};
  if (streaming) return __stcs(static_cast<uint4*>(to), value);
  // An assignment may come out as four stores of four bytes.
  asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(to)),
               "r"(value.x), "r"(value.y), "r"(value.z), "r"(value.w)
               : "memory");
}

// Rounded once; never contracted with a neighbour.
RMSNORM_DEVICE float add(float a, float b) { return __fadd_rn(a, b); }
RMSNORM_DEVICE float multiply(float a, float b) { return __fmul_rn(a, b); }
RMSNORM_DEVICE float divide(float a, float b) { return __fdiv_rn(a, b); }
RMSNORM_DEVICE float fused(float a, float b, float c) { return __fmaf_rn(a, b, c); }
RMSNORM_DEVICE float inverted(float a) { return __frcp_rn(a); }
RMSNORM_DEVICE float square_root(float a) { return __fsqrt_rn(a); }
RMSNORM_DEVICE double add(double a, double b) { return __dadd_rn(a, b); }
RMSNORM_DEVICE double multiply(double a, double b) { return __dmul_rn(a, b); }
RMSNORM_DEVICE double divide(double a, double b) { return __ddiv_rn(a, b); }
RMSNORM_DEVICE double fused(double a, double b, double c) { return __fma_rn(a, b, c); }
RMSNORM_DEVICE double inverted(double a) { return __drcp_rn(a); }
RMSNORM_DEVICE double square_root(double a) { return __dsqrt_rn(a); }
// 2^a and 1 / a within two units of 2^-23, subnormal results included in the first only.
RMSNORM_DEVICE float power_of_two_near(float a) {
  float power;
  asm("ex2.approx.f32 %0, %1;" : "=f"(power) : "f"(a));
  return power;
}
RMSNORM_DEVICE float reciprocal_near(float a) {
  float reciprocal;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(reciprocal) : "f"(a));
  return reciprocal;
}

RMSNORM_DEVICE uint32_t bits_of(float v) { return __float_as_uint(v); }
RMSNORM_DEVICE float float_of(uint32_t bits) { return __uint_as_float(bits); }
RMSNORM_DEVICE uint64_t bits_of(double v) { return uint64_t(__double_as_longlong(v)); }
RMSNORM_DEVICE double double_of(uint64_t bits) { return __longlong_as_double(int64_t(bits)); }
// 32 bits of high:low from bit `shift` on, 0 to 31.
RMSNORM_DEVICE uint32_t shifted(uint32_t low, uint32_t high, int shift) {
  return __funnelshift_r(low, high, unsigned(shift));
}
// To the nearest float towards zero.
RMSNORM_DEVICE float to_float_truncated(double v) { return __double2float_rz(v); }

// Two floats rounded to the nearest 16 bits each, `low` in the low half; and back.
RMSNORM_DEVICE uint32_t pack(Half, float low, float high) {
  const __half2 both = __floats2half2_rn(low, high);
  return reinterpret_cast<const uint32_t&>(both);
}
RMSNORM_DEVICE float to_float(Half v) { return __half2float(__ushort_as_half(v.bits)); }
RMSNORM_DEVICE uint32_t bfloat16_bits(float v) {
  const uint32_t bits = bits_of(v);
  return v == v ? (bits + 0x7FFFU + (bits >> 16 & 1)) >> 16 : 0x7FFFU;
}
RMSNORM_DEVICE uint32_t pack(BFloat16, float low, float high) {
#if __CUDA_ARCH__ >= 800
  uint32_t both;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
  return both;
#else
  return bfloat16_bits(high) << 16 | bfloat16_bits(low);
#endif
}
RMSNORM_DEVICE float to_float(BFloat16 v) { return float_of(uint32_t(v.bits) << 16); }

}  // namespace rmsnorm::cuda

#else
#include "../../tests/cuda_host.h"
#endif
