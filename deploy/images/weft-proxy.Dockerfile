# syntax=docker/dockerfile:1
# docker build -f deploy/images/weft-proxy.Dockerfile -t weft-proxy .
FROM rust:1.95-slim-bookworm AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends build-essential cmake \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /weft
COPY . .
# Both packages are named so that the libraries have the features that they had where the sidecar was counted under load
# (proxy/profile): with others, what starts tasks is compiled as if nothing were known of it.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/weft/target \
    cargo build --release --locked -p weft -p weft-proxy --bin weft-proxy \
    && install -D target/release/weft-proxy /out/weft-proxy \
    && install -d -m 0700 /out/data

# glibc and nothing else: no shell, no package manager.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /out/weft-proxy /usr/local/bin/weft-proxy
COPY --from=build --chown=4143:4143 /out/data /var/lib/weft-proxy
# The user that `weft-proxy init --proxy-uid 4143` lets through.
USER 4143:4143
ENV WEFT_DATA_DIR=/var/lib/weft-proxy
EXPOSE 4140 4143 4191
ENTRYPOINT ["/usr/local/bin/weft-proxy"]
CMD ["run"]
