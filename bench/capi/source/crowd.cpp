/* Many threads at once, on one inspector and with an inspector each. */
#include "host.hpp"

static const size_t MAX_THREADS = 64;

/* crowd TOGETHER EACH CALLS SECONDS: TOGETHER threads on inspector 0 and EACH on inspectors 1, 2 and so on; CALLS in all
   or, where that is 0, for SECONDS. */
std::string do_crowd(const Words &words)
{
    size_t together = std::stoul(words[0]), each = std::stoul(words[1]), count = together + each;
    unsigned long long limit = std::stoull(words[2]);
    double seconds = std::stod(words[3]);
    std::atomic<unsigned long long> begun{0}, done{0};

    if (count < 1 || count > MAX_THREADS || inspectors.empty() || pictures.empty() || each >= inspectors.size())
        fail(together, " threads on one and ", each,
             " on their own need that many inspectors, a picture, and are 1 to ", MAX_THREADS, ".");
    Times times = run_together(count, [&](size_t index) {
        ndp_rt_inspector *inspector = inspectors[index < together ? 0 : 1 + index - together];
        double end_s = read_clock_s() + seconds;
        std::vector<Outputs> outputs;

        for (size_t i = 0; i < pictures.size(); i++)
            outputs.emplace_back(find_known_picture(std::to_string(i)), WANTS_MAP);
        while (!has_failed) {
            unsigned long long number = begun++;
            if (limit ? number >= limit : read_clock_s() >= end_s)
                break;
            size_t i = (number + index) % pictures.size();
            outputs[i].spoil();
            check(ndp_rt_inspector_inspect(inspector, &pictures[i].image, &outputs[i].result),
                  "ndp_rt_inspector_inspect");
            outputs[i].check(*pictures[i].expected, i, "beside other threads");
            done++;
        }
    });
    return join("{\"calls\": ", done.load(), ", \"elapsed_s\": ", times.elapsed_s, ", \"cpu_s\": ", times.cpu_s, "}");
}
