# check=error=true
#
# An engine image with Ray on top, for BERTH_EXECUTOR=ray: vLLM's wheels hold none, and its own way over several nodes
# needs none.
#   docker build -f apptainer/ray.Dockerfile --build-arg ENGINE_IMAGE=berth/vllm-cuda:0.1.0 -t berth/vllm-cuda-ray:0.1.0 .
#   scripts/berth sif cuda --from docker-daemon:berth/vllm-cuda-ray:0.1.0

ARG ENGINE_IMAGE=berth/vllm-cuda:0.1.0
FROM ${ENGINE_IMAGE}
ARG RAY_VERSION=2.60.0
ARG PACKAGE_INDEX=""
USER 0:0
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
RUN --mount=type=secret,id=ca \
    --mount=type=bind,source=scripts/lib/get_uv.py,target=/src/get_uv.py \
    if [ -s /run/secrets/ca ]; then export SSL_CERT_FILE=/run/secrets/ca PIP_CERT=/run/secrets/ca; fi; \
    if [ -n "${PACKAGE_INDEX}" ]; then export UV_DEFAULT_INDEX="${PACKAGE_INDEX}" PIP_INDEX_URL="${PACKAGE_INDEX}"; fi; \
    uv="$(/opt/venv/bin/python /src/get_uv.py /tmp/uv)"; \
    # What the engine has stays as it is: Ray's own needs are met by it or added.
    "${uv}" pip install --no-cache --compile-bytecode --python /opt/venv/bin/python "ray==${RAY_VERSION}"; \
    rm -rf /tmp/uv
USER 10001:0
