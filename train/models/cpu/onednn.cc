// oneDNN's convolutions as custom calls of XLA's CPU backend: the output of a 2-D convolution and its two gradients,
// in float32, with images NHWC and kernels HWIO. train/models/cpu/onednn.py builds, loads and calls this file.
//
// The batch is cut into one slice for each thread of XLA's own pool, and oneDNN computes a slice with one thread. So
// no second pool competes for the cores, and the bits of a result depend on the number of threads alone: a kernel's
// gradient is the sum of those of the slices, in their order.

#include <algorithm>
#include <array>
#include <atomic>
#include <compare>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "oneapi/dnnl/dnnl.hpp"
#include "xla/ffi/api/ffi.h"

// From OpenMP's library, which oneDNN asks for the number of threads.
extern "C" void omp_set_num_threads(int);
extern "C" int omp_get_max_threads();

namespace ffi = xla::ffi;
using dnnl::memory;

namespace {

// Each partial sum of a kernel's gradient is a buffer of the kernel's size.
constexpr int64_t kMaxPartialSums = 16;
constexpr size_t kAlignment = 64;

enum class Product { kForward, kInputGradient, kKernelGradient };

struct Geometry {
  std::array<int64_t, 4> x, kernel, y;  // NHWC, HWIO, NHWC
  std::array<int64_t, 2> strides;       // rows, columns
  std::array<int64_t, 4> padding;       // top, bottom, left, right

  auto operator<=>(const Geometry&) const = default;
};

// Keeps oneDNN to the calling thread while it lives.
class OneThread {
 public:
  OneThread() : before_(omp_get_max_threads()) { omp_set_num_threads(1); }
  ~OneThread() { omp_set_num_threads(before_); }

 private:
  const int before_;
};

class Buffer {
 public:
  explicit Buffer(size_t bytes) {
    if (bytes == 0) return;
    data_.reset(std::aligned_alloc(kAlignment, (bytes + kAlignment - 1) / kAlignment * kAlignment));
    if (data_ == nullptr) throw std::bad_alloc();
  }
  float* data() const { return static_cast<float*>(data_.get()); }

 private:
  struct Free {
    void operator()(void* data) const { std::free(data); }
  };
  std::unique_ptr<void, Free> data_;
};

const dnnl::engine& Engine() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

// A product of one shape, ready to run. oneDNN chooses its own layout for the kernel. Runs may overlap.
class Plan {
 public:
  Plan(Product product, const Geometry& g) : product_(product) {
    const OneThread guard;
    constexpr auto f32 = memory::data_type::f32;
    const memory::dims kernel{g.kernel[3], g.kernel[2], g.kernel[0], g.kernel[1]};
    const memory::dims strides{g.strides[0], g.strides[1]};
    const memory::dims before{g.padding[0], g.padding[2]}, after{g.padding[1], g.padding[3]};
    const memory::desc x({g.x[0], g.x[3], g.x[1], g.x[2]}, f32, memory::format_tag::nhwc);
    const memory::desc y({g.y[0], g.y[3], g.y[1], g.y[2]}, f32, memory::format_tag::nhwc);
    const memory::desc any(kernel, f32, memory::format_tag::any);
    hwio_ = memory::desc(kernel, f32, memory::format_tag::hwio);

    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    constexpr auto direct = dnnl::algorithm::convolution_direct;
    const dnnl::convolution_forward::primitive_desc forward(Engine(), dnnl::prop_kind::forward_training, direct, x, any,
                                                            y, strides, before, after, attributes);
    if (product == Product::kForward) {
      Keep(forward, dnnl::convolution_forward(forward), forward.weights_desc());
      x_ = {DNNL_ARG_SRC, x}, kernel_arg_ = DNNL_ARG_WEIGHTS, y_ = {DNNL_ARG_DST, y};
    } else if (product == Product::kInputGradient) {
      const dnnl::convolution_backward_data::primitive_desc backward(Engine(), direct, x, any, y, strides, before,
                                                                     after, forward, attributes);
      Keep(backward, dnnl::convolution_backward_data(backward), backward.weights_desc());
      x_ = {DNNL_ARG_DIFF_SRC, x}, kernel_arg_ = DNNL_ARG_WEIGHTS, y_ = {DNNL_ARG_DIFF_DST, y};
    } else {
      const dnnl::convolution_backward_weights::primitive_desc backward(Engine(), direct, x, any, y, strides, before,
                                                                        after, forward, attributes);
      Keep(backward, dnnl::convolution_backward_weights(backward), backward.diff_weights_desc());
      x_ = {DNNL_ARG_SRC, x}, kernel_arg_ = DNNL_ARG_DIFF_WEIGHTS, y_ = {DNNL_ARG_DIFF_DST, y};
    }
    const bool out = product == Product::kKernelGradient;
    reorder_ = dnnl::reorder(dnnl::reorder::primitive_desc(Engine(), out ? own_ : hwio_, Engine(), out ? hwio_ : own_));
  }

