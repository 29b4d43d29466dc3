"""The figures that models are judged by, on waveforms.

`sources` and `estimates` are `[batch, num_samples, num_sources, num_channels]`, float32, full scale ±1.
"""

from keras import ops

SILENCE_POWER = 1e-8
# What the Music Demixing Challenge adds to both energies, so that silence has a figure.
SDR_ENERGY = 1e-7
BLOCK_SAMPLES, LONGEST_SEGMENT_SAMPLES = 1 << 16, 1 << 18


def average(values):
    """The mean over samples and channels, `[batch, num_sources]`; over the samples first, which takes far less time.

    Of whole songs it is summed in blocks: beside so large a sum in float32, single samples would be lost.
    """
    num_samples = values.shape[1]
    if num_samples <= LONGEST_SEGMENT_SAMPLES:
        return ops.mean(ops.mean(values, axis=1), axis=-1)
    values = ops.pad(values, ((0, 0), (0, -num_samples % BLOCK_SAMPLES), (0, 0), (0, 0)))
    blocks = ops.reshape(values, (-1, values.shape[1] // BLOCK_SAMPLES, BLOCK_SAMPLES, *values.shape[2:]))
    return ops.mean(ops.sum(ops.sum(blocks, axis=2), axis=1), axis=-1) / num_samples


def squared_errors(sources, estimates):
    """Mean squared error of each example and source, `[batch, num_sources]`."""
    return average(ops.square(estimates - sources))


def si_sdr_db(sources, estimates):
    """Scale-invariant signal-to-distortion ratio of each example and source, `[batch, num_sources]`, in dB.

    Channels are taken together. Reference: Le Roux, Wisdom, Erdogan, Hershey 2019, "SDR – half-baked or well done?".
    Powers of errors are kept above 1e-8, so that an estimate that is the source itself gives a number; a silent
    estimate gives -80 dB.
    """
    power = average(ops.square(sources))
    scale = average(sources * estimates) / (power + SILENCE_POWER)
    target_power = ops.square(scale) * power + SILENCE_POWER**2
    error_power = average(ops.square(estimates - scale[:, None, :, None] * sources)) + SILENCE_POWER
    return 10.0 * ops.log10(target_power / error_power)


def sdr_db(sources, estimates):
    """Signal-to-distortion ratio of each example and source as a whole, `[batch, num_sources]`, in dB.

    The energy of the source over that of the error, of all samples and channels, without BSSEval's filters; silence as
    an estimate gives 0 dB. Reference: Mitsufuji et al. 2022, "Music Demixing Challenge 2021".
    """
    added = SDR_ENERGY / (sources.shape[1] * sources.shape[3])
    return 10.0 * ops.log10((average(ops.square(sources)) + added) / (squared_errors(sources, estimates) + added))


def is_heard(sources):
    """True for sources above -80 dBFS, `[batch, num_sources]`; ratios say nothing about silent ones."""
    return average(ops.square(sources)) > SILENCE_POWER
