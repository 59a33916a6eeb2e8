// Rows that are read once: all of a row is held in the registers of a group of lanes, of a block or
// of the blocks of a cluster.
#pragma once

#include "enqueue.cuh"
#include "pass.cuh"

namespace rmsnorm::cuda {

// 1024 threads, which leave each 64 registers: two blocks of 512 are at work in a processor then.
template <class T, class S, Form F, int kCount, bool kCluster>
RMSNORM_KERNEL(1024)
hold_rows(RMSNORM_ARGUMENT Task<S> task) {
  allow_kernels_after();
  const int blocks = kCluster ? task.cluster : task.slices;
  const int64_t group = quotient(block(), blocks);
  const int number = kCluster ? cluster_rank() : int(block() - group * blocks);
  const Pass<T, S, F> pass(task, group * (threads() / task.threads), kCluster ? number : 0,
                           kCluster ? blocks : 1);
  Held<T, S, F> held[kCount];
  SquareSum<T, S> sum;
  wait_for_kernels_before();
  if (task.prefetches_scale) pass.template prefetch_scales<kCount>();
  pass.template take<kCount>(0, held, sum);
  const Pair<S> all = across_threads<kCluster>(sum.value(), task.threads, blocks);
  const Pair<S> reciprocal = task.root.reciprocal(all);
  if (kCluster || number == 0) pass.give_inverse(reciprocal);
  const int part = kCluster ? kCount : kCount / task.slices;
  const int begin = kCluster ? 0 : number * part;
  pass.template give<kCount>(0, held, reciprocal, begin, begin + part);
  if constexpr (kCluster) cluster_sync();
}

// A row of any width: pass 2 reads it again.
template <class T, class S, Form F, bool kCluster>
RMSNORM_KERNEL(1024)
reread_rows(RMSNORM_ARGUMENT Task<S> task) {
  constexpr int kCount = kVectorsPerBlock;
  allow_kernels_after();
  const int blocks = kCluster ? task.cluster : 1;
  const Pass<T, S, F> pass(task, quotient(block(), blocks), kCluster ? cluster_rank() : 0, blocks);
  Held<T, S, F> held[kCount];
  SquareSum<T, S> sum;
  wait_for_kernels_before();
  const int64_t most = pass.most();
  for (int64_t from = 0; from < most; from += kCount) {
    pass.template take<kCount>(from, held, sum);
    sum.settle();
  }
  const Pair<S> all = across_threads<kCluster>(sum.value(), task.threads, blocks);
  const Pair<S> reciprocal = task.root.reciprocal(all);
  pass.give_inverse(reciprocal);
  for (int64_t from = 0; from < most; from += kCount) {
    SquareSum<T, S> unused;
    pass.template take<kCount>(from, held, unused);
    pass.template give<kCount>(from, held, reciprocal, 0, kCount);
  }
  if constexpr (kCluster) cluster_sync();
}

}  // namespace rmsnorm::cuda
