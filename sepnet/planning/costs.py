"""Costs of a config before anything is trained: parameters, operations, receptive field and memory.

All of it is arithmetic on the layers of the model. Its weights are never made, so that models far beyond the memory of
this machine can be counted.
"""

import dataclasses

from sepnet.config.config import Config
from sepnet.models.network import Network
from sepnet.planning.step_memory import block_bytes, core_calls, separation_bytes, training_bytes
from sepnet.planning.untrained import untrained


@dataclasses.dataclass(frozen=True)
class Costs:
    """Costs of one config.

    Attributes:
        depth: number of levels.
        parameters: weights, trained or not.
        flops_per_second: operations of the forward pass for a second of audio; a multiply-add is two.
        receptive_field_samples: the most samples that one output sample depends on; None if it is all of them.
        training_bytes: peak memory of a training step.
        separation_bytes: peak memory of separating a block.
    """

    depth: int
    parameters: int
    flops_per_second: float
    receptive_field_samples: int | None
    training_bytes: int
    separation_bytes: int


def count_separation(network: Network, sample_rate: int, block: int, device: str = "gpu") -> dict[str, float | None]:
    """Counts what separating costs with a network whose config is not known: the fields of `Costs` that say so.

    Args:
        network: with weights or without.
        sample_rate: Hz.
        block: samples that it is given at once, with what lies around them.
        device: as for `count_costs`.
    """
    return {
        "parameters": network.model.count_params(),
        "flops_per_second": flops(network, block) * sample_rate / block,
        "receptive_field_samples": network.receptive_field_samples,
        "separation_bytes": block_bytes(network, block, device),
    }


def count_costs(config: Config, sample_rate: int, device: str = "gpu", network: Network | None = None) -> Costs:
    """All costs of a config.

    Args:
        config: checked config whose depth fits its segment.
        sample_rate: Hz.
        device: "cpu" or "gpu", which says what counts as memory; see `sepnet.planning.step_memory`.
        network: what `untrained` gives for this config, if it is there already.

    Raises:
        UserError: options that do not go together.
    """
    network = network or untrained(config, sample_rate)
    num_samples = network.training_samples(config.data.segment_samples(sample_rate))
    return Costs(
        depth=config.model.depth,
        parameters=network.model.count_params(),
        flops_per_second=flops(network, num_samples) * sample_rate / num_samples,
        receptive_field_samples=network.receptive_field_samples,
        training_bytes=training_bytes(config, sample_rate, device, network),
        separation_bytes=separation_bytes(config, sample_rate, device, network),
    )


def flops(network: Network, num_samples: int) -> int:
    """Floating-point operations of the forward pass of training on one example; a multiply-add is two.

    Args:
        network: of any family.
        num_samples: length of the estimates, one that `network.training_samples` gives.
    """
    return sum(call.flops for call in core_calls(network, 1, num_samples))
