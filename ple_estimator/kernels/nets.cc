// PleNets: a set of small dense networks (experts, gates, towers of a level),
// forward and backward, each run by one thread while it is in the cache.
//
// A hidden layer is  y = norm(relu(x W + b)),  norm the batch norm of Ioffe and
// Szegedy (2015) or nothing; a linear layer x W [+ b] may follow the last one.
// Products are oneDNN's; what is between them is here. With more threads than
// nets each net is cut into blocks of rows.
//
// The parameters of all nets come as one list: per net and hidden layer
// kernel [in, out], bias [out], and with batch norm gamma [out], beta [out];
// then kernel and, if it has one, bias of the linear layer.

#include <omp.h>
#include <sys/mman.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <map>
#include <string>
#include <tuple>
#include <type_traits>
#include <unordered_map>
#include <vector>

#include "dnnl.hpp"
#include "common.h"
#include "tensorflow/core/framework/common_shape_fns.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/shape_inference.h"
#include "tensorflow/core/framework/variant.h"
#include "tensorflow/core/framework/variant_encode_decode.h"
#include "tensorflow/core/framework/variant_tensor_data.h"

namespace ple {
namespace {

using tensorflow::DEVICE_CPU;
using tensorflow::OpInputList;
using tensorflow::OpKernel;
using tensorflow::OpKernelConstruction;
using tensorflow::OpKernelContext;
using tensorflow::OpOutputList;
using tensorflow::Tensor;
using tensorflow::TensorShape;
namespace errors = tensorflow::errors;

// What the operand of a product may be: a float; a bfloat16, the upper half of
// a float; or a float rounded to bfloat16, for processors without such products.
typedef uint16_t bf16;
struct rounded {
  float value;
};

PLE_INLINE uint32_t RoundToUpperHalf(float value) {  // to nearest, ties to even
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  const uint32_t nearest = bits + 0x7fff + ((bits >> 16) & 1);
  // A NaN must not round up to infinity.
  return (bits & 0x7fffffff) > 0x7f800000 ? bits | 0x400000 : nearest;
}
PLE_INLINE void Store(float value, float* to) { *to = value; }
PLE_INLINE void Store(float value, bf16* to) { *to = RoundToUpperHalf(value) >> 16; }
PLE_INLINE void Store(float value, rounded* to) {
  const uint32_t bits = RoundToUpperHalf(value) & 0xffff0000;
  std::memcpy(to, &bits, sizeof(bits));
}

PLE_INLINE float Load(const float* from) { return *from; }
PLE_INLINE float Load(const bf16* from) {
  const uint32_t bits = static_cast<uint32_t>(*from) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

// ----------------------------------------------------- element-wise loops ---

// What a product writes and the next step reads: bfloat16 where the processor
// has it, which halves what goes through the caches; the sums are float.
template <typename T>
struct StoredAs {
  typedef float type;
};
template <>
struct StoredAs<bf16> {
  typedef bf16 type;
};

template <typename T>
PLE_INLINE void ConvertLoop(const float* from, int64_t n, T* to) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) Store(from[i], to + i);
}

constexpr int kChunk = 16;  // rows whose moments are taken in the L1 cache

// mean[j] and m2[j] = sum of (z[i, j] - mean[j])^2 over rows; scratch [2, n].
// By chunks, merged as Chan et al. (1983): one pass over memory, and no
// cancellation where the mean is large.
template <typename S>
PLE_INLINE void MomentsLoop(const S* z, int rows, int n, float* mean,
                            float* m2, float* scratch) {
  float* chunk_mean = scratch;
  float* chunk_m2 = scratch + n;
  std::fill(mean, mean + n, 0.f);
  std::fill(m2, m2 + n, 0.f);
  for (int begin = 0; begin < rows; begin += kChunk) {
    const int count = std::min(kChunk, rows - begin);
    const S* first = z + static_cast<int64_t>(begin) * n;
    std::fill(chunk_mean, chunk_mean + n, 0.f);
    std::fill(chunk_m2, chunk_m2 + n, 0.f);
    for (int i = 0; i < count; ++i) {
#pragma omp simd
      for (int j = 0; j < n; ++j) chunk_mean[j] += Load(first + i * n + j);
    }
    const float part = 1.f / count;
    for (int j = 0; j < n; ++j) chunk_mean[j] *= part;
    for (int i = 0; i < count; ++i) {
#pragma omp simd
      for (int j = 0; j < n; ++j) {
        const float d = Load(first + i * n + j) - chunk_mean[j];
        chunk_m2[j] += d * d;
      }
    }
    const float share = static_cast<float>(count) / (begin + count);
    const float weight = share * begin;
#pragma omp simd
    for (int j = 0; j < n; ++j) {
      const float d = chunk_mean[j] - mean[j];
      mean[j] += d * share;
      m2[j] += chunk_m2[j] + d * d * weight;
    }
  }
}

// y = z * scale + shift, per column.
template <typename S, typename T>
PLE_INLINE void AffineLoop(const S* z, int rows, int n, const float* scale,
                           const float* shift, T* y) {
  for (int i = 0; i < rows; ++i, z += n, y += n) {
#pragma omp simd
    for (int j = 0; j < n; ++j) Store(Load(z + j) * scale[j] + shift[j], y + j);
  }
}

// sum[j] = sum of dy, dot[j] = sum of dy * (z - mean), over rows.
template <typename D, typename S>
PLE_INLINE void NormSumsLoop(const D* dy, const S* z, const float* mean,
                             int rows, int n, float* sum, float* dot) {
  std::fill(sum, sum + n, 0.f);
  std::fill(dot, dot + n, 0.f);
  for (int i = 0; i < rows; ++i, dy += n, z += n) {
#pragma omp simd
    for (int j = 0; j < n; ++j) {
      const float d = Load(dy + j);
      sum[j] += d;
      dot[j] += d * (Load(z + j) - mean[j]);
    }
  }
}

// du = (a * dy + b * z + c) where z > 0, else 0; sum[j] = sum of du.
template <typename D, typename S, typename T>
PLE_INLINE void ReluGradLoop(const D* dy, const S* z, int rows, int n,
                             const float* a, const float* b, const float* c,
                             T* du, float* sum) {
  std::fill(sum, sum + n, 0.f);
  for (int i = 0; i < rows; ++i, dy += n, z += n, du += n) {
#pragma omp simd
    for (int j = 0; j < n; ++j) {
      const float x = Load(z + j);
      const float all = a[j] * Load(dy + j) + b[j] * x + c[j];
      const float value = x > 0 ? all : 0.f;
      sum[j] += value;
      Store(value, du + j);
    }
  }
}

// sum[j] = sum of x[i, j] over rows.
PLE_VECTORIZED void ColumnSums(const float* x, int rows, int n, float* sum) {
  std::fill(sum, sum + n, 0.f);
  for (int i = 0; i < rows; ++i, x += n) {
#pragma omp simd
    for (int j = 0; j < n; ++j) sum[j] += x[j];
  }
}

// to = or += from.
template <typename S>
PLE_INLINE void AddLoop(const S* from, int64_t n, bool add, float* to) {
  if (add) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) to[i] += Load(from + i);
  } else {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) to[i] = Load(from + i);
  }
}

