/* Winograd's convolution F(4x4, 3x3) and its gradients; winograd.py says what it is for.

   Axes: N images, H rows, W columns, I input and O output channels. Everything is float32.
   Images are (N, H, W, I), results (N, H, W, O), weights (3, 3, I, O); `shape` is N, H, W, I, O.
   An image is cut into tiles of 4x4 results and the 6x6 pixels behind them. A transformed tile has 36 values for each
   channel; value p of all tiles is plane p, and in each plane the convolution is a product of matrices.
   No two threads write to one place and every sum has one order, so their number does not change a bit of the result. */

#include <omp.h>
#include <stdlib.h>

enum {
    KERNEL = 3,           /* the side of a kernel */
    STEP = 4,             /* pixels from one tile to the next, and the side of a tile of results */
    SIDE = 6,             /* of a tile of pixels, which overlaps the next by two, and of a transformed tile */
    PLANES = SIDE * SIDE, /* values of a transformed tile */
    POINT_ONE = SIDE + 1, /* a 1 in this plane alone becomes a tile of ones, and sums of tiles stand here */
    LANES = 16,           /* channels at a time */
    ALIGNMENT = 64,       /* bytes of a line of the cache */
};

/* Sums of a block of a product stay in registers: HEIGHT rows of LANES columns, as the processor has vectors. */
#if defined(__AVX512F__)
enum { WIDTH = 16, HEIGHT = 12 };
#elif defined(__AVX__)
enum { WIDTH = 8, HEIGHT = 6 };
#else
enum { WIDTH = 4, HEIGHT = 4 };
#endif
enum { VECTORS = LANES / WIDTH };
typedef float Vector __attribute__((vector_size(WIDTH * sizeof(float)), aligned(sizeof(float))));

/* A tile's places row by row, each with LANES channels. */
typedef float *const *Places;

#define INLINE static inline __attribute__((always_inline))
#define FOR_LANES _Pragma("omp simd") for (int c = 0; c < LANES; c++)

static long round_up(long number, long step)
{
    return (number + step - 1) / step * step;
}

/* ---- one row or column of a tile, whose places lie `step` apart, times a matrix of the paper */

typedef void Line(Places in, Places out, int step);

#define IN(i) in[(i) * step][c]
#define OUT(i) out[(i) * step][c]

/* B^T, 6 to 6 */
INLINE void input_line(Places in, Places out, int step)
{
    FOR_LANES {
        float even1 = IN(4) - 4 * IN(2), odd1 = IN(3) - 4 * IN(1);
        float even2 = IN(4) - IN(2), odd2 = 2 * (IN(3) - IN(1));
        OUT(0) = 4 * IN(0) - 5 * IN(2) + IN(4);
        OUT(1) = even1 + odd1;
        OUT(2) = even1 - odd1;
        OUT(3) = even2 + odd2;
        OUT(4) = even2 - odd2;
        OUT(5) = 4 * IN(1) - 5 * IN(3) + IN(5);
    }
}

/* A^T, 6 to 4 */
INLINE void output_line(Places in, Places out, int step)
{
    FOR_LANES {
        float sum1 = IN(1) + IN(2), difference1 = IN(1) - IN(2);
        float sum2 = IN(3) + IN(4), difference2 = IN(3) - IN(4);
        OUT(0) = IN(0) + sum1 + sum2;
        OUT(1) = difference1 + 2 * difference2;
        OUT(2) = sum1 + 4 * sum2;
        OUT(3) = difference1 + 8 * difference2 + IN(5);
    }
}

/* A, 4 to 6 */
INLINE void output_adjoint_line(Places in, Places out, int step)
{
    FOR_LANES {
        float even1 = IN(0) + IN(2), odd1 = IN(1) + IN(3);
        float even2 = IN(0) + 4 * IN(2), odd2 = 2 * IN(1) + 8 * IN(3);
        OUT(0) = IN(0);
        OUT(1) = even1 + odd1;
        OUT(2) = even1 - odd1;
        OUT(3) = even2 + odd2;
        OUT(4) = even2 - odd2;
        OUT(5) = IN(3);
    }
}

