// PleNets: a set of small dense networks (experts, gates, towers of a level),
// forward and backward, each run by one thread while it is in the cache.
//
// A hidden layer is  y = norm(relu(x W + b)),  norm the batch norm of Ioffe and
// Szegedy (2015) or nothing; a linear layer x W [+ b] may follow the last one.
// With more threads than nets each net is cut into blocks of rows.
//
// norm(z) = z scale + shift is never made where a layer follows, for
//   norm(z) W + b = z (scale W) + (shift W + b),
// and a kernel has fewer rows than a batch. Its gradient comes the same way: all
// sums over the batch that it needs are in z^T du, which the kernel needs too.
//
// The parameters of all nets come as one list: per net and hidden layer
// kernel [in, out], bias [out], and with batch norm gamma [out], beta [out];
// then kernel and, if it has one, bias of the linear layer.

#include <sys/mman.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <memory>
#include <mutex>
#include <type_traits>
#include <vector>

#include "common.h"
#include "loops.h"
#include "products.h"
#include "tensorflow/core/framework/shape_inference.h"
#include "tensorflow/core/framework/variant.h"
#include "tensorflow/core/framework/variant_encode_decode.h"
#include "tensorflow/core/framework/variant_tensor_data.h"

namespace ple {
namespace {

struct Layer {
  int in, out;
  bool hidden;       // relu and batch norm follow
  int kernel, bias;  // positions in the list of parameters; bias -1: none
  int gamma, beta;   // likewise
  int moments;       // offset of mean and variance in the packed moments
};

struct Net {
  int input;
  std::vector<Layer> layers;
};

// What the ops are told by their attributes.
struct Spec {
  std::vector<int> net_input, num_hidden, linear;
  bool batch_norm, bfloat16, training;
  float epsilon;

  void Read(OpKernelConstruction* context) {
    OP_REQUIRES_OK(context, context->GetAttr("net_input", &net_input));
    OP_REQUIRES_OK(context, context->GetAttr("num_hidden", &num_hidden));
    OP_REQUIRES_OK(context, context->GetAttr("linear", &linear));
    OP_REQUIRES_OK(context, context->GetAttr("batch_norm", &batch_norm));
    tensorflow::DataType compute;
    OP_REQUIRES_OK(context, context->GetAttr("compute", &compute));
    bfloat16 = compute == tensorflow::DT_BFLOAT16;
    OP_REQUIRES_OK(context, context->GetAttr("epsilon", &epsilon));
    OP_REQUIRES(context,
                num_hidden.size() == net_input.size() &&
                    linear.size() == net_input.size(),
                errors::InvalidArgument(
                    "net_input, num_hidden and linear must be of one length"));
  }

  // Lays the parameters out over the nets and checks their shapes.
  void Nets(OpKernelContext* context, const OpInputList& inputs,
            const OpInputList& params, std::vector<Net>* nets,
            int* num_moments) const {
    int next = 0, moments = 0;
    for (size_t i = 0; i < net_input.size(); ++i) {
      OP_REQUIRES(context, net_input[i] >= 0 && net_input[i] < inputs.size(),
                  errors::InvalidArgument("net_input out of range"));
      Net net{net_input[i], {}};
      int in = inputs[net.input].dim_size(1);
      const int count = num_hidden[i] + (linear[i] ? 1 : 0);
      for (int l = 0; l < count; ++l) {
        Layer layer{in, 0, l < num_hidden[i], next++, -1, -1, -1, -1};
        if (layer.hidden || linear[i] == 2) layer.bias = next++;
        if (layer.hidden && batch_norm) {
          layer.gamma = next++;
          layer.beta = next++;
        }
        OP_REQUIRES(context, next <= params.size(),
                    errors::InvalidArgument("too few parameters"));
        const Tensor& kernel = params[layer.kernel];
        OP_REQUIRES(context, kernel.dims() == 2 && kernel.dim_size(0) == in,
                    errors::InvalidArgument(
                        "kernel ", layer.kernel, " must have ", in,
                        " rows, got ", kernel.shape().DebugString()));
        layer.out = kernel.dim_size(1);
        for (int vector : {layer.bias, layer.gamma, layer.beta})
          OP_REQUIRES(context,
                      vector < 0 || params[vector].NumElements() == layer.out,
                      errors::InvalidArgument("parameter ", vector,
                                              " must have ", layer.out,
                                              " elements"));
        if (layer.gamma >= 0) {
          layer.moments = moments;
          moments += 2 * layer.out;
        }
        in = layer.out;
        net.layers.push_back(layer);
      }
      OP_REQUIRES(context, count > 0,
                  errors::InvalidArgument("a net must have a layer"));
      nets->push_back(std::move(net));
    }
    OP_REQUIRES(context, next == params.size(),
                errors::InvalidArgument("too many parameters"));
    *num_moments = moments;
  }
};

// Memory of one step, from the forward to the backward op. Kept for the next
// step: 30 MB asked of the system anew cost more than the products of a gate.
class Workspace {
 public:
  // Returns `bytes` bytes at a multiple of 64 in block `index`.
  void* Get(size_t index, size_t bytes) {
    Block& block = blocks_[index];
    if (block.size < bytes) {
      block.size = (bytes + kPage - 1) / kPage * kPage;
      block.memory.reset(aligned_alloc(kPage, block.size));
      madvise(block.memory.get(), block.size, MADV_HUGEPAGE);
    }
    return block.memory.get();
  }
  void Reserve(size_t count) {
    if (blocks_.size() < count) blocks_.resize(count);
  }

