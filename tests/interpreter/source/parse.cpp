// Reads the PTX that NVRTC writes. Whatever it does not know is a Fault that names it.
#include <algorithm>

#include "memory.h"
#include "text.h"

namespace ptx {
namespace {

u64 align(u64 value, u64 step) { return (value + step - 1) / step * step; }

struct SharedArray {
    u64 alignment, bytes;
    bool is_dynamic;
};

// ".shared .align 16 .b8 name[100]", and the same with .extern and no size.
std::pair<std::string, SharedArray> parse_shared(const std::string& text)
{
    const std::vector<std::string> words = split_words(text);
    const size_t at = std::find(words.begin(), words.end(), ".align") - words.begin();
    if (at + 3 >= words.size()) fail("unknown declaration " + text);
    const std::string& name = words[at + 3];
    const size_t bracket = name.find('[');
    const bool is_dynamic = words[0] == ".extern";
    const u64 count = bracket == std::string::npos ? 1 : is_dynamic ? 0 : std::stoull(name.substr(bracket + 1));
    return {name.substr(0, bracket), {std::stoull(words[at + 1]), count * count_bytes(words[at + 2]), is_dynamic}};
}

class Parser {
public:
    Parser(Kernel& kernel, const std::map<std::string, SharedArray>& shared, const std::map<int, std::string>& files)
        : kernel_(kernel), shared_(shared), files_(files)
    {
    }

    void read_body(const std::string& body)
    {
        std::string statement;
        for (char c : body) {
            const bool is_start = trim(statement).empty();
            if (is_start && (c == '{' || c == '}')) continue;  // a scope
            if (c == ':' && trim(statement)[0] == '$') {
                labels_[trim(statement)] = kernel_.code.size();
                statement.clear();
            } else if (c == ';') {
                read_statement(trim(statement));
                statement.clear();
            } else {
                statement += c;
            }
        }
        for (auto& [index, label] : branches_) {
            if (!labels_.count(label)) fail("no label " + label);
            kernel_.code[index].target = labels_[label];
        }
        place_dynamic();
    }

private:
    struct Register {
        u32 place;
        Width width;
    };
    Kernel& kernel_;
    std::map<std::string, SharedArray> shared_;
    const std::map<int, std::string>& files_;
    std::map<std::string, Register> registers_;
    std::map<std::string, u64> placed_;  // shared arrays
    std::map<std::pair<u64, Width>, u32> constants_;
    std::map<std::string, u32> labels_;
    std::vector<std::pair<u32, std::string>> branches_;
    std::vector<std::pair<u32, u32>> dynamic_;  // (instruction, 1) whose offset, and (constant, 0) whose value, moves
    int file_ = 0, line_ = 0;

    u32 reserve(Width width)
    {
        const u32 place = kernel_.register_bytes;
        kernel_.register_bytes += width == PREDICATE ? 64 : LANES * width;
        return place;
    }

    void declare(const std::string& type, const std::string& names)
    {
        const Width width = type == ".pred" ? PREDICATE : Width(count_bytes(type));
        for (const std::string& name : split(names, ',')) {
            const size_t bracket = name.find('<');
            if (bracket == std::string::npos) {
                registers_[name] = {reserve(width), width};
                continue;
            }
            const int count = std::stoi(name.substr(bracket + 1));
            for (int i = 0; i < count; ++i)
                registers_[name.substr(0, bracket) + std::to_string(i)] = {reserve(width), width};
        }
    }

    Register find_register(const std::string& name)
    {
        const auto found = registers_.find(name);
        if (found != registers_.end()) return found->second;
        for (const char* start : {"%tid.", "%ntid.", "%ctaid.", "%nctaid."})
            if (starts_with(name, start)) {
                const Register made{reserve(W32), W32};
                kernel_.specials.push_back({name, made.place});
                return registers_[name] = made;
            }
        fail("unknown register " + name);
    }

    u32 find_constant(u64 value, Width width)
    {
        const auto [found, is_new] = constants_.try_emplace({value, width}, 0);
        if (is_new) {
            found->second = reserve(width);
            kernel_.constants.push_back({found->second, width, value});
        }
        return found->second;
    }

