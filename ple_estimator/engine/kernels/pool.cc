// PlePool: from the vectors of a batch's different ids to one vector per row
// and column, the ids of a field combined.

#include <algorithm>
#include <cmath>
#include <string>

#include "common.h"

namespace ple {
namespace {

constexpr int64_t kFields = 512;  // per task

PLE_VECTORIZED void Add(const float* from, float weight, int64_t n, float* to) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) to[i] += weight * from[i];
}

// The fields of a batch: field f, of column f / batch and row f % batch, has
// the vectors index[splits[f]] to index[splits[f + 1]), and the weights at the
// same places where `weights` is not null.
struct Fields {
  const int32_t *index, *splits;
  const float* weights;
  int64_t count, batch, columns, dim;

  // Where the combined vector of a field is in [batch, columns * dim].
  int64_t Place(int64_t field) const {
    return ((field % batch) * columns + field / batch) * dim;
  }
};

class PoolBase : public Op {
 public:
  explicit PoolBase(OpKernelConstruction* context) : Op(context) {
    OP_REQUIRES_OK(context, context->GetAttr("columns", &columns_));
    OP_REQUIRES_OK(context, context->GetAttr("combiner", &combiner_));
  }

 protected:
  // Calls fn(vector, share) for each vector of field f, `share` being how much
  // it counts.
  template <typename Fn>
  void ForEach(const Fields& fields, int64_t f, Fn fn) const {
    const int32_t first = fields.splits[f], last = fields.splits[f + 1];
    if (!fields.weights) {
      const float share = Share(last - first);
      for (int32_t i = first; i < last; ++i) fn(fields.index[i], share);
      return;
    }
    const double divisor = Divisor(fields.weights + first, last - first);
    if (divisor == 0.) return;
    for (int32_t i = first; i < last; ++i)
      fn(fields.index[i], static_cast<float>(fields.weights[i] / divisor));
  }

  // Refuses shapes that do not fit and positions outside of the vectors: what
  // is read here was made by another op, and memory beyond is not ours.
  Fields Read(OpKernelContext* context) const {
    const Tensor& vectors = context->input(0);
    const Tensor& index = context->input(1);
    const Tensor& splits = context->input(2);
    const Tensor& weights = context->input(3);
    PLE_REQUIRE(vectors.dims() == 2, "vectors must be [n, dim], got ",
                vectors.shape().DebugString(), ".");
    PLE_REQUIRE(index.dims() == 1, "index must be a vector, got ",
                index.shape().DebugString(), ".");
    PLE_REQUIRE(weights.dims() == 1 && (weights.dim_size(0) == 0 ||
                                        weights.shape() == index.shape()),
                "weights must be [0] or [", index.NumElements(), "], got ",
                weights.shape().DebugString(), ".");
    PLE_REQUIRE(splits.dims() == 1 && splits.NumElements() >= 1 &&
                    (splits.NumElements() - 1) % columns_ == 0,
                "splits must be [", columns_, " * batch + 1], got ",
                splits.shape().DebugString(), ".");
    const int64_t count = splits.NumElements() - 1, ids = index.NumElements();
    const Fields fields = {index.flat<int32_t>().data(),
                           splits.flat<int32_t>().data(),
                           weights.NumElements() ? Data(weights) : nullptr,
                           count, count / columns_, columns_,
                           vectors.dim_size(1)};
    PLE_REQUIRE(fields.splits[0] == 0 && fields.splits[count] == ids,
                "splits must begin with 0 and end with the number of ids, ",
                ids, ", got ", fields.splits[0], " and ",
                fields.splits[count], ".");
    for (int64_t f = 0; f < count; ++f)
      PLE_REQUIRE(fields.splits[f] <= fields.splits[f + 1],
                  "splits must not fall, got ", fields.splits[f], " before ",
                  fields.splits[f + 1], ".");
    const int64_t n = vectors.dim_size(0);
    for (int64_t i = 0; i < ids; ++i)
      PLE_REQUIRE(fields.index[i] >= 0 && fields.index[i] < n,
                  "index must be in [0, ", n, "), got ", fields.index[i], ".");
    return fields;
  }

  // The shape of what comes out, which its gradient must have.
  static TensorShape Pooled(const Fields& fields) {
    return TensorShape({fields.batch, fields.columns * fields.dim});
  }

 private:
  // How much each of `count` vectors without weights counts.
  float Share(int count) const {
    if (combiner_ == "sum" || count == 1) return 1.f;
    return combiner_ == "mean" ? 1.f / count : 1.f / std::sqrt(count);
  }

  // What the weights of a field are divided by. In double, in which no square
  // of a float is too large or becomes 0.
  double Divisor(const float* weights, int64_t count) const {
    if (combiner_ == "sum") return 1.;
    double sum = 0.;
    if (combiner_ == "mean") {
      for (int64_t i = 0; i < count; ++i) sum += weights[i];
      return sum;
    }
    for (int64_t i = 0; i < count; ++i)
      sum += static_cast<double>(weights[i]) * weights[i];
    return std::sqrt(sum);
  }

