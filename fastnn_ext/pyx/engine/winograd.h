/* Convolution with kernels of 3 x 3, a stride of 1 and many channels as Winograd's F(4x4, 3x3): Lavin and Gray,
 * "Fast algorithms for convolutional neural networks", CVPR 2016.
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
 *   winograd_source   B^T d B for the channels of one tile, which are side by side
 *   winograd_kernels  G g G^T for as many kernels as there are lanes
 *   winograd_multiply the 36 products
 *   winograd_result   A^T m A for the kernels of one tile
 *
 *   winograd_spread   how unlike the weights of a kernel are,
 *   winograd_sizes    how large the numbers of a pixel are,
 *   winograd_channels and those of a channel
 *   winograd_is_even  whether a tile's pixels are of similar size
 *
 *   winograd_gradient A y A^T for the kernels of one tile
 *   winograd_sum      one of the 36 products that are summed over tiles
 *   winograd_weight   G^T s G for as many channels of a kernel as there are lanes
 *
 * Transformed numbers are in 36 planes, the numbers of a point in each. An infinity or a NaN on the way to a tile is
 * in the tile, too: no step makes a finite number of one.
 */
#ifndef FASTNN_WINOGRAD_H
#define FASTNN_WINOGRAD_H

#include <math.h>

#include "conv.h"

enum {
    FNN_WINOGRAD_OUT = 4,    /* pixels of a tile of the result, in each direction */
    FNN_WINOGRAD_IN = 6,     /* and of the source */
    FNN_WINOGRAD_POINTS = 36,
    FNN_WINOGRAD_SUMMED = 32 /* products that are summed in registers: sums of more of them would round worse */
};

/* The errors of a sum of products are small enough where the unevenness of a tile times that of the kernel, each the
 * quotient of the largest of its channels and the mean of a window, is below this: see winograd_is_even. */
#define FNN_WINOGRAD_EVEN 3.2
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
