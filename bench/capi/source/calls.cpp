/* What a call costs: inspections one after another, submits while the engine is busy, and the call that does nothing
   but copy a struct. */
#include <algorithm>

#include "host.hpp"

static const size_t BLOCK_CALLS = 100, MAX_SLOTS = 16, MAX_THREADS = 64;

/* calls INSPECTOR PICTURE WANTED AGAIN COUNT: time COUNT calls, after AGAIN untimed ones; WANTED: sum of WANTS_. Every
   answer is checked, outside the clock. */
std::string do_calls(const Words &words)
{
    ndp_rt_inspector *inspector = find_inspector(words[0]);
    Picture &picture = find_known_picture(words[1]);
    size_t again = std::stoul(words[3]), count = std::stoul(words[4]);
    std::vector<double> wall_ms, total_ms;
    Outputs outputs(picture, std::stoi(words[2]));

    for (size_t i = 0; i < again + count; i++) {
        outputs.spoil();
        double start_s = read_clock_s();
        ndp_rt_status status = ndp_rt_inspector_inspect(inspector, &picture.image, &outputs.result);
        double end_s = read_clock_s();
        check(status, "ndp_rt_inspector_inspect");
        outputs.check(*picture.expected, picture.index, "alone");
        if (i >= again) {
            wall_ms.push_back((end_s - start_s) * 1e3);
            total_ms.push_back(outputs.result.total_ms);
        }
    }
    return join("{\"wall_ms\": ", write_list(wall_ms), ", \"total_ms\": ", write_list(total_ms), "}");
}

struct Slot {
    Outputs outputs;
    ndp_rt_job *job = nullptr;
};

/* Submit once more from a slot that is free, and return the microseconds. */
static double submit(ndp_rt_inspector *inspector, const Picture &picture, Slot &slot)
{
    slot.outputs.spoil();
    double start_s = read_clock_s();
    ndp_rt_status status =
        ndp_rt_inspector_submit(inspector, &picture.image, &slot.outputs.result, nullptr, nullptr, &slot.job);
    double end_s = read_clock_s();
    check(status, "ndp_rt_inspector_submit");
    return (end_s - start_s) * 1e6;
}

static void wait_for(Slot &slot)
{
    ndp_rt_job *job = slot.job;

    slot.job = nullptr;
    check(ndp_rt_job_wait(job, -1), "ndp_rt_job_wait");
}

/* submit INSPECTOR PICTURE SLOTS COUNT: fill a queue of SLOTS, then put in one for each that comes out, COUNT times. */
std::string do_submit(const Words &words)
{
    ndp_rt_inspector *inspector = find_inspector(words[0]);
    Picture &picture = find_known_picture(words[1]);
    size_t slot_count = std::stoul(words[2]), count = std::stoul(words[3]), least_waiting = MAX_SLOTS;
    static std::vector<Slot> slots; /* results of jobs that a failure leaves behind are written there */
    auto times = make<ndp_rt_times>();
    std::vector<double> submit_us;

    if (slot_count < 3 || slot_count > MAX_SLOTS)
        fail("slots: expected 3 to ", MAX_SLOTS, ", got ", slot_count, ".");
    for (Slot &slot : slots)
        if (slot.job)
            wait_for(slot);
    slots.clear();
    for (size_t i = 0; i < slot_count; i++)
        slots.push_back({Outputs(picture, WANTS_MAP)});
    double start_s = read_clock_s();
    for (Slot &slot : slots)
        submit(inspector, picture, slot);
    for (size_t i = 0; i < count + slot_count; i++) {
        Slot &slot = slots[i % slot_count];

        wait_for(slot);
        slot.outputs.check(*picture.expected, picture.index, "submitted");
        if (i >= count)
            continue;
        check(ndp_rt_timings(inspector, &times), "ndp_rt_timings");
        least_waiting = std::min(least_waiting, size_t(times.waiting_count));
        submit_us.push_back(submit(inspector, picture, slot));
    }
    return join("{\"elapsed_s\": ", read_clock_s() - start_s, ", \"least_waiting\": ", least_waiting,
                ", \"submit_us\": ", write_list(submit_us), "}");
}

/* Ask for times again and again for so long, and return how often. */
static size_t ask_for_times(ndp_rt_inspector *inspector, uint64_t inspection_count, double seconds)
{
    auto times = make<ndp_rt_times>();
    double end_s = read_clock_s() + seconds;
    size_t count = 0;

    do {
        for (size_t k = 0; k < BLOCK_CALLS; k++) {
            times.inspection_count = UINT64_MAX;
            if (ndp_rt_timings(inspector, &times) != NDP_RT_STATUS_OK || times.inspection_count != inspection_count)
                fail("a wrong answer: ndp_rt_timings failed, or told another number of inspections than there were.");
        }
        count += BLOCK_CALLS;
    } while (read_clock_s() < end_s);
    return count;
}

/* timings INSPECTOR THREADS SECONDS: call ndp_rt_timings in THREADS threads at once, for so long. */
std::string do_timings(const Words &words)
{
    ndp_rt_inspector *inspector = find_inspector(words[0]);
    size_t thread_count = std::stoul(words[1]);
    double seconds = std::stod(words[2]);
    auto found = make<ndp_rt_times>();
    std::atomic<size_t> call_count{0};

    if (thread_count < 1 || thread_count > MAX_THREADS)
        fail("threads: expected 1 to ", MAX_THREADS, ", got ", thread_count, ".");
    check(ndp_rt_timings(inspector, &found), "ndp_rt_timings");
    Times times = run_together(
        thread_count, [&](size_t) { call_count += ask_for_times(inspector, found.inspection_count, seconds); });
    return join("{\"calls\": ", call_count.load(), ", \"elapsed_s\": ", times.elapsed_s, ", \"cpu_s\": ", times.cpu_s,
                "}");
}
