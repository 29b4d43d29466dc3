"""The warm-up file of a SavedModel: requests that TensorFlow Serving runs before it calls a version available."""

import pathlib
from collections.abc import Mapping
from typing import Any

WARMUP = pathlib.PurePath("assets.extra", "tf_serving_warmup_requests")
PACKAGE = "tensorflow.serving"
# TensorFlow Serving's own messages, as far as a request for a prediction needs them: name, number and type of each
# field. The package that has them, tensorflow-serving-api, would pin TensorFlow and add gRPC for one file.
MESSAGES = {
    "ModelSpec": {"name": (1, "string"), "signature_name": (3, "string")},
    "InputsEntry": {"key": (1, "string"), "value": (2, "tensorflow.TensorProto")},
    "PredictRequest": {"model_spec": (1, "ModelSpec"), "inputs": (2, "repeated InputsEntry")},
    "PredictLog": {"request": (1, "PredictRequest")},
    "PredictionLog": {"predict_log": (6, "PredictLog")},
}


def write_warmup(path: pathlib.Path, name: str, requests: Mapping[str, Mapping[str, Any]]) -> None:
    """Writes a TFRecord of `PredictionLog`.

    Args:
        path: the file, `assets.extra/tf_serving_warmup_requests` of a SavedModel.
        name: the model's.
        requests: for each signature its inputs by name, as arrays.
    """
    import tensorflow as tf

    prediction_log = _message_class("PredictionLog")
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, inputs in requests.items():
            log = prediction_log()
            request = log.predict_log.request
            request.model_spec.name, request.model_spec.signature_name = name, signature
            for key, value in inputs.items():
                entry = request.inputs.add(key=key)
                entry.value.MergeFromString(tf.make_tensor_proto(value).SerializeToString())
            writer.write(log.SerializeToString())


def _message_class(name: str):
    """Makes one of TensorFlow Serving's messages, in a pool of its own: another package may define them as well."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    from tensorflow.core.framework import tensor_pb2

    pool = descriptor_pool.DescriptorPool()
    _add_with_dependencies(pool, tensor_pb2.DESCRIPTOR, set())
    file = descriptor_pb2.FileDescriptorProto(
        name="sepnet/warmup.proto", package=PACKAGE, syntax="proto3", dependency=[tensor_pb2.DESCRIPTOR.name]
    )
    for message, fields in MESSAGES.items():
        description = file.message_type.add(name=message)
        for field, (number, kind) in fields.items():
            repeated, _, kind = kind.rpartition(" ")
            added = description.field.add(name=field, number=number)
            added.label = added.LABEL_REPEATED if repeated else added.LABEL_OPTIONAL
            if kind == "string":
                added.type = added.TYPE_STRING
            else:
                added.type = added.TYPE_MESSAGE
                added.type_name = f".{kind}" if "." in kind else f".{PACKAGE}.{kind}"
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))


def _add_with_dependencies(pool, file, added: set[str]) -> None:
    from google.protobuf import descriptor_pb2

    if file.name in added:
        return
    added.add(file.name)
    for dependency in file.dependencies:
        _add_with_dependencies(pool, dependency, added)
    pool.Add(descriptor_pb2.FileDescriptorProto.FromString(file.serialized_pb))
