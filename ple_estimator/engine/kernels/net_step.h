// What a forward and a backward step of a set of nets share: where their
// numbers lie in memory, and in which order and threads the layers run.

#ifndef PLE_ESTIMATOR_KERNELS_NET_STEP_H_
#define PLE_ESTIMATOR_KERNELS_NET_STEP_H_

#include <algorithm>
#include <functional>
#include <type_traits>
#include <utility>
#include <vector>

#include "common.h"
#include "loops.h"
#include "net_layout.h"
#include "products.h"
#include "schedule.h"
#include "workspace.h"

namespace ple {
namespace {

// What an op works on, alike for forward and backward.
struct Job {
  OpKernelContext* context;
  const Spec& spec;
  const OpInputList& inputs;
  const OpInputList& params;
  const std::vector<Net>& nets;
  Workspace* workspace;
  int64_t seed;  // of dropout
};

// What a layer keeps per block: vectors of its width, each at its own slot.
// Those of the forward step are not read any more when the backward one begins.
enum Slot {
  // Forward: mean and sum of squared differences of the rows of the block, two
  // vectors of scratch for them, the product of the norm below with the rows of
  // the kernel of the block, and the bias that comes of it.
  kMean = 0, kSquares = 1, kMomentsScratch = 2, kFolded = 4, kBias = 5,
  // Backward: sums of dy and of dy (z - mean) over the rows of the block, ones,
  // the sum of du over those rows, and that sum over all rows.
  kSum = 0, kDot = 1, kOnes = 2, kBlockDu = 3, kDu = 4,
  kSlots = 6,
};

// T is the type of the operands of products: float, bf16 or rounded.
//
// From forward to backward z = f(x W + b) is kept, f the activation, and the
// operand that W became. A net's numbers then stay in the cache of the core
// that works on it.
template <typename T>
class Step {
 protected:
  explicit Step(const Job& job)
      : context_(job.context), spec_(job.spec), inputs_(job.inputs),
        params_(job.params), nets_(job.nets), workspace_(job.workspace),
        batch_(job.inputs[0].dim_size(0)),
        plan_(PlanOf(nets_, batch_, NumThreads(context_))),
        seed_(job.seed), drops_(job.spec.drops()) {
    Allocate();
  }

  static constexpr bool kSame = std::is_same<T, float>::value;
  static constexpr bool kToBf16 = std::is_same<T, bf16>::value;
  // What a product gives for an activation: not rounded if that is a float.
  typedef typename std::conditional<kToBf16, bf16, float>::type Given;

  struct Range {
    int64_t begin, end;
    int size() const { return static_cast<int>(end - begin); }
  };

  // A layer's numbers that live from forward to backward.
  struct Place {
    const T* kernel;  // its kernel as an operand, times the scale of the norm
    T* made;          // the same where it is not the parameter itself
    T* z;             // f(x W + b), [rows, out]
    Given* u;         // x W + b where the gradient of f needs it, else is z
    T* y;             // what the layer above reads: with dropout y, else z
    // norm(z) = z scale + shift; dz = scale dy + b z + c. [out] each.
    float *scale, *shift, *b, *c;
    float* slots;     // [blocks, kSlots, out]
  };

  // Numbers of the layer at hand: per thread, or per net if threads share it.
  struct Scratch {
    T* du;           // gradient of x W + b
    T* gradient[2];  // of its input [layer % 2] and of its output
    float* kernels;  // of its kernel from each block, if threads share it
  };

  // A phase of a layer, for one block of its rows, or of those of its kernel.
  struct Task {
    int net, layer, phase, block;
    const Scratch* scratch;
  };

  // A direction: its phases, in their order, are numbers from 0 on. Some are
  // the last layer's alone, as its output is not another layer's input; with
  // dropout they are every layer's.
  struct Direction {
    bool backward;
    int num_phases;
    bool (*of_last)(int phase);
  };

