// The backward step of a set of nets, after the forward one has run on the same
// workspace.
//
// The gradient of a batch norm comes with that of the kernel above it: all sums
// over the batch that it needs are in z^T du, which the kernel needs too. With
// dropout between the two, each layer makes these sums itself.

#ifndef PLE_ESTIMATOR_KERNELS_NET_BACKWARD_H_
#define PLE_ESTIMATOR_KERNELS_NET_BACKWARD_H_

#include <algorithm>
#include <cmath>
#include <vector>

#include "net_step.h"

namespace ple {
namespace {

template <typename T>
class Backward : private Step<T> {
 public:
  // Gradients of the outputs, the moments of the batch, and where to put the
  // gradients of inputs and of parameters.
  Backward(const Job& job, const std::vector<const float*>& d_outputs,
           const float* moments, const std::vector<float*>& d_inputs,
           const std::vector<float*>& d_params)
      : Step<T>(job), d_outputs_(d_outputs), moments_(moments),
        d_inputs_(d_inputs), d_params_(d_params) {}

  void Run() {
    this->ByLayer({true, kPhases, [](int phase) { return phase < kRows; }},
                  [&](const Task& task) { RunPhase(task); });
    SumInputs();
  }

 private:
  typedef typename Step<T>::Task Task;
  typedef typename Step<T>::Range Range;
  typedef typename Step<T>::Place Place;
  using Step<T>::batch_;
  using Step<T>::drops_;
  using Step<T>::spec_;

  // The phases of a layer. Those before the rows are the last layer's alone:
  // the sums that other layers' norms need come with the kernel above, except
  // with dropout.
  enum Phase { kSums, kMergedSums, kRows, kKernel, kPhases };

  void RunPhase(const Task& task) {
    switch (task.phase) {
      case kSums: return Sums(task);
      case kMergedSums: return MergeSums(task);
      case kRows:
        BackThroughActivation(task);
        BackThroughProduct(task);
        return KernelProduct(task);
      case kKernel: return KernelGradient(task);
    }
  }

  // The sums over rows that the gradient of a norm needs, and before them the
  // gradient of dropout.
  void Sums(const Task& task) {
    if (!this->LayerOf(task).hidden) return;
    if (!drops_) return SumRows(task, DOutput(task));
    T* dy = FromAbove(task);
    if (this->IsLast(task)) {
      BackThroughDropout(task, DOutput(task), dy);
    } else {
      BackThroughDropout(task, dy, dy);
    }
    SumRows(task, dy);
  }

  template <typename D>
  void SumRows(const Task& task, const D* dy) {
    const Layer& layer = this->LayerOf(task);
    if (!layer.has_norm()) return;
    const Range rows = this->Rows(task);
    NormSums(dy, this->PlaceOf(task).z + rows.begin * layer.out, MeanOf(layer),
             rows.size(), layer.out, this->At(task, task.block, kSum),
             this->At(task, task.block, kDot));
  }

  // The gradient of dropout's input, of some rows, from that of its output.
  template <typename D>
  void BackThroughDropout(const Task& task, const D* dy, T* to) {
    const Range rows = this->Rows(task);
    DropGrad(dy, rows.size(), this->LayerOf(task).out, this->DropoutOf(task),
             rows.begin, to);
  }

  // Some columns of those sums, of the whole batch.
  void MergeSums(const Task& task) {
    const Layer& layer = this->LayerOf(task);
    if (!layer.has_norm()) return;
    const Range columns = this->Cut(task, layer.out, task.block);
    float* sum = d_params_[layer.beta] + columns.begin;
    float* dot = d_params_[layer.gamma] + columns.begin;
    for (int k = 0; k < this->plan_.blocks[task.net]; ++k) {
      Add(this->At(task, k, kSum) + columns.begin, columns.size(), k > 0, sum);
      Add(this->At(task, k, kDot) + columns.begin, columns.size(), k > 0, dot);
    }
    NormGradient(task, columns);
  }

  // From the sums in d_params, of dy in that of beta and of dy (z - mean) in
  // that of gamma: the gradient of gamma, and b and c of the gradient through
  // batch norm in training mode,
  //   dz = s (dy - mean(dy) - xhat mean(dy xhat)) = s dy + b z + c,
  // xhat = (z - mean) / sigma, s = gamma / sigma.
  void NormGradient(const Task& task, const Range& columns) {
    const Layer& layer = this->LayerOf(task);
    const Place& place = this->PlaceOf(task);
    const float *mean = MeanOf(layer), *variance = mean + layer.out;
    const float* sum = d_params_[layer.beta];
    float* d_gamma = d_params_[layer.gamma];
    const float count = std::max<int64_t>(batch_, 1);
    for (int64_t j = columns.begin; j < columns.end; ++j) {
      const float rsigma = 1.f / std::sqrt(variance[j] + spec_.epsilon);
      d_gamma[j] *= rsigma;
      place.b[j] = -place.scale[j] * d_gamma[j] * rsigma / count;
      place.c[j] = -place.b[j] * mean[j] - place.scale[j] * sum[j] / count;
    }
  }

  // du, the gradient of x W + b, of some rows, and its sum over them.
  void BackThroughActivation(const Task& task) {
    const Layer& layer = this->LayerOf(task);
    const Range rows = this->Rows(task);
    if (!layer.hidden) {
      T* du = task.scratch->du + rows.begin * layer.out;
      Convert(DOutput(task), static_cast<int64_t>(rows.size()) * layer.out, du);
      ColumnSums(du, rows.size(), layer.out,
                 this->At(task, task.block, kBlockDu));
      return;
    }
    const float* scale = this->PlaceOf(task).scale;
    if (drops_) return NormAndActivation(task, FromAbove(task), scale);
    if (this->IsLast(task))
      return NormAndActivation(task, DOutput(task), scale);
    // What comes from the layer above has been multiplied by the scale, which
    // is in its kernel.
    float* ones = this->At(task, task.block, kOnes);
    std::fill_n(ones, layer.out, 1.f);
    NormAndActivation(task, FromAbove(task), ones);
  }

