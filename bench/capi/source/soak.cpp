/* Open, use in every way, close, again and again: what leaks, or breaks with time, shows. */
#include "host.hpp"

static const int SHORT_OPEN_COUNT = 3; /* opened and closed with one inspection, after each full use */

/* Kept from request to request: the host's own memory is to stay as it is. */
static std::vector<Outputs> outputs, tile_outputs;
static std::atomic<size_t> done_count;
static uint64_t call_count;

static void count_done(void *, ndp_rt_status, ndp_rt_result *)
{
    done_count++;
}

static void call(ndp_rt_status status, const char *name)
{
    call_count++;
    check(status, name);
}

/* Check a result, or keep the first one of its kind for those that follow. */
static void check_first(const Picture &picture, Outputs &found, std::optional<Answer> &expected, const char *how)
{
    if (!expected)
        expected = found.read();
    found.check(*expected, picture.index, how);
    found.clear();
}

static void inspect_alone(ndp_rt_inspector *inspector, Picture &picture)
{
    Outputs &found = outputs[picture.index];

    call(ndp_rt_inspector_inspect(inspector, &picture.image, &found.result), "ndp_rt_inspector_inspect");
    check_first(picture, found, picture.alone, "alone");
}

static void inspect_together(ndp_rt_inspector *inspector)
{
    std::vector<ndp_rt_image> images;
    std::vector<ndp_rt_result> results;

    for (Picture &picture : pictures) {
        images.push_back(picture.image);
        results.push_back(outputs[picture.index].result);
    }
    call(ndp_rt_inspector_inspect_batch(inspector, images.data(), images.size(), results.data()),
         "ndp_rt_inspector_inspect_batch");
    for (Picture &picture : pictures) {
        outputs[picture.index].result = results[picture.index];
        check_first(picture, outputs[picture.index], picture.batch, "in a batch");
    }
}

/* Submit every picture, wait for one after the other, and check that each callback was called. */
static void submit_each(ndp_rt_inspector *inspector)
{
    std::vector<ndp_rt_job *> jobs(pictures.size());

    done_count = 0;
    for (Picture &picture : pictures)
        call(ndp_rt_inspector_submit(inspector, &picture.image, &outputs[picture.index].result, count_done, nullptr,
                                     &jobs[picture.index]),
             "ndp_rt_inspector_submit");
    for (Picture &picture : pictures) {
        call(ndp_rt_job_wait(jobs[picture.index], -1), "ndp_rt_job_wait");
        check_first(picture, outputs[picture.index], picture.alone, "submitted");
    }
    if (done_count != pictures.size())
        fail(done_count.load(), " callbacks came for ", pictures.size(), " submitted pictures.");
}

/* With thresholds on both sides of its score a picture is a defect, and is none. */
static void move_threshold(ndp_rt_inspector *inspector)
{
    double score = pictures[0].alone->score, found = 0;

    for (double asked : {score * 0.5, score * 2.0}) {
        auto result = make<ndp_rt_result>();

        call(ndp_rt_inspector_set_threshold(inspector, asked), "ndp_rt_inspector_set_threshold");
        call(ndp_rt_inspector_get_threshold(inspector, &found), "ndp_rt_inspector_get_threshold");
        call(ndp_rt_inspector_inspect(inspector, &pictures[0].image, &result), "ndp_rt_inspector_inspect");
        if (found != asked || result.threshold != asked || bool(result.is_defect) != (score >= asked))
            fail("threshold ", asked, " was set; ", found, " is there, and a score of ", score, " is called ",
                 result.is_defect ? "a defect" : "good", ".");
    }
}

/* Ask for what costs no inspection, and check the count of those that there were. */
static void ask_about(ndp_rt_inspector *inspector, uint64_t inspection_count)
{
    auto times = make<ndp_rt_times>();
    auto info = make<ndp_rt_info>();
    char text[1000];

    call(ndp_rt_inspector_info(inspector, &info), "ndp_rt_inspector_info");
    call(ndp_rt_inspector_describe(inspector, text, sizeof text, nullptr), "ndp_rt_inspector_describe");
    call(ndp_rt_timings(inspector, &times), "ndp_rt_timings");
    if (times.inspection_count != inspection_count || times.failure_count != 0 || times.waiting_count != 0)
        fail("ndp_rt_timings tells of ", times.inspection_count, " inspections, ", times.failure_count,
             " failures and ", times.waiting_count, " waiting; there were ", inspection_count, ", 0 and 0.");
}

static void run_cycle(const std::string &bundle, Picture &large)
{
    auto options = make<ndp_rt_open_options>();
    ndp_rt_inspector *inspector = nullptr;
    auto times = make<ndp_rt_times>();

    options.queue_capacity = 32;
    call(ndp_rt_inspector_open(bundle.c_str(), &options, &inspector), "ndp_rt_inspector_open");
    for (Picture &picture : pictures)
        inspect_alone(inspector, picture);
    inspect_together(inspector);
    call(ndp_rt_inspector_inspect_large(inspector, &large.image, 16, &tile_outputs[0].result),
         "ndp_rt_inspector_inspect_large");
    check_first(large, tile_outputs[0], large.tiles, "in tiles");
    submit_each(inspector);
    move_threshold(inspector);
    /* Alone, in a batch and submitted; one in tiles counts as one, and two are for the thresholds. */
    ask_about(inspector, 3 * pictures.size() + 3);
    call(ndp_rt_inspector_close(inspector), "ndp_rt_inspector_close");
    call_count++;
    ndp_rt_status status = ndp_rt_timings(inspector, &times);
    if (status != NDP_RT_STATUS_CLOSED)
        fail("a closed inspector answers ", ndp_rt_status_name(status), "; NDP_RT_STATUS_CLOSED is right.");
}

/* Open, inspect one picture, close. */
static void look_in(const std::string &bundle)
{
    ndp_rt_inspector *inspector = nullptr;

    call(ndp_rt_inspector_open(bundle.c_str(), nullptr, &inspector), "ndp_rt_inspector_open");
    inspect_alone(inspector, pictures[0]);
    call(ndp_rt_inspector_close(inspector), "ndp_rt_inspector_close");
}

/* soak BUNDLE LARGE SECONDS: run cycles for so long, one at least, with picture LARGE for the tiles. */
std::string do_soak(const Words &words)
{
    Picture &large = find_picture(words[1]);
    double start_s = read_clock_s(), seconds = std::stod(words[2]);
    size_t cycle_count = 0;

    for (size_t i = outputs.size(); i < pictures.size(); i++)
        outputs.emplace_back(pictures[i], WANTS_ALL);
    if (tile_outputs.empty())
        tile_outputs.emplace_back(large, WANTS_ALL);
    call_count = 0;
    do {
        run_cycle(words[0], large);
        for (int i = 0; i < SHORT_OPEN_COUNT; i++)
            look_in(words[0]);
        cycle_count++;
    } while (read_clock_s() - start_s < seconds);
    return join("{\"cycles\": ", cycle_count, ", \"opens\": ", cycle_count * (1 + SHORT_OPEN_COUNT),
                ", \"calls\": ", call_count, "}");
}
