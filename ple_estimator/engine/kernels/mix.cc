// PleMix: the gates of a level at once. Gate g mixes the experts named in its
// `members` by softmax(logits[g]).

#include <algorithm>
#include <cmath>
#include <vector>

#include "common.h"

namespace ple {
namespace {

constexpr int kRows = 64;  // per task

// to = or += weight * from.
PLE_VECTORIZED void Scale(const float* from, float weight, bool add, int n,
                          float* to) {
  if (add) {
#pragma omp simd
    for (int i = 0; i < n; ++i) to[i] += weight * from[i];
  } else {
#pragma omp simd
    for (int i = 0; i < n; ++i) to[i] = weight * from[i];
  }
}

PLE_VECTORIZED float Dot(const float* a, const float* b, int n) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

void Softmax(const float* logits, int n, float* shares) {
  const float most = *std::max_element(logits, logits + n);
  float sum = 0;
  for (int i = 0; i < n; ++i) sum += shares[i] = std::exp(logits[i] - most);
  for (int i = 0; i < n; ++i) shares[i] /= sum;
}

// The experts of each gate, from the attributes.
class Members {
 public:
  void Read(OpKernelConstruction* context) {
    std::vector<int> members, sizes;
    OP_REQUIRES_OK(context, context->GetAttr("members", &members));
    OP_REQUIRES_OK(context, context->GetAttr("sizes", &sizes));
    size_t begin = 0;
    for (int size : sizes) {
      OP_REQUIRES(context, size >= 1 && begin + size <= members.size(),
                  errors::InvalidArgument("sizes must add up to members"));
      gates_.emplace_back(members.begin() + begin,
                          members.begin() + begin + size);
      begin += size;
    }
  }

  // Refuses inputs that do not fit: logits [batch, size], experts [batch, dim].
  void Check(OpKernelContext* context, const OpInputList& per_gate,
             const OpInputList& experts) const {
    const Tensor& first = experts[0];
    OP_REQUIRES(context, per_gate.size() == gates_.size() && first.dims() == 2,
                errors::InvalidArgument("one tensor per gate is needed"));
    for (int e = 0; e < experts.size(); ++e)
      OP_REQUIRES(context, experts[e].shape() == first.shape(),
                  errors::InvalidArgument("experts must be of one shape"));
    for (size_t g = 0; g < gates_.size(); ++g) {
      OP_REQUIRES(context,
                  per_gate[g].dims() == 2 &&
                      per_gate[g].dim_size(0) == first.dim_size(0) &&
                      per_gate[g].dim_size(1) == gates_[g].size(),
                  errors::InvalidArgument("gate ", g, " does not fit"));
      for (int e : gates_[g])
        OP_REQUIRES(context, e >= 0 && e < experts.size(),
                    errors::InvalidArgument("members out of range"));
    }
  }

  size_t size() const { return gates_.size(); }
  const std::vector<int>& operator[](size_t gate) const { return gates_[gate]; }

 private:
  std::vector<std::vector<int>> gates_;
};

std::vector<const float*> Data(const OpInputList& list) {
  std::vector<const float*> data;
  for (int i = 0; i < list.size(); ++i)
    data.push_back(list[i].flat<float>().data());
  return data;
}

class MixOp : public OpKernel {
 public:
  explicit MixOp(OpKernelConstruction* context) : OpKernel(context) {
    members_.Read(context);
  }

  void Compute(OpKernelContext* context) override {
    OpInputList logits, experts;
    OP_REQUIRES_OK(context, context->input_list("logits", &logits));
    OP_REQUIRES_OK(context, context->input_list("experts", &experts));
    members_.Check(context, logits, experts);
    if (!context->status().ok()) return;
    std::vector<float*> mixtures, shares;
    OP_REQUIRES_OK(context, Allocate(context, "mixtures", experts, &mixtures));
    OP_REQUIRES_OK(context, Allocate(context, "shares", logits, &shares));
    const auto score = Data(logits), expert = Data(experts);
    const int batch = experts[0].dim_size(0), dim = experts[0].dim_size(1);
    ParallelRun(context, (batch + kRows - 1) / kRows, [&](int task) {
      const int end = std::min(batch, (task + 1) * kRows);
      for (int row = task * kRows; row < end; ++row)
        for (size_t g = 0; g < members_.size(); ++g) {
          const std::vector<int>& of = members_[g];
          float* share = shares[g] + row * of.size();
          Softmax(score[g] + row * of.size(), of.size(), share);
          for (size_t k = 0; k < of.size(); ++k)
            Scale(expert[of[k]] + row * dim, share[k], k > 0, dim,
                  mixtures[g] + row * dim);
        }
    });
  }

