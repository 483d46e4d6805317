/* Images from files of raw pixels, buffers for results, and whether what they hold is right. */
#include <bit>
#include <cstdio>
#include <fstream>
#include <iterator>

#include "host.hpp"

static const size_t DEFECT_CAPACITY = 4096;

Picture load_picture(const std::string &path, int32_t width_px, int32_t height_px)
{
    int64_t stride_bytes = 3 * int64_t(width_px);
    std::ifstream file(path, std::ios::binary);
    Picture picture;

    picture.pixels.assign(std::istreambuf_iterator<char>(file), {});
    if (int64_t(picture.pixels.size()) != stride_bytes * height_px)
        fail(path, " cannot be read, or does not have ", stride_bytes * height_px, " bytes.");
    picture.image.struct_size = sizeof picture.image;
    picture.image.pixel_format = NDP_RT_PIXEL_RGB8;
    picture.image.width_px = width_px;
    picture.image.height_px = height_px;
    picture.image.stride_bytes = stride_bytes;
    picture.image.pixels = picture.pixels.data();
    return picture;
}

Outputs::Outputs(const Picture &picture, int wanted) : wanted(wanted)
{
    int64_t width = picture.image.width_px, height = picture.image.height_px;

    result.struct_size = sizeof result;
    if (wanted & WANTS_MAP) {
        map.resize(size_t(width * height), -1.0f);
        result.map = map.data();
        result.map_stride_bytes = width * int64_t(sizeof(float));
        result.map_capacity_bytes = result.map_stride_bytes * height;
    }
    if (wanted & WANTS_DEFECTS) {
        defects.resize(DEFECT_CAPACITY);
        result.defects = defects.data();
        result.defect_struct_size = sizeof(ndp_rt_defect);
        result.defect_capacity = DEFECT_CAPACITY;
    }
    spoil();
}

void Outputs::spoil()
{
    result.score = result.total_ms = -1;
    for (size_t i = 1; i <= 3; i++) { /* a value in each quarter's end */
        if (!map.empty())
            map[map.size() * i / 4] = -1;
    }
}

/* Each value's bits times an odd number of its place's own, modulo 2^64: one wrong value, or two that changed places,
   give another sum. */
Answer Outputs::read() const
{
    Answer answer = {.score = result.score, .defect_count = result.defect_count};

    for (size_t i = 0; i < map.size(); i++)
        answer.map_sum += std::bit_cast<uint32_t>(map[i]) * uint64_t(2 * i + 1);
    return answer;
}

static std::string write_hex(uint64_t value)
{
    char text[17];

    snprintf(text, sizeof text, "%016llx", (unsigned long long)value);
    return text;
}

std::string write_answer(const Answer &answer)
{
    return join("{\"score\": \"", write_hex(std::bit_cast<uint64_t>(answer.score)), "\", \"map_sum\": \"",
                write_hex(answer.map_sum), "\", \"defect_count\": ", answer.defect_count, "}");
}

std::string write_list(const std::vector<double> &values)
{
    std::string text;

    for (double value : values)
        text += join(text.empty() ? "[" : ", ", value);
    return text.empty() ? "[]" : text + "]";
}

void Outputs::check(const Answer &expected, size_t index, const char *how) const
{
    Answer found = read();

    auto compare = [&](bool is_same, const std::string &came, const std::string &wanted) {
        if (!is_same)
            fail("a wrong answer: picture ", index, " ", how, " ", came, "; ", wanted, " expected.");
    };
    compare(std::bit_cast<uint64_t>(found.score) == std::bit_cast<uint64_t>(expected.score),
            join("scored ", found.score), join(expected.score, " is"));
    compare(map.empty() || found.map_sum == expected.map_sum, "gave a map with checksum " + write_hex(found.map_sum),
            write_hex(expected.map_sum) + " is");
    compare(found.defect_count == expected.defect_count, join("gave ", found.defect_count, " defects"),
            join(expected.defect_count, " are"));
}