  // The same for a hidden layer, from dy of these rows times `scale`.
  template <typename D>
  void NormAndActivation(const Task& task, const D* dy, const float* scale) {
    const Layer& layer = this->LayerOf(task);
    const Place& place = this->PlaceOf(task);
    const Range rows = this->Rows(task);
    const int64_t begin = rows.begin * layer.out;
    T* du = task.scratch->du + begin;
    float* sum = this->At(task, task.block, kBlockDu);
    if (layer.has_norm()) {
      NormGrad(spec_.activation, dy, place.z + begin, place.u + begin,
               rows.size(), layer.out, scale, place.b, place.c, du, sum);
    } else {
      Grad(spec_.activation, dy, place.z + begin, place.u + begin, rows.size(),
           layer.out, du, sum);
    }
  }

  // The gradient of some rows of a layer's input.
  void BackThroughProduct(const Task& task) {
    const Layer& layer = this->LayerOf(task);
    const Range rows = this->Rows(task);
    T* dx = task.layer ? task.scratch->gradient[task.layer % 2]
                       : this->d_input_[task.net];
    Products<T>::OfThisThread().Run(
        {rows.size(), layer.out, layer.in, false, true, layer.out, layer.out,
         false, Step<T>::kToBf16},
        task.scratch->du + rows.begin * layer.out, this->PlaceOf(task).kernel,
        nullptr, dx + rows.begin * layer.in);
  }

  // The gradient of the kernel, as far as it comes from some rows, which are in
  // this core's cache now; what comes from different blocks is summed later.
  void KernelProduct(const Task& task) {
    const Layer& layer = this->LayerOf(task);
    const Range rows = this->Rows(task);
    Products<T>::OfThisThread().Run(
        {layer.in, rows.size(), layer.out, true, false, layer.in, layer.out,
         false, false},
        this->OperandOf(task) + rows.begin * layer.in,
        task.scratch->du + rows.begin * layer.out, nullptr,
        task.scratch->kernels
            ? task.scratch->kernels + task.block * this->largest_
            : d_params_[layer.kernel]);
  }

  // The gradients of some rows of the kernel, of the norm below, and of the
  // bias.
  void KernelGradient(const Task& task) {
    const Layer& layer = this->LayerOf(task);
    const int width = layer.out;
    float* sum = this->At(task, task.block, kDu);
    this->SumBlocks(task, kBlockDu, sum);
    if (task.block == 0 && layer.bias != kNone)
      std::copy(sum, sum + width, d_params_[layer.bias]);
    const Range rows = this->KernelRows(task);
    if (!rows.size()) return;
    const int64_t begin = rows.begin * width;
    float* gradient = d_params_[layer.kernel] + begin;
    if (task.scratch->kernels) {
      for (int k = 0; k < this->plan_.blocks[task.net]; ++k)
        Add(task.scratch->kernels + k * this->largest_ + begin,
            static_cast<int64_t>(rows.size()) * width, k > 0, gradient);
    }
    const Layer* below = this->NormBelow(task);
    if (!below) return;
    const Task norm = this->Below(task);
    Unfold(this->Param(layer.kernel) + begin, rows.size(), width,
           this->PlaceOf(norm).scale + rows.begin,
           MeanOf(*below) + rows.begin, this->Param(below->beta) + rows.begin,
           sum, gradient, d_params_[below->beta] + rows.begin,
           d_params_[below->gamma] + rows.begin);
    NormGradient(norm, rows);
  }

  // The gradient of an input is the sum over the nets that read it.
  void SumInputs() {
    const int threads = NumThreads(this->context_);
    const int64_t tasks = static_cast<int64_t>(this->inputs_.size()) * threads;
    ParallelRun(this->context_, tasks, [&](int64_t task) {
      const int input = static_cast<int>(task / threads);
      const int64_t part = task % threads;
      const int64_t size = this->inputs_[input].NumElements();
      const int64_t begin = size * part / threads;
      const int64_t count = size * (part + 1) / threads - begin;
      float* to = d_inputs_[input] + begin;
      bool add = false;
      for (size_t n = 0; n < this->nets_.size(); ++n) {
        if (this->nets_[n].input != input) continue;
        Add(this->d_input_[n] + begin, count, add, to);
        add = true;
      }
      if (!add) std::fill_n(to, count, 0.f);
    });
  }

  // The gradient of the output of a net, of some rows.
  const float* DOutput(const Task& task) const {
    return d_outputs_[task.net] +
           this->Rows(task).begin * this->LayerOf(task).out;
  }

  // What the layer above has left of the gradient of a layer's output, or with
  // dropout of norm(z).
  T* FromAbove(const Task& task) const {
    return task.scratch->gradient[(task.layer + 1) % 2] +
           this->Rows(task).begin * this->LayerOf(task).out;
  }

  const float* MeanOf(const Layer& layer) const {
    return moments_ + layer.moments;
  }

  const std::vector<const float*> d_outputs_;
  const float* moments_;
  const std::vector<float*>& d_inputs_;
  const std::vector<float*>& d_params_;
};

}  // namespace
}  // namespace ple

#endif  // PLE_ESTIMATOR_KERNELS_NET_BACKWARD_H_
