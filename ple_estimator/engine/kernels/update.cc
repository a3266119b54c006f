// Updates of many variables by one op each: Adam of all dense variables, Adam
// of the touched rows of a table, and the moving averages of batch norm.

#include <algorithm>
#include <cmath>
#include <mutex>
#include <string>
#include <unordered_map>
#include <utility>
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
void MakeWritable(OpKernelContext* context, Var* var, bool rows_only) {
  if (var->copy_on_read_mode.load()) return;
  const auto* buffer = tensorflow::DMAHelper::buffer(var->tensor());
  if (buffer && !buffer->RefCountIsOne()) {
    Tensor copy;
    Check(context->allocate_temp(var->tensor()->dtype(),
                                 var->tensor()->shape(), &copy));
    std::copy_n(Data(*var->tensor()), copy.NumElements(),
                copy.flat<float>().data());
    *var->tensor() = copy;
  }
  if (rows_only) var->copy_on_read_mode.store(true);
}

// A variable and what it is called, for errors.
struct Named {
  VarPtr var;
  std::string name;

  Tensor* tensor() const { return var->tensor(); }
  float* data() const { return tensor()->flat<float>().data(); }

  // XLA of TensorFlow 1.15 gives a variable its value but not the mark of one.
  void CheckInitialized() const {
    if (!tensor()->IsInitialized() ||
        tensor()->dtype() != tensorflow::DT_FLOAT)
      throw Failure{errors::FailedPrecondition(
          "The variable ", name, " is not initialized, or not float.")};
  }

  void CheckShape(const TensorShape& wanted, const std::string& of) const {
    PLE_REQUIRE(tensor()->shape() == wanted, "The variable ", name,
                " must have the shape of ", of, ", ", wanted.DebugString(),
                ", got ", tensor()->shape().DebugString(), ".");
  }
};

Named Lookup(OpKernelContext* context, int input) {
  const auto& handle = tensorflow::HandleFromInput(context, input);
  Named found;
  found.name = handle.name();
  Check(tensorflow::LookupResource(context, handle, &found.var));
  return found;
}

// A variable by its name on this device. What a step has many of (slots, moving
// averages) comes by name: a handle each would be a third of the graph's ops.
Named Lookup(OpKernelContext* context, const std::string& name) {
  Var* var = nullptr;
  auto* manager = context->resource_manager();
  Check(manager->Lookup(manager->default_container(), name, &var));
  Named found;
  found.name = name;
  found.var.reset(var);
  return found;
}

// Locks variables in the order of their addresses, as all who take two must.
// Refuses one that comes twice, which could not be locked.
class Locks {
 public:
  explicit Locks(const std::vector<Named>& vars) {
    for (const Named& named : vars) vars_.emplace_back(named.var.get());
    std::sort(vars_.begin(), vars_.end());
    for (size_t i = 1; i < vars_.size(); ++i)
      if (vars_[i] == vars_[i - 1]) Refuse(vars);
    for (Var* var : vars_) var->mu()->lock();
  }
  ~Locks() {
    for (Var* var : vars_) var->mu()->unlock();
  }
  Locks(const Locks&) = delete;
  Locks& operator=(const Locks&) = delete;

 private:
  static void Refuse(const std::vector<Named>& vars) {
    for (size_t i = 0; i < vars.size(); ++i)
      for (size_t j = 0; j < i; ++j)
        PLE_REQUIRE(vars[i].var.get() != vars[j].var.get(), "The variable ",
                    vars[i].name, " was given twice to one update.");
  }

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
    for (int i = 0; i < 6; ++i) {
      const Tensor& scalar = context->input(first + i);
      PLE_REQUIRE(scalar.dims() == 0, kScalars[i],
                  " must be a scalar, got the shape ",
                  scalar.shape().DebugString(), ".");
      x[i] = scalar.scalar<float>()();
    }
    return {x[0] * std::sqrt(1 - x[5]) / (1 - x[4]), x[1], x[2], x[3]};
  }

  static const char* const kScalars[6];
};