// GCC makes clones of functions, not of templates. A gradient D comes from
// outside as float, from the layer above as S.
#define PLE_GRADIENT_LOOPS(D, S, T)                                          \
  PLE_VECTORIZED void NormSums(const D* dy, const S* z, const float* mean,   \
                               int rows, int n, const T*, float* sum,        \
                               float* dot) {                                 \
    NormSumsLoop(dy, z, mean, rows, n, sum, dot);                            \
  }                                                                          \
  PLE_VECTORIZED void ReluGrad(const D* dy, const S* z, int rows, int n,     \
                               const float* a, const float* b,               \
                               const float* c, T* du, float* sum) {          \
    ReluGradLoop(dy, z, rows, n, a, b, c, du, sum);                          \
  }
#define PLE_STORED_LOOPS(S)                                                  \
  PLE_VECTORIZED void Moments(const S* z, int rows, int n, float* mean,      \
                              float* m2, float* scratch) {                   \
    MomentsLoop(z, rows, n, mean, m2, scratch);                              \
  }                                                                          \
  PLE_VECTORIZED void Add(const S* from, int64_t n, bool add, float* to) {   \
    AddLoop(from, n, add, to);                                               \
  }
#define PLE_AFFINE_LOOPS(S, T)                                               \
  PLE_VECTORIZED void Affine(const S* z, int rows, int n,                    \
                             const float* scale, const float* shift, T* y) { \
    AffineLoop(z, rows, n, scale, shift, y);                                 \
  }
