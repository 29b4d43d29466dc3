"""Parts of pictures and pages."""
