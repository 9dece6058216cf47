# A slim image that serves a run on a CPU; without `serve …` it serves the network that comes with reslab.
#     docker build -t reslab .
#     docker run --rm -p 8000:8000 -e RESLAB_TOKEN=a-long-secret -v "$PWD/runs:/runs:ro" reslab serve /runs/fit --host 0.0.0.0
# PIP_OPTIONS may name the index of PyTorch's builds without CUDA, which are a tenth of the size.
FROM python:3.12-slim AS build
ARG PIP_OPTIONS=""
WORKDIR /source
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY src src
RUN python -m venv /opt/reslab \
 && /opt/reslab/bin/pip install --no-cache-dir ${PIP_OPTIONS} --constraint constraints.txt '.[serve]'

FROM python:3.12-slim
COPY --from=build /opt/reslab /opt/reslab
ENV PATH=/opt/reslab/bin:$PATH
RUN useradd --create-home --uid 1000 reslab
USER 1000
WORKDIR /home/reslab
EXPOSE 8000
ENTRYPOINT ["reslab"]
CMD ["serve", "demo", "--host", "0.0.0.0"]
