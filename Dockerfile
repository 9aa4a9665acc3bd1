# multihot in a container, for CPUs:
#   docker build -t multihot .
#   docker run --rm --user "$(id -u)" -v "$PWD:/home/user/work" multihot quickstart
# With CUDA, for machines with the NVIDIA container toolkit:
#   docker build -t multihot:gpu --build-arg EXTRAS=gpu,serve,tune .
#   docker run --rm --user "$(id -u)" --gpus all -v "$PWD:/home/user/work" multihot:gpu doctor
# Workers of Beam jobs on Dataflow, Flink and Spark, with the Python of the machine that submits:
#   docker build -t multihot-worker --target worker --build-arg PYTHON=3.12 .
ARG PYTHON=3.12

FROM python:3.12-slim AS wheel
WORKDIR /source
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM apache/beam_python${PYTHON}_sdk:2.77.0 AS worker
ARG WORKER_EXTRAS=gcp,aws
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install --no-cache-dir "$(echo /wheels/*.whl)[$WORKER_EXTRAS]"
# Beam's own program, by which every engine starts workers of a container.
ENTRYPOINT ["/opt/apache/beam/boot"]

FROM python:3.12-slim
ARG EXTRAS=serve,tune
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install --no-cache-dir "$(echo /wheels/*.whl)[$EXTRAS]"
RUN useradd --create-home --uid 1000 user
USER 1000
WORKDIR /home/user/work
ENTRYPOINT ["multihot"]
CMD ["--help"]
