// Updates of many variables by one op each: Adam of all dense variables, Adam
// of the touched rows of a table, and the moving averages of batch norm.

#include <algorithm>
#include <cmath>
#include <string>
#include <unordered_map>
#include <vector>

#include "common.h"
#include "tensorflow/core/common_runtime/dma_helper.h"
#include "tensorflow/core/framework/resource_mgr.h"
#include "tensorflow/core/framework/resource_var.h"

namespace ple {
namespace {

using tensorflow::Var;

typedef tensorflow::core::RefCountPtr<Var> VarPtr;
typedef tensorflow::int64 int64;  // not int64_t on TensorFlow 1.15

constexpr int64_t kChunk = 1 << 16;  // elements per task
constexpr int64_t kRows = 1 << 10;   // rows per task

// Makes var's memory its own, as the caller, who holds its lock, writes to it
// in place: someone may hold a tensor that was read from it. `rows_only` marks
// it, as TensorFlow does where rows are updated, to be copied when read
// instead of before each update.
Status MakeWritable(OpKernelContext* context, Var* var, bool rows_only) {
  if (var->copy_on_read_mode.load()) return Status();
  const auto* buffer = tensorflow::DMAHelper::buffer(var->tensor());
  if (buffer && !buffer->RefCountIsOne()) {
    Tensor copy;
    Status status = context->allocate_temp(var->tensor()->dtype(),
                                           var->tensor()->shape(), &copy);
    if (!status.ok()) return status;
    std::copy_n(var->tensor()->flat<float>().data(), copy.NumElements(),
                copy.flat<float>().data());
    *var->tensor() = copy;
  }
  if (rows_only) var->copy_on_read_mode.store(true);
  return Status();
}

// XLA of TensorFlow 1.15 gives a variable its value but not the mark of one.
Status Checked(const std::string& name, VarPtr* var) {
  if ((*var)->tensor()->IsInitialized() &&
      (*var)->tensor()->dtype() == tensorflow::DT_FLOAT)
    return Status();
  return errors::FailedPrecondition("the variable ", name,
                                    " is not initialized, or not float");
}

Status Lookup(OpKernelContext* context, int input, VarPtr* var) {
  const auto& handle = tensorflow::HandleFromInput(context, input);
  Status status = tensorflow::LookupResource(context, handle, var);
  return status.ok() ? Checked(handle.name(), var) : status;
}

// A variable by its name on this device. What a step has many of (slots, moving
// averages) comes by name: a handle each would be a third of the graph's ops.
Status Lookup(OpKernelContext* context, const std::string& name, VarPtr* var) {
  Var* found = nullptr;
  auto* manager = context->resource_manager();
  Status status = manager->Lookup(manager->default_container(), name, &found);
  if (!status.ok()) return status;
  var->reset(found);
  return Checked(name, var);
}

// Locks variables in the order of their addresses, as all who take two must.
class Locks {
 public:
  explicit Locks(std::vector<Var*> vars) : vars_(std::move(vars)) {
    std::sort(vars_.begin(), vars_.end());
    for (Var* var : vars_) var->mu()->lock();
  }
  ~Locks() {
    for (Var* var : vars_) var->mu()->unlock();
  }

 private:
  std::vector<Var*> vars_;
};

// Kingma and Ba (2015), algorithm 1 in the form of section 2: the corrections
// of the two moments are in the rate.
struct Adam {
  float rate, beta1, beta2, epsilon;

  // The six scalars from input `first` on: learning rate, beta1, beta2,
  // epsilon, and the powers of both betas.
  static Adam Read(OpKernelContext* context, int first) {
    float x[6];
    for (int i = 0; i < 6; ++i)
      x[i] = context->input(first + i).scalar<float>()();
    return {x[0] * std::sqrt(1 - x[5]) / (1 - x[4]), x[1], x[2], x[3]};
  }
};

PLE_VECTORIZED void Apply(const Adam& adam, const float* gradient, int64_t n,
                          float* var, float* m, float* v) {
  const float rate = adam.rate, b1 = adam.beta1, b2 = adam.beta2;
  const float epsilon = adam.epsilon;
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    m[i] += (gradient[i] - m[i]) * (1 - b1);
    v[i] += (gradient[i] * gradient[i] - v[i]) * (1 - b2);
    var[i] -= rate * m[i] / (std::sqrt(v[i]) + epsilon);
  }
}

class DenseAdamOp : public OpKernel {
 public:
  explicit DenseAdamOp(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, context->GetAttr("num", &num_));
    OP_REQUIRES_OK(context, context->GetAttr("slots", &slots_));
    OP_REQUIRES(context, slots_.size() == 2 * num_,
                errors::InvalidArgument("two slots per variable"));
  }

