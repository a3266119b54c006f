// The activations of hidden layers, which the loops of loops.h inline.
//
// Each is a struct with two functions:
//   Of(u)              its value z;
//   Gradient(x, dz)    the product of dz and of its derivative. x is z, or it
//                      is u if kKeepsInput says that z is not enough.
// Comparisons are written so that a NaN passes as in TensorFlow's ops.

#ifndef PLE_ESTIMATOR_KERNELS_ACTIVATIONS_H_
#define PLE_ESTIMATOR_KERNELS_ACTIVATIONS_H_

#include <cstdint>
#include <cstring>
#include <string>

#include "common.h"

namespace ple {

enum class Activation {
  kRelu, kElu, kSelu, kSwish, kTanh, kSigmoid, kLeakyRelu
};

// The attribute of an op that names an activation.
#define PLE_ACTIVATION_ATTR                                                  \
  "activation: {'relu', 'elu', 'selu', 'swish', 'tanh', 'sigmoid', "         \
  "'leaky_relu'} = 'relu'"

inline Activation ActivationOf(const std::string& name) {
  const char* const names[] = {"relu", "elu",     "selu",      "swish",
                               "tanh", "sigmoid", "leaky_relu"};
  for (int i = 0; i < 7; ++i)
    if (name == names[i]) return static_cast<Activation>(i);
  throw Failure{errors::InvalidArgument("There is no activation ", name, ".")};
}

// Runs loop<F>(...) for the struct F of an activation.
#define PLE_WITH_ACTIVATION(activation, loop, ...)                            \
  switch (activation) {                                                       \
    case Activation::kRelu: loop<Relu>(__VA_ARGS__); break;                   \
    case Activation::kElu: loop<Elu>(__VA_ARGS__); break;                     \
    case Activation::kSelu: loop<Selu>(__VA_ARGS__); break;                   \
    case Activation::kSwish: loop<Swish>(__VA_ARGS__); break;                 \
    case Activation::kTanh: loop<Tanh>(__VA_ARGS__); break;                   \
    case Activation::kSigmoid: loop<Sigmoid>(__VA_ARGS__); break;             \
    case Activation::kLeakyRelu: loop<LeakyRelu>(__VA_ARGS__); break;         \
  }

namespace {

// ------------------------------------------------------------ exponentials ---

// Returns 2^n (e^r - 1) and sets *power = 2^n, where x = n log(2) + r and
// |r| <= log(2) / 2. Without branches and calls, so that loops of it are
// vectorized. x is limited to [-87, 88], so that 2^n is a normal number.
PLE_INLINE float ScaledExpm1(float x, float* power) {
  x = x < -87.f ? -87.f : x;
  x = x > 88.f ? 88.f : x;
  // The sum with 1.5 * 2^23 is rounded to an integer, which its lower bits
  // have.
  const float kRound = 12582912.f;
  const float rounded_sum = x * 1.44269504f + kRound;
  uint32_t bits;
  std::memcpy(&bits, &rounded_sum, sizeof(bits));
  const float n = rounded_sum - kRound;
  bits = (bits + 127) << 23;
  std::memcpy(power, &bits, sizeof(bits));
  // log(2) in two parts, as the product of n and the first one is exact.
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  // The series of e^r - 1; what is left out is less than r^8 / 8!.
  float sum = 1.f / 5040;
  sum = sum * r + 1.f / 720;
  sum = sum * r + 1.f / 120;
  sum = sum * r + 1.f / 24;
  sum = sum * r + 1.f / 6;
  sum = sum * r + 1.f / 2;
  sum = sum * r + 1.f;
  return sum * r * *power;
}

// e^x - 1, exact to a few units in the last place near 0 too.
PLE_INLINE float Expm1(float x) {
  float power;
  const float scaled = ScaledExpm1(x, &power);
  return scaled + (power - 1.f);
}

// 1 / (1 + e^-x).
PLE_INLINE float Logistic(float x) {
  float power;
  const float scaled = ScaledExpm1(-x, &power);
  return 1.f / (1.f + (scaled + power));
}

// ------------------------------------------------------------- activations ---

// max(u, 0). The derivative is 1 or 0, and the gradient a product with it.
struct Relu {
  static constexpr bool kKeepsInput = false;
  static PLE_INLINE float Of(float u) { return u < 0.f ? 0.f : u; }
  static PLE_INLINE float Gradient(float z, float dz) {
    return dz * (z > 0.f ? 1.f : 0.f);
  }
};

// u where it is positive, else 0.2 u: the slope of tf.nn.leaky_relu.
struct LeakyRelu {
  static constexpr bool kKeepsInput = false;
  static PLE_INLINE float Of(float u) { return u > 0.f ? u : 0.2f * u; }
  static PLE_INLINE float Gradient(float z, float dz) {
    return z > 0.f ? dz : 0.2f * dz;
  }
};

// u where it is positive, else e^u - 1 (Clevert et al., ICLR 2016).
struct Elu {
  static constexpr bool kKeepsInput = false;
  static PLE_INLINE float Of(float u) { return u < 0.f ? Expm1(u) : u; }
  static PLE_INLINE float Gradient(float z, float dz) {
    return z < 0.f ? dz * (z + 1.f) : dz;
  }
};

// scale * elu(u) with another slope below 0 (Klambauer et al., NIPS 2017).
struct Selu {
  static constexpr bool kKeepsInput = false;
  static constexpr float kScale = 1.05070098f;
  static constexpr float kBelow = 1.75809934f;  // scale * alpha
  static PLE_INLINE float Of(float u) {
    return u < 0.f ? kBelow * Expm1(u) : kScale * u;
  }
  static PLE_INLINE float Gradient(float z, float dz) {
    return z < 0.f ? dz * (z + kBelow) : dz * kScale;
  }
};

// u / (1 + e^-u) (Ramachandran et al., 2017).
struct Swish {
  static constexpr bool kKeepsInput = true;
  static PLE_INLINE float Of(float u) { return u * Logistic(u); }
  static PLE_INLINE float Gradient(float u, float dz) {
    const float share = Logistic(u);
    return dz * (share * (1.f + u * (1.f - share)));
  }
};

// tanh(u) = (e^2u - 1) / (e^2u + 1), which is 1 in float for u above 10.
struct Tanh {
  static constexpr bool kKeepsInput = false;
  static PLE_INLINE float Of(float u) {
    u = u > 10.f ? 10.f : u;
    const float e = Expm1(2.f * u);
    return e / (e + 2.f);
  }
  static PLE_INLINE float Gradient(float z, float dz) {
    return dz * (1.f - z * z);
  }
};

struct Sigmoid {
  static constexpr bool kKeepsInput = false;
  static PLE_INLINE float Of(float u) { return Logistic(u); }
  static PLE_INLINE float Gradient(float z, float dz) {
    return dz * z * (1.f - z);
  }
};

}  // namespace
}  // namespace ple

#endif  // PLE_ESTIMATOR_KERNELS_ACTIVATIONS_H_
