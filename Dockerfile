# docker build -t bascule .
# For CUDA: --build-arg BASE=pytorch/pytorch:2.9.1-cuda12.8-cudnn9-runtime, and `docker run --gpus all`
ARG BASE=python:3.12-slim
FROM ${BASE}

# In some bases Python belongs to the system's package manager; here it is Bascule's alone.
ENV PIP_BREAK_SYSTEM_PACKAGES=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1

WORKDIR /opt/bascule
COPY pyproject.toml README.md LICENSE constraints.txt ./

# A torch that the base brings along is kept; otherwise it is the one without CUDA.
RUN python3 -c "import torch" 2>/dev/null \
    || python3 -m pip install --extra-index-url https://download.pytorch.org/whl/cpu -c constraints.txt torch
RUN sed -i '/^torch==/d' constraints.txt

COPY src src
RUN python3 -m pip install -c constraints.txt .

RUN useradd --uid 10001 --no-create-home bascule && mkdir /work && chown bascule /work
USER 10001
# Whoever runs it may be somebody else (docker run --user), who has no home.
ENV USER=bascule HOME=/tmp
WORKDIR /work
ENTRYPOINT ["bascule"]
CMD ["run", "digits"]
