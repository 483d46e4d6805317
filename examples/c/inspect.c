/* Inspects images: the whole of a program that holds an inspector. C99. Build it with

       cc inspect.c $(ndp-rt capi --cflags --libs) -o inspect

   inspect [--threshold X] [--device D] [--precision P] [--map FILE.pgm] BUNDLE IMAGE...

   Images are PGM or PPM. Ends with 0 where all are good, 3 where one has a defect, 1 for an error, 2 for wrong usage. */
#include <ndp_rt.h>

#include "../pnm.h"

enum { GOOD = 0, ERROR = 1, USAGE = 2, DEFECT = 3, MAX_DEFECTS = 32 };

struct arguments {
    ndp_rt_open_options options;
    const char *map_path;
    const char *bundle;
    char **images;
    int image_count;
};

static int usage(void)
{
    fprintf(stderr, "usage: inspect [--threshold X] [--device D] [--precision P] [--map FILE.pgm] BUNDLE IMAGE...; "
                    "--map takes one image\n");
    return USAGE;
}

/* Every call that fails leaves a sentence: what was expected, what came, what to do. */
static int fail(const char *what)
{
    fprintf(stderr, "inspect: %s: %s\n", what, ndp_rt_last_error());
    return ERROR;
}

/* Fill in the arguments, or return false. */
static int read_arguments(int argc, char **argv, struct arguments *arguments)
{
    ndp_rt_open_options *options = &arguments->options;
    char *end = "";
    int i;

    for (i = 1; i + 1 < argc && strncmp(argv[i], "--", 2) == 0; i += 2) {
        if (strcmp(argv[i], "--device") == 0) {
            options->device = argv[i + 1];
        } else if (strcmp(argv[i], "--precision") == 0) {
            options->precision = argv[i + 1];
        } else if (strcmp(argv[i], "--map") == 0) {
            arguments->map_path = argv[i + 1];
        } else if (strcmp(argv[i], "--threshold") == 0 && argv[i + 1][0] != '\0') {
            options->threshold = strtod(argv[i + 1], &end);
            options->flags |= NDP_RT_OPEN_THRESHOLD; /* else the bundle's own decides */
        } else {
            return 0;
        }
    }
    if (*end != '\0' || argc - i < 2 || (arguments->map_path && argc - i != 2))
        return 0;
    arguments->bundle = argv[i];
    arguments->images = argv + i + 1;
    arguments->image_count = argc - i - 1;
    return 1;
}

/* Say how the file's pixels lie in memory: the library reads them there, whatever their size. */
static ndp_rt_image describe_image(const pnm *file)
{
    static const uint32_t FORMATS[2][2] = {{NDP_RT_PIXEL_GREY8, NDP_RT_PIXEL_GREY16},
                                           {NDP_RT_PIXEL_RGB8, NDP_RT_PIXEL_RGB16}};
    const ndp_rt_image image = {.struct_size = sizeof image,
                                .pixel_format = FORMATS[file->channel_count == 3][file->value_bytes == 2],
                                .pixels = file->pixels,
                                .width_px = file->width_px,
                                .height_px = file->height_px,
                                .stride_bytes = (int64_t)file->width_px * file->channel_count * file->value_bytes};

    return image;
}

static void print_result(const char *path, const ndp_rt_result *result)
{
    printf("%s: score %.6f, threshold %.6f: %s\n", path, result->score, result->threshold,
           result->is_defect ? "defect" : "good");
    for (uint32_t i = 0; i < result->defect_count && i < MAX_DEFECTS; i++) {
        const ndp_rt_defect *defect = &result->defects[i];

        printf("  x %d, y %d, %d x %d, %lld pixels, peak %.6f\n", (int)defect->x_px, (int)defect->y_px,
               (int)defect->width_px, (int)defect->height_px, (long long)defect->area_px, defect->peak);
    }
    if (result->defect_count > MAX_DEFECTS)
        printf("  and %u with lower peaks\n", (unsigned)result->defect_count - MAX_DEFECTS);
}

/* Inspect one image that was read; the map, where it is wanted, is written to `map` as floats of 0 to 1. */
static int inspect_pixels(ndp_rt_inspector *inspector, const char *path, const pnm *file, float *map)
{
    ndp_rt_defect defects[MAX_DEFECTS];
    const ndp_rt_image image = describe_image(file);
    ndp_rt_result result = {.struct_size = sizeof result,
                            .defects = defects,
                            .defect_struct_size = sizeof *defects,
                            .defect_capacity = MAX_DEFECTS};
    ndp_rt_status status;

    if (map) {
        result.map = map;
        result.map_stride_bytes = file->width_px * (int64_t)sizeof *map;
        result.map_capacity_bytes = result.map_stride_bytes * file->height_px;
    }
    status = ndp_rt_inspector_inspect(inspector, &image, &result);
    /* The map fits, so what was too small is the list of defects: it then holds the highest peaks, and the rest is
       complete. */
    if (status != NDP_RT_STATUS_OK && status != NDP_RT_STATUS_BUFFER_TOO_SMALL)
        return fail(path);
    print_result(path, &result);
    return result.is_defect ? DEFECT : GOOD;
}

static int inspect_file(ndp_rt_inspector *inspector, const char *path, const char *map_path)
{
    pnm file;
    float *map = NULL;
    const char *problem = pnm_read(path, &file);
    int outcome = ERROR;

    if (!problem && map_path) {
        map = malloc((size_t)file.width_px * (size_t)file.height_px * sizeof *map);
        problem = map ? NULL : "not enough memory";
    }
    if (!problem) {
        outcome = inspect_pixels(inspector, path, &file, map);
        if (map && outcome != ERROR)
            problem = pnm_write_map(path = map_path, map, file.width_px, file.height_px);
    }
    if (problem) {
        fprintf(stderr, "inspect: %s: %s\n", path, problem);
        outcome = ERROR;
    }
    free(map);
    free(file.pixels);
    return outcome;
}

int main(int argc, char **argv)
{
    const int32_t one = 1; /* images come one by one, so engines for larger batches would do nothing */
    struct arguments arguments = {
        .options = {.struct_size = sizeof arguments.options, .batch_sizes = &one, .batch_size_count = 1}};
    ndp_rt_inspector *inspector = NULL;
    int outcome = GOOD;

    if (!read_arguments(argc, argv, &arguments))
        return usage();
    if (!NDP_RT_ABI_FITS(ndp_rt_abi_version())) {
        fprintf(stderr, "inspect: libndp_rt.so %s is older than the ndp_rt.h of this program\n", ndp_rt_version());
        return ERROR;
    }
    if (ndp_rt_inspector_open(arguments.bundle, &arguments.options, &inspector) != NDP_RT_STATUS_OK)
        return fail("open");
    if (ndp_rt_inspector_warm_up(inspector, 1) != NDP_RT_STATUS_OK) /* so that the first image takes no longer */
        outcome = fail("warm-up");
    for (int i = 0; i < arguments.image_count && outcome != ERROR; i++) {
        const int now = inspect_file(inspector, arguments.images[i], arguments.map_path);

        outcome = now == GOOD ? outcome : now;
    }
    ndp_rt_inspector_close(inspector);
    return outcome;
}