 private:
  static constexpr size_t kPage = 2 << 20;
  struct Free {
    void operator()(void* memory) const { free(memory); }
  };
  struct Block {
    std::unique_ptr<void, Free> memory;
    size_t size = 0;
  };
  std::vector<Block> blocks_;
};

// Hands out workspaces and takes them back; owned by the forward kernel.
class WorkspacePool : public std::enable_shared_from_this<WorkspacePool> {
 public:
  std::shared_ptr<Workspace> Take() {
    std::unique_ptr<Workspace> workspace;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (!free_.empty()) {
        workspace = std::move(free_.back());
        free_.pop_back();
      }
    }
    if (!workspace) workspace.reset(new Workspace);
    auto pool = shared_from_this();
    return std::shared_ptr<Workspace>(
        workspace.release(), [pool](Workspace* used) {
          std::lock_guard<std::mutex> lock(pool->mutex_);
          pool->free_.emplace_back(used);
        });
  }

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<Workspace>> free_;
};

// The workspace as a tensor, so that it lives until the gradient has run.
struct Saved {
  std::shared_ptr<Workspace> workspace;
  std::string TypeName() const { return "ple::Saved"; }
  void Encode(tensorflow::VariantTensorData*) const {}
  bool Decode(const tensorflow::VariantTensorData&) { return false; }
  std::string DebugString() const { return TypeName(); }
};

// One step of all nets, T the type of product operands. A layer goes through
// phases; the blocks of a net share each, by rows of the batch or of a kernel.
//
// From forward to backward z = relu(x W + b) is kept, and the operand that W
// became. A net's numbers then stay in the cache of the core that works on it.
template <typename T>
class Step {
 public:
  Step(OpKernelContext* context, const Spec& spec, const OpInputList& inputs,
       const OpInputList& params, const std::vector<Net>& nets,
       Workspace* workspace)
      : context_(context), spec_(spec), inputs_(inputs), params_(params),
        nets_(nets), workspace_(workspace), batch_(inputs[0].dim_size(0)) {
    const int threads = NumThreads(context);
    const int count = nets.size();
    // Less than 64 rows are not worth a task.
    const int most = (batch_ + 63) / 64;
    blocks_ = std::max(1, std::min((threads + count - 1) / count, most));
    Allocate();
  }

  // `moments` is written when training, read when not.
  void Forward(const std::vector<float*>& outputs, float* moments) {
    moments_ = moments;
    ConvertInputs();
    ByLayer(false, [&](const Task& task) {
      float* output = outputs[task.net];
      switch (task.phase) {
        case 0: return MakeKernel(task);
        case 1: return Product(task, output);
        case 2: return MakeNorm(task);
        default: return Output(task, output);
      }
    });
  }

