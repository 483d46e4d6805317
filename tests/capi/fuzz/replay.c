/* Runs the harness without a fuzzer: replay COUNT SEED with pseudo-random bytes, or replay FILE... with a fuzzer's. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MOST_BYTES = 4096 };

static uint8_t input[1 << 20];

static uint64_t next(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static void replay_random(long count, uint64_t state)
{
    long i;
    size_t size, x;

    for (i = 0; i < count; i++) {
        size = next(&state) % MOST_BYTES;
        for (x = 0; x < size; x++)
            input[x] = (uint8_t)(next(&state) >> 24);
        LLVMFuzzerTestOneInput(input, size);
    }
}

static void replay_file(const char *path)
{
    FILE *stream = fopen(path, "rb");

    if (!stream) {
        perror(path);
        exit(2);
    }
    LLVMFuzzerTestOneInput(input, fread(input, 1, sizeof input, stream));
    fclose(stream);
}

int main(int count, char **words)
{
    char *end = words[0];
    long number = count == 3 ? strtol(words[1], &end, 10) : 0;
    int i;

    if (*end == '\0')
        replay_random(number, (uint64_t)atoll(words[2]) * 0x9e3779b97f4a7c15u | 1);
    else
        for (i = 1; i < count; i++)
            replay_file(words[i]);
    puts("as ndp_rt.h says");
    return 0;
}
