/* Runs a model of one float32 input and one output in ONNX Runtime, N times, on one thread.

     run_onnx_runtime MODEL N INPUT OUTPUT DIMENSION... <input >output

   INPUT and OUTPUT are names; standard input holds the values of the input. The wheel of ONNX Runtime has no
   header, so functions are taken from the table of its C API by their number, which never changes. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    GET_ERROR_MESSAGE = 2,
    CREATE_ENV = 3,
    CREATE_SESSION = 7,
    RUN = 9,
    CREATE_SESSION_OPTIONS = 10,
    SET_INTRA_OP_THREADS = 24,
    SET_INTER_OP_THREADS = 25,
    CREATE_TENSOR_WITH_DATA = 49,
    GET_TENSOR_DATA = 51,
    GET_ELEMENT_COUNT = 64,
    GET_TENSOR_SHAPE = 65,
    CREATE_CPU_MEMORY_INFO = 69,
    RELEASE_VALUE = 96,
};
enum { API_VERSION = 16, LOG_ERRORS = 3, FLOAT32 = 1, ARENA = 1, DEFAULT_MEMORY = 0, MAX_RANK = 8 };

typedef void *function;
struct api_base {
    const function *(*get_api)(uint32_t version);
};
const struct api_base *OrtGetApiBase(void);

static const function *api;

static void check(void *status) {
    if (!status) return;
    fprintf(stderr, "%s\n", ((const char *(*)(void *))api[GET_ERROR_MESSAGE])(status));
    exit(1);
}

#define CALL(number, types, ...) check(((void *(*)types)api[number])(__VA_ARGS__))

int main(int count, char **arguments) {
    int rank = count - 5;
    if (rank < 0 || rank > MAX_RANK) return 2;
    int64_t shape[MAX_RANK], size = 1;
    for (int i = 0; i < rank; i++) size *= shape[i] = atoll(arguments[5 + i]);
    float *values = malloc(size * sizeof *values);
    if (fread(values, sizeof *values, size, stdin) != (size_t)size) return 2;

    api = OrtGetApiBase()->get_api(API_VERSION);
    void *environment, *options, *session, *memory, *input, *output = NULL;
    CALL(CREATE_ENV, (int, const char *, void **), LOG_ERRORS, "", &environment);
    CALL(CREATE_SESSION_OPTIONS, (void **), &options);
    CALL(SET_INTRA_OP_THREADS, (void *, int), options, 1);
    CALL(SET_INTER_OP_THREADS, (void *, int), options, 1);
    CALL(CREATE_SESSION, (void *, const char *, void *, void **), environment, arguments[1], options, &session);
    CALL(CREATE_CPU_MEMORY_INFO, (int, int, void **), ARENA, DEFAULT_MEMORY, &memory);
    CALL(CREATE_TENSOR_WITH_DATA, (void *, void *, size_t, const int64_t *, size_t, int, void **), memory, values,
         size * sizeof *values, shape, rank, FLOAT32, &input);
    const char *inputs[] = {arguments[3]}, *outputs[] = {arguments[4]};
    for (long i = 0; i < atol(arguments[2]); i++) {
        if (output) ((void (*)(void *))api[RELEASE_VALUE])(output);
        output = NULL;
        CALL(RUN, (void *, void *, const char **, void **, size_t, const char **, size_t, void **), session, NULL,
             inputs, &input, 1, outputs, 1, &output);
    }
    void *type;
    size_t elements;
    float *result;
    CALL(GET_TENSOR_SHAPE, (void *, void **), output, &type);
    CALL(GET_ELEMENT_COUNT, (void *, size_t *), type, &elements);
    CALL(GET_TENSOR_DATA, (void *, float **), output, &result);
    return fwrite(result, sizeof *result, elements, stdout) != elements;
}
