"""Tensors of a published file, taken by name: what is missing, spare or of another shape is refused."""

import fnmatch
import pathlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from pipelines.errors import UserError, one_line
from sepnet.importers.files.archives import only_file


class Tensors:
    """The tensors of a file, each of which is to be taken once.

    Args:
        where: the file, as errors call it.
        shapes: of its tensors, by name.
        read: gives a tensor by its name.
        ignored: patterns of the names of those that no network needs, such as an optimiser's.
    """

    def __init__(
        self,
        where: pathlib.Path | str,
        shapes: Mapping[str, Sequence[int]],
        read: Callable[[str], np.ndarray],
        ignored: Sequence[str] = (),
    ):
        self._where, self._shapes, self._read = where, shapes, read
        self._left = {name for name in shapes if not any(fnmatch.fnmatchcase(name, each) for each in ignored)}

    @property
    def names(self) -> list[str]:
        """The names of all tensors."""
        return list(self._shapes)

    def shape(self, name: str, num_axes: int) -> tuple[int, ...]:
        """The shape of a tensor, which has so many axes.

        Raises:
            UserError: there is none of this name, or it has more or fewer.
        """
        found = tuple(self._shapes.get(name, ()))
        if len(found) != num_axes:
            raise UserError(f"{self._where} has no tensor {name} of {num_axes} axes; it holds another network")
        return found

    def count(self, place: str) -> int:
        """Counts the different parts that follow a place in the tensors' names, which dots divide."""
        return len({name.removeprefix(place).split(".")[0] for name in self._shapes if name.startswith(place)})

    def take(self, name: str) -> np.ndarray:
        """Gives a tensor, float32.

        Raises:
            UserError: there is none of this name.
        """
        if name not in self._shapes:
            raise UserError(f"{self._where} has no tensor {name}; it holds another network, or not all of one")
        self._left.discard(name)
        try:
            return np.asarray(self._read(name), np.float32)
        except (TypeError, ValueError) as error:
            raise UserError(f"{self._where} does not hold numbers as {name}; it is another network") from error

    def into(self, variable, *names: str, change: Callable[..., np.ndarray] = lambda tensor: tensor) -> None:
        """Assigns a tensor to a variable of Keras, or what a function makes of several.

        Raises:
            UserError: there is no such tensor, or it has another shape than the variable.
        """
        assign(variable, change(*map(self.take, names)), self._where, " and ".join(names))

    def leave(self, *names: str) -> None:
        """Passes over tensors that the published network has and does not use."""
        self._left.difference_update(names)

    def check_all_taken(self) -> None:
        """Raises a `UserError` where a tensor was not taken: the file is one of another network."""
        if self._left:
            names = sorted(self._left)
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise UserError(
                f"{self._where} holds {', '.join(names[:3])}{more}, which the network does not have; it is another "
                "network"
            )


def assign(variable, value: np.ndarray, where: pathlib.Path | str, name: str) -> None:
    """Assigns a value to a variable of Keras; errors call it by the file and the name that it has there.

    Raises:
        UserError: it has another shape.
    """
    if tuple(value.shape) != tuple(variable.shape):
        raise UserError(
            f"{where} holds {list(value.shape)} as {name}, and the network has {list(variable.shape)} there; it is "
            "another network"
        )
    variable.assign(value)


def read_checkpoint(folder: pathlib.Path, ignored: Sequence[str]) -> Tensors:
    """The tensors of the one TensorFlow checkpoint in a folder.

    Raises:
        UserError: there is none, there are several, or it is damaged.
    """
    import tensorflow as tf

    prefix = only_file(folder, ".index").with_suffix("")

    def guarded(read: Callable, *arguments):
        try:
            return read(*arguments)
        except (tf.errors.OpError, ValueError, RuntimeError, IndexError, UnicodeDecodeError) as error:
            raise UserError(f"{prefix} is damaged, or no checkpoint of TensorFlow: {one_line(error)[:160]}") from error

    reader = guarded(tf.train.load_checkpoint, str(prefix))
    shapes = guarded(reader.get_variable_to_shape_map)
    return Tensors(prefix.name, shapes, lambda name: guarded(reader.get_tensor, name), ignored)
