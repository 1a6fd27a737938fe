"""What one forward pass tells: its layers, what they give, and which of them can be explained."""
