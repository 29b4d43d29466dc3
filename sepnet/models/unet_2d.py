"""The U-Net on the spectrogram, with the STFT before it and the inverse after it."""

from collections.abc import Sequence

import keras
from keras import ops

from pipelines.batches.spectra import magnitude, make_spectra
from pipelines.errors import UserError
from sepnet.models.blocks import BlockStyle, CropLike, PadToGrid
from sepnet.models.network import Network, round_up
from sepnet.models.outputs import MASKS, SplitSources, WienerStep, estimates, num_outputs, one_or_each
from sepnet.models.strided_unet import jansson_unet, spleeter_unet, strided_context
from sepnet.models.unet import context, level_filters, unet

STRIDED = {"jansson": jansson_unet, "spleeter": spleeter_unet}


def build_unet_2d(
    *,
    sources: Sequence[str],
    num_channels: int,
    sample_rate: int,
    depth: int,
    base_filters: int,
    filter_growth: str,
    output: str,
    separate_networks: bool,
    form: str,
    magnitudes: str,
    frame_length: int,
    frame_step: int,
    num_bins: int | None,
    num_mel_bands: int | None,
    wiener: bool,
    **style,
) -> Network:
    """Builds a 2-D U-Net on STFT magnitudes or on mel bands; the stems take the mixture's phase.

    Reference: Jansson et al. 2017 (https://ejhumphrey.com/assets/pdf/jansson2017singing.pdf) for masks, Oh, Kim, Yun
    2018 (https://arxiv.org/abs/1810.11520) for magnitudes as channels ("direct"). Deliberate differences: the network
    sees log magnitudes and where a bin lies in frequency, all sources come from one network, and magnitudes as channels
    pass `Rectify` instead of a ReLU.

    Args:
        sources: names of the stems, in order.
        num_channels: audio channels in and out.
        sample_rate: Hz.
        depth: number of levels, 1 or more.
        base_filters: filters of the first level.
        filter_growth: "add" or "double"; see `level_filters`.
        output: what the last convolution gives; see `outputs.estimates`. It acts on magnitudes.
        separate_networks: one for each source that the last convolution gives, instead of one for all.
        form: "blocks" (`unet.unet`), "jansson" or "spleeter" (`strided_unet`).
        magnitudes: the network sees their logarithms and the height in frequency ("log"), or themselves ("linear").
        frame_length: STFT window in samples.
        frame_step: samples from one frame to the next, up to three quarters of `frame_length`.
        num_bins: how many of the lowest bins the network sees, up to half of `frame_length`; those above take the mask
            of the last. None: all.
        num_mel_bands: the network works on this many mel bands, and its masks are carried to the bins of the STFT;
            None: it works on these bins themselves.
        wiener: the estimates go through one Wiener step.
        **style: the remaining fields of `BlockStyle`.

    Raises:
        UserError: sizes that do not fit together, or an output that is no mask on mel bands, which have no inverse.
    """
    if num_mel_bands and output not in MASKS:
        raise UserError(f"--output {output} needs the bins of the STFT; with --num-mel-bands take one of {MASKS}")
    if num_bins and (num_mel_bands or output not in MASKS or num_bins > frame_length // 2):
        raise UserError(
            f"--num-bins {num_bins} needs --output mask or softmax_mask, no --num-mel-bands, and at most "
            f"{frame_length // 2} bins with --frame-length {frame_length}"
        )
    style = BlockStyle(rank=2, **style)
    spectra = make_spectra(
        frame_length=frame_length, frame_step=frame_step, sample_rate=sample_rate, num_mel_bands=num_mel_bands
    )
    mixture = keras.Input((None, num_channels), name="mixture")
    real, imag = spectra.stft(mixture)
    spectrum, *phase = Polar(dtype="float32", name="polar")(real, imag)
    if num_mel_bands:
        # The bank gives magnitude per Hz; times the width of a bin it is as large as the magnitudes themselves.
        seen, carry = spectra.mel(spectrum) * (sample_rate / frame_length), spectra.mel_to_linear
    else:
        # Without the highest bin their number stays even down to the deepest level.
        num_seen = num_bins or frame_length // 2
        seen = spectrum[:, :, :num_seen]
        carry = RepeatLastBin(spectrum.shape[2] - num_seen, dtype="float32", name="repeat_last_bin")
    picture = LogMagnitudes(dtype="float32", name="log_magnitudes")(seen) if magnitudes == "log" else seen

    def network(picture, channels):
        if form != "blocks":
            filters = level_filters(depth - 1, base_filters, filter_growth)
            return STRIDED[form](picture, filters, style, channels)
        features = unet(picture, level_filters(depth, base_filters, filter_growth), style)
        # Masks and magnitudes stay float32 under any precision policy.
        return keras.layers.Conv2D(channels, 1, dtype="float32", name="stems")(features)

    raw = one_or_each(
        network,
        PadToGrid(2**depth, name="pad")(picture),
        num_outputs=num_outputs(sources, output),
        num_channels=num_channels,
        separate=separate_networks,
    )
    raw = CropLike(dtype="float32", name="crop")(raw, picture)
    if output not in MASKS:
        raw = Rectify(dtype="float32", name="magnitudes")(raw)
    stacked = estimates(raw, spectrum, num_sources=len(sources), output=output, carry=carry)
    if wiener:
        stacked = WienerStep(dtype="float32", name="wiener")(stacked, spectrum)
    stacked = spectra.inverse_stft(*Rectangular(dtype="float32", name="rectangular")(stacked, *phase), mixture)
    stems = SplitSources(list(sources), dtype="float32", name="sources")(stacked)
    num_frames = context(depth, style) if form == "blocks" else strided_context(depth, style, form)
    context_samples = frame_step * num_frames + spectra.stft.context
    grid = frame_step * 2**depth
    model = keras.Model(mixture, stems, name="unet_2d")
    return Network(model, grid, round_up(context_samples, grid) if style.is_local else None, core=model)


@keras.saving.register_keras_serializable(package="sepnet")
class Polar(keras.layers.Layer):
    """Magnitude, and cosine and sine of the phase, of a complex spectrum; silence has a phase of zero length."""

    def call(self, real, imag):
        size = magnitude(real, imag)
        return size, real / size, imag / size

    def compute_output_shape(self, real_shape, imag_shape):
        return (real_shape,) * 3


@keras.saving.register_keras_serializable(package="sepnet")
class Rectangular(keras.layers.Layer):
    """Gives the magnitudes of every source, `[..., num_sources * num_channels]`, the phase of the mixture."""

    def call(self, magnitudes, cosine, sine):
        repeats = magnitudes.shape[-1] // cosine.shape[-1]
        return tuple(magnitudes * ops.concatenate([part] * repeats, axis=-1) for part in (cosine, sine))

    def compute_output_shape(self, magnitudes_shape, cosine_shape, sine_shape):
        return (magnitudes_shape,) * 2


@keras.saving.register_keras_serializable(package="sepnet")
class Rectify(keras.layers.Layer):
    """The absolute value: magnitudes are not negative.

    After a ReLU, channels of a fresh network that happen to be nowhere above zero have no gradient, and stay silent.
    """

    def call(self, inputs):
        return ops.absolute(inputs)

    def compute_output_shape(self, input_shape):
        return input_shape


@keras.saving.register_keras_serializable(package="sepnet")
class LogMagnitudes(keras.layers.Layer):
    """What the network sees of magnitudes `[batch, num_frames, num_bins, num_channels]`.

    Their logarithm, and one more channel that rises from 0 to 1 over frequency, since convolutions cannot tell low
    from high.
    """

    def call(self, magnitudes):
        picture = ops.log1p(magnitudes)
        ramp = ops.reshape(ops.linspace(0.0, 1.0, picture.shape[2]), (1, 1, -1, 1))
        return ops.concatenate([picture, ops.zeros_like(picture[..., :1]) + ramp], axis=-1)

    def compute_output_shape(self, magnitudes_shape):
        return (*magnitudes_shape[:-1], magnitudes_shape[-1] + 1)


@keras.saving.register_keras_serializable(package="sepnet")
class RepeatLastBin(keras.layers.Layer):
    """Gives the highest bins, which the network does not see, the values of the one below them."""

    def __init__(self, times: int, **kwargs):
        super().__init__(**kwargs)
        self.times = times

    def call(self, inputs):
        return ops.concatenate([inputs, ops.repeat(inputs[:, :, -1:], self.times, axis=2)], axis=2)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:2], input_shape[2] + self.times, input_shape[3])

    def get_config(self):
        return {**super().get_config(), "times": self.times}