/* G, 3 to 6 */
INLINE void kernel_line(Places in, Places out, int step)
{
    FOR_LANES {
        float even1 = (IN(0) + IN(2)) / -6, odd1 = IN(1) / 6;
        float even2 = (IN(0) + 4 * IN(2)) / 24, odd2 = IN(1) / 12;
        OUT(0) = IN(0) / 4;
        OUT(1) = even1 - odd1;
        OUT(2) = even1 + odd1;
        OUT(3) = even2 + odd2;
        OUT(4) = even2 - odd2;
        OUT(5) = IN(2);
    }
}

/* G^T, 6 to 3 */
INLINE void kernel_adjoint_line(Places in, Places out, int step)
{
    FOR_LANES {
        float sum1 = (IN(1) + IN(2)) / -6, difference1 = (IN(2) - IN(1)) / 6;
        float sum2 = (IN(3) + IN(4)) / 24, difference2 = (IN(3) - IN(4)) / 12;
        OUT(0) = IN(0) / 4 + sum1 + sum2;
        OUT(1) = difference1 + difference2;
        OUT(2) = sum1 + 4 * sum2 + IN(5);
    }
}

/* ---- one tile */

/* Every column, then every row: from `wide` x `wide` places to `high` x `high` */
INLINE void transform(Line line, Places in, int wide, Places out, int high)
{
    float store[PLANES][LANES], *middle[PLANES];
    for (int i = 0; i < high * wide; i++)
        middle[i] = store[i];
    for (int column = 0; column < wide; column++)
        line(in + column, middle + column, wide);
    for (int row = 0; row < high; row++)
        line(middle + wide * row, out + high * row, 1);
}

/* The same where some of the LANES channels are not there: 0 where they are read, nothing where they are written. */
INLINE void transform_some(Line line, Places in, int wide, Places out, int high, long channels, int reads)
{
    float store[PLANES][LANES] = {{0}}, *all[PLANES];
    const int places = reads ? wide * wide : high * high;
    for (int i = 0; i < places; i++)
        all[i] = store[i];
    for (int i = 0; reads && i < places; i++)
        for (long c = 0; c < channels; c++)
            store[i][c] = in[i][c];
    transform(line, reads ? all : in, wide, reads ? out : all, high);
    for (int i = 0; !reads && i < places; i++)
        for (long c = 0; c < channels; c++)
            out[i][c] = store[i][c];
}

/* ---- a row of tiles */

/* Lines of channels, one for each tile: `line` floats apart, the planes `plane` floats apart */
typedef struct {
    float *values;
    long line, plane;
} Tiles;

static Tiles after(Tiles tiles, long num_tiles)
{
    tiles.values += num_tiles * tiles.line;
    return tiles;
}

static long count_tiles(long pixels)
{
    return round_up(pixels, STEP) / STEP;
}

/* The places of the pixels from (top, left) on; `spare` stands for each pixel outside of the image. */
INLINE void find_pixels(
    float **pixels, int side, float *image, const long *shape, long channels, long top, long left, float *spare)
{
    const long height = shape[1], width = shape[2];
    for (long y = top; y < top + side; y++)
        for (long x = left; x < left + side; x++) {
            int inside = y >= 0 && y < height && x >= 0 && x < width;
            *pixels++ = inside ? image + (y * width + x) * channels : spare;
        }
}

/* Row `row` of the tiles of all images; `reads` pixels, or writes them. Tiles of the input begin one pixel outside. */
INLINE void transform_row(
    Line line, int side, int reads, float *images, const long *shape, long channels, long row, Tiles tiles)
{
    const long rows = count_tiles(shape[1]), columns = count_tiles(shape[2]), margin = side == SIDE;
    float *image = images + row / rows * shape[1] * shape[2] * channels;
    for (long column = 0; column < columns; column++)
        for (long start = 0; start < channels; start += LANES) {
            float spare[LANES] = {0}, *pixels[PLANES], *planes[PLANES];
            const long top = STEP * (row % rows) - margin, left = STEP * column - margin;
            find_pixels(pixels, side, image + start, shape, channels, top, left, spare);
            for (int p = 0; p < PLANES; p++)
                planes[p] = tiles.values + p * tiles.plane + column * tiles.line + start;
            Places in = reads ? pixels : planes, out = reads ? planes : pixels;
            const int wide = reads ? side : SIDE, high = reads ? SIDE : side;
            if (channels - start >= LANES)
                transform(line, in, wide, out, high);
            else
                transform_some(line, in, wide, out, high, channels - start, reads);
        }
}