  void Backward(const OpInputList& d_outputs, const float* moments,
                const std::vector<float*>& d_inputs,
                const std::vector<float*>& d_params) {
    moments_ = const_cast<float*>(moments);
    ByLayer(true, [&](const Task& task) {
      const float* from = d_outputs[task.net].template flat<float>().data();
      const T* above = task.scratch->gradient[(task.layer + 1) % 2];
      switch (task.phase) {
        case 0: return Sums(task, from);
        case 1: return MergeSums(task, d_params);
        case 2: return IsLast(task) ? BackwardRows(task, from)
                                    : BackwardRows(task, above);
        default: return BackwardKernel(task, d_params);
      }
    });
    SumInputs(d_inputs);
  }

 private:
  static constexpr bool kSame = std::is_same<T, float>::value;
  static constexpr bool kToBf16 = std::is_same<T, bf16>::value;

  struct Range {
    int64_t begin, end;
    int size() const { return end - begin; }
  };

  // A layer's numbers that live from forward to backward.
  struct Place {
    const T* kernel;  // its kernel as an operand, times the scale of the norm
    T* made;          // the same where it is not the parameter itself
    T* z;             // relu(x W + b), [rows, out]
    // norm(z) = z scale + shift; dz = scale dy + b z + c. [out] each.
    float *scale, *shift, *b, *c;
    float* partial;   // per block: sums and scratch; 6 x out
  };

  // Numbers of the layer at hand: per thread, or per net if threads share it.
  struct Scratch {
    T* du;           // gradient of x W + b
    T* gradient[2];  // of its input [layer % 2] and of its output
  };

  struct Task {
    int net, layer, phase, block;
    const Scratch* scratch;
  };

  const float* Input(int i) const { return inputs_[i].flat<float>().data(); }
  const float* Param(int i) const { return params_[i].flat<float>().data(); }
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
  const Layer* NormBelow(const Task& task) const {
    if (!task.layer) return nullptr;
    const Layer& below = LayerOf(Below(task));
    return below.gamma < 0 ? nullptr : &below;
  }
  float* Partial(const Task& task, int block) {
    return PlaceOf(task).partial + 6 * block * LayerOf(task).out;
  }
  const T* OperandOf(const Task& task) {
    return task.layer ? PlaceOf(Below(task)).z
                      : x_[nets_[task.net].input];
  }
  const float* MeanOf(const Layer& layer) const {
    return moments_ + layer.moments;
  }
  Range Cut(int64_t size, int block) const {
    return {size * block / blocks_, size * (block + 1) / blocks_};
  }
  Range Rows(const Task& task) const { return Cut(batch_, task.block); }
  // Of its kernel, and so columns of its input.
  Range KernelRows(const Task& task) const {
    return Cut(LayerOf(task).in, task.block);
  }

  // A layer has four phases. Two are the last layer's alone, whose output and
  // its gradient are not another layer's: after the product, or before it.
  static constexpr int kPhases = 4;
  static bool OfLast(bool backward, int phase) {
    return backward ? phase < 2 : phase > 1;
  }

  // Where there is one block per net, a net's layers run one after the other
  // in one thread; else all nets go through a phase before the next begins.
  void ByLayer(bool backward, std::function<void(const Task&)> fn) {
    const int count = nets_.size();
    size_t depth = 0;
    for (const Net& net : nets_) depth = std::max(depth, net.layers.size());
    auto layer = [&](int n, int step) {
      const int layers = nets_[n].layers.size();
      return backward ? layers - 1 - step : step;
    };
    auto run = [&](const Task& task) {
      if (IsLast(task) || !OfLast(backward, task.phase)) fn(task);
    };
    if (blocks_ == 1) {
      ParallelRun(context_, count, [&](int n) {
        const Scratch scratch = ScratchAt(OfThisThread(ScratchBytes()));
        for (size_t step = 0; step < nets_[n].layers.size(); ++step)
          for (int phase = 0; phase < kPhases; ++phase)
            run(Task{n, layer(n, step), phase, 0, &scratch});
      });
      return;
    }
    std::vector<Scratch> scratch;
    for (int n = 0; n < count; ++n)
      scratch.push_back(ScratchAt(static_cast<char*>(workspace_->Get(
          inputs_.size() + count + n, ScratchBytes()))));
    for (size_t step = 0; step < depth; ++step) {
      const bool has_last = std::any_of(
          nets_.begin(), nets_.end(), [&](const Net& net) {
            return backward ? step == 0 : step + 1 == net.layers.size();
          });
      for (int phase = 0; phase < kPhases; ++phase) {
        if (!has_last && OfLast(backward, phase)) continue;
        ParallelRun(context_, count * blocks_, [&](int i) {
          const int n = i / blocks_;
          if (step < nets_[n].layers.size())
            run(Task{n, layer(n, step), phase, i % blocks_, &scratch[n]});
        });
      }
    }
  }

