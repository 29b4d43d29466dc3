"""SavedModels: written, described, checked and loaded."""
