// The element-wise loops between the products of nets.cc, and the dtypes that
// they read and write.

#ifndef PLE_ESTIMATOR_KERNELS_LOOPS_H_
#define PLE_ESTIMATOR_KERNELS_LOOPS_H_

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "activations.h"
#include "common.h"
#include "dropout.h"

namespace ple {
namespace {

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
PLE_INLINE void Store(float value, bf16* to) {
  *to = static_cast<bf16>(RoundToUpperHalf(value) >> 16);
}
PLE_INLINE void Store(float value, rounded* to) {
  const uint32_t bits = RoundToUpperHalf(value) & 0xffff0000;
  std::memcpy(to, &bits, sizeof(bits));
}

PLE_INLINE float Load(const float* from) { return *from; }
PLE_INLINE float Load(const rounded* from) { return from->value; }
PLE_INLINE float Load(const bf16* from) {
  const uint32_t bits = static_cast<uint32_t>(*from) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

// to = the activation F of from, rounded to its type. Returns what was stored.
template <typename F, typename D, typename T>
PLE_INLINE float StoreActivation(F, const D* from, T* to) {
  Store(F::Of(Load(from)), to);
  return Load(to);
}
PLE_INLINE float StoreActivation(Relu, const bf16* from, bf16* to) {
  uint32_t bits = static_cast<uint32_t>(*from) << 16;  // nothing to round
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  bits = value < 0.f ? 0 : bits;
  *to = static_cast<bf16>(bits >> 16);
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

// How many numbers there are in rows of n.
inline int64_t Numbers(int rows, int n) {
  return static_cast<int64_t>(rows) * n;
}

inline bool AreSame(const void* a, const void* b) { return a == b; }

template <typename T>
PLE_INLINE void ConvertLoop(const float* from, int64_t n, T* to) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) Store(from[i], to + i);
}

constexpr int kChunk = 16;  // rows whose moments are taken in the L1 cache

// z = the activation F of u, rounded to T; u may be z.
template <typename F, typename D, typename T>
PLE_INLINE void ActivateLoop(const D* u, int64_t n, T* z) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) StoreActivation(F(), u + i, z + i);
}

