// A program of target wasm32-simd in a browser: three functions of WASI, with a sample as its standard input.

export class Classifier {
    #module;

    constructor(module) {
        this.#module = module;
    }

    static async load(url) {
        const answer = await fetch(url);
        if (!answer.ok) throw new Error(`${url}: ${answer.status}; compile the demo for wasm32-simd first`);
        return new Classifier(await WebAssembly.compile(await answer.arrayBuffer()));
    }

    // Float32Array, the values of a sample -> Float32Array, its outputs. Throws where the program fails.
    async run(sample) {
        const input = new Uint8Array(sample.buffer, sample.byteOffset, sample.byteLength);
        const written = [[], [], []]; // by file
        let memory, at = 0;

        function eachPart(parts, count, moved, move) {
            const view = new DataView(memory.buffer);
            let sum = 0;
            for (let i = 0; i < count; i++) {
                const [place, bytes] = [0, 4].map((offset) => view.getUint32(parts + 8 * i + offset, true));
                sum += move(new Uint8Array(memory.buffer, place, bytes));
            }
            view.setUint32(moved, sum, true);
            return 0;
        }

        function read(bytes) {
            const part = input.subarray(at, at + bytes.length);
            bytes.set(part);
            at += part.length;
            return part.length;
        }

        function write(file, bytes) {
            written[file].push(...bytes);
            return bytes.length;
        }

        const ended = new Map(); // status -> what unwinds the program
        const wasi = {
            fd_read: (_, parts, count, moved) => eachPart(parts, count, moved, read),
            fd_write: (file, ...parts) => eachPart(...parts, (bytes) => write(file, bytes)),
            proc_exit: (status) => {
                ended.set("status", status);
                throw ended;
            },
        };
        const instance = await WebAssembly.instantiate(this.#module, { wasi_snapshot_preview1: wasi });
        memory = instance.exports.memory;
        try {
            instance.exports._start();
        } catch (thrown) {
            if (thrown !== ended) throw thrown;
        }
        if (ended.get("status")) throw new Error(new TextDecoder().decode(new Uint8Array(written[2])));
        return new Float32Array(new Uint8Array(written[1]).buffer);
    }
}
