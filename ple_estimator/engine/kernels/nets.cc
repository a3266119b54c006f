// PleNets: a set of small dense networks (experts, gates, towers of a level),
// forward and backward, each run by one thread while it is in the cache. Nets
// that would leave threads idle are cut into blocks of rows (schedule.h).
// net_layout.h says what a net is.

#include <cmath>
#include <memory>
#include <vector>

#include "common.h"
#include "net_backward.h"
#include "net_forward.h"
#include "net_layout.h"
#include "workspace.h"

namespace ple {
namespace {

// Runs StepOf the operand type that attributes and processor want.
template <template <typename> class StepOf, typename... Args>
void RunStep(const Job& job, const Args&... args) {
  if (!job.spec.bfloat16) {
    StepOf<float>(job, args...).Run();
  } else if (HasBfloat16()) {
    StepOf<bf16>(job, args...).Run();
  } else {
    StepOf<rounded>(job, args...).Run();
  }
}

// All that decides where the numbers of a job lie in its workspace.
std::vector<int64_t> LayoutOf(const Job& job) {
  std::vector<int64_t> layout = {
      job.inputs[0].dim_size(0), NumThreads(job.context), job.spec.bfloat16,
      job.spec.batch_norm, job.spec.training,
      static_cast<int64_t>(job.spec.activation),
      std::llround(std::ldexp(job.spec.dropout, 31)), job.seed};
  for (int i = 0; i < job.inputs.size(); ++i)
    layout.push_back(job.inputs[i].dim_size(1));
  for (const Net& net : job.nets) {
    layout.push_back(net.input);
    for (const Layer& layer : net.layers)
      layout.insert(layout.end(), {layer.hidden, layer.in, layer.out});
  }
  return layout;
}

std::vector<TensorShape> OutputShapes(int64_t batch,
                                      const std::vector<Net>& nets) {
  std::vector<TensorShape> shapes;
  for (const Net& net : nets)
    shapes.push_back(TensorShape({batch, net.layers.back().out}));
  return shapes;
}

int64_t SeedInput(OpKernelContext* context) {
  const Tensor* seed;
  Check(context->input("seed", &seed));
  PLE_REQUIRE(seed->dims() == 0, "seed must be a scalar, got the shape ",
              seed->shape().DebugString(), ".");
  return seed->scalar<tensorflow::int64>()();
}

void CheckMoments(const Tensor& given, const char* name, int64_t num_moments) {
  PLE_REQUIRE(given.shape() == TensorShape({num_moments}), name,
              " must have the shape [", num_moments, "], got ",
              given.shape().DebugString(), ".");
}

class NetsOp : public Op {
 public:
  explicit NetsOp(OpKernelConstruction* context)
      : Op(context), pool_(std::make_shared<WorkspacePool>()) {
    OP_REQUIRES_OK(context, spec_.Read(context));
    OP_REQUIRES_OK(context, context->GetAttr("training", &spec_.training));
  }

 protected:
  void Run(OpKernelContext* context) override {
    const OpInputList inputs = Inputs(context, "inputs");
    const OpInputList params = Inputs(context, "params");
    int64_t num_moments = 0;
    const auto nets = spec_.WithWidths(inputs, params, &num_moments);
    const Tensor* moving;
    Check(context->input("moving", &moving));
    CheckMoments(*moving, "moving", spec_.training ? 0 : num_moments);
    const auto outputs =
        Allocate(context, "outputs",
                 OutputShapes(inputs[0].dim_size(0), nets));
    float* moments = Allocate(context, "moments", TensorShape({num_moments}));
    if (!spec_.training) std::copy_n(Data(*moving), num_moments, moments);
    Tensor* saved = nullptr;
    Check(context->allocate_output("saved", TensorShape({}), &saved));
    Saved state{pool_->Take(), {}};
    const Job job{context, spec_, inputs, params, nets,
                  state.workspace.get(), SeedInput(context)};
    state.layout = LayoutOf(job);
    RunStep<Forward>(job, outputs, moments);
    saved->scalar<tensorflow::Variant>()() = std::move(state);
  }

