/* Convolution with kernels of 3 x 3 and many channels in Winograd's form: Lavin and Gray, "Fast algorithms for
 * convolutional neural networks", CVPR 2016. With a stride of 1 it is F(4x4, 3x3).
 *
 * The result is cut into tiles of 4 x 4 pixels, each of which comes from 6 x 6 pixels of the source. A tile is
 *
 *     A^T [(G g G^T) * (B^T d B)] A
 *
 * for a source tile d and a kernel g, with * for the product of the 36 pairs of numbers. Summed over channels, that
 * product is 36 products of matrices, [tile, channel] by [channel, kernel], and takes 36 multiplications for 16
 * pixels instead of 144. The gradient of the kernels is the transposed form of the same, G^T [(A y A^T) * (B^T d B)] G
 * summed over tiles, for a tile y of the gradient of the result.
 *
 * The matrices are those of the points 0, +-sqrt(1/2), +-sqrt(2) and infinity, which come in pairs p and 1/p: the
 * usual ones, 0, +-1, +-2 and infinity, round three times as badly. One of the six numbers of a tile is at each
 * point.
 *
 * With a stride of 2 a tile of 2 x 2 pixels comes from 5 x 5. Along a line, the first and the last weight of a kernel meet
 * d0, d2 and d4: that is F(2, 2), three multiplications for four. The one between meets d1 and d3, and what it adds to a
 * pixel of the result can be added to a product that only this pixel gets:
 *
 *     s0 = (d0 - d2) g0 + d1 g1     s1 = d2 (g0 + g2)     s2 = (d4 - d2) g2 + d3 g1
 *     y0 = s0 + s1                  y1 = s1 + s2
 *
 * So 5 numbers of the source and 4 of a kernel make 3 sums, and in both directions 25 and 16 make 9, of one, two or four
 * products of matrices each: 25 multiplications for 4 pixels instead of 36.
 *
 *   winograd_source   B^T d B for the channels of one tile, which are side by side
 *   winograd_kernels  G g G^T for as many kernels as there are lanes
 *   winograd_multiply the 36 products, or those of a stride of 2
 *   winograd_result   A^T m A for the kernels of one tile
 *
 *   winograd_spread   how unlike the weights of a kernel are,
 *   winograd_sizes    how large the numbers of a pixel are,
 *   winograd_channels and those of a channel
 *   winograd_is_even  whether a tile's pixels are of similar size
 *
 * and with a stride of 1
 *
 *   winograd_gradient A y A^T for the kernels of one tile
 *   winograd_sum      one of the 36 products that are summed over tiles
 *   winograd_weight   G^T s G for as many channels of a kernel as there are lanes
 *
 * Transformed numbers are in planes, the numbers of a point in each. An infinity or a NaN on the way to a tile is
 * in the tile, too: no step makes a finite number of one.
 */
#ifndef FASTNN_WINOGRAD_H
#define FASTNN_WINOGRAD_H

#include <math.h>

#include "conv.h"

/* What is different with a stride of 1 or 2, in each of the two directions. */
typedef struct {
    int stride;
    int out, in;               /* pixels of a tile of the result and of the source */
    int source, kernels, sums; /* transformed numbers of a tile, of a kernel, and of what they make: sum i is that of */
    int terms[6];              /* so many products, of */
    int of_source[6][2];       /* these of the source */
    int of_kernel[6][2];       /* and these of the kernel */
    int summed;                /* products that are summed in registers, since sums of more of them would round worse */
    int tile_cost, kernel_cost; /* of a vector of their transforms at one point, in multiplications of vectors */
    /* The errors of a sum of products are small enough where the unevenness of a tile times that of the kernel, each the
     * quotient of the largest of its channels and the mean of a window, is below this: see winograd_is_even. */
    double even;
} fnn_winograd_form;

static const fnn_winograd_form fnn_winograd_forms[] = {
    {
        .stride = 1, .out = 4, .in = 6, .source = 6, .kernels = 6, .sums = 6, .terms = {1, 1, 1, 1, 1, 1},
        .of_source = {{0}, {1}, {2}, {3}, {4}, {5}}, .of_kernel = {{0}, {1}, {2}, {3}, {4}, {5}},
        .summed = 32, .tile_cost = 12, .kernel_cost = 6, .even = 3.2,
    },
    {
        .stride = 2, .out = 2, .in = 5, .source = 5, .kernels = 4, .sums = 3, .terms = {2, 1, 2},
        .of_source = {{0, 1}, {2}, {3, 4}}, .of_kernel = {{0, 1}, {2}, {3, 1}},
        .summed = 128, .tile_cost = 6, .kernel_cost = 15, .even = 5,
    },
};

#define FNN_WINOGRAD_EVEN_KERNEL 12. /* and that of a kernel below this: normal weights of 64 channels have 8 */
/* A channel counts as the sum of its absolute values over the largest. Sums over tiles are exact enough where the
 * product of two such counts is that many times the number of pixels, and neither is so small that the two channels may
 * hardly meet: after a relu, a kernel is alive in some images or some corners of them. */
#define FNN_WINOGRAD_EVEN_SUMS 8.
#define FNN_WINOGRAD_LEAST_COUNT 128. /* or the 16th part of the pixels */
#define FNN_WINOGRAD_LIMIT_STEP 1.2 /* from one limit of the source's counts that is tried to the next */

/* The least square that is surely not short of what numbers too small for it would add. */
#define FNN_LEAST_SQUARE (sizeof(FNN_REAL) == 4 ? 1e-30 : 1e-290)

/* The points, and their cubes. */
#define FNN_WINOGRAD_P 0.70710678118654752440
#define FNN_WINOGRAD_Q 1.41421356237309504880
#define FNN_WINOGRAD_P3 0.35355339059327376220
#define FNN_WINOGRAD_Q3 2.82842712474619009760

#define FNN_REAL float
#define FNN_LANES FNN_LANES_F32
#define FNN_NAME(name) fnn_##name##_f32
#include "winograd_body.h"

#define FNN_REAL double
#define FNN_LANES FNN_LANES_F64
#define FNN_NAME(name) fnn_##name##_f64
#include "winograd_body.h"

#endif
