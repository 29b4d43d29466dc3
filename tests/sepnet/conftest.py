"""Models that several tests export once and share."""

import pytest

from tests.sepnet.helpers import EXPORTED, contract_of, small_network


@pytest.fixture(scope="session")
def networks():
    """The untrained networks of `EXPORTED`, by name."""
    return {name: small_network(family, **options) for name, (family, options) in EXPORTED.items()}


@pytest.fixture(scope="session")
def exported(networks, tmp_path_factory):
    """The folder of an exported model of each family, by name; its only version is 1."""
    from sepnet.export.write import export_model

    root = tmp_path_factory.mktemp("saved_models")
    for family, network in networks.items():
        export_model(network.model, root / family, contract_of(network))
    return {family: root / family for family in networks}


@pytest.fixture(scope="session")
def gain_model(tmp_path_factory):
    """Exports a model whose every stem is the mixture times a gain of its own, and returns its folder."""
    import keras

    from sepnet.export.write import export_model
    from sepnet.models.network import Network

    def export(gains: dict[str, float], *, sample_rate: int, num_channels: int = 2, context_samples: int | None = 0):
        mixture = keras.Input((None, num_channels), name="mixture")
        model = keras.Model(mixture, {source: keras.layers.Rescaling(gain)(mixture) for source, gain in gains.items()})
        contract = contract_of(
            Network(model, grid_samples=1, reach_samples=context_samples, core=model),
            sources=gains,
            num_channels=num_channels,
            sample_rate=sample_rate,
        )
        folder = tmp_path_factory.mktemp("gains") / "gains"
        export_model(model, folder, contract)
        return folder

    return export


@pytest.fixture(scope="session")
def identity(gain_model):
    """A model at 44.1 kHz whose stems, `vocals` and `rest`, are the mixture itself."""
    return gain_model({"vocals": 1.0, "rest": 1.0}, sample_rate=44_100)
