"""Songs of any length to stems, and the files that these are written to."""
