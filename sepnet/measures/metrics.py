"""The figures that models are judged by, on waveforms.

`sources` and `estimates` are `[batch, num_samples, num_sources, num_channels]`, float32, full scale ±1.
"""

from keras import ops

SILENCE_POWER = 1e-8
# What the Music Demixing Challenge adds to both energies, so that silence has a figure.
SDR_ENERGY = 1e-7


def average(values):
    """The mean over samples and channels, `[batch, num_sources]`; over the samples first, which takes far less time."""
    return ops.mean(ops.mean(values, axis=1), axis=-1)


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
    energy = ops.sum(ops.square(sources), axis=(1, 3)) + SDR_ENERGY
    error_energy = ops.sum(ops.square(estimates - sources), axis=(1, 3)) + SDR_ENERGY
    return 10.0 * ops.log10(energy / error_energy)


def is_heard(sources):
    """True for sources above -80 dBFS, `[batch, num_sources]`; ratios say nothing about silent ones."""
    return average(ops.square(sources)) > SILENCE_POWER