// z = the activation F of u, rounded to T, u may be z; and its moments: mean[j]
// and m2[j] = sum of (z[i, j] - mean[j])^2 over rows; scratch [2, n]. They are
// merged from those of chunks as by Chan et al. (1983): one pass over memory,
// and no cancellation where the mean is large.
template <typename F, typename D, typename T>
PLE_INLINE void ActivateMomentsLoop(const D* u, int rows, int n, T* z,
                                    float* mean, float* m2, float* scratch) {
  float* chunk_mean = scratch;
  float* chunk_m2 = scratch + n;
  std::fill(mean, mean + n, 0.f);
  std::fill(m2, m2 + n, 0.f);
  for (int begin = 0; begin < rows; begin += kChunk) {
    const int count = std::min(kChunk, rows - begin);
    const int64_t first = static_cast<int64_t>(begin) * n;
    std::fill(chunk_mean, chunk_mean + n, 0.f);
    std::fill(chunk_m2, chunk_m2 + n, 0.f);
    for (int i = 0; i < count; ++i) {
      const D* from = u + first + static_cast<int64_t>(i) * n;
      T* to = z + first + static_cast<int64_t>(i) * n;
#pragma omp simd
      for (int j = 0; j < n; ++j)
        chunk_mean[j] += StoreActivation(F(), from + j, to + j);
    }
    const float part = 1.f / count;
    for (int j = 0; j < n; ++j) chunk_mean[j] *= part;
    for (int i = 0; i < count; ++i) {
      const T* row = z + first + static_cast<int64_t>(i) * n;
#pragma omp simd
      for (int j = 0; j < n; ++j) {
        const float d = Load(row + j) - chunk_mean[j];
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
template <typename T>
PLE_INLINE void AffineLoop(const T* z, int rows, int n, const float* scale,
                           const float* shift, float* y) {
  for (int i = 0; i < rows; ++i, z += n, y += n) {
#pragma omp simd
    for (int j = 0; j < n; ++j) y[j] = Load(z + j) * scale[j] + shift[j];
  }
}

// y = (z * scale + shift) * factor, the factors those of dropout, of which z
// begins with the row `first`.
template <typename T, typename Y>
PLE_INLINE void DropLoop(const T* z, int rows, int n, const float* scale,
                         const float* shift, const Dropout& dropout,
                         int64_t first, Y* y) {
  for (int i = 0; i < rows; ++i, z += n, y += n) {
    const Dropout::Row row = dropout.RowAt(first + i);
#pragma omp simd
    for (int j = 0; j < n; ++j)
      Store((Load(z + j) * scale[j] + shift[j]) * row.Factor(j), y + j);
  }
}

// The gradient: to = dy * factor; dy may be to.
template <typename D, typename T>
PLE_INLINE void DropGradLoop(const D* dy, int rows, int n,
                             const Dropout& dropout, int64_t first, T* to) {
  for (int i = 0; i < rows; ++i, dy += n, to += n) {
    const Dropout::Row row = dropout.RowAt(first + i);
#pragma omp simd
    for (int j = 0; j < n; ++j) Store(Load(dy + j) * row.Factor(j), to + j);
  }
}

// The rows j of a kernel behind a norm: folded = scale_j w_j, and the sum over
// j of shift_j w_j, so that mean_j is taken off what folded was rounded to.
template <typename T>
PLE_INLINE void FoldLoop(const float* w, int rows, int n, const float* scale,
                         const float* mean, const float* beta, T* folded,
                         float* sum) {
  std::fill(sum, sum + n, 0.f);
  for (int j = 0; j < rows; ++j, w += n, folded += n) {
    const float s = scale[j], m = mean[j], b = beta[j];
#pragma omp simd
    for (int k = 0; k < n; ++k) {
      Store(s * w[k], folded + k);
      sum[k] += b * w[k] - m * Load(folded + k);
    }
  }
}

// The rows j of that kernel's gradient, g = z^T du to norm(z)^T du, and what
// the norm's gradient sums over the batch, dy = du w^T: sum[j] of dy,
// dot[j] of dy (z - mean). `du` is the sum of du.
PLE_VECTORIZED inline void Unfold(const float* w, int rows, int n, const float* scale,
                           const float* mean, const float* beta,
                           const float* du, float* g, float* sum, float* dot) {
  Moved(Numbers(rows, n) * 3 * sizeof(float));
  for (int j = 0; j < rows; ++j, w += n, g += n) {
    const float s = scale[j], m = mean[j], b = beta[j];
    float all = 0, centred = 0;
#pragma omp simd reduction(+ : all, centred)
    for (int k = 0; k < n; ++k) {
      const float d = g[k] - m * du[k];
      all += w[k] * du[k];
      centred += w[k] * d;
      g[k] = s * d + b * du[k];
    }
    sum[j] = all;
    dot[j] = centred;
  }
}

// sum[j] = sum of dy, dot[j] = sum of dy * (z - mean), over rows.
template <typename D, typename T>
PLE_INLINE void NormSumsLoop(const D* dy, const T* z, const float* mean,
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

// du = the gradient of the activation F, to whose value z the gradient
// a * dy + b * z + c has come; sum[j] = sum of du. u is what the activation was
// applied to, and is only read if F keeps it.
template <typename F, typename D, typename T, typename U>
PLE_INLINE void NormGradLoop(const D* dy, const T* z, const U* u, int rows,
                             int n, const float* a, const float* b,
                             const float* c, T* du, float* sum) {
  std::fill(sum, sum + n, 0.f);
  for (int i = 0; i < rows; ++i, dy += n, z += n, u += n, du += n) {
#pragma omp simd
    for (int j = 0; j < n; ++j) {
      const float x = Load(z + j);
      const float dz = a[j] * Load(dy + j) + b[j] * x + c[j];
      Store(F::Gradient(F::kKeepsInput ? Load(u + j) : x, dz), du + j);
      sum[j] += Load(du + j);
    }
  }
}

// The same without batch norm, where the gradient dy has come to z.
template <typename F, typename D, typename T, typename U>
PLE_INLINE void GradLoop(const D* dy, const T* z, const U* u, int rows, int n,
                         T* du, float* sum) {
  std::fill(sum, sum + n, 0.f);
  for (int i = 0; i < rows; ++i, dy += n, z += n, u += n, du += n) {
#pragma omp simd
    for (int j = 0; j < n; ++j) {
      const float x = F::kKeepsInput ? Load(u + j) : Load(z + j);
      Store(F::Gradient(x, Load(dy + j)), du + j);
      sum[j] += Load(du + j);
    }
  }
}

// sum[j] = sum of x[i, j] over rows.
template <typename T>
PLE_INLINE void ColumnSumsLoop(const T* x, int rows, int n, float* sum) {
  std::fill(sum, sum + n, 0.f);
  for (int i = 0; i < rows; ++i, x += n) {
#pragma omp simd
    for (int j = 0; j < n; ++j) sum[j] += Load(x + j);
  }
}

// to = or += from.
template <typename T>
PLE_INLINE void AddLoop(const T* from, int64_t n, bool add, float* to) {
  if (add) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) to[i] += Load(from + i);
  } else {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) to[i] = Load(from + i);
  }
}

// GCC makes clones of functions, not of templates. T is the type of operands.
#define PLE_LOOPS(T)                                                         \
  PLE_VECTORIZED inline void Convert(const float* from, int64_t n, T* to) {  \
    Moved(n * (sizeof(float) + sizeof(T)));                                  \
    ConvertLoop(from, n, to);                                                \
  }                                                                          \
  PLE_VECTORIZED inline void Affine(const T* z, int rows, int n,             \
                                    const float* scale, const float* shift,  \
                                    float* y) {                              \
    Moved(Numbers(rows, n) * (sizeof(T) + sizeof(float)));                   \
    AffineLoop(z, rows, n, scale, shift, y);                                 \
  }                                                                          \
  PLE_VECTORIZED inline void Fold(const float* w, int rows, int n,           \
                                  const float* scale, const float* mean,     \
                                  const float* beta, T* folded,              \
                                  float* sum) {                              \
    Moved(Numbers(rows, n) * (sizeof(float) + sizeof(T)));                   \
    FoldLoop(w, rows, n, scale, mean, beta, folded, sum);                    \
  }                                                                          \
  PLE_VECTORIZED inline void ColumnSums(const T* x, int rows, int n,         \
                                        float* sum) {                        \
    Moved(Numbers(rows, n) * sizeof(T));                                     \
    ColumnSumsLoop(x, rows, n, sum);                                         \
  }                                                                          \
  PLE_VECTORIZED inline void Add(const T* from, int64_t n, bool add,         \
                                 float* to) {                                \
    Moved(n * (sizeof(T) + (add ? 2 : 1) * sizeof(float)));                  \
    AddLoop(from, n, add, to);                                               \
  }
// U is the type of what a product gives for an activation.
#define PLE_PRODUCT_LOOPS(U, T)                                              \
  PLE_VECTORIZED inline void Activate(Activation activation, const U* u,     \
                                      int64_t n, T* z) {                     \
    Moved(n * (sizeof(U) + sizeof(T)));                                      \
    PLE_WITH_ACTIVATION(activation, ActivateLoop, u, n, z)                   \
  }                                                                          \
  PLE_VECTORIZED inline void ActivateMoments(                                \
      Activation activation, const U* u, int rows, int n, T* z, float* mean, \
      float* m2, float* scratch) {                                           \
    Moved(Numbers(rows, n) * (sizeof(U) + sizeof(T)));                       \
    PLE_WITH_ACTIVATION(activation, ActivateMomentsLoop, u, rows, n, z,      \
                        mean, m2, scratch)                                   \
  }
// D is the type of a gradient: from outside float, from the layer above T.
#define PLE_GRADIENT_LOOPS(D, U, T)                                          \
  PLE_VECTORIZED inline void NormGrad(                                       \
      Activation activation, const D* dy, const T* z, const U* u, int rows,  \
      int n, const float* a, const float* b, const float* c, T* du,          \
      float* sum) {                                                          \
    Moved(Numbers(rows, n) * (sizeof(D) + 2 * sizeof(T) +                    \
                              (AreSame(u, z) ? 0 : sizeof(U))));             \
    PLE_WITH_ACTIVATION(activation, NormGradLoop, dy, z, u, rows, n, a, b,   \
                        c, du, sum)                                          \
  }                                                                          \
  PLE_VECTORIZED inline void Grad(Activation activation, const D* dy,        \
                                  const T* z, const U* u, int rows, int n,   \
                                  T* du, float* sum) {                       \
    Moved(Numbers(rows, n) * (sizeof(D) + sizeof(U) + sizeof(T)));           \
    PLE_WITH_ACTIVATION(activation, GradLoop, dy, z, u, rows, n, du, sum)    \
  }                                                                          \
  PLE_VECTORIZED inline void NormSums(const D* dy, const T* z,               \
                                      const float* mean, int rows, int n,    \
                                      float* sum, float* dot) {              \
    Moved(Numbers(rows, n) * (sizeof(D) + sizeof(T)));                       \
    NormSumsLoop(dy, z, mean, rows, n, sum, dot);                            \
  }                                                                          \
  PLE_VECTORIZED inline void DropGrad(const D* dy, int rows, int n,          \
                                      const Dropout& dropout, int64_t first, \
                                      T* to) {                               \
    Moved(Numbers(rows, n) * (sizeof(D) + sizeof(T)));                       \
    DropGradLoop(dy, rows, n, dropout, first, to);                           \
  }
// Y is the type of an output: outside float, to the layer above T.
#define PLE_OUTPUT_LOOPS(T, Y)                                               \
  PLE_VECTORIZED inline void Drop(const T* z, int rows, int n,               \
                                  const float* scale, const float* shift,    \
                                  const Dropout& dropout, int64_t first,     \
                                  Y* y) {                                    \
    Moved(Numbers(rows, n) * (sizeof(T) + sizeof(Y)));                       \
    DropLoop(z, rows, n, scale, shift, dropout, first, y);                   \
  }
PLE_LOOPS(float)
PLE_LOOPS(rounded)
PLE_LOOPS(bf16)
PLE_PRODUCT_LOOPS(float, float)
PLE_PRODUCT_LOOPS(float, rounded)
PLE_PRODUCT_LOOPS(bf16, bf16)
PLE_GRADIENT_LOOPS(float, float, float)
PLE_GRADIENT_LOOPS(float, float, rounded)
PLE_GRADIENT_LOOPS(float, bf16, bf16)
PLE_GRADIENT_LOOPS(rounded, float, rounded)
PLE_GRADIENT_LOOPS(bf16, bf16, bf16)
PLE_OUTPUT_LOOPS(float, float)
PLE_OUTPUT_LOOPS(rounded, float)
PLE_OUTPUT_LOOPS(rounded, rounded)
PLE_OUTPUT_LOOPS(bf16, float)
PLE_OUTPUT_LOOPS(bf16, bf16)

}  // namespace
}  // namespace ple

#endif  // PLE_ESTIMATOR_KERNELS_LOOPS_H_
