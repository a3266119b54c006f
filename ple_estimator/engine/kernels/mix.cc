// PleMix: the gates of a level at once. Gate g mixes the experts named in its
// `members` by softmax(logits[g]).

#include <algorithm>
#include <cmath>
#include <vector>

#include "common.h"

namespace ple {
namespace {

constexpr int64_t kRows = 64;  // per task

// to = or += weight * from.
PLE_VECTORIZED void Scale(const float* from, float weight, bool add, int64_t n,
                          float* to) {
  if (add) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) to[i] += weight * from[i];
  } else {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) to[i] = weight * from[i];
  }
}

PLE_VECTORIZED float Dot(const float* a, const float* b, int64_t n) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

// A NaN among the logits makes all shares NaN.
void Softmax(const float* logits, int64_t n, float* shares) {
  const float most = *std::max_element(logits, logits + n);
  float sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += shares[i] = std::exp(logits[i] - most);
  for (int64_t i = 0; i < n; ++i) shares[i] /= sum;
}

// The experts of each gate, from the attributes.
class Members {
 public:
  // From an OpKernelConstruction or an InferenceContext.
  template <typename Context>
  Status Read(Context* context) {
    return StatusOf([&] {
      std::vector<int> members, sizes;
      int num_gates, num_experts;
      Check(context->GetAttr("members", &members));
      Check(context->GetAttr("sizes", &sizes));
      Check(context->GetAttr("num_gates", &num_gates));
      Check(context->GetAttr("num_experts", &num_experts));
      PLE_REQUIRE(sizes.size() == static_cast<size_t>(num_gates),
                  "sizes must have num_gates = ", num_gates,
                  " elements, got ", sizes.size(), ".");
      size_t begin = 0;
      for (int size : sizes) {
        PLE_REQUIRE(size >= 1 && size <= static_cast<int64_t>(members.size() -
                                                              begin),
                    "sizes must be positive and add up to the number of "
                    "members, ", members.size(), ".");
        gates_.emplace_back(members.begin() + begin,
                            members.begin() + begin + size);
        begin += size;
      }
      PLE_REQUIRE(begin == members.size(), "sizes must add up to the number "
                  "of members, ", members.size(), ", got ", begin, ".");
      for (int e : members)
        PLE_REQUIRE(e >= 0 && e < num_experts, "members must be in [0, ",
                    num_experts, "), got ", e, ".");
    });
  }

  // Refuses experts that are not [batch, dim] all, and logits, or what has
  // their shape, that are not [batch, size of the gate].
  void CheckShapes(const OpInputList& experts, const OpInputList& per_gate,
                   const char* name) const {
    const TensorShape& first = experts[0].shape();
    for (int e = 0; e < experts.size(); ++e)
      PLE_REQUIRE(experts[e].dims() == 2 && experts[e].shape() == first,
                  "experts must all be [batch, dim], got ",
                  first.DebugString(), " and ",
                  experts[e].shape().DebugString(), ".");
    for (size_t g = 0; g < gates_.size(); ++g) {
      const TensorShape wanted({first.dim_size(0), Size(g)});
      PLE_REQUIRE(per_gate[g].shape() == wanted, name, "[", g,
                  "] must have the shape ", wanted.DebugString(), ", got ",
                  per_gate[g].shape().DebugString(), ".");
    }
  }

  size_t size() const { return gates_.size(); }
  int64_t Size(size_t gate) const { return gates_[gate].size(); }
  const std::vector<int>& operator[](size_t gate) const { return gates_[gate]; }

 private:
  std::vector<std::vector<int>> gates_;
};

// Runs fn(row) for all rows, some of them per task.
template <typename Fn>
void ByRows(OpKernelContext* context, int64_t batch, Fn fn) {
  ParallelRun(context, (batch + kRows - 1) / kRows, [&](int64_t task) {
    const int64_t end = std::min(batch, (task + 1) * kRows);
    for (int64_t row = task * kRows; row < end; ++row) fn(row);
  });
}

class MixOp : public Op {
 public:
  explicit MixOp(OpKernelConstruction* context) : Op(context) {
    OP_REQUIRES_OK(context, members_.Read(context));
  }

 protected:
  void Run(OpKernelContext* context) override {
    const OpInputList logits = Inputs(context, "logits");
    const OpInputList experts = Inputs(context, "experts");
    members_.CheckShapes(experts, logits, "logits");
    const std::vector<TensorShape> shapes(members_.size(),
                                          experts[0].shape());
    const auto mixtures = Allocate(context, "mixtures", shapes);
    const auto shares = Allocate(context, "shares", Shapes(logits));
    const auto score = Data(logits), expert = Data(experts);
    const int64_t dim = experts[0].dim_size(1);
    ByRows(context, experts[0].dim_size(0), [&](int64_t row) {
      for (size_t g = 0; g < members_.size(); ++g) {
        const std::vector<int>& of = members_[g];
        const int64_t size = of.size();
        float* share = shares[g] + row * size;
        Softmax(score[g] + row * size, size, share);
        for (int64_t k = 0; k < size; ++k)
          Scale(expert[of[k]] + row * dim, share[k], k > 0, dim,
                mixtures[g] + row * dim);
      }
    });
  }

 private:
  Members members_;
};

class MixGradOp : public Op {
 public:
  explicit MixGradOp(OpKernelConstruction* context) : Op(context) {
    OP_REQUIRES_OK(context, members_.Read(context));
  }