const char* const Adam::kScalars[6] = {
    "learning_rate", "beta1", "beta2", "epsilon", "beta1_power", "beta2_power"};

PLE_VECTORIZED void Apply(const Adam& adam, const float* gradient, int64_t n,
                          float* var, float* m, float* v) {
  Moved(n * 7 * sizeof(float));  // reads four numbers, writes three
  const float rate = adam.rate, b1 = adam.beta1, b2 = adam.beta2;
  const float epsilon = adam.epsilon;
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    m[i] += (gradient[i] - m[i]) * (1 - b1);
    v[i] += (gradient[i] * gradient[i] - v[i]) * (1 - b2);
    var[i] -= rate * m[i] / (std::sqrt(v[i]) + epsilon);
  }
}

class DenseAdamOp : public Op {
 public:
  explicit DenseAdamOp(OpKernelConstruction* context) : Op(context) {
    OP_REQUIRES_OK(context, context->GetAttr("num", &num_));
    OP_REQUIRES_OK(context, context->GetAttr("slots", &slots_));
    OP_REQUIRES(context, slots_.size() == 2 * static_cast<size_t>(num_),
                errors::InvalidArgument("slots must have 2 * num = ", 2 * num_,
                                        " elements, got ", slots_.size(),
                                        "."));
  }

 protected:
  void Run(OpKernelContext* context) override {
    const Adam adam = Adam::Read(context, 2 * num_);
    std::vector<Named> vars;  // all variables, then all m, then all v
    for (int i = 0; i < num_; ++i) vars.push_back(Lookup(context, i));
    for (const std::string& slot : slots_)
      vars.push_back(Lookup(context, slot));
    const Locks locks(vars);
    for (int i = 0; i < 3 * num_; ++i) {
      vars[i].CheckInitialized();
      vars[i].CheckShape(context->input(num_ + i % num_).shape(),
                         "its gradient");
    }
    for (const Named& var : vars) MakeWritable(context, var.var.get(), false);
    std::vector<std::pair<int, int64_t>> tasks;  // variable, first element
    for (int i = 0; i < num_; ++i) {
      const int64_t size = context->input(num_ + i).NumElements();
      for (int64_t begin = 0; begin < size; begin += kChunk)
        tasks.emplace_back(i, begin);
    }
    ParallelRun(context, tasks.size(), [&](int64_t task) {
      const int i = tasks[task].first;
      const int64_t begin = tasks[task].second;
      const Tensor& gradient = context->input(num_ + i);
      Apply(adam, Data(gradient) + begin,
            std::min<int64_t>(kChunk, gradient.NumElements() - begin),
            vars[i].data() + begin, vars[num_ + i].data() + begin,
            vars[2 * num_ + i].data() + begin);
    });
  }

 private:
  int num_;
  std::vector<std::string> slots_;  // first m of all variables, then v
};

// Finds out whether rows come twice, at the cost of a bit per row of the table.
class Repeats {
 public:
  // Whether one of the rows, all in [0, height), comes twice.
  bool Any(const int64* rows, int64_t count, int64_t height) {
    std::lock_guard<std::mutex> lock(mutex_);
    const size_t words = (height + 63) / 64;
    if (seen_.size() < words) seen_.resize(words, 0);
    int64_t i = 0;
    for (; i < count; ++i) {
      uint64_t& word = seen_[rows[i] / 64];
      const uint64_t bit = uint64_t{1} << (rows[i] % 64);
      if (word & bit) break;
      word |= bit;
    }
    for (int64_t k = 0; k < i; ++k) seen_[rows[k] / 64] = 0;
    return i < count;
  }

 private:
  std::mutex mutex_;
  std::vector<uint64_t> seen_;  // all 0 between two calls
};

