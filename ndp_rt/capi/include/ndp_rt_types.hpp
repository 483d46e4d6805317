/* Errors, log, images and results of ndp_rt.hpp, which includes this and says what holds for all of it. */
#ifndef NDP_RT_TYPES_HPP
#define NDP_RT_TYPES_HPP

#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ndp_rt.h"

namespace ndp_rt
{

/* ---- Errors --------------------------------------------------------------------------------------------------- */

class error : public std::runtime_error
{
  public:
    error(ndp_rt_status status, const std::string &message) : std::runtime_error(message), status_(status)
    {
    }

    /* One of NDP_RT_STATUS_. */
    ndp_rt_status status() const noexcept
    {
        return status_;
    }

  private:
    ndp_rt_status status_;
};

namespace detail
{

inline void check(ndp_rt_status status)
{
    if (status != NDP_RT_STATUS_OK)
        throw error(status, ndp_rt_last_error());
}

/* Read a text of the library whose length is not known beforehand. */
template <typename Function> std::string read_text(Function function)
{
    std::string text(512, '\0');
    std::size_t needed = 0;
    ndp_rt_status status = function(text.data(), text.size(), &needed);

    while (status == NDP_RT_STATUS_BUFFER_TOO_SMALL) {
        text.resize(needed);
        status = function(text.data(), text.size(), &needed);
    }
    check(status);
    text.resize(needed - 1);
    return text;
}

} // namespace detail

/* ---- Versions, runtime, log ----------------------------------------------------------------------------------- */

/* Whether the library that is loaded fits the header that this was compiled with; inspectors check it by themselves. */
inline bool abi_fits() noexcept
{
    return NDP_RT_ABI_FITS(ndp_rt_abi_version());
}

/* The library's version, such as "0.1.0". */
inline std::string version()
{
    return ndp_rt_version();
}

/* Start the runtime with an interpreter; empty: as ndp_rt_runtime_start chooses. The first inspector does it too. */
inline void start_runtime(const std::string &python = {})
{
    detail::check(ndp_rt_runtime_start(python.empty() ? nullptr : python.c_str()));
}

/* The versions of all that is in use, "name version" a line. Starts the runtime. */
inline std::string describe_runtime()
{
    return detail::read_text(ndp_rt_runtime_describe);
}

enum class log_level : std::int32_t {
    debug = NDP_RT_LOG_DEBUG,
    info = NDP_RT_LOG_INFO,
    warning = NDP_RT_LOG_WARNING,
    error = NDP_RT_LOG_ERROR
};

using log_function = std::function<void(log_level level, std::string_view message)>;

namespace detail
{

/* The function in use; it outlives main, because messages may come until the process ends. */
inline log_function *current_log = nullptr;
inline std::mutex log_lock;
inline thread_local bool is_logging = false;

inline void call_log(void *user, std::int32_t level, const char *message) noexcept
{
    is_logging = true;
    try {
        (*static_cast<log_function *>(user))(static_cast<log_level>(level), message);
    } catch (...) { // there is nobody to tell: the log is where it would be told
    }
    is_logging = false;
}

} // namespace detail

/* Have messages of `level` and above given to `function`, from any thread, one at a time; an empty one: no longer. When
   it returns, the former function is not running and is destroyed. What a function throws is dropped. It must not call
   anything of the library; set_log in it throws NDP_RT_STATUS_BUSY. */
inline void set_log(log_function function, log_level level = log_level::warning)
{
    if (detail::is_logging)
        throw error(NDP_RT_STATUS_BUSY,
                    "a log function cannot call set_log, which would destroy it. Call it elsewhere.");
    const std::lock_guard<std::mutex> guard(detail::log_lock);
    log_function *const next = function ? new log_function(std::move(function)) : nullptr;
    detail::check(ndp_rt_log_set(next ? detail::call_log : nullptr, next, static_cast<std::int32_t>(level)));
    delete std::exchange(detail::current_log, next); /* after an error neither: which one is in use is not known */
}

/* ---- Images --------------------------------------------------------------------------------------------------- */

enum class pixel_format : std::uint32_t {
    grey8 = NDP_RT_PIXEL_GREY8,
    grey16 = NDP_RT_PIXEL_GREY16,
    rgb8 = NDP_RT_PIXEL_RGB8,
    bgr8 = NDP_RT_PIXEL_BGR8,
    rgba8 = NDP_RT_PIXEL_RGBA8,
    bgra8 = NDP_RT_PIXEL_BGRA8,
    rgb16 = NDP_RT_PIXEL_RGB16,
    bgr16 = NDP_RT_PIXEL_BGR16
};

/* Return the bytes of a pixel. */
constexpr std::int32_t pixel_bytes(pixel_format format) noexcept
{
    constexpr std::int32_t sizes[] = {0, 1, 2, 3, 3, 4, 4, 6, 6};
    const auto index = static_cast<std::uint32_t>(format);

    return index < sizeof sizes / sizeof *sizes ? sizes[index] : 0;
}

/* Says where somebody else's pixels lie; owns nothing. */
struct image : ndp_rt_image {
    /* stride_bytes: from one row to the next; 0: rows without gaps. */
    image(const void *first_pixel, std::int32_t width, std::int32_t height, ndp_rt::pixel_format format,
          std::int64_t stride = 0) noexcept
        : ndp_rt_image{}
    {
        struct_size = sizeof(ndp_rt_image);
        ndp_rt_image::pixel_format = static_cast<std::uint32_t>(format);
        pixels = first_pixel;
        width_px = width;
        height_px = height;
        stride_bytes = stride != 0 ? stride : std::int64_t{width} * pixel_bytes(format);
    }

