"""The U-Net on the spectrogram, with the STFT before it and the inverse after it."""

import dataclasses
import math
from collections.abc import Sequence

from pipelines.errors import UserError
from sepnet.models import BODIES
from sepnet.models.unet import COMPLEX_OUTPUTS, OUTPUTS, Unet
from sepnet.options.fields import Section, chosen, option, other_default

# Of the STFT. A window twice as long or half as long costs as much, and separates worse.
WINDOW_SECONDS = 0.093


@dataclasses.dataclass(frozen=True)
class Unet2D(Unet):
    """U-Net on spectra: on STFT magnitudes or mel bands, whose phase the stems take over, or on complex spectra.

    Reference: Jansson et al. 2017 (https://ejhumphrey.com/assets/pdf/jansson2017singing.pdf) for masks, Oh, Kim, Yun
    2018 (https://arxiv.org/abs/1810.11520) for magnitudes as channels ("direct"), Choi et al.
    2020 (see `sepnet.models.bodies.tfc_tdf`) for complex spectra as channels. Deliberate differences: the network
    sees log magnitudes and the place of a bin in frequency, or compressed complex values, all sources come from one
    network, and magnitudes as channels pass `Rectify` instead of a ReLU.

    >>> from sepnet.models.unet_2d import Unet2D
    >>> network = Unet2D(depth=2, frame_length=64, frame_step=16).build(
    ...     sources=("vocals", "other"), num_channels=1, sample_rate=8000
    ... )
    >>> list(network.model.output), network.grid_samples
    (['vocals', 'other'], 64)
    """

    depth: int = other_default(Unet, "depth", 5)
    base_filters: int = other_default(Unet, "base_filters", 16)
    filter_growth: str = other_default(Unet, "filter_growth", "double")
    output: str = option(
        "softmax_mask",
        "magnitudes as they come, the last source as the mixture less the others, masks on magnitudes, complex masks "
        "(free, no larger than 2, adding up to one, magnitude and phase apart), or spectra as they come",
        choices=(*OUTPUTS, *COMPLEX_OUTPUTS),
    )
    features: str = option(
        "log",
        "what the network sees: log magnitudes and the height in frequency, plain magnitudes, real and imaginary parts "
        "with the square root of the magnitude, these and log magnitudes, or plain parts",
        choices=("log", "linear", "complex", "complex_log", "complex_linear"),
    )
    frame_length: int | None = option(
        None, "STFT window in samples (default: the power of two next to 93 ms; 4096 at 44.1 kHz)", at_least=4
    )
    frame_step: int | None = option(
        None, "samples from one STFT frame to the next (default: a quarter of the window)", at_least=1
    )
    num_bins: int | None = option(
        None,
        "lowest STFT bins that the network sees; those above take the mask of the last, or are silent with --output "
        "spectra (default: all)",
        at_least=2,
    )
    subbands: int | None = option(
        None, "bands of equal width that become channels (default: 4; mel bands, jansson and spleeter 1)", at_least=1
    )
    num_mel_bands: int | None = option(None, "mel bands to work on (default: the bins of the STFT)", at_least=2)
    wiener: bool = option(False, "let the estimates share the mixture in proportion to their powers")
    body: Section = chosen(BODIES["unet_2d"], "blocks", "what lies between front and head of the network")

    def largest_depth(self, num_samples: int, sample_rate: int) -> int:
        """The largest depth that leaves the bottleneck a frame and a bin of a segment."""
        return self._at_rate(sample_rate)._largest_depth(num_samples)

    def _largest_depth(self, num_samples: int) -> int:
        num_rows = (self.num_mel_bands or self._num_bins) // self._num_bands
        deepest = max(num_rows, 1).bit_length() - 1
        # As `STFT.num_frames`, which would load Keras.
        num_frames = -(-num_samples // self.frame_step) - (-self.frame_length // self.frame_step) - 1
        return max((depth for depth in range(deepest + 1) if self.body.grid(depth) <= num_frames), default=0)

    def build(self, *, sources: Sequence[str], num_channels: int, sample_rate: int):
        """Builds the `sepnet.models.network.Network`, untrained.

        Args:
            sources: names of the stems, in order.
            num_channels: audio channels in and out.
            sample_rate: Hz.

        Raises:
            UserError: options that do not go together.
        """
        return self._at_rate(sample_rate)._build(sources, num_channels, sample_rate)

    def _at_rate(self, sample_rate: int) -> "Unet2D":
        """The same with window and step as numbers of samples."""
        length = self.frame_length or max(2 ** round(math.log2(WINDOW_SECONDS * sample_rate)), 4)
        return dataclasses.replace(self, frame_length=length, frame_step=self.frame_step or max(length // 4, 1))

    def _build(self, sources: Sequence[str], num_channels: int, sample_rate: int):
        from sepnet.models.network import Branch, finish

        self._check_options()
        branch = Branch(
            lambda mixture: self._estimates(mixture, sources, num_channels, sample_rate),
            grid_samples=self.frame_step * self.body.grid(self.depth),
            takes_any_length=True,
        )
        return finish([branch], sources=sources, num_channels=num_channels, name="unet_2d")

    def _check_options(self) -> None:
        from sepnet.models.outputs import MASKS

        is_complex = self.output in COMPLEX_OUTPUTS
        if self.num_mel_bands and (self.output not in MASKS or self.features not in ("log", "linear")):
            raise UserError(
                f"--output {self.output} --features {self.features} needs the bins of the STFT; with --num-mel-bands "
                f"take one of {MASKS} and log or linear"
            )
        if self.wiener and is_complex:
            raise UserError(f"--wiener works on magnitudes, and --output {self.output} gives complex spectra")
        most_bins = self.frame_length // 2
        if self.num_bins and (
            self.num_mel_bands or self.num_bins > most_bins or self.output in ("direct", "difference")
        ):
            raise UserError(
                f"--num-bins {self.num_bins} needs --output {', '.join((*MASKS, *COMPLEX_OUTPUTS))}, no "
                f"--num-mel-bands, and at most {most_bins} bins with --frame-length {self.frame_length}"
            )

    def _estimates(self, mixture, sources: Sequence[str], num_channels: int, sample_rate: int):
        """Front, body and head, from a waveform to waveforms, the sources one after the other."""
        from pipelines.batches.spectra import make_spectra

        spectra = make_spectra(
            frame_length=self.frame_length,
            frame_step=self.frame_step,
            sample_rate=sample_rate,
            num_mel_bands=self.num_mel_bands,
        )
        real, imag = spectra.stft(mixture)
        head = self._complex_head if self.output in COMPLEX_OUTPUTS else self._magnitude_head
        return spectra.inverse_stft(*head(real, imag, spectra, sources, num_channels, sample_rate), mixture)

    def _magnitude_head(self, real, imag, spectra, sources: Sequence[str], num_channels: int, sample_rate: int):
        """Spectra of the sources that have the mixture's phase."""
        from sepnet.models.layers.magnitudes import Polar, Rectangular, Rectify
        from sepnet.models.layers.sources import ApplyMasks, Masks, WienerStep
        from sepnet.models.outputs import MASKS, count_outputs, make_estimates

        magnitudes, *phase = Polar(dtype="float32", name="polar")(real, imag)
        raw = self._run(real, imag, magnitudes, spectra, sample_rate, count_outputs(sources, self.output), num_channels)
        to_bins = spectra.mel_to_linear or self._add_bins(magnitudes)
        if self.output in MASKS and not self.wiener:
            # On the two parts themselves, which takes less than on magnitudes that then get their phase back.
            masks = to_bins(Masks(len(sources), self.output, axis=1, dtype="float32", name="masks")(raw))
            return ApplyMasks(axis=1, dtype="float32", name="estimates")(masks, real, imag)
        if self.output not in MASKS:
            raw = Rectify(dtype="float32", name="magnitudes")(raw)
        estimates = make_estimates(
            raw, magnitudes, num_sources=len(sources), output=self.output, axis=1, to_mixture=to_bins
        )
        if self.wiener:
            estimates = WienerStep(axis=1, dtype="float32", name="wiener")(estimates, magnitudes)
        return Rectangular(axis=1, dtype="float32", name="rectangular")(estimates, *phase)

    def _complex_head(self, real, imag, spectra, sources: Sequence[str], num_channels: int, sample_rate: int):
        """Spectra of the sources with phases of their own."""
        from sepnet.models.layers.complex_spectra import ComplexEstimates

        numbers = num_channels * COMPLEX_OUTPUTS[self.output]
        raw = self._run(real, imag, None, spectra, sample_rate, len(sources), numbers)
        estimates = ComplexEstimates(len(sources), self.output, dtype="float32", name="estimates")
        return estimates(self._add_bins(real)(raw), real, imag)

    def _run(self, real, imag, magnitudes, spectra, sample_rate: int, num_outputs: int, num_channels: int):
        """Runs the body on the features; returns `[batch, num_outputs * num_channels, num_frames, bins]`."""
        from sepnet.models.layers.frequency import FromFeatures, ToFeatures
        from sepnet.models.layers.lengths import CropLike, PadToGrid
        from sepnet.models.outputs import run_networks

        seen = self._features(real, imag, magnitudes, spectra, sample_rate)
        grids = 1, 1, self.body.grid(self.depth), self.body.frequency_grid(self.depth) * self._num_bands
        features = ToFeatures(self._num_bands, name="to_features")(PadToGrid(grids, name="pad")(seen))

        def network(features, count: int):
            raw = self.body.apply(
                features,
                self.level_filters,
                count * self._num_bands,
                recompute=self.recompute,
                starts_at_zero=self.output in COMPLEX_OUTPUTS and self.output != "spectra",
            )
            return FromFeatures(self._num_bands, dtype="float32", name="from_features")(raw)

        raw = run_networks(
            network,
            features,
            num_outputs=num_outputs,
            num_channels=num_channels,
            separate=self.separate_networks,
            axis=1,
        )
        return CropLike(channel_axis=1, dtype="float32", name="crop")(raw, seen)

    def _features(self, real, imag, magnitudes, spectra, sample_rate: int):
        """The features that the body is given, of the bins or bands that it sees."""
        import keras

        from sepnet.models.layers.complex_spectra import Parts
        from sepnet.models.layers.magnitudes import LowestBins, Polar, Scale

        if self.num_mel_bands:
            # The bank gives magnitude per Hz; times the width of a bin it is as large as the magnitudes themselves.
            bands = Scale(sample_rate / self.frame_length, dtype="float32", name="scale")(spectra.mel(magnitudes))
            return self._seen(bands)
        seen = []
        if self.features in ("complex", "complex_log", "complex_linear"):
            parts = Parts(self.features != "complex_linear", dtype="float32", name="parts")(real, imag)
            seen.append(LowestBins(self._num_bins, dtype="float32", name="lowest_bins_of_parts")(parts))
        if self.features in ("log", "linear", "complex_log"):
            if magnitudes is None:
                magnitudes = Polar(dtype="float32", name="polar")(real, imag)[0]
            lowest = LowestBins(self._num_bins, dtype="float32", name="lowest_bins")(magnitudes)
            seen.append(self._seen(lowest))
        return seen[0] if len(seen) == 1 else keras.layers.Concatenate(axis=1, dtype="float32", name="features")(seen)

    def _seen(self, magnitudes):
        """Magnitudes as the network sees them."""
        from sepnet.models.layers.magnitudes import LogMagnitudes

        return magnitudes if self.features == "linear" else LogMagnitudes(dtype="float32", name="log")(magnitudes)

    @property
    def _num_bands(self) -> int:
        return self.subbands or (1 if self.num_mel_bands else self.body.usual_subbands)

    @property
    def _num_bins(self) -> int:
        # Without the highest bin their number stays even down to the deepest level.
        return self.num_bins or self.frame_length // 2

    def _add_bins(self, spectrum):
        """The layer that brings what the network gives back to all bins."""
        from sepnet.models.layers.magnitudes import AddBins

        missing = spectrum.shape[-1] - self._num_bins
        return AddBins(missing, self.output != "spectra", dtype="float32", name="add_bins")