static void see_pixels(float *images, const long *shape, long row, Tiles tiles)
{
    transform_row(input_line, SIDE, 1, images, shape, shape[3], row, tiles);
}

static void write_results(float *results, const long *shape, long row, Tiles tiles)
{
    transform_row(output_line, STEP, 0, results, shape, shape[4], row, tiles);
}

static void see_gradients(float *gradients, const long *shape, long row, Tiles tiles)
{
    transform_row(output_adjoint_line, STEP, 1, gradients, shape, shape[4], row, tiles);
}

/* ---- kernels: 36 planes of matrices (I, O), whose columns lie in panels of LANES one after the other */

INLINE float *find_panel(float *kernels, const long *shape, long plane, long output)
{
    return kernels + (plane * round_up(shape[4], LANES) + output) * shape[3];
}

/* Kernels of a weight, or where this `reads` kernels, the gradient of a weight of theirs */
INLINE void transform_kernels(Line line, int reads, float *kernels, float *weight, const long *shape)
{
    const long inputs = shape[3], outputs = shape[4];
    #pragma omp for
    for (long input = 0; input < inputs; input++)
        for (long start = 0; start < outputs; start += LANES) {
            float *places[PLANES], *planes[PLANES];
            for (int i = 0; i < KERNEL * KERNEL; i++)
                places[i] = weight + (i * inputs + input) * outputs + start;
            for (int p = 0; p < PLANES; p++)
                planes[p] = find_panel(kernels, shape, p, start) + input * LANES;
            Places in = reads ? planes : places, out = reads ? places : planes;
            const int wide = reads ? SIDE : KERNEL, high = reads ? KERNEL : SIDE;
            if (outputs - start >= LANES)
                transform(line, in, wide, out, high);
            else
                transform_some(line, in, wide, out, high, outputs - start, !reads);
        }
}

/* ---- products of matrices */

/* A matrix of which (row, column) lies at values[row * down + column * right] */
typedef struct {
    const float *values;
    long down, right;
} Matrix;

/* result = left x right, or += where it is to `add`: `height` rows of LANES columns, `depth` products each */
INLINE void multiply_block(int height, Matrix left, Matrix right, float *result, long line, long depth, int add)
{
    Vector sums[HEIGHT][VECTORS];
    for (int i = 0; i < height; i++)
        for (int v = 0; v < VECTORS; v++)
            sums[i][v] = add ? *(Vector *)(result + i * line + v * WIDTH) : (Vector){0};
    for (long k = 0; k < depth; k++) {
        Vector row[VECTORS];
        for (int v = 0; v < VECTORS; v++)
            row[v] = *(const Vector *)(right.values + k * right.down + v * WIDTH);
        for (int i = 0; i < height; i++)
            for (int v = 0; v < VECTORS; v++)
                sums[i][v] += left.values[i * left.down + k * left.right] * row[v];
    }
    for (int i = 0; i < height; i++)
        for (int v = 0; v < VECTORS; v++)
            *(Vector *)(result + i * line + v * WIDTH) = sums[i][v];
}

static void multiply(long rows, Matrix left, Matrix right, float *result, long line, long depth, int add)
{
    for (; rows >= HEIGHT; rows -= HEIGHT, left.values += HEIGHT * left.down, result += HEIGHT * line)
        multiply_block(HEIGHT, left, right, result, line, depth, add);
    for (; rows >= 4; rows -= 4, left.values += 4 * left.down, result += 4 * line)
        multiply_block(4, left, right, result, line, depth, add);
    for (; rows > 0; rows--, left.values += left.down, result += line)
        multiply_block(1, left, right, result, line, depth, add);
}

/* ---- the convolution and its gradients */

static long max(long one, long other)
{
    return one > other ? one : other;
}

static long min(long one, long other)
{
    return one < other ? one : other;
}

/* How many rows of tiles are transformed at a time: few, so that they stay in a near cache until they are multiplied, but
   more where there are many channels, since all kernels are read anew for each time. */
static long choose_rows(const long *shape)
{
    return max(1, max(32, (shape[3] + shape[4]) / 4) / count_tiles(shape[2]));
}

/* Memory for `rows` of tiles; some is left free after each line and plane, or all of them would share a place in caches. */
static Tiles lay_out(const long *shape, long channels, long rows)
{
    const long line = round_up(channels, LANES) + LANES;
    return (Tiles){0, line, rows * count_tiles(shape[2]) * line + LANES};
}

