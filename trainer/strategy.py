"""Which devices a run uses."""

import tensorflow as tf

from beam_jobs.contract.config import TrainConfig
from beam_jobs.contract.errors import UserError


def make_strategy(train: TrainConfig) -> tf.distribute.Strategy:
    """The distribution strategy of a run. Call it before TensorFlow has used any device.

    Raises:
      UserError: more replicas are asked for than there are GPUs, or a batch cannot be shared among them.
    """
    gpus = tf.config.list_physical_devices("GPU")
    if train.strategy == "mirrored" or (train.strategy == "auto" and len(gpus) > 1):
        devices = [f"/gpu:{i}" for i in range(len(gpus))][: train.replicas] if gpus else _logical_cpus(train.replicas or 1)
        if train.replicas and len(devices) < train.replicas:
            raise UserError(f"train.replicas: received {train.replicas}, expected at most {len(devices)}, the number of GPUs")
        if train.batch_size % len(devices):
            raise UserError(f"train.batch_size: received {train.batch_size}, expected a multiple of the {len(devices)} replicas")
        return tf.distribute.MirroredStrategy(devices)
    return tf.distribute.OneDeviceStrategy("/gpu:0" if gpus else "/cpu:0")


def _logical_cpus(count: int) -> list[str]:
    (cpu, *_) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    return [f"/cpu:{i}" for i in range(count)]


def describe(strategy: tf.distribute.Strategy) -> str:
    """The strategy, in words."""
    devices = ", ".join(device.rpartition("/")[2].removeprefix("device:") for device in strategy.extended.worker_devices)
    return f"{type(strategy).__name__} on {devices}"
