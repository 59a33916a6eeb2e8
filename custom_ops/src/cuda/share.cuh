// Which row a thread works on, and which of its vectors.
#pragma once

#include "sum.cuh"
#include "task.cuh"

namespace rmsnorm::cuda {

struct Share {
  int64_t row;
  bool exists;
  int number;  // of this block among those of the row
  int lane;    // among the threads of the row in this block
  Place place;
  int64_t first;  // vector
  int stride;     // from one vector to the next
};

template <class S>
RMSNORM_DEVICE Share share_of(const Task<S>& task) {
  Share share;
  share.number = int(block()) & (task.blocks - 1);
  share.lane = thread() & (task.threads - 1);
  const int rows = threads() >> task.threads_log2;
  share.row = (block() >> task.blocks_log2) * rows + (thread() >> task.threads_log2);
  share.exists = share.row < task.rows;
  share.place = place_of(task.kept, share.exists ? share.row : 0);
  const int part = task.is_cluster ? share.number : 0;
  share.first = share.exists ? int64_t(part) * task.threads + share.lane : task.row_vectors;
  share.stride = task.threads * (task.is_cluster ? task.blocks : 1);
  return share;
}

// Over all threads of a row, and what its norm is multiplied by.
template <class S, class Number>
RMSNORM_DEVICE Number reciprocal_for(const Task<S>& task, const Share& share, Number sum) {
  sum = across_threads(sum, task.threads, task.is_cluster ? task.blocks : 1);
  const Number reciprocal = task.root.reciprocal(sum);
  const bool is_first = share.exists && share.lane == 0 && share.number == 0;
  if (task.inverse && is_first) task.inverse[share.row] = float(nearest(reciprocal));
  return reciprocal;
}

}  // namespace rmsnorm::cuda