#define PLE_CONVERT_LOOPS(T)                                                 \
  PLE_VECTORIZED void Convert(const float* from, int64_t n, T* to) {         \
    ConvertLoop(from, n, to);                                                \
  }
PLE_GRADIENT_LOOPS(float, float, float)
PLE_GRADIENT_LOOPS(float, float, rounded)
PLE_GRADIENT_LOOPS(float, bf16, bf16)
PLE_GRADIENT_LOOPS(bf16, bf16, bf16)
PLE_STORED_LOOPS(float)
PLE_STORED_LOOPS(bf16)
PLE_AFFINE_LOOPS(float, float)
PLE_AFFINE_LOOPS(float, rounded)
PLE_AFFINE_LOOPS(bf16, float)
PLE_AFFINE_LOOPS(bf16, bf16)
PLE_CONVERT_LOOPS(float)
PLE_CONVERT_LOOPS(rounded)
PLE_CONVERT_LOOPS(bf16)

// --------------------------------------------------------------- products ---

dnnl::engine& Engine() {
  static auto* engine = new dnnl::engine(dnnl::engine::kind::cpu, 0);
  return *engine;
}

template <typename T>
constexpr dnnl::memory::data_type DataType() {
  return std::is_same<T, bf16>::value ? dnnl::memory::data_type::bf16
                        : dnnl::memory::data_type::f32;
}

// Whether bfloat16 products are faster than float32's on this processor.
bool HasBfloat16() {
  static const bool has =
      (dnnl_get_effective_cpu_isa() & dnnl_cpu_isa_avx512_core_bf16) ==
      dnnl_cpu_isa_avx512_core_bf16;
  return has;
}

// c [m, n] = op(a) op(b) (+ bias) (relu), op a transpose where asked, c float
// or bfloat16. lda and ldb are the strides of the rows as stored.
struct Shape {
  int m, k, n;
  bool transpose_a, transpose_b;
  int lda, ldb;
  bool bias, relu, to_bf16;
  bool operator<(const Shape& other) const {
    return Key() < other.Key();
  }
  std::tuple<int, int, int, bool, bool, int, int, bool, bool, bool> Key()
      const {
    return std::make_tuple(m, k, n, transpose_a, transpose_b, lda, ldb, bias,
                           relu, to_bf16);
  }
};

// One per thread: no lock, and each thread keeps oneDNN to itself. (Two OpenMP
// threads inside a thread of TensorFlow's pool share a core with the others.)
template <typename T>
class Products {
 public:
  static Products& OfThisThread() {
    static thread_local Products products;
    return products;
  }

  void Run(const Shape& s, const T* a, const T* b, const float* bias,
           void* c) {
    Primitive& p = Get(s);
    p.a.set_data_handle(const_cast<T*>(a));
    p.b.set_data_handle(const_cast<T*>(b));
    p.c.set_data_handle(c);
    if (s.bias) p.bias.set_data_handle(const_cast<float*>(bias));
    p.product.execute(stream_, p.arguments);
  }

 private:
  struct Primitive {
    dnnl::matmul product;
    dnnl::memory a, b, c, bias;
    std::unordered_map<int, dnnl::memory> arguments;
  };

  Products() : stream_(Engine()) { omp_set_num_threads(1); }

