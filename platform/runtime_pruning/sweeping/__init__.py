"""A sweep: Ray Tune and Optuna choose trials, workers report points, one driver writes them."""
