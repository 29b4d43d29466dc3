"""Songs on disk: which there are, what they hold, and what is wrong with them."""

# Classes of songs by layout, imported on use; see `pipelines.songs.layouts.Song`. A new one is a file, and a line here.
# What one of them takes for a song, those below it do not look at.
LAYOUTS = {
    "pairs": "pipelines.songs.pairs:Pair",
    "song_folders": "pipelines.songs.layouts:Song",
    "stem_files": "pipelines.songs.layouts:StemFile",
}
