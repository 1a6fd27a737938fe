"""Methods that weight the activations of one layer: Grad-CAM and its relatives."""