  Primitive& Get(const Shape& s) {
    auto found = primitives_.find(s);
    if (found != primitives_.end()) return found->second;
    // Batches of ever new sizes must not fill the memory.
    if (primitives_.size() >= 512) primitives_.clear();
    typedef dnnl::memory::desc Desc;
    typedef dnnl::memory::dims Dims;
    const auto f32 = dnnl::memory::data_type::f32;
    const Desc a = Matrix(s.m, s.k, s.lda, s.transpose_a);
    const Desc b = Matrix(s.k, s.n, s.ldb, s.transpose_b);
    const Desc c({s.m, s.n},
                 s.to_bf16 ? dnnl::memory::data_type::bf16 : f32,
                 Dims{s.n, 1});
    const Desc bias = s.bias ? Desc({1, s.n}, f32, Dims{s.n, 1}) : Desc();
    dnnl::primitive_attr attributes;
    if (s.relu) {
      dnnl::post_ops after;
      after.append_eltwise(dnnl::algorithm::eltwise_relu, 0.f, 0.f);
      attributes.set_post_ops(after);
    }
    Primitive p;
    p.product = dnnl::matmul(
        s.bias ? dnnl::matmul::primitive_desc(Engine(), a, b, bias, c,
                                              attributes)
               : dnnl::matmul::primitive_desc(Engine(), a, b, c, attributes));
    p.a = dnnl::memory(a, Engine(), nullptr);
    p.b = dnnl::memory(b, Engine(), nullptr);
    p.c = dnnl::memory(c, Engine(), nullptr);
    p.arguments = {{DNNL_ARG_SRC, p.a}, {DNNL_ARG_WEIGHTS, p.b},
                   {DNNL_ARG_DST, p.c}};
    if (s.bias) {
      p.bias = dnnl::memory(bias, Engine(), nullptr);
      p.arguments[DNNL_ARG_BIAS] = p.bias;
    }
    return primitives_.emplace(s, std::move(p)).first->second;
  }

  static dnnl::memory::desc Matrix(int rows, int columns, int stride,
                                   bool transpose) {
    typedef dnnl::memory::dims Dims;
    return dnnl::memory::desc(
        Dims{rows, columns}, DataType<T>(),
        transpose ? Dims{1, stride} : Dims{stride, 1});
  }

  dnnl::stream stream_;
  std::map<Shape, Primitive> primitives_;
};

// ----------------------------------------------------------- the networks ---

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