  int columns_;
  std::string combiner_;
};

class PoolOp : public PoolBase {
 public:
  using PoolBase::PoolBase;

 protected:
  void Run(OpKernelContext* context) override {
    const Fields fields = Read(context);
    const int64_t dim = fields.dim;
    float* to = Allocate(context, "pooled", Pooled(fields));
    const float* from = Data(context->input(0));
    const int64_t tasks = (fields.count + kFields - 1) / kFields;
    ParallelRun(context, tasks, [&](int64_t task) {
      const int64_t end = std::min(fields.count, (task + 1) * kFields);
      for (int64_t f = task * kFields; f < end; ++f) {
        float* const sum = to + fields.Place(f);
        std::fill_n(sum, dim, 0.f);
        ForEach(fields, f, [&](int64_t vector, float share) {
          Add(from + vector * dim, share, dim, sum);
        });
      }
    });
  }
};

class PoolGradOp : public PoolBase {
 public:
  using PoolBase::PoolBase;

 protected:
  void Run(OpKernelContext* context) override {
    const Fields fields = Read(context);
    const Tensor& vectors = context->input(0);
    const Tensor& d_pooled = context->input(4);
    PLE_REQUIRE(d_pooled.shape() == Pooled(fields),
                "d_pooled must have the shape ", Pooled(fields).DebugString(),
                ", got ", d_pooled.shape().DebugString(), ".");
    float* to = Allocate(context, "d_vectors", vectors.shape());
    std::fill_n(to, vectors.NumElements(), 0.f);
    for (int64_t f = 0; f < fields.count; ++f) {
      const float* const d = Data(d_pooled) + fields.Place(f);
      ForEach(fields, f, [&](int64_t vector, float share) {
        Add(d, share, fields.dim, to + vector * fields.dim);
      });
    }
  }
};

// ----------------------------------------------------------------- shapes ---

void PoolShapes(InferenceContext* context) {
  int columns;
  Check(context->GetAttr("columns", &columns));
  ShapeHandle vectors, index, splits, weights;
  Check(context->WithRank(context->input(0), 2, &vectors));
  Check(context->WithRank(context->input(1), 1, &index));
  Check(context->WithRank(context->input(2), 1, &splits));
  Check(context->WithRank(context->input(3), 1, &weights));
  DimensionHandle batch, width;
  Check(context->Subtract(context->Dim(splits, 0), 1, &batch));
  Check(context->Divide(batch, columns, true, &batch));
  Check(context->Multiply(context->Dim(vectors, 1), columns, &width));
  context->set_output(0, context->Matrix(batch, width));
}

}  // namespace

REGISTER_OP("PlePool")
    .Input("vectors: float")
    .Input("index: int32")
    .Input("splits: int32")
    .Input("weights: float")
    .Output("pooled: float")
    .Attr("columns: int >= 1")
    .Attr("combiner: {'mean', 'sum', 'sqrtn'}")
    .SetShapeFn([](InferenceContext* context) {
      return StatusOf([&] { PoolShapes(context); });
    })
    .Doc(R"doc(
Combines the vectors of each field, the ids that a row has of a column.

vectors: [n, dim].
index: [ids], rows of vectors.
splits: [columns * batch + 1]: the ids of column c and row b are
  index[splits[c * batch + b]] to index[splits[c * batch + b + 1]).
weights: [ids], how much each id of a field counts; [0] where all count 1.
pooled: [batch, columns * dim], zeros where a field has no id.
combiner: The sum of a field's vectors times their weights w_i: over the sum of
  w_i, over 1, or over the root of the sum of w_i^2. Zeros where that is 0.
)doc");

REGISTER_OP("PlePoolGrad")
    .Input("vectors: float")
    .Input("index: int32")
    .Input("splits: int32")
    .Input("weights: float")
    .Input("d_pooled: float")
    .Output("d_vectors: float")
    .Attr("columns: int >= 1")
    .Attr("combiner: {'mean', 'sum', 'sqrtn'}")
    .SetShapeFn([](InferenceContext* context) {
      context->set_output(0, context->input(0));
      return Status();
    })
    .Doc(R"doc(
The gradient of PlePool by its vectors.

vectors: The input of PlePool.
index: Likewise.
splits: Likewise.
weights: Likewise.
d_pooled: The gradient of its output.
d_vectors: [n, dim].
)doc");

REGISTER_KERNEL_BUILDER(Name("PlePool").Device(DEVICE_CPU), PoolOp);
REGISTER_KERNEL_BUILDER(Name("PlePoolGrad").Device(DEVICE_CPU), PoolGradOp);

}  // namespace ple
