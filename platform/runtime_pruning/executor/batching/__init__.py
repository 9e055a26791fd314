"""Ways to run a batch whose images have unlike plans."""