// One step of all nets, T the type of product operands.
//
// Of the forward pass only z = relu(x W + b) is kept, and what batch norm makes
// of it is made again: a net's numbers then stay in the cache of the core that
// works on it, which matters more than the second multiplication.
template <typename T>
class Step {
  typedef typename StoredAs<T>::type S;

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
    MakeOperands();
    ByLayer(false, 2, [&](const Task& task) {
      if (task.phase == 0) {
        ForwardProduct(task, outputs[task.net]);
      } else {
        Normalize(task, outputs[task.net]);
      }
    });
  }

  void Backward(const OpInputList& d_outputs, const float* moments,
                const std::vector<float*>& d_inputs,
                const std::vector<float*>& d_params) {
    moments_ = const_cast<float*>(moments);
    ByLayer(true, 3, [&](const Task& task) {
      const bool last = IsLast(task);
      const float* from = d_outputs[task.net].template flat<float>().data();
      const S* above = At(task).gradient[(task.layer + 1) % 2];
      if (task.phase == 0) {
        last ? Sums(task, from) : Sums(task, above);
      } else if (task.phase == 1) {
        last ? BackwardRows(task, from, d_params)
             : BackwardRows(task, above, d_params);
      } else {
        BackwardKernel(task, d_params);
      }
    });
    SumInputs(d_inputs);
  }

 private:
  static constexpr bool kSame = std::is_same<T, float>::value;
  static constexpr bool kToBf16 = std::is_same<S, bf16>::value;

  struct Range {
    int64_t begin, end;
    int size() const { return end - begin; }
  };

  // A layer's numbers that live from forward to backward; [rows, width] each.
  struct Place {
    const T* kernel;  // its kernel as an operand
    T* converted;     // the same where it is not the parameter itself
    S* z;             // relu(x W + b)
    float* partial;   // per block: moments or sums, and scratch; 6 x out
  };

  // Numbers of the layer at hand: per thread, or per net if threads share it.
  struct Scratch {
    T* y;            // its input, and that of the layer behind it
    T* du;           // gradient of x W + b
    S* gradient[2];  // of its input [layer % 2] and of its output
  };

  struct Task {
    int net, layer, phase, block;
    Scratch* scratch;
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
  Scratch& At(const Task& task) { return *task.scratch; }
  float* Partial(const Task& task, int block) {
    return PlaceOf(task).partial + 6 * block * LayerOf(task).out;
  }
  const T* OperandOf(const Task& task) {
    return task.layer ? At(task).y : x_[nets_[task.net].input];
  }
  Range Rows(int block) const { return Cut(batch_, block); }
  Range Cut(int64_t size, int block) const {
    return {size * block / blocks_, size * (block + 1) / blocks_};
  }

  // Where there is one block per net, a net's layers run one after the other
  // in one thread; else all nets go through a phase before the next begins.
  void ByLayer(bool backward, int phases,
               std::function<void(const Task&)> fn) {
    const int count = nets_.size();
    size_t depth = 0;
    for (const Net& net : nets_) depth = std::max(depth, net.layers.size());
    auto layer = [&](int n, int step) {
      const int layers = nets_[n].layers.size();
      return backward ? layers - 1 - step : step;
    };
    if (blocks_ == 1) {
      ParallelRun(context_, count, [&](int n) {
        Scratch scratch = ScratchAt(OfThisThread(ScratchBytes()));
        for (size_t step = 0; step < nets_[n].layers.size(); ++step)
          for (int phase = 0; phase < phases; ++phase)
            fn(Task{n, layer(n, step), phase, 0, &scratch});
      });
      return;
    }
    std::vector<Scratch> scratch;
    for (int n = 0; n < count; ++n)
      scratch.push_back(ScratchAt(static_cast<char*>(workspace_->Get(
          inputs_.size() + count + n, ScratchBytes()))));
    for (size_t step = 0; step < depth; ++step)
      for (int phase = 0; phase < phases; ++phase)
        ParallelRun(context_, count * blocks_, [&](int i) {
          const int n = i / blocks_;
          if (step < nets_[n].layers.size())
            fn(Task{n, layer(n, step), phase, i % blocks_, &scratch[n]});
        });
  }

  // ------------------------------------------------------------- memory ---

  static size_t Padded(size_t bytes) { return (bytes + 63) / 64 * 64; }

  size_t ScratchBytes() const {
    return 2 * Padded(batch_ * widest_ * sizeof(T)) +
           2 * Padded(batch_ * widest_ * sizeof(S));
  }

  Scratch ScratchAt(char* memory) const {
    const size_t operand = Padded(batch_ * widest_ * sizeof(T));
    const size_t stored = Padded(batch_ * widest_ * sizeof(S));
    Scratch scratch;
    scratch.y = reinterpret_cast<T*>(memory);
    scratch.du = reinterpret_cast<T*>(memory + operand);
    scratch.gradient[0] = reinterpret_cast<S*>(memory + 2 * operand);
    scratch.gradient[1] = reinterpret_cast<S*>(memory + 2 * operand + stored);
    return scratch;
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
        for (const Layer& layer : nets_[n].layers) {
          places.push_back(PlaceLayer(layer, take));
          widest_ = std::max(widest_, layer.out);
        }
        S* d_input = reinterpret_cast<S*>(
            take(inputs_[nets_[n].input].NumElements() * sizeof(S)));
        if (!pass) continue;
        places_.push_back(std::move(places));
        d_input_.push_back(d_input);
      }
    }
  }

  template <typename Take>
  Place PlaceLayer(const Layer& layer, Take take) {
    Place place;
    place.converted = nullptr;
    place.kernel = reinterpret_cast<const T*>(Param(layer.kernel));
    if (!kSame)
      place.kernel = place.converted =
          reinterpret_cast<T*>(take(layer.in * layer.out * sizeof(T)));
    place.z = layer.hidden ? reinterpret_cast<S*>(
                                 take(batch_ * layer.out * sizeof(S)))
                           : nullptr;
    place.partial = reinterpret_cast<float*>(
        take(6 * blocks_ * layer.out * sizeof(float)));
    return place;
  }

  // ------------------------------------------------------------ forward ---

  // Inputs and kernels in the type of operands.
  void MakeOperands() {
    if (kSame) return;
    const int threads = NumThreads(context_);
    ParallelRun(context_, inputs_.size() * threads, [&](int task) {
      const int input = task / threads, part = task % threads;
      const int64_t size = inputs_[input].NumElements();
      const int64_t begin = size * part / threads;
      Convert(Input(input) + begin, size * (part + 1) / threads - begin,
              x_[input] + begin);
    });
    if (blocks_ == 1) return;  // who uses a kernel makes it
    ParallelRun(context_, nets_.size(), [&](int n) {
      for (size_t l = 0; l < nets_[n].layers.size(); ++l) MakeKernel(n, l);
    });
  }

  void MakeKernel(int n, int l) {
    const Layer& layer = nets_[n].layers[l];
    Convert(Param(layer.kernel), static_cast<int64_t>(layer.in) * layer.out,
            places_[n][l].converted);
  }

  void ForwardProduct(const Task& task, float* output) {
    const Layer& layer = LayerOf(task);
    Place& place = PlaceOf(task);
    const Range rows = Rows(task.block);
    const int64_t begin = rows.begin * layer.out;
    const bool bias = layer.bias >= 0;
    if (!kSame && blocks_ == 1) MakeKernel(task.net, task.layer);
    Products<T>::OfThisThread().Run(
        {rows.size(), layer.in, layer.out, false, false, layer.in, layer.out,
         bias, layer.hidden, layer.hidden && kToBf16},
        OperandOf(task) + rows.begin * layer.in, place.kernel,
        bias ? Param(layer.bias) : nullptr,
        layer.hidden ? static_cast<void*>(place.z + begin) : output + begin);
    if (layer.gamma >= 0 && spec_.training) {
      float* partial = Partial(task, task.block);
      Moments(place.z + begin, rows.size(), layer.out, partial,
              partial + layer.out, partial + 2 * layer.out);
    }
  }

  // Batch norm, into the operand of the next layer or the output.
  void Normalize(const Task& task, float* output) {
    const Layer& layer = LayerOf(task);
    if (!layer.hidden) return;
    const int width = layer.out;
    if (layer.gamma >= 0 && spec_.training) {
      float* mean = Partial(task, task.block) + 2 * width;
      MergeMoments(task, mean, mean + width);
      if (task.block == 0)
        std::copy(mean, mean + 2 * width, moments_ + layer.moments);
      ScaleAndShift(layer, mean, mean + width, mean, mean + width);
      ApplyNorm(task, mean, mean + width, output);
    } else {
      ApplyNorm(task, output);
    }
  }

  // The moments of the batch from those of its blocks.
  void MergeMoments(const Task& task, float* mean, float* variance) {
    const int width = LayerOf(task).out;
    const float* first = Partial(task, 0);
    std::copy(first, first + width, mean);
    std::copy(first + width, first + 2 * width, variance);
    for (int block = 1; block < blocks_; ++block) {
      const Range rows = Rows(block);
      const float* partial = Partial(task, block);
      const float share = static_cast<float>(rows.size()) / rows.end;
      for (int j = 0; j < width; ++j) {
        const float d = partial[j] - mean[j];
        mean[j] += d * share;
        variance[j] += partial[width + j] + d * d * share * rows.begin;
      }
    }
    for (int j = 0; j < width; ++j) variance[j] /= batch_;
  }

  // norm(z) = z * scale + shift. May write where it reads.
  void ScaleAndShift(const Layer& layer, const float* mean,
                     const float* variance, float* scale, float* shift) {
    const float* gamma = Param(layer.gamma);
    const float* beta = Param(layer.beta);
    for (int j = 0; j < layer.out; ++j) {
      const float m = mean[j];
      const float s = gamma[j] / std::sqrt(variance[j] + spec_.epsilon);
      scale[j] = s;
      shift[j] = beta[j] - m * s;
    }
  }

  // The same from the moments of the batch, or the moving ones.
  void ApplyNorm(const Task& task, float* output) {
    const Layer& layer = LayerOf(task);
    float* scale = Partial(task, task.block) + 2 * layer.out;
    float* shift = scale + layer.out;
    if (layer.gamma < 0) {
      std::fill(scale, shift, 1.f);
      std::fill(shift, shift + layer.out, 0.f);
    } else {
      const float* mean = moments_ + layer.moments;
      ScaleAndShift(layer, mean, mean + layer.out, scale, shift);
    }
    ApplyNorm(task, scale, shift, output);
  }

  void ApplyNorm(const Task& task, const float* scale, const float* shift,
                 float* output) {
    const int width = LayerOf(task).out;
    const Range rows = Rows(task.block);
    const int64_t begin = rows.begin * width;
    const S* z = PlaceOf(task).z + begin;
    if (output && IsLast(task)) {
      Affine(z, rows.size(), width, scale, shift, output + begin);
    } else {
      Affine(z, rows.size(), width, scale, shift, At(task).y + begin);
    }
  }

  // ----------------------------------------------------------- backward ---

  // Phase 0: the column sums that batch norm's gradient needs.
  template <typename D>
  void Sums(const Task& task, const D* dy) {
    const Layer& layer = LayerOf(task);
    if (layer.gamma < 0) return;
    const Range rows = Rows(task.block);
    const int64_t begin = rows.begin * layer.out;
    float* partial = Partial(task, task.block);
    NormSums(dy + begin, PlaceOf(task).z + begin, moments_ + layer.moments,
             rows.size(), layer.out, static_cast<const T*>(nullptr), partial,
             partial + layer.out);
  }

  // Phase 1: back through batch norm and relu, and on to the layer below,
  // whose output is made again for phase 2.
  template <typename D>
  void BackwardRows(const Task& task, const D* dy,
                    const std::vector<float*>& d_params) {
    const Layer& layer = LayerOf(task);
    const Range rows = Rows(task.block);
    const int width = layer.out;
    const int64_t begin = rows.begin * width;
    float* a = Partial(task, task.block) + 2 * width;
    float *b = a + width, *c = b + width, *sum = c + width;
    T* du = At(task).du + begin;
    if (layer.hidden) {
      NormCoefficients(task, a, b, c, d_params);
      ReluGrad(dy + begin, PlaceOf(task).z + begin, rows.size(), width, a, b,
               c, du, sum);
    } else {  // the last layer, so dy is float
      const float* from = reinterpret_cast<const float*>(dy) + begin;
      Convert(from, static_cast<int64_t>(rows.size()) * width, du);
      if (layer.bias >= 0) ColumnSums(from, rows.size(), width, sum);
    }
    S* dx = task.layer ? At(task).gradient[task.layer % 2]
                       : d_input_[task.net];
    Products<T>::OfThisThread().Run(
        {rows.size(), width, layer.in, false, true, width, width, false,
         false, kToBf16},
        du, PlaceOf(task).kernel, nullptr, dx + rows.begin * layer.in);
    if (task.layer) {
      Task below = task;
      --below.layer;
      ApplyNorm(below, nullptr);
    }
  }

  // dz = a dy + b z + c, the gradient through batch norm in training mode:
  // s (dy - mean(dy) - xhat mean(dy xhat)),  xhat = (z - mean) / sigma,
  // s = gamma / sigma.
  void NormCoefficients(const Task& task, float* a, float* b, float* c,
                        const std::vector<float*>& d_params) {
    const Layer& layer = LayerOf(task);
    const int width = layer.out;
    if (layer.gamma < 0) {
      std::fill(a, a + width, 1.f);
      std::fill(b, b + 2 * width, 0.f);
      return;
    }
    const float* mean = moments_ + layer.moments;
    const float* variance = mean + width;
    const float* gamma = Param(layer.gamma);
    for (int j = 0; j < width; ++j) {
      float sum = 0, dot = 0;
      for (int k = 0; k < blocks_; ++k) {
        sum += Partial(task, k)[j];
        dot += Partial(task, k)[width + j];
      }
      const float rsigma = 1.f / std::sqrt(variance[j] + spec_.epsilon);
      const float d_gamma = dot * rsigma;
      if (task.block == 0) {
        d_params[layer.gamma][j] = d_gamma;
        d_params[layer.beta][j] = sum;
      }
      a[j] = gamma[j] * rsigma;
      b[j] = -a[j] * d_gamma * rsigma / batch_;
      c[j] = -b[j] * mean[j] - a[j] * sum / batch_;
    }
  }

  // Phase 2: the gradients of kernel and bias.
  void BackwardKernel(const Task& task, const std::vector<float*>& d_params) {
    const Layer& layer = LayerOf(task);
    const int width = layer.out;
    if (task.block == 0 && layer.bias >= 0)
      for (int k = 0; k < blocks_; ++k)
        Add(Partial(task, k) + 5 * width, width, k > 0,
            d_params[layer.bias]);
    const Range columns = Cut(layer.in, task.block);
    if (!columns.size()) return;
    Products<T>::OfThisThread().Run(
        {columns.size(), batch_, width, true, false, layer.in, width, false,
         false, false},
        OperandOf(task) + columns.begin, At(task).du, nullptr,
        d_params[layer.kernel] + columns.begin * width);
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
  std::vector<S*> d_input_;  // per net
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
    if (!Allocate(context, "d_inputs", inputs, &d_inputs)) return;
    if (!Allocate(context, "d_params", params, &d_params)) return;
    const float* packed = moments->flat<float>().data();
    WithStep(context, spec_, inputs, params, nets, state->workspace.get(),
             [&](auto step) {
               step.Backward(d_outputs, packed, d_inputs, d_params);
             });
  }

 private:
  // One output of the shape of each of `like`; false if that fails.
  static bool Allocate(OpKernelContext* context, const char* name,
                       const OpInputList& like, std::vector<float*>* to) {
    OpOutputList outputs;
    tensorflow::Status status = context->output_list(name, &outputs);
    for (int i = 0; status.ok() && i < like.size(); ++i) {
      Tensor* output = nullptr;
      status = outputs.allocate(i, like[i].shape(), &output);
      if (status.ok()) to->push_back(output->flat<float>().data());
    }
    if (!status.ok()) context->SetStatus(status);
    return status.ok();
  }

  Spec spec_;
};

}  // namespace

