// The forward step of a set of nets.
//
// norm(z) = z scale + shift is never made where a layer follows, for
//   norm(z) W + b = z (scale W) + (shift W + b),
// and a kernel has fewer rows than a batch. With dropout, which comes between
// the two, it is made.

#ifndef PLE_ESTIMATOR_KERNELS_NET_FORWARD_H_
#define PLE_ESTIMATOR_KERNELS_NET_FORWARD_H_

#include <algorithm>
#include <cmath>
#include <vector>

#include "net_step.h"

namespace ple {
namespace {

template <typename T>
class Forward : private Step<T> {
 public:
  // `moments` is written when training, read when not.
  Forward(const Job& job, const std::vector<float*>& outputs, float* moments)
      : Step<T>(job), outputs_(outputs), moments_(moments) {}

  void Run() {
    ConvertInputs();
    this->ByLayer({false, kPhases, [](int phase) { return phase > kProduct; }},
                  [&](const Task& task) { RunPhase(task); });
  }

 private:
  typedef typename Step<T>::Task Task;
  typedef typename Step<T>::Range Range;
  typedef typename Step<T>::Place Place;
  using Step<T>::batch_;
  using Step<T>::drops_;
  using Step<T>::spec_;

  // The phases of a layer. Those after the product are the last layer's alone,
  // except with dropout.
  enum Phase { kKernel, kProduct, kNorm, kOutput, kPhases };

  void RunPhase(const Task& task) {
    float* output = outputs_[task.net];
    switch (task.phase) {
      case kKernel: return MakeKernel(task);
      case kProduct: return Product(task, output);
      case kNorm: return MakeNorm(task);
      case kOutput: return Output(task, output);
    }
  }

  // Inputs in the type of operands.
  void ConvertInputs() {
    if (Step<T>::kSame) return;
    const int threads = NumThreads(this->context_);
    const int64_t tasks = static_cast<int64_t>(this->inputs_.size()) * threads;
    ParallelRun(this->context_, tasks, [&](int64_t task) {
      const int input = static_cast<int>(task / threads);
      const int64_t part = task % threads;
      const int64_t size = this->inputs_[input].NumElements();
      const int64_t begin = size * part / threads;
      Convert(this->Input(input) + begin, size * (part + 1) / threads - begin,
              this->x_[input] + begin);
    });
  }

  // Some rows of the kernel as an operand, with the norm below.
  void MakeKernel(const Task& task) {
    const Layer& layer = this->LayerOf(task);
    T* made = this->PlaceOf(task).made;
    if (!made) return;
    const Range rows = this->KernelRows(task);
    const int64_t begin = rows.begin * layer.out;
    const float* kernel = this->Param(layer.kernel) + begin;
    if (const Layer* below = this->NormBelow(task)) {
      const Task norm = this->Below(task);
      MakeNorm(norm);
      Fold(kernel, rows.size(), layer.out,
           this->PlaceOf(norm).scale + rows.begin, MeanOf(*below) + rows.begin,
           this->Param(below->beta) + rows.begin, made + begin,
           this->At(task, task.block, kFolded));
    } else {
      Convert(kernel, static_cast<int64_t>(rows.size()) * layer.out,
              made + begin);
    }
  }

  // z or the output, and z's moments.
  void Product(const Task& task, float* output) {
    const Layer& layer = this->LayerOf(task);
    const int width = layer.out;
    const Range rows = this->Rows(task);
    const int64_t begin = rows.begin * width;
    const float* bias = Bias(task);
    Products<T>::OfThisThread().Run(
        {rows.size(), layer.in, width, false, false, layer.in, width,
         bias != nullptr, layer.hidden && Step<T>::kToBf16},
        this->OperandOf(task) + rows.begin * layer.in,
        this->PlaceOf(task).kernel, bias,
        layer.hidden ? static_cast<void*>(this->PlaceOf(task).u + begin)
                     : output + begin);
    if (layer.hidden) MakeActivation(task, begin);
  }

  // z of what the product has given, from the element `begin` on, and z's
  // moments.
  void MakeActivation(const Task& task, int64_t begin) {
    const Layer& layer = this->LayerOf(task);
    const int rows = this->Rows(task).size();
    const Place& place = this->PlaceOf(task);
    if (layer.has_norm() && spec_.training) {
      ActivateMoments(spec_.activation, place.u + begin, rows, layer.out,
                      place.z + begin, this->At(task, task.block, kMean),
                      this->At(task, task.block, kSquares),
                      this->At(task, task.block, kMomentsScratch));
    } else {
      Activate(spec_.activation, place.u + begin,
               static_cast<int64_t>(rows) * layer.out, place.z + begin);
    }
  }

