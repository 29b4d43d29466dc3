"""Songs on disk: which there are, what they hold, and what is wrong with them."""
