# check=error=true
#
# An engine image whose vLLM is tests/support/stub_vllm.py: the launcher, the service and its requirements are real.
# docker build -f tests/lab/cluster/stub.Dockerfile --build-context tests=tests --build-context catalogs=engine/catalogs .

ARG SERVICE_IMAGE=berth/llm:0.1.0
FROM ${SERVICE_IMAGE}
USER 0:0
COPY engine /opt/berth/engine
COPY --from=catalogs . /opt/berth/engine/catalogs
COPY microservice/llm_service /opt/berth/llm_service
COPY models/demo /opt/berth/models/demo
COPY --from=tests support/stub_engine.py support/stub_knobs.py support/stub_messages.py support/stub_vllm.py /opt/stub/tests/support/
COPY --from=tests support/offline /opt/stub/offline
RUN printf '#!/bin/sh\nexec /opt/venv/bin/python -P -m tests.support.stub_vllm "$@"\n' >/opt/venv/bin/vllm; \
    chmod 0755 /opt/venv/bin/vllm; \
    printf '/opt/stub\n/opt/stub/offline\n' >"$(echo /opt/venv/lib/python3*/site-packages)/stub.pth"; \
    mkdir -p /cache/huggingface /cache/vllm; \
    chown -R 10001:0 /cache
ENV HF_HOME=/cache/huggingface \
    VLLM_CACHE_ROOT=/cache/vllm
LABEL org.opencontainers.image.title="berth/vllm-stub" \
    berth.device="cpu" \
    berth.vllm.version="0.32.0"
USER 10001:0
EXPOSE 8008
HEALTHCHECK NONE
ENTRYPOINT ["/opt/venv/bin/python", "-P", "-m", "engine.serve"]
