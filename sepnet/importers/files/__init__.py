"""Files of published weights: downloaded, unpacked, read."""
