"""What a training run leaves on the disk, and how it goes on from there, stops, or finds the origin of a NaN."""
