// PlePool: from the vectors of a batch's different ids to one vector per row
// and column, the ids of a field combined.

#include <cmath>
#include <string>

#include "common.h"

namespace ple {
namespace {

constexpr int kFields = 512;  // per task

PLE_VECTORIZED void Add(const float* from, float weight, int n, float* to) {
#pragma omp simd
  for (int i = 0; i < n; ++i) to[i] += weight * from[i];
}

class PoolBase : public OpKernel {
 public:
  explicit PoolBase(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, context->GetAttr("columns", &columns_));
    OP_REQUIRES_OK(context, context->GetAttr("combiner", &combiner_));
    OP_REQUIRES(context,
                combiner_ == "mean" || combiner_ == "sum" ||
                    combiner_ == "sqrtn",
                errors::InvalidArgument("unknown combiner ", combiner_));
  }

 protected:
  // How much each of `count` ids of a field counts.
  float Weight(int count) const {
    if (combiner_ == "sum" || count == 1) return 1.f;
    return combiner_ == "mean" ? 1.f / count : 1.f / std::sqrt(count);
  }

  // Refuses positions outside of the vectors: what is read here was made by
  // another op, and memory beyond is not ours.
  void Check(OpKernelContext* context, int64_t num_vectors,
             const Tensor& index, const Tensor& splits) const {
    const auto at = index.flat<int32_t>();
    const auto split = splits.flat<int32_t>();
    const int64_t fields = split.size() - 1;
    OP_REQUIRES(context, fields >= 0 && fields % columns_ == 0 &&
                             split(0) == 0 && split(fields) == at.size(),
                errors::InvalidArgument("splits do not fit index"));
    for (int64_t f = 0; f < fields; ++f)
      OP_REQUIRES(context, split(f) <= split(f + 1),
                  errors::InvalidArgument("splits must not fall"));
    for (int64_t i = 0; i < at.size(); ++i)
      OP_REQUIRES(context, at(i) >= 0 && at(i) < num_vectors,
                  errors::InvalidArgument("index ", at(i),
                                          " is out of range"));
  }

  int columns_;
  std::string combiner_;
};

class PoolOp : public PoolBase {
 public:
  using PoolBase::PoolBase;

  void Compute(OpKernelContext* context) override {
    const Tensor& vectors = context->input(0);
    const Tensor& index = context->input(1);
    const Tensor& splits = context->input(2);
    OP_REQUIRES(context, vectors.dims() == 2,
                errors::InvalidArgument("vectors must be [n, dim]"));
    Check(context, vectors.dim_size(0), index, splits);
    if (!context->status().ok()) return;
    const int dim = vectors.dim_size(1);
    const int64_t fields = splits.NumElements() - 1;
    const int64_t batch = fields / columns_;
    Tensor* output = nullptr;
    OP_REQUIRES_OK(context,
                   context->allocate_output(
                       0, TensorShape({batch, columns_ * dim}), &output));
    const float* from = vectors.flat<float>().data();
    const int32_t* at = index.flat<int32_t>().data();
    const int32_t* split = splits.flat<int32_t>().data();
    float* to = output->flat<float>().data();
    ParallelRun(context, (fields + kFields - 1) / kFields, [&](int task) {
      const int64_t end = std::min<int64_t>(fields, (task + 1) * kFields);
      for (int64_t f = task * kFields; f < end; ++f) {
        float* sum = to + ((f % batch) * columns_ + f / batch) * dim;
        std::fill_n(sum, dim, 0.f);
        const float weight = Weight(split[f + 1] - split[f]);
        for (int32_t i = split[f]; i < split[f + 1]; ++i)
          Add(from + static_cast<int64_t>(at[i]) * dim, weight, dim, sum);
      }
    });
  }
};

class PoolGradOp : public PoolBase {
 public:
  using PoolBase::PoolBase;

  void Compute(OpKernelContext* context) override {
    const Tensor& vectors = context->input(0);
    const Tensor& index = context->input(1);
    const Tensor& splits = context->input(2);
    const Tensor& d_output = context->input(3);
    Check(context, vectors.dim_size(0), index, splits);
    if (!context->status().ok()) return;
    const int dim = vectors.dim_size(1);
    const int64_t fields = splits.NumElements() - 1;
    const int64_t batch = fields / columns_;
    OP_REQUIRES(context, d_output.NumElements() == fields * dim,
                errors::InvalidArgument("gradient does not fit"));
    Tensor* d_vectors = nullptr;
    OP_REQUIRES_OK(context,
                   context->allocate_output(0, vectors.shape(), &d_vectors));
    const float* from = d_output.flat<float>().data();
    const int32_t* at = index.flat<int32_t>().data();
    const int32_t* split = splits.flat<int32_t>().data();
    float* to = d_vectors->flat<float>().data();
    std::fill_n(to, d_vectors->NumElements(), 0.f);
    for (int64_t f = 0; f < fields; ++f) {
      const float* d = from + ((f % batch) * columns_ + f / batch) * dim;
      const float weight = Weight(split[f + 1] - split[f]);
      for (int32_t i = split[f]; i < split[f + 1]; ++i)
        Add(d, weight, dim, to + static_cast<int64_t>(at[i]) * dim);
    }
  }
};

}  // namespace

REGISTER_OP("PlePool")
    .Input("vectors: float")
    .Input("index: int32")
    .Input("splits: int32")
    .Output("pooled: float")
    .Attr("columns: int >= 1")
    .Attr("combiner: string")
    .SetShapeFn(tensorflow::shape_inference::UnknownShape);

REGISTER_OP("PlePoolGrad")
    .Input("vectors: float")
    .Input("index: int32")
    .Input("splits: int32")
    .Input("d_pooled: float")
    .Output("d_vectors: float")
    .Attr("columns: int >= 1")
    .Attr("combiner: string")
    .SetShapeFn(tensorflow::shape_inference::UnknownShape);

REGISTER_KERNEL_BUILDER(Name("PlePool").Device(DEVICE_CPU), PoolOp);
REGISTER_KERNEL_BUILDER(Name("PlePoolGrad").Device(DEVICE_CPU), PoolGradOp);

}  // namespace ple