    /* The pixels lie on the inspector's GPU, written by a cudaStream_t; nullptr: the default stream. */
    image &on_gpu(void *stream = nullptr) noexcept
    {
        memory = NDP_RT_MEMORY_CUDA;
        cuda_stream = stream;
        return *this;
    }

    /* Where its turn after submit() comes later than this, it is not inspected, and ends with EXPIRED. Other calls than
       submit() refuse it. */
    image &within(std::uint32_t milliseconds) noexcept
    {
        deadline_ms = milliseconds;
        return *this;
    }
};

static_assert(sizeof(image) == sizeof(ndp_rt_image), "images are passed to C as arrays");

/* ---- Results -------------------------------------------------------------------------------------------------- */

using defect = ndp_rt_defect;
using point = ndp_rt_point;

/* What a result is to hold beside the score and the decision; may be combined with |. `all` is without the contours, which
   are of an inspector that was opened with them, and bring the defects along. */
enum class outputs : unsigned { score = 0, map = 1, mask = 2, defects = 4, all = 7, contours = 8 };

constexpr outputs operator|(outputs left, outputs right) noexcept
{
    return static_cast<outputs>(static_cast<unsigned>(left) | static_cast<unsigned>(right));
}

constexpr bool has(outputs wanted, outputs one) noexcept
{
    return (static_cast<unsigned>(wanted) & static_cast<unsigned>(one)) != 0;
}

/* A result that owns its memory. Using it again spares the allocation where sizes stay. */
struct result {
    /* The longest list of defects; who wants more passes an ndp_rt_result of their own. */
    static constexpr std::uint32_t max_defects = 256;
    static constexpr std::uint32_t max_points = 65536;

    double score = 0;
    double threshold = 0;
    bool is_defect = false;
    std::int32_t width_px = 0; /* of the map and the mask: the image's */
    std::int32_t height_px = 0;
    std::vector<float> map;              /* row after row; empty where it was not wanted, as are those below */
    std::vector<std::uint8_t> mask;      /* 255 where the map shows a defect that counts, else 0 */
    std::vector<ndp_rt::defect> defects; /* highest peak first, at most max_defects */
    std::uint32_t defect_count = 0;      /* of all defects */
    std::vector<ndp_rt::point> points;   /* outlines: of a defect from first_point on, at most max_points together */
    std::uint32_t point_count = 0;       /* of all outlines */
    double queue_ms = 0;
    double preprocess_ms = 0;
    double engine_ms = 0;
    double postprocess_ms = 0;
    double total_ms = 0;
};

namespace detail
{

/* Return the C struct that has a result's memory filled; images that C will refuse get none. */
inline ndp_rt_result lend(result &out, const ndp_rt_image &image, outputs wanted)
{
    const std::int64_t width = image.width_px, height = image.height_px;
    const bool fits = width > 0 && height > 0 && width * height <= INT32_MAX;
    const std::size_t count = fits ? static_cast<std::size_t>(width * height) : 0;
    ndp_rt_result lent{};

    lent.struct_size = sizeof lent;
    lent.defect_struct_size = sizeof(ndp_rt_defect);
    out.map.resize(has(wanted, outputs::map) ? count : 0);
    out.mask.resize(has(wanted, outputs::mask) ? count : 0);
    const bool has_contours = has(wanted, outputs::contours);
    out.defects.resize(has_contours || has(wanted, outputs::defects) ? result::max_defects : 0);
    out.points.resize(has_contours ? result::max_points : 0);
    if (!out.map.empty()) {
        lent.map = out.map.data();
        lent.map_stride_bytes = width * 4;
        lent.map_capacity_bytes = width * height * 4;
    }
    if (!out.mask.empty()) {
        lent.mask = out.mask.data();
        lent.mask_stride_bytes = width;
        lent.mask_capacity_bytes = width * height;
    }
    if (!out.defects.empty()) {
        lent.defects = out.defects.data();
        lent.defect_capacity = result::max_defects;
    }
    if (!out.points.empty()) {
        lent.points = out.points.data();
        lent.point_capacity = result::max_points;
    }
    out.width_px = image.width_px;
    out.height_px = image.height_px;
    return lent;
}

/* Copy what C wrote beside the buffers. */
inline void take_back(result &out, const ndp_rt_result &lent)
{
    out.score = lent.score;
    out.threshold = lent.threshold;
    out.is_defect = lent.is_defect != 0;
    out.defect_count = lent.defect_count;
    if (lent.defect_count < out.defects.size())
        out.defects.resize(lent.defect_count);
    out.point_count = lent.point_count;
    if (!out.points.empty() && !out.defects.empty())
        out.points.resize(out.defects.back().first_point + out.defects.back().point_count);
    else
        out.points.clear();
    out.queue_ms = lent.queue_ms;
    out.preprocess_ms = lent.preprocess_ms;
    out.engine_ms = lent.engine_ms;
    out.postprocess_ms = lent.postprocess_ms;
    out.total_ms = lent.total_ms;
}

inline bool planes_fit(const ndp_rt_result &result) noexcept
{
    return (!result.map || result.map_needed_bytes <= result.map_capacity_bytes)
           && (!result.mask || result.mask_needed_bytes <= result.mask_capacity_bytes);
}

/* As check, but a list of defects that is too short is none of the errors: defect_count tells of it. */
inline void check_filled(ndp_rt_status status, const ndp_rt_result *results, std::size_t count)
{
    bool fit = status == NDP_RT_STATUS_BUFFER_TOO_SMALL;

    for (std::size_t i = 0; fit && i < count; i++)
        fit = planes_fit(results[i]);
    if (!fit)
        check(status);
}

} // namespace detail

} // namespace ndp_rt

#endif
