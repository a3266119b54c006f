// Text to ids, and ids to the form that PlePool reads. Plain C functions, called
// from Python on Arrow's own buffers: no string object is made on the way.

#include <locale.h>
#include <stdlib.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <new>
#include <string>
#include <vector>

// FarmHash, in TensorFlow's library: ids equal those of StringToHashBucketFast.
namespace farmhashna {
uint64_t Hash64(const char* text, size_t length);
}

namespace {

int64_t Hash(const char* text, int64_t length, int64_t buckets) {
  return farmhashna::Hash64(text, length) % static_cast<uint64_t>(buckets);
}

// The number that a text is, rounded to float32; NaN where it is none. Texts of
// NaN and infinity are none, as no weight may be. What Python's float() takes
// is taken here: digits with a point and an exponent, and white space around.
class Number {
 public:
  float operator()(const char* at, const char* end) {
    while (at < end && IsSpace(*at)) ++at;
    while (at < end && IsSpace(end[-1])) --end;
    const char* const begin = at;
    bool negative = false;
    if (at < end && (*at == '-' || *at == '+')) negative = *at++ == '-';
    digits_ = places_ = whole_ = 0;
    at = Digits(at, end, false);
    if (at < end && *at == '.') at = Digits(at + 1, end, true);
    if (!digits_) return NotANumber();
    if (at == end && digits_ <= 18 && whole_ <= 1 << 24 && places_ <= 10) {
      // Both are floats without an error, so that the division rounds once.
      const float value = static_cast<float>(whole_) / kTens[places_];
      return negative ? -value : value;
    }
    if (at < end && (*at == 'e' || *at == 'E')) {
      if (++at < end && (*at == '-' || *at == '+')) ++at;
      const int64_t before = digits_;
      at = Digits(at, end, false);
      if (digits_ == before) return NotANumber();
    }
    if (at < end) return NotANumber();
    text_.assign(begin, end);  // ends with 0
    return strtof_l(text_.c_str(), nullptr, Plain());
  }

 private:
  // The greatest of these has 2^10 * 5^10, and 5^10 has 24 bits.
  static constexpr float kTens[] = {1e0f, 1e1f, 1e2f, 1e3f, 1e4f, 1e5f,
                                    1e6f, 1e7f, 1e8f, 1e9f, 1e10f};

  static bool IsSpace(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
  static float NotANumber() { return std::numeric_limits<float>::quiet_NaN(); }

  // Where digits end. They are counted, and make `whole_` as long as there are
  // so few that it holds them.
  const char* Digits(const char* at, const char* end, bool behind_point) {
    for (; at < end && *at >= '0' && *at <= '9'; ++at) {
      if (++digits_ <= 18) whole_ = 10 * whole_ + (*at - '0');
      if (behind_point) ++places_;
    }
    return at;
  }

  // A locale with a decimal point, whatever that of the process is.
  static locale_t Plain() {
    static const locale_t plain =
        newlocale(LC_ALL_MASK, "C", static_cast<locale_t>(nullptr));
    if (!plain) throw std::bad_alloc();
    return plain;
  }

  int64_t digits_ = 0, places_ = 0, whole_ = 0;
  std::string text_;
};

constexpr float Number::kTens[];

// What separates parts of a text.
struct Mark {
  const char* text;
  int64_t length;