  // ------------------------------------------------------------- memory ---

  static size_t Padded(size_t bytes) { return (bytes + 63) / 64 * 64; }

  size_t ScratchBytes() const {
    return 3 * Padded(batch_ * widest_ * sizeof(T));
  }

  Scratch ScratchAt(char* memory) const {
    const size_t bytes = Padded(batch_ * widest_ * sizeof(T));
    auto part = [&](int i) { return reinterpret_cast<T*>(memory + i * bytes); };
    return {part(0), {part(1), part(2)}};
  }

  static char* OfThisThread(size_t bytes) {
    static thread_local Workspace memory;
    memory.Reserve(1);
    return static_cast<char*>(memory.Get(0, bytes));
  }

  void Allocate() {
    const size_t count = nets_.size();
    workspace_->Reserve(inputs_.size() + 2 * count);
    for (int i = 0; i < inputs_.size(); ++i) {
      x_.push_back(kSame ? reinterpret_cast<T*>(const_cast<float*>(Input(i)))
                         : static_cast<T*>(workspace_->Get(
                               i, inputs_[i].NumElements() * sizeof(T))));
    }
    for (size_t n = 0; n < count; ++n) {
      size_t used = 0;
      char* base = nullptr;
      auto take = [&](size_t bytes) {
        char* at = base + used;
        used += Padded(bytes);
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
          places.push_back(PlaceLayer(layer, norm_below, take));
          norm_below = layer.gamma >= 0;
          widest_ = std::max(widest_, layer.out);
        }
        T* d_input = reinterpret_cast<T*>(
            take(inputs_[nets_[n].input].NumElements() * sizeof(T)));
        if (!pass) continue;
        places_.push_back(std::move(places));
        d_input_.push_back(d_input);
      }
    }
  }

  template <typename Take>
  Place PlaceLayer(const Layer& layer, bool norm_below, Take take) {
    Place place;
    place.made = nullptr;
    place.kernel = reinterpret_cast<const T*>(Param(layer.kernel));
    if (!kSame || norm_below)
      place.kernel = place.made =
          reinterpret_cast<T*>(take(layer.in * layer.out * sizeof(T)));
    place.z = layer.hidden ? reinterpret_cast<T*>(
                                 take(batch_ * layer.out * sizeof(T)))
                           : nullptr;
    auto vectors = [&](int count) {
      return reinterpret_cast<float*>(
          take(count * layer.out * sizeof(float)));
    };
    place.scale = vectors(1);
    place.shift = vectors(1);
    place.b = vectors(1);
    place.c = vectors(1);
    place.partial = vectors(6 * blocks_);
    return place;
  }

  // ------------------------------------------------------------ forward ---

  // Inputs in the type of operands.
  void ConvertInputs() {
    if (kSame) return;
    const int threads = NumThreads(context_);
    ParallelRun(context_, inputs_.size() * threads, [&](int task) {
      const int input = task / threads, part = task % threads;
      const int64_t size = inputs_[input].NumElements();
      const int64_t begin = size * part / threads;
      Convert(Input(input) + begin, size * (part + 1) / threads - begin,
              x_[input] + begin);
    });
  }

  // Phase 0: some rows of the kernel as an operand, with the norm below.
  void MakeKernel(const Task& task) {
    const Layer& layer = LayerOf(task);
    T* made = PlaceOf(task).made;
    if (!made) return;
    const Range rows = KernelRows(task);
    const int64_t begin = rows.begin * layer.out;
    const float* kernel = Param(layer.kernel) + begin;
    if (const Layer* below = NormBelow(task)) {
      const Task norm = Below(task);
      MakeNorm(norm);
      Fold(kernel, rows.size(), layer.out,
           PlaceOf(norm).scale + rows.begin, MeanOf(*below) + rows.begin,
           Param(below->beta) + rows.begin, made + begin,
           Partial(task, task.block) + 4 * layer.out);
    } else {
      Convert(kernel, static_cast<int64_t>(rows.size()) * layer.out,
              made + begin);
    }
  }

