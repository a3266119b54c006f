// What a set of nets consists of: layers, and which parameters are whose.
//
// A hidden layer is  y = dropout(norm(f(x W + b))),  f an activation, norm the
// batch norm of Ioffe and Szegedy (2015) or nothing, and dropout in training
// only; a linear layer x W [+ b] may follow the last one.
//
// The parameters of all nets come as one list: per net and hidden layer
// kernel [in, out], bias [out], and with batch norm gamma [out], beta [out];
// then kernel and, if it has one, bias of the linear layer.

#ifndef PLE_ESTIMATOR_KERNELS_NET_LAYOUT_H_
#define PLE_ESTIMATOR_KERNELS_NET_LAYOUT_H_

#include <limits>
#include <string>
#include <vector>

#include "activations.h"
#include "common.h"

namespace ple {

constexpr int kNone = -1;  // the position of a parameter that a layer has not

struct Layer {
  bool hidden;       // activation, batch norm and dropout follow
  int kernel, bias;  // positions in the list of parameters
  int gamma, beta;   // likewise
  int in = 0, out = 0;
  int64_t moments = 0;  // offset of mean and variance in the packed moments

  bool has_norm() const { return gamma != kNone; }
};

struct Net {
  int input;
  std::vector<Layer> layers;
};

// What the ops are told by their attributes.
struct Spec {
  bool batch_norm, bfloat16;
  bool training = true;
  float epsilon;
  Activation activation;
  float dropout;  // the share that training drops of a hidden layer's output
  std::vector<Net> nets;  // their widths are not known yet

  bool drops() const { return training && dropout > 0; }
  // Whether z = f(u) is not enough for the gradient, which then needs u too.
  bool keeps_input() const {
    return training && activation == Activation::kSwish;
  }

  // From the attributes, of an OpKernelConstruction or an InferenceContext.
  template <typename Context>
  Status Read(Context* context) {
    return StatusOf([&] {
      std::vector<int> net_input, num_hidden, linear;
      Check(context->GetAttr("net_input", &net_input));
      Check(context->GetAttr("num_hidden", &num_hidden));
      Check(context->GetAttr("linear", &linear));
      Check(context->GetAttr("batch_norm", &batch_norm));
      tensorflow::DataType compute;
      Check(context->GetAttr("compute", &compute));
      bfloat16 = compute == tensorflow::DT_BFLOAT16;
      Check(context->GetAttr("epsilon", &epsilon));
      std::string name;
      Check(context->GetAttr("activation", &name));
      activation = ActivationOf(name);
      Check(context->GetAttr("dropout", &dropout));
      PLE_REQUIRE(dropout >= 0 && dropout < 1,
                  "dropout must be in [0, 1), got ", dropout, ".");
      int num_inputs, num_params, num_nets;
      Check(context->GetAttr("num_inputs", &num_inputs));
      Check(context->GetAttr("num_params", &num_params));
      Check(context->GetAttr("num_nets", &num_nets));
      const size_t count = num_nets;
      PLE_REQUIRE(net_input.size() == count && num_hidden.size() == count &&
                      linear.size() == count,
                  "net_input, num_hidden and linear must have num_nets = ",
                  num_nets, " elements each.");
      int next = 0;
      for (size_t i = 0; i < count; ++i) {
        PLE_REQUIRE(net_input[i] >= 0 && net_input[i] < num_inputs,
                    "net_input must be in [0, ", num_inputs, "), got ",
                    net_input[i], ".");
        PLE_REQUIRE(num_hidden[i] >= 0 && linear[i] >= 0 && linear[i] <= 2,
                    "num_hidden must not be negative and linear must be 0, 1 "
                    "or 2, got ", num_hidden[i], " and ", linear[i], ".");
        PLE_REQUIRE(num_hidden[i] + linear[i] > 0, "Net ", i,
                    " must have a layer.");
        nets.push_back(
            {net_input[i], Layers(num_hidden[i], linear[i], &next)});
      }
      PLE_REQUIRE(next == num_params, "These nets have ", next,
                  " parameters, got ", num_params, ".");
    });
  }

  // The nets with the widths that the shapes of inputs and parameters give;
  // refuses shapes that do not fit. `num_moments` is the length of the packed
  // moments.
  std::vector<Net> WithWidths(const OpInputList& inputs,
                              const OpInputList& params,
                              int64_t* num_moments) const;

 private:
  // The layers of a net whose first parameter is number *next.
  std::vector<Layer> Layers(int num_hidden, int linear, int* next) const {
    std::vector<Layer> layers;
    for (int i = 0; i < num_hidden + (linear > 0); ++i) {
      Layer layer{i < num_hidden, (*next)++, kNone, kNone, kNone};
      if (layer.hidden || linear == 2) layer.bias = (*next)++;
      if (layer.hidden && batch_norm) {
        layer.gamma = (*next)++;
        layer.beta = (*next)++;
      }
      layers.push_back(layer);
    }
    return layers;
  }
};

// The loops count rows and columns by int.
inline int Int(int64_t size) {
  PLE_REQUIRE(size <= std::numeric_limits<int>::max(),
              "A dimension must be below 2^31, got ", size, ".");
  return static_cast<int>(size);
}

inline std::vector<Net> Spec::WithWidths(const OpInputList& inputs,
                                         const OpInputList& params,
                                         int64_t* num_moments) const {
  for (int i = 0; i < inputs.size(); ++i) {
    PLE_REQUIRE(inputs[i].dims() == 2 &&
                    inputs[i].dim_size(0) == inputs[0].dim_size(0),
                "inputs must all be [batch, width], got ",
                inputs[0].shape().DebugString(), " and ",
                inputs[i].shape().DebugString(), ".");
  }
  Int(inputs[0].dim_size(0));
  std::vector<Net> found = nets;
  *num_moments = 0;
  for (Net& net : found) {
    int in = Int(inputs[net.input].dim_size(1));
    for (Layer& layer : net.layers) {
      const Tensor& kernel = params[layer.kernel];
      PLE_REQUIRE(kernel.dims() == 2 && kernel.dim_size(0) == in,
                  "params[", layer.kernel, "], a kernel, must have ", in,
                  " rows, got the shape ", kernel.shape().DebugString(), ".");
      layer.in = in;
      layer.out = in = Int(kernel.dim_size(1));
      for (int i : {layer.bias, layer.gamma, layer.beta})
        PLE_REQUIRE(i == kNone ||
                        params[i].shape() == TensorShape({layer.out}),
                    "params[", i, "] must have the shape [", layer.out,
                    "], got ", params[i].shape().DebugString(), ".");
      if (layer.has_norm()) {
        layer.moments = *num_moments;
        *num_moments += 2 * static_cast<int64_t>(layer.out);
      }
    }
  }
  return found;
}

}  // namespace ple

#endif  // PLE_ESTIMATOR_KERNELS_NET_LAYOUT_H_