 protected:
  void Run(OpKernelContext* context) override {
    const OpInputList shares = Inputs(context, "shares");
    const OpInputList experts = Inputs(context, "experts");
    const OpInputList d_mixtures = Inputs(context, "d_mixtures");
    const OpInputList d_shares = Inputs(context, "d_shares");
    members_.CheckShapes(experts, shares, "shares");
    members_.CheckShapes(experts, d_shares, "d_shares");
    for (int g = 0; g < d_mixtures.size(); ++g)
      PLE_REQUIRE(d_mixtures[g].shape() == experts[0].shape(), "d_mixtures[",
                  g, "] must have the shape of the experts, ",
                  experts[0].shape().DebugString(), ", got ",
                  d_mixtures[g].shape().DebugString(), ".");
    const Gradient gradient = {
        Data(shares), Data(experts), Data(d_mixtures), Data(d_shares),
        Allocate(context, "d_logits", Shapes(shares)),
        Allocate(context, "d_experts", Shapes(experts)),
        experts[0].dim_size(1)};
    ByRows(context, experts[0].dim_size(0),
           [&](int64_t row) { RowGradient(gradient, row); });
  }

 private:
  struct Gradient {
    std::vector<const float*> shares, experts, d_mixtures, d_shares;
    std::vector<float*> d_logits, d_experts;
    int64_t dim;
  };

  void RowGradient(const Gradient& of, int64_t row) const {
    const int64_t at = row * of.dim;
    static thread_local std::vector<bool> seen;
    seen.assign(of.experts.size(), false);
    for (size_t g = 0; g < members_.size(); ++g) {
      const int64_t size = members_.Size(g);
      const float* share = of.shares[g] + row * size;
      const float* d_share = of.d_shares[g] + row * size;
      const float* d_mixture = of.d_mixtures[g] + at;
      float* d = of.d_logits[g] + row * size;
      float mean = 0;
      for (int64_t k = 0; k < size; ++k) {
        const int e = members_[g][k];
        Scale(d_mixture, share[k], seen[e], of.dim, of.d_experts[e] + at);
        seen[e] = true;
        d[k] = Dot(d_mixture, of.experts[e] + at, of.dim) + d_share[k];
        mean += share[k] * d[k];
      }
      for (int64_t k = 0; k < size; ++k) d[k] = share[k] * (d[k] - mean);
    }
    for (size_t e = 0; e < of.experts.size(); ++e)  // in no gate
      if (!seen[e]) std::fill_n(of.d_experts[e] + at, of.dim, 0.f);
  }

  Members members_;
};

// ----------------------------------------------------------------- shapes ---

// The shape that all of a list have.
ShapeHandle Merged(InferenceContext* context,
                   const std::vector<ShapeHandle>& list) {
  ShapeHandle shape = list[0];
  for (const ShapeHandle& other : list)
    Check(context->Merge(shape, other, &shape));
  Check(context->WithRank(shape, 2, &shape));
  return shape;
}

void MixShapes(InferenceContext* context) {
  Members members;
  Check(members.Read(context));
  std::vector<ShapeHandle> logits, experts, mixtures;
  Check(context->input("logits", &logits));
  Check(context->input("experts", &experts));
  const ShapeHandle expert = Merged(context, experts);
  DimensionHandle batch = context->Dim(expert, 0);
  for (size_t g = 0; g < logits.size(); ++g) {
    const ShapeHandle wanted =
        context->Matrix(batch, context->MakeDim(members.Size(g)));
    Check(context->Merge(logits[g], wanted, &logits[g]));
    batch = context->Dim(logits[g], 0);
    mixtures.push_back(context->Matrix(batch, context->Dim(expert, 1)));
  }
  Check(context->set_output("mixtures", mixtures));
  Check(context->set_output("shares", logits));
}

void MixGradShapes(InferenceContext* context) {
  std::vector<ShapeHandle> shares, experts;
  Check(context->input("shares", &shares));
  Check(context->input("experts", &experts));
  Check(context->set_output("d_logits", shares));
  Check(context->set_output("d_experts", experts));
}

}  // namespace

#define PLE_MIX_ATTRS \
    .Attr("num_gates: int >= 1")   \
    .Attr("num_experts: int >= 1") \
    .Attr("members: list(int)")    \
    .Attr("sizes: list(int)")

REGISTER_OP("PleMix")
    .Input("logits: num_gates * float")
    .Input("experts: num_experts * float")
    .Output("mixtures: num_gates * float")
    .Output("shares: num_gates * float")
    PLE_MIX_ATTRS
    .SetShapeFn([](InferenceContext* context) {
      return StatusOf([&] { MixShapes(context); });
    })
    .Doc(R"doc(
Mixes experts by the softmax of gates.

logits: Per gate [batch, number of its experts].
experts: Each [batch, dim].
mixtures: Per gate [batch, dim], the sum of its experts times their shares.
shares: Per gate the softmax of its logits.
members: Positions in experts, those of all gates one after the other.
sizes: Per gate, how many of the members are its own.
)doc");

REGISTER_OP("PleMixGrad")
    .Input("shares: num_gates * float")
    .Input("experts: num_experts * float")
    .Input("d_mixtures: num_gates * float")
    .Input("d_shares: num_gates * float")
    .Output("d_logits: num_gates * float")
    .Output("d_experts: num_experts * float")
    PLE_MIX_ATTRS
    .SetShapeFn([](InferenceContext* context) {
      return StatusOf([&] { MixGradShapes(context); });
    })
    .Doc(R"doc(
The gradients of PleMix.

shares: An output of PleMix.
experts: Its input.
d_mixtures: The gradients of its mixtures.
d_shares: The gradients of its shares.
d_logits: The gradients of its logits.
d_experts: The gradients of its experts, 0 of one that no gate has.
)doc");

REGISTER_KERNEL_BUILDER(Name("PleMix").Device(DEVICE_CPU), MixOp);
REGISTER_KERNEL_BUILDER(Name("PleMixGrad").Device(DEVICE_CPU), MixGradOp);

}  // namespace ple
