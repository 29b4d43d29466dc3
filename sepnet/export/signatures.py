"""Signatures of a SavedModel beside `serving_default`, for clients that send bytes; core TensorFlow operations only."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

SERVING_DEFAULT = "serving_default"
WAV = "wav"
TENSOR = "tensor"
CONTRACT = "contract"
# TensorFlow Serving's REST API sends outputs with such names in base64.
BYTES_SUFFIX = "_bytes"


def serving_functions(run: Callable, contract: Mapping[str, Any]) -> dict[str, Callable]:
    """Makes the functions of a SavedModel, by the names of its signatures.

    - `serving_default`: `mixture`, float32 `[batch, num_samples, num_channels]`, to each stem by its name.
    - `wav`: `wav_bytes`, 16-bit WAV files of the model's rate, `[batch]`, to `<source>_bytes`, such files as long and
      with as many channels; each may have a length and channels of its own. Where a stem of a file would exceed full
      scale, all of its stems are made softer by one common gain.
    - `tensor`: `mixture_bytes`, `[batch]`, each a serialized `TensorProto`, float32 `[num_samples, num_channels]`, to
      `<source>_bytes` likewise. It is exact, a quarter of the size of JSON, and since its inputs are strings a server
      may gather them into batches whatever their lengths.
    - `contract`: `query`, `[batch]`, any strings, to `contract`, for each the JSON text of the model's contract.

    Args:
        run: from a mixture, `[batch, num_samples, num_channels]`, to a dict of stems.
        contract: of the model; its sources are the keys of the dict.
    """
    import tensorflow as tf

    sources, num_channels = contract["sources"], contract["num_channels"]
    mixtures = tf.TensorSpec([None, None, num_channels], tf.float32, name="mixture")

    def strings(name: str) -> list:
        return [tf.TensorSpec([None], tf.string, name=name)]

    # Nothing here asks Python about a tensor's value, so nothing is for AutoGraph to rewrite.
    # One function, so that the graph of the model is written once and not for each signature.
    @tf.function(input_signature=[mixtures], autograph=False)
    def separate(mixture) -> dict[str, Any]:
        return run(mixture)

    @tf.function(input_signature=strings(f"wav{BYTES_SUFFIX}"), autograph=False)
    def separate_wavs(wav_bytes) -> dict[str, Any]:
        return _each(
            wav_bytes, sources, lambda wav: _separate_wav(separate, wav, num_channels, contract["sample_rate"])
        )

    @tf.function(input_signature=strings(f"mixture{BYTES_SUFFIX}"), autograph=False)
    def separate_tensors(mixture_bytes) -> dict[str, Any]:
        return _each(mixture_bytes, sources, lambda proto: _separate_tensor(separate, proto, num_channels))

    @tf.function(input_signature=strings("query"), autograph=False)
    def tell_contract(query) -> dict[str, Any]:
        return {CONTRACT: tf.fill(tf.shape(query), json.dumps(contract))}

    return {SERVING_DEFAULT: separate, WAV: separate_wavs, TENSOR: separate_tensors, CONTRACT: tell_contract}


def _each(batch, sources: Sequence[str], separate_one: Callable) -> dict[str, Any]:
    """Applies a function from a string to strings, one for each source, to a batch."""
    import tensorflow as tf

    outputs = {f"{source}{BYTES_SUFFIX}": tf.TensorSpec([], tf.string) for source in sources}
    # One after the other: each has the memory to itself.
    return tf.map_fn(separate_one, batch, fn_output_signature=outputs, parallel_iterations=1)


def _separate_wav(separate: Callable, wav, num_channels: int, sample_rate: int) -> Mapping[str, Any]:
    import tensorflow as tf

    audio, rate = tf.audio.decode_wav(wav)
    expected = f"Hz; this model takes {sample_rate} Hz: resample it"
    with tf.control_dependencies(
        [
            tf.debugging.Assert(tf.equal(rate, sample_rate), ["the WAV file has", rate, expected]),
            tf.debugging.Assert(tf.size(audio) > 0, ["the WAV file holds no samples"]),
        ]
    ):
        audio = tf.identity(audio)
    stems = in_groups(separate, audio[None], num_channels)
    peak = tf.reduce_max([tf.reduce_max(tf.abs(stem)) for stem in stems.values()])
    gain = 1 / tf.maximum(peak, 1)
    return {f"{source}{BYTES_SUFFIX}": tf.audio.encode_wav(gain * stem[0], rate) for source, stem in stems.items()}


def in_groups(separate: Callable, mixture, size: int) -> Mapping[str, Any]:
    """Separates `[batch, num_samples, num_channels]` in groups of as many channels as a model takes.

    Args:
        separate: from `[batch, num_samples, size]` to a dict of stems.
        mixture: of any number of channels. A group that is not full repeats the last, and what that gives is dropped.
        size: channels that the model takes.

    Returns:
        Stems of the mixture's shape.
    """
    import tensorflow as tf

    if mixture.shape[-1] == size:
        return separate(mixture)
    batch, num_samples, num_channels = tf.unstack(tf.shape(mixture))
    num_groups = -(-num_channels // size)
    columns = tf.minimum(tf.range(num_groups * size), num_channels - 1)
    groups = tf.reshape(tf.gather(mixture, columns, axis=2), [batch, num_samples, num_groups, size])
    stems = separate(tf.reshape(tf.transpose(groups, [0, 2, 1, 3]), [batch * num_groups, num_samples, size]))

    def joined(stem):
        apart = tf.transpose(tf.reshape(stem, [batch, num_groups, num_samples, size]), [0, 2, 1, 3])
        whole = tf.reshape(apart, [batch, num_samples, num_groups * size])[..., :num_channels]
        return tf.ensure_shape(whole, mixture.shape)

    return {source: joined(stem) for source, stem in stems.items()}


def _separate_tensor(separate: Callable, proto, num_channels: int) -> Mapping[str, Any]:
    import tensorflow as tf

    mixture = tf.io.parse_tensor(proto, tf.float32)
    shape = tf.shape(mixture)
    expected = f"expected [num_samples, {num_channels}], at least one sample"
    fits = tf.logical_and(tf.equal(tf.size(shape), 2), tf.logical_and(tf.size(mixture) > 0, shape[-1] == num_channels))
    with tf.control_dependencies([tf.debugging.Assert(fits, ["the tensor has shape", shape, expected])]):
        mixture = tf.debugging.check_numerics(mixture, "the tensor holds NaN or infinity")
    stems = separate(tf.reshape(mixture, [1, -1, num_channels]))
    return {f"{source}{BYTES_SUFFIX}": tf.io.serialize_tensor(stem[0]) for source, stem in stems.items()}
