// Text to ids, and ids to the form that PlePool reads. Plain C functions, called
// from Python on Arrow's own buffers: no string object is made on the way.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <new>
#include <vector>

// FarmHash, in TensorFlow's library: ids equal those of StringToHashBucketFast.
namespace farmhashna {
uint64_t Hash64(const char* text, size_t length);
}

namespace {

int64_t Hash(const char* text, int64_t length, int64_t buckets) {
  return farmhashna::Hash64(text, length) % static_cast<uint64_t>(buckets);
}

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
// ids[splits[i] to splits[i + 1]) are those of text i. Returns the number of
// ids; there is room for as many as the texts have bytes.
int64_t ple_hash_lists(const char* data, const int32_t* offsets, int64_t count,
                       const char* separator, int64_t separator_length,
                       int64_t buckets, int64_t* ids, int32_t* splits) {
  int64_t used = 0;
  splits[0] = 0;
  for (int64_t i = 0; i < count; ++i) {
    const char* at = data + offsets[i];
    const char* const end = data + offsets[i + 1];
    while (at < end) {
      const char* stop =
          std::search(at, end, separator, separator + separator_length);
      if (stop > at) ids[used++] = Hash(at, stop - at, buckets);
      at = stop == end ? end : stop + separator_length;
    }
    splits[i + 1] = used;
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