 private:
  Members members_;
};

class MixGradOp : public OpKernel {
 public:
  explicit MixGradOp(OpKernelConstruction* context) : OpKernel(context) {
    members_.Read(context);
  }

  void Compute(OpKernelContext* context) override {
    OpInputList shares, experts, d_mixtures, d_shares;
    OP_REQUIRES_OK(context, context->input_list("shares", &shares));
    OP_REQUIRES_OK(context, context->input_list("experts", &experts));
    OP_REQUIRES_OK(context, context->input_list("d_mixtures", &d_mixtures));
    OP_REQUIRES_OK(context, context->input_list("d_shares", &d_shares));
    members_.Check(context, shares, experts);
    if (!context->status().ok()) return;
    std::vector<float*> d_logits, d_experts;
    OP_REQUIRES_OK(context, Allocate(context, "d_logits", shares, &d_logits));
    OP_REQUIRES_OK(context,
                   Allocate(context, "d_experts", experts, &d_experts));
    const auto share = Data(shares), expert = Data(experts);
    const auto dy = Data(d_mixtures), ds = Data(d_shares);
    const int batch = experts[0].dim_size(0), dim = experts[0].dim_size(1);
    ParallelRun(context, (batch + kRows - 1) / kRows, [&](int task) {
      const int end = std::min(batch, (task + 1) * kRows);
      std::vector<bool> seen(expert.size());
      for (int row = task * kRows; row < end; ++row) {
        std::fill(seen.begin(), seen.end(), false);
        for (size_t g = 0; g < members_.size(); ++g) {
          const std::vector<int>& of = members_[g];
          const float* weight = share[g] + row * of.size();
          float* d = d_logits[g] + row * of.size();
          const float* from = dy[g] + row * dim;
          float mean = 0;
          for (size_t k = 0; k < of.size(); ++k) {
            const int e = of[k];
            Scale(from, weight[k], seen[e], dim, d_experts[e] + row * dim);
            seen[e] = true;
            d[k] = Dot(from, expert[e] + row * dim, dim) +
                   ds[g][row * of.size() + k];
            mean += weight[k] * d[k];
          }
          for (size_t k = 0; k < of.size(); ++k)
            d[k] = weight[k] * (d[k] - mean);
        }
        for (size_t e = 0; e < expert.size(); ++e)  // in no gate
          if (!seen[e]) std::fill_n(d_experts[e] + row * dim, dim, 0.f);
      }
    });
  }

 private:
  Members members_;
};

}  // namespace

REGISTER_OP("PleMix")
    .Input("logits: num_gates * float")
    .Input("experts: num_experts * float")
    .Output("mixtures: num_gates * float")
    .Output("shares: num_gates * float")
    .Attr("num_gates: int >= 1")
    .Attr("num_experts: int >= 1")
    .Attr("members: list(int)")
    .Attr("sizes: list(int)")
    .SetShapeFn(tensorflow::shape_inference::UnknownShape);

REGISTER_OP("PleMixGrad")
    .Input("shares: num_gates * float")
    .Input("experts: num_experts * float")
    .Input("d_mixtures: num_gates * float")
    .Input("d_shares: num_gates * float")
    .Output("d_logits: num_gates * float")
    .Output("d_experts: num_experts * float")
    .Attr("num_gates: int >= 1")
    .Attr("num_experts: int >= 1")
    .Attr("members: list(int)")
    .Attr("sizes: list(int)")
    .SetShapeFn(tensorflow::shape_inference::UnknownShape);

REGISTER_KERNEL_BUILDER(Name("PleMix").Device(DEVICE_CPU), MixOp);
REGISTER_KERNEL_BUILDER(Name("PleMixGrad").Device(DEVICE_CPU), MixGradOp);

}  // namespace ple
