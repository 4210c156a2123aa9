# tapnic in a container. It needs only NET_ADMIN and /dev/net/tun:
#
#   docker build -t tapnic .
#   docker run --rm --name tapnic --cap-add NET_ADMIN --device /dev/net/tun tapnic
#   docker exec tapnic curl -sSO http://192.0.2.2/random.bin
#
# Without arguments it serves the sample directory below. See docs/container.md. Do not use
# here-documents: older builders do not support them.
ARG NODE_VERSION=24

FROM node:${NODE_VERSION}-bookworm-slim AS build
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends g++ \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/tapnic
# Copy the files that npm ci needs, including the addon's sources, before files that change more
# often.
COPY package.json package-lock.json .npmrc ./
COPY scripts/build-addon.mjs scripts/
COPY native-bindings native-bindings
RUN npm ci --no-audit --no-fund
COPY . .
RUN npm run -s build \
 && chmod 755 dist/src/cli/main.js \
 && npm prune --omit=dev --ignore-scripts --no-audit --no-fund

FROM node:${NODE_VERSION}-bookworm-slim
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
      curl iproute2 tcpdump \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/tapnic
COPY --from=build /opt/tapnic/package.json /opt/tapnic/LICENSE ./
COPY --from=build /opt/tapnic/node_modules node_modules
COPY --from=build /opt/tapnic/build/tapnic.node build/tapnic.node
COPY --from=build /opt/tapnic/dist/src dist/src
COPY --from=build /opt/tapnic/dist/drivers dist/drivers
COPY --from=build /opt/tapnic/dist/native-bindings dist/native-bindings
RUN ln -s /opt/tapnic/dist/src/cli/main.js /usr/local/bin/tapnic \
 && mkdir -p /srv/sample \
 && printf '<!doctype html>\n<title>tapnic</title>\n<p><a href="random.bin">16 MiB</a>\n' \
      > /srv/sample/index.html \
 && head -c 16777216 /dev/urandom > /srv/sample/random.bin
# Queries the running instance over its control socket; works with every command that keeps running.
HEALTHCHECK --interval=30s --timeout=10s --start-period=5s CMD ["tapnic", "netstat", "-m"]
# The entry point is node without a shell, so that node receives the stop signals directly.
STOPSIGNAL SIGTERM
ENTRYPOINT ["node", "/opt/tapnic/dist/src/cli/main.js"]
CMD ["serve", "/srv/sample"]
