// A product of matrices, tile by tile: what rbfrm_weights and rbfrm_rebuild share. 128 threads make one tile of the
// result, of TILE x TILE; each step brings STEP elements of the summed axis from global to shared memory.

#include "shared/tensor_cores.cuh"

#define HAS_TENSOR_CORES (NDP_RT_ELEMENT != 0)
#if NDP_RT_ELEMENT == 2 && defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
#error "rbfrm in bfloat16 needs compute capability 8.0; take float16 or float32"
#endif

namespace {

constexpr int PATCH = NDP_RT_PATCH;
constexpr int TILE = NDP_RT_TILE;
constexpr int ELEMENT_BYTES = sizeof(element);
constexpr int STEP = TILE == 64 && HAS_TENSOR_CORES ? 64 : 32;  // of the summed axis: two stages of it fit in 48 KB
constexpr int THREADS = 128;                                    // 2 x 2 warps, each with a quarter of the tile
constexpr int BLOCKS = TILE == 64 ? 3 : 2;                      // a multiprocessor has registers for, at least
constexpr int QUARTER = TILE / 2;
constexpr int VECTOR = 16 / ELEMENT_BYTES;  // elements of a vector of 16 bytes
// Rows in shared memory are 16 bytes longer than their elements: 8 neighbouring ones then begin in different banks.
constexpr int PITCH = STEP + VECTOR;
constexpr int WIDE_PITCH = TILE + VECTOR;
constexpr int STRIP_PITCH = QUARTER + 4;
constexpr int STRIP_ROWS = 32;

template <int bytes> struct Bytes;
template <> struct Bytes<4> { typedef unsigned type; };
template <> struct Bytes<8> { typedef uint2 type; };
template <> struct Bytes<16> { typedef uint4 type; };
typedef uint4 vector;
typedef typename Bytes<PATCH * ELEMENT_BYTES>::type patch_row;  // K neighbouring pixels of one channel

// Features [n, c, h, w] cut into patches, of which each has c K patch rows.
struct Geometry {
    int channels, height, width;

    __device__ int count_patch_rows() const { return channels * PATCH; }
    // The first element of a patch, counted through all images.
    __device__ size_t find_patch(int patch) const {
        const int across = width / PATCH, per_image = height / PATCH * across;
        const int in_image = patch % per_image;
        return (size_t)(patch / per_image) * channels * height * width + in_image / across * PATCH * width +
               in_image % across * PATCH;
    }
    // Where a patch row begins, from the patch's first element.
    __device__ int find_patch_row(int row) const { return row / PATCH * height * width + row % PATCH * width; }
};

template <class Unit> __device__ __forceinline__ void unpack(const Unit& unit, float* values)
{
    const element* elements = reinterpret_cast<const element*>(&unit);
#pragma unroll
    for (int e = 0; e < int(sizeof(Unit)) / ELEMENT_BYTES; ++e) values[e] = to_float(elements[e]);
}

template <class Unit> __device__ __forceinline__ Unit pack(const float* values)
{
    Unit unit;
    element* elements = reinterpret_cast<element*>(&unit);
#pragma unroll
    for (int e = 0; e < int(sizeof(Unit)) / ELEMENT_BYTES; ++e) elements[e] = to_element(values[e]);
    return unit;
}

// How the threads share a tile's rows: in each pass a warp takes 8 rows x 4 units of 4, 8 or 16 bytes. Its reads of
// global memory then fill whole sectors of 32 bytes, and its writes to shared memory reach every bank once.
constexpr int ROW_GROUPS = TILE / 32;
__device__ __forceinline__ int find_own_row(int group) { return threadIdx.x % 8 + 8 * (threadIdx.x / 32 + 4 * group); }
__device__ __forceinline__ int find_own_unit() { return threadIdx.x / 8 % 4; }  // and every fourth after it

enum class Total { NONE, SUM, SQUARES };

// One step of a tile's rows on its way to shared memory, and each row's total over all steps.
template <class Unit, Total total> struct StagedRows {
    static constexpr int COUNT = STEP * ELEMENT_BYTES / int(sizeof(Unit)) / 4;  // units of a row in one thread
    Unit units[ROW_GROUPS][COUNT];
    float totals[ROW_GROUPS] = {};

    // Writes it to tile [TILE][PITCH].
    __device__ void store(element* tile)
    {
#pragma unroll
        for (int r = 0; r < ROW_GROUPS; ++r)
#pragma unroll
            for (int u = 0; u < COUNT; ++u) {
                reinterpret_cast<Unit*>(tile + find_own_row(r) * PITCH)[find_own_unit() + 4 * u] = units[r][u];
                if (total == Total::NONE) continue;
                float values[sizeof(Unit) / ELEMENT_BYTES];
                unpack(units[r][u], values);
#pragma unroll
                for (float value : values) totals[r] += total == Total::SQUARES ? value * value : value;
            }
    }

    // Returns the total of find_own_row(group) to the four lanes that share the row.
    __device__ float reduce(int group) const
    {
        float sum = totals[group];
        sum += __shfl_xor_sync(0xffffffffu, sum, 8);
        sum += __shfl_xor_sync(0xffffffffu, sum, 16);
        return sum;
    }
};

// The three things that tiles are loaded from. load() reads a step and moves on to the next; addresses are carried
// along, since computing them anew for each step takes more instructions than the products.

template <Total total> struct MatrixRows : StagedRows<vector, total> {
    const char* rows[ROW_GROUPS];

    __device__ MatrixRows(const element* matrix, int first, int count, int pitch, int first_step)
    {
#pragma unroll
        for (int r = 0; r < ROW_GROUPS; ++r) {
            const size_t row = min(first + find_own_row(r), count - 1);
            const int column = first_step * STEP + find_own_unit() * VECTOR;
            rows[r] = reinterpret_cast<const char*>(matrix + row * pitch + column);
        }
    }

    __device__ void load()
    {
#pragma unroll
        for (int r = 0; r < ROW_GROUPS; ++r) {
#pragma unroll
            for (int u = 0; u < this->COUNT; ++u)
                this->units[r][u] = *reinterpret_cast<const vector*>(rows[r] + u * 4 * sizeof(vector));
            rows[r] += STEP * ELEMENT_BYTES;
        }
    }
};

// Patches of the features, zeros past the last channel. A thread stays in the same row of its patches: from one unit to
// the next, and from step to step, the channel alone moves.
struct FeatureRows : StagedRows<patch_row, Total::SQUARES> {
    static constexpr int UNIT_CHANNELS = 4 / PATCH, STEP_CHANNELS = STEP / PATCH / PATCH;
    const char* patches[ROW_GROUPS];
    size_t plane_bytes;
    int channels_left;

