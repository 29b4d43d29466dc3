"""The demo songs: a small multitrack data set that the project composes, plays and mixes itself."""