  // The bias, with what the norm below adds; null if there is neither.
  const float* Bias(const Task& task) {
    const Layer& layer = this->LayerOf(task);
    const float* bias =
        layer.bias == kNone ? nullptr : this->Param(layer.bias);
    if (!this->NormBelow(task)) return bias;
    float* sum = this->At(task, task.block, kBias);
    this->SumBlocks(task, kFolded, sum);
    if (bias) Add(bias, layer.out, true, sum);
    return sum;
  }

  // Some columns of a layer's scale and shift, and when training of its moments.
  void MakeNorm(const Task& task) {
    const Layer& layer = this->LayerOf(task);
    const Range columns = this->Cut(task, layer.out, task.block);
    if (!layer.has_norm()) return NoNorm(task, columns);
    float *mean = MeanOf(layer), *variance = mean + layer.out;
    if (spec_.training) MergeMoments(task, columns, mean, variance);
    const float* gamma = this->Param(layer.gamma);
    const float* beta = this->Param(layer.beta);
    const Place& place = this->PlaceOf(task);
    for (int64_t j = columns.begin; j < columns.end; ++j) {
      place.scale[j] = gamma[j] / std::sqrt(variance[j] + spec_.epsilon);
      place.shift[j] = beta[j] - mean[j] * place.scale[j];
    }
  }

  // Dropout alone takes a scale of 1 and a shift of 0.
  void NoNorm(const Task& task, const Range& columns) {
    if (!drops_) return;
    const Place& place = this->PlaceOf(task);
    std::fill(place.scale + columns.begin, place.scale + columns.end, 1.f);
    std::fill(place.shift + columns.begin, place.shift + columns.end, 0.f);
  }

  // The moments of the batch from those of its blocks; 0 of an empty batch.
  void MergeMoments(const Task& task, const Range& columns, float* mean,
                    float* variance) {
    for (int block = 0; block < this->plan_.blocks[task.net]; ++block) {
      const Range rows = this->Cut(task, batch_, block);
      const float* other = this->At(task, block, kMean);
      const float* squares = this->At(task, block, kSquares);
      const float share =
          rows.end ? static_cast<float>(rows.size()) / rows.end : 0.f;
      for (int64_t j = columns.begin; j < columns.end; ++j) {
        const float before = block ? mean[j] : 0.f;
        const float d = other[j] - before;
        mean[j] = before + d * share;
        variance[j] = (block ? variance[j] : 0.f) + squares[j] +
                      d * d * share * rows.begin;
      }
    }
    const float count = std::max<int64_t>(batch_, 1);
    for (int64_t j = columns.begin; j < columns.end; ++j) variance[j] /= count;
  }

  // norm(z) of the last layer, or with dropout the output of any hidden one.
  void Output(const Task& task, float* output) {
    const Layer& layer = this->LayerOf(task);
    if (!layer.hidden) return;
    const Place& place = this->PlaceOf(task);
    const Range rows = this->Rows(task);
    const int64_t begin = rows.begin * layer.out;
    if (drops_) {
      if (this->IsLast(task)) return DropInto(task, output + begin);
      DropInto(task, place.y + begin);
    } else if (layer.has_norm()) {
      Affine(place.z + begin, rows.size(), layer.out, place.scale, place.shift,
             output + begin);
    } else {
      Add(place.z + begin, static_cast<int64_t>(rows.size()) * layer.out, false,
          output + begin);
    }
  }

  // dropout(norm(z)) of the rows of a block.
  template <typename Y>
  void DropInto(const Task& task, Y* y) {
    const Layer& layer = this->LayerOf(task);
    const Place& place = this->PlaceOf(task);
    const Range rows = this->Rows(task);
    Drop(place.z + rows.begin * layer.out, rows.size(), layer.out, place.scale,
         place.shift, this->DropoutOf(task), rows.begin, y);
  }

  float* MeanOf(const Layer& layer) const { return moments_ + layer.moments; }

  const std::vector<float*>& outputs_;
  float* moments_;
};

}  // namespace
}  // namespace ple

#endif  // PLE_ESTIMATOR_KERNELS_NET_FORWARD_H_