    // The place of a shared array, which is laid out when it is first named.
    u64 find_symbol(const std::string& name, bool& is_dynamic)
    {
        const auto found = shared_.find(name);
        if (found == shared_.end()) fail("unknown symbol " + name);
        is_dynamic = found->second.is_dynamic;
        if (is_dynamic) return 0;
        const auto [placed, is_new] = placed_.try_emplace(name, 0);
        if (is_new) {
            placed->second = align(kernel_.shared_bytes, found->second.alignment);
            kernel_.shared_bytes = placed->second + found->second.bytes;
        }
        return placed->second;
    }

    void place_dynamic()
    {
        const u64 start = align(kernel_.shared_bytes, 16);
        for (auto [index, is_instruction] : dynamic_) {
            if (is_instruction) kernel_.code[index].offset += start;
            else kernel_.constants[index].value += start;
        }
    }

    void add_operand(Instruction& instruction, const std::string& text, Width wanted, bool may_be_wider)
    {
        Register found{0, wanted};
        if (text == "_") {
            found.place = reserve(wanted);
        } else if (text[0] == '%') {
            found = find_register(text);
        } else if (starts_with(text, "0f") || starts_with(text, "0d")) {
            found.place = find_constant(std::stoull(text.substr(2), nullptr, 16), wanted);
        } else if (isdigit(text[0]) || text[0] == '-') {
            const u64 value = text[0] == '-' ? u64(std::stoll(text, nullptr, 0)) : std::stoull(text, nullptr, 0);
            found.place = find_constant(value, wanted);
        } else {
            bool is_dynamic;
            const u64 value = find_symbol(text, is_dynamic);
            found.place = reserve(wanted);
            if (is_dynamic) dynamic_.push_back({u32(kernel_.constants.size()), 0});
            kernel_.constants.push_back({found.place, wanted, value});
        }
        if (found.width != wanted && !(may_be_wider && found.width > wanted))
            fail("a register of another width: " + instruction.text);
        if (instruction.operand_count == 16) fail("too many operands: " + instruction.text);
        instruction.places[instruction.operand_count] = found.place;
        instruction.widths[instruction.operand_count++] = found.width;
    }

    // "[%rd1+16]", "[name]".
    void set_address(Instruction& instruction, const std::string& text)
    {
        const std::string inside = trim(text.substr(1, text.find(']') - 1));
        const size_t plus = inside.find('+');
        const std::string base = trim(inside.substr(0, plus));
        if (plus != std::string::npos) instruction.offset = std::stoll(inside.substr(plus + 1));
        if (base[0] == '%') {
            const Register found = find_register(base);
            instruction.address = found.place;
            instruction.address_width = found.width;
        } else {
            bool is_dynamic;
            instruction.offset += find_symbol(base, is_dynamic);
            if (is_dynamic) dynamic_.push_back({u32(kernel_.code.size()), 1});
        }
    }

    void read_statement(const std::string& text)
    {
        if (text.empty() || starts_with(text, ".pragma")) return;
        const std::vector<std::string> words = split_words(text);
        if (words[0] == ".loc" && text.find('\n') == std::string::npos) {
            file_ = std::stoi(words[1]);
            line_ = std::stoi(words[2]);
        } else if (words[0] == ".reg") {
            declare(words[1], text.substr(text.find(words[1]) + words[1].size()));
        } else if (words[0] == ".shared") {
            shared_.insert(parse_shared(text));
        } else if (text[0] == '.') {
            fail("unknown statement " + text);
        } else {
            read_instruction(text);
        }
    }

