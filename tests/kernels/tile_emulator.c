/* Registers that hold matrices, as AMX defines them, for processors without. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static _Thread_local struct {
    uint16_t bytes[8];
    uint8_t rows[8];
    int configured;
    uint8_t data[8][16][64];
} tiles;

static void need(int holds) {
    if (!holds) abort();
}

int32_t tile_configure(const uint8_t *memory) {
    need(memory[0] == 1 && memory[1] == 0);
    memset(&tiles, 0, sizeof tiles);
    for (int i = 0; i < 8; i++) {
        memcpy(&tiles.bytes[i], memory + 16 + 2 * i, 2);
        tiles.rows[i] = memory[48 + i];
        need(tiles.bytes[i] <= 64 && tiles.rows[i] <= 16 && !tiles.bytes[i] == !tiles.rows[i]);
    }
    tiles.configured = 1;
    return 0;
}

int32_t tile_release(void) {
    need(tiles.configured);
    memset(&tiles, 0, sizeof tiles);
    return 0;
}

int32_t tile_load(int8_t t, const uint8_t *memory, int64_t stride) {
    need(tiles.configured && tiles.rows[t]);
    for (int r = 0; r < tiles.rows[t]; r++) memcpy(tiles.data[t][r], memory + r * stride, tiles.bytes[t]);
    return 0;
}

int32_t tile_store(int8_t t, uint8_t *memory, int64_t stride) {
    need(tiles.configured && tiles.rows[t]);
    for (int r = 0; r < tiles.rows[t]; r++) memcpy(memory + r * stride, tiles.data[t][r], tiles.bytes[t]);
    return 0;
}

int32_t tile_clear(int8_t t) {
    need(tiles.configured && tiles.rows[t]);
    memset(tiles.data[t], 0, sizeof tiles.data[t]);
    return 0;
}

int32_t tile_multiply(int8_t c, int8_t a, int8_t b) {
    need(tiles.configured && c != a && a != b && b != c);
    need(tiles.rows[c] == tiles.rows[a] && tiles.bytes[a] == 4 * tiles.rows[b] && tiles.bytes[c] == tiles.bytes[b]);
    for (int m = 0; m < tiles.rows[c]; m++)
        for (int n = 0; n < tiles.bytes[c] / 4; n++) {
            uint32_t sum;
            memcpy(&sum, tiles.data[c][m] + 4 * n, 4);
            for (int k = 0; k < tiles.bytes[a]; k++)
                sum += (uint32_t)((int8_t)tiles.data[a][m][k] * (int8_t)tiles.data[b][k / 4][4 * n + k % 4]);
            memcpy(tiles.data[c][m] + 4 * n, &sum, 4);
        }
    return 0;
}
