"""The weights of MDX-Net out of an ONNX graph, found by its edges: exporters give them any names."""

import dataclasses
import pathlib

import numpy as np

from pipelines.errors import UserError, check_packages, one_line


@dataclasses.dataclass(frozen=True)
class Weighted:
    """A convolution or a matrix, and the batch normalisation after it.

    Attributes:
        kernel: `[out, in, frames, bins]`, of transposed convolutions `[in, out, ...]`, of matrices `[in, out]`.
        offset: its bias; None without.
        norm: scale, offset, mean and variance; None where it was folded into the convolution.
        epsilon: what the normalisation adds to the variance.
    """

    kernel: np.ndarray
    offset: np.ndarray | None
    norm: tuple[np.ndarray, ...] | None = None
    epsilon: float = 0.0

    def check(self, rank: int) -> None:
        """Raises a `ValueError` unless the kernel has this rank, and what belongs to features is as long for all."""
        vectors = [*(self.norm or ()), *(() if self.offset is None else (self.offset,))]
        lengths = {vector.shape for vector in vectors}
        if self.kernel.ndim != rank or not self.kernel.size or len(lengths) > 1 or vectors[0].ndim != 1:
            shapes = [list(each.shape) for each in (self.kernel, *vectors)]
            raise ValueError(f"shapes {shapes} do not belong together")


@dataclasses.dataclass(frozen=True)
class Block:
    """Convolutions, and the two matrices along frequency whose output is added to theirs."""

    convolutions: tuple[Weighted, ...]
    matrices: tuple[Weighted, ...]


@dataclasses.dataclass(frozen=True)
class MdxWeights:
    """All weights, in the order in which they act.

    Attributes:
        num_bins: that the network sees.
        num_frames: that it is given at a time.
        n_fft: window of the STFT in samples; None where the file does not say.

    Raises:
        ValueError: shapes that no such network has.
    """

    num_bins: int
    num_frames: int
    first: Weighted
    encoders: tuple[Block, ...]
    downs: tuple[Weighted, ...]
    bottleneck: Block
    ups: tuple[Weighted, ...]
    decoders: tuple[Block, ...]
    last: Weighted
    n_fft: int | None = None

    def __post_init__(self):
        blocks = [*self.encoders, self.bottleneck, *self.decoders]
        for weighted in (self.first, *self.downs, *self.ups, self.last, *(c for b in blocks for c in b.convolutions)):
            weighted.check(rank=4)
        for weighted in (matrix for block in blocks for matrix in block.matrices):
            weighted.check(rank=2)
        grid = 2 ** len(self.encoders)
        if self.num_bins % grid or self.num_frames % grid or self.last.offset is None:
            raise ValueError(f"{self.num_bins} bins and {self.num_frames} frames do not go through {grid}")

    @property
    def num_filters(self) -> int:
        """Filters of the first level; each deeper one has as many more."""
        return len(self.first.kernel)

    @property
    def bottleneck_factor(self) -> int:
        """By how much the matrices lower the number of bins."""
        num_bins, inner = self.bottleneck.matrices[0].kernel.shape
        return num_bins // inner


def read_onnx(path: pathlib.Path) -> MdxWeights:
    """Reads the weights; nothing of the file is run.

    Raises:
        UserError: the file is damaged, or holds another network.
    """
    check_packages(["onnx"], "networks in ONNX files", "pretrained")
    import google.protobuf.message
    import onnx

    try:
        # Weights that lie in other files, which such a file may name anywhere, are not read.
        graph = onnx.load(path, load_external_data=False).graph
        return _Walk(path, graph).weights()
    except (google.protobuf.message.DecodeError, ValueError, TypeError, IndexError) as error:
        raise UserError(f"{path} is damaged, or no ONNX file: {one_line(error)[:160]}") from error