    void read_instruction(std::string text)
    {
        Instruction instruction;
        instruction.text = text;
        instruction.line = line_;
        instruction.file = files_.count(file_) ? files_.at(file_) : "kernel.cu";
        if (text[0] == '@') {
            const std::string guard = split_words(text)[0].substr(1);
            instruction.is_guard_negated = guard[0] == '!';
            const Register found = find_register(guard.substr(instruction.is_guard_negated));
            if (found.width != PREDICATE) fail("no predicate: " + text);
            instruction.guard = found.place;
            text = trim(text.substr(guard.size() + 1));
        }
        std::string name = split_words(text)[0];
        const std::vector<std::string> operands = split(text.substr(name.size()), ',');
        const std::vector<std::string> parts = split(name, '.');
        if (parts[0] == "ld" && parts.size() > 1 && parts[1] == "param") read_parameter(instruction, parts, operands);
        else if (parts[0] == "ld" || parts[0] == "st" || parts[0] == "atom" || parts[0] == "ldmatrix")
            read_access(instruction, parts, operands);
        else read_operation(instruction, name, operands);
        if (instruction.flow == Flow::BLOCK_BARRIER || instruction.flow == Flow::WARP_BARRIER) {
            instruction.barrier = kernel_.barriers.size();
            kernel_.barriers.push_back(kernel_.code.size());
        }
        kernel_.code.push_back(std::move(instruction));
    }

    void read_operation(Instruction& instruction, std::string name, std::vector<std::string> operands)
    {
        if (starts_with(name, "bra")) {
            if (name != "bra" && name != "bra.uni") fail("unknown instruction " + name);
            branches_.push_back({u32(kernel_.code.size()), operands.at(0)});
            instruction.flow = Flow::BRANCH;
            return;
        }
        if (starts_with(name, "mov.") && operands.at(0)[0] == '{') name = "unpack" + name.substr(3);
        else if (starts_with(name, "mov.") && operands.at(1)[0] == '{') name = "pack" + name.substr(3);
        const bool is_narrow = starts_with(name, "cvt.") && std::string("68").find(name.back()) != std::string::npos;
        if (is_narrow && find_register(operands.at(1)).width == W32) name += " of 32";
        const Operation* operation = find_operation(name);
        if (operation == nullptr) fail("unknown instruction " + name + " in: " + instruction.text);
        instruction.execute = operation->execute;
        instruction.flow = operation->flow;
        std::vector<std::string> flat;
        for (const std::string& operand : operands) {
            if (operand[0] == '{')
                for (const std::string& one : split(operand.substr(1, operand.size() - 2), ',')) flat.push_back(one);
            else if (operand.find('|') != std::string::npos)  // a value and a predicate
                for (const std::string& one : split(operand, '|')) flat.push_back(one);
            else flat.push_back(operand);
        }
        if (starts_with(name, "shfl.") && flat.size() == 5) flat.insert(flat.begin() + 1, "_");
        if (instruction.flow == Flow::BLOCK_BARRIER && (flat.size() != 1 || flat[0] != "0"))
            fail("unknown barrier " + instruction.text);
        if (flat.size() != operation->widths.size()) fail("another number of operands: " + instruction.text);
        for (size_t i = 0; i < flat.size(); ++i) add_operand(instruction, flat[i], operation->widths[i], false);
        if (instruction.flow == Flow::WARP_BARRIER || instruction.flow == Flow::COLLECTIVE)
            instruction.members = instruction.places[instruction.operand_count - 1];
    }

    void read_parameter(Instruction& instruction, const std::vector<std::string>& parts,
                        const std::vector<std::string>& operands)
    {
        const std::string inside = operands.at(1).substr(1, operands[1].size() - 2);
        const auto& all = kernel_.parameters;
        const auto found =
            std::find_if(all.begin(), all.end(), [&](const Parameter& one) { return one.name == inside; });
        if (found == all.end() || found->bytes != count_bytes(parts.back()))
            fail("unknown parameter: " + instruction.text);
        instruction.offset = found - all.begin();
        instruction.element_bytes = found->bytes;
        instruction.is_signed = parts.back()[0] == 's';
        instruction.execute = load_parameter;
        add_operand(instruction, operands[0], Width(std::max(found->bytes, 2u)), true);
    }