  const std::string& implementation() const { return implementation_; }
  bool own_layout() const { return own_ != hwio_; }
  size_t kernel_bytes() const { return own_.get_size(); }

  // Copies a kernel from HWIO to the plan's own layout; a kernel's gradient, the other way.
  void Reorder(float* from, float* to) const {
    const OneThread guard;
    const bool out = product_ == Product::kKernelGradient;
    dnnl::stream stream(Engine());
    reorder_.execute(stream, {{DNNL_ARG_FROM, memory(out ? own_ : hwio_, Engine(), from)},
                              {DNNL_ARG_TO, memory(out ? hwio_ : own_, Engine(), to)}});
    stream.wait();
  }

  void Run(float* x, float* kernel, float* y) const {
    const OneThread guard;
    const Buffer scratch(scratch_.get_size());
    dnnl::stream stream(Engine());
    convolution_.execute(stream, {{x_.first, memory(x_.second, Engine(), x)},
                                  {kernel_arg_, memory(own_, Engine(), kernel)},
                                  {y_.first, memory(y_.second, Engine(), y)},
                                  {DNNL_ARG_SCRATCHPAD, memory(scratch_, Engine(), scratch.data())}});
    stream.wait();
  }

 private:
  template <typename Description>
  void Keep(const Description& description, dnnl::primitive convolution, memory::desc kernel) {
    convolution_ = std::move(convolution);
    own_ = std::move(kernel);
    scratch_ = description.scratchpad_desc();
    implementation_ = description.impl_info_str();
  }

