"""Layers that networks are made of; each tells how far it reaches, what it computes and what it keeps."""
