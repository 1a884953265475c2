# check=error=true
#
# vLLM's own router, as its wheel comes, for compose/router.yaml.
# Build from the repository's root: docker build -f compose/router.Dockerfile -t berth/router:0.1.0 .

ARG BASE_IMAGE=python:3.11-slim-bookworm

# --build-context wheels=DIRECTORY puts wheels in here that no package index has.
FROM scratch AS wheels

FROM ${BASE_IMAGE} AS builder
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
# Where packages come from, when not from uv's default index.
ARG PACKAGE_INDEX=""
# The bundle `ca` is for sites whose proxy opens TLS: --secret id=ca,src=FILE
RUN --mount=type=secret,id=ca,target=/run/secrets/ca \
    --mount=type=cache,id=berth-uv,target=/root/.cache/uv \
    --mount=type=bind,from=wheels,target=/wheels \
    --mount=type=bind,source=requirements/router.txt,target=/src/requirements/router.txt \
    --mount=type=bind,source=scripts/lib/get_uv.py,target=/src/get_uv.py \
    if [ -s /run/secrets/ca ]; then export SSL_CERT_FILE=/run/secrets/ca PIP_CERT=/run/secrets/ca; fi; \
    if [ -n "${PACKAGE_INDEX}" ]; then export UV_DEFAULT_INDEX="${PACKAGE_INDEX}" PIP_INDEX_URL="${PACKAGE_INDEX}"; fi; \
    if [ -n "$(ls -A /wheels)" ]; then export UV_FIND_LINKS=/wheels PIP_FIND_LINKS=/wheels; fi; \
    export UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never PYTHONDONTWRITEBYTECODE=1; \
    UV="$(python3 /src/get_uv.py /tmp/uv)"; \
    "$UV" venv --python python3 /opt/venv; \
    "$UV" pip install --python /opt/venv/bin/python --no-deps -r /src/requirements/router.txt; \
    rm -rf /tmp/uv

FROM ${BASE_IMAGE} AS runtime
COPY --from=builder /opt/venv /opt/venv
COPY compose/router_start.py /opt/berth/router_start.py
# Any user of group 0 can do what the image's own user can: clusters run it under numbers of their own.
RUN useradd --uid 10001 --gid 0 --create-home --home-dir /home/berth --shell /bin/bash berth; \
    chmod -R g=u /home/berth; \
    # what cannot be imported must not become an image
    /opt/venv/bin/python -P /opt/berth/router_start.py --help >/dev/null

ENV PATH=/opt/venv/bin:$PATH \
    HOME=/home/berth

ARG BERTH_VERSION=0.1.0
ARG SOURCE=""
ARG REVISION=""
LABEL org.opencontainers.image.title="berth/router" \
    org.opencontainers.image.description="vLLM's own router between the service and several engines" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${BERTH_VERSION}" \
    org.opencontainers.image.source="${SOURCE}" \
    org.opencontainers.image.revision="${REVISION}"

WORKDIR /home/berth
USER 10001:0
EXPOSE 8008
# The router opens its port only when every engine has answered once.
HEALTHCHECK --interval=15s --timeout=5s --start-period=60m --start-interval=2s --retries=3 \
    CMD ["/opt/venv/bin/python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8008/liveness', timeout=3)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["/opt/venv/bin/python", "-P", "/opt/berth/router_start.py"]
