/* What ndp_rt.hpp promises. Arguments: a bundle. Ends with 0, or prints the line of the statement that is not so. */
#include <ndp_rt.hpp>

#include <atomic>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <type_traits>

#include <pthread.h>

#define EXPECT(statement)                                                                                              \
    do {                                                                                                               \
        if (!(statement)) {                                                                                            \
            std::fprintf(stderr, "wrapper.cpp:%d: not so: %s\n", __LINE__, #statement);                                \
            std::exit(1);                                                                                              \
        }                                                                                                              \
    } while (false)

static_assert(!std::is_copy_constructible<ndp_rt::inspector>::value, "a handle has one owner");
static_assert(!std::is_copy_assignable<ndp_rt::inspector>::value, "a handle has one owner");
static_assert(std::is_nothrow_move_constructible<ndp_rt::inspector>::value, "vectors of inspectors move them");
static_assert(std::is_nothrow_move_assignable<ndp_rt::inspector>::value, "vectors of inspectors move them");

constexpr std::int32_t SIDE = 64;
using pixels = std::vector<std::uint8_t>;

static pixels make_pixels(unsigned seed)
{
    pixels made(static_cast<std::size_t>(SIDE) * SIDE);
    for (std::uint8_t &one : made)
        one = static_cast<std::uint8_t>((seed = seed * 1664525U + 1013904223U) >> 24);
    return made;
}

static ndp_rt::image describe(const pixels &from)
{
    return ndp_rt::image(from.data(), SIDE, SIDE, ndp_rt::pixel_format::grey8);
}

/* Return the status that a call throws; OK: it throws nothing. */
template <typename Call> ndp_rt_status status_of(Call call)
{
    try {
        call();
    } catch (const ndp_rt::error &error) {
        EXPECT(std::string(error.what()).size() > 10);
        return error.status();
    }
    return NDP_RT_STATUS_OK;
}

static void check_results(ndp_rt::inspector &inspector)
{
    const std::vector<pixels> frames{make_pixels(1), make_pixels(2), make_pixels(3)};
    const std::vector<ndp_rt::image> images{describe(frames[0]), describe(frames[1]), describe(frames[2])};
    const auto batch = inspector.inspect_batch(images, ndp_rt::outputs::all);
    ndp_rt::result again;

    EXPECT(batch.size() == 3 && inspector.inspect_batch({}).empty());
    for (std::size_t i = 0; i < images.size(); i++) {
        const ndp_rt::result one = inspector.inspect(images[i]);
        EXPECT(one.score == batch[i].score && one.map == batch[i].map && one.mask.empty());
        EXPECT(one.map.size() == static_cast<std::size_t>(one.width_px) * static_cast<std::size_t>(one.height_px));
        for (std::size_t k = 0; k < one.map.size(); k++)
            EXPECT((batch[i].mask[k] == 255) == (one.map[k] >= one.threshold));
        inspector.inspect(images[i], again, ndp_rt::outputs::score);
        EXPECT(again.score == one.score && again.map.empty() && again.defects.empty());
        EXPECT(again.defect_count == one.defects.size() && one.threshold == 0.25);
    }
    EXPECT(inspector.inspect_large(images[0], 0).map.size() == frames[0].size());
    inspector.set_threshold(2);
    EXPECT(inspector.threshold() == 2 && !inspector.inspect(images[0]).is_defect);
    inspector.set_reference(images[1]);
    inspector.set_threshold(0.25);
    EXPECT(inspector.timings().inspection_count >= 11);
}

/* The caller's own memory; a list of defects that is too short is no error, a map that is too small is one. */
static void check_own_buffers(ndp_rt::inspector &inspector)
{
    const pixels frame = make_pixels(4);
    const ndp_rt::image image = describe(frame);
    std::vector<float> map(frame.size());
    std::vector<ndp_rt::defect> defects(1);
    ndp_rt_result own{};

    own.struct_size = sizeof own;
    own.map = map.data();
    own.map_stride_bytes = SIDE * 4;
    own.map_capacity_bytes = SIDE * SIDE * 4;
    own.defects = defects.data();
    own.defect_struct_size = sizeof(ndp_rt_defect);
    own.defect_capacity = 1;
    inspector.set_threshold(0.05);
    const ndp_rt::result all = inspector.inspect(image);
    inspector.inspect(image, own);
    EXPECT(own.score == all.score && map == all.map && own.defect_count == all.defect_count);
    EXPECT(all.defects.empty() || defects[0].peak == all.defects[0].peak);
    own.map_capacity_bytes--;
    EXPECT(status_of([&] { inspector.inspect(image, own); }) == NDP_RT_STATUS_BUFFER_TOO_SMALL);
    inspector.set_threshold(0.25);
}

/* Outlines lie in the boxes of their defects; an inspector that was opened without them refuses. */
static void check_contours(ndp_rt::inspector &plain, const std::string &bundle)
{
    const pixels frame = make_pixels(9);
    ndp_rt::options options;
    options.threshold = 0.05;
    options.contours = true;
    ndp_rt::inspector inspector(bundle, options);
    const ndp_rt::result found = inspector.submit(describe(frame), ndp_rt::outputs::contours).get();
    std::size_t count = 0;

    EXPECT(!found.defects.empty() && found.map.empty() && found.point_count == found.points.size());
    for (const ndp_rt::defect &one : found.defects) {
        EXPECT(one.first_point == count && one.point_count > 0);
        for (; count < one.first_point + one.point_count; count++) {
            EXPECT(found.points[count].x_px >= one.x_px && found.points[count].x_px < one.x_px + one.width_px);
            EXPECT(found.points[count].y_px >= one.y_px && found.points[count].y_px < one.y_px + one.height_px);
        }
    }
    EXPECT(count == found.points.size() && inspector.inspect(describe(frame)).points.empty());
    inspector.set_threshold(2);
    EXPECT(inspector.inspect(describe(frame), ndp_rt::outputs::contours).points.empty());
    EXPECT(status_of([&] { plain.inspect(describe(frame), ndp_rt::outputs::contours); }) == NDP_RT_STATUS_INPUT);
}

static void check_errors(ndp_rt::inspector &inspector, const std::string &bundle)
{
    const pixels frame = make_pixels(5);
    const ndp_rt::image bottom_up(frame.data(), SIDE, SIDE, ndp_rt::pixel_format::grey8, -SIDE);
    const ndp_rt::image empty(frame.data(), 0, -1, ndp_rt::pixel_format::grey8);
    const ndp_rt::image huge(frame.data(), INT32_MAX, INT32_MAX, ndp_rt::pixel_format::rgb8);

    EXPECT(status_of([] { ndp_rt::inspector("/nowhere/tiles.ndp"); }) == NDP_RT_STATUS_BUNDLE);
    ndp_rt::options keyless;
    keyless.require_signature = "/nowhere/key.pub";
    EXPECT(status_of([&] { ndp_rt::inspector(bundle, keyless); }) == NDP_RT_STATUS_INPUT);
    ndp_rt::options maskless;
    maskless.ignore_mask = "/nowhere/mask.png";
    EXPECT(status_of([&] { ndp_rt::inspector(bundle, maskless); }) == NDP_RT_STATUS_INPUT);
    ndp_rt::options pixels_and_mm2;
    pixels_and_mm2.smallest_area_px = 9;
    pixels_and_mm2.smallest_area_mm2 = pixels_and_mm2.mm_per_pixel = 0.5;
    EXPECT(status_of([&] { ndp_rt::inspector(bundle, pixels_and_mm2); }) == NDP_RT_STATUS_INPUT);
    ndp_rt::options coarse;
    coarse.smallest_area_px = std::int64_t{SIDE} * SIDE + 1;
    EXPECT(status_of([&] {
               ndp_rt::inspector(bundle, coarse).inspect({frame.data(), SIDE, SIDE, ndp_rt::pixel_format::grey8});
           })
           == NDP_RT_STATUS_INPUT);
    EXPECT(status_of([&] { inspector.inspect(bottom_up); }) == NDP_RT_STATUS_INPUT);
    EXPECT(status_of([&] { inspector.inspect(empty); }) == NDP_RT_STATUS_INPUT);
    EXPECT(status_of([&] { inspector.inspect_batch({huge}); }) == NDP_RT_STATUS_INPUT);
    EXPECT(status_of([&] { inspector.submit(empty).get(); }) == NDP_RT_STATUS_INPUT);
    EXPECT(status_of([&] { inspector.set_threshold(std::nan("")); }) == NDP_RT_STATUS_INPUT);
}

static void check_moves(const std::string &bundle)
{
    const pixels frame = make_pixels(6);
    std::vector<ndp_rt::inspector> inspectors;

    for (int i = 0; i < 2; i++)
        inspectors.emplace_back(bundle);
    const double score = inspectors[0].inspect(describe(frame)).score;
    ndp_rt_inspector *const second = inspectors[1].native();
    inspectors[0] = std::move(inspectors[1]); /* closes the first */
    EXPECT(inspectors[0].native() == second && inspectors[1].native() == nullptr);
    EXPECT(inspectors[0].inspect(describe(frame)).score == score);
    EXPECT(status_of([&] { inspectors[1].warm_up(); }) == NDP_RT_STATUS_HANDLE);
    inspectors.clear();
    EXPECT(ndp_rt_inspector_warm_up(second, 1) == NDP_RT_STATUS_CLOSED);
}

static void check_jobs(ndp_rt::inspector &inspector)
{
    const pixels frame = make_pixels(7);
    const ndp_rt::result expected = inspector.inspect(describe(frame));
    std::vector<std::future<ndp_rt::result>> futures;
    ndp_rt_result own{};
    std::atomic<int> calls{0};
    sigset_t mask;

    for (int i = 0; i < 3; i++)
        futures.push_back(inspector.submit(describe(frame)));
    for (auto &future : futures) {
        const ndp_rt::result found = future.get();
        EXPECT(found.score == expected.score && found.map == expected.map && found.queue_ms >= 0);
        EXPECT(found.defects.size() == expected.defects.size());
    }
    own.struct_size = sizeof own;
    inspector
        .submit(describe(frame), own,
                [&](ndp_rt_status status, ndp_rt_result &result) {
                    calls += status == NDP_RT_STATUS_OK && result.score == expected.score;
                    pthread_sigmask(SIG_BLOCK, nullptr, &mask);
                })
        .get();
    EXPECT(calls == 1);
    /* The thread leaves the host's signals alone, and answers faults and those with which runtimes stop threads. */
    EXPECT(sigismember(&mask, SIGINT) && sigismember(&mask, SIGCHLD) && sigismember(&mask, SIGALRM));
    EXPECT(!sigismember(&mask, SIGSEGV) && !sigismember(&mask, SIGPWR) && !sigismember(&mask, SIGRTMIN));
    auto thrown = inspector.submit(describe(frame), own, [](ndp_rt_status, ndp_rt_result &) { throw 7; });
    try {
        thrown.get();
        EXPECT(false);
    } catch (int value) {
        EXPECT(value == 7);
    }
    EXPECT(status_of([&] { inspector.submit(describe(frame), own, nullptr); }) == NDP_RT_STATUS_INPUT);
}

/* With room for one image, what comes is refused or drops what waits, which may be cancelled; the end cancels the rest. */
static void check_full_queue(const std::string &bundle, bool newest_wins)
{
    const pixels frame = make_pixels(8);
    std::vector<std::future<ndp_rt::result>> futures;
    std::promise<void> may_go_on;
    std::shared_future<void> gate = may_go_on.get_future().share();
    std::promise<void> is_running;
    ndp_rt_result own{};
    ndp_rt::options options;

    own.struct_size = sizeof own;
    options.queue_capacity = 1;
    options.newest_wins = newest_wins;
    {
        ndp_rt::inspector inspector(bundle, options);
        inspector.submit(describe(frame), own, [&](ndp_rt_status, ndp_rt_result &) {
            is_running.set_value();
            gate.wait();
        });
        is_running.get_future().wait();
        EXPECT(!inspector.cancel(own)); /* the inspector has taken it */
        futures.push_back(inspector.submit(describe(frame)));
        if (options.newest_wins) {
            futures.push_back(inspector.submit(describe(frame)));
        } else {
            EXPECT(status_of([&] { inspector.submit(describe(frame)); }) == NDP_RT_STATUS_QUEUE_FULL);
            inspector.cancel();
            futures.push_back(inspector.submit(describe(frame).within(1)));
            EXPECT(inspector.timings().cancelled_count == 1);
            EXPECT(status_of([&] { inspector.inspect(describe(frame).within(1)); }) == NDP_RT_STATUS_INPUT);
        }
        EXPECT(inspector.timings().dropped_count == (options.newest_wins ? 1 : 0));
        std::thread closer([&] { inspector.close(); });
        while (status_of([&] { inspector.timings(); }) != NDP_RT_STATUS_CLOSED)
            std::this_thread::yield();
        may_go_on.set_value();
        closer.join();
        inspector.close(); /* twice is allowed */
    }
    const ndp_rt_status first = options.newest_wins ? NDP_RT_STATUS_DROPPED : NDP_RT_STATUS_CANCELLED;
    EXPECT(status_of([&] { futures[0].get(); }) == first);
    EXPECT(status_of([&] { futures[1].get(); }) == NDP_RT_STATUS_CANCELLED);
}

static void check_log(const std::string &bundle)
{
    static std::atomic<int> busy_count{0}, message_count{0};

    ndp_rt::set_log(
        [](ndp_rt::log_level, std::string_view message) {
            message_count += !message.empty();
            busy_count += status_of([] { ndp_rt::set_log(nullptr); }) == NDP_RT_STATUS_BUSY;
            throw std::runtime_error("dropped");
        },
        ndp_rt::log_level::warning);
    ndp_rt::options options;
    options.device = "cuda:97"; /* there is none, so it goes on with the CPU and says so */
    options.fallback = true;
    ndp_rt::inspector inspector(bundle, options);
    ndp_rt::set_log(nullptr);
    EXPECT(message_count > 0 && busy_count == message_count);
}

int main(int argc, char **argv)
{
    EXPECT(argc == 2);
    const std::string bundle = argv[1];
    ndp_rt::options options;
    options.threads = 1;
    options.threshold = 0.25;
    options.plan = "staged";
    options.batch_sizes = {1, 2};

    EXPECT(ndp_rt::abi_fits());
    ndp_rt::start_runtime();
    EXPECT(ndp_rt::describe_runtime().find("ndp-rt " + ndp_rt::version()) == 0);
    ndp_rt::inspector inspector(bundle, options);
    EXPECT(inspector.describe().find("batches 1, 2") != std::string::npos && inspector.info().largest_batch == 2);
    check_results(inspector);
    check_own_buffers(inspector);
    check_contours(inspector, bundle);
    check_errors(inspector, bundle);
    check_moves(bundle);
    check_jobs(inspector);
    check_full_queue(bundle, false);
    check_full_queue(bundle, true);
    check_log(bundle);
    return 0;
}
