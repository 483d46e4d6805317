/* The requests: what is opened and loaded, and the dispatch to what is measured. */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "host.h"

enum { MAX_WORDS = 16 };

struct picture pictures[MAX_PICTURES];
size_t picture_count;
ndp_rt_inspector *inspectors[MAX_INSPECTORS];
size_t inspector_count;
FILE *answers;

static pthread_mutex_t message_lock = PTHREAD_MUTEX_INITIALIZER;
static char message[MESSAGE_BYTES];

bool fail(const char *format, ...)
{
    va_list values;

    pthread_mutex_lock(&message_lock);
    if (!*message) {
        va_start(values, format);
        vsnprintf(message, sizeof message, format, values);
        va_end(values);
    }
    pthread_mutex_unlock(&message_lock);
    return false;
}

bool has_failed(void)
{
    bool found;

    pthread_mutex_lock(&message_lock);
    found = *message;
    pthread_mutex_unlock(&message_lock);
    return found;
}

bool is_ok(ndp_rt_status status, const char *call)
{
    return status == NDP_RT_STATUS_OK || fail("%s: %s: %s", call, ndp_rt_status_name(status), ndp_rt_last_error());
}

static bool find_index(const char *word, size_t count, const char *what, size_t *index)
{
    char *end;

    errno = 0;
    *index = strtoul(word, &end, 10);
    return (!errno && end != word && !*end && *index < count) || fail("there is no %s '%s'.", what, word);
}

struct picture *find_picture(const char *word)
{
    size_t index;

    return find_index(word, picture_count, "picture", &index) ? &pictures[index] : NULL;
}

ndp_rt_inspector **find_inspector(const char *word)
{
    size_t index;

    return find_index(word, inspector_count, "inspector", &index) ? &inspectors[index] : NULL;
}

/* start PYTHON: start the runtime. */
static bool do_start(char **words)
{
    double start_s = read_clock_s();

    if (!NDP_RT_ABI_FITS(ndp_rt_abi_version()))
        return fail("libndp_rt.so is of another ABI than the header that this host was compiled with.");
    if (!is_ok(ndp_rt_runtime_start(words[0]), "ndp_rt_runtime_start"))
        return false;
    fprintf(answers, "{\"start_ms\": %.6f}", (read_clock_s() - start_s) * 1e3);
    return true;
}

/* open BUNDLE THREADS: open an inspector for single images, with 0 threads: the default; it gets the next number. */
static bool do_open(char **words)
{
    static const int32_t BATCH_SIZES[] = {1};
    ndp_rt_open_options options = {
        .struct_size = sizeof options, .threads = atoi(words[1]), .batch_sizes = BATCH_SIZES, .batch_size_count = 1};
    double start_s = read_clock_s();

    if (inspector_count == MAX_INSPECTORS)
        return fail("%d inspectors are open, as many as this host takes.", MAX_INSPECTORS);
    if (!is_ok(ndp_rt_inspector_open(words[0], &options, &inspectors[inspector_count]), "ndp_rt_inspector_open"))
        return false;
    fprintf(answers, "{\"inspector\": %zu, \"open_ms\": %.6f}", inspector_count++, (read_clock_s() - start_s) * 1e3);
    return true;
}

/* picture PATH FORMAT WIDTH HEIGHT: load an image; it gets the next number. */
static bool do_picture(char **words)
{
    if (picture_count == MAX_PICTURES)
        return fail("%d pictures are loaded, as many as this host takes.", MAX_PICTURES);
    if (!load_picture(&pictures[picture_count], words[0], words[1], atoi(words[2]), atoi(words[3])))
        return false;
    pictures[picture_count].index = picture_count;
    fprintf(answers, "{\"picture\": %zu}", picture_count++);
    return true;
}

/* answer INSPECTOR PICTURE: inspect once and tell what came. */
static bool do_answer(char **words)
{
    ndp_rt_inspector **inspector = find_inspector(words[0]);
    struct picture *picture = find_picture(words[1]);
    struct outputs outputs;
    struct answer answer;
    bool is_done;

    if (!inspector || !picture || !make_outputs(&outputs, picture, WANTS_ALL))
        return false;
    is_done = is_ok(ndp_rt_inspector_inspect(*inspector, &picture->image, &outputs.result), "ndp_rt_inspector_inspect");
    if (is_done) {
        answer = read_answer(&outputs);
        write_answer(&answer);
    }
    free_outputs(&outputs);
    return is_done;
}

