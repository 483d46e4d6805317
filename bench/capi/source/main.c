/* The requests: what is opened and loaded, and the dispatch to what is measured. */
#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <signal.h>
#include <unistd.h>

#include "host.h"

enum { MAX_WORDS = 16, MESSAGE_BYTES = 3000 };

struct picture pictures[MAX_PICTURES];
size_t picture_count;
ndp_rt_inspector *inspectors[MAX_INSPECTORS];
size_t inspector_count;
FILE *answers;

static pthread_mutex_t message_lock = PTHREAD_MUTEX_INITIALIZER;
static char message[MESSAGE_BYTES];
static pthread_t main_thread;
static jmp_buf request_end;
static double main_s;

_Noreturn void fail(const char *format, ...)
{
    va_list values;

    pthread_mutex_lock(&message_lock);
    if (!*message) {
        va_start(values, format);
        vsnprintf(message, sizeof message, format, values);
        va_end(values);
    }
    pthread_mutex_unlock(&message_lock);
    if (pthread_equal(pthread_self(), main_thread))
        longjmp(request_end, 1);
    pthread_exit(NULL);
}

bool has_failed(void)
{
    bool found;

    pthread_mutex_lock(&message_lock);
    found = *message;
    pthread_mutex_unlock(&message_lock);
    return found;
}

void check(ndp_rt_status status, const char *call)
{
    if (status != NDP_RT_STATUS_OK)
        fail("%s: %s: %s", call, ndp_rt_status_name(status), ndp_rt_last_error());
}

void *take_memory(size_t count, size_t size)
{
    void *memory = calloc(count + 1, size);

    if (!memory)
        fail("no memory for %zu times %zu bytes.", count, size);
    return memory;
}

static size_t find_index(const char *word, size_t count, const char *what)
{
    char *end;
    size_t index;

    errno = 0;
    index = strtoul(word, &end, 10);
    if (errno || end == word || *end || index >= count)
        fail("there is no %s '%s'.", what, word);
    return index;
}

struct picture *find_picture(const char *word)
{
    return &pictures[find_index(word, picture_count, "picture")];
}

struct picture *find_known_picture(const char *word)
{
    struct picture *picture = find_picture(word);

    if (!picture->is_alone_known)
        fail("what picture %s has to give is not known; ask with `answer` and `expect` first.", word);
    return picture;
}

ndp_rt_inspector *find_inspector(const char *word)
{
    return inspectors[find_index(word, inspector_count, "inspector")];
}

/* start PYTHON: start the runtime, and tell when this program began. */
static void do_start(char **words)
{
    if (!NDP_RT_ABI_FITS(ndp_rt_abi_version()))
        fail("libndp_rt.so is of another ABI than the header that this host was compiled with.");
    check(ndp_rt_runtime_start(words[0]), "ndp_rt_runtime_start");
    fprintf(answers, "{\"main_s\": %.9f}", main_s);
}

/* open BUNDLE THREADS: open an inspector for single images, with 0 threads: the default; it gets the next number. */
static void do_open(char **words)
{
    static const int32_t BATCH_SIZES[] = {1};
    ndp_rt_open_options options = {
        .struct_size = sizeof options, .threads = atoi(words[1]), .batch_sizes = BATCH_SIZES, .batch_size_count = 1};

    if (inspector_count == MAX_INSPECTORS)
        fail("%d inspectors are open, as many as this host takes.", MAX_INSPECTORS);
    check(ndp_rt_inspector_open(words[0], &options, &inspectors[inspector_count]), "ndp_rt_inspector_open");
    fprintf(answers, "{\"inspector\": %zu}", inspector_count++);
}

/* picture PATH FORMAT WIDTH HEIGHT: load an image; it gets the next number. */
static void do_picture(char **words)
{
    if (picture_count == MAX_PICTURES)
        fail("%d pictures are loaded, as many as this host takes.", MAX_PICTURES);
    load_picture(&pictures[picture_count], words[0], words[1], atoi(words[2]), atoi(words[3]));
    pictures[picture_count].index = picture_count;
    fprintf(answers, "{\"picture\": %zu}", picture_count++);
}

