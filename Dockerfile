# Images of this checkout, with every package as requirements.lock pins it:
#   docker build --target cpu -t ilm-jax:cpu .      or cuda, or tpu
#   docker run --rm -v "$PWD/runs:/runs" ilm-jax:cpu run --config=quickstart --workdir=/runs/quickstart
# Data and weights are fetched into /cache: mount a volume there to keep them.
FROM python:3.11-slim-bookworm AS cpu
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 \
    GLIBC_TUNABLES=glibc.malloc.hugetlb=1 ILM_CACHE=/cache
WORKDIR /ilm_jax
COPY requirements.lock .
RUN pip install -r requirements.lock
COPY . .
RUN pip install --no-deps --no-build-isolation -e . \
    && useradd --create-home ilm && mkdir -p /runs /cache && chown ilm /runs /cache
USER ilm
EXPOSE 8000
# `ilm` finds its commands; a job of launch/gke.py gives a whole command instead.
ENTRYPOINT ["ilm"]
CMD ["--help"]

FROM cpu AS cuda
USER root
# Constraints without hashes: with them pip wants a hash for every package.
RUN grep -o '^[^ ]*==[^ ]*' requirements.lock > /tmp/pins && pip install 'jax[cuda12]' -c /tmp/pins
USER ilm

FROM cpu AS tpu
USER root
# It stays root, whose the device files of the chips are.
RUN grep -o '^[^ ]*==[^ ]*' requirements.lock > /tmp/pins && pip install 'jax[tpu]' -c /tmp/pins
