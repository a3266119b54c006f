// Dropout (Srivastava et al., JMLR 2014) whose mask is a function of a seed and
// of an element's position. So the forward and the backward step compute the
// same mask and nothing is stored, however a batch is cut into blocks of rows.

#ifndef PLE_ESTIMATOR_KERNELS_DROPOUT_H_
#define PLE_ESTIMATOR_KERNELS_DROPOUT_H_

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "common.h"

namespace ple {

// A step of SplitMix64 (Steele et al., OOPSLA 2014) from the state x.
inline uint64_t SplitMix64(uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

// The factors of the outputs of one layer of one net in one step: 0 with the
// probability `rate`, else 1 / (1 - rate).
class Dropout {
 public:
  Dropout(int64_t seed, int net, int layer, float rate)
      : key_(SplitMix64(SplitMix64(static_cast<uint64_t>(seed)) ^
                        (static_cast<uint64_t>(net) << 32 | layer))),
        // 31 bits of an element's hash are compared with this.
        threshold_(static_cast<int32_t>(
            std::min<int64_t>(std::llround(std::ldexp(rate, 31)),
                              std::numeric_limits<int32_t>::max()))),
        scale_(static_cast<float>(1. / (1. - rate))) {}

  // The factors of a row, by column: of a hash of 32 bits, which compilers
  // vectorize, between two words that differ from row to row. Its constants are
  // those of Wellons' "hash prospector".
  struct Row {
    uint32_t first, second;
    int32_t threshold;
    float scale;

    PLE_INLINE float Factor(int column) const {
      uint32_t x = static_cast<uint32_t>(column) + first;
      x = (x ^ (x >> 16)) * 0x21f0aaad;
      x ^= second;
      x = (x ^ (x >> 15)) * 0xd35a2d97;
      x ^= x >> 15;
      return static_cast<int32_t>(x >> 1) < threshold ? 0.f : scale;
    }
  };

  Row RowAt(int64_t row) const {
    const uint64_t words = SplitMix64(key_ + static_cast<uint64_t>(row));
    return {static_cast<uint32_t>(words), static_cast<uint32_t>(words >> 32),
            threshold_, scale_};
  }

 private:
  uint64_t key_;
  int32_t threshold_;
  float scale_;
};

}  // namespace ple

#endif  // PLE_ESTIMATOR_KERNELS_DROPOUT_H_