// Sums the values of equal rows.
void SumRepeated(const int64* rows, const float* values, int64_t count,
                 int64_t width, std::vector<int64>* different,
                 std::vector<float>* sums) {
  std::unordered_map<int64, int64_t> place;
  place.reserve(count);
  for (int64_t i = 0; i < count; ++i) place.emplace(rows[i], place.size());
  different->resize(place.size());
  sums->assign(place.size() * width, 0.f);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t to = place[rows[i]];
    (*different)[to] = rows[i];
    for (int64_t j = 0; j < width; ++j)
      (*sums)[to * width + j] += values[i * width + j];
  }
}

// Refuses rows and a gradient that do not fit the variable.
void CheckRows(const Tensor& table, const Tensor& rows,
               const Tensor& gradient) {
  PLE_REQUIRE(table.dims() >= 1, "The variable must have rows, got a scalar.");
  PLE_REQUIRE(rows.dims() == 1, "rows must be a vector, got ",
              rows.shape().DebugString(), ".");
  TensorShape wanted = table.shape();
  wanted.set_dim(0, rows.NumElements());
  PLE_REQUIRE(gradient.shape() == wanted, "The gradient must have the shape ",
              wanted.DebugString(), ", got ", gradient.shape().DebugString(),
              ".");
  const int64 height = table.dim_size(0);
  const int64* row = rows.flat<int64>().data();
  for (int64_t i = 0; i < rows.NumElements(); ++i)
    PLE_REQUIRE(row[i] >= 0 && row[i] < height, "rows must be in [0, ", height,
                "), got ", row[i], ".");
}

class RowsAdamOp : public Op {
 public:
  using Op::Op;

 protected:
  void Run(OpKernelContext* context) override {
    const Tensor& rows = context->input(3);
    const Tensor& gradient = context->input(4);
    const Adam adam = Adam::Read(context, 5);
    std::vector<Named> vars;  // the table, m and v
    for (int i = 0; i < 3; ++i) vars.push_back(Lookup(context, i));
    const Locks locks(vars);
    for (const Named& var : vars) {
      var.CheckInitialized();
      var.CheckShape(vars[0].tensor()->shape(), vars[0].name);
    }
    CheckRows(*vars[0].tensor(), rows, gradient);
    for (const Named& var : vars) MakeWritable(context, var.var.get(), true);
    int64_t count = rows.NumElements();
    if (!count) return;
    const int64_t width = gradient.NumElements() / count;
    const int64* row = rows.flat<int64>().data();
    const float* from = Data(gradient);
    // Rows that come twice are summed up first, as Adam squares the sum. Those
    // of a batch that was packed are all different.
    std::vector<int64> different;
    std::vector<float> sums;
    if (repeats_.Any(row, count, vars[0].tensor()->dim_size(0))) {
      SumRepeated(row, from, count, width, &different, &sums);
      row = different.data();
      from = sums.data();
      count = different.size();
    }
    float *table = vars[0].data(), *m = vars[1].data(), *v = vars[2].data();
    ParallelRun(context, (count + kRows - 1) / kRows, [&](int64_t task) {
      const int64_t end = std::min<int64_t>(count, (task + 1) * kRows);
      for (int64_t i = task * kRows; i < end; ++i) {
        const int64_t at = row[i] * width;
        Apply(adam, from + i * width, width, table + at, m + at, v + at);
      }
    });
  }

 private:
  Repeats repeats_;
};

PLE_VECTORIZED void MoveAverage(float share, const float* var, int64_t n,
                                float* average) {
  Moved(n * 3 * sizeof(float));
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) average[i] += share * (var[i] - average[i]);
}

class MoveAveragesOp : public Op {
 public:
  explicit MoveAveragesOp(OpKernelConstruction* context) : Op(context) {
    OP_REQUIRES_OK(context, context->GetAttr("averages", &averages_));
    OP_REQUIRES_OK(context, context->GetAttr("vars", &vars_));
    OP_REQUIRES(context, vars_.size() == averages_.size(),
                errors::InvalidArgument("averages must have one element per "
                                        "variable, ", vars_.size(), ", got ",
                                        averages_.size(), "."));
  }

