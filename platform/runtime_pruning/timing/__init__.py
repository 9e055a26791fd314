"""A clock that can be believed: calls in turns, ratios with intervals, signs of disturbance."""
