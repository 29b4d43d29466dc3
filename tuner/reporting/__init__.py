"""What a search has found: its analysis, and the words, the pictures, the page and the models made of it."""
