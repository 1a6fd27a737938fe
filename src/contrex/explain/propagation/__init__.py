"""Methods that pass relevance back from the logits by rules: excitation backprop and LRP."""
