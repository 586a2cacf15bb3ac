# docker build -t hwptq .
# docker run --rm -v "$PWD:/data" -w /data hwptq compile model.onnx --target arm-cortex-a --calibration-data …
FROM python:3.12-slim-bookworm

# The compilers and emulators that the descriptors of CPUs name; tests/docs/test_container.py compares the lists.
# The base names their release; versions pinned within it would be gone with its next point release.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        clang \
        gcc \
        gcc-aarch64-linux-gnu \
        gcc-arm-none-eabi \
        gcc-riscv64-linux-gnu \
        gcc-riscv64-unknown-elf \
        libc6-dev \
        libc6-dev-arm64-cross \
        libc6-dev-riscv64-cross \
        lld \
        llvm \
        nodejs \
        qemu-system-arm \
        qemu-system-misc \
        qemu-user \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /src
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY hwptq hwptq
COPY passes passes
COPY targets targets
RUN pip install --no-cache-dir . && rm -rf /src

RUN useradd --create-home --uid 1000 hwptq
USER 1000
WORKDIR /data
ENTRYPOINT ["hwptq"]
CMD ["--help"]
