/* The transforms of Winograd's convolution F(4x4, 3x3); winograd.py says what they are for.

   Axes: N images, H rows, W columns, C channels; T = N * ceil(H/4) * ceil(W/4) tiles. Everything is float32.
   Images are (N, H, W, C). Their tiles are 36 planes, (36, T, C): plane 6i+j holds value i, j of every tile.
   Kernels (K, 3, 3, C) are taken for K images of one tile each.
   `shape` is N, H, W, C. No two threads write to one place, so their number does not change a bit of the result. */

#include <string.h>

enum {
    KERNEL = 3, /* the side of a kernel */
    STEP = 4,   /* pixels from one tile to the next, and the side of a tile of the output */
    SIDE = 6,   /* of a tile of the input, which overlaps the next by two pixels, and of a transformed tile */
    BLOCK = 64, /* channels at a time, so that all of a tile's values stay in the nearest cache */
};

/* A tile's places row by row, each a vector of up to BLOCK channels. */
typedef float *const *Vectors;

#define INLINE static inline __attribute__((always_inline))
#define FOR_CHANNELS _Pragma("omp simd") for (int c = 0; c < channels; c++)

/* ---- one row or column of a tile, whose vectors lie `step` apart, times a matrix of the paper */

typedef void Line(Vectors in, Vectors out, int step, int channels);

#define IN(i) in[(i) * step][c]
#define OUT(i) out[(i) * step][c]

