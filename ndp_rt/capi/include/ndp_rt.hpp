/* ndp_rt.hpp: ndp_rt.h for C++17 and later: objects that close themselves, and exceptions. Header only; a whole program:

       #include <ndp_rt.hpp>
       #include <iostream>

       int main()
       {
           const std::vector<std::uint8_t> frame(640 * 480);
           try {
               ndp_rt::inspector inspector("tiles.ndp");
               const ndp_rt::image image(frame.data(), 640, 480, ndp_rt::pixel_format::grey8);
               const ndp_rt::result result = inspector.inspect(image);
               std::cout << result.score << (result.is_defect ? ": defect\n" : ": good\n");
           } catch (const ndp_rt::error &error) {
               std::cerr << error.what() << '\n';
               return 1;
           }
       }

   WHAT HOLDS FOR EVERYTHING HERE, BESIDE WHAT ndp_rt.h SAYS
   - A call that does not succeed throws ndp_rt::error: status() is the C status, what() its sentence. Memory that is not
     there is std::bad_alloc or an error with NDP_RT_STATUS_NO_MEMORY. No exception passes through C.
   - Any thread may call any member of an inspector at any time, close() included. Constructing, assigning, moving and
     destroying it are for one thread, with no call in progress, as everywhere in C++.
   - Pixels and caller's buffers are the caller's: read and written until the call returns, by submit() until the result
     is there. What is returned owns its memory.
   - ndp_rt.h is included and may be used beside it: inspector::native() is the C handle. */
#ifndef NDP_RT_HPP
#define NDP_RT_HPP

#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "ndp_rt_types.hpp"

namespace ndp_rt
{

/* ---- Inspectors ----------------------------------------------------------------------------------------------- */

/* As ndp_rt_open_options; an empty string, list or number that is 0 means its default. */
struct options {
    std::string device;
    std::string backend;
    std::string precision;
    std::string plan;
    std::vector<std::int32_t> batch_sizes;
    std::int32_t threads = 0;
    std::optional<double> threshold; /* none: the bundle's */
    double mm_per_pixel = 0;
    std::uint32_t queue_capacity = 0;
    std::uint32_t white_level_16bit = 0; /* of 16-bit images */
    bool build = true;                   /* build engines that are missing; false: throw */
    bool fallback = false;               /* where the GPU cannot be used, go on with the CPU */
    bool newest_wins = false;            /* a full queue drops its oldest image, not the new one */
    bool contours = false;               /* trace the outlines of defects, for outputs::contours */
    std::string require_signature;       /* path of the public key that the bundle has to be signed with */
    std::string ignore_mask;             /* path of an image of the images' size; what is not 0 there does not count */
    std::int64_t smallest_area_px = 0;   /* regions with fewer pixels of the image are no defects */
    double smallest_area_mm2 = 0;        /* likewise, with mm_per_pixel */
};

/* Holds an open bundle; the destructor closes it. Can be moved, not copied; one that was moved from takes no calls. */
class inspector
{
  public:
    static constexpr outputs usual = outputs::map | outputs::defects;

    /* Called once, in the inspector's own thread, when the image and the result are free again. For a status that is not
       OK ndp_rt_last_error() has the sentence. Should be quick; must not close, destroy or wait for this inspector. */
    using done_function = std::function<void(ndp_rt_status status, ndp_rt_result &result)>;

    /* Open the folder NAME.ndp. */
    explicit inspector(const std::string &bundle, const options &chosen = {})
    {
        if (!abi_fits())
            throw error(NDP_RT_STATUS_ABI,
                        "libndp_rt.so " + version()
                            + " does not fit the ndp_rt.h that this program was compiled with. Install "
                              "the one that the header came with, or compile the program again.");
        ndp_rt_open_options from{};
        from.struct_size = sizeof from;
        if (chosen.threshold)
            from.flags |= NDP_RT_OPEN_THRESHOLD;
        if (!chosen.build)
            from.flags |= NDP_RT_OPEN_NO_BUILD;
        if (chosen.fallback)
            from.flags |= NDP_RT_OPEN_FALLBACK;
        if (chosen.newest_wins)
            from.flags |= NDP_RT_OPEN_NEWEST_WINS;
        if (chosen.contours)
            from.flags |= NDP_RT_OPEN_CONTOURS;
        from.device = or_null(chosen.device);
        from.backend = or_null(chosen.backend);
        from.precision = or_null(chosen.precision);
        from.plan = or_null(chosen.plan);
        from.batch_sizes = chosen.batch_sizes.data();
        from.batch_size_count = static_cast<std::uint32_t>(chosen.batch_sizes.size());
        from.threads = chosen.threads;
        from.threshold = chosen.threshold.value_or(0);
        from.mm_per_pixel = chosen.mm_per_pixel;
        from.queue_capacity = chosen.queue_capacity;
        from.white_level_16bit = chosen.white_level_16bit;
        from.require_signature = or_null(chosen.require_signature);
        from.ignore_mask = or_null(chosen.ignore_mask);
        from.smallest_area_px = chosen.smallest_area_px;
        from.smallest_area_mm2 = chosen.smallest_area_mm2;
        detail::check(ndp_rt_inspector_open(bundle.c_str(), &from, &handle_));
    }