  const char* First(const char* at, const char* end) const {
    if (length == 1) {
      const void* found = at < end ? std::memchr(at, *text, end - at) : nullptr;
      return found ? static_cast<const char*>(found) : end;
    }
    return std::search(at, end, text, text + length);
  }
  // `end` where it is not there.
  const char* Last(const char* at, const char* end) const {
    return std::find_end(at, end, text, text + length);
  }
};

}  // namespace

extern "C" {

// ids[i] of the i-th of `count` texts, text i being data[offsets[i] to
// offsets[i + 1]); `missing` where it is empty.
void ple_hash(const char* data, const int32_t* offsets, int64_t count,
              int64_t buckets, int64_t missing, int64_t* ids) {
  for (int64_t i = 0; i < count; ++i) {
    const int64_t length = offsets[i + 1] - offsets[i];
    ids[i] = length ? Hash(data + offsets[i], length, buckets) : missing;
  }
}

// Cuts each text at `separator`, drops empty items and hashes the others:
// ids[splits[i] to splits[i + 1]) are those of text i. places[k], unless it is
// null, is how many items of its text, empty ones too, stand in front of that of
// ids[k]. Returns the number of ids; there is room for as many as the texts have
// bytes.
int64_t ple_hash_lists(const char* data, const int32_t* offsets, int64_t count,
                       const char* separator, int64_t separator_length,
                       int64_t buckets, int64_t* ids, int32_t* splits,
                       int32_t* places) {
  const Mark between = {separator, separator_length};
  int64_t used = 0;
  splits[0] = 0;
  for (int64_t i = 0; i < count; ++i) {
    const char* at = data + offsets[i];
    const char* const end = data + offsets[i + 1];
    for (int32_t place = 0; at < end; ++place) {
      const char* const stop = between.First(at, end);
      if (stop > at) {
        if (places) places[used] = place;
        ids[used++] = Hash(at, stop - at, buckets);
      }
      at = stop == end ? end : stop + separator_length;
    }
    splits[i + 1] = used;
  }
  return used;
}

// As ple_hash_lists, of items with a weight behind the last `weights` mark of
// each: weights[k] is that of ids[k], NaN where it is missing or no number. An
// item without text in front of a weight is dropped. bad[i] is whether a weight
// of text i is not in [least, most]. With 0 buckets the ids are not made.
// Returns -1 if there is no memory.
int64_t ple_hash_weighted(const char* data, const int32_t* offsets,
                          int64_t count, const char* separator,
                          int64_t separator_length, const char* mark,
                          int64_t mark_length, double least, double most,
                          int64_t buckets, int64_t* ids, float* weights,
                          int32_t* splits, uint8_t* bad) {
  const Mark between = {separator, separator_length};
  const Mark before_weight = {mark, mark_length};
  Number number;
  int64_t used = 0;
  splits[0] = 0;
  try {
    for (int64_t i = 0; i < count; ++i) {
      const char* at = data + offsets[i];
      const char* const end = data + offsets[i + 1];
      bad[i] = 0;
      while (at < end) {
        const char* const stop = between.First(at, end);
        if (stop > at) {
          const char* const last = before_weight.Last(at, stop);
          const float weight =
              number(last == stop ? stop : last + mark_length, stop);
          const bool usable = weight >= least && weight <= most;
          if (last > at || !usable) {
            if (buckets) ids[used] = Hash(at, last - at, buckets);
            weights[used++] = weight;
          }
          bad[i] |= !usable;
        }
        at = stop == end ? end : stop + separator_length;
      }
      splits[i + 1] = used;
    }
  } catch (const std::bad_alloc&) {
    return -1;
  }
  return used;
}

// As ple_hash_lists, of items whose weights stand in texts of their own, at the
// same places and with a separator of their own; `weights` is as of
// ple_hash_weighted. An empty item is dropped with its weight. problems[i] is 1
// where there are more or fewer weights than items, 2 where a weight is not in
// [least, most] (an item that is empty may have an empty one), else 0. Returns
// -1 if there is no memory.
int64_t ple_hash_beside(const char* data, const int32_t* offsets,
                        const char* weight_data, const int32_t* weight_offsets,
                        int64_t count, const char* separator,
                        int64_t separator_length, const char* weight_separator,
                        int64_t weight_separator_length, double least,
                        double most, int64_t buckets, int64_t* ids,
                        float* weights, int32_t* splits, uint8_t* problems) {
  const Mark between = {separator, separator_length};
  const Mark between_weights = {weight_separator, weight_separator_length};
  Number number;
  int64_t used = 0;
  splits[0] = 0;
  try {
    for (int64_t i = 0; i < count; ++i) {
      const char* at = data + offsets[i];
      const char* const end = data + offsets[i + 1];
      const char* weight_at = weight_data + weight_offsets[i];
      const char* const weight_end = weight_data + weight_offsets[i + 1];
      bool usable = true;
      for (;;) {
        const char* const stop = between.First(at, end);
        const char* const weight_stop =
            between_weights.First(weight_at, weight_end);
        const float weight = number(weight_at, weight_stop);
        if (stop > at) {
          if (buckets) ids[used] = Hash(at, stop - at, buckets);
          weights[used++] = weight;
        }
        if (stop > at || weight_stop > weight_at)
          usable &= weight >= least && weight <= most;
        if (stop == end || weight_stop == weight_end) {
          const bool same = stop == end && weight_stop == weight_end;
          problems[i] = same ? (usable ? 0 : 2) : 1;
          break;
        }
        at = stop + separator_length;
        weight_at = weight_stop + weight_separator_length;
      }
      splits[i + 1] = used;
    }
  } catch (const std::bad_alloc&) {
    return -1;
  }
  return used;
}

// Numbers the different ids of a batch in the order of their appearance:
// rows[index[i]] == ids[i]. Returns their number, -1 if there is no memory.
int64_t ple_unique(const int64_t* ids, int64_t count, int64_t* rows,
                   int32_t* index) {
  size_t size = 16;
  while (size < 2 * static_cast<size_t>(count)) size *= 2;
  static thread_local std::vector<int32_t> slots;
  try {
    slots.assign(size, -1);
  } catch (const std::bad_alloc&) {
    return -1;
  }
  int32_t used = 0;
  for (int64_t i = 0; i < count; ++i) {
    uint64_t key = static_cast<uint64_t>(ids[i]) * 0x9e3779b97f4a7c15ull;
    size_t slot = (key >> 32) & (size - 1);
    while (slots[slot] >= 0 && rows[slots[slot]] != ids[i])
      slot = (slot + 1) & (size - 1);
    if (slots[slot] < 0) {
      rows[used] = ids[i];
      slots[slot] = used++;
    }
    index[i] = slots[slot];
  }
  return used;
}

}  // extern "C"
