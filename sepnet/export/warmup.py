"""The warm-up file of a SavedModel: requests that TensorFlow Serving runs before it calls a version available."""

import pathlib
from collections.abc import Mapping
from typing import Any

from sepnet.export.tensor_proto import sized_field

WARMUP_FILE = pathlib.PurePath("assets.extra", "tf_serving_warmup_requests")


def write_warmup(path: pathlib.Path, name: str, requests: Mapping[str, Mapping[str, Any]]) -> None:
    """Writes a TFRecord of TensorFlow Serving's `PredictionLog`.

    The package that has this message, tensorflow-serving-api, would pin TensorFlow and add gRPC for one file.

    Args:
        path: the file, `assets.extra/tf_serving_warmup_requests` of a SavedModel.
        name: the model's.
        requests: for each signature its inputs by name, as arrays.
    """
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, inputs in requests.items():
            # The numbers are those of the fields; `inputs` is a map, an entry of which has a key and a value.
            model_spec = sized_field(1, name.encode()) + sized_field(3, signature.encode())
            predict_request = sized_field(1, model_spec)
            for key, value in inputs.items():
                tensor = tf.make_tensor_proto(value).SerializeToString()
                predict_request += sized_field(2, sized_field(1, key.encode()) + sized_field(2, tensor))
            predict_log = sized_field(1, predict_request)
            writer.write(sized_field(6, predict_log))
