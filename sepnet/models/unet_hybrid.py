"""The U-Net with a branch on the waveform and one on the spectrum, which meet at the bottom."""

import dataclasses
from collections.abc import Sequence

from pipelines.errors import UserError
from sepnet.models.bodies.body import ACTIVATIONS, NORMALIZATIONS
from sepnet.models.unet import COMPLEX_OUTPUTS, Unet
from sepnet.options.fields import option, other_default

# A level shortens time, or frequency, by this; so the STFT steps by STRIDE**depth samples.
STRIDE = 4
BRANCHES = ("both", "waveform", "spectrum")
# The residual branches of a level work on so many times fewer channels.
COMPRESSION = 4


@dataclasses.dataclass(frozen=True)
class UnetHybrid(Unet):
    """U-Net on waveform and complex spectrum at once; the estimates of both are added.

    Reference: Défossez 2021, "Hybrid spectrogram and waveform source separation" (https://arxiv.org/abs/2111.03600).
    Deliberate differences: what sees a whole segment is left out (LSTM, attention, group normalisation), so that a
    song streamed in blocks gives what the whole song gives; kernels cover three times what becomes one, not twice,
    since a convolution of packed neighbours takes less time than one with strides, or transposed; branches meet by the
    mean of the frames around a step; depth sets the STFT, which steps by `4**depth` samples under a window of four
    steps, since only then the two branches are equally long at the bottom; the spectrum gives masks unless asked
    otherwise.

    >>> from sepnet.models.unet_hybrid import UnetHybrid
    >>> network = UnetHybrid(depth=2, base_filters=4).build(
    ...     sources=("vocals", "other"), num_channels=1, sample_rate=8000
    ... )
    >>> list(network.model.output), network.grid_samples
    (['vocals', 'other'], 32)
    """

    depth: int = other_default(Unet, "depth", 5)
    base_filters: int = other_default(Unet, "base_filters", 24)
    filter_growth: str = other_default(Unet, "filter_growth", "double")
    output: str = option(
        "complex_mask", "what the branch on the spectrum gives, as with unet_2d", choices=tuple(COMPLEX_OUTPUTS)
    )
    branches: str = option(
        "both", "on what the network works; one alone shows what the other is worth", choices=BRANCHES
    )
    shared_levels: int = option(1, "levels that halve time below the place where the branches meet", at_least=0)
    residual_branches: int = option(2, "dilated residual branches in each level of the way down", at_least=0)
    normalization: str = option("renorm", "normalisation after each convolution", choices=NORMALIZATIONS)
    activation: str = option("gelu", "activation after each convolution", choices=ACTIVATIONS)

    def largest_depth(self, num_samples: int, sample_rate: int) -> int:
        """The largest depth that leaves the bottleneck a value of a segment."""
        depth = 0
        while STRIDE ** (depth + 1) * 2**self.shared_levels <= num_samples:
            depth += 1
        return depth

    def build(self, *, sources: Sequence[str], num_channels: int, sample_rate: int):
        """Builds the `sepnet.models.network.Network`, untrained.

        Args:
            sources: names of the stems, in order.
            num_channels: audio channels in and out.
            sample_rate: not used; every family is built alike.

        Raises:
            UserError: an output of the spectrum without the branch on it.
        """
        from sepnet.models.network import Branch, finish

        if self.branches == "waveform" and self.output != type(self)().output:
            raise UserError(f"--output {self.output} is one of the spectrum, which --branches waveform leaves out")
        branch = Branch(
            lambda mixture: self._estimates(mixture, len(sources), num_channels),
            grid_samples=STRIDE**self.depth * 2**self.shared_levels,
        )
        return finish([branch], sources=sources, num_channels=num_channels, name="unet_hybrid")

    def _estimates(self, mixture, num_sources: int, num_channels: int):
        """From a waveform to waveforms, the sources one after the other."""
        import keras

        from pipelines.batches.spectra import make_spectra
        from sepnet.models.layers.complex_spectra import ComplexEstimates, Parts
        from sepnet.models.layers.frequency import FromFeatures, ToFeatures
        from sepnet.models.layers.hybrid import AddShare
        from sepnet.models.layers.magnitudes import AddBins, LowestBins

        step = STRIDE**self.depth
        spectra = make_spectra(frame_length=4 * step, frame_step=step)
        inputs, numbers = {}, {"waveform": num_channels, "spectrum": num_channels * COMPLEX_OUTPUTS[self.output]}
        if self.branches != "spectrum":
            inputs["waveform"] = mixture
        if self.branches != "waveform":
            real, imag = spectra.stft(mixture)
            parts = Parts(True, dtype="float32", name="parts")(real, imag)
            lowest = LowestBins(2 * step, dtype="float32", name="lowest_bins")(parts)
            inputs["spectrum"] = ToFeatures(name="to_features")(lowest)
        counts = [1] * num_sources if self.separate_networks else [num_sources]
        networks = [
            _Levels(self, {name: count * numbers[name] for name in inputs}, f"network_{index}_").run(inputs)
            for index, count in enumerate(counts)
        ]

        def joined(name):
            raw = [network[name] for network in networks]
            return raw[0] if len(raw) == 1 else keras.layers.Concatenate(dtype="float32", name=f"join_{name}")(raw)

        estimates = []
        if "waveform" in inputs:
            estimates.append(joined("waveform"))
        if "spectrum" in inputs:
            add_bins = AddBins(1, self.output != "spectra", dtype="float32", name="add_bins")
            estimate = ComplexEstimates(num_sources, self.output, dtype="float32", name="estimates")
            raw = FromFeatures(dtype="float32", name="from_features")(joined("spectrum"))
            estimates.append(spectra.inverse_stft(*estimate(add_bins(raw), real, imag), mixture))
            return keras.layers.Add(dtype="float32", name="add")(estimates) if len(estimates) > 1 else estimates[0]
        return AddShare(dtype="float32", name="add_share")(estimates[0], mixture)