  void Compute(OpKernelContext* context) override {
    const Adam adam = Adam::Read(context, 2 * num_);
    std::vector<VarPtr> vars(3 * num_);
    for (int i = 0; i < num_; ++i)
      OP_REQUIRES_OK(context, Lookup(context, i, &vars[i]));
    for (int i = 0; i < 2 * num_; ++i)
      OP_REQUIRES_OK(context, Lookup(context, slots_[i], &vars[num_ + i]));
    std::vector<std::pair<int, int64_t>> tasks;  // variable, first element
    for (int i = 0; i < num_; ++i) {
      const int64_t size = context->input(num_ + i).NumElements();
      for (int64_t begin = 0; begin < size; begin += kChunk)
        tasks.emplace_back(i, begin);
    }
    std::vector<Var*> all;
    for (VarPtr& var : vars) all.push_back(var.get());
    Locks locks(all);
    for (int i = 0; i < 3 * num_; ++i) {
      OP_REQUIRES_OK(context, MakeWritable(context, all[i], false));
      OP_REQUIRES(context,
                  all[i]->tensor()->NumElements() ==
                      context->input(num_ + i % num_).NumElements(),
                  errors::InvalidArgument("gradient ", i % num_,
                                          " does not fit its variable"));
    }
    ParallelRun(context, tasks.size(), [&](int task) {
      const int i = tasks[task].first;
      const int64_t begin = tasks[task].second;
      const Tensor& gradient = context->input(num_ + i);
      Apply(adam, gradient.flat<float>().data() + begin,
            std::min<int64_t>(kChunk, gradient.NumElements() - begin),
            all[i]->tensor()->flat<float>().data() + begin,
            all[num_ + i]->tensor()->flat<float>().data() + begin,
            all[2 * num_ + i]->tensor()->flat<float>().data() + begin);
    });
  }

 private:
  int num_;
  std::vector<std::string> slots_;  // first m of all variables, then v
};

// Sums the values of equal rows; false, and nothing done, if none are equal.
bool SumRepeated(const int64* rows, const float* values, int64_t count,
                 int64_t width, std::vector<int64>* different,
                 std::vector<float>* sums) {
  std::unordered_map<int64, int64_t> place;
  place.reserve(count);
  for (int64_t i = 0; i < count; ++i) place.emplace(rows[i], place.size());
  if (static_cast<int64_t>(place.size()) == count) return false;
  different->resize(place.size());
  sums->assign(place.size() * width, 0.f);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t to = place[rows[i]];
    (*different)[to] = rows[i];
    for (int64_t j = 0; j < width; ++j)
      (*sums)[to * width + j] += values[i * width + j];
  }
  return true;
}

class RowsAdamOp : public OpKernel {
 public:
  using OpKernel::OpKernel;

