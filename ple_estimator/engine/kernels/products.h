// Products of matrices by oneDNN, each thread with primitives of its own.

#ifndef PLE_ESTIMATOR_KERNELS_PRODUCTS_H_
#define PLE_ESTIMATOR_KERNELS_PRODUCTS_H_

#include <omp.h>

#include <algorithm>
#include <map>
#include <new>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <unordered_map>
#include <utility>

#include "dnnl.hpp"
#include "common.h"
#include "loops.h"

namespace ple {
namespace {

// The processor, for oneDNN.
inline dnnl::engine& Engine() {
  static auto* engine = new dnnl::engine(dnnl::engine::kind::cpu, 0);
  return *engine;
}

template <typename T>
constexpr dnnl::memory::data_type DataType() {
  return std::is_same<T, bf16>::value ? dnnl::memory::data_type::bf16
                        : dnnl::memory::data_type::f32;
}

// Whether bfloat16 products are faster than float32's on this processor.
inline bool HasBfloat16() {
  static const bool has =
      (dnnl_get_effective_cpu_isa() & dnnl_cpu_isa_avx512_core_bf16) ==
      dnnl_cpu_isa_avx512_core_bf16;
  return has;
}

// c [m, n] = op(a) op(b) (+ bias), op a transpose where asked, c float or
// bfloat16. lda and ldb are the strides of the rows as stored.
struct Shape {
  int64_t m, k, n;
  bool transpose_a, transpose_b;
  int64_t lda, ldb;
  bool bias, to_bf16;

  bool operator<(const Shape& other) const { return Key() < other.Key(); }

 private:
  std::tuple<int64_t, int64_t, int64_t, bool, bool, int64_t, int64_t, bool,
             bool>
  Key() const {
    return std::make_tuple(m, k, n, transpose_a, transpose_b, lda, ldb, bias,
                           to_bf16);
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

  // Throws std::bad_alloc or std::runtime_error where oneDNN fails.
  void Run(const Shape& s, const T* a, const T* b, const float* bias,
           void* c) {
    if (!s.m || !s.n) return;
    if (!s.k) return Fill(s, bias, c);
    Moved((s.m * s.k + s.k * s.n) * sizeof(T) +
          s.m * s.n * (s.to_bf16 ? sizeof(bf16) : sizeof(float)));
    try {
      Primitive& p = Get(s);
      p.a.set_data_handle(const_cast<T*>(a));
      p.b.set_data_handle(const_cast<T*>(b));
      p.c.set_data_handle(c);
      if (s.bias) p.bias.set_data_handle(const_cast<float*>(bias));
      p.product.execute(stream_, p.arguments);
    } catch (const dnnl::error& error) {
      if (error.status == dnnl_out_of_memory) throw std::bad_alloc();
      throw std::runtime_error(std::string("oneDNN: ") + error.what());
    }
  }

 private:
  struct Primitive {
    dnnl::matmul product;
    dnnl::memory a, b, c, bias;
    std::unordered_map<int, dnnl::memory> arguments;
  };

  Products() : stream_(Engine()) { omp_set_num_threads(1); }

  // A product over nothing, the sums of an empty batch or of an empty layer.
  static void Fill(const Shape& s, const float* bias, void* c) {
    for (int64_t i = 0; i < s.m; ++i) {
      for (int64_t j = 0; j < s.n; ++j) {
        const float value = s.bias ? bias[j] : 0.f;
        if (s.to_bf16) {
          Store(value, static_cast<bf16*>(c) + i * s.n + j);
        } else {
          Store(value, static_cast<float*>(c) + i * s.n + j);
        }
      }
    }
  }

  Primitive& Get(const Shape& s) {
    auto found = primitives_.find(s);
    if (found != primitives_.end()) return found->second;
    // Batches of ever new sizes must not fill the memory.
    if (primitives_.size() >= 512) primitives_.clear();
    return primitives_.emplace(s, Make(s)).first->second;
  }

  static Primitive Make(const Shape& s) {
    typedef dnnl::memory::desc Desc;
    typedef dnnl::memory::dims Dims;
    const auto f32 = dnnl::memory::data_type::f32;
    const Desc a = Matrix(s.m, s.k, s.lda, s.transpose_a);
    const Desc b = Matrix(s.k, s.n, s.ldb, s.transpose_b);
    const Desc c({s.m, s.n},
                 s.to_bf16 ? dnnl::memory::data_type::bf16 : f32,
                 Dims{s.n, 1});
    const Desc bias = s.bias ? Desc({1, s.n}, f32, Dims{s.n, 1}) : Desc();
    Primitive p;
    p.product = dnnl::matmul(
        s.bias ? dnnl::matmul::primitive_desc(Engine(), a, b, bias, c)
               : dnnl::matmul::primitive_desc(Engine(), a, b, c));
    p.a = dnnl::memory(a, Engine(), nullptr);
    p.b = dnnl::memory(b, Engine(), nullptr);
    p.c = dnnl::memory(c, Engine(), nullptr);
    p.arguments = {{DNNL_ARG_SRC, p.a}, {DNNL_ARG_WEIGHTS, p.b},
                   {DNNL_ARG_DST, p.c}};
    if (s.bias) {
      p.bias = dnnl::memory(bias, Engine(), nullptr);
      p.arguments[DNNL_ARG_BIAS] = p.bias;
    }
    return p;
  }

  static dnnl::memory::desc Matrix(int64_t rows, int64_t columns,
                                   int64_t stride, bool transpose) {
    typedef dnnl::memory::dims Dims;
    return dnnl::memory::desc(
        Dims{rows, columns}, DataType<T>(),
        transpose ? Dims{1, stride} : Dims{stride, 1});
  }

  dnnl::stream stream_;
  std::map<Shape, Primitive> primitives_;
};

}  // namespace
}  // namespace ple

#endif  // PLE_ESTIMATOR_KERNELS_PRODUCTS_H_