@dataclasses.dataclass(frozen=True)
class _Levels:
    """The layers of one network: ways down, the shared bottom, ways up.

    Attributes:
        options: the family's.
        num_outputs: channels that each branch gives, by its name.
        prefix: of the names of layers.
    """

    options: UnetHybrid
    num_outputs: dict[str, int]
    prefix: str

    def run(self, inputs: dict) -> dict:
        """The outputs of each branch, from its inputs."""
        import keras

        from sepnet.models.layers.hybrid import BlocksToFrames, FramesToBlocks, FrequencyEmbedding

        *filters, deepest = self.options.level_filters
        features, skips = {}, {}
        for branch, values in inputs.items():
            skips[branch] = []
            for level, count in enumerate(filters):
                values = self._down(values, count, f"{branch}_encoder_{level}", self._factor(branch, level))
                if branch == "spectrum" and level == 0:
                    values = FrequencyEmbedding(name=f"{self.prefix}spectrum_embedding")(values)
                skips[branch].append(values)
            features[branch] = values
        if "spectrum" in features:
            features["spectrum"] = FramesToBlocks(name=f"{self.prefix}to_blocks")(features["spectrum"])
        values = list(features.values())
        values = keras.layers.Add(name=f"{self.prefix}meet")(values) if len(values) > 1 else values[0]
        values = self._shared(values, deepest)
        outputs = {}
        for branch in inputs:
            up = BlocksToFrames(name=f"{self.prefix}to_frames")(values) if branch == "spectrum" else values
            for level in reversed(range(len(filters))):
                count = filters[level - 1] if level else self.num_outputs[branch]
                up = self._up(up, skips[branch][level], count, branch, level)
            outputs[branch] = up
        return outputs

    def _factor(self, branch: str, level: int) -> int:
        """So many neighbours become one; at the last level of spectra, all bins that are left."""
        return 2 * STRIDE if branch == "spectrum" and level == self.options.depth - 1 else STRIDE

    def _shared(self, values, filters: int):
        """Levels that halve time, down and up again."""
        import keras

        skips = []
        width = values.shape[-1]
        for level in range(self.options.shared_levels):
            skips.append(values)
            values = self._shortened(values, filters, f"shared_encoder_{level}", 2)
        for level in reversed(range(self.options.shared_levels)):
            count = width if level == 0 else filters
            values = self._lengthened(values, count, f"shared_decoder_{level}", 2)
            values = keras.layers.Add(name=f"{self.prefix}shared_decoder_{level}_add")([values, skips[level]])
        return values

    def _down(self, values, filters: int, name: str, factor: int):
        """One level down; along frequency in spectra, whose last level leaves one bin."""
        from sepnet.models.layers.hybrid import ScaledSum

        values = self._shortened(values, filters, name, factor)
        inner = max(filters // COMPRESSION, 1)
        for index in range(self.options.residual_branches):
            branch = f"{name}_branch_{index}"
            found = self._convolution(
                values, inner, f"{branch}_in", kernel_size=3, is_normalized=True, dilation_rate=2**index
            )
            found = self._normalized(found, f"{branch}_norm")
            found = self._gated(found, filters, f"{branch}_out")
            values = ScaledSum(name=f"{self.prefix}{branch}_sum")(values, found)
        return self._gated(values, filters, f"{name}_mix")

    def _up(self, values, skip, filters: int, branch: str, level: int):
        """One level up: adds what the way down had there; the outermost gives the outputs."""
        import keras

        name = f"{branch}_decoder_{level}"
        values = keras.layers.Add(name=f"{self.prefix}{name}_add")([values, skip])
        values = self._gated(values, skip.shape[-1], f"{name}_mix", kernel_size=3)
        return self._lengthened(values, filters, name, self._factor(branch, level), is_output=level == 0)

    def _shortened(self, values, filters: int, name: str, factor: int):
        """So many neighbours in frequency, or in time where there is none, become one."""
        from sepnet.models.layers.convolution import Convolution
        from sepnet.models.layers.hybrid import SpaceToDepth

        values = SpaceToDepth(factor, name=f"{self.prefix}{name}_pack")(values)
        return Convolution(
            rank=len(values.shape) - 2,
            filters=filters,
            kernel_size=_kernel(values),
            strides=1,
            padding="same",
            normalization=self.options.normalization,
            activation=self.options.activation,
            recompute=self.options.recompute,
            name=f"{self.prefix}{name}",
        )(values)

    def _lengthened(self, values, filters: int, name: str, factor: int, *, is_output: bool = False):
        """The way back."""
        from sepnet.models.bodies.body import last_initializer
        from sepnet.models.layers.convolution import CONVOLUTIONS
        from sepnet.models.layers.hybrid import DepthToSpace

        dtype = "float32" if is_output else None
        values = CONVOLUTIONS[len(values.shape) - 2](
            factor * filters,
            _kernel(values),
            padding="same",
            use_bias=is_output or self.options.normalization == "none",
            kernel_initializer=last_initializer(is_output),
            dtype=dtype,
            name=f"{self.prefix}{name}",
        )(values)
        values = DepthToSpace(factor, dtype=dtype, name=f"{self.prefix}{name}_unpack")(values)
        return values if is_output else self._normalized(values, f"{name}_norm")

    def _gated(self, values, filters: int, name: str, kernel_size: int = 1):
        from sepnet.models.layers.hybrid import Gate

        values = self._convolution(values, 2 * filters, name, kernel_size=kernel_size)
        return Gate(name=f"{self.prefix}{name}_gate")(values)

    def _convolution(
        self, values, filters: int, name: str, *, kernel_size: int, is_normalized: bool = False, dilation_rate: int = 1
    ):
        """A convolution along time; a normalisation would take its bias away again."""
        from sepnet.models.layers.convolution import CONVOLUTIONS

        rank = len(values.shape) - 2
        beside = (1,) * (rank - 1)
        return CONVOLUTIONS[rank](
            filters,
            (kernel_size, *beside),
            dilation_rate=(dilation_rate, *beside),
            use_bias=not is_normalized or self.options.normalization == "none",
            padding="same",
            name=f"{self.prefix}{name}",
        )(values)

    def _normalized(self, values, name: str):
        from sepnet.models.layers.convolution import NormalizedActivation

        return NormalizedActivation(
            filters=values.shape[-1],
            normalization=self.options.normalization,
            activation=self.options.activation,
            activation_first=False,
            recompute=self.options.recompute,
            name=f"{self.prefix}{name}",
        )(values)


def _kernel(values) -> int | tuple[int, int]:
    """Three neighbours in frequency, or in time where there is none; one where there is no other bin."""
    return 3 if len(values.shape) == 3 else (1, min(values.shape[2], 3))
