# docker build -t tidegate .
# docker run -e UPSTREAM_URL=http://app:3000 -p 127.0.0.1:8080:8080 --stop-timeout 30 tidegate
FROM rust:1.95-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends cmake && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
RUN cargo build --locked --profile dist --bin tidegate && mkdir /state

# glibc, libgcc and certificates; no shell. Its user `nonroot` is 65532.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /source/target/dist/tidegate /usr/local/bin/tidegate
COPY --from=build --chown=65532:65532 --chmod=0700 /state /var/lib/tidegate
# In a container, loopback is nobody's. The admin port stays on it: the health check is inside, and whoever wants to
# scrape it from outside sets ADMIN_LISTEN and presents the token.
ENV LISTEN=0.0.0.0:8080 STATE_DIR=/var/lib/tidegate
USER 65532:65532
EXPOSE 8080
VOLUME /var/lib/tidegate
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD ["/usr/local/bin/tidegate", "health"]
ENTRYPOINT ["/usr/local/bin/tidegate"]