  // Phase 1: z or the output, and z's moments.
  void Product(const Task& task, float* output) {
    const Layer& layer = LayerOf(task);
    const int width = layer.out;
    const Range rows = Rows(task);
    T* z = layer.hidden ? PlaceOf(task).z + rows.begin * width : nullptr;
    const float* bias = Bias(task);
    Products<T>::OfThisThread().Run(
        {rows.size(), layer.in, width, false, false, layer.in, width,
         bias != nullptr, layer.hidden, layer.hidden && kToBf16},
        OperandOf(task) + rows.begin * layer.in, PlaceOf(task).kernel, bias,
        z ? static_cast<void*>(z) : output + rows.begin * width);
    if (z && std::is_same<T, rounded>::value)
      Convert(reinterpret_cast<float*>(z),
              static_cast<int64_t>(rows.size()) * width, z);
    if (layer.gamma >= 0 && spec_.training) {
      float* partial = Partial(task, task.block);
      Moments(z, rows.size(), width, partial, partial + width,
              partial + 2 * width);
    }
  }

  // The bias, with what the norm below adds; null if there is neither.
  const float* Bias(const Task& task) {
    const Layer& layer = LayerOf(task);
    const float* bias = layer.bias >= 0 ? Param(layer.bias) : nullptr;
    if (!NormBelow(task)) return bias;
    const int width = layer.out;
    float* sum = Partial(task, task.block) + 5 * width;
    for (int k = 0; k < blocks_; ++k)
      Add(Partial(task, k) + 4 * width, width, k > 0, sum);
    if (bias) Add(bias, width, true, sum);
    return sum;
  }

  // Some columns of a layer's scale and shift, and when training of its moments.
  void MakeNorm(const Task& task) {
    const Layer& layer = LayerOf(task);
    if (layer.gamma < 0) return;
    const Range columns = Cut(layer.out, task.block);
    float *mean = moments_ + layer.moments, *variance = mean + layer.out;
    if (spec_.training) MergeMoments(task, columns, mean, variance);
    const float *gamma = Param(layer.gamma), *beta = Param(layer.beta);
    const Place& place = PlaceOf(task);
    for (int64_t j = columns.begin; j < columns.end; ++j) {
      place.scale[j] = gamma[j] / std::sqrt(variance[j] + spec_.epsilon);
      place.shift[j] = beta[j] - mean[j] * place.scale[j];
    }
  }

  // The moments of the batch from those of its blocks.
  void MergeMoments(const Task& task, const Range& columns, float* mean,
                    float* variance) {
    const int width = LayerOf(task).out;
    for (int block = 0; block < blocks_; ++block) {
      const Range rows = Cut(batch_, block);
      const float *other = Partial(task, block), *m2 = other + width;
      const float share =
          rows.end ? static_cast<float>(rows.size()) / rows.end : 0.f;
      for (int64_t j = columns.begin; j < columns.end; ++j) {
        const float before = block ? mean[j] : 0.f;
        const float d = other[j] - before;
        mean[j] = before + d * share;
        variance[j] = (block ? variance[j] : 0.f) + m2[j] +
                      d * d * share * rows.begin;
      }
    }
    for (int64_t j = columns.begin; j < columns.end; ++j) variance[j] /= batch_;
  }

  // Phase 3 of the last layer: norm(z).
  void Output(const Task& task, float* output) {
    const Layer& layer = LayerOf(task);
    if (!layer.hidden) return;
    const Place& place = PlaceOf(task);
    const Range rows = Rows(task);
    const int64_t begin = rows.begin * layer.out;
    if (layer.gamma >= 0) {
      Affine(place.z + begin, rows.size(), layer.out, place.scale, place.shift,
             output + begin);
    } else {
      Add(place.z + begin, static_cast<int64_t>(rows.size()) * layer.out, false,
          output + begin);
    }
  }

  // ----------------------------------------------------------- backward ---

  // Phase 0 of the last layer: the column sums that its norm's gradient needs.
  // Those of other layers come with the kernel above.
  void Sums(const Task& task, const float* dy) {
    const Layer& layer = LayerOf(task);
    if (layer.gamma < 0) return;
    const Range rows = Rows(task);
    const int64_t begin = rows.begin * layer.out;
    float* partial = Partial(task, task.block);
    NormSums(dy + begin, PlaceOf(task).z + begin, MeanOf(layer), rows.size(),
             layer.out, partial, partial + layer.out);
  }

