"""Per-device arithmetic of batch normalization.

Each module here holds the same four functions on arrays of shape ``(n, c, s)``: n
samples, c channels and s positions, whatever the layout was before. Statistics are
float64 arrays of shape ``(c,)``.
"""
