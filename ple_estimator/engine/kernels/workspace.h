// The memory of a step of PleNets, from the forward to the backward op.

#ifndef PLE_ESTIMATOR_KERNELS_WORKSPACE_H_
#define PLE_ESTIMATOR_KERNELS_WORKSPACE_H_

#include <sys/mman.h>

#include <cstdlib>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "tensorflow/core/framework/variant.h"
#include "tensorflow/core/framework/variant_encode_decode.h"
#include "tensorflow/core/framework/variant_tensor_data.h"

namespace ple {

// Blocks of memory that grow as needed. Kept from step to step: 30 MB asked of
// the system anew cost more than the products of a gate.
class Workspace {
 public:
  // Returns `bytes` bytes at a multiple of 64 in block `index`; throws
  // std::bad_alloc if there is no memory.
  void* Get(size_t index, size_t bytes) {
    Block& block = blocks_[index];
    if (block.size < bytes) {
      block.memory.reset();
      block.size = 0;
      const size_t size = (bytes + kPage - 1) / kPage * kPage;
      block.memory.reset(aligned_alloc(kPage, size));
      if (!block.memory) throw std::bad_alloc();
      block.size = size;
      madvise(block.memory.get(), size, MADV_HUGEPAGE);
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
  // All that decides what lies where in it; the gradient must have the same.
  std::vector<int64_t> layout;

  std::string TypeName() const { return "ple::Saved"; }
  void Encode(tensorflow::VariantTensorData*) const {}
  bool Decode(const tensorflow::VariantTensorData&) { return false; }
  std::string DebugString() const { return TypeName(); }
};

}  // namespace ple

#endif  // PLE_ESTIMATOR_KERNELS_WORKSPACE_H_
