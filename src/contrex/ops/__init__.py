"""Pure functions: scores of logits, heatmaps, spatial transforms, pixels, resampled means."""