/* answer INSPECTOR PICTURE: inspect once and tell what came. */
static void do_answer(char **words)
{
    ndp_rt_inspector *inspector = find_inspector(words[0]);
    struct picture *picture = find_picture(words[1]);
    struct outputs outputs;
    struct answer answer;

    make_outputs(&outputs, picture, WANTS_ALL);
    check(ndp_rt_inspector_inspect(inspector, &picture->image, &outputs.result), "ndp_rt_inspector_inspect");
    answer = read_answer(&outputs);
    write_answer(&answer);
    free_outputs(&outputs);
}

/* expect PICTURE SCORE MAP_SUM MASK_SUM DEFECT_COUNT: what the picture has to give from now on, in `answer`s words. */
static void do_expect(char **words)
{
    struct picture *picture = find_picture(words[0]);
    struct answer *alone = &picture->alone;
    uint64_t bits;

    if (sscanf(words[1], "%" SCNx64, &bits) != 1 || sscanf(words[2], "%" SCNx64, &alone->map_sum) != 1
        || sscanf(words[3], "%" SCNx64, &alone->mask_sum) != 1
        || sscanf(words[4], "%" SCNu32, &alone->defect_count) != 1)
        fail("what is expected of picture %s is not written as `answer` writes it.", words[0]);
    memcpy(&alone->score, &bits, sizeof bits);
    picture->is_alone_known = true;
    fprintf(answers, "{}");
}

static const struct {
    const char *name;
    size_t word_count;
    handler *run;
} REQUESTS[] = {
    {"start", 1, do_start},     {"open", 2, do_open},   {"picture", 4, do_picture}, {"answer", 2, do_answer},
    {"expect", 5, do_expect},   {"heap", 0, do_heap},   {"soak", 3, do_soak},       {"calls", 5, do_calls},
    {"timings", 3, do_timings}, {"crowd", 5, do_crowd}, {"submit", 4, do_submit},
};

/* Split a line at its tabs and have its request answered. */
static void run_line(char *line)
{
    char *words[MAX_WORDS + 1], *end = NULL;
    size_t count = 0, i;

    for (char *word = strtok_r(line, "\t", &end); word && count < MAX_WORDS; word = strtok_r(NULL, "\t", &end))
        words[count++] = word;
    for (i = 0; count && i < sizeof REQUESTS / sizeof *REQUESTS; i++)
        if (strcmp(REQUESTS[i].name, words[0]) == 0) {
            if (REQUESTS[i].word_count + 1 != count)
                fail("'%s' takes %zu words, not %zu.", words[0], REQUESTS[i].word_count, count - 1);
            REQUESTS[i].run(words + 1);
            return;
        }
    fail("'%s' is no request.", count ? words[0] : "");
}

static void write_failure(void)
{
    const char *at;

    fprintf(answers, "{\"error\": \"");
    for (at = message; *at; at++)
        if ((unsigned char)*at < 0x20)
            fprintf(answers, "\\u%04x", *at);
        else
            fprintf(answers, "%s%c", *at == '"' || *at == '\\' ? "\\" : "", *at);
    fprintf(answers, "\"}");
}

/* Answer requests until stdin ends. */
int main(void)
{
    static char *line;
    static size_t capacity;

    prctl(PR_SET_PDEATHSIG, SIGKILL); /* a long request ends with the benchmark that asked for it */
    main_s = read_clock_s();
    main_thread = pthread_self();
    answers = fdopen(dup(1), "w");
    if (!answers || dup2(2, 1) < 0)
        return 1;
    while (getline(&line, &capacity, stdin) > 0) {
        *message = '\0';
        line[strcspn(line, "\n")] = '\0';
        if (setjmp(request_end) == 0)
            run_line(line);
        else
            write_failure();
        fprintf(answers, "\n");
        fflush(answers);
    }
    while (inspector_count)
        ndp_rt_inspector_close(inspectors[--inspector_count]);
    free(line);
    return 0;
}
