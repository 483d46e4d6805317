// What C++ programs do to the numbers of all streams in their process: functions for the step call= of steps.c.
#include <locale>
#include <string>

namespace
{
struct Commas : std::numpunct<char> {
    char do_decimal_point() const override
    {
        return ',';
    }
};

struct Groups : std::numpunct<char> {
    std::string do_grouping() const override
    {
        return "\3";
    }
};
} // namespace

extern "C" void write_commas()
{
    std::locale::global(std::locale(std::locale::classic(), new Commas));
}

extern "C" void group_digits()
{
    std::locale::global(std::locale(std::locale::classic(), new Groups));
}

extern "C" void be_classic()
{
    std::locale::global(std::locale::classic());
}
