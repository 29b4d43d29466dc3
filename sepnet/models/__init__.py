"""Model families and their bodies by name, imported on use. A new one is a file, and a line here."""

from typing import TYPE_CHECKING

from sepnet.options.registry import load

if TYPE_CHECKING:
    from sepnet.models.unet import Unet

FAMILIES = {
    "unet_1d": "sepnet.models.unet_1d:Unet1D",
    "unet_2d": "sepnet.models.unet_2d:Unet2D",
    "unet_hybrid": "sepnet.models.unet_hybrid:UnetHybrid",
}
DEFAULT_FAMILY = "unet_2d"
# By family: a body works on the features of one rank.
BODIES = {
    "unet_1d": {"blocks": "sepnet.models.bodies.blocks:Blocks1D"},
    "unet_2d": {
        "blocks": "sepnet.models.bodies.blocks:Blocks2D",
        "jansson": "sepnet.models.bodies.jansson:Jansson",
        "spleeter": "sepnet.models.bodies.spleeter:Spleeter",
        "tfc_tdf": "sepnet.models.bodies.tfc_tdf:TfcTdf",
    },
}


def family_class(name: str) -> type["Unet"]:
    """The class of a family, whose fields are its options.

    Raises:
        UserError: no such family; the message lists those there are.
    """
    return load(FAMILIES, name, "family")
