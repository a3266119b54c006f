// Products of matrices by oneDNN, each thread with primitives of its own.

#ifndef PLE_ESTIMATOR_KERNELS_PRODUCTS_H_
#define PLE_ESTIMATOR_KERNELS_PRODUCTS_H_

#include <omp.h>

#include <map>
#include <tuple>
#include <type_traits>
#include <unordered_map>
#include <utility>

#include "dnnl.hpp"
#include "common.h"
#include "loops.h"

namespace ple {
namespace {

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

}  // namespace
}  // namespace ple

#endif  // PLE_ESTIMATOR_KERNELS_PRODUCTS_H_