 private:
  Spec spec_;
  std::shared_ptr<WorkspacePool> pool_;
};

class NetsGradOp : public Op {
 public:
  explicit NetsGradOp(OpKernelConstruction* context) : Op(context) {
    OP_REQUIRES_OK(context, spec_.Read(context));
  }

 protected:
  void Run(OpKernelContext* context) override {
    const OpInputList inputs = Inputs(context, "inputs");
    const OpInputList params = Inputs(context, "params");
    const OpInputList d_outputs = Inputs(context, "d_outputs");
    int64_t num_moments = 0;
    const auto nets = spec_.WithWidths(inputs, params, &num_moments);
    const auto wanted = OutputShapes(inputs[0].dim_size(0), nets);
    for (int n = 0; n < d_outputs.size(); ++n)
      PLE_REQUIRE(d_outputs[n].shape() == wanted[n], "d_outputs[", n,
                  "] must have the shape ", wanted[n].DebugString(), ", got ",
                  d_outputs[n].shape().DebugString(), ".");
    const Tensor* moments;
    Check(context->input("moments", &moments));
    CheckMoments(*moments, "moments", num_moments);
    const Saved& state = SavedInput(context);
    const Job job{context, spec_, inputs, params, nets,
                  state.workspace.get(), SeedInput(context)};
    PLE_REQUIRE(state.layout == LayoutOf(job),
                "saved must come from a PleNets in training with the same "
                "attributes, seed and shapes.");
    const auto d_inputs = Allocate(context, "d_inputs", Shapes(inputs));
    const auto d_params = Allocate(context, "d_params", Shapes(params));
    RunStep<Backward>(job, Data(d_outputs), Data(*moments), d_inputs,
                      d_params);
  }

 private:
  static const Saved& SavedInput(OpKernelContext* context) {
    const Tensor* saved;
    Check(context->input("saved", &saved));
    PLE_REQUIRE(saved->dims() == 0, "saved must be a scalar, got the shape ",
                saved->shape().DebugString(), ".");
    const Saved* state = saved->scalar<tensorflow::Variant>()().get<Saved>();
    PLE_REQUIRE(state && state->workspace, "saved must come from PleNets.");
    return *state;
  }

