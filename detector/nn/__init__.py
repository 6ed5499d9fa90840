"""Networks, their heads, the label assigner and the losses."""
