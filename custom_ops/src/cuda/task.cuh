// What a kernel over rows is told, and where the elements of a row lie.
#pragma once

#include "pair.cuh"
#include "plan.h"
#include "stage.cuh"
#include "walk.cuh"

namespace rmsnorm::cuda {

template <class S>
struct Task {
  const void* x;
  const void* second;
  const void* scale;
  void* y;
  void* sum;
  float* inverse;
  int64_t rows;
  int64_t inner;        // elements of a run
  int64_t run_vectors;  // of a run: the last may be incomplete
  int64_t row_vectors;
  Root<S> root;
  Rounding rounding;
  Element scale_type;
  int32_t scale_bytes;  // of one element
  int32_t scale_step;
  bool scale_like_x;  // of its type, with a step of 1
  int32_t threads;    // of a row, in one block; a power of two
  int32_t blocks;     // of a row; a power of two
  int32_t threads_log2;
  int32_t blocks_log2;
  bool is_cluster;  // or each of them adds up all of it and writes one part
  bool spread;
  bool streaming;
  bool prefetches_scale;
  Walk kept;
  Walk reduced;

  Task(const Problem& p, Element type_of_scale, const Plan& plan)
      : x(p.x),
        second(p.second),
        scale(p.scale),
        y(p.y),
        sum(p.form == Form::kSkip ? p.sum : nullptr),
        inverse(p.inverse),
        rows(p.layout.kept.count),
        inner(p.layout.inner),
        run_vectors((p.layout.inner + plan.vector - 1) / plan.vector),
        row_vectors(run_vectors * p.layout.reduced.count),
        root(p.settings, p.layout.averaged),
        rounding(rounding_of(p.settings)),
        scale_type(type_of_scale),
        scale_bytes(int32_t(size_of(type_of_scale))),
        scale_step(int32_t(p.layout.inner_scale)),
        scale_like_x(p.scale && type_of_scale == p.type && scale_step == 1),
        threads(plan.threads),
        blocks(plan.slices * plan.cluster),
        threads_log2(__builtin_ctz(unsigned(threads))),
        blocks_log2(__builtin_ctz(unsigned(blocks))),
        is_cluster(plan.cluster > 1),
        spread(plan.access == Access::kSpread),
        streaming(plan.streaming),
        prefetches_scale(plan.prefetches_scale),
        kept(p.layout.kept),
        reduced(p.layout.reduced) {}
};

// A vector of a row.
struct Spot {
  int64_t x;
  int64_t scale;
  int left;    // elements of it before its run ends, or more; 0 or less where the row has ended
  bool first;  // of its run
};

RMSNORM_DEVICE int at_most_2_to_20(int64_t left) { return int(left < 1 << 20 ? left : 1 << 20); }

template <int kVector, class S>
RMSNORM_DEVICE Spot spot_of(const Task<S>& task, const Place& row, int64_t index) {
  Place run = row;
  int64_t in_run = index;
  if (task.reduced.count > 1) {
    const int64_t before = quotient(index, task.run_vectors);
    const Place place = place_of(task.reduced, before);
    run = {row.x + place.x, row.scale + place.scale};
    in_run = index - before * task.run_vectors;
  }
  const int64_t at = in_run * kVector, left = index < task.row_vectors ? task.inner - at : 0;
  return {run.x + at, run.scale + at * task.scale_step, at_most_2_to_20(left), in_run == 0};
}

}  // namespace rmsnorm::cuda