/* B^T, 6 to 6 */
INLINE void input_line(Vectors in, Vectors out, int step, int channels)
{
    FOR_CHANNELS {
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

/* B, 6 to 6 */
INLINE void input_adjoint_line(Vectors in, Vectors out, int step, int channels)
{
    FOR_CHANNELS {
        float sum1 = IN(1) + IN(2), difference1 = IN(1) - IN(2);
        float sum2 = IN(3) + IN(4), difference2 = 2 * (IN(3) - IN(4));
        OUT(0) = 4 * IN(0);
        OUT(1) = 4 * (IN(5) - difference1) - difference2;
        OUT(2) = -5 * IN(0) - 4 * sum1 - sum2;
        OUT(3) = difference1 + difference2 - 5 * IN(5);
        OUT(4) = IN(0) + sum1 + sum2;
        OUT(5) = IN(5);
    }
}

/* A^T, 6 to 4 */
INLINE void output_line(Vectors in, Vectors out, int step, int channels)
{
    FOR_CHANNELS {
        float sum1 = IN(1) + IN(2), difference1 = IN(1) - IN(2);
        float sum2 = IN(3) + IN(4), difference2 = IN(3) - IN(4);
        OUT(0) = IN(0) + sum1 + sum2;
        OUT(1) = difference1 + 2 * difference2;
        OUT(2) = sum1 + 4 * sum2;
        OUT(3) = difference1 + 8 * difference2 + IN(5);
    }
}

/* A, 4 to 6 */
INLINE void output_adjoint_line(Vectors in, Vectors out, int step, int channels)
{
    FOR_CHANNELS {
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
INLINE void kernel_line(Vectors in, Vectors out, int step, int channels)
{
    FOR_CHANNELS {
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
INLINE void kernel_adjoint_line(Vectors in, Vectors out, int step, int channels)
{
    FOR_CHANNELS {
        float sum1 = (IN(1) + IN(2)) / -6, difference1 = (IN(2) - IN(1)) / 6;
        float sum2 = (IN(3) + IN(4)) / 24, difference2 = (IN(3) - IN(4)) / 12;
        OUT(0) = IN(0) / 4 + sum1 + sum2;
        OUT(1) = difference1 + difference2;
        OUT(2) = sum1 + 4 * sum2 + IN(5);
    }
}

/* ---- one tile: every column, then every row */

/* From `wide` x `wide` vectors to `high` x `high` */
INLINE void transform(Line line, Vectors in, int wide, Vectors out, int high, int channels)
{
    float store[SIDE * SIDE][BLOCK], *middle[SIDE * SIDE];
    for (int i = 0; i < high * wide; i++)
        middle[i] = store[i];
    for (int column = 0; column < wide; column++)
        line(in + column, middle + column, wide, channels);
    for (int row = 0; row < high; row++)
        line(middle + wide * row, out + high * row, 1, channels);
}

/* Pixels and planes are the vectors of one tile in the image and in the planes. */
typedef void Tile(Vectors pixels, Vectors planes, int channels);

INLINE void input_tile(Vectors pixels, Vectors planes, int channels)
{
    transform(input_line, pixels, SIDE, planes, SIDE, channels);
}

INLINE void input_adjoint_tile(Vectors pixels, Vectors planes, int channels)
{
    float store[SIDE * SIDE][BLOCK], *sums[SIDE * SIDE];
    for (int i = 0; i < SIDE * SIDE; i++)
        sums[i] = store[i];
    transform(input_adjoint_line, planes, SIDE, sums, SIDE, channels);
    for (int i = 0; i < SIDE * SIDE; i++) {
        float *pixel = pixels[i];
        const float *sum = store[i];
        FOR_CHANNELS pixel[c] += sum[c];
    }
}

INLINE void output_tile(Vectors pixels, Vectors planes, int channels)
{
    transform(output_line, planes, SIDE, pixels, STEP, channels);
}

INLINE void output_adjoint_tile(Vectors pixels, Vectors planes, int channels)
{
    transform(output_adjoint_line, pixels, STEP, planes, SIDE, channels);
}

INLINE void kernel_tile(Vectors pixels, Vectors planes, int channels)
{
    transform(kernel_line, pixels, KERNEL, planes, SIDE, channels);
}

INLINE void kernel_adjoint_tile(Vectors pixels, Vectors planes, int channels)
{
    transform(kernel_adjoint_line, planes, SIDE, pixels, KERNEL, channels);
}

/* ---- many tiles */

static long count_tiles(long pixels)
{
    return (pixels + STEP - 1) / STEP;
}

/* The vectors of the tile whose first pixel is (top, left); `spare` stands for each pixel outside of the image. */
INLINE void find_pixels(float **pixels, int side, float *image, const long *shape, long top, long left, float *spare)
{
    const long height = shape[1], width = shape[2], channels = shape[3];
    for (long y = top; y < top + side; y++)
        for (long x = left; x < left + side; x++) {
            int inside = y >= 0 && y < height && x >= 0 && x < width;
            *pixels++ = inside ? image + (y * width + x) * channels : spare;
        }
}

/* Row `row` of the tiles of image `n`. Tiles of the input begin one pixel outside, for the padding. */
INLINE void transform_row(Tile tile, int side, float *images, float *planes, const long *shape, long n, long row)
{
    const long channels = shape[3], rows = count_tiles(shape[1]), columns = count_tiles(shape[2]);
    const long margin = side == SIDE, plane_size = shape[0] * rows * columns * channels;
    float *image = images + n * shape[1] * shape[2] * channels;
    for (long column = 0; column < columns; column++) {
        float *first = planes + ((n * rows + row) * columns + column) * channels;
        for (long start = 0; start < channels; start += BLOCK) {
            float spare[BLOCK] = {0}, *pixel[SIDE * SIDE], *plane[SIDE * SIDE];
            find_pixels(pixel, side, image + start, shape, STEP * row - margin, STEP * column - margin, spare);
            for (int i = 0; i < SIDE * SIDE; i++)
                plane[i] = first + i * plane_size + start;
            tile(pixel, plane, channels - start < BLOCK ? (int)(channels - start) : BLOCK);
        }
    }
}

#define FOR_ROWS                                                 \
    _Pragma("omp parallel for collapse(2) num_threads(threads)") \
    for (long n = 0; n < shape[0]; n++)                          \
        for (long row = 0; row < count_tiles(shape[1]); row++)

/* Images, padded by one pixel of zeros, to tiles B^T d B */
void input_tiles(float *images, float *planes, const long *shape, int threads)
{
    FOR_ROWS transform_row(input_tile, SIDE, images, planes, shape, n, row);
}

/* The gradient of input_tiles: tiles to images, the sum of B d B^T where tiles overlap */
void input_tiles_adjoint(float *images, float *planes, const long *shape, int threads)
{
    const long image_size = shape[1] * shape[2] * shape[3];
    #pragma omp parallel for num_threads(threads)
    for (long n = 0; n < shape[0]; n++) {
        memset(images + n * image_size, 0, image_size * sizeof(float));
        for (long row = 0; row < count_tiles(shape[1]); row++)
            transform_row(input_adjoint_tile, SIDE, images, planes, shape, n, row);
    }
}

/* Tiles to images A^T m A, cut at the border */
void output_tiles(float *images, float *planes, const long *shape, int threads)
{
    FOR_ROWS transform_row(output_tile, STEP, images, planes, shape, n, row);
}

/* The gradient of output_tiles: images to tiles A g A^T */
void output_tiles_adjoint(float *images, float *planes, const long *shape, int threads)
{
    FOR_ROWS transform_row(output_adjoint_tile, STEP, images, planes, shape, n, row);
}

/* Kernels to tiles G k G^T */
void kernel_tiles(float *kernels, float *planes, const long *shape, int threads)
{
    FOR_ROWS transform_row(kernel_tile, KERNEL, kernels, planes, shape, n, row);
}

/* The gradient of kernel_tiles: tiles to kernels G^T t G */
void kernel_tiles_adjoint(float *kernels, float *planes, const long *shape, int threads)
{
    FOR_ROWS transform_row(kernel_adjoint_tile, KERNEL, kernels, planes, shape, n, row);
}
