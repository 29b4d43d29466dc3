"""Reports of a search: its analysis, and the words, the pictures, the page and the models made of it."""
