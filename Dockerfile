# The gateway and everything else of `smoothing-proxy`, built from this folder alone:
#     docker build --tag smoothing-proxy .
#     docker run --read-only --tmpfs /tmp -p 127.0.0.1:8080:8080 -e GATEWAY_KEY_SHOP=... \
#         -v ./configs/gateway.toml:/etc/smoothing-proxy/gateway.toml:ro smoothing-proxy
# An index other than pip's own, for instance of smaller builds of torch: --build-arg PIP_INDEX_URL=...

ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS build
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG EXTRAS=postgres,telemetry
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
RUN python -m venv /opt/smoothing-proxy
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY smoothing_proxy smoothing_proxy
COPY denoiser_training denoiser_training
RUN /opt/smoothing-proxy/bin/python -m pip install --constraint constraints.txt ".[${EXTRAS}]"

FROM python:${PYTHON}-slim
# Numbers, so that a cluster can see that it is not root; the folder is what a store in a file needs.
RUN groupadd --system --gid 10001 smoothing \
    && useradd --system --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent smoothing \
    && install --directory --owner=10001 --group=10001 --mode=0700 /var/lib/smoothing-proxy
COPY --from=build /opt/smoothing-proxy /opt/smoothing-proxy
ENV PATH=/opt/smoothing-proxy/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    XDG_CACHE_HOME=/tmp MPLCONFIGDIR=/tmp
USER 10001:10001
WORKDIR /var/lib/smoothing-proxy
VOLUME /var/lib/smoothing-proxy
EXPOSE 8080 8081
STOPSIGNAL SIGTERM
# Another port, or https where the gateway speaks TLS itself; on loopback any certificate will do.
ENV HEALTH_URL=http://127.0.0.1:8080/health/live
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 CMD ["python", "-c", \
"import os, ssl; from urllib import parse, request as r; \
url = os.environ['HEALTH_URL']; here = parse.urlsplit(url).hostname in ('127.0.0.1', '::1', 'localhost'); \
tls = r.HTTPSHandler(context=ssl._create_unverified_context() if here else None); \
r.build_opener(r.ProxyHandler({}), tls).open(url, timeout=3)"]
ENTRYPOINT ["smoothing-proxy"]
CMD ["serve", "--config", "/etc/smoothing-proxy/gateway.toml", "--host", "0.0.0.0"]
