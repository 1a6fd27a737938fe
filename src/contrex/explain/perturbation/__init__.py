"""Methods that change the image and ask the network again."""