  void Compute(OpKernelContext* context) override {
    const Tensor& rows = context->input(3);
    const Tensor& gradient = context->input(4);
    const Adam adam = Adam::Read(context, 5);
    VarPtr vars[3];
    for (int i = 0; i < 3; ++i)
      OP_REQUIRES_OK(context, Lookup(context, i, &vars[i]));
    Locks locks({vars[0].get(), vars[1].get(), vars[2].get()});
    float* data[3];
    for (int i = 0; i < 3; ++i) {
      OP_REQUIRES_OK(context, MakeWritable(context, vars[i].get(), true));
      data[i] = vars[i]->tensor()->flat<float>().data();
    }
    const Tensor& table = *vars[0]->tensor();
    int64_t count = rows.NumElements();
    const int64_t height = table.dim_size(0);
    const int64_t width = height ? table.NumElements() / height : 0;
    const int64* row = rows.flat<int64>().data();
    OP_REQUIRES(context, gradient.NumElements() == count * width,
                errors::InvalidArgument("gradient does not fit its rows"));
    for (int64_t i = 0; i < count; ++i)
      OP_REQUIRES(context, row[i] >= 0 && row[i] < height,
                  errors::InvalidArgument("row ", row[i], " is out of range"));
    // Rows that come twice are summed up first, as Adam squares the sum.
    std::vector<int64> different;
    std::vector<float> sums;
    const float* from = gradient.flat<float>().data();
    if (SumRepeated(row, from, count, width, &different, &sums)) {
      row = different.data();
      from = sums.data();
      count = different.size();
    }
    ParallelRun(context, (count + kRows - 1) / kRows, [&](int task) {
      const int64_t end = std::min<int64_t>(count, (task + 1) * kRows);
      for (int64_t i = task * kRows; i < end; ++i) {
        const int64_t at = row[i] * width;
        Apply(adam, from + i * width, width, data[0] + at, data[1] + at,
              data[2] + at);
      }
    });
  }
};

class MovingAveragesOp : public OpKernel {
 public:
  explicit MovingAveragesOp(OpKernelConstruction* context)
      : OpKernel(context) {
    OP_REQUIRES_OK(context, context->GetAttr("vars", &vars_));
    OP_REQUIRES_OK(context, context->GetAttr("momentum", &momentum_));
    OP_REQUIRES_OK(context, context->GetAttr("offsets", &offsets_));
    OP_REQUIRES(context, offsets_.size() == vars_.size(),
                errors::InvalidArgument("one offset per variable"));
  }

  void Compute(OpKernelContext* context) override {
    const Tensor& moments = context->input(0);
    const float* batch = moments.flat<float>().data();
    for (size_t i = 0; i < vars_.size(); ++i) {
      VarPtr var;
      OP_REQUIRES_OK(context, Lookup(context, vars_[i], &var));
      Locks locks({var.get()});
      OP_REQUIRES_OK(context, MakeWritable(context, var.get(), false));
      auto moving = var->tensor()->flat<float>();
      OP_REQUIRES(context, offsets_[i] + moving.size() <= moments.NumElements(),
                  errors::InvalidArgument("moments do not fit"));
      for (int64_t j = 0; j < moving.size(); ++j)
        moving(j) += (batch[offsets_[i] + j] - moving(j)) * (1 - momentum_);
    }
  }

 private:
  std::vector<std::string> vars_;
  float momentum_;
  std::vector<int> offsets_;
};

}  // namespace

REGISTER_OP("PleDenseAdam")
    .Input("vars: num * resource")
    .Input("gradients: num * float")
    .Input("learning_rate: float")
    .Input("beta1: float")
    .Input("beta2: float")
    .Input("epsilon: float")
    .Input("beta1_power: float")
    .Input("beta2_power: float")
    .Attr("num: int >= 1")
    .Attr("slots: list(string)")
    .SetShapeFn(tensorflow::shape_inference::NoOutputs);

REGISTER_OP("PleRowsAdam")
    .Input("var: resource")
    .Input("m: resource")
    .Input("v: resource")
    .Input("rows: int64")
    .Input("gradient: float")
    .Input("learning_rate: float")
    .Input("beta1: float")
    .Input("beta2: float")
    .Input("epsilon: float")
    .Input("beta1_power: float")
    .Input("beta2_power: float")
    .SetShapeFn(tensorflow::shape_inference::NoOutputs);

REGISTER_OP("PleMovingAverages")
    .Input("moments: float")
    .Attr("vars: list(string)")
    .Attr("offsets: list(int)")
    .Attr("momentum: float")
    .SetIsStateful()
    .SetShapeFn(tensorflow::shape_inference::NoOutputs);

REGISTER_KERNEL_BUILDER(Name("PleDenseAdam").Device(DEVICE_CPU), DenseAdamOp);
REGISTER_KERNEL_BUILDER(Name("PleRowsAdam").Device(DEVICE_CPU), RowsAdamOp);
REGISTER_KERNEL_BUILDER(Name("PleMovingAverages").Device(DEVICE_CPU),
                        MovingAveragesOp);

}  // namespace ple
