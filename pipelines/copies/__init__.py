"""Copies of songs that can be streamed, made once."""
