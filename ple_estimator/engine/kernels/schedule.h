// Who runs what of a set of nets: which nets one thread runs whole, and which
// are cut into blocks of rows that several threads share.

#ifndef PLE_ESTIMATOR_KERNELS_SCHEDULE_H_
#define PLE_ESTIMATOR_KERNELS_SCHEDULE_H_

#include <algorithm>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <limits>
#include <mutex>
#include <numeric>
#include <vector>

#include "net_layout.h"

namespace ple {

// Which nets of a set are cut, and in which order all are run.
struct Plan {
  std::vector<int> order;   // the costliest first
  std::vector<int> blocks;  // per net, of rows; 1 is not cut
};

// Into how many blocks to cut each of some equal nets, which threads then take
// by turns: as many as end first if a block costs 2 % of a net, whatever its
// rows. Less than 64 rows are not worth a block.
inline int NumBlocks(int nets, int64_t batch, int threads) {
  if (!nets) return 1;
  const int most = static_cast<int>(
      std::min<int64_t>(std::max<int64_t>(1, (batch + 63) / 64), 4 * threads));
  const int least = std::min(most, (threads + nets - 1) / nets);
  int best = least;
  double shortest = std::numeric_limits<double>::max();
  for (int blocks = least; blocks <= most; ++blocks) {
    const int turns = (nets * blocks + threads - 1) / threads;
    const double time = turns * (1. / blocks + 0.02);
    if (time < shortest) {
      shortest = time;
      best = blocks;
    }
  }
  return best;
}

// A net is run fastest by one thread, while it is in the cache of its core. So
// threads take whole nets as long as none gets more than its share of the work,
// but for 5 %; what remains, of five equal nets on two threads one, is cut.
inline Plan PlanOf(const std::vector<Net>& nets, int64_t batch, int threads) {
  std::vector<double> cost(nets.size(), 0.);
  for (size_t n = 0; n < nets.size(); ++n)
    for (const Layer& layer : nets[n].layers)
      cost[n] += static_cast<double>(layer.in) * layer.out;
  Plan plan;
  plan.blocks.assign(nets.size(), 1);
  plan.order.resize(nets.size());
  std::iota(plan.order.begin(), plan.order.end(), 0);
  std::stable_sort(plan.order.begin(), plan.order.end(),
                   [&](int a, int b) { return cost[a] > cost[b]; });
  const double share = std::accumulate(cost.begin(), cost.end(), 0.) / threads;
  std::vector<double> load(threads, 0.);
  std::vector<int> rest;
  for (int net : plan.order) {
    double& least = *std::min_element(load.begin(), load.end());
    if (least + cost[net] > 1.05 * share) {
      rest.push_back(net);
    } else {
      least += cost[net];
    }
  }
  const int blocks = NumBlocks(static_cast<int>(rest.size()), batch, threads);
  for (int net : rest) plan.blocks[net] = blocks;
  return plan;
}

// What a thread is to do next: a net as a whole, or one block of one phase of
// one of its layers.
struct Turn {
  int net, step, phase, block;  // the step-th layer to run, 0 if whole
};

// Hands out the turns of a direction, forward or backward: the nets that one
// thread runs, then the blocks of the others as they become ready. So a thread
// that has finished early helps with what is left.
class Schedule {
 public:
  // `has(net, step, phase)` says whether the step-th layer of a net that is cut
  // has a phase.
  Schedule(const std::vector<Net>& nets, const Plan& plan, int num_phases,
           std::function<bool(int, int, int)> has)
      : num_phases_(num_phases), has_(std::move(has)) {
    for (int net : plan.order) {
      if (plan.blocks[net] == 1) {
        whole_.push_back(net);
      } else {
        const int layers = static_cast<int>(nets[net].layers.size());
        shared_.push_back({net, plan.blocks[net], layers, 0, 0, 0, 0});
        Skip(&shared_.back());
      }
    }
  }

  // How many threads can work at once, at most.
  int width() const {
    int most = static_cast<int>(whole_.size());
    for (const Shared& net : shared_) most += net.blocks;
    return most;
  }

  // Waits until there is something to do, and returns false if there never will
  // be.
  bool Take(Turn* turn) {
    std::unique_lock<std::mutex> lock(mutex_);
    while (true) {
      if (failed_) return false;
      if (taken_ < whole_.size()) {
        *turn = {whole_[taken_++], 0, 0, 0};
        return true;
      }
      bool ended = true;
      for (Shared& net : shared_) {
        if (net.step == net.layers) continue;
        ended = false;
        if (net.taken == net.blocks) continue;
        *turn = {net.net, net.step, net.phase, net.taken++};
        return true;
      }
      if (ended) return false;
      changed_.wait(lock);
    }
  }

  // Says that a turn has been taken to its end.
  void Finish(const Turn& turn) {
    std::lock_guard<std::mutex> lock(mutex_);
    for (Shared& net : shared_) {
      if (net.net != turn.net || ++net.finished < net.blocks) continue;
      net.taken = net.finished = 0;
      ++net.phase;
      Skip(&net);
      changed_.notify_all();
    }
  }

  // Lets all threads go, as one of them has failed.
  void Fail() {
    std::lock_guard<std::mutex> lock(mutex_);
    failed_ = true;
    changed_.notify_all();
  }

 private:
  // A net that is cut: the phase that it is in, and how many of its blocks have
  // been taken and finished.
  struct Shared {
    int net, blocks, layers, step, phase, taken, finished;
  };

  // Goes on to the next phase that a net has.
  void Skip(Shared* net) const {
    while (net->step < net->layers) {
      for (; net->phase < num_phases_; ++net->phase)
        if (has_(net->net, net->step, net->phase)) return;
      ++net->step;
      net->phase = 0;
    }
  }

  const int num_phases_;
  const std::function<bool(int, int, int)> has_;
  std::vector<int> whole_;
  std::vector<Shared> shared_;
  size_t taken_ = 0;
  bool failed_ = false;
  std::mutex mutex_;
  std::condition_variable changed_;
};

}  // namespace ple

#endif  // PLE_ESTIMATOR_KERNELS_SCHEDULE_H_
