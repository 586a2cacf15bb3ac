// A drawing as the data set has digits: a bitmap of 32 x 32, of which 4 x 4 pixels each are counted.

const SIDE = 32, CELL = 4, PEN = 3.5, INK = 128;

// strokes: lists of [x, y] -> Float32Array of 8 x 8 values, 0 ... 1. Whatever its place and size, it fills the image.
export function image(strokes) {
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = SIDE;
    const pen = canvas.getContext("2d", { willReadFrequently: true });
    const points = strokes.flat();
    const [left, top, right, bottom] = [0, 1].map((axis) => Math.min(...points.map((p) => p[axis])))
        .concat([0, 1].map((axis) => Math.max(...points.map((p) => p[axis]))));
    const scale = (SIDE - PEN) / Math.max(right - left, bottom - top, 1);
    const place = ([x, y]) => [
        SIDE / 2 + scale * (x - (left + right) / 2), SIDE / 2 + scale * (y - (top + bottom) / 2),
    ];
    pen.lineWidth = PEN;
    pen.lineCap = pen.lineJoin = "round";
    for (const stroke of strokes) {
        pen.beginPath();
        pen.moveTo(...place(stroke[0]));
        for (const point of stroke) pen.lineTo(...place(point));
        pen.stroke();
    }
    const pixels = pen.getImageData(0, 0, SIDE, SIDE).data, cells = SIDE / CELL;
    const counts = new Float32Array(cells * cells);
    for (let y = 0; y < SIDE; y++)
        for (let x = 0; x < SIDE; x++)
            if (pixels[4 * (y * SIDE + x) + 3] >= INK)
                counts[Math.floor(y / CELL) * cells + Math.floor(x / CELL)] += 1 / (CELL * CELL);
    return counts;
}
