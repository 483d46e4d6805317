/* A host that `ndp-rt bench capi` drives, on the C functions of ndp_rt.h: requests are lines on stdin, words separated by
   tabs; the answer to each is one JSON object a line. What the files of the host share. */
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include <ndp_rt.h>

using Words = std::vector<std::string>; /* of a request, after its name */

/* What a picture gives, whenever and wherever it is inspected. */
struct Answer {
    double score = -1;
    uint64_t map_sum = 0;
    uint32_t defect_count = 0;
};

/* An image, and what it gives, where that is known. */
struct Picture {
    ndp_rt_image image{};
    std::vector<uint8_t> pixels;
    size_t index = 0;
    std::optional<Answer> expected;
};

enum Wanted { WANTS_MAP = 1, WANTS_DEFECTS = 2, WANTS_ALL = 3 };

/* A result and its buffers. */
struct Outputs {
    Outputs(const Picture &picture, int wanted);
    Outputs(Outputs &&) = default;
    void spoil(); /* a few values, so that an answer that is not written is noticed */
    Answer read() const;
    /* Fail unless they hold what is expected, as far as it was wanted, bit for bit. */
    void check(const Answer &expected, size_t index, const char *how) const;

    ndp_rt_result result{};
    int wanted;
    std::vector<float> map;
    std::vector<ndp_rt_defect> defects;
};

/* main.cpp: what was opened and loaded. */
extern std::vector<Picture> pictures;
extern std::vector<ndp_rt_inspector *> inspectors;
Picture &find_picture(const std::string &word);
Picture &find_known_picture(const std::string &word); /* one whose answer is known */
ndp_rt_inspector *find_inspector(const std::string &word);
void check(ndp_rt_status status, const char *call); /* fail unless a call succeeded */
void write_line(const std::string &json);           /* to the process's own stdout; libraries print to stderr */

/* Join parts to text. */
template <class... Parts> std::string join(const Parts &...parts)
{
    std::ostringstream out;
    out.precision(17);
    (out << ... << parts);
    return out.str();
}

/* Answer the request, or end the thread, with a message. */
template <class... Parts> [[noreturn]] void fail(const Parts &...parts)
{
    throw std::runtime_error(join(parts...));
}

/* Return an empty struct of the C functions that says its size. */
template <class Struct> Struct make()
{
    Struct made{};

    made.struct_size = sizeof made;
    return made;
}

/* threads.cpp */
struct Times {
    double elapsed_s, cpu_s; /* the processor's, of all threads */
};
double read_clock_s();               /* CLOCK_MONOTONIC */
extern std::atomic<bool> has_failed; /* whether a thread of the last `run_together` did */
/* Run `work` in so many threads, all from the same moment on; fail as the first one that did. */
Times run_together(size_t count, const std::function<void(size_t index)> &work);

/* pictures.cpp */
Picture load_picture(const std::string &path, int32_t width_px, int32_t height_px);
std::string write_answer(const Answer &answer);
std::string write_list(const std::vector<double> &values);

/* A request takes its words and returns its answer. */
std::string do_calls(const Words &), do_timings(const Words &), do_submit(const Words &), do_crowd(const Words &);