    __device__ FeatureRows(const element* features, const Geometry& shape, int first, int count, int first_step)
        : plane_bytes((size_t)shape.height * shape.width * ELEMENT_BYTES),
          channels_left(shape.channels - first_step * STEP_CHANNELS - find_own_unit() / PATCH)
    {
#pragma unroll
        for (int r = 0; r < ROW_GROUPS; ++r) {
            const size_t patch = shape.find_patch(min(first + find_own_row(r), count - 1));
            patches[r] = reinterpret_cast<const char*>(features + patch + shape.find_patch_row(find_own_unit())) +
                         first_step * STEP_CHANNELS * plane_bytes;
        }
    }

    __device__ void load()
    {
#pragma unroll
        for (int r = 0; r < ROW_GROUPS; ++r) {
#pragma unroll
            for (int u = 0; u < COUNT; ++u)
                units[r][u] = u * UNIT_CHANNELS < channels_left
                                  ? *reinterpret_cast<const patch_row*>(patches[r] + u * UNIT_CHANNELS * plane_bytes)
                                  : patch_row{};
            patches[r] += STEP_CHANNELS * plane_bytes;
        }
        channels_left -= STEP_CHANNELS;
    }
};

// STEP rows x TILE columns of a matrix, to tile [STEP][WIDE_PITCH] as they lie.
struct MatrixColumns {
    static constexpr int PER_ROW = TILE / VECTOR, ROWS = THREADS / PER_ROW, COUNT = STEP / ROWS;
    const element* column;
    int row, row_count, pitch;
    vector units[COUNT];

    __device__ MatrixColumns(const element* matrix, int first, int row_count, int pitch)
        : column(matrix + min(first + int(threadIdx.x) % PER_ROW * VECTOR, pitch - VECTOR)),
          row(threadIdx.x / PER_ROW), row_count(row_count), pitch(pitch)
    {
    }

    __device__ void load()
    {
#pragma unroll
        for (int u = 0; u < COUNT; ++u) {
            const size_t at = min(row + u * ROWS, row_count - 1);
            units[u] = *reinterpret_cast<const vector*>(column + at * pitch);
        }
        row += STEP;
    }