  Spec spec_;
};

// ----------------------------------------------------------------- shapes ---

void NetsShapes(InferenceContext* context) {
  Spec spec;
  Check(spec.Read(context));
  std::vector<ShapeHandle> inputs, params, outputs;
  Check(context->input("inputs", &inputs));
  Check(context->input("params", &params));
  DimensionHandle batch = context->UnknownDim();
  for (ShapeHandle& input : inputs) {
    Check(context->WithRank(input, 2, &input));
    Check(context->Merge(batch, context->Dim(input, 0), &batch));
  }
  DimensionHandle moments = context->MakeDim(0);
  for (const Net& net : spec.nets) {
    DimensionHandle width = context->Dim(inputs[net.input], 1);
    for (const Layer& layer : net.layers) {
      ShapeHandle kernel = params[layer.kernel];
      Check(context->WithRank(kernel, 2, &kernel));
      Check(context->Merge(width, context->Dim(kernel, 0), &width));
      width = context->Dim(kernel, 1);
      for (int i = 0; i < (layer.has_norm() ? 2 : 0); ++i)
        Check(context->Add(moments, width, &moments));
    }
    outputs.push_back(context->Matrix(batch, width));
  }
  Check(context->set_output("outputs", outputs));
  Check(context->set_output("moments", {context->Vector(moments)}));
  Check(context->set_output("saved", {context->Scalar()}));
}

void NetsGradShapes(InferenceContext* context) {
  std::vector<ShapeHandle> inputs, params;
  Check(context->input("inputs", &inputs));
  Check(context->input("params", &params));
  Check(context->set_output("d_inputs", inputs));
  Check(context->set_output("d_params", params));
}

}  // namespace

// What Spec reads, and the lengths of lists.
#define PLE_SPEC_ATTRS \
    .Attr("num_inputs: int >= 1")                  \
    .Attr("num_params: int >= 1")                  \
    .Attr("num_nets: int >= 1")                    \
    .Attr("net_input: list(int)")                  \
    .Attr("num_hidden: list(int)")                 \
    .Attr("linear: list(int)")                     \
    .Attr("batch_norm: bool")                      \
    .Attr("compute: {float, bfloat16} = DT_FLOAT") \
    .Attr("epsilon: float = 0.001")                \
    .Attr(PLE_ACTIVATION_ATTR)                     \
    .Attr("dropout: float = 0.0")

REGISTER_OP("PleNets")
    .Input("inputs: num_inputs * float")
    .Input("params: num_params * float")
    .Input("moving: float")
    .Input("seed: int64")
    .Output("outputs: num_nets * float")
    .Output("moments: float")
    .Output("saved: variant")
    PLE_SPEC_ATTRS
    .Attr("training: bool")
    .SetIsStateful()  // `saved` is not a value that could be folded or shared
    .SetShapeFn([](InferenceContext* context) {
      return StatusOf([&] { NetsShapes(context); });
    })
    .Doc(R"doc(
Runs a set of small dense networks, each in one thread.

A hidden layer is dropout(norm(activation(x kernel + bias))), norm a batch norm
or nothing; dropout is in training only.

inputs: Each [batch, width].
params: Per net and hidden layer kernel [in, out], bias [out], and with batch
  norm gamma [out] and beta [out]; then kernel and, if it has one, bias of the
  linear layer.
moving: Mean and variance of every batch norm, one after the other in the order
  of params; empty when training.
seed: A scalar. With dropout, the mask is a function of it and of the positions
  of net, layer, row and column.
outputs: Per net [batch, width of its last layer].
moments: As moving: those of the batch when training, 0 if it has no rows.
saved: For PleNetsGrad.
net_input: Per net, which of the inputs it reads.
num_hidden: Per net, the number of hidden layers.
linear: Per net, whether a linear layer follows: 0, or 1 without and 2 with bias.
batch_norm: Whether a batch norm follows each hidden layer.
compute: The type of the operands of products; sums are float.
epsilon: Added to variances.
activation: That of all hidden layers.
dropout: The share of a hidden layer's output that is 0 in training, in [0, 1).
training: Whether batch norm takes the moments of the batch, and dropout drops.
)doc");

REGISTER_OP("PleNetsGrad")
    .Input("inputs: num_inputs * float")
    .Input("params: num_params * float")
    .Input("d_outputs: num_nets * float")
    .Input("moments: float")
    .Input("saved: variant")
    .Input("seed: int64")
    .Output("d_inputs: num_inputs * float")
    .Output("d_params: num_params * float")
    PLE_SPEC_ATTRS
    .SetShapeFn([](InferenceContext* context) {
      return StatusOf([&] { NetsGradShapes(context); });
    })
    .Doc(R"doc(
The gradients of PleNets, which has run in training with the same attributes.

inputs: Those of PleNets.
params: Likewise.
d_outputs: The gradients of its outputs.
moments: Its output of this name.
saved: Likewise.
seed: That of PleNets.
d_inputs: The gradients of the inputs.
d_params: The gradients of the parameters.
)doc");

REGISTER_KERNEL_BUILDER(Name("PleNets").Device(DEVICE_CPU), NetsOp);
REGISTER_KERNEL_BUILDER(Name("PleNetsGrad").Device(DEVICE_CPU), NetsGradOp);

}  // namespace ple

// The version of oneDNN that the ops call, e.g. 30200 for 3.2.0.
extern "C" int32_t ple_onednn_version() {
  const dnnl_version_t* version = dnnl_version();
  return version->major * 10000 + version->minor * 100 + version->patch;
}
