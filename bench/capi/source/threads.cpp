/* Times, and threads that begin together. */
#include <ctime>
#include <exception>
#include <latch>
#include <mutex>
#include <thread>

#include "host.hpp"

std::atomic<bool> has_failed;

static double read_s(clockid_t clock)
{
    timespec now;

    clock_gettime(clock, &now);
    return double(now.tv_sec) + double(now.tv_nsec) * 1e-9;
}

double read_clock_s()
{
    return read_s(CLOCK_MONOTONIC);
}

Times run_together(size_t count, const std::function<void(size_t)> &work)
{
    std::latch ready(ptrdiff_t(count) + 1);
    std::mutex lock;
    std::exception_ptr error;
    std::vector<std::thread> threads;

    has_failed = false;
    for (size_t i = 0; i < count; i++)
        threads.emplace_back([&, i] {
            ready.arrive_and_wait();
            try {
                work(i);
            } catch (...) {
                std::lock_guard held(lock);
                if (!error)
                    error = std::current_exception();
                has_failed = true;
            }
        });
    ready.arrive_and_wait();
    double start_s = read_clock_s(), start_cpu_s = read_s(CLOCK_PROCESS_CPUTIME_ID);
    for (std::thread &thread : threads)
        thread.join();
    Times times = {read_clock_s() - start_s, read_s(CLOCK_PROCESS_CPUTIME_ID) - start_cpu_s};
    if (error)
        std::rethrow_exception(error);
    return times;
}
