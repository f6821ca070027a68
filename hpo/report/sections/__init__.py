"""What a grid concludes: claims, causes, noise, interactions, exact accuracies."""
