"""Files of weights: our own, .safetensors, published ones and those of ultralytics, read without running code."""
