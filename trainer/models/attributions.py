"""Integrated gradients on a pretrained encoder: what each piece of a text adds to a label's logit.

Sundararajan et al. 2017, Axiomatic Attribution for Deep Networks. On the straight path from a text
of unknown pieces to the text, in the space of the encoder's embeddings, the logit's gradient is
averaged, and multiplied by the difference of the two. The effects of all pieces sum to the
difference of the two logits, but for the error of finitely many points on the path.
"""

import contextlib
from collections.abc import Callable, Iterator

import keras
import tensorflow as tf

_POINTS_AT_ONCE, _TURNS = 8, 4


@contextlib.contextmanager
def _embeddings_on_path(
    layer: keras.layers.Layer,
    points: tf.Tensor,
    without_pieces: Callable[[tf.Tensor], tf.Tensor],
    tape: tf.GradientTape,
) -> Iterator[list[tuple[tf.Tensor, tf.Tensor]]]:
    """While it is entered, the layer gives embeddings on the path, of which there is a list.

    Args:
      layer: of the embeddings.
      points: float32 [points], from 0 to 1; a batch has as many copies of one text.
      without_pieces: ids of a text -> ids of one of unknown pieces.
      tape: watches the embeddings.

    Yields:
      For each call of the layer: the embeddings, and the difference of the two ends of the path.
    """
    call, calls = layer.call, []

    def on_path(ids: tf.Tensor, **options) -> tf.Tensor:
        start, end = call(without_pieces(ids), **options), call(ids, **options)
        at = tf.repeat(points, tf.shape(ids)[0] // tf.size(points))[:, None, None]
        embeddings = start + tf.cast(at, start.dtype) * (end - start)
        tape.watch(embeddings)
        calls.append((embeddings, end - start))
        return embeddings

    layer.call = on_path
    try:
        yield calls
    finally:
        layer.call = call


def integrated_gradients(
    layer: keras.layers.Layer,
    logit: Callable[[int], tf.Tensor],
    *,
    without_pieces: Callable[[tf.Tensor], tf.Tensor],
    num_calls: int,
) -> list[tf.Tensor]:
    """The effect of each id on a logit.

    Args:
      layer: of the embeddings, which `logit` calls on ids [n x copies, longest].
      logit: number of copies of the text -> the logit of each.
      without_pieces: ids of a text -> ids of one of unknown pieces.
      num_calls: how often `logit` calls the layer: once for each text field.

    Returns:
      For each of these calls: float32 [n, longest].
    """
    number = _POINTS_AT_ONCE * _TURNS

    def effects_of(turn: tf.Tensor) -> list[tf.Tensor]:
        points = turn * _POINTS_AT_ONCE + tf.range(_POINTS_AT_ONCE)
        points = (tf.cast(points, tf.float32) + 0.5) / number  # midpoints of equal parts
        with (
            tf.GradientTape() as tape,
            _embeddings_on_path(layer, points, without_pieces, tape) as calls,
        ):
            total = tf.reduce_sum(logit(_POINTS_AT_ONCE))
        gradients = tape.gradient(total, [embeddings for embeddings, _ in calls])
        effects = []
        for gradient, (_, difference) in zip(gradients, calls, strict=True):
            effect = tf.reduce_sum(tf.cast(gradient * difference, tf.float32), axis=2)
            copies = tf.reshape(effect, [_POINTS_AT_ONCE, -1, tf.shape(effect)[1]])
            effects.append(tf.reduce_sum(copies, axis=0) / number)
        return effects

    turns = tf.map_fn(
        effects_of,
        tf.range(_TURNS),
        fn_output_signature=[tf.TensorSpec([None, None], tf.float32)] * num_calls,
        parallel_iterations=1,  # or the activations of all would be in memory at once
    )
    return [tf.reduce_sum(effects, axis=0) for effects in turns]
