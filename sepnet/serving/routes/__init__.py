"""What a server answers, route by route."""
