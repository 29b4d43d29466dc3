"""What a server does for any route: models, songs, limits, figures."""
