"""Labels for latents: what makes them, what scores them, and the labels of the course SAE that ship."""
