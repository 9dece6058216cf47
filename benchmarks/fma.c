// Multiply-adds of floats that stay in registers: twelve independent vectors a thread, as many as hide the latency.

#if defined(__AVX512F__)
#define WIDTH 16
#elif defined(__AVX__)
#define WIDTH 8
#else
#define WIDTH 4
#endif
#define VECTORS 12

typedef float vector __attribute__((vector_size(WIDTH * sizeof(float))));

// Each thread does `number` multiply-adds; their sum is returned, or else the compiler would leave them out.
float multiply_add(long number, int threads)
{
    float sum = 0;
#pragma omp parallel num_threads(threads) reduction(+ : sum)
    {
        vector total[VECTORS] = {0}, factor = {0};
        factor += 0.5f;
        for (int i = 0; i < VECTORS; i++)
            total[i] += (float)i; // were they equal, one would do
        for (long round = 0; round < number / (VECTORS * WIDTH); round++)
#pragma GCC unroll 12
            for (int i = 0; i < VECTORS; i++)
                total[i] = total[i] * factor + factor;
        for (int i = 0; i < VECTORS; i++)
            for (int lane = 0; lane < WIDTH; lane++)
                sum += total[i][lane];
    }
    return sum;
}
