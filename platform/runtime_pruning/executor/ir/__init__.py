"""A network as operations for inference: lowered, fused, with what is known of its values."""
