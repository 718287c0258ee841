# An image that runs topdown-ray, for containers and Kubernetes. docs/guides/kubernetes.md explains how to use it.
#   docker build --tag topdown-ray .
#   docker build --tag topdown-ray:gpu --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 .
FROM python:3.11-slim

# The package index of torch. The default has the builds for CPUs.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
# Extras of the package, for example [tensorboard,mlflow].
ARG EXTRAS=""

# KubeRay checks the health of the nodes with wget.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends wget \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 topdown

WORKDIR /source
RUN --mount=type=bind,target=/source,rw \
    pip install --no-cache-dir --extra-index-url "${TORCH_INDEX}" --constraint constraints.txt ".${EXTRAS}"

USER 1000
WORKDIR /home/topdown
ENTRYPOINT ["topdown-ray"]
CMD ["--help"]
