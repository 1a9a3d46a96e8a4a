"""What a run will do, decided before it begins: the blur, the noise, the schedule, the halo, memory and disk."""
