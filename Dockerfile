# docker build -t detector .    The documentation is docs/container.md.
FROM python:3.13-slim-bookworm

# Where pip finds torch: for processors by default; for NVIDIA GPUs another index of pytorch.org, such as .../whl/cu128
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=export,tensorboard,monitor,scale

# What opencv-python is linked with and the slim image lacks
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/*

# torch first, in a layer of its own: it is by far the largest, and a change of the package leaves it as it is
RUN pip install --no-cache-dir --index-url "$TORCH_INDEX" torch torchvision

COPY pyproject.toml README.md LICENSE /src/
COPY cfg /src/cfg
COPY datasets /src/datasets
COPY detector /src/detector
RUN pip install --no-cache-dir "/src[$EXTRAS]" && rm -rf /src

# Not root. The cache, which is the home folder as well, can be written by whomever docker run --user names
RUN useradd --uid 1000 --home-dir /cache --no-create-home detector \
    && mkdir /cache /work \
    && chmod 1777 /cache /work
ENV HOME=/cache DETECTOR_CACHE=/cache PYTHONUNBUFFERED=1
USER detector
WORKDIR /work
ENTRYPOINT ["detector"]
CMD ["--help"]