/* expect PICTURE SCORE MAP_SUM MASK_SUM DEFECT_COUNT: what the picture has to give from now on, in `answer`s words. */
static bool do_expect(char **words)
{
    struct picture *picture = find_picture(words[0]);
    struct answer *alone;
    uint64_t bits;

    if (!picture)
        return false;
    alone = &picture->alone;
    if (sscanf(words[1], "%" SCNx64, &bits) != 1 || sscanf(words[2], "%" SCNx64, &alone->map_sum) != 1
        || sscanf(words[3], "%" SCNx64, &alone->mask_sum) != 1
        || sscanf(words[4], "%" SCNu32, &alone->defect_count) != 1)
        return fail("what is expected of picture %s is not written as `answer` writes it.", words[0]);
    memcpy(&alone->score, &bits, sizeof bits);
    picture->is_alone_known = true;
    fprintf(answers, "{}");
    return true;
}

static bool do_memory(char **words)
{
    (void)words;
    return write_memory();
}

static const struct {
    const char *name;
    size_t word_count;
    handler *run;
} REQUESTS[] = {
    {"start", 1, do_start},     {"open", 2, do_open},     {"picture", 4, do_picture}, {"answer", 2, do_answer},
    {"expect", 5, do_expect},   {"memory", 0, do_memory}, {"soak", 3, do_soak},       {"calls", 5, do_calls},
    {"timings", 3, do_timings}, {"crowd", 5, do_crowd},   {"submit", 4, do_submit},
};

/* Split a line at its tabs and have its request answered. */
static bool run_line(char *line)
{
    char *words[MAX_WORDS + 1];
    size_t count = 0, i;

    for (char *word = line; word && count < MAX_WORDS; count++) {
        char *tab = strchr(word, '\t');

        words[count] = word;
        if (tab)
            *tab++ = '\0';
        word = tab;
    }
    for (i = 0; i < sizeof REQUESTS / sizeof *REQUESTS; i++)
        if (strcmp(REQUESTS[i].name, words[0]) == 0)
            return REQUESTS[i].word_count + 1 == count
                       ? REQUESTS[i].run(words + 1)
                       : fail("'%s' takes %zu words, not %zu.", words[0], REQUESTS[i].word_count, count - 1);
    return fail("'%s' is no request.", words[0]);
}

static void write_failure(void)
{
    const char *at;

    fprintf(answers, "{\"error\": \"");
    for (at = message; *at; at++) {
        if ((unsigned char)*at < 0x20)
            fprintf(answers, "\\u%04x", *at);
        else
            fprintf(answers, "%s%c", *at == '"' || *at == '\\' ? "\\" : "", *at);
    }
    fprintf(answers, "\"}");
}

/* Do what a program does first and tell when, by the system's clock: main, runtime, open, image, first decision. */
static int run_first(char **words)
{
    struct outputs outputs;
    struct answer answer;
    double moments_s[5] = {read_clock_s()};
    bool is_done = is_ok(ndp_rt_runtime_start(words[0]), "ndp_rt_runtime_start");

    moments_s[1] = read_clock_s();
    is_done = is_done && is_ok(ndp_rt_inspector_open(words[1], NULL, &inspectors[0]), "ndp_rt_inspector_open");
    moments_s[2] = read_clock_s();
    is_done = is_done && load_picture(&pictures[0], words[2], words[3], atoi(words[4]), atoi(words[5]))
              && make_outputs(&outputs, &pictures[0], WANTS_ALL);
    moments_s[3] = read_clock_s();
    is_done = is_done
              && is_ok(ndp_rt_inspector_inspect(inspectors[0], &pictures[0].image, &outputs.result),
                       "ndp_rt_inspector_inspect");
    moments_s[4] = read_clock_s();
    if (is_done) {
        answer = read_answer(&outputs);
        fprintf(answers, "{");
        write_numbers("moments_s", moments_s, 5);
        fprintf(answers, ", \"answer\": ");
        write_answer(&answer);
        fprintf(answers, "}");
    } else {
        write_failure();
    }
    fprintf(answers, "\n");
    fclose(answers);
    ndp_rt_inspector_close(inspectors[0]);
    return is_done ? 0 : 1;
}

/* Without arguments: answer requests. With PYTHON BUNDLE PATH FORMAT WIDTH HEIGHT: inspect that picture and leave. */
int main(int argument_count, char **arguments)
{
    char *line = NULL;
    size_t capacity = 0, i;
    ssize_t length;

    prctl(PR_SET_PDEATHSIG, SIGKILL); /* a long request ends with the benchmark that asked for it */
    answers = fdopen(dup(1), "w");
    if (!answers || dup2(2, 1) < 0)
        return 1;
    if (argument_count == 7)
        return run_first(arguments + 1);
    while ((length = getline(&line, &capacity, stdin)) > 0) {
        if (line[length - 1] == '\n')
            line[length - 1] = '\0';
        *message = '\0';
        if (!run_line(line))
            write_failure();
        fprintf(answers, "\n");
        fflush(answers);
    }
    for (i = 0; i < inspector_count; i++)
        ndp_rt_inspector_close(inspectors[i]);
    free(line);
    return 0;
}
