/* The requests: what is opened and loaded, and the dispatch to what is measured. */
#include <csignal>
#include <cstdio>
#include <iostream>
#include <map>
#include <mutex>
#include <sys/prctl.h>
#include <unistd.h>

#include "host.hpp"

std::vector<Picture> pictures;
std::vector<ndp_rt_inspector *> inspectors;

static FILE *answers;
static double main_s;

void write_line(const std::string &json)
{
    fprintf(answers, "%s\n", json.c_str()); /* whole lines */
    fflush(answers);
}

void check(ndp_rt_status status, const char *call)
{
    if (status != NDP_RT_STATUS_OK)
        fail(call, ": ", ndp_rt_status_name(status), ": ", ndp_rt_last_error());
}

template <class Item> static Item &find(std::vector<Item> &items, const std::string &word, const char *what)
{
    bool is_number = !word.empty() && word.find_first_not_of("0123456789") == std::string::npos;

    if (!is_number || std::stoul(word) >= items.size())
        fail("there is no ", what, " '", word, "'.");
    return items[std::stoul(word)];
}

Picture &find_picture(const std::string &word)
{
    return find(pictures, word, "picture");
}

Picture &find_known_picture(const std::string &word)
{
    Picture &picture = find_picture(word);

    if (!picture.expected)
        fail("what picture ", word, " has to give is not known; ask with `answer` and `expect` first.");
    return picture;
}

ndp_rt_inspector *find_inspector(const std::string &word)
{
    return find(inspectors, word, "inspector");
}

/* start PYTHON: start the runtime, and tell when this program began. */
static std::string do_start(const Words &words)
{
    if (!NDP_RT_ABI_FITS(ndp_rt_abi_version()))
        fail("libndp_rt.so is of another ABI than the header that this host was compiled with.");
    check(ndp_rt_runtime_start(words[0].c_str()), "ndp_rt_runtime_start");
    return join("{\"main_s\": ", main_s, "}");
}

/* open BUNDLE THREADS: open an inspector for single images, with 0 threads: the default; it gets the next number. */
static std::string do_open(const Words &words)
{
    static const int32_t BATCH_SIZES[] = {1};
    auto options = make<ndp_rt_open_options>();
    ndp_rt_inspector *inspector = nullptr;

    options.threads = std::stoi(words[1]);
    options.batch_sizes = BATCH_SIZES;
    options.batch_size_count = 1;
    check(ndp_rt_inspector_open(words[0].c_str(), &options, &inspector), "ndp_rt_inspector_open");
    inspectors.push_back(inspector);
    return join("{\"inspector\": ", inspectors.size() - 1, "}");
}

/* close: close the inspector that was opened last. */
static std::string do_close(const Words &)
{
    if (inspectors.empty())
        fail("there is no inspector to close.");
    ndp_rt_inspector *last = inspectors.back();
    inspectors.pop_back();
    check(ndp_rt_inspector_close(last), "ndp_rt_inspector_close");
    return "{}";
}

/* picture PATH WIDTH HEIGHT: load an image in RGB; it gets the next number. */
static std::string do_picture(const Words &words)
{
    pictures.push_back(load_picture(words[0], std::stoi(words[1]), std::stoi(words[2])));
    pictures.back().index = pictures.size() - 1;
    return join("{\"picture\": ", pictures.back().index, "}");
}

/* answer INSPECTOR PICTURE: inspect once and tell what came. */
static std::string do_answer(const Words &words)
{
    ndp_rt_inspector *inspector = find_inspector(words[0]);
    Picture &picture = find_picture(words[1]);
    Outputs outputs(picture, WANTS_ALL);

    check(ndp_rt_inspector_inspect(inspector, &picture.image, &outputs.result), "ndp_rt_inspector_inspect");
    return write_answer(outputs.read());
}

/* expect PICTURE SCORE MAP_SUM DEFECT_COUNT: what the picture has to give from now on, in `answer`s words. */
static std::string do_expect(const Words &words)
{
    try {
        uint64_t bits = std::stoull(words[1], nullptr, 16);
        uint64_t map_sum = std::stoull(words[2], nullptr, 16);
        find_picture(words[0]).expected = {__builtin_bit_cast(double, bits), map_sum, uint32_t(std::stoul(words[3]))};
    } catch (const std::logic_error &) {
        fail("what is expected of picture ", words[0], " is not written as `answer` writes it.");
    }
    return "{}";
}

struct Request {
    size_t word_count;
    std::string (*run)(const Words &words);
};

static const std::map<std::string, Request> REQUESTS = {
    {"start", {1, do_start}},     {"open", {2, do_open}},     {"close", {0, do_close}}, {"picture", {3, do_picture}},
    {"answer", {2, do_answer}},   {"expect", {4, do_expect}}, {"calls", {5, do_calls}}, {"crowd", {4, do_crowd}},
    {"timings", {3, do_timings}}, {"submit", {4, do_submit}}};

/* Split a line at its tabs and return the answer to its request. */
static std::string run_line(const std::string &line)
{
    std::istringstream parts(line);
    std::string name;
    Words words;

    std::getline(parts, name, '\t');
    for (std::string word; std::getline(parts, word, '\t');)
        words.push_back(word);
    auto found = REQUESTS.find(name);
    if (found == REQUESTS.end())
        fail("'", name, "' is no request.");
    if (found->second.word_count != words.size())
        fail("'", name, "' takes ", found->second.word_count, " words, not ", words.size(), ".");
    return found->second.run(words);
}

static std::string write_failure(const std::string &message)
{
    std::string text;

    for (char one : message)
        text += (unsigned char)one < 0x20   ? " "
                : one == '"' || one == '\\' ? std::string("\\") + one
                                            : std::string(1, one);
    return "{\"error\": \"" + text + "\"}";
}

/* Answer requests until stdin ends. */
int main()
{
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* a long request ends with the benchmark that asked for it */
    main_s = read_clock_s();
    answers = fdopen(dup(1), "w");
    if (!answers || dup2(2, 1) < 0)
        return 1;
    for (std::string line; std::getline(std::cin, line);) {
        try {
            write_line(run_line(line));
        } catch (const std::exception &error) {
            write_line(write_failure(error.what()));
        }
    }
    for (ndp_rt_inspector *inspector : inspectors)
        ndp_rt_inspector_close(inspector);
    return 0;
}
