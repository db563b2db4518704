"""What a training run leaves on the disk; how it goes on from there; how it stops; where a NaN comes from."""
