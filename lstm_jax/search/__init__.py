"""Search: spaces of hyperparameters, samplers that are asked and told, widths under one compile."""
