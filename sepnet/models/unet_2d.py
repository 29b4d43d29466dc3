"""The U-Net on the spectrogram, with the STFT before it and the inverse after it."""

import dataclasses
from collections.abc import Sequence

from pipelines.errors import UserError
from sepnet.models import BODIES
from sepnet.models.unet import Unet
from sepnet.options.fields import Section, chosen, option, other_default


@dataclasses.dataclass(frozen=True)
class Unet2D(Unet):
    """U-Net on STFT magnitudes or on mel bands; the stems take the mixture's phase.

    Reference: Jansson et al. 2017 (https://ejhumphrey.com/assets/pdf/jansson2017singing.pdf) for masks, Oh, Kim, Yun
    2018 (https://arxiv.org/abs/1810.11520) for magnitudes as channels ("direct"). Deliberate differences: the network
    sees log magnitudes and the place of a bin in frequency, all sources come from one network, and magnitudes as
    channels pass `Rectify` instead of a ReLU.

    >>> from sepnet.models.unet_2d import Unet2D
    >>> network = Unet2D(depth=2, frame_length=64, frame_step=16).build(
    ...     sources=("vocals", "other"), num_channels=1, sample_rate=8000
    ... )
    >>> list(network.model.output), network.grid_samples
    (['vocals', 'other'], 64)
    """

    depth: int = other_default(Unet, "depth", 5)
    base_filters: int = other_default(Unet, "base_filters", 12)
    filter_growth: str = other_default(Unet, "filter_growth", "double")
    output: str = other_default(Unet, "output", "softmax_mask")
    magnitudes: str = option(
        "log", "the network sees logarithms and the height in frequency, or plain magnitudes", choices=("log", "linear")
    )
    frame_length: int = option(1024, "STFT window in samples", at_least=4)
    frame_step: int = option(256, "samples from one STFT frame to the next", at_least=1)
    num_bins: int | None = option(
        None, "lowest STFT bins that the network sees; those above take the mask of the last (default: all)", at_least=2
    )
    num_mel_bands: int | None = option(None, "mel bands to work on (default: the bins of the STFT)", at_least=2)
    wiener: bool = option(False, "let the estimates share the mixture in proportion to their powers")
    body: Section = chosen(BODIES["unet_2d"], "blocks", "what lies between front and head of the network")

    def largest_depth(self, num_samples: int) -> int:
        """The largest depth that leaves the bottleneck a frame and a bin of a segment."""
        num_frames = max(num_samples // self.frame_step, 1)
        return min(num_frames, self.num_mel_bands or self.num_bins or self.frame_length // 2).bit_length() - 1

    def build(self, *, sources: Sequence[str], num_channels: int, sample_rate: int):
        """Builds the `sepnet.models.network.Network`, untrained.

        Args:
            sources: names of the stems, in order.
            num_channels: audio channels in and out.
            sample_rate: Hz.

        Raises:
            UserError: sizes that do not fit together, or an output that is no mask on mel bands, which have no inverse.
        """
        from sepnet.models.network import Branch, finish

        self._check_sizes()
        branch = Branch(
            lambda mixture: self._estimates(mixture, sources, num_channels, sample_rate),
            grid_samples=self.frame_step * self.body.grid(self.depth),
            takes_any_length=True,
        )
        return finish([branch], sources=sources, num_channels=num_channels, name="unet_2d")

    def _check_sizes(self) -> None:
        from sepnet.models.outputs import MASKS

        if self.num_mel_bands and self.output not in MASKS:
            raise UserError(
                f"--output {self.output} needs the bins of the STFT; with --num-mel-bands take one of {MASKS}"
            )
        most_bins = self.frame_length // 2
        if self.num_bins and (self.num_mel_bands or self.output not in MASKS or self.num_bins > most_bins):
            raise UserError(
                f"--num-bins {self.num_bins} needs --output mask or softmax_mask, no --num-mel-bands, and at most "
                f"{most_bins} bins with --frame-length {self.frame_length}"
            )

    def _estimates(self, mixture, sources: Sequence[str], num_channels: int, sample_rate: int):
        """Front, body and head, from a waveform to waveforms, the sources one after the other."""
        from pipelines.batches.spectra import make_spectra
        from sepnet.models.layers.lengths import CropLike, PadToGrid
        from sepnet.models.layers.magnitudes import LogMagnitudes, Polar, Rectangular, Rectify
        from sepnet.models.layers.sources import WienerStep
        from sepnet.models.outputs import MASKS, count_outputs, make_estimates, run_networks

        spectra = make_spectra(
            frame_length=self.frame_length,
            frame_step=self.frame_step,
            sample_rate=sample_rate,
            num_mel_bands=self.num_mel_bands,
        )
        real, imag = spectra.stft(mixture)
        magnitudes, *phase = Polar(dtype="float32", name="polar")(real, imag)
        seen, to_bins = self._seen_and_back(magnitudes, spectra, sample_rate)
        if self.magnitudes == "log":
            seen = LogMagnitudes(dtype="float32", name="log_magnitudes")(seen)
        raw = run_networks(
            lambda features, num_outputs: self.body.apply(
                features, self.level_filters, num_outputs, recompute=self.recompute
            ),
            PadToGrid(self.body.grid(self.depth), name="pad")(seen),
            num_outputs=count_outputs(sources, self.output),
            num_channels=num_channels,
            separate=self.separate_networks,
        )
        raw = CropLike(dtype="float32", name="crop")(raw, seen)
        if self.output not in MASKS:
            raw = Rectify(dtype="float32", name="magnitudes")(raw)
        estimates = make_estimates(raw, magnitudes, num_sources=len(sources), output=self.output, to_mixture=to_bins)
        if self.wiener:
            estimates = WienerStep(dtype="float32", name="wiener")(estimates, magnitudes)
        return spectra.inverse_stft(*Rectangular(dtype="float32", name="rectangular")(estimates, *phase), mixture)

    def _seen_and_back(self, magnitudes, spectra, sample_rate: int):
        """The magnitudes that the network sees, and the layer that brings its masks back to all bins."""
        from sepnet.models.layers.magnitudes import LowestBins, RepeatLastBin, Scale

        if self.num_mel_bands:
            # The bank gives magnitude per Hz; times the width of a bin it is as large as the magnitudes themselves.
            bands = Scale(sample_rate / self.frame_length, dtype="float32", name="scale")(spectra.mel(magnitudes))
            return bands, spectra.mel_to_linear
        # Without the highest bin their number stays even down to the deepest level.
        num_bins = self.num_bins or self.frame_length // 2
        repeat = RepeatLastBin(magnitudes.shape[2] - num_bins, dtype="float32", name="repeat_last_bin")
        return LowestBins(num_bins, dtype="float32", name="lowest_bins")(magnitudes), repeat
