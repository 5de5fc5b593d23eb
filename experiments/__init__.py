"""Where task and model meet: one binary a claim, and the runner they share."""
