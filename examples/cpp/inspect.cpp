/* Inspects images, as examples/c/inspect.c does. C++17. Build it with

       c++ -std=c++17 inspect.cpp $(ndp-rt capi --cflags --libs) -o inspect */
#include <ndp_rt.hpp>

#include <cstdio>
#include <cstring>

#include "../pnm.h"

enum { GOOD = 0, ERROR = 1, USAGE = 2, DEFECT = 3 };

struct arguments {
    ndp_rt::options options;
    std::string map_path;
    std::vector<std::string> paths; /* the bundle, then images */
};

static bool read_arguments(int argc, char **argv, arguments &out)
{
    int i = 1;

    for (; i + 1 < argc && std::strncmp(argv[i], "--", 2) == 0; i += 2) {
        const std::string name = argv[i], value = argv[i + 1];
        char *end = nullptr;

        if (name == "--device")
            out.options.device = value;
        else if (name == "--precision")
            out.options.precision = value;
        else if (name == "--map")
            out.map_path = value;
        else if (name == "--threshold")
            out.options.threshold = std::strtod(value.c_str(), &end);
        else
            return false;
        if (end && (value.empty() || *end != '\0'))
            return false;
    }
    out.paths.assign(argv + i, argv + argc);
    return out.paths.size() >= 2 && (out.map_path.empty() || out.paths.size() == 2);
}

static int inspect_file(ndp_rt::inspector &inspector, const std::string &path, const std::string &map_path)
{
    using ndp_rt::pixel_format;
    pnm file;
    if (const char *problem = pnm_read(path.c_str(), &file))
        throw std::runtime_error(path + ": " + problem);
    const std::unique_ptr<std::uint8_t, decltype(&std::free)> pixels(file.pixels, std::free);
    const pixel_format grey = file.value_bytes == 2 ? pixel_format::grey16 : pixel_format::grey8;
    const pixel_format colour = file.value_bytes == 2 ? pixel_format::rgb16 : pixel_format::rgb8;
    const ndp_rt::image image(pixels.get(), file.width_px, file.height_px, file.channel_count == 3 ? colour : grey);
    const ndp_rt::result result = inspector.inspect(image);

    std::printf("%s: score %.6f, threshold %.6f: %s\n", path.c_str(), result.score, result.threshold,
                result.is_defect ? "defect" : "good");
    for (const ndp_rt::defect &one : result.defects)
        std::printf("  x %d, y %d, %d x %d, %lld pixels, peak %.6f\n", one.x_px, one.y_px, one.width_px, one.height_px,
                    static_cast<long long>(one.area_px), one.peak);
    if (!map_path.empty())
        if (const char *problem = pnm_write_map(map_path.c_str(), result.map.data(), result.width_px, result.height_px))
            throw std::runtime_error(map_path + ": " + problem);
    return result.is_defect ? DEFECT : GOOD;
}

int main(int argc, char **argv)
{
    arguments given;
    int outcome = GOOD;

    given.options.batch_sizes = {1}; // images come one by one
    if (!read_arguments(argc, argv, given)) {
        std::fprintf(stderr,
                     "usage: inspect [--threshold X] [--device D] [--precision P] [--map FILE.pgm] BUNDLE IMAGE...;"
                     " --map takes one image\n");
        return USAGE;
    }
    try {
        ndp_rt::inspector inspector(given.paths[0], given.options);
        inspector.warm_up();
        for (std::size_t i = 1; i < given.paths.size(); i++)
            if (inspect_file(inspector, given.paths[i], given.map_path) == DEFECT)
                outcome = DEFECT;
    } catch (const std::exception &error) { // an ndp_rt::error has the status, too
        std::fprintf(stderr, "inspect: %s\n", error.what());
        return ERROR;
    }
    return outcome;
}
