"""Muon, which moves kernels in its own way, and averages of the weights for every optimizer."""

import math

import keras
from keras import ops

# Polynomials `a·s + b·s³ + c·s⁵` that one after the other bring singular values from 0.01 to 1 as near to 1 as three
# can, which is between 0.73 and 1.27: each is the best one for what the one before leaves (Amsel et al. 2025,
# https://arxiv.org/abs/2505.16932, algorithm 1).
POLYNOMIALS = ((8.09337, -23.62043, 17.44615), (3.63659, -2.72193, 0.53655), (2.66130, -1.97715, 0.45262))
# A wider kernel is taken in parts of at most so many columns. That learns as well, and takes a fraction of the time.
COLUMNS = 128
# The root mean square of a step, in step sizes; that of Adam's steps is often about this.
RMS = 0.2
ADAM_MOMENTA = 0.9, 0.999
ADAM_EPSILON = 1e-7
# Keeps a kernel whose gradient is 0 where it is.
TINY = 1e-30


class Averages:
    """Makes the averages of an optimizer follow the weights from the first step on.

    With the momentum that was given, averages would hold the untrained weights for several times `1 / (1 - momentum)`
    steps. So at step `t`, counted from 0, it is `(1 + t) / (10 + t)` at the most, which averages over about the last
    tenth of the steps. Keras takes an average at every batch, also of those whose gradients it only adds up.
    """

    @property
    def ema_momentum(self):
        """The momentum of this step; the one that was given until there are weights."""
        if self._momentum_of_averages is None or not self.built:
            return self._momentum_of_averages
        step = ops.cast(self.iterations * (self.gradient_accumulation_steps or 1), "float32")
        return ops.minimum((1 + step) / (10 + step), self._momentum_of_averages)

    @ema_momentum.setter
    def ema_momentum(self, momentum: float | None):
        self._momentum_of_averages = momentum

    def get_config(self):
        return {**super().get_config(), "ema_momentum": self._momentum_of_averages}


def with_averages(optimizer: type[keras.optimizers.Optimizer]) -> type[keras.optimizers.Optimizer]:
    """The same kind of optimizer, with `Averages`."""
    return type(optimizer.__name__, (Averages, optimizer), {})


class Muon(keras.optimizers.Optimizer):
    """Steps of equal length in all directions of a kernel; all other weights move as with AdamW.

    Reference: Jordan et al. 2024 (https://kellerjordan.github.io/posts/muon/), with steps as long as Adam's (Liu et al.
    2025, https://arxiv.org/abs/2502.16982). Deliberate differences: three polynomials instead of five, wide kernels in
    parts, and kernels of convolutions as well, which `keras.optimizers.Muon` leaves to AdamW.

    Args:
        learning_rate: number or schedule.
        momentum: of the gradients of kernels, by Nesterov's rule.
        options: see `keras.optimizers.Optimizer`.

    >>> import numpy as np
    >>> kernel = keras.Variable(np.zeros((3, 4)), name="kernel")
    >>> Muon(learning_rate=1.0).apply([ops.convert_to_tensor(np.eye(3, 4, dtype="float32"))], [kernel])
    >>> np.round(np.asarray(kernel), 1).tolist()
    [[-0.5, 0.0, 0.0, 0.0], [0.0, -0.5, 0.0, 0.0], [0.0, 0.0, -0.5, 0.0]]
    """

    def __init__(self, learning_rate, momentum: float = 0.95, **options):
        super().__init__(learning_rate=learning_rate, **options)
        self.momentum = momentum

    def build(self, variables):
        """Makes a momentum for each weight, and a second moment for those that AdamW moves."""
        if self.built:
            return
        super().build(variables)
        self.momenta = [self.add_variable_from_reference(variable, name="momentum") for variable in variables]
        self.velocities = [
            None if is_kernel(variable) else self.add_variable_from_reference(variable, name="velocity")
            for variable in variables
        ]

    def update_step(self, gradient, variable, learning_rate):
        """Moves one weight."""
        index = self._get_variable_index(variable)
        momentum, velocity = self.momenta[index], self.velocities[index]
        gradient = ops.cast(gradient, variable.dtype)
        learning_rate = ops.cast(learning_rate, variable.dtype)
        if velocity is None:
            self.assign_add(momentum, (1 - self.momentum) * (gradient - momentum))
            # Nesterov's rule looks ahead by the same gradient once more.
            step = orthogonal(momentum + (1 - self.momentum) * (gradient - momentum))
        else:
            step = self._adam_step(gradient, momentum, velocity)
        self.assign_sub(variable, learning_rate * step)

    def _adam_step(self, gradient, momentum, velocity):
        first, second = ADAM_MOMENTA
        time = ops.cast(self.iterations + 1, gradient.dtype)
        self.assign_add(momentum, (1 - first) * (gradient - momentum))
        self.assign_add(velocity, (1 - second) * (ops.square(gradient) - velocity))
        deviation = ops.sqrt(velocity / (1 - ops.power(second, time)))
        return momentum / (1 - ops.power(first, time)) / (deviation + ADAM_EPSILON)

    def get_config(self):
        return {**super().get_config(), "momentum": self.momentum}


def is_kernel(variable: keras.Variable) -> bool:
    """True for kernels that are a matrix, whose columns are the last axis and whose rows are all others."""
    shape = variable.shape
    return variable.name.endswith("kernel") and len(shape) > 1 and min(shape[-1], math.prod(shape[:-1])) > 1


def orthogonal(kernel):
    """Brings the singular values of a kernel near to 1, and scales it to the root mean square `RMS`.

    Args:
        kernel: float32 `[..., columns]`, a matrix as `is_kernel` sees it.
    """
    shape = kernel.shape
    matrix = ops.reshape(kernel, (-1, shape[-1]))
    is_wide = matrix.shape[0] < matrix.shape[1]
    matrix = ops.transpose(matrix) if is_wide else matrix
    num_rows, num_columns = matrix.shape
    num_parts = math.ceil(num_columns / COLUMNS)
    # Columns of zeros stay zero, and change nothing in the others.
    missing = -num_columns % num_parts
    padded = ops.pad(matrix, ((0, 0), (0, missing))) if missing else matrix
    parts = ops.transpose(ops.reshape(padded, (num_rows, num_parts, -1)), (1, 0, 2))
    # No singular value is larger than the root of the sum of all squares.
    parts = parts * ops.rsqrt(ops.sum(ops.square(parts), axis=(1, 2), keepdims=True) + TINY)
    parts = ops.matmul(parts, _product(ops.matmul(ops.swapaxes(parts, 1, 2), parts)))
    matrix = ops.reshape(ops.transpose(parts, (1, 0, 2)), (num_rows, -1))[:, :num_columns]
    matrix = ops.transpose(matrix) if is_wide else matrix
    return RMS * math.sqrt(max(num_rows, num_columns)) * ops.reshape(matrix, shape)


def _product(gram):
    """The factor by which the polynomials multiply a matrix, from `transposed · matrix`, which is smaller than it."""
    unit = ops.eye(gram.shape[-1], dtype=gram.dtype)
    product = unit
    for a, b, c in POLYNOMIALS:
        factor = a * unit + b * gram + c * ops.matmul(gram, gram)
        product = ops.matmul(product, factor)
        gram = ops.matmul(ops.matmul(factor, gram), factor)
    return product