  // Phase 1 of the last layer: some columns of those of the whole batch.
  void MergeSums(const Task& task, const std::vector<float*>& d_params) {
    const Layer& layer = LayerOf(task);
    if (layer.gamma < 0) return;
    const Range columns = Cut(layer.out, task.block);
    float *sum = d_params[layer.beta], *dot = d_params[layer.gamma];
    for (int k = 0; k < blocks_; ++k) {
      const float* partial = Partial(task, k) + columns.begin;
      Add(partial, columns.size(), k > 0, sum + columns.begin);
      Add(partial + layer.out, columns.size(), k > 0, dot + columns.begin);
    }
    NormGradient(task, columns, d_params);
  }

  // From the sums in d_params, of dy in that of beta and of dy (z - mean) in
  // that of gamma: the gradient of gamma, and b and c of the gradient through
  // batch norm in training mode,
  //   dz = s (dy - mean(dy) - xhat mean(dy xhat)) = s dy + b z + c,
  // xhat = (z - mean) / sigma, s = gamma / sigma.
  void NormGradient(const Task& task, const Range& columns,
                    const std::vector<float*>& d_params) {
    const Layer& layer = LayerOf(task);
    const Place& place = PlaceOf(task);
    const float *mean = MeanOf(layer), *variance = mean + layer.out;
    const float* sum = d_params[layer.beta];
    float* d_gamma = d_params[layer.gamma];
    for (int64_t j = columns.begin; j < columns.end; ++j) {
      const float rsigma = 1.f / std::sqrt(variance[j] + spec_.epsilon);
      d_gamma[j] *= rsigma;
      place.b[j] = -place.scale[j] * d_gamma[j] * rsigma / batch_;
      place.c[j] = -place.b[j] * mean[j] - place.scale[j] * sum[j] / batch_;
    }
  }

  // Phase 2: back through norm and relu, and on to the layer below. What comes
  // from the layer above has been multiplied by the scale, in its kernel.
  template <typename D>
  void BackwardRows(const Task& task, const D* dy) {
    const Layer& layer = LayerOf(task);
    const Place& place = PlaceOf(task);
    const Range rows = Rows(task);
    const int width = layer.out;
    const int64_t begin = rows.begin * width;
    float* zeros = Partial(task, task.block);
    float *ones = zeros + width, *sum = ones + 2 * width;
    T* du = task.scratch->du + begin;
    if (layer.hidden) {
      std::fill(zeros, zeros + width, 0.f);
      std::fill(ones, ones + width, 1.f);
      const bool norm = layer.gamma >= 0;
      ReluGrad(dy + begin, place.z + begin, rows.size(), width,
               norm && IsLast(task) ? place.scale : ones,
               norm ? place.b : zeros, norm ? place.c : zeros, du, sum);
    } else {  // the last layer, so dy is float
      Convert(reinterpret_cast<const float*>(dy) + begin,
              static_cast<int64_t>(rows.size()) * width, du);
      ColumnSums(du, rows.size(), width, sum);
    }
    T* dx = task.layer ? task.scratch->gradient[task.layer % 2]
                       : d_input_[task.net];
    Products<T>::OfThisThread().Run(
        {rows.size(), width, layer.in, false, true, width, width, false,
         false, kToBf16},
        du, place.kernel, nullptr, dx + rows.begin * layer.in);
  }

  // Phase 3: the gradients of some rows of the kernel, of the norm below, and
  // of the bias.
  void BackwardKernel(const Task& task, const std::vector<float*>& d_params) {
    const Layer& layer = LayerOf(task);
    const int width = layer.out;
    float* sum = Partial(task, task.block) + 4 * width;
    for (int k = 0; k < blocks_; ++k)
      Add(Partial(task, k) + 3 * width, width, k > 0, sum);
    if (task.block == 0 && layer.bias >= 0)
      std::copy(sum, sum + width, d_params[layer.bias]);
    const Range rows = KernelRows(task);
    if (!rows.size()) return;
    const int64_t begin = rows.begin * width;
    float* gradient = d_params[layer.kernel] + begin;
    Products<T>::OfThisThread().Run(
        {rows.size(), static_cast<int>(batch_), width, true, false, layer.in,
         width, false, false, false},
        OperandOf(task) + rows.begin, task.scratch->du, nullptr, gradient);
    const Layer* below = NormBelow(task);
    if (!below) return;
    const Task norm = Below(task);
    Unfold(Param(layer.kernel) + begin, rows.size(), width,
           PlaceOf(norm).scale + rows.begin, MeanOf(*below) + rows.begin,
           Param(below->beta) + rows.begin, sum, gradient,
           d_params[below->beta] + rows.begin,
           d_params[below->gamma] + rows.begin);
    NormGradient(norm, rows, d_params);
  }

