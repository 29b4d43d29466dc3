"""The server behind `python -m sepnet.serve`: TensorFlow Serving's REST API, whole songs, and a page."""
