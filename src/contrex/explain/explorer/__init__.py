"""The explorer: a page without a server that answers "why P and not Q?" for any classes of a picture."""