REGISTER_OP("PleNets")
    .Input("inputs: num_inputs * float")
    .Input("params: num_params * float")
    .Input("moving: float")
    .Output("outputs: num_nets * float")
    .Output("moments: float")
    .Output("saved: variant")
    .Attr("num_inputs: int >= 1")
    .Attr("num_params: int >= 1")
    .Attr("num_nets: int >= 1")
    .Attr("net_input: list(int)")
    .Attr("num_hidden: list(int)")
    .Attr("linear: list(int)")
    .Attr("batch_norm: bool")
    .Attr("compute: {float, bfloat16} = DT_FLOAT")
    .Attr("training: bool")
    .Attr("epsilon: float = 0.001")
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
    .Attr("num_inputs: int >= 1")
    .Attr("num_params: int >= 1")
    .Attr("num_nets: int >= 1")
    .Attr("net_input: list(int)")
    .Attr("num_hidden: list(int)")
    .Attr("linear: list(int)")
    .Attr("batch_norm: bool")
    .Attr("compute: {float, bfloat16} = DT_FLOAT")
    .Attr("epsilon: float = 0.001")
    .SetShapeFn(tensorflow::shape_inference::UnknownShape);

REGISTER_KERNEL_BUILDER(Name("PleNets").Device(DEVICE_CPU), NetsOp);
REGISTER_KERNEL_BUILDER(Name("PleNetsGrad").Device(DEVICE_CPU), NetsGradOp);

}  // namespace ple

// The version of oneDNN that the ops call, e.g. 30200 for 3.2.0.
extern "C" int32_t ple_onednn_version() {
  const dnnl_version_t* version = dnnl_version();
  return version->major * 10000 + version->minor * 100 + version->patch;
}