  const float* Input(int i) const { return Data(inputs_[i]); }
  const float* Param(int i) const { return Data(params_[i]); }
  const Layer& LayerOf(const Task& task) const {
    return nets_[task.net].layers[task.layer];
  }
  bool IsLast(const Task& task) const {
    return task.layer + 1 == static_cast<int>(nets_[task.net].layers.size());
  }
  Place& PlaceOf(const Task& task) { return places_[task.net][task.layer]; }
  static Task Below(Task task) {
    --task.layer;
    return task;
  }
  // The layer whose norm the kernel of a layer takes in; null if there is none.
  // With dropout, which comes behind the norm, no kernel does.
  const Layer* NormBelow(const Task& task) const {
    if (!task.layer || drops_) return nullptr;
    const Layer& below = LayerOf(Below(task));
    return below.has_norm() ? &below : nullptr;
  }
  float* At(const Task& task, int block, Slot slot) {
    return PlaceOf(task).slots +
           (static_cast<int64_t>(block) * kSlots + slot) * LayerOf(task).out;
  }
  const T* OperandOf(const Task& task) {
    return task.layer ? PlaceOf(Below(task)).y
                      : x_[nets_[task.net].input];
  }
  // sum = that of a slot over all blocks.
  void SumBlocks(const Task& task, Slot slot, float* sum) {
    for (int k = 0; k < plan_.blocks[task.net]; ++k)
      Add(At(task, k, slot), LayerOf(task).out, k > 0, sum);
  }
  // The part of a block, if its net's blocks cut something of this size.
  Range Cut(const Task& task, int64_t size, int block) const {
    const int blocks = plan_.blocks[task.net];
    return {size * block / blocks, size * (block + 1) / blocks};
  }
  Range Rows(const Task& task) const { return Cut(task, batch_, task.block); }
  // Of its kernel, and so columns of its input.
  Range KernelRows(const Task& task) const {
    return Cut(task, LayerOf(task).in, task.block);
  }

  Dropout DropoutOf(const Task& task) const {
    return Dropout(seed_, task.net, task.layer, spec_.dropout);
  }

  // ----------------------------------------------------------- schedule ---

  // Runs fn for every phase of every layer, in all threads: a net that is not
  // cut by one of them from its first layer to its last; else the blocks of a
  // phase side by side, when those of the phase before have ended.
  void ByLayer(const Direction& direction,
               std::function<void(const Task&)> fn) {
    const std::vector<Scratch> shared = SharedScratch();
    Schedule schedule(
        nets_, plan_, direction.num_phases,
        [&](int net, int step, int phase) {
          return Has(direction, {net, LayerAt(direction, net, step), phase, 0,
                                 nullptr});
        });
    auto work = [&] {
      const Scratch own = ScratchAt(OfThisThread(ScratchBytes()));
      for (Turn turn; schedule.Take(&turn); schedule.Finish(turn)) {
        if (plan_.blocks[turn.net] == 1) {
          RunWhole(direction, turn.net, own, fn);
        } else {
          fn(Task{turn.net, LayerAt(direction, turn.net, turn.step),
                  turn.phase, turn.block, &shared[turn.net]});
        }
      }
    };
    ParallelRun(context_, schedule.width(), [&](int64_t) {
      try {
        work();
      } catch (...) {
        schedule.Fail();
        throw;
      }
    });
  }

  void RunWhole(const Direction& direction, int net, const Scratch& scratch,
                const std::function<void(const Task&)>& fn) {
    const int layers = static_cast<int>(nets_[net].layers.size());
    for (int step = 0; step < layers; ++step) {
      for (int phase = 0; phase < direction.num_phases; ++phase) {
        const Task task{net, LayerAt(direction, net, step), phase, 0, &scratch};
        if (Has(direction, task)) fn(task);
      }
    }
  }

  // Whether a layer has a phase.
  bool Has(const Direction& direction, const Task& task) const {
    return drops_ || !direction.of_last(task.phase) || IsLast(task);
  }

  // Which layer of a net the step-th to run is.
  int LayerAt(const Direction& direction, int net, int step) const {
    const int layers = static_cast<int>(nets_[net].layers.size());
    return direction.backward ? layers - 1 - step : step;
  }

  // ------------------------------------------------------------- memory ---

  static size_t Padded(size_t bytes) { return (bytes + 63) / 64 * 64; }

  size_t ScratchBytes() const {
    return 3 * Padded(Bytes(batch_, widest_, sizeof(T)));
  }

  Scratch ScratchAt(char* memory) const {
    const size_t bytes = ScratchBytes() / 3;
    auto part = [&](int i) { return reinterpret_cast<T*>(memory + i * bytes); };
    return {part(0), {part(1), part(2)}, nullptr};
  }

