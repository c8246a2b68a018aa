# The server in a container. Models are mounted, so one image serves any of them: docs/serve.md has the commands.
# DEVICE gpu installs torch's CUDA build, which also runs on a CPU and is several GB larger than the build of DEVICE cpu.
# That one is on an index of its own, which pytorch.org names for "CPU": give it as TORCH_INDEX. DEVICE gpu also has gcc,
# which the compiler of `--profile speed` calls.
FROM python:3.11-slim

ARG DEVICE=gpu
ARG TORCH_INDEX=
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 HF_HUB_OFFLINE=1

RUN useradd --create-home --uid 10001 serve
WORKDIR /app
COPY requirements.txt requirements-serve.txt constraints.txt ./
RUN case "$DEVICE" in \
      cpu) test -n "$TORCH_INDEX" || { echo "DEVICE cpu needs TORCH_INDEX: the index of torch's CPU builds"; exit 1; }; \
           pip install --index-url "$TORCH_INDEX" "$(grep '^torch==' requirements.txt)" ;; \
      gpu) apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/* ;; \
      *) echo "DEVICE is $DEVICE; expected cpu or gpu"; exit 1 ;; \
    esac \
    && pip install --requirement requirements.txt --requirement requirements-serve.txt --constraint constraints.txt
COPY params.yaml accelerate.yaml ./
COPY stages stages
RUN mkdir -p models exports runs data/raw data/processed && chown serve runs data/raw

USER serve
EXPOSE 8000
# start-period: loading a large model takes minutes.
HEALTHCHECK --interval=30s --timeout=5s --start-period=300s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["python", "-m", "stages.serve", "--host", "0.0.0.0"]