static float *allocate(long floats)
{
    return aligned_alloc(ALIGNMENT, round_up(floats * sizeof(float), ALIGNMENT));
}

/* Images, padded by one pixel of zeros, and a weight to results, to which `bias` (O) is added unless it is 0.
   Returns whether there was memory enough. */
int convolve(float *images, float *weight, float *bias, float *results, const long *shape, int threads)
{
    const long inputs = shape[3], outputs = shape[4], all = round_up(outputs, LANES);
    const long rows = shape[0] * count_tiles(shape[1]), columns = count_tiles(shape[2]), step = choose_rows(shape);
    const Tiles in_layout = lay_out(shape, inputs, step), out_layout = lay_out(shape, outputs, step);
    const long floats = PLANES * (in_layout.plane + out_layout.plane); /* of a thread */
    float *memory = allocate(PLANES * inputs * all + threads * floats), *kernels = memory;
    if (!memory)
        return 0;
    #pragma omp parallel num_threads(threads)
    {
        transform_kernels(kernel_line, 0, kernels, weight, shape);
        Tiles in = in_layout, out = out_layout;
        in.values = kernels + PLANES * inputs * all + omp_get_thread_num() * floats;
        out.values = in.values + PLANES * in.plane;
        #pragma omp for schedule(dynamic)
        for (long first = 0; first < rows; first += step) {
            const long last = min(first + step, rows), num_tiles = (last - first) * columns;
            for (long row = first; row < last; row++)
                see_pixels(images, shape, row, after(in, (row - first) * columns));
            for (int p = 0; p < PLANES; p++) {
                const int add = bias && p == POINT_ONE;
                float *plane = out.values + p * out.plane;
                for (long tile = 0; add && tile < num_tiles; tile++)
                    for (long output = 0; output < outputs; output++)
                        plane[tile * out.line + output] = bias[output];
                const Matrix left = {in.values + p * in.plane, in.line, 1};
                for (long start = 0; start < outputs; start += LANES) {
                    const Matrix right = {find_panel(kernels, shape, p, start), LANES, 1};
                    multiply(num_tiles, left, right, plane + start, out.line, inputs, add);
                }
            }
            for (long row = first; row < last; row++)
                write_results(results, shape, row, after(out, (row - first) * columns));
        }
    }
    free(memory);
    return 1;
}

/* Images and the gradients of results to those of the weight and, unless it is 0, of the bias, which is given as zeros.
   Returns whether there was memory enough. */
int differentiate(float *images, float *gradients, float *weight, float *bias, const long *shape, int threads)
{
    const long inputs = shape[3], outputs = shape[4], all = round_up(outputs, LANES);
    const long rows = shape[0] * count_tiles(shape[1]), columns = count_tiles(shape[2]);
    const long step = min(max(1, rows), threads * choose_rows(shape)); /* between two of which threads wait */
    Tiles in = lay_out(shape, inputs, step), out = lay_out(shape, outputs, step);
    float *memory = allocate(PLANES * (inputs * all + in.plane + out.plane)), *kernels = memory;
    if (!memory)
        return 0;
    in.values = kernels + PLANES * inputs * all;
    out.values = in.values + PLANES * in.plane;
    #pragma omp parallel num_threads(threads)
    {
        for (long first = 0; first < rows; first += step) {
            const long last = min(first + step, rows), num_tiles = (last - first) * columns;
            #pragma omp for
            for (long row = first; row < last; row++) {
                see_pixels(images, shape, row, after(in, (row - first) * columns));
                see_gradients(gradients, shape, row, after(out, (row - first) * columns));
            }
            #pragma omp for collapse(2)
            for (int p = 0; p < PLANES; p++)
                for (long start = 0; start < outputs; start += LANES) {
                    const float *plane = out.values + p * out.plane + start;
                    const Matrix left = {in.values + p * in.plane, 1, in.line}, right = {plane, out.line, 1};
                    multiply(inputs, left, right, find_panel(kernels, shape, p, start), LANES, num_tiles, first > 0);
                    for (long tile = 0; bias && p == POINT_ONE && tile < num_tiles; tile++)
                        for (long c = 0; c < min(LANES, outputs - start); c++)
                            bias[start + c] += plane[tile * out.line + c];
                }
        }
        transform_kernels(kernel_adjoint_line, 1, kernels, weight, shape);
    }
    free(memory);
    return 1;
}
