# multihot in a container, for CPUs:
#   docker build -t multihot .
#   docker run --rm --user "$(id -u)" -v "$PWD:/home/user/work" multihot quickstart
# With CUDA, for machines with the NVIDIA container toolkit:
#   docker build -t multihot:gpu --build-arg EXTRAS=gpu,serve,tune .
#   docker run --rm --user "$(id -u)" --gpus all -v "$PWD:/home/user/work" multihot:gpu doctor
FROM python:3.12-slim AS wheel
WORKDIR /source
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.12-slim
ARG EXTRAS=serve,tune
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install --no-cache-dir "$(echo /wheels/*.whl)[$EXTRAS]"
RUN useradd --create-home --uid 1000 user
USER 1000
WORKDIR /home/user/work
ENTRYPOINT ["multihot"]
CMD ["--help"]