    inspector(inspector &&other) noexcept : handle_(std::exchange(other.handle_, nullptr))
    {
    }

    inspector &operator=(inspector &&other) noexcept
    {
        if (this != &other) {
            ndp_rt_inspector_close(handle_);
            handle_ = std::exchange(other.handle_, nullptr);
        }
        return *this;
    }

    inspector(const inspector &) = delete;
    inspector &operator=(const inspector &) = delete;

    /* Images that still wait end with CANCELLED, their functions being called: destroy what those use afterwards. */
    ~inspector()
    {
        ndp_rt_inspector_close(handle_);
    }

    /* Close it now: other calls throw NDP_RT_STATUS_CLOSED from then on. Closing twice is allowed. */
    void close()
    {
        const ndp_rt_status status = ndp_rt_inspector_close(handle_);
        if (status != NDP_RT_STATUS_CLOSED)
            detail::check(status);
    }

    ndp_rt_inspector *native() const noexcept
    {
        return handle_;
    }

    ndp_rt_info info() const
    {
        ndp_rt_info info{};
        info.struct_size = sizeof info;
        detail::check(ndp_rt_inspector_info(handle_, &info));
        return info;
    }

    /* One line: bundle, device, backend, precision, engine. */
    std::string describe() const
    {
        return detail::read_text([this](char *buffer, std::size_t capacity, std::size_t *needed) {
            return ndp_rt_inspector_describe(handle_, buffer, capacity, needed);
        });
    }

    void warm_up(std::int32_t count = 1)
    {
        detail::check(ndp_rt_inspector_warm_up(handle_, count));
    }

    /* Inspect one image, resized to the network's input. */
    result inspect(const image &source, outputs wanted = usual)
    {
        result out;
        inspect(source, out, wanted);
        return out;
    }

    /* The same, into a result that is used again; after an exception its content is not specified. */
    void inspect(const image &source, result &out, outputs wanted = usual)
    {
        ndp_rt_result lent = detail::lend(out, source, wanted);
        inspect(source, lent);
        detail::take_back(out, lent);
    }

    /* The same, into the caller's buffers; where `defects` is too short for defect_count, it holds the highest peaks. */
    void inspect(const image &source, ndp_rt_result &out)
    {
        detail::check_filled(ndp_rt_inspector_inspect(handle_, &source, &out), &out, 1);
    }

    /* Inspect several images: beside each other on a CPU, else in the largest batches that there are engines for. */
    std::vector<result> inspect_batch(const std::vector<image> &images, outputs wanted = usual)
    {
        std::vector<result> out(images.size());
        std::vector<ndp_rt_result> lent;

        lent.reserve(images.size());
        for (std::size_t i = 0; i < images.size(); i++)
            lent.push_back(detail::lend(out[i], images[i], wanted));
        inspect_batch(images.data(), images.size(), lent.data());
        for (std::size_t i = 0; i < images.size(); i++)
            detail::take_back(out[i], lent[i]);
        return out;
    }

    /* The same, into the caller's buffers: `count` results, each with its own. */
    void inspect_batch(const ndp_rt_image *images, std::size_t count, ndp_rt_result *out)
    {
        detail::check_filled(ndp_rt_inspector_inspect_batch(handle_, images, count, out), out, count);
    }

    /* Inspect a large image in tiles that overlap, without resizing. */
    result inspect_large(const image &source, std::int32_t overlap_px = 32, outputs wanted = usual)
    {
        result out;
        ndp_rt_result lent = detail::lend(out, source, wanted);

        inspect_large(source, overlap_px, lent);
        detail::take_back(out, lent);
        return out;
    }