  Product product_;
  dnnl::primitive convolution_;
  dnnl::reorder reorder_;
  memory::desc own_, hwio_, scratch_;
  std::pair<int, memory::desc> x_, y_;
  int kernel_arg_;
  std::string implementation_;
};

// The plan of a shape, made at the first call and kept.
const Plan& PlanOf(Product product, const Geometry& geometry) {
  static std::mutex mutex;
  static auto& plans = *new std::map<std::pair<Product, Geometry>, std::unique_ptr<Plan>>;
  const std::lock_guard lock(mutex);
  auto& plan = plans[{product, geometry}];
  if (plan == nullptr) plan = std::make_unique<Plan>(product, geometry);
  return *plan;
}

// Calls work(0), ..., work(count - 1) on the pool's threads and on this one, and returns when all are done. This thread
// takes what no other has begun, so it only ever waits for work that is running, even if the pool is busy.
template <typename Work>
void InParallel(ffi::ThreadPool& pool, int64_t count, const Work& work) {
  struct State {
    std::atomic<int64_t> next = 0;
    std::mutex mutex;
    std::condition_variable all_done;
    int64_t done = 0;
    std::exception_ptr error;
  };
  const auto state = std::make_shared<State>();
  // A task that the pool runs late finds nothing to do, and must not touch `work`, which may be gone.
  const auto take = [state, count, &work] {
    for (int64_t i; (i = state->next.fetch_add(1)) < count;) {
      std::exception_ptr error;
      try {
        work(i);
      } catch (...) {
        error = std::current_exception();
      }
      const std::lock_guard lock(state->mutex);
      if (error != nullptr) state->error = error;
      if (++state->done == count) state->all_done.notify_all();
    }
  };
  for (int64_t i = 1; i < count; ++i) pool.Schedule([take] { take(); });
  take();
  std::unique_lock lock(state->mutex);
  state->all_done.wait(lock, [&] { return state->done == count; });
  if (state->error != nullptr) std::rethrow_exception(state->error);
}

struct Slice {
  const Plan* plan;
  int64_t x_offset, y_offset;  // in floats
};

// Cuts the batch into at most `count` slices whose sizes differ by one image at most.
std::vector<Slice> Slices(Product product, Geometry geometry, int64_t count) {
  const int64_t batch = geometry.x[0];
  count = std::clamp<int64_t>(count, 1, batch);
  const auto size = [](const std::array<int64_t, 4>& shape) { return shape[1] * shape[2] * shape[3]; };
  std::vector<Slice> slices;
  for (int64_t i = 0, first = 0; i < count; ++i) {
    const int64_t images = batch / count + (i < batch % count);
    geometry.x[0] = geometry.y[0] = images;
    slices.push_back({&PlanOf(product, geometry), first * size(geometry.x), first * size(geometry.y)});
    first += images;
  }
  return slices;
}

// The output, or the input's gradient: the slices share nothing but the kernel.
void RunByImages(ffi::ThreadPool& pool, Product product, const Geometry& geometry, float* x, float* kernel, float* y) {
  const auto slices = Slices(product, geometry, pool.num_threads());
  std::unordered_map<const Plan*, Buffer> kernels;  // in the layouts that the plans want; two plans at most
  for (const Slice& slice : slices) {
    if (!slice.plan->own_layout() || kernels.contains(slice.plan)) continue;
    const auto& copy = kernels.emplace(slice.plan, slice.plan->kernel_bytes()).first->second;
    slice.plan->Reorder(kernel, copy.data());
  }
  InParallel(pool, static_cast<int64_t>(slices.size()), [&](int64_t i) {
    const auto& [plan, x_offset, y_offset] = slices[i];
    plan->Run(x + x_offset, plan->own_layout() ? kernels.at(plan).data() : kernel, y + y_offset);
  });
}

// The kernel's gradient: the sum over the slices.
void RunBySums(ffi::ThreadPool& pool, const Geometry& geometry, float* x, float* gradient, float* y) {
  const int64_t count = std::min(pool.num_threads(), kMaxPartialSums);
  const auto slices = Slices(Product::kKernelGradient, geometry, count);
  const int64_t size = geometry.kernel[0] * geometry.kernel[1] * geometry.kernel[2] * geometry.kernel[3];
  std::vector<Buffer> partial;  // the first slice writes to the result itself
  for (size_t i = 1; i < slices.size(); ++i) partial.emplace_back(size * sizeof(float));
  InParallel(pool, static_cast<int64_t>(slices.size()), [&](int64_t i) {
    const auto& [plan, x_offset, y_offset] = slices[i];
    float* target = i == 0 ? gradient : partial[i - 1].data();
    if (!plan->own_layout()) return plan->Run(x + x_offset, target, y + y_offset);
    const Buffer own(plan->kernel_bytes());
    plan->Run(x + x_offset, own.data(), y + y_offset);
    plan->Reorder(own.data(), target);
  });
  for (const Buffer& summand : partial) {
    std::transform(gradient, gradient + size, summand.data(), gradient, std::plus<float>());
  }
}

using Images = ffi::Buffer<ffi::F32, 4>;
using Numbers = ffi::Span<const int64_t>;

template <size_t n>
std::array<int64_t, n> ArrayOf(const Numbers& numbers) {
  std::array<int64_t, n> found{};
  std::copy_n(numbers.begin(), std::min(n, numbers.size()), found.begin());
  return found;
}

// The operands of each product are in the order of `train.models.cpu.lowerings.Lowering`.
template <Product product>
ffi::Error Call(ffi::ThreadPool pool, Images a, Images b, ffi::Result<Images> result, Numbers strides,
                Numbers padding) {
  constexpr bool forward = product == Product::kForward, input_gradient = product == Product::kInputGradient;
  const Images& x = input_gradient ? *result : a;
  const Images& kernel = product == Product::kKernelGradient ? *result : b;
  const Images& y = forward ? *result : input_gradient ? a : b;
  const Geometry geometry{ArrayOf<4>(x.dimensions()), ArrayOf<4>(kernel.dimensions()), ArrayOf<4>(y.dimensions()),
                          ArrayOf<2>(strides), ArrayOf<4>(padding)};
  try {
    if constexpr (product == Product::kKernelGradient) {
      RunBySums(pool, geometry, x.typed_data(), kernel.typed_data(), y.typed_data());
    } else {
      RunByImages(pool, product, geometry, x.typed_data(), kernel.typed_data(), y.typed_data());
    }
  } catch (const std::exception& error) {
    return ffi::Error::Internal(std::string("oneDNN: ") + error.what());
  }
  return ffi::Error::Success();
}

auto Binding() {
  return ffi::Ffi::Bind()
      .Ctx<ffi::ThreadPool>()
      .Arg<Images>()
      .Arg<Images>()
      .Ret<Images>()
      .Attr<Numbers>("strides")
      .Attr<Numbers>("padding");
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(lookahead_forward, Call<Product::kForward>, Binding());
XLA_FFI_DEFINE_HANDLER_SYMBOL(lookahead_input_gradient, Call<Product::kInputGradient>, Binding());
XLA_FFI_DEFINE_HANDLER_SYMBOL(lookahead_kernel_gradient, Call<Product::kKernelGradient>, Binding());

// The name of oneDNN's implementation of a product, empty if it has none. `sizes`: those of a Geometry, in its order.
extern "C" const char* lookahead_implementation(int product, const int64_t* sizes) {
  Geometry geometry;
  const auto take = [&sizes](auto& numbers) {
    std::copy_n(sizes, numbers.size(), numbers.begin());
    sizes += numbers.size();
  };
  take(geometry.x), take(geometry.kernel), take(geometry.y), take(geometry.strides), take(geometry.padding);
  try {
    return PlanOf(static_cast<Product>(product), geometry).implementation().c_str();
  } catch (const std::exception&) {
    return "";
  }
}

extern "C" const char* lookahead_onednn_version() {
  static const std::string version = [] {
    const dnnl::version_t* v = dnnl_version();
    return std::to_string(v->major) + "." + std::to_string(v->minor) + "." + std::to_string(v->patch);
  }();
  return version.c_str();
}
