"""Published weights, brought into this project's networks. A new format is a file, and a line here."""

IMPORTERS = {
    "spleeter": "sepnet.importers.spleeter:load",
    "mdx-net": "sepnet.importers.mdx_net:load",
    "mdx23c": "sepnet.importers.mdx23c:load",
    "wave-u-net": "sepnet.importers.wave_u_net:load",
}
