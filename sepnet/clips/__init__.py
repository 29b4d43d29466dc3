"""What clips are made of a song's stems, what they are called, and how good they are."""
