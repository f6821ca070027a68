"""Training of multilayer perceptrons: network, optimizers, epochs, diagnostics."""
