/* The layers of a keyword spotter (KWS) or of a ResNet-8, computed by CMSIS-NN's functions for int8, RUNS times.
   Weights and inputs are arbitrary: what is counted does not depend on them. */
#include <stddef.h>
#include <stdint.h>

#include "arm_nnfunctions.h"

static int8_t tensors[3][20000] __attribute__((aligned(16)));
static int8_t weights[40000] __attribute__((aligned(16))), scratch[60000] __attribute__((aligned(16)));
static int32_t bias[64], multipliers[64], shifts[64], sums[64];
static const cmsis_nn_activation all_codes = {-128, 127};

typedef struct {
    int size[2], stride, top, left, in[3], out[3], depthwise, from, to; /* heights first; from, to: tensors */
} Layer;

static void check(arm_cmsis_nn_status status) {
    if (status) __builtin_trap();
}

static void layer(const Layer *l) {
    cmsis_nn_dims in = {1, l->in[0], l->in[1], l->in[2]}, out = {1, l->out[0], l->out[1], l->out[2]};
    cmsis_nn_dims biases = {1, 1, 1, l->out[2]};
    cmsis_nn_per_channel_quant_params scales = {multipliers, shifts};
    cmsis_nn_context context = {scratch, sizeof scratch};
    cmsis_nn_tile stride = {l->stride, l->stride}, padding = {l->left, l->top}, dilation = {1, 1};
    if (l->depthwise) {
        cmsis_nn_dims window = {1, l->size[0], l->size[1], l->out[2]};
        cmsis_nn_dw_conv_params with = {128, -128, 1, stride, padding, dilation, all_codes};
        check(arm_depthwise_conv_wrapper_s8(&context, &with, &scales, &in, tensors[l->from], &window, weights, &biases,
                                            bias, &out, tensors[l->to]));
    } else {
        cmsis_nn_dims window = {l->out[2], l->size[0], l->size[1], l->in[2]};
        cmsis_nn_conv_params with = {128, -128, stride, padding, dilation, all_codes};
        check(arm_convolve_wrapper_s8(&context, &with, &scales, &in, tensors[l->from], &window, weights, &biases, bias,
                                      &out, tensors[l->to]));
    }
}

static void pool(int from, int to, int height, int width, int channels) {
    cmsis_nn_dims in = {1, height, width, channels}, window = {1, height, width, 1}, out = {1, 1, 1, channels};
    cmsis_nn_pool_params with = {{width, height}, {0, 0}, all_codes};
    cmsis_nn_context context = {scratch, sizeof scratch};
    check(arm_avgpool_s8(&context, &with, &in, tensors[from], &window, &out, tensors[to]));
}

static void dense(int from, int to, int inputs, int outputs) {
    cmsis_nn_dims in = {1, 1, 1, inputs}, window = {inputs, 1, 1, outputs}, out = {1, 1, 1, outputs};
    cmsis_nn_fc_params with = {128, 0, -128, all_codes};
    cmsis_nn_per_tensor_quant_params scale = {1 << 30, -6};
    cmsis_nn_context context = {sums, sizeof sums};
    check(arm_fully_connected_s8(&context, &with, &scale, &in, tensors[from], &window, weights, &out, bias, &out,
                                 tensors[to]));
}

#ifdef KWS
static const Layer first = {{10, 4}, 2, 4, 1, {49, 10, 1}, {25, 5, 64}, 0, 0, 1};
static const Layer depthwise = {{3, 3}, 1, 1, 1, {25, 5, 64}, {25, 5, 64}, 1, 1, 2};
static const Layer pointwise = {{1, 1}, 1, 0, 0, {25, 5, 64}, {25, 5, 64}, 0, 2, 1};

static void model(void) {
    layer(&first);
    for (int block = 0; block < 4; block++) layer(&depthwise), layer(&pointwise);
    pool(1, 0, 25, 5, 64);
    dense(0, 1, 64, 12);
}
#else
static const Layer layers[] = {
    {{3, 3}, 1, 1, 1, {32, 32, 3}, {32, 32, 16}, 0, 0, 1},  {{3, 3}, 1, 1, 1, {32, 32, 16}, {32, 32, 16}, 0, 1, 2},
    {{3, 3}, 1, 1, 1, {32, 32, 16}, {32, 32, 16}, 0, 2, 0}, {{3, 3}, 2, 0, 0, {32, 32, 16}, {16, 16, 32}, 0, 1, 0},
    {{3, 3}, 1, 1, 1, {16, 16, 32}, {16, 16, 32}, 0, 0, 2}, {{1, 1}, 2, 0, 0, {32, 32, 16}, {16, 16, 32}, 0, 1, 0},
    {{3, 3}, 2, 0, 0, {16, 16, 32}, {8, 8, 64}, 0, 1, 0},   {{3, 3}, 1, 1, 1, {8, 8, 64}, {8, 8, 64}, 0, 0, 2},
    {{1, 1}, 2, 0, 0, {16, 16, 32}, {8, 8, 64}, 0, 1, 0},
};

static void add(int a, int b, int to, int count) {
    check(arm_elementwise_add_s8(tensors[a], tensors[b], 128, 1 << 30, 0, 128, 1 << 30, 0, 20, tensors[to], -128, 1 << 30,
                                 -19, -128, 127, count));
}

static void model(void) {
    for (int i = 0; i < 3; i++) layer(&layers[i]);
    add(0, 1, 1, 32 * 32 * 16);
    for (int i = 3; i < 6; i++) layer(&layers[i]);
    add(0, 2, 1, 16 * 16 * 32);
    for (int i = 6; i < 9; i++) layer(&layers[i]);
    add(0, 2, 1, 8 * 8 * 64);
    pool(1, 0, 8, 8, 64);
    dense(0, 1, 64, 10);
}
#endif

int main(void) {
    for (size_t i = 0; i < sizeof weights; i++) weights[i] = (int8_t)(i * 37 ^ i >> 3);
    for (size_t i = 0; i < sizeof tensors[0]; i++) tensors[0][i] = (int8_t)(i * 59 ^ i >> 4);
    for (int i = 0; i < 64; i++) bias[i] = 16 * i, multipliers[i] = (1 << 30) + 999983 * i, shifts[i] = -7;
    for (int run = 0; run < RUNS; run++) model();
    return 0;
}