 protected:
  void Run(OpKernelContext* context) override {
    const Tensor& share = context->input(0);
    PLE_REQUIRE(share.dims() == 0, "share must be a scalar, got the shape ",
                share.shape().DebugString(), ".");
    const float by = share.scalar<float>()();
    const size_t num = vars_.size();
    std::vector<Named> vars;  // all averages, then all variables
    for (const std::string& name : averages_)
      vars.push_back(Lookup(context, name));
    for (const std::string& name : vars_)
      vars.push_back(Lookup(context, name));
    const Locks locks(vars);
    for (const Named& var : vars) var.CheckInitialized();
    std::vector<std::pair<size_t, int64_t>> tasks;  // average, first element
    for (size_t i = 0; i < num; ++i) {
      vars[i].CheckShape(vars[num + i].tensor()->shape(), vars[num + i].name);
      MakeWritable(context, vars[i].var.get(), false);
      const int64_t size = vars[i].tensor()->NumElements();
      for (int64_t begin = 0; begin < size; begin += kChunk)
        tasks.emplace_back(i, begin);
    }
    ParallelRun(context, tasks.size(), [&](int64_t task) {
      const size_t i = tasks[task].first;
      const int64_t begin = tasks[task].second;
      MoveAverage(by, vars[num + i].data() + begin,
                  std::min<int64_t>(
                      kChunk, vars[i].tensor()->NumElements() - begin),
                  vars[i].data() + begin);
    });
  }

 private:
  std::vector<std::string> averages_, vars_;
};

class MovingAveragesOp : public Op {
 public:
  explicit MovingAveragesOp(OpKernelConstruction* context) : Op(context) {
    OP_REQUIRES_OK(context, context->GetAttr("vars", &vars_));
    OP_REQUIRES_OK(context, context->GetAttr("offsets", &offsets_));
    OP_REQUIRES(context, offsets_.size() == vars_.size(),
                errors::InvalidArgument("offsets must have one element per "
                                        "variable, ", vars_.size(), ", got ",
                                        offsets_.size(), "."));
  }

 protected:
  void Run(OpKernelContext* context) override {
    const Tensor& moments = context->input(0);
    PLE_REQUIRE(moments.dims() == 1, "moments must be a vector, got ",
                moments.shape().DebugString(), ".");
    PLE_REQUIRE(context->input(1).dims() == 0,
                "momentum must be a scalar, got the shape ",
                context->input(1).shape().DebugString(), ".");
    const float momentum = context->input(1).scalar<float>()();
    std::vector<Named> vars;
    for (const std::string& name : vars_)
      vars.push_back(Lookup(context, name));
    const Locks locks(vars);
    for (size_t i = 0; i < vars.size(); ++i) {
      vars[i].CheckInitialized();
      const int64_t size = vars[i].tensor()->NumElements();
      PLE_REQUIRE(offsets_[i] >= 0 &&
                      offsets_[i] <= moments.NumElements() - size,
                  "The variable ", vars[i].name, " has ", size,
                  " elements, but moments has ", moments.NumElements(),
                  " and its part begins at ", offsets_[i], ".");
    }
    for (size_t i = 0; i < vars.size(); ++i) {
      MakeWritable(context, vars[i].var.get(), false);
      const float* batch = Data(moments) + offsets_[i];
      auto moving = vars[i].tensor()->flat<float>();
      for (int64_t j = 0; j < moving.size(); ++j)
        moving(j) += (batch[j] - moving(j)) * (1 - momentum);
    }
  }

 private:
  std::vector<std::string> vars_;
  std::vector<int64> offsets_;
};

