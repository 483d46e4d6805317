/* Many threads at once, on one inspector and with an inspector each. */
#include <algorithm>

#include "host.hpp"

static const unsigned long long FIRST_CALLS = 1000, MAX_PROGRESS = 200;
static const unsigned long long LEAST_STEP = 100; /* who reads of progress looks at the memory each time */
static const size_t MAX_THREADS = 64;

struct Worker {
    ndp_rt_inspector *inspector;
    std::vector<Outputs> outputs;
    double call_count = 0, longest_ms = 0;

    void call(size_t i)
    {
        outputs[i].spoil();
        double start_s = read_clock_s();
        ndp_rt_status status = ndp_rt_inspector_inspect(inspector, &pictures[i].image, &outputs[i].result);
        longest_ms = std::max(longest_ms, (read_clock_s() - start_s) * 1e3);
        check(status, "ndp_rt_inspector_inspect");
        outputs[i].check(*pictures[i].expected, i, "beside other threads");
        call_count++;
    }
};

/* crowd TOGETHER EACH CALLS SECONDS FIRST: TOGETHER threads on inspector 0 and EACH on inspectors FIRST, FIRST + 1 and
   so on; CALLS in all or, where that is 0, for SECONDS. */
std::string do_crowd(const Words &words)
{
    size_t together = std::stoul(words[0]), each = std::stoul(words[1]), first = std::stoul(words[4]);
    size_t count = together + each;
    unsigned long long limit = std::stoull(words[2]), told = limit > 2 * FIRST_CALLS ? FIRST_CALLS : limit / 2;
    unsigned long long step = std::max(LEAST_STEP, (limit - told) / MAX_PROGRESS + 1);
    double seconds = std::stod(words[3]);
    std::vector<Worker> workers;
    std::atomic<unsigned long long> begun{0}, done{0};

    if (count < 1 || count > MAX_THREADS || inspectors.empty() || pictures.empty() || first + each > inspectors.size())
        fail(together, " threads on one and ", each,
             " on their own need that many inspectors, a picture, and are 1 to ", MAX_THREADS, ".");
    for (size_t i = 0; i < count; i++) {
        workers.push_back({inspectors[i < together ? 0 : first + i - together], {}});
        for (size_t k = 0; k < pictures.size(); k++)
            workers.back().outputs.emplace_back(find_known_picture(std::to_string(k)), WANTS_MAP);
    }
    Times times = run_together(count, [&](size_t index) {
        double end_s = read_clock_s() + seconds;

        while (!has_failed) {
            unsigned long long number = begun++;
            if (limit ? number >= limit : read_clock_s() >= end_s)
                break;
            workers[index].call((number + index) % pictures.size());
            unsigned long long now = ++done;
            if (limit && (now == limit || (now >= told && (now - told) % step == 0)))
                write_line(join("{\"progress\": ", now, "}"));
        }
    });
    std::vector<double> calls, longest_ms;
    for (const Worker &worker : workers) {
        calls.push_back(worker.call_count);
        longest_ms.push_back(worker.longest_ms);
    }
    return join("{\"calls\": ", done.load(), ", \"elapsed_s\": ", times.elapsed_s, ", \"cpu_s\": ", times.cpu_s,
                ", \"thread_calls\": ", write_list(calls), ", \"thread_longest_ms\": ", write_list(longest_ms), "}");
}