    void read_access(Instruction& instruction, const std::vector<std::string>& parts,
                     const std::vector<std::string>& operands)
    {
        instruction.space = Space::GENERIC;
        std::string name = parts[0];
        for (size_t i = 1; i + 1 < parts.size(); ++i) {
            const std::string& part = parts[i];
            if (part == "global") instruction.space = Space::GLOBAL;
            else if (part == "shared") instruction.space = Space::SHARED;
            else if (part == "v2" || part == "v4") instruction.element_count = part[1] - '0';
            else if (part == "nc" && parts[0] == "ld") continue;
            else if ((part == "relaxed" || part == "gpu") && parts[0] == "atom") continue;
            else name += "." + part;
        }
        const std::string& type = parts.back();
        const bool is_matrix = parts[0] == "ldmatrix";
        instruction.is_signed = type[0] == 's';
        instruction.element_bytes = is_matrix ? 16 : count_bytes(type);
        const AccessOperation operation = find_access(parts[0] == "atom" || is_matrix ? name + "." + type : name);
        if (operation.execute == nullptr)
            fail("unknown instruction " + split_words(instruction.text)[instruction.guard != NONE]);
        instruction.execute = operation.execute;
        if (is_matrix) instruction.flow = Flow::ALIGNED;
        const Width least = is_matrix ? W32 : Width(std::max<u32>(instruction.element_bytes, 2));
        for (const std::string& operand : operands) {
            if (operand[0] == '[') set_address(instruction, operand);
            else if (operand[0] != '{') add_operand(instruction, operand, least, true);
            else
                for (const std::string& one : split(operand.substr(1, operand.size() - 2), ','))
                    add_operand(instruction, one, least, true);
        }
        const int wanted = operation.operand_count == 0 ? instruction.element_count : operation.operand_count;
        if (instruction.operand_count != wanted) fail("another number of operands: " + instruction.text);
        const u32 bytes = instruction.element_bytes * instruction.element_count;
        if (instruction.space != Space::GLOBAL) kernel_.shared_granule = std::min<u32>(kernel_.shared_granule, bytes);
        if (instruction.space != Space::SHARED) kernel_.global_granule = std::min<u32>(kernel_.global_granule, bytes);
    }
};

void read_header(Kernel& kernel, const std::string& parameters, const std::string& rest)
{
    for (const std::string& parameter : split(parameters, ',')) {
        const std::vector<std::string> words = split_words(parameter);
        if (words.size() < 3 || words.back().find('[') != std::string::npos) fail("unknown parameter " + parameter);
        kernel.parameters.push_back({words.back(), count_bytes(words[1]), words[1][1] == 'f'});
    }
    const size_t at = rest.find(".maxntid");
    if (at == std::string::npos) return;
    kernel.max_threads = 1;
    std::istringstream sizes(rest.substr(at + 8));
    for (u32 size; sizes >> size;) {
        kernel.max_threads *= size;
        if (sizes.peek() != ',') break;
        sizes.ignore();
    }
}

}  // namespace

void fail(const std::string& text) { throw Fault{text}; }

std::map<std::string, Kernel> parse(const std::string& text)
{
    std::string clean;
    std::map<int, std::string> files;
    std::map<std::string, SharedArray> shared;
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) {
        const std::string bare = trim(line.substr(0, line.find("//")));
        const std::vector<std::string> words = split_words(bare);
        const std::string first = words.empty() ? "" : words[0];
        if (first == ".file") {  // its path has slashes
            const size_t start = line.find_last_of("/\"", line.rfind('"') - 1) + 1;
            files[std::stoi(words[1])] = line.substr(start, line.rfind('"') - start);
            continue;
        }
        clean += bare + (first == ".loc" ? ";\n" : "\n");
        if ((first == ".shared" || (first == ".extern" && words[1] == ".shared")) && bare.back() == ';')
            shared.insert(parse_shared(bare.substr(0, bare.size() - 1)));
    }
    std::map<std::string, Kernel> kernels;
    for (size_t at = 0; (at = clean.find(".entry ", at)) != std::string::npos;) {
        const size_t open = clean.find('(', at), close = clean.find(')', open), body = clean.find('{', close);
        size_t end = body + 1;
        for (int depth = 1; depth != 0 && end < clean.size(); ++end) depth += (clean[end] == '{') - (clean[end] == '}');
        Kernel kernel;
        kernel.name = trim(clean.substr(at + 7, open - at - 7));
        read_header(kernel, clean.substr(open + 1, close - open - 1), clean.substr(close, body - close));
        Parser(kernel, shared, files).read_body(clean.substr(body + 1, end - body - 2));
        kernels[kernel.name] = std::move(kernel);
        at = end;
    }
    if (kernels.empty()) fail("no kernel in this text");
    return kernels;
}

}  // namespace ptx
