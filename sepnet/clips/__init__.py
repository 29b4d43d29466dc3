"""Clips: made of a song's stems, captioned, and measured."""