// No outputs, and the last six inputs are the scalars of Adam.
Status AdamShapes(InferenceContext* context) {
  ShapeHandle unused;
  return StatusOf([&] {
    for (int i = context->num_inputs() - 6; i < context->num_inputs(); ++i)
      Check(context->WithRank(context->input(i), 0, &unused));
  });
}

}  // namespace

#define PLE_ADAM_SCALARS \
    .Input("learning_rate: float") \
    .Input("beta1: float")         \
    .Input("beta2: float")         \
    .Input("epsilon: float")       \
    .Input("beta1_power: float")   \
    .Input("beta2_power: float")

REGISTER_OP("PleDenseAdam")
    .Input("vars: num * resource")
    .Input("gradients: num * float")
    PLE_ADAM_SCALARS
    .Attr("num: int >= 1")
    .Attr("slots: list(string)")
    .SetShapeFn(AdamShapes)
    .Doc(R"doc(
Adam (Kingma and Ba, 2015) on variables.

vars: Resource variables, float, each once.
gradients: Each of the shape of its variable.
beta1_power: beta1 to the power of the number of the step.
beta2_power: Likewise.
slots: The names, on the variables' device, of the first moments of all
  variables, then of their second moments.
)doc");

REGISTER_OP("PleRowsAdam")
    .Input("var: resource")
    .Input("m: resource")
    .Input("v: resource")
    .Input("rows: int64")
    .Input("gradient: float")
    PLE_ADAM_SCALARS
    .SetShapeFn([](InferenceContext* context) {
      ShapeHandle unused;
      const Status status =
          context->WithRank(context->input(3), 1, &unused);
      return status.ok() ? AdamShapes(context) : status;
    })
    .Doc(R"doc(
Adam (Kingma and Ba, 2015) on some rows of a variable.

var: Resource variable, float, [height, ...].
m: Its first moment, likewise.
v: Its second moment, likewise.
rows: [n]; of one that comes twice the gradients are added up.
gradient: [n, ...].
beta1_power: beta1 to the power of the number of the step.
beta2_power: Likewise.
)doc");

REGISTER_OP("PleMoveAverages")
    .Input("share: float")
    .Attr("averages: list(string)")
    .Attr("vars: list(string)")
    .SetIsStateful()
    .SetShapeFn([](InferenceContext* context) {
      ShapeHandle unused;
      return context->WithRank(context->input(0), 0, &unused);
    })
    .Doc(R"doc(
Moves averages towards variables.

Each becomes average + share * (variable - average).

share: In [0, 1].
averages: The names of the averages, float, on the device of the op, each once.
vars: The names of their variables, of the same shapes.
)doc");

REGISTER_OP("PleMovingAverages")
    .Input("moments: float")
    .Input("momentum: float")
    .Attr("vars: list(string)")
    .Attr("offsets: list(int)")
    .SetIsStateful()
    .SetShapeFn([](InferenceContext* context) {
      return StatusOf([&] {
        ShapeHandle unused;
        Check(context->WithRank(context->input(0), 1, &unused));
        Check(context->WithRank(context->input(1), 0, &unused));
      });
    })
    .Doc(R"doc(
Moves variables towards new values.

Each becomes momentum * itself + (1 - momentum) * its part of moments.

moments: A vector.
momentum: A scalar.
vars: The names of the variables, float, on the device of the op, each once.
offsets: Per variable, where its part of moments begins.
)doc");

REGISTER_KERNEL_BUILDER(Name("PleDenseAdam").Device(DEVICE_CPU), DenseAdamOp);
REGISTER_KERNEL_BUILDER(Name("PleMoveAverages").Device(DEVICE_CPU),
                        MoveAveragesOp);
REGISTER_KERNEL_BUILDER(Name("PleRowsAdam").Device(DEVICE_CPU), RowsAdamOp);
REGISTER_KERNEL_BUILDER(Name("PleMovingAverages").Device(DEVICE_CPU),
                        MovingAveragesOp);

}  // namespace ple