  // The gradient of an input is the sum over the nets that read it.
  void SumInputs(const std::vector<float*>& d_inputs) {
    const int threads = NumThreads(context_);
    ParallelRun(context_, inputs_.size() * threads, [&](int task) {
      const int input = task / threads, part = task % threads;
      const int64_t size = inputs_[input].NumElements();
      const int64_t begin = size * part / threads;
      const int64_t count = size * (part + 1) / threads - begin;
      float* to = d_inputs[input] + begin;
      bool add = false;
      for (size_t n = 0; n < nets_.size(); ++n) {
        if (nets_[n].input != input) continue;
        Add(d_input_[n] + begin, count, add, to);
        add = true;
      }
      if (!add) std::fill_n(to, count, 0.f);
    });
  }

  OpKernelContext* context_;
  const Spec& spec_;
  const OpInputList& inputs_;
  const OpInputList& params_;
  const std::vector<Net>& nets_;
  Workspace* workspace_;
  const int64_t batch_;
  int widest_ = 0;  // output of a layer
  int blocks_;
  float* moments_ = nullptr;
  std::vector<T*> x_;  // inputs as operands
  std::vector<std::vector<Place>> places_;
  std::vector<T*> d_input_;  // per net
};

// Calls fn with the Step of the operand type that spec and processor want.
template <typename Fn>
void WithStep(OpKernelContext* context, const Spec& spec,
              const OpInputList& inputs, const OpInputList& params,
              const std::vector<Net>& nets, Workspace* workspace, Fn fn) {
  if (!spec.bfloat16) {
    fn(Step<float>(context, spec, inputs, params, nets, workspace));
  } else if (HasBfloat16()) {
    fn(Step<bf16>(context, spec, inputs, params, nets, workspace));
  } else {
    fn(Step<rounded>(context, spec, inputs, params, nets, workspace));
  }
}

// -------------------------------------------------------------------- ops ---

bool SameBatch(const OpInputList& inputs) {
  for (int i = 0; i < inputs.size(); ++i)
    if (inputs[i].dims() != 2 ||
        inputs[i].dim_size(0) != inputs[0].dim_size(0))
      return false;
  return inputs.size() > 0;
}

class NetsOp : public OpKernel {
 public:
  explicit NetsOp(OpKernelConstruction* context)
      : OpKernel(context), pool_(std::make_shared<WorkspacePool>()) {
    spec_.Read(context);
    OP_REQUIRES_OK(context, context->GetAttr("training", &spec_.training));
  }

  void Compute(OpKernelContext* context) override {
    OpInputList inputs, params;
    OP_REQUIRES_OK(context, context->input_list("inputs", &inputs));
    OP_REQUIRES_OK(context, context->input_list("params", &params));
    OP_REQUIRES(context, SameBatch(inputs),
                errors::InvalidArgument("inputs must be [batch, width]"));
    std::vector<Net> nets;
    int num_moments = 0;
    spec_.Nets(context, inputs, params, &nets, &num_moments);
    if (!context->status().ok()) return;

    OpOutputList outputs;
    OP_REQUIRES_OK(context, context->output_list("outputs", &outputs));
    std::vector<float*> to;
    for (size_t n = 0; n < nets.size(); ++n) {
      Tensor* output = nullptr;
      OP_REQUIRES_OK(context,
                     outputs.allocate(n, TensorShape({inputs[0].dim_size(0),
                                          nets[n].layers.back().out}),
                                      &output));
      to.push_back(output->flat<float>().data());
    }
    const Tensor& given = context->input(context->num_inputs() - 1);
    Tensor* moments = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(
                                "moments", TensorShape({num_moments}),
                                &moments));
    if (!spec_.training) {
      OP_REQUIRES(context, given.NumElements() == num_moments,
                  errors::InvalidArgument("moving must have ", num_moments,
                                          " elements, got ",
                                          given.NumElements()));
      std::copy_n(given.flat<float>().data(), num_moments,
                  moments->flat<float>().data());
    }
    Tensor* saved = nullptr;
    OP_REQUIRES_OK(context,
                   context->allocate_output("saved", TensorShape({}), &saved));
    Saved state{pool_->Take()};
    float* packed = moments->flat<float>().data();
    WithStep(context, spec_, inputs, params, nets, state.workspace.get(),
             [&](auto step) { step.Forward(to, packed); });
    saved->scalar<tensorflow::Variant>()() = std::move(state);
  }

 private:
  Spec spec_;
  std::shared_ptr<WorkspacePool> pool_;
};