  // That of the nets that are cut.
  std::vector<Scratch> SharedScratch() {
    std::vector<Scratch> scratch(nets_.size());
    for (size_t n = 0; n < nets_.size(); ++n) {
      if (plan_.blocks[n] == 1) continue;
      const size_t kernels =
          Bytes(plan_.blocks[n], largest_, sizeof(float));
      char* memory = static_cast<char*>(workspace_->Get(
          inputs_.size() + nets_.size() + n, ScratchBytes() + kernels));
      scratch[n] = ScratchAt(memory);
      scratch[n].kernels = reinterpret_cast<float*>(memory + ScratchBytes());
    }
    return scratch;
  }

  static char* OfThisThread(size_t bytes) {
    static thread_local Workspace memory;
    memory.Reserve(1);
    return static_cast<char*>(memory.Get(0, bytes));
  }

  void Allocate() {
    workspace_->Reserve(inputs_.size() + 2 * nets_.size());
    for (int i = 0; i < inputs_.size(); ++i) {
      x_.push_back(kSame ? reinterpret_cast<T*>(const_cast<float*>(Input(i)))
                         : static_cast<T*>(workspace_->Get(
                               i, Bytes(inputs_[i].NumElements(), 1,
                                        sizeof(T)))));
    }
    for (size_t n = 0; n < nets_.size(); ++n) AllocateNet(n);
  }

  void AllocateNet(size_t n) {
    size_t used = 0;
    char* base = nullptr;
    auto take = [&](int64_t rows, int64_t columns, size_t size) {
      char* at = base + used;
      used += Padded(Bytes(rows, columns, size));
      return at;
    };
    // Twice the same walk: first to measure, then to place.
    for (int pass = 0; pass < 2; ++pass) {
      if (pass)
        base = static_cast<char*>(workspace_->Get(inputs_.size() + n, used));
      used = 0;
      std::vector<Place> places;
      bool norm_below = false;
      for (const Layer& layer : nets_[n].layers) {
        const bool last = &layer == &nets_[n].layers.back();
        places.push_back(
            PlaceLayer(layer, norm_below, last, plan_.blocks[n], take));
        norm_below = layer.has_norm() && !drops_;
        widest_ = std::max(widest_, layer.out);
        largest_ = std::max(largest_,
                            static_cast<int64_t>(layer.in) * layer.out);
      }
      T* d_input = reinterpret_cast<T*>(
          take(inputs_[nets_[n].input].NumElements(), 1, sizeof(T)));
      if (!pass) continue;
      places_.push_back(std::move(places));
      d_input_.push_back(d_input);
    }
  }

  template <typename Take>
  Place PlaceLayer(const Layer& layer, bool norm_below, bool last, int blocks,
                   Take take) {
    Place place;
    place.made = nullptr;
    place.kernel = reinterpret_cast<const T*>(Param(layer.kernel));
    if (!kSame || norm_below)
      place.kernel = place.made =
          reinterpret_cast<T*>(take(layer.in, layer.out, sizeof(T)));
    auto rows = [&](bool wanted) {
      return wanted ? take(batch_, layer.out, sizeof(T)) : nullptr;
    };
    place.z = reinterpret_cast<T*>(rows(layer.hidden));
    char* input = rows(layer.hidden && spec_.keeps_input());
    place.u = reinterpret_cast<Given*>(
        input ? input : reinterpret_cast<char*>(place.z));
    place.y = drops_ ? reinterpret_cast<T*>(rows(layer.hidden && !last))
                     : place.z;
    auto vectors = [&](int64_t count) {
      return reinterpret_cast<float*>(take(count, layer.out, sizeof(float)));
    };
    place.scale = vectors(1);
    place.shift = vectors(1);
    place.b = vectors(1);
    place.c = vectors(1);
    place.slots = vectors(static_cast<int64_t>(kSlots) * blocks);
    return place;
  }

  OpKernelContext* context_;
  const Spec& spec_;
  const OpInputList& inputs_;
  const OpInputList& params_;
  const std::vector<Net>& nets_;
  Workspace* workspace_;
  const int64_t batch_;
  const Plan plan_;
  const int64_t seed_;
  const bool drops_;
  int widest_ = 0;       // output of a layer
  int64_t largest_ = 0;  // elements of a kernel
  std::vector<T*> x_;  // inputs as operands
  std::vector<std::vector<Place>> places_;
  std::vector<T*> d_input_;  // per net
};

}  // namespace
}  // namespace ple

#endif  // PLE_ESTIMATOR_KERNELS_NET_STEP_H_