class _Walk:
    """A walk through a graph, from its input to its output."""

    def __init__(self, path: pathlib.Path, graph):
        from onnx import numpy_helper

        self._path, self._graph = path, graph
        self._tensors = {each.name: each for each in graph.initializer}
        self._to_array = numpy_helper.to_array
        self._consumers: dict[str, list] = {}
        for node in graph.node:
            for name in node.input:
                self._consumers.setdefault(name, []).append(node)
        self._visited: set[int] = set()

    def weights(self) -> MdxWeights:
        inputs = [each for each in self._graph.input if each.name not in self._tensors]
        shape = [dim.dim_value for dim in inputs[0].type.tensor_type.shape.dim] if len(inputs) == 1 else []
        if len(shape) != 4 or shape[1] != 4 or not (shape[2] and shape[3]):
            raise self._other(f"its input is {shape}, not [batch, 4, bins, frames]")
        first, place = self._convolution(inputs[0].name)
        place = self._step(place, "Transpose").output[0]
        encoders, downs, skips = [], [], []
        while True:
            block, place = self._block(place)
            if "ConvTranspose" in self._kinds(place):
                bottleneck = block
                break
            encoders.append(block)
            skips.append(place)
            down, place = self._convolution(place)
            downs.append(down)
        ups, decoders = [], []
        while self._kinds(place) == ["ConvTranspose"]:
            up, place = self._convolution(place, "ConvTranspose")
            product = self._step(place, "Mul")
            if not skips or set(product.input) != {place, skips.pop()}:
                raise self._other(f"{product.name} does not multiply with the features of its level")
            block, place = self._block(product.output[0])
            ups.append(up)
            decoders.append(block)
        node = self._step(self._step(place, "Transpose").output[0], "Conv")
        last = self._weighted(node)
        if skips or node.output[0] != self._graph.output[0].name or len(self._visited) != len(self._graph.node):
            spare = [node.name for node in self._graph.node if id(node) not in self._visited]
            raise self._other(f"it has more than this network: {', '.join(spare[:3]) or 'levels that are left over'}")
        return MdxWeights(
            shape[2],
            shape[3],
            first,
            tuple(encoders),
            tuple(downs),
            bottleneck,
            tuple(ups),
            tuple(decoders),
            last,
        )

    def _block(self, place: str) -> tuple[Block, str]:
        convolutions = []
        while "MatMul" not in self._kinds(place):
            convolution, place = self._convolution(place)
            convolutions.append(convolution)
        before, matrices = place, []
        for _ in range(2):
            matrix, place = self._convolution(place, "MatMul")
            matrices.append(matrix)
        add = self._step(place, "Add")
        if set(add.input) != {before, place}:
            raise self._other(f"{add.name} does not add what the matrices were given")
        return Block(tuple(convolutions), tuple(matrices)), add.output[0]

    def _convolution(self, place: str, kind: str = "Conv") -> tuple[Weighted, str]:
        """A convolution or a matrix, its normalisation, if it is not folded, and its ReLU."""
        weighted = self._weighted(node := self._step(place, kind))
        place = node.output[0]
        if self._kinds(place) == ["BatchNormalization"]:
            norm = self._step(place, "BatchNormalization")
            epsilon = next((each.f for each in norm.attribute if each.name == "epsilon"), 1e-5)
            statistics = tuple(map(self._array, norm.input[1:5]))
            weighted = dataclasses.replace(weighted, norm=statistics, epsilon=epsilon)
            place = norm.output[0]
        elif weighted.offset is None:
            raise self._other(f"{node.name} has neither a bias nor a normalisation")
        return weighted, self._step(place, "Relu").output[0]

    def _weighted(self, node) -> Weighted:
        return Weighted(self._array(node.input[1]), self._array(node.input[2]) if len(node.input) > 2 else None)

    def _array(self, name: str) -> np.ndarray:
        from onnx import TensorProto

        tensor = self._tensors.get(name)
        if tensor is None or tensor.data_location == TensorProto.EXTERNAL:
            raise self._other(f"it does not hold the tensor {name}")
        return np.asarray(self._to_array(tensor), np.float32)

    def _kinds(self, place: str) -> list[str]:
        return sorted(node.op_type for node in self._consumers.get(place, []))

    def _step(self, place: str, kind: str):
        """The one node of a kind that takes a tensor."""
        found = [node for node in self._consumers.get(place, []) if node.op_type == kind]
        if len(found) != 1:
            raise self._other(f"a {kind} should take {place}, and {', '.join(self._kinds(place)) or 'nothing'} does")
        self._visited.add(id(found[0]))
        return found[0]

    def _other(self, reason: str) -> UserError:
        return UserError(f"{self._path} holds another network than MDX-Net's: {one_line(reason)}")
