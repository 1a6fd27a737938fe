"""Methods that explain the pixels with gradients: from the plain gradient to FullGrad."""