class NetsGradOp : public OpKernel {
 public:
  explicit NetsGradOp(OpKernelConstruction* context) : OpKernel(context) {
    spec_.Read(context);
    spec_.training = true;
  }

  void Compute(OpKernelContext* context) override {
    OpInputList inputs, params, d_outputs;
    OP_REQUIRES_OK(context, context->input_list("inputs", &inputs));
    OP_REQUIRES_OK(context, context->input_list("params", &params));
    OP_REQUIRES_OK(context, context->input_list("d_outputs", &d_outputs));
    const Tensor *moments, *saved;
    OP_REQUIRES_OK(context, context->input("moments", &moments));
    OP_REQUIRES_OK(context, context->input("saved", &saved));
    const Saved* state = saved->scalar<tensorflow::Variant>()().get<Saved>();
    OP_REQUIRES(context, state && state->workspace,
                errors::InvalidArgument("saved must come from PleNets"));
    std::vector<Net> nets;
    int num_moments = 0;
    spec_.Nets(context, inputs, params, &nets, &num_moments);
    if (!context->status().ok()) return;
    std::vector<float*> d_inputs, d_params;
    OP_REQUIRES_OK(context, Allocate(context, "d_inputs", inputs, &d_inputs));
    OP_REQUIRES_OK(context, Allocate(context, "d_params", params, &d_params));
    const float* packed = moments->flat<float>().data();
    WithStep(context, spec_, inputs, params, nets, state->workspace.get(),
             [&](auto step) {
               step.Backward(d_outputs, packed, d_inputs, d_params);
             });
  }

 private:
  Spec spec_;
};

}  // namespace

// What Spec reads, and the lengths of lists.
#define PLE_SPEC_ATTRS \
    .Attr("num_inputs: int >= 1")                  \
    .Attr("num_params: int >= 1")                  \
    .Attr("num_nets: int >= 1")                    \
    .Attr("net_input: list(int)")                  \
    .Attr("num_hidden: list(int)")                 \
    .Attr("linear: list(int)")                     \
    .Attr("batch_norm: bool")                      \
    .Attr("compute: {float, bfloat16} = DT_FLOAT") \
    .Attr("epsilon: float = 0.001")

REGISTER_OP("PleNets")
    .Input("inputs: num_inputs * float")
    .Input("params: num_params * float")
    .Input("moving: float")
    .Output("outputs: num_nets * float")
    .Output("moments: float")
    .Output("saved: variant")
    PLE_SPEC_ATTRS
    .Attr("training: bool")
    .SetIsStateful()  // `saved` is not a value that could be folded or shared
    .SetShapeFn(tensorflow::shape_inference::UnknownShape);

REGISTER_OP("PleNetsGrad")
    .Input("inputs: num_inputs * float")
    .Input("params: num_params * float")
    .Input("d_outputs: num_nets * float")
    .Input("moments: float")
    .Input("saved: variant")
    .Output("d_inputs: num_inputs * float")
    .Output("d_params: num_params * float")
    PLE_SPEC_ATTRS
    .SetShapeFn(tensorflow::shape_inference::UnknownShape);

REGISTER_KERNEL_BUILDER(Name("PleNets").Device(DEVICE_CPU), NetsOp);
REGISTER_KERNEL_BUILDER(Name("PleNetsGrad").Device(DEVICE_CPU), NetsGradOp);

}  // namespace ple

// The version of oneDNN that the ops call, e.g. 30200 for 3.2.0.
extern "C" int32_t ple_onednn_version() {
  const dnnl_version_t* version = dnnl_version();
  return version->major * 10000 + version->minor * 100 + version->patch;
}