    /* The same, into the caller's buffers. */
    void inspect_large(const image &source, std::int32_t overlap_px, ndp_rt_result &out)
    {
        detail::check_filled(ndp_rt_inspector_inspect_large(handle_, &source, overlap_px, &out), &out, 1);
    }

    /* Put an image in the queue and return at once. The pixels must stay as they are until the future is ready; it gives
       what inspect would have returned or thrown, or an error with EXPIRED, CANCELLED or DROPPED. Letting go of it waits
       for nothing. Throws QUEUE_FULL, but not with newest_wins. */
    std::future<result> submit(const image &source, outputs wanted = usual)
    {
        auto job = std::make_unique<owned_job>();
        ndp_rt_result &lent = job->lent;

        lent = detail::lend(job->out, source, wanted);
        return start(source, lent, std::move(job));
    }

    /* The same, into the caller's buffers; they and the pixels must stay until `done` is called. The future is ready when
       `done` has returned, and holds what it threw. */
    std::future<void> submit(const image &source, ndp_rt_result &out, done_function done)
    {
        auto job = std::make_unique<called_job>();

        if (!done)
            throw error(NDP_RT_STATUS_INPUT,
                        "done: expected a function, to learn when the job has ended, got an empty one.");
        job->done = std::move(done);
        return start(source, out, std::move(job));
    }

    /* Cancel all images that wait: they are not inspected, and end with CANCELLED. Waits for nothing. */
    void cancel()
    {
        detail::check(ndp_rt_inspector_cancel(handle_, nullptr));
    }

    /* The same for the image that was submitted with `out`; false: the inspector has taken it, it has ended, or was
       cancelled. */
    bool cancel(const ndp_rt_result &out)
    {
        const ndp_rt_status status = ndp_rt_inspector_cancel(handle_, &out);
        if (status != NDP_RT_STATUS_BUSY)
            detail::check(status);
        return status == NDP_RT_STATUS_OK;
    }

    double threshold() const
    {
        double threshold = 0;
        detail::check(ndp_rt_inspector_get_threshold(handle_, &threshold));
        return threshold;
    }

    /* Decide by another one from the next image on. */
    void set_threshold(double threshold)
    {
        detail::check(ndp_rt_inspector_set_threshold(handle_, threshold));
    }

    /* Use another defect-free image as the reference from the next inspection on. */
    void set_reference(const image &source)
    {
        detail::check(ndp_rt_inspector_set_reference(handle_, &source));
    }

    ndp_rt_times timings() const
    {
        ndp_rt_times times{};
        times.struct_size = sizeof times;
        detail::check(ndp_rt_timings(handle_, &times));
        return times;
    }

  private:
    /* What a job needs until it has ended; `finish` destroys it. */
    struct owned_job {
        using value = result;

        std::promise<result> promise;
        result out;
        ndp_rt_result lent{};

        static void finish(void *user, ndp_rt_status status, ndp_rt_result *) noexcept
        {
            const std::unique_ptr<owned_job> job(static_cast<owned_job *>(user));
            try {
                detail::check_filled(status, &job->lent, 1);
                detail::take_back(job->out, job->lent);
                job->promise.set_value(std::move(job->out));
            } catch (...) {
                job->promise.set_exception(std::current_exception());
            }
        }
    };

    struct called_job {
        using value = void;

        std::promise<void> promise;
        done_function done;

        static void finish(void *user, ndp_rt_status status, ndp_rt_result *out) noexcept
        {
            const std::unique_ptr<called_job> job(static_cast<called_job *>(user));
            try {
                job->done(status, *out);
                job->promise.set_value();
            } catch (...) {
                job->promise.set_exception(std::current_exception());
            }
        }
    };

    template <typename Job>
    std::future<typename Job::value> start(const image &source, ndp_rt_result &out, std::unique_ptr<Job> job)
    {
        auto future = job->promise.get_future();

        detail::check(ndp_rt_inspector_submit(handle_, &source, &out, Job::finish, job.get(), nullptr));
        static_cast<void>(job.release()); /* it is finish's, which may have destroyed it already */
        return future;
    }

    static const char *or_null(const std::string &text) noexcept
    {
        return text.empty() ? nullptr : text.c_str();
    }

    ndp_rt_inspector *handle_ = nullptr;
};

} // namespace ndp_rt

#endif
