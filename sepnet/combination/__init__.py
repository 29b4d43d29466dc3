"""Several models made one: what they agree in, the weights of their estimates, and the SavedModel."""
