"""What a network sees of a picture: squares, transformed views, changes of colour, composites."""
