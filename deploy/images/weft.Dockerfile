# syntax=docker/dockerfile:1
# docker build -f deploy/images/weft.Dockerfile -t weft .
FROM rust:1.95-slim-bookworm AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends build-essential cmake \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /weft
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/weft/target \
    cargo build --release --locked -p weft --bin weft \
    && install -D target/release/weft /out/weft \
    && install -d -m 0700 /out/data

# glibc and nothing else: no shell, no package manager.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /out/weft /usr/local/bin/weft
COPY --from=build --chown=65532:65532 /out/data /var/lib/weft
USER 65532:65532
ENV WEFT_DATA_DIR=/var/lib/weft
VOLUME /var/lib/weft
EXPOSE 4180 4181
ENTRYPOINT ["/usr/local/bin/weft"]
CMD ["serve"]
