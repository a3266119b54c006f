// The element-wise loops between the products of nets.cc, and the dtypes that
// they read and write.

#ifndef PLE_ESTIMATOR_KERNELS_LOOPS_H_
#define PLE_ESTIMATOR_KERNELS_LOOPS_H_

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "common.h"

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
PLE_INLINE void Store(float value, bf16* to) { *to = RoundToUpperHalf(value) >> 16; }
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

template <typename T>
PLE_INLINE void ConvertLoop(const float* from, int64_t n, T* to) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) Store(from[i], to + i);
}

constexpr int kChunk = 16;  // rows whose moments are taken in the L1 cache

// mean[j] and m2[j] = sum of (z[i, j] - mean[j])^2 over rows; scratch [2, n].
// By chunks, merged as Chan et al. (1983): one pass over memory, and no
// cancellation where the mean is large.
template <typename T>
PLE_INLINE void MomentsLoop(const T* z, int rows, int n, float* mean,
                            float* m2, float* scratch) {
  float* chunk_mean = scratch;
  float* chunk_m2 = scratch + n;
  std::fill(mean, mean + n, 0.f);
  std::fill(m2, m2 + n, 0.f);
  for (int begin = 0; begin < rows; begin += kChunk) {
    const int count = std::min(kChunk, rows - begin);
    const T* first = z + static_cast<int64_t>(begin) * n;
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
template <typename T>
PLE_INLINE void AffineLoop(const T* z, int rows, int n, const float* scale,
                           const float* shift, float* y) {
  for (int i = 0; i < rows; ++i, z += n, y += n) {
#pragma omp simd
    for (int j = 0; j < n; ++j) y[j] = Load(z + j) * scale[j] + shift[j];
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
PLE_VECTORIZED void Unfold(const float* w, int rows, int n, const float* scale,
                           const float* mean, const float* beta,
                           const float* du, float* g, float* sum, float* dot) {
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
template <typename T>
PLE_INLINE void NormSumsLoop(const float* dy, const T* z, const float* mean,
                             int rows, int n, float* sum, float* dot) {
  std::fill(sum, sum + n, 0.f);
  std::fill(dot, dot + n, 0.f);
  for (int i = 0; i < rows; ++i, dy += n, z += n) {
#pragma omp simd
    for (int j = 0; j < n; ++j) {
      sum[j] += dy[j];
      dot[j] += dy[j] * (Load(z + j) - mean[j]);
    }
  }
}

// du = (a * dy + b * z + c) where z > 0, else 0; sum[j] = sum of du.
template <typename D, typename T>
PLE_INLINE void ReluGradLoop(const D* dy, const T* z, int rows, int n,
                             const float* a, const float* b, const float* c,
                             T* du, float* sum) {
  std::fill(sum, sum + n, 0.f);
  for (int i = 0; i < rows; ++i, dy += n, z += n, du += n) {
#pragma omp simd
    for (int j = 0; j < n; ++j) {
      const float x = Load(z + j);
      const float all = a[j] * Load(dy + j) + b[j] * x + c[j];
      Store(x > 0 ? all : 0.f, du + j);
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

// GCC makes clones of functions, not of templates. A gradient D comes from
// outside as float, from the layer above as T.
#define PLE_GRADIENT_LOOP(D, T)                                              \
  PLE_VECTORIZED void ReluGrad(const D* dy, const T* z, int rows, int n,     \
                               const float* a, const float* b,               \
                               const float* c, T* du, float* sum) {          \
    ReluGradLoop(dy, z, rows, n, a, b, c, du, sum);                          \
  }
#define PLE_LOOPS(T)                                                         \
  PLE_VECTORIZED void Convert(const float* from, int64_t n, T* to) {         \
    ConvertLoop(from, n, to);                                                \
  }                                                                          \
  PLE_VECTORIZED void Moments(const T* z, int rows, int n, float* mean,      \
                              float* m2, float* scratch) {                   \
    MomentsLoop(z, rows, n, mean, m2, scratch);                              \
  }                                                                          \
  PLE_VECTORIZED void Affine(const T* z, int rows, int n,                    \
                             const float* scale, const float* shift,         \
                             float* y) {                                     \
    AffineLoop(z, rows, n, scale, shift, y);                                 \
  }                                                                          \
  PLE_VECTORIZED void Fold(const float* w, int rows, int n,                  \
                           const float* scale, const float* mean,            \
                           const float* beta, T* folded, float* sum) {       \
    FoldLoop(w, rows, n, scale, mean, beta, folded, sum);                    \
  }                                                                          \
  PLE_VECTORIZED void NormSums(const float* dy, const T* z,                  \
                               const float* mean, int rows, int n,           \
                               float* sum, float* dot) {                     \
    NormSumsLoop(dy, z, mean, rows, n, sum, dot);                            \
  }                                                                          \
  PLE_VECTORIZED void ColumnSums(const T* x, int rows, int n, float* sum) {  \
    ColumnSumsLoop(x, rows, n, sum);                                         \
  }                                                                          \
  PLE_VECTORIZED void Add(const T* from, int64_t n, bool add, float* to) {   \
    AddLoop(from, n, add, to);                                               \
  }
PLE_LOOPS(float)
PLE_LOOPS(rounded)
PLE_LOOPS(bf16)
PLE_GRADIENT_LOOP(float, float)
PLE_GRADIENT_LOOP(float, rounded)
PLE_GRADIENT_LOOP(float, bf16)
PLE_GRADIENT_LOOP(rounded, rounded)
PLE_GRADIENT_LOOP(bf16, bf16)

}  // namespace
}  // namespace ple

#endif  // PLE_ESTIMATOR_KERNELS_LOOPS_H_