    __device__ void store(element* tile)
    {
        tile += threadIdx.x / PER_ROW * WIDE_PITCH + threadIdx.x % PER_ROW * VECTOR;
#pragma unroll
        for (int u = 0; u < COUNT; ++u) *reinterpret_cast<vector*>(tile + u * ROWS * WIDE_PITCH) = units[u];
    }
};

// How the second factor lies in shared memory: each of its columns as a row of PITCH, or its rows as rows of
// WIDE_PITCH.
enum class Second { COLUMNS, ROWS };

#if HAS_TENSOR_CORES
// A warp's quarter of the tile on tensor cores, 16 x 16 x 16 at a time, sums in float.
template <Second second> struct Quarter {
    static constexpr int SIDE = QUARTER / 16;
    float sums[SIDE][2 * SIDE][4];  // of 16 rows x 8 columns each

    __device__ void clear()
    {
#pragma unroll
        for (int i = 0; i < SIDE * SIDE * 8; ++i) (&sums[0][0][0])[i] = 0.0f;
    }

    __device__ void add_products(const element* left, const element* right, int first_row, int first_column)
    {
        constexpr bool is_wide = second == Second::ROWS;
        // Lanes point at rows of 8 elements: the left side's 16 rows twice, 8 elements apart; of the right side 8
        // columns at both halves of the summed axis, then the next 8 columns.
        const int lane = threadIdx.x % 32, near = lane % 16, far = lane / 16 * 8;
        const unsigned own_left = find_shared_address(left + (first_row + near) * PITCH + far);
        const unsigned own_right = find_shared_address(
            right + (is_wide ? near * WIDE_PITCH + first_column + far
                             : (first_column + lane % 8 + far) * PITCH + lane / 8 % 2 * 8));
#pragma unroll
        for (int k = 0; k < STEP; k += 16) {
            unsigned a[SIDE][4];
#pragma unroll
            for (int i = 0; i < SIDE; ++i)
                load_matrices<false>(a[i], own_left + (i * 16 * PITCH + k) * ELEMENT_BYTES);
#pragma unroll
            for (int j = 0; j < SIDE; ++j) {
                unsigned b[4];
                const int at = is_wide ? k * WIDE_PITCH + j * 16 : j * 16 * PITCH + k;
                load_matrices<is_wide>(b, own_right + at * ELEMENT_BYTES);
#pragma unroll
                for (int i = 0; i < SIDE; ++i) {
                    add_product(sums[i][2 * j], a[i], b);
                    add_product(sums[i][2 * j + 1], a[i], b + 2);
                }
            }
        }
    }

    // Writes 32 rows of the quarter, from row 32 i, to strip [32][STRIP_PITCH].
    __device__ void store_strip(int i, float* strip) const
    {
        const int lane = threadIdx.x % 32;
        strip += lane / 4 * STRIP_PITCH + lane % 4 * 2;
#pragma unroll
        for (int part = 0; part < 4; ++part)  // 8 rows each
#pragma unroll
            for (int j = 0; j < 2 * SIDE; ++j) {
                const float* pair = sums[2 * i + part / 2][j] + part % 2 * 2;
                *reinterpret_cast<float2*>(strip + part * 8 * STRIP_PITCH + j * 8) = make_float2(pair[0], pair[1]);
            }
    }
};
#else
__device__ __forceinline__ void read_four(const float* from, float* values)
{
    *reinterpret_cast<float4*>(values) = *reinterpret_cast<const float4*>(from);
}

// A warp's quarter of the tile, 32 x 32, by multiply-adds in float: a lane owns rows lane % 8 + 8 i and 8 columns.
template <Second second> struct Quarter {
    static_assert(QUARTER == 32, "float32 has tiles of 64");
    float sums[4][8];

    // Four neighbouring columns where those lie in a row, for reads of 16 bytes; else 4 apart, for reads of different
    // banks.
    static __device__ int find_own_column(int j)
    {
        const int lane_column = threadIdx.x % 32 / 8;
        return second == Second::ROWS ? lane_column * 4 + j / 4 * 16 + j % 4 : lane_column + 4 * j;
    }

    __device__ void clear()
    {
#pragma unroll
        for (int i = 0; i < 4; ++i)
#pragma unroll
            for (int j = 0; j < 8; ++j) sums[i][j] = 0.0f;
    }

    __device__ void add_products(const float* left, const float* right, int first_row, int first_column)
    {
        left += (first_row + threadIdx.x % 8) * PITCH;
#pragma unroll 2
        for (int k = 0; k < STEP; k += 4) {
            __align__(16) float a[4][4], b[8][4];
#pragma unroll
            for (int i = 0; i < 4; ++i) read_four(left + 8 * i * PITCH + k, a[i]);
            if (second == Second::COLUMNS) {
#pragma unroll
                for (int j = 0; j < 8; ++j) read_four(right + (first_column + find_own_column(j)) * PITCH + k, b[j]);
            } else {
#pragma unroll
                for (int e = 0; e < 4; ++e) {
                    __align__(16) float row[8];
                    read_four(right + (k + e) * WIDE_PITCH + first_column + find_own_column(0), row);
                    read_four(right + (k + e) * WIDE_PITCH + first_column + find_own_column(4), row + 4);
#pragma unroll
                    for (int j = 0; j < 8; ++j) b[j][e] = row[j];
                }
            }
#pragma unroll
            for (int e = 0; e < 4; ++e)
#pragma unroll
                for (int i = 0; i < 4; ++i)
#pragma unroll
                    for (int j = 0; j < 8; ++j) sums[i][j] = fmaf(a[i][e], b[j][e], sums[i][j]);
        }
    }

    // Writes the quarter, which is one strip, to strip [32][STRIP_PITCH].
    __device__ void store_strip(int, float* strip) const
    {
#pragma unroll
        for (int i = 0; i < 4; ++i)
#pragma unroll
            for (int j = 0; j < 8; ++j)
                strip[(threadIdx.x % 8 + 8 * i) * STRIP_PITCH + find_own_column(j)] = sums[i][j];
    }
};
#endif

constexpr int LEFT_SIZE = TILE * PITCH;
constexpr int RIGHT_SIZE = LEFT_SIZE > STEP * WIDE_PITCH ? LEFT_SIZE : STEP * WIDE_PITCH;

struct SharedMemory {
    element stages[2][LEFT_SIZE + RIGHT_SIZE];  // after the last step the warps' strips lie here
    float factors[TILE];                        // what each row of the result is multiplied by
    size_t patches[TILE];                       // where each row's patch begins in the result
};
static_assert(sizeof(SharedMemory) <= 48 * 1024, "what every architecture allows without being asked");
static_assert(PITCH * ELEMENT_BYTES % 16 == 0 && WIDE_PITCH * ELEMENT_BYTES % 16 == 0, "whole vectors");
static_assert(4 * STRIP_ROWS * STRIP_PITCH * sizeof(float) <= sizeof(SharedMemory::stages), "the strips fit");

// Multiplies a tile: `quarter` gets the sums over step_count steps. While one step is multiplied the next is on its
// way; one barrier a step is enough, since the stage that is written was multiplied before the last barrier.
template <class Left, class Right, class Sums>
__device__ __forceinline__ void multiply(Left& left, Right& right, int step_count, Sums& quarter, SharedMemory& shared)
{
    const int warp = threadIdx.x / 32;
    quarter.clear();
    left.load();
    right.load();
    left.store(shared.stages[0]);
    right.store(shared.stages[0] + LEFT_SIZE);
    __syncthreads();
    for (int step = 0; step < step_count; ++step) {
        const element* stage = shared.stages[step % 2];
        element* next = shared.stages[(step + 1) % 2];
        const bool has_next = step + 1 < step_count;
        if (has_next) {
            left.load();
            right.load();
        }
        quarter.add_products(stage, stage + LEFT_SIZE, warp / 2 * QUARTER, warp % 2 * QUARTER);
        if (has_next) {
            left.store(next);
            right.store(next + LEFT_SIZE);
        }
        __syncthreads();
    }
}

// Calls use(row, column, values) for every run of `run` neighbouring values of a warp's quarter, by way of the warp's
// strip; row and column are the tile's. As in loading, a warp takes 8 rows x 4 runs in each pass.
template <int run, class Sums, class Use>
__device__ __forceinline__ void visit_runs(const Sums& quarter, SharedMemory& shared, Use use)
{
    typedef typename Bytes<run == 2 ? 8 : 16>::type piece;
    constexpr int PIECES = run * sizeof(float) / sizeof(piece);
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    float* strip = reinterpret_cast<float*>(shared.stages) + warp * STRIP_ROWS * STRIP_PITCH;
#pragma unroll
    for (int i = 0; i < QUARTER / STRIP_ROWS; ++i) {
        quarter.store_strip(i, strip);
        __syncwarp();
#pragma unroll 1  // the code is long enough
        for (int group = 0; group < STRIP_ROWS / 8; ++group)
#pragma unroll 2
            for (int pass = 0; pass < QUARTER / run / 4; ++pass) {
                const int row = lane % 8 + 8 * group, column = (lane / 8 + 4 * pass) * run;
                __align__(16) float values[run];
#pragma unroll
                for (int p = 0; p < PIECES; ++p)
                    reinterpret_cast<piece*>(values)[p] =
                        reinterpret_cast<const piece*>(strip + row * STRIP_PITCH + column)[p];
                use(warp / 2 * QUARTER + i * STRIP_ROWS + row, warp % 2 * QUARTER + column, values);
            }
        if (i + 1 < QUARTER / STRIP_ROWS) __syncwarp();
    }
}

}  // namespace
